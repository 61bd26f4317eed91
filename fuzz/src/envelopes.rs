//! Signed envelopes, their issuers and their receipts: what a host hands to the agent as fragments and trust lists.

use std::hint::black_box;
use std::sync::LazyLock;

use caveau_cose::build::{CertificateSpec, assemble, certificate_tbs};
use caveau_cose::cbor::Value;
use caveau_cose::{
    Certificate, DidX509, Draft, Envelope, Form, KeyKind, Receipt, Rules, Signer as _, TrustList, Validity,
};
use caveau_evidence::Timestamp;
use caveau_fragment::{DevelopmentChain, DevelopmentSpec};

use crate::Target;
use crate::sections::{join, sections};

/// A CBOR item: what is read is written the same.
pub(crate) const CBOR: Target = Target { name: "cbor", run: cbor, seeds: items, fixtures: &[], rounds: 500 };

/// A certificate of a signer or its authority.
pub(crate) const SIGNER_CERTIFICATE: Target =
    Target { name: "signer_certificate", run: certificate, seeds: certificates, fixtures: &[], rounds: 300 };

/// A did:x509, against a chain.
pub(crate) const DID_X509: Target = Target { name: "did_x509", run: did, seeds: dids, fixtures: &[], rounds: 300 };

/// An envelope as it comes.
pub(crate) const ENVELOPE: Target = Target {
    name: "envelope",
    run: |data| _ = envelope(data),
    seeds: envelopes,
    fixtures: &["attestation/azure-aci/uvm-endorsement-svn101.cose"],
    rounds: 100,
};

/// A header and a payload behind a signature that holds; then any bytes as a receipt, and as a trust list.
pub(crate) const SIGNED_ENVELOPE: Target =
    Target { name: "signed_envelope", run: |data| _ = signed(data), seeds: parts, fixtures: &[], rounds: 100 };

const RULES: Rules<'static> = Rules { validity: Validity::LeafEnd, chain: &[] };

static CHAIN: LazyLock<DevelopmentChain> = LazyLock::new(|| {
    let spec = DevelopmentSpec {
        common_name: "Fuzz",
        eku: "1.3.6.1.4.1.311.76.59.1.1",
        kind: KeyKind::P384,
        not_before: Timestamp::from_unix(1_780_000_000),
        not_after: Timestamp::from_unix(1_790_000_000),
    };
    DevelopmentChain::make(&spec).expect("a chain")
});

fn cbor(data: &[u8]) {
    if let Ok(value) = Value::decode(data) {
        assert_eq!(value.encode(), data, "an item has two spellings");
    }
}

fn items() -> Vec<Vec<u8>> {
    let map = Value::Map(vec![
        (Value::Int(1), Value::Int(-38)),
        (Value::Text("iss"), Value::Array(vec![Value::Bytes(&[1, 2]), Value::NULL, Value::Float(4, 7)])),
        (Value::Int(-300), Value::Tag(1, Box::new(Value::Int(1_790_000_000)))),
    ]);
    [vec![map.encode()], envelopes(), trust_lists()].concat()
}

fn certificate(data: &[u8]) {
    let Ok(certificate) = Certificate::parse(data) else { return };
    assert_eq!(certificate.der(), data);
    let shown = certificate.show_subject();
    assert!(!shown.chars().any(char::is_control), "a name that a terminal obeys: {shown:?}");
    black_box((certificate.is_signed_by(&certificate), certificate.public_key().to_spki()));
    let did = DidX509::parse("did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.2").expect("a name");
    let ders = [data, &CHAIN.certificates[1]];
    if data != CHAIN.certificates[0] {
        let chain = caveau_cose::Chain::verify(&ders, RULES.validity);
        assert!(chain.is_err(), "a certificate that nobody signed");
        return;
    }
    let chain = caveau_cose::Chain::verify(&ders, RULES.validity).expect("the seed's chain");
    assert!(did.check(&chain).is_err());
}

