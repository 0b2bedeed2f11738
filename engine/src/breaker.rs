//! A circuit breaker per processor: stops sending to one that fails, and finds out soon when it is back.
//!
//! A story. The default processor's failure switch is thrown while 300 payments a second go to it. The first sixteen
//! come back with 500: the breaker opens, and the router sends what follows elsewhere or lets it wait. A few more were
//! on their way; they are refused too, which costs nothing but their time. Fifty milliseconds later one waiting
//! payment is handed out as a probe. Refused: the next may go after seventy-five, and so on up to a hundred and fifty. Now
//! the processor has been slowed down by four seconds as well, and a probe takes as long to come back. Waiting for it
//! would hide a recovery, so after half a second without an answer another one goes, up to a few at a time. The
//! switch is turned back; the first probe to be taken closes the breaker, and capacity starts small again. Meanwhile
//! the other gateway's probe may have got through first: its news half-opens this breaker at once, and the very next
//! payment is the probe.
//!
//! The algorithm. *Closed*: it opens on `failures_to_open` failures in a row, or when `percent_to_open` of the last
//! [`WINDOW_LEN`] results and at least `failures_to_open` are failures; counted results, no averages, so that a burst is
//! a burst. A refusal costs nothing but its time, so a processor that refuses every second payment is still the better
//! bargain, and the numbers are high. A broken attempt leaves a payment in doubt, and `breaks_to_open` of them in a row
//! are enough. *Open*: nothing passes until the back-off has passed. *Half-open*: single real
//! payments pass, paced by the back-off; `probes_to_close` successes in a row close it, a failure lengthens the
//! back-off. News and late successes shorten the wait, and never let more than a probe through.
//!
//! What it must never do: decide where a payment may go. A payment in doubt stays with its processor, breaker or not.
//! Too much to do is no failure here: such a processor is not broken, and `capacity` deals with it. But one that says for how long it
//! takes nothing *rests*: nothing passes until then, whatever else is heard of it, and then a single payment finds out.

use crate::random::Random;

/// How many of the last results are looked at.
pub const WINDOW_LEN: u32 = 20;

/// No configuration can have more probes outstanding than this.
pub const PROBES_LEN_MAX: usize = 16;

/// What a failure was, as far as the processor's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The processor refused: 500, or no connection.
    Refused,
    /// It did not answer as it should: reset, garbage, no answer in time.
    Broken,
    /// It had too much to do, or the attempt was not made. Says nothing: neither opens the breaker nor closes it.
    Overloaded,
}

/// Where the breaker stands, in the electrical sense.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Passes traffic.
    #[default]
    Closed,
    /// Stops it.
    Open,
    /// Lets probes through, one by one: see [`Breaker::try_probe`].
    HalfOpen,
}

/// The breaker's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it, and the fewest in the window that can.
    pub failures_to_open: u32,
    /// The share of failures in the window that opens it, in per cent.
    pub percent_to_open: u32,
    /// Failures in a row that open it if all of them are [`FailureKind::Broken`].
    pub breaks_to_open: u32,
    /// Probes in a row that must succeed to close it.
    pub probes_to_close: u32,
    /// The back-off before the first probe, in microseconds.
    pub backoff_us_base: u64,
    /// The longest back-off between two probes, in microseconds, before jitter.
    pub backoff_us_max: u64,
    /// By how much one back-off may be shorter or longer than another, in per cent.
    pub jitter_percent: u32,
    /// How long a probe may be without an answer before another one may go, in microseconds.
    pub probe_patience_us: u64,
    /// Probes that may be without an answer at one time, at most [`PROBES_LEN_MAX`].
    pub probes_max: usize,
}

