//! Other forms of the same policy.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use caveau_policy::{Answering, Point, PolicyDigest, value_text};

use crate::{
    PolicyDocument, ToolError,
    document::{FLAGS, OBJECTS, VERSIONS},
};

/// As `ccePolicy` holds it: standard base64 with padding, no line breaks.
#[must_use]
pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// SHA-256 of the text, 64 hexadecimal digits: HOST_DATA.
#[must_use]
pub fn digest(text: &str) -> String {
    PolicyDigest::of(text).to_string()
}

/// The same policy laid out as generated ones are: an item a line, keys sorted. It decides the same. It is another text, and
/// so has another digest. A policy with rules of its own, whose layout and comments are its author's, comes back as it is.
///
/// # Errors
/// [`ToolError::Policy`] where the text is no policy.
pub fn pretty(name: &str, text: &str) -> Result<String, ToolError> {
    let document = PolicyDocument::parse(name, text)?;
    if !is_plain(&document) {
        return Ok(text.to_owned());
    }
    let mut out = String::from("package policy\n\n");
    let mut define = |name: &str| {
        if let Some(value) = document.values.get(name) {
            out.push_str(&format!("{name} := {}\n", value_text(value, 0)));
        }
    };
    VERSIONS.iter().flat_map(|(name, old)| [*name, *old]).for_each(&mut define);
    OBJECTS.into_iter().for_each(&mut define);
    FLAGS.into_iter().for_each(&mut define);
    out.push('\n');
    for point in Point::ALL.iter().filter(|point| document.source.answering(**point) == Some(Answering::Framework)) {
        out.push_str(&format!("{point} := data.framework.{point}\n"));
    }
    if document.source.has("reason") {
        out.push_str("reason := data.framework.reason\n");
    }
    Ok(out)
}

/// Whether a policy consists of nothing but what the language names, each a value that is written out or an alias.
fn is_plain(document: &PolicyDocument) -> bool {
    document.source.names().iter().all(|name| {
        if let Some(point) = Point::from_name(name) {
            return document.source.answering(point) == Some(Answering::Framework);
        }
        let known = OBJECTS.contains(&name.as_str())
            || FLAGS.contains(&name.as_str())
            || VERSIONS.iter().any(|(new, old)| name == new || name == old);
        // A set would come back as a list, and a computed value as its result.
        name == "reason" && document.source.is_alias("reason")
            || known && document.values.contains_key(name) && document.source.is_written_out(name)
    })
}
