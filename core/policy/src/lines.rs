//! Long lines, broken for the parser.
//!
//! regorus tries each list and object as a comprehension first and words the failure as a message, which quotes the whole
//! line and points below it at the column: a line of many lists takes time square in its length, and at a column that 16 bits
//! do not hold it panics. So it is given the text with further breaks, before commas and closing brackets, where the end of a
//! line means nothing. What cannot be broken so, and would still be pointed at so far to the right, is refused.

/// Lines up to here stay as they are: as long as the parser takes by default.
const LONG: usize = 1000;

/// Columns at which something may still be wrong.
const MOST: usize = 60_000;

/// A text with further breaks.
pub(crate) struct Lines {
    /// The text.
    pub(crate) text: String,
    /// Where in it the further breaks are, each with the number of the line that it ends, from 1.
    breaks: Vec<(usize, u32)>,
}

/// What a character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Code,
    Comment,
    /// Between backticks.
    Raw,
    /// Between quotes; whether the parser may find something wrong with it.
    Text {
        odd: bool,
    },
}

impl Lines {
    /// Breaks a text.
    ///
    /// # Errors
    /// Where a line cannot be broken, in words.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let mut lines = Self { text: String::with_capacity(text.len()), breaks: Vec::new() };
        if text.lines().all(|line| line.len() <= LONG) {
            lines.text.push_str(text);
            return Ok(lines);
        }
        let (mut within, mut line, mut column) = (Within::Code, 1_u32, 0_usize);
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if within == Within::Code && column > LONG && matches!(c, ',' | ']' | '}' | ')') {
                lines.breaks.push((lines.text.len(), line));
                lines.text.push('\n');
                (line, column) = (line.saturating_add(1), 0);
            }
            lines.text.push(c);
            if c == '\n' {
                (line, column) = (line.saturating_add(1), 0);
            } else {
                // The parser counts bytes, a tab as four.
                column = column.saturating_add(if c == '\t' { 4 } else { c.len_utf8() });
            }
            let before = within;
            within = match (before, c) {
                (Within::Code, '"') => Within::Text { odd: false },
                (Within::Code, '`') => Within::Raw,
                (Within::Code, '#') => Within::Comment,
                (Within::Text { .. }, '"') | (Within::Raw, '`') | (Within::Comment, '\n') => Within::Code,
                (Within::Text { odd }, '\\') => {
                    let escaped = rest.next_if(|c| "\"\\/bfnrt".contains(*c));
                    lines.text.extend(escaped);
                    column = column.saturating_add(1);
                    Within::Text { odd: odd || escaped.is_none() }
                }
                (Within::Text { odd }, c) => Within::Text { odd: odd || c < ' ' },
                (other, _) => other,
            };
            let wrong = match (before, within) {
                // All that starts here may be wrong, and so may the end of the text.
                (Within::Code, Within::Comment) => false,
                (Within::Code, _) => !matches!(c, ' ' | '\t') || rest.peek().is_none(),
                (_, Within::Text { odd }) => odd,
                _ => rest.peek().is_none(),
            };
            if column > MOST && wrong {
                return Err(format!("line {} is longer than {MOST} columns: break it", lines.line(line)));
            }
        }
        Ok(lines)
    }

    /// Where in the text as it was something is.
    pub(crate) fn offset(&self, offset: usize) -> usize {
        offset.saturating_sub(self.breaks.partition_point(|(at, _)| *at < offset))
    }

    /// Which line of the text as it was this is.
    pub(crate) fn line(&self, line: u32) -> u32 {
        let further = self.breaks.partition_point(|(_, ended)| *ended < line);
        line.saturating_sub(u32::try_from(further).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Source, amendment::Step, document::Document};

    /// The text without its further breaks.
    fn joined(lines: &Lines) -> String {
        let mut text = lines.text.clone();
        for (at, _) in lines.breaks.iter().rev() {
            assert_eq!(text.remove(*at), '\n');
        }
        text
    }

    /// A value of many lists and objects, in one line of more columns than 16 bits count.
    fn long(name: &str) -> Value {
        json!({"list": vec![json!({"none": [], "name": name, "x": {}}); 3000]})
    }

    #[test]
    fn short_lines_stay() {
        let text = "x := [1, 2]\n".repeat(1000);
        assert_eq!(Lines::new(&text).unwrap().text, text);
    }

    #[test]
    fn values_and_their_places_are_those_of_the_text() {
        let value = long(r#"a, "b" ] # \ `"#);
        let text = format!("package policy\nx := `,],{}` # ,]\ny := {value}\nz := 7\n", "),".repeat(LONG));
        let lines = Lines::new(&text).unwrap();
        assert_eq!(joined(&lines), text);
        assert!(lines.text.lines().filter(|line| line.contains("none")).all(|line| line.len() < LONG + 100));
        assert_eq!(Document::parse(&text).unwrap().constant("y").unwrap(), Some(value.clone()));
        let source = Source::parse(&text).unwrap();
        assert_eq!(source.text("y"), format!("y := {value}"));
        assert_eq!((source.line("x"), source.line("y"), source.line("z")), (Some(2), Some(3), Some(4)));
        for (path, wanted) in [
            (vec![Step::from("list"), Step::from(2999_usize)], value["list"][2999].to_string()),
            (vec![Step::from("list"), Step::from(2000_usize), Step::from("none")], "[]".to_owned()),
            (vec![], value.to_string()),
        ] {
            let place = source.find(&[vec![Step::from("y")], path].concat()).unwrap();
            assert_eq!((&text[place.range], place.line), (wanted.as_str(), 3));
        }
    }

    #[test]
    fn rules_mean_the_same() {
        let list = format!("[{}1]", "1, ".repeat(LONG));
        let text = format!(
            "package policy\np := {{\"n\": count(xs), \"some\": [y | some i, y in xs; i < 2; y == xs[0]]}} if {{ xs := {list}; count(xs) > 5; max(xs) == 1 }}\n"
        );
        let one_line = Document::parse(&text).unwrap().constant("p").unwrap();
        assert_eq!(one_line, Some(json!({"n": LONG + 1, "some": [1, 1]})));
    }

    #[test]
    fn what_is_wrong_far_to_the_right_is_an_error() {
        let far = "x".repeat(1 << 16);
        for text in [
            format!("x := \"{far}\\q\""),
            format!("x := \"{far}\\ud800\""),
            format!("x := \"\\ud800{far}\""),
            format!("x := \"{far}\t\""),
            format!("x := \"{far}"),
            format!("x := `{far}"),
            format!("x := \"{far}\" ?"),
            format!("x := \"{far}\" \"{far}"),
            format!("x := \"{far}\" `{far}"),
            format!("x := [\"{far}\" [] ]"),
            format!("x := (\"{far}\""),
            format!("x := ({}", far.replace('x', " ")),
            format!("x := ( # {far}"),
            format!("x := ( # {far}\n"),
            format!("x := ({}?", far.replace('x', "\t")),
            format!("x := ({}\r?", far.replace('x', " ")),
            format!("x := 1{}.", far.replace('x', "1")),
            format!("{far} := ]"),
        ] {
            assert!(Document::parse(&format!("package policy\n{text}")).is_err(), "{:.60}", text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_broken_where_nothing_changes(parts in prop::collection::vec("[\\PC\"`#\\\\,\\]}\n\t]{0,8}", 0..40)) {
            let text = parts.join(&"x,".repeat(LONG / 4));
            if let Ok(lines) = Lines::new(&text) {
                prop_assert_eq!(joined(&lines), text);
            }
        }

        #[test]
        fn any_long_value_is_read(names in prop::collection::vec("\\PC{0,20}|[\"\\\\`#,\\]}\n\t]{0,8}", 60)) {
            let value = json!([names, [], {"a": names}, names]);
            let text = format!("package policy\nx := {}\n", value);
            prop_assert_eq!(Document::parse(&text).unwrap().constant("x").unwrap(), Some(value));
        }
    }
}
