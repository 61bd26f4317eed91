//! Envelopes that must be refused, each for its reason.

use caveau_cose::cbor::Value;
use caveau_cose::{Algorithm, Envelope, Form, KeyKind, VerifiedEnvelope};

use crate::support::{BY_LEAF, Chain, FEED, P384, raw, told};

type Entry = (Value<'static>, Value<'static>);

/// Why the envelope is refused.
fn refusal(bytes: &[u8]) -> String {
    told(&VerifiedEnvelope::open(bytes, &BY_LEAF).expect_err("it is believed"))
}

fn text(text: &str) -> Value<'static> {
    Value::Text(Box::leak(text.to_owned().into_boxed_str()))
}

fn ders() -> Value<'static> {
    Value::Array(P384.ders().iter().map(|der| Value::Bytes(der)).collect())
}

/// A header that is right.
fn header() -> Vec<Entry> {
    vec![
        (Value::Int(1), Value::Int(-35)),
        (Value::Int(33), ders()),
        (Value::Text("iss"), text(&P384.issuer())),
        (Value::Text("feed"), Value::Text(FEED)),
    ]
}

fn claims(more: Vec<Entry>) -> Vec<Entry> {
    let own = vec![(Value::Int(1), text(&P384.issuer())), (Value::Int(2), Value::Text(FEED))];
    vec![header()[0].clone(), header()[1].clone(), (Value::Int(15), Value::Map([own, more].concat()))]
}

fn with(entry: Entry) -> Vec<Entry> {
    let mut all: Vec<_> = header().into_iter().filter(|(label, _)| *label != entry.0).collect();
    all.push(entry);
    all
}

fn signed(header: Vec<Entry>) -> Vec<u8> {
    raw(header, vec![], b"package app", &P384.signer.key, Algorithm::Es384)
}

#[test]
fn the_header_that_the_others_are_changes_of_is_believed() {
    VerifiedEnvelope::open(&signed(header()), &BY_LEAF).unwrap();
    VerifiedEnvelope::open(&signed(claims(vec![])), &BY_LEAF).unwrap();
}

#[test]
fn headers_of_another_form() {
    let float = Value::Float(8, 0);
    for (header, why) in [
        (vec![], "no algorithm"),
        (header()[1..].to_vec(), "no algorithm"),
        (with((Value::Int(1), Value::Int(-257))), "the algorithm -257 is none of"),
        (with((Value::Int(1), Value::Text("ES384"))), "the algorithm \"ES384\" is none of"),
        (with((Value::Int(1), Value::Int(-7 - (1 << 64)))), "is none of"),
        (with((Value::Int(2), Value::Array(vec![Value::Int(99)]))), "99 is said to be critical"),
        (with((Value::Int(2), Value::Array(vec![Value::Int(15)]))), "15 is said to be critical"),
        (with((Value::Int(2), Value::Array(vec![]))), "not empty"),
        (with((Value::Int(2), Value::Int(1))), "not empty"),
        (with((Value::Int(3), float.clone())), "content type"),
        (with((Value::Int(33), Value::Array(vec![]))), "certificate chain (33)"),
        (with((Value::Int(33), Value::Array(vec![Value::Int(1)]))), "certificate chain (33)"),
        (with((Value::Int(33), Value::Text("x"))), "certificate chain (33)"),
        (with((Value::Int(33), Value::Bytes(P384.ders()[0]))), "a chain of 1 certificates"),
        (with((Value::Int(33), Value::Array(vec![Value::Bytes(&[0x30]); 2]))), "certificate 0 cannot be judged"),
        (with((Value::Int(33), Value::Array(vec![Value::Bytes(P384.ders()[2]); 17]))), "a chain of 17"),
        (with((Value::Int(34), Value::Array(vec![Value::Int(-16), Value::Bytes(&[1])]))), "thumbprint (34)"),
        (with((Value::Int(34), Value::Array(vec![Value::Int(-14), Value::Bytes(&[1; 20])]))), "thumbprint (34)"),
        (with((Value::Text("iss"), Value::Int(1))), "expected a text"),
        (with((Value::Text("iss"), Value::Text(""))), "no issuer"),
        (with((Value::Text("feed"), Value::Text(""))), "no feed"),
        (with((Value::Text("iss"), Value::Text("TestIssuer"))), "no did:x509"),
        (with((Value::Text("signingtime"), Value::Text("now"))), "whole seconds"),
        (with((Value::Text("signingtime"), Value::Int(-1))), "whole seconds"),
        (with((Value::Int(15), Value::Array(vec![]))), "CWT claims"),
        (
            with((Value::Int(15), Value::Map(vec![(Value::Int(1), Value::Text("other"))]))),
            "two different values as issuer",
        ),
        (
            with((Value::Int(15), Value::Map(vec![(Value::Int(2), Value::Text("other"))]))),
            "two different values as feed",
        ),
        (claims(vec![(Value::Text("svn"), Value::Text("1"))]), "svn"),
        (claims(vec![(Value::Text("svn"), Value::Int(1 << 63))]), "svn"),
        (claims(vec![(Value::Text("svn"), float)]), "svn"),
        (claims(vec![(Value::Int(1), Value::Text("other"))]), "comes twice"),
        (with((Value::Int(259), Value::Text("a/b"))), "no payload's hash algorithm"),
        (with((Value::Bytes(&[1]), Value::Int(1))), "header label"),
        ([header(), vec![(Value::Int(1), Value::Int(-35))]].concat(), "the key 1 comes twice"),
        ([header(), vec![(Value::Text("iss"), Value::Text("x"))]].concat(), "the key \"iss\" comes twice"),
    ] {
        let said = refusal(&signed(header));
        assert!(said.contains(why), "expected {why}: {said}");
    }
    // A chain in the unprotected header counts as none.
    let bare: Vec<_> = header().into_iter().filter(|(label, _)| *label != Value::Int(33)).collect();
    let bytes = raw(bare, vec![(Value::Int(33), ders())], b"x", &P384.signer.key, Algorithm::Es384);
    assert!(refusal(&bytes).contains("no certificate chain"));
}

