//! The context of a launched guest, which nothing changes any more, and the answers that it gives.

use caveau_measure::LaunchDigest;
use caveau_snp::bits::GuestPolicy;
use caveau_snp::report::{HOST_VMPL, ReportFields, SigningKey};
use caveau_snp::tcb::Tcb;
use caveau_sp_message::key::{KEY_SIZE, KeyFields, KeyRequest, KeyResponse, RootKey};
use caveau_sp_message::report::{KeySelection, ReportRequest, ReportResponse};
use caveau_sp_message::{Status, VmpckId};
use zeroize::Zeroizing;

use crate::CryptoError;
use crate::endorsement::Endorsement;
use crate::persona::{Persona, Platform};
use crate::seed::{Seed, expand};

/// LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR: a program mitigates nothing in silicon.
const MITIGATIONS: u64 = 0;

/// DEBUG of the guest policy.
const DEBUG: u64 = 1 << 19;

/// HWERROR_PLATFORM: the processor itself failed.
const PLATFORM: Status = Status::Other(0x13);

/// Highest number of a VM privilege level.
const LAST_VMPL: u32 = 3;

/// A launched guest.
pub(crate) struct GuestContext {
    pub(crate) measurement: LaunchDigest,
    pub(crate) guest_policy: GuestPolicy,
    pub(crate) host_data: [u8; 32],
    pub(crate) identity: Identity,
    pub(crate) report_id: [u8; 32],
    pub(crate) platform: Platform,
    pub(crate) endorsement: Endorsement,
    pub(crate) seed: Seed,
}

/// What an ID block said; all zero without one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) family_id: [u8; 16],
    pub(crate) image_id: [u8; 16],
    pub(crate) guest_svn: u32,
    pub(crate) id_key_digest: [u8; 48],
    pub(crate) author_key_digest: Option<[u8; 48]>,
}

impl Default for Identity {
    fn default() -> Self {
        Self { family_id: [0; 16], image_id: [0; 16], guest_svn: 0, id_key_digest: [0; 48], author_key_digest: None }
    }
}

impl GuestContext {
    /// Answers MSG_REPORT_REQ from the guest's level that has key `requester`.
    pub(crate) fn report(&self, requester: VmpckId, request: &ReportRequest) -> ReportResponse {
        if !is_own_level(requester, request.vmpl) {
            return ReportResponse::refused(Status::InvalidParameters);
        }
        let has_vlek = self.endorsement.vlek.is_some();
        let kind = match request.key {
            KeySelection::VlekElseVcek if has_vlek => SigningKey::Vlek,
            KeySelection::VlekElseVcek | KeySelection::Vcek => SigningKey::Vcek,
            KeySelection::Vlek => SigningKey::Vlek,
        };
        let Some(key) = self.endorsement.key(kind) else {
            return ReportResponse::refused(Status::InvalidKeySelection);
        };
        match key.report(&self.fields(request, kind)) {
            Ok(report) => ReportResponse { status: Status::Success, report: Some(report) },
            Err(_) => ReportResponse::refused(PLATFORM),
        }
    }

    fn fields(&self, request: &ReportRequest, signing_key: SigningKey) -> ReportFields {
        let Self { platform, identity, .. } = self;
        let persona = platform.persona;
        let level = |tcb: Tcb| tcb.to_u64(platform.product.layout());
        let (vmpl, report_data) = match persona {
            Persona::HostRequested => (HOST_VMPL, [0; 64]),
            _ => (request.vmpl, request.report_data),
        };
        ReportFields {
            version: platform.version,
            guest_svn: identity.guest_svn,
            policy: self.guest_policy.0 | if persona == Persona::Debug { DEBUG } else { 0 },
            family_id: identity.family_id,
            image_id: identity.image_id,
            vmpl,
            current_tcb: level(platform.current),
            platform_info: platform.platform_info.0,
            author_key_enabled: identity.author_key_digest.is_some(),
            chip_key_masked: false,
            signing_key,
            report_data,
            measurement: *self.measurement.as_bytes(),
            host_data: self.host_data,
            id_key_digest: identity.id_key_digest,
            author_key_digest: identity.author_key_digest.unwrap_or([0; 48]),
            report_id: self.report_id,
            report_id_ma: [0xff; 32],
            reported_tcb: level(platform.reported),
            fms: Some(platform.fms),
            chip_id: platform.chip_id,
            committed_tcb: level(platform.committed),
            current_firmware: platform.current_firmware,
            committed_firmware: platform.committed_firmware,
            launch_tcb: level(platform.current),
            launch_mit_vector: Some(MITIGATIONS),
            current_mit_vector: Some(MITIGATIONS),
        }
    }

