//! Logins from Docker's configuration (`$DOCKER_CONFIG/config.json`, `~/.docker/config.json`) and credential helpers.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use caveau_oci::Reference;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::RegistryError;

/// The key under which logins to Docker's own registry are kept.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name by which a helper says that its secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// Bytes that the configuration may have.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Bytes that are taken of a helper's answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// A login. It is never shown.
pub(super) enum Credentials {
    /// A user name and a password.
    Password { user: String, password: Zeroizing<String> },
    /// A token to be exchanged for others.
    IdentityToken(Zeroizing<String>),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, AuthEntry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<Zeroizing<String>>,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
    identitytoken: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: Zeroizing<String>,
}

impl Credentials {
    /// The login for the registry of `reference`, if the user has one in the configuration in `dir`.
    pub(super) fn find(reference: &Reference, dir: Option<&Path>) -> Result<Option<Self>, RegistryError> {
        match dir {
            Some(dir) => Self::find_in(&dir.join("config.json"), reference.registry()),
            None => Ok(None),
        }
    }

    /// The login for `registry` by the configuration at `path`, which need not exist.
    fn find_in(path: &Path, registry: &str) -> Result<Option<Self>, RegistryError> {
        let bad = |reason: String| RegistryError::Credentials { place: path.to_owned(), reason };
        let text = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Ok(found) if found.len() > MAX_CONFIG_BYTES => return Err(bad("it is too large".to_owned())),
            _ => Zeroizing::new(std::fs::read(path).map_err(|error| bad(error.to_string()))?),
        };
        // The parser's message may quote a secret: its place is told and not its text.
        let config: DockerConfig = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("it is not valid at line {}, column {}", error.line(), error.column())))?;
        let key = if registry == "docker.io" { DOCKER_HUB_KEY } else { registry };
        if let Some(helper) = config.cred_helpers.get(key).or_else(|| config.cred_helpers.get(registry)) {
            return ask_helper(helper, key);
        }
        if let Some(helper) = config.creds_store.as_deref().filter(|helper| !helper.is_empty())
            && let Some(found) = ask_helper(helper, key)?
        {
            return Ok(Some(found));
        }
        let entry = config
            .auths
            .get(key)
            .or_else(|| config.auths.iter().find(|(there, _)| host_of(there) == host_of(key)).map(|(_, entry)| entry));
        match entry {
            Some(entry) => entry.credentials().map_err(|reason| bad(format!("login for {registry}: {reason}"))),
            None => Ok(None),
        }
    }
}

impl AuthEntry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::IdentityToken(token.clone())));
        }
        if let (Some(user), Some(password)) = (&self.username, &self.password)
            && !user.is_empty()
        {
            return Ok(Some(Credentials::Password { user: user.clone(), password: password.clone() }));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let decoded = STANDARD.decode(auth.as_bytes()).or_else(|_| STANDARD_NO_PAD.decode(auth.as_bytes()));
        let decoded = Zeroizing::new(decoded.map_err(|_| "auth is not base64")?);
        let text = std::str::from_utf8(&decoded).map_err(|_| "auth is not UTF-8")?;
        let (user, password) = text.split_once(':').ok_or("auth is not user:password")?;
        // Some old versions of Docker padded the password with NUL bytes.
        let password = Zeroizing::new(password.trim_end_matches('\0').to_owned());
        Ok(Some(Credentials::Password { user: user.to_owned(), password }))
    }
}

/// The folder where Docker keeps its configuration.
pub(crate) fn config_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")))
}

/// The host of a key, which may be a URL.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

/// Asks `docker-credential-<helper>` (docker-credential-helpers, "get": the server on standard input, JSON back).
fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let program = PathBuf::from(format!("docker-credential-{helper}"));
    if !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        let reason = "the helper's name in config.json must be letters, digits, '.', '_' or '-'".to_owned();
        return Err(RegistryError::Credentials { place: program, reason });
    }
    ask_program(&program, server)
}

