//! A judgement as a page: one HTML file that needs nothing else and runs nothing, for people who were not there.
//!
//! What is in it comes from [`View`], as on the terminal. Evidence and policies are others' text: [`html`] escapes all of it, and
//! the page's own policy of contents lets a browser load and run nothing but the one style sheet in it.

mod facts;
mod html;

use std::path::Path;

use anyhow::Result;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use caveau_evidence::{Outcome, Profile, Subject as Claims, TeeClass, Verdict, sha256};
use caveau_policy_tools::{Finding, PolicyDocument, Section, check, explain};

use super::{
    inputs::Inputs,
    show::word,
    view::{Part, View, event},
};
use crate::files;
use html::Html;

const STYLE: &str = include_str!("page/style.css");

/// Checks that look for what is known to be wrong with processors, firmware and how they are set up.
const OF_WEAKNESSES: [&str; 12] = [
    "debug",
    "provisional-firmware",
    "alias-check",
    "tcb-order",
    "minimum-tcb",
    "minimum-firmware",
    "mitigations",
    "chip",
    "known-signer",
    "tcb-level",
    "tcb-status",
    "advisories",
];

/// Writes the page, whole or not at all.
///
/// # Errors
/// Where it cannot be written.
pub(super) fn write(file: &Path, view: &View<'_>, inputs: &Inputs) -> Result<()> {
    files::write(file, page(view, inputs).as_bytes())
}

/// The page's text.
fn page(view: &View<'_>, inputs: &Inputs) -> String {
    let mut html = Html::default();
    let title = format!("{}: verification of {}", Words::of(view).headline, inputs.evidence.name);
    html.around("html", &[("lang", "en")], |html| {
        html.around("head", &[], |html| head(html, &title));
        html.around("body", &[], |html| {
            html.around("header", &[], |html| outcome(html, view, inputs));
            html.around("main", &[], |html| {
                summary(html, view, inputs);
                hardware(html, view);
                software(html, view);
                policy(html, view);
                signed(html, view);
                events(html, view);
                checks(html, view);
                hashes(html, view, inputs);
                repeat(html, view, inputs);
            });
            let version = env!("CARGO_PKG_VERSION");
            html.text("footer", &[], &format!("Written by caveau {version} from a judgement of format {}. This page is a record, and proves nothing by itself: who has the files can judge them again.", view.judgement.format));
        });
    });
    html.finish()
}

