//! Thousands of reports of any content, signed by an emulated processor: every version, product line and kind of key, each as it
//! must be or with one thing wrong.
//!
//! The certificates of an emulated processor have a critical marker, whose identifier the other cannot read: an arc of 128 bits.
//! So it gets their twins, of the same keys, names and extensions but for the marker, signed by the same authorities.

use std::fmt::{self, Display};

use caveau_differential::{Dice, Listed};
use caveau_emulated::verify;
use caveau_evidence::{Certificates, Claims, Evidence, Profile, Tee};
use caveau_snp::product::{Fms, ProductLine};
use caveau_snp::report::{FirmwareVersion, HOST_VMPL, REPORT_BYTES, ReportFields, SigningKey};
use caveau_snp::software::{CHIP_PREFIX, MARKER_OID};
use caveau_snp::tcb::Tcb;

use super::Comparison;
use super::peer::Pieces;
use crate::processor::{ONE, Persona, amd_extension, content, edit_extensions, elements, is_amd_extension, now, wrap};

const PIECES: usize = 2500;

/// What ours refuses of generated evidence by checks that the other does not make.
const OURS_ALONE: Listed = &[
    ("chip-key-masked", "it does not look at MASK_CHIP_KEY: firmware that has it set signs nothing"),
    ("keyinfo-reserved", "it does not look at KEY_INFO's reserved bits"),
    ("leaf-kind + vek-identity", "it does not look at SIGNING_KEY: which of a VCEK and a VLEK signed"),
    ("product-line-unknown", "it takes Venice, of which no root is public, for Turin"),
    ("product-name", "it does not ask for which product line the endorsement key was made"),
    ("reserved-nonzero-0x2d0", "of R it takes 48 bytes of 72"),
    ("reserved-nonzero-0x318", "of S it takes 48 bytes of 72"),
    ("reserved-nonzero-0x330", "it does not look at the bytes after the signature, which nobody signed"),
    ("sig-algo", "it takes any SIGNATURE_ALGO for ECDSA on P-384"),
    ("signing-key", "it does not look at SIGNING_KEY: 2 to 6 are reserved, and 7 is a report that nobody signed"),
    ("vek-extensions", "its users look at the levels alone: not at productName, structVersion, levels of no part"),
    ("vek-identity", "its users ask for no chip in a VCEK's certificate, and for no provider"),
    ("version", "it takes versions after 5 for version 5"),
];

/// What the other refuses, and ours accepts.
const THEIRS_ALONE: Listed = &[
    (
        "processor is not of know SEV-SNP generation",
        "of an emulated processor as itself, FMS FF/FF/FF, it knows nothing",
    ),
    // A report of version 2 has no FMS. Ours takes the line from the chain that was verified (AMD 57230); the other guesses it
    // from CHIP_ID, whose form says nothing of it where a VLEK signed: MASK_CHIP_ID leaves it zero (AMD 56860), and no binding
    // asks for the rest.
    ("version 2, report: MASK_CHIP_ID is enabled", "it cannot tell the line where CHIP_ID is zero"),
    ("version 2, report signature: VEK does not sign", "it guesses the wrong line, and encodes the TCBs as that one's"),
];

