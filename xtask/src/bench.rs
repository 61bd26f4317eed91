//! `cargo xtask bench`: this project's speed as ratios against other tools, run side by side.
//!
//! Ours and the anchor run in turns, A B A B, on the same inputs in one place in memory; each pair gives one ratio of wall
//! times, and the median of those is what a bar is held against. Megabytes a second depend on the machine and are no
//! bar. Results must be equal where both make the same thing, or the comparison is an error.

mod anchors;
mod bare;
mod decisions;
mod hash;
mod io;
mod kernel;
mod kernels;
mod launch;
mod layer;
mod layer_input;
mod measure;
mod policy;
mod pull;
mod report;
mod start;
mod verify;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::process::{headline, run};
use crate::setup::{self, Setup};
use crate::work_folder;
use measure::Idle;
use report::Report;

/// Below this share of idle time before a bench, its numbers are said to be those of a busy machine.
const IDLE_ENOUGH: f64 = 0.95;

/// `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which ones; all where none is named.
    #[arg(value_enum)]
    benches: Vec<Bench>,
    /// Pairs of runs.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// Where inputs and outputs lie: a file system in memory with some 4 GiB of room.
    #[arg(long, value_name = "FOLDER", default_value = "/dev/shm")]
    work: PathBuf,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Hash DATA, write superblock and tree to TREE, print the root: what `hash` measures.
    #[arg(long, hide = true, num_args = 2, value_names = ["DATA", "TREE"])]
    hash_tree: Option<Vec<PathBuf>>,
    /// Load the policy of `decisions` N times, print the bytes that one takes, loaded and used: what `decisions` measures.
    #[arg(long, hide = true, value_name = "N")]
    policy_memory: Option<u16>,
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Decisions of the policy engine, against the reference framework in regorus: time at each point, loading, memory.
    Decisions,
    /// The hash tree of a file of 1 GiB, against `veritysetup format`.
    Hash,
    /// From `layer.tar.gz` to an image with its root, against the best chain of tools.
    Layer,
    /// The guest's own kernel, against the distribution's: time to the agent, a whole run, memory.
    Kernel,
    /// Disks and network with the guest's own kernel, and with the distribution's.
    Io,
    /// A pull from a registry on this machine, against `skopeo copy`.
    Pull,
    /// Launch digests, against `sev-snp-measure`.
    Launch,
    /// Generating a policy.
    Policy,
    /// Verifying evidence, against the signature check alone.
    Verify,
    /// From `caveau run` to the first HTTP answer, against a bare boot of the same kernel.
    Start,
}

/// What every bench is given.
struct Bed<'a> {
    /// The workspace.
    root: &'a Path,
    /// Release build of `caveau`.
    caveau: PathBuf,
    /// An empty folder.
    work: PathBuf,
    /// How many pairs to run.
    pairs: u16,
    /// What the set-up prepared.
    setup: &'a Setup,
}

impl Bed<'_> {
    /// `caveau` with this guest, and with state, store and data in the work folder.
    fn caveau(&self, guest: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.caveau);
        command.arg("--quiet").args(arguments).env("CAVEAU_GUEST", guest).env("XDG_RUNTIME_DIR", &self.work);
        command.env("XDG_CACHE_HOME", self.work.join("store")).env("XDG_DATA_HOME", self.work.join("data"));
        command
    }
}

/// Runs what was asked for.
///
/// # Errors
/// Where a bench cannot be run. A bar that is missed ends the process with code 1 after everything was reported.
pub(crate) fn bench(root: &Path, arguments: &Arguments) -> Result<()> {
    if let Some([data, tree]) = arguments.hash_tree.as_deref() {
        return hash::hash_tree(data, tree);
    }
    if let Some(count) = arguments.policy_memory {
        return decisions::load_many(usize::from(count));
    }
    if cfg!(debug_assertions) {
        return in_release(root);
    }
    let all = Bench::value_variants();
    let benches = if arguments.benches.is_empty() { all } else { arguments.benches.as_slice() };
    ensure_memory(&arguments.work)?;
    let setup = setup::setup(root)?;
    let mut reports = Vec::new();
    for bench in benches {
        let report = one(*bench, root, &setup, arguments)?;
        if !arguments.json {
            print!("{report}");
        }
        reports.push(report);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&reports.iter().map(Report::json).collect::<Vec<_>>())?);
    }
    let missed: Vec<_> = reports.iter().flat_map(Report::missed).collect();
    if !missed.is_empty() {
        eprintln!("missed: {}", missed.join("; "));
        exit(1);
    }
    Ok(())
}

/// Builds what is measured as it is shipped, and goes on as the release build of this program.
fn in_release(root: &Path) -> Result<()> {
    headline("release build");
    run(Command::new("cargo")
        .args(["build", "--locked", "--release", "-p", "caveau", "-p", "xtask"])
        .current_dir(root))?;
    let program = target_folder()?.join("release/xtask");
    // What is measured makes errors that it throws away; a trace kept for each would be measured instead.
    let mut command = Command::new(&program);
    let error = command.args(std::env::args_os().skip(1)).env_remove("RUST_BACKTRACE").exec();
    Err(error).with_context(|| format!("failed to run {}", program.display()))
}

/// The build's target folder: two above this program.
fn target_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).context("this program is not in a target folder")?;
    Ok(folder.to_path_buf())
}

/// Refuses a work folder on a disk, whose speed would be measured instead.
fn ensure_memory(work: &Path) -> Result<()> {
    let work = work.canonicalize().with_context(|| format!("failed to find the work folder {}", work.display()))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let of_work = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(point, _)| work.starts_with(point))
        .max_by_key(|(point, _)| point.len());
    let kind = of_work.map_or("unknown", |(_, kind)| kind);
    ensure!(kind == "tmpfs", "{} is on {kind}: name a folder on tmpfs with --work", work.display());
    Ok(())
}

/// A port of this machine that nothing listens on.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Runs one bench in a folder of its own.
fn one(bench: Bench, root: &Path, setup: &Setup, arguments: &Arguments) -> Result<Report> {
    let caveau = target_folder()?.join("release/caveau");
    if !caveau.is_file() {
        bail!("{} is not there: cargo build --release -p caveau", caveau.display());
    }
    std::fs::create_dir_all(work_folder(root))?;
    let work = tempfile::Builder::new().prefix("caveau-bench-").tempdir_in(&arguments.work)?;
    let bed = Bed { root, caveau, work: work.path().to_path_buf(), pairs: arguments.pairs, setup };
    let name = bench.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    headline(&format!("bench {name}"));
    let idle = Idle::over_a_second()?;
    if idle.share() < IDLE_ENOUGH {
        eprintln!("   the machine is busy ({:.0} % idle): wall times say little", idle.share() * 100.0);
    }
    let mut report = match bench {
        Bench::Decisions => decisions::bench(&bed),
        Bench::Hash => hash::bench(&bed),
        Bench::Io => io::bench(&bed),
        Bench::Kernel => kernel::bench(&bed),
        Bench::Launch => launch::bench(&bed),
        Bench::Layer => layer::bench(&bed),
        Bench::Policy => policy::bench(&bed),
        Bench::Pull => pull::bench(&bed),
        Bench::Start => start::bench(&bed),
        Bench::Verify => verify::bench(&bed),
    }
    .with_context(|| format!("failed to run the bench {name}"))?;
    report.fact("idle before", format!("{:.0} %", idle.share() * 100.0));
    Ok(report)
}
