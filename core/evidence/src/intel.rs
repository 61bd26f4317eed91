//! Intel as the authority over quotes of SGX and TDX, and the functions that judge them.

use caveau_dcap::{Authority, Claims, Collateral, Expectations, Quote, Rules, appraise, examine, not_appraised};
use caveau_snp::appraisal::Kind;
use caveau_snp::appraise::Profile;
use caveau_snp::check::Check;
use caveau_snp::claims::TeeClass;
use caveau_snp::examine::sha256;
use caveau_snp::time::Timestamp;

use crate::judgement::{Judgement, Subject};
use crate::verified::Verified;

/// Intel's root and nobody else's. Private, without fields: no caller can give it another root.
struct Intel;

/// SHA-256 of the DER of `Intel SGX Root CA`, as Intel's provisioning certification service gives it out.
const ROOT: [u8; 32] =
    *b"\x44\xa0\x19\x6b\x2b\x99\xf8\x89\xb8\xe1\x49\xe9\x5b\x80\x7a\x35\x0e\x74\x24\x96\x43\x99\xe8\x85\xa7\xcb\xb8\xcc\xfa\xb6\x74\xd3";

impl Authority for Intel {
    fn believes(&self, root: &[u8]) -> bool {
        sha256(root).0 == ROOT
    }
}

/// What [`verify_quote`] found.
#[derive(Clone, Debug)]
pub struct QuoteVerification {
    /// Every check, in the order made.
    pub checks: Vec<Check>,
    /// The claims, where no check failed.
    pub verified: Option<Verified<Claims>>,
}

/// The rules by which a quote is examined under `profile`.
#[must_use]
pub const fn quote_rules(profile: Profile, at: Timestamp) -> Rules {
    Rules { at, require_crl: matches!(profile, Profile::Strict) }
}

/// Verifies that an enclave or a trust domain on a platform of Intel's made this quote. Says nothing of what runs: that takes
/// an appraisal.
#[must_use]
pub fn verify_quote(quote: &[u8], collateral: &Collateral, rules: &Rules) -> QuoteVerification {
    let examination = examine(&Intel, quote, collateral, rules);
    QuoteVerification { checks: examination.checks, verified: examination.claims.map(Verified::new) }
}

impl Verified<Claims> {
    /// Holds the claims against expectations: one check for each of [`caveau_dcap::APPRAISAL`].
    #[must_use]
    pub fn appraise(&self, expected: &Expectations, profile: Profile) -> Vec<Check> {
        appraise(self, expected, profile)
    }
}

/// Verifies and appraises a quote in one, for showing to people.
#[must_use]
pub fn judge_quote(
    quote: &[u8],
    collateral: &Collateral,
    expected: &Expectations,
    profile: Profile,
    at: Timestamp,
) -> Judgement {
    let of_profile = quote_rules(profile, at);
    let rules = Rules { require_crl: expected.require_crl.unwrap_or(of_profile.require_crl), ..of_profile };
    let verification = verify_quote(quote, collateral, &rules);
    let mut checks = verification.checks;
    let parsed = Quote::parse(quote).ok();
    checks.extend(match &verification.verified {
        Some(claims) => claims.appraise(expected, profile),
        None => not_appraised(parsed.as_ref().map(|quote| &quote.body)),
    });
    let kind = match parsed.map(|quote| quote.header.tee_type) {
        Some(caveau_dcap::TeeType::Sgx) => Kind::SgxQuote,
        _ => Kind::TdxQuote,
    };
    let claims = verification.verified.map(|claims| Subject::Quote(Box::new(claims.into_inner())));
    Judgement::of(kind, (Some(TeeClass::Hardware), profile, at), sha256(quote), checks, claims)
}
