//! The single checks on a report and its three certificates.

use caveau_signature::{Curve, Hash, Key, Scheme, verifies};

use crate::Hex;
use crate::bits::{GuestPolicy, PlatformInfo};
use crate::certificate::{Certificate, PublicKey, show_oid};
use crate::check::Refusal;
use crate::claims::{CertificateName, Claims, Endorsement, RevocationList, TeeClass};
use crate::crl::Crl;
use crate::examine::sha256;
use crate::oid;
use crate::product::Product;
use crate::report::{Report, SigningKey};
use crate::software;
use crate::tcb::Tcb;
use crate::time::Timestamp;
use crate::vek::VekExtensions;

/// SHA-256 of the SubjectPublicKeyInfo of keys whose private halves are published (go-sev-guest, `testing/data/keys`: ARK,
/// ASK, ASVK, VCEK, VLEK).
const PUBLISHED_KEYS: [[u8; 32]; 5] = [
    *b"\x68\x6a\x27\xce\xe8\xde\xbf\x56\xa4\xcf\x2a\xe0\x7b\x28\x35\xb5\x44\x0f\x77\x61\xea\x14\xd0\x5d\x33\x26\x15\x5c\x03\x92\xa8\x92",
    *b"\x1f\xff\xee\x37\xa1\xb2\xd1\x38\xe0\xf8\x8d\x22\x2b\x7c\x98\x27\x2e\xf3\x7f\xac\x69\x74\xb4\x43\x47\x98\xa2\x42\x15\xad\x81\x1c",
    *b"\x4f\x86\x07\xe1\xc7\xec\x17\xb7\x35\x41\x45\x0d\x3c\xaa\xca\xf0\x57\x57\x5f\x6e\xf7\x34\xed\xda\x85\xa9\x7c\x10\xca\xe0\xd1\xba",
    *b"\x2b\x8c\xd7\x3f\x8d\xd0\xb8\xc4\x9f\x79\x68\xba\xe4\x6b\x30\x36\xb8\xb1\x3e\x35\x5f\xc6\xad\xaf\x1d\x57\x33\x0f\xa0\x2a\x8f\x76",
    *b"\x56\x82\x4d\xcd\x79\x46\x61\x97\x98\xdd\x7a\x2c\x3c\xac\x52\xc3\x99\x2a\xd5\xfb\x52\x74\x2a\xd1\x39\xcb\xa3\xd3\xfc\x4b\x8c\x62",
];

/// keyUsage: keyCertSign.
const KEY_CERT_SIGN: u8 = 0x04;

/// A report with the certificates said to endorse it. Each method is one check: a sentence, or a refusal.
pub(crate) struct Chain<'a> {
    pub(crate) class: TeeClass,
    pub(crate) report: &'a Report,
    pub(crate) vek: Certificate<'a>,
    pub(crate) intermediate: Certificate<'a>,
    pub(crate) root: Certificate<'a>,
}

/// What an endorsement key's certificate says, read as that of a product's key.
pub(crate) struct OfProduct<'a> {
    pub(crate) product: Product,
    extensions: Result<VekExtensions<'a>, Refusal>,
}

impl<'a> OfProduct<'a> {
    pub(crate) fn new(product: Product, vek: &Certificate<'a>) -> Self {
        Self { product, extensions: VekExtensions::parse(vek, product) }
    }

    fn extensions(&self) -> Result<&VekExtensions<'a>, Refusal> {
        self.extensions.as_ref().map_err(Clone::clone)
    }
}

type Finding = Result<String, Refusal>;

impl<'a> Chain<'a> {
    fn certificates(&self) -> [&Certificate<'a>; 3] {
        [&self.vek, &self.intermediate, &self.root]
    }

    pub(crate) fn no_published_keys(&self) -> Finding {
        self.no_keys_of(&PUBLISHED_KEYS)
    }

    fn no_keys_of(&self, published: &[[u8; 32]]) -> Finding {
        for certificate in self.certificates() {
            if published.contains(&sha256(certificate.spki()).0) {
                let sentence =
                    format!("the private key of {} is published: anyone can sign with it", certificate.common_name());
                return Err(Refusal::new("published-test-key", sentence));
            }
        }
        Ok("no key of the chain is a published test key".to_owned())
    }

