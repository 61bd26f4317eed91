//! AMD as the authority: its roots, pinned by hash.

use caveau_snp::Hex;
use caveau_snp::certificate::Certificate;
use caveau_snp::check::Refusal;
use caveau_snp::claims::TeeClass;
use caveau_snp::examine::Authority;
use caveau_snp::product::{Product, ProductLine};
use caveau_snp::report::Report;

/// AMD's roots and nobody else's. Private, without fields: no caller can give it another root.
pub(crate) struct Amd;

/// SHA-256 of the DER of the ARK of each product line, as AMD's key distribution service gives them out.
const ROOTS: [(ProductLine, [u8; 32]); 3] = [
    (
        ProductLine::Milan,
        *b"\x69\xd0\x63\xb4\x53\x44\xd2\x6a\x2e\x94\xe1\xf4\x21\x0d\xe4\x9e\xf5\x55\x30\x82\x87\xd4\xc1\x74\x44\x5c\x95\x63\x9a\x54\x0b\xcd",
    ),
    (
        ProductLine::Genoa,
        *b"\x4c\x65\x98\xd1\x9c\x18\x71\x9c\x5d\xfd\x4a\x7d\x33\x5f\x67\x4e\x5b\xfe\x1d\x8f\x80\x0c\xea\x2c\xf2\x70\xc1\x0d\x10\x3d\xb2\xf1",
    ),
    (
        ProductLine::Turin,
        *b"\x1f\x08\x41\x61\xa4\x4b\xb6\xd9\x37\x78\xa9\x04\x87\x7d\x48\x19\xca\xfa\x5d\x05\xef\x41\x93\xb2\xde\xd9\xdd\x9c\x73\xdd\x3f\x6a",
    ),
];

impl Authority for Amd {
    fn class(&self) -> TeeClass {
        TeeClass::Hardware
    }

    fn product(&self, report: &Report, _vek: &Certificate<'_>, root: &Certificate<'_>) -> Result<Product, Refusal> {
        let of_root = root.common_name().strip_prefix("ARK-").and_then(ProductLine::from_name);
        let Some(fms) = report.fields().fms else {
            return of_root.map(Product::Line).ok_or_else(|| {
                let name = root.common_name();
                unknown(format!(
                    "the report does not say of which product line it is, and {name} is none of AMD's roots"
                ))
            });
        };
        let line = match ProductLine::of(fms) {
            Some(ProductLine::Venice) => {
                return Err(unknown(format!("the report is of Venice ({fms}), which has no public root yet")));
            }
            Some(line) => line,
            None => {
                return Err(unknown(format!("the report is of processor {fms}, which is of no known product line")));
            }
        };
        if of_root == Some(line) {
            return Ok(Product::Line(line));
        }
        let sentence = format!("the report is of {line} ({fms}), and its chain ends at {}", root.common_name());
        Err(Refusal::new("product-line-mismatch", sentence))
    }

    fn believes(&self, product: Product, root: &Certificate<'_>) -> Result<String, Refusal> {
        let Hex(found) = root.sha256();
        let pinned = ROOTS.iter().any(|(line, hash)| Product::Line(*line) == product && *hash == found);
        if pinned {
            return Ok(format!("{} is AMD's root, byte for byte", root.common_name()));
        }
        let sentence =
            format!("{} is not AMD's root for {}, whatever its name says", root.common_name(), product.name());
        Err(Refusal::new("root-untrusted", sentence))
    }
}

fn unknown(sentence: String) -> Refusal {
    Refusal::new("product-line-unknown", sentence)
}
