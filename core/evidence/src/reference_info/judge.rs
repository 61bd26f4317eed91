//! Signed reference values held against whom the owner trusts with them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caveau_cose::{ContentType, DidX509, Envelope, Rules, Validity, VerifiedEnvelope};
use caveau_snp::Hex;
use caveau_snp::check::{Check, Refusal};
use caveau_snp::report::Report;
use caveau_snp::time::Timestamp;
use serde::Serialize;

use super::{REFERENCE_INFO_TYPE, ReferenceInfo};
use crate::causes::with_causes;
use crate::file::{Evidence, Tee};

/// Most envelopes that are looked at for one piece of evidence.
pub(crate) const MAX_ENVELOPES: usize = 16;
/// The checks: form and signature, by whom, and of which security version. What is endorsed, `measurement` says.
const NAMES: [&str; 3] = ["reference-info", "reference-info-issuer", "reference-info-svn"];

/// Somebody whose signed reference values the owner takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorser {
    /// The signer.
    pub issuer: DidX509,
    /// What the signer must say that the values are about. A signer has more than one kind of guest.
    pub feed: String,
    /// Least security version of the guest.
    pub least_svn: u64,
    /// Whether the signer's certificates must be in force at the time of the judgement, too. Without, what was signed while
    /// they were holds for ever, and is retired by `least_svn`.
    pub in_force: bool,
}

/// What signed reference values come to.
#[derive(Clone, Debug, Default)]
pub struct SignedValues {
    /// The checks, for the judgement.
    pub checks: Vec<Check>,
    /// The launch digests that count, for [`caveau_snp::appraise::Expectations::endorsed_measurements`]: none of them where
    /// signed values were expected and none hold; `None` where nobody's were expected.
    pub measurements: Option<Vec<Hex<48>>>,
    /// Who signed what, where it counts.
    pub accepted: Option<Accepted>,
}

/// Signed reference values that count.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Accepted {
    /// The signer's did:x509.
    pub issuer: String,
    /// What they are about.
    pub feed: String,
    /// The guest's security version.
    pub svn: u64,
    /// When they say to have been signed.
    pub signed_at: Option<Timestamp>,
    /// How many launch digests they have.
    pub measurements: usize,
}

/// Judges the signed reference values that came along with `evidence`, or that its owner has: `envelopes`, in binary or in
/// base64. Of several the one counts that is signed by one of `endorsers` and names the report's launch digest; no other does
/// then. Each signer's chain must be sound at the time at which it says to have signed, which must not be after `at`.
///
/// Nobody is trusted here: without `endorsers`, signatures are verified and count for nothing.
#[must_use]
pub fn judge_signed_values(
    envelopes: &[Vec<u8>],
    endorsers: &[Endorser],
    evidence: &Evidence,
    at: Timestamp,
) -> SignedValues {
    if envelopes.len() > MAX_ENVELOPES {
        let sentence = format!("{} signed reference values, at most {MAX_ENVELOPES} are looked at", envelopes.len());
        return SignedValues::refused(Refusal::new("reference-info-count", sentence), endorsers);
    }
    let launched = Report::parse(&evidence.report).ok().map(|report| Hex(report.fields().measurement));
    let context = Context { endorsers, tee: evidence.tee, at };
    let mut found: Vec<Found> = envelopes.iter().map(|bytes| context.look_at(bytes)).collect();
    let names_it = |info: &ReferenceInfo| launched.is_some_and(|digest| info.measurements.contains(&digest));
    // The best is last: one that counts and is of this guest, else one that counts, else the first.
    found.reverse();
    found.sort_by_key(|found| {
        let counts = found.counts();
        (counts, counts && found.info.as_ref().is_some_and(names_it))
    });
    match found.pop() {
        Some(best) => best.conclude(endorsers),
        None if endorsers.is_empty() => SignedValues::default(),
        None => {
            let sentence =
                "no signed reference values came along, and none were given: those of a trusted signer are expected";
            SignedValues::refused(Refusal::new("reference-info-missing", sentence), endorsers)
        }
    }
}

impl SignedValues {
    fn refused(refusal: Refusal, endorsers: &[Endorser]) -> Self {
        let [name, issuer, svn] = NAMES;
        let skipped = |name| Check::skipped(name, "there are no signed reference values to look at");
        let checks = vec![Check::from_result(name, Err(refusal)), skipped(issuer), skipped(svn)];
        Self { checks, measurements: (!endorsers.is_empty()).then(Vec::new), accepted: None }
    }
}

struct Context<'a> {
    endorsers: &'a [Endorser],
    tee: Tee,
    at: Timestamp,
}

/// One envelope, looked at.
struct Found {
    checks: Vec<Check>,
    info: Option<ReferenceInfo>,
    accepted: Option<Accepted>,
}

impl Found {
    fn counts(&self) -> bool {
        self.accepted.is_some()
    }

    fn conclude(self, endorsers: &[Endorser]) -> SignedValues {
        let measurements = self.accepted.is_some().then_some(self.info).flatten().map(|info| info.measurements);
        let measurements = (!endorsers.is_empty()).then(|| measurements.unwrap_or_default());
        SignedValues { checks: self.checks, measurements, accepted: self.accepted }
    }
}

