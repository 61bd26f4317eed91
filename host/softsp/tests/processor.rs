//! Whole launches: a launcher's requests, a guest's questions (through `caveau-tee`), a verifier's judgement of the answers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use caveau_emulated::{SoftwareRoot, judge};
use caveau_evidence::{
    Appraisal, Certificates, Evidence, Expectations, ExpectedReportData, Hex, Outcome, Profile, Report, Tee as TeeName,
    Timestamp,
};
use caveau_measure::{
    Firmware, GuestFeatures, IdAuth, IdBlock, KernelHashes, LaunchDigest, LaunchSpec, P384Key, P384Signature, Vmm,
    launch_digest,
};
use caveau_softsp::client::{FirmwareParts, LaunchError, Parts, control_pair, launch};
use caveau_softsp::{LaunchSettings, Launched, Persona, RefusalStatus, ServeError, SignedIdentity, root_certificate};
use caveau_sp_message::frame::{ExitInfo, GuestFrame, ProcessorFrame};
use caveau_sp_message::report::{KeySelection, ReportRequest, ReportResponse};
use caveau_sp_message::{GuestSession, MessageType, SecretsPage};
use caveau_tee::{EmulatedTee, KeyFields, KeyRequest, RootKey, Tee};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Keys of 4096 bits take seconds: the tests share one installation.
static STATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = tempfile::tempdir().unwrap().keep().join("softsp");
    root_certificate(&path).unwrap();
    path
});

const PATIENCE: Duration = Duration::from_secs(120);
const CMDLINE: &str = "caveau.tee=emulated-snp console=ttyS0";
const BIOS: [u8; 8192] = [0xf4; 8192];
const ROM: [u8; 1536] = [0x55; 1536];

