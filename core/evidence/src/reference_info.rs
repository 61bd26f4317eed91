//! Signed reference values: somebody's word that a launch digest is that of a guest of theirs. An envelope (COSE_Sign1, see
//! [`caveau_cose`]) of type `application/json`, which ACI calls `reference-info`:
//!
//! ```text
//! {
//!   "x-ms-sevsnpvm-guestsvn": "101",                 the guest's security version; not GUEST_SVN of reports
//!   "x-ms-sevsnpvm-guestsvn-int": 101,               the same, where it is there
//!   "x-ms-sevsnpvm-launchmeasurement": "96 hexadecimal digits", or a list of such
//!   "caveau-tee": "emulated-snp"                     where it is not SEV-SNP
//! }
//! ```
//! Azure's have one digest. Ours may have several: a launch digest depends on number and type of processors. Other fields are
//! passed over: they are the signer's, and Azure adds some.

mod judge;

use caveau_snp::Hex;
use serde::{Deserialize, Serialize};

use crate::file::Tee;
pub(crate) use judge::MAX_ENVELOPES;
pub use judge::{Accepted, Endorser, SignedValues, judge_signed_values};

/// Largest payload accepted.
pub const MAX_REFERENCE_INFO_BYTES: usize = 256 * 1024;
/// Most launch digests of one document.
pub const MAX_MEASUREMENTS: usize = 2048;
/// The payload's media type.
pub const REFERENCE_INFO_TYPE: &str = "application/json";

/// What a signed document says of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReferenceInfo {
    /// The guest's security version, by its signer's count.
    pub svn: u64,
    /// The TEE whose launch digests they are.
    pub tee: Tee,
    /// The launch digests.
    pub measurements: Vec<Hex<48>>,
}

/// Why a payload holds no reference values.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceInfoError {
    /// None, or too many.
    #[error("the reference values have {0} launch digests, expected from 1 to {MAX_MEASUREMENTS}")]
    Count(usize),
    /// No JSON, or other JSON.
    #[error("failed to read the reference values: expected JSON with x-ms-sevsnpvm-launchmeasurement")]
    Json(#[source] serde_json::Error),
    /// A security version that is none, or two.
    #[error("the reference values' security version {0}")]
    Svn(String),
    /// Too long.
    #[error("the reference values have {0} bytes, at most {MAX_REFERENCE_INFO_BYTES} are accepted")]
    TooLong(usize),
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(rename = "x-ms-sevsnpvm-guestsvn")]
    svn: String,
    #[serde(rename = "x-ms-sevsnpvm-guestsvn-int", default, skip_serializing_if = "Option::is_none")]
    svn_number: Option<u64>,
    #[serde(rename = "x-ms-sevsnpvm-launchmeasurement")]
    measurements: Measurements,
    #[serde(rename = "caveau-tee", default, skip_serializing_if = "Option::is_none")]
    tee: Option<Tee>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Measurements {
    One(Hex<48>),
    Many(Vec<Hex<48>>),
}

