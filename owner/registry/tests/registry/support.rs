//! Images made by hand, so that each part of them can be wrong.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use caveau_oci::Digest;
use caveau_registry::{Event, Image, ImageSource, Options, Progress, Proxies, RegistryError, Retry, Store, resolve};
use serde_json::{Value, json};

/// A temporary folder with a store in it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn resolve(&self, source: &str) -> Result<Image, RegistryError> {
        self.resolve_with(source, &options())
    }

    pub(crate) fn resolve_with(&self, source: &str, options: &Options) -> Result<Image, RegistryError> {
        resolve(&self.store, &ImageSource::parse(source)?, options, &())
    }

    /// The names of all files of the store that hold something, without locks.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for part in ["layers", "blobs", "images", "partial", "tmp"] {
            for entry in fs::read_dir(self.store.root().join(part)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if !name.ends_with(".lock") {
                    found.push(format!("{part}/{name}"));
                }
            }
        }
        found.sort();
        found
    }

    /// Fails unless the store is as it was before anything was fetched.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.files(), Vec::<String>::new(), "something was left behind");
        let locks = fs::read_dir(self.store.root().join("layers")).unwrap().count();
        assert_eq!(locks, 0, "lock files were left behind");
    }
}

/// The defaults with short pauses and without logins and proxies of the one who tests.
pub(crate) fn options() -> Options {
    let retry = Retry {
        attempts: 3,
        first_pause: std::time::Duration::from_millis(2),
        longest_pause: std::time::Duration::from_secs(1),
    };
    Options { retry, docker_config: None, proxies: Proxies::default(), ..Options::default() }
}

/// Keeps events as text.
#[derive(Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Vec<String>>);

impl Progress for Recorder {
    fn report(&self, event: Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

impl Recorder {
    pub(crate) fn count(&self, word: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|event| event.starts_with(word)).count()
    }
}

/// A tar with regular files.
pub(crate) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(content: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(step).take(length).collect()
}

/// The parts of an image; each can be changed before it is written.
#[derive(Clone)]
pub(crate) struct Parts {
    /// Each layer's diff ID and blob.
    pub(crate) layers: Vec<(Digest, Vec<u8>)>,
    pub(crate) config: Value,
    pub(crate) manifest: Option<Value>,
}

impl Parts {
    /// An image of tars, packed in turn with gzip, zstd and not at all.
    pub(crate) fn new(tars: &[Vec<u8>]) -> Self {
        let pack = |(number, tar): (usize, &Vec<u8>)| {
            let blob = vec![gzip(tar), zstd(tar), tar.clone()].swap_remove(number % 3);
            (Digest::of(tar), blob)
        };
        let layers: Vec<_> = tars.iter().enumerate().map(pack).collect();
        let diff_ids: Vec<_> = layers.iter().map(|(diff_id, _)| diff_id.to_string()).collect();
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Self { layers, config, manifest: None }
    }

    /// Three small layers.
    pub(crate) fn small() -> Self {
        Self::new(&[
            layer(&[("etc/one", b"one"), ("bin/sh", &noise(300_000, 7))]),
            layer(&[("etc/two", b"two")]),
            layer(&[("etc/three", b"three"), (".wh.bin", b"")]),
        ])
    }

    pub(crate) fn config_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.config).unwrap()
    }

    /// The manifest as changed, or the one that fits.
    pub(crate) fn manifest_bytes(&self) -> Vec<u8> {
        let config = self.config_bytes();
        let layer = |(_, blob): &(Digest, Vec<u8>)| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(blob), "size": blob.len()})
        };
        let manifest = self.manifest.clone().unwrap_or_else(|| {
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": Digest::of(&config), "size": config.len()},
                "layers": self.layers.iter().map(layer).collect::<Vec<_>>()})
        });
        serde_json::to_vec(&manifest).unwrap()
    }

    /// All files of a layout with this image under `tag`.
    pub(crate) fn layout_files(&self, tag: &str) -> Vec<(String, Vec<u8>)> {
        let manifest = self.manifest_bytes();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&manifest), "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag}}]});
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), serde_json::to_vec(&index).unwrap()),
        ];
        for content in self.layers.iter().map(|(_, blob)| blob.clone()).chain([manifest, self.config_bytes()]) {
            files.push((format!("blobs/sha256/{}", Digest::of(&content).hex()), content));
        }
        files
    }

    pub(crate) fn write_layout(&self, dir: &Path, tag: &str) {
        for (name, content) in self.layout_files(tag) {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    /// All files of a Docker archive of the old form.
    pub(crate) fn docker_files(&self, reference: &str) -> Vec<(String, Vec<u8>)> {
        let config = self.config_bytes();
        let config_name = format!("{}.json", Digest::of(&config).hex());
        let mut files = vec![(config_name.clone(), config)];
        let mut names = Vec::new();
        for (number, (_, blob)) in self.layers.iter().enumerate() {
            let name = format!("{number}/layer.tar");
            files.push((name.clone(), blob.clone()));
            names.push(name);
        }
        let manifest = json!([{"Config": config_name, "RepoTags": [reference], "Layers": names}]);
        files.push(("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()));
        files
    }
}

/// A tar of files, in their order.
pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    layer(&files)
}

/// The diff IDs of an image's layers.
pub(crate) fn diff_ids(image: &Image) -> Vec<Digest> {
    image.layers.iter().map(|layer| layer.diff_id).collect()
}

/// Asserts that `result` failed with a message that has all `words`.
pub(crate) fn assert_refused<T>(result: Result<T, RegistryError>, words: &[&str]) {
    let error = result.err().expect("it was accepted");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}