impl Default for BreakerConfig {
    /// Probes are cheap (a refused one costs a request, seven a second and gateway at most) and a recovery noticed late costs
    /// money, all of it if it was the last one of the day: hence an eager base and a short maximum. Ten probes of half a second's patience cover the worst delay seen, five seconds, without a
    /// pause. One success closes: closing wrongly costs sixteen refusals. Sixteen in a row, since a processor that refuses
    /// six payments of ten does that once in 3,500 attempts; one that refuses them all is found out within 50 ms at 300
    /// payments a second.
    fn default() -> Self {
        Self {
            failures_to_open: 16,
            percent_to_open: 90,
            breaks_to_open: 3,
            probes_to_close: 1,
            backoff_us_base: 50_000,
            backoff_us_max: 150_000,
            jitter_percent: 20,
            probe_patience_us: 500_000,
            probes_max: 10,
        }
    }
}

/// The breaker of one processor, in one gateway.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    random: Random,
    circuit: Circuit,
    /// When each outstanding probe was handed out, oldest first; the first `probes_len` count. They outlive changes of
    /// state: a probe is outstanding until its result is in.
    probes: [u64; PROBES_LEN_MAX],
    probes_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Circuit {
    Closed(Window),
    Tripped(Trip),
}

/// The last results while closed. Bit 0 is the latest, a set bit is a failure, or one that was broken.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    failures: u32,
    breaks: u32,
    len: u32,
}

/// An outage.
#[derive(Clone, Copy, Debug)]
struct Trip {
    backoff_us: u64,
    /// When the back-off began: with the trip, or with the last probe.
    backoff_since_us: u64,
    next_probe_at_us: u64,
    probes_succeeded: u32,
    /// Until when it asked to be left alone; 0 if it did not.
    rests_until_us: u64,
}

impl Window {
    fn push(&mut self, result: Result<(), FailureKind>) {
        let within = (1 << WINDOW_LEN) - 1;
        self.failures = (self.failures << 1 | u32::from(result.is_err())) & within;
        self.breaks = (self.breaks << 1 | u32::from(result == Err(FailureKind::Broken))) & within;
        self.len = (self.len + 1).min(WINDOW_LEN);
    }

    fn is_failing(self, config: &BreakerConfig) -> bool {
        let failures = self.failures.count_ones();
        let in_a_row = self.failures.trailing_ones() >= config.failures_to_open
            || self.breaks.trailing_ones() >= config.breaks_to_open;
        in_a_row
            || (failures >= config.failures_to_open && failures * 100 >= self.len * config.percent_to_open)
    }
}

impl Breaker {
    /// A closed breaker. `seed` decides its jitter, and should differ between gateways.
    ///
    /// # Panics
    /// If a count of the configuration is zero, `probes_max` is above [`PROBES_LEN_MAX`], `failures_to_open` or
    /// `breaks_to_open` above [`WINDOW_LEN`], `percent_to_open` above 100, or the base of the back-off above its maximum.
    #[must_use]
    pub fn new(config: BreakerConfig, seed: u64) -> Self {
        assert!((1..=WINDOW_LEN).contains(&config.failures_to_open), "failures_to_open out of range");
        assert!((1..=100).contains(&config.percent_to_open), "percent_to_open out of range");
        assert!((1..=WINDOW_LEN).contains(&config.breaks_to_open), "breaks_to_open out of range");
        assert!(config.probes_to_close >= 1, "probes_to_close out of range");
        assert!((1..=PROBES_LEN_MAX).contains(&config.probes_max), "probes_max out of range");
        assert!(config.backoff_us_base <= config.backoff_us_max, "back-off's base above its maximum");
        Self {
            config,
            random: Random::new(seed),
            circuit: Circuit::Closed(Window::default()),
            probes: [0; PROBES_LEN_MAX],
            probes_len: 0,
        }
    }

    /// An ordinary attempt was taken. While tripped this can only be one that was on its way: it half-opens at once.
    pub fn on_success(&mut self, now_us: u64) {
        match &mut self.circuit {
            Circuit::Closed(window) => window.push(Ok(())),
            Circuit::Tripped(trip) => trip.hasten(now_us),
        }
    }

    /// An ordinary attempt failed. While tripped it says nothing new.
    pub fn on_failure(&mut self, now_us: u64, kind: FailureKind) {
        if kind == FailureKind::Overloaded {
            return;
        }
        if let Circuit::Closed(window) = &mut self.circuit {
            window.push(Err(kind));
            if window.is_failing(&self.config) {
                self.trip(now_us);
            }
        }
    }

