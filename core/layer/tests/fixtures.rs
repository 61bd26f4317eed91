//! The golden layers: image and root of every tar equal to the reference converter's.
#![expect(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod common;

use std::{fs, process::Command};

use caveau_layer::{EntryError, LayerError, Limits, convert, hash};
use common::{FileSink, THREADS, accepted, fixtures, sha256};

#[test]
fn images_and_roots_equal_the_references() {
    let Some(layers) = fixtures("layers") else { return };
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("python3").arg(layers.join("make_tars.py")).arg(folder.path()).status();
    assert!(made.unwrap().success(), "make_tars.py needs python3, which the set-up installs");
    let expected = fs::read_to_string(layers.join("expected.tsv")).unwrap();
    let mut compared = 0;
    for line in expected.lines().skip(1) {
        let [tar, bytes, image_digest, root] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let open = || fs::File::open(folder.path().join(tar)).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let sink = FileSink(file.reopen().unwrap());
        let result = convert(open(), &sink, &Limits::default(), THREADS);
        compared += 1;
        if bytes == "ERROR" {
            let error = result.unwrap_err();
            assert!(matches!(error, LayerError::Entry { reason: EntryError::AlreadyWritten, .. }), "{error}");
            assert!(error.to_string().contains("same: cannot overwrite"), "{error}");
            continue;
        }
        let summary = result.unwrap();
        assert_eq!(summary.root.to_string(), root, "{tar}");
        assert_eq!(summary.geometry.data_bytes().to_string(), bytes, "{tar}");
        assert_eq!(sha256(&sink.0, summary.geometry.data_bytes()), image_digest, "{tar}");
        assert_eq!(sink.0.metadata().unwrap().len(), summary.geometry.device_bytes(), "{tar}");
        assert_eq!(hash(open(), &Limits::default(), THREADS).unwrap(), summary, "{tar}");
        accepted(file.path(), root, summary.geometry.data_bytes());
    }
    assert_eq!(compared, expected.lines().count() - 1);
    println!("{compared} golden layers compared");
}
