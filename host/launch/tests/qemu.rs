//! The real QEMU, with kernels of a few dozen bytes: what it executes is what it was given, and it leaves nothing.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    os::fd::AsRawFd,
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

/// A kernel as the guest's own is entered: an ELF file with a note of its PVH entry (Xen's PHYS32_ENTRY), which `pvh.bin` jumps to
/// in 32-bit protected mode. It speaks and halts.
fn pvh_kernel() -> Vec<u8> {
    const ENTRY: u64 = 0x10_0000;
    let speak = |message: u32| {
        let mut code = vec![0xfc, 0xbe]; // cld; mov esi, message
        code.extend(message.to_le_bytes());
        code.extend([0xac, 0x84, 0xc0, 0x74, 0x12]); // next: lodsb; test al, al; jz end
        code.extend([0x88, 0xc4, 0x66, 0xba, 0xfd, 0x03]); // mov ah, al; mov dx, 0x3fd
        code.extend([0xec, 0xa8, 0x20, 0x74, 0xfb]); // wait: in al, dx; test al, 0x20; jz wait
        code.extend([0xb2, 0xf8, 0x88, 0xe0, 0xee, 0xeb, 0xe9]); // mov dl, 0xf8; mov al, ah; out dx, al; jmp next
        code.extend([0xfa, 0xf4, 0xeb, 0xfd]); // end: cli; hlt; jmp hlt
        code
    };
    let message = u32::try_from(ENTRY).unwrap() + u32::try_from(speak(0).len()).unwrap();
    let code = [speak(message), GREETING.as_bytes().to_vec(), b"\r\n\0".to_vec()].concat();
    let note = [&[4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0][..], b"Xen\0", &ENTRY.to_le_bytes()].concat();
    let [code_at, note_at, length] = [0x1000, 0x200, u64::try_from(code.len()).unwrap()];
    let program_header = |kind: u32, flags: u32, numbers: [u64; 6]| {
        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        [kind.to_le_bytes().to_vec(), flags.to_le_bytes().to_vec(), numbers].concat()
    };
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64
    image.extend([ENTRY, 64, 0].iter().flat_map(|number| number.to_le_bytes()));
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]); // two program headers
    image.extend(program_header(1, 5, [code_at, ENTRY, ENTRY, length, length, 0x1000]));
    image.extend(program_header(4, 4, [note_at, 0, 0, 24, 24, 4]));
    image.resize(0x200, 0);
    image.extend(note);
    image.resize(0x1000, 0);
    image.extend(code);
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

/// The way that is shipped: an ELF file, entered by PVH through `pvh.bin`.
#[test]
fn nothing_else_is_executed_on_the_shipped_way() {
    let Some(mut bench) = Bench::new() else { return };
    bench.option_rom.set_file_name("pvh.bin");
    let guest = bench.guest(&pvh_kernel());
    let machine = bench.boot(&guest, &[]).unwrap();
    until_said(&machine, GREETING);
    let roms = machine.roms().unwrap();
    let caveau_launch::Firmware::Direct { bios, option_roms } = &guest.firmware else { panic!("another firmware") };
    let measured: Vec<&str> = option_roms.iter().map(|rom| rom.name.as_str()).collect();
    assert_eq!(measured, ["pvh.bin"]);
    // Whatever is no table for the firmware is one of the three measured parts: option ROM, kernel, BIOS.
    let executed: Vec<&str> = roms.lines().filter(|line| !line.starts_with("/rom@etc/")).collect();
    let expected = [
        "fw=genroms/pvh.bin ".to_owned(),
        format!("name=\"/proc/self/fd/{} ELF program header segment 0\"", guest.kernel.as_raw_fd()),
        format!("mem=rom name=\"/proc/self/fd/{}\"", bios.as_raw_fd()),
    ];
    assert_eq!(executed.len(), expected.len(), "{roms}");
    for part in expected {
        assert!(executed.iter().any(|line| line.contains(&part)), "{part}: {roms}");
    }
}

/// QEMU looks into its own folder for a ROM that it was not given. It finds one there, and the VM ends before anything is done
/// with it.
#[test]
fn a_rom_of_qemus_own_folder_ends_the_vm() {
    let Some(mut bench) = Bench::new() else { return };
    bench.option_rom.set_file_name("pvh.bin");
    // A kernel of the form for which QEMU takes linuxboot_dma.bin.
    let error = bench.boot(&bench.guest(&kernel(Then::Halt)), &[]).unwrap_err();
    assert!(matches!(&error, MachineError::Unmeasured { .. }), "{error}");
    assert!(error.to_string().contains("QEMU loaded genroms/linuxboot_dma.bin"), "{error}");
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
