//! What a judgement was made from: the command line, and its files by their hashes, so that somebody else can repeat it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use caveau_evidence::{Judgement, Profile, sha256};
use clap::ValueEnum as _;

use super::beside;
use crate::{args, files, words};

/// What a judgement was made from.
pub(super) struct Inputs {
    /// The evidence.
    pub(super) evidence: Input,
    /// Other files.
    others: Vec<Input>,
    /// The command that repeats the judgement.
    pub(super) command: String,
}

/// A file.
pub(super) struct Input {
    /// Its name.
    pub(super) name: String,
    /// As what it was given.
    pub(super) role: String,
    /// SHA-256 of what is in it; `None` where it cannot be read again.
    pub(super) sha256: Option<String>,
}

impl Inputs {
    /// Those of a judgement of what was read from the evidence's file.
    pub(super) fn new(command: &args::Verify, file: &Path, evidence: &[u8], judgement: &Judgement) -> Self {
        let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
        let hash = sha256(evidence).to_string();
        let evidence = Input { name, role: "the evidence".to_owned(), sha256: Some(hash) };
        let given = options(command);
        let files = given.iter().filter_map(|(option, value)| value.file().map(|path| (*option, path)));
        let mut others: Vec<_> = files.map(|(option, path)| Input::read(path, option)).collect();
        others.extend(beside::lying(file).iter().map(|path| Input::read(path, "lies beside the evidence")));
        Self { evidence, others, command: repeated(file, &given, judgement) }
    }

    /// All files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Input> {
        [&self.evidence].into_iter().chain(&self.others)
    }
}

impl Input {
    fn read(path: &Path, role: &str) -> Self {
        // What is no file (a pipe, standard input) can be read once, and was.
        let bytes = path.is_file().then(|| files::read(path, files::MAX_DOCUMENT).ok()).flatten();
        let sha256 = bytes.map(|bytes| sha256(&bytes).to_string());
        Self { name: path.display().to_string(), role: role.to_owned(), sha256 }
    }
}

/// Refuses a page that would take the place of what is judged, or of what it is judged by.
///
/// # Errors
/// Where the page's file is one of the others, or standard output.
pub(super) fn check_page(command: &args::Verify, page: &Path, evidence: &Path) -> Result<()> {
    ensure!(page != Path::new("-"), "--html takes the name of a file: standard output has the table, or --json");
    let Ok(page_there) = page.canonicalize() else { return Ok(()) };
    let given = options(command);
    let files = given.iter().filter_map(|(option, value)| value.file().map(|path| (*option, path)));
    for (option, path) in files.chain([("the evidence", evidence)]) {
        if path.canonicalize().is_ok_and(|path| path == page_there) {
            bail!("--html {} is {option}, and would be replaced: name another file", page.display());
        }
    }
    Ok(())
}

/// What an option was given.
enum Given<'a> {
    File(&'a Path),
    Flag,
    Text(String),
}

impl Given<'_> {
    fn file(&self) -> Option<&Path> {
        if let Self::File(path) = self { Some(path) } else { None }
    }
}

/// The options that a judgement depends on, but for time and profile.
fn options(command: &args::Verify) -> Vec<(&'static str, Given<'_>)> {
    // Each field by its name, so that a new one is not forgotten here.
    let args::Verify { file: _, nonce, report_data, session, html: _, appraisal_example: _, expected } = command;
    let args::Expected {
        policy,
        reference,
        cpus,
        allow_emulated,
        profile: _,
        appraisal,
        chips,
        product_lines,
        provider,
        least_guest_svn,
        at: _,
        endorsement,
        endorsement_issuer,
        endorsement_feed,
        endorsement_least_svn,
        collateral,
        token_keys,
        crl,
        certificates: args::CertificateSources { certificates, fetch_certificates, certificate_cache: _ },
    } = expected;
    let mut all: Vec<_> = session.then_some(("--session", Given::Flag)).into_iter().collect();
    let mut text = |option, value: Option<String>| all.extend(value.map(|value| (option, Given::Text(value))));
    text("--nonce", nonce.clone());
    text("--report-data", report_data.map(|data| data.to_string()));
    text("--cpus", cpus.map(|count| count.to_string()));
    chips.iter().for_each(|chip| text("--chip", Some(chip.to_string())));
    product_lines.iter().for_each(|line| text("--product-line", Some(line.name().to_owned())));
    text("--provider", provider.clone());
    text("--least-guest-svn", least_guest_svn.map(|svn| svn.to_string()));
    text("--endorsement-issuer", endorsement_issuer.as_ref().map(ToString::to_string));
    text("--endorsement-feed", endorsement_feed.clone());
    text("--endorsement-least-svn", endorsement_least_svn.map(|svn| svn.to_string()));
    text("--fetch-certificates", fetch_certificates.clone());
    let files: [(&str, Vec<&PathBuf>); 9] = [
        ("--policy", policy.iter().collect()),
        ("--reference", reference.iter().collect()),
        ("--allow-emulated", allow_emulated.iter().collect()),
        ("--appraisal", appraisal.iter().collect()),
        ("--endorsement", endorsement.iter().collect()),
        ("--collateral", collateral.iter().collect()),
        ("--token-keys", token_keys.iter().collect()),
        ("--crl", crl.iter().collect()),
        ("--certificates", certificates.iter().collect()),
    ];
    for (option, paths) in files {
        all.extend(paths.into_iter().map(|path| (option, Given::File(path.as_path()))));
    }
    all
}

/// The command that judges the same evidence in the same way, at the same time.
fn repeated(file: &Path, given: &[(&'static str, Given<'_>)], judgement: &Judgement) -> String {
    let profile = match judgement.profile {
        Profile::Baseline => args::ProfileChoice::Baseline,
        Profile::Strict => args::ProfileChoice::Strict,
    };
    let profile = profile.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let always = [("--at", Some(judgement.at.to_string())), ("--profile", Some(profile))];
    let given = given.iter().map(|(option, value)| match value {
        Given::File(path) => (*option, Some(path.display().to_string())),
        Given::Flag => (*option, None),
        Given::Text(text) => (*option, Some(text.clone())),
    });
    let mut command = format!("caveau verify {}", words::as_word(&file.display().to_string()));
    for (option, value) in always.into_iter().chain(given) {
        command.push_str(&format!(" {option}"));
        // With `=`, a value that begins with a dash, or that is optional, is read as one.
        command.extend(value.map(|value| format!("={}", words::as_word(&value))));
    }
    command
}
