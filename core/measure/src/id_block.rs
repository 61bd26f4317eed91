//! ID block and ID authentication information: what the guest's owner signed, which the secure processor checks at launch
//! (SEV-SNP firmware ABI, tables "ID_BLOCK" and "ID_AUTH_INFO").
//!
//! Both are data here: the signatures come from whoever holds the keys.

use caveau_signature::{Curve, Hash, Key, Scheme, verifies};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::context::{LaunchDigest, sha384};

/// Length of an ID block.
pub const ID_BLOCK_BYTES: usize = 96;
/// Length of the ID authentication information.
pub const ID_AUTH_BYTES: usize = 4096;

/// The algorithm number of ECDSA P-384 with SHA-384.
const ECDSA_P384_SHA384: u32 = 1;
/// The curve number of P-384.
const CURVE_P384: u32 = 2;

/// What the owner says about a guest. The secure processor refuses the launch when digest or policy differ, and shows the
/// other fields in each report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// The launch digest expected.
    pub launch_digest: LaunchDigest,
    /// FAMILY_ID of the report.
    pub family_id: [u8; 16],
    /// IMAGE_ID of the report.
    pub image_id: [u8; 16],
    /// GUEST_SVN of the report.
    pub guest_svn: u32,
    /// The guest policy expected.
    pub policy: u64,
}

/// The signatures over an ID block, and the keys they are to be checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdAuth {
    /// The key that signed the block.
    pub id_key: P384Key,
    /// Its signature of the block's 96 bytes.
    pub block_signature: P384Signature,
    /// The key that vouches for the ID key, and its signature of the ID key's 1028 bytes.
    pub author: Option<(P384Key, P384Signature)>,
}

/// Whose signatures held, as SHA-384 of the keys in AMD's format: what a report shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdKeys {
    /// ID_KEY_DIGEST.
    pub id_key_digest: [u8; 48],
    /// AUTHOR_KEY_DIGEST, when there is an author key.
    pub author_key_digest: Option<[u8; 48]>,
}

/// A P-384 public key: affine coordinates, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P384Key {
    /// The x coordinate.
    pub x: [u8; 48],
    /// The y coordinate.
    pub y: [u8; 48],
}

/// An ECDSA signature on P-384, its numbers big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P384Signature {
    /// The number r.
    pub r: [u8; 48],
    /// The number s.
    pub s: [u8; 48],
}

