//! The chip's secret, and the keys that follow from it.
//!
//! As in the hardware, an endorsement key follows from the chip and from the levels of its firmware parts. Each part has a
//! chain of secrets that is hashed downwards from level 255: firmware of a level can compute the secrets of all lower levels
//! and of none higher, so that a rolled-back processor cannot make the keys of the one it was.

use aws_lc_rs::agreement::{self, ECDH_P384};
use aws_lc_rs::hkdf::{HKDF_SHA384, KeyType, Prk};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use caveau_snp::tcb::{Layout, Tcb};
use zeroize::Zeroizing;

use crate::CryptoError;

/// Bytes of a secret: what HKDF-SHA384 keeps whole.
pub(crate) const SECRET_BYTES: usize = 48;

/// A secret; wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; SECRET_BYTES]>;

/// The secret of an installation's chip.
pub(crate) struct Seed(Secret);

/// Whom an endorsement key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endorsed<'a> {
    /// The chip with this hardware ID.
    Chip(&'a [u8]),
    /// The provider with this name.
    Provider(&'a str),
}

impl Seed {
    /// The seed with these bytes.
    pub(crate) fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// The 56 bytes of CHIP_ID after its fixed prefix.
    pub(crate) fn chip_number(&self) -> Result<[u8; 56], CryptoError> {
        let mut number = [0; 56];
        expand(&self.0, &[b"chip number"], &mut number)?;
        Ok(number)
    }

    /// The endorsement key of `whom` at these levels.
    pub(crate) fn endorsement_key(
        &self,
        whom: Endorsed<'_>,
        tcb: Tcb,
        layout: Layout,
    ) -> Result<EcdsaKeyPair, CryptoError> {
        let secret = self.at_levels(tcb, layout)?;
        let (role, name) = match whom {
            Endorsed::Chip(hwid) => (b"vcek", hwid),
            Endorsed::Provider(provider) => (b"vlek", provider.as_bytes()),
        };
        // A candidate that is no scalar of the group (one in 2^190) makes way for the next.
        (0..=u8::MAX)
            .find_map(|attempt| {
                let mut scalar: Secret = Zeroizing::new([0; SECRET_BYTES]);
                expand(&secret, &[b"endorsement key", role, name, &[attempt]], scalar.as_mut_slice()).ok()?;
                p384_key(&scalar)
            })
            .ok_or(CryptoError("derive an endorsement key"))
    }

    /// The secret from which keys for guests are derived: that of the levels a guest asks for, or of no level.
    pub(crate) fn guest_root(&self, levels: Option<(Tcb, Layout)>) -> Result<Secret, CryptoError> {
        let mut root: Secret = Zeroizing::new([0; SECRET_BYTES]);
        match levels {
            Some((tcb, layout)) => {
                expand(&self.at_levels(tcb, layout)?, &[b"guest keys, levels"], root.as_mut_slice())?;
            }
            None => expand(&self.0, &[b"guest keys, no levels"], root.as_mut_slice())?,
        }
        Ok(root)
    }

    /// The secret that firmware of exactly these levels has.
    fn at_levels(&self, tcb: Tcb, layout: Layout) -> Result<Secret, CryptoError> {
        let layout_name: &[u8] = match layout {
            Layout::Milan => b"milan",
            Layout::Turin => b"turin",
        };
        let Tcb { fmc, bootloader, tee, snp, microcode } = tcb;
        let parts: [(&[u8], u8); 5] = [
            (b"fmc", fmc.unwrap_or(0)),
            (b"bootloader", bootloader),
            (b"tee", tee),
            (b"snp", snp),
            (b"microcode", microcode),
        ];
        let mut all = Zeroizing::new([0; SECRET_BYTES * 5]);
        for (slot, (name, level)) in all.chunks_exact_mut(SECRET_BYTES).zip(parts) {
            slot.copy_from_slice(self.part_at(name, level)?.as_slice());
        }
        let mut secret: Secret = Zeroizing::new([0; SECRET_BYTES]);
        // HKDF's extraction joins the five into one uniform secret.
        let salt = aws_lc_rs::hkdf::Salt::new(HKDF_SHA384, layout_name);
        expand_from(&salt.extract(all.as_slice()), &[b"levels"], secret.as_mut_slice())?;
        Ok(secret)
    }

    /// The secret of one firmware part at one level, hashed downwards from the highest.
    fn part_at(&self, part: &[u8], level: u8) -> Result<Secret, CryptoError> {
        let mut secret: Secret = Zeroizing::new([0; SECRET_BYTES]);
        expand(&self.0, &[b"highest level", part], secret.as_mut_slice())?;
        for _ in level..u8::MAX {
            let higher = secret.clone();
            expand(&higher, &[b"one level down"], secret.as_mut_slice())?;
        }
        Ok(secret)
    }
}

/// The key pair with this private scalar, if it is one.
fn p384_key(scalar: &Secret) -> Option<EcdsaKeyPair> {
    let private = agreement::PrivateKey::from_private_key(&ECDH_P384, scalar.as_slice()).ok()?;
    let public = private.compute_public_key().ok()?;
    let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar.as_slice(), public.as_ref()).ok()
}

