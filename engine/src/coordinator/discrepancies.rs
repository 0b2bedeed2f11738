//! Payments that a processor has otherwise than they were sent: with another amount, or another `requestedAt`.
//!
//! Ids that were forgotten come back like that: their processor knows them, and the look-up shows what they were when they were paid. Where the
//! totals [hold](crate::ledger::Ledger::holds_forgotten) that, the payment ends as known before, and nothing is booked. Where they do not, somebody else has paid, or the books are
//! of another journal: a contradiction, nothing is booked, and a person decides.
//!
//! What a processor has since this very payment was accepted, by an attempt that was taken for refused, is booked as it stands there. When it was
//! accepted is known of the last payments alone: of others, what the totals hold is from before, and what they do not is new.

use galo_wire::record::{ANY_SLOT, Contradiction, Discrepancy, Withdrawal};
use galo_wire::{CorrelationId, Outcome, Processor, Stage};

use super::{Coordinator, SessionId};
use crate::ledger::{Entry, Known, OpenPayment};
use crate::texts::Texts;

impl Coordinator {
    /// A look-up found something else than was sent.
    pub(super) fn discrepancy(
        &mut self,
        session: SessionId,
        discrepancy: Discrepancy,
        reference: Option<&str>,
    ) {
        let Discrepancy { slot, correlation_id, processor, requested_at_ms, amount_cents, is_new } =
            discrepancy;
        // It has ended: whoever asks is told so by the end itself.
        let Known::Open(payment) = self.ledger.lookup(correlation_id) else { return };
        let is_here = payment.stage == Stage::at(processor);
        let is_other = amount_cents != payment.amount_cents;
        let is_of_before =
            self.is_of_before(correlation_id, &payment, (processor, requested_at_ms), amount_cents);
        let is_held = is_of_before && self.ledger.holds_forgotten(processor, requested_at_ms, amount_cents);
        let texts = Texts { members: None, reference: reference.map(Into::into) };
        match (is_held, is_other || is_of_before) {
            (true, _) if is_here => {
                self.attach(&texts);
                self.apply(Entry::KnownBefore { correlation_id, processor, requested_at_ms, amount_cents });
            }
            // By now another processor may have it, which ends it.
            (true, _) => return,
            (false, true) => {
                if is_new {
                    self.counters.disputed += 1;
                    self.send(session, Contradiction { slot, correlation_id, processor, amount_cents });
                }
                return;
            }
            (false, false) => {
                self.counters.contradictions += u64::from(!is_here);
                self.attach(&texts);
                self.resolve(correlation_id, processor, requested_at_ms, Outcome::Processed);
            }
        }
        for told in [Some(session), payment.owner.filter(|owner| *owner != session)].into_iter().flatten() {
            self.send(told, Withdrawal { slot: ANY_SLOT, correlation_id });
        }
    }

    /// Whether what a processor has since then, with this amount, is from before this payment was accepted. The recorded attempt is this payment's own, also
    /// where it was made by a clock that is behind.
    pub(super) fn is_of_before(
        &self,
        id: CorrelationId,
        payment: &OpenPayment,
        (processor, requested_at_ms): (Processor, u64),
        amount_cents: u64,
    ) -> bool {
        if requested_at_ms == 0 || requested_at_ms == payment.requested_at_ms {
            return false;
        }
        match self.ledger.accepted_at_ms(id) {
            Some(accepted_at_ms) => requested_at_ms < accepted_at_ms,
            None => self.ledger.holds_forgotten(processor, requested_at_ms, amount_cents),
        }
    }
}
