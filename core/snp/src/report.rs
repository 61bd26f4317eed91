//! ATTESTATION_REPORT, versions 2 to 5 (SEV-SNP firmware ABI, table "ATTESTATION_REPORT"): 1184 bytes, little-endian, the
//! first 672 of them signed.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::bits::GuestPolicy;
use crate::product::Fms;
pub use crate::report_error::ReportError;

/// Length of a report.
pub const REPORT_BYTES: usize = 0x4a0;
/// Length of its signed part, which comes first.
pub const SIGNED_BYTES: usize = 0x2a0;
/// VMPL of a report that the host asked for.
pub const HOST_VMPL: u32 = u32::MAX;

/// A report as it came: every field, the signature, and the raw bytes, which are what the signature covers.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    raw: Box<[u8; REPORT_BYTES]>,
    fields: ReportFields,
    signature: Signature,
}

/// The fields of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportFields {
    /// VERSION, 2 to 5.
    pub version: u32,
    /// GUEST_SVN, from the ID block.
    pub guest_svn: u32,
    /// POLICY; see [`crate::bits::GuestPolicy`].
    pub policy: u64,
    /// FAMILY_ID, from the ID block.
    pub family_id: [u8; 16],
    /// IMAGE_ID, from the ID block.
    pub image_id: [u8; 16],
    /// VMPL: 0 to 3, or [`HOST_VMPL`].
    pub vmpl: u32,
    /// CURRENT_TCB; see [`crate::tcb::Tcb`].
    pub current_tcb: u64,
    /// PLATFORM_INFO; see [`crate::bits::PlatformInfo`].
    pub platform_info: u64,
    /// KEY_INFO bit 0, AUTHOR_KEY_EN: AUTHOR_KEY_DIGEST counts.
    pub author_key_enabled: bool,
    /// KEY_INFO bit 1, MASK_CHIP_KEY: the firmware leaves the signature zero.
    pub chip_key_masked: bool,
    /// KEY_INFO bits 4:2.
    pub signing_key: SigningKey,
    /// REPORT_DATA: the guest's own 64 bytes.
    pub report_data: [u8; 64],
    /// MEASUREMENT: the launch digest.
    pub measurement: [u8; 48],
    /// HOST_DATA: the host's own 32 bytes, given at launch.
    pub host_data: [u8; 32],
    /// ID_KEY_DIGEST.
    pub id_key_digest: [u8; 48],
    /// AUTHOR_KEY_DIGEST.
    pub author_key_digest: [u8; 48],
    /// REPORT_ID: of this guest instance.
    pub report_id: [u8; 32],
    /// REPORT_ID_MA: of its migration agent, all ones without one.
    pub report_id_ma: [u8; 32],
    /// REPORTED_TCB: selects the endorsement key.
    pub reported_tcb: u64,
    /// CPUID family, model and stepping; not in version 2.
    pub fms: Option<Fms>,
    /// CHIP_ID, all zero where masked.
    pub chip_id: [u8; 64],
    /// COMMITTED_TCB.
    pub committed_tcb: u64,
    /// Version of the firmware that runs.
    pub current_firmware: FirmwareVersion,
    /// Version of the firmware that cannot be rolled back.
    pub committed_firmware: FirmwareVersion,
    /// LAUNCH_TCB.
    pub launch_tcb: u64,
    /// LAUNCH_MIT_VECTOR; only in version 5.
    pub launch_mit_vector: Option<u64>,
    /// CURRENT_MIT_VECTOR; only in version 5.
    pub current_mit_vector: Option<u64>,
}

/// Which endorsement key signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SigningKey {
    /// The chip's own key.
    Vcek,
    /// A key that AMD gave to a cloud provider.
    Vlek,
}

/// Version of the SNP firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct FirmwareVersion {
    /// Major number of the ABI.
    pub major: u8,
    /// Minor number of the ABI.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

/// A report's ECDSA signature on P-384: numbers big-endian, neither zero nor as large as the group's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The number r.
    pub r: [u8; 48],
    /// The number s.
    pub s: [u8; 48],
}

