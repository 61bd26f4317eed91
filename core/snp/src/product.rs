//! Product lines: what a processor says it is, and what follows from it for its TCB and certificates.

use std::fmt;

use serde::Serialize;

use crate::tcb::Layout;

/// CPUID family, model and stepping, combined (base and extended parts added).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fms {
    /// Family, for example 0x19.
    pub family: u8,
    /// Model, for example 0x11.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

impl Fms {
    /// What the software secure processor shows: no processor.
    pub const SOFTWARE: Self = Self { family: 0xff, model: 0xff, stepping: 0xff };
}

impl fmt::Display for Fms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}/{:02x}/{:02x}", self.family, self.model, self.stepping)
    }
}

impl Serialize for Fms {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A product line of SEV-SNP processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProductLine {
    /// Family 19h, models 00h to 0Fh.
    Milan,
    /// Family 19h, models 10h to 1Fh and A0h to AFh (also Bergamo, Siena).
    Genoa,
    /// Family 1Ah, models 00h to 11h.
    Turin,
    /// Family 1Ah, models 50h to 57h, 90h to 9Fh, A0h to AFh, C0h to C7h: its TCB has another shape, and no root is public.
    Venice,
}

impl ProductLine {
    /// All lines whose reports can be judged.
    pub const KNOWN: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The line of a signed family, model and stepping.
    #[must_use]
    pub const fn of(fms: Fms) -> Option<Self> {
        match (fms.family, fms.model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            (0x1a, 0x50..=0x57 | 0x90..=0xaf | 0xc0..=0xc7) => Some(Self::Venice),
            _ => None,
        }
    }

    /// The name in AMD's certificates: `ARK-Milan` …
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
            Self::Venice => "Venice",
        }
    }

    /// The line with this name, if its reports can be judged.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::KNOWN.into_iter().find(|line| line.name() == name)
    }
}

impl fmt::Display for ProductLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kind of processor a report is judged as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// A processor of a real product line (or the software processor playing one).
    Line(ProductLine),
    /// The software secure processor as itself.
    Software,
}

impl Product {
    /// The name that productName of the endorsement key's certificate starts with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Line(line) => line.name(),
            Self::Software => crate::software::PRODUCT_NAME,
        }
    }

    /// The product with this name, if its reports can be judged.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == Self::Software.name() { Some(Self::Software) } else { ProductLine::from_name(name).map(Self::Line) }
    }

    /// The layout of its TCB versions.
    #[must_use]
    pub const fn layout(self) -> Layout {
        match self {
            Self::Line(ProductLine::Turin) => Layout::Turin,
            _ => Layout::Milan,
        }
    }

    /// Bytes of its hardware ID: the rest of CHIP_ID is zero.
    #[must_use]
    pub const fn hwid_bytes(self) -> usize {
        match self.layout() {
            Layout::Milan => 64,
            Layout::Turin => 8,
        }
    }

    /// structVersion of its endorsement keys' certificates.
    #[must_use]
    pub const fn struct_version(self) -> u8 {
        match self.layout() {
            Layout::Milan => 0,
            Layout::Turin => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_the_next_begins() {
        let line = |family, model| ProductLine::of(Fms { family, model, stepping: 0 });
        assert_eq!(line(0x19, 0x0f), Some(ProductLine::Milan));
        assert_eq!(line(0x19, 0x10), Some(ProductLine::Genoa));
        assert_eq!(line(0x19, 0x20), None);
        assert_eq!(line(0x19, 0xaf), Some(ProductLine::Genoa));
        assert_eq!(line(0x1a, 0x11), Some(ProductLine::Turin));
        assert_eq!(line(0x1a, 0x12), None);
        assert_eq!(line(0x1a, 0x50), Some(ProductLine::Venice));
        assert_eq!(line(0xff, 0xff), None);
    }

    #[test]
    fn venice_is_known_and_not_judged() {
        assert_eq!(ProductLine::from_name("Venice"), None);
        assert_eq!(ProductLine::from_name("Genoa"), Some(ProductLine::Genoa));
    }
}
