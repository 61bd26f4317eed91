//! Fragments and trust lists: further pieces of policy.
//!
//! A fragment is asked about twice: by its envelope, before anything of its text is read (issuer, feed, version, receipts),
//! and with its text loaded as a module (version, framework, contents). Only what the rule for it includes counts.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{Decision, Framework, Verdict};
use crate::{
    denial::{Field, Reason, quoted},
    fragment::{Contents, svn},
    model::{Container, FragmentRule, Included, TrustListRule},
    request::{FragmentQuestion, TrustListQuestion, Vouched},
    state::{Change, FRAGMENT_PARAMETERS},
};

/// Required receipt that any ledger's satisfies.
const ANY: &str = "*";
/// Prefix of a required receipt that names a trust list by its subject.
const TRUST_LIST: &str = "TTL:";

impl Framework<'_> {
    /// The rules for fragments: the policy's and those of loaded fragments.
    fn fragment_rules(&self) -> impl Iterator<Item = &FragmentRule> {
        self.policy.fragments.iter().chain(self.state.loaded.fragments())
    }

    /// The rules for a fragment of this issuer and feed; there is one at least.
    fn rules_for(&self, question: &FragmentQuestion) -> Result<Vec<&FragmentRule>, Vec<Reason>> {
        let FragmentQuestion { issuer, feed, .. } = question;
        let rules: Vec<_> = self.fragment_rules().filter(|rule| rule.is_for(issuer, feed)).collect();
        if !rules.is_empty() {
            return Ok(rules);
        }
        let same_issuer = self.fragment_rules().filter(|rule| rule.issuer.as_ref() == Some(issuer));
        let feeds: Vec<_> = same_issuer.filter_map(|rule| rule.feed.as_ref()).collect();
        if !feeds.is_empty() {
            return Err(vec![Reason::new(Field::Feed, format!("one of {}", quoted(feeds)), feed)]);
        }
        let issuers = self.fragment_rules().filter_map(|rule| rule.issuer.as_ref());
        Err(vec![Reason::new(Field::Issuer, format!("one of {}", quoted(issuers)), issuer)])
    }

    /// Decides by a fragment's envelope; gives the parameters that it may be loaded with.
    pub(super) fn fragment_envelope(&self, question: &FragmentQuestion) -> Decision {
        let rules = self.rules_for(question)?;
        let problems = |rule: &&FragmentRule| -> Vec<Reason> {
            let least = rule.minimum_svn.as_ref();
            let version = question.has_header_svn.then_some(&question.header_svn);
            let old = version.filter(|version| !least.is_some_and(|least| svn::at_least(version, least)));
            old.map(|version| too_old(version, least))
                .into_iter()
                .chain(missing_receipts(rule, &question.receipts))
                .collect()
        };
        let problems: Vec<_> = rules.iter().map(problems).collect();
        if problems.iter().all(|problems| !problems.is_empty()) {
            return Err(problems.into_iter().flatten().collect());
        }
        let parameters = self.parameters_for(&question.issuer, &question.feed);
        Ok(Verdict { parameters: Some(parameters), ..Verdict::default() })
    }

    /// Every set of parameters that a fragment of this issuer and feed may be loaded with: from fragments that were loaded,
    /// then from the policy.
    fn parameters_for(&self, issuer: &str, feed: &str) -> Vec<Value> {
        let of_this = |given: &&Value| {
            given.get("issuer").and_then(Value::as_str) == Some(issuer)
                && given.get("feed").and_then(Value::as_str) == Some(feed)
        };
        let nested = self.state.sets.get(FRAGMENT_PARAMETERS).into_iter().flatten().filter(of_this);
        let nested = nested.filter_map(|given| given.get("parameters"));
        let own = self.policy.fragments.iter().filter(|rule| rule.is_for(issuer, feed));
        let own = own.filter_map(|rule| rule.parameters.as_ref()).filter(|value| **value != Value::Bool(false));
        nested.chain(own).cloned().collect()
    }

    /// Decides by a fragment's text.
    pub(super) fn fragment_contents(&self, question: &FragmentQuestion, contents: &Contents) -> Decision {
        let rules = self.rules_for(question)?;
        let new_enough = |rule: &&&FragmentRule| {
            rule.minimum_svn.as_ref().is_some_and(|least| version_ok(question, contents, least))
        };
        let fitting: Vec<_> = rules.iter().filter(new_enough).collect();
        if fitting.is_empty() {
            return Err(rules
                .iter()
                .map(|rule| version_reason(question, contents, rule.minimum_svn.as_ref()))
                .collect());
        }
        let wanted = format!("one that is declared, at most {}", crate::point::FRAMEWORK_VERSION);
        let framework =
            contents.framework().map_err(|found| vec![Reason::new(Field::FrameworkVersion, wanted, found)])?;
        let malformed = |error: String| vec![Reason::new(Field::Fragment, "contents of their types", error)];
        let parts = self.numbered(question, contents.parts(framework).map_err(malformed)?);
        let includes: BTreeSet<BTreeSet<&str>> = fitting.iter().filter_map(|rule| includes(rule)).collect();
        let mut includes = includes.into_iter();
        let Some(included) = includes.next() else {
            return Err(vec![Reason::new(
                Field::Policy,
                "a rule that says what a fragment includes",
                "one that does not",
            )]);
        };
        if includes.next().is_some() {
            let got = "several for this fragment, which include different things";
            return Err(vec![Reason::new(Field::Policy, "one rule for a fragment", got)]);
        }
        let names: Vec<_> = included.iter().map(|name| (*name).to_owned()).collect();
        let feeds = self.state.loaded.feeds_with(&question.issuer, &question.feed, parts.only(&names));
        let parameters = contents.fragment_rules().map_err(malformed)?;
        let parameters = parameters.iter().filter_map(given_parameters);
        let issuer = question.issuer.clone();
        let changes = std::iter::once(Change::SetIssuer { issuer, feeds }).chain(parameters).collect();
        Ok(Verdict { changes, add_module: Some(included.contains("namespace")), ..Verdict::default() })
    }

    /// The parts with numbers for their containers: that of an equal container of the same feed, else the next free one. So
    /// a fragment that is loaded twice does not start its containers twice as often.
    fn numbered(&self, question: &FragmentQuestion, mut parts: Included) -> Included {
        let json = |container: &Container| serde_json::to_value(container).unwrap_or_default();
        let known: Vec<_> = self
            .state
            .loaded
            .of_feed(&question.issuer, &question.feed)
            .flat_map(|included| included.containers.iter().flatten())
            .map(|container| (json(container), container.ordinal))
            .collect();
        let all = self.policy.own.iter().chain(self.state.loaded.containers());
        let mut next = all.filter_map(|container| container.ordinal).max().map_or(0, |last| last.saturating_add(1));
        for container in parts.containers.iter_mut().flatten() {
            let text = json(container);
            let same = known.iter().find(|(known, _)| *known == text).and_then(|(_, ordinal)| *ordinal);
            let ordinal = same.unwrap_or(next);
            if same.is_none() {
                next = next.saturating_add(1);
            }
            *container =
                Arc::new(Container { ordinal: Some(ordinal), of_fragment: true, ..Container::clone(container) });
        }
        parts
    }

    /// Decides which ledgers' keys a trust list may bring.
    pub(super) fn load_trust_list(&self, question: &TrustListQuestion) -> Decision {
        let TrustListQuestion { issuer, subject, svn: version, ledgers } = question;
        let rules = || self.policy.trust_lists.iter().chain(self.state.loaded.trust_lists());
        let is_for =
            |rule: &&TrustListRule| rule.issuer.as_ref() == Some(issuer) && rule.subject.as_ref() == Some(subject);
        let named: Vec<_> = rules().filter(is_for).collect();
        if named.is_empty() {
            let known = rules().map(|rule| format!("{:?} by {:?}", rule.subject.as_deref(), rule.issuer.as_deref()));
            let expected = format!("one of {}", quoted(known));
            return Err(vec![Reason::new(Field::Issuer, expected, format!("{subject:?} by {issuer:?}"))]);
        }
        let new_enough =
            |rule: &&&TrustListRule| rule.minimum_svn.as_ref().is_some_and(|least| svn::at_least(version, least));
        let fitting: Vec<_> = named.iter().filter(new_enough).collect();
        if fitting.is_empty() {
            return Err(named.iter().map(|rule| too_old(version, rule.minimum_svn.as_ref())).collect());
        }
        let allowed: BTreeSet<&String> =
            fitting.iter().flat_map(|rule| rule.allowed_ledgers.iter().flatten()).collect();
        let any = allowed.iter().any(|ledger| *ledger == ANY);
        let kept: BTreeSet<&String> = ledgers.iter().filter(|ledger| any || allowed.contains(ledger)).collect();
        if kept.is_empty() {
            let expected = format!("one of {} at least", quoted(allowed));
            return Err(vec![Reason::new(Field::Ledgers, expected, quoted(ledgers))]);
        }
        Ok(Verdict { ledgers: Some(kept.into_iter().cloned().collect()), ..Verdict::default() })
    }
}

