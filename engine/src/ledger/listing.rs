//! Payments for an operator to read: those in doubt or open, oldest attempt first, and those that were declined, the last one first.
//!
//! A full ledger has hundreds of thousands of them, and payments wait while it is looked at. So a list is made in steps of a hundred µs or so, and
//! holds no more than was asked for: a heap of the oldest found so far. It shows each payment as it was when its part of the
//! ledger was looked at; one that changes meanwhile may be missing.

use std::collections::BinaryHeap;

use galo_wire::{CorrelationId, Processor};

use super::{Known, Ledger, OpenPayment, SHARD_COUNT};
use crate::time::UnixMillis;

/// Payments in one list at most.
pub const LISTED_LEN_MAX: usize = 1_000;

/// Ended payments that are looked at in one step.
const ENDED_STEP_LEN: u64 = 8_192;

/// Which payments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Open, and an attempt's outcome is unknown.
    InDoubt,
    /// Accepted and not ended.
    Open,
    /// Ended without being processed.
    Declined,
}

/// One payment of a list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listed {
    /// When the recorded attempt was made, or a declined payment ended; `None` while there is no attempt, which sorts behind all others.
    pub at: ListedAt,
    /// Who.
    pub correlation_id: CorrelationId,
    /// How much.
    pub amount_cents: u64,
    /// Who may have it, or declined it.
    pub processor: Option<Processor>,
    /// It may be there already.
    pub in_doubt: bool,
    /// What stands in the place of a declined payment's HTTP status.
    pub status: u16,
}

/// A time, or that there is none, which is later than all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ListedAt {
    /// Then.
    Time(UnixMillis),
    /// There is no attempt.
    Never,
}

impl ListedAt {
    /// The time, if there is one.
    #[must_use]
    pub fn time(self) -> Option<UnixMillis> {
        match self {
            Self::Time(at) => Some(at),
            Self::Never => None,
        }
    }
}

/// A list that is being made.
pub struct Listing {
    which: Which,
    len_max: usize,
    /// The one that has to go first on top.
    found: BinaryHeap<Listed>,
    shard: usize,
    /// The last ended payment that was looked at.
    place: Option<u64>,
    declined: Vec<Listed>,
}

impl Listing {
    /// At most `len_max` payments, and at most [`LISTED_LEN_MAX`].
    #[must_use]
    pub fn new(which: Which, len_max: usize) -> Self {
        let len_max = len_max.min(LISTED_LEN_MAX);
        Self { which, len_max, found: BinaryHeap::new(), shard: 0, place: None, declined: Vec::new() }
    }

    /// What was found, in order.
    #[must_use]
    pub fn into_list(self) -> Vec<Listed> {
        if self.which == Which::Declined { self.declined } else { self.found.into_sorted_vec() }
    }

    fn take(&mut self, listed: Listed) {
        if self.found.len() < self.len_max {
            self.found.push(listed);
        } else if let Some(mut last) = self.found.peek_mut()
            && listed < *last
        {
            *last = listed;
        }
    }
}

impl Listed {
    fn open(correlation_id: CorrelationId, payment: OpenPayment) -> Self {
        let OpenPayment { amount_cents, requested_at_ms, stage, in_doubt, owner: _ } = payment;
        let processor = stage.processor();
        let at = processor.map_or(ListedAt::Never, |_| ListedAt::Time(UnixMillis(requested_at_ms)));
        Self { at, correlation_id, amount_cents, processor, in_doubt, status: 0 }
    }
}

impl Ledger {
    /// Looks for one step's time. False once there is nothing more to look at.
    pub fn list(&self, listing: &mut Listing) -> bool {
        match listing.which {
            Which::Declined => self.list_declined(listing),
            Which::InDoubt | Which::Open => {
                let Some(shard) = self.open.shards.get(listing.shard) else { return false };
                for (id, payment) in shard {
                    if payment.in_doubt || listing.which == Which::Open {
                        listing.take(Listed::open(*id, *payment));
                    }
                }
                listing.shard += 1;
                listing.shard < SHARD_COUNT
            }
        }
    }

    fn list_declined(&self, listing: &mut Listing) -> bool {
        let places = self.ended.places();
        let end = listing.place.unwrap_or(places.end).clamp(places.start, places.end);
        let begin = end.saturating_sub(ENDED_STEP_LEN).max(places.start);
        for place in (begin..end).rev() {
            if listing.declined.len() == listing.len_max {
                return false;
            }
            let row = self.ended.at(place);
            if let Known::Declined { amount_cents, ended_at_ms, processor, status } = row.payment.known() {
                listing.declined.push(Listed {
                    at: ListedAt::Time(UnixMillis(ended_at_ms)),
                    correlation_id: row.id,
                    amount_cents,
                    processor: Some(processor),
                    in_doubt: false,
                    status,
                });
            }
        }
        listing.place = Some(begin);
        begin > places.start
    }
}
