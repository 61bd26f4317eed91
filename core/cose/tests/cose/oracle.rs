//! Envelopes of an independent implementation (Python's `cryptography` and `cbor2`) are read, and it reads ours.

use std::io::Write as _;
use std::process::{Command, Stdio};

use caveau_cose::{Algorithm, ContentType, DidX509, Form, KeyKind, VerifiedEnvelope};
use serde_json::Value;

use crate::support::{BY_LEAF, Chain, FEED, NOW, draft};

/// What the oracle prints, by line; `None`, and said so, where its Python is not there.
fn oracle(act: &str, input: String) -> Option<Vec<Value>> {
    let python = std::env::var("CAVEAU_ORACLES_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import cbor2, cryptography"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        println!("skipped: no Python with cbor2 and cryptography (name it in CAVEAU_ORACLES_PYTHON)");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cose/oracle.py");
    let mut command = Command::new(python);
    command.args([script, act]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "the oracle refuses");
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn envelopes_of_another_implementation_are_read() {
    let Some(lines) = oracle("make", String::new()) else { return };
    for line in &lines {
        let text = |name: &str| line[name].as_str().unwrap();
        let (form, what) = (text("form"), format!("{} {} {}", text("algorithm"), text("form"), text("issuer")));
        let bytes = hex::decode(text("envelope")).unwrap();
        let verified = VerifiedEnvelope::open(&bytes, &BY_LEAF).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(verified.header().algorithm.name(), text("algorithm"));
        assert_eq!((verified.issuer().as_str(), verified.feed()), (text("issuer"), "tests/feed"), "{what}");
        assert_eq!(verified.content_type(), Some(ContentType::Text("text/plain")));
        assert_eq!(verified.svn(), (form == "claims").then_some(7), "{what}");
        assert_eq!(verified.header().signing_time, Some(NOW), "{what}");
        assert_eq!(verified.payload(), format!("{}, {form}", text("algorithm")).as_bytes());
        assert!(verified.header().thumbprint.is_some() && verified.chain().certificates().len() == 2);
        for other in line["others"].as_array().unwrap() {
            let other = DidX509::parse(other.as_str().unwrap()).unwrap();
            assert!(other.check(verified.chain()).is_err(), "{what}: {} names its signer", other.as_str());
        }
        for place in [bytes.len() / 3, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[place] ^= 0x10;
            assert!(VerifiedEnvelope::open(&changed, &BY_LEAF).is_err(), "{what}: changed at {place}");
        }
    }
    for algorithm in Algorithm::ALL {
        let count = lines.iter().filter(|line| line["algorithm"] == algorithm.name()).count();
        assert_eq!(count, 12, "{algorithm}: two forms and six names each");
    }
}

#[test]
fn another_implementation_reads_ours() {
    let mut input = String::new();
    let mut expected = Vec::new();
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa, KeyKind::Ed25519] {
        let chain = Chain::new(kind);
        let (issuer, ders) = (chain.issuer(), chain.ders());
        let possible = match kind {
            KeyKind::Rsa => vec![Algorithm::Ps256, Algorithm::Ps384, Algorithm::Ps512],
            other => vec![other.algorithm()],
        };
        for (algorithm, form) in possible.iter().flat_map(|one| [(*one, Form::Claims), (*one, Form::Legacy)]) {
            let draft = draft(&issuer, &ders, form);
            let bytes = draft.sign(&chain.signer.key, Some(algorithm)).unwrap();
            input += &format!("{}\n", serde_json::json!({ "envelope": hex::encode(bytes) }));
            expected.push(serde_json::json!({
                "algorithm": algorithm.name(), "issuer": &issuer, "feed": FEED, "svn": draft.svn,
                "payload": hex::encode(draft.payload),
            }));
        }
    }
    let Some(found) = oracle("check", input) else { return };
    assert_eq!(expected.len(), 2 * Algorithm::ALL.len());
    assert_eq!(found, expected);
}
