//! SEV-SNP: ours against the crate `sev`.

mod agreement;
mod generated;
mod mutated;
mod peer;
mod recorded;

use std::fmt::Display;

use caveau_differential::{Ledger, Listed, Verdicts};
use caveau_evidence::{Check, Claims, Evidence};
use peer::{Peer, Pieces};

/// One comparison of many pieces.
struct Comparison {
    ledger: Ledger,
    peer: Peer,
}

impl Comparison {
    fn new(ours_alone: Listed, theirs_alone: Listed) -> Self {
        Self { ledger: Ledger::new(ours_alone, theirs_alone), peer: Peer::default() }
    }

    /// Holds what ours found of a piece against what the other says of it.
    fn hold(&mut self, name: &dyn Display, checks: &[Check], claims: Option<&Claims>, pieces: Pieces<'_>) {
        let theirs = self.peer.verify(pieces);
        let mut ours: Vec<String> = checks.iter().filter_map(|check| check.code.clone()).collect();
        // A certificate's extensions are read by several checks.
        ours.dedup();
        let both = self.ledger.enter(name, &Verdicts { ours, theirs: theirs.as_ref().err().cloned() });
        if both {
            agreement::compare(&mut self.ledger, name, claims.unwrap(), &theirs.unwrap());
        }
    }

    fn close(self, what: &str) {
        assert_eq!(self.peer.panics, 0, "{what}: the other panicked");
        println!("{}", self.ledger.close(what).unwrap_or_else(|why| panic!("{why}")));
    }
}

/// The parts of evidence as the other takes them. A part that is missing is empty, which it refuses.
fn pieces(evidence: &Evidence) -> Pieces<'_> {
    let endorsed = evidence.endorsed();
    Pieces { report: endorsed.report, vek: endorsed.vek, intermediate: endorsed.intermediate, root: endorsed.root }
}
