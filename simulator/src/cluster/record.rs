//! How far an id got, by the entries that speak of it: the oracle's own, simpler ledger of one payment.
//!
//! Must never: take part in what the engine decides, or share code with it.

use galo_engine::ledger::{Entry, Known};
use galo_engine::{CorrelationId, Outcome, Processor, Stage};

/// How far an id got in a sequence of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Never accepted, or purged.
    Absent,
    /// Accepted.
    Open {
        /// The recorded attempt's processor.
        stage: Stage,
        /// The recorded attempt's `requestedAt`; of one that waits, nothing that counts.
        requested_at_ms: u64,
    },
    /// Processed.
    Processed {
        /// Where.
        processor: Processor,
        /// As recorded.
        requested_at_ms: u64,
    },
    /// Processed, and so many after it that the ledger does not know it any more.
    Forgotten {
        /// Where.
        processor: Processor,
        /// As recorded.
        requested_at_ms: u64,
    },
}

/// An id in a sequence of entries.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// How much.
    pub amount_cents: u64,
    /// How far.
    pub progress: Progress,
}

/// Of an id that never came.
pub const ABSENT: Record = Record { amount_cents: 0, progress: Progress::Absent };

impl Record {
    /// Whether it never came.
    pub fn is_absent(self) -> bool {
        matches!(self.progress, Progress::Absent)
    }

    /// It is processed, and so many others after it.
    pub fn forget(&mut self) {
        if let Progress::Processed { processor, requested_at_ms } = self.progress {
            self.progress = Progress::Forgotten { processor, requested_at_ms };
        }
    }
}

/// Whom an entry is about; `None` for a purge.
pub fn id_of(entry: Entry) -> Option<CorrelationId> {
    match entry {
        Entry::Accepted { correlation_id, .. }
        | Entry::Intended { correlation_id, .. }
        | Entry::Resolved { correlation_id, .. } => Some(correlation_id),
        Entry::Purged => None,
    }
}

/// Whether an id that was forgotten is accepted as new.
pub fn relapses(before: Record, entry: Entry) -> bool {
    matches!((before.progress, entry), (Progress::Forgotten { .. }, Entry::Accepted { .. }))
}

/// Whether the ledger knows of an id what it should.
pub fn is_known_as(known: Known, record: Record) -> bool {
    match record.progress {
        Progress::Absent | Progress::Forgotten { .. } => known == Known::Absent,
        Progress::Open { .. } => matches!(known, Known::Open(_)),
        Progress::Processed { processor, requested_at_ms } => {
            known == Known::Processed { amount_cents: record.amount_cents, requested_at_ms, processor }
        }
    }
}

/// What an entry makes of a record; `None` where it does not fit.
pub fn apply(record: Record, entry: Entry) -> Option<Record> {
    let Record { amount_cents, progress } = record;
    let progress = match (progress, entry) {
        (
            Progress::Absent | Progress::Forgotten { .. },
            Entry::Accepted { amount_cents, stage, decided_at_ms: requested_at_ms, .. },
        ) => {
            return Some(Record { amount_cents, progress: Progress::Open { stage, requested_at_ms } });
        }
        (Progress::Open { .. }, Entry::Intended { processor, requested_at_ms, .. }) => {
            Progress::Open { stage: Stage::at(processor), requested_at_ms }
        }
        (
            Progress::Open { .. },
            Entry::Resolved { outcome: Outcome::Processed, processor, requested_at_ms, .. },
        ) => Progress::Processed { processor, requested_at_ms },
        (Progress::Open { .. }, Entry::Resolved { outcome: Outcome::Refused, .. }) => {
            Progress::Open { stage: Stage::Waiting, requested_at_ms: 0 }
        }
        (Progress::Open { .. }, Entry::Resolved { outcome: Outcome::Unknown, .. }) => progress,
        (
            Progress::Absent
            | Progress::Open { .. }
            | Progress::Processed { .. }
            | Progress::Forgotten { .. },
            _,
        ) => return None,
    };
    Some(Record { amount_cents, progress })
}
