//! What a processor has stored, in the order in which it stored it.
//!
//! One id is stored once: the second insert fails and changes nothing. Sums are kept per millisecond and per second of
//! `requestedAt`, so a range costs its ragged edges in milliseconds and the rest in seconds (15 s: at most 2,000 + 14
//! entries), however many payments there are.
//!
//! A payment takes 32 bytes in the list and about 30 in the index; the sums add about 50 for each distinct
//! millisecond, shared by all payments of that millisecond.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

/// A payment as it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// The id that the caller chose.
    pub correlation_id: Uuid,
    /// Whole cents, after rounding. The real processors take zero and negative amounts too.
    pub amount_cents: i64,
    /// Milliseconds since the Unix epoch, UTC.
    pub requested_at_ms: i64,
}

/// How many payments, and their exact sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Number of payments.
    pub requests: u64,
    /// Sum in cents.
    pub amount_cents: i128,
}

impl Total {
    fn add(&mut self, other: Total) {
        self.requests += other.requests;
        self.amount_cents += other.amount_cents;
    }
}

/// All payments of one processor.
#[derive(Debug, Default)]
pub struct Store {
    payments: Vec<Payment>,
    // An index, not a reference, and four bytes: two thousand million payments would not fit in memory anyway.
    // Never iterated, so the hash's random keys show nowhere.
    position: HashMap<Uuid, u32>,
    by_ms: BTreeMap<i64, Total>,
    by_second: BTreeMap<i64, Total>,
    total: Total,
    generation: u64,
}

impl Store {
    /// An empty store with room for `payments_len` payments, so that growing does not stall a run of that size.
    #[must_use]
    pub fn with_capacity(payments_len: usize) -> Self {
        Store {
            payments: Vec::with_capacity(payments_len),
            position: HashMap::with_capacity(payments_len),
            ..Store::default()
        }
    }

    /// Stores a payment unless its id is there already; says whether it did.
    ///
    /// # Panics
    ///
    /// At 2^32 payments, 140 GB of them.
    pub fn insert(&mut self, payment: Payment) -> bool {
        let Entry::Vacant(slot) = self.position.entry(payment.correlation_id) else {
            return false;
        };
        slot.insert(u32::try_from(self.payments.len()).expect("fewer than 2^32 payments"));
        self.payments.push(payment);
        let one = Total { requests: 1, amount_cents: i128::from(payment.amount_cents) };
        self.by_ms.entry(payment.requested_at_ms).or_default().add(one);
        self.by_second.entry(payment.requested_at_ms.div_euclid(1000)).or_default().add(one);
        self.total.add(one);
        true
    }

    /// The payment with this id.
    #[must_use]
    pub fn get(&self, correlation_id: Uuid) -> Option<Payment> {
        let position = *self.position.get(&correlation_id)?;
        self.payments.get(usize::try_from(position).ok()?).copied()
    }

    /// Payments in the order of insertion, from a position on.
    #[must_use]
    pub fn list(&self, from: usize) -> &[Payment] {
        self.payments.get(from..).unwrap_or_default()
    }

    /// Number of payments stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payments.len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payments.is_empty()
    }

    /// Everything stored.
    #[must_use]
    pub fn total(&self) -> Total {
        self.total
    }

    /// Payments whose `requestedAt` lies in `from_ms..=to_ms`.
    #[must_use]
    pub fn total_between(&self, from_ms: i64, to_ms: i64) -> Total {
        let mut sum = Total::default();
        if from_ms > to_ms {
            return sum;
        }
        // Seconds that lie wholly inside: first..end.
        let second_first = from_ms.div_euclid(1000) + i64::from(from_ms.rem_euclid(1000) != 0);
        let second_end = to_ms.saturating_add(1).div_euclid(1000);
        if second_first >= second_end {
            self.by_ms.range(from_ms..=to_ms).for_each(|(_, total)| sum.add(*total));
            return sum;
        }
        self.by_ms.range(from_ms..second_first * 1000).for_each(|(_, total)| sum.add(*total));
        self.by_second.range(second_first..second_end).for_each(|(_, total)| sum.add(*total));
        // One past the end, since an inclusive range may not be empty.
        self.by_ms.range(second_end * 1000..to_ms.saturating_add(1)).for_each(|(_, total)| sum.add(*total));
        sum
    }

    /// Forgets every payment.
    pub fn purge(&mut self) {
        self.payments.clear();
        self.position.clear();
        self.by_ms.clear();
        self.by_second.clear();
        self.total = Total::default();
        self.generation += 1;
    }

    /// Changes with each purge: a position in the list is worth something only within one generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payment(id: u128, amount_cents: i64, requested_at_ms: i64) -> Payment {
        Payment { correlation_id: Uuid::from_u128(id), amount_cents, requested_at_ms }
    }

    #[test]
    fn an_id_is_stored_once() {
        let mut store = Store::default();
        assert!(store.insert(payment(1, 100, 5000)));
        assert!(!store.insert(payment(1, 999, 6000)));
        assert_eq!(store.get(Uuid::from_u128(1)), Some(payment(1, 100, 5000)));
        assert_eq!(store.total(), Total { requests: 1, amount_cents: 100 });
        assert_eq!(store.total_between(6000, 6000), Total::default());
    }

    #[test]
    fn bounds_are_inclusive() {
        let mut store = Store::default();
        for (id, ms) in [999, 1000, 1001, 1999, 2000, 2001, 3000].into_iter().enumerate() {
            store.insert(payment(u128::try_from(id).unwrap(), 1, ms));
        }
        assert_eq!(store.total_between(1000, 2000).requests, 4);
        assert_eq!(store.total_between(1000, 1999).requests, 3);
        assert_eq!(store.total_between(1001, 3000).requests, 5);
        assert_eq!(store.total_between(2001, 2001).requests, 1);
        assert_eq!(store.total_between(2000, 1000).requests, 0);
    }

    #[test]
    fn a_purge_forgets_all() {
        let mut store = Store::with_capacity(8);
        store.insert(payment(1, 100, 5000));
        store.purge();
        assert!(store.is_empty());
        assert_eq!((store.total(), store.total_between(0, 10_000)), (Total::default(), Total::default()));
        assert_eq!(store.generation(), 1);
        assert!(store.insert(payment(1, 100, 5000)));
    }

    proptest! {
        // The plain model: look at every payment.
        #[test]
        fn a_range_is_the_sum_of_its_payments(
            times in prop::collection::vec(-3500_i64..3500, 0..200),
            from_ms in -4000_i64..4000,
            to_ms in -4000_i64..4000,
        ) {
            let mut store = Store::default();
            for (id, ms) in times.iter().enumerate() {
                store.insert(payment(u128::try_from(id).unwrap(), ms * 7, *ms));
            }
            let inside = || times.iter().filter(|ms| (from_ms..=to_ms).contains(*ms));
            let plain = Total {
                requests: u64::try_from(inside().count()).unwrap(),
                amount_cents: inside().map(|ms| i128::from(ms * 7)).sum(),
            };
            prop_assert_eq!(store.total_between(from_ms, to_ms), plain);
        }
    }
}