    /// How many of a hundred of the last [`WINDOW_LEN`] results were failures, so many of these left out; 0 while it is not closed. Where there were fewer
    /// results, the others are taken for successes: two payments that are refused for ever are all that is known at the start.
    #[must_use]
    pub fn failure_percent(&self, without: u32) -> u32 {
        let Circuit::Closed(window) = &self.circuit else { return 0 };
        let failures = window.failures.count_ones();
        let without = without.min(failures);
        (failures - without) * 100 / (WINDOW_LEN - without).max(1)
    }

    /// Where it stands. Half-open from the moment that a probe may go until the breaker closes, except that a refused
    /// probe opens it again for its back-off.
    #[must_use]
    pub fn state(&self, now_us: u64) -> BreakerState {
        match &self.circuit {
            Circuit::Closed(_) => BreakerState::Closed,
            Circuit::Tripped(trip) if self.probes_len > 0 || now_us >= trip.next_probe_at_us => {
                BreakerState::HalfOpen
            }
            Circuit::Tripped(_) => BreakerState::Open,
        }
    }

    /// Asks to send one payment as a probe. If it says yes, [`Self::on_probe_result`] must follow exactly once.
    #[must_use = "a probe that was handed out must have a result"]
    pub fn try_probe(&mut self, now_us: u64) -> bool {
        if self.next_probe_at_us().is_none_or(|at_us| now_us < at_us) {
            return false;
        }
        let Circuit::Tripped(trip) = &mut self.circuit else { return false };
        trip.wait(now_us, &self.config, &mut self.random);
        self.probes[self.probes_len] = now_us;
        self.probes_len += 1;
        true
    }

    /// The result of one probe.
    ///
    /// # Panics
    /// If none is outstanding: a bug of the caller's.
    pub fn on_probe_result(&mut self, now_us: u64, result: Result<(), FailureKind>) {
        assert!(self.probes_len > 0, "a probe's result without a probe");
        // The latest is struck off, whichever it was that answered: should an older one still hang, its age lets the
        // next probe go at once, while the latest's would hold it back.
        self.probes_len -= 1;
        let Circuit::Tripped(trip) = &mut self.circuit else {
            // Closed meanwhile: an ordinary result.
            match result {
                Ok(()) => self.on_success(now_us),
                Err(kind) => self.on_failure(now_us, kind),
            }
            return;
        };
        match result {
            Ok(()) => {
                trip.probes_succeeded += 1;
                trip.hasten(now_us);
                // One that was on its way when the processor asked to be left alone does not end its rest.
                if trip.probes_succeeded >= self.config.probes_to_close && now_us >= trip.rests_until_us {
                    self.circuit = Circuit::Closed(Window::default());
                }
            }
            // It lives, but there is no room for a payment: neither evidence, and no reason to wait longer.
            Err(FailureKind::Overloaded) => {}
            Err(FailureKind::Refused | FailureKind::Broken) => {
                trip.probes_succeeded = 0;
                // Half as long again, counted from when the last probe went.
                trip.backoff_us = (trip.backoff_us + trip.backoff_us / 2).min(self.config.backoff_us_max);
                trip.wait(trip.backoff_since_us, &self.config, &mut self.random);
            }
        }
    }

    /// What somebody else saw: the other gateway or the health check. Bad news opens the breaker; good news half-opens
    /// it at once, so that the next payment finds out.
    pub fn on_news(&mut self, now_us: u64, failing: bool) {
        match (&mut self.circuit, failing) {
            (Circuit::Closed(_), true) => self.trip(now_us),
            (Circuit::Tripped(trip), false) => {
                trip.backoff_us = self.config.backoff_us_base;
                trip.hasten(now_us);
            }
            (Circuit::Closed(_), false) | (Circuit::Tripped(_), true) => {}
        }
    }

