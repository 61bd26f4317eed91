//! The secrets page: how a guest comes by its keys (AMD 56860, "Secrets Page"; Linux `struct snp_secrets_page`).

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::Zeroizing;

use crate::header::field;
use crate::{MessageError, Vmpck, VmpckId};

/// Bytes of a secrets page.
pub const SECRETS_PAGE_SIZE: usize = 4096;

/// The layout version that is written: 3, the first with the family, model and stepping word. Newer ones only append.
const VERSION: u32 = 3;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSecretsPage {
    version: U32,
    flags: U32,
    fms: U32,
    reserved_0c: U32,
    guest_os_workarounds: [u8; 16],
    vmpcks: [[u8; 32]; 4],
    rest: [u8; 3936],
}

const _: () = assert!(size_of::<RawSecretsPage>() == SECRETS_PAGE_SIZE);

/// What Caveau uses of the page.
pub struct SecretsPage {
    /// CPUID 1 EAX of the processor.
    pub fms: u32,
    /// VMPCK0 to VMPCK3.
    pub vmpcks: [Vmpck; 4],
}

impl SecretsPage {
    /// Reads a page.
    ///
    /// # Errors
    /// When it is not 4096 bytes long or of a version before 2.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let raw = RawSecretsPage::ref_from_bytes(bytes).map_err(|_| MessageError::Size {
            what: "a secrets page",
            expected: SECRETS_PAGE_SIZE,
            found: bytes.len(),
        })?;
        if raw.version.get() < 2 {
            return Err(field("secrets page VERSION", "2 or later", u64::from(raw.version.get())));
        }
        let [zero, one, two, three] = raw.vmpcks;
        let [id_zero, id_one, id_two, id_three] = VmpckId::ALL;
        Ok(Self {
            fms: raw.fms.get(),
            vmpcks: [
                Vmpck::new(id_zero, zero),
                Vmpck::new(id_one, one),
                Vmpck::new(id_two, two),
                Vmpck::new(id_three, three),
            ],
        })
    }

    /// The page of a guest with these keys.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let raw = RawSecretsPage {
            version: U32::new(VERSION),
            flags: U32::ZERO,
            fms: U32::new(self.fms),
            reserved_0c: U32::ZERO,
            guest_os_workarounds: [0; 16],
            vmpcks: self.vmpcks.each_ref().map(|key| *key.secret()),
            rest: [0; 3936],
        };
        Zeroizing::new(raw.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProcessorSession;

    #[test]
    fn keys_lie_at_0x20_and_survive_the_round_trip() {
        let keys = ProcessorSession::new([[1; 32], [2; 32], [3; 32], [4; 32]]).keys().clone();
        let bytes = SecretsPage { fms: 0x00a0_0f11, vmpcks: keys }.to_bytes();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(bytes[0x20..0x60], [[1; 32], [2; 32]].concat());
        let page = SecretsPage::parse(&bytes).unwrap();
        assert_eq!(page.fms, 0x00a0_0f11);
        assert_eq!(page.vmpcks[3].secret(), &[4; 32]);
        assert_eq!(page.vmpcks[3].id().number(), 3);
    }

    #[test]
    fn another_size_or_version_is_refused() {
        assert!(matches!(SecretsPage::parse(&[0; 4095]), Err(MessageError::Size { .. })));
        assert!(matches!(SecretsPage::parse(&[0; 4096]), Err(MessageError::Field { .. })));
    }
}