/// Why an ID block or its authentication information is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdBlockError {
    /// The signature of the ID key by the author key is wrong.
    #[error("the author key's signature of the ID key is wrong")]
    AuthorSignature,
    /// The signature of the block by the ID key is wrong.
    #[error("the ID key's signature of the ID block is wrong")]
    BlockSignature,
    /// A length.
    #[error("the {what} has {found} bytes, expected {expected}")]
    Length {
        /// Of what.
        what: &'static str,
        /// In bytes.
        found: usize,
        /// In bytes.
        expected: usize,
    },
    /// Bytes that must be zero are not.
    #[error("{0} has bytes set that must be zero")]
    Reserved(&'static str),
    /// A number that names nothing known.
    #[error("{what} is {found}, expected {expected}")]
    Unknown {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: u32,
        /// The only known value.
        expected: u32,
    },
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawIdBlock {
    launch_digest: [u8; 48],
    family_id: [u8; 16],
    image_id: [u8; 16],
    version: U32,
    guest_svn: U32,
    policy: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawKey {
    curve: U32,
    x: [u8; 72],
    y: [u8; 72],
    zero: [u8; 880],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawSignature {
    r: [u8; 72],
    s: [u8; 72],
    zero: [u8; 368],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawIdAuth {
    id_algorithm: U32,
    author_algorithm: U32,
    zero_008: [u8; 0x38],
    block_signature: RawSignature,
    id_key: RawKey,
    zero_644: [u8; 0x3c],
    key_signature: RawSignature,
    author_key: RawKey,
    zero_c84: [u8; 0x37c],
}

impl IdBlock {
    /// Reads the 96 bytes of an ID block.
    ///
    /// # Errors
    /// [`IdBlockError::Length`], or [`IdBlockError::Unknown`] for another version than 1.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdBlockError> {
        let raw: RawIdBlock = read("ID block", bytes)?;
        expect("the ID block's version", raw.version.get(), 1)?;
        Ok(Self {
            launch_digest: LaunchDigest::from_bytes(raw.launch_digest),
            family_id: raw.family_id,
            image_id: raw.image_id,
            guest_svn: raw.guest_svn.get(),
            policy: raw.policy.get(),
        })
    }

    /// The bytes that the ID key signs and the secure processor reads.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ID_BLOCK_BYTES] {
        zerocopy::transmute!(RawIdBlock {
            launch_digest: *self.launch_digest.as_bytes(),
            family_id: self.family_id,
            image_id: self.image_id,
            version: U32::new(1),
            guest_svn: U32::new(self.guest_svn),
            policy: U64::new(self.policy),
        })
    }
}

impl IdAuth {
    /// Reads the 4096 bytes of the ID authentication information. An author key of zeros counts as none.
    ///
    /// # Errors
    /// [`IdBlockError`], when a length, number or reserved byte is not as specified.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdBlockError> {
        let raw: RawIdAuth = read("ID authentication information", bytes)?;
        expect("the ID key's algorithm", raw.id_algorithm.get(), ECDSA_P384_SHA384)?;
        let padding = [&raw.zero_008[..], &raw.zero_644, &raw.zero_c84];
        if padding.iter().any(|bytes| !all_zero(bytes)) {
            return Err(IdBlockError::Reserved("the ID authentication information"));
        }
        let has_author = !all_zero(raw.author_key.as_bytes()) || !all_zero(raw.key_signature.as_bytes());
        let author = if has_author {
            expect("the author key's algorithm", raw.author_algorithm.get(), ECDSA_P384_SHA384)?;
            Some((P384Key::from_raw(&raw.author_key)?, P384Signature::from_raw(&raw.key_signature)?))
        } else {
            None
        };
        Ok(Self {
            id_key: P384Key::from_raw(&raw.id_key)?,
            block_signature: P384Signature::from_raw(&raw.block_signature)?,
            author,
        })
    }

    /// The bytes that the secure processor reads.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ID_AUTH_BYTES] {
        let mut raw = RawIdAuth::new_zeroed();
        raw.id_algorithm = ECDSA_P384_SHA384.into();
        raw.id_key = self.id_key.to_raw();
        raw.block_signature = self.block_signature.to_raw();
        if let Some((key, signature)) = &self.author {
            raw.author_algorithm = ECDSA_P384_SHA384.into();
            raw.author_key = key.to_raw();
            raw.key_signature = signature.to_raw();
        }
        zerocopy::transmute!(raw)
    }

    /// Checks the signatures of `block` and of the ID key, as the secure processor does at launch.
    ///
    /// # Errors
    /// [`IdBlockError::BlockSignature`] or [`IdBlockError::AuthorSignature`].
    pub fn verify(&self, block: &IdBlock) -> Result<IdKeys, IdBlockError> {
        if !self.id_key.has_signed(&block.to_bytes(), &self.block_signature) {
            return Err(IdBlockError::BlockSignature);
        }
        if let Some((author, signature)) = &self.author
            && !author.has_signed(&self.id_key.to_bytes(), signature)
        {
            return Err(IdBlockError::AuthorSignature);
        }
        Ok(IdKeys {
            id_key_digest: self.id_key.digest(),
            author_key_digest: self.author.as_ref().map(|(key, _)| key.digest()),
        })
    }
}

impl P384Key {
    /// Length of a key in AMD's format.
    pub const BYTES: usize = 0x404;

    /// The key in AMD's format: curve number, then the coordinates little-endian. An author key signs these bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        zerocopy::transmute!(self.to_raw())
    }

    /// SHA-384 of the key in AMD's format: ID_KEY_DIGEST or AUTHOR_KEY_DIGEST.
    #[must_use]
    pub fn digest(&self) -> [u8; 48] {
        sha384(&self.to_bytes())
    }

    fn has_signed(&self, message: &[u8], signature: &P384Signature) -> bool {
        let point = [&[4][..], &self.x, &self.y].concat();
        let fixed = [signature.r, signature.s].concat();
        verifies(Scheme::EcdsaFixed(Hash::Sha384), &Key::Ecdsa(Curve::P384, &point), message, &fixed)
    }

    fn to_raw(self) -> RawKey {
        RawKey { curve: CURVE_P384.into(), x: to_little(self.x), y: to_little(self.y), zero: [0; 880] }
    }

    fn from_raw(raw: &RawKey) -> Result<Self, IdBlockError> {
        expect("the key's curve", raw.curve.get(), CURVE_P384)?;
        match (from_little(&raw.x), from_little(&raw.y)) {
            (Some(x), Some(y)) if all_zero(&raw.zero) => Ok(Self { x, y }),
            _ => Err(IdBlockError::Reserved("the key")),
        }
    }
}

