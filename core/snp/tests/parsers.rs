//! Parsers of hostile bytes, and builders whose results they read back.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use caveau_snp::build::{
    ARK_SERIAL, CertificateSpec, CrlSpec, Role, VekIdentity, VekSpec, assemble, certificate_tbs, crl_tbs, p384_spki,
};
use caveau_snp::certificate::{Certificate, CertificateError};
use caveau_snp::crl::Crl;
use caveau_snp::product::Product;
use caveau_snp::software::MARKER_OID;
use caveau_snp::tcb::Tcb;
use caveau_snp::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

/// A well-formed certificate (its signature is no signature).
fn certificate(not_after: u64, hwid: &[u8; 64]) -> Vec<u8> {
    let point = [&[4][..], &[7; 96]].concat();
    let tbs = certificate_tbs(&CertificateSpec {
        role: Role::Vek(VekSpec {
            product: Product::Software,
            product_name: "Software",
            tcb: Tcb { fmc: None, bootloader: 1, tee: 2, snp: 0x80, microcode: 0xff },
            identity: VekIdentity::Chip(hwid),
        }),
        root_id: "0123456789abcdef",
        not_before: Timestamp::from_unix(0),
        not_after: Timestamp::from_unix(not_after),
        public_key: &p384_spki(&point),
    });
    assemble(&tbs, &[9; 512])
}

fn crl(number: u64, revoked: &[(u64, Timestamp)]) -> Vec<u8> {
    let tbs = crl_tbs(&CrlSpec {
        root_id: "0123456789abcdef",
        this_update: Timestamp::from_unix(1),
        next_update: Timestamp::MAX,
        number,
        revoked,
    });
    assemble(&tbs, &[9; 512])
}

#[test]
fn an_endorsement_key_without_the_marker_cannot_be_built() {
    let der = certificate(u64::MAX, &[1; 64]);
    let read = Certificate::parse(&der).unwrap();
    assert!(read.extension(&MARKER_OID).unwrap().critical);
    assert_eq!((read.common_name(), read.serial()), ("SEV-VCEK", &[0][..]));
    assert_eq!(read.product_line_name(), Some("Software"));
}

#[test]
fn another_algorithm_is_refused() {
    // RSASSA-PSS with SHA-384 and salt 48 throughout; then with salt 32, once inside and once outside.
    let der = certificate(1, &[1; 64]);
    let salts: Vec<usize> =
        der.windows(5).enumerate().filter(|(_, w)| *w == [0xa2, 3, 2, 1, 0x30]).map(|(at, _)| at + 4).collect();
    assert_eq!(salts.len(), 2);
    for at in salts {
        let mut changed = der.clone();
        changed[at] = 0x20;
        assert!(matches!(
            Certificate::parse(&changed),
            Err(CertificateError::Unsupported { part: "signature algorithm", .. })
        ));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_built_reads_back(not_after in 0u64..300_000_000_000, number: u64, serials in vec(any::<u64>(), 0..5)) {
        let der = certificate(not_after, &[3; 64]);
        let read = Certificate::parse(&der).unwrap();
        prop_assert_eq!(read.not_before(), Timestamp::from_unix(0));
        prop_assert_eq!(read.not_after(), Timestamp::from_unix(not_after));
        let revoked: Vec<_> = serials.iter().map(|serial| (*serial, Timestamp::from_unix(2))).collect();
        let list = crl(number, &revoked);
        prop_assert_eq!(Crl::parse(&list).unwrap().number(), number);
    }

    #[test]
    fn hostile_bytes_get_an_answer(bytes in vec(any::<u8>(), 0..800)) {
        let _ = Certificate::parse(&bytes);
        let _ = Crl::parse(&bytes);
    }

    #[test]
    fn changed_structures_get_an_answer(at: prop::sample::Index, value: u8, insert: bool, list: bool) {
        let mut bytes = if list { crl(3, &[(ARK_SERIAL, Timestamp::MAX)]) } else { certificate(4, &[5; 64]) };
        let at = at.index(bytes.len());
        if insert {
            bytes.insert(at, value);
        } else {
            bytes[at] = value;
        }
        let _ = Certificate::parse(&bytes);
        let _ = Crl::parse(&bytes);
    }
}