    /// The processor asks to be left alone until then: nothing passes before, and afterwards a probe.
    pub fn on_rest(&mut self, now_us: u64, until_us: u64) {
        if let Circuit::Closed(_) = self.circuit {
            self.trip(now_us);
        }
        if let Circuit::Tripped(trip) = &mut self.circuit {
            trip.rests_until_us = trip.rests_until_us.max(until_us);
            trip.next_probe_at_us = trip.next_probe_at_us.max(until_us);
        }
    }

    /// For how long it asks to be left alone yet, in microseconds.
    #[must_use]
    pub fn rests_us(&self, now_us: u64) -> u64 {
        match &self.circuit {
            Circuit::Closed(_) => 0,
            Circuit::Tripped(trip) => trip.rests_until_us.saturating_sub(now_us),
        }
    }

    /// When [`Self::try_probe`] will next say yes, if nothing happens before. `None` while closed, and while as many
    /// probes as may be are without an answer.
    #[must_use]
    pub fn next_probe_at_us(&self) -> Option<u64> {
        let Circuit::Tripped(trip) = &self.circuit else { return None };
        match self.probes[..self.probes_len] {
            [] => Some(trip.next_probe_at_us),
            [.., latest] if self.probes_len < self.config.probes_max => {
                Some(trip.next_probe_at_us.max(latest.saturating_add(self.config.probe_patience_us)))
            }
            [..] => None,
        }
    }

    fn trip(&mut self, now_us: u64) {
        let mut trip = Trip {
            backoff_us: self.config.backoff_us_base,
            backoff_since_us: now_us,
            next_probe_at_us: now_us,
            probes_succeeded: 0,
            rests_until_us: 0,
        };
        trip.wait(now_us, &self.config, &mut self.random);
        self.circuit = Circuit::Tripped(trip);
    }
}

impl Trip {
    fn wait(&mut self, since_us: u64, config: &BreakerConfig, random: &mut Random) {
        self.backoff_since_us = since_us;
        let pause_us = random.jitter(self.backoff_us, config.jitter_percent);
        self.next_probe_at_us = since_us.saturating_add(pause_us).max(self.rests_until_us);
    }

