//! The authorities of an installation: its root (ARK) and the intermediates under it (ASK, ASVK).

use std::path::PathBuf;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PSS_SHA384, RsaKeyPair};
use caveau_snp::build::{CertificateSpec, Role, assemble, certificate_tbs, rsa_spki};
use caveau_snp::certificate::Certificate;
use caveau_snp::pem;
use caveau_snp::software::root_id;

use crate::CryptoError;
use crate::state::{StateError, StateFolder};

/// Seconds of an hour: certificates begin that much before they are made, for clocks that are a little behind.
pub(crate) const HOUR: u64 = 3600;
/// Seconds of a year.
pub(crate) const YEAR: u64 = 365 * 24 * HOUR;

/// How long an authority's certificate holds: as AMD's.
const AUTHORITY_YEARS: u64 = 20;

/// Which authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The root.
    Ark,
    /// The intermediate for chips' keys.
    Ask,
    /// The intermediate for providers' keys.
    Asvk,
}

/// An authority: its key, and its certificate, which is made once since its signature is randomised.
pub(crate) struct Authority {
    key: RsaKeyPair,
    certificate: Vec<u8>,
    folder: PathBuf,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Ark => "ark",
            Self::Ask => "ask",
            Self::Asvk => "asvk",
        }
    }

    fn role(self) -> Role<'static> {
        match self {
            Self::Ark => Role::Ark,
            Self::Ask => Role::Ask,
            Self::Asvk => Role::Asvk,
        }
    }
}

impl Authority {
    /// The root of the installation.
    pub(crate) fn root(state: &StateFolder) -> Result<Self, StateError> {
        state.authority(Kind::Ark)
    }

    /// The authority as it was made earlier, or a new one. An intermediate needs the root, which is then made first.
    pub(crate) fn load_or_make(state: &StateFolder, kind: Kind) -> Result<Self, StateError> {
        match Self::load(state, kind)? {
            Some(authority) => Ok(authority),
            None => Self::make(state, kind),
        }
    }

    fn load(state: &StateFolder, kind: Kind) -> Result<Option<Self>, StateError> {
        let names = ["key", "certificate.der"].map(|file| format!("{}/{file}", kind.folder()));
        let [key_name, certificate_name] = &names;
        let Some(key) = state.read(key_name)? else { return Ok(None) };
        let key = RsaKeyPair::from_pkcs8(&key).map_err(|_| state.damaged(key_name, "it holds no RSA key"))?;
        let damaged = |problem| state.damaged(certificate_name, problem);
        let certificate = state.read(certificate_name)?.ok_or_else(|| damaged("it is missing"))?.to_vec();
        let parsed = Certificate::parse(&certificate).map_err(|_| damaged("it is no certificate"))?;
        if parsed.spki() != spki(&key) {
            return Err(damaged("it is of another key"));
        }
        Ok(Some(Self { key, certificate, folder: state.entry(kind.folder()) }))
    }

    fn make(state: &StateFolder, kind: Kind) -> Result<Self, StateError> {
        let key = RsaKeyPair::generate(KeySize::Rsa4096).map_err(CryptoError::at("make an RSA key"))?;
        let root = if kind == Kind::Ark { None } else { Some(Self::root(state)?) };
        let root_key = root.as_ref().map_or(&key, |root| &root.key);
        let tbs = certificate_tbs(&CertificateSpec {
            role: kind.role(),
            root_id: &root_id(&spki(root_key)),
            not_before: state.now().minus_seconds(HOUR),
            not_after: state.now().plus_seconds(AUTHORITY_YEARS * YEAR),
            public_key: &spki(&key),
        });
        let certificate = assemble(&tbs, &sign(root_key, &tbs)?);
        let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).map_err(CryptoError::at("write an RSA key"))?;
        let text = pem::certificate(&certificate);
        let files: [(&str, &[u8]); 3] =
            [("key", private.as_ref()), ("certificate.der", &certificate), ("certificate.pem", text.as_bytes())];
        state.write_folder(kind.folder(), &files)?;
        Ok(Self { key, certificate, folder: state.entry(kind.folder()) })
    }

    /// The certificate, DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The certificate, PEM.
    pub(crate) fn pem(&self) -> String {
        pem::certificate(&self.certificate)
    }

    /// Where the certificate lies as PEM.
    pub(crate) fn pem_path(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    /// The identity of the installation, if this is its root.
    pub(crate) fn id(&self) -> String {
        root_id(&spki(&self.key))
    }

    /// A certificate or revocation list with this to-be-signed part, signed.
    pub(crate) fn issue(&self, tbs: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Ok(assemble(tbs, &sign(&self.key, tbs)?))
    }
}

fn spki(key: &RsaKeyPair) -> Vec<u8> {
    rsa_spki(key.public_key().as_ref())
}

/// RSASSA-PSS with SHA-384 and a salt of 48 bytes.
fn sign(key: &RsaKeyPair, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), message, &mut signature)
        .map_err(CryptoError::at("sign a certificate"))?;
    Ok(signature)
}
