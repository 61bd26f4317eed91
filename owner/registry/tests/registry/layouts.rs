//! Layouts and archives: what is accepted, and what each kind of lie leads to.

use std::fs;

use caveau_oci::{Digest, Platform};
use caveau_registry::{Limits, Options};
use serde_json::json;

use crate::support::{Parts, Place, archive, assert_refused, diff_ids, gzip, layer, noise, options, zstd};

#[test]
fn every_form_gives_the_same_layers() {
    let place = Place::new();
    let parts = Parts::small();
    parts.write_layout(&place.path("layout"), "v1");
    fs::write(place.path("oci.tar"), archive(&parts.layout_files("v1"))).unwrap();
    fs::write(place.path("oci.tar.gz"), gzip(&archive(&parts.layout_files("v1")))).unwrap();
    fs::write(place.path("docker.tar"), archive(&parts.docker_files("demo:v1"))).unwrap();
    let manifest = Digest::of(&parts.manifest_bytes());
    let config = Digest::of(&parts.config_bytes());
    let dir = place.path("");
    let dir = dir.to_str().unwrap();
    for source in [
        format!("oci:{dir}layout"),
        format!("oci:{dir}layout:v1"),
        format!("oci:{dir}layout@{manifest}"),
        format!("oci-archive:{dir}oci.tar:v1"),
        format!("oci-archive:{dir}oci.tar.gz@{manifest}"),
        format!("docker-archive:{dir}docker.tar"),
        format!("docker-archive:{dir}docker.tar:demo:v1"),
        format!("docker-archive:{dir}docker.tar:docker.io/library/demo:v1"),
        format!("docker-archive:{dir}docker.tar@{config}"),
    ] {
        let image = place.resolve(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(diff_ids(&image), parts.layers.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{source}");
        assert_eq!(image.config_digest, config);
        assert_eq!(image.manifest_digest.is_some(), !source.starts_with("docker"));
        assert_eq!(image.config.cmd, ["sh"]);
        for layer in &image.layers {
            assert_eq!(fs::metadata(&layer.path).unwrap().len(), layer.bytes);
        }
    }
}

#[test]
fn docker_archives_that_are_layouts_know_their_manifest() {
    let place = Place::new();
    let mut parts = Parts::small();
    // `docker save` stores layers without compression.
    parts.layers[0].1 = layer(&[("etc/one", b"one"), ("bin/sh", &noise(300_000, 7))]);
    parts.layers[1].1 = layer(&[("etc/two", b"two")]);
    let mut files = parts.layout_files("v1");
    let blob = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
    let manifest = json!([{
        "Config": blob(Digest::of(&parts.config_bytes())), "RepoTags": ["demo:v1"],
        "Layers": parts.layers.iter().map(|(_, bytes)| blob(Digest::of(bytes))).collect::<Vec<_>>(),
    }]);
    files.push(("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()));
    fs::write(place.path("new.tar"), archive(&files)).unwrap();
    let path = place.path("new.tar");
    let expected = Digest::of(&parts.manifest_bytes());
    for suffix in [String::new(), ":demo:v1".to_owned(), format!("@{expected}")] {
        let image = place.resolve(&format!("docker-archive:{}{suffix}", path.display())).unwrap();
        assert_eq!(image.manifest_digest, Some(expected));
    }
    let other = format!("docker-archive:{}@{}", path.display(), Digest::of(b"other"));
    assert_refused(place.resolve(&other), &["no image with digest", "demo:v1"]);
}

#[test]
fn a_flipped_byte_anywhere_is_a_wrong_digest_and_leaves_nothing() {
    let parts = Parts::small();
    let names: Vec<String> = parts.layout_files("v1").into_iter().map(|(name, _)| name).collect();
    for name in names.iter().filter(|name| name.starts_with("blobs/")) {
        for position in [0.0, 0.5, 0.999] {
            let place = Place::new();
            parts.write_layout(&place.path("layout"), "v1");
            let path = place.path("layout").join(name);
            let mut content = fs::read(&path).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a small file")]
            let at = (content.len() as f64 * position) as usize;
            content[at] ^= 0x10;
            fs::write(&path, content).unwrap();
            let result = place.resolve(&format!("oci:{}", place.path("layout").display()));
            assert_refused(result, &["has digest sha256:", "expected sha256:", "changed or damaged"]);
            let layers = place.files();
            assert!(layers.iter().all(|file| !file.starts_with("tmp/") && !file.starts_with("images/")), "{layers:?}");
            assert!(layers.len() <= 4, "only the other two layers may be there: {layers:?}");
        }
    }
}

#[test]
fn wrong_sizes_and_diff_ids_leave_nothing() {
    let place = Place::new();
    let mut parts = Parts::new(&[layer(&[("a", b"b")])]);
    let good: serde_json::Value = serde_json::from_slice(&parts.manifest_bytes()).unwrap();
    for change in [-1_i64, 1, 1 << 40] {
        let mut manifest = good.clone();
        let size = &mut manifest["layers"][0]["size"];
        *size = (size.as_i64().unwrap() + change).into();
        parts.manifest = Some(manifest);
        parts.write_layout(&place.path("layout"), "v1");
        assert_refused(
            place.resolve(&format!("oci:{}", place.path("layout").display())),
            &[if change > 1 { "limit" } else { "bytes, expected" }],
        );
    }
    parts.manifest = None;
    parts.config["rootfs"]["diff_ids"] = json!([Digest::of(b"something else")]);
    parts.write_layout(&place.path("layout"), "v1");
    assert_refused(
        place.resolve(&format!("oci:{}", place.path("layout").display())),
        &["uncompressed layer", "changed"],
    );
    parts.config["rootfs"]["diff_ids"] = json!([]);
    parts.write_layout(&place.path("layout"), "v1");
    assert_refused(place.resolve(&format!("oci:{}", place.path("layout").display())), &["0 diff IDs", "1 layers"]);
    place.assert_nothing_left();
}

#[test]
fn truncated_and_odd_layers_are_named() {
    let place = Place::new();
    let tar = layer(&[("a", &noise(100_000, 3))]);
    let source = format!("oci:{}", place.path("layout").display());
    for (blob, word) in [
        (gzip(&tar)[..50_000].to_vec(), "failed to unpack layer"),
        (zstd(&tar)[..50_000].to_vec(), "failed to unpack layer"),
        (tar[..50_000].to_vec(), "layer"),
        ([gzip(&tar), b"junk".to_vec()].concat(), "failed to unpack layer"),
        (noise(5000, 9), "failed to convert layer"),
    ] {
        let mut parts = Parts::new(std::slice::from_ref(&tar));
        parts.layers[0].1 = blob;
        parts.write_layout(&place.path("layout"), "v1");
        assert_refused(place.resolve(&source), &[word]);
        fs::remove_dir_all(place.path("layout")).unwrap();
    }
    place.assert_nothing_left();
}

#[test]
fn bytes_after_the_tar_belong_to_its_identity() {
    let place = Place::new();
    let mut tar = layer(&[("a", b"b")]);
    tar.extend(vec![0; 1 << 20]);
    Parts::new(std::slice::from_ref(&tar)).write_layout(&place.path("layout"), "v1");
    let image = place.resolve(&format!("oci:{}", place.path("layout").display())).unwrap();
    assert_eq!(diff_ids(&image), [Digest::of(&tar)]);
}

#[test]
fn bombs_go_off_at_the_limit() {
    let place = Place::new();
    let zeros = vec![0; 20 << 20];
    let tar = layer(&[("zeros", &zeros)]);
    let mut parts = Parts::new(std::slice::from_ref(&tar));
    let source = format!("oci:{}", place.path("layout").display());
    let tight = Limits { free_bytes: 4 << 20, ratio: 50, ..Limits::default() };
    for blob in [gzip(&tar), zstd(&tar)] {
        parts.layers[0].1 = blob;
        parts.write_layout(&place.path("layout"), "v1");
        let bounded = Options { limits: tight, ..options() };
        assert_refused(place.resolve_with(&source, &bounded), &["50 times", "limit of 4194304 bytes"]);
        let limits = Limits { layer_bytes: 1 << 20, ..Limits::default() };
        assert_refused(place.resolve_with(&source, &Options { limits, ..options() }), &["limit of 1048576 bytes"]);
        let limits = Limits { image_bytes: 1 << 20, ..Limits::default() };
        assert_refused(
            place.resolve_with(&source, &Options { limits, ..options() }),
            &["image is more than the limit"],
        );
        place.assert_nothing_left();
        fs::remove_dir_all(place.path("layout")).unwrap();
    }
    // The same content as a plain tar is no bomb, and within the default limits it is none at all.
    parts.layers[0].1 = tar;
    parts.write_layout(&place.path("layout"), "v1");
    place.resolve_with(&source, &Options { limits: tight, ..options() }).unwrap();
}

#[test]
fn a_packed_archive_is_held_against_the_limits_too() {
    let place = Place::new();
    let mut files = Parts::small().layout_files("v1");
    files.push(("filler".to_owned(), vec![0; 20 << 20]));
    fs::write(place.path("x.tar.gz"), gzip(&archive(&files))).unwrap();
    let limits = Limits { free_bytes: 1 << 20, ratio: 2, ..Limits::default() };
    let source = format!("oci-archive:{}", place.path("x.tar.gz").display());
    assert_refused(place.resolve_with(&source, &Options { limits, ..options() }), &["unpacked archive", "limit of"]);
    place.resolve(&source).unwrap();
}

/// A tar of a kilobyte may name paths and sparse files that take gigabytes.
#[test]
fn tars_that_are_short_and_file_systems_that_are_large_are_refused() {
    use tar::EntryType as Kind;
    let place = Place::new();
    let source = format!("oci:{}", place.path("layout").display());
    let refused = |tar: Vec<u8>, limits: Limits, words: &[&str]| {
        Parts::new(&[tar]).write_layout(&place.path("layout"), "v1");
        assert_refused(place.resolve_with(&source, &Options { limits, ..options() }), words);
        place.assert_nothing_left();
        fs::remove_dir_all(place.path("layout")).unwrap();
    };
    let deep = format!("path={}f\n", "d/".repeat(100_000));
    let deep = format!("{} {deep}", deep.len() + 7);
    let tar = [entry("pax", Kind::XHeader, "", deep.as_bytes()), entry("f", Kind::Regular, "", b""), vec![0; 1024]];
    refused(tar.concat(), Limits::default(), &["more than the 66058 names that are allowed"]);

    let record = |text: &str| format!("{} {text}\n", text.len() + 4);
    let map = ["GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.numblocks=0", "GNU.sparse.size=1073741824"];
    let map = map.map(record).concat();
    let tar = [entry("pax", Kind::XHeader, "", map.as_bytes()), entry("f", Kind::Regular, "", b""), vec![0; 1024]];
    let tight = Limits { free_bytes: 1 << 20, ..Limits::default() };
    refused(tar.concat(), tight, &["become file systems of 200 times their size", "limit of 1048576 bytes"]);
    let tight = Limits { image_bytes: 1 << 20, ..Limits::default() };
    refused(tar.concat(), tight, &["the converted image is more than the limit of 1048576 bytes"]);
    Parts::new(&[tar.concat()]).write_layout(&place.path("layout"), "v1");
    place.resolve(&source).unwrap();
}

/// One entry with a name that tools would not write.
fn entry(name: &str, kind: tar::EntryType, target: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn hostile_outer_archives_are_refused() {
    use tar::EntryType as Kind;
    let place = Place::new();
    let parts = Parts::small();
    let docker = archive(&parts.docker_files("demo:v1"));
    let long = entry("././@LongLink", Kind::GNULongName, "", &[b'a'; 100_000]);
    let dots = entry("././@LongLink", Kind::GNULongName, "", b"x/../../y\0");
    let pax_dots = entry("pax", Kind::XHeader, "", b"20 path=../escape-x\n");
    let pax_size = entry("pax", Kind::XHeader, "", b"28 size=9999999999999999999\n");
    let many_names = (0..9000).map(|number| {
        let name = format!("{number}/{}\0", "n".repeat(4000));
        [entry("././@LongLink", Kind::GNULongName, "", name.as_bytes()), entry("n", Kind::Regular, "", b"")].concat()
    });
    let many_names = many_names.collect::<Vec<_>>().concat();
    let mut damaged = docker.clone();
    damaged[100] ^= 1;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (entry("../evil", Kind::Regular, "", b"x"), "leads out of the archive"),
        (entry("a/../../evil", Kind::Regular, "", b"x"), "leads out of the archive"),
        (entry("/etc/passwd", Kind::Regular, "", b"x"), "leads out of the archive"),
        ([dots, entry("y", Kind::Regular, "", b"x")].concat(), "leads out of the archive"),
        ([pax_dots, entry("y", Kind::Regular, "", b"x")].concat(), "leads out of the archive"),
        (entry("l", Kind::Symlink, "/etc/passwd", b""), "link that leaves the archive"),
        (entry("a/l", Kind::Symlink, "../../x", b""), "link that leaves the archive"),
        (entry("l", Kind::Link, "manifest.json", b""), "neither file, folder nor symbolic link"),
        (entry("dev", Kind::Char, "", b""), "neither file, folder nor symbolic link"),
        (entry("fifo", Kind::Fifo, "", b""), "neither file, folder nor symbolic link"),
        (entry("sparse", Kind::GNUSparse, "", b""), "neither file, folder nor symbolic link"),
        (entry("manifest.json", Kind::Regular, "", b"[]"), "is in it twice"),
        (entry("./manifest.json", Kind::Regular, "", b"[]"), "is in it twice"),
        (entry("0//layer.tar", Kind::Regular, "", b""), "is in it twice"),
        (entry("manifest.json", Kind::Directory, "", b""), "is in it twice"),
        (long, "extension header has 100000 bytes"),
        (entry("././@LongLink", Kind::GNULongName, "", &[b'a'; 5000]), "a name has 5000 bytes, more than 4096"),
        (many_names, "names have more than 33554432 bytes in all"),
        (entry("a\u{1b}[2J/../x", Kind::Regular, "", b"x"), "a\\u{1b}[2J/../x leads out"),
        ([pax_size, entry("y", Kind::Regular, "", b"x")].concat(), "cut off"),
    ];
    let source = format!("docker-archive:{}", place.path("x.tar").display());
    for (extra, word) in cases {
        fs::write(place.path("x.tar"), [extra.clone(), docker.clone()].concat()).unwrap();
        assert_refused(place.resolve(&source), &["x.tar is refused", word]);
    }
    fs::write(place.path("x.tar"), &damaged).unwrap();
    assert_refused(place.resolve(&source), &["it is not a tar"]);
    fs::write(place.path("x.tar"), &docker[..docker.len() / 2]).unwrap();
    assert_refused(place.resolve(&source), &["cut off"]);
    fs::write(place.path("x.tar"), b"").unwrap();
    assert_refused(place.resolve(&source), &["no manifest.json"]);
    let limits = Limits { archive_entries: 3, ..Limits::default() };
    fs::write(place.path("x.tar"), &docker).unwrap();
    assert_refused(place.resolve_with(&source, &Options { limits, ..options() }), &["more than 3 entries"]);
    place.assert_nothing_left();
    place.resolve(&source).unwrap();
}

#[test]
fn links_inside_an_archive_stand_for_layers_only() {
    use tar::EntryType as Kind;
    let place = Place::new();
    let tar = layer(&[("same", b"twice")]);
    let parts = Parts::new(&[tar.clone(), tar.clone()]);
    let mut plain = parts.clone();
    plain.layers.iter_mut().for_each(|(_, blob)| *blob = tar.clone());
    let files: Vec<_> = plain.docker_files("demo:v1").into_iter().filter(|(name, _)| name != "1/layer.tar").collect();
    let source = format!("docker-archive:{}", place.path("x.tar").display());
    let link = entry("1/layer.tar", Kind::Symlink, "../0/layer.tar", b"");
    fs::write(place.path("x.tar"), [link, archive(&files)].concat()).unwrap();
    assert_eq!(place.resolve(&source).unwrap().layers.len(), 2);
    // A link to a link is not followed, nor is one in place of the manifest.
    let links = [entry("1/layer.tar", Kind::Symlink, "../2", b""), entry("2", Kind::Symlink, "0/layer.tar", b"")];
    fs::write(place.path("x.tar"), [links.concat(), archive(&files)].concat()).unwrap();
    assert_refused(place.resolve(&source), &["2 is a link where a file is needed"]);
    let others: Vec<_> = files.iter().filter(|(name, _)| name != "manifest.json").cloned().collect();
    let link = entry("manifest.json", Kind::Symlink, "0/layer.tar", b"");
    fs::write(place.path("x.tar"), [link, archive(&others)].concat()).unwrap();
    assert_refused(place.resolve(&source), &["no manifest.json"]);
}

/// An archive of a few megabytes must not become gigabytes of memory, however often it names them.
#[test]
fn a_manifest_named_a_thousand_times_is_read_once() {
    let place = Place::new();
    let parts = Parts::small();
    let mut manifest = parts.manifest_bytes();
    manifest.resize(4 << 20, b' ');
    let digest = Digest::of(&manifest);
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest, "size": manifest.len()});
    let index = json!({"schemaVersion": 2, "manifests": vec![entry; 1000]});
    let mut files = parts.docker_files("demo:v1");
    files.push(("index.json".to_owned(), serde_json::to_vec(&index).unwrap()));
    files.push((format!("blobs/sha256/{}", digest.hex()), manifest));
    fs::write(place.path("x.tar"), archive(&files)).unwrap();
    let source = format!("docker-archive:{}@{digest}", place.path("x.tar").display());
    assert_eq!(place.resolve(&source).unwrap().manifest_digest, Some(digest));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 2 << 20, "{peak_kib} KiB were in use");
}

/// Indexes that name thousands of indexes must not pile up.
#[test]
fn the_entries_of_nested_indexes_are_bounded_together() {
    let place = Place::new();
    let mut files = Parts::small().docker_files("demo:v1");
    let blob = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
    let entry = |digest: Digest| {
        json!({"mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest, "size": 1})
    };
    let named = |numbers: std::ops::Range<u32>| numbers.map(|number| Digest::of(&number.to_le_bytes()));
    files.extend(named(0..6000).map(|digest| (blob(digest), Vec::new())));
    let inner = json!({"schemaVersion": 2, "manifests": named(0..3000).map(entry).collect::<Vec<_>>()});
    let inner = serde_json::to_vec(&inner).unwrap();
    files.push((blob(Digest::of(&inner)), inner.clone()));
    let all = named(3000..6000).chain([Digest::of(&inner)]).map(entry).collect::<Vec<_>>();
    let index = json!({"schemaVersion": 2, "manifests": all});
    files.push(("index.json".to_owned(), serde_json::to_vec(&index).unwrap()));
    fs::write(place.path("x.tar"), archive(&files)).unwrap();
    let source = format!("docker-archive:{}", place.path("x.tar").display());
    assert_refused(place.resolve(&source), &["its index has too many entries"]);
}

#[test]
fn what_documents_say_does_not_reach_the_terminal() {
    let place = Place::new();
    let source = format!("docker-archive:{}", place.path("x.tar").display());
    let mut files = Parts::small().docker_files("demo\u{1b}[2J");
    fs::write(place.path("x.tar"), archive(&files)).unwrap();
    assert_refused(place.resolve(&format!("{source}:other")), &["demo\\u{1b}[2J"]);
    let text = String::from_utf8(files.pop().unwrap().1).unwrap();
    files.push(("manifest.json".to_owned(), text.replace("0/layer.tar", "\\u001b[2J").into_bytes()));
    fs::write(place.path("x.tar"), archive(&files)).unwrap();
    assert_refused(place.resolve(&source), &["there is no file \\u{1b}[2J"]);
    let mut parts = Parts::small();
    parts.config["architecture"] = json!("\u{1b}[2J");
    parts.write_layout(&place.path("layout"), "v1");
    let result = place.resolve(&format!("oci:{}", place.path("layout").display()));
    assert_refused(result, &["made for linux/\\u{1b}[2J, not"]);
}

#[test]
fn a_packed_archive_is_unpacked_into_the_store() {
    let place = Place::new();
    fs::write(place.path("x.tar.gz"), gzip(&archive(&[]))).unwrap();
    let source = format!("oci-archive:{}", place.path("x.tar.gz").display());
    assert_refused(place.resolve(&source), &["holds no OCI image layout"]);
    fs::remove_dir(place.store.root().join("tmp")).unwrap();
    assert_refused(place.resolve(&source), &["failed to create a file in", "store/tmp"]);
}

#[test]
fn paths_in_a_docker_manifest_stay_inside() {
    let place = Place::new();
    let mut files = Parts::small().docker_files("demo:v1");
    let text = String::from_utf8(files.pop().unwrap().1).unwrap();
    let source = format!("docker-archive:{}", place.path("x.tar").display());
    for path in ["/etc/passwd", "../x.tar", "missing"] {
        let manifest = text.replace("0/layer.tar", path).into_bytes();
        let files = [files.clone(), vec![("manifest.json".to_owned(), manifest)]].concat();
        fs::write(place.path("x.tar"), archive(&files)).unwrap();
        assert_refused(place.resolve(&source), &["there is no file", path]);
    }
}

#[test]
fn the_right_image_is_found_or_the_names_are_told() {
    let place = Place::new();
    let parts = Parts::small();
    parts.write_layout(&place.path("layout"), "v1");
    let layout = place.path("layout");
    let source = |suffix: &str| format!("oci:{}{suffix}", layout.display());
    assert_refused(place.resolve(&source(":v2")), &["\"v2\"", "v1"]);
    assert_refused(place.resolve("oci:/nonexistent/layout"), &["failed to open /nonexistent/layout/oci-layout"]);
    let arm: Platform = "linux/arm64".parse().unwrap();
    let options = Options { platform: arm, ..options() };
    assert_refused(place.resolve_with(&source(""), &options), &["made for linux/amd64, not for linux/arm64"]);
    fs::write(place.path("x.tar"), archive(&parts.layout_files("v1"))).unwrap();
    let tar = place.path("x.tar");
    assert_refused(place.resolve(&format!("docker-archive:{}", tar.display())), &["use oci-archive:"]);
    fs::write(&tar, archive(&parts.docker_files("demo:v1"))).unwrap();
    assert_refused(place.resolve(&format!("oci-archive:{}", tar.display())), &["use docker-archive:"]);
    assert_refused(place.resolve(&format!("docker-archive:{}:other", tar.display())), &["\"other\"", "demo:v1"]);
    place.assert_nothing_left();
}

#[test]
fn an_index_in_a_layout_is_followed_by_platform() {
    let place = Place::new();
    let amd = Parts::small();
    let mut arm = Parts::new(&[layer(&[("arm", b"arm")])]);
    arm.config["architecture"] = json!("arm64");
    let layout = place.path("layout");
    arm.write_layout(&layout, "v1");
    amd.write_layout(&layout, "v1");
    let descriptor = |parts: &Parts, architecture: &str| {
        let bytes = parts.manifest_bytes();
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(&bytes),
            "size": bytes.len(), "platform": {"os": "linux", "architecture": architecture}})
    };
    let list = [descriptor(&arm, "arm64"), descriptor(&amd, "amd64")];
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": list})).unwrap();
    fs::write(layout.join("blobs/sha256").join(Digest::of(&index).hex()), &index).unwrap();
    let top = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": Digest::of(&index), "size": index.len(),
        "annotations": {"org.opencontainers.image.ref.name": "multi"}}]});
    fs::write(layout.join("index.json"), serde_json::to_vec(&top).unwrap()).unwrap();
    let source = format!("oci:{}:multi", layout.display());
    assert_eq!(diff_ids(&place.resolve(&source).unwrap()).len(), 3);
    let options = |text: &str| Options { platform: text.parse().unwrap(), ..options() };
    assert_eq!(diff_ids(&place.resolve_with(&source, &options("linux/arm64")).unwrap()).len(), 1);
    assert_refused(place.resolve_with(&source, &options("linux/riscv64")), &["linux/arm64, linux/amd64"]);
    // By digest, also what the layout's own index does not name.
    let by_digest = |digest: Digest| format!("oci:{}@{digest}", layout.display());
    let manifest = Digest::of(&amd.manifest_bytes());
    assert_eq!(place.resolve(&by_digest(manifest)).unwrap().manifest_digest, Some(manifest));
    assert_refused(place.resolve(&by_digest(Digest::of(b"none"))), &["no image with digest", "multi"]);
}
