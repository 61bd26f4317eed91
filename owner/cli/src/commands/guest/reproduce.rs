//! `caveau guest reproduce`: a guest built again and compared.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use caveau_guest_image::{
    Comparison, Found, GuestFolder, Inside, MANIFEST_FILE, Manifest, REBUILT_FILE, Verdict, compare, read_manifest,
};

use crate::{
    args,
    exit::Outcome,
    ui::{self, Colour},
};

/// How the name begins of a launch digest that differs.
const ONE_LAUNCH: &str = "launch digest of ";

/// Runs it.
///
/// # Errors
/// Where guest.json cannot be read, or nothing can be built again.
pub(super) fn run(command: &args::GuestReproduce, json: bool, quiet: bool) -> Result<Outcome> {
    let file = description(command)?;
    let manifest = read_manifest(&file)?;
    // Archives that differ can be opened where the guest itself lies beside its description.
    let beside = file.parent().filter(|folder| GuestFolder::open(folder).is_ok());
    let comparison = match &command.rebuilt {
        Some(folder) => compared(&manifest, beside, folder)?,
        None => {
            let kept;
            let passing;
            let folder = match &command.output {
                Some(output) => {
                    kept = absolute(output)?;
                    kept.as_path()
                }
                None => {
                    passing = tempfile::Builder::new().prefix("caveau-reproduce-").tempdir()?;
                    passing.path()
                }
            };
            build(command, &file, folder, quiet)?;
            compared(&manifest, beside, folder)?
        }
    };
    let same = comparison.is_same();
    if json {
        ui::json(&serde_json::json!({
            "guest": file, "reproduced": same, "found": comparison.found, "rebuilt": comparison.rebuilt,
        }))?;
    } else {
        print(&comparison)?;
    }
    Ok(if same { Outcome::Done } else { Outcome::Refused })
}

/// The guest.json that was named, that of the folder that was named, or that of the usual guest.
fn description(command: &args::GuestReproduce) -> Result<PathBuf> {
    let place = match &command.guest_or_file {
        Some(place) => absolute(place)?,
        None => command.guest.path()?,
    };
    Ok(if place.is_dir() { place.join(MANIFEST_FILE) } else { place })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("failed to resolve {}", path.display()))
}

fn compared(manifest: &Manifest, original: Option<&Path>, folder: &Path) -> Result<Comparison> {
    ensure!(
        folder.join(REBUILT_FILE).is_file(),
        "{} holds nothing that was built again ({REBUILT_FILE} is missing): `cargo xtask guest --like GUEST.JSON -o FOLDER` makes it",
        folder.display()
    );
    Ok(compare(manifest, original, folder)?)
}

/// Has the checkout build the guest again into `folder`. What it prints goes to standard error.
fn build(command: &args::GuestReproduce, file: &Path, folder: &Path, quiet: bool) -> Result<()> {
    let source = absolute(&command.source)?;
    let is_checkout =
        ["Cargo.lock", "xtask/Cargo.toml", "guest/agent/Cargo.toml"].iter().all(|name| source.join(name).is_file());
    ensure!(
        is_checkout,
        "{} is no checkout of Caveau: nothing can be built again without the sources that the guest was built from. Name their folder \
         by --source; guest.json has their commit, where it was recorded, as agent.build.commit",
        source.display()
    );
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&source).args(["xtask", "guest", "--like"]).arg(file).arg("-o").arg(folder);
    if !command.reuse {
        cargo.arg("--clean");
    }
    if command.compile_kernel {
        cargo.arg("--compile-kernel");
    }
    cargo.stdin(Stdio::null()).stdout(Stdio::null());
    if quiet {
        cargo.stderr(Stdio::null());
    }
    ui::note(quiet, &format!("building again what {} records, from {}", file.display(), source.display()));
    let status = cargo
        .status()
        .context("failed to start cargo: install a Rust toolchain, which the guest's agent is compiled with")?;
    ensure!(
        status.success(),
        "{cargo:?} in {} ended with {status}: what stands above says why (without --quiet)",
        source.display()
    );
    Ok(())
}

fn print(comparison: &Comparison) -> Result<()> {
    let rebuilt = &comparison.rebuilt;
    rebuilt.obtained.iter().try_for_each(|(name, how)| ui::line(format_args!("{name}: {}", ui::harmless(how))))?;
    rebuilt.notes.iter().try_for_each(|note| ui::line(format_args!("note: {}", ui::harmless(note))))?;
    ui::print("\n")?;
    // Where one part is another one, all launch digests with it are: one of them will do here.
    let is_launch = |found: &&Found| found.name.starts_with(ONE_LAUNCH);
    let shown = comparison.found.iter().filter(|found| !is_launch(found));
    let launches: Vec<_> = comparison.found.iter().filter(is_launch).collect();
    shown.chain(launches.iter().take(1).copied()).try_for_each(|found| ui::print(&told(found)))?;
    if launches.len() > 1 {
        ui::line(format_args!("             and {} launch digests more; --json has all", launches.len() - 1))?;
    }
    let count = |wanted: fn(&Verdict) -> bool| comparison.found.iter().filter(|found| wanted(&found.verdict)).count();
    let differ = count(|verdict| matches!(verdict, Verdict::Differs { .. }));
    let missing = count(|verdict| matches!(verdict, Verdict::NotRebuilt { .. }));
    ui::line(match comparison.is_same() {
        true => format!("\n{}: all of it is the same, byte for byte", ui::coloured("reproduced", Colour::Green)),
        false => format!(
            "\n{}: {differ} differ, {missing} could not be built again, of {}",
            ui::coloured("not reproduced", Colour::Red),
            comparison.found.len()
        ),
    })
}

/// One thing: its verdict, and what differs in it.
fn told(found: &Found) -> String {
    let name = &found.name;
    match &found.verdict {
        Verdict::Same { digest } => format!("same         {name}  {digest}\n"),
        Verdict::NotRebuilt { reason } => {
            format!("{}  {name}: {}\n", ui::coloured("not rebuilt", Colour::Yellow), ui::harmless(reason))
        }
        Verdict::Differs { recorded, rebuilt, inside } => {
            let head = format!("{}      {name}\n", ui::coloured("differs", Colour::Red));
            inside.iter().fold(head + &pair("             ", recorded, rebuilt), |text, inside| text + &within(inside))
        }
    }
}

fn within(inside: &Inside) -> String {
    let digest = |digest: &Option<String>| digest.clone().unwrap_or_else(|| "none".to_owned());
    let head = format!("             in it: {}\n", ui::harmless(&inside.file));
    if inside.recorded.is_none() && inside.rebuilt.is_none() {
        return head;
    }
    head + &pair("               ", &digest(&inside.recorded), &digest(&inside.rebuilt))
}

fn pair(indent: &str, recorded: &str, rebuilt: &str) -> String {
    format!("{indent}recorded {recorded}\n{indent}rebuilt  {rebuilt}\n")
}
