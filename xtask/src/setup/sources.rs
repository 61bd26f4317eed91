//! The machine's own package sources, and what they say about suites that they do not name yet.
//!
//! apt's two forms (sources.list(5)): stanzas of `Field: value` in `.sources` files, one line each in `.list` files.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Package sources of the machine's Debian release, in apt's two forms.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// For a `.sources` file.
    pub(crate) stanzas: String,
    /// For a `.list` file.
    pub(crate) lines: String,
    /// Where the release's packages come from, as its first source has it.
    pub(crate) uri: Option<String>,
}

impl Sources {
    /// Reads `/etc/apt` for sources of `codename` and adds those of `extra`, which is a suite in the same places as `codename`;
    /// a source of `extra` that is there already is left out, for apt dislikes two.
    ///
    /// # Errors
    /// Where no source of `codename` is enabled.
    pub(crate) fn of_machine(codename: &str, extra: Option<&str>) -> Result<Self> {
        let mut sources = Self::default();
        let mut files = vec![Path::new("/etc/apt/sources.list").to_path_buf()];
        if let Ok(entries) = Path::new("/etc/apt/sources.list.d").read_dir() {
            files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        files.sort();
        for path in files {
            let ending = path.extension().and_then(|ending| ending.to_str());
            let Some(ending @ ("list" | "sources")) = ending else { continue };
            if !path.is_file() {
                continue;
            }
            let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
            match ending {
                "list" => sources.add_lines(&text, codename, extra),
                _ => sources.add_stanzas(&text, codename, extra),
            }
        }
        if sources.uri.is_none() {
            bail!("no package source of Debian's {codename} is enabled in /etc/apt: enable one, and run this again");
        }
        Ok(sources)
    }

    fn add_lines(&mut self, text: &str, codename: &str, extra: Option<&str>) {
        for line in text.lines() {
            let Some((head, suite, components)) = split_line(line) else { continue };
            if !belongs(suite, codename) || Some(suite) == extra {
                continue;
            }
            self.lines += &format!("{head} {suite} {components}\n");
            if suite == codename {
                self.uri.get_or_insert_with(|| head.split_whitespace().next_back().unwrap_or_default().to_owned());
                if let Some(extra) = extra {
                    self.lines += &format!("{head} {extra} {components}\n");
                }
            }
        }
    }

    fn add_stanzas(&mut self, text: &str, codename: &str, extra: Option<&str>) {
        let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for stanza in without_comments.join("\n").split("\n\n").filter(|stanza| is_binary_source(stanza)) {
            let suites: Vec<&str> = field(stanza, "Suites").unwrap_or_default().split_whitespace().collect();
            let is_ours = |suite: &&str| belongs(suite, codename) && Some(*suite) != extra;
            let mut ours: Vec<&str> = suites.into_iter().filter(is_ours).collect();
            if ours.is_empty() {
                continue;
            }
            if ours.contains(&codename) {
                let uris = field(stanza, "URIs").unwrap_or_default();
                self.uri.get_or_insert_with(|| uris.split_whitespace().next().unwrap_or_default().to_owned());
                ours.extend(extra);
            }
            self.stanzas += &with_suites(stanza, &ours.join(" "));
        }
    }
}

/// Whether `suite` is `codename` or one of the suites beside it, such as its updates.
fn belongs(suite: &str, codename: &str) -> bool {
    suite.strip_prefix(codename).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '/']))
}

/// `deb [options] uri suite components` as (`deb [options] uri`, suite, components).
fn split_line(line: &str) -> Option<(&str, &str, &str)> {
    let line = line.split('#').next()?.trim();
    line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?;
    let after_options = line.find(']').map_or(3, |end| end + 1);
    let uri = line.get(after_options..)?.trim_start();
    let rest = uri.split_once([' ', '\t'])?.1.trim_start();
    let head = line.strip_suffix(rest)?.trim_end();
    let (suite, components) = rest.split_once([' ', '\t'])?;
    Some((head, suite, components.trim()))
}

fn is_binary_source(stanza: &str) -> bool {
    let binary = field(stanza, "Types").is_some_and(|types| types.split_whitespace().any(|kind| kind == "deb"));
    binary && field(stanza, "Enabled").is_none_or(|enabled| !enabled.eq_ignore_ascii_case("no"))
}

/// The first line of a stanza's field.
fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let fields = stanza.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The stanza with other suites, and a blank line after it.
fn with_suites(stanza: &str, suites: &str) -> String {
    let mut out = String::new();
    for line in stanza.lines().filter(|line| !line.trim().is_empty()) {
        let key = line.split(':').next().unwrap_or_default();
        if key.eq_ignore_ascii_case("Suites") {
            out += &format!("Suites: {suites}\n");
        } else {
            out += &format!("{line}\n");
        }
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources() {
        let mut sources = Sources::default();
        let text = "# comment\n\
            deb-src http://a.example/debian bookworm main\n\
            deb http://a.example/debian bookworm main contrib # why\n\
            deb http://a.example/debian bookworm-backports main\n\
            deb [arch=amd64 signed-by=/k.gpg] http://s.example/security bookworm-security main\n\
            deb http://o.example/other stable main\n";
        sources.add_lines(text, "bookworm", Some("bookworm-backports"));
        let expected = "deb http://a.example/debian bookworm main contrib\n\
            deb http://a.example/debian bookworm-backports main contrib\n\
            deb [arch=amd64 signed-by=/k.gpg] http://s.example/security bookworm-security main\n";
        assert_eq!(sources.lines, expected);
        assert_eq!(sources.uri.as_deref(), Some("http://a.example/debian"));
    }

    #[test]
    fn stanzas() {
        let mut sources = Sources::default();
        let text = "Types: deb\n# a comment\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\
            Signed-By:\n -----BEGIN\n .\n\n\
            Types: deb\nURIs: http://s.example/security\nSuites: bookworm-security\nComponents: main\n\n\
            Types: deb\nEnabled: no\nURIs: http://x.example\nSuites: bookworm\nComponents: main\n\n\
            Types: deb-src\nURIs: http://y.example\nSuites: bookworm\nComponents: main\n\n\
            Types: deb\nURIs: http://a.example/debian\nSuites: bookworm-backports\nComponents: main\n\n\
            Types: deb\nURIs: http://z.example\nSuites: nodistro\nComponents: main\n";
        sources.add_stanzas(text, "bookworm", Some("bookworm-backports"));
        let expected = "Types: deb\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates bookworm-backports\n\
            Components: main\nSigned-By:\n -----BEGIN\n .\n\n\
            Types: deb\nURIs: http://s.example/security\nSuites: bookworm-security\nComponents: main\n\n";
        assert_eq!(sources.stanzas, expected);
        assert_eq!(sources.uri.as_deref(), Some("http://a.example/debian"));
    }

    #[test]
    fn another_release_is_not_this_one() {
        let mut sources = Sources::default();
        sources.add_lines("deb http://a.example/debian bookwormy main\n", "bookworm", None);
        assert_eq!(sources, Sources::default());
    }
}
