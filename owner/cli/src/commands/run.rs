//! `caveau run`: from an image to a container in its VM.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use caveau_cose::MAX_ENVELOPE_BYTES;
use caveau_group::Container;
use caveau_guest_image::{GuestFolder, MANIFEST_FILE};
use caveau_launch::{
    ContainerPlan, GroupName, GuestFiles, LaunchPlan, LayerFile, PLAN_VERSION, PieceKind, PolicyPiece, PortForward,
    Scratch, StartError, StateError, StateRoot, Tee, check_free, check_machine, start,
};
use caveau_policy::{Policy, generate};
use caveau_protocol::{ContainerId, ErrorKind, Limits};
use caveau_registry::{Image, StoredLayer};

use crate::{
    args, commands, container,
    exit::{CodedError, ENGINE_FAILED, NOT_EXECUTABLE, NOT_FOUND, Outcome},
    fetch, files, folders,
    streams::{self, Ended},
    tee, ui, units,
};

/// Seconds that a guest has to start its containers; emulated machines are slow on busy hosts.
const START_TIMEOUT_S: u32 = 180;

/// Seconds after which a guest that does not answer is called unresponsive.
const ANSWER_TIMEOUT_S: u32 = 30;

/// The processors' model, part of the launch digest.
const VCPU_TYPE: &str = "EPYC-v4";

/// Size of the scratch disk where none is given. The file is sparse.
const SCRATCH_BYTES: u64 = 4 << 30;

/// Runs it.
///
/// # Errors
/// Where the group cannot be started: with Docker's codes.
pub(crate) fn run(command: &args::Run, quiet: bool) -> Result<Outcome> {
    let root = StateRoot::open()?;
    // Whatever can be wrong without the image is told before anything is fetched.
    let request = Request::new(command, &root)?;
    warn(command, request.tee);
    let image = fetch::image(&command.source, quiet)?;
    let container = container::container(&image, &command.options)?;
    let plan = request.plan(&image, &container)?;
    let attach = !command.detach && container.stdio;
    let mut progress = streams::StartProgress::new(quiet, "starting the VM");
    let started = start(&root, &plan, attach, &mut |step| progress.step(step));
    progress.finish();
    // The layers must stay in the store until the supervisor holds them open.
    drop(image);
    let started = match started {
        Ok(started) => started,
        Err(error) => return Err(start_failure(&root, &plan.name, command.rm, error)),
    };
    if command.detach {
        ui::line(&plan.name)?;
        return Ok(Outcome::Done);
    }
    let ended = match started.attachment {
        Some(attachment) => streams::attach(attachment, command.interactive)?,
        None => streams::wait(&started.group)?,
    };
    if command.rm {
        started.group.wait_down(std::time::Duration::from_secs(60))?;
        started.group.remove()?;
    }
    match ended {
        Ended::Exit(code) => Ok(Outcome::Container(code)),
        Ended::Lost(reason) => Err(CodedError { message: reason, code: ENGINE_FAILED }.into()),
    }
}

/// What was asked for, apart from the image: of the right form, and possible on this machine as it is now.
struct Request<'a> {
    command: &'a args::Run,
    name: GroupName,
    tee: Tee,
    guest: GuestFiles,
    reference_values: Option<serde_json::Value>,
    reference_info: Option<String>,
    memory_mib: u32,
    scratch: Scratch,
    ports: Vec<PortForward>,
    policy: Option<String>,
    pieces: Vec<PolicyPiece>,
}

impl<'a> Request<'a> {
    /// Checks the options.
    ///
    /// # Errors
    /// The first option that is wrong, a name or port that is taken, a guest that is not there.
    fn new(command: &'a args::Run, root: &StateRoot) -> Result<Self> {
        let vm = &command.vm;
        container::check(&command.options)?;
        let name = match &command.name {
            Some(name) => free_name(root, name.parse()?)?,
            None => made_up_name()?,
        };
        let memory_mib = u32::try_from(units::bytes(&vm.memory).context("--memory")? >> 20).unwrap_or(u32::MAX);
        check_machine(vm.cpus, memory_mib).context("--cpus or --memory")?;
        let ports = container::published(&command.options)?;
        check_free(&ports)?;
        let (tee, ovmf) = tee::choose(vm)?;
        let folder = vm.guest.path()?;
        let files = guest_files(&folder, tee, ovmf)?;
        let guest = GuestFolder::open(&folder)?;
        let of_guest = tee::in_guest(tee::in_evidence(tee));
        Ok(Self {
            command,
            name,
            tee,
            guest: files,
            reference_values: Some(serde_json::to_value(guest.manifest())?),
            reference_info: guest.reference_info(of_guest)?.map(|signed| BASE64_STANDARD.encode(signed)),
            memory_mib,
            scratch: scratch(command, memory_mib)?,
            ports,
            policy: command.policy.as_deref().map(owners_policy).transpose()?,
            pieces: pieces(command)?,
        })
    }

