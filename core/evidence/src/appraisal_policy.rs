//! The appraisal policy file, format `caveau-appraisal-policy/1`: an owner's standing expectations, as JSON or as TOML.
//!
//! Everything but `format` may be left out and is then not asked. What is not known, comes twice or contradicts itself is an
//! error: an expectation that is not understood must not be passed over. [`EXAMPLE`] has every field. The nonce is not in it,
//! since it is fresh each time.

mod endorsers;
mod other;

use std::collections::BTreeMap;
use std::mem::take;

use caveau_snp::Hex;
use caveau_snp::appraise::{Expectations, ExpectedBits, ExpectedGuestPolicy, Minimum, Profile};
use caveau_snp::bits::{GuestPolicy, NotABit, PlatformInfo};
use caveau_snp::product::{Product, ProductLine};
use caveau_snp::report::FirmwareVersion;
use caveau_snp::tcb::Tcb;
use caveau_snp::time::Timestamp;
use serde::Deserialize;

use crate::reference_info::Endorser;

/// Largest appraisal policy.
pub const MAX_APPRAISAL_POLICY_BYTES: usize = 1024 * 1024;
/// An appraisal policy with every field, for people to start from.
pub const EXAMPLE: &str = include_str!("appraisal_policy.example.json");
const FORMAT: &str = "caveau-appraisal-policy/1";

/// An owner's standing expectations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppraisalPolicy {
    /// How strict to be, where it says so.
    pub profile: Option<Profile>,
    /// What is expected of SEV-SNP.
    pub expectations: Expectations,
    /// Whose signed reference values are taken for the launch digest; nobody's where it is empty.
    pub endorsers: Vec<Endorser>,
    /// What is expected of TDX and SGX.
    pub intel: caveau_dcap::Expectations,
    /// Values that registers of the TPM of a confidential VM of Azure's must have.
    pub registers: Option<BTreeMap<usize, Hex<32>>>,
    /// What the paravisor of such a VM must say of its set-up.
    pub vm_configuration: BTreeMap<String, serde_json::Value>,
    /// Verifiers whose tokens are believed.
    pub issuers: Option<Vec<String>>,
}

