//! Changes of bytes, as an attacker or a bad line would make them.

use std::ops::Range;

use crate::Dice;

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// One bit of the byte there.
    Bit(usize),
    /// The byte there.
    Byte(usize),
    /// One more or less in the byte there.
    Step(usize),
    /// These bytes, anew.
    Run(Range<usize>),
    /// These bytes are those of another piece in the same place.
    Borrowed(Range<usize>),
    /// Two ranges of one length, the one for the other.
    Swapped(Range<usize>, Range<usize>),
    /// From there on it is another piece.
    Spliced(usize),
    /// It ends there.
    Cut(usize),
    /// So many bytes more.
    Grown(usize),
}

/// Changes `bytes` in one place. `other` is another piece of the same kind, from which parts may come. Nearly always the bytes are
/// others afterwards; two pieces may have parts in common.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) -> Mutation {
    let length = bytes.len().max(1);
    if bytes.is_empty() {
        bytes.push(dice.byte());
        return Mutation::Grown(1);
    }
    let at = dice.below(length);
    match dice.below(16) {
        0..=5 => {
            bytes[at] ^= 1 << dice.below(8);
            Mutation::Bit(at)
        }
        6 | 7 => {
            bytes[at] = bytes[at].wrapping_add(dice.byte().max(1));
            Mutation::Byte(at)
        }
        8 => {
            bytes[at] = if dice.once_in(2) { bytes[at].wrapping_add(1) } else { bytes[at].wrapping_sub(1) };
            Mutation::Step(at)
        }
        9 | 10 => {
            let range = at..(at + 1 + dice.below(16)).min(length);
            bytes[range.clone()].iter_mut().for_each(|byte| *byte = dice.byte());
            Mutation::Run(range)
        }
        11 | 12 => {
            let end = (at + 1 + dice.below(64)).min(length).min(other.len());
            let range = at.min(end)..end;
            bytes[range.clone()].copy_from_slice(&other[range.clone()]);
            Mutation::Borrowed(range)
        }
        13 => {
            let count = 1 + dice.below(16.min(length));
            let (first, second) = (dice.below(length - count + 1), dice.below(length - count + 1));
            (0..count).for_each(|offset| bytes.swap(first + offset, second + offset));
            Mutation::Swapped(first..first + count, second..second + count)
        }
        14 => {
            bytes.truncate(at);
            bytes.extend(other.iter().skip(at));
            Mutation::Spliced(at)
        }
        _ if dice.once_in(2) => {
            bytes.truncate(at);
            Mutation::Cut(at)
        }
        _ => {
            let count = 1 + dice.below(8);
            bytes.extend((0..count).map(|_| dice.byte()));
            Mutation::Grown(count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_change_is_made_and_most_change_something() {
        let (good, other) = ([7_u8; 100], [9_u8; 120]);
        let mut dice = Dice::new(1);
        let mut kinds = std::collections::BTreeSet::new();
        let mut changed = 0;
        for _ in 0..1000 {
            let mut bytes = good.to_vec();
            let mutation = mutate(&mut bytes, &other, &mut dice);
            changed += u32::from(bytes != good);
            kinds.insert(format!("{mutation:?}").split('(').next().map(str::to_owned));
        }
        assert_eq!(kinds.len(), 9, "{kinds:?}");
        assert!(changed > 900, "{changed}");
    }

    #[test]
    fn nothing_is_too_short() {
        let mut dice = Dice::new(2);
        for length in 0..3 {
            for other in [&[][..], &[1], &[1, 2, 3, 4]] {
                for _ in 0..200 {
                    mutate(&mut vec![0; length], other, &mut dice);
                }
            }
        }
    }
}
