//! From an image and options to a container of the group, and to the request that makes it.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result, bail};
use caveau_cose::PublicKey;
use caveau_fragment::{PrivateKey, pem::blocks};
use caveau_group::{
    Capability, Container, EnvRule, Group, ImageParts, KeyDigest, Listener, Mount, NetworkRules, Overrides, Owner,
    Owners, Permissions, Protocol, Right,
};
use caveau_launch::{PortForward, Transport};
use caveau_policy::PAST_NETWORK_RULES;
use caveau_protocol::{Capabilities, ContainerId, CreateContainer, Limits, ProcessSpec, TerminalSize, TmpfsMount};
use caveau_registry::Image;

use crate::{args::ContainerOptions, files, ui, units, words};

/// How a process's streams are set up; not the policy's matter but for `stdio`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// A terminal of this size instead of pipes.
    pub(crate) terminal: Option<TerminalSize>,
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
    Ok(Container::from_image(parts, overrides(options)?)?)
}

/// The options as what was asked on top of the image.
fn overrides(options: &ContainerOptions) -> Result<Overrides> {
    let volumes = options.volume.iter().map(|volume| volume_mount(volume));
    let tmpfs = options.tmpfs.iter().map(|mount| mount.parse::<Mount>().with_context(|| format!("--tmpfs {mount:?}")));
    let (cap_add, cap_drop) = capabilities(options)?;
    Ok(Overrides {
        args: options.arguments.clone(),
        entrypoint: options
            .entrypoint
            .as_ref()
            .map(|program| if program.is_empty() { Vec::new() } else { vec![program.clone()] }),
        env: options.env.iter().map(|variable| environment_variable(variable)).collect::<Result<_>>()?,
        working_dir: options.workdir.clone(),
        user: options.user.clone(),
        tmpfs: volumes.chain(tmpfs).collect::<Result<_>>()?,
        cap_add,
        cap_drop,
        no_new_privileges: options.no_new_privileges,
        read_only: options.read_only,
        stdio: !options.no_stdio,
        terminal: options.tty,
        exec: options.allow_exec.iter().map(|command| words::split(command)).collect::<Result<_>>()?,
        must_run: options.must_run,
        require_mounts: options.require_mounts,
        limits: caveau_group::Limits {
            memory_bytes: options
                .container_memory
                .as_deref()
                .map(units::bytes)
                .transpose()
                .context("--container-memory")?,
            cpu_millis: options.container_cpus.as_deref().map(units::millis).transpose().context("--container-cpus")?,
            pids: options.container_pids,
        },
        ..Overrides::default()
    })
}

/// What is to be had beyond Docker's 14 and what of them is not. `ALL` is every one, and, as under Docker, what is added by
/// name stays although all are dropped.
fn capabilities(options: &ContainerOptions) -> Result<(Vec<Capability>, Vec<Capability>)> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("all");
    let named = |option: &str, names: &[String]| -> Result<Vec<Capability>> {
        let names = names.iter().filter(|name| !is_all(name));
        names.map(|name| name.parse().with_context(|| format!("{option} {name}"))).collect()
    };
    let mut add = named("--cap-add", &options.cap_add)?;
    let mut drop = named("--cap-drop", &options.cap_drop)?;
    if options.cap_drop.iter().any(is_all) {
        drop.extend(Capability::all().filter(|capability| !add.contains(capability)));
    }
    if options.cap_add.iter().any(is_all) {
        add.extend(Capability::all());
    }
    if options.restrict_network {
        if let Some(past) = add.iter().find(|capability| PAST_NETWORK_RULES.contains(&capability.name())) {
            bail!(
                "--restrict-network: a container with {past} could get round it; leave that capability out of --cap-add"
            );
        }
        drop.push("NET_RAW".parse()?);
    }
    Ok((add, drop))
}

/// A group of this one container, with what the options let the host do to it.
///
/// # Errors
/// Where a rule for the network is not of its form.
pub(crate) fn group(container: Container, options: &ContainerOptions) -> Result<Group> {
    let permissions = Permissions { memory_scratch: options.memory_scratch, ..Permissions::default() };
    Ok(Group { containers: vec![container], permissions, network: network(options)?, owners: owners(options)? })
}

/// The owners.
fn owners(options: &ContainerOptions) -> Result<Owners> {
    let owner = |text: &String| -> Result<Owner> {
        let (key, rights) = match text.rsplit_once('=') {
            Some((key, rights)) => (key, rights.split(',').map(str::parse).collect::<Result<_, _>>()?),
            None => (text.as_str(), Right::ALL.into()),
        };
        Ok(Owner { key: key.parse().or_else(|_| owner_key(Path::new(key)))?, may: rights })
    };
    let owners = options.owner.iter().map(|text| owner(text).with_context(|| format!("--owner {text}")));
    Owners::try_from(owners.collect::<Result<Vec<_>>>()?).context("--owner")
}

