//! Chance for the simulator: everything that a seed decides is drawn here, in the order in which it is asked for.
//!
//! Must never be drawn from in an order that depends on memory addresses, hash tables' order or the wall clock: one
//! seed is one run.

use galo_engine::random::Random;

/// A seeded source of decisions.
pub struct Dice(Random);

impl Dice {
    /// The same seed gives the same decisions.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds shall have nothing in common.
        Self(Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    /// Yes, in so many cases of a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        permille > 0 && self.0.below(1000) < permille
    }

    /// Yes, in one case of so many.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.0.below(count) == 0
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.0.below(len as u64)).expect("below a length")
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.index(list.len())]
    }

    /// Mostly short, sometimes up to `max`: each magnitude is equally likely.
    pub fn skewed(&mut self, max: u64) -> u64 {
        let bits = 64 - max.leading_zeros();
        let drawn = self.between(0, u64::from(bits));
        self.0.below(max.min((1_u64 << drawn.min(63)) - 1) + 1)
    }
}
