//! What a quote is about: the report of an enclave (SGX) or of a trust domain (TDX).
//!
//! Layouts: Intel SGX SDM "REPORT", and "Intel TDX DCAP Quoting Library API", appendix A: bodies of 384 bytes (an enclave), 584
//! (TDX 1.0), 648 (TDX 1.5) and 885 (TDX 1.5 with extensions).

use caveau_snp::Hex;
use serde::Serialize;

use crate::bytes::Bytes;

/// Bytes of an enclave's report.
pub(crate) const ENCLAVE_BYTES: usize = 384;
/// Bytes of a trust domain's report under TDX 1.0.
pub(crate) const TD10_BYTES: usize = 584;
/// Bytes of a trust domain's report under TDX 1.5.
pub(crate) const TD15_BYTES: usize = 648;
/// Bytes of a trust domain's report under TDX 1.5 with its extensions.
pub(crate) const TD15EX_BYTES: usize = 885;

/// The report in a quote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Body {
    /// An enclave's.
    Enclave(Box<EnclaveReport>),
    /// A trust domain's.
    Td(Box<TdReport>),
}

/// The report of an enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EnclaveReport {
    /// CPUSVN.
    pub cpu_svn: Hex<16>,
    /// MISCSELECT, as it stands in memory.
    pub misc_select: Hex<4>,
    /// CET_ATTRIBUTES.
    pub cet_attributes: u8,
    /// ISVEXTPRODID.
    pub isv_ext_prod_id: Hex<16>,
    /// ATTRIBUTES: flags and XFRM.
    pub attributes: Hex<16>,
    /// MRENCLAVE.
    pub mr_enclave: Hex<32>,
    /// MRSIGNER.
    pub mr_signer: Hex<32>,
    /// CONFIGID.
    pub config_id: Hex<64>,
    /// ISVPRODID.
    pub isv_prod_id: u16,
    /// ISVSVN.
    pub isv_svn: u16,
    /// CONFIGSVN.
    pub config_svn: u16,
    /// ISVFAMILYID.
    pub isv_family_id: Hex<16>,
    /// REPORTDATA.
    pub report_data: Hex<64>,
}

/// The report of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TdReport {
    /// TEE_TCB_SVN: of the TDX module with which the domain was launched; byte 0 its ISVSVN, byte 1 its version.
    pub tee_tcb_svn: Hex<16>,
    /// MRSEAM: the TDX module.
    pub mr_seam: Hex<48>,
    /// MRSIGNERSEAM: who signed it; zero for Intel.
    pub mr_signer_seam: Hex<48>,
    /// SEAMATTRIBUTES.
    pub seam_attributes: Hex<8>,
    /// TDATTRIBUTES.
    pub td_attributes: Hex<8>,
    /// XFAM.
    pub xfam: Hex<8>,
    /// MRTD: the domain's contents at launch.
    pub mr_td: Hex<48>,
    /// MRCONFIGID.
    pub mr_config_id: Hex<48>,
    /// MROWNER.
    pub mr_owner: Hex<48>,
    /// MROWNERCONFIG.
    pub mr_owner_config: Hex<48>,
    /// RTMR0 to RTMR3: what was measured since.
    pub rtmrs: [Hex<48>; 4],
    /// REPORTDATA.
    pub report_data: Hex<64>,
    /// What TDX 1.5 adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub td15: Option<TdReport15>,
    /// What its extensions add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub td15_ex: Option<TdReport15Ex>,
}

/// What TDX 1.5 adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TdReport15 {
    /// TEE_TCB_SVN2: of the TDX module that runs now, which may have been replaced since launch.
    pub tee_tcb_svn2: Hex<16>,
    /// MRSERVICETD: the service domains bound at launch; zero without any.
    pub mr_service_td: Hex<48>,
}

/// What the extensions of TDX 1.5 add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TdReport15Ex {
    /// Which VM of a partitioned domain asked.
    pub vm_id: u8,
    /// TD_ID: of this instance.
    pub td_id: Hex<32>,
    /// Hash of what is known of the domain's devices.
    pub dev_info: Hex<48>,
    /// Hash of the service domains bound at launch.
    pub init_service_td_hash: Hex<48>,
    /// Their attributes.
    pub init_service_td_attributes: Hex<8>,
    /// CPUSVN at launch.
    pub init_cpu_svn: Hex<16>,
    /// TEE_TCB_SVN at launch.
    pub init_tee_tcb_svn: Hex<16>,
    /// Model of the platform of the launch.
    pub init_tee_fmspc: Hex<12>,
    /// Hash of the service domains bound now.
    pub cur_service_td_hash: Hex<48>,
    /// Their attributes.
    pub cur_service_td_attributes: Hex<8>,
}

impl Body {
    /// The 64 bytes that enclave or domain put in.
    #[must_use]
    pub const fn report_data(&self) -> Hex<64> {
        match self {
            Self::Enclave(report) => report.report_data,
            Self::Td(report) => report.report_data,
        }
    }
}

impl EnclaveReport {
    /// ATTRIBUTES, bit 1: the enclave may be debugged.
    const DEBUG: u8 = 2;

    /// Reads exactly [`ENCLAVE_BYTES`]; the offset of the first reserved range that is not zero where there is one.
    pub(crate) fn parse(bytes: &[u8; ENCLAVE_BYTES]) -> Result<Self, usize> {
        Self::fields(bytes).unwrap_or(Err(0))
    }

