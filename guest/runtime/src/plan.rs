//! What a container and a process shall be: complete, so that nothing is left to be filled in later.

use std::path::PathBuf;

use caveau_group::{Capabilities, Limits, Mount};
use serde::{Deserialize, Serialize};

use crate::{RuntimeError, user::Ids};

/// Longest string in bytes that execve(2) takes (MAX_ARG_STRLEN).
const MAX_STRING: usize = 128 * 1024;

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessPlan {
    /// Program and arguments; at least one.
    pub args: Vec<String>,
    /// `NAME=value` each, in this order.
    pub env: Vec<String>,
    /// Absolute path within the container.
    pub cwd: String,
    /// Whom it runs as.
    pub ids: Ids,
    /// Mode bits withheld from new files.
    pub umask: u32,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Whether execve(2) may gain no privileges.
    pub no_new_privileges: bool,
    /// System call filter: OCI `linux.seccomp` as JSON text.
    pub seccomp: Option<String>,
}

impl ProcessPlan {
    /// Refuses what execve(2) or the set-up would reinterpret.
    ///
    /// # Errors
    /// [`RuntimeError::Invalid`] naming the part.
    pub fn check(&self) -> Result<(), RuntimeError> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(invalid("command", "", "a program and its arguments"));
        }
        for text in self.args.iter().chain(&self.env) {
            if text.contains('\0') || text.len() >= MAX_STRING {
                return Err(invalid("argument or variable", text, "text under 128 KiB without a NUL byte"));
            }
        }
        if !self.cwd.starts_with('/') || self.cwd.contains('\0') {
            return Err(invalid("working directory", &self.cwd, "an absolute path"));
        }
        Ok(())
    }
}

/// A folder or file of the guest's own that the container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where it is in the guest; never said by the host.
    pub source: PathBuf,
    /// Absolute path within the container.
    pub destination: String,
    /// Whether it can only be read there.
    pub read_only: bool,
}

/// A container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerPlan {
    /// Its first process.
    pub process: ProcessPlan,
    /// Whether that gets a terminal; without it, three pipes.
    pub terminal: bool,
    /// Its host name: letters, digits, `-` and `.`, at most 64.
    pub hostname: String,
    /// Its mounted root file system.
    pub root: PathBuf,
    /// Whether that can only be read.
    pub read_only: bool,
    /// Elevated: devices unconfined, nothing of `/proc` and `/sys` hidden or read-only.
    pub privileged: bool,
    /// Memory file systems of its own.
    pub tmpfs: Vec<Mount>,
    /// The guest's files that it sees.
    pub binds: Vec<Bind>,
    /// Its bounds.
    pub limits: Limits,
}

impl ContainerPlan {
    /// Refuses what libcontainer would reinterpret.
    ///
    /// # Errors
    /// [`RuntimeError::Invalid`] naming the part.
    pub fn check(&self) -> Result<(), RuntimeError> {
        self.process.check()?;
        check_hostname(&self.hostname)?;
        for mount in &self.tmpfs {
            if mount.kind != "tmpfs" || !plain_path(&mount.destination) {
                return Err(invalid("mount", &mount.destination, "a tmpfs at an absolute path without `..`"));
            }
        }
        Ok(())
    }
}

/// A host name goes into `/etc/hosts`: a line break in it would be a line of the host's own there.
fn check_hostname(name: &str) -> Result<(), RuntimeError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    let ends = !name.starts_with(['-', '.']) && !name.ends_with(['-', '.']);
    if plain && ends && (1..=64).contains(&name.len()) {
        return Ok(());
    }
    Err(invalid("host name", name, "1 to 64 letters, digits, `-` and `.`, the first and last a letter or digit"))
}

/// Whether a path is absolute and says one place.
fn plain_path(path: &str) -> bool {
    !path.contains('\0')
        && path
            .strip_prefix('/')
            .is_some_and(|rest| !rest.is_empty() && rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

/// An error that shows at most the first 80 characters of a hostile value.
pub(crate) fn invalid(what: &'static str, value: &str, form: &'static str) -> RuntimeError {
    RuntimeError::Invalid { what, value: value.chars().take(80).collect(), form }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn process() -> ProcessPlan {
        ProcessPlan {
            args: vec!["/bin/true".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            ids: Ids { uid: 0, gid: 0, groups: vec![], home: "/root".to_owned(), ..Ids::default() },
            umask: 0o022,
            capabilities: Capabilities::default(),
            no_new_privileges: false,
            seccomp: None,
        }
    }

    pub(crate) fn container() -> ContainerPlan {
        ContainerPlan {
            process: process(),
            terminal: false,
            hostname: "web".to_owned(),
            root: "/run/root".into(),
            read_only: false,
            privileged: false,
            tmpfs: vec![],
            binds: vec![],
            limits: Limits::default(),
        }
    }

    #[test]
    fn a_usual_plan_is_taken() {
        container().check().unwrap();
    }

    #[test]
    fn host_names_cannot_carry_lines() {
        for bad in ["", "a\nb", "a b", "-a", "a-", ".", &"a".repeat(65), "ä"] {
            let plan = ContainerPlan { hostname: bad.to_owned(), ..container() };
            assert!(matches!(plan.check(), Err(RuntimeError::Invalid { what: "host name", .. })), "{bad:?}");
        }
    }

    #[test]
    fn processes_need_a_program_and_a_place() {
        let bad = [
            ProcessPlan { args: vec![], ..process() },
            ProcessPlan { args: vec![String::new()], ..process() },
            ProcessPlan { args: vec!["a\0b".to_owned()], ..process() },
            ProcessPlan { env: vec!["A=\0".to_owned()], ..process() },
            ProcessPlan { env: vec!["A".repeat(MAX_STRING)], ..process() },
            ProcessPlan { cwd: "tmp".to_owned(), ..process() },
        ];
        for plan in bad {
            assert!(plan.check().is_err(), "{plan:?}");
        }
    }

    #[test]
    fn mounts_are_memory_at_plain_paths() {
        let mount = |kind: &str, destination: &str| Mount {
            destination: destination.to_owned(),
            source: "tmpfs".to_owned(),
            kind: kind.to_owned(),
            options: vec![],
        };
        for bad in [mount("bind", "/a"), mount("tmpfs", "a"), mount("tmpfs", "/a/../b"), mount("tmpfs", "/")] {
            assert!(ContainerPlan { tmpfs: vec![bad.clone()], ..container() }.check().is_err(), "{bad:?}");
        }
        ContainerPlan { tmpfs: vec![mount("tmpfs", "/a")], ..container() }.check().unwrap();
    }
}
