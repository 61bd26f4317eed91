//! Where a document says what: lines and ranges of its text.

use std::{collections::BTreeSet, fmt, ops::Range};

use regorus::unstable::{Expr, Module, Ref, Rule, RuleHead, Span};
use serde_json::Value;

use crate::{
    amendment::Step,
    document::{self, Document, RuleKind},
    error::PolicyError,
    lines::Lines,
    point::Point,
};

/// A document's text, understood far enough to point into it.
pub struct Source {
    document: Document,
    modules: Vec<Ref<Module>>,
    text: String,
    /// The text as the parser has it.
    lines: Lines,
}

/// Who answers at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answering {
    /// A rule of the document's own.
    Document,
    /// The framework: the rule is a plain alias.
    Framework,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its bytes.
    pub range: Range<usize>,
    /// Its first line, counted from 1.
    pub line: u32,
    /// Whether it is a list that is written out.
    pub list: bool,
    /// Whether it is an object that is written out.
    pub object: bool,
    /// The bytes of its last item or member's value.
    pub last: Option<Range<usize>>,
}

impl Source {
    /// Parses a text.
    ///
    /// # Errors
    /// [`PolicyError`] where it is no document.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut document = Document::parse(text)?;
        let lines = Lines::new(text).map_err(PolicyError::Syntax)?;
        Ok(Self { modules: document.modules(), document, text: text.to_owned(), lines })
    }

    /// Whether the document defines something of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.line(name).is_some()
    }

    /// Whether something is a plain alias of the framework's.
    #[must_use]
    pub fn is_alias(&self, name: &str) -> bool {
        self.document.kind(name) == Some(RuleKind::Alias)
    }

    /// Whether a value is written out to its last item, in lists, objects, texts, numbers and truth values.
    #[must_use]
    pub fn is_written_out(&self, name: &str) -> bool {
        self.expression(&[Step::from(name)]).is_some_and(is_constant)
    }

    /// Names of everything that the document defines.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        self.modules.iter().flat_map(|module| &module.policy).filter_map(|rule| document::rule_name(rule)).collect()
    }

    /// Who answers at a point; absent where the document has no rule for it.
    #[must_use]
    pub fn answering(&self, point: Point) -> Option<Answering> {
        self.document.rule(point).map(|kind| match kind {
            RuleKind::Alias => Answering::Framework,
            RuleKind::Written => Answering::Document,
        })
    }

    /// The value of something that the document defines, as far as it needs no request. Absent where it has none.
    ///
    /// # Errors
    /// [`PolicyError::Evaluation`].
    pub fn value(&mut self, name: &str) -> Result<Option<Value>, PolicyError> {
        self.document.constant(name)
    }

    /// The text of every rule of this name, in their order.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        let rules = self.modules.iter().flat_map(|module| &module.policy);
        let spans = rules.filter(|rule| document::rule_name(rule).as_deref() == Some(name)).map(|rule| rule.span());
        let texts = spans.filter_map(|span| self.text.get(self.range(span_bytes(span)?)));
        texts.collect::<Vec<_>>().join("\n")
    }

    /// First line of the first rule of this name.
    #[must_use]
    pub fn line(&self, name: &str) -> Option<u32> {
        let mut rules = self.modules.iter().flat_map(|module| &module.policy);
        let rule = rules.find(|rule| document::rule_name(rule).as_deref() == Some(name))?;
        Some(self.lines.line(rule.span().line))
    }

    /// Where a value stands. Absent unless it is written out, all the way, in the only rule of its name.
    #[must_use]
    pub fn find(&self, path: &[Step]) -> Option<Place> {
        let mut place = place(self.expression(path)?)?;
        place.range = self.range(place.range);
        place.line = self.lines.line(place.line);
        place.last = place.last.map(|last| self.range(last));
        Some(place)
    }

    /// Bytes of the text, where the parser has others.
    fn range(&self, parsed: Range<usize>) -> Range<usize> {
        self.lines.offset(parsed.start)..self.lines.offset(parsed.end)
    }

    /// What a way leads to.
    fn expression(&self, path: &[Step]) -> Option<&Expr> {
        let (Step::Key(name), rest) = path.split_first()? else { return None };
        let mut rules = self.modules.iter().flat_map(|module| &module.policy);
        let rule = rules.find(|rule| document::rule_name(rule).as_deref() == Some(name))?;
        if rules.any(|rule| document::rule_name(rule).as_deref() == Some(name)) {
            return None;
        }
        let Rule::Spec { head: RuleHead::Compr { refr, assign: Some(assign), .. }, bodies, .. } = rule.as_ref() else {
            return None;
        };
        if !bodies.is_empty() || !matches!(refr.as_ref(), Expr::Var { .. }) {
            return None;
        }
        let mut at: &Expr = &assign.value;
        for step in rest {
            at = below(at, step)?;
        }
        Some(at)
    }

    /// Like [`Self::find`], but what is not there is looked for further up: the line of the nearest thing that holds it.
    #[must_use]
    pub fn nearest_line(&self, path: &[Step]) -> Option<u32> {
        let mut path = path;
        loop {
            if let Some(place) = self.find(path) {
                return Some(place.line);
            }
            match path.split_last()? {
                (Step::Key(name), []) => return self.line(name),
                (_, shorter) => path = shorter,
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Source").finish_non_exhaustive()
    }
}

/// The value that a step leads to.
fn below<'e>(expr: &'e Expr, step: &Step) -> Option<&'e Expr> {
    match (expr, step) {
        (Expr::Array { items, .. }, Step::Index(index)) => items.get(*index).map(|item| &**item),
        (Expr::Object { fields, .. }, Step::Key(wanted)) => {
            let mut fields = fields.iter().filter(|(_, key, _)| is_text(key, wanted));
            let field = fields.next()?;
            fields.next().is_none().then_some(&*field.2)
        }
        _ => None,
    }
}

