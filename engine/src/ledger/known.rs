//! The processed ids that are remembered: in the order in which they are forgotten, and found by id.
//!
//! What is known of an id stands in a queue, written once and never moved; a hash table holds only where: four bytes an id.
//! Taking in a million ids is therefore mostly writing to memory in order, and the one table that is looked at out of order
//! stays near the processor's caches: 5 MB for 800,000 ids, where tables of whole payments took 35.
//!
//! The table is spread over [`SHARD_COUNT`] parts by the hash, which is seeded, so that no client chooses the part.
//! Room for the usual bound is made beforehand; beyond it one part grows at a time, a few thousand entries at once.
//!
//! Rejected: to keep a part of the hash beside the place, so that a table grows without looking at the queue. It nearly doubles
//! the table, which every start pays, and tables within the usual bound never grow.
//!
//! Must never: forget an id before its turn; hold one twice. Memory: 32 bytes an id in the queue, and 5 bytes a place in the
//! table, of which at least 7 in 16 are taken once it is full: at most 44 bytes an id.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::Range;

use galo_wire::CorrelationId;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Vacancy;

use super::ProcessedPayment;
use super::id_hash::IdHash;

/// Parts of the table. A part that grows or tidies itself up looks at the queue for each of its ids: 3,000 of 800,000.
const SHARD_COUNT: usize = 256;

/// Rows of the queue that are allocated together: 32 KB, so that the queue never moves and gives back what it has left.
const CHUNK_LEN: usize = 1_024;

/// Ids that room is made for beforehand, at most: 5 MB, of which the fifth that says which places are free is touched at once.
const RESERVED_LEN_MAX: usize = 900_000;

/// Ids taken in before they are found: 1 MB. Each part of the table then gets some 256 of them while it stands in the first cache.
const UNSETTLED_LEN_MAX: usize = 1 << 16;

/// A processed id and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) id: CorrelationId,
    pub(super) payment: ProcessedPayment,
}

const _: () = assert!(size_of::<Row>() == 32, "the memory that is stated above");

/// See the module's documentation.
pub(super) struct KnownIds {
    hasher: IdHash,
    shards: Vec<HashTable<u32>>,
    rows: Rows,
    /// Hash and place of rows that no table has yet.
    unsettled: Vec<(u64, u32)>,
}

/// The queue. Places are counted from when it was made: what stands at a place stays there.
struct Rows {
    /// All full but the last. The first holds the place `places.start`, each other one the next [`CHUNK_LEN`].
    chunks: VecDeque<Vec<Row>>,
    /// A chunk that was left, to be used again.
    spare: Option<Vec<Row>>,
    places: Range<u64>,
}

impl Rows {
    fn new() -> Self {
        Self { chunks: VecDeque::new(), spare: None, places: 0..0 }
    }

    fn at(&self, place: u64) -> Row {
        self.row(place - self.places.start)
    }

    /// The table holds the lower half of a place; the queue is shorter than its range.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is what is compared")]
    fn at_short(&self, place: u32) -> Row {
        self.row(place.wrapping_sub(self.places.start as u32).into())
    }

    /// The row that stands so many behind the first.
    fn row(&self, distance: u64) -> Row {
        let start = usize::try_from(self.places.start % CHUNK_LEN as u64).expect("below a chunk's length");
        let index = start + usize::try_from(distance).expect("within the queue");
        self.chunks[index / CHUNK_LEN][index % CHUNK_LEN]
    }

    fn push(&mut self, row: Row) {
        if self.places.end.is_multiple_of(CHUNK_LEN as u64) {
            let chunk = self.spare.take().unwrap_or_else(|| Vec::with_capacity(CHUNK_LEN));
            self.chunks.push_back(chunk);
        }
        self.chunks.back_mut().expect("one was begun").push(row);
        self.places.end += 1;
    }

    fn pop(&mut self) {
        self.places.start += 1;
        if self.places.start.is_multiple_of(CHUNK_LEN as u64) {
            let mut chunk = self.chunks.pop_front().expect("it held what was forgotten");
            chunk.clear();
            self.spare = Some(chunk);
        }
    }
}

