//! Which processed ids are remembered, by the oracle's reckoning: the last so many, in the order of their processing.
//!
//! An id beyond that is forgotten: the ledger knows no more of it than of a new one, and nothing is promised to whoever
//! sends it again. Must agree with the ledger id by id, after any number of restarts.

use std::collections::VecDeque;

/// See the module's documentation.
#[derive(Clone, Default)]
pub struct Retention {
    /// Payments by their place in the oracle's list, the oldest first.
    order: VecDeque<usize>,
    len_max: usize,
}

impl Retention {
    /// Remembers these, the oldest first.
    pub fn new(order: impl IntoIterator<Item = usize>, len_max: usize) -> Self {
        Self { order: order.into_iter().collect(), len_max }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// One more is processed. Returns the one that is forgotten for it.
    pub fn remember(&mut self, place: usize) -> Option<usize> {
        let forgotten = if self.order.len() >= self.len_max { self.order.pop_front() } else { None };
        self.order.push_back(place);
        forgotten
    }

    /// A purge.
    pub fn clear(&mut self) {
        self.order.clear();
    }
}
