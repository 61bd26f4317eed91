//! When each step of the start was done, for whoever wonders where the time goes.

use caveau_protocol::BootStep;
use rustix::time::{ClockId, clock_gettime};

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// Nanoseconds from the kernel's start to this program's.
    pub(crate) begun_ns: u64,
    /// Steps in their order.
    pub(crate) steps: Vec<BootStep>,
}

impl Timeline {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Self { begun_ns: since_kernel_start(), steps: Vec::new() }
    }

    /// A step is done.
    pub(crate) fn done(&mut self, name: &str) {
        self.steps.push(BootStep { name: name.to_owned(), done_ns: since_kernel_start() });
    }
}

/// Nanoseconds from the kernel's start until now.
fn since_kernel_start() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_each_other() {
        let mut timeline = Timeline::begin();
        timeline.done("one");
        timeline.done("two");
        let names: Vec<_> = timeline.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        let mut times: Vec<u64> = timeline.steps.iter().map(|step| step.done_ns).collect();
        times.insert(0, timeline.begun_ns);
        assert!(times.is_sorted() && timeline.begun_ns > 0, "{times:?}");
    }
}
