//! What fragments have brought: `data.metadata.issuers`.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use serde_json::{Map, Value, json};

use super::Included;
use crate::{
    model::{Container, ExternalProcess, FragmentRule, PlatformRule, TrustListRule},
    policy::{Policy, with_platform_rules},
};

/// What the fragments of one issuer have brought: feed to each of them, the last first.
pub(crate) type Feeds = BTreeMap<String, Vec<Arc<Included>>>;

/// What all fragments have brought, by issuer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    issuers: BTreeMap<String, Feeds>,
    /// Containers that may run, with those of the policy: computed when first asked for.
    candidates: OnceLock<Vec<Arc<Container>>>,
}

impl Loaded {
    pub(super) fn set(&mut self, issuer: String, feeds: Feeds) {
        self.issuers.insert(issuer, feeds);
        self.forget_candidates();
    }

    pub(super) fn remove(&mut self, issuer: &str) {
        self.issuers.remove(issuer);
        self.forget_candidates();
    }

    /// Forgets what was computed, since the policy or its fragments have changed.
    pub(crate) fn forget_candidates(&mut self) {
        self.candidates = OnceLock::new();
    }

    /// An issuer's feeds with one more fragment.
    pub(crate) fn feeds_with(&self, issuer: &str, feed: &str, included: Included) -> Feeds {
        let mut feeds = self.issuers.get(issuer).cloned().unwrap_or_default();
        feeds.entry(feed.to_owned()).or_default().insert(0, Arc::new(included));
        feeds
    }

    /// What the fragments of one feed have brought.
    pub(crate) fn of_feed(&self, issuer: &str, feed: &str) -> impl Iterator<Item = &Included> {
        self.issuers.get(issuer).and_then(|feeds| feeds.get(feed)).into_iter().flatten().map(|included| &**included)
    }

    /// What each fragment has brought.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Included> {
        self.issuers.values().flat_map(BTreeMap::values).flatten().map(|included| &**included)
    }

    /// Containers that may run: the policy's and the fragments', each with what each platform may add.
    pub(crate) fn candidates<'s>(&'s self, policy: &'s Policy) -> &'s [Arc<Container>] {
        if self.issuers.is_empty() {
            return &policy.candidates;
        }
        self.candidates.get_or_init(|| {
            let platforms: Vec<PlatformRule> =
                policy.platform_rules.iter().chain(self.platform_rules()).cloned().collect();
            with_platform_rules(policy.own.iter().chain(self.containers()), &platforms)
        })
    }

    pub(crate) fn containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.all().flat_map(|included| included.containers.iter().flatten())
    }

    fn platform_rules(&self) -> impl Iterator<Item = &PlatformRule> {
        self.all().flat_map(|included| included.platform_rules.iter().flatten())
    }

    pub(crate) fn external_processes(&self) -> impl Iterator<Item = &ExternalProcess> {
        self.all().flat_map(|included| included.external_processes.iter().flatten())
    }

    pub(crate) fn fragments(&self) -> impl Iterator<Item = &FragmentRule> {
        self.all().flat_map(|included| included.fragments.iter().flatten())
    }

    pub(crate) fn trust_lists(&self) -> impl Iterator<Item = &TrustListRule> {
        self.all().flat_map(|included| included.transparency_trust_lists.iter().flatten())
    }

    /// As documents read it.
    pub(super) fn to_json(&self) -> Value {
        self.issuers.iter().map(|(issuer, feeds)| (issuer.clone(), write_feeds(feeds))).collect::<Map<_, _>>().into()
    }
}

/// An issuer's entry as documents read it.
pub(super) fn write_feeds(feeds: &Feeds) -> Value {
    // What fragments brought came from JSON and goes back to it.
    let included = |included: &Arc<Included>| serde_json::to_value(&**included).unwrap_or_default();
    let feeds = feeds.iter().map(|(feed, all)| (feed.clone(), all.iter().map(included).collect()));
    json!({"feeds": feeds.collect::<Map<_, _>>()})
}

/// The inverse of [`write_feeds`]; absent if it is no such entry.
pub(super) fn read_feeds(entry: &Value) -> Option<Feeds> {
    let feeds = entry.get("feeds")?.as_object()?.iter().map(|(feed, all)| {
        let included: Vec<Included> = serde_json::from_value(all.clone()).ok()?;
        Some((feed.clone(), included.into_iter().map(Arc::new).collect()))
    });
    feeds.collect()
}
