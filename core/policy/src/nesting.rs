//! How deep a document's expressions go, bounded before they are parsed.
//!
//! The parser and the evaluator recurse, a stack frame or more for each bracket and each operator of one expression, so a
//! text of a few kilobytes could exhaust any stack. This scan counts both without recursion. Between the brackets of one
//! expression, a comma, a semicolon, `:=` or the end of a line that does not go on starts a new one.
//!
//! The parser also reads the first item of each list, set and object twice, as it could turn out to be a comprehension's:
//! nested first items take time exponential in their depth. So what it will read in all is bounded as well.

use std::{iter::Peekable, str::Chars};

use crate::error::PolicyError;

/// Most brackets and operators that one expression may pile up. Documents that people and tools write stay below 30.
pub(crate) const MOST: usize = 128;

/// Most characters that the parser may have to read, each counted as often as it is read.
const MOST_READ: u64 = 1 << 26;

/// Characters that operators are made of.
const OPERATORS: &[char] = &['+', '-', '*', '/', '%', '|', '&', '=', '!', '<', '>', '.'];

/// Checks a whole text.
pub(crate) fn check(text: &str) -> Result<(), PolicyError> {
    let mut scan = Scan::new(text);
    while let Some(c) = scan.next() {
        scan.take(c);
        if scan.depth() > MOST || scan.read > MOST_READ {
            return Err(PolicyError::TooDeep { line: scan.line });
        }
    }
    Ok(())
}

/// What is known of one open bracket.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Operators and brackets so far in its present expression.
    count: usize,
    /// Whether this is a list's, set's or object's first item.
    first: bool,
}

struct Scan<'t> {
    rest: Peekable<Chars<'t>>,
    line: usize,
    /// The open brackets, outermost first.
    levels: Vec<Level>,
    /// Characters that the parser has read so far, each as often as it reads it.
    read: u64,
    /// How often it reads the present one.
    times: u64,
    /// Whether an operator waits for its operand, so that the expression goes on after the line's end.
    pending: bool,
    /// The word being read.
    word: String,
    /// Whether it is its line's first, and the line before it was complete.
    starts_line: bool,
    /// Whether a line has ended since the last token.
    broken: bool,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str) -> Self {
        let (rest, levels) = (text.chars().peekable(), vec![Level::default()]);
        let (pending, starts_line, broken) = (false, false, false);
        Self { rest, line: 1, levels, read: 0, times: 1, pending, word: String::new(), starts_line, broken }
    }

    /// The next character, counted.
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.read = self.read.saturating_add(self.times);
        if c == '\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(c)
    }

    fn take(&mut self, c: char) {
        if c.is_alphanumeric() || c == '_' {
            if self.word.is_empty() {
                self.starts_line = std::mem::take(&mut self.broken) && !self.pending;
            }
            self.word.push(c);
            self.pending = false;
            return;
        }
        self.end_word();
        if c.is_whitespace() {
            self.broken |= c == '\n';
            return;
        }
        if c != '#' && std::mem::take(&mut self.broken) {
            let goes_on = self.pending || OPERATORS.contains(&c) || "[({".contains(c);
            if !goes_on {
                self.restart();
            }
        }
        match c {
            '"' => self.skip_string(),
            '`' => while self.next().is_some_and(|c| c != '`') {},
            '#' => while self.rest.peek().is_some_and(|c| *c != '\n') && self.next().is_some() {},
            '[' | '(' | '{' => self.open(c != '('),
            ']' | ')' | '}' => self.close(),
            ',' => self.next_item(),
            ';' => self.restart(),
            ':' if self.rest.peek() == Some(&'=') => {
                self.next();
                self.restart();
            }
            c if OPERATORS.contains(&c) => self.operator(),
            _ => {}
        }
    }

    /// Brackets and operators that are piled up here.
    fn depth(&self) -> usize {
        self.levels.iter().fold(0, |sum, level| sum.saturating_add(level.count))
    }

    fn count(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.count = level.count.saturating_add(1);
        }
    }

    fn operator(&mut self) {
        self.count();
        self.pending = true;
    }

    fn open(&mut self, first: bool) {
        self.count();
        self.levels.push(Level { count: 0, first });
        self.pending = false;
        self.update_times();
    }

    fn close(&mut self) {
        // A stray closing bracket is the parser's to refuse.
        if self.levels.len() > 1 {
            self.levels.pop();
        }
        self.pending = false;
        self.update_times();
    }

    fn next_item(&mut self) {
        self.restart();
        if let Some(level) = self.levels.last_mut() {
            level.first = false;
        }
        self.update_times();
    }

    /// Each first item that this is within doubles it.
    fn update_times(&mut self) {
        let firsts = self.levels.iter().filter(|level| level.first);
        self.times = firsts.fold(1, |times, _| times.saturating_mul(2));
    }

    /// A new expression at this level.
    fn restart(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.count = 0;
        }
        self.pending = false;
    }

    /// A word is an operator, or it goes on with the expression, or, first in its line, starts a new one.
    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let operator = matches!(self.word.as_str(), "in" | "not" | "with" | "as" | "else");
        self.word.clear();
        if operator {
            self.operator();
        } else if self.starts_line {
            self.restart();
        }
    }

    fn skip_string(&mut self) {
        self.pending = false;
        while let Some(c) = self.next() {
            match c {
                '"' => return,
                '\\' => {
                    self.next();
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_documents_pass() {
        let rules =
            "x := data.framework.x # a [ ( {\ny := [1, 2] if { input.a == \"[[[\\\"[[\"; not input.b }\n".repeat(1000);
        check(&rules).unwrap();
        let list: Vec<_> = (0..10_000).map(|n| format!("  {{\"a\": [\"{n}\", `{{[(`], \"b\": -1}},\n")).collect();
        check(&format!("x := [\n{}]\n", list.concat())).unwrap();
    }

    #[test]
    fn piles_are_refused_however_they_are_made() {
        for pile in [
            "[", "{", "(", "-", "+ 1 ", "1 ==\n", "\n+ 1", "[0]", ".a", "-(", "-\n", "1 in ", "\n in 1", "not ",
            "#[\n-", "{\"a\": ",
        ] {
            let text = format!("package policy\nx := 1{}", pile.repeat(1000));
            assert!(matches!(check(&text), Err(PolicyError::TooDeep { .. })), "{pile:?}");
        }
    }

    #[test]
    fn nested_first_items_are_refused_before_they_take_long() {
        let nested = |open: &str, close: &str| check(&format!("x := {}1{}", open.repeat(30), close.repeat(30)));
        assert!(nested("[", "]").is_err() && nested("{\"a\": ", "}").is_err());
        assert!(nested("[1, ", "]").is_ok() && nested("(", ")").is_ok());
    }
}
