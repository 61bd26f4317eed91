//! Rules as the messages that make the table, its chains, and what is in them.

use std::net::IpAddr;

use crate::{
    Destination, IpNetwork, Listener, Protocol, Rules,
    expression::{
        Header, Is, Meta, Verdict, compare, load_meta, load_payload, load_state, mask, nest, number, text, verdict,
    },
    netlink::Message,
};

/// Name of the table.
const TABLE: &str = "caveau";

/// Messages, flags and attributes (uapi/linux/netfilter/nf_tables.h). `PERSIST` is of Linux 6.9: closing the owner's socket
/// leaves the table in force.
const NFT_MSG_NEWTABLE: u8 = 0;
const NFT_MSG_NEWCHAIN: u8 = 3;
const NFT_MSG_NEWRULE: u8 = 6;
const NFT_TABLE_F_OWNER_PERSIST: u32 = 0x2 | 0x4;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;

/// To make what is not there (uapi/linux/netlink.h): `NLM_F_CREATE` with `NLM_F_EXCL`, or with `NLM_F_APPEND`.
const MAKE: u16 = 0x400 | 0x200;
const APPEND: u16 = 0x400 | 0x800;

/// Priority "filter" (`NF_IP_PRI_FILTER`): after connections are tracked and destinations rewritten.
const PRIORITY: u32 = 0;

/// `LOOPBACK_IFINDEX` (include/net/flow.h): the number that the loopback interface has in each namespace.
const LOOPBACK: u32 = 1;

/// States of connections (`NF_CT_STATE_BIT` of uapi/linux/netfilter/nf_conntrack_common.h); exactly one is set.
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const NEW: u32 = 1 << 3;

/// uapi/linux/netfilter.h and in.h.
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;

/// Neighbour solicitation and advertisement (RFC 4861, 4.3 and 4.4).
const NEIGHBOUR_TYPES: [u8; 2] = [135, 136];

/// Chains, by their hooks (enum nf_inet_hooks).
#[derive(Clone, Copy)]
enum Chain {
    Input = 1,
    Forward = 2,
    Output = 3,
}

impl Chain {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

/// A rule as far as it is written: what a packet must be.
struct Match(Vec<u8>);

impl Match {
    fn any() -> Self {
        Self(Vec::new())
    }

    fn then(mut self, expression: &[u8]) -> Self {
        self.0.extend_from_slice(expression);
        self
    }

    fn meta(self, key: Meta, value: &[u8]) -> Self {
        self.then(&load_meta(key)).then(&compare(Is::Equal, value))
    }

    fn state(self, is: Is, state: u32) -> Self {
        self.then(&load_state()).then(&compare(is, &state.to_ne_bytes()))
    }

    fn protocol(self, protocol: u8) -> Self {
        self.meta(Meta::Protocol, &[protocol])
    }

    /// Loads a destination port, which TCP and UDP have at the same place, and compares it with both ends.
    fn ports(self, first: u16, last: u16) -> Self {
        let port = self.then(&load_payload(Header::Transport, 2, 2));
        if first == last {
            return port.then(&compare(Is::Equal, &first.to_be_bytes()));
        }
        port.then(&compare(Is::AtLeast, &first.to_be_bytes())).then(&compare(Is::AtMost, &last.to_be_bytes()))
    }

    /// Destination addresses: at byte 16 of IPv4's header, 24 of IPv6's.
    fn to(self, network: IpNetwork) -> Self {
        let (family, offset, length) =
            if network.address().is_ipv4() { (NFPROTO_IPV4, 16, 4) } else { (NFPROTO_IPV6, 24, 16) };
        let of_family = self.meta(Meta::Family, &[family]);
        if network.prefix() == 0 {
            return of_family;
        }
        let ones = octets(network.mask());
        let loaded = of_family.then(&load_payload(Header::Network, offset, length));
        let loaded = if ones.iter().all(|byte| *byte == 0xff) { loaded } else { loaded.then(&mask(&ones)) };
        loaded.then(&compare(Is::Equal, &octets(network.address())))
    }

    /// Neighbour discovery from or to this link: a hop limit of 255 has passed no router.
    fn neighbours(self) -> Self {
        let [first, last] = NEIGHBOUR_TYPES;
        self.meta(Meta::Family, &[NFPROTO_IPV6])
            .protocol(IPPROTO_ICMPV6)
            .then(&load_payload(Header::Network, 7, 1))
            .then(&compare(Is::Equal, &[255]))
            .then(&load_payload(Header::Transport, 0, 1))
            .then(&compare(Is::AtLeast, &[first]))
            .then(&compare(Is::AtMost, &[last]))
    }

    /// The rule, at the end of its chain.
    fn message(self, chain: Chain, end: Verdict, name: String) -> Message {
        let expressions = self.then(&verdict(end)).0;
        let body = [
            text(NFTA_RULE_TABLE, TABLE),
            text(NFTA_RULE_CHAIN, chain.name()),
            nest(NFTA_RULE_EXPRESSIONS, &[expressions]),
        ];
        Message::new(NFT_MSG_NEWRULE, APPEND, &body.concat(), name)
    }

