//! What patterns match, and what they must not.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(pattern: &str, yes: &[&str], no: &[&str]) {
    let compiled = Pattern::anchored(pattern);
    assert_eq!(compiled.error(), None, "{pattern}");
    for text in yes {
        assert!(compiled.matches(text), "{pattern} must match {text:?}");
    }
    for text in no {
        assert!(!compiled.matches(text), "{pattern} must not match {text:?}");
    }
}

#[test]
fn patterns_match_the_whole_text() {
    check("a+", &["a", "aaa"], &["", "ba", "ab", "a\n"]);
    check("^a", &["a"], &["ab", "ba"]);
    check("a$", &["a"], &["a\n", "ba"]);
    check("", &[""], &["a"]);
    check(".*", &["", "abc"], &["a\nb"]);
    check("a|b", &["ax", "a", "xb", "b"], &["x"]);
}

#[test]
fn perl_classes_are_ascii() {
    check(r"\d+", &["09"], &["٣", "a"]);
    check(r"[\d.]+", &["1.2"], &["٣"]);
    check(r"\w+", &["aZ_9"], &["é"]);
    check(r"\s", &[" ", "\t", "\u{c}"], &["\u{b}", "\u{a0}"]);
    check(r"[^\S]", &[" "], &["\u{b}", "a"]);
    check(r"é\b.*", &[], &["é"]);
    check(r"a\b.*", &["a", "a-", "aé"], &["ab"]);
    check(r"a\B.*", &["ab"], &["a", "aé"]);
    check(r"[[:word:]-]+", &["a-b"], &["é"]);
}

#[test]
fn what_only_go_has() {
    check(r"\Qa.b*\E+", &["a.b*", "a.b**"], &["axb"]);
    check(r"\Qa", &["a$"], &["a"]);
    check(r"\101\060", &["A0"], &[]);
    check(r"\<\>\@\-", &["<>@-"], &[]);
    check("a{", &["a{"], &["a"]);
    check("a{,3}", &["a{,3}"], &["aa"]);
    check("}", &["}"], &[]);
    check("a{2,3}?", &["aa", "aaa"], &["a", "aaaa"]);
    check("[a&&b]+", &["a&b"], &[]);
    check("[[a]+", &["[a"], &[]);
    check("[]a-]+", &["]a-"], &["b"]);
    check("[^]a]", &["b"], &["]", "a"]);
    check("[a~~+--c]+", &["a~+,-c"], &["b"]);
    check(r"\p{^Greek}\P{^Greek}\pL", &["aαé"], &["αaé", "aα1"]);
    check("(?i)k", &["k", "K", "\u{212a}"], &["x"]);
    check("(?P<n>a)(?<m>b)(?:c)", &["abc"], &[]);
    check(r"\x41\x{1F600}", &["A😀"], &[]);
    check("#  ~", &["#  ~"], &[]);
}

#[test]
fn what_go_rejects_matches_nothing() {
    for bad in [
        "a**",
        "*",
        "(",
        ")",
        "[",
        "a{1001}",
        r"\8",
        r"\1",
        r"\y",
        "(?x)a",
        "(?=a)",
        "[b-a]",
        r"\pX{",
        "a{3,2}",
        "[[:foo:]]",
        r"\",
        "(?u)a",
        "^*",
    ] {
        let pattern = Pattern::new(bad);
        assert!(bad == "^*" || pattern.error().is_some(), "{bad}");
    }
    assert!(!Pattern::anchored("(").matches("("));
}

#[test]
fn enormous_patterns_are_refused() {
    assert!(Pattern::anchored("((a{1000}){1000}){1000}").error().is_some());
    assert!(Pattern::anchored(&"(".repeat(10_000)).error().is_some());
}

proptest! {
    #[test]
    fn quoting_matches_exactly(text in "\\PC{0,20}") {
        prop_assume!(!text.contains('\\'));
        let quoted = Pattern::anchored(&format!("\\Q{text}\\E"));
        prop_assert!(quoted.matches(&text));
    }

    #[test]
    fn no_pattern_panics(pattern in "[\\\\\\[\\](){}*+?.^$|a-c0-9:,\\-PpQExbd&~<>=!]{0,24}", text in "\\PC{0,16}") {
        Pattern::anchored(&pattern).matches(&text);
    }

    #[test]
    fn ordinary_patterns_agree_with_the_regex_crate(pattern in "[abc.+*?|]{0,12}", text in "[abc]{0,8}") {
        let ours = Pattern::new(&pattern);
        if ours.error().is_none() {
            prop_assert_eq!(ours.matches(&text), Regex::new(&pattern).unwrap().is_match(&text));
        }
    }
}
