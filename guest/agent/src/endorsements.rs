//! The certificates that came with a report, as containers expect to find them in `host-amd-cert-base64`: the JSON that
//! Azure's host endpoint (THIM) gives.

use caveau_snp::certificate_table::{self as certificates, Certificate, CertificateId};
use caveau_tee::TeeEvidence;
use serde_json::json;

/// Where REPORTED_TCB lies in a report (SEV-SNP ABI specification, "ATTESTATION_REPORT").
const REPORTED_TCB: std::ops::Range<usize> = 0x180..0x188;

/// `vcekCert` (in PEM; a VLEK where the host has that), `tcbm` (the report's TCB, 16 hexadecimal digits) and
/// `certificateChain` (ASK, then ARK). Absent where the table holds no key's certificate, or cannot be read.
///
/// The host fills the table and nobody here believes it: whoever verifies the report holds the chain against AMD's root.
pub(crate) fn host_certificates(evidence: &TeeEvidence) -> Option<String> {
    let table = certificates::parse(&evidence.certificates).ok()?;
    let find = |id| table.iter().find(|certificate: &&Certificate<'_>| certificate.id == id).map(|found| found.data);
    let leaf = find(CertificateId::VCEK).or_else(|| find(CertificateId::VLEK))?;
    let chain: String = [CertificateId::ASK, CertificateId::ARK].into_iter().filter_map(find).map(pem).collect();
    let tcb = evidence.report.get(REPORTED_TCB).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok())?;
    let tcbm = format!("{:016X}", u64::from_le_bytes(tcb));
    Some(json!({ "vcekCert": pem(leaf), "tcbm": tcbm, "certificateChain": chain }).to_string())
}

/// A certificate in PEM. Some hosts give that already.
fn pem(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok(text) if text.starts_with("-----BEGIN ") => format!("{}\n", text.trim_end()),
        _ => caveau_snp::pem::certificate(data),
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    use super::*;

    fn evidence(certificates: Vec<u8>) -> TeeEvidence {
        let mut report = vec![0; 1184];
        report[REPORTED_TCB].copy_from_slice(&[3, 0, 0, 0, 0, 0, 8, 0x73]);
        TeeEvidence { report, certificates }
    }

    fn table(parts: &[(CertificateId, &[u8])]) -> Vec<u8> {
        let parts: Vec<_> = parts.iter().map(|(id, data)| Certificate { id: *id, data }).collect();
        certificates::build(&parts).unwrap()
    }

    fn read(certificates: Vec<u8>) -> serde_json::Value {
        serde_json::from_str(&host_certificates(&evidence(certificates)).unwrap()).unwrap()
    }

    #[test]
    fn a_table_becomes_what_containers_expect() {
        let given = b"-----BEGIN CERTIFICATE-----\nQVJL\n-----END CERTIFICATE-----";
        let leaf = [7; 100];
        let found =
            read(table(&[(CertificateId::ARK, given), (CertificateId::VCEK, &leaf), (CertificateId::ASK, b"ASK")]));
        assert_eq!(found["tcbm"], "7308000000000003");
        let chain = "-----BEGIN CERTIFICATE-----\nQVNL\n-----END CERTIFICATE-----\n\
                     -----BEGIN CERTIFICATE-----\nQVJL\n-----END CERTIFICATE-----\n";
        assert_eq!(found["certificateChain"], chain);
        let text = found["vcekCert"].as_str().unwrap();
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        assert_eq!(BASE64_STANDARD.decode(body).unwrap(), leaf);
    }

    #[test]
    fn a_vlek_stands_where_there_is_no_vcek() {
        let found = read(table(&[(CertificateId::VLEK, b"V")]));
        assert!(found["vcekCert"].as_str().unwrap().contains("Vg=="));
        assert_eq!(found["certificateChain"], "");
    }

    #[test]
    fn tables_without_a_key_or_sense_give_nothing() {
        for certificates in [vec![], table(&[(CertificateId::ASK, b"A")]), vec![1]] {
            assert_eq!(host_certificates(&evidence(certificates)), None);
        }
        let short = TeeEvidence { report: vec![0; 0x187], certificates: table(&[(CertificateId::VCEK, b"V")]) };
        assert_eq!(host_certificates(&short), None);
    }
}
