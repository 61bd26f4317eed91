//! What the owner of a group expects. Nothing of it may come from the evidence, or from the host that is judged.

use serde::{Deserialize, Serialize};

use crate::Hex;
use crate::product::Product;
use crate::report::FirmwareVersion;
use crate::tcb::Tcb;
use crate::time::Timestamp;

/// How much is asked of authentic evidence beyond the owner's own expectations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// What REPORT_DATA must be.
    pub report_data: Option<ExpectedReportData>,
    /// SHA-256 of the policy, which HOST_DATA must be.
    pub policy_digest: Option<Hex<32>>,
    /// The launch digests, any of which MEASUREMENT must be: those of the guest image with the vCPU count that the owner
    /// asked for. Without them, the ID block of a trusted key stands for the measurement, where family, image and least
    /// security version are expected as well.
    pub measurements: Option<Vec<Hex<48>>>,
    /// The launch digests that somebody whom the owner trusts has signed for, any of which MEASUREMENT must be, too; empty
    /// where nothing signed came that counts.
    pub endorsed_measurements: Option<Vec<Hex<48>>>,
    /// The privilege level at which the guest must have asked; 0 unless the guest runs under a service module.
    pub vmpl: u32,
    /// What POLICY must be, beyond the profile's rules.
    pub guest_policy: ExpectedGuestPolicy,
    /// REPORT_ID_MA of the one migration agent that may be tied to the guest.
    pub migration_agent: Option<Hex<32>>,
    /// What PLATFORM_INFO must be, beyond the profile's rules.
    pub platform_info: ExpectedBits,
    /// Chips that may be used.
    pub chips: Option<Vec<Hex<64>>>,
    /// Chips that may not be used.
    pub denied_chips: Vec<Hex<64>>,
    /// Whether a platform may hide which chip it is.
    pub allow_masked_chip: bool,
    /// Whether firmware may run that can still be rolled back.
    pub allow_provisional_firmware: bool,
    /// Product lines that may be used.
    pub product_lines: Option<Vec<Product>>,
    /// Product lines that may not be used.
    pub denied_product_lines: Vec<Product>,
    /// Least firmware, by product line, on top of the profile's.
    pub minima: Vec<Minimum>,
    /// The cloud provider, where a VLEK signs.
    pub provider: Option<String>,
    /// Bits that both mitigation vectors must have (version 5).
    pub mitigations: u64,
    /// Keys, one of which must have signed the guest's ID block (ID_KEY_DIGEST).
    pub id_keys: Option<Vec<Hex<48>>>,
    /// Keys, one of which must vouch for the key that signed the ID block (AUTHOR_KEY_DIGEST).
    pub author_keys: Option<Vec<Hex<48>>>,
    /// FAMILY_ID, from the ID block. Like what else is from there, it counts only where a key of `id_keys` or `author_keys`
    /// signed the block: anyone can make a key and sign any with it.
    pub family_id: Option<Hex<16>>,
    /// IMAGE_ID, from the ID block.
    pub image_id: Option<Hex<16>>,
    /// Least security version of the guest (GUEST_SVN, from the ID block).
    pub least_guest_svn: Option<u32>,
    /// The guest instance that was seen before (REPORT_ID).
    pub report_id: Option<Hex<32>>,
    /// The highest number of a revocation list that the owner has seen.
    pub least_crl_number: u64,
    /// Whether there must be a revocation list; the profile's rule where nothing is said.
    pub require_crl: Option<bool>,
}

impl Expectations {
    /// Whether they say of which guest an ID block must be: its family, its image, and from which security version on.
    pub(crate) const fn names_a_guest(&self) -> bool {
        self.family_id.is_some() && self.image_id.is_some() && self.least_guest_svn.is_some()
    }
}

/// What the guest policy must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpectedGuestPolicy {
    /// Exactly this.
    pub exact: Option<u64>,
    /// Single bits.
    pub bits: ExpectedBits,
    /// Least firmware ABI that it must ask for: major, minor.
    pub least_abi: (u8, u8),
}

/// Bits that must be one or zero. What is in neither may be either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpectedBits {
    /// Bits that must be one.
    pub required: u64,
    /// Bits that must be zero.
    pub forbidden: u64,
}

/// Least firmware of one product line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minimum {
    /// The line.
    pub product: Product,
    /// Least levels, of REPORTED_TCB and LAUNCH_TCB.
    pub tcb: Option<Tcb>,
    /// Least version of the SNP firmware that runs, and of the one that cannot be rolled back.
    pub firmware: Option<FirmwareVersion>,
    /// The date of this knowledge: bulletins move on.
    pub as_of: Option<Timestamp>,
}

/// What REPORT_DATA must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedReportData {
    /// The binding of a challenge with this nonce and the data that came along: [`crate::binding`].
    Challenge(Vec<u8>),
    /// Exactly these bytes.
    Exact(Hex<64>),
    /// The binding of a channel's session with this nonce; the session's exporter came along. Whoever held the session's other
    /// end knows that it is that of its own: to anybody else this proves nothing.
    Session(Vec<u8>),
}

/// What came along with a report, whose worth is that the report has its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attached<'a> {
    /// Data bound into REPORT_DATA; empty where none is.
    pub runtime_data: &'a [u8],
    /// The policy's text.
    pub policy: Option<&'a [u8]>,
    /// The guest's event log.
    pub event_log: Option<&'a [u8]>,
}
