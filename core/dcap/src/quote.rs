//! Quotes: "Intel SGX ECDSA Quote Library API", appendix A (version 3), and "Intel TDX DCAP Quoting Library API", appendix A
//! (versions 4 and 5); numbers little-endian.
//!
//! ```text
//! header 48 │ [v5: body type u16, size u32] │ body │ length u32 │ signature data │ (bytes that nobody signed)
//! signature data, v3:    signature 64, attestation key 64, QE report data
//!                 v4, 5: signature 64, attestation key 64, type u16 = 6, size u32, QE report data
//! QE report data: QE report 384, its signature 64, length u16, authentication data, type u16, size u32, certification
//! ```

use caveau_snp::Hex;
use serde::Serialize;

use crate::body::{Body, ENCLAVE_BYTES, EnclaveReport, TD10_BYTES, TD15_BYTES, TD15EX_BYTES, TdReport};
use crate::bytes::Bytes;

/// Largest quote accepted; real ones have about 5 KiB.
pub const MAX_QUOTE_BYTES: usize = 128 * 1024;
/// Most bytes accepted after the quote: hosts hand out fixed-size buffers.
const MAX_TRAILING_BYTES: usize = 16 * 1024;
/// The vendor of Intel's quoting enclaves.
const INTEL_VENDOR: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
/// The attestation key: ECDSA on P-256 with SHA-256.
const ECDSA_P256: u16 = 2;
/// Certification data: the PCK certificate's chain in PEM.
const PCK_CHAIN: u16 = 5;
/// Certification data: the QE's report, with certification data of its own.
const QE_REPORT: u16 = 6;

/// A quote as it came. No signature has been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote<'a> {
    /// Its header.
    pub header: Header,
    /// What it is about.
    pub body: Body,
    /// The bytes that the attestation key signed: header and body.
    pub signed: &'a [u8],
    /// r and s, big-endian.
    pub signature: [u8; 64],
    /// The attestation key: x and y, big-endian.
    pub attestation_key: [u8; 64],
    /// The quoting enclave's report: raw, as it was signed.
    pub qe_report_raw: &'a [u8; ENCLAVE_BYTES],
    /// The quoting enclave's report.
    pub qe_report: EnclaveReport,
    /// Its signature by the platform's key.
    pub qe_report_signature: [u8; 64],
    /// Bytes that the quoting enclave hashed along with the attestation key.
    pub qe_authentication: &'a [u8],
    /// What certifies the platform's key.
    pub certification: Certification<'a>,
    /// How many bytes come after the quote, which nobody signed.
    pub trailing: usize,
}

/// A quote's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    /// 3 (SGX), 4 or 5.
    pub version: u16,
    /// SGX or TDX.
    pub tee_type: TeeType,
    /// SVN of the quoting enclave; zero from version 4 on.
    pub qe_svn: u16,
    /// SVN of the provisioning certification enclave; zero from version 4 on.
    pub pce_svn: u16,
    /// Data of the quoting enclave: its first 16 bytes name the platform.
    pub user_data: Hex<20>,
}

/// What kind of TEE a quote is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeeType {
    /// An enclave.
    Sgx,
    /// A trust domain.
    Tdx,
}

/// What certifies the key of the platform that signed the QE's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certification<'a> {
    /// The chain of its certificate, PEM.
    Chain(&'a [u8]),
    /// Something by which its certificate must be looked up first: types 1 to 4.
    Lookup(u16),
}

