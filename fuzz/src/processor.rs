//! Both ends of the secure processor's port, with messages that are authentic and lie inside.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use caveau_launch::SealedFile;
use caveau_softsp::client::{FirmwareParts, Parts, control_pair, launch};
use caveau_softsp::{LaunchSettings, Persona, SignedIdentity, root_certificate};
use caveau_sp_message::frame::{ExitInfo, GuestFrame, ProcessorFrame};
use caveau_sp_message::key::{KeyFields, KeyRequest, RootKey};
use caveau_sp_message::report::{KeySelection, REPORT_SIZE, ReportRequest, ReportResponse};
use caveau_sp_message::{GuestSession, MessageType, ProcessorSession, SecretsPage, Status, VmpckId};
use caveau_tee::{EmulatedTee, Tee};

use crate::Target;
use crate::sections::{join, sections};

/// The guest, opposite a processor that answers as each section says.
pub(crate) const GUEST_LINK: Target =
    Target { name: "guest_link", run: |data| _ = answered(data), seeds: processor_acts, fixtures: &[], rounds: 600 };

/// The software secure processor: launch settings, then a guest that does as each section says.
pub(crate) const PROCESSOR_LINK: Target =
    Target { name: "processor_link", run: |data| _ = served(data), seeds: guest_acts, fixtures: &[], rounds: 60 };

/// Far more than an exchange takes: both sides hang up where they have nothing more to say.
const PATIENCE: Duration = Duration::from_secs(600);

const REPORT_DATA: [u8; 64] = [7; 64];

fn key_request() -> KeyRequest {
    KeyRequest {
        root: RootKey::Vcek,
        fields: KeyFields::SEALING,
        vmpl: 0,
        guest_svn: 0,
        tcb_version: 0,
        launch_mit_vector: None,
    }
}

/// How many questions of the guest are answered.
fn answered(data: &[u8]) -> usize {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    ours.set_nonblocking(true).expect("a socket can be non-blocking");
    let acts: Vec<Vec<u8>> = sections(data).into_iter().map(<[u8]>::to_vec).collect();
    thread::scope(|scope| {
        scope.spawn(move || play_processor(&theirs, &acts));
        let Ok(mut tee) = EmulatedTee::over(ours.into(), PATIENCE) else { return 0 };
        let mut count = 0;
        for _ in 0..2 {
            if let Ok(evidence) = tee.report(&REPORT_DATA) {
                assert_eq!(evidence.report.len(), REPORT_SIZE);
                assert_eq!(evidence.report.get(0x50..0x90), Some(&REPORT_DATA[..]), "an answer to another question");
                count += 1;
            }
            count += usize::from(tee.derived_key(&key_request()).is_ok());
        }
        count
    })
}

/// Answers each frame by the next section, whose first byte says how, and hangs up after the last.
fn play_processor(mut link: &UnixStream, acts: &[Vec<u8>]) {
    let mut session = ProcessorSession::new([[1; 32], [2; 32], [3; 32], [4; 32]]);
    let mut acts = acts.iter();
    while let Ok(frame) = GuestFrame::read(&mut link) {
        let Some((how, what)) = acts.next().and_then(|act| act.split_first()) else { break };
        let message = match &frame {
            GuestFrame::Secrets => &[][..],
            GuestFrame::Request(message) | GuestFrame::ExtendedRequest { message, .. } => message,
        };
        // Opened for its number, which the answer needs.
        let is_authentic = session.open(message).is_ok();
        let mut sealed = |kind, payload: &[u8]| match session.seal(VmpckId::ZERO, kind, 1, payload) {
            Ok(message) if is_authentic => message,
            _ => payload.to_vec(),
        };
        let success = ExitInfo::SUCCESS;
        let answer = match how {
            b's' => {
                let vmpcks = ProcessorSession::new([[1; 32], [2; 32], [3; 32], [4; 32]]).keys().clone();
                ProcessorFrame::Secrets(SecretsPage { fms: 1, vmpcks }.to_bytes())
            }
            b'p' => ProcessorFrame::Secrets(what.to_vec().into()),
            b'r' => {
                let message = sealed(MessageType::ReportResponse, what);
                ProcessorFrame::ExtendedResponse { exit_info: success, table_size: 0, table: Vec::new(), message }
            }
            b't' => {
                let message = sealed(MessageType::ReportResponse, &report_response(&what[..what.len().min(64)]));
                let table_size = u32::try_from(what.len()).unwrap_or(u32::MAX);
                ProcessorFrame::ExtendedResponse { exit_info: success, table_size, table: what.to_vec(), message }
            }
            b'k' => ProcessorFrame::Response { exit_info: success, message: sealed(MessageType::KeyResponse, what) },
            b'm' => ProcessorFrame::Response { exit_info: success, message: what.to_vec() },
            b'x' => {
                let status = what.first_chunk().map_or(1, |bytes| u32::from_le_bytes(*bytes));
                ProcessorFrame::Response { exit_info: ExitInfo::firmware(status), message: Vec::new() }
            }
            _ => {
                // The guest hangs up on what is no frame.
                drop(link.write_all(what));
                break;
            }
        };
        if answer.write(&mut link).is_err() {
            break;
        }
    }
    // The guest may have hung up.
    drop(link.shutdown(Shutdown::Both));
}