    /// Software certificates carry a critical marker, and no others do.
    pub(crate) fn critical_extensions(&self) -> Finding {
        for certificate in self.certificates() {
            let who = certificate.common_name();
            let marker = certificate.extension(&software::MARKER_OID);
            if self.class == TeeClass::Hardware && marker.is_some() {
                let sentence = format!("{who} is of a software secure processor, which gives no confidentiality");
                return Err(Refusal::new("software-root", sentence));
            }
            if self.class == TeeClass::Emulated && !marker.is_some_and(|marker| marker.critical) {
                let sentence = format!("{who} lacks the critical marker of a software secure processor");
                return Err(Refusal::new("software-marker-missing", sentence));
            }
            let known = [oid::BASIC_CONSTRAINTS, oid::KEY_USAGE, &software::MARKER_OID];
            let mut critical = certificate.extensions().iter().filter(|extension| extension.critical);
            if let Some(unknown) = critical.find(|extension| !known.contains(&extension.oid)) {
                let sentence = format!("{who} has a critical extension that is not known: {}", show_oid(unknown.oid));
                return Err(Refusal::new("unknown-critical-extension", sentence));
            }
        }
        Ok("every critical extension is known".to_owned())
    }

    pub(crate) fn leaf_kind(&self) -> Finding {
        let expected = match self.report.fields().signing_key {
            SigningKey::Vcek => "SEV-VCEK",
            SigningKey::Vlek => "SEV-VLEK",
        };
        let found = self.vek.common_name();
        if found == expected {
            return Ok(format!("the report was signed by a key of the kind that its certificate names: {expected}"));
        }
        Err(Refusal::new(
            "leaf-kind",
            format!("the report says that {expected} signed it, and the certificate is of {found}"),
        ))
    }

    pub(crate) fn intermediate_kind(&self) -> Finding {
        let found = self.intermediate.common_name();
        let is_asvk = found.starts_with("SEV-VLEK-");
        let is_ask = found.starts_with("SEV-") && !is_asvk && !matches!(found, "SEV-VCEK" | "SEV-VLEK");
        let (fits, expected) = match self.vek.common_name() {
            "SEV-VLEK" => (is_asvk, "an ASVK (SEV-VLEK-…)"),
            _ => (is_ask, "an ASK (SEV-…)"),
        };
        if fits {
            return Ok(format!("{found} is an intermediate for {}", self.vek.common_name()));
        }
        Err(Refusal::new("intermediate-kind", format!("the intermediate is {found}, expected {expected}")))
    }

    pub(crate) fn root_name(&self) -> Finding {
        let found = self.root.common_name();
        if found.starts_with("ARK-") && self.root.issuer() == self.root.subject() {
            return Ok(format!("the root is {found}"));
        }
        Err(Refusal::new("root-name", format!("the root is named {found}, expected a self-issued ARK-…")))
    }

    pub(crate) fn issuer_names(&self) -> Finding {
        for (certificate, issuer) in [(&self.vek, &self.intermediate), (&self.intermediate, &self.root)] {
            if certificate.issuer() != issuer.subject() {
                let sentence =
                    format!("{} names another issuer than {}", certificate.common_name(), issuer.common_name());
                return Err(Refusal::new("issuer-name", sentence));
            }
        }
        let [vek, intermediate, root] = self.certificates().map(Certificate::common_name);
        let line = root.strip_prefix("ARK-").unwrap_or(root);
        let names_line = intermediate.strip_suffix(line).is_some_and(|prefix| matches!(prefix, "SEV-" | "SEV-VLEK-"));
        if !names_line {
            return Err(Refusal::new("issuer-name", format!("{intermediate} is no intermediate of {root}")));
        }
        Ok(format!("the names lead from {vek} over {intermediate} to {root}"))
    }

    pub(crate) fn key_types(&self) -> Finding {
        let fits = matches!(self.vek.public_key(), PublicKey::P384(_))
            && matches!(self.intermediate.public_key(), PublicKey::Rsa4096(_))
            && matches!(self.root.public_key(), PublicKey::Rsa4096(_));
        if fits {
            return Ok("P-384 signed the report, RSA-4096 the certificates".to_owned());
        }
        Err(Refusal::new("key-type", "expected a P-384 endorsement key under RSA-4096 authorities"))
    }

    pub(crate) fn ca_constraints(&self) -> Finding {
        let may_sign =
            |certificate: &Certificate<'_>| certificate.key_usage().is_some_and(|bits| bits & KEY_CERT_SIGN != 0);
        let root = matches!(self.root.basic_constraints(), Some((true, _))) && may_sign(&self.root);
        let intermediate =
            self.intermediate.basic_constraints() == Some((true, Some(0))) && may_sign(&self.intermediate);
        let leaf_is_none = !matches!(self.vek.basic_constraints(), Some((true, _))) && !may_sign(&self.vek);
        let broken = [(root, &self.root), (intermediate, &self.intermediate), (leaf_is_none, &self.vek)];
        match broken.iter().find(|(fits, _)| !fits) {
            None => Ok("root and intermediate may sign certificates, the endorsement key may not".to_owned()),
            Some((_, certificate)) => {
                let sentence = format!("{} has the wrong rights to sign certificates", certificate.common_name());
                Err(Refusal::new("ca-constraints", sentence))
            }
        }
    }

