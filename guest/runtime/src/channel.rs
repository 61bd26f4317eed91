//! Messages between the agent and its helper: JSON in one packet each, descriptors beside it (SCM_RIGHTS, unix(7)).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    sockopt::{Timeout, set_socket_timeout},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Greatest length of a message in bytes. What is long lies in files that the messages name.
const MAX_MESSAGE: usize = 16 * 1024;

/// Most descriptors beside a message.
const MAX_DESCRIPTORS: usize = 4;

/// What the agent asks of a helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make a container; standard input, output and error come along, where there is no terminal.
    Create {
        /// Its name in the guest.
        name: String,
        /// Folder with its `config.json`.
        bundle: PathBuf,
        /// Folder for libcontainer's own files.
        state: PathBuf,
        /// File with its [`crate::ProcessPlan`].
        plan: PathBuf,
    },
    /// Make a process in a container; the container's init (a pidfd) comes along, then the streams.
    Enter {
        /// File with its [`crate::ProcessPlan`].
        plan: PathBuf,
        /// Folder of the container's cgroup.
        cgroup: PathBuf,
        /// Whether it gets a terminal of its own.
        terminal: bool,
    },
}

/// What a helper answers: the process is there and waits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The process; beside it the reading end of its status pipe and, where it has one, its terminal.
    Made {
        /// Its number as the agent sees it.
        pid: i32,
    },
    /// Not made.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The agent has adopted the process: the helper can go.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Adopted;

/// One end of the channel.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both ends; each `receive` waits at most `limit`.
    pub(crate) fn pair(limit: Duration) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&ours, Timeout::Recv, Some(limit))?;
        set_socket_timeout(&ours, Timeout::Send, Some(limit))?;
        Ok((Self(ours), theirs))
    }

    /// An end that was handed over.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends one message with descriptors beside it.
    pub(crate) fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives one message.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<(T, Vec<OwnedFd>)> {
        let (message, descriptors) = self.receive_bytes()?;
        Ok((serde_json::from_slice(&message)?, descriptors))
    }

    /// Receives the descriptors beside a message that says nothing.
    pub(crate) fn receive_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.receive_bytes().map(|(_, descriptors)| descriptors)
    }

    fn receive_bytes(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut bytes = vec![0u8; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let length = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags)?.bytes;
        let descriptors: Vec<OwnedFd> = beside
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side is gone"));
        }
        bytes.truncate(length);
        Ok((bytes, descriptors))
    }
}

/// Descriptors to send, from owned ones.
pub(crate) fn borrow(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(|fd| fd.as_fd()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn messages_and_descriptors_arrive_together() {
        let (ours, theirs) = Channel::pair(LIMIT).unwrap();
        let theirs = Channel::from_fd(theirs);
        let (reader, mut writer) = io::pipe().unwrap();
        ours.send(&Answer::Made { pid: 7 }, &[reader.as_fd()]).unwrap();
        drop(reader);
        let (answer, mut descriptors) = theirs.receive::<Answer>().unwrap();
        assert!(matches!(answer, Answer::Made { pid: 7 }));
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(descriptors.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn a_gone_peer_and_a_long_message_are_errors() {
        let (ours, theirs) = Channel::pair(LIMIT).unwrap();
        let long = Answer::Failed { reason: "x".repeat(MAX_MESSAGE) };
        assert_eq!(ours.send(&long, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(theirs);
        assert!(ours.receive::<Answer>().is_err());
    }

    #[test]
    fn a_silent_peer_is_given_up() {
        let (ours, _theirs) = Channel::pair(Duration::from_millis(20)).unwrap();
        assert_eq!(ours.receive::<Answer>().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