/// A certificate, and what the other gets for it.
#[derive(Clone)]
struct Twins {
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

/// The key of an endorsement, as its certificate has it.
struct Endorsement {
    persona: Persona,
    /// What is wrong with the certificate.
    crook: &'static str,
    vek: Twins,
}

/// Certificates of every kind, made once.
struct Authorities {
    root: Twins,
    /// For VCEKs, for VLEKs.
    intermediates: [Twins; 2],
    endorsements: Vec<Endorsement>,
    crooked: Vec<Endorsement>,
}

/// What is certified: the first element of a certificate.
fn tbs(certificate: &[u8]) -> Vec<u8> {
    elements(content(certificate)).remove(0)
}

fn without_marker(tbs: &[u8]) -> Vec<u8> {
    let marks = |extension: &Vec<u8>| extension.windows(MARKER_OID.len()).any(|window| window == MARKER_OID);
    edit_extensions(tbs, |list| list.retain(|extension| !marks(extension)))
}

type Edit = fn(&mut Vec<Vec<u8>>);

fn replace(list: &mut [Vec<u8>], arcs: &[u8], value: &[u8]) {
    let slot = list.iter_mut().find(|extension| is_amd_extension(extension, arcs)).unwrap();
    *slot = amd_extension(arcs, value);
}

/// Certificates whose extensions are wrong, or unusual and right.
const CROOKS: [(&str, Edit); 15] = [
    ("level in two bytes", |list| replace(list, &[3, 3], &[2, 2, 1, 0x18])),
    ("level not minimal", |list| replace(list, &[3, 3], &[2, 2, 0, 0x18])),
    ("empty level", |list| replace(list, &[3, 3], &[2, 0])),
    ("level without a value", |list| replace(list, &[3, 3], &[])),
    ("byte after a level", |list| replace(list, &[3, 3], &[2, 1, 0x18, 0])),
    ("negative level", |list| replace(list, &[3, 3], &[2, 1, 0x98])),
    ("level twice", |list| list.insert(0, amd_extension(&[3, 3], &[2, 1, 0x18]))),
    ("no level", |list| list.retain(|one| !is_amd_extension(one, &[3, 3]))),
    ("level of no part", |list| replace(list, &[3, 6], &[2, 1, 1])),
    ("no chip", |list| list.retain(|one| !is_amd_extension(one, &[4]))),
    ("chip too short", |list| replace(list, &[4], &[7; 63])),
    ("chip and provider", |list| list.insert(0, amd_extension(&[5], &wrap(0x16, b"CN=x")))),
    ("no product", |list| list.retain(|one| !is_amd_extension(one, &[2]))),
    ("other structure", |list| replace(list, &[1], &[2, 1, 7])),
    ("more than known", |list| list.insert(0, amd_extension(&[77], &[5, 0]))),
];

/// The lines that a persona can play, with a processor of each.
const LINES: [(Option<ProductLine>, &str, u8, u8); 4] = [
    (None, "Software", 0xff, 0xff),
    (Some(ProductLine::Milan), "Milan-B0", 0x19, 0x01),
    (Some(ProductLine::Genoa), "Genoa", 0x19, 0x11),
    (Some(ProductLine::Turin), "Turin", 0x1a, 0x02),
];

fn persona(line: usize, vlek: bool, dice: &mut Dice) -> Persona {
    let (line, name, family, model) = LINES[line];
    let fms = Fms { family, model, stepping: 0xff };
    let mut persona = match line {
        Some(line) => Persona::line(line, 5, fms, name),
        None => Persona::software(5),
    };
    let bytes = persona.product.hwid_bytes();
    let prefix = if bytes == 8 { 6 } else { 8 };
    persona.fields.chip_id = [0; 64];
    persona.fields.chip_id[..bytes].copy_from_slice(&dice.bytes::<64>()[..bytes]);
    persona.fields.chip_id[..prefix].copy_from_slice(&CHIP_PREFIX[..prefix]);
    let [bootloader, tee, snp, microcode] = dice.bytes();
    let fmc = persona.tcb.fmc.map(|_| dice.byte());
    if vlek {
        persona.provider = Some("CN=softsp.invalid");
        persona.fields.signing_key = SigningKey::Vlek;
    }
    persona.with_tcb(Tcb { fmc, bootloader, tee, snp, microcode })
}

impl Authorities {
    fn new(dice: &mut Dice) -> Self {
        let signed_by_ark = |certificate: &[u8]| ONE.signed_by_ark(&without_marker(&tbs(certificate)));
        let intermediate = |vlek: bool, dice: &mut Dice| {
            let ours = ONE.evidence(&persona(0, vlek, dice)).certificates.intermediate.unwrap();
            Twins { theirs: signed_by_ark(&ours), ours }
        };
        let root = ONE.ark_certificate();
        let mut authorities = Self {
            root: Twins { theirs: signed_by_ark(&root), ours: root },
            intermediates: [intermediate(false, dice), intermediate(true, dice)],
            endorsements: Vec::new(),
            crooked: Vec::new(),
        };
        for line in 0..LINES.len() {
            for vlek in [false, false, false, true, true] {
                authorities.endorsements.push(endorse(persona(line, vlek, dice), "", |_| ()));
            }
        }
        for (crook, edit) in CROOKS {
            for line in [1, 3] {
                authorities.crooked.push(endorse(persona(line, false, dice), crook, edit));
            }
        }
        authorities
    }
}

fn endorse(persona: Persona, crook: &'static str, edit: Edit) -> Endorsement {
    let tbs = edit_extensions(&ONE.vek_tbs(&persona), edit);
    let vek = Twins { ours: ONE.signed_by_ask(&tbs), theirs: ONE.signed_by_ask(&without_marker(&tbs)) };
    Endorsement { persona, crook, vek }
}

/// One thing that is unusual or wrong in a report.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Twist {
    None,
    HostAsked,
    UnknownVmpl,
    OldVersion,
    NewVersion,
    ChipMasked,
    ChipShort,
    OtherChip,
    ChipWithMore,
    ChipKeyMasked,
    NoSigningKey,
    OtherSigningKey,
    KeyInfoReserved,
    OtherAlgorithm,
    OtherModel,
    UnknownModel,
    Venice,
    RaisedTcb,
    TcbOutside,
    ReportedTcbOutside,
    Reserved,
    UnsignedReserved,
    RHigh,
    SHigh,
    EdgeOfRange,
    ChangedAfterSigning,
}

