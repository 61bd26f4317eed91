//! The appraisal: authentic claims held against the owner's expectations.

use crate::binding::{Use, report_data};
use crate::bits::GuestPolicy;
use crate::check::{Check, Refusal, Verdict};
use crate::claims::{Claims, TeeClass};
use crate::examine::{Rules, sha256};
pub use crate::expectations::{Attached, Expectations, ExpectedReportData, Profile};
use crate::minima::{least_firmware, least_snp_level};
use crate::product::{Product, ProductLine};
use crate::report::{HOST_VMPL, SigningKey};
use crate::tcb::Tcb;
use crate::time::Timestamp;

impl Profile {
    /// The rules of examination that go with the profile.
    #[must_use]
    pub const fn rules(self, at: Timestamp) -> Rules {
        Rules { at, require_crl: matches!(self, Self::Strict), crl_at_least: 0 }
    }
}

/// The checks of an appraisal, in order. The last ones say what runs; see [`CONCLUSIVE`].
pub const APPRAISAL: [&str; 20] = [
    "vmpl",
    "guest-policy",
    "debug",
    "migration-agent",
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
    "guest-svn",
    "policy-text",
    "nonce",
    "policy",
    "measurement",
];

/// The checks without which evidence is "authentic, not appraised".
pub const CONCLUSIVE: [&str; 3] = ["nonce", "policy", "measurement"];

