//! Tokens of other verifiers: each algorithm, and each way in which a token is none to be believed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use caveau_evidence::token::{Token, TokenExpectations, TokenKey, judge_token};
use caveau_evidence::{Expectations, Hex, Outcome, Profile, Timestamp};
use serde_json::{Value, json};

fn at() -> Timestamp {
    "2026-11-23".parse().unwrap()
}

fn maa() -> Value {
    json!({
        "iss": "https://verifier.example", "iat": at().unix(), "exp": at().unix() + 3600, "nonce": "AQID",
        "x-ms-isolation-tee": {
            "x-ms-attestation-type": "sevsnpvm", "x-ms-sevsnpvm-is-debuggable": false,
            "x-ms-sevsnpvm-hostdata": "11".repeat(32), "x-ms-sevsnpvm-launchmeasurement": "22".repeat(48)
        }
    })
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;
type Change<'a> = &'a dyn Fn(&mut Value);

/// A signer of tokens: its algorithm, its key as JWK, and how it signs.
struct Signer {
    algorithm: &'static str,
    jwk: Value,
    sign: Sign,
}

impl Signer {
    fn elliptic(algorithm: &'static str) -> Self {
        let (kind, curve) = match algorithm {
            "ES256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            _ => (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
        };
        let key = EcdsaKeyPair::generate(kind).unwrap();
        let point = key.public_key().as_ref()[1..].to_vec();
        let (x, y) = point.split_at(point.len() / 2);
        let encode = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
        let jwk = json!({ "kty": "EC", "crv": curve, "kid": algorithm, "x": encode(x), "y": encode(y) });
        let sign = move |message: &[u8]| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        Self { algorithm, jwk, sign: Box::new(sign) }
    }

    fn rsa(algorithm: &'static str, encoding: &'static dyn RsaEncoding) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = key.public_key();
        let encode = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
        let spki = caveau_snp::build::rsa_spki(public.as_ref());
        let Some(caveau_snp::spki::RawKey::Rsa { n, e }) = caveau_snp::spki::parse(&spki) else { panic!("no RSA key") };
        let jwk = json!({
            "kty": "RSA", "kid": algorithm,
            "n": encode(n), "e": encode(e)
        });
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        };
        Self { algorithm, jwk, sign: Box::new(sign) }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode((self.sign)(signed.as_bytes())))
    }

    fn keys(&self) -> Vec<TokenKey> {
        TokenKey::parse(json!({ "keys": [self.jwk] }).to_string().as_bytes()).unwrap()
    }

    fn header(&self) -> Value {
        json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.algorithm })
    }
}

fn signers() -> [Signer; 4] {
    [
        Signer::elliptic("ES256"),
        Signer::elliptic("ES384"),
        Signer::rsa("RS256", &RSA_PKCS1_SHA256),
        Signer::rsa("PS256", &RSA_PSS_SHA256),
    ]
}

fn expected() -> TokenExpectations {
    TokenExpectations {
        issuers: Some(vec!["https://verifier.example".to_owned()]),
        nonce: Some(vec![1, 2, 3]),
        snp: Expectations {
            policy_digest: Some(Hex([0x11; 32])),
            measurements: Some(vec![Hex([0x22; 48])]),
            ..Expectations::default()
        },
    }
}

/// The outcome, and the first code.
fn judged(text: &str, keys: &[TokenKey]) -> (Outcome, Option<String>) {
    let judgement = judge_token(&Token::parse(text).unwrap(), keys, &expected(), Profile::Strict, at());
    (judgement.outcome, judgement.first_failure().map(str::to_owned))
}

#[test]
fn tokens_of_each_algorithm_are_believed_by_their_key_alone() {
    let signers = signers();
    for signer in &signers {
        let text = signer.token(&signer.header(), &maa());
        assert_eq!(judged(&text, &signer.keys()), (Outcome::Passed, None), "{}", signer.algorithm);
        let others: Vec<TokenKey> =
            signers.iter().filter(|other| other.algorithm != signer.algorithm).flat_map(Signer::keys).collect();
        assert_eq!(judged(&text, &others).1.as_deref(), Some("token-signature"), "{}", signer.algorithm);
        assert_eq!(judged(&text, &[]).1.as_deref(), Some("token-key-missing"));
        for algorithm in ["none", "HS256", "RS512", "ES256K", "PS256", "RS256"] {
            let header = json!({ "alg": algorithm });
            let text = signer.token(&header, &maa());
            let believed = judged(&text, &signer.keys()).0 == Outcome::Passed;
            assert_eq!(believed, algorithm == signer.algorithm, "{algorithm} by {}", signer.algorithm);
        }
        let (signed, signature) = text.rsplit_once('.').unwrap();
        for at in (0..signed.len()).step_by(5) {
            let mut changed = signed.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = format!("{}.{signature}", String::from_utf8(changed).unwrap());
            if let Ok(token) = Token::parse(&changed) {
                let judgement = judge_token(&token, &signer.keys(), &expected(), Profile::Strict, at_later());
                assert!(judgement.claims.is_none(), "byte {at}");
            }
        }
    }
}

