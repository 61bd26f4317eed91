//! Evidence of Confidential Containers' attesters on SEV-SNP, as their attestation service takes it: JSON that has a report's fields
//! one by one instead of its bytes, and a list of certificates.
//!
//! The bytes are put together again here. Whether they are the processor's is for its signature to say.

use caveau_snp::product::Fms;
use caveau_snp::report::{FirmwareVersion, ReportFields, Signature, SigningKey, set_signature};
use caveau_snp::tcb::{Layout, Tcb};
use serde::Deserialize;
use serde_json::Value;

use crate::certificates::{Certificates, CertificatesError};
use crate::file::{Evidence, Tee};

/// Most certificates that are looked at.
const MAX_CERTIFICATES: usize = 8;

/// Why it is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CocoError {
    /// A certificate.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// A field that no report of this kind can have.
    #[error("`{0}` is not what a signed report has there")]
    Field(&'static str),
    /// Other JSON.
    #[error("its fields are not those of a report")]
    Json(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Fields {
    attestation_report: Report,
    #[serde(default)]
    cert_chain: Option<Vec<Entry>>,
}

/// A certificate, in DER. What it is said to be is not looked at: it says so itself.
#[derive(Deserialize)]
struct Entry {
    data: Vec<u8>,
}

#[derive(Deserialize)]
struct Report {
    version: u32,
    guest_svn: u32,
    policy: u64,
    family_id: Vec<u8>,
    image_id: Vec<u8>,
    vmpl: u32,
    sig_algo: u32,
    current_tcb: Levels,
    plat_info: u64,
    key_info: u32,
    report_data: Vec<u8>,
    measurement: Vec<u8>,
    host_data: Vec<u8>,
    id_key_digest: Vec<u8>,
    author_key_digest: Vec<u8>,
    report_id: Vec<u8>,
    report_id_ma: Vec<u8>,
    reported_tcb: Levels,
    #[serde(default)]
    cpuid_fam_id: Option<u8>,
    #[serde(default)]
    cpuid_mod_id: Option<u8>,
    #[serde(default)]
    cpuid_step: Option<u8>,
    chip_id: Vec<u8>,
    committed_tcb: Levels,
    current: Firmware,
    committed: Firmware,
    launch_tcb: Levels,
    #[serde(default)]
    launch_mit_vector: Option<u64>,
    #[serde(default)]
    current_mit_vector: Option<u64>,
    signature: Numbers,
}

#[derive(Deserialize)]
struct Levels {
    #[serde(default)]
    fmc: Option<u8>,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

#[derive(Deserialize)]
struct Firmware {
    major: u8,
    minor: u8,
    build: u8,
}

/// Little-endian, 72 bytes each.
#[derive(Deserialize)]
struct Numbers {
    r: Vec<u8>,
    s: Vec<u8>,
}

impl Levels {
    fn version(&self) -> u64 {
        let &Self { fmc, bootloader, tee, snp, microcode } = self;
        let layout = if fmc.is_some() { Layout::Turin } else { Layout::Milan };
        Tcb { fmc, bootloader, tee, snp, microcode }.to_u64(layout)
    }
}

impl From<Firmware> for FirmwareVersion {
    fn from(Firmware { major, minor, build }: Firmware) -> Self {
        Self { major, minor, build }
    }
}

/// Whether JSON looks like it.
pub(crate) fn is_likely(fields: &serde_json::Map<String, Value>) -> bool {
    fields.get("attestation_report").is_some_and(Value::is_object)
}

/// Reads it.
///
/// # Errors
/// [`CocoError`].
pub(crate) fn parse(json: &str) -> Result<Evidence, CocoError> {
    let Fields { attestation_report, cert_chain } = serde_json::from_str(json)?;
    let entries = cert_chain.unwrap_or_default();
    if entries.len() > MAX_CERTIFICATES {
        return Err(CocoError::Field("cert_chain"));
    }
    let certificates = entries
        .iter()
        .map(|entry| Certificates::from_file(&entry.data))
        .try_fold(Certificates::default(), |all, one| all.with(one?))?;
    Ok(Evidence::new(Tee::Snp, attestation_report.bytes()?, certificates))
}

impl Report {
    fn bytes(self) -> Result<Vec<u8>, CocoError> {
        if self.sig_algo != 1 {
            return Err(CocoError::Field("sig_algo"));
        }
        // Bits 0 and 1, and the key that signed in bits 4 to 2.
        let signing_key = match self.key_info >> 2 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            _ => return Err(CocoError::Field("key_info")),
        };
        let fms = match (self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step) {
            (Some(family), Some(model), Some(stepping)) => Some(Fms { family, model, stepping }),
            _ => None,
        };
        let mut report = ReportFields {
            version: self.version,
            guest_svn: self.guest_svn,
            policy: self.policy,
            family_id: fixed("family_id", &self.family_id)?,
            image_id: fixed("image_id", &self.image_id)?,
            vmpl: self.vmpl,
            current_tcb: self.current_tcb.version(),
            platform_info: self.plat_info,
            author_key_enabled: self.key_info & 1 != 0,
            chip_key_masked: self.key_info & 2 != 0,
            signing_key,
            report_data: fixed("report_data", &self.report_data)?,
            measurement: fixed("measurement", &self.measurement)?,
            host_data: fixed("host_data", &self.host_data)?,
            id_key_digest: fixed("id_key_digest", &self.id_key_digest)?,
            author_key_digest: fixed("author_key_digest", &self.author_key_digest)?,
            report_id: fixed("report_id", &self.report_id)?,
            report_id_ma: fixed("report_id_ma", &self.report_id_ma)?,
            reported_tcb: self.reported_tcb.version(),
            fms,
            chip_id: fixed("chip_id", &self.chip_id)?,
            committed_tcb: self.committed_tcb.version(),
            current_firmware: self.current.into(),
            committed_firmware: self.committed.into(),
            launch_tcb: self.launch_tcb.version(),
            launch_mit_vector: self.launch_mit_vector,
            current_mit_vector: self.current_mit_vector,
        }
        .to_unsigned();
        let (r, s) = (number("signature.r", &self.signature.r)?, number("signature.s", &self.signature.s)?);
        set_signature(&mut report, &Signature { r, s });
        Ok(report.to_vec())
    }
}

fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], CocoError> {
    bytes.try_into().map_err(|_| CocoError::Field(field))
}

/// 48 bytes, big-endian, of 72 that are little-endian.
fn number(field: &'static str, bytes: &[u8]) -> Result<[u8; 48], CocoError> {
    let all: [u8; 72] = fixed(field, bytes)?;
    let (number, rest) = all.split_at(48);
    let mut number: [u8; 48] = fixed(field, number)?;
    if rest.iter().any(|&byte| byte != 0) {
        return Err(CocoError::Field(field));
    }
    number.reverse();
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use caveau_snp::report::Report as Parsed;
    use proptest::prelude::*;
    use serde_json::json;

    /// A report as an attester writes it.
    fn written(report: &[u8], certificates: &[&[u8]]) -> Value {
        let parsed = Parsed::parse(report).unwrap();
        let fields = parsed.fields();
        let is_turin = fields.fms.is_some_and(|fms| fms.family == 0x1a);
        let levels = |version: u64| {
            let layout = if is_turin { Layout::Turin } else { Layout::Milan };
            serde_json::to_value(Tcb::from_u64(version, layout).unwrap()).unwrap()
        };
        let firmware = |version: FirmwareVersion| serde_json::to_value(version).unwrap();
        let bytes = |at: usize, length: usize| report[at..][..length].to_vec();
        json!({
            "attestation_report": {
                "version": fields.version, "guest_svn": fields.guest_svn, "policy": fields.policy,
                "family_id": bytes(0x10, 16), "image_id": bytes(0x20, 16), "vmpl": fields.vmpl, "sig_algo": 1,
                "current_tcb": levels(fields.current_tcb), "plat_info": fields.platform_info,
                "key_info": u32::from_le_bytes(bytes(0x48, 4).try_into().unwrap()),
                "report_data": bytes(0x50, 64), "measurement": bytes(0x90, 48), "host_data": bytes(0xc0, 32),
                "id_key_digest": bytes(0xe0, 48), "author_key_digest": bytes(0x110, 48),
                "report_id": bytes(0x140, 32), "report_id_ma": bytes(0x160, 32),
                "reported_tcb": levels(fields.reported_tcb),
                "cpuid_fam_id": fields.fms.map(|fms| fms.family), "cpuid_mod_id": fields.fms.map(|fms| fms.model),
                "cpuid_step": fields.fms.map(|fms| fms.stepping),
                "chip_id": bytes(0x1a0, 64), "committed_tcb": levels(fields.committed_tcb),
                "current": firmware(fields.current_firmware), "committed": firmware(fields.committed_firmware),
                "launch_tcb": levels(fields.launch_tcb),
                "launch_mit_vector": fields.launch_mit_vector, "current_mit_vector": fields.current_mit_vector,
                "signature": { "r": bytes(0x2a0, 72), "s": bytes(0x2e8, 72) }
            },
            "cert_chain": certificates.iter().map(|der| json!({ "cert_type": "VCEK", "data": der })).collect::<Vec<_>>(),
        })
    }

    fn signed(fields: &ReportFields, r: u8, s: u8) -> Vec<u8> {
        let mut report = fields.to_unsigned();
        set_signature(&mut report, &Signature { r: [r; 48], s: [s; 48] });
        report.to_vec()
    }

    proptest! {
        #[test]
        fn the_bytes_are_put_together_again(
            version in 2_u32..=5, numbers: [u64; 4], svn: u32, vmpl in 0_u32..4, digest: [u8; 32], key in 0_u8..4,
            turin: bool, levels: [u8; 5], r in 1_u8..0xff, s in 1_u8..0xff,
        ) {
            let [fmc, bootloader, tee, snp, microcode] = levels;
            // Version 2 has no place that says which processor it is.
            let turin = turin && version > 2;
            let (fmc, layout) = if turin { (Some(fmc), Layout::Turin) } else { (None, Layout::Milan) };
            let tcb = Tcb { fmc, bootloader, tee, snp, microcode }.to_u64(layout);
            let family = if turin { 0x1a } else { 0x19 };
            let fields = ReportFields {
                version, guest_svn: svn, policy: numbers[0], vmpl, platform_info: numbers[1], host_data: digest, report_id: digest,
                author_key_enabled: key & 1 != 0,
                signing_key: if key & 2 != 0 { SigningKey::Vlek } else { SigningKey::Vcek },
                fms: (version > 2).then_some(Fms { family, model: 1, stepping: 2 }),
                current_tcb: tcb, reported_tcb: tcb, committed_tcb: tcb, launch_tcb: tcb,
                current_firmware: FirmwareVersion { major: bootloader, minor: tee, build: snp },
                launch_mit_vector: (version == 5).then_some(numbers[2]),
                current_mit_vector: (version == 5).then_some(numbers[3]),
                ..ReportFields::empty()
            };
            let report = signed(&fields, r, s);
            let json = written(&report, &[]).to_string();
            prop_assert_eq!(parse(&json).unwrap().report, report);
        }
    }

    #[test]
    fn what_no_report_has_is_refused() {
        let good = written(&signed(&ReportFields::empty(), 1, 2), &[]);
        for (path, value, field) in [
            ("/attestation_report/sig_algo", json!(2), "sig_algo"),
            ("/attestation_report/key_info", json!(0x1c), "key_info"),
            ("/attestation_report/chip_id", json!([1]), "chip_id"),
            ("/attestation_report/signature/s", json!(vec![255; 72]), "signature.s"),
            ("/attestation_report/signature/r", json!(vec![1; 48]), "signature.r"),
            ("/attestation_report/family_id", json!(vec![256; 16]), "fields"),
            ("/attestation_report/policy", json!(-1), "fields"),
            ("/cert_chain", json!(vec![json!({ "data": [] }); 9]), "cert_chain"),
            ("/cert_chain", json!([{ "data": [1, 2] }]), "certificate"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = value;
            let error = parse(&bad.to_string()).unwrap_err().to_string();
            assert!(error.contains(field), "{path}: {error}");
        }
    }
}
