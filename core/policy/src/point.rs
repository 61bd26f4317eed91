//! Enforcement points: the questions that a policy answers (policy API 0.12.0; reference: table A2 of the CCE policy API).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::version::Version;

/// Newest policy API whose points this engine knows.
pub const API_VERSION: Version = Version::new(0, 12, 0);
/// Version of `data.framework` that this engine is.
pub const FRAMEWORK_VERSION: Version = Version::new(0, 5, 0);

/// What happens at a point that is younger than the policy, so that the policy can say nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It is allowed, and nothing is recorded.
    Allow,
    /// It is denied.
    Deny,
    /// The framework decides.
    Framework,
}

macro_rules! points {
    ($($variant:ident $name:literal $major:literal . $minor:literal . $patch:literal $before:ident, $doc:literal;)*) => {
        /// An enforcement point.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Point {
            $(#[doc = $doc] #[serde(rename = $name)] $variant,)*
        }

        impl Point {
            /// Every point, in alphabetical order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name of the policy's rule.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The policy API that brought it.
            #[must_use]
            pub const fn introduced(self) -> Version {
                match self { $(Self::$variant => Version::new($major, $minor, $patch),)* }
            }

            /// What holds for policies older than the point.
            pub(crate) const fn before(self) -> Before {
                match self { $(Self::$variant => Before::$before,)* }
            }
        }
    };
}

points! {
    CreateContainer "create_container" 0 . 1 . 0 Deny, "Make and start a container.";
    DumpStacks "dump_stacks" 0 . 7 . 0 Allow, "Have the agent dump its stacks.";
    ExecExternal "exec_external" 0 . 3 . 0 Allow, "Run a process in the guest outside any container.";
    ExecInContainer "exec_in_container" 0 . 2 . 0 Allow, "Run a further process in a container.";
    GetProperties "get_properties" 0 . 7 . 0 Allow, "Read what containers use.";
    HostNetwork "host_network" 0 . 12 . 0 Deny, "Share the guest's network namespace.";
    LoadFragment "load_fragment" 0 . 9 . 0 Deny, "Load a signed piece of policy.";
    LoadTransparencyTrustList "load_transparency_trust_list" 0 . 12 . 0 Deny, "Load a list of trusted ledgers.";
    LogProvider "log_provider" 0 . 11 . 0 Allow, "Forward Windows logs.";
    MountBlockdev "mount_blockdev" 0 . 11 . 1 Deny, "Give a container a raw disk.";
    MountCims "mount_cims" 0 . 11 . 0 Deny, "Mount Windows layers.";
    MountDevice "mount_device" 0 . 1 . 0 Deny, "Mount a layer.";
    MountOverlay "mount_overlay" 0 . 1 . 0 Deny, "Put a root file system together.";
    Plan9Mount "plan9_mount" 0 . 6 . 0 Allow, "Mount a share of the host.";
    Plan9Unmount "plan9_unmount" 0 . 6 . 0 Allow, "Unmount a share of the host.";
    RegistryChanges "registry_changes" 0 . 10 . 0 Deny, "Change a Windows registry.";
    RuntimeLogging "runtime_logging" 0 . 8 . 0 Allow, "Send the agent's log to the host.";
    RwMountDevice "rw_mount_device" 0 . 11 . 0 Framework, "Mount a writable disk.";
    RwUnmountDevice "rw_unmount_device" 0 . 11 . 0 Framework, "Unmount a writable disk.";
    ScratchMount "scratch_mount" 0 . 10 . 0 Allow, "Use a file system as scratch space.";
    ScratchUnmount "scratch_unmount" 0 . 10 . 0 Allow, "Give up a scratch space.";
    ShutdownContainer "shutdown_container" 0 . 4 . 0 Allow, "End a container for good.";
    SignalContainerProcess "signal_container_process" 0 . 5 . 0 Allow, "Send a signal to a process.";
    UnmountBlockdev "unmount_blockdev" 0 . 11 . 1 Deny, "Take a raw disk back.";
    UnmountDevice "unmount_device" 0 . 2 . 0 Allow, "Unmount a layer.";
    UnmountOverlay "unmount_overlay" 0 . 6 . 0 Allow, "Take a root file system apart.";
}

impl Point {
    /// Whether a policy that is older than the point allows it without saying so.
    #[must_use]
    pub fn is_allowed_by_older(self) -> bool {
        self.before() == Before::Allow
    }

    /// The point of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_sorted_and_found_by_name() {
        assert!(Point::ALL.is_sorted_by_key(|point| point.name()));
        for point in Point::ALL {
            assert_eq!(Point::from_name(point.name()), Some(*point));
            assert!(point.introduced() <= API_VERSION);
        }
    }
}
