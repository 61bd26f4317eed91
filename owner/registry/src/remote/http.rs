//! Requests to one registry: scheme, login, redirects, retries.
//!
//! - Plain HTTP and unverified TLS only to hosts that may be insecure: loopback ones and those that the user named. That
//!   holds for every URL: a redirect or a token server elsewhere must use verified HTTPS.
//! - A login is sent to the registry and its token server, never along a redirect to another host.
//! - Only GET (and one POST for tokens) here, so everything may be tried again: broken connections, time-outs, 408, 429 and 5xx,
//!   with pauses that double. Where nobody is (a refused connection, a name that is unknown), that is said at once.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caveau_oci::Reference;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body, Proxy};

use super::auth::{Authorization, Login};
use super::proxy::is_loopback;
use super::{challenge, tls};
use crate::{Event, Options, Progress, RegistryError, Retry};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Bytes of an error's body that are looked at.
const MAX_ERROR_BYTES: u64 = 16 << 10;
/// Time for a connection, its TLS included.
const CONNECT_TIME: Duration = Duration::from_secs(20);
/// Time without a byte after which a connection counts as broken.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// The host that serves the images of `docker.io`.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// One registry and the way to it.
pub(super) struct Session<'a> {
    pub(super) reference: &'a Reference,
    pub(super) options: &'a Options,
    progress: &'a dyn Progress,
    pub(super) base: String,
    agents: Mutex<BTreeMap<(bool, Option<String>), Agent>>,
    authorization: Mutex<Option<Authorization>>,
}

/// A request that did not give what was asked for.
pub(crate) enum Failure {
    /// Trying again will not help.
    Final(RegistryError),
    /// It may help, after the pause that the server asks for, if it does.
    Passing(RegistryError, Option<Duration>),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Final(error)
    }
}

impl<'a> Session<'a> {
    /// Finds out how to reach the registry of `reference`.
    pub(super) fn connect(
        reference: &'a Reference,
        options: &'a Options,
        progress: &'a dyn Progress,
    ) -> Result<Self, RegistryError> {
        let host = if reference.registry() == "docker.io" { DOCKER_HUB_HOST } else { reference.registry() };
        let mut session = Self {
            reference,
            options,
            progress,
            base: format!("https://{host}"),
            agents: Mutex::default(),
            authorization: Mutex::default(),
        };
        if session.may_be_insecure(host) {
            session.base = session.find_scheme(host)?;
        }
        Ok(session)
    }

    /// HTTPS if the host speaks it, else HTTP.
    fn find_scheme(&self, host: &str) -> Result<String, RegistryError> {
        let answers = |base: &str| self.send(&format!("{base}/v2/"), &[]).map(drop);
        let secure = format!("https://{host}");
        let Err(over_https) = answers(&secure) else { return Ok(secure) };
        let plain = format!("http://{host}");
        match answers(&plain) {
            Ok(()) => Ok(plain),
            // The scheme does not matter to a host that does not answer at all.
            Err(Failure::Final(error) | Failure::Passing(error, _)) => match over_https {
                Failure::Final(first) => Err(first),
                Failure::Passing(..) => Err(error),
            },
        }
    }

