//! What a dispatcher waits for: time, or what a processor says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Dispatcher;
use crate::outlook::Outlook;
use crate::time::Now;

/// Between two ticks while a payment's moment may be the next one: the queue's pace, a try's back-off.
const TICK_NEAR_US: u64 = 5_000;

/// Between two ticks while something is held: POSTs that wait for a grant, of which the first to be given up has waited for a second; a
/// queue whose processors are not to be asked yet, by back-offs of 50 ms and more; payments that left it, whose pauses are no shorter.
const TICK_US: u64 = 25_000;

/// When those in doubt are due, and attempts that are given up, as of the last look at them, µs; never: in the far future.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextDue {
    looked_us: u64,
    doubtful_us: u64,
    give_up_us: u64,
}

impl NextDue {
    pub(super) const NEVER: Self = Self { looked_us: 0, doubtful_us: u64::MAX, give_up_us: u64::MAX };
}

impl Dispatcher {
    /// How long it may be until the next [`Self::tick`], µs, if no event comes before; `None` when time alone changes nothing.
    #[must_use]
    pub fn tick_wait_us(&self) -> Option<u64> {
        let NextDue { looked_us, doubtful_us, give_up_us } = self.next_due;
        let is_near = self.is_paced || doubtful_us.min(give_up_us) <= looked_us.saturating_add(TICK_US);
        let is_held = !(self.waiting.is_empty()
            && self.deadlines.is_empty()
            && self.deferred.is_empty()
            && self.recalled.is_empty()
            && self.notices.is_empty());
        if is_near {
            return Some(TICK_NEAR_US);
        }
        // The queue's head lacks a token of some processor's: it goes the moment it is there, and nobody looks before.
        let rate_us = if self.waiting.is_empty() { u64::MAX } else { self.rate_due_us };
        let wait_us = rate_us.saturating_sub(looked_us).clamp(TICK_NEAR_US, TICK_US);
        (is_held || self.has_doubts() || give_up_us != u64::MAX).then_some(wait_us)
    }

    /// Whether a payment waits for what a processor says to others: then its answers are worth a wake-up. Those that leave the queue
    /// at its pace do not, and neither do those whose pause is not over.
    #[must_use]
    pub fn awaits_processors(&self) -> bool {
        let is_held = !self.waiting.is_empty() && !self.is_paced;
        is_held || self.next_due.doubtful_us <= self.next_due.looked_us
    }

    /// Notes when those in doubt, and attempts that are given up, are due, once all have had their turn that were.
    pub(super) fn note_next_due(&mut self, now: Now) {
        let due_us = |heap: &BinaryHeap<Reverse<(u64, u32)>>, outlook: &Outlook| {
            heap.peek().map(|first| first.0.0.max(outlook.next_token_us()))
        };
        let heaps = self.doubtful.iter().zip(&self.outlooks).chain(self.looked_up.iter().zip(&self.outlooks));
        let doubtful_us = heaps.filter_map(|(heap, outlook)| due_us(heap, outlook)).min();
        self.next_due = NextDue {
            looked_us: now.monotonic_us,
            doubtful_us: doubtful_us.unwrap_or(u64::MAX),
            give_up_us: self.outlooks.iter().map(Outlook::give_up_due_us).min().unwrap_or(u64::MAX),
        };
    }

    /// Whether any payment may be in doubt.
    fn has_doubts(&self) -> bool {
        !self.doubtful.iter().chain(&self.looked_up).all(BinaryHeap::is_empty)
    }
}
