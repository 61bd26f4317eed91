//! Points in time, as an input: nothing here reads a clock.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ::der::DateTime;
use serde::Serialize;

/// Seconds since 1970-01-01T00:00:00Z. Shown as `2026-11-23T12:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Text that is no point in time.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no point in time: expected a date such as 2026-11-23 or 2026-11-23T12:00:00Z")]
pub struct NotATime(String);

impl Timestamp {
    /// The last second that certificates can name: 9999-12-31T23:59:59Z.
    pub const MAX: Self = Self(253_402_300_799);

    /// From seconds since 1970, cut at [`Timestamp::MAX`].
    #[must_use]
    pub const fn from_unix(seconds: u64) -> Self {
        if seconds > Self::MAX.0 { Self::MAX } else { Self(seconds) }
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn unix(self) -> u64 {
        self.0
    }

    /// This point and so many seconds, cut at [`Timestamp::MAX`].
    #[must_use]
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self::from_unix(self.0.saturating_add(seconds))
    }

    /// This point less so many seconds, cut at 1970.
    #[must_use]
    pub const fn minus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    pub(crate) const fn since_epoch(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl From<Duration> for Timestamp {
    fn from(since_epoch: Duration) -> Self {
        Self::from_unix(since_epoch.as_secs())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_unix_duration(self.since_epoch()) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{} s after 1970", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        let time = full.parse::<DateTime>().map_err(|_| NotATime(text.chars().take(64).collect()))?;
        Ok(time.unix_duration().into())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_read_back() {
        let time: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-23T12:00:00Z");
        assert_eq!("2026-11-23".parse::<Timestamp>().unwrap().plus_seconds(43_200), time);
        assert!("2026-13-01".parse::<Timestamp>().is_err() && "now".parse::<Timestamp>().is_err());
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59Z");
    }
}
