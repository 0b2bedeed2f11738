//! The six baselines. The plan that each follows is its first sentence; what the plan leaves open is in its constants.

use std::collections::VecDeque;

use galo_engine::PROCESSORS_LEN_MAX;

use super::{Past, Rank, Step, Strategy};
use crate::cluster::dice::Dice;

/// Wait for the cheapest only: a probe each second, and bursts as long as answers take less than 200 ms.
///
/// The probe is a real payment. A failure, or an answer that took longer, ends the burst.
pub struct DefaultOnly {
    bursting: bool,
    next_probe_us: u64,
}

const PROBE_INTERVAL_US: u64 = 1_000_000;
const TRIGGER_US: u64 = 200_000;

impl DefaultOnly {
    /// Bursting, since processors start healthy.
    pub fn new() -> Self {
        Self { bursting: true, next_probe_us: 0 }
    }
}

impl Strategy for DefaultOnly {
    fn route(&mut self, _: &mut Past, _: usize, now_us: u64, _: &mut Dice) -> Step {
        if !self.bursting {
            if now_us < self.next_probe_us {
                return Step::Hold(self.next_probe_us);
            }
            self.next_probe_us = now_us + PROBE_INTERVAL_US;
        }
        Step::Send(0, None)
    }

    fn ended(&mut self, _: Rank, ok: bool, latency_us: u64, now_us: u64) {
        let fine = ok && latency_us < TRIGGER_US;
        if self.bursting && !fine {
            self.next_probe_us = now_us + PROBE_INTERVAL_US;
        }
        self.bursting = fine;
    }
}

/// One processor's breaker: open after 3 failures in 10 s, for 5 s, then one try decides.
#[derive(Default)]
struct Breaker {
    failures_us: VecDeque<u64>,
    open_until_us: Option<u64>,
    trying: bool,
    unhealthy: bool,
}

const BREAKER_FAILURES: usize = 3;
const BREAKER_WINDOW_US: u64 = 10_000_000;
const BREAKER_RECOVERY_US: u64 = 5_000_000;

impl Breaker {
    fn allows(&mut self, now_us: u64) -> bool {
        if self.unhealthy {
            return false;
        }
        match self.open_until_us {
            None => true,
            Some(until_us) if now_us >= until_us && !self.trying => {
                self.trying = true;
                true
            }
            Some(_) => false,
        }
    }

    fn ended(&mut self, ok: bool, now_us: u64) {
        if self.open_until_us.is_some() {
            // Of the one try, or of what was on its way when it opened.
            if ok {
                *self = Self { unhealthy: self.unhealthy, ..Self::default() };
            } else if self.trying {
                self.trying = false;
                self.open_until_us = Some(now_us + BREAKER_RECOVERY_US);
            }
            return;
        }
        if !ok {
            self.failures_us.push_back(now_us);
            while self.failures_us.pop_front_if(|at_us| *at_us + BREAKER_WINDOW_US < now_us).is_some() {}
            if self.failures_us.len() >= BREAKER_FAILURES {
                self.open_until_us = Some(now_us + BREAKER_RECOVERY_US);
                self.trying = false;
            }
        }
    }
}

/// A health check each 5 s and a breaker of 3 failures in 10 s with 5 s recovery; then the next dearer one, then backoff.
///
/// Each processor has both. A payment that failed at one goes to the next at once; when none may be used, or
/// all failed it, it pauses from 100 ms, doubling, to 2 s.
#[derive(Default)]
pub struct Breakers {
    breakers: [Breaker; PROCESSORS_LEN_MAX],
}

const BACKOFF_US: u64 = 100_000;
const BACKOFF_US_MAX: u64 = 2_000_000;

fn backoff_us(pauses: u32) -> u64 {
    (BACKOFF_US << pauses.min(10)).min(BACKOFF_US_MAX)
}

impl Strategy for Breakers {
    fn checks_health(&self) -> bool {
        true
    }

    fn route(&mut self, past: &mut Past, count: usize, now_us: u64, _: &mut Dice) -> Step {
        for rank in 0..count {
            if past.failures[rank] == 0 && self.breakers[rank].allows(now_us) {
                return Step::Send(rank, None);
            }
        }
        past.failures = Past::default().failures;
        Step::Later(backoff_us(past.pauses))
    }

    fn ended(&mut self, rank: Rank, ok: bool, _: u64, now_us: u64) {
        self.breakers[rank].ended(ok, now_us);
    }

    fn checked(&mut self, rank: Rank, failing: bool, _: u32) {
        self.breakers[rank].unhealthy = failing;
    }
}

/// Half-open with 30 % random tries, and three retries with doubling delay before the dearer ones.
///
/// The breaker opens after three failures in a row; half a second later it is half-open: each try at the cheapest goes through
/// in 30 of 100 cases, and counts as failed in the others; a success closes it. Pauses of 100, 200 and 400 ms lie between
/// a payment's four tries; then each dearer one once, and if all fail a pause of 800 ms and all over again.
#[derive(Default)]
pub struct HalfOpenTries {
    failures_in_a_row: u32,
    open_until_us: Option<u64>,
}

const HALF_OPEN_AFTER_US: u64 = 500_000;
const HALF_OPEN_PERMILLE: u64 = 300;
const RETRIES: u32 = 3;

