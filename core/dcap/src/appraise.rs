//! The appraisal: an authentic quote held against the owner's expectations.

use caveau_snp::Hex;
use caveau_snp::appraise::Profile;
use caveau_snp::check::{Check, Refusal};

use crate::body::{Body, EnclaveReport, TdReport};
use crate::claims::Claims;
use crate::expectations::{EnclaveIdentity, Expectations, TdIdentity};
use crate::status::TcbStatus;

/// The checks of an appraisal, in order. Without the last two, evidence is "authentic, not appraised".
pub const APPRAISAL: [&str; 10] = [
    "debug",
    "td-attributes",
    "service-domain",
    "known-signer",
    "tcb-status",
    "advisories",
    "evaluation-number",
    "platform-kind",
    "nonce",
    "measurement",
];

/// MRSIGNER of keys whose private halves are published: SDK samples and test keys.
const PUBLISHED_SIGNERS: [&str; 2] = [
    "83d719e77deaca1470f6baf62a4d774303c899db69020f9c70ee1dfc08c7ce9e",
    "9affcfae47b848ec2caf1c49b4b283531e1cc425f93582b36806e52a43d78d1a",
];

/// TDATTRIBUTES (Intel TDX module ABI, "ATTRIBUTES").
mod attribute {
    pub(super) const DEBUG: u64 = 1;
    /// History, performance and tracing of a domain by its host.
    pub(super) const PROFILING: u64 = 0x70;
    pub(super) const OTHER_UNTRUSTED: u64 = 0x8e;
    /// Service domains may be bound after launch.
    pub(super) const SERVICE_DOMAINS: u64 = 1 << 17;
    pub(super) const SEPT_VE_DISABLE: u64 = 1 << 28;
    pub(super) const MIGRATABLE: u64 = 1 << 29;
    /// Single-step defence, service domains, LASS, SEPT_VE_DISABLE, MIGRATABLE, PKS, KL; TPA, PERFMON.
    pub(super) const KNOWN: u64 = 0xff | 1 << 16 | 1 << 17 | 1 << 27 | 0xf << 28 | 1 << 62 | 1 << 63;
}