const TWISTS: [Twist; 25] = [
    Twist::HostAsked,
    Twist::UnknownVmpl,
    Twist::OldVersion,
    Twist::NewVersion,
    Twist::ChipMasked,
    Twist::ChipShort,
    Twist::OtherChip,
    Twist::ChipWithMore,
    Twist::ChipKeyMasked,
    Twist::NoSigningKey,
    Twist::OtherSigningKey,
    Twist::KeyInfoReserved,
    Twist::OtherAlgorithm,
    Twist::OtherModel,
    Twist::UnknownModel,
    Twist::Venice,
    Twist::RaisedTcb,
    Twist::TcbOutside,
    Twist::ReportedTcbOutside,
    Twist::Reserved,
    Twist::UnsignedReserved,
    Twist::RHigh,
    Twist::SHigh,
    Twist::EdgeOfRange,
    Twist::ChangedAfterSigning,
];

/// A report's content, as it may be.
fn fields(persona: &Persona, dice: &mut Dice) -> ReportFields {
    let layout = persona.product.layout();
    let level = |dice: &mut Dice| {
        let [bootloader, tee, snp, microcode] = dice.bytes();
        Tcb { fmc: persona.tcb.fmc.map(|_| dice.byte()), bootloader, tee, snp, microcode }.to_u64(layout)
    };
    let firmware = |dice: &mut Dice| {
        let [major, minor, build] = dice.bytes();
        FirmwareVersion { major, minor, build }
    };
    let version = *dice.one_of(&[2, 3, 4, 5]);
    // The processor as itself has one stepping, the others any.
    let stepping = dice.byte();
    let fms = persona.fields.fms.map(|fms| if fms == Fms::SOFTWARE { fms } else { Fms { stepping, ..fms } });
    let has_id_block = dice.once_in(2);
    ReportFields {
        version,
        guest_svn: u32::from_le_bytes(dice.bytes()),
        // Bit 17 is as it must be, else the others are of no matter here.
        policy: if dice.once_in(4) { 0x3_0000 } else { dice.roll() },
        family_id: dice.bytes(),
        image_id: dice.bytes(),
        vmpl: u32::from(dice.byte() % 4),
        current_tcb: level(dice),
        platform_info: dice.roll(),
        author_key_enabled: has_id_block && dice.once_in(2),
        chip_key_masked: false,
        signing_key: persona.fields.signing_key,
        report_data: dice.bytes(),
        measurement: dice.bytes(),
        host_data: dice.bytes(),
        id_key_digest: if has_id_block { dice.bytes() } else { [0; 48] },
        author_key_digest: if dice.once_in(2) { dice.bytes() } else { [0; 48] },
        report_id: dice.bytes(),
        report_id_ma: if dice.once_in(2) { dice.bytes() } else { [0xff; 32] },
        reported_tcb: persona.tcb.to_u64(layout),
        fms,
        chip_id: persona.fields.chip_id,
        committed_tcb: level(dice),
        current_firmware: firmware(dice),
        committed_firmware: firmware(dice),
        launch_tcb: level(dice),
        launch_mit_vector: Some(dice.roll()),
        current_mit_vector: Some(dice.roll()),
    }
}

