//! MSG_KEY_REQ and MSG_KEY_RSP: keys derived from the processor's secret (AMD 56860, "Key Derivation").

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::Zeroizing;

use crate::header::{field, zero};
use crate::{MessageError, Status};

/// Version of the request without the mitigation vector, and of the response.
pub const MESSAGE_VERSION: u8 = 1;
/// Version of the request with the mitigation vector (firmware ABI 1.58).
pub const MESSAGE_VERSION_MITIGATION: u8 = 2;
/// Bytes of a derived key.
pub const KEY_SIZE: usize = 32;

/// Which facts are mixed into a derived key (GUEST_FIELD_SELECT).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyFields(u64);

impl KeyFields {
    /// Bit 0: the guest policy.
    pub const POLICY: Self = Self(1);
    /// Bit 1: the image identity of the ID block.
    pub const IMAGE_ID: Self = Self(1 << 1);
    /// Bit 2: the family identity of the ID block.
    pub const FAMILY_ID: Self = Self(1 << 2);
    /// Bit 3: the launch digest. A key without it is shared by every guest on the chip.
    pub const MEASUREMENT: Self = Self(1 << 3);
    /// Bit 4: the guest's security version.
    pub const GUEST_SVN: Self = Self(1 << 4);
    /// Bit 5: the TCB version.
    pub const TCB_VERSION: Self = Self(1 << 5);
    /// Bit 6: the mitigation vector at launch; needs [`MESSAGE_VERSION_MITIGATION`].
    pub const LAUNCH_MIT_VECTOR: Self = Self(1 << 6);
    /// What a key that seals data must be bound to: bits 0, 3 and 5.
    pub const SEALING: Self = Self(0b10_1001);

    const KNOWN: u64 = 0b111_1111;

    /// The set with these bits, if all of them are known.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits & !Self::KNOWN == 0).then_some(Self(bits))
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Both sets.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The secret that a key is derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RootKey {
    /// 0: the chip's endorsement key.
    #[default]
    Vcek,
    /// 1: the key of the migration agent.
    Vmrk,
}

/// A guest's request for a derived key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRequest {
    /// The secret to start from.
    pub root: RootKey,
    /// Facts to mix in.
    pub fields: KeyFields,
    /// VMPL to mix in; not lower than the requester's.
    pub vmpl: u32,
    /// Security version to mix in with [`KeyFields::GUEST_SVN`]; not above the launch's.
    pub guest_svn: u32,
    /// TCB version to mix in with [`KeyFields::TCB_VERSION`]; no component above the committed one.
    pub tcb_version: u64,
    /// Mitigation vector to mix in; only in messages of version 2.
    pub launch_mit_vector: Option<u64>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRequest {
    root: U32,
    reserved_04: U32,
    fields: U64,
    vmpl: U32,
    guest_svn: U32,
    tcb_version: U64,
}

impl KeyRequest {
    /// Reads the payload of a MSG_KEY_REQ of this version.
    ///
    /// # Errors
    /// When version, length, root, a field bit or a reserved byte is not as specified.
    pub fn parse(version: u8, payload: &[u8]) -> Result<Self, MessageError> {
        let size = MessageError::Size { what: "MSG_KEY_REQ", expected: 32, found: payload.len() };
        let (raw, rest) = RawRequest::ref_from_prefix(payload).map_err(|_| size.clone())?;
        let launch_mit_vector = match version {
            MESSAGE_VERSION if rest.is_empty() => None,
            MESSAGE_VERSION_MITIGATION => Some(u64::from_le_bytes(rest.try_into().map_err(|_| size)?)),
            MESSAGE_VERSION => return Err(size),
            other => return Err(field("MSG_VERSION of MSG_KEY_REQ", "1 or 2", u64::from(other))),
        };
        zero("MSG_KEY_REQ bytes 0x04..0x08", raw.reserved_04.as_bytes())?;
        let root = match raw.root.get() {
            0 => RootKey::Vcek,
            1 => RootKey::Vmrk,
            other => return Err(field("ROOT_KEY_SELECT", "0 or 1", u64::from(other))),
        };
        let fields = KeyFields::from_bits(raw.fields.get())
            .ok_or_else(|| field("GUEST_FIELD_SELECT", "bits 0 to 6", raw.fields.get()))?;
        if fields.contains(KeyFields::LAUNCH_MIT_VECTOR) && launch_mit_vector.is_none() {
            return Err(field("GUEST_FIELD_SELECT", "no bit 6 in version 1", raw.fields.get()));
        }
        Ok(Self {
            root,
            fields,
            vmpl: raw.vmpl.get(),
            guest_svn: raw.guest_svn.get(),
            tcb_version: raw.tcb_version.get(),
            launch_mit_vector,
        })
    }

