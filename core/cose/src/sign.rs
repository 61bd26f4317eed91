//! Making envelopes. The key is the caller's, in a file, a token or a service.

use crate::algorithm::Algorithm;
use crate::cbor::Value;
use crate::certificate::{Certificate, CertificateError};
use crate::chain::Validity;
use crate::envelope::{Envelope, EnvelopeError, Rules, Sign1, signed};
use crate::header;
use caveau_snp::time::Timestamp;

/// Whoever can sign with one private key.
pub trait Signer {
    /// Why it did not.
    type Error;

    /// Signs a message (not its digest) with an algorithm. The signature has COSE's form: for ECDSA, r and s one after
    /// the other, each as long as the curve's field.
    ///
    /// # Errors
    /// Where the key cannot be used, or not with that algorithm.
    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, Self::Error>;
}

/// Where an envelope says who signed what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In CWT claims, with the payload's SVN: `{1: issuer, 2: feed, "svn": …}`. Older guests do not read them.
    Claims,
    /// In the headers `iss` and `feed`, as older tools write them; the payload has its SVN itself.
    Legacy,
}

/// An envelope to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// What is signed.
    pub payload: &'a [u8],
    /// Its media type.
    pub content_type: &'a str,
    /// The signer's did:x509.
    pub issuer: &'a str,
    /// What the payload is about.
    pub feed: &'a str,
    /// The payload's security version; with [`Form::Claims`] alone.
    pub svn: Option<i64>,
    /// When it is signed, where that is to be said.
    pub signing_time: Option<Timestamp>,
    /// Where issuer and feed go.
    pub form: Form,
    /// The signer's chain in DER, the signer's certificate first.
    pub chain: &'a [&'a [u8]],
}

/// Why no envelope was made.
#[derive(Debug, thiserror::Error)]
pub enum SignError<E> {
    /// The chain's first certificate is none.
    #[error("the signer's certificate cannot be read")]
    Certificate(#[source] CertificateError),
    /// No chain.
    #[error("there is no certificate of the signer")]
    NoCertificate,
    /// An SVN in a header that has no place for it.
    #[error("an SVN in the header needs the form with CWT claims")]
    SvnNeedsClaims,
    /// The signer failed.
    #[error("failed to sign")]
    Signer(#[source] E),
    /// What was made would be refused.
    #[error("what was signed would be refused by those who read it")]
    Refused(#[source] EnvelopeError),
}

impl Draft<'_> {
    /// Signs it, and makes sure that it will be believed: the key is that of the first certificate, the chain is sound,
    /// and the issuer names the signer.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign<S: Signer>(&self, signer: &S, algorithm: Option<Algorithm>) -> Result<Vec<u8>, SignError<S::Error>> {
        let leaf = self.chain.first().ok_or(SignError::NoCertificate)?;
        let leaf = Certificate::parse(leaf).map_err(SignError::Certificate)?;
        if self.svn.is_some() && self.form == Form::Legacy {
            return Err(SignError::SvnNeedsClaims);
        }
        let algorithm = algorithm.unwrap_or_else(|| leaf.public_key().kind().algorithm());
        let protected = self.header(algorithm).encode();
        let signature = signer.sign(algorithm, &signed(&protected, self.payload)).map_err(SignError::Signer)?;
        let envelope = Sign1 {
            protected: &protected,
            header: Value::NULL,
            unprotected: Value::Map(Vec::new()),
            payload: Value::Bytes(self.payload),
            signature: &signature,
        };
        let bytes = envelope.encode();
        let rules = Rules { validity: Validity::LeafEnd, chain: &[] };
        Envelope::parse(&bytes).and_then(|envelope| envelope.verify(&rules).map(|_| ())).map_err(SignError::Refused)?;
        Ok(bytes)
    }

    /// The protected header, its labels in canonical order.
    fn header(&self, algorithm: Algorithm) -> Value<'_> {
        let chain = self.chain.iter().map(|der| Value::Bytes(der)).collect();
        let mut entries = vec![
            (header::ALGORITHM, Value::Int(i128::from(algorithm.id()))),
            (header::CONTENT_TYPE, Value::Text(self.content_type)),
            (header::CHAIN, Value::Array(chain)),
        ];
        let time = self.signing_time.map(|at| Value::Tag(1, Box::new(Value::Int(i128::from(at.unix())))));
        match self.form {
            Form::Claims => {
                let mut claims = vec![
                    (header::CLAIM_ISSUER, Value::Text(self.issuer)),
                    (header::CLAIM_SUBJECT, Value::Text(self.feed)),
                ];
                claims.extend(time.map(|time| (header::CLAIM_ISSUED_AT, time)));
                claims.extend(self.svn.map(|svn| (header::CLAIM_SVN, Value::Int(i128::from(svn)))));
                entries.push((header::CLAIMS, Value::sorted_map(claims)));
            }
            Form::Legacy => {
                entries.push((header::LEGACY_ISSUER, Value::Text(self.issuer)));
                entries.push((header::LEGACY_FEED, Value::Text(self.feed)));
                entries.extend(time.map(|time| (header::LEGACY_TIME, time)));
            }
        }
        Value::sorted_map(entries)
    }
}
