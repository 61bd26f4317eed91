//! A platform of its own: keys, certificates, collateral and quotes of the right shapes, under a root that only tests believe.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use caveau_dcap::{Authority, Collateral};
use serde_json::{Value, json};

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        length @ 0..=0x7f => out.push(u8::try_from(length).unwrap()),
        length @ 0x80..=0xff => out.extend([0x81, u8::try_from(length).unwrap()]),
        length => {
            out.push(0x82);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const P256_KEY: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const SGX: &[u8] = b"\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01";

fn name(common: &str) -> Vec<u8> {
    let attribute = sequence(&[b"\x06\x03\x55\x04\x03", &tlv(0x0c, &[common.as_bytes()])]);
    sequence(&[&tlv(0x31, &[&attribute])])
}

fn time(text: &str) -> Vec<u8> {
    tlv(0x17, &[text.as_bytes()])
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { b"\x01\x01\xff" } else { b"" };
    sequence(&[&tlv(6, &[id]), flag, &tlv(4, &[value])])
}

/// A key in both of its uses: signatures in DER for certificates, of fixed length for everything else.
pub(crate) struct Key {
    der: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

impl Key {
    fn new() -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let read =
            |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        Self { der: read(&ECDSA_P256_SHA256_ASN1_SIGNING), fixed: read(&ECDSA_P256_SHA256_FIXED_SIGNING) }
    }

    fn point(&self) -> &[u8] {
        self.fixed.public_key().as_ref()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.fixed.sign(&SystemRandom::new(), message).unwrap().as_ref().try_into().unwrap()
    }

    fn sign_object(&self, tbs: &[u8]) -> Vec<u8> {
        let signature = self.der.sign(&SystemRandom::new(), tbs).unwrap();
        sequence(&[tbs, ECDSA_SHA256, &tlv(3, &[&[0], signature.as_ref()])])
    }
}

/// A certificate's part that is signed.
pub(crate) struct Spec<'a> {
    pub(crate) subject: &'a str,
    pub(crate) issuer: &'a str,
    pub(crate) serial: u8,
    pub(crate) authority: bool,
    pub(crate) until: &'a str,
    pub(crate) extensions: Vec<Vec<u8>>,
}

fn certificate(spec: &Spec<'_>, key: &Key, issuer: &Key) -> Vec<u8> {
    let constraints: &[u8] = if spec.authority { b"\x30\x03\x01\x01\xff" } else { b"\x30\x00" };
    let usage: &[u8] = if spec.authority { b"\x03\x02\x01\x06" } else { b"\x03\x02\x06\xc0" };
    let mut extensions = vec![extension(b"\x55\x1d\x13", true, constraints), extension(b"\x55\x1d\x0f", true, usage)];
    extensions.extend(spec.extensions.iter().cloned());
    let tbs = sequence(&[
        b"\xa0\x03\x02\x01\x02",
        &tlv(2, &[&[spec.serial]]),
        ECDSA_SHA256,
        &name(spec.issuer),
        &sequence(&[&time("200101000000Z"), &time(spec.until)]),
        &name(spec.subject),
        &sequence(&[P256_KEY, &tlv(3, &[&[0], key.point()])]),
        &tlv(0xa3, &[&sequence(&[&extensions.concat()])]),
    ]);
    issuer.sign_object(&tbs)
}

fn list(issuer: &str, key: &Key, until: &str, revoked: &[u8]) -> Vec<u8> {
    let entries: Vec<u8> =
        revoked.iter().flat_map(|serial| sequence(&[&tlv(2, &[&[*serial]]), &time("250101000000Z")])).collect();
    let entries = if entries.is_empty() { Vec::new() } else { sequence(&[&entries]) };
    let number = sequence(&[&extension(b"\x55\x1d\x14", false, b"\x02\x01\x01")]);
    let tbs = sequence(&[
        b"\x02\x01\x01",
        ECDSA_SHA256,
        &name(issuer),
        &time("250101000000Z"),
        &time(until),
        &entries,
        &tlv(0xa0, &[&number]),
    ]);
    key.sign_object(&tbs)
}

