//! A process in a container, and its streams, over a channel.

use std::sync::mpsc::{Receiver, TryRecvError};

use anyhow::{Context as _, Result};
use caveau_protocol::{AgentError, AgentReply, AgentRequest, Exec, MAX_CHUNK, ProcessId, ProcessSpec, Stream};

use super::coded;
use crate::channel::{Channel, unexpected};

/// How long the guest is asked to wait for output, in milliseconds: at first, and at most where nothing is handed over meanwhile.
const SHORT_MS: u32 = 10;
pub(super) const LONG_MS: u32 = 200;

/// Bytes that are asked for at a time.
pub(super) const CHUNK: u32 = MAX_CHUNK as u32;

/// Starts a process in the group's first container.
///
/// # Errors
/// With Docker's codes, where the guest refuses.
pub(super) fn start(channel: &mut Channel, process: ProcessSpec) -> Result<ProcessId> {
    let ids = match channel.call(AgentRequest::Containers, &[])? {
        (AgentReply::Containers { containers }, _) => containers,
        (other, _) => return Err(unexpected(&other)),
    };
    let container = ids.into_iter().next().context("the group has no container")?;
    let request = AgentRequest::Exec(Box::new(Exec { container: container.clone(), process }));
    match channel.call(request, &[]) {
        Ok((AgentReply::Exec { exec }, _)) => Ok(ProcessId { container, exec: Some(exec) }),
        Ok((other, _)) => Err(unexpected(&other)),
        Err(error) => Err(coded(error)),
    }
}

/// Carries a process's streams until it has ended, and gives its code: `input` to it, and what it writes to `sink`.
///
/// # Errors
/// Where the channel breaks off, or those of `sink`.
pub(super) fn follow(
    channel: &mut Channel,
    process: &ProcessId,
    has_terminal: bool,
    mut input: Option<Input>,
    sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
) -> Result<u8> {
    let mut open = if has_terminal { vec![Stream::Stdout] } else { vec![Stream::Stdout, Stream::Stderr] };
    let mut timeout_ms = SHORT_MS;
    while !open.is_empty() {
        let mut fed = false;
        if let Some(input) = &mut input {
            fed = input.feed(channel, process)?;
        }
        let mut still = Vec::new();
        let mut heard = false;
        for stream in open {
            // Where there is more to hand over, nothing is waited for.
            let timeout_ms = if fed { 0 } else { timeout_ms };
            let request = AgentRequest::ReadOutput { process: process.clone(), stream, max: CHUNK, timeout_ms };
            let (output, bytes) = match channel.call(request, &[])? {
                (AgentReply::Output(output), bytes) => (output, bytes),
                (other, _) => return Err(unexpected(&other)),
            };
            sink(stream, &bytes)?;
            heard |= !bytes.is_empty();
            if !output.eof {
                still.push(stream);
            }
        }
        open = still;
        // Whoever types is answered soon; a program that is quiet is asked less often.
        let is_open = input.as_ref().is_some_and(|input| !input.ended);
        timeout_ms = if heard || is_open { SHORT_MS } else { (timeout_ms * 2).min(LONG_MS) };
    }
    loop {
        match channel.call(AgentRequest::Wait { process: process.clone(), timeout_ms: 60_000 }, &[])? {
            (AgentReply::Exit(Some(exit)), _) => return Ok(exit.code),
            (AgentReply::Exit(None), _) => {}
            (other, _) => return Err(unexpected(&other)),
        }
    }
}

/// What is to be handed over, a piece at a time, and what of it the process has not taken yet.
pub(super) struct Input {
    pieces: Receiver<Vec<u8>>,
    left: Vec<u8>,
    ended: bool,
}

impl Input {
    /// These pieces. An empty one is the end, and so is that no more can come.
    pub(super) const fn of(pieces: Receiver<Vec<u8>>) -> Self {
        Self { pieces, left: Vec::new(), ended: false }
    }

    /// Hands the process as much as it takes now; whether it took any. One that takes nothing is asked again later: what it writes has
    /// to be read meanwhile, for it may wait for that.
    fn feed(&mut self, channel: &mut Channel, process: &ProcessId) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.left.is_empty() {
            self.left = match self.pieces.try_recv() {
                Ok(bytes) => bytes,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => Vec::new(),
            };
            if self.left.is_empty() {
                self.ended = true;
                // One that has ended needs no word of it.
                refused(channel.call(AgentRequest::CloseInput { process: process.clone() }, &[]))?;
                return Ok(true);
            }
        }
        match refused(channel.call(AgentRequest::WriteInput { process: process.clone() }, &self.left))? {
            Some((AgentReply::Written { bytes }, _)) => {
                drop(self.left.drain(..usize::try_from(bytes)?));
                Ok(bytes > 0)
            }
            Some((other, _)) => Err(unexpected(&other)),
            // It has closed its input, or ended.
            None => {
                self.ended = true;
                Ok(false)
            }
        }
    }
}

/// Nothing where the guest refused.
fn refused(answer: Result<(AgentReply, Vec<u8>)>) -> Result<Option<(AgentReply, Vec<u8>)>> {
    match answer {
        Err(error) if error.is::<AgentError>() => Ok(None),
        other => other.map(Some),
    }
}
