//! A gateway thread's side: claims ids, and publishes what it grants.

use crate::grant::{Grant, State};
use crate::hash::IdHash;
use crate::layout::{Geometry, LINE};
use crate::registrar::{LIMIT, RING_STATE, Ring, RingState, START};
use crate::sync::{Ordering, fence};
use crate::table::{Cell, Standing, Table};

/// What came of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// It is this gateway's, and stays so whatever dies.
    Granted,
    /// Somebody was granted it a moment ago, with the same amount.
    Replayed,
    /// Likewise, with another amount.
    Conflict,
    /// The ledger has it, most likely with the same amount: another id looks like it once in 10¹¹ payments, and one of another amount
    /// like that in 10¹⁸. The aggregator knows.
    LikelyReplayed,
    /// Only the aggregator can tell.
    Unclear,
}

/// The steps of a claim, for a test that ends a process behind one of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// The entry is filled.
    Filled,
    /// The id has a cell.
    Placed,
    /// Nobody else was seen.
    Looked,
    /// The grant is published.
    Published,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Filled, Self::Placed, Self::Looked, Self::Published];
}

/// See the module's documentation.
pub struct Claimer {
    table: Table,
    ring: Ring,
    /// Of the next grant.
    sequence: u64,
}

impl Claimer {
    /// On a ring that the aggregator has opened for this thread, which nobody else fills.
    #[must_use]
    pub fn new(table: Table, ring: Ring) -> Self {
        let head = Geometry::ring_head(ring.number);
        let sequence = table.words()[head + START].load(Ordering::SeqCst);
        Self { table, ring, sequence }
    }

    /// Its ring was opened anew: nothing was forgotten, and it goes on where it was.
    ///
    /// # Panics
    /// If it is another ring.
    pub fn reopened(&mut self, ring: Ring) {
        assert_eq!(self.ring.number, ring.number, "the same ring");
        self.ring = ring;
    }

    /// The ring that it fills.
    #[must_use]
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// The table that it is in.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// How many more may be granted before the aggregator has taken some.
    #[must_use]
    pub fn credit(&self) -> u64 {
        if self.is_open() { self.head(LIMIT).saturating_sub(self.sequence) } else { 0 }
    }

    /// Asks for a payment.
    pub fn claim(&mut self, grant: &Grant) -> Claimed {
        self.claim_until(grant, Step::Published)
    }

    /// Goes as far as `last`. Whoever goes less far than [`Step::Published`] is dead, or does not claim again before it has
    /// [given up](Self::give_up).
    pub fn claim_until(&mut self, grant: &Grant, last: Step) -> Claimed {
        if !self.is_open() {
            return Claimed::Unclear;
        }
        let id = grant.correlation_id;
        let hash = self.table.hash(id);
        match self.table.known(hash, grant.amount_cents) {
            Some(true) => return Claimed::LikelyReplayed,
            Some(false) => return Claimed::Unclear,
            None => {}
        }
        match self.table.standing(id, hash, None) {
            Standing::Granted(cents) if cents == grant.amount_cents => return Claimed::Replayed,
            Standing::Granted(_) => return Claimed::Conflict,
            Standing::Unclear => return Claimed::Unclear,
            Standing::Free => {}
        }
        if self.credit() == 0 {
            return Claimed::Unclear;
        }
        let entry = self.table.entry(self.ring.number, self.sequence);
        entry.fill(self.table.identity().region, self.sequence, grant);
        if last == Step::Filled {
            return Claimed::Unclear;
        }
        let cell = Cell::new(hash, self.ring.number, self.sequence);
        if !self.place(hash, cell) {
            return self.give_up_claim(hash, None);
        }
        if last == Step::Placed {
            return Claimed::Unclear;
        }
        // Behind the cell, and before all that follows: see the crate's documentation.
        fence(Ordering::SeqCst);
        // The claims first: what is found gone there is among the known by then.
        let is_alone = self.table.standing(id, hash, Some(cell)) == Standing::Free
            && self.table.known(hash, grant.amount_cents).is_none()
            && self.is_open();
        if !is_alone {
            return self.give_up_claim(hash, Some(cell));
        }
        if last == Step::Looked {
            return Claimed::Unclear;
        }
        if entry.end_claim(self.sequence, State::Granted(self.sequence)).is_err() {
            return self.give_up_claim(hash, Some(cell));
        }
        self.sequence += 1;
        Claimed::Granted
    }

    /// Ends a claim that went as far as some step before the last, as one that stood still there does when it goes on.
    pub fn give_up(&mut self, grant: &Grant) {
        let hash = self.table.hash(grant.correlation_id);
        let cell = Cell::new(hash, self.ring.number, self.sequence);
        self.give_up_claim(hash, Some(cell));
    }

    fn give_up_claim(&mut self, hash: IdHash, cell: Option<Cell>) -> Claimed {
        let entry = self.table.entry(self.ring.number, self.sequence);
        // The aggregator may have revoked it already.
        let revoked = entry.end_claim(self.sequence, State::Revoked(self.sequence));
        debug_assert!(
            revoked.is_ok() || entry.state() == State::Revoked(self.sequence),
            "its owner alone grants"
        );
        if let Some(cell) = cell {
            self.table.remove(hash, cell);
        }
        // Never the same sequence again: a cell that stands for it means this claim.
        self.sequence += 1;
        Claimed::Unclear
    }

    fn place(&self, hash: IdHash, cell: Cell) -> bool {
        self.table.claims_bucket(hash).iter().any(|word| {
            word.load(Ordering::Relaxed) == 0
                && word.compare_exchange(0, cell.to_word(), Ordering::SeqCst, Ordering::Relaxed).is_ok()
        })
    }

    fn is_open(&self) -> bool {
        let opening = self.ring.opening;
        self.head(RING_STATE) == RingState::Open(opening).to_word()
    }

    fn head(&self, word: usize) -> u64 {
        debug_assert!(word < LINE, "within the ring's head");
        self.table.words()[Geometry::ring_head(self.ring.number) + word].load(Ordering::SeqCst)
    }
}
