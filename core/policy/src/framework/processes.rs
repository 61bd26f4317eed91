//! Further processes: in a container, and in the guest itself.

use std::sync::Arc;

use super::{Decision, Framework, Verdict, environment, lifecycle};
use crate::{
    denial::{Field, Reason, quoted},
    model::{Container, ExternalProcess},
    request::{ExecExternal, ExecInContainer},
    state::Change,
};

impl Framework<'_> {
    pub(super) fn exec_in_container(&self, request: &ExecInContainer) -> Decision {
        let id = &request.container_id;
        self.check_started(id)?;
        let known = self.matching(id);
        let alike: Vec<_> = known
            .iter()
            .filter(|container| self.exec_differences(container, request).next().is_none())
            .cloned()
            .collect();
        if alike.is_empty() {
            let reasons = |container: &Arc<Container>| -> Vec<Reason> {
                let fields = self.exec_differences(container, request);
                fields.map(|field| self.exec_reason(field, container, request)).collect()
            };
            return Err(known.iter().flat_map(reasons).collect());
        }
        let privileged = self.state.started.get(id).copied().unwrap_or_default();
        let (env, with_env) = self.narrow_by_env(&alike, &request.env_list)?;
        let (capabilities, containers) = self.narrow_by_capabilities(&with_env, &request.capabilities, privileged)?;
        Ok(Verdict {
            changes: vec![Change::SetMatches { id: id.clone(), containers: containers.clone(), known: true }],
            env: Some(env),
            capabilities: Some(capabilities),
            containers,
            ..Verdict::default()
        })
    }

    /// Processes that may run in the guest: the policy's and the fragments'.
    pub(super) fn external_processes(&self) -> impl Iterator<Item = &ExternalProcess> {
        let fragments = self.policy.external_processes_count.then(|| self.state.loaded.external_processes());
        self.policy.external_processes.iter().chain(fragments.into_iter().flatten())
    }

    pub(super) fn exec_external(&self, request: &ExecExternal) -> Decision {
        let alike: Vec<&ExternalProcess> = self
            .external_processes()
            .filter(|process| {
                process.working_dir.as_ref() == Some(&request.working_dir)
                    && process.command.as_ref() == Some(&request.arg_list)
            })
            .collect();
        if alike.is_empty() {
            let allowed = self.external_processes();
            let expected: Vec<_> = allowed.map(|process| quoted(process.command.iter().flatten())).collect();
            let expected = if expected.is_empty() { "no process".to_owned() } else { expected.join(" or ") };
            return Err(vec![Reason::new(Field::Command, expected, quoted(&request.arg_list))]);
        }
        let dropping = self.policy.flags.environment_dropping;
        let Some(env) = environment::agreed(&alike, &request.env_list, dropping) else {
            return Err(vec![lifecycle::undecidable(Field::Env)]);
        };
        let takes = |process: &&&ExternalProcess| environment::accepted(process.env_rules.as_deref(), &env);
        let left: Vec<_> = alike.iter().filter(takes).collect();
        if left.is_empty() {
            return Err(alike.iter().flat_map(|process| environment::differences(process, &env)).collect());
        }
        let stdio = lifecycle::agreed_stdio(left.iter().map(|process| process.allow_stdio_access))?;
        Ok(Verdict { env: Some(env), stdio: Some(stdio), ..Verdict::default() })
    }
}
