//! The emulated processor: real guest messages over a virtio-serial port.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use caveau_protocol::SECURE_PROCESSOR_PORT;
use caveau_snp::certificate_table::MAX_TABLE;
use caveau_sp_message::frame::{ExitInfo, GuestFrame, ProcessorFrame};
use caveau_sp_message::key::KeyResponse;
use caveau_sp_message::report::{self, KeySelection, ReportRequest, ReportResponse};
use caveau_sp_message::{FrameError, GuestSession, MessageType, SecretsPage, Status, VmpckId};

use crate::port::{self, DeadlineLink};
use crate::{DerivedKey, KeyRequest, SevSigns, Tee, TeeError, TeeEvidence, TeeKind, check_report};

/// How long one request may take. The processor needs milliseconds; a host that emulates the CPU may need seconds.
pub const EMULATED_TIMEOUT: Duration = Duration::from_secs(30);

/// The link to an emulated processor. It is opened once in a guest's life: the secrets page is handed out once.
pub struct EmulatedTee {
    link: DeadlineLink,
    timeout: Duration,
    session: GuestSession,
}

impl EmulatedTee {
    /// Opens the port under `root`, on a machine with these signs of SEV.
    pub(crate) fn open(root: &Path, signs: &SevSigns) -> Result<Self, TeeError> {
        if signs.any() {
            return Err(TeeError::EmulatedOnSev { signs: signs.to_string() });
        }
        Self::over(port::open(root, SECURE_PROCESSOR_PORT)?, EMULATED_TIMEOUT)
    }

    /// Takes the secrets page over `descriptor`, which must be in non-blocking mode; each request may take `timeout`.
    ///
    /// # Errors
    /// When the other side does not answer in time or not with a secrets page.
    pub fn over(descriptor: OwnedFd, timeout: Duration) -> Result<Self, TeeError> {
        let mut link = DeadlineLink::new(descriptor);
        let ProcessorFrame::Secrets(page) = exchange(&mut link, timeout, &GuestFrame::Secrets)? else {
            return Err(TeeError::Unexpected { found: "no secrets page".to_owned() });
        };
        let [key, ..] = SecretsPage::parse(&page)?.vmpcks;
        Ok(Self { link, timeout, session: GuestSession::new(key) })
    }

    /// Sends one frame. A link that failed once is in doubt for ever: the session's key is destroyed with it.
    fn exchange(&mut self, frame: &GuestFrame) -> Result<ProcessorFrame, TeeError> {
        exchange(&mut self.link, self.timeout, frame).inspect_err(|_| self.session.wipe())
    }

    /// What to report when the frame that came is not the answer or is a refusal.
    fn refused(&mut self, frame: &ProcessorFrame) -> TeeError {
        self.session.wipe();
        match frame {
            ProcessorFrame::ExtendedResponse { exit_info, .. } | ProcessorFrame::Response { exit_info, .. }
                if *exit_info != ExitInfo::SUCCESS =>
            {
                TeeError::Refused(*exit_info)
            }
            other => TeeError::Unexpected { found: format!("{other:?}") },
        }
    }
}

impl Tee for EmulatedTee {
    fn kind(&self) -> TeeKind {
        TeeKind::EmulatedSnp
    }

    fn report(&mut self, report_data: &[u8; 64]) -> Result<TeeEvidence, TeeError> {
        let request = ReportRequest {
            report_data: *report_data,
            vmpl: u32::from(VmpckId::ZERO.number()),
            key: KeySelection::VlekElseVcek,
        };
        let message = self.session.seal(MessageType::ReportRequest, report::MESSAGE_VERSION, &request.to_bytes())?;
        let capacity = u32::try_from(MAX_TABLE).unwrap_or(u32::MAX);
        let (certificates, message) = match self.exchange(&GuestFrame::ExtendedRequest { capacity, message })? {
            ProcessorFrame::ExtendedResponse { exit_info: ExitInfo::SUCCESS, table, message, .. } => (table, message),
            other => return Err(self.refused(&other)),
        };
        let received = self.session.open(MessageType::ReportRequest, &message)?;
        let response = ReportResponse::parse(&received.payload)?;
        let report = response.report.ok_or(TeeError::Status(response.status))?.to_vec();
        check_report(&report, report_data)?;
        Ok(TeeEvidence { report, certificates })
    }

    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, TeeError> {
        let message = self.session.seal(MessageType::KeyRequest, request.message_version(), &request.to_bytes())?;
        let message = match self.exchange(&GuestFrame::Request(message))? {
            ProcessorFrame::Response { exit_info: ExitInfo::SUCCESS, message } => message,
            other => return Err(self.refused(&other)),
        };
        let received = self.session.open(MessageType::KeyRequest, &message)?;
        let response = KeyResponse::parse(&received.payload)?;
        match response.status {
            Status::Success => Ok(response.key),
            status => Err(TeeError::Status(status)),
        }
    }
}

