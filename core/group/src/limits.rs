//! Bounds on what a container may hold, and the checks for them.

use crate::GroupError;

/// Longest single argument or variable in bytes: the kernel's MAX_ARG_STRLEN.
pub(crate) const MAX_STRING: usize = 128 * 1024;
/// Most arguments, variables, mounts or exec commands of one container.
pub(crate) const MAX_ITEMS: usize = 4096;
/// Most layers of one image, and of a group: each is a disk of the guest's one SCSI target, whose numbers end at 255, and
/// the scratch disk is one more. Docker's overlay driver stops at 128, overlayfs itself at 500.
pub const MAX_LAYERS: usize = 240;
/// Longest path in bytes: the kernel's PATH_MAX.
pub(crate) const MAX_PATH: usize = 4096;

/// Checks one string: no NUL byte, at most [`MAX_STRING`] bytes.
pub(crate) fn string(what: &'static str, value: &str) -> Result<(), GroupError> {
    if value.contains('\0') {
        return Err(GroupError::invalid(what, value, "text without a NUL byte"));
    }
    within(what, value.len(), MAX_STRING)
}

/// Checks a number of things against its bound.
pub(crate) fn within(what: &'static str, found: usize, most: usize) -> Result<(), GroupError> {
    if found > most {
        return Err(GroupError::TooMuch { what, found, most });
    }
    Ok(())
}

/// Checks a list of strings.
pub(crate) fn strings(what: &'static str, values: &[String]) -> Result<(), GroupError> {
    within(what, values.len(), MAX_ITEMS)?;
    values.iter().try_for_each(|value| string(what, value))
}

/// Checks that a path is absolute and says one place: no `.`, no `..`, no empty component, no NUL byte.
pub(crate) fn absolute_path(what: &'static str, path: &str) -> Result<(), GroupError> {
    let plain = path
        .strip_prefix('/')
        .is_some_and(|rest| rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | "..")));
    if !plain || path.contains('\0') {
        return Err(GroupError::invalid(what, path, "an absolute path without `.`, `..` or doubled slashes"));
    }
    within(what, path.len(), MAX_PATH)
}
