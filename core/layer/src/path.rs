//! Paths as the reference reads them: always from the layer's root, `.` and `..` resolved by text alone.

/// Splits a path into its names. `..` takes back the name before it and stays at the root where there is none, so no
/// path leads out of the layer.
pub(crate) fn components(path: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            _ => names.push(name),
        }
    }
    names
}

/// Splits a path, as it stands, behind its last slash.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    path.split_at_checked(slash.map_or(0, |slash| slash.saturating_add(1))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_root() {
        for (path, names) in [
            ("", ""),
            ("./", ""),
            ("a//b/./c/", "a b c"),
            ("/etc/../../../x", "x"),
            ("../..", ""),
            ("a/b/../c", "a c"),
            ("...", "..."),
        ] {
            let expected: Vec<_> = names.split_whitespace().map(str::as_bytes).collect();
            assert_eq!(components(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn splits_behind_the_last_slash() {
        assert_eq!(split(b"a/b/c"), (&b"a/b/"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
        assert_eq!(split(b"c/"), (&b"c/"[..], &b""[..]));
    }
}
