//! A payment's own history: what was decided about it, why, and what came of it.
//!
//! A gateway states the reason of a decision with the record that the decision makes necessary anyway, an
//! [`Accept`](crate::record::Accept) or an [`Intent`](crate::record::Intent); the ledger puts them together, and sends all that it
//! has before a [`LookupReply`].
//!
//! Reasons stand in the journal, too: their numbers are for ever. 0 is what a record of the journal's first version has
//! in the reason's place.

use rkyv::{Archive, Deserialize, Serialize};

use crate::record::{LookupReply, PastDecision};
use crate::vocabulary::Stage;

/// How many decisions a history holds at most. A payment needs one or two; six are enough for one that waited, was a probe
/// three times and went elsewhere in the end.
pub const DECISIONS_LEN_MAX: usize = 6;

/// Why a payment was sent, or told to wait. Each decision has one; metrics count them.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
pub enum Reason {
    /// The ledger was not told: it was decided before reasons were recorded, or by a gateway that came back with the payment.
    Unstated = 0,
    /// The cheaper processor works.
    Cheaper = 1,
    /// The cheaper processor works, but its queue is too long to be worth the wait. How long the payment has waited
    /// already does not matter: that is spent either way.
    Backlog = 2,
    /// The payment's patience with the cheaper processor is over.
    PatienceOver = 3,
    /// A single payment finds out whether a processor works again.
    Probe = 4,
    /// Both are slow or broken, and this one answers.
    SlowButWorks = 5,
    /// Waiting for room at a processor that works.
    AwaitsCapacity = 6,
    /// Waiting for the cheaper processor to come back.
    AwaitsCheaper = 7,
    /// Waiting for any processor to come back.
    AwaitsAny = 8,
    /// Payments have stopped coming: what waits is settled.
    Quiet = 9,
    /// As much waits as the dearer processor could settle in time.
    HeldEnough = 10,
    /// Waiting for its turn: others were there first, or the ledger or this gateway was away.
    Queued = 11,
    /// The cheaper processor asks to be left alone for longer than is worth the wait.
    Limited = 12,
    /// A processor that declined another payment must show that it takes any: this one finds out.
    Proof = 13,
    /// The cheaper processors refused this very payment, while they took others.
    Elsewhere = 14,
}

impl Reason {
    /// Those that a decision has, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Cheaper,
        Self::Backlog,
        Self::PatienceOver,
        Self::Probe,
        Self::SlowButWorks,
        Self::AwaitsCapacity,
        Self::AwaitsCheaper,
        Self::AwaitsAny,
        Self::Quiet,
        Self::HeldEnough,
        Self::Queued,
        Self::Limited,
        Self::Proof,
        Self::Elsewhere,
    ];

    /// How many numbers there are.
    pub const COUNT: usize = Self::ALL.len() + 1;

    /// Its name in metrics and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unstated => "unstated",
            Self::Cheaper => "cheaper",
            Self::Backlog => "backlog",
            Self::PatienceOver => "patience_over",
            Self::Probe => "probe",
            Self::SlowButWorks => "slow_but_works",
            Self::AwaitsCapacity => "awaits_capacity",
            Self::AwaitsCheaper => "awaits_cheaper",
            Self::AwaitsAny => "awaits_any",
            Self::Quiet => "quiet",
            Self::HeldEnough => "held_enough",
            Self::Queued => "queued",
            Self::Limited => "limited",
            Self::Proof => "proof",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// How far an attempt has got, as the ledger was told.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
pub enum AttemptState {
    /// It has not ended. Also of a decision to wait, which makes no attempt.
    UnderWay = 0,
    /// The processor has the payment.
    Processed = 1,
    /// The processor surely does not have it: it said so, or nothing was sent.
    Refused = 2,
    /// Nobody knows; the payment stays with this processor until it answers.
    InDoubt = 3,
    /// The processor refused the payment for good, and with that it ended.
    Declined = 4,
}

impl AttemptState {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnderWay => "under_way",
            Self::Processed => "processed",
            Self::Refused => "refused",
            Self::InDoubt => "in_doubt",
            Self::Declined => "declined",
        }
    }
}

impl PastDecision {
    /// What stands where there is no decision.
    pub const NONE: Self = Self {
        at_ms: 0,
        waited_for_ms: 0,
        stage: Stage::Waiting,
        reason: Reason::Unstated,
        attempt: AttemptState::UnderWay,
        was_in_doubt: false,
    };
}

/// What is kept of the decisions about one payment.
///
/// It travels as so many [`PastDecision`]s and the [`LookupReply`] behind them. Rejected: one record with room for all, which
/// would make each [`Message`](crate::Message) in memory three times as large, in a hand-over 225,000 of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct History {
    list: [PastDecision; DECISIONS_LEN_MAX],
    len: usize,
    /// There were others that are not kept.
    pub forgotten: bool,
}

impl History {
    /// Nothing was decided.
    pub const EMPTY: Self = Self { list: [PastDecision::NONE; DECISIONS_LEN_MAX], len: 0, forgotten: false };

    /// Nothing is kept.
    pub const FORGOTTEN: Self = Self { forgotten: true, ..Self::EMPTY };

    /// Oldest first.
    #[must_use]
    pub fn decisions(&self) -> &[PastDecision] {
        &self.list[..self.len]
    }

    /// Adds a decision; beyond [`DECISIONS_LEN_MAX`] it says that it was forgotten.
    pub fn push(&mut self, decision: PastDecision) {
        match self.list.get_mut(self.len) {
            Some(place) => {
                *place = decision;
                self.len += 1;
            }
            None => self.forgotten = true,
        }
    }

    /// A look-up's answer has arrived: the history is what was gathered since the one before it.
    #[must_use]
    pub fn complete(&mut self, reply: &LookupReply) -> Self {
        let gathered = std::mem::replace(self, Self::EMPTY);
        if gathered.len == usize::from(reply.decision_count) && !gathered.forgotten {
            Self { forgotten: reply.decisions_forgotten, ..gathered }
        } else {
            Self::FORGOTTEN
        }
    }
}
