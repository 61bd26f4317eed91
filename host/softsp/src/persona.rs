//! What processor is played: itself by default, or one whose reports take another branch of a verifier.

use caveau_snp::bits::PlatformInfo;
use caveau_snp::product::{Fms, Product, ProductLine};
use caveau_snp::report::FirmwareVersion;
use caveau_snp::software::{CHIP_PREFIX, PRODUCT_NAME};
use caveau_snp::tcb::Tcb;
use serde::{Deserialize, Serialize};

use crate::CryptoError;
use crate::seed::Seed;

/// A processor that can be played. All but the first are for tests of verifiers; each keeps the marks of a software processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Persona {
    /// Itself: report version 5, FMS FF/FF/FF, product `Software`.
    #[default]
    Software,
    /// Itself with reports of version 2, which sign no FMS.
    SoftwareV2,
    /// Itself with reports of version 3.
    SoftwareV3,
    /// Milan with reports of version 2.
    MilanV2,
    /// Milan with reports of version 3.
    Milan,
    /// Genoa with reports of version 3.
    Genoa,
    /// Turin: version 5, its own TCB layout, a hardware ID of eight bytes.
    Turin,
    /// Itself with a provider's key: the report names no chip.
    Vlek,
    /// Itself, hiding CHIP_ID.
    MaskedChip,
    /// Itself with a report that says debugging is allowed.
    Debug,
    /// Itself with reports as the host would ask for them: VMPL FFFFFFFF and no REPORT_DATA.
    HostRequested,
    /// Itself with firmware that can still be rolled back.
    Provisional,
    /// Itself on a host that offers no certificates, as QEMU's do: they must be had elsewhere.
    NoCertificates,
}

impl Persona {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Software,
        Self::SoftwareV2,
        Self::SoftwareV3,
        Self::MilanV2,
        Self::Milan,
        Self::Genoa,
        Self::Turin,
        Self::Vlek,
        Self::MaskedChip,
        Self::Debug,
        Self::HostRequested,
        Self::Provisional,
        Self::NoCertificates,
    ];

    /// The one that plays a processor of this product.
    pub(crate) const fn of(product: Product) -> Option<Self> {
        match product {
            Product::Software => Some(Self::Software),
            Product::Line(ProductLine::Milan) => Some(Self::Milan),
            Product::Line(ProductLine::Genoa) => Some(Self::Genoa),
            Product::Line(ProductLine::Turin) => Some(Self::Turin),
            Product::Line(ProductLine::Venice) => None,
        }
    }
}

/// As on the wire: `milan-v2`.
impl std::str::FromStr for Persona {
    type Err = NotAPersona;

    fn from_str(name: &str) -> Result<Self, NotAPersona> {
        serde_json::from_value(name.into()).map_err(|_| NotAPersona(name.chars().take(64).collect()))
    }
}

/// A name that no persona has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no persona; there are {known}", known = names())]
pub struct NotAPersona(String);

fn names() -> String {
    let name = |persona: &Persona| serde_json::to_value(persona).ok()?.as_str().map(str::to_owned);
    Persona::ALL.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

/// The provider that a [`Persona::Vlek`] stands for; `.invalid` is no name of anybody (RFC 2606).
pub(crate) const PROVIDER: &str = "CN=softsp.invalid";

/// The facts of a played processor.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    pub(crate) persona: Persona,
    pub(crate) version: u32,
    pub(crate) product: Product,
    pub(crate) product_name: &'static str,
    pub(crate) fms: Fms,
    /// Hardware ID: what the VCEK's certificate names.
    pub(crate) hwid: Vec<u8>,
    /// What reports say as CHIP_ID.
    pub(crate) chip_id: [u8; 64],
    pub(crate) platform_info: PlatformInfo,
    pub(crate) reported: Tcb,
    pub(crate) committed: Tcb,
    pub(crate) current: Tcb,
    pub(crate) committed_firmware: FirmwareVersion,
    pub(crate) current_firmware: FirmwareVersion,
}

/// The levels that are played: at or above what the strict profile asks of each product line.
const LEVELS: Tcb = Tcb { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 };

/// The firmware ABI that is played: the first with reports of version 5.
const FIRMWARE: FirmwareVersion = FirmwareVersion { major: 1, minor: 58, build: 0 };

