//! The certificates that go with a report, from the places where hosts keep them.

use caveau_snp::certificate::Certificate;
use caveau_snp::certificate_table::{self as table, CertificateId, TableError};
use caveau_snp::crl::Crl;
use serde::Deserialize;

use crate::pem;

/// What endorses a report, as far as it is there: DER from anyone, believed by nobody before it is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Certificate of the VCEK or VLEK.
    pub vek: Option<Vec<u8>>,
    /// Certificate of the ASK or ASVK.
    pub intermediate: Option<Vec<u8>>,
    /// Certificate of the ARK.
    pub root: Option<Vec<u8>>,
    /// The ARK's revocation list.
    pub crl: Option<Vec<u8>>,
}

/// Why certificates cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The host's JSON.
    #[error("failed to read the host's certificates: expected JSON with vcekCert and certificateChain")]
    Json(#[source] serde_json::Error),
    /// PEM.
    #[error("failed to read {0} of the host's certificates: it is no PEM")]
    Pem(&'static str),
    /// The certificate table.
    #[error("failed to read the certificate table that came with the report")]
    Table(#[from] TableError),
    /// A file that holds two different things for one place.
    #[error("there are two for the {place}: give the ones that go with this report")]
    Two {
        /// The place.
        place: &'static str,
    },
    /// A file that is nothing that can be put in place.
    #[error("{0}; expected certificates of SEV-SNP or a revocation list, as PEM or DER, or a certificate table")]
    Unknown(String),
}

/// 92f81bc3-5811-4d3d-97ff-d19f88dc67ea: a revocation list in the certificate table.
const CRL: CertificateId = CertificateId(0x92f8_1bc3_5811_4d3d_97ff_d19f_88dc_67ea_u128.to_be_bytes());

/// AMD's roots, and their intermediates in force: `/vcek/v1/<line>/cert_chain` and `/vlek/v1/<line>/cert_chain`, DER. Being here
/// makes none of them believed: the roots are told by their hashes.
const BUILT_IN: [&[u8]; 9] = [
    include_bytes!("../certificates/milan-ark.der"),
    include_bytes!("../certificates/milan-ask.der"),
    include_bytes!("../certificates/milan-asvk.der"),
    include_bytes!("../certificates/genoa-ark.der"),
    include_bytes!("../certificates/genoa-ask.der"),
    include_bytes!("../certificates/genoa-asvk.der"),
    include_bytes!("../certificates/turin-ark.der"),
    include_bytes!("../certificates/turin-ask.der"),
    include_bytes!("../certificates/turin-asvk.der"),
];

/// The host's certificates as Azure's THIM service gives them: PEM in JSON.
#[derive(Deserialize)]
struct Thim {
    #[serde(rename = "vcekCert")]
    vcek: String,
    #[serde(rename = "certificateChain")]
    chain: String,
}

impl Certificates {
    /// From the table that comes with a report (GHCB form): DER or PEM, a revocation list among them where the host has one.
    ///
    /// # Errors
    /// When the table is malformed, or an entry is broken PEM.
    pub fn from_table(bytes: &[u8]) -> Result<Self, CertificatesError> {
        let mut out = Self::default();
        for certificate in table::parse(bytes)? {
            let (slot, name) = match certificate.id {
                CertificateId::VCEK | CertificateId::VLEK => (&mut out.vek, "the endorsement key's"),
                CertificateId::ASK => (&mut out.intermediate, "the intermediate's"),
                CertificateId::ARK => (&mut out.root, "the root's"),
                CRL => (&mut out.crl, "the revocation list"),
                _ => continue,
            };
            *slot = Some(pem::to_der(certificate.data).ok_or(CertificatesError::Pem(name))?);
        }
        Ok(out)
    }

    /// From the JSON of Azure's THIM service: `vcekCert`, and in `certificateChain` the intermediate, then the root.
    ///
    /// # Errors
    /// When it is no such JSON or holds no PEM.
    pub fn from_thim(json: &[u8]) -> Result<Self, CertificatesError> {
        let thim: Thim = serde_json::from_slice(json).map_err(CertificatesError::Json)?;
        let vek = pem::certificates(&thim.vcek).ok_or(CertificatesError::Pem("vcekCert"))?;
        let chain = pem::certificates(&thim.chain).ok_or(CertificatesError::Pem("certificateChain"))?;
        let mut chain = chain.into_iter();
        Ok(Self { vek: vek.into_iter().next(), intermediate: chain.next(), root: chain.next(), crl: None })
    }

    /// From a file of whatever form: certificates and revocation lists in PEM, one of them in DER, a certificate table, or the
    /// JSON of Azure's THIM service. Each goes to the place that its name says.
    ///
    /// # Errors
    /// When it is none of these, is broken, or has two different ones for one place.
    pub fn from_file(bytes: &[u8]) -> Result<Self, CertificatesError> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let objects = match bytes.first() {
            Some(b'{') => return Self::from_thim(bytes),
            _ if text.contains("-----BEGIN ") => {
                let blocks = pem::blocks(text, &pem::LABELS);
                blocks.ok_or_else(|| CertificatesError::Unknown("a PEM block is broken".to_owned()))?
            }
            Some(0x30) => vec![bytes.to_vec()],
            _ => {
                let table = Self::from_table(bytes)?;
                let empty = || CertificatesError::Unknown("there is nothing in it".to_owned());
                return (table != Self::default()).then_some(table).ok_or_else(empty);
            }
        };
        if objects.is_empty() {
            return Err(CertificatesError::Unknown("there is neither a certificate nor a revocation list".to_owned()));
        }
        objects.into_iter().try_fold(Self::default(), |out, object| out.with(Self::of_object(object)?))
    }

    /// One certificate or revocation list in its place.
    fn of_object(der: Vec<u8>) -> Result<Self, CertificatesError> {
        let mut out = Self::default();
        let name = match (Certificate::parse(&der), Crl::parse(&der)) {
            (Ok(certificate), _) => certificate.common_name().to_owned(),
            (Err(_), Ok(_)) => {
                out.crl = Some(der);
                return Ok(out);
            }
            (Err(error), Err(_)) => {
                return Err(CertificatesError::Unknown(format!("failed to read a certificate: {error}")));
            }
        };
        let slot = match name.as_str() {
            "SEV-VCEK" | "SEV-VLEK" => &mut out.vek,
            name if name.starts_with("ARK-") => &mut out.root,
            name if name.starts_with("SEV-") => &mut out.intermediate,
            other => return Err(CertificatesError::Unknown(format!("`{other}` is no name of a SEV-SNP certificate"))),
        };
        *slot = Some(der);
        Ok(out)
    }

    /// These and those, which must not say different things.
    ///
    /// # Errors
    /// [`CertificatesError::Two`].
    pub fn with(self, other: Self) -> Result<Self, CertificatesError> {
        let one = |place, a: Option<Vec<u8>>, b: Option<Vec<u8>>| match (a, b) {
            (Some(a), Some(b)) if a != b => Err(CertificatesError::Two { place }),
            (a, b) => Ok(a.or(b)),
        };
        Ok(Self {
            vek: one("endorsement key", self.vek, other.vek)?,
            intermediate: one("intermediate", self.intermediate, other.intermediate)?,
            root: one("root", self.root, other.root)?,
            crl: one("revocation list", self.crl, other.crl)?,
        })
    }

    /// These, and from AMD's own certificates, as its key distribution service gives them out, the intermediate that the
    /// endorsement key's names and that one's root, where they are missing. They are judged like any that came along.
    #[must_use]
    pub fn with_built_in(mut self) -> Self {
        let vek = self.vek.as_deref().and_then(|der| Certificate::parse(der).ok());
        let own: Vec<Certificate<'_>> = BUILT_IN.iter().filter_map(|der| Certificate::parse(der).ok()).collect();
        let named = |name: &[u8]| own.iter().find(|certificate| certificate.subject() == name);
        if self.intermediate.is_none() {
            let found = vek.and_then(|vek| named(vek.issuer()));
            self.intermediate = found.map(|certificate| certificate.der().to_vec());
        }
        if self.root.is_none() {
            let intermediate = self.intermediate.as_deref().and_then(|der| Certificate::parse(der).ok());
            let found = intermediate.and_then(|intermediate| named(intermediate.issuer()));
            self.root = found.map(|certificate| certificate.der().to_vec());
        }
        self
    }

    /// These, and what is missing from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            vek: self.vek.or(other.vek),
            intermediate: self.intermediate.or(other.intermediate),
            root: self.root.or(other.root),
            crl: self.crl.or(other.crl),
        }
    }
}
