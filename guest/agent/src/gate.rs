//! The gate: every step that changes something, strictly in order, each only with the policy's permit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use caveau_policy::{Enforcer, Platform, RecordLine, request};
use caveau_protocol::{AgentError, AgentReply, AgentRequest, ContainerId, EventKind, Hello, LayerId, MountScratch};
use caveau_snp::event_log::EventLogWriter;
use caveau_storage::CorruptionWatch;
use caveau_tee::Tee;
use serde::Serialize;

use crate::{
    answer::{Answer, Fatal, denied, done, failed, fatal, invalid, no_right, not_started},
    attester::Attester,
    channels::PeerStep,
    connection::Steps,
    containers::Containers,
    context::{Contents, Context},
    fragments,
    live::Live,
    log::Noted,
    outside::{Disks, Maker, Network, Placed, Source},
    timeline::Timeline,
};

/// Most bytes of denials in one reply, unless one alone has more: whoever wants them all asks for those after the last.
const MAX_LINES: usize = 1 << 20;

/// How long a layer's watch waits for one piece of news.
const WATCH: Duration = Duration::from_secs(3600);

/// The kernel's names of the layers' devices.
pub(crate) type LayerNames = Arc<Mutex<BTreeMap<String, LayerId>>>;

/// What a booted guest has to work with.
pub(crate) struct Guest<D, M> {
    /// The link to the secure processor.
    pub(crate) tee: Box<dyn Tee>,
    /// Disks and file systems.
    pub(crate) disks: D,
    /// What makes containers.
    pub(crate) maker: M,
    /// The network.
    pub(crate) network: Box<dyn Network>,
}

/// A guest's state, as far as requests change it.
pub(crate) struct Gate<D: Disks, M: Maker> {
    attester: Attester,
    disks: D,
    layers: BTreeMap<LayerId, D::Layer>,
    layer_names: LayerNames,
    last_layer: u32,
    scratch: Option<(D::Scratch, Option<D::Disk>)>,
    overlays: BTreeMap<ContainerId, D::Overlay>,
    containers: Containers<M>,
    network: Box<dyn Network>,
    hello: Hello,
    in_force: Option<InForce>,
}

/// The policy in force, and what containers see of it.
struct InForce {
    enforcer: Enforcer,
    context: Context,
    log: EventLogWriter,
}

impl<D: Disks, M: Maker> Gate<D, M> {
    /// A gate that lets nothing through yet.
    pub(crate) fn new(guest: Guest<D, M>, live: Arc<Live>) -> Self {
        let Guest { tee, disks, maker, network } = guest;
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let (agent, tee_name) = (env!("CARGO_PKG_VERSION").to_owned(), tee.kind().to_string());
        let hello = Hello { agent, tee: tee_name, kernel, boot_ns: 0, steps: Vec::new() };
        Self {
            attester: Attester::new(tee),
            disks,
            layers: BTreeMap::new(),
            layer_names: LayerNames::default(),
            last_layer: 0,
            scratch: None,
            overlays: BTreeMap::new(),
            containers: Containers::new(maker, live),
            network,
            hello,
            in_force: None,
        }
    }

    /// What hello says of the start.
    pub(crate) fn tell(&mut self, timeline: Timeline) {
        self.hello.boot_ns = timeline.begun_ns;
        self.hello.steps = timeline.steps;
    }

    /// The layers' devices, for their watch.
    pub(crate) fn layers(&self) -> LayerNames {
        Arc::clone(&self.layer_names)
    }

    /// Does one step under the policy in force.
    fn permitted_step(
        &mut self,
        step: AgentRequest,
        body: &[u8],
        InForce { enforcer, context, log }: &mut InForce,
    ) -> Answer {
        match step {
            AgentRequest::Attest { nonce } => {
                let _permit = enforcer.attest().map_err(|error| not_started(&error))?;
                self.attester.attest(&nonce)
            }
            AgentRequest::AttestLog { nonce } => {
                let _permit = enforcer.attest().map_err(|error| not_started(&error))?;
                self.attester.attest_log(&nonce, log)
            }
            AgentRequest::CreateContainer(create) => {
                let overlay = self.overlays.get(&create.container);
                let overlay =
                    overlay.ok_or_else(|| invalid(format!("container {} has no overlay", create.container)))?;
                self.containers.create(*create, overlay.target(), enforcer, context)
            }
            AgentRequest::DeleteContainer { container } => self.containers.delete(&container, enforcer),
            AgentRequest::Exec(exec) => self.containers.exec(*exec, enforcer, context),
            AgentRequest::KeepRequests => {
                enforcer.keep_requests();
                done()
            }
            AgentRequest::LoadFragment => fragments::load_fragment(body, enforcer),
            AgentRequest::LoadTransparencyTrustList => fragments::load_trust_list(body, enforcer),
            AgentRequest::MountLayer(layer) => self.mount_layer(&layer, enforcer),
            AgentRequest::MountOverlay(overlay) => self.mount_overlay(&overlay, enforcer),
            AgentRequest::MountScratch(scratch) => self.mount_scratch(&scratch, enforcer),
            AgentRequest::Signal { process, signal } => self.containers.signal(&process, signal, enforcer),
            AgentRequest::StartContainer { container } => self.containers.start(&container, enforcer),
            AgentRequest::Stats { container } => self.containers.stats(&container, enforcer),
            AgentRequest::TakeRequests => Ok(kept_requests(enforcer)),
            AgentRequest::UnmountLayer { layer } => self.unmount_layer(layer, enforcer),
            AgentRequest::UnmountOverlay { container } => self.unmount_overlay(&container, enforcer),
            AgentRequest::Containers | AgentRequest::Denials { .. } | AgentRequest::ReadLog { .. } => {
                Err(invalid("this is for owners, over a channel"))
            }
            _ => Err(invalid("this request is not a step")),
        }
    }

