//! The examination: every check that a report and its certificates must pass before anything in them is believed.
//!
//! The order is form, endorsement, signature, bindings. A check that fails does not hide the
//! others; a check whose inputs are not there is `skipped`. [`Claims`] come out only where none failed.

use crate::Hex;
use crate::certificate::Certificate;
use crate::chain::{Chain, OfProduct};
use crate::check::{Check, Refusal, Verdict};
use crate::claims::{Claims, TeeClass};
use crate::crl::Crl;
use crate::product::Product;
use crate::report::{Report, ReportError};
use crate::time::Timestamp;

/// Says which processors are genuine. It is asked; it never learns of a root from the evidence.
///
/// An implementor decides what its users believe, so there are two: AMD's in `caveau-evidence`, which cannot be told
/// another root, and the emulated one in `caveau-emulated`.
pub trait Authority {
    /// What kind of TEE it vouches for.
    fn class(&self) -> TeeClass;

    /// As what product a report is to be judged, going by what the report has signed. Version 2 does not say: there it is
    /// what root and endorsement key, both of them verified elsewhere, agree on.
    ///
    /// # Errors
    /// A [`Refusal`] with code `product-line-unknown` or `product-line-mismatch`.
    fn product(&self, report: &Report, vek: &Certificate<'_>, root: &Certificate<'_>) -> Result<Product, Refusal>;

    /// Whether `root` is, byte for byte, a root that it believes for this product.
    ///
    /// # Errors
    /// A [`Refusal`] with code `root-untrusted`.
    fn believes(&self, product: Product, root: &Certificate<'_>) -> Result<String, Refusal>;
}

/// A report and what endorses it: bytes from anyone.
#[derive(Clone, Copy, Debug)]
pub struct Endorsed<'a> {
    /// The report.
    pub report: &'a [u8],
    /// The endorsement key's certificate (VCEK or VLEK), DER. Empty where it did not come along; so with the others.
    pub vek: &'a [u8],
    /// The intermediate's certificate (ASK or ASVK), DER.
    pub intermediate: &'a [u8],
    /// The root's certificate (ARK), DER.
    pub root: &'a [u8],
    /// The root's revocation list, DER.
    pub crl: Option<&'a [u8]>,
}

/// When and how strictly to examine.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The time of the appraisal.
    pub at: Timestamp,
    /// Whether evidence without a revocation list fails.
    pub require_crl: bool,
    /// The highest number of a revocation list seen so far.
    pub crl_at_least: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Examination {
    report_sha256: Hex<32>,
    checks: Vec<Check>,
    claims: Option<Claims>,
}

impl Examination {
    /// SHA-256 of the report, whatever is wrong with it: names what was judged in a record. It is no protection from
    /// replays, since anybody can change a report's signature into another that holds.
    #[must_use]
    pub const fn report_sha256(&self) -> Hex<32> {
        self.report_sha256
    }

    /// Every check, in the order made.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The claims, when no check failed.
    #[must_use]
    pub const fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref()
    }

    /// Checks and claims.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Check>, Option<Claims>) {
        (self.checks, self.claims)
    }
}

/// The checks on the report's form, in the order in which [`Report::parse`] makes them.
const FORM: [&str; 6] =
    ["report-length", "report-version", "reserved-bytes", "signature-algorithm", "key-info", "signature-range"];
/// The check that the certificates can be read.
const CERTIFICATES: &str = "certificates";
/// The checks that need report and certificates.
const ENDORSEMENT: [&str; 17] = [
    "published-test-keys",
    "critical-extensions",
    "leaf-kind",
    "intermediate-kind",
    "root-name",
    "issuer-names",
    "product-line",
    "root",
    "key-types",
    "ca-constraints",
    "validity",
    "chain-signatures",
    "revocation",
    "report-signature",
    "vek-extensions",
    "tcb-binding",
    "chip-binding",
];

/// Examines `input`, believing `authority` and nobody else.
#[must_use]
pub fn examine(authority: &dyn Authority, input: &Endorsed<'_>, rules: &Rules) -> Examination {
    let report_sha256 = sha256(input.report);
    let parsed = Report::parse(input.report);
    let mut checks = form_checks(parsed.as_ref().err());
    let Ok(report) = parsed else {
        checks.push(Check::skipped(CERTIFICATES, "the report cannot be read"));
        checks.extend(ENDORSEMENT.map(|name| Check::skipped(name, "the report cannot be read")));
        return Examination { report_sha256, checks, claims: None };
    };
    let certificates = parse_certificates(input);
    checks.push(Check::from_result(
        CERTIFICATES,
        certificates.as_ref().map(|_| "three X.509 v3 certificates".to_owned()).map_err(Clone::clone),
    ));
    let Ok([vek, intermediate, root]) = certificates else {
        checks.extend(ENDORSEMENT.map(|name| Check::skipped(name, "a certificate cannot be read")));
        return Examination { report_sha256, checks, claims: None };
    };
    let chain = Chain { class: authority.class(), report: &report, vek, intermediate, root };
    let key = authority.product(&report, &chain.vek, &chain.root).map(|product| OfProduct::new(product, &chain.vek));
    let crl = input.crl.map(Crl::parse).transpose();
    let verdicts = endorsement_verdicts(authority, &chain, &key, &crl, rules);
    checks.extend(ENDORSEMENT.into_iter().zip(verdicts).map(|(name, verdict)| verdict.into_check(name)));
    let authentic = !checks.iter().any(Check::failed);
    let claims = key.ok().filter(|_| authentic).and_then(|key| chain.claims(&key, crl.ok().flatten().as_ref()));
    Examination { report_sha256, checks, claims }
}