/// What a check found: holds, broken, not asked, or nothing expected.
enum Finding {
    Holds(String),
    Broken(Refusal),
    NotAsked(&'static str),
    NothingExpected(&'static str),
}

fn broken(code: &str, sentence: impl Into<String>) -> Finding {
    Finding::Broken(Refusal::new(code, sentence))
}

/// Appraises `claims`: one check for each of [`APPRAISAL`].
#[must_use]
pub fn appraise(claims: &Claims, expected: &Expectations, profile: Profile) -> Vec<Check> {
    let strict = profile == Profile::Strict;
    let findings = [
        debug(&claims.body),
        td_attributes(&claims.body),
        service_domain(&claims.body, expected.service_td),
        known_signer(&claims.body),
        tcb_status(claims, expected, strict),
        advisories(claims, expected),
        evaluation_number(claims, expected),
        platform_kind(claims, expected),
        nonce(&claims.body, expected),
        measurement(&claims.body, expected),
    ];
    let to_check = |(name, finding)| match finding {
        Finding::Holds(sentence) => Check::from_result(name, Ok(sentence)),
        Finding::Broken(refusal) => Check::from_result(name, Err(refusal)),
        Finding::NotAsked(sentence) => Check::not_applicable(name, sentence),
        Finding::NothingExpected(sentence) => Check::skipped(name, sentence),
    };
    APPRAISAL.into_iter().zip(findings).map(to_check).collect()
}

/// The checks of an appraisal, for evidence that is not authentic. What the host may do to the enclave or domain is told all the
/// same, where the quote says it against itself.
#[must_use]
pub fn not_appraised(body: Option<&Body>) -> Vec<Check> {
    let told = |name: &'static str| match (name, body.map(debug)) {
        ("debug", Some(Finding::Broken(refusal))) => Check::from_result(name, Err(refusal)),
        _ => Check::skipped(name, "the evidence is not authentic"),
    };
    APPRAISAL.map(told).to_vec()
}

fn debug(body: &Body) -> Finding {
    let (debug, what) = match body {
        Body::Enclave(report) => (report.is_debug(), "the enclave"),
        Body::Td(report) => (report.attributes() & attribute::DEBUG != 0, "the trust domain"),
    };
    if debug {
        return broken("debug", format!("the host may read the memory of {what}: debugging is allowed"));
    }
    Finding::Holds(format!("the host may not debug {what}"))
}

fn td_attributes(body: &Body) -> Finding {
    let Body::Td(report) = body else { return Finding::NotAsked("an enclave has no TDATTRIBUTES") };
    let attributes = report.attributes();
    let wrong = [
        (attributes & attribute::PROFILING != 0, "the host may profile it"),
        (attributes & attribute::OTHER_UNTRUSTED != 0, "it has bits set that take it out of trust"),
        (attributes & attribute::MIGRATABLE != 0, "it may be moved to another platform"),
        (attributes & attribute::SEPT_VE_DISABLE == 0, "the host can inject exceptions by taking its memory away"),
        (attributes & !attribute::KNOWN != 0, "it has bits set that are reserved"),
    ];
    match wrong.iter().find(|(is_so, _)| *is_so) {
        Some((_, why)) => {
            broken("td-attributes", format!("TDATTRIBUTES of the trust domain are {}: {why}", report.td_attributes))
        }
        None => Finding::Holds(format!(
            "TDATTRIBUTES are {}: nothing in them takes the domain out of trust",
            report.td_attributes
        )),
    }
}

fn service_domain(body: &Body, expected: Option<Hex<48>>) -> Finding {
    let Body::Td(report) = body else { return Finding::NotAsked("an enclave has no service domains") };
    if expected.is_none() && report.attributes() & attribute::SERVICE_DOMAINS != 0 {
        return broken("service-domain", "service domains may be bound to it, and none is expected");
    }
    match (report.td15.map(|td15| td15.mr_service_td), expected) {
        (Some(found), Some(expected)) if found == expected => {
            Finding::Holds(format!("the service domains are those expected, {found}"))
        }
        (Some(found), None) if found.is_zero() => Finding::Holds("no service domain is bound".to_owned()),
        (None, None) => Finding::NotAsked("the report does not tell of service domains"),
        (found, _) => {
            let found = found.map_or_else(|| "not told".to_owned(), |found| found.to_string());
            broken("service-domain", format!("MRSERVICETD is {found}, which is not expected"))
        }
    }
}

fn known_signer(body: &Body) -> Finding {
    let Body::Enclave(report) = body else { return Finding::NotAsked("a trust domain has no MRSIGNER") };
    let signer = report.mr_signer.to_string();
    if PUBLISHED_SIGNERS.contains(&signer.as_str()) {
        return broken(
            "published-test-key",
            "the private key that signed the enclave is published: anyone can sign with it",
        );
    }
    Finding::Holds("the key that signed the enclave is none that is known to be published".to_owned())
}

/// What the profile takes where the owner says nothing: strict nothing but the newest, baseline what is not out of date.
const BASELINE: [TcbStatus; 4] = [
    TcbStatus::UpToDate,
    TcbStatus::SwHardeningNeeded,
    TcbStatus::ConfigurationNeeded,
    TcbStatus::ConfigurationAndSwHardeningNeeded,
];

fn tcb_status(claims: &Claims, expected: &Expectations, strict: bool) -> Finding {
    let of_profile: &[TcbStatus] = if strict { &[TcbStatus::UpToDate] } else { &BASELINE };
    let allowed = expected.statuses.as_deref().unwrap_or(of_profile);
    let advisories =
        if claims.advisories.is_empty() { String::new() } else { format!(" ({})", claims.advisories.join(", ")) };
    let found = claims.tcb_status;
    if allowed.contains(&found) {
        return Finding::Holds(format!("the TCB is {found}{advisories}, as of {}", claims.tcb_date));
    }
    let names: Vec<_> = allowed.iter().map(|status| status.name()).collect();
    broken("tcb-status", format!("the TCB is {found}{advisories}, expected {}", names.join(" or ")))
}

fn advisories(claims: &Claims, expected: &Expectations) -> Finding {
    let concerns = |list: &[String], id: &String| list.iter().any(|known| known.eq_ignore_ascii_case(id));
    if let Some(denied) = claims.advisories.iter().find(|id| concerns(&expected.denied_advisories, id)) {
        return broken("advisory-denied", format!("the platform is concerned by {denied}, which is not taken"));
    }
    match &expected.allowed_advisories {
        Some(allowed) => match claims.advisories.iter().find(|id| !concerns(allowed, id)) {
            Some(other) => broken(
                "advisory-denied",
                format!("the platform is concerned by {other}, which is not among those taken"),
            ),
            None => Finding::Holds("every advisory that concerns the platform is among those taken".to_owned()),
        },
        None if expected.denied_advisories.is_empty() => Finding::NotAsked("nothing is expected of advisories"),
        None => Finding::Holds("no advisory that is not taken concerns the platform".to_owned()),
    }
}

fn evaluation_number(claims: &Claims, expected: &Expectations) -> Finding {
    let (found, least) = (claims.collateral.evaluation_number, expected.least_evaluation_number);
    if least == 0 {
        return Finding::NotAsked("no least evaluation number of the collateral is expected");
    }
    if found >= least {
        return Finding::Holds(format!("the collateral's evaluation number is {found}"));
    }
    broken("evaluation-number", format!("the collateral's evaluation number is {found}, expected at least {least}"))
}

fn platform_kind(claims: &Claims, expected: &Expectations) -> Finding {
    let found = claims.platform.pck.fmspc;
    match &expected.platforms {
        None => Finding::NotAsked("any kind of platform may be used"),
        Some(list) if list.contains(&found) => Finding::Holds(format!("platforms of kind {found} may be used")),
        Some(_) => {
            broken("platform-refused", format!("the kind of platform {found} is not among those that may be used"))
        }
    }
}

fn nonce(body: &Body, expected: &Expectations) -> Finding {
    let found = body.report_data();
    match expected.report_data {
        None => Finding::NothingExpected("no report data was given: this evidence may be old"),
        Some(expected) if found == expected => Finding::Holds("REPORTDATA is as expected".to_owned()),
        Some(expected) => broken("report-data", format!("REPORTDATA is {found}, expected {expected}")),
    }
}

fn measurement(body: &Body, expected: &Expectations) -> Finding {
    match body {
        Body::Td(report) => match &expected.domains {
            None => Finding::NothingExpected("no trust domain was given: any may run"),
            Some(list) if list.iter().any(|identity| identity.is(report)) => {
                Finding::Holds(format!("the trust domain is one of those expected, MRTD {}", report.mr_td))
            }
            Some(list) => broken(
                "measurement",
                format!("the trust domain (MRTD {}) is none of the {} expected", report.mr_td, list.len()),
            ),
        },
        Body::Enclave(report) => match &expected.enclaves {
            None => Finding::NothingExpected("no enclave was given: any may run"),
            Some(list) if list.iter().any(|identity| identity.is(report)) => {
                Finding::Holds(format!("the enclave is one of those expected, MRENCLAVE {}", report.mr_enclave))
            }
            Some(list) => broken(
                "measurement",
                format!("the enclave (MRENCLAVE {}) is none of the {} expected", report.mr_enclave, list.len()),
            ),
        },
    }
}

fn is<T: PartialEq>(expected: Option<&T>, found: &T) -> bool {
    expected.is_none_or(|expected| expected == found)
}

impl TdIdentity {
    /// Whether it names a domain: without MRTD any could be meant.
    #[must_use]
    pub const fn names_one(&self) -> bool {
        self.mr_td.is_some()
    }

