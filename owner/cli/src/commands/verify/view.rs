//! What is shown of a judgement, collected once: the terminal's table, `--json` and the page all have it from here.

use anyhow::Result;
use caveau_evidence::{Accepted, Event, EventLog, EventOutcome, Judgement, Subject as Claims, TeeClass};
use caveau_guest_image::{Manifest, Sha256};
use caveau_policy::{Policy, model::Container, open_points};
use serde::Serialize;
use serde_json::Value;

/// What a judgement is shown with.
pub(super) struct Subject<'a> {
    /// What was recognised.
    pub(super) form: &'a str,
    /// The guest, where its launch digest was found in reference values.
    pub(super) measured: Option<&'a Manifest>,
    /// Who signed for its launch digest, where somebody did whose word counts.
    pub(super) signed: Option<&'a Accepted>,
    /// The policy, where the report vouches for it.
    pub(super) policy: Option<&'a str>,
    /// What the guest did, where the report vouches for it.
    pub(super) events: Option<&'a EventLog>,
    /// SHA-256 of the appraisal policy, where one was given.
    pub(super) appraisal_policy: Option<&'a str>,
}

/// A judgement and all that is shown along with it. Texts are as they came: whoever shows them makes them harmless.
pub(super) struct View<'a> {
    /// The judgement.
    pub(super) judgement: &'a Judgement,
    /// What else there is.
    pub(super) subject: Subject<'a>,
    /// The processor's part of the TCB, where the evidence is authentic.
    pub(super) processor: Option<Part>,
    /// The software's part of it, where reference values name it.
    pub(super) guest: Option<Part>,
    /// Signed reference values that count.
    pub(super) signed: Option<Part>,
    /// Fragments and lists of ledgers that the guest took, where its event log says so.
    pub(super) loaded: Option<Part>,
    /// The policy that is in force.
    pub(super) policy: Option<PolicyView>,
}

/// A part of what is shown.
pub(super) struct Part {
    /// What it is.
    pub(super) title: String,
    /// Names, and what there is to say.
    pub(super) rows: Vec<(String, String)>,
}

/// A policy, whose digest is HOST_DATA.
#[derive(Serialize)]
pub(super) struct PolicyView {
    /// SHA-256 of its text.
    pub(super) digest: String,
    /// Its containers.
    pub(super) containers: Vec<ContainerView>,
    /// What it leaves to the host.
    pub(super) leaves_open: Vec<String>,
}

/// A container of a policy.
#[derive(Serialize)]
pub(super) struct ContainerView {
    /// Its name for people.
    pub(super) name: String,
    /// The image's reference, which a policy has for people: what the image is, its layers say.
    pub(super) image: Option<String>,
    /// Root hashes of its layers.
    pub(super) layers: Option<Vec<String>>,
    /// The command.
    pub(super) command: Option<Vec<String>>,
}

impl<'a> View<'a> {
    /// Collects it.
    ///
    /// # Errors
    /// Where the policy is none.
    pub(super) fn new(judgement: &'a Judgement, subject: Subject<'a>) -> Result<Self> {
        let policy = subject.policy.map(Policy::parse).transpose()?;
        Ok(Self {
            judgement,
            processor: judgement.claims.as_ref().map(|claims| processor(judgement, claims)).transpose()?,
            guest: subject.measured.map(guest),
            signed: subject.signed.map(signed),
            loaded: subject.events.and_then(loaded),
            policy: policy.as_ref().map(PolicyView::new),
            subject,
        })
    }

    /// The parts of the TCB that something vouches for.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.processor.iter().chain(&self.guest).chain(&self.signed).chain(&self.loaded)
    }
}

impl Part {
    fn new(title: &str) -> Self {
        Self { title: title.to_owned(), rows: Vec::new() }
    }

    fn row(&mut self, name: &str, value: impl Into<String>) {
        self.rows.push((name.to_owned(), value.into()));
    }

    /// A value: in one row, or each of its fields in its own where it has many.
    fn value(&mut self, name: &str, value: &Value) {
        match value {
            Value::Object(fields) if fields.len() > FIELDS_IN_A_ROW || fields.values().any(Value::is_object) => {
                for (field, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                    self.value(&format!("{name}: {}", field.replace('_', " ")), value);
                }
            }
            value => self.row(name, short(value)),
        }
    }
}

/// Most fields of a part that are shown in one row.
const FIELDS_IN_A_ROW: usize = 5;

/// The processor's part of the TCB, from the signed report.
fn processor(judgement: &Judgement, claims: &Claims) -> Result<Part> {
    // The claims' JSON names every field; a table of it stays complete when claims grow.
    let value = serde_json::to_value(claims)?;
    let mut part = Part::new(match judgement.tee_class {
        _ if matches!(claims, Claims::Token(_)) => "Claims of another verifier",
        Some(TeeClass::Hardware) => "Hardware TCB",
        Some(TeeClass::Emulated) => {
            "EMULATED TCB (a program of the host says all of this; no hardware stands behind it)"
        }
        None => "Claims that nothing vouches for",
    });
    for (name, value) in value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        part.value(&name.replace('_', " "), value);
    }
    Ok(part)
}

