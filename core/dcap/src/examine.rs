//! The examination: every check on whether a quote is authentic and what its platform's TCB is, in one order, each with a name.
//!
//! Checks go on after one has failed, as far as they can, so that a judgement shows all that is wrong. The claims come out only
//! when none failed.

use caveau_signature::{Curve, Hash, Key, Scheme, verifies};
use caveau_snp::Hex;
use caveau_snp::certificate::Certificate;
use caveau_snp::check::{Check, Refusal};
use caveau_snp::crl::Crl;
use caveau_snp::time::Timestamp;

use crate::body::Body;
use crate::certificates::{Certificates, Ders};
use crate::chain::{self, Authority, Role, SIGNER_NAME};
use crate::claims::{Claims, CollateralClaims, PlatformClaims, QeClaims};
use crate::collateral::{Collateral, Signed};
use crate::identity::QeIdentity;
use crate::levels::{self, PlatformStanding, Standing};
use crate::pck::PckExtensions;
use crate::quote::{Quote, TeeType};
use crate::status::TcbStatus;
use crate::tcb_info::TcbInfo;

/// When and how strictly to examine.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The time of the appraisal.
    pub at: Timestamp,
    /// Whether evidence without revocation lists fails.
    pub require_crl: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Every check, in the order made.
    pub checks: Vec<Check>,
    /// The claims, where no check failed.
    pub claims: Option<Claims>,
}

/// The checks, in order.
const CHECKS: [&str; 22] = [
    "quote",
    "certificates",
    "root",
    "root-revocation",
    "tcb-signer",
    "tcb-info",
    "tcb-info-signature",
    "tcb-info-dates",
    "qe-identity",
    "qe-identity-signature",
    "qe-identity-dates",
    "pck-authority",
    "pck-certificate",
    "pck-revocation",
    "pck-extensions",
    "qe-report-signature",
    "attestation-key",
    "quote-signature",
    "quoting-enclave",
    "platform",
    "tdx-module",
    "tcb-level",
];

type Finding = Result<String, Refusal>;

/// The checks made so far.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    /// Adds a check; gives back what it found where it holds.
    fn add<T>(&mut self, result: Result<(String, T), Refusal>) -> Option<T> {
        let (result, value) = match result {
            Ok((sentence, value)) => (Ok(sentence), Some(value)),
            Err(refusal) => (Err(refusal), None),
        };
        self.push(|name| Check::from_result(name, result));
        value
    }

    fn holds(&mut self, finding: Finding) -> bool {
        self.add(finding.map(|sentence| (sentence, ()))).is_some()
    }

    fn skip(&mut self, why: &str) {
        self.push(|name| Check::skipped(name, why));
    }

    fn not_applicable(&mut self, why: &str) {
        self.push(|name| Check::not_applicable(name, why));
    }

    /// Adds a check with the next name.
    fn push(&mut self, check: impl FnOnce(&'static str) -> Check) {
        if let Some(name) = CHECKS.get(self.0.len()) {
            self.0.push(check(name));
        }
    }

    /// All others were not made.
    fn end(mut self, why: &str) -> Examination {
        while self.0.len() < CHECKS.len() {
            self.skip(why);
        }
        Examination { checks: self.0, claims: None }
    }
}

/// Examines a quote with the collateral that goes with it, believing `authority` and nobody else.
#[must_use]
pub fn examine(authority: &dyn Authority, quote: &[u8], collateral: &Collateral, rules: &Rules) -> Examination {
    let mut checks = Checks::default();
    let parsed = Quote::parse(quote).map_err(|error| Refusal::new(error.code(), error.to_string()));
    let Some(quote) = checks.add(parsed.map(|quote| (form(&quote), quote))) else {
        return checks.end("the quote cannot be read");
    };
    let ders = Ders::of(&quote, collateral);
    let Some(certificates) = checks.add(ders.and_then(Ders::read)) else {
        return checks.end("a certificate or revocation list cannot be read");
    };
    Examiner { authority, quote: &quote, collateral, certificates: &certificates.view(), rules, checks }.run()
}

