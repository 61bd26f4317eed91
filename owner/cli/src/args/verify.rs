//! `caveau verify`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{CertificateSources, examples};

/// `caveau verify`.
#[derive(Debug, Args)]
#[command(after_help = examples::VERIFY)]
pub(crate) struct Verify {
    /// Evidence of any kind: as `caveau attest` wrote it, a report, a quote, a token …; `-` is standard input.
    #[arg(required_unless_present = "appraisal_example")]
    pub(crate) file: Option<PathBuf>,
    /// The nonce that was sent.
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,
    /// What the report's own data must be, for reports and quotes that others made: up to 64 bytes, the rest zero.
    #[arg(long, value_name = "HEX", conflicts_with = "nonce", value_parser = report_data)]
    pub(crate) report_data: Option<caveau_evidence::Hex<64>>,
    /// The evidence is of a session of yours, as `caveau attest --connect` wrote it.
    #[arg(long, requires = "nonce")]
    pub(crate) session: bool,
    /// Write the judgement as a page, too: one HTML file for people, also where the evidence is refused.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print an appraisal policy with every field, and do nothing else.
    #[arg(long, exclusive = true)]
    pub(crate) appraisal_example: bool,
    #[command(flatten)]
    pub(crate) expected: Expected,
}

/// What is expected of evidence, but for the nonce.
#[derive(Debug, Args)]
pub(crate) struct Expected {
    /// The policy that must be in force.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Reference values: the guest's guest.json, or those of a group, as `caveau measure --group` writes them; for reports of SEV-SNP
    /// also a CoRIM of AMD's profile.
    #[arg(long, value_name = "FILE")]
    pub(crate) reference: Option<PathBuf>,
    /// Number of virtual processors that it was started with.
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Accept an emulated secure processor whose root certificate is in this file. It protects nothing from the host.
    #[arg(long, value_name = "ROOT")]
    pub(crate) allow_emulated: Option<PathBuf>,
    /// Which checks are required [default: strict, or what the appraisal policy says].
    #[arg(long, value_enum)]
    pub(crate) profile: Option<ProfileChoice>,
    /// Appraisal policy: standing expectations of platform and guest, as JSON or TOML. See --appraisal-example.
    #[arg(long, value_name = "FILE")]
    pub(crate) appraisal: Option<PathBuf>,
    /// Chip that may be used: 128 hexadecimal digits, or 16 for Turin. Repeatable. For Milan, strict asks for this list.
    #[arg(long = "chip", value_name = "HEX", value_parser = chip)]
    pub(crate) chips: Vec<caveau_evidence::Hex<64>>,
    /// Product line that may be used: Milan, Genoa, Turin. Repeatable.
    #[arg(long = "product-line", value_name = "NAME", value_parser = product)]
    pub(crate) product_lines: Vec<caveau_evidence::Product>,
    /// Cloud provider whose key (VLEK) may sign, as its certificate has it.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Least security version of the guest, from its ID block, whose key the appraisal policy must name.
    #[arg(long, value_name = "N")]
    pub(crate) least_guest_svn: Option<u32>,
    /// Judge as of this time (2026-11-23 or 2026-11-23T12:00:00Z) instead of now.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<caveau_evidence::Timestamp>,
    /// Signed reference values to judge a report of SEV-SNP by, as `caveau guest sign` writes them or ACI has them, in binary or
    /// base64. Repeatable. Those that came with the evidence are judged, too.
    #[arg(long, value_name = "FILE", help_heading = "Signed reference values")]
    pub(crate) endorsement: Vec<PathBuf>,
    /// Whose signed reference values to take for the launch digest: a did:x509.
    #[arg(long, value_name = "DID", help_heading = "Signed reference values",
        requires_all = ["endorsement_feed", "endorsement_least_svn"])]
    pub(crate) endorsement_issuer: Option<caveau_cose::DidX509>,
    /// What the signer must say that they are about.
    #[arg(long, value_name = "TEXT", help_heading = "Signed reference values", requires = "endorsement_issuer")]
    pub(crate) endorsement_feed: Option<String>,
    /// Least security version that the signer must say the guest has.
    #[arg(long, value_name = "N", help_heading = "Signed reference values", requires = "endorsement_issuer")]
    pub(crate) endorsement_least_svn: Option<u64>,
    /// File with collateral of Intel's, for quotes of SGX and TDX. Repeatable.
    #[arg(long, value_name = "FILE", help_heading = "Certificates")]
    pub(crate) collateral: Vec<PathBuf>,
    /// File with the keys of a verifier, for its tokens: a JWK set, or PEM. Repeatable.
    #[arg(long, value_name = "FILE", help_heading = "Certificates")]
    pub(crate) token_keys: Vec<PathBuf>,
    /// File with a certificate revocation list of the root (DER or PEM). Of all lists, the newest in force counts.
    #[arg(long, value_name = "FILE", help_heading = "Certificates")]
    pub(crate) crl: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) certificates: CertificateSources,
}

/// Whatever is expected is a part of the command.
impl std::ops::Deref for Verify {
    type Target = Expected;

    fn deref(&self) -> &Expected {
        &self.expected
    }
}

fn report_data(text: &str) -> Result<caveau_evidence::Hex<64>, String> {
    let bytes = hex::decode(text).ok().filter(|bytes| (1..=64).contains(&bytes.len()));
    let bytes = bytes.ok_or_else(|| format!("`{text}` is not 1 to 64 bytes in hexadecimal"))?;
    let mut data = [0; 64];
    data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(caveau_evidence::Hex(data))
}

fn chip(text: &str) -> Result<caveau_evidence::Hex<64>, String> {
    caveau_evidence::chip_id(text)
}

fn product(name: &str) -> Result<caveau_evidence::Product, String> {
    caveau_evidence::Product::from_name(name).ok_or_else(|| {
        format!("{name:?} is no product line that can be judged: expected Milan, Genoa, Turin or Software")
    })
}

/// Which checks are required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileChoice {
    /// Authenticity, no debugging, no migration agent, VMPL 0, no provisional firmware.
    Baseline,
    /// All of them.
    Strict,
}
