//! Reports, certificates and evidence files, which come from whoever wants to be believed.

use std::hint::black_box;

use caveau_emulated::SoftwareRoot;
use caveau_evidence::{Certificates, Evidence, Tee, Timestamp};
use caveau_snp::build::{CertificateSpec, CrlSpec, Role, VekIdentity, VekSpec, assemble, certificate_tbs, crl_tbs};
use caveau_snp::build::{p384_spki, rsa_spki};
use caveau_snp::certificate::Certificate;
use caveau_snp::certificate_table::{self as certificates, CertificateId};
use caveau_snp::crl::Crl;
use caveau_snp::examine::Rules;
use caveau_snp::product::Product;
use caveau_snp::report::{Report, ReportFields, Signature, set_signature};
use caveau_snp::tcb::Tcb;

use crate::Target;

/// A report that is accepted is nothing but its fields and its signature.
pub(crate) const REPORT: Target = Target {
    name: "report",
    run: report,
    seeds: reports,
    fixtures: &[
        "attestation/snp/reports/milan-v2-plain/report.bin",
        "attestation/snp/reports/milan-v3-aci/report.bin",
        "attestation/snp/reports/genoa-v3-aci/report.bin",
        "attestation/snp/reports/turin-v5-aci/report.bin",
    ],
    rounds: 4000,
};

/// Certificates.
pub(crate) const CERTIFICATE: Target = Target {
    name: "certificate",
    run: certificate,
    seeds: authority_certificates,
    fixtures: &[
        "attestation/snp/roots/milan-ark.der",
        "attestation/snp/roots/turin-ask.der",
        "attestation/snp/reports/milan-v3-aci/vcek.der",
        "attestation/snp/reports/milan-v3-vlek-vmpl1/vlek.der",
        "attestation/snp/reports/turin-v5-aci/vcek.der",
    ],
    rounds: 2000,
};

/// Revocation lists.
pub(crate) const REVOCATION_LIST: Target = Target {
    name: "revocation_list",
    run: revocation_list,
    seeds: revocation_lists,
    fixtures: &["attestation/snp/crl/genoa-crl-2022.der", "attestation/snp/crl/milan-crl-2022.der"],
    rounds: 2000,
};

/// Certificate tables of the GHCB, and the JSON that Azure has instead.
pub(crate) const CERTIFICATE_TABLE: Target = Target {
    name: "certificate_table",
    run: certificate_table,
    seeds: certificate_tables,
    fixtures: &["attestation/azure-aci/host-amd-certs.json"],
    rounds: 2000,
};

/// Evidence files: what is accepted is written and read back the same, and judging it comes to an end.
pub(crate) const EVIDENCE_FILE: Target =
    Target { name: "evidence_file", run: evidence_file, seeds: evidence_files, fixtures: &[], rounds: 800 };

const NOW: Timestamp = Timestamp::from_unix(1_780_000_000);
const LATER: Timestamp = Timestamp::from_unix(1_790_000_000);
const SIGNED: usize = 0x2a0;

fn report(data: &[u8]) {
    let Ok(report) = Report::parse(data) else { return };
    let mut written = report.fields().to_unsigned();
    set_signature(&mut written, report.signature());
    assert!(written == *report.raw(), "a byte of the report is in no field");
    assert_eq!(report.signed_part(), &data[..SIGNED]);
}

fn reports() -> Vec<Vec<u8>> {
    let made = [2, 3, 4, 5].map(|version| {
        let mut bytes = ReportFields { version, ..ReportFields::empty() }.to_unsigned();
        set_signature(&mut bytes, &Signature { r: [1; 48], s: [2; 48] });
        bytes.to_vec()
    });
    made.into()
}

fn certificate(data: &[u8]) {
    if let Ok(certificate) = Certificate::parse(data) {
        assert_eq!(certificate.der(), data);
        black_box((certificate.is_signed_by(&certificate), certificate.product_line_name()));
    }
    drop(SoftwareRoot::parse(data));
}