    /// The plan of a group of this one container.
    fn plan(self, image: &Image, container: &Container) -> Result<LaunchPlan> {
        let command = self.command;
        let layer = |layer: &StoredLayer| LayerFile { path: layer.path.clone(), root: layer.root.to_string() };
        let policy = match self.policy {
            Some(policy) => policy,
            None => generate(&container::group(container.clone(), &command.options)?),
        };
        Ok(LaunchPlan {
            version: PLAN_VERSION,
            guest: self.guest,
            tee: self.tee,
            vcpus: command.vm.cpus,
            vcpu_type: VCPU_TYPE.to_owned(),
            memory_mib: self.memory_mib,
            layers: image.layers.iter().map(layer).collect(),
            scratch: self.scratch,
            ports: self.ports,
            owner_address: command.owner_port,
            policy,
            pieces: self.pieces,
            host_certificates: None,
            reference_info: self.reference_info,
            reference_values: self.reference_values,
            containers: vec![container_plan(command, image, container, &self.name)?],
            log: caveau_launch::LogLimits::default(),
            record: command.record,
            start_timeout_s: START_TIMEOUT_S,
            answer_timeout_s: ANSWER_TIMEOUT_S,
            name: self.name,
        })
    }
}

/// The owner's policy, byte for byte. Whether it admits what was asked for is for the guest to say.
fn owners_policy(file: &Path) -> Result<String> {
    let text = commands::policy::read(file)?;
    Policy::parse(&text).with_context(|| format!("{} is no policy that a guest takes", file.display()))?;
    Ok(text)
}

/// Signed pieces of the owner's policy: lists of ledgers first, which fragments may need. Whether the guest takes them is for
/// the policy to say.
fn pieces(command: &args::Run) -> Result<Vec<PolicyPiece>> {
    let read =
        |kind: PieceKind| move |file: &PathBuf| Ok(PolicyPiece::new(kind, &files::read(file, MAX_ENVELOPE_BYTES)?));
    let lists = command.trust_list.iter().map(read(PieceKind::TrustList));
    lists.chain(command.fragment.iter().map(read(PieceKind::Fragment))).collect()
}

/// The name, where no group has it.
fn free_name(root: &StateRoot, name: GroupName) -> Result<GroupName> {
    match root.group(&name) {
        Err(StateError::Unknown(_)) => Ok(name),
        Ok(_) => Err(StateError::Exists(name).into()),
        Err(error) => Err(error.into()),
    }
}

/// Where the container writes to.
fn scratch(command: &args::Run, memory_mib: u32) -> Result<Scratch> {
    let given = command.vm.scratch.as_deref().map(units::bytes).transpose().context("--scratch")?;
    let in_memory = command.options.memory_scratch;
    let bytes = given.unwrap_or(if in_memory { u64::from(memory_mib) << 19 } else { SCRATCH_BYTES }) & !0xfff;
    let scratch =
        if in_memory { Scratch::Memory { bytes } } else { Scratch::Encrypted { bytes, folder: folders::scratch()? } };
    scratch.validate(memory_mib).context("--scratch")?;
    Ok(scratch)
}

