//! What the owner expects of evidence: the appraisal policy, and what the options add to it.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use caveau_evidence::{Expectations, Hex, Tee, corim::Corim};
use caveau_guest_image::{Manifest, read_manifest};
use caveau_policy::PolicyDigest;

use crate::{args, files, tee, ui};

/// Reference values that the owner has.
pub(super) enum Reference {
    /// Of other tools: what reports must be, all of it.
    Corim(Corim),
    /// A guest.json.
    Guest(Box<Manifest>),
}

impl Reference {
    /// Reads a file of either kind, told by its first bytes.
    ///
    /// # Errors
    /// Where it cannot be read, or is neither.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let bytes = files::read(file, files::MAX_DOCUMENT)?;
        if Corim::is_likely(&bytes) {
            let corim = Corim::parse(&bytes).with_context(|| format!("failed to use {}", file.display()))?;
            return Ok(Self::Corim(corim));
        }
        // CBOR's tag of a COSE_Sign1 (RFC 9052, section 4.2).
        ensure!(
            bytes.first() != Some(&0xd2),
            "{} is a signed envelope, and --reference takes a guest.json or a CoRIM; reference values that somebody signed \
             are for --endorsement",
            file.display()
        );
        Ok(Self::Guest(Box::new(read_manifest(file)?)))
    }
}

/// What the owner expects of SEV-SNP, but for its report data: the appraisal policy, and what the options add to it. Nothing of it comes from the evidence but the
/// kind of TEE, which chooses the list that the measurement must be on.
pub(super) fn expectations(
    command: &args::Expected,
    tee: Tee,
    reference: Option<&Reference>,
    policy: Option<&str>,
    of_file: Expectations,
    quiet: bool,
) -> Result<Expectations> {
    // One without the other says nothing of the launch digest: an expectation that is missing, which is for the outcome to tell.
    let measurements = match (reference, command.cpus) {
        (Some(Reference::Guest(manifest)), Some(cpus)) => Some(digests(manifest, tee, cpus)),
        (Some(Reference::Corim(corim)), None) => Some(corim.measurements()),
        (Some(Reference::Corim(_)), Some(_)) => {
            bail!("--cpus chooses among the reference values of a guest.json: a CoRIM has no such")
        }
        (None, None) => None,
        (Some(Reference::Guest(_)), None) => {
            let why = "the launch digest depends on the number of processors";
            ui::note(quiet, &format!("--cpus is missing, without which --reference expects no launch digest: {why}"));
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
    let (option, digest) = policy_digest(policy, reference)?;
    Ok(Expectations {
        policy_digest: either(option, digest, "guest.policy_digest", of_file.policy_digest)?,
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

/// The digest of the policy that must be in force, and the option that says so: a policy's text, or reference values of a group.
/// Where both do, they must mean the same.
fn policy_digest(policy: Option<&str>, reference: Option<&Reference>) -> Result<(&'static str, Option<Hex<32>>)> {
    let of_text = policy.map(|text| Hex(*PolicyDigest::of(text).as_bytes()));
    let group = match reference {
        Some(Reference::Guest(manifest)) => manifest.group,
        Some(Reference::Corim(_)) | None => None,
    };
    let of_group = group.map(|group| Hex(*group.policy_sha256.as_bytes()));
    match (of_text, of_group) {
        (Some(text), Some(group)) if text != group => bail!(
            "--policy has the digest {text}, and --reference is of a group whose policy has {group}: give those of one group"
        ),
        (None, Some(group)) => Ok(("--reference", Some(group))),
        (text, _) => Ok(("--policy", text)),
    }
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
    let tee = tee::in_guest(tee);
    let digests: Vec<_> = manifest.launch_digests(tee, cpus).map(|expected| Hex(*expected.digest.as_bytes())).collect();
    if digests.is_empty() {
        ui::note(false, &format!("the reference values list no launch digest for {tee} with {cpus} processors"));
    }
    digests
}

/// The guest as this TEE starts it: of the parts and modules those alone that the launch digest covers.
pub(super) fn of_tee(mut manifest: Manifest, tee: Tee) -> Manifest {
    let tee = tee::in_guest(tee);
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
