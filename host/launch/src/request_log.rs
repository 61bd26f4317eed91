//! What was asked of a group's policy, written down where the group was started with that: `requests.jsonl` of its folder.
//!
//! The guest keeps each request, as it put it to its policy, and the supervisor fetches them after every step. The file's
//! form is that of `caveau policy replay`: `caveau-policy`'s records. It holds values of variables, as the host sent them.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde_json::json;

use crate::CallError;

/// Version of records, as `caveau-policy` has it.
const RECORD_VERSION: u32 = 1;

/// Most bytes of a group's file: a host that asks for ever fills no disk.
const MOST: u64 = 64 << 20;

/// The file.
#[derive(Debug)]
pub(crate) struct RequestLog {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    written: u64,
    /// Whether the guest did not answer.
    silent: bool,
}

impl RequestLog {
    /// Makes the file, for its owner only, for a policy of this digest.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(crate) fn create(path: &Path, policy_digest: &str) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let log = Self { state: Mutex::new(State { file, written: 0, silent: false }) };
        let first = json!({"t": "record", "version": RECORD_VERSION, "policy_digest": policy_digest});
        log.write(format!("{first}\n").as_bytes())?;
        Ok(log)
    }

    /// Adds what `fetch` brings, one fetch at a time so that the order stays. What is beyond [`MOST`] is not kept. A guest
    /// that does not answer is not asked again: each time would cost its caller the whole limit.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn add(&self, fetch: impl FnOnce() -> Result<Vec<u8>, CallError>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.silent {
            return Ok(());
        }
        match fetch() {
            Ok(lines) => state.write(&lines),
            // It keeps them for the next time.
            Err(CallError::Agent(_)) => Ok(()),
            Err(_) => {
                state.silent = true;
                Ok(())
            }
        }
    }

    fn write(&self, lines: &[u8]) -> io::Result<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).write(lines)
    }
}

impl State {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let after = self.written.saturating_add(lines.len() as u64);
        if after > MOST {
            return Ok(());
        }
        self.written = after;
        self.file.write_all(lines)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_are_added_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.jsonl");
        let log = RequestLog::create(&path, "ab").unwrap();
        log.add(|| Ok(b"{}\n".to_vec())).unwrap();
        log.add(|| Ok(vec![b' '; MOST as usize])).unwrap();
        log.add(|| Err(CallError::Closed(None))).unwrap();
        log.add(|| panic!("a guest that is silent is asked again")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"policy_digest\":\"ab\",\"t\":\"record\",\"version\":1}\n{}\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(RequestLog::create(&path, "ab").is_err(), "one for each group");
    }
}
