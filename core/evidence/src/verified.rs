//! The proof type, the one function that makes it, and the judgement built on it.

use std::ops::Deref;

use caveau_snp::appraisal::{Appraisal, EMULATED_TEE};
use caveau_snp::appraise::{Attached, Expectations, Profile, appraise};
use caveau_snp::check::{Check, Refusal};
use caveau_snp::claims::{Claims, TeeClass};
use caveau_snp::examine::{Examination, Rules, examine};
use caveau_snp::time::Timestamp;

use crate::amd::Amd;
use crate::file::{Evidence, Tee};

/// Something that was verified to a hardware root. Only [`verify`], [`crate::verify_quote`] and
/// [`crate::verify_azure`] make one.
///
/// ```compile_fail
/// let forged = caveau_evidence::Verified(());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The proof. For the functions of this crate that end a verification in which no check failed.
    pub(crate) const fn new(claims: T) -> Self {
        Self(claims)
    }

    /// What was verified, without the proof.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Verified<Claims> {
    /// Holds the claims against expectations: one check for each of [`caveau_snp::appraise::APPRAISAL`].
    #[must_use]
    pub fn appraise(&self, attached: &Attached<'_>, expected: &Expectations, profile: Profile) -> Vec<Check> {
        appraise(&self.0, attached, expected, profile)
    }
}

/// What [`verify`] found.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Every check, in the order made.
    pub checks: Vec<Check>,
    /// The claims, where no check failed.
    pub verified: Option<Verified<Claims>>,
}

/// Verifies that a SEV-SNP processor made this evidence. Says nothing of what runs: that takes an appraisal.
#[must_use]
pub fn verify(evidence: &Evidence, rules: &Rules) -> Verification {
    let (checks, claims) = examine_as_hardware(evidence, rules).into_parts();
    let mut all = vec![tee_check(evidence)];
    all.extend(checks);
    let authentic = !all.iter().any(Check::failed);
    Verification { checks: all, verified: claims.filter(|_| authentic).map(Verified) }
}

/// Verifies and appraises in one, for showing to people.
#[must_use]
pub fn judge(evidence: &Evidence, expected: &Expectations, profile: Profile, at: Timestamp) -> Appraisal {
    let examination = examine_as_hardware(evidence, &expected.rules(profile, at));
    let context = (TeeClass::Hardware, profile, at);
    Appraisal::conclude(context, vec![tee_check(evidence)], examination, &evidence.attached(), expected)
}

fn examine_as_hardware(evidence: &Evidence, rules: &Rules) -> Examination {
    examine(&Amd, &evidence.endorsed(), rules)
}

/// The evidence itself says of what kind it is. Its word is not believed, but taken where it is against itself.
fn tee_check(evidence: &Evidence) -> Check {
    Check::from_result(
        "tee",
        match evidence.tee {
            Tee::Snp => Ok("evidence of SEV-SNP".to_owned()),
            Tee::EmulatedSnp => Err(Refusal::new(
                EMULATED_TEE,
                "this is evidence of the emulated TEE, which gives no confidentiality: no hardware root stands behind it",
            )),
        },
    )
}
