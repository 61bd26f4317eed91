//! The tests.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use caveau_launch::{
    AttachEvent, Cause, ContainerPlan, Follow, Group, GroupError, GuestFiles, LaunchPlan, LayerFile, LogLimits,
    PLAN_VERSION, Phase, Record, Scratch, StartError, Started, StateError, StateRoot, Status, Tee, list, start_with,
};
use caveau_protocol::{
    Capabilities, ContainerId, CreateContainer, ErrorKind, EventKind, Exec, Limits, ProcessSpec, Stream,
};

use sha2::{Digest, Sha256};

use crate::{
    fake_qemu::{self, FLOOD},
    messages::messages_are_bounded_and_the_newest_are_kept,
    runner::Test,
};

/// All tests, by name.
pub(crate) const TESTS: &[Test] = &[
    ("a_group_runs_to_its_end_and_leaves_its_log", a_group_runs_to_its_end_and_leaves_its_log),
    ("a_denied_start_tells_why", a_denied_start_tells_why),
    ("a_failing_qemu_is_quoted", a_failing_qemu_is_quoted),
    ("a_group_keeps_a_record_of_requests_where_it_is_wanted", a_group_keeps_a_record_of_requests_where_it_is_wanted),
    ("a_frozen_qemu_is_stopped_in_time", a_frozen_qemu_is_stopped_in_time),
    ("a_killed_qemu_is_noticed", a_killed_qemu_is_noticed),
    ("a_killed_supervisor_takes_qemu_with_it", a_killed_supervisor_takes_qemu_with_it),
    ("a_missing_program_has_its_own_kind", a_missing_program_has_its_own_kind),
    ("a_name_is_used_once", a_name_is_used_once),
    (
        "a_silent_guest_is_called_unresponsive_and_can_be_stopped",
        a_silent_guest_is_called_unresponsive_and_can_be_stopped,
    ),
    ("a_start_that_hangs_ends_at_its_limit", a_start_that_hangs_ends_at_its_limit),
    ("a_stopped_supervisor_is_called_unresponsive", a_stopped_supervisor_is_called_unresponsive),
    ("a_report_is_bound_to_policy_and_nonce", a_report_is_bound_to_policy_and_nonce),
    ("an_abandoned_start_ends", an_abandoned_start_ends),
    ("events_are_kept", events_are_kept),
    ("exec_is_bounded_and_refusals_end_nothing", exec_is_bounded_and_refusals_end_nothing),
    ("exec_that_is_not_read_to_its_end_is_no_success", exec_that_is_not_read_to_its_end_is_no_success),
    ("exec_has_streams_and_an_exit_of_its_own", exec_has_streams_and_an_exit_of_its_own),
    ("input_reaches_the_process", input_reaches_the_process),
    ("messages_are_bounded_and_the_newest_are_kept", messages_are_bounded_and_the_newest_are_kept),
    ("nothing_is_inherited_that_should_not", nothing_is_inherited_that_should_not),
    ("output_is_lossless_for_a_slow_client", output_is_lossless_for_a_slow_client),
    ("stopping_goes_from_polite_to_final", stopping_goes_from_polite_to_final),
];

/// A state folder, a guest folder, a layer and a fake QEMU.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    root: StateRoot,
}

/// Where the secure processor keeps its root: one for all runs of these tests, since to make one takes seconds.
fn data_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("launch-data")
}

