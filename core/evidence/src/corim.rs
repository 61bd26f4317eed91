//! CoRIM (draft-ietf-rats-corim) of the profile for SEV-SNP (draft-deeglaze-amd-sev-snp-corim-profile): reference values in
//! CBOR, not signed.
//!
//! ```text
//! 501({ 0: id, 1: [+ 506(bytes: CoMID)], 3: 32("tag:amd.com,2024:snp-corim-profile"), ? 4: validity, ? 5: entities })
//! CoMID: { ? 0: language, 1: { 0: tag-id, ? 1: version }, ? 2: entities, 4: { ? 0: [reference triples], ? 3: [key triples] } }
//! reference triple: [ { 0: { 0: 111(OID) }, ? 1: 560(instance) }, [+ { 0: number, 1: { form: value } }] ]
//! ```
//! A triple says what one report must be: all of its measurements. Several triples are several guests or chips, any of which
//! will do. CBOR is read in one spelling ([`caveau_cose::cbor`]). What is not understood is refused: an expectation must not
//! be passed over. Keys (the triples under 3) are checked for their form and trusted with nothing: roots of trust are this
//! crate's.

mod measurement;

use caveau_cose::cbor::{CborError, Value};
use caveau_snp::Hex;
use caveau_snp::check::{Check, Refusal};
use caveau_snp::claims::Claims;
use caveau_snp::time::Timestamp;
pub use measurement::{Measured, Number};

/// Largest CoRIM accepted.
pub const MAX_CORIM_BYTES: usize = 1024 * 1024;
/// Most tags, and most triples and measurements of one.
const MAX_PARTS: usize = 1024;
const CORIM: u64 = 501;
const COMID: u64 = 506;
const PROFILE: &str = "tag:amd.com,2024:snp-corim-profile";
/// Contents of the object identifiers 1.3.6.1.4.1.3704.3.1 (told by chip) and .2 (told by cloud provider).
const CLASSES: [&[u8]; 2] = [&[0x2b, 6, 1, 4, 1, 0x9c, 0x78, 3, 1], &[0x2b, 6, 1, 4, 1, 0x9c, 0x78, 3, 2]];

/// Reference values of SEV-SNP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corim {
    /// Its name.
    pub id: String,
    /// When it may be used: from, to.
    pub validity: Option<(Option<Timestamp>, Timestamp)>,
    /// What reports must be: like any of these.
    pub references: Vec<Reference>,
}

/// What one report must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// The instance that it is about.
    pub instance: Option<Instance>,
    /// All that must hold.
    pub measured: Vec<Measured>,
}

/// What tells an instance from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    /// Its chip.
    Chip(Hex<64>),
    /// Its launch digest.
    Measurement(Hex<48>),
}

/// Why bytes are no CoRIM that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CorimError {
    /// A part is no CBOR that is accepted.
    #[error("the {part} of the CoRIM is not the CBOR expected")]
    Cbor {
        /// Which.
        part: &'static str,
        /// Why.
        #[source]
        source: CborError,
    },
    /// A part has another form, or is not understood.
    #[error("the CoRIM's {part}: {problem}")]
    Form {
        /// Which.
        part: &'static str,
        /// What was found, and what was expected.
        problem: String,
    },
    /// Too long.
    #[error("the CoRIM has {0} bytes, at most {MAX_CORIM_BYTES} are accepted")]
    TooLong(usize),
}

fn wrong(part: &'static str, problem: impl Into<String>) -> CorimError {
    CorimError::Form { part, problem: problem.into() }
}