/// How one check on the endorsement ended.
enum Ending {
    Made(Result<String, Refusal>),
    Skipped(&'static str),
}

impl Ending {
    fn into_check(self, name: &'static str) -> Check {
        match self {
            Self::Made(result) => Check::from_result(name, result),
            Self::Skipped(why) => Check::skipped(name, why),
        }
    }
}

/// One ending for each of [`ENDORSEMENT`].
fn endorsement_verdicts(
    authority: &dyn Authority,
    chain: &Chain<'_>,
    key: &Result<OfProduct<'_>, Refusal>,
    crl: &Result<Option<Crl<'_>>, crate::certificate::CertificateError>,
    rules: &Rules,
) -> [Ending; 17] {
    let with_product = |check: &dyn Fn(&OfProduct<'_>) -> Result<String, Refusal>| match key {
        Ok(key) => Ending::Made(check(key)),
        Err(_) => Ending::Skipped("the product line is not known"),
    };
    let named = key.as_ref().map(|key| format!("the report and its chain are of {}", key.product.name()));
    [
        Ending::Made(chain.no_published_keys()),
        Ending::Made(chain.critical_extensions()),
        Ending::Made(chain.leaf_kind()),
        Ending::Made(chain.intermediate_kind()),
        Ending::Made(chain.root_name()),
        Ending::Made(chain.issuer_names()),
        Ending::Made(named.map_err(Clone::clone)),
        with_product(&|key| authority.believes(key.product, &chain.root)),
        Ending::Made(chain.key_types()),
        Ending::Made(chain.ca_constraints()),
        Ending::Made(chain.validity(rules.at)),
        Ending::Made(chain.signatures()),
        revocation(chain, crl, rules),
        Ending::Made(chain.report_signature()),
        with_product(&|key| chain.vek_extensions(key)),
        with_product(&|key| chain.tcb_binding(key)),
        with_product(&|key| chain.chip_binding(key)),
    ]
}

fn revocation(
    chain: &Chain<'_>,
    crl: &Result<Option<Crl<'_>>, crate::certificate::CertificateError>,
    rules: &Rules,
) -> Ending {
    Ending::Made(match crl {
        Ok(Some(crl)) => crl.check(&chain.intermediate, &chain.root, rules.at, rules.crl_at_least),
        Ok(None) if rules.require_crl => {
            Err(Refusal::new("crl-missing", "there is no revocation list, and the profile requires one"))
        }
        Ok(None) => {
            return Ending::Skipped("skipped by policy: there is no revocation list, and none is asked for");
        }
        Err(error) => Err(Refusal::new("crl-malformed", format!("failed to read the revocation list: {error}"))),
    })
}

/// The checks on the report's form: all before the one that failed are fine, those after it were not made.
fn form_checks(error: Option<&ReportError>) -> Vec<Check> {
    let failed = error.map(|error| match error {
        ReportError::Length(_) => 0,
        ReportError::Version(_) => 1,
        ReportError::Reserved(_) => 2,
        ReportError::SignatureAlgorithm(_) => 3,
        ReportError::KeyInfo(_) | ReportError::SigningKey(_) | ReportError::ChipKeyMasked => 4,
        ReportError::SignatureRange => 5,
    });
    let check = |(index, name)| match (error, failed) {
        (Some(error), Some(at)) if index == at => {
            Check::from_result(name, Err(Refusal::new(&error.code(), error.to_string())))
        }
        (Some(_), Some(at)) if index > at => Check::skipped(name, "the report cannot be read"),
        _ => Check { name, verdict: Verdict::Ok, code: None, sentence: form_sentence(name).to_owned() },
    };
    FORM.into_iter().enumerate().map(check).collect()
}

fn form_sentence(name: &str) -> &'static str {
    match name {
        "report-length" => "the report has 1184 bytes",
        "report-version" => "the report's version is known",
        "reserved-bytes" => "everything reserved is zero, the unsigned bytes too",
        "signature-algorithm" => "ECDSA P-384 with SHA-384",
        "key-info" => "a VCEK or VLEK signed, and no reserved bit is set",
        _ => "r and s are in range",
    }
}

fn parse_certificates<'a>(input: &Endorsed<'a>) -> Result<[Certificate<'a>; 3], Refusal> {
    let parse = |der: &'a [u8], who: &str| {
        if der.is_empty() {
            let sentence = format!("the {who}'s certificate did not come along: give it with the evidence");
            return Err(Refusal::new("certificate-missing", sentence));
        }
        Certificate::parse(der).map_err(|error| {
            Refusal::new("certificate-malformed", format!("failed to read the {who}'s certificate: {error}"))
        })
    };
    Ok([parse(input.vek, "endorsement key")?, parse(input.intermediate, "intermediate")?, parse(input.root, "root")?])
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hex<32> {
    Hex(caveau_signature::sha256(&[bytes]))
}