/// Asks a helper by its program.
fn ask_program(program: &Path, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let bad = |reason: String| RegistryError::Credentials { place: program.to_owned(), reason };
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| bad(format!("{error}; install it or take it out of config.json")))?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that answers without reading is no error.
        let _ = input.write_all(server.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| bad(error.to_string()))?;
    let answer = Zeroizing::new(output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&answer);
        let nothing =
            said.to_lowercase().contains("credentials not found") || said.contains("no credentials server URL");
        let words: String = said.trim().chars().take(200).collect();
        return if nothing { Ok(None) } else { Err(bad(format!("it failed ({}): {words}", output.status))) };
    }
    if answer.len() > MAX_ANSWER_BYTES {
        return Err(bad("its answer is too long".to_owned()));
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&answer).map_err(|_| bad("its answer is not Username and Secret in JSON".to_owned()))?;
    let HelperAnswer { username, secret } = answer;
    Ok(Some(match username.as_str() {
        TOKEN_USER => Credentials::IdentityToken(secret),
        _ => Credentials::Password { user: username, password: secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &str, registry: &str) -> Result<Option<Credentials>, RegistryError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        Credentials::find_in(&path, registry)
    }

    fn password(config: &str, registry: &str) -> Option<(String, String)> {
        match find(config, registry).unwrap() {
            Some(Credentials::Password { user, password }) => Some((user, password.to_string())),
            Some(Credentials::IdentityToken(token)) => Some((TOKEN_USER.to_owned(), token.to_string())),
            None => None,
        }
    }

    #[test]
    fn finds_logins_by_host_and_url() {
        let config = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnNlY3JldA=="},
            "localhost:5000":{"auth":"dXNlcjpwYXNzOndvcmQ="},
            "https://quay.example/v2/":{"username":"a","password":"b"},
            "empty.example":{}, "token.example":{"auth":"","identitytoken":"t"}},"HttpHeaders":{"x":"y"}}"#;
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(password(config, "docker.io"), pair("hub", "secret"));
        assert_eq!(password(config, "localhost:5000"), pair("user", "pass:word"));
        assert_eq!(password(config, "quay.example"), pair("a", "b"));
        assert_eq!(password(config, "token.example"), pair(TOKEN_USER, "t"));
        for registry in ["empty.example", "localhost:5001", "localhost", "other.example"] {
            assert_eq!(password(config, registry), None, "{registry}");
        }
    }

    #[test]
    fn errors_say_where_and_never_what() {
        let secret = "c2VjcmV0";
        for config in [
            format!(r#"{{"auths":{{"r.example":{{"auth":"{secret}"}}}}}}"#),
            format!(r#"{{"auths":{{"r.example":{{"auth":["{secret}"]}}}}}}"#),
            format!(r#"{{"auths":{{"r.example":{{"auth":"{secret}!"}}}}}}"#),
        ] {
            let error = find(&config, "r.example").err().map(|error| error.to_string()).unwrap();
            assert!(
                error.contains("config.json") && !error.contains("c2VjcmV0") && !error.contains("secret"),
                "{error}"
            );
        }
        let missing = Path::new("/nonexistent/config.json");
        assert!(Credentials::find_in(missing, "r.example").unwrap().is_none());
    }

    #[test]
    fn a_helper_cannot_be_a_path() {
        let error = find(r#"{"credsStore":"../../tmp/evil"}"#, "r.example").err().unwrap().to_string();
        assert!(error.contains("name in config.json"), "{error}");
        let error = find(r#"{"credHelpers":{"r.example":"does-not-exist"}}"#, "r.example").err().unwrap().to_string();
        assert!(error.contains("docker-credential-does-not-exist"), "{error}");
    }

    #[test]
    fn helpers_are_asked_as_docker_asks_them() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let ask = |name: &str, script: &str| {
            let program = dir.path().join(name);
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            // A file that is still open for writing in a thread that forks at this moment cannot be started yet.
            loop {
                match ask_program(&program, "r.example") {
                    Err(error) if error.to_string().contains("Text file busy") => {}
                    result => break result,
                }
            }
        };
        let script = r#"[ "$1" = get ] && printf '{"ServerURL":"x","Username":"%s","Secret":"s"}' "$(cat)""#;
        let Some(Credentials::Password { user, password }) = ask("echo", script).unwrap() else { panic!("no login") };
        assert_eq!((user.as_str(), password.as_str()), ("r.example", "s"));
        let token = ask("token", r#"echo '{"Username":"<token>","Secret":"t"}'"#).unwrap();
        assert!(matches!(token, Some(Credentials::IdentityToken(token)) if token.as_str() == "t"));
        let nothing = "echo credentials not found in native keychain; exit 1";
        assert!(ask("nothing", nothing).unwrap().is_none());
        let locked = ask("locked", "echo the keychain is locked; exit 1").err().unwrap().to_string();
        assert!(locked.contains("keychain is locked"), "{locked}");
        let junk = ask("junk", "echo s3cret").err().unwrap().to_string();
        assert!(junk.contains("not Username and Secret") && !junk.contains("s3cret"), "{junk}");
    }
}
