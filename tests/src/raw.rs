//! A guest whose host speaks to the agent's port byte by byte.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, fd::OwnedFd, unix::net::UnixStream},
    thread,
    time::Duration,
};

use caveau_launch::{Accelerator, Firmware, Guest, LaunchPlan, Machine, MachineParts, Qemu, TeeParts};
use caveau_protocol::{
    AgentReply, AgentRequest, Frame, ReplyEnvelope, RequestEnvelope, VERSION, read_frame, write_frame,
};
use caveau_softsp::{
    LaunchSettings,
    client::{FirmwareParts, Parts, control_pair, launch},
};
use sha2::{Digest as _, Sha256};

use crate::{PATIENCE, hostile::Hostile, shared_folder};

/// A booted guest and its open port.
#[derive(Debug)]
pub struct RawGuest {
    /// The port.
    pub port: UnixStream,
    machine: Machine,
    last: u64,
    _folder: tempfile::TempDir,
}

impl RawGuest {
    /// Boots the honest plan's guest with its layers attached, and with `policy` as HOST_DATA.
    ///
    /// # Panics
    /// Where it does not boot.
    #[must_use]
    pub fn boot(host: &Hostile, policy: &str) -> Self {
        let plan = &host.plan;
        let guest = Guest::load(&plan.guest).expect("the guest loads");
        let folder = tempfile::tempdir().expect("a folder");
        let disks =
            plan.layers.iter().map(|layer| (File::open(&layer.path).expect("the layer").into(), true)).collect();
        let link = measure(plan, &guest, policy);
        let parts = MachineParts {
            name: "raw",
            guest: &guest,
            with_initrd: true,
            tee: TeeParts::Emulated { accelerator: Accelerator::Tcg, link: Some(link) },
            vcpus: 1,
            memory_mib: 256,
            disks,
            ports: &[],
            folder: folder.path(),
        };
        let machine = Machine::boot(&Qemu::find().expect("QEMU"), parts).expect("the VM starts");
        let port = machine.agent().expect("the agent's port");
        port.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Self { port, machine, last: 0, _folder: folder }
    }

    /// Asks, and gives the answer to this request, whatever else is answered before.
    ///
    /// # Panics
    /// Where there is no answer.
    #[track_caller]
    pub fn ask(&mut self, request: AgentRequest, body: &[u8]) -> Result<AgentReply, String> {
        self.last += 1;
        let id = self.last;
        self.send(&RequestEnvelope { version: VERSION, id, request }, body);
        loop {
            let reply = self.reply();
            if reply.id == id {
                return reply.result.map_err(|error| format!("{:?}: {error}", error.kind));
            }
        }
    }

    /// Sends a header of any form.
    ///
    /// # Panics
    /// Where the port does not take it.
    pub fn send(&mut self, header: &impl serde::Serialize, body: &[u8]) {
        let frame = Frame::new(header, body.to_vec()).expect("a frame");
        write_frame(&mut self.port, &frame).expect("the port takes it");
    }

    /// Sends bytes of any form; a guest that has gone does not take them.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.port.write_all(bytes);
    }

    /// The next reply.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub fn reply(&mut self) -> ReplyEnvelope {
        let frame = read_frame(&mut self.port).expect("a frame").expect("the port is open");
        frame.header().expect("a reply")
    }

    /// Whether the guest says nothing for two seconds.
    ///
    /// # Panics
    /// Where the port fails.
    #[must_use]
    pub fn is_silent(&mut self) -> bool {
        self.port.set_read_timeout(Some(Duration::from_secs(2))).expect("a time limit");
        let mut byte = [0];
        let waited = self.port.read(&mut byte);
        self.port.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        waited.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Whether the guest switches itself off.
    #[must_use]
    pub fn ends(&mut self) -> bool {
        let gone = self.machine.wait(Duration::from_secs(60)).is_some();
        let mut rest = Vec::new();
        let _ = self.port.read_to_end(&mut rest);
        gone
    }
}

/// Asserts that a request is refused for a reason that begins like this; gives all of it.
///
/// # Panics
/// Where it is not.
#[track_caller]
pub fn is_refused(answer: Result<AgentReply, String>, reason: &str) -> String {
    let refused = answer.expect_err(reason);
    assert!(refused.starts_with(reason), "not {reason:?}: {refused}");
    refused
}

/// Has a software secure processor measure the launch; it serves the guest on a thread until the link closes.
fn measure(plan: &LaunchPlan, guest: &Guest, policy: &str) -> OwnedFd {
    let (ours, theirs) = control_pair().expect("a socket pair");
    let state = shared_folder().join("data/caveau/softsp");
    std::fs::create_dir_all(state.parent().expect("a parent")).expect("a folder");
    thread::spawn(move || caveau_softsp::run(&state, theirs));
    let (for_qemu, for_processor) = UnixStream::pair().expect("a socket pair");
    let Firmware::Direct { bios, option_roms } = &guest.firmware else { panic!("firmware of another TEE") };
    let firmware = FirmwareParts::Direct {
        bios: bios.as_fd(),
        option_roms: option_roms.iter().map(|rom| (rom.name.as_str(), rom.file.as_fd())).collect(),
    };
    let parts = Parts {
        firmware,
        kernel: guest.kernel.as_fd(),
        initrd: Some(guest.initrd.as_fd()),
        link: for_processor.as_fd(),
    };
    let host_data: [u8; 32] = Sha256::digest(policy).into();
    let settings = LaunchSettings::new(&guest.cmdline, 1, &plan.vcpu_type, host_data);
    launch(ours.as_fd(), &settings, &parts, PATIENCE).expect("the launch is measured");
    for_qemu.into()
}
