//! Files that lie beside a report or a quote, as those who record evidence leave them. Their names make nothing of them: they
//! are judged like all that comes along.

use std::{
    fs,
    path::{Path, PathBuf},
};

use caveau_evidence::{Certificates, dcap::Collateral};

use crate::{endorsement, ui};

/// Names of certificates, without their endings. The endorsement key's own follows from the report.
const AUTHORITIES: [&str; 5] = ["ask", "asvk", "ark", "cert_chain", "crl"];
const ENDINGS: [&str; 3] = ["der", "pem", "crt"];
const OF_HOSTS: [&str; 2] = ["host-amd-certs.json", "thim-certs.json"];
/// KEY_INFO of a report: SIGNING_KEY in bits 4:2.
const KEY_INFO: usize = 0x48;

/// What lies beside a report of SEV-SNP. What cannot be read is told, and passed over.
pub(super) fn certificates(file: &Path, report: &[u8], quiet: bool) -> Certificates {
    let is_vlek = report.get(KEY_INFO).is_some_and(|info| info >> 2 & 7 == 1);
    let (vek, other) = if is_vlek { ("vlek", "ask") } else { ("vcek", "asvk") };
    let names = [vek].into_iter().chain(AUTHORITIES).filter(|name| *name != other);
    let names = names.flat_map(|name| ENDINGS.map(|ending| format!("{name}.{ending}")));
    let mut found = Certificates::default();
    for name in names.chain(OF_HOSTS.map(str::to_owned)) {
        let path = file.with_file_name(name);
        if file == Path::new("-") || path == file || !path.is_file() {
            continue;
        }
        match endorsement::read(&path) {
            Ok(read) => found = found.or(read),
            Err(error) => ui::note(quiet, &format!("{} is passed over: {error:#}", path.display())),
        }
    }
    found
}

/// Collateral that lies beside a quote: under its name, or as collateral.json.
pub(super) fn collateral(file: &Path, quiet: bool) -> Collateral {
    for name in collateral_names(file) {
        let path = file.with_file_name(name);
        if file == Path::new("-") || path == file || !path.is_file() {
            continue;
        }
        let read = fs::read(&path).map_err(anyhow::Error::from);
        match read.and_then(|bytes| Ok(Collateral::parse(&bytes)?)) {
            Ok(collateral) => {
                ui::note(quiet, &format!("collateral is taken from {}", path.display()));
                return collateral;
            }
            Err(error) => ui::note(quiet, &format!("{} is passed over: {error:#}", path.display())),
        }
    }
    Collateral::default()
}

fn collateral_names(file: &Path) -> [String; 3] {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    [format!("{name}.collateral.json"), format!("{stem}.collateral.json"), "collateral.json".to_owned()]
}

/// What lies beside evidence under any of these names. Which of it is looked at depends on what the evidence is, and lacks.
pub(super) fn lying(file: &Path) -> Vec<PathBuf> {
    if file == Path::new("-") {
        return Vec::new();
    }
    let certificates = ["vcek", "vlek"].into_iter().chain(AUTHORITIES);
    let names = certificates.flat_map(|name| ENDINGS.map(|ending| format!("{name}.{ending}")));
    let names = names.chain(OF_HOSTS.map(str::to_owned)).chain(collateral_names(file));
    let mut paths: Vec<_> = names.map(|name| file.with_file_name(name)).collect();
    paths.retain(|path| path != file && path.is_file());
    paths.sort();
    paths.dedup();
    paths
}
