//! Fragments and trust lists, as the guest loads them: what counts once one is loaded, and every lie denied.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test may fail loudly")]

use caveau_policy::{
    Denial, Enforcer, Field, Granted, HostData, LedgerKeys, Outcome, Platform, Point, PolicyDecision, PolicyDigest,
    Session, open_points, request,
};
use serde_json::{Value, json};

mod transparency;

const ISSUER: &str = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.3";
const FEED: &str = "registry.example/sidecars";
const LAYER: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// A policy with these top-level objects, every point left to the framework.
fn policy(objects: &[(&str, Value)]) -> String {
    let mut text = String::from("package policy\n\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\n");
    objects.iter().for_each(|(name, value)| text.push_str(&format!("{name} := {value}\n")));
    Point::ALL.iter().for_each(|point| text.push_str(&format!("{point} := data.framework.{point}\n")));
    text
}

fn enforcer(text: &str) -> Enforcer {
    Enforcer::new(text, &HostData::new(*PolicyDigest::of(text).as_bytes())).unwrap()
}

/// A rule for the fragment of these tests.
fn rule(more: Value) -> Value {
    let mut rule = json!({"issuer": ISSUER, "feed": FEED, "minimum_svn": "2", "includes": ["containers", "fragments"]});
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rule
}

fn with_rule(more: Value) -> Enforcer {
    enforcer(&policy(&[("fragments", json!([rule(more)]))]))
}

fn container(command: &str, env_rules: &str) -> String {
    format!(
        "{{\"command\": {command}, \"env_rules\": {env_rules}, \"layers\": [\"{LAYER}\"], \"mounts\": [], \
         \"allow_elevated\": false, \"working_dir\": \"/\", \"exec_processes\": [], \"signals\": [], \
         \"user\": {{\"umask\": \"0022\", \"user_idname\": {{\"pattern\": \"\", \"strategy\": \"any\"}}, \
         \"group_idnames\": [{{\"pattern\": \"\", \"strategy\": \"any\"}}]}}, \"capabilities\": null, \
         \"seccomp_profile_sha256\": \"\", \"allow_stdio_access\": true, \"no_new_privileges\": false, \
         \"caveau\": {{\"max_starts\": 1}}}}"
    )
}

fn text(more: &str) -> String {
    format!("package sidecars\nsvn := \"2\"\nframework_version := \"0.5.0\"\n{more}\n")
}

fn sidecar() -> String {
    text(&format!("containers := [{}]", container("[\"serve\"]", "[]")))
}

fn load(text: impl Into<String>) -> request::LoadFragment {
    request::LoadFragment {
        issuer: ISSUER.to_owned(),
        feed: FEED.to_owned(),
        header_svn: None,
        receipts: Vec::new(),
        text: text.into(),
    }
}

fn keys(ledger: &str, key: u8) -> LedgerKeys {
    [(ledger.to_owned(), [(b"kid".to_vec(), vec![key])].into())].into()
}

fn list(subject: &str, svn: i64, ledgers: LedgerKeys) -> request::LoadTrustList {
    request::LoadTrustList { issuer: ISSUER.to_owned(), subject: subject.to_owned(), svn, ledgers }
}

fn with_receipts(ledgers: &[&str]) -> request::LoadFragment {
    let receipt = |ledger: &&str| request::Receipt { ledger: (*ledger).to_owned(), key_id: b"kid".to_vec() };
    request::LoadFragment { receipts: ledgers.iter().map(receipt).collect(), ..load(sidecar()) }
}

fn done<T>(enforcer: &mut Enforcer, granted: Result<Granted<T>, Denial>) {
    enforcer.settle(granted.unwrap().pending, Outcome::Done);
}

fn load_now(enforcer: &mut Enforcer, request: &request::LoadFragment) {
    let granted = enforcer.load_fragment(request);
    done(enforcer, granted);
}

/// The field of a denial's only reason.
fn field<T>(answer: Result<T, Denial>) -> Field {
    let denial = answer.err().unwrap();
    assert_eq!(denial.reasons.len(), 1, "{denial}");
    denial.reasons[0].field
}

