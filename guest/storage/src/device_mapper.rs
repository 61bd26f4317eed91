//! Device mapper by its control device (kernel: include/uapi/linux/dm-ioctl.h, interface version 4).
//!
//! ```text
//!   create ─▶ load(table) ─▶ resume ─▶ in use ─▶ remove
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
use zerocopy::native_endian::{I32, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::Zeroize as _;

use crate::error::IoContext as _;
use crate::{Result, StorageError};

/// Room for the header and whatever goes with it, either way.
const BUFFER_BYTES: usize = 16 * 1024;
/// `DM_NAME_LEN` with its closing NUL.
const NAME_BYTES: usize = 128;
/// How long a device that somebody has open for a moment is waited for.
const REMOVE_PATIENCE: Duration = Duration::from_secs(2);

/// What the kernel answers about a device that is not there.
const ENXIO: i32 = rustix::io::Errno::NXIO.raw_os_error();

const DM_READONLY_FLAG: u32 = 1 << 0;
const DM_BUFFER_FULL_FLAG: u32 = 1 << 8;
const DM_SECURE_DATA_FLAG: u32 = 1 << 15;

/// Commands, by their numbers in the interface.
#[derive(Clone, Copy, Debug)]
enum Command {
    Create = 3,
    Remove = 4,
    /// Suspend, or without its flag: resume.
    Suspend = 6,
    Load = 9,
    Status = 12,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Remove => "remove",
            Self::Suspend => "resume",
            Self::Load => "load a table into",
            Self::Status => "read the status of",
        }
    }
}

/// `struct dm_ioctl`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    version: [U32; 3],
    data_size: U32,
    data_start: U32,
    target_count: U32,
    open_count: I32,
    flags: U32,
    event_number: U32,
    padding: U32,
    device: U64,
    name: [u8; NAME_BYTES],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `struct dm_target_spec`; its parameters follow, as text with a NUL.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct TargetSpec {
    start: U64,
    length: U64,
    status: I32,
    /// When loading: bytes from this target to the next. In answers: bytes from the first to the next.
    next: U32,
    kind: [u8; 16],
}

/// A header and its data, handed to the kernel and back.
struct Exchange {
    buffer: Vec<u8>,
    command: Command,
}

// SAFETY: the command's number, direction and size are those of the interface, and the pointer leads to a buffer of `data_size`
// bytes, which the kernel reads and writes within; it lives as long as `self`.
#[expect(unsafe_code, reason = "device mapper is reached by ioctl only, and no crate offers it without C libraries")]
unsafe impl Ioctl for &mut Exchange {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<Header>(0xfd, self.command as u8)
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        self.buffer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Tables carry keys.
        self.buffer.zeroize();
    }
}

/// One target of a table, which is the whole device here.
pub(crate) struct Target<'a> {
    /// `verity`, `integrity` or `crypt`.
    pub(crate) kind: &'static str,
    /// Length in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// Its parameters.
    pub(crate) parameters: &'a str,
    /// Whether the device refuses writes.
    pub(crate) read_only: bool,
    /// Whether the parameters hold a key.
    pub(crate) secret: bool,
}

/// The control device.
#[derive(Debug)]
pub(crate) struct DeviceMapper {
    control: File,
}

/// A device that device mapper has made.
#[derive(Debug)]
pub(crate) struct MappedDevice {
    name: String,
    minor: u32,
    major: u32,
}

impl MappedDevice {
    /// Its node.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/dm-{}", self.minor))
    }

    /// Its number, as tables of devices above it want it.
    pub(crate) fn number(&self) -> String {
        format!("{}:{}", self.major, self.minor)
    }

    /// The kernel's name of it, as in uevents.
    pub(crate) fn kernel_name(&self) -> String {
        format!("dm-{}", self.minor)
    }
}

impl DeviceMapper {
    /// Opens the control device, which needs the module `dm_mod`.
    pub(crate) fn open() -> Result<Self> {
        let path = "/dev/mapper/control";
        let control = File::options().read(true).write(true).open(path).context("open", path)?;
        Ok(Self { control })
    }

