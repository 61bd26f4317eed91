//! `caveau policy check`, `explain`, `diff`, `convert` and `replay`: what the tools find, printed.

use std::{io::BufReader, path::Path};

use anyhow::{Result, bail};
use caveau_policy::Denial;
use caveau_policy_tools::{self as tools, Difference, Finding, Found, LINTS, PolicyDocument, Replayed, Severity};
use serde_json::json;

use crate::{
    args::{ConvertTo, SeverityChoice},
    exit::Outcome,
    files, ui,
};

/// Longest file with a policy in it: base64 of the longest text, or a template with a few of them.
const MAX_FILE: usize = 32 << 20;

/// Prints every lint.
pub(crate) fn list(json: bool) -> Result<Outcome> {
    if json {
        let lints: Vec<_> = LINTS
            .iter()
            .map(|lint| json!({"lint": lint.name, "severity": lint.severity, "about": lint.about}))
            .collect();
        ui::json(&lints)?;
    } else {
        let row = |lint: &tools::Lint| vec![lint.name.to_owned(), lint.severity.to_string(), lint.about.to_owned()];
        ui::table(&["LINT", "SEVERITY", "MEANING"], &LINTS.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(Outcome::Done)
}

/// Prints what was found in each policy of a file.
pub(crate) fn check(file: &Path, deny: SeverityChoice, allow: &[String], json: bool) -> Result<Outcome> {
    if let Some(unknown) = allow.iter().find(|name| !LINTS.iter().any(|lint| lint.name == **name)) {
        bail!("there is no lint {unknown:?}: caveau policy check --list names them all");
    }
    let mut refused = false;
    let mut shown = Vec::new();
    for found in read(file)? {
        let mut findings = tools::check(&found.name, &found.text)?;
        findings.retain(|finding| !allow.iter().any(|name| name == finding.lint));
        refused |= least(deny).is_some_and(|least| findings.iter().any(|finding| finding.severity >= least));
        if json {
            shown.push(json!({"policy": found.name, "digest": tools::digest(&found.text), "findings": findings}));
        } else {
            print_findings(&found.name, &findings)?;
        }
    }
    if json {
        ui::json(&shown)?;
    }
    Ok(if refused { Outcome::Refused } else { Outcome::Done })
}

fn least(deny: SeverityChoice) -> Option<Severity> {
    Some(match deny {
        SeverityChoice::Note => Severity::Note,
        SeverityChoice::Low => Severity::Low,
        SeverityChoice::Medium => Severity::Medium,
        SeverityChoice::High => Severity::High,
        SeverityChoice::Error => Severity::Error,
        SeverityChoice::Never => return None,
    })
}

/// A line a finding, as compilers print them.
fn print_findings(name: &str, findings: &[Finding]) -> Result<()> {
    for finding in findings {
        let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
        let container = finding.container.as_ref().map(|name| format!("container {name}: ")).unwrap_or_default();
        let colour = match finding.severity {
            Severity::Error | Severity::High => ui::Colour::Red,
            _ => ui::Colour::Yellow,
        };
        let severity = ui::coloured(&finding.severity.to_string(), colour);
        let message = ui::harmless(&format!("{container}{}", finding.message));
        ui::line(format!("{}{line}: {severity}: {message} [{}]", ui::harmless(name), finding.lint))?;
    }
    ui::line(format!("{}: {} findings", ui::harmless(name), findings.len()))
}

/// Prints each policy of a file in words.
pub(crate) fn explain(file: &Path, json: bool) -> Result<Outcome> {
    let mut shown = Vec::new();
    for found in read(file)? {
        let sections = tools::explain(&PolicyDocument::parse(&found.name, &found.text)?);
        if json {
            shown.push(json!({"policy": found.name, "sections": sections}));
            continue;
        }
        for section in sections {
            ui::line(ui::harmless(&section.title))?;
            for sentence in section.sentences {
                ui::line(ui::harmless(&format!("  {sentence}")))?;
            }
            ui::line("")?;
        }
    }
    if json {
        ui::json(&shown)?;
    }
    Ok(Outcome::Done)
}

/// Prints how two policies differ, or the policies of two templates, group by group.
pub(crate) fn diff(a: &Path, b: &Path, json: bool) -> Result<Outcome> {
    if a == Path::new("-") && b == Path::new("-") {
        bail!("both policies from standard input: name a file for one of them");
    }
    let mut shown = Vec::new();
    let mut different = false;
    for (name, a, b) in pairs(read(a)?, read(b)?) {
        let differences = match (&a, &b) {
            (Some(a), Some(b)) => {
                tools::diff(&PolicyDocument::parse(&a.name, &a.text)?, &PolicyDocument::parse(&b.name, &b.text)?)
            }
            _ => Vec::new(),
        };
        let missing = match (&a, &b) {
            (Some(_), None) => Some("only in the first"),
            (None, Some(_)) => Some("only in the second"),
            _ => None,
        };
        different |= missing.is_some() || !differences.is_empty();
        if json {
            shown.push(json!({"policy": name, "missing": missing, "differences": differences}));
        } else {
            print_differences(&name, missing, &differences)?;
        }
    }
    if json {
        ui::json(&shown)?;
    }
    Ok(if different { Outcome::Refused } else { Outcome::Done })
}

/// What to compare with what: the only policy of each side, or groups of the same name.
fn pairs(a: Vec<Found>, mut b: Vec<Found>) -> Vec<(String, Option<Found>, Option<Found>)> {
    if a.len() == 1 && b.len() == 1 {
        let (a, b) = (a.into_iter().next(), b.into_iter().next());
        let name = a.as_ref().map(|found| found.name.clone()).unwrap_or_default();
        return vec![(name, a, b)];
    }
    let mut pairs = Vec::new();
    for one in a {
        let other = b.iter().position(|found| found.name == one.name).map(|at| b.remove(at));
        pairs.push((one.name.clone(), Some(one), other));
    }
    pairs.extend(b.into_iter().map(|other| (other.name.clone(), None, Some(other))));
    pairs
}

fn print_differences(name: &str, missing: Option<&str>, differences: &[Difference]) -> Result<()> {
    if let Some(missing) = missing {
        return ui::line(format!("group {}: {missing}", ui::harmless(name)));
    }
    for difference in differences {
        let field = difference.field.as_ref().map(|field| format!(" {field}")).unwrap_or_default();
        ui::line(ui::harmless(&format!("{}{field}", difference.within)))?;
        for (sign, value) in [('-', &difference.a), ('+', &difference.b)] {
            if let Some(value) = value {
                ui::line(ui::harmless(&format!("  {sign} {value}")))?;
            }
        }
    }
    Ok(())
}

/// Prints a policy in another form.
pub(crate) fn convert(file: &Path, to: ConvertTo, json: bool, quiet: bool) -> Result<Outcome> {
    let found = read_one(file)?;
    // Whatever the form, what comes out is a policy.
    PolicyDocument::parse(&found.name, &found.text)?;
    let text = match to {
        ConvertTo::Base64 => tools::base64(&found.text),
        ConvertTo::Digest => tools::digest(&found.text),
        ConvertTo::Raw => found.text.clone(),
        ConvertTo::Pretty => tools::pretty(&found.name, &found.text)?,
    };
    if json {
        let digest = tools::digest(if to == ConvertTo::Pretty { &text } else { &found.text });
        ui::json(&json!({"policy": text, "digest": digest, "was": tools::digest(&found.text)}))?;
        return Ok(Outcome::Done);
    }
    match to {
        ConvertTo::Base64 | ConvertTo::Digest => ui::line(&text)?,
        ConvertTo::Raw | ConvertTo::Pretty => ui::print(&text)?,
    }
    if to == ConvertTo::Pretty {
        let (was, is) = (tools::digest(&found.text), tools::digest(&text));
        if was == is {
            ui::note(
                quiet,
                "the text is as it was: it is laid out already, or has rules, computed values or names of its own",
            );
        } else {
            ui::note(quiet, &format!("it decides the same, but is another text: its digest is {is}, and was {was}"));
        }
    }
    Ok(Outcome::Done)
}

/// Asks recorded requests of a policy and prints each answer; with `amend`, writes the policy changed so that it allows them
/// (all, or those of these numbers).
pub(crate) fn replay(file: &Path, requests: &Path, amend: Option<(&Path, &[u64])>, json: bool) -> Result<Outcome> {
    let found = read_one(file)?;
    let requests = tools::requests(BufReader::new(files::open(requests)?))?;
    let replayed = tools::replay(&found.name, &found.text, &requests)?;
    for request in &replayed {
        if json {
            ui::line(serde_json::to_string(request)?)?;
        } else {
            print_replayed(request)?;
        }
    }
    let denied = |replayed: &[Replayed]| replayed.iter().filter(|request| !request.allowed).count();
    let Some((output, wanted)) = amend else {
        if !json {
            ui::line(format!("{} of {} requests are allowed", replayed.len() - denied(&replayed), replayed.len()))?;
        }
        return Ok(if denied(&replayed) == 0 { Outcome::Done } else { Outcome::Refused });
    };
    let (text, changes) = tools::amend(&found.name, &found.text, &requests, wanted)?;
    files::write(output, text.as_bytes())?;
    for (n, change) in &changes {
        ui::complain(&format!("caveau: changed for request {n}: {}", ui::harmless(&change.to_string())));
    }
    let mut left = tools::replay(&found.name, &text, &requests)?;
    left.retain(|request| wanted.is_empty() || wanted.contains(&request.n));
    ui::complain(&format!("caveau: wrote {}, digest {}", output.display(), tools::digest(&text)));
    Ok(if denied(&left) == 0 { Outcome::Done } else { Outcome::Refused })
}

fn print_replayed(request: &Replayed) -> Result<()> {
    let word = |allowed: bool| if allowed { "allowed" } else { "denied" };
    let now = if request.allowed {
        ui::coloured(word(true), ui::Colour::Green)
    } else {
        ui::coloured(word(false), ui::Colour::Red)
    };
    ui::line(format!("{} {} {now} (recorded: {})", request.n, request.asked.point, word(request.recorded)))?;
    match &request.denial {
        Some(denial) => print_denial(denial),
        None => Ok(()),
    }
}

/// A denial with all that can be done about it.
fn print_denial(denial: &Denial) -> Result<()> {
    if denial.candidates.is_empty() {
        for reason in &denial.reasons {
            ui::line(ui::harmless(&format!("    {reason}")))?;
        }
    }
    for candidate in &denial.candidates {
        ui::line(ui::harmless(&format!("    container {}", candidate.container)))?;
        for difference in &candidate.differences {
            ui::line(ui::harmless(&format!("      {}", difference.field)))?;
            ui::line(ui::harmless(&format!("        policy: {}", difference.expected)))?;
            ui::line(ui::harmless(&format!("        asked:  {}", difference.got)))?;
        }
        if let Some(change) = &candidate.change {
            for edit in &change.edits {
                ui::line(ui::harmless(&format!("      to allow it: {edit}")))?;
            }
        }
    }
    match &denial.change {
        Some(change) if denial.candidates.is_empty() => ui::line(ui::harmless(&format!("    to allow it: {change}"))),
        Some(_) => Ok(()),
        None => ui::line("    no change of the policy's data allows it: the request has to be another"),
    }
}

/// Every policy in a file.
fn read(file: &Path) -> Result<Vec<Found>> {
    Ok(tools::read(&file.display().to_string(), &files::read_text(file, MAX_FILE)?)?)
}

/// The only policy in a file.
///
/// # Errors
/// Where it cannot be read, or holds none, or several.
pub(crate) fn read_one(file: &Path) -> Result<Found> {
    let mut all = read(file)?;
    match (all.pop(), all.len()) {
        (Some(found), 0) => Ok(found),
        (_, more) => bail!("{} holds {} policies: give one of them", file.display(), more + 1),
    }
}
