//! `caveau guest sbom`: a guest's bill of materials.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use caveau_guest_image::{AGENT_CONTENTS_FILE, GuestFolder, MANIFEST_FILE, Sha256, sbom};

use crate::{args, exit::Outcome, files, ui};

/// Runs it.
///
/// # Errors
/// Where the guest cannot be read, or does not say what its agent is made of.
pub(super) fn run(command: &args::GuestSbom, quiet: bool) -> Result<Outcome> {
    let folder = match &command.guest_or_file {
        Some(place) => folder_of(place)?,
        None => command.guest.path()?,
    };
    let text = of_folder(&folder)?;
    match &command.output {
        Some(output) if output != Path::new("-") => {
            files::write(output, text.as_bytes())?;
            ui::note(quiet, &format!("wrote {}", output.display()));
        }
        _ => ui::print(&text)?,
    }
    Ok(Outcome::Done)
}

/// The folder that was named, or that of the guest.json that was named: what is in the agent stands beside it.
pub(super) fn folder_of(place: &Path) -> Result<PathBuf> {
    let place = std::path::absolute(place).with_context(|| format!("failed to resolve {}", place.display()))?;
    if place.is_dir() {
        return Ok(place);
    }
    ensure!(
        place.file_name().is_some_and(|name| name == MANIFEST_FILE),
        "{} is neither a guest's folder nor its {MANIFEST_FILE}: name one of them",
        place.display()
    );
    Ok(place.parent().map_or_else(PathBuf::new, Path::to_path_buf))
}

fn of_folder(folder: &Path) -> Result<String> {
    let guest = GuestFolder::open(folder)?;
    let contents = guest.agent_contents()?.with_context(|| {
        format!(
            "{} does not record what the agent is made of: build the guest again by `cargo xtask setup` or `cargo xtask guest`, or \
             with `caveau guest build --agent FILE --agent-record FILE`, from which it gets its part {AGENT_CONTENTS_FILE}",
            folder.join(MANIFEST_FILE).display()
        )
    })?;
    let path = folder.join(MANIFEST_FILE);
    let described = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(sbom(guest.manifest(), Sha256::of(&described), &contents))
}
