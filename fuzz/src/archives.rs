//! Images as a whole: packed layers, archives and registries, through everything that reads them to a stored layer.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use caveau_layer::MemoryImage;
use caveau_oci::{Digest, Platform};
use caveau_registry::{
    GunzipReader, Image, ImageSource, Limits, Options, Proxies, PullPolicy, RegistryError, Retry, Store, resolve,
};
use tempfile::TempDir;

use crate::Target;
use crate::layers::{repaired, tars};
use crate::sections::{join, sections};

/// A layer's bytes as a registry has them: gzip, zstd, or neither.
pub(crate) const LAYER_STREAM: Target =
    Target { name: "layer_stream", run: layer_stream, seeds: streams, fixtures: &[], rounds: 600 };

/// The outer tar of an archive; again with its checksums put right.
pub(crate) const ARCHIVE_TAR: Target =
    Target { name: "archive_tar", run: archive_tar, seeds: archive_tars, fixtures: &[], rounds: 300 };

/// An image's documents and layer, whose digests are put right, in an archive of both kinds.
pub(crate) const ARCHIVE_IMAGE: Target =
    Target { name: "archive_image", run: |data| _ = resolved(data), seeds: image_parts, fixtures: &[], rounds: 200 };

/// Most bytes that a stream is unpacked to here: what expands further is somebody else's limit.
const UNPACKED: u64 = 4 << 20;

fn layer_stream(data: &[u8]) {
    let whole = unpacked(data, UNPACKED, 1 << 16);
    let again = unpacked(data, UNPACKED, 7);
    match (whole, again) {
        (Ok(whole), Ok(again)) => assert!(whole == again, "a stream unpacks to something else in small pieces"),
        (whole, again) => assert_eq!(whole.is_ok(), again.is_ok(), "a stream is refused by the size of its pieces"),
    }
    if data.starts_with(&[0x1f, 0x8b]) {
        gzip_in_chunks(data);
    }
}

/// The same stream in one chunk and in many, where threads guess at the beginnings of blocks.
fn gzip_in_chunks(data: &[u8]) {
    let unpacked = |threads, chunk| {
        let reader = GunzipReader::in_chunks(Cursor::new(data.to_vec()), threads, chunk, 1 << 10).expect("threads");
        let mut out = Vec::new();
        reader.take(UNPACKED).read_to_end(&mut out).map(|_| out)
    };
    let whole = unpacked(1, 1 << 20);
    for (threads, chunk) in [(1, 1 << 10), (2, 3 << 10)] {
        match (&whole, unpacked(threads, chunk)) {
            (Ok(whole), Ok(parts)) => assert!(*whole == parts, "a stream unpacks to something else in chunks"),
            (whole, parts) => assert_eq!(whole.is_ok(), parts.is_ok(), "a stream is refused by its chunks"),
        }
    }
}

/// At most `limit` bytes of an unpacked stream, read in pieces of this size.
fn unpacked(data: &[u8], limit: u64, piece: usize) -> std::io::Result<Vec<u8>> {
    let mut reader = caveau_registry::unpacked(Cursor::new(data.to_vec()))?.take(limit);
    let (mut out, mut buffer) = (Vec::new(), vec![0; piece]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(out),
            count => out.extend_from_slice(&buffer[..count]),
        }
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(content, flate2::Compression::default());
    encoder.read_to_end(&mut packed).expect("memory can be read");
    packed
}

/// A stream of so many blocks, some of them to a chunk.
fn blocks(count: u32) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for number in 0..count {
        let words = (0..90_u32).map(|word| word.wrapping_mul(number + 7).wrapping_mul(2_654_435_761) >> 20);
        let text: Vec<u8> = words.flat_map(|word| word.to_string().into_bytes()).collect();
        packed.write_all(&text).and_then(|()| packed.flush()).expect("memory takes it");
    }
    packed.finish().expect("memory takes it")
}

fn gzip_at(content: &[u8], level: u32) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    packed.write_all(content).expect("memory takes it");
    packed.finish().expect("memory takes it")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
}

fn streams() -> Vec<Vec<u8>> {
    let tar = &tars()[1];
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
    let mut streams = vec![
        gzip(tar),
        [gzip(b"one"), gzip(b""), gzip(b"two")].concat(),
        zstd(tar),
        [skippable, zstd(b"one"), zstd(b"")].concat(),
        b"plain".to_vec(),
        blocks(60),
    ];
    // Stored blocks with headers of blocks in their content, and members behind them that begin and end within a chunk.
    let nested = |count| [gzip_at(&blocks(count), 0), blocks(5), blocks(40)].concat();
    streams.extend((3..40).map(nested));
    streams
}

