//! Payments that may be with a processor: when they are sent again, when they are looked up.
//!
//! Must never: send one to another processor, or after the time for which its processor knows the key, or while the ledger is away; take silence, or a question
//! that was not asked, for an answer.

use std::cmp::Reverse;

use galo_wire::Processor;

use super::payment::{About, Doubt, Payment, Place, State};
use super::troubles::LOOK_AGAIN_US;
use super::yields::YIELD_REST_US;
use super::{Action, Dispatcher, key_of};
use crate::breaker::BreakerState;
use crate::outlook::Reservation;
use crate::rate::Use;
use crate::retry::{Backoff, BudgetConfig};
use crate::time::Now;

/// Each success pays for two more tries, so that what an outage left in doubt is settled as fast as the processor says
/// yes; one that goes on saying nothing is asked twenty times a second, however many payments it holds.
pub(super) const RETRY_BUDGET: BudgetConfig =
    BudgetConfig { percent_of_successes: 200, per_second: 20, saved_max: 400 };

/// Between two tries of one payment.
const BACKOFF: Backoff = Backoff { base_ms: 20, max_ms: 1_000, factor_percent: 200 };

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
            About::Arrival if is_sent_again => {
                let pause_us = self.suspect_pause_us(slot);
                pause_us.unwrap_or_else(|| BACKOFF.delay_us(tries, &mut self.random))
            }
            About::Arrival | About::Result => self.random.jitter(policy.lookup_every_us, 20),
            About::Identity | About::Contradiction => SETTLED_BY_OTHERS.delay_us(tries, &mut self.random),
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
        doubt.about == About::Arrival && self.may_send_again(payment, doubt.processor, now)
    }

    /// Whether the processor still knows the attempt by its key, so that sending it again cannot charge it twice.
    fn may_send_again(&self, payment: &Payment, processor: Processor, now: Now) -> bool {
        let age_us = now.unix_ms.0.saturating_sub(payment.requested_at.0).saturating_mul(1_000);
        age_us < self.config.processors[processor.index()].doubt.resend_us_max
    }

    /// Whether "not found" proves by now that an attempt never arrived.
    pub(super) fn proves_absence(&self, doubt: Doubt, now: Now) -> bool {
        let policy = self.config.processors[doubt.processor.index()].doubt;
        now.monotonic_us.saturating_sub(doubt.sent_us) >= policy.absent_after_us
    }

    pub(super) fn retry_doubtful(&mut self, now: Now) {
        for index in 0..self.doubtful.len() {
            for is_look_up in [true, false] {
                while let Some((slot, doubt)) = self.next_doubtful(index, is_look_up, now)
                    && self.try_again(slot, doubt, is_look_up, now)
                {}
            }
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

    /// Takes out the entry that was found first. A key's age may have changed since it was put there, so the heap says nothing of what is
    /// to be done.
    fn take_first(&mut self, index: usize, is_looked_up: bool) {
        let heaps = if is_looked_up { &mut self.looked_up } else { &mut self.doubtful };
        heaps[index].pop();
    }

    /// Sends a payment again, or looks it up, and takes its entry out; false if that is not possible now.
    fn try_again(&mut self, slot: u32, doubt: Doubt, is_looked_up: bool, now: Now) -> bool {
        let processor = doubt.processor;
        let index = processor.index();
        let payment = self.payments[key_of(slot)];
        if self.is_sent_again(&payment, doubt, now) {
            // Until the ledger has heard the claim nobody knows whose it is by now: another gateway may have proved that it is not there.
            if !self.claimed {
                return false;
            }
            let is_closed = self.outlooks[index].breaker_state(now) == BreakerState::Closed;
            if !is_closed && !self.may_probe(slot) {
                // Others find out whether that processor works again.
                self.take_first(index, is_looked_up);
                self.doubtful[index].push(Reverse((now.monotonic_us + LOOK_AGAIN_US, slot)));
                return true;
            }
            let reservation = self.outlooks[index].try_reserve(Use::Doubt, now);
            let Some(reservation) = reservation else { return false };
            let place = Place { processor, reservation };
            let is_paced = reservation == Reservation::Probe;
            if !is_paced && !self.budgets[index].try_spend(now.monotonic_us) {
                self.cancel(place, now);
                return false;
            }
            self.take_first(index, is_looked_up);
            self.attempt(slot, place, now);
            return true;
        }
        let policy = self.config.processors[index].doubt;
        let outlook = &mut self.outlooks[index];
        if policy.has_lookup
            && !(outlook.may_ask(Use::Doubt, now) && self.budgets[index].try_spend(now.monotonic_us))
        {
            return false;
        }
        self.take_first(index, is_looked_up);
        if policy.has_lookup {
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
