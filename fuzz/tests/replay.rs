//! Every target without libFuzzer: its seeds, inputs that once failed (`found`) or do (`artifacts`), and mutations of all.
//!
//! The same inputs in each run: a failure here is one for everybody. `CAVEAU_FUZZ_ROUNDS=20` makes it 20 times as many.

use std::collections::BTreeSet;
use std::path::Path;

use caveau_fuzz::mutation::Mutation;
use caveau_fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Runs one target over everything there is for it.
fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("the test is named for a target");
    let mut corpus = target.corpus();
    assert!(!corpus.is_empty(), "{name} has nothing to start from");
    for folder in ["found", "artifacts"] {
        corpus.extend(files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name)));
    }
    (target.run)(&[]);
    corpus.iter().for_each(|input| (target.run)(input));
    mutate(target, &corpus);
}

/// The files of a folder; none where it does not exist.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a kept input can be read")).collect()
}

fn mutate(target: &Target, corpus: &[Vec<u8>]) {
    let factor: u32 = std::env::var("CAVEAU_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let config = Config { cases: target.rounds.saturating_mul(factor), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let inputs = (any::<Index>(), proptest::collection::vec(Mutation::any(), 1..6));
    runner
        .run(&inputs, |(seed, mutations)| {
            let mut input = seed.get(corpus).clone();
            mutations.iter().for_each(|mutation| mutation.apply(&mut input, corpus));
            (target.run)(&input);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{}: {failure}", target.name));
}

/// One test for each target, so that they run side by side and a failure names its parser.
macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn each_target_has_a_test_and_a_description() {
            let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(targets, BTreeSet::from([$(stringify!($name)),*]));
            let readme = include_str!("../README.md");
            for name in targets {
                assert!(readme.contains(&format!("`{name}`")), "README.md does not say what {name} is");
            }
        }
    };
}

replays! {
    agent_contents agent_replies agent_requests any_evidence archive_image archive_manifest archive_tar azure_evidence cbor
    certificate certificate_table collateral corim did_x509 envelope event_log evidence_file guest_link guest_manifest id_block
    image_config image_policy layer_stream layer_tar log_file manifest ovmf owner_requests policy_fragment policy_input
    policy_record policy_requests policy_text processor_link protocol_frame qmp quote reference reference_info registry_answers
    report revocation_list signed_envelope signed_evidence signer_certificate sp_frame sp_message superblock token
    user_files verity_device words
}

/// A seed that is refused at its first byte starts nothing: each must get through its parser.
#[test]
fn seeds_are_well_formed() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            (target.run)(&seed);
        }
    }
    let accepted = |name: &str, accepts: fn(&[u8]) -> bool| {
        let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
        assert!((target.seeds)().iter().all(|seed| accepts(seed)), "{name} has a seed that is refused");
    };
    accepted("report", |seed| caveau_snp::report::Report::parse(seed).is_ok());
    accepted("certificate", |seed| caveau_snp::certificate::Certificate::parse(seed).is_ok());
    accepted("revocation_list", |seed| caveau_snp::crl::Crl::parse(seed).is_ok());
    accepted("evidence_file", |seed| caveau_evidence::Evidence::parse(seed).is_ok());
    accepted("event_log", |seed| caveau_snp::event_log::EventLog::parse(seed).is_ok());
    accepted("corim", |seed| caveau_evidence::corim::Corim::parse(seed).is_ok());
    accepted("reference_info", |seed| caveau_evidence::ReferenceInfo::parse(seed).is_ok());
    accepted("image_config", |seed| caveau_oci::ImageConfig::parse(seed).is_ok());
    accepted("archive_manifest", |seed| caveau_oci::parse_archive_manifest(seed).is_ok());
    accepted("superblock", |seed| caveau_verity::Superblock::parse(seed).is_ok());
    accepted("reference", |seed| {
        std::str::from_utf8(seed).is_ok_and(|text| caveau_oci::Reference::parse(text).is_ok())
    });
    accepted("policy_text", |seed| {
        std::str::from_utf8(seed).is_ok_and(|text| caveau_policy::Policy::parse(text).is_ok())
    });
    accepted("protocol_frame", |seed| {
        let frame = caveau_protocol::read_frame(&mut &*seed);
        frame.is_ok_and(|frame| frame.is_some_and(|frame| frame.header::<caveau_protocol::RequestEnvelope>().is_ok()))
    });
}
