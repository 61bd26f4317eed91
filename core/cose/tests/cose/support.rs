//! Chains, envelopes and receipts for tests.

use std::convert::Infallible;
use std::sync::LazyLock;

use caveau_cose::build::{
    CertificateSpec, assemble, authority, certificate_tbs, extended_key_usage, name, signs_certificates,
    signs_documents,
};
use caveau_cose::cbor::Value;
use caveau_cose::{Algorithm, Draft, Form, Hash, KeyKind, Rules, Signer, Validity, oid};
use caveau_fragment::PrivateKey;
use caveau_snp::time::Timestamp;

pub(crate) const FEED: &str = "example.org/fragments/app";
pub(crate) const TYPE: &str = "application/unknown+rego";
pub(crate) const EKU: &str = "1.3.6.1.4.1.311.76.59.1.1";
pub(crate) const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);
pub(crate) const YEAR: u64 = 31_536_000;
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

pub(crate) const BY_LEAF: Rules<'static> = Rules { validity: Validity::LeafEnd, chain: &[] };

/// Whoever has a certificate: name, key, certificate.
pub(crate) struct Holder {
    pub(crate) name: Vec<u8>,
    pub(crate) key: PrivateKey,
    pub(crate) der: Vec<u8>,
}

/// A certificate to be issued; changed by tests.
pub(crate) struct Order<'a> {
    pub(crate) subject: Vec<u8>,
    pub(crate) kind: KeyKind,
    pub(crate) extensions: Vec<u8>,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) issuer_name: Option<&'a [u8]>,
}

pub(crate) fn order(common_name: &str, kind: KeyKind, extensions: Vec<u8>) -> Order<'static> {
    let subject = name(&[(COMMON_NAME, common_name)]);
    Order { subject, kind, extensions, from: NOW.minus_seconds(YEAR), until: NOW.plus_seconds(YEAR), issuer_name: None }
}

/// Issues what is ordered: by a holder, or by itself.
pub(crate) fn issue(issuer: Option<&Holder>, order: Order<'_>) -> Holder {
    let key = PrivateKey::generate(order.kind).unwrap();
    let signer = issuer.map_or(&key, |issuer| &issuer.key);
    let own_name = issuer.map_or(&order.subject, |issuer| &issuer.name);
    let tbs = certificate_tbs(&CertificateSpec {
        serial: &[1, 2, 3],
        issuer: order.issuer_name.unwrap_or(own_name),
        issuer_key: signer.kind(),
        subject: &order.subject,
        not_before: order.from,
        not_after: order.until,
        public_key: &key.public_key().unwrap().to_spki(),
        extensions: &order.extensions,
    });
    let der = assemble(&tbs, signer.kind(), &signer.sign_certificate(&tbs).unwrap());
    Holder { name: order.subject, key, der }
}

pub(crate) fn ca(path_length: Option<u8>) -> Vec<u8> {
    [authority(path_length), signs_certificates()].concat()
}

pub(crate) fn signer_extensions() -> Vec<u8> {
    [signs_documents(), extended_key_usage(&[&oid::from_dotted(EKU).unwrap()])].concat()
}

/// A signer under an intermediate under a root, all with keys of one kind.
pub(crate) struct Chain {
    pub(crate) root: Holder,
    pub(crate) intermediate: Holder,
    pub(crate) signer: Holder,
}

impl Chain {
    pub(crate) fn new(kind: KeyKind) -> Self {
        let root = issue(None, order("Root", kind, ca(None)));
        let intermediate = issue(Some(&root), order("Intermediate", kind, ca(Some(0))));
        let signer = issue(Some(&intermediate), order("Signer", kind, signer_extensions()));
        Self { root, intermediate, signer }
    }

    pub(crate) fn ders(&self) -> [&[u8]; 3] {
        [&self.signer.der, &self.intermediate.der, &self.root.der]
    }

    pub(crate) fn issuer(&self) -> String {
        issuer(&self.ders(), 2, &format!("eku:{EKU}"))
    }

    /// A fragment that is signed with the chain.
    pub(crate) fn envelope(&self, form: Form) -> Vec<u8> {
        let (issuer, ders) = (self.issuer(), self.ders());
        draft(&issuer, &ders, form).sign(&self.signer.key, None).unwrap()
    }
}

/// One chain for all tests that do not change it.
pub(crate) static P384: LazyLock<Chain> = LazyLock::new(|| Chain::new(KeyKind::P384));

pub(crate) fn issuer(ders: &[&[u8]], authority: usize, policy: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let fingerprint = BASE64_URL_SAFE_NO_PAD.encode(Hash::Sha256.digest(ders[authority]));
    format!("did:x509:0:sha256:{fingerprint}::{policy}")
}

pub(crate) fn draft<'a>(issuer: &'a str, chain: &'a [&'a [u8]], form: Form) -> Draft<'a> {
    Draft {
        payload: b"package app\n\nsvn := \"1\"\n",
        content_type: TYPE,
        issuer,
        feed: FEED,
        svn: (form == Form::Claims).then_some(1),
        signing_time: Some(NOW),
        form,
        chain,
    }
}

/// An envelope of any header, signed or mis-signed with any key and algorithm. `unprotected` as given, payload too.
pub(crate) fn raw(
    header: Vec<(Value<'_>, Value<'_>)>,
    unprotected: Vec<(Value<'_>, Value<'_>)>,
    payload: &[u8],
    key: &PrivateKey,
    algorithm: Algorithm,
) -> Vec<u8> {
    let protected = Value::Map(header).encode();
    let signed = [Value::Text("Signature1"), Value::Bytes(&protected), Value::Bytes(&[]), Value::Bytes(payload)];
    let signature = key.sign(algorithm, &Value::Array(signed.to_vec()).encode()).unwrap();
    let parts =
        vec![Value::Bytes(&protected), Value::Map(unprotected), Value::Bytes(payload), Value::Bytes(&signature)];
    Value::Tag(18, Box::new(Value::Array(parts))).encode()
}

/// Signs nothing right.
pub(crate) struct Liar;

impl Signer for Liar {
    type Error = Infallible;

    fn sign(&self, _: Algorithm, _: &[u8]) -> Result<Vec<u8>, Infallible> {
        Ok(vec![1; 96])
    }
}

/// The message of an error, and of what caused it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
