//! From a guest that boots to containers that run: the requests of a start, one step each, in their order.

use std::time::{Duration, Instant};

use caveau_protocol::{AgentReply, AgentRequest, ErrorKind, Hello, LayerId, MountLayer, MountOverlay, MountScratch};

use crate::{
    AgentClient, CallError, ContainerPlan, LaunchPlan, LayerFile, PieceKind, Scratch,
    agent::{Answer, unexpected},
    request_log::RequestLog,
};

/// A step of the start that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}: {}", crate::chain(.cause))]
pub struct StepError {
    /// What was tried, for a person.
    pub step: String,
    /// What came of it.
    #[source]
    pub cause: CallError,
}

impl StepError {
    /// The policy's denial, where that is the reason.
    #[must_use]
    pub fn denial(&self) -> Option<&serde_json::Value> {
        match &self.cause {
            CallError::Agent(error) => error.denial.as_ref(),
            _ => None,
        }
    }

    /// Whose fault the guest says it is.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match &self.cause {
            CallError::Agent(error) => Some(error.kind),
            _ => None,
        }
    }
}

/// Asks the guest for each step of one plan; `note` hears of each that is done.
pub(crate) struct BringUp<'a> {
    client: &'a AgentClient,
    plan: &'a LaunchPlan,
    end: Instant,
    note: &'a dyn Fn(&str),
}

impl<'a> BringUp<'a> {
    /// The whole start may take `plan.start_timeout_s`, from now on.
    pub(crate) fn new(client: &'a AgentClient, plan: &'a LaunchPlan, note: &'a dyn Fn(&str)) -> Self {
        let end = Instant::now() + Duration::from_secs(plan.start_timeout_s.into());
        Self { client, plan, end, note }
    }

    /// Waits until the guest is there.
    pub(crate) fn hello(&self) -> Result<Hello, StepError> {
        let step = "reach the agent in the guest";
        match self.ask(step, AgentRequest::Hello, Vec::new())? {
            (AgentReply::Hello(hello), _) => Ok(hello),
            (other, _) => Err(wrong(step, &other)),
        }
    }

    /// Gives the guest its policy; returns the digest that the guest made of it.
    pub(crate) fn set_policy(&self) -> Result<String, StepError> {
        let step = "set the policy";
        let request = AgentRequest::SetPolicy {
            host_certificates: self.plan.host_certificates.clone(),
            reference_info: self.plan.reference_info.clone(),
        };
        match self.ask(step, request, self.plan.policy.clone().into_bytes())? {
            (AgentReply::Policy { digest }, _) => Ok(digest),
            (other, _) => Err(wrong(step, &other)),
        }
    }

    /// Has what is asked of the policy written down from now on.
    pub(crate) fn keep_requests(&self, log: RequestLog) -> Result<(), StepError> {
        let step = "keep a record of requests";
        let limit = self.end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let kept = self.client.keep_requests(log, limit);
        kept.map_err(|cause| StepError { step: step.to_owned(), cause })?;
        (self.note)(step);
        Ok(())
    }

    /// Gives the guest the further pieces of its policy.
    pub(crate) fn load_pieces(&self) -> Result<(), StepError> {
        for (number, piece) in self.plan.pieces.iter().enumerate() {
            let (step, request) = match piece.kind {
                PieceKind::Fragment => (format!("load fragment {number}"), AgentRequest::LoadFragment),
                PieceKind::TrustList => (format!("load trust list {number}"), AgentRequest::LoadTransparencyTrustList),
            };
            match self.ask(&step, request, piece.bytes().unwrap_or_default())? {
                (AgentReply::Done, _) => {}
                (other, _) => return Err(wrong(&step, &other)),
            }
        }
        Ok(())
    }

    /// Mounts all layers and the scratch space.
    pub(crate) fn mount(&self) -> Result<Vec<LayerId>, StepError> {
        let mount = |(lun, layer): (usize, &LayerFile)| self.mount_layer(lun, &layer.root);
        let layers = self.plan.layers.iter().enumerate().map(mount).collect::<Result<Vec<_>, _>>()?;
        let scratch = match self.plan.scratch {
            Scratch::Encrypted { .. } => MountScratch::Encrypted { lun: lun_of(self.plan.layers.len()) },
            Scratch::Memory { bytes } => MountScratch::Memory { bytes },
        };
        self.done("mount the scratch space", AgentRequest::MountScratch(scratch))?;
        Ok(layers)
    }

    fn mount_layer(&self, lun: usize, root: &str) -> Result<LayerId, StepError> {
        let step = format!("mount layer {lun} (root hash {root})");
        let request = AgentRequest::MountLayer(MountLayer { lun: lun_of(lun), root: root.to_owned() });
        match self.ask(&step, request, Vec::new())? {
            (AgentReply::Layer { layer }, _) => Ok(layer),
            (other, _) => Err(wrong(&step, &other)),
        }
    }

    /// Puts a container's root file system together and makes the container; it does not run yet.
    pub(crate) fn create(&self, container: &ContainerPlan, mounted: &[LayerId]) -> Result<(), StepError> {
        let layers = container.layers.iter().filter_map(|index| mounted.get(usize::from(*index)).copied()).collect();
        let overlay = MountOverlay { container: container.create.container.clone(), layers };
        self.done(&format!("mount the overlay of {}", container.name), AgentRequest::MountOverlay(overlay))?;
        let create = AgentRequest::CreateContainer(Box::new(container.create.clone()));
        self.done(&format!("create container {}", container.name), create)
    }

