//! Numbers that look random and are the same each time: SplitMix64 (Steele, Lea and Flood, 2014).

/// Dice that always fall alike from the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `count`; 0 where `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.roll() % count).unwrap_or(0)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these; the first where there is only one.
    ///
    /// # Panics
    /// Where there is none.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }

    /// Bytes, `N` of them.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut one, mut same, mut other) = (Dice::new(1), Dice::new(1), Dice::new(2));
        let rolls = |dice: &mut Dice| (0..8).map(|_| dice.roll()).collect::<Vec<_>>();
        let first = rolls(&mut one);
        assert_eq!(first, rolls(&mut same));
        assert_ne!(first, rolls(&mut other));
    }

    #[test]
    fn every_side_falls() {
        let mut dice = Dice::new(3);
        let mut seen = [0_u32; 6];
        (0..600).for_each(|_| seen[dice.below(6)] += 1);
        assert!(seen.iter().all(|count| (60..140).contains(count)), "{seen:?}");
        assert_eq!((dice.below(1), dice.below(0)), (0, 0));
    }
}