#[test]
fn unprotected_headers_that_touch_the_protected_one() {
    for (entry, why) in [
        ((Value::Int(1), Value::Int(-35)), "the label 1 is in both headers"),
        ((Value::Text("feed"), Value::Text("other")), "the label \"feed\" is in both"),
        ((Value::Int(2), Value::Array(vec![Value::Int(1)])), "critical"),
        ((Value::Int(394), Value::Int(1)), "receipts (394)"),
        ((Value::Int(394), Value::Array(vec![Value::Int(1)])), "byte strings"),
        ((Value::Int(394), Value::Array(vec![Value::Bytes(&[0xd2])])), "receipt 0 cannot be read"),
        ((Value::Int(394), Value::Array(vec![Value::Bytes(&[]); 17])), "17 receipts"),
    ] {
        let bytes = raw(header(), vec![entry], b"x", &P384.signer.key, Algorithm::Es384);
        let said = refusal(&bytes);
        assert!(said.contains(why), "expected {why}: {said}");
    }
    // What is not looked at does no harm.
    let bytes =
        raw(header(), vec![(Value::Text("timestamp"), Value::Bytes(&[1]))], b"x", &P384.signer.key, Algorithm::Es384);
    VerifiedEnvelope::open(&bytes, &BY_LEAF).unwrap();
}

#[test]
fn other_structures() {
    let good = P384.envelope(Form::Legacy);
    let Value::Tag(18, inner) = Value::decode(&good).unwrap() else { panic!("no tag") };
    let parts = inner.as_array().unwrap().to_vec();
    let of = |change: &dyn Fn(&mut Vec<Value<'static>>)| {
        let mut parts = parts.iter().map(leak).collect();
        change(&mut parts);
        Value::Array(parts)
    };
    let detached = of(&|parts| parts[2] = Value::NULL);
    let three = of(&|parts| drop(parts.pop()));
    let five = of(&|parts| parts.push(Value::NULL));
    let map = of(&|parts| parts[0] = Value::Map(vec![]));
    let text = of(&|parts| parts[2] = Value::Text("x"));
    for (value, why) in [
        (detached, "within the envelope"),
        (three, "array of four"),
        (five, "array of four"),
        (map, "of a byte string, a map"),
        (text, "byte string or null"),
        (Value::Map(vec![]), "expected a COSE_Sign1"),
        // A COSE_Sign and a COSE_Sign1 within a COSE_Sign1's tag twice.
        (Value::Tag(98, Box::new(of(&|_| ()))), "a tagged item, expected a COSE_Sign1"),
        (Value::Tag(18, Box::new(Value::Tag(18, Box::new(of(&|_| ()))))), "a tagged item, expected a COSE_Sign1"),
    ] {
        let said = refusal(&value.encode());
        assert!(said.contains(why), "expected {why}: {said}");
    }
    assert!(refusal(&[&good[..], &[0]].concat()).contains("1 bytes follow it"));
    let large = vec![0; caveau_cose::MAX_ENVELOPE_BYTES + 1];
    assert!(refusal(&large).contains("at most"));
}

