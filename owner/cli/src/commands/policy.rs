//! `caveau policy`: make policies and look at them.

use std::path::Path;

use anyhow::{Context as _, Result};
use caveau_policy::{MAX_TEXT, Policy, PolicyDigest, generate, open_points};

use crate::{
    args,
    commands::{policy_corpus, policy_tools},
    container,
    exit::Outcome,
    fetch, files, ui,
};

/// Runs it.
///
/// # Errors
/// Where image, options or policy are wrong.
pub(crate) fn run(command: args::Policy, json: bool, quiet: bool) -> Result<Outcome> {
    match command {
        args::Policy::Generate { source, options } => {
            container::check(&options)?;
            container::warn(&options);
            let image = fetch::image(&source, quiet)?;
            let group = container::group(container::container(&image, &options)?, &options)?;
            print_generated(&generate(&group), json, quiet)
        }
        args::Policy::Digest { file } => {
            let digest = PolicyDigest::of(&read(&file)?);
            if json {
                ui::json(&serde_json::json!({ "digest": digest.to_string() }))?;
            } else {
                ui::line(digest)?;
            }
            Ok(Outcome::Done)
        }
        args::Policy::Check { list: true, .. } => policy_tools::list(json),
        args::Policy::Check { file, deny, allow, .. } => {
            policy_tools::check(&file.unwrap_or_else(|| "-".into()), deny, &allow, json)
        }
        args::Policy::Explain { file } => policy_tools::explain(&file, json),
        args::Policy::Diff { a, b } => policy_tools::diff(&a, &b, json),
        args::Policy::Convert { file, to } => policy_tools::convert(&file, to, json, quiet),
        args::Policy::Replay { corpus, .. } if !corpus.is_empty() => policy_corpus::run(&corpus),
        args::Policy::Replay { file, requests, amend, only, .. } => {
            let given = file.zip(requests).context("a policy and requests are needed")?;
            policy_tools::replay(&given.0, &given.1, amend.as_deref().map(|output| (output, &only[..])), json)
        }
    }
}

/// The policy on standard output, and on standard error what it leaves open.
fn print_generated(text: &str, json: bool, quiet: bool) -> Result<Outcome> {
    let policy = Policy::parse(text)?;
    let open = open_points(&policy);
    if json {
        let digest = policy.digest().to_string();
        ui::json(&serde_json::json!({ "policy": text, "digest": digest, "leaves_open": open }))?;
        return Ok(Outcome::Done);
    }
    ui::print(text)?;
    ui::note(quiet, &format!("digest {}", policy.digest()));
    for point in open {
        ui::note(quiet, &format!("the policy leaves open: {point}"));
    }
    Ok(Outcome::Done)
}

/// A policy's text from a file, or from standard input for `-`, byte for byte.
///
/// # Errors
/// Where it cannot be read, is too long or is not UTF-8.
pub(crate) fn read(file: &Path) -> Result<String> {
    files::read_text(file, MAX_TEXT)
}
