//! The launch specification, and the replay of its launch.

use crate::context::{LaunchContext, LaunchDigest, PAGE};
use crate::hashes::KernelHashes;
use crate::ovmf::{Ovmf, OvmfError, Section, SectionKind};
use crate::vcpu::VcpuType;
use crate::vmsa::{RESET_VECTOR, Vmm, vmsa_contents};

/// Largest firmware image: 16 MiB, what fits below 4 GiB beside the local APIC and flash of a PC.
pub const MAX_FIRMWARE_BYTES: usize = 16 << 20;
/// Most vCPUs.
pub const MAX_VCPUS: u32 = 4096;
/// First address of option ROMs in the measurement of [`Firmware::Direct`]: the PC's option ROM window.
pub const OPTION_ROM_GPA: u64 = 0xc_0000;
/// First address after the option ROMs.
pub const OPTION_ROM_END: u64 = 0xf_0000;
/// Address of the kernel hash table in the measurement of [`Firmware::Direct`]: where the AmdSev build of OVMF has it.
pub const DIRECT_HASH_TABLE_GPA: u64 = 0x1_0c00;

/// What is loaded and started. All bytes are those of the very files that the machine gets.
#[derive(Clone, Debug)]
pub struct LaunchSpec<'a> {
    /// The firmware.
    pub firmware: Firmware<'a>,
    /// Kernel, initrd and command line of a direct boot; `None` boots what the firmware finds.
    pub kernel: Option<KernelHashes>,
    /// Number of vCPUs, from 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
    /// Type of each vCPU.
    pub vcpu_type: VcpuType,
    /// SEV_FEATURES of each vCPU.
    pub guest_features: GuestFeatures,
    /// Whose monitor.
    pub vmm: Vmm,
}

/// Firmware, by the way in which it is measured.
#[derive(Clone, Debug)]
pub enum Firmware<'a> {
    /// An OVMF image with SEV-SNP metadata.
    Ovmf(&'a [u8]),
    /// A BIOS without SEV tables, and the option ROMs it will run: a machine of the emulated TEE.
    Direct {
        /// The BIOS image, a multiple of 4096 bytes.
        bios: &'a [u8],
        /// Name (for messages; not measured) and bytes of each ROM, in the order in which the machine gets them.
        option_roms: &'a [(&'a str, &'a [u8])],
    },
}

/// SEV_FEATURES of a vCPU (AMD APM volume 2, table B-4, offset 0x3B0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestFeatures(pub u64);

impl GuestFeatures {
    /// SNP active and nothing else: the default of Linux' KVM up to 6.10 or so.
    pub const SNP: Self = Self(1);
}

impl Default for GuestFeatures {
    fn default() -> Self {
        Self::SNP
    }
}

/// Why a specification has no launch digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MeasureError {
    /// The firmware's length cannot be mapped below 4 GiB.
    #[error("the firmware has {0} bytes: expected a multiple of 4096, at most {MAX_FIRMWARE_BYTES}")]
    FirmwareSize(usize),
    /// The page of the kernel hashes and the table's address do not belong together.
    #[error(
        "the firmware's kernel hash table at {table:#x} does not fit the page at {page:#x} that it reserves for it"
    )]
    HashTableOutsidePage {
        /// The table's address.
        table: u64,
        /// The page's.
        page: u64,
    },
    /// A kernel is given, and the firmware would not check it.
    #[error(
        "the firmware has no place for kernel hashes, so it would not check the kernel: use the AmdSev build of OVMF"
    )]
    NoKernelHashes,
    /// A direct machine without a kernel would run whatever the host offers it.
    #[error("a machine without OVMF needs a kernel to measure: give kernel, initrd and command line")]
    NoKernel,
    /// The ROMs do not fit their window.
    #[error("option ROM `{name}` of {bytes} bytes does not fit below {OPTION_ROM_END:#x}")]
    OptionRom {
        /// Its name.
        name: String,
        /// Its length.
        bytes: usize,
    },
    /// The firmware's tables.
    #[error(transparent)]
    Ovmf(#[from] OvmfError),
    /// The number of vCPUs.
    #[error("{0} vCPUs: expected 1 to {MAX_VCPUS}")]
    Vcpus(u32),
}

/// The launch digest of `spec`.
///
/// # Errors
/// [`MeasureError`], when the firmware is malformed or the parts cannot be launched together.
///
/// ```
/// # use caveau_measure::*;
/// let spec = LaunchSpec {
///     firmware: Firmware::Direct { bios: &[0xf4; 4096], option_roms: &[] },
///     kernel: Some(KernelHashes::from_bytes(b"kernel", Some(b"initrd"), "console=hvc0")),
///     vcpus: 2,
///     vcpu_type: "EPYC-v4".parse()?,
///     guest_features: GuestFeatures::SNP,
///     vmm: Vmm::Qemu,
/// };
/// assert_eq!(launch_digest(&spec)?.to_string().len(), 96);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn launch_digest(spec: &LaunchSpec<'_>) -> Result<LaunchDigest, MeasureError> {
    Launch::before_vcpus(spec.firmware.clone(), spec.kernel, spec.vmm)?.digest(
        spec.vcpus,
        spec.vcpu_type,
        spec.guest_features,
    )
}

