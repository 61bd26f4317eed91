//! The network rules of a policy, enforced in the guest: a table of nftables that drops what the policy does not allow.
//!
//! Trusts the guest's kernel. Promises that after [`enforce`] the IP packets of the calling thread's network namespace are
//! those that [`Rules`] allow, that all of it is in force at once or nothing is, that nothing of other tables is touched, and
//! that nobody else can change or remove the table for as long as [`InForce`] lives. Refuses more rules than
//! [`MAX_LISTENERS`] and [`MAX_DESTINATIONS`], rules that mean nothing, and a table of that name that is there already.
//!
//! What passes, in the table `caveau` (family inet, so IPv4 and IPv6 alike), all else being dropped without an answer:
//! ```text
//!   input    loopback; replies; ICMP errors about what passes; new connections to a port of `Rules::listen`
//!   output   loopback; replies; ICMP errors about what passes; new connections to `Rules::connect`
//!   forward  nothing
//! ```
//! Loopback is the interface by its number, not its name, which can be changed. Containers of a group share it. Names are
//! resolved by connections like any other: see [`Rules::resolver`]. What was connected before the rules goes on only where they
//! allow it, since connections are tracked from then on.
//!
//! IPv6 needs neighbour discovery, so where a rule can concern IPv6, solicitations and advertisements of neighbours pass (no
//! routers' advertisements, no redirects): in from the link (hop limit 255), out to link-local addresses and to networks of
//! `Rules::connect`; with a listener to any address, since a neighbour may ask from any. IPv4's ARP is no IP, and passes.
//!
//! # What else must be forbidden
//! The rules see each IP packet that the kernel sends for a socket, raw sockets with headers of their own included. They do
//! **not** see what is written to a packet socket: that goes to the interface past netfilter, and frames that come in are given
//! to packet sockets before it. An egress hook (`CONFIG_NETFILTER_EGRESS`, `CONFIG_NF_TABLES_NETDEV`; the guest's kernel has
//! neither) would see the first, nothing would see the second. So where rules are in force, no container may have:
//! - a packet socket. Without `CAP_NET_RAW` there is none. A container that keeps the capability must be denied two forms of
//!   `socket(2)` by seccomp: family `AF_PACKET` (17), and family `AF_INET` (2) with type `SOCK_PACKET` (10 in the lowest four
//!   bits of the type), which the kernel takes for the same. A filter on the family alone is not enough.
//! - `CAP_NET_ADMIN`. It cannot change this table, but can go round it: move the interface to another namespace, rewrite
//!   addresses in a table that packets pass later, take a connection's tracking away.
//! - `CAP_SYS_ADMIN` or `CAP_BPF` (programs on sockets and control groups, other processes' namespaces), `CAP_SYS_PTRACE` over
//!   the agent (whose socket owns the table), or the guest's devices.
//!
//! Capabilities over a network namespace that a container made itself are harmless: nothing leads from there to the interface.
//!
//! The system calls are those of `NETLINK_NETFILTER`, spoken directly: the guest has no program for it.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "tests stop at the first surprise"
    )
)]

mod error;
mod expression;
mod netlink;
mod ruleset;

use std::os::fd::OwnedFd;

pub use caveau_group::{
    Destination, IpNetwork, Listener, MAX_DESTINATIONS, MAX_LISTENERS, NetworkError, NetworkRules as Rules, Protocol,
};
pub use error::FirewallError;

/// Rules in force. While it lives, the kernel lets nobody else change or remove them. Dropped, the rules stay in force, but
/// whoever has `CAP_NET_ADMIN` over the namespace may take them over: keep it for as long as a container runs.
#[derive(Debug)]
#[must_use = "the table has no owner once this is dropped"]
pub struct InForce {
    /// The table's owner, to the kernel. Closed in programs that this one executes.
    _socket: OwnedFd,
}

/// Puts the rules in force for the network namespace of the calling thread, in one transaction, replacing nothing of others.
///
/// # Errors
/// Where the rules are too many or mean nothing, where there is a table `caveau` already, and where the kernel does not take
/// all of it (it takes part of it never): the caller must not go on then. Needs `CAP_NET_ADMIN`, and Linux 6.9 for a table
/// with an owner that outlives it.
pub fn enforce(rules: &Rules) -> Result<InForce, FirewallError> {
    check(rules)?;
    netlink::transact(&ruleset::messages(rules)).map(|socket| InForce { _socket: socket })
}

/// Rules that are few enough, and each of which allows something.
fn check(rules: &Rules) -> Result<(), FirewallError> {
    if rules.listen.len() > MAX_LISTENERS {
        return Err(FirewallError::TooManyListeners { found: rules.listen.len() });
    }
    if rules.connect.len() > MAX_DESTINATIONS {
        return Err(FirewallError::TooManyDestinations { found: rules.connect.len() });
    }
    if let Some(listener) = rules.listen.iter().find(|listener| listener.port == 0) {
        return Err(FirewallError::NoPort { protocol: listener.protocol });
    }
    for destination in &rules.connect {
        if let Some(ports) = destination.ports.as_ref().filter(|ports| ports.is_empty()) {
            let (network, first, last) = (destination.network, *ports.start(), *ports.end());
            return Err(FirewallError::NoPorts { network, first, last });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    fn destination(text: &str, ports: Option<RangeInclusive<u16>>) -> Destination {
        Destination { network: text.parse().unwrap(), protocol: None, ports }
    }

    #[test]
    fn rules_are_bounded() {
        let listener = Listener { protocol: Protocol::Tcp, port: 80 };
        let mut rules =
            Rules { listen: vec![listener; MAX_LISTENERS], connect: vec![destination("::/0", None); MAX_DESTINATIONS] };
        check(&rules).unwrap();
        rules.listen.push(listener);
        assert!(matches!(enforce(&rules), Err(FirewallError::TooManyListeners { found: 257 })));
        rules.listen.clear();
        rules.connect.push(destination("::/0", None));
        assert!(matches!(enforce(&rules), Err(FirewallError::TooManyDestinations { found: 257 })));
    }

    #[test]
    fn rules_that_allow_nothing_are_refused() {
        let rules = Rules { listen: vec![Listener { protocol: Protocol::Udp, port: 0 }], connect: Vec::new() };
        assert!(enforce(&rules).unwrap_err().to_string().starts_with("a udp listener has port 0"));
        let ports = RangeInclusive::new(81, 80);
        let rules = Rules { listen: Vec::new(), connect: vec![destination("10.0.0.0/8", Some(ports))] };
        let error = enforce(&rules).unwrap_err();
        assert_eq!(error.to_string(), "destination 10.0.0.0/8 has no ports from 81 to 80: the first is above the last");
    }
}
