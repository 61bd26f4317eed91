//! One transaction with nf_tables, by nfnetlink: a batch of messages that the kernel takes as a whole.

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recvfrom, send, socket_with,
    sockopt::{
        set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
        set_socket_send_buffer_size_force,
    },
};

use crate::FirewallError;

/// Message types and flags (uapi/linux/netlink.h, netfilter/nfnetlink.h).
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u8 = 10;

/// Families (uapi/linux/netfilter.h): none, and IPv4 with IPv6.
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;

/// Length of struct nlmsghdr, in bytes.
const HEADER: usize = 16;

/// Bytes that a batch may have, and that its answers may: a thousand rules of half a KiB, and for each an answer that the kernel
/// counts as one KiB or two.
const BUFFERS: usize = 4 << 20;

/// A message of a batch, and what errors call it.
#[derive(Debug)]
pub(crate) struct Message {
    kind: u8,
    flags: u16,
    body: Vec<u8>,
    name: String,
}

impl Message {
    pub(crate) fn new(kind: u8, flags: u16, body: &[u8], name: String) -> Self {
        Self { kind, flags, body: body.to_vec(), name }
    }
}

/// Sends the messages as one batch and reads an acknowledgement of each. What they make belongs to the socket.
pub(crate) fn transact(messages: &[Message]) -> Result<OwnedFd, FirewallError> {
    let socket = open().map_err(|source| FirewallError::Socket { act: "open a socket to", source })?;
    send(&socket, &batch(messages), SendFlags::empty())
        .map_err(|error| FirewallError::Socket { act: "send the rules to", source: error.into() })?;
    let mut answers = Answers { messages, acknowledged: 0 };
    while let Some(message) = answers.awaited() {
        // The kernel has worked through the batch when the call that sent it returns: an answer is there, or will never be.
        let received = receive(&socket);
        let answer =
            received.map_err(|source| FirewallError::Unacknowledged { message: message.name.clone(), source })?;
        answers.read(&answer)?;
    }
    Ok(socket)
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    // Root of a user namespace other than the first gets what everybody gets, which is enough for some hundred rules. More
    // are refused then when they are sent, as a whole.
    set_socket_send_buffer_size_force(&socket, BUFFERS).or_else(|_| set_socket_send_buffer_size(&socket, BUFFERS))?;
    set_socket_recv_buffer_size_force(&socket, BUFFERS).or_else(|_| set_socket_recv_buffer_size(&socket, BUFFERS))?;
    Ok(socket)
}

/// One datagram, from the kernel (port 0).
fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 8192];
    let (_, length, sender) = recvfrom(socket, &mut buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC)?;
    let sender = sender.and_then(|sender| netlink::SocketAddrNetlink::try_from(sender).ok());
    if sender.is_none_or(|sender| sender.pid() != 0) || length > buffer.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is not the kernel's"));
    }
    buffer.truncate(length);
    Ok(buffer)
}

/// Begin, the messages, end. The number of each is its place: begin is 0, the first message 1.
fn batch(messages: &[Message]) -> Vec<u8> {
    // Of a batch, the resource says which subsystem it is for.
    let bound = body(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES.into(), &[]);
    let mut bytes = message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, &bound);
    let mut number = 0u32;
    for each in messages {
        number = number.saturating_add(1);
        let kind = u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, each.kind]);
        let flags = NLM_F_REQUEST | NLM_F_ACK | each.flags;
        bytes.extend(message(kind, flags, number, &body(NFPROTO_INET, 0, &each.body)));
    }
    bytes.extend(message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, number.saturating_add(1), &bound));
    bytes
}

/// struct nfgenmsg { u8 family, version; be16 resource } and attributes.
fn body(family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    [&[family, 0][..], &resource.to_be_bytes(), attributes].concat()
}

/// struct nlmsghdr { u32 length; u16 type, flags; u32 sequence, port }; the body is a multiple of four bytes already.
fn message(kind: u16, flags: u16, number: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len().saturating_add(HEADER)).unwrap_or(0);
    let head = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &number.to_ne_bytes()].concat();
    [&head[..], &[0; 4], body].concat()
}