/// Why bytes are no quote that can be judged. The order is that of the checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// Longer than any.
    #[error("the quote has {0} bytes, at most {MAX_QUOTE_BYTES} are accepted")]
    TooLong(usize),
    /// Shorter than its parts.
    #[error("the quote ends within its {0}")]
    Short(&'static str),
    /// Another version.
    #[error("the quote's version is {0}, expected 3, 4 or 5")]
    Version(u16),
    /// Another TEE.
    #[error(
        "the quote's TEE type is {found:#x} in version {version}, expected 0 (SGX) or, from version 4 on, 0x81 (TDX)"
    )]
    TeeType {
        /// The type.
        found: u32,
        /// The quote's version.
        version: u16,
    },
    /// Another kind of attestation key.
    #[error("the quote's attestation key is of type {0}, expected 2 (ECDSA P-256)")]
    KeyType(u16),
    /// Another vendor.
    #[error("the quoting enclave's vendor is {0}, expected Intel")]
    Vendor(Hex<16>),
    /// A body that does not fit.
    #[error(
        "the quote's body is of type {kind} with {bytes} bytes, expected 1 (384, SGX), 2 (584), 3 (648) or 4 (885, TDX)"
    )]
    Body {
        /// Its type.
        kind: u16,
        /// Its size.
        bytes: u32,
    },
    /// A reserved byte of an enclave's report that is not zero.
    #[error("{who}'s report has bytes set in the reserved range at {at}")]
    Reserved {
        /// Whose.
        who: &'static str,
        /// Where in the report.
        at: usize,
    },
    /// Certification data of another type.
    #[error(
        "the quote's certification data is of type {0}, expected {PCK_CHAIN} (a chain of certificates) in {QE_REPORT} or alone"
    )]
    Certification(u16),
    /// Lengths that do not add up.
    #[error("the quote's {part} has {found} bytes more than its parts")]
    Excess {
        /// Of what.
        part: &'static str,
        /// How many.
        found: usize,
    },
}

impl QuoteError {
    /// A short, stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong(_) | Self::Short(_) | Self::Excess { .. } => "quote-length",
            Self::Version(_) => "quote-version",
            Self::TeeType { .. } => "quote-tee-type",
            Self::KeyType(_) => "quote-key-type",
            Self::Vendor(_) => "qe-vendor",
            Self::Body { .. } => "quote-body",
            Self::Reserved { .. } => "reserved-nonzero",
            Self::Certification(_) => "quote-certification",
        }
    }
}

impl<'a> Quote<'a> {
    /// Reads a quote. Bytes after it are passed over, since hosts hand out buffers of fixed size; nobody signed them.
    ///
    /// # Errors
    /// [`QuoteError`], for the first thing that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        if bytes.len() > MAX_QUOTE_BYTES {
            return Err(QuoteError::TooLong(bytes.len()));
        }
        let mut from = Bytes::new(bytes);
        let header = Header::parse(&mut from)?;
        let body = body(&mut from, &header)?;
        let signed = bytes.get(..from.offset()).unwrap_or_default();
        let data = from.after_u32().ok_or(QuoteError::Short("signature data"))?;
        let trailing = from.rest().len();
        if trailing > MAX_TRAILING_BYTES {
            return Err(QuoteError::Excess { part: "end", found: trailing });
        }
        let mut from = Bytes::new(data);
        let signature = from.array().ok_or(QuoteError::Short("signature"))?;
        let attestation_key = from.array().ok_or(QuoteError::Short("attestation key"))?;
        let mut qe = if header.version == 3 { from } else { nested(&mut from)? };
        let (report_raw, report_signature, authentication) =
            qe_report(&mut qe).ok_or(QuoteError::Short("QE report"))?;
        let qe_report =
            EnclaveReport::parse(report_raw).map_err(|at| QuoteError::Reserved { who: "the quoting enclave", at })?;
        let kind = qe.u16().ok_or(QuoteError::Short("certification data"))?;
        let data = qe.after_u32().ok_or(QuoteError::Short("certification data"))?;
        nothing_left(&qe, "signature data")?;
        let certification = match kind {
            PCK_CHAIN => Certification::Chain(data),
            1..=4 => Certification::Lookup(kind),
            other => return Err(QuoteError::Certification(other)),
        };
        Ok(Self {
            header,
            body,
            signed,
            signature,
            attestation_key,
            qe_report_raw: report_raw,
            qe_report,
            qe_report_signature: report_signature,
            qe_authentication: authentication,
            certification,
            trailing,
        })
    }

    /// Whether bytes begin as a quote does: enough to tell it from other evidence.
    #[must_use]
    pub fn is_likely(bytes: &[u8]) -> bool {
        let mut from = Bytes::new(bytes);
        let begins = (from.u16(), from.u16(), from.u32());
        let vendor = bytes.get(12..28) == Some(&INTEL_VENDOR);
        matches!(begins, (Some(1..=9), Some(_), Some(0 | 0x81))) && vendor
    }
}

