//! What is asked of the policy, kept for a while so that it can be written down.

use serde::Serialize;
use serde_json::{Value, json};

use super::Enforcer;
use crate::{
    denial::Denial,
    point::Point,
    record::{Asked, Recorded},
};

/// Most requests that are kept until they are taken.
const MOST: usize = 256;

/// Most bytes of what they ask.
const MOST_BYTES: usize = 1 << 20;

/// Most bytes of a denial.
const MOST_DENIAL: usize = 8 << 10;

/// Requests in the order in which they were asked.
#[derive(Debug, Default)]
pub(super) struct Journal {
    kept: Vec<Entry>,
    bytes: usize,
    /// Number of the last request.
    last: u64,
    /// How many were not kept for want of room.
    lost: u64,
}

#[derive(Debug)]
struct Entry {
    recorded: Recorded,
    /// Number of the grant that it became.
    grant: Option<u64>,
}

/// What was kept, and how many requests were not for want of room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// In their order.
    pub requests: Vec<Recorded>,
    /// Missing ones.
    pub lost: u64,
}

impl Journal {
    fn note(&mut self, point: Point, input: Value) {
        self.last = self.last.saturating_add(1);
        let bytes = self.bytes.saturating_add(input.to_string().len());
        if self.kept.len() >= MOST || bytes > MOST_BYTES {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        self.bytes = bytes;
        let asked = Asked { point, input };
        let recorded = Recorded { n: self.last, asked, allowed: false, done: false, denial: None };
        self.kept.push(Entry { recorded, grant: None });
    }

    /// The present request, unless it was not kept.
    fn present(&mut self) -> Option<&mut Entry> {
        self.kept.last_mut().filter(|entry| entry.recorded.n == self.last)
    }
}

impl Enforcer {
    /// Keeps from now on what is asked, and what came of it, until it is taken.
    pub fn keep_requests(&mut self) {
        self.journal.get_or_insert_default();
    }

    /// Takes what was kept. Of a request whose act is not settled yet it is not known that it was done.
    pub fn take_requests(&mut self) -> Kept {
        let Some(journal) = &mut self.journal else { return Kept::default() };
        let requests = std::mem::take(&mut journal.kept).into_iter().map(|entry| entry.recorded).collect();
        journal.bytes = 0;
        Kept { requests, lost: std::mem::take(&mut journal.lost) }
    }

    /// Notes a request before anything is decided about it.
    pub(super) fn note(&mut self, point: Point, request: &impl Serialize) {
        if let Some(journal) = &mut self.journal {
            journal.note(point, serde_json::to_value(request).unwrap_or_default());
        }
    }

    /// Notes a request that has no fields.
    pub(super) fn note_flag(&mut self, point: Point) {
        self.note(point, &json!({}));
    }

    /// Notes that the present request was denied.
    pub(super) fn note_denial(&mut self, denial: &Denial) {
        if let Some(entry) = self.journal.as_mut().and_then(Journal::present) {
            entry.recorded.denial = serde_json::from_str(&denial.host_json(MOST_DENIAL)).ok();
        }
    }

    /// Notes that the present request was allowed; without a grant, nothing has to be done for it.
    pub(super) fn note_allowed(&mut self, grant: Option<u64>) {
        if let Some(entry) = self.journal.as_mut().and_then(Journal::present) {
            entry.recorded.allowed = true;
            entry.recorded.done = grant.is_none();
            entry.grant = grant;
        }
    }

    /// Notes that the act of a grant was done.
    pub(super) fn note_done(&mut self, grant: u64) {
        let entries = self.journal.iter_mut().flat_map(|journal| &mut journal.kept);
        entries.filter(|entry| entry.grant == Some(grant)).for_each(|entry| entry.recorded.done = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostData, Outcome, Platform, PolicyDigest, request};

    const TEXT: &str = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
        containers := [{\"layers\": [\"abababababababababababababababababababababababababababababababab\"]}]\n\
        allow_dump_stacks := true\ndump_stacks := data.framework.dump_stacks\n\
        mount_device := data.framework.mount_device\n";

    fn enforcer() -> Enforcer {
        Enforcer::new(TEXT, &HostData::new(*PolicyDigest::of(TEXT).as_bytes())).unwrap()
    }

    fn layer(number: u32, hash: &str) -> request::MountDevice {
        request::MountDevice { target: Platform::layer_target(number), device_hash: hash.repeat(32) }
    }

    #[test]
    fn requests_are_kept_with_what_came_of_them() {
        let mut enforcer = enforcer();
        assert!(enforcer.mount_device(&layer(0, "cd")).is_err());
        assert_eq!(enforcer.take_requests(), Kept::default(), "nothing is kept unless it is asked for");
        enforcer.keep_requests();
        for (number, outcome) in [(0, Outcome::Done), (1, Outcome::Failed)] {
            let granted = enforcer.mount_device(&layer(number, "ab")).unwrap();
            enforcer.settle(granted.pending, outcome);
        }
        assert!(enforcer.mount_device(&layer(2, "cd")).is_err());
        assert!(enforcer.mount_device(&layer(3, "x")).is_err());
        assert!(enforcer.dump_stacks().is_ok());
        let kept = enforcer.take_requests();
        let shown: Vec<_> =
            kept.requests.iter().map(|r| (r.n, r.asked.point.name(), r.allowed, r.done, r.denial.is_some())).collect();
        let expected = [
            (1, "mount_device", true, true, false),
            (2, "mount_device", true, false, false),
            (3, "mount_device", false, false, true),
            (4, "mount_device", false, false, false),
            (5, "dump_stacks", true, true, false),
        ];
        assert_eq!((shown.as_slice(), kept.lost), (&expected[..], 0));
        assert_eq!(enforcer.take_requests(), Kept::default());
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut enforcer = enforcer();
        enforcer.keep_requests();
        for _ in 0..MOST + 3 {
            assert!(enforcer.mount_device(&layer(0, "cd")).is_err());
        }
        let kept = enforcer.take_requests();
        assert_eq!((kept.requests.len(), kept.lost), (MOST, 3));
        assert!(enforcer.mount_device(&layer(0, "cd")).is_err());
        assert_eq!(enforcer.take_requests().requests[0].n, u64::try_from(MOST + 4).unwrap());
    }
}
