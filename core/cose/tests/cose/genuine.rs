//! Genuine envelopes: endorsements of Azure's guests, and where the fixtures have them, the vectors of other tools.

use std::fs;
use std::path::{Path, PathBuf};

use caveau_cose::{
    Algorithm, Chain, ChainError, ContentType, DidX509, Envelope, EnvelopeError, Rules, TrustList, TrustedLedgers,
    Validity, VerifiedEnvelope,
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

/// The keys of a JSON Web Key Set of P-384 keys, as a trust list.
fn jwks(ledger: &str, text: &[u8]) -> TrustList {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use caveau_cose::cbor::Value;
    let set: serde_json::Value = serde_json::from_slice(text).unwrap();
    let keys = set["keys"].as_array().unwrap().iter().map(|key| {
        assert_eq!(key["crv"], "P-384");
        let part = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
        (key["kid"].as_str().unwrap().as_bytes().to_vec(), part("x"), part("y"))
    });
    let keys: Vec<_> = keys.collect();
    let keys = keys.iter().map(|(id, x, y)| {
        Value::Map(vec![
            (Value::Int(1), Value::Int(2)),
            (Value::Int(2), Value::Bytes(id)),
            (Value::Int(-1), Value::Int(2)),
            (Value::Int(-2), Value::Bytes(x)),
            (Value::Int(-3), Value::Bytes(y)),
        ])
    });
    let entry = Value::Map(vec![(Value::Int(1), Value::Array(keys.collect()))]);
    TrustList::parse(&Value::Map(vec![(Value::Text(ledger), entry)]).encode()).unwrap()
}

/// cosesign1go's: an older envelope, one with a hash for payload and a genuine receipt, one with another's receipt
/// grafted on, and a genuine trust list.
#[test]
fn vectors_of_cosesign1go() {
    let Some(folder) = folder("cose") else { return };
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let old = read("esrp.test.cose");
    let old = VerifiedEnvelope::open(&old, &BY_LEAF).unwrap();
    assert_eq!((old.header().algorithm, old.feed()), (Algorithm::Es384, "KensHouseOfUVMImages"));

    let bytes = read("esrp_transparent_hash_envelop.cose");
    let transparent = VerifiedEnvelope::open(&bytes, &BY_LEAF).unwrap();
    assert_eq!((transparent.issuer().as_str(), transparent.svn()), (ISSUER, Some(104)));
    assert_eq!(transparent.header().payload_hash.unwrap().algorithm, -43);
    let ledger = "esrp-cts-db.confidential-ledger.azure.com";
    let mut trusted = TrustedLedgers::default();
    trusted.admit("own", &jwks(ledger, &read("esrp_db_ledger_pub_keys.json")), [ledger]);
    let held = trusted.receipts_of(transparent.envelope());
    assert_eq!((held.len(), held[0].issuer.as_str()), (1, ledger));

    let bytes = read("esrp_with_grafted_receipt.cose");
    let grafted = VerifiedEnvelope::open(&bytes, &BY_LEAF).unwrap();
    let ledger = "esrp-cts-cp.confidential-ledger.azure.com";
    let mut trusted = TrustedLedgers::default();
    trusted.admit("own", &jwks(ledger, &read("esrp_cp_ledger_pub_keys.json")), [ledger]);
    let refused = trusted.verify(&grafted.receipts()[0], &grafted.envelope().statement_digest()).unwrap_err();
    assert!(matches!(refused, caveau_cose::ReceiptError::OtherStatement { .. }), "{refused:?}");

    let bytes = read("aci-cc-ttl.ttl.cose");
    let list = VerifiedEnvelope::open(&bytes, &BY_LEAF).unwrap();
    assert_eq!(list.content_type(), Some(ContentType::Text(caveau_cose::TRUST_LIST_TYPE)));
    assert_eq!((list.svn(), list.feed()), (Some(0), "acidevacr.azurecr.io/internal/aci/aci-cc-ttl"));
    let ledgers = TrustList::parse(list.payload()).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&read("aci-cc-ttl.ttl.json")).unwrap();
    let expected = expected.as_object().unwrap();
    assert_eq!(ledgers.ledgers().keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, keys) in ledgers.ledgers() {
        let wanted = expected[name]["keys"].as_array().unwrap();
        assert_eq!(keys.len(), wanted.len(), "{name}");
        assert!(wanted.iter().all(|key| keys.contains_key(key["kid"].as_str().unwrap().as_bytes())), "{name}");
    }
    // The list's own receipt, by a key of the list.
    let mut trusted = TrustedLedgers::default();
    trusted.admit(list.feed(), &ledgers, ledgers.ledgers().keys().map(String::as_str));
    let held = trusted.receipts_of(Envelope::parse(&bytes).as_ref().unwrap());
    assert_eq!(held.len(), 1, "the list's own receipt");
}