    pub(crate) fn validity(&self, at: Timestamp) -> Finding {
        for certificate in self.certificates() {
            let (from, until) = (certificate.not_before(), certificate.not_after());
            if at < from || at > until {
                let sentence = format!("{} is valid from {from} to {until}, not at {at}", certificate.common_name());
                return Err(Refusal::new("cert-validity", sentence));
            }
        }
        Ok(format!("all certificates are valid at {at}, until {}", self.valid_until(None)))
    }

    pub(crate) fn signatures(&self) -> Finding {
        for (certificate, issuer) in [(&self.intermediate, &self.root), (&self.vek, &self.intermediate)] {
            if !certificate.is_signed_by(issuer) {
                let sentence = format!("{} is not signed by {}", certificate.common_name(), issuer.common_name());
                return Err(Refusal::new("chain-signature", sentence));
            }
        }
        Ok("every certificate is signed by its issuer".to_owned())
    }

    pub(crate) fn report_signature(&self) -> Finding {
        let signature = self.report.signature();
        let fixed = [signature.r, signature.s].concat();
        let holds = match self.vek.public_key() {
            PublicKey::P384(point) => {
                let key = Key::Ecdsa(Curve::P384, point);
                verifies(Scheme::EcdsaFixed(Hash::Sha384), &key, self.report.signed_part(), &fixed)
            }
            PublicKey::P256(_) | PublicKey::Rsa4096(_) => false,
        };
        if holds {
            return Ok("the endorsement key signed the report".to_owned());
        }
        Err(Refusal::new("report-signature", "the endorsement key did not sign this report"))
    }

    pub(crate) fn vek_extensions(&self, key: &OfProduct<'_>) -> Finding {
        let extensions = key.extensions()?;
        let (found, expected) = (extensions.product_name, key.product.name());
        let is_stepping = found.strip_prefix(expected).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        if !is_stepping {
            let sentence = format!("the endorsement key was made for {found}, and the report is of {expected}");
            return Err(Refusal::new("product-name", sentence));
        }
        Ok(format!("the endorsement key was made for {found} with {}", extensions.tcb))
    }

    pub(crate) fn tcb_binding(&self, key: &OfProduct<'_>) -> Finding {
        let [reported, ..] = self.tcbs(key.product)?;
        let certified = key.extensions()?.tcb;
        if certified == reported {
            return Ok(format!("the report's TCB is that of its endorsement key: {reported}"));
        }
        let sentence = format!("the report claims TCB {reported}, and its endorsement key is for {certified}");
        Err(Refusal::new("tcb-mismatch", sentence))
    }

    /// REPORTED, COMMITTED, CURRENT and LAUNCH_TCB.
    fn tcbs(&self, product: Product) -> Result<[Tcb; 4], Refusal> {
        let fields = self.report.fields();
        let read = |version| {
            Tcb::from_u64(version, product.layout()).ok_or_else(|| {
                let sentence = format!("the TCB {version:#018x} has bytes set that {} does not have", product.name());
                Refusal::new("tcb-layout", sentence)
            })
        };
        Ok([
            read(fields.reported_tcb)?,
            read(fields.committed_tcb)?,
            read(fields.current_tcb)?,
            read(fields.launch_tcb)?,
        ])
    }

    pub(crate) fn chip_binding(&self, key: &OfProduct<'_>) -> Finding {
        let extensions = key.extensions()?;
        let chip_id = Hex(self.report.fields().chip_id);
        match (self.report.fields().signing_key, extensions.hwid, extensions.csp_id) {
            (SigningKey::Vcek, Some(_), None) if chip_id.is_zero() => {
                Ok("the platform masks its chip ID; the key is bound to one chip all the same".to_owned())
            }
            (SigningKey::Vcek, Some(hwid), None) if names_chip(&chip_id, hwid) => {
                Ok("the endorsement key was made for the chip that the report names".to_owned())
            }
            (SigningKey::Vcek, Some(_), None) => Err(Refusal::new(
                "hwid-mismatch",
                "the endorsement key was made for another chip than the report names",
            )),
            (SigningKey::Vlek, None, Some(provider)) => {
                Ok(format!("the endorsement key was made for provider {provider}"))
            }
            (SigningKey::Vcek, ..) => {
                Err(Refusal::new("vek-identity", "a VCEK's certificate must name a chip and no provider"))
            }
            (SigningKey::Vlek, ..) => {
                Err(Refusal::new("vek-identity", "a VLEK's certificate must name a provider and no chip"))
            }
        }
    }

    /// The last second in which everything is in force.
    fn valid_until(&self, crl: Option<&Crl<'_>>) -> Timestamp {
        let certificates = self.certificates().map(Certificate::not_after);
        let last = certificates.into_iter().chain(crl.map(Crl::next_update)).min();
        last.unwrap_or(Timestamp::from_unix(0))
    }