/// A response with a report over the question, changed by these bytes.
fn report_response(change: &[u8]) -> Vec<u8> {
    let mut report = Box::new([0; REPORT_SIZE]);
    report[0x50..0x90].copy_from_slice(&REPORT_DATA);
    report[0x40..].iter_mut().zip(change).for_each(|(byte, change)| *byte ^= change);
    ReportResponse { status: Status::Success, report: Some(report) }.to_bytes()
}

fn processor_acts() -> Vec<Vec<u8>> {
    let act = |how: &[u8], what: &[u8]| [how, what].concat();
    let page = SecretsPage { fms: 1, vmpcks: ProcessorSession::new([[5; 32]; 4]).keys().clone() }.to_bytes();
    let key = [vec![0; 32], vec![9; 32]].concat();
    vec![
        join(&[act(b"s", b""), act(b"t", b"table"), act(b"k", &key), act(b"t", b""), act(b"k", &key)]),
        join(&[act(b"p", &page), act(b"r", &report_response(&[]))]),
        join(&[act(b"s", b""), act(b"t", &[0; 20]), act(b"x", &[0x16, 0, 0, 0])]),
        join(&[act(b"s", b""), act(b"r", &ReportResponse::refused(Status::InvalidParameters).to_bytes())]),
        join(&[act(b"s", b""), act(b"m", &[0; 96])]),
        join(&[act(b"w", &[5, 0, 0, 0, 1, 2, 3])]),
    ]
}

/// One installation for all inputs, beside the build: making its keys takes seconds.
static STATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let program = std::env::current_exe().expect("a program has a path");
    let path = program.parent().unwrap_or(Path::new("/tmp")).join("caveau-fuzz-installation/softsp");
    root_certificate(&path).expect("an installation");
    path
});

/// Launches with the settings of the first section and acts as the others say; how many acts were a success.
fn served(data: &[u8]) -> usize {
    let mut acts = sections(data).into_iter();
    let settings = acts.next().unwrap_or_default();
    let Ok(settings) = serde_json::from_slice::<LaunchSettings>(settings) else {
        send_packet(settings);
        return 0;
    };
    let sealed = |bytes: &[u8]| SealedFile::new("part", bytes).expect("sealed memory");
    let (bios, rom, kernel, initrd) =
        (sealed(&[0xf4; 4096]), sealed(&[0x55; 512]), sealed(b"kernel"), sealed(b"initrd"));
    let (ours, theirs) = control_pair().expect("a socket pair");
    let (guest, link) = UnixStream::pair().expect("a socket pair");
    let processor = thread::spawn(move || caveau_softsp::run(&STATE, theirs));
    let parts = Parts {
        firmware: FirmwareParts::Direct { bios: bios.as_fd(), option_roms: vec![("pvh.bin", rom.as_fd())] },
        kernel: kernel.as_fd(),
        initrd: Some(initrd.as_fd()),
        link: link.as_fd(),
    };
    // Launches with thousands of processors are measured page by page: that is what was asked for.
    let launched = if settings.vcpus > 64 { None } else { launch(ours.as_fd(), &settings, &parts, PATIENCE).ok() };
    drop((ours, link));
    let served = if launched.is_some() { play_guest(&guest, acts) } else { 0 };
    drop(guest);
    drop(processor.join().expect("the processor does not panic"));
    served
}

/// A packet without descriptors on the control socket.
fn send_packet(bytes: &[u8]) {
    let (ours, theirs) = control_pair().expect("a socket pair");
    // Longer than a socket takes in one piece is the same as not sent.
    drop(UnixStream::from(ours.try_clone().expect("a copy")).write(bytes));
    drop(UnixStream::from(ours).shutdown(Shutdown::Write));
    assert!(bytes.is_empty() || caveau_softsp::run(&STATE, theirs).is_err(), "a launch without parts");
}

