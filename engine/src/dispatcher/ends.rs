//! What becomes of a payment when an attempt, or a look-up, ends.

use galo_wire::record::{Contradiction, Discrepancy};
use galo_wire::{Outcome, Processor};

use super::payment::{About, Cause, Doubt, GivenUp, Payment, State};
use super::{Action, Dispatcher, Stored, Verification, key_of};
use crate::money::AmountCents;
use crate::outlook::Sent;
use crate::time::{Now, UnixMillis};
use crate::verdict::{End, Verdict};

/// How often a processor that says it has this id must say that it is not to be found, before it is believed that it does not have it: at once, and after
/// 20, 40 and 80 ms. Only of a payment that is not in doubt: no earlier attempt can be on its way.
const NOT_FOUND_COUNT: u8 = 4;

/// How often a payment in doubt is sent again although it is refused each time: while its processor may refuse others, too, a minute's worth, and
/// fewer, with pauses that grow, once it is suspect.
const REFUSED_IN_DOUBT_MAX: [u8; 2] = [64, 12];

impl Dispatcher {
    /// An attempt ended. Called exactly once for each [`Action::Attempt`].
    pub fn attempt_ended(&mut self, slot: u32, end: End, latency_us: u64, now: Now) {
        self.ended(slot, end, latency_us, Cause::Usual, now);
    }

    pub(super) fn ended(&mut self, slot: u32, end: End, latency_us: u64, cause: Cause, now: Now) {
        self.wake(now);
        let payment = self.payments[key_of(slot)];
        let State::Attempting(processor, sent, given_up) = payment.state else {
            unreachable!("an attempt ends once, in state {:?}", payment.state);
        };
        let cause = match (given_up, cause) {
            (GivenUp::Now, _) if end == End::UNANSWERED => Cause::GivenUp,
            (GivenUp::Before, Cause::Usual) => Cause::GivenUpBefore,
            (_, cause) => cause,
        };
        self.counters.verdicts[processor.index()][end.verdict as usize] += 1;
        // A connection's fault is not the processor's.
        let is_of_connection = matches!(cause, Cause::HungUp | Cause::GivenUp);
        let is_evidence = !is_of_connection
            && (self.is_evidence(slot, processor)
                // That nothing can be sent there says nothing of the payment.
                || end.verdict == Verdict::NotSent
                || (end.verdict == Verdict::Overloaded && self.is_new_to(slot, processor)));
        let outlook = &mut self.outlooks[processor.index()];
        let change = outlook.ended(slot, sent, end, latency_us, is_evidence, now);
        self.tell(processor, change, now);
        let doubt = Doubt { cause, ..Doubt::sent(processor, sent.at_us) };
        match end.verdict {
            Verdict::Processed => {
                self.budgets[processor.index()].on_success();
                self.processed(slot, processor, payment.requested_at);
            }
            Verdict::Duplicate => {
                self.budgets[processor.index()].on_success();
                self.payment(slot).tries = 0;
                self.verify_soon(slot, Doubt { about: About::Identity, ..doubt }, now);
            }
            Verdict::Pending => {
                self.budgets[processor.index()].on_success();
                self.unsettled(slot, Doubt { about: About::Result, ..doubt }, now);
            }
            // In doubt before: no refusal ends that, and neither does a decline.
            _ if payment.in_doubt || end.verdict == Verdict::Unknown => {
                if end.verdict != Verdict::NotSent && !is_of_connection {
                    self.left_in_doubt(slot, processor);
                }
                let about = if self.is_hopeless(slot, end.verdict) {
                    let payment = self.payment(slot);
                    (payment.tries, payment.refusals_in_doubt) = (0, 0);
                    About::Identity
                } else {
                    About::Arrival
                };
                self.unsettled(slot, Doubt { about, ..doubt }, now);
            }
            Verdict::Unknown
            | Verdict::Declined
            | Verdict::Unavailable
            | Verdict::Overloaded
            | Verdict::NotSent => {
                // Its owner is another by now, and knows of no attempt here that a refusal could end.
                if payment.withdrawn {
                    self.free(slot);
                } else {
                    self.complete(&payment, processor, payment.requested_at, Outcome::Refused);
                    self.turned_away(slot, sent, processor, end, now);
                }
            }
        }
        self.pump(now);
    }

