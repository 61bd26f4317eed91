//! The root's revocation list: verifiers ask for one in force, so there always is.

use caveau_snp::build::{CrlSpec, crl_tbs};
use caveau_snp::certificate::Certificate;
use caveau_snp::crl::Crl;
use caveau_snp::time::Timestamp;

use crate::authority::{Authority, HOUR, YEAR};
use crate::state::{StateError, StateFolder};

const FILE: &str = "crl.der";

/// A list that ends within this many seconds is made anew.
const RENEW_BEFORE: u64 = 30 * 24 * HOUR;

/// The list in force, made anew where there is none, or where it ends soon. It revokes nothing.
pub(crate) fn list(state: &StateFolder, root: &Authority, intermediate: &[u8]) -> Result<Vec<u8>, StateError> {
    let old = state.read(FILE)?;
    if let Some(bytes) = &old
        && is_good(bytes, root.certificate(), intermediate, state.now())
    {
        return Ok(bytes.to_vec());
    }
    // Numbers must rise even where the old list was lost: hence the time, in seconds, as the least of them.
    let last = old.and_then(|bytes| Crl::parse(&bytes).map(|list| list.number()).ok()).unwrap_or(0);
    let tbs = crl_tbs(&CrlSpec {
        root_id: &root.id(),
        this_update: state.now().minus_seconds(HOUR),
        next_update: state.now().plus_seconds(YEAR),
        number: last.saturating_add(1).max(state.now().unix()),
        revoked: &[],
    });
    let list = root.issue(&tbs)?;
    state.write(FILE, &list)?;
    Ok(list)
}

/// Whether the list is this root's, in force now and for a while.
fn is_good(bytes: &[u8], root: &[u8], intermediate: &[u8], now: Timestamp) -> bool {
    let (Ok(list), Ok(root), Ok(intermediate)) =
        (Crl::parse(bytes), Certificate::parse(root), Certificate::parse(intermediate))
    else {
        return false;
    };
    list.check(&intermediate, &root, now, 0).is_ok()
        && list.check(&intermediate, &root, now.plus_seconds(RENEW_BEFORE), 0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Kind;

    #[test]
    fn a_list_is_kept_until_it_ends_soon_and_numbers_rise() {
        let parent = tempfile::tempdir().unwrap();
        let start: Timestamp = "2026-11-23".parse().unwrap();
        let at = |days: u64| {
            let now = start.plus_seconds(days * 24 * HOUR);
            let state = StateFolder::open_at(&parent.path().join("state"), now).unwrap();
            let root = Authority::root(&state).unwrap();
            let intermediate = state.authority(Kind::Ask).unwrap();
            let list = list(&state, &root, intermediate.certificate()).unwrap();
            let certificates = (Certificate::parse(root.certificate()).unwrap(), intermediate.certificate().to_vec());
            let intermediate = Certificate::parse(&certificates.1).unwrap();
            Crl::parse(&list).unwrap().check(&intermediate, &certificates.0, now, 0).unwrap();
            (Crl::parse(&list).unwrap().number(), list)
        };
        let (first, bytes) = at(0);
        assert_eq!(at(334).1, bytes, "31 days are left");
        let (second, _) = at(336);
        assert!(second > first, "29 days were left");
        std::fs::write(parent.path().join("state/crl.der"), "damaged").unwrap();
        let (third, bytes) = at(337);
        assert!(third > second, "a lost list does not set the number back");
        // A clock that was ahead: its list is not yet valid, so there is a new one with a higher number.
        let (fourth, _) = at(0);
        assert!(fourth > third);
        assert_ne!(at(0).1, bytes);
    }
}
