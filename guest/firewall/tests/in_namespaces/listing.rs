//! What is in force, as the kernel says it: rules read back and written as `nft --debug=netlink` writes them.

use std::{collections::BTreeMap, fmt::Write as _};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// Answers of a dump (uapi/linux/netlink.h).
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Attributes of one level, by number. The kernel writes each once.
type Attributes = BTreeMap<u16, Vec<u8>>;

/// Every rule of the namespace, a line each: "table chain: [ expression ] …".
pub(crate) fn rules() -> Vec<String> {
    // NFT_MSG_GETRULE
    let dumped = dump(7);
    dumped.iter().map(|rule| format!("{} {}: {}", text(&rule[&1]), text(&rule[&2]), expressions(&rule[&4]))).collect()
}

/// Every chain of the namespace: table, name, hook, priority, policy, type.
pub(crate) fn chains() -> Vec<String> {
    // NFT_MSG_GETCHAIN
    let dumped = dump(4);
    let line = |chain: &Attributes| {
        let hook = attributes(&chain[&4]);
        let (number, priority, policy) = (be(&hook[&1]), be(&hook[&2]), be(&chain[&5]));
        let [table, name, kind] = [1, 3, 7].map(|key| text(&chain[&key]));
        format!("{table} {name}: type {kind} hook {number} priority {priority} policy {policy}")
    };
    dumped.iter().map(line).collect()
}

/// Dumps objects of family inet by the message that gets them.
fn dump(get: u16) -> Vec<Attributes> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER)).unwrap();
    // NLM_F_REQUEST | NLM_F_DUMP; then struct nfgenmsg of NFPROTO_INET.
    let kind = (10u16 << 8) | get;
    let head =
        [&20u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &0x301u16.to_ne_bytes(), &[0; 8], &[1, 0, 0, 0]].concat();
    send(&socket, &head, SendFlags::empty()).unwrap();
    let mut objects = Vec::new();
    loop {
        let mut buffer = vec![0; 1 << 16];
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty()).unwrap();
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                NLMSG_DONE => return objects,
                NLMSG_ERROR => panic!("the kernel refuses to list: {:?}", &rest[..length]),
                _ => objects.push(attributes(&rest[20..length])),
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn attributes(bytes: &[u8]) -> Attributes {
    list(bytes).into_iter().collect()
}

/// Attributes of which one number may come several times.
fn list(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        found.push((u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff, bytes[4..length].to_vec()));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap().trim_end_matches('\0')
}

fn be(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A value nested in NFTA_DATA_VALUE.
fn value(bytes: &[u8]) -> String {
    hex(&attributes(bytes)[&1])
}

fn expressions(elements: &[u8]) -> String {
    let each = list(elements).into_iter().map(|(_, element)| {
        let element = attributes(&element);
        format!("[ {} ]", expression(text(&element[&1]), &attributes(&element[&2])))
    });
    each.collect::<Vec<_>>().join(" ")
}

fn expression(name: &str, data: &Attributes) -> String {
    let number = |key| be(&data[&key]);
    match name {
        "meta" => format!("meta load {} => reg {}", number(2), number(1)),
        "ct" => format!("ct load {} => reg {}", number(2), number(1)),
        "payload" => {
            let base = ["link", "network", "transport"][number(2) as usize];
            format!("payload load {}b @ {base} header + {} => reg {}", number(4), number(3), number(1))
        }
        "bitwise" => {
            format!("bitwise reg {} = ( reg {} & {} ) ^ {}", number(2), number(1), value(&data[&4]), value(&data[&5]))
        }
        "cmp" => {
            let operator = ["eq", "neq", "lt", "lte", "gt", "gte"][number(2) as usize];
            format!("cmp {operator} reg {} {}", number(1), value(&data[&3]))
        }
        "immediate" => {
            let verdict = attributes(&attributes(&data[&2])[&2]);
            format!("immediate reg {} {}", number(1), ["drop", "accept"][be(&verdict[&1]) as usize])
        }
        other => panic!("an expression that no rule has: {other}"),
    }
}
