//! What an owner expects of an enclave or a trust domain, and of its platform.

use caveau_snp::Hex;

use crate::status::TcbStatus;

/// What the owner expects. `None` means not said, which leaves evidence "authentic, not appraised" where it concerns what runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// What REPORTDATA must be.
    pub report_data: Option<Hex<64>>,
    /// How the platform's TCB may stand; the profile's where nothing is said.
    pub statuses: Option<Vec<TcbStatus>>,
    /// Advisories that may concern the platform where it is not up to date; any where nothing is said.
    pub allowed_advisories: Option<Vec<String>>,
    /// Advisories that may not.
    pub denied_advisories: Vec<String>,
    /// Least tcbEvaluationDataNumber of the collateral.
    pub least_evaluation_number: u32,
    /// Platform kinds (FMSPC) that may be used.
    pub platforms: Option<Vec<Hex<6>>>,
    /// Trust domains that may run, any of them.
    pub domains: Option<Vec<TdIdentity>>,
    /// Enclaves that may run, any of them.
    pub enclaves: Option<Vec<EnclaveIdentity>>,
    /// Whether there must be revocation lists; the profile's rule where nothing is said.
    pub require_crl: Option<bool>,
    /// MRSERVICETD; zero where nothing is said.
    pub service_td: Option<Hex<48>>,
}

/// A trust domain: each field that is given must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TdIdentity {
    /// MRTD.
    pub mr_td: Option<Hex<48>>,
    /// RTMR0 to RTMR3.
    pub rtmrs: [Option<Hex<48>>; 4],
    /// MRCONFIGID.
    pub mr_config_id: Option<Hex<48>>,
    /// MROWNER.
    pub mr_owner: Option<Hex<48>>,
    /// MROWNERCONFIG.
    pub mr_owner_config: Option<Hex<48>>,
    /// MRSEAM.
    pub mr_seam: Option<Hex<48>>,
}

/// An enclave: each field that is given must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnclaveIdentity {
    /// MRENCLAVE.
    pub mr_enclave: Option<Hex<32>>,
    /// MRSIGNER; names an enclave only along with ISVPRODID and a least ISVSVN.
    pub mr_signer: Option<Hex<32>>,
    /// ISVPRODID.
    pub isv_prod_id: Option<u16>,
    /// Least ISVSVN.
    pub least_isv_svn: Option<u16>,
    /// CONFIGID.
    pub config_id: Option<Hex<64>>,
}
