//! The rules that make the folders mean something: who may depend on whom, and what `core` may not touch.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{command, output};

/// What the code of `core` must not name: it takes bytes and values, and gives bytes and values.
const FORBIDDEN_IN_CORE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::env",
    "std::*",
    "std as ",
    "tokio",
    "async fn",
    "SystemTime",
    "Instant",
];

/// Lints that each crate of `core` and `guest` must deny, since their input is hostile.
const DENIED_LINTS: &[&str] = &[
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::panic",
    "clippy::indexing_slicing",
    "clippy::arithmetic_side_effects",
];

/// Checks every rule and reports all violations at once.
///
/// # Errors
/// Where a rule is broken, naming crate and rule.
pub(crate) fn check(root: &Path) -> Result<()> {
    let metadata: Value = serde_json::from_str(&output(&mut command(
        root,
        "cargo",
        ["metadata", "--format-version=1", "--no-deps", "--locked"],
    ))?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let folder_of: BTreeMap<&str, String> = packages
        .iter()
        .filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            let folder = manifest.parent()?.strip_prefix(root).ok()?.to_string_lossy().into_owned();
            Some((package["name"].as_str()?, folder))
        })
        .collect();
    let mut violations = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(folder) = folder_of.get(name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Tests may reach further than products: only what is built into a product counts.
            let target = dependency["name"].as_str().unwrap_or_default();
            if dependency["kind"].is_null() && folder_of.get(target).is_some_and(|to| !may_depend(folder, to)) {
                violations.push(format!("{folder} must not depend on {}", folder_of[target]));
            }
        }
        if let Some(tested) = examples_are_tested(package) {
            let written = has_examples(&root.join(folder).join("src"))?;
            if tested != written {
                let why = if written { "has examples that are not tested" } else { "has no examples to be tested" };
                violations.push(format!("{folder} {why}: its Cargo.toml must say doctest = {written}"));
            }
        }
        if folder.starts_with("core/") || folder.starts_with("guest/") {
            check_source(root, folder, &mut violations)?;
        }
    }
    if !violations.is_empty() {
        bail!("layering:\n  {}", violations.join("\n  "));
    }
    Ok(())
}

/// Whether the crate in folder `from` may be built upon the one in folder `to`.
fn may_depend(from: &str, to: &str) -> bool {
    let top = |folder: &str| folder.split('/').next().unwrap_or_default().to_owned();
    // What can accept an emulated root is for the command line alone; a verifier or a broker never has it.
    if to == "core/emulated" {
        return matches!(from, "owner/cli" | "tests" | "fuzz" | "xtask");
    }
    match top(from).as_str() {
        "xtask" | "tests" | "fuzz" => true,
        // What others build upon: the verifier, and nothing of the product's.
        "bindings" => matches!(to, "core/evidence" | "core/signature"),
        _ if from == "owner/cli" => matches!(top(to).as_str(), "core" | "owner" | "host"),
        own => top(to) == "core" || top(to) == own,
    }
}

/// Checks a crate's sources: the lints it denies, and for `core` what it must not name outside its tests.
fn check_source(root: &Path, folder: &str, violations: &mut Vec<String>) -> Result<()> {
    let source = root.join(folder).join("src");
    let entry = ["lib.rs", "main.rs"].iter().map(|name| source.join(name)).find(|path| path.exists());
    let entry = fs::read_to_string(entry.with_context(|| format!("{folder} has no src/lib.rs"))?)?;
    for lint in DENIED_LINTS.iter().filter(|lint| !entry.split("cfg_attr").next().unwrap_or_default().contains(*lint)) {
        violations.push(format!("{folder} does not deny {lint}"));
    }
    if folder.starts_with("core/") {
        for file in rust_files(&source)? {
            for (word, place) in forbidden(&fs::read_to_string(&file)?) {
                violations.push(format!("{}: core must not use {word}: {place}", file.display()));
            }
        }
    }
    Ok(())
}

/// Whether the examples in a library's documentation are tested; `None` where the package is no library. To look for them takes
/// the documentation's compiler a second and more for each library, so that those without say so.
fn examples_are_tested(package: &Value) -> Option<bool> {
    let libraries = ["lib", "cdylib", "staticlib"];
    let is_library = |target: &&Value| {
        target["kind"].as_array().into_iter().flatten().any(|kind| libraries.iter().any(|library| kind == library))
    };
    package["targets"].as_array()?.iter().find(is_library)?["doctest"].as_bool()
}

