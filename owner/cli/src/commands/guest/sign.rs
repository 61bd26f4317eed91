//! `caveau guest sign`: launch digests as signed reference values.

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use caveau_cose::Form;
use caveau_evidence::{Hex, REFERENCE_INFO_TYPE, ReferenceInfo, Tee};
use caveau_guest_image::{MANIFEST_FILE, Manifest, read_manifest, reference_info_file};

use crate::{
    args,
    commands::signing::{Content, Signatory},
    exit::Outcome,
    files, tee, ui,
};

/// Runs it.
///
/// # Errors
/// Where guest.json has no such launch digest, the key cannot be used, or a file cannot be read or written.
pub(super) fn run(command: &args::GuestSign, json: bool, quiet: bool) -> Result<Outcome> {
    let file = match &command.file {
        Some(file) => file.clone(),
        None => command.guest.path()?.join(MANIFEST_FILE),
    };
    let tee = command.tee.into();
    let manifest = read_manifest(&file)?;
    ensure!(
        manifest.group.is_none(),
        "{} has the reference values of a group, and what is signed are those of its guest: give the guest's guest.json",
        file.display()
    );
    let info =
        reference_info(command, &manifest, tee).with_context(|| format!("failed to sign for {}", file.display()))?;
    let payload = info.to_json()?;
    let signatory = Signatory::new(&command.signing)?;
    let in_header = signatory.form == Form::Claims;
    let svn = in_header.then(|| i64::try_from(info.svn)).transpose()?;
    let content = Content { payload: payload.as_bytes(), content_type: REFERENCE_INFO_TYPE, feed: &command.feed, svn };
    let signed = signatory.sign(&content)?;
    let output = command.output.clone().unwrap_or_else(|| file.with_file_name(reference_info_file(tee::in_guest(tee))));
    if output == Path::new("-") {
        io::stdout().lock().write_all(&signed).context("failed to write to standard output")?;
        return Ok(Outcome::Done);
    }
    files::write(&output, &signed)?;
    report(command, &signatory.issuer, &info, &output, json, quiet)
}

/// Says by what a verifier takes them.
fn report(
    command: &args::GuestSign,
    issuer: &str,
    info: &ReferenceInfo,
    output: &Path,
    json: bool,
    quiet: bool,
) -> Result<Outcome> {
    let count = info.measurements.len();
    ui::note(quiet, &format!("signed {count} launch digests into {}", output.display()));
    if json {
        ui::json(&serde_json::json!({
            "file": output, "issuer": issuer, "feed": command.feed, "svn": info.svn, "tee": info.tee,
            "measurements": info.measurements,
        }))?;
    } else {
        ui::line(issuer)?;
    }
    Ok(Outcome::Done)
}

/// What is to be signed of a guest.
fn reference_info(command: &args::GuestSign, manifest: &Manifest, tee: Tee) -> Result<ReferenceInfo> {
    let of_guest = tee::in_guest(tee);
    let all = manifest.tees.get(&of_guest).map(|info| info.launch_digests.as_slice()).unwrap_or_default();
    let wanted = all.iter().filter(|expected| command.cpus.is_none_or(|cpus| cpus == expected.vcpus));
    let wanted = wanted.filter(|expected| command.cpu_type.as_ref().is_none_or(|name| *name == expected.vcpu_type));
    let mut measurements: Vec<_> = wanted.map(|expected| Hex(*expected.digest.as_bytes())).collect();
    measurements.dedup();
    let listed = match all.len() {
        0 => format!("it lists no launch digest for {of_guest}"),
        count => format!("none of its {count} launch digests for {of_guest} has these processors"),
    };
    ensure!(
        !measurements.is_empty(),
        "{listed}; `caveau guest build` with --snp-firmware, --cpu-type and --max-cpus lists more"
    );
    Ok(ReferenceInfo { svn: manifest.svn.into(), tee, measurements })
}
