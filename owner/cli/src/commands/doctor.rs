//! `caveau doctor`: what this machine can do, tried and not guessed.

use std::path::Path;

use anyhow::Result;
use caveau_guest_image::GuestFolder;
use caveau_launch::{Guest, GuestFiles, KvmVerdict, Qemu, StateRoot, Tee, probe_kvm};
use caveau_registry::Store;
use serde::Serialize;

use crate::{
    args,
    exit::Outcome,
    tee,
    ui::{self, Colour},
};

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Finding {
    /// What.
    name: &'static str,
    /// Whether groups can run as far as this is concerned.
    ok: bool,
    /// What was found.
    found: String,
    /// What to do, where something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Findings {
    /// Whether groups can run here at all.
    ok: bool,
    /// Root certificate of this installation's emulated secure processor, for `caveau verify --allow-emulated`.
    emulated_root: Option<String>,
    /// What was tried.
    findings: Vec<Finding>,
}

/// Runs it.
///
/// # Errors
/// Where the result cannot be printed.
pub(crate) fn run(command: &args::Doctor, json: bool) -> Result<Outcome> {
    let guest = command.guest.path();
    let findings = vec![
        qemu(),
        guest.as_ref().map_or_else(|error| failed("guest", error.to_string(), None), |path| guest_folder(path)),
        guest.as_ref().map_or_else(|error| failed("accelerator", error.to_string(), None), |path| accelerator(path)),
        snp(),
        state(),
        store(),
    ];
    let root = caveau_softsp::state_folder().and_then(|folder| caveau_softsp::root_certificate(&folder)).ok();
    let findings = Findings {
        ok: findings.iter().all(|finding| finding.ok),
        emulated_root: root.map(|path| path.display().to_string()),
        findings,
    };
    if json {
        ui::json(&findings)?;
    } else {
        for finding in &findings.findings {
            let (word, colour) = if finding.ok { ("ok", Colour::Green) } else { ("missing", Colour::Red) };
            println!("{} {:12} {}", ui::coloured(&format!("{word:8}"), colour), finding.name, finding.found);
            if let Some(advice) = finding.advice {
                println!("{:22}{advice}", "");
            }
        }
        if let Some(root) = &findings.emulated_root {
            println!("\nThe emulated secure processor's root is {root}");
        }
    }
    Ok(if findings.ok { Outcome::Done } else { Outcome::Refused })
}

fn ok(name: &'static str, found: String) -> Finding {
    Finding { name, ok: true, found, advice: None }
}

fn failed(name: &'static str, found: String, advice: Option<&'static str>) -> Finding {
    Finding { name, ok: false, found, advice }
}

fn qemu() -> Finding {
    let found = Qemu::find().and_then(|qemu| Ok((qemu.path().display().to_string(), qemu.version()?)));
    match found {
        Ok((path, (major, minor))) => ok("qemu", format!("{path}, version {major}.{minor}")),
        Err(error) => failed(
            "qemu",
            error.to_string(),
            Some("install it: apt-get install qemu-system-x86 (10 or later is faster)"),
        ),
    }
}

fn guest_folder(path: &Path) -> Finding {
    let checked = GuestFolder::open(path).and_then(|guest| guest.check().map(|()| guest));
    match checked {
        Ok(guest) => ok("guest", format!("{}, kernel {}", path.display(), guest.manifest().kernel.release)),
        Err(error) => failed(
            "guest",
            format!("{:#}", anyhow::Error::from(error)),
            Some("make one: cargo xtask setup, or caveau guest build"),
        ),
    }
}

/// Boots the guest's kernel under KVM, where that can be tried.
fn accelerator(guest: &Path) -> Finding {
    let tried = || -> Result<KvmVerdict> {
        let loaded = Guest::load(&GuestFiles::in_folder(guest, Tee::EmulatedSnp, None)?)?;
        let folder = tempfile::tempdir()?;
        Ok(probe_kvm(&Qemu::find()?, &loaded, folder.path()))
    };
    match tried() {
        Ok(KvmVerdict::Works) => ok("accelerator", "KVM boots the guest's kernel".to_owned()),
        Ok(KvmVerdict::Fails { reason }) => {
            ok("accelerator", format!("software emulation, since KVM cannot be used: {reason}"))
        }
        Err(error) => failed("accelerator", format!("not tried: {error:#}"), None),
    }
}

/// Hardware is no condition: without it groups run in the emulated TEE.
fn snp() -> Finding {
    let found = if tee::host_has_snp() {
        "this machine can launch SEV-SNP guests"
    } else {
        "this machine has no SEV-SNP: groups run in the emulated TEE, which protects nothing from this host"
    };
    ok("sev-snp", found.to_owned())
}

fn state() -> Finding {
    match StateRoot::open() {
        Ok(root) => ok("state", root.path().display().to_string()),
        Err(error) => failed("state", error.to_string(), Some("set XDG_RUNTIME_DIR to a folder of your own")),
    }
}

fn store() -> Finding {
    match Store::open_default() {
        Ok(store) => ok("store", store.root().display().to_string()),
        Err(error) => failed("store", error.to_string(), Some("set XDG_CACHE_HOME to a folder of your own")),
    }
}
