//! Bit fields of a report: guest policy and platform information.

use serde::Serialize;
use serde::ser::SerializeMap;

/// POLICY: what the guest's owner asked of the processor (SEV-SNP firmware ABI, table "Guest policy").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// The usual policy: SMT allowed, the bit that must be one, nothing else.
    pub const USUAL: Self = Self(0x3_0000);

    /// Least firmware ABI the guest asks for: major, minor.
    #[must_use]
    pub const fn abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }
    /// Whether the guest may run where sibling threads are on.
    #[must_use]
    pub const fn smt_allowed(self) -> bool {
        self.bit(16)
    }
    /// Whether a migration agent may be tied to the guest.
    #[must_use]
    pub const fn migration_agent_allowed(self) -> bool {
        self.bit(18)
    }
    /// Whether the host may read the guest's memory for debugging.
    #[must_use]
    pub const fn debug_allowed(self) -> bool {
        self.bit(19)
    }
    /// Whether the guest must stay on one socket.
    #[must_use]
    pub const fn single_socket(self) -> bool {
        self.bit(20)
    }
    /// Whether memory over CXL may be used.
    #[must_use]
    pub const fn cxl_allowed(self) -> bool {
        self.bit(21)
    }
    /// Whether memory must be encrypted with AES-256-XTS.
    #[must_use]
    pub const fn aes_256_xts_required(self) -> bool {
        self.bit(22)
    }
    /// Whether running-average power limits must be off.
    #[must_use]
    pub const fn rapl_must_be_off(self) -> bool {
        self.bit(23)
    }
    /// Whether the ciphertext must be hidden from the host.
    #[must_use]
    pub const fn ciphertext_hiding_required(self) -> bool {
        self.bit(24)
    }
    /// Whether swapping of guest pages must be disabled.
    #[must_use]
    pub const fn page_swap_disabled(self) -> bool {
        self.bit(25)
    }
    /// Whether bit 17 is one and bits 63:26 are zero, as the specification says.
    #[must_use]
    pub const fn is_well_formed(self) -> bool {
        self.bit(17) && self.0 >> 26 == 0
    }

    const fn bit(self, bit: u32) -> bool {
        is_set(self.0, bit)
    }
}

/// PLATFORM_INFO: how the host's processor is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    /// The bit that says the processor has checked memory for aliases.
    pub const ALIAS_CHECK_COMPLETE: u64 = 1 << 5;

    /// Whether sibling threads are on.
    #[must_use]
    pub const fn smt_on(self) -> bool {
        self.bit(0)
    }
    /// Whether all memory is encrypted transparently.
    #[must_use]
    pub const fn tsme_on(self) -> bool {
        self.bit(1)
    }
    /// Whether memory has error correction.
    #[must_use]
    pub const fn ecc_on(self) -> bool {
        self.bit(2)
    }
    /// Whether running-average power limits are off.
    #[must_use]
    pub const fn rapl_off(self) -> bool {
        self.bit(3)
    }
    /// Whether the ciphertext is hidden from the host.
    #[must_use]
    pub const fn ciphertext_hiding_on(self) -> bool {
        self.bit(4)
    }
    /// Whether the processor has checked memory for aliases (BadRAM, AMD-SB-3015).
    #[must_use]
    pub const fn alias_check_complete(self) -> bool {
        self.bit(5)
    }
    /// Whether SEV-TIO is on.
    #[must_use]
    pub const fn tio_on(self) -> bool {
        self.bit(7)
    }

    const fn bit(self, bit: u32) -> bool {
        is_set(self.0, bit)
    }
}

const fn is_set(word: u64, bit: u32) -> bool {
    word.wrapping_shr(bit) & 1 == 1
}

