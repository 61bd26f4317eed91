//! A software secure processor for tests: keys made once, certificates and reports as asked.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its part")]

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384, RsaKeyPair};
use caveau_emulated::SoftwareRoot;
use caveau_evidence::{Certificates, Evidence, Tee, Timestamp};
use caveau_snp::build::{
    CertificateSpec, CrlSpec, Role, VekIdentity, VekSpec, assemble, certificate_tbs, crl_tbs, p384_spki, rsa_spki,
};
use caveau_snp::product::{Fms, Product, ProductLine};
use caveau_snp::report::{REPORT_BYTES, ReportFields, SIGNED_BYTES, Signature, SigningKey, set_signature};
use caveau_snp::software::{CHIP_PREFIX, root_id};
use caveau_snp::tcb::Tcb;

/// When everything was made.
pub(crate) fn made() -> Timestamp {
    "2026-11-23".parse().unwrap()
}

/// An hour later, when it is judged.
pub(crate) fn now() -> Timestamp {
    made().plus_seconds(3600)
}

const DAY: u64 = 24 * 3600;

pub(crate) struct Installation {
    ark: RsaKeyPair,
    ask: RsaKeyPair,
    vek: EcdsaKeyPair,
    /// Made once: PSS signatures differ each time, and a root is believed byte for byte.
    ark_certificate: Vec<u8>,
    pub(crate) root_id: String,
}

/// Two installations. RSA keys take seconds to make.
pub(crate) static ONE: LazyLock<Installation> = LazyLock::new(Installation::new);
pub(crate) static OTHER: LazyLock<Installation> = LazyLock::new(Installation::new);

/// What the processor plays.
#[derive(Clone)]
pub(crate) struct Persona {
    pub(crate) fields: ReportFields,
    pub(crate) product: Product,
    pub(crate) product_name: &'static str,
    pub(crate) tcb: Tcb,
    pub(crate) provider: Option<&'static str>,
    pub(crate) revoked: Vec<u64>,
    pub(crate) crl: bool,
}

impl Persona {
    /// The processor as itself.
    pub(crate) fn software(version: u32) -> Self {
        let tcb = Tcb { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 };
        let mut chip_id = [0x5c; 64];
        chip_id[..8].copy_from_slice(&CHIP_PREFIX);
        let fields =
            ReportFields { version, fms: Some(Fms::SOFTWARE), chip_id, platform_info: 0x20, ..ReportFields::empty() };
        let persona = Self {
            fields,
            product: Product::Software,
            product_name: "Software",
            tcb,
            provider: None,
            revoked: Vec::new(),
            crl: true,
        };
        persona.with_tcb(tcb)
    }

    pub(crate) fn line(line: ProductLine, version: u32, fms: Fms, product_name: &'static str) -> Self {
        let mut persona = Self::software(version);
        persona.product = Product::Line(line);
        persona.product_name = product_name;
        persona.fields.fms = Some(fms);
        if line == ProductLine::Turin {
            persona.fields.chip_id = [0; 64];
            persona.fields.chip_id[..8].copy_from_slice(b"SOFTSP\x01\x02");
            return persona.with_tcb(Tcb { fmc: Some(1), ..Self::software(5).tcb });
        }
        persona.clone().with_tcb(persona.tcb)
    }

    pub(crate) fn vlek() -> Self {
        let mut persona = Self::software(3);
        persona.provider = Some("CN=softsp.invalid");
        persona.fields.signing_key = SigningKey::Vlek;
        persona.fields.chip_id = [0; 64];
        persona
    }

    pub(crate) fn with_tcb(mut self, tcb: Tcb) -> Self {
        let version = tcb.to_u64(self.product.layout());
        self.tcb = tcb;
        self.fields.reported_tcb = version;
        self.fields.committed_tcb = version;
        self.fields.current_tcb = version;
        self.fields.launch_tcb = version;
        self
    }
}

impl Installation {
    fn new() -> Self {
        let ark = RsaKeyPair::generate(KeySize::Rsa4096).unwrap();
        let root_id = root_id(&rsa_spki(ark.public_key().as_ref()));
        let vek = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let ask = RsaKeyPair::generate(KeySize::Rsa4096).unwrap();
        let mut installation = Self { ark, ask, vek, ark_certificate: Vec::new(), root_id };
        installation.ark_certificate = installation.authority(Role::Ark, &installation.ark);
        installation
    }

    pub(crate) fn root(&self) -> SoftwareRoot {
        SoftwareRoot::parse(&self.ark_certificate()).unwrap()
    }

    pub(crate) fn ark_certificate(&self) -> Vec<u8> {
        self.ark_certificate.clone()
    }

    fn authority(&self, role: Role<'_>, key: &RsaKeyPair) -> Vec<u8> {
        let spki = rsa_spki(key.public_key().as_ref());
        self.signed_by_ark(&self.tbs(role, &spki, 20 * 365))
    }

    fn tbs(&self, role: Role<'_>, spki: &[u8], days: u64) -> Vec<u8> {
        certificate_tbs(&CertificateSpec {
            role,
            root_id: &self.root_id,
            not_before: made().minus_seconds(3600),
            not_after: made().plus_seconds(days * DAY),
            public_key: spki,
        })
    }

