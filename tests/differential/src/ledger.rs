//! The account of what two verifiers said, and the rules that they are held to.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// What both said of one piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts {
    /// The codes of all checks of ours that failed; none is an acceptance.
    pub ours: Vec<String>,
    /// What the other said where it refused.
    pub theirs: Option<String>,
}

/// What may differ: an entry, and why it is right. An entry is the codes of ours (`one + another`), or a part of what the other says.
pub type Listed = &'static [(&'static str, &'static str)];

/// What was compared so far.
#[derive(Debug)]
pub struct Ledger {
    /// What ours refuses by checks that the other does not make.
    ours_alone: Listed,
    /// What the other says where it is wrong to refuse.
    theirs_alone: Listed,
    pieces: usize,
    accepted: usize,
    refused: usize,
    /// How often an entry was the case.
    used: BTreeMap<&'static str, usize>,
    /// What broke a rule: how often, and the first case.
    broken: BTreeMap<String, (usize, String)>,
}

impl Ledger {
    /// An account with these lists.
    #[must_use]
    pub fn new(ours_alone: Listed, theirs_alone: Listed) -> Self {
        let (used, broken) = (BTreeMap::new(), BTreeMap::new());
        Self { ours_alone, theirs_alone, pieces: 0, accepted: 0, refused: 0, used, broken }
    }

    /// Takes in what was said of a piece. `true` where both accepted it: then it is for the caller to compare the fields.
    pub fn enter(&mut self, name: &dyn Display, verdicts: &Verdicts) -> bool {
        self.pieces += 1;
        match (&verdicts.ours[..], &verdicts.theirs) {
            ([], None) => self.accepted += 1,
            ([], Some(said)) => {
                let listed = self.theirs_alone.iter().find(|(entry, _)| said.contains(entry));
                self.entry(listed, name, || format!("ours accepts, the other says `{said}`"));
            }
            (codes, None) => {
                let codes = codes.join(" + ");
                let listed = self.ours_alone.iter().find(|(entry, _)| *entry == codes);
                self.entry(listed, name, || format!("the other accepts, ours says `{codes}`"));
            }
            (_, Some(_)) => self.refused += 1,
        }
        verdicts.ours.is_empty() && verdicts.theirs.is_none()
    }

    fn entry(&mut self, listed: Option<&(&'static str, &str)>, name: &dyn Display, what: impl Fn() -> String) {
        match listed {
            Some((entry, _)) => *self.used.entry(entry).or_default() += 1,
            None => self.breaks(what(), name),
        }
    }

    fn breaks(&mut self, what: String, name: &dyn Display) {
        let (count, _) = self.broken.entry(what).or_insert_with(|| (0, name.to_string()));
        *count += 1;
    }

    /// Compares a field of a piece that both accept.
    pub fn field(&mut self, name: &dyn Display, field: &str, ours: &str, theirs: &str) {
        if ours != theirs {
            self.breaks(format!("{field} differs"), &format_args!("{name}: {ours} and {theirs}"));
        }
    }

    /// How many pieces both accepted.
    #[must_use]
    pub const fn accepted(&self) -> usize {
        self.accepted
    }

    /// Ends the account: what was compared, in words.
    ///
    /// # Errors
    /// Where a rule was broken, or an entry of a list was never the case.
    pub fn close(self, what: &str) -> Result<String, String> {
        let Self { pieces, accepted, refused, .. } = self;
        let mut said = format!(
            "{what}: {pieces} pieces; {accepted} accepted by both and alike in every field, {refused} refused by both"
        );
        for (whom, list) in [("ours", self.ours_alone), ("the other", self.theirs_alone)] {
            let counts = list.iter().map(|(entry, _)| (*entry, self.used.get(entry).copied().unwrap_or(0)));
            let _ = write!(said, "\n  refused by {whom} alone: {:?}", counts.collect::<BTreeMap<_, _>>());
        }
        for (rule, (count, first)) in &self.broken {
            let _ = write!(said, "\n  BROKEN, {count} times: {rule}; first by {first}");
        }
        let listed = self.ours_alone.iter().chain(self.theirs_alone).map(|(entry, _)| *entry);
        let unused: Vec<_> = listed.filter(|entry| !self.used.contains_key(entry)).collect();
        if !unused.is_empty() {
            let _ = write!(said, "\n  BROKEN: listed, and never the case: {unused:?}");
        }
        if self.broken.is_empty() && unused.is_empty() { Ok(said) } else { Err(said) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(ours: &[&str], theirs: Option<&str>) -> Verdicts {
        Verdicts { ours: ours.iter().map(|code| (*code).to_owned()).collect(), theirs: theirs.map(str::to_owned) }
    }

    fn closed(pieces: &[Verdicts]) -> Result<String, String> {
        let mut ledger = Ledger::new(&[("strict", "a reason")], &[("too short", "a reason")]);
        for piece in pieces {
            ledger.enter(&"a piece", piece);
        }
        ledger.close("test")
    }

    #[test]
    fn the_lists_say_what_may_differ_and_nothing_else() {
        let listed = [verdicts(&["strict"], None), verdicts(&[], Some("it is too short"))];
        assert!(closed(&listed).is_ok());
        assert!(closed(&listed[..1]).unwrap_err().contains("never the case: [\"too short\"]"));
        for (unlisted, said) in [
            (verdicts(&["strict", "other"], None), "ours says `strict + other`"),
            (verdicts(&["strict-too"], None), "ours says `strict-too`"),
            (verdicts(&[], Some("no signature")), "the other says `no signature`"),
        ] {
            assert!(closed(&[&listed[..], &[unlisted]].concat()).unwrap_err().contains(said));
        }
        let agreed = [verdicts(&["other"], Some("no signature")), verdicts(&[], None)];
        let said = closed(&[&listed[..], &agreed].concat()).unwrap();
        assert!(said.contains("4 pieces; 1 accepted by both and alike in every field, 1 refused by both"), "{said}");
    }

    #[test]
    fn a_field_that_differs_breaks_a_rule() {
        let mut ledger = Ledger::new(&[], &[]);
        assert!(ledger.enter(&"a piece", &verdicts(&[], None)));
        assert_eq!(ledger.accepted(), 1);
        ledger.field(&"a piece", "VMPL", "2", "2");
        ledger.field(&"a piece", "version", "2", "3");
        assert!(ledger.close("test").unwrap_err().contains("1 times: version differs; first by a piece: 2 and 3"));
    }
}
