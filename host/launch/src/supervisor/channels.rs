//! Connections from outside, carried to the guest as channels. What they mean is TLS between the two ends: the host sees bytes.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use caveau_protocol::{AgentReply, AgentRequest, MAX_CHANNELS, MAX_CHUNK};

use crate::{AgentClient, CallError, agent::unexpected};

/// Longest time that one request may wait in the guest, in milliseconds.
const POLL_MS: u32 = 60_000;

/// How long the guest may take to open a channel.
const OPEN: Duration = Duration::from_secs(20);

/// Pause before bytes that found no room are offered again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Accepts connections for the rest of the process's life.
pub(super) fn listen(client: &AgentClient, listener: TcpListener) -> io::Result<()> {
    let client = client.clone();
    let open = Arc::new(AtomicUsize::new(0));
    thread::Builder::new().name("channels".into()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => carry_beside(&client, stream, &open),
                Err(error) => {
                    eprintln!("a connection for the guest failed: {error}");
                    // Such as no descriptors left: others may be given back in the meantime.
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    })?;
    Ok(())
}

/// Starts a connection's thread; one too many is closed.
fn carry_beside(client: &AgentClient, stream: TcpStream, open: &Arc<AtomicUsize>) {
    if open.fetch_add(1, Ordering::SeqCst) >= MAX_CHANNELS {
        open.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    let (client, open_there) = (client.clone(), Arc::clone(open));
    let started = thread::Builder::new().name("channel".into()).spawn(move || {
        if let Err(error) = carry(&client, &stream) {
            eprintln!("a channel to the guest ended: {}", crate::chain(&error));
        }
        let _ = stream.shutdown(Shutdown::Both);
        open_there.fetch_sub(1, Ordering::SeqCst);
    });
    if started.is_err() {
        open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Carries bytes both ways until one side ends.
fn carry(client: &AgentClient, stream: &TcpStream) -> Result<(), CallError> {
    let channel = match client.call(AgentRequest::OpenChannel, Vec::new(), Some(OPEN))? {
        (AgentReply::Channel { channel }, _) => channel,
        (other, _) => return Err(unexpected(&other)),
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            // What fails here ends the channel, which the other direction sees.
            let _ = bring(client, channel, stream);
            let _ = client.done(AgentRequest::CloseChannel { channel }, OPEN);
        });
        let result = fetch(client, channel, stream);
        // Wakes the other direction.
        let _ = stream.shutdown(Shutdown::Both);
        result
    })
}

/// From outside to the guest, until whoever is there has no more.
fn bring(client: &AgentClient, channel: u32, mut stream: &TcpStream) -> Result<(), CallError> {
    let mut buffer = vec![0; MAX_CHUNK];
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            return Ok(());
        }
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            match client.call(AgentRequest::WriteChannel { channel }, rest.to_vec(), None)? {
                (AgentReply::Written { bytes: 0 }, _) => thread::sleep(FULL_PAUSE),
                (AgentReply::Written { bytes }, _) => {
                    rest = rest.get(usize::try_from(bytes).unwrap_or(usize::MAX)..).unwrap_or_default();
                }
                (other, _) => return Err(unexpected(&other)),
            }
        }
    }
}

/// From the guest to outside, until the guest ends it or nobody takes it. The next piece is asked for when the last was taken.
fn fetch(client: &AgentClient, channel: u32, mut stream: &TcpStream) -> Result<(), CallError> {
    let max = u32::try_from(MAX_CHUNK).unwrap_or(u32::MAX);
    loop {
        let request = AgentRequest::ReadChannel { channel, max, timeout_ms: POLL_MS };
        match client.call(request, Vec::new(), None) {
            Ok((AgentReply::Output(output), bytes)) => {
                if stream.write_all(&bytes).is_err() || output.eof {
                    return Ok(());
                }
            }
            Ok((other, _)) => return Err(unexpected(&other)),
            // It was closed by the other direction.
            Err(CallError::Agent(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
