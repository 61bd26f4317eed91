//! What other processes say to a supervisor, over its Unix socket.
//!
//! One connection is one conversation: a request, its answer, and for output and input what follows.
//!
//! ```text
//!   status | stop | call ──▶            attach | exec ──▶
//!                  ◀── answer                       ◀── answer
//!                                    input, resize … ──▶
//!                                                   ◀── output …, then exit | lost
//! ```

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use caveau_protocol::{AgentError, AgentReply, AgentRequest, ContainerId, Exec, Exit, Stream, TerminalSize};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

/// The first frame of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", content = "args", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ControlRequest {
    /// Output of a container's init from now on, and input for it.
    Attach {
        /// The container's name; the first one where absent.
        container: Option<String>,
    },
    /// A request for the agent, handed on as it is with the frame's body. Reading the output of a container's init is
    /// refused: the supervisor reads it, and two readers would each get a part.
    Call(AgentRequest),
    /// One more process, attached.
    Exec(Box<Exec>),
    /// Is the guest there?
    Status,
    /// End the group.
    Stop {
        /// Milliseconds that the containers have after their stop signal.
        timeout_ms: u32,
    },
}

/// The answer to the first frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ControlReply {
    /// Output follows; whether there is a terminal.
    Attached {
        /// Whether the process has a terminal.
        terminal: bool,
        /// The process's container.
        container: ContainerId,
        /// Its number, for an executed process.
        exec: Option<u32>,
    },
    /// The agent's answer; its bytes are the body.
    Called(Result<AgentReply, AgentError>),
    /// It could not be done.
    Failed {
        /// Why.
        reason: String,
    },
    /// The guest's condition.
    Status {
        /// Who does not answer, where that is so.
        silent: Option<String>,
    },
    /// The group is being shut down; what the containers were told.
    Stopping(StopReport),
}

/// What came of asking the containers to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopReport {
    /// Whether a container was still alive when the VM was switched off.
    pub forced: bool,
    /// Signals that could not be sent, with the reason (the policy may deny them).
    pub notes: Vec<String>,
}

/// What an attached client sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ClientFrame {
    /// The body is input.
    Bytes,
    /// No more input.
    Close,
    /// The terminal's size.
    Resize {
        /// Its new size.
        size: TerminalSize,
    },
    /// A signal for the process.
    Signal {
        /// Its number.
        signal: u8,
    },
}

/// What an attached client receives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "output", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ServerFrame {
    /// The body is output.
    Bytes {
        /// Of which stream.
        stream: Stream,
    },
    /// The process has ended, and all its output has been sent.
    Exit(Exit),
    /// There will be no exit code.
    Lost {
        /// Why.
        reason: String,
    },
    /// Something that the client asked for was refused.
    Notice {
        /// What, and why.
        message: String,
    },
    /// One frame of input has been taken, or refused: there is room for another one.
    Taken,
}

/// Most frames of input that a client may have on their way. So many are always read at once, and what comes behind them (a
/// signal, say) never waits for a process that does not read its input.
pub(crate) const INPUT_WINDOW: usize = 8;

/// A path to a socket that is short however long its folder's is: sockets' paths end at 107 bytes.
struct ShortPath {
    folder: OwnedFd,
    name: PathBuf,
}

impl ShortPath {
    fn new(path: &Path) -> io::Result<Self> {
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        Ok(Self { folder, name: path.file_name().unwrap_or_default().into() })
    }

    fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(&self.name)
    }
}

/// Connects to a socket by its path, of any length.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(ShortPath::new(path)?.path())
}

/// Listens on a socket by its path, of any length; only its owner may connect.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(ShortPath::new(path)?.path())?;
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_work_at_the_end_of_long_paths() {
        let keep = tempfile::tempdir().unwrap();
        let folder = keep.path().join("a".repeat(100)).join("b".repeat(100));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("control.sock");
        let listener = listen(&path).unwrap();
        let _client = connect(&path).unwrap();
        listener.accept().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn conversations_read_as_written() {
        let request = ControlRequest::Call(AgentRequest::Hello);
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<ControlRequest>(&text).unwrap(), request);
        let frame = ServerFrame::Exit(Exit { code: 3, out_of_memory: false });
        let text = serde_json::to_string(&frame).unwrap();
        assert_eq!(serde_json::from_str::<ServerFrame>(&text).unwrap(), frame);
        assert!(serde_json::from_str::<ControlRequest>(r#"{"op":"reboot"}"#).is_err());
    }
}
