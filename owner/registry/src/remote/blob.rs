//! A blob that keeps coming although the connection breaks.

use std::io::{self, Read};
use std::time::Duration;

use caveau_oci::Digest;
use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE};

use super::http::{Failure, Session, header, shown};
use crate::RegistryError;

/// Reads a blob of a known size, asking for the rest of it (RFC 9110 section 14, Range) whenever it breaks off.
///
/// It does not check the digest; whoever reads does. Errors carry a [`RegistryError`].
pub(super) struct BlobReader<'s, 'a> {
    session: &'s Session<'a>,
    path: String,
    url: String,
    size: u64,
    at: u64,
    failures: u32,
    body: Box<dyn Read + Send>,
}

impl<'s, 'a> BlobReader<'s, 'a> {
    /// Asks for the blob's bytes from `at` on, where there are any.
    pub(super) fn open(session: &'s Session<'a>, digest: Digest, size: u64, at: u64) -> Result<Self, RegistryError> {
        let path = format!("blobs/{digest}");
        let mut reader = Self { session, path, url: String::new(), size, at, failures: 0, body: Box::new(io::empty()) };
        if at == size {
            return Ok(reader);
        }
        match reader.request() {
            Ok(()) => {}
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(error, wanted)) => reader.resume(error, wanted)?,
        }
        Ok(reader)
    }

    /// Asks for what is still missing, once.
    fn request(&mut self) -> Result<(), Failure> {
        let (url, response) = self.session.blob(&self.path, self.at)?;
        self.url = shown(&url);
        let protocol = |reason: String| RegistryError::Protocol { url: shown(&url), reason };
        let length = header(&response, CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<u64>().ok());
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if partial && self.at > 0 {
            let range = header(&response, CONTENT_RANGE.as_str()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {}-", self.at)) {
                return Err(Failure::Final(protocol(format!(
                    "asked for the bytes from {} on, it sends {range:?}",
                    self.at
                ))));
            }
        } else if partial {
            return Err(Failure::Final(protocol(
                "it sends a part of the blob without having been asked to".to_owned(),
            )));
        } else if let Some(found) = length.filter(|length| *length != self.size) {
            return Err(RegistryError::WrongSize { what: self.url.clone(), expected: self.size, found }.into());
        }
        let mut body = response.into_body().into_reader();
        if !partial && self.at > 0 {
            // A server without ranges begins anew.
            let skipped = io::copy(&mut body.by_ref().take(self.at), &mut io::sink());
            if skipped.as_ref().ok() != Some(&self.at) {
                let reason = skipped.err().map_or_else(|| "it broke off".to_owned(), |error| error.to_string());
                return Err(Failure::Passing(RegistryError::Unreachable { url: self.url.clone(), reason }, None));
            }
        }
        self.body = Box::new(body);
        Ok(())
    }

    /// Waits and asks again until there is an answer, or gives up. `wanted` is the pause that the server asked for.
    fn resume(&mut self, mut error: RegistryError, mut wanted: Option<Duration>) -> Result<(), RegistryError> {
        loop {
            self.failures += 1;
            self.session.pause(self.failures, error, wanted)?;
            match self.request() {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(next, pause)) => (error, wanted) = (next, pause),
            }
        }
    }
}

impl Read for BlobReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let reason = match self.body.read(buffer) {
                Ok(0) if self.at < self.size => format!("it broke off after {} of {} bytes", self.at, self.size),
                Ok(count) => {
                    self.at += count as u64;
                    if count > 0 {
                        self.failures = 0;
                    }
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // All is there, however the connection ended; there is nothing that could be asked for.
                Err(_) if self.at == self.size => return Ok(0),
                Err(error) => error.to_string(),
            };
            let error = RegistryError::Unreachable { url: self.url.clone(), reason };
            self.resume(error, None).map_err(io::Error::other)?;
        }
    }
}
