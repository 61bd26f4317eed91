//! Further pieces of the policy: signed envelopes that the host hands over, verified here, then asked of the policy.

use caveau_cose::{PublicKey, Rules, TrustList, Validity, VerifiedEnvelope};
use caveau_policy::{Enforcer, request};
use caveau_protocol::AgentError;

use crate::answer::{Answer, chain, denied, done, invalid};

/// The guest has no clock that its host does not set: what was signed while its signer's certificate was valid counts.
const RULES: Rules<'static> = Rules { validity: Validity::LeafEnd, chain: &[] };

/// Loads a fragment of policy.
///
/// # Errors
/// Where the envelope is not believed, or the policy does not allow what it holds.
pub(crate) fn load_fragment(envelope: &[u8], enforcer: &mut Enforcer) -> Answer {
    let opened = open(envelope)?;
    let text = std::str::from_utf8(opened.payload()).map_err(|_| invalid("the fragment is not UTF-8 text"))?;
    let asked = request::LoadFragment {
        issuer: opened.issuer().as_str().to_owned(),
        feed: opened.feed().to_owned(),
        header_svn: opened.svn(),
        receipts: receipts(&opened, enforcer),
        text: text.to_owned(),
    };
    let granted = enforcer.load_fragment(&asked).map_err(|denial| denied(enforcer, denial))?;
    enforcer.carry_out(granted, |_permit| Ok::<_, AgentError>(()))?;
    done()
}

/// Loads a transparency trust list.
///
/// # Errors
/// As [`load_fragment`].
pub(crate) fn load_trust_list(envelope: &[u8], enforcer: &mut Enforcer) -> Answer {
    let opened = open(envelope)?;
    let list = TrustList::parse(opened.payload());
    let list = list.map_err(|error| invalid(format!("the trust list is refused: {}", chain(&error))))?;
    let svn = opened.svn().ok_or_else(|| invalid("the trust list's envelope has no security version"))?;
    let keys = |keys: &caveau_cose::KeySet| keys.iter().map(|(id, key)| (id.clone(), key.to_spki())).collect();
    let asked = request::LoadTrustList {
        issuer: opened.issuer().as_str().to_owned(),
        subject: opened.feed().to_owned(),
        svn,
        ledgers: list.ledgers().iter().map(|(name, set)| (name.clone(), keys(set))).collect(),
    };
    let granted = enforcer.load_transparency_trust_list(&asked).map_err(|denial| denied(enforcer, denial))?;
    enforcer.carry_out(granted, |_permit| Ok::<_, AgentError>(()))?;
    done()
}

fn open(envelope: &[u8]) -> Result<VerifiedEnvelope<'_>, AgentError> {
    VerifiedEnvelope::open(envelope, &RULES)
        .map_err(|error| invalid(format!("the envelope is refused: {}", chain(&error))))
}

/// The receipts that verify with a key of a ledger that a trust list brought. The others count as not there.
fn receipts(opened: &VerifiedEnvelope<'_>, enforcer: &Enforcer) -> Vec<request::Receipt> {
    let statement = opened.envelope().statement_digest();
    let verified = opened.receipts().iter().filter(|receipt| {
        let known = enforcer.ledger_keys(receipt.issuer()).and_then(|keys| keys.get(receipt.key_id()));
        let key = known.and_then(|known| PublicKey::from_spki(&known.key));
        key.is_some_and(|key| receipt.verify(&statement, &key).is_ok())
    });
    verified
        .map(|receipt| request::Receipt { ledger: receipt.issuer().to_owned(), key_id: receipt.key_id().to_vec() })
        .collect()
}
