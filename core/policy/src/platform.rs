//! What the guest decides, not the host: where things are mounted, and what every container has.

use crate::{pattern::Pattern, request::Mount};

/// The guest's own choices, as the decisions need them.
#[derive(Clone, Debug)]
pub struct Platform {
    /// Where layers may be mounted.
    pub(crate) layer_targets: Pattern,
    /// Where writable disks may be mounted.
    pub(crate) scratch_targets: Pattern,
    /// Mounts that every container may have.
    pub(crate) default_mounts: Vec<Mount>,
    /// Mounts that a container which may be elevated may have as well.
    pub(crate) privileged_mounts: Vec<Mount>,
    /// Capabilities where a policy leaves them to the engine.
    pub(crate) default_capabilities: Vec<String>,
    /// The same for privileged containers.
    pub(crate) privileged_capabilities: Vec<String>,
    /// What `sandbox://` stands for.
    pub(crate) sandbox_dir: String,
    /// What `hugepages://` stands for.
    pub(crate) huge_pages_dir: String,
    /// Whether the container is a pod's pause container, which may see `/sys` writable.
    pub(crate) sandbox_container: bool,
    /// Where shares of the host may be mounted: root, and what follows the container's identifier.
    pub(crate) share_targets: Option<(String, String)>,
}

/// Folder of everything that the guest mounts.
const ROOT: &str = "/run/caveau";

impl Platform {
    /// Caveau's guest. It makes `/proc`, `/sys`, `/dev` and the like on its own, so no mount is allowed by default: every
    /// one that is asked for must be in the policy.
    #[must_use]
    pub fn guest() -> Self {
        Self {
            layer_targets: Pattern::anchored(&format!("{ROOT}/layers/[0-9]+")),
            scratch_targets: Pattern::anchored(&format!("{ROOT}/scratch/[0-9]+")),
            default_mounts: Vec::new(),
            privileged_mounts: Vec::new(),
            default_capabilities: caveau_group::Capability::docker_defaults().map(|c| c.name().to_owned()).collect(),
            privileged_capabilities: caveau_group::Capability::all().map(|c| c.name().to_owned()).collect(),
            sandbox_dir: format!("{ROOT}/sandbox"),
            huge_pages_dir: format!("{ROOT}/hugepages"),
            sandbox_container: false,
            share_targets: None,
        }
    }

    /// Where the guest mounts the layer of this number.
    #[must_use]
    pub fn layer_target(number: u32) -> String {
        format!("{ROOT}/layers/{number}")
    }

    /// Where the guest mounts the scratch space of this number.
    #[must_use]
    pub fn scratch_target(number: u32) -> String {
        format!("{ROOT}/scratch/{number}")
    }

    /// Where the guest puts the root file system of this container.
    #[must_use]
    pub fn overlay_target(container_id: &str) -> String {
        format!("{ROOT}/containers/{container_id}/rootfs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_own_targets_are_the_ones_allowed() {
        let platform = Platform::guest();
        assert!(platform.layer_targets.matches(&Platform::layer_target(17)));
        assert!(platform.scratch_targets.matches(&Platform::scratch_target(0)));
        for bad in [
            "/run/caveau/layers/",
            "/run/caveau/layers/1/../2",
            "/etc",
            "/run/caveau/layers/1\n",
            "x/run/caveau/layers/1",
        ] {
            assert!(!platform.layer_targets.matches(bad), "{bad:?}");
        }
    }
}
