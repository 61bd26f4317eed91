use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(value: &Value) -> Result<AppraisalPolicy, AppraisalPolicyError> {
    AppraisalPolicy::parse(value.to_string().as_bytes())
}

#[test]
fn nothing_but_a_format_asks_for_nothing() {
    let policy = parse(&json!({ "format": FORMAT })).unwrap();
    assert_eq!(policy, AppraisalPolicy::default());
}

#[test]
fn toml_says_the_same_as_json() {
    let example: Value = serde_json::from_str(EXAMPLE).unwrap();
    let as_toml = toml::to_string(&example).unwrap();
    assert_eq!(AppraisalPolicy::parse(as_toml.as_bytes()).unwrap(), parse(&example).unwrap(), "{as_toml}");
    let few = "# Ours.\nformat = \"caveau-appraisal-policy/1\"\nprofile = \"baseline\"\n\n[guest]\nleast_svn = 3\n";
    let policy = AppraisalPolicy::parse(few.as_bytes()).unwrap();
    assert_eq!((policy.profile, policy.expectations.least_guest_svn), (Some(Profile::Baseline), Some(3)));
    // As strict as JSON: what is unknown or comes twice is an error.
    for (text, word) in [
        ("format = \"caveau-appraisal-policy/1\"\nsurprise = 1\n", "surprise"),
        ("format = \"caveau-appraisal-policy/1\"\n[guest]\nvmpl = 1\nvmpl = 2\n", "duplicate"),
        ("format = \"caveau-appraisal-policy/1\"\n[guest]\nmeasurement = []\n", "measurement"),
        ("format = \"caveau-appraisal-policy/2\"\n", "use a version of caveau"),
        ("format = caveau", "TOML or JSON"),
    ] {
        let error = crate::causes::with_causes(&AppraisalPolicy::parse(text.as_bytes()).unwrap_err());
        assert!(error.contains(word), "{text}: {error}");
    }
}

/// Paths of all leaves: values that are neither objects nor notes.
fn leaves(value: &Value, path: &str, out: &mut Vec<String>) {
    for (name, below) in value.as_object().unwrap() {
        let path = format!("{path}/{name}");
        match below {
            Value::Object(fields) if !fields.is_empty() => leaves(below, &path, out),
            _ if name == "notes" || name == "format" => {}
            _ => out.push(path),
        }
    }
}

/// So the example has no field without effect, and shows none twice.
#[test]
fn each_field_of_the_example_makes_a_difference() {
    let example: Value = serde_json::from_str(EXAMPLE).unwrap();
    let whole = parse(&example).unwrap();
    let mut paths = Vec::new();
    leaves(&example, "", &mut paths);
    for path in &paths {
        let mut without = example.clone();
        let (parent, name) = path.rsplit_once('/').unwrap();
        without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        assert_ne!(parse(&without).unwrap(), whole, "{path}");
    }
    println!("appraisal policy: {} fields, each with an effect", paths.len());
    assert!(paths.len() >= 35, "{paths:?}");
}

#[test]
fn the_example_leaves_no_expectation_out() {
    let Expectations { report_data, policy_digest, measurements, product_lines, chips, .. } =
        AppraisalPolicy::parse(EXAMPLE.as_bytes()).unwrap().expectations;
    assert!(report_data.is_none(), "the nonce is no standing expectation");
    assert!(policy_digest.is_some() && measurements.is_some());
    assert_eq!(product_lines.unwrap().len(), 3);
    let [whole, turin] = chips.unwrap().try_into().unwrap();
    assert_eq!((whole.0, turin.0[..8].to_vec(), turin.0[8..].to_vec()), ([0x11; 64], vec![0x22; 8], vec![0; 56]));
}

fn did() -> String {
    format!("did:x509:0:sha256:{}::eku:1.2.3", "A".repeat(43))
}

