//! Reference values that others give: CoRIMs, and what is signed as `reference-info`.

use std::hint::black_box;

use caveau_cose::cbor::Value;
use caveau_evidence::corim::Corim;
use caveau_evidence::{Certificates, Evidence, Hex, ReferenceInfo, Tee, Timestamp, judge_signed_values};

use crate::Target;

const NOW: Timestamp = Timestamp::from_unix(1_780_000_000);

/// CoRIMs of AMD's profile.
pub(crate) const CORIM: Target = Target {
    name: "corim",
    run: corim,
    seeds: corims,
    fixtures: &[
        "attestation/corim/corim-sevsnp-valid.cbor",
        "attestation/corim/corim-sevsnp-bad-refval-key.cbor",
        "attestation/corim/corim-sevsnp-bad-ta-no-model.cbor",
    ],
    rounds: 2000,
};

/// Signed reference values, and their payload alone.
pub(crate) const REFERENCE_INFO: Target = Target {
    name: "reference_info",
    run: reference_info,
    seeds: payloads,
    fixtures: &["attestation/azure-aci/uvm-endorsement-svn101.cose"],
    rounds: 1000,
};

fn corim(data: &[u8]) {
    let Ok(corim) = Corim::parse(data) else { return };
    assert!(Corim::is_likely(data), "what is a CoRIM does not look like one");
    assert_eq!(corim.measurements().len(), corim.references.len(), "reference values without a launch digest");
    black_box(corim.check(None, NOW));
}

fn corims() -> Vec<Vec<u8>> {
    let pair = |key: i128, value| (Value::Int(key), value);
    let oid = [0x2b, 6, 1, 4, 1, 0x9c, 0x78, 3, 2];
    let class = Value::Map(vec![pair(0, Value::Tag(111, Box::new(Value::Bytes(&oid))))]);
    let environment = Value::Map(vec![pair(0, class), pair(1, Value::Tag(560, Box::new(Value::Bytes(&[7; 64]))))]);
    let measured = |number, form, value| {
        Value::Map(vec![pair(0, Value::Int(number)), pair(1, Value::Map(vec![pair(form, value)]))])
    };
    let digest = Value::Array(vec![Value::Array(vec![Value::Int(7), Value::Bytes(&[1; 48])])]);
    let version = Value::Map(vec![pair(0, Value::Text("1.55.8")), pair(1, Value::Int(16384))]);
    let measurements = Value::Array(vec![
        measured(641, 2, digest),
        measured(647, 1, Value::Tag(553, Box::new(Value::Int(0x7303)))),
        measured(642, 4, Value::Tag(560, Box::new(Value::Bytes(&[2; 32])))),
        measured(3330, 0, version),
    ]);
    let triples = Value::Map(vec![pair(0, Value::Array(vec![Value::Array(vec![environment, measurements])]))]);
    let identity = Value::Map(vec![pair(0, Value::Text("guest"))]);
    let comid = Value::Map(vec![pair(1, identity), pair(4, triples)]).encode();
    let profile = Value::Text("tag:amd.com,2024:snp-corim-profile");
    let map = Value::Map(vec![
        pair(0, Value::Text("reference")),
        pair(1, Value::Array(vec![Value::Tag(506, Box::new(Value::Bytes(&comid)))])),
        pair(3, Value::Tag(32, Box::new(profile))),
        pair(4, Value::Map(vec![pair(1, Value::Tag(1, Box::new(Value::Int(1_790_000_000))))])),
    ]);
    vec![Value::Tag(501, Box::new(map)).encode()]
}

fn reference_info(data: &[u8]) {
    if let Ok(info) = ReferenceInfo::parse(data) {
        // Several on few bytes each may take more room when they are written anew.
        if let Ok(written) = info.to_json() {
            assert_eq!(ReferenceInfo::parse(written.as_bytes()).expect("what was written can be read"), info);
        }
    }
    let evidence = Evidence::new(Tee::Snp, Vec::new(), Certificates::default());
    let values = judge_signed_values(&[data.to_vec()], &[], &evidence, NOW);
    assert!(values.accepted.is_none() && values.measurements.is_none(), "reference values of nobody's count");
    assert_eq!(values.checks.len(), 3);
}

fn payloads() -> Vec<Vec<u8>> {
    let one = ReferenceInfo { svn: 101, tee: Tee::Snp, measurements: vec![Hex([5; 48])] };
    let several = ReferenceInfo { svn: 1, tee: Tee::EmulatedSnp, measurements: vec![Hex([6; 48]), Hex([7; 48])] };
    [one, several].map(|info| info.to_json().expect("a seed can be written").into_bytes()).into()
}
