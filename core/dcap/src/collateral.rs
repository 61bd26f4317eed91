//! Collateral: what Intel says of platforms, with the certificates and revocation lists by which to believe it. Bytes from
//! anyone: whatever it is, its signatures decide.
//!
//! Read from the JSON in which verifiers hand it around (`tcb_info`, `tcb_info_signature`, `qe_identity`, …, `pck_crl`,
//! `root_ca_crl`), from answers of Intel's service or a cache of it (`{"tcbInfo": …, "signature": …}`,
//! `{"enclaveIdentity": …, "signature": …}`), and from files with certificates or revocation lists in PEM, DER or hexadecimal.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caveau_snp::certificate::Certificate;
use caveau_snp::crl::Crl;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Largest file of collateral accepted.
pub const MAX_COLLATERAL_BYTES: usize = 4 * 1024 * 1024;
/// Most certificates and most revocation lists that are looked at.
const MAX_OBJECTS: usize = 64;

/// Collateral as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collateral {
    /// Statements about the TCB of platforms.
    pub tcb_infos: Vec<Signed>,
    /// Statements about quoting enclaves.
    pub qe_identities: Vec<Signed>,
    /// Certificates, DER: of the TCB signer and of authorities.
    pub certificates: Vec<Vec<u8>>,
    /// The chain of the platform's key, where the quote does not have it: the key's own certificate first.
    pub pck_chain: Vec<Vec<u8>>,
    /// Revocation lists, DER.
    pub crls: Vec<Vec<u8>>,
}

/// JSON with the signature over its exact bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The JSON's text.
    pub text: String,
    /// r and s, big-endian.
    pub signature: [u8; 64],
}

/// Why bytes are no collateral.
#[derive(Debug, thiserror::Error)]
pub enum CollateralError {
    /// Too long.
    #[error("the collateral has {0} bytes, at most {MAX_COLLATERAL_BYTES} are accepted")]
    TooLong(usize),
    /// No JSON, or other JSON.
    #[error("failed to read the collateral: it begins as JSON and is none that is known")]
    Json(#[source] serde_json::Error),
    /// JSON in which nothing is known.
    #[error("the JSON has neither tcb_info, qe_identity nor revocation lists, nor tcbInfo or enclaveIdentity")]
    Nothing,
    /// A field that is not what it must be.
    #[error("the collateral's `{field}` {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// Neither JSON nor certificates nor lists.
    #[error("this is no collateral: expected JSON, or certificates or revocation lists in PEM, DER or hexadecimal")]
    Unknown,
    /// More than are looked at.
    #[error("the collateral has more than {MAX_OBJECTS} certificates or revocation lists")]
    TooMany,
}

/// The JSON forms in one: each field may be left out, and what is not known is passed over, since nothing in here counts
/// without its signature.
#[derive(Deserialize)]
struct File<'a> {
    tcb_info: Option<String>,
    tcb_info_signature: Option<Blob>,
    tcb_info_issuer_chain: Option<String>,
    qe_identity: Option<String>,
    qe_identity_signature: Option<Blob>,
    qe_identity_issuer_chain: Option<String>,
    pck_crl: Option<Blob>,
    root_ca_crl: Option<Blob>,
    pck_crl_issuer_chain: Option<String>,
    pck_certificate_chain: Option<String>,
    #[serde(rename = "tcbInfo", borrow)]
    service_tcb_info: Option<&'a RawValue>,
    #[serde(rename = "enclaveIdentity", borrow)]
    service_identity: Option<&'a RawValue>,
    signature: Option<Blob>,
}

/// Bytes: in hexadecimal, base64, PEM, or as a list of numbers.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Blob {
    Text(String),
    Numbers(Vec<u8>),
}

impl Collateral {
    /// Reads a file of collateral.
    ///
    /// # Errors
    /// [`CollateralError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CollateralError> {
        if bytes.len() > MAX_COLLATERAL_BYTES {
            return Err(CollateralError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).ok().map(str::trim);
        let out = match text {
            Some(text) if text.starts_with('{') => Self::of_json(text)?,
            Some(text) if text.contains("-----BEGIN") => Self::of_pem(text)?,
            Some(text) => Self::of_der(hex::decode(text).map_err(|_| CollateralError::Unknown)?)?,
            None => Self::of_der(bytes.to_vec())?,
        };
        if out.certificates.len() > MAX_OBJECTS || out.crls.len() > MAX_OBJECTS || out.pck_chain.len() > MAX_OBJECTS {
            return Err(CollateralError::TooMany);
        }
        Ok(out)
    }

