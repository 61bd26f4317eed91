//! Launch digests from the parts, and reference values of a guest, or of a group in it, without running anything.

use std::fs;
use std::path::{Path, PathBuf};

use caveau_measure::VcpuType;

use crate::error::IoContext as _;
use crate::folder::part;
use crate::parts::launch_digests;
use crate::{ExpectedDigest, GroupValues, GuestFolder, GuestImageError, Manifest, OVMF, Result, Tee, TeeInfo};

/// A kind of machine: its processors' type, and how many it has.
type Machine = (VcpuType, u32);

/// For what to predict.
#[derive(Clone, Debug, Default)]
pub struct Prediction {
    /// The group; none for the guest alone.
    pub group: Option<GroupValues>,
    /// These processor types; those that guest.json lists where there is none.
    pub vcpu_types: Vec<VcpuType>,
    /// 1 to this many processors; the counts that guest.json lists where it is absent.
    pub vcpus: Option<u32>,
    /// The AmdSev build of OVMF for `snp`, instead of the guest's own.
    pub ovmf: Option<PathBuf>,
}

impl GuestFolder {
    /// Reference values: the guest's description, with launch digests computed from its parts. Every part is compared with
    /// guest.json first, and every launch digest that guest.json lists with what is computed.
    ///
    /// # Errors
    /// Where a part is missing or another, or a launch digest is not the one that guest.json lists.
    pub fn predict(&self, prediction: &Prediction) -> Result<Manifest> {
        self.check()?;
        let mut manifest = self.manifest().clone();
        manifest.group.clone_from(&prediction.group);
        let ovmf = prediction.ovmf.as_deref().map(read).transpose()?;
        if let (Some(bytes), Some(info)) = (&ovmf, manifest.tees.get_mut(&Tee::Snp)) {
            manifest.parts.insert(OVMF.to_owned(), part(bytes));
            info.firmware = vec![OVMF.to_owned()];
            // They are of another firmware.
            info.launch_digests.clear();
        }
        let machines = self.machines(prediction)?;
        for (tee, info) in &mut manifest.tees {
            let listed = std::mem::take(&mut info.launch_digests);
            info.launch_digests = self.compute(*tee, info, ovmf.as_deref().filter(|_| *tee == Tee::Snp), &machines)?;
            self.compare(*tee, &listed, &info.launch_digests)?;
        }
        Ok(manifest)
    }

    /// The machines to compute for, the same for each TEE, so that a TEE whose firmware comes only now has them, too.
    fn machines(&self, prediction: &Prediction) -> Result<Vec<Machine>> {
        let listed = || self.manifest().tees.values().flat_map(|info| &info.launch_digests);
        let mut types = prediction.vcpu_types.clone();
        if types.is_empty() {
            for expected in listed() {
                let vcpu_type = expected
                    .vcpu_type
                    .parse()
                    .map_err(|source| GuestImageError::VcpuType { folder: self.path().to_path_buf(), source })?;
                if !types.contains(&vcpu_type) {
                    types.push(vcpu_type);
                }
            }
        }
        let mut counts: Vec<u32> = match prediction.vcpus {
            Some(most) => (1..=most).collect(),
            None => listed().map(|expected| expected.vcpus).collect(),
        };
        counts.sort_unstable();
        counts.dedup();
        Ok(types.iter().flat_map(|&vcpu_type| counts.iter().map(move |&count| (vcpu_type, count))).collect())
    }

    /// The launch digests under one TEE; none where its firmware is not known.
    fn compute(
        &self,
        tee: Tee,
        info: &TeeInfo,
        ovmf: Option<&[u8]>,
        machines: &[Machine],
    ) -> Result<Vec<ExpectedDigest>> {
        let names = [&info.kernel, &info.initrd, &info.cmdline].into_iter().chain(&info.firmware);
        let files = names.map(|name| {
            let bytes = match ovmf.filter(|_| name == OVMF) {
                Some(given) => given.to_vec(),
                None => read(self.path().join(name))?,
            };
            Ok((name.clone(), bytes))
        });
        launch_digests(tee, info, &files.collect::<Result<_>>()?, machines.iter().copied())
    }

    /// guest.json's launch digests are those of the parts beside it.
    fn compare(&self, tee: Tee, listed: &[ExpectedDigest], computed: &[ExpectedDigest]) -> Result<()> {
        for found in computed {
            let same = |other: &&ExpectedDigest| (&other.vcpu_type, other.vcpus) == (&found.vcpu_type, found.vcpus);
            if let Some(expected) = listed.iter().find(same).filter(|expected| expected.digest != found.digest) {
                return Err(GuestImageError::Digest {
                    folder: self.path().to_path_buf(),
                    tee,
                    machine: format!("{} {}", found.vcpus, found.vcpu_type),
                    expected: Box::new(expected.digest),
                    found: Box::new(found.digest),
                });
            }
        }
        Ok(())
    }
}

/// A file's bytes.
fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    fs::read(path).context("read", path)
}
