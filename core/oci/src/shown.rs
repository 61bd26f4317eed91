//! Text from elsewhere in errors and lists.

/// Longest text that is shown, in characters before escapes.
const LIMIT: usize = 200;

/// Text of an image's documents made fit to print: escaped where a terminal would take it for something else than text,
/// cut where it is long.
pub fn shown(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().take(LIMIT) {
        match character {
            '"' | '\'' | '\\' => out.push(character),
            other => out.extend(other.escape_debug()),
        }
    }
    if text.chars().nth(LIMIT).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_and_the_rest_is_harmless() {
        assert_eq!(shown("a/b \"c\" 'd' \\ é 漢"), "a/b \"c\" 'd' \\ é 漢");
        assert_eq!(shown("a\u{1b}[31m\r\n\u{202e}"), "a\\u{1b}[31m\\r\\n\\u{202e}");
        let long = shown(&"x".repeat(10_000));
        assert!(long.ends_with("x…") && long.chars().count() == LIMIT + 1);
    }
}