/// Starts the group of a written plan, and does nothing else: `STATE PLAN QEMU`.
pub(crate) fn start_only(arguments: &[OsString]) -> ExitCode {
    let [state, plan, qemu] = arguments else { return ExitCode::FAILURE };
    let plan: LaunchPlan = serde_json::from_slice(&fs::read(plan).unwrap()).unwrap();
    let mut supervisor = Command::new(std::env::current_exe().unwrap());
    supervisor.arg("__supervise").env("CAVEAU_QEMU", qemu).env("XDG_DATA_HOME", data_folder());
    let started = start_with(&mut supervisor, &StateRoot::at(state.as_ref()).unwrap(), &plan, false, &mut |_| {});
    if started.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = StateRoot::at(&folder.path().join("caveau")).unwrap();
        let guest = folder.path().join("guest");
        fs::create_dir(&guest).unwrap();
        for name in ["vmlinux", "initrd.img", "bios-256k.bin", "pvh.bin"] {
            fs::write(guest.join(name), name.repeat(4096)).unwrap();
        }
        fs::write(guest.join("cmdline.emulated-snp"), "caveau.tee=emulated-snp").unwrap();
        fs::write(folder.path().join("layer.img"), [0; 4096]).unwrap();
        fake_qemu::install(&folder.path().join("qemu"));
        Self { folder, root }
    }

    fn plan(&self, behaviour: &str) -> LaunchPlan {
        let process = ProcessSpec {
            args: vec![behaviour.into()],
            env: vec![],
            cwd: "/".into(),
            user: String::new(),
            capabilities: Capabilities::default(),
            no_new_privileges: true,
            terminal: None,
            stdin: true,
            stdio: true,
        };
        let create = CreateContainer {
            container: ContainerId::from_bytes([7; 32]),
            process,
            hostname: "web".into(),
            privileged: false,
            read_only: false,
            tmpfs: vec![],
            seccomp: None,
            limits: Limits::default(),
        };
        let image = "example.org/web:1".into();
        LaunchPlan {
            version: PLAN_VERSION,
            name: "web".parse().unwrap(),
            guest: GuestFiles::in_folder(&self.folder.path().join("guest"), Tee::EmulatedSnp, None).unwrap(),
            tee: Tee::EmulatedSnp,
            vcpus: 1,
            vcpu_type: "EPYC-v4".into(),
            memory_mib: 128,
            layers: vec![LayerFile { path: self.folder.path().join("layer.img"), root: "ab".repeat(32) }],
            scratch: Scratch::Encrypted { bytes: 64 << 20, folder: self.folder.path().into() },
            ports: vec![],
            owner_address: None,
            policy: "allow".into(),
            pieces: vec![],
            host_certificates: None,
            reference_info: None,
            reference_values: None,
            containers: vec![ContainerPlan { name: "web".into(), image, layers: vec![0], create, stop_signal: 15 }],
            log: LogLimits::default(),
            record: false,
            start_timeout_s: 60,
            answer_timeout_s: 60,
        }
    }

    fn start(&self, plan: &LaunchPlan, attach: bool) -> Result<Started, StartError> {
        let mut supervisor = Command::new(std::env::current_exe().unwrap());
        supervisor.arg("__supervise").env("CAVEAU_QEMU", self.folder.path().join("qemu"));
        supervisor.env("XDG_DATA_HOME", data_folder());
        start_with(&mut supervisor, &self.root, plan, attach, &mut |_| {})
    }

    pub(crate) fn run(&self, behaviour: &str) -> Group {
        self.start(&self.plan(behaviour), false).unwrap().group
    }

    /// One more process in the group's container.
    fn exec(&self, group: &Group, program: &str) -> Result<caveau_launch::Attachment, GroupError> {
        let mut process = self.plan("x").containers.remove(0).create.process;
        process.args = vec![program.into()];
        group.exec(Exec { container: group.container(None).unwrap(), process })
    }

    /// The group's status once it is no longer `running` or `stopping`.
    pub(crate) fn end_of(group: &Group) -> (Status, Record) {
        group.wait_down(Duration::from_secs(60)).unwrap();
        group.status().unwrap()
    }
}

impl Drop for Place {
    /// A test that failed may have left groups that run.
    fn drop(&mut self) {
        for listed in list(&self.root).unwrap_or_default() {
            if let Ok(group) = Group::open(&self.root, &listed.name) {
                let _ = group.kill();
            }
        }
    }
}

pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_alive(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// All output and the last event of an attachment.
fn drain(attachment: &mut caveau_launch::Attachment) -> (Vec<u8>, Vec<u8>, AttachEvent) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match attachment.next_event() {
            AttachEvent::Bytes { stream: Stream::Stdout, bytes } => out.extend(bytes),
            AttachEvent::Bytes { stream: Stream::Stderr, bytes } => err.extend(bytes),
            AttachEvent::Notice { message } => panic!("{message}"),
            end => return (out, err, end),
        }
    }
}

fn exited(event: &AttachEvent) -> u8 {
    let AttachEvent::Exit(exit) = event else { panic!("{event:?}") };
    exit.code
}

