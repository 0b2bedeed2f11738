//! What a dispatcher counts and how it stands, for metrics.

use galo_wire::PROCESSORS_LEN_MAX;
#[cfg(doc)]
use galo_wire::Processor;

#[cfg(doc)]
use super::Answer;
use crate::breaker::BreakerState;
use crate::router::Reason;
use crate::verdict::Verdict;

/// Counts of what happened, for metrics. Arrays are by [`Processor::index`].
#[derive(Clone, Copy, Default, Debug)]
pub struct DispatcherCounters {
    /// POSTs answered, by [`Answer`]: granted, replayed, conflict, full, unreachable.
    pub answers: [u64; 5],
    /// Of those granted, the ones that this gateway granted by itself.
    pub admitted: u64,
    /// Attempts sent.
    pub attempts: [u64; PROCESSORS_LEN_MAX],
    /// Attempts that ended, by [`Verdict`].
    pub verdicts: [[u64; Verdict::COUNT]; PROCESSORS_LEN_MAX],
    /// Attempts given up, since the connections that were open when they were sent are silent and others are not.
    pub given_up: [u64; PROCESSORS_LEN_MAX],
    /// Attempts for an answer to which the processor closed a connection that was kept; sent again at once.
    pub hung_up: [u64; PROCESSORS_LEN_MAX],
    /// Routing decisions, by [`Reason`].
    pub decisions: [u64; Reason::COUNT],
    /// Decisions to wait for a processor, or to pay more than there, because of its [rate](crate::rate) alone.
    pub rate_held: [u64; PROCESSORS_LEN_MAX],
    /// Payments looked up at a processor.
    pub verifications: u64,
    /// Notifications of processors heard from the ledger.
    pub notices: u64,
    /// Those of them that came when too many were kept.
    pub notices_dropped: u64,
    /// Look-ups that notifications brought forward.
    pub hastened: u64,
    /// Payments put off because processors refuse them while they take others, or declined them.
    pub deferred: u64,
    /// Payments that ended declined.
    pub declined: u64,
    /// Declines by a processor that took nothing since it declined the same payment before: its or our configuration is wrong, most likely.
    pub unproven_declines: [u64; PROCESSORS_LEN_MAX],
    /// Payments that a processor has with another amount.
    pub contradictions: [u64; PROCESSORS_LEN_MAX],
    /// Payments taken over from other gateways.
    pub assigned: u64,
    /// Payments withdrawn by the ledger.
    pub withdrawn: u64,
    /// Records of the aggregator about payments that are not here.
    pub stale_records: u64,
}

/// A snapshot for metrics. Arrays are by [`Processor::index`].
#[derive(Clone, Copy, Default, Debug)]
pub struct DispatcherGauges {
    /// Payments held.
    pub held: usize,
    /// Payments in the queue.
    pub waiting: usize,
    /// Payments in doubt that wait for another try, by processor.
    pub doubtful: [usize; PROCESSORS_LEN_MAX],
    /// Payments put off.
    pub deferred: usize,
    /// Completions that the ledger has not acknowledged.
    pub unacknowledged: usize,
    /// Attempts in flight, by processor.
    pub in_flight: [u32; PROCESSORS_LEN_MAX],
    /// Those of them that are later than what answers take.
    pub hanging: [u32; PROCESSORS_LEN_MAX],
    /// For how long a processor asks to be left alone yet, µs.
    pub rests_us: [u64; PROCESSORS_LEN_MAX],
    /// Concurrency limits, by processor.
    pub limit: [u32; PROCESSORS_LEN_MAX],
    /// Breaker states, by processor.
    pub breaker: [BreakerState; PROCESSORS_LEN_MAX],
    /// Expected response times, by processor, µs.
    pub expected_us: [u64; PROCESSORS_LEN_MAX],
}
