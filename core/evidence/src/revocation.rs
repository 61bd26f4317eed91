//! By which revocation list to judge, where several hands have one.
//!
//! Whoever is judged must not choose it: an old list that is still in force would hide what a newer one revokes. So the
//! lists that the owner holds are weighed together with the one that came along.

use caveau_snp::certificate::Certificate;
use caveau_snp::crl::Crl;
use caveau_snp::time::Timestamp;

use crate::certificates::Certificates;

/// Revocation lists that the owner holds: DER, which may be of any root and of any age.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnLists<'a> {
    /// Given for this judgement: where none is of use, the first of them is judged, so that it is told what is wrong with it.
    pub given: &'a [Vec<u8>],
    /// Kept from earlier: passed over where they are of no use, but their numbers count.
    pub kept: &'a [Vec<u8>],
}

impl Certificates {
    /// Puts the revocation list in place by which to judge `at` that time: of the one that is there and the `own` ones, all
    /// that the root signed and that are in force then, one that revokes the intermediate, or else the one with the highest
    /// number. (AMD has two lists for each root, which are told apart by nothing in them: so a higher number alone must not
    /// hide a revocation.)
    ///
    /// Returns the highest number of the root's lists that the owner holds and that had been made by then: a list with a
    /// lower one is a rolled back one, though it be in force.
    #[must_use]
    pub fn choose_list(&mut self, own: &OwnLists<'_>, at: Timestamp) -> u64 {
        let root = self.root.as_deref().and_then(|der| Certificate::parse(der).ok());
        let intermediate = self.intermediate.as_deref().and_then(|der| Certificate::parse(der).ok());
        let of_root = |der: &[u8]| {
            root.as_ref().and_then(|root| list_of(root, der).map(|list| Weight::new(&list, intermediate.as_ref(), at)))
        };
        let owned: Vec<&Vec<u8>> = own.given.iter().chain(own.kept).collect();
        let weights = owned.iter().filter_map(|der| of_root(der));
        let least = weights.filter(|weight| weight.is_made).map(|weight| weight.number).max().unwrap_or(0);
        // The owner's own come first, and of equals the first one stays.
        let mut best: Option<(Weight, &Vec<u8>)> = None;
        for der in owned.into_iter().chain(&self.crl) {
            let Some(weight) = of_root(der).filter(|weight| weight.in_force) else { continue };
            if best
                .as_ref()
                .is_none_or(|(of_best, _)| (weight.revokes, weight.number) > (of_best.revokes, of_best.number))
            {
                best = Some((weight, der));
            }
        }
        let chosen = best.map(|(_, der)| der).or(own.given.first()).cloned();
        self.crl = chosen.or(self.crl.take());
        least
    }

    /// Whether `list` may take the place of the `kept` one: unless that is of the root that is here, and `list` has a lower
    /// number, or is none of the root's.
    #[must_use]
    pub fn may_replace_list(&self, list: &[u8], kept: &[u8]) -> bool {
        let Some(root) = self.root.as_deref().and_then(|der| Certificate::parse(der).ok()) else { return true };
        match (list_of(&root, list), list_of(&root, kept)) {
            (Some(list), Some(kept)) => list.number() >= kept.number(),
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }
}

/// What decides between lists.
struct Weight {
    is_made: bool,
    in_force: bool,
    revokes: bool,
    number: u64,
}

impl Weight {
    fn new(list: &Crl<'_>, intermediate: Option<&Certificate<'_>>, at: Timestamp) -> Self {
        Self {
            is_made: list.this_update() <= at,
            in_force: list.is_in_force(at),
            revokes: intermediate.is_some_and(|intermediate| list.revokes(intermediate)),
            number: list.number(),
        }
    }
}

/// The list, where `root` signed it.
fn list_of<'a>(root: &Certificate<'_>, der: &'a [u8]) -> Option<Crl<'a>> {
    Crl::parse(der).ok().filter(|list| list.is_of(root))
}
