//! The appraisal: authentic claims held against the owner's expectations.

mod guest;
mod platform;

use crate::check::{Check, Refusal, Verdict};
use crate::claims::Claims;
use crate::examine::Rules;
pub use crate::expectations::{
    Attached, Expectations, ExpectedBits, ExpectedGuestPolicy, ExpectedReportData, Minimum, Profile,
};
use crate::time::Timestamp;

impl Profile {
    /// The rules of examination that go with the profile.
    #[must_use]
    pub const fn rules(self, at: Timestamp) -> Rules {
        Rules { at, require_crl: matches!(self, Self::Strict), crl_at_least: 0 }
    }
}

impl Expectations {
    /// The rules of examination that go with these expectations under `profile`.
    #[must_use]
    pub const fn rules(&self, profile: Profile, at: Timestamp) -> Rules {
        let of_profile = profile.rules(at);
        let require_crl = match self.require_crl {
            Some(required) => required,
            None => of_profile.require_crl,
        };
        Rules { at, require_crl, crl_at_least: self.least_crl_number }
    }
}

/// The checks of an appraisal, in order. The last ones say what runs; see [`CONCLUSIVE`].
pub const APPRAISAL: [&str; 24] = [
    "vmpl",
    "guest-policy",
    "debug",
    "migration-agent",
    "platform-info",
    "provisional-firmware",
    "minimum-version",
    "alias-check",
    "tcb-order",
    "minimum-tcb",
    "minimum-firmware",
    "mitigations",
    "product-lines",
    "chip",
    "provider",
    "id-block",
    "guest-image",
    "guest-svn",
    "instance",
    "policy-text",
    "event-log",
    "nonce",
    "policy",
    "measurement",
];

/// The checks without which evidence is "authentic, not appraised", as far as its kind has them.
pub const CONCLUSIVE: [&str; 4] = ["nonce", "policy", "measurement", "pcrs"];

/// Appraises `claims`: one check for each of [`APPRAISAL`].
#[must_use]
pub fn appraise(claims: &Claims, attached: &Attached<'_>, expected: &Expectations, profile: Profile) -> Vec<Check> {
    let appraisal = Appraisal { claims, attached, expected, strict: profile == Profile::Strict };
    let findings = [
        appraisal.vmpl(),
        appraisal.guest_policy(),
        appraisal.debug(),
        appraisal.migration_agent(),
        appraisal.platform_info(),
        appraisal.provisional_firmware(),
        appraisal.minimum_version(),
        appraisal.alias_check(),
        appraisal.tcb_order(),
        appraisal.minimum_tcb(),
        appraisal.minimum_firmware(),
        appraisal.mitigations(),
        appraisal.product_lines(),
        appraisal.chip(),
        appraisal.provider(),
        appraisal.id_block(),
        appraisal.guest_image(),
        appraisal.guest_svn(),
        appraisal.instance(),
        appraisal.policy_text(),
        appraisal.event_log(),
        appraisal.nonce(),
        appraisal.policy(),
        appraisal.measurement(),
    ];
    let to_check = |(name, finding)| match finding {
        Finding::Holds(sentence) => Check { name, verdict: Verdict::Ok, code: None, sentence },
        Finding::Broken(refusal) => Check::from_result(name, Err(refusal)),
        Finding::NotAsked(sentence) => Check::not_applicable(name, sentence),
        Finding::NothingExpected(sentence) => Check::skipped(name, sentence),
    };
    APPRAISAL.into_iter().zip(findings).map(to_check).collect()
}

/// The checks of an appraisal, for evidence that is not authentic: none is made.
#[must_use]
pub fn not_appraised() -> Vec<Check> {
    APPRAISAL.map(|name| Check::skipped(name, "the evidence is not authentic")).to_vec()
}

struct Appraisal<'a> {
    claims: &'a Claims,
    attached: &'a Attached<'a>,
    expected: &'a Expectations,
    strict: bool,
}

/// How one check of an appraisal ends.
enum Finding {
    Holds(String),
    Broken(Refusal),
    NotAsked(&'static str),
    NothingExpected(&'static str),
}

const NOT_IN_PROFILE: Finding = Finding::NothingExpected("skipped by policy: the profile does not ask for it");

impl Finding {
    fn broken(code: &str, sentence: impl Into<String>) -> Self {
        Self::Broken(Refusal::new(code, sentence))
    }
}

/// `Holds` with the first sentence where `condition` holds, else `Broken` with the code and the second.
fn require(condition: bool, holds: impl Into<String>, code: &str, broken: impl Into<String>) -> Finding {
    if condition { Finding::Holds(holds.into()) } else { Finding::broken(code, broken) }
}

/// What is wrong with `found`, in words; `None` where it is as `expected`.
fn wrong_bits(found: u64, expected: ExpectedBits, names: fn(u64) -> Vec<String>) -> Option<String> {
    let (missing, excess) = (expected.required & !found, expected.forbidden & found);
    let say = |mask: u64, what: &str| (mask != 0).then(|| format!("{what} {}", names(mask).join(", ")));
    let said: Vec<String> = [say(missing, "lacks"), say(excess, "has")].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", and "))
}
