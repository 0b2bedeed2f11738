//! Payments that are taken back: cancelled by their clients, ended by another gateway, or asked for because an operator is about to settle them.
//!
//! The ledger names them by their ids alone, by which nothing is found here at once: an index would cost every payment something, for the
//! sake of few. A cancelled one waits, and the ledger refuses its intent from now on; so it may be found later, together with others, in
//! one pass over all payments each [`RECALL_EVERY_US`]. One that is asked for is looked for at once: that is done by hand.
//!
//! Must never: say that nothing is on its way while an attempt is, be it one of a payment that was withdrawn; drop a payment that the
//! ledger has given out since it named it.

use std::cmp::Reverse;

use galo_wire::CorrelationId;
use galo_wire::record::{Yield, Yielded};

use super::payment::State;
use super::{Action, Dispatcher, Payment, key_of};
use crate::time::Now;

/// Between two passes: one over 225,000 payments takes a few ms.
const RECALL_EVERY_US: u64 = 250_000;

/// Entries of payments that are not there any more, beside as many as there are payments.
const LEFT_BEHIND_MAX: usize = 256;

/// How long a payment that an operator asked for rests after its attempt, for him to ask again.
pub(super) const YIELD_REST_US: u64 = 10_000_000;

/// Ids of payments that have ended while they waited here.
#[derive(Default)]
pub(super) struct Recalled {
    ids: Vec<CorrelationId>,
    next_us: u64,
}

impl Recalled {
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
    }

    /// Whether a payment was named, which is named no more.
    fn take(&mut self, id: CorrelationId) -> bool {
        let len = self.ids.len();
        self.ids.retain(|recalled| *recalled != id);
        self.ids.len() < len
    }
}

impl Dispatcher {
    pub(super) fn recall(&mut self, id: CorrelationId) {
        self.recalled.ids.push(id);
    }

    /// A payment is given out under this id. What was taken back before is another one, which the ledger has forgotten: it goes now, and not later by
    /// its id, which would take the new one along.
    pub(super) fn drop_recalled_before(&mut self, id: CorrelationId, now: Now) {
        if !self.recalled.take(id) {
            return;
        }
        let is_former = |payment: &Payment| {
            payment.correlation_id == id
                && !payment.withdrawn
                && !matches!(payment.state, State::Accepting(_))
        };
        let found: Vec<u32> =
            self.payments.iter().filter(|(_, payment)| is_former(payment)).map(|(_, it)| it.slot).collect();
        found.into_iter().for_each(|slot| self.take_back(slot, now));
        self.sweep();
    }

    /// Drops what was taken back.
    pub(super) fn drop_recalled(&mut self, now: Now) {
        if self.recalled.ids.is_empty() || now.monotonic_us < self.recalled.next_us {
            return;
        }
        self.recalled.next_us = now.monotonic_us + RECALL_EVERY_US;
        let mut ids = std::mem::take(&mut self.recalled.ids);
        ids.sort_unstable();
        let is_named = |payment: &Payment| ids.binary_search(&payment.correlation_id).is_ok();
        let found: Vec<u32> =
            self.payments.iter().filter(|(_, payment)| is_named(payment)).map(|(_, it)| it.slot).collect();
        found.into_iter().for_each(|slot| self.take_back(slot, now));
        ids.clear();
        self.recalled.ids = ids;
        self.sweep();
    }

    /// Takes the entries of payments that are not there any more out of the queues. Those at a head that waits for its processor would never be passed
    /// over, and all of them count as a backlog to the router.
    pub(super) fn sweep(&mut self) {
        let payments = &self.payments;
        let is_in = |slot: u32, state| {
            payments.get(key_of(slot)).is_some_and(|payment| payment.slot == slot && payment.state == state)
        };
        self.waiting.retain(|(slot, _)| is_in(*slot, State::Waiting));
        self.deferred.retain(|Reverse((_, slot))| is_in(*slot, State::Deferred));
    }

    /// Likewise where payments leave one by one: once in as many as there are.
    pub(super) fn sweep_seldom(&mut self) {
        if self.waiting.len() + self.deferred.len() > 2 * self.payments.len() + LEFT_BEHIND_MAX {
            self.sweep();
        }
    }

    /// Says whether anything of a payment is on its way, and drops it if not.
    pub(super) fn yield_up(&mut self, asked: Yield) {
        let Yield { number, correlation_id } = asked;
        let same = |(_, payment): &(usize, &Payment)| {
            payment.correlation_id == correlation_id && !matches!(payment.state, State::Accepting(_))
        };
        let slots: Vec<u32> = self.payments.iter().filter(same).map(|(_, payment)| payment.slot).collect();
        // A look-up charges nobody. What waits is in doubt to the ledger alone, which will say so.
        let idle = slots.iter().all(|slot| {
            matches!(self.payments[key_of(*slot)].state, State::Doubtful(_) | State::Verifying(_))
        });
        for slot in slots {
            match self.payments[key_of(slot)].state {
                State::Doubtful(_) if idle => self.free(slot),
                State::Verifying(_) if idle => self.let_go(slot),
                _ => self.payment(slot).is_asked_for = true,
            }
        }
        self.actions.push(Action::Send(Yielded { number, correlation_id, idle }.into()));
    }
}
