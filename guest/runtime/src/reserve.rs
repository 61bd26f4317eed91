//! What is kept from all containers together, so that the agent can always work: memory, and numbers of processes.

use std::{fs, path::Path};

use crate::{
    RuntimeError,
    cgroup::{PARENT, ROOT},
};

/// Memory kept for the agent and its helpers in bytes, and a further part of what there is, for the kernel.
const MEMORY: u64 = 16 << 20;
const MEMORY_PART: u64 = 32;

/// Processes and threads kept for the agent, its helpers and the kernel.
const PROCESSES: u64 = 512;

/// Bounds on all containers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    memory_bytes: u64,
    processes: u64,
}

impl Bounds {
    /// Of a guest that has so much. Where there is little, containers get half.
    fn of(available_bytes: u64, threads: u64) -> Self {
        let memory = MEMORY.saturating_add(available_bytes / MEMORY_PART);
        Self {
            memory_bytes: available_bytes.saturating_sub(memory).max(available_bytes / 2),
            processes: threads.saturating_sub(PROCESSES).max(threads / 2),
        }
    }
}

/// Bounds all containers that will be made together. A container without a bound of its own would otherwise fill the
/// kernel's table of processes, or have the kernel look for memory where the agent's is; then nothing could be stopped or
/// asked any more but by switching the VM off. To be called once, before the first container.
///
/// # Errors
/// Where the kernel has no such bounds.
pub fn bound_containers() -> Result<(), RuntimeError> {
    let available = meminfo(&read("/proc/meminfo")?, "MemAvailable");
    let threads = number(&read("/proc/sys/kernel/threads-max")?).min(number(&read("/proc/sys/kernel/pid_max")?));
    apply(Path::new(ROOT), Bounds::of(available, threads))
}

fn apply(root: &Path, bounds: Bounds) -> Result<(), RuntimeError> {
    let folder = root.join(PARENT);
    fs::create_dir_all(&folder).map_err(RuntimeError::file(&folder))?;
    write(&root.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
    write(&folder.join("memory.max"), &bounds.memory_bytes.to_string())?;
    write(&folder.join("pids.max"), &bounds.processes.to_string())
}

/// A line of `/proc/meminfo` in bytes; 0 where it is not there.
fn meminfo(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let value = lines.filter(|(found, _)| *found == name).map(|(_, value)| value.trim().trim_end_matches(" kB")).next();
    value.map_or(0, number).saturating_mul(1024)
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn read(path: &str) -> Result<String, RuntimeError> {
    fs::read_to_string(path).map_err(RuntimeError::file(path))
}

fn write(path: &Path, text: &str) -> Result<(), RuntimeError> {
    fs::write(path, text).map_err(RuntimeError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_kept_and_most_is_given() {
        let mib = |count: u64| count << 20;
        assert_eq!(Bounds::of(mib(448), 3500), Bounds { memory_bytes: mib(448 - 16 - 14), processes: 2988 });
        assert_eq!(Bounds::of(mib(20), 600), Bounds { memory_bytes: mib(10), processes: 300 });
    }

    #[test]
    fn bounds_are_those_of_the_parent_of_all_containers() {
        let root = tempfile::tempdir().unwrap();
        apply(root.path(), Bounds { memory_bytes: 4096, processes: 7 }).unwrap();
        let text = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
        assert_eq!([text("caveau/memory.max"), text("caveau/pids.max")], ["4096", "7"]);
        assert_eq!(text("cgroup.subtree_control"), "+cpu +memory +pids");
    }

    #[test]
    fn memory_is_read_from_the_kernels_words() {
        let text = "MemTotal:         478412 kB\nMemAvailable:     430000 kB\n";
        assert_eq!(meminfo(text, "MemAvailable"), 430_000 * 1024);
        assert_eq!(meminfo("", "MemAvailable"), 0);
    }
}
