//! Containers and their processes: from requests to plans, each asked of the policy.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use caveau_group::{Capabilities, Capability, KeyDigest, Mount};
use caveau_policy::{Enforcer, ExecProcess, request};
use caveau_protocol::{
    AgentError, AgentReply, ContainerId, ContainerStats, CreateContainer, Exec, Limits, ProcessId, ProcessSpec,
    TerminalSize,
};
use caveau_runtime::{ContainerPlan, Ids, ProcessPlan, StdioKind, resolve_user};
use sha2::{Digest as _, Sha256};

use crate::{
    answer::{Answer, denied, done, failed, invalid, no_exec, runtime},
    context::{ContainerFiles, Contents, Context, VARIABLE},
    live::{Live, Viewer},
    outside::{Contained, Maker, Runs},
};

/// Mode bits withheld from new files, as under Docker.
const UMASK: (&str, u32) = ("0022", 0o022);

/// Executed processes that may run at once in one container.
const MAX_EXECUTED: usize = 512;

/// The containers.
pub(crate) struct Containers<M: Maker> {
    maker: M,
    live: Arc<Live>,
    known: BTreeMap<ContainerId, Known<M::Container>>,
    made: u32,
}

/// A process of one of its containers.
type ProcessOf<M> = <<M as Maker>::Container as Contained>::Process;

/// Makes a process that is permitted.
type Make<'a, M> = dyn FnMut(ExecProcess) -> Result<ProcessOf<M>, AgentError> + 'a;

/// A container, and what its further processes are made from.
struct Known<C: Contained> {
    container: C,
    root: std::path::PathBuf,
    command: Vec<String>,
    seccomp: Option<String>,
    /// Those that may still run, and the command that each was asked for with.
    executed: BTreeMap<u32, (C::Process, Vec<String>)>,
    /// Number of the last one.
    last_executed: u32,
    files: ContainerFiles,
}

impl<M: Maker> Containers<M> {
    /// None yet.
    pub(crate) fn new(maker: M, live: Arc<Live>) -> Self {
        Self { maker, live, known: BTreeMap::new(), made: 0 }
    }

    /// What containers will see of the guest.
    ///
    /// # Errors
    /// Where its files cannot be written.
    pub(crate) fn context(&self, contents: &Contents<'_>) -> std::io::Result<Context> {
        let (folder, space) = self.maker.space();
        Context::new(folder, space, contents)
    }

    /// Makes a container in its mounted root file system.
    pub(crate) fn create(
        &mut self,
        step: CreateContainer,
        root: &Path,
        enforcer: &mut Enforcer,
        context: &Context,
    ) -> Answer {
        let ids = user(root, &step.process.user)?;
        let asked = asked(&step, &ids);
        let granted = enforcer.create_container(&asked).map_err(|denial| denied(enforcer, denial))?;
        let number = self.made.checked_add(1).ok_or_else(|| invalid("too many containers were made"))?;
        self.made = number;
        let maker = &mut self.maker;
        let may_seal = enforcer.seals_output();
        let made = enforcer.carry_out(granted, |permit| {
            let permitted = permit.into_inner();
            let is_sealed = may_seal && !permitted.stdio;
            // Whoever reads sealed output types nothing.
            let sealed = StdioKind { attached: true, input: false, terminal: None };
            let kind = if is_sealed { sealed } else { streams(&step.process, permitted.stdio) };
            let mut plan = plan(&step, permitted, kind.terminal.is_some(), ids, root, context)?;
            let files =
                context.files(number, &plan.hostname).map_err(|error| failed("write the container's files", &error))?;
            plan.binds = context.binds(&files);
            match maker.create(&plan, kind) {
                Ok(made) => Ok((made, plan, files, is_sealed)),
                Err(error) => {
                    // The cause is what is told.
                    let _ = files.remove();
                    Err(runtime(&error))
                }
            }
        });
        let (container, plan, files, is_sealed) = made?;
        let (id, seen) = (ProcessId::init(step.container.clone()), container.init().seen());
        if is_sealed {
            self.live.insert_sealed(id, seen).map_err(|error| failed("keep the container's output", &error))?;
        } else {
            self.live.insert(id, seen, Viewer::Host);
        }
        let known = Known {
            container,
            root: root.to_owned(),
            command: plan.process.args,
            seccomp: plan.process.seccomp,
            executed: BTreeMap::new(),
            last_executed: 0,
            files,
        };
        self.known.insert(step.container, known);
        done()
    }

