//! QEMU's command line, composed from numbers of descriptors: a pure function, held against recorded expectations.

use std::{os::fd::RawFd, path::Path};

use caveau_protocol::{AGENT_PORT, SECURE_PROCESSOR_PORT};

use crate::{Accelerator, PortForward};

/// Guest policy of SEV-SNP: SMT allowed, bit 17 must be set; no debugging, no migration (SEV-SNP ABI, table 9).
const SNP_POLICY: u64 = 0x3_0000;

/// Position of the encryption bit in page tables on all processors that have SEV-SNP.
const SNP_C_BIT: u32 = 51;

/// A VM to be described to QEMU. Descriptors are given by their numbers in QEMU's process.
#[derive(Clone, Debug)]
pub struct Board<'a> {
    /// Shown in QEMU's own messages.
    pub name: &'a str,
    /// What executes and measures the guest.
    pub hardware: Hardware<'a>,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The kernel.
    pub kernel: RawFd,
    /// The initial RAM disk.
    pub initrd: Option<RawFd>,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// The control connection's QEMU end.
    pub qmp: RawFd,
    /// The serial console's QEMU end.
    pub console: RawFd,
    /// The agent port's QEMU end.
    pub agent: RawFd,
    /// The QEMU end of the software secure processor's port, where there is one.
    pub secure_processor: Option<RawFd>,
    /// Disks; a disk's index is its logical unit number.
    pub disks: Vec<Disk>,
    /// Published ports.
    pub ports: &'a [PortForward],
}

/// What executes and measures the guest.
#[derive(Clone, Debug)]
pub enum Hardware<'a> {
    /// Any machine: a BIOS and option ROMs, measured by the software secure processor.
    Emulated {
        /// KVM or TCG.
        accelerator: Accelerator,
        /// The BIOS image.
        bios: RawFd,
        /// Folder in which QEMU finds the measured option ROMs under their names.
        roms: &'a Path,
    },
    /// AMD SEV-SNP.
    Snp {
        /// The OVMF image.
        firmware: RawFd,
        /// Processor model.
        vcpu_type: &'a str,
        /// SHA-256 of the policy, as base64.
        host_data: &'a str,
    },
}

/// A disk.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Its file.
    pub file: RawFd,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// QEMU's arguments.
///
/// The device set is what the guest needs and no more: no display, no USB, no keyboard, no SATA, no SMBus, no default
/// devices. `-sandbox` takes from QEMU what it does not need of the kernel.
///
/// The guest executes only bytes that were measured. `-L` names a folder that QEMU looks into *before* its own, so that this
/// alone keeps no ROM out: the TPR-patching option ROM that QEMU adds by default (`kvmvapic.bin`) is off, no PCI device has a
/// ROM (`romfile=`), and [`crate::Machine::boot`] compares what QEMU has loaded with what it was given.
#[must_use]
pub fn compose(board: &Board<'_>) -> Vec<String> {
    let mut argv = Argv::default();
    argv.flag("-no-user-config").flag("-nodefaults").flag("-no-reboot");
    argv.pair("-name", format!("guest={}", board.name));
    argv.pair("-display", "none");
    argv.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    hardware(&mut argv, board);
    argv.pair("-smp", board.vcpus.to_string());
    argv.pair("-m", format!("{}M", board.memory_mib));
    argv.pair("-kernel", descriptor(board.kernel));
    if let Some(initrd) = board.initrd {
        argv.pair("-initrd", descriptor(initrd));
    }
    argv.pair("-append", board.cmdline);
    argv.pair("-chardev", format!("socket,id=qmp,fd={}", board.qmp));
    argv.pair("-mon", "chardev=qmp,mode=control");
    argv.pair("-chardev", format!("socket,id=console,fd={}", board.console));
    argv.pair("-serial", "chardev:console");
    let virtio = Virtio { encrypted: matches!(board.hardware, Hardware::Snp { .. }) };
    ports(&mut argv, board, virtio);
    argv.pair("-object", "rng-random,id=rng0,filename=/dev/urandom");
    argv.pair("-device", virtio.device("virtio-rng-pci", "rng=rng0"));
    network(&mut argv, board.ports, virtio);
    disks(&mut argv, &board.disks, virtio);
    argv.words
}

