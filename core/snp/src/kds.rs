//! AMD's Key Distribution Service by its paths (AMD 57230, "VCEK Certificate and KDS Interface Specification"): what can be
//! asked for, and as what. Whoever fetches needs nothing else to know; whoever plays the service reads the same paths.
//!
//! ```text
//! /vcek/v1/<line>/<hardware ID, hex>?[fmcSPL=..&]blSPL=..&teeSPL=..&snpSPL=..&ucodeSPL=..     one certificate, DER
//! /vcek/v1/<line>/cert_chain   /vlek/v1/<line>/cert_chain                                   intermediate, root, PEM
//! /vcek/v1/<line>/crl          /vlek/v1/<line>/crl                                          revocation list, DER
//! ```

use crate::Hex;
use crate::product::{Fms, Product, ProductLine};
use crate::report::{ReportFields, SigningKey};
use crate::tcb::Tcb;

/// The service's address.
pub const AMD: &str = "https://kdsintf.amd.com";

/// Something that the service gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// The certificate of a chip's key for these firmware levels.
    Vcek {
        /// The product line.
        product: Product,
        /// The chip's hardware ID: 64 bytes, 8 for Turin.
        hwid: Vec<u8>,
        /// The levels.
        tcb: Tcb,
    },
    /// The certificates of the intermediate for keys of this kind and of the root.
    Chain(Product, SigningKey),
    /// The root's revocation list.
    Crl(Product, SigningKey),
}

/// Why the service cannot be asked about a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotAsk {
    /// CHIP_ID is zero.
    #[error("the report does not name its chip, so that nobody can be asked for the certificate of its key")]
    Masked,
    /// Version 2 has no FMS, or the FMS is of no line that the service knows.
    #[error("the report does not say of which known product line it is")]
    ProductLine,
    /// A level in a byte that the product line does not have.
    #[error("the report's TCB is not one of its product line")]
    Tcb,
    /// A VLEK signed.
    #[error("a provider's key signed the report: its certificate comes from the provider's host alone")]
    Vlek,
}

/// The product that a report says it is of, unverified: enough to know whom to ask.
///
/// # Errors
/// [`CannotAsk::ProductLine`].
pub fn product_of(report: &ReportFields) -> Result<Product, CannotAsk> {
    match report.fms {
        Some(Fms::SOFTWARE) => Ok(Product::Software),
        Some(fms) => ProductLine::of(fms)
            .filter(|line| ProductLine::KNOWN.contains(line))
            .map(Product::Line)
            .ok_or(CannotAsk::ProductLine),
        None => Err(CannotAsk::ProductLine),
    }
}

impl Document {
    /// The certificate of the key that signed `report`.
    ///
    /// # Errors
    /// [`CannotAsk`].
    pub fn vek_of(report: &ReportFields) -> Result<Self, CannotAsk> {
        let product = product_of(report)?;
        if report.signing_key == SigningKey::Vlek {
            return Err(CannotAsk::Vlek);
        }
        if Hex(report.chip_id).is_zero() {
            return Err(CannotAsk::Masked);
        }
        let hwid = report.chip_id.get(..product.hwid_bytes()).unwrap_or_default().to_vec();
        let tcb = Tcb::from_u64(report.reported_tcb, product.layout()).ok_or(CannotAsk::Tcb)?;
        Ok(Self::Vcek { product, hwid, tcb })
    }

    /// Where it is below the service's address.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Vcek { product, hwid, tcb } => {
                let Tcb { fmc, bootloader, tee, snp, microcode } = tcb;
                let fmc = fmc.map(|fmc| format!("fmcSPL={fmc:02}&")).unwrap_or_default();
                format!(
                    "/vcek/v1/{}/{}?{fmc}blSPL={bootloader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}",
                    product.name(),
                    hex::encode(hwid)
                )
            }
            Self::Chain(product, key) => format!("/{}/v1/{}/cert_chain", kind(*key), product.name()),
            Self::Crl(product, key) => format!("/{}/v1/{}/crl", kind(*key), product.name()),
        }
    }

    /// A file name for it, by which no two documents share a file.
    #[must_use]
    pub fn file_name(&self) -> String {
        let name = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        self.path().trim_start_matches('/').chars().map(name).collect()
    }

    /// The document with this path; `None` where there is none.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        let (place, query) = path.split_once('?').unwrap_or((path, ""));
        let [kind, line, name] =
            <[&str; 3]>::try_from(place.strip_prefix('/')?.split('/').filter(|part| *part != "v1").collect::<Vec<_>>())
                .ok()?;
        let key = match kind {
            "vcek" => SigningKey::Vcek,
            "vlek" => SigningKey::Vlek,
            _ => return None,
        };
        let product = Product::from_name(line)?;
        let document = match name {
            "cert_chain" => Self::Chain(product, key),
            "crl" => Self::Crl(product, key),
            hwid => Self::Vcek { product, hwid: hex::decode(hwid).ok()?, tcb: levels(query)? },
        };
        // Whatever else was in the path or query, it is not how this document is asked for.
        (document.path() == path).then_some(document)
    }
}

