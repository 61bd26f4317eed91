//! What the owner of a group expects. Nothing of it may come from the evidence, or from the host that is judged.

use serde::Serialize;

use crate::Hex;
use crate::product::Product;
use crate::tcb::Tcb;

/// How much is asked of authentic evidence beyond the owner's own expectations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// No debugging, no migration agent, VMPL 0, no provisional firmware. Takes reports of version 2, and does without a
    /// revocation list.
    Baseline,
    /// All of it, and: version 3 or later, a revocation list in force, firmware without known ways in, memory checked for
    /// aliases, the chip named. What the command line uses unless told otherwise.
    #[default]
    Strict,
}

/// What the owner expects. `None` means not said, which leaves evidence "authentic, not appraised" where it concerns what
/// runs: nonce, policy, measurement.
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    /// What REPORT_DATA must be.
    pub report_data: Option<ExpectedReportData>,
    /// SHA-256 of the policy, which HOST_DATA must be.
    pub policy_digest: Option<Hex<32>>,
    /// The launch digests, any of which MEASUREMENT must be: those of the guest image with the vCPU count that the owner
    /// asked for.
    pub measurements: Option<Vec<Hex<48>>>,
    /// The exact guest policy (POLICY), where the profile's rules are not enough.
    pub guest_policy: Option<u64>,
    /// Chips that may be used.
    pub chips: Option<Vec<Hex<64>>>,
    /// Whether a platform may hide which chip it is.
    pub allow_masked_chip: bool,
    /// Whether firmware may run that can still be rolled back.
    pub allow_provisional_firmware: bool,
    /// Product lines that may be used.
    pub product_lines: Option<Vec<Product>>,
    /// The cloud provider, where a VLEK signs.
    pub provider: Option<String>,
    /// Least firmware levels, on top of the profile's.
    pub least_tcb: Option<Tcb>,
    /// Bits that both mitigation vectors must have (version 5).
    pub mitigations: u64,
    /// Keys that may have signed the guest's ID block (ID_KEY_DIGEST).
    pub id_keys: Option<Vec<Hex<48>>>,
    /// Least security version of the guest (GUEST_SVN, from the ID block).
    pub least_guest_svn: Option<u32>,
}

/// What REPORT_DATA must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedReportData {
    /// The binding of a challenge with this nonce and the data that came along: [`crate::binding`].
    Challenge(Vec<u8>),
    /// Exactly these bytes.
    Exact(Hex<64>),
}

/// What came along with a report, whose worth is that the report has its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attached<'a> {
    /// Data bound into REPORT_DATA; empty where none is.
    pub runtime_data: &'a [u8],
    /// The policy's text.
    pub policy: Option<&'a [u8]>,
}
