//! What holds under every policy, an open one too: identifiers are of their form and used once, what is in use is not taken
//! away, and a guest that lost track of its mounts mounts nothing more.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    denial::{Denial, Field, Reason},
    fragment::{LedgerKey, LedgerKeys, Ledgers},
    platform::Platform,
    point::Point,
};

/// The engine's own memory, apart from the policy's.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Mounted overlays: container identifier to its layers' places.
    overlays: BTreeMap<String, Vec<String>>,
    /// Living containers, by identifier.
    living: BTreeMap<String, Life>,
    /// Places of the policy's containers whose programs were let go.
    started: BTreeSet<usize>,
    /// What could not be unmounted.
    broken: Option<String>,
    /// Keys that receipts of ledgers may verify with.
    ledgers: Ledgers,
}

/// What is known of a container that lives.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// Whether the host gets the streams.
    pub(super) stdio: bool,
    /// The place of the policy's container that it counts for, where that is known.
    pub(super) place: Option<usize>,
    /// Names of the containers that must be started before it.
    pub(super) after: BTreeSet<String>,
    /// Its name for people.
    pub(super) label: String,
}

/// A change of it.
#[derive(Debug)]
pub(super) enum Change {
    Nothing,
    AddOverlay {
        id: String,
        layers: Vec<String>,
    },
    RemoveOverlay {
        id: String,
    },
    Start {
        id: String,
        life: Life,
    },
    LetGo {
        id: String,
    },
    End {
        id: String,
    },
    /// A trust list of this subject brings keys of ledgers.
    Learn {
        subject: String,
        keys: LedgerKeys,
    },
}

impl Guard {
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Nothing => {}
            Change::AddOverlay { id, layers } => {
                self.overlays.insert(id, layers);
            }
            Change::RemoveOverlay { id } => {
                self.overlays.remove(&id);
            }
            Change::Start { id, life } => {
                self.living.insert(id, life);
            }
            Change::LetGo { id } => self.started.extend(self.living.get(&id).and_then(|life| life.place)),
            Change::End { id } => {
                self.living.remove(&id);
            }
            Change::Learn { subject, keys } => self.ledgers.learn(&subject, keys),
        }
    }

    pub(super) fn ledger_keys(&self, ledger: &str) -> Option<&BTreeMap<Vec<u8>, LedgerKey>> {
        self.ledgers.of(ledger)
    }

    pub(super) fn key_count(&self) -> usize {
        self.ledgers.len()
    }

    /// Notes what an operation that failed leaves behind.
    pub(super) fn failed(&mut self, unmounts: Option<String>) {
        if self.broken.is_none() {
            self.broken = unmounts;
        }
    }

    /// Checks that anything may be mounted or started at all.
    pub(super) fn check_mount(&self, point: Point) -> Result<(), Denial> {
        match &self.broken {
            None => Ok(()),
            Some(target) => Err(denial(
                point,
                Field::State,
                "a guest that knows its mounts",
                &format!("{target:?} could not be unmounted"),
            )),
        }
    }

    pub(super) fn check_layer_unused(&self, target: &str) -> Result<(), Denial> {
        let user = self.overlays.iter().find(|(_, layers)| layers.iter().any(|layer| layer == target));
        match user {
            None => Ok(()),
            Some((id, _)) => Err(denial(
                Point::UnmountDevice,
                Field::State,
                "a layer that nothing uses",
                &format!("one of container {id}"),
            )),
        }
    }

    pub(super) fn check_no_overlay(&self, point: Point) -> Result<(), Denial> {
        match self.overlays.keys().next() {
            None => Ok(()),
            Some(id) => {
                Err(denial(point, Field::State, "no overlay to be mounted", &format!("that of container {id}")))
            }
        }
    }

    /// Checks that an overlay is there and its container ended or never started; its container's identifier.
    pub(super) fn check_container_ended(&self, target: &str) -> Result<String, Denial> {
        let point = Point::UnmountOverlay;
        let Some(id) = self.overlays.keys().find(|id| Platform::overlay_target(id) == target) else {
            return Err(denial(point, Field::Target, "a mounted overlay", target));
        };
        if self.living.contains_key(id) {
            return Err(denial(point, Field::State, "a container that was shut down", &format!("{id}, which was not")));
        }
        Ok(id.clone())
    }

    pub(super) fn check_overlay_mounted(&self, id: &str) -> Result<(), Denial> {
        if self.overlays.contains_key(id) {
            return Ok(());
        }
        Err(denial(Point::CreateContainer, Field::ContainerId, "one whose overlay is mounted", id))
    }

    /// Whether the program of the policy's container in this place was let go.
    pub(super) fn was_started(&self, place: usize) -> bool {
        self.started.contains(&place)
    }

    /// Checks that a container was made and not shut down; whether the host gets its streams.
    pub(super) fn check_container_lives(&self, point: Point, id: &str) -> Result<bool, Denial> {
        self.check_lives(point, id).map(|life| life.stdio)
    }

    /// Checks that a container was made and not shut down.
    pub(super) fn check_lives(&self, point: Point, id: &str) -> Result<&Life, Denial> {
        self.living
            .get(id)
            .ok_or_else(|| denial(point, Field::ContainerId, "a container that was started and not shut down", id))
    }
}

/// Checks that an identifier is 64 lower-case hexadecimal digits, so that it can be part of a path.
pub(super) fn check_container_id(point: Point, id: &str) -> Result<(), Denial> {
    if id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(denial(point, Field::ContainerId, "64 lower-case hexadecimal digits", id))
}

/// Checks that an overlay goes where its container's identifier says.
pub(super) fn check_overlay_target(id: &str, target: &str) -> Result<(), Denial> {
    let expected = Platform::overlay_target(id);
    if expected == target { Ok(()) } else { Err(denial(Point::MountOverlay, Field::Target, &expected, target)) }
}

fn denial(point: Point, field: Field, expected: &str, got: &str) -> Denial {
    Denial::new(point, vec![Reason::new(field, expected, got)])
}
