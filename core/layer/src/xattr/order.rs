//! The one sort whose exact steps matter.
//!
//! The reference sorts the entries of an attribute block by a comparison that is not an order: of two entries each may
//! be "less" than the other. What comes out then depends on which pairs are compared when, so this follows the steps of
//! the reference's sort routine, a pattern-defeating quicksort (Orson Peters; <https://arxiv.org/abs/2106.05123>) in
//! the variant of Go's `sort` package: insertion sort up to 12 elements, median of three below 50 and of nine from
//! there on, at most five repairs of nearly sorted input, heap sort after too many bad pivots, and a fixed
//! pseudo-random shuffle after an unbalanced partition.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "indices into one slice of at most 256 elements, which are all that is calculated with here"
)]

/// Longest part that insertion sort does.
const SMALL: usize = 12;

/// Shortest part whose pivot is the median of nine, and on which partial insertion sort moves anything.
const LARGE: usize = 50;

/// Sorts by `less`, which need not be an order.
pub(super) fn sort<T>(items: &mut [T], less: &dyn Fn(&T, &T) -> bool) {
    let end = items.len();
    let bad_pivots_allowed = usize::BITS - end.leading_zeros();
    Sort { items, less }.range(0, end, bad_pivots_allowed);
}

/// Whether the elements looked at for the pivot were in order, in reverse, or neither.
#[derive(PartialEq, Eq)]
enum Hint {
    Falling,
    Rising,
    Unknown,
}

struct Sort<'a, T> {
    items: &'a mut [T],
    less: &'a dyn Fn(&T, &T) -> bool,
}