    /// Makes a device of one target and puts it in use; on failure there is none.
    pub(crate) fn map(&self, name: &str, target: &Target<'_>) -> Result<MappedDevice> {
        self.call(Command::Create, name, 0, &[])?;
        let made = self.load(name, target).and_then(|()| self.call(Command::Suspend, name, 0, &[]));
        match made {
            Ok(exchange) => {
                let device = exchange.header().map_or(0, |header| header.device.get());
                Ok(MappedDevice {
                    name: name.to_owned(),
                    major: rustix::fs::major(device),
                    minor: rustix::fs::minor(device),
                })
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.call(Command::Remove, name, 0, &[]);
                Err(error)
            }
        }
    }

    /// Gives a device another table, which is in use on return; on failure it keeps the one it has.
    pub(crate) fn replace(&self, device: &MappedDevice, target: &Target<'_>) -> Result<()> {
        self.load(&device.name, target)?;
        self.call(Command::Suspend, &device.name, 0, &[]).map(drop)
    }

    /// Takes a device away; waits a moment where it is in use. One that is gone is as well.
    pub(crate) fn remove(&self, device: &MappedDevice) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.call(Command::Remove, &device.name, 0, &[]) {
                Err(StorageError::DeviceMapper { source, .. })
                    if source.kind() == io::ErrorKind::ResourceBusy && start.elapsed() < REMOVE_PATIENCE =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(StorageError::DeviceMapper { source, .. }) if source.raw_os_error() == Some(ENXIO) => return Ok(()),
                other => return other.map(drop),
            }
        }
    }

    /// What the device's target says about itself.
    pub(crate) fn status(&self, device: &MappedDevice) -> Result<String> {
        let exchange = self.call(Command::Status, &device.name, 0, &[])?;
        let text = exchange.first_target_text().map(|text| String::from_utf8_lossy(text).into_owned());
        text.ok_or_else(|| error(Command::Status, &device.name, io::Error::other("the answer is malformed")))
    }

    fn load(&self, name: &str, target: &Target<'_>) -> Result<()> {
        let read_only = if target.read_only { DM_READONLY_FLAG } else { 0 };
        let secret = if target.secret { DM_SECURE_DATA_FLAG } else { 0 };
        let mut table = table(target).ok_or_else(|| error(Command::Load, name, io::ErrorKind::InvalidInput.into()))?;
        let result = self.call(Command::Load, name, read_only | secret, &table);
        table.zeroize();
        result.map(drop)
    }

    fn call(&self, command: Command, name: &str, flags: u32, table: &[u8]) -> Result<Exchange> {
        let refuse = || error(command, name, io::ErrorKind::InvalidInput.into());
        let mut exchange = Exchange::new(command, name, flags, table).ok_or_else(refuse)?;
        ioctl(self.control.as_fd(), &mut exchange).map_err(|source| error(command, name, source))?;
        match exchange.header() {
            Some(header) if header.flags.get() & DM_BUFFER_FULL_FLAG == 0 => Ok(exchange),
            _ => Err(error(command, name, io::Error::other("the answer does not fit"))),
        }
    }
}

#[expect(unsafe_code, reason = "device mapper is reached by ioctl only")]
fn ioctl(control: BorrowedFd<'_>, exchange: &mut Exchange) -> io::Result<()> {
    // SAFETY: see the implementation of `Ioctl`.
    unsafe { rustix::ioctl::ioctl(control, exchange) }.map_err(Into::into)
}

fn error(command: Command, name: &str, source: io::Error) -> StorageError {
    StorageError::DeviceMapper { command: command.name(), device: name.to_owned(), source }
}

impl Exchange {
    /// `None` where name or table are too long.
    fn new(command: Command, name: &str, flags: u32, table: &[u8]) -> Option<Self> {
        let mut header = Header::new_zeroed();
        header.version = [4, 0, 0].map(U32::new);
        header.data_size = U32::new(BUFFER_BYTES as u32);
        header.data_start = U32::new(size_of::<Header>() as u32);
        header.target_count = U32::new(u32::from(!table.is_empty()));
        header.flags = U32::new(flags);
        put_text(&mut header.name, name)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        header.write_to_prefix(&mut buffer).ok()?;
        buffer.get_mut(size_of::<Header>()..)?.get_mut(..table.len())?.copy_from_slice(table);
        Some(Self { buffer, command })
    }

