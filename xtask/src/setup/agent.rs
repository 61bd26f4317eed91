//! The guest's agent as a static program whose bytes do not depend on where it was built, and beside it the record of what it was
//! built from and what is in it.

mod libraries;
mod record;
mod tree;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use caveau_guest_image::write_record;
use serde_json::Value;

use crate::process::{command, output, run_lines};
use record::Built;

/// The target that is named so that flags for static programs do not reach build scripts and procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The profile of Cargo.toml that the agent is built with.
const PROFILE: &str = "guest";

/// The agent's package.
const AGENT: &str = "caveau-agent";

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
    let mut build = command(root, "cargo", ["build", "--locked", "--profile", PROFILE, "--target", TARGET]);
    build.args(["-p", AGENT, "--message-format=json-render-diagnostics", "--target-dir"]).arg(target_folder);
    // The environment of a surrounding cargo or of a developer must not get into the measured program.
    for name in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CFLAGS", "LDFLAGS"] {
        build.env_remove(name);
    }
    let remaps = remaps(root, target_folder)?;
    let mut flags = flags(&remaps.each_ref().map(|remap| (remap.from.display().to_string(), remap.to)));
    // What the linker takes, in its own words; that does not enter the program.
    let map = target_folder.join("agent.map");
    flags.insert(1, format!("-Clink-arg=-Wl,-Map={}", map.display()));
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let c_flags = remaps.iter().map(|remap| format!("-ffile-prefix-map={}={}", remap.from.display(), remap.to));
    build.env("CFLAGS", c_flags.collect::<Vec<_>>().join(" "));
    build.env("LIBSECCOMP_LINK_TYPE", "static").env("LIBSECCOMP_LIB_PATH", "/usr/lib/x86_64-linux-gnu");
    build.env("SOURCE_DATE_EPOCH", "0");
    let mut messages = Vec::new();
    let succeeded = run_lines(&mut build, |line| messages.extend(serde_json::from_str::<Value>(line).ok()));
    ensure!(succeeded.context("failed to build the agent")?, "failed to build the agent: {build:?}");
    let program = target_folder.join(TARGET).join("guest/caveau-agent");
    ensure!(program.is_file(), "the build left no {}", program.display());
    let built = Built { root, target_folder, program: &program, map: &map, messages: &messages };
    let record = built.record().context("failed to list what is in the agent")?;
    write_record(&program, &record)?;
    Ok(program)
}

/// A path of this machine, and what stands in its place in the program.
struct Remap {
    /// What it is, for the record.
    what: &'static str,
    from: PathBuf,
    to: &'static str,
}

fn remaps(root: &Path, target_folder: &Path) -> Result<[Remap; 4]> {
    let sysroot = output(&mut command(root, "rustc", ["--print", "sysroot"]))?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    // Later ones win, so the folder inside another one comes after it.
    Ok([
        Remap { what: "SYSROOT", from: sysroot.trim().into(), to: "/rust" },
        Remap { what: "CARGO_HOME", from: home, to: "/cargo" },
        Remap { what: "CHECKOUT", from: root.to_path_buf(), to: "/caveau" },
        Remap { what: "TARGET_FOLDER", from: target_folder.to_path_buf(), to: "/build" },
    ])
}

/// The compiler's flags with these paths, or with names for them.
fn flags<F: std::fmt::Display>(remaps: &[(F, &str)]) -> Vec<String> {
    let remaps = remaps.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}"));
    ["-Ctarget-feature=+crt-static".to_owned()].into_iter().chain(remaps).collect()
}
