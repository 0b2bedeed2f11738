//! What one gateway thread knows of one processor: breaker, capacity, response times, attempts on their way.
//!
//! The place where observations become a [`View`] for the router. Sources: every answer and its latency, attempts that
//! take longer than expected (a slow processor is noticed before its first answer), what others saw.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::breaker::{Breaker, BreakerConfig, BreakerState, FailureKind};
use crate::capacity::{Capacity, Release};
use crate::latency::Latency;
use crate::rate::{Rate, RateLimit, Use};
use crate::router::{Thresholds, View};
use crate::silence::Silence;
use crate::time::Now;
use crate::verdict::{End, Verdict};

/// A processor that says it has too much to do, but not until when, so often in a row, is left alone as well: for this long, and twice as long
/// each time that its first answer afterwards is the same.
const OVERLOADS_TO_REST: u32 = 3;
const REST_US: RangeInclusive<u64> = 100_000..=1_000_000;

/// Sorting the latency window takes half a microsecond: once a millisecond, not twice a payment.
const EXPECTATION_AGE_US_MAX: u64 = 1_000;

/// A slow processor gets a single payment this often, so that its recovery is seen: an eighth of the time for which it has
/// been slow, within these bounds. Each is a payment that an auditor may catch half-way, hence seldom; the longer it has been slow
/// the more of them were in vain, and the health check, each 5.1 s, says the same for nothing.
const TRICKLE_US: RangeInclusive<u64> = 1_000_000..=4_000_000;

/// How many attempts a slow processor may be holding for the trickle to go on.
const TRICKLE_COUNT_MAX: usize = 4;

/// Fast answers in a row, each to an attempt sent after those before it, after which a slow processor is slow no more.
const FAST_IN_A_ROW: u32 = 3;

/// The bounds of an outlook.
#[derive(Clone, Copy, Debug)]
pub struct OutlookConfig {
    /// Attempts in flight at most, those that hang included: the hard limit, and the bound on sockets.
    pub concurrency_max: u32,
    /// Requests a second; `None`: no limit.
    pub rate: Option<RateLimit>,
    /// See there.
    pub thresholds: Thresholds,
}

impl OutlookConfig {
    /// Attempts that may hang before the processor counts as not working: three quarters of all, so that some are left for finding out
    /// when it works again. At 150 payments a second over two gateways, a tenth of which hang for 30 s, they are 225 of 400.
    const fn hanging_max(&self) -> u32 {
        let max = self.concurrency_max / 4 * 3;
        if max == 0 { 1 } else { max }
    }
}

/// What waits for a processor.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// Payments.
    pub len: usize,
    /// How many of them may leave the queue each second: [`crate::pace`].
    pub per_second: u64,
}

impl Backlog {
    /// How long sending it takes a processor that answers after `expected_us` and takes `places` at a time, µs.
    fn drain_us(self, expected_us: u64, places: u32) -> u64 {
        let len = self.len as u64;
        let by_places = len.saturating_mul(expected_us) / u64::from(places);
        by_places.max(len.saturating_mul(1_000_000) / self.per_second.max(1))
    }
}

/// An attempt on its way.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    slot: u32,
    sent_us: u64,
}

/// See the module's documentation.
pub struct Outlook {
    config: OutlookConfig,
    breaker: Breaker,
    capacity: Capacity,
    rate: Option<Rate>,
    latency: Latency,
    /// What the latency window said last, and until when that is good enough.
    answered_us: Option<u64>,
    answered_until_us: u64,
    /// In the order of sending, and so by time: searched by halving.
    outstanding: VecDeque<Outstanding>,
    /// How many of them, the first ones, hang: they were awaited for longer than answers take.
    hanging_len: usize,
    /// Of all that was sent over connections that were open then.
    silence: Silence,
    /// Payments that it took since the start, modulo 2^32.
    successes: u32,
    /// Declines since it took one.
    declines_in_a_row: u32,
    /// Answers in a row that said it has too much to do.
    overloads: u32,
    /// When the last place was taken. Not when its attempt was sent: until then others must not think it due.
    reserved_at_us: u64,
    /// When the most recent attempt was sent that failed or has been silent for long.
    bad_sent_us: Option<u64>,
    /// Since when the breaker has been closed.
    closed_since_us: u64,
    /// When somebody last said that it works, while it was not known to, µs.
    good_news_us: u64,
    /// What is expected while no answer is recent enough: what the health check said, or real payments after it, µs.
    check_us: u64,
    /// When the health check said something.
    checked_at_us: u64,
    /// Fast answers since the last slow one.
    fast_in_a_row: u32,
    /// When the most recent attempt was sent that was answered fast.
    fast_sent_us: u64,
    /// What the other gateways were told last, or told us: too slow for new payments.
    known_slow: bool,
    /// Since when it is too slow for new payments; in the far future while it is not.
    slow_since_us: u64,
}