    /// These and those.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.tcb_infos.extend(other.tcb_infos);
        self.qe_identities.extend(other.qe_identities);
        self.certificates.extend(other.certificates);
        self.crls.extend(other.crls);
        if self.pck_chain.is_empty() {
            self.pck_chain = other.pck_chain;
        }
        self
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.tcb_infos.is_empty()
            && self.qe_identities.is_empty()
            && self.certificates.is_empty()
            && self.pck_chain.is_empty()
            && self.crls.is_empty()
    }

    fn of_json(text: &str) -> Result<Self, CollateralError> {
        let file: File<'_> = serde_json::from_str(text).map_err(CollateralError::Json)?;
        let mut out = Self::default();
        if let Some(text) = file.tcb_info {
            out.tcb_infos.push(signed(text, file.tcb_info_signature, "tcb_info_signature")?);
        }
        if let Some(text) = file.qe_identity {
            out.qe_identities.push(signed(text, file.qe_identity_signature, "qe_identity_signature")?);
        }
        let of_service = |value: &RawValue| signed(value.get().to_owned(), file.signature.clone(), "signature");
        out.tcb_infos.extend(file.service_tcb_info.map(of_service).transpose()?);
        out.qe_identities.extend(file.service_identity.map(of_service).transpose()?);
        for (field, chain) in [
            ("tcb_info_issuer_chain", file.tcb_info_issuer_chain),
            ("qe_identity_issuer_chain", file.qe_identity_issuer_chain),
            ("pck_crl_issuer_chain", file.pck_crl_issuer_chain),
        ] {
            for der in chain.map(|text| chain_of(&text, field)).transpose()?.into_iter().flatten() {
                if !out.certificates.contains(&der) {
                    out.certificates.push(der);
                }
            }
        }
        out.pck_chain = file
            .pck_certificate_chain
            .map(|text| chain_of(&text, "pck_certificate_chain"))
            .transpose()?
            .unwrap_or_default();
        for (field, blob) in [("root_ca_crl", file.root_ca_crl), ("pck_crl", file.pck_crl)] {
            out.crls.extend(blob.map(|blob| blob.bytes(field)).transpose()?);
        }
        if out.is_empty() { Err(CollateralError::Nothing) } else { Ok(out) }
    }

    fn of_pem(text: &str) -> Result<Self, CollateralError> {
        let blocks = pem_blocks(text).ok_or(CollateralError::Field { field: "PEM", problem: "is broken" })?;
        let mut out = Self::default();
        for (label, der) in blocks {
            match label {
                "CERTIFICATE" => out.certificates.push(der),
                "X509 CRL" => out.crls.push(der),
                _ => {}
            }
        }
        if out.is_empty() { Err(CollateralError::Unknown) } else { Ok(out) }
    }

    fn of_der(der: Vec<u8>) -> Result<Self, CollateralError> {
        let mut out = Self::default();
        if Crl::parse(&der).is_ok() {
            out.crls.push(der);
        } else if Certificate::parse(&der).is_ok() {
            out.certificates.push(der);
        } else {
            return Err(CollateralError::Unknown);
        }
        Ok(out)
    }
}

impl Blob {
    fn bytes(self, field: &'static str) -> Result<Vec<u8>, CollateralError> {
        let text = match self {
            Self::Numbers(bytes) => return Ok(bytes),
            Self::Text(text) => text,
        };
        if text.contains("-----BEGIN") {
            let block = pem_blocks(&text).and_then(|blocks| blocks.into_iter().next());
            return block.map(|(_, der)| der).ok_or(CollateralError::Field { field, problem: "is broken PEM" });
        }
        let problem = "is neither hexadecimal nor base64";
        let decoded = hex::decode(text.trim()).ok().or_else(|| STANDARD.decode(text.trim()).ok());
        decoded.ok_or(CollateralError::Field { field, problem })
    }
}