/// HKDF-Expand of `secret` into `out`, for the purpose that `labels` name.
pub(crate) fn expand(secret: &Secret, labels: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
    expand_from(&Prk::new_less_safe(HKDF_SHA384, secret.as_slice()), labels, out)
}

fn expand_from(secret: &Prk, labels: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
    // Each label with its length before it: no two lists of labels give the same bytes.
    let mut info = b"caveau-softsp/1".to_vec();
    for label in labels {
        info.extend(u64::try_from(label.len()).unwrap_or(u64::MAX).to_le_bytes());
        info.extend_from_slice(label);
    }
    let failed = CryptoError("derive a secret");
    secret.expand(&[&info], Length(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| failed)
}

/// How many bytes HKDF is to give.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::KeyPair;

    use super::*;

    fn seed(byte: u8) -> Seed {
        Seed::new(Zeroizing::new([byte; SECRET_BYTES]))
    }

    const TCB: Tcb = Tcb { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 };

    fn public(seed: &Seed, whom: Endorsed<'_>, tcb: Tcb, layout: Layout) -> Vec<u8> {
        seed.endorsement_key(whom, tcb, layout).unwrap().public_key().as_ref().to_vec()
    }

    #[test]
    fn each_circumstance_gives_another_key() {
        let chip = Endorsed::Chip(b"one");
        let first = public(&seed(1), chip, TCB, Layout::Milan);
        assert_eq!(public(&seed(1), chip, TCB, Layout::Milan), first, "keys are derived, not drawn");
        let others = [
            public(&seed(2), chip, TCB, Layout::Milan),
            public(&seed(1), Endorsed::Chip(b"two"), TCB, Layout::Milan),
            public(&seed(1), Endorsed::Provider("one"), TCB, Layout::Milan),
            public(&seed(1), chip, TCB, Layout::Turin),
            public(&seed(1), chip, Tcb { bootloader: 5, ..TCB }, Layout::Milan),
            public(&seed(1), chip, Tcb { tee: 1, ..TCB }, Layout::Milan),
            public(&seed(1), chip, Tcb { snp: 23, ..TCB }, Layout::Milan),
            public(&seed(1), chip, Tcb { microcode: 218, ..TCB }, Layout::Milan),
            public(&seed(1), chip, Tcb { fmc: Some(1), ..TCB }, Layout::Milan),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(*other, first, "{index}");
            assert!(!others[..index].contains(other), "{index}");
        }
    }

    #[test]
    fn a_lower_level_follows_from_the_next_higher_one() {
        let (lower, higher) = (seed(1).part_at(b"snp", 23).unwrap(), seed(1).part_at(b"snp", 24).unwrap());
        let mut down: Secret = Zeroizing::new([0; SECRET_BYTES]);
        expand(&higher, &[b"one level down"], down.as_mut_slice()).unwrap();
        assert_eq!(*down, *lower);
    }

    #[test]
    fn labels_cannot_be_shifted() {
        let secret: Secret = Zeroizing::new([7; SECRET_BYTES]);
        let of = |labels: &[&[u8]]| {
            let mut out = [0; 32];
            expand(&secret, labels, &mut out).unwrap();
            out
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"ab"]), of(&[b"ab", b""]));
    }

    #[test]
    fn keys_of_guests_depend_on_levels_only_where_asked() {
        let root = |tcb| seed(1).guest_root(tcb).unwrap();
        assert_ne!(*root(None), *root(Some((TCB, Layout::Milan))));
        assert_ne!(*root(Some((Tcb { snp: 1, ..TCB }, Layout::Milan))), *root(Some((TCB, Layout::Milan))));
    }
}
