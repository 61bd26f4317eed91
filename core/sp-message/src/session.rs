//! Sequence rules of both sides: a request has the next number, its response the one after.

use zeroize::Zeroizing;

use crate::{Header, MessageError, MessageType, Vmpck, VmpckId};

/// The largest sequence number that is used. The guest driver keeps its count in 32 bits of the secrets page.
const LAST_SEQUENCE: u64 = u32::MAX as u64;

/// A message that was authentic.
#[derive(PartialEq, Eq)]
pub struct Received {
    /// Key under which it was sealed.
    pub vmpck: VmpckId,
    /// Its sequence number.
    pub sequence: u64,
    /// Type number; see [`MessageType`].
    pub message_type: u8,
    /// Version of the payload's layout.
    pub message_version: u8,
    /// The payload, possibly a secret.
    pub payload: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received")
            .field("vmpck", &self.vmpck)
            .field("sequence", &self.sequence)
            .field("message_type", &self.message_type)
            .field("message_version", &self.message_version)
            .finish_non_exhaustive()
    }
}

/// The guest's side: one request at a time under one key.
///
/// After an error that leaves open whether the processor counted the request, the key is destroyed: to repeat a
/// number with other bytes would use a nonce twice.
pub struct GuestSession {
    id: VmpckId,
    key: Option<Vmpck>,
    next: u64,
}

impl GuestSession {
    /// A session from the guest's start: the first request has number 1.
    #[must_use]
    pub fn new(key: Vmpck) -> Self {
        Self { id: key.id(), key: Some(key), next: 1 }
    }

    /// Seals the next request. It counts as sent: follow with [`Self::open`] or [`Self::wipe`].
    ///
    /// # Errors
    /// When the payload is too long, the numbers are used up, or the session was wiped.
    pub fn seal(
        &mut self,
        message_type: MessageType,
        message_version: u8,
        payload: &[u8],
    ) -> Result<Vec<u8>, MessageError> {
        let key = self.key.as_ref().ok_or(MessageError::Wiped { vmpck: self.id.number() })?;
        if self.next >= LAST_SEQUENCE {
            return Err(MessageError::Exhausted { vmpck: self.id.number() });
        }
        let message = key.seal(self.next, message_type as u8, message_version, payload)?;
        self.next = self.next.saturating_add(1);
        Ok(message)
    }

    /// Opens the answer to the last request; any error wipes the session.
    ///
    /// # Errors
    /// When the answer is not authentic, not the next in sequence, or not of the type that `request` asks for.
    pub fn open(&mut self, request: MessageType, message: &[u8]) -> Result<Received, MessageError> {
        let opened = self.checked(request, message);
        match &opened {
            Ok(_) => self.next = self.next.saturating_add(1),
            Err(_) => self.wipe(),
        }
        opened
    }

    /// Destroys the key; every later use gives [`MessageError::Wiped`].
    pub fn wipe(&mut self) {
        self.key = None;
    }

    fn checked(&self, request: MessageType, message: &[u8]) -> Result<Received, MessageError> {
        let key = self.key.as_ref().ok_or(MessageError::Wiped { vmpck: self.id.number() })?;
        let received = key.open(message)?;
        if received.sequence != self.next {
            return Err(MessageError::Sequence { expected: self.next, found: received.sequence });
        }
        if request.response().map(|response| response as u8) != Some(received.message_type) {
            return Err(MessageError::Field {
                field: "MSG_TYPE",
                expected: "the type that answers the request",
                found: u64::from(received.message_type),
            });
        }
        Ok(received)
    }
}

/// The processor's side: the four keys of one guest and how many messages each has carried.
///
/// A request that is refused does not count, as in the firmware: its number can be used by the next authentic one.
pub struct ProcessorSession {
    keys: [Vmpck; 4],
    counts: [u64; 4],
}

impl ProcessorSession {
    /// A session from the guest's launch, with the keys that the guest finds in its secrets page.
    #[must_use]
    pub fn new(keys: [[u8; 32]; 4]) -> Self {
        let [zero, one, two, three] = keys;
        let [id_zero, id_one, id_two, id_three] = VmpckId::ALL;
        Self {
            keys: [
                Vmpck::new(id_zero, zero),
                Vmpck::new(id_one, one),
                Vmpck::new(id_two, two),
                Vmpck::new(id_three, three),
            ],
            counts: [0; 4],
        }
    }

    /// The four keys, in order.
    #[must_use]
    pub fn keys(&self) -> &[Vmpck; 4] {
        &self.keys
    }

    /// Opens a request.
    ///
    /// # Errors
    /// When it is malformed, not authentic, or not the next in its key's sequence.
    pub fn open(&mut self, message: &[u8]) -> Result<Received, MessageError> {
        let header = Header::parse(message)?;
        let (key, count) = self.slot(header.vmpck)?;
        let expected = count.saturating_add(1);
        if header.sequence != expected {
            return Err(MessageError::Sequence { expected, found: header.sequence });
        }
        if expected >= LAST_SEQUENCE {
            return Err(MessageError::Exhausted { vmpck: header.vmpck.number() });
        }
        let received = key.open(message)?;
        *count = expected;
        Ok(received)
    }