impl Context<'_> {
    fn look_at(&self, bytes: &[u8]) -> Found {
        let [name, by_whom, svn] = NAMES;
        let binary = in_binary(bytes);
        let opened = self.open(&binary);
        let (envelope, info) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                let skipped = |name| Check::skipped(name, "the signed reference values are not to be believed");
                let checks = vec![Check::from_result(name, Err(refusal)), skipped(by_whom), skipped(svn)];
                return Found { checks, info: None, accepted: None };
            }
        };
        let (issuer, feed) = (envelope.issuer().as_str(), envelope.feed());
        let sentence = format!("reference values of {} launch digests, signed by {issuer}", info.measurements.len());
        let mut checks = vec![Check::from_result(name, Ok(sentence))];
        if self.endorsers.is_empty() {
            let nobody = format!(
                "nobody's signed reference values are expected: those of {issuer} about {feed:?} count for nothing"
            );
            checks.push(Check::skipped(by_whom, nobody));
            let sentence =
                format!("no security version is expected of signed reference values; theirs is {}", info.svn);
            checks.push(Check::skipped(svn, sentence));
            return Found { checks, info: Some(info), accepted: None };
        }
        let endorser = self.endorser(&envelope);
        let sentence = format!("{issuer} is trusted to sign reference values about {feed:?}");
        checks.push(Check::from_result(by_whom, endorser.as_ref().map(|_| sentence).map_err(Clone::clone)));
        let Ok(endorser) = endorser else {
            checks.push(Check::skipped(svn, "nobody who is trusted says the security version"));
            return Found { checks, info: Some(info), accepted: None };
        };
        let (found, least) = (info.svn, endorser.least_svn);
        let recent = found >= least;
        let old = || {
            let sentence = format!("the guest's security version is {found} by its signer, expected at least {least}");
            Refusal::new("reference-info-svn", sentence)
        };
        let sentence = format!("the guest's security version is {found} by its signer");
        checks.push(Check::from_result(svn, if recent { Ok(sentence) } else { Err(old()) }));
        let accepted = recent.then(|| Accepted {
            issuer: issuer.to_owned(),
            feed: feed.to_owned(),
            svn: found,
            signed_at: envelope.header().signing_time,
            measurements: info.measurements.len(),
        });
        Found { checks, info: Some(info), accepted }
    }

    /// Form, chain, signature, the issuer's name for the signer; and that the content is what this evidence needs.
    fn open<'a>(&self, bytes: &'a [u8]) -> Result<(VerifiedEnvelope<'a>, ReferenceInfo), Refusal> {
        let malformed = |sentence: String| Refusal::new("reference-info-malformed", sentence);
        let envelope = Envelope::parse(bytes).map_err(|error| malformed(with_causes(&error)))?;
        let signed_at = envelope.header().signing_time;
        if let Some(time) = signed_at.filter(|time| *time > self.at) {
            let sentence = format!("the reference values say to have been signed at {time}, after {}", self.at);
            return Err(Refusal::new("reference-info-time", sentence));
        }
        let envelope =
            envelope.verify(&Rules { validity: signed_at.map_or(Validity::LeafEnd, Validity::At), chain: &[] });
        let envelope = envelope.map_err(|error| {
            let code = if error.is_malformed() { "reference-info-malformed" } else { "reference-info-signature" };
            Refusal::new(code, with_causes(&error))
        })?;
        if envelope.content_type() != Some(ContentType::Text(REFERENCE_INFO_TYPE))
            || envelope.header().payload_hash.is_some()
        {
            return Err(malformed(format!("what was signed is not of type {REFERENCE_INFO_TYPE}")));
        }
        let info = ReferenceInfo::parse(envelope.payload()).map_err(|error| malformed(with_causes(&error)))?;
        if let Some(other) = envelope.svn().filter(|other| u64::try_from(*other) != Ok(info.svn)) {
            let sentence =
                format!("the security version is {other} in the envelope and {} in what was signed", info.svn);
            return Err(malformed(sentence));
        }
        if info.tee != self.tee {
            let sentence = "the signed reference values are of another TEE than the evidence";
            return Err(Refusal::new("reference-info-tee", sentence));
        }
        Ok((envelope, info))
    }

    /// Who of those that are trusted signed it.
    fn endorser(&self, envelope: &VerifiedEnvelope<'_>) -> Result<&Endorser, Refusal> {
        let (issuer, feed) = (envelope.issuer().as_str(), envelope.feed());
        let mut of_issuer = self.endorsers.iter().filter(|endorser| endorser.issuer.as_str() == issuer).peekable();
        if of_issuer.peek().is_none() {
            let sentence = format!("{issuer} is not among those who are trusted to sign reference values");
            return Err(Refusal::new("reference-info-issuer", sentence));
        }
        let endorser = of_issuer.find(|endorser| endorser.feed == feed).ok_or_else(|| {
            let sentence = format!("{issuer} is not trusted to sign reference values about {feed:?}");
            Refusal::new("reference-info-feed", sentence)
        })?;
        if endorser.in_force {
            let rules = Rules { validity: Validity::At(self.at), chain: &[] };
            let checked = envelope.envelope().verify_signature(&rules);
            checked.map_err(|error| Refusal::new("reference-info-expired", with_causes(&error)))?;
        }
        Ok(endorser)
    }
}

/// The envelope's bytes. Containers have them in base64.
fn in_binary(bytes: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).ok().map(|text| text.split_ascii_whitespace().collect::<String>());
    text.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_else(|| bytes.to_vec())
}