/// Whether an expression is this text, written out.
fn is_text(expr: &Expr, wanted: &str) -> bool {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().is_ok_and(|text| text.as_ref() == wanted)
        }
        _ => false,
    }
}

/// Whether an expression needs no evaluation. The depth of documents is bounded before they are parsed.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Bool { .. } | Expr::Null { .. } | Expr::Number { .. } | Expr::RawString { .. } | Expr::String { .. } => {
            true
        }
        Expr::Array { items, .. } => items.iter().all(|item| is_constant(item)),
        Expr::Object { fields, .. } => fields.iter().all(|(_, key, value)| {
            matches!(key.as_ref(), Expr::RawString { .. } | Expr::String { .. }) && is_constant(value)
        }),
        _ => false,
    }
}

/// Where an expression stands; absent unless it is a value that is written out.
fn place(expr: &Expr) -> Option<Place> {
    let last = match expr {
        Expr::Array { items, .. } => items.last().map(|item| &**item),
        Expr::Object { fields, .. } => fields.last().map(|(_, _, value)| &**value),
        _ => None,
    };
    Some(Place {
        range: bytes(expr)?,
        line: expr.span().line,
        list: matches!(expr, Expr::Array { .. }),
        object: matches!(expr, Expr::Object { .. }),
        last: match last {
            Some(last) => Some(bytes(last)?),
            None => None,
        },
    })
}

/// The bytes of a value that is written out.
fn bytes(expr: &Expr) -> Option<Range<usize>> {
    let span = expr.span();
    let Range { start, end } = span_bytes(span)?;
    let range = match expr {
        // The parser's span of a text is what stands between its quotes.
        Expr::String { .. } | Expr::RawString { .. } => start.checked_sub(1)?..end.checked_add(1)?,
        Expr::Array { .. } | Expr::Bool { .. } | Expr::Null { .. } | Expr::Number { .. } => start..end,
        // Of an object's span only the end and the place in lines and columns are its own; the start is its last member's.
        Expr::Object { .. } => brace(span)?..end,
        _ => return None,
    };
    (range.start <= range.end).then_some(range)
}

fn span_bytes(span: &Span) -> Option<Range<usize>> {
    Some(usize::try_from(span.start).ok()?..usize::try_from(span.end).ok()?)
}

/// Where the brace is that a span starts with, by its line and column. The parser counts columns in bytes, a tab as four.
fn brace(span: &Span) -> Option<usize> {
    let text = span.source.get_contents();
    let line = usize::try_from(span.line).ok()?.checked_sub(1)?;
    let mut starts = std::iter::once(0).chain(text.match_indices('\n').filter_map(|(at, _)| at.checked_add(1)));
    let start = starts.nth(line)?;
    let mut column = 1_u32;
    for (offset, byte) in text.get(start..)?.bytes().enumerate() {
        if column >= span.col {
            return (byte == b'{' && column == span.col).then(|| start.checked_add(offset))?;
        }
        column = column.checked_add(if byte == b'\t' { 4 } else { 1 })?;
    }
    None
}
