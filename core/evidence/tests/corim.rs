//! CoRIMs of other tools: what is read of them, what is refused, and what reports are held against.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::slice;

use crate::fixtures::Fixtures;
use caveau_cose::cbor::Value;
use caveau_evidence::corim::{Corim, Instance, MAX_CORIM_BYTES, Measured, Number};
use caveau_evidence::{Certificates, Claims, Evidence, FirmwareVersion, Hex, Profile, Tee, Timestamp, Verdict, verify};
use caveau_snp::tcb::Layout;
use proptest::collection::vec;
use proptest::prelude::*;

fn at(date: &str) -> Timestamp {
    date.parse().unwrap()
}

/// The claims of a recorded report.
fn claims(fixtures: &Fixtures, name: &str) -> Claims {
    let read = |file: &str| fixtures.read(&format!("snp/reports/{name}/{file}"));
    let vek = Certificates { vek: Some(read("vcek.der")), ..Certificates::default() };
    let evidence = Evidence::new(Tee::Snp, read("report.bin"), vek.with_built_in());
    verify(&evidence, &Profile::Baseline.rules(at("2026-11-23"))).verified.unwrap().into_inner()
}

fn raw(bytes: &[u8]) -> Value<'_> {
    Value::Map(vec![(Value::Int(4), Value::Tag(560, Box::new(Value::Bytes(bytes))))])
}

fn svn(tag: u64, number: u64) -> Value<'static> {
    Value::Map(vec![(Value::Int(1), Value::Tag(tag, Box::new(Value::Int(number.into()))))])
}

fn sha384(bytes: &[u8]) -> Value<'_> {
    Value::Map(vec![(Value::Int(2), Value::Array(vec![Value::Array(vec![Value::Int(7), Value::Bytes(bytes)])]))])
}

fn version(text: &str) -> Value<'_> {
    Value::Map(vec![(Value::Int(0), Value::Map(vec![(Value::Int(0), Value::Text(text))]))])
}

/// One value of a triple, under its number.
fn measured<'a>((number, value): &(i128, Value<'a>)) -> Value<'a> {
    Value::Map(vec![(Value::Int(0), Value::Int(*number)), (Value::Int(1), value.clone())])
}

