//! BadAML: the host adds an ACPI table with code of its own, which a kernel that interprets such code runs in ring 0.
//! This one writes to a port that the host listens to.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use caveau_tests::{Caveau, Outcome, image};

/// Port of QEMU's debug console.
const PORT: u8 = 0xe9;

/// What the code writes.
const WORD: &[u8] = b"owned";

/// What keeps the guest's kernel from starting the interpreter, in its measured command line.
const GUARD: &str = "initcall_blacklist=acpi_init";

/// A secondary table (ACPI 6.5, section 5.2.11.2) whose code runs when it is loaded (sections 20.2.3 and 20.2.5):
///
/// ```text
/// OperationRegion (PORT, SystemIO, 0xe9, 1)
/// Field (PORT, ByteAcc, NoLock, Preserve) { CHAR, 8 }
/// Store (byte, CHAR) …
/// ```
fn table() -> Vec<u8> {
    let mut code = [&[0x5b, 0x80][..], b"PORT", &[0x01, 0x0a, PORT, 0x01]].concat();
    code.extend([&[0x5b, 0x81, 0x0b][..], b"PORT", &[0x01], b"CHAR", &[0x08]].concat());
    for byte in WORD {
        code.extend([&[0x70, 0x0a, *byte][..], b"CHAR"].concat());
    }
    let length = u32::try_from(36 + code.len()).expect("a short table").to_le_bytes();
    // The checksum is QEMU's to fill in.
    let header = [&b"SSDT"[..], &length, &[2, 0], b"CAVEAU", b"BADAML  ", &[1, 0, 0, 0], b"TEST", &[1, 0, 0, 0]];
    [header.concat(), code].concat()
}

/// Runs busybox to its end on a QEMU that is given the table, and other words for [`GUARD`]; and what the table's code wrote.
fn run_with_table(caveau: &Caveau, folder: &Path, guard: &str) -> (Outcome, Vec<u8>) {
    let file = |name: &str| folder.join(name);
    let heard = file("heard");
    fs::write(file("table"), table()).expect("the table is written");
    // Nothing heard so far.
    let _ = fs::remove_file(&heard);
    let script = format!(
        "#!/bin/bash\nexec qemu-system-x86_64 \"${{@//{GUARD}/{guard}}}\" -acpitable file={} \
         -chardev file,id=heard,path={} -device isa-debugcon,iobase={PORT:#x},chardev=heard\n",
        file("table").display(),
        heard.display(),
    );
    // Asked for its version and what it can do, it opens nothing.
    fs::write(file("qemu"), script).expect("the program is written");
    fs::set_permissions(file("qemu"), fs::Permissions::from_mode(0o755)).expect("its mode");
    let mut command = caveau.command(&["run", "--rm", &image("busybox"), "--", "echo", "well"]);
    let outcome = command.env("CAVEAU_QEMU", file("qemu")).output().expect("caveau runs").into();
    (outcome, fs::read(heard).expect("the console was opened"))
}

#[test]
fn code_in_the_hosts_acpi_tables_does_not_run() {
    let Some(caveau) = Caveau::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (outcome, heard) = run_with_table(&caveau, folder.path(), GUARD);
    assert_eq!(outcome.success().stdout, "well\n");
    assert_eq!(heard, b"", "the table's code ran");
    // The code is good, and there is something to guard against: with another command line, which a verifier sees, it runs.
    let (_, heard) = run_with_table(&caveau, folder.path(), "unguarded");
    assert_eq!(heard, WORD);
}
