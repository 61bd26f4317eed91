//! A fragment's text: Rego with a package of its own, a security version, and what it adds to a policy.

use caveau_policy::{Policy, PolicyError, rego_engine};
use regorus::Engine;
use serde_json::Value;

/// What a fragment may add to a policy, as `includes` names it.
pub const INCLUDES: [&str; 5] =
    ["containers", "external_processes", "fragments", "platform_rules", "transparency_trust_lists"];
/// Packages that are the policy's own, in any case of letters.
const RESERVED: [&str; 6] = ["api", "data", "framework", "input", "metadata", "policy"];

/// A fragment as its text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentText {
    /// The text.
    pub text: String,
    /// Its package.
    pub namespace: String,
    /// Its security version, where the text has it.
    pub svn: Option<String>,
    /// The framework version that it is written for.
    pub framework_version: Option<String>,
    /// What it adds: (name, how many).
    pub includes: Vec<(&'static str, usize)>,
}

/// Why a text is no fragment, or a policy has none in it.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// No package line.
    #[error("the first line is no `package NAME` and nothing else")]
    Package,
    /// A name that cannot be a package's.
    #[error(
        "`{0}` cannot be a fragment's package: expected letters, digits and underscores, the first no digit, and none \
         of policy, framework, api, metadata, data, input"
    )]
    Namespace(String),
    /// No Rego.
    #[error("the text cannot be read")]
    Policy(#[source] PolicyError),
    /// A value that cannot be had.
    #[error("`{name}` has no value: {reason}")]
    Value {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// Nothing to add.
    #[error("there are no containers in it, nor anything else that a fragment could add")]
    Empty,
}

impl FragmentText {
    /// The fragment that adds what a policy says of containers and the like, for the same framework version.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn of_policy(policy: &str, namespace: &str, svn: u64) -> Result<Self, TextError> {
        check_namespace(namespace)?;
        let mut values = Values::of(policy, "policy")?;
        let version = values.get("framework_version")?.or(values.get("framework_svn")?);
        let mut text = format!("package {namespace}\n\nsvn := \"{svn}\"\n");
        if let Some(version) = version {
            text.push_str(&format!("framework_version := {version}\n"));
        }
        for name in INCLUDES {
            let Some(value) = values.get(name)?.filter(|value| value.as_array().is_none_or(|list| !list.is_empty()))
            else {
                continue;
            };
            // An item a line: other engines refuse lines of more than 1,024 columns. JSON values are Rego terms.
            text.push_str(&format!("\n{name} := {value:#}\n"));
        }
        let made = Self::parse(&text)?;
        if made.includes.is_empty() { Err(TextError::Empty) } else { Ok(made) }
    }

    /// Reads a fragment.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let first = text.lines().next().unwrap_or_default();
        let namespace = first.strip_prefix("package ").ok_or(TextError::Package)?.trim();
        check_namespace(namespace)?;
        let mut values = Values::of(text, namespace)?;
        let shown = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let svn = values.get("svn")?.map(shown);
        let framework_version = values.get("framework_version")?.map(shown);
        let mut includes = Vec::new();
        for name in INCLUDES {
            if let Some(value) = values.get(name)? {
                includes.push((name, value.as_array().map_or(1, Vec::len)));
            }
        }
        includes.retain(|(_, count)| *count > 0);
        Ok(Self { text: text.to_owned(), namespace: namespace.to_owned(), svn, framework_version, includes })
    }

    /// The statement by which a policy takes this fragment: an entry of its `fragments`.
    #[must_use]
    pub fn import(&self, issuer: &str, feed: &str, svn: Option<&str>) -> Value {
        let includes: Vec<&str> = self.includes.iter().map(|(name, _)| *name).collect();
        let minimum_svn = svn.or(self.svn.as_deref()).unwrap_or("0");
        serde_json::json!({ "feed": feed, "includes": includes, "issuer": issuer, "minimum_svn": minimum_svn })
    }
}

fn check_namespace(name: &str) -> Result<(), TextError> {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let rest = characters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    let reserved = RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
    if first && rest && !reserved { Ok(()) } else { Err(TextError::Namespace(name.chars().take(64).collect())) }
}

