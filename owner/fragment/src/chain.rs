//! A certificate chain to try signing with: an authority, and a signer under it. Nobody trusts it who does not choose
//! to.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use caveau_cose::build::{
    CertificateSpec, assemble, authority, certificate_tbs, extended_key_usage, name, signs_certificates,
    signs_documents,
};
use caveau_cose::{DidX509, Hash, KeyKind, Policy, oid};
use caveau_snp::time::Timestamp;

use crate::key::{KeyError, PrivateKey};
use crate::pem;

/// The attribute type commonName.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// What chain is wanted.
#[derive(Clone, Copy, Debug)]
pub struct DevelopmentSpec<'a> {
    /// Name of the signer; the authority's is made of it.
    pub common_name: &'a str,
    /// The extended key usage by which the issuer names the signer, in dotted form.
    pub eku: &'a str,
    /// What kind of keys.
    pub kind: KeyKind,
    /// First second of validity.
    pub not_before: Timestamp,
    /// Last second of the signer's validity; the authority's is the same.
    pub not_after: Timestamp,
}

/// A chain with its keys.
#[derive(Debug)]
pub struct DevelopmentChain {
    /// The authority's key, with which further signers could be made.
    pub authority_key: PrivateKey,
    /// The signer's key.
    pub signer_key: PrivateKey,
    /// The certificates in DER: the signer's, the authority's.
    pub certificates: Vec<Vec<u8>>,
    /// The signer's name, for policies.
    pub issuer: DidX509,
}

/// Why there is no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeChainError {
    /// No key.
    #[error("failed to make a key or to sign with it")]
    Key(#[from] KeyError),
    /// No usage.
    #[error("`{0}` is no object identifier: expected numbers with dots between, such as 1.3.6.1.4.1.311.76.59.1.1")]
    Eku(String),
    /// A name that no certificate can have.
    #[error("`{0}` is no name: expected from 1 to 40 printable characters")]
    Name(String),
    /// No random numbers, or no name for what was made.
    #[error("failed to {0}")]
    Failed(&'static str),
}

impl DevelopmentChain {
    /// Makes keys and certificates.
    ///
    /// # Errors
    /// [`MakeChainError`].
    pub fn make(spec: &DevelopmentSpec<'_>) -> Result<Self, MakeChainError> {
        let eku = oid::from_dotted(spec.eku).ok_or_else(|| MakeChainError::Eku(spec.eku.to_owned()))?;
        let printable = spec.common_name.chars().all(|c| !c.is_control());
        if !printable || spec.common_name.is_empty() || spec.common_name.len() > 40 {
            return Err(MakeChainError::Name(spec.common_name.escape_debug().collect()));
        }
        let (authority_key, signer_key) = (PrivateKey::generate(spec.kind)?, PrivateKey::generate(spec.kind)?);
        let root_name = name(&[(COMMON_NAME, &format!("{} root (for development)", spec.common_name))]);
        let signer_name = name(&[(COMMON_NAME, spec.common_name)]);
        let certificate = |subject: &[u8], key: &PrivateKey, extensions: &[u8]| {
            let mut serial = [0; 16];
            SystemRandom::new().fill(&mut serial).map_err(|_| MakeChainError::Failed("make a serial number"))?;
            serial[0] &= 0x7f;
            let tbs = certificate_tbs(&CertificateSpec {
                serial: &serial,
                issuer: &root_name,
                issuer_key: spec.kind,
                subject,
                not_before: spec.not_before,
                not_after: spec.not_after,
                public_key: &key.public_key()?.to_spki(),
                extensions,
            });
            Ok::<_, MakeChainError>(assemble(&tbs, spec.kind, &authority_key.sign_certificate(&tbs)?))
        };
        let root = certificate(&root_name, &authority_key, &[authority(Some(0)), signs_certificates()].concat())?;
        let usages = [signs_documents(), extended_key_usage(&[&eku])].concat();
        let signer = certificate(&signer_name, &signer_key, &usages)?;
        let certificates = vec![signer, root];
        let ders: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
        let issuer = DidX509::of(&ders, 1, Hash::Sha256, &[Policy::Eku(eku)]);
        let issuer = issuer.ok_or(MakeChainError::Failed("name the signer"))?;
        Ok(Self { authority_key, signer_key, certificates, issuer })
    }

    /// The certificates in PEM, the signer's first.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.certificates.iter().map(|der| pem::write("CERTIFICATE", der).to_string()).collect()
    }
}