    /// Lets a container's first process go. That it may run was decided when it was made; now it may be too early.
    pub(crate) fn start(&mut self, id: &ContainerId, enforcer: &mut Enforcer) -> Answer {
        let known = self.find(id)?;
        let granted = enforcer.start_container(id.as_str()).map_err(|denial| denied(enforcer, denial))?;
        enforcer.carry_out(granted, |_permit| known.container.start()).map_err(|error| runtime(&error))?;
        done()
    }

    /// Runs one more process for the host.
    pub(crate) fn exec(&mut self, step: Exec, enforcer: &mut Enforcer, context: &Context) -> Answer {
        self.execute(step, Viewer::Host, context, |asked, make| {
            let granted = enforcer.exec_in_container(asked).map_err(|denial| denied(enforcer, denial))?;
            enforcer.carry_out(granted, |permit| make(permit.into_inner()))
        })
    }

    /// Runs one more process for an owner, who alone sees it.
    pub(crate) fn owner_exec(
        &mut self,
        key: KeyDigest,
        step: Exec,
        enforcer: &mut Enforcer,
        context: &Context,
    ) -> Answer {
        self.execute(step, Viewer::Owner(key), context, |asked, make| {
            let permit = enforcer.owner_exec(Some(&key), asked).map_err(|error| no_exec(&error))?;
            make(permit.into_inner())
        })
    }

