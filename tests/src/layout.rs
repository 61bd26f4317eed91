//! Images that a test puts together.

use std::{
    fs,
    io::{Read, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::images_folder;

/// An OCI layout that a test puts together on top of the busybox image.
#[derive(Debug)]
pub struct Layout {
    folder: tempfile::TempDir,
    config: Value,
    manifest: Value,
}

impl Layout {
    /// The busybox image, to be extended.
    ///
    /// # Panics
    /// Where it was not built.
    #[must_use]
    pub fn on_busybox() -> Self {
        let base = images_folder().join("busybox");
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = folder.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a folder");
        let index = read_json(&base.join("index.json"));
        let manifest = read_json(&blob(&base, &index["manifests"][0]["digest"]));
        let config = read_json(&blob(&base, &manifest["config"]["digest"]));
        for layer in manifest["layers"].as_array().expect("layers") {
            let from = blob(&base, &layer["digest"]);
            fs::copy(&from, blobs.join(from.file_name().expect("a name"))).expect("copied");
        }
        Self { folder, config, manifest }
    }

    /// Adds a layer that holds one file of `bytes` bytes read from `contents`.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn add(&mut self, path: &str, bytes: u64, contents: impl Read) {
        self.add_layer(|tar| {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, contents).expect("written");
        });
    }

    /// Adds a layer that holds what `fill` puts into it.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn add_layer(&mut self, fill: impl FnOnce(&mut tar::Builder<fs::File>)) {
        let blobs = self.folder.path().join("blobs/sha256");
        let unfinished = blobs.join("unfinished");
        let mut tar = tar::Builder::new(fs::File::create(&unfinished).expect("a file"));
        fill(&mut tar);
        tar.into_inner().expect("finished").flush().expect("flushed");
        let (digest, length) = sha256(&unfinished);
        fs::rename(&unfinished, blobs.join(&digest)).expect("renamed");
        let digest = format!("sha256:{digest}");
        push(&mut self.config["rootfs"]["diff_ids"], json!(digest));
        push(
            &mut self.manifest["layers"],
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": length}),
        );
        if let Some(history) = self.config.as_object_mut() {
            history.remove("history");
        }
    }

    /// Writes configuration, manifest and index; gives the image's name.
    ///
    /// # Panics
    /// Where they cannot be written.
    pub fn finish(&mut self) -> String {
        let config = self.write(&self.config);
        self.manifest["config"]["digest"] = config["digest"].clone();
        self.manifest["config"]["size"] = config["size"].clone();
        let mut manifest = self.write(&self.manifest);
        manifest["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        let folder = self.folder.path();
        fs::write(folder.join("index.json"), index.to_string()).expect("written");
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        format!("oci:{}", folder.display())
    }

    fn write(&self, document: &Value) -> Value {
        let text = document.to_string();
        let digest = format!("{:x}", Hex(Sha256::digest(&text).into()));
        fs::write(self.folder.path().join("blobs/sha256").join(&digest), &text).expect("written");
        json!({"digest": format!("sha256:{digest}"), "size": text.len()})
    }
}

/// 32 bytes that show themselves in hexadecimal.
struct Hex([u8; 32]);

impl std::fmt::LowerHex for Hex {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// A file's SHA-256 in hexadecimal, and its length.
fn sha256(path: &Path) -> (String, u64) {
    let mut file = fs::File::open(path).expect("the file");
    let (mut hasher, mut buffer, mut length) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let count = file.read(&mut buffer).expect("the file");
        if count == 0 {
            return (format!("{:x}", Hex(hasher.finalize().into())), length);
        }
        hasher.update(&buffer[..count]);
        length += count as u64;
    }
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().expect("a list").push(item);
}

fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs").join(digest.as_str().expect("a digest").replace(':', "/"))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
}