#[test]
fn what_is_not_understood_is_refused() {
    let chip = "0".repeat(128);
    for (fields, said) in [
        (json!({ "profil": "strict" }), "failed to read"),
        (json!({ "profile": "lax" }), "failed to read"),
        (json!({ "product_lines": { "Rome": {} } }), "failed to read"),
        (json!({ "product_lines": { "Milan": { "least_tcb": { "fmc": 1 } } } }), "Milan has no FMC"),
        (json!({ "product_lines": { "Milan": { "least_tcb": { "ucode": 1 } } } }), "failed to read"),
        (json!({ "product_lines": { "Milan": { "least_tcb": { "snp": 256 } } } }), "failed to read"),
        (json!({ "product_lines": { "Milan": { "least_firmware": "1.55" } } }), "\"1.55\" is no version"),
        (json!({ "chips": { "allow": ["11"] } }), "`chips.allow`: `11` is no chip ID"),
        (json!({ "chips": { "deny": [chip] } }), "names no chip"),
        (json!({ "product_lines": { "Milan": { "as_of": "soon" } } }), "no point in time"),
        (json!({ "denied_product_lines": ["Rome"] }), "\"Rome\" is no product line"),
        (json!({ "denied_product_lines": ["Milan"], "product_lines": { "Milan": {} } }), "both among"),
        (json!({ "intel": { "tcb_statuses": ["Fine"] } }), "`Fine` is no TCB status"),
        (json!({ "intel": { "tcb_statuses": ["Revoked"] } }), "never taken"),
        (json!({ "sgx": { "enclaves": [{ "isv_prod_id": 1 }] } }), "an enclave is named by"),
        (json!({ "tdx": { "domains": [{}] } }), "failed to read"),
        (json!({ "azure": { "pcrs": { "24": "1".repeat(64) } } }), "numbered from"),
        (json!({ "firmware": { "mitigations": "one" } }), "`firmware.mitigations`: \"one\" is no number"),
        (json!({ "platform_info": { "required": ["smt"] } }), "`smt` is none of the bits"),
        (json!({ "platform_info": { "required": ["smt_on"], "forbidden": ["smt_on"] } }), "both required and"),
        (json!({ "guest_policy": { "exact": "0x30000", "forbidden": ["smt_allowed"] } }), "contradicts"),
        (json!({ "guest_policy": { "exact": "0x20000", "required": ["smt_allowed"] } }), "contradicts"),
        (json!({ "guest_policy": { "least_abi": "1" } }), "\"1\" is no ABI"),
        (json!({ "guest": { "vmpl": 4 } }), "4 is no privilege level"),
        (json!({ "guest": { "policy_digest": "AA" } }), "failed to read"),
        (json!({ "endorsers": [] }), "names nobody"),
        (json!({ "endorsers": [{ "issuer": did(), "feed": "x" }] }), "failed to read"),
        (json!({ "endorsers": [{ "issuer": "did:web:x", "feed": "x", "least_svn": 1 }] }), "no did:x509"),
        (json!({ "endorsers": [{ "issuer": did(), "feed": "", "least_svn": 1 }] }), "`feed` is empty"),
        (
            json!({ "endorsers": ([1, 2].map(|svn| json!({ "issuer": did(), "feed": "x", "least_svn": svn }))) }),
            "comes twice for \"x\"",
        ),
        (json!({ "format": "caveau-appraisal-policy/2" }), "has format `caveau-appraisal-policy/2`"),
    ] {
        let mut file = json!({ "format": FORMAT });
        file.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let error = parse(&file).unwrap_err().to_string();
        assert!(error.contains(said), "{fields}: {error}");
    }
    let twice = format!(r#"{{"format":"{FORMAT}","provider":"a","provider":"b"}}"#);
    assert!(matches!(AppraisalPolicy::parse(twice.as_bytes()), Err(AppraisalPolicyError::Json(_))));
    let long = vec![b' '; MAX_APPRAISAL_POLICY_BYTES + 1];
    assert!(matches!(AppraisalPolicy::parse(&long), Err(AppraisalPolicyError::TooLong(_))));
}

proptest! {
    #[test]
    fn any_bytes_are_a_policy_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        let _ = AppraisalPolicy::parse(&bytes);
    }

    #[test]
    fn any_text_is_a_chip_or_an_error(text in ".{0,130}") {
        let _ = chip_id(&text);
    }
}
