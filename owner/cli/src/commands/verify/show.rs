//! A judgement, on the terminal and as `--json`.

use anyhow::Result;
use caveau_evidence::{EventLog, Judgement, Outcome, Subject as Claims, Verdict, azure_claims, ear};
use serde_json::{Value, json};

use super::view::{Part, PolicyView, View, event};
use crate::ui::{self, Colour};

/// Prints the judgement.
///
/// # Errors
/// Where nothing can be written.
pub(super) fn print(view: &View<'_>, json: bool) -> Result<()> {
    if json {
        return ui::json(&as_json(view)?);
    }
    let judgement = view.judgement;
    let mut text = format!("Recognised as {}\n\n", view.subject.form);
    text.extend(view.parts().map(part));
    text.extend(view.policy.as_ref().map(policy));
    text.extend(view.subject.events.map(events));
    text.push_str("Checks\n");
    for check in &judgement.checks {
        let colour = match check.verdict {
            Verdict::Ok => Colour::Green,
            Verdict::Failed => Colour::Red,
            Verdict::NotApplicable | Verdict::Skipped => Colour::Yellow,
        };
        // Coloured as the last thing: colours have no width, but count as characters. And only what this program wrote.
        let verdict = ui::coloured(&format!("{:8}", word(check.verdict)), colour);
        text.push_str(&format!("  {:22} {verdict} {}\n", check.name, shown(&check.sentence)));
    }
    let colour = if judgement.outcome == Outcome::Passed { Colour::Green } else { Colour::Red };
    text.push_str(&format!("\n{}\n", ui::coloured(&shown(&judgement.summary), colour)));
    ui::print(&text)
}

/// A verdict in a word.
pub(super) const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Failed => "FAILED",
        Verdict::NotApplicable => "n/a",
        Verdict::Skipped => "skipped",
    }
}

/// The judgement's own JSON, and what is shown with it.
fn as_json(view: &View<'_>) -> Result<Value> {
    let View { judgement, subject, policy, .. } = view;
    let mut value = serde_json::to_value(judgement)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("recognised".into(), json!(subject.form));
        object.insert("appraisal_policy_sha256".into(), json!(subject.appraisal_policy));
        object.insert("guest".into(), serde_json::to_value(subject.measured)?);
        object.insert("reference_info".into(), serde_json::to_value(subject.signed)?);
        object.insert("policy".into(), serde_json::to_value(policy)?);
        let events = subject.events.map(|log| json!({"forgotten": log.forgotten, "events": log.events}));
        object.insert("event_log".into(), json!(events));
        object.insert("azure_claims".into(), by_azure_names(judgement));
        object.insert("ear".into(), ear(judgement, subject.appraisal_policy));
    }
    Ok(value)
}

/// Text from evidence, policy or reference values, on one line and without effect on the terminal.
pub(super) fn shown(text: &str) -> String {
    ui::harmless(text).replace('\n', "\\n")
}

/// A part of the TCB.
fn part(part: &Part) -> String {
    let mut text = format!("{}\n", part.title);
    text.extend(part.rows.iter().map(|(name, value)| format!("  {:22} {}\n", shown(name), shown(value))));
    text.push('\n');
    text
}

/// The policy, whose digest is HOST_DATA.
fn policy(policy: &PolicyView) -> String {
    let mut text = format!("Policy {}\n", policy.digest);
    for container in &policy.containers {
        text += &format!("  container {}\n", shown(&container.name));
        text.extend(container.image.iter().map(|image| format!("    image {}\n", shown(image))));
        text.extend(container.layers.iter().flatten().map(|layer| format!("    layer {}\n", shown(layer))));
    }
    text.extend(policy.leaves_open.iter().map(|point| format!("  leaves open: {}\n", shown(point))));
    text.push('\n');
    text
}

/// What the guest did.
fn events(log: &EventLog) -> String {
    let mut text = String::from("What the guest was asked, and did\n");
    if log.forgotten > 0 {
        text += &format!("  {} events before these are no longer kept\n", log.forgotten);
    }
    for [number, what, outcome] in log.events.iter().map(event) {
        text += &format!("  {number:>5} {outcome:7} {}\n", shown(&what));
    }
    text.push('\n');
    text
}

/// The claims by the names of Azure's attestation service, where they are of SEV-SNP.
fn by_azure_names(judgement: &Judgement) -> Value {
    let claims = judgement.claims.as_ref().and_then(Claims::snp);
    claims.map_or(Value::Null, |claims| Value::Object(azure_claims(claims)))
}
