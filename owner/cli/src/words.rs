//! Splitting a command that was given as one string, and quoting what goes into one.

use anyhow::{Result, bail};

/// Splits at white space; quotes and backslashes keep their meaning from POSIX shells, nothing else is special.
///
/// # Errors
/// Where a quote is not closed, a backslash stands last, or there is no word.
pub(crate) fn split(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => quoted(&mut characters, '\'', word.get_or_insert_default(), text)?,
            '"' => quoted(&mut characters, '"', word.get_or_insert_default(), text)?,
            '\\' => match characters.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => bail!("the command {text:?} ends with a backslash"),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.is_empty() {
        bail!("the command {text:?} has no word");
    }
    Ok(words)
}

/// Takes characters up to the closing quote; within double quotes a backslash escapes `"`, `\`, `$` and `` ` ``.
fn quoted(characters: &mut std::str::Chars<'_>, quote: char, word: &mut String, text: &str) -> Result<()> {
    while let Some(character) = characters.next() {
        match character {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match characters.next() {
                Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                Some(next) => word.extend(['\\', next]),
                None => break,
            },
            c => word.push(c),
        }
    }
    bail!("the command {text:?} has a quote {quote} that is not closed")
}

/// A word as a POSIX shell takes it: in single quotes, unless there is nothing in it that a shell would read otherwise.
pub(crate) fn as_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{as_word, split};

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(as_word("a/b.json"), "a/b.json");
        for word in ["", "a b", "it's", "$(id)", "`id`", "a\\b", "\"", "a;b", "~", "#", "é"] {
            assert_eq!(split(&as_word(word)).unwrap(), [word], "{word}");
            assert!(as_word(word).starts_with('\''), "{word}");
        }
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        for (text, words) in [
            ("redis-cli info", &["redis-cli", "info"][..]),
            ("  sh  -c 'echo  a; exit 3' ", &["sh", "-c", "echo  a; exit 3"]),
            (r#"a "b \"c\" \n" d\ e"#, &["a", r#"b "c" \n"#, "d e"]),
            ("''", &[""]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for bad in ["", "   ", "a 'b", "a \"b", "a\\"] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }
}
