//! The TEEs by name, and where the name comes from.

use std::fmt;
use std::str::FromStr;

use crate::TeeError;

/// The parameter of the kernel command line that names the TEE.
const PARAMETER: &str = "caveau.tee=";

/// A TEE that a guest can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TeeKind {
    /// `emulated-snp`: a program of the host with the formats of SEV-SNP and no confidentiality.
    EmulatedSnp,
    /// `snp`: AMD SEV-SNP.
    Snp,
}

impl TeeKind {
    /// The TEE that a kernel command line names; it must be named exactly once.
    ///
    /// # Errors
    /// When `caveau.tee=` is absent, comes twice, or has an unknown value.
    pub fn from_cmdline(cmdline: &str) -> Result<Self, TeeError> {
        let mut named = cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix(PARAMETER));
        match (named.next(), named.next()) {
            (Some(name), None) => name.parse(),
            (None, _) => Err(TeeError::NotNamed),
            (Some(_), Some(_)) => Err(TeeError::NamedTwice),
        }
    }

    /// The word in command lines, messages and evidence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmulatedSnp => "emulated-snp",
            Self::Snp => "snp",
        }
    }
}

impl fmt::Display for TeeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TeeKind {
    type Err = TeeError;

    fn from_str(name: &str) -> Result<Self, TeeError> {
        match name {
            "emulated-snp" => Ok(Self::EmulatedSnp),
            "snp" => Ok(Self::Snp),
            other => Err(TeeError::UnknownKind(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_it_once() {
        let kind = |cmdline| TeeKind::from_cmdline(cmdline);
        assert_eq!(kind("quiet caveau.tee=snp panic=-1\n").unwrap(), TeeKind::Snp);
        assert_eq!(kind("caveau.tee=emulated-snp").unwrap(), TeeKind::EmulatedSnp);
        assert!(matches!(kind("quiet"), Err(TeeError::NotNamed)));
        assert!(matches!(kind("caveau.tee=snp caveau.tee=emulated-snp"), Err(TeeError::NamedTwice)));
        assert!(matches!(kind("caveau.tee=snp caveau.tee=snp"), Err(TeeError::NamedTwice)));
        assert!(matches!(kind("caveau.tee=SNP"), Err(TeeError::UnknownKind(name)) if name == "SNP"));
        assert!(matches!(kind("caveau.tee="), Err(TeeError::UnknownKind(_))));
        assert!(matches!(kind("xcaveau.tee=snp"), Err(TeeError::NotNamed)));
    }
}
