//! The `/dev/sev-guest` device, for derived keys (Linux, Documentation/virt/coco/sev-guest.rst, include/uapi/linux/sev-guest.h).
//!
//! Untested on hardware: the layouts are checked against the kernel's header by their sizes and offsets.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use caveau_sp_message::Status;
use caveau_sp_message::frame::ExitInfo;
use caveau_sp_message::key::KeyResponse;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use zeroize::{Zeroize, Zeroizing};

use crate::{DerivedKey, KeyRequest, TeeError};

/// The device, under the root folder.
const DEVICE: &str = "dev/sev-guest";
/// Bytes of the kernel's derived-key response (`struct snp_derived_key_resp`).
const KEY_RESPONSE: usize = 64;

/// `struct snp_guest_request_ioctl`. The addresses are those of buffers that outlive the call.
#[repr(C)]
struct GuestRequest {
    message_version: u8,
    request: u64,
    response: u64,
    exit_info: u64,
}

const _: () = assert!(size_of::<GuestRequest>() == 32);

const GET_DERIVED_KEY: Opcode = opcode::read_write::<GuestRequest>(b'S', 1);

/// The opened device.
pub(crate) struct SevGuest {
    device: File,
    path: PathBuf,
}

impl SevGuest {
    /// The path of the device under `root`.
    pub(crate) fn path(root: &Path) -> PathBuf {
        root.join(DEVICE)
    }

    /// The device, where there is one.
    pub(crate) fn open(root: &Path) -> Result<Option<Self>, TeeError> {
        let path = Self::path(root);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(device) => Ok(Some(Self { device, path })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TeeError::Device { act: "open", path, source }),
        }
    }

    /// A derived key.
    pub(crate) fn derived_key(&self, request: &KeyRequest) -> Result<DerivedKey, TeeError> {
        let mut response = Zeroizing::new(vec![0; KEY_RESPONSE]);
        self.call(request.message_version(), &request.to_bytes(), &mut response)?;
        let parsed = KeyResponse::parse(&response)?;
        match parsed.status {
            Status::Success => Ok(parsed.key),
            status => Err(TeeError::Status(status)),
        }
    }

    fn call(&self, message_version: u8, request: &[u8], response: &mut [u8]) -> Result<(), TeeError> {
        let mut copy = request.to_vec();
        let mut argument =
            GuestRequest { message_version, request: address(&mut copy), response: address(response), exit_info: 0 };
        // SAFETY: the opcode takes this structure; its addresses are of buffers as large as the kernel's structures for
        // this opcode (checked by the constants above), exclusively borrowed until after the call.
        #[expect(unsafe_code, reason = "the device has no other interface")]
        let outcome = unsafe { ioctl(&self.device, Updater::<GET_DERIVED_KEY, GuestRequest>::new(&mut argument)) };
        copy.zeroize();
        let exit_info = exit_info(argument.exit_info);
        match outcome {
            Ok(()) => Ok(()),
            Err(_) if exit_info != ExitInfo::SUCCESS => Err(TeeError::Refused(exit_info)),
            Err(error) => {
                Err(TeeError::Device { act: "send a request to", path: self.path.clone(), source: error.into() })
            }
        }
    }
}

fn address(buffer: &mut [u8]) -> u64 {
    buffer.as_mut_ptr().expose_provenance() as u64
}

fn exit_info(value: u64) -> ExitInfo {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    ExitInfo { firmware: u32::from_le_bytes([a, b, c, d]), hypervisor: u32::from_le_bytes([e, f, g, h]) }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel_header() {
        // _IOWR('S', 1, 32 bytes), as the preprocessor gives it.
        assert_eq!(GET_DERIVED_KEY, 0xc020_5301);
    }

    #[test]
    fn layouts_are_those_of_the_kernel_header() {
        assert_eq!(offset_of!(GuestRequest, request), 8);
        assert_eq!(offset_of!(GuestRequest, response), 16);
        assert_eq!(offset_of!(GuestRequest, exit_info), 24);
    }

    #[test]
    fn exit_information_has_firmware_below_hypervisor() {
        assert_eq!(exit_info(0x1_0000_0000), ExitInfo::CERTIFICATES_TOO_LARGE);
        assert_eq!(exit_info(0x16), ExitInfo::firmware(0x16));
    }

    #[test]
    fn an_absent_device_is_no_error_and_a_false_one_is() {
        let root = tempfile::tempdir().unwrap();
        assert!(SevGuest::open(root.path()).unwrap().is_none());
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join(DEVICE), b"").unwrap();
        let device = SevGuest::open(root.path()).unwrap().unwrap();
        let request = KeyRequest {
            root: crate::RootKey::Vcek,
            fields: crate::KeyFields::SEALING,
            vmpl: 0,
            guest_svn: 0,
            tcb_version: 0,
            launch_mit_vector: None,
        };
        assert!(matches!(device.derived_key(&request), Err(TeeError::Device { act: "send a request to", .. })));
    }
}
