//! `caveau verify`: evidence held against the owner's expectations.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    mem::take,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use caveau_emulated::SoftwareRoot;
use caveau_evidence::{
    APPRAISAL_POLICY_EXAMPLE, Appraisal, AppraisalPolicy, Evidence, Expectations, ExpectedReportData, Hex,
    MAX_EVIDENCE_BYTES, Outcome as Judgement, Profile, Tee, TeeClass, Timestamp, Verdict, judge, sha256,
};
use caveau_guest_image::{Manifest, read_manifest};
use caveau_policy::{Policy, PolicyDigest, model::Container, open_points};
use caveau_protocol::Nonce;
use serde_json::json;

use crate::{
    args,
    commands::policy,
    endorsement,
    exit::Outcome,
    ui::{self, Colour},
};

/// Runs it.
///
/// # Errors
/// Where a file cannot be read. Evidence that is refused is no error: it is the answer.
pub(crate) fn run(command: &args::Verify, json: bool, quiet: bool) -> Result<Outcome> {
    let Some(file) = command.file.as_deref().filter(|_| !command.appraisal_example) else {
        ui::print(APPRAISAL_POLICY_EXAMPLE)?;
        return Ok(Outcome::Done);
    };
    let mut evidence = Evidence::parse(&read(file)?)?;
    let reference = command.reference.as_deref().map(read_manifest).transpose()?;
    let policy = command.policy.as_deref().map(policy::read).transpose()?;
    let standing = command.appraisal.as_deref().map(Standing::read).transpose()?.unwrap_or_default();
    let profile = command.profile.map(Profile::from).or(standing.policy.profile).unwrap_or_default();
    let mut expected = expectations(command, &evidence, reference.as_ref(), policy.as_deref(), standing.policy, quiet)?;
    let now = Timestamp::from_unix(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    let at = command.at.unwrap_or(now);
    let given = take(&mut evidence.certificates);
    let lists = command.crl.iter().map(|file| revocation_list(file)).collect::<Result<Vec<_>>>()?;
    let subject = (evidence.tee, evidence.report.as_slice());
    let endorsement = endorsement::complete(given, subject, &command.certificates, lists, at, quiet)?;
    evidence.certificates = endorsement.certificates;
    expected.least_crl_number = expected.least_crl_number.max(endorsement.least_crl_number);
    // An emulated processor is looked at only by who asked for it by name; everything else goes to the hardware verifier,
    // which refuses emulated evidence.
    let appraisal = match &command.allow_emulated {
        Some(root) if evidence.tee == Tee::EmulatedSnp => {
            let bytes = fs::read(root).with_context(|| format!("failed to read the root {}", root.display()))?;
            caveau_emulated::judge(&[SoftwareRoot::parse(&bytes)?], &evidence, &expected, profile, at)
        }
        _ => judge(&evidence, &expected, profile, at),
    };
    // What runs is only said where the report vouches for it. The reference values are what it was held against only along with
    // a number of processors.
    let compared = reference.filter(|_| command.cpus.is_some() && holds(&appraisal, "measurement"));
    let measured = compared.map(|manifest| of_tee(manifest, evidence.tee));
    let bound = policy.as_deref().filter(|_| holds(&appraisal, "policy"));
    print(&appraisal, measured.as_ref(), bound, standing.sha256.as_deref(), json)?;
    Ok(match appraisal.outcome {
        Judgement::Passed => Outcome::Done,
        Judgement::AuthenticNotAppraised | Judgement::Refused => Outcome::Refused,
    })
}

impl From<args::ProfileChoice> for Profile {
    fn from(choice: args::ProfileChoice) -> Self {
        match choice {
            args::ProfileChoice::Baseline => Self::Baseline,
            args::ProfileChoice::Strict => Self::Strict,
        }
    }
}

/// An appraisal policy, and the digest by which a record can name it.
#[derive(Default)]
struct Standing {
    policy: AppraisalPolicy,
    sha256: Option<String>,
}

impl Standing {
    fn read(file: &Path) -> Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        let policy = AppraisalPolicy::parse(&bytes).with_context(|| format!("failed to use {}", file.display()))?;
        Ok(Self { policy, sha256: Some(sha256(&bytes).to_string()) })
    }
}

/// What the owner expects: the appraisal policy, and what the options add to it. Nothing of it comes from the evidence but the
/// kind of TEE, which chooses the list that the measurement must be on.
fn expectations(
    command: &args::Verify,
    evidence: &Evidence,
    reference: Option<&Manifest>,
    policy: Option<&str>,
    standing: AppraisalPolicy,
    quiet: bool,
) -> Result<Expectations> {
    let nonce: Option<Nonce> = command.nonce.as_deref().map(str::parse).transpose()?;
    // One without the other says nothing of the launch digest: an expectation that is missing, which is for the outcome to tell.
    let measurements = match (reference, command.cpus) {
        (Some(manifest), Some(cpus)) => Some(digests(manifest, evidence.tee, cpus)),
        (None, None) => None,
        (Some(_), None) => {
            let why = "the launch digest depends on the number of processors";
            ui::note(quiet, &format!("--cpus is missing, without which --reference expects nothing: {why}"));
            None
        }
        (None, Some(_)) => {
            let why = "the number of processors chooses among the reference values of a guest.json";
            ui::note(quiet, &format!("--reference is missing, without which --cpus expects nothing: {why}"));
            None
        }
    };
    let listed = |list: &[_]| (!list.is_empty()).then(|| list.to_vec());
    let products = (!command.product_lines.is_empty()).then(|| command.product_lines.clone());
    let of_file = standing.expectations;
    Ok(Expectations {
        report_data: nonce.map(|nonce| ExpectedReportData::Challenge(nonce.as_bytes().to_vec())),
        policy_digest: either(
            "--policy",
            policy.map(|text| Hex(*PolicyDigest::of(text).as_bytes())),
            "guest.policy_digest",
            of_file.policy_digest,
        )?,
        measurements: either("--reference", measurements, "guest.measurements", of_file.measurements)?,
        chips: either("--chip", listed(&command.chips), "chips.allow", of_file.chips)?,
        product_lines: either("--product-line", products, "product_lines", of_file.product_lines)?,
        provider: either("--provider", command.provider.clone(), "provider", of_file.provider)?,
        least_guest_svn: either(
            "--least-guest-svn",
            command.least_guest_svn,
            "guest.least_svn",
            of_file.least_guest_svn,
        )?,
        ..of_file
    })
}

