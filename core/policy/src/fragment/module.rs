//! A fragment's text as a module beside the policy's document.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{document, error::PolicyError};

/// Names that a fragment must not take, in any spelling: what the policy, the framework, their data and Rego itself are
/// called.
const RESERVED: [&str; 13] = [
    "api",
    "data",
    "defaultmounts",
    "defaultprivilegedcapabilities",
    "defaultunprivilegedcapabilities",
    "framework",
    "hugepagesprefix",
    "input",
    "metadata",
    "plan9prefix",
    "policy",
    "privilegedmounts",
    "sandboxprefix",
];

/// The name that a fragment's text takes: its first line is `package NAME`, and nothing else.
pub(crate) fn namespace(text: &str) -> Result<&str, String> {
    let first: String = text.lines().next().unwrap_or_default().chars().take(80).collect();
    let malformed = || format!("{first:?}");
    let line = text.split('\n').next().unwrap_or_default();
    let rest = line.strip_prefix("package ").ok_or_else(malformed)?;
    let name = rest.trim_start_matches(' ').trim_end_matches(['\t', '\x0c', '\r', ' ']);
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !starts || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(malformed());
    }
    // Rego tells case, people do not.
    if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(format!("{name:?}, which is reserved"));
    }
    Ok(name)
}

/// A fragment that is part of the engine: its rules are at `data.<namespace>`.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) issuer: String,
    pub(crate) feed: String,
    pub(crate) namespace: String,
    /// The fragment's text with its parameters.
    pub(crate) text: String,
    /// Whether it is Rego of version 0.
    pub(crate) old: bool,
    /// Names of its rules.
    names: BTreeSet<String>,
}

impl Module {
    /// Parses a fragment's text, with values for its parameters: a JSON object.
    pub(crate) fn parse(
        issuer: &str,
        feed: &str,
        namespace: &str,
        text: &str,
        parameters: &Value,
    ) -> Result<Self, PolicyError> {
        let text = format!("{text}\n{}", definitions(namespace, parameters));
        let (engine, old) = document::parse_text(&text)?;
        let (packages, names) = document::packages_and_rules(engine)?;
        if packages != [format!("data.{namespace}")] {
            return Err(PolicyError::Package(packages.join(", ")));
        }
        if let Some(name) = names.iter().find(|name| matches!(name.as_str(), "data" | "input")) {
            return Err(PolicyError::Syntax(format!("the fragment has a rule named `{name}`")));
        }
        let [issuer, feed, namespace] = [issuer, feed, namespace].map(str::to_owned);
        Ok(Self { issuer, feed, namespace, text, old, names })
    }

    /// Whether it has a rule of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether it was loaded as this issuer's feed.
    pub(crate) fn is_of(&self, issuer: &str, feed: &str) -> bool {
        self.issuer == issuer && self.feed == feed
    }
}

/// What lets a fragment read its parameters, `parameter("name")`: the value that the rule for it gives, else the default in
/// its own `parameters_api`. Both versions of Rego read it; JSON values are Rego terms.
fn definitions(namespace: &str, parameters: &Value) -> String {
    format!(
        "__caveau_given := {parameters}\n\
         __caveau_defaults := {{n: v | v := data.{namespace}.parameters_api[n][\"default\"]}}\n\
         __caveau_parameters := {{n: v |\n\
         \tv := [__caveau_given, object.remove(__caveau_defaults, object.keys(__caveau_given))][_][n]\n\
         }}\n\
         parameter(name) := __caveau_parameters[name]\n"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_plain_and_not_taken() {
        for (text, name) in [
            ("package fragment\nx := 1", "fragment"),
            ("package   a_1  \r\nx := 1", "a_1"),
            ("package _x", "_x"),
            ("package frameworks", "frameworks"),
        ] {
            assert_eq!(namespace(text), Ok(name), "{text:?}");
        }
        for text in [
            "",
            "\npackage fragment",
            "# comment\npackage fragment",
            " package fragment",
            "package\tfragment",
            "package fragment # comment",
            "package fragment; x := 1",
            "package fragment.more",
            "package fragment[\"x\"]",
            "package data.framework",
            "package 1x",
            "package ",
            "package",
            "package \u{430}pi",
            "package frame\u{200b}work",
            "package fragment\u{a0}",
            "package framework",
            "package Framework",
            "package FRAMEWORK  ",
            "package   framework",
            "package policy\r",
            "package Policy",
            "package api",
            "package aPi",
            "package metadata",
            "package METADATA",
            "package data",
            "package input",
            "package defaultMounts",
        ] {
            assert!(namespace(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_module_is_the_package_that_it_says() {
        let parse = |text: &str| Module::parse("i", "f", "x", text, &json!({}));
        assert!(parse("package x\nsvn := 1").unwrap().has("svn"));
        assert!(parse("package x\nallow { input.a == 1 }").unwrap().old);
        assert!(matches!(parse("package y\nsvn := 1"), Err(PolicyError::Package(_))));
        for text in [
            "package x\npackage framework\nload_fragment := 1",
            "package x\ndata.framework.load_fragment := {\"allowed\": true}",
            "package x\ndata.policy := 1",
            "package x\ninput := 1",
            "package x\nsvn ??",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