    /// Seals the answer to the request opened last under `vmpck`.
    ///
    /// # Errors
    /// When the payload is too long.
    pub fn seal(
        &mut self,
        vmpck: VmpckId,
        message_type: MessageType,
        message_version: u8,
        payload: &[u8],
    ) -> Result<Vec<u8>, MessageError> {
        let (key, count) = self.slot(vmpck)?;
        let sequence = count.saturating_add(1);
        let message = key.seal(sequence, message_type as u8, message_version, payload)?;
        *count = sequence;
        Ok(message)
    }

    fn slot(&mut self, id: VmpckId) -> Result<(&Vmpck, &mut u64), MessageError> {
        let number = usize::from(id.number());
        self.keys.get(number).zip(self.counts.get_mut(number)).ok_or(MessageError::Cipher)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> (GuestSession, ProcessorSession) {
        let processor = ProcessorSession::new([[1; 32], [2; 32], [3; 32], [4; 32]]);
        (GuestSession::new(processor.keys()[0].clone()), processor)
    }

    fn round(guest: &mut GuestSession, processor: &mut ProcessorSession) -> Result<Received, MessageError> {
        let request = guest.seal(MessageType::ReportRequest, 1, b"ask").unwrap();
        let received = processor.open(&request).unwrap();
        assert_eq!(received.payload.as_slice(), b"ask");
        let response = processor.seal(received.vmpck, MessageType::ReportResponse, 1, b"answer").unwrap();
        guest.open(MessageType::ReportRequest, &response)
    }

    #[test]
    fn numbers_rise_by_two_a_round() {
        let (mut guest, mut processor) = pair();
        for expected in [2, 4, 6] {
            assert_eq!(round(&mut guest, &mut processor).unwrap().sequence, expected);
        }
    }

    #[test]
    fn a_replayed_request_is_refused() {
        let (mut guest, mut processor) = pair();
        let request = guest.seal(MessageType::ReportRequest, 1, b"ask").unwrap();
        processor.open(&request).unwrap();
        assert_eq!(processor.open(&request), Err(MessageError::Sequence { expected: 2, found: 1 }));
    }

    #[test]
    fn a_refused_request_does_not_count() {
        let (mut guest, mut processor) = pair();
        let request = guest.seal(MessageType::ReportRequest, 1, b"ask").unwrap();
        let mut changed = request.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(processor.open(&changed), Err(MessageError::Authentication { sequence: 1, vmpck: 0 }));
        assert!(processor.open(&request).is_ok());
    }

    #[test]
    fn each_key_counts_for_itself() {
        let (mut guest, mut processor) = pair();
        let mut other = GuestSession::new(processor.keys()[2].clone());
        round(&mut guest, &mut processor).unwrap();
        assert_eq!(round(&mut other, &mut processor).unwrap().sequence, 2);
    }

    #[test]
    fn a_bad_answer_wipes_the_guest_session() {
        let (mut guest, mut processor) = pair();
        let request = guest.seal(MessageType::ReportRequest, 1, b"ask").unwrap();
        processor.open(&request).unwrap();
        let wrong = processor.seal(VmpckId::ZERO, MessageType::KeyResponse, 1, b"answer").unwrap();
        assert!(matches!(
            guest.open(MessageType::ReportRequest, &wrong),
            Err(MessageError::Field { field: "MSG_TYPE", .. })
        ));
        assert_eq!(guest.seal(MessageType::ReportRequest, 1, b""), Err(MessageError::Wiped { vmpck: 0 }));
    }

    #[test]
    fn a_replayed_answer_is_refused() {
        let (mut guest, mut processor) = pair();
        let request = guest.seal(MessageType::ReportRequest, 1, b"ask").unwrap();
        processor.open(&request).unwrap();
        let answer = processor.seal(VmpckId::ZERO, MessageType::ReportResponse, 1, b"answer").unwrap();
        guest.open(MessageType::ReportRequest, &answer).unwrap();
        guest.seal(MessageType::ReportRequest, 1, b"again").unwrap();
        assert_eq!(
            guest.open(MessageType::ReportRequest, &answer),
            Err(MessageError::Sequence { expected: 4, found: 2 })
        );
    }

    #[test]
    fn used_up_numbers_end_the_session() {
        let (mut guest, _) = pair();
        guest.next = LAST_SEQUENCE;
        assert_eq!(guest.seal(MessageType::KeyRequest, 1, b""), Err(MessageError::Exhausted { vmpck: 0 }));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic_either_side(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let (mut guest, mut processor) = pair();
            prop_assert!(processor.open(&bytes).is_err());
            prop_assert!(guest.open(MessageType::ReportRequest, &bytes).is_err());
        }

        #[test]
        fn any_payload_survives_the_round_trip(payload in proptest::collection::vec(any::<u8>(), 0..=4000)) {
            let (mut guest, mut processor) = pair();
            let request = guest.seal(MessageType::KeyRequest, 2, &payload).unwrap();
            let received = processor.open(&request).unwrap();
            prop_assert_eq!(&*received.payload, &payload);
            prop_assert_eq!((received.message_type, received.message_version), (3, 2));
        }
    }
}