/// Intel's extension in the certificate of a platform's key.
fn sgx_extension(components: [u8; 16], pce_svn: u8, fmspc: [u8; 6]) -> Vec<u8> {
    let element = |id: &[u8], value: &[u8]| sequence(&[&tlv(6, &[SGX, id]), value]);
    let mut tcb = Vec::new();
    for (number, svn) in (1_u8..).zip(components) {
        tcb.extend(element(&[2, number], &tlv(2, &[&[svn]])));
    }
    tcb.extend(element(&[2, 17], &tlv(2, &[&[pce_svn]])));
    tcb.extend(element(&[2, 18], &tlv(4, &[&components])));
    let flags = [1, 2, 3].map(|number| element(&[7, number], b"\x01\x01\xff")).concat();
    let elements = [
        element(&[1], &tlv(4, &[&[7; 16]])),
        element(&[2], &sequence(&[&tcb])),
        element(&[3], &tlv(4, &[&[0; 2]])),
        element(&[4], &tlv(4, &[&fmspc])),
        element(&[5], b"\x0a\x01\x01"),
        element(&[6], &tlv(4, &[&[8; 16]])),
        element(&[7], &sequence(&[&flags])),
    ];
    extension(SGX, false, &sequence(&[&elements.concat()]))
}

pub(crate) const ROOT: &str = "Intel SGX Root CA";
pub(crate) const SIGNER: &str = "Intel SGX TCB Signing";
pub(crate) const PCK_CA: &str = "Intel SGX PCK Platform CA";
pub(crate) const PCK: &str = "Intel SGX PCK Certificate";
pub(crate) const FMSPC: [u8; 6] = [0x50, 0x80, 0x6f, 0, 0, 0];
pub(crate) const QE_SIGNER: [u8; 32] = [0xdc; 32];

/// A platform, and what can be said of it.
pub(crate) struct Platform {
    pub(crate) root: Key,
    pub(crate) signer: Key,
    pub(crate) pck_ca: Key,
    pub(crate) pck: Key,
    attestation: Key,
    pub(crate) root_der: Vec<u8>,
    /// Serials that the root has revoked, and that the PCK authority has.
    pub(crate) revoked: (Vec<u8>, Vec<u8>),
    pub(crate) components: [u8; 16],
    pub(crate) crl_until: &'static str,
    pub(crate) pck_until: &'static str,
    /// What the quoting enclave hashes along with its key.
    pub(crate) authentication: Vec<u8>,
}

/// What a quote says.
#[derive(Clone)]
pub(crate) struct Said {
    pub(crate) version: u16,
    pub(crate) tdx: bool,
    /// Type and bytes of the body.
    pub(crate) body: (u16, Vec<u8>),
    pub(crate) qe_isv_svn: u16,
    pub(crate) qe_attributes: u8,
    /// MISCSELECT as it stands in memory.
    pub(crate) qe_misc_select: [u8; 4],
}

/// The body of a trust domain of TDX 1.5, whose module is of this version and SVN at launch and now.
pub(crate) fn td15(launch: [u8; 2], now: [u8; 2]) -> Said {
    let mut body = vec![0; 648];
    body[..2].copy_from_slice(&launch);
    body[2] = 6;
    body[120 + 3] = 0x10;
    body[136..184].fill(0xab);
    body[520..584].fill(0xcd);
    body[584..586].copy_from_slice(&now);
    body[586] = 6;
    Said { version: 5, tdx: true, body: (3, body), qe_isv_svn: 4, qe_attributes: 0x11, qe_misc_select: [0; 4] }
}

