//! What a policy's owner is handed: texts that may be policies in some form, and records of requests that came by the host.

use std::hint::black_box;

use caveau_policy::{Asked, Platform, Point, RecordLine, Recorded};
use caveau_policy_tools::{PolicyDocument, amend, base64, check, diff, explain, pretty, read, replay, requests};
use serde_json::json;

use crate::{Target, policies::policies};

/// A policy in whatever form is looked at, laid out without losing anything, and differs from itself in nothing.
pub(crate) const POLICY_INPUT: Target =
    Target { name: "policy_input", run: policy_input, seeds: inputs, fixtures: &[], rounds: 100 };

/// A record of requests is replayed, and each change that is proposed can be made and allows the request.
pub(crate) const POLICY_RECORD: Target =
    Target { name: "policy_record", run: policy_record, seeds: records, fixtures: &[], rounds: 100 };

fn policy_input(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(found) = read("x", text) else { return };
    for found in found {
        let Ok(document) = PolicyDocument::parse("x", &found.text) else { continue };
        black_box((check("x", &found.text).is_ok(), explain(&document).len()));
        assert!(diff(&document, &document).is_empty(), "a policy differs from itself");
        let laid_out = pretty("x", &found.text).expect("a policy");
        let again = PolicyDocument::parse("x", &laid_out).expect("what is laid out is a policy");
        assert!(diff(&document, &again).is_empty(), "another policy when laid out");
        assert_eq!(read("x", &base64(&laid_out)).expect("base64")[0].text, laid_out);
    }
}

fn policy_record(data: &[u8]) {
    let Ok(requests) = requests(data) else { return };
    let text = String::from_utf8(policies().swap_remove(0)).expect("text");
    let Ok(replayed) = replay("x", &text, &requests) else { return };
    for request in replayed.iter().filter(|request| !request.allowed).take(4) {
        let Some(change) = request.denial.as_ref().and_then(|denial| denial.change.as_ref()) else { continue };
        let amended = change.apply(&text).unwrap_or_else(|error| panic!("{change}: {error}"));
        assert!(replay("x", &amended, &requests).is_ok(), "{change}");
    }
    drop(amend("x", &text, requests.get(..4).unwrap_or(&requests), &[]));
}

fn inputs() -> Vec<Vec<u8>> {
    let mut inputs = policies();
    let text = std::str::from_utf8(&inputs[0]).expect("text");
    let encoded = base64(text);
    let properties = json!({"confidentialComputeProperties": {"ccePolicy": encoded}});
    let template = json!({"resources": [{"name": "a", "properties": properties}]});
    inputs.extend([encoded.into_bytes(), template.to_string().into_bytes()]);
    inputs
}

fn records() -> Vec<Vec<u8>> {
    let layer = |number: u32, hash: &str| {
        (Point::MountDevice, json!({"target": Platform::layer_target(number), "deviceHash": hash.repeat(32)}))
    };
    let asked = [layer(0, "ab"), layer(1, "cd"), (Point::DumpStacks, json!({}))];
    let mut lines = vec![RecordLine::Record { version: 1, policy_digest: "ab".repeat(32) }];
    lines.extend((1..).zip(asked).map(|(n, (point, input))| {
        RecordLine::Request(Recorded { n, asked: Asked { point, input }, allowed: false, done: false, denial: None })
    }));
    let lines: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).expect("a line")).collect();
    vec![(lines.join("\n") + "\n").into_bytes()]
}

/// The seeds themselves are what they are meant to be.
#[cfg(test)]
mod tests {
    use caveau_policy::{Outcome, Session};

    use super::*;

    #[test]
    fn the_seeds_reach_what_they_are_for() {
        let text = String::from_utf8(policies().swap_remove(0)).unwrap();
        let requests = requests(&records()[0][..]).unwrap();
        assert!(replay("x", &text, &requests).unwrap().iter().all(|request| request.denial.is_some()));
        let mut session = Session::new(&text).unwrap();
        assert!(session.ask(&requests[0].asked, Outcome::Done).unwrap().is_err());
        assert!(inputs().iter().all(|input| read("x", std::str::from_utf8(input).unwrap()).is_ok()));
    }
}
