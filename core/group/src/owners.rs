//! Who may ask more of a running group than its host: owners, by their public keys.
//!
//! As policies write it:
//!
//! ```text
//!   [{"key": "<64 hexadecimal digits>", "may": ["denials", "exec", "logs"]}]
//! ```
//!
//! Refuses, with the value, a key that is given twice, an owner who may do nothing, and more than [`MAX_OWNERS`].

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use crate::{GroupError, limits};

/// Most owners of a group.
pub const MAX_OWNERS: usize = 16;

/// What an owner may do beyond asking for evidence, which anybody may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Read what the policy refused the host, complete.
    Denials,
    /// Run any program in any container, and have its streams.
    Exec,
    /// Read the output of containers whose streams the host does not get.
    Logs,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Denials, Self::Exec, Self::Logs];

    /// As policies write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denials => "denials",
            Self::Exec => "exec",
            Self::Logs => "logs",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Right {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, GroupError> {
        let found = Self::ALL.into_iter().find(|right| right.name() == text);
        found.ok_or_else(|| GroupError::invalid("right of an owner", text, "denials, exec or logs"))
    }
}

/// SHA-256 of a public key: of its SubjectPublicKeyInfo in DER (RFC 5280, section 4.1.2.7), as TLS carries it (RFC 7250).
/// 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// That of this key.
    #[must_use]
    pub fn of(subject_public_key_info: &[u8]) -> Self {
        Self(Sha256::digest(subject_public_key_info).into())
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyDigest({self})")
    }
}

impl FromStr for KeyDigest {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, GroupError> {
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let mut bytes = [0; 32];
        let read = lower && hex::decode_to_slice(text, &mut bytes).is_ok();
        read.then_some(Self(bytes)).ok_or_else(|| {
            GroupError::invalid("key of an owner", text, "SHA-256 of a public key, 64 lower-case hexadecimal digits")
        })
    }
}

impl Serialize for KeyDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// One owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// By which it is known.
    pub key: KeyDigest,
    /// What it may do.
    pub may: BTreeSet<Right>,
}

/// All owners of a group, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Owner>", into = "Vec<Owner>")]
pub struct Owners(Vec<Owner>);

impl Owners {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = &Owner> {
        self.0.iter()
    }

    /// Whether the owner of this key may do this.
    #[must_use]
    pub fn may(&self, key: &KeyDigest, right: Right) -> bool {
        self.0.iter().any(|owner| owner.key == *key && owner.may.contains(&right))
    }

    /// Whether anybody may.
    #[must_use]
    pub fn anybody_may(&self, right: Right) -> bool {
        self.0.iter().any(|owner| owner.may.contains(&right))
    }
}

impl TryFrom<Vec<Owner>> for Owners {
    type Error = GroupError;

    fn try_from(owners: Vec<Owner>) -> Result<Self, GroupError> {
        limits::within("the number of owners", owners.len(), MAX_OWNERS)?;
        let mut keys = BTreeSet::new();
        for owner in &owners {
            if owner.may.is_empty() {
                return Err(GroupError::invalid("owner", &owner.key.to_string(), "one who may do something"));
            }
            if !keys.insert(owner.key) {
                return Err(GroupError::invalid("key of an owner", &owner.key.to_string(), "given once"));
            }
        }
        Ok(Self(owners))
    }
}

impl From<Owners> for Vec<Owner> {
    fn from(owners: Owners) -> Self {
        owners.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(owners: Value) -> Result<Owners, String> {
        serde_json::from_value(owners).map_err(|error| error.to_string())
    }

    #[test]
    fn an_owner_may_what_is_written_and_nothing_else() {
        let (one, two) = (KeyDigest::of(b"one"), KeyDigest::of(b"two"));
        let owners = json!([{"key": one, "may": ["logs", "denials"]}]);
        let read = read(owners.clone()).unwrap();
        assert!(read.may(&one, Right::Logs) && read.may(&one, Right::Denials));
        assert!(!read.may(&one, Right::Exec) && !read.may(&two, Right::Logs));
        assert!(read.anybody_may(Right::Logs) && !read.anybody_may(Right::Exec));
        assert_eq!(json!(read), json!([{"key": one, "may": ["denials", "logs"]}]));
    }

    #[test]
    fn other_forms_are_refused() {
        let key = KeyDigest::of(b"one").to_string();
        let many: Vec<_> =
            (0..=MAX_OWNERS).map(|n| json!({"key": KeyDigest::of(&[n as u8]), "may": ["logs"]})).collect();
        for (bad, why) in [
            (json!([{"key": key, "may": []}]), "one who may do something"),
            (json!([{"key": key, "may": ["logs"]}, {"key": key, "may": ["exec"]}]), "given once"),
            (json!([{"key": key.to_uppercase(), "may": ["logs"]}]), "lower-case"),
            (json!([{"key": &key[1..], "may": ["logs"]}]), "64"),
            (json!([{"key": key, "may": ["root"]}]), "unknown variant"),
            (json!([{"key": key, "may": ["logs"], "name": "me"}]), "unknown field"),
            (json!(many), "the number of owners"),
        ] {
            let error = read(bad.clone()).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn texts_round_trip(bytes in any::<[u8; 32]>(), garbage in "\\PC{0,70}") {
            let key = KeyDigest(bytes);
            prop_assert_eq!(key.to_string().parse::<KeyDigest>(), Ok(key));
            if let Ok(read) = garbage.parse::<KeyDigest>() {
                prop_assert_eq!(read.to_string(), garbage);
            }
        }

        #[test]
        fn rights_are_read_as_written(index in 0..Right::ALL.len()) {
            let right = Right::ALL[index];
            prop_assert_eq!(right.to_string().parse::<Right>(), Ok(right));
            prop_assert_eq!(json!(right), json!(right.name()));
        }
    }
}