/// The bytes of a report by name. Names with an offset are the ranges that are zero in some or all versions.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    version: U32,
    guest_svn: U32,
    policy: U64,
    family_id: [u8; 16],
    image_id: [u8; 16],
    vmpl: U32,
    signature_algorithm: U32,
    current_tcb: U64,
    platform_info: U64,
    key_info: U32,
    zero_04c: [u8; 4],
    report_data: [u8; 64],
    measurement: [u8; 48],
    host_data: [u8; 32],
    id_key_digest: [u8; 48],
    author_key_digest: [u8; 48],
    report_id: [u8; 32],
    report_id_ma: [u8; 32],
    reported_tcb: U64,
    fms: [u8; 3],
    zero_18b: [u8; 21],
    chip_id: [u8; 64],
    committed_tcb: U64,
    current_firmware: [u8; 3],
    zero_1eb: u8,
    committed_firmware: [u8; 3],
    zero_1ef: u8,
    launch_tcb: U64,
    launch_mit_vector: U64,
    current_mit_vector: U64,
    zero_208: [u8; 0x98],
    r: [u8; 48],
    zero_2d0: [u8; 24],
    s: [u8; 48],
    zero_318: [u8; 24],
    zero_330: [u8; 0x170],
}

/// The order of the P-384 group, big-endian (FIPS 186-5, SP 800-186).
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0,
    0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

impl Report {
    /// Reads a report: exact length, known version, everything reserved zero (the unsigned bytes too), a signature that can
    /// be one. Whether the signature holds is not looked at.
    ///
    /// # Errors
    /// [`ReportError`], for the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let raw = Raw::read_from_bytes(bytes).map_err(|_| ReportError::Length(bytes.len()))?;
        let version = raw.version.get();
        if !(2..=5).contains(&version) {
            return Err(ReportError::Version(version));
        }
        check_reserved(&raw)?;
        if raw.signature_algorithm.get() != 1 {
            return Err(ReportError::SignatureAlgorithm(raw.signature_algorithm.get()));
        }
        let fields = decode(&raw)?;
        let signature = Signature { r: reversed(raw.r), s: reversed(raw.s) };
        if !in_range(&signature.r) || !in_range(&signature.s) {
            return Err(ReportError::SignatureRange);
        }
        Ok(Self { raw: Box::new(zerocopy::transmute!(raw)), fields, signature })
    }

    /// The report's bytes as they came.
    #[must_use]
    pub fn raw(&self) -> &[u8; REPORT_BYTES] {
        &self.raw
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn signed_part(&self) -> &[u8] {
        self.raw.split_at_checked(SIGNED_BYTES).map_or(&[], |(signed, _)| signed)
    }

    /// The fields.
    #[must_use]
    pub const fn fields(&self) -> &ReportFields {
        &self.fields
    }

    /// The signature. It can be changed by anyone without becoming wrong (s and n - s both hold): it identifies nothing.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fields.fmt(f)
    }
}

/// Each range that must be zero, by version.
fn check_reserved(raw: &Raw) -> Result<(), ReportError> {
    let version = raw.version.get();
    let vectors = [raw.launch_mit_vector.get().to_le_bytes(), raw.current_mit_vector.get().to_le_bytes()].concat();
    let ranges: [(usize, bool, &[u8]); 10] = [
        (0x04c, true, &raw.zero_04c),
        (0x188, version < 3, &raw.fms),
        (0x18b, true, &raw.zero_18b),
        (0x1eb, true, &[raw.zero_1eb]),
        (0x1ef, true, &[raw.zero_1ef]),
        (0x1f8, version < 5, &vectors),
        (0x208, true, &raw.zero_208),
        (0x2d0, true, &raw.zero_2d0),
        (0x318, true, &raw.zero_318),
        (0x330, true, &raw.zero_330),
    ];
    let broken = ranges.iter().find(|(_, must_be_zero, bytes)| *must_be_zero && bytes.iter().any(|&byte| byte != 0));
    broken.map_or(Ok(()), |(at, ..)| Err(ReportError::Reserved(*at)))
}

fn decode(raw: &Raw) -> Result<ReportFields, ReportError> {
    let version = raw.version.get();
    let (author_key_enabled, chip_key_masked, signing_key) = decode_key_info(raw.key_info.get())?;
    let [family, model, stepping] = raw.fms;
    let since = |first: u32, value: u64| (version >= first).then_some(value);
    Ok(ReportFields {
        version,
        guest_svn: raw.guest_svn.get(),
        policy: raw.policy.get(),
        family_id: raw.family_id,
        image_id: raw.image_id,
        vmpl: raw.vmpl.get(),
        current_tcb: raw.current_tcb.get(),
        platform_info: raw.platform_info.get(),
        author_key_enabled,
        chip_key_masked,
        signing_key,
        report_data: raw.report_data,
        measurement: raw.measurement,
        host_data: raw.host_data,
        id_key_digest: raw.id_key_digest,
        author_key_digest: raw.author_key_digest,
        report_id: raw.report_id,
        report_id_ma: raw.report_id_ma,
        reported_tcb: raw.reported_tcb.get(),
        fms: (version >= 3).then_some(Fms { family, model, stepping }),
        chip_id: raw.chip_id,
        committed_tcb: raw.committed_tcb.get(),
        current_firmware: FirmwareVersion::from_raw(raw.current_firmware),
        committed_firmware: FirmwareVersion::from_raw(raw.committed_firmware),
        launch_tcb: raw.launch_tcb.get(),
        launch_mit_vector: since(5, raw.launch_mit_vector.get()),
        current_mit_vector: since(5, raw.current_mit_vector.get()),
    })
}

