//! `caveau fragment`: make, sign, look at and hand out policy fragments.

mod inspect;
mod registry;
mod sign;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
};

use anyhow::{Context as _, Result, bail};
use caveau_fragment::{DevelopmentChain, DevelopmentSpec, FragmentText};
use caveau_policy::generate;

use crate::{args, commands::policy, container, exit::Outcome, fetch, ui, units::now};

/// Runs it.
///
/// # Errors
/// Where what was given is wrong, or cannot be read or written.
pub(crate) fn run(command: args::Fragment, json: bool, quiet: bool) -> Result<Outcome> {
    match command {
        args::Fragment::Generate(command) => generate_text(*command, json, quiet),
        args::Fragment::Chain(command) => make_chain(&command, json, quiet),
        args::Fragment::Sign(command) => sign::run(&command, quiet),
        args::Fragment::Inspect(command) => inspect::run(&command, json),
        args::Fragment::Attach(command) => registry::attach(&command, json, quiet),
        args::Fragment::Discover(command) => registry::discover(&command, json, quiet),
    }
}

fn generate_text(command: args::FragmentGenerate, json: bool, quiet: bool) -> Result<Outcome> {
    let text = match (&command.policy, command.image) {
        (Some(file), _) => policy::read(file)?,
        (None, Some(image)) => {
            container::check(&command.options)?;
            container::warn(&command.options);
            let source = args::Source { image, fetch: command.fetch };
            let image = fetch::image(&source, quiet)?;
            generate(&container::group(container::container(&image, &command.options)?, &command.options)?)
        }
        (None, None) => bail!("give an image, or a policy with --policy FILE"),
    };
    let fragment = FragmentText::of_policy(&text, &command.namespace, command.svn)?;
    if json {
        let includes: Vec<_> = fragment.includes.iter().map(|(name, _)| *name).collect();
        ui::json(&serde_json::json!({
            "fragment": fragment.text, "namespace": fragment.namespace, "svn": fragment.svn, "includes": includes,
        }))?;
    } else {
        ui::print(&fragment.text)?;
    }
    Ok(Outcome::Done)
}

/// Makes keys and certificates, in a folder that only its owner can look into.
fn make_chain(command: &args::FragmentChain, json: bool, quiet: bool) -> Result<Outcome> {
    let now = now()?;
    let chain = DevelopmentChain::make(&DevelopmentSpec {
        common_name: &command.name,
        eku: &command.eku,
        kind: command.key_type.into(),
        not_before: now,
        not_after: now.plus_seconds(u64::from(command.days) * 86_400),
    })?;
    let folder = &command.folder;
    let made = fs::DirBuilder::new().mode(0o700).create(folder);
    made.with_context(|| format!("failed to make the folder {}", folder.display()))?;
    for (name, content) in [
        ("signer.key", chain.signer_key.to_pem().as_str()),
        ("authority.key", chain.authority_key.to_pem().as_str()),
        ("chain.pem", chain.to_pem().as_str()),
    ] {
        let path = folder.join(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
        written.with_context(|| format!("failed to write {}", path.display()))?;
    }
    if json {
        ui::json(&serde_json::json!({ "folder": folder, "issuer": chain.issuer.as_str() }))?;
    } else {
        ui::line(&chain.issuer)?;
    }
    let (key, pem) = (folder.join("signer.key"), folder.join("chain.pem"));
    let next = format!("sign with --key {} --chain {}; for development only", key.display(), pem.display());
    ui::note(quiet, &next);
    Ok(Outcome::Done)
}
