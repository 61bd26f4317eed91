//! Evidence of other makers: quotes of Intel's TEEs with their collateral, confidential VMs of Azure's, tokens; and files of
//! which nobody said what they are.

use std::hint::black_box;

use caveau_evidence::azure::{AzureEvidence, HclReport, TpmQuote};
use caveau_evidence::dcap::{Collateral, QeIdentity, Quote, TcbInfo};
use caveau_evidence::token::{Token, TokenExpectations, TokenKey, judge_token};
use caveau_evidence::{AppraisalPolicy, Outcome, Profile, Request, Timestamp, quote_rules, verify_azure, verify_quote};

use crate::Target;
use crate::sections::{join, sections};

const NOW: Timestamp = Timestamp::from_unix(1_752_000_000);

/// A quote alone, and with collateral after it.
pub(crate) const QUOTE: Target = Target {
    name: "quote",
    run: quote,
    seeds: quotes,
    fixtures: &[
        "attestation/tdx/sgx-quote-v3.bin",
        "attestation/tdx/quote-v4-emr.bin",
        "attestation/tdx/quote-v5-emr-2024.bin",
    ],
    rounds: 1000,
};

/// Collateral, and the statements in it.
pub(crate) const COLLATERAL: Target = Target {
    name: "collateral",
    run: collateral,
    seeds: collaterals,
    fixtures: &["attestation/tdx/sgx-quote-v3.collateral.json", "attestation/tdx/qeidentity-2023.json"],
    rounds: 1000,
};

/// Evidence of Azure's: paravisor's reports, quotes of a TPM, and the JSON around them.
pub(crate) const AZURE_EVIDENCE: Target = Target {
    name: "azure_evidence",
    run: azure_evidence,
    seeds: azure_parts,
    fixtures: &["attestation/azure-cvm/milan-v3.json", "attestation/azure-cvm/hcl-report-tdx.bin"],
    rounds: 1000,
};

/// Tokens and their keys.
pub(crate) const TOKEN: Target = Target { name: "token", run: token, seeds: tokens, fixtures: &[], rounds: 2000 };

/// Files of any kind.
pub(crate) const ANY_EVIDENCE: Target = Target {
    name: "any_evidence",
    run: any_evidence,
    seeds: any_files,
    fixtures: &[
        "attestation/snp/reports/genoa-v3-aci/report.bin",
        "attestation/azure-aci/host-amd-certs.json",
        "attestation/azure-cvm/genoa-v3.json",
        "attestation/tdx/quote-v4-debug-td.bin",
    ],
    rounds: 1500,
};

fn quote(data: &[u8]) {
    let parts = sections(data);
    let (quote, rest) = parts.split_first().map_or((data, &[][..]), |(first, rest)| (*first, rest));
    if let Ok(parsed) = Quote::parse(quote) {
        assert_eq!(parsed.signed, &quote[..parsed.signed.len()], "what is signed is not what came");
        black_box(parsed.body.report_data());
    }
    let collateral = rest.iter().filter_map(|part| Collateral::parse(part).ok());
    let collateral = collateral.fold(Collateral::default(), Collateral::with);
    drop(verify_quote(quote, &collateral, &quote_rules(Profile::Strict, NOW)));
}

/// A quote with zeros for everything that is no length.
fn quotes() -> Vec<Vec<u8>> {
    let made = [(3_u16, 0_u32, 384_usize), (4, 0x81, 584), (5, 0x81, 648)].map(|(version, tee, body)| {
        let mut out = [&version.to_le_bytes()[..], &2_u16.to_le_bytes(), &tee.to_le_bytes(), &[0; 4]].concat();
        out.extend([0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07]);
        out.extend([0; 20]);
        if version == 5 {
            out.extend([3, 0, 0x88, 2, 0, 0]);
        }
        out.extend(vec![0; body]);
        let pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let length = u32::try_from(pem.len()).expect("short").to_le_bytes();
        let qe = [&[0; 448][..], &[0, 0, 5, 0], &length, pem].concat();
        let mut signatures = vec![0; 128];
        if version > 3 {
            signatures.extend([6, 0]);
            signatures.extend(u32::try_from(qe.len()).expect("short").to_le_bytes());
        }
        signatures.extend(qe);
        out.extend(u32::try_from(signatures.len()).expect("short").to_le_bytes());
        out.extend(signatures);
        out
    });
    let with_collateral = join(&[made[0].clone(), collaterals().swap_remove(0)]);
    made.into_iter().chain([with_collateral]).collect()
}

fn collateral(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        drop((TcbInfo::parse(text), QeIdentity::parse(text)));
    }
    let Ok(collateral) = Collateral::parse(data) else { return };
    assert!(!collateral.is_empty(), "nothing was read, and taken for something");
    for signed in collateral.tcb_infos.iter().chain(&collateral.qe_identities) {
        drop((TcbInfo::parse(&signed.text), QeIdentity::parse(&signed.text)));
    }
}

