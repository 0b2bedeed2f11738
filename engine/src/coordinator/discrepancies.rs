//! Payments that a processor has otherwise than they were sent: with another amount, or since before they were accepted.
//!
//! Ids that were forgotten come back like that: their processor knows them, and the look-up shows what they were when they were paid. Where the
//! totals [hold](crate::ledger::Ledger::holds_forgotten) that, the payment ends as known before, and nothing is booked. Where they do not, somebody else has paid, or the books are
//! of another journal: a contradiction, nothing is booked, and a person decides.
//!
//! What a processor has since this very payment was accepted, by an attempt that was taken for refused, is booked as it stands there.
//! So is what the ledger cannot tell apart from that: the moments of acceptance are known of the last payments alone.

use galo_wire::record::{ANY_SLOT, Contradiction, Discrepancy, Withdrawal};
use galo_wire::{CorrelationId, Outcome, Stage};

use super::{Coordinator, SessionId};
use crate::ledger::{Entry, Known, OpenPayment};

impl Coordinator {
    /// A look-up found something else than was sent.
    pub(super) fn discrepancy(&mut self, session: SessionId, discrepancy: Discrepancy) {
        let Discrepancy { slot, correlation_id, processor, requested_at_ms, amount_cents, is_new } =
            discrepancy;
        // It has ended: whoever asks is told so by the end itself.
        let Known::Open(payment) = self.ledger.lookup(correlation_id) else { return };
        if payment.stage != Stage::at(processor) {
            self.counters.stale_completions += 1;
            return;
        }
        let is_other = amount_cents != payment.amount_cents;
        let is_of_before = self.is_of_before(correlation_id, &payment, requested_at_ms);
        // Where nobody knows any more when it was accepted: this payment's attempts had its amount.
        let may_be_of_before = is_other && requested_at_ms != 0 && requested_at_ms < payment.requested_at_ms;
        if is_of_before.unwrap_or(may_be_of_before)
            && self.ledger.holds_forgotten(processor, requested_at_ms, amount_cents)
        {
            self.apply(Entry::KnownBefore { correlation_id, processor, requested_at_ms, amount_cents });
        } else if is_other || is_of_before == Some(true) {
            if is_new {
                self.counters.disputed += 1;
                self.send(session, Contradiction { slot, correlation_id, processor, amount_cents });
            }
            return;
        } else {
            self.resolve(correlation_id, processor, requested_at_ms, Outcome::Processed);
        }
        for told in [Some(session), payment.owner.filter(|owner| *owner != session)].into_iter().flatten() {
            self.send(told, Withdrawal { slot: ANY_SLOT, correlation_id });
        }
    }

    /// Whether a processor has a payment since before it was accepted; `None` where that is not known any more. The recorded attempt is this payment's own,
    /// also where it was made by a clock that is behind.
    pub(super) fn is_of_before(
        &self,
        id: CorrelationId,
        payment: &OpenPayment,
        requested_at_ms: u64,
    ) -> Option<bool> {
        let accepted_at_ms = self.ledger.accepted_at_ms(id)?;
        let is_own = requested_at_ms == 0 || requested_at_ms == payment.requested_at_ms;
        Some(!is_own && requested_at_ms < accepted_at_ms)
    }
}
