//! The streams of one process, as a client of its supervisor has them.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use caveau_protocol::{
    CreateContainer, Exit, Frame, FrameError, MAX_CHUNK, ProcessId, Stream, TerminalSize, read_frame, write_frame,
};

use crate::control::{ClientFrame, INPUT_WINDOW, ServerFrame};

/// A connection to one process's streams. Dropped, it is detached: the process goes on.
#[derive(Debug)]
pub struct Attachment {
    /// Whether the process has a terminal.
    pub terminal: bool,
    /// The process.
    pub process: ProcessId,
    output: UnixStream,
    way: Arc<Way>,
}

/// The way to a process's input. It can be moved to a thread of its own, and there can be several.
#[derive(Debug)]
pub struct Input(Arc<Way>);

/// What all handles to one input share.
#[derive(Debug)]
struct Way {
    /// Locked for a whole frame: two threads' frames must not mix.
    stream: Mutex<UnixStream>,
    state: Mutex<WayState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WayState {
    /// Frames of input that the supervisor has not taken yet.
    under_way: usize,
    ended: bool,
}

impl Way {
    fn send(&self, frame: &ClientFrame, body: &[u8]) -> Result<(), FrameError> {
        let frame = Frame::new(frame, body.to_vec())?;
        write_frame(&mut *self.stream.lock().unwrap_or_else(PoisonError::into_inner), &frame)
    }

    fn state(&self) -> MutexGuard<'_, WayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for one frame of input, waiting for it.
    fn enter(&self) -> Result<(), FrameError> {
        let full = |state: &mut WayState| state.under_way >= INPUT_WINDOW && !state.ended;
        let mut state = self.changed.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return Err(FrameError::Stream(io::ErrorKind::BrokenPipe.into()));
        }
        state.under_way += 1;
        Ok(())
    }

    fn taken(&self) {
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }
}

/// What comes out of an attached process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachEvent {
    /// Output.
    Bytes {
        /// Of which stream.
        stream: Stream,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// It has ended; all its output has come before.
    Exit(Exit),
    /// There will be no exit code: the VM or the supervisor went away.
    Lost {
        /// Why.
        reason: String,
    },
    /// Something that was sent was refused.
    Notice {
        /// What, and why.
        message: String,
    },
}

impl Attachment {
    pub(crate) fn new(stream: UnixStream, process: ProcessId, terminal: bool) -> io::Result<Self> {
        let stream_in = Mutex::new(stream.try_clone()?);
        let way = Way { stream: stream_in, state: Mutex::default(), changed: Condvar::new() };
        Ok(Self { terminal, process, output: stream, way: Arc::new(way) })
    }

    /// The client that is there before the first container is.
    pub(crate) fn first(stream: UnixStream, create: &CreateContainer) -> io::Result<Self> {
        Self::new(stream, ProcessId::init(create.container.clone()), create.process.terminal.is_some())
    }

    /// The next thing that happens; waits for it. Not reading holds the process's output back, and loses none; it holds
    /// input back too, once some is on its way.
    pub fn next_event(&mut self) -> AttachEvent {
        loop {
            let event = match read_frame(&mut self.output) {
                Ok(Some(frame)) => match frame.header::<ServerFrame>() {
                    Ok(ServerFrame::Taken) => {
                        self.way.taken();
                        continue;
                    }
                    Ok(ServerFrame::Bytes { stream }) => return AttachEvent::Bytes { stream, bytes: frame.body },
                    Ok(ServerFrame::Notice { message }) => return AttachEvent::Notice { message },
                    Ok(ServerFrame::Exit(exit)) => AttachEvent::Exit(exit),
                    Ok(ServerFrame::Lost { reason }) => AttachEvent::Lost { reason },
                    Err(error) => AttachEvent::Lost { reason: crate::chain(&error) },
                },
                Ok(None) => AttachEvent::Lost { reason: "the supervisor has closed the connection".into() },
                Err(error) => AttachEvent::Lost { reason: crate::chain(&error) },
            };
            self.way.end();
            return event;
        }
    }

    /// Another handle to the input, for a thread of its own.
    #[must_use]
    pub fn input(&self) -> Input {
        Input(Arc::clone(&self.way))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Nobody hears any more that input was taken: whoever waits for that must not wait for ever.
        self.way.end();
    }
}

impl Input {
    /// Sends bytes to the process's standard input. Returns before they are read; waits where too many are on their way, for as
    /// long as it takes: somebody must call [`Attachment::next_event`] meanwhile.
    ///
    /// # Errors
    /// [`FrameError`] where the connection has ended.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        for chunk in bytes.chunks(MAX_CHUNK) {
            self.0.enter()?;
            self.0.send(&ClientFrame::Bytes, chunk)?;
        }
        Ok(())
    }

    /// Closes the process's standard input.
    ///
    /// # Errors
    /// As [`Input::write`].
    pub fn close(&mut self) -> Result<(), FrameError> {
        self.0.send(&ClientFrame::Close, &[])
    }

    /// Tells the process's terminal its size.
    ///
    /// # Errors
    /// As [`Input::write`].
    pub fn resize(&mut self, size: TerminalSize) -> Result<(), FrameError> {
        self.0.send(&ClientFrame::Resize { size }, &[])
    }

    /// Sends the process a signal; a refusal comes as [`AttachEvent::Notice`].
    ///
    /// # Errors
    /// As [`Input::write`].
    pub fn signal(&mut self, signal: u8) -> Result<(), FrameError> {
        self.0.send(&ClientFrame::Signal { signal }, &[])
    }
}
