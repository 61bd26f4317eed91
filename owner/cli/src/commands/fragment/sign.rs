//! `caveau fragment sign`.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use caveau_cose::{Form, MAX_ENVELOPE_BYTES};
use caveau_fragment::FragmentText;

use crate::{
    args,
    commands::signing::{Content, Signatory},
    exit::Outcome,
    files, ui,
};

/// Runs it.
///
/// # Errors
/// Where what was given is wrong or does not go together, or cannot be read or written.
pub(super) fn run(command: &args::FragmentSign, quiet: bool) -> Result<Outcome> {
    let output = output(command)?;
    let payload = files::read(&command.file, MAX_ENVELOPE_BYTES)?;
    let fragment = if command.content_type == args::FRAGMENT_CONTENT { Some(fragment(&payload)?) } else { None };
    let signatory = Signatory::new(&command.signing)?;
    let (issuer, form) = (&signatory.issuer, signatory.form);
    let own_svn = fragment.as_ref().and_then(|fragment| fragment.svn.as_deref());
    let svn = match (form, command.svn, own_svn) {
        (_, Some(svn), Some(own)) if own.parse() != Ok(svn) => {
            bail!("--svn {svn}: the fragment itself says {own}, and guests want both to be the same")
        }
        (Form::Claims, None, Some(own)) => {
            Some(own.parse().with_context(|| format!("the fragment's svn {own:?} is no number for the envelope"))?)
        }
        (_, given, _) => given,
    };
    let content = Content { payload: &payload, content_type: &command.content_type, feed: &command.feed, svn };
    let signed = signatory.sign(&content)?;
    if output == Path::new("-") {
        io::stdout().lock().write_all(&signed).context("failed to write to standard output")?;
        return Ok(Outcome::Done);
    }
    files::write(&output, &signed)?;
    ui::note(quiet, &format!("signed by {issuer} into {}", output.display()));
    if let Some(fragment) = fragment {
        let svn = svn.map(|svn| svn.to_string());
        ui::json(&fragment.import(issuer, &command.feed, svn.as_deref()))?;
    }
    Ok(Outcome::Done)
}

fn output(command: &args::FragmentSign) -> Result<PathBuf> {
    match &command.output {
        Some(output) => Ok(output.clone()),
        None if command.file == Path::new("-") => bail!("give --output FILE: standard input has no name"),
        None => {
            let mut name = command.file.clone().into_os_string();
            name.push(".cose");
            Ok(name.into())
        }
    }
}

fn fragment(payload: &[u8]) -> Result<FragmentText> {
    let text = std::str::from_utf8(payload).context("the fragment is not UTF-8")?;
    FragmentText::parse(text).context("the file is no fragment (for other contents, give their --content-type)")
}
