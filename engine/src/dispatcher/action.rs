//! What a dispatcher asks its shell to do, and the words of its answers.

use galo_wire::{CorrelationId, Message, Processor};

#[cfg(doc)]
use super::Dispatcher;
use crate::money::AmountCents;
use crate::time::UnixMillis;

/// The answer to a POST.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// In the ledger.
    Granted,
    /// Was in the ledger before, with the same amount.
    Replayed,
    /// Was in the ledger before, with another amount.
    Conflict,
    /// No room, here or in the ledger.
    Full,
    /// The ledger did not answer in time. It may or may not have the payment; the same POST again will tell.
    Unreachable,
}

/// What the shell is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send this to the aggregator.
    Send(Message),
    /// Answer the POST that came with this ticket.
    Answer {
        /// From [`Dispatcher::accept`].
        ticket: u32,
        /// The answer.
        answer: Answer,
    },
    /// Send a payment to a processor and report to [`Dispatcher::attempt_ended`].
    Attempt {
        /// The handle to report with.
        slot: u32,
        /// Where to.
        processor: Processor,
        /// Who.
        correlation_id: CorrelationId,
        /// How much.
        amount: AmountCents,
        /// When.
        requested_at: UnixMillis,
    },
    /// Use no connection to a processor that is open now for another attempt, unless something is heard on it from now on. Attempts on their way stay where they
    /// are.
    Renew {
        /// Whose.
        processor: Processor,
    },
    /// End an attempt as if its time were over: its connection is taken to be dead. It is reported as any other.
    GiveUp {
        /// The handle that it came with.
        slot: u32,
        /// Where it went.
        processor: Processor,
    },
    /// Look a payment up at a processor and report to [`Dispatcher::verified`].
    Verify {
        /// The handle to report with.
        slot: u32,
        /// Where.
        processor: Processor,
        /// Who.
        correlation_id: CorrelationId,
        /// When the attempt was made, which bounds the search.
        requested_at: UnixMillis,
    },
    /// Call a processor's health check and report to [`Dispatcher::health_checked`].
    CheckHealth {
        /// Whose.
        processor: Processor,
    },
}

/// What a lookup at a processor found. No answer, half of one, and a shell that has no room for another question are all one: no evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verification {
    /// It is there.
    Found {
        /// How far it got.
        stored: Stored,
        /// Its `requestedAt`; `None` where the processor does not say: then it is ours.
        requested_at: Option<UnixMillis>,
        /// Its amount; `None` where the processor does not say.
        amount: Option<AmountCents>,
    },
    /// The processor says that it does not have it.
    NotFound,
    /// Nobody answered.
    Unanswered,
}

impl Verification {
    /// It is processed, with this `requestedAt` and amount.
    #[must_use]
    pub const fn processed(requested_at: UnixMillis, amount: AmountCents) -> Self {
        Self::Found { stored: Stored::Processed, requested_at: Some(requested_at), amount: Some(amount) }
    }
}

/// How far a payment got at a processor that has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// Charged.
    Processed,
    /// Neither charged nor refused yet.
    Pending,
    /// Refused for good, nothing charged.
    Declined,
}
