//! `caveau verify`: evidence of any kind held against the owner's expectations.

mod beside;
mod expected;
mod inputs;
mod page;
mod show;
mod signed;
mod view;

use std::{mem::take, path::Path};

use anyhow::{Context as _, Result, bail};
use caveau_emulated::SoftwareRoot;
use caveau_evidence::{
    APPRAISAL_POLICY_EXAMPLE, Accepted, AnyEvidence, AppraisalPolicy, AzureEvidence, Certificates, EventLog, Evidence,
    Expectations, ExpectedReportData, Hex, Judgement, MAX_EVIDENCE_BYTES, Outcome as Judged, Profile, Request,
    SnpBundle, Tee, Timestamp, Verdict,
    corim::Corim,
    dcap, judge, recognise, sha256, snp_judgement,
    token::{Token, TokenKey},
};
use caveau_guest_image::Manifest;
use caveau_policy::Policy;
use caveau_protocol::Nonce;

use crate::{args, commands::policy, endorsement, exit::Outcome, files, ui, units::now};
use expected::Reference;
use inputs::Inputs;
use view::{Subject, View};

/// Runs it.
///
/// # Errors
/// Where a file cannot be read, or is no evidence. Evidence that is refused is no error: it is the answer.
pub(crate) fn run(command: &args::Verify, json: bool, quiet: bool) -> Result<Outcome> {
    let Some(file) = command.file.as_deref().filter(|_| !command.appraisal_example) else {
        ui::print(APPRAISAL_POLICY_EXAMPLE)?;
        return Ok(Outcome::Done);
    };
    if let Some(page) = &command.html {
        inputs::check_page(command, page, file)?;
    }
    let bytes = files::read(file, MAX_EVIDENCE_BYTES)?;
    let evidence = recognise(&bytes).with_context(|| format!("failed to read {}", file.display()))?;
    if !matches!(evidence, AnyEvidence::Snp(_))
        && (!command.endorsement.is_empty() || command.endorsement_issuer.is_some())
    {
        bail!("signed reference values are judged along with a report of SEV-SNP, and {} is none", file.display());
    }
    let asked =
        Asked { nonce: command.nonce.as_deref(), report_data: command.report_data, is_session: command.session };
    if command.session && !matches!(evidence, AnyEvidence::Snp(_)) {
        bail!("--session is for a report of SEV-SNP, and {} is none", file.display());
    }
    let owner = Owner::new(&command.expected, asked, Some(file), quiet)?;
    if !matches!(evidence, AnyEvidence::Snp(_)) && owner.corim().is_some() {
        bail!("a CoRIM is held against a report of SEV-SNP, and {} is none", file.display());
    }
    let judged = match evidence {
        AnyEvidence::Snp(bundle) => owner.judge_snp(*bundle)?,
        AnyEvidence::Azure(evidence) => owner.judge_azure(*evidence)?,
        AnyEvidence::Quote(quote, collateral) => owner.judge_quote(quote, *collateral)?,
        AnyEvidence::Token(token) => owner.judge_token(*token)?,
        AnyEvidence::Certificates(_) => bail!(
            "{} holds certificates or revocation lists of SEV-SNP, and no evidence: give the report, and this file with \
             --certificates",
            file.display()
        ),
        AnyEvidence::SignedValues(_) => bail!(
            "{} holds signed reference values, and no evidence: give the report, and this file with --endorsement",
            file.display()
        ),
        AnyEvidence::Collateral(_) => bail!(
            "{} holds collateral of Intel's, and no evidence: give the quote, and this file with --collateral",
            file.display()
        ),
    };
    // What runs is only said where the report vouches for it. The reference values are what it was held against only along with
    // a number of processors.
    let is_measured = command.cpus.is_some() && holds(&judged.judgement, "measurement");
    let measured = owner.manifest().filter(|_| is_measured).cloned().zip(judged.tee);
    let measured = measured.map(|(manifest, tee)| expected::of_tee(manifest, tee));
    // The owner may have its digest alone: the text that came along is then the one, if it is what the report is of.
    let came_along =
        judged.policy.as_deref().filter(|text| holds(&judged.judgement, "policy-text") && Policy::parse(text).is_ok());
    let bound = owner.policy.as_deref().or(came_along).filter(|_| holds(&judged.judgement, "policy"));
    let signed = judged.signed.as_ref().filter(|_| holds(&judged.judgement, "measurement"));
    let judgement = &judged.judgement;
    let subject = Subject {
        form: &judged.form,
        measured: measured.as_ref(),
        signed,
        policy: bound,
        events: judged.event_log.as_ref().filter(|_| holds(judgement, "event-log") && holds(judgement, "nonce")),
        appraisal_policy: owner.standing.sha256.as_deref(),
    };
    let view = View::new(judgement, subject)?;
    show::print(&view, json)?;
    if let Some(page) = &command.html {
        page::write(page, &view, &Inputs::new(command, file, &bytes, judgement))?;
    }
    Ok(match judgement.outcome {
        Judged::Passed => Outcome::Done,
        Judged::AuthenticNotAppraised | Judged::Refused => Outcome::Refused,
    })
}