impl Header {
    fn parse(from: &mut Bytes<'_>) -> Result<Self, QuoteError> {
        let short = || QuoteError::Short("header");
        let version = from.u16().ok_or_else(short)?;
        let key_type = from.u16().ok_or_else(short)?;
        let tee = from.u32().ok_or_else(short)?;
        let qe_svn = from.u16().ok_or_else(short)?;
        let pce_svn = from.u16().ok_or_else(short)?;
        let vendor: [u8; 16] = from.array().ok_or_else(short)?;
        let user_data = Hex(from.array().ok_or_else(short)?);
        if !(3..=5).contains(&version) {
            return Err(QuoteError::Version(version));
        }
        let tee_type = match (version, tee) {
            (_, 0) => TeeType::Sgx,
            (4 | 5, 0x81) => TeeType::Tdx,
            (version, found) => return Err(QuoteError::TeeType { found, version }),
        };
        if key_type != ECDSA_P256 {
            return Err(QuoteError::KeyType(key_type));
        }
        if vendor != INTEL_VENDOR {
            return Err(QuoteError::Vendor(Hex(vendor)));
        }
        Ok(Self { version, tee_type, qe_svn, pce_svn, user_data })
    }
}

/// The body: from version 5 on it says its type and size itself.
fn body(from: &mut Bytes<'_>, header: &Header) -> Result<Body, QuoteError> {
    let short = || QuoteError::Short("body");
    let (kind, size) = match (header.version, header.tee_type) {
        (5, _) => (from.u16().ok_or_else(short)?, from.u32().ok_or_else(short)?),
        (_, TeeType::Sgx) => (1, 384),
        (_, TeeType::Tdx) => (2, 584),
    };
    let bytes = match (header.tee_type, kind, size) {
        (TeeType::Sgx, 1, 384) => ENCLAVE_BYTES,
        (TeeType::Tdx, 2, 584) => TD10_BYTES,
        (TeeType::Tdx, 3, 648) => TD15_BYTES,
        (TeeType::Tdx, 4, 885) => TD15EX_BYTES,
        _ => return Err(QuoteError::Body { kind, bytes: size }),
    };
    let raw = from.take(bytes).ok_or_else(short)?;
    if let Ok(raw) = <&[u8; ENCLAVE_BYTES]>::try_from(raw) {
        let report = EnclaveReport::parse(raw).map_err(|at| QuoteError::Reserved { who: "the enclave", at })?;
        return Ok(Body::Enclave(Box::new(report)));
    }
    TdReport::parse(raw).map(|report| Body::Td(Box::new(report))).ok_or_else(short)
}

/// The QE report data of version 4 and 5, which stands in certification data of its own type.
fn nested<'a>(from: &mut Bytes<'a>) -> Result<Bytes<'a>, QuoteError> {
    let kind = from.u16().ok_or(QuoteError::Short("certification data"))?;
    if kind != QE_REPORT {
        return Err(QuoteError::Certification(kind));
    }
    let data = from.after_u32().ok_or(QuoteError::Short("QE report"))?;
    nothing_left(from, "signature data")?;
    Ok(Bytes::new(data))
}

/// The QE's report, its signature, and the authentication data.
fn qe_report<'a>(from: &mut Bytes<'a>) -> Option<(&'a [u8; ENCLAVE_BYTES], [u8; 64], &'a [u8])> {
    let report = from.take(ENCLAVE_BYTES)?.try_into().ok()?;
    let signature = from.array()?;
    let length = from.u16()?;
    Some((report, signature, from.take(usize::from(length))?))
}

