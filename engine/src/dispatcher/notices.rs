//! Notifications: a processor says that something has happened to a payment, whose next look-up comes sooner for that.
//!
//! The word itself is never believed, so nothing hangs on it. Payments are named by their ids, by which nothing is found here at once; those that wait
//! to be looked up are few, and are searched all together, each [`HEED_EVERY_US`] at most. So a flood of notifications about one payment has it
//! looked up ten times a second, and look-ups keep to their budget and their processor's rate as before.
//!
//! A word that comes before the attempt's own answer, or during a look-up that began before, finds no payment that waits. It is kept for
//! [`KEPT_US`]: by then the answer is mostly there.
//!
//! Must never: touch a payment that is not in doubt; send anything again; remember without a bound.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use galo_wire::record::Notified;
use galo_wire::{CorrelationId, Processor};

use super::payment::State;
use super::{Dispatcher, key_of};
use crate::time::Now;

/// Between two searches, and so between two look-ups of one payment that notifications bring forward.
const HEED_EVERY_US: u64 = 100_000;

/// How long a word is kept that nothing waits for.
const KEPT_US: u64 = 5_000_000;

/// Words kept at most, 64 bytes each. What comes beyond is dropped: its payment is looked up when it is due.
const KEPT_LEN_MAX: usize = 1_024;

#[derive(Clone, Copy)]
struct Word {
    processor: Processor,
    until_us: u64,
}

/// What processors said.
#[derive(Default)]
pub(super) struct Notices {
    words: BTreeMap<CorrelationId, Word>,
    next_us: u64,
}

impl Notices {
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.words.clear();
    }
}

impl Dispatcher {
    /// A processor says that something has happened to a payment.
    pub(super) fn notified(&mut self, notified: Notified, now: Now) {
        self.counters.notices += 1;
        let Notified { correlation_id, processor } = notified;
        let words = &mut self.notices.words;
        if words.len() >= KEPT_LEN_MAX && !words.contains_key(&correlation_id) {
            self.counters.notices_dropped += 1;
            return;
        }
        words.insert(correlation_id, Word { processor, until_us: now.monotonic_us + KEPT_US });
        if self.heed_notices(now) {
            self.pump(now);
        }
    }

    /// Brings the look-ups of payments forward about which something was said; whether there are any.
    pub(super) fn heed_notices(&mut self, now: Now) -> bool {
        let Notices { words, next_us } = &mut self.notices;
        if words.is_empty() || now.monotonic_us < *next_us {
            return false;
        }
        *next_us = now.monotonic_us + HEED_EVERY_US;
        let mut heeded = BTreeSet::new();
        for (index, heap) in self.looked_up.iter_mut().enumerate() {
            if heap.is_empty() || !words.values().any(|word| word.processor.index() == index) {
                continue;
            }
            let mut entries = std::mem::take(heap).into_vec();
            for Reverse((due_us, slot)) in &mut entries {
                let payment = self.payments.get(key_of(*slot)).filter(|payment| payment.slot == *slot);
                let Some(payment) = payment.filter(|payment| payment.in_doubt) else { continue };
                let State::Doubtful(doubt) = payment.state else { continue };
                let word = words.get(&payment.correlation_id);
                if doubt.processor.index() == index && word.is_some_and(|it| it.processor == doubt.processor)
                {
                    *due_us = (*due_us).min(now.monotonic_us);
                    heeded.insert(payment.correlation_id);
                }
            }
            *heap = BinaryHeap::from(entries);
        }
        self.counters.hastened += heeded.len() as u64;
        words.retain(|id, word| now.monotonic_us < word.until_us && !heeded.contains(id));
        !heeded.is_empty()
    }
}
