//! Rules as the kernel enforces them, in network namespaces that the tests make.

mod connections;
mod listing;
mod namespace;
mod ownership;
mod raw;
mod ruleset;

use std::ops::RangeInclusive;

use caveau_firewall::{Destination, Listener, Protocol, Rules};

/// A destination as a test writes it: network, protocol, ports.
type To<'a> = (&'a str, Option<Protocol>, Option<RangeInclusive<u16>>);

/// Rules from texts.
fn rules(listen: &[(Protocol, u16)], connect: &[To<'_>]) -> Rules {
    let listen = listen.iter().map(|&(protocol, port)| Listener { protocol, port }).collect();
    let destination = |(network, protocol, ports): &To<'_>| Destination {
        network: network.parse().unwrap(),
        protocol: *protocol,
        ports: ports.clone(),
    };
    Rules { listen, connect: connect.iter().map(destination).collect() }
}