    /// Answers MSG_KEY_REQ from the guest's level that has key `requester`.
    pub(crate) fn derived_key(&self, requester: VmpckId, request: &KeyRequest) -> KeyResponse {
        if request.root == RootKey::Vmrk {
            // Only a guest with a migration agent has one.
            return KeyResponse::refused(Status::InvalidKeySelection);
        }
        let layout = self.platform.product.layout();
        let tcb = Tcb::from_u64(request.tcb_version, layout).filter(|tcb| self.platform.committed.at_least(*tcb));
        let allowed = is_own_level(requester, request.vmpl)
            && request.guest_svn <= self.identity.guest_svn
            && request.launch_mit_vector.unwrap_or(0) & !MITIGATIONS == 0;
        match tcb.filter(|_| allowed) {
            Some(tcb) => match self.derive(request, tcb) {
                Ok(key) => KeyResponse { status: Status::Success, key },
                Err(_) => KeyResponse::refused(PLATFORM),
            },
            None => KeyResponse::refused(Status::InvalidParameters),
        }
    }

    /// The key for the facts that the request selects; the others count as zero.
    fn derive(&self, request: &KeyRequest, tcb: Tcb) -> Result<Zeroizing<[u8; KEY_SIZE]>, CryptoError> {
        let selected = |field: KeyFields| request.fields.contains(field);
        let number = |field, value: u64| if selected(field) { value.to_le_bytes() } else { [0; 8] };
        let bytes = |field, value: &[u8]| if selected(field) { value.to_vec() } else { vec![0; value.len()] };
        let levels = selected(KeyFields::TCB_VERSION).then_some((tcb, self.platform.product.layout()));
        let root = self.seed.guest_root(levels)?;
        let mut key = Zeroizing::new([0; KEY_SIZE]);
        let labels: [&[u8]; 10] = [
            b"derived key",
            &request.fields.bits().to_le_bytes(),
            &request.vmpl.to_le_bytes(),
            &number(KeyFields::POLICY, self.guest_policy.0),
            &bytes(KeyFields::IMAGE_ID, &self.identity.image_id),
            &bytes(KeyFields::FAMILY_ID, &self.identity.family_id),
            &bytes(KeyFields::MEASUREMENT, self.measurement.as_bytes()),
            &number(KeyFields::GUEST_SVN, request.guest_svn.into()),
            &number(KeyFields::TCB_VERSION, request.tcb_version),
            &number(KeyFields::LAUNCH_MIT_VECTOR, request.launch_mit_vector.unwrap_or(0)),
        ];
        expand(&root, &labels, key.as_mut_slice())?;
        Ok(key)
    }
}

/// Whether a requester may speak for a level: its own, or one with less privilege.
fn is_own_level(requester: VmpckId, vmpl: u32) -> bool {
    (u32::from(requester.number())..=LAST_VMPL).contains(&vmpl)
}

#[cfg(test)]
mod tests {
    use caveau_snp::report::Report;

    use super::*;
    use crate::endorsement::ReportKey;
    use crate::seed::Endorsed;

    fn context(persona: Persona) -> GuestContext {
        let seed = Seed::new(Zeroizing::new([1; 48]));
        let platform = Platform::new(persona, &seed, false).unwrap();
        let vcek = ReportKey::derive(&seed, Endorsed::Chip(&platform.hwid), &platform).unwrap();
        let vlek = (persona == Persona::Vlek)
            .then(|| ReportKey::derive(&seed, Endorsed::Provider("CN=softsp.invalid"), &platform).unwrap());
        GuestContext {
            measurement: LaunchDigest::from_bytes([2; 48]),
            guest_policy: GuestPolicy::USUAL,
            host_data: [3; 32],
            identity: Identity { guest_svn: 5, image_id: [6; 16], family_id: [7; 16], ..Identity::default() },
            report_id: [4; 32],
            platform,
            endorsement: Endorsement { vcek, vlek, table: Vec::new() },
            seed,
        }
    }

    fn ask(vmpl: u32, key: KeySelection) -> ReportRequest {
        ReportRequest { report_data: [9; 64], vmpl, key }
    }

    fn key_request() -> KeyRequest {
        KeyRequest {
            root: RootKey::Vcek,
            fields: KeyFields::SEALING,
            vmpl: 0,
            guest_svn: 0,
            tcb_version: context(Persona::Software).platform.committed.to_u64(caveau_snp::tcb::Layout::Milan),
            launch_mit_vector: None,
        }
    }

    fn key(context: &GuestContext, request: &KeyRequest) -> [u8; 32] {
        let response = context.derived_key(VmpckId::ZERO, request);
        assert_eq!(response.status, Status::Success, "{request:?}");
        *response.key
    }