/// Judges the evidence of a session, whose nonce was asked for over it, as evidence in a file is judged.
///
/// # Errors
/// Where a file of the owner's cannot be used.
pub(crate) fn judge_session(
    expected: &args::Expected,
    evidence: Evidence,
    nonce: &Nonce,
    quiet: bool,
) -> Result<Judgement> {
    let nonce = nonce.to_string();
    let asked = Asked { nonce: Some(&nonce), report_data: None, is_session: true };
    let owner = Owner::new(expected, asked, None, quiet)?;
    let bundle = SnpBundle { form: "evidence of a session", evidence };
    Ok(owner.judge_snp(bundle)?.judgement)
}

impl From<args::ProfileChoice> for Profile {
    fn from(choice: args::ProfileChoice) -> Self {
        match choice {
            args::ProfileChoice::Baseline => Self::Baseline,
            args::ProfileChoice::Strict => Self::Strict,
        }
    }
}

/// An appraisal policy, and the digest by which a record can name it.
#[derive(Default)]
struct Standing {
    policy: AppraisalPolicy,
    sha256: Option<String>,
}

impl Standing {
    fn read(file: &Path) -> Result<Self> {
        let bytes = files::read(file, files::MAX_DOCUMENT)?;
        let policy = AppraisalPolicy::parse(&bytes).with_context(|| format!("failed to use {}", file.display()))?;
        Ok(Self { policy, sha256: Some(sha256(&bytes).to_string()) })
    }
}

/// A judgement, with what was recognised.
struct Answer {
    form: String,
    judgement: Judgement,
    /// The TEE by whose reference values it was judged, where it was.
    tee: Option<Tee>,
    /// Signed reference values that count.
    signed: Option<Accepted>,
    /// The policy that came along.
    policy: Option<String>,
    /// The event log that came along.
    event_log: Option<EventLog>,
}

impl Answer {
    /// A judgement of what nothing came along with that could be shown.
    fn alone(judgement: Judgement, tee: Option<Tee>) -> Self {
        let form = judgement.kind.to_string();
        Self { form, judgement, tee, signed: None, policy: None, event_log: None }
    }
}

/// What the evidence must answer.
#[derive(Clone, Copy, Debug, Default)]
struct Asked<'a> {
    nonce: Option<&'a str>,
    report_data: Option<Hex<64>>,
    /// Whether the nonce was asked for over a channel.
    is_session: bool,
}

/// What the owner brings.
struct Owner<'a> {
    command: &'a args::Expected,
    asked: Asked<'a>,
    /// Beside which certificates and collateral are looked for.
    file: Option<&'a Path>,
    reference: Option<Reference>,
    policy: Option<String>,
    standing: Standing,
    profile: Profile,
    at: Timestamp,
    quiet: bool,
}