fn collaterals() -> Vec<Vec<u8>> {
    let signature = "ab".repeat(64);
    let svns = vec![r#"{"svn":1}"#; 16].join(",");
    let level = format!(
        r#"{{"tcb":{{"sgxtcbcomponents":[{svns}],"pcesvn":1}},"tcbDate":"2025-01-01T00:00:00Z","tcbStatus":"UpToDate"}}"#
    );
    let dates = r#""issueDate":"2025-01-01T00:00:00Z","nextUpdate":"2026-01-01T00:00:00Z","tcbEvaluationDataNumber":1"#;
    let info = format!(
        r#"{{"id":"SGX","version":3,{dates},"fmspc":"000000000000","pceId":"0000","tcbType":0,"tcbLevels":[{level}]}}"#
    );
    let identity = format!(
        r#"{{"id":"QE","version":2,{dates},"miscselect":"00000000","miscselectMask":"FFFFFFFF","attributes":"{a}","attributesMask":"{a}","mrsigner":"{a}{a}","isvprodid":1,"tcbLevels":[]}}"#,
        a = "00".repeat(16)
    );
    vec![
        format!(r#"{{"tcbInfo":{info},"signature":"{signature}"}}"#).into_bytes(),
        format!(r#"{{"enclaveIdentity":{identity},"signature":"{signature}"}}"#).into_bytes(),
        info.into_bytes(),
        identity.into_bytes(),
        br#"{"pck_crl":"00","pck_certificate_chain":"%2D"}"#.to_vec(),
    ]
}

fn azure_evidence(data: &[u8]) {
    if let Ok(report) = HclReport::parse(data) {
        black_box((report.is_bound_by(&[0; 64]), report.td_report_data()));
    }
    if let Ok(quote) = TpmQuote::parse(data) {
        black_box(quote.is_of(&[]));
    }
    let Ok(evidence) = AzureEvidence::parse(data) else { return };
    let rules = Profile::Baseline.rules(NOW);
    let verified = verify_azure(&evidence, &rules).verified;
    assert!(verified.is_none(), "evidence without its endorsements was believed");
}

fn azure_parts() -> Vec<Vec<u8>> {
    let claims = br#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","key_ops":["sign"],"n":"AA","e":"AQAB"}]}"#;
    let size = u32::try_from(claims.len()).expect("short");
    let mut hcl = b"HCLA".to_vec();
    [2, size + 0x4d4, 2, 0, 0, 0, 0].iter().for_each(|number: &u32| hcl.extend(number.to_le_bytes()));
    hcl.extend([0; 1184]);
    [size + 20, 1, 2, 1, size].iter().for_each(|number: &u32| hcl.extend(number.to_le_bytes()));
    hcl.extend(claims);
    let mut quote = vec![0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 0, 0, 1, 7];
    quote.extend([0; 25]);
    quote.extend([0, 0, 0, 1, 0, 0x0b, 3, 1, 0, 0, 0, 32]);
    quote.extend([9; 32]);
    let json = br#"{"hcl_report":"00","tpm_quote":{"message":[1],"signature":"AA","pcrs":[]}}"#.to_vec();
    vec![hcl, quote, json]
}

fn token(data: &[u8]) {
    drop(TokenKey::parse(data));
    let Ok(text) = std::str::from_utf8(data) else { return };
    black_box(Token::is_likely(text));
    let Ok(token) = Token::parse(text) else { return };
    let judgement = judge_token(&token, &[], &TokenExpectations::default(), Profile::Strict, NOW);
    assert!(judgement.claims.is_none(), "a token was believed without any key");
}

fn tokens() -> Vec<Vec<u8>> {
    vec![
        b"eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjE3NTIwMDAwMDEsInN1Ym1vZHMiOnsiYSI6eyJlYXIuc3RhdHVzIjoyfX19.AAAA".to_vec(),
        br#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"RSA","n":"AA","e":"AQAB"}]}"#.to_vec(),
    ]
}

fn any_evidence(data: &[u8]) {
    let parts = sections(data);
    let Some((file, attachments)) = parts.split_first() else { return };
    let policy = AppraisalPolicy { profile: Some(Profile::Baseline), ..AppraisalPolicy::default() };
    match Request::new(policy, NOW).judge_file(file, attachments) {
        Ok(judgement) => assert!(judgement.outcome != Outcome::Passed, "nothing was expected, and all of it holds"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn any_files() -> Vec<Vec<u8>> {
    let mut files = tokens();
    files.extend(azure_parts());
    files.extend(quotes());
    files.push(br#"{"SnpReport":"AA","VcekCertChain":"AA","Endorsements":"e30"}"#.to_vec());
    files.push(br#"{"attestation":"AA","platform_certificates":"AA","uvm_endorsements":"AA"}"#.to_vec());
    files
}
