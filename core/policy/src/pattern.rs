//! Patterns with the meaning that Go's RE2 gives them, matched in linear time, compiled once, and
//! not before it is needed: most of a policy's are never asked.
//!
//! The pattern is rewritten into the syntax of the `regex` crate token by token (reference: Go `regexp/syntax`, "Syntax").
//! They agree but for these, which the rewriting settles: `\d`, `\w`, `\s` and `\b` are ASCII in Go (and its `\s` has no
//! vertical tab); `\Q…\E`, octal escapes and escapes of any punctuation exist in Go only; a brace that starts no repetition
//! stands for itself in Go; nested classes and class operators exist in `regex` only; repeats of repeats and more than
//! 1,000 repetitions are errors in Go. What Go rejects never matches anything, as in the reference engine.

use std::{iter::Peekable, str::Chars, sync::OnceLock};

use regex::{Regex, RegexBuilder};

/// Bound on a compiled pattern's size in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// Deepest nesting of groups.
const MAX_NESTING: u32 = 250;
/// Go's bound on repetitions.
const MAX_REPEAT: u32 = 1000;

/// A pattern; one that cannot be compiled matches nothing.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Result<Regex, String>>,
}

impl Pattern {
    /// The pattern, made to match from first to last character the way the reference engine does it: `^` is put before it
    /// unless it starts with one, `$` after it unless it ends with one. (So `a|b` means "starts with a, or ends with b".)
    pub(crate) fn anchored(pattern: &str) -> Self {
        let start = if pattern.starts_with('^') { "" } else { "^" };
        let end = if pattern.ends_with('$') { "" } else { "$" };
        Self::new(&format!("{start}{pattern}{end}"))
    }

    /// The pattern as it stands.
    pub(crate) fn new(pattern: &str) -> Self {
        Self { text: pattern.into(), compiled: OnceLock::new() }
    }

    /// Whether the pattern matches somewhere in the text.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.compiled().as_ref().is_ok_and(|regex| regex.is_match(text))
    }

    /// Why it cannot be compiled, if it cannot: such a pattern matches nothing.
    pub(crate) fn error(&self) -> Option<&str> {
        self.compiled().as_ref().err().map(String::as_str)
    }

    fn compiled(&self) -> &Result<Regex, String> {
        self.compiled.get_or_init(|| compile(&self.text))
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let rewritten = Rewriter::rewrite(pattern)?;
    let mut builder = RegexBuilder::new(&rewritten);
    builder.size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).nest_limit(MAX_NESTING);
    builder.build().map_err(|error| error.to_string())
}

/// Rewrites one pattern.
struct Rewriter<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
    /// Whether the last thing written can be repeated.
    repeatable: bool,
    /// Whether the last thing written is a repetition.
    repeated: bool,
}

type Step = Result<(), String>;

impl<'p> Rewriter<'p> {
    fn rewrite(pattern: &'p str) -> Result<String, String> {
        let rest = pattern.chars().peekable();
        let mut rewriter = Self { rest, out: String::with_capacity(pattern.len()), repeatable: false, repeated: false };
        while let Some(c) = rewriter.rest.next() {
            rewriter.token(c)?;
        }
        Ok(rewriter.out)
    }

    fn token(&mut self, c: char) -> Step {
        match c {
            '\\' => self.escape(),
            '[' => self.class(),
            '(' => self.group(),
            '*' | '+' | '?' => self.repeat(&c.to_string()),
            '{' => self.braces(),
            '|' => self.syntax(c, false),
            ')' | '^' | '$' | '.' => self.syntax(c, true),
            other => self.literal(other),
        }
    }

    /// Writes a character that means the same in both.
    fn syntax(&mut self, c: char, repeatable: bool) -> Step {
        self.out.push(c);
        self.wrote(repeatable)
    }

    /// Notes that something other than a repetition was written.
    fn wrote(&mut self, repeatable: bool) -> Step {
        self.repeatable = repeatable;
        self.repeated = false;
        Ok(())
    }

    fn literal(&mut self, c: char) -> Step {
        push_literal(&mut self.out, c);
        self.wrote(true)
    }

    /// `*`, `+`, `?` or `{n,m}`, each with an optional `?` after it.
    fn repeat(&mut self, operator: &str) -> Step {
        if self.repeated {
            return Err(format!("nested repetition operator {operator:?}"));
        }
        if !self.repeatable {
            return Err(format!("missing argument to repetition operator {operator:?}"));
        }
        self.out.push_str(operator);
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        self.repeated = true;
        Ok(())
    }