    fn header(&self) -> Option<&Header> {
        Some(Header::ref_from_prefix(&self.buffer).ok()?.0)
    }

    /// The text behind the answer's first target, without its NUL.
    fn first_target_text(&self) -> Option<&[u8]> {
        let header = self.header().filter(|header| header.target_count.get() > 0)?;
        let data = self.buffer.get(usize::try_from(header.data_start.get()).ok()?..)?;
        let (_, text) = TargetSpec::ref_from_prefix(data).ok()?;
        text.split(|&byte| byte == 0).next()
    }
}

/// A table of one target: its specification and its parameters, padded to 8 bytes. `None` where the parameters are too long.
fn table(target: &Target<'_>) -> Option<Vec<u8>> {
    let text_bytes = target.parameters.len().checked_add(1)?.checked_next_multiple_of(8)?;
    let total = size_of::<TargetSpec>().checked_add(text_bytes)?;
    let mut spec = TargetSpec::new_zeroed();
    spec.length = U64::new(target.sectors);
    spec.next = U32::new(u32::try_from(total).ok()?);
    put_text(&mut spec.kind, target.kind)?;
    let mut table = Vec::with_capacity(total);
    table.extend_from_slice(spec.as_bytes());
    table.extend_from_slice(target.parameters.as_bytes());
    table.resize(total, 0);
    Some(table)
}

/// Copies text that leaves room for a NUL; `None` where it does not.
fn put_text(field: &mut [u8], text: &str) -> Option<()> {
    let room = field.get_mut(..text.len()).filter(|_| !text.is_empty())?;
    room.copy_from_slice(text.as_bytes());
    (field.get(text.len()) == Some(&0)).then_some(())
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<Header>(), 312);
        assert_eq!(offset_of!(Header, flags), 28);
        assert_eq!(offset_of!(Header, device), 40);
        assert_eq!(offset_of!(Header, name), 48);
        assert_eq!(offset_of!(Header, uuid), 176);
        assert_eq!(offset_of!(Header, data), 305);
        assert_eq!(size_of::<TargetSpec>(), 40);
        assert_eq!(offset_of!(TargetSpec, kind), 24);
        let mut exchange = Exchange::new(Command::Create, "layer-0", 0, &[]).unwrap();
        // _IOWR(0xfd, 3, struct dm_ioctl)
        assert_eq!(Ioctl::opcode(&&mut exchange), 0xc138_fd03);
    }

    #[test]
    fn a_request_on_the_wire() {
        let target = Target { kind: "verity", sectors: 8, parameters: "1 8:0", read_only: true, secret: false };
        let table = table(&target).unwrap();
        let exchange = Exchange::new(Command::Load, "layer-0", DM_READONLY_FLAG, &table).unwrap();
        let header = exchange.header().unwrap();
        assert_eq!(header.version.map(U32::get), [4, 0, 0]);
        assert_eq!((header.data_size.get(), header.data_start.get()), (16384, 312));
        assert_eq!((header.target_count.get(), header.flags.get()), (1, 1));
        assert_eq!(&header.name[..8], b"layer-0\0");
        assert_eq!(&exchange.buffer[312..312 + 48], &table[..]);
        assert_eq!(table[8], 8, "length");
        assert_eq!(table[20], 48, "bytes to the next target");
        assert_eq!(&table[24..31], b"verity\0");
        assert_eq!(&table[40..48], b"1 8:0\0\0\0");
        assert_eq!(exchange.first_target_text(), Some(&b"1 8:0"[..]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = "x".repeat(NAME_BYTES);
        assert!(Exchange::new(Command::Create, &long, 0, &[]).is_none());
        assert!(Exchange::new(Command::Create, &long[1..], 0, &[]).is_some());
        assert!(Exchange::new(Command::Create, "", 0, &[]).is_none());
        assert!(Exchange::new(Command::Load, "a", 0, &vec![0; BUFFER_BYTES]).is_none());
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), start in any::<u32>()) {
            let mut exchange = Exchange::new(Command::Status, "a", 0, &[]).unwrap();
            exchange.buffer[312..312 + bytes.len()].copy_from_slice(&bytes);
            exchange.buffer[16..20].copy_from_slice(&start.to_le_bytes());
            exchange.buffer[20] = 1;
            let _ = exchange.first_target_text();
        }
    }
}