fn layer() -> request::MountDevice {
    request::MountDevice { target: Platform::layer_target(0), device_hash: LAYER.to_owned() }
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// Mounts a container's layer, if it is not, and its overlay.
fn mount(enforcer: &mut Enforcer, id: &str) {
    if let Ok(granted) = enforcer.mount_device(&layer()) {
        enforcer.settle(granted.pending, Outcome::Done);
    }
    let (target, layer_paths) = (Platform::overlay_target(id), vec![Platform::layer_target(0)]);
    let granted = enforcer.mount_overlay(&request::MountOverlay { container_id: id.to_owned(), layer_paths, target });
    done(enforcer, granted);
}

fn create(id: &str, command: &[&str], env: &[&str]) -> request::CreateContainer {
    let strings = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    let names: Vec<String> = caveau_group::Capability::docker_defaults().map(|c| c.name().to_owned()).collect();
    request::CreateContainer {
        container_id: id.to_owned(),
        arg_list: strings(command),
        env_list: strings(env),
        working_dir: "/".to_owned(),
        mounts: Vec::new(),
        devices: Vec::new(),
        privileged: false,
        no_new_privileges: false,
        user: request::IdName { id: "0".to_owned(), name: "root".to_owned() },
        groups: Vec::new(),
        umask: "0022".to_owned(),
        capabilities: request::Capabilities {
            ambient: Vec::new(),
            bounding: names.clone(),
            effective: names.clone(),
            inheritable: Vec::new(),
            permitted: names,
        },
        seccomp_profile_sha256: String::new(),
        read_only_root: false,
        limits: caveau_group::Limits::default(),
    }
}

#[test]
fn a_fragments_container_runs_once_it_is_loaded() {
    let mut enforcer = with_rule(json!({}));
    assert_eq!(field(enforcer.mount_device(&layer())), Field::RootHash);
    let granted = enforcer.load_fragment(&load(sidecar())).unwrap();
    assert_eq!((granted.permit.namespace.as_str(), granted.permit.feed.as_str()), ("sidecars", FEED));
    // Nothing has changed yet, and nothing else is decided until this is settled.
    assert_eq!(field(enforcer.load_fragment(&load(sidecar()))), Field::State);
    enforcer.settle(granted.pending, Outcome::Failed);
    assert_eq!(field(enforcer.mount_device(&layer())), Field::RootHash);
    load_now(&mut enforcer, &load(sidecar()));
    mount(&mut enforcer, &id('a'));
    assert_eq!(field(enforcer.create_container(&create(&id('a'), &["sh"], &[]))), Field::Command);
    let granted = enforcer.create_container(&create(&id('a'), &["serve"], &[])).unwrap();
    assert!(granted.permit.stdio);
    enforcer.settle(granted.pending, Outcome::Done);
}

/// What the host is told in the reference's form.
fn reference_words(denial: &Denial) -> String {
    PolicyDecision::find(&denial.policy_decision()).unwrap().to_string()
}

#[test]
fn no_edit_of_the_policy_is_told_for_a_fragments_container() {
    let mut enforcer = with_rule(json!({}));
    load_now(&mut enforcer, &load(sidecar()));
    mount(&mut enforcer, &id('a'));
    let denial = enforcer.create_container(&create(&id('a'), &["sh"], &[])).unwrap_err();
    assert_eq!((denial.candidates.len(), denial.change), (1, None), "the document has no container to be edited");
    let other = request::MountDevice { target: Platform::layer_target(1), device_hash: "2".repeat(64) };
    let denial = enforcer.mount_device(&other).unwrap_err();
    assert_eq!((denial.candidates.len(), denial.change.clone()), (1, None));
    let reason = reference_words(&denial);
    assert!(reason.contains("deviceHash not found"), "{reason}");
    let again = request::MountDevice { target: Platform::layer_target(0), device_hash: LAYER.to_owned() };
    let reason = reference_words(&enforcer.mount_device(&again).unwrap_err());
    assert!(reason.contains("already mounted") && !reason.contains("deviceHash not found"), "{reason}");
}

#[test]
fn edits_of_the_policys_own_containers_are_tried_beside_fragments() {
    let own: Value = serde_json::from_str(&container("[\"mine\"]", "[]")).unwrap();
    let mut enforcer = enforcer(&policy(&[("containers", json!([own])), ("fragments", json!([rule(json!({}))]))]));
    load_now(&mut enforcer, &load(sidecar()));
    let other = request::MountDevice { target: Platform::layer_target(1), device_hash: "2".repeat(64) };
    let change = enforcer.mount_device(&other).unwrap_err().change.unwrap();
    assert_eq!(change.to_string(), format!("set containers[0].layers[0] := \"{}\"", "2".repeat(64)));
}

#[test]
fn what_is_loaded_is_recorded_and_can_be_asked_again() {
    let lists = json!([{"issuer": ISSUER, "subject": "a", "minimum_svn": 1, "allowed_ledgers": ["*"]}]);
    let rules = json!([rule(json!({"required_receipts": ["*"]}))]);
    let text = policy(&[("fragments", rules), ("transparency_trust_lists", lists)]);
    let mut engine = enforcer(&text);
    engine.keep_requests();
    assert!(engine.load_fragment(&with_receipts(&["one.example"])).is_err());
    let granted = engine.load_transparency_trust_list(&list("a", 1, keys("one.example", 1)));
    done(&mut engine, granted);
    load_now(&mut engine, &with_receipts(&["one.example"]));
    mount(&mut engine, &id('a'));
    let kept = engine.take_requests().requests;
    let shown: Vec<_> = kept.iter().map(|r| (r.asked.point, r.allowed, r.done, r.denial.is_some())).collect();
    let expected = [
        (Point::LoadFragment, false, false, true),
        (Point::LoadTransparencyTrustList, true, true, false),
        (Point::LoadFragment, true, true, false),
        (Point::MountDevice, true, true, false),
        (Point::MountOverlay, true, true, false),
    ];
    assert_eq!(shown, expected);
    let mut session = Session::new(&text).unwrap();
    for recorded in kept {
        let answer = session.ask(&recorded.asked, Outcome::Done).unwrap();
        assert_eq!(answer.is_ok(), recorded.allowed, "{}", recorded.asked.point);
    }
}

#[test]
fn loading_it_again_does_not_start_it_again() {
    let mut enforcer = with_rule(json!({}));
    load_now(&mut enforcer, &load(sidecar()));
    mount(&mut enforcer, &id('a'));
    let granted = enforcer.create_container(&create(&id('a'), &["serve"], &[]));
    done(&mut enforcer, granted);
    load_now(&mut enforcer, &load(sidecar()));
    mount(&mut enforcer, &id('b'));
    let denial = enforcer.create_container(&create(&id('b'), &["serve"], &[])).unwrap_err();
    assert!(denial.reasons.iter().all(|reason| reason.field == Field::Starts), "{denial}");
}

#[test]
fn who_what_and_which_version_must_be_the_rules() {
    let mut enforcer = with_rule(json!({}));
    let good = load(sidecar());
    let other = |change: &dyn Fn(&mut request::LoadFragment)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (expected, request) in [
        (Field::Issuer, other(&|request| request.issuer = "did:x509:0:sha256:other".to_owned())),
        (Field::Feed, other(&|request| request.feed = "other".to_owned())),
        (Field::Svn, other(&|request| request.header_svn = Some(1))),
        (Field::Svn, other(&|request| request.header_svn = Some(3))),
        (Field::Svn, other(&|request| request.text = sidecar().replace("svn := \"2\"", "svn := 1"))),
        (Field::Svn, other(&|request| request.text = sidecar().replace("svn := \"2\"", "svn := \"2.0.0\""))),
        (Field::Svn, other(&|request| request.text = sidecar().replace("svn := \"2\"", "svn := [2]"))),
        (Field::Svn, other(&|request| request.text = sidecar().replace("svn := \"2\"", ""))),
        (Field::FrameworkVersion, other(&|request| request.text = sidecar().replace("\"0.5.0\"", "\"0.6.0\""))),
        (Field::FrameworkVersion, other(&|request| request.text = sidecar().replace("\"0.5.0\"", "5"))),
        (Field::FrameworkVersion, other(&|request| request.text = sidecar().replace("framework_version", "version"))),
        (Field::Fragment, other(&|request| request.text = text("containers := ["))),
        (Field::Fragment, other(&|request| request.text = text("containers := {\"a\": 1}"))),
        (Field::Fragment, other(&|request| request.text = text("containers := [1]"))),
        (Field::Fragment, other(&|request| request.text = text("containers := 1\ncontainers := 2"))),
        (Field::Fragment, other(&|request| request.text = text(&"[".repeat(10_000)))),
        (Field::Fragment, other(&|request| request.text = text("data.framework.mount_device := {\"allowed\": true}"))),
        (Field::Fragment, other(&|request| request.text = " ".repeat(caveau_policy::MAX_TEXT + 1))),
        (Field::Namespace, other(&|request| request.text = sidecar().replace("sidecars", "framework"))),
        (Field::Namespace, other(&|request| request.text = sidecar().replace("sidecars", "Policy"))),
        (Field::Namespace, other(&|request| request.text = format!("\n{}", sidecar()))),
    ] {
        assert_eq!(field(enforcer.load_fragment(&request)), expected, "{request:?}");
    }
    assert_eq!(field(enforcer.mount_device(&layer())), Field::RootHash);
    for (header_svn, text) in [
        (Some(2), sidecar()),
        (Some(7), sidecar().replace("svn := \"2\"", "")),
        (None, sidecar().replace("svn := \"2\"", "svn := 3")),
    ] {
        let granted = enforcer.load_fragment(&request::LoadFragment { header_svn, ..load(text) });
        done(&mut enforcer, granted);
    }
    assert!(enforcer.mount_device(&layer()).is_ok());
}

#[test]
fn a_policy_that_is_older_or_says_nothing_loads_none() {
    let text = policy(&[]);
    assert_eq!(field(enforcer(&text).load_fragment(&load(sidecar()))), Field::Issuer);
    let text = policy(&[("fragments", json!([rule(json!({}))]))]);
    let text = text.replace("load_fragment := data.framework.load_fragment\n", "");
    assert_eq!(field(enforcer(&text).load_fragment(&load(sidecar()))), Field::Policy);
    let older = text.replace("api_version := \"0.12.0\"", "api_version := \"0.8.0\"");
    assert_eq!(field(enforcer(&older).load_fragment(&load(sidecar()))), Field::Policy);
}

#[test]
fn only_what_the_rule_includes_counts() {
    let brings = text(&format!(
        "containers := [{}]\nexternal_processes := [{{\"command\": [\"ps\"], \"env_rules\": [], \"working_dir\": \"/\", \
         \"allow_stdio_access\": false}}]\nfragments := [{{\"issuer\": \"other\", \"feed\": \"f\", \"minimum_svn\": 1, \
         \"includes\": []}}]",
        container("[\"serve\"]", "[]")
    ));
    let nested = request::LoadFragment { issuer: "other".to_owned(), feed: "f".to_owned(), ..load(text("")) };
    let nested = request::LoadFragment { text: nested.text.replace("sidecars", "nested"), ..nested };
    for include in ["containers", "fragments", "external_processes", "namespace", "unknown"] {
        let mut enforcer = with_rule(json!({"includes": [include]}));
        load_now(&mut enforcer, &load(brings.clone()));
        assert_eq!(enforcer.mount_device(&layer()).is_ok(), include == "containers", "{include}");
        let mut enforcer = with_rule(json!({"includes": [include]}));
        load_now(&mut enforcer, &load(brings.clone()));
        assert_eq!(enforcer.load_fragment(&nested).is_ok(), include == "fragments", "{include}");
    }
    let mut unsaid = rule(json!({}));
    unsaid.as_object_mut().unwrap().remove("includes");
    let mut enforcer = enforcer(&policy(&[("fragments", json!([unsaid]))]));
    assert_eq!(field(enforcer.load_fragment(&load(brings))), Field::Policy);
}

#[test]
fn rules_that_include_different_things_decide_nothing() {
    let rules = json!([rule(json!({})), rule(json!({"includes": ["containers"]}))]);
    let mut enforcer = enforcer(&policy(&[("fragments", rules)]));
    assert_eq!(field(enforcer.load_fragment(&load(sidecar()))), Field::Policy);
}

#[test]
fn each_set_of_parameters_is_a_container_of_its_own() {
    let rules = json!([rule(json!({"parameters": {"mode": "fast"}})), rule(json!({"parameters": {"mode": "safe"}}))]);
    let mut engine = enforcer(&policy(&[("fragments", rules)]));
    let env = "[{\"pattern\": sprintf(\"MODE=%s\", [parameter(\"mode\")]), \"strategy\": \"string\", \"required\": true},\
               {\"pattern\": parameter(\"level\"), \"strategy\": \"string\", \"required\": true}]";
    let api =
        "parameters_api := {\"mode\": {\"default\": \"slow\"}, \"level\": {\"default\": \"LEVEL=1\"}, \"free\": {}}";
    let brings = text(&format!("{api}\ncontainers := [{}]", container("[\"serve\"]", env)));
    load_now(&mut engine, &load(brings.clone()));
    mount(&mut engine, &id('a'));
    let denial = engine.create_container(&create(&id('a'), &["serve"], &["MODE=slow", "LEVEL=1"])).unwrap_err();
    assert!(denial.reasons.iter().all(|reason| reason.field == Field::Env));
    for (digit, mode) in [('a', "MODE=fast"), ('b', "MODE=safe")] {
        if digit != 'a' {
            mount(&mut engine, &id(digit));
        }
        let granted = engine.create_container(&create(&id(digit), &["serve"], &[mode, "LEVEL=1"]));
        done(&mut engine, granted);
    }
    // A parameter with neither value nor default leaves what needs it out.
    let mut engine = with_rule(json!({}));
    load_now(&mut engine, &load(brings.replace("parameter(\"level\")", "parameter(\"free\")")));
    assert_eq!(field(engine.mount_device(&layer())), Field::RootHash);
    // What a rule gives need not be a text, and cannot leave its place.
    let mut engine = with_rule(json!({"parameters": {"mode": "\"}\ndata := {}\n#", "level": "LEVEL=2"}}));
    load_now(&mut engine, &load(brings.clone()));
    mount(&mut engine, &id('c'));
    let env = ["MODE=\"}\ndata := {}\n#", "LEVEL=2"];
    assert!(engine.create_container(&create(&id('c'), &["serve"], &env)).is_ok());
    // Parameters are objects, and not without bound.
    assert_eq!(field(with_rule(json!({"parameters": ["x"]})).load_fragment(&load(brings.clone()))), Field::Fragment);
    let many: Vec<_> = (0..65).map(|number| rule(json!({"parameters": {"mode": number}}))).collect();
    let mut engine = enforcer(&policy(&[("fragments", json!(many))]));
    assert_eq!(field(engine.load_fragment(&load(brings))), Field::Fragment);
}

#[test]
fn a_nested_fragment_gets_what_the_one_before_gives() {
    let mut engine = with_rule(json!({"parameters": {"mode": "fast"}}));
    let first = text(
        "fragments := [{\"issuer\": \"other\", \"feed\": \"f\", \"minimum_svn\": \"1\", \"includes\": [\"containers\"], \
         \"parameters\": {\"command\": [\"serve\", parameter(\"mode\")]}}]",
    );
    let second = text(&format!("containers := [{}]", container("parameter(\"command\")", "[]")));
    let second = load(second.replace("sidecars", "nested"));
    let second = request::LoadFragment { issuer: "other".to_owned(), feed: "f".to_owned(), ..second };
    assert_eq!(field(engine.load_fragment(&second)), Field::Issuer);
    load_now(&mut engine, &load(first));
    load_now(&mut engine, &second);
    mount(&mut engine, &id('a'));
    assert_eq!(field(engine.create_container(&create(&id('a'), &["serve", "slow"], &[]))), Field::Command);
    assert!(engine.create_container(&create(&id('a'), &["serve", "fast"], &[])).is_ok());
}

#[test]
fn platforms_are_added_to_containers_of_policy_and_fragments() {
    let mut engine = with_rule(json!({"includes": ["containers", "platform_rules"]}));
    load_now(&mut engine, &load(sidecar()));
    let rules = "platform_rules := [{\"env_rules\": [{\"name\": \"FABRIC_.+\", \"name_strategy\": \"re2\", \
                 \"value\": \".*\", \"value_strategy\": \"re2\"}], \"mounts\": []}]";
    load_now(&mut engine, &load(text(rules)));
    mount(&mut engine, &id('a'));
    let denial = engine.create_container(&create(&id('a'), &["serve"], &["OTHER_NODE=1"])).unwrap_err();
    assert!(denial.reasons.iter().all(|reason| reason.field == Field::Env));
    assert!(engine.create_container(&create(&id('a'), &["serve"], &["FABRIC_NODE=1"])).is_ok());
    // An older framework did not know them.
    let mut engine = with_rule(json!({"includes": ["containers", "platform_rules"]}));
    load_now(&mut engine, &load(sidecar()));
    load_now(&mut engine, &load(text(rules).replace("0.5.0", "0.4.1")));
    mount(&mut engine, &id('a'));
    assert!(engine.create_container(&create(&id('a'), &["serve"], &["FABRIC_NODE=1"])).is_err());
}

/// A hand-written policy that leaves layers to a fragment's own rule.
const BY_HAND: &str = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
    default load_fragment := {\"allowed\": false}\n\
    load_fragment := {\"allowed\": true, \"add_module\": true} if { input.issuer == \"me\"; not input.fragment_loaded }\n\
    load_fragment := {\"allowed\": true, \"add_module\": true} if { input.issuer == \"me\"; input.fragment_loaded\n\
      data[input.namespace].svn >= 2 }\n\
    mount_device := data.lib.mount_device\n";

#[test]
fn a_fragment_whose_rules_stay_answers_for_the_policy() {
    let mut engine = enforcer(BY_HAND);
    let lib = |svn: u32, hash: &str| request::LoadFragment {
        issuer: "me".to_owned(),
        ..load(format!("package lib\nsvn := {svn}\nmount_device := {{\"allowed\": input.deviceHash == \"{hash}\"}}\n"))
    };
    assert_eq!(field(engine.mount_device(&layer())), Field::Policy);
    assert_eq!(field(engine.load_fragment(&lib(1, LAYER))), Field::Policy);
    load_now(&mut engine, &lib(2, LAYER));
    let granted = engine.mount_device(&layer());
    done(&mut engine, granted);
    // Another fragment cannot take its place, a later one of the same feed can.
    let other = request::LoadFragment { feed: "other".to_owned(), ..lib(9, LAYER) };
    assert_eq!(field(engine.load_fragment(&other)), Field::Namespace);
    load_now(&mut engine, &lib(3, "00"));
    let request = request::MountDevice { target: Platform::layer_target(1), ..layer() };
    assert_eq!(field(engine.mount_device(&request)), Field::Policy);
    // With several sets of parameters it would be several.
    let text = BY_HAND.replace("{\"allowed\": true,", "{\"allowed\": true, \"parameters\": [{\"a\": 1}, {\"a\": 2}],");
    assert_eq!(field(enforcer(&text).load_fragment(&lib(2, LAYER))), Field::Namespace);
}

#[test]
fn loading_without_end_is_denied() {
    let mut engine = with_rule(json!({}));
    let empty = load(text(""));
    for _ in 0..256 {
        load_now(&mut engine, &empty);
    }
    assert_eq!(field(engine.load_fragment(&empty)), Field::State);
}

#[test]
fn what_fragments_leave_open_is_said() {
    let lists = json!([{"issuer": "him", "subject": "a", "minimum_svn": 2, "allowed_ledgers": ["one.example"]}]);
    let text = policy(&[("fragments", json!([rule(json!({}))])), ("transparency_trust_lists", lists)]);
    let points = open_points(enforcer(&text).policy()).join("\n");
    assert!(points.contains(ISSUER) && points.contains(FEED) && points.contains("containers, fragments"));
    assert!(points.contains("him") && points.contains("one.example"));
}
