//! The kernel as `snp` enters it: the packed image, started by UEFI firmware, with the command line that `snp` measures.
//! The machine here has no SEV-SNP; what can be shown is that everything before that question works, and what is said then.

use std::process::{Command, Stdio};

use caveau_tests::{Caveau, finish, guest_folder};

/// Debian's UEFI firmware. It has no part for SEV-SNP, and measures nothing.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

#[test]
fn the_image_for_snp_starts_under_uefi_and_refuses_a_machine_without_it() {
    if Caveau::new().is_none() {
        return;
    }
    let guest = guest_folder();
    let command_line = std::fs::read_to_string(guest.join("cmdline.snp")).expect("the measured command line");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35", "-accel", "tcg", "-cpu", "EPYC-v4", "-smp", "3", "-m", "512", "-nodefaults"])
        .args([
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
            "-bios",
            OVMF,
            "-append",
            &command_line,
            "-kernel",
        ])
        .arg(guest.join("vmlinuz"))
        .arg("-initrd")
        .arg(guest.join("initrd.img"));
    let child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let said = finish(child.expect("QEMU starts")).success().stdout;
    assert!(said.contains("caveau-agent "), "{said}");
    assert!(said.contains("made for snp, but the machine shows no SEV-SNP"), "{said}");
}