/// A place that was taken for an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reservation {
    /// The breaker is closed.
    Regular,
    /// A single payment that finds out whether the processor works again.
    Probe,
}

/// An attempt that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// When.
    pub at_us: u64,
    /// As what.
    pub reservation: Reservation,
}

/// A change of a processor's state that the other gateways should hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It stopped working.
    Failed,
    /// It works again.
    Recovered,
    /// It became too slow for new payments, or fast again.
    Pace,
}

impl Outlook {
    /// Nothing is known: the processor is taken to work.
    #[must_use]
    pub fn new(config: OutlookConfig, seed: u64) -> Self {
        let limit_start = config.concurrency_max.min(32);
        Self {
            config,
            breaker: Breaker::new(BreakerConfig::default(), seed),
            capacity: Capacity::new(config.concurrency_max.min(4), limit_start, config.concurrency_max),
            rate: config.rate.map(Rate::new),
            latency: Latency::new(),
            answered_us: None,
            answered_until_us: 0,
            outstanding: VecDeque::with_capacity(config.concurrency_max as usize * 2),
            hanging_len: 0,
            silence: Silence::default(),
            successes: 0,
            declines_in_a_row: 0,
            overloads: 0,
            reserved_at_us: 0,
            bad_sent_us: None,
            closed_since_us: 0,
            good_news_us: 0,
            check_us: 0,
            checked_at_us: 0,
            fast_in_a_row: 0,
            fast_sent_us: 0,
            known_slow: false,
            slow_since_us: u64::MAX,
        }
    }