/// A byte that a TCB of this layout does not have.
fn outside(persona: &Persona, dice: &mut Dice) -> u64 {
    let unused: &[u32] = if persona.tcb.fmc.is_some() { &[4, 5, 6] } else { &[2, 3, 4, 5] };
    u64::from(dice.byte().max(1)) << (8 * dice.one_of(unused))
}

fn twist_fields(fields: &mut ReportFields, twist: Twist, persona: &Persona, dice: &mut Dice) {
    let other_fms = |fields: &mut ReportFields, choices: &[(u8, u8)], dice: &mut Dice| {
        let (family, model) = *dice.one_of(choices);
        fields.fms = Some(Fms { family, model, stepping: dice.byte() });
    };
    match twist {
        Twist::HostAsked => fields.vmpl = HOST_VMPL,
        Twist::UnknownVmpl => fields.vmpl = u32::from(dice.byte()) + 4,
        Twist::OldVersion => fields.version = *dice.one_of(&[0, 1]),
        Twist::NewVersion => fields.version = *dice.one_of(&[6, 7, 0x100, u32::MAX]),
        Twist::ChipMasked => fields.chip_id = [0; 64],
        Twist::ChipShort => fields.chip_id[8..].fill(0),
        Twist::OtherChip => fields.chip_id[persona.product.hwid_bytes() - 1] ^= 1,
        Twist::ChipWithMore => fields.chip_id[63] ^= 1,
        Twist::ChipKeyMasked => fields.chip_key_masked = true,
        Twist::OtherSigningKey => {
            fields.signing_key = match fields.signing_key {
                SigningKey::Vcek => SigningKey::Vlek,
                SigningKey::Vlek => SigningKey::Vcek,
            };
        }
        Twist::OtherModel => {
            other_fms(fields, &[(0x19, 0), (0x19, 0x0f), (0x19, 0x10), (0x19, 0xa0), (0x1a, 0), (0x1a, 0x11)], dice);
        }
        Twist::UnknownModel => other_fms(fields, &[(0x19, 0x20), (0x1a, 0x12), (0x17, 0x31), (0, 0)], dice),
        Twist::Venice => other_fms(fields, &[(0x1a, 0x50), (0x1a, 0x9f), (0x1a, 0xc7)], dice),
        Twist::RaisedTcb => fields.reported_tcb = fields.reported_tcb.wrapping_add(1 << 56),
        Twist::TcbOutside => {
            let field = dice.below(3);
            let extra = outside(persona, dice);
            *[&mut fields.current_tcb, &mut fields.committed_tcb, &mut fields.launch_tcb][field] |= extra;
        }
        Twist::ReportedTcbOutside => fields.reported_tcb |= outside(persona, dice),
        _ => {}
    }
}

/// What cannot be said in fields.
fn twist_bytes(report: &mut [u8; REPORT_BYTES], twist: Twist, dice: &mut Dice) {
    match twist {
        Twist::NoSigningKey => report[0x48] = *dice.one_of(&[0x08, 0x10, 0x1c]),
        Twist::KeyInfoReserved => report[0x48 + dice.below(4)] |= 0x20,
        Twist::OtherAlgorithm => report[0x34] = dice.byte(),
        Twist::Reserved => {
            let at = *dice.one_of(&[0x4c, 0x4f, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f]);
            report[at] = dice.byte().max(1);
        }
        _ => {}
    }
}

fn twist_signed(report: &mut [u8], twist: Twist, dice: &mut Dice) {
    match twist {
        Twist::UnsignedReserved => report[0x330 + dice.below(0x170)] = dice.byte().max(1),
        Twist::RHigh => report[0x2d0 + dice.below(24)] = dice.byte().max(1),
        Twist::SHigh => report[0x318 + dice.below(24)] = dice.byte().max(1),
        Twist::EdgeOfRange => {
            let at = *dice.one_of(&[0x2a0, 0x2e8]);
            report[at..at + 48].copy_from_slice(&edge(dice));
        }
        Twist::ChangedAfterSigning => report[dice.below(0x330)] ^= 1 << dice.below(8),
        _ => {}
    }
}