fn nothing_left(from: &Bytes<'_>, part: &'static str) -> Result<(), QuoteError> {
    match from.rest().len() {
        0 => Ok(()),
        found => Err(QuoteError::Excess { part, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A quote of `version` with a body of `body` bytes, whose numbers are all zero.
    pub(crate) fn made(version: u16, tee: u32, body_type: Option<u16>, body: usize) -> Vec<u8> {
        let mut out = [&version.to_le_bytes()[..], &2_u16.to_le_bytes(), &tee.to_le_bytes(), &[0; 4]].concat();
        out.extend(INTEL_VENDOR);
        out.extend([0; 20]);
        if let Some(kind) = body_type {
            out.extend(kind.to_le_bytes());
            out.extend(u32::try_from(body).unwrap().to_le_bytes());
        }
        out.extend(vec![0; body]);
        let qe = [&[0; 384 + 64][..], &[1, 0, 7], &[5, 0, 3, 0, 0, 0], b"PEM"].concat();
        let mut data = vec![0; 128];
        if version > 3 {
            data.extend(6_u16.to_le_bytes());
            data.extend(u32::try_from(qe.len()).unwrap().to_le_bytes());
        }
        data.extend(qe);
        out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn quotes_of_each_version_are_read() {
        for (bytes, tee) in [
            (made(3, 0, None, 384), TeeType::Sgx),
            (made(4, 0, None, 384), TeeType::Sgx),
            (made(4, 0x81, None, 584), TeeType::Tdx),
            (made(5, 0, Some(1), 384), TeeType::Sgx),
            (made(5, 0x81, Some(2), 584), TeeType::Tdx),
            (made(5, 0x81, Some(3), 648), TeeType::Tdx),
            (made(5, 0x81, Some(4), 885), TeeType::Tdx),
        ] {
            let quote = Quote::parse(&bytes).unwrap();
            assert_eq!((quote.header.tee_type, quote.trailing), (tee, 0));
            assert_eq!((quote.qe_authentication, quote.certification), (&[7][..], Certification::Chain(b"PEM")));
            assert!(Quote::is_likely(&bytes));
            for length in 0..bytes.len() {
                assert_eq!(Quote::parse(&bytes[..length]).unwrap_err().code(), "quote-length", "{length}");
            }
            let longer = [&bytes[..], &[9; 70]].concat();
            assert_eq!(Quote::parse(&longer).unwrap().trailing, 70);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = made(5, 0x81, Some(3), 648);
        for (at, value, code) in [
            (0, 6, "quote-version"),
            (0, 2, "quote-version"),
            (0, 3, "quote-tee-type"),
            (4, 0x80, "quote-tee-type"),
            (2, 3, "quote-key-type"),
            (12, 0, "qe-vendor"),
            (48, 2, "quote-body"),
            (50, 0, "quote-body"),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Quote::parse(&bad).unwrap_err().code(), code, "byte {at}");
        }
        let mut reserved = made(3, 0, None, 384);
        reserved[48 + 21] = 1;
        assert_eq!(Quote::parse(&reserved).unwrap_err(), QuoteError::Reserved { who: "the enclave", at: 21 });
        assert!(matches!(Quote::parse(&vec![0; MAX_QUOTE_BYTES + 1]), Err(QuoteError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_quote_or_an_error(bytes in vec(any::<u8>(), 0..1500)) {
            let _ = Quote::parse(&bytes);
            let _ = Quote::is_likely(&bytes);
        }

        #[test]
        fn a_changed_quote_is_read_or_refused(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), version in 3_u16..6) {
            let (tee, kind, body) = if version == 5 { (0x81, Some(3), 648) } else { (0, None, 384) };
            let mut bytes = made(version, tee, kind, body);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(quote) = Quote::parse(&bytes) {
                prop_assert_eq!(quote.signed, &bytes[..quote.signed.len()]);
            }
        }
    }
}
