//! Envelopes of each algorithm and form, read by this crate and by another one.

use caveau_cose::cbor::Value;
use caveau_cose::{Algorithm, ContentType, Envelope, Form, Hash, KeyKind, Rules, Validity, VerifiedEnvelope};
use coset::{CborSerializable as _, TaggedCborSerializable as _};

use crate::support::{BY_LEAF, Chain, FEED, NOW, P384, TYPE, draft, raw};

#[test]
fn each_algorithm_signs_and_verifies_and_another_reader_agrees() {
    let kinds = [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa, KeyKind::Ed25519];
    let mut algorithms = 0;
    for kind in kinds {
        let chain = Chain::new(kind);
        let (issuer, ders) = (chain.issuer(), chain.ders());
        let possible: Vec<_> = match kind {
            KeyKind::Rsa => vec![Algorithm::Ps256, Algorithm::Ps384, Algorithm::Ps512],
            other => vec![other.algorithm()],
        };
        for algorithm in possible {
            for form in [Form::Claims, Form::Legacy] {
                let draft = draft(&issuer, &ders, form);
                let bytes = draft.sign(&chain.signer.key, Some(algorithm)).unwrap();
                let verified = VerifiedEnvelope::open(&bytes, &BY_LEAF).unwrap();
                assert_eq!(verified.header().algorithm, algorithm);
                assert_eq!(verified.issuer().as_str(), issuer);
                assert_eq!(verified.feed(), FEED);
                assert_eq!(verified.content_type(), Some(ContentType::Text(TYPE)));
                assert_eq!(verified.svn(), (form == Form::Claims).then_some(1));
                assert_eq!(verified.header().signing_time, Some(NOW));
                assert_eq!(verified.payload(), draft.payload);
                assert_eq!(verified.chain().certificates().len(), 3);

                let other = coset::CoseSign1::from_tagged_slice(&bytes).unwrap();
                assert_eq!(other.payload.as_deref(), Some(draft.payload));
                let public = chain.signer.key.public_key().unwrap();
                other
                    .verify_signature(&[], |signature, message| {
                        public.verifies(algorithm, message, signature).then_some(()).ok_or(())
                    })
                    .unwrap();
                assert_eq!(other.to_tagged_vec().unwrap(), bytes);
            }
            algorithms += 1;
        }
    }
    assert_eq!(algorithms, Algorithm::ALL.len());
}

#[test]
fn an_envelope_of_another_writer_is_read() {
    let chain = &*P384;
    let ders = chain.ders().map(|der| coset::cbor::Value::Bytes(der.to_vec()));
    let header = coset::HeaderBuilder::new()
        .algorithm(coset::iana::Algorithm::ES384)
        .content_type(TYPE.to_owned())
        .value(33, coset::cbor::Value::Array(ders.to_vec()))
        .text_value("iss".to_owned(), coset::cbor::Value::Text(chain.issuer()))
        .text_value("feed".to_owned(), coset::cbor::Value::Text(FEED.to_owned()))
        .build();
    let other = coset::CoseSign1Builder::new()
        .protected(header)
        .payload(b"package app".to_vec())
        .create_signature(&[], |message| {
            caveau_cose::Signer::sign(&chain.signer.key, Algorithm::Es384, message).unwrap()
        })
        .build();
    // Without its tag, too.
    for bytes in [other.clone().to_tagged_vec().unwrap(), other.to_vec().unwrap()] {
        let verified = VerifiedEnvelope::open(&bytes, &BY_LEAF).unwrap();
        assert_eq!(verified.payload(), b"package app");
        assert_eq!((verified.feed(), verified.svn()), (FEED, None));
    }
}

#[test]
fn the_bytes_are_those_that_the_reference_writes() {
    // cosesign1go's CreateCoseSign1: tag 18, header in canonical order, empty unprotected header.
    let bytes = P384.envelope(Form::Legacy);
    let Value::Tag(18, inner) = Value::decode(&bytes).unwrap() else { panic!("no tag") };
    let parts = inner.as_array().unwrap();
    let header = Value::decode(parts[0].as_bytes().unwrap()).unwrap();
    let labels: Vec<_> = header.as_map().unwrap().iter().map(|(label, _)| label.show_key()).collect();
    assert_eq!(labels, ["1", "3", "33", "\"iss\"", "\"feed\"", "\"signingtime\""]);
    assert_eq!(parts[1], Value::Map(vec![]));
}

