//! Certificate revocation lists (RFC 5280, section 5). AMD's revoke intermediates: endorsement keys all have serial 0.

use ::der::asn1::{AnyRef, ContextSpecific, UintRef};
use ::der::{Decode, Reader, SliceReader, Tag, TagNumber};

use crate::certificate::{
    Certificate, CertificateError, SignedObject, broken, element, parse_extensions, sequence_reader, time, unsupported,
};
use crate::check::Refusal;
use crate::oid;
use crate::time::Timestamp;

/// Largest revocation list accepted.
pub const MAX_CRL_BYTES: usize = 1024 * 1024;

/// A revocation list as it came. Nothing about it has been verified.
#[derive(Clone, Debug)]
pub struct Crl<'a> {
    tbs: &'a [u8],
    issuer: &'a [u8],
    this_update: Timestamp,
    next_update: Timestamp,
    number: u64,
    revoked: Vec<&'a [u8]>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Crl<'a> {
    /// Reads exactly one DER list: version 2, with nextUpdate and a number, and no critical extension.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        let signed = SignedObject::parse(der, MAX_CRL_BYTES)?;
        let mut tbs = sequence_reader("TBSCertList", signed.tbs)?;
        let version = tbs.decode::<u8>().map_err(broken("version"))?;
        if version != 1 {
            return Err(unsupported("version", &format!("{version}, expected 1 (CRL v2)")));
        }
        signed.expect_algorithm(element(&mut tbs, "signature algorithm")?)?;
        let issuer = element(&mut tbs, "issuer")?;
        let this_update = time(&mut tbs, "thisUpdate")?;
        let next_update = time(&mut tbs, "nextUpdate")?;
        let has_entries = Tag::peek(&tbs).is_ok_and(|tag| tag == Tag::Sequence);
        let revoked = if has_entries { revoked_serials(element(&mut tbs, "entries")?)? } else { Vec::new() };
        let number = number(&mut tbs)?;
        tbs.finish().map_err(broken("TBSCertList"))?;
        let SignedObject { tbs, algorithm, signature } = signed;
        Ok(Self { tbs, issuer, this_update, next_update, number, revoked, algorithm, signature })
    }

    /// The list's number: lists with a lower one are older.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }
    /// The issuer's name in DER.
    #[must_use]
    pub const fn issuer(&self) -> &'a [u8] {
        self.issuer
    }
    /// When it was made.
    #[must_use]
    pub const fn this_update(&self) -> Timestamp {
        self.this_update
    }
    /// Until when it may be used.
    #[must_use]
    pub const fn next_update(&self) -> Timestamp {
        self.next_update
    }

    /// Whether `root` signed this list, in its own name.
    #[must_use]
    pub fn is_of(&self, root: &Certificate<'_>) -> bool {
        root.has_signed(self.tbs, self.algorithm, self.signature) && self.issuer == root.subject()
    }

    /// Whether it may be used `at` that time.
    #[must_use]
    pub fn is_in_force(&self, at: Timestamp) -> bool {
        self.this_update <= at && at <= self.next_update
    }

    /// Whether the certificate's serial number is on it.
    #[must_use]
    pub fn revokes(&self, certificate: &Certificate<'_>) -> bool {
        self.revoked.contains(&certificate.serial())
    }

    /// Whether `root` signed this list, it is in force `at` that time, not older than number `at_least`, and does not revoke
    /// `intermediate`.
    ///
    /// # Errors
    /// A [`Refusal`] with code `crl-signature`, `crl-issuer`, `crl-not-yet-valid`, `crl-stale`, `crl-rollback` or
    /// `intermediate-revoked`.
    pub fn check(
        &self,
        intermediate: &Certificate<'_>,
        root: &Certificate<'_>,
        at: Timestamp,
        at_least: u64,
    ) -> Result<String, Refusal> {
        if !root.has_signed(self.tbs, self.algorithm, self.signature) {
            return Err(Refusal::new(
                "crl-signature",
                format!("{} did not sign the revocation list", root.common_name()),
            ));
        }
        if self.issuer != root.subject() {
            return Err(Refusal::new(
                "crl-issuer",
                format!("the revocation list names another issuer than {}", root.common_name()),
            ));
        }
        self.check_dates(at)?;
        // Before the number: what an old list revokes stays revoked.
        if self.revokes(intermediate) {
            let serial = hex::encode(intermediate.serial());
            let sentence = format!("{} (serial {serial}) is revoked", intermediate.common_name());
            return Err(Refusal::new("intermediate-revoked", sentence));
        }
        if self.number < at_least {
            let sentence = format!("the revocation list has number {}, and {at_least} was seen before", self.number);
            return Err(Refusal::new("crl-rollback", sentence));
        }
        let Self { number, next_update, .. } = self;
        Ok(format!("{} is not revoked by list {number}, in force until {next_update}", intermediate.common_name()))
    }

    /// Whether it may be used `at` that time.
    ///
    /// # Errors
    /// A [`Refusal`] with code `crl-not-yet-valid` or `crl-stale`.
    pub fn check_dates(&self, at: Timestamp) -> Result<(), Refusal> {
        let Self { this_update, next_update, .. } = self;
        if at < *this_update {
            let sentence = format!("the revocation list is of {this_update}, later than {at}");
            return Err(Refusal::new("crl-not-yet-valid", sentence));
        }
        if at > *next_update {
            let sentence =
                format!("the revocation list was in force until {next_update}, now it is {at}: fetch a newer one");
            return Err(Refusal::new("crl-stale", sentence));
        }
        Ok(())
    }
}

/// The serial numbers of the entries.
fn revoked_serials(entries: &[u8]) -> Result<Vec<&[u8]>, CertificateError> {
    let mut reader = sequence_reader("entries", entries)?;
    let mut serials = Vec::new();
    while !reader.is_finished() {
        let mut entry = sequence_reader("entry", element(&mut reader, "entry")?)?;
        serials.push(entry.decode::<UintRef<'_>>().map_err(broken("entry's serial number"))?.as_bytes());
        time(&mut entry, "entry's date")?;
        if !entry.is_finished() {
            let list = entry.decode::<AnyRef<'_>>().map_err(broken("entry's extensions"))?;
            refuse_critical(&parse_extensions(list)?)?;
        }
        entry.finish().map_err(broken("entry"))?;
    }
    Ok(serials)
}

/// The list's number, from its extensions.
fn number(tbs: &mut SliceReader<'_>) -> Result<u64, CertificateError> {
    let list = ContextSpecific::<AnyRef<'_>>::decode_explicit(tbs, TagNumber(0)).map_err(broken("extensions"))?;
    let extensions = list.map_or_else(|| Ok(Vec::new()), |list| parse_extensions(list.value))?;
    refuse_critical(&extensions)?;
    let number = extensions.iter().find(|extension| extension.oid == oid::CRL_NUMBER);
    let number = number.ok_or_else(|| unsupported("extensions", "the list has no number"))?;
    u64::from_der(number.value).map_err(broken("number"))
}

fn refuse_critical(extensions: &[crate::certificate::Extension<'_>]) -> Result<(), CertificateError> {
    match extensions.iter().find(|extension| extension.critical) {
        Some(_) => Err(unsupported("extensions", "a critical one that is not known")),
        None => Ok(()),
    }
}
