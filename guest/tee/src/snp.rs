//! SEV-SNP by the kernel: configfs-tsm for reports where there is one, the device for the rest.

use std::path::{Path, PathBuf};

use crate::sev_guest::SevGuest;
use crate::tsm::TsmReports;
use crate::{DerivedKey, KeyRequest, SevSigns, Tee, TeeError, TeeEvidence, TeeKind};

/// The kernel's ways to the secure processor.
pub struct SnpTee {
    reports: Option<TsmReports>,
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
        let (reports, device) = (TsmReports::open(root), SevGuest::open(root)?);
        if reports.is_none() && device.is_none() {
            return Err(TeeError::NoSnpDevice { tsm: TsmReports::folder(root), device: device_path });
        }
        Ok(Self { reports, device, device_path })
    }

    fn device(&self) -> Result<&SevGuest, TeeError> {
        self.device
            .as_ref()
            .ok_or_else(|| TeeError::KeysUnavailable { kind: TeeKind::Snp.as_str(), path: self.device_path.clone() })
    }
}

impl Tee for SnpTee {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn report(&mut self, report_data: &[u8; 64]) -> Result<TeeEvidence, TeeError> {
        match &self.reports {
            Some(reports) => reports.report(report_data),
            None => self.device()?.report(report_data),
        }
    }

    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, TeeError> {
        self.device()?.derived_key(request)
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
        let opened = SnpTee::open(root.path(), &signs_under(root.path(), 0x1a));
        assert!(matches!(opened, Err(TeeError::NoSnpDevice { .. })));
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
