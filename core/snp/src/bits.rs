//! Bit fields of a report: guest policy and platform information.

use serde::Serialize;

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

/// How a guest policy is shown: its number and each bit by name.
#[derive(Serialize)]
struct ShownPolicy {
    value: String,
    abi: String,
    smt_allowed: bool,
    migration_agent_allowed: bool,
    debug_allowed: bool,
    single_socket: bool,
    cxl_allowed: bool,
    aes_256_xts_required: bool,
    rapl_must_be_off: bool,
    ciphertext_hiding_required: bool,
    page_swap_disabled: bool,
}

impl Serialize for GuestPolicy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (major, minor) = self.abi();
        let shown = ShownPolicy {
            value: format!("{:#x}", self.0),
            abi: format!("{major}.{minor}"),
            smt_allowed: self.smt_allowed(),
            migration_agent_allowed: self.migration_agent_allowed(),
            debug_allowed: self.debug_allowed(),
            single_socket: self.single_socket(),
            cxl_allowed: self.cxl_allowed(),
            aes_256_xts_required: self.aes_256_xts_required(),
            rapl_must_be_off: self.rapl_must_be_off(),
            ciphertext_hiding_required: self.ciphertext_hiding_required(),
            page_swap_disabled: self.page_swap_disabled(),
        };
        shown.serialize(serializer)
    }
}

/// How platform information is shown: its number and each bit by name.
#[derive(Serialize)]
struct ShownPlatform {
    value: String,
    smt_on: bool,
    tsme_on: bool,
    ecc_on: bool,
    rapl_off: bool,
    ciphertext_hiding_on: bool,
    alias_check_complete: bool,
    tio_on: bool,
}

impl Serialize for PlatformInfo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = ShownPlatform {
            value: format!("{:#x}", self.0),
            smt_on: self.smt_on(),
            tsme_on: self.tsme_on(),
            ecc_on: self.ecc_on(),
            rapl_off: self.rapl_off(),
            ciphertext_hiding_on: self.ciphertext_hiding_on(),
            alias_check_complete: self.alias_check_complete(),
            tio_on: self.tio_on(),
        };
        shown.serialize(serializer)
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
}
