//! The keys that sign a guest's reports, and the certificates that go with them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair};
use caveau_snp::build::{CertificateSpec, Role, VekIdentity, VekSpec, certificate_tbs, p384_spki};
use caveau_snp::certificate_table::{self as certificates, Certificate, CertificateId};
use caveau_snp::report::{ReportFields, SIGNED_BYTES, Signature, SigningKey, set_signature};
use caveau_sp_message::report::REPORT_SIZE;

use crate::CryptoError;
use crate::authority::{Authority, HOUR, Kind, YEAR};
use crate::persona::{PROVIDER, Persona, Platform};
use crate::revocation;
use crate::seed::{Endorsed, Seed};
use crate::state::{StateError, StateFolder};

/// 92f81bc3-5811-4d3d-97ff-d19f88dc67ea: the revocation list's name in the certificate table.
const CRL: CertificateId = CertificateId(0x92f8_1bc3_5811_4d3d_97ff_d19f_88dc_67ea_u128.to_be_bytes());

/// How long a VCEK's certificate holds, as AMD's.
const VCEK_YEARS: u64 = 7;
/// How long a VLEK's certificate holds, as AMD's.
const VLEK_YEARS: u64 = 1;

/// What signs the reports of one guest.
pub(crate) struct Endorsement {
    /// The chip's key.
    pub(crate) vcek: ReportKey,
    /// The provider's key, where the platform plays one that has it.
    pub(crate) vlek: Option<ReportKey>,
    /// The certificate table that the host offers with reports (GHCB form).
    pub(crate) table: Vec<u8>,
}

/// A key that signs reports.
pub(crate) struct ReportKey(EcdsaKeyPair);

impl Endorsement {
    /// Derives the keys of `platform` and certifies the one that signs when the guest does not choose.
    pub(crate) fn new(state: &StateFolder, seed: &Seed, platform: &Platform) -> Result<Self, StateError> {
        let root = Authority::root(state)?;
        let vcek = ReportKey::derive(seed, Endorsed::Chip(&platform.hwid), platform)?;
        let provider = (platform.persona == Persona::Vlek).then_some(PROVIDER);
        let vlek = provider.map(|name| ReportKey::derive(seed, Endorsed::Provider(name), platform)).transpose()?;
        if platform.persona == Persona::NoCertificates {
            return Ok(Self { vcek, vlek, table: Vec::new() });
        }
        let (key, id, identity, kind) = match (&vlek, provider) {
            (Some(vlek), Some(name)) => (vlek, CertificateId::VLEK, VekIdentity::Provider(name), Kind::Asvk),
            _ => (&vcek, CertificateId::VCEK, VekIdentity::Chip(&platform.hwid), Kind::Ask),
        };
        let intermediate = state.authority(kind)?;
        let leaf = certify(state, &root, &intermediate, platform, key, identity)?;
        let list = revocation::list(state, &root, intermediate.certificate())?;
        let table = certificates::build(&[
            Certificate { id, data: &leaf },
            Certificate { id: CertificateId::ASK, data: intermediate.certificate() },
            Certificate { id: CertificateId::ARK, data: root.certificate() },
            Certificate { id: CRL, data: &list },
        ]);
        let table = table.map_err(CryptoError::at("fit its certificates into a table"))?;
        Ok(Self { vcek, vlek, table })
    }

    /// The key of this kind, if there is one.
    pub(crate) fn key(&self, kind: SigningKey) -> Option<&ReportKey> {
        match kind {
            SigningKey::Vcek => Some(&self.vcek),
            SigningKey::Vlek => self.vlek.as_ref(),
        }
    }
}

/// The certificate of the chip's key at the levels that `platform` reports.
pub(crate) fn vcek_certificate(state: &StateFolder, seed: &Seed, platform: &Platform) -> Result<Vec<u8>, StateError> {
    let key = ReportKey::derive(seed, Endorsed::Chip(&platform.hwid), platform)?;
    let (root, intermediate) = (Authority::root(state)?, state.authority(Kind::Ask)?);
    certify(state, &root, &intermediate, platform, &key, VekIdentity::Chip(&platform.hwid))
}

fn certify(
    state: &StateFolder,
    root: &Authority,
    intermediate: &Authority,
    platform: &Platform,
    key: &ReportKey,
    identity: VekIdentity<'_>,
) -> Result<Vec<u8>, StateError> {
    let years = if matches!(identity, VekIdentity::Chip(_)) { VCEK_YEARS } else { VLEK_YEARS };
    let role = Role::Vek(VekSpec {
        product: platform.product,
        product_name: platform.product_name,
        tcb: platform.reported,
        identity,
    });
    let spec = CertificateSpec {
        role,
        root_id: &root.id(),
        not_before: state.now().minus_seconds(HOUR),
        not_after: state.now().plus_seconds(years * YEAR),
        public_key: &key.spki(),
    };
    Ok(intermediate.issue(&certificate_tbs(&spec))?)
}

impl ReportKey {
    pub(crate) fn derive(seed: &Seed, whom: Endorsed<'_>, platform: &Platform) -> Result<Self, CryptoError> {
        seed.endorsement_key(whom, platform.reported, platform.product.layout()).map(Self)
    }

    fn spki(&self) -> Vec<u8> {
        p384_spki(self.0.public_key().as_ref())
    }

    /// The report with these fields, signed.
    pub(crate) fn report(&self, fields: &ReportFields) -> Result<Box<[u8; REPORT_SIZE]>, CryptoError> {
        let mut report = fields.to_unsigned();
        let signed = report.split_at(SIGNED_BYTES).0;
        let failed = CryptoError("sign a report");
        let signature = self.0.sign(&SystemRandom::new(), signed).map_err(|_| failed)?;
        let (r, s) = signature.as_ref().split_at_checked(48).ok_or(failed)?;
        let number = |bytes: &[u8]| <[u8; 48]>::try_from(bytes).map_err(|_| failed);
        set_signature(&mut report, &Signature { r: number(r)?, s: number(s)? });
        Ok(Box::new(report))
    }
}
