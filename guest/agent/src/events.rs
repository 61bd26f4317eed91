//! What happened, for a host that asks: numbered, bounded, the oldest forgotten first.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use caveau_protocol::{Event, EventKind};

/// Events that are kept for a host that does not ask.
const KEPT: usize = 256;

/// The newest events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    kept: Mutex<VecDeque<Event>>,
    more: Condvar,
}

impl Events {
    /// Something happened.
    pub(crate) fn push(&self, event: EventKind) {
        let mut kept = self.lock();
        let number = kept.back().map_or(1, |last| last.number.saturating_add(1));
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(Event { number, event });
        self.more.notify_all();
    }

    /// The first event after `after`, waited for until `limit` is over.
    pub(crate) fn next(&self, after: u64, limit: Duration) -> Option<Event> {
        let end = Instant::now().checked_add(limit)?;
        let mut kept = self.lock();
        loop {
            if let Some(event) = kept.iter().find(|event| event.number > after) {
                return Some(event.clone());
            }
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            kept = self.more.wait_timeout(kept, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use caveau_protocol::LayerId;

    use super::*;

    #[test]
    fn events_are_numbered_bounded_and_waited_for() {
        let events = Events::default();
        assert_eq!(events.next(0, Duration::ZERO), None);
        for number in 0..300u32 {
            events.push(EventKind::LayerCorrupted { layer: LayerId(number) });
        }
        assert_eq!(events.next(0, Duration::ZERO).unwrap().number, 45, "the oldest are forgotten");
        assert_eq!(events.next(299, Duration::ZERO).unwrap().number, 300);
        assert_eq!(events.next(300, Duration::from_millis(1)), None);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| events.next(300, Duration::from_secs(60)));
            events.push(EventKind::LayerCorrupted { layer: LayerId(7) });
            assert_eq!(waiter.join().unwrap().unwrap().number, 301);
        });
    }
}