    /// What the report says. For the caller to use only when all checks passed.
    pub(crate) fn claims(&self, key: &OfProduct<'_>, crl: Option<&Crl<'_>>) -> Option<Claims> {
        let fields = self.report.fields();
        let [reported_tcb, committed_tcb, current_tcb, launch_tcb] = self.tcbs(key.product).ok()?;
        let provider = key.extensions().ok()?.csp_id.map(str::to_owned);
        let name_of = |certificate: &Certificate<'_>| CertificateName {
            name: certificate.common_name().to_owned(),
            sha256: certificate.sha256(),
        };
        let id_key_digest = Some(Hex(fields.id_key_digest)).filter(|digest| !digest.is_zero());
        Some(Claims {
            tee_class: self.class,
            product: key.product,
            fms: fields.fms,
            report_version: fields.version,
            signing_key: fields.signing_key,
            chip_id: Some(Hex(fields.chip_id)).filter(|chip| !chip.is_zero()),
            provider,
            reported_tcb,
            committed_tcb,
            current_tcb,
            launch_tcb,
            current_firmware: fields.current_firmware,
            committed_firmware: fields.committed_firmware,
            guest_policy: GuestPolicy(fields.policy),
            platform_info: PlatformInfo(fields.platform_info),
            vmpl: fields.vmpl,
            report_data: Hex(fields.report_data),
            measurement: Hex(fields.measurement),
            host_data: Hex(fields.host_data),
            guest_svn: fields.guest_svn,
            family_id: Hex(fields.family_id),
            image_id: Hex(fields.image_id),
            id_key_digest,
            author_key_digest: fields.author_key_enabled.then_some(Hex(fields.author_key_digest)),
            report_id: Hex(fields.report_id),
            report_id_ma: Hex(fields.report_id_ma),
            launch_mit_vector: fields.launch_mit_vector,
            current_mit_vector: fields.current_mit_vector,
            endorsement: Endorsement {
                root: name_of(&self.root),
                intermediate: name_of(&self.intermediate),
                vek: name_of(&self.vek),
                valid_until: self.valid_until(crl),
                revocation_list: crl.map(|crl| RevocationList {
                    number: crl.number(),
                    this_update: crl.this_update(),
                    next_update: crl.next_update(),
                }),
            },
        })
    }
}

/// Whether CHIP_ID is `hwid`, the rest of it zero.
fn names_chip(chip_id: &Hex<64>, hwid: &[u8]) -> bool {
    chip_id.split_at_checked(hwid.len()).is_some_and(|(id, rest)| id == hwid && rest.iter().all(|&byte| byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{CertificateSpec, Role, assemble, certificate_tbs, p384_spki};
    use crate::report::{ReportFields, Signature, set_signature};

    #[test]
    fn a_chip_is_named_by_all_its_bytes_and_zeros() {
        let mut chip_id = Hex([0; 64]);
        chip_id.0[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(names_chip(&chip_id, &[1, 2, 3, 4, 5, 6, 7, 8]));
        assert!(!names_chip(&chip_id, &[1, 2, 3, 4, 5, 6, 7]));
        chip_id.0[63] = 1;
        assert!(!names_chip(&chip_id, &[1, 2, 3, 4, 5, 6, 7, 8]));
        assert!(!names_chip(&chip_id, &[1; 65]));
    }

    /// A certificate with `point` as its key. Its signature is nobody's.
    fn certificate(role: Role<'_>, point: u8) -> Vec<u8> {
        let (not_before, not_after) = (Timestamp::from_unix(0), Timestamp::from_unix(1));
        let public_key = p384_spki(&[&[4][..], &[point; 96]].concat());
        let spec = CertificateSpec { role, root_id: "0", not_before, not_after, public_key: &public_key };
        assemble(&certificate_tbs(&spec), &[1; 512])
    }

    #[test]
    fn each_certificate_is_looked_up_among_the_published_keys() {
        let [root, intermediate, vek] =
            [(Role::Ark, 1), (Role::Ask, 2), (Role::Asvk, 3)].map(|(r, p)| certificate(r, p));
        let mut report = ReportFields::empty().to_unsigned();
        set_signature(&mut report, &Signature { r: [1; 48], s: [1; 48] });
        let report = Report::parse(&report).unwrap();
        let [vek, intermediate, root] = [&vek, &intermediate, &root].map(|der| Certificate::parse(der).unwrap());
        let chain = Chain { class: TeeClass::Emulated, report: &report, vek, intermediate, root };
        assert!(chain.no_published_keys().is_ok());
        for certificate in chain.certificates() {
            let published = sha256(certificate.spki()).0;
            assert_eq!(chain.no_keys_of(&[[0; 32], published]).unwrap_err().code, "published-test-key");
        }
    }
}
