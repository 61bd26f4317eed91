//! Changes of recorded quotes and of their collateral, and other dates.

use caveau_differential::{Dice, Listed, mutate};
use caveau_evidence::Timestamp;
use caveau_evidence::dcap::{Claims, Collateral, Quote};
use serde_json::Value;

use super::{Comparison, under_intel};
use crate::fixtures::Fixtures;

const QUOTES: usize = 1200;
const COLLATERALS: usize = 1200;

/// What ours refuses of both by checks that the other does not make.
const OURS_ALONE: Listed = &[(
    "certificate-malformed",
    "it does not look at the copy of the root that comes along, and takes PEM with other characters between the lines",
)];

/// What the other refuses of changed quotes, and ours accepts.
const THEIRS_ALONE_OF_QUOTES: Listed = &[(
    "quote: Failed to verify certificate chain: UnknownIssuer",
    "ours takes certificates by their names, wherever they came along: the collateral has the authority of the key as well",
)];

/// What the other refuses of changed collateral, and ours accepts. Of changed lists, statements and signatures it is nothing.
const THEIRS_ALONE_OF_COLLATERAL: Listed = &[
    (
        "chain: Failed to verify certificate chain: CaUsedAsEndEntity",
        "ours takes certificates by their names, wherever they came along: the signer is in the other chain as well",
    ),
    ("chain: Failed to verify certificate chain: InvalidSignatureForPublicKey", "the same, of a signer's broken copy"),
    ("exchange: Failed to parse root CA CRL: InvalidCrlSignatureForPublicKey", "ours tells lists by their issuers"),
];

/// A recorded quote that both accept.
struct Genuine {
    name: &'static str,
    quote: Vec<u8>,
    collateral: Value,
    at: Timestamp,
    claims: Claims,
}

fn genuine(fixtures: &Fixtures) -> Vec<Genuine> {
    let read = |name: &'static str| {
        let quote = fixtures.read(&format!("tdx/{name}.bin"));
        let json = fixtures.read(&format!("tdx/{name}.collateral.json"));
        let at = Timestamp::from_unix(1_752_000_000);
        let (_, claims) = under_intel(&quote, &Collateral::parse(&json).unwrap(), at);
        Genuine { name, quote, collateral: serde_json::from_slice(&json).unwrap(), at, claims: claims.unwrap() }
    };
    ["quote-v4-emr", "sgx-quote-v3"].map(read).into()
}

/// Holds both to one piece, in which something of this kind was changed. Whatever ours accepts of something changed says what the genuine one does.
fn hold(
    comparison: &mut Comparison,
    (kind, name): (&str, &str),
    base: &Genuine,
    (quote, collateral, at): (&[u8], &Value, Timestamp),
) {
    let text = collateral.to_string();
    let ours = match Collateral::parse(text.as_bytes()) {
        Ok(collateral) => under_intel(quote, &collateral, at),
        Err(error) => (vec![unread(&error.to_string())], None),
    };
    if let Some(claims) = &ours.1 {
        assert_eq!(claims.body, base.claims.body, "{name}");
        assert_eq!(
            (claims.tcb_status, &claims.advisories),
            (base.claims.tcb_status, &base.claims.advisories),
            "{name}"
        );
    }
    match serde_json::from_str(&text) {
        Ok(collateral) => comparison.hold(&name, kind, ours, (quote, &collateral, at)),
        // What the other's type of collateral cannot hold, it cannot accept.
        Err(_) => assert!(ours.1.is_none(), "{name}: ours accepts what the other cannot read"),
    }
}

fn unread(sentence: &str) -> caveau_evidence::Check {
    let code = Some("collateral-unreadable".to_owned());
    caveau_evidence::Check {
        name: "collateral",
        verdict: caveau_evidence::Verdict::Failed,
        code,
        sentence: sentence.to_owned(),
    }
}

#[test]
fn changed_quotes() {
    let Some(fixtures) = Fixtures::open() else { return };
    let genuine = genuine(&fixtures);
    let mut comparison = Comparison::under_intel(OURS_ALONE, THEIRS_ALONE_OF_QUOTES);
    let mut dice = Dice::new(0x9e0);
    let mut round = 0;
    while round < QUOTES {
        let base = dice.one_of(&genuine);
        let other = dice.one_of(&genuine);
        let mut quote = base.quote.clone();
        let done = if dice.once_in(3) {
            // Half of a quote is certificates in PEM: its own fields get more than their share.
            let signed = Quote::parse(&quote).unwrap().signed.len();
            let at = dice.below(signed + 4 + 128 + 6 + 384 + 64 + 2);
            quote[at] ^= 1 << dice.below(8);
            format!("bit of byte {at}")
        } else {
            format!("{:?}", mutate(&mut quote, &other.quote, &mut dice))
        };
        if quote == base.quote {
            continue;
        }
        round += 1;
        let name = format!("{round}, {}: {done}", base.name);
        hold(&mut comparison, ("quote", &name), base, (&quote, &base.collateral, base.at));
    }
    comparison.close("changed quotes");
}

