//! How payments come in: how many a second, and whether they have stopped.
//!
//! Waiting for the cheaper processor is only worth it while the day goes on: what still waits when the books are closed
//! earns nothing, and nobody announces the end. But the end has a sign, silence. A gateway that got a payment every few
//! milliseconds and then none for a while cannot know whether the next one comes, and had better settle what it holds.
//!
//! What counts as silence depends on what came before: several times the longest pause of the last two seconds in
//! which payments came, and never less than [`QUIET_US_MIN`]. Clients fire in bursts with pauses of tens of
//! milliseconds between them; a shop that sells once a minute is not silent after a second.
//!
//! Two windows rather than averages, so that one long pause is remembered for as long as it matters and no longer. A
//! window ends with the first payment after its second, so a pause is always in one of them.

/// The shortest silence, in microseconds. k6's clients pause for up to 40 ms between two bursts when they are many, and
/// its final comparison comes about a second after the last payment.
pub const QUIET_US_MIN: u64 = 150_000;

/// How many times the longest pause a silence is.
const QUIET_PER_PAUSE: u64 = 4;

const WINDOW_US: u64 = 1_000_000;

/// The last payments that came.
#[derive(Clone, Copy, Default, Debug)]
pub struct Arrivals {
    last_us: Option<u64>,
    current: Window,
    previous: Window,
}

#[derive(Clone, Copy, Default, Debug)]
struct Window {
    since_us: u64,
    count: u64,
    pause_us_max: u64,
}

impl Arrivals {
    /// A payment came.
    pub fn on_arrival(&mut self, now_us: u64) {
        if now_us.saturating_sub(self.current.since_us) >= WINDOW_US {
            self.previous = self.current;
            self.current = Window { since_us: now_us, count: 0, pause_us_max: 0 };
        }
        self.current.count += 1;
        if let Some(last_us) = self.last_us {
            self.current.pause_us_max = self.current.pause_us_max.max(now_us.saturating_sub(last_us));
        }
        self.last_us = Some(now_us);
    }

    /// Payments could not have come until now, so their absence says nothing.
    pub fn on_interruption(&mut self, now_us: u64) {
        if self.last_us.is_some() {
            self.last_us = Some(now_us);
        }
    }

    /// Whether payments came and then stopped.
    #[must_use]
    pub fn is_quiet(&self, now_us: u64) -> bool {
        let pause_us_max = self.current.pause_us_max.max(self.previous.pause_us_max);
        let quiet_us = pause_us_max.saturating_mul(QUIET_PER_PAUSE).max(QUIET_US_MIN);
        self.last_us.is_some_and(|last_us| now_us.saturating_sub(last_us) > quiet_us)
    }

    /// Payments a second, as the busier of the last two windows saw it.
    #[must_use]
    pub fn per_second(&self) -> u64 {
        self.current.count.max(self.previous.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(at_us: impl IntoIterator<Item = u64>) -> Arrivals {
        let mut arrivals = Arrivals::default();
        at_us.into_iter().for_each(|at_us| arrivals.on_arrival(at_us));
        arrivals
    }

    #[test]
    fn before_the_first_payment_there_is_no_silence() {
        assert!(!Arrivals::default().is_quiet(u64::MAX));
        let mut arrivals = Arrivals::default();
        arrivals.on_interruption(5);
        assert!(!arrivals.is_quiet(u64::MAX));
    }

    #[test]
    fn a_busy_gateway_is_quiet_after_the_minimum() {
        let arrivals = came((0..300).map(|index| index * 4_000));
        let last_us = 299 * 4_000;
        assert!(!arrivals.is_quiet(last_us + QUIET_US_MIN));
        assert!(arrivals.is_quiet(last_us + QUIET_US_MIN + 1));
        assert_eq!(arrivals.per_second(), 250);
    }

    #[test]
    fn pauses_between_bursts_are_no_silence() {
        let arrivals = came((0..20).flat_map(|burst| (0..10).map(move |_| burst * 100_000)));
        let last_us = 19 * 100_000;
        assert!(!arrivals.is_quiet(last_us + 400_000));
        assert!(arrivals.is_quiet(last_us + 400_001));
    }

    #[test]
    fn a_shop_that_sells_once_a_minute_is_not_silent_after_three() {
        let arrivals = came((0..5).map(|index| index * 60_000_000));
        assert!(!arrivals.is_quiet(4 * 60_000_000 + 3 * 60_000_000));
        assert!(arrivals.is_quiet(4 * 60_000_000 + 5 * 60_000_000));
    }

    #[test]
    fn a_long_pause_is_forgotten_two_windows_later() {
        let slow_then_fast =
            [0, 10_000_000].into_iter().chain((1..3_000).map(|index| 10_000_000 + index * 1_000));
        let arrivals = came(slow_then_fast);
        assert!(arrivals.is_quiet(10_000_000 + 2_999_000 + QUIET_US_MIN + 1));
    }

    #[test]
    fn an_interruption_is_no_silence() {
        let mut arrivals = came((0..300).map(|index| index * 4_000));
        arrivals.on_interruption(3_000_000);
        assert!(!arrivals.is_quiet(3_000_000 + QUIET_US_MIN));
        assert!(arrivals.is_quiet(3_000_000 + QUIET_US_MIN + 1));
    }
}
