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
    /// Look a payment up at a processor and report to [`Dispatcher::verified`].
    Verify {
        /// The handle to report with.
        slot: u32,
        /// Where.
        processor: Processor,
        /// Who.
        correlation_id: CorrelationId,
    },
    /// Call a processor's health check and report to [`Dispatcher::health_checked`].
    CheckHealth {
        /// Whose.
        processor: Processor,
    },
}

/// What a lookup at a processor found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verification {
    /// It is stored, with this `requestedAt`.
    Found(UnixMillis),
    /// It was not found, or nobody answered.
    Unclear,
}
