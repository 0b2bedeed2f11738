//! What a dispatcher counts and how it stands, for metrics.

#[cfg(doc)]
use galo_wire::Processor;

#[cfg(doc)]
use super::Answer;
use crate::breaker::BreakerState;
use crate::router::Reason;

/// Counts of what happened, for metrics. Arrays are by [`Processor::index`].
#[derive(Clone, Copy, Default, Debug)]
pub struct DispatcherCounters {
    /// POSTs answered, by [`Answer`]: granted, replayed, conflict, full, unreachable.
    pub answers: [u64; 5],
    /// Attempts sent.
    pub attempts: [u64; 2],
    /// Attempts that ended processed, refused, unknown.
    pub outcomes: [[u64; 3]; 2],
    /// Routing decisions, by [`Reason`].
    pub decisions: [u64; Reason::COUNT],
    /// 422s looked up.
    pub verifications: u64,
    /// Payments taken over from other gateways.
    pub assigned: u64,
    /// Payments withdrawn by the ledger.
    pub withdrawn: u64,
    /// Records of the aggregator about payments that are not here.
    pub stale_records: u64,
}

/// A snapshot for metrics.
#[derive(Clone, Copy, Debug)]
pub struct DispatcherGauges {
    /// Payments held.
    pub held: usize,
    /// Payments in the queue.
    pub waiting: usize,
    /// Payments in doubt that wait for another try, by processor.
    pub doubtful: [usize; 2],
    /// Completions that the ledger has not acknowledged.
    pub unacknowledged: usize,
    /// Attempts in flight, by processor.
    pub in_flight: [u32; 2],
    /// Concurrency limits, by processor.
    pub limit: [u32; 2],
    /// Breaker states, by processor.
    pub breaker: [BreakerState; 2],
    /// Expected response times, by processor, µs.
    pub expected_us: [u64; 2],
}
