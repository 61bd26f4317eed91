//! What reference values say, one by one, by the numbers of the profile:
//!
//! | number | what | form |
//! |---|---|---|
//! | 0 | the report's version | version |
//! | 1 | GUEST_SVN | svn |
//! | 2, 7 | POLICY, PLATFORM_INFO | 8 bytes, big-endian |
//! | 3, 4 | FAMILY_ID, IMAGE_ID | 16 bytes |
//! | 5 | VMPL | 4 bytes, big-endian |
//! | 6, 647, 3329, 3968 | CURRENT_TCB, REPORTED_TCB, COMMITTED_TCB, LAUNCH_TCB | svn: TCB_VERSION as one number |
//! | 640, 641, 642 | REPORT_DATA, MEASUREMENT, HOST_DATA | 64 bytes, SHA-384, 32 bytes |
//! | 643, 644 | ID_KEY_DIGEST, AUTHOR_KEY_DIGEST | SHA-384 |
//! | 645, 646 | REPORT_ID, REPORT_ID_MA | 32 bytes |
//! | 3328 | CHIP_ID | 64 bytes |
//! | 3330, 3936 | current and committed firmware | version |
//!
//! An svn under tag 553 is the least that will do, else it is exact. Levels of a TCB are compared part by part, never as the
//! one number that they are written as.

use caveau_cose::cbor::Value;
use caveau_snp::Hex;
use caveau_snp::claims::Claims;
use caveau_snp::product::{Product, ProductLine};
use caveau_snp::report::FirmwareVersion;
use caveau_snp::tcb::{Layout, Tcb};

use super::{CorimError, known, wrong};

const PART: &str = "measurement";
/// SHA-384 in the registry of named information.
const SHA384: i64 = 7;

/// One value that a report must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// AUTHOR_KEY_DIGEST.
    AuthorKey(Hex<48>),
    /// CHIP_ID; zeros where it is hidden.
    ChipId(Hex<64>),
    /// Firmware that cannot be rolled back.
    CommittedFirmware(FirmwareVersion),
    /// COMMITTED_TCB.
    CommittedTcb(Number),
    /// Firmware that runs.
    CurrentFirmware(FirmwareVersion),
    /// CURRENT_TCB.
    CurrentTcb(Number),
    /// FAMILY_ID.
    FamilyId(Hex<16>),
    /// POLICY.
    GuestPolicy(u64),
    /// GUEST_SVN.
    GuestSvn(Number),
    /// HOST_DATA.
    HostData(Hex<32>),
    /// ID_KEY_DIGEST.
    IdKey(Hex<48>),
    /// IMAGE_ID.
    ImageId(Hex<16>),
    /// LAUNCH_TCB.
    LaunchTcb(Number),
    /// MEASUREMENT.
    Measurement(Hex<48>),
    /// PLATFORM_INFO.
    PlatformInfo(u64),
    /// REPORT_DATA.
    ReportData(Hex<64>),
    /// REPORT_ID.
    ReportId(Hex<32>),
    /// REPORT_ID_MA.
    ReportIdMa(Hex<32>),
    /// The report's version.
    ReportVersion(u32),
    /// REPORTED_TCB.
    ReportedTcb(Number),
    /// VMPL.
    Vmpl(u32),
}

/// A security version: this one, or at least this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// At least this.
    AtLeast(u64),
    /// This.
    Exactly(u64),
}

impl Measured {
    pub(super) fn read(value: &Value<'_>) -> Result<Self, CorimError> {
        known(value, PART, &[0, 1])?;
        let number = value.entry(&Value::Int(0)).and_then(Value::as_int);
        let number = number.ok_or_else(|| wrong(PART, "it has no number (0) that says what it is"))?;
        let of = value.entry(&Value::Int(1)).ok_or_else(|| wrong(PART, format!("{number} has no value (1)")))?;
        let found = match number {
            0 => version(of).and_then(|text| text.parse().ok()).map(Self::ReportVersion),
            1 => svn(of).map(Self::GuestSvn),
            2 => raw(of).map(|bytes| Self::GuestPolicy(u64::from_be_bytes(bytes))),
            3 => raw(of).map(|bytes| Self::FamilyId(Hex(bytes))),
            4 => raw(of).map(|bytes| Self::ImageId(Hex(bytes))),
            5 => raw(of).map(|bytes| Self::Vmpl(u32::from_be_bytes(bytes))),
            6 => svn(of).map(Self::CurrentTcb),
            7 => raw(of).map(|bytes| Self::PlatformInfo(u64::from_be_bytes(bytes))),
            640 => raw(of).map(|bytes| Self::ReportData(Hex(bytes))),
            641 => digest(of).map(Self::Measurement),
            642 => raw(of).map(|bytes| Self::HostData(Hex(bytes))),
            643 => digest(of).map(Self::IdKey),
            644 => digest(of).map(Self::AuthorKey),
            645 => raw(of).map(|bytes| Self::ReportId(Hex(bytes))),
            646 => raw(of).map(|bytes| Self::ReportIdMa(Hex(bytes))),
            647 => svn(of).map(Self::ReportedTcb),
            3328 => raw(of).map(|bytes| Self::ChipId(Hex(bytes))),
            3329 => svn(of).map(Self::CommittedTcb),
            3330 => version(of).and_then(firmware).map(Self::CurrentFirmware),
            3936 => version(of).and_then(firmware).map(Self::CommittedFirmware),
            3968 => svn(of).map(Self::LaunchTcb),
            other => return Err(wrong(PART, format!("the number {other} is not understood"))),
        };
        found.ok_or_else(|| wrong(PART, format!("the value of {number} has not the form expected")))
    }

