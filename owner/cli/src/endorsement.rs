//! The certificates that go with a report, from wherever they are to be had: the evidence, files, a cache, and on request a key
//! distribution service. All of them are bytes from anyone until the verifier has judged them.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use caveau_evidence::{
    Certificates, Report, Timestamp,
    kds::{self, Document},
};
use caveau_registry::{Event, Options, Progress, fetch_document};

use crate::{args::CertificateSources, folders, ui};

/// Largest answer of a service: a revocation list's.
const MAX_DOCUMENT: u64 = 1024 * 1024;

/// `given`, replaced by what the files have, and completed from the cache and, where it was asked for, from the service.
/// A revocation list is asked for anew each time; a cached one that is no longer in force `at` that time counts as absent.
///
/// # Errors
/// Where a file is no certificate, or the service that was to be asked does not answer.
pub(crate) fn complete(
    given: Certificates,
    report: &[u8],
    sources: &CertificateSources,
    at: Timestamp,
    quiet: bool,
) -> Result<Certificates> {
    let files = sources.certificates.iter().map(|file| read(file));
    let files = files.collect::<Result<Vec<_>>>()?;
    let files = files.into_iter().try_fold(Certificates::default(), Certificates::with)?;
    let renew_list = sources.fetch_certificates.is_some() && files.crl.is_none();
    let mut all = files.or(given);
    // What is no report is for the verifier to refuse.
    let Ok(report) = Report::parse(report) else { return Ok(all) };
    let service = Service::new(sources, at, quiet)?;
    if all.vek.is_none() {
        all = all.or(service.find(Document::vek_of(report.fields()))?);
    }
    let line = kds::product_of(report.fields());
    let key = report.fields().signing_key;
    if all.intermediate.is_none() || all.root.is_none() {
        all = all.or(service.find(line.map(|line| Document::Chain(line, key)))?);
    }
    if all.crl.is_none() || renew_list {
        let newest = service.find(line.map(|line| Document::Crl(line, key)))?;
        all.crl = newest.crl.or(all.crl);
    }
    Ok(all)
}

/// The certificates in a file.
///
/// # Errors
/// Where it cannot be read, or holds something else.
pub(crate) fn read(file: &Path) -> Result<Certificates> {
    let bytes = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    Certificates::from_file(&bytes).with_context(|| format!("failed to use {}", file.display()))
}

/// A key distribution service, and the folder in which its answers are kept.
struct Service<'a> {
    /// Its URL, where it may be asked.
    url: Option<&'a str>,
    cache: PathBuf,
    at: Timestamp,
    quiet: bool,
}

impl<'a> Service<'a> {
    fn new(sources: &'a CertificateSources, at: Timestamp, quiet: bool) -> Result<Self> {
        let url = sources.fetch_certificates.as_deref().map(|url| url.trim_end_matches('/'));
        let cache = match &sources.certificate_cache {
            Some(folder) => folder.clone(),
            None => folders::cache()?.join("certificates"),
        };
        // Each service has its own folder: two may have different certificates for the same name.
        let host = url.unwrap_or(kds::AMD).split_once("://").map_or("", |(_, rest)| rest);
        let name = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        Ok(Self { url, cache: cache.join(host.chars().map(name).collect::<String>()), at, quiet })
    }

    /// What a document holds; nothing where it is neither kept nor to be asked for.
    fn find(&self, document: Result<Document, kds::CannotAsk>) -> Result<Certificates> {
        let document = match document {
            Ok(document) => document,
            Err(reason) => {
                ui::note(self.quiet || self.url.is_none(), &reason.to_string());
                return Ok(Certificates::default());
            }
        };
        let file = self.cache.join(document.file_name());
        let is_list = matches!(document, Document::Crl(..));
        match self.url {
            Some(url) if is_list => self.fetch(url, &document, &file),
            Some(url) => self.kept(&file)?.map_or_else(|| self.fetch(url, &document, &file), Ok),
            None => Ok(self.kept(&file)?.unwrap_or_default()),
        }
    }

    /// What is kept in `file`, if it is still of use.
    fn kept(&self, file: &Path) -> Result<Option<Certificates>> {
        let bytes = match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("failed to read {}", file.display()))?,
        };
        let kept = Certificates::from_file(&bytes)
            .with_context(|| format!("{} is damaged: remove it, and fetch anew", file.display()))?;
        Ok(Some(kept).filter(|kept| kept.list_in_force(self.at)))
    }

    /// Asks the service, and keeps what it says.
    fn fetch(&self, service: &str, document: &Document, file: &Path) -> Result<Certificates> {
        let url = format!("{service}{}", document.path());
        let Some(bytes) = fetch_document(&url, MAX_DOCUMENT, &Options::default(), self)? else {
            bail!("{service} has no {}", document.path());
        };
        let fetched = Certificates::from_file(&bytes).with_context(|| format!("failed to use what {url} gave"))?;
        keep(file, &bytes).with_context(|| format!("failed to write {}", file.display()))?;
        Ok(fetched)
    }
}

impl Progress for Service<'_> {
    fn report(&self, event: Event<'_>) {
        if let Event::Retrying { reason, seconds } = event {
            ui::note(self.quiet, &format!("{reason}; trying again in {seconds:.0} s"));
        }
    }
}

/// Writes a file that is whole, or as it was before.
fn keep(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}
