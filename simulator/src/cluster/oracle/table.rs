//! What gateways grant by themselves, as the oracle keeps it until the disk has it.

use galo_engine::ledger::Entry;

use super::{Invariant, Oracle, Truth};
use crate::cluster::record::{Record, apply, relapses};

impl Truth {
    /// What survives every process.
    pub(super) fn durable(&self) -> Record {
        self.table.unwrap_or(self.written)
    }
}

impl Oracle {
    /// An amount with which a client has sent it.
    pub fn amount_of(&self, payment: usize) -> Option<u64> {
        self.truths[payment].amounts_cents.first().copied()
    }

    /// A gateway has granted it by itself.
    pub fn admitted(&mut self, entry: Entry) {
        let Entry::Accepted { correlation_id, amount_cents, .. } = entry else { return };
        let Some(place) = self.place(correlation_id) else { return };
        let truth = &mut self.truths[place];
        let before = truth.decided;
        let after = apply(before, entry).filter(|_| truth.table.is_none());
        truth.table = after.or(truth.table);
        if relapses(before, entry) {
            truth.relapsed = true;
            self.relapsed_count += 1;
            self.processors_differ = true;
        }
        self.check(Invariant::NothingTwice, after.is_some(), || {
            format!("{entry:?} is granted by a gateway after {before:?}")
        });
        self.granted(place, amount_cents);
    }
}