/// RSA and EC keys of the right shape; nobody has their private halves.
fn public_keys() -> (Vec<u8>, Vec<u8>) {
    let modulus = [&[0x02, 0x82, 0x02, 0x01, 0x00][..], &[0xc5; 512], &[0x02, 0x03, 0x01, 0x00, 0x01]].concat();
    let length = u16::try_from(modulus.len()).expect("short").to_be_bytes();
    let rsa = rsa_spki(&[&[0x30, 0x82][..], &length, &modulus].concat());
    (rsa, p384_spki(&[&[4][..], &[0x5a; 96]].concat()))
}

fn authority_certificates() -> Vec<Vec<u8>> {
    let (rsa, p384) = public_keys();
    let vek = |identity| {
        let tcb = Tcb { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 };
        Role::Vek(VekSpec { product: Product::Software, product_name: "Software", tcb, identity })
    };
    let roles = [
        (Role::Ark, &rsa),
        (Role::Ask, &rsa),
        (Role::Asvk, &rsa),
        (vek(VekIdentity::Chip(&[7; 64])), &p384),
        (vek(VekIdentity::Provider("CN=softsp.invalid")), &p384),
    ];
    let made = roles.map(|(role, public_key)| {
        let spec = CertificateSpec { role, root_id: "0123456789abcdef", not_before: NOW, not_after: LATER, public_key };
        assemble(&certificate_tbs(&spec), &[0xa5; 512])
    });
    made.into()
}

fn revocation_list(data: &[u8]) {
    if let Ok(list) = Crl::parse(data) {
        black_box((list.number(), list.this_update(), list.next_update()));
    }
}

fn revocation_lists() -> Vec<Vec<u8>> {
    let made = [&[][..], &[(0xf_0001, NOW), (7, LATER)]].map(|revoked| {
        let spec = CrlSpec { root_id: "0123456789abcdef", this_update: NOW, next_update: LATER, number: 3, revoked };
        assemble(&crl_tbs(&spec), &[0xa5; 512])
    });
    made.into()
}

fn certificate_table(data: &[u8]) {
    if let Ok(table) = certificates::parse(data) {
        let written = certificates::build(&table).expect("what fits a table fits another");
        assert_eq!(certificates::parse(&written), Ok(table));
    }
    drop(Certificates::from_table(data));
    drop(Certificates::from_thim(data));
    drop(caveau_evidence::certificates_from_pem(&String::from_utf8_lossy(data)));
}

fn certificate_tables() -> Vec<Vec<u8>> {
    let chain = authority_certificates();
    let ids = [CertificateId::ARK, CertificateId::ASK, CertificateId::VLEK, CertificateId::VCEK];
    let entries = ids.into_iter().zip(&chain).map(|(id, data)| certificates::Certificate { id, data });
    let entries: Vec<_> = entries.collect();
    let pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    vec![certificates::build(&entries).expect("four certificates fit"), pem]
}

fn evidence_file(data: &[u8]) {
    let Ok(evidence) = Evidence::parse(data) else { return };
    let written = evidence.to_json().expect("what was read can be written");
    assert_eq!(Evidence::parse(written.as_bytes()).expect("what was written can be read"), evidence);
    let rules = Rules { at: NOW, require_crl: true, crl_at_least: 0 };
    drop(caveau_evidence::verify(&evidence, &rules));
    let emulated = caveau_emulated::verify(&[], &evidence, &rules);
    assert!(emulated.verified.is_none(), "evidence was believed without any root");
}

fn evidence_files() -> Vec<Vec<u8>> {
    let chain = authority_certificates();
    let made = [(Tee::Snp, 1), (Tee::EmulatedSnp, 3)].map(|(tee, report)| {
        let evidence = Evidence {
            tee,
            report: reports().swap_remove(report),
            certificates: Certificates {
                vek: Some(chain[3].clone()),
                intermediate: Some(chain[1].clone()),
                root: Some(chain[0].clone()),
                crl: revocation_lists().pop(),
            },
            runtime_data: b"runtime".to_vec(),
            policy: Some(b"package policy".to_vec()),
            event_log: None,
            endorsements: vec![b"signed".to_vec()],
            reference_values: Some(serde_json::json!({"kernel": "6.12"})),
        };
        evidence.to_json().expect("a seed can be written").into_bytes()
    });
    made.into()
}
