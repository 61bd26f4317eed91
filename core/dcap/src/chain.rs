//! The certificates behind quotes and collateral: who may have signed what, until when, and whether it was revoked.

use caveau_snp::certificate::{Certificate, PublicKey};
use caveau_snp::check::Refusal;
use caveau_snp::crl::Crl;
use caveau_snp::time::Timestamp;

/// keyUsage: digitalSignature, keyCertSign, cRLSign.
const DIGITAL_SIGNATURE: u8 = 0x80;
const KEY_CERT_SIGN: u8 = 0x04;

/// The names of Intel's certificates.
pub(crate) const ROOT_NAME: &str = "Intel SGX Root CA";
pub(crate) const SIGNER_NAME: &str = "Intel SGX TCB Signing";
const AUTHORITY_NAMES: [&str; 2] = ["Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"];
const PCK_NAME: &str = "Intel SGX PCK Certificate";

/// Who says which root is believed.
pub trait Authority {
    /// Whether `root` (a certificate, DER) is the root, byte for byte.
    fn believes(&self, root: &[u8]) -> bool;
}

type Finding = Result<String, Refusal>;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Signs TCB info and QE identities.
    Signer,
    /// Signs the certificates of platforms' keys.
    PckAuthority,
    /// Signs the reports of quoting enclaves.
    Pck,
}

impl Role {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Signer => &[SIGNER_NAME],
            Self::PckAuthority => &AUTHORITY_NAMES,
            Self::Pck => &[PCK_NAME],
        }
    }

    fn may(self, certificate: &Certificate<'_>) -> bool {
        let usage = certificate.key_usage().unwrap_or(0);
        match self {
            Self::PckAuthority => {
                matches!(certificate.basic_constraints(), Some((true, None | Some(0)))) && usage & KEY_CERT_SIGN != 0
            }
            Self::Pck | Self::Signer => {
                let is_authority = matches!(certificate.basic_constraints(), Some((true, _)));
                !is_authority && usage & KEY_CERT_SIGN == 0 && usage & DIGITAL_SIGNATURE != 0
            }
        }
    }
}

/// basicConstraints and keyUsage, DER contents of their identifiers.
const KNOWN_CRITICAL: [&[u8]; 2] = [b"\x55\x1d\x13", b"\x55\x1d\x0f"];

/// Whether `certificate` is one for this role, in force, and signed by `issuer` in its name. What `issuer` is, is not looked at.
pub(crate) fn check(certificate: &Certificate<'_>, role: Role, issuer: &Certificate<'_>, at: Timestamp) -> Finding {
    let who = certificate.common_name();
    if !role.names().contains(&who) {
        let sentence = format!("the certificate is of `{who}`, expected {}", role.names().join(" or "));
        return Err(Refusal::new("certificate-name", sentence));
    }
    if certificate.issuer() != issuer.subject() {
        return Err(Refusal::new("issuer-name", format!("{who} names another issuer than {}", issuer.common_name())));
    }
    check_form(certificate, at)?;
    if !role.may(certificate) {
        return Err(Refusal::new("certificate-rights", format!("{who} has the wrong rights to sign")));
    }
    if !certificate.is_signed_by(issuer) {
        return Err(Refusal::new("chain-signature", format!("{who} is not signed by {}", issuer.common_name())));
    }
    Ok(format!("{who} is signed by {} and valid until {}", issuer.common_name(), certificate.not_after()))
}

/// The root: its name, its rights and its validity. That it is the one that is believed was found before.
pub(crate) fn check_root(root: &Certificate<'_>, at: Timestamp) -> Finding {
    if root.common_name() != ROOT_NAME || root.issuer() != root.subject() {
        return Err(Refusal::new(
            "root-name",
            format!("the root is named {}, expected {ROOT_NAME}", root.common_name()),
        ));
    }
    check_form(root, at)?;
    let may = matches!(root.basic_constraints(), Some((true, _)))
        && root.key_usage().is_some_and(|bits| bits & KEY_CERT_SIGN != 0);
    if may && root.is_signed_by(root) {
        return Ok(format!("{ROOT_NAME} is Intel's root, byte for byte"));
    }
    Err(Refusal::new("certificate-rights", "the root may not sign certificates"))
}

/// Its key, its critical extensions and its validity.
fn check_form(certificate: &Certificate<'_>, at: Timestamp) -> Result<(), Refusal> {
    let who = certificate.common_name();
    if !matches!(certificate.public_key(), PublicKey::P256(_)) {
        return Err(Refusal::new("key-type", format!("the key of {who} is none of P-256")));
    }
    let mut critical = certificate.extensions().iter().filter(|extension| extension.critical);
    if critical.any(|extension| !KNOWN_CRITICAL.contains(&extension.oid)) {
        return Err(Refusal::new(
            "unknown-critical-extension",
            format!("{who} has a critical extension that is not known"),
        ));
    }
    let (from, until) = (certificate.not_before(), certificate.not_after());
    if at < from || at > until {
        return Err(Refusal::new("cert-validity", format!("{who} is valid from {from} to {until}, not at {at}")));
    }
    Ok(())
}

/// Whether none of `subjects` is on a list of `issuer`, by those lists of it that are there; `None` where there is no list.
pub(crate) fn revocation(
    crls: &[Crl<'_>],
    issuer: &Certificate<'_>,
    subjects: &[&Certificate<'_>],
    at: Timestamp,
) -> Option<Finding> {
    let of_issuer: Vec<&Crl<'_>> = crls.iter().filter(|crl| crl.issuer() == issuer.subject()).collect();
    let name = issuer.common_name();
    if of_issuer.is_empty() {
        return None;
    }
    let signed: Vec<&Crl<'_>> = of_issuer.into_iter().filter(|crl| crl.is_of(issuer)).collect();
    if signed.is_empty() {
        return Some(Err(Refusal::new("crl-signature", format!("{name} did not sign the revocation list"))));
    }
    // What an old list revokes stays revoked.
    let revoked =
        subjects.iter().find(|subject| signed.iter().any(|crl| crl.this_update() <= at && crl.revokes(subject)));
    if let Some(revoked) = revoked {
        let sentence =
            format!("{} (serial {}) is revoked by {name}", revoked.common_name(), hex::encode(revoked.serial()));
        return Some(Err(Refusal::new("certificate-revoked", sentence)));
    }
    let mut dates = signed.iter().map(|crl| crl.check_dates(at).map(|()| crl.next_update()));
    let first = dates.next()?;
    let in_force = dates.fold(first, |best, next| if best.is_ok() { best } else { next.or(best) });
    Some(in_force.map(|until| format!("nothing is revoked by the list of {name}, in force until {until}")))
}
