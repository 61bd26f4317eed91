//! Addresses of the guest's two interfaces, by rtnetlink(7): a handful of fixed messages.

use std::{io, net::Ipv4Addr};

use caveau_protocol::network;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// The interface that virtio-net makes.
const INTERFACE: &str = "eth0";

/// Message types and flags (uapi/linux/rtnetlink.h, netlink.h).
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLM_F_CREATE_REPLACE: u16 = 0x400 | 0x100;
const NLMSG_ERROR: u16 = 2;

/// Attributes (uapi/linux/if_addr.h, rtnetlink.h).
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;

/// Brings both interfaces up with the fixed addresses and the default route. Without an interface there is no network,
/// which is the host's to decide.
pub(crate) fn set_up() -> io::Result<()> {
    let Some(interface) = index(INTERFACE)? else {
        return exchange(&link_up(index("lo")?.unwrap_or(1)));
    };
    for message in [
        link_up(index("lo")?.unwrap_or(1)),
        link_up(interface),
        address(interface, network::GUEST, network::PREFIX),
        default_route(network::GATEWAY),
    ] {
        exchange(&message)?;
    }
    Ok(())
}

/// An interface's number.
fn index(name: &str) -> io::Result<Option<u32>> {
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    match rustix::net::netdevice::name_to_index(&any, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// struct ifinfomsg { u8 family, pad; u16 type; i32 index; u32 flags, change }
fn link_up(interface: u32) -> Vec<u8> {
    let body = [&[0u8; 4][..], &interface.to_ne_bytes(), &IFF_UP.to_ne_bytes(), &IFF_UP.to_ne_bytes()].concat();
    message(RTM_NEWLINK, 0, &body)
}

/// struct ifaddrmsg { u8 family, prefix, flags, scope; u32 index }
fn address(interface: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let head = [AF_INET, prefix, 0, 0];
    let own = attribute(IFA_LOCAL, &address.octets());
    let same = attribute(IFA_ADDRESS, &address.octets());
    message(RTM_NEWADDR, NLM_F_CREATE_REPLACE, &[&head[..], &interface.to_ne_bytes(), &own, &same].concat())
}

/// struct rtmsg { u8 family, dst_len, src_len, tos, table, protocol, scope, type; u32 flags }: table main (254),
/// protocol boot (3), scope universe (0), type unicast (1).
fn default_route(gateway: Ipv4Addr) -> Vec<u8> {
    let head = [AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    message(RTM_NEWROUTE, NLM_F_CREATE_REPLACE, &[&head[..], &attribute(RTA_GATEWAY, &gateway.octets())].concat())
}

/// struct rtattr { u16 length, type } and four bytes.
fn attribute(kind: u16, value: &[u8; 4]) -> Vec<u8> {
    [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

/// struct nlmsghdr { u32 length; u16 type, flags; u32 sequence, port }
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(0).saturating_add(16);
    let flags = NLM_F_REQUEST_ACK | flags;
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], body].concat()
}

/// Sends one message and reads the kernel's answer to it.
fn exchange(message: &[u8]) -> io::Result<()> {
    // NETLINK_ROUTE is protocol 0, which is what no protocol says.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, message, SendFlags::empty())?;
    let mut answer = [0u8; 4096];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    acknowledged(answer.get(..length).unwrap_or_default())
}

/// struct nlmsgerr: after the header an i32, 0 or a negative error number.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "rtnetlink answered something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_kernels_layout() {
        let message = address(2, Ipv4Addr::new(10, 0, 2, 15), 24);
        assert_eq!(message.len(), 40);
        assert_eq!(message[..4], 40u32.to_ne_bytes());
        assert_eq!(message[16..24], [2, 24, 0, 0, 2, 0, 0, 0]);
        assert_eq!(message[24..32], [8, 0, 2, 0, 10, 0, 2, 15]);
        assert_eq!(default_route(Ipv4Addr::new(10, 0, 2, 2)).len(), 36);
        assert_eq!(link_up(1).len(), 32);
    }

    #[test]
    fn answers_are_read_strictly() {
        let mut answer = [0u8; 36];
        answer[4] = 2;
        acknowledged(&answer).unwrap();
        answer[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer).unwrap_err().raw_os_error(), Some(17));
        assert!(acknowledged(&answer[..19]).is_err());
        assert!(acknowledged(&[]).is_err());
    }

    #[test]
    fn the_kernel_takes_a_message_it_has_nothing_to_do_for() {
        // Loopback is up here already; without the privilege the kernel still parses before it refuses.
        match exchange(&link_up(1)) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.raw_os_error(), Some(1)),
        }
    }
}