/// KEY_INFO: bit 0 AUTHOR_KEY_EN, bit 1 MASK_CHIP_KEY, bits 4:2 SIGNING_KEY, the others reserved.
fn decode_key_info(key_info: u32) -> Result<(bool, bool, SigningKey), ReportError> {
    if key_info >> 5 != 0 {
        return Err(ReportError::KeyInfo(key_info));
    }
    let signing_key = match key_info >> 2 {
        0 => SigningKey::Vcek,
        1 => SigningKey::Vlek,
        other => return Err(ReportError::SigningKey(other)),
    };
    let chip_key_masked = key_info & 2 != 0;
    if chip_key_masked {
        return Err(ReportError::ChipKeyMasked);
    }
    Ok((key_info & 1 != 0, chip_key_masked, signing_key))
}

impl ReportFields {
    /// The fields of a guest without any, on a processor without any: version 5, the usual policy, VMPL 0, signed by a VCEK.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            version: 5,
            guest_svn: 0,
            policy: GuestPolicy::USUAL.0,
            family_id: [0; 16],
            image_id: [0; 16],
            vmpl: 0,
            current_tcb: 0,
            platform_info: 0,
            author_key_enabled: false,
            chip_key_masked: false,
            signing_key: SigningKey::Vcek,
            report_data: [0; 64],
            measurement: [0; 48],
            host_data: [0; 32],
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            report_id: [0; 32],
            report_id_ma: [0xff; 32],
            reported_tcb: 0,
            fms: Some(Fms::default()),
            chip_id: [0; 64],
            committed_tcb: 0,
            current_firmware: FirmwareVersion::default(),
            committed_firmware: FirmwareVersion::default(),
            launch_tcb: 0,
            launch_mit_vector: Some(0),
            current_mit_vector: Some(0),
        }
    }

    /// The report's bytes before signing: the signature and all that is reserved is zero.
    ///
    /// What the version has no place for (FMS, mitigation vectors) is left out.
    #[must_use]
    pub fn to_unsigned(&self) -> [u8; REPORT_BYTES] {
        let Fms { family, model, stepping } = self.fms.filter(|_| self.version >= 3).unwrap_or_default();
        let vector = |value: Option<u64>| U64::new(value.filter(|_| self.version >= 5).unwrap_or(0));
        zerocopy::transmute!(Raw {
            version: self.version.into(),
            guest_svn: self.guest_svn.into(),
            policy: self.policy.into(),
            family_id: self.family_id,
            image_id: self.image_id,
            vmpl: self.vmpl.into(),
            signature_algorithm: 1.into(),
            current_tcb: self.current_tcb.into(),
            platform_info: self.platform_info.into(),
            key_info: self.key_info().into(),
            report_data: self.report_data,
            measurement: self.measurement,
            host_data: self.host_data,
            id_key_digest: self.id_key_digest,
            author_key_digest: self.author_key_digest,
            report_id: self.report_id,
            report_id_ma: self.report_id_ma,
            reported_tcb: self.reported_tcb.into(),
            fms: [family, model, stepping],
            chip_id: self.chip_id,
            committed_tcb: self.committed_tcb.into(),
            current_firmware: self.current_firmware.to_raw(),
            committed_firmware: self.committed_firmware.to_raw(),
            launch_tcb: self.launch_tcb.into(),
            launch_mit_vector: vector(self.launch_mit_vector),
            current_mit_vector: vector(self.current_mit_vector),
            ..Raw::new_zeroed()
        })
    }

    fn key_info(&self) -> u32 {
        let signing_key = match self.signing_key {
            SigningKey::Vcek => 0,
            SigningKey::Vlek => 1,
        };
        u32::from(self.author_key_enabled) | u32::from(self.chip_key_masked) << 1 | signing_key << 2
    }
}

