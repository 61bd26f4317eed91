//! Forms of patterns that say something else than they seem to.

/// Whether a pattern takes (nearly) everything.
pub(super) fn is_wildcard(pattern: &str) -> bool {
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let inner = inner.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(inner);
    let inner = inner.strip_prefix("?:").or(inner.strip_prefix("?s:")).unwrap_or(inner);
    matches!(inner, ".*" | ".+" | ".*?" | ".+?" | "[^=]*" | "[^=]+" | "[\\s\\S]*" | "[\\s\\S]+" | "\\S*" | "\\S+")
}

/// Whether a pattern only takes its own text.
pub(super) fn is_literal(pattern: &str) -> bool {
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' if rest.next().is_none_or(|escaped| escaped.is_ascii_alphanumeric()) => return false,
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '|' | '^' | '$' => return false,
            _ => {}
        }
    }
    true
}

/// Why a pattern does not hold the whole text, though it is anchored: the engine puts `^` and `$` around it, and an
/// alternation outside any group makes each bind one branch only; `(?m)` makes both mean lines.
pub(super) fn unanchored(pattern: &str) -> Option<&'static str> {
    let mut branches = false;
    walk(pattern, |event| branches |= matches!(event, Event::Or(0)));
    if branches {
        return Some("is an alternation outside a group: the first branch only fixes the start, the last only the end");
    }
    let flags = pattern.match_indices("(?").filter_map(|(at, _)| pattern.get(at.checked_add(2)?..));
    let on = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphabetic()).any(|c| c == 'm');
    flags.into_iter().any(on).then_some("is compared line by line, since (?m) is set")
}

/// Whether a group that repeats something is itself repeated, or counts multiply beyond a thousand.
pub(super) fn is_expensive(pattern: &str) -> bool {
    // For each open group, whether something in it repeats; and for the one that was just closed.
    let (mut groups, mut closed, mut found) = (vec![false], false, false);
    walk(pattern, |event| {
        match event {
            Event::Open => groups.push(false),
            Event::Close => {
                closed = groups.pop().unwrap_or_default();
                if groups.is_empty() {
                    groups.push(false);
                }
                if let Some(outer) = groups.last_mut() {
                    *outer |= closed;
                }
                return;
            }
            Event::Repeat => {
                found |= closed;
                if let Some(group) = groups.last_mut() {
                    *group = true;
                }
            }
            Event::Or(_) | Event::Other => {}
        }
        closed = false;
    });
    found
}

/// What stands in a pattern.
enum Event {
    Close,
    Open,
    /// `|` within so many groups.
    Or(usize),
    Other,
    /// `*`, `+`, or a brace with more than one turn.
    Repeat,
}

/// Goes over a pattern, past escapes, quotations and classes.
fn walk(pattern: &str, mut each: impl FnMut(Event)) {
    let mut rest = pattern.chars().peekable();
    let mut depth = 0_usize;
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                if rest.next() == Some('Q') {
                    let mut last = ' ';
                    for quoted in rest.by_ref() {
                        if last == '\\' && quoted == 'E' {
                            break;
                        }
                        last = quoted;
                    }
                }
                each(Event::Other);
            }
            '[' => {
                // A bracket that comes first is a member.
                rest.next_if_eq(&'^');
                rest.next_if_eq(&']');
                while let Some(member) = rest.next() {
                    match member {
                        '\\' => {
                            rest.next();
                        }
                        ']' => break,
                        _ => {}
                    }
                }
                each(Event::Other);
            }
            '(' => {
                depth = depth.saturating_add(1);
                each(Event::Open);
            }
            ')' => {
                depth = depth.saturating_sub(1);
                each(Event::Close);
            }
            '|' => each(Event::Or(depth)),
            '*' | '+' => each(Event::Repeat),
            '{' => {
                let inner: String = rest.clone().take_while(|c| *c != '}').collect();
                let repeats = inner.ends_with(',')
                    || inner.split(',').next_back().and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n > 1);
                each(if repeats { Event::Repeat } else { Event::Other });
            }
            _ => each(Event::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_literals() {
        for wild in [".*", ".+", "^.*$", "(.*)", "(?:.+)", "[^=]+", "\\S+"] {
            assert!(is_wildcard(wild), "{wild}");
        }
        for tame in ["a.*", "[0-9]+", "", "\\.\\*"] {
            assert!(!is_wildcard(tame), "{tame}");
        }
        assert!(
            is_literal("a-b_1/")
                && is_literal("a\\.b")
                && !is_literal("a.b")
                && !is_literal("\\d")
                && !is_literal("a\\")
        );
    }

    #[test]
    fn anchors_that_hold_only_one_end() {
        for bad in ["a|b", "A=1|A=2", "(a|b)|c", "(?m)a", "x(?im:a)", "\\Qa\\E|b"] {
            assert!(unanchored(bad).is_some(), "{bad}");
        }
        for good in ["(a|b)", "[|]", "[]|]", "a\\|b", "\\Qa|b\\E", "(?i)m", "(?:m|n)", "a"] {
            assert!(unanchored(good).is_none(), "{good}");
        }
    }

    #[test]
    fn repetitions_of_repetitions() {
        for bad in ["(a+)+", "(a*b)*", "((a+))+", "(a{2,})+", "(?:x+y?){3,9}", "(a+){2,}"] {
            assert!(is_expensive(bad), "{bad}");
        }
        for good in ["a+", "(ab)+", "(a+)", "(a+)b+", "[(a+)]+", "\\(a+\\)+", "(a+)?", "(a+){1}"] {
            assert!(!is_expensive(good), "{good}");
        }
    }
}