/// didx509go's.
#[test]
fn vectors_of_didx509go() {
    let Some(folder) = folder("cose") else { return };
    let check = |file: &str, did: &str| {
        let pem = fs::read_to_string(folder.join(file)).unwrap();
        let ders = caveau_fragment::pem::certificates(&pem).unwrap();
        let ders: Vec<&[u8]> = ders.iter().map(Vec::as_slice).collect();
        let chain = Chain::verify(&ders, Validity::LeafEnd).unwrap();
        DidX509::parse(did).and_then(|did| did.check(&chain)).is_ok()
    };
    const CODE: &str = "did:x509:0:sha256:hH32p4SXlD8n_HLrk_mmNzIKArVh0KkbCeh6eAftfGE";
    const FULCIO: &str = "did:x509:0:sha256:O6e2zE6VRp1NM0tJyyV62FNwdvqEsMqH_07P5qVGgME";
    const MIDDLE: &str = "did:x509:0:sha256:VtqHIq_ZQGb_4eRZVHOkhUiSuEOggn1T-32PSu7R4Ys";
    let actions = "https%3A%2F%2Fgithub.com%2Fbrendancassells%2Fmcw-continuous-delivery-lab-files%2F.github%2Fworkflows\
        %2Ffabrikam-web.yml%40refs%2Fheads%2Fmain";
    let workflow = format!("{FULCIO}::fulcio-issuer:token.actions.githubusercontent.com::san:uri:{actions}");
    for (file, did, expected) in [
        ("ms-code-signing.pem", format!("{CODE}::subject:CN:Microsoft%20Corporation"), true),
        ("ms-code-signing.pem", format!("{MIDDLE}::subject:CN:Microsoft%20Corporation"), true),
        ("ms-code-signing.pem", format!("{CODE}::eku:1.3.6.1.5.5.7.3.3::eku:1.3.6.1.4.1.311.10.3.21"), true),
        ("ms-code-signing.pem", format!("{CODE}::eku:1.3.6.1.4.1.311.10.3.21"), true),
        ("fulcio-email.pem", format!("{FULCIO}::san:email:igarcia%40suse.com"), true),
        (
            "fulcio-email.pem",
            format!("{FULCIO}::fulcio-issuer:github.com%2Flogin%2Foauth::san:email:igarcia%40suse.com"),
            true,
        ),
        ("fulcio-github-actions.pem", workflow, true),
        ("ms-code-signing.pem", "djd:y508:1:abcd::".to_owned(), false),
        ("ms-code-signing.pem", "did:x509:0:sha256:h::subject:CN:Microsoft%20Corporation".to_owned(), false),
        ("ms-code-signing.pem", "did:x509:0:sha256:abc::CN:Microsoft%20Corporation".to_owned(), false),
        ("ms-code-signing.pem", format!("{CODE}::subject:CN:MicrosoftCorporation"), false),
        (
            "ms-code-signing.pem",
            format!("{CODE}::subject:CN:Microsoft%20Corporation:CN:Microsoft%20Corporation"),
            false,
        ),
        ("ms-code-signing.pem", format!("{CODE}::eku:1.3.6.1.5.5.7.3.12"), false),
        ("ms-code-signing.pem", format!("{CODE}::eku:1.2.3"), false),
        ("fulcio-email.pem", format!("{FULCIO}::san:uri:igarcia%40suse.com"), false),
        ("fulcio-email.pem", format!("{FULCIO}::email:bob%40example.com"), false),
    ] {
        assert_eq!(check(file, &did), expected, "{did}");
    }
}
