//! The streams of one process, as a client of its supervisor has them.

use std::{io, os::unix::net::UnixStream};

use caveau_protocol::{CreateContainer, Exit, Frame, FrameError, ProcessId, Stream, read_frame, write_frame};

use crate::control::{ClientFrame, ServerFrame};

/// A connection to one process's streams. Dropped, it is detached: the process goes on.
#[derive(Debug)]
pub struct Attachment {
    /// Whether the process has a terminal.
    pub terminal: bool,
    /// The process.
    pub process: ProcessId,
    output: UnixStream,
    input: Input,
}

/// The way to a process's input. It can be moved to a thread of its own.
#[derive(Debug)]
pub struct Input(UnixStream);

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
        let input = Input(stream.try_clone()?);
        Ok(Self { terminal, process, output: stream, input })
    }

    /// The client that is there before the first container is.
    pub(crate) fn first(stream: UnixStream, create: &CreateContainer) -> io::Result<Self> {
        Self::new(stream, ProcessId::init(create.container.clone()), create.process.terminal)
    }

    /// The next thing that happens; waits for it. Not reading holds the process's output back, and loses none.
    pub fn next_event(&mut self) -> AttachEvent {
        let lost = |reason: String| AttachEvent::Lost { reason };
        match read_frame(&mut self.output) {
            Ok(Some(frame)) => match frame.header::<ServerFrame>() {
                Ok(ServerFrame::Bytes { stream }) => AttachEvent::Bytes { stream, bytes: frame.body },
                Ok(ServerFrame::Exit(exit)) => AttachEvent::Exit(exit),
                Ok(ServerFrame::Lost { reason }) => lost(reason),
                Ok(ServerFrame::Notice { message }) => AttachEvent::Notice { message },
                Err(error) => lost(crate::chain(&error)),
            },
            Ok(None) => lost("the supervisor has closed the connection".into()),
            Err(error) => lost(crate::chain(&error)),
        }
    }

    /// Another handle to the input, for a thread of its own.
    ///
    /// # Errors
    /// Where the descriptor cannot be copied.
    pub fn input(&self) -> io::Result<Input> {
        Ok(Input(self.input.0.try_clone()?))
    }
}

impl Input {
    /// Sends bytes to the process's standard input. Returns before they are read; waits where too many are on their way.
    ///
    /// # Errors
    /// [`FrameError`] where the connection has ended.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.send(&ClientFrame::Bytes, bytes)
    }

    /// Closes the process's standard input.
    ///
    /// # Errors
    /// As [`Input::write`].
    pub fn close(&mut self) -> Result<(), FrameError> {
        self.send(&ClientFrame::Close, &[])
    }

    /// Tells the process's terminal its size.
    ///
    /// # Errors
    /// As [`Input::write`].
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<(), FrameError> {
        self.send(&ClientFrame::Resize { rows, columns }, &[])
    }

    /// Sends the process a signal; a refusal comes as [`AttachEvent::Notice`].
    ///
    /// # Errors
    /// As [`Input::write`].
    pub fn signal(&mut self, signal: u8) -> Result<(), FrameError> {
        self.send(&ClientFrame::Signal { signal }, &[])
    }

    fn send(&mut self, frame: &ClientFrame, body: &[u8]) -> Result<(), FrameError> {
        write_frame(&mut self.0, &Frame::new(frame, body.to_vec())?)
    }
}
