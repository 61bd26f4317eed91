//! Every recorded decision of the reference engine at a point that exists here, replayed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a test may fail loudly"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

use caveau_policy::{Point, Replay};
use flate2::read::GzDecoder;
use serde_json::Value;

/// Points that wait for fragments; their lines are not counted.
const NOT_YET: [Point; 2] = [Point::LoadFragment, Point::LoadTransparencyTrustList];

/// For each file, how many decisions are replayed and how many must agree. Never lowered.
const FILES: [(&str, usize, usize); 5] =
    [("container", 1422, 1422), ("exec", 540, 540), ("fragment", 527, 254), ("mount", 450, 450), ("other", 203, 203)];

/// Sessions that a replay cannot know enough about: the test gave its engine further default mounts after the recording of
/// its data, and the record does not have them. Their last question is left out.
const UNRECORDED: (&str, Point) = ("ExtendDefaultMounts", Point::CreateContainer);

fn fixtures() -> Option<PathBuf> {
    let root = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join("policy-decisions");
    folder.is_dir().then_some(folder)
}

#[test]
fn recorded_decisions_replay() {
    let Some(folder) = fixtures() else {
        println!("skipped: no fixtures");
        return;
    };
    let mut failed = Vec::new();
    for (name, of, least) in FILES {
        let count = replay(&folder.join(format!("{name}.jsonl.gz")));
        println!("{name}: {} of {} agree", count.agree, count.all);
        count.examples.iter().take(5).for_each(|example| println!("  {example}"));
        if count.agree < least || count.all < of {
            failed.push(format!("{name}: {} of {} agree, expected {least} of {of}", count.agree, count.all));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[derive(Default)]
struct Count {
    all: usize,
    agree: usize,
    examples: Vec<String>,
}

fn replay(path: &PathBuf) -> Count {
    let mut count = Count::default();
    let mut sessions: BTreeMap<String, (String, Result<Replay, String>)> = BTreeMap::new();
    for line in BufReader::new(GzDecoder::new(File::open(path).unwrap())).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let session = line["s"].to_string();
        if line["t"] == "session" {
            let engine =
                Replay::new(line["policy"].as_str().unwrap(), &line["data"]).map_err(|error| error.to_string());
            sessions.insert(session, (line["test"].as_str().unwrap().to_owned(), engine));
            continue;
        }
        let Some(point) = counted_point(&line) else { continue };
        let (test, engine) = sessions.get_mut(&session).unwrap();
        if test.starts_with(UNRECORDED.0) && point == UNRECORDED.1 {
            continue;
        }
        count.all += 1;
        let verdict = match engine {
            Ok(engine) => agrees(engine, point, &line),
            Err(error) => Err(format!("policy does not load: {error}")),
        };
        match verdict {
            Ok(()) => count.agree += 1,
            Err(difference) => count.examples.push(format!("{test} {point}: {difference}")),
        }
    }
    count
}

/// The point that a line asks at, if it exists here.
fn counted_point(line: &Value) -> Option<Point> {
    let point = Point::from_name(line["rule"].as_str()?.strip_prefix("data.policy.")?)?;
    (line["t"] == "query" && !NOT_YET.contains(&point)).then_some(point)
}

/// Compares everything that a caller of the engine acts on.
fn agrees(engine: &mut Replay, point: Point, line: &Value) -> Result<(), String> {
    let found = engine.answer(point, &line["input"], &line["metadata_before"]);
    let expected = &line["result"];
    if line["error"].as_str().is_some_and(|error| !error.is_empty()) {
        return if found.is_err() { Ok(()) } else { Err(format!("expected error {}, got {found:?}", line["error"])) };
    }
    let found = found?.unwrap_or(Value::Null);
    for field in ["allowed", "env_list", "caps_list", "allow_stdio_access", "metadata"] {
        let (expected, found) = (as_set(&expected[field]), as_set(&found[field]));
        if expected != found {
            return Err(format!(
                "{field}: expected {:.300}, got {:.300}",
                format!("{expected:?}"),
                format!("{found:?}")
            ));
        }
    }
    Ok(())
}

/// A value whose lists are compared as sets: their order carries no meaning.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Plain {
    List(BTreeSet<Plain>),
    Object(BTreeMap<String, Plain>),
    Scalar(String),
}

fn as_set(value: &Value) -> Plain {
    match value {
        Value::Array(items) => Plain::List(items.iter().map(as_set).collect()),
        Value::Object(fields) => {
            Plain::Object(fields.iter().map(|(name, field)| (name.clone(), as_set(field))).collect())
        }
        scalar => Plain::Scalar(scalar.to_string()),
    }
}
