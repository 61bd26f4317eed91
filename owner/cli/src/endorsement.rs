//! The certificates that go with a report, from wherever they are to be had: the evidence, files, a cache, and on request a key
//! distribution service. All of them are bytes from anyone until the verifier has judged them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use caveau_evidence::{
    Certificates, OwnLists, Product, Report, Tee, Timestamp,
    kds::{self, Document},
};
use caveau_registry::{Event, Options, Progress, fetch_document};

use crate::{args::CertificateSources, files, folders, ui};

/// Largest answer of a service: a revocation list's.
const MAX_DOCUMENT: u64 = 1024 * 1024;

/// What goes with a report.
pub(crate) struct Endorsement {
    /// The certificates, with the revocation list by which to judge.
    pub(crate) certificates: Certificates,
    /// The highest number of a revocation list of the root that the owner holds.
    pub(crate) least_crl_number: u64,
}

/// `given`, replaced by what the files have, and completed from the cache and, where it was asked for, from the service.
/// A revocation list is asked for anew each time; of all that are to be had, the one in force `at` that time with the highest
/// number counts. `lists` are further ones of the owner's.
///
/// # Errors
/// Where a file is no certificate, or the service that was to be asked does not answer.
pub(crate) fn complete(
    given: Certificates,
    (tee, report): (Tee, &[u8]),
    sources: &CertificateSources,
    lists: Vec<Vec<u8>>,
    at: Timestamp,
    quiet: bool,
) -> Result<Endorsement> {
    let files = sources.certificates.iter().map(|file| read(file));
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut files = files.into_iter().try_fold(Certificates::default(), Certificates::with)?;
    let mut own = lists;
    own.extend(files.crl.take());
    let mut all = files.or(given).with_built_in();
    let mut kept = None;
    // What is no report is for the verifier to refuse.
    if let Ok(report) = Report::parse(report) {
        let line = kds::product_of(report.fields());
        let emulated = tee == Tee::EmulatedSnp || line == Ok(Product::Software);
        if let Some(service) = Service::new(sources, emulated, quiet)? {
            if all.vek.is_none() {
                all = all.or(service.find(Document::vek_of(report.fields()))?).with_built_in();
            }
            let key = report.fields().signing_key;
            if all.intermediate.is_none() || all.root.is_none() {
                all = all.or(service.find(line.map(|line| Document::Chain(line, key)))?);
            }
            let list = line.map(|line| Document::Crl(line, key));
            kept = service.kept_list(&list)?;
            if own.is_empty() {
                own.extend(service.newest_list(list, &mut kept, &all)?);
            }
        }
    }
    let kept: Vec<_> = kept.into_iter().collect();
    let least_crl_number = all.choose_list(&OwnLists { given: &own, kept: &kept }, at);
    Ok(Endorsement { certificates: all, least_crl_number })
}

/// The certificates in a file.
///
/// # Errors
/// Where it cannot be read, or holds something else.
pub(crate) fn read(file: &Path) -> Result<Certificates> {
    let bytes = files::read(file, files::MAX_DOCUMENT)?;
    Certificates::from_file(&bytes).with_context(|| format!("failed to use {}", file.display()))
}

/// A key distribution service, and the folder in which its answers are kept.
struct Service<'a> {
    /// Its URL, where it may be asked.
    url: Option<&'a str>,
    cache: PathBuf,
    quiet: bool,
}

impl<'a> Service<'a> {
    /// The service that was named, or AMD's. AMD knows nothing of emulated processors, whatever line they play, so there is
    /// no service for those but one that was named.
    fn new(sources: &'a CertificateSources, emulated: bool, quiet: bool) -> Result<Option<Self>> {
        let url = sources.fetch_certificates.as_deref().map(|url| url.trim_end_matches('/'));
        let host = url.unwrap_or(kds::AMD).split_once("://").map_or("", |(_, rest)| rest);
        if emulated && is_amd(host) {
            ui::note(quiet || url.is_none(), "AMD is not asked for certificates of the emulated TEE: it has none");
            return Ok(None);
        }
        let cache = match &sources.certificate_cache {
            Some(folder) => folder.clone(),
            None => folders::cache()?.join("certificates"),
        };
        // Each service has its own folder: two may have different certificates for the same name.
        let name = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        Ok(Some(Self { url, cache: cache.join(host.chars().map(name).collect::<String>()), quiet }))
    }