/// The report of an enclave.
pub(crate) fn enclave(attributes: u8) -> Said {
    let mut body = vec![0; 384];
    body[48] = attributes;
    body[64..96].fill(0xab);
    body[128..160].fill(0xef);
    body[258] = 3;
    Said { version: 3, tdx: false, body: (1, body), qe_isv_svn: 4, qe_attributes: 0x11, qe_misc_select: [0; 4] }
}

impl Authority for Platform {
    fn believes(&self, root: &[u8]) -> bool {
        root == self.root_der
    }
}

impl Platform {
    pub(crate) fn new() -> Self {
        let root = Key::new();
        let spec = Spec {
            subject: ROOT,
            issuer: ROOT,
            serial: 1,
            authority: true,
            until: "491231000000Z",
            extensions: vec![],
        };
        let root_der = certificate(&spec, &root, &root);
        Self {
            root,
            signer: Key::new(),
            pck_ca: Key::new(),
            pck: Key::new(),
            attestation: Key::new(),
            root_der,
            revoked: (vec![], vec![]),
            components: [5; 16],
            crl_until: "300101000000Z",
            pck_until: "300101000000Z",
            // As many bytes as Intel's have.
            authentication: (0..32).collect(),
        }
    }

    /// The chain of the platform's key: its certificate, the authority's, the root's.
    fn chain(&self) -> Vec<Vec<u8>> {
        let extensions = vec![sgx_extension(self.components, 11, FMSPC)];
        let pck = Spec { subject: PCK, issuer: PCK_CA, serial: 4, authority: false, until: self.pck_until, extensions };
        let authority = Spec {
            subject: PCK_CA,
            issuer: ROOT,
            serial: 3,
            authority: true,
            until: "400101000000Z",
            extensions: vec![],
        };
        vec![
            certificate(&pck, &self.pck, &self.pck_ca),
            certificate(&authority, &self.pck_ca, &self.root),
            self.root_der.clone(),
        ]
    }

