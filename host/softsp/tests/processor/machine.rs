//! A machine to launch, its guest, and its owner.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caveau_emulated::{SoftwareRoot, judge};
use caveau_evidence::{
    Appraisal, Certificates, Evidence, Expectations, ExpectedReportData, Hex, Profile, Tee as TeeName, Timestamp,
};
use caveau_measure::{Firmware, GuestFeatures, KernelHashes, LaunchDigest, LaunchSpec, Vmm, launch_digest};
use caveau_softsp::client::{FirmwareParts, LaunchError, Parts, control_pair, launch};
use caveau_softsp::{LaunchSettings, Launched, Persona, RefusalStatus, ServeError, root_certificate};
use caveau_sp_message::frame::{ExitInfo, GuestFrame, ProcessorFrame};
use caveau_sp_message::report::{KeySelection, ReportRequest, ReportResponse};
use caveau_sp_message::{GuestSession, MessageType, SecretsPage};
use caveau_tee::{EmulatedTee, Tee};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Keys of 4096 bits take seconds: all tests, in whatever processes, and all runs of them share one installation.
pub(crate) static STATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("processor-tests/softsp");
    root_certificate(&path).unwrap();
    path
});

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const CMDLINE: &str = "caveau.tee=emulated-snp console=ttyS0";
pub(crate) const BIOS: [u8; 8192] = [0xf4; 8192];
pub(crate) const ROM: [u8; 1536] = [0x55; 1536];

pub(crate) fn sealed(bytes: &[u8]) -> OwnedFd {
    let descriptor = memfd_create("part", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    File::from(descriptor.try_clone().unwrap()).write_all(bytes).unwrap();
    fcntl_add_seals(&descriptor, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE).unwrap();
    descriptor
}

/// A guest to launch.
pub(crate) struct Machine {
    pub(crate) settings: LaunchSettings,
    pub(crate) bios: OwnedFd,
    pub(crate) rom: OwnedFd,
    pub(crate) kernel: OwnedFd,
    pub(crate) initrd: OwnedFd,
}

/// A launched guest's end of things.
pub(crate) struct Running {
    pub(crate) launched: Launched,
    pub(crate) link: UnixStream,
    pub(crate) processor: JoinHandle<Result<(), ServeError>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            settings: LaunchSettings::new(CMDLINE, 2, "EPYC-v4", [7; 32]),
            bios: sealed(&BIOS),
            rom: sealed(&ROM),
            kernel: sealed(b"kernel"),
            initrd: sealed(b"initrd"),
        }
    }

    pub(crate) fn persona(persona: Persona) -> Self {
        let mut machine = Self::new();
        machine.settings.persona = persona;
        machine
    }

    /// What anybody predicts for this guest from the same files.
    pub(crate) fn prediction(&self) -> LaunchDigest {
        let spec = LaunchSpec {
            firmware: Firmware::Direct { bios: &BIOS, option_roms: &[("pvh.bin", &ROM)] },
            kernel: Some(KernelHashes::from_bytes(b"kernel", Some(b"initrd"), &self.settings.cmdline)),
            vcpus: self.settings.vcpus,
            vcpu_type: self.settings.vcpu_type.parse().unwrap(),
            guest_features: GuestFeatures::SNP,
            vmm: Vmm::Qemu,
        };
        launch_digest(&spec).unwrap()
    }

    pub(crate) fn try_launch(&self, state: &Path) -> Result<Running, LaunchError> {
        let (ours, theirs) = control_pair().unwrap();
        let state = state.to_owned();
        let processor = thread::spawn(move || caveau_softsp::run(&state, theirs));
        let (guest, link) = UnixStream::pair().unwrap();
        let parts = Parts {
            firmware: FirmwareParts::Direct {
                bios: self.bios.as_fd(),
                option_roms: vec![("pvh.bin", self.rom.as_fd())],
            },
            kernel: self.kernel.as_fd(),
            initrd: Some(self.initrd.as_fd()),
            link: link.as_fd(),
        };
        let launched = launch(ours.as_fd(), &self.settings, &parts, PATIENCE)?;
        Ok(Running { launched, link: guest, processor })
    }

    pub(crate) fn launch(&self) -> Running {
        self.try_launch(&STATE).unwrap()
    }

    pub(crate) fn refusal(&self) -> (RefusalStatus, String) {
        match self.try_launch(&STATE) {
            Err(LaunchError::Refused(refusal)) => (refusal.status, refusal.reason),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was launched"),
        }
    }
}

