//! The decisions of Galo, sans-IO: events and the time go in, actions come out.
//!
//! Nothing in this crate opens a socket or a file, reads a clock, starts a thread or draws randomness of its own;
//! `clippy.toml` bans the means. The shells (`gateway`, `aggregator`) and the simulator drive the very same code.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod arrivals;
pub mod breaker;
pub mod buckets;
pub mod capacity;
pub mod coordinator;
pub mod dispatcher;
pub mod latency;
pub mod ledger;
pub mod money;
pub mod outlook;
pub mod pace;
pub mod random;
pub mod rate;
pub mod recovery;
pub mod retry;
pub mod router;
pub mod silence;
pub mod texts;
pub mod time;
pub mod timestamp;
pub mod verdict;

pub use galo_wire::{
    Attached, AttemptState, CorrelationId, DECISIONS_LEN_MAX, History, Outcome, PROCESSORS_LEN_MAX,
    PastDecision, Processor, Reason, STATUS_CANCELLED, STATUS_EXPIRED, STATUS_SETTLED, STATUS_TAKEN_BACK,
    Stage,
};
pub use texts::Texts;