/// The kernel's answers to a batch: it acknowledges the messages in their order, once all are in force. Where the batch as a
/// whole failed, an error about its begin comes first.
struct Answers<'a> {
    messages: &'a [Message],
    acknowledged: usize,
}

impl Answers<'_> {
    /// The message whose acknowledgement comes next; none when all are there.
    fn awaited(&self) -> Option<&Message> {
        self.messages.get(self.acknowledged)
    }

    /// Takes a datagram's answers, one at least.
    fn read(&mut self, datagram: &[u8]) -> Result<(), FirewallError> {
        let mut rest = datagram;
        loop {
            let length = word(rest, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
            let answer = rest.get(..length).filter(|answer| answer.len() >= HEADER);
            self.one(answer.ok_or_else(|| self.bad("half an answer"))?)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes one answer: struct nlmsgerr after the header, an i32 that is 0 or a negative error number.
    fn one(&mut self, answer: &[u8]) -> Result<(), FirewallError> {
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        let (Some(NLMSG_ERROR), Some(number), Some(code)) = (kind, word(answer, 8), word(answer, HEADER)) else {
            return Err(self.bad(format!("a message of type {}", kind.unwrap_or(0))));
        };
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        match code.cast_signed() {
            0 if place == self.acknowledged.saturating_add(1) && self.awaited().is_some() => {
                self.acknowledged = place;
                Ok(())
            }
            0 => Err(self.bad(format!("an acknowledgement of message {number}"))),
            code => Err(self.refused(place, io::Error::from_raw_os_error(code.saturating_neg()))),
        }
    }

    fn refused(&self, place: usize, source: io::Error) -> FirewallError {
        // The first message makes the table, and says that it must not be there.
        if place == 1 && source.kind() == io::ErrorKind::AlreadyExists {
            return FirewallError::AlreadyThere;
        }
        let message = place.checked_sub(1).and_then(|index| self.messages.get(index));
        FirewallError::Refused { message: message.map_or("the rules", |message| &message.name).to_owned(), source }
    }

    fn bad(&self, what: impl Into<String>) -> FirewallError {
        let expected = self.awaited().map_or("nothing", |message| &message.name).to_owned();
        FirewallError::BadAnswer { what: what.into(), expected }
    }
}

/// Four bytes in the machine's order.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn two() -> [Message; 2] {
        [
            Message::new(0, 0x600, &[8, 0, 2, 0, 0, 0, 0, 6], "table".to_owned()),
            Message::new(6, 0, &[], "rule".to_owned()),
        ]
    }

    /// An answer of the kernel: to the message of this number, with this error.
    fn answer(number: u32, code: i32) -> Vec<u8> {
        message(NLMSG_ERROR, 0, number, &[&code.to_ne_bytes()[..], &[0; 16]].concat())
    }

    #[test]
    fn a_batch_has_the_kernels_layout() {
        let bytes = batch(&two());
        let expected: [&[u8]; 8] = [
            &[20, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 10],
            &[28, 0, 0, 0, 0, 10, 5, 6, 1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 6],
            &[20, 0, 0, 0, 6, 10, 5, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0],
            &[20, 0, 0, 0, 17, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 10],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn the_most_rules_fit_the_buffers() {
        use crate::{Destination, IpNetwork, Listener, MAX_DESTINATIONS, MAX_LISTENERS, Protocol, Rules, ruleset};
        let destination = |number: usize| {
            let address = std::net::Ipv6Addr::from_bits((0xfd00 << 112) | (u128::try_from(number).unwrap() << 65));
            let network = IpNetwork::new(address.into(), 63).unwrap();
            Destination { network, protocol: None, ports: Some(1..=2) }
        };
        let rules = Rules {
            listen: vec![Listener { protocol: Protocol::Udp, port: 1 }; MAX_LISTENERS],
            connect: (0..MAX_DESTINATIONS).map(destination).collect(),
        };
        // Without listeners, neighbour discovery is allowed by network.
        for (rules, expected) in [(rules.clone(), 784), (Rules { listen: Vec::new(), ..rules }, 785)] {
            let messages = ruleset::messages(&rules);
            assert_eq!(messages.len(), expected);
            // An answer is counted as two KiB at most.
            assert!(batch(&messages).len() < BUFFERS / 4 && messages.len() * 2048 < BUFFERS);
        }
    }

    #[test]
    fn each_message_is_acknowledged_once_and_in_order() {
        let messages = two();
        let mut answers = Answers { messages: &messages, acknowledged: 0 };
        answers.read(&answer(1, 0)).unwrap();
        assert_eq!(answers.awaited().unwrap().name, "rule");
        answers.read(&answer(2, 0)).unwrap();
        assert!(answers.awaited().is_none());
        // Or several in one datagram.
        let mut answers = Answers { messages: &messages, acknowledged: 0 };
        answers.read(&[answer(1, 0), answer(2, 0)].concat()).unwrap();
        assert!(answers.awaited().is_none());
    }

    #[test]
    fn answers_are_read_strictly() {
        let messages = two();
        let text = |datagram: &[u8]| {
            let mut answers = Answers { messages: &messages, acknowledged: 0 };
            answers.read(datagram).unwrap_err().to_string()
        };
        let instead = "instead of an acknowledgement of table";
        assert_eq!(text(&[]), format!("netfilter answered half an answer {instead}"));
        assert_eq!(text(&answer(1, 0)[..35]), format!("netfilter answered half an answer {instead}"));
        assert_eq!(text(&answer(2, 0)), format!("netfilter answered an acknowledgement of message 2 {instead}"));
        assert_eq!(text(&answer(0, 0)), format!("netfilter answered an acknowledgement of message 0 {instead}"));
        assert_eq!(text(&message(3, 0, 1, &[0; 20])), format!("netfilter answered a message of type 3 {instead}"));
        assert_eq!(text(&message(2, 0, 1, &[])), format!("netfilter answered a message of type 2 {instead}"));
        let again = [answer(1, 0), answer(2, 0), answer(2, 0)].concat();
        assert!(text(&again).ends_with("instead of an acknowledgement of nothing"));
    }

    #[test]
    fn errors_name_their_message() {
        let messages = two();
        let error = |datagram: &[u8]| Answers { messages: &messages, acknowledged: 0 }.read(datagram).unwrap_err();
        assert!(matches!(error(&answer(1, -17)), FirewallError::AlreadyThere));
        for (number, code, name) in [(0, -12, "the rules"), (1, -95, "table"), (2, -17, "rule"), (9, -1, "the rules")] {
            match error(&answer(number, code)) {
                FirewallError::Refused { message, source } => {
                    assert_eq!((message.as_str(), source.raw_os_error()), (name, Some(-code)));
                }
                other => panic!("{other}"),
            }
        }
        // What was acknowledged before is of no use.
        assert!(matches!(error(&[answer(1, 0), answer(2, -2)].concat()), FirewallError::Refused { .. }));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_stop(datagram: Vec<u8>, start in 0usize..3) {
            let messages = two();
            let mut answers = Answers { messages: &messages, acknowledged: start };
            // Random bytes are no acknowledgement: two of these bytes alone are right once in 65,536 times.
            prop_assert!(answers.read(&datagram).is_err());
            prop_assert_eq!(answers.acknowledged, start);
        }

        #[test]
        fn no_damaged_answer_makes_it_stop(at in 0usize..36, byte: u8, number in 0u32..4, code in -200i32..2) {
            let messages = two();
            let mut answers = Answers { messages: &messages, acknowledged: 0 };
            let mut datagram = answer(number, code);
            datagram[at] = byte;
            let good = answers.read(&datagram).is_ok();
            prop_assert_eq!(good, answers.acknowledged == 1);
        }
    }
}
