//! Writing to a registry (OCI distribution specification 1.1, push): blobs in one piece, and manifests.
//!
//! ```text
//! HEAD /v2/<name>/blobs/<digest>             200 where it is there already
//! POST /v2/<name>/blobs/uploads/             202, Location
//! PUT  <location>?digest=<digest>            201
//! PUT  /v2/<name>/manifests/<reference>      201; OCI-Subject where the registry keeps referrers
//! ```

use caveau_oci::Digest;
use ureq::Body;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use ureq::http::{Response, StatusCode};

use super::http::{Failure, Session, authority_of, failed, header, scheme_of, shown};
use crate::RegistryError;

/// What is asked of a registry.
#[derive(Clone, Copy)]
enum Act<'a> {
    Head,
    Post,
    Put { media_type: &'a str, content: &'a [u8] },
}

impl Session<'_> {
    /// Writes a blob, unless it is there.
    pub(super) fn push_blob(&self, content: &[u8]) -> Result<(), RegistryError> {
        let digest = Digest::of(content);
        let there = self.write(&format!("blobs/{digest}"), Act::Head);
        match there {
            Ok(_) => return Ok(()),
            Err(RegistryError::Status { status: 404, .. }) => {}
            Err(error) => return Err(error),
        }
        // Each attempt has an upload of its own: one that broke off cannot be relied on.
        self.with_retries(|| {
            let start = self.path("blobs/uploads/");
            let response = self.act(&start, Act::Post)?;
            let location = upload(&start, &response)?;
            let join = if location.contains('?') { '&' } else { '?' };
            let url = format!("{location}{join}digest={digest}");
            self.act(&url, Act::Put { media_type: "application/octet-stream", content }).map(drop)
        })
    }

    /// Writes a manifest under a tag or its digest. Says whether the registry noted to what it refers.
    pub(super) fn push_manifest(
        &self,
        reference: &str,
        media_type: &str,
        content: &[u8],
    ) -> Result<bool, RegistryError> {
        let response = self.write(&format!("manifests/{reference}"), Act::Put { media_type, content })?;
        Ok(header(&response, "OCI-Subject").is_some())
    }

    fn write(&self, path: &str, act: Act<'_>) -> Result<Response<Body>, RegistryError> {
        self.with_retries(|| self.act(&self.path(path), act))
    }

    fn path(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.reference.repository())
    }

    /// One request with login; the answer is a success. Nothing is written along a redirect.
    fn act(&self, url: &str, act: Act<'_>) -> Result<Response<Body>, Failure> {
        let at_home = authority_of(url) == authority_of(&self.base) && scheme_of(url) == scheme_of(&self.base);
        let mut logged_in = false;
        loop {
            let used = if at_home { self.authorization() } else { None };
            let authorization = used.as_ref().map(|used| used.header());
            let response = self.send_act(url, act, authorization)?;
            match response.status() {
                StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => return Ok(response),
                StatusCode::UNAUTHORIZED if at_home && !logged_in => {
                    logged_in = true;
                    self.log_in(&response, used.as_ref())?;
                }
                _ => return Err(self.failure(url, response)),
            }
        }
    }

    fn send_act(&self, url: &str, act: Act<'_>, authorization: Option<&str>) -> Result<Response<Body>, Failure> {
        let agent = self.agent(url)?;
        let answer = match act {
            Act::Head => {
                let mut request = agent.head(url);
                if let Some(value) = authorization {
                    request = request.header(AUTHORIZATION, value);
                }
                request.call()
            }
            Act::Post | Act::Put { .. } => {
                let mut request = if matches!(act, Act::Post) { agent.post(url) } else { agent.put(url) };
                if let Some(value) = authorization {
                    request = request.header(AUTHORIZATION, value);
                }
                match act {
                    Act::Put { media_type, content } => request.header(CONTENT_TYPE, media_type).send(content),
                    _ => request.send_empty(),
                }
            }
        };
        answer.map_err(|error| failed(url, &error))
    }
}

/// Where an upload goes on. A registry may send it to another host; without a login, and never from HTTPS to HTTP.
fn upload(from: &str, response: &Response<Body>) -> Result<String, RegistryError> {
    let protocol = |reason: &str| RegistryError::Protocol { url: shown(from), reason: reason.to_owned() };
    let target = header(response, LOCATION.as_str()).ok_or_else(|| protocol("it takes an upload nowhere"))?;
    if target.starts_with('/') && !target.starts_with("//") {
        return Ok(format!("{}://{}{target}", scheme_of(from), authority_of(from)));
    }
    match scheme_of(target) {
        "https" => Ok(target.to_owned()),
        "http" if scheme_of(from) == "http" => Ok(target.to_owned()),
        _ => Err(protocol("it takes an upload to something that is neither a URL like its own nor an absolute path")),
    }
}
