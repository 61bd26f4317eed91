//! A virtio-serial port as a link with deadlines.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::TeeError;

/// How long to wait between two looks at a port whose other side is not there yet; poll(2) does not wait for that.
const RETRY: Duration = Duration::from_millis(5);

/// Opens the one port with this name, under `root`.
///
/// Its number is not fixed and the host may make several: names are looked up, and two of the same name are refused.
pub(crate) fn open(root: &Path, name: &'static str) -> Result<OwnedFd, TeeError> {
    let class = root.join("sys/class/virtio-ports");
    let mut found = Vec::new();
    for entry in read_dir(&class)? {
        let said = std::fs::read_to_string(entry.join("name")).unwrap_or_default();
        if said.strip_suffix('\n').unwrap_or(&said) == name {
            found.extend(entry.file_name().map(|device| root.join("dev").join(device)));
        }
    }
    let [path] = found.as_slice() else {
        return Err(TeeError::Port { name, found: found.len() });
    };
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| TeeError::Device { act: "open", path: path.clone(), source })?;
    Ok(file.into())
}

/// The entries of a folder; none where it does not exist.
fn read_dir(path: &Path) -> Result<Vec<PathBuf>, TeeError> {
    let failed = |source| TeeError::Device { act: "list", path: path.to_owned(), source };
    match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(failed(source)),
    }
}

/// A non-blocking descriptor whose reads and writes end at a deadline.
pub(crate) struct DeadlineLink {
    descriptor: OwnedFd,
    deadline: Instant,
}

impl DeadlineLink {
    /// A link over a descriptor that is in non-blocking mode.
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, deadline: Instant::now() }
    }

    /// From now on, operations end `timeout` from now.
    pub(crate) fn allow(&mut self, timeout: Duration) {
        let now = Instant::now();
        self.deadline = now.checked_add(timeout).unwrap_or(now);
    }

    /// Waits until the descriptor may be ready; a timed-out error at the deadline.
    fn wait(&self, events: PollFlags) -> std::io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut descriptors = [PollFd::new(&self.descriptor, events)];
        match poll(&mut descriptors, Some(&Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [descriptor] = &descriptors;
        if !descriptor.revents().intersects(events) {
            thread::sleep(RETRY.min(left));
        }
        Ok(())
    }
}

impl Read for DeadlineLink {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match rustix::io::read(&self.descriptor, &mut *buffer) {
                Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(rustix::io::Errno::INTR) => {}
                read => return Ok(read?),
            }
        }
    }
}

impl Write for DeadlineLink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        loop {
            match rustix::io::write(&self.descriptor, bytes) {
                Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(rustix::io::Errno::INTR) => {}
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A fake /sys and /dev with ports of these device and port names.
    fn ports(names: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        for (device, name) in names {
            let class = root.path().join("sys/class/virtio-ports").join(device);
            std::fs::create_dir_all(&class).unwrap();
            std::fs::write(class.join("name"), format!("{name}\n")).unwrap();
            std::fs::write(root.path().join("dev").join(device), device).unwrap();
        }
        root
    }

    #[test]
    fn a_port_is_found_by_its_name() {
        let root = ports(&[("vport1p1", "caveau.agent.0"), ("vport3p2", "caveau.sp.0")]);
        let mut text = String::new();
        File::from(open(root.path(), "caveau.sp.0").unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "vport3p2");
    }

    #[test]
    fn none_or_two_of_a_name_are_refused() {
        let none = open(ports(&[("vport1p1", "caveau.sp.01")]).path(), "caveau.sp.0");
        assert!(matches!(none, Err(TeeError::Port { found: 0, .. })));
        let empty = open(tempfile::tempdir().unwrap().path(), "caveau.sp.0");
        assert!(matches!(empty, Err(TeeError::Port { found: 0, .. })));
        let two = open(ports(&[("vport1p1", "caveau.sp.0"), ("vport1p2", "caveau.sp.0")]).path(), "caveau.sp.0");
        assert!(matches!(two, Err(TeeError::Port { found: 2, .. })));
    }

    #[test]
    fn a_silent_other_side_ends_in_a_time_out() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut link = DeadlineLink::new(ours.into());
        link.allow(Duration::from_millis(20));
        assert_eq!(link.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::TimedOut);
        link.allow(Duration::from_millis(20));
        let full = std::iter::repeat_with(|| link.write(&[0; 4096])).find_map(Result::err).unwrap();
        assert_eq!(full.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn what_was_sent_in_time_is_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut link = DeadlineLink::new(ours.into());
        link.allow(Duration::from_secs(60));
        let sender = thread::spawn(move || theirs.write_all(b"late").unwrap());
        let mut bytes = [0; 4];
        link.read_exact(&mut bytes).unwrap();
        sender.join().unwrap();
        assert_eq!(&bytes, b"late");
    }
}
