//! Chains that must be refused, and those that only look odd.

use caveau_cose::build::{authority, extension, name, signs_certificates, signs_documents};
use caveau_cose::{Chain, KeyKind, Validity};

use crate::support::{Holder, NOW, Order, P384, YEAR, ca, issue, order, signer_extensions, told};

const KIND: KeyKind = KeyKind::P256;

fn judge(chain: &[&Holder], validity: Validity) -> Result<(), String> {
    let ders: Vec<&[u8]> = chain.iter().map(|holder| holder.der.as_slice()).collect();
    Chain::verify(&ders, validity).map(|_| ()).map_err(|error| told(&error))
}

/// Why the signer of this order, under a sound root, is refused.
fn signer(order: Order<'_>) -> Result<(), String> {
    let root = issue(None, crate::support::order("Root", KIND, ca(None)));
    let signer = issue(Some(&root), order);
    judge(&[&signer, &root], Validity::At(NOW))
}

/// Why a sound signer under a root of this order is refused.
fn root(order: Order<'_>) -> Result<(), String> {
    let root = issue(None, order);
    let signer = issue(Some(&root), crate::support::order("Signer", KIND, signer_extensions()));
    judge(&[&signer, &root], Validity::At(NOW))
}

#[track_caller]
fn refused(result: Result<(), String>, why: &str) {
    let said = result.expect_err("it is accepted");
    assert!(said.contains(why), "expected {why}: {said}");
}

#[test]
fn authorities_must_be_authorities() {
    root(order("Root", KIND, ca(Some(0)))).unwrap();
    root(order("Root", KIND, authority(None))).unwrap();
    refused(root(order("Root", KIND, vec![])), "certificate 1 may not issue");
    refused(root(order("Root", KIND, signs_certificates())), "certificate 1 may not issue");
    refused(root(order("Root", KIND, [authority(None), signs_documents()].concat())), "certificate 1 may not issue");
    let no_authority = extension(&[0x55, 0x1d, 0x13], true, &[0x30, 0]);
    refused(root(order("Root", KIND, [no_authority, signs_certificates()].concat())), "certificate 1 may not issue");
    let constraints = extension(&[0x55, 0x1d, 0x1e], true, &[0x30, 0]);
    refused(root(order("Root", KIND, [ca(None), constraints].concat())), "constrains names");
}

#[test]
fn signers_must_be_allowed_to_sign() {
    signer(order("Signer", KIND, signer_extensions())).unwrap();
    // A certificate without extensions is of version 1; it says nothing against signing.
    signer(order("Signer", KIND, vec![])).unwrap();
    refused(signer(order("Signer", KIND, signs_certificates())), "digitalSignature");
    let unknown = extension(&[0x2a, 3], true, &[5, 0]);
    refused(signer(order("Signer", KIND, unknown)), "the critical extension 1.2.3");
    signer(order("Signer", KIND, extension(&[0x2a, 3], false, &[5, 0]))).unwrap();
    refused(signer(order("Signer", KIND, [signs_documents(), signs_documents()].concat())), "is there twice");
}

#[test]
fn names_and_signatures_must_lead_on() {
    let root = issue(None, order("Root", KIND, ca(None)));
    let other = issue(None, order("Root", KIND, ca(None)));
    let signer = issue(Some(&root), order("Signer", KIND, signer_extensions()));
    refused(judge(&[&signer, &other], Validity::At(NOW)), "certificate 0 is not signed by the key of certificate 1");
    let wrong_name = name(&[(&[0x55, 4, 3], "Somebody")]);
    let misnamed = Order { issuer_name: Some(&wrong_name), ..order("Signer", KIND, signer_extensions()) };
    let misnamed = issue(Some(&root), misnamed);
    refused(judge(&[&misnamed, &root], Validity::At(NOW)), "names another issuer");
    // Out of order, something between, nothing.
    refused(judge(&[&root, &signer], Validity::At(NOW)), "may not issue");
    refused(judge(&[&signer, &other, &root], Validity::At(NOW)), "is not signed");
    refused(judge(&[&signer], Validity::At(NOW)), "a chain of 1");
    refused(judge(&[], Validity::At(NOW)), "a chain of 0");
}

#[test]
fn path_lengths_are_kept() {
    let root = issue(None, order("Root", KIND, ca(Some(1))));
    let first = issue(Some(&root), order("First", KIND, ca(None)));
    let second = issue(Some(&first), order("Second", KIND, ca(None)));
    let near = issue(Some(&first), order("Signer", KIND, signer_extensions()));
    let far = issue(Some(&second), order("Signer", KIND, signer_extensions()));
    judge(&[&near, &first, &root], Validity::At(NOW)).unwrap();
    refused(judge(&[&far, &second, &first, &root], Validity::At(NOW)), "certificate 3 allows 1 authorities");
    // A root that is not shown limits nothing; an authority anywhere may end the chain.
    judge(&[&far, &second, &first], Validity::At(NOW)).unwrap();
}

#[test]
fn validity_is_judged_at_the_time_that_is_given() {
    let root = issue(None, Order { until: NOW.plus_seconds(YEAR), ..order("Root", KIND, ca(None)) });
    let short = Order { until: NOW.plus_seconds(60), ..order("Signer", KIND, signer_extensions()) };
    let signer = issue(Some(&root), short);
    let at = |at| judge(&[&signer, &root], Validity::At(at));
    at(NOW.plus_seconds(60)).unwrap();
    at(NOW.minus_seconds(YEAR)).unwrap();
    refused(at(NOW.plus_seconds(61)), "certificate 0 is valid from");
    refused(at(NOW.minus_seconds(YEAR + 1)), "certificate 0 is valid from");
    // For ever, once signed in time; unless an authority ends before its signer.
    judge(&[&signer, &root], Validity::LeafEnd).unwrap();
    let long = Order { until: NOW.plus_seconds(2 * YEAR), ..order("Signer", KIND, signer_extensions()) };
    let outliving = issue(Some(&root), long);
    judge(&[&outliving, &root], Validity::At(NOW)).unwrap();
    refused(judge(&[&outliving, &root], Validity::LeafEnd), "certificate 1 is valid from");
}

#[test]
fn kinds_of_keys_may_differ_along_a_chain() {
    let root = issue(None, order("Root", KeyKind::Rsa, ca(None)));
    let first = issue(Some(&root), order("First", KeyKind::P521, ca(None)));
    let second = issue(Some(&first), order("Second", KeyKind::Ed25519, ca(None)));
    let signer = issue(Some(&second), order("Signer", KeyKind::P256, signer_extensions()));
    judge(&[&signer, &second, &first, &root], Validity::At(NOW)).unwrap();
    assert!(Chain::verify(&P384.ders(), Validity::At(NOW)).is_ok());
}
