//! Layers, writable disks, scratch spaces, overlays and shares.

use super::{Decision, Framework, Verdict, all, check};
use crate::{
    denial::{Field, Reason, quoted},
    model::Container,
    pattern::Pattern,
    request::{Medium, MountDevice, MountOverlay, Plan9Mount, RwMountDevice, ScratchMount, Unmount},
    state::Change,
};

const WANTED_TARGET: &str = "one of the guest's own places";

impl Framework<'_> {
    pub(super) fn mount_device(&self, request: &MountDevice) -> Decision {
        let known = self.is_layer(&request.device_hash);
        all([
            check(Field::RootHash, known, "the root hash of a layer in the policy", &request.device_hash),
            self.unused(Field::Target, self.device_mounted(&request.target), &request.target),
            check(Field::Target, self.platform.layer_targets.matches(&request.target), WANTED_TARGET, &request.target),
        ])?;
        Verdict::changing([Change::AddDevice { target: request.target.clone(), hash: request.device_hash.clone() }])
    }

    /// Whether some container of the policy or of a fragment names this root hash.
    pub(super) fn is_layer(&self, hash: &String) -> bool {
        let of_fragments = || self.state.loaded.containers().flat_map(|container| container.layers.iter().flatten());
        self.policy.layers.contains(hash) || of_fragments().any(|layer| layer == hash)
    }

    pub(super) fn device_mounted(&self, target: &str) -> bool {
        self.state.devices.contains_key(target) || self.state.rw_devices.contains(target)
    }

    pub(super) fn rw_mount_device(&self, request: &RwMountDevice) -> Decision {
        let RwMountDevice { target, encrypted, ensure_filesystem, filesystem } = request;
        all([
            self.unused(Field::Target, self.device_mounted(target), target),
            self.encryption(*encrypted),
            check(Field::Filesystem, *ensure_filesystem, "one that the guest makes", "one that is there already"),
            check(Field::Filesystem, matches!(filesystem.as_str(), "ext4" | "xfs"), "ext4 or xfs", filesystem),
            check(Field::Target, self.platform.scratch_targets.matches(target), WANTED_TARGET, target),
        ])?;
        Verdict::changing([Change::AddRwDevice { target: target.clone() }])
    }

    fn encryption(&self, encrypted: bool) -> Option<Reason> {
        let allowed = encrypted || self.policy.flags.unencrypted_scratch;
        check(Field::Encrypted, allowed, "encrypted scratch (allow_unencrypted_scratch is not set)", "unencrypted")
    }

    pub(super) fn unmount_device(&self, request: &Unmount) -> Decision {
        let target = &request.unmount_target;
        let got = if self.state.rw_devices.contains(target) { "a writable disk" } else { "nothing mounted there" };
        all([check(Field::Target, self.state.devices.contains_key(target), "a mounted layer", got)])?;
        Verdict::changing([Change::RemoveDevice { target: target.clone() }])
    }

    pub(super) fn rw_unmount_device(&self, request: &Unmount) -> Decision {
        let target = &request.unmount_target;
        let got = if self.state.devices.contains_key(target) { "a layer" } else { "nothing mounted there" };
        all([check(Field::Target, self.state.rw_devices.contains(target), "a mounted writable disk", got)])?;
        Verdict::changing([Change::RemoveRwDevice { target: target.clone() }])
    }

    pub(super) fn scratch_mount(&self, request: &ScratchMount) -> Decision {
        let ScratchMount { target, encrypted, medium } = request;
        let medium_ok = *medium == Medium::Disk || self.policy.extension.memory_scratch;
        all([
            self.unused(Field::Target, self.state.scratch_mounts.contains_key(target), target),
            self.encryption(*encrypted),
            check(Field::Filesystem, medium_ok, "a disk (memory_scratch is not set)", "the guest's memory"),
        ])?;
        Verdict::changing([Change::AddScratch { target: target.clone(), encrypted: *encrypted }])
    }

    pub(super) fn scratch_unmount(&self, request: &Unmount) -> Decision {
        let target = &request.unmount_target;
        let known = self.state.scratch_mounts.contains_key(target);
        all([check(Field::Target, known, "a scratch space", "none there")])?;
        Verdict::changing([Change::RemoveScratch { target: target.clone() }])
    }

    pub(super) fn mount_overlay(&self, request: &MountOverlay) -> Decision {
        let MountOverlay { container_id, layer_paths, target } = request;
        // Top first in the request, base first in the policy.
        let hashes: Vec<Option<&String>> = layer_paths.iter().rev().map(|path| self.state.devices.get(path)).collect();
        let containers: Vec<_> =
            self.candidates().iter().filter(|container| has_layers(container, &hashes)).cloned().collect();
        let got = || {
            quoted(hashes.iter().zip(layer_paths.iter().rev()).map(|(hash, path)| match hash {
                Some(hash) => (*hash).clone(),
                None => format!("{path} (not a mounted layer)"),
            }))
        };
        let reused = self.unused(Field::ContainerId, self.state.matches.contains_key(container_id), container_id);
        let mounted = self.unused(Field::Target, self.state.overlay_targets.contains(target), target);
        if let Err(mut reasons) = all([reused, mounted]) {
            if containers.is_empty() {
                reasons.extend(self.other_layers(&got()));
            }
            return Err(reasons);
        }
        if containers.is_empty() {
            return Err(self.other_layers(&got()));
        }
        Verdict::changing([
            Change::SetMatches { id: container_id.clone(), containers, known: false },
            Change::AddOverlay { target: target.clone() },
        ])
    }

    /// What each container's layers would have to be, base first.
    fn other_layers(&self, got: &str) -> Vec<Reason> {
        let reason = |container: &Container| Reason {
            container: Some(container.label()),
            ..Reason::new(Field::Layers, quoted(container.layers.iter().flatten()), got)
        };
        let reasons: Vec<_> = self.candidates().iter().map(|container| reason(container)).collect();
        if reasons.is_empty() {
            return vec![Reason::new(Field::Layers, "those of a container, but the policy has none", got)];
        }
        reasons
    }

    pub(super) fn unmount_overlay(&self, request: &Unmount) -> Decision {
        let target = &request.unmount_target;
        let known = self.state.overlay_targets.contains(target);
        all([check(Field::Target, known, "a mounted overlay", "none there")])?;
        Verdict::changing([Change::RemoveOverlay { target: target.clone() }])
    }

    /// A share belongs to the container whose identifier is in its path.
    pub(super) fn plan9_mount(&self, request: &Plan9Mount) -> Decision {
        let target = &request.target;
        let owner = self.platform.share_targets.as_ref().and_then(|(root, below)| {
            let belongs = |id: &&String| Pattern::new(&format!("^{root}/{id}{below}$")).matches(target);
            self.state.matches.keys().find(belongs)
        });
        all([
            self.unused(Field::Target, self.state.p9mounts.contains_key(target), target),
            check(Field::Target, owner.is_some(), "a place of a container whose overlay is mounted", target),
        ])?;
        Verdict::changing(owner.map(|id| Change::AddShare { target: target.clone(), id: id.clone() }))
    }

    pub(super) fn plan9_unmount(&self, request: &Unmount) -> Decision {
        let target = &request.unmount_target;
        let known = self.state.p9mounts.contains_key(target);
        all([check(Field::Target, known, "a mounted share", "none there")])?;
        Verdict::changing([Change::RemoveShare { target: target.clone() }])
    }
}

/// Whether these are the container's layers: as many, in order, each mounted.
pub(super) fn has_layers(container: &Container, hashes: &[Option<&String>]) -> bool {
    container.layers.as_ref().is_some_and(|layers| {
        layers.len() == hashes.len() && layers.iter().zip(hashes).all(|(layer, hash)| *hash == Some(layer))
    })
}