    fn hasten(&mut self, now_us: u64) {
        self.next_probe_at_us = self.next_probe_at_us.min(now_us.max(self.rests_until_us));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;

    /// Without jitter, so that times can be named.
    const CONFIG: BreakerConfig = BreakerConfig {
        failures_to_open: 3,
        percent_to_open: 50,
        breaks_to_open: 3,
        probes_to_close: 1,
        backoff_us_base: 50_000,
        backoff_us_max: 500_000,
        jitter_percent: 0,
        probe_patience_us: 500_000,
        probes_max: 3,
    };

    fn tripped(config: BreakerConfig, now_us: u64) -> Breaker {
        let mut breaker = Breaker::new(config, 1);
        (0..config.failures_to_open).for_each(|_| breaker.on_failure(now_us, FailureKind::Refused));
        assert_eq!(breaker.state(now_us), BreakerState::Open);
        breaker
    }

    fn results(breaker: &mut Breaker, results: &str) {
        for result in results.chars() {
            match result {
                '.' => breaker.on_success(0),
                _ => breaker.on_failure(0, FailureKind::Broken),
            }
        }
    }

    /// Each way that the last ten results can have gone, against the rule read aloud.
    #[test]
    fn it_opens_on_failures_in_a_row_or_on_half_of_the_window() {
        for bits in 0..1_u32 << 10 {
            let mut breaker = Breaker::new(CONFIG, 1);
            let mut seen = Vec::new();
            let mut opened = false;
            for index in 0..10 {
                let failed = bits >> index & 1 == 1;
                seen.push(failed);
                let failures = seen.iter().filter(|&&failed| failed).count();
                let in_a_row = seen.iter().rev().take_while(|&&failed| failed).count();
                opened |= failed && (in_a_row >= 3 || (failures >= 3 && failures * 2 >= seen.len()));
                results(&mut breaker, if failed { "x" } else { "." });
                let expected = if opened { BreakerState::Open } else { BreakerState::Closed };
                assert_eq!(breaker.state(0), expected, "{bits:b} at {index}");
                if opened {
                    break;
                }
            }
        }
    }

    #[test]
    fn the_share_of_failures_leaves_out_what_it_is_told() {
        let mut breaker = Breaker::new(BreakerConfig::default(), 1);
        assert_eq!(breaker.failure_percent(3), 0);
        results(&mut breaker, "x.");
        assert_eq!((breaker.failure_percent(0), breaker.failure_percent(1)), (5, 0), "18 are yet to come");
        (0..18).for_each(|_| breaker.on_failure(0, FailureKind::Refused));
        assert_eq!(breaker.failure_percent(0), 0, "open");
        let mut breaker = Breaker::new(BreakerConfig::default(), 1);
        results(&mut breaker, "xx.xx.xx.xx.xx.xx.xx");
        assert_eq!((breaker.failure_percent(0), breaker.failure_percent(5)), (70, 60));
        assert_eq!(breaker.failure_percent(u32::MAX), 0);
    }

    #[test]
    fn only_the_last_twenty_results_count() {
        let mut breaker = Breaker::new(BreakerConfig { failures_to_open: 5, breaks_to_open: 5, ..CONFIG }, 1);
        results(&mut breaker, "xx.xx...............");
        results(&mut breaker, "....................");
        results(&mut breaker, "..xx.xx.xx.xx");
        assert_eq!(breaker.state(0), BreakerState::Closed, "8 of 20");
        results(&mut breaker, ".x.x");
        assert_eq!(breaker.state(0), BreakerState::Open, "10 of 20");
    }

    #[test]
    fn a_processor_that_refuses_half_of_all_payments_is_used_and_one_that_breaks_three_is_not() {
        let mut breaker = Breaker::new(BreakerConfig::default(), 1);
        for _ in 0..1_000 {
            (0..4).for_each(|_| breaker.on_failure(0, FailureKind::Refused));
            (0..2).for_each(|_| breaker.on_success(0));
        }
        assert_eq!(breaker.state(0), BreakerState::Closed);
        (0..2).for_each(|_| breaker.on_failure(0, FailureKind::Broken));
        assert_eq!(breaker.state(0), BreakerState::Closed);
        breaker.on_failure(0, FailureKind::Broken);
        assert_eq!(breaker.state(0), BreakerState::Open);
        let mut breaker = Breaker::new(BreakerConfig::default(), 1);
        (0..15).for_each(|_| breaker.on_failure(0, FailureKind::Refused));
        assert_eq!(breaker.state(0), BreakerState::Closed);
        breaker.on_failure(0, FailureKind::Refused);
        assert_eq!(breaker.state(0), BreakerState::Open);
    }

    #[test]
    fn a_lone_failure_among_successes_never_opens_it() {
        let mut breaker = Breaker::new(CONFIG, 1);
        (0..100).for_each(|_| results(&mut breaker, "x......"));
        results(&mut Breaker::new(CONFIG, 1), "x");
        assert_eq!(breaker.state(0), BreakerState::Closed);
    }

    #[test]
    fn too_many_requests_are_no_failure() {
        let mut breaker = Breaker::new(CONFIG, 1);
        (0..100).for_each(|_| breaker.on_failure(0, FailureKind::Overloaded));
        assert_eq!(breaker.state(0), BreakerState::Closed);
    }

    #[test]
    fn a_rest_is_kept_whatever_else_is_heard() {
        let mut breaker = Breaker::new(CONFIG, 1);
        breaker.on_rest(0, 5_000_000);
        assert_eq!((breaker.state(0), breaker.rests_us(1_000_000)), (BreakerState::Open, 4_000_000));
        breaker.on_news(1, false);
        breaker.on_success(2);
        breaker.on_rest(3, 1_000_000);
        assert_eq!(breaker.next_probe_at_us(), Some(5_000_000), "neither good news nor a shorter rest");
        assert!(!breaker.try_probe(4_999_999));
        assert!(breaker.try_probe(5_000_000));
        assert!(!breaker.try_probe(5_000_000), "one at a time");
        // Another one goes while that one hangs; the older one is overloaded, and the younger one is taken all the same.
        assert!(breaker.try_probe(5_500_000));
        breaker.on_probe_result(5_501_000, Err(FailureKind::Overloaded));
        breaker.on_rest(5_501_000, 10_001_000);
        breaker.on_probe_result(5_502_000, Ok(()));
        assert_eq!((breaker.state(5_502_000), breaker.rests_us(5_502_000)), (BreakerState::Open, 4_499_000));
        assert_eq!(breaker.next_probe_at_us(), Some(10_001_000));
        assert!(breaker.try_probe(10_001_000));
        breaker.on_probe_result(10_002_000, Ok(()));
        assert_eq!((breaker.state(10_002_000), breaker.rests_us(10_002_000)), (BreakerState::Closed, 0));
    }

    #[test]
    fn refused_probes_are_paced_by_a_growing_back_off() {
        let mut breaker = tripped(CONFIG, 0);
        let mut gaps = Vec::new();
        let mut last_us = 0;
        for _ in 0..9 {
            let at_us = breaker.next_probe_at_us().unwrap();
            assert!(!breaker.try_probe(at_us - 1));
            assert_eq!(breaker.state(at_us - 1), BreakerState::Open);
            assert_eq!(breaker.state(at_us), BreakerState::HalfOpen);
            assert!(breaker.try_probe(at_us));
            assert!(!breaker.try_probe(at_us), "one at a time");
            breaker.on_probe_result(at_us + 1_000, Err(FailureKind::Refused));
            gaps.push(at_us - last_us);
            last_us = at_us;
        }
        assert_eq!(gaps, [50_000, 75_000, 112_500, 168_750, 253_125, 379_687, 500_000, 500_000, 500_000]);
    }

    #[test]
    fn a_slow_probe_does_not_hide_a_recovery() {
        let mut breaker = tripped(CONFIG, 0);
        assert!(breaker.try_probe(50_000));
        assert!(!breaker.try_probe(549_999));
        assert_eq!(breaker.next_probe_at_us(), Some(550_000));
        assert!(breaker.try_probe(550_000));
        assert!(breaker.try_probe(1_050_000));
        assert_eq!(breaker.next_probe_at_us(), None, "as many as may be");
        assert!(!breaker.try_probe(u64::MAX));
        // The first one answers after all. The others are old enough not to hold back the next.
        breaker.on_probe_result(2_000_000, Err(FailureKind::Refused));
        assert!(breaker.try_probe(2_000_000));
        breaker.on_probe_result(2_001_000, Ok(()));
        assert_eq!(breaker.state(2_001_000), BreakerState::Closed);
        // Two are still on their way, and end as ordinary results.
        breaker.on_probe_result(3_000_000, Err(FailureKind::Broken));
        breaker.on_probe_result(3_000_000, Err(FailureKind::Broken));
        assert_eq!(breaker.state(3_000_000), BreakerState::Closed);
        breaker.on_failure(3_000_000, FailureKind::Broken);
        assert_eq!(breaker.state(3_000_000), BreakerState::Open);
    }

    #[test]
    fn a_probe_that_hangs_holds_back_none_once_another_has_answered() {
        let mut breaker = tripped(CONFIG, 0);
        assert!(breaker.try_probe(50_000));
        assert!(breaker.try_probe(550_000));
        breaker.on_probe_result(551_000, Err(FailureKind::Refused));
        assert_eq!(breaker.next_probe_at_us(), Some(625_000), "the back-off's time, not the patience's");
    }

    #[test]
    #[should_panic(expected = "without a probe")]
    fn a_result_without_a_probe_is_a_bug() {
        tripped(CONFIG, 0).on_probe_result(0, Ok(()));
    }

    #[test]
    fn as_many_probes_must_succeed_in_a_row_as_the_configuration_says() {
        let mut breaker = tripped(BreakerConfig { probes_to_close: 2, ..CONFIG }, 0);
        assert!(breaker.try_probe(50_000));
        breaker.on_probe_result(51_000, Ok(()));
        assert_eq!(breaker.state(51_000), BreakerState::HalfOpen);
        assert!(breaker.try_probe(51_000), "after a success the next goes at once");
        breaker.on_probe_result(52_000, Err(FailureKind::Refused));
        let again_us = breaker.next_probe_at_us().unwrap();
        assert!(breaker.try_probe(again_us));
        breaker.on_probe_result(again_us, Ok(()));
        assert_eq!(breaker.state(again_us), BreakerState::HalfOpen, "the failure started the count again");
        assert!(breaker.try_probe(again_us));
        breaker.on_probe_result(again_us, Ok(()));
        assert_eq!(breaker.state(again_us), BreakerState::Closed);
    }

    #[test]
    fn a_probe_that_finds_no_room_changes_nothing() {
        let mut breaker = tripped(CONFIG, 0);
        assert!(breaker.try_probe(50_000));
        breaker.on_probe_result(51_000, Err(FailureKind::Overloaded));
        assert_eq!(breaker.next_probe_at_us(), Some(100_000));
        assert_eq!(breaker.state(51_000), BreakerState::Open);
    }

    #[test]
    fn bad_news_opens_and_good_news_makes_the_next_payment_a_probe() {
        let mut breaker = Breaker::new(CONFIG, 1);
        breaker.on_news(10, false);
        assert_eq!(breaker.state(10), BreakerState::Closed);
        breaker.on_news(10, true);
        assert_eq!(breaker.state(10), BreakerState::Open);
        assert_eq!(breaker.next_probe_at_us(), Some(50_010));
        breaker.on_news(40_000, true);
        assert_eq!(breaker.next_probe_at_us(), Some(50_010), "bad news about what is known puts nothing off");
        breaker.on_news(41_000, false);
        assert_eq!(breaker.state(41_000), BreakerState::HalfOpen);
        assert!(breaker.try_probe(41_000));
        assert!(!breaker.try_probe(41_000), "and only the next one");
    }

    #[test]
    fn a_late_success_half_opens_and_a_late_failure_changes_nothing() {
        let mut breaker = tripped(CONFIG, 0);
        breaker.on_failure(1_000, FailureKind::Refused);
        assert_eq!(breaker.next_probe_at_us(), Some(50_000));
        breaker.on_success(2_000);
        assert_eq!(breaker.state(2_000), BreakerState::HalfOpen);
    }

    #[test]
    fn jitter_spreads_the_probes_of_two_gateways() {
        let config = BreakerConfig { jitter_percent: 20, ..CONFIG };
        let first = |seed| {
            let mut breaker = Breaker::new(config, seed);
            breaker.on_news(0, true);
            breaker.next_probe_at_us().unwrap()
        };
        let times: HashSet<u64> = (0..50).map(first).collect();
        assert!(times.iter().all(|at_us| (40_000..=60_000).contains(at_us)));
        assert!(times.len() > 40);
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Success,
        Failure,
        Overloaded,
        Probe,
        ProbeSucceeded,
        ProbeFailed,
        GoodNews,
        BadNews,
        Wait,
    }

    const EVENTS: [Event; 9] = [
        Event::Success,
        Event::Failure,
        Event::Overloaded,
        Event::Probe,
        Event::ProbeSucceeded,
        Event::ProbeFailed,
        Event::GoodNews,
        Event::BadNews,
        Event::Wait,
    ];

    /// Everything that the future depends on, with times relative to now and the distant past forgotten.
    fn essence(breaker: &Breaker, now_us: u64) -> impl Eq + std::hash::Hash + use<> {
        let relative = |at_us: u64| i64::try_from(at_us).unwrap() - i64::try_from(now_us).unwrap();
        let circuit = match breaker.circuit {
            Circuit::Closed(Window { failures, breaks, len }) => (Some((failures, breaks, len)), None),
            Circuit::Tripped(trip) => (
                None,
                Some((
                    trip.backoff_us,
                    relative(trip.backoff_since_us).max(-600_000),
                    relative(trip.next_probe_at_us).max(-600_000),
                    trip.probes_succeeded,
                )),
            ),
        };
        let probes: Vec<i64> =
            breaker.probes[..breaker.probes_len].iter().map(|&at_us| relative(at_us).max(-600_000)).collect();
        (circuit, probes)
    }

    /// Walks every state that the events above can reach in steps of 50 ms, and checks in each what must always hold.
    #[test]
    fn every_reachable_state_keeps_the_promises() {
        let config = BreakerConfig {
            failures_to_open: 2,
            percent_to_open: 50,
            breaks_to_open: 2,
            probes_to_close: 2,
            backoff_us_base: 100_000,
            backoff_us_max: 200_000,
            probe_patience_us: 300_000,
            probes_max: 2,
            ..CONFIG
        };
        let start_us = 10_000_000;
        let mut seen = HashSet::new();
        let mut queue = VecDeque::from([(Breaker::new(config, 1), start_us, 0)]);
        let (mut closed, mut open, mut half_open, mut probes) = (0, 0, 0, 0);
        while let Some((breaker, now_us, depth)) = queue.pop_front() {
            if depth > 14 || !seen.insert(essence(&breaker, now_us)) {
                continue;
            }
            match breaker.state(now_us) {
                BreakerState::Closed => {
                    closed += 1;
                    assert_eq!(breaker.next_probe_at_us(), None);
                    assert!(!breaker.clone().try_probe(now_us));
                }
                BreakerState::Open => {
                    open += 1;
                    assert!(!breaker.clone().try_probe(now_us));
                    let at_us =
                        breaker.next_probe_at_us().expect("an open breaker has a time for its next probe");
                    assert!(
                        at_us > now_us && at_us <= now_us + config.backoff_us_max,
                        "it always tries again"
                    );
                    assert!(breaker.clone().try_probe(at_us));
                    assert_eq!(breaker.probes_len, 0);
                }
                BreakerState::HalfOpen => {
                    half_open += 1;
                    let due = breaker.next_probe_at_us().is_some_and(|at_us| at_us <= now_us);
                    assert_eq!(breaker.clone().try_probe(now_us), due);
                    assert!(due || breaker.probes_len > 0, "half-open is probing or about to");
                }
            }
            for event in EVENTS {
                let mut next = breaker.clone();
                let mut next_us = now_us;
                match event {
                    Event::Success => next.on_success(now_us),
                    Event::Failure => next.on_failure(now_us, FailureKind::Refused),
                    Event::Overloaded => {
                        next.on_failure(now_us, FailureKind::Overloaded);
                        assert!(essence(&next, now_us) == essence(&breaker, now_us));
                    }
                    Event::Probe => {
                        if next.try_probe(now_us) {
                            probes += 1;
                            assert!(next.probes_len <= config.probes_max);
                            let again_us = next.next_probe_at_us().unwrap_or(u64::MAX);
                            assert!(again_us >= now_us + config.probe_patience_us, "a fresh probe is alone");
                        }
                    }
                    Event::ProbeSucceeded | Event::ProbeFailed if next.probes_len == 0 => continue,
                    Event::ProbeSucceeded => next.on_probe_result(now_us, Ok(())),
                    Event::ProbeFailed => {
                        next.on_probe_result(now_us, Err(FailureKind::Refused));
                        if breaker.state(now_us) != BreakerState::Closed {
                            assert_ne!(next.state(now_us), BreakerState::Closed);
                        }
                    }
                    Event::GoodNews => {
                        next.on_news(now_us, false);
                        let was_closed = breaker.state(now_us) == BreakerState::Closed;
                        let expected = if was_closed { BreakerState::Closed } else { BreakerState::HalfOpen };
                        assert_eq!(next.state(now_us), expected);
                    }
                    Event::BadNews => {
                        next.on_news(now_us, true);
                        assert_ne!(next.state(now_us), BreakerState::Closed);
                    }
                    Event::Wait => next_us += 50_000,
                }
                queue.push_back((next, next_us, depth + 1));
            }
        }
        assert!(
            closed > 10 && open > 5 && half_open > 100 && probes > 100,
            "{closed} {open} {half_open} {probes}"
        );
    }
}
