//! VM platform communication keys: the secret that a guest of one privilege level shares with the processor.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::header::{AAD_START, HEADER_SIZE, Header, MAX_PAYLOAD, TAG_SIZE};
use crate::{MessageError, Received};

/// Which of the four keys: 0 to 3, one for each VM privilege level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmpckId(u8);

impl VmpckId {
    /// The key of the most privileged level.
    pub const ZERO: Self = Self(0);
    /// All four.
    pub const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    /// The key with this number; only 0 to 3 exist.
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        (number < 4).then_some(Self(number))
    }

    /// 0 to 3; also the lowest VMPL number that a request under this key may ask for.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// One key; its bytes are wiped when it is dropped.
#[derive(Clone)]
pub struct Vmpck {
    id: VmpckId,
    key: Zeroizing<[u8; 32]>,
}

impl Vmpck {
    /// Key `id` with these 32 bytes.
    #[must_use]
    pub fn new(id: VmpckId, key: [u8; 32]) -> Self {
        Self { id, key: Zeroizing::new(key) }
    }

    /// Which key this is.
    #[must_use]
    pub fn id(&self) -> VmpckId {
        self.id
    }

    /// The key's bytes, for the secrets page.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.key
    }

    /// Seals `payload` as the message with this sequence number, which must never be used twice; the sessions see to that.
    pub(crate) fn seal(
        &self,
        sequence: u64,
        message_type: u8,
        message_version: u8,
        payload: &[u8],
    ) -> Result<Vec<u8>, MessageError> {
        let payload_size = u16::try_from(payload.len())
            .ok()
            .filter(|size| usize::from(*size) <= MAX_PAYLOAD)
            .ok_or(MessageError::Size { what: "a payload", expected: MAX_PAYLOAD, found: payload.len() })?;
        let mut header =
            Header { tag: [0; TAG_SIZE], sequence, message_type, message_version, payload_size, vmpck: self.id };
        let mut body = payload.to_vec();
        let tag = self
            .cipher()?
            .seal_in_place_separate_tag(nonce(sequence), aad(&header), &mut body)
            .map_err(|_| MessageError::Cipher)?;
        header.tag = tag.as_ref().try_into().map_err(|_| MessageError::Cipher)?;
        let mut message = header.to_bytes().to_vec();
        message.append(&mut body);
        Ok(message)
    }

    /// Opens a message sealed under this key; the caller judges the sequence number.
    pub(crate) fn open(&self, message: &[u8]) -> Result<Received, MessageError> {
        let header = Header::parse(message)?;
        let refused = MessageError::Authentication { sequence: header.sequence, vmpck: header.vmpck.number() };
        if header.vmpck != self.id {
            return Err(refused);
        }
        let body = message.get(HEADER_SIZE..).unwrap_or_default();
        let mut payload = vec![0; body.len()];
        self.cipher()?
            .open_separate_gather(nonce(header.sequence), aad(&header), body, &header.tag, &mut payload)
            .map_err(|_| refused)?;
        Ok(Received {
            vmpck: header.vmpck,
            sequence: header.sequence,
            message_type: header.message_type,
            message_version: header.message_version,
            payload: Zeroizing::new(payload),
        })
    }

    fn cipher(&self) -> Result<LessSafeKey, MessageError> {
        UnboundKey::new(&AES_256_GCM, self.key.as_slice()).map(LessSafeKey::new).map_err(|_| MessageError::Cipher)
    }
}

/// 12 bytes: the sequence number, little endian, then zeros.
fn nonce(sequence: u64) -> Nonce {
    let mut bytes = [0; 12];
    for (to, from) in bytes.iter_mut().zip(sequence.to_le_bytes()) {
        *to = from;
    }
    Nonce::assume_unique_for_key(bytes)
}

/// The authenticated part of the header: from 0x30 to its end.
fn aad(header: &Header) -> Aad<Vec<u8>> {
    Aad::from(header.to_bytes().get(AAD_START..).unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_opens_only_unchanged() {
        let key = Vmpck::new(VmpckId::ZERO, [9; 32]);
        let message = key.seal(3, 5, 1, b"a payload").unwrap();
        assert_eq!(key.open(&message).unwrap().payload.as_slice(), b"a payload");
        for offset in 0..message.len() {
            let mut changed = message.clone();
            changed[offset] ^= 1;
            assert!(key.open(&changed).is_err(), "offset {offset:#x}");
        }
        assert!(Vmpck::new(VmpckId::ZERO, [8; 32]).open(&message).is_err());
        assert!(Vmpck::new(VmpckId(1), [9; 32]).open(&message).is_err());
    }

    #[test]
    fn the_bytes_stay_what_they_are() {
        // Computed with another implementation of AES-256-GCM (Python's cryptography): key of 32 x 0x42, nonce 0100…00,
        // AAD = header bytes 0x30..0x60, plain text 00 01 02 03.
        let message = Vmpck::new(VmpckId::ZERO, [0x42; 32]).seal(1, 5, 1, &[0, 1, 2, 3]).unwrap();
        assert_eq!(hex::encode(&message[..16]), KNOWN_TAG);
        assert_eq!(hex::encode(&message[96..]), KNOWN_TEXT);
    }

    const KNOWN_TAG: &str = "b3d65cc80f5ff6c913da9b4d47307537";
    const KNOWN_TEXT: &str = "8d57192f";
}
