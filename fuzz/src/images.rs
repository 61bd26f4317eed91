//! Images: what registries, layouts and archives hold, and what users type.

use std::fmt::{Debug, Display};
use std::hint::black_box;
use std::str::FromStr;

use caveau_oci::{Document, ImageConfig, Platform, Reference};

use crate::Target;
use crate::archives::Place;
use crate::sections::{join, sections};

/// Manifests and indexes.
pub(crate) const MANIFEST: Target =
    Target { name: "manifest", run: manifest, seeds: manifests, fixtures: &[], rounds: 2000 };

/// Image configurations.
pub(crate) const IMAGE_CONFIG: Target =
    Target { name: "image_config", run: image_config, seeds: image_configs, fixtures: &[], rounds: 2000 };

/// The manifest of `docker save`.
pub(crate) const ARCHIVE_MANIFEST: Target =
    Target { name: "archive_manifest", run: archive_manifest, seeds: archive_manifests, fixtures: &[], rounds: 2000 };

/// References: what is accepted is written and read back the same.
pub(crate) const REFERENCE: Target =
    Target { name: "reference", run: reference, seeds: references, fixtures: &[], rounds: 4000 };

/// Small texts of every form: what is accepted is written and read back the same.
pub(crate) const WORDS: Target = Target { name: "words", run: words, seeds: all_words, fixtures: &[], rounds: 3000 };

/// A container's `/etc/passwd` and `/etc/group`, and the user to be found in them.
pub(crate) const USER_FILES: Target =
    Target { name: "user_files", run: user_files, seeds: user_databases, fixtures: &[], rounds: 1000 };

const DIGEST: &str = "sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

fn manifest(data: &[u8]) {
    for declared in [None, Some("application/vnd.oci.image.manifest.v1+json")] {
        if let Ok(Document::Index(index)) = caveau_oci::parse_document(data, declared) {
            drop(Platform::linux_amd64().select(&index));
        }
    }
    drop(caveau_oci::check_layout_marker(data));
    if let Ok(index) = caveau_oci::parse_layout_index(data) {
        drop(caveau_oci::select_named(&index, Some("latest"), None));
        drop(caveau_oci::select_named(&index, None, None));
    }
}

fn manifests() -> Vec<Vec<u8>> {
    let descriptor =
        |kind: &str| format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{DIGEST}","size":7}}"#);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{},{}]}}"#,
        descriptor("config.v1+json"),
        descriptor("layer.v1.tar+gzip"),
        descriptor("layer.v1.tar+zstd"),
    );
    let entry = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{DIGEST}","size":9,
        "platform":{{"os":"linux","architecture":"amd64"}},"annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}"#
    );
    let index =
        format!(r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{entry}]}}"#);
    [manifest, index, r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned()].map(String::into_bytes).into()
}

fn image_config(data: &[u8]) {
    if let Ok(config) = ImageConfig::parse(data) {
        drop(config.platform());
    }
}

pub(crate) fn image_configs() -> Vec<Vec<u8>> {
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z","config":{{"User":"101:101",
        "ExposedPorts":{{"80/tcp":{{}}}},"Env":["PATH=/bin","A=b=c"],"Entrypoint":["/entry"],"Cmd":["-g","daemon off;"],
        "Volumes":{{"/data":{{}}}},"WorkingDir":"/srv","Labels":{{"a":"b"}},"StopSignal":"SIGQUIT"}},
        "rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}},"history":[{{"created_by":"x","empty_layer":true}}]}}"#
    );
    vec![text.into_bytes()]
}

fn archive_manifest(data: &[u8]) {
    for image in caveau_oci::parse_archive_manifest(data).unwrap_or_default() {
        black_box(image.is_named("nginx:latest"));
    }
}

fn archive_manifests() -> Vec<Vec<u8>> {
    let old = r#"[{"Config":"6c3c.json","RepoTags":["nginx:latest"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    let new = r#"[{"Config":"blobs/sha256/6c3c","RepoTags":null,"Layers":["blobs/sha256/aa"],"LayerSources":{}}]"#;
    [old, new].map(|text| text.as_bytes().to_vec()).into()
}

fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
    }
}

fn references() -> Vec<Vec<u8>> {
    let digest = format!("quay.io:443/a/b-c__d/e.f@{DIGEST}");
    ["nginx", "docker.io/library/nginx:1.27", "localhost:5000/x/y:tag", "[::1]:5000/x", &digest]
        .map(|text| text.as_bytes().to_vec())
        .into()
}

/// Reads the text in one form; and back from what it is written as.
fn round_trip<T: FromStr<Err: Debug> + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        let again = written.parse::<T>().expect("what was written can be read");
        assert_eq!(again.to_string(), written);
    }
}

fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    round_trip::<caveau_oci::Digest>(text);
    round_trip::<Platform>(text);
    round_trip::<caveau_policy::Version>(text);
    round_trip::<caveau_firewall::IpNetwork>(text);
    round_trip::<caveau_group::Capability>(text);
    round_trip::<caveau_group::Signal>(text);
    round_trip::<caveau_protocol::ContainerId>(text);
    round_trip::<caveau_verity::RootHash>(text);
    round_trip::<caveau_snp::Hex<8>>(text);
    round_trip::<caveau_snp::time::Timestamp>(text);
    round_trip::<caveau_measure::LaunchDigest>(text);
    round_trip::<caveau_tee::TeeKind>(text);
    round_trip::<caveau_registry::ImageSource>(text);
    round_trip::<caveau_launch::PortForward>(text);
    round_trip::<caveau_launch::GroupName>(text);
    drop(text.parse::<caveau_group::Mount>());
    drop(text.parse::<caveau_group::User>());
    drop(text.parse::<caveau_measure::VcpuType>());
    drop(text.parse::<caveau_protocol::Nonce>());
    drop(caveau_tee::TeeKind::from_cmdline(text));
}

fn all_words() -> Vec<Vec<u8>> {
    let (hex, long) = ("ab".repeat(32), "0f".repeat(48));
    let mut words: Vec<String> = [
        "linux/amd64",
        "linux/arm64/v8",
        "0.12.0",
        "10.0.0.0/8",
        "fd00::/64",
        "CAP_CHOWN",
        "SIGTERM",
        "15",
        "0011223344556677",
        "2026-11-24",
        "2026-11-24T03:04:05Z",
        "snp",
        "caveau.tee=snp console=ttyS0",
        "oci:dir:tag",
        "127.0.0.1:8080:80/tcp",
        "8080:80",
        "my-group",
        "/tmp:size=64m,mode=1777",
        "101:nginx",
        "EPYC-Milan",
        "0x800f12",
    ]
    .map(str::to_owned)
    .into();
    words.extend([DIGEST.to_owned(), hex, long]);
    words.into_iter().map(String::into_bytes).collect()
}

fn user_files(data: &[u8]) {
    let parts = sections(data);
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    black_box((caveau_runtime::parse_passwd(part(1)).len(), caveau_runtime::parse_group(part(2)).len()));
    let Ok(user) = std::str::from_utf8(part(0)) else { return };
    let place = Place::new();
    let root = place.folder("etc");
    place.file("etc/passwd", part(1));
    place.file("etc/group", part(2));
    if let Ok(ids) = caveau_runtime::resolve_user(&root, user) {
        assert_eq!(caveau_runtime::resolve_user(&root, user).ok(), Some(ids.clone()));
        assert!(ids.uid < u32::MAX && ids.gid < u32::MAX, "a number that means none");
    }
}

fn user_databases() -> Vec<Vec<u8>> {
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nnginx:x:101:102::/var/nginx:\n# comment\nbad:x:1\n".to_vec();
    let group = b"root:x:0:\nnginx:x:102:nginx,root\nother:x:7:nginx\n".to_vec();
    ["nginx", "101:other", "7", "", "root:102"]
        .map(|user| join(&[user.as_bytes().to_vec(), passwd.clone(), group.clone()]))
        .into()
}
