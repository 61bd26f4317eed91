//! Every recorded decision of the reference engine, asked again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a test may fail loudly"
)]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use caveau_policy::{Corpus, Decision, Point};
use flate2::read::GzDecoder;

/// Each file, and how many decisions it has. All agree.
const FILES: [(&str, usize); 5] =
    [("container", 1422), ("exec", 540), ("fragment", 822), ("mount", 453), ("other", 203)];

/// Decisions that need something that the record lacks, each with its reason: in the three sessions of the test
/// `ExtendDefaultMounts` the engine got further default mounts after its data had been recorded. They are taken from the
/// question itself, where no question for reasons, which follows each denial, comes after it.
const ASSUMED: [(&str, Point, usize); 1] = [("ExtendDefaultMounts", Point::CreateContainer, 3)];

fn fixtures() -> Option<PathBuf> {
    let root = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join("policy-decisions");
    folder.is_dir().then_some(folder)
}

/// Every decision of a file, in its order.
fn replay(path: &Path) -> Vec<Decision> {
    let (mut corpus, mut decided) = (Corpus::new(), Vec::new());
    for line in BufReader::new(GzDecoder::new(File::open(path).unwrap())).lines() {
        decided.extend(corpus.read(&line.unwrap()).unwrap());
    }
    decided.extend(corpus.finish());
    decided
}

#[test]
fn recorded_decisions_replay() {
    let Some(folder) = fixtures() else {
        println!("skipped: no fixtures");
        return;
    };
    let mut failed = Vec::new();
    let mut assumed: BTreeMap<(String, Point), usize> = BTreeMap::new();
    for (name, of) in FILES {
        let decided = replay(&folder.join(format!("{name}.jsonl.gz")));
        let agree = decided.iter().filter(|decision| matches!(decision.agreement, Some(Ok(())))).count();
        println!("{name}: {agree} of {} agree", decided.len());
        for decision in &decided {
            if let Some(Err(difference)) = &decision.agreement {
                failed.push(format!("{} {} {}: {difference}", decision.test, decision.session, decision.point));
            }
            if decision.assumed.is_some() {
                *assumed.entry((decision.test.clone(), decision.point)).or_default() += 1;
            }
        }
        assert_eq!(decided.len(), of, "{name}");
    }
    failed.truncate(10);
    assert!(failed.is_empty(), "{failed:#?}");
    let expected = ASSUMED.map(|(test, point, times)| ((test.to_owned(), point), times));
    assert_eq!(assumed, expected.into(), "only what is listed may be assumed");
}
