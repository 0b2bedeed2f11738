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
    /// Processed or declined.
    Ended(End),
    /// Likewise, and so many after it that the ledger does not know it any more.
    Forgotten(End),
}

/// How an id ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Processed.
    Processed {
        /// Where.
        processor: Processor,
        /// As recorded.
        requested_at_ms: u64,
    },
    /// Declined.
    Declined {
        /// By whom last.
        processor: Processor,
        /// As recorded.
        ended_at_ms: u64,
        /// What it said.
        status: u16,
    },
}

impl End {
    /// How an attempt's outcome ends a payment, if it does.
    pub fn of(entry: Entry) -> Option<Self> {
        let (processor, requested_at_ms, outcome, status) = match entry {
            Entry::Resolved { processor, requested_at_ms, outcome, status, .. } => {
                (processor, requested_at_ms, outcome, status)
            }
            Entry::KnownBefore { processor, requested_at_ms, .. } => {
                (processor, requested_at_ms, Outcome::Processed, 0)
            }
            _ => return None,
        };
        match outcome {
            Outcome::Processed => Some(Self::Processed { processor, requested_at_ms }),
            Outcome::Declined => Some(Self::Declined { processor, ended_at_ms: requested_at_ms, status }),
            Outcome::Refused | Outcome::Unknown | Outcome::Absent => None,
        }
    }

    /// What the ledger should say.
    pub fn known(self, amount_cents: u64) -> Known {
        match self {
            Self::Processed { processor, requested_at_ms } => {
                Known::Processed { amount_cents, requested_at_ms, processor }
            }
            Self::Declined { processor, ended_at_ms, status } => {
                Known::Declined { amount_cents, ended_at_ms, processor, status }
            }
        }
    }
}

/// An id in a sequence of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

    /// It has ended, and so many others after it.
    pub fn forget(&mut self) {
        if let Progress::Ended(end) = self.progress {
            self.progress = Progress::Forgotten(end);
        }
    }
}

/// Whom an entry is about; `None` for a purge, a processor's name, and what belongs to the next entry.
pub fn id_of(entry: Entry) -> Option<CorrelationId> {
    match entry {
        Entry::Accepted { correlation_id, .. }
        | Entry::Intended { correlation_id, .. }
        | Entry::Resolved { correlation_id, .. }
        | Entry::KnownBefore { correlation_id, .. } => Some(correlation_id),
        Entry::Purged | Entry::Named { .. } | Entry::Note { .. } | Entry::Attached { .. } => None,
    }
}

/// Whether an id that was forgotten is accepted as new.
pub fn relapses(before: Record, entry: Entry) -> bool {
    matches!((before.progress, entry), (Progress::Forgotten(_), Entry::Accepted { .. }))
}

/// Whether the ledger knows of an id what it should.
pub fn is_known_as(known: Known, record: Record) -> bool {
    match record.progress {
        Progress::Absent | Progress::Forgotten(_) => known == Known::Absent,
        Progress::Open { .. } => matches!(known, Known::Open(_)),
        Progress::Ended(end) => known == end.known(record.amount_cents),
    }
}

/// What an entry makes of a record; `None` where it does not fit.
pub fn apply(record: Record, entry: Entry) -> Option<Record> {
    let Record { amount_cents, progress } = record;
    let progress = match (progress, entry) {
        (
            Progress::Absent | Progress::Forgotten(_),
            Entry::Accepted { amount_cents, stage, decided_at_ms: requested_at_ms, .. },
        ) => {
            return Some(Record { amount_cents, progress: Progress::Open { stage, requested_at_ms } });
        }
        (Progress::Open { .. }, Entry::Intended { processor, requested_at_ms, .. }) => {
            Progress::Open { stage: Stage::at(processor), requested_at_ms }
        }
        (Progress::Open { .. }, Entry::KnownBefore { amount_cents, processor, requested_at_ms, .. }) => {
            let progress = Progress::Ended(End::Processed { processor, requested_at_ms });
            return Some(Record { amount_cents, progress });
        }
        (Progress::Open { .. }, Entry::Resolved { outcome, .. }) => match (End::of(entry), outcome) {
            // Nobody may have it.
            (Some(End::Declined { .. }), _) if !is_waiting(progress) => return None,
            (Some(end), _) => Progress::Ended(end),
            (None, Outcome::Refused | Outcome::Absent) => {
                Progress::Open { stage: Stage::Waiting, requested_at_ms: 0 }
            }
            (None, _) => progress,
        },
        (Progress::Absent | Progress::Open { .. } | Progress::Ended(_) | Progress::Forgotten(_), _) => {
            return None;
        }
    };
    Some(Record { amount_cents, progress })
}

fn is_waiting(progress: Progress) -> bool {
    matches!(progress, Progress::Open { stage: Stage::Waiting, .. })
}
