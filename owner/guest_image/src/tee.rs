//! The TEEs that a guest can be for, and what each fixes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A TEE, by the name that stands on the guest's measured command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// The software secure processor: no confidentiality.
    EmulatedSnp,
    /// AMD SEV-SNP.
    Snp,
}

/// Text that names no TEE.
#[derive(Debug, thiserror::Error)]
#[error("unknown TEE `{0}`: expected emulated-snp or snp")]
pub struct UnknownTee(String);

impl Tee {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::EmulatedSnp, Self::Snp];

    /// The kernel's whole command line.
    ///
    /// - `panic=-1 reboot=t`: a guest that cannot go on resets, and its monitor ends rather than hangs.
    /// - `oops=panic`: a kernel that found itself damaged does not go on.
    /// - `page_alloc.shuffle=1`: pages are handed out in no foreseeable order, where the kernel can do that.
    /// - `acpi=noirq initcall_blacklist=acpi_init`: of the host's ACPI tables, those of plain data are read; no bytecode is, for
    ///   the interpreter never gets any (kernel's drivers/acpi/bus.c: `acpi_init` is what loads it).
    /// - `scsi_mod.scan=manual`: the agent looks for disks where they are (a kernel whose SCSI is a module gets it from the
    ///   agent).
    /// - `no_timer_check`: an emulated timer may come late on a busy host, which the kernel would take for a broken one and end.
    /// - `cryptomgr.notests`: an emulated processor spends half a second on self-tests of ciphers, where the kernel has them,
    ///   and they find nothing there that the build would not have.
    #[must_use]
    pub const fn cmdline(self) -> &'static str {
        match self {
            Self::EmulatedSnp => {
                "caveau.tee=emulated-snp console=ttyS0 quiet loglevel=3 panic=-1 oops=panic reboot=t \
                 page_alloc.shuffle=1 acpi=noirq initcall_blacklist=acpi_init scsi_mod.scan=manual no_timer_check \
                 cryptomgr.notests"
            }
            Self::Snp => {
                "caveau.tee=snp console=ttyS0 quiet loglevel=3 panic=-1 oops=panic reboot=t page_alloc.shuffle=1 \
                 acpi=noirq initcall_blacklist=acpi_init scsi_mod.scan=manual"
            }
        }
    }

    /// Name of the file that holds the command line, with no newline: its bytes are measured.
    #[must_use]
    pub const fn cmdline_file(self) -> &'static str {
        match self {
            Self::EmulatedSnp => "cmdline.emulated-snp",
            Self::Snp => "cmdline.snp",
        }
    }

    /// Name of the kernel file that it boots: firmware with SEV support reads the image as shipped, while an emulated processor
    /// takes a second to decompress it, and so enters the ELF file inside at its PVH entry.
    #[must_use]
    pub const fn kernel_file(self) -> &'static str {
        match self {
            Self::EmulatedSnp => crate::KERNEL_ELF,
            Self::Snp => crate::KERNEL_IMAGE,
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmulatedSnp => "emulated-snp",
            Self::Snp => "snp",
        })
    }
}

impl FromStr for Tee {
    type Err = UnknownTee;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|tee| tee.to_string() == text);
        found.ok_or_else(|| UnknownTee(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_stand_on_the_command_line() {
        for tee in Tee::ALL {
            assert_eq!(tee.to_string().parse::<Tee>().unwrap(), tee);
            assert_eq!(serde_json::to_string(&tee).unwrap(), format!("\"{tee}\""));
            assert!(tee.cmdline().starts_with(&format!("caveau.tee={tee} ")));
            assert!(tee.cmdline().contains(" initcall_blacklist=acpi_init "), "no bytecode of the host is run");
            assert_eq!(tee.cmdline_file(), format!("cmdline.{tee}"));
        }
        let error = "sgx".parse::<Tee>().unwrap_err();
        assert_eq!(error.to_string(), "unknown TEE `sgx`: expected emulated-snp or snp");
    }
}