    /// Whether a payment in doubt is refused so often that it is not sent again: a look-up tells, in the end. What is not answered does not count.
    fn is_hopeless(&mut self, slot: u32, verdict: Verdict) -> bool {
        let refusals_max = REFUSED_IN_DOUBT_MAX[usize::from(self.troubles.is_suspect(slot))];
        let payment = self.payment(slot);
        if !payment.in_doubt {
            return false;
        }
        match verdict {
            Verdict::Declined => true,
            Verdict::Unavailable => {
                payment.refusals_in_doubt += 1;
                payment.refusals_in_doubt >= refusals_max
            }
            _ => false,
        }
    }

    /// Nothing was charged: where the payment goes from here.
    fn turned_away(&mut self, slot: u32, sent: Sent, processor: Processor, end: End, now: Now) {
        match end.verdict {
            Verdict::Declined => self.declined(slot, processor, end.status, now),
            Verdict::Unavailable => self.refused(slot, processor, now),
            Verdict::Overloaded => self.overloaded(slot, sent, end, processor, now),
            // As with a processor that refuses it: others may have their turn before that one has it again.
            Verdict::NotSent if self.troubles.is_suspect(slot) => self.refused(slot, processor, now),
            // This says nothing of the payment.
            _ => self.come_back(slot, now),
        }
    }

    /// The payment may be with the processor.
    pub(super) fn unsettled(&mut self, slot: u32, doubt: Doubt, now: Now) {
        let payment = self.payments[key_of(slot)];
        if !payment.in_doubt || self.is_newly_named(slot) {
            self.complete(&payment, doubt.processor, payment.requested_at, Outcome::Unknown);
        }
        if payment.withdrawn {
            self.free(slot);
        } else {
            self.payment(slot).in_doubt = true;
            self.doubt(slot, doubt, now);
        }
    }

    /// A lookup ended. Called exactly once for each [`Action::Verify`].
    pub fn verified(&mut self, slot: u32, verification: Verification, now: Now) {
        self.wake(now);
        let payment = self.payments[key_of(slot)];
        let State::Verifying(mut doubt) = payment.state else {
            unreachable!("a lookup ends once, in state {:?}", payment.state);
        };
        if verification == Verification::NotFound {
            doubt.not_found = doubt.not_found.saturating_add(1);
        }
        if matches!(verification, Verification::Found { .. }) {
            // Else a processor that takes every payment for later would be looked at too seldom for what it takes.
            self.budgets[doubt.processor.index()].on_success();
        }
        match verification {
            Verification::Found { stored: Stored::Processed, amount: Some(amount), requested_at }
                if amount != payment.amount =>
            {
                self.differs(slot, doubt, requested_at, amount, now);
            }
            Verification::Found { stored: Stored::Processed, requested_at: Some(requested_at), .. }
                if requested_at != payment.requested_at && self.echoes_requested_at(doubt.processor) =>
            {
                self.differs(slot, doubt, Some(requested_at), payment.amount, now);
            }
            Verification::Found { stored: Stored::Processed, requested_at, .. } => {
                self.learned(slot, doubt, true, now);
                self.processed(slot, doubt.processor, requested_at.unwrap_or(payment.requested_at));
            }
            Verification::Found { stored: Stored::Pending, .. } => {
                self.unsettled(slot, Doubt { about: About::Result, ..doubt }, now);
            }
            // Nobody knows whose it is by now, and what others have sent.
            Verification::Found { stored: Stored::Declined, .. } | Verification::NotFound
                if payment.in_doubt && !payment.withdrawn && !self.is_claimed() =>
            {
                self.doubt(slot, doubt, now);
            }
            Verification::Found { stored: Stored::Declined, .. } => {
                self.settle_as_absent(slot, doubt, |dispatcher| {
                    dispatcher.declined(slot, doubt.processor, 0, now);
                });
            }
            _ if payment.withdrawn => self.free(slot),
            Verification::NotFound if self.is_absent(&payment, doubt, now) => {
                self.learned(slot, doubt, false, now);
                self.settle_as_absent(slot, doubt, |dispatcher| {
                    dispatcher.refused(slot, doubt.processor, now);
                });
            }
            Verification::NotFound | Verification::Unanswered => self.doubt(slot, doubt, now),
        }
        self.pump(now);
    }

