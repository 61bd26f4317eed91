//! What a guest did, as it binds it into a report: a chain of hashes over everything that its host asked of it.
//!
//! ```text
//! head(0) = SHA-256( "caveau/event-log/1" 00  SHA-256 of the policy )
//! head(n) = SHA-256( head(n-1)  SHA-256 of the n-th line )
//! data    = head(n)  u64le(n)                        what REPORT_DATA binds, under the use `event-log`
//! ```
//! The log is JSON Lines. The first names the policy, how many lines were forgotten for want of room, and the head before the first that
//! is there; each other one is an event:
//!
//! ```text
//! {"format":"caveau-event-log/1","policy":"<64 hex>","forgotten":0,"head":"<64 hex>"}
//! {"n":1,"op":"mount_layer","args":{"lun":0,"root":"<64 hex>"},"outcome":"done"}
//! {"n":2,"op":"exec","args":{…},"outcome":"denied"}
//! ```
//! A line is hashed as it stands, so that no two texts are the same log. What was forgotten is known by its number alone.

use std::collections::VecDeque;

use caveau_signature::sha256;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Hex;

/// The log's format.
pub const FORMAT: &str = "caveau-event-log/1";

/// Longest log that is read, in bytes.
pub const MAX_EVENT_LOG_BYTES: usize = 2 << 20;

/// Most bytes of lines that a guest keeps.
const KEPT_BYTES: usize = 1 << 20;

/// Longest line that a guest keeps whole; of a longer one the arguments are left out.
const MAX_LINE: usize = 64 << 10;

/// What became of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The policy does not allow it.
    Denied,
    /// It is done.
    Done,
    /// It made no sense, or the guest could not.
    Failed,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Counts up from 1.
    pub n: u64,
    /// What was asked.
    pub op: String,
    /// With what; without values of variables.
    pub args: Value,
    /// What became of it.
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    policy: Hex<32>,
    forgotten: u64,
    head: Hex<32>,
}

/// The chain's end so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    hash: [u8; 32],
    count: u64,
}

impl Head {
    /// Before anything happened under a policy of this digest.
    #[must_use]
    pub fn begin(policy: &[u8; 32]) -> Self {
        Self { hash: sha256(&[b"caveau/event-log/1\0", policy]), count: 0 }
    }

    /// After one more line.
    #[must_use]
    pub fn after(self, line: &[u8]) -> Self {
        Self { hash: sha256(&[&self.hash, &sha256(&[line])]), count: self.count.saturating_add(1) }
    }

    /// The data that a report binds.
    #[must_use]
    pub fn data(&self) -> Vec<u8> {
        [&self.hash[..], &self.count.to_le_bytes()].concat()
    }
}

/// A log that is being written.
#[derive(Clone, Debug)]
pub struct EventLogWriter {
    policy: [u8; 32],
    /// Before the first line that is kept.
    first: Head,
    head: Head,
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl EventLogWriter {
    /// One without events.
    #[must_use]
    pub fn new(policy: [u8; 32]) -> Self {
        let head = Head::begin(&policy);
        Self { policy, first: head, head, lines: VecDeque::new(), bytes: 0 }
    }

    /// Adds an event. Where there is no room, the oldest are forgotten.
    pub fn add(&mut self, op: &str, args: Value, outcome: Outcome) {
        let mut event = Event { n: self.head.count.saturating_add(1), op: op.to_owned(), args, outcome };
        // Texts, numbers, lists and maps of them always serialise.
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        if line.len() > MAX_LINE {
            event.args = Value::Null;
            line = serde_json::to_vec(&event).unwrap_or_default();
        }
        self.head = self.head.after(&line);
        self.bytes = self.bytes.saturating_add(line.len());
        self.lines.push_back(line);
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.len());
            self.first = self.first.after(&oldest);
        }
    }

    /// The chain's end.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// The log's text.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let Head { hash, count } = self.first;
        let header = Header { format: FORMAT.to_owned(), policy: Hex(self.policy), forgotten: count, head: Hex(hash) };
        let mut text = serde_json::to_vec(&header).unwrap_or_default();
        for line in &self.lines {
            text.push(b'\n');
            text.extend_from_slice(line);
        }
        text.push(b'\n');
        text
    }
}

/// A log that was read. Nothing of it is to be believed but by a report that binds its [`EventLog::head`].
#[derive(Clone, Debug, PartialEq)]
pub struct EventLog {
    /// Digest of the policy under which all of it happened.
    pub policy: Hex<32>,
    /// How many events are missing before the first.
    pub forgotten: u64,
    /// In their order.
    pub events: Vec<Event>,
    /// Where the chain ends.
    pub head: Head,
}

/// Why a text is no event log.
#[derive(Debug, thiserror::Error)]
pub enum EventLogError {
    /// Nothing was forgotten, and the chain does not begin where it must.
    #[error("the chain does not begin with the policy that the log names")]
    Beginning,
    /// A line is not of its form.
    #[error("line {line} of the event log is not of its form")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An event is missing, or there twice.
    #[error("event {found} follows event {before} of the event log")]
    Order {
        /// The number before it.
        before: u64,
        /// Its number.
        found: u64,
    },
    /// Something else than a log.
    #[error("the event log does not begin as {FORMAT} does, or does not end with a line")]
    Format,
    /// Too long.
    #[error("the event log has {0} bytes, at most {MAX_EVENT_LOG_BYTES} are accepted")]
    TooLong(usize),
}

