//! Set-up, demo, tests, benchmarks: `cargo xtask COMMAND`.

mod bench;
mod demo;
mod fuzz;
mod guest;
mod images;
mod layering;
mod process;
mod product;
mod python;
mod reproduce;
mod setup;
mod soak;
mod test;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Set-up, demo, tests, benchmarks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install and prepare what the others need, and the guest where `caveau` looks for it; quick when it is all there.
    Setup {
        /// Also make a folder with Debian 13's tools, which benchmarks are held against.
        #[arg(long)]
        debian13: bool,
    },
    /// Speed, as ratios against other tools; ends with 1 where a bar is missed.
    Bench(bench::Arguments),
    /// Show the main job: an image runs, proves what it is, and three lies of its host fail.
    Demo,
    Fuzz(fuzz::Arguments),
    Guest(reproduce::Arguments),
    /// Many starts and stops, and many groups at once: nothing may be left over.
    Soak {
        /// Starts and stops.
        #[arg(long, default_value_t = 200)]
        cycles: u32,
        /// Groups at once.
        #[arg(long, default_value_t = 10)]
        groups: u32,
    },
    /// Everything that is tested.
    Test {
        /// Only tests of this name, and further arguments for the test programs.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filter: Vec<String>,
    },
}

fn main() -> Result<()> {
    let root = root();
    match Cli::parse().command {
        Command::Setup { debian13 } => {
            let setup = setup::setup(&root)?;
            process::headline("guest");
            println!("{}", guest::install(&root, &setup)?.display());
            if debian13 {
                println!("{}", setup::debian13(&root)?.display());
            }
            Ok(())
        }
        Command::Bench(arguments) => bench::bench(&root, &arguments),
        Command::Demo => demo::demo(&root),
        Command::Fuzz(arguments) => fuzz::fuzz(&root, &arguments),
        Command::Guest(arguments) => reproduce::run(&root, &arguments),
        Command::Soak { cycles, groups } => soak::soak(&root, cycles, groups),
        Command::Test { filter } => test::test(&root, &filter),
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// `caveau`'s folder below the one that a variable names, or below `HOME` by default (XDG Base Directory Specification 0.8).
///
/// # Errors
/// Where neither variable is set to an absolute path.
fn user_folder(variable: &str, below_home: &str) -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)));
    Ok(folder.with_context(|| format!("neither {variable} nor HOME is set to an absolute path"))?.join("caveau"))
}

/// Folder of what the set-up prepares: the guest kernel, images.
fn work_folder(root: &Path) -> PathBuf {
    root.join(".caveau")
}

/// Folder of the demo's and the tests' images.
fn images_folder(root: &Path) -> PathBuf {
    work_folder(root).join("images")
}
