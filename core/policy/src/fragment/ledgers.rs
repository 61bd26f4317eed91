//! Keys of transparency ledgers, learned from trust lists that the policy accepted.

use std::collections::BTreeMap;

/// Keys of ledgers: a ledger's name to its keys by their identifiers (COSE `kid`).
pub type LedgerKeys = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A ledger's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerKey {
    /// The key, in the encoding that the trust list had it in.
    pub key: Vec<u8>,
    /// Subjects of the trust lists that brought exactly this key.
    pub offered_by: Vec<String>,
}

/// Every key that was learned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledgers {
    keys: BTreeMap<String, BTreeMap<Vec<u8>, LedgerKey>>,
}

impl Ledgers {
    /// The keys of a ledger, by identifier.
    pub(crate) fn of(&self, ledger: &str) -> Option<&BTreeMap<Vec<u8>, LedgerKey>> {
        self.keys.get(ledger)
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.values().map(BTreeMap::len).sum()
    }

    /// Takes the keys that a trust list brought. A key that is known under its identifier has one more that offers it;
    /// another key takes its place, as the ledger has changed it.
    pub(crate) fn learn(&mut self, subject: &str, keys: LedgerKeys) {
        for (ledger, keys) in keys {
            let known = self.keys.entry(ledger).or_default();
            for (id, key) in keys {
                let subject = subject.to_owned();
                match known.get_mut(&id) {
                    Some(entry) if entry.key == key => {
                        if !entry.offered_by.contains(&subject) {
                            entry.offered_by.push(subject);
                        }
                    }
                    _ => {
                        known.insert(id, LedgerKey { key, offered_by: vec![subject] });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(id: u8, key: u8) -> LedgerKeys {
        [("ledger".to_owned(), [(vec![id], vec![key])].into())].into()
    }

    #[test]
    fn the_same_key_has_many_sponsors_and_another_key_only_its_own() {
        let mut ledgers = Ledgers::default();
        ledgers.learn("a", keys(1, 10));
        ledgers.learn("b", keys(1, 10));
        ledgers.learn("a", keys(1, 10));
        assert_eq!(ledgers.of("ledger").unwrap()[&vec![1]].offered_by, ["a", "b"]);
        ledgers.learn("c", keys(1, 11));
        let changed = &ledgers.of("ledger").unwrap()[&vec![1]];
        assert_eq!((changed.key.as_slice(), changed.offered_by.as_slice()), (&[11][..], &["c".to_owned()][..]));
        ledgers.learn("c", keys(2, 12));
        assert_eq!(ledgers.len(), 2);
        assert!(ledgers.of("other").is_none());
    }
}