/// Puts a signature into a report: numbers big-endian here, little-endian there.
pub fn set_signature(report: &mut [u8; REPORT_BYTES], signature: &Signature) {
    let mut raw: Raw = zerocopy::transmute!(*report);
    raw.r = reversed(signature.r);
    raw.s = reversed(signature.s);
    *report = zerocopy::transmute!(raw);
}

impl FirmwareVersion {
    fn from_raw([build, minor, major]: [u8; 3]) -> Self {
        Self { major, minor, build }
    }

    fn to_raw(self) -> [u8; 3] {
        [self.build, self.minor, self.major]
    }
}

impl std::fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

fn reversed(mut bytes: [u8; 48]) -> [u8; 48] {
    bytes.reverse();
    bytes
}

fn in_range(number: &[u8; 48]) -> bool {
    *number != [0; 48] && *number < P384_ORDER
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn signed(fields: &ReportFields) -> [u8; REPORT_BYTES] {
        let mut report = fields.to_unsigned();
        set_signature(&mut report, &Signature { r: [1; 48], s: [2; 48] });
        report
    }

    #[test]
    fn the_layout_is_as_long_as_the_specification_says() {
        assert_eq!(size_of::<Raw>(), REPORT_BYTES);
        assert_eq!(std::mem::offset_of!(Raw, chip_id), 0x1a0);
        assert_eq!(std::mem::offset_of!(Raw, launch_mit_vector), 0x1f8);
        assert_eq!(std::mem::offset_of!(Raw, r), SIGNED_BYTES);
        assert_eq!(std::mem::offset_of!(Raw, zero_330), 0x330);
    }

    #[test]
    fn each_reserved_byte_is_looked_at() {
        for (version, ranges) in [
            (2, vec![0x4c..0x50, 0x188..0x1a0, 0x1eb..0x1ec, 0x1ef..0x1f0, 0x1f8..0x2a0]),
            (4, vec![0x4c..0x50, 0x18b..0x1a0, 0x1eb..0x1ec, 0x1ef..0x1f0, 0x1f8..0x2a0]),
            (5, vec![0x18b..0x1a0, 0x208..0x2a0, 0x2d0..0x2e8, 0x318..0x4a0]),
        ] {
            let good = signed(&ReportFields { version, ..ReportFields::empty() });
            Report::parse(&good).unwrap();
            for at in ranges.into_iter().flatten() {
                let mut bad = good;
                bad[at] = 0x80;
                assert!(
                    matches!(Report::parse(&bad), Err(ReportError::Reserved(_))),
                    "version {version}, byte {at:#x}"
                );
            }
        }
    }

    #[test]
    fn key_info_and_signature_are_checked() {
        let good = signed(&ReportFields::empty());
        for (value, code) in
            [(0x20, "keyinfo-reserved"), (0x1c, "signing-key"), (8, "signing-key"), (2, "chip-key-masked")]
        {
            let mut bad = good;
            bad[0x48] = value;
            assert_eq!(Report::parse(&bad).unwrap_err().code(), code);
        }
    }

    #[test]
    fn numbers_of_a_signature_are_above_zero_and_below_the_order() {
        let with_last = |mut number: [u8; 48], last: u8| {
            number[47] = last;
            number
        };
        let beside_order = [0x72, 0x74].map(|last| with_last(P384_ORDER, last));
        let edges = [with_last([0; 48], 1), beside_order[0], [0; 48], P384_ORDER, beside_order[1], [0xff; 48]];
        for (edge, is_one) in edges.into_iter().zip([true, true, false, false, false, false]) {
            for signature in [Signature { r: edge, s: [1; 48] }, Signature { r: [1; 48], s: edge }] {
                let mut report = signed(&ReportFields::empty());
                set_signature(&mut report, &signature);
                let expected = if is_one { Ok(signature) } else { Err(ReportError::SignatureRange) };
                assert_eq!(Report::parse(&report).map(|report| *report.signature()), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_report_or_an_error(bytes in vec(any::<u8>(), 0..1300)) {
            let _ = Report::parse(&bytes);
        }

        #[test]
        fn a_changed_report_reads_back_or_is_refused(changes in vec((0..REPORT_BYTES, any::<u8>()), 1..8)) {
            let mut report = signed(&ReportFields::empty());
            for (at, value) in changes {
                report[at] = value;
            }
            if let Ok(read) = Report::parse(&report) {
                let mut again = read.fields().to_unsigned();
                set_signature(&mut again, read.signature());
                prop_assert_eq!(again, report);
            }
        }
    }
}
