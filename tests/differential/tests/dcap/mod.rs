//! Intel's DCAP: ours against the crate `dcap-qvl`.

mod agreement;
mod generated;
mod mutated;
#[path = "../../../../core/dcap/tests/platform/mod.rs"]
mod platform;
mod recorded;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use caveau_differential::{Ledger, Listed, Verdicts};
use caveau_evidence::dcap::{Claims, Collateral, Expectations, TcbStatus, appraise};
use caveau_evidence::{Check, Profile, Timestamp, quote_rules, verify_quote};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};

/// One comparison of many quotes.
struct Comparison {
    ledger: Ledger,
    peer: QuoteVerifier,
    /// Why ours said a worse status, and how often.
    worse: BTreeMap<&'static str, usize>,
}

impl Comparison {
    /// A comparison under Intel's root.
    fn under_intel(ours_alone: Listed, theirs_alone: Listed) -> Self {
        Self { ledger: Ledger::new(ours_alone, theirs_alone), peer: QuoteVerifier::new_prod(), worse: BTreeMap::new() }
    }

    /// Holds what ours found of a piece against what the other says of it. `kind` of a piece goes before that.
    fn hold(
        &mut self,
        name: &dyn Display,
        kind: &str,
        ours: (Vec<Check>, Option<Claims>),
        (quote, collateral, at): (&[u8], &QuoteCollateralV3, Timestamp),
    ) {
        let theirs = self.verdict(quote, collateral, at).map_err(|said| format!("{kind}: {said}"));
        let (mut checks, claims) = ours;
        checks.extend(claims.iter().flat_map(|claims| appraise(claims, &any_status(), Profile::Baseline)));
        let ours = checks.into_iter().filter_map(|check| check.code).collect();
        let both = self.ledger.enter(name, &Verdicts { ours, theirs: theirs.as_ref().err().cloned() });
        if both && let Some(reason) = agreement::compare(&mut self.ledger, name, &claims.unwrap(), &theirs.unwrap()) {
            *self.worse.entry(reason).or_default() += 1;
        }
    }

    fn verdict(&self, quote: &[u8], collateral: &QuoteCollateralV3, at: Timestamp) -> Result<VerifiedReport, String> {
        let verdict = catch_unwind(AssertUnwindSafe(|| self.peer.verify(quote, collateral, at.unix())));
        verdict.unwrap_or_else(|_| panic!("the other panicked")).map_err(|error| format!("{error:#}"))
    }

    fn close(self, what: &str) {
        println!("{}", self.ledger.close(what).unwrap_or_else(|why| panic!("{why}")));
        if !self.worse.is_empty() {
            println!("  a worse status by ours: {:?}", self.worse);
        }
    }
}

/// The other leaves it to its users which statuses they take, and refuses what the host may do to a domain: so does ours here.
fn any_status() -> Expectations {
    Expectations { statuses: Some(TcbStatus::ALL.to_vec()), ..Expectations::default() }
}

/// What ours finds under Intel's root. The other always asks for revocation lists.
fn under_intel(quote: &[u8], collateral: &Collateral, at: Timestamp) -> (Vec<Check>, Option<Claims>) {
    let verification = verify_quote(quote, collateral, &quote_rules(Profile::Strict, at));
    (verification.checks, verification.verified.map(caveau_evidence::Verified::into_inner))
}
