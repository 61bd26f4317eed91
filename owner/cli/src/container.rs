//! From an image and options to a container of the group, and to the request that makes it.

use anyhow::{Context as _, Result, bail};
use caveau_group::{Container, EnvRule, Group, ImageParts, Mount, Overrides, Permissions};
use caveau_protocol::{Capabilities, ContainerId, CreateContainer, Limits, ProcessSpec, TmpfsMount};
use caveau_registry::Image;

use crate::{args::ContainerOptions, words};

/// How a process's streams are set up; not the policy's matter but for `stdio`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// A terminal instead of pipes.
    pub(crate) terminal: bool,
    /// Standard input stays open.
    pub(crate) stdin: bool,
}

/// The container that an image and options describe.
///
/// # Errors
/// The first option that is not of its form.
pub(crate) fn container(image: &Image, options: &ContainerOptions) -> Result<Container> {
    let config = &image.config;
    let parts = ImageParts {
        reference: image.reference.clone(),
        layers: image.layers.iter().map(|layer| layer.root).collect(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        stop_signal: config.stop_signal.clone(),
    };
    let overrides = Overrides {
        args: options.arguments.clone(),
        entrypoint: options.entrypoint.as_ref().map(|program| vec![program.clone()]),
        env: options.env.iter().map(|variable| environment_variable(variable)).collect::<Result<_>>()?,
        working_dir: options.workdir.clone(),
        user: options.user.clone(),
        tmpfs: options.volume.iter().map(|volume| tmpfs(volume)).collect::<Result<_>>()?,
        no_new_privileges: options.no_new_privileges,
        read_only: options.read_only,
        stdio: !options.no_stdio,
        terminal: options.tty,
        exec: options.allow_exec.iter().map(|command| words::split(command)).collect::<Result<_>>()?,
        ..Overrides::default()
    };
    Ok(Container::from_image(parts, overrides)?)
}

/// A group of this one container.
pub(crate) fn group(container: Container) -> Group {
    Group { containers: vec![container], permissions: Permissions::default() }
}

/// The request that makes the container, asking for exactly what it says.
pub(crate) fn create(
    container: &Container,
    id: ContainerId,
    streams: Streams,
    hostname: &str,
    limits: Limits,
) -> CreateContainer {
    CreateContainer {
        process: process(container, container.command.clone(), streams),
        container: id,
        hostname: hostname.to_owned(),
        privileged: container.privileged,
        read_only: container.read_only,
        tmpfs: container.mounts.iter().map(tmpfs_mount).collect(),
        seccomp: container.seccomp.as_ref().map(caveau_group::Seccomp::to_json),
        limits,
    }
}

/// A process of the container: its own, or one that is executed in it.
pub(crate) fn process(container: &Container, args: Vec<String>, streams: Streams) -> ProcessSpec {
    let env = container.env.iter().filter_map(|rule| match rule {
        EnvRule::Exact { value, required } => (*required || streams.terminal).then(|| value.clone()),
        EnvRule::Pattern { .. } => None,
    });
    let names = |set: &std::collections::BTreeSet<caveau_group::Capability>| {
        set.iter().map(|capability| capability.name().to_owned()).collect()
    };
    let sets = &container.capabilities;
    ProcessSpec {
        args,
        env: env.collect(),
        cwd: container.working_dir.clone(),
        user: container.user.text.clone(),
        capabilities: Capabilities {
            ambient: names(&sets.ambient),
            bounding: names(&sets.bounding),
            effective: names(&sets.effective),
            inheritable: names(&sets.inheritable),
            permitted: names(&sets.permitted),
        },
        no_new_privileges: container.no_new_privileges,
        terminal: streams.terminal,
        stdin: streams.stdin,
        stdio: container.stdio,
    }
}

/// `NAME=value` as given, or with the value that `NAME` has here.
fn environment_variable(text: &str) -> Result<String> {
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    let value = std::env::var(text)
        .with_context(|| format!("--env {text}: the variable is not set here; give {text}=VALUE"))?;
    Ok(format!("{text}={value}"))
}

/// A memory file system from `tmpfs:PATH[:OPTIONS]`.
fn tmpfs(text: &str) -> Result<Mount> {
    match text.strip_prefix("tmpfs:") {
        Some(mount) => Ok(mount.parse()?),
        None => bail!(
            "--volume {text:?}: only memory file systems can be mounted so far: write tmpfs:/path or tmpfs:/path:size=64m"
        ),
    }
}

/// The wire's form of a mount.
fn tmpfs_mount(mount: &Mount) -> TmpfsMount {
    TmpfsMount { destination: mount.destination.clone(), options: mount.options.clone() }
}

/// Checks what can be checked of the options without an image.
///
/// # Errors
/// The first option that is not of its form.
pub(crate) fn check(options: &ContainerOptions) -> Result<()> {
    options.env.iter().try_for_each(|variable| environment_variable(variable).map(drop))?;
    options.volume.iter().try_for_each(|volume| tmpfs(volume).map(drop))?;
    options.allow_exec.iter().try_for_each(|command| words::split(command).map(drop))
}

/// One more process in a container, with what its first one has.
pub(crate) fn another_process(first: &ProcessSpec, args: Vec<String>, streams: Streams) -> ProcessSpec {
    let mut env = first.env.clone();
    if streams.terminal && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    ProcessSpec { args, env, terminal: streams.terminal, stdin: streams.stdin, ..first.clone() }
}
