//! What owners may do that the host may not, by the policy's `caveau.owners`.

use std::collections::VecDeque;

use caveau_group::{KeyDigest, Right};
use serde::Serialize;

use super::{Enforcer, Permit};
use crate::{denial::Denial, permitted, point::Point, request};

/// Most denials that are kept for owners; older ones are forgotten.
const MOST_DENIALS: usize = 64;

/// The policy gives a key no such right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy gives {} no right to {right}", whom(.key.as_ref()))]
pub struct NoRight {
    /// The key that was proved; absent where none was.
    pub key: Option<KeyDigest>,
    /// What it was to allow.
    pub right: Right,
}

fn whom(key: Option<&KeyDigest>) -> String {
    key.map_or_else(|| "somebody who showed no key".to_owned(), |key| format!("key {key}"))
}

/// Why an owner's process may not be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoExec {
    /// What holds under every policy is in the way.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// No right to it.
    #[error(transparent)]
    NoRight(#[from] NoRight),
}

/// A denial, with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NumberedDenial {
    /// Counts up from 1.
    pub number: u64,
    /// The denial, complete; without values of variables.
    #[serde(flatten)]
    pub denial: Denial,
}

/// The latest denials.
#[derive(Debug, Default)]
pub(super) struct Denials {
    kept: VecDeque<NumberedDenial>,
    last: u64,
}

impl Enforcer {
    /// Keeps a denial for owners who may read them; does nothing where there are none.
    pub fn keep_denial(&mut self, denial: Denial) {
        if !self.policy.owners().anybody_may(Right::Denials) {
            return;
        }
        let Denials { kept, last } = &mut self.denials;
        *last = last.saturating_add(1);
        if kept.len() >= MOST_DENIALS {
            kept.pop_front();
        }
        kept.push_back(NumberedDenial { number: *last, denial });
    }

    /// The denials that were kept with this permit's holder in mind, those after a number.
    pub fn denials(&self, permit: Permit<permitted::ReadDenials>, after: u64) -> Vec<NumberedDenial> {
        let permitted::ReadDenials = permit.into_inner();
        self.denials.kept.iter().filter(|denial| denial.number > after).cloned().collect()
    }

    /// May the holder of this key read denials? Changes nothing.
    ///
    /// # Errors
    /// [`NoRight`].
    pub fn owner_denials(&self, key: Option<&KeyDigest>) -> Result<Permit<permitted::ReadDenials>, NoRight> {
        self.check_owner(key, Right::Denials).map(|()| Permit::grant(permitted::ReadDenials))
    }

    /// May the holder of this key read what containers write whose streams the host does not get? Changes nothing.
    ///
    /// # Errors
    /// [`NoRight`].
    pub fn owner_logs(&self, key: Option<&KeyDigest>) -> Result<Permit<permitted::ReadSealedOutput>, NoRight> {
        self.check_owner(key, Right::Logs).map(|()| Permit::grant(permitted::ReadSealedOutput))
    }

    /// May the holder of this key run this process in this container, and have its streams? The container must live, and the
    /// process must not get round the network's rules. Changes nothing.
    ///
    /// # Errors
    /// [`NoExec`].
    pub fn owner_exec(
        &mut self,
        key: Option<&KeyDigest>,
        request: &request::ExecInContainer,
    ) -> Result<Permit<permitted::ExecProcess>, NoExec> {
        self.check_owner(key, Right::Exec)?;
        let point = Point::ExecInContainer;
        self.guard.check_container_lives(point, &request.container_id)?;
        self.check_network(point, &request.capabilities, false)?;
        Ok(Permit::grant(permitted::ExecProcess {
            container_id: request.container_id.clone(),
            command: request.arg_list.clone(),
            env: request.env_list.clone(),
            working_dir: request.working_dir.clone(),
            no_new_privileges: request.no_new_privileges,
            user: request.user.clone(),
            groups: request.groups.clone(),
            umask: request.umask.clone(),
            capabilities: request.capabilities.clone(),
            stdio: true,
        }))
    }

