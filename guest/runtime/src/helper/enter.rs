//! One more process in a container: joins its namespaces and cgroup and is confined as its first process is.

use std::{
    fs,
    io::{self, PipeReader},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use caveau_group::Capability;
use libcontainer::seccomp::initialize_seccomp;
use rustix::{
    fs::{FileType, Mode, OFlags},
    process::{Resource, Rlimit, setrlimit},
    pty::{OpenptFlags, ioctl_tiocgptpeer},
    thread::{
        CapabilitySet, CapabilitySets, Gid, ThreadNameSpaceType, Uid, configure_capability_in_ambient_set,
        move_into_thread_name_spaces, remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use super::{Failure, Made, status_pipe};
use crate::{ProcessPlan, execute, spec};

/// What every process of a container has of its own.
const NAMESPACES: [ThreadNameSpaceType; 5] = [
    ThreadNameSpaceType::CONTROL_GROUP,
    ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
    ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
    ThreadNameSpaceType::PROCESS_ID,
    ThreadNameSpaceType::MOUNT,
];

/// Makes a process beside the container's init, which comes first in `descriptors` and before the streams.
pub(super) fn enter(
    plan: &ProcessPlan,
    cgroup: &Path,
    terminal: bool,
    descriptors: Vec<OwnedFd>,
) -> Result<Made, Failure> {
    let mut descriptors = descriptors.into_iter();
    let init = descriptors.next().ok_or("the container's process was not handed over")?;
    let streams: Vec<OwnedFd> = descriptors.collect();
    // The cgroup first: what is forked from here on is bounded and confined by it.
    fs::write(cgroup.join("cgroup.procs"), "0")?;
    let all = NAMESPACES.into_iter().fold(ThreadNameSpaceType::empty(), |all, namespace| all | namespace);
    move_into_thread_name_spaces(init.as_fd(), all)?;
    drop(init);
    let (streams, terminal) = if terminal { open_terminal()? } else { (streams, None) };
    let (status, status_writer) = status_pipe()?;
    let (go, go_writer) = io::pipe()?;
    match fork()? {
        None => {
            drop((status, go_writer));
            become_planned(plan, &streams, go, &OwnedFd::from(status_writer), terminal.is_some())
        }
        Some(pid) => {
            drop((status_writer, go));
            let descriptors = [OwnedFd::from(status)].into_iter().chain(terminal).collect();
            Ok(Made { pid, descriptors, go: Some(go_writer.into()) })
        }
    }
}

/// Forks; the child gets nothing.
fn fork() -> io::Result<Option<i32>> {
    #[expect(unsafe_code, reason = "the child must be in the namespaces just joined")]
    // SAFETY: this process has one thread, so the child's memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// The child: waits to be adopted, confines itself, executes. Never returns.
fn become_planned(plan: &ProcessPlan, streams: &[OwnedFd], go: PipeReader, status: &OwnedFd, terminal: bool) -> ! {
    let error = match prepare(plan, streams, go, terminal) {
        Ok(()) => execute::execute(&plan.args, &plan.env),
        Err(error) => error,
    };
    execute::report_failure(status, &error);
    std::process::exit(255)
}

/// Waits for the word that the agent has adopted this process.
fn await_adoption(mut go: impl io::Read) -> io::Result<()> {
    // The end without a word: the helper died, and nobody would know of this process.
    go.read_exact(&mut [0])
}

fn prepare(plan: &ProcessPlan, streams: &[OwnedFd], go: PipeReader, terminal: bool) -> io::Result<()> {
    await_adoption(go)?;
    rustix::process::setsid()?;
    take_streams(streams, terminal)?;
    close_others()?;
    let (soft, hard) = spec::OPEN_FILES;
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(hard) })?;
    rustix::process::umask(Mode::from_raw_mode(plan.umask & 0o777));
    // As root: the user may be unable to reach a folder that it is started in.
    rustix::process::chdir(plan.cwd.as_str())?;
    confine(plan)
}

/// User, capabilities and filter, in the order in which each can still be done.
fn confine(plan: &ProcessPlan) -> io::Result<()> {
    if plan.no_new_privileges {
        set_no_new_privs(true)?;
    } else {
        // Without it, loading a filter takes a capability that is about to be dropped.
        load_filter(plan)?;
    }
    drop_bounding(&plan.capabilities.bounding)?;
    set_keep_capabilities(true)?;
    let groups: Vec<Gid> = plan.ids.groups.iter().map(|entry| Gid::from_raw(entry.gid)).collect();
    set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(plan.ids.uid), Gid::from_raw(plan.ids.gid));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    set_keep_capabilities(false)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: set_of(&plan.capabilities.effective),
            permitted: set_of(&plan.capabilities.permitted),
            inheritable: set_of(&plan.capabilities.inheritable),
        },
    )?;
    for capability in set_of(&plan.capabilities.ambient).iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    if plan.no_new_privileges {
        load_filter(plan)?;
    }
    Ok(())
}

