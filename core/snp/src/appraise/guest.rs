//! What the guest is, and what it was launched with.

use super::{Appraisal, Finding, require, wrong_bits};
use crate::binding::{Use, report_data};
use crate::bits::GuestPolicy;
use crate::check::Refusal;
use crate::event_log::EventLog;
use crate::examine::sha256;
use crate::expectations::ExpectedReportData;
use crate::report::HOST_VMPL;

/// Why what an ID block says does not count.
const UNTRUSTED_ID_BLOCK: &str =
    "no trusted key is known to have signed the ID block that says so: expect its ID key or author key";

impl Appraisal<'_> {
    pub(super) fn vmpl(&self) -> Finding {
        let expected = self.expected.vmpl;
        match self.claims.vmpl {
            HOST_VMPL => Finding::broken("host-requested", "the host asked for this report, not the guest"),
            found => require(
                found == expected,
                format!("the guest asked for the report at VMPL {found}"),
                "vmpl",
                format!("the report was asked for at VMPL {found}, expected {expected}"),
            ),
        }
    }

    pub(super) fn guest_policy(&self) -> Finding {
        let GuestPolicy(policy) = self.claims.guest_policy;
        let expected = self.expected.guest_policy;
        let refuse = |sentence: String| Finding::broken("guest-policy", sentence);
        if !self.claims.guest_policy.is_well_formed() {
            return refuse(format!("the guest policy {policy:#x} has reserved bits that are not as specified"));
        }
        if let Some(exact) = expected.exact.filter(|exact| *exact != policy) {
            return refuse(format!("the guest policy is {policy:#x}, expected {exact:#x}"));
        }
        if let Some(wrong) = wrong_bits(policy, expected.bits, GuestPolicy::names_in) {
            return refuse(format!("the guest policy {policy:#x} {wrong}"));
        }
        let ((major, minor), (least_major, least_minor)) = (self.claims.guest_policy.abi(), expected.least_abi);
        require(
            (major, minor) >= (least_major, least_minor),
            format!("the guest policy is {policy:#x}"),
            "guest-policy",
            format!("the guest policy asks for firmware ABI {major}.{minor}, expected {least_major}.{least_minor}"),
        )
    }

    pub(super) fn debug(&self) -> Finding {
        let allowed = self.claims.guest_policy.debug_allowed();
        require(
            !allowed,
            "the host may not debug the guest",
            "debug",
            "the host may read the guest's memory: debugging is allowed",
        )
    }

    /// With an agent, the guest may be moved to wherever the agent runs: only the one that the owner knows may be tied to it.
    pub(super) fn migration_agent(&self) -> Finding {
        let allowed = self.claims.guest_policy.migration_agent_allowed();
        let found = self.claims.report_id_ma;
        match (allowed, self.expected.migration_agent) {
            (true, Some(expected)) => require(
                found == expected,
                format!("the migration agent is {found}"),
                "migration-agent",
                format!("the migration agent is {found}, expected {expected}"),
            ),
            (true, None) => Finding::broken(
                "migration-agent",
                "a migration agent may be tied to the guest, and could move it to a weaker platform",
            ),
            (false, Some(_)) => {
                Finding::broken("migration-agent", "a migration agent is expected, and none may be tied to the guest")
            }
            (false, None) => require(
                found.iter().all(|&byte| byte == 0xff),
                "no migration agent may be tied to the guest",
                "migration-agent",
                format!("no migration agent may be tied to the guest, and REPORT_ID_MA is {found}"),
            ),
        }
    }

    /// Each list that was given must hold. AUTHOR_KEY_DIGEST is a claim only where AUTHOR_KEY_EN says that it counts.
    pub(super) fn id_block(&self) -> Finding {
        let lists = [
            ("ID key", self.claims.id_key_digest, &self.expected.id_keys),
            ("author key", self.claims.author_key_digest, &self.expected.author_keys),
        ];
        let mut said = Vec::new();
        for (what, found, trusted) in lists {
            match (found, trusted) {
                (_, None) => {}
                (Some(found), Some(trusted)) if trusted.contains(&found) => said.push(format!("{what} {found}")),
                (Some(found), Some(_)) => {
                    return Finding::broken(
                        "id-block",
                        format!("the {what} {found} is not among those that are trusted"),
                    );
                }
                (None, Some(_)) => {
                    return Finding::broken("id-block", format!("the guest has no ID block under an {what}"));
                }
            }
        }
        if said.is_empty() {
            return Finding::NotAsked("no ID block is expected");
        }
        Finding::Holds(format!("the guest's ID block was signed under {}", said.join(" and ")))
    }

    /// Whether a key that the owner trusts signed the ID block. What else is in it is the host's word: whoever launches a
    /// guest can make a key and sign any family, image and security version with it.
    fn has_trusted_id_block(&self) -> bool {
        matches!(self.id_block(), Finding::Holds(_))
    }

    pub(super) fn guest_image(&self) -> Finding {
        let ids = [
            ("family-id", "family", self.claims.family_id, self.expected.family_id),
            ("image-id", "image", self.claims.image_id, self.expected.image_id),
        ];
        let wrong = ids.into_iter().find_map(|(code, what, found, expected)| {
            let expected = expected.filter(|expected| *expected != found)?;
            Some(Refusal::new(code, format!("the guest is of {what} {found}, expected {expected}")))
        });
        match (wrong, self.expected.family_id.or(self.expected.image_id)) {
            (Some(refusal), _) => Finding::Broken(refusal),
            (None, Some(_)) if !self.has_trusted_id_block() => {
                let code = if self.expected.family_id.is_some() { "family-id" } else { "image-id" };
                Finding::broken(
                    code,
                    format!("family and image of the guest are as expected, but {UNTRUSTED_ID_BLOCK}"),
                )
            }
            (None, Some(_)) => Finding::Holds("family and image of the guest are as expected".to_owned()),
            (None, None) => Finding::NotAsked("neither family nor image of the guest is expected"),
        }
    }

    pub(super) fn instance(&self) -> Finding {
        let found = self.claims.report_id;
        match self.expected.report_id {
            Some(expected) => require(
                found == expected,
                format!("the guest is the instance {found}"),
                "report-id",
                format!("the guest is the instance {found}, expected {expected}: it was started anew, or is another"),
            ),
            None => Finding::NotAsked("any instance of the guest will do"),
        }
    }

    pub(super) fn guest_svn(&self) -> Finding {
        let found = self.claims.guest_svn;
        match self.expected.least_guest_svn {
            Some(least) if found >= least && !self.has_trusted_id_block() => Finding::broken(
                "guest-svn",
                format!("the guest's security version is said to be {found}, but {UNTRUSTED_ID_BLOCK}"),
            ),
            Some(least) => require(
                found >= least,
                format!("the guest's security version is {found}"),
                "guest-svn",
                format!("the guest's security version is {found}, expected at least {least}"),
            ),
            None => Finding::NotAsked("no security version of the guest is expected"),
        }
    }

    pub(super) fn policy_text(&self) -> Finding {
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

    pub(super) fn event_log(&self) -> Finding {
        let Some(text) = self.attached.event_log else {
            return Finding::NotAsked("no event log came with the evidence");
        };
        let refuse = |sentence: String| Finding::broken("event-log", sentence);
        let log = match EventLog::parse(text) {
            Ok(log) => log,
            Err(error) => return refuse(error.to_string()),
        };
        if log.policy != self.claims.host_data {
            return refuse(format!(
                "the event log is of a guest under policy {}, and HOST_DATA is another",
                log.policy
            ));
        }
        require(
            log.head.data() == self.attached.runtime_data,
            format!("the event log of {} events leads to the head that came along", log.events.len()),
            "event-log",
            "the event log does not lead to the head that came along: it is another one, or was changed",
        )
    }

    pub(super) fn nonce(&self) -> Finding {
        let (expected, what) = match &self.expected.report_data {
            Some(ExpectedReportData::Challenge(nonce)) => {
                let (purpose, what) = match self.attached.event_log {
                    None => (Use::Challenge, "the challenge's nonce"),
                    Some(_) => (Use::EventLog, "the challenge's nonce and the event log's head"),
                };
                (report_data(purpose, nonce, self.attached.runtime_data), what)
            }
            Some(ExpectedReportData::Exact(bytes)) => (*bytes, "the bytes expected"),
            Some(ExpectedReportData::Session(nonce)) => {
                (report_data(Use::OwnerChannel, nonce, self.attached.runtime_data), "the session's nonce and exporter")
            }
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

    pub(super) fn policy(&self) -> Finding {
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

    pub(super) fn measurement(&self) -> Finding {
        let found = self.claims.measurement;
        let endorsed = self.expected.endorsed_measurements.as_ref();
        if let Some(digests) = endorsed.filter(|digests| !digests.contains(&found)) {
            return Finding::broken(
                "measurement",
                format!(
                    "MEASUREMENT is {found}, not one of the {} launch digests in signed reference values that count: another \
                     guest was started",
                    digests.len()
                ),
            );
        }
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
            None if endorsed.is_some() => {
                Finding::Holds("MEASUREMENT is a launch digest in the signed reference values".to_owned())
            }
            // The firmware has compared the digest with the one in the ID block, which the trusted key signed. But a key signs
            // more than one guest in its life: which one is meant, and from which security version on, is for the owner to say.
            None if self.has_trusted_id_block() && self.expected.names_a_guest() => {
                Finding::Holds(format!("MEASUREMENT is {found}, as the ID block says that a trusted key signed"))
            }
            None if self.has_trusted_id_block() => Finding::NothingExpected(
                "no launch digest was given, and a trusted key's ID block stands for one only along with family, image \
                 and least security version: any guest that the key ever signed may run",
            ),
            None => Finding::NothingExpected("no launch digest was given: any guest may run"),
        }
    }
}
