//! One fuzz target for each parser of hostile bytes: what it does with any bytes, and bytes to start from.
//!
//! Trusts nothing that a target is given. Promises that a target returns on any input unless a parser panics, loops,
//! or breaks a property stated here (mostly: what was accepted is written and read back the same). Refuses nothing:
//! being refused is the parser's ordinary answer.
//!
//! The same functions run under libFuzzer (`main.rs`) and, over mutated seeds, as plain tests (`tests/replay.rs`).

mod archives;
mod endorsement;
mod envelopes;
mod fixtures;
mod foreign;
mod fragments;
mod host;
mod images;
mod launch;
mod layers;
mod messages;
pub mod mutation;
mod owners;
mod policies;
mod ports;
mod processor;
mod references;
mod registry;
mod sections;
mod signed;
mod tools;

/// One parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name of the target, its program and its corpus folder.
    pub name: &'static str,
    /// Runs the parser over any bytes; panics if a property does not hold.
    pub run: fn(&[u8]),
    /// Well-formed inputs, made by the crates' own writers.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Files of the fixtures that are inputs too, where the fixtures are there.
    pub fixtures: &'static [&'static str],
    /// Inputs to replay in a plain test; fewer where one takes long.
    pub rounds: u32,
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    host::AGENT_CONTENTS,
    ports::AGENT_REPLIES,
    ports::AGENT_REQUESTS,
    foreign::ANY_EVIDENCE,
    archives::ARCHIVE_IMAGE,
    images::ARCHIVE_MANIFEST,
    archives::ARCHIVE_TAR,
    foreign::AZURE_EVIDENCE,
    envelopes::CBOR,
    endorsement::CERTIFICATE,
    endorsement::CERTIFICATE_TABLE,
    foreign::COLLATERAL,
    references::CORIM,
    envelopes::DID_X509,
    envelopes::ENVELOPE,
    owners::EVENT_LOG,
    endorsement::EVIDENCE_FILE,
    processor::GUEST_LINK,
    host::GUEST_MANIFEST,
    launch::ID_BLOCK,
    images::IMAGE_CONFIG,
    policies::IMAGE_POLICY,
    archives::LAYER_STREAM,
    layers::LAYER_TAR,
    host::LOG_FILE,
    images::MANIFEST,
    launch::OVMF,
    owners::OWNER_REQUESTS,
    fragments::POLICY_FRAGMENT,
    tools::POLICY_INPUT,
    tools::POLICY_RECORD,
    policies::POLICY_REQUESTS,
    policies::POLICY_TEXT,
    processor::PROCESSOR_LINK,
    messages::PROTOCOL_FRAME,
    host::QMP,
    foreign::QUOTE,
    images::REFERENCE,
    references::REFERENCE_INFO,
    registry::REGISTRY_ANSWERS,
    endorsement::REPORT,
    endorsement::REVOCATION_LIST,
    envelopes::SIGNED_ENVELOPE,
    signed::SIGNED_EVIDENCE,
    envelopes::SIGNER_CERTIFICATE,
    messages::SP_FRAME,
    messages::SP_MESSAGE,
    layers::SUPERBLOCK,
    foreign::TOKEN,
    images::USER_FILES,
    layers::VERITY_DEVICE,
    images::WORDS,
];

impl Target {
    /// Seeds and fixtures.
    #[must_use]
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let mut corpus = (self.seeds)();
        corpus.extend(self.fixtures.iter().filter_map(|path| fixtures::read(path)));
        corpus
    }
}