fn a_group_runs_to_its_end_and_leaves_its_log() {
    let place = Place::new();
    let mut started = place.start(&place.plan("greet"), true).unwrap();
    let (out, err, end) = drain(started.attachment.as_mut().unwrap());
    assert_eq!((out, err, exited(&end)), (b"hello\n".to_vec(), b"warning\n".to_vec(), 7));
    let (status, record) = Place::end_of(&started.group);
    assert_eq!(status, Status::Exited { code: Some(7) });
    assert!(matches!(record.phase, Phase::Ended { cause: Cause::Exited, .. }));
    let all = [record.qemu_pid.unwrap(), record.processor_pid.unwrap(), record.supervisor_pid];
    assert!(!all.into_iter().any(is_alive), "{all:?}");
    let mut log = started.group.log();
    let mut lines = Vec::new();
    while let Follow::Entry(entry) = log.next_entry().unwrap() {
        lines.push((entry.stream, entry.text.unwrap()));
    }
    lines.sort_by_key(|(_, text)| text.clone());
    assert_eq!(lines, [(Stream::Stdout, "hello\n".into()), (Stream::Stderr, "warning\n".into())]);
    assert_eq!(fs::read_to_string(started.group.folder().console_log()).unwrap(), "fake guest\r\n");
    assert!(!started.group.folder().socket().exists());
    assert!(matches!(started.group.attach(None), Err(GroupError::NotRunning { .. })));
    started.group.remove().unwrap();
    assert_eq!(list(&place.root).unwrap(), []);
}

fn a_group_keeps_a_record_of_requests_where_it_is_wanted() {
    let place = Place::new();
    for (record, lines) in [(true, 5), (false, 0)] {
        let mut plan = place.plan("greet");
        plan.record = record;
        let started = place.start(&plan, false).unwrap();
        started.group.wait_down(Duration::from_secs(60)).unwrap();
        let text = fs::read_to_string(started.group.folder().requests()).unwrap_or_default();
        // The first line, and one for each step: layer, scratch, overlay, container.
        assert!(text.lines().count() >= lines && (record || text.is_empty()), "{text}");
        assert!(!record || text.lines().next().unwrap().contains("policy_digest") && text.contains("asked"), "{text}");
        started.group.remove().unwrap();
    }
}

fn a_denied_start_tells_why() {
    let place = Place::new();
    let mut plan = place.plan("greet");
    plan.policy = "deny".into();
    let Err(StartError::Failed(failure)) = place.start(&plan, false) else { panic!("not refused") };
    assert_eq!(failure.kind, Some(ErrorKind::Denied));
    assert!(failure.denial.unwrap()["reasons"][0].as_str().unwrap().contains("HOST_DATA"));
    let listed = list(&place.root).unwrap();
    assert!(matches!(&listed[0].status, Status::Failed { reason } if reason.contains("set the policy")), "{listed:?}");
    let group = Group::open(&place.root, &plan.name).unwrap();
    group.wait_down(Duration::from_secs(60)).unwrap();
    group.remove().unwrap();
}

fn a_missing_program_has_its_own_kind() {
    let place = Place::new();
    let Err(StartError::Failed(failure)) = place.start(&place.plan("missing"), true) else { panic!("not refused") };
    assert_eq!(failure.kind, Some(ErrorKind::NotFound));
}

fn a_failing_qemu_is_quoted() {
    let place = Place::new();
    let mut plan = place.plan("greet");
    plan.memory_mib = 666;
    let Err(StartError::Failed(failure)) = place.start(&plan, false) else { panic!("not refused") };
    assert!(failure.reason.contains("host forwarding rule"), "{}", failure.reason);
    let mut plan = place.plan("greet");
    plan.name = "other".parse().unwrap();
    plan.policy = "die".into();
    let Err(StartError::Failed(failure)) = place.start(&plan, false) else { panic!("not refused") };
    assert!(failure.reason.contains("QEMU has ended") && failure.reason.contains("fake guest"), "{}", failure.reason);
}