impl Corim {
    /// Reads a CoRIM of this profile.
    ///
    /// # Errors
    /// [`CorimError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CorimError> {
        if bytes.len() > MAX_CORIM_BYTES {
            return Err(CorimError::TooLong(bytes.len()));
        }
        let value = Value::decode(bytes).map_err(|source| CorimError::Cbor { part: "envelope", source })?;
        let Value::Tag(CORIM, map) = value else {
            return Err(wrong("envelope", format!("{}, expected tag 501 (signed ones are not read)", value.kind())));
        };
        known(&map, "map", &[0, 1, 3, 4, 5])?;
        let id = map.entry(&Value::Int(0)).and_then(id).ok_or_else(|| wrong("id", "expected a text or a UUID"))?;
        match map.entry(&Value::Int(3)) {
            Some(Value::Tag(32, uri)) if uri.as_text() == Some(PROFILE) => {}
            _ => return Err(wrong("profile", format!("expected {PROFILE}"))),
        }
        let mut references = Vec::new();
        for tag in list(map.entry(&Value::Int(1)), "tags")? {
            let Value::Tag(COMID, inner) = tag else { return Err(wrong("tags", "expected CoMIDs (506) alone")) };
            let inner = inner.as_bytes().ok_or_else(|| wrong("tags", "expected byte strings"))?;
            let comid = Value::decode(inner).map_err(|source| CorimError::Cbor { part: "CoMID", source })?;
            references.extend(comid_references(&comid)?);
        }
        if references.is_empty() || references.len() > MAX_PARTS {
            let problem = format!("{} of them, expected from 1 to {MAX_PARTS}", references.len());
            return Err(wrong("reference values", problem));
        }
        let validity = map.entry(&Value::Int(4)).map(validity).transpose()?;
        Ok(Self { id, validity, references })
    }

    /// Whether bytes look like a CoRIM: its tag.
    #[must_use]
    pub fn is_likely(bytes: &[u8]) -> bool {
        bytes.starts_with(&[0xd9, 0x01, 0xf5])
    }

    /// The launch digests, for [`caveau_snp::appraise::Expectations::measurements`]. Which of them goes with what else is for
    /// [`Corim::check`].
    #[must_use]
    pub fn measurements(&self) -> Vec<Hex<48>> {
        self.references.iter().filter_map(Reference::measurement).collect()
    }

    /// Holds authentic claims against the reference values: all of one triple must be so. One check, `reference-values`.
    #[must_use]
    pub fn check(&self, claims: Option<&Claims>, at: Timestamp) -> Check {
        const NAME: &str = "reference-values";
        let refuse = |sentence: String| Check::from_result(NAME, Err(Refusal::new(NAME, sentence)));
        let Some(claims) = claims else { return Check::skipped(NAME, "the evidence is not authentic") };
        if let Some((from, to)) = self.validity
            && (from.is_some_and(|from| at < from) || at > to)
        {
            return refuse(format!("the reference values {:?} are not in force at {at}", self.id));
        }
        let mut nearest: Option<String> = None;
        for reference in &self.references {
            match reference.first_difference(claims) {
                None => {
                    let sentence = format!(
                        "the report is as the reference values {:?} say, {} of them",
                        self.id,
                        reference.measured.len()
                    );
                    return Check::from_result(NAME, Ok(sentence));
                }
                // A triple with the report's launch digest is the one that was meant.
                Some(difference) if reference.measurement() == Some(claims.measurement) => nearest = Some(difference),
                Some(difference) => nearest = nearest.or(Some(difference)),
            }
        }
        refuse(format!(
            "the report is like none of {} reference values: {}",
            self.references.len(),
            nearest.unwrap_or_default()
        ))
    }
}

impl Reference {
    /// Its launch digest.
    #[must_use]
    pub fn measurement(&self) -> Option<Hex<48>> {
        self.measured.iter().find_map(|measured| match measured {
            Measured::Measurement(digest) => Some(*digest),
            _ => None,
        })
    }

    fn first_difference(&self, claims: &Claims) -> Option<String> {
        let instance = match self.instance {
            Some(Instance::Chip(chip)) if claims.chip_id != Some(chip) => Some("it is of another chip".to_owned()),
            Some(Instance::Measurement(digest)) if claims.measurement != digest => {
                Some(format!("MEASUREMENT is {}, expected {digest}", claims.measurement))
            }
            _ => None,
        };
        instance.or_else(|| self.measured.iter().find_map(|measured| measured.difference(claims)))
    }
}

/// Checks that a map has no other keys than these numbers.
fn known(value: &Value<'_>, part: &'static str, keys: &[i64]) -> Result<(), CorimError> {
    let entries = value.as_map().ok_or_else(|| wrong(part, format!("{}, expected a map", value.kind())))?;
    match entries.iter().find(|(key, _)| !key.as_int().is_some_and(|key| keys.contains(&key))) {
        Some((key, _)) => Err(wrong(part, format!("the key {} is not understood", key.show_key()))),
        None => Ok(()),
    }
}

