//! Signatures that held once, so that a chain of certificates that comes again and again is not computed again and again.
//!
//! Whether a signature holds depends on key, message and signature alone, so what held holds for ever; dates, names and
//! revocation are looked at by the caller each time. What did not hold is not remembered.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::{Curve, Hash, Key, Scheme, verifies};

/// Most signatures in one generation; there are two. A processor's chain and list have three.
const GENERATION: usize = 1024;

static REMEMBERED: Mutex<Remembered> = Mutex::new(Remembered::new());

/// Like [`verifies`], for signatures that come again: those of certificates and lists. One that held before in this program
/// is not computed again.
#[must_use]
pub fn verifies_again(scheme: Scheme, key: &Key<'_>, message: &[u8], signature: &[u8]) -> bool {
    let name = name(scheme, key, message, signature);
    if with_remembered(|remembered| remembered.has(&name)) {
        return true;
    }
    let holds = verifies(scheme, key, message, signature);
    if holds {
        with_remembered(|remembered| remembered.insert(name));
    }
    holds
}

/// Forgets every signature. Nothing but time depends on it.
pub fn forget() {
    with_remembered(|remembered| *remembered = Remembered::new());
}

fn with_remembered<T>(then: impl FnOnce(&mut Remembered) -> T) -> T {
    // A set of hashes is whole wherever a thread may have ended.
    then(&mut REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// SHA-256 of all on which the answer depends, each part behind its length.
fn name(scheme: Scheme, key: &Key<'_>, message: &[u8], signature: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(bytes);
    };
    let (kind, function) = match scheme {
        Scheme::EcdsaDer(hash) => (0, Some(hash)),
        Scheme::EcdsaFixed(hash) => (1, Some(hash)),
        Scheme::Ed25519 => (2, None),
        Scheme::RsaPkcs1(hash) => (3, Some(hash)),
        Scheme::RsaPss(hash) => (4, Some(hash)),
    };
    let function = match function {
        None => 0,
        Some(Hash::Sha256) => 1,
        Some(Hash::Sha384) => 2,
        Some(Hash::Sha512) => 3,
    };
    let (form, bytes, more): (u8, &[u8], &[u8]) = match *key {
        Key::Ecdsa(Curve::P256, point) => (0, point, &[]),
        Key::Ecdsa(Curve::P384, point) => (1, point, &[]),
        Key::Ecdsa(Curve::P521, point) => (2, point, &[]),
        Key::Ed25519(bytes) => (3, bytes, &[]),
        Key::Rsa(der) => (4, der, &[]),
        Key::RsaNumbers { n, e } => (5, n, e),
    };
    part(&[kind, function, form]);
    part(bytes);
    part(more);
    part(message);
    part(signature);
    hash.finalize().into()
}

/// Names of signatures: when the young ones are too many, they become the old ones, and those are forgotten.
#[derive(Debug, Default)]
struct Remembered {
    young: BTreeSet<[u8; 32]>,
    old: BTreeSet<[u8; 32]>,
}

impl Remembered {
    const fn new() -> Self {
        Self { young: BTreeSet::new(), old: BTreeSet::new() }
    }

    fn has(&mut self, name: &[u8; 32]) -> bool {
        if self.young.contains(name) {
            return true;
        }
        let was_old = self.old.remove(name);
        if was_old {
            self.insert(*name);
        }
        was_old
    }

    fn insert(&mut self, name: [u8; 32]) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize) -> [u8; 32] {
        crate::sha256(&[&number.to_le_bytes()])
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let mut remembered = Remembered::new();
        let used = numbered(0);
        remembered.insert(used);
        for number in 1..10 * GENERATION {
            assert!(remembered.has(&used), "forgotten at {number}");
            assert!(!remembered.has(&numbered(number)));
            remembered.insert(numbered(number));
            assert!(remembered.young.len() + remembered.old.len() <= 2 * GENERATION);
        }
        assert!(!remembered.has(&numbered(1)));
    }

    #[test]
    fn every_part_is_in_the_name() {
        let scheme = Scheme::RsaPss(Hash::Sha384);
        let names = [
            name(scheme, &Key::Rsa(b"k"), b"m", b"s"),
            name(Scheme::RsaPss(Hash::Sha256), &Key::Rsa(b"k"), b"m", b"s"),
            name(Scheme::RsaPkcs1(Hash::Sha384), &Key::Rsa(b"k"), b"m", b"s"),
            name(Scheme::EcdsaDer(Hash::Sha384), &Key::Rsa(b"k"), b"m", b"s"),
            name(Scheme::EcdsaFixed(Hash::Sha384), &Key::Rsa(b"k"), b"m", b"s"),
            name(Scheme::Ed25519, &Key::Rsa(b"k"), b"m", b"s"),
            name(scheme, &Key::Ed25519(b"k"), b"m", b"s"),
            name(scheme, &Key::Ecdsa(Curve::P256, b"k"), b"m", b"s"),
            name(scheme, &Key::Ecdsa(Curve::P384, b"k"), b"m", b"s"),
            name(scheme, &Key::Ecdsa(Curve::P521, b"k"), b"m", b"s"),
            name(scheme, &Key::RsaNumbers { n: b"k", e: b"" }, b"m", b"s"),
            name(scheme, &Key::RsaNumbers { n: b"", e: b"k" }, b"m", b"s"),
            name(scheme, &Key::Rsa(b"K"), b"m", b"s"),
            name(scheme, &Key::Rsa(b"k"), b"M", b"s"),
            name(scheme, &Key::Rsa(b"k"), b"m", b"S"),
            name(scheme, &Key::Rsa(b"k"), b"ms", b""),
            name(scheme, &Key::Rsa(b""), b"km", b"s"),
        ];
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