/// Why a file is no appraisal policy.
#[derive(Debug, thiserror::Error)]
pub enum AppraisalPolicyError {
    /// Another format.
    #[error("the appraisal policy has format `{0}`, expected `{FORMAT}`: use a version of caveau that knows it")]
    Format(String),
    /// No JSON, or other JSON.
    #[error("failed to read the appraisal policy: expected JSON of format {FORMAT}")]
    Json(#[source] serde_json::Error),
    /// No TOML, or other TOML.
    #[error("failed to read the appraisal policy: expected TOML or JSON of format {FORMAT}")]
    Toml(#[source] toml::de::Error),
    /// Neither of them.
    #[error("failed to read the appraisal policy: it is not UTF-8 text")]
    NoText,
    /// Too long.
    #[error("the appraisal policy has {0} bytes, at most {MAX_APPRAISAL_POLICY_BYTES} are accepted")]
    TooLong(usize),
    /// A value that means nothing.
    #[error("the appraisal policy's `{field}`: {reason}")]
    Value {
        /// Where.
        field: &'static str,
        /// What was found, and what was expected.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "notes")]
    _notes: Option<String>,
    profile: Option<Profile>,
    product_lines: Option<Lines>,
    #[serde(default)]
    denied_product_lines: Vec<String>,
    #[serde(default)]
    chips: Chips,
    provider: Option<String>,
    #[serde(default)]
    firmware: Firmware,
    #[serde(default)]
    platform_info: Bits,
    #[serde(default)]
    guest_policy: Policy,
    #[serde(default)]
    guest: Guest,
    #[serde(default)]
    revocation: Revocation,
    endorsers: Option<Vec<endorsers::Signer>>,
    #[serde(default)]
    intel: other::Intel,
    #[serde(default)]
    tdx: other::Tdx,
    #[serde(default)]
    sgx: other::Sgx,
    #[serde(default)]
    azure: other::Azure,
    #[serde(default)]
    tokens: other::Tokens,
}

/// The lines that may be used: those that are named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Lines {
    milan: Option<Line>,
    genoa: Option<Line>,
    turin: Option<Line>,
    software: Option<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(rename = "notes")]
    _notes: Option<String>,
    as_of: Option<String>,
    least_tcb: Option<Levels>,
    least_firmware: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Levels {
    fmc: Option<u8>,
    #[serde(default)]
    bootloader: u8,
    #[serde(default)]
    tee: u8,
    #[serde(default)]
    snp: u8,
    #[serde(default)]
    microcode: u8,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chips {
    allow: Option<Vec<String>>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    allow_masked: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Firmware {
    #[serde(default)]
    allow_provisional: bool,
    mitigations: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bits {
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    forbidden: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    exact: Option<String>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    forbidden: Vec<String>,
    least_abi: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Guest {
    policy_digest: Option<Hex<32>>,
    measurements: Option<Vec<Hex<48>>>,
    #[serde(default)]
    vmpl: u32,
    id_keys: Option<Vec<Hex<48>>>,
    author_keys: Option<Vec<Hex<48>>>,
    family_id: Option<Hex<16>>,
    image_id: Option<Hex<16>>,
    least_svn: Option<u32>,
    report_id: Option<Hex<32>>,
    migration_agent: Option<Hex<32>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    #[serde(default)]
    least_number: u64,
    required: Option<bool>,
}

/// Only what tells formats apart.
#[derive(Deserialize)]
struct Versioned {
    format: String,
}

impl AppraisalPolicy {
    /// Reads an appraisal policy.
    ///
    /// # Errors
    /// [`AppraisalPolicyError`], when it is too long, of another format, or has a field that is unknown or means nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, AppraisalPolicyError> {
        if bytes.len() > MAX_APPRAISAL_POLICY_BYTES {
            return Err(AppraisalPolicyError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| AppraisalPolicyError::NoText)?;
        let Versioned { format } = read(text)?;
        if format != FORMAT {
            return Err(AppraisalPolicyError::Format(format.chars().take(64).collect()));
        }
        let mut file: File = read(text)?;
        let profile = file.profile;
        let require_crl = file.revocation.required;
        let intel = other::intel(take(&mut file.intel), take(&mut file.tdx), take(&mut file.sgx))?;
        let intel = caveau_dcap::Expectations { require_crl, ..intel };
        let (registers, vm_configuration) = take(&mut file.azure).read()?;
        let issuers = take(&mut file.tokens).issuers;
        let endorsers = endorsers::read(take(&mut file.endorsers))?;
        let expectations = file.expectations()?;
        Ok(Self { profile, expectations, endorsers, intel, registers, vm_configuration, issuers })
    }
}

/// Reads JSON, which begins with a brace as no TOML does, or TOML.
fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, AppraisalPolicyError> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(AppraisalPolicyError::Json);
    }
    toml::from_str(text).map_err(AppraisalPolicyError::Toml)
}

impl File {
    fn expectations(self) -> Result<Expectations, AppraisalPolicyError> {
        let Guest { policy_digest, measurements, vmpl, id_keys, author_keys, family_id, image_id, .. } = self.guest;
        if vmpl > 3 {
            return Err(refuse("guest.vmpl", format!("{vmpl} is no privilege level, expected 0 to 3")));
        }
        if let (Some(lines), false) = (&self.product_lines, self.denied_product_lines.is_empty()) {
            let denied = denied_lines(&self.denied_product_lines)?;
            if lines.named().iter().any(|product| denied.contains(product)) {
                return Err(refuse(
                    "denied_product_lines",
                    "a line is both among those that may be used and those that may not".to_owned(),
                ));
            }
        }
        let (product_lines, minima) = self.product_lines.map(Lines::read).transpose()?.unzip();
        let chips = |field, list: Vec<String>| list.iter().map(|text| chip(field, text)).collect::<Result<_, _>>();
        Ok(Expectations {
            report_data: None,
            policy_digest,
            measurements,
            endorsed_measurements: None,
            vmpl,
            guest_policy: self.guest_policy.read()?,
            migration_agent: self.guest.migration_agent,
            platform_info: bits("platform_info", &self.platform_info, PlatformInfo::named)?,
            chips: self.chips.allow.map(|list| chips("chips.allow", list)).transpose()?,
            denied_chips: chips("chips.deny", self.chips.deny)?,
            allow_masked_chip: self.chips.allow_masked,
            allow_provisional_firmware: self.firmware.allow_provisional,
            product_lines,
            denied_product_lines: denied_lines(&self.denied_product_lines)?,
            minima: minima.unwrap_or_default(),
            provider: self.provider,
            mitigations: number("firmware.mitigations", self.firmware.mitigations.as_deref())?.unwrap_or(0),
            id_keys,
            author_keys,
            family_id,
            image_id,
            least_guest_svn: self.guest.least_svn,
            report_id: self.guest.report_id,
            least_crl_number: self.revocation.least_number,
            require_crl: self.revocation.required,
        })
    }
}

impl Lines {
    /// The lines that are named.
    fn named(&self) -> Vec<Product> {
        let lines = [
            (Product::Line(ProductLine::Milan), self.milan.is_some()),
            (Product::Line(ProductLine::Genoa), self.genoa.is_some()),
            (Product::Line(ProductLine::Turin), self.turin.is_some()),
            (Product::Software, self.software.is_some()),
        ];
        lines.into_iter().filter_map(|(product, named)| named.then_some(product)).collect()
    }

    /// The lines that may be used, and what is asked of their firmware.
    fn read(self) -> Result<(Vec<Product>, Vec<Minimum>), AppraisalPolicyError> {
        let lines = [
            (Product::Line(ProductLine::Milan), self.milan),
            (Product::Line(ProductLine::Genoa), self.genoa),
            (Product::Line(ProductLine::Turin), self.turin),
            (Product::Software, self.software),
        ];
        let named: Vec<(Product, Line)> =
            lines.into_iter().filter_map(|(product, line)| Some((product, line?))).collect();
        let minima = named.iter().map(|(product, line)| line.minimum(*product)).collect::<Result<_, _>>()?;
        Ok((named.into_iter().map(|(product, _)| product).collect(), minima))
    }
}

impl Line {
    fn minimum(&self, product: Product) -> Result<Minimum, AppraisalPolicyError> {
        let turin = product == Product::Line(ProductLine::Turin);
        if !turin && self.least_tcb.as_ref().is_some_and(|levels| levels.fmc.is_some()) {
            return Err(refuse("product_lines", format!("{} has no FMC firmware: leave `fmc` out", product.name())));
        }
        let tcb = self.least_tcb.as_ref().map(|levels| {
            let Levels { fmc, bootloader, tee, snp, microcode } = *levels;
            Tcb { fmc, bootloader, tee, snp, microcode }
        });
        let firmware = self.least_firmware.as_deref().map(firmware).transpose()?;
        let as_of = self.as_of.as_deref().map(str::parse::<Timestamp>).transpose();
        let as_of = as_of.map_err(|error| refuse("product_lines", error.to_string()))?;
        Ok(Minimum { product, tcb, firmware, as_of })
    }
}

/// The lines that may not be used.
fn denied_lines(names: &[String]) -> Result<Vec<Product>, AppraisalPolicyError> {
    let line = |name: &String| {
        let shown: String = name.chars().take(64).collect();
        Product::from_name(name).ok_or_else(|| refuse("denied_product_lines", format!("{shown:?} is no product line")))
    };
    names.iter().map(line).collect()
}

impl Policy {
    fn read(self) -> Result<ExpectedGuestPolicy, AppraisalPolicyError> {
        let exact = number("guest_policy.exact", self.exact.as_deref())?;
        let abi = self.least_abi.as_deref().map(|text| {
            let parts =
                text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
            parts.ok_or_else(|| {
                refuse("guest_policy.least_abi", format!("{text:?} is no ABI, expected such as \"1.51\""))
            })
        });
        let named = Bits { required: self.required, forbidden: self.forbidden };
        let bits = bits("guest_policy", &named, GuestPolicy::named)?;
        if exact.is_some_and(|exact| bits.required & !exact != 0 || bits.forbidden & exact != 0) {
            return Err(refuse("guest_policy", "`exact` contradicts `required` or `forbidden`".to_owned()));
        }
        Ok(ExpectedGuestPolicy { exact, bits, least_abi: abi.transpose()?.unwrap_or_default() })
    }
}

fn bits(
    field: &'static str,
    named: &Bits,
    bit: fn(&str) -> Result<u64, NotABit>,
) -> Result<ExpectedBits, AppraisalPolicyError> {
    let mask = |names: &[String]| {
        let all = names.iter().map(|name| bit(name)).collect::<Result<Vec<_>, _>>();
        all.map(|bits| bits.into_iter().fold(0, |mask, bit| mask | bit))
            .map_err(|error| refuse(field, error.to_string()))
    };
    let (required, forbidden) = (mask(&named.required)?, mask(&named.forbidden)?);
    if required & forbidden != 0 {
        return Err(refuse(field, "a bit is both required and forbidden".to_owned()));
    }
    Ok(ExpectedBits { required, forbidden })
}

/// A CHIP_ID as people have it: 128 hexadecimal digits, or the 16 of a Turin's hardware ID, whose other bytes are zero.
///
/// # Errors
/// A sentence that names the text.
pub fn chip_id(text: &str) -> Result<Hex<64>, String> {
    let whole = if text.len() == 16 { format!("{text:0<128}") } else { text.to_owned() };
    let shown: String = text.chars().take(160).collect();
    match whole.parse::<Hex<64>>() {
        Ok(id) if id.is_zero() => Err("a chip ID of zeros names no chip".to_owned()),
        Ok(id) => Ok(id),
        Err(_) => Err(format!("`{shown}` is no chip ID: expected 128 lower-case hexadecimal digits, or 16 for Turin")),
    }
}

fn chip(field: &'static str, text: &str) -> Result<Hex<64>, AppraisalPolicyError> {
    chip_id(text).map_err(|reason| refuse(field, reason))
}

/// `1.55.22`: major, minor, build.
fn firmware(text: &str) -> Result<FirmwareVersion, AppraisalPolicyError> {
    let parts: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some(&[major, minor, build]) => Ok(FirmwareVersion { major, minor, build }),
        _ => Err(refuse("least_firmware", format!("{text:?} is no version, expected such as \"1.55.22\""))),
    }
}

/// `0x30000`, or a decimal number.
fn number(field: &'static str, text: Option<&str>) -> Result<Option<u64>, AppraisalPolicyError> {
    let parse = |text: &str| {
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed.map_err(|_| refuse(field, format!("{text:?} is no number, expected such as \"0x30000\"")))
    };
    text.map(parse).transpose()
}

fn refuse(field: &'static str, reason: String) -> AppraisalPolicyError {
    AppraisalPolicyError::Value { field, reason }
}

#[cfg(test)]
mod tests;
