//! One call for evidence of any kind: the file, what goes with it, and what its owner expects.

use caveau_dcap::Collateral;
use caveau_snp::Hex;
use caveau_snp::appraise::{ExpectedReportData, Profile};
use caveau_snp::time::Timestamp;

use crate::appraisal_policy::{AppraisalPolicy, AppraisalPolicyError};
use crate::azure::{AzureEvidence, AzureExpectations, judge_azure};
use crate::causes::with_causes;
use crate::certificates::{Certificates, CertificatesError};
use crate::intel::judge_quote;
use crate::judgement::{Judgement, snp_judgement};
use crate::recognise::{AnyEvidence, NotRecognised, SnpBundle, recognise};
use crate::reference_info::judge_signed_values;
use crate::revocation::OwnLists;
use crate::token::{Token, TokenExpectations, TokenKey, judge_token};
use crate::verified::judge;

/// Most files that may go with one piece of evidence.
pub const MAX_ATTACHMENTS: usize = 64;

/// What its owner asks of evidence, of whatever kind it is.
#[derive(Clone, Debug)]
pub struct Request {
    /// The standing expectations.
    pub policy: AppraisalPolicy,
    /// What the evidence must answer: 16 to 64 bytes under caveau, any where the maker of the evidence takes any.
    pub nonce: Option<Vec<u8>>,
    /// Whether the nonce was asked for over a channel to the guest.
    pub is_session: bool,
    /// The report data as a whole, where its maker uses it in a way of its own.
    pub report_data: Option<Hex<64>>,
    /// Whose tokens are believed.
    pub token_keys: Vec<TokenKey>,
    /// The time of the judgement. Nothing here has a clock.
    pub at: Timestamp,
}

