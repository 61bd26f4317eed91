//! `user[:group]` becomes numbers, by the image's own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! One reading serves the policy's decision and the process that is started: what was judged is what runs. The rules are
//! Docker's: a number need not be in the files; a name must be; without a group the user's own group counts, and the
//! user belongs to every group that lists it.

use std::{collections::BTreeSet, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::files::read_in;

/// Greatest number of a user or group; the one above means "none" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

/// Most groups that one user may be in: more than any image has, fewer than the kernel's 65,536.
const MAX_GROUPS: usize = 1024;

/// Whom a process runs as: numbers, and the names that the image gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// The user's name, empty where the image has none.
    pub user_name: String,
    /// Group.
    pub gid: u32,
    /// The group's name, empty where the image has none.
    pub group_name: String,
    /// Further groups.
    pub groups: Vec<GroupEntry>,
    /// Home directory; `/` where the image has none.
    pub home: String,
}

/// A group's number and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupEntry {
    /// Number.
    pub gid: u32,
    /// Name, empty where the image has none.
    pub name: String,
}

/// Why a user has no numbers.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The image's file could not be read.
    #[error("failed to read {file} of the image")]
    File {
        /// Its path.
        file: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Not of the form.
    #[error("invalid user {text:?}: it must be user[:group], each a name or a number below 4294967295")]
    Form {
        /// As asked for.
        text: String,
    },
    /// The name is not in the image's file.
    #[error("{what} {name:?} is not in {file} of the image: use a number or a name that is")]
    Unknown {
        /// User or group.
        what: &'static str,
        /// The name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// The user is in too many groups.
    #[error("the user is in more than {MAX_GROUPS} groups of the image")]
    TooManyGroups,
}

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswdLine {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLine {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Reads `/etc/passwd`: lines that are not of the form are passed over, as the C library does.
#[must_use]
pub fn parse_passwd(bytes: &[u8]) -> Vec<PasswdLine> {
    lines(bytes).filter_map(passwd_line).collect()
}

/// Reads `/etc/group`, likewise.
#[must_use]
pub fn parse_group(bytes: &[u8]) -> Vec<GroupLine> {
    lines(bytes).filter_map(group_line).collect()
}

/// Resolves `text` with the files under `root`.
///
/// # Errors
/// [`UserError`].
pub fn resolve_user(root: &Path, text: &str) -> Result<Ids, UserError> {
    let passwd = read_in(root, PASSWD).map_err(|source| UserError::File { file: "/etc/passwd", source })?;
    let group = read_in(root, GROUP).map_err(|source| UserError::File { file: "/etc/group", source })?;
    resolve(text, &parse_passwd(&passwd), &parse_group(&group))
}

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// Resolves `text` with these lines.
fn resolve(text: &str, passwd: &[PasswdLine], groups: &[GroupLine]) -> Result<Ids, UserError> {
    let (user, group) = split(text)?;
    let mut ids = find_user(user, passwd)?;
    if group.is_empty() {
        ids.groups = memberships(&ids.user_name, groups)?;
    } else {
        ids.gid = find_group(group, groups)?;
    }
    ids.group_name = group_name(ids.gid, groups);
    Ok(ids)
}

/// The two halves; an absent one is empty.
fn split(text: &str) -> Result<(&str, &str), UserError> {
    let form = || UserError::Form { text: text.chars().take(80).collect() };
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if group.contains(':') || text.chars().any(|c| c.is_control()) {
        return Err(form());
    }
    for half in [user, group] {
        if is_number(half) && number(half).is_none() {
            return Err(form());
        }
    }
    Ok((user, group))
}

/// A user by number or name; root where nothing is said.
fn find_user(user: &str, passwd: &[PasswdLine]) -> Result<Ids, UserError> {
    let user = if user.is_empty() { "0" } else { user };
    let found = match number(user) {
        Some(uid) => passwd.iter().find(|line| line.uid == uid).cloned().unwrap_or_else(|| PasswdLine {
            name: String::new(),
            uid,
            gid: 0,
            home: "/".to_owned(),
        }),
        None => passwd.iter().find(|line| line.name == user).cloned().ok_or_else(|| UserError::Unknown {
            what: "user",
            name: user.chars().take(80).collect(),
            file: "/etc/passwd",
        })?,
    };
    let home = if found.home.is_empty() { "/".to_owned() } else { found.home };
    Ok(Ids { uid: found.uid, user_name: found.name, gid: found.gid, home, ..Ids::default() })
}

/// A group by number or name.
fn find_group(group: &str, groups: &[GroupLine]) -> Result<u32, UserError> {
    if let Some(gid) = number(group) {
        return Ok(gid);
    }
    groups.iter().find(|line| line.name == group).map(|line| line.gid).ok_or_else(|| UserError::Unknown {
        what: "group",
        name: group.chars().take(80).collect(),
        file: "/etc/group",
    })
}

/// The groups that list the user, in the file's order.
fn memberships(user: &str, groups: &[GroupLine]) -> Result<Vec<GroupEntry>, UserError> {
    if user.is_empty() {
        return Ok(Vec::new());
    }
    let listed = groups.iter().filter(|line| line.members.iter().any(|member| member == user));
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for line in listed {
        if !seen.insert(line.gid) {
            continue;
        }
        if found.len() >= MAX_GROUPS {
            return Err(UserError::TooManyGroups);
        }
        found.push(GroupEntry { gid: line.gid, name: line.name.clone() });
    }
    Ok(found)
}

fn group_name(gid: u32, groups: &[GroupLine]) -> String {
    groups.iter().find(|line| line.gid == gid).map(|line| line.name.clone()).unwrap_or_default()
}

/// Lines of UTF-8 text that say something.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `name:password:uid:gid:gecos:home:shell`; what follows the home may be missing.
fn passwd_line(line: &str) -> Option<PasswdLine> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    fields.next()?;
    let uid = number(fields.next()?)?;
    let gid = number(fields.next()?)?;
    fields.next();
    let home = fields.next().unwrap_or_default();
    Some(PasswdLine { name: name.to_owned(), uid, gid, home: home.to_owned() })
}

/// `name:password:gid:member,member`.
fn group_line(line: &str) -> Option<GroupLine> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    fields.next()?;
    let gid = number(fields.next()?)?;
    let members = fields.next().unwrap_or_default().split(',').filter(|member| !member.is_empty());
    Some(GroupLine { name: name.to_owned(), gid, members: members.map(str::to_owned).collect() })
}

/// Whether it can only be a number.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Decimal digits within the kernel's bounds.
fn number(text: &str) -> Option<u32> {
    if is_number(text) { text.parse().ok().filter(|number| *number <= MAX_ID) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD_TEXT: &str = "root:x:0:0:root:/root:/bin/sh\n# note\nbad line\nweb:x:101:102::/srv/web:/bin/false\n\
                               dup:x:101:5::/other:\n+nis\nhuge:x:4294967295:0::/:\nshort:x:7:8\n";
    const GROUP_TEXT: &str = "root:x:0:\nweb:x:102:\nlog:x:4:web,root\nalso:x:4:web\nssl:x:50:web\nnogid:x::web\n";

    fn resolved(text: &str) -> Result<Ids, UserError> {
        resolve(text, &parse_passwd(PASSWD_TEXT.as_bytes()), &parse_group(GROUP_TEXT.as_bytes()))
    }

    #[test]
    fn nothing_is_root() {
        let ids = resolved("").unwrap();
        assert_eq!((ids.uid, ids.gid, ids.user_name.as_str(), ids.home.as_str()), (0, 0, "root", "/root"));
        assert_eq!(ids.groups, [GroupEntry { gid: 4, name: "log".to_owned() }]);
    }

    #[test]
    fn a_name_brings_its_group_and_memberships() {
        let ids = resolved("web").unwrap();
        assert_eq!((ids.uid, ids.gid, ids.group_name.as_str(), ids.home.as_str()), (101, 102, "web", "/srv/web"));
        let gids: Vec<u32> = ids.groups.iter().map(|entry| entry.gid).collect();
        assert_eq!(gids, [4, 50]);
    }

    #[test]
    fn a_number_takes_the_first_line_that_has_it() {
        assert_eq!(resolved("101").unwrap(), resolved("web").unwrap());
        let unknown = resolved("4000").unwrap();
        assert_eq!((unknown.uid, unknown.gid, unknown.home.as_str()), (4000, 0, "/"));
        assert!(unknown.groups.is_empty());
    }

    #[test]
    fn groups_are_bounded_and_counted_once() {
        let lines = |gids: &mut dyn Iterator<Item = usize>| -> String {
            gids.map(|gid| format!("g{gid}:x:{gid}:web\n")).collect()
        };
        let of = |text: &str| resolve("web", &parse_passwd(PASSWD_TEXT.as_bytes()), &parse_group(text.as_bytes()));
        let twice = lines(&mut (1..=MAX_GROUPS).chain(1..=MAX_GROUPS));
        assert_eq!(of(&twice).unwrap().groups.len(), MAX_GROUPS);
        // As many as an image's file has room for: the bound comes before the work.
        assert!(matches!(of(&lines(&mut (1..60_000))), Err(UserError::TooManyGroups)));
    }

    #[test]
    fn a_group_said_replaces_the_memberships() {
        let ids = resolved("web:ssl").unwrap();
        assert_eq!((ids.uid, ids.gid, ids.groups.len()), (101, 50, 0));
        assert_eq!(resolved(":77").unwrap().gid, 77);
        assert_eq!(resolved("9:9").unwrap().gid, 9);
    }

    #[test]
    fn unknown_names_and_forms_are_refused() {
        for text in ["nobody", "web:none", "nis", "huge", "+nis"] {
            assert!(matches!(resolved(text), Err(UserError::Unknown { .. })), "{text}");
        }
        for text in ["4294967295", "99999999999", "0:4294967295", "a:b:c", "a\nb", "root\0"] {
            assert!(matches!(resolved(text), Err(UserError::Form { .. })), "{text:?}");
        }
    }

    #[test]
    fn an_image_without_files_has_numbers_only() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(resolve_user(root.path(), "").unwrap().uid, 0);
        assert_eq!(resolve_user(root.path(), "33:34").unwrap().gid, 34);
        assert!(resolve_user(root.path(), "root").is_err());
    }

    #[test]
    fn a_line_may_end_after_its_group() {
        let line = passwd_line("short:x:7:8").unwrap();
        assert_eq!((line.uid, line.gid, line.home.as_str()), (7, 8, ""));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(passwd in any::<Vec<u8>>(), group in any::<Vec<u8>>(), text in ".{0,20}") {
            let _ = resolve(&text, &parse_passwd(&passwd), &parse_group(&group));
        }

        #[test]
        fn lines_read_as_written(name in "[a-z][a-z0-9-]{0,15}", uid in 0..MAX_ID, gid in 0..MAX_ID, home in "(/[a-z]{1,8}){1,3}") {
            let parsed = parse_passwd(format!("{name}:x:{uid}:{gid}:Name:{home}:/bin/sh\n").as_bytes());
            prop_assert_eq!(parsed, vec![PasswdLine { name, uid, gid, home }]);
        }
    }
}
