//! TCB statuses, and what two of them come to ("Intel SGX and TDX DCAP Quote Verification Library": convergence).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a platform's TCB stands, as Intel says it. The order is from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TcbStatus {
    /// Nothing is known to be missing.
    UpToDate,
    /// The software in the TEE must have mitigations of its own.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// The platform must be set up otherwise.
    ConfigurationNeeded,
    /// Both.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// The domain was launched on an old TCB that has been replaced since: launch it anew.
    #[serde(rename = "TDRelaunchAdvised")]
    TdRelaunchAdvised,
    /// That, and the platform must be set up otherwise.
    #[serde(rename = "TDRelaunchAdvisedConfigurationNeeded")]
    TdRelaunchAdvisedConfigurationNeeded,
    /// There is a newer TCB that closes known holes.
    OutOfDate,
    /// That, and the platform must be set up otherwise.
    OutOfDateConfigurationNeeded,
    /// Its keys are no longer to be believed.
    Revoked,
}

/// A name that no status has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no TCB status: expected one of UpToDate, SWHardeningNeeded, ConfigurationNeeded, …")]
pub struct NotAStatus(String);

impl TcbStatus {
    /// All of them, from best to worst.
    pub const ALL: [Self; 9] = [
        Self::UpToDate,
        Self::SwHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSwHardeningNeeded,
        Self::TdRelaunchAdvised,
        Self::TdRelaunchAdvisedConfigurationNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
        Self::Revoked,
    ];

    /// The name in Intel's collateral.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::Revoked => "Revoked",
        }
    }

    /// Whether TCB info may say it of a level: that a domain should be launched anew follows from two levels.
    #[must_use]
    pub(crate) const fn is_of_platform(self) -> bool {
        !matches!(self, Self::TdRelaunchAdvised | Self::TdRelaunchAdvisedConfigurationNeeded)
    }

    /// Whether TCB info may say it of a TDX module.
    #[must_use]
    pub(crate) const fn is_of_module(self) -> bool {
        matches!(self, Self::UpToDate | Self::OutOfDate | Self::Revoked)
    }

    /// Whether a QE identity may say it.
    #[must_use]
    pub(crate) const fn is_of_quoting_enclave(self) -> bool {
        self.is_of_module() || matches!(self, Self::ConfigurationNeeded | Self::OutOfDateConfigurationNeeded)
    }

    /// This status of a platform, with that of a part of it (the quoting enclave, the TDX module): only a part that is out of
    /// date or revoked makes it worse.
    #[must_use]
    pub const fn with_part(self, part: Self) -> Self {
        match (part, self) {
            (Self::Revoked, _) => Self::Revoked,
            (Self::OutOfDate | Self::OutOfDateConfigurationNeeded, Self::UpToDate | Self::SwHardeningNeeded) => {
                Self::OutOfDate
            }
            (
                Self::OutOfDate | Self::OutOfDateConfigurationNeeded,
                Self::ConfigurationNeeded | Self::ConfigurationAndSwHardeningNeeded,
            ) => Self::OutOfDateConfigurationNeeded,
            _ => self,
        }
    }

    /// This status of a domain's launch, with that of the TCB that runs now (TDX 1.5): a TDX module that was replaced since is
    /// no help to a domain that was launched on the old one, until it is launched anew.
    #[must_use]
    pub fn with_current(self, current: Self) -> Self {
        let is_old = |status| matches!(status, Self::OutOfDate | Self::OutOfDateConfigurationNeeded);
        let set_up = |status| {
            matches!(
                status,
                Self::ConfigurationNeeded
                    | Self::ConfigurationAndSwHardeningNeeded
                    | Self::OutOfDateConfigurationNeeded
            )
        };
        match (self, current) {
            (_, Self::Revoked) => Self::Revoked,
            (launch, current) if is_old(launch) && !is_old(current) && (set_up(launch) || set_up(current)) => {
                Self::TdRelaunchAdvisedConfigurationNeeded
            }
            (launch, current) if is_old(launch) && !is_old(current) => Self::TdRelaunchAdvised,
            // A module that is out of date now is so, whatever it was at launch.
            (launch, current) => launch.with_part(current),
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TcbStatus {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|status| status.name() == text);
        known.ok_or_else(|| NotAStatus(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TcbStatus::{
        ConfigurationAndSwHardeningNeeded, ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded, Revoked,
        SwHardeningNeeded, TdRelaunchAdvised, TdRelaunchAdvisedConfigurationNeeded, UpToDate,
    };

    #[test]
    fn names_are_those_of_the_collateral() {
        for status in TcbStatus::ALL {
            assert_eq!(status.name().parse(), Ok(status));
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{status}\""));
            assert_eq!(serde_json::from_str::<TcbStatus>(&format!("\"{status}\"")).unwrap(), status);
        }
        assert!("uptodate".parse::<TcbStatus>().is_err());
    }

    #[test]
    fn a_part_can_only_make_it_worse() {
        for (platform, part, expected) in [
            (UpToDate, UpToDate, UpToDate),
            (UpToDate, OutOfDate, OutOfDate),
            (SwHardeningNeeded, OutOfDate, OutOfDate),
            (ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded),
            (ConfigurationAndSwHardeningNeeded, OutOfDate, OutOfDateConfigurationNeeded),
            (OutOfDate, OutOfDate, OutOfDate),
            (Revoked, OutOfDate, Revoked),
            (UpToDate, Revoked, Revoked),
            (SwHardeningNeeded, UpToDate, SwHardeningNeeded),
        ] {
            assert_eq!(platform.with_part(part), expected, "{platform} {part}");
        }
        for platform in TcbStatus::ALL {
            for part in TcbStatus::ALL {
                assert!(platform.with_part(part) >= platform, "{platform} {part}");
            }
        }
    }

    #[test]
    fn a_replaced_module_asks_for_a_new_launch() {
        assert_eq!(OutOfDate.with_current(UpToDate), TdRelaunchAdvised);
        assert_eq!(OutOfDate.with_current(SwHardeningNeeded), TdRelaunchAdvised);
        assert_eq!(OutOfDate.with_current(ConfigurationNeeded), TdRelaunchAdvisedConfigurationNeeded);
        assert_eq!(OutOfDateConfigurationNeeded.with_current(UpToDate), TdRelaunchAdvisedConfigurationNeeded);
        assert_eq!(OutOfDate.with_current(OutOfDate), OutOfDate);
        assert_eq!(UpToDate.with_current(UpToDate), UpToDate);
        assert_eq!(UpToDate.with_current(OutOfDate), OutOfDate);
        assert_eq!(UpToDate.with_current(Revoked), Revoked);
    }
}