    /// Whether `authority` (host, or host and port) may be reached without verified TLS.
    pub(super) fn may_be_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        is_loopback(host) || self.options.insecure_registries.iter().any(|there| there == authority || there == host)
    }

    /// A small document of the repository and its media type, checked for size while it is read.
    pub(super) fn document(
        &self,
        path: &str,
        accept: Option<&str>,
        limit: u64,
    ) -> Result<(Vec<u8>, Option<String>), RegistryError> {
        self.with_retries(|| {
            let headers: Vec<_> = accept.iter().map(|accept| (ACCEPT.as_str(), *accept)).collect();
            let (url, response) = self.once(path, &headers)?;
            let media_type = header(&response, CONTENT_TYPE.as_str()).map(str::to_owned);
            let mut content = Vec::new();
            let read = response.into_body().into_reader().take(limit + 1).read_to_end(&mut content);
            if let Err(error) = read {
                return Err(Failure::Passing(RegistryError::Unreachable { url, reason: error.to_string() }, None));
            }
            if content.len() as u64 > limit {
                return Err(RegistryError::TooLarge { what: url, limit }.into());
            }
            Ok((content, media_type))
        })
    }

    /// A large blob from the byte `from` on, asked for once; its URL is given back for errors.
    pub(super) fn blob(&self, path: &str, from: u64) -> Result<(String, Response<Body>), Failure> {
        let range = format!("bytes={from}-");
        let headers = [(RANGE.as_str(), range.as_str())];
        self.once(path, if from > 0 { &headers } else { &[] })
    }

    /// Does `attempt` until it works, fails for good, or has failed too often.
    pub(super) fn with_retries<T>(&self, attempt: impl Fn() -> Result<T, Failure>) -> Result<T, RegistryError> {
        with_retries(self.options.retry, self.progress, attempt)
    }

    /// Waits before the next attempt, or gives up with `error`.
    pub(super) fn pause(
        &self,
        failures: u32,
        error: RegistryError,
        wanted: Option<Duration>,
    ) -> Result<(), RegistryError> {
        pause(self.options.retry, self.progress, failures, error, wanted)
    }

    /// One request for something of the repository, with login and redirects; the answer is a success.
    fn once(&self, path: &str, headers: &[(&str, &str)]) -> Result<(String, Response<Body>), Failure> {
        let first = format!("{}/v2/{}/{path}", self.base, self.reference.repository());
        let (mut url, mut logged_in, mut redirects) = (first.clone(), false, 0);
        loop {
            let at_home = authority_of(&url) == authority_of(&first) && scheme_of(&url) == scheme_of(&first);
            let used = if at_home { self.authorization() } else { None };
            let mut all = headers.to_vec();
            all.extend(used.as_ref().map(|used| (AUTHORIZATION.as_str(), used.header())));
            let response = self.send(&url, &all)?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok((url, response)),
                status if status.is_redirection() => {
                    redirects += 1;
                    url = redirect(&url, &response, redirects)?;
                }
                StatusCode::UNAUTHORIZED if at_home && !logged_in => {
                    logged_in = true;
                    self.log_in(&response, used.as_ref())?;
                }
                _ => return Err(self.failure(&url, response)),
            }
        }
    }

    pub(super) fn authorization(&self) -> Option<Authorization> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers the challenge in `response`. `used` is what the request carried: another thread may know better by now.
    pub(super) fn log_in(&self, response: &Response<Body>, used: Option<&Authorization>) -> Result<(), Failure> {
        let mut current = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref() != used {
            return Ok(());
        }
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let Some(challenge) = challenge::parse(headers.iter().filter_map(|value| value.to_str().ok())) else {
            return Err(self.denied("it wants a login of a kind that is not supported").into());
        };
        *current = Some(Login(self).answer(&challenge)?);
        Ok(())
    }

    /// An error about the whole image.
    pub(super) fn denied(&self, reason: &str) -> RegistryError {
        RegistryError::Denied {
            what: self.reference.to_string(),
            registry: self.reference.registry().to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// One GET without login, redirects or retries; any status is an answer.
    pub(super) fn send(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, Failure> {
        let agent = self.agent(url)?;
        let mut request = agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.call().map_err(|error| failed(url, &error))
    }

    /// One POST of a form, as [`send`](Self::send).
    pub(super) fn send_form(&self, url: &str, form: &str) -> Result<Response<Body>, Failure> {
        let request = self.agent(url)?.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.send(form).map_err(|error| failed(url, &error))
    }

    /// The client for `url`, by proxy and by whether certificates are verified.
    pub(super) fn agent(&self, url: &str) -> Result<Agent, RegistryError> {
        let protocol = |reason: &str| RegistryError::Protocol { url: shown(url), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|_| protocol("it is not a valid URL"))?;
        let authority = uri.authority().ok_or_else(|| protocol("it names no host"))?;
        let insecure = self.may_be_insecure(authority.as_str());
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if insecure => false,
            _ => return Err(protocol("only https is allowed there; --insecure-registry allows http for one registry")),
        };
        if authority.as_str().contains('@') {
            return Err(protocol("it has a user name in it"));
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let proxy = self.options.proxies.choose(https, host_of(authority.as_str()), port).map(str::to_owned);
        let verify = !insecure || !https;
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&(verify, proxy.clone())) {
            return Ok(agent.clone());
        }
        let agent = make_agent(self.options, self.reference.registry(), verify, proxy.as_deref())?;
        agents.insert((verify, proxy), agent.clone());
        Ok(agent)
    }

    /// What an answer that is no success means.
    pub(super) fn failure(&self, url: &str, response: Response<Body>) -> Failure {
        let status = response.status();
        let after = header(&response, RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
        let mut body = Vec::new();
        // What cannot be read is left out of the message.
        let _ = response.into_body().into_reader().take(MAX_ERROR_BYTES).read_to_end(&mut body);
        let said = said(&body);
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let reason = if said.is_empty() { format!("status {}", status.as_u16()) } else { said };
            return Failure::Final(self.denied(&reason));
        }
        let detail = if said.is_empty() { said } else { format!(": {said}") };
        let error = RegistryError::Status { url: shown(url), status: status.as_u16(), detail };
        let passing = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
        if passing || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) {
            return Failure::Passing(error, after.map(Duration::from_secs));
        }
        Failure::Final(error)
    }
}

