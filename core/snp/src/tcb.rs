//! TCB versions: the security levels of a processor's firmware parts.

use std::fmt;

use serde::Serialize;

/// Where each component stands in the eight bytes of a TCB_VERSION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Milan, Genoa and their relatives: bootloader, TEE, 4 zero bytes, SNP, microcode.
    Milan,
    /// Turin: FMC, bootloader, TEE, SNP, 3 zero bytes, microcode.
    Turin,
}

/// Security levels by component. They are compared one by one, never as one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Tcb {
    /// Level of the FMC firmware; only Turin has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// Level of the secure processor's bootloader.
    pub bootloader: u8,
    /// Level of the secure processor's operating system.
    pub tee: u8,
    /// Level of the SNP firmware.
    pub snp: u8,
    /// Level of the microcode.
    pub microcode: u8,
}

impl Tcb {
    /// Reads a TCB_VERSION; `None` when a byte is set that `layout` says is zero.
    #[must_use]
    pub fn from_u64(version: u64, layout: Layout) -> Option<Self> {
        match (layout, version.to_le_bytes()) {
            (Layout::Milan, [bootloader, tee, 0, 0, 0, 0, snp, microcode]) => {
                Some(Self { fmc: None, bootloader, tee, snp, microcode })
            }
            (Layout::Turin, [fmc, bootloader, tee, snp, 0, 0, 0, microcode]) => {
                Some(Self { fmc: Some(fmc), bootloader, tee, snp, microcode })
            }
            _ => None,
        }
    }

    /// Writes a TCB_VERSION. A level for FMC is left out where `layout` has no place for it.
    #[must_use]
    pub fn to_u64(self, layout: Layout) -> u64 {
        let Self { fmc, bootloader, tee, snp, microcode } = self;
        u64::from_le_bytes(match layout {
            Layout::Milan => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
            Layout::Turin => [fmc.unwrap_or(0), bootloader, tee, snp, 0, 0, 0, microcode],
        })
    }

    /// Whether each component is at least as high as in `minimum`.
    #[must_use]
    pub fn at_least(self, minimum: Self) -> bool {
        self.fmc.unwrap_or(0) >= minimum.fmc.unwrap_or(0)
            && self.bootloader >= minimum.bootloader
            && self.tee >= minimum.tee
            && self.snp >= minimum.snp
            && self.microcode >= minimum.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc}, ")?;
        }
        let Self { bootloader, tee, snp, microcode, .. } = self;
        write!(f, "bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_read_back() {
        let tcb = Tcb { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 };
        assert_eq!(tcb.to_u64(Layout::Milan), 0xdb18_0000_0000_0004);
        assert_eq!(Tcb::from_u64(tcb.to_u64(Layout::Milan), Layout::Milan), Some(tcb));
        let turin = Tcb { fmc: Some(1), ..tcb };
        assert_eq!(turin.to_u64(Layout::Turin), 0xdb00_0000_1800_0401);
        assert_eq!(Tcb::from_u64(turin.to_u64(Layout::Turin), Layout::Turin), Some(turin));
        assert_eq!(Tcb::from_u64(1 << 16, Layout::Milan), None);
        assert_eq!(Tcb::from_u64(1 << 40, Layout::Turin), None);
    }

    #[test]
    fn components_are_compared_one_by_one() {
        let low = Tcb { microcode: 9, snp: 1, ..Tcb::default() };
        let other = Tcb { microcode: 8, snp: 200, ..Tcb::default() };
        assert!(!low.at_least(other) && !other.at_least(low));
        assert!(low.at_least(low));
    }
}
