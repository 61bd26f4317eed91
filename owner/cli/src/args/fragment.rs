//! `caveau fragment`.

use std::path::PathBuf;

use caveau_cose::KeyKind;
use caveau_evidence::Timestamp;
use clap::{Args, Subcommand, ValueEnum};

use super::examples;
use super::run::{ContainerOptions, Fetch};
use super::signing::Signing;

/// `caveau fragment`.
#[derive(Debug, Subcommand)]
pub(crate) enum Fragment {
    /// Write a fragment: containers that a policy takes in when the fragment is loaded.
    #[command(after_help = examples::FRAGMENT_GENERATE)]
    Generate(Box<FragmentGenerate>),
    /// Make a key and a certificate chain to try signing with. Nobody trusts it who does not choose to.
    #[command(after_help = examples::FRAGMENT_CHAIN)]
    Chain(FragmentChain),
    /// Sign a fragment, and print the statement by which a policy takes it.
    #[command(after_help = examples::FRAGMENT_SIGN)]
    Sign(Box<FragmentSign>),
    /// Say what a signed fragment is, who signed it, and whether the signature holds.
    #[command(after_help = examples::FRAGMENT_INSPECT)]
    Inspect(FragmentInspect),
    /// Attach a signed fragment to an image in a registry.
    #[command(after_help = examples::FRAGMENT_ATTACH)]
    Attach(FragmentAttach),
    /// List the fragments that are attached to an image in a registry.
    #[command(after_help = examples::FRAGMENT_DISCOVER)]
    Discover(FragmentDiscover),
}

/// `caveau fragment generate`.
#[derive(Debug, Args)]
pub(crate) struct FragmentGenerate {
    /// Image, as `caveau policy generate` takes it.
    #[arg(required_unless_present = "policy", conflicts_with = "policy")]
    pub(crate) image: Option<String>,
    /// Take what this policy says of containers and the like, instead of an image; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The fragment's package: letters, digits and underscores.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) namespace: String,
    /// Security version: policies say which they take at least. Raise it with each fix.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) svn: u64,
    #[command(flatten)]
    pub(crate) fetch: Fetch,
    #[command(flatten)]
    pub(crate) options: Box<ContainerOptions>,
}

/// `caveau fragment chain`.
#[derive(Debug, Args)]
pub(crate) struct FragmentChain {
    /// Folder to write: `signer.key`, `chain.pem`, `authority.key`. It must not exist.
    pub(crate) folder: PathBuf,
    /// Name of the signer.
    #[arg(long, value_name = "NAME", default_value = "Fragment signer")]
    pub(crate) name: String,
    /// Extended key usage by which policies name the signer.
    #[arg(long, value_name = "OID", default_value = "1.3.6.1.4.1.311.76.59.1.1")]
    pub(crate) eku: String,
    /// Days for which the signer's certificate is in force. What was signed in that time holds for ever.
    #[arg(long, value_name = "N", default_value_t = 365)]
    pub(crate) days: u16,
    /// Kind of the keys.
    #[arg(long, value_enum, default_value_t = KeyChoice::P384)]
    pub(crate) key_type: KeyChoice,
}

/// Kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyChoice {
    /// ECDSA on P-256: ES256.
    P256,
    /// ECDSA on P-384: ES384.
    P384,
    /// ECDSA on P-521: ES512.
    P521,
    /// RSA with 3,072 bits: PS384 unless told otherwise.
    Rsa,
    /// EdDSA.
    Ed25519,
}

impl From<KeyChoice> for KeyKind {
    fn from(choice: KeyChoice) -> Self {
        match choice {
            KeyChoice::P256 => Self::P256,
            KeyChoice::P384 => Self::P384,
            KeyChoice::P521 => Self::P521,
            KeyChoice::Rsa => Self::Rsa,
            KeyChoice::Ed25519 => Self::Ed25519,
        }
    }
}

/// `caveau fragment sign`.
#[derive(Debug, Args)]
pub(crate) struct FragmentSign {
    /// The fragment; `-` is standard input.
    pub(crate) file: PathBuf,
    /// Where to write the signed fragment [default: the fragment's name with .cose after it]; `-` is standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What the fragment is about, such as an image's name without tag: policies ask for it.
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) feed: String,
    #[command(flatten)]
    pub(crate) signing: Signing,
    /// Security version in the envelope, with `--form claims` [default: the fragment's own].
    #[arg(long, value_name = "N", help_heading = "Envelope")]
    pub(crate) svn: Option<i64>,
    /// Media type of the content. With another one than the default, the file may hold anything.
    #[arg(long, value_name = "TYPE", default_value = FRAGMENT_CONTENT, help_heading = "Envelope")]
    pub(crate) content_type: String,
}

/// The media type of a fragment's text, as other tools write it.
pub(crate) const FRAGMENT_CONTENT: &str = "application/unknown+rego";

/// `caveau fragment inspect`.
#[derive(Debug, Args)]
pub(crate) struct FragmentInspect {
    /// The signed fragment; `-` is standard input.
    pub(crate) file: PathBuf,
    /// Print the content alone, and only where the signature holds.
    #[arg(long)]
    pub(crate) content: bool,
    /// The signer that it must have.
    #[arg(long, value_name = "DID", help_heading = "Expected")]
    pub(crate) issuer: Option<String>,
    /// The feed that it must have.
    #[arg(long, value_name = "TEXT", help_heading = "Expected")]
    pub(crate) feed: Option<String>,
    /// The least security version that it must have.
    #[arg(long, value_name = "N", help_heading = "Expected")]
    pub(crate) minimum_svn: Option<i64>,
    /// Time at which the certificates must be in force [default: when the signer's certificate ends, as guests do].
    #[arg(long, value_name = "TIME", help_heading = "Expected")]
    pub(crate) at: Option<Timestamp>,
    /// Judge receipts by the ledgers in this signed transparency trust list; may be repeated. You say that you trust
    /// it.
    #[arg(long, value_name = "FILE", help_heading = "Expected")]
    pub(crate) trust_list: Vec<PathBuf>,
}

/// `caveau fragment attach`.
#[derive(Debug, Args)]
pub(crate) struct FragmentAttach {
    /// The image in its registry; of several platforms, --platform is meant.
    pub(crate) image: String,
    /// The signed fragment.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) fetch: Fetch,
}

/// `caveau fragment discover`.
#[derive(Debug, Args)]
pub(crate) struct FragmentDiscover {
    /// The image in its registry; of several platforms, --platform is meant.
    pub(crate) image: String,
    /// Write the signed fragments into this folder, each under its digest.
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) fetch: Fetch,
}
