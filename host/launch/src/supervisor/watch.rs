//! Threads that watch: whether QEMU still executes the guest, and whether the guest still answers.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread,
    time::Duration,
};

use caveau_protocol::{AgentReply, AgentRequest};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::group::{Happening, Shared};
use crate::{
    AgentClient, CallError, Cause, Machine, Phase,
    machine::describe,
    state::{Recorder, now_ns},
};

/// Time between two looks at QEMU's run state; its end is seen at once.
const LOOK: Duration = Duration::from_secs(5);

/// How long the guest may hold the question for news, at most.
const NEWS: Duration = Duration::from_secs(10);

/// Least time between two events that are taken: each is written down, and a guest may have many.
const EVENT_PAUSE: Duration = Duration::from_millis(50);

/// Watches QEMU from its first moment on: when it ends or stops, every open call to the agent ends too.
pub(super) fn machine(
    machine: &Arc<Machine>,
    client: &AgentClient,
    happenings: Sender<Happening>,
) -> std::io::Result<()> {
    let (machine, client) = (Arc::clone(machine), client.clone());
    thread::Builder::new().name("watch-qemu".into()).spawn(move || {
        let reason = loop {
            if let Some(status) = machine.wait(LOOK) {
                break format!("QEMU ended ({}){}", describe(status), said(&machine));
            }
            match machine.run_state().as_deref() {
                Ok("running") | Err(_) => {}
                Ok(state) => break format!("QEMU stopped executing the guest (state {state}){}", said(&machine)),
            }
        };
        client.close();
        // The main thread may have ended the VM itself and be gone.
        let _ = happenings.send(Happening::VmLost(reason));
    })?;
    Ok(())
}

/// What the guest and QEMU said last, as the end of a sentence.
pub(super) fn said(machine: &Machine) -> String {
    let words = machine.last_words();
    if words.is_empty() { String::new() } else { format!("; {words}") }
}

/// Asks the guest for news all the time: that is how events are heard, and how silence is noticed.
pub(super) fn guest(group: &Shared) -> std::io::Result<()> {
    let group = Shared::clone(group);
    thread::Builder::new().name("watch-guest".into()).spawn(move || {
        let mut after = 0;
        let patience = group.answer_limit();
        let hold = NEWS.min(patience / 2);
        let timeout_ms = u32::try_from(hold.as_millis()).unwrap_or(u32::MAX);
        loop {
            let request = AgentRequest::NextEvent { after, timeout_ms };
            match group.client.call(request, Vec::new(), Some(hold + patience)) {
                Err(CallError::Closed(_)) => return,
                Err(CallError::Silent(ago)) => group.liveness.silent(ago),
                Ok((AgentReply::Event(Some(event)), _)) => {
                    group.liveness.answered();
                    after = after.max(event.number);
                    if let Err(error) = group.recorder.update(|record| record.push_event(event)) {
                        eprintln!("{}", crate::chain(&error));
                    }
                    thread::sleep(EVENT_PAUSE);
                }
                Ok((AgentReply::Event(None), _)) => group.liveness.answered(),
                Ok(_) | Err(_) => {
                    // It answers, if not well: not to be asked again at once.
                    group.liveness.answered();
                    thread::sleep(patience);
                }
            }
        }
    })?;
    Ok(())
}

/// Watches the process that asked for the start, until `done`: when it goes away before, nobody will ever hear of the group.
/// This process then ends, and QEMU with it.
pub(super) fn starter(pipe: OwnedFd, done: Arc<AtomicBool>, recorder: Recorder) -> std::io::Result<()> {
    thread::Builder::new().name("watch-starter".into()).spawn(move || {
        while !done.load(Ordering::SeqCst) {
            let mut watched = [PollFd::new(&pipe, PollFlags::empty())];
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            match rustix::event::poll(&mut watched, Some(&second)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // The reading end is closed: after the last announcement that is as it should be.
                Ok(_) if done.load(Ordering::SeqCst) => return,
                Ok(_) => break,
                Err(_) => return,
            }
        }
        if !done.swap(true, Ordering::SeqCst) {
            let reason = "the program that started it went away before the group ran".to_owned();
            let cause = Cause::Failed { reason, denial: None };
            let ended = recorder.update(|record| record.phase = Phase::Ended { at_ns: now_ns(), cause });
            std::process::exit(if ended.is_ok() { 0 } else { 2 });
        }
    })?;
    Ok(())
}
