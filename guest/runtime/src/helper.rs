//! The helper: the agent's own program, started again with one thread, which becomes or makes a container's process.
//!
//! libcontainer clones its caller without executing anything, so its caller must have one thread and hold nothing worth
//! taking: no policy, no key, no descriptor but its channel.

mod create;
mod enter;

use std::{
    fs,
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::ExitCode,
};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::{
    ProcessPlan,
    channel::{Adopted, Answer, Channel, Order, borrow},
};

/// `argv[0]` by which the program knows that it is a helper.
pub const HELPER_NAME: &str = "caveau-helper";

/// A process that was made and waits to go on.
struct Made {
    pid: i32,
    /// The reading end of its status pipe, then its terminal where it has one.
    descriptors: Vec<OwnedFd>,
    /// Where the process waits for one byte before it goes on. One that sees the end instead ends too.
    go: Option<OwnedFd>,
}

/// Takes one order from standard input, carries it out, and ends once the agent has adopted the process.
#[must_use]
pub fn run_helper() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> io::Result<()> {
    // Whoever shares a namespace with this process must not look into it (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let channel = Channel::from_fd(io::stdin().as_fd().try_clone_to_owned()?);
    let (order, descriptors) = channel.receive::<Order>()?;
    match carry_out(order, descriptors) {
        Ok(made) => {
            channel.send(&Answer::Made { pid: made.pid }, &borrow(&made.descriptors))?;
            channel.receive::<Adopted>()?;
            made.go.map_or(Ok(()), |go| rustix::io::write(&go, b"g").map(drop).map_err(Into::into))
        }
        Err(error) => channel.send(&Answer::Failed { reason: chain(error.as_ref()) }, &[]),
    }
}

/// Any error, for its text alone.
type Failure = Box<dyn std::error::Error>;

fn carry_out(order: Order, descriptors: Vec<OwnedFd>) -> Result<Made, Failure> {
    match order {
        Order::Create { name, bundle, state, plan } => {
            create::create(&name, &bundle, &state, &read_plan(&plan)?, descriptors)
        }
        Order::Enter { plan, cgroup, terminal } => enter::enter(&read_plan(&plan)?, &cgroup, terminal, descriptors),
    }
}

fn read_plan(path: &Path) -> Result<ProcessPlan, Failure> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// An error with its causes, at most 2,000 characters.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text.chars().take(2000).collect()
}

/// The status pipe: both ends close when something is executed.
fn status_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    io::pipe()
}