/// By what policies know the key in a file: a public one, or the public part of a private one, in PEM.
///
/// # Errors
/// Where there is none in it.
pub(crate) fn owner_key(file: &Path) -> Result<KeyDigest> {
    let text = files::read_text(file, files::MAX_DOCUMENT)?;
    let failed = || format!("failed to use {}", file.display());
    let public = blocks(&text).with_context(failed)?.into_iter().find(|block| block.label == "PUBLIC KEY");
    let spki = match public {
        // Of a key that no owner could show, a policy would be made that gives nobody anything.
        Some(block) => PublicKey::from_spki(&block.der)
            .context("the public key is none of P-256, P-384, P-521, Ed25519, and RSA of 2048 to 8192 bits")
            .with_context(failed)?
            .to_spki(),
        None => PrivateKey::from_pem(&text).and_then(|key| Ok(key.public_key()?.to_spki())).with_context(failed)?,
    };
    Ok(KeyDigest::of(&spki))
}

/// The ports that are forwarded.
///
/// # Errors
/// Where one is not of its form.
pub(crate) fn published(options: &ContainerOptions) -> Result<Vec<PortForward>> {
    options.publish.iter().map(|port| Ok(port.parse()?)).collect()
}

/// What the group may do on the network, where that is restricted: published ports can be connected to.
fn network(options: &ContainerOptions) -> Result<Option<NetworkRules>> {
    let mut rules = NetworkRules::default();
    for forward in published(options)? {
        let protocol = match forward.transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        rules.listen.push(Listener { protocol, port: forward.guest });
    }
    for port in &options.allow_listen {
        rules.listen.push(NetworkRules::listener(port).with_context(|| format!("--allow-listen {port}"))?);
    }
    rules.listen.sort_unstable();
    rules.listen.dedup();
    for to in &options.allow_connect {
        if to == "dns" {
            rules.connect.extend(NetworkRules::resolver(IpAddr::V4(caveau_protocol::network::NAME_SERVER)));
            continue;
        }
        rules.connect.push(NetworkRules::destination(to).with_context(|| format!("--allow-connect {to}"))?);
    }
    Ok(options.restrict_network.then_some(rules))
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
        EnvRule::Exact { value, required } => (*required || streams.terminal.is_some()).then(|| value.clone()),
        EnvRule::Pattern { .. } => None,
    });
    let names = |set: &std::collections::BTreeSet<Capability>| {
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
    match std::env::var(text) {
        Ok(value) => Ok(format!("{text}={value}")),
        Err(std::env::VarError::NotPresent) => bail!("--env {text}: it is not set here; set it, or give {text}=VALUE"),
        Err(std::env::VarError::NotUnicode(_)) => bail!("--env {text}: its value here is not UTF-8"),
    }
}

/// A memory file system from `tmpfs:PATH[:OPTIONS]`.
fn volume_mount(text: &str) -> Result<Mount> {
    match text.strip_prefix("tmpfs:") {
        Some(mount) => mount.parse().with_context(|| format!("--volume {text:?}")),
        None => bail!(
            "--volume {text:?}: only memory file systems can be mounted so far: write tmpfs:/path or tmpfs:/path:size=64m"
        ),
    }
}

/// The wire's form of a mount.
fn tmpfs_mount(mount: &Mount) -> TmpfsMount {
    TmpfsMount { destination: mount.destination.clone(), options: mount.options.clone() }
}

/// What the person must know of what was asked, also one who asked for quiet.
pub(crate) fn warn(options: &ContainerOptions) {
    if !options.env.is_empty() {
        ui::warning("values given with -e stand in the policy, which the host can read: never give secrets that way");
    }
}

/// Checks what can be checked of the options without an image.
///
/// # Errors
/// The first option that is not of its form.
pub(crate) fn check(options: &ContainerOptions) -> Result<()> {
    network(options)?;
    Ok(overrides(options)?.check()?)
}

/// One more process in a container, with what its first one has.
pub(crate) fn another_process(first: &ProcessSpec, args: Vec<String>, streams: Streams) -> ProcessSpec {
    let mut env = first.env.clone();
    if streams.terminal.is_some() && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    ProcessSpec { args, env, terminal: streams.terminal, stdin: streams.stdin, ..first.clone() }
}