/// A launch up to its vCPUs: all that is the same however many there are, measured once.
#[derive(Clone, Debug)]
pub struct Launch {
    context: LaunchContext,
    vmm: Vmm,
    /// Where application processors start.
    ap_entry: u32,
}

impl Launch {
    /// Measures firmware and kernel.
    ///
    /// # Errors
    /// [`MeasureError`], when the firmware is malformed or the parts cannot be launched together.
    pub fn before_vcpus(firmware: Firmware<'_>, kernel: Option<KernelHashes>, vmm: Vmm) -> Result<Self, MeasureError> {
        let mut context = LaunchContext::new();
        let ap_entry = match firmware {
            Firmware::Ovmf(image) => measure_ovmf(&mut context, kernel, vmm, image)?,
            Firmware::Direct { bios, option_roms } => measure_direct(&mut context, kernel, bios, option_roms)?,
        };
        Ok(Self { context, vmm, ap_entry })
    }

    /// The launch digest with so many vCPUs of that type.
    ///
    /// # Errors
    /// [`MeasureError::Vcpus`].
    pub fn digest(
        &self,
        vcpus: u32,
        vcpu_type: VcpuType,
        guest_features: GuestFeatures,
    ) -> Result<LaunchDigest, MeasureError> {
        if !(1..=MAX_VCPUS).contains(&vcpus) {
            return Err(MeasureError::Vcpus(vcpus));
        }
        let mut context = self.context.clone();
        let vmsa = |entry| vmsa_contents(self.vmm, entry, vcpu_type.signature(), guest_features.0);
        context.vmsa_page(vmsa(RESET_VECTOR));
        let application_processor = vmsa(self.ap_entry);
        for _ in 1..vcpus {
            context.vmsa_page(application_processor);
        }
        Ok(context.finish())
    }
}

/// Measures firmware pages and metadata sections; gives where application processors start.
fn measure_ovmf(
    context: &mut LaunchContext,
    kernel: Option<KernelHashes>,
    vmm: Vmm,
    image: &[u8],
) -> Result<u32, MeasureError> {
    measure_image(context, image)?;
    let ovmf = Ovmf::parse(image)?;
    let hash_page = match kernel {
        Some(hashes) => Some(kernel_hash_page(&ovmf, &hashes)?),
        None => None,
    };
    for section in ovmf.sections() {
        measure_section(context, *section, hash_page.as_ref(), vmm);
    }
    if vmm == Vmm::Ec2 {
        let late = ovmf.sections().iter().filter(|section| section.kind == SectionKind::Cpuid);
        late.for_each(|section| context.cpuid_page(section.gpa.into()));
    }
    Ok(ovmf.ap_reset())
}

fn measure_section(context: &mut LaunchContext, section: Section, hash_page: Option<&[u8; PAGE]>, vmm: Vmm) {
    let (gpa, size) = (u64::from(section.gpa), u64::from(section.size));
    match section.kind {
        SectionKind::SecMem if vmm == Vmm::Gce => context.unmeasured_pages(gpa, size),
        SectionKind::SecMem | SectionKind::SvsmCaa => context.zero_pages(gpa, size),
        SectionKind::Secrets => context.secrets_page(gpa),
        SectionKind::Cpuid if vmm == Vmm::Ec2 => {} // comes after all others
        SectionKind::Cpuid => context.cpuid_page(gpa),
        SectionKind::KernelHashes => match hash_page {
            Some(page) => context.normal_pages(gpa, page),
            None => context.zero_pages(gpa, size),
        },
    }
}

fn measure_direct(
    context: &mut LaunchContext,
    kernel: Option<KernelHashes>,
    bios: &[u8],
    option_roms: &[(&str, &[u8])],
) -> Result<u32, MeasureError> {
    let hashes = kernel.ok_or(MeasureError::NoKernel)?;
    measure_image(context, bios)?;
    let mut gpa = OPTION_ROM_GPA;
    for (name, bytes) in option_roms {
        let refuse = || MeasureError::OptionRom { name: (*name).to_owned(), bytes: bytes.len() };
        let pages = u64::try_from(bytes.len().div_ceil(PAGE)).map_err(|_| refuse())?;
        let end = pages.checked_mul(PAGE as u64).and_then(|size| size.checked_add(gpa)).ok_or_else(refuse)?;
        if end > OPTION_ROM_END || bytes.is_empty() {
            return Err(refuse());
        }
        context.normal_pages(gpa, bytes);
        gpa = end;
    }
    let page_gpa = DIRECT_HASH_TABLE_GPA & !0xfff;
    context.normal_pages(page_gpa, &place_table(&hashes, page_gpa, DIRECT_HASH_TABLE_GPA)?);
    Ok(RESET_VECTOR)
}