    /// Does what somebody at the other end of a channel asks for.
    fn step_of_peer(&mut self, step: PeerStep, InForce { enforcer, context, log }: &mut InForce) -> Answer {
        match step {
            PeerStep::Hello => Ok((AgentReply::Hello(self.hello.clone()), Vec::new())),
            PeerStep::Attest { nonce, exporter } => {
                let _permit = enforcer.attest().map_err(|error| not_started(&error))?;
                self.attester.attest_channel(&nonce, &exporter)
            }
            PeerStep::Denials { key, after } => {
                let permit = enforcer.owner_denials(key.as_ref()).map_err(|error| no_right(&error))?;
                Ok((AgentReply::Denials, some_lines(&enforcer.denials(permit, after))))
            }
            PeerStep::Exec { key, exec } => {
                let noted = Noted::of_owner(&key, &exec);
                let answer = self.containers.owner_exec(key, *exec, enforcer, context);
                noted.add(&answer, log);
                answer
            }
            PeerStep::Logs { key } => {
                let _permit = enforcer.owner_logs(key.as_ref()).map_err(|error| no_right(&error))?;
                done()
            }
        }
    }

    /// Puts a policy in force, once.
    fn set_policy(&mut self, body: Vec<u8>, host_certificates: Option<&str>, reference_info: Option<&str>) -> Answer {
        if self.in_force.is_some() {
            return Err(invalid("a policy is in force: it cannot be replaced"));
        }
        let text = String::from_utf8(body).map_err(|_| invalid("the policy is not UTF-8 text"))?;
        let decoded = reference_info.map(|text| BASE64_STANDARD.decode(text)).transpose();
        let reference_info = decoded.map_err(|_| invalid("the reference values are not base64"))?;
        let (enforcer, certificates) = self.attester.enforcer(&text)?;
        let host_certificates = certificates.as_deref().or(host_certificates);
        let context = self.containers.context(&Contents {
            policy: &text,
            host_certificates,
            reference_info: reference_info.as_deref(),
        });
        let context = context.map_err(|error| failed("write the security context", &error))?;
        // Before anything can run; where the rules are not in force, neither is the policy, and nothing ever runs.
        if let Some(rules) = enforcer.policy().network() {
            let restricted = self.network.restrict(rules);
            restricted.map_err(|error| failed("put the policy's network rules in force", &error))?;
        }
        let digest = enforcer.policy().digest().to_string();
        let log = EventLogWriter::new(*enforcer.policy().digest().as_bytes());
        self.in_force = Some(InForce { enforcer, context, log });
        Ok((AgentReply::Policy { digest }, Vec::new()))
    }

    fn mount_layer(&mut self, step: &caveau_protocol::MountLayer, enforcer: &mut Enforcer) -> Answer {
        let number = self.last_layer.checked_add(1).ok_or_else(|| invalid("too many layers were mounted"))?;
        let asked = request::MountDevice { target: Platform::layer_target(number), device_hash: step.root.clone() };
        let granted = enforcer.mount_device(&asked).map_err(|denial| denied(enforcer, denial))?;
        self.last_layer = number;
        let disks = &self.disks;
        let layer = enforcer
            .carry_out(granted, |permit| disks.mount_layer(permit, step.lun))
            .map_err(|error| failed(&format!("mount the layer of disk {}", step.lun), &error))?;
        let id = LayerId(number);
        self.layer_names.lock().unwrap_or_else(PoisonError::into_inner).insert(D::device_name(&layer), id);
        self.layers.insert(id, layer);
        Ok((AgentReply::Layer { layer: id }, Vec::new()))
    }

