//! The ids that have ended and are remembered: in the order in which they are forgotten, and found by id.
//!
//! What is known of an id stands in a queue, written once and never moved; a hash table holds only where: four bytes an id.
//! Taking in a million ids is therefore mostly writing to memory in order, and the one table that is looked at out of order
//! stays near the processor's caches: 5 MB for 800,000 ids, where tables of whole payments took 35.
//!
//! The table is spread over [`SHARD_COUNT`] parts by the hash, which is seeded, so that no client chooses the part.
//! Room for the usual bound is made beforehand; beyond it one part grows at a time, a few thousand entries at once.
//!
//! **A replay** makes the same changes by the million, and each look at the table misses the processor's caches. So it only notes
//! what is to be looked for, inserted and forgotten, and [`KnownIds::settle`] does 262,144 of that at a time, part by part of the
//! table, each of which then stays in the first cache. Within a part the order is kept, and an id always belongs to
//! the same one: what is found is the same. Only it is found later, and whoever reads a journal has to say then which record was wrong.
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
use galo_wire::page::RememberedRow;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Vacancy;

use super::EndedPayment;
use super::id_hash::IdHash;

/// Parts of the table. A part that grows or tidies itself up looks at the queue for each of its ids: 3,000 of 800,000.
const SHARD_COUNT: usize = 256;

/// Rows of the queue that are allocated together: 32 KB, so that the queue never moves and gives back what it has left.
const CHUNK_LEN: usize = 1_024;

/// Ids that room is made for beforehand, at most: 5 MB, of which the fifth that says which places are free is touched at once.
const RESERVED_LEN_MAX: usize = 900_000;

/// Steps that are noted before they are done: 4 MB, and up to as much for the ids among them. Each part of the table then has some
/// 1,024 of them while it stands in the first cache: three for each line that is brought there.
const NOTED_LEN_MAX: usize = 1 << 18;

/// What a replay has noted, and not looked at the table for yet.
#[derive(Clone, Copy)]
struct Note {
    hash: u64,
    /// Of a step that inserts or forgets, where in the queue; else which one of the ids that are to be absent.
    place: u32,
    /// Which one of the changes since the last time, and in the two lowest bits the step.
    change_and_step: u32,
}

const _: () = assert!(size_of::<Note>() == 16, "the memory that is stated above");

/// Changes at most until they are settled: they are counted in 30 bits.
const CHANGES_MAX: u32 = 1 << 24;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    ExpectAbsent = 0,
    Insert = 1,
    Forget = 2,
}

/// What a replay has noted.
struct Notes {
    /// By part of the table, each in order.
    lists: Vec<Vec<Note>>,
    len: usize,
    absent: Vec<CorrelationId>,
    /// Ids that are still in the queue, and forgotten.
    forgotten_len: usize,
    changes: u32,
}

/// A change did not fit, as it turns out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Late {
    /// How many changes have come after it.
    pub(super) changes_since: u32,
    /// It wanted to insert the id; else it only said that the id was not there.
    pub(super) inserts: bool,
}

/// An ended id and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) id: CorrelationId,
    pub(super) payment: EndedPayment,
}

impl Row {
    /// As it stands in a snapshot.
    pub(super) fn to_page_row(self) -> RememberedRow {
        let Self { id: correlation_id, payment } = self;
        let (requested_at_ms, processor) = (payment.requested_at_ms(), payment.processor());
        let (amount_cents, declined) = (payment.amount_cents, payment.is_declined());
        RememberedRow { correlation_id, amount_cents, requested_at_ms, processor, declined }
    }
}

const _: () = assert!(size_of::<Row>() == 32, "the memory that is stated above");

