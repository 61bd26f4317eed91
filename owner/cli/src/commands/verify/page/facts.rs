//! The few facts that people ask for first. All of them stand in the claims or the checks, too.

use caveau_evidence::{Claims, Judgement, Subject};

/// Names, and what there is to say. Nothing where nothing is authentic.
pub(super) fn of(judgement: &Judgement) -> Vec<(String, String)> {
    let Some(claims) = &judgement.claims else { return Vec::new() };
    let mut facts = match claims {
        Subject::Azure(_) | Subject::Snp(_) => claims.snp().map(of_snp).unwrap_or_default(),
        Subject::Quote(quote) => of_quote(quote),
        Subject::Token(token) => vec![("Signed with", token.algorithm.clone())],
    };
    if let Subject::Azure(azure) = claims
        && let caveau_evidence::azure::Processor::Tdx(quote) = &azure.processor
    {
        facts.extend(of_quote(quote));
    }
    let debug = judgement.checks.iter().find(|check| check.name == "debug");
    facts.extend(debug.map(|check| ("Debugging", check.sentence.clone())));
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn of_snp(claims: &Claims) -> Vec<(&'static str, String)> {
    let yes = |is: bool, yes: &str, no: &str| if is { yes.to_owned() } else { no.to_owned() };
    let family = claims.fms.map(|fms| format!(" (family/model/stepping {fms})")).unwrap_or_default();
    let masked = "not said: the platform hides it".to_owned();
    vec![
        ("Processor", format!("AMD SEV-SNP, product line {}{family}", claims.product.name())),
        ("Chip", claims.chip_id.map_or(masked, |chip| chip.to_string())),
        ("Firmware", format!("{} runs; no older one than {} can", claims.current_firmware, claims.committed_firmware)),
        ("TCB levels", format!("reported {}; at launch {}", claims.reported_tcb, claims.launch_tcb)),
        ("Microcode level", claims.reported_tcb.microcode.to_string()),
        (
            "SMT (sibling threads)",
            format!(
                "{} by the guest's policy; this platform has it {}",
                yes(claims.guest_policy.smt_allowed(), "allowed", "not allowed"),
                yes(claims.platform_info.smt_on(), "on", "off")
            ),
        ),
    ]
}

fn of_quote(claims: &caveau_evidence::dcap::Claims) -> Vec<(&'static str, String)> {
    let pck = &claims.platform.pck;
    let advisories =
        if claims.advisories.is_empty() { "none that Intel lists".to_owned() } else { claims.advisories.join(", ") };
    let smt = match pck.smt_enabled {
        Some(true) => "on",
        Some(false) => "off",
        None => "not said",
    };
    vec![
        ("Platform", format!("Intel, FMSPC {}, CPUSVN {}", pck.fmspc, pck.cpu_svn)),
        ("TCB status", format!("{}, as of {}", claims.tcb_status, claims.tcb_date)),
        ("Known advisories", advisories),
        ("SMT (sibling threads)", smt.to_owned()),
    ]
}