/// The software part of the TCB, from the owner's reference values that the launch digest was found in.
fn guest(manifest: &Manifest) -> Part {
    let package = manifest.kernel.package.as_ref().map(|package| format!(" ({} {})", package.name, package.version));
    let mut part = Part::new("Software TCB (launch digest found in the reference values)");
    part.row("kernel", format!("{}{}", manifest.kernel.release, package.unwrap_or_default()));
    part.row("agent", format!("{} (sha256 {})", manifest.agent.version, manifest.agent.sha256));
    part.row("guest svn", manifest.svn.to_string());
    for (tee, info) in &manifest.tees {
        part.row(&format!("cmdline {tee}"), &info.cmdline);
        // Reference values have the command line's hash alone. That of the guests that this version builds is known.
        let known = Sha256::of(tee.cmdline().as_bytes());
        if manifest.parts.get(&info.cmdline).is_some_and(|file| file.sha256 == known) {
            part.row("command line", tee.cmdline());
        }
    }
    for (name, file) in &manifest.parts {
        part.row(name, format!("sha256 {}", file.sha256));
    }
    let modules: Vec<_> = manifest.modules.iter().map(|module| module.name.as_str()).collect();
    part.row("modules", modules.join(" "));
    part
}

/// Who signed for the launch digest.
fn signed(accepted: &Accepted) -> Part {
    let mut part = Part::new("Signed reference values (launch digest found in them)");
    part.row("issuer", &accepted.issuer);
    part.row("feed", &accepted.feed);
    part.row("guest svn", accepted.svn.to_string());
    if let Some(time) = accepted.signed_at {
        part.row("signed at", time.to_string());
    }
    part
}

/// What became part of the policy in the guest. What was refused is among the events.
fn loaded(log: &EventLog) -> Option<Part> {
    let mut part = Part::new("Loaded into the policy (by the event log)");
    for event in log.events.iter().filter(|event| event.outcome == EventOutcome::Done) {
        let what = match event.op.as_str() {
            "load_fragment" => "fragment",
            "load_transparency_trust_list" => "trust list",
            _ => continue,
        };
        let said = |name: &str| event.args.get(name).map(short).unwrap_or_else(|| "not said".to_owned());
        // Where the envelope does not say it, its content does.
        let svn = event.args.get("svn").map(|svn| format!(", svn {}", short(svn))).unwrap_or_default();
        part.row(what, format!("{}{svn}, by {} (sha256 {})", said("feed"), said("issuer"), said("body_sha256")));
    }
    (!part.rows.is_empty()).then_some(part)
}

impl PolicyView {
    fn new(policy: &Policy) -> Self {
        Self {
            digest: policy.digest().to_string(),
            containers: policy.containers().map(ContainerView::new).collect(),
            leaves_open: open_points(policy),
        }
    }
}

impl ContainerView {
    fn new(container: &Container) -> Self {
        Self {
            name: container.label(),
            image: container.other.get("id").and_then(Value::as_str).map(str::to_owned),
            layers: container.layers.clone(),
            command: container.command.clone(),
        }
    }
}

/// An event in three words: its number, what was asked, what became of it.
pub(super) fn event(event: &Event) -> [String; 3] {
    let outcome = match event.outcome {
        EventOutcome::Denied => "denied",
        EventOutcome::Done => "done",
        EventOutcome::Failed => "failed",
    };
    [event.n.to_string(), format!("{} {}", event.op, subject_of(&event.args)).trim_end().to_owned(), outcome.to_owned()]
}

/// The arguments that say what an event is about, but for what a container is made with: the policy says that.
fn subject_of(args: &Value) -> String {
    const TELLING: [&str; 11] =
        ["root", "lun", "layer", "container", "process", "args", "signal", "owner", "feed", "svn", "body_sha256"];
    let Value::Object(fields) = args else { return String::new() };
    let told = TELLING.iter().filter_map(|name| {
        let shown = match fields.get(*name)? {
            // Identifiers are the host's, and long.
            Value::String(text) if text.len() == 64 => text.get(..12).unwrap_or_default().to_owned(),
            Value::Object(_) => subject_of(fields.get(*name)?),
            other => short(other),
        };
        Some(if matches!(*name, "process" | "args") { shown } else { format!("{name} {shown}") })
    });
    told.collect::<Vec<_>>().join(", ")
}

/// A value on one line.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let shown = fields.iter().filter(|(_, value)| !value.is_null());
            shown
                .map(|(name, value)| format!("{} {}", name.replace('_', " "), short(value)))
                .collect::<Vec<_>>()
                .join(", ")
        }
        other => other.to_string(),
    }
}
