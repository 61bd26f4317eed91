//! The software secure processor of one group: a child process that measures the launch and answers the guest.
use std::os::{fd::OwnedFd, unix::net::UnixStream};

use crate::{GroupFolder, Guest, LaunchPlan, Process};

/// A running software secure processor.
#[derive(Debug)]
pub(crate) struct SecureProcessor {
    _process: Option<Process>,
    launch_digest: String,
    _link: UnixStream,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecureProcessorError {
    #[error("failed to start it")]
    Start(#[source] std::io::Error),
}

impl SecureProcessor {
    pub(crate) fn launch(
        _plan: &LaunchPlan,
        _guest: &Guest,
        _host_data: &[u8; 32],
        _folder: &GroupFolder,
    ) -> Result<(Self, OwnedFd), SecureProcessorError> {
        let (ours, theirs) = UnixStream::pair().map_err(SecureProcessorError::Start)?;
        Ok((Self { _process: None, launch_digest: String::new(), _link: ours }, theirs.into()))
    }

    pub(crate) fn launch_digest(&self) -> &str {
        &self.launch_digest
    }
}