fn signed(text: String, signature: Option<Blob>, field: &'static str) -> Result<Signed, CollateralError> {
    let signature = signature.ok_or(CollateralError::Field { field, problem: "is missing" })?.bytes(field)?;
    let signature = signature.try_into();
    let signature = signature.map_err(|_| CollateralError::Field { field, problem: "has not 64 bytes" })?;
    Ok(Signed { text, signature })
}

/// The certificates of a chain in PEM, which services hand out percent-encoded in a header.
fn chain_of(text: &str, field: &'static str) -> Result<Vec<Vec<u8>>, CollateralError> {
    let decoded =
        if text.contains("%20") || text.contains("%0A") { percent_decoded(text) } else { Some(text.to_owned()) };
    let blocks = decoded.as_deref().and_then(pem_blocks);
    let blocks = blocks.ok_or(CollateralError::Field { field, problem: "is broken PEM" })?;
    Ok(blocks.into_iter().filter(|(label, _)| *label == "CERTIFICATE").map(|(_, der)| der).collect())
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            out.extend(hex::decode(digits).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// The blocks of a PEM text (RFC 7468), with their labels; `None` when one does not end or is no base64.
pub(crate) fn pem_blocks(text: &str) -> Option<Vec<(&str, Vec<u8>)>> {
    let mut rest = text;
    let mut blocks = Vec::new();
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, body) = after.split_once("-----")?;
        let (body, next) = body.split_once(&format!("-----END {label}-----"))?;
        let digits: String = body.split_ascii_whitespace().collect();
        blocks.push((label, STANDARD.decode(digits).ok()?));
        rest = next;
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";

    fn refused(text: &str) -> String {
        Collateral::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_answer_of_the_service_keeps_the_bytes_that_were_signed() {
        let signature = "ab".repeat(64);
        let text = format!(r#"{{"tcbInfo": {{"a" :1,"b":[ ]}} ,"signature":"{signature}"}}"#);
        let read = Collateral::parse(text.as_bytes()).unwrap();
        assert_eq!(read.tcb_infos, [Signed { text: r#"{"a" :1,"b":[ ]}"#.to_owned(), signature: [0xab; 64] }]);
        let identity = format!(r#"{{"enclaveIdentity":{{}},"signature":"{signature}"}}"#);
        let both = read.with(Collateral::parse(identity.as_bytes()).unwrap());
        assert_eq!((both.tcb_infos.len(), both.qe_identities.len()), (1, 1));
    }

    #[test]
    fn chains_come_plain_or_percent_encoded() {
        let encoded: String = PEM.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for chain in [PEM.to_owned(), encoded] {
            let json = serde_json::json!({ "tcb_info_issuer_chain": chain, "pck_crl": "0102", "root_ca_crl": [3] });
            let read = Collateral::parse(json.to_string().as_bytes()).unwrap();
            assert_eq!((read.certificates, read.crls), (vec![vec![1, 2, 3]], vec![vec![3], vec![1, 2]]));
        }
        assert_eq!(Collateral::parse(PEM.as_bytes()).unwrap().certificates, [[1, 2, 3]]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(refused("{}").contains("neither tcb_info"));
        assert!(refused("{").contains("begins as JSON"));
        assert!(refused(r#"{"tcbInfo":{}}"#).contains("`signature` is missing"));
        assert!(refused(r#"{"tcbInfo":{},"signature":"00"}"#).contains("has not 64 bytes"));
        assert!(refused(r#"{"pck_crl":"*"}"#).contains("neither hexadecimal"));
        assert!(refused("-----BEGIN CERTIFICATE-----\n").contains("is broken"));
        assert!(refused("hello").contains("no collateral"));
        assert!(refused("00ff").contains("no collateral"));
        assert!(refused(&PEM.repeat(MAX_OBJECTS + 1)).contains("more than 64"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_collateral_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
            let _ = Collateral::parse(&bytes);
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in "[%0-9A-F a-z-]{0,60}") {
            let _ = percent_decoded(&text);
            let _ = pem_blocks(&text);
        }
    }
}
