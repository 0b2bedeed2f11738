//! What a policy is to the laboratory: events in, orders out, and books that can be asked.
//!
//! The world neither knows nor helps: it carries payments to a policy, attempts to the processors and their answers
//! back, and compares books. All policies meet the same clients, processors and auditor.

use galo_engine::Processor;

use super::Counts;

/// What a policy hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A POST. Payments are numbered from 0 in the order in which they are sent.
    Arrived {
        /// Which.
        payment: u32,
    },
    /// An attempt's answer.
    Ended {
        /// From [`Order::Attempt`].
        token: u64,
        /// The HTTP status; 0 where there was no answer.
        status: u16,
        /// Since it was sent.
        latency_us: u64,
    },
    /// A health check's answer.
    Checked {
        /// From [`Order::CheckHealth`].
        token: u64,
        /// Whose.
        processor: Processor,
        /// Failing and the least response time, ms; `None` where the check was refused.
        health: Option<(bool, u32)>,
    },
    /// A look-up's answer.
    LookedUp {
        /// From [`Order::LookUp`].
        token: u64,
        /// The stored `requestedAt`, ms; `None` if it is not stored.
        found: Option<u64>,
    },
    /// A timer that was ordered.
    Timer {
        /// From [`Order::Timer`].
        token: u64,
    },
}

/// What a policy wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Answer a POST: 202, or a refusal.
    Answer {
        /// Which.
        payment: u32,
        /// Whether with 202.
        accepted: bool,
    },
    /// Send a payment to a processor. Its end comes as [`Event::Ended`], unless it is abandoned.
    Attempt {
        /// Names the attempt; never used twice while the first is on its way.
        token: u64,
        /// Which.
        payment: u32,
        /// Where to.
        processor: Processor,
        /// Milliseconds since 1970.
        requested_at_ms: u64,
    },
    /// Give an attempt up: its connection is closed and nothing more is heard of it. It may still be processed.
    Abandon {
        /// From [`Order::Attempt`].
        token: u64,
    },
    /// Ask a processor for a payment.
    LookUp {
        /// Comes back with the answer.
        token: u64,
        /// Which.
        payment: u32,
        /// Where.
        processor: Processor,
    },
    /// Ask a processor how it does.
    CheckHealth {
        /// Comes back with the answer.
        token: u64,
        /// Which.
        processor: Processor,
    },
    /// Send [`Event::Timer`] then.
    Timer {
        /// When.
        at_us: u64,
        /// Comes back.
        token: u64,
    },
}

/// Numbers that a policy shows in the timeline, by name: gauges first, then counts since the start.
pub type Figures = Vec<(&'static str, u64)>;

/// Decides where payments go.
pub trait Policy {
    /// Time zero: what is to be ordered before anything happens.
    fn start(&mut self, orders: &mut Vec<Order>);

    /// Something happened.
    fn handle(&mut self, event: Event, now_us: u64, orders: &mut Vec<Order>);

    /// Its books: payments processed with `from_ms <= requestedAt <= to_ms`, by [`Processor::index`].
    fn summarize(&mut self, from_ms: u64, to_ms: u64) -> Counts;

    /// Payments accepted and neither processed nor on their way to a processor.
    fn waiting(&self) -> u64;

    /// What to show in the timeline.
    fn figures(&mut self, now_us: u64) -> Figures;
}
