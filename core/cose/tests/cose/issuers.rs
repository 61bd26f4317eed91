//! Whom a did:x509 names.

use caveau_cose::build::{alternative_names, extended_key_usage, extension, name};
use caveau_cose::{Chain, DidX509, Hash, KeyKind, Policy, San, Validity, oid};

use crate::support::{EKU, Holder, NOW, Order, ca, issue, issuer, order, signer_extensions, told};

const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";

/// A signer that has everything which a policy can name.
fn chain() -> (Holder, Holder, Holder) {
    let kind = KeyKind::P256;
    let root = issue(None, order("Root", kind, ca(None)));
    let intermediate = issue(Some(&root), order("Intermediate", kind, ca(None)));
    let subject = name(&[
        (&[0x55, 4, 6], "US"),
        (&[0x55, 4, 8], "California"),
        (&[0x55, 4, 10], "GitHub, Inc."),
        (&[0x55, 4, 11], "First"),
        (&[0x55, 4, 11], "Second"),
        (&[0x55, 4, 3], "Test Leaf (DO NOT TRUST)"),
        (&[0x55, 4, 5], "7"),
        (&[0x55, 4, 5], "8"),
        (&[0x55, 4, 12], "Chief"),
    ]);
    let address = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let names = alternative_names(&[
        (1, b"who@example.org"),
        (2, b"example.org"),
        (6, b"https://example.org/a"),
        (7, &[192, 0, 2, 1]),
        (7, &address),
    ]);
    let usages = [EKU, CODE_SIGNING].map(|usage| oid::from_dotted(usage).unwrap());
    let fulcio = oid::from_dotted("1.3.6.1.4.1.57264.1.1").unwrap();
    let extensions = [
        extended_key_usage(&[&usages[0], &usages[1]]),
        names,
        extension(&fulcio, false, b"https://github.com/login/oauth"),
    ];
    let order = Order { subject, ..order("", kind, extensions.concat()) };
    (issue(Some(&intermediate), order), intermediate, root)
}

#[test]
fn policies_hold_or_do_not() {
    let (signer, intermediate, root) = chain();
    let ders = [&signer.der[..], &intermediate.der, &root.der];
    let chain = Chain::verify(&ders, Validity::At(NOW)).unwrap();
    let check = |policy: &str| DidX509::parse(&issuer(&ders, 2, policy)).unwrap().check(&chain);
    for policy in [
        "eku:1.3.6.1.4.1.311.76.59.1.1",
        "eku:1.3.6.1.5.5.7.3.3",
        "subject:C:US",
        "subject:S:California",
        "subject:ST:California",
        "subject:O:GitHub%2C%20Inc.",
        "subject:OU:First",
        "subject:OU:Second",
        "subject:CN:Test%20Leaf%20%28DO%20NOT%20TRUST%29",
        "subject:cn:Test%20Leaf%20(DO%20NOT%20TRUST):C:US:o:GitHub%2c%20Inc.",
        "subject:2.5.4.12:Chief",
        "san:dns:example.org",
        "san:email:who%40example.org",
        "san:uri:https%3A%2F%2Fexample.org%2Fa",
        "san:ipaddress:192.0.2.1",
        "san:ipaddress:2001%3Adb8%3A%3A1",
        "fulcio-issuer:github.com%2Flogin%2Foauth",
        "eku:1.3.6.1.5.5.7.3.3::subject:C:US::san:dns:example.org",
    ] {
        assert_eq!(check(policy), Ok(()), "{policy}");
    }
    for policy in [
        "eku:1.3.6.1.4.1.311.76.59.1.2",
        "eku:1.3.6.1.4.1.311.76.59.1",
        "eku:2.5.29.37.0",
        "subject:C:us",
        "subject:C:US:O:GitHub",
        "subject:OU:First%20",
        "subject:CN:Test",
        // Twice in the subject: tools differ in which counts.
        "subject:SERIALNUMBER:7",
        "subject:SERIALNUMBER:8",
        "subject:2.5.4.13:Chief",
        "san:dns:EXAMPLE.org",
        "san:uri:example.org",
        "san:email:example.org",
        "san:ipaddress:192.0.2.2",
        "fulcio-issuer:github.com%2Flogin",
        "eku:1.3.6.1.5.5.7.3.3::subject:C:DE",
    ] {
        let error = check(policy).expect_err(policy);
        assert!(told(&error).starts_with("the signer's certificate has no "), "{policy}: {error}");
    }
}

#[test]
fn fingerprints_are_those_of_authorities() {
    let (signer, intermediate, root) = chain();
    let ders = [&signer.der[..], &intermediate.der, &root.der];
    let chain = Chain::verify(&ders, Validity::At(NOW)).unwrap();
    let policies = [Policy::San(San::Dns("example.org".to_owned()))];
    for hash in Hash::ALL {
        for authority in [1, 2] {
            let did = DidX509::of(&ders, authority, hash, &policies).unwrap();
            assert_eq!(did.check(&chain), Ok(()));
            assert_eq!(DidX509::parse(did.as_str()), Ok(did));
        }
        assert_eq!(DidX509::of(&ders, 0, hash, &policies), None);
        assert_eq!(DidX509::of(&ders, 3, hash, &policies), None);
    }
    // Not the signer's own; not another hash's name over the same bytes.
    let own = DidX509::parse(&issuer(&ders, 0, "subject:C:US")).unwrap();
    assert!(told(&own.check(&chain).unwrap_err()).contains("no authority of the chain has the sha256 fingerprint"));
    let short = Chain::verify(&ders[..2], Validity::At(NOW)).unwrap();
    let by_root = DidX509::parse(&issuer(&ders, 2, "subject:C:US")).unwrap();
    assert!(by_root.check(&short).is_err(), "an authority that is not in the chain names its signer");
}

#[test]
fn what_a_certificate_does_not_have_is_not_assumed() {
    let root = issue(None, order("Root", KeyKind::P256, ca(None)));
    let bare = issue(Some(&root), Order { subject: name(&[]), ..order("", KeyKind::P256, vec![]) });
    let ders = [&bare.der[..], &root.der];
    let chain = Chain::verify(&ders, Validity::At(NOW)).unwrap();
    for policy in ["eku:1.2.3", "subject:CN:x", "san:dns:x", "fulcio-issuer:x"] {
        assert!(DidX509::parse(&issuer(&ders, 1, policy)).unwrap().check(&chain).is_err(), "{policy}");
    }
    // Of the signer, not of its authorities.
    let signer = issue(Some(&root), order("Signer", KeyKind::P256, signer_extensions()));
    let ders = [&signer.der[..], &root.der];
    let chain = Chain::verify(&ders, Validity::At(NOW)).unwrap();
    assert!(DidX509::parse(&issuer(&ders, 1, "subject:CN:Root")).unwrap().check(&chain).is_err());
    assert!(DidX509::parse(&issuer(&ders, 1, "subject:CN:Signer")).unwrap().check(&chain).is_ok());
}
