//! The other verifier of SEV-SNP: the crate `sev`, as programs use it.
//!
//! It reads certificates and report, and verifies their signatures. That the report's TCB and chip are those of the endorsement
//! key it leaves to its users; here that is done as they do, with the certificate as `sev` read it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sev::certs::snp::{Certificate, Chain, Verifiable as _, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::ObjectIdentifier;

/// What a report and its three certificates are to it.
#[derive(Clone, Copy)]
pub(crate) struct Pieces<'a> {
    pub(crate) report: &'a [u8],
    pub(crate) vek: &'a [u8],
    pub(crate) intermediate: &'a [u8],
    pub(crate) root: &'a [u8],
}

/// The verifier, which remembers of each pair of certificates whether the one signed the other: nothing else takes it as long.
#[derive(Default)]
pub(crate) struct Peer {
    signed: BTreeMap<[Vec<u8>; 2], Result<(), String>>,
    pub(crate) panics: usize,
}

impl Peer {
    /// The report where everything holds, else what it says. Where it panics, that is a refusal.
    pub(crate) fn verify(&mut self, pieces: Pieces<'_>) -> Result<AttestationReport, String> {
        let verdict = catch_unwind(AssertUnwindSafe(|| self.verdict(pieces)));
        verdict.unwrap_or_else(|_| {
            self.panics += 1;
            Err("it panics".to_owned())
        })
    }

    /// A report of version 2 does not say of which line it is: what depends on it is told apart.
    fn verdict(&mut self, pieces: Pieces<'_>) -> Result<AttestationReport, String> {
        let of_version_2 = pieces.report.starts_with(&[2, 0, 0, 0]);
        self.verdict_of(pieces).map_err(|said| if of_version_2 { format!("version 2, {said}") } else { said })
    }

    fn verdict_of(
        &mut self,
        Pieces { report, vek, intermediate, root }: Pieces<'_>,
    ) -> Result<AttestationReport, String> {
        let report = AttestationReport::from_bytes(report).map_err(|error| format!("report: {error}"))?;
        for (issuer, subject) in [(root, root), (root, intermediate), (intermediate, vek)] {
            let pair = [issuer.to_vec(), subject.to_vec()];
            self.signed.entry(pair).or_insert_with(|| has_signed(issuer, subject)).clone()?;
        }
        let vek = read(vek)?;
        endorses(&vek, &report)?;
        Ok(report)
    }
}

fn read(der: &[u8]) -> Result<Certificate, String> {
    Certificate::from_der(der).map_err(|error| format!("certificate: {error}"))
}

fn has_signed(issuer: &[u8], subject: &[u8]) -> Result<(), String> {
    (&read(issuer)?, &read(subject)?).verify().map_err(|error| format!("chain: {error}"))
}

/// Reads and verifies everything, without any memory: what a program does that is given one piece of evidence.
pub(crate) fn verify_whole(Pieces { report, vek, intermediate, root }: Pieces<'_>) -> Result<(), String> {
    let chain = read_chain(vek, intermediate, root)?;
    let report = AttestationReport::from_bytes(report).map_err(|error| format!("report: {error}"))?;
    (&chain, &report).verify().map_err(|error| format!("chain or report: {error}"))?;
    bindings(&chain.vek, &report)
}

/// The endorsement key's certificate, after the chain was verified: for reports of a chip that was met before.
pub(crate) fn verified_vek(vek: &[u8], intermediate: &[u8], root: &[u8]) -> Result<Certificate, String> {
    let chain = read_chain(vek, intermediate, root)?;
    chain.verify().map_err(|error| format!("chain: {error}"))?;
    Ok(chain.vek)
}

/// What is to be done for each report of a known chip.
pub(crate) fn verify_report(vek: &Certificate, report: &[u8]) -> Result<(), String> {
    let report = AttestationReport::from_bytes(report).map_err(|error| format!("report: {error}"))?;
    endorses(vek, &report)
}

fn read_chain(vek: &[u8], intermediate: &[u8], root: &[u8]) -> Result<Chain, String> {
    Ok(Chain { ca: ca::Chain { ark: read(root)?, ask: read(intermediate)? }, vek: read(vek)? })
}

fn endorses(vek: &Certificate, report: &AttestationReport) -> Result<(), String> {
    (vek, report).verify().map_err(|error| format!("report signature: {error}"))?;
    bindings(vek, report)
}

/// Whether the endorsement key was made for the report's TCB and chip.
fn bindings(vek: &Certificate, report: &AttestationReport) -> Result<(), String> {
    let certificate = x509_cert::Certificate::from(vek.clone());
    let extensions = certificate.tbs_certificate.extensions.unwrap_or_default();
    let value = |id: &str| {
        let id = ObjectIdentifier::new(id).ok();
        extensions.iter().find(|extension| Some(extension.extn_id) == id).map(|found| found.extn_value.as_bytes())
    };
    let tcb = report.reported_tcb;
    for (arc, level) in [
        (1, Some(tcb.bootloader)),
        (2, Some(tcb.tee)),
        (3, Some(tcb.snp)),
        (8, Some(tcb.microcode)),
        // Only Turin's TCB has one.
        (9, tcb.fmc),
    ] {
        let Some(level) = level else { continue };
        let certified = value(&format!("1.3.6.1.4.1.3704.1.3.{arc}")).map(u8::from_der);
        if certified != Some(Ok(level)) {
            return Err(format!("tcb: level {arc} is {level}, and {certified:?} in the certificate"));
        }
    }
    // A VCEK names its chip; a VLEK does not, and neither does a platform that masks it.
    match value("1.3.6.1.4.1.3704.1.4") {
        Some(chip) if report.chip_id != [0; 64] && !names(&report.chip_id, chip) => {
            Err("chip: the certificate is of another".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether CHIP_ID is what the extension has: 64 bytes, or Turin's 8 with zeros after them; maybe in an OCTET STRING.
fn names(chip_id: &[u8; 64], extension: &[u8]) -> bool {
    let plain = match extension {
        [4, length, rest @ ..] if usize::from(*length) == rest.len() && matches!(rest.len(), 8 | 64) => rest,
        whole => whole,
    };
    matches!(plain.len(), 8 | 64) && chip_id.starts_with(plain) && chip_id[plain.len()..].iter().all(|byte| *byte == 0)
}