fn a_start_that_hangs_ends_at_its_limit() {
    let place = Place::new();
    let mut plan = place.plan("greet");
    plan.policy = "hang".into();
    plan.start_timeout_s = 1;
    let Err(StartError::Failed(failure)) = place.start(&plan, false) else { panic!("not refused") };
    assert!(failure.reason.contains("did not answer within 1 s"), "{}", failure.reason);
    let group = Group::open(&place.root, &plan.name).unwrap();
    let (_, record) = Place::end_of(&group);
    assert!(!is_alive(record.qemu_pid.unwrap()));
}

fn a_name_is_used_once() {
    let place = Place::new();
    let group = place.run("wait");
    assert!(matches!(place.start(&place.plan("wait"), false), Err(StartError::State(StateError::Exists(_)))));
    assert!(matches!(group.clone().remove(), Err(GroupError::State(StateError::Running(_)))));
    group.stop(Duration::from_secs(60)).unwrap();
    group.remove().unwrap();
    place.run("greet").wait_down(Duration::from_secs(60)).unwrap();
}

fn a_killed_supervisor_takes_qemu_with_it() {
    let place = Place::new();
    let group = place.run("wait");
    let (status, record) = group.status().unwrap();
    assert_eq!(status, Status::Running);
    let qemu = record.qemu_pid.unwrap();
    assert!(is_alive(qemu));
    send(record.supervisor_pid, rustix::process::Signal::KILL);
    let (status, _) = Place::end_of(&group);
    assert!(matches!(&status, Status::Lost { reason } if reason.contains("supervisor was killed")), "{status}");
    eventually("QEMU ends with its supervisor", || !is_alive(qemu));
    eventually("so does the secure processor", || !is_alive(record.processor_pid.unwrap()));
    assert!(matches!(group.stats(None), Err(GroupError::NotRunning { .. })));
    group.remove().unwrap();
}

fn a_killed_qemu_is_noticed() {
    let place = Place::new();
    let mut started = place.start(&place.plan("wait"), true).unwrap();
    send(started.group.status().unwrap().1.qemu_pid.unwrap(), rustix::process::Signal::KILL);
    let (_, _, end) = drain(started.attachment.as_mut().unwrap());
    assert!(matches!(end, AttachEvent::Lost { .. }), "{end:?}");
    let (status, _) = Place::end_of(&started.group);
    assert!(matches!(&status, Status::Lost { reason } if reason.contains("signal 9")), "{status}");
    started.group.remove().unwrap();
    let group = place.run("wait");
    assert!(place.exec(&group, "vanish").is_err());
    let (status, _) = Place::end_of(&group);
    assert!(matches!(&status, Status::Lost { reason } if reason.contains("exit code 9")), "{status}");
}

fn a_silent_guest_is_called_unresponsive_and_can_be_stopped() {
    let place = Place::new();
    let mut plan = place.plan("fall silent");
    plan.answer_timeout_s = 1;
    let group = place.start(&plan, false).unwrap().group;
    let status = || group.status().unwrap().0;
    eventually(
        "the guest is called unresponsive",
        || matches!(status(), Status::Unresponsive { reason } if reason.contains("the guest has not answered for")),
    );
    let report = group.stop(Duration::from_secs(60)).unwrap();
    assert!(report.forced && report.notes.iter().all(|note| note.contains("did not answer")), "{report:?}");
    let (status, record) = Place::end_of(&group);
    assert_eq!(status, Status::Exited { code: None });
    assert!(!is_alive(record.qemu_pid.unwrap()));
}

fn a_frozen_qemu_is_stopped_in_time() {
    let place = Place::new();
    let mut plan = place.plan("wait");
    plan.answer_timeout_s = 1;
    let group = place.start(&plan, false).unwrap().group;
    let qemu = group.status().unwrap().1.qemu_pid.unwrap();
    send(qemu, rustix::process::Signal::STOP);
    // Long enough for the supervisor to look at it, and to wait for an answer that does not come.
    std::thread::sleep(Duration::from_secs(6));
    let report = group.stop(Duration::from_secs(60)).unwrap();
    assert!(report.forced, "{report:?}");
    let (status, _) = Place::end_of(&group);
    assert_eq!(status, Status::Exited { code: None });
    assert!(!is_alive(qemu));
}

