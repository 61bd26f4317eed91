//! Receipts of a ledger that the test keeps, and lists of its keys.

use std::collections::BTreeMap;

use caveau_cose::cbor::Value;
use caveau_cose::{Envelope, Form, Hash, KeyKind, ReceiptError, Signer as _, TrustList};
use caveau_fragment::PrivateKey;

use crate::support::{P384, told};

const LEDGER: &str = "ledger.example.org";

/// A change of a COSE_Key's entries.
type KeyChange<'c> = &'c dyn Fn(&mut Vec<(Value<'_>, Value<'_>)>);

/// A CCF ledger's key.
struct Ledger {
    name: &'static str,
    key: PrivateKey,
    key_id: String,
}

impl Ledger {
    fn new(name: &'static str, kind: KeyKind) -> Self {
        let key = PrivateKey::generate(kind).unwrap();
        let key_id = hex::encode(Hash::Sha256.digest(&key.public_key().unwrap().to_spki()));
        Self { name, key, key_id }
    }

    /// A receipt for a statement, `left` and `right` of the path.
    fn receipt(&self, statement: &[u8; 32]) -> Vec<u8> {
        self.receipt_with(statement, &|_| ())
    }

    fn receipt_with(&self, statement: &[u8; 32], change: &dyn Fn(&mut Parts<'_>)) -> Vec<u8> {
        let claims = vec![
            (Value::Int(6), Value::Int(1_790_000_000)),
            (Value::Int(1), Value::Text(self.name)),
            (Value::Int(2), Value::Text("scitt.ccf.signature.v1")),
        ];
        let mut parts = Parts {
            header: vec![
                (Value::Int(1), Value::Int(i128::from(self.key.kind().algorithm().id()))),
                (Value::Int(4), Value::Bytes(self.key_id.as_bytes())),
                (Value::Int(395), Value::Int(2)),
                (Value::Int(15), Value::Map(claims)),
                (Value::Text("ccf.v1"), Value::Map(vec![(Value::Text("txid"), Value::Text("2.7"))])),
            ],
            leaf: vec![Value::Bytes(&[3; 32]), Value::Text("ce:2.6:abcd"), Value::Bytes(statement)],
            path: vec![(Value::Simple(21), [5; 32]), (Value::Simple(20), [6; 32])],
            payload: Value::NULL,
        };
        // Signed is what the ledger holds; changes come after.
        let evidence = Hash::Sha256.digest(b"ce:2.6:abcd");
        let mut root = Hash::Sha256.digest(&[&[3; 32][..], &evidence, statement].concat());
        root = Hash::Sha256.digest(&[&[5; 32][..], &root].concat());
        root = Hash::Sha256.digest(&[&root[..], &[6; 32]].concat());
        change(&mut parts);
        let protected = Value::Map(parts.header).encode();
        let signed = [Value::Text("Signature1"), Value::Bytes(&protected), Value::Bytes(&[]), Value::Bytes(&root)];
        let signature = self.key.sign(self.key.kind().algorithm(), &Value::Array(signed.to_vec()).encode()).unwrap();
        let path = parts.path.iter().map(|(left, hash)| Value::Array(vec![left.clone(), Value::Bytes(hash)]));
        let path = Value::Array(path.collect());
        let proof = Value::Map(vec![(Value::Int(1), Value::Array(parts.leaf)), (Value::Int(2), path)]).encode();
        let proofs = Value::Map(vec![(Value::Int(-1), Value::Array(vec![Value::Bytes(&proof)]))]);
        let unprotected = Value::Map(vec![(Value::Int(396), proofs)]);
        let all = vec![Value::Bytes(&protected), unprotected, parts.payload, Value::Bytes(&signature)];
        Value::Tag(18, Box::new(Value::Array(all))).encode()
    }

    /// The ledger's key as a COSE_Key, changed.
    fn cose_key(&self, change: KeyChange<'_>) -> Vec<u8> {
        let spki = self.key.public_key().unwrap().to_spki();
        let entries = match self.key.kind() {
            KeyKind::Ed25519 => {
                vec![(Value::Int(-1), Value::Int(6)), (Value::Int(-2), Value::Bytes(&spki[spki.len() - 32..]))]
            }
            kind => {
                let field = kind.field_bytes();
                let point = &spki[spki.len() - 2 * field..];
                let curve = match kind {
                    KeyKind::P256 => 1,
                    KeyKind::P384 => 2,
                    _ => 3,
                };
                vec![
                    (Value::Int(-1), Value::Int(curve)),
                    (Value::Int(-2), Value::Bytes(&point[..field])),
                    (Value::Int(-3), Value::Bytes(&point[field..])),
                ]
            }
        };
        let kind = if self.key.kind() == KeyKind::Ed25519 { 1 } else { 2 };
        let mut all = vec![(Value::Int(1), Value::Int(kind)), (Value::Int(2), Value::Bytes(self.key_id.as_bytes()))];
        all.extend(entries);
        change(&mut all);
        Value::Map(all).encode()
    }

    fn key_bytes(&self) -> Vec<u8> {
        self.cose_key(&|_| ())
    }
}

/// What a receipt is made of.
struct Parts<'a> {
    header: Vec<(Value<'a>, Value<'a>)>,
    leaf: Vec<Value<'a>>,
    path: Vec<(Value<'a>, [u8; 32])>,
    payload: Value<'a>,
}

/// A trust list's payload.
fn list(ledgers: &[(&str, Vec<Vec<u8>>)]) -> Vec<u8> {
    let entries = ledgers.iter().map(|(name, keys)| {
        let keys = keys.iter().map(|key| Value::decode(key).unwrap()).collect();
        (Value::Text(name), Value::Map(vec![(Value::Int(1), Value::Array(keys))]))
    });
    Value::Map(entries.collect()).encode()
}

fn trusting(ledger: &Ledger) -> TrustList {
    TrustList::parse(&list(&[(ledger.name, vec![ledger.key_bytes()])])).unwrap()
}

#[test]
fn receipts_for_an_envelope_count_where_their_ledger_is_trusted() {
    let bytes = P384.envelope(Form::Claims);
    let envelope = Envelope::parse(&bytes).unwrap();
    let statement = envelope.statement_digest();
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519] {
        let (ledger, other) = (Ledger::new(LEDGER, kind), Ledger::new("other.example.org", kind));
        let (receipt, others) = (ledger.receipt(&statement), other.receipt(&statement));
        let with = envelope.with_receipts(&[&receipt, &others]);
        let envelope = Envelope::parse(&with).unwrap();
        // Receipts do not change the statement.
        assert_eq!(envelope.statement_digest(), statement);
        assert_eq!(envelope.receipts().len(), 2);
        let first = &envelope.receipts()[0];
        assert_eq!((first.issuer(), first.subject()), (LEDGER, Some("scitt.ccf.signature.v1")));
        assert_eq!((first.key_id(), first.raw()), (ledger.key_id.as_bytes(), &receipt[..]));

        assert_eq!(trusting(&ledger).verify(first, &statement), Ok(()));
        let unknown = trusting(&ledger).verify(&envelope.receipts()[1], &statement).unwrap_err();
        assert!(matches!(unknown, ReceiptError::UnknownKey { .. }), "{unknown}");
    }
}