#[test]
fn ecdsa_goes_with_every_curve() {
    // RFC 9053, section 2.1; the reference signs with ES384 whatever the curve, unless told otherwise.
    use aws_lc_rs::signature::{ECDSA_P521_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let key = caveau_fragment::PrivateKey::generate(KeyKind::P521).unwrap();
    let der = caveau_fragment::pem::blocks(&key.to_pem()).unwrap().remove(0).der;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA256_FIXED_SIGNING, &der).unwrap();
    let signature = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), b"message").unwrap();
    let public = key.public_key().unwrap();
    assert!(public.verifies(Algorithm::Es256, b"message", signature.as_ref()));
    assert!(!public.verifies(Algorithm::Es512, b"message", signature.as_ref()));
}

#[test]
fn a_thumbprint_is_held_against_the_chain() {
    let chain = &*P384;
    let (issuer, ders) = (chain.issuer(), chain.ders());
    let sign = |digest: &[u8], with_chain: bool| {
        let thumbprint = Value::Array(vec![Value::Int(-16), Value::Bytes(digest)]);
        let mut header = vec![
            (Value::Int(1), Value::Int(-35)),
            (Value::Int(34), thumbprint),
            (Value::Text("iss"), Value::Text(&issuer)),
            (Value::Text("feed"), Value::Text(FEED)),
        ];
        if with_chain {
            header.push((Value::Int(33), Value::Array(ders.iter().map(|der| Value::Bytes(der)).collect())));
        }
        raw(header, vec![], b"x", &chain.signer.key, Algorithm::Es384)
    };
    let (own, other) = (Hash::Sha256.digest(ders[0]), Hash::Sha256.digest(ders[1]));
    let open = |bytes: &[u8], rules: &Rules<'_>| Envelope::parse(bytes).unwrap().verify(rules).map(|_| ());
    open(&sign(&own, true), &BY_LEAF).unwrap();
    assert_eq!(open(&sign(&other, true), &BY_LEAF), Err(caveau_cose::EnvelopeError::Thumbprint));
    // The chain may come from elsewhere, where the header says whose it is.
    let given = Rules { validity: Validity::At(NOW), chain: &ders };
    open(&sign(&own, false), &given).unwrap();
    assert_eq!(open(&sign(&own, false), &BY_LEAF), Err(caveau_cose::EnvelopeError::NoChain));
    assert_eq!(open(&sign(&other, false), &given), Err(caveau_cose::EnvelopeError::Thumbprint));
}

#[test]
fn a_draft_that_would_be_refused_is_not_signed() {
    let chain = &*P384;
    let (issuer, ders) = (chain.issuer(), chain.ders());
    let stranger = caveau_fragment::PrivateKey::generate(KeyKind::P384).unwrap();
    let draft = draft(&issuer, &ders, Form::Legacy);
    for text in [
        crate::support::told(&draft.sign(&stranger, None).unwrap_err()),
        crate::support::told(&draft.sign(&crate::support::Liar, None).unwrap_err()),
    ] {
        assert!(text.contains("the signature is not that of the signer's key"), "{text}");
    }
    let wrong = issuer.replace(crate::support::EKU, "1.2.3");
    let text = crate::support::told(
        &caveau_cose::Draft { issuer: &wrong, ..draft }.sign(&chain.signer.key, None).unwrap_err(),
    );
    assert!(text.contains("no extended key usage 1.2.3"), "{text}");
    let svn = caveau_cose::Draft { svn: Some(3), ..draft };
    assert!(matches!(svn.sign(&chain.signer.key, None), Err(caveau_cose::SignError::SvnNeedsClaims)));
    let none = caveau_cose::Draft { chain: &[], ..draft };
    assert!(matches!(none.sign(&chain.signer.key, None), Err(caveau_cose::SignError::NoCertificate)));
}
