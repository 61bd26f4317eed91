//! Loading further pieces of policy: fragments, and lists of transparency ledgers whose receipts for them count.
//!
//! ```text
//!   envelope verified elsewhere ─▶ namespace ─▶ envelope's decision ─▶ once for each set of parameters:
//!                                                                     module ─▶ contents' decision ─▶ changes
//! ```
//!
//! All of it is tried on a copy of the memory. Nothing is changed unless every step is allowed and the grant is settled as
//! done.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{Answer, Enforcer, answer, guard};
use crate::{
    denial::{Denial, Field, Reason},
    document::MAX_TEXT,
    fragment::{Contents, LedgerKey, Module, namespace},
    framework::Verdict,
    permitted,
    point::Point,
    request::{self, FragmentQuestion, Request, TrustListQuestion, Vouched},
    state::{Change, State},
};

/// Most fragments that may be loaded, each counted once for each set of its parameters.
const MAX_LOADED: usize = 256;
/// Most sets of parameters that one fragment may be loaded with.
const MAX_PARAMETERS: usize = 64;
/// Most sets of parameters that loaded fragments may give to further ones.
const MAX_GIVEN: usize = 1024;
/// Most keys of ledgers.
const MAX_KEYS: usize = 4096;

impl Enforcer {
    /// May this fragment be loaded? The policy, or a fragment that is loaded, must have a rule for its issuer and feed; it
    /// must be new enough, have the receipts that the rule requires, and be of the framework here or an older one. What the
    /// rule includes then counts in every decision.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn load_fragment(&mut self, request: &request::LoadFragment) -> Answer<permitted::LoadFragment> {
        self.note(Point::LoadFragment, request);
        let (permit, changes) = self.decide_fragment(request).inspect_err(|denial| self.note_denial(denial))?;
        Ok(self.grant(permit, changes, guard::Change::Nothing, None))
    }

    /// What is permitted of a fragment, and how the memory changes.
    fn decide_fragment(
        &mut self,
        request: &request::LoadFragment,
    ) -> Result<(permitted::LoadFragment, Vec<Change>), Denial> {
        let point = Point::LoadFragment;
        self.check_settled(point)?;
        let deny = |field, expected: &str, got: String| Denial::new(point, vec![Reason::new(field, expected, got)]);
        if request.text.len() > MAX_TEXT {
            let expected = format!("at most {MAX_TEXT} bytes");
            return Err(deny(Field::Fragment, &expected, format!("{} bytes", request.text.len())));
        }
        let namespace = namespace(&request.text)
            .map_err(|got| deny(Field::Namespace, "`package NAME` as the first line, with a name that is free", got))?;
        let taken = self.state.modules.iter().find(|module| module.namespace == namespace);
        if taken.is_some_and(|module| !module.is_of(&request.issuer, &request.feed)) {
            return Err(deny(Field::Namespace, "a name that is free", format!("{namespace:?}, another fragment's")));
        }
        let mut question = self.question(request, namespace);
        let mut state = self.state.clone();
        let verdict = self.ask_about(&state, &question, None)?;
        let parameters = verdict.parameters.filter(|sets| !sets.is_empty()).unwrap_or_else(|| vec![json!({})]);
        if parameters.len() > MAX_PARAMETERS {
            let expected = format!("at most {MAX_PARAMETERS} sets of parameters");
            return Err(deny(Field::Fragment, &expected, parameters.len().to_string()));
        }
        question.fragment_loaded = true;
        let mut changes = verdict.changes;
        changes.iter().cloned().for_each(|change| state.apply(change));
        changes.extend(self.load_with_each(state, &question, &request.text, &parameters)?);
        let [issuer, feed] = [&request.issuer, &request.feed].map(Clone::clone);
        Ok((permitted::LoadFragment { issuer, feed, namespace: namespace.to_owned() }, changes))
    }

    /// What the policy is asked about a fragment's envelope. Receipts by keys that no trust list brought do not count.
    fn question(&self, request: &request::LoadFragment, namespace: &str) -> FragmentQuestion {
        let vouched = |receipt: &request::Receipt| {
            let key = self.ledger_keys(&receipt.ledger)?.get(&receipt.key_id)?;
            Some(Vouched { issuer: receipt.ledger.clone(), ttl_subjects: key.offered_by.clone() })
        };
        FragmentQuestion {
            issuer: request.issuer.clone(),
            feed: request.feed.clone(),
            namespace: Some(namespace.to_owned()),
            fragment_loaded: false,
            has_header_svn: request.header_svn.is_some(),
            header_svn: json!(request.header_svn),
            receipts: request.receipts.iter().filter_map(vouched).collect(),
        }
    }

    /// The changes of loading a fragment once with each set of parameters.
    fn load_with_each(
        &mut self,
        mut state: State,
        question: &FragmentQuestion,
        text: &str,
        parameters: &[Value],
    ) -> Result<Vec<Change>, Denial> {
        let deny = |field, expected: &str, got: &str| {
            Denial::new(Point::LoadFragment, vec![Reason::new(field, expected, got)])
        };
        let mut changes = Vec::new();
        for set in parameters {
            if !set.is_object() {
                return Err(deny(Field::Fragment, "parameters as an object", "something else in the policy's answer"));
            }
            let (verdict, module) = self.load_once(&state, question, text, set)?;
            let stays = verdict.add_module == Some(true);
            if stays && parameters.len() > 1 {
                let expected = "one set of parameters where a fragment's rules stay";
                return Err(deny(Field::Namespace, expected, &format!("{}", parameters.len())));
            }
            changes.extend(verdict.changes.iter().cloned());
            verdict.changes.into_iter().for_each(|change| state.apply(change));
            changes.extend(stays.then_some(Change::AddModule { module }));
        }
        let given = state.sets.values().map(Vec::len).fold(0, usize::saturating_add);
        if state.loaded.all().count() > MAX_LOADED || given > MAX_GIVEN {
            let expected = format!("at most {MAX_LOADED} loaded fragments and {MAX_GIVEN} sets of parameters");
            return Err(deny(Field::State, &expected, "more"));
        }
        Ok(changes)
    }

    /// What the policy says of a fragment that is loaded with these parameters, and its module.
    fn load_once(
        &mut self,
        state: &State,
        question: &FragmentQuestion,
        text: &str,
        parameters: &Value,
    ) -> Result<(Verdict, Arc<Module>), Denial> {
        let unreadable = |error: String| {
            Denial::new(Point::LoadFragment, vec![Reason::new(Field::Fragment, "a text that can be read", error)])
        };
        let namespace = question.namespace.as_deref().unwrap_or_default();
        let module = Module::parse(&question.issuer, &question.feed, namespace, text, parameters);
        let module = Arc::new(module.map_err(|error| unreadable(error.to_string()))?);
        let mut state = state.clone();
        state.apply(Change::AddModule { module: Arc::clone(&module) });
        let mut input = serde_json::to_value(question).unwrap_or_default();
        if let Some(fields) = input.as_object_mut() {
            fields.insert("rule".to_owned(), json!(Point::LoadFragment.name()));
        }
        let contents = answer::contents(&mut self.policy, &state, &module, &input);
        let contents = contents.map_err(|error| unreadable(error.to_string()))?;
        Ok((self.ask_about(&state, question, Some(&contents))?, module))
    }

    /// Asks the policy about a fragment, in a state that need not be the present one.
    fn ask_about(
        &mut self,
        state: &State,
        question: &FragmentQuestion,
        contents: Option<&Contents>,
    ) -> Result<Verdict, Denial> {
        let point = Point::LoadFragment;
        let input = self.input(point, question);
        let request = Request::LoadFragment(question, contents);
        answer::decide(&mut self.policy, &self.platform, state, point, request, &input)
            .map_err(|reasons| Denial::new(point, reasons))
    }

    /// May this trust list be loaded, and which of its ledgers count? Receipts then count that verify with their keys.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn load_transparency_trust_list(
        &mut self,
        request: &request::LoadTrustList,
    ) -> Answer<permitted::LoadTrustList> {
        let point = Point::LoadTransparencyTrustList;
        self.note(point, request);
        let question = TrustListQuestion {
            issuer: request.issuer.clone(),
            subject: request.subject.clone(),
            svn: json!(request.svn),
            ledgers: request.ledgers.keys().cloned().collect(),
        };
        let mut verdict = self.decide(point, Request::LoadTransparencyTrustList(&question), &question)?;
        let allowed = verdict.ledgers.take().unwrap_or_default();
        let mut keys = request.ledgers.clone();
        keys.retain(|ledger, _| allowed.contains(ledger));
        if keys.is_empty() {
            let reason = Reason::new(Field::Ledgers, "one at least that the policy allows", "none");
            return Err(Denial::new(point, vec![reason]));
        }
        let count = keys.values().map(BTreeMap::len).fold(self.guard.key_count(), usize::saturating_add);
        if count > MAX_KEYS {
            let reason = Reason::new(Field::Ledgers, format!("at most {MAX_KEYS} keys"), count.to_string());
            return Err(Denial::new(point, vec![reason]));
        }
        let ledgers = keys.keys().cloned().collect();
        let change = guard::Change::Learn { subject: request.subject.clone(), keys };
        Ok(self.grant(permitted::LoadTrustList { ledgers }, verdict.changes, change, None))
    }

    /// Keys of a ledger that receipts may verify with, by their identifiers: those that loaded trust lists brought.
    #[must_use]
    pub fn ledger_keys(&self, ledger: &str) -> Option<&BTreeMap<Vec<u8>, LedgerKey>> {
        self.guard.ledger_keys(ledger)
    }
}
