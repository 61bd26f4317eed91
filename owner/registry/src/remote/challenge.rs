//! The `WWW-Authenticate` header (RFC 9110 section 11.6.1; parameters of the token protocol of Docker's registry).

/// The login that a server asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from another server.
    Bearer {
        /// The URL that gives tokens.
        realm: String,
        /// The name of the service that the token is for.
        service: Option<String>,
        /// What the token must allow, if the server says.
        scope: Option<String>,
    },
}

/// The first challenge that we can meet among the values of the header; a token is preferred.
pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for challenge in headers.flat_map(split) {
        let (scheme, parameters) = challenge;
        if scheme.eq_ignore_ascii_case("bearer") {
            let find = |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            let value = |name| find(name).map(|(_, value)| value.clone());
            if let Some(realm) = value("realm") {
                return Some(Challenge::Bearer { realm, service: value("service"), scope: value("scope") });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

type Parsed = (String, Vec<(String, String)>);

/// Parts one header value into schemes with their parameters. What cannot be read ends it.
fn split(header: &str) -> Vec<Parsed> {
    let mut found: Vec<Parsed> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c))).unwrap_or(rest.len());
        if end == 0 {
            return found;
        }
        let (word, after) = rest.split_at(end);
        match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let Some((value, after)) = parameter(value.trim_start()) else { return found };
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = after;
            }
            None => {
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A token or a quoted string, and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_registries_send() {
        let bearer = parse(
            [r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#]
                .into_iter(),
        );
        let Some(Challenge::Bearer { realm, service, scope }) = bearer else { panic!("no token") };
        assert_eq!(realm, "https://auth.example/token");
        assert_eq!(service.as_deref(), Some("registry.example"));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(parse([r#"Basic realm="x, y""#].into_iter()), Some(Challenge::Basic));
        let both = parse([r#"basic realm="x\"", bearer realm=https://a/t , service=s"#].into_iter());
        assert!(matches!(both, Some(Challenge::Bearer { realm, .. }) if realm == "https://a/t"));
        assert_eq!(parse(["Digest realm=\"x\"", "Negotiate"].into_iter()), None);
        assert_eq!(parse(["Bearer service=\"no realm\""].into_iter()), None);
        assert_eq!(parse(["Bearer realm=\"cut off"].into_iter()), None);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_passed_over(text in "\\PC{0,200}") {
            let _ = parse([text.as_str()].into_iter());
        }
    }
}
