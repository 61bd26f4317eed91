//! A blob that keeps coming although the connection breaks.

use std::io::{self, Read};

use caveau_oci::Digest;
use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE};

use super::http::{Session, header, shown};
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
    /// Asks for the blob from its first byte on.
    pub(super) fn open(session: &'s Session<'a>, digest: Digest, size: u64) -> Result<Self, RegistryError> {
        let path = format!("blobs/{digest}");
        let mut reader =
            Self { session, path, url: String::new(), size, at: 0, failures: 0, body: Box::new(io::empty()) };
        reader.request()?;
        Ok(reader)
    }

    /// Asks for what is still missing.
    fn request(&mut self) -> Result<(), RegistryError> {
        let (url, response) = self.session.blob(&self.path, self.at)?;
        self.url = shown(&url);
        let protocol = |reason: String| RegistryError::Protocol { url: shown(&url), reason };
        let length = header(&response, CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<u64>().ok());
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if partial && self.at > 0 {
            let range = header(&response, CONTENT_RANGE.as_str()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {}-", self.at)) {
                return Err(protocol(format!("asked for the bytes from {} on, it sends {range:?}", self.at)));
            }
        } else if partial {
            return Err(protocol("it sends a part of the blob without having been asked to".to_owned()));
        } else if let Some(found) = length.filter(|length| *length != self.size) {
            return Err(RegistryError::WrongSize { what: self.url.clone(), expected: self.size, found });
        }
        let mut body = response.into_body().into_reader();
        if !partial && self.at > 0 {
            // A server without ranges begins anew.
            let skipped = io::copy(&mut body.by_ref().take(self.at), &mut io::sink());
            if skipped.as_ref().ok() != Some(&self.at) {
                let reason = skipped.err().map_or_else(|| "it broke off".to_owned(), |error| error.to_string());
                return Err(RegistryError::Unreachable { url: self.url.clone(), reason });
            }
        }
        self.body = Box::new(body);
        Ok(())
    }

    /// Waits and asks again, or gives up.
    fn resume(&mut self, reason: String) -> Result<(), RegistryError> {
        self.failures += 1;
        let error = RegistryError::Unreachable { url: self.url.clone(), reason };
        self.session.pause(self.failures, error, None)?;
        match self.request() {
            Err(RegistryError::Unreachable { reason, .. }) => self.resume(reason),
            other => other,
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
                Err(error) => error.to_string(),
            };
            self.resume(reason).map_err(io::Error::other)?;
        }
    }
}
