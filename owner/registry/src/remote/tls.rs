//! Certificates to trust: the system's, those given, and those that Docker has for the registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::RegistryError;

/// Where distributions keep all certificates that they trust in one file.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How to speak TLS: with `registry`'s certificates verified, or with anybody at all.
pub(super) fn config(given: &[PathBuf], registry: &str, verify: bool) -> Result<TlsConfig, RegistryError> {
    let mut certificates = Vec::new();
    if verify {
        if let Some(bundle) = system_bundle() {
            certificates.extend(read(&bundle)?);
        }
        for path in given {
            let found = read(path)?;
            if found.is_empty() {
                return Err(bad(path, "there is no certificate in it; PEM is expected".to_owned()));
            }
            certificates.extend(found);
        }
        for path in docker_certificates(registry) {
            certificates.extend(read(&path)?);
        }
    }
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .disable_verification(!verify)
        .build())
}

/// `$SSL_CERT_FILE`, or the distribution's bundle.
fn system_bundle() -> Option<PathBuf> {
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
    chosen.or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// `/etc/docker/certs.d/<registry>/*.crt`, where Docker looks for a registry's own authorities.
fn docker_certificates(registry: &str) -> Vec<PathBuf> {
    let dir = Path::new("/etc/docker/certs.d").join(registry);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "crt")).collect()
}

/// The certificates in a PEM file. Other things in it are passed over.
fn read(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let text = std::fs::read(path).map_err(|error| bad(path, error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| bad(path, error.to_string()))? {
            found.push(certificate);
        }
    }
    Ok(found)
}

fn bad(path: &Path, reason: String) -> RegistryError {
    RegistryError::Certificates { path: path.to_owned(), reason }
}
