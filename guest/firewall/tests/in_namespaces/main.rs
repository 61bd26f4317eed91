//! Rules as the kernel enforces them, in network namespaces that the tests make.

mod listing;
mod namespace;

use namespace::isolated;

use caveau_firewall::{Destination, FirewallError, Listener, Protocol, Rules, enforce};
use namespace::{Echo, GUEST, LISTED, LONG, OTHER, Peer, SHORT};
use std::net::SocketAddr;

fn dest(t: &str) -> Destination {
    Destination { network: t.parse().unwrap(), protocol: None, ports: None }
}

#[test]
fn smoke() {
    isolated("smoke", |peer| {
        let _r = enforce(&Rules {
            listen: vec![Listener { protocol: Protocol::Tcp, port: 80 }],
            connect: vec![dest("10.9.0.2/32"), dest("fd09::2/127")],
        })
        .unwrap();
        for l in listing::chains().iter().chain(&listing::rules()) {
            println!("{l}");
        }
        panic!("x");
    });
}