fn load_filter(plan: &ProcessPlan) -> io::Result<()> {
    let Some(text) = &plan.seccomp else { return Ok(()) };
    let filter = spec::parse_seccomp(text).map_err(io::Error::other)?;
    initialize_seccomp(&filter).map(drop).map_err(|error| io::Error::other(error.to_string()))
}

fn drop_bounding<'c>(kept: impl IntoIterator<Item = &'c Capability>) -> io::Result<()> {
    for capability in set_of(kept).complement().iter() {
        match remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know is not there to be kept.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Capabilities by the numbers of capability.h, which is the order of [`Capability::all`].
fn set_of<'c>(capabilities: impl IntoIterator<Item = &'c Capability>) -> CapabilitySet {
    let bit = |capability: &Capability| {
        let number = Capability::all().position(|known| known == *capability).and_then(|at| u32::try_from(at).ok());
        number.and_then(|number| 1u64.checked_shl(number)).unwrap_or(0)
    };
    CapabilitySet::from_bits_retain(capabilities.into_iter().map(bit).fold(0, |bits, bit| bits | bit))
}

/// The container's own terminal: the user's end three times, and the agent's.
///
/// Opened by its path in the container, so it is checked to be what it should be (CVE-2025-52565): on a devpts, and the
/// device 5:2. The user's end is got from it, without a path.
fn open_terminal() -> Result<(Vec<OwnedFd>, Option<OwnedFd>), Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    let status = rustix::fs::fstat(&master)?;
    let device = (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev));
    let kind = FileType::from_raw_mode(status.st_mode);
    if kind != FileType::CharacterDevice || device != (5, 2) || rustix::fs::fstatfs(&master)?.f_type != DEVPTS {
        return Err("the container's /dev/pts/ptmx is no terminal".into());
    }
    rustix::pty::unlockpt(&master)?;
    let user = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok((vec![user.try_clone()?, user.try_clone()?, user], Some(master)))
}

/// DEVPTS_SUPER_MAGIC (uapi/linux/magic.h).
const DEVPTS: libc::__fsword_t = 0x1cd1;

/// Standard input, output and error become the streams.
fn take_streams(streams: &[OwnedFd], terminal: bool) -> io::Result<()> {
    let [input, output, error] = streams else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a process has three streams"));
    };
    if terminal {
        rustix::process::ioctl_tiocsctty(input)?;
    }
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(error)?;
    Ok(())
}

/// Whatever else is open closes when the program is executed.
fn close_others() -> io::Result<()> {
    #[expect(unsafe_code, reason = "the call has no wrapper")]
    // SAFETY: marks descriptors to be closed at execve(2); none is closed now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_goes_on_only_when_it_was_adopted() {
        let (go, writer) = io::pipe().unwrap();
        rustix::io::write(&writer, b"g").unwrap();
        await_adoption(go).unwrap();
        let (go, writer) = io::pipe().unwrap();
        drop(writer);
        assert_eq!(await_adoption(go).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
