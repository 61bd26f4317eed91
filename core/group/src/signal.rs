//! Signals by number and name (signal(7), x86).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::GroupError;

/// Names of signals 1 to 31 on x86.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

const FORM: &str = "a number from 1 to 64 or a name such as SIGTERM or RTMIN+3";

/// A signal's number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

impl Signal {
    /// Interrupt, as Ctrl-C sends it.
    pub const INT: Self = Self(2);
    /// The one that cannot be caught.
    pub const KILL: Self = Self(9);
    /// The usual request to end.
    pub const TERM: Self = Self(15);

    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Signal {
    type Error = GroupError;

    fn try_from(number: u8) -> Result<Self, GroupError> {
        if (1..=64).contains(&number) {
            return Ok(Self(number));
        }
        Err(GroupError::invalid("signal", &number.to_string(), FORM))
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0).saturating_sub(1)) {
            Some(name) => write!(formatter, "SIG{name}"),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl FromStr for Signal {
    type Err = GroupError;

    /// Reads `15`, `SIGTERM`, `term`, `RTMIN+3` or `RTMAX-1`.
    fn from_str(text: &str) -> Result<Self, GroupError> {
        if let Ok(number) = text.parse::<u8>() {
            return Self::try_from(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        (1u8..)
            .zip(NAMES)
            .find(|(_, known)| *known == name)
            .map(|(number, _)| Self(number))
            .or_else(|| real_time(name))
            .ok_or_else(|| GroupError::invalid("signal", text, FORM))
    }
}

/// A real-time signal: glibc leaves 34 to 64 to programs.
fn real_time(name: &str) -> Option<Signal> {
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => 34,
        (_, Some("")) => 64,
        (Some(more), _) => 34u8.checked_add(more.strip_prefix('+')?.parse().ok()?)?,
        (_, Some(less)) => 64u8.checked_sub(less.strip_prefix('-')?.parse().ok()?)?,
        (None, None) => return None,
    };
    (34..=64).contains(&number).then_some(Signal(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SIGWINCH", 28), ("SYS", 31)]
        {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for text in ["", "0", "65", "SIG", "RTMIN-1", "RTMIN+31", "RTMAX-64", "-9", "TERMX"] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
    }
}