    #[test]
    fn a_report_says_what_was_launched() {
        let response = context(Persona::Software).report(VmpckId::ZERO, &ask(0, KeySelection::VlekElseVcek));
        let report = Report::parse(response.report.unwrap().as_slice()).unwrap();
        let fields = report.fields();
        assert_eq!((fields.measurement, fields.host_data, fields.report_data), ([2; 48], [3; 32], [9; 64]));
        assert_eq!((fields.report_id, fields.report_id_ma, fields.guest_svn), ([4; 32], [0xff; 32], 5));
    }

    #[test]
    fn a_level_speaks_for_itself_and_those_below() {
        let context = context(Persona::Software);
        for (key, vmpl, status) in [
            (0, 0, Status::Success),
            (0, 3, Status::Success),
            (2, 2, Status::Success),
            (2, 1, Status::InvalidParameters),
            (0, 4, Status::InvalidParameters),
            (0, u32::MAX, Status::InvalidParameters),
        ] {
            let requester = VmpckId::new(key).unwrap();
            assert_eq!(context.report(requester, &ask(vmpl, KeySelection::Vcek)).status, status, "{key} {vmpl}");
            let request = KeyRequest { vmpl, ..key_request() };
            assert_eq!(context.derived_key(requester, &request).status, status, "{key} {vmpl}");
        }
    }

    #[test]
    fn a_key_that_is_not_loaded_cannot_be_selected() {
        let signer = |persona, key| {
            let response = context(persona).report(VmpckId::ZERO, &ask(0, key));
            response.report.map(|report| Report::parse(report.as_slice()).unwrap().fields().signing_key)
        };
        assert_eq!(signer(Persona::Software, KeySelection::VlekElseVcek), Some(SigningKey::Vcek));
        assert_eq!(signer(Persona::Software, KeySelection::Vlek), None);
        assert_eq!(signer(Persona::Vlek, KeySelection::VlekElseVcek), Some(SigningKey::Vlek));
        assert_eq!(signer(Persona::Vlek, KeySelection::Vcek), Some(SigningKey::Vcek));
        let refused = context(Persona::Software).report(VmpckId::ZERO, &ask(0, KeySelection::Vlek));
        assert_eq!(refused.status, Status::InvalidKeySelection);
    }

    #[test]
    fn a_derived_key_depends_on_exactly_what_was_selected() {
        let base = context(Persona::Software);
        type Change = fn(&mut GuestContext);
        let changes: [(KeyFields, Change); 4] = [
            (KeyFields::POLICY, |context| context.guest_policy = GuestPolicy(0xb_0000)),
            (KeyFields::IMAGE_ID, |context| context.identity.image_id = [0; 16]),
            (KeyFields::FAMILY_ID, |context| context.identity.family_id = [0; 16]),
            (KeyFields::MEASUREMENT, |context| context.measurement = LaunchDigest::from_bytes([9; 48])),
        ];
        for (field, change) in changes {
            let mut other = context(Persona::Software);
            change(&mut other);
            let with = KeyRequest { fields: field, ..key_request() };
            assert_ne!(key(&base, &with), key(&other, &with), "{field:?}");
            let without = KeyRequest { fields: KeyFields::TCB_VERSION, ..key_request() };
            assert_eq!(key(&base, &without), key(&other, &without), "{field:?}");
        }
        let mut elsewhere = context(Persona::Software);
        elsewhere.seed = Seed::new(Zeroizing::new([2; 48]));
        assert_ne!(key(&base, &key_request()), key(&elsewhere, &key_request()));
    }

    #[test]
    fn lower_versions_can_be_asked_for_and_higher_ones_not() {
        let context = context(Persona::Software);
        let version = |guest_svn, tcb: Tcb| KeyRequest {
            fields: KeyFields::GUEST_SVN.with(KeyFields::TCB_VERSION),
            guest_svn,
            tcb_version: tcb.to_u64(caveau_snp::tcb::Layout::Milan),
            ..key_request()
        };
        let committed = context.platform.committed;
        let lower = Tcb { snp: committed.snp - 1, ..committed };
        assert_ne!(key(&context, &version(5, committed)), key(&context, &version(4, committed)));
        assert_ne!(key(&context, &version(5, committed)), key(&context, &version(5, lower)));
        for request in [
            version(6, committed),
            version(5, Tcb { microcode: committed.microcode + 1, ..committed }),
            KeyRequest { tcb_version: 1 << 16, ..key_request() },
            KeyRequest { launch_mit_vector: Some(1), ..key_request() },
        ] {
            assert_eq!(context.derived_key(VmpckId::ZERO, &request).status, Status::InvalidParameters, "{request:?}");
        }
        let migration = KeyRequest { root: RootKey::Vmrk, ..key_request() };
        assert_eq!(context.derived_key(VmpckId::ZERO, &migration).status, Status::InvalidKeySelection);
    }
}