/// A folder with a store, in memory where the machine has such: nothing of it is to survive.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        Self(tempfile::Builder::new().prefix("caveau-fuzz-").tempdir_in(parent).expect("a folder"))
    }

    /// A file's path, once it holds these bytes.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// The place's own folder, once it has a folder of this name.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.0.path().join(name)).expect("a folder");
        self.0.path().to_owned()
    }

    /// What the source comes to. Whatever is refused must leave nothing in the store.
    pub(crate) fn resolve(&self, source: &ImageSource, options: &Options) -> Result<Image, RegistryError> {
        let root = self.0.path().join("store");
        let store = Store::open(&root).expect("a store");
        let result = resolve(&store, source, options, &());
        if result.is_err() {
            let left =
                ["layers", "images", "tmp"].map(|part| fs::read_dir(root.join(part)).expect("a part of the store"));
            let named = left.into_iter().flatten().map(|entry| entry.expect("an entry").path());
            let kept = named.filter(|path| path.extension().is_some_and(|kind| kind == "img" || kind == "tmp"));
            // One layer of an image may have been good; none that was not is kept.
            for path in kept {
                assert!(path.with_extension("json").exists(), "{} is half made", path.display());
            }
        }
        drop(fs::remove_dir_all(&root));
        result
    }
}

/// Small bounds, no pauses, nobody's login.
pub(crate) fn options(proxies: Proxies) -> Options {
    Options {
        platform: Platform::linux_amd64(),
        pull: PullPolicy::Always,
        ca_certificates: Vec::new(),
        insecure_registries: Vec::new(),
        docker_config: None,
        proxies,
        parallel: 1,
        retry: Retry { attempts: 2, first_pause: Duration::ZERO, longest_pause: Duration::ZERO },
        limits: Limits {
            blob_bytes: 1 << 20,
            layer_bytes: 4 << 20,
            image_bytes: 8 << 20,
            free_bytes: 4 << 20,
            ratio: 200,
            free_names: 1000,
            name_bytes: 4,
            archive_entries: 1000,
        },
    }
}

fn archive_tar(data: &[u8]) {
    read_archive(data);
    let repaired = repaired(data);
    if repaired != data {
        read_archive(&repaired);
    }
}

/// Reads a tar as an archive of each kind.
fn read_archive(tar: &[u8]) {
    let place = Place::new();
    let path = place.file("archive", tar);
    for kind in ["oci-archive", "docker-archive"] {
        let source = ImageSource::parse(&format!("{kind}:{}", path.display())).expect("a source");
        if let Ok(image) = place.resolve(&source, &options(Proxies::default())) {
            assert_eq!(image.config.diff_ids.len(), image.layers.len(), "an image lacks layers");
        }
    }
}

/// An image whose parts name one another by digest, as `@layer`, `@diff`, `@config` and `@manifest`.
pub(crate) struct Parts {
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    names: Vec<(&'static str, String)>,
}

impl Parts {
    /// The first three parts of an input, each with the marks of those before it filled in; and the parts after them.
    pub(crate) fn new(data: &[u8]) -> (Self, Vec<&[u8]>) {
        let mut parts = sections(data).into_iter();
        let layer = parts.next().unwrap_or_default().to_vec();
        let tar = unpacked(&layer, UNPACKED, 1 << 16).unwrap_or_default();
        let mut image = Self { layer: Vec::new(), config: Vec::new(), manifest: Vec::new(), names: Vec::new() };
        image.names.push(("@diff", Digest::of(&tar).to_string()));
        image.name("@layer", "@layer-size", &layer);
        image.layer = layer;
        image.config = image.filled(parts.next().unwrap_or_default());
        let config = image.config.clone();
        image.name("@config", "@config-size", &config);
        image.manifest = image.filled(parts.next().unwrap_or_default());
        let manifest = image.manifest.clone();
        image.name("@manifest", "@manifest-size", &manifest);
        (image, parts.collect())
    }

    fn name(&mut self, digest: &'static str, size: &'static str, content: &[u8]) {
        // The longer mark first, of which the other is a part.
        self.names.push((size, content.len().to_string()));
        self.names.push((digest, Digest::of(content).to_string()));
    }