/// One frame there, one frame back, within `timeout`.
fn exchange(link: &mut DeadlineLink, timeout: Duration, frame: &GuestFrame) -> Result<ProcessorFrame, TeeError> {
    link.allow(timeout);
    let failed = |error| match error {
        FrameError::Transport(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            TeeError::Unresponsive { timeout }
        }
        other => TeeError::Link(other),
    };
    frame.write(link).map_err(failed)?;
    ProcessorFrame::read(link).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use caveau_sp_message::ProcessorSession;
    use zeroize::Zeroizing;

    use super::*;
    use crate::detect::signs_under;

    const PATIENT: Duration = Duration::from_secs(60);

    fn keys() -> ProcessorSession {
        ProcessorSession::new([[1; 32], [2; 32], [3; 32], [4; 32]])
    }

    fn secrets() -> ProcessorFrame {
        ProcessorFrame::Secrets(SecretsPage { fms: 0, vmpcks: keys().keys().clone() }.to_bytes())
    }

    /// A guest whose processor hands out its secrets and then does `then` with the link.
    fn guest(
        timeout: Duration,
        then: impl FnOnce(&mut UnixStream, &mut ProcessorSession) + Send + 'static,
    ) -> (EmulatedTee, thread::JoinHandle<()>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let processor = thread::spawn(move || {
            assert_eq!(GuestFrame::read(&mut theirs).unwrap(), GuestFrame::Secrets);
            secrets().write(&mut theirs).unwrap();
            then(&mut theirs, &mut keys());
        });
        (EmulatedTee::over(ours.into(), timeout).unwrap(), processor)
    }

    /// Answers one extended request with a report over `report_data`.
    fn answer_over(report_data: [u8; 64]) -> impl FnOnce(&mut UnixStream, &mut ProcessorSession) {
        move |link, session| {
            let GuestFrame::ExtendedRequest { message, .. } = GuestFrame::read(link).unwrap() else { panic!() };
            let received = session.open(&message).unwrap();
            let mut report = [0; report::REPORT_SIZE];
            report[0x50..0x90].copy_from_slice(&report_data);
            let response = ReportResponse { status: Status::Success, report: Some(Box::new(report)) };
            let message = session.seal(received.vmpck, MessageType::ReportResponse, 1, &response.to_bytes()).unwrap();
            let frame = ProcessorFrame::ExtendedResponse {
                exit_info: ExitInfo::SUCCESS,
                table_size: 0,
                table: Vec::new(),
                message,
            };
            frame.write(link).unwrap();
        }
    }

    #[test]
    fn a_machine_with_sev_refuses_the_emulated_processor() {
        let root = tempfile::tempdir().unwrap();
        let error = EmulatedTee::open(root.path(), &signs_under(root.path(), 0x1a)).err().unwrap();
        assert!(matches!(error, TeeError::EmulatedOnSev { .. }));
        assert!(error.to_string().contains("CPUID 0x8000001f"), "{error}");
    }

    #[test]
    fn a_report_over_other_data_is_refused() {
        let (mut tee, processor) = guest(PATIENT, answer_over([1; 64]));
        assert!(matches!(tee.report(&[2; 64]), Err(TeeError::OtherReportData)));
        processor.join().unwrap();
        let (mut tee, processor) = guest(PATIENT, answer_over([2; 64]));
        assert_eq!(tee.report(&[2; 64]).unwrap().report.len(), 1184);
        processor.join().unwrap();
    }

    #[test]
    fn a_silent_processor_is_an_error_and_ends_the_session() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (mut tee, processor) = guest(Duration::from_millis(200), move |link, _| {
            drop(GuestFrame::read(link).unwrap());
            stopped.recv().unwrap();
        });
        assert!(matches!(tee.report(&[0; 64]), Err(TeeError::Unresponsive { .. })));
        stop.send(()).unwrap();
        processor.join().unwrap();
        assert!(matches!(tee.report(&[0; 64]), Err(TeeError::Message(_))), "the key is destroyed");
    }

    #[test]
    fn a_processor_that_never_speaks_cannot_be_opened() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let opened = EmulatedTee::over(ours.into(), Duration::from_millis(20));
        assert!(matches!(opened, Err(TeeError::Unresponsive { .. })));
    }

    #[test]
    fn a_closed_link_is_an_error() {
        let (mut tee, processor) = guest(PATIENT, |_, _| ());
        processor.join().unwrap();
        assert!(matches!(tee.report(&[0; 64]), Err(TeeError::Link(_))));
    }

    #[test]
    fn refusals_and_nonsense_are_errors() {
        let exit_info = ExitInfo::firmware(0x16);
        let refusal =
            ProcessorFrame::ExtendedResponse { exit_info, table_size: 0, table: Vec::new(), message: Vec::new() };
        let other_kind = ProcessorFrame::Response { exit_info: ExitInfo::SUCCESS, message: Vec::new() };
        let again = ProcessorFrame::Secrets(Zeroizing::new(vec![0; 4096]));
        for (frame, said) in [(refusal, "firmware status 0x16"), (other_kind, "Response("), (again, "Secrets")] {
            let (mut tee, processor) = guest(PATIENT, move |link, _| {
                drop(GuestFrame::read(link).unwrap());
                frame.write(link).unwrap();
            });
            let error = tee.report(&[0; 64]).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            processor.join().unwrap();
        }
    }

    #[test]
    fn garbage_is_an_error() {
        let (mut tee, processor) = guest(PATIENT, |link, _| {
            drop(GuestFrame::read(link).unwrap());
            link.write_all(&[0xff; 64]).unwrap();
        });
        assert!(matches!(tee.report(&[0; 64]), Err(TeeError::Link(FrameError::Oversized { .. }))));
        processor.join().unwrap();
    }
}
