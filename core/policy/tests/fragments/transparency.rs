//! Receipts of ledgers, and the lists that bring their keys.

use super::*;

#[test]
fn required_receipts_must_be_there_and_vouched_for() {
    let lists = json!([
        {"issuer": ISSUER, "subject": "a", "minimum_svn": 1, "allowed_ledgers": ["one.example"]},
        {"issuer": ISSUER, "subject": "b", "minimum_svn": 1, "allowed_ledgers": ["*"]},
    ]);
    for (required, loaded, receipts, allowed) in [
        (json!([]), vec![], vec![], true),
        (json!(["*"]), vec![("a", "one.example")], vec![], false),
        (json!(["*"]), vec![("a", "one.example")], vec!["one.example"], true),
        (json!(["*"]), vec![], vec!["one.example"], false),
        (json!(["one.example"]), vec![("b", "one.example")], vec!["one.example"], true),
        (json!(["one.example"]), vec![("b", "two.example")], vec!["two.example"], false),
        (json!(["TTL:a"]), vec![("b", "one.example")], vec!["one.example"], false),
        (json!(["TTL:a"]), vec![("a", "one.example")], vec!["one.example"], true),
        (json!(["TTL:a", "TTL:b"]), vec![("a", "one.example")], vec!["one.example"], false),
        (json!(["TTL:a", "TTL:b"]), vec![("a", "one.example"), ("b", "one.example")], vec!["one.example"], true),
        (json!(["one.example", "two.example"]), vec![("b", "one.example")], vec!["one.example", "two.example"], false),
    ] {
        let rules = json!([rule(json!({"required_receipts": required}))]);
        let mut engine = enforcer(&policy(&[("fragments", rules), ("transparency_trust_lists", lists.clone())]));
        for (subject, ledger) in loaded {
            let granted = engine.load_transparency_trust_list(&list(subject, 1, keys(ledger, 1)));
            done(&mut engine, granted);
        }
        match engine.load_fragment(&with_receipts(&receipts)) {
            Ok(_) => assert!(allowed, "{required}"),
            Err(denial) => assert!(!allowed && denial.reasons[0].field == Field::Receipts, "{required}: {denial}"),
        }
    }
}

#[test]
fn a_trust_list_brings_only_the_ledgers_that_the_policy_allows() {
    let rules = json!([{"issuer": ISSUER, "subject": "a", "minimum_svn": 2, "allowed_ledgers": ["one.example"]}]);
    let mut engine = enforcer(&policy(&[("transparency_trust_lists", rules)]));
    let mut both = keys("one.example", 1);
    both.extend(keys("two.example", 2));
    for (expected, request) in [
        (Field::Svn, list("a", 1, both.clone())),
        (Field::Issuer, list("b", 2, both.clone())),
        (Field::Issuer, request::LoadTrustList { issuer: "other".to_owned(), ..list("a", 2, both.clone()) }),
        (Field::Ledgers, list("a", 2, keys("two.example", 2))),
        (Field::Ledgers, list("a", 2, LedgerKeys::new())),
    ] {
        assert_eq!(field(engine.load_transparency_trust_list(&request)), expected, "{request:?}");
    }
    let granted = engine.load_transparency_trust_list(&list("a", 2, both.clone())).unwrap();
    assert_eq!(granted.permit.ledgers, ["one.example"]);
    enforcer_keeps_nothing(&mut engine, granted);
    let granted = engine.load_transparency_trust_list(&list("a", 2, both));
    done(&mut engine, granted);
    assert_eq!(engine.ledger_keys("one.example").unwrap()[b"kid".as_slice()].key, [1]);
    assert!(engine.ledger_keys("two.example").is_none());
    // As many keys as are sensible.
    let many = (0..5000_u32).map(|number| (number.to_be_bytes().to_vec(), vec![1])).collect();
    let request = list("a", 2, [("one.example".to_owned(), many)].into());
    assert_eq!(field(engine.load_transparency_trust_list(&request)), Field::Ledgers);
}

/// What failed leaves no keys.
fn enforcer_keeps_nothing<T>(engine: &mut Enforcer, granted: Granted<T>) {
    engine.settle(granted.pending, Outcome::Failed);
    assert!(engine.ledger_keys("one.example").is_none());
}
