//! What the supervisor's threads share.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use caveau_protocol::{Exit, ProcessId};

use super::hub::Hub;
use crate::{AgentClient, ContainerPlan, LaunchPlan, logs::LogWriter, state::Recorder};

/// Something that the supervisor's main thread must act on.
#[derive(Debug)]
pub(super) enum Happening {
    /// All containers have ended, and their output has been delivered.
    AllExited,
    /// The user's time for stopping is over, or all has ended before.
    Stop,
    /// QEMU ended, or does not execute the guest any more.
    VmLost(String),
}

/// One group, as its supervisor's threads see it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) plan: LaunchPlan,
    pub(super) recorder: Recorder,
    pub(super) client: AgentClient,
    pub(super) log: LogWriter,
    pub(super) containers: Vec<Container>,
    pub(super) liveness: Liveness,
    pub(super) stopping: AtomicBool,
    /// Executed processes that are followed now.
    pub(super) executed: AtomicUsize,
    pub(super) happenings: Sender<Happening>,
}

/// One container's running side.
#[derive(Debug, Default)]
pub(super) struct Container {
    pub(super) hub: Hub,
    exit: Mutex<Option<Exit>>,
    ended: Condvar,
    delivered: AtomicBool,
    /// Why there will be no exit, where that is so.
    lost: Mutex<Option<String>>,
    /// Held by whoever writes to its input.
    pub(super) turn: Mutex<()>,
}

/// Since when the guest has not answered.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    silent_since: Mutex<Option<Instant>>,
}

impl Group {
    /// Name, plan and running side of a container; the first where no name is given.
    pub(super) fn container(&self, name: Option<&str>) -> Option<(&ContainerPlan, &Container)> {
        let wanted = |plan: &ContainerPlan| name.is_none_or(|name| plan.name == name);
        self.plan.containers.iter().zip(&self.containers).find(|(plan, _)| wanted(plan))
    }

    /// A container's init process.
    pub(super) fn init(plan: &ContainerPlan) -> ProcessId {
        ProcessId::init(plan.create.container.clone())
    }

    /// How long the guest may take for what it should do at once.
    pub(super) fn answer_limit(&self) -> Duration {
        Duration::from_secs(self.plan.answer_timeout_s.into())
    }

    /// Tells the main thread; where that has ended already nobody needs to know.
    pub(super) fn tell(&self, happening: Happening) {
        let _ = self.happenings.send(happening);
    }

    /// Notes that a container's output has been delivered to its end.
    pub(super) fn delivered(&self, container: &Container) {
        container.delivered.store(true, Ordering::SeqCst);
        if self.containers.iter().all(|container| container.delivered.load(Ordering::SeqCst)) {
            self.tell(Happening::AllExited);
        }
    }
}

impl Container {
    pub(super) fn set_exit(&self, exit: Exit) {
        *self.locked() = Some(exit);
        self.ended.notify_all();
    }

    pub(super) fn set_lost(&self, reason: String) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    pub(super) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        *self.locked()
    }

    /// Its exit, waiting at most `limit`.
    pub(super) fn wait_exit(&self, limit: Duration) -> Option<Exit> {
        let guard = self.locked();
        *self.ended.wait_timeout_while(guard, limit, |exit| exit.is_none()).unwrap_or_else(PoisonError::into_inner).0
    }

    fn locked(&self) -> MutexGuard<'_, Option<Exit>> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Liveness {
    /// The guest answered.
    pub(super) fn answered(&self) {
        *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The guest did not answer a request that was sent `ago`.
    pub(super) fn silent(&self, ago: Duration) {
        let mut since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(|| Instant::now().checked_sub(ago).unwrap_or_else(Instant::now));
    }

    /// What to tell a user, where the guest does not answer.
    pub(super) fn complaint(&self) -> Option<String> {
        let since = *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| format!("the guest has not answered for {} s", since.elapsed().as_secs()))
    }
}

/// A handle that every thread of the supervisor has.
pub(super) type Shared = Arc<Group>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_unanswered_question() {
        let liveness = Liveness::default();
        assert_eq!(liveness.complaint(), None);
        liveness.silent(Duration::from_secs(30));
        let complaint = liveness.complaint().unwrap();
        assert!(complaint.contains("for 30 s") || complaint.contains("for 31 s"), "{complaint}");
        liveness.answered();
        assert_eq!(liveness.complaint(), None);
    }

    #[test]
    fn an_exit_wakes_whoever_waits() {
        let container = Arc::new(Container::default());
        assert_eq!(container.wait_exit(Duration::from_millis(1)), None);
        let waiting = Arc::clone(&container);
        let thread = std::thread::spawn(move || waiting.wait_exit(Duration::from_secs(60)));
        container.set_exit(Exit { code: 4, out_of_memory: false });
        assert_eq!(thread.join().unwrap().unwrap().code, 4);
    }
}