impl KnownIds {
    /// None yet, with room for the usual number.
    pub(super) fn new(hash_seed: u64, len_max: usize) -> Self {
        let mean = len_max.min(RESERVED_LEN_MAX) / SHARD_COUNT;
        // Hashes spread like random numbers: a part has more than six standard deviations above the mean once in 10⁹.
        let capacity = if mean == 0 { 0 } else { mean + 6 * mean.isqrt() };
        Self {
            hasher: IdHash::new(hash_seed),
            shards: (0..SHARD_COUNT).map(|_| HashTable::with_capacity(capacity)).collect(),
            rows: Rows::new(),
            unsettled: Vec::new(),
        }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.rows.places.end - self.rows.places.start).expect("they are in memory")
    }

    /// The places that are taken. What stands at one stays there until it is forgotten.
    pub(super) fn places(&self) -> Range<u64> {
        self.rows.places.clone()
    }

    /// What stands at a place that is taken.
    pub(super) fn at(&self, place: u64) -> Row {
        self.rows.at(place)
    }

    /// What is known of an id.
    ///
    /// # Panics
    /// If ids were taken in and not settled.
    pub(super) fn get(&self, id: CorrelationId) -> Option<ProcessedPayment> {
        assert!(self.unsettled.is_empty(), "ids that were taken in are settled before any is looked for");
        let hash = self.hasher.hash_one(id);
        let same = |place: &u32| self.rows.at_short(*place).id == id;
        let place = self.shards[shard_of(hash)].find(hash, same)?;
        Some(self.rows.at_short(*place).payment)
    }

    /// Brings the part of the table where an id would stand into the processor's caches. For many ids in a row: one look does
    /// not wait for the one before.
    pub(super) fn touch(&self, id: CorrelationId) {
        let hash = self.hasher.hash_one(id);
        // Whatever looks like the id is compared with a place that is not taken: the queue is not looked at.
        let next = self.next_place();
        let found = self.shards[shard_of(hash)].find(hash, |place| *place == next);
        assert!(found.is_none(), "no table holds a place that is not taken");
    }

    /// Likewise, for the first ids in the queue, which are about to be forgotten.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is what is compared")]
    pub(super) fn touch_first(&self, len: usize) {
        let end = self.rows.places.end.min(self.rows.places.start + len as u64);
        for place in self.rows.places.start..end {
            let hash = self.hasher.hash_one(self.rows.at(place).id);
            let found = self.shards[shard_of(hash)].find(hash, |other| *other == place as u32);
            assert!(found.is_some(), "what is in the queue is in the table");
        }
    }

    /// Whether an id is among them.
    pub(super) fn contains(&self, id: CorrelationId) -> bool {
        self.get(id).is_some()
    }

    /// Puts an id at the end. False, and nothing done, if it is there already.
    ///
    /// # Panics
    /// With 2³² ids.
    pub(super) fn insert_new(&mut self, id: CorrelationId, payment: ProcessedPayment) -> bool {
        assert!(self.unsettled.is_empty(), "ids that were taken in are settled before others come");
        let hash = self.hasher.hash_one(id);
        let place = self.next_place();
        if !self.insert_place(|_| id, hash, place) {
            return false;
        }
        self.rows.push(Row { id, payment });
        true
    }

    /// Puts an id at the end that is surely not there. It is not found before [`Self::settle`].
    ///
    /// One id after the other, each look at the table is a miss of the processor's caches; many at a time, part by part, few
    /// are. Returns false if an id among those that were taken in before was there already.
    pub(super) fn take_in(&mut self, id: CorrelationId, payment: ProcessedPayment) -> bool {
        let place = self.next_place();
        self.unsettled.push((self.hasher.hash_one(id), place));
        self.rows.push(Row { id, payment });
        self.unsettled.len() < UNSETTLED_LEN_MAX || self.settle()
    }

    /// Makes the ids that were taken in be found. Returns false if one of them was there already; then nothing may be
    /// asked any more.
    pub(super) fn settle(&mut self) -> bool {
        let unsettled = std::mem::take(&mut self.unsettled);
        // Sorted by part: counted, then each put where its part's begin.
        let mut ends = [0; SHARD_COUNT];
        unsettled.iter().for_each(|(hash, _)| ends[shard_of(*hash)] += 1);
        let mut begin = 0;
        for end in &mut ends {
            begin += std::mem::replace(end, begin);
        }
        let mut sorted = vec![(0, 0); unsettled.len()];
        for (hash, place) in unsettled {
            let end = &mut ends[shard_of(hash)];
            sorted[*end] = (hash, place);
            *end += 1;
        }
        sorted.into_iter().all(|(hash, place)| self.insert_place(|rows| rows.at_short(place).id, hash, place))
    }

    #[allow(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
    fn next_place(&self) -> u32 {
        assert!(self.len() < u32::MAX as usize, "places are told apart by their lower half");
        self.rows.places.end as u32
    }

    /// The id is asked for only where another one looks like it.
    fn insert_place(&mut self, id: impl Fn(&Rows) -> CorrelationId, hash: u64, place: u32) -> bool {
        let Self { hasher, shards, rows, .. } = self;
        let same = |place: &u32| rows.at_short(*place).id == id(rows);
        let hash_of = |place: &u32| hasher.hash_one(rows.at_short(*place).id);
        let Vacancy::Vacant(vacant) = shards[shard_of(hash)].entry(hash, same, hash_of) else { return false };
        vacant.insert(place);
        true
    }

    /// Forgets the first one, if there is one.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
    pub(super) fn forget_first(&mut self) {
        assert!(self.unsettled.is_empty(), "ids that were taken in are settled before any is forgotten");
        if self.rows.places.is_empty() {
            return;
        }
        let first = self.rows.places.start;
        let hash = self.hasher.hash_one(self.rows.at(first).id);
        let entry = self.shards[shard_of(hash)].find_entry(hash, |place| *place == first as u32);
        entry.expect("what is in the queue is in the table").remove();
        self.rows.pop();
    }

    /// Forgets all, and counts places from 0 again.
    pub(super) fn clear(&mut self) {
        self.shards.iter_mut().for_each(HashTable::clear);
        self.rows = Rows::new();
        self.unsettled = Vec::new();
    }
}