/// A number at an edge of P-384's range, little-endian: 0, 1, n - 1, n, n + 1, all ones.
fn edge(dice: &mut Dice) -> Vec<u8> {
    const ORDER: &str =
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let mut order = hex::decode(ORDER).unwrap();
    order.reverse();
    let at_order = |difference: u8| [&[order[0] - 1 + difference], &order[1..]].concat();
    match dice.below(6) {
        small @ (0 | 1) => [&[u8::try_from(small).unwrap()][..], &[0; 47]].concat(),
        2 => at_order(0),
        3 => at_order(1),
        4 => at_order(2),
        _ => vec![0xff; 48],
    }
}

/// Ours says what the report was made of.
fn assert_is(claims: &Claims, fields: &ReportFields, persona: &Persona) {
    let tcbs = [claims.reported_tcb, claims.committed_tcb, claims.current_tcb, claims.launch_tcb];
    let tcbs = tcbs.map(|tcb| tcb.to_u64(persona.product.layout()));
    assert_eq!(tcbs, [fields.reported_tcb, fields.committed_tcb, fields.current_tcb, fields.launch_tcb]);
    assert_eq!((claims.product, claims.report_version), (persona.product, fields.version));
    assert_eq!((claims.vmpl, claims.guest_policy.0), (fields.vmpl, fields.policy));
    assert_eq!(claims.measurement.0, fields.measurement);
    assert_eq!(claims.host_data.0, fields.host_data);
    assert_eq!(claims.report_data.0, fields.report_data);
    assert_eq!(claims.chip_id.map_or([0; 64], |chip| chip.0), fields.chip_id);
}

/// A generated piece by name.
struct Name<'a>(usize, &'a Endorsement, Twist, u32);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(round, endorsement, twist, version) = self;
        let Endorsement { persona, crook, .. } = endorsement;
        let product = persona.product.name();
        write!(f, "{round}: {product}, {:?}, version {version}, {twist:?} {crook}", persona.fields.signing_key)
    }
}

#[test]
fn generated_reports() {
    let mut dice = Dice::new(0x6e4);
    let authorities = Authorities::new(&mut dice);
    let roots = [ONE.root()];
    let rules = Profile::Baseline.rules(now());
    let mut comparison = Comparison::new(OURS_ALONE, THEIRS_ALONE);
    for round in 0..PIECES {
        let (endorsement, twist) = match dice.below(8) {
            0 => (dice.one_of(&authorities.crooked), Twist::None),
            1..=3 => (dice.one_of(&authorities.endorsements), *dice.one_of(&TWISTS)),
            _ => (dice.one_of(&authorities.endorsements), Twist::None),
        };
        let Endorsement { persona, vek, .. } = endorsement;
        let mut fields = fields(persona, &mut dice);
        twist_fields(&mut fields, twist, persona, &mut dice);
        let mut report = fields.to_unsigned();
        twist_bytes(&mut report, twist, &mut dice);
        let mut report = ONE.signed(report);
        twist_signed(&mut report, twist, &mut dice);
        let intermediate = &authorities.intermediates[usize::from(persona.provider.is_some())];
        let certificates = Certificates {
            vek: Some(vek.ours.clone()),
            intermediate: Some(intermediate.ours.clone()),
            root: Some(authorities.root.ours.clone()),
            crl: None,
        };
        let evidence = Evidence::new(Tee::EmulatedSnp, report, certificates);
        let verification = verify(&roots, &evidence, &rules);
        let theirs = Pieces {
            report: &evidence.report,
            vek: &vek.theirs,
            intermediate: &intermediate.theirs,
            root: &authorities.root.theirs,
        };
        let name = Name(round, endorsement, twist, fields.version);
        let claims = verification.verified.as_deref();
        comparison.hold(&name, &verification.checks, claims, theirs);
        // Where ours accepts what the other refuses, there is still the one that made it to ask.
        claims.into_iter().for_each(|claims| assert_is(claims, &fields, persona));
    }
    let accepted = comparison.ledger.accepted();
    comparison.close("generated reports");
    assert!(accepted > PIECES / 4);
}

/// The other cannot read the marker at all, as any verifier that does not know it must refuse it.
#[test]
fn the_marker_is_refused_by_the_other() {
    let evidence = ONE.evidence(&Persona::software(2));
    let theirs = super::Peer::default().verify(super::pieces(&evidence));
    assert!(theirs.unwrap_err().contains("certificate: "));
}
