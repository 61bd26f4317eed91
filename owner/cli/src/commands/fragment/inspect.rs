//! `caveau fragment inspect`.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use caveau_cose::{
    Certificate, Chain, DidX509, Envelope, MAX_ENVELOPE_BYTES, Receipt, ReceiptError, Rules, TRUST_LIST_TYPE,
    TrustList, Validity, VerifiedEnvelope,
};
use caveau_fragment::FragmentText;
use serde_json::{Value, json};

use crate::{args, exit::Outcome, files, ui};

/// Runs it.
///
/// # Errors
/// Where the file cannot be read or is no envelope.
pub(super) fn run(command: &args::FragmentInspect, json: bool) -> Result<Outcome> {
    let bytes = files::read(&command.file, MAX_ENVELOPE_BYTES)?;
    let envelope = Envelope::parse(&bytes).with_context(|| format!("{}", command.file.display()))?;
    let rules = Rules { validity: command.at.map_or(Validity::LeafEnd, Validity::At), chain: &[] };
    let trusted = trusted(command)?;
    let report = report(&envelope, &rules, &trusted, command);
    let holds = report["refused"].as_array().is_none_or(Vec::is_empty);
    if command.content {
        if holds {
            std::io::stdout().lock().write_all(envelope.payload()).context("failed to write to standard output")?;
        } else {
            told(&report)?;
        }
    } else if json {
        ui::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if holds { Outcome::Done } else { Outcome::Refused })
}

/// The lists of ledgers that were given.
fn trusted(command: &args::FragmentInspect) -> Result<Vec<TrustList>> {
    let lists = command.trust_list.iter().map(|file| {
        let bytes = files::read(file, MAX_ENVELOPE_BYTES)?;
        let rules = Rules { validity: Validity::LeafEnd, chain: &[] };
        let list = VerifiedEnvelope::open(&bytes, &rules).with_context(|| format!("{}", file.display()))?;
        TrustList::parse(list.payload()).with_context(|| format!("{}", file.display()))
    });
    lists.collect()
}

/// What is wrong with a receipt, by the list that knows it best.
fn problem(lists: &[TrustList], receipt: &Receipt<'_>, statement: &[u8; 32]) -> Option<String> {
    let verdicts = lists.iter().map(|list| list.verify(receipt, statement));
    let best = verdicts.min_by_key(|verdict| match verdict {
        Ok(()) => 0,
        Err(ReceiptError::UnknownKey { .. }) => 2,
        Err(_) => 1,
    });
    match best {
        Some(verdict) => verdict.err().map(|error| chained(&error)),
        None => Some("no list of ledgers was given that could vouch for it (--trust-list)".to_owned()),
    }
}

/// All that is to be said; `refused` says why it is not to be believed.
fn report(envelope: &Envelope<'_>, rules: &Rules<'_>, trusted: &[TrustList], command: &args::FragmentInspect) -> Value {
    let header = envelope.header();
    let mut refused = Vec::new();
    let chain = envelope.verify_signature(rules);
    let issuer = match &chain {
        Ok(chain) => names_signer(header.issuer, chain),
        Err(error) => Err(chained(error)),
    };
    refused.extend(chain.as_ref().err().map(|error| chained(error)));
    if chain.is_ok() {
        refused.extend(issuer.as_ref().err().cloned());
        refused.extend(envelope.clone().verify(rules).err().filter(|_| issuer.is_ok()).map(|error| chained(&error)));
    }
    let text = std::str::from_utf8(envelope.payload()).ok();
    let fragment = text.map(|text| FragmentText::parse(text).map_err(|error| chained(&error)));
    let own_svn = fragment.as_ref().and_then(|read| read.as_ref().ok()).and_then(|fragment| fragment.svn.clone());
    refused.extend(unexpected(header.issuer, header.feed, header.svn, own_svn.as_deref(), command));
    let statement = envelope.statement_digest();
    let receipts = envelope.receipts().iter().map(|receipt| {
        let problem = problem(trusted, receipt, &statement);
        json!({
            "ledger": receipt.issuer(),
            "subject": receipt.subject(),
            "issued_at": receipt.issued_at(),
            "holds": problem.is_none(),
            "problem": problem,
        })
    });
    json!({
        "signature_holds": chain.is_ok(),
        "issuer": header.issuer,
        "issuer_names_signer": issuer.is_ok(),
        "feed": header.feed,
        "svn": header.svn.map(|svn| svn.to_string()).or(own_svn),
        "svn_in_header": header.svn,
        "algorithm": header.algorithm.name(),
        "content_type": header.content_type.map(|content| content.to_string()),
        "signing_time": header.signing_time,
        "certificates": header.chain.iter().map(|der| certificate(der)).collect::<Vec<_>>(),
        "receipts": receipts.collect::<Vec<_>>(),
        "content": content(envelope, fragment),
        "refused": refused,
    })
}