    /// Whether somebody may read what containers write whose streams the host does not get: else it is thrown away.
    #[must_use]
    pub fn seals_output(&self) -> bool {
        self.policy.owners().anybody_may(Right::Logs)
    }

    fn check_owner(&self, key: Option<&KeyDigest>, right: Right) -> Result<(), NoRight> {
        let may = key.is_some_and(|key| self.policy.owners().may(key, right));
        if may { Ok(()) } else { Err(NoRight { key: key.copied(), right }) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{HostData, PolicyDigest};

    fn enforcer(owners: &serde_json::Value) -> Enforcer {
        let text = format!(
            "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\ncontainers := []\n\
             caveau := {{\"owners\": {owners}}}\nmount_device := data.framework.mount_device\n"
        );
        Enforcer::new(&text, &HostData::new(*PolicyDigest::of(&text).as_bytes())).unwrap()
    }

    fn denied(enforcer: &mut Enforcer) -> Denial {
        let asked = request::MountDevice { target: crate::Platform::layer_target(0), device_hash: "cd".repeat(32) };
        enforcer.mount_device(&asked).unwrap_err()
    }

    fn exec() -> request::ExecInContainer {
        let nobody = request::IdName { id: "0".to_owned(), name: "root".to_owned() };
        request::ExecInContainer {
            container_id: "ab".repeat(32),
            arg_list: vec!["/bin/sh".to_owned()],
            env_list: Vec::new(),
            working_dir: "/".to_owned(),
            no_new_privileges: true,
            user: nobody,
            groups: Vec::new(),
            umask: "0022".to_owned(),
            capabilities: request::Capabilities::default(),
        }
    }

    #[test]
    fn a_right_is_its_owners_alone() {
        let (one, two) = (KeyDigest::of(b"one"), KeyDigest::of(b"two"));
        let mut enforcer = enforcer(&json!([{"key": one, "may": ["denials"]}, {"key": two, "may": ["exec"]}]));
        assert!(enforcer.owner_denials(Some(&one)).is_ok());
        for (key, right) in
            [(None, Right::Denials), (Some(two), Right::Denials), (Some(KeyDigest::of(b"x")), Right::Denials)]
        {
            assert_eq!(enforcer.owner_denials(key.as_ref()).unwrap_err(), NoRight { key, right });
        }
        assert_eq!(enforcer.owner_logs(Some(&one)).unwrap_err(), NoRight { key: Some(one), right: Right::Logs });
        assert!(!enforcer.seals_output());
        let refused = enforcer.owner_exec(Some(&one), &exec()).unwrap_err();
        assert_eq!(refused, NoExec::NoRight(NoRight { key: Some(one), right: Right::Exec }));
        // It may, but there is no such container.
        assert!(matches!(enforcer.owner_exec(Some(&two), &exec()), Err(NoExec::Denied(_))));
        assert!(matches!(enforcer.owner_exec(None, &exec()), Err(NoExec::NoRight(_))));
    }

    #[test]
    fn the_latest_denials_are_kept_whole_where_somebody_may_read_them() {
        let one = KeyDigest::of(b"one");
        let mut reads = enforcer(&json!([{"key": one, "may": ["denials"]}]));
        for _ in 0..MOST_DENIALS + 3 {
            let denial = denied(&mut reads);
            reads.keep_denial(denial);
        }
        let permit = reads.owner_denials(Some(&one)).unwrap();
        let kept = reads.denials(permit, 0);
        assert_eq!((kept.len(), kept[0].number), (MOST_DENIALS, 4));
        let shown = serde_json::to_value(&kept[0]).unwrap();
        assert_eq!((&shown["number"], &shown["point"]), (&json!(4), &json!("mount_device")));
        let permit = reads.owner_denials(Some(&one)).unwrap();
        assert_eq!(reads.denials(permit, 66).len(), 1);
        let mut no_one = enforcer(&json!([{"key": one, "may": ["logs"]}]));
        let denial = denied(&mut no_one);
        no_one.keep_denial(denial);
        assert!(no_one.denials.kept.is_empty() && no_one.seals_output());
    }
}
