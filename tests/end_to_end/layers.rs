//! Images at the edges: many layers, and a large one.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use caveau_tests::{Caveau, images_folder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// An OCI layout that a test puts together on top of the busybox image.
struct Layout {
    folder: tempfile::TempDir,
    config: Value,
    manifest: Value,
}

impl Layout {
    /// The busybox image, to be extended.
    fn on_busybox() -> Self {
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
    fn add(&mut self, path: &str, bytes: u64, contents: impl Read) {
        let blobs = self.folder.path().join("blobs/sha256");
        let unfinished = blobs.join("unfinished");
        let mut tar = tar::Builder::new(fs::File::create(&unfinished).expect("a file"));
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, contents).expect("written");
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
    fn finish(&mut self) -> String {
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

#[test]
fn twenty_layers_are_one_file_system() {
    let Some(caveau) = Caveau::new() else { return };
    let mut layout = Layout::on_busybox();
    for number in 1..20u32 {
        let text = format!("layer {number}\n");
        layout.add(&format!("layers/{number}"), text.len() as u64, text.as_bytes());
    }
    layout.add("layers/7", 6, &b"above\n"[..]);
    let image = layout.finish();
    let outcome =
        caveau.run(&["run", "--rm", &image, "--", "sh", "-c", "cat /layers/19 /layers/7; ls /layers | wc -l"]);
    assert_eq!(outcome.success().stdout, "layer 19\nabove\n19\n");
}

#[test]
fn a_layer_of_one_gibibyte_is_read_at_its_end() {
    let Some(caveau) = Caveau::new() else { return };
    let cache = tempfile::tempdir().expect("a folder");
    let mut layout = Layout::on_busybox();
    let end = b"the very end\n";
    let bytes = 1u64 << 30;
    let contents = std::io::repeat(0xa5).take(bytes - end.len() as u64).chain(&end[..]);
    layout.add("large", bytes, contents);
    let image = layout.finish();
    let script =
        "stat -c %s /large; tail -c 13 /large; dd if=/large bs=1M skip=500 count=1 2>/dev/null | od -An -tx1 | head -1";
    let arguments = ["run", "--rm", &image, "--", "sh", "-c", script];
    let output = caveau.command(&arguments).env("XDG_CACHE_HOME", cache.path()).output().expect("caveau runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("1073741824\nthe very end\n a5 a5"), "{text}");
}
