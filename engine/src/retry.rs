//! When to try again, and whether at all: back-off with jitter, and a budget that keeps retries from becoming load.
//!
//! A back-off spaces the retries of one payment. It cannot bound their sum: ten thousand payments, each waiting its
//! turn politely, are still ten thousand retries. So each processor also has a [`Budget`], a bucket of tokens that
//! its successes fill (a tenth of a token each, by default) beside a small steady trickle. While it answers, retries
//! are all but free; when it has stopped answering, only the trickle is left, and that is what finds out that it is
//! back.
//!
//! Neither knows the clock: the caller adds the delay to its `now`, and passes `now` to the budget.

use crate::random::Random;

/// Exponential back-off: `base`, `base × factor`, `base × factor²`, … up to `max`, each halved and jittered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The delay before the first retry, in milliseconds.
    pub base_ms: u32,
    /// No delay is longer than this, in milliseconds.
    pub max_ms: u32,
    /// How much longer each delay is than the one before it, in per cent: 150 is half as long again. Below 100 is 100.
    pub factor_percent: u32,
}

impl Backoff {
    /// The delay before retry number `attempt`, counted from 0, in microseconds.
    ///
    /// Half of it is fixed and half is chance ("equal jitter"): a spread as wide as the delay would sometimes be no
    /// delay at all, and no spread would keep together the payments that failed together.
    pub fn delay_us(&self, attempt: u32, random: &mut Random) -> u64 {
        let full = self.full_us(attempt);
        let half = full / 2;
        full - half + random.below(half + 1)
    }

    /// The delay without chance: the longest that [`Self::delay_us`] can give.
    #[must_use]
    pub fn full_us(&self, attempt: u32) -> u64 {
        let max = u64::from(self.max_ms) * 1_000;
        let factor = u64::from(self.factor_percent.max(100));
        let mut delay = (u64::from(self.base_ms) * 1_000).min(max);
        for _ in 0..attempt {
            let next = delay.saturating_mul(factor) / 100;
            if next >= max {
                return max;
            }
            if next == delay {
                break;
            }
            delay = next;
        }
        delay
    }
}

/// What fills a [`Budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetConfig {
    /// Retries that a hundred successes allow.
    pub percent_of_successes: u32,
    /// Retries allowed each second, whatever happens.
    pub per_second: u32,
    /// Retries that can be saved up. Also what a new budget holds.
    pub saved_max: u32,
}

impl Default for BudgetConfig {
    /// Ten per cent of the successes and ten each second: at 300 payments a second a healthy processor allows 40
    /// retries a second, and a dead one costs it ten refused connections.
    fn default() -> Self {
        Self { percent_of_successes: 10, per_second: 10, saved_max: 100 }
    }
}

/// How many retries one processor may still be given: a bucket of tokens.
#[derive(Clone, Debug)]
pub struct Budget {
    config: BudgetConfig,
    /// In millionths of a retry, so that one microsecond of one retry per second is a whole number of them.
    saved_micro: u64,
    refilled_at_us: Option<u64>,
}

/// One retry, in the unit of [`Budget::saved_micro`].
const RETRY: u64 = 1_000_000;

impl Budget {
    /// A full budget.
    #[must_use]
    pub fn new(config: BudgetConfig) -> Self {
        Self { config, saved_micro: u64::from(config.saved_max) * RETRY, refilled_at_us: None }
    }

    /// The processor has taken a payment.
    pub fn on_success(&mut self) {
        self.add(u64::from(self.config.percent_of_successes) * (RETRY / 100));
    }

    /// Takes one retry out, if there is one.
    pub fn try_spend(&mut self, now_us: u64) -> bool {
        let since_us = now_us.saturating_sub(self.refilled_at_us.unwrap_or(now_us));
        self.refilled_at_us = Some(now_us.max(self.refilled_at_us.unwrap_or(now_us)));
        self.add(since_us.saturating_mul(u64::from(self.config.per_second)));
        if self.saved_micro < RETRY {
            return false;
        }
        self.saved_micro -= RETRY;
        true
    }

    fn add(&mut self, micro: u64) {
        self.saved_micro =
            self.saved_micro.saturating_add(micro).min(u64::from(self.config.saved_max) * RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base_ms: 10, max_ms: 500, factor_percent: 200 };

    #[test]
    fn delays_double_up_to_the_maximum() {
        let full: Vec<u64> = (0..8).map(|attempt| BACKOFF.full_us(attempt)).collect();
        assert_eq!(full, [10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 500_000, 500_000]);
        assert_eq!(BACKOFF.full_us(u32::MAX), 500_000);
    }

    #[test]
    fn extreme_settings_neither_loop_nor_overflow() {
        let all = Backoff { base_ms: u32::MAX, max_ms: u32::MAX, factor_percent: u32::MAX };
        assert_eq!(all.full_us(u32::MAX), u64::from(u32::MAX) * 1_000);
        let none = Backoff { base_ms: 0, max_ms: 500, factor_percent: 200 };
        assert_eq!(none.delay_us(u32::MAX, &mut Random::new(1)), 0);
        let flat = Backoff { base_ms: 5, max_ms: 500, factor_percent: 0 };
        assert_eq!(flat.full_us(u32::MAX), 5_000);
        let capped = Backoff { base_ms: 700, max_ms: 500, factor_percent: 200 };
        assert_eq!(capped.full_us(0), 500_000);
    }

    #[test]
    fn jitter_takes_away_half_at_most_and_adds_nothing() {
        let mut random = Random::new(3);
        for attempt in 0..10 {
            let full = BACKOFF.full_us(attempt);
            let delays: Vec<u64> = (0..500).map(|_| BACKOFF.delay_us(attempt, &mut random)).collect();
            assert!(delays.iter().all(|delay| (full / 2..=full).contains(delay)), "attempt {attempt}");
            let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
            assert!(most - least > full / 3, "attempt {attempt}: {least} to {most} of {full}");
        }
    }

    fn spend_all(budget: &mut Budget, now_us: u64) -> u32 {
        std::iter::from_fn(|| budget.try_spend(now_us).then_some(())).fold(0, |count, ()| count + 1)
    }

    #[test]
    fn an_outage_costs_what_was_saved_and_then_the_trickle() {
        let mut budget = Budget::new(BudgetConfig { percent_of_successes: 10, per_second: 4, saved_max: 20 });
        assert_eq!(spend_all(&mut budget, 1_000), 20);
        assert_eq!(spend_all(&mut budget, 1_000 + 249_999), 0);
        assert_eq!(spend_all(&mut budget, 1_000 + 250_000), 1);
        assert_eq!(spend_all(&mut budget, 1_000 + 3_250_000), 12);
        assert_eq!(spend_all(&mut budget, 1_000), 0, "a clock that steps back gives nothing");
        assert_eq!(spend_all(&mut budget, 1_000 + 3_250_000), 0, "nor does it give the same time twice");
        assert_eq!(spend_all(&mut budget, u64::MAX), 20, "time saves no more than the maximum");
    }

    #[test]
    fn ten_successes_pay_for_one_retry() {
        let mut budget = Budget::new(BudgetConfig { percent_of_successes: 10, per_second: 0, saved_max: 5 });
        assert_eq!(spend_all(&mut budget, 0), 5);
        (0..9).for_each(|_| budget.on_success());
        assert_eq!(spend_all(&mut budget, 0), 0);
        budget.on_success();
        assert_eq!(spend_all(&mut budget, 0), 1);
        (0..1_000).for_each(|_| budget.on_success());
        assert_eq!(spend_all(&mut budget, 0), 5);
    }
}
