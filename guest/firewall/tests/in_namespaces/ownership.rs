//! Whose the table is.

use caveau_firewall::{FirewallError, Protocol::*, Rules, enforce};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use crate::{
    listing,
    namespace::{Echo, GUEST, at, connect, isolated},
    rules,
};

/// Messages of nf_tables, and flags to make what is not there.
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const CREATE: u16 = 0x400;

fn text(kind: u16, text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len() + 5).unwrap();
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), text.as_bytes(), &[0]].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What anybody with CAP_NET_ADMIN may ask of nf_tables, from a socket of its own; the kernel's error number, or 0.
fn ask(kind: u16, flags: u16, attributes: &[u8]) -> i32 {
    let message = |kind: u16, flags: u16, family: [u8; 4], attributes: &[u8]| {
        let length = u32::try_from(20 + attributes.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], &family, attributes].concat()
    };
    let batch = [
        message(16, 1, [0, 0, 0, 10], &[]),
        message(10 << 8 | kind, 5 | flags, [1, 0, 0, 0], attributes),
        message(17, 1, [0, 0, 0, 10], &[]),
    ]
    .concat();
    let netfilter = Some(netlink::NETFILTER);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, netfilter).unwrap();
    send(&socket, &batch, SendFlags::empty()).unwrap();
    let mut answer = [0; 1024];
    recv(&socket, &mut answer[..], RecvFlags::empty()).unwrap();
    -i32::from_ne_bytes(answer[16..20].try_into().unwrap())
}

#[test]
fn nobody_else_changes_the_table() {
    isolated("ownership::nobody_else_changes_the_table", |_| {
        let table = enforce(&rules(&[(Tcp, 80)], &[])).unwrap();
        let before = (listing::chains(), listing::rules());
        let in_chain = [text(1, "caveau"), text(2, "input")].concat();
        for (act, kind, flags, attributes) in [
            ("delete the table", DELTABLE, 0, text(1, "caveau")),
            // NFTA_TABLE_FLAGS: NFT_TABLE_F_DORMANT.
            ("put it to sleep", NEWTABLE, 0, [text(1, "caveau"), vec![8, 0, 2, 0, 0, 0, 0, 1]].concat()),
            ("take it over", NEWTABLE, 0, [text(1, "caveau"), vec![8, 0, 2, 0, 0, 0, 0, 6]].concat()),
            ("delete its rules", DELRULE, 0, in_chain.clone()),
            ("add a rule", NEWRULE, CREATE, in_chain),
            // NFTA_CHAIN_POLICY: NF_ACCEPT.
            ("accept by default", NEWCHAIN, 0, {
                [text(1, "caveau"), text(3, "input"), vec![8, 0, 5, 0, 0, 0, 0, 1]].concat()
            }),
        ] {
            assert_eq!(ask(kind, flags, &attributes), 1, "{act}");
        }
        // "flush ruleset" takes what it may, and leaves the rest.
        assert_eq!(ask(DELTABLE, 0, &[]), 0);
        assert_eq!((listing::chains(), listing::rules()), before);
        drop(table);
    });
}

#[test]
fn rules_outlive_their_owner() {
    isolated("ownership::rules_outlive_their_owner", |peer| {
        let (allowed, forbidden) = (Echo::new(at(GUEST[0], 80)), Echo::new(at(GUEST[0], 81)));
        drop(enforce(&rules(&[(Tcp, 80)], &[])).unwrap());
        peer.run(|| connect(at(GUEST[0], 80))).unwrap();
        assert!(allowed.had_a_client());
        peer.run(|| connect(at(GUEST[0], 81))).unwrap_err();
        assert!(!forbidden.had_a_client());
        // But nobody protects them then.
        assert_eq!(ask(DELTABLE, 0, &text(1, "caveau")), 0);
        peer.run(|| connect(at(GUEST[0], 81))).unwrap();
    });
}

#[test]
fn rules_are_put_in_force_once() {
    isolated("ownership::rules_are_put_in_force_once", |_| {
        let table = enforce(&rules(&[(Tcp, 80)], &[])).unwrap();
        let before = listing::rules();
        // Its own owner's other socket is anybody.
        let error = enforce(&Rules::default()).unwrap_err();
        assert!(matches!(&error, FirewallError::Refused { message, .. } if message == "table caveau"), "{error}");
        drop(table);
        assert!(matches!(enforce(&Rules::default()), Err(FirewallError::AlreadyThere)));
        assert_eq!(listing::rules(), before);
    });
}

#[test]
fn tables_of_others_stay() {
    isolated("ownership::tables_of_others_stay", |_| {
        assert_eq!(ask(NEWTABLE, CREATE, &text(1, "other")), 0);
        assert_eq!(ask(NEWCHAIN, CREATE, &[text(1, "other"), text(3, "theirs")].concat()), 0);
        assert_eq!(ask(NEWRULE, CREATE, &[text(1, "other"), text(2, "theirs")].concat()), 0);
        let _table = enforce(&Rules::default()).unwrap();
        // Theirs are there still: their chain is not empty, and cannot be deleted for that.
        assert_eq!(ask(DELRULE, 0, &[text(1, "other"), text(2, "theirs")].concat()), 0);
        assert_eq!(ask(DELTABLE, 0, &text(1, "other")), 0);
        // The kernel's answer where they were not: ENOENT.
        assert_eq!(ask(DELTABLE, 0, &text(1, "other")), 2);
    });
}