    fn accept(self, chain: Chain, name: impl Into<String>) -> Message {
        self.message(chain, Verdict::Accept, name.into())
    }
}

/// Everything that puts the rules in force, in the order in which packets meet it.
pub(crate) fn messages(rules: &Rules) -> Vec<Message> {
    let mut messages = vec![table()];
    messages.extend([Chain::Input, Chain::Forward, Chain::Output].map(chain));
    let loopback = LOOPBACK.to_ne_bytes();
    messages.push(Match::any().meta(Meta::InputInterface, &loopback).accept(Chain::Input, "loopback's input"));
    messages.push(Match::any().meta(Meta::OutputInterface, &loopback).accept(Chain::Output, "loopback's output"));
    for chain in [Chain::Input, Chain::Output] {
        messages.extend(tracked(chain));
    }
    messages.extend(neighbours(rules));
    for chain in [Chain::Input, Chain::Output] {
        messages.push(only_new(chain));
    }
    messages.extend(rules.listen.iter().map(listener));
    messages.extend(rules.connect.iter().flat_map(destination));
    messages
}

/// The table, which belongs to the socket that makes it.
fn table() -> Message {
    let body = [text(NFTA_TABLE_NAME, TABLE), number(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER_PERSIST)];
    Message::new(NFT_MSG_NEWTABLE, MAKE, &body.concat(), format!("table {TABLE}"))
}

/// A chain that drops what none of its rules accepts.
fn chain(chain: Chain) -> Message {
    let hook = [number(NFTA_HOOK_HOOKNUM, chain as u32), number(NFTA_HOOK_PRIORITY, PRIORITY)];
    let body = [
        text(NFTA_CHAIN_TABLE, TABLE),
        text(NFTA_CHAIN_NAME, chain.name()),
        nest(NFTA_CHAIN_HOOK, &hook),
        number(NFTA_CHAIN_POLICY, Verdict::Drop as u32),
        text(NFTA_CHAIN_TYPE, "filter"),
    ];
    Message::new(NFT_MSG_NEWCHAIN, MAKE, &body.concat(), format!("chain {}", chain.name()))
}

/// What belongs to a connection that was let through. Of what is merely related to one, only ICMP's errors: a helper's second
/// connection has to be allowed like the first.
fn tracked(chain: Chain) -> [Message; 3] {
    let name = |what: &str| format!("{}'s {what}", chain.name());
    let related = |protocol| Match::any().state(Is::Equal, RELATED).protocol(protocol);
    [
        Match::any().state(Is::Equal, ESTABLISHED).accept(chain, name("connections")),
        related(IPPROTO_ICMP).accept(chain, name("ICMP errors")),
        related(IPPROTO_ICMPV6).accept(chain, name("ICMPv6 errors")),
    ]
}

/// Drops what does not begin a connection: what no connection tracking understands or saw, and what is related to others.
fn only_new(chain: Chain) -> Message {
    let name = format!("{}'s limit to new connections", chain.name());
    Match::any().state(Is::NotEqual, NEW).message(chain, Verdict::Drop, name)
}

/// Neighbour discovery, which is not tracked, where a rule can concern IPv6. Solicitations go to a group of the link, or to a
/// neighbour that is known; advertisements to who asked.
fn neighbours(rules: &Rules) -> Vec<Message> {
    let networks = rules.connect.iter().map(|destination| destination.network);
    let mut to: Vec<IpNetwork> = networks.filter(|network| network.address().is_ipv6()).collect();
    if !rules.listen.is_empty() {
        to = vec![IpNetwork::ALL_V6];
    } else if !to.is_empty() {
        to.extend([IpNetwork::LINK_LOCAL, IpNetwork::LINK_GROUPS]);
        to.sort_unstable();
        to.dedup();
    } else {
        return Vec::new();
    }
    let mut messages = vec![Match::any().neighbours().accept(Chain::Input, "neighbour discovery")];
    messages.extend(to.into_iter().map(|to| {
        let name = format!("neighbour discovery to {to}");
        Match::any().neighbours().to(to).accept(Chain::Output, name)
    }));
    messages
}

fn listener(listener: &Listener) -> Message {
    let of = Match::any().protocol(number_of(listener.protocol)).ports(listener.port, listener.port);
    of.accept(Chain::Input, format!("listener {listener}"))
}

/// One rule, or two where ports stand without a protocol.
fn destination(destination: &Destination) -> Vec<Message> {
    let to = || Match::any().to(destination.network);
    let protocols = match (destination.protocol, &destination.ports) {
        (Some(protocol), _) => vec![protocol],
        (None, Some(_)) => vec![Protocol::Tcp, Protocol::Udp],
        (None, None) => return vec![to().accept(Chain::Output, format!("destination {destination}"))],
    };
    let rule = |protocol: Protocol| {
        let of = to().protocol(number_of(protocol));
        let of = match &destination.ports {
            Some(ports) => of.ports(*ports.start(), *ports.end()),
            None => of,
        };
        of.accept(Chain::Output, format!("destination {destination} by {protocol}"))
    };
    protocols.into_iter().map(rule).collect()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn number_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    }
}
