//! Ids that were forgotten and come back: what the ledger can still say of them.
//!
//! The ids are gone, their money is in the time buckets. Of a payment that a processor has since a moment the totals hold it if
//!
//! - a payment of that processor was forgotten whose `requestedAt` is no earlier: else the one that is asked about would be remembered;
//! - the finest bucket that contains that moment, usually a millisecond, counts a payment whose amount that can be: alone there exactly, else with at least a cent for each
//!   of the others.
//!
//! That is a proof for a payment that is alone in its bucket, and a bound for several, as far as processors store the `requestedAt` that they are sent, and no two systems pay with the same ids. Where the totals do not hold it (the books
//! are of another journal, or somebody else has paid), it is a contradiction, and a person decides.
//!
//! Rejected: to count those that are forgotten in buckets of their own, which would prove it without the first rule and doubles the buckets' memory; to look through
//! all that are remembered, some milliseconds for each question.

use galo_wire::{CorrelationId, PROCESSORS_LEN_MAX, Processor};

use super::{EndedPayment, Ledger};
use crate::time::UnixMillis;

/// The latest `requestedAt` of the processed payments that were forgotten, by [`Processor::index`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Forgotten {
    latest_ms: [Option<u64>; PROCESSORS_LEN_MAX],
}

impl Forgotten {
    /// A payment that has ended is forgotten.
    pub(super) fn note(&mut self, payment: EndedPayment) {
        if !payment.is_declined() {
            self.note_until(payment.processor(), payment.requested_at_ms());
        }
    }

    /// Likewise, of a snapshot.
    pub(super) fn note_until(&mut self, processor: Processor, latest_ms: u64) {
        let known = &mut self.latest_ms[processor.index()];
        *known = Some(known.map_or(latest_ms, |known| known.max(latest_ms)));
    }

    /// For a snapshot.
    pub(super) fn each(self) -> impl Iterator<Item = (Processor, u64)> {
        Processor::ALL.into_iter().filter_map(move |it| Some((it, self.latest_ms[it.index()]?)))
    }

    fn reaches(self, processor: Processor, requested_at_ms: u64) -> bool {
        self.latest_ms[processor.index()].is_some_and(|latest_ms| requested_at_ms <= latest_ms)
    }
}

impl Ledger {
    /// Whether the totals hold a payment that was forgotten and that this processor has since then, with this amount.
    #[must_use]
    pub fn holds_forgotten(&self, processor: Processor, requested_at_ms: u64, amount_cents: u64) -> bool {
        if !self.forgotten.reaches(processor, requested_at_ms) {
            return false;
        }
        let at = UnixMillis(requested_at_ms);
        let buckets = self.buckets[processor.index()].as_ref();
        let mut held = buckets.map_or((0, 0), |buckets| buckets.finest(at));
        if let Some(export) = &self.export {
            for waiting_cents in export.waiting_at(processor, at) {
                held = (held.0 + 1, held.1 + waiting_cents);
            }
        }
        match held {
            (0, _) => false,
            (1, cents) => cents == amount_cents,
            (count, cents) => amount_cents.checked_add(count - 1).is_some_and(|least| least <= cents),
        }
    }

    /// When a payment was accepted, by its gateway's clock; `None` where that is not known any more.
    #[must_use]
    pub fn accepted_at_ms(&self, id: CorrelationId) -> Option<u64> {
        self.histories.accepted_at_ms(id)
    }

    /// The `requestedAt` of the id that is forgotten next, or when it ended declined: ids that come again later than that are recognised.
    #[must_use]
    pub fn known_since_ms(&self) -> Option<u64> {
        let first = self.ended.first();
        (self.ended.len() > 0).then(|| self.ended.at(first).payment.ended_ms())
    }
}
