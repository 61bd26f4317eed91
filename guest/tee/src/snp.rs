//! SEV-SNP by the kernel: configfs-tsm for reports, the device for derived keys.

use std::path::{Path, PathBuf};

use crate::sev_guest::SevGuest;
use crate::tsm::TsmReports;
use crate::{DerivedKey, KeyRequest, SevSigns, Tee, TeeError, TeeEvidence, TeeKind};

/// The kernel's ways to the secure processor.
pub struct SnpTee {
    reports: TsmReports,
    device: Option<SevGuest>,
    device_path: PathBuf,
}

impl SnpTee {
    /// Opens what there is under `root`, on a machine with these signs of SEV.
    pub(crate) fn open(root: &Path, signs: &SevSigns) -> Result<Self, TeeError> {
        if !signs.snp() {
            return Err(TeeError::NoSnp);
        }
        let device_path = SevGuest::path(root);
        let reports = TsmReports::open(root).ok_or_else(|| TeeError::NoTsm { tsm: TsmReports::folder(root) })?;
        Ok(Self { reports, device: SevGuest::open(root)?, device_path })
    }
}

impl Tee for SnpTee {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn report(&mut self, report_data: &[u8; 64]) -> Result<TeeEvidence, TeeError> {
        self.reports.report(report_data)
    }

    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, TeeError> {
        let absent = || TeeError::KeysUnavailable { kind: TeeKind::Snp.as_str(), path: self.device_path.clone() };
        self.device.as_ref().ok_or_else(absent)?.derived_key(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::signs_under;

    #[test]
    fn a_machine_without_snp_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for encryption_eax in [0, 0x0a] {
            let signs = signs_under(root.path(), encryption_eax);
            assert!(matches!(SnpTee::open(root.path(), &signs), Err(TeeError::NoSnp)));
        }
    }

    #[test]
    fn a_machine_whose_kernel_offers_nothing_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(SevGuest::path(root.path()), b"").unwrap();
        let opened = SnpTee::open(root.path(), &signs_under(root.path(), 0x1a));
        assert!(matches!(opened, Err(TeeError::NoTsm { .. })), "the device alone gives no reports");
    }

    #[test]
    fn keys_need_the_device() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(TsmReports::folder(root.path())).unwrap();
        let mut tee = SnpTee::open(root.path(), &signs_under(root.path(), 0x1a)).unwrap();
        let request = KeyRequest {
            root: crate::RootKey::Vcek,
            fields: crate::KeyFields::SEALING,
            vmpl: 0,
            guest_svn: 0,
            tcb_version: 0,
            launch_mit_vector: None,
        };
        assert!(matches!(tee.derived_key(&request), Err(TeeError::KeysUnavailable { .. })));
    }
}