/// What a rule includes, if it says so.
fn includes(rule: &FragmentRule) -> Option<BTreeSet<&str>> {
    rule.includes.as_ref().map(|includes| includes.iter().map(String::as_str).collect())
}

/// Whether a fragment is new enough: by its own version, which must be the envelope's where that has one, or else by the
/// envelope's. One of them must be there.
fn version_ok(question: &FragmentQuestion, contents: &Contents, least: &Value) -> bool {
    match (&contents.svn, question.has_header_svn) {
        (Some(own), false) => svn::at_least(own, least),
        (Some(own), true) => svn::same_number(&question.header_svn, own) && svn::at_least(own, least),
        (None, true) => svn::at_least(&question.header_svn, least),
        (None, false) => false,
    }
}

fn version_reason(question: &FragmentQuestion, contents: &Contents, least: Option<&Value>) -> Reason {
    let header = question.has_header_svn.then_some(&question.header_svn);
    match (&contents.svn, header) {
        (Some(own), Some(header)) if !svn::same_number(header, own) => {
            let expected = format!("{} as in the envelope", svn::shown(header));
            Reason::new(Field::Svn, expected, format!("{} in the text", svn::shown(own)))
        }
        (Some(version), _) => too_old(version, least),
        (None, Some(version)) => too_old(version, least),
        (None, None) => Reason::new(Field::Svn, "one in the envelope or the text", "none"),
    }
}

