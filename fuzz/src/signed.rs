//! Evidence under a root that is believed: what blind changes cannot reach behind signatures.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384, RsaKeyPair};
use caveau_emulated::SoftwareRoot;
use caveau_evidence::{Certificates, Evidence, Expectations, Profile, Tee, Timestamp};
use caveau_snp::build::{
    CertificateSpec, CrlSpec, Role, VekIdentity, VekSpec, assemble, certificate_tbs, crl_tbs, p384_spki, rsa_spki,
};
use caveau_snp::examine::Rules;
use caveau_snp::product::{Fms, Product};
use caveau_snp::report::{REPORT_BYTES, ReportFields, SIGNED_BYTES, Signature, set_signature};
use caveau_snp::software::{CHIP_PREFIX, root_id};
use caveau_snp::tcb::Tcb;

use crate::Target;
use crate::sections::{join, sections};

/// A report, an endorsement certificate and a revocation list whose contents are any bytes and whose signatures hold.
pub(crate) const SIGNED_EVIDENCE: Target =
    Target { name: "signed_evidence", run: |data| _ = believed(data), seeds: bodies, fixtures: &[], rounds: 100 };

const NOW: Timestamp = Timestamp::from_unix(1_780_000_000);
const LATER: Timestamp = Timestamp::from_unix(1_790_000_000);

/// Keys of one installation, and what is the same in each of its pieces of evidence.
struct Authority {
    ark: RsaKeyPair,
    ask: RsaKeyPair,
    vek: EcdsaKeyPair,
    root: SoftwareRoot,
    root_certificate: Vec<u8>,
    intermediate: Vec<u8>,
    id: String,
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let ark = RsaKeyPair::generate(KeySize::Rsa4096).expect("a key");
    let ask = RsaKeyPair::generate(KeySize::Rsa4096).expect("a key");
    let vek = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
    let id = root_id(&rsa_spki(ark.public_key().as_ref()));
    let authority = |role, key: &RsaKeyPair| {
        let tbs = tbs(&id, role, &rsa_spki(key.public_key().as_ref()));
        assemble(&tbs, &sign(&ark, &tbs))
    };
    let (root_certificate, intermediate) = (authority(Role::Ark, &ark), authority(Role::Ask, &ask));
    let root = SoftwareRoot::parse(&root_certificate).expect("a root");
    Authority { ark, ask, vek, root, root_certificate, intermediate, id }
});

fn tbs(root_id: &str, role: Role<'_>, public_key: &[u8]) -> Vec<u8> {
    certificate_tbs(&CertificateSpec { role, root_id, not_before: NOW, not_after: LATER, public_key })
}

fn sign(key: &RsaKeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), message, &mut signature).expect("a signature");
    signature
}

/// Whether the evidence that these bytes make is believed.
fn believed(data: &[u8]) -> bool {
    let authority = &*AUTHORITY;
    let parts = sections(data);
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    let mut report = [0; REPORT_BYTES];
    report.iter_mut().zip(part(0)).for_each(|(to, from)| *to = *from);
    let signature = authority.vek.sign(&SystemRandom::new(), &report[..SIGNED_BYTES]).expect("a signature");
    let (r, s) = signature.as_ref().split_at(48);
    let halves = Signature { r: r.try_into().expect("48 bytes"), s: s.try_into().expect("48 bytes") };
    set_signature(&mut report, &halves);
    let certificates = Certificates {
        vek: Some(assemble(part(1), &sign(&authority.ask, part(1)))),
        intermediate: Some(authority.intermediate.clone()),
        root: Some(authority.root_certificate.clone()),
        crl: (!part(2).is_empty()).then(|| assemble(part(2), &sign(&authority.ark, part(2)))),
    };
    let mut evidence = Evidence::new(Tee::EmulatedSnp, report.to_vec(), certificates);
    evidence.runtime_data = part(3).to_vec();
    evidence.policy = Some(part(3).to_vec());
    let roots = [authority.root.clone()];
    let rules = Rules { at: NOW, require_crl: false, crl_at_least: 0 };
    drop(caveau_emulated::judge(&roots, &evidence, &Expectations::default(), Profile::Strict, NOW));
    assert!(caveau_evidence::verify(&evidence, &rules).verified.is_none(), "hardware's verifier believed a program");
    assert!(caveau_emulated::verify(&[], &evidence, &rules).verified.is_none(), "believed without a root");
    let Some(claims) = caveau_emulated::verify(&roots, &evidence, &rules).verified else { return false };
    assert_eq!(claims.report_data.0.as_slice(), &report[0x50..0x90], "a claim is not the report's");
    assert_eq!(claims.measurement.0.as_slice(), &report[0x90..0xc0], "a claim is not the report's");
    assert_eq!(claims.host_data.0.as_slice(), &report[0xc0..0xe0], "a claim is not the report's");
    // What was believed is not believed with one bit of it changed.
    let at = data.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let mut forged = evidence;
    forged.report[at % SIGNED_BYTES] ^= 1 << (at % 8);
    assert!(caveau_emulated::verify(&roots, &forged, &rules).verified.is_none(), "a changed report was believed");
    true
}

/// Report, certificate's content, revocation list's content, policy; one of which is believed.
fn bodies() -> Vec<Vec<u8>> {
    let authority = &*AUTHORITY;
    let tcb = Tcb { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 };
    let version = tcb.to_u64(Product::Software.layout());
    let mut chip_id = [0x5c; 64];
    chip_id[..8].copy_from_slice(&CHIP_PREFIX);
    let report = |version_of_report| {
        let fields = ReportFields {
            version: version_of_report,
            fms: Some(Fms::SOFTWARE),
            chip_id,
            platform_info: 0x20,
            reported_tcb: version,
            committed_tcb: version,
            current_tcb: version,
            launch_tcb: version,
            ..ReportFields::empty()
        };
        fields.to_unsigned().to_vec()
    };
    let role = |identity| Role::Vek(VekSpec { product: Product::Software, product_name: "Software", tcb, identity });
    let public_key = p384_spki(authority.vek.public_key().as_ref());
    let chip = tbs(&authority.id, role(VekIdentity::Chip(&chip_id)), &public_key);
    let provider = tbs(&authority.id, role(VekIdentity::Provider("CN=softsp.invalid")), &public_key);
    let crl = |revoked: &[(u64, Timestamp)]| {
        crl_tbs(&CrlSpec { root_id: &authority.id, this_update: NOW, next_update: LATER, number: 3, revoked })
    };
    vec![
        join(&[report(3), chip.clone(), crl(&[]), b"policy".to_vec()]),
        join(&[report(5), chip.clone(), crl(&[(7, NOW), (9, NOW)])]),
        join(&[report(2), chip, Vec::new()]),
        join(&[report(3), provider, crl(&[])]),
    ]
}

#[cfg(test)]
mod tests {
    use super::{believed, bodies};

    #[test]
    fn seeds_are_believed_where_report_and_certificate_agree() {
        let seeds = bodies();
        assert!(believed(&seeds[0]) && believed(&seeds[1]));
        assert!(!believed(&seeds[3]), "a chip's report under a provider's certificate");
    }
}