/// Does `attempt` until it works, fails for good, or has failed too often.
pub(crate) fn with_retries<T>(
    retry: Retry,
    progress: &dyn Progress,
    attempt: impl Fn() -> Result<T, Failure>,
) -> Result<T, RegistryError> {
    let mut failures = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(error, wanted)) => {
                failures += 1;
                pause(retry, progress, failures, error, wanted)?;
            }
        }
    }
}

/// Waits before the next attempt, or gives up with `error`.
fn pause(
    retry: Retry,
    progress: &dyn Progress,
    failures: u32,
    error: RegistryError,
    wanted: Option<Duration>,
) -> Result<(), RegistryError> {
    if failures >= retry.attempts || wanted.is_some_and(|wanted| wanted > retry.longest_pause) {
        return Err(error);
    }
    let doubled = retry.first_pause.saturating_mul(1 << (failures - 1).min(16)).min(retry.longest_pause);
    // Up to a quarter more, so that many clients do not come back at the same moment.
    let spread = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos() % 256);
    let pause = wanted.unwrap_or(doubled + doubled * spread / 1024);
    progress.report(Event::Retrying { reason: &error.to_string(), seconds: pause.as_secs_f32() });
    std::thread::sleep(pause);
    Ok(())
}

/// A client for the server `registry` (host, or host and port), by the proxy, with certificates verified or not.
pub(crate) fn make_agent(
    options: &Options,
    registry: &str,
    verify: bool,
    proxy: Option<&str>,
) -> Result<Agent, RegistryError> {
    let proxy = proxy.map(|url| {
        let reason = "HTTP_PROXY or HTTPS_PROXY is not a URL that can be used".to_owned();
        Proxy::new(url).map_err(|_| RegistryError::Protocol { url: "the proxy".to_owned(), reason })
    });
    let tls = tls::config(&options.ca_certificates, registry, verify)?;
    Ok(Agent::config_builder()
        .tls_config(tls)
        .proxy(proxy.transpose()?)
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("caveau/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIME))
        .timeout_recv_response(Some(IDLE_TIME))
        .timeout_per_read(Some(IDLE_TIME))
        .timeout_per_write(Some(IDLE_TIME))
        .build()
        .new_agent())
}

/// What a request that got no answer means.
pub(crate) fn failed(url: &str, error: &ureq::Error) -> Failure {
    let unreachable = RegistryError::Unreachable { url: shown(url), reason: error.to_string() };
    match error {
        ureq::Error::Io(cause) if cause.kind() == std::io::ErrorKind::ConnectionRefused => Failure::Final(unreachable),
        // Certificates that do not verify come as I/O errors, too.
        ureq::Error::Io(cause) if cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Failure::Final(unreachable)
        }
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => {
            Failure::Passing(unreachable, None)
        }
        _ => Failure::Final(unreachable),
    }
}

/// The URL to which an answer leads.
fn redirect(from: &str, response: &Response<Body>, count: usize) -> Result<String, RegistryError> {
    let protocol = |reason: &str| RegistryError::Protocol { url: shown(from), reason: reason.to_owned() };
    if count > MAX_REDIRECTS {
        return Err(protocol("it redirects too often"));
    }
    let target = header(response, LOCATION.as_str()).ok_or_else(|| protocol("it redirects to nowhere"))?;
    if target.starts_with("https://") || target.starts_with("http://") {
        if scheme_of(from) == "https" && scheme_of(target) == "http" {
            return Err(protocol("it redirects from https to http"));
        }
        return Ok(target.to_owned());
    }
    if target.starts_with('/') && !target.starts_with("//") {
        return Ok(format!("{}://{}{target}", scheme_of(from), authority_of(from)));
    }
    Err(protocol("it redirects to something that is neither a URL nor an absolute path"))
}

/// A header's value, if it is there and text.
pub(crate) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// A URL without its query, which may hold a signature.
pub(crate) fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or(url).chars().take(300).collect()
}

/// What the error documents of the distribution specification ("Error Codes") and of token servers say.
fn said(body: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else { return String::new() };
    let first = document.pointer("/errors/0");
    let words = |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let parts = [
        words(first.and_then(|error| error.get("code"))),
        words(first.and_then(|error| error.get("message"))),
        words(document.get("details").or_else(|| document.get("error_description"))),
    ];
    let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

pub(super) fn scheme_of(url: &str) -> &str {
    url.split_once("://").map_or("", |(scheme, _)| scheme)
}

pub(super) fn authority_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// The host of an authority, without port and brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    }
}