    /// Text with the known marks filled in.
    pub(crate) fn filled(&self, text: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(text) else { return text.to_vec() };
        let filled = self.names.iter().fold(text.to_owned(), |text, (mark, value)| text.replace(mark, value));
        filled.into_bytes()
    }
}

/// How many kinds of archive give the image.
fn resolved(data: &[u8]) -> usize {
    let (image, rest) = Parts::new(data);
    let blob = |content: &[u8]| format!("blobs/sha256/{}", Digest::of(content).hex());
    let index = image.filled(rest.first().copied().unwrap_or_default());
    let saved = image.filled(rest.get(1).copied().unwrap_or_default());
    let files = [
        ("oci-layout".to_owned(), &br#"{"imageLayoutVersion":"1.0.0"}"#[..]),
        ("index.json".to_owned(), &index),
        ("manifest.json".to_owned(), &saved),
        ("layer.tar".to_owned(), &image.layer),
        ("config.json".to_owned(), &image.config),
        (blob(&image.layer), &image.layer),
        (blob(&image.config), &image.config),
        (blob(&image.manifest), &image.manifest),
    ];
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in &files {
        crate::layers::add(&mut tar, tar::EntryType::Regular, name, content, None);
    }
    let tar = tar.into_inner().expect("memory takes it");
    let place = Place::new();
    let path = place.file("archive", &tar);
    let kinds = ["oci-archive", "docker-archive"].into_iter().filter(|kind| {
        let source = ImageSource::parse(&format!("{kind}:{}", path.display())).expect("a source");
        let found = place.resolve(&source, &options(Proxies::default()));
        found.inspect(|found| check(&image, found)).is_ok()
    });
    kinds.count()
}

/// What was stored is the layer's own image, and the configuration is the one that was sent.
pub(crate) fn check(parts: &Parts, image: &Image) {
    assert_eq!(image.config_digest, Digest::of(&parts.config), "another configuration was taken");
    let tar = unpacked(&parts.layer, UNPACKED, 1 << 16).expect("a stored layer unpacks");
    let limits = caveau_layer::Limits { image_bytes: 16 << 20, entries: 1000, attribute_bytes: 1 << 20 };
    let converted = caveau_layer::convert(tar.as_slice(), &MemoryImage::default(), &limits, NonZeroUsize::MIN);
    for layer in image.layers.iter().filter(|layer| layer.diff_id == Digest::of(&tar)) {
        let root = converted.as_ref().map(|summary| summary.root).expect("a stored layer converts");
        assert_eq!(layer.root, root, "a stored layer has another root hash than its tar");
    }
}

/// Layer, configuration, manifest, index, `docker save`'s manifest.
pub(crate) fn image_parts() -> Vec<Vec<u8>> {
    let config = br#"{"architecture":"amd64","os":"linux","config":{"Cmd":["/x"]},"rootfs":{"type":"layers","diff_ids":["@diff"]}}"#;
    let manifest = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"@config","size":@config-size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"@layer","size":@layer-size}]}"#;
    let index = br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"@manifest","size":@manifest-size,"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}"#;
    let saved = br#"[{"Config":"config.json","RepoTags":["x:latest"],"Layers":["layer.tar"]}]"#;
    let rest = [config.to_vec(), manifest.to_vec(), index.to_vec(), saved.to_vec()];
    let layers = [gzip(&tars()[2]), zstd(&tars()[2]), tars()[2].clone()];
    layers.into_iter().map(|layer| join(&[vec![layer], rest.to_vec()].concat())).collect()
}

fn archive_tars() -> Vec<Vec<u8>> {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let mut tar = tar::Builder::new(Vec::new());
    let saved = br#"[{"Config":"c.json","RepoTags":[],"Layers":[]}]"#;
    crate::layers::add(&mut tar, tar::EntryType::Directory, "blobs/", b"", None);
    crate::layers::add(&mut tar, tar::EntryType::Symlink, "link", b"", Some("c.json"));
    crate::layers::add(&mut tar, tar::EntryType::Regular, "manifest.json", saved, None);
    crate::layers::add(&mut tar, tar::EntryType::Regular, "c.json", config, None);
    let mut all = tars();
    all.push(tar.into_inner().expect("memory takes it"));
    all.push(gzip(&all[1]));
    all
}

#[cfg(test)]
mod tests {
    use super::{image_parts, resolved};

    #[test]
    fn seeds_are_images_in_both_kinds_of_archive() {
        for seed in image_parts() {
            assert_eq!(resolved(&seed), 2);
        }
    }
}
