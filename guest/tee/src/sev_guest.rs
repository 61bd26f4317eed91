//! The `/dev/sev-guest` device (Linux, Documentation/virt/coco/sev-guest.rst, include/uapi/linux/sev-guest.h).
//!
//! Untested on hardware: the layouts are checked against the kernel's header by their sizes and offsets.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use caveau_sp_message::Status;
use caveau_sp_message::certificates::MAX_TABLE;
use caveau_sp_message::frame::ExitInfo;
use caveau_sp_message::key::KeyResponse;
use caveau_sp_message::report::{KeySelection, REPORT_SIZE, ReportRequest, ReportResponse};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use zerocopy::{Immutable, IntoBytes};
use zeroize::{Zeroize, Zeroizing};

use crate::{DerivedKey, KeyRequest, TeeError, TeeEvidence, check_report};

/// The device, under the root folder.
const DEVICE: &str = "dev/sev-guest";
/// Bytes of the kernel's room for a report response (`struct snp_report_resp`).
const REPORT_RESPONSE: usize = 4000;
/// Bytes of a report response that mean something.
const REPORT_PAYLOAD: usize = 32 + REPORT_SIZE;
/// Version of the request messages, as the kernel passes them on.
const REPORT_MESSAGE_VERSION: u8 = 1;

/// `struct snp_guest_request_ioctl`. The addresses are those of buffers that outlive the call.
#[repr(C)]
struct GuestRequest {
    message_version: u8,
    request: u64,
    response: u64,
    exit_info: u64,
}

/// `struct snp_ext_report_req`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ExtendedReportRequest {
    report: [u8; 96],
    certificates: u64,
    certificates_size: u32,
    padding: u32,
}

const _: () = assert!(size_of::<GuestRequest>() == 32);
const _: () = assert!(size_of::<ExtendedReportRequest>() == 112);

const GET_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 0);
const GET_DERIVED_KEY: Opcode = opcode::read_write::<GuestRequest>(b'S', 1);
const GET_EXT_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 2);

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

    /// A report with the host's certificates, or without them where they are too many for the kernel.
    pub(crate) fn report(&self, report_data: &[u8; 64]) -> Result<TeeEvidence, TeeError> {
        let (report, certificates) = match self.extended_report(report_data) {
            Err(TeeError::Refused(ExitInfo::CERTIFICATES_TOO_LARGE)) => (self.plain_report(report_data)?, Vec::new()),
            other => other?,
        };
        check_report(&report, report_data)?;
        Ok(TeeEvidence { report, certificates })
    }

    fn extended_report(&self, report_data: &[u8; 64]) -> Result<(Vec<u8>, Vec<u8>), TeeError> {
        let mut table = vec![0; MAX_TABLE];
        let request = ExtendedReportRequest {
            report: report_request(report_data),
            certificates: address(&mut table),
            certificates_size: u32::try_from(MAX_TABLE).unwrap_or(u32::MAX),
            padding: 0,
        };
        let mut response = vec![0; REPORT_RESPONSE];
        self.call::<GET_EXT_REPORT>(REPORT_MESSAGE_VERSION, request.as_bytes(), &mut response)?;
        Ok((report_of(&response)?, table))
    }

    fn plain_report(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, TeeError> {
        let mut response = vec![0; REPORT_RESPONSE];
        self.call::<GET_REPORT>(REPORT_MESSAGE_VERSION, &report_request(report_data), &mut response)?;
        report_of(&response)
    }

    /// A derived key.
    pub(crate) fn derived_key(&self, request: &KeyRequest) -> Result<DerivedKey, TeeError> {
        let mut response = Zeroizing::new(vec![0; 64]);
        self.call::<GET_DERIVED_KEY>(request.message_version(), &request.to_bytes(), &mut response)?;
        let parsed = KeyResponse::parse(&response)?;
        match parsed.status {
            Status::Success => Ok(parsed.key),
            status => Err(TeeError::Status(status)),
        }
    }

    fn call<const OPCODE: Opcode>(
        &self,
        message_version: u8,
        request: &[u8],
        response: &mut [u8],
    ) -> Result<(), TeeError> {
        let mut copy = request.to_vec();
        let mut argument =
            GuestRequest { message_version, request: address(&mut copy), response: address(response), exit_info: 0 };
        // SAFETY: the opcode takes this structure; its addresses are of buffers as large as the kernel's structures for
        // this opcode (checked by the constants above), exclusively borrowed until after the call.
        #[expect(unsafe_code, reason = "the device has no other interface")]
        let outcome = unsafe { ioctl(&self.device, Updater::<OPCODE, GuestRequest>::new(&mut argument)) };
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

/// `struct snp_report_req`: the request message; the kernel has no key selection, its bytes are reserved.
fn report_request(report_data: &[u8; 64]) -> [u8; 96] {
    ReportRequest { report_data: *report_data, vmpl: 0, key: KeySelection::VlekElseVcek }.to_bytes()
}

fn report_of(response: &[u8]) -> Result<Vec<u8>, TeeError> {
    let parsed = ReportResponse::parse(response.get(..REPORT_PAYLOAD).unwrap_or_default())?;
    Ok(parsed.report.ok_or(TeeError::Status(parsed.status))?.to_vec())
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
        // _IOWR('S', 0 to 2, 32 bytes), as the preprocessor gives them.
        assert_eq!((GET_REPORT, GET_DERIVED_KEY, GET_EXT_REPORT), (0xc020_5300, 0xc020_5301, 0xc020_5302));
    }

    #[test]
    fn layouts_are_those_of_the_kernel_header() {
        assert_eq!(offset_of!(GuestRequest, request), 8);
        assert_eq!(offset_of!(GuestRequest, response), 16);
        assert_eq!(offset_of!(GuestRequest, exit_info), 24);
        assert_eq!(offset_of!(ExtendedReportRequest, certificates), 96);
        assert_eq!(offset_of!(ExtendedReportRequest, certificates_size), 104);
    }

    #[test]
    fn a_response_gives_its_report() {
        let mut response = vec![0; REPORT_RESPONSE];
        response[4..8].copy_from_slice(&1184_u32.to_le_bytes());
        response[32] = 3;
        assert_eq!(report_of(&response).unwrap()[0], 3);
        response[0] = 0x16;
        assert!(matches!(report_of(&response), Err(TeeError::Status(Status::InvalidParameters))));
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
        assert!(matches!(device.report(&[0; 64]), Err(TeeError::Device { act: "send a request to", .. })));
    }
}
