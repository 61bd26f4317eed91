//! PID 1 of a virtual machine that tries this crate's promises on a real kernel; `tests/in_vm.rs` boots it.
//!
//! It prints `CHECK name ok` or `CHECK name FAILED reason` for each, and `DONE`.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use caveau_policy::request::{Medium, MountDevice, RwMountDevice, ScratchMount, Unmount};
use caveau_policy::{Enforcer, Granted, HostData, Outcome, Permit, Platform, PolicyDigest, request};
use caveau_storage::{CorruptionWatch, Scratch, ScratchSource, Storage};
use rustix::mount::{MountFlags, mount};

type Checked = Result<(), Box<dyn Error>>;

/// A policy that allows every mount: here the acts are on trial, not the decisions.
const POLICY: &str = r#"package policy
api_version := "0.12.0"
framework_version := "0.5.0"
mount_device := {"allowed": true}
unmount_device := {"allowed": true}
rw_mount_device := {"allowed": true}
rw_unmount_device := {"allowed": true}
scratch_mount := {"allowed": true}
scratch_unmount := {"allowed": true}
mount_overlay := {"allowed": true}
unmount_overlay := {"allowed": true}
"#;

/// Stands in what is written to the encrypted disk; the host looks for it there.
const MARKER: &[u8] = b"what the host must not read";

/// The container that overlays are for.
const CONTAINER: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

struct Guest {
    enforcer: Enforcer,
    storage: Storage,
    /// Root hashes of the layers that the host made: base, top.
    roots: Vec<String>,
}

fn main() {
    if let Err(error) = run() {
        println!("CHECK run FAILED {error}");
    }
    println!("DONE");
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
}

fn run() -> Checked {
    for (source, target, kind) in
        [("proc", "/proc", "proc"), ("sys", "/sys", "sysfs"), ("dev", "/dev", "devtmpfs"), ("run", "/run", "tmpfs")]
    {
        fs::create_dir_all(target)?;
        mount(source, target, kind, MountFlags::empty(), None)?;
    }
    for name in fs::read_to_string("/modules/order")?.lines() {
        rustix::system::finit_module(File::open(format!("/modules/{name}"))?, c"", 0)?;
    }
    let enforcer = Enforcer::new(POLICY, &HostData::new(*PolicyDigest::of(POLICY).as_bytes()))?;
    let roots = fs::read_to_string("/roots")?.lines().map(str::to_owned).collect();
    let mut guest = Guest { enforcer, storage: Storage::open()?, roots };
    for (name, check) in CHECKS {
        let start = Instant::now();
        match check(&mut guest) {
            Ok(()) => println!("CHECK {name} ok"),
            Err(error) => println!("CHECK {name} FAILED {error}"),
        }
        println!("{name}: {} ms", start.elapsed().as_millis());
    }
    Ok(())
}

