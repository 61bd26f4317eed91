//! Whether this machine is a SEV guest, by every sign that can be read.
//!
//! Under SEV-SNP the kernel would not run without knowing it, so its own signs (the platform device, the VMPL in
//! sysfs) are the sound ones; CPUID is answered from a page that the firmware checked. One sign suffices: to see SEV
//! where there is none costs a start, to miss it lets the host offer a false processor.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// SEV_STATUS: bit 0 SEV, bit 1 SEV-ES, bit 2 SEV-SNP (AMD APM volume 2, 15.34.10).
const MSR_SEV_STATUS: u64 = 0xc001_0131;
/// The leaf of memory encryption: EAX bit 1 SEV, bit 3 SEV-ES, bit 4 SEV-SNP.
const CPUID_ENCRYPTION: u32 = 0x8000_001f;
const CPUID_SEV_BITS: u32 = 1 << 1 | 1 << 3 | 1 << 4;
const CPUID_SNP_BIT: u32 = 1 << 4;

/// What the kernel makes only in a SEV-SNP guest.
const SNP_PATHS: [&str; 4] = [
    "sys/bus/platform/devices/sev-guest",
    "sys/devices/platform/sev-guest",
    "sys/devices/system/cpu/sev",
    "dev/sev-guest",
];

/// The signs that were seen, in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SevSigns {
    any: Vec<String>,
    snp: bool,
}

impl SevSigns {
    /// Whether there is any sign of SEV, SEV-ES or SEV-SNP.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.any.is_empty()
    }

    /// Whether a sign of SEV-SNP itself is among them.
    #[must_use]
    pub fn snp(&self) -> bool {
        self.snp
    }

    fn add(&mut self, sign: String, snp: bool) {
        self.any.push(sign);
        self.snp |= snp;
    }
}

impl std::fmt::Display for SevSigns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.any() { f.write_str(&self.any.join(", ")) } else { f.write_str("none") }
    }
}

/// Looks for signs of SEV on the running machine.
#[must_use]
pub fn sev_signs() -> SevSigns {
    signs_under(Path::new("/"), encryption_leaf())
}

/// The same with files under `root` and this EAX of the leaf of memory encryption.
pub(crate) fn signs_under(root: &Path, encryption_eax: u32) -> SevSigns {
    let mut signs = SevSigns::default();
    for path in SNP_PATHS {
        if root.join(path).symlink_metadata().is_ok() {
            signs.add(format!("/{path}"), true);
        }
    }
    if encryption_eax & CPUID_SEV_BITS != 0 {
        signs.add(format!("CPUID 0x8000001f EAX {encryption_eax:#x}"), encryption_eax & CPUID_SNP_BIT != 0);
    }
    if let Some(status) = sev_status(root).filter(|status| *status != 0) {
        signs.add(format!("SEV_STATUS {status:#x}"), status & 0b100 != 0);
    }
    signs
}

/// SEV_STATUS, where the kernel lets it be read; on other machines the register does not exist.
fn sev_status(root: &Path) -> Option<u64> {
    let mut value = [0; 8];
    File::open(root.join("dev/cpu/0/msr")).ok()?.read_exact_at(&mut value, MSR_SEV_STATUS).ok()?;
    Some(u64::from_le_bytes(value))
}

#[cfg(target_arch = "x86_64")]
fn encryption_leaf() -> u32 {
    use std::arch::x86_64::__cpuid;

    if __cpuid(0x8000_0000).eax < CPUID_ENCRYPTION { 0 } else { __cpuid(CPUID_ENCRYPTION).eax }
}

#[cfg(not(target_arch = "x86_64"))]
fn encryption_leaf() -> u32 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_machine_shows_nothing() {
        let root = tempfile::tempdir().unwrap();
        let signs = signs_under(root.path(), 1);
        assert!(!signs.any() && !signs.snp());
        assert_eq!(signs.to_string(), "none");
    }

    #[test]
    fn each_path_of_the_kernel_is_a_sign() {
        for path in SNP_PATHS {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join(path)).unwrap();
            let signs = signs_under(root.path(), 0);
            assert!(signs.any() && signs.snp());
            assert_eq!(signs.to_string(), format!("/{path}"));
        }
    }

    #[test]
    fn cpuid_is_a_sign() {
        let root = tempfile::tempdir().unwrap();
        assert!(signs_under(root.path(), 0x02).any());
        assert!(!signs_under(root.path(), 0x0a).snp());
        assert!(signs_under(root.path(), 0x1a).snp());
    }

    #[test]
    fn the_status_register_is_a_sign() {
        for (value, any, snp) in [(0_u64, false, false), (1, true, false), (7, true, true)] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("dev/cpu/0")).unwrap();
            let msr = File::create(root.path().join("dev/cpu/0/msr")).unwrap();
            msr.write_all_at(&value.to_le_bytes(), MSR_SEV_STATUS).unwrap();
            let signs = signs_under(root.path(), 0);
            assert_eq!((signs.any(), signs.snp()), (any, snp), "{value}");
        }
    }
}
