//! The VMSA: a vCPU's register state at reset, one measured page for each vCPU.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::context::sha384;

/// Whose virtual machine monitor loads the guest: they differ in a few registers and in the order of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Vmm {
    /// QEMU with KVM.
    #[default]
    Qemu,
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

/// Where the boot processor starts: the x86 reset vector.
pub(crate) const RESET_VECTOR: u32 = 0xffff_fff0;

/// A segment register (AMD APM volume 2, table B-4).
#[derive(IntoBytes, FromZeros, Immutable)]
#[repr(C)]
struct Segment {
    selector: U16,
    attributes: U16,
    limit: U32,
    base: U64,
}

impl Segment {
    fn new(selector: u16, attributes: u16, base: u64) -> Self {
        Self { selector: selector.into(), attributes: attributes.into(), limit: 0xffff.into(), base: base.into() }
    }
}

/// The save area (AMD APM volume 2, table B-4), padded to a page; only fields that are not zero at reset have a name.
#[derive(IntoBytes, FromZeros, Immutable)]
#[repr(C)]
struct SaveArea {
    es: Segment,
    cs: Segment,
    ss: Segment,
    ds: Segment,
    fs: Segment,
    gs: Segment,
    gdtr: Segment,
    ldtr: Segment,
    idtr: Segment,
    tr: Segment,
    unused_a0: [u8; 0x30],
    efer: U64,
    unused_d8: [u8; 0x70],
    cr4: U64,
    cr3: U64,
    cr0: U64,
    dr7: U64,
    dr6: U64,
    rflags: U64,
    rip: U64,
    unused_180: [u8; 0xe8],
    g_pat: U64,
    unused_270: [u8; 0xa0],
    rdx: U64,
    unused_318: [u8; 0x98],
    sev_features: U64,
    unused_3b8: [u8; 0x30],
    xcr0: U64,
    unused_3f0: [u8; 0x18],
    mxcsr: U32,
    x87_ftw: U16,
    x87_fsw: U16,
    x87_fcw: U16,
    unused_412: [u8; 0xbee],
}

/// SHA-384 of the VMSA page of a vCPU that starts at `entry` (its instruction pointer, cut at bit 16 into CS base and RIP).
pub(crate) fn vmsa_contents(vmm: Vmm, entry: u32, signature: u32, sev_features: u64) -> [u8; 48] {
    sha384(save_area(vmm, entry, signature, sev_features).as_bytes())
}

fn save_area(vmm: Vmm, entry: u32, signature: u32, sev_features: u64) -> SaveArea {
    let start = StartState::of(vmm, entry, signature);
    let data = || Segment::new(0, 0x93, 0);
    SaveArea {
        es: data(),
        cs: Segment::new(0xf000, start.cs, u64::from(entry & 0xffff_0000)),
        ss: Segment::new(0, start.ss, 0),
        ds: data(),
        fs: data(),
        gs: data(),
        gdtr: Segment::new(0, 0, 0),
        ldtr: Segment::new(0, 0x82, 0),
        idtr: Segment::new(0, 0, 0),
        tr: Segment::new(0, start.tr, 0),
        efer: 0x1000.into(), // SVME, which KVM sets
        cr4: 0x40.into(),    // MCE, which KVM sets
        cr0: 0x10.into(),
        dr7: 0x400.into(),
        dr6: 0xffff_0ff0.into(),
        rflags: 2.into(),
        rip: u64::from(entry & 0xffff).into(),
        g_pat: start.g_pat.into(),
        rdx: u64::from(start.rdx).into(),
        sev_features: sev_features.into(),
        xcr0: 1.into(),
        mxcsr: start.mxcsr.into(),
        x87_fcw: start.fcw.into(),
        ..SaveArea::new_zeroed()
    }
}

/// What differs between monitors.
struct StartState {
    cs: u16,
    ss: u16,
    tr: u16,
    g_pat: u64,
    rdx: u32,
    mxcsr: u32,
    fcw: u16,
}

impl StartState {
    fn of(vmm: Vmm, entry: u32, signature: u32) -> Self {
        let qemu = Self {
            cs: 0x9b,
            ss: 0x93,
            tr: 0x8b,
            g_pat: 0x0007_0406_0007_0406,
            rdx: signature,
            mxcsr: 0x1f80,
            fcw: 0x37f,
        };
        match vmm {
            Vmm::Qemu => qemu,
            Vmm::Ec2 => {
                let cs = if entry == RESET_VECTOR { 0x9a } else { 0x9b };
                Self { cs, ss: 0x92, tr: 0x83, rdx: 0x600, mxcsr: 0, fcw: 0, ..qemu }
            }
            Vmm::Gce => Self { g_pat: 0x0007_0106, rdx: 0x600, mxcsr: 0, fcw: 0, ..qemu },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_manual_puts_them() {
        assert_eq!(size_of::<SaveArea>(), 4096);
        let area = save_area(Vmm::Qemu, 0x0080_b004, 0x0080_0f12, 0x21);
        let page = area.as_bytes();
        let u64_at = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        assert_eq!(u64_at(0x18), 0x0080_0000, "CS base");
        for (at, value) in [
            (0xd0, 0x1000),
            (0x148, 0x40),
            (0x158, 0x10),
            (0x160, 0x400),
            (0x168, 0xffff_0ff0),
            (0x170, 2),
            (0x178, 0xb004),
            (0x268, 0x0007_0406_0007_0406),
            (0x310, 0x0080_0f12),
            (0x3b0, 0x21),
            (0x3e8, 1),
        ] {
            assert_eq!(u64_at(at), value, "at {at:#x}");
        }
        assert_eq!(page[0x408..0x40c], 0x1f80u32.to_le_bytes());
        assert_eq!(page[0x410..0x412], 0x37fu16.to_le_bytes());
    }
}
