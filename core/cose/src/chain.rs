//! Certificate chains, the signer's certificate first, each signed by the next.

use caveau_snp::time::Timestamp;

use crate::certificate::{Certificate, CertificateError};
use crate::oid;

/// Most certificates of a chain.
pub const MAX_CERTIFICATES: usize = 16;

/// For which time a chain must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// At this time.
    At(Timestamp),
    /// At the last second of the signer's certificate: what was signed while that certificate was in force holds for
    /// ever, and no clock is asked. So do the tools of Azure Container Instances; a guest has no clock that its host
    /// does not set.
    LeafEnd,
}

/// A chain whose certificates sign each other. Whose root that is nobody has asked: a did:x509 does.
#[derive(Clone, Debug)]
pub struct Chain<'a> {
    certificates: Vec<Certificate<'a>>,
}

/// Why certificates are no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// None, one, or too many.
    #[error("a chain of {0} certificates; from 2 to {MAX_CERTIFICATES} are accepted")]
    Length(usize),
    /// One cannot be read.
    #[error("certificate {0} cannot be judged")]
    Certificate(usize, #[source] CertificateError),
    /// Names do not lead from one to the next.
    #[error("certificate {0} names another issuer than the subject of certificate {next}", next = .0.saturating_add(1))]
    IssuerName(usize),
    /// A signature does not hold.
    #[error("certificate {0} is not signed by the key of certificate {next}", next = .0.saturating_add(1))]
    Signature(usize),
    /// One is no authority and has issued another.
    #[error("certificate {0} may not issue certificates")]
    NoAuthority(usize),
    /// More authorities stand below one than it allows.
    #[error("certificate {index} allows {allowed} authorities below it, and has more")]
    PathLength {
        /// Which.
        index: usize,
        /// What it allows.
        allowed: u32,
    },
    /// One is not valid at the time.
    #[error("certificate {index} is valid from {not_before} to {not_after}, not at {at}")]
    Validity {
        /// Which.
        index: usize,
        /// First second.
        not_before: Timestamp,
        /// Last second.
        not_after: Timestamp,
        /// When it was to be valid.
        at: Timestamp,
    },
    /// A critical extension is not understood.
    #[error("certificate {0} has the critical extension {1}, which is not understood")]
    CriticalExtension(usize, String),
    /// An authority's names are constrained, which is not understood.
    #[error("certificate {0} constrains names, which is not understood")]
    NameConstraints(usize),
    /// The signer's certificate is for other uses.
    #[error("the signer's certificate does not allow its key to sign documents (keyUsage lacks digitalSignature)")]
    KeyUsage,
}

impl<'a> Chain<'a> {
    /// Reads a chain and checks everything about it but whose root it is: names, signatures, rights to issue, path
    /// lengths, validity, critical extensions, and the right of the first key to sign documents.
    ///
    /// The last certificate is the chain's end and need not be self-signed: a did:x509 names an authority by its
    /// digest.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn verify(ders: &[&'a [u8]], validity: Validity) -> Result<Self, ChainError> {
        if ders.len() < 2 || ders.len() > MAX_CERTIFICATES {
            return Err(ChainError::Length(ders.len()));
        }
        let parse = |(index, der): (usize, &&'a [u8])| {
            Certificate::parse(der).map_err(|error| ChainError::Certificate(index, error))
        };
        let certificates: Vec<_> = ders.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        let chain = Self { certificates };
        let at = match validity {
            Validity::At(at) => at,
            Validity::LeafEnd => chain.leaf()?.not_after(),
        };
        for (index, certificate) in chain.certificates.iter().enumerate() {
            check_alone(index, certificate, at)?;
        }
        // Signatures last: they take the time.
        for (index, pair) in chain.certificates.windows(2).enumerate() {
            if let [certificate, issuer] = pair {
                check_pair(index, certificate, issuer)?;
            }
        }
        if !chain.leaf()?.may_sign() {
            return Err(ChainError::KeyUsage);
        }
        Ok(chain)
    }

    /// The certificates, the signer's first.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate<'a>] {
        &self.certificates
    }

    /// The signer's certificate.
    pub(crate) fn leaf(&self) -> Result<&Certificate<'a>, ChainError> {
        self.certificates.first().ok_or(ChainError::Length(0))
    }

    /// The authorities, the issuer of the signer's certificate first.
    #[must_use]
    pub fn authorities(&self) -> &[Certificate<'a>] {
        self.certificates.get(1..).unwrap_or_default()
    }
}

fn check_alone(index: usize, certificate: &Certificate<'_>, at: Timestamp) -> Result<(), ChainError> {
    let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
    if at < not_before || at > not_after {
        return Err(ChainError::Validity { index, not_before, not_after, at });
    }
    let extensions = certificate.extensions();
    if let Some(unknown) = extensions.unknown_critical {
        return Err(ChainError::CriticalExtension(index, oid::to_dotted(unknown)));
    }
    if extensions.has_name_constraints {
        return Err(ChainError::NameConstraints(index));
    }
    if index == 0 {
        return Ok(());
    }
    if !certificate.may_certify() {
        return Err(ChainError::NoAuthority(index));
    }
    // Authorities below it: all but the signer's certificate, which is none.
    let below = u32::try_from(index).unwrap_or(u32::MAX).saturating_sub(1);
    match extensions.basic_constraints {
        Some((_, Some(allowed))) if below > allowed => Err(ChainError::PathLength { index, allowed }),
        _ => Ok(()),
    }
}

fn check_pair(index: usize, certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> Result<(), ChainError> {
    if certificate.issuer() != issuer.subject() {
        return Err(ChainError::IssuerName(index));
    }
    if !certificate.is_signed_by(issuer) {
        return Err(ChainError::Signature(index));
    }
    Ok(())
}