    /// What is otherwise, in words; `None` where it is so.
    pub(super) fn difference(&self, claims: &Claims) -> Option<String> {
        let same = |name: &str, holds: bool| (!holds).then(|| format!("{name} is another than expected"));
        let tcb = |name: &str, expected: Number, found: Tcb| same(name, expected.is_tcb(found, claims.product));
        match *self {
            Self::AuthorKey(key) => same("AUTHOR_KEY_DIGEST", claims.author_key_digest == Some(key)),
            Self::ChipId(chip) => same("CHIP_ID", claims.chip_id.unwrap_or(Hex([0; 64])) == chip),
            Self::CommittedFirmware(version) => same("the committed firmware", claims.committed_firmware == version),
            Self::CommittedTcb(expected) => tcb("COMMITTED_TCB", expected, claims.committed_tcb),
            Self::CurrentFirmware(version) => same("the current firmware", claims.current_firmware == version),
            Self::CurrentTcb(expected) => tcb("CURRENT_TCB", expected, claims.current_tcb),
            Self::FamilyId(id) => same("FAMILY_ID", claims.family_id == id),
            Self::GuestPolicy(policy) => same("POLICY", claims.guest_policy.0 == policy),
            Self::GuestSvn(expected) => same("GUEST_SVN", expected.is(claims.guest_svn.into())),
            Self::HostData(data) => same("HOST_DATA", claims.host_data == data),
            Self::IdKey(key) => same("ID_KEY_DIGEST", claims.id_key_digest == Some(key)),
            Self::ImageId(id) => same("IMAGE_ID", claims.image_id == id),
            Self::LaunchTcb(expected) => tcb("LAUNCH_TCB", expected, claims.launch_tcb),
            Self::Measurement(digest) => same("MEASUREMENT", claims.measurement == digest),
            Self::PlatformInfo(info) => same("PLATFORM_INFO", claims.platform_info.0 == info),
            Self::ReportData(data) => same("REPORT_DATA", claims.report_data == data),
            Self::ReportId(id) => same("REPORT_ID", claims.report_id == id),
            Self::ReportIdMa(id) => same("REPORT_ID_MA", claims.report_id_ma == id),
            Self::ReportVersion(version) => same("the report's version", claims.report_version == version),
            Self::ReportedTcb(expected) => tcb("REPORTED_TCB", expected, claims.reported_tcb),
            Self::Vmpl(vmpl) => same("VMPL", claims.vmpl == vmpl),
        }
    }
}

impl Number {
    const fn is(self, found: u64) -> bool {
        match self {
            Self::AtLeast(least) => found >= least,
            Self::Exactly(exact) => found == exact,
        }
    }

    /// In the layout of the product. A number that has no meaning there is no TCB's.
    fn is_tcb(self, found: Tcb, product: Product) -> bool {
        let turin = product == Product::Line(ProductLine::Turin);
        let read = |number| Tcb::from_u64(number, if turin { Layout::Turin } else { Layout::Milan });
        match self {
            Self::AtLeast(least) => read(least).is_some_and(|least| found.at_least(least)),
            Self::Exactly(exact) => read(exact) == Some(found),
        }
    }
}

/// The one value of this form.
fn only<'v, 'a>(value: &'v Value<'a>, form: i64) -> Option<&'v Value<'a>> {
    let [(key, value)] = value.as_map()? else { return None };
    (key.as_int() == Some(form)).then_some(value)
}

/// `{0: {0: text, ? 1: scheme}}`.
fn version<'a>(value: &Value<'a>) -> Option<&'a str> {
    let version = only(value, 0)?;
    known(version, PART, &[0, 1]).ok()?;
    version.entry(&Value::Int(0))?.as_text()
}

/// `{1: 552(n)}`, `{1: n}`: exactly; `{1: 553(n)}`: at least.
fn svn(value: &Value<'_>) -> Option<Number> {
    let number = |value: &Value<'_>| if let Value::Int(number) = value { u64::try_from(*number).ok() } else { None };
    match only(value, 1)? {
        Value::Tag(552, inner) => number(inner).map(Number::Exactly),
        Value::Tag(553, inner) => number(inner).map(Number::AtLeast),
        plain => number(plain).map(Number::Exactly),
    }
}

/// `{4: 560(bytes)}`.
fn raw<const N: usize>(value: &Value<'_>) -> Option<[u8; N]> {
    let Value::Tag(560, inner) = only(value, 4)? else { return None };
    inner.as_bytes()?.try_into().ok()
}

/// `{2: [[7, bytes]]}`.
fn digest(value: &Value<'_>) -> Option<Hex<48>> {
    let [one] = only(value, 2)?.as_array()? else { return None };
    let [algorithm, digest] = one.as_array()? else { return None };
    let digest = digest.as_bytes()?.try_into().ok()?;
    (algorithm.as_int() == Some(SHA384)).then_some(Hex(digest))
}

/// `1.55.8`, in its one spelling.
fn firmware(text: &str) -> Option<FirmwareVersion> {
    let parts: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let &[major, minor, build] = parts.as_slice() else { return None };
    let version = FirmwareVersion { major, minor, build };
    (version.to_string() == text).then_some(version)
}