fn too_old(version: &Value, least: Option<&Value>) -> Reason {
    let expected = least.map_or_else(
        || "one that the policy names".to_owned(),
        |least| {
            let kind = if least.as_str().is_some_and(|text| text.contains('.')) { ", of the same form" } else { "" };
            format!("at least {}{kind}", svn::shown(least))
        },
    );
    Reason::new(Field::Svn, expected, svn::shown(version))
}

/// The required receipts that are not there.
fn missing_receipts<'r>(rule: &'r FragmentRule, receipts: &'r [Vouched]) -> impl Iterator<Item = Reason> {
    let there = |required: &&String| match required.strip_prefix(TRUST_LIST) {
        Some(subject) => receipts.iter().any(|receipt| receipt.ttl_subjects.iter().any(|known| known == subject)),
        None if *required == ANY => !receipts.is_empty(),
        None => receipts.iter().any(|receipt| receipt.issuer == **required),
    };
    let missing = rule.required_receipts.iter().flatten().filter(move |required| !there(required));
    let shown = || receipts.iter().map(|receipt| format!("{} ({})", receipt.issuer, receipt.ttl_subjects.join(", ")));
    missing.map(move |required| Reason::new(Field::Receipts, format!("one of {required}"), quoted(shown())))
}

/// What a rule for a further fragment gives it as parameters.
fn given_parameters(rule: &FragmentRule) -> Option<Change> {
    let (issuer, feed, parameters) = (rule.issuer.as_ref()?, rule.feed.as_ref()?, rule.parameters.as_ref()?);
    let value = json!({"issuer": issuer, "feed": feed, "parameters": parameters});
    (*parameters != Value::Bool(false)).then(|| Change::AddToSet { name: FRAGMENT_PARAMETERS.to_owned(), value })
}