    /// Starts a container that was made.
    pub(crate) fn start(&self, container: &ContainerPlan) -> Result<(), StepError> {
        let request = AgentRequest::StartContainer { container: container.create.container.clone() };
        self.done(&format!("start container {}", container.name), request)
    }

    fn done(&self, step: &str, request: AgentRequest) -> Result<(), StepError> {
        match self.ask(step, request, Vec::new())? {
            (AgentReply::Done, _) => Ok(()),
            (other, _) => Err(wrong(step, &other)),
        }
    }

    fn ask(&self, step: &str, request: AgentRequest, body: Vec<u8>) -> Result<Answer, StepError> {
        let limit = self.end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let failed = |cause| StepError { step: step.to_owned(), cause };
        let answer = self.client.call(request, body, Some(limit)).map_err(|error| match error {
            // What counts for the user is the time that the whole start had.
            CallError::Silent(_) => failed(CallError::Silent(Duration::from_secs(self.plan.start_timeout_s.into()))),
            other => failed(other),
        })?;
        (self.note)(step);
        Ok(answer)
    }
}

/// A layer's index as a logical unit number; a valid plan's indices fit.
fn lun_of(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

fn wrong(step: &str, reply: &AgentReply) -> StepError {
    StepError { step: step.to_owned(), cause: unexpected(reply) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use caveau_protocol::AgentError;

    use super::*;
    use crate::PolicyPiece;
    use crate::{
        agent::tests::{fake, hello},
        plan::tests::sample,
    };

    /// A guest that says yes to everything, numbers layers from 40 up, and tells what it was asked.
    fn agreeable() -> (AgentClient, Arc<Mutex<Vec<AgentRequest>>>) {
        let asked: Arc<Mutex<Vec<AgentRequest>>> = Arc::default();
        let log = Arc::clone(&asked);
        let stream = fake(Box::new(move |request, body| {
            log.lock().unwrap().push(request.clone());
            let reply = match request {
                AgentRequest::Hello => AgentReply::Hello(hello()),
                AgentRequest::SetPolicy { .. } => AgentReply::Policy { digest: body.len().to_string() },
                AgentRequest::MountLayer(layer) => AgentReply::Layer { layer: LayerId(40 + u32::from(layer.lun)) },
                _ => AgentReply::Done,
            };
            Some(Ok((reply, vec![])))
        }));
        (AgentClient::new(stream).unwrap(), asked)
    }

    #[test]
    fn the_steps_come_in_their_order() {
        let (client, asked) = agreeable();
        let mut plan = sample();
        plan.reference_info = Some("c2lnbmVk".into());
        plan.pieces =
            vec![PolicyPiece::new(PieceKind::TrustList, b"list"), PolicyPiece::new(PieceKind::Fragment, b"more")];
        plan.layers.push(LayerFile { path: "/cache/two".into(), root: "cd".repeat(32) });
        plan.containers[0].layers = vec![1, 0];
        let notes = Mutex::new(Vec::new());
        let note = |step: &str| notes.lock().unwrap().push(step.to_owned());
        let start = BringUp::new(&client, &plan, &note);
        assert_eq!(start.hello().unwrap(), hello());
        assert_eq!(start.set_policy().unwrap(), plan.policy.len().to_string());
        start.load_pieces().unwrap();
        let mounted = start.mount().unwrap();
        assert_eq!(mounted, [LayerId(40), LayerId(41)]);
        start.create(&plan.containers[0], &mounted).unwrap();
        start.start(&plan.containers[0]).unwrap();
        let id = plan.containers[0].create.container.clone();
        let expected = [
            AgentRequest::Hello,
            AgentRequest::SetPolicy { host_certificates: None, reference_info: Some("c2lnbmVk".into()) },
            AgentRequest::LoadTransparencyTrustList,
            AgentRequest::LoadFragment,
            AgentRequest::MountLayer(MountLayer { lun: 0, root: "ab".repeat(32) }),
            AgentRequest::MountLayer(MountLayer { lun: 1, root: "cd".repeat(32) }),
            AgentRequest::MountScratch(MountScratch::Encrypted { lun: 2 }),
            AgentRequest::MountOverlay(MountOverlay { container: id.clone(), layers: vec![LayerId(41), LayerId(40)] }),
            AgentRequest::CreateContainer(Box::new(plan.containers[0].create.clone())),
            AgentRequest::StartContainer { container: id },
        ];
        assert_eq!(*asked.lock().unwrap(), expected);
        assert_eq!(notes.lock().unwrap().len(), expected.len());
    }

    #[test]
    fn a_denial_names_the_step_and_comes_through() {
        let denial = serde_json::json!({"reasons": ["layer not allowed"]});
        let given = denial.clone();
        let client = AgentClient::new(fake(Box::new(move |_, _| {
            let message = "mount_device denied".into();
            Some(Err(AgentError { kind: ErrorKind::Denied, message, denial: Some(given.clone()) }))
        })));
        let plan = sample();
        let error = BringUp::new(&client.unwrap(), &plan, &|_| {}).mount().unwrap_err();
        assert_eq!(error.denial(), Some(&denial));
        assert_eq!(error.kind(), Some(ErrorKind::Denied));
        let text = error.to_string();
        assert!(text.starts_with("failed to mount layer 0") && text.ends_with("mount_device denied"), "{text}");
    }

    #[test]
    fn a_silent_guest_fails_the_start() {
        let client = AgentClient::new(fake(Box::new(|_, _| None))).unwrap();
        let mut plan = sample();
        plan.start_timeout_s = 0;
        let error = BringUp::new(&client, &plan, &|_| {}).hello().unwrap_err();
        assert!(matches!(error.cause, CallError::Silent(_)), "{error}");
    }
}
