//! The real QEMU, with a kernel of a few dozen bytes: what it executes is what it was given, and it leaves nothing.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use caveau_launch::{
    Accelerator, FirmwareFiles, Guest, GuestFiles, KvmVerdict, Machine, MachineError, MachineParts, PortForward, Qemu,
    TeeParts, probe_kvm,
};

/// What the tiny kernel says.
const GREETING: &str = "Unable to mount root fs: this is not a kernel";

/// Longest wait for anything; only a hang takes so long.
const LIMIT: Duration = Duration::from_secs(120);

/// What the code does after it has spoken.
#[derive(Clone, Copy)]
enum Then {
    Halt,
    Reset,
}

/// Real-mode code that stands at `offset` of its segment and sends `text` to the first serial port.
fn code(offset: u16, text: &str, then: Then) -> Vec<u8> {
    let speak = |message: u16| {
        let [low, high] = message.to_le_bytes();
        let mut code = vec![0xfc, 0x0e, 0x1f, 0xbe, low, high]; // cld; push cs; pop ds; mov si, message
        code.extend([0xac, 0x84, 0xc0, 0x74, 0x11]); // next: lodsb; test al, al; jz end
        code.extend([0x88, 0xc4, 0xba, 0xfd, 0x03]); // mov ah, al; mov dx, 0x3fd
        code.extend([0xec, 0xa8, 0x20, 0x74, 0xfb]); // wait: in al, dx; test al, 0x20; jz wait
        code.extend([0xb2, 0xf8, 0x88, 0xe0, 0xee, 0xeb, 0xea]); // mov dl, 0xf8; mov al, ah; out dx, al; jmp next
        match then {
            Then::Reset => code.extend([0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee]), // end: mov dx, 0xcf9; mov al, 6; out dx, al
            Then::Halt => {}
        }
        code.extend([0xfa, 0xf4, 0xeb, 0xfd]); // cli; hlt; jmp hlt
        code
    };
    let length = u16::try_from(speak(0).len()).unwrap();
    [speak(offset + length), text.as_bytes().to_vec(), b"\r\n\0".to_vec()].concat()
}

/// A bzImage (Linux x86 boot protocol 2.04) whose set-up code is all there is.
fn kernel(then: Then) -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x200..0x202].copy_from_slice(&[0xeb, 0x66]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[0x04, 0x02]);
    image[0x211] = 1;
    image[0x22c..0x230].copy_from_slice(&0x37ff_ffffu32.to_le_bytes());
    let code = code(0x68, GREETING, then);
    image[0x268..0x268 + code.len()].copy_from_slice(&code);
    image
}

/// An option ROM that speaks and resets.
fn rom(text: &str) -> Vec<u8> {
    let mut rom = vec![0; 512];
    rom[..3].copy_from_slice(&[0x55, 0xaa, 1]);
    let code = code(3, text, Then::Reset);
    rom[3..3 + code.len()].copy_from_slice(&code);
    let sum = rom.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    rom[511] = sum.wrapping_neg();
    rom
}

/// QEMU and its firmware, where this machine has them.
struct Bench {
    qemu: Qemu,
    folder: tempfile::TempDir,
    bios: PathBuf,
    option_rom: PathBuf,
}

impl Bench {
    fn new() -> Option<Self> {
        let found = |folders: &[&str], name: &str| {
            folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
        };
        let parts = (
            Qemu::find().ok(),
            found(&["/usr/share/seabios", "/usr/share/qemu"], "bios-256k.bin"),
            found(&["/usr/share/qemu"], "linuxboot_dma.bin"),
        );
        let (Some(qemu), Some(bios), Some(option_rom)) = parts else {
            println!("skipped: no QEMU with its firmware");
            return None;
        };
        Some(Self { qemu, folder: tempfile::tempdir().unwrap(), bios, option_rom })
    }