impl P384Signature {
    fn to_raw(self) -> RawSignature {
        RawSignature { r: to_little(self.r), s: to_little(self.s), zero: [0; 368] }
    }

    fn from_raw(raw: &RawSignature) -> Result<Self, IdBlockError> {
        match (from_little(&raw.r), from_little(&raw.s)) {
            (Some(r), Some(s)) if all_zero(&raw.zero) => Ok(Self { r, s }),
            _ => Err(IdBlockError::Reserved("the signature")),
        }
    }
}

/// Reads exactly one `T`.
fn read<T: FromBytes>(what: &'static str, bytes: &[u8]) -> Result<T, IdBlockError> {
    let (found, expected) = (bytes.len(), size_of::<T>());
    T::read_from_bytes(bytes).map_err(|_| IdBlockError::Length { what, found, expected })
}

fn expect(what: &'static str, found: u32, expected: u32) -> Result<(), IdBlockError> {
    if found == expected { Ok(()) } else { Err(IdBlockError::Unknown { what, found, expected }) }
}

fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// A big-endian number in AMD's 72 little-endian bytes.
fn to_little(mut number: [u8; 48]) -> [u8; 72] {
    number.reverse();
    let mut out = [0; 72];
    out.iter_mut().zip(number).for_each(|(to, from)| *to = from);
    out
}

/// The way back; `None` when the number needs more than 48 bytes.
fn from_little(bytes: &[u8; 72]) -> Option<[u8; 48]> {
    let (low, high) = bytes.split_first_chunk::<48>()?;
    let mut number = *low;
    number.reverse();
    all_zero(high).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
        }

        fn key(&self) -> P384Key {
            let point = self.0.public_key().as_ref();
            P384Key { x: point[1..49].try_into().unwrap(), y: point[49..].try_into().unwrap() }
        }

        fn sign(&self, message: &[u8]) -> P384Signature {
            let signature = self.0.sign(&SystemRandom::new(), message).unwrap();
            let (r, s) = signature.as_ref().split_at(48);
            P384Signature { r: r.try_into().unwrap(), s: s.try_into().unwrap() }
        }
    }

    fn block() -> IdBlock {
        IdBlock {
            launch_digest: LaunchDigest::from_bytes([1; 48]),
            family_id: [2; 16],
            image_id: [3; 16],
            guest_svn: 4,
            policy: 0x3_0000,
        }
    }

    #[test]
    fn what_was_built_reads_back_and_verifies() {
        let (id, author) = (Signer::new(), Signer::new());
        let auth = IdAuth {
            id_key: id.key(),
            block_signature: id.sign(&block().to_bytes()),
            author: Some((author.key(), author.sign(&id.key().to_bytes()))),
        };
        let read = IdAuth::parse(&auth.to_bytes()).unwrap();
        assert_eq!(read, auth);
        let keys = read.verify(&IdBlock::parse(&block().to_bytes()).unwrap()).unwrap();
        assert_eq!(keys.author_key_digest, Some(author.key().digest()));
    }

    #[test]
    fn wrong_signatures_are_told_apart() {
        let (id, author) = (Signer::new(), Signer::new());
        let mut auth = IdAuth { id_key: id.key(), block_signature: id.sign(&block().to_bytes()), author: None };
        assert_eq!(auth.verify(&block()).unwrap().author_key_digest, None);
        let other = IdBlock { guest_svn: 5, ..block() };
        assert_eq!(auth.verify(&other), Err(IdBlockError::BlockSignature));
        auth.author = Some((author.key(), author.sign(b"another key")));
        assert_eq!(auth.verify(&block()), Err(IdBlockError::AuthorSignature));
    }
}