/// Measures `image` as normal pages that end at 4 GiB.
fn measure_image(context: &mut LaunchContext, image: &[u8]) -> Result<(), MeasureError> {
    let refuse = || MeasureError::FirmwareSize(image.len());
    if image.is_empty() || image.len() > MAX_FIRMWARE_BYTES || !image.len().is_multiple_of(PAGE) {
        return Err(refuse());
    }
    let size = u64::try_from(image.len()).map_err(|_| refuse())?;
    let gpa = (1_u64 << 32).checked_sub(size).ok_or_else(refuse)?;
    context.normal_pages(gpa, image);
    Ok(())
}

/// The page with the kernel hashes, where `ovmf` wants it.
fn kernel_hash_page(ovmf: &Ovmf, hashes: &KernelHashes) -> Result<[u8; PAGE], MeasureError> {
    let (Some(section), Some(table)) = (ovmf.kernel_hash_section(), ovmf.hash_table_gpa()) else {
        return Err(MeasureError::NoKernelHashes);
    };
    place_table(hashes, section.gpa.into(), table.into())
}

/// A zero page for address `page_gpa` with the table of `hashes` at address `table_gpa`.
fn place_table(hashes: &KernelHashes, page_gpa: u64, table_gpa: u64) -> Result<[u8; PAGE], MeasureError> {
    let outside = || MeasureError::HashTableOutsidePage { table: table_gpa, page: page_gpa };
    let offset = table_gpa.checked_sub(page_gpa).and_then(|offset| usize::try_from(offset).ok()).ok_or_else(outside)?;
    let table = hashes.table();
    let end = offset.checked_add(table.len()).ok_or_else(outside)?;
    let mut page = [0; PAGE];
    page.get_mut(offset..end).ok_or_else(outside)?.copy_from_slice(&table);
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct<'a>(bios: &'a [u8], option_roms: &'a [(&'a str, &'a [u8])], cmdline: &str, vcpus: u32) -> LaunchSpec<'a> {
        LaunchSpec {
            firmware: Firmware::Direct { bios, option_roms },
            kernel: Some(KernelHashes::from_bytes(b"kernel", Some(b"initrd"), cmdline)),
            vcpus,
            vcpu_type: "EPYC-v4".parse().unwrap(),
            guest_features: GuestFeatures::SNP,
            vmm: Vmm::Qemu,
        }
    }

    #[test]
    fn each_part_of_a_direct_machine_counts() {
        let bios = [0xf4; 8192];
        let mut other_bios = bios;
        other_bios[8191] = 0;
        let (a, b): (&[u8], &[u8]) = (&[1; 10240], &[2; 512]);
        let roms = [("a", a), ("b", b)];
        let swapped = [("b", b), ("a", a)];
        let base = launch_digest(&direct(&bios, &roms, "x", 2)).unwrap();
        for other in [
            direct(&other_bios, &roms, "x", 2),
            direct(&bios, &swapped, "x", 2),
            direct(&bios, &roms[..1], "x", 2),
            direct(&bios, &roms, "y", 2),
            direct(&bios, &roms, "x", 1),
        ] {
            assert_ne!(launch_digest(&other).unwrap(), base, "{other:?}");
        }
        assert_eq!(launch_digest(&direct(&bios, &roms, "x", 2)).unwrap(), base);
    }

    #[test]
    fn what_cannot_be_launched_has_no_digest() {
        let bios = [0; 4096];
        let no_kernel = LaunchSpec { kernel: None, ..direct(&bios, &[], "", 1) };
        assert_eq!(launch_digest(&no_kernel), Err(MeasureError::NoKernel));
        assert_eq!(launch_digest(&direct(&bios, &[], "", 0)), Err(MeasureError::Vcpus(0)));
        assert_eq!(launch_digest(&direct(&bios[1..], &[], "", 1)), Err(MeasureError::FirmwareSize(4095)));
        let huge = vec![0; 0x3_0001];
        let error = launch_digest(&direct(&bios, &[("big", &huge)], "", 1)).unwrap_err();
        assert_eq!(error, MeasureError::OptionRom { name: "big".to_owned(), bytes: huge.len() });
        let ovmf = LaunchSpec { firmware: Firmware::Ovmf(&bios), ..direct(&bios, &[], "", 1) };
        assert_eq!(launch_digest(&ovmf), Err(MeasureError::Ovmf(OvmfError::NoFooter)));
    }
}
