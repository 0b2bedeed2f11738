//! What the oracle knows of payments that processors declined.

use galo_engine::{CorrelationId, Processor};

use super::{DECLINES_MAX, Invariant, Oracle};

impl Oracle {
    /// A gateway was told that a processor took a payment.
    pub fn taken(&mut self, processor: Processor) {
        self.taken_counts[processor.index()] += 1;
    }

    /// A gateway was told that a processor declines a payment.
    pub fn declined(&mut self, id: CorrelationId, processor: Processor) {
        let Some(place) = self.place(id) else { return };
        self.note_decline(place, processor);
        let declines = &mut self.truths[place].declines[processor.index()];
        declines.since_handed_over += 1;
        let since = declines.since_handed_over;
        if self.truths[place].is_promised() {
            self.check(Invariant::DeclinesAreFew, since <= DECLINES_MAX, || {
                format!("{id} is declined by {processor:?} for the {since}th time")
            });
        }
    }

    fn note_decline(&mut self, place: usize, processor: Processor) {
        let stored = self.taken_counts[processor.index()];
        let declines = &mut self.truths[place].declines[processor.index()];
        declines.count += 1;
        declines.stored_first.get_or_insert(stored);
        declines.stored_last = stored;
    }

    /// A gateway was told by a look-up that a payment which was taken is declined: no attempt of it counts any more.
    pub fn result_declined(&mut self, id: CorrelationId, processor: Processor) {
        let Some(place) = self.place(id) else { return };
        let truth = &mut self.truths[place];
        truth.result_declined[processor.index()] = true;
        for sent in truth.sent.iter_mut().filter(|sent| sent.processor == processor) {
            sent.refused = true;
        }
        // While the ledger is away it is looked up again and again: that is no attempt.
        self.note_decline(place, processor);
    }

    /// Whether a processor declined a payment.
    pub fn was_declined(&self, place: usize, processor: Processor) -> bool {
        self.truths[place].declines[processor.index()].count > 0
    }
}