impl ReferenceInfo {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`ReferenceInfoError`].
    pub fn parse(payload: &[u8]) -> Result<Self, ReferenceInfoError> {
        if payload.len() > MAX_REFERENCE_INFO_BYTES {
            return Err(ReferenceInfoError::TooLong(payload.len()));
        }
        let document: Document = serde_json::from_slice(payload).map_err(ReferenceInfoError::Json)?;
        let text = &document.svn;
        // In its one spelling: no sign, no zeros before it.
        let svn = text.parse::<u64>().ok().filter(|svn| svn.to_string() == *text);
        let shown: String = text.chars().take(40).collect();
        let svn = svn.ok_or_else(|| ReferenceInfoError::Svn(format!("{shown:?} is no number of 64 bits")))?;
        if let Some(other) = document.svn_number.filter(|other| *other != svn) {
            return Err(ReferenceInfoError::Svn(format!("is {svn} in one field and {other} in another")));
        }
        let measurements = match document.measurements {
            Measurements::One(digest) => vec![digest],
            Measurements::Many(digests) => digests,
        };
        if !(1..=MAX_MEASUREMENTS).contains(&measurements.len()) {
            return Err(ReferenceInfoError::Count(measurements.len()));
        }
        Ok(Self { svn, tee: document.tee.unwrap_or(Tee::Snp), measurements })
    }

    /// The payload's text, ending with a newline; of a single launch digest of SEV-SNP, as Azure's tools read it.
    ///
    /// # Errors
    /// [`ReferenceInfoError`], where it could not be read back.
    pub fn to_json(&self) -> Result<String, ReferenceInfoError> {
        let document = Document {
            svn: self.svn.to_string(),
            svn_number: None,
            measurements: match self.measurements.as_slice() {
                [one] => Measurements::One(*one),
                several => Measurements::Many(several.to_vec()),
            },
            tee: Some(self.tee).filter(|tee| *tee != Tee::Snp),
        };
        let mut text = serde_json::to_string_pretty(&document).map_err(ReferenceInfoError::Json)?;
        text.push('\n');
        Self::parse(text.as_bytes()).map(|_| text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(value: &serde_json::Value) -> Result<ReferenceInfo, String> {
        ReferenceInfo::parse(value.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let digest = "5f".repeat(48);
        let of = |svn: &str, digests: &serde_json::Value| json!({ "x-ms-sevsnpvm-guestsvn": svn, "x-ms-sevsnpvm-launchmeasurement": digests });
        let good = parse(&of("101", &json!(digest))).unwrap();
        assert_eq!(good, ReferenceInfo { svn: 101, tee: Tee::Snp, measurements: vec![Hex([0x5f; 48])] });
        for svn in ["", "+1", "01", " 1", "1 ", "-1", "0x1", "18446744073709551616"] {
            assert!(parse(&of(svn, &json!(digest))).unwrap_err().contains("is no number"), "{svn:?}");
        }
        for digests in [json!(""), json!(digest[2..]), json!(digest.to_uppercase()), json!([[digest]]), json!(1)] {
            assert!(parse(&of("1", &digests)).unwrap_err().contains("failed to read"), "{digests}");
        }
        assert!(parse(&of("1", &json!([]))).unwrap_err().contains("have 0 launch digests"));
        let many = of("1", &json!(vec![&digest; MAX_MEASUREMENTS + 1]));
        assert!(parse(&many).unwrap_err().contains("2049 launch digests"));
        let with = |name: &str, value: serde_json::Value| {
            let mut document = of("1", &json!(digest));
            document[name] = value;
            parse(&document)
        };
        assert!(with("x-ms-sevsnpvm-guestsvn-int", json!(2)).unwrap_err().contains("1 in one field and 2"));
        assert!(with("caveau-tee", json!("tdx")).unwrap_err().contains("failed to read"));
        assert_eq!(with("x-ms-sevsnpvm-guestsvn-int", json!(1)), with("caveau-tee", json!("snp")));
        assert_eq!(with("x-ms-of-later", json!([1])).unwrap().svn, 1);
        let twice = format!(r#"{{"x-ms-sevsnpvm-guestsvn":"1",{}"#, &of("2", &json!(digest)).to_string()[1..]);
        assert!(ReferenceInfo::parse(twice.as_bytes()).is_err(), "a field that comes twice");
        let long = vec![b' '; MAX_REFERENCE_INFO_BYTES + 1];
        assert!(matches!(ReferenceInfo::parse(&long), Err(ReferenceInfoError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn reference_values_read_back(svn: u64, emulated: bool, digests in vec(any::<[u8; 48]>(), 1..5)) {
            let tee = if emulated { Tee::EmulatedSnp } else { Tee::Snp };
            let info = ReferenceInfo { svn, tee, measurements: digests.into_iter().map(Hex).collect() };
            prop_assert_eq!(ReferenceInfo::parse(info.to_json().unwrap().as_bytes()).unwrap(), info);
        }

        #[test]
        fn any_bytes_are_reference_values_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
            let _ = ReferenceInfo::parse(&bytes);
        }
    }
}
