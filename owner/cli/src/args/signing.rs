//! Options of the commands that sign: whose key, and how the envelope says so.

use std::path::PathBuf;

use caveau_cose::Algorithm;
use clap::{Args, ValueEnum};

/// Key, chain and form of an envelope.
#[derive(Debug, Args)]
pub(crate) struct Signing {
    /// The signer's certificates in PEM: its own first, each signed by the next, the authority that names the signer last.
    #[arg(long, value_name = "FILE", help_heading = "Key")]
    pub(crate) chain: PathBuf,
    /// The signer's private key in PEM.
    #[arg(long, value_name = "FILE", help_heading = "Key", required_unless_present = "pkcs11")]
    pub(crate) key: Option<PathBuf>,
    /// The signer's private key in a token, by a URI as of RFC 7512: pkcs11:token=NAME;object=NAME?module-path=FILE
    /// with the PIN's file as pin-source=FILE, or the PIN in the variable CAVEAU_PIN.
    #[arg(long, value_name = "URI", help_heading = "Key", conflicts_with = "key")]
    pub(crate) pkcs11: Option<String>,
    /// Signature algorithm: ES256, ES384, ES512, PS256, PS384, PS512 or EdDSA [default: the one that goes with the
    /// key].
    #[arg(long, value_name = "NAME", help_heading = "Key")]
    pub(crate) algorithm: Option<Algorithm>,
    /// The signer's did:x509 [default: by the last certificate of the chain, and the signer's extended key usage or
    /// name].
    #[arg(long, value_name = "DID", help_heading = "Envelope")]
    pub(crate) issuer: Option<String>,
    /// Where the envelope names issuer and feed.
    #[arg(long, value_enum, default_value_t = FormChoice::Legacy, help_heading = "Envelope")]
    pub(crate) form: FormChoice,
}

/// Where an envelope names issuer and feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormChoice {
    /// In the headers iss and feed, which every guest reads.
    Legacy,
    /// In CWT claims, with the security version, which newer readers judge before they look into the content.
    Claims,
}