fn hardware(argv: &mut Argv, board: &Board<'_>) {
    const MACHINE: &str = "q35,vmport=off,smbus=off,sata=off,i8042=off,hpet=off,usb=off";
    match &board.hardware {
        Hardware::Emulated { accelerator, bios, roms } => {
            argv.pair("-machine", format!("{MACHINE},accel={accelerator}"));
            argv.pair("-cpu", "max");
            let apic = match accelerator {
                Accelerator::Kvm => "kvm-apic",
                Accelerator::Tcg => "apic",
            };
            argv.pair("-global", format!("{apic}.vapic=off"));
            argv.pair("-L", roms.display().to_string());
            argv.pair("-bios", descriptor(*bios));
        }
        Hardware::Snp { firmware, vcpu_type, host_data } => {
            argv.pair("-machine", format!("{MACHINE},accel=kvm,confidential-guest-support=sev0,memory-backend=ram0"));
            argv.pair("-cpu", *vcpu_type);
            argv.pair("-global", "kvm-apic.vapic=off");
            argv.pair(
                "-object",
                format!("memory-backend-memfd,id=ram0,size={}M,share=true,prealloc=false", board.memory_mib),
            );
            argv.pair(
                "-object",
                format!(
                    "sev-snp-guest,id=sev0,cbitpos={SNP_C_BIT},reduced-phys-bits=1,policy={SNP_POLICY:#x},\
                     kernel-hashes=on,host-data={host_data}"
                ),
            );
            argv.pair("-bios", descriptor(*firmware));
        }
    }
}

fn ports(argv: &mut Argv, board: &Board<'_>, virtio: Virtio) {
    argv.pair("-device", virtio.device("virtio-serial-pci", "id=serial0,max_ports=3"));
    let sp = board.secure_processor.map(|fd| (2, "sp", fd, SECURE_PROCESSOR_PORT));
    for (number, id, fd, name) in [(1, "agent", board.agent, AGENT_PORT)].into_iter().chain(sp) {
        argv.pair("-chardev", format!("socket,id={id},fd={fd}"));
        argv.pair("-device", format!("virtserialport,bus=serial0.0,nr={number},chardev={id},name={name}"));
    }
}

fn network(argv: &mut Argv, ports: &[PortForward], virtio: Virtio) {
    let mut user = String::from("user,id=net0,ipv6=off");
    for port in ports {
        user.push_str(",hostfwd=");
        user.push_str(&port.hostfwd());
    }
    argv.pair("-netdev", user);
    argv.pair("-device", virtio.device("virtio-net-pci", "netdev=net0"));
}

fn disks(argv: &mut Argv, disks: &[Disk], virtio: Virtio) {
    argv.pair("-device", virtio.device("virtio-scsi-pci", "id=scsi0"));
    for (lun, disk) in disks.iter().enumerate() {
        argv.pair("-add-fd", format!("fd={},set={lun}", disk.file));
        // What a guest of this kind writes is worth nothing once it has ended: no flushes to the host's disk.
        let access = if disk.read_only { "read-only=on,auto-read-only=off" } else { "cache.no-flush=on" };
        argv.pair(
            "-blockdev",
            format!("driver=file,node-name=disk{lun},filename=/dev/fdset/{lun},locking=off,{access}"),
        );
        argv.pair("-device", format!("scsi-hd,bus=scsi0.0,channel=0,scsi-id=0,lun={lun},drive=disk{lun}"));
    }
}

/// A path that leads QEMU to a descriptor it inherited.
pub(super) fn descriptor(number: RawFd) -> String {
    format!("/proc/self/fd/{number}")
}

/// How virtio devices are attached.
#[derive(Clone, Copy, Debug)]
struct Virtio {
    /// Whether the guest's memory is encrypted: devices must then reach it through what the guest shares with them.
    encrypted: bool,
}

impl Virtio {
    fn device(self, kind: &str, options: &str) -> String {
        let platform = if self.encrypted { ",iommu_platform=on" } else { "" };
        format!("{kind},{options},romfile=,disable-legacy=on{platform}")
    }
}

/// Arguments as they grow.
#[derive(Debug, Default)]
struct Argv {
    words: Vec<String>,
}