    pub(crate) fn signed_by_ark(&self, tbs: &[u8]) -> Vec<u8> {
        assemble(tbs, &sign_pss(&self.ark, tbs))
    }

    pub(crate) fn signed_by_ask(&self, tbs: &[u8]) -> Vec<u8> {
        assemble(tbs, &sign_pss(&self.ask, tbs))
    }

    /// The to-be-signed part of the endorsement key's certificate.
    pub(crate) fn vek_tbs(&self, persona: &Persona) -> Vec<u8> {
        let hwid = &persona.fields.chip_id[..persona.product.hwid_bytes()];
        let masked = [&CHIP_PREFIX[..], &[9; 56]].concat();
        let hwid = if hwid.iter().all(|byte| *byte == 0) { &masked } else { hwid };
        let identity = persona.provider.map_or(VekIdentity::Chip(hwid), VekIdentity::Provider);
        let role = Role::Vek(VekSpec {
            product: persona.product,
            product_name: persona.product_name,
            tcb: persona.tcb,
            identity,
        });
        let days = if persona.provider.is_some() { 365 } else { 7 * 365 };
        self.tbs(role, &p384_spki(self.vek.public_key().as_ref()), days)
    }

    pub(crate) fn crl(&self, persona: &Persona) -> Vec<u8> {
        self.list(7, made().plus_seconds(365 * DAY), &persona.revoked)
    }

    /// A revocation list, made an hour before everything else.
    pub(crate) fn list(&self, number: u64, next_update: Timestamp, revoked: &[u64]) -> Vec<u8> {
        let revoked: Vec<_> = revoked.iter().map(|serial| (*serial, made())).collect();
        self.signed_by_ark(&crl_tbs(&CrlSpec {
            root_id: &self.root_id,
            this_update: made().minus_seconds(3600),
            next_update,
            number,
            revoked: &revoked,
        }))
    }

    pub(crate) fn report(&self, persona: &Persona) -> Vec<u8> {
        self.signed(persona.fields.to_unsigned())
    }

    /// A report of any content, signed by the endorsement key.
    pub(crate) fn signed(&self, mut report: [u8; REPORT_BYTES]) -> Vec<u8> {
        let signature = self.vek.sign(&SystemRandom::new(), &report[..SIGNED_BYTES]).unwrap();
        let (r, s) = signature.as_ref().split_at(48);
        set_signature(&mut report, &Signature { r: r.try_into().unwrap(), s: s.try_into().unwrap() });
        report.to_vec()
    }

    pub(crate) fn evidence(&self, persona: &Persona) -> Evidence {
        let intermediate = if persona.provider.is_some() { Role::Asvk } else { Role::Ask };
        let certificates = Certificates {
            vek: Some(self.signed_by_ask(&self.vek_tbs(persona))),
            intermediate: Some(self.authority(intermediate, &self.ask)),
            root: Some(self.ark_certificate()),
            crl: persona.crl.then(|| self.crl(persona)),
        };
        Evidence::new(Tee::EmulatedSnp, self.report(persona), certificates)
    }
}

fn sign_pss(key: &RsaKeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

/// The to-be-signed part of a certificate with its list of extensions (each a whole SEQUENCE) changed.
pub(crate) fn edit_extensions(tbs: &[u8], edit: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut parts = elements(content(tbs));
    let mut extensions: Vec<Vec<u8>> = elements(content(content(parts.last().unwrap())));
    edit(&mut extensions);
    *parts.last_mut().unwrap() = wrap(0xa3, &wrap(0x30, &extensions.concat()));
    wrap(0x30, &parts.concat())
}

/// An extension with an identifier under AMD's 1.3.6.1.4.1.3704.1.
pub(crate) fn amd_extension(arcs: &[u8], value: &[u8]) -> Vec<u8> {
    let oid = [&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01], arcs].concat();
    wrap(0x30, &[wrap(0x06, &oid), wrap(0x04, value)].concat())
}

/// Whether an extension has that identifier.
pub(crate) fn is_amd_extension(extension: &[u8], arcs: &[u8]) -> bool {
    extension.starts_with(&amd_extension(arcs, &[])[..2][..1]) && {
        let oid = elements(content(extension)).remove(0);
        content(&oid) == [&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01], arcs].concat()
    }
}

pub(crate) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let header = match length {
        0..0x80 => vec![tag, u8::try_from(length).unwrap()],
        0x80..0x100 => vec![tag, 0x81, u8::try_from(length).unwrap()],
        _ => vec![tag, 0x82, u8::try_from(length >> 8).unwrap(), u8::try_from(length & 0xff).unwrap()],
    };
    [&header, content].concat()
}

fn header_and_length(der: &[u8]) -> (usize, usize) {
    match der[1] {
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
        short => (2, usize::from(short)),
    }
}

pub(crate) fn content(der: &[u8]) -> &[u8] {
    let (header, length) = header_and_length(der);
    &der[header..header + length]
}

pub(crate) fn elements(mut content: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !content.is_empty() {
        let (header, length) = header_and_length(content);
        let (element, rest) = content.split_at(header + length);
        out.push(element.to_vec());
        content = rest;
    }
    out
}