impl<'a> Owner<'a> {
    fn new(command: &'a args::Expected, asked: Asked<'a>, file: Option<&'a Path>, quiet: bool) -> Result<Self> {
        let standing = command.appraisal.as_deref().map(Standing::read).transpose()?.unwrap_or_default();
        let profile = command.profile.map(Profile::from).or(standing.policy.profile).unwrap_or_default();
        Ok(Self {
            command,
            asked,
            file,
            reference: command.reference.as_deref().map(Reference::read).transpose()?,
            policy: command.policy.as_deref().map(policy::read).transpose()?,
            standing,
            profile,
            at: command.at.map_or_else(now, Ok)?,
            quiet,
        })
    }

    /// The guest's description.
    fn manifest(&self) -> Option<&Manifest> {
        if let Some(Reference::Guest(manifest)) = &self.reference { Some(manifest) } else { None }
    }

    /// Reference values of other tools.
    const fn corim(&self) -> Option<&Corim> {
        if let Some(Reference::Corim(corim)) = &self.reference { Some(corim) } else { None }
    }

    /// A report of SEV-SNP, of hardware or emulated.
    fn judge_snp(&self, bundle: SnpBundle) -> Result<Answer> {
        let SnpBundle { form, mut evidence } = bundle;
        let nonce = self.asked.nonce.map(str::parse::<Nonce>).transpose()?;
        let challenge = nonce.map(|nonce| {
            let nonce = nonce.as_bytes().to_vec();
            if self.asked.is_session {
                ExpectedReportData::Session(nonce)
            } else {
                ExpectedReportData::Challenge(nonce)
            }
        });
        let mut expected = self.expectations(evidence.tee, challenge)?;
        let given = take(&mut evidence.certificates);
        let (certificates, least) = self.complete(given, evidence.tee, &evidence.report)?;
        evidence.certificates = certificates;
        expected.least_crl_number = expected.least_crl_number.max(least);
        let signed = signed::judge(self.command, &self.standing.policy, &mut evidence, self.at)?;
        expected.endorsed_measurements = signed.measurements;
        // An emulated processor is looked at only by who asked for it by name; everything else goes to the hardware verifier,
        // which refuses emulated evidence.
        let appraisal = match &self.command.allow_emulated {
            Some(root) if evidence.tee == Tee::EmulatedSnp => {
                let bytes = files::read(root, files::MAX_DOCUMENT)?;
                caveau_emulated::judge(&[SoftwareRoot::parse(&bytes)?], &evidence, &expected, self.profile, self.at)
            }
            _ => judge(&evidence, &expected, self.profile, self.at),
        };
        let corim = self.corim().map(|corim| corim.check(appraisal.claims.as_ref(), self.at));
        let appraisal = appraisal.with_checks(signed.checks.into_iter().chain(corim).collect());
        let judgement = snp_judgement(appraisal);
        Ok(Answer {
            form: form.to_owned(),
            judgement,
            tee: Some(evidence.tee),
            signed: signed.accepted,
            policy: evidence.policy.and_then(|text| String::from_utf8(text).ok()),
            event_log: evidence.event_log.and_then(|text| EventLog::parse(&text).ok()),
        })
    }

    fn judge_azure(&self, mut evidence: AzureEvidence) -> Result<Answer> {
        let mut snp = self.expectations(Tee::Snp, None)?;
        if let Some(report) = evidence.snp_report().map(<[u8]>::to_vec) {
            let given = take(&mut evidence.certificates);
            let (certificates, least) = self.complete(given, Tee::Snp, &report)?;
            evidence.certificates = certificates;
            snp.least_crl_number = snp.least_crl_number.max(least);
        }
        evidence.collateral = self.collateral(take(&mut evidence.collateral))?;
        let judgement = self.request(snp)?.judge(&AnyEvidence::Azure(Box::new(evidence)))?;
        Ok(Answer::alone(judgement, None))
    }

