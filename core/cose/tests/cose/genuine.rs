//! Genuine envelopes: endorsements of Azure's guests.

use std::fs;
use std::path::{Path, PathBuf};

use caveau_cose::{
    Algorithm, Chain, ChainError, ContentType, DidX509, EnvelopeError, Rules, Validity, VerifiedEnvelope,
};
use caveau_snp::time::Timestamp;

use crate::support::BY_LEAF;

const ISSUER: &str = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.2";

/// A folder of the fixtures; `None`, and said so, where it is not there.
fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join(name);
    if !folder.is_dir() {
        println!("skipped: no fixtures at {}", folder.display());
        return None;
    }
    Some(folder)
}

fn at(text: &str) -> Rules<'static> {
    Rules { validity: Validity::At(text.parse::<Timestamp>().unwrap()), chain: &[] }
}

#[test]
fn endorsements_of_azures_guests() {
    let Some(folder) = folder("attestation/azure-aci") else { return };
    for (svn, expired) in [("22", "2024-01-04"), ("100", "2024-01-04"), ("101", "2025-08-21")] {
        let bytes = fs::read(folder.join(format!("uvm-endorsement-svn{svn}.cose"))).unwrap();
        let verified = VerifiedEnvelope::open(&bytes, &BY_LEAF).unwrap();
        assert_eq!(verified.issuer().as_str(), ISSUER);
        assert_eq!(verified.feed(), "ContainerPlat-AMD-UVM");
        assert_eq!(verified.header().algorithm, Algorithm::Ps384);
        assert_eq!(verified.content_type(), Some(ContentType::Text("application/json")));
        assert_eq!((verified.svn(), verified.receipts().len()), (None, 0));
        assert!(verified.header().thumbprint.is_some());
        let payload: serde_json::Value = serde_json::from_slice(verified.payload()).unwrap();
        assert_eq!(payload["x-ms-sevsnpvm-guestsvn"], svn);
        let names: Vec<_> =
            verified.chain().certificates().iter().map(caveau_cose::Certificate::show_subject).collect();
        assert_eq!(
            names,
            ["ContainerPlat", "Microsoft SCD Products RSA CA", "Microsoft Supply Chain RSA Root CA 2022"]
        );
        // At the time of signing, and after the signer's certificate ended.
        let signed = verified.header().signing_time.unwrap();
        VerifiedEnvelope::open(&bytes, &Rules { validity: Validity::At(signed), chain: &[] }).unwrap();
        let late = VerifiedEnvelope::open(&bytes, &at(expired)).unwrap_err();
        assert!(matches!(late, EnvelopeError::Chain(ChainError::Validity { index: 0, .. })), "{late:?}");
        // Another authority or usage in the issuer's name does not name this signer.
        let chain = Chain::verify(&verified.header().chain, Validity::LeafEnd).unwrap();
        for wrong in [ISSUER.replace("I__iu", "I__iv"), ISSUER.replace("59.1.2", "59.1.3")] {
            assert!(DidX509::parse(&wrong).unwrap().check(&chain).is_err());
        }
        for place in [0, bytes.len() / 3, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[place] ^= 0x10;
            assert!(VerifiedEnvelope::open(&changed, &BY_LEAF).is_err(), "changed at {place}");
        }
    }
}
