//! `caveau attest`: a signed proof of what a running group is.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use caveau_evidence::{Certificates, Evidence, Tee, Timestamp};

use crate::{args, commands::groups, endorsement, exit::Outcome, files, ui};

/// Runs it.
///
/// # Errors
/// Where the group does not run, the guest gives no report, or the file cannot be written.
pub(crate) fn run(command: &args::Attest, quiet: bool) -> Result<Outcome> {
    let nonce = command.nonce.parse()?;
    let group = groups::open(&command.name)?;
    let plan = group.plan()?;
    let report = group.attest(nonce)?;
    let decode = |what: &str, text: &str| {
        BASE64_STANDARD.decode(text).with_context(|| format!("the guest's {what} is not base64"))
    };
    let report_bytes = decode("report", &report.report)?;
    let offered = certificates(&decode("certificate table", &report.certificates)?)?;
    let now = Timestamp::from_unix(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    let tee = match plan.tee {
        caveau_launch::Tee::EmulatedSnp => Tee::EmulatedSnp,
        caveau_launch::Tee::Snp => Tee::Snp,
    };
    let sources = &command.certificates;
    let endorsement = endorsement::complete(offered, (tee, &report_bytes), sources, Vec::new(), now, quiet)?;
    let evidence = Evidence {
        tee,
        certificates: endorsement.certificates,
        report: report_bytes,
        runtime_data: Vec::new(),
        policy: Some(plan.policy.into_bytes()),
        reference_values: plan.reference_values,
    };
    write(command.output.as_deref(), &evidence.to_json()?)?;
    if plan.tee == caveau_launch::Tee::EmulatedSnp {
        ui::warning("this is evidence of an emulated TEE: it proves nothing against this host");
    }
    Ok(Outcome::Done)
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
