//! PID 1 of the guest: boot, the gate that every request passes, the lives of containers.
//!
//! ```text
//!   boot: file systems, modules (then locked), network, TEE ──▶ serve
//!
//!   port ──frames──▶ connection ──┬─ steps that change something ──▶ gate, one thread, strictly in order:
//!                                 │                                  policy ──Permit──▶ storage, runtime, tee, firewall
//!                                 └─ waiting (output, exit, events) ─▶ live, a bounded number of threads
//! ```
//!
//! *Trusts* the kernel, the TEE, and of the host nothing: every frame, disk and number from it is hostile. *Promises*: until a
//! policy is set whose SHA-256 is the TEE's HOST_DATA, nothing is done but saying hello and switching the VM off; afterwards
//! no disk is mounted, nothing run, signalled or told of, and no evidence given, that the policy does not allow; the host's
//! text never becomes a path of the guest; what one container writes stalls no other. *Refuses* a second policy, identifiers
//! that are not of their form, and everything out of order; where it cannot go on (the port is out of step, a step of the boot
//! fails) it switches the VM off.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "a test may fail loudly"
    )
)]

mod answer;
mod attester;
mod boot;
mod channels;
mod connection;
mod containers;
mod context;
mod endorsements;
mod entropy;
mod events;
mod fragments;
mod gate;
mod live;
mod log;
mod netlink;
mod outside;
mod port;
mod sealed;
mod timeline;

use std::{fs::File, io::Write as _, process::ExitCode, sync::Arc};

use caveau_protocol::AgentRequest;
use caveau_runtime::{Reaper, Runtime};
use caveau_storage::Storage;
use rustix::system::{RebootCommand, reboot};

pub use crate::answer::{Answer, Fatal};
use crate::{
    gate::{Gate, Guest},
    live::Live,
    outside::OwnNetwork,
    timeline::Timeline,
};

/// The life of PID 1: boots, serves the host until it goes away or asks for the end, and switches the VM off.
#[must_use]
pub fn run() -> ExitCode {
    // Whoever reads the console sees that the kernel is through. Where nobody can, nothing is lost.
    let _ = writeln!(std::io::stdout(), "caveau-agent {}", env!("CARGO_PKG_VERSION"));
    if let Err(error) = boot_and_serve(Timeline::begin()) {
        // The console is the last thing that somebody may read.
        eprintln!("caveau-agent: {}", answer::chain(&*error));
    }
    power_off()
}

fn boot_and_serve(mut timeline: Timeline) -> Result<(), Fatal> {
    let kind = boot::boot(&mut timeline)?;
    let tee = caveau_tee::open(kind)?;
    timeline.done("open the TEE");
    let storage = Storage::open()?;
    timeline.done("look for disks");
    caveau_runtime::bound_containers()?;
    let port = port::open(caveau_protocol::AGENT_PORT)?;
    let live = Arc::new(Live::default());
    let notified = Arc::clone(&live);
    let reaper = Reaper::start(move |_| notified.exited())?;
    let maker = Runtime::new("/run/caveau/containers".into(), reaper);
    let network = Box::new(OwnNetwork::default());
    let mut gate = Gate::new(Guest { tee, disks: storage, maker, network }, Arc::clone(&live));
    gate::watch_layers(gate.layers(), Arc::clone(&live))?;
    timeline.done("open the port");
    gate.tell(timeline);
    connection::serve(&port, gate, live)
}

/// Serves a port as a guest does, but with these steps behind it instead of the gate: for whoever tests what a host may send.
///
/// # Errors
/// Where the port is out of step.
pub fn serve_with(
    port: &File,
    step: impl FnMut(AgentRequest, Vec<u8>) -> Answer + Send + 'static,
) -> Result<(), Fatal> {
    connection::serve(port, step, Arc::new(Live::default()))
}

/// Serves one channel to its end as a guest does, with these answers in place of the gate's: for whoever tests what may come over
/// it.
pub fn serve_channel_with(
    inside: std::os::unix::net::UnixStream,
    answer: impl Fn() -> Answer + Clone + Send + 'static,
) {
    channels::serve_with(inside, answer);
}

/// Ends the guest from any thread.
pub(crate) fn end() {
    // The first process goes on where the kernel refuses, and the host ends the VM.
    let _ = power_off();
}

/// Ends the VM, if this is its first process; returns only where the kernel refuses.
fn power_off() -> ExitCode {
    if rustix::process::getpid().as_raw_nonzero().get() != 1 {
        return ExitCode::FAILURE;
    }
    // Nothing is synced: what is not on the scratch disk yet nobody could ever read, for its key ends here.
    // A reset ends the VM, for QEMU is told to start none again; to power off takes tables of the host.
    // Nothing can be told to anybody where it fails: the first process ends, the kernel panics, the VM ends.
    let _ = reboot(RebootCommand::Restart);
    ExitCode::FAILURE
}
