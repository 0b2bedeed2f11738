//! What happens next: events in the order of their time, those of one time in the order in which they were planned.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

struct Planned<E> {
    at_us: u64,
    number: u64,
    event: E,
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Planned<E> {}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// The events to come.
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Planned<E>>>,
    number: u64,
}

impl<E> Queue<E> {
    /// Nothing will happen.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::with_capacity(256), number: 0 }
    }

    /// `event` will happen at `at_us`.
    pub fn push(&mut self, at_us: u64, event: E) {
        self.number += 1;
        self.heap.push(Reverse(Planned { at_us, number: self.number, event }));
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|Reverse(planned)| (planned.at_us, planned.event))
    }
}