/// The values of a document's rules.
struct Values {
    engine: Engine,
    package: String,
}

impl Values {
    /// Loads a document. It is first read as a policy, which bounds its length and nesting.
    fn of(text: &str, package: &str) -> Result<Self, TextError> {
        let rest = text.find('\n').map_or("", |at| text.get(at..).unwrap_or_default());
        let policy = if package == "policy" { text.to_owned() } else { format!("package policy{rest}") };
        Policy::parse(&policy).map_err(TextError::Policy)?;
        let engine = |old| rego_engine("fragment.rego", text, old);
        let engine = engine(false).or_else(|_| engine(true)).map_err(|reason| TextError::Value {
            name: format!("package {package}"),
            reason: reason.chars().take(500).collect(),
        })?;
        Ok(Self { engine, package: package.to_owned() })
    }

    /// A rule's value; `None` where there is no such rule, or it is undefined.
    fn get(&mut self, name: &str) -> Result<Option<Value>, TextError> {
        let path = format!("data.{}.{name}", self.package);
        let failed = |reason: String| TextError::Value { name: name.to_owned(), reason };
        let known = self.engine.eval_query(path, false).map_err(|error| failed(error.to_string()))?;
        let Some(value) = known.result.first().and_then(|result| result.expressions.first()) else { return Ok(None) };
        if value.value == regorus::Value::Undefined {
            return Ok(None);
        }
        let json = value.value.to_json_str().map_err(|error| failed(error.to_string()))?;
        serde_json::from_str(&json).map(Some).map_err(|error| failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "package policy\n\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
        containers := [{\"command\": [\"a \\\" b\"], \"layers\": []}]\nfragments := []\n\
        mount_device := data.framework.mount_device\n";

    #[test]
    fn a_policys_containers_become_a_fragment() {
        let made = FragmentText::of_policy(POLICY, "app", 3).unwrap();
        assert!(
            made.text.starts_with("package app\n\nsvn := \"3\"\nframework_version := \"0.5.0\"\n\ncontainers := [")
        );
        assert_eq!(made.includes, [("containers", 1)]);
        assert_eq!(FragmentText::parse(&made.text).unwrap(), made);
        let import = made.import("did:x509:0:sha256:x", "feed", None);
        assert_eq!(import["minimum_svn"], "3");
        assert_eq!(import["includes"], serde_json::json!(["containers"]));
        // What a text says stands in it as it was.
        assert!(made.text.contains(r#""a \" b""#), "{}", made.text);
        let value = Values::of(&made.text, "app").unwrap().get("containers").unwrap().unwrap();
        assert_eq!(value[0]["command"][0], "a \" b");
    }

    #[test]
    fn lines_may_be_longer_than_the_parser_counts() {
        let commands = vec![r#"{"command": ["a"], "layers": []}"#; 3000].join(", ");
        let policy = POLICY.replace("fragments := []", &format!("external_processes := [{commands}]"));
        let made = FragmentText::of_policy(&policy, "app", 3).unwrap();
        assert_eq!(made.includes, [("containers", 1), ("external_processes", 3000)]);
    }

    #[test]
    fn other_names_and_texts_are_refused() {
        for name in ["policy", "Framework", "API", "metadata", "data", "1a", "", "a.b", "a b", "a\nb", "ä"] {
            assert!(matches!(FragmentText::of_policy(POLICY, name, 1), Err(TextError::Namespace(_))), "{name}");
        }
        // A word of the language itself.
        assert!(FragmentText::of_policy(POLICY, "import", 1).is_err());
        assert!(matches!(FragmentText::of_policy("package policy\n", "a", 1), Err(TextError::Empty)));
        assert!(matches!(FragmentText::parse("\npackage a\n"), Err(TextError::Package)));
        assert!(matches!(FragmentText::parse("package a # b\n"), Err(TextError::Namespace(_))));
        assert!(matches!(FragmentText::parse("package a\nx := \n"), Err(TextError::Policy(_))));
    }

    #[test]
    fn versions_may_be_numbers() {
        let read = FragmentText::parse("package a\nsvn := 7\ncontainers := []\n").unwrap();
        assert_eq!((read.svn.as_deref(), read.framework_version, read.includes), (Some("7"), None, vec![]));
    }
}
