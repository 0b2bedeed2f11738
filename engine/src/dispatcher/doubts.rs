//! Payments that may be with a processor: when they are sent again, when they are looked up.
//!
//! Must never: send one to another processor, or after the time for which its processor knows the key, or while the ledger is away, or while the answer to an
//! attempt that was given up may still come, unless the processor bears that; take silence, or a question that was not asked, for an answer.

use std::cmp::Reverse;

use galo_wire::Processor;

use super::payment::{About, Cause, Doubt, Payment, Place, State};
use super::troubles::LOOK_AGAIN_US;
use super::yields::YIELD_REST_US;
use super::{Action, Dispatcher, key_of};
use crate::breaker::BreakerState;
use crate::outlook::Reservation;
use crate::rate::Use;
use crate::retry::{Backoff, Budget, BudgetConfig};
use crate::time::Now;

/// Each success pays for two more tries, so that what an outage left in doubt is settled as fast as the processor says
/// yes; one that goes on saying nothing is asked twenty times a second, however many payments it holds.
const RETRY_BUDGET: BudgetConfig = BudgetConfig { percent_of_successes: 200, per_second: 20, saved_max: 400 };

/// What may be tried again at one processor. Look-ups and attempts have each their own, so that neither holds up the other.
#[derive(Clone, Debug)]
pub(super) struct Budgets {
    resends: Budget,
    look_ups: Budget,
}

impl Budgets {
    pub(super) fn new() -> Self {
        Self { resends: Budget::new(RETRY_BUDGET), look_ups: Budget::new(RETRY_BUDGET) }
    }

    /// The processor has taken a payment, for now or for later, or says that it has one.
    pub(super) fn on_success(&mut self) {
        self.resends.on_success();
        self.look_ups.on_success();
    }
}

/// Between two tries of one payment.
const BACKOFF: Backoff = Backoff { base_ms: 20, max_ms: 1_000, factor_percent: 200 };

/// By how much an attempt may be later than this gateway's clock and be sent again, ms. Clocks of two gateways that agree by NTP differ by far less.
const FUTURE_MS_MAX: u64 = 60_000;

/// Look-ups of what only a person can settle, or the passing of time, grow as rare as this.
const SETTLED_BY_OTHERS: Backoff = Backoff { base_ms: 20, max_ms: 60_000, factor_percent: 200 };

impl Dispatcher {
    /// A payment may be with a processor; it is tried again there in a while.
    pub(super) fn doubt(&mut self, slot: u32, doubt: Doubt, now: Now) {
        if self.draining {
            self.payment(slot).state = State::Doubtful(doubt);
            self.release(slot);
            return;
        }
        let policy = self.config.processors[doubt.processor.index()].doubt;
        let payment = self.payments[key_of(slot)];
        let tries = u32::from(payment.tries);
        let is_sent_again = self.is_sent_again(&payment, doubt, now);
        let wait_us = match doubt.about {
            // The connection was at fault, and is another one by now.
            About::Arrival if matches!(doubt.cause, Cause::HungUp | Cause::GivenUp) && tries == 0 => 0,
            About::Arrival if is_sent_again => {
                let pause_us = self.suspect_pause_us(slot);
                pause_us.unwrap_or_else(|| BACKOFF.delay_us(tries, &mut self.random))
            }
            About::Arrival | About::Result => self.random.jitter(policy.lookup_every_us, 20),
            About::Identity | About::Discrepancy | About::Contradiction => {
                SETTLED_BY_OTHERS.delay_us(tries, &mut self.random)
            }
        };
        let payment = self.payment(slot);
        let is_asked_for = std::mem::take(&mut payment.is_asked_for);
        let wait_us = if is_asked_for { wait_us.max(YIELD_REST_US) } else { wait_us };
        payment.state = State::Doubtful(doubt);
        payment.tries = payment.tries.saturating_add(1);
        let heaps = if is_sent_again { &mut self.doubtful } else { &mut self.looked_up };
        heaps[doubt.processor.index()].push(Reverse((now.monotonic_us + wait_us, slot)));
    }

    /// Looks a payment up at once, if its processor's rate allows that.
    pub(super) fn verify_soon(&mut self, slot: u32, doubt: Doubt, now: Now) {
        if self.outlooks[doubt.processor.index()].may_ask(Use::Doubt, now) {
            self.verify(slot, doubt, now);
        } else if self.payments[key_of(slot)].withdrawn {
            self.unsettled(slot, doubt, now);
        } else {
            self.doubt(slot, doubt, now);
        }
    }

    fn is_sent_again(&self, payment: &Payment, doubt: Doubt, now: Now) -> bool {
        let is_over = doubt.cause != Cause::GivenUp || {
            let give_up_us = self.config.processors[doubt.processor.index()].doubt.give_up_us;
            now.monotonic_us.saturating_sub(doubt.sent_us) >= give_up_us
        };
        doubt.about == About::Arrival && is_over && self.may_send_again(payment, doubt.processor, now)
    }