/// A CoRIM with these triples, each a list of numbers and their values.
fn corim(triples: &[Vec<(i128, Value<'_>)>], validity: Option<(u64, u64)>) -> Vec<u8> {
    let class = Value::Map(vec![(
        Value::Int(0),
        Value::Tag(111, Box::new(Value::Bytes(&[0x2b, 6, 1, 4, 1, 0x9c, 0x78, 3, 1]))),
    )]);
    let environment = Value::Map(vec![(Value::Int(0), class)]);
    let triple = |values: &Vec<(i128, Value<'_>)>| {
        Value::Array(vec![environment.clone(), Value::Array(values.iter().map(measured).collect())]).encode()
    };
    let encoded: Vec<Vec<u8>> = triples.iter().map(triple).collect();
    let list = encoded.iter().map(|bytes| Value::decode(bytes).unwrap()).collect();
    let identity = Value::Map(vec![(Value::Int(0), Value::Text("guest"))]);
    let comid = Value::Map(vec![
        (Value::Int(1), identity),
        (Value::Int(4), Value::Map(vec![(Value::Int(0), Value::Array(list))])),
    ]);
    let comid = comid.encode();
    let mut entries = vec![
        (Value::Int(0), Value::Text("reference")),
        (Value::Int(1), Value::Array(vec![Value::Tag(506, Box::new(Value::Bytes(&comid)))])),
        (Value::Int(3), Value::Tag(32, Box::new(Value::Text("tag:amd.com,2024:snp-corim-profile")))),
    ];
    let time = |seconds: u64| Value::Tag(1, Box::new(Value::Int(seconds.into())));
    if let Some((from, to)) = validity {
        entries.push((Value::Int(4), Value::Map(vec![(Value::Int(0), time(from)), (Value::Int(1), time(to))])));
    }
    Value::Tag(501, Box::new(Value::Map(entries))).encode()
}

#[test]
fn recorded_ones_are_read_or_refused() {
    let Some(fixtures) = Fixtures::open() else { return };
    let read = |name: &str| fixtures.read(&format!("corim/corim-sevsnp-{name}.cbor"));
    let bytes = read("valid");
    assert!(Corim::is_likely(&bytes));
    let corim = Corim::parse(&bytes).unwrap();
    assert_eq!(corim.id, "00000000-0000-0000-5596-0000000000001");
    let [reference] = corim.references.as_slice() else { panic!("{corim:?}") };
    let digest = "7699e6ac12ccdfd1dfac70e649ce1f046cb2afbb003438f4cdddfe2ccbe182fa5ffbe8dcdb930454324e10c52c788980";
    let digest: Hex<48> = digest.parse().unwrap();
    assert_eq!((reference.instance, reference.measurement()), (Some(Instance::Measurement(digest)), Some(digest)));
    assert_eq!(reference.measured.len(), 18);
    for expected in [
        Measured::ReportVersion(2),
        Measured::GuestSvn(Number::AtLeast(0)),
        Measured::GuestPolicy(0x3_0000),
        Measured::PlatformInfo(1),
        Measured::Vmpl(0),
        Measured::CurrentTcb(Number::Exactly(15_208_092_991_676_743_683)),
        Measured::CurrentFirmware(FirmwareVersion { major: 1, minor: 55, build: 8 }),
    ] {
        assert!(reference.measured.contains(&expected), "{expected:?}");
    }
    // No recorded report is of that guest.
    assert_eq!(corim.check(Some(&claims(&fixtures, "milan-v3-aci")), at("2026-11-23")).verdict, Verdict::Failed);
    for (name, said) in [
        ("bad-refval-key", "it has no number (0)"),
        ("bad-refval-no-key", "it has no number (0)"),
        ("bad-ta-no-model", "names no model"),
        ("bad-ta-no-vendor", "names no vendor"),
    ] {
        let error = Corim::parse(&read(name)).unwrap_err().to_string();
        assert!(error.contains(said), "{name}: {error}");
    }
}

#[test]
fn reports_are_held_against_all_of_a_triple() {
    let Some(fixtures) = Fixtures::open() else { return };
    for (name, layout) in
        [("milan-v3-aci", Layout::Milan), ("genoa-v3-aci", Layout::Milan), ("turin-v5-aci", Layout::Turin)]
    {
        let claims = claims(&fixtures, name);
        let tcb = claims.reported_tcb.to_u64(layout);
        let policy = claims.guest_policy.0.to_be_bytes();
        let firmware = claims.current_firmware.to_string();
        let good = vec![
            (641, sha384(&claims.measurement.0)),
            (642, raw(&claims.host_data.0)),
            (2, raw(&policy)),
            (5, raw(&[0; 4])),
            (647, svn(553, tcb)),
            (3329, svn(552, claims.committed_tcb.to_u64(layout))),
            (3330, version(&firmware)),
            (1, svn(552, claims.guest_svn.into())),
        ];
        let verdict = |triples: &[Vec<(i128, Value<'_>)>], validity| {
            let corim = Corim::parse(&corim(triples, validity)).unwrap();
            assert!(corim.measurements().contains(&claims.measurement) || triples[0][0].1 == sha384(&[9; 48]));
            let check = corim.check(Some(&claims), at("2026-11-23"));
            (check.verdict, check.sentence)
        };
        assert_eq!(verdict(slice::from_ref(&good), None).0, Verdict::Ok, "{name}");
        let with = |index: usize, value: Value<'static>| {
            let mut other: Vec<(i128, Value<'_>)> = good.clone();
            other[index].1 = value;
            other
        };
        let mut raised = claims.reported_tcb;
        raised.snp = raised.snp.saturating_add(1);
        for (bad, said) in [
            (with(0, sha384(&[9; 48])), "MEASUREMENT"),
            (with(1, raw(&[9; 32])), "HOST_DATA"),
            (with(2, raw(&[0; 8])), "POLICY"),
            (with(3, raw(&[0, 0, 0, 1])), "VMPL"),
            (with(4, svn(553, raised.to_u64(layout))), "REPORTED_TCB"),
            (with(4, svn(553, 0xff00_00ff_0000)), "REPORTED_TCB"),
            (with(5, svn(552, 0)), "COMMITTED_TCB"),
            (with(6, version("1.0.0")), "firmware"),
            (with(7, svn(552, 77)), "GUEST_SVN"),
        ] {
            let (verdict_of_bad, sentence) = verdict(slice::from_ref(&bad), None);
            assert!(verdict_of_bad == Verdict::Failed && sentence.contains(said), "{name}, {said}: {sentence}");
            // Beside a good one it is another guest; halves of two do not make one.
            assert_eq!(verdict(&[bad, good.clone()], None).0, Verdict::Ok);
        }
        assert_eq!(verdict(&[with(1, raw(&[9; 32])), with(2, raw(&[0; 8]))], None).0, Verdict::Failed);
        let (from, to) = (at("2026-01-01").unix(), at("2027-01-01").unix());
        assert_eq!(verdict(slice::from_ref(&good), Some((from, to))).0, Verdict::Ok);
        assert_eq!(verdict(slice::from_ref(&good), Some((from, at("2026-06-01").unix()))).0, Verdict::Failed);
        assert_eq!(verdict(slice::from_ref(&good), Some((at("2026-12-01").unix(), to))).0, Verdict::Failed);
    }
    let corim = Corim::parse(&corim(&[vec![(641, sha384(&[1; 48]))]], None)).unwrap();
    assert_eq!(corim.check(None, at("2026-11-23")).verdict, Verdict::Skipped);
}

#[test]
fn what_is_not_understood_is_refused() {
    let digest = [1; 48];
    let with = |number: i128, value: Value<'static>| corim(&[vec![(641, sha384(&digest)), (number, value)]], None);
    Corim::parse(&with(1, svn(552, 1))).unwrap();
    for (bytes, said) in [
        (with(99, svn(552, 1)), "the number 99 is not understood"),
        (with(641, sha384(&[2; 48])), "two values for the same"),
        (with(1, svn(554, 1)), "the value of 1"),
        (with(2, raw(&[0; 7])), "the value of 2"),
        (with(3330, version("1.055.8")), "the value of 3330"),
        (with(3330, version("1.55")), "the value of 3330"),
        (with(642, sha384(&[2; 48])), "the value of 642"),
        (corim(&[vec![(1, svn(552, 1))]], None), "no launch digest"),
        (corim(&[vec![(641, sha384(&[1; 47]))]], None), "the value of 641"),
        (corim(&[vec![]], None), "a list of 1 to"),
        (corim(&[], None), "a list of 1 to"),
        (vec![0xd2, 0x80], "expected tag 501"),
        (vec![0xd9, 0x01], "not the CBOR"),
        (vec![0; MAX_CORIM_BYTES + 1], "at most"),
    ] {
        let error = Corim::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    let profile = b"tag:amd.com,2024:snp";
    let mut other = with(1, svn(552, 1));
    let place = other.windows(profile.len()).position(|window| window == profile).unwrap();
    other[place] ^= 1;
    assert!(Corim::parse(&other).unwrap_err().to_string().contains("profile"));
}

proptest! {
    #[test]
    fn any_bytes_are_a_corim_or_an_error(bytes in vec(any::<u8>(), 0..300), place: usize, bit in 0_u32..8) {
        let _ = Corim::parse(&bytes);
        let mut changed = corim(&[vec![(641, sha384(&[1; 48])), (642, raw(&[2; 32])), (1, svn(553, 5))]], Some((1, 2)));
        let place = place % changed.len();
        changed[place] ^= 1_u8 << bit;
        let _ = Corim::parse(&changed);
    }
}
