//! Recorded quotes with their collateral.

use caveau_evidence::Timestamp;
use caveau_evidence::dcap::Collateral;

use super::{Comparison, under_intel};
use crate::fixtures::Fixtures;

#[test]
fn recorded_quotes() {
    let Some(fixtures) = Fixtures::open() else { return };
    let mut comparison = Comparison::under_intel(&[], &[]);
    for case in fixtures.cases("dcap") {
        let text = |field: &str| case[field].as_str().unwrap();
        let quote = fixtures.read(text("quote"));
        let json = fixtures.read(text("collateral"));
        let at = Timestamp::from_unix(case["unix_time"].as_u64().unwrap());
        let ours = under_intel(&quote, &Collateral::parse(&json).unwrap(), at);
        let collateral = serde_json::from_slice(&json).unwrap();
        comparison.hold(&text("id"), "recorded", ours, (&quote, &collateral, at));
    }
    assert!(comparison.ledger.accepted() >= 2);
    comparison.close("recorded quotes");
}