fn sealed(bytes: &[u8]) -> OwnedFd {
    let descriptor = memfd_create("part", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    File::from(descriptor.try_clone().unwrap()).write_all(bytes).unwrap();
    fcntl_add_seals(&descriptor, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE).unwrap();
    descriptor
}

/// A guest to launch.
struct Machine {
    settings: LaunchSettings,
    bios: OwnedFd,
    rom: OwnedFd,
    kernel: OwnedFd,
    initrd: OwnedFd,
}

/// A launched guest's end of things.
struct Running {
    launched: Launched,
    link: UnixStream,
    processor: JoinHandle<Result<(), ServeError>>,
}

impl Machine {
    fn new() -> Self {
        Self {
            settings: LaunchSettings::new(CMDLINE, 2, "EPYC-v4", [7; 32]),
            bios: sealed(&BIOS),
            rom: sealed(&ROM),
            kernel: sealed(b"kernel"),
            initrd: sealed(b"initrd"),
        }
    }

    fn persona(persona: Persona) -> Self {
        let mut machine = Self::new();
        machine.settings.persona = persona;
        machine
    }

    /// What anybody predicts for this guest from the same files.
    fn prediction(&self) -> LaunchDigest {
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

    fn try_launch(&self, state: &Path) -> Result<Running, LaunchError> {
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

    fn launch(&self) -> Running {
        self.try_launch(&STATE).unwrap()
    }

    fn refusal(&self) -> (RefusalStatus, String) {
        match self.try_launch(&STATE) {
            Err(LaunchError::Refused(refusal)) => (refusal.status, refusal.reason),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was launched"),
        }
    }
}

impl Running {
    fn tee(&self) -> EmulatedTee {
        let link = self.link.try_clone().unwrap();
        link.set_nonblocking(true).unwrap();
        EmulatedTee::over(link.into(), PATIENCE).unwrap()
    }

    /// Takes the secrets page by hand.
    fn session(&mut self) -> GuestSession {
        let ProcessorFrame::Secrets(page) = self.exchange(&GuestFrame::Secrets) else { panic!("no secrets page") };
        let [key, ..] = SecretsPage::parse(&page).unwrap().vmpcks;
        GuestSession::new(key)
    }

    fn exchange(&mut self, frame: &GuestFrame) -> ProcessorFrame {
        frame.write(&mut self.link).unwrap();
        ProcessorFrame::read(&mut self.link).unwrap()
    }

    /// Ends the guest; gives how the processor ended.
    fn end(self) -> Result<(), String> {
        drop(self.link);
        self.processor.join().unwrap().map_err(|error| error.to_string())
    }
}

fn root(state: &Path) -> SoftwareRoot {
    SoftwareRoot::parse(&std::fs::read(root_certificate(state).unwrap()).unwrap()).unwrap()
}

fn now() -> Timestamp {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().into()
}

/// A report and its certificates, as a guest gets them, as evidence.
fn evidence(tee: &mut EmulatedTee, report_data: [u8; 64]) -> Evidence {
    let answer = tee.report(&report_data).unwrap();
    Evidence {
        tee: TeeName::EmulatedSnp,
        report: answer.report,
        certificates: Certificates::from_table(&answer.certificates).unwrap(),
        runtime_data: Vec::new(),
        policy: None,
        reference_values: None,
    }
}

fn judged(evidence: &Evidence, expected: &Expectations) -> Appraisal {
    judge(&[root(&STATE)], evidence, expected, Profile::Strict, now())
}

/// All that an owner of `machine` expects.
fn expected(machine: &Machine, report_data: [u8; 64]) -> Expectations {
    Expectations {
        report_data: Some(ExpectedReportData::Exact(Hex(report_data))),
        policy_digest: Some(Hex([7; 32])),
        measurements: Some(vec![Hex(*machine.prediction().as_bytes())]),
        ..Expectations::default()
    }
}

#[test]
fn what_was_launched_passes_the_strict_appraisal() {
    let machine = Machine::new();
    let running = machine.launch();
    assert_eq!(running.launched.launch_digest, machine.prediction());
    let mut tee = running.tee();
    for report_data in [[1; 64], [2; 64]] {
        let evidence = evidence(&mut tee, report_data);
        let appraisal = judged(&evidence, &expected(&machine, report_data));
        assert_eq!(appraisal.outcome, Outcome::Passed, "{:?}", appraisal.checks);
        assert_eq!(Report::parse(&evidence.report).unwrap().fields().report_id, running.launched.report_id.0);
    }
    drop(tee);
    running.end().unwrap();
}

#[test]
fn every_part_of_the_launch_is_measured() {
    let base = Machine::new().prediction();
    let changes: [fn(&mut Machine); 8] = [
        |machine| machine.bios = sealed(&[0; 8192]),
        |machine| machine.rom = sealed(&[0; 1536]),
        |machine| machine.kernel = sealed(b"other"),
        |machine| machine.initrd = sealed(b"other"),
        |machine| machine.settings.cmdline.push('x'),
        |machine| machine.settings.vcpus = 1,
        |machine| machine.settings.vcpu_type = "EPYC-Milan".to_owned(),
        |machine| machine.settings.guest_features = 0x21,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut machine = Machine::new();
        change(&mut machine);
        let running = machine.launch();
        assert_ne!(running.launched.launch_digest, base, "{index}");
        running.end().unwrap();
    }
}

#[test]
fn each_persona_is_authentic_and_judged_for_what_it_is() {
    let verdicts = [
        (Persona::Software, None),
        (Persona::SoftwareV2, Some("minimum-version")),
        (Persona::SoftwareV3, None),
        (Persona::MilanV2, Some("minimum-version")),
        (Persona::Milan, None),
        (Persona::Genoa, None),
        (Persona::Turin, None),
        (Persona::Vlek, Some("provider")),
        (Persona::MaskedChip, Some("chip-masked")),
        (Persona::Debug, Some("debug")),
        (Persona::Provisional, Some("provisional-firmware")),
    ];
    for (persona, code) in verdicts {
        let machine = Machine::persona(persona);
        let running = machine.launch();
        let mut tee = running.tee();
        let appraisal = judged(&evidence(&mut tee, [1; 64]), &expected(&machine, [1; 64]));
        assert_eq!(appraisal.first_failure(), code, "{persona:?} {:?}", appraisal.checks);
        assert!(appraisal.claims.is_some(), "{persona:?} is authentic");
        drop(tee);
        running.end().unwrap();
    }
}

#[test]
fn a_report_for_the_host_is_refused_by_guest_and_verifier() {
    let mut running = Machine::persona(Persona::HostRequested).launch();
    assert!(running.tee().report(&[1; 64]).is_err(), "REPORT_DATA is not what the guest asked for");
    running.end().unwrap();
    running = Machine::persona(Persona::HostRequested).launch();
    let (report, certificates) = ask_by_hand(&mut running);
    let evidence = Evidence {
        tee: TeeName::EmulatedSnp,
        report,
        certificates: Certificates::from_table(&certificates).unwrap(),
        runtime_data: Vec::new(),
        policy: None,
        reference_values: None,
    };
    assert_eq!(judged(&evidence, &Expectations::default()).first_failure(), Some("host-requested"));
}

/// A report and the certificate table, without the library's own checks.
fn ask_by_hand(running: &mut Running) -> (Vec<u8>, Vec<u8>) {
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

#[test]
fn another_installation_is_not_believed() {
    let other = tempfile::tempdir().unwrap();
    let running = Machine::new().try_launch(&other.path().join("softsp")).unwrap();
    let mut tee = running.tee();
    let appraisal = judged(&evidence(&mut tee, [1; 64]), &Expectations::default());
    assert_eq!(appraisal.first_failure(), Some("root-untrusted"));
    drop(tee);
    running.end().unwrap();
}

#[test]
fn memory_that_can_change_is_not_launched() {
    let open = memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    File::from(open.try_clone().unwrap()).write_all(b"kernel").unwrap();
    let (status, reason) = Machine { kernel: open, ..Machine::new() }.refusal();
    assert_eq!(status, RefusalStatus::InvalidParameter);
    assert_eq!(reason, "the kernel is no sealed memory file, so it could be changed after being measured");
}

#[test]
fn what_cannot_be_launched_is_refused_with_its_reason() {
    let mut machine = Machine::new();
    machine.settings.guest_policy = 0x43_0000;
    let (status, reason) = machine.refusal();
    assert_eq!(status, RefusalStatus::PolicyFailure);
    assert!(reason.contains("AES-256-XTS"), "{reason}");
    let mut machine = Machine::new();
    machine.settings.vcpu_type = "Pentium".to_owned();
    assert!(machine.refusal().1.contains("unknown vCPU type `Pentium`"));
    let machine = Machine { bios: sealed(&[1; 100]), ..Machine::new() };
    assert!(machine.refusal().1.contains("the firmware has 100 bytes"));
}

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

#[test]
fn an_id_block_is_checked_and_shown() {
    let (id, author) = (Signer::new(), Signer::new());
    let mut machine = Machine::new();
    let block = IdBlock {
        launch_digest: machine.prediction(),
        family_id: [2; 16],
        image_id: [3; 16],
        guest_svn: 4,
        policy: 0x3_0000,
    };
    let signed = |block: IdBlock| {
        let auth = IdAuth {
            id_key: id.key(),
            block_signature: id.sign(&block.to_bytes()),
            author: Some((author.key(), author.sign(&id.key().to_bytes()))),
        };
        Some(SignedIdentity { block: Hex(block.to_bytes()), auth: Box::new(Hex(auth.to_bytes())) })
    };
    machine.settings.identity = signed(block);
    let running = machine.launch();
    let report = running.tee().report(&[1; 64]).unwrap().report;
    let fields = *Report::parse(&report).unwrap().fields();
    assert_eq!((fields.family_id, fields.image_id, fields.guest_svn), ([2; 16], [3; 16], 4));
    assert_eq!((fields.id_key_digest, fields.author_key_digest), (id.key().digest(), author.key().digest()));
    assert!(fields.author_key_enabled);
    running.end().unwrap();
    for (other, status) in [
        (IdBlock { launch_digest: LaunchDigest::from_bytes([0; 48]), ..block }, RefusalStatus::BadMeasurement),
        (IdBlock { policy: 0xb_0000, ..block }, RefusalStatus::PolicyFailure),
    ] {
        machine.settings.identity = signed(other);
        assert_eq!(machine.refusal().0, status);
    }
    let mut forged = signed(block).unwrap();
    forged.block = Hex(IdBlock { guest_svn: 9, ..block }.to_bytes());
    machine.settings.identity = Some(forged);
    assert_eq!(machine.refusal().0, RefusalStatus::BadSignature);
}

#[test]
fn a_sealing_key_is_the_same_guests_alone() {
    let key = |machine: &Machine| {
        let running = machine.launch();
        let request = KeyRequest {
            root: RootKey::Vcek,
            fields: KeyFields::SEALING,
            vmpl: 0,
            guest_svn: 0,
            tcb_version: 0xdb18_0000_0000_0004,
            launch_mit_vector: None,
        };
        let key = running.tee().derived_key(&request).unwrap();
        running.end().unwrap();
        *key
    };
    assert_eq!(key(&Machine::new()), key(&Machine::new()));
    assert_ne!(key(&Machine::new()), key(&Machine { initrd: sealed(b"other"), ..Machine::new() }));
}

#[test]
fn the_secrets_page_is_handed_out_once() {
    let mut running = Machine::new().launch();
    drop(running.session());
    GuestFrame::Secrets.write(&mut running.link).unwrap();
    assert_eq!(running.link.read(&mut [0; 1]).unwrap(), 0, "the link is closed");
    assert!(running.end().unwrap_err().contains("a second time"));
}

#[test]
fn refused_messages_get_the_firmwares_status() {
    let mut running = Machine::new().launch();
    let mut session = running.session();
    let request = ReportRequest { report_data: [1; 64], vmpl: 0, key: KeySelection::Vlek };
    let message = session.seal(MessageType::ReportRequest, 1, &request.to_bytes()).unwrap();
    let mut changed = message.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut status = |message: Vec<u8>| match running.exchange(&GuestFrame::Request(message)) {
        ProcessorFrame::Response { exit_info, message } => (exit_info.firmware, message),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(vec![0; 50]).0, 0x16, "no message at all");
    assert_eq!(status(changed).0, 0xb, "another tag");
    let (done, answer) = status(message.clone());
    assert_eq!(done, 0);
    let answer = session.open(MessageType::ReportRequest, &answer).unwrap();
    assert_eq!(ReportResponse::parse(&answer.payload).unwrap().status, caveau_sp_message::Status::InvalidKeySelection);
    assert_eq!(status(message).0, 0x16, "a replay");
    let response = session.seal(MessageType::ReportResponse, 1, &[]).unwrap();
    assert_eq!(status(response).0, 0x16, "no request");
    running.end().unwrap();
}

#[test]
fn first_starts_at_the_same_time_make_one_root() {
    let parent = tempfile::tempdir().unwrap();
    let state = parent.path().join("data/softsp");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let state = state.clone();
            thread::spawn(move || std::fs::read(root_certificate(&state).unwrap()).unwrap())
        })
        .collect();
    let roots: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    SoftwareRoot::parse(&roots[0]).unwrap();
}

#[test]
fn a_launcher_that_goes_away_or_talks_nonsense_ends_the_process() {
    let (ours, theirs) = control_pair().unwrap();
    drop(ours);
    caveau_softsp::run(&STATE, theirs).unwrap();
    for nonsense in [&b"{}"[..], b"\xff\xfe", b"[1]"] {
        let (ours, theirs) = control_pair().unwrap();
        rustix::net::send(&ours, nonsense, rustix::net::SendFlags::empty()).unwrap();
        assert!(matches!(caveau_softsp::run(&STATE, theirs), Err(ServeError::Refused(_))));
        let mut answer = [0; 4096];
        let (length, _) = rustix::net::recv(&ours, &mut answer[..], rustix::net::RecvFlags::empty()).unwrap();
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(text.contains("invalid-parameter") && text.contains("the request"), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_on_the_link_is_answered_or_ends_it(
        frames in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)), 1..6),
    ) {
        let running = Machine::new().launch();
        let mut writer = running.link.try_clone().unwrap();
        for (framed, bytes) in frames {
            // Half of them pass the framing and reach the message layer.
            let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
            let sent = if framed { writer.write_all(&length).and_then(|()| writer.write_all(&bytes)) } else { writer.write_all(&bytes) };
            if sent.is_err() {
                break;
            }
        }
        // Both fail where the processor has hung up already, with bytes of ours unread.
        drop(writer.shutdown(std::net::Shutdown::Write));
        drop((&running.link).take(1 << 20).read_to_end(&mut Vec::new()));
        drop(running.link);
        // It ended by itself, without a panic.
        drop(running.processor.join().unwrap());
    }
}
