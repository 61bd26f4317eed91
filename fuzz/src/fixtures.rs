//! Files of other projects that tests read in place.

use std::path::{Path, PathBuf};

/// A fixture's bytes; none where the folder is absent. Text in base64 is left as it is: the targets take what files hold.
pub(crate) fn read(path: &str) -> Option<Vec<u8>> {
    std::fs::read(root().join(path)).ok()
}

fn root() -> PathBuf {
    std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures"), PathBuf::from)
}
