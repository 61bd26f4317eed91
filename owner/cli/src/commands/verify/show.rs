//! A judgement, as people and programs read it.

use anyhow::Result;
use caveau_evidence::{Accepted, Judgement, Outcome, Subject as Claims, TeeClass, Verdict, azure_claims, ear};
use caveau_guest_image::Manifest;
use caveau_policy::{Policy, model::Container, open_points};
use serde_json::{Value, json};

use crate::ui::{self, Colour};

/// What is shown along with a judgement.
pub(super) struct Subject<'a> {
    /// What was recognised.
    pub(super) form: &'a str,
    /// The guest, where its launch digest was found in reference values.
    pub(super) measured: Option<&'a Manifest>,
    /// Who signed for its launch digest, where somebody did whose word counts.
    pub(super) signed: Option<&'a Accepted>,
    /// The policy, where the report vouches for it.
    pub(super) policy: Option<&'a str>,
}

/// Prints the judgement.
///
/// # Errors
/// Where nothing can be written.
pub(super) fn print(
    judgement: &Judgement,
    subject: &Subject<'_>,
    appraisal_policy: Option<&str>,
    json: bool,
) -> Result<()> {
    let parsed = subject.policy.map(Policy::parse).transpose()?;
    if json {
        let mut value = serde_json::to_value(judgement)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("recognised".into(), json!(subject.form));
            object.insert("appraisal_policy_sha256".into(), json!(appraisal_policy));
            object.insert("guest".into(), serde_json::to_value(subject.measured)?);
            object.insert("reference_info".into(), serde_json::to_value(subject.signed)?);
            object.insert("policy".into(), parsed.as_ref().map_or(json!(null), policy_json));
            object.insert("azure_claims".into(), by_azure_names(judgement));
            object.insert("ear".into(), ear(judgement, appraisal_policy));
        }
        return ui::json(&value);
    }
    let mut text = format!("Recognised as {}\n\n", subject.form);
    text += &processor(judgement)?;
    text.extend(subject.measured.map(guest));
    text.extend(subject.signed.map(signed));
    text.extend(parsed.as_ref().map(policy_text));
    text.push_str("Checks\n");
    for check in &judgement.checks {
        let (word, colour) = match check.verdict {
            Verdict::Ok => ("ok", Colour::Green),
            Verdict::Failed => ("FAILED", Colour::Red),
            Verdict::NotApplicable => ("n/a", Colour::Yellow),
            Verdict::Skipped => ("skipped", Colour::Yellow),
        };
        // Coloured as the last thing: colours have no width, but count as characters. And only what this program wrote.
        let verdict = ui::coloured(&format!("{word:8}"), colour);
        text.push_str(&format!("  {:22} {verdict} {}\n", check.name, shown(&check.sentence)));
    }
    let colour = if judgement.outcome == Outcome::Passed { Colour::Green } else { Colour::Red };
    text.push_str(&format!("\n{}\n", ui::coloured(&shown(&judgement.summary), colour)));
    ui::print(&text)
}

/// Text from evidence, policy or reference values, on one line and without effect on the terminal.
fn shown(text: &str) -> String {
    ui::harmless(text).replace('\n', "\\n")
}

/// A name, and what there is to say.
fn row(name: &str, value: &str) -> String {
    format!("  {name:22} {}\n", shown(value))
}

/// Most fields of a part that are shown on one line.
const FIELDS_ON_A_LINE: usize = 5;

/// A value: on one line, or each of its fields on its own where it has many.
fn rows(text: &mut String, name: &str, value: &Value) {
    match value {
        Value::Object(fields) if fields.len() > FIELDS_ON_A_LINE || fields.values().any(Value::is_object) => {
            for (field, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                rows(text, &format!("{name}: {}", field.replace('_', " ")), value);
            }
        }
        value => text.push_str(&row(name, &short(value))),
    }
}

/// The processor's part of the TCB, from the signed report.
fn processor(judgement: &Judgement) -> Result<String> {
    let Some(claims) = &judgement.claims else { return Ok(String::new()) };
    // The claims' JSON names every field; a table of it stays complete when claims grow.
    let value = serde_json::to_value(claims)?;
    let mut text = String::from(match judgement.tee_class {
        _ if matches!(claims, Claims::Token(_)) => "Claims of another verifier\n",
        Some(TeeClass::Hardware) => "Hardware TCB\n",
        Some(TeeClass::Emulated) => {
            "EMULATED TCB (a program of the host says all of this; no hardware stands behind it)\n"
        }
        None => "Claims that nothing vouches for\n",
    });
    for (name, value) in value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        rows(&mut text, &name.replace('_', " "), value);
    }
    text.push('\n');
    Ok(text)
}

/// The software part of the TCB, from the owner's reference values that the launch digest was found in.
fn guest(manifest: &Manifest) -> String {
    let package = manifest.kernel.package.as_ref().map(|package| format!(" ({} {})", package.name, package.version));
    let mut text = String::from("Software TCB (launch digest found in the reference values)\n");
    text += &row("kernel", &format!("{}{}", manifest.kernel.release, package.unwrap_or_default()));
    text += &row("agent", &format!("{} (sha256 {})", manifest.agent.version, manifest.agent.sha256));
    text += &row("guest svn", &manifest.svn.to_string());
    text.extend(manifest.tees.iter().map(|(tee, info)| row(&format!("cmdline {tee}"), &info.cmdline)));
    text.extend(manifest.parts.iter().map(|(name, part)| row(name, &format!("sha256 {}", part.sha256))));
    let modules: Vec<_> = manifest.modules.iter().map(|module| module.name.as_str()).collect();
    text += &row("modules", &modules.join(" "));
    text.push('\n');
    text
}

/// Who signed for the launch digest.
fn signed(accepted: &Accepted) -> String {
    let mut text = String::from("Signed reference values (launch digest found in them)\n");
    text += &row("issuer", &accepted.issuer);
    text += &row("feed", &accepted.feed);
    text += &row("guest svn", &accepted.svn.to_string());
    text.extend(accepted.signed_at.map(|time| row("signed at", &time.to_string())));
    text.push('\n');
    text
}

/// The policy, whose digest is HOST_DATA.
fn policy_text(policy: &Policy) -> String {
    let mut text = format!("Policy {}\n", policy.digest());
    for container in policy.containers() {
        text += &format!("  container {}\n", shown(&container.label()));
        if let Some(image) = image(container) {
            text += &format!("    image {}\n", shown(image));
        }
        text.extend(container.layers.iter().flatten().map(|layer| format!("    layer {}\n", shown(layer))));
    }
    text.extend(open_points(policy).iter().map(|point| format!("  leaves open: {}\n", shown(point))));
    text.push('\n');
    text
}

/// The image's reference, which a policy has for people: what the image is, its layers say.
fn image(container: &Container) -> Option<&str> {
    container.other.get("id").and_then(Value::as_str)
}

fn policy_json(policy: &Policy) -> Value {
    let containers = policy.containers().map(|container| {
        json!({
            "name": container.label(), "image": image(container), "layers": container.layers,
            "command": container.command,
        })
    });
    let containers: Vec<_> = containers.collect();
    json!({ "digest": policy.digest().to_string(), "containers": containers, "leaves_open": open_points(policy) })
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

/// The claims by the names of Azure's attestation service, where they are of SEV-SNP.
fn by_azure_names(judgement: &Judgement) -> Value {
    let claims = judgement.claims.as_ref().and_then(Claims::snp);
    claims.map_or(Value::Null, |claims| Value::Object(azure_claims(claims)))
}