    /// Whether a processor that has not found a payment does not have it.
    fn is_absent(&self, payment: &Payment, doubt: Doubt, now: Now) -> bool {
        if payment.in_doubt {
            self.proves_absence(doubt, now)
        } else {
            // The attempt ended with an answer, and there was no other.
            doubt.not_found >= NOT_FOUND_COUNT
        }
    }

    /// The processor does not have it, and never will by this attempt.
    fn settle_as_absent(&mut self, slot: u32, doubt: Doubt, then: impl FnOnce(&mut Self)) {
        let payment = self.payments[key_of(slot)];
        let outcome = if payment.in_doubt { Outcome::Absent } else { Outcome::Refused };
        if payment.withdrawn {
            self.free(slot);
            return;
        }
        self.complete(&payment, doubt.processor, payment.requested_at, outcome);
        let payment = self.payment(slot);
        (payment.in_doubt, payment.tries, payment.refusals_in_doubt) = (false, 0, 0);
        then(self);
    }

    /// Of an answer that said nothing of the processor, until the payment was looked up.
    fn learned(&mut self, slot: u32, doubt: Doubt, taken: bool, now: Now) {
        let is_evidence = taken || self.is_evidence(slot, doubt.processor);
        if doubt.about == About::Identity && is_evidence {
            let change = self.outlooks[doubt.processor.index()].learned(taken, now);
            self.tell(doubt.processor, change, now);
        }
    }

    fn echoes_requested_at(&self, processor: Processor) -> bool {
        self.config.processors[processor.index()].doubt.echoes_requested_at
    }

    /// The processor has charged this id with another amount, or another `requestedAt`, than was sent (what it has declined, or not yet decided, is no
    /// money that the totals could hold). The ledger decides what that means, and takes the payment
    /// back unless it is a contradiction; whatever is lost on the way is said again by the next look-up.
    fn differs(
        &mut self,
        slot: u32,
        doubt: Doubt,
        requested_at: Option<UnixMillis>,
        amount: AmountCents,
        now: Now,
    ) {
        if !self.connected {
            // Nobody would hear of it: it is looked up again until somebody does.
            return self.unsettled(slot, Doubt { about: About::Result, ..doubt }, now);
        }
        let is_new = doubt.about != About::Contradiction;
        let about = if is_new { About::Discrepancy } else { About::Contradiction };
        let discrepancy = Discrepancy {
            slot,
            correlation_id: self.payments[key_of(slot)].correlation_id,
            processor: doubt.processor,
            requested_at_ms: requested_at.map_or(0, |at| at.0),
            amount_cents: amount.get(),
            is_new,
        };
        // Behind what the processor calls it, which goes with the doubt.
        self.unsettled(slot, Doubt { about, ..doubt }, now);
        self.send_reference(slot);
        self.actions.push(Action::Send(discrepancy.into()));
    }

    /// The ledger says that what was found is a contradiction.
    pub(super) fn contradicted(&mut self, contradiction: Contradiction) {
        let Contradiction { slot, correlation_id, processor, .. } = contradiction;
        if self.find(slot, correlation_id, |_| true).is_none() {
            return;
        }
        let state = &mut self.payment(slot).state;
        let (State::Doubtful(doubt) | State::Verifying(doubt)) = state else { return };
        if doubt.about == About::Discrepancy {
            doubt.about = About::Contradiction;
            self.counters.contradictions[processor.index()] += 1;
        }
    }

    /// The payment ends: no processor will take it, and none has it.
    pub(super) fn end_declined(&mut self, slot: u32, processor: Processor, status: u16, now: Now) {
        self.counters.declined += 1;
        let payment = self.payments[key_of(slot)];
        let ended_at = UnixMillis(now.unix_ms.0);
        self.complete_with(&payment, processor, ended_at, Outcome::Declined, status);
        self.free(slot);
    }
}
