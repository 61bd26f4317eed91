//! A container's control group (cgroup v2): what it uses, ending everything in it, removing it.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{Mode, OFlags};

use crate::RuntimeError;

/// Where cgroup2 is mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// Below it, the parent of all containers' groups.
pub(crate) const PARENT: &str = "caveau";

/// How often, and at what distance, an ended cgroup is looked at again: in all 10 s.
const REMOVE_TRIES: u32 = 1000;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bound on memory in bytes, where there is one.
    pub memory_limit_bytes: Option<u64>,
    /// Greatest use of memory so far, in bytes.
    pub memory_peak_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// One control group.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The one that libcontainer calls `name`, an absolute path within the hierarchy.
    pub(crate) fn new(name: &str) -> Self {
        Self { path: Path::new(ROOT).join(name.trim_start_matches('/')) }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A descriptor of its folder.
    pub(crate) fn open(&self) -> Result<OwnedFd, RuntimeError> {
        rustix::fs::open(&self.path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| self.error("", error.into()))
    }

    /// What its processes use.
    pub(crate) fn usage(&self) -> Result<Usage, RuntimeError> {
        Ok(Usage {
            cpu_us: keyed(&self.read("cpu.stat")?, "usage_usec"),
            memory_bytes: number(&self.read("memory.current")?),
            memory_limit_bytes: self.read("memory.max")?.trim().parse().ok(),
            memory_peak_bytes: number(&self.read("memory.peak")?),
            pids: number(&self.read("pids.current")?),
        })
    }

    /// Whether the kernel killed one of its processes for want of memory.
    pub(crate) fn out_of_memory(&self) -> bool {
        self.read("memory.events").is_ok_and(|text| keyed(&text, "oom_kill") > 0)
    }

    /// Kills everything in it.
    pub(crate) fn kill(&self) -> Result<(), RuntimeError> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error("cgroup.kill", error)),
            _ => Ok(()),
        }
    }

    /// Removes it and those below it; processes that were killed may take a moment to be gone.
    pub(crate) fn remove(&self) -> Result<(), RuntimeError> {
        let mut last = Ok(());
        for _ in 0..REMOVE_TRIES {
            last = remove_tree(&self.path);
            match &last {
                Ok(()) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => thread::sleep(REMOVE_PAUSE),
                Err(_) => break,
            }
        }
        last.map_err(|error| self.error("", error))
    }

    fn read(&self, file: &str) -> Result<String, RuntimeError> {
        fs::read_to_string(self.path.join(file)).map_err(|error| self.error(file, error))
    }

    fn error(&self, file: &str, source: io::Error) -> RuntimeError {
        RuntimeError::Cgroup { path: self.path.join(file), source }
    }
}

/// Removes a cgroup's folders, deepest first; their files go with them.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// The number after `key` in a file of `key number` lines; 0 where it is not there.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key).map_or(0, |(_, n)| number(n))
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_the_kernels_files() {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { path: folder.path().to_owned() };
        for (file, text) in [
            ("cpu.stat", "usage_usec 1234\nuser_usec 1000\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "8192\n"),
            ("pids.current", "3\n"),
            ("memory.events", "low 0\noom 1\noom_kill 1\n"),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let expected =
            Usage { cpu_us: 1234, memory_bytes: 4096, memory_limit_bytes: None, memory_peak_bytes: 8192, pids: 3 };
        assert_eq!(cgroup.usage().unwrap(), expected);
        assert!(cgroup.out_of_memory());
        fs::write(folder.path().join("memory.max"), "1048576\n").unwrap();
        assert_eq!(cgroup.usage().unwrap().memory_limit_bytes, Some(1 << 20));
    }

    #[test]
    fn an_absent_cgroup_is_gone_already() {
        let cgroup = Cgroup { path: "/nonexistent/cgroup".into() };
        cgroup.kill().unwrap();
        cgroup.remove().unwrap();
        assert!(!cgroup.out_of_memory());
        assert!(cgroup.usage().is_err());
    }
}
