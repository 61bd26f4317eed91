//! `caveau fragment sign`.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use caveau_cose::{Certificate, DidX509, Draft, Form, Hash, Policy, Signer, oid};
use caveau_fragment::{AuthPin, FragmentText, PrivateKey, TokenKey, TokenUri, pem};
use zeroize::Zeroizing;

use super::{now, read};
use crate::{args, exit::Outcome, files, ui};

/// The attribute type commonName.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// Runs it.
///
/// # Errors
/// Where what was given is wrong or does not go together, or cannot be read or written.
pub(super) fn run(command: &args::FragmentSign, quiet: bool) -> Result<Outcome> {
    let output = output(command)?;
    let payload = read(&command.file)?;
    let fragment = if command.content_type == args::FRAGMENT_CONTENT { Some(fragment(&payload)?) } else { None };
    let chain = fs::read_to_string(&command.chain);
    let chain = chain.with_context(|| format!("failed to read the chain {}", command.chain.display()))?;
    let certificates = pem::certificates(&chain).with_context(|| format!("in {}", command.chain.display()))?;
    let ders: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
    let issuer = match &command.issuer {
        Some(issuer) => issuer.clone(),
        None => default_issuer(&ders)?.to_string(),
    };
    let form = match command.form {
        args::FormChoice::Legacy => Form::Legacy,
        args::FormChoice::Claims => Form::Claims,
    };
    let own_svn = fragment.as_ref().and_then(|fragment| fragment.svn.as_deref());
    let svn = match (form, command.svn, own_svn) {
        (_, Some(svn), Some(own)) if own.parse() != Ok(svn) => {
            bail!("--svn {svn}: the fragment itself says {own}, and guests want both to be the same")
        }
        (Form::Claims, None, Some(own)) => {
            Some(own.parse().with_context(|| format!("the fragment's svn {own:?} is no number for the envelope"))?)
        }
        (_, given, _) => given,
    };
    let draft = Draft {
        payload: &payload,
        content_type: &command.content_type,
        issuer: &issuer,
        feed: &command.feed,
        svn,
        signing_time: Some(now()?),
        form,
        chain: &ders,
    };
    let signed = match (&command.key, &command.pkcs11) {
        (Some(file), _) => seal(&draft, &private_key(file)?, command)?,
        (None, Some(uri)) => seal(&draft, &token_key(uri)?, command)?,
        (None, None) => bail!("give the signer's key with --key FILE or --pkcs11 URI"),
    };
    if output == Path::new("-") {
        io::stdout().lock().write_all(&signed).context("failed to write to standard output")?;
        return Ok(Outcome::Done);
    }
    files::write(&output, &signed)?;
    ui::note(quiet, &format!("signed by {issuer} into {}", output.display()));
    if let Some(fragment) = fragment {
        let svn = svn.map(|svn| svn.to_string());
        ui::json(&fragment.import(&issuer, &command.feed, svn.as_deref()))?;
    }
    Ok(Outcome::Done)
}

fn output(command: &args::FragmentSign) -> Result<PathBuf> {
    match &command.output {
        Some(output) => Ok(output.clone()),
        None if command.file == Path::new("-") => bail!("give --output FILE: standard input has no name"),
        None => {
            let mut name = command.file.clone().into_os_string();
            name.push(".cose");
            Ok(name.into())
        }
    }
}

fn fragment(payload: &[u8]) -> Result<FragmentText> {
    let text = std::str::from_utf8(payload).context("the fragment is not UTF-8")?;
    FragmentText::parse(text).context("the file is no fragment (for other contents, give their --content-type)")
}

fn seal<S: Signer>(draft: &Draft<'_>, signer: &S, command: &args::FragmentSign) -> Result<Vec<u8>>
where
    S::Error: std::error::Error + Send + Sync + 'static,
{
    Ok(draft.sign(signer, command.algorithm)?)
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
