//! The appraisal policy file, format `caveau-appraisal-policy/1`: an owner's standing expectations, as JSON.
//!
//! Everything but `format` may be left out and is then not asked. What is not known, comes twice or contradicts itself is an
//! error: an expectation that is not understood must not be passed over. [`EXAMPLE`] has every field. The nonce is not in it,
//! since it is fresh each time.

use caveau_snp::Hex;
use caveau_snp::appraise::{Expectations, ExpectedBits, ExpectedGuestPolicy, Minimum, Profile};
use caveau_snp::bits::{GuestPolicy, NotABit, PlatformInfo};
use caveau_snp::product::{Product, ProductLine};
use caveau_snp::report::FirmwareVersion;
use caveau_snp::tcb::Tcb;
use serde::Deserialize;

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
    /// What is expected.
    pub expectations: Expectations,
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
    pub fn parse(json: &[u8]) -> Result<Self, AppraisalPolicyError> {
        if json.len() > MAX_APPRAISAL_POLICY_BYTES {
            return Err(AppraisalPolicyError::TooLong(json.len()));
        }
        let Versioned { format } = serde_json::from_slice(json).map_err(AppraisalPolicyError::Json)?;
        if format != FORMAT {
            return Err(AppraisalPolicyError::Format(format.chars().take(64).collect()));
        }
        let file: File = serde_json::from_slice(json).map_err(AppraisalPolicyError::Json)?;
        let profile = file.profile;
        Ok(Self { profile, expectations: file.expectations()? })
    }
}

impl File {
    fn expectations(self) -> Result<Expectations, AppraisalPolicyError> {
        let Guest { policy_digest, measurements, vmpl, id_keys, author_keys, family_id, image_id, .. } = self.guest;
        if vmpl > 3 {
            return Err(refuse("guest.vmpl", format!("{vmpl} is no privilege level, expected 0 to 3")));
        }
        let (product_lines, minima) = self.product_lines.map(Lines::read).transpose()?.unzip();
        let chips = |field, list: Vec<String>| list.iter().map(|text| chip(field, text)).collect::<Result<_, _>>();
        Ok(Expectations {
            report_data: None,
            policy_digest,
            measurements,
            vmpl,
            guest_policy: self.guest_policy.read()?,
            migration_agent: self.guest.migration_agent,
            platform_info: bits("platform_info", &self.platform_info, PlatformInfo::named)?,
            chips: self.chips.allow.map(|list| chips("chips.allow", list)).transpose()?,
            denied_chips: chips("chips.deny", self.chips.deny)?,
            allow_masked_chip: self.chips.allow_masked,
            allow_provisional_firmware: self.firmware.allow_provisional,
            product_lines,
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
        })
    }
}

