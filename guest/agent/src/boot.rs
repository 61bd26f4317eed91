//! From the kernel's first instruction for PID 1 to a guest that is set up and closed.
//!
//! ```text
//!   initrd (read-only from now on)          new root (a small tmpfs, read-only in the end)
//!   /init, /modules/order, /modules/*.ko    /proc /sys /dev /sys/fs/cgroup /run /tmp
//!   1 mounts  2 command line: which TEE  3 settings  4 modules, then none ever again  5 entropy  6 network  7 new root
//! ```
//!
//! Nothing here depends on the host but the disks and ports that drivers find: modules and their order are measured,
//! addresses are fixed, kernel settings are constants.

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use caveau_tee::{TeeError, TeeKind};
use rustix::{
    fs::Mode,
    mount::{MountFlags, mount, mount_move, mount_remount},
    process::{Resource, Rlimit, setrlimit},
};

use crate::{entropy, netlink, timeline::Timeline};

/// Descriptors that the agent and its helpers may have; containers' processes get limits of their own.
const OPEN_FILES: u64 = 1 << 20;

/// Where the new root is put together: a folder of the initrd.
const NEW_ROOT: &str = "/run";

/// Why the guest cannot start. It ends then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// Random numbers cannot be had.
    #[error("failed to gather entropy")]
    Entropy(#[source] io::Error),
    /// A file of the kernel or of the initrd failed.
    #[error("failed to {act} {path}")]
    File {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The network interface could not be set up.
    #[error("failed to set up the network")]
    Network(#[source] io::Error),
    /// The measured command line names no TEE.
    #[error("failed to tell the TEE")]
    Tee(#[source] TeeError),
}

/// File systems of the new root: type, place below it, options.
const FILE_SYSTEMS: [(&str, &str, &str); 7] = [
    ("proc", "proc", ""),
    ("sysfs", "sys", ""),
    ("devtmpfs", "dev", "mode=755"),
    ("cgroup2", "sys/fs/cgroup", ""),
    ("securityfs", "sys/kernel/security", ""),
    ("tmpfs", "run", "mode=755"),
    ("tmpfs", "tmp", "mode=1777,size=1m"),
];

/// Parameters of modules, by the names of their files; a kernel that has them built in takes them from its command line.
///
/// SCSI disks are looked for when [`caveau_storage::Storage`] asks, at the one target that has any: the kernel would ask
/// all 256, and each question is an exit from the VM.
const PARAMETERS: [(&str, &CStr); 1] = [("scsi_mod.ko", c"scan=manual")];

/// Kernel settings: file below `/proc/sys`, value.
///
/// Containers share the guest's network, so what Docker sets in a container's own is set here. The rest keeps containers
/// from looking into the kernel.
const SETTINGS: [(&str, &str); 7] = [
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/yama/ptrace_scope", "1"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // A kernel that follows a null pointer must not find a container's memory there.
    ("vm/mmap_min_addr", "65536"),
];

/// Settings of every network interface: folder with one for each, file in it, value.
///
/// They keep the kernel from taking advice of the network. Each interface has its own: `all` speaks for none of the IPv6
/// ones, and `default` only for those to come, while a driver that is built in has made its interface before PID 1 runs.
const INTERFACE_SETTINGS: [(&str, &str, &str); 5] = [
    ("net/ipv4/conf", "accept_redirects", "0"),
    ("net/ipv4/conf", "accept_source_route", "0"),
    ("net/ipv6/conf", "accept_ra", "0"),
    ("net/ipv6/conf", "accept_redirects", "0"),
    ("net/ipv6/conf", "accept_source_route", "0"),
];

/// Sets the guest up.
///
/// # Errors
/// [`BootError`]: the guest must end.
pub(crate) fn boot(timeline: &mut Timeline) -> Result<TeeKind, BootError> {
    let root = Path::new(NEW_ROOT);
    mount_file_systems(root)?;
    hurry(root)?;
    let tee = TeeKind::from_cmdline(&read(&root.join("proc/cmdline"))?).map_err(BootError::Tee)?;
    apply_settings(&root.join("proc/sys"))?;
    timeline.done("mount the kernel's file systems");
    load_modules(Path::new("/modules"), tee)?;
    lock_kernel(root)?;
    timeline.done("load modules and lock the kernel");
    // Every driver is there, and no interface is up yet.
    apply_interface_settings(&root.join("proc/sys"))?;
    entropy::gather(&root.join("dev")).map_err(BootError::Entropy)?;
    netlink::set_up().map_err(BootError::Network)?;
    leave_initrd(root)?;
    raise_limits()?;
    timeline.done("gather entropy, set up the network, enter the new root");
    Ok(tee)
}

/// Mounts the kernel's file systems below the new root.
fn mount_file_systems(root: &Path) -> Result<(), BootError> {
    mount_at("tmpfs", root, "mode=755,size=1m")?;
    for (kind, place, options) in FILE_SYSTEMS {
        let place = root.join(place);
        fs::create_dir_all(&place).map_err(failed("make", &place))?;
        mount_at(kind, &place, options)?;
    }
    Ok(())
}

/// Makes the kernel end its grace periods at once (kernel documentation, RCU): device mapper, control groups and mounts wait for
/// several each, and every wait would be some ticks of the clock in which the guest does nothing.
fn hurry(root: &Path) -> Result<(), BootError> {
    write(&root.join("sys/kernel/rcu_expedited"), "1")
}

fn mount_at(kind: &str, place: &Path, options: &str) -> Result<(), BootError> {
    let flags = match kind {
        "devtmpfs" => MountFlags::NOSUID | MountFlags::NOEXEC,
        // Containers' roots are below /run, with file systems and options of their own.
        _ => MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
    };
    let options = std::ffi::CString::new(options).unwrap_or_default();
    mount(kind, place, kind, flags, options.as_c_str()).map_err(|error| failed("mount", place)(error.into()))
}

/// Loads what the measured lists say, in their order, then frees the memory that the files take.
fn load_modules(folder: &Path, tee: TeeKind) -> Result<(), BootError> {
    let mut lists = vec![folder.join("order")];
    if tee == TeeKind::Snp {
        lists.push(folder.join("order.snp"));
    }
    for list in &lists {
        for name in read(list)?.lines().filter(|line| !line.is_empty()) {
            load_module(&folder.join(name))?;
        }
    }
    fs::remove_dir_all(folder).map_err(failed("remove", folder))
}

fn load_module(path: &Path) -> Result<(), BootError> {
    let file = File::open(path).map_err(failed("open", path))?;
    match rustix::system::finit_module(&file, parameters(path), 0) {
        // Two lists may name the same one.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(failed("load", path)(error.into())),
    }
}

/// The parameters of the module in `NN-name.ko`.
fn parameters(path: &Path) -> &'static CStr {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('-'));
    let found = PARAMETERS.iter().find(|(module, _)| name.is_some_and(|(_, name)| name == *module));
    found.map_or(c"", |(_, parameters)| parameters)
}

/// No more modules, and no way for root in a container to change the running kernel (kernel_lockdown(7)).
fn lock_kernel(root: &Path) -> Result<(), BootError> {
    match write(&root.join("proc/sys/kernel/modules_disabled"), "1") {
        // A kernel that can load none has nothing to switch off.
        Err(error) if is_missing(&error) => {}
        result => result?,
    }
    let lockdown = root.join("sys/kernel/security/lockdown");
    // The level in force stands in brackets; it can only be raised, and our own kernel begins with it.
    if read(&lockdown)?.contains("[none]") { write(&lockdown, "integrity") } else { Ok(()) }
}

fn apply_settings(folder: &Path) -> Result<(), BootError> {
    SETTINGS.iter().try_for_each(|(file, value)| set(&folder.join(file), value))
}

fn apply_interface_settings(folder: &Path) -> Result<(), BootError> {
    for (interfaces, file, value) in INTERFACE_SETTINGS {
        let interfaces = folder.join(interfaces);
        let found = match fs::read_dir(&interfaces) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(failed("list", &interfaces))?,
        };
        for interface in found {
            set(&interface.map_err(failed("list", &interfaces))?.path().join(file), value)?;
        }
    }
    Ok(())
}

/// Sets a kernel setting; a kernel without the feature has nothing to set.
fn set(path: &Path, value: &str) -> Result<(), BootError> {
    match write(path, value) {
        Err(error) if is_missing(&error) => Ok(()),
        result => result,
    }
}

/// Makes the new root the root. libcontainer leaves its caller's root with pivot_root(2), which cannot leave an initrd;
/// and a container that gets hold of `/proc/…/exe` must find the agent's file unwritable (CVE-2019-5736).
fn leave_initrd(root: &Path) -> Result<(), BootError> {
    let fail = |act, path: &Path| {
        let path = path.to_owned();
        move |error: rustix::io::Errno| failed(act, &path)(error.into())
    };
    let read_only = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(root, read_only | MountFlags::NOEXEC, c"").map_err(fail("close", root))?;
    mount_remount("/", MountFlags::RDONLY, c"").map_err(fail("close", Path::new("/")))?;
    rustix::process::chdir(root).map_err(fail("enter", root))?;
    mount_move(".", "/").map_err(fail("move", root))?;
    rustix::process::chroot(".").map_err(fail("enter", root))?;
    rustix::process::chdir("/").map_err(fail("enter", root))?;
    Ok(())
}

/// PID 1 holds a few descriptors for each process of each container; its own limit must not be what ends them.
fn raise_limits() -> Result<(), BootError> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let files = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    setrlimit(Resource::Nofile, files)
        .map_err(|error| failed("raise the limit of", Path::new("open files"))(error.into()))
}

fn read(path: &Path) -> Result<String, BootError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

fn write(path: &Path, value: &str) -> Result<(), BootError> {
    fs::write(path, value).map_err(failed("write", path))
}

fn is_missing(error: &BootError) -> bool {
    matches!(error, BootError::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BootError {
    let path = path.to_owned();
    move |source| BootError::File { act, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_set() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join("net/ipv6/conf").join(name).join("accept_ra");
        for interface in ["all", "default", "eth0"] {
            fs::create_dir_all(file(interface).parent().unwrap()).unwrap();
            fs::write(file(interface), "1").unwrap();
        }
        apply_interface_settings(folder.path()).unwrap();
        for interface in ["all", "default", "eth0"] {
            assert_eq!(fs::read_to_string(file(interface)).unwrap(), "0", "{interface}");
        }
    }

    #[test]
    fn modules_get_their_parameters_by_name() {
        assert_eq!(parameters(Path::new("/modules/03-scsi_mod.ko")), c"scan=manual");
        for other in ["/modules/00-scsi_common.ko", "/modules/scsi_mod.ko", "/modules/03-scsi_mod", "/"] {
            assert_eq!(parameters(Path::new(other)), c"", "{other}");
        }
    }
}
