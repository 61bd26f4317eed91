//! `caveau attest`: a signed proof of what a running group is.

use std::{
    io::{self, Write as _},
    mem::take,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use caveau_evidence::{Certificates, EventLog, Evidence, Tee};
use caveau_protocol::{Nonce, Report};

use crate::{
    args,
    channel::{Address, Channel},
    commands::groups,
    endorsement,
    exit::Outcome,
    files, tee, ui,
    units::now,
};

/// Runs it.
///
/// # Errors
/// Where the group does not run, the guest gives no report, or the file cannot be written.
pub(crate) fn run(command: &args::Attest, quiet: bool) -> Result<Outcome> {
    let nonce = command.nonce.parse()?;
    if let Some(address) = &command.connect {
        return of_session(command, address, &nonce, quiet);
    }
    let group = groups::open(command.name.as_deref().unwrap_or_default())?;
    let plan = group.plan()?;
    let (report, event_log) =
        if command.events { group.attest_log(nonce)? } else { (group.attest(nonce)?, Vec::new()) };
    let tee = tee::in_evidence(plan.tee);
    let Evidence { report, certificates, .. } = of_report(tee, &report)?;
    let mut evidence = evidence(tee, report, certificates, (plan.policy, plan.reference_values));
    if let Some(signed) = plan.reference_info {
        evidence.endorsements.push(BASE64_STANDARD.decode(signed).context("the group's signed reference values")?);
    }
    let evidence = if command.events { with_log(evidence, event_log)? } else { evidence };
    finish(command, evidence, quiet)
}

/// Evidence of a session with the guest itself.
fn of_session(command: &args::Attest, address: &Address, nonce: &Nonce, quiet: bool) -> Result<Outcome> {
    finish(command, Channel::connect(address, None)?.attest(nonce)?, quiet)
}

/// Completes the certificates, and writes the evidence.
fn finish(command: &args::Attest, mut evidence: Evidence, quiet: bool) -> Result<Outcome> {
    let (offered, subject) = (take(&mut evidence.certificates), (evidence.tee, evidence.report.as_slice()));
    let endorsement = endorsement::complete(offered, subject, &command.certificates, Vec::new(), now()?, quiet)?;
    evidence.certificates = endorsement.certificates;
    write(command.output.as_deref(), &evidence.to_json()?)?;
    warn(evidence.tee);
    Ok(Outcome::Done)
}

/// What a guest answers to who wants proof: a report, and the certificates that its TEE offered.
///
/// # Errors
/// Where either is not of its form.
pub(crate) fn of_report(tee: Tee, report: &Report) -> Result<Evidence> {
    let decode = |what: &str, text: &str| {
        BASE64_STANDARD.decode(text).with_context(|| format!("the guest's {what} is not base64"))
    };
    let (report, table) = (decode("report", &report.report)?, decode("certificate table", &report.certificates)?);
    Ok(Evidence::new(tee, report, certificates(&table)?))
}

fn warn(tee: Tee) {
    if tee == Tee::EmulatedSnp {
        ui::warning("this is evidence of an emulated TEE: it proves nothing against its host");
    }
}

/// All that a verifier needs of the group, and what is for people: its policy's text, and the reference values of its guest.
fn evidence(
    tee: Tee,
    report: Vec<u8>,
    certificates: Certificates,
    (policy, reference_values): (String, Option<serde_json::Value>),
) -> Evidence {
    let policy = Some(policy.into_bytes());
    Evidence { policy, reference_values, ..Evidence::new(tee, report, certificates) }
}

/// The evidence with what the guest did, whose head the report binds.
fn with_log(evidence: Evidence, log: Vec<u8>) -> Result<Evidence> {
    let runtime_data = EventLog::parse(&log).context("the guest's event log is none")?.head.data();
    Ok(Evidence { runtime_data, event_log: Some(log), ..evidence })
}

/// The certificates that the TEE offered; a host on hardware may offer none, and a verifier brings its own then.
fn certificates(table: &[u8]) -> Result<Certificates> {
    if table.is_empty() {
        return Ok(Certificates::default());
    }
    Ok(Certificates::from_table(table)?)
}

/// `caveau __kds`: serves the certificates of this installation's software secure processor until it is ended.
///
/// # Errors
/// Where it cannot listen there.
pub(crate) fn serve_certificates(address: SocketAddr) -> Result<Outcome> {
    let listener = TcpListener::bind(address).with_context(|| format!("failed to listen on {address}"))?;
    ui::line(format_args!("http://{}", listener.local_addr()?))?;
    caveau_softsp::kds::serve(&caveau_softsp::state_folder()?, &listener)?;
    Ok(Outcome::Done)
}

/// Writes the evidence: to standard output, or to a file that is whole or not there.
fn write(file: Option<&Path>, text: &str) -> Result<()> {
    let Some(file) = file else {
        io::stdout().lock().write_all(text.as_bytes())?;
        return Ok(());
    };
    files::write(file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_file_holds_report_certificates_policy_and_reference_values() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("evidence.json");
        let part = |byte: u8| Some(vec![byte; 8]);
        let certificates = Certificates { vek: part(1), intermediate: part(2), root: part(3), crl: part(4) };
        let reference = json!({ "format": 1, "svn": 7 });
        let about = ("package policy\n".to_owned(), Some(reference.clone()));
        let evidence = evidence(Tee::EmulatedSnp, vec![5; 1184], certificates, about);
        write(Some(&file), &evidence.to_json().unwrap()).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(Evidence::parse(&bytes).unwrap(), evidence);
        let found: Value = serde_json::from_slice(&bytes).unwrap();
        let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        assert_eq!((&found["format"], &found["tee"]), (&json!("caveau-evidence/1"), &json!("emulated-snp")));
        assert_eq!(found["report"], base64(&[5; 1184]));
        let certificates = json!({
            "vek": base64(&[1; 8]), "intermediate": base64(&[2; 8]), "root": base64(&[3; 8]), "crl": base64(&[4; 8])
        });
        assert_eq!(found["certificates"], certificates);
        assert_eq!(found["policy"], base64(b"package policy\n"));
        assert_eq!(found["reference_values"], reference);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_table_of_certificates_that_is_empty_is_none_and_a_broken_one_is_told() {
        assert_eq!(certificates(&[]).unwrap(), Certificates::default());
        assert!(certificates(&[1; 24]).is_err());
    }
}
