//! Child processes that die with their parent and can be waited for from any thread.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal};

/// A child process. Dropped, it is killed and reaped; should its parent be killed, the kernel kills it.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    ended: Arc<Ended>,
}

/// How the process ended, once it has.
#[derive(Debug, Default)]
struct Ended {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

impl Process {
    /// Starts `command` with `inherited` descriptors open in it under their own numbers.
    ///
    /// The kernel kills the child when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG): call this from one
    /// that lives as long as the child should.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn start(command: &mut Command, inherited: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let descriptors: Vec<RawFd> = inherited.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
        let parent = rustix::process::getpid();
        prepare(command, move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before the line above took effect.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::other("the parent process has ended"));
            }
            close_all()?;
            descriptors.iter().try_for_each(|descriptor| keep_open(*descriptor))
        });
        Self::watch(command.spawn()?)
    }

    /// Gives the child to a thread that reaps it.
    fn watch(mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        let opened = pid_of(pid).and_then(|pid| Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?));
        let ended = Arc::new(Ended::default());
        let for_thread = Arc::clone(&ended);
        let pidfd = match opened {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Without a handle it could not be ended later, so it must not live on.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        std::thread::Builder::new().name(format!("wait-{pid}")).spawn(move || {
            let status = child.wait().ok();
            *for_thread.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
            for_thread.changed.notify_all();
        })?;
        Ok(Self { pid, pidfd, ended })
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended; `None` where it still runs after `limit`.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        let mut status = self.ended.status.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if status.is_some() {
                return *status;
            }
            let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            status = self.ended.changed.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Kills it, whatever it does. One that has ended already is left alone.
    pub fn kill(&self) {
        // The handle names this very process, so a number used again cannot be hit; ESRCH means that it has ended.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl AsFd for Process {
    /// The process's handle (pidfd_open(2)): readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait(Duration::from_secs(10));
    }
}

/// A process's number as the system-call layer wants it.
fn pid_of(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("process number out of range"))
}

/// Runs `act` in the child between fork and exec.
#[expect(unsafe_code, reason = "std offers code between fork and exec only as an unsafe call")]
pub(crate) fn prepare(command: &mut Command, act: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: the closures given here make system calls (prctl, getppid, fcntl, setsid) and read memory that was
    // allocated before the fork; they neither allocate nor take locks.
    unsafe {
        command.pre_exec(act);
    }
}

/// Lets no descriptor but the three standard ones pass through the coming exec: whoever started this program may have left
/// others open, which are nobody else's business.
#[expect(unsafe_code, reason = "the call has no wrapper")]
pub(crate) fn close_all() -> io::Result<()> {
    // SAFETY: marks descriptors to be closed at execve(2); none is closed now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a descriptor pass through the coming exec.
#[expect(unsafe_code, reason = "a descriptor's number becomes a borrowed descriptor")]
pub(crate) fn keep_open(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: the parent held the descriptor open when it forked, and nothing in the child has closed it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    Ok(rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::AsRawFd, process::Stdio};

    use super::*;

    #[test]
    fn the_end_is_seen_from_any_thread() {
        let process = Process::start(Command::new("sh").args(["-c", "exit 7"]), &[]).unwrap();
        assert_eq!(process.wait(Duration::from_secs(30)).unwrap().code(), Some(7));
        process.kill();
    }

    #[test]
    fn dropping_kills() {
        let process = Process::start(Command::new("sleep").arg("1000"), &[]).unwrap();
        assert!(process.wait(Duration::ZERO).is_none());
        let ended = Arc::clone(&process.ended);
        drop(process);
        assert!(ended.status.lock().unwrap().is_some());
    }

    #[test]
    fn only_what_is_named_is_inherited() {
        let named = crate::memfd::SealedFile::new("named", b"yes").unwrap();
        let other = crate::memfd::SealedFile::new("other", b"no").unwrap();
        // One that the program before this one left open for everybody.
        let stray = rustix::io::dup(&other).unwrap();
        let script = format!(
            "cat /proc/self/fd/{}; test ! -e /proc/self/fd/{} && test ! -e /proc/self/fd/{}",
            named.as_raw_fd(),
            other.as_raw_fd(),
            stray.as_raw_fd()
        );
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdout(Stdio::from(writer));
        let process = Process::start(&mut command, &[named.as_fd()]).unwrap();
        drop(command);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "yes");
        assert_eq!(process.wait(Duration::from_secs(30)).unwrap().code(), Some(0));
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let process = std::thread::spawn(|| Process::start(Command::new("sleep").arg("1000"), &[]).unwrap());
        let process = process.join().unwrap();
        let status = process.wait(Duration::from_secs(30)).expect("the kernel kills it");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
}