/// See the module's documentation.
pub(super) struct KnownIds {
    hasher: IdHash,
    shards: Vec<HashTable<u32>>,
    rows: Rows,
    /// While a journal is read.
    notes: Option<Notes>,
    /// Notes that a part of the table usually gets.
    notes_capacity: usize,
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
            notes: None,
            notes_capacity: len_max.min(NOTED_LEN_MAX + NOTED_LEN_MAX / 8) / SHARD_COUNT,
        }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        let forgotten_len = self.notes.as_ref().map_or(0, |notes| notes.forgotten_len);
        usize::try_from(self.rows.places.end - self.rows.places.start).expect("they are in memory")
            - forgotten_len
    }

    /// The places that are taken. What stands at one stays there until it is forgotten.
    pub(super) fn places(&self) -> Range<u64> {
        self.rows.places.clone()
    }

    /// The place of the first one.
    pub(super) fn first(&self) -> u64 {
        let forgotten_len = self.notes.as_ref().map_or(0, |notes| notes.forgotten_len);
        self.rows.places.start + forgotten_len as u64
    }

    /// What stands at a place that is taken.
    pub(super) fn at(&self, place: u64) -> Row {
        self.rows.at(place)
    }

    /// What is known of an id.
    ///
    /// # Panics
    /// While a journal is read.
    pub(super) fn get(&self, id: CorrelationId) -> Option<EndedPayment> {
        Some(self.rows.at_short(self.find(id)?).payment)
    }

    /// Where an id stands.
    ///
    /// # Panics
    /// While a journal is read.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is what is compared")]
    pub(super) fn place_of(&self, id: CorrelationId) -> Option<u64> {
        let start = self.rows.places.start;
        self.find(id).map(|place| start + u64::from(place.wrapping_sub(start as u32)))
    }

    fn find(&self, id: CorrelationId) -> Option<u32> {
        assert!(self.notes.is_none(), "nobody asks while a journal is read");
        let hash = self.hasher.hash_one(id);
        let same = |place: &u32| self.rows.at_short(*place).id == id;
        self.shards[shard_of(hash)].find(hash, same).copied()
    }

    /// Whether an id is among them. While a journal is read the answer is no, and [`Self::settle`] says if that was wrong.
    pub(super) fn contains(&mut self, id: CorrelationId) -> bool {
        let Some(notes) = &mut self.notes else { return self.get(id).is_some() };
        let place = u32::try_from(notes.absent.len()).expect("settled before there are so many");
        notes.absent.push(id);
        notes.push(self.hasher.hash_one(id), place, Step::ExpectAbsent);
        false
    }

    /// Puts an id at the end. False, and nothing done, if it is there already; while a journal is read the answer is yes, and
    /// [`Self::settle`] says if that was wrong.
    ///
    /// # Panics
    /// With 2³² ids.
    pub(super) fn insert_new(&mut self, id: CorrelationId, payment: EndedPayment) -> bool {
        let hash = self.hasher.hash_one(id);
        let place = self.next_place();
        if let Some(notes) = &mut self.notes {
            notes.push(hash, place, Step::Insert);
        } else if !self.insert_place(hash, place, |_| id) {
            return false;
        }
        self.rows.push(Row { id, payment });
        true
    }

    /// From here on a journal is read.
    pub(super) fn begin_replay(&mut self) {
        let lists = (0..SHARD_COUNT).map(|_| Vec::with_capacity(self.notes_capacity)).collect();
        let notes = Notes { lists, len: 0, absent: Vec::new(), forgotten_len: 0, changes: 0 };
        self.notes.get_or_insert(notes);
    }

    /// The journal is read to its end.
    ///
    /// # Panics
    /// If steps that are noted do not fit: they are settled before.
    pub(super) fn end_replay(&mut self) {
        assert_eq!(self.settle(), Ok(()), "whoever reads a journal settles what it says");
        self.notes = None;
    }

    /// The next change comes.
    pub(super) fn count_change(&mut self) {
        if let Some(notes) = &mut self.notes {
            assert!(notes.changes <= CHANGES_MAX, "settled when it is due");
            notes.changes += 1;
        }
    }

    /// Whether enough is noted to be done together.
    pub(super) fn is_due(&self) -> bool {
        let is_due = |notes: &Notes| notes.len >= NOTED_LEN_MAX || notes.changes >= CHANGES_MAX;
        self.notes.as_ref().is_some_and(is_due)
    }

    /// Does what is noted.
    ///
    /// # Errors
    /// The first change that did not fit. Nothing may be asked any more then.
    pub(super) fn settle(&mut self) -> Result<(), Late> {
        let Some(mut notes) = self.notes.take() else { return Ok(()) };
        let mut misfit: Option<Note> = None;
        for list in &mut notes.lists {
            for note in list.drain(..) {
                if !self.take_step(note, &notes.absent)
                    && misfit.is_none_or(|first| note.change() < first.change())
                {
                    misfit = Some(note);
                }
            }
        }
        let late = misfit.map(|note| Late {
            changes_since: notes.changes - note.change(),
            inserts: note.step() == Step::Insert,
        });
        (0..notes.forgotten_len).for_each(|_| self.rows.pop());
        notes.absent.clear();
        (notes.len, notes.forgotten_len, notes.changes) = (0, 0, 0);
        self.notes = Some(notes);
        late.map_or(Ok(()), Err)
    }

    /// False if it does not fit.
    fn take_step(&mut self, note: Note, absent: &[CorrelationId]) -> bool {
        let Note { hash, place, .. } = note;
        match note.step() {
            Step::ExpectAbsent => {
                let same = |other: &u32| self.rows.at_short(*other).id == absent[place as usize];
                self.shards[shard_of(hash)].find(hash, same).is_none()
            }
            Step::Insert => self.insert_place(hash, place, |rows| rows.at_short(place).id),
            Step::Forget => {
                // An id that was there twice is in the table once.
                let entry = self.shards[shard_of(hash)].find_entry(hash, |other| *other == place);
                entry.map(|entry| entry.remove()).is_ok()
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
    fn next_place(&self) -> u32 {
        assert!(self.len() < u32::MAX as usize, "places are told apart by their lower half");
        self.rows.places.end as u32
    }

    /// The id is asked for only where another one looks like it. False, and nothing done, if that is the same.
    fn insert_place(&mut self, hash: u64, place: u32, id: impl Fn(&Rows) -> CorrelationId) -> bool {
        let Self { hasher, shards, rows, .. } = self;
        let same = |place: &u32| rows.at_short(*place).id == id(rows);
        let hash_of = |place: &u32| hasher.hash_one(rows.at_short(*place).id);
        let Vacancy::Vacant(vacant) = shards[shard_of(hash)].entry(hash, same, hash_of) else { return false };
        vacant.insert(place);
        true
    }

    /// Forgets the first one, if there is one, and says what was known of it.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
    pub(super) fn forget_first(&mut self) -> Option<EndedPayment> {
        if self.len() == 0 {
            return None;
        }
        let first = self.first();
        let Row { id, payment } = self.rows.at(first);
        let (hash, place) = (self.hasher.hash_one(id), first as u32);
        if let Some(notes) = &mut self.notes {
            notes.forgotten_len += 1;
            notes.push(hash, place, Step::Forget);
            return Some(payment);
        }
        let entry = self.shards[shard_of(hash)].find_entry(hash, |other| *other == place);
        entry.expect("what is in the queue is in the table").remove();
        self.rows.pop();
        Some(payment)
    }

    /// Forgets all, and counts places from 0 again.
    ///
    /// # Panics
    /// If steps are noted and not settled.
    pub(super) fn clear(&mut self) {
        assert!(self.notes.as_ref().is_none_or(|notes| notes.len == 0), "settled before all is forgotten");
        self.shards.iter_mut().for_each(HashTable::clear);
        self.rows = Rows::new();
    }
}

impl Note {
    fn change(self) -> u32 {
        self.change_and_step >> 2
    }

    fn step(self) -> Step {
        match self.change_and_step & 3 {
            0 => Step::ExpectAbsent,
            1 => Step::Insert,
            _ => Step::Forget,
        }
    }
}

impl Notes {
    fn push(&mut self, hash: u64, place: u32, step: Step) {
        let change_and_step = self.changes << 2 | step as u32;
        self.lists[shard_of(hash)].push(Note { hash, place, change_and_step });
        self.len += 1;
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
                let payment = EndedPayment::new(step, step + 1, Processor::FALLBACK);
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
            assert!(known.insert_new(id(1), EndedPayment::new(1, 1, Processor::DEFAULT)));
        }
    }

    /// The same changes to one that looks at once and to one that notes them, settled at various distances.
    #[test]
    fn a_replay_makes_the_same_changes_and_finds_the_first_that_does_not_fit() {
        let mut random = Random::new(8);
        for (len_max, apart) in [(0, 1_u64), (1, 3), (50, 1), (50, 7), (3_000, 5_000), (CHUNK_LEN, 70_000)] {
            let (mut known, mut replayed) = (KnownIds::new(5, len_max), KnownIds::new(5, len_max));
            replayed.begin_replay();
            let mut misfit_at = None;
            for change in 1..=4 * apart + 2_000 {
                // Few misfits, and more of them towards the end.
                let number = if random.below(20_000) < change / 200 { random.below(change) } else { change };
                let payment = EndedPayment::new(number, change, Processor::DEFAULT);
                let inserts = change % 3 > 0;
                replayed.count_change();
                if inserts && known.len() == len_max {
                    known.forget_first();
                    replayed.forget_first();
                }
                let fits =
                    if inserts { known.insert_new(id(number), payment) } else { !known.contains(id(number)) };
                if inserts {
                    assert!(replayed.insert_new(id(number), payment), "the answer is yes for now");
                } else {
                    assert!(!replayed.contains(id(number)), "the answer is no for now");
                }
                misfit_at = misfit_at.or((!fits).then_some((change, inserts)));
                assert!(misfit_at.is_some() || known.len() == replayed.len());
                if change % apart == 0 {
                    let late = replayed.settle().err();
                    let late_at = late.map(|late| (change - u64::from(late.changes_since), late.inserts));
                    assert_eq!(late_at, misfit_at);
                    if misfit_at.is_some() {
                        break;
                    }
                    let rows = |known: &KnownIds| -> Vec<_> {
                        known
                            .places()
                            .map(|place| (place, known.at(place).id, known.at(place).payment.amount_cents))
                            .collect()
                    };
                    assert!(change % 50 > 0 || rows(&known) == rows(&replayed));
                }
            }
            if misfit_at.is_none() {
                replayed.end_replay();
                assert!((0..5_000).all(|number| known.contains(id(number)) == replayed.contains(id(number))));
            }
        }
    }

    #[test]
    fn ids_that_are_taken_in_together_are_found_and_none_comes_twice() {
        let payment = |number| EndedPayment::new(number, 1, Processor::DEFAULT);
        for len in [0, 1, 5_000, NOTED_LEN_MAX as u64 - 1, NOTED_LEN_MAX as u64, 100_000] {
            for twice in [None, Some(0), Some(len / 2), Some(len.saturating_sub(1))] {
                let mut known = KnownIds::new(5, 100_000);
                assert!(known.insert_new(id(len), payment(len)));
                known.begin_replay();
                for number in (0..len).chain(twice) {
                    assert!(known.insert_new(id(number), payment(number)));
                    assert!(!known.is_due() || known.len() > NOTED_LEN_MAX);
                }
                let settled = known.settle();
                assert_eq!(settled.is_ok(), twice.is_none(), "{len} {twice:?}");
                if settled.is_ok() {
                    known.end_replay();
                    assert!(
                        (0..=len)
                            .all(|number| known.get(id(number)).is_some_and(|p| p.amount_cents == number))
                    );
                    assert_eq!(known.len() as u64, len + 1);
                    for _ in 0..len / 2 {
                        known.forget_first();
                    }
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
            assert!(known.insert_new(id(number), EndedPayment::new(1, 1, Processor::DEFAULT)));
            if known.len() > 800_000 {
                known.forget_first();
            }
        }
        assert_eq!((buckets(&known), known.len()), (before, 800_000));
    }
}
