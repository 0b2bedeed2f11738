//! The limit on `GET /payments/service-health`: one call per window on a fixed grid.
//!
//! The grid starts with the first call, when the real processor creates its limiter. A window that passed unused does
//! not add up: there is one permit or none. When it is gone, up to two calls wait, the oldest first, and each
//! following window lets one of them through; further calls are refused at once. So a call made slightly early is answered
//! late instead of refused, and a caller that polls too fast finds its calls hanging.

use std::collections::VecDeque;

/// Calls that may wait for a window.
pub const WAITING_MAX: usize = 2;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Granted,
    Waits,
    Refused,
}

/// One permit per window, and who waits for the next.
#[derive(Debug)]
pub(super) struct HealthWindow<Caller> {
    window_us: u64,
    window_end_us: Option<u64>,
    permit: bool,
    waiting: VecDeque<Caller>,
}

impl<Caller: Copy + PartialEq> HealthWindow<Caller> {
    pub(super) fn new(window_us: u64) -> Self {
        assert!(window_us > 0, "a window has a length");
        HealthWindow { window_us, window_end_us: None, permit: true, waiting: VecDeque::new() }
    }

    /// A call arrives. Expects that [`Self::next_granted`] has said `None` for this `now_us`.
    pub(super) fn enter(&mut self, now_us: u64, caller: Caller) -> Entry {
        if self.window_end_us.is_none() {
            self.window_end_us = Some(now_us + self.window_us);
        }
        if self.permit {
            assert!(self.waiting.is_empty(), "a permit is left while calls wait");
            self.permit = false;
            Entry::Granted
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(caller);
            Entry::Waits
        } else {
            Entry::Refused
        }
    }

    /// The next waiting call whose window has come by `now_us`. Call until it says `None`.
    pub(super) fn next_granted(&mut self, now_us: u64) -> Option<Caller> {
        while let Some(end_us) = self.window_end_us.filter(|end_us| *end_us <= now_us) {
            // Without callers, jump over the windows that nobody used; the grid stays where it was.
            let windows = if self.waiting.is_empty() { 1 + (now_us - end_us) / self.window_us } else { 1 };
            self.window_end_us = Some(end_us + windows * self.window_us);
            match self.waiting.pop_front() {
                Some(caller) => return Some(caller),
                None => self.permit = true,
            }
        }
        None
    }

    /// When a waiting call gets its turn, if one waits.
    pub(super) fn deadline_us(&self) -> Option<u64> {
        self.window_end_us.filter(|_| !self.waiting.is_empty())
    }

    /// A waiting caller has gone; its place is free again.
    pub(super) fn withdraw(&mut self, caller: Caller) {
        self.waiting.retain(|waiting| *waiting != caller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn two_early_calls_wait_and_the_third_is_refused() {
        let mut window = HealthWindow::new(5 * SECOND_US);
        assert_eq!(window.enter(SECOND_US, 'a'), Entry::Granted);
        assert_eq!(window.deadline_us(), None);
        assert_eq!(window.enter(SECOND_US, 'b'), Entry::Waits);
        assert_eq!(window.enter(2 * SECOND_US, 'c'), Entry::Waits);
        assert_eq!(window.enter(2 * SECOND_US, 'd'), Entry::Refused);
        assert_eq!(window.deadline_us(), Some(6 * SECOND_US));
        assert_eq!(window.next_granted(6 * SECOND_US - 1), None);
        assert_eq!(window.next_granted(6 * SECOND_US), Some('b'));
        assert_eq!(window.next_granted(6 * SECOND_US), None);
        assert_eq!(window.enter(7 * SECOND_US, 'e'), Entry::Waits);
        assert_eq!(window.next_granted(11 * SECOND_US), Some('c'));
        assert_eq!(window.next_granted(16 * SECOND_US), Some('e'));
        assert_eq!(window.enter(17 * SECOND_US, 'f'), Entry::Waits);
    }

    #[test]
    fn the_grid_does_not_move_with_the_calls() {
        let mut window = HealthWindow::new(5 * SECOND_US);
        assert_eq!(window.enter(0, 'a'), Entry::Granted);
        // Late in the third window: the permit is there, and back again a second later.
        assert_eq!(window.next_granted(14 * SECOND_US), None);
        assert_eq!(window.enter(14 * SECOND_US, 'b'), Entry::Granted);
        assert_eq!(window.next_granted(15 * SECOND_US), None);
        assert_eq!(window.enter(15 * SECOND_US, 'c'), Entry::Granted);
        // Unused windows do not add up.
        assert_eq!(window.next_granted(50 * SECOND_US), None);
        assert_eq!(window.enter(50 * SECOND_US, 'd'), Entry::Granted);
        assert_eq!(window.enter(50 * SECOND_US, 'e'), Entry::Waits);
    }

    #[test]
    fn who_leaves_frees_its_place() {
        let mut window = HealthWindow::new(5 * SECOND_US);
        assert_eq!(window.enter(0, 'a'), Entry::Granted);
        assert_eq!(window.enter(0, 'b'), Entry::Waits);
        assert_eq!(window.enter(0, 'c'), Entry::Waits);
        window.withdraw('b');
        assert_eq!(window.enter(0, 'd'), Entry::Waits);
        assert_eq!(window.next_granted(5 * SECOND_US), Some('c'));
        assert_eq!(window.next_granted(10 * SECOND_US), Some('d'));
    }
}
