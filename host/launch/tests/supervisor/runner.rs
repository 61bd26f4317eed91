//! A runner with the interface of the standard one, for a test program that has other roles as well.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

/// Runs or lists the tests that the arguments select.
pub(crate) fn main(tests: &[Test]) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let words: Vec<&str> = words.into_iter().map(String::as_str).filter(|word| *word != "terse").collect();
    let wanted = |name: &str| {
        words.is_empty() || words.iter().any(|word| if has("--exact") { name == *word } else { name.contains(word) })
    };
    let selected: Vec<&Test> = tests.iter().filter(|(name, _)| wanted(name) && !has("--ignored")).collect();
    if has("--list") {
        selected.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let failed: Vec<&str> = selected.iter().filter(|test| !passes(test)).map(|(name, _)| *name).collect();
    println!("\ntest result: {} passed; {} failed {failed:?}", selected.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes((name, test): &Test) -> bool {
    let passes = catch_unwind(AssertUnwindSafe(test)).is_ok();
    println!("test {name} ... {}", if passes { "ok" } else { "FAILED" });
    passes
}