/// A list that is not empty, and not too long.
fn list<'v, 'a>(value: Option<&'v Value<'a>>, part: &'static str) -> Result<&'v [Value<'a>], CorimError> {
    let items = value.and_then(Value::as_array).filter(|items| !items.is_empty() && items.len() <= MAX_PARTS);
    items.ok_or_else(|| wrong(part, format!("expected a list of 1 to {MAX_PARTS}")))
}

/// A text, or a UUID in bytes.
fn id(value: &Value<'_>) -> Option<String> {
    let bytes = match value {
        Value::Tag(37, inner) => inner.as_bytes(),
        other => other.as_bytes(),
    };
    let text = value.as_text().filter(|text| !text.is_empty() && text.len() <= 256);
    text.map(str::to_owned).or_else(|| bytes.filter(|bytes| bytes.len() == 16).map(hex::encode))
}

fn validity(value: &Value<'_>) -> Result<(Option<Timestamp>, Timestamp), CorimError> {
    known(value, "validity", &[0, 1])?;
    let time = |key| {
        let Some(value) = value.entry(&Value::Int(key)) else { return Ok(None) };
        let Value::Tag(1, seconds) = value else { return Err(wrong("validity", "expected times (tag 1)")) };
        let seconds = seconds.as_int().and_then(|seconds| u64::try_from(seconds).ok());
        let seconds = seconds.ok_or_else(|| wrong("validity", "expected whole seconds since 1970"))?;
        Ok(Some(Timestamp::from_unix(seconds)))
    };
    let end = time(1)?.ok_or_else(|| wrong("validity", "it has no end"))?;
    Ok((time(0)?, end))
}

fn comid_references(comid: &Value<'_>) -> Result<Vec<Reference>, CorimError> {
    known(comid, "CoMID", &[0, 1, 2, 4])?;
    let identity = comid.entry(&Value::Int(1)).ok_or_else(|| wrong("CoMID", "it has no identity (1)"))?;
    known(identity, "CoMID's identity", &[0, 1])?;
    identity
        .entry(&Value::Int(0))
        .and_then(id)
        .ok_or_else(|| wrong("CoMID's identity", "expected a text or a UUID"))?;
    let triples = comid.entry(&Value::Int(4)).ok_or_else(|| wrong("CoMID", "it has no triples (4)"))?;
    known(triples, "triples", &[0, 3])?;
    let of = |key| triples.entry(&Value::Int(key)).map(|list_of| list(Some(list_of), "triples")).transpose();
    let (references, keys) = (of(0)?.unwrap_or_default(), of(3)?.unwrap_or_default());
    keys.iter().try_for_each(check_key_triple)?;
    references.iter().map(reference).collect()
}

/// A key's triple: whose (vendor and model), and the keys.
fn check_key_triple(triple: &Value<'_>) -> Result<(), CorimError> {
    const PART: &str = "key triple";
    let Some([environment, keys]) = triple.as_array() else { return Err(wrong(PART, "expected a pair")) };
    known(environment, PART, &[0, 1])?;
    let class = environment.entry(&Value::Int(0)).ok_or_else(|| wrong(PART, "it has no class"))?;
    for (key, what) in [(1, "vendor"), (2, "model")] {
        let text = class.entry(&Value::Int(key)).and_then(Value::as_text).filter(|text| !text.is_empty());
        text.ok_or_else(|| wrong(PART, format!("its class names no {what}")))?;
    }
    list(Some(keys), PART).map(|_| ())
}

fn reference(triple: &Value<'_>) -> Result<Reference, CorimError> {
    const PART: &str = "reference triple";
    let Some([environment, measurements]) = triple.as_array() else { return Err(wrong(PART, "expected a pair")) };
    known(environment, PART, &[0, 1])?;
    let class = environment.entry(&Value::Int(0)).ok_or_else(|| wrong(PART, "it has no class"))?;
    known(class, "class of a reference triple", &[0])?;
    match class.entry(&Value::Int(0)) {
        Some(Value::Tag(111, oid)) if oid.as_bytes().is_some_and(|oid| CLASSES.contains(&oid)) => {}
        _ => return Err(wrong(PART, "its class is none of 1.3.6.1.4.1.3704.3.1 and 1.3.6.1.4.1.3704.3.2")),
    }
    let instance = environment.entry(&Value::Int(1)).map(instance).transpose()?;
    let measured = list(Some(measurements), PART)?.iter().map(Measured::read).collect::<Result<Vec<_>, _>>()?;
    let reference = Reference { instance, measured };
    let twice = reference.measured.iter().enumerate().find(|(index, measured)| {
        reference
            .measured
            .iter()
            .take(*index)
            .any(|other| std::mem::discriminant(other) == std::mem::discriminant(measured))
    });
    if twice.is_some() {
        return Err(wrong(PART, "it has two values for the same"));
    }
    if reference.measurement().is_none() {
        return Err(wrong(PART, "it has no launch digest (641), so that it is about any guest"));
    }
    Ok(reference)
}

fn instance(value: &Value<'_>) -> Result<Instance, CorimError> {
    let bytes = if let Value::Tag(560, inner) = value { inner.as_bytes() } else { None };
    let chip = bytes.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok()).map(|chip| Instance::Chip(Hex(chip)));
    let digest = bytes.and_then(|bytes| <[u8; 48]>::try_from(bytes).ok());
    let found = chip.or_else(|| digest.map(|digest| Instance::Measurement(Hex(digest))));
    found.ok_or_else(|| wrong("instance", "expected 560 with a chip ID of 64 bytes or a launch digest of 48"))
}