impl Argv {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.words.push(flag.to_owned());
        self
    }

    fn pair(&mut self, flag: &str, value: impl Into<String>) {
        self.words.push(flag.to_owned());
        self.words.push(value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board<'a>(hardware: Hardware<'a>, ports: &'a [PortForward], sp: Option<RawFd>) -> Board<'a> {
        Board {
            name: "web",
            hardware,
            vcpus: 2,
            memory_mib: 512,
            kernel: 10,
            initrd: Some(11),
            cmdline: "console=ttyS0 quiet",
            qmp: 12,
            console: 13,
            agent: 14,
            secure_processor: sp,
            disks: vec![Disk { file: 20, read_only: true }, Disk { file: 21, read_only: false }],
            ports,
        }
    }

    /// One argument pair a line, to compare with a recorded expectation.
    fn lines(words: &[String]) -> String {
        let mut text = String::new();
        for word in words {
            text.push_str(if word.starts_with('-') { "\n" } else { " " });
            text.push_str(word);
        }
        text.trim_start().to_owned()
    }

    #[test]
    fn the_emulated_machine_is_as_recorded() {
        let ports = ["8080:80".parse().unwrap(), "0.0.0.0:53:53/udp".parse().unwrap()];
        let hardware =
            Hardware::Emulated { accelerator: Accelerator::Tcg, bios: 15, roms: Path::new("/run/caveau/web/roms") };
        let expected = "\
-no-user-config
-nodefaults
-no-reboot
-name guest=web
-display none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-machine q35,vmport=off,smbus=off,sata=off,i8042=off,hpet=off,usb=off,accel=tcg
-cpu max
-global apic.vapic=off
-L /run/caveau/web/roms
-bios /proc/self/fd/15
-smp 2
-m 512M
-kernel /proc/self/fd/10
-initrd /proc/self/fd/11
-append console=ttyS0 quiet
-chardev socket,id=qmp,fd=12
-mon chardev=qmp,mode=control
-chardev socket,id=console,fd=13
-serial chardev:console
-device virtio-serial-pci,id=serial0,max_ports=3,romfile=,disable-legacy=on
-chardev socket,id=agent,fd=14
-device virtserialport,bus=serial0.0,nr=1,chardev=agent,name=caveau.agent.0
-chardev socket,id=sp,fd=16
-device virtserialport,bus=serial0.0,nr=2,chardev=sp,name=caveau.sp.0
-object rng-random,id=rng0,filename=/dev/urandom
-device virtio-rng-pci,rng=rng0,romfile=,disable-legacy=on
-netdev user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80,hostfwd=udp:0.0.0.0:53-10.0.2.15:53
-device virtio-net-pci,netdev=net0,romfile=,disable-legacy=on
-device virtio-scsi-pci,id=scsi0,romfile=,disable-legacy=on
-add-fd fd=20,set=0
-blockdev driver=file,node-name=disk0,filename=/dev/fdset/0,locking=off,read-only=on,auto-read-only=off
-device scsi-hd,bus=scsi0.0,channel=0,scsi-id=0,lun=0,drive=disk0
-add-fd fd=21,set=1
-blockdev driver=file,node-name=disk1,filename=/dev/fdset/1,locking=off,cache.no-flush=on
-device scsi-hd,bus=scsi0.0,channel=0,scsi-id=0,lun=1,drive=disk1";
        assert_eq!(lines(&compose(&board(hardware, &ports, Some(16)))), expected);
    }

    #[test]
    fn the_snp_machine_is_as_recorded() {
        let hardware = Hardware::Snp { firmware: 15, vcpu_type: "EPYC-v4", host_data: "q83v" };
        let expected = "\
-no-user-config
-nodefaults
-no-reboot
-name guest=web
-display none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-machine q35,vmport=off,smbus=off,sata=off,i8042=off,hpet=off,usb=off,accel=kvm,confidential-guest-support=sev0,memory-backend=ram0
-cpu EPYC-v4
-global kvm-apic.vapic=off
-object memory-backend-memfd,id=ram0,size=512M,share=true,prealloc=false
-object sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on,host-data=q83v
-bios /proc/self/fd/15
-smp 2
-m 512M
-kernel /proc/self/fd/10
-initrd /proc/self/fd/11
-append console=ttyS0 quiet
-chardev socket,id=qmp,fd=12
-mon chardev=qmp,mode=control
-chardev socket,id=console,fd=13
-serial chardev:console
-device virtio-serial-pci,id=serial0,max_ports=3,romfile=,disable-legacy=on,iommu_platform=on
-chardev socket,id=agent,fd=14
-device virtserialport,bus=serial0.0,nr=1,chardev=agent,name=caveau.agent.0
-object rng-random,id=rng0,filename=/dev/urandom
-device virtio-rng-pci,rng=rng0,romfile=,disable-legacy=on,iommu_platform=on
-netdev user,id=net0,ipv6=off
-device virtio-net-pci,netdev=net0,romfile=,disable-legacy=on,iommu_platform=on
-device virtio-scsi-pci,id=scsi0,romfile=,disable-legacy=on,iommu_platform=on
-add-fd fd=20,set=0
-blockdev driver=file,node-name=disk0,filename=/dev/fdset/0,locking=off,read-only=on,auto-read-only=off
-device scsi-hd,bus=scsi0.0,channel=0,scsi-id=0,lun=0,drive=disk0
-add-fd fd=21,set=1
-blockdev driver=file,node-name=disk1,filename=/dev/fdset/1,locking=off,cache.no-flush=on
-device scsi-hd,bus=scsi0.0,channel=0,scsi-id=0,lun=1,drive=disk1";
        assert_eq!(lines(&compose(&board(hardware, &[], None))), expected);
    }

    #[test]
    fn kvm_has_an_interrupt_controller_of_another_name() {
        let hardware = Hardware::Emulated { accelerator: Accelerator::Kvm, bios: 15, roms: Path::new("/r") };
        let words = compose(&board(hardware, &[], Some(16)));
        assert!(words.iter().any(|word| word.ends_with("accel=kvm")));
        assert!(words.iter().any(|word| word == "kvm-apic.vapic=off"));
    }
}