    fn unmount_layer(&mut self, id: LayerId, enforcer: &mut Enforcer) -> Answer {
        let layer = self.layers.get(&id).ok_or_else(|| unknown_layer(id))?;
        let asked = request::Unmount { unmount_target: layer.target().display().to_string() };
        let granted = enforcer.unmount_device(&asked).map_err(|denial| denied(enforcer, denial))?;
        let disks = &self.disks;
        enforcer
            .carry_out(granted, |permit| disks.unmount_layer(permit, layer))
            .map_err(|error| failed("unmount the layer", &error))?;
        self.layer_names.lock().unwrap_or_else(PoisonError::into_inner).remove(&D::device_name(layer));
        self.layers.remove(&id);
        done()
    }

    /// Makes scratch space, once: for a disk in two steps, each with its permit.
    fn mount_scratch(&mut self, step: &MountScratch, enforcer: &mut Enforcer) -> Answer {
        if self.scratch.is_some() {
            return Err(invalid("there is scratch space already"));
        }
        let target = Platform::scratch_target(0);
        let (disk, medium) = match step {
            MountScratch::Encrypted { lun } => (Some(self.mount_disk(*lun, &target, enforcer)?), request::Medium::Disk),
            MountScratch::Memory { .. } => (None, request::Medium::Memory),
        };
        match self.mount_scratch_of(step, target, medium, disk.as_ref(), enforcer) {
            Ok(scratch) => self.scratch = Some((scratch, disk)),
            Err(error) => return Err(self.unmount_disk(disk, error, enforcer)),
        }
        done()
    }

    /// The second step.
    fn mount_scratch_of(
        &self,
        step: &MountScratch,
        target: String,
        medium: request::Medium,
        disk: Option<&D::Disk>,
        enforcer: &mut Enforcer,
    ) -> Result<D::Scratch, AgentError> {
        let asked = request::ScratchMount { target, encrypted: true, medium };
        let granted = enforcer.scratch_mount(&asked).map_err(|denial| denied(enforcer, denial))?;
        let source = match (disk, step) {
            (Some(disk), _) => Source::Disk(disk),
            (None, MountScratch::Memory { bytes }) => Source::Memory { bytes: *bytes },
            (None, MountScratch::Encrypted { .. }) => return Err(invalid("there is no disk")),
        };
        let disks = &self.disks;
        let made = enforcer.carry_out(granted, |permit| disks.mount_scratch(permit, source));
        made.map_err(|error| failed("make scratch space", &error))
    }

    /// Takes the first step back where the second failed with `error`; gives what to tell.
    fn unmount_disk(&self, disk: Option<D::Disk>, error: AgentError, enforcer: &mut Enforcer) -> AgentError {
        let Some(disk) = disk else { return error };
        let asked = request::Unmount { unmount_target: disk.target().display().to_string() };
        let disks = &self.disks;
        let granted = enforcer.rw_unmount_device(&asked).map_err(|denial| denied(enforcer, denial));
        let unmounted = granted.and_then(|granted| {
            let unmounted = enforcer.carry_out(granted, |permit| disks.unmount_disk(permit, &disk));
            unmounted.map_err(|error| failed("unmount the disk", &error))
        });
        match unmounted {
            Ok(()) => error,
            Err(left) => AgentError { message: format!("{}; the disk stays mounted: {left}", error.message), ..error },
        }
    }

    fn mount_disk(&self, lun: u16, target: &str, enforcer: &mut Enforcer) -> Result<D::Disk, AgentError> {
        let asked = request::RwMountDevice {
            target: target.to_owned(),
            encrypted: true,
            ensure_filesystem: true,
            filesystem: "ext4".to_owned(),
        };
        let granted = enforcer.rw_mount_device(&asked).map_err(|denial| denied(enforcer, denial))?;
        let disks = &self.disks;
        enforcer
            .carry_out(granted, |permit| disks.mount_disk(permit, lun))
            .map_err(|error| failed(&format!("encrypt and mount disk {lun}"), &error))
    }

    fn mount_overlay(&mut self, step: &caveau_protocol::MountOverlay, enforcer: &mut Enforcer) -> Answer {
        let Some((scratch, _)) = &self.scratch else {
            return Err(invalid("there is no scratch space: mount_scratch comes first"));
        };
        let path = |id: &LayerId| {
            let layer = self.layers.get(id).ok_or_else(|| unknown_layer(*id))?;
            Ok(layer.target().display().to_string())
        };
        // The host names them base first; the policy's question has them top first, as overlayfs does.
        let layer_paths = step.layers.iter().rev().map(path).collect::<Result<Vec<_>, AgentError>>()?;
        let asked = request::MountOverlay {
            container_id: step.container.to_string(),
            layer_paths,
            target: Platform::overlay_target(step.container.as_str()),
        };
        let granted = enforcer.mount_overlay(&asked).map_err(|denial| denied(enforcer, denial))?;
        let disks = &self.disks;
        let overlay = enforcer
            .carry_out(granted, |permit| disks.mount_overlay(permit, scratch))
            .map_err(|error| failed("mount the overlay", &error))?;
        self.overlays.insert(step.container.clone(), overlay);
        done()
    }