fn form(quote: &Quote<'_>) -> String {
    let tee = match quote.header.tee_type {
        TeeType::Sgx => "SGX",
        TeeType::Tdx => "TDX",
    };
    let trailing = match quote.trailing {
        0 => String::new(),
        count => format!(", followed by {count} bytes that nobody signed"),
    };
    format!("a quote of {tee}, version {}{trailing}", quote.header.version)
}

struct Examiner<'a> {
    authority: &'a dyn Authority,
    quote: &'a Quote<'a>,
    collateral: &'a Collateral,
    certificates: &'a Certificates<'a>,
    rules: &'a Rules,
    checks: Checks,
}

const NO_ROOT: &str = "no certificate is Intel's root";

impl<'a> Examiner<'a> {
    fn run(mut self) -> Examination {
        let root = self.root();
        let (pck, pck_authority) = self.certificates.pck();
        self.revocation_by(root, &self.certificates.signers().chain(pck_authority).collect::<Vec<_>>());
        let signer = self.signer(root);
        let info = self.tcb_info(signer);
        let identity = self.qe_identity(signer);
        self.pck_chain(root, pck_authority, pck);
        self.revocation_by(pck_authority, &pck.into_iter().collect::<Vec<_>>());
        let extensions = pck.and_then(|pck| {
            let read = PckExtensions::parse(pck);
            self.checks.add(read.map(|read| (format!("the platform is of kind {}", read.fmspc), read)))
        });
        if pck.is_none() {
            self.checks.skip("there is no certificate of the platform's key");
        }
        self.signatures(pck);
        let qe = self.quoting_enclave(identity.as_ref());
        let standing = self.standing(info.as_ref(), extensions.as_ref());
        let failed = self.checks.0.iter().any(Check::failed);
        let claims = match (info, identity, extensions, qe, standing) {
            (Some(info), Some(identity), Some(extensions), Some(qe), Some(standing)) if !failed => {
                Some(self.claims(&info, &identity, extensions, qe, standing))
            }
            _ => None,
        };
        // Without claims, something was missing or failed; missing things are failures of their own.
        Examination { checks: self.checks.0, claims }
    }

    fn root(&mut self) -> Option<&'a Certificate<'a>> {
        let root = self.certificates.all().find(|certificate| self.authority.believes(certificate.der()));
        let finding = match root {
            Some(root) => chain::check_root(root, self.rules.at),
            None => Err(Refusal::new("root-untrusted", NO_ROOT)),
        };
        self.checks.holds(finding).then_some(root).flatten()
    }

