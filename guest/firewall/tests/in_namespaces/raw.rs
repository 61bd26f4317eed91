//! Packets that a program writes itself: what raw sockets cannot do, and what packet sockets can.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
};

use caveau_firewall::{Protocol::*, Rules, enforce};
use rustix::{
    io::Errno,
    net::{AddressFamily, RawProtocol, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with, sockopt},
};

use crate::{
    namespace::{GUEST, HARDWARE, LISTED, OTHER, at, datagrams, isolated},
    rules,
};

const DESTINATIONS: [&str; 2] = ["10.9.0.2/32", "fd09::2/128"];

fn raw(family: AddressFamily, protocol: rustix::net::Protocol) -> OwnedFd {
    socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}

/// A UDP datagram without a checksum, in an IPv4 packet (RFC 791, 768).
fn packet(to: Ipv4Addr, from_port: u16, to_port: u16) -> Vec<u8> {
    let udp = [&from_port.to_be_bytes()[..], &to_port.to_be_bytes(), &[0, 13, 0, 0], b"hello"].concat();
    let own: Ipv4Addr = GUEST[0].parse().unwrap();
    let mut header = [&[0x45, 0, 0, 33, 0, 1, 0, 0, 64, 17, 0, 0][..], &own.octets(), &to.octets()].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, udp].concat()
}

/// ICMP's "port unreachable" about a packet (RFC 792).
fn unreachable(about: &[u8]) -> Vec<u8> {
    let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], about].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// A neighbour advertisement of the guest's address (RFC 4861, 4.4).
