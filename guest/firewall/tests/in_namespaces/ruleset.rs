//! What the kernel understood: its own listing of the rules, against one written by hand from nf_tables' manual.

use caveau_firewall::{Protocol::*, Rules, enforce};

use crate::{listing, namespace::isolated, rules};

const ACCEPT: &str = "[ immediate reg 0 accept ]";
const DROP: &str = "[ immediate reg 0 drop ]";
const LOOPBACK_IN: &str = "[ meta load 4 => reg 1 ] [ cmp eq reg 1 0x01000000 ]";
const LOOPBACK_OUT: &str = "[ meta load 5 => reg 1 ] [ cmp eq reg 1 0x01000000 ]";
const ESTABLISHED: &str = "[ ct load 0 => reg 1 ] [ cmp eq reg 1 0x02000000 ]";
const RELATED: &str = "[ ct load 0 => reg 1 ] [ cmp eq reg 1 0x04000000 ]";
const NOT_NEW: &str = "[ ct load 0 => reg 1 ] [ cmp neq reg 1 0x08000000 ]";
const IPV4: &str = "[ meta load 15 => reg 1 ] [ cmp eq reg 1 0x02 ]";
const IPV6: &str = "[ meta load 15 => reg 1 ] [ cmp eq reg 1 0x0a ]";
const ICMP: &str = "[ meta load 16 => reg 1 ] [ cmp eq reg 1 0x01 ]";
const ICMPV6: &str = "[ meta load 16 => reg 1 ] [ cmp eq reg 1 0x3a ]";
const TCP: &str = "[ meta load 16 => reg 1 ] [ cmp eq reg 1 0x06 ]";
const UDP: &str = "[ meta load 16 => reg 1 ] [ cmp eq reg 1 0x11 ]";
const PORT: &str = "[ payload load 2b @ transport header + 2 => reg 1 ]";
const TO_V4: &str = "[ payload load 4b @ network header + 16 => reg 1 ]";
const TO_V6: &str = "[ payload load 16b @ network header + 24 => reg 1 ]";
const FROM_LINK: &str = "[ payload load 1b @ network header + 7 => reg 1 ] [ cmp eq reg 1 0xff ]";
const NEIGHBOURS: &str =
    "[ payload load 1b @ transport header + 0 => reg 1 ] [ cmp gte reg 1 0x87 ] [ cmp lte reg 1 0x88 ]";

/// `reg 1 & ones` with the zeros that nf_tables wants beside.
fn masked(ones: &str) -> String {
    format!("[ bitwise reg 1 = ( reg 1 & 0x{ones} ) ^ 0x{} ]", "0".repeat(ones.len()))
}

fn equal(hex: &str) -> String {
    format!("[ cmp eq reg 1 0x{hex} ]")
}

fn rule(chain: &str, parts: &[&str]) -> String {
    format!("caveau {chain}: {}", parts.join(" "))
}

/// What each set of rules begins with; between both halves comes neighbour discovery, if any.
fn beginning(chain: &str) -> Vec<String> {
    let loopback = if chain == "input" { LOOPBACK_IN } else { LOOPBACK_OUT };
    vec![
        rule(chain, &[loopback, ACCEPT]),
        rule(chain, &[ESTABLISHED, ACCEPT]),
        rule(chain, &[RELATED, ICMP, ACCEPT]),
        rule(chain, &[RELATED, ICMPV6, ACCEPT]),
    ]
}

#[test]
fn nothing_is_allowed_by_no_rules() {
    isolated("ruleset::nothing_is_allowed_by_no_rules", |_| {
        let _table = enforce(&Rules::default()).unwrap();
        let chains = ["input", "forward", "output"].into_iter().zip(1..);
        // NF_DROP is 0.
        let expected: Vec<String> =
            chains.map(|(name, hook)| format!("caveau {name}: type filter hook {hook} priority 0 policy 0")).collect();
        assert_eq!(listing::chains(), expected);
        let mut expected = beginning("input");
        expected.push(rule("input", &[NOT_NEW, DROP]));
        expected.extend(beginning("output"));
        expected.push(rule("output", &[NOT_NEW, DROP]));
        assert_eq!(listing::rules(), expected);
    });
}

