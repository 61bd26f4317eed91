//! Tars made to harm: each gets a clear error or a correct image, never a panic, and never leads out of the layer.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic: that is how it fails")]

mod common;

use caveau_layer::{EntryError, LayerError, LayerSummary, Limits, MemoryImage, TarError, convert, hash};
use common::{THREADS, TarBuilder};
use proptest::prelude::*;

fn small() -> Limits {
    Limits { image_bytes: 64 << 20, entries: 1000, attribute_bytes: 1 << 20 }
}

fn image(tar: &[u8]) -> Result<(LayerSummary, Vec<u8>), LayerError> {
    let sink = MemoryImage::default();
    let summary = convert(tar, &sink, &small(), THREADS)?;
    Ok((summary, sink.into_bytes()))
}

fn refusal(tar: &[u8]) -> EntryError {
    match image(tar).unwrap_err() {
        LayerError::Entry { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

/// A tar with one of everything.
fn sample() -> TarBuilder {
    let mut tar = TarBuilder::default();
    tar.directory("dir").file("dir/file", &[7; 5000]).symlink("dir/link", "file").hard_link("dir/hard", "dir/file");
    tar.pax(&[("SCHILY.xattr.user.big", &"x".repeat(300))]).file("attributes", b"a").file("dir/.wh..wh..opq", b"");
    tar.pax(&[("path", &format!("long/{}", "n".repeat(200)))]).file("short", b"").file(".wh.gone", b"");
    tar
}

#[test]
fn sample_is_sound() {
    let tar = sample().finish();
    let (summary, bytes) = image(&tar).unwrap();
    assert_eq!(hash(tar.as_slice(), &small(), THREADS).unwrap(), summary);
    caveau_verity::verify_device(bytes.as_slice(), bytes.len() as u64, &summary.root, THREADS).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn truncated_anywhere(cut in 0_usize..20_000) {
        let tar = sample().finish();
        if let Err(error) = image(&tar[..cut.min(tar.len())]) {
            prop_assert!(matches!(error, LayerError::Tar { source: TarError::Truncated, .. }), "{}", error);
        }
    }

    #[test]
    fn damaged_anywhere(damage in proptest::collection::vec((0_usize..20_000, any::<u8>()), 1..5)) {
        let mut tar = sample().finish();
        for (place, byte) in damage {
            let place = place % tar.len();
            tar[place] = byte;
        }
        let once = image(&tar);
        if let Ok((summary, bytes)) = &once {
            prop_assert!(caveau_verity::verify_device(bytes.as_slice(), bytes.len() as u64, &summary.root, THREADS).is_ok());
        }
        prop_assert_eq!(once.ok(), image(&tar).ok());
    }

    #[test]
    fn noise_with_a_right_checksum(noise in proptest::collection::vec(any::<u8>(), 512 * 3)) {
        let mut tar = noise;
        for block in tar.chunks_exact_mut(512) {
            common::fix_checksum(block.try_into().unwrap());
        }
        let _never_panics = image(&tar);
    }
}

#[test]
fn paths_stay_within_the_layer() {
    let plain = |path: &str| {
        let mut tar = TarBuilder::default();
        image(&tar.file(path, b"x").finish()).unwrap().1
    };
    for path in ["../../etc/passwd", "/etc/passwd", "./etc//passwd", "a/../../etc/passwd", "etc/./x/../passwd"] {
        assert_eq!(plain(path), plain("etc/passwd"), "{path}");
    }
}

#[test]
fn announced_sizes_are_not_believed() {
    let mut tar = TarBuilder::default();
    tar.raw_file("huge", 1 << 40, b"");
    assert!(matches!(refusal(&tar.finish()), EntryError::FileTooBig { .. }));
    let mut tar = TarBuilder::default();
    tar.raw_file("large", 65 << 20, b"");
    assert!(matches!(image(&tar.finish()), Err(LayerError::ImageTooLarge { limit }) if limit == 64 << 20));
    let mut tar = TarBuilder::default();
    tar.raw_file("short", 4096, b"only this");
    let error = image(&tar.finish()).unwrap_err();
    assert!(matches!(error, LayerError::Tar { offset: 0, source: TarError::Truncated }), "{error}");
}

#[test]
fn sparse_bombs_meet_the_limit() {
    let mut tar = TarBuilder::default();
    let records = [
        ("GNU.sparse.major", "0"),
        ("GNU.sparse.minor", "1"),
        ("GNU.sparse.numblocks", "0"),
        ("GNU.sparse.size", "99999999999"),
    ];
    tar.pax(&records).file("sparse", b"");
    assert!(matches!(image(&tar.finish()), Err(LayerError::ImageTooLarge { .. })));
}

#[test]
fn attributes_meet_the_limit() {
    let value = "v".repeat(3000);
    let with_attributes = |content: &[u8]| {
        let mut tar = TarBuilder::default();
        for number in 0..500 {
            tar.pax(&[("SCHILY.xattr.user.a", &value)]).file(&format!("f{number}"), content);
        }
        image(&tar.finish())
    };
    assert!(matches!(with_attributes(b""), Err(LayerError::TooManyAttributes { limit: 1_048_576 })));
    // Those of a file with data can never be written again: nothing has to be kept.
    let (summary, bytes) = with_attributes(b"data").unwrap();
    caveau_verity::verify_device(bytes.as_slice(), bytes.len() as u64, &summary.root, THREADS).unwrap();
}

#[test]
fn attributes_of_what_gets_data_later_are_the_later_ones() {
    let (early, late) = ("e".repeat(3000), "l".repeat(3000));
    let mut tar = TarBuilder::default();
    tar.pax(&[("SCHILY.xattr.user.a", &early)]).file("f", b"");
    tar.pax(&[("SCHILY.xattr.user.a", &late)]).file("f", b"data");
    let (summary, bytes) = image(&tar.finish()).unwrap();
    caveau_verity::verify_device(bytes.as_slice(), bytes.len() as u64, &summary.root, THREADS).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has(&late) && !has(&early));
}

#[test]
fn entries_meet_the_limit() {
    let mut tar = TarBuilder::default();
    for number in 0..1001 {
        tar.file(&format!("f{number}"), b"");
    }
    assert!(matches!(image(&tar.finish()), Err(LayerError::TooManyEntries { limit: 1000 })));
    let deep = "d/".repeat(100_000);
    let mut tar = TarBuilder::default();
    tar.pax(&[("path", &deep)]).file("short", b"");
    assert!(matches!(image(&tar.finish()), Err(LayerError::TooManyEntries { limit: 1000 })));
}

#[test]
fn very_deep_paths_do_not_exhaust_the_stack() {
    let mut tar = TarBuilder::default();
    tar.pax(&[("path", &"d/".repeat(100_000))]).file("short", b"");
    let summary = hash(tar.finish().as_slice(), &Limits::default(), THREADS).unwrap();
    assert!(summary.geometry.data_blocks() > 100_000);
}

#[test]
fn entries_that_contradict_one_another_are_refused() {
    type Build = fn(&mut TarBuilder) -> &mut TarBuilder;
    let cases: [(Build, EntryError); 9] = [
        (|tar| tar.file("a", b"data").file("a", b"again"), EntryError::AlreadyWritten),
        (|tar| tar.directory("a").file("a", b""), EntryError::DirectoryInTheWay),
        (|tar| tar.directory("a").file(".wh.a", b""), EntryError::DirectoryInTheWay),
        (|tar| tar.file("a", b"").directory("a"), EntryError::FileInTheWay),
        (|tar| tar.file("a", b"").file("a/b", b""), EntryError::ParentNotDirectory),
        (|tar| tar.directory("a").hard_link("b", "a"), EntryError::LinkToDirectory(common::text("a"))),
        (|tar| tar.hard_link("b", "a"), EntryError::LinkTargetMissing(common::text("a"))),
        (|tar| tar.file("a", b"").file("b", b"").hard_link("a", "b"), EntryError::Orphan),
        (|tar| tar.symlink("a", &"t".repeat(60)).file("a/.wh..wh..opq", b""), EntryError::TargetMissing),
    ];
    for (build, expected) in cases {
        let mut tar = TarBuilder::default();
        assert_eq!(refusal(&build(&mut tar).finish()), expected);
    }
    let mut tar = TarBuilder::default();
    tar.pax(&[("path", &"n".repeat(256))]).file("short", b"");
    assert_eq!(refusal(&tar.finish()), EntryError::NameTooLong { length: 256 });
    let mut tar = TarBuilder::default();
    tar.pax(&[("SCHILY.xattr.user.a", &"v".repeat(5000))]).file("f", b"");
    assert!(matches!(refusal(&tar.finish()), EntryError::XattrTooBig(_)));
}

#[test]
fn what_may_be_replaced_is() {
    let mut tar = TarBuilder::default();
    tar.file("a", b"").file("a", b"now with data").symlink("l", "x").file("l", b"").directory("d").directory("d");
    tar.file("h", b"data").hard_link("i", "h").file("i", b"other data");
    let (summary, bytes) = image(&tar.finish()).unwrap();
    caveau_verity::verify_device(bytes.as_slice(), bytes.len() as u64, &summary.root, THREADS).unwrap();
}

#[test]
fn printed_paths_are_made_harmless() {
    let mut tar = TarBuilder::default();
    tar.directory("a\u{1b}[31m\n").file("a\u{1b}[31m\n", b"");
    let text = image(&tar.finish()).unwrap_err().to_string();
    assert!(text.contains("a\\u{1b}[31m\\n: cannot replace"), "{text}");
}
