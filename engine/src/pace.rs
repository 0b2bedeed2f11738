//! How fast a backlog is drained, so that new payments keep their latency meanwhile.
//!
//! After an outage thousands of payments wait, and the processor takes them all at once. The gateway could send them at
//! once too, and every POST that comes meanwhile would wait behind the writes. So what leaves the queue takes a token
//! from a bucket that time fills: [`PER_SECOND_MIN`] a second, or twice as many as arrive, whichever is more, because a
//! queue that is drained more slowly than it fills never ends. The bucket holds a few milliseconds' worth: bursts stay
//! shorter than what a client notices. And they leave several at a time, [`COMPANY`], so that a frame to the ledger, its answer and
//! a look at the processor's answers serve as many.
//!
//! A payment that finds the queue empty never comes here.

/// The slowest drain, in payments a second: an outage of 20 s at 500 a second, shared by two gateways, in 2.5 s. At
/// 30 µs a payment it takes 6 % of one core.
pub const PER_SECOND_MIN: u64 = 2_000;

/// What the bucket holds, in microseconds of its filling: two of the gateway's looks at a busy queue.
const BURST_US: u64 = 10_000;

/// Payments that leave together. At the slowest drain 4 ms apart, and a tenth of a millisecond of CPU.
const COMPANY: u64 = 8;

/// One payment, in millionths: a microsecond of one payment a second is a whole number of them.
const PAYMENT: u64 = 1_000_000;

/// The bucket. Starts empty: what it would have held is a burst at a moment when nothing is known.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pace {
    saved_micro: u64,
    filled_at_us: u64,
    /// Payments are leaving: until the bucket is empty nobody waits for company.
    is_open: bool,
}

/// Payments that a queue gives off each second while `arriving_per_second` come in.
#[must_use]
pub fn per_second(arriving_per_second: u64) -> u64 {
    (2 * arriving_per_second).max(PER_SECOND_MIN)
}

impl Pace {
    /// Whether one more payment may leave the queue now. It is not taken.
    pub fn has_token(&mut self, now_us: u64, arriving_per_second: u64) -> bool {
        let rate = per_second(arriving_per_second);
        let since_us = now_us.saturating_sub(self.filled_at_us).min(BURST_US);
        self.filled_at_us = self.filled_at_us.max(now_us);
        self.saved_micro = (self.saved_micro + since_us * rate).min(BURST_US * rate);
        self.is_open = self.saved_micro >= if self.is_open { PAYMENT } else { COMPANY * PAYMENT };
        self.is_open
    }

    /// One payment left the queue.
    ///
    /// # Panics
    /// If there was no token for it.
    pub fn take(&mut self) {
        self.saved_micro = self.saved_micro.checked_sub(PAYMENT).expect("a token was asked for before");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(pace: &mut Pace, now_us: u64, arriving_per_second: u64) -> u64 {
        let mut count = 0;
        while pace.has_token(now_us, arriving_per_second) {
            pace.take();
            count += 1;
        }
        count
    }

    #[test]
    fn a_second_gives_its_rate_however_often_it_is_asked() {
        for step_us in [100, 1_000, 5_000, 10_000] {
            let mut pace = Pace::default();
            drained(&mut pace, 1, 0);
            let count: u64 =
                (1..=1_000_000 / step_us).map(|step| drained(&mut pace, 1 + step * step_us, 0)).sum();
            assert_eq!(count, PER_SECOND_MIN, "asked each {step_us} µs");
        }
    }

    #[test]
    fn payments_leave_in_company_however_often_the_bucket_is_looked_at() {
        let mut pace = Pace::default();
        drained(&mut pace, 1, 0);
        let counts: Vec<u64> = (1..=200).map(|step| drained(&mut pace, 1 + step * 100, 0)).collect();
        let (together, alone): (Vec<u64>, Vec<u64>) = counts.iter().partition(|count| **count > 0);
        assert_eq!(together, [COMPANY; 5], "each 4 ms");
        assert_eq!(alone.len(), 195);
    }

    #[test]
    fn a_pause_saves_no_more_than_a_burst() {
        let mut pace = Pace::default();
        assert_eq!(drained(&mut pace, 60_000_000, 0), 20);
        assert_eq!(drained(&mut pace, 60_000_000, 0), 0);
        assert_eq!(drained(&mut pace, 1, 0), 0, "a clock that steps back gives nothing");
    }

    #[test]
    fn a_queue_is_drained_faster_than_it_fills() {
        assert_eq!(per_second(0), PER_SECOND_MIN);
        assert_eq!(per_second(5_000), 10_000);
    }
}
