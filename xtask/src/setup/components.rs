//! Parts of the Rust toolchain that checks call, and minimal installations lack.

use std::path::Path;

use anyhow::{Result, bail};

use crate::process::{command, output};

/// Subcommand of cargo, the component that has it, and the Debian package that has it.
const COMPONENTS: [(&str, &str, &str); 2] = [("clippy", "clippy", "rust-clippy"), ("fmt", "rustfmt", "rustfmt")];

/// Looks for them.
///
/// # Errors
/// Where one is missing, saying how to get it.
pub(super) fn check(root: &Path) -> Result<()> {
    let missing = |(subcommand, ..): &&(&str, &str, &str)| {
        output(&mut command(root, "cargo", [*subcommand, "--version"])).is_err()
    };
    let missing: Vec<_> = COMPONENTS.iter().filter(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let components: Vec<_> = missing.iter().map(|(_, component, _)| *component).collect();
    let packages: Vec<_> = missing.iter().map(|(.., package)| *package).collect();
    bail!(
        "the toolchain lacks {}: rustup component add {} (or, where the toolchain is Debian's: apt-get install {})",
        components.join(" and "),
        components.join(" "),
        packages.join(" ")
    )
}
