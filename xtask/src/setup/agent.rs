//! The guest's agent as a static program whose bytes do not depend on where it was built.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::process::{command, output, run};

/// The target that is named so that flags for static programs do not reach build scripts and procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the agent and gives its path.
///
/// # Errors
/// Where the build fails.
pub(crate) fn build_agent(root: &Path) -> Result<PathBuf> {
    build_agent_in(root, &root.join("target/guest"))
}

/// As [`build_agent`], in a build folder of its own: two builds that share nothing must give the same bytes.
///
/// # Errors
/// Where the build fails.
pub(crate) fn build_agent_in(root: &Path, target_folder: &Path) -> Result<PathBuf> {
    let mut build = command(root, "cargo", ["build", "--locked", "--profile", "guest", "--target", TARGET]);
    build.args(["-p", "caveau-agent", "--target-dir"]).arg(target_folder);
    // The environment of a surrounding cargo or of a developer must not get into the measured program.
    for name in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CFLAGS", "LDFLAGS"] {
        build.env_remove(name);
    }
    build.env("CARGO_ENCODED_RUSTFLAGS", flags(root, target_folder)?.join("\x1f"));
    build.env("CFLAGS", c_flags(root, target_folder)?.join(" "));
    build.env("LIBSECCOMP_LINK_TYPE", "static").env("LIBSECCOMP_LIB_PATH", "/usr/lib/x86_64-linux-gnu");
    build.env("SOURCE_DATE_EPOCH", "0");
    run(&mut build).context("failed to build the agent")?;
    let program = target_folder.join(TARGET).join("guest/caveau-agent");
    ensure!(program.is_file(), "the build left no {}", program.display());
    Ok(program)
}

/// Paths of this machine, and what stands in their place in the program.
fn remaps(root: &Path, target_folder: &Path) -> Result<[(PathBuf, &'static str); 4]> {
    let sysroot = output(&mut command(root, "rustc", ["--print", "sysroot"]))?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    // Later ones win, so the folder inside another one comes after it.
    Ok([
        (PathBuf::from(sysroot.trim()), "/rust"),
        (home, "/cargo"),
        (root.to_path_buf(), "/caveau"),
        (target_folder.to_path_buf(), "/build"),
    ])
}

fn flags(root: &Path, target_folder: &Path) -> Result<Vec<String>> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let remaps = remaps(root, target_folder)?;
    flags.extend(remaps.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    Ok(flags)
}

fn c_flags(root: &Path, target_folder: &Path) -> Result<Vec<String>> {
    let remaps = remaps(root, target_folder)?;
    Ok(remaps.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())).collect())
}
