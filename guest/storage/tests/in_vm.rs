//! This crate on a real kernel: boots `examples/in_vm.rs` as PID 1 of a virtual machine.
//!
//! Needs a guest image, whose folder `CAVEAU_GUEST` names (`cargo xtask test` sets it), for its kernel and modules.

use std::fs::{self, File};
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use caveau_verity::HashTree;

const CHECKS: [&str; 8] = [
    "layers",
    "wrong_root",
    "not_a_layer",
    "flipped_block",
    "encrypted_overlay",
    "scratch_changed_by_the_host",
    "memory_scratch",
    "nothing_left",
];

#[test]
fn promises_hold_on_a_real_kernel() {
    let Some(guest) = std::env::var_os("CAVEAU_GUEST").map(PathBuf::from) else {
        println!("skipped: no guest image (CAVEAU_GUEST)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = layer(folder, "base", &[("both", b"base"), ("base-only", b"base")]);
    let blob = b"a block of the blob ".repeat(60_000);
    let top = layer(folder, "top", &[("both", b"top"), ("blob", &blob)]);
    flip(&folder.join("top"), &folder.join("flipped"));
    fs::write(folder.join("garbage"), vec![7; 1 << 20]).unwrap();
    File::create(folder.join("scratch")).unwrap().set_len(256 << 20).unwrap();
    let initrd = folder.join("initrd");
    write_initrd(&guest.join("initrd.img"), &initrd, &format!("{base}\n{top}\n"));
    let output = boot(&guest, &initrd, folder);
    println!("{output}");
    for check in CHECKS {
        assert!(output.contains(&format!("CHECK {check} ok")), "{check}");
    }
    assert!(output.contains("DONE"));
    let scratch = fs::read(folder.join("scratch")).unwrap();
    let written = scratch.chunks(4096).filter(|block| block.iter().any(|&byte| byte != 0)).count();
    assert!(written > 48 * 256, "the scratch disk was used: {written} blocks");
    let marker = b"what the host must not read";
    assert!(!scratch.windows(marker.len()).any(|window| window == marker), "the host reads what was written");
}

/// Makes a layer with these files; gives its root hash.
fn layer(folder: &Path, name: &str, files: &[(&str, &[u8])]) -> String {
    let tree = folder.join(format!("{name}.d"));
    fs::create_dir(&tree).unwrap();
    for (file, contents) in files {
        fs::write(tree.join(file), contents).unwrap();
    }
    let path = folder.join(name);
    let mut mke2fs = Command::new("/sbin/mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-d"]).arg(&tree);
    assert!(mke2fs.arg(&path).arg("8M").output().unwrap().status.success());
    let tree = HashTree::of_reader(File::open(&path).unwrap(), NonZeroUsize::MIN).unwrap();
    let mut file = File::options().append(true).open(&path).unwrap();
    tree.write_to(&mut file).unwrap();
    tree.root().to_string()
}

/// A copy of a layer with one bit of the blob changed.
fn flip(from: &Path, to: &Path) {
    let mut bytes = fs::read(from).unwrap();
    let needle = b"a block of the blob a block of the blob ";
    let position = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[position + 100_000] ^= 1;
    fs::write(to, bytes).unwrap();
}

/// The guest's own initrd, and behind it, winning, the example with the libraries that it needs.
fn write_initrd(guest: &Path, to: &Path, roots: &str) {
    let mut archive = fs::read(guest).unwrap();
    let example = example();
    let ldd = Command::new("ldd").arg(&example).output().unwrap();
    let ldd = String::from_utf8(ldd.stdout).unwrap();
    let libraries = ldd.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    let mut made = Vec::new();
    for library in libraries {
        let parents: Vec<PathBuf> = library.ancestors().skip(1).map(Path::to_path_buf).collect();
        for parent in parents.into_iter().rev().filter(|parent| parent.parent().is_some()) {
            if !made.contains(&parent) {
                append(&mut archive, &parent, 0o040_755, b"");
                made.push(parent);
            }
        }
        append(&mut archive, &library, 0o100_755, &fs::read(&library).unwrap());
    }
    append(&mut archive, Path::new("/init"), 0o100_755, &fs::read(example).unwrap());
    append(&mut archive, Path::new("/roots"), 0o100_644, roots.as_bytes());
    fs::write(to, cpio::newc::trailer(archive).unwrap()).unwrap();
}

fn append(archive: &mut Vec<u8>, path: &Path, mode: u32, contents: &[u8]) {
    let name = path.strip_prefix("/").unwrap().to_str().unwrap();
    let builder = cpio::newc::Builder::new(name).mode(mode);
    let mut writer = builder.write(std::mem::take(archive), contents.len().try_into().unwrap());
    writer.write_all(contents).unwrap();
    *archive = writer.finish().unwrap();
}

/// The example's program, which is built with the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/in_vm");
    assert!(path.is_file(), "{} is missing: build it with `cargo build --example in_vm`", path.display());
    path
}

/// Boots it, without acceleration so that it runs everywhere, and gives what it printed.
fn boot(guest: &Path, initrd: &Path, disks: &Path) -> String {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-M",
        "q35,accel=tcg,sata=off,usb=off,graphics=off",
        "-cpu",
        "max",
        "-m",
        "512",
        "-nodefaults",
        "-no-user-config",
    ]);
    qemu.args(["-display", "none", "-no-reboot", "-serial", "stdio", "-append"]);
    qemu.arg("console=ttyS0 quiet loglevel=1 panic=-1 reboot=t cryptomgr.notests");
    qemu.arg("-kernel").arg(guest.join("vmlinux")).arg("-initrd").arg(initrd);
    qemu.args(["-device", "virtio-scsi-pci,id=scsi"]);
    for (lun, name, read_only) in
        [(1, "base", "on"), (2, "top", "on"), (3, "flipped", "on"), (5, "garbage", "on"), (9, "scratch", "off")]
    {
        let file = disks.join(name);
        qemu.args([
            "-blockdev",
            &format!("driver=file,node-name={name},read-only={read_only},filename={}", file.display()),
        ]);
        qemu.args(["-device", &format!("scsi-hd,drive={name},bus=scsi.0,lun={lun}")]);
    }
    let output = qemu.output().expect("qemu-system-x86_64 (package qemu-system-x86)");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
