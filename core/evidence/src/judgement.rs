//! Judgements of evidence of any kind, in one form.

use caveau_snp::appraisal::Appraisal;
use serde::Serialize;

use crate::azure::{AzureClaims, Processor};
use crate::token::TokenClaims;

/// A judgement of evidence of any kind, as `--json` shows it. It reports; it proves nothing to code.
pub type Judgement = Appraisal<Subject>;

/// What evidence says, where it is authentic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Subject {
    /// A confidential VM of Azure's.
    Azure(Box<AzureClaims>),
    /// An enclave or a trust domain.
    Quote(Box<caveau_dcap::Claims>),
    /// A guest of SEV-SNP.
    Snp(Box<caveau_snp::claims::Claims>),
    /// What another verifier found.
    Token(Box<TokenClaims>),
}

impl Subject {
    /// The claims on a guest of SEV-SNP, where there is one.
    #[must_use]
    pub fn snp(&self) -> Option<&caveau_snp::claims::Claims> {
        match self {
            Self::Snp(claims) => Some(claims),
            Self::Azure(claims) => match &claims.processor {
                Processor::Snp(claims) => Some(claims),
                Processor::Tdx(_) => None,
            },
            Self::Quote(_) | Self::Token(_) => None,
        }
    }
}

/// The judgement of a report of SEV-SNP among those of other kinds.
#[must_use]
pub fn snp_judgement(appraisal: Appraisal) -> Judgement {
    appraisal.map(|claims| Subject::Snp(Box::new(claims)))
}