    fn is(&self, report: &TdReport) -> bool {
        self.names_one()
            && is(self.mr_td.as_ref(), &report.mr_td)
            && self.rtmrs.iter().zip(&report.rtmrs).all(|(expected, found)| is(expected.as_ref(), found))
            && is(self.mr_config_id.as_ref(), &report.mr_config_id)
            && is(self.mr_owner.as_ref(), &report.mr_owner)
            && is(self.mr_owner_config.as_ref(), &report.mr_owner_config)
            && is(self.mr_seam.as_ref(), &report.mr_seam)
    }
}

impl EnclaveIdentity {
    /// Whether it names an enclave: by its contents, or as a signer's product from some version on.
    #[must_use]
    pub const fn names_one(&self) -> bool {
        self.mr_enclave.is_some()
            || (self.mr_signer.is_some() && self.isv_prod_id.is_some() && self.least_isv_svn.is_some())
    }

    fn is(&self, report: &EnclaveReport) -> bool {
        self.names_one()
            && is(self.mr_enclave.as_ref(), &report.mr_enclave)
            && is(self.mr_signer.as_ref(), &report.mr_signer)
            && is(self.isv_prod_id.as_ref(), &report.isv_prod_id)
            && self.least_isv_svn.is_none_or(|least| report.isv_svn >= least)
            && is(self.config_id.as_ref(), &report.config_id)
    }
}