    fn revocation_by(&mut self, issuer: Option<&Certificate<'a>>, subjects: &[&Certificate<'a>]) {
        let Some(issuer) = issuer else { return self.checks.skip("the issuer is not there") };
        match chain::revocation(&self.certificates.crls, issuer, subjects, self.rules.at) {
            Some(finding) => _ = self.checks.holds(finding),
            None if self.rules.require_crl => {
                let sentence =
                    format!("there is no revocation list of {}, and the profile requires one", issuer.common_name());
                self.checks.holds(Err(Refusal::new("crl-missing", sentence)));
            }
            None => self.checks.skip("there is no revocation list"),
        }
    }

    /// The certificate of the TCB signer: the one that signed, of several.
    fn signer(&mut self, root: Option<&Certificate<'a>>) -> Option<&'a Certificate<'a>> {
        let Some(root) = root else {
            self.checks.skip(NO_ROOT);
            return None;
        };
        let signed = self.collateral.tcb_infos.iter().chain(&self.collateral.qe_identities);
        let texts: Vec<&Signed> = signed.collect();
        let signs = |certificate: &&Certificate<'a>| {
            texts.iter().any(|signed| certificate.has_signed_raw(signed.text.as_bytes(), &signed.signature))
        };
        let mut signers = self.certificates.signers();
        let signer = signers.find(signs).or_else(|| self.certificates.signers().next());
        let finding = match signer {
            Some(signer) => chain::check(signer, Role::Signer, root, self.rules.at),
            None => Err(Refusal::new(
                "collateral-missing",
                format!("there is no certificate of {SIGNER_NAME}: give the platform's collateral"),
            )),
        };
        self.checks.holds(finding).then_some(signer).flatten()
    }

    /// TCB info: of this kind of platform, of several.
    fn tcb_info(&mut self, signer: Option<&Certificate<'a>>) -> Option<TcbInfo> {
        let tee = self.quote.header.tee_type;
        let fmspc = self.certificates.pck().0.and_then(|pck| PckExtensions::parse(pck).ok()).map(|pck| pck.fmspc);
        let fits = |info: &TcbInfo| (info.tee_type == tee, Some(info.fmspc) == fmspc);
        let chosen = choose(&self.collateral.tcb_infos, TcbInfo::parse, fits, "TCB info");
        let checked = chosen.and_then(|(signed, info)| {
            if info.tee_type == tee {
                Ok((format!("TCB info of {}, evaluation {}", info.issue_date, info.evaluation_number), (signed, info)))
            } else {
                Err(Refusal::new("tcb-info-kind", "the TCB info is for the other TEE"))
            }
        });
        let read = self.checks.add(checked);
        let dates = read.as_ref().map(|(_, info)| (info.issue_date, info.next_update));
        self.statement(signer, read.as_ref().map(|(signed, _)| *signed), dates, "tcb-info", "TCB info");
        read.map(|(_, info)| info)
    }

    fn qe_identity(&mut self, signer: Option<&Certificate<'a>>) -> Option<QeIdentity> {
        let tee = self.quote.header.tee_type;
        let fits = |identity: &QeIdentity| (identity.tee_type == tee, true);
        let chosen = choose(&self.collateral.qe_identities, QeIdentity::parse, fits, "QE identity");
        let checked = chosen.and_then(|(signed, identity)| {
            if identity.tee_type == tee {
                Ok((format!("QE identity of {}", identity.issue_date), (signed, identity)))
            } else {
                Err(Refusal::new("qe-identity-kind", "the QE identity is for the other TEE"))
            }
        });
        let read = self.checks.add(checked);
        let dates = read.as_ref().map(|(_, identity)| (identity.issue_date, identity.next_update));
        self.statement(signer, read.as_ref().map(|(signed, _)| *signed), dates, "qe-identity", "QE identity");
        read.map(|(_, identity)| identity)
    }

    /// The signature and the dates of a statement of the TCB signer's.
    fn statement(
        &mut self,
        signer: Option<&Certificate<'a>>,
        signed: Option<&Signed>,
        dates: Option<(Timestamp, Timestamp)>,
        code: &str,
        what: &str,
    ) {
        match (signer, signed) {
            (Some(signer), Some(signed)) => {
                let holds = signer.has_signed_raw(signed.text.as_bytes(), &signed.signature);
                let broken =
                    || Refusal::new(&format!("{code}-signature"), format!("{SIGNER_NAME} did not sign this {what}"));
                self.checks.holds(if holds { Ok(format!("{SIGNER_NAME} signed the {what}")) } else { Err(broken()) });
            }
            _ => self.checks.skip("there is nothing to verify it with, or nothing to verify"),
        }
        let at = self.rules.at;
        match dates {
            Some((from, _)) if at < from => {
                let sentence = format!("the {what} is of {from}, later than {at}");
                self.checks.holds(Err(Refusal::new(&format!("{code}-not-yet-valid"), sentence)));
            }
            Some((_, until)) if at > until => {
                let sentence = format!("the {what} was in force until {until}, now it is {at}: fetch a newer one");
                self.checks.holds(Err(Refusal::new(&format!("{code}-expired"), sentence)));
            }
            Some((_, until)) => _ = self.checks.holds(Ok(format!("the {what} is in force until {until}"))),
            None => self.checks.skip("it cannot be read"),
        }
    }

    fn pck_chain(
        &mut self,
        root: Option<&Certificate<'a>>,
        authority: Option<&Certificate<'a>>,
        pck: Option<&Certificate<'a>>,
    ) {
        let missing =
            |what: &str| Err(Refusal::new("certificate-missing", format!("there is no certificate of {what}")));
        match (root, authority) {
            (None, _) => self.checks.skip(NO_ROOT),
            (Some(root), Some(authority)) => {
                let finding = chain::check(authority, Role::PckAuthority, root, self.rules.at);
                self.checks.holds(finding);
            }
            (Some(_), None) => _ = self.checks.holds(missing("the authority of the platform's key")),
        }
        match (authority, pck) {
            (Some(authority), Some(pck)) => {
                let finding = chain::check(pck, Role::Pck, authority, self.rules.at);
                self.checks.holds(finding);
            }
            (_, None) => _ = self.checks.holds(missing("the platform's key")),
            (None, Some(_)) => self.checks.skip("its authority's certificate is not there"),
        }
    }

    /// From the platform's key to the quote.
    fn signatures(&mut self, pck: Option<&Certificate<'a>>) {
        let Quote { qe_report_raw, qe_report, attestation_key, qe_authentication, .. } = self.quote;
        match pck {
            Some(pck) => {
                let holds = pck.has_signed_raw(&qe_report_raw[..], &self.quote.qe_report_signature);
                self.checks.holds(verdict(
                    holds,
                    "the platform's key signed the quoting enclave's report",
                    "qe-report-signature",
                    "the platform's key did not sign the quoting enclave's report",
                ));
            }
            None => self.checks.skip("there is no certificate of the platform's key"),
        }
        let bound = [sha256(&[attestation_key, qe_authentication]).0.as_slice(), &[0; 32]].concat();
        self.checks.holds(verdict(
            qe_report.report_data.as_slice() == bound,
            "the quoting enclave vouches for the attestation key",
            "attestation-key",
            "the quoting enclave's report is not about this attestation key",
        ));
        let point = [&[4], attestation_key.as_slice()].concat();
        let (scheme, key) = (Scheme::EcdsaFixed(Hash::Sha256), Key::Ecdsa(Curve::P256, &point));
        self.checks.holds(verdict(
            verifies(scheme, &key, self.quote.signed, &self.quote.signature),
            "the attestation key signed the quote",
            "quote-signature",
            "the attestation key did not sign this quote",
        ));
    }

    fn quoting_enclave(&mut self, identity: Option<&QeIdentity>) -> Option<Standing> {
        let Some(identity) = identity else {
            self.checks.skip("there is no QE identity");
            return None;
        };
        let report = &self.quote.qe_report;
        let judged = match (identity.mismatch(report), identity.level_of(report.isv_svn)) {
            (Some(wrong), _) => Err(Refusal::new("qe-identity-mismatch", format!("the quoting enclave: {wrong}"))),
            (None, None) => Err(Refusal::new(
                "qe-level-none",
                format!("the quoting enclave's SVN {} reaches no level of QE identity", report.isv_svn),
            )),
            (None, Some(level)) if level.status == TcbStatus::Revoked => Err(Refusal::new(
                "qe-revoked",
                format!("the quoting enclave's SVN {} is revoked: its quotes are not to be believed", report.isv_svn),
            )),
            (None, Some(level)) => Ok((
                format!("the quoting enclave is Intel's: SVN {}, {}", report.isv_svn, level.status),
                Standing { status: level.status, date: level.date, advisories: level.advisories.clone() },
            )),
        };
        self.checks.add(judged)
    }

    /// Whether the collateral is about this platform, its TDX module, and the level it has reached.
    fn standing(&mut self, info: Option<&TcbInfo>, pck: Option<&PckExtensions>) -> Option<PlatformStanding> {
        let (Some(info), Some(pck)) = (info, pck) else {
            for _ in 0..3 {
                self.checks.skip("there is no TCB info, or no certificate of the platform's key");
            }
            return None;
        };
        if !self.checks.holds(same_platform(info, pck)) {
            self.checks.skip("the TCB info is of another platform");
            self.checks.skip("the TCB info is of another platform");
            return None;
        }
        let td = match &self.quote.body {
            Body::Td(td) => Some(&**td),
            Body::Enclave(_) => None,
        };
        match td {
            Some(td) => _ = self.checks.holds(levels::tdx_module(info, td)),
            None => self.checks.not_applicable("an enclave has no TDX module"),
        }
        let judged = levels::platform(info, pck, td).and_then(|standing| {
            let status = standing.status();
            if status == TcbStatus::Revoked {
                let sentence = "the platform's TCB is revoked: its keys are not to be believed";
                return Err(Refusal::new("tcb-revoked", sentence));
            }
            Ok((format!("the platform's TCB is {status}, as of {}", standing.date()), standing))
        });
        self.checks.add(judged)
    }

    fn claims(
        &self,
        info: &TcbInfo,
        identity: &QeIdentity,
        extensions: PckExtensions,
        qe: Standing,
        platform: PlatformStanding,
    ) -> Claims {
        let of_qe = QeClaims {
            mr_enclave: self.quote.qe_report.mr_enclave,
            mr_signer: self.quote.qe_report.mr_signer,
            isv_svn: self.quote.qe_report.isv_svn,
            status: qe.status,
        };
        let platform_status = platform.status();
        let merged = platform.with_quoting_enclave(&qe);
        let (leaf, _) = self.certificates.pck();
        let ends = [
            Some(info.next_update),
            Some(identity.next_update),
            leaf.map(Certificate::not_after),
            self.certificates.crls.iter().map(Crl::next_update).filter(|until| *until >= self.rules.at).min(),
            self.certificates.signers().map(Certificate::not_after).min(),
        ];
        Claims {
            tee_type: self.quote.header.tee_type,
            quote_version: self.quote.header.version,
            tcb_status: merged.status,
            advisories: merged.advisories,
            tcb_date: merged.date,
            platform: PlatformClaims { status: platform_status, pck: extensions },
            quoting_enclave: of_qe,
            collateral: CollateralClaims {
                evaluation_number: info.evaluation_number.min(identity.evaluation_number),
                issued: info.issue_date.min(identity.issue_date),
                valid_until: ends.into_iter().flatten().min().unwrap_or(self.rules.at),
                has_revocation_lists: self
                    .checks
                    .0
                    .iter()
                    .filter(|check| check.name.ends_with("revocation"))
                    .all(|check| check.verdict == caveau_snp::check::Verdict::Ok),
            },
            trailing_bytes: self.quote.trailing,
            body: self.quote.body.clone(),
        }
    }
}