fn a_stopped_supervisor_is_called_unresponsive() {
    let place = Place::new();
    let group = place.run("wait");
    let (_, record) = group.status().unwrap();
    send(record.supervisor_pid, rustix::process::Signal::STOP);
    let (status, _) = group.status().unwrap();
    assert!(matches!(&status, Status::Unresponsive { reason } if reason.contains("supervisor")), "{status}");
    group.kill().unwrap();
    eventually("QEMU ends with its supervisor", || !is_alive(record.qemu_pid.unwrap()));
    assert!(matches!(group.status().unwrap().0, Status::Lost { .. }));
}

fn a_report_is_bound_to_policy_and_nonce() {
    let place = Place::new();
    let group = place.run("wait");
    let nonce = "5a".repeat(64);
    let report = BASE64_STANDARD.decode(group.attest(nonce.parse().unwrap()).unwrap().report).unwrap();
    // SEV-SNP ABI, table 23: REPORT_DATA at 0x50, MEASUREMENT at 0x90, HOST_DATA at 0xc0.
    assert_eq!(hex::encode(&report[0x50..0x90]), nonce);
    assert_eq!(Some(hex::encode(&report[0x90..0xc0])), group.status().unwrap().1.launch_digest);
    assert_eq!(report[0xc0..0xe0], Sha256::digest("allow")[..]);
}

fn an_abandoned_start_ends() {
    let place = Place::new();
    let mut plan = place.plan("wait");
    plan.policy = "hang".into();
    let written = place.folder.path().join("plan.json");
    fs::write(&written, serde_json::to_vec(&plan).unwrap()).unwrap();
    let user = |plan: &Path| {
        let mut user = Command::new(std::env::current_exe().unwrap());
        user.arg("__start").arg(place.root.path()).arg(plan).arg(place.folder.path().join("qemu"));
        user
    };
    let mut starting = user(&written).spawn().unwrap();
    let group = || Group::open(&place.root, &plan.name).ok();
    eventually("QEMU runs", || group().is_some_and(|group| group.status().unwrap().1.qemu_pid.is_some()));
    let group = group().unwrap();
    assert_eq!(group.status().unwrap().0, Status::Starting);
    starting.kill().unwrap();
    starting.wait().unwrap();
    let (status, record) = Place::end_of(&group);
    assert!(matches!(&status, Status::Failed { reason } if reason.contains("went away")), "{status}");
    eventually("QEMU ends with its supervisor", || !is_alive(record.qemu_pid.unwrap()));
    group.remove().unwrap();
    // Once the group runs, whoever started it may go.
    plan.policy = "allow".into();
    fs::write(&written, serde_json::to_vec(&plan).unwrap()).unwrap();
    assert!(user(&written).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(1500));
    let group = Group::open(&place.root, &plan.name).unwrap();
    assert_eq!(group.status().unwrap().0, Status::Running);
}

fn events_are_kept() {
    let place = Place::new();
    let group = place.run("corrupt");
    eventually("both events are in the record", || group.status().unwrap().1.events.len() == 2);
    let (_, record) = group.status().unwrap();
    assert!(matches!(record.events[0].event, EventKind::LayerCorrupted { .. }));
    group.kill().unwrap();
}

fn exec_has_streams_and_an_exit_of_its_own() {
    let place = Place::new();
    let group = place.run("wait");
    let mut attachment = place.exec(&group, "ok").unwrap();
    let (out, _, end) = drain(&mut attachment);
    assert_eq!((out, exited(&end)), (b"from exec".to_vec(), 42));
    let Err(GroupError::Agent(error)) = place.exec(&group, "other") else { panic!("not refused") };
    assert_eq!(error.kind, ErrorKind::Denied);
    group.kill().unwrap();
}

fn exec_that_is_not_read_to_its_end_is_no_success() {
    let place = Place::new();
    let group = place.run("wait");
    let mut attachment = place.exec(&group, "cut off").unwrap();
    let (_, _, end) = drain(&mut attachment);
    assert!(matches!(&end, AttachEvent::Lost { reason } if reason.contains("not read to the end")), "{end:?}");
    group.kill().unwrap();
}

