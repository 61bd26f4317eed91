//! Packets with descriptors over a SEQPACKET socket: a request and what it is about arrive in one piece.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Bytes of the largest packet.
pub(crate) const MAX_PACKET: usize = 64 * 1024;

/// Most descriptors that come with a packet.
pub(crate) const MAX_DESCRIPTORS: usize = 32;

/// Sends one packet.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.len() > MAX_PACKET || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too large for one packet"));
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet; `None` where the other side is gone.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet is larger than any that is spoken here"));
    }
    bytes.truncate(received.bytes);
    Ok((received.bytes > 0).then_some((bytes, descriptors)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;
    use crate::client::control_pair;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (one, other) = control_pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send(&one, b"request", &[reader.as_fd(), writer.as_fd()]).unwrap();
        drop((one, reader, writer));
        let (bytes, descriptors) = receive(&other).unwrap().unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"request"[..], 2));
        let [reader, writer] = <[OwnedFd; 2]>::try_from(descriptors).unwrap();
        drop(writer);
        assert_eq!(File::from(reader).read(&mut [0; 1]).unwrap(), 0);
        assert!(receive(&other).unwrap().is_none(), "the other side is gone");
    }

    #[test]
    fn too_much_is_refused_on_both_sides() {
        let (one, other) = control_pair().unwrap();
        assert!(send(&one, &vec![0; MAX_PACKET + 1], &[]).is_err());
        assert!(send(&one, b"x", &[one.as_fd(); MAX_DESCRIPTORS + 1]).is_err());
        rustix::net::send(&one, &vec![0; MAX_PACKET + 1], SendFlags::empty()).unwrap();
        assert_eq!(receive(&other).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