#[test]
fn each_kind_of_rule_is_understood() {
    isolated("ruleset::each_kind_of_rule_is_understood", |_| {
        let rules = rules(
            &[(Tcp, 8080), (Udp, 53)],
            &[
                ("10.0.2.3/32", Some(Udp), Some(53..=53)),
                ("10.0.0.0/8", None, None),
                ("0.0.0.0/0", None, Some(443..=444)),
                ("fd00::/63", Some(Tcp), None),
                ("::/0", Some(Udp), Some(0..=65535)),
            ],
        );
        let _table = enforce(&rules).unwrap();
        let mut expected = beginning("input");
        expected.push(rule("input", &[IPV6, ICMPV6, FROM_LINK, NEIGHBOURS, ACCEPT]));
        expected.push(rule("input", &[NOT_NEW, DROP]));
        expected.push(rule("input", &[TCP, PORT, &equal("1f90"), ACCEPT]));
        expected.push(rule("input", &[UDP, PORT, &equal("0035"), ACCEPT]));
        expected.extend(beginning("output"));
        expected.push(rule("output", &[IPV6, ICMPV6, FROM_LINK, NEIGHBOURS, IPV6, ACCEPT]));
        expected.push(rule("output", &[NOT_NEW, DROP]));
        expected.push(rule("output", &[IPV4, TO_V4, &equal("0a000203"), UDP, PORT, &equal("0035"), ACCEPT]));
        expected.push(rule("output", &[IPV4, TO_V4, &masked("ff000000"), &equal("0a000000"), ACCEPT]));
        let https = "[ cmp gte reg 1 0x01bb ] [ cmp lte reg 1 0x01bc ]";
        expected.push(rule("output", &[IPV4, TCP, PORT, https, ACCEPT]));
        expected.push(rule("output", &[IPV4, UDP, PORT, https, ACCEPT]));
        let (ones, network) = ("fffffffffffffffe0000000000000000", "fd000000000000000000000000000000");
        expected.push(rule("output", &[IPV6, TO_V6, &masked(ones), &equal(network), TCP, ACCEPT]));
        let all = "[ cmp gte reg 1 0x0000 ] [ cmp lte reg 1 0xffff ]";
        expected.push(rule("output", &[IPV6, UDP, PORT, all, ACCEPT]));
        assert_eq!(listing::rules(), expected);
    });
}

#[test]
fn without_listeners_neighbours_are_those_of_the_link_and_of_the_networks() {
    isolated("ruleset::without_listeners_neighbours_are_those_of_the_link_and_of_the_networks", |_| {
        let _table = enforce(&rules(&[], &[("fd09::2/128", Some(Tcp), Some(1..=1))])).unwrap();
        let to = |parts: &[&str]| {
            rule("output", &[&[IPV6, ICMPV6, FROM_LINK, NEIGHBOURS, IPV6, TO_V6], parts, &[ACCEPT]].concat())
        };
        let zeros = |head: &str| format!("{head}{}", "0".repeat(32 - head.len()));
        let expected = [
            to(&[&equal("fd090000000000000000000000000002")]),
            to(&[&masked(&zeros("ffc0")), &equal(&zeros("fe80"))]),
            to(&[&masked(&zeros("ffff")), &equal(&zeros("ff02"))]),
        ];
        let listed = listing::rules();
        let found: Vec<&String> =
            listed.iter().filter(|rule| rule.contains("output") && rule.contains("0x87")).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>());
    });
}

#[test]
fn as_many_rules_as_there_may_be_are_taken() {
    isolated("ruleset::as_many_rules_as_there_may_be_are_taken", |_| {
        if std::fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().last() != Some("4294967295") {
            // As much as fits without the buffers that only root of the first user namespace gets.
            println!("skipped: only root can try as many rules as there may be");
            return;
        }
        let listen: Vec<_> = (1..=256).map(|port| (Tcp, port)).collect();
        let networks: Vec<String> = (0..256).map(|number| format!("fd00:{number:x}::/63")).collect();
        let connect: Vec<_> = networks.iter().map(|network| (network.as_str(), None, Some(1..=2))).collect();
        let _table = enforce(&rules(&listen, &connect)).unwrap();
        assert_eq!(listing::rules().len(), 256 + 512 + 2 + 10);
    });
}