/// The container's part of the plan.
fn container_plan(
    command: &args::Run,
    image: &Image,
    container: &Container,
    name: &GroupName,
) -> Result<ContainerPlan> {
    let streams =
        container::Streams { terminal: command.options.tty.then(streams::terminal_size), stdin: command.interactive };
    let hostname = name.as_str().replace('_', "-");
    let of_vm = caveau_group::Limits { pids: command.vm.pids_limit, ..caveau_group::Limits::default() };
    let caveau_group::Limits { memory_bytes, cpu_millis, pids } = container.limits.tightened(of_vm);
    let limits = Limits { memory_bytes, cpu_millis, pids };
    let stop_signal = match image.config.stop_signal.as_deref().filter(|signal| !signal.is_empty()) {
        Some(signal) => signal.parse::<caveau_group::Signal>()?.number(),
        None => 15,
    };
    Ok(ContainerPlan {
        name: container.name.clone(),
        image: container.image.clone(),
        layers: (0..u16::try_from(image.layers.len())?).collect(),
        create: container::create(container, random_id()?, streams, &hostname, limits),
        stop_signal,
    })
}

/// The guest's parts, or the word how to get them.
fn guest_files(folder: &Path, tee: Tee, ovmf: Option<PathBuf>) -> Result<GuestFiles> {
    if !folder.join(MANIFEST_FILE).exists() {
        anyhow::bail!(
            "there is no guest in {}: make one with `cargo xtask setup` or `caveau guest build`, or name its folder with --guest",
            folder.display()
        );
    }
    Ok(GuestFiles::in_folder(folder, tee, ovmf)?)
}

/// What the person must know before it runs, also one who asked for quiet: both are about what is not protected.
fn warn(command: &args::Run, tee: Tee) {
    if tee == Tee::EmulatedSnp {
        ui::warning("the TEE is emulated: nothing protects this group from this host");
    }
    container::warn(&command.options);
}

/// Why it did not start, with Docker's code for it. A group that never ran leaves its folder for its logs, unless `--rm`.
fn start_failure(root: &StateRoot, name: &GroupName, remove: bool, error: StartError) -> anyhow::Error {
    let (code, kept, for_owners) = match &error {
        StartError::Failed(failure) => (
            match failure.kind {
                Some(ErrorKind::NotFound) => NOT_FOUND,
                Some(ErrorKind::NotExecutable) => NOT_EXECUTABLE,
                _ => ENGINE_FAILED,
            },
            true,
            failure.kept_s,
        ),
        StartError::Died { .. } => (ENGINE_FAILED, true, None),
        _ => (ENGINE_FAILED, false, None),
    };
    let mut message = format!("{:#}", anyhow::Error::from(error));
    if kept && remove {
        if let Ok(group) = caveau_launch::Group::open(root, name) {
            if for_owners.is_none() {
                let _ = group.wait_down(std::time::Duration::from_secs(20));
            }
            // What cannot be removed is listed by `caveau ps -a`.
            let _ = group.remove();
        }
    } else if kept {
        message.push_str(&format!("\nsee also: caveau inspect {name}; caveau rm {name} removes it"));
        if let Some(seconds) = for_owners {
            let minutes = seconds / 60;
            message.push_str(&format!(
                "\nthe guest stays for {minutes} minutes, unless it is removed: its owners may ask it why (caveau owner denials)"
            ));
        }
        let recorded = caveau_launch::Group::open(root, name).map(|group| group.folder().requests());
        if let Some(path) = recorded.ok().filter(|path| path.is_file()) {
            let path = path.display();
            message.push_str(&format!("\nwhat was asked of the policy: caveau policy replay POLICY {path}"));
        }
    }
    CodedError { message, code }.into()
}

/// A container identifier of random bytes.
fn random_id() -> Result<ContainerId> {
    Ok(ContainerId::from_bytes(random()?))
}

/// A name that is free with all likelihood, and can be said aloud.
fn made_up_name() -> Result<GroupName> {
    const FIRST: [&str; 16] = [
        "calm", "clear", "cool", "deep", "dry", "fine", "firm", "hale", "keen", "mild", "neat", "old", "quiet", "ripe",
        "sound", "still",
    ];
    const SECOND: [&str; 16] = [
        "arch", "barrel", "bottle", "brick", "candle", "cask", "cellar", "cork", "door", "key", "lamp", "lock",
        "shelf", "stair", "vault", "vine",
    ];
    let [first, second, tail @ ..] = random::<4>()?;
    let pick = |words: [&'static str; 16], byte: u8| words[usize::from(byte & 15)];
    let name = format!("{}-{}-{}", pick(FIRST, first), pick(SECOND, second), hex::encode(tail));
    Ok(name.parse()?)
}

/// Random bytes from the kernel.
fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
