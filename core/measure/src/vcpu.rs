//! vCPU types: QEMU's names for AMD processors and the CPUID signature each of them shows in RDX at reset.

use std::fmt;
use std::str::FromStr;

/// A vCPU type, known by its QEMU name, or a bare signature (CPUID Fn0000_0001 EAX: family, model, stepping).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VcpuType {
    name: Option<&'static str>,
    signature: u32,
}

/// Text that names no vCPU type.
#[derive(Debug, thiserror::Error)]
#[error("unknown vCPU type `{0}`: expected a CPUID signature such as 0x00800f12, or one of {names}", names = known_names())]
pub struct UnknownVcpuType(String);

impl VcpuType {
    /// All vCPU types with a name.
    pub fn all() -> impl Iterator<Item = Self> {
        TYPES.iter().map(|&(name, [family, model, stepping])| Self {
            name: Some(name),
            signature: signature(family, model, stepping),
        })
    }

    /// A vCPU type without a name.
    #[must_use]
    pub const fn from_signature(signature: u32) -> Self {
        Self { name: None, signature }
    }

    /// The CPUID signature: Fn0000_0001 EAX, which RDX holds at reset.
    #[must_use]
    pub const fn signature(self) -> u32 {
        self.signature
    }

    /// QEMU's name, where there is one.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        self.name
    }
}

impl fmt::Display for VcpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#010x}", self.signature),
        }
    }
}

impl FromStr for VcpuType {
    type Err = UnknownVcpuType;

    /// A name exactly as QEMU spells it, or `0x` and up to eight hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(digits) = text.strip_prefix("0x")
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_hexdigit())
            && let Ok(signature) = u32::from_str_radix(digits, 16)
        {
            return Ok(Self::from_signature(signature));
        }
        let known = Self::all().find(|vcpu_type| vcpu_type.name == Some(text));
        known.ok_or_else(|| UnknownVcpuType(text.chars().take(64).collect()))
    }
}

/// The AMD types in QEMU's `builtin_x86_defs`: family, model, stepping.
const TYPES: [(&str, [u8; 3]); 16] = [
    ("EPYC", [23, 1, 2]),
    ("EPYC-v1", [23, 1, 2]),
    ("EPYC-v2", [23, 1, 2]),
    ("EPYC-IBPB", [23, 1, 2]),
    ("EPYC-v3", [23, 1, 2]),
    ("EPYC-v4", [23, 1, 2]),
    ("EPYC-Rome", [23, 49, 0]),
    ("EPYC-Rome-v1", [23, 49, 0]),
    ("EPYC-Rome-v2", [23, 49, 0]),
    ("EPYC-Rome-v3", [23, 49, 0]),
    ("EPYC-Milan", [25, 1, 1]),
    ("EPYC-Milan-v1", [25, 1, 1]),
    ("EPYC-Milan-v2", [25, 1, 1]),
    ("EPYC-Genoa", [25, 17, 0]),
    ("EPYC-Genoa-v1", [25, 17, 0]),
    ("EPYC-Turin", [26, 0, 0]),
];

/// CPUID Fn0000_0001 EAX (AMD publication 25481): a family above 15 is split into base 15 and an extension.
fn signature(family: u8, model: u8, stepping: u8) -> u32 {
    let (base, extended) = (family.min(15), family.saturating_sub(15));
    u32::from(extended) << 20
        | u32::from(model >> 4) << 16
        | u32::from(base) << 8
        | u32::from(model & 0xf) << 4
        | u32::from(stepping & 0xf)
}

fn known_names() -> String {
    TYPES.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_processors() {
        let expected = [
            ("EPYC-v4", 0x0080_0f12),
            ("EPYC-Rome", 0x0083_0f10),
            ("EPYC-Milan", 0x00a0_0f11),
            ("EPYC-Genoa", 0x00a1_0f10),
        ];
        for (name, signature) in expected {
            assert_eq!(name.parse::<VcpuType>().unwrap().signature(), signature, "{name}");
        }
        assert_eq!("EPYC-Turin".parse::<VcpuType>().unwrap().signature(), 0x00b0_0f00);
    }

    #[test]
    fn names_and_signatures_read_back() {
        for vcpu_type in VcpuType::all() {
            assert_eq!(vcpu_type.to_string().parse::<VcpuType>().unwrap(), vcpu_type);
        }
        assert_eq!("0x00800f12".parse::<VcpuType>().unwrap().to_string(), "0x00800f12");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        for name in ["", "epyc", "EPYC-v9", "0x", "0x123456789", "0x+1"] {
            let error = name.parse::<VcpuType>().unwrap_err().to_string();
            assert!(error.contains("EPYC-Milan-v2"), "{error}");
        }
    }
}