impl Running {
    pub(crate) fn tee(&self) -> EmulatedTee {
        let link = self.link.try_clone().unwrap();
        link.set_nonblocking(true).unwrap();
        EmulatedTee::over(link.into(), PATIENCE).unwrap()
    }

    /// Takes the secrets page by hand.
    pub(crate) fn session(&mut self) -> GuestSession {
        let ProcessorFrame::Secrets(page) = self.exchange(&GuestFrame::Secrets) else { panic!("no secrets page") };
        let [key, ..] = SecretsPage::parse(&page).unwrap().vmpcks;
        GuestSession::new(key)
    }

    pub(crate) fn exchange(&mut self, frame: &GuestFrame) -> ProcessorFrame {
        frame.write(&mut self.link).unwrap();
        ProcessorFrame::read(&mut self.link).unwrap()
    }

    /// Ends the guest; gives how the processor ended.
    pub(crate) fn end(self) -> Result<(), String> {
        drop(self.link);
        self.processor.join().unwrap().map_err(|error| error.to_string())
    }
}

pub(crate) fn root(state: &Path) -> SoftwareRoot {
    SoftwareRoot::parse(&std::fs::read(root_certificate(state).unwrap()).unwrap()).unwrap()
}

pub(crate) fn now() -> Timestamp {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().into()
}

/// A report and its certificates, as a guest gets them, as evidence.
pub(crate) fn evidence(tee: &mut EmulatedTee, report_data: [u8; 64]) -> Evidence {
    let answer = tee.report(&report_data).unwrap();
    as_evidence(answer.report, &answer.certificates)
}

pub(crate) fn as_evidence(report: Vec<u8>, table: &[u8]) -> Evidence {
    Evidence::new(TeeName::EmulatedSnp, report, Certificates::from_table(table).unwrap())
}

pub(crate) fn judged(evidence: &Evidence, expected: &Expectations) -> Appraisal {
    judge(&[root(&STATE)], evidence, expected, Profile::Strict, now())
}

/// All that an owner of `machine` expects.
pub(crate) fn expected(machine: &Machine, report_data: [u8; 64]) -> Expectations {
    Expectations {
        report_data: Some(ExpectedReportData::Exact(Hex(report_data))),
        policy_digest: Some(Hex([7; 32])),
        measurements: Some(vec![Hex(*machine.prediction().as_bytes())]),
        ..Expectations::default()
    }
}

/// A report and the certificate table, without the library's own checks.
pub(crate) fn ask_by_hand(running: &mut Running) -> (Vec<u8>, Vec<u8>) {
    let mut session = running.session();
    let request = ReportRequest { report_data: [1; 64], vmpl: 0, key: KeySelection::VlekElseVcek };
    let message = session.seal(MessageType::ReportRequest, 1, &request.to_bytes()).unwrap();
    let too_small = GuestFrame::ExtendedRequest { capacity: 100, message: message.clone() };
    let ProcessorFrame::ExtendedResponse { exit_info, table_size, .. } = running.exchange(&too_small) else { panic!() };
    assert_eq!(exit_info, ExitInfo::CERTIFICATES_TOO_LARGE);
    // As on hardware, the firmware has not seen the message: it is sent again as it is, with the room that was asked for.
    let enough = GuestFrame::ExtendedRequest { capacity: table_size, message };
    let ProcessorFrame::ExtendedResponse { exit_info, table, message, .. } = running.exchange(&enough) else {
        panic!()
    };
    assert_eq!((exit_info, table.len()), (ExitInfo::SUCCESS, usize::try_from(table_size).unwrap()));
    let received = session.open(MessageType::ReportRequest, &message).unwrap();
    (ReportResponse::parse(&received.payload).unwrap().report.unwrap().to_vec(), table)
}