/// What an option or a field says. Both would leave open which counts.
fn either<T>(option: &str, given: Option<T>, field: &str, standing: Option<T>) -> Result<Option<T>> {
    match (given, standing) {
        (Some(_), Some(_)) => {
            bail!("{option} and the appraisal policy's `{field}` say the same thing: give one of them")
        }
        (given, standing) => Ok(given.or(standing)),
    }
}

/// The launch digests of this guest under this TEE with this many processors. None is a list on which nothing is found:
/// the evidence is then refused, since it claims to be of what the owner has no reference for.
fn digests(manifest: &Manifest, tee: Tee, cpus: u32) -> Vec<Hex<48>> {
    let tee = guest_tee(tee);
    let digests: Vec<_> = manifest.launch_digests(tee, cpus).map(|expected| Hex(*expected.digest.as_bytes())).collect();
    if digests.is_empty() {
        ui::note(false, &format!("the reference values list no launch digest for {tee} with {cpus} processors"));
    }
    digests
}

/// The TEE as guests name it.
fn guest_tee(tee: Tee) -> caveau_guest_image::Tee {
    match tee {
        Tee::EmulatedSnp => caveau_guest_image::Tee::EmulatedSnp,
        Tee::Snp => caveau_guest_image::Tee::Snp,
    }
}

/// The guest as this TEE starts it: of the parts and modules those alone that the launch digest covers.
fn of_tee(mut manifest: Manifest, tee: Tee) -> Manifest {
    let tee = guest_tee(tee);
    manifest.tees.retain(|name, _| *name == tee);
    let named: BTreeSet<&String> = manifest
        .tees
        .values()
        .flat_map(|info| [&info.kernel, &info.initrd, &info.cmdline].into_iter().chain(&info.firmware))
        .collect();
    manifest.parts.retain(|name, _| named.contains(name));
    manifest.modules.retain(|module| module.tee.is_none_or(|of| of == tee));
    manifest
}

/// A revocation list from a file.
fn revocation_list(file: &Path) -> Result<Vec<u8>> {
    let list = endorsement::read(file)?.crl;
    list.with_context(|| format!("{} is no revocation list", file.display()))
}

/// Whether a check was made and holds.
fn holds(appraisal: &Appraisal, name: &str) -> bool {
    appraisal.checks.iter().any(|check| check.name == name && check.verdict == Verdict::Ok)
}

/// Prints the judgement.
fn print(
    appraisal: &Appraisal,
    measured: Option<&Manifest>,
    policy: Option<&str>,
    standing: Option<&str>,
    json: bool,
) -> Result<()> {
    let parsed = policy.map(Policy::parse).transpose()?;
    if json {
        let mut value = serde_json::to_value(appraisal)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("appraisal_policy_sha256".into(), json!(standing));
            object.insert("guest".into(), serde_json::to_value(measured)?);
            object.insert("policy".into(), parsed.as_ref().map_or(json!(null), policy_json));
        }
        return ui::json(&value);
    }
    let mut text = processor(appraisal)?;
    text.extend(measured.map(guest));
    text.extend(parsed.as_ref().map(policy_text));
    text.push_str("Checks\n");
    for check in &appraisal.checks {
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
    let colour = if appraisal.outcome == Judgement::Passed { Colour::Green } else { Colour::Red };
    text.push_str(&format!("\n{}\n", ui::coloured(&shown(&appraisal.summary), colour)));
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

/// The processor's part of the TCB, from the signed report.
fn processor(appraisal: &Appraisal) -> Result<String> {
    let Some(claims) = &appraisal.claims else { return Ok(String::new()) };
    // The claims' JSON names every field; a table of it stays complete when claims grow.
    let value = serde_json::to_value(claims)?;
    let mut text = String::from(match appraisal.tee_class {
        TeeClass::Hardware => "Hardware TCB\n",
        TeeClass::Emulated => "EMULATED TCB (a program of the host says all of this; no hardware stands behind it)\n",
    });
    for (name, value) in value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        text.push_str(&row(&name.replace('_', " "), &short(value)));
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
    container.other.get("id").and_then(serde_json::Value::as_str)
}

fn policy_json(policy: &Policy) -> serde_json::Value {
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
fn short(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Object(fields) => {
            let shown = fields.iter().filter(|(_, value)| !value.is_null());
            shown
                .map(|(name, value)| format!("{} {}", name.replace('_', " "), short(value)))
                .collect::<Vec<_>>()
                .join(", ")
        }
        other => other.to_string(),
    }
}

/// The evidence file's bytes; `-` is standard input.
fn read(file: &Path) -> Result<Vec<u8>> {
    let failed = || format!("failed to read the evidence {}", file.display());
    let source: Box<dyn io::Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(file).with_context(failed)?)
    };
    let mut bytes = Vec::new();
    source.take(u64::try_from(MAX_EVIDENCE_BYTES)? + 1).read_to_end(&mut bytes).with_context(failed)?;
    Ok(bytes)
}
