//! Linux capabilities (capabilities(7)): names, Docker's default, the five sets of a process.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::GroupError;

/// Every capability of Linux 6.12, by number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Numbers of the 14 capabilities that Docker gives a container.
const DOCKER: [u8; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/// One capability.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capability(u8);

impl Capability {
    /// Every capability there is.
    pub fn all() -> impl Iterator<Item = Self> {
        (0u8..).zip(NAMES).map(|(number, _)| Self(number))
    }

    /// Docker's 14 defaults.
    pub fn docker_defaults() -> impl Iterator<Item = Self> {
        DOCKER.into_iter().map(Self)
    }

    /// The name, as `CAP_CHOWN`.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl FromStr for Capability {
    type Err = GroupError;

    /// Reads `CAP_CHOWN`, `cap_chown` or `chown`.
    fn from_str(text: &str) -> Result<Self, GroupError> {
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        (0u8..)
            .zip(NAMES)
            .find(|(_, name)| name.strip_prefix("CAP_") == Some(short))
            .map(|(number, _)| Self(number))
            .ok_or_else(|| {
                GroupError::invalid("capability", text, "a name from capabilities(7), such as CAP_NET_ADMIN")
            })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The five capability sets of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Ambient set.
    pub ambient: BTreeSet<Capability>,
    /// Bounding set.
    pub bounding: BTreeSet<Capability>,
    /// Effective set.
    pub effective: BTreeSet<Capability>,
    /// Inheritable set.
    pub inheritable: BTreeSet<Capability>,
    /// Permitted set.
    pub permitted: BTreeSet<Capability>,
}

impl Capabilities {
    /// The sets of a container's first process as Docker makes them: `allowed` bounds it, and root also has it in force.
    /// Nothing is inheritable or ambient.
    #[must_use]
    pub fn for_user(allowed: &BTreeSet<Capability>, root: bool) -> Self {
        let in_force = if root { allowed.clone() } else { BTreeSet::new() };
        Self {
            ambient: BTreeSet::new(),
            bounding: allowed.clone(),
            effective: in_force.clone(),
            inheritable: BTreeSet::new(),
            permitted: in_force,
        }
    }

    /// The sets of a privileged container: everything is in force and inheritable, nothing ambient.
    #[must_use]
    pub fn privileged() -> Self {
        let all: BTreeSet<_> = Capability::all().collect();
        Self {
            ambient: BTreeSet::new(),
            bounding: all.clone(),
            effective: all.clone(),
            inheritable: all.clone(),
            permitted: all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_gives_fourteen() {
        let names: Vec<_> = Capability::docker_defaults().map(Capability::name).collect();
        for name in ["CAP_CHOWN", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE"] {
            assert!(names.contains(&name), "{name}");
        }
        assert_eq!(names.len(), 14);
        assert!(!names.contains(&"CAP_SYS_ADMIN"));
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        for text in ["CAP_NET_ADMIN", "net_admin", "NET_ADMIN", "cap_net_admin"] {
            assert_eq!(text.parse::<Capability>().unwrap().name(), "CAP_NET_ADMIN");
        }
        for text in ["", "CAP_", "ALL", "CAP_CAP_CHOWN", "CHOWN "] {
            assert!(text.parse::<Capability>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_name_reads_as_itself() {
        assert_eq!(Capability::all().count(), 41);
        for capability in Capability::all() {
            assert_eq!(capability.name().parse::<Capability>().unwrap(), capability);
        }
    }

    #[test]
    fn another_user_than_root_has_nothing_in_force() {
        let allowed = Capability::docker_defaults().collect();
        let sets = Capabilities::for_user(&allowed, false);
        assert_eq!(sets.bounding.len(), 14);
        assert!(sets.effective.is_empty() && sets.permitted.is_empty());
    }
}