fn advertisement(kind: u8) -> Vec<u8> {
    let own: Ipv6Addr = GUEST[1].parse().unwrap();
    [&[kind, 0, 0, 0, 0x60, 0, 0, 0][..], &own.octets()].concat()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// Enforces what lists one of the peer's addresses, by UDP to port 80.
fn enforced() -> caveau_firewall::InForce {
    enforce(&rules(&[], &DESTINATIONS.map(|network| (network, Some(Udp), Some(80..=80))))).unwrap()
}

#[test]
fn raw_sockets_are_held_to_the_rules() {
    isolated("raw::raw_sockets_are_held_to_the_rules", |peer| {
        let receivers = [(LISTED[0], 80), (LISTED[0], 81), (OTHER[0], 80)]
            .map(|(address, port)| (address, port, peer.datagrams(at(address, port))));
        let socket = raw(AddressFamily::INET, ipproto::RAW);
        let send = |to: &str, port| {
            let sent = sendto(&socket, &packet(v4(to), 9, port), SendFlags::empty(), &at(to, 0));
            sent.map(drop)
        };
        // All of it arrives where there are no rules.
        for (address, port, receiver) in &receivers {
            send(address, *port).unwrap();
            assert_eq!(receiver.recv(&mut [0; 9]).unwrap(), 5);
        }
        let _table = enforced();
        for ((address, port, receiver), allowed) in receivers.iter().zip([true, false, false]) {
            assert_eq!(send(address, *port), if allowed { Ok(()) } else { Err(Errno::PERM) }, "{address} {port}");
            assert_eq!(receiver.recv(&mut [0; 9]).is_ok(), allowed, "{address} {port}");
        }
        // To a socket's eyes sent to whom the rules list, by its header to another: what counts is the header.
        let disguised = sendto(&socket, &packet(v4(OTHER[0]), 9, 80), SendFlags::empty(), &at(LISTED[0], 0));
        assert_eq!(disguised, Err(Errno::PERM));
        // Other protocols, and IPv6.
        let echo = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
        let icmp = raw(AddressFamily::INET, ipproto::ICMP);
        assert_eq!(sendto(&icmp, &echo, SendFlags::empty(), &at(LISTED[0], 0)), Err(Errno::PERM));
        let udp = raw(AddressFamily::INET6, ipproto::UDP);
        let datagram = |port: u8| [0, 9, 0, port, 0, 8, 0, 0];
        assert_eq!(sendto(&udp, &datagram(80), SendFlags::empty(), &at(LISTED[1], 0)), Ok(8));
        assert_eq!(sendto(&udp, &datagram(81), SendFlags::empty(), &at(LISTED[1], 0)), Err(Errno::PERM));
        assert_eq!(sendto(&udp, &datagram(80), SendFlags::empty(), &at(OTHER[1], 0)), Err(Errno::PERM));
    });
}

#[test]
fn forged_errors_go_to_nobody_else() {
    isolated("raw::forged_errors_go_to_nobody_else", |_| {
        let _table = enforced();
        let socket = datagrams(at(GUEST[0], 5000));
        socket.send_to(b"x", at(LISTED[0], 80)).unwrap();
        // The peer's answer, which never came, as an error would quote it.
        let mut answer = packet(v4(GUEST[0]), 80, 5000);
        answer[12..16].copy_from_slice(&v4(LISTED[0]).octets());
        answer[10..12].fill(0);
        let sum = checksum(&answer[..20]);
        answer[10..12].copy_from_slice(&sum);
        let icmp = raw(AddressFamily::INET, ipproto::ICMP);
        let send = |to| sendto(&icmp, &unreachable(&answer), SendFlags::empty(), &at(to, 0));
        assert_eq!(send(LISTED[0]), Ok(41));
        assert_eq!(send(OTHER[0]), Err(Errno::PERM));
        // About no connection of the guest's.
        answer[21] = 81;
        assert_eq!(sendto(&icmp, &unreachable(&answer), SendFlags::empty(), &at(LISTED[0], 0)), Err(Errno::PERM));
    });
}

#[test]
fn neighbour_discovery_is_no_way_out() {
    isolated("raw::neighbour_discovery_is_no_way_out", |_| {
        let table = enforced();
        let socket = raw(AddressFamily::INET6, ipproto::ICMPV6);
        let send = |kind, hops, to| {
            sockopt::set_ipv6_unicast_hops(&socket, Some(hops)).unwrap();
            sendto(&socket, &advertisement(kind), SendFlags::empty(), &at(to, 0)).map(drop)
        };
        assert_eq!(send(136, 255, LISTED[1]), Ok(()));
        for (kind, hops, to) in
            [(136, 255, OTHER[1]), (135, 255, OTHER[1]), (136, 64, LISTED[1]), (128, 255, LISTED[1])]
        {
            assert_eq!(send(kind, hops, to), Err(Errno::PERM), "{kind} {hops} {to}");
        }
        drop(table);
    });
}

/// As the crate says of them: the reason why no container may have one where rules are in force.
#[test]
fn packet_sockets_go_past_the_rules() {
    isolated("raw::packet_sockets_go_past_the_rules", |peer| {
        let receiver = peer.datagrams(at(OTHER[0], 80));
        let index = interface("guest");
        let _table = enforce(&Rules::default()).unwrap();
        let arrives = |receiver: &UdpSocket| receiver.recv(&mut [0; 9]).is_ok();
        assert!(!arrives(&receiver));

        // AF_PACKET, where the kernel writes the frame's header.
        let family = AddressFamily::from_raw(libc::AF_PACKET as u16);
        let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        let mut to = [0; 20];
        to[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
        to[2..4].copy_from_slice(&0x0800u16.to_be_bytes());
        to[4..8].copy_from_slice(&index.to_ne_bytes());
        to[11] = 6;
        to[12..18].copy_from_slice(&HARDWARE);
        send_to_bytes(&socket, &packet(v4(OTHER[0]), 9, 80), &to).unwrap();
        assert!(arrives(&receiver));

        // AF_INET with SOCK_PACKET, which does not name the family: struct sockaddr_pkt { u16 family; u8 device[14]; be16 }.
        let kind = SocketType::from_raw(10);
        let protocol = RawProtocol::new(u32::from(0x0800u16.to_be())).unwrap();
        let protocol = Some(rustix::net::Protocol::from_raw(protocol));
        let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, protocol).unwrap();
        let to = [&(libc::AF_PACKET as u16).to_ne_bytes()[..], b"guest", &[0; 9], &0x0800u16.to_be_bytes()].concat();
        let frame = [&HARDWARE[..], &[2, 0, 0, 0, 0, 1, 8, 0], &packet(v4(OTHER[0]), 9, 80)].concat();
        send_to_bytes(&socket, &frame, &to).unwrap();
        assert!(arrives(&receiver));
    });
}

fn interface(name: &str) -> u32 {
    let any = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::netdevice::name_to_index(&any, name).unwrap()
}

/// sendto(2) to an address that no crate has a type for.
fn send_to_bytes(socket: &OwnedFd, packet: &[u8], to: &[u8]) -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix knows no addresses of packet sockets")]
    // SAFETY: both pointers are valid for the lengths beside them, and the kernel only reads.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            to.as_ptr().cast(),
            to.len() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
