//! Software roots: what a caller may ask to be believed.

use caveau_evidence::certificates_from_pem;
use caveau_snp::certificate::{Certificate, CertificateError};
use caveau_snp::software::{MARKER_OID, NAME_PREFIX, root_id};

/// The root certificate of one installation's software secure processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftwareRoot {
    der: Vec<u8>,
    id: String,
}

/// Why bytes are no software root.
#[derive(Debug, thiserror::Error)]
pub enum SoftwareRootError {
    /// The certificate.
    #[error("failed to read the software root: {0}")]
    Certificate(#[from] CertificateError),
    /// A certificate of somebody else, such as hardware's.
    #[error("`{0}` is no root of a software secure processor: it lacks the critical marker extension")]
    NotMarked(String),
    /// PEM that is broken, or holds another number of certificates than one.
    #[error("failed to read the software root: expected one certificate, DER or PEM")]
    Pem,
    /// A name that does not belong to the key, or a signature of another key.
    #[error(
        "`{found}` is not the name of this software root's key, or it has not signed itself: expected `{expected}`"
    )]
    WrongName {
        /// The name.
        found: String,
        /// The name that belongs to the key.
        expected: String,
    },
}

impl SoftwareRoot {
    /// Reads one root certificate, DER or PEM. It must be marked as a software root, named for its key, and signed by it.
    ///
    /// # Errors
    /// [`SoftwareRootError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SoftwareRootError> {
        let der = match std::str::from_utf8(bytes) {
            Ok(text) if text.contains("-----BEGIN") => one(certificates_from_pem(text))?,
            _ => bytes.to_vec(),
        };
        let certificate = Certificate::parse(&der)?;
        let found = certificate.common_name().to_owned();
        if !certificate.extension(&MARKER_OID).is_some_and(|marker| marker.critical) {
            return Err(SoftwareRootError::NotMarked(found));
        }
        let id = root_id(certificate.spki());
        let expected = format!("ARK-{NAME_PREFIX}{id}");
        let is_own_issuer = certificate.issuer() == certificate.subject() && certificate.is_signed_by(&certificate);
        if found != expected || !is_own_issuer {
            return Err(SoftwareRootError::WrongName { found, expected });
        }
        Ok(Self { der, id })
    }

    /// The certificate.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The root's identity: 16 hexadecimal digits that follow from its key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

fn one(certificates: Option<Vec<Vec<u8>>>) -> Result<Vec<u8>, SoftwareRootError> {
    match certificates.map(<[Vec<u8>; 1]>::try_from) {
        Some(Ok([der])) => Ok(der),
        _ => Err(SoftwareRootError::Pem),
    }
}