/// A check and what it shows.
type Check = (&'static str, fn(&mut Guest) -> Checked);

const CHECKS: &[Check] = &[
    ("layers", layers),
    ("wrong_root", wrong_root),
    ("not_a_layer", not_a_layer),
    ("flipped_block", flipped_block),
    ("encrypted_overlay", encrypted_overlay),
    ("scratch_changed_by_the_host", scratch_changed_by_the_host),
    ("memory_scratch", memory_scratch),
    ("nothing_left", nothing_left),
];

/// Settles a grant and gives its permit.
fn permit<T>(
    enforcer: &mut Enforcer,
    granted: Result<Granted<T>, caveau_policy::Denial>,
) -> Result<Permit<T>, Box<dyn Error>> {
    let Granted { permit, pending } = granted.map_err(|denial| denial.to_string())?;
    enforcer.settle(pending, Outcome::Done);
    Ok(permit)
}

impl Guest {
    fn layer(&mut self, number: u32, lun: u16, root: usize) -> Result<caveau_storage::Layer, Box<dyn Error>> {
        let request = MountDevice { target: Platform::layer_target(number), device_hash: self.roots[root].clone() };
        let granted = self.enforcer.mount_device(&request);
        let permit = permit(&mut self.enforcer, granted)?;
        let mounted = self.storage.mount_layer(permit, lun);
        if mounted.is_err() {
            // What failed was not mounted; the enforcer is told, so that the target can be used again.
            let granted = self.enforcer.unmount_device(&Unmount { unmount_target: request.target });
            drop(self::permit(&mut self.enforcer, granted)?);
        }
        Ok(mounted?)
    }

    fn remove(&mut self, layer: &caveau_storage::Layer) -> Checked {
        let granted = self.enforcer.unmount_device(&unmount(layer.target()));
        let permit = permit(&mut self.enforcer, granted)?;
        Ok(self.storage.unmount_layer(permit, layer)?)
    }

    fn disk(&mut self) -> Result<caveau_storage::EncryptedDisk, Box<dyn Error>> {
        let target = Platform::scratch_target(0);
        let request = RwMountDevice { target, encrypted: true, ensure_filesystem: true, filesystem: "ext4".into() };
        let granted = self.enforcer.rw_mount_device(&request);
        let permit = permit(&mut self.enforcer, granted)?;
        Ok(self.storage.mount_disk(permit, 9)?)
    }

    fn remove_disk(&mut self, disk: &caveau_storage::EncryptedDisk) -> Checked {
        let granted = self.enforcer.rw_unmount_device(&unmount(disk.target()));
        let permit = permit(&mut self.enforcer, granted)?;
        Ok(self.storage.unmount_disk(permit, disk)?)
    }

    fn scratch(
        &mut self,
        target: String,
        medium: Medium,
        source: &ScratchSource<'_>,
    ) -> Result<Scratch, Box<dyn Error>> {
        let granted = self.enforcer.scratch_mount(&ScratchMount { target, encrypted: true, medium });
        let permit = permit(&mut self.enforcer, granted)?;
        Ok(self.storage.mount_scratch(permit, source)?)
    }

    fn remove_scratch(&mut self, scratch: &Scratch) -> Checked {
        let granted = self.enforcer.scratch_unmount(&unmount(scratch.target()));
        let permit = permit(&mut self.enforcer, granted)?;
        Ok(self.storage.unmount_scratch(permit, scratch)?)
    }

    /// Mounts both layers and an overlay over them, lets `act` use it, and takes all apart.
    fn with_overlay(&mut self, scratch: &Scratch, act: impl FnOnce(&Path) -> Checked) -> Checked {
        let (base, top) = (self.layer(1, 1, 0)?, self.layer(2, 2, 1)?);
        let request = request::MountOverlay {
            container_id: CONTAINER.into(),
            layer_paths: [&top, &base].map(|layer| layer.target().display().to_string()).to_vec(),
            target: Platform::overlay_target(CONTAINER),
        };
        let granted = self.enforcer.mount_overlay(&request);
        let overlay = self.storage.mount_overlay(permit(&mut self.enforcer, granted)?, scratch)?;
        let used = act(overlay.target());
        let granted = self.enforcer.unmount_overlay(&unmount(overlay.target()));
        self.storage.unmount_overlay(permit(&mut self.enforcer, granted)?, &overlay)?;
        self.remove(&top)?;
        self.remove(&base)?;
        used
    }
}

fn unmount(target: &Path) -> Unmount {
    Unmount { unmount_target: target.display().to_string() }
}

fn expect(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn layers(guest: &mut Guest) -> Checked {
    let layer = guest.layer(1, 1, 0)?;
    expect(fs::read(layer.target().join("both"))? == b"base", "the file's contents")?;
    let written = File::create(layer.target().join("new"));
    expect(written.is_err_and(|error| error.raw_os_error() == Some(30)), "a layer is read-only")?;
    expect(!guest.storage.is_corrupted(&layer)?, "the layer is whole")?;
    guest.remove(&layer)
}

fn wrong_root(guest: &mut Guest) -> Checked {
    let error = guest.layer(1, 2, 0).err().ok_or("it was mounted")?;
    expect(error.to_string() == "failed to mount on /run/caveau/layers/1", &error.to_string())?;
    nothing_left(guest)
}

fn not_a_layer(guest: &mut Guest) -> Checked {
    let error = guest.layer(1, 5, 0).err().ok_or("it was mounted")?;
    expect(error.to_string() == "disk 5 holds no layer", &error.to_string())?;
    nothing_left(guest)
}

fn flipped_block(guest: &mut Guest) -> Checked {
    let watch = CorruptionWatch::start()?;
    let layer = guest.layer(3, 3, 1)?;
    let read = fs::read(layer.target().join("blob"));
    let refused = read.is_err_and(|error| error.raw_os_error() == Some(5));
    expect(fs::read(layer.target().join("both"))? == b"top", "other blocks can be read")?;
    let corrupted = guest.storage.is_corrupted(&layer)?;
    let news = watch.next(Duration::from_secs(2))?;
    let device = layer.device_name();
    guest.remove(&layer)?;
    expect(refused, "reading the block is an I/O error")?;
    expect(corrupted, "the status says so")?;
    expect(news.is_some_and(|news| news.device == device && !news.in_tree), "there is news of it")
}

fn encrypted_overlay(guest: &mut Guest) -> Checked {
    let disk = guest.disk()?;
    let scratch = guest.scratch(Platform::scratch_target(0), Medium::Disk, &ScratchSource::Disk(&disk))?;
    let result = guest.with_overlay(&scratch, |root| {
        expect(fs::read(root.join("both"))? == b"top", "the upper layer wins")?;
        expect(fs::read(root.join("base-only"))? == b"base", "the lower layer shows through")?;
        fs::remove_file(root.join("base-only"))?;
        expect(!root.join("base-only").exists(), "a file of a layer can be removed")?;
        write_many(root)?;
        device_node(root)
    });
    guest.remove_scratch(&scratch)?;
    guest.remove_disk(&disk)?;
    result?;
    let log = kernel_log()?;
    expect(!log.contains("AEAD ERROR") && !log.contains("I/O error on dev dm"), "nothing unwritten was read")
}

/// Many files and one large one, read back from the disk.
fn write_many(root: &Path) -> Checked {
    for folder in 0..20 {
        let folder = root.join(format!("d{folder}"));
        fs::create_dir(&folder)?;
        for file in 0..100 {
            fs::write(folder.join(format!("{file}")), format!("{file}"))?;
        }
    }
    let start = Instant::now();
    let chunk = MARKER.repeat((1 << 20) / MARKER.len());
    let mut large = File::create(root.join("large"))?;
    for _ in 0..48 {
        large.write_all(&chunk)?;
    }
    drop(large);
    rustix::fs::sync();
    println!("48 MiB written in {} ms", start.elapsed().as_millis());
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let start = Instant::now();
    let read = fs::read(root.join("large"))?;
    println!("and read in {} ms", start.elapsed().as_millis());
    expect(read.len() == 48 * chunk.len() && read.starts_with(&chunk), "what was written is read")?;
    for folder in 0..20 {
        expect(fs::read_dir(root.join(format!("d{folder}")))?.count() == 100, "all files are there")?;
        expect(fs::read(root.join(format!("d{folder}/99")))? == b"99", "with their contents")?;
    }
    Ok(())
}

/// A device node that a container makes, whatever it stands for, is of no use.
fn device_node(root: &Path) -> Checked {
    let node = root.join("node");
    let device = rustix::fs::makedev(8, 0);
    rustix::fs::mknodat(rustix::fs::CWD, &node, rustix::fs::FileType::BlockDevice, 0o666.into(), device)?;
    expect(File::open(node).is_err_and(|error| error.raw_os_error() == Some(13)), "a device node cannot be opened")
}

fn scratch_changed_by_the_host(guest: &mut Guest) -> Checked {
    let disk = guest.disk()?;
    let file = disk.target().join("file");
    fs::write(&file, vec![0x5a; 8 << 20])?;
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let raw = scratch_node()?;
    let mut raw = File::options().read(true).write(true).open(raw)?;
    // Past the tags and tables: everything from 4 MiB to 12 MiB.
    raw.seek(SeekFrom::Start(4 << 20))?;
    raw.write_all(&vec![0xff; 8 << 20])?;
    raw.sync_all()?;
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let mut contents = Vec::new();
    let read = File::open(&file).and_then(|mut file| file.read_to_end(&mut contents));
    guest.remove_disk(&disk)?;
    expect(read.is_err_and(|error| error.raw_os_error() == Some(5)), "reading it is an I/O error")
}

/// The node of disk 9, which the host would change from outside.
fn scratch_node() -> Result<String, Box<dyn Error>> {
    let mut entries = fs::read_dir("/sys/class/scsi_disk")?.filter_map(Result::ok);
    let disk = entries.find(|entry| entry.file_name().to_string_lossy().ends_with(":9")).ok_or("no disk 9")?;
    let block = fs::read_dir(disk.path().join("device/block"))?.next().ok_or("no block device")??;
    Ok(format!("/dev/{}", block.file_name().to_string_lossy()))
}

fn memory_scratch(guest: &mut Guest) -> Checked {
    let source = ScratchSource::Memory { bytes: 8 << 20 };
    let scratch = guest.scratch(Platform::scratch_target(1), Medium::Memory, &source)?;
    let result = guest.with_overlay(&scratch, |root| {
        fs::write(root.join("both"), "mine")?;
        expect(fs::read(root.join("both"))? == b"mine", "a file of a layer can be changed")?;
        let full = fs::write(root.join("large"), vec![1; 9 << 20]);
        expect(full.is_err_and(|error| error.raw_os_error() == Some(28)), "the memory is bounded")
    });
    guest.remove_scratch(&scratch)?;
    result
}

fn nothing_left(_: &mut Guest) -> Checked {
    let devices = fs::read_dir("/sys/block")?.filter_map(Result::ok);
    let mapped: Vec<_> =
        devices.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().starts_with("dm-")).collect();
    expect(mapped.is_empty(), &format!("mapped devices are left: {mapped:?}"))?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    expect(!mounts.contains("/run/caveau"), &format!("mounts are left: {mounts}"))
}

/// All of the kernel's log so far.
fn kernel_log() -> Result<String, Box<dyn Error>> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let mut log = File::from(rustix::fs::open("/dev/kmsg", flags, rustix::fs::Mode::empty())?);
    let mut text = String::new();
    let mut record = [0; 8192];
    while let Ok(length) = log.read(&mut record) {
        text.push_str(&String::from_utf8_lossy(&record[..length]));
    }
    Ok(text)
}