    /// Certificates that a document holds; nothing where it is neither kept nor to be asked for.
    fn find(&self, document: Result<Document, kds::CannotAsk>) -> Result<Certificates> {
        let document = match document {
            Ok(document) => document,
            Err(reason) => {
                ui::note(self.quiet || self.url.is_none(), &reason.to_string());
                return Ok(Certificates::default());
            }
        };
        let file = self.file(&document);
        if let Some(bytes) = kept(&file)? {
            return parsed(&bytes, &file);
        }
        let Some((url, bytes)) = self.fetch(&document)? else { return Ok(Certificates::default()) };
        let fetched = Certificates::from_file(&bytes).with_context(|| format!("failed to use what {url} gave"))?;
        keep(&file, &bytes)?;
        Ok(fetched)
    }

    /// The revocation list that was fetched last, however old.
    fn kept_list(&self, document: &Result<Document, kds::CannotAsk>) -> Result<Option<Vec<u8>>> {
        let Ok(document) = document else { return Ok(None) };
        let file = self.file(document);
        match kept(&file)? {
            Some(bytes) => Ok(parsed(&bytes, &file)?.crl),
            None => Ok(None),
        }
    }

    /// The newest revocation list, where the service may be asked. It takes the place of the `kept` one, unless that is newer:
    /// by its number, a list that was rolled back is told.
    fn newest_list(
        &self,
        document: Result<Document, kds::CannotAsk>,
        kept: &mut Option<Vec<u8>>,
        chain: &Certificates,
    ) -> Result<Option<Vec<u8>>> {
        let Ok(document) = document else { return Ok(None) };
        let Some((url, bytes)) = self.fetch(&document)? else { return Ok(None) };
        let fetched = Certificates::from_file(&bytes).with_context(|| format!("failed to use what {url} gave"))?.crl;
        let list = fetched.with_context(|| format!("{url} gave no revocation list"))?;
        if kept.as_deref().is_none_or(|kept| chain.may_replace_list(&list, kept)) {
            let file = self.file(&document);
            keep(&file, &bytes)?;
            *kept = None;
        }
        Ok(Some(list))
    }

    /// Where a document is kept.
    fn file(&self, document: &Document) -> PathBuf {
        self.cache.join(document.file_name())
    }

    /// Asks the service, where it may be asked: the URL, and what it gave.
    fn fetch(&self, document: &Document) -> Result<Option<(String, Vec<u8>)>> {
        let Some(service) = self.url else { return Ok(None) };
        let url = format!("{service}{}", document.path());
        let Some(bytes) = fetch_document(&url, MAX_DOCUMENT, &Options::default(), self)? else {
            bail!("{service} has no {}", document.path());
        };
        Ok(Some((url, bytes)))
    }
}

/// Whether a service's host, with its port and path, is AMD's.
fn is_amd(host: &str) -> bool {
    let name = host.split(['/', ':']).next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    name == "amd.com" || name.ends_with(".amd.com")
}

/// What is kept in `file`.
fn kept(file: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => Ok(Some(read.with_context(|| format!("failed to read {}", file.display()))?)),
    }
}

fn parsed(bytes: &[u8], file: &Path) -> Result<Certificates> {
    Certificates::from_file(bytes).with_context(|| format!("{} is damaged: remove it, and fetch anew", file.display()))
}

impl Progress for Service<'_> {
    fn report(&self, event: Event<'_>) {
        if let Event::Retrying { reason, seconds } = event {
            ui::note(self.quiet, &format!("{reason}; trying again in {seconds:.0} s"));
        }
    }
}

/// Writes a file in a folder that need not be there yet.
fn keep(file: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    }
    files::write(file, bytes)
}