    fn guest(&self, kernel: &[u8]) -> Guest {
        let file = |name: &str, bytes: &[u8]| {
            let path = self.folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        Guest::load(&GuestFiles {
            kernel: file("kernel", kernel),
            initrd: file("initrd", b"initrd"),
            cmdline: file("cmdline", b"quiet"),
            firmware: FirmwareFiles::Direct { bios: self.bios.clone(), option_roms: vec![self.option_rom.clone()] },
        })
        .unwrap()
    }

    fn boot(&self, guest: &Guest, ports: &[PortForward]) -> Result<Machine, MachineError> {
        let layer = self.folder.path().join("layer");
        File::create(&layer).unwrap().write_all(&[7; 8192]).unwrap();
        let scratch = tempfile::tempfile().unwrap();
        scratch.set_len(1 << 20).unwrap();
        let parts = MachineParts {
            name: "bench",
            guest,
            with_initrd: true,
            tee: TeeParts::Emulated { accelerator: Accelerator::Tcg, link: None },
            vcpus: 1,
            memory_mib: 128,
            disks: vec![(File::open(&layer).unwrap().into(), true), (scratch.into(), false)],
            ports,
            folder: self.folder.path(),
        };
        Machine::boot(&self.qemu, parts)
    }
}

fn until_said(machine: &Machine, text: &str) {
    let start = Instant::now();
    while !machine.console_lines(50).contains(text) {
        assert!(start.elapsed() < LIMIT, "the console says {:?}", machine.console_lines(50));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_sealed_kernel_is_what_runs() {
    let Some(bench) = Bench::new() else { return };
    let guest = bench.guest(&kernel(Then::Reset));
    // The file may change as it likes once it was sealed.
    fs::write(bench.folder.path().join("kernel"), b"something else").unwrap();
    let machine = bench.boot(&guest, &[]).unwrap();
    until_said(&machine, GREETING);
    assert!(machine.wait(LIMIT).expect("a reset ends the VM").success());
    let log = fs::read_to_string(bench.folder.path().join("console.log")).unwrap();
    assert!(log.contains(GREETING), "{log}");
}

#[test]
fn the_given_option_rom_is_what_runs() {
    let Some(mut bench) = Bench::new() else { return };
    bench.option_rom = bench.folder.path().join("linuxboot_dma.bin");
    fs::write(&bench.option_rom, rom("the ROM of this test")).unwrap();
    let machine = bench.boot(&bench.guest(&kernel(Then::Reset)), &[]).unwrap();
    until_said(&machine, "the ROM of this test");
    assert!(machine.wait(LIMIT).expect("a reset ends the VM").success());
    assert!(!machine.console_lines(50).contains(GREETING));
}

#[test]
fn nothing_else_is_executed() {
    let Some(bench) = Bench::new() else { return };
    let machine = bench.boot(&bench.guest(&kernel(Then::Halt)), &[]).unwrap();
    until_said(&machine, GREETING);
    assert_eq!(machine.run_state().unwrap(), "running");
    let roms = machine.roms().unwrap();
    // QEMU's own tables (ACPI) are data; whatever is executed is a ROM of the firmware interface or mapped as one.
    let executed: Vec<&str> = roms
        .lines()
        .filter(|line| line.contains("genroms/") || line.contains("vgaroms/") || line.contains("mem="))
        .collect();
    assert_eq!(executed.len(), 2, "{roms}");
    assert!(executed.iter().any(|line| line.contains("linuxboot_dma.bin")), "{roms}");
    assert!(executed.iter().any(|line| line.contains("mem=rom") && line.contains("/proc/self/fd/")), "{roms}");
    machine.power_off();
    assert!(machine.wait(LIMIT).is_some());
}

#[test]
fn a_dropped_machine_is_gone() {
    let Some(bench) = Bench::new() else { return };
    let machine = bench.boot(&bench.guest(&kernel(Then::Halt)), &[]).unwrap();
    let process = PathBuf::from(format!("/proc/{}", machine.pid()));
    let mut agent = machine.agent().unwrap();
    assert!(process.exists());
    drop(machine);
    assert!(!process.exists());
    assert_eq!(agent.read(&mut [0]).unwrap(), 0, "the agent's connection ends with QEMU");
}

#[test]
fn qemu_says_why_it_does_not_start() {
    let Some(bench) = Bench::new() else { return };
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("{}:80", holder.local_addr().unwrap().port()).parse().unwrap();
    let error = bench.boot(&bench.guest(&kernel(Then::Halt)), &[port]).unwrap_err().to_string();
    assert!(error.contains("hostfwd") || error.contains("host forwarding"), "{error}");
    let error = bench.boot(&bench.guest(b"no kernel"), &[]).unwrap_err().to_string();
    assert!(error.contains("kernel"), "{error}");
}

#[test]
fn the_probe_of_kvm_is_bounded_and_remembered() {
    let Some(bench) = Bench::new() else { return };
    let guest = bench.guest(&kernel(Then::Reset));
    let state = tempfile::tempdir().unwrap();
    let first = probe_kvm(&bench.qemu, &guest, state.path());
    println!("{first:?}");
    let files: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        assert!(matches!(&first, KvmVerdict::Fails { reason } if reason.contains("/dev/kvm")), "{first:?}");
        assert!(files.is_empty(), "{files:?}");
        return;
    }
    assert_eq!(files, [".kvm-probe.json"], "the probe's own folder is gone");
    assert_eq!(probe_kvm(&bench.qemu, &guest, state.path()), first);
    // Whoever tries anew is told what is, not what was found once, and has it remembered.
    let file = state.path().join(".kvm-probe.json");
    let mut memory: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    memory[0]["verdict"] = serde_json::json!({ "verdict": "fails", "reason": "that was yesterday" });
    fs::write(&file, memory.to_string()).unwrap();
    let yesterday = KvmVerdict::Fails { reason: "that was yesterday".into() };
    assert_eq!(probe_kvm(&bench.qemu, &guest, state.path()), yesterday);
    let anew = KvmVerdict::try_anew(&bench.qemu, &guest, state.path());
    assert_ne!(anew, yesterday);
    assert_eq!(probe_kvm(&bench.qemu, &guest, state.path()), anew);
    // Another kernel is another question.
    let memory = fs::read_to_string(state.path().join(".kvm-probe.json")).unwrap();
    let _ = probe_kvm(&bench.qemu, &bench.guest(&kernel(Then::Halt)[..2048]), state.path());
    assert_ne!(fs::read_to_string(state.path().join(".kvm-probe.json")).unwrap(), memory);
}