const TEXTS: [&str; 2] = ["tcb_info", "qe_identity"];
const HEXADECIMAL: [&str; 4] = ["tcb_info_signature", "qe_identity_signature", "root_ca_crl", "pck_crl"];
const CHAINS: [&str; 2] = ["tcb_info_issuer_chain", "qe_identity_issuer_chain"];

/// Changes a field; the kind of the change, and what was done, in words.
fn change(collateral: &mut Value, other: &Value, dice: &mut Dice) -> (&'static str, String) {
    match dice.below(8) {
        0 | 1 => {
            let field = *dice.one_of(&TEXTS);
            ("text", format!("{field} {}", change_text(collateral, other, field, dice)))
        }
        2..=4 => {
            let field = *dice.one_of(&HEXADECIMAL);
            let of = |value: &Value| hex::decode(value[field].as_str().unwrap()).unwrap();
            let mut bytes = of(collateral);
            let done = mutate(&mut bytes, &of(other), dice);
            collateral[field] = hex::encode(bytes).into();
            ("bytes", format!("{field} {done:?}"))
        }
        5 => {
            let field = *dice.one_of(&CHAINS);
            ("chain", format!("{field} {}", change_chain(collateral, field, dice)))
        }
        6 => {
            let all: Vec<&str> = TEXTS.into_iter().chain(HEXADECIMAL).chain(CHAINS).collect();
            let field = *dice.one_of(&all);
            collateral[field] = other[field].clone();
            ("other", format!("{field} of the other"))
        }
        _ => {
            let field = *dice.one_of(&HEXADECIMAL);
            let second = *dice.one_of(&HEXADECIMAL);
            let kept = collateral[field].clone();
            collateral[field] = collateral[second].clone();
            collateral[second] = kept;
            ("exchange", format!("{field} and {second}"))
        }
    }
}

/// Text with other letters, or with another's value for a key that matters.
fn change_text(collateral: &mut Value, other: &Value, field: &str, dice: &mut Dice) -> String {
    let text = collateral[field].as_str().unwrap().to_owned();
    let swaps = [
        ("OutOfDate", "UpToDate"),
        ("\"issueDate\":\"2025", "\"issueDate\":\"2020"),
        ("\"nextUpdate\":\"2025", "\"nextUpdate\":\"2035"),
        ("INTEL-SA", "INTEL-SB"),
        ("\"svn\":", "\"svn\": "),
        ("{", "{ "),
    ];
    if dice.once_in(3) {
        let (from, to) = *dice.one_of(&swaps);
        collateral[field] = text.replacen(from, to, 1).into();
        return format!("{from} is {to}");
    }
    let mut bytes = text.into_bytes();
    let done = mutate(&mut bytes, other[field].as_str().unwrap().as_bytes(), dice);
    bytes.iter_mut().for_each(|byte| *byte &= 0x7f);
    collateral[field] = String::from_utf8(bytes).unwrap().into();
    format!("{done:?}")
}

fn change_chain(collateral: &mut Value, field: &str, dice: &mut Dice) -> String {
    const END: &str = "-----END CERTIFICATE-----\n";
    let text = collateral[field].as_str().unwrap().to_owned();
    let blocks: Vec<&str> = text.split_inclusive(END).collect();
    let (changed, done) = match dice.below(4) {
        0 => (blocks[..1].concat(), "without its root"),
        1 => (blocks[1..].concat(), "without its signer"),
        2 => (blocks.iter().rev().copied().collect(), "turned around"),
        _ => {
            let mut bytes = text.clone().into_bytes();
            let at = dice.below(bytes.len());
            bytes[at] = b'A' + dice.byte() % 26;
            (String::from_utf8(bytes).unwrap(), "with another letter")
        }
    };
    collateral[field] = changed.into();
    done.to_owned()
}

#[test]
fn changed_collateral_and_dates() {
    let Some(fixtures) = Fixtures::open() else { return };
    let genuine = genuine(&fixtures);
    let mut comparison = Comparison::under_intel(OURS_ALONE, THEIRS_ALONE_OF_COLLATERAL);
    let mut dice = Dice::new(0xc0);
    let mut round = 0;
    while round < COLLATERALS {
        let base = dice.one_of(&genuine);
        let other = &genuine[usize::from(base.name == genuine[0].name)];
        let mut collateral = base.collateral.clone();
        let ((kind, done), at) = if dice.once_in(8) {
            // From before the root's first day to after its last, most around the days on which something is issued or ends.
            let days = if dice.once_in(4) { 40 * 365 } else { 120 };
            let seconds = u64::try_from(dice.below(days * 86_400)).unwrap();
            let at = if dice.once_in(2) { base.at.plus_seconds(seconds) } else { base.at.minus_seconds(seconds) };
            (("date", at.to_string()), at)
        } else {
            (change(&mut collateral, &other.collateral, &mut dice), base.at)
        };
        if collateral == base.collateral && at == base.at {
            continue;
        }
        round += 1;
        let name = format!("{round}, {}: {kind}, {done}", base.name);
        hold(&mut comparison, (kind, &name), base, (&base.quote, &collateral, at));
    }
    comparison.close("changed collateral and dates");
}