fn exec_is_bounded_and_refusals_end_nothing() {
    let place = Place::new();
    // The guest refuses every second request as busy.
    let group = place.run("busy");
    let exec = || place.exec(&group, "stay");
    let most = caveau_protocol::max_followed(1);
    let attached: Vec<_> = (0..most).map(|_| exec().unwrap()).collect();
    let Err(GroupError::Refused { reason, .. }) = exec() else { panic!("not refused") };
    assert!(reason.contains(&most.to_string()), "{reason}");
    // More attached clients than there are connections for: it can still be looked at and stopped.
    let more: Vec<_> = (0..200).map_while(|_| group.attach(None).ok()).collect();
    assert!(more.len() < 128, "{}", more.len());
    assert_eq!(group.status().unwrap().0, Status::Running);
    assert_eq!(group.stats(None).unwrap().pids, 3);
    group.stop(Duration::from_secs(60)).unwrap();
    assert_eq!(group.status().unwrap().0, Status::Exited { code: Some(143) });
    drop((attached, more));
}

fn input_reaches_the_process() {
    let place = Place::new();
    let group = place.run("cat");
    let mut attachment = group.attach(Some("web")).unwrap();
    let mut input = attachment.input();
    input.write(b"back and forth").unwrap();
    let AttachEvent::Bytes { bytes, .. } = attachment.next_event() else { panic!("no output") };
    assert_eq!(bytes, b"back and forth");
    input.close().unwrap();
    assert_eq!(exited(&attachment.next_event()), 0);
    assert!(matches!(group.attach(Some("db")), Err(GroupError::Refused { .. } | GroupError::NotRunning { .. })));
}

fn nothing_is_inherited_that_should_not() {
    let place = Place::new();
    let group = place.run("wait");
    let (_, record) = group.status().unwrap();
    let names = |pid: u32| -> Vec<PathBuf> {
        let listed = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok);
        listed.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
    };
    let qemu = names(record.qemu_pid.unwrap());
    let has = |name: &Path| qemu.iter().any(|open| open == name);
    assert!(has(&place.folder.path().join("layer.img")));
    assert!(!has(&group.folder().path().join("lock")), "{qemu:?}");
    assert!(!has(&group.folder().supervisor_log()), "{qemu:?}");
    let sealed =
        |name: &str| qemu.iter().filter(|open| open.to_string_lossy().contains(&format!("memfd:{name}"))).count();
    assert_eq!([sealed("vmlinux"), sealed("initrd.img"), sealed("bios-256k.bin"), sealed("pvh.bin")], [1; 4]);
    assert!(!group.folder().path().join("roms").exists());
    group.kill().unwrap();
}

fn output_is_lossless_for_a_slow_client() {
    let place = Place::new();
    let mut started = place.start(&place.plan("flood"), true).unwrap();
    let attachment = started.attachment.as_mut().unwrap();
    let AttachEvent::Bytes { bytes, .. } = attachment.next_event() else { panic!("no output") };
    // The guest has ended, but its output has not been read: the group waits for the client.
    eventually("the exit is recorded", || started.group.status().unwrap().1.containers[0].exit.is_some());
    assert!(started.group.is_live().unwrap());
    let attachment = started.attachment.as_mut().unwrap();
    let (rest, _, end) = drain(attachment);
    assert_eq!((bytes.len() + rest.len(), exited(&end)), (FLOOD, 0));
    Place::end_of(&started.group);
    // One that never reads does not keep a group from being stopped.
    let mut plan = place.plan("flood");
    plan.name = "two".parse().unwrap();
    let started = place.start(&plan, true).unwrap();
    started.group.stop(Duration::ZERO).unwrap();
    assert!(matches!(started.group.status().unwrap().0, Status::Exited { .. }));
}

fn stopping_goes_from_polite_to_final() {
    let place = Place::new();
    for (behaviour, patience, code, forced) in
        [("wait", 60_000, Some(143), false), ("stubborn", 100, Some(137), false), ("no signals", 60_000, None, true)]
    {
        let group = place.run(behaviour);
        let report = group.stop(Duration::from_millis(patience)).unwrap();
        assert_eq!(report.forced, forced, "{behaviour}: {report:?}");
        assert_eq!(report.notes.is_empty(), !forced, "{behaviour}: {report:?}");
        let (status, record) = group.status().unwrap();
        assert_eq!(status, Status::Exited { code }, "{behaviour}");
        assert!(matches!(record.phase, Phase::Ended { cause: Cause::Stopped, .. }));
        assert!(!is_alive(record.qemu_pid.unwrap()));
        group.remove().unwrap();
    }
}