/// Asks as each section's first byte says; each frame must get an answer, or the link ends.
fn play_guest<'a>(mut link: &UnixStream, acts: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut served = 0;
    if GuestFrame::Secrets.write(&mut link).is_err() {
        return served;
    }
    let Ok(ProcessorFrame::Secrets(page)) = ProcessorFrame::read(&mut link) else { panic!("no secrets page") };
    let [key, ..] = SecretsPage::parse(&page).expect("a secrets page").vmpcks;
    let mut session = GuestSession::new(key);
    for act in acts {
        let Some((how, what)) = act.split_first() else { continue };
        let (version, payload) = what.split_first().map_or((1, what), |(version, payload)| (*version, payload));
        let kind = if how.is_ascii_uppercase() { MessageType::KeyRequest } else { MessageType::ReportRequest };
        let sealed = session.seal(kind, version, payload);
        let frame = match (how.to_ascii_lowercase(), sealed) {
            (b'r', Ok(message)) => GuestFrame::Request(message),
            (b'e', Ok(message)) => GuestFrame::ExtendedRequest { capacity: 1 << 16, message },
            (b'c', Ok(message)) => GuestFrame::ExtendedRequest { capacity: u32::from(version), message },
            (b'm', _) => GuestFrame::Request(what.to_vec()),
            (b's', _) => GuestFrame::Secrets,
            _ => {
                drop(link.write_all(what));
                break;
            }
        };
        if frame.write(&mut link).is_err() {
            break;
        }
        let Ok(answer) = ProcessorFrame::read(&mut link) else { break };
        let success = match &answer {
            ProcessorFrame::Response { exit_info, message }
            | ProcessorFrame::ExtendedResponse { exit_info, message, .. } => {
                // Opened for its number, which the next question needs.
                *exit_info == ExitInfo::SUCCESS && session.open(kind, message).is_ok()
            }
            ProcessorFrame::Secrets(_) => false,
        };
        served += usize::from(success);
    }
    drop(link.shutdown(Shutdown::Write));
    drop(link.take(1 << 20).read_to_end(&mut Vec::new()));
    served
}

fn guest_acts() -> Vec<Vec<u8>> {
    let settings = |persona| {
        let settings = LaunchSettings { persona, ..LaunchSettings::new("console=ttyS0", 1, "EPYC-v4", [7; 32]) };
        serde_json::to_vec(&settings).expect("settings can be written")
    };
    let identity = SignedIdentity {
        block: caveau_snp::Hex([0; caveau_measure::ID_BLOCK_BYTES]),
        auth: Box::new(caveau_snp::Hex([0; caveau_measure::ID_AUTH_BYTES])),
    };
    let signed = LaunchSettings { identity: Some(identity), ..LaunchSettings::new("", 1, "0x800f12", [0; 32]) };
    let act = |how: &[u8], what: &[u8]| [how, what].concat();
    let report = ReportRequest { report_data: [7; 64], vmpl: 1, key: KeySelection::Vcek }.to_bytes();
    let key = key_request();
    let newer = KeyRequest { launch_mit_vector: Some(3), ..key_request() };
    vec![
        join(&[
            settings(Persona::Software),
            act(b"r\x01", &report),
            act(b"e\x01", &report),
            act(&[b'R', key.message_version()], &key.to_bytes()),
            act(&[b'R', newer.message_version()], &newer.to_bytes()),
            act(b"c\x10", &report),
        ]),
        join(&[settings(Persona::MilanV2), act(b"m", &[0; 96]), act(b"s", b"")]),
        join(&[settings(Persona::Vlek), act(b"w", &[0xff; 8])]),
        serde_json::to_vec(&signed).expect("settings can be written"),
        br#"{"version":1,"settings":{},"firmware":{"kind":"ovmf"},"has_initrd":false}"#.to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::{answered, guest_acts, processor_acts, served};

    #[test]
    fn first_seeds_are_answered() {
        assert_eq!(answered(&processor_acts()[0]), 4);
        // Two reports, and keys by both versions of the message; the last question leaves too little room.
        assert_eq!(served(&guest_acts()[0]), 4);
        assert_eq!(served(&guest_acts()[3]), 0, "an ID block of zeros");
    }
}