    fn unmount_overlay(&mut self, container: &ContainerId, enforcer: &mut Enforcer) -> Answer {
        let overlay = self.overlays.get(container);
        let overlay = overlay.ok_or_else(|| invalid(format!("container {container} has no overlay")))?;
        let asked = request::Unmount { unmount_target: overlay.target().display().to_string() };
        let granted = enforcer.unmount_overlay(&asked).map_err(|denial| denied(enforcer, denial))?;
        let disks = &self.disks;
        enforcer
            .carry_out(granted, |permit| disks.unmount_overlay(permit, overlay))
            .map_err(|error| failed("unmount the overlay", &error))?;
        self.overlays.remove(container);
        done()
    }
}

impl<D: Disks, M: Maker> Steps for Gate<D, M> {
    fn peer_step(&mut self, step: PeerStep) -> Answer {
        let Some(mut in_force) = self.in_force.take() else {
            return Err(invalid("no policy is in force yet"));
        };
        let answer = self.step_of_peer(step, &mut in_force);
        self.in_force = Some(in_force);
        answer
    }

    fn step(&mut self, step: AgentRequest, body: Vec<u8>) -> Answer {
        match step {
            AgentRequest::Hello => Ok((AgentReply::Hello(self.hello.clone()), Vec::new())),
            AgentRequest::SetPolicy { host_certificates, reference_info } => {
                self.set_policy(body, host_certificates.as_deref(), reference_info.as_deref())
            }
            AgentRequest::Shutdown => {
                self.containers.kill_all();
                done()
            }
            // Whatever follows needs a policy.
            other => {
                // Taken out while it is asked, so that the gate's other parts can be used meanwhile.
                let Some(mut in_force) = self.in_force.take() else {
                    return Err(invalid("no policy is in force: set_policy comes first"));
                };
                let noted = Noted::of(&other, &body);
                let answer = self.permitted_step(other, &body, &mut in_force);
                if let Some(noted) = noted {
                    noted.add(&answer, &mut in_force.log);
                }
                self.in_force = Some(in_force);
                answer
            }
        }
    }
}

/// What was asked of the policy, as lines of a record.
fn kept_requests(enforcer: &mut Enforcer) -> (AgentReply, Vec<u8>) {
    let kept = enforcer.take_requests();
    let requests: Vec<_> = kept.requests.into_iter().map(RecordLine::Request).collect();
    (AgentReply::Requests { lost: kept.lost }, lines(&requests))
}

/// As [`lines`], the first of them, as many as a reply has room for; one alone in any case.
fn some_lines(values: &[impl Serialize]) -> Vec<u8> {
    let mut some = Vec::new();
    for line in values.iter().map(|value| lines(std::slice::from_ref(value))) {
        if !some.is_empty() && some.len().saturating_add(line.len()) > MAX_LINES {
            break;
        }
        some.extend(line);
    }
    some
}

/// A JSON object a line.
fn lines(values: &[impl Serialize]) -> Vec<u8> {
    // Texts, numbers and lists of them always serialise.
    values.iter().flat_map(|value| [serde_json::to_vec(value).unwrap_or_default(), vec![b'\n']].concat()).collect()
}

fn unknown_layer(id: LayerId) -> AgentError {
    invalid(format!("there is no layer {}", id.0))
}

/// Tells of layers whose disk the host changed, as soon as a changed block is read.
///
/// # Errors
/// Where the kernel does not report.
pub(crate) fn watch_layers(names: LayerNames, live: Arc<Live>) -> Result<(), Fatal> {
    let watch = CorruptionWatch::start()?;
    let body = move || {
        loop {
            match watch.next(WATCH) {
                Ok(Some(corruption)) => {
                    let id = names.lock().unwrap_or_else(PoisonError::into_inner).get(&corruption.device).copied();
                    if let Some(layer) = id {
                        live.events.push(EventKind::LayerCorrupted { layer });
                    }
                }
                Ok(None) => {}
                // What is lost here is still an I/O error for whoever reads the block.
                Err(_) => thread::sleep(Duration::from_secs(1)),
            }
        }
    };
    thread::Builder::new().name("watch".into()).stack_size(64 * 1024).spawn(body).map_err(fatal("start a thread"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