    /// A brace: a repetition if it has its form, itself otherwise.
    fn braces(&mut self) -> Step {
        let mut ahead = self.rest.clone();
        let Some(inner) = repetition(&mut ahead) else { return self.literal('{') };
        self.rest = ahead;
        let most = inner.split(',').filter(|part| !part.is_empty()).map(str::parse::<u32>);
        let mut numbers = Vec::new();
        for number in most {
            numbers.push(number.ok().filter(|n| *n <= MAX_REPEAT).ok_or("repetition over 1000")?);
        }
        if let [least, greatest] = numbers[..]
            && least > greatest
        {
            return Err(format!("invalid repetition {{{inner}}}"));
        }
        self.repeat(&format!("{{{inner}}}"))
    }

    /// `(`: a plain, named or non-capturing group, or flags.
    fn group(&mut self) -> Step {
        self.out.push('(');
        self.wrote(false)?;
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        self.out.push('?');
        let mut named = false;
        loop {
            let c = self.rest.next().ok_or("missing closing )")?;
            match c {
                'P' if self.rest.peek() == Some(&'<') => {}
                '<' => named = true,
                '>' if named => {
                    self.out.push('>');
                    return Ok(());
                }
                c if named && (c.is_ascii_alphanumeric() || c == '_') => {}
                'i' | 'm' | 's' | 'U' | '-' if !named => {}
                ')' | ':' if !named => {
                    self.out.push(c);
                    return Ok(());
                }
                other => return Err(format!("invalid group syntax at {other:?}")),
            }
            self.out.push(c);
        }
    }

    fn escape(&mut self) -> Step {
        let c = self.rest.next().ok_or("trailing backslash at end of pattern")?;
        match c {
            'A' | 'z' => {
                self.out.push('\\');
                self.out.push(c);
                self.wrote(true)
            }
            'b' => self.text(r"(?-u:\b)"),
            'B' => self.text(r"(?-u:\B)"),
            'Q' => self.quoted(),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                let class = perl_class(c);
                self.text(&format!("[{class}]"))
            }
            'p' | 'P' => {
                let class = self.property(c)?;
                self.text(&class)
            }
            _ => {
                let character = self.character(c)?;
                self.literal(character)
            }
        }
    }

    fn text(&mut self, text: &str) -> Step {
        self.out.push_str(text);
        self.wrote(true)
    }

    /// `\Q…`: all literal up to `\E` or the end.
    fn quoted(&mut self) -> Step {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.next_if_eq(&'E').is_some() {
                return Ok(());
            }
            self.literal(c)?;
        }
        Ok(())
    }

    /// The character that an escape stands for.
    fn character(&mut self, c: char) -> Result<char, String> {
        match c {
            'a' => Ok('\u{7}'),
            'f' => Ok('\u{c}'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'v' => Ok('\u{b}'),
            'x' => self.hexadecimal(),
            '0' => Ok(self.octal(0)),
            '1'..='7' if self.rest.peek().is_some_and(|next| next.is_digit(8)) => {
                Ok(self.octal(c.to_digit(8).unwrap_or_default()))
            }
            c if c.is_ascii_punctuation() => Ok(c),
            other => Err(format!("invalid escape sequence \\{other}")),
        }
    }

    /// Up to two more octal digits.
    fn octal(&mut self, first: u32) -> char {
        let mut value = first;
        for _ in 0..2 {
            let Some(digit) = self.rest.next_if(|c| c.is_digit(8)).and_then(|c| c.to_digit(8)) else { break };
            value = value.saturating_mul(8).saturating_add(digit);
        }
        char::from_u32(value).unwrap_or('\0')
    }

    /// `\x7F` or `\x{10FFFF}`.
    fn hexadecimal(&mut self) -> Result<char, String> {
        let digits: String = if self.rest.next_if_eq(&'{').is_some() {
            self.rest.by_ref().take_while(|c| *c != '}').collect()
        } else {
            self.rest.by_ref().take(2).collect()
        };
        let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
        plain
            .then(|| u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32))
            .flatten()
            .ok_or_else(|| format!("invalid escape sequence \\x{digits}"))
    }

    /// `\pL`, `\p{Greek}`, `\p{^Greek}`, and negated.
    fn property(&mut self, c: char) -> Result<String, String> {
        let first = self.rest.next().ok_or("invalid character class range \\p")?;
        let mut name = first.to_string();
        if first == '{' {
            name = self.rest.by_ref().take_while(|c| *c != '}').collect();
        }
        let (negated, name) = match name.strip_prefix('^') {
            Some(name) => (true, name),
            None => (false, name.as_str()),
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphabetic() || c == '_') {
            return Err(format!("invalid character class range \\p{{{name}}}"));
        }
        let letter = if (c == 'P') == negated { 'p' } else { 'P' };
        Ok(format!("\\{letter}{{{name}}}"))
    }

    /// A bracketed class.
    fn class(&mut self) -> Step {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let c = self.rest.next().ok_or("missing closing ]")?;
            if c == ']' && !first {
                break;
            }
            first = false;
            self.class_item(c)?;
        }
        self.out.push(']');
        self.wrote(true)
    }

    /// One item of a class: a named class, an escape, a character or a range.
    fn class_item(&mut self, c: char) -> Step {
        if c == '[' && self.rest.peek() == Some(&':') {
            let mut ahead = self.rest.clone();
            if let Some(name) = posix_class(&mut ahead) {
                self.rest = ahead;
                self.out.push_str(&name?);
                return Ok(());
            }
        }
        if c == '\\'
            && let Some(letter) = self.rest.next_if(|c| "dDsSwWpP".contains(*c))
        {
            let class = match letter {
                'p' | 'P' => self.property(letter)?,
                _ => format!("[{}]", perl_class(letter)),
            };
            self.out.push_str(&class);
            return Ok(());
        }
        let low = self.class_character(c)?;
        let mut ahead = self.rest.clone();
        // A dash before the closing bracket is itself.
        if ahead.next() == Some('-') && ahead.peek().is_some_and(|next| *next != ']') {
            self.rest.next();
            let c = self.rest.next().ok_or("missing closing ]")?;
            let high = self.class_character(c)?;
            if high < low {
                return Err(format!("invalid character class range {low:?}-{high:?}"));
            }
            push_literal(&mut self.out, low);
            self.out.push('-');
            push_literal(&mut self.out, high);
        } else {
            push_literal(&mut self.out, low);
        }
        Ok(())
    }

    fn class_character(&mut self, c: char) -> Result<char, String> {
        if c != '\\' {
            return Ok(c);
        }
        let escaped = self.rest.next().ok_or("trailing backslash at end of pattern")?;
        self.character(escaped)
    }
}

