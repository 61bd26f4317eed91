//! Answers to a registry's challenge: basic authentication and tokens (distribution project, "Token Authentication
//! Specification" and "Oauth2 Token Authentication").

use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::http::{Failure, Session, shown};
use crate::RegistryError;

/// Bytes that a token server's answer may have.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// The beginning of the form by which an identity token is exchanged.
const GRANT: &str = "grant_type=refresh_token&client_id=caveau&refresh_token=";

/// The value of an `Authorization` header. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorization(Arc<Zeroizing<String>>);

impl Authorization {
    fn new(value: String) -> Self {
        Self(Arc::new(Zeroizing::new(value)))
    }

    fn basic(user: &str, password: &str) -> Self {
        let pair = Zeroizing::new(format!("{user}:{password}"));
        Self::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
    }

    /// The header's value.
    pub(super) fn header(&self) -> &str {
        &self.0
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<Zeroizing<String>>,
    #[serde(default)]
    access_token: Option<Zeroizing<String>>,
}

/// A login to be made.
pub(super) struct Login<'s, 'a>(pub(super) &'s Session<'a>);

impl Login<'_, '_> {
    /// What to send from now on.
    pub(super) fn answer(&self, challenge: &Challenge) -> Result<Authorization, Failure> {
        let credentials = Credentials::find(self.0.reference, self.0.options.docker_config.as_deref())?;
        match challenge {
            Challenge::Basic => match credentials {
                Some(Credentials::Password { user, password }) => Ok(Authorization::basic(&user, &password)),
                Some(Credentials::IdentityToken(_)) => {
                    Err(self.0.denied("it wants a password and the login holds an identity token").into())
                }
                None => Err(self.0.denied("it wants a login and there is none for it").into()),
            },
            Challenge::Bearer { realm, service, scope } => {
                let pull = format!("repository:{}:pull", self.0.reference.repository());
                let scope = scope.as_deref().unwrap_or(&pull);
                self.token(realm, service.as_deref(), scope, credentials)
            }
        }
    }

    /// Gets a token. The session refuses a token server without HTTPS before anything is sent.
    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<Credentials>,
    ) -> Result<Authorization, Failure> {
        let mut form = format!("scope={}", encode(scope).as_str());
        if let Some(service) = service {
            // Writing to a string does not fail.
            let _ = write!(form, "&service={}", encode(service).as_str());
        }
        let joined = |realm: &str| format!("{realm}{}{form}", if realm.contains('?') { '&' } else { '?' });
        let response = match &credentials {
            Some(Credentials::IdentityToken(token)) => {
                let token = encode(token);
                let form = Zeroizing::new([GRANT, &token, "&", &form].concat());
                self.0.send_form(realm, &form)?
            }
            Some(Credentials::Password { user, password }) => {
                let basic = Authorization::basic(user, password);
                self.0.send(&joined(realm), &[(AUTHORIZATION.as_str(), basic.header())])?
            }
            None => self.0.send(&joined(realm), &[])?,
        };
        if !response.status().is_success() {
            return Err(self.0.failure(realm, response));
        }
        let mut body = Zeroizing::new(Vec::new());
        let read = response.into_body().into_reader().take(MAX_TOKEN_BYTES).read_to_end(&mut body);
        let protocol = |reason: &str| RegistryError::Protocol { url: shown(realm), reason: reason.to_owned() };
        read.map_err(|error| protocol(&error.to_string()))?;
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| protocol("its answer is not a token in JSON"))?;
        let token = answer.token.or(answer.access_token).filter(|token| is_token(token));
        let token = token.ok_or_else(|| protocol("its answer holds no token"))?;
        Ok(Authorization::new(format!("Bearer {}", token.as_str())))
    }
}

/// Whether a text can stand in a header as a token.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3).
fn encode(text: &str) -> Zeroizing<String> {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Zeroizing::new(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_cannot_be_broken_out_of() {
        assert_eq!(encode("repository:a/b:pull&x=y z").as_str(), "repository%3Aa%2Fb%3Apull%26x%3Dy%20z");
    }

    #[test]
    fn tokens_cannot_break_out_of_the_header() {
        assert!(is_token("eyJ0.eXAi-_="));
        for bad in ["", "a b", "a\r\nHost: evil", "tök"] {
            assert!(!is_token(bad), "{bad:?}");
        }
        assert_eq!(Authorization::basic("user", "pass:word").header(), "Basic dXNlcjpwYXNzOndvcmQ=");
    }
}