fn at_later() -> Timestamp {
    at().plus_seconds(1)
}

#[test]
fn what_a_token_says_is_held_against_expectations() {
    let signer = Signer::elliptic("ES384");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = maa();
        change(&mut claims);
        judged(&signer.token(&signer.header(), &claims), &signer.keys()).1
    };
    let cases: [(Change<'_>, &str); 12] = [
        (&|claims| claims["exp"] = (at().unix() - 1).into(), "token-expired"),
        (&|claims| claims["nbf"] = (at().unix() + 600).into(), "token-not-yet-valid"),
        (&|claims| _ = claims.as_object_mut().unwrap().remove("exp"), "token-dates"),
        (&|claims| claims["iss"] = "https://other.example".into(), "issuer"),
        (&|claims| claims["nonce"] = "AQIE".into(), "nonce"),
        (&|claims| claims["x-ms-isolation-tee"]["x-ms-attestation-type"] = "azurevm".into(), "attester"),
        (&|claims| claims["x-ms-isolation-tee"]["x-ms-attestation-type"] = "emulated-sevsnpvm".into(), "emulated-tee"),
        (&|claims| claims["x-ms-isolation-tee"]["x-caveau-emulated"] = true.into(), "emulated-tee"),
        (&|claims| claims["x-caveau-emulated"] = "yes".into(), "emulated-tee"),
        (&|claims| claims["x-ms-isolation-tee"]["x-ms-sevsnpvm-is-debuggable"] = true.into(), "debug"),
        (&|claims| claims["x-ms-isolation-tee"]["x-ms-sevsnpvm-hostdata"] = "00".repeat(32).into(), "host-data"),
        (&|claims| claims["x-ms-isolation-tee"]["x-ms-sevsnpvm-launchmeasurement"] = "".into(), "measurement"),
    ];
    for (change, code) in cases {
        assert_eq!(with(change).as_deref(), Some(code));
    }
    let critical = signer.token(&json!({ "alg": "ES384", "crit": ["x"], "x": 1 }), &maa());
    assert!(Token::parse(&critical).unwrap_err().to_string().contains("crit"));
}

#[test]
fn an_ear_must_affirm_in_all_of_its_parts() {
    let signer = Signer::elliptic("ES256");
    let ear = |status: Value, vector: Value| {
        json!({
            "eat_profile": "tag:github.com,2023:veraison/ear", "iss": "https://verifier.example",
            "iat": at().unix(), "exp": at().unix() + 60, "eat_nonce": "AQID",
            "submods": { "a": { "ear.status": status, "ear.trustworthiness-vector": vector } }
        })
    };
    let code = |claims: &Value| judged(&signer.token(&signer.header(), claims), &signer.keys()).1;
    // Nothing in it is of SEV-SNP, so that digests that were asked for are not told.
    assert_eq!(code(&ear("affirming".into(), json!({ "hardware": 2 }))).as_deref(), Some("host-data"));
    assert_eq!(code(&ear(2.into(), json!({}))).as_deref(), Some("host-data"));
    assert_eq!(code(&ear("warning".into(), json!({}))).as_deref(), Some("ear-status"));
    assert_eq!(code(&ear("contraindicated".into(), json!({}))).as_deref(), Some("ear-status"));
    assert_eq!(code(&ear("affirming".into(), json!({ "hardware": 97 }))).as_deref(), Some("ear-status"));
    let mut emulated = ear("affirming".into(), json!({}));
    emulated["caveau.tee-class"] = "software".into();
    assert_eq!(code(&emulated).as_deref(), Some("emulated-tee"));
    let mut empty = ear("affirming".into(), json!({}));
    empty["submods"] = json!({});
    assert_eq!(code(&empty).as_deref(), Some("attester"));
    let mut neither = ear("affirming".into(), json!({}));
    neither.as_object_mut().unwrap().remove("submods");
    assert_eq!(code(&neither).as_deref(), Some("attester"));
}

#[test]
fn keys_are_read_from_what_verifiers_publish() {
    let signer = Signer::rsa("RS256", &RSA_PKCS1_SHA256);
    let one = TokenKey::parse(signer.jwk.to_string().as_bytes()).unwrap();
    assert_eq!(one, signer.keys());
    let mut encryption = signer.jwk.clone();
    encryption["use"] = "enc".into();
    assert!(TokenKey::parse(json!({ "keys": [encryption] }).to_string().as_bytes()).is_err());
    for text in ["", "{}", "hello", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", r#"{"keys":[]}"#] {
        assert!(TokenKey::parse(text.as_bytes()).is_err(), "{text}");
    }
    // With a name that is not the token's, a key is not tried.
    let mut renamed = signer.jwk.clone();
    renamed["kid"] = "other".into();
    let keys = TokenKey::parse(renamed.to_string().as_bytes()).unwrap();
    let text = signer.token(&signer.header(), &maa());
    assert_eq!(judged(&text, &keys).1.as_deref(), Some("token-signature"));
}