fn certificates() -> Vec<Vec<u8>> {
    let chain = &*CHAIN;
    let mut made = chain.certificates.clone();
    for kind in [KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa] {
        let key = caveau_fragment::PrivateKey::generate(kind).expect("a key");
        let names = caveau_cose::build::alternative_names(&[(1, b"a@b"), (2, b"c.d"), (6, b"e:f"), (7, &[1, 2, 3, 4])]);
        let name = caveau_cose::build::name(&[(&[0x55, 4, 3], "Name"), (&[0x55, 4, 10], "Org")]);
        let tbs = certificate_tbs(&CertificateSpec {
            serial: &[9],
            issuer: &name,
            issuer_key: kind,
            subject: &name,
            not_before: Timestamp::from_unix(1),
            not_after: Timestamp::MAX,
            public_key: &key.public_key().expect("a key").to_spki(),
            extensions: &[names, caveau_cose::build::authority(Some(3))].concat(),
        });
        made.push(assemble(&tbs, kind, &key.sign_certificate(&tbs).expect("a signature")));
    }
    made
}

fn did(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(did) = DidX509::parse(text) else { return };
    assert_eq!(did.as_str(), text);
    let ders: Vec<&[u8]> = CHAIN.certificates.iter().map(Vec::as_slice).collect();
    let again = DidX509::of(&ders, 1, caveau_cose::Hash::Sha384, did.policies()).expect("policies can be written");
    assert_eq!(again.policies(), did.policies(), "policies are written as others");
    let chain = caveau_cose::Chain::verify(&ders, RULES.validity).expect("the seed's chain");
    if did.check(&chain).is_ok() {
        let fingerprint = CHAIN.issuer.as_str().split(':').nth(4).expect("a fingerprint");
        assert!(text.contains(fingerprint) || !text.contains(":sha256:"), "named by another authority's digest");
    }
}

fn dids() -> Vec<Vec<u8>> {
    let own = CHAIN.issuer.as_str();
    let more = "::subject:CN:Fuzz:O:A%20%2B%20B::san:uri:https%3A%2F%2Fexample.org::fulcio-issuer:a.b%2Fc";
    vec![own.as_bytes().to_vec(), format!("{own}{more}").into_bytes()]
}

/// Whether the envelope is believed.
fn envelope(data: &[u8]) -> bool {
    let Ok(envelope) = Envelope::parse(data) else { return false };
    let bare = envelope.with_receipts(&[]);
    let again = Envelope::parse(&bare).expect("what was written can be read");
    assert_eq!(again.header(), envelope.header());
    assert_eq!(again.statement_digest(), envelope.statement_digest(), "receipts change what they are about");
    envelope.verify(&RULES).is_ok()
}

fn envelopes() -> Vec<Vec<u8>> {
    let chain = &*CHAIN;
    let ders: Vec<&[u8]> = chain.certificates.iter().map(Vec::as_slice).collect();
    let sign = |form| {
        let draft = Draft {
            payload: b"package fuzz\n\nsvn := 1\n",
            content_type: "application/unknown+rego",
            issuer: chain.issuer.as_str(),
            feed: "example.org/fuzz",
            svn: (form == Form::Claims).then_some(1),
            signing_time: Some(Timestamp::from_unix(1_785_000_000)),
            form,
            chain: &ders,
        };
        draft.sign(&chain.signer_key, None).expect("an envelope")
    };
    let receipt = receipt();
    let with = Envelope::parse(&sign(Form::Claims)).expect("an envelope").with_receipts(&[&receipt]);
    vec![sign(Form::Claims), sign(Form::Legacy), with]
}