fn names_signer(issuer: Option<&str>, chain: &Chain<'_>) -> Result<(), String> {
    let issuer = issuer.ok_or("the envelope names no issuer")?;
    DidX509::parse(issuer).and_then(|did| did.check(chain)).map_err(|error| chained(&error))
}

/// What was expected and is not so.
fn unexpected(
    issuer: Option<&str>,
    feed: Option<&str>,
    header_svn: Option<i64>,
    own_svn: Option<&str>,
    command: &args::FragmentInspect,
) -> Vec<String> {
    let mut refused = Vec::new();
    for (what, found, wanted) in [("issuer", issuer, &command.issuer), ("feed", feed, &command.feed)] {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| found != Some(*wanted)) {
            refused.push(format!("the {what} is {}, expected {wanted}", found.unwrap_or("not said")));
        }
    }
    let own: Option<i64> = own_svn.and_then(|own| own.parse().ok());
    if let (Some(header), Some(own)) = (header_svn, own)
        && header != own
    {
        refused.push(format!("the envelope says svn {header}, and its content {own}"));
    }
    if let Some(least) = command.minimum_svn {
        match header_svn.or(own) {
            Some(svn) if svn >= least => {}
            Some(svn) => refused.push(format!("the svn is {svn}, expected at least {least}")),
            None => refused.push(format!("there is no svn, expected at least {least}")),
        }
    }
    refused
}

fn certificate(der: &[u8]) -> Value {
    match Certificate::parse(der) {
        Ok(read) => json!({
            "subject": read.show_subject(), "not_before": read.not_before(), "not_after": read.not_after(),
            "key": read.public_key().kind().to_string(),
        }),
        Err(error) => json!({ "problem": chained(&error) }),
    }
}

/// What the content is.
fn content(envelope: &Envelope<'_>, fragment: Option<Result<FragmentText, String>>) -> Value {
    let bytes = envelope.payload().len();
    let kind = envelope.header().content_type.map(|content| content.to_string());
    if kind.as_deref() == Some(TRUST_LIST_TYPE) {
        return match TrustList::parse(envelope.payload()) {
            Ok(list) => {
                let ledgers = list.ledgers().iter().map(|(name, keys)| (name.clone(), json!(keys.len())));
                json!({"bytes": bytes, "ledgers": ledgers.collect::<serde_json::Map<_, _>>()})
            }
            Err(error) => json!({"bytes": bytes, "problem": chained(&error)}),
        };
    }
    match fragment {
        Some(Ok(fragment)) => {
            let includes = fragment.includes.iter().map(|(name, count)| ((*name).to_owned(), json!(count)));
            json!({"bytes": bytes, "namespace": fragment.namespace, "svn": fragment.svn,
                "framework_version": fragment.framework_version,
                "includes": includes.collect::<serde_json::Map<_, _>>()})
        }
        Some(Err(problem)) if kind.as_deref().is_some_and(|kind| kind.contains("rego")) => {
            json!({"bytes": bytes, "problem": problem})
        }
        _ => json!({"bytes": bytes}),
    }
}

/// An error with what caused it.
fn chained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The report in words.
fn print(report: &Value) -> Result<()> {
    let text = |value: &Value| match value {
        Value::Null => "not said".to_owned(),
        Value::String(text) => ui::harmless(text),
        other => other.to_string(),
    };
    for (label, field) in [
        ("issuer", "issuer"),
        ("feed", "feed"),
        ("svn", "svn"),
        ("content type", "content_type"),
        ("algorithm", "algorithm"),
        ("signed at", "signing_time"),
    ] {
        ui::line(format!("{label:<14}{}", text(&report[field])))?;
    }
    for certificate in report["certificates"].as_array().into_iter().flatten() {
        let line = match &certificate["problem"] {
            Value::Null => format!(
                "{} ({}), {} to {}",
                text(&certificate["subject"]),
                text(&certificate["key"]),
                text(&certificate["not_before"]),
                text(&certificate["not_after"])
            ),
            problem => text(problem),
        };
        ui::line(format!("{:<14}{line}", "certificate"))?;
    }
    let content = report["content"].as_object().into_iter().flatten();
    for (name, value) in content {
        ui::line(format!("content       {name}: {}", text(value)))?;
    }
    for receipt in report["receipts"].as_array().into_iter().flatten() {
        let verdict = if receipt["holds"] == true { "holds".to_owned() } else { text(&receipt["problem"]) };
        ui::line(format!("{:<14}{}: {verdict}", "receipt", text(&receipt["ledger"])))?;
    }
    let holds = report["signature_holds"] == true && report["issuer_names_signer"] == true;
    ui::line(format!(
        "{:<14}{}",
        "signature",
        if holds { "holds, and the issuer names its signer" } else { "REFUSED" }
    ))?;
    told(report)
}

/// Says why it is refused.
fn told(report: &Value) -> Result<()> {
    for reason in report["refused"].as_array().into_iter().flatten() {
        ui::complain(&format!("refused: {}", ui::harmless(reason.as_str().unwrap_or_default())));
    }
    Ok(())
}
