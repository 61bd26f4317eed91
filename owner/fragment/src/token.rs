//! Private keys in tokens: hardware security modules and smart cards, by PKCS #11.
//!
//! Digests are made here, so that a token needs CKM_ECDSA, CKM_RSA_PKCS_PSS or CKM_EDDSA and nothing more of a
//! signature's making. The module is the owner's choice and runs within this process.

use std::fs;
use std::path::PathBuf;

use caveau_cose::{Algorithm, Hash, Signer};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

/// Longest URI, and longest file of a PIN, in bytes.
const MAX_BYTES: usize = 4096;

/// A PKCS #11 URI (RFC 7512), as far as it names a private key: token, object and id, the module, and the PIN's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUri {
    token: Option<String>,
    serial: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    module: Option<PathBuf>,
    pin_source: Option<PathBuf>,
}

/// A private key in a token, with whoever owns it logged in.
pub struct TokenKey {
    session: Session,
    key: ObjectHandle,
}

/// Why a token's key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No PKCS #11 URI that is understood.
    #[error("it is no PKCS #11 URI that is understood: {0}")]
    Uri(String),
    /// No module.
    #[error("no module is named: give module-path=FILE in the URI, or the variable CAVEAU_PKCS11_MODULE")]
    NoModule,
    /// The module cannot be loaded or does not work.
    #[error("failed to {act}: {reason}")]
    Module {
        /// What was tried.
        act: &'static str,
        /// What the module said.
        reason: String,
    },
    /// No token, or several.
    #[error("{found} tokens are as the URI says, expected one; there are: {there}")]
    Token {
        /// How many.
        found: usize,
        /// The labels of all.
        there: String,
    },
    /// No key, or several.
    #[error("{0} private keys are as the URI says, expected one: name it by object=NAME or id=%01")]
    Key(usize),
    /// No PIN.
    #[error("the token wants a PIN: give pin-source=FILE in the URI, or the variable CAVEAU_PIN")]
    NoPin,
    /// A PIN's file that cannot be read.
    #[error("failed to read the PIN from {}", path.display())]
    PinFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl TokenUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// [`TokenError::Uri`]: another scheme, an attribute that is not understood, or one that comes twice. A PIN in the
    /// URI itself is refused: it would stand in the list of processes.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let refused = |reason: &str| TokenError::Uri(reason.to_owned());
        let rest = text.strip_prefix("pkcs11:").filter(|_| text.len() <= MAX_BYTES);
        let rest = rest.ok_or_else(|| refused("it does not begin with pkcs11:, or is too long"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self { token: None, serial: None, object: None, id: None, module: None, pin_source: None };
        let attributes = path.split(';').chain(query.split('&')).filter(|part| !part.is_empty());
        for attribute in attributes {
            let (name, value) =
                attribute.split_once('=').ok_or_else(|| refused("an attribute has no `=` and value"))?;
            let bytes = decode(value).ok_or_else(|| refused("a percent sign without two hexadecimal digits"))?;
            let as_text = || String::from_utf8(bytes.clone()).map_err(|_| refused("a value is not UTF-8"));
            let again = match name {
                "token" => uri.token.replace(as_text()?).is_some(),
                "serial" => uri.serial.replace(as_text()?).is_some(),
                "object" => uri.object.replace(as_text()?).is_some(),
                "id" => uri.id.replace(bytes.clone()).is_some(),
                "module-path" => uri.module.replace(as_text()?.into()).is_some(),
                "pin-source" => {
                    let source = as_text()?;
                    uri.pin_source.replace(source.strip_prefix("file:").unwrap_or(&source).into()).is_some()
                }
                "type" if bytes == b"private" => false,
                "pin-value" => {
                    return Err(refused("a PIN in it is seen by everyone: use pin-source=FILE or CAVEAU_PIN"));
                }
                other => return Err(TokenError::Uri(format!("the attribute {other:?} is not understood"))),
            };
            if again {
                return Err(TokenError::Uri(format!("the attribute {name} comes twice")));
            }
        }
        Ok(uri)
    }
}

/// Decodes percent-encoding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

