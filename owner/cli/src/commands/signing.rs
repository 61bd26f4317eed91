//! Signing: an envelope around a content, with a key from a file or a token.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use caveau_cose::{Certificate, DidX509, Draft, Form, Hash, Policy, Signer, oid};
use caveau_fragment::{AuthPin, PrivateKey, TokenKey, TokenUri, pem};
use zeroize::Zeroizing;

use crate::{args, files, units::now};

/// The attribute type commonName.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// Who signs, and how.
pub(super) struct Signatory<'a> {
    options: &'a args::Signing,
    certificates: Vec<Vec<u8>>,
    /// The signer's did:x509.
    pub(super) issuer: String,
    /// Where envelopes say it.
    pub(super) form: Form,
}

/// What is signed.
pub(super) struct Content<'a> {
    /// The bytes.
    pub(super) payload: &'a [u8],
    /// Their media type.
    pub(super) content_type: &'a str,
    /// What they are about.
    pub(super) feed: &'a str,
    /// Their security version, for the envelope; with [`Form::Claims`] alone.
    pub(super) svn: Option<i64>,
}

impl<'a> Signatory<'a> {
    /// Reads the signer's chain.
    ///
    /// # Errors
    /// Where it cannot be read, or does not say how to name the signer.
    pub(super) fn new(options: &'a args::Signing) -> Result<Self> {
        let chain = files::read_text(&options.chain, files::MAX_DOCUMENT)?;
        let certificates = pem::certificates(&chain).with_context(|| format!("in {}", options.chain.display()))?;
        let issuer = match &options.issuer {
            Some(issuer) => issuer.clone(),
            None => default_issuer(&ders(&certificates))?.to_string(),
        };
        let form = match options.form {
            args::FormChoice::Legacy => Form::Legacy,
            args::FormChoice::Claims => Form::Claims,
        };
        Ok(Self { options, certificates, issuer, form })
    }

    /// Signs, now.
    ///
    /// # Errors
    /// Where the key cannot be used, or what it signs would be refused.
    pub(super) fn sign(&self, content: &Content<'_>) -> Result<Vec<u8>> {
        let draft = Draft {
            payload: content.payload,
            content_type: content.content_type,
            issuer: &self.issuer,
            feed: content.feed,
            svn: content.svn,
            signing_time: Some(now()?),
            form: self.form,
            chain: &ders(&self.certificates),
        };
        match (&self.options.key, &self.options.pkcs11) {
            (Some(file), _) => self.seal(&draft, &private_key(file)?),
            (None, Some(uri)) => self.seal(&draft, &token_key(uri)?),
            (None, None) => bail!("give the signer's key with --key FILE or --pkcs11 URI"),
        }
    }

    fn seal<S: Signer>(&self, draft: &Draft<'_>, signer: &S) -> Result<Vec<u8>>
    where
        S::Error: std::error::Error + Send + Sync + 'static,
    {
        Ok(draft.sign(signer, self.options.algorithm)?)
    }
}

fn ders(certificates: &[Vec<u8>]) -> Vec<&[u8]> {
    certificates.iter().map(Vec::as_slice).collect()
}

fn private_key(file: &Path) -> Result<PrivateKey> {
    let text = fs::read_to_string(file).with_context(|| format!("failed to read the key {}", file.display()))?;
    PrivateKey::from_pem(&Zeroizing::new(text)).with_context(|| format!("failed to use the key {}", file.display()))
}

/// A key in a token; what its URI does not say comes from the environment.
fn token_key(uri: &str) -> Result<TokenKey> {
    let parsed = TokenUri::parse(uri).context("--pkcs11")?;
    let module = env::var_os("CAVEAU_PKCS11_MODULE").map(PathBuf::from);
    let pin = env::var("CAVEAU_PIN").ok().map(|pin| AuthPin::new(pin.into()));
    Ok(TokenKey::open(&parsed, module, pin)?)
}

/// The signer's name by the last certificate of its chain, and by its extended key usage: one of its authority's own
/// where there is one, since other tools do not take the standard ones alone. Without any, by its common name.
fn default_issuer(ders: &[&[u8]]) -> Result<DidX509> {
    let last = ders.len().saturating_sub(1);
    let leaf = ders.first().filter(|_| last > 0);
    let leaf = leaf.context("the chain has one certificate: an authority must follow the signer's own")?;
    let leaf = Certificate::parse(leaf).context("the signer's certificate cannot be read")?;
    let own = leaf.extended_key_usage().iter().find(|usage| !is_standard(usage));
    let name = leaf.subject_attributes().iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let name: Vec<_> = name.filter_map(|attribute| attribute.value).collect();
    let policy = match (own, name.as_slice()) {
        (Some(usage), _) => Policy::Eku(usage.to_vec()),
        (None, [name]) => Policy::Subject(vec![(COMMON_NAME.to_vec(), (*name).to_owned())]),
        _ => bail!("the signer's certificate has no extended key usage and no common name: give --issuer DID"),
    };
    DidX509::of(ders, last, Hash::Sha256, &[policy]).context("the signer cannot be named: give --issuer DID")
}

/// Whether a usage is one that RFC 5280 defines, or any.
fn is_standard(usage: &[u8]) -> bool {
    let dotted = oid::to_dotted(usage);
    dotted.starts_with("1.3.6.1.5.5.7.3.") || dotted == "2.5.29.37.0"
}
