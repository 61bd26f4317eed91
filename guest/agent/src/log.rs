//! The event log: what the host asked, as it asked it, and what became of it.

use caveau_cose::Envelope;
use caveau_protocol::{AgentRequest, ErrorKind};
use caveau_snp::event_log::{EventLogWriter, Outcome};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::answer::Answer;

/// Longest text of an argument that is kept whole; of a longer one its digest is, as of a filter of system calls.
const MAX_TEXT: usize = 4096;

/// What a request is in the log.
pub(crate) struct Noted {
    op: String,
    args: Value,
}

impl Noted {
    /// The request, before it is done; none of those that change nothing.
    pub(crate) fn of(request: &AgentRequest, body: &[u8]) -> Option<Self> {
        if matches!(
            request,
            AgentRequest::Attest { .. }
                | AgentRequest::AttestLog { .. }
                | AgentRequest::Hello
                | AgentRequest::KeepRequests
                | AgentRequest::Stats { .. }
                | AgentRequest::TakeRequests
        ) {
            return None;
        }
        // Enumerations of texts, numbers and lists always serialise.
        let Value::Object(mut fields) = serde_json::to_value(request).unwrap_or_default() else { return None };
        let op = fields.remove("op").and_then(|op| op.as_str().map(str::to_owned)).unwrap_or_default();
        let mut args = fields.remove("args").unwrap_or_else(|| Value::Object(Map::new()));
        if let Some(fields) = args.as_object_mut().filter(|_| !body.is_empty()) {
            fields.insert("body_sha256".to_owned(), json!(hex::encode(Sha256::digest(body))));
            if matches!(request, AgentRequest::LoadFragment | AgentRequest::LoadTransparencyTrustList) {
                fields.extend(names(body));
            }
        }
        hide(&mut args);
        Some(Self { op, args })
    }

    /// An owner's process, with the owner's key.
    pub(crate) fn of_owner(key: &caveau_group::KeyDigest, exec: &caveau_protocol::Exec) -> Self {
        let mut args = serde_json::to_value(exec).unwrap_or_default();
        hide(&mut args);
        if let Some(fields) = args.as_object_mut() {
            fields.insert("owner".to_owned(), json!(key));
        }
        Self { op: "owner_exec".to_owned(), args }
    }

    /// Adds it to the log, with what became of it.
    pub(crate) fn add(self, answer: &Answer, log: &mut EventLogWriter) {
        let outcome = match answer {
            Ok(_) => Outcome::Done,
            Err(error) if error.kind == ErrorKind::Denied => Outcome::Denied,
            Err(_) => Outcome::Failed,
        };
        log.add(&self.op, self.args, outcome);
    }
}

/// Whose envelope it says to be, what about and which version: true where it was then loaded.
fn names(envelope: &[u8]) -> Map<String, Value> {
    let Ok(envelope) = Envelope::parse(envelope) else { return Map::new() };
    let header = envelope.header();
    let said = [
        ("issuer", header.issuer.map(Value::from)),
        ("feed", header.feed.map(Value::from)),
        ("svn", header.svn.map(Value::from)),
    ];
    said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Takes values of variables away, and long texts for their digests.
fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Array(variables) if name == "env" => variables.iter_mut().for_each(name_only),
                    other => hide(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::String(text) if text.len() > MAX_TEXT => {
            *text = format!("sha256:{}", hex::encode(Sha256::digest(&*text)));
        }
        _ => {}
    }
}

fn name_only(variable: &mut Value) {
    if let Value::String(text) = variable {
        let end = text.find('=').unwrap_or(text.len());
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use caveau_protocol::{Capabilities, ContainerId, Exec, LayerId, MountLayer, Nonce, ProcessSpec};
    use caveau_snp::event_log::EventLog;

    use super::*;
    use crate::answer::{done, invalid};

    fn exec() -> Exec {
        let process = ProcessSpec {
            args: vec!["sh".into(), "x".repeat(MAX_TEXT + 1)],
            env: vec!["TOKEN=swordfish".into(), "odd".into()],
            cwd: "/".into(),
            user: String::new(),
            capabilities: Capabilities::default(),
            no_new_privileges: true,
            terminal: None,
            stdin: false,
            stdio: true,
        };
        Exec { container: ContainerId::from_bytes([7; 32]), process }
    }

    #[test]
    fn what_was_asked_is_noted_without_values_and_with_what_became_of_it() {
        let mut log = EventLogWriter::new([0; 32]);
        let mount = AgentRequest::MountLayer(MountLayer { lun: 3, root: "ab".repeat(32) });
        Noted::of(&mount, &[]).unwrap().add(&done(), &mut log);
        let denied = Err(caveau_protocol::AgentError { kind: ErrorKind::Denied, message: "no".into(), denial: None });
        Noted::of(&AgentRequest::Exec(Box::new(exec())), &[]).unwrap().add(&denied, &mut log);
        Noted::of(&AgentRequest::LoadFragment, b"envelope").unwrap().add(&Err(invalid("no")), &mut log);
        let unmount = AgentRequest::UnmountLayer { layer: LayerId(1) };
        Noted::of(&unmount, &[]).unwrap().add(&done(), &mut log);
        let key = caveau_group::KeyDigest::of(b"key");
        Noted::of_owner(&key, &exec()).add(&done(), &mut log);
        let text = String::from_utf8(log.text()).unwrap();
        assert!(!text.contains("swordfish"), "{text}");
        let events = EventLog::parse(text.as_bytes()).unwrap().events;
        let shown: Vec<_> = events.iter().map(|event| (event.op.as_str(), event.outcome)).collect();
        let expected = [
            ("mount_layer", Outcome::Done),
            ("exec", Outcome::Denied),
            ("load_fragment", Outcome::Failed),
            ("unmount_layer", Outcome::Done),
            ("owner_exec", Outcome::Done),
        ];
        assert_eq!(shown, expected);
        assert_eq!(events[0].args, json!({"lun": 3, "root": "ab".repeat(32)}));
        assert_eq!(events[1].args["process"]["env"], json!(["TOKEN", "odd"]));
        let digest = hex::encode(Sha256::digest("x".repeat(MAX_TEXT + 1)));
        assert_eq!(events[1].args["process"]["args"], json!(["sh", format!("sha256:{digest}")]));
        assert_eq!(events[2].args["body_sha256"], json!(hex::encode(Sha256::digest("envelope"))));
        assert_eq!(events[4].args["owner"], json!(key));
    }

    #[test]
    fn what_changes_nothing_is_not_noted() {
        let nonce = Nonce::try_from(vec![1; 16]).unwrap();
        for request in [
            AgentRequest::Hello,
            AgentRequest::Attest { nonce: nonce.clone() },
            AgentRequest::AttestLog { nonce },
            AgentRequest::KeepRequests,
            AgentRequest::TakeRequests,
        ] {
            assert!(Noted::of(&request, &[]).is_none());
        }
    }
}
