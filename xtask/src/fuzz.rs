//! `cargo xtask fuzz`: the targets of `fuzz/` under libFuzzer, one after the other.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::process::{command, headline, output, run};

/// libFuzzer's instrumentation by LLVM's own pass, which the stable compiler reaches: edges, comparisons, counters inline.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Build scripts and macros are for the host and stay as they are: only what has a target named is instrumented.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// One input that takes longer is a finding.
const INPUT_SECONDS: u32 = 20;
/// More memory in use is a finding.
const MEMORY_MIB: u32 = 2048;

/// Fuzz the parsers of hostile bytes with libFuzzer; ends with 1 where something is found.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Targets by name; all of them where none is given.
    targets: Vec<String>,
    /// Print the targets' names.
    #[arg(long)]
    list: bool,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// Builds the targets and runs those that are asked for, each from its seeds and what earlier runs kept.
///
/// # Errors
/// Where a name is unknown, the build fails, or a target finds something: the inputs are in `fuzz/artifacts`.
pub(crate) fn fuzz(root: &Path, arguments: &Arguments) -> Result<()> {
    let program = build(root)?;
    let names = output(&mut command(root, &program, [""; 0]))?;
    let names: Vec<&str> = names.lines().collect();
    if arguments.list {
        println!("{}", names.join("\n"));
        return Ok(());
    }
    if let Some(unknown) = arguments.targets.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no fuzz target {unknown:?}; the targets are: {}", names.join(", "));
    }
    let chosen: Vec<&str> = match arguments.targets.as_slice() {
        [] => names,
        some => some.iter().map(String::as_str).collect(),
    };
    let mut found = Vec::new();
    for name in &chosen {
        headline(&format!("{name}, {} s", arguments.seconds));
        if !run_target(root, &program, name, arguments.seconds)? {
            found.push(*name);
        }
    }
    if !found.is_empty() {
        bail!(
            "found inputs that fail, kept in fuzz/artifacts, in: {}; fuzz/README.md says how to replay them",
            found.join(", ")
        );
    }
    println!("{} targets, {} s each: nothing found", chosen.len(), arguments.seconds);
    Ok(())
}

/// Builds the program that holds all targets.
fn build(root: &Path) -> Result<PathBuf> {
    headline("instrumented build");
    // A folder of its own: what is built from there for others is not instrumented, and should not be built again after it.
    let folder = root.join("target/fuzz");
    let mut build = command(root, "cargo", ["build", "--locked", "--profile", "fuzz", "--target", TRIPLE]);
    build.args(["-p", "caveau-fuzz", "--features", "libfuzzer", "--target-dir"]).arg(&folder);
    run(build.env("RUSTFLAGS", INSTRUMENTED))
        .context("failed to build the fuzz targets: libFuzzer's runtime needs a C++ compiler (apt-get install g++)")?;
    Ok(folder.join(TRIPLE).join("fuzz/caveau-fuzz"))
}

/// Runs one target; whether nothing was found.
fn run_target(root: &Path, program: &Path, name: &str, seconds: u32) -> Result<bool> {
    let folder = |kind: &str| -> Result<PathBuf> {
        let path = root.join("fuzz").join(kind).join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(path)
    };
    let (corpus, artifacts) = (folder("corpus")?, folder("artifacts")?);
    let mut fuzzer = command(root, program, [&corpus]);
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-verbosity=1"])
        .env("CAVEAU_FUZZ_TARGET", name)
        .env("CAVEAU_FUZZ_SEEDS", &corpus);
    let status = fuzzer.status().with_context(|| format!("failed to start {}", program.display()))?;
    Ok(status.success())
}