    fn judge_quote(&self, quote: Vec<u8>, collateral: dcap::Collateral) -> Result<Answer> {
        let collateral = self.collateral(collateral)?;
        let request = self.request(self.standing.policy.expectations.clone())?;
        let judgement = request.judge(&AnyEvidence::Quote(quote, Box::new(collateral)))?;
        Ok(Answer::alone(judgement, None))
    }

    fn judge_token(&self, token: Token) -> Result<Answer> {
        let mut keys = Vec::new();
        for file in &self.command.token_keys {
            let bytes = files::read(file, files::MAX_DOCUMENT)?;
            keys.extend(TokenKey::parse(&bytes).with_context(|| format!("failed to use {}", file.display()))?);
        }
        let request = Request { token_keys: keys, ..self.request(self.expectations(Tee::Snp, None)?)? };
        let judgement = request.judge(&AnyEvidence::Token(Box::new(token)))?;
        Ok(Answer::alone(judgement, Some(Tee::Snp)))
    }

    /// What is asked of evidence of other makers, with these expectations of SEV-SNP.
    fn request(&self, expectations: Expectations) -> Result<Request> {
        let policy = AppraisalPolicy { profile: Some(self.profile), expectations, ..self.standing.policy.clone() };
        let mut request = Request::new(policy, self.at);
        request.nonce = self.raw_nonce()?;
        request.report_data = self.asked.report_data;
        request.is_session = self.asked.is_session;
        Ok(request)
    }

    fn expectations(&self, tee: Tee, challenge: Option<ExpectedReportData>) -> Result<Expectations> {
        let exact = self.asked.report_data.map(ExpectedReportData::Exact);
        let of_file = self.standing.policy.expectations.clone();
        let reference = self.reference.as_ref();
        let policy = self.policy.as_deref();
        let expected = expected::expectations(self.command, tee, reference, policy, of_file, self.quiet)?;
        Ok(Expectations { report_data: challenge.or(exact), ..expected })
    }

    /// The nonce as evidence of other makers has it: any bytes.
    fn raw_nonce(&self) -> Result<Option<Vec<u8>>> {
        let decode = |text: &str| hex::decode(text).context("--nonce is not hexadecimal");
        self.asked.nonce.map(decode).transpose()
    }

    /// The certificates that go with a report, and the highest number of a revocation list that the owner holds.
    fn complete(&self, given: Certificates, tee: Tee, report: &[u8]) -> Result<(Certificates, u64)> {
        let given = match self.file {
            Some(file) => given.or(beside::certificates(file, report, self.quiet)),
            None => given,
        };
        let lists = self.command.crl.iter().map(|file| revocation_list(file)).collect::<Result<Vec<_>>>()?;
        let sources = &self.command.certificates;
        let endorsement = endorsement::complete(given, (tee, report), sources, lists, self.at, self.quiet)?;
        Ok((endorsement.certificates, endorsement.least_crl_number))
    }

    /// Collateral: what came along, what was given, and where nothing was, what lies beside.
    fn collateral(&self, given: dcap::Collateral) -> Result<dcap::Collateral> {
        let mut all = given;
        for file in &self.command.collateral {
            let bytes = files::read(file, files::MAX_DOCUMENT)?;
            let read = dcap::Collateral::parse(&bytes).with_context(|| format!("failed to use {}", file.display()))?;
            all = all.with(read);
        }
        Ok(match self.file.filter(|_| all.is_empty()) {
            Some(file) => beside::collateral(file, self.quiet),
            None => all,
        })
    }
}

/// A revocation list from a file.
fn revocation_list(file: &Path) -> Result<Vec<u8>> {
    let list = endorsement::read(file)?.crl;
    list.with_context(|| format!("{} is no revocation list", file.display()))
}

/// Whether a check was made and holds.
fn holds(judgement: &Judgement, name: &str) -> bool {
    judgement.checks.iter().any(|check| check.name == name && check.verdict == Verdict::Ok)
}