/// By bits of the hash that the tables do not use: they take the lowest ones and the highest seven.
fn shard_of(hash: u64) -> usize {
    usize::from(hash.to_le_bytes()[5])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use galo_wire::Processor;

    use super::*;
    use crate::random::Random;

    fn id(number: u64) -> CorrelationId {
        CorrelationId(u128::from(number).to_le_bytes())
    }

    /// Against a plain queue and a plain table: ids of a small range, so that most come twice, and growing bounds.
    #[test]
    fn they_are_what_a_plain_model_says() {
        let mut random = Random::new(3);
        for len_max in [1, 7, CHUNK_LEN - 1, CHUNK_LEN, 3 * CHUNK_LEN + 5, 40_000] {
            let mut known = KnownIds::new(random.next_u64(), len_max.min(5_000));
            // Across the end of a place's lower half, too.
            let begin = [0, (1 << 32) - 700][usize::from(len_max % 2 == 1)];
            known.rows.places = begin / 1_024 * 1_024..begin / 1_024 * 1_024;
            let (mut order, mut table) = (VecDeque::new(), HashMap::new());
            for step in 0..3 * len_max as u64 + 500 {
                let number = random.below(2 * len_max as u64 + 10);
                let payment = ProcessedPayment::new(step, step + 1, Processor::Fallback);
                let is_new = !table.contains_key(&number);
                assert_eq!(known.insert_new(id(number), payment), is_new);
                if is_new {
                    table.insert(number, step);
                    order.push_back(number);
                }
                if order.len() > len_max {
                    known.forget_first();
                    table.remove(&order.pop_front().expect("there is one"));
                }
                assert_eq!(known.len(), order.len());
                let asked = random.below(2 * len_max as u64 + 10);
                let found = known.get(id(asked)).map(|payment| payment.amount_cents);
                assert_eq!(found, table.get(&asked).copied());
                if let Some(index) = order.len().checked_sub(1) {
                    let index = random.below(index as u64 + 1);
                    let row = known.at(known.places().start + index);
                    let number = order[usize::try_from(index).expect("small")];
                    assert_eq!((row.id, row.payment.amount_cents), (id(number), table[&number]));
                }
            }
            assert!(known.rows.chunks.len() <= len_max / CHUNK_LEN + 2, "left chunks are given back");
            known.clear();
            assert!(known.len() == 0 && order.iter().all(|number| !known.contains(id(*number))));
            known.forget_first();
            assert!(known.insert_new(id(1), ProcessedPayment::new(1, 1, Processor::Default)));
        }
    }

    #[test]
    fn ids_that_are_taken_in_together_are_found_and_none_comes_twice() {
        let payment = |number| ProcessedPayment::new(number, 1, Processor::Default);
        for len in [0, 1, 5_000, UNSETTLED_LEN_MAX as u64 - 1, UNSETTLED_LEN_MAX as u64, 100_000] {
            for twice in [None, Some(0), Some(len / 2), Some(len.saturating_sub(1))] {
                let mut known = KnownIds::new(5, 100_000);
                assert!(known.insert_new(id(len), payment(len)));
                let mut fits = (0..len).all(|number| known.take_in(id(number), payment(number)));
                if let Some(number) = twice {
                    fits = fits && known.take_in(id(number), payment(number));
                }
                fits = fits && known.settle();
                assert_eq!(fits, twice.is_none(), "{len} {twice:?}");
                if fits {
                    assert!(
                        (0..=len)
                            .all(|number| known.get(id(number)).is_some_and(|p| p.amount_cents == number))
                    );
                    assert_eq!(known.len() as u64, len + 1);
                    (0..len / 2).for_each(|_| known.forget_first());
                    // The one that was there before went first.
                    assert!((0..len).all(|number| known.contains(id(number)) == (number + 1 >= len / 2)));
                }
            }
        }
    }

    #[test]
    fn the_usual_number_fits_without_growing() {
        let mut known = KnownIds::new(11, 800_000);
        let buckets = |known: &KnownIds| known.shards.iter().map(HashTable::num_buckets).sum::<usize>();
        let before = buckets(&known);
        assert_eq!(before, 1 << 20);
        for number in 0..1_000_000 {
            assert!(known.insert_new(id(number), ProcessedPayment::new(1, 1, Processor::Default)));
            if known.len() > 800_000 {
                known.forget_first();
            }
        }
        assert_eq!((buckets(&known), known.len()), (before, 800_000));
    }
}
