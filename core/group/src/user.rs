//! Who a container's processes run as.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::GroupError;

/// What a user or group must be. The guest resolves it with the image's own `/etc/passwd` and `/etc/group`, which are
/// under a layer's root hash; the host has no say in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdName {
    /// Whatever the image's files give.
    Any,
    /// This number.
    Id(u32),
    /// This name.
    Name(String),
}

/// The user of a container: as an image's `USER`, which is `user[:group]`, each a name or a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// As written; empty is root.
    pub text: String,
    /// The user.
    pub user: IdName,
    /// What each of the process's groups must be one of.
    pub groups: Vec<IdName>,
    /// Mode bits withheld from new files, octal; Docker's is `0022`.
    pub umask: String,
}

impl User {
    /// Whether this is root for all that can be told without the image's files: by number or by name.
    #[must_use]
    pub fn is_root(&self) -> bool {
        match &self.user {
            IdName::Any => false,
            IdName::Id(number) => *number == 0,
            IdName::Name(name) => name == "root",
        }
    }

    /// Whether this is certainly someone else than root.
    #[must_use]
    pub fn is_numbered_other(&self) -> bool {
        matches!(self.user, IdName::Id(number) if number != 0)
    }
}

impl Default for User {
    /// Root, in the groups that the image gives it.
    fn default() -> Self {
        Self { text: String::new(), user: IdName::Id(0), groups: vec![IdName::Any], umask: "0022".to_owned() }
    }
}

impl FromStr for User {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, GroupError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user = if user.is_empty() { IdName::Id(0) } else { id_name(text, user)? };
        let groups = match group {
            None | Some("") => vec![IdName::Any],
            Some(group) => vec![id_name(text, group)?],
        };
        Ok(Self { text: text.to_owned(), user, groups, ..Self::default() })
    }
}

/// One half of `user:group`.
fn id_name(whole: &str, part: &str) -> Result<IdName, GroupError> {
    let invalid = || GroupError::invalid("user", whole, "user[:group], each a name or a number below 4294967295");
    if part.bytes().all(|byte| byte.is_ascii_digit()) {
        // The greatest value means "no user" to the kernel.
        let number = part.parse::<u32>().ok().filter(|number| *number != u32::MAX).ok_or_else(invalid)?;
        return Ok(IdName::Id(number));
    }
    let plain = part.len() <= 256 && !part.chars().any(|c| c.is_control() || matches!(c, ':' | '/' | ','));
    if plain { Ok(IdName::Name(part.to_owned())) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_as_images_write_them() {
        assert!("".parse::<User>().unwrap().is_root());
        assert!("root".parse::<User>().unwrap().is_root());
        assert!("00".parse::<User>().unwrap().is_root());
        let named: User = "nginx:www-data".parse().unwrap();
        assert_eq!(named.user, IdName::Name("nginx".to_owned()));
        assert_eq!(named.groups, [IdName::Name("www-data".to_owned())]);
        let numbered: User = "101:0042".parse().unwrap();
        assert!(numbered.is_numbered_other());
        assert_eq!(numbered.groups, [IdName::Id(42)]);
        for bad in ["4294967295", "99999999999", "a:b:c", "a\nb", "a/b", "x:\0"] {
            assert!(bad.parse::<User>().is_err(), "{bad:?}");
        }
    }
}
