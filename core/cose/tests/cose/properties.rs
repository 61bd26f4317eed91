//! Properties of the parsers, over any bytes and over changes of well-formed ones.

use caveau_cose::cbor::Value;
use caveau_cose::{Certificate, DidX509, Envelope, Form, Policy, Receipt, San, TrustList, VerifiedEnvelope, oid};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{BY_LEAF, P384};

/// Any CBOR item; strings live as long as the process.
fn value() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        any::<u64>().prop_map(|n| Value::Int(i128::from(n))),
        any::<u64>().prop_map(|n| Value::Int(!i128::from(n))),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Bytes(Box::leak(bytes.into_boxed_slice()))),
        ".{0,40}".prop_map(|text| Value::Text(Box::leak(text.into_boxed_str()))),
        (0_u8..24).prop_map(Value::Simple),
        (32_u8..=255).prop_map(Value::Simple),
        any::<u16>().prop_map(|bits| Value::Float(2, u64::from(bits))),
        any::<u32>().prop_map(|bits| Value::Float(4, u64::from(bits))),
        any::<u64>().prop_map(|bits| Value::Float(8, bits)),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::Array),
            vec((inner.clone(), inner.clone()), 0..6).prop_map(|mut entries| {
                let mut keys = std::collections::BTreeSet::new();
                entries.retain(|(key, _)| keys.insert(key.encode()));
                Value::Map(entries)
            }),
            (any::<u64>(), inner).prop_map(|(tag, item)| Value::Tag(tag, Box::new(item))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn items_write_and_read_back(value in value()) {
        let bytes = value.encode();
        prop_assert_eq!(Value::decode(&bytes), Ok(value));
    }

    #[test]
    fn what_is_read_has_one_spelling(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(value) = Value::decode(&bytes) {
            prop_assert_eq!(value.encode(), bytes);
        }
    }

    #[test]
    fn hostile_bytes_get_an_answer(bytes in vec(any::<u8>(), 0..600)) {
        let _ = Envelope::parse(&bytes);
        let _ = Receipt::parse(&bytes);
        let _ = TrustList::parse(&bytes);
        let _ = Certificate::parse(&bytes);
    }

    #[test]
    fn a_changed_certificate_is_not_believed(at: prop::sample::Index, value: u8, insert: bool) {
        let mut der = P384.signer.der.clone();
        let at = at.index(der.len());
        if insert {
            der.insert(at, value);
        } else {
            der[at] = value;
        }
        let issuer = Certificate::parse(&P384.intermediate.der).unwrap();
        if let Ok(certificate) = Certificate::parse(&der) {
            prop_assert!(der == P384.signer.der || !certificate.is_signed_by(&issuer));
        }
    }

    #[test]
    fn a_changed_envelope_is_not_believed(at: prop::sample::Index, value: u8, insert: bool) {
        let good = P384.envelope(Form::Legacy);
        let mut bytes = good.clone();
        let at = at.index(bytes.len());
        if insert {
            bytes.insert(at, value);
        } else {
            bytes[at] = value;
        }
        // Only the unprotected header and the tag are nobody's word.
        if let Ok(verified) = VerifiedEnvelope::open(&bytes, &BY_LEAF) {
            prop_assert_eq!(verified.envelope().with_receipts(&[]), good);
        }
    }

    #[test]
    fn issuers_write_and_read_back(text in "[^\u{0}]{1,20}", arcs in vec(any::<u32>(), 1..6)) {
        let dotted = arcs.iter().fold("1.3".to_owned(), |dotted, arc| format!("{dotted}.{arc}"));
        let policies = vec![
            Policy::Eku(oid::from_dotted(&dotted).unwrap()),
            Policy::Subject(vec![(vec![0x55, 4, 3], text.clone()), (oid::from_dotted(&dotted).unwrap(), text.clone())]),
            Policy::San(San::Uri(text.clone())),
            Policy::FulcioIssuer(format!("https://{text}")),
        ];
        let did = DidX509::of(&P384.ders(), 1, caveau_cose::Hash::Sha512, &policies).unwrap();
        prop_assert_eq!(did.policies(), &policies[..]);
    }

    #[test]
    fn any_text_is_an_issuer_or_none(text in "(did:x509:0:sha256:[A-Za-z0-9_-]{43})?(::)?[ -~]{0,60}") {
        if let Ok(did) = DidX509::parse(&text) {
            prop_assert_eq!(did.as_str(), text);
        }
    }
}
