//! What is true of one processor's health checks: who may ask, and when the processor has to let them through.
//!
//! It lets one through per window, whoever asks. What Galo answers for is that leases leave the aggregator an interval
//! apart, across its deaths, and that each check is made on a lease of its own, at once. What happens on the way is not its
//! doing: a check that is held up meets later ones at the processor, which then wait or are refused although each was sent
//! in its time. So a check that comes in time must find the window free, unless a late one may have used it.
//!
//! Must never excuse a check that has no lease, or a lease that came early.

use galo_engine::Processor;

use super::invariant::Invariant;
use super::oracle::Oracle;

/// How much longer than the processor's window the aggregator waits, and so how late a check may be without meeting the
/// next one in its window, µs.
pub const MARGIN_US: u64 = 50_000;

/// See the module's documentation.
#[derive(Default)]
pub struct Leases {
    given_us: Option<u64>,
    /// A check has arrived since the last lease was given.
    used: bool,
    /// Which gateway heard the last lease that was heard, and when, until it asks.
    heard: Option<(usize, u64)>,
    /// A check was late, and none since that was in time found the window free.
    disturbed: bool,
}

impl Leases {
    /// The aggregator gives a lease. Whether it may.
    fn give(&mut self, now_us: u64, interval_us: u64) -> bool {
        self.used = false;
        self.given_us.replace(now_us).is_none_or(|before_us| before_us + interval_us <= now_us)
    }

    /// A gateway hears a lease.
    fn hear(&mut self, gateway: usize, now_us: u64) {
        self.heard = Some((gateway, now_us));
    }

    /// A gateway asks. Whether it may.
    fn ask(&mut self, gateway: usize, now_us: u64) -> bool {
        self.heard.take() == Some((gateway, now_us))
    }

    /// A check arrives and finds the window free or not. Whether that may be.
    fn arrive(&mut self, now_us: u64, is_free: bool) -> bool {
        // The second one after a lease is an older lease's, or the older one's was the first: one of them is late.
        let is_first = !std::mem::replace(&mut self.used, true);
        let in_time = is_first && self.given_us.is_some_and(|given_us| now_us <= given_us + MARGIN_US);
        self.disturbed = !in_time || (self.disturbed && !is_free);
        is_free || self.disturbed
    }
}

impl Oracle {
    /// A lease leaves the aggregator.
    pub fn leased(&mut self, processor: Processor, interval_us: u64) {
        let now_us = self.now_us;
        let holds = self.leases[processor.index()].give(now_us, interval_us);
        self.check(Invariant::OneHealthCheck, holds, || {
            format!("the health of {processor:?} is leased again within an interval")
        });
    }

    /// A lease reaches a gateway.
    pub fn lease_heard(&mut self, processor: Processor, gateway: usize) {
        let now_us = self.now_us;
        self.leases[processor.index()].hear(gateway, now_us);
    }

    /// A check leaves a gateway.
    pub fn check_sent(&mut self, processor: Processor, gateway: usize) {
        let now_us = self.now_us;
        let holds = self.leases[processor.index()].ask(gateway, now_us);
        self.check(Invariant::OneHealthCheck, holds, || {
            format!("gateway {gateway} asks for the health of {processor:?} without a lease")
        });
    }

    /// A check reaches its processor, which answers at once if the window is free.
    pub fn check_arrived(&mut self, processor: Processor, is_free: bool) {
        let now_us = self.now_us;
        let holds = self.leases[processor.index()].arrive(now_us, is_free);
        self.check(Invariant::OneHealthCheck, holds, || {
            format!("a health check of {processor:?} waits or is refused, although none was late")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Leases, MARGIN_US};

    const INTERVAL_US: u64 = 500_000;

    #[test]
    fn leases_are_an_interval_apart() {
        let mut leases = Leases::default();
        assert!(leases.give(7, INTERVAL_US));
        assert!(leases.give(7 + INTERVAL_US, INTERVAL_US));
        assert!(!leases.give(6 + 2 * INTERVAL_US, INTERVAL_US));
    }

    #[test]
    fn one_lease_is_one_check_of_who_heard_it_at_once() {
        let mut leases = Leases::default();
        assert!(!leases.ask(1, 0), "without a lease");
        leases.hear(1, 5);
        assert!(leases.ask(1, 5));
        assert!(!leases.ask(1, 5), "twice");
        leases.hear(1, 5);
        assert!(!leases.ask(2, 5), "another's");
        leases.hear(1, 5);
        assert!(!leases.ask(1, 6), "later");
    }

    #[test]
    fn checks_in_time_find_the_window_free() {
        let mut leases = Leases::default();
        for lease in 1..5 {
            leases.give(lease * INTERVAL_US, INTERVAL_US);
            assert!(leases.arrive(lease * INTERVAL_US + lease % 2 * MARGIN_US, true));
        }
        leases.give(5 * INTERVAL_US, INTERVAL_US);
        assert!(!leases.arrive(5 * INTERVAL_US, false), "nobody else can have used the window");
    }

    #[test]
    fn a_late_check_excuses_those_that_it_meets_until_the_window_is_free() {
        let mut leases = Leases::default();
        leases.give(0, INTERVAL_US);
        assert!(leases.arrive(MARGIN_US + 1, true), "late, and still alone");
        leases.give(INTERVAL_US, INTERVAL_US);
        assert!(leases.arrive(INTERVAL_US, false), "it may have used this window");
        leases.give(2 * INTERVAL_US, INTERVAL_US);
        assert!(leases.arrive(2 * INTERVAL_US, true));
        leases.give(3 * INTERVAL_US, INTERVAL_US);
        assert!(!leases.arrive(3 * INTERVAL_US, false), "that is over");
    }

    #[test]
    fn the_second_check_after_a_lease_is_late() {
        let mut leases = Leases::default();
        leases.give(0, INTERVAL_US);
        leases.give(INTERVAL_US, INTERVAL_US);
        assert!(leases.arrive(INTERVAL_US, true));
        assert!(leases.arrive(INTERVAL_US + MARGIN_US, false), "the first lease's, held up");
        leases.give(2 * INTERVAL_US, INTERVAL_US);
        assert!(leases.arrive(2 * INTERVAL_US, false), "behind it");
    }
}
