//! How many open payments each connection owns, and those that nobody does: what is handed over to whom, and in portions.

use galo_wire::{CorrelationId, Stage};

use super::{Ledger, OpenPayment, SHARD_COUNT};
use crate::coordinator::SessionId;

/// Counts that go with [`OpenPayment::owner`].
#[derive(Default)]
pub(super) struct Owners {
    /// By the connection's number.
    owned: Vec<usize>,
    /// Their sum.
    len: usize,
}

impl Owners {
    pub(super) fn moved(&mut self, from: Option<SessionId>, to: Option<SessionId>) {
        if let Some(SessionId(number)) = from {
            self.owned[usize::from(number)] -= 1;
            self.len -= 1;
        }
        if let Some(SessionId(number)) = to {
            let number = usize::from(number);
            if self.owned.len() <= number {
                self.owned.resize(number + 1, 0);
            }
            self.owned[number] += 1;
            self.len += 1;
        }
    }
}

impl Ledger {
    /// How many open payments are `owner`'s.
    #[must_use]
    pub fn owned_len(&self, owner: SessionId) -> usize {
        self.owners.owned.get(usize::from(owner.0)).copied().unwrap_or_default()
    }

    /// How many open payments are nobody's.
    #[must_use]
    pub fn unowned_len(&self) -> usize {
        self.open.len - self.owners.len
    }

    /// Makes all of `owner`'s payments nobody's, in place, since they may be all that there are. Gives those of them whose recorded attempt
    /// is not in doubt yet: what a gateway has on its way at once.
    pub fn disown(&mut self, owner: SessionId) -> Vec<(CorrelationId, OpenPayment)> {
        let mut recorded = Vec::new();
        if self.owned_len(owner) == 0 {
            return recorded;
        }
        for (id, payment) in self.open.shards.iter_mut().flatten() {
            if payment.owner == Some(owner) {
                payment.owner = None;
                self.owners.moved(Some(owner), None);
                if payment.stage.processor().is_some() && !payment.in_doubt {
                    recorded.push((*id, *payment));
                }
            }
        }
        recorded
    }

    /// At most `len_max` of nobody's payments with a recorded attempt.
    #[must_use]
    pub fn unowned_doubts(&self, len_max: usize) -> Vec<(CorrelationId, OpenPayment)> {
        let all = self.open.shards.iter().flatten();
        let doubts = all.filter(|(_, payment)| payment.owner.is_none() && payment.stage != Stage::Waiting);
        doubts.map(|(id, payment)| (*id, *payment)).take(len_max).collect()
    }

    /// At most `len_max` of nobody's payments, all of one part of the table: of the first part from `part` on that has some, which is returned too.
    #[must_use]
    pub fn unowned_from(&self, part: usize, len_max: usize) -> (usize, Vec<(CorrelationId, OpenPayment)>) {
        let parts = (0..SHARD_COUNT).map(|step| (part + step) % SHARD_COUNT);
        for part in parts {
            let shard = self.open.shards[part].iter().filter(|(_, payment)| payment.owner.is_none());
            let found: Vec<_> = shard.map(|(id, payment)| (*id, *payment)).take(len_max).collect();
            if !found.is_empty() {
                return (part, found);
            }
        }
        (part, Vec::new())
    }
}
