//! What a dispatcher waits for: time, or what a processor says.

use std::collections::BinaryHeap;

use super::Dispatcher;

/// Between two ticks while a payment's moment may be the next one: the queue's pace, a try's back-off.
const TICK_NEAR_US: u64 = 5_000;

/// Between two ticks while something is held: POSTs that wait for a grant, of which the first to be given up has waited for a second; a
/// queue whose processors are not to be asked yet, by back-offs of 50 ms and more.
const TICK_US: u64 = 25_000;

impl Dispatcher {
    /// How long it may be until the next [`Self::tick`], µs, if no event comes before; `None` when time alone changes nothing.
    #[must_use]
    pub fn tick_wait_us(&self) -> Option<u64> {
        let is_near = self.is_paced || self.has_doubts();
        let is_held = !(self.waiting.is_empty() && self.deadlines.is_empty());
        is_near.then_some(TICK_NEAR_US).or(is_held.then_some(TICK_US))
    }

    /// Whether a payment waits for what a processor says to others: then its answers are worth a wake-up. Those that leave the queue
    /// at its pace do not.
    #[must_use]
    pub fn awaits_processors(&self) -> bool {
        let is_held = !self.waiting.is_empty() && !self.is_paced;
        is_held || self.has_doubts()
    }

    /// Whether any payment may be in doubt.
    fn has_doubts(&self) -> bool {
        !self.doubtful.iter().all(BinaryHeap::is_empty)
    }
}