    /// Whether the processor still knows the attempt by its key, so that sending it again cannot charge it twice. A clock that was stepped back makes no
    /// attempt younger: what has been here since then is as old as that, and of what came with a time that is yet to be nobody knows how old it is.
    pub(super) fn may_send_again(&self, payment: &Payment, processor: Processor, now: Now) -> bool {
        let resend_us_max = self.config.processors[processor.index()].doubt.resend_us_max;
        let is_of_the_future = payment.requested_at.0.saturating_sub(now.unix_ms.0) > FUTURE_MS_MAX;
        let age_us = payment.stamped_ago_ms(now).saturating_mul(1_000);
        resend_us_max == u64::MAX || (age_us < resend_us_max && !is_of_the_future)
    }

    /// Whether "not found" proves by now that an attempt never arrived.
    pub(super) fn proves_absence(&self, doubt: Doubt, now: Now) -> bool {
        let policy = self.config.processors[doubt.processor.index()].doubt;
        now.monotonic_us.saturating_sub(doubt.sent_us) >= policy.absent_after_us
    }

    pub(super) fn retry_doubtful(&mut self, now: Now) {
        for index in 0..self.doubtful.len() {
            // What stands in the wrong heap is moved to the other one: those that leave the second one wait for the next look.
            while let Some((slot, doubt)) = self.next_doubtful(index, true, now)
                && self.look_up_again(slot, doubt, now)
            {}
            while let Some((slot, doubt)) = self.next_doubtful(index, false, now)
                && self.send_again(slot, doubt, now)
            {}
        }
    }

    /// The first whose moment has come, of those in doubt with one processor.
    fn next_doubtful(&mut self, index: usize, is_look_up: bool, now: Now) -> Option<(u32, Doubt)> {
        loop {
            let heaps = if is_look_up { &mut self.looked_up } else { &mut self.doubtful };
            let Reverse((retry_us, slot)) = heaps[index].peek().copied()?;
            let doubt = self.payments.get(key_of(slot)).and_then(|payment| match payment.state {
                State::Doubtful(doubt) if payment.slot == slot && doubt.processor.index() == index => {
                    Some(doubt)
                }
                _ => None,
            });
            match doubt {
                Some(doubt) => return (retry_us <= now.monotonic_us).then_some((slot, doubt)),
                None => drop(heaps[index].pop()),
            }
        }
    }

    /// Sends a payment again, and takes its entry out; false if that is not possible now.
    fn send_again(&mut self, slot: u32, doubt: Doubt, now: Now) -> bool {
        let processor = doubt.processor;
        let index = processor.index();
        let payment = self.payments[key_of(slot)];
        if !self.is_sent_again(&payment, doubt, now) {
            // Its key is too old by now. Whether it may be looked up is nothing that those behind it wait for.
            self.doubtful[index].pop();
            self.looked_up[index].push(Reverse((now.monotonic_us, slot)));
            return true;
        }
        // Until the ledger has heard the claim nobody knows whose it is by now: another gateway may have proved that it is not there.
        if !self.is_claimed() {
            return false;
        }
        let is_closed = self.outlooks[index].breaker_state(now) == BreakerState::Closed;
        if !is_closed && !self.may_probe(slot) {
            // Others find out whether that processor works again.
            self.doubtful[index].pop();
            self.doubtful[index].push(Reverse((now.monotonic_us + LOOK_AGAIN_US, slot)));
            return true;
        }
        let Some(reservation) = self.outlooks[index].try_reserve(Use::Doubt, now) else { return false };
        let place = Place { processor, reservation };
        let is_paced = reservation == Reservation::Probe;
        if !is_paced && !self.budgets[index].resends.try_spend(now.monotonic_us) {
            self.cancel(place, now);
            return false;
        }
        self.doubtful[index].pop();
        self.attempt(slot, place, now);
        true
    }

    /// Looks a payment up, and takes its entry out; false if that is not possible now.
    fn look_up_again(&mut self, slot: u32, doubt: Doubt, now: Now) -> bool {
        let index = doubt.processor.index();
        let payment = self.payments[key_of(slot)];
        if self.is_sent_again(&payment, doubt, now) {
            // Keys are known for longer by now, by another configuration or a clock that was set right.
            self.looked_up[index].pop();
            self.doubtful[index].push(Reverse((now.monotonic_us, slot)));
            return true;
        }
        let has_lookup = self.config.processors[index].doubt.has_lookup;
        if has_lookup
            && !(self.outlooks[index].may_ask(Use::Doubt, now)
                && self.budgets[index].look_ups.try_spend(now.monotonic_us))
        {
            return false;
        }
        self.looked_up[index].pop();
        if has_lookup {
            self.verify(slot, doubt, now);
        } else {
            // Only a person can tell. Its age is what a metric shows.
            self.payment(slot).tries = u16::MAX;
            self.doubt(slot, Doubt { about: About::Contradiction, ..doubt }, now);
        }
        true
    }

    /// Looks a payment up, which its processor's rate allows.
    fn verify(&mut self, slot: u32, doubt: Doubt, now: Now) {
        self.outlooks[doubt.processor.index()].asked(now);
        self.counters.verifications += 1;
        let payment = self.payment(slot);
        payment.state = State::Verifying(doubt);
        let Payment { correlation_id, requested_at, .. } = *payment;
        self.actions.push(Action::Verify { slot, processor: doubt.processor, correlation_id, requested_at });
    }
}
