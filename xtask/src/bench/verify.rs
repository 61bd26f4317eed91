//! Verifying evidence, against one check of a P-384 signature by the library that is used for it, and against another verifier.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use caveau_evidence::{Certificates, Evidence, Profile, Tee, Timestamp, verify};
use caveau_signature::forget;

use super::{
    Bed,
    measure::{Pairs, median_wall, repeated},
    report::Report,
};

/// The evidence: a Milan processor's report of version 3.
const REPORT: &str = "snp/reports/milan-v3-aci";

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
    let rate = 1.0 / median_wall(&cached.ours);
    report.pairs(cached);
    report.bar(format!("at most {MOST_TIMES} times the signature alone"), format!("{times:.3}"), times <= MOST_TIMES);
    report.fact("verifications a second on one thread", format!("{rate:.0}"));
    Ok(report)
}

/// The folder of recorded data.
pub(super) fn fixtures(root: &Path) -> PathBuf {
    std::env::var_os("CAVEAU_FIXTURES").map_or_else(|| root.join("../shared/fixtures"), PathBuf::from)
}

/// The fixture's evidence.
fn evidence(fixtures: &Path) -> Result<Evidence> {
    let folder = fixtures.join("attestation");
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))
    };
    let certificates = Certificates {
        vek: Some(read(&format!("{REPORT}/vcek.der"))?),
        intermediate: Some(read("snp/roots/milan-ask.der")?),
        root: Some(read("snp/roots/milan-ark.der")?),
        crl: None,
    };
    let report = read(&format!("{REPORT}/report.bin"))?;
    Ok(Evidence::new(Tee::Snp, report, certificates))
}
