//! The SEV-SNP launch digest of a launch specification, predicted by anyone from the same artefacts the machine loads.
//!
//! Trusts nothing: firmware images and ID blocks are hostile input and get an error, never a panic. Promises that
//! [`launch_digest`] equals what the secure processor reports as MEASUREMENT for the pages that QEMU (or EC2, GCE) loads
//! for the same [`LaunchSpec`]. Refuses whatever it could only guess about: unknown metadata sections, unaligned or
//! truncated tables, a kernel that the firmware has no place to check.
//!
//! # The algorithm
//! The digest starts as 48 zero bytes; each launched 4 KiB page extends it: `LD = SHA384(PAGE_INFO)`, where PAGE_INFO holds
//! the old LD, the page's contents digest, type and guest-physical address (SEV-SNP firmware ABI, 8.17.2). HOST_DATA, the
//! guest policy and the ID block are not part of it.
//!
//! # What is measured for [`Firmware::Ovmf`], in order
//! 1. the image's pages, loaded so that it ends at 4 GiB;
//! 2. the sections of its SEV metadata, in table order (under EC2 the CPUID page after all others);
//! 3. one VMSA per vCPU, the boot processor's first.
//!
//! # What is measured for [`Firmware::Direct`], in order
//! A machine without OVMF (the emulated TEE) executes a plain BIOS and option ROMs, which then load the kernel. Each byte
//! that is executed is measured with the same algorithm, at fixed addresses that are part of this format:
//! 1. the BIOS image's pages, loaded so that it ends at 4 GiB;
//! 2. the option ROMs in the order given, as normal pages from [`OPTION_ROM_GPA`] upwards, each starting on a page of its own,
//!    its last page padded with zeros; all below [`OPTION_ROM_END`];
//! 3. the page with the kernel hashes: a normal page, the table at [`DIRECT_HASH_TABLE_GPA`];
//! 4. one VMSA per vCPU, all of them starting at the reset vector.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "tests stop at the first surprise"
    )
)]

mod context;
mod hashes;
mod id_block;
mod launch;
mod ovmf;
mod vcpu;
mod vmsa;

pub use context::{LaunchDigest, NotALaunchDigest};
pub use hashes::{KernelHashes, Sha256Digest, sha256};
pub use id_block::{ID_AUTH_BYTES, ID_BLOCK_BYTES, IdAuth, IdBlock, IdBlockError, IdKeys, P384Key, P384Signature};
pub use launch::{
    DIRECT_HASH_TABLE_GPA, Firmware, GuestFeatures, Launch, LaunchSpec, MAX_FIRMWARE_BYTES, MAX_VCPUS, MeasureError,
    OPTION_ROM_END, OPTION_ROM_GPA, launch_digest,
};
pub use ovmf::{Ovmf, OvmfError, Section, SectionKind};
pub use vcpu::{UnknownVcpuType, VcpuType};
pub use vmsa::Vmm;