/// Why there is no judgement.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A file that goes with the evidence is of no use.
    #[error("file {number} of those that go with the evidence: {reason}")]
    Attachment {
        /// Which, from 1.
        number: usize,
        /// What it is instead.
        reason: String,
    },
    /// Two files that say different things.
    #[error("the certificates that go with the evidence")]
    Certificates(#[from] CertificatesError),
    /// Both would leave open which counts.
    #[error("a nonce and the whole report data are both expected: give one of them")]
    NonceAndReportData,
    /// Signed values, and nobody who may sign them.
    #[error("signed reference values were given, and the appraisal policy has no `endorsers` whose signature counts")]
    NoEndorsers,
    /// It is recognised, and proves nothing by itself.
    #[error("these are {0}, and no evidence: they go along with it")]
    NoEvidence(&'static str),
    /// Something is expected that such evidence does not have.
    #[error("{what} cannot be expected of {of}: {instead}")]
    NotOfIt {
        /// What is expected.
        what: &'static str,
        /// Of what.
        of: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// It is nothing that is known.
    #[error(transparent)]
    NotRecognised(#[from] NotRecognised),
    /// The appraisal policy cannot be read.
    #[error(transparent)]
    Policy(#[from] AppraisalPolicyError),
    /// Report data of another length.
    #[error("the report data that are expected have {0} bytes, and must have 64")]
    ReportData(usize),
}

/// Files that go with evidence, told apart.
#[derive(Default)]
struct Attachments {
    certificates: Certificates,
    lists: Vec<Vec<u8>>,
    collateral: Collateral,
    envelopes: Vec<Vec<u8>>,
    keys: Vec<TokenKey>,
}

impl Attachments {
    fn read(files: &[&[u8]]) -> Result<Self, RequestError> {
        let mut all = Self::default();
        for (number, file) in (1..).zip(files) {
            if number > MAX_ATTACHMENTS {
                let reason = format!("at most {MAX_ATTACHMENTS} files are taken");
                return Err(RequestError::Attachment { number, reason });
            }
            match recognise(file) {
                Ok(AnyEvidence::Certificates(mut certificates)) => {
                    all.lists.extend(certificates.crl.take());
                    all.certificates = all.certificates.with(certificates)?;
                }
                Ok(AnyEvidence::Collateral(collateral)) => all.collateral = all.collateral.with(*collateral),
                Ok(AnyEvidence::SignedValues(envelope)) => all.envelopes.push(envelope),
                Ok(_) => {
                    let reason = "it is evidence itself".to_owned();
                    return Err(RequestError::Attachment { number, reason });
                }
                Err(error) => match TokenKey::parse(file) {
                    Ok(keys) => all.keys.extend(keys),
                    Err(_) => return Err(RequestError::Attachment { number, reason: with_causes(&error) }),
                },
            }
        }
        Ok(all)
    }
}

impl Request {
    /// A request at a time, by these standing expectations.
    #[must_use]
    pub fn new(policy: AppraisalPolicy, at: Timestamp) -> Self {
        Self { policy, nonce: None, is_session: false, report_data: None, token_keys: Vec::new(), at }
    }

    /// A request as callers in other languages have it: an appraisal policy's bytes and report data, where there are some.
    ///
    /// # Errors
    /// [`RequestError::Policy`], [`RequestError::ReportData`].
    pub fn from_bytes(policy: Option<&[u8]>, report_data: Option<&[u8]>, at: Timestamp) -> Result<Self, RequestError> {
        let mut request = Self::new(policy.map(AppraisalPolicy::parse).transpose()?.unwrap_or_default(), at);
        if let Some(data) = report_data {
            request.report_data = Some(Hex(data.try_into().map_err(|_| RequestError::ReportData(data.len()))?));
        }
        Ok(request)
    }

    /// How strict to be.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.policy.profile.unwrap_or_default()
    }

    /// Recognises evidence, completes it by what goes with it (certificates and revocation lists of SEV-SNP, collateral of
    /// Intel's, signed reference values, keys of tokens' signers, in any order), and judges it. Evidence of the emulated TEE is refused.
    ///
    /// # Errors
    /// [`RequestError`]. Evidence that is refused is no error: that is the judgement.
    pub fn judge_file(&self, evidence: &[u8], attachments: &[&[u8]]) -> Result<Judgement, RequestError> {
        let evidence = recognise(evidence)?;
        let mut given = Attachments::read(attachments)?;
        if !given.envelopes.is_empty() {
            if !matches!(evidence, AnyEvidence::Snp(_)) {
                let (what, of) = ("signed reference values", "evidence that is no report of SEV-SNP");
                return Err(RequestError::NotOfIt { what, of, instead: "they are judged along with such a report" });
            }
            if self.policy.endorsers.is_empty() {
                return Err(RequestError::NoEndorsers);
            }
        }
        given.keys.extend(self.token_keys.iter().cloned());
        let mut of_lists = self.clone();
        let mut complete = |own: Certificates, given: &mut Attachments| {
            let mut all = std::mem::take(&mut given.certificates).or(own).with_built_in();
            let least = all.choose_list(&OwnLists { given: &given.lists, kept: &[] }, self.at);
            let expected = &mut of_lists.policy.expectations;
            expected.least_crl_number = expected.least_crl_number.max(least);
            all
        };
        let evidence = match evidence {
            AnyEvidence::Snp(mut bundle) => {
                let own = std::mem::take(&mut bundle.evidence.certificates);
                bundle.evidence.certificates = complete(own, &mut given);
                bundle.evidence.endorsements.append(&mut given.envelopes);
                AnyEvidence::Snp(bundle)
            }
            AnyEvidence::Azure(mut evidence) => {
                let own = std::mem::take(&mut evidence.certificates);
                evidence.certificates = complete(own, &mut given);
                evidence.collateral = std::mem::take(&mut evidence.collateral).with(given.collateral);
                AnyEvidence::Azure(evidence)
            }
            AnyEvidence::Quote(quote, collateral) => {
                AnyEvidence::Quote(quote, Box::new(collateral.with(given.collateral)))
            }
            other => other,
        };
        of_lists.token_keys = given.keys;
        of_lists.judge(&evidence)
    }

    /// Judges evidence with what came along, and nothing else.
    ///
    /// # Errors
    /// As [`Self::judge_file`].
    pub fn judge(&self, evidence: &AnyEvidence) -> Result<Judgement, RequestError> {
        if self.nonce.is_some() && self.report_data.is_some() {
            return Err(RequestError::NonceAndReportData);
        }
        match evidence {
            AnyEvidence::Snp(bundle) => self.judge_snp(bundle),
            AnyEvidence::Azure(evidence) => self.judge_azure(evidence),
            AnyEvidence::Quote(quote, collateral) => self.judge_quote(quote, collateral),
            AnyEvidence::Token(token) => self.judge_token(token),
            AnyEvidence::Certificates(_) => {
                Err(RequestError::NoEvidence("certificates or revocation lists of SEV-SNP"))
            }
            AnyEvidence::SignedValues(_) => Err(RequestError::NoEvidence("signed reference values")),
            AnyEvidence::Collateral(_) => Err(RequestError::NoEvidence("collateral of Intel's")),
        }
    }

    fn judge_snp(&self, bundle: &SnpBundle) -> Result<Judgement, RequestError> {
        let endorsers = &self.policy.endorsers;
        let signed = judge_signed_values(&bundle.evidence.endorsements, endorsers, &bundle.evidence, self.at);
        let mut expected = self.policy.expectations.clone();
        expected.report_data = self.report_data_of_snp();
        expected.endorsed_measurements = signed.measurements;
        let appraisal = judge(&bundle.evidence, &expected, self.profile(), self.at);
        Ok(snp_judgement(appraisal.with_checks(signed.checks)))
    }

    /// What a report of SEV-SNP must have as its report data.
    #[must_use]
    pub fn report_data_of_snp(&self) -> Option<ExpectedReportData> {
        let challenge = self.nonce.clone().map(|nonce| {
            if self.is_session { ExpectedReportData::Session(nonce) } else { ExpectedReportData::Challenge(nonce) }
        });
        challenge.or(self.report_data.map(ExpectedReportData::Exact))
    }

    fn judge_azure(&self, evidence: &AzureEvidence) -> Result<Judgement, RequestError> {
        self.expects_no_session("a confidential VM of Azure's")?;
        if self.report_data.is_some() {
            return Err(RequestError::NotOfIt {
                what: "report data",
                of: "a confidential VM of Azure's",
                instead: "under the paravisor they are the paravisor's own: expect a nonce, which the TPM's quote has",
            });
        }
        let expected = AzureExpectations {
            nonce: self.nonce.clone(),
            registers: self.policy.registers.clone(),
            vm_configuration: self.policy.vm_configuration.clone(),
            snp: self.policy.expectations.clone(),
            tdx: self.policy.intel.clone(),
        };
        Ok(judge_azure(evidence, &expected, self.profile(), self.at))
    }

    fn judge_quote(&self, quote: &[u8], collateral: &Collateral) -> Result<Judgement, RequestError> {
        self.expects_no_session("a quote of Intel's")?;
        if self.nonce.is_some() {
            return Err(RequestError::NotOfIt {
                what: "a nonce",
                of: "a quote of Intel's",
                instead: "it has none of its own: expect the whole report data",
            });
        }
        let expected = caveau_dcap::Expectations { report_data: self.report_data, ..self.policy.intel.clone() };
        Ok(judge_quote(quote, collateral, &expected, self.profile(), self.at))
    }

    fn judge_token(&self, token: &Token) -> Result<Judgement, RequestError> {
        self.expects_no_session("a token")?;
        if self.report_data.is_some() {
            return Err(RequestError::NotOfIt {
                what: "report data",
                of: "a token",
                instead: "its verifier has judged them: expect a nonce",
            });
        }
        let expected = TokenExpectations {
            issuers: self.policy.issuers.clone(),
            nonce: self.nonce.clone(),
            snp: self.policy.expectations.clone(),
        };
        Ok(judge_token(token, &self.token_keys, &expected, self.profile(), self.at))
    }

    const fn expects_no_session(&self, of: &'static str) -> Result<(), RequestError> {
        if self.is_session {
            let instead = "a channel to the guest is caveau's own";
            return Err(RequestError::NotOfIt { what: "the evidence of a session", of, instead });
        }
        Ok(())
    }
}
