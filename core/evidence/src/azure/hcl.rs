//! The report of Azure's paravisor (HCL): the processor's report of a confidential VM, and the claims whose hash it carries.
//!
//! ```text
//! 000 "HCLA", u32 version (1, 2), u32 size, u32 request type 2, u32 status 0, 12 zero bytes
//! 020 the processor's report, 1184 bytes: SEV-SNP's ATTESTATION_REPORT, or TDX's TDREPORT (1024 bytes) and zeros
//! 4c0 u32 size (20 + that of the claims), u32 version 1, u32 report type (2 SNP, 4 TDX), u32 hash (1, 2, 3: SHA-256, -384, -512),
//!     u32 size of the claims
//! 4d4 the claims, JSON; then zeros
//! ```

use caveau_signature::Hash;
use caveau_snp::report::REPORT_BYTES;

/// Largest paravisor's report accepted.
pub(crate) const MAX_HCL_BYTES: usize = 64 * 1024;
const REPORT: usize = 0x20;
const CLAIMS_HEADER: usize = 0x4c0;
const CLAIMS: usize = 0x4d4;
/// Where REPORTDATA stands in a TDREPORT: in REPORTMACSTRUCT (Intel TDX module ABI).
const TD_REPORT_DATA: usize = 128;

/// A paravisor's report as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HclReport<'a> {
    /// Of which processor.
    pub kind: HclKind,
    /// The processor's report: of SEV-SNP whole; of TDX one that only the same machine can check.
    pub report: &'a [u8],
    /// The claims, JSON.
    pub claims: &'a [u8],
    hash: Hash,
}

/// Processors under Azure's paravisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HclKind {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

/// Why bytes are no paravisor's report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HclError {
    /// Another beginning.
    #[error("the paravisor's report does not begin with HCLA")]
    Magic,
    /// A number that is not what it must be.
    #[error("the paravisor's report has {field} {found}, expected {expected}")]
    Number {
        /// Which.
        field: &'static str,
        /// What it is.
        found: u32,
        /// What it may be.
        expected: &'static str,
    },
    /// A length that does not fit.
    #[error("the paravisor's report of {0} bytes has not the parts that its sizes say")]
    Length(usize),
    /// A byte that must be zero is not.
    #[error("the paravisor's report has bytes set in the reserved range at {0:#x}")]
    Reserved(usize),
}

impl<'a> HclReport<'a> {
    /// Whether bytes begin as such a report.
    #[must_use]
    pub fn is_likely(bytes: &[u8]) -> bool {
        bytes.starts_with(b"HCLA")
    }

    /// Reads a paravisor's report.
    ///
    /// # Errors
    /// [`HclError`], for the first thing that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HclError> {
        if !Self::is_likely(bytes) {
            return Err(HclError::Magic);
        }
        let number = |at: usize| {
            let field = at.checked_add(4).and_then(|end| bytes.get(at..end)).and_then(|field| field.try_into().ok());
            field.map(u32::from_le_bytes).ok_or(HclError::Length(bytes.len()))
        };
        let expect = |field, at, may: &[u32], expected| match number(at)? {
            found if may.contains(&found) => Ok(found),
            found => Err(HclError::Number { field, found, expected }),
        };
        expect("version", 4, &[1, 2], "1 or 2")?;
        expect("request type", 12, &[2], "2")?;
        expect("status", 16, &[0], "0")?;
        expect("version of its claims", CLAIMS_HEADER.saturating_add(4), &[1], "1")?;
        let kind = match expect("report type", CLAIMS_HEADER.saturating_add(8), &[2, 4], "2 (SEV-SNP) or 4 (TDX)")? {
            2 => HclKind::Snp,
            _ => HclKind::Tdx,
        };
        let hash = match expect("hash", CLAIMS_HEADER.saturating_add(12), &[1, 2, 3], "1 to 3 (SHA-256 to SHA-512)")? {
            1 => Hash::Sha256,
            2 => Hash::Sha384,
            _ => Hash::Sha512,
        };
        let length = || HclError::Length(bytes.len());
        let to_usize = |number: u32| usize::try_from(number).map_err(|_| length());
        let size = to_usize(number(CLAIMS.saturating_sub(4))?)?;
        let end = CLAIMS.checked_add(size).ok_or_else(length)?;
        let of_claims = size.checked_add(CLAIMS.saturating_sub(CLAIMS_HEADER)).ok_or_else(length)?;
        if to_usize(number(CLAIMS_HEADER)?)? != of_claims || to_usize(number(8)?)? != end || bytes.len() > MAX_HCL_BYTES
        {
            return Err(length());
        }
        let claims = bytes.get(CLAIMS..end).ok_or_else(length)?;
        for (from, to) in [(20, REPORT), (end, bytes.len())] {
            if bytes.get(from..to).is_none_or(|range| range.iter().any(|&byte| byte != 0)) {
                return Err(HclError::Reserved(from));
            }
        }
        let report = bytes.get(REPORT..REPORT.saturating_add(REPORT_BYTES)).ok_or_else(length)?;
        Ok(Self { kind, report, claims, hash })
    }

    /// Whether these 64 bytes are the hash of the claims, and zeros after it.
    #[must_use]
    pub fn is_bound_by(&self, report_data: &[u8; 64]) -> bool {
        let hash = self.hash.digest(self.claims);
        let bound = report_data.split_at_checked(hash.len());
        bound.is_some_and(|(found, rest)| found == hash && rest.iter().all(|&byte| byte == 0))
    }

    /// REPORTDATA of the TDREPORT, for TDX.
    #[must_use]
    pub fn td_report_data(&self) -> Option<&'a [u8; 64]> {
        let data = self.report.get(TD_REPORT_DATA..)?.first_chunk();
        data.filter(|_| self.kind == HclKind::Tdx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn made(claims: &[u8]) -> Vec<u8> {
        let size = u32::try_from(claims.len()).unwrap();
        let mut out = b"HCLA".to_vec();
        for number in [2, size + 0x4d4, 2, 0, 0, 0, 0] {
            out.extend(number.to_le_bytes());
        }
        out.extend([7; REPORT_BYTES]);
        for number in [size + 20, 1, 2, 1, size] {
            out.extend(number.to_le_bytes());
        }
        out.extend(claims);
        out.extend([0; 100]);
        out
    }

    #[test]
    fn a_report_is_read_and_binds_its_claims() {
        let bytes = made(b"{}");
        let report = HclReport::parse(&bytes).unwrap();
        assert_eq!((report.kind, report.claims, report.report.len()), (HclKind::Snp, &b"{}"[..], 1184));
        let mut data = [0; 64];
        data[..32].copy_from_slice(&Hash::Sha256.digest(b"{}"));
        assert!(report.is_bound_by(&data));
        data[63] = 1;
        assert!(!report.is_bound_by(&data));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = made(b"{}");
        for at in [0, 4, 8, 12, 16, 20, 31, 0x4c0, 0x4c4, 0x4c8, 0x4cc, 0x4d0, 0x4d6, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(HclReport::parse(&bad).is_err(), "byte {at:#x}");
        }
        for length in 0..0x4d6 {
            assert!(HclReport::parse(&good[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_report_or_an_error(bytes in vec(any::<u8>(), 0..1400), changes in vec((0..1340_usize, any::<u8>()), 0..6)) {
            let _ = HclReport::parse(&bytes);
            let mut near = made(b"{\"keys\":[]}");
            for (at, value) in changes {
                if let Some(byte) = near.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = HclReport::parse(&near);
        }
    }
}
