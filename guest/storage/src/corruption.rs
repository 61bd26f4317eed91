//! News of layers that changed after they were mounted: the kernel's uevents from dm-verity.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

use crate::Result;
use crate::error::IoContext as _;

/// The multicast group on which the kernel itself speaks.
const KERNEL_GROUP: u32 = 1;

/// A block that did not lead to its layer's root hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The kernel's name of the layer's device; see [`crate::Layer::device_name`].
    pub device: String,
    /// Which block, counted from the start of data or tree.
    pub block: u64,
    /// Whether it is one of the tree's.
    pub in_tree: bool,
}

/// A watch for corrupted layers.
#[derive(Debug)]
pub struct CorruptionWatch {
    socket: OwnedFd,
}

impl AsFd for CorruptionWatch {
    /// Readable when there is news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl CorruptionWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// Where the kernel gives no uevent socket.
    pub fn start() -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT));
        let socket = socket.context("open", "the uevent socket")?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP)).context("bind", "the uevent socket")?;
        Ok(Self { socket })
    }

    /// The next corruption, if there is one within `timeout`.
    ///
    /// # Errors
    /// Where the socket fails. Uevents that came too fast to be kept are lost; [`crate::Storage::is_corrupted`] knows in any case.
    pub fn next(&self, timeout: Duration) -> Result<Option<Corruption>> {
        let mut buffer = [0; 8192];
        loop {
            match recvfrom(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _, sender)) => {
                    let from_kernel = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
                    let message = buffer.get(..length).unwrap_or_default();
                    if from_kernel.is_some_and(|sender| sender.pid() == 0)
                        && let Some(corruption) = parse(message)
                    {
                        return Ok(Some(corruption));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    if !self.wait(timeout)? {
                        return Ok(None);
                    }
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {}
                Err(error) => return Err(error).context("read", "the uevent socket"),
            }
        }
    }

    fn wait(&self, timeout: Duration) -> Result<bool> {
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut sockets, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error).context("poll", "the uevent socket"),
        }
    }
}

/// Reads `action@path`, NUL, then `KEY=value` each with a NUL.
fn parse(message: &[u8]) -> Option<Corruption> {
    let text = std::str::from_utf8(message).ok()?;
    let value = |key: &str| text.split('\0').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    // DM_VERITY_ERR_BLOCK_NR=type,block; type 0 is data, 1 metadata (kernel: dm-verity-target.c).
    let (kind, block) = value("DM_VERITY_ERR_BLOCK_NR")?.split_once(',')?;
    let device = value("DEVNAME")?;
    let device = device.rsplit('/').next().unwrap_or(device).to_owned();
    Some(Corruption { device, block: block.parse().ok()?, in_tree: kind != "0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verity_uevents_and_others() {
        let message = b"change@/devices/virtual/block/dm-3\0ACTION=change\0DEVNAME=dm-3\0DM_VERITY_ERR_BLOCK_NR=0,17\0";
        let expected = Corruption { device: "dm-3".to_owned(), block: 17, in_tree: false };
        assert_eq!(parse(message), Some(expected));
        assert_eq!(parse(b"add@/devices/x\0ACTION=add\0DEVNAME=dm-3\0"), None);
        assert_eq!(parse(b"change@x\0DEVNAME=dm-3\0DM_VERITY_ERR_BLOCK_NR=0;17\0"), None);
        assert_eq!(parse(b"\xff\xfe"), None);
    }
}
