//! `caveau doctor`: what this machine can do, tried and not guessed.

use std::path::Path;

use anyhow::Result;
use caveau_guest_image::GuestFolder;
use caveau_launch::{Check, GuestFiles, Tee, Verdict, report};
use caveau_registry::Store;
use serde::Serialize;

use crate::{
    args,
    exit::Outcome,
    folders, tee,
    ui::{self, Colour},
};

/// All of it.
#[derive(Debug, Serialize)]
struct Findings {
    /// Whether groups can run here at all.
    ok: bool,
    /// Root certificate of this installation's emulated secure processor, for `caveau verify --allow-emulated`.
    emulated_root: Option<String>,
    /// What was tried.
    findings: Vec<Check>,
}

/// Runs it.
///
/// # Errors
/// Where neither the folder of the guest nor the one for scratch disks has a name, or the result cannot be printed.
pub(crate) fn run(command: &args::Doctor, json: bool) -> Result<Outcome> {
    let folder = command.guest.path()?;
    let ovmf = command.firmware.clone().or(tee::guest_ovmf(&folder));
    let guest = GuestFiles::in_folder(&folder, Tee::EmulatedSnp, None)?;
    let mut findings = vec![guest_folder(&folder), store()];
    findings.extend(report(&guest, ovmf.as_deref(), &folders::scratch()?).checks);
    let root = caveau_softsp::state_folder().and_then(|folder| caveau_softsp::root_certificate(&folder));
    let root = root.map(|path| path.display().to_string()).map_err(anyhow::Error::from);
    let emulated_root = root.as_ref().ok().cloned();
    findings.push(check("emulated root", root, "repair its folder as told, or move it away to have a new root made"));
    let findings =
        Findings { ok: findings.iter().all(|finding| finding.verdict != Verdict::Missing), emulated_root, findings };
    if json {
        ui::json(&findings)?;
    } else {
        print(&findings)?;
    }
    Ok(if findings.ok { Outcome::Done } else { Outcome::Refused })
}

fn print(findings: &Findings) -> Result<()> {
    for finding in &findings.findings {
        let (word, colour) = match finding.verdict {
            Verdict::Good => ("ok", Colour::Green),
            Verdict::Lacking => ("lacking", Colour::Yellow),
            Verdict::Missing => ("MISSING", Colour::Red),
        };
        let verdict = ui::coloured(&format!("{word:8}"), colour);
        ui::line(format_args!("{verdict} {:20} {}", finding.name, ui::harmless(&finding.found)))?;
        if let Some(remedy) = finding.remedy {
            ui::line(format_args!("{:30}{remedy}", ""))?;
        }
    }
    if let Some(root) = &findings.emulated_root {
        ui::line(format_args!("\nThe emulated secure processor's root is {root}"))?;
    }
    ui::line(if findings.ok {
        "Groups can run here. What is lacking, they do without."
    } else {
        "No group can run here until what is missing is there."
    })
}

fn check(name: &'static str, tried: Result<String>, remedy: &'static str) -> Check {
    match tried {
        Ok(found) => Check { name, verdict: Verdict::Good, found, remedy: None },
        Err(error) => Check { name, verdict: Verdict::Missing, found: format!("{error:#}"), remedy: Some(remedy) },
    }
}

/// Every part of the guest against what its description says of it.
fn guest_folder(path: &Path) -> Check {
    let tried = || {
        let guest = GuestFolder::open(path)?;
        guest.check()?;
        Ok(format!("{}, kernel {}", path.display(), guest.manifest().kernel.release))
    };
    check("guest folder", tried(), "make one with `cargo xtask setup` or `caveau guest build`, or name it with --guest")
}

fn store() -> Check {
    let tried = || Ok(Store::open_default()?.root().display().to_string());
    check("image store", tried(), "set XDG_CACHE_HOME to a folder of your own")
}
