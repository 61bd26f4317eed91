//! Expressions of nf_tables as bytes: attributes that the kernel's little machine for packets is programmed with.
//!
//! Numbers are big-endian, but for what is compared with a number that the kernel itself holds (an interface's, a state),
//! which has the machine's order.

/// Names, the kernel's register for 16 bytes, and operators (uapi/linux/netfilter/nf_tables.h).
const NLA_F_NESTED: u16 = 0x8000;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_CT_STATE: u32 = 0;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;

/// What is known about a packet besides its bytes (enum nft_meta_keys).
#[derive(Clone, Copy)]
pub(crate) enum Meta {
    /// Number of the interface it came in by, of four bytes.
    InputInterface = 4,
    /// Number of the interface it goes out by, of four bytes.
    OutputInterface = 5,
    /// IPv4 or IPv6: `NFPROTO_`, of one byte.
    Family = 15,
    /// What IP carries, beyond IPv6's extension headers: `IPPROTO_`, of one byte.
    Protocol = 16,
}

/// Where an offset counts from (enum nft_payload_bases).
#[derive(Clone, Copy)]
pub(crate) enum Header {
    /// IPv4 or IPv6.
    Network = 1,
    /// What IP carries. A fragment other than the first has none, and the rule does not match.
    Transport = 2,
}

/// How a register is to compare with bytes (enum nft_cmp_ops).
#[derive(Clone, Copy)]
pub(crate) enum Is {
    /// Equal.
    Equal = 0,
    /// Not equal.
    NotEqual = 1,
    /// At most, as big-endian numbers.
    AtMost = 3,
    /// At least, as big-endian numbers.
    AtLeast = 5,
}

/// What becomes of a packet (uapi/linux/netfilter.h).
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// It is no more.
    Drop = 0,
    /// It goes on.
    Accept = 1,
}

/// Loads what is known about the packet.
pub(crate) fn load_meta(key: Meta) -> Vec<u8> {
    expression("meta", &[number(NFTA_META_KEY, key as u32), number(NFTA_META_DREG, NFT_REG_1)])
}

/// Loads the state of the packet's connection: one bit of four bytes.
pub(crate) fn load_state() -> Vec<u8> {
    expression("ct", &[number(NFTA_CT_KEY, NFT_CT_STATE), number(NFTA_CT_DREG, NFT_REG_1)])
}

/// Loads bytes of the packet, 16 at most.
pub(crate) fn load_payload(header: Header, offset: u32, length: u32) -> Vec<u8> {
    expression(
        "payload",
        &[
            number(NFTA_PAYLOAD_DREG, NFT_REG_1),
            number(NFTA_PAYLOAD_BASE, header as u32),
            number(NFTA_PAYLOAD_OFFSET, offset),
            number(NFTA_PAYLOAD_LEN, length),
        ],
    )
}

/// Clears the bits of what was loaded that are not in the mask.
pub(crate) fn mask(mask: &[u8]) -> Vec<u8> {
    let zeros = vec![0; mask.len()];
    expression(
        "bitwise",
        &[
            number(NFTA_BITWISE_SREG, NFT_REG_1),
            number(NFTA_BITWISE_DREG, NFT_REG_1),
            number(NFTA_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(0)),
            nest(NFTA_BITWISE_MASK, &[attribute(NFTA_DATA_VALUE, mask)]),
            nest(NFTA_BITWISE_XOR, &[attribute(NFTA_DATA_VALUE, &zeros)]),
        ],
    )
}

/// Goes on to the next rule unless what was loaded compares so.
pub(crate) fn compare(is: Is, with: &[u8]) -> Vec<u8> {
    expression(
        "cmp",
        &[
            number(NFTA_CMP_SREG, NFT_REG_1),
            number(NFTA_CMP_OP, is as u32),
            nest(NFTA_CMP_DATA, &[attribute(NFTA_DATA_VALUE, with)]),
        ],
    )
}

/// Ends with a verdict.
pub(crate) fn verdict(verdict: Verdict) -> Vec<u8> {
    let code = nest(NFTA_DATA_VERDICT, &[number(NFTA_VERDICT_CODE, verdict as u32)]);
    expression("immediate", &[number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT), nest(NFTA_IMMEDIATE_DATA, &[code])])
}

/// One element of a rule's list.
fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nest(NFTA_LIST_ELEM, &[text(NFTA_EXPR_NAME, name), nest(NFTA_EXPR_DATA, data)])
}

/// An attribute made of attributes.
pub(crate) fn nest(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &attributes.concat())
}

/// A text and the zero after it.
pub(crate) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A big-endian number of four bytes.
pub(crate) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// struct nlattr { u16 length, type }, the value, and zeros up to four bytes, which the length does not count. Nothing here is
/// near 64 KiB; a length of 0 is one that the kernel refuses.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(0);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_lengths_do_not_count_it() {
        assert_eq!(attribute(3, &[7]), [5, 0, 3, 0, 7, 0, 0, 0]);
        assert_eq!(text(1, "cmp"), [8, 0, 1, 0, b'c', b'm', b'p', 0]);
        assert_eq!(number(2, 1), [8, 0, 2, 0, 0, 0, 0, 1]);
        assert_eq!(nest(1, &[number(2, 1)]), [12, 0, 1, 0x80, 8, 0, 2, 0, 0, 0, 0, 1]);
        assert_eq!(attribute(1, &[0; 70_000])[..4], [0, 0, 1, 0]);
    }

    #[test]
    fn expressions_have_the_kernels_layout() {
        // As nft sends "meta l4proto tcp": a list's element { name, data { key, register } }, then the comparison.
        let expected = [
            &[36, 0, 1, 0x80, 9, 0, 1, 0][..],
            b"meta\0\0\0\0",
            &[20, 0, 2, 0x80, 8, 0, 2, 0, 0, 0, 0, 16, 8, 0, 1, 0, 0, 0, 0, 1],
        ]
        .concat();
        assert_eq!(load_meta(Meta::Protocol), expected);
        let expected = [
            &[44, 0, 1, 0x80, 8, 0, 1, 0][..],
            b"cmp\0",
            &[32, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0],
            &[12, 0, 3, 0x80, 5, 0, 1, 0, 6, 0, 0, 0],
        ]
        .concat();
        assert_eq!(compare(Is::Equal, &[6]), expected);
        let expected = [
            &[48, 0, 1, 0x80, 14, 0, 1, 0][..],
            b"immediate\0\0\0",
            &[28, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0],
            &[16, 0, 2, 0x80, 12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1],
        ]
        .concat();
        assert_eq!(verdict(Verdict::Accept), expected);
    }
}
