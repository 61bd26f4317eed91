//! The kernel hash table: how QEMU tells measured firmware what kernel, initrd and command line to accept.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use zerocopy::little_endian::U16;
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// A SHA-256 digest.
pub type Sha256Digest = [u8; 32];

/// SHA-256 of all that `source` still yields, read in pieces, so that a kernel or initrd need not be in memory.
///
/// # Errors
/// Those of `source`.
pub fn sha256(mut source: impl Read) -> io::Result<Sha256Digest> {
    let mut context = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(context.finalize().into()),
            Ok(read) => context.update(buffer.get(..read).unwrap_or(&buffer)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn sha256_of(bytes: &[u8]) -> Sha256Digest {
    Sha256::digest(bytes).into()
}

/// What direct kernel boot measures: SHA-256 of kernel, initrd and command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHashes {
    kernel: Sha256Digest,
    initrd: Sha256Digest,
    cmdline: Sha256Digest,
}

impl KernelHashes {
    /// Hashes for a kernel file's SHA-256, an initrd file's, and a command line's text.
    ///
    /// No initrd counts as an empty one. The command line is hashed with its closing NUL, as QEMU hands it to the guest.
    #[must_use]
    pub fn new(kernel: Sha256Digest, initrd: Option<Sha256Digest>, cmdline: &str) -> Self {
        let mut text = cmdline.as_bytes().to_vec();
        text.push(0);
        Self { kernel, initrd: initrd.unwrap_or_else(|| sha256_of(&[])), cmdline: sha256_of(&text) }
    }

    /// The same from the artefacts' bytes.
    #[must_use]
    pub fn from_bytes(kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str) -> Self {
        Self::new(sha256_of(kernel), initrd.map(sha256_of), cmdline)
    }

    /// The table as it stands in guest memory: 168 bytes, padded to 176.
    pub(crate) fn table(&self) -> [u8; Self::TABLE_BYTES] {
        let entry = |guid, hash| Entry { guid, length: U16::new(50), hash };
        let table = Table {
            guid: TABLE_GUID,
            length: U16::new(168),
            cmdline: entry(CMDLINE_GUID, self.cmdline),
            initrd: entry(INITRD_GUID, self.initrd),
            kernel: entry(KERNEL_GUID, self.kernel),
            padding: [0; 8],
        };
        zerocopy::transmute!(table)
    }

    /// Length of [`KernelHashes::table`].
    pub(crate) const TABLE_BYTES: usize = 176;
}

/// One entry of the table (QEMU, `target/i386/sev.c`, `SevHashTableEntry`).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    guid: [u8; 16],
    length: U16,
    hash: Sha256Digest,
}

/// The table (QEMU, `target/i386/sev.c`, `PaddedSevHashTable`).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Table {
    guid: [u8; 16],
    length: U16,
    cmdline: Entry,
    initrd: Entry,
    kernel: Entry,
    padding: [u8; 8],
}

/// 9438d606-4f22-4cc9-b479-a793d411fd21, in the mixed byte order of a GUID in memory.
const TABLE_GUID: [u8; 16] = guid(0x9438d606, 0x4f22, 0x4cc9, 0xb479, 0xa793_d411_fd21);
/// 97d02dd8-bd20-4c94-aa78-e7714d36ab2a
const CMDLINE_GUID: [u8; 16] = guid(0x97d02dd8, 0xbd20, 0x4c94, 0xaa78, 0xe771_4d36_ab2a);
/// 44baf731-3a2f-4bd7-9af1-41e29169781d
const INITRD_GUID: [u8; 16] = guid(0x44baf731, 0x3a2f, 0x4bd7, 0x9af1, 0x41e2_9169_781d);
/// 4de79437-abd2-427f-b835-d5b172d2045b
const KERNEL_GUID: [u8; 16] = guid(0x4de79437, 0xabd2, 0x427f, 0xb835, 0xd5b1_72d2_045b);

/// A GUID's bytes in memory: its first three groups little-endian, the other two big-endian.
pub(crate) const fn guid(a: u32, b: u16, c: u16, d: u16, e: u64) -> [u8; 16] {
    let [a0, a1, a2, a3] = a.to_le_bytes();
    let [b0, b1] = b.to_le_bytes();
    let [c0, c1] = c.to_le_bytes();
    let [d0, d1] = d.to_be_bytes();
    let [_, _, e0, e1, e2, e3, e4, e5] = e.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, e0, e1, e2, e3, e4, e5]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaming_and_whole_hashes_are_equal() {
        let data = vec![0x5a; 200_000];
        assert_eq!(sha256(&data[..]).unwrap(), sha256_of(&data));
    }

    #[test]
    fn what_is_missing_hashes_as_empty() {
        let hashes = KernelHashes::from_bytes(b"kernel", None, "");
        assert_eq!(hashes.initrd, sha256_of(b""));
        assert_eq!(hashes.cmdline, sha256_of(b"\0"));
    }

    #[test]
    fn a_guid_is_in_mixed_order() {
        assert_eq!(hex::encode(TABLE_GUID), "06d63894224fc94cb479a793d411fd21");
    }
}
