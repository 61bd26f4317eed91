//! QE identity (Intel's provisioning certification service, version 2): the quoting enclaves that are genuine, and their levels.

use caveau_snp::Hex;
use caveau_snp::time::Timestamp;
use serde::Deserialize;

use crate::body::EnclaveReport;
use crate::quote::TeeType;
use crate::status::TcbStatus;
use crate::tcb_info::{AnyCase, Date};

/// What a quoting enclave must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QeIdentity {
    /// For quotes of which TEE.
    pub tee_type: TeeType,
    /// When it was made.
    pub issue_date: Timestamp,
    /// Until when it may be used.
    pub next_update: Timestamp,
    /// Which set of rules it is: higher ones are newer.
    pub evaluation_number: u32,
    /// MISCSELECT, and which bits of it count: bytes as they stand in memory.
    pub misc_select: (Hex<4>, Hex<4>),
    /// ATTRIBUTES, and which bits of it count.
    pub attributes: (Hex<16>, Hex<16>),
    /// MRSIGNER.
    pub mr_signer: Hex<32>,
    /// ISVPRODID.
    pub isv_prod_id: u16,
    /// Its levels, the best first.
    pub levels: Vec<QeLevel>,
}

/// A level of a quoting enclave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QeLevel {
    /// Least ISVSVN.
    pub isv_svn: u16,
    /// The date for which it holds.
    pub date: Timestamp,
    /// How such an enclave stands.
    pub status: TcbStatus,
    /// Which advisories concern it.
    pub advisories: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    id: String,
    version: u32,
    issue_date: Date,
    next_update: Date,
    tcb_evaluation_data_number: u32,
    miscselect: AnyCase<4>,
    miscselect_mask: AnyCase<4>,
    attributes: AnyCase<16>,
    attributes_mask: AnyCase<16>,
    mrsigner: AnyCase<32>,
    isvprodid: u16,
    tcb_levels: Vec<FileLevel>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileLevel {
    tcb: FileTcb,
    tcb_date: Date,
    tcb_status: TcbStatus,
    #[serde(rename = "advisoryIDs", default)]
    advisories: Vec<String>,
}

#[derive(Deserialize)]
struct FileTcb {
    isvsvn: u16,
}

impl QeIdentity {
    /// Reads a QE identity.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| format!("it is not the JSON expected: {error}"))?;
        let tee_type = match (file.id.as_str(), file.version) {
            ("QE", 2) => TeeType::Sgx,
            ("TD_QE", 2 | 3) => TeeType::Tdx,
            (id, version) => {
                return Err(format!("it is of {id:?} in version {version}, expected QE or TD_QE in version 2"));
            }
        };
        let odd = file.tcb_levels.iter().find(|level| !level.tcb_status.is_of_quoting_enclave());
        if let Some(odd) = odd {
            return Err(format!("a level of it is {}, which no quoting enclave is", odd.tcb_status));
        }
        let level = |level: FileLevel| QeLevel {
            isv_svn: level.tcb.isvsvn,
            date: level.tcb_date.0,
            status: level.tcb_status,
            advisories: level.advisories,
        };
        Ok(Self {
            tee_type,
            issue_date: file.issue_date.0,
            next_update: file.next_update.0,
            evaluation_number: file.tcb_evaluation_data_number,
            misc_select: (file.miscselect.0, file.miscselect_mask.0),
            attributes: (file.attributes.0, file.attributes_mask.0),
            mr_signer: file.mrsigner.0,
            isv_prod_id: file.isvprodid,
            levels: file.tcb_levels.into_iter().map(level).collect(),
        })
    }

    /// What of `report` is not as it must be; `None` where it is such an enclave.
    #[must_use]
    pub fn mismatch(&self, report: &EnclaveReport) -> Option<String> {
        if report.mr_signer != self.mr_signer {
            return Some(format!("MRSIGNER is {}, expected {}", report.mr_signer, self.mr_signer));
        }
        if report.isv_prod_id != self.isv_prod_id {
            return Some(format!("ISVPRODID is {}, expected {}", report.isv_prod_id, self.isv_prod_id));
        }
        // Like ATTRIBUTES, the text has the bytes as they stand in memory, from the least on.
        if !equal_under(&report.misc_select.0, &self.misc_select.0.0, &self.misc_select.1.0) {
            return Some(format!("MISCSELECT is {}, expected {}", report.misc_select, self.misc_select.0));
        }
        if !equal_under(&report.attributes.0, &self.attributes.0.0, &self.attributes.1.0) {
            return Some(format!("ATTRIBUTES are {}, expected {}", report.attributes, self.attributes.0));
        }
        report.is_debug().then(|| "it may be debugged".to_owned())
    }

    /// The level that an enclave of this SVN has reached.
    #[must_use]
    pub fn level_of(&self, isv_svn: u16) -> Option<&QeLevel> {
        self.levels.iter().find(|level| isv_svn >= level.isv_svn)
    }
}

/// Whether the bits that count are the same.
pub(crate) fn equal_under(found: &[u8], expected: &[u8], mask: &[u8]) -> bool {
    let mut bytes = found.iter().zip(expected).zip(mask);
    bytes.all(|((found, expected), mask)| found & mask == expected & mask)
}