/// The cheapest has had its tries: the next one that has not failed, or after a pause all over again.
fn dearer_once(past: &mut Past, count: usize, pause_us: u64) -> Step {
    match (1..count).find(|rank| past.failures[*rank] == 0) {
        Some(rank) => Step::Send(rank, None),
        None => {
            *past = Past::default();
            Step::Later(pause_us)
        }
    }
}

impl Strategy for HalfOpenTries {
    fn route(&mut self, past: &mut Past, count: usize, now_us: u64, dice: &mut Dice) -> Step {
        if past.failures[0] > RETRIES {
            return dearer_once(past, count, 8 * BACKOFF_US);
        }
        // After each failed try but the last, one pause.
        if past.pauses < past.failures[0] {
            return Step::Later(BACKOFF_US << past.pauses);
        }
        let allowed = match self.open_until_us {
            None => true,
            Some(until_us) => now_us >= until_us && dice.chance(HALF_OPEN_PERMILLE),
        };
        if allowed {
            return Step::Send(0, None);
        }
        past.failures[0] += 1;
        if past.failures[0] > RETRIES {
            dearer_once(past, count, 8 * BACKOFF_US)
        } else {
            Step::Later(BACKOFF_US << past.pauses)
        }
    }

    fn ended(&mut self, rank: Rank, ok: bool, _: u64, now_us: u64) {
        if rank > 0 {
            return;
        }
        if ok {
            *self = Self::default();
            return;
        }
        self.failures_in_a_row += 1;
        if self.failures_in_a_row >= 3 {
            self.open_until_us = Some(now_us + HALF_OPEN_AFTER_US);
        }
    }
}

/// A 300 ms timeout to the next dearer one, with a queue of 20,000.
///
/// The cheapest first, each time; after 300 ms or a failure the next, and so on to the dearest, which is waited for; if that fails, the cheapest again after
/// 100 ms. A payment that timed out at one may be processed there as well: that is counted, not prevented.
#[derive(Default)]
pub struct ShortTimeout;

const SHORT_TIMEOUT_US: u64 = 300_000;

impl Strategy for ShortTimeout {
    fn queue_len_max(&self) -> usize {
        20_000
    }

    fn route(&mut self, past: &mut Past, count: usize, _: u64, _: &mut Dice) -> Step {
        match (0..count).find(|rank| past.failures[*rank] == 0) {
            Some(rank) => Step::Send(rank, (rank + 1 < count).then_some(SHORT_TIMEOUT_US)),
            None => {
                *past = Past::default();
                Step::Later(BACKOFF_US)
            }
        }
    }

    fn ended(&mut self, _: Rank, _: bool, _: u64, _: u64) {}
}

/// Five tries at the cheapest half a second apart, then the dearer ones.
///
/// Each of them once; if all fail, all over again after half a second.
#[derive(Default)]
pub struct FiveTries;

const TRIES: u32 = 5;
const TRIES_APART_US: u64 = 500_000;

impl Strategy for FiveTries {
    fn route(&mut self, past: &mut Past, count: usize, _: u64, _: &mut Dice) -> Step {
        if past.failures[0] >= TRIES {
            dearer_once(past, count, TRIES_APART_US)
        } else if past.pauses < past.failures[0] {
            Step::Later(TRIES_APART_US)
        } else {
            Step::Send(0, None)
        }
    }

    fn ended(&mut self, _: Rank, _: bool, _: u64, _: u64) {}
}

/// Latency comparison: a dearer one when the cheaper is three times slower.
///
/// Latency is a moving average of the answers, or what the health check says where that is more recent, and never below
/// 10 ms, so that noise decides nothing. A processor that failed a payment or its check counts as out until the next check
/// or success; while all are out, one payment in 100 ms tries the cheapest.
pub struct LatencyComparison {
    latency_us: [u64; PROCESSORS_LEN_MAX],
    out: [bool; PROCESSORS_LEN_MAX],
    next_try_us: u64,
}

const LATENCY_FLOOR_US: u64 = 10_000;
const SLOWER_TIMES: u64 = 3;

impl LatencyComparison {
    /// All fast.
    pub fn new() -> Self {
        Self {
            latency_us: [LATENCY_FLOOR_US; PROCESSORS_LEN_MAX],
            out: [false; PROCESSORS_LEN_MAX],
            next_try_us: 0,
        }
    }
}

impl Strategy for LatencyComparison {
    fn checks_health(&self) -> bool {
        true
    }

    fn route(&mut self, _: &mut Past, count: usize, now_us: u64, _: &mut Dice) -> Step {
        let latency_us = |rank: Rank| self.latency_us[rank].max(LATENCY_FLOOR_US);
        let present = (0..count).filter(|rank| !self.out[*rank]);
        let better = |best: Rank, rank: Rank| {
            if latency_us(best) > SLOWER_TIMES * latency_us(rank) { rank } else { best }
        };
        if let Some(rank) = present.reduce(better) {
            return Step::Send(rank, None);
        }
        if now_us < self.next_try_us {
            return Step::Hold(self.next_try_us);
        }
        self.next_try_us = now_us + BACKOFF_US;
        Step::Send(0, None)
    }

    fn ended(&mut self, rank: Rank, ok: bool, latency_us: u64, _: u64) {
        self.out[rank] = !ok;
        if ok {
            self.latency_us[rank] = (self.latency_us[rank] * 7 + latency_us) / 8;
        }
    }

    fn checked(&mut self, rank: Rank, failing: bool, response_ms: u32) {
        self.out[rank] = failing;
        self.latency_us[rank] = u64::from(response_ms) * 1_000;
    }
}
