//! A payment in a gateway's hands, and where it stands there.

use galo_wire::record::Completion;
use galo_wire::{CorrelationId, Processor};

use crate::money::AmountCents;
use crate::outlook::{Reservation, Sent};
use crate::time::UnixMillis;

/// A place at a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) processor: Processor,
    pub(super) reservation: Reservation,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Waits for the ledger's grant; the planned processor, if any, is reserved.
    Accepting(Option<Place>),
    /// In the queue.
    Waiting,
    /// Waits for the ledger to have the intent; the processor is reserved.
    Intending(Place),
    /// On its way.
    Attempting(Processor, Sent),
    /// In doubt, waits for the next try.
    Doubtful(Processor),
    /// Answered 422, being looked up.
    Verifying(Processor),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Payment {
    /// The handle by which shell and ledger name it: its place here, and a number that the next payment in that place
    /// does not have.
    pub(super) slot: u32,
    pub(super) correlation_id: CorrelationId,
    pub(super) amount: AmountCents,
    /// Of the recorded or planned attempt.
    pub(super) requested_at: UnixMillis,
    /// When it came here.
    pub(super) arrived_us: u64,
    /// The POST that waits for the grant.
    pub(super) ticket: Option<u32>,
    /// Attempts or lookups in a row without a clear answer.
    pub(super) tries: u16,
    pub(super) state: State,
    /// An attempt at the recorded processor ended as unknown.
    pub(super) in_doubt: bool,
    /// It was sent to find out whether a processor works again.
    pub(super) probed: bool,
    /// No longer ours: only its attempt's end is awaited, to free the place.
    pub(super) withdrawn: bool,
}

/// A completion that the ledger has not acknowledged, with what it takes to say it again to a ledger that forgot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unacknowledged {
    pub(super) completion: Completion,
    pub(super) amount_cents: u64,
}