/// The statement that fits best, of several; why there is none.
fn choose<'a, T>(
    statements: &'a [Signed],
    parse: impl Fn(&str) -> Result<T, String>,
    fits: impl Fn(&T) -> (bool, bool),
    what: &str,
) -> Result<(&'a Signed, T), Refusal> {
    let mut best: Option<(&Signed, T)> = None;
    for signed in statements {
        let read = parse(&signed.text)
            .map_err(|why| Refusal::new("collateral-malformed", format!("failed to read the {what}: {why}")))?;
        if best.as_ref().is_none_or(|(_, kept)| fits(&read) > fits(kept)) {
            best = Some((signed, read));
        }
    }
    best.ok_or_else(|| {
        Refusal::new("collateral-missing", format!("there is no {what}: give the platform's collateral"))
    })
}

fn same_platform(info: &TcbInfo, pck: &PckExtensions) -> Finding {
    if info.fmspc != pck.fmspc {
        let sentence = format!("the platform's FMSPC is {}, and the TCB info is for {}", pck.fmspc, info.fmspc);
        return Err(Refusal::new("fmspc-mismatch", sentence));
    }
    if info.pce_id != pck.pce_id {
        let sentence = format!("the platform's PCE-ID is {}, and the TCB info is for {}", pck.pce_id, info.pce_id);
        return Err(Refusal::new("pceid-mismatch", sentence));
    }
    Ok(format!("the TCB info is of this kind of platform: FMSPC {}, PCE-ID {}", info.fmspc, info.pce_id))
}

fn verdict(holds: bool, sentence: &str, code: &str, broken: &str) -> Finding {
    if holds { Ok(sentence.to_owned()) } else { Err(Refusal::new(code, broken)) }
}

fn sha256(parts: &[&[u8]]) -> Hex<32> {
    Hex(caveau_signature::sha256(parts))
}