impl TokenKey {
    /// Finds the key that a URI names. `module` and `pin` are used where the URI does not say them.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn open(uri: &TokenUri, module: Option<PathBuf>, pin: Option<AuthPin>) -> Result<Self, TokenError> {
        let module = uri.module.clone().or(module).ok_or(TokenError::NoModule)?;
        let pkcs11 = Pkcs11::new(&module).map_err(failed("load the module"))?;
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        pkcs11.initialize(arguments).map_err(failed("initialise the module"))?;
        let slots = pkcs11.get_slots_with_initialized_token().map_err(failed("list the tokens"))?;
        let (mut fitting, mut there, mut wants_pin) = (Vec::new(), Vec::new(), true);
        for slot in slots {
            let info = pkcs11.get_token_info(slot).map_err(failed("look at a token"))?;
            there.push(info.label().to_owned());
            let fits = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
            if fits(&uri.token, info.label()) && fits(&uri.serial, info.serial_number()) {
                fitting.push(slot);
                wants_pin = info.login_required();
            }
        }
        let [slot] = fitting.as_slice() else {
            return Err(TokenError::Token { found: fitting.len(), there: there.join(", ") });
        };
        let session = pkcs11.open_ro_session(*slot).map_err(failed("open a session"))?;
        if wants_pin {
            let pin = match &uri.pin_source {
                Some(path) => Some(read_pin(path)?),
                None => pin,
            };
            match session.login(UserType::User, Some(&pin.ok_or(TokenError::NoPin)?)) {
                Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
                Err(error) => return Err(failed("log in")(error)),
            }
        }
        let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
        template.extend(uri.object.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec())));
        template.extend(uri.id.as_ref().map(|id| Attribute::Id(id.clone())));
        let keys = session.find_objects(&template).map_err(failed("look for the key"))?;
        let [key] = keys.as_slice() else { return Err(TokenError::Key(keys.len())) };
        Ok(Self { key: *key, session })
    }
}

fn read_pin(path: &PathBuf) -> Result<AuthPin, TokenError> {
    let text = fs::read_to_string(path).map_err(|source| TokenError::PinFile { path: path.clone(), source })?;
    Ok(AuthPin::new(text.trim_end_matches(['\r', '\n']).chars().take(MAX_BYTES).collect::<String>().into()))
}

impl Signer for TokenKey {
    type Error = TokenError;

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let (mechanism, data) = match algorithm {
            Algorithm::Es256 => (Mechanism::Ecdsa, Hash::Sha256.digest(message)),
            Algorithm::Es384 => (Mechanism::Ecdsa, Hash::Sha384.digest(message)),
            Algorithm::Es512 => (Mechanism::Ecdsa, Hash::Sha512.digest(message)),
            Algorithm::Ps256 => pss(Hash::Sha256, message),
            Algorithm::Ps384 => pss(Hash::Sha384, message),
            Algorithm::Ps512 => pss(Hash::Sha512, message),
            Algorithm::EdDsa => (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), message.to_vec()),
        };
        self.session.sign(&mechanism, self.key, &data).map_err(failed("sign"))
    }
}

/// How to sign with RSASSA-PSS, and what.
fn pss(hash: Hash, message: &[u8]) -> (Mechanism<'static>, Vec<u8>) {
    let (hash_alg, mgf, salt) = match hash {
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32_u64),
        Hash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
        Hash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
    };
    (Mechanism::RsaPkcsPss(PkcsPssParams { hash_alg, mgf, s_len: salt.into() }), hash.digest(message))
}

fn failed(act: &'static str) -> impl Fn(Error) -> TokenError {
    move |error| TokenError::Module { act, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read() {
        let uri = TokenUri::parse(
            "pkcs11:token=My%20token;object=signer;id=%01%ff;type=private\
             ?module-path=/lib/x.so&pin-source=file:/run/pin",
        )
        .unwrap();
        assert_eq!(uri.token.as_deref(), Some("My token"));
        assert_eq!((uri.object.as_deref(), uri.id.as_deref()), (Some("signer"), Some(&[1, 0xff][..])));
        assert_eq!(uri.module, Some("/lib/x.so".into()));
        assert_eq!(uri.pin_source, Some("/run/pin".into()));
        assert_eq!(TokenUri::parse("pkcs11:").unwrap().token, None);
    }

    #[test]
    fn other_uris_are_refused() {
        for (text, reason) in [
            ("token=x", "pkcs11:"),
            ("pkcs11:token", "no `=`"),
            ("pkcs11:token=%2", "percent"),
            ("pkcs11:token=%ff", "UTF-8"),
            ("pkcs11:token=a;token=b", "twice"),
            ("pkcs11:slot-id=1", "not understood"),
            ("pkcs11:type=cert", "not understood"),
            ("pkcs11:token=a?pin-value=1234", "seen by everyone"),
        ] {
            let said = TokenUri::parse(text).unwrap_err().to_string();
            assert!(said.contains(reason), "{text}: {said}");
        }
    }

    #[test]
    fn a_module_that_is_none_is_said() {
        let uri = TokenUri::parse("pkcs11:token=x").unwrap();
        assert!(matches!(TokenKey::open(&uri, None, None), Err(TokenError::NoModule)));
        let open = TokenKey::open(&uri, Some("/nonexistent.so".into()), None);
        assert!(matches!(open, Err(TokenError::Module { act: "load the module", .. })));
    }
}
