//! Revocation lists from several hands: whoever is judged does not choose which one counts.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::slice::from_ref;

use crate::processor::{ONE, OTHER, Persona, made, now};
use caveau_emulated::judge;
use caveau_evidence::{Evidence, Expectations, OwnLists, Profile, Timestamp};
use caveau_snp::build::ASK_SERIAL;

const DAY: u64 = 24 * 3600;

/// A list of the root that is in force for a year.
fn list(number: u64, revoked: &[u64]) -> Vec<u8> {
    ONE.list(number, made().plus_seconds(365 * DAY), revoked)
}

/// A list that was in force for an hour.
fn past(number: u64) -> Vec<u8> {
    ONE.list(number, made().minus_seconds(1), &[])
}

/// Evidence with this list.
fn with(offered: Option<Vec<u8>>) -> Evidence {
    let mut evidence = ONE.evidence(&Persona::software(5));
    evidence.certificates.crl = offered;
    evidence
}

/// The number of the list that counted, or the code of what is wrong.
fn judged_at(offered: Option<Vec<u8>>, given: &[Vec<u8>], kept: &[Vec<u8>], at: Timestamp) -> Result<u64, String> {
    let mut evidence = with(offered);
    let least_crl_number = evidence.certificates.choose_list(&OwnLists { given, kept }, at);
    let expected = Expectations { least_crl_number, ..Expectations::default() };
    let appraisal = judge(&[ONE.root()], &evidence, &expected, Profile::Strict, at);
    match appraisal.first_failure() {
        Some(code) => Err(code.to_owned()),
        None => Ok(appraisal.claims.unwrap().endorsement.revocation_list.unwrap().number),
    }
}

fn judged(offered: Option<Vec<u8>>, given: &[Vec<u8>], kept: &[Vec<u8>]) -> Result<u64, String> {
    judged_at(offered, given, kept, now())
}

fn refused(code: &str) -> Result<u64, String> {
    Err(code.to_owned())
}

#[test]
fn an_older_list_in_the_evidence_hides_no_newer_one_of_the_owner() {
    let revoking = || list(8, &[ASK_SERIAL]);
    assert_eq!(judged(Some(list(7, &[])), &[], &[]), Ok(7), "without a list of the owner's there is no better one");
    for offered in [Some(list(7, &[])), Some(past(7)), Some(past(9)), Some(b"no list".to_vec()), None] {
        assert_eq!(judged(offered.clone(), &[], &[revoking()]), refused("intermediate-revoked"));
        assert_eq!(judged(offered.clone(), &[revoking()], &[]), refused("intermediate-revoked"));
        assert_eq!(judged(offered, &[], &[list(8, &[])]), Ok(8));
    }
}

#[test]
fn a_newer_list_in_the_evidence_counts_before_an_older_one_of_the_owner() {
    assert_eq!(judged(Some(list(9, &[])), &[], &[list(8, &[])]), Ok(9));
    assert_eq!(judged(Some(list(9, &[])), &[list(8, &[])], &[]), Ok(9));
    assert_eq!(judged(Some(list(9, &[ASK_SERIAL])), &[], &[list(8, &[])]), refused("intermediate-revoked"));
    assert_eq!(judged(Some(list(9, &[])), &[list(6, &[])], &[list(8, &[])]), Ok(9));
}

/// The list for the other kind of key has the same form and signer, and may have any number.
#[test]
fn a_higher_number_hides_no_revocation() {
    assert_eq!(judged(Some(list(70, &[])), &[], &[list(8, &[ASK_SERIAL])]), refused("intermediate-revoked"));
    assert_eq!(judged(Some(list(8, &[ASK_SERIAL])), &[list(70, &[])], &[]), refused("intermediate-revoked"));
}

#[test]
fn a_list_with_a_lower_number_than_the_owner_has_seen_is_a_rollback() {
    assert_eq!(judged(Some(list(7, &[])), &[], &[past(8)]), refused("crl-rollback"));
    assert_eq!(judged(Some(list(7, &[])), &[past(8)], &[]), refused("crl-rollback"));
    assert_eq!(judged(Some(list(8, &[])), &[], &[past(8)]), Ok(8));
    // Judged as of then, what was made later was not seen.
    let later = made().minus_seconds(3600 + 1);
    assert_eq!(judged_at(Some(list(7, &[])), &[], &[list(8, &[])], later), refused("cert-validity"));
    let mut evidence = with(None);
    assert_eq!(evidence.certificates.choose_list(&OwnLists { given: &[], kept: &[list(8, &[])] }, later), 0);
}

#[test]
fn lists_of_nobody_do_not_count() {
    let foreign = OTHER.list(99, made().plus_seconds(365 * DAY), &[]);
    let mut forged = list(99, &[]);
    *forged.last_mut().unwrap() ^= 1;
    for nobodys in [foreign, forged, b"garbage".to_vec()] {
        assert_eq!(judged(Some(list(7, &[])), &[], from_ref(&nobodys)), Ok(7));
        assert_eq!(judged(Some(nobodys.clone()), &[], &[list(7, &[])]), Ok(7));
        assert_eq!(judged(Some(list(7, &[])), from_ref(&nobodys), &[]), Ok(7));
        // Alone, what was given or came along is told, and what was kept is passed over.
        assert!(judged(None, from_ref(&nobodys), &[]).is_err_and(|code| code != "crl-missing"));
        assert!(judged(Some(nobodys.clone()), &[], &[]).is_err_and(|code| code != "crl-missing"));
        assert_eq!(judged(None, &[], from_ref(&nobodys)), refused("crl-missing"));
        assert!(!with(None).certificates.may_replace_list(&nobodys, &list(1, &[])));
        assert!(with(None).certificates.may_replace_list(&list(1, &[]), &nobodys));
    }
    assert_eq!(judged(None, &[], &[past(7)]), refused("crl-missing"));
    assert_eq!(judged(None, &[past(7)], &[]), refused("crl-stale"));
    assert!(!with(None).certificates.may_replace_list(&list(7, &[]), &list(8, &[])));
    assert!(with(None).certificates.may_replace_list(&list(8, &[]), &list(8, &[])));
}