/// The same for as long as the test runs.
fn leak(value: &Value<'_>) -> Value<'static> {
    let bytes: &'static [u8] = Box::leak(value.encode().into_boxed_slice());
    Value::decode(bytes).unwrap()
}

#[test]
fn every_cut_and_every_changed_bit() {
    let good = P384.envelope(Form::Claims);
    for length in 0..good.len() {
        assert!(VerifiedEnvelope::open(&good[..length], &BY_LEAF).is_err(), "cut to {length}");
    }
    // The tag's byte apart (a changed tag is another type), each bit is either signed or its structure.
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(VerifiedEnvelope::open(&changed, &BY_LEAF).is_err(), "changed at {at}");
    }
}

#[test]
fn signatures_of_others() {
    // Another payload's, another header's, another key's, another chain's.
    let (chain, stranger) = (&*P384, Chain::new(KeyKind::P384));
    let by_stranger = raw(header(), vec![], b"package app", &stranger.signer.key, Algorithm::Es384);
    assert!(refusal(&by_stranger).contains("the signature is not"));
    let by_intermediate = raw(header(), vec![], b"package app", &chain.intermediate.key, Algorithm::Es384);
    assert!(refusal(&by_intermediate).contains("the signature is not"));
    // The stranger's whole chain under this issuer's name.
    let ders = stranger.ders();
    let swapped = with((Value::Int(33), leak(&Value::Array(ders.iter().map(|der| Value::Bytes(der)).collect()))));
    let swapped = raw(swapped, vec![], b"package app", &stranger.signer.key, Algorithm::Es384);
    assert!(refusal(&swapped).contains("no authority of the chain has the sha256 fingerprint"));
    // The stranger's signer with this chain's authorities.
    let mixed = [ders[0], chain.ders()[1], chain.ders()[2]].map(Value::Bytes);
    let mixed = with((Value::Int(33), leak(&Value::Array(mixed.to_vec()))));
    let mixed = raw(mixed, vec![], b"package app", &stranger.signer.key, Algorithm::Es384);
    assert!(refusal(&mixed).contains("certificate 0 is not signed by the key of certificate 1"));
}

#[test]
fn algorithms_that_the_key_is_not_for() {
    for (named, why) in [
        (Algorithm::Ps384, "the signer's key is of P-384, with which PS384 is not possible"),
        (Algorithm::EdDsa, "with which EdDSA is not possible"),
        // Possible with the curve, but not what was done.
        (Algorithm::Es256, "the signature is not"),
        (Algorithm::Es512, "the signature is not"),
    ] {
        let bytes = signed(with((Value::Int(1), Value::Int(i128::from(named.id())))));
        let said = refusal(&bytes);
        assert!(said.contains(why), "expected {why}: {said}");
    }
    // A signature in DER, as other formats have it, is not COSE's.
    let envelope = signed(header());
    let Value::Tag(18, inner) = Value::decode(&envelope).unwrap() else { panic!("no tag") };
    let mut parts = inner.as_array().unwrap().to_vec();
    let fixed = parts[3].as_bytes().unwrap();
    let der = caveau_snp::der::sequence(&[
        &caveau_snp::der::big_uint(&fixed[..48]),
        &caveau_snp::der::big_uint(&fixed[48..]),
    ]);
    for other in [&der[..], &[], &fixed[..95], &[fixed, &[0]].concat(), &[0; 96]] {
        parts[3] = Value::Bytes(other);
        assert!(refusal(&Value::Array(parts.clone()).encode()).contains("the signature is not"));
    }
    assert!(Envelope::parse(&envelope).is_ok());
}