/// A receipt of the right form, whose signature is none.
fn receipt() -> Vec<u8> {
    let claims = Value::Map(vec![(Value::Int(1), Value::Text("ledger")), (Value::Int(2), Value::Text("subject"))]);
    let protected = Value::Map(vec![
        (Value::Int(1), Value::Int(-35)),
        (Value::Int(4), Value::Bytes(b"key")),
        (Value::Int(395), Value::Int(2)),
        (Value::Int(15), claims),
    ]);
    let protected = protected.encode();
    let leaf = Value::Array(vec![Value::Bytes(&[1; 32]), Value::Text("ce:1.2"), Value::Bytes(&[2; 32])]);
    let path = Value::Array(vec![Value::Array(vec![Value::Simple(20), Value::Bytes(&[3; 32])])]);
    let proof = Value::Map(vec![(Value::Int(1), leaf), (Value::Int(2), path)]).encode();
    let proofs = Value::Map(vec![(Value::Int(-1), Value::Array(vec![Value::Bytes(&proof)]))]);
    let unprotected = Value::Map(vec![(Value::Int(396), proofs)]);
    let parts = vec![Value::Bytes(&protected), unprotected, Value::NULL, Value::Bytes(&[4; 96])];
    Value::Tag(18, Box::new(Value::Array(parts))).encode()
}

/// Whether an envelope of this header and payload, signed as it should be, is believed.
fn signed(data: &[u8]) -> bool {
    let parts = sections(data);
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    let message = [Value::Text("Signature1"), Value::Bytes(part(0)), Value::Bytes(&[]), Value::Bytes(part(1))];
    let message = Value::Array(message.to_vec()).encode();
    let signature = CHAIN.signer_key.sign(caveau_cose::Algorithm::Es384, &message).expect("a signature");
    let receipts = Value::Map(vec![(Value::Int(394), Value::Array(vec![Value::Bytes(part(2))]))]);
    let unprotected = if part(2).is_empty() { Value::Map(vec![]) } else { receipts };
    let whole = vec![Value::Bytes(part(0)), unprotected, Value::Bytes(part(1)), Value::Bytes(&signature)];
    let whole = Value::Array(whole).encode();
    let list = TrustList::parse(part(3));
    if let (Ok(list), Ok(receipt)) = (&list, Receipt::parse(part(2))) {
        assert!(list.verify(&receipt, &[2; 32]).is_err(), "a receipt that no ledger signed");
    }
    let Ok(envelope) = Envelope::parse(&whole) else { return false };
    if let Ok(list) = list {
        let statement = envelope.statement_digest();
        let held = envelope.receipts().iter().any(|receipt| list.verify(receipt, &statement).is_ok());
        assert!(!held, "a receipt that no ledger signed");
    }
    let Ok(verified) = envelope.verify(&RULES) else { return false };
    assert_eq!(verified.payload(), part(1));
    assert!(verified.issuer().as_str().starts_with("did:x509:0:sha"), "an issuer of another kind");
    assert!(!verified.feed().is_empty());
    true
}

/// The protected header and payload of well-formed envelopes, a receipt, a trust list.
fn parts() -> Vec<Vec<u8>> {
    let part = |envelope: &Vec<u8>| {
        let Ok(Value::Tag(_, inner)) = Value::decode(envelope) else { panic!("a seed is no envelope") };
        let parts = inner.as_array().expect("four parts");
        let bytes = |index: usize| parts[index].as_bytes().expect("bytes").to_vec();
        join(&[bytes(0), bytes(2), receipt(), trust_lists().remove(0)])
    };
    envelopes().iter().map(part).collect()
}

fn trust_lists() -> Vec<Vec<u8>> {
    let spki = CHAIN.signer_key.public_key().expect("a key").to_spki();
    let point = &spki[spki.len() - 96..];
    let key = Value::Map(vec![
        (Value::Int(1), Value::Int(2)),
        (Value::Int(2), Value::Bytes(b"key")),
        (Value::Int(-1), Value::Int(2)),
        (Value::Int(-2), Value::Bytes(&point[..48])),
        (Value::Int(-3), Value::Bytes(&point[48..])),
    ]);
    let entry = Value::Map(vec![(Value::Int(1), Value::Array(vec![key]))]);
    vec![Value::Map(vec![(Value::Text("ledger"), entry)]).encode()]
}

#[cfg(test)]
mod tests {
    use super::{envelope, envelopes, parts, signed};

    #[test]
    fn seeds_are_believed() {
        assert!(envelopes().iter().all(|seed| envelope(seed)));
        assert!(parts().iter().all(|seed| signed(seed)));
    }
}
