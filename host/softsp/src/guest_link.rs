//! The link to one guest: the frames of `caveau_sp_message::frame`, answered as hypervisor and firmware would.

use std::io::{Read, Write};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use caveau_sp_message::frame::{ExitInfo, GuestFrame, ProcessorFrame};
use caveau_sp_message::key::{self, KeyRequest, KeyResponse};
use caveau_sp_message::report::{self, ReportRequest, ReportResponse};
use caveau_sp_message::{FrameError, MessageError, MessageType, ProcessorSession, Received, SecretsPage, Status};
use zeroize::Zeroizing;

use crate::CryptoError;
use crate::context::GuestContext;
use crate::persona::cpuid_signature;

/// BAD_MEASUREMENT: a message does not authenticate (SEV-SNP firmware ABI, SNP_GUEST_REQUEST).
const BAD_MEASUREMENT: u32 = 0xb;
/// INVALID_PARAM.
const INVALID_PARAM: u32 = 0x16;
/// AEAD_OFLOW: the sequence numbers of a key are used up.
const AEAD_OFLOW: u32 = 0x1d;

/// Why the processor stopped talking to its guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Keys.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The link, or a frame that cannot be understood: as with a malformed exit on hardware, there is no going on.
    #[error("the guest's link is unusable")]
    Frame(#[source] FrameError),
    /// A launch makes one secrets page, and whoever asks first has it.
    #[error("the guest asked for its secrets page a second time")]
    SecretsTwice,
}

/// One guest's session.
pub(crate) struct GuestLink<'a> {
    context: &'a GuestContext,
    session: ProcessorSession,
    has_secrets: bool,
}

impl<'a> GuestLink<'a> {
    /// A session with new keys.
    pub(crate) fn new(context: &'a GuestContext) -> Result<Self, CryptoError> {
        let mut keys = [[0; 32]; 4];
        let random = SystemRandom::new();
        keys.iter_mut().try_for_each(|key| random.fill(key)).map_err(CryptoError::at("draw the guest's keys"))?;
        Ok(Self { context, session: ProcessorSession::new(keys), has_secrets: false })
    }

    /// Answers frames until the guest's side closes the link.
    pub(crate) fn serve(&mut self, link: &mut (impl Read + Write)) -> Result<(), LinkError> {
        loop {
            let frame = match GuestFrame::read(link) {
                Err(FrameError::Closed) => return Ok(()),
                frame => frame.map_err(LinkError::Frame)?,
            };
            self.answer(frame)?.write(link).map_err(LinkError::Frame)?;
        }
    }

    fn answer(&mut self, frame: GuestFrame) -> Result<ProcessorFrame, LinkError> {
        Ok(match frame {
            GuestFrame::Secrets => ProcessorFrame::Secrets(self.secrets()?),
            GuestFrame::Request(message) => {
                let (exit_info, message) = self.exit(&message);
                ProcessorFrame::Response { exit_info, message }
            }
            GuestFrame::ExtendedRequest { capacity, message } => self.extended(capacity, &message),
        })
    }

    fn secrets(&mut self) -> Result<Zeroizing<Vec<u8>>, LinkError> {
        if std::mem::replace(&mut self.has_secrets, true) {
            return Err(LinkError::SecretsTwice);
        }
        let fms = cpuid_signature(self.context.platform.fms);
        Ok(SecretsPage { fms, vmpcks: self.session.keys().clone() }.to_bytes())
    }

    /// SNP_EXTENDED_GUEST_REQUEST. Where the room is too small the hypervisor says so before the firmware hears of it, so the
    /// same message can be sent again.
    fn extended(&mut self, capacity: u32, message: &[u8]) -> ProcessorFrame {
        let table = &self.context.endorsement.table;
        let table_size = u32::try_from(table.len()).unwrap_or(u32::MAX);
        let (exit_info, message) =
            if table_size > capacity { (ExitInfo::CERTIFICATES_TOO_LARGE, Vec::new()) } else { self.exit(message) };
        let table = if exit_info == ExitInfo::SUCCESS { table.clone() } else { Vec::new() };
        ProcessorFrame::ExtendedResponse { exit_info, table_size, table, message }
    }

    /// SNP_GUEST_REQUEST: the exit information and, on success, the response.
    fn exit(&mut self, message: &[u8]) -> (ExitInfo, Vec<u8>) {
        match self.request(message) {
            Ok(response) => (ExitInfo::SUCCESS, response),
            Err(status) => (ExitInfo::firmware(status), Vec::new()),
        }
    }

    fn request(&mut self, message: &[u8]) -> Result<Vec<u8>, u32> {
        let received = self.session.open(message).map_err(|error| firmware_status(&error))?;
        let (kind, version, payload) = self.process(&received).ok_or(INVALID_PARAM)?;
        self.session.seal(received.vmpck, kind, version, &payload).map_err(|error| firmware_status(&error))
    }

    /// The answer to an authentic message; `None` for a type that is no request.
    fn process(&self, received: &Received) -> Option<(MessageType, u8, Zeroizing<Vec<u8>>)> {
        let (payload, version) = (&received.payload, received.message_version);
        match MessageType::from_number(received.message_type)? {
            MessageType::ReportRequest => {
                let response = match ReportRequest::parse(payload) {
                    Ok(request) if version == report::MESSAGE_VERSION => self.context.report(received.vmpck, &request),
                    _ => ReportResponse::refused(Status::InvalidParameters),
                };
                Some((MessageType::ReportResponse, report::MESSAGE_VERSION, Zeroizing::new(response.to_bytes())))
            }
            MessageType::KeyRequest => {
                let response = match KeyRequest::parse(version, payload) {
                    Ok(request) => self.context.derived_key(received.vmpck, &request),
                    Err(_) => KeyResponse::refused(Status::InvalidParameters),
                };
                Some((MessageType::KeyResponse, key::MESSAGE_VERSION, response.to_bytes()))
            }
            MessageType::KeyResponse | MessageType::ReportResponse => None,
        }
    }
}

/// What the firmware answers to a message that it does not take.
fn firmware_status(error: &MessageError) -> u32 {
    match error {
        MessageError::Authentication { .. } => BAD_MEASUREMENT,
        MessageError::Exhausted { .. } => AEAD_OFLOW,
        _ => INVALID_PARAM,
    }
}