impl EventLog {
    /// Reads a log, and follows its chain.
    ///
    /// # Errors
    /// [`EventLogError`].
    pub fn parse(text: &[u8]) -> Result<Self, EventLogError> {
        if text.len() > MAX_EVENT_LOG_BYTES {
            return Err(EventLogError::TooLong(text.len()));
        }
        let mut lines = text.strip_suffix(b"\n").ok_or(EventLogError::Format)?.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let header: Header = serde_json::from_slice(first).map_err(|source| EventLogError::Line { line: 1, source })?;
        if header.format != FORMAT {
            return Err(EventLogError::Format);
        }
        let mut head = Head { hash: header.head.0, count: header.forgotten };
        if header.forgotten == 0 && head != Head::begin(&header.policy) {
            return Err(EventLogError::Beginning);
        }
        let mut events = Vec::new();
        for (index, line) in lines.enumerate() {
            let failed = |source| EventLogError::Line { line: index.saturating_add(2), source };
            let event: Event = serde_json::from_slice(line).map_err(failed)?;
            if head.count.checked_add(1) != Some(event.n) {
                return Err(EventLogError::Order { before: head.count, found: event.n });
            }
            head = head.after(line);
            events.push(event);
        }
        Ok(Self { policy: header.policy, forgotten: header.forgotten, events, head })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn sample(count: u64) -> EventLogWriter {
        let mut log = EventLogWriter::new([7; 32]);
        for lun in 0..count {
            log.add("mount_layer", json!({"lun": lun}), Outcome::Done);
        }
        log
    }

    fn edited(edit: impl FnOnce(&mut Vec<String>)) -> Result<EventLog, EventLogError> {
        let text = String::from_utf8(sample(3).text()).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        edit(&mut lines);
        EventLog::parse(format!("{}\n", lines.join("\n")).as_bytes())
    }

    #[test]
    fn a_log_reads_back_with_the_head_that_was_bound() {
        let written = sample(3);
        let read = EventLog::parse(&written.text()).unwrap();
        assert_eq!((read.head, read.forgotten, read.policy), (written.head(), 0, Hex([7; 32])));
        assert_eq!(
            read.events[2],
            Event { n: 3, op: "mount_layer".into(), args: json!({"lun": 2}), outcome: Outcome::Done }
        );
        assert_eq!(written.head().data().len(), 40);
        assert_eq!(written.head().data()[32..], 3u64.to_le_bytes());
        assert_eq!(EventLog::parse(&sample(0).text()).unwrap().head, Head::begin(&[7; 32]));
    }

    #[test]
    fn an_event_that_is_changed_left_out_added_or_moved_is_seen() {
        let head = sample(3).head();
        let reads_as_another = |edit: fn(&mut Vec<String>)| edited(edit).unwrap().head != head;
        assert!(reads_as_another(|lines| lines[2] = lines[2].replace("done", "denied")));
        assert!(reads_as_another(|lines| lines[1] = lines[1].replace("{\"n\"", "{ \"n\"")), "the same in other words");
        assert!(reads_as_another(|lines| drop(lines.pop())));
        assert!(reads_as_another(|lines| lines.push(lines[3].replace("\"n\":3", "\"n\":4"))));
        assert!(matches!(edited(|lines| drop(lines.remove(2))), Err(EventLogError::Order { before: 1, found: 3 })));
        assert!(matches!(edited(|lines| lines.swap(1, 2)), Err(EventLogError::Order { .. })));
        assert!(matches!(edited(|lines| lines.insert(2, lines[1].clone())), Err(EventLogError::Order { .. })));
        // The beginning left out, as if it had been forgotten: the head before it is not known to whoever does so.
        let cut = edited(|lines| {
            lines.remove(1);
            lines[0] = lines[0].replace("\"forgotten\":0", "\"forgotten\":1");
        });
        assert_ne!(cut.unwrap().head, head);
        assert!(matches!(edited(|lines| lines[0] = lines[0].replace("07", "08")), Err(EventLogError::Beginning)));
        assert!(matches!(edited(|lines| lines[0] = lines[0].replace("log/1", "log/2")), Err(EventLogError::Format)));
        assert!(matches!(edited(|lines| lines[3].push('x')), Err(EventLogError::Line { line: 4, .. })));
        assert!(matches!(edited(|lines| lines[3] = lines[3].replace("lun", "l\\u0075n")), Ok(log) if log.head != head));
        assert!(matches!(EventLog::parse(b""), Err(EventLogError::Format)));
        assert!(matches!(EventLog::parse(&vec![b' '; MAX_EVENT_LOG_BYTES + 1]), Err(EventLogError::TooLong(_))));
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_still_bound() {
        let mut log = EventLogWriter::new([7; 32]);
        let mut head = log.head();
        for number in 0..40 {
            log.add("exec", json!({"long": "x".repeat(60_000), "number": number}), Outcome::Done);
            head = head.after(log.lines.back().unwrap());
        }
        let read = EventLog::parse(&log.text()).unwrap();
        assert!(read.forgotten > 0 && read.events.len() as u64 + read.forgotten == 40);
        assert_eq!((read.head, log.head()), (head, head));
        log.add("exec", json!("x".repeat(MAX_LINE)), Outcome::Failed);
        assert_eq!(EventLog::parse(&log.text()).unwrap().events.last().unwrap().args, Value::Null);
    }

    proptest! {
        #[test]
        fn any_log_reads_back(ops in proptest::collection::vec(("\\PC{0,20}", "\\PC{0,20}"), 0..20)) {
            let mut log = EventLogWriter::new([1; 32]);
            ops.iter().for_each(|(op, text)| log.add(op, json!({ "text": text }), Outcome::Denied));
            let read = EventLog::parse(&log.text()).unwrap();
            prop_assert_eq!(read.head, log.head());
            prop_assert_eq!(read.events.len(), ops.len());
        }

        #[test]
        fn any_bytes_are_a_log_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = EventLog::parse(&bytes);
        }
    }
}
