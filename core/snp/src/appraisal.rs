//! The whole judgement of one piece of evidence: every check, the claims, and the outcome.

use serde::Serialize;

use crate::Hex;
use crate::appraise::{Attached, CONCLUSIVE, Expectations, Profile, appraise, not_appraised};
use crate::check::{Check, Verdict, first_failure};
use crate::claims::{Claims, TeeClass};
use crate::examine::Examination;
use crate::time::Timestamp;

/// A judgement, as `--json` shows it. It reports; it proves nothing to code.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Appraisal<C = Claims> {
    /// The format of this judgement as JSON.
    pub format: &'static str,
    /// What kind of evidence was judged.
    pub kind: Kind,
    /// What it comes to.
    pub outcome: Outcome,
    /// The outcome in words.
    pub summary: String,
    /// Whether hardware made the evidence, or an emulated processor that gives no confidentiality. `None` where nothing was
    /// verified, and nothing in the evidence says that it is emulated either: `Hardware` is only ever what a root vouches for.
    pub tee_class: Option<TeeClass>,
    /// How strict it was.
    pub profile: Profile,
    /// The time for which it holds.
    pub at: Timestamp,
    /// SHA-256 of the report, quote or token that was judged.
    pub report_sha256: Hex<32>,
    /// Every check, in the order made.
    pub checks: Vec<Check>,
    /// What the evidence says, where it is authentic.
    pub claims: Option<C>,
}

/// Kinds of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A confidential VM of Azure's on SEV-SNP: a report with the quote of its virtual TPM.
    AzureSnpVm,
    /// The same on TDX.
    AzureTdxVm,
    /// A quote of an enclave.
    SgxQuote,
    /// A report of SEV-SNP.
    SnpReport,
    /// A quote of a trust domain.
    TdxQuote,
    /// What another verifier found, signed by it.
    Token,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AzureSnpVm => "a confidential VM of Azure's on SEV-SNP",
            Self::AzureTdxVm => "a confidential VM of Azure's on TDX",
            Self::SgxQuote => "a quote of an SGX enclave",
            Self::SnpReport => "a report of SEV-SNP",
            Self::TdxQuote => "a quote of a TDX trust domain",
            Self::Token => "a token of another verifier",
        })
    }
}

/// What a judgement comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Authentic, and everything is as expected.
    Passed,
    /// Authentic, nothing is wrong, and something was not held against any expectation: nonce, policy or measurement. It is
    /// not a pass.
    AuthenticNotAppraised,
    /// A check failed.
    Refused,
}

impl Appraisal {
    /// Concludes from an examination: appraises the claims, if it gave any. `first` are checks made before.
    #[must_use]
    pub fn conclude(
        (tee_class, profile, at): (TeeClass, Profile, Timestamp),
        first: Vec<Check>,
        examination: Examination,
        attached: &Attached<'_>,
        expected: &Expectations,
    ) -> Self {
        let report_sha256 = examination.report_sha256();
        let (examined, claims) = examination.into_parts();
        let mut checks = first;
        checks.extend(examined);
        checks.extend(match &claims {
            Some(claims) => appraise(claims, attached, expected, profile),
            None => not_appraised(),
        });
        Self::of(Kind::SnpReport, (Some(tee_class), profile, at), report_sha256, checks, claims)
    }
}

impl<C> Appraisal<C> {
    /// The judgement that these checks come to. The class is that of the roots by which the claims, if any, were verified.
    #[must_use]
    pub fn of(
        kind: Kind,
        (believed, profile, at): (Option<TeeClass>, Profile, Timestamp),
        report_sha256: Hex<32>,
        checks: Vec<Check>,
        claims: Option<C>,
    ) -> Self {
        let outcome = Outcome::of(&checks);
        let tee_class = tee_class(believed, claims.is_some(), &checks);
        let summary = summary(outcome, tee_class, &checks);
        let format = "caveau-appraisal/1";
        Self { format, kind, outcome, summary, tee_class, profile, at, report_sha256, checks, claims }
    }

    /// The judgement that these checks and further ones come to.
    #[must_use]
    pub fn with_checks(self, further: Vec<Check>) -> Self {
        let checks = [self.checks, further].concat();
        Self::of(self.kind, (self.tee_class, self.profile, self.at), self.report_sha256, checks, self.claims)
    }

    /// The same judgement, its claims in another form.
    #[must_use]
    pub fn map<D>(self, form: impl FnOnce(C) -> D) -> Appraisal<D> {
        let Self { format, kind, outcome, summary, tee_class, profile, at, report_sha256, checks, claims } = self;
        let claims = claims.map(form);
        Appraisal { format, kind, outcome, summary, tee_class, profile, at, report_sha256, checks, claims }
    }

    /// The code of the first check that failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<&str> {
        first_failure(&self.checks)
    }
}

impl Outcome {
    fn of(checks: &[Check]) -> Self {
        let conclusive = |check: &Check| CONCLUSIVE.contains(&check.name) && check.verdict == Verdict::Skipped;
        if checks.iter().any(Check::failed) {
            Self::Refused
        } else if checks.iter().any(conclusive) {
            Self::AuthenticNotAppraised
        } else {
            Self::Passed
        }
    }
}

/// The code of evidence that itself says that it is of an emulated processor.
pub const EMULATED_TEE: &str = "emulated-tee";
/// Codes by which checks tell evidence of an emulated processor: by its own word, and by the marker in its certificates.
const MARKS_OF_EMULATED: [&str; 2] = [EMULATED_TEE, "software-root"];

/// The class of what was judged. What a hardware verifier refused as not authentic is no hardware's.
fn tee_class(believed: Option<TeeClass>, authentic: bool, checks: &[Check]) -> Option<TeeClass> {
    match believed {
        Some(TeeClass::Hardware) if !authentic => {
            let mut codes = checks.iter().filter_map(|check| check.code.as_deref());
            codes.any(|code| MARKS_OF_EMULATED.contains(&code)).then_some(TeeClass::Emulated)
        }
        other => other,
    }
}

fn summary(outcome: Outcome, tee_class: Option<TeeClass>, checks: &[Check]) -> String {
    let class = match tee_class {
        Some(TeeClass::Hardware) | None => "",
        Some(TeeClass::Emulated) => "; EMULATED: no hardware protects this group, its host can read everything",
    };
    match outcome {
        Outcome::Passed => format!("authentic, and as expected{class}"),
        Outcome::AuthenticNotAppraised => {
            let open =
                checks.iter().filter(|check| CONCLUSIVE.contains(&check.name) && check.verdict == Verdict::Skipped);
            let names = open.map(|check| check.name).collect::<Vec<_>>().join(", ");
            format!("authentic, not appraised: no expectation was given for {names}{class}")
        }
        Outcome::Refused => {
            let failed = checks.iter().filter(|check| check.failed());
            let names = failed.map(|check| check.name).collect::<Vec<_>>().join(", ");
            format!("refused: {names}{class}")
        }
    }
}
