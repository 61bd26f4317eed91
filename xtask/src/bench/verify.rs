//! Verifying evidence, against one check of a P-384 signature by the library that is used for it, and against another verifier.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use caveau_evidence::{Certificates, Evidence, Profile, Tee, Timestamp, verify};
use caveau_signature::forget;

use super::{
    Bed,
    measure::{Pairs, Sample, TURN, median_wall, repeated, self_timed},
    report::Report,
};
use crate::process::{command, run};

/// The evidence: a Milan processor's report of version 3, and its certificates from endorsement key to root.
const FILES: [&str; 4] = [
    "attestation/snp/reports/milan-v3-aci/report.bin",
    "attestation/snp/reports/milan-v3-aci/vcek.der",
    "attestation/snp/roots/milan-ask.der",
    "attestation/snp/roots/milan-ark.der",
];

/// A time at which its certificates are valid.
const TIME: &str = "2026-11-23T12:00:00Z";

/// Where in a report the signed part ends (SEV-SNP ABI, table 23), and the signature's numbers, little-endian.
const SIGNED_BYTES: usize = 0x2a0;
const NUMBER_BYTES: usize = 72;
const P384_BYTES: usize = 48;

/// Head of a P-384 public key in a certificate: the curve's identifier, then the bits of an uncompressed point (RFC 5480).
const KEY_HEAD: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00];
const POINT_BYTES: usize = 97;

/// How many times one P-384 verification that of a report may take at most.
const MOST_TIMES: f64 = 1.15;

/// The bench.
///
/// # Errors
/// Where the evidence is not whole, or not authentic.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let mut report =
        Report::new("verify", "verifying a report whose chain came before", "one P-384 verification (aws-lc-rs)");
    let fixtures = fixtures(bed.root);
    if !fixtures.is_dir() {
        return Ok(
            report.skipped(format!("no recorded evidence in {}: name it with CAVEAU_FIXTURES", fixtures.display()))
        );
    }
    let evidence = evidence(&fixtures)?;
    let vek = evidence.certificates.vek.as_deref().context("no VCEK")?;
    let start =
        vek.windows(KEY_HEAD.len()).position(|window| window == KEY_HEAD).context("the VCEK has no P-384 key")?;
    let point =
        vek.get(start + KEY_HEAD.len()..).and_then(|rest| rest.get(..POINT_BYTES)).context("the VCEK is cut off")?;
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point);
    let (signed, signature) = evidence.report.split_at_checked(SIGNED_BYTES).context("the report is cut off")?;
    let number =
        |at: usize| signature.get(at..at + P384_BYTES).map(|bytes| bytes.iter().rev().copied().collect::<Vec<u8>>());
    let signature =
        [number(0), number(NUMBER_BYTES)].into_iter().collect::<Option<Vec<_>>>().context("no signature")?.concat();
    let rules = Profile::Baseline.rules(TIME.parse::<Timestamp>()?);
    let verify_once = || {
        let verified = verify(&evidence, &rules).verified;
        ensure!(verified.is_some(), "the evidence is not authentic");
        Ok(())
    };
    let limit = || repeated(|| Ok(key.verify(signed, &signature)?));
    let cached = Pairs::take(bed.pairs, || repeated(verify_once), limit)?;
    let times = 1.0 / cached.ratio();
    let whole = || {
        repeated(|| {
            forget();
            verify_once()
        })
    };
    report.compared(
        "the chain verified anew each time, against the same signature",
        &Pairs::take(bed.pairs, whole, limit)?,
    );
    let peer = Peer::build(bed, &fixtures)?;
    report.compared("the chain verified anew, against `sev`", &Pairs::take(bed.pairs, whole, || peer.run(false))?);
    let again = Pairs::take(bed.pairs, || repeated(verify_once), || peer.run(true))?;
    report.compared("a report whose chain came before, against `sev`", &again);
    let rate = 1.0 / median_wall(&cached.ours);
    report.pairs(cached);
    report.bar(format!("at most {MOST_TIMES} times the signature alone"), format!("{times:.3}"), times <= MOST_TIMES);
    report.fact("verifications a second on one thread", format!("{rate:.0}"));
    Ok(report)
}

/// The crate `sev`, in a program of its own that takes its own time.
struct Peer {
    program: PathBuf,
    files: [PathBuf; 4],
}

impl Peer {
    /// Builds it, for the same evidence.
    fn build(bed: &Bed<'_>, fixtures: &Path) -> Result<Self> {
        let build =
            ["build", "--quiet", "--locked", "--release", "-p", "caveau-differential", "--example", "sev_verify"];
        run(&mut command(bed.root, "cargo", build)).context("failed to build the other verifier")?;
        let program = bed.caveau.with_file_name("examples").join("sev_verify");
        Ok(Self { program, files: FILES.map(|name| fixtures.join(name)) })
    }

    /// What one verification took.
    fn run(&self, chain_cached: bool) -> Result<Sample> {
        let mut verify = Command::new(&self.program);
        verify.args(chain_cached.then_some("--chain-cached")).args(&self.files).arg(TURN.as_millis().to_string());
        self_timed(&mut verify)
    }
}

/// The folder of recorded data.
pub(super) fn fixtures(root: &Path) -> PathBuf {
    std::env::var_os("CAVEAU_FIXTURES").map_or_else(|| root.join("../shared/fixtures"), PathBuf::from)
}

/// The fixture's evidence.
fn evidence(fixtures: &Path) -> Result<Evidence> {
    let read = |name: &str| {
        let path = fixtures.join(name);
        std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))
    };
    let [report, vek, intermediate, root] = FILES.map(read);
    let certificates =
        Certificates { vek: Some(vek?), intermediate: Some(intermediate?), root: Some(root?), crl: None };
    Ok(Evidence::new(Tee::Snp, report?, certificates))
}