fn kind(key: SigningKey) -> &'static str {
    match key {
        SigningKey::Vcek => "vcek",
        SigningKey::Vlek => "vlek",
    }
}

fn levels(query: &str) -> Option<Tcb> {
    let mut tcb = Tcb::default();
    for part in query.split('&') {
        let (name, level) = part.split_once('=')?;
        let level = level.parse().ok()?;
        match name {
            "fmcSPL" => tcb.fmc = Some(level),
            "blSPL" => tcb.bootloader = level,
            "teeSPL" => tcb.tee = level,
            "snpSPL" => tcb.snp = level,
            "ucodeSPL" => tcb.microcode = level,
            _ => return None,
        }
    }
    Some(tcb)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(family: u8, model: u8, reported_tcb: u64) -> ReportFields {
        let fms = Some(Fms { family, model, stepping: 1 });
        ReportFields { fms, reported_tcb, chip_id: [0xab; 64], ..ReportFields::empty() }
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        let milan = Document::vek_of(&report(0x19, 1, 0xdb18_0000_0000_0004)).unwrap();
        let id = "ab".repeat(64);
        assert_eq!(milan.path(), format!("/vcek/v1/Milan/{id}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"));
        let turin = Document::vek_of(&report(0x1a, 2, 0xdb00_0000_1800_0401)).unwrap();
        let expected = "/vcek/v1/Turin/abababababababab?fmcSPL=01&blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219";
        assert_eq!(turin.path(), expected);
        let genoa = Product::Line(ProductLine::Genoa);
        assert_eq!(Document::Chain(genoa, SigningKey::Vlek).path(), "/vlek/v1/Genoa/cert_chain");
        assert_eq!(Document::Crl(genoa, SigningKey::Vcek).path(), "/vcek/v1/Genoa/crl");
        assert_eq!(Document::Crl(genoa, SigningKey::Vcek).file_name(), "vcek-v1-Genoa-crl");
    }

    #[test]
    fn a_report_that_does_not_say_enough_is_told() {
        let fields = report(0x19, 1, 0);
        let ask = |fields: ReportFields| Document::vek_of(&fields).unwrap_err();
        assert_eq!(ask(ReportFields { fms: None, version: 2, ..fields }), CannotAsk::ProductLine);
        assert_eq!(ask(report(0x1a, 0x50, 0)), CannotAsk::ProductLine);
        assert_eq!(ask(ReportFields { chip_id: [0; 64], ..fields }), CannotAsk::Masked);
        assert_eq!(ask(ReportFields { reported_tcb: 1 << 16, ..fields }), CannotAsk::Tcb);
        assert_eq!(ask(ReportFields { signing_key: SigningKey::Vlek, ..fields }), CannotAsk::Vlek);
    }

    #[test]
    fn other_paths_are_no_documents() {
        for path in [
            "",
            "/",
            "/vcek/v1/Rome/crl",
            "/vcek/v2/Milan/crl",
            "/vcek/v1/Milan/crl?x",
            "/vcek/v1/Milan/../Genoa/crl",
            "/vcek/v1/Milan/abab?blSPL=4&teeSPL=00&snpSPL=24&ucodeSPL=219",
            "/vcek/v1/Milan/abab?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=256",
            "/vcek/v1/Milan/abab",
            "/vlek/v1/Milan/abab?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219",
        ] {
            assert_eq!(Document::at(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_document_is_found_at_its_path(hwid: [u8; 8], turin: bool, levels: [u8; 5]) {
            let [fmc, bootloader, tee, snp, microcode] = levels;
            let tcb = Tcb { fmc: turin.then_some(fmc), bootloader, tee, snp, microcode };
            let product = Product::Line(if turin { ProductLine::Turin } else { ProductLine::Milan });
            let document = Document::Vcek { product, hwid: hwid.to_vec(), tcb };
            prop_assert_eq!(Document::at(&document.path()), Some(document));
        }

        #[test]
        fn any_text_is_a_path_or_none(text in "(/[a-z0-9A-Z?=&]{0,9}){0,5}") {
            let _ = Document::at(&text);
        }
    }
}
