//! Chance, from a seed that is passed in: the same seed and the same events give the same decisions.
//!
//! It spreads retries and probes so that two gateways do not knock at the same instant. It must never be used where
//! somebody gains by guessing it.

/// A small seeded generator of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Random(fastrand::Rng);

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Any `u64`, each equally likely.
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number below `bound`, each equally likely; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.u64(..bound) }
    }

    /// `value`, shortened or lengthened by up to `percent` per cent of itself (at most 100), saturating.
    pub fn jitter(&mut self, value: u64, percent: u32) -> u64 {
        let percent = u64::from(percent.min(100));
        let spread = value / 100 * percent + value % 100 * percent / 100;
        let low = value - spread;
        low.saturating_add(self.below(spread.saturating_mul(2).saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_sequence() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [random.next_u64(), random.below(1_000), random.jitter(500, 20)]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn jitter_reaches_both_ends_and_no_further() {
        let mut random = Random::new(1);
        let drawn: Vec<u64> = (0..1_000).map(|_| random.jitter(100, 10)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&90), Some(&110)));
        assert_eq!(random.jitter(100, 0), 100);
        assert_eq!(random.jitter(0, 50), 0);
        assert!(random.jitter(u64::MAX, 1) > u64::MAX / 100 * 98);
    }

    #[test]
    fn below_stays_below() {
        let mut random = Random::new(1);
        let mut seen = [false; 3];
        (0..100).for_each(|_| seen[usize::try_from(random.below(3)).unwrap()] = true);
        assert_eq!(seen, [true; 3]);
        assert_eq!(random.below(0), 0);
    }
}
