//! The changes of a ledger, as they are decided, applied and written down.

use galo_wire::journal::{Fact, NOTE_SIZE, PROCESSOR_NAME_SIZE};
use galo_wire::{Attachment, CorrelationId, Outcome, Processor, Reason, Stage};

/// One change of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A payment was accepted, with the attempt that follows at once, if any.
    Accepted {
        /// Who.
        correlation_id: CorrelationId,
        /// How much.
        amount_cents: u64,
        /// The processor of the planned attempt, or waiting.
        stage: Stage,
        /// The planned attempt's `requestedAt`; while waiting, when that was decided.
        decided_at_ms: u64,
        /// The attempt's outcome is unknown already (a claim after the ledger's memory was lost).
        in_doubt: bool,
        /// Why that was decided.
        reason: Reason,
    },
    /// An open payment is about to be sent.
    Intended {
        /// Who.
        correlation_id: CorrelationId,
        /// Where to.
        processor: Processor,
        /// The `requestedAt` to be stored there.
        requested_at_ms: u64,
        /// Why.
        reason: Reason,
        /// How long it had waited with the gateway that decided, ms.
        waited_for_ms: u32,
    },
    /// An attempt ended, or its gateway is gone ([`Outcome::Unknown`]).
    Resolved {
        /// Who.
        correlation_id: CorrelationId,
        /// Where.
        processor: Processor,
        /// The `requestedAt` stored there; counts for [`Outcome::Processed`].
        requested_at_ms: u64,
        /// How.
        outcome: Outcome,
        /// The HTTP status behind a decline, or [`STATUS_CANCELLED`](galo_wire::STATUS_CANCELLED), [`STATUS_SETTLED`](galo_wire::STATUS_SETTLED), [`STATUS_EXPIRED`](galo_wire::STATUS_EXPIRED); else 0.
        status: u16,
    },
    /// An open payment ended: its id was forgotten and came back, and its processor has it since before; the totals hold that.
    KnownBefore {
        /// Who.
        correlation_id: CorrelationId,
        /// Where.
        processor: Processor,
        /// As stored there.
        requested_at_ms: u64,
        /// How much, as stored there.
        amount_cents: u64,
    },
    /// Everything was forgotten, but for the processors' names.
    Purged,
    /// A processor has this name, now and for ever.
    Named {
        /// Which.
        processor: Processor,
        /// Filled up with zeros.
        name: ProcessorName,
    },
    /// Part of what an operator wrote about the entry before; it changes nothing.
    Note {
        /// Counts from 0.
        part: u8,
        /// Filled up with zeros.
        text: [u8; NOTE_SIZE],
    },
    /// Part of a text that belongs to the [`Self::Accepted`] or [`Self::Resolved`] behind it, with nothing but such parts in between.
    Attached {
        /// Which text.
        attachment: Attachment,
        /// How many bytes of this part count.
        size: u8,
        /// Filled up with zeros.
        text: [u8; NOTE_SIZE],
    },
}

/// A processor's name: ASCII, filled up with zeros.
pub type ProcessorName = [u8; PROCESSOR_NAME_SIZE];

/// A name as it stands in the journal; `None` if it is empty or too long.
#[must_use]
pub fn processor_name(name: &str) -> Option<ProcessorName> {
    let mut padded = [0; PROCESSOR_NAME_SIZE];
    padded.get_mut(..name.len()).filter(|place| !place.is_empty())?.copy_from_slice(name.as_bytes());
    Some(padded)
}

impl Entry {
    /// As it stands in the journal.
    #[must_use]
    pub fn to_fact(self) -> Fact {
        match self {
            Self::Accepted { correlation_id, amount_cents, stage, decided_at_ms, in_doubt, reason } => {
                Fact::Accepted { correlation_id, amount_cents, decided_at_ms, stage, in_doubt, reason }
            }
            Self::Intended { correlation_id, processor, requested_at_ms, reason, waited_for_ms } => {
                Fact::Intended { correlation_id, requested_at_ms, processor, reason, waited_for_ms }
            }
            Self::Resolved { correlation_id, processor, requested_at_ms, outcome, status } => {
                Fact::Resolved { correlation_id, requested_at_ms, processor, outcome, status }
            }
            Self::KnownBefore { correlation_id, processor, requested_at_ms, amount_cents } => {
                Fact::KnownBefore { correlation_id, amount_cents, requested_at_ms, processor }
            }
            Self::Purged => Fact::Purged,
            Self::Named { processor, name } => Fact::Named { processor, name },
            Self::Note { part, text } => Fact::Note { part, text },
            Self::Attached { attachment, size, text } => Fact::Attached { attachment, size, text },
        }
    }

    /// The change that stands in the journal; `None` for a fact that is none.
    #[must_use]
    pub fn of_fact(fact: Fact) -> Option<Self> {
        Some(match fact {
            Fact::Accepted { correlation_id, amount_cents, decided_at_ms, stage, in_doubt, reason } => {
                Self::Accepted { correlation_id, amount_cents, stage, decided_at_ms, in_doubt, reason }
            }
            Fact::Intended { correlation_id, requested_at_ms, processor, reason, waited_for_ms } => {
                Self::Intended { correlation_id, processor, requested_at_ms, reason, waited_for_ms }
            }
            Fact::Resolved { correlation_id, requested_at_ms, processor, outcome, status } => {
                Self::Resolved { correlation_id, processor, requested_at_ms, outcome, status }
            }
            Fact::KnownBefore { correlation_id, amount_cents, requested_at_ms, processor } => {
                Self::KnownBefore { correlation_id, processor, requested_at_ms, amount_cents }
            }
            Fact::Purged => Self::Purged,
            Fact::Named { processor, name } => Self::Named { processor, name },
            Fact::Note { part, text } => Self::Note { part, text },
            Fact::Attached { attachment, size, text } => Self::Attached { attachment, size, text },
            Fact::Begin { .. }
            | Fact::Remembered { .. }
            | Fact::Bucket { .. }
            | Fact::Moments { .. }
            | Fact::RememberedPage { .. }
            | Fact::MomentsPage { .. }
            | Fact::DigestsPage { .. }
            | Fact::ReferencesPage { .. }
            | Fact::Declines { .. }
            | Fact::KnownBefores { .. }
            | Fact::Forgotten { .. }
            | Fact::End => return None,
        })
    }
}