impl Platform {
    /// The processor that `persona` names, with the chip of `seed`, on a host with or without sibling threads.
    pub(crate) fn new(persona: Persona, seed: &Seed, smt: bool) -> Result<Self, CryptoError> {
        let line = |line, family, model| (Product::Line(line), Fms { family, model, stepping: 1 });
        let (product, fms) = match persona {
            Persona::Milan | Persona::MilanV2 => line(ProductLine::Milan, 0x19, 0x01),
            Persona::Genoa => line(ProductLine::Genoa, 0x19, 0x11),
            Persona::Turin => line(ProductLine::Turin, 0x1a, 0x02),
            _ => (Product::Software, Fms::SOFTWARE),
        };
        let hwid = hardware_id(product, seed.chip_number()?);
        let mut chip_id = [0; 64];
        if !matches!(persona, Persona::MaskedChip | Persona::Vlek) {
            chip_id.iter_mut().zip(&hwid).for_each(|(to, from)| *to = *from);
        }
        let levels = Tcb { fmc: (persona == Persona::Turin).then_some(1), ..LEVELS };
        let (ahead, build) = if persona == Persona::Provisional { (1, 1) } else { (0, 0) };
        Ok(Self {
            persona,
            version: match persona {
                Persona::SoftwareV2 | Persona::MilanV2 => 2,
                Persona::SoftwareV3 | Persona::Milan | Persona::Genoa | Persona::Vlek => 3,
                _ => 5,
            },
            product,
            product_name: match product {
                Product::Line(ProductLine::Milan) => "Milan-B0",
                Product::Line(line) => line.name(),
                Product::Software => PRODUCT_NAME,
            },
            fms,
            hwid,
            chip_id,
            platform_info: PlatformInfo(PlatformInfo::ALIAS_CHECK_COMPLETE | u64::from(smt)),
            reported: levels,
            committed: levels,
            current: Tcb { microcode: levels.microcode.saturating_add(ahead), ..levels },
            committed_firmware: FIRMWARE,
            current_firmware: FirmwareVersion { build, ..FIRMWARE },
        })
    }
}

/// The hardware ID: it begins as no chip's does. Turin's has eight bytes, of which two tell installations apart.
fn hardware_id(product: Product, number: [u8; 56]) -> Vec<u8> {
    match product.hwid_bytes() {
        8 => CHIP_PREFIX.iter().take(6).chain(number.iter().take(2)).copied().collect(),
        _ => [&CHIP_PREFIX[..], &number].concat(),
    }
}

/// CPUID Fn0000_0001 EAX of a processor (AMD publication 25481), as the secrets page has it.
pub(crate) fn cpuid_signature(fms: Fms) -> u32 {
    let (base, extended) = (fms.family.min(15), fms.family.saturating_sub(15));
    u32::from(extended) << 20
        | u32::from(fms.model >> 4) << 16
        | u32::from(base) << 8
        | u32::from(fms.model & 0xf) << 4
        | u32::from(fms.stepping & 0xf)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn platform(persona: Persona) -> Platform {
        Platform::new(persona, &Seed::new(Zeroizing::new([1; 48])), false).unwrap()
    }

    #[test]
    fn every_chip_is_marked_as_software() {
        for persona in [Persona::Software, Persona::Milan, Persona::MaskedChip, Persona::Vlek] {
            assert_eq!(platform(persona).hwid[..8], CHIP_PREFIX, "{persona:?}");
            assert_eq!(platform(persona).hwid.len(), 64, "{persona:?}");
        }
        let turin = platform(Persona::Turin);
        assert_eq!((turin.hwid.len(), &turin.hwid[..6]), (8, &b"SOFTSP"[..]));
        assert_eq!(turin.chip_id[8..], [0; 56]);
        assert_eq!(platform(Persona::MaskedChip).chip_id, [0; 64]);
    }

    #[test]
    fn signatures_are_those_of_the_processors() {
        let milan = Fms { family: 0x19, model: 0x01, stepping: 1 };
        assert_eq!(cpuid_signature(milan), 0x00a0_0f11);
        assert_eq!(cpuid_signature(Fms::SOFTWARE), 0x0f0f_0fff);
    }

    #[test]
    fn names_are_those_of_the_wire() {
        let text = serde_json::to_string(&[Persona::SoftwareV2, Persona::MaskedChip]).unwrap();
        assert_eq!(text, r#"["software-v2","masked-chip"]"#);
        assert_eq!("no-certificates".parse(), Ok(Persona::NoCertificates));
        let error = "rome".parse::<Persona>().unwrap_err().to_string();
        assert!(error.starts_with("`rome` is no persona; there are software, software-v2,"), "{error}");
        assert_eq!(error.matches(", ").count(), Persona::ALL.len() - 1);
    }
}
