//! Every child's exit is collected, whoever its parent was: PID 1 inherits orphans.
//!
//! A child is known from before it can end: it is spawned, or taken over from a helper that still holds it, with the
//! table locked, and the thread that collects exits delivers them under the same lock.

use std::{
    collections::BTreeMap,
    io,
    process::Command,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

/// Stack of the thread that collects.
const STACK: usize = 32 * 1024;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// Its exit code, or 128 plus the signal's number.
    pub code: u8,
    /// Whether a signal ended it.
    pub signaled: bool,
}

impl ExitStatus {
    fn from_wait(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => {
                Self { code: u8::try_from(signal).unwrap_or(u8::MAX).saturating_add(128), signaled: true }
            }
            (code, None) => Self { code: u8::try_from(code.unwrap_or(255)).unwrap_or(u8::MAX), signaled: false },
        }
    }
}

/// A child's exit, once it is there.
#[derive(Debug, Default)]
pub(crate) struct Exit(OnceLock<ExitStatus>);

impl Exit {
    /// How it ended, if it has.
    #[must_use]
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.0.get().copied()
    }
}

/// What is told of an exit: which process, and that it ended.
type Notify = Box<dyn Fn(i32) + Send + Sync>;

/// Children and their exits.
pub struct Reaper {
    children: Mutex<BTreeMap<i32, Arc<Exit>>>,
    more: Condvar,
    notify: Notify,
}

impl std::fmt::Debug for Reaper {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reaper").field("children", &self.children).finish_non_exhaustive()
    }
}

impl Reaper {
    /// Starts collecting; `notify` is called with each known child's number after its exit is to be seen.
    ///
    /// # Errors
    /// Where the thread cannot be made.
    pub fn start(notify: impl Fn(i32) + Send + Sync + 'static) -> io::Result<Arc<Self>> {
        let reaper =
            Arc::new(Self { children: Mutex::new(BTreeMap::new()), more: Condvar::new(), notify: Box::new(notify) });
        let collector = Arc::clone(&reaper);
        thread::Builder::new().name("reaper".to_owned()).stack_size(STACK).spawn(move || collector.collect())?;
        Ok(reaper)
    }

    /// Spawns a child whose exit is collected here, not by its handle.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<(i32, Arc<Exit>)> {
        let mut children = self.lock();
        let pid = i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
        Ok((pid, self.insert(&mut children, pid)))
    }

    /// Takes over a process that its parent, a helper, still holds.
    pub(crate) fn adopt(&self, pid: i32) -> Arc<Exit> {
        let mut children = self.lock();
        self.insert(&mut children, pid)
    }

    fn insert(&self, children: &mut BTreeMap<i32, Arc<Exit>>, pid: i32) -> Arc<Exit> {
        let exit = Arc::new(Exit::default());
        children.insert(pid, Arc::clone(&exit));
        self.more.notify_all();
        exit
    }

    /// Collects for ever.
    fn collect(&self) {
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => self.deliver(pid, status),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                // No child at all: wait until there is one.
                Err(_) => self.wait_for_children(),
            }
        }
    }

    /// Hands an exit to whoever asked for it; that of an unknown orphan is of no interest.
    fn deliver(&self, pid: Pid, status: WaitStatus) {
        let pid = pid.as_raw_nonzero().get();
        let known = self.lock().remove(&pid);
        if let Some(exit) = known {
            // Set once, by this thread alone.
            let _ = exit.0.set(ExitStatus::from_wait(status));
            (self.notify)(pid);
        }
    }

    /// A helper's child is not ours until the helper has gone, so a known child may still be "no child": look again.
    fn wait_for_children(&self) {
        let pause = std::time::Duration::from_millis(5);
        let children = self.lock();
        if children.is_empty() {
            drop(self.more.wait(children));
        } else {
            drop(self.more.wait_timeout(children, pause));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Exit>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// One for all tests: a process can have but one.
    pub(crate) fn shared() -> &'static Arc<Reaper> {
        static REAPER: OnceLock<Arc<Reaper>> = OnceLock::new();
        REAPER.get_or_init(|| Reaper::start(|_| {}).unwrap())
    }

    /// Waits for a child's exit.
    pub(crate) fn ended(exit: &Exit) -> ExitStatus {
        loop {
            match exit.status() {
                Some(status) => return status,
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    #[test]
    fn exits_arrive_with_code_or_signal() {
        let mut shell = Command::new("sh");
        let (_, exit) = shared().spawn(shell.args(["-c", "exit 42"])).unwrap();
        assert_eq!(ended(&exit), ExitStatus { code: 42, signaled: false });
        let mut shell = Command::new("sh");
        let (_, exit) = shared().spawn(shell.args(["-c", "kill -9 $$"])).unwrap();
        assert_eq!(ended(&exit), ExitStatus { code: 137, signaled: true });
    }
}