/// Whether there is code in a folder's documentation that rustdoc would run or compile.
fn has_examples(source: &Path) -> Result<bool> {
    for file in rust_files(source)? {
        if is_example(&fs::read_to_string(file)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a source has a code block in a comment that is documentation, of no language or of Rust.
fn is_example(source: &str) -> bool {
    let mut inside = false;
    for line in source.lines().map(str::trim_start) {
        let Some(text) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            inside = false;
            continue;
        };
        if let Some(language) = text.trim().strip_prefix("```") {
            inside = !inside;
            if inside && matches!(language, "" | "rust" | "no_run" | "should_panic" | "compile_fail") {
                return true;
            }
        }
    }
    false
}

/// What a source names outside its tests that `core` must not, and where: in a line, or in a group as `std::{fs, io}`.
fn forbidden(source: &str) -> Vec<(&'static str, String)> {
    let product = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines: Vec<&str> = product.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let words = |line: &str, found: &mut Vec<(&'static str, String)>| {
        let named = FORBIDDEN_IN_CORE.iter().filter(|word| line.contains(**word));
        found.extend(named.map(|word| (*word, line.trim().to_owned())));
    };
    let mut found = Vec::new();
    for line in &lines {
        words(line, &mut found);
    }
    let joined: String = lines.concat().split_whitespace().collect();
    for group in joined.split("std::{").skip(1) {
        for item in items(group) {
            words(&format!("std::{item}"), &mut found);
        }
    }
    found
}

/// The items of a group whose opening brace has been read, up to the brace that closes it.
fn items(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0_u32, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            '}' if depth == 0 => {
                items.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    items
}

/// Every `.rs` file below a folder, in order, but for files of tests.
fn rust_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "tests" {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") && entry.file_name() != "tests.rs" {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{forbidden, is_example, may_depend};

    #[test]
    fn dependencies_point_downwards() {
        for (from, to) in [("guest/agent", "core/policy"), ("owner/cli", "host/launch"), ("core/layer", "core/verity")]
        {
            assert!(may_depend(from, to), "{from} -> {to}");
        }
        for (from, to) in [
            ("core/policy", "guest/agent"),
            ("guest/agent", "host/launch"),
            ("host/launch", "owner/registry"),
            ("owner/registry", "host/launch"),
            ("core/evidence", "core/emulated"),
            ("guest/tee", "core/emulated"),
            ("bindings/c", "core/emulated"),
            ("bindings/python", "host/launch"),
        ] {
            assert!(!may_depend(from, to), "{from} -> {to}");
        }
    }

    #[test]
    fn examples_are_found() {
        for source in ["/// Adds.\n///\n/// ```\n/// f();\n/// ```", "    //! ```compile_fail\n    //! g\n    //! ```"]
        {
            assert!(is_example(source), "{source}");
        }
        for source in ["/// ```text\n/// a -> b\n/// ```\n", "// ```\n// no documentation\n// ```", "let s = \"```\";"]
        {
            assert!(!is_example(source), "{source}");
        }
    }

    #[test]
    fn what_core_must_not_name_is_found_however_it_is_written() {
        for (source, words) in [
            ("use std::fs;", &["std::fs"][..]),
            ("use std::{fs, io::{self, Read}, net::TcpStream};", &["std::fs", "std::net"]),
            ("use std::{\n    collections::{BTreeMap, BTreeSet},\n    env as e,\n};", &["std::env"]),
            ("let now = std::time::Instant::now();", &["Instant"]),
            ("use std::time::{Duration, SystemTime};", &["SystemTime"]),
            ("use std::*;", &["std::*"]),
            ("use std as s;", &["std as "]),
            ("use ::std::os::unix::net::UnixStream;", &["std::os"]),
        ] {
            let found: Vec<_> = forbidden(source).into_iter().map(|(word, _)| word).collect();
            assert_eq!(found, words, "{source}");
        }
        for source in [
            "use std::{fmt, io::{self, Read}};\nlet files = 1;",
            "// use std::fs;",
            "use std::io;\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
        ] {
            assert_eq!(forbidden(source), [], "{source}");
        }
    }
}