    /// The message version that this request needs.
    #[must_use]
    pub fn message_version(&self) -> u8 {
        if self.launch_mit_vector.is_some() { MESSAGE_VERSION_MITIGATION } else { MESSAGE_VERSION }
    }

    /// The payload's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let raw = RawRequest {
            root: U32::new(match self.root {
                RootKey::Vcek => 0,
                RootKey::Vmrk => 1,
            }),
            reserved_04: U32::ZERO,
            fields: U64::new(self.fields.bits()),
            vmpl: U32::new(self.vmpl),
            guest_svn: U32::new(self.guest_svn),
            tcb_version: U64::new(self.tcb_version),
        };
        let mut bytes = raw.as_bytes().to_vec();
        bytes.extend(self.launch_mit_vector.into_iter().flat_map(u64::to_le_bytes));
        bytes
    }
}

/// The processor's answer.
pub struct KeyResponse {
    /// Whether there is a key.
    pub status: Status,
    /// The key; zeros unless the status is success.
    pub key: Zeroizing<[u8; KEY_SIZE]>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawResponse {
    status: U32,
    reserved_04: [u8; 28],
    key: [u8; KEY_SIZE],
}

impl KeyResponse {
    /// An answer without a key.
    #[must_use]
    pub fn refused(status: Status) -> Self {
        Self { status, key: Zeroizing::new([0; KEY_SIZE]) }
    }

    /// Reads the payload of MSG_KEY_RSP.
    ///
    /// # Errors
    /// When the length or a reserved byte is wrong.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        let raw = RawResponse::ref_from_bytes(payload).map_err(|_| MessageError::Size {
            what: "MSG_KEY_RSP",
            expected: size_of::<RawResponse>(),
            found: payload.len(),
        })?;
        zero("MSG_KEY_RSP bytes 0x04..0x20", &raw.reserved_04)?;
        Ok(Self { status: Status::from(raw.status.get()), key: Zeroizing::new(raw.key) })
    }

    /// The payload's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let raw = RawResponse { status: U32::new(self.status.into()), reserved_04: [0; 28], key: *self.key };
        Zeroizing::new(raw.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> KeyRequest {
        KeyRequest {
            root: RootKey::Vcek,
            fields: KeyFields::SEALING,
            vmpl: 1,
            guest_svn: 2,
            tcb_version: 0x0304,
            launch_mit_vector: None,
        }
    }

    #[test]
    fn fields_lie_where_the_specification_has_them() {
        let bytes = request().to_bytes();
        assert_eq!(bytes.len(), 32);
        assert_eq!((bytes[0x08], bytes[0x10], bytes[0x14], bytes[0x18], bytes[0x19]), (0x29, 1, 2, 4, 3));
    }

    #[test]
    fn sealing_is_policy_measurement_and_tcb() {
        let set = KeyFields::POLICY.with(KeyFields::MEASUREMENT).with(KeyFields::TCB_VERSION);
        assert_eq!(KeyFields::SEALING, set);
    }

    #[test]
    fn version_and_length_must_agree() {
        let old = request();
        let new = KeyRequest { launch_mit_vector: Some(9), ..request() };
        assert_eq!(KeyRequest::parse(old.message_version(), &old.to_bytes()).unwrap(), old);
        assert_eq!(KeyRequest::parse(new.message_version(), &new.to_bytes()).unwrap(), new);
        assert!(KeyRequest::parse(2, &old.to_bytes()).is_err());
        assert!(KeyRequest::parse(1, &new.to_bytes()).is_err());
        assert!(KeyRequest::parse(3, &new.to_bytes()).is_err());
    }

    #[test]
    fn unknown_values_are_refused() {
        for (offset, value) in [(0, 2), (4, 1), (8, 0x80), (15, 1), (8, 0x40)] {
            let mut bytes = request().to_bytes();
            bytes[offset] = value;
            assert!(KeyRequest::parse(1, &bytes).is_err(), "offset {offset}");
        }
    }

    #[test]
    fn an_answer_survives_the_round_trip() {
        let answer = KeyResponse { status: Status::Success, key: Zeroizing::new([7; 32]) };
        let parsed = KeyResponse::parse(&answer.to_bytes()).unwrap();
        assert_eq!((parsed.status, *parsed.key), (Status::Success, [7; 32]));
        assert!(KeyResponse::parse(&answer.to_bytes()[1..]).is_err());
        let mut dirty = answer.to_bytes().to_vec();
        dirty[4] = 1;
        assert!(KeyResponse::parse(&dirty).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(version in 0u8..4, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(request) = KeyRequest::parse(version, &bytes) {
                prop_assert_eq!(request.to_bytes(), bytes.clone());
            }
            drop(KeyResponse::parse(&bytes));
        }
    }
}