/// Writes a character that stands for itself, inside a class or outside.
fn push_literal(out: &mut String, c: char) {
    if c.is_alphanumeric() {
        out.push(c);
    } else {
        out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
    }
}

/// Inside of a Perl class in ASCII.
fn perl_class(letter: char) -> &'static str {
    match letter {
        'd' => "0-9",
        'D' => "^0-9",
        's' => r"\t\n\x0C\r\x20",
        'S' => r"^\t\n\x0C\r\x20",
        'w' => "0-9A-Za-z_",
        _ => "^0-9A-Za-z_",
    }
}

/// The inside of `{n}`, `{n,}` or `{n,m}` and its closing brace, if that is what comes.
fn repetition(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut inner = String::new();
    for c in rest.by_ref() {
        match c {
            '}' => {
                let (least, most) = inner.split_once(',').unwrap_or((&inner, ""));
                let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !leading_zero(text);
                return (!least.is_empty() && number(least) && number(most)).then_some(inner);
            }
            c if (c.is_ascii_digit() || c == ',') && inner.len() < 64 => inner.push(c),
            _ => return None,
        }
    }
    None
}

/// Go takes no number with a zero in front for a repetition.
fn leading_zero(text: &str) -> bool {
    text.len() > 1 && text.starts_with('0')
}

/// `[:name:]` from its colon on, as `regex` writes it; an error for an unknown name; nothing if it is not one.
fn posix_class(rest: &mut Peekable<Chars<'_>>) -> Option<Result<String, String>> {
    rest.next_if_eq(&':')?;
    let mut name = String::new();
    loop {
        match rest.next()? {
            ':' if rest.next_if_eq(&']').is_some() => break,
            ']' => return None,
            c => name.push(c),
        }
    }
    const KNOWN: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
        "word", "xdigit",
    ];
    let plain = name.strip_prefix('^').unwrap_or(&name);
    if KNOWN.contains(&plain) {
        Some(Ok(format!("[:{name}:]")))
    } else {
        Some(Err(format!("invalid character class range [:{name}:]")))
    }
}

#[cfg(test)]
mod tests;