/// Appraises `claims`: one check for each of [`APPRAISAL`].
#[must_use]
pub fn appraise(claims: &Claims, attached: &Attached<'_>, expected: &Expectations, profile: Profile) -> Vec<Check> {
    let appraisal = Appraisal { claims, attached, expected, strict: profile == Profile::Strict };
    let findings = [
        appraisal.vmpl(),
        appraisal.guest_policy(),
        appraisal.debug(),
        appraisal.migration_agent(),
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
        appraisal.guest_svn(),
        appraisal.policy_text(),
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

const NOT_IN_PROFILE: Finding = Finding::NotAsked("the profile does not ask for it");

/// `Holds` with the first sentence where `condition` holds, else `Broken` with the code and the second.
fn require(condition: bool, holds: impl Into<String>, code: &str, broken: impl Into<String>) -> Finding {
    if condition { Finding::Holds(holds.into()) } else { Finding::Broken(Refusal::new(code, broken)) }
}

impl Appraisal<'_> {
    fn vmpl(&self) -> Finding {
        match self.claims.vmpl {
            0 => Finding::Holds("the guest asked for the report at VMPL 0".to_owned()),
            HOST_VMPL => {
                Finding::Broken(Refusal::new("host-requested", "the host asked for this report, not the guest"))
            }
            other => {
                Finding::Broken(Refusal::new("vmpl", format!("the report was asked for at VMPL {other}, expected 0")))
            }
        }
    }

    fn guest_policy(&self) -> Finding {
        let GuestPolicy(policy) = self.claims.guest_policy;
        let form = self.claims.guest_policy.is_well_formed();
        match self.expected.guest_policy {
            Some(expected) => require(
                form && policy == expected,
                format!("the guest policy is {policy:#x}, as expected"),
                "guest-policy",
                format!("the guest policy is {policy:#x}, expected {expected:#x}"),
            ),
            None => require(
                form,
                format!("the guest policy is {policy:#x}"),
                "guest-policy",
                format!("the guest policy {policy:#x} has reserved bits that are not as specified"),
            ),
        }
    }

    fn debug(&self) -> Finding {
        let allowed = self.claims.guest_policy.debug_allowed();
        require(
            !allowed,
            "the host may not debug the guest",
            "debug",
            "the host may read the guest's memory: debugging is allowed",
        )
    }

    fn migration_agent(&self) -> Finding {
        let allowed = self.claims.guest_policy.migration_agent_allowed();
        let broken = "a migration agent may be tied to the guest, and could move it to a weaker platform";
        require(!allowed, "no migration agent may be tied to the guest", "migration-agent", broken)
    }

    fn provisional_firmware(&self) -> Finding {
        let Claims { committed_tcb, current_tcb, committed_firmware, current_firmware, .. } = self.claims;
        if self.expected.allow_provisional_firmware {
            return Finding::NotAsked("provisional firmware is allowed");
        }
        require(
            committed_tcb == current_tcb && committed_firmware == current_firmware,
            "the firmware that runs cannot be rolled back",
            "provisional-firmware",
            format!(
                "the firmware that runs ({current_firmware}; {current_tcb}) can still be rolled back to ({committed_firmware}; {committed_tcb})"
            ),
        )
    }

    fn minimum_version(&self) -> Finding {
        let version = self.claims.report_version;
        if !self.strict {
            return NOT_IN_PROFILE;
        }
        let broken =
            format!("the report's version is {version}, expected at least 3: it does not sign the product line");
        require(version >= 3, format!("the report's version is {version}"), "minimum-version", broken)
    }

    fn alias_check(&self) -> Finding {
        if !self.strict {
            return NOT_IN_PROFILE;
        }
        let broken =
            "the platform has not checked its memory for aliases (BadRAM, AMD-SB-3015): its firmware needs an update";
        let complete = self.claims.platform_info.alias_check_complete();
        require(complete, "the platform has checked its memory for aliases", "alias-check", broken)
    }

    fn tcb_order(&self) -> Finding {
        let Claims { reported_tcb, committed_tcb, current_tcb, .. } = self.claims;
        if !self.strict {
            return NOT_IN_PROFILE;
        }
        require(
            committed_tcb.at_least(*reported_tcb) && current_tcb.at_least(*committed_tcb),
            "the TCB that is reported is not above the one committed, nor that above the current one",
            "tcb-order",
            format!(
                "reported TCB ({reported_tcb}), committed ({committed_tcb}) and current ({current_tcb}) do not rise"
            ),
        )
    }

    fn minimum_tcb(&self) -> Finding {
        let of_line =
            least_snp_level(self.claims.product).filter(|_| self.strict).map(|snp| Tcb { snp, ..Tcb::default() });
        let minima: Vec<Tcb> = [of_line, self.expected.least_tcb].into_iter().flatten().collect();
        let Claims { reported_tcb, launch_tcb, .. } = self.claims;
        if minima.is_empty() {
            return Finding::NotAsked("no least TCB is known for this product line, and none was given");
        }
        let met = |tcb: &Tcb| minima.iter().all(|minimum| tcb.at_least(*minimum));
        let wanted = minima.iter().map(ToString::to_string).collect::<Vec<_>>().join("; and ");
        require(
            met(reported_tcb) && met(launch_tcb),
            format!("the TCB is at least ({wanted})"),
            "minimum-tcb",
            format!("the TCB reported ({reported_tcb}) or at launch ({launch_tcb}) is below ({wanted})"),
        )
    }

    fn minimum_firmware(&self) -> Finding {
        let Some(least) = least_firmware(self.claims.product).filter(|_| self.strict) else {
            return Finding::NotAsked(
                "no least firmware is known for this product line, or the profile does not ask for one",
            );
        };
        let Claims { committed_firmware, current_firmware, .. } = self.claims;
        require(
            *committed_firmware >= least && *current_firmware >= least,
            format!("the firmware is at least {least}"),
            "minimum-firmware",
            format!("the firmware (current {current_firmware}, committed {committed_firmware}) is below {least}"),
        )
    }

    fn mitigations(&self) -> Finding {
        let required = self.expected.mitigations;
        if required == 0 {
            return Finding::NotAsked("no mitigation was asked for");
        }
        let has = |vector: Option<u64>| vector.is_some_and(|vector| vector & required == required);
        let both = has(self.claims.launch_mit_vector) && has(self.claims.current_mit_vector);
        let broken = format!("the mitigations {required:#x} were not all there at launch, or are not now");
        require(both, format!("the mitigations {required:#x} are there"), "mitigations", broken)
    }

    fn product_lines(&self) -> Finding {
        let name = self.claims.product.name();
        match &self.expected.product_lines {
            Some(lines) => require(
                lines.contains(&self.claims.product),
                format!("{name} may be used"),
                "product-line-refused",
                format!("{name} is not among the product lines that may be used"),
            ),
            None => Finding::NotAsked("any product line may be used"),
        }
    }

    /// For Milan, whose root of endorsement keys is said to be extractable by software (BadFuse, arXiv 2605.12990), the strict
    /// profile wants to be told which chips may be used.
    fn chip(&self) -> Finding {
        let milan =
            self.claims.product == Product::Line(ProductLine::Milan) && self.claims.tee_class == TeeClass::Hardware;
        match (&self.claims.chip_id, &self.expected.chips) {
            (Some(chip), Some(chips)) => require(
                chips.contains(chip),
                "the chip may be used",
                "chip-refused",
                format!("chip {chip} is not among those that may be used"),
            ),
            (None, Some(_)) => Finding::Broken(Refusal::new(
                "chip-masked",
                "the platform hides which chip it is, and only some may be used",
            )),
            (Some(_), None) if milan && self.strict => Finding::Broken(Refusal::new(
                "chip-list-needed",
                "endorsement keys of Milan may have leaked (BadFuse): say which chips may be used, or use the baseline profile",
            )),
            (Some(_), None) => Finding::NotAsked("any chip may be used"),
            (None, None)
                if self.expected.allow_masked_chip || !self.strict || self.claims.signing_key == SigningKey::Vlek =>
            {
                Finding::NotAsked("the platform may hide which chip it is")
            }
            (None, None) => Finding::Broken(Refusal::new("chip-masked", "the platform hides which chip it is")),
        }
    }

    fn provider(&self) -> Finding {
        match (&self.claims.provider, &self.expected.provider) {
            (None, None) => Finding::NotAsked("a chip's own key signed, and no provider is expected"),
            (Some(found), Some(expected)) => require(
                found == expected,
                format!("the provider is {found}"),
                "provider",
                format!("the provider is {found}, expected {expected}"),
            ),
            (None, Some(expected)) => {
                let sentence = format!("a chip's own key signed, expected one of provider {expected}");
                Finding::Broken(Refusal::new("provider", sentence))
            }
            (Some(found), None) if self.strict => {
                let sentence = format!("a key of provider {found} signed: say whether that provider is meant");
                Finding::Broken(Refusal::new("provider", sentence))
            }
            (Some(_), None) => NOT_IN_PROFILE,
        }
    }

    fn id_block(&self) -> Finding {
        let Some(trusted) = &self.expected.id_keys else {
            return Finding::NotAsked("no ID block is expected");
        };
        let author = self.claims.author_key_digest.filter(|digest| trusted.contains(digest));
        let signer = author.or(self.claims.id_key_digest.filter(|digest| trusted.contains(digest)));
        match signer {
            Some(signer) => Finding::Holds(format!("the guest's ID block was signed under {signer}")),
            None => {
                Finding::Broken(Refusal::new("id-block", "no key that is trusted signed an ID block for this guest"))
            }
        }
    }

    fn guest_svn(&self) -> Finding {
        let found = self.claims.guest_svn;
        match self.expected.least_guest_svn {
            Some(least) => require(
                found >= least,
                format!("the guest's security version is {found}"),
                "guest-svn",
                format!("the guest's security version is {found}, expected at least {least}"),
            ),
            None => Finding::NotAsked("no security version of the guest is expected"),
        }
    }

    fn policy_text(&self) -> Finding {
        match self.attached.policy {
            Some(text) => require(
                sha256(text) == self.claims.host_data,
                "the policy that came with the evidence is the one that the guest enforces",
                "policy-text",
                "the policy that came with the evidence is not the one whose digest the report has as HOST_DATA",
            ),
            None => Finding::NotAsked("no policy came with the evidence"),
        }
    }

    fn nonce(&self) -> Finding {
        let (expected, what) = match &self.expected.report_data {
            Some(ExpectedReportData::Challenge(nonce)) => {
                (report_data(Use::Challenge, nonce, self.attached.runtime_data), "the challenge's nonce")
            }
            Some(ExpectedReportData::Exact(bytes)) => (*bytes, "the bytes expected"),
            None => return Finding::NothingExpected("no nonce was given: this evidence may be old"),
        };
        let found = self.claims.report_data;
        require(
            found == expected,
            format!("REPORT_DATA is {what}"),
            "report-data",
            format!("REPORT_DATA is {found}, which is not {what}: expected {expected}"),
        )
    }

    fn policy(&self) -> Finding {
        let found = self.claims.host_data;
        match self.expected.policy_digest {
            Some(expected) => require(
                found == expected,
                format!("HOST_DATA is the policy's digest, {found}"),
                "host-data",
                format!("HOST_DATA is {found}, expected the policy's digest {expected}: another policy is enforced"),
            ),
            None => Finding::NothingExpected("no policy was given: whatever the enforced policy allows may run"),
        }
    }

    fn measurement(&self) -> Finding {
        let found = self.claims.measurement;
        match &self.expected.measurements {
            Some(digests) => require(
                digests.contains(&found),
                "MEASUREMENT is the launch digest expected",
                "measurement",
                format!(
                    "MEASUREMENT is {found}, not one of the {} launch digests expected: another guest was started",
                    digests.len()
                ),
            ),
            None => Finding::NothingExpected("no launch digest was given: any guest may run"),
        }
    }
}
