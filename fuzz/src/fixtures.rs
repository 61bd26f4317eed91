//! Files of other projects that tests read in place.

use std::path::{Path, PathBuf};
use std::sync::Once;

/// Says that fixtures are absent, once.
static ABSENT: Once = Once::new();

/// A fixture's bytes; none, with a visible word, where it is absent. Text in base64 is left as it is: the targets take what
/// files hold.
pub(crate) fn read(path: &str) -> Option<Vec<u8>> {
    let file = root().join(path);
    let bytes = std::fs::read(&file).ok();
    if bytes.is_none() {
        ABSENT.call_once(|| println!("skipped: no fixtures: {} is not there", file.display()));
    }
    bytes
}

fn root() -> PathBuf {
    std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures"), PathBuf::from)
}
