//! `caveau fragment attach` and `discover`.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, bail};
use caveau_cose::{Envelope, MAX_ENVELOPE_BYTES, Rules, TRUST_LIST_TYPE, Validity, VerifiedEnvelope};
use caveau_registry::{Artifact, ImageSource, attach as attach_artifact, discover as discover_artifacts};
use serde_json::json;

use crate::{args, exit::Outcome, fetch, files, ui};

/// The type of the artifact that a signed fragment is, and of its one layer, as hosts look for them.
const FRAGMENT: (&str, &str) = ("application/x-ms-ccepolicy-frag", "application/cose-x509+rego");

const RULES: Rules<'static> = Rules { validity: Validity::LeafEnd, chain: &[] };

/// Attaches a fragment that is signed as it should be.
///
/// # Errors
/// Where it is not, or the registry does not take it.
pub(super) fn attach(command: &args::FragmentAttach, json: bool, quiet: bool) -> Result<Outcome> {
    let content = files::read(&command.file, MAX_ENVELOPE_BYTES)?;
    let verified = VerifiedEnvelope::open(&content, &RULES);
    let verified = verified.with_context(|| format!("{} is refused, and is not attached", command.file.display()))?;
    let (artifact_type, media_type) = match verified.content_type().map(|content| content.to_string()) {
        Some(kind) if kind == TRUST_LIST_TYPE => (TRUST_LIST_TYPE, TRUST_LIST_TYPE),
        _ => FRAGMENT,
    };
    let ImageSource::Registry(image) = ImageSource::parse(&command.image)? else {
        bail!("{}: only to images in registries can something be attached", command.image);
    };
    let title = command.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let artifact =
        Artifact { artifact_type, media_type, content: &content, title: &title, annotations: &BTreeMap::new() };
    let attached = attach_artifact(&image, &artifact, &fetch::options(&command.fetch)?, &fetch::Warnings { quiet })?;
    if json {
        ui::json(&json!({
            "subject": attached.subject, "manifest": attached.manifest,
            "listed_by": if attached.listed_by_registry { "registry" } else { "tag" },
        }))?;
    } else {
        ui::line(attached.manifest)?;
    }
    ui::note(quiet, &format!("attached to the manifest {}", attached.subject));
    if !attached.listed_by_registry {
        ui::note(quiet, "the registry does not list referrers: a tag of the image's repository does");
    }
    Ok(Outcome::Done)
}

/// Lists attached fragments, and writes them where that is wanted. Ones that are not signed as they should be are
/// listed, and the command refuses.
///
/// # Errors
/// Where the registry does not answer, or a file cannot be written.
pub(super) fn discover(command: &args::FragmentDiscover, json: bool, quiet: bool) -> Result<Outcome> {
    let ImageSource::Registry(image) = ImageSource::parse(&command.image)? else {
        bail!("{}: only to images in registries can something be attached", command.image);
    };
    let options = fetch::options(&command.fetch)?;
    let found = discover_artifacts(&image, FRAGMENT, &options, &fetch::Warnings { quiet })?;
    let (mut entries, mut sound) = (Vec::new(), true);
    for referrer in &found {
        if let Some(folder) = &command.output {
            fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
            let path = folder.join(format!("{}.cose", referrer.manifest.hex()));
            files::write(&path, &referrer.content)?;
        }
        let problem = VerifiedEnvelope::open(&referrer.content, &RULES)
            .err()
            .map(|error| format!("{:#}", anyhow::Error::from(error)));
        sound &= problem.is_none();
        let envelope = Envelope::parse(&referrer.content).ok();
        let header = envelope.as_ref().map(Envelope::header);
        entries.push(json!({
            "manifest": referrer.manifest,
            "issuer": header.and_then(|header| header.issuer),
            "feed": header.and_then(|header| header.feed),
            "svn_in_header": header.and_then(|header| header.svn),
            "problem": problem,
        }));
    }
    if json {
        ui::json(&entries)?;
    } else {
        let cell = |value: &serde_json::Value| value.as_str().map_or_else(|| "-".to_owned(), ui::harmless);
        let rows = entries.iter().map(|entry| {
            let state = if entry["problem"].is_null() { "holds".to_owned() } else { cell(&entry["problem"]) };
            vec![cell(&entry["manifest"]), cell(&entry["feed"]), cell(&entry["issuer"]), state]
        });
        ui::table(&["MANIFEST", "FEED", "ISSUER", "SIGNATURE"], &rows.collect::<Vec<_>>())?;
    }
    Ok(if sound { Outcome::Done } else { Outcome::Refused })
}