impl Lines {
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
        Ok(Minimum { product, tcb, firmware })
    }
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
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn parse(value: &Value) -> Result<AppraisalPolicy, AppraisalPolicyError> {
        AppraisalPolicy::parse(value.to_string().as_bytes())
    }

    #[test]
    fn nothing_but_a_format_asks_for_nothing() {
        let policy = parse(&json!({ "format": FORMAT })).unwrap();
        assert_eq!(policy, AppraisalPolicy::default());
    }

    /// Paths of all leaves: values that are neither objects nor notes.
    fn leaves(value: &Value, path: &str, out: &mut Vec<String>) {
        for (name, below) in value.as_object().unwrap() {
            let path = format!("{path}/{name}");
            match below {
                Value::Object(fields) if !fields.is_empty() => leaves(below, &path, out),
                _ if name == "notes" || name == "format" => {}
                _ => out.push(path),
            }
        }
    }

    /// So the example has no field without effect, and shows none twice.
    #[test]
    fn each_field_of_the_example_makes_a_difference() {
        let example: Value = serde_json::from_str(EXAMPLE).unwrap();
        let whole = parse(&example).unwrap();
        let mut paths = Vec::new();
        leaves(&example, "", &mut paths);
        for path in &paths {
            let mut without = example.clone();
            let (parent, name) = path.rsplit_once('/').unwrap();
            without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
            assert_ne!(parse(&without).unwrap(), whole, "{path}");
        }
        println!("appraisal policy: {} fields, each with an effect", paths.len());
        assert!(paths.len() >= 35, "{paths:?}");
    }

    #[test]
    fn the_example_leaves_no_expectation_out() {
        let Expectations { report_data, policy_digest, measurements, product_lines, chips, .. } =
            AppraisalPolicy::parse(EXAMPLE.as_bytes()).unwrap().expectations;
        assert!(report_data.is_none(), "the nonce is no standing expectation");
        assert!(policy_digest.is_some() && measurements.is_some());
        assert_eq!(product_lines.unwrap().len(), 4);
        let [whole, turin] = chips.unwrap().try_into().unwrap();
        assert_eq!((whole.0, turin.0[..8].to_vec(), turin.0[8..].to_vec()), ([0x11; 64], vec![0x22; 8], vec![0; 56]));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let chip = "0".repeat(128);
        for (fields, said) in [
            (json!({ "profil": "strict" }), "failed to read"),
            (json!({ "profile": "lax" }), "failed to read"),
            (json!({ "product_lines": { "Rome": {} } }), "failed to read"),
            (json!({ "product_lines": { "Milan": { "least_tcb": { "fmc": 1 } } } }), "Milan has no FMC"),
            (json!({ "product_lines": { "Milan": { "least_tcb": { "ucode": 1 } } } }), "failed to read"),
            (json!({ "product_lines": { "Milan": { "least_tcb": { "snp": 256 } } } }), "failed to read"),
            (json!({ "product_lines": { "Milan": { "least_firmware": "1.55" } } }), "\"1.55\" is no version"),
            (json!({ "chips": { "allow": ["11"] } }), "`chips.allow`: `11` is no chip ID"),
            (json!({ "chips": { "deny": [chip] } }), "names no chip"),
            (json!({ "firmware": { "mitigations": "one" } }), "`firmware.mitigations`: \"one\" is no number"),
            (json!({ "platform_info": { "required": ["smt"] } }), "`smt` is none of the bits"),
            (json!({ "platform_info": { "required": ["smt_on"], "forbidden": ["smt_on"] } }), "both required and"),
            (json!({ "guest_policy": { "exact": "0x30000", "forbidden": ["smt_allowed"] } }), "contradicts"),
            (json!({ "guest_policy": { "exact": "0x20000", "required": ["smt_allowed"] } }), "contradicts"),
            (json!({ "guest_policy": { "least_abi": "1" } }), "\"1\" is no ABI"),
            (json!({ "guest": { "vmpl": 4 } }), "4 is no privilege level"),
            (json!({ "guest": { "policy_digest": "AA" } }), "failed to read"),
            (json!({ "format": "caveau-appraisal-policy/2" }), "has format `caveau-appraisal-policy/2`"),
        ] {
            let mut file = json!({ "format": FORMAT });
            file.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let error = parse(&file).unwrap_err().to_string();
            assert!(error.contains(said), "{fields}: {error}");
        }
        let twice = format!(r#"{{"format":"{FORMAT}","provider":"a","provider":"b"}}"#);
        assert!(matches!(AppraisalPolicy::parse(twice.as_bytes()), Err(AppraisalPolicyError::Json(_))));
        let long = vec![b' '; MAX_APPRAISAL_POLICY_BYTES + 1];
        assert!(matches!(AppraisalPolicy::parse(&long), Err(AppraisalPolicyError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_policy_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
            let _ = AppraisalPolicy::parse(&bytes);
        }

        #[test]
        fn any_text_is_a_chip_or_an_error(text in ".{0,130}") {
            let _ = chip_id(&text);
        }
    }
}
