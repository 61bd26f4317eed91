//! Mounts beyond those that every container has.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{GroupError, limits};

/// A mount in OCI's terms (runtime specification, `mounts`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path within the container.
    pub destination: String,
    /// Where it comes from; `tmpfs` for memory.
    pub source: String,
    /// File system type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Mount options, sorted.
    pub options: Vec<String>,
}

/// Paths that the guest itself mounts over or that are not a container's to replace.
const RESERVED: &[&str] = &["/", "/dev", "/proc", "/sys"];

const OPTION_FORM: &str = "one of size=, nr_inodes=, mode=, uid=, gid=, ro, rw, exec, noexec, nosuid, nodev, noatime";

impl FromStr for Mount {
    type Err = GroupError;

    /// Reads a memory file system: `PATH` or `PATH:option,option`. It is `nosuid` and `nodev` always and `noexec` unless
    /// `exec` is given, as Docker's `--tmpfs` is.
    fn from_str(text: &str) -> Result<Self, GroupError> {
        let (destination, given) = text.split_once(':').unwrap_or((text, ""));
        limits::absolute_path("mount", destination)?;
        let reserved = RESERVED.iter().any(|path| destination == *path || (*path != "/" && inside(destination, path)));
        // A second /dev/shm is usual and harmless.
        if reserved && destination != "/dev/shm" {
            return Err(GroupError::invalid(
                "mount",
                destination,
                "a path outside /dev, /proc and /sys, and not / itself",
            ));
        }
        let mut options: Vec<String> = vec!["nodev".to_owned(), "nosuid".to_owned()];
        for option in given.split(',').filter(|option| !option.is_empty()) {
            if !known_option(option) {
                return Err(GroupError::invalid("mount option", option, OPTION_FORM));
            }
            options.push(option.to_owned());
        }
        if !options.iter().any(|option| option == "exec") {
            options.push("noexec".to_owned());
        }
        options.sort_unstable();
        options.dedup();
        Ok(Self { destination: destination.to_owned(), source: "tmpfs".to_owned(), kind: "tmpfs".to_owned(), options })
    }
}

/// Whether `path` lies below `folder`.
fn inside(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether tmpfs takes this option and it gives nothing away.
fn known_option(option: &str) -> bool {
    match option.split_once('=') {
        None => matches!(option, "ro" | "rw" | "exec" | "noexec" | "nosuid" | "nodev" | "noatime"),
        Some(("size" | "nr_inodes", value)) => {
            let digits = value.strip_suffix(['k', 'm', 'g', 'K', 'M', 'G', '%']).unwrap_or(value);
            (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        Some(("mode", value)) => {
            (1..=5).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, b'0'..=b'7'))
        }
        Some(("uid" | "gid", value)) => value.parse::<u32>().is_ok(),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_file_systems_as_docker_writes_them() {
        let mount: Mount = "/data:size=64m,mode=1777".parse().unwrap();
        assert_eq!(mount.destination, "/data");
        assert_eq!(mount.options, ["mode=1777", "nodev", "noexec", "nosuid", "size=64m"]);
        assert_eq!("/t:exec".parse::<Mount>().unwrap().options, ["exec", "nodev", "nosuid"]);
        assert!("/dev/shm".parse::<Mount>().is_ok());
        for bad in [
            "",
            "data",
            "/",
            "/proc",
            "/proc/x",
            "/sys/fs",
            "/dev",
            "/a/../b",
            "/a//b",
            "/a:dev",
            "/a:suid",
            "/a:size=",
            "/a:size=1m;x",
            "/a:mode=9",
        ] {
            assert!(bad.parse::<Mount>().is_err(), "{bad:?}");
        }
    }
}