    fn fields(bytes: &[u8; ENCLAVE_BYTES]) -> Option<Result<Self, usize>> {
        let mut from = Bytes::new(bytes);
        let mut reserved = Reserved(None);
        let cpu_svn = Hex(from.array()?);
        let misc_select = Hex(from.array()?);
        let [cet_attributes] = from.array()?;
        reserved.take(&mut from, 11)?;
        let isv_ext_prod_id = Hex(from.array()?);
        let attributes = Hex(from.array()?);
        let mr_enclave = Hex(from.array()?);
        reserved.take(&mut from, 32)?;
        let mr_signer = Hex(from.array()?);
        reserved.take(&mut from, 32)?;
        let config_id = Hex(from.array()?);
        let isv_prod_id = from.u16()?;
        let isv_svn = from.u16()?;
        let config_svn = from.u16()?;
        reserved.take(&mut from, 42)?;
        let isv_family_id = Hex(from.array()?);
        let report_data = Hex(from.array()?);
        Some(reserved.done(Self {
            cpu_svn,
            misc_select,
            cet_attributes,
            isv_ext_prod_id,
            attributes,
            mr_enclave,
            mr_signer,
            config_id,
            isv_prod_id,
            isv_svn,
            config_svn,
            isv_family_id,
            report_data,
        }))
    }

    /// Whether the host may read the enclave's memory.
    #[must_use]
    pub fn is_debug(&self) -> bool {
        self.attributes.first().is_some_and(|flags| flags & Self::DEBUG != 0)
    }
}

/// The first reserved range with a byte that is not zero.
struct Reserved(Option<usize>);

impl Reserved {
    fn take(&mut self, from: &mut Bytes<'_>, count: usize) -> Option<()> {
        let at = from.offset();
        let zero = from.take(count)?.iter().all(|&byte| byte == 0);
        if !zero && self.0.is_none() {
            self.0 = Some(at);
        }
        Some(())
    }

    fn done<T>(self, value: T) -> Result<T, usize> {
        self.0.map_or(Ok(value), Err)
    }
}

impl TdReport {
    /// Reads the report of TDX 1.0, 1.5 or 1.5 with extensions, by its length; `None` for any other length.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut from = Bytes::new(bytes);
        let report = Self {
            tee_tcb_svn: Hex(from.array()?),
            mr_seam: Hex(from.array()?),
            mr_signer_seam: Hex(from.array()?),
            seam_attributes: Hex(from.array()?),
            td_attributes: Hex(from.array()?),
            xfam: Hex(from.array()?),
            mr_td: Hex(from.array()?),
            mr_config_id: Hex(from.array()?),
            mr_owner: Hex(from.array()?),
            mr_owner_config: Hex(from.array()?),
            rtmrs: [Hex(from.array()?), Hex(from.array()?), Hex(from.array()?), Hex(from.array()?)],
            report_data: Hex(from.array()?),
            td15: None,
            td15_ex: None,
        };
        let td15 = match bytes.len() {
            TD10_BYTES => return Some(report),
            TD15_BYTES | TD15EX_BYTES => {
                TdReport15 { tee_tcb_svn2: Hex(from.array()?), mr_service_td: Hex(from.array()?) }
            }
            _ => return None,
        };
        let report = Self { td15: Some(td15), ..report };
        if bytes.len() == TD15_BYTES {
            return Some(report);
        }
        let [vm_id] = from.array()?;
        let td15_ex = TdReport15Ex {
            vm_id,
            td_id: Hex(from.array()?),
            dev_info: Hex(from.array()?),
            init_service_td_hash: Hex(from.array()?),
            init_service_td_attributes: Hex(from.array()?),
            init_cpu_svn: Hex(from.array()?),
            init_tee_tcb_svn: Hex(from.array()?),
            init_tee_fmspc: Hex(from.array()?),
            cur_service_td_hash: Hex(from.array()?),
            cur_service_td_attributes: Hex(from.array()?),
        };
        from.rest().is_empty().then_some(Self { td15_ex: Some(td15_ex), ..report })
    }

    /// TDATTRIBUTES as a number.
    pub(crate) fn attributes(&self) -> u64 {
        u64::from_le_bytes(self.td_attributes.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_lengths_of_the_specification() {
        for length in 0..1000 {
            let bytes: Vec<u8> = (0..length).map(|at: usize| u8::try_from(at % 251).unwrap()).collect();
            let report = TdReport::parse(&bytes);
            assert_eq!(report.is_some(), [TD10_BYTES, TD15_BYTES, TD15EX_BYTES].contains(&length), "{length}");
            let Some(report) = report else { continue };
            assert_eq!(report.report_data.0, bytes[520..584]);
            assert_eq!(report.mr_td.0, bytes[136..184]);
            assert_eq!(report.td15.is_some(), length >= TD15_BYTES);
            assert_eq!(report.td15_ex.is_some(), length == TD15EX_BYTES);
        }
    }

    #[test]
    fn each_reserved_byte_of_an_enclave_is_looked_at() {
        let reserved = [21..32, 96..128, 160..192, 262..304];
        for at in 0..ENCLAVE_BYTES {
            let mut bytes = [0; ENCLAVE_BYTES];
            bytes[at] = 0x80;
            let expected = reserved.iter().find(|range| range.contains(&at)).map(|range| range.start);
            assert_eq!(EnclaveReport::parse(&bytes).err(), expected, "byte {at}");
        }
    }
}