impl<T> Sort<'_, T> {
    /// Compares two places; a place outside the slice is less than none.
    fn less(&self, left: usize, right: usize) -> bool {
        self.items.get(left).zip(self.items.get(right)).is_some_and(|(left, right)| (self.less)(left, right))
    }

    /// Exchanges two places within the slice.
    fn swap(&mut self, left: usize, right: usize) {
        if left.max(right) < self.items.len() {
            self.items.swap(left, right);
        }
    }

    /// Sorts the places from `start` to before `end`.
    fn range(&mut self, mut start: usize, mut end: usize, mut bad_pivots_allowed: u32) {
        let (mut was_balanced, mut was_partitioned) = (true, true);
        loop {
            let length = end - start;
            if length <= SMALL {
                return self.insertion(start, end);
            }
            if bad_pivots_allowed == 0 {
                return self.heap(start, end);
            }
            if !was_balanced {
                self.shuffle(start, end);
                bad_pivots_allowed -= 1;
            }
            let (mut pivot, mut hint) = self.choose_pivot(start, end);
            if hint == Hint::Falling {
                self.reverse(start, end);
                pivot = (end - 1) - (pivot - start);
                hint = Hint::Rising;
            }
            if was_balanced && was_partitioned && hint == Hint::Rising && self.partial_insertion(start, end) {
                return;
            }
            if start > 0 && !self.less(start - 1, pivot) {
                start = self.partition_equal(start, end, pivot);
                continue;
            }
            let middle;
            (middle, was_partitioned) = self.partition(start, end, pivot);
            let (left, right) = (middle - start, end - middle);
            let balanced_from = length / 8;
            if left < right {
                was_balanced = left >= balanced_from;
                self.range(start, middle, bad_pivots_allowed);
                start = middle + 1;
            } else {
                was_balanced = right >= balanced_from;
                self.range(middle + 1, end, bad_pivots_allowed);
                end = middle;
            }
        }
    }

    fn insertion(&mut self, start: usize, end: usize) {
        for place in start + 1..end {
            let mut at = place;
            while at > start && self.less(at, at - 1) {
                self.swap(at, at - 1);
                at -= 1;
            }
        }
    }

    fn heap(&mut self, start: usize, end: usize) {
        let length = end - start;
        for root in (0..=(length - 1) / 2).rev() {
            self.sift_down(root, length, start);
        }
        for last in (0..length).rev() {
            self.swap(start, start + last);
            self.sift_down(0, last, start);
        }
    }

    fn sift_down(&mut self, mut root: usize, length: usize, start: usize) {
        loop {
            let mut child = 2 * root + 1;
            if child >= length {
                return;
            }
            if child + 1 < length && self.less(start + child, start + child + 1) {
                child += 1;
            }
            if !self.less(start + root, start + child) {
                return;
            }
            self.swap(start + root, start + child);
            root = child;
        }
    }

    /// Moves three elements about, chosen by a generator that starts from the length.
    fn shuffle(&mut self, start: usize, end: usize) {
        let length = end - start;
        let mut state = length as u64;
        let mask = (1_usize << (usize::BITS - length.leading_zeros())) - 1;
        let middle = start + length / 4 * 2;
        for place in middle - 1..=middle + 1 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut other = state as usize & mask;
            if other >= length {
                other -= length;
            }
            self.swap(place, start + other);
        }
    }

    fn choose_pivot(&self, start: usize, end: usize) -> (usize, Hint) {
        let length = end - start;
        let mut swaps = 0;
        let mut places = [1, 2, 3].map(|quarter| start + length / 4 * quarter);
        if length >= LARGE {
            places = places.map(|place| self.median([place - 1, place, place + 1], &mut swaps));
        }
        let pivot = self.median(places, &mut swaps);
        let hint = match swaps {
            0 => Hint::Rising,
            12 => Hint::Falling,
            _ => Hint::Unknown,
        };
        (pivot, hint)
    }

    /// The place of the median of three.
    fn median(&self, [mut a, mut b, mut c]: [usize; 3], swaps: &mut u32) -> usize {
        let mut order = |left: &mut usize, right: &mut usize| {
            if self.less(*right, *left) {
                *swaps += 1;
                std::mem::swap(left, right);
            }
        };
        order(&mut a, &mut b);
        order(&mut b, &mut c);
        order(&mut a, &mut b);
        b
    }

    fn reverse(&mut self, start: usize, end: usize) {
        if let Some(part) = self.items.get_mut(start..end) {
            part.reverse();
        }
    }

    /// Repairs up to five places of an almost sorted part; whether it then is sorted.
    fn partial_insertion(&mut self, start: usize, end: usize) -> bool {
        let mut place = start + 1;
        for _ in 0..5 {
            while place < end && !self.less(place, place - 1) {
                place += 1;
            }
            if place == end {
                return true;
            }
            if end - start < LARGE {
                return false;
            }
            self.swap(place, place - 1);
            if place - start >= 2 {
                // Down to the slice's start, not the part's: as the reference does it.
                let mut at = place - 1;
                while at >= 1 && self.less(at, at - 1) {
                    self.swap(at, at - 1);
                    at -= 1;
                }
            }
            if end - place >= 2 {
                let mut at = place + 1;
                while at < end && self.less(at, at - 1) {
                    self.swap(at, at - 1);
                    at += 1;
                }
            }
        }
        false
    }

    /// Splits into elements less than the pivot and the others; the pivot's place, and whether nothing had to move.
    fn partition(&mut self, start: usize, end: usize, pivot: usize) -> (usize, bool) {
        self.swap(start, pivot);
        let (mut low, mut high) = (start + 1, end - 1);
        let mut nothing_moved = true;
        loop {
            while low <= high && self.less(low, start) {
                low += 1;
            }
            while low <= high && !self.less(high, start) {
                high -= 1;
            }
            if low > high {
                break;
            }
            nothing_moved = false;
            self.swap(low, high);
            low += 1;
            high -= 1;
        }
        self.swap(high, start);
        (high, nothing_moved)
    }

    /// Splits into elements equal to the pivot and greater ones; the first greater one's place.
    fn partition_equal(&mut self, start: usize, end: usize, pivot: usize) -> usize {
        self.swap(start, pivot);
        let (mut low, mut high) = (start + 1, end - 1);
        loop {
            while low <= high && !self.less(start, low) {
                low += 1;
            }
            while low <= high && self.less(start, high) {
                high -= 1;
            }
            if low > high {
                return low;
            }
            self.swap(low, high);
            low += 1;
            high -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sorts_where_the_comparison_is_an_order(mut items in proptest::collection::vec(0_u16..300, 0..260)) {
            let mut expected = items.clone();
            expected.sort_unstable();
            sort(&mut items, &|left, right| left < right);
            prop_assert_eq!(items, expected);
        }

        #[test]
        fn keeps_all_elements_where_it_is_none(items in proptest::collection::vec((0_u8..9, 0_u8..40), 0..260)) {
            let mut sorted = items.clone();
            sort(&mut sorted, &|left, right| left.0 < right.0 || left.1 < right.1);
            let (mut before, mut after) = (items, sorted);
            before.sort_unstable();
            after.sort_unstable();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn patterns_end_sorted() {
        for length in [0_usize, 1, 12, 13, 49, 50, 51, 200, 255] {
            let patterns: [Box<dyn Fn(usize) -> usize>; 4] = [
                Box::new(|place| place),
                Box::new(move |place| length - place),
                Box::new(|place| place % 2 * 1000 + place),
                Box::new(|place| place ^ 1),
            ];
            for pattern in patterns {
                let mut items: Vec<_> = (0..length).map(pattern).collect();
                sort(&mut items, &|left, right| left < right);
                assert!(items.is_sorted(), "{items:?}");
            }
        }
    }
}