    /// What is fast enough from now on.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.config.thresholds = thresholds;
    }

    /// How many requests a second it may be sent from now on.
    pub fn set_rate(&mut self, limit: Option<RateLimit>) {
        match (&mut self.rate, limit) {
            (Some(rate), Some(limit)) => rate.set_limit(limit),
            (rate, limit) => *rate = limit.map(Rate::new),
        }
    }

    /// The breaker's state.
    pub fn breaker_state(&mut self, now: Now) -> BreakerState {
        self.breaker.state(now.monotonic_us)
    }

    /// Whether the breaker that is not closed would let a probe through.
    pub(crate) fn is_probe_due(&mut self, now: Now) -> bool {
        self.breaker_state(now) != BreakerState::Closed
            && self.has_room(now)
            && self.breaker.next_probe_at_us().is_some_and(|at| at <= now.monotonic_us)
    }

    /// One more payment fits both its concurrency limit and its rate.
    fn has_room(&mut self, now: Now) -> bool {
        self.capacity.has_room() && self.has_token(Use::Payment, now)
    }

    fn has_token(&mut self, purpose: Use, now: Now) -> bool {
        self.rate.as_mut().is_none_or(|rate| rate.has_token(purpose, now.monotonic_us))
    }

    /// Notes that a payment waits for a token, or goes elsewhere for want of one; false if that is not what it lacks.
    pub fn want_token(&mut self, now: Now) -> bool {
        let is_wanted = self.capacity.has_room() && !self.has_token(Use::Payment, now);
        if let Some(rate) = self.rate.as_mut().filter(|_| is_wanted) {
            rate.want(Use::Payment, now.monotonic_us);
        }
        is_wanted
    }

    /// When its rate lets the next request through, µs; not after now if it does so already.
    #[must_use]
    pub fn next_token_us(&self) -> u64 {
        self.rate.as_ref().map_or(0, Rate::next_us)
    }

    /// The concurrency limit now.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.capacity.limit()
    }

    /// Attempts on their way, or about to be.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.capacity.in_flight() + self.capacity.hanging()
    }

    /// Those of them that hang: later than what its answers take.
    #[must_use]
    pub fn hanging(&self) -> u32 {
        self.capacity.hanging()
    }

    /// Payments that it took since the start, modulo 2^32: whether it took any since a moment, that is whether this is another number than then, is what tells a
    /// processor's trouble from a payment's.
    #[must_use]
    pub fn successes(&self) -> u32 {
        self.successes
    }

    /// Declines since it took a payment.
    #[must_use]
    pub fn declines_in_a_row(&self) -> u32 {
        self.declines_in_a_row
    }

    /// How many of a hundred attempts it refused lately, or left in doubt, so many of them left out; 0 while its breaker is not closed.
    #[must_use]
    pub fn refused_percent(&self, without: u32) -> u32 {
        self.breaker.failure_percent(without)
    }

    /// For how long it asks to be left alone yet, µs.
    #[must_use]
    pub fn rests_us(&self, now: Now) -> u64 {
        self.breaker.rests_us(now.monotonic_us)
    }

    /// How long an attempt sent now would take, µs: what answers took, or longer if one is still awaited.
    pub fn expected_us(&mut self, now: Now) -> u64 {
        self.answered_us(now).max(self.awaited_us(now))
    }

    /// What answers took lately, or the health check says, µs.
    fn answered_us(&mut self, now: Now) -> u64 {
        if now.monotonic_us >= self.answered_until_us {
            self.answered_us = self.latency.expected_us(now.monotonic_us);
            self.answered_until_us = now.monotonic_us + EXPECTATION_AGE_US_MAX;
        }
        self.answered_us.unwrap_or(self.check_us)
    }

    /// For how long the oldest attempt has been awaited, µs. One from before the last good news says how the processor was, not how
    /// it is.
    fn awaited_us(&self, now: Now) -> u64 {
        let known_us = if self.check_us <= self.config.thresholds.slow_us {
            self.fast_sent_us.max(self.checked_at_us)
        } else {
            self.fast_sent_us
        };
        let first = self.outstanding.partition_point(|outstanding| outstanding.sent_us < known_us);
        self.outstanding.get(first).map_or(0, |oldest| now.monotonic_us.saturating_sub(oldest.sent_us))
    }

    /// When it was last said, or seen, to work again, µs; 0 where it does not, and no probe is due.
    pub fn back_since_us(&mut self, now: Now) -> u64 {
        match self.breaker.state(now.monotonic_us) {
            BreakerState::Closed => self.closed_since_us,
            _ if self.is_probe_due(now) => self.good_news_us,
            _ => 0,
        }
    }

    /// What the router is to know. `backlog` waits for this processor.
    pub fn view(&mut self, now: Now, backlog: Backlog) -> View {
        let now_us = now.monotonic_us;
        let is_closed = self.breaker.state(now_us) == BreakerState::Closed;
        let answered_us = self.answered_us(now);
        let awaited_us = self.awaited_us(now);
        let expected_us = answered_us.max(awaited_us);
        let hang_after_us = self.config.thresholds.silent_us.max(2 * answered_us);
        let silent = awaited_us > hang_after_us;
        let slow = silent || expected_us > self.config.thresholds.slow_us;
        self.slow_since_us = if slow { self.slow_since_us.min(now_us) } else { u64::MAX };
        self.notice_silence(now, hang_after_us);
        self.silence.look(awaited_us, answered_us, now_us);
        let too_many_hang = self.capacity.hanging() >= self.config.hanging_max();
        let closed = is_closed && !too_many_hang;
        let has_capacity = self.has_room(now);
        let sent_before = self.outstanding.partition_point(|it| it.sent_us < self.slow_since_us);
        let slow_for_us = now_us.saturating_sub(self.slow_since_us);
        let trickle_us = (slow_for_us / 8).clamp(*TRICKLE_US.start(), *TRICKLE_US.end());
        let trickle_ready = now_us.saturating_sub(self.reserved_at_us) >= trickle_us
            && self.outstanding.len() - sent_before < TRICKLE_COUNT_MAX
            && has_capacity;
        View {
            closed,
            slow,
            silent,
            has_capacity,
            probe_ready: if is_closed {
                (slow || too_many_hang) && trickle_ready
            } else {
                self.is_probe_due(now)
            },
            rests_us: self.breaker.rests_us(now_us),
            bad_ago_us: self.bad_sent_us.map_or(u64::MAX, |sent_us| now_us.saturating_sub(sent_us)),
            worked_us: if closed { now_us.saturating_sub(self.closed_since_us) } else { 0 },
            // Of the others an outlook knows nothing: the dispatcher does.
            others_worked_us: 0,
            drain_us: backlog
                .drain_us(expected_us, self.capacity.reachable())
                .max(self.rate.as_ref().map_or(0, |rate| rate.drain_us(backlog.len as u64))),
            expected_us,
        }
    }

    /// Takes a place for an attempt: a regular one, or a probe while the breaker is not closed.
    pub fn try_reserve(&mut self, purpose: Use, now: Now) -> Option<Reservation> {
        // First: a limit that grows when it is met says nothing of a rate that is.
        if !self.may_ask(purpose, now) || !self.capacity.try_acquire() {
            return None;
        }
        self.reserved_at_us = now.monotonic_us;
        let reservation = if self.breaker.state(now.monotonic_us) == BreakerState::Closed {
            Reservation::Regular
        } else if self.breaker.try_probe(now.monotonic_us) {
            Reservation::Probe
        } else {
            self.capacity.release(Release::Neutral);
            return None;
        };
        let is_taken = self.take_token(purpose, now);
        assert!(is_taken, "there was a token");
        Some(reservation)
    }

    /// Takes a token for a request that takes no place.
    fn take_token(&mut self, purpose: Use, now: Now) -> bool {
        self.rate.as_mut().is_none_or(|rate| rate.try_take(purpose, now.monotonic_us))
    }

    /// Whether its rate lets one more request through. If not, the next but one is this one's.
    pub fn may_ask(&mut self, purpose: Use, now: Now) -> bool {
        let may_ask = self.has_token(purpose, now);
        if let Some(rate) = self.rate.as_mut().filter(|_| !may_ask) {
            rate.want(purpose, now.monotonic_us);
        }
        may_ask
    }

    /// A look-up is on its way, which takes no place.
    ///
    /// # Panics
    /// If its rate did not let it through: see [`Self::may_ask`].
    pub fn asked(&mut self, now: Now) {
        let is_taken = self.take_token(Use::Doubt, now);
        assert!(is_taken, "there was a token");
    }

    /// Gives back a place whose attempt was never sent.
    pub fn cancel(&mut self, reservation: Reservation, now: Now) {
        self.capacity.release(Release::Neutral);
        if let Some(rate) = &mut self.rate {
            rate.give_back();
        }
        if reservation == Reservation::Probe {
            self.breaker.on_probe_result(now.monotonic_us, Err(FailureKind::Overloaded));
        }
    }

    /// A reserved attempt is on its way.
    pub fn sent(&mut self, slot: u32, now: Now) {
        self.outstanding.push_back(Outstanding { slot, sent_us: now.monotonic_us });
    }

    /// A sent attempt ended. A failure is held against the processor only if it `is_evidence`: not if the payment fails there while others do not.
    pub fn ended(
        &mut self,
        slot: u32,
        sent: Sent,
        end: End,
        latency_us: u64,
        is_evidence: bool,
        now: Now,
    ) -> Option<Change> {
        let hung = self.forget_outstanding(slot, sent);
        let before = self.breaker.state(now.monotonic_us);
        // `None`: it says something of the payment, and nothing of the processor.
        let (release, result) = match end.verdict {
            Verdict::Processed | Verdict::Pending => (Release::Success, Some(Ok(()))),
            // Whether it has what it says it has, the look-up tells: `learned`.
            Verdict::Duplicate if sent.reservation == Reservation::Probe => (Release::Success, Some(Ok(()))),
            Verdict::Duplicate | Verdict::Declined => (Release::Success, None),
            // One payment's limit is not the processor's.
            Verdict::Overloaded if !is_evidence => (Release::Neutral, None),
            Verdict::Overloaded => (Release::Overload, Some(Err(FailureKind::Overloaded))),
            Verdict::Unavailable | Verdict::NotSent => (Release::Neutral, Some(Err(FailureKind::Refused))),
            Verdict::Unknown => (Release::Neutral, Some(Err(FailureKind::Broken))),
        };
        self.capacity.release(if hung { Release::Hanging } else { release });
        if end.status != 0 {
            self.silence.answered(sent.at_us);
        }
        if release == Release::Success {
            match end.verdict {
                Verdict::Processed | Verdict::Pending => {
                    (self.successes, self.declines_in_a_row) = (self.successes.wrapping_add(1), 0)
                }
                Verdict::Declined => self.declines_in_a_row = self.declines_in_a_row.saturating_add(1),
                _ => {}
            }
            self.overloads = 0;
            self.answered(sent.at_us, latency_us, now);
        }
        if matches!(end.verdict, Verdict::Processed | Verdict::Pending) && self.silence.awaits_proof() {
            let longest_us = self.latency.percentile_us(now.monotonic_us, 100).unwrap_or(latency_us);
            self.silence.taken(sent.at_us, longest_us, now.monotonic_us);
        }
        // The end of an attempt that hung says how the processor was; those that were answered since say how it is.
        let is_old_news = hung && sent.at_us < self.fast_sent_us;
        let result = result.filter(|result| result.is_ok() || (is_evidence && !is_old_news));
        if let Some(Err(_)) = result {
            self.bad_sent_us = self.bad_sent_us.max(Some(sent.at_us));
        }
        match (sent.reservation, result) {
            (Reservation::Probe, result) => {
                // One that declines payment after payment is not to be asked as often as one that had no room.
                let declines_all = end.verdict == Verdict::Declined && self.declines_in_a_row > 1;
                let nothing = if declines_all { FailureKind::Refused } else { FailureKind::Overloaded };
                let result = result.unwrap_or(Err(nothing));
                self.breaker.on_probe_result(now.monotonic_us, result);
            }
            (Reservation::Regular, Some(Ok(()))) => self.breaker.on_success(now.monotonic_us),
            (Reservation::Regular, Some(Err(kind))) => self.breaker.on_failure(now.monotonic_us, kind),
            (Reservation::Regular, None) => {}
        }
        if end.verdict == Verdict::Overloaded && is_evidence {
            self.overloaded(end.retry_after_ms, now);
        }
        self.change(before, now)
    }

    /// What came out later about an answer that said nothing of the processor: that it took the payment, or that it refuses what it should take.
    pub fn learned(&mut self, taken: bool, now: Now) -> Option<Change> {
        let before = self.breaker.state(now.monotonic_us);
        if taken {
            self.breaker.on_success(now.monotonic_us);
        } else {
            self.breaker.on_failure(now.monotonic_us, FailureKind::Refused);
            self.bad_sent_us = self.bad_sent_us.max(Some(now.monotonic_us));
        }
        self.change(before, now)
    }

    /// Whether attempts are to go over other connections from now on than those that are open. Says so once for each silence.
    pub fn take_renewal(&mut self) -> bool {
        self.silence.take_renewal()
    }

    /// When attempts are to be given up that went over connections on which nothing is heard, µs; not at all: in the far future.
    #[must_use]
    pub fn give_up_due_us(&self) -> u64 {
        self.silence.due_us().unwrap_or(u64::MAX)
    }

    /// Those attempts, by their slots, once it is time: all that are still silent of those that were sent before the silence was noticed. They go on being
    /// counted until they end.
    pub fn give_up(&mut self, now: Now) -> Vec<u32> {
        if self.give_up_due_us() > now.monotonic_us {
            return Vec::new();
        }
        self.silence.end();
        let suspected = self.outstanding.iter().filter(|it| self.silence.is_suspected(it.sent_us));
        suspected.map(|it| it.slot).collect()
    }

    /// Takes an attempt that ended out of those that are awaited; whether it hung.
    fn forget_outstanding(&mut self, slot: u32, sent: Sent) -> bool {
        let sent_before = self.outstanding.partition_point(|outstanding| outstanding.sent_us < sent.at_us);
        let place = self.outstanding.range(sent_before..).position(|outstanding| outstanding.slot == slot);
        let place = sent_before + place.expect("an attempt that ended was outstanding");
        self.outstanding.remove(place);
        let hung = place < self.hanging_len;
        self.hanging_len -= usize::from(hung);
        hung
    }

    fn overloaded(&mut self, retry_after_ms: u32, now: Now) {
        self.overloads = self.overloads.saturating_add(1);
        let rest_us = if retry_after_ms > 0 {
            u64::from(retry_after_ms) * 1_000
        } else if let Some(beyond) = self.overloads.checked_sub(OVERLOADS_TO_REST) {
            (REST_US.start() << beyond.min(16)).min(*REST_US.end())
        } else {
            return;
        };
        self.rest(rest_us, now);
    }

    /// The processor asks to be left alone for so long, µs.
    pub fn rest(&mut self, rest_us: u64, now: Now) {
        self.breaker.on_rest(now.monotonic_us, now.monotonic_us.saturating_add(rest_us));
    }

    /// Another gateway, or the health check, says how the processor does.
    pub fn news(&mut self, failing: bool, now: Now) {
        let before = self.breaker.state(now.monotonic_us);
        self.breaker.on_news(now.monotonic_us, failing);
        if !failing && before != BreakerState::Closed {
            self.good_news_us = now.monotonic_us;
        }
        // Not passed on: whoever saw it has told everyone.
        let _: Option<Change> = self.change(before, now);
    }

    /// Whether it has become slow, or fast again, since this was asked last. While the breaker is not closed that is
    /// nobody's concern.
    pub fn pace_change(&mut self, now: Now) -> Option<Change> {
        if self.breaker.state(now.monotonic_us) != BreakerState::Closed {
            return None;
        }
        let slow = self.expected_us(now) > self.config.thresholds.slow_us;
        let changed = slow != self.known_slow;
        self.known_slow = slow;
        changed.then_some(Change::Pace)
    }

    /// The health check's least response time, or what an answer took elsewhere.
    pub fn checked(&mut self, response_us: u64, now: Now) {
        self.check_us = response_us;
        self.checked_at_us = now.monotonic_us;
        self.silence.told(response_us, now.monotonic_us);
        // Who said so has told everyone.
        self.known_slow = self.expected_us(now) > self.config.thresholds.slow_us;
    }

    /// The other processor has just come back: look at this one again at once.
    pub fn look_again(&mut self, now: Now) {
        if self.breaker.state(now.monotonic_us) != BreakerState::Closed {
            self.breaker.on_news(now.monotonic_us, false);
        }
    }

    fn change(&mut self, before: BreakerState, now: Now) -> Option<Change> {
        let after = self.breaker.state(now.monotonic_us);
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open | BreakerState::HalfOpen) => Some(Change::Failed),
            (BreakerState::Open | BreakerState::HalfOpen, BreakerState::Closed) => {
                self.closed_since_us = now.monotonic_us;
                self.capacity.on_reopen();
                Some(Change::Recovered)
            }
            (BreakerState::Closed, BreakerState::Closed)
            | (BreakerState::Open | BreakerState::HalfOpen, BreakerState::Open | BreakerState::HalfOpen) => {
                None
            }
        }
    }

    /// An attempt was answered. The answer to one that was sent before the last good news is old news, if it is bad.
    fn answered(&mut self, sent_us: u64, latency_us: u64, now: Now) {
        if latency_us > self.config.thresholds.slow_us {
            if sent_us < self.fast_sent_us {
                return;
            }
            // The first slow one sent after all the fast ones: how fast those were is history.
            if self.fast_in_a_row > 0 {
                self.forget_answers();
            }
            self.fast_in_a_row = 0;
            self.check_us = latency_us;
        } else if sent_us >= self.fast_sent_us {
            self.fast_sent_us = sent_us;
            self.fast_in_a_row = self.fast_in_a_row.saturating_add(1);
            if self.fast_in_a_row <= FAST_IN_A_ROW {
                // The next one of the trickle may go at once: three make sure.
                self.reserved_at_us =
                    self.reserved_at_us.min(now.monotonic_us.saturating_sub(*TRICKLE_US.end()));
            }
            if self.fast_in_a_row == FAST_IN_A_ROW {
                self.forget_answers();
                self.check_us = latency_us;
            }
        }
        self.latency.record(now.monotonic_us, latency_us);
    }

    fn forget_answers(&mut self) {
        self.latency = Latency::new();
        self.answered_until_us = 0;
    }

    /// Attempts that have been silent for long speak against the processor; those that are later than what its answers take leave their places to others.
    fn notice_silence(&mut self, now: Now, hang_after_us: u64) {
        let silent_before = now.monotonic_us.saturating_sub(self.config.thresholds.silent_us);
        let silent_count =
            self.outstanding.partition_point(|outstanding| outstanding.sent_us <= silent_before);
        if let Some(last) = silent_count.checked_sub(1) {
            self.bad_sent_us = self.bad_sent_us.max(Some(self.outstanding[last].sent_us));
        }
        let late_before = now.monotonic_us.saturating_sub(hang_after_us);
        while self.outstanding.get(self.hanging_len).is_some_and(|it| it.sent_us < late_before) {
            self.capacity.hang();
            self.hanging_len += 1;
        }
    }
}