    /// Collateral with these statements.
    pub(crate) fn collateral(&self, tcb_info: &Value, identity: &Value) -> Collateral {
        let signer = Spec {
            subject: SIGNER,
            issuer: ROOT,
            serial: 2,
            authority: false,
            until: "400101000000Z",
            extensions: vec![],
        };
        let statement = |field: &str, value: &Value| {
            let text = value.to_string();
            let signature = hex::encode(self.signer.sign(text.as_bytes()));
            Collateral::parse(format!(r#"{{"{field}":{text},"signature":"{signature}"}}"#).as_bytes()).unwrap()
        };
        let own = Collateral {
            certificates: vec![certificate(&signer, &self.signer, &self.root)],
            crls: vec![
                list(ROOT, &self.root, self.crl_until, &self.revoked.0),
                list(PCK_CA, &self.pck_ca, self.crl_until, &self.revoked.1),
            ],
            ..Collateral::default()
        };
        own.with(statement("tcbInfo", tcb_info)).with(statement("enclaveIdentity", identity))
    }

    /// A quote that says so, signed from the platform's key on.
    pub(crate) fn quote(&self, said: &Said) -> Vec<u8> {
        let tee: u32 = if said.tdx { 0x81 } else { 0 };
        let mut signed = [&said.version.to_le_bytes()[..], &2_u16.to_le_bytes(), &tee.to_le_bytes(), &[0; 4]].concat();
        signed.extend(hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap());
        signed.extend([0; 20]);
        if said.version == 5 {
            signed.extend(said.body.0.to_le_bytes());
            signed.extend(u32::try_from(said.body.1.len()).unwrap().to_le_bytes());
        }
        signed.extend(&said.body.1);
        let key = &self.attestation.point()[1..];
        let authentication = &self.authentication[..];
        let length = u16::try_from(authentication.len()).unwrap();
        let mut report = vec![0; 384];
        report[16..20].copy_from_slice(&said.qe_misc_select);
        report[48] = said.qe_attributes;
        report[128..160].copy_from_slice(&QE_SIGNER);
        report[256] = 2;
        report[258..260].copy_from_slice(&said.qe_isv_svn.to_le_bytes());
        let bound = digest::digest(&digest::SHA256, &[key, authentication].concat());
        report[320..352].copy_from_slice(bound.as_ref());
        let pem: String = self.chain().iter().map(|der| caveau_snp::pem::certificate(der)).collect();
        let mut qe = [&report[..], &self.pck.sign(&report), &length.to_le_bytes(), authentication].concat();
        qe.extend(5_u16.to_le_bytes());
        qe.extend(u32::try_from(pem.len()).unwrap().to_le_bytes());
        qe.extend(pem.as_bytes());
        let mut data = [&self.attestation.sign(&signed)[..], key].concat();
        if said.version > 3 {
            data.extend(6_u16.to_le_bytes());
            data.extend(u32::try_from(qe.len()).unwrap().to_le_bytes());
        }
        data.extend(qe);
        signed.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        signed.extend(data);
        signed
    }
}

fn components(svn: u8) -> Value {
    (0..16).map(|_| json!({ "svn": svn })).collect()
}

/// TCB info of SGX or TDX with levels of these SVNs and statuses.
pub(crate) fn tcb_info(id: &str, levels: &[(u8, &str)]) -> Value {
    let zero = "00".repeat(48);
    let of = |(svn, status): &(u8, &str)| {
        let mut tcb = json!({ "sgxtcbcomponents": components(*svn), "pcesvn": 11 });
        if id == "TDX" {
            let tdx: Value = (0..16).map(|at| json!({ "svn": if at == 2 { *svn } else { 0 } })).collect();
            tcb["tdxtcbcomponents"] = tdx;
        }
        let advisories: &[&str] = if *status == "UpToDate" { &[] } else { &["INTEL-SA-00001"] };
        json!({ "tcb": tcb, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": status, "advisoryIDs": advisories })
    };
    let mut info = json!({
        "id": id, "version": 3, "issueDate": "2026-01-01T00:00:00Z", "nextUpdate": "2026-02-01T00:00:00Z",
        "fmspc": hex::encode_upper(FMSPC), "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 18,
        "tcbLevels": levels.iter().map(of).collect::<Vec<_>>(),
    });
    if id == "TDX" {
        let module = json!({ "mrsigner": zero, "attributes": "00".repeat(8), "attributesMask": "FF".repeat(8) });
        info["tdxModule"] = module.clone();
        let mut identity = module;
        identity["id"] = "TDX_01".into();
        identity["tcbLevels"] = json!([
            { "tcb": { "isvsvn": 6 }, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "UpToDate" },
            { "tcb": { "isvsvn": 4 }, "tcbDate": "2024-01-01T00:00:00Z", "tcbStatus": "OutOfDate",
              "advisoryIDs": ["INTEL-SA-00002"] },
            { "tcb": { "isvsvn": 2 }, "tcbDate": "2023-01-01T00:00:00Z", "tcbStatus": "Revoked" }
        ]);
        info["tdxModuleIdentities"] = json!([identity]);
    }
    info
}

/// QE identity, of which SVN 4 is up to date and SVN 2 is not.
pub(crate) fn identity(id: &str) -> Value {
    json!({
        "id": id, "version": 2, "issueDate": "2026-01-01T00:00:00Z", "nextUpdate": "2026-02-01T00:00:00Z",
        "tcbEvaluationDataNumber": 17, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000", "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode_upper(QE_SIGNER), "isvprodid": 2,
        "tcbLevels": [
            { "tcb": { "isvsvn": 4 }, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "UpToDate" },
            { "tcb": { "isvsvn": 2 }, "tcbDate": "2024-01-01T00:00:00Z", "tcbStatus": "OutOfDate",
              "advisoryIDs": ["INTEL-SA-00003"] }
        ]
    })
}
