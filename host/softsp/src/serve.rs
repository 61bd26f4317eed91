//! The process: `caveau __softsp STATE CONTROL`, where STATE is the state folder and CONTROL an inherited descriptor.

use std::ffi::OsString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use rustix::io::FdFlags;
use rustix::process::DumpableBehavior;

use crate::channel;
use crate::guest_link::{GuestLink, LinkError};
use crate::launch::Launch;
use crate::message::{Answer, Launched, Refusal};
use crate::persona::{NotAPersona, Persona};

/// The environment variable that names a [`Persona`] to play: for tests of verifiers. It can make a group's evidence look worse or
/// other, and cannot make it pass for hardware's.
pub const PERSONA_VARIABLE: &str = "CAVEAU_SOFTSP_PERSONA";

/// Why the process ended other than by its guest's end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The guest's link: what the guest did, or the link itself.
    #[error("the software secure processor stopped serving its guest: {0}")]
    Link(String),
    /// The launch was refused, which the launcher was told.
    #[error("the software secure processor refused the launch: {0}")]
    Refused(Refusal),
    /// The control socket.
    #[error("the software secure processor failed to hear its launcher")]
    Control(#[source] io::Error),
}

impl From<LinkError> for ServeError {
    fn from(error: LinkError) -> Self {
        Self::Link(crate::message::chain(&error))
    }
}

/// The process's whole life: one launch, then one guest's requests until its link is closed.
///
/// `arguments` are the state folder and the number of the inherited control socket (see [`crate::client`]). Call it first
/// thing in a program that has one thread.
#[must_use]
pub fn serve(arguments: &[OsString]) -> ExitCode {
    let [state, control] = arguments else { return usage() };
    let Some(control) = inherited(control) else { return usage() };
    // It holds keys: no core dumps, no tracing by the user's other processes.
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("the software secure processor cannot shield its memory: {error}");
        return ExitCode::from(2);
    }
    let persona = match std::env::var(PERSONA_VARIABLE).ok().map(|name| name.parse()).transpose() {
        Ok(persona) => persona,
        Err(error) => {
            let error: NotAPersona = error;
            eprintln!("{PERSONA_VARIABLE}: {error}");
            return ExitCode::from(2);
        }
    };
    match run_as(Path::new(state), control, persona) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", crate::message::chain(&error));
            ExitCode::from(if matches!(error, ServeError::Refused(_)) { 1 } else { 2 })
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("__softsp is started by the supervisor of a group, not by hand");
    ExitCode::from(2)
}

/// As [`serve`], with the state folder and the control socket themselves.
///
/// # Errors
/// [`ServeError`]. A launcher or guest that goes away is no error.
pub fn run(state_folder: &Path, control: OwnedFd) -> Result<(), ServeError> {
    run_as(state_folder, control, None)
}

fn run_as(state_folder: &Path, control: OwnedFd, persona: Option<Persona>) -> Result<(), ServeError> {
    let Some((packet, descriptors)) = channel::receive(&control).map_err(ServeError::Control)? else { return Ok(()) };
    let launched = Launch::parse(&packet, descriptors).and_then(|launch| launch.playing(persona).finish(state_folder));
    drop(packet);
    let (context, link) = match launched {
        Ok(launched) => launched,
        Err(refusal) => {
            answer(&control, &Answer::Refused(refusal.clone()))?;
            return Err(ServeError::Refused(refusal));
        }
    };
    let launched = Launched { launch_digest: context.measurement, report_id: context.report_id.into() };
    answer(&control, &Answer::Launched(launched))?;
    // A launch is asked for once: whoever holds the other end sees that there is nobody to talk to.
    drop(control);
    let mut link = UnixStream::from(link);
    link.set_nonblocking(false).map_err(|error| ServeError::Link(error.to_string()))?;
    GuestLink::new(&context).map_err(LinkError::Crypto)?.serve(&mut link)?;
    Ok(())
}

fn answer(control: &OwnedFd, answer: &Answer) -> Result<(), ServeError> {
    let answer = serde_json::to_vec(answer).map_err(|error| ServeError::Control(error.into()))?;
    channel::send(control, &answer, &[]).map_err(ServeError::Control)
}

/// Takes over an inherited descriptor.
#[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
fn inherited(text: &OsString) -> Option<OwnedFd> {
    let number: RawFd = text.to_str()?.parse().ok().filter(|number| *number > 2)?;
    std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).ok()?;
    // SAFETY: the descriptor is open, as was just seen; this runs first thing in a process that has one thread, and
    // nothing else in this process knows the number.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC).ok()?;
    Some(descriptor)
}