    /// Runs one more process as it is permitted.
    fn execute(
        &mut self,
        step: Exec,
        viewer: Viewer,
        context: &Context,
        permit: impl FnOnce(&request::ExecInContainer, &mut Make<'_, M>) -> Result<ProcessOf<M>, AgentError>,
    ) -> Answer {
        let live = Arc::clone(&self.live);
        let known = self.find(&step.container)?;
        known.executed.retain(|_, (process, _)| process.exit().is_none());
        if known.executed.len() >= MAX_EXECUTED {
            return Err(invalid(format!("{MAX_EXECUTED} executed processes run in the container: no more can")));
        }
        if !live.has_room(&step.container) {
            return Err(invalid("too many executed processes have ended unheard: read their output and exits first"));
        }
        let number = known.last_executed.checked_add(1).ok_or_else(|| invalid("too many processes were executed"))?;
        let process = &step.process;
        let ids = user(&known.root, &process.user)?;
        let asked = request::ExecInContainer {
            container_id: step.container.to_string(),
            arg_list: process.args.clone(),
            env_list: process.env.clone(),
            working_dir: process.cwd.clone(),
            no_new_privileges: process.no_new_privileges,
            user: user_name(&ids),
            groups: group_names(&ids),
            umask: UMASK.0.to_owned(),
            capabilities: wire_capabilities(process),
        };
        let seccomp = known.seccomp.clone();
        let container = &mut known.container;
        let made = permit(&asked, &mut |permitted: ExecProcess| {
            let kind = streams(process, permitted.stdio);
            let plan = ProcessPlan {
                args: permitted.command,
                env: environment(permitted.env, context, &ids, kind.terminal.is_some()),
                cwd: permitted.working_dir,
                ids: ids.clone(),
                umask: UMASK.1,
                capabilities: capabilities(&permitted.capabilities)?,
                no_new_privileges: permitted.no_new_privileges,
                seccomp: seccomp.clone(),
            };
            container.execute(&plan, kind).map_err(|error| runtime(&error))
        });
        let made = made?;
        known.last_executed = number;
        live.insert(ProcessId { container: step.container, exec: Some(number) }, made.seen(), viewer);
        known.executed.insert(number, (made, asked.arg_list));
        Ok((AgentReply::Exec { exec: number }, Vec::new()))
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, id: &ProcessId, signal: u8, enforcer: &mut Enforcer) -> Answer {
        let known = self.find(&id.container)?;
        let (process, command) = match id.exec {
            None => (known.container.init(), &known.command),
            Some(exec) => {
                let executed = known.executed.get(&exec);
                let (process, command) =
                    executed.ok_or_else(|| invalid(format!("container {} has no process {exec}", id.container)))?;
                (process, command)
            }
        };
        let asked = request::SignalContainerProcess {
            container_id: id.container.to_string(),
            signal: signal.into(),
            is_init_process: id.exec.is_none(),
            arg_list: command.clone(),
        };
        let granted = enforcer.signal_container_process(&asked).map_err(|denial| denied(enforcer, denial))?;
        enforcer.carry_out(granted, |_permit| process.signal(signal)).map_err(|error| runtime(&error))?;
        done()
    }

    /// What a container uses.
    pub(crate) fn stats(&mut self, id: &ContainerId, enforcer: &mut Enforcer) -> Answer {
        let known = self.find(id)?;
        let _permit = enforcer.get_properties().map_err(|denial| denied(enforcer, denial))?;
        let usage = known.container.usage().map_err(|error| runtime(&error))?;
        let (received, sent) = network_bytes();
        let stats = ContainerStats {
            cpu_us: usage.cpu_us,
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes: usage.memory_limit_bytes,
            memory_peak_bytes: usage.memory_peak_bytes,
            pids: usage.pids,
            network_received_bytes: received,
            network_sent_bytes: sent,
            agent_memory_bytes: resident_bytes(),
        };
        Ok((AgentReply::Stats(stats), Vec::new()))
    }

    /// Removes a container that has ended.
    pub(crate) fn delete(&mut self, id: &ContainerId, enforcer: &mut Enforcer) -> Answer {
        let known = self.find(id)?;
        // One that was never started has nothing to lose.
        if known.container.is_started() && known.container.init().exit().is_none() {
            return Err(invalid(format!("container {id} runs")));
        }
        let asked = request::ShutdownContainer { container_id: id.to_string() };
        let granted = enforcer.shutdown_container(&asked).map_err(|denial| denied(enforcer, denial))?;
        enforcer.carry_out(granted, |_permit| known.container.delete()).map_err(|error| runtime(&error))?;
        // Nothing of the container is left that could use them; should the kernel keep them, the guest's end frees them.
        let _ = known.files.remove();
        self.known.remove(id);
        self.live.remove(id);
        done()
    }

    /// Kills whatever runs, for the end of the guest.
    pub(crate) fn kill_all(&self) {
        for known in self.known.values() {
            // What does not die now dies with the VM.
            let _ = known.container.kill();
        }
    }

    fn find(&mut self, id: &ContainerId) -> Result<&mut Known<M::Container>, AgentError> {
        self.known.get_mut(id).ok_or_else(|| invalid(format!("there is no container {id}")))
    }
}

/// The streams of a process. Without anybody at its other end a terminal would be an error to write to: there is none then.
fn streams(process: &ProcessSpec, permitted: bool) -> StdioKind {
    let attached = permitted && process.stdio;
    StdioKind { attached, input: process.stdin, terminal: process.terminal.filter(|_| attached).map(terminal_size) }
}

/// The runtime's form of a size.
pub(crate) fn terminal_size(size: TerminalSize) -> caveau_runtime::TerminalSize {
    caveau_runtime::TerminalSize { rows: size.rows, columns: size.columns }
}

/// The policy's question for a new container.
fn asked(step: &CreateContainer, ids: &Ids) -> request::CreateContainer {
    let mounts = step.tmpfs.iter().map(|mount| request::Mount {
        destination: mount.destination.clone(),
        options: mount.options.clone(),
        source: "tmpfs".to_owned(),
        kind: "tmpfs".to_owned(),
    });
    let digest = |text: &String| hex::encode(Sha256::digest(text));
    request::CreateContainer {
        container_id: step.container.to_string(),
        arg_list: step.process.args.clone(),
        env_list: step.process.env.clone(),
        working_dir: step.process.cwd.clone(),
        mounts: mounts.collect(),
        devices: Vec::new(),
        privileged: step.privileged,
        no_new_privileges: step.process.no_new_privileges,
        user: user_name(ids),
        groups: group_names(ids),
        umask: UMASK.0.to_owned(),
        capabilities: wire_capabilities(&step.process),
        seccomp_profile_sha256: step.seccomp.as_ref().map(digest).unwrap_or_default(),
        read_only_root: step.read_only,
        limits: limits(&step.limits),
    }
}

/// The plan of a permitted container.
fn plan(
    step: &CreateContainer,
    permitted: caveau_policy::CreateContainer,
    terminal: bool,
    ids: Ids,
    root: &Path,
    context: &Context,
) -> Result<ContainerPlan, AgentError> {
    let plan = ContainerPlan {
        process: ProcessPlan {
            args: permitted.command,
            env: environment(permitted.env, context, &ids, terminal),
            cwd: permitted.working_dir,
            ids,
            umask: UMASK.1,
            capabilities: capabilities(&permitted.capabilities)?,
            no_new_privileges: permitted.no_new_privileges,
            // Its digest was the policy's question.
            seccomp: step.seccomp.clone(),
        },
        terminal,
        hostname: step.hostname.clone(),
        root: root.to_owned(),
        read_only: permitted.read_only_root,
        privileged: permitted.privileged,
        tmpfs: permitted.mounts.into_iter().map(tmpfs).collect(),
        binds: Vec::new(),
        limits: permitted.limits,
    };
    // Checked before a file is made from it: the host name goes into one.
    plan.check().map_err(|error| runtime(&error))?;
    Ok(plan)
}

fn tmpfs(mount: request::Mount) -> Mount {
    Mount { destination: mount.destination, source: mount.source, kind: mount.kind, options: mount.options }
}

fn limits(limits: &Limits) -> caveau_group::Limits {
    caveau_group::Limits { memory_bytes: limits.memory_bytes, cpu_millis: limits.cpu_millis, pids: limits.pids }
}

/// The user by the container's own files: what the policy is asked about is what will run.
fn user(root: &Path, text: &str) -> Result<Ids, AgentError> {
    resolve_user(root, text).map_err(|error| invalid(crate::answer::chain(&error)))
}

fn user_name(ids: &Ids) -> request::IdName {
    request::IdName { id: ids.uid.to_string(), name: ids.user_name.clone() }
}

fn group_names(ids: &Ids) -> Vec<request::IdName> {
    let primary = request::IdName { id: ids.gid.to_string(), name: ids.group_name.clone() };
    let others = ids.groups.iter().map(|group| request::IdName { id: group.gid.to_string(), name: group.name.clone() });
    [primary].into_iter().chain(others).collect()
}

fn wire_capabilities(process: &ProcessSpec) -> request::Capabilities {
    let sets = process.capabilities.clone();
    request::Capabilities {
        ambient: sets.ambient,
        bounding: sets.bounding,
        effective: sets.effective,
        inheritable: sets.inheritable,
        permitted: sets.permitted,
    }
}

fn capabilities(sets: &request::Capabilities) -> Result<Capabilities, AgentError> {
    let set = |names: &[String]| {
        let parsed = names.iter().map(|name| name.parse::<Capability>());
        parsed.collect::<Result<_, _>>().map_err(|error| invalid(crate::answer::chain(&error)))
    };
    Ok(Capabilities {
        ambient: set(&sets.ambient)?,
        bounding: set(&sets.bounding)?,
        effective: set(&sets.effective)?,
        inheritable: set(&sets.inheritable)?,
        permitted: set(&sets.permitted)?,
    })
}

/// The environment with what every process gets of the guest: the place of the security context, which no policy needs to
/// name and no host can redirect; and, unless they are set, the user's home directory and the terminal's kind, as Docker
/// does.
fn environment(env: Vec<String>, context: &Context, ids: &Ids, terminal: bool) -> Vec<String> {
    let sets = |variable: &str, name: &str| variable.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    let mut all: Vec<String> = env.into_iter().filter(|variable| !sets(variable, VARIABLE)).collect();
    all.push(context.variable());
    if !all.iter().any(|variable| sets(variable, "HOME")) {
        all.push(format!("HOME={}", ids.home));
    }
    if terminal && !all.iter().any(|variable| sets(variable, "TERM")) {
        all.push("TERM=xterm".to_owned());
    }
    all
}

/// Bytes that the card received and sent.
fn network_bytes() -> (u64, u64) {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/sys/class/net/eth0/statistics/{name}")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    (read("rx_bytes"), read("tx_bytes"))
}

/// The agent's own resident memory in bytes.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    kib.saturating_mul(1024)
}
