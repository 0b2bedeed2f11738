//! What the ledger's answers set going: a plan that was granted, an intent that is recorded.
//!
//! Must never: send an attempt that was planned long ago. Its `requestedAt` would be stale, so that an auditor misses it; and if this process was stopped
//! meanwhile, the payment may be another gateway's, which has looked it up and found that it is not there.

use galo_wire::Outcome;
use galo_wire::record::{Admission, Grant, IntentRecorded};

use super::payment::{Payment, Place, State};
use super::{Answer, Dispatcher, Side};
use crate::time::Now;

/// An attempt that was planned longer ago than this is planned anew, ms.
const PLAN_AGE_MS_MAX: u64 = 250;

/// A payment that this happens to again may be older, twice and then four times: over a ledger that takes half a second for every answer payments go on. One
/// that takes a second refuses POSTs by then.
const LATE_DOUBLINGS_MAX: u8 = 2;

/// How long a ledger that has said that it is full is taken for it, unless it grants something, µs.
const LEDGER_FULL_US: u64 = 1_000_000;

impl Dispatcher {
    /// Whether the ledger has room for one more, as far as its last answers tell.
    #[must_use]
    pub fn ledger_has_room(&self, now: Now) -> bool {
        now.monotonic_us >= self.ledger_full_until_us
    }

    pub(super) fn granted(&mut self, grant: Grant, now: Now) {
        let Grant { slot, correlation_id, admission } = grant;
        let Some(payment) = self.find(slot, correlation_id, |state| matches!(state, State::Accepting(_)))
        else {
            self.counters.stale_records += 1;
            return;
        };
        let State::Accepting(plan) = payment.state else { unreachable!("found in this state") };
        match admission {
            Admission::Granted => {
                self.ledger_full_until_us = 0;
                self.drop_recalled_before(correlation_id, now);
            }
            Admission::Full => self.ledger_full_until_us = now.monotonic_us + LEDGER_FULL_US,
            Admission::Replayed | Admission::Conflict | Admission::Expired => {}
        }
        if let Some(ticket) = self.payment(slot).ticket.take() {
            self.answer(
                ticket,
                match admission {
                    Admission::Granted => Answer::Granted,
                    Admission::Replayed => Answer::Replayed,
                    Admission::Conflict => Answer::Conflict,
                    Admission::Full => Answer::Full,
                    Admission::Expired => Answer::Unreachable,
                },
            );
        }
        if admission != Admission::Granted {
            if let Some(place) = plan {
                self.cancel(place, now);
            }
            self.free(slot);
            return;
        }
        match plan {
            Some(place) => self.carry_out(slot, place, now),
            None => {
                self.wait(slot, Side::Back);
                self.pump(now);
            }
        }
    }

    pub(super) fn intent_recorded(&mut self, recorded: IntentRecorded, now: Now) {
        let IntentRecorded { slot, correlation_id } = recorded;
        match self.find(slot, correlation_id, |state| matches!(state, State::Intending(_))) {
            Some(Payment { state: State::Intending(place), .. }) => self.carry_out(slot, place, now),
            _ => self.counters.stale_records += 1,
        }
    }

    /// Sends what the ledger has heard of, unless that took too long: then the attempt ends before it is made.
    fn carry_out(&mut self, slot: u32, place: Place, now: Now) {
        let payment = self.payment(slot);
        if payment.stamped_ago_ms(now) <= PLAN_AGE_MS_MAX << payment.late.min(LATE_DOUBLINGS_MAX) {
            payment.late = 0;
            return self.attempt(slot, place, now);
        }
        payment.late = payment.late.saturating_add(1);
        let payment = *payment;
        self.cancel(place, now);
        self.complete(&payment, place.processor, payment.requested_at, Outcome::Refused);
        self.come_back(slot, now);
        self.pump(now);
    }
}