fn head(html: &mut Html, title: &str) {
    let hash = BASE64_STANDARD.encode(sha256(STYLE.as_bytes()).0);
    let contents = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'");
    html.open("meta", &[("charset", "utf-8")]);
    html.open("meta", &[("http-equiv", "Content-Security-Policy"), ("content", &contents)]);
    html.open("meta", &[("name", "referrer"), ("content", "no-referrer")]);
    html.open("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
    html.text("title", &[], title);
    html.style(STYLE);
}

/// The outcome, in words.
struct Words {
    headline: &'static str,
    meaning: &'static str,
    class: &'static str,
}

impl Words {
    fn of(view: &View<'_>) -> Self {
        let is_emulated = view.judgement.tee_class == Some(TeeClass::Emulated);
        match view.judgement.outcome {
            Outcome::Passed => Self {
                headline: if is_emulated { "Passed, on an EMULATED TEE" } else { "Passed" },
                meaning: "The evidence is authentic, and what it says is what its owner expects.",
                class: "outcome passed",
            },
            Outcome::AuthenticNotAppraised => Self {
                headline: "Authentic, not appraised",
                meaning: "This is not a pass. The evidence is authentic, and nothing is wrong in it, but something that matters was \
                          held against no expectation of its owner's.",
                class: "outcome not-appraised",
            },
            Outcome::Refused => Self {
                headline: "Refused",
                meaning: "At least one check failed. Do not trust what this evidence is about, nor what else it says.",
                class: "outcome refused",
            },
        }
    }
}

fn outcome(html: &mut Html, view: &View<'_>, inputs: &Inputs) {
    html.text("h1", &[], &format!("Verification of {}", inputs.evidence.name));
    let words = Words::of(view);
    html.around("div", &[("class", words.class), ("id", "outcome")], |html| {
        html.around("p", &[], |html| html.text("strong", &[], words.headline));
        html.text("p", &[], words.meaning);
        html.text("p", &[], &format!("In the verifier's words: {}.", view.judgement.summary));
    });
    if view.judgement.tee_class == Some(TeeClass::Emulated) {
        html.around("div", &[("class", "emulated"), ("id", "emulated")], |html| {
            html.around("p", &[], |html| html.text("strong", &[], "EMULATED TEE: NO HARDWARE PROTECTS THIS GROUP"));
            let meaning = "A program of the host made this evidence. The host can read and change everything in the group, whatever \
                           the checks below say. It is for development and tests alone.";
            html.text("p", &[], meaning);
        });
    }
}

fn summary(html: &mut Html, view: &View<'_>, inputs: &Inputs) {
    let judgement = view.judgement;
    let class = match judgement.tee_class {
        Some(TeeClass::Hardware) => "hardware, vouched for by its maker's certificates",
        Some(TeeClass::Emulated) => "EMULATED: a program of the host",
        None => "unknown: nothing vouches for it",
    };
    let profile = match judgement.profile {
        Profile::Strict => "strict: every check is required",
        Profile::Baseline => "baseline: authenticity, and what no owner would do without",
    };
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let count = |verdict| judgement.checks.iter().filter(|check| check.verdict == verdict).count();
    let mut rows = vec![
        row("Judged as of", judgement.at.to_string()),
        row("Profile", profile.to_owned()),
        row("Evidence", inputs.evidence.name.clone()),
        row("Recognised as", view.subject.form.to_owned()),
        row("TEE", class.to_owned()),
        row(
            "Checks",
            format!(
                "{} hold, {} failed, {} were not made, {} have nothing to look at",
                count(Verdict::Ok),
                count(Verdict::Failed),
                count(Verdict::Skipped),
                count(Verdict::NotApplicable)
            ),
        ),
    ];
    rows.extend(facts::of(judgement).into_iter().map(|(name, value)| vec![name, value]));
    html.text("h2", &[("id", "summary")], "In short");
    html.table("What was judged, when, and what stands behind it", &["What", "Is"], &rows, None);
}

/// The rows of a part under its title.
fn part(html: &mut Html, part: &Part) {
    let rows: Vec<_> = part.rows.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
    html.table(&part.title, &["Claim", "Value"], &rows, None);
}

fn hardware(html: &mut Html, view: &View<'_>) {
    html.text("h2", &[("id", "hardware")], "Hardware TCB");
    match &view.processor {
        Some(processor) => part(html, processor),
        None => html.text(
            "p",
            &[],
            "Nothing of the evidence is authentic, so that nothing it says of a processor is shown.",
        ),
    }
    let looked_for = view.judgement.checks.iter().filter(|check| OF_WEAKNESSES.contains(&check.name));
    let rows: Vec<_> = looked_for
        .map(|check| vec![check.name.to_owned(), word(check.verdict).to_owned(), check.sentence.clone()])
        .collect();
    if !rows.is_empty() {
        html.text("h3", &[], "Known weaknesses");
        html.table("What was looked for, and found", &["Check", "Verdict", "What was found"], &rows, Some(1));
    }
}

fn software(html: &mut Html, view: &View<'_>) {
    html.text("h2", &[("id", "software")], "Software TCB");
    match &view.guest {
        Some(guest) => part(html, guest),
        None => html.text(
            "p",
            &[],
            "Firmware, kernel and agent are not named: no reference values of the owner's that name them have this launch digest, \
             or none were given.",
        ),
    }
}

fn policy(html: &mut Html, view: &View<'_>) {
    html.text("h2", &[("id", "policy")], "Policy");
    let Some((policy, text)) = view.policy.as_ref().zip(view.subject.policy) else {
        html.text("p", &[], "No policy is shown: none was given, or the evidence does not vouch for the one that was.");
        return;
    };
    html.text("p", &[], &format!("The policy in force has the digest (SHA-256) {}.", policy.digest));
    let listed = |items: &Option<Vec<String>>, none: &str, between| match items {
        Some(items) if !items.is_empty() => items.join(between),
        _ => none.to_owned(),
    };
    let rows = policy.containers.iter().map(|container| {
        vec![
            container.name.clone(),
            container.image.clone().unwrap_or_else(|| "(not said)".to_owned()),
            listed(&container.layers, "none: nothing of its files is verified", ", "),
            listed(&container.command, "(not said)", " "),
        ]
    });
    let rows: Vec<_> = rows.collect();
    html.table("Containers", &["Container", "Image", "Layer roots, lowest first", "Command"], &rows, None);
    html.text("h3", &[("id", "leaves-open")], "What it leaves to the host");
    if policy.leaves_open.is_empty() {
        html.text("p", &[], "Nothing that is known of, but to start nothing, or to stop it.");
    } else {
        html.list(&policy.leaves_open);
    }
    match check("the policy", text) {
        Ok(findings) if !findings.is_empty() => lint(html, &findings),
        Ok(_) => html.text("p", &[], "The lints find nothing else."),
        Err(error) => html.text("p", &[], &format!("The lints cannot say more: {error}.")),
    }
    html.text("h3", &[], "What it says, in words");
    match sections(text) {
        Ok(all) => all.iter().filter(|section| !is_of_fragment(section)).for_each(|section| words(html, section)),
        Err(error) => html.text("p", &[], &error),
    }
}

fn lint(html: &mut Html, findings: &[Finding]) {
    let row = |finding: &Finding| {
        let line = finding.line.map(|line| line.to_string()).unwrap_or_default();
        let within = finding.container.clone().unwrap_or_default();
        vec![finding.lint.to_owned(), finding.severity.to_string(), line, within, finding.message.clone()]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    html.table("Lints", &["Lint", "Severity", "Line", "Container", "What was found"], &rows, None);
}

/// The policy in words; or why there are none.
fn sections(text: &str) -> Result<Vec<Section>, String> {
    let parsed = PolicyDocument::parse("the policy", text);
    parsed.map(|document| explain(&document)).map_err(|error| format!("It cannot be put into words: {error}."))
}

fn is_of_fragment(section: &Section) -> bool {
    section.title.starts_with("Fragment ")
}

fn words(html: &mut Html, section: &Section) {
    html.text("h4", &[], &section.title);
    html.list(&section.sentences);
}

fn signed(html: &mut Html, view: &View<'_>) {
    html.text("h2", &[("id", "signed")], "Fragments and signed reference values");
    match &view.signed {
        Some(signed) => part(html, signed),
        None => html.text("p", &[], "Nobody's signed reference values were taken for the launch digest."),
    }
    if let Some(loaded) = &view.loaded {
        part(html, loaded);
    }
    let all = view.subject.policy.and_then(|text| sections(text).ok()).unwrap_or_default();
    let fragments: Vec<_> = all.iter().filter(|section| is_of_fragment(section)).collect();
    match (view.policy.is_some(), fragments.is_empty()) {
        (false, _) => html.text("p", &[], "Which fragments the policy takes is not known."),
        (true, true) => html.text("p", &[], "The policy takes no fragments."),
        (true, false) => {
            html.text(
                "p",
                &[],
                match (view.subject.events.is_some(), view.loaded.is_some()) {
                    (true, true) => "The policy takes these fragments. Those that were loaded are said above.",
                    (true, false) => "The policy takes these fragments. None of them was loaded.",
                    (false, _) => {
                        "The policy takes these fragments. Which of them were loaded, the evidence does not say: that \
                         takes an event log."
                    }
                },
            );
            fragments.into_iter().for_each(|section| words(html, section));
        }
    }
}

fn events(html: &mut Html, view: &View<'_>) {
    html.text("h2", &[("id", "events")], "What the guest was asked, and did");
    let Some(log) = view.subject.events else {
        html.text(
            "p",
            &[],
            "No event log came with the evidence, or the report does not vouch for it: what did run is not known.",
        );
        return;
    };
    if log.forgotten > 0 {
        html.text("p", &[], &format!("{} events before these are no longer kept.", log.forgotten));
    }
    let rows: Vec<_> = log.events.iter().map(|logged| event(logged).to_vec()).collect();
    html.table(
        "Everything that its host and its owners asked of it, in order",
        &["No.", "What", "Outcome"],
        &rows,
        None,
    );
}

fn checks(html: &mut Html, view: &View<'_>) {
    html.text("h2", &[("id", "checks")], "Every check");
    let row = |check: &caveau_evidence::Check| {
        let code = check.code.clone().unwrap_or_default();
        vec![check.name.to_owned(), word(check.verdict).to_owned(), code, check.sentence.clone()]
    };
    let rows: Vec<_> = view.judgement.checks.iter().map(row).collect();
    let caption = "In the order made: ok, FAILED, skipped (not looked at), n/a (nothing to look at)";
    html.table(caption, &["Check", "Verdict", "Code", "What was found"], &rows, Some(1));
}

fn hashes(html: &mut Html, view: &View<'_>, inputs: &Inputs) {
    html.text("h2", &[("id", "hashes")], "Hashes");
    let mut rows = vec![vec!["report, quote or token".to_owned(), view.judgement.report_sha256.to_string()]];
    if let Some(sha256) = view.subject.appraisal_policy {
        rows.push(vec!["appraisal policy".to_owned(), sha256.to_owned()]);
    }
    if let Some(claims) = view.judgement.claims.as_ref().and_then(Claims::snp) {
        let chain = &claims.endorsement;
        for (place, certificate) in [("root", &chain.root), ("intermediate", &chain.intermediate), ("key", &chain.vek)]
        {
            rows.push(vec![
                format!("certificate of the {place}, {}", certificate.name),
                certificate.sha256.to_string(),
            ]);
        }
    }
    html.table("SHA-256 of what was judged and of what vouched for it", &["What", "SHA-256"], &rows, None);
    let rows: Vec<_> = inputs
        .files()
        .map(|file| {
            vec![
                file.name.clone(),
                file.role.clone(),
                file.sha256.clone().unwrap_or_else(|| "not known: it can be read once only".to_owned()),
            ]
        })
        .collect();
    html.table("Files", &["File", "Given as", "SHA-256"], &rows, None);
}

fn repeat(html: &mut Html, view: &View<'_>, inputs: &Inputs) {
    html.text("h2", &[("id", "repeat")], "How to judge it yourself");
    html.text(
        "p",
        &[],
        "Get the program caveau from where you trust it, and the files of the table above: compare their hashes. Nonce, policy, \
         reference values and roots count only if they are what you expect, and not because they stand here. Then run",
    );
    html.text("pre", &[], &inputs.command);
    html.text(
        "p",
        &[],
        &format!(
            "It judges as of {}, as this page does, and must end with exit code {}. Certificates and collateral that lie beside the \
             evidence are found by their names there; those that were fetched, or kept in a cache, can have been replaced by newer \
             ones since, and are then given with --certificates.",
            view.judgement.at,
            if view.judgement.outcome == Outcome::Passed { 0 } else { 1 }
        ),
    );
}
