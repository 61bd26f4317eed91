//! What policies ask for in their `caveau` objects, as far as the gate does it.

use super::{fakes::shown_limits, *};

#[test]
fn network_rules_are_in_force_before_the_policy_is() {
    let rules: NetworkRules = serde_json::from_str(r#"{"listen": [{"protocol": "tcp", "port": 80}]}"#).unwrap();
    let without = Overrides { cap_drop: vec!["NET_RAW".parse().unwrap()], ..Overrides::default() };
    let text = policy_with(without, Some(rules.clone()));
    let mut bench = Bench::launched_with(&text);
    // A guest that cannot keep the rules has no policy, and does nothing.
    locked(&bench.ledger).fails = Some("restrict");
    assert_eq!(bench.set_policy(&text), Err(ErrorKind::Failed));
    assert_eq!(bench.ask(layer(ROOT)), Err(ErrorKind::Invalid));
    locked(&bench.ledger).fails = None;
    bench.set_policy(&text).unwrap();
    assert_eq!(bench.acts(), ["restrict tcp port 80"; 2]);
    // A policy without rules asks for none, one whose container gets round them for no container.
    assert_eq!(Bench::governed().acts(), [""; 0]);
    let text = policy_with(Overrides::default(), Some(rules));
    let mut bench = Bench::launched_with(&text);
    bench.set_policy(&text).unwrap();
    for request in start().into_iter().take(3) {
        bench.ask(request).unwrap();
    }
    assert_eq!(bench.ask(create(|_| {})), Err(ErrorKind::Denied), "it has CAP_NET_RAW");
}

#[test]
fn there_is_no_evidence_before_what_must_run_was_started() {
    let text = policy_with(Overrides { must_run: true, ..Overrides::default() }, None);
    let mut bench = Bench::launched_with(&text);
    bench.set_policy(&text).unwrap();
    let attest = || AgentRequest::Attest { nonce: vec![7; 32].try_into().unwrap() };
    for request in start() {
        assert_eq!(bench.ask(attest()), Err(ErrorKind::Denied), "before {request:?}");
        bench.ask(request).unwrap();
    }
    assert!(matches!(bench.ask(attest()), Ok(AgentReply::Report(_))));
    assert!(matches!(Bench::governed().ask(attest()), Ok(AgentReply::Report(_))), "unless the policy wants it");
}

#[test]
fn the_policys_bounds_are_set_whatever_is_asked() {
    let limits = caveau_group::Limits { memory_bytes: Some(1 << 20), cpu_millis: Some(500), pids: None };
    let text = policy_with(Overrides { limits, ..Overrides::default() }, None);
    for (asked, made) in [
        (Limits::default(), Some(limits)),
        (
            Limits { memory_bytes: Some(4096), cpu_millis: Some(500), pids: Some(3) },
            Some(caveau_group::Limits { memory_bytes: Some(4096), pids: Some(3), ..limits }),
        ),
        (Limits { memory_bytes: Some((1 << 20) + 1), ..Limits::default() }, None),
        (Limits { cpu_millis: Some(501), ..Limits::default() }, None),
    ] {
        let mut bench = Bench::launched_with(&text);
        bench.set_policy(&text).unwrap();
        for request in start().into_iter().take(3) {
            bench.ask(request).unwrap();
        }
        let answer = bench.ask(create(|create| create.limits = asked));
        match made {
            Some(made) => assert_eq!(bench.acts().last().unwrap(), &format!("create {}", shown_limits(made))),
            None => assert_eq!(answer, Err(ErrorKind::Denied)),
        }
    }
}