/// Names of bits, as JSON shows them and as an owner asks for them.
type Names = [(&'static str, u32)];

impl GuestPolicy {
    /// The bits that can be asked for by name; see the functions of the same names.
    const NAMES: &'static Names = &[
        ("smt_allowed", 16),
        ("migration_agent_allowed", 18),
        ("debug_allowed", 19),
        ("single_socket", 20),
        ("cxl_allowed", 21),
        ("aes_256_xts_required", 22),
        ("rapl_must_be_off", 23),
        ("ciphertext_hiding_required", 24),
        ("page_swap_disabled", 25),
    ];

    /// The bit with this name.
    ///
    /// # Errors
    /// [`NotABit`], with the names that there are.
    pub fn named(name: &str) -> Result<u64, NotABit> {
        mask(Self::NAMES, name)
    }

    /// The names of the bits in `mask`; a bit without a name by its number.
    #[must_use]
    pub fn names_in(mask: u64) -> Vec<String> {
        names_in(Self::NAMES, mask)
    }
}

impl PlatformInfo {
    /// The bits that can be asked for by name; see the functions of the same names.
    const NAMES: &'static Names = &[
        ("smt_on", 0),
        ("tsme_on", 1),
        ("ecc_on", 2),
        ("rapl_off", 3),
        ("ciphertext_hiding_on", 4),
        ("alias_check_complete", 5),
        ("tio_on", 7),
    ];

    /// The bit with this name.
    ///
    /// # Errors
    /// [`NotABit`], with the names that there are.
    pub fn named(name: &str) -> Result<u64, NotABit> {
        mask(Self::NAMES, name)
    }

    /// The names of the bits in `mask`; a bit without a name by its number.
    #[must_use]
    pub fn names_in(mask: u64) -> Vec<String> {
        names_in(Self::NAMES, mask)
    }
}

/// A name that no bit has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is none of the bits that can be asked for: {known}")]
pub struct NotABit {
    name: String,
    known: String,
}

fn mask(names: &Names, name: &str) -> Result<u64, NotABit> {
    names.iter().find(|(known, _)| *known == name).map(|(_, bit)| 1_u64.wrapping_shl(*bit)).ok_or_else(|| NotABit {
        name: name.chars().take(64).collect(),
        known: names.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
    })
}

fn names_in(names: &Names, mask: u64) -> Vec<String> {
    let name_of = |bit: u32| {
        names
            .iter()
            .find(|(_, known)| *known == bit)
            .map_or_else(|| format!("bit {bit}"), |(name, _)| (*name).to_owned())
    };
    (0..u64::BITS).filter(|bit| is_set(mask, *bit)).map(name_of).collect()
}

/// Shown as its number, the ABI, and each bit by name.
impl Serialize for GuestPolicy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (major, minor) = self.abi();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("value", &format!("{:#x}", self.0))?;
        map.serialize_entry("abi", &format!("{major}.{minor}"))?;
        Self::NAMES.iter().try_for_each(|(name, bit)| map.serialize_entry(name, &self.bit(*bit)))?;
        map.end()
    }
}

/// Shown as its number, and each bit by name.
impl Serialize for PlatformInfo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("value", &format!("{:#x}", self.0))?;
        Self::NAMES.iter().try_for_each(|(name, bit)| map.serialize_entry(name, &self.bit(*bit)))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_policy_is_well_formed_and_allows_no_debugging() {
        assert!(GuestPolicy::USUAL.is_well_formed() && GuestPolicy::USUAL.smt_allowed());
        assert!(!GuestPolicy::USUAL.debug_allowed());
        assert!(GuestPolicy(0xb_0000).debug_allowed());
        assert!(!GuestPolicy(0x1_0000).is_well_formed() && !GuestPolicy(1 << 26 | 0x3_0000).is_well_formed());
        assert_eq!(GuestPolicy(0x3_011f).abi(), (1, 31));
    }

    #[test]
    fn names_and_functions_mean_the_same_bits() {
        let policy = |name| GuestPolicy(GuestPolicy::named(name).unwrap());
        assert!(policy("smt_allowed").smt_allowed() && policy("debug_allowed").debug_allowed());
        assert!(policy("migration_agent_allowed").migration_agent_allowed() && policy("single_socket").single_socket());
        assert!(policy("cxl_allowed").cxl_allowed() && policy("aes_256_xts_required").aes_256_xts_required());
        assert!(policy("rapl_must_be_off").rapl_must_be_off() && policy("page_swap_disabled").page_swap_disabled());
        assert!(policy("ciphertext_hiding_required").ciphertext_hiding_required());
        let platform = |name| PlatformInfo(PlatformInfo::named(name).unwrap());
        assert!(platform("smt_on").smt_on() && platform("tsme_on").tsme_on() && platform("ecc_on").ecc_on());
        assert!(platform("rapl_off").rapl_off() && platform("ciphertext_hiding_on").ciphertext_hiding_on());
        assert!(platform("alias_check_complete").alias_check_complete() && platform("tio_on").tio_on());
        assert_eq!(PlatformInfo::names_in(0x41), ["smt_on", "bit 6"]);
        assert!(GuestPolicy::named("smt").unwrap_err().to_string().contains("smt_allowed, "));
    }
}
