//! A host that lies: it starts groups from plans of its own, with the product's own supervisor.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use caveau_launch::{Group, LaunchPlan, StartError, StateRoot, start_with};

use crate::{Caveau, image};

/// A host with an honest plan to start its lies from.
#[derive(Debug)]
pub struct Hostile {
    /// Its Caveau.
    pub caveau: Caveau,
    /// What an honest host would launch: busybox that prints `up` and waits, with one variable, two commands that may be
    /// executed, and a memory file system.
    pub plan: LaunchPlan,
    /// For its forged files.
    pub folder: tempfile::TempDir,
}

/// The options of the honest plan.
pub const HONEST: [&str; 8] = [
    "-e",
    "KIND=honest",
    "--allow-exec",
    "cat /etc/hostname",
    "--allow-exec",
    "cat /bin/busybox",
    "-v",
    "tmpfs:/data:size=1m",
];

/// The command of the honest plan.
pub const COMMAND: [&str; 3] = ["sh", "-c", "echo up; trap 'exit 5' TERM; while :; do sleep 1; done"];

impl Hostile {
    /// A hostile host, or `None` with a visible word where the machine was not set up.
    ///
    /// # Panics
    /// Where the honest group does not start.
    #[must_use]
    pub fn new() -> Option<Self> {
        static PLAN: OnceLock<LaunchPlan> = OnceLock::new();
        let caveau = Caveau::new()?;
        let plan = PLAN.get_or_init(|| {
            let busybox = image("busybox");
            let arguments = [&["run", "-d", "--name", "honest"][..], &HONEST, &[&busybox, "--"], &COMMAND].concat();
            caveau.run(&arguments).success();
            let plan = group(&caveau, "honest").plan().expect("the honest group has a plan");
            caveau.run(&["rm", "--force", "honest"]).success();
            plan
        });
        let folder = tempfile::tempdir().expect("a folder for forgeries");
        Some(Self { plan: plan.clone(), caveau, folder })
    }

    /// Starts what remains of the honest plan after `lie`.
    ///
    /// # Errors
    /// As [`start_with`]: what the guest, or the secure processor, refused.
    pub fn start(&self, lie: impl FnOnce(&mut LaunchPlan)) -> Result<Group, StartError> {
        let mut plan = self.plan.clone();
        plan.name = format!("lie-{}", std::process::id()).parse().expect("a name");
        plan.start_timeout_s = 90;
        lie(&mut plan);
        self.start_by(&mut self.caveau.command(&["__supervise"]), &plan)
    }

    /// As [`Self::start`], on a secure processor that plays this persona.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(&self, persona: &str, lie: impl FnOnce(&mut LaunchPlan)) -> Result<Group, StartError> {
        let mut plan = self.plan.clone();
        plan.name = format!("on-{}", std::process::id()).parse().expect("a name");
        plan.start_timeout_s = 90;
        lie(&mut plan);
        let mut supervisor = self.caveau.command(&["__supervise"]);
        self.start_by(supervisor.env(caveau_softsp::PERSONA_VARIABLE, persona), &plan)
    }

    fn start_by(&self, supervisor: &mut Command, plan: &LaunchPlan) -> Result<Group, StartError> {
        let root = StateRoot::at(&self.caveau.state()).expect("a state folder");
        start_with(supervisor, &root, plan, false, &mut |_| {}).map(|started| started.group)
    }

    /// Asserts that the policy denies what remains of the honest plan after `lie`: at `point`, for nothing but `field`, and
    /// with each of `words` in its reasons.
    ///
    /// # Panics
    /// Where it is started, refused for another reason, or the reasons lack a word.
    #[track_caller]
    pub fn is_denied(&self, point: &str, field: &str, words: &[&str], lie: impl FnOnce(&mut LaunchPlan)) {
        match self.start(lie) {
            Err(StartError::Failed(failure)) => {
                let denial = failure.denial.as_ref().unwrap_or_else(|| panic!("no denial: {}", failure.reason));
                assert_eq!(denial["point"], point, "{denial}");
                let reasons = denial["reasons"].as_array().expect("reasons");
                assert!(!reasons.is_empty() && reasons.iter().all(|reason| reason["field"] == field), "{denial}");
                let text = denial.to_string();
                for word in words {
                    assert!(text.contains(word), "{word:?} is not in {text}");
                }
            }
            Err(other) => panic!("not the policy's denial: {other}"),
            Ok(group) => panic!("group {} was started", group.folder().name()),
        }
    }

    /// Asserts that what remains of the honest plan after `lie` does not start, for a reason with each of `words`.
    ///
    /// # Panics
    /// Where it is started, or the reason lacks a word.
    #[track_caller]
    pub fn fails(&self, words: &[&str], lie: impl FnOnce(&mut LaunchPlan)) {
        match self.start(lie) {
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::from(error));
                for word in words {
                    assert!(text.contains(word), "{word:?} is not in {text}");
                }
            }
            Ok(group) => panic!("group {} was started", group.folder().name()),
        }
    }

    /// A copy of `file` with one byte changed, for a plan to point at.
    ///
    /// # Panics
    /// Where the file has no such byte.
    #[must_use]
    pub fn flipped(&self, file: &Path, at: usize) -> PathBuf {
        let mut bytes = std::fs::read(file).expect("the file");
        bytes[at] ^= 1;
        self.forged("flipped", &bytes)
    }

    /// A file of the host's own making.
    ///
    /// # Panics
    /// Where it cannot be written.
    #[must_use]
    pub fn forged(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).expect("the forgery is written");
        path
    }
}

/// A group of this Caveau, as a process of its user sees it.
///
/// # Panics
/// Where there is none of that name.
#[must_use]
pub fn group(caveau: &Caveau, name: &str) -> Group {
    let root = StateRoot::at(&caveau.state()).expect("a state folder");
    Group::open(&root, &name.parse().expect("a name")).expect("the group")
}
