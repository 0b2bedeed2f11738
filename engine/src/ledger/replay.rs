//! How a ledger is told that it is read from a journal: changes come by the million, and nobody asks it anything meanwhile.
//!
//! What that allows is in `known.rs`: ids are looked for many at a time. So a change that does not fit may be found only by
//! [`Ledger::settle`], which says how long ago it was.
//!
//! Must never: let a misfit go unseen; leave anything unsettled once the journal is read.

use super::snapshot::KNOWN_TWICE;
use super::{ENDED_AGAIN, Entry, Ledger, Misfit};

/// A change did not fit, as it turns out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LateMisfit {
    /// How many changes have come after it.
    pub changes_since: u64,
    /// Why not.
    pub misfit: Misfit,
}

impl Ledger {
    /// From here on the ledger is read from a journal, by [`Self::import`] and [`Self::replay`].
    pub fn begin_replay(&mut self) {
        self.ended.begin_replay();
    }

    /// The journal is read to its end.
    ///
    /// # Panics
    /// If what was read last does not fit: [`Self::settle`] tells.
    pub fn end_replay(&mut self) {
        self.ended.end_replay();
    }

    /// Applies the next change of a journal.
    ///
    /// # Errors
    /// If it does not fit this ledger. What came before may not fit either, and is to be settled first.
    pub fn replay(&mut self, entry: Entry) -> Result<(), Misfit> {
        self.ended.count_change();
        self.try_apply(entry)
    }

    /// Parts of a text have come, and what they belong to will not.
    pub fn forget_gathered(&mut self) {
        self.attachments.forget_gathered();
    }

    /// Whether it is time to [settle](Self::settle), lest too much gathers.
    #[must_use]
    pub fn settle_is_due(&self) -> bool {
        self.ended.is_due()
    }

    /// Finds what was put off. To be called before a change that forgets everything, and at the end.
    ///
    /// # Errors
    /// The first change that did not fit.
    pub fn settle(&mut self) -> Result<(), LateMisfit> {
        self.ended.settle().map_err(|late| LateMisfit {
            changes_since: late.changes_since.into(),
            misfit: if late.inserts { KNOWN_TWICE } else { ENDED_AGAIN },
        })
    }
}
