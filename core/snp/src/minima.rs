//! Least firmware levels, by product line: policy data, each with its source. AMD's bulletins move on,
//! and an owner's own minima come on top.

use crate::product::{Product, ProductLine};
use crate::report::FirmwareVersion;

/// The date of this knowledge.
pub(crate) const DATE: &str = "2026-11-23";

/// The least SNP security level without a known way in: CVE-2024-56161 (EntrySign, AMD-SB-3019).
pub(crate) const fn least_snp_level(product: Product) -> Option<u8> {
    match product {
        Product::Line(ProductLine::Milan) => Some(0x18),
        Product::Line(ProductLine::Genoa) => Some(0x17),
        _ => None,
    }
}

/// The least SNP firmware that checks memory for aliases: CVE-2024-21944 (BadRAM, AMD-SB-3015).
pub(crate) const fn least_firmware(product: Product) -> Option<FirmwareVersion> {
    match product {
        Product::Line(ProductLine::Milan) => Some(FirmwareVersion { major: 1, minor: 55, build: 22 }),
        Product::Line(ProductLine::Genoa) => Some(FirmwareVersion { major: 1, minor: 55, build: 38 }),
        _ => None,
    }
}