#[test]
fn the_statement_is_the_tagged_envelope_with_an_empty_unprotected_header() {
    let bytes = P384.envelope(Form::Claims);
    assert_eq!(bytes[0], 0xd2);
    let expected = Hash::Sha256.digest(&bytes);
    assert_eq!(Envelope::parse(&bytes).unwrap().statement_digest().to_vec(), expected);
    assert_eq!(Envelope::parse(&bytes[1..]).unwrap().statement_digest().to_vec(), expected);
}

#[test]
fn receipts_that_lie() {
    let bytes = P384.envelope(Form::Claims);
    let statement = Envelope::parse(&bytes).unwrap().statement_digest();
    let ledger = Ledger::new(LEDGER, KeyKind::P384);
    let trusted = trusting(&ledger);
    let verdict = |change: &dyn Fn(&mut Parts<'_>)| {
        let receipt = ledger.receipt_with(&statement, change);
        let receipt = match caveau_cose::Receipt::parse(&receipt) {
            Ok(receipt) => receipt,
            Err(error) => return told(&error),
        };
        trusted.verify(&receipt, &statement).map_or_else(|error| told(&error), |()| "believed".to_owned())
    };
    assert_eq!(verdict(&|_| ()), "believed");
    type Change = (&'static str, &'static dyn Fn(&mut Parts<'_>));
    let changes: [Change; 19] = [
        ("other statement", &|parts| parts.leaf[2] = Value::Bytes(&[9; 32])),
        ("signature is not", &|parts| parts.leaf[0] = Value::Bytes(&[9; 32])),
        ("signature is not", &|parts| parts.leaf[1] = Value::Text("ce:2.6:abce")),
        ("signature is not", &|parts| parts.path[0].1[31] ^= 1),
        ("signature is not", &|parts| parts.path[0].0 = Value::Simple(20)),
        ("signature is not", &|parts| drop(parts.path.pop())),
        ("proof's path", &|parts| parts.path.clear()),
        ("proof's path", &|parts| parts.path = vec![(Value::Simple(20), [0; 32]); 65]),
        ("proof's path", &|parts| parts.path[0].0 = Value::Int(1)),
        ("proof's leaf", &|parts| drop(parts.leaf.pop())),
        ("proof's leaf", &|parts| parts.leaf[1] = Value::Text("")),
        ("proof's leaf", &|parts| parts.leaf[0] = Value::Bytes(&[3; 31])),
        ("must be null", &|parts| parts.payload = Value::Bytes(&[])),
        ("other than that of CCF", &|parts| parts.header[2].1 = Value::Int(1)),
        ("none of ES256", &|parts| parts.header[0].1 = Value::Int(5)),
        ("signature is not", &|parts| parts.header[0].1 = Value::Int(-7)),
        ("no key of the ledger", &|parts| parts.header[1].1 = Value::Bytes(b"other")),
        ("key identifier", &|parts| drop(parts.header.remove(1))),
        ("CWT claims", &|parts| drop(parts.header.remove(3))),
    ];
    for (why, change) in changes {
        let said = verdict(change);
        assert!(
            said.contains(why) || said.contains("it is for the statement") && why == "other statement",
            "expected {why}: {said}"
        );
    }
    // Another ledger's key under this ledger's name.
    let impostor = Ledger::new(LEDGER, KeyKind::P384);
    let receipt = impostor.receipt(&statement);
    let receipt = caveau_cose::Receipt::parse(&receipt).unwrap();
    assert!(matches!(trusted.verify(&receipt, &statement), Err(ReceiptError::UnknownKey { .. })));
    let receipt = Ledger { key_id: ledger.key_id.clone(), ..impostor }.receipt(&statement);
    let receipt = caveau_cose::Receipt::parse(&receipt).unwrap();
    assert_eq!(trusted.verify(&receipt, &statement), Err(ReceiptError::Signature));
    // A receipt of another statement, grafted.
    let other = Envelope::parse(&P384.envelope(Form::Legacy)).unwrap().statement_digest();
    let receipt = ledger.receipt(&other);
    let receipt = caveau_cose::Receipt::parse(&receipt).unwrap();
    assert!(matches!(trusted.verify(&receipt, &statement), Err(ReceiptError::OtherStatement { .. })));
}

#[test]
fn lists_are_read_as_cose_key_sets_are() {
    let (first, second) = (Ledger::new(LEDGER, KeyKind::P384), Ledger::new(LEDGER, KeyKind::P256));
    let names = |keys: Vec<Vec<u8>>| -> Result<Vec<String>, String> {
        let list = TrustList::parse(&list(&[(LEDGER, keys)])).map_err(|error| told(&error))?;
        let keys: &BTreeMap<_, _> = &list.ledgers()[LEDGER];
        Ok(keys.keys().map(|id| String::from_utf8(id.clone()).unwrap()).collect())
    };
    let mut both = vec![first.key_id.clone(), second.key_id.clone()];
    both.sort();
    assert_eq!(names(vec![first.key_bytes(), second.key_bytes()]), Ok(both));
    // What cannot be used is left out, and one must remain.
    let unusable: [KeyChange<'static>; 9] = [
        &|key| key[0].1 = Value::Int(3),
        &|key| key[1].1 = Value::Bytes(b""),
        &|key| drop(key.remove(1)),
        &|key| key[2].1 = Value::Int(8),
        &|key| key[3].1 = Value::Bytes(&[1; 47]),
        &|key| key[4].1 = Value::Simple(21),
        &|key| key.push((Value::Int(3), Value::Int(-38))),
        &|key| key.push((Value::Int(4), Value::Array(vec![Value::Int(1)]))),
        &|key| *key = vec![],
    ];
    for change in unusable {
        let key = first.cose_key(change);
        assert_eq!(names(vec![key.clone(), second.key_bytes()]), Ok(vec![second.key_id.clone()]));
        assert!(names(vec![key]).unwrap_err().contains("no usable key"));
    }
    let named = first.cose_key(&|key| {
        key.push((Value::Int(3), Value::Int(-35)));
        key.push((Value::Int(4), Value::Array(vec![Value::Int(2)])));
    });
    assert_eq!(names(vec![named]), Ok(vec![first.key_id.clone()]));
    for payload in [vec![], vec![0xa0], vec![0x80], list(&[(LEDGER, vec![])]), vec![0xa1, 1, 0xa1, 1, 0x80]] {
        assert!(TrustList::parse(&payload).is_err());
    }
}
