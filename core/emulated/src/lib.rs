//! The one place that can accept evidence of the emulated secure processor.
//!
//! Trusts the software roots that its caller gives it, and nothing in the evidence. Promises the same checks as for hardware
//! ([`caveau_snp::examine`], the same appraisal), over the same bytes. Refuses evidence of hardware (whose verifier is
//! `caveau-evidence`), certificates without the critical marker of a software secure processor, and roots whose name is not
//! that of their key.
//!
//! An emulated processor is a program of the host: a pass here says that the host's program measured what the owner
//! expects, never that anything is hidden from the host. So this is a crate of its own, which neither `caveau-evidence` nor
//! a release broker depends on, and its proof, [`Emulated`], is not [`caveau_evidence::Verified`].

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "tests stop at the first surprise"
    )
)]

mod root;

use std::ops::Deref;

use caveau_evidence::{Appraisal, Check, Claims, Evidence, Expectations, Profile, Tee, TeeClass, Timestamp};
use caveau_snp::certificate::Certificate;
use caveau_snp::check::Refusal;
use caveau_snp::examine::{Authority, Examination, Rules, examine};
use caveau_snp::product::{Fms, Product, ProductLine};
use caveau_snp::report::Report;
use caveau_snp::software::{CHIP_PREFIX, PRODUCT_NAME};
pub use root::{SoftwareRoot, SoftwareRootError};

/// Something that was verified to a software root. Only [`verify`] makes one. Worth nothing where hardware is asked for.
///
/// ```compile_fail
/// let forged = caveau_emulated::Emulated(());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulated<T>(T);

impl<T> Deref for Emulated<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What [`verify`] found.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Every check, in the order made.
    pub checks: Vec<Check>,
    /// The claims, where no check failed.
    pub verified: Option<Emulated<Claims>>,
}

/// Verifies that a software secure processor under one of `roots` made this evidence.
#[must_use]
pub fn verify(roots: &[SoftwareRoot], evidence: &Evidence, rules: &Rules) -> Verification {
    let (checks, claims) = examine_as_emulated(roots, evidence, rules).into_parts();
    let mut all = vec![tee_check(evidence)];
    all.extend(checks);
    let authentic = !all.iter().any(|check| check.code.is_some());
    Verification { checks: all, verified: claims.filter(|_| authentic).map(Emulated) }
}

/// Verifies and appraises in one, for showing to people.
#[must_use]
pub fn judge(
    roots: &[SoftwareRoot],
    evidence: &Evidence,
    expected: &Expectations,
    profile: Profile,
    at: Timestamp,
) -> Appraisal {
    let examination = examine_as_emulated(roots, evidence, &expected.rules(profile, at));
    let context = (TeeClass::Emulated, profile, at);
    Appraisal::conclude(context, vec![tee_check(evidence)], examination, &evidence.attached(), expected)
}

fn examine_as_emulated(roots: &[SoftwareRoot], evidence: &Evidence, rules: &Rules) -> Examination {
    examine(&SoftwareAuthority(roots), &evidence.endorsed(), rules)
}

fn tee_check(evidence: &Evidence) -> Check {
    Check::from_result(
        "tee",
        match evidence.tee {
            Tee::EmulatedSnp => Ok("evidence of the EMULATED TEE, which gives no confidentiality".to_owned()),
            Tee::Snp => {
                Err(Refusal::new("hardware-tee", "this is evidence of SEV-SNP: it is judged by AMD's roots alone"))
            }
        },
    )
}

/// The roots that the caller gave.
struct SoftwareAuthority<'a>(&'a [SoftwareRoot]);

impl Authority for SoftwareAuthority<'_> {
    fn class(&self) -> TeeClass {
        TeeClass::Emulated
    }

    /// The software processor as itself (FMS FF/FF/FF), or the product line that it plays. Version 2 has no FMS: there the
    /// endorsement key's certificate says it.
    fn product(&self, report: &Report, vek: &Certificate<'_>, _root: &Certificate<'_>) -> Result<Product, Refusal> {
        let fields = report.fields();
        let product = match fields.fms {
            Some(Fms::SOFTWARE) => Some(Product::Software),
            Some(fms) => ProductLine::of(fms).filter(|line| *line != ProductLine::Venice).map(Product::Line),
            None => match vek.product_line_name() {
                Some(PRODUCT_NAME) => Some(Product::Software),
                Some(name) => ProductLine::from_name(name).map(Product::Line),
                None => None,
            },
        };
        let product = product.ok_or_else(|| {
            let fms = fields.fms.unwrap_or_default();
            let sentence = format!("the report is of processor {fms}, which no software secure processor plays");
            Refusal::new("product-line-unknown", sentence)
        })?;
        // Turin's chip IDs have eight bytes, the last two of which tell chips apart.
        let prefix = CHIP_PREFIX.get(..if product.hwid_bytes() == 8 { 6 } else { 8 }).unwrap_or(&CHIP_PREFIX);
        if fields.chip_id != [0; 64] && !fields.chip_id.starts_with(prefix) {
            let sentence = "the report names a chip that is no software secure processor";
            return Err(Refusal::new("product-line-mismatch", sentence));
        }
        Ok(product)
    }

    fn believes(&self, _product: Product, root: &Certificate<'_>) -> Result<String, Refusal> {
        if self.0.iter().any(|believed| believed.der() == root.der()) {
            return Ok(format!("{} is the software root that was allowed, byte for byte", root.common_name()));
        }
        let sentence = format!("{} is not the software root that was allowed", root.common_name());
        Err(Refusal::new("root-untrusted", sentence))
    }
}
