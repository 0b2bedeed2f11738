//! The aggregator's side: opens and closes rings, takes grants out of them, and says which ids are known.

use galo_wire::CorrelationId;

use crate::grant::{Corrupt, Published, State};
use crate::hash::{Amount, IdHash, compare};
use crate::layout::{Geometry, LINE, RINGS_LEN_MAX, header};
use crate::sync::{Ordering, fence};
use crate::table::{Cell, Table};

/// Words of a ring's head.
pub(crate) const RING_STATE: usize = 0;
/// The first sequence that may not be granted.
pub(crate) const LIMIT: usize = 1;
/// The first sequence that the journal may not have.
pub(crate) const TAKEN: usize = 2;
const HOLDER: usize = 3;
/// Where an owner begins that has not had the ring before.
pub(crate) const START: usize = 4;

/// A ring, as it was opened for a gateway thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring {
    /// Which, below [`RINGS_LEN_MAX`].
    pub number: usize,
    /// Counts how often it was opened.
    pub opening: u32,
}

/// Whether a ring's owner may grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RingState {
    Closed(u32),
    Open(u32),
}

impl RingState {
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Closed(opening) => u64::from(opening) << 1,
            Self::Open(opening) => u64::from(opening) << 1 | 1,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "written from 32 bits")]
    fn from_word(word: u64) -> Self {
        let opening = (word >> 1) as u32;
        if word & 1 == 0 { Self::Closed(opening) } else { Self::Open(opening) }
    }
}

/// What stands in the way of an id that the ledger lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserved {
    /// Nothing: no gateway can grant it any more.
    Free,
    /// It is granted, and the ledger has not taken it in yet.
    Granted,
}

/// See the module's documentation.
pub struct Registrar {
    table: Table,
    /// The next entry to look at, by ring. Between that and what is [taken](TAKEN) lies what the journal has not written yet.
    seen: [u64; RINGS_LEN_MAX],
    /// Buckets that had no room for one more known id.
    full_count: u64,
}

impl Registrar {
    /// Of a table that is there, with what other aggregators have left in it.
    #[must_use]
    pub fn new(table: Table) -> Self {
        let mut registrar = Self { table, seen: [0; RINGS_LEN_MAX], full_count: 0 };
        registrar.seen = std::array::from_fn(|ring| registrar.head(ring, TAKEN));
        registrar
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The number of the journal's first record that it does not know to be written. A journal that has fewer is another one, or an older copy.
    #[must_use]
    pub fn written_sequence(&self) -> u64 {
        self.word(header::WRITTEN)
    }

    /// Grants that an open ring may still make: places among the open payments that are promised to it.
    #[must_use]
    pub fn promised(&self, ring: usize) -> u64 {
        if self.is_open(ring) { self.head(ring, LIMIT).saturating_sub(self.seen[ring]) } else { 0 }
    }

    /// Lets an open ring grant so many more than it has, as far as it has entries for them. What was promised is not taken back.
    pub fn promise(&mut self, ring: usize, promised: u64) {
        let full = self.head(ring, TAKEN) + self.table.geometry.ring_len() as u64;
        let limit = (self.seen[ring] + promised).min(full);
        if self.is_open(ring) && limit > self.head(ring, LIMIT) {
            self.set_head(ring, LIMIT, limit);
        }
    }

    /// Who has the ring, by what it said of itself when it was opened; 0 if nobody ever had.
    #[must_use]
    pub fn holder(&self, ring: usize) -> u64 {
        self.head(ring, HOLDER)
    }

    /// Whether its owner may grant.
    #[must_use]
    pub fn is_open(&self, ring: usize) -> bool {
        matches!(RingState::from_word(self.head(ring, RING_STATE)), RingState::Open(_))
    }

    /// The ring is this one's, which had it before, or is the first to have it since [`Self::clear_away`].
    pub fn hold(&mut self, ring: usize, holder: u64) {
        self.set_head(ring, HOLDER, holder);
    }

    /// Opens a ring to whoever [holds](Self::hold) it.
    pub fn open(&mut self, ring: usize) -> Ring {
        let (RingState::Closed(last) | RingState::Open(last)) =
            RingState::from_word(self.head(ring, RING_STATE));
        let opening = last.wrapping_add(1);
        // What is seen already is never looked at again, whether it is written or not.
        self.set_head(ring, START, self.seen[ring]);
        // What was promised before went to others meanwhile.
        self.set_head(ring, LIMIT, self.seen[ring]);
        self.set_head(ring, RING_STATE, RingState::Open(opening).to_word());
        Ring { number: ring, opening }
    }

    /// Its owner grants nothing more, wherever it stands. What it has published is to be taken afterwards.
    pub fn close(&mut self, ring: usize) {
        let (RingState::Closed(opening) | RingState::Open(opening)) =
            RingState::from_word(self.head(ring, RING_STATE));
        self.set_head(ring, RING_STATE, RingState::Closed(opening).to_word());
        fence(Ordering::SeqCst);
        let sequence = self.behind_published(ring);
        let entry = self.table.entry(ring, sequence);
        if entry.state() == State::Claimed(sequence) {
            // Published a moment ago, or given up: either way it is not claimed any more.
            self.revoke(ring, sequence);
        }
    }

    /// Makes a closed ring ready for another owner, once all that it holds is taken and written, and its last owner is gone for good.
    ///
    /// False, and nothing done, if something is left in it.
    pub fn clear_away(&mut self, ring: usize) -> bool {
        self.close(ring);
        if self.head(ring, TAKEN) != self.seen[ring] || self.published(ring) != Ok(None) {
            return false;
        }
        self.set_head(ring, TAKEN, self.seen[ring]);
        self.set_head(ring, LIMIT, self.seen[ring]);
        self.set_head(ring, HOLDER, 0);
        // A cell that its owner had no time to remove.
        let claims = self.table.geometry.claims();
        let end = claims + (LINE << self.table.geometry.claims_buckets_log2);
        for word in &self.table.words()[claims..end] {
            let found = word.load(Ordering::Relaxed);
            if Cell::from_word(found).is_some_and(|cell| cell.ring == ring)
                && word.compare_exchange(found, 0, Ordering::SeqCst, Ordering::Relaxed).is_err()
            {
                // Somebody has removed it, and perhaps put another one there.
                continue;
            }
        }
        true
    }

    /// The next grant of a ring that the ledger is to take in, in the order in which they were made.
    ///
    /// # Errors
    /// If it is not what its owner wrote.
    pub fn published(&mut self, ring: usize) -> Result<Option<Published>, Corrupt> {
        loop {
            let sequence = self.seen[ring];
            let entry = self.table.entry(ring, sequence);
            match entry.state() {
                State::Granted(it) if it == sequence => {
                    let published = entry.read(self.table.identity().region, ring, sequence)?;
                    return Ok(Some(published));
                }
                State::Revoked(it) if it == sequence => {
                    self.seen[ring] += 1;
                }
                State::Claimed(_) | State::Granted(_) | State::Revoked(_) | State::Unused => return Ok(None),
            }
        }
    }

    /// How many grants a ring holds that no aggregator has seen written. Changes nothing.
    #[must_use]
    pub fn untaken(&self, ring: usize, journal_sequence: u64) -> u64 {
        let untaken = (self.seen[ring]..self.behind_published(ring)).filter(|sequence| {
            let entry = self.table.entry(ring, *sequence);
            let is_written = (1..journal_sequence).contains(&entry.journaled_as());
            entry.state() == State::Granted(*sequence) && !is_written
        });
        untaken.count() as u64
    }

    /// Gives up what a ring holds that is not what its owner wrote: of a file that went through a loss of power. How many.
    pub fn discard_damaged(&mut self, ring: usize) -> u64 {
        let mut damaged = 0;
        for sequence in self.seen[ring]..self.behind_published(ring) {
            let entry = self.table.entry(ring, sequence);
            if entry.state() == State::Granted(sequence)
                && entry.read(self.table.identity().region, ring, sequence).is_err()
            {
                entry.revoke_damaged(sequence);
                damaged += 1;
            }
        }
        damaged
    }

    /// The ledger has taken in what [`Self::published`] gave; it is the journal's record of this number.
    pub fn took(&mut self, ring: usize, journal_sequence: u64) {
        self.table.entry(ring, self.seen[ring]).set_journaled_as(journal_sequence);
        self.seen[ring] += 1;
    }

    /// The journal has all records before this one: what they hold needs no place here any more.
    pub fn written(&mut self, next_sequence: u64) {
        if self.word(header::WRITTEN) != next_sequence {
            self.store(header::WRITTEN, next_sequence);
        }
        for ring in 0..RINGS_LEN_MAX {
            let taken = self.head(ring, TAKEN);
            let mut free = taken;
            while free < self.seen[ring] {
                let entry = self.table.entry(ring, free);
                if entry.state() == State::Granted(free) {
                    if entry.journaled_as() >= next_sequence {
                        break;
                    }
                    let hash = self.table.hash(entry.correlation_id());
                    self.table.remove(hash, Cell::new(hash, ring, free));
                }
                free += 1;
            }
            if free != taken {
                self.set_head(ring, TAKEN, free);
            }
        }
    }

    /// Adds an id to those that the ledger has; `None` as an amount where more than that tells whether the same payment comes again.
    pub fn remember(&mut self, id: CorrelationId, amount_cents: Option<u64>) {
        self.remember_at(id, amount_cents);
    }

    /// Where it stands now, if there was room.
    fn remember_at(&mut self, id: CorrelationId, amount_cents: Option<u64>) -> Option<usize> {
        let hash = self.table.hash(id);
        let word = hash.known_word(amount_cents.map_or(Amount::Unstated, Amount::Cents));
        let buckets = hash.known_buckets(self.table.geometry.known_buckets_log2);
        let free = buckets.map(|bucket| {
            self.table.known_bucket(bucket).iter().filter(|it| it.load(Ordering::Relaxed) == 0).count()
        });
        let emptier = usize::from(free[1] > free[0]);
        if free[emptier] == 0 {
            self.full_count += 1;
            for bucket in buckets {
                let (place, bit) = Geometry::full_bit(bucket);
                self.table.words()[place].fetch_or(bit, Ordering::SeqCst);
            }
            return None;
        }
        let bucket = self.table.known_bucket(buckets[emptier]);
        let index = bucket.iter().position(|it| it.load(Ordering::Relaxed) == 0);
        let index = index.expect("one is free, and nobody else writes here");
        bucket[index].store(word, Ordering::SeqCst);
        Some(self.table.geometry.known() + LINE * buckets[emptier] + index)
    }

    /// The amount of an id that was remembered without one: from now on a gateway may say that it comes again while nobody else is there to say so.
    pub fn remember_amount(&mut self, id: CorrelationId, amount_cents: u64) {
        let hash = self.table.hash(id);
        let [unstated, stated] =
            [Amount::Unstated, Amount::Cents(amount_cents)].map(|it| hash.known_word(it));
        for bucket in hash.known_buckets(self.table.geometry.known_buckets_log2) {
            for word in self.table.known_bucket(bucket) {
                if word.load(Ordering::Relaxed) == unstated {
                    word.store(stated, Ordering::SeqCst);
                    return;
                }
            }
        }
        // Forgotten meanwhile, or without room.
    }

    /// The ledger has forgotten an id that was remembered. Among several that look like it, the one with this amount goes.
    pub fn forget(&mut self, id: CorrelationId, amount_cents: u64) {
        let hash = self.table.hash(id);
        let [stated, unstated] =
            [Amount::Cents(amount_cents), Amount::Unstated].map(|it| hash.known_word(it));
        let buckets = hash.known_buckets(self.table.geometry.known_buckets_log2);
        let words = || buckets.iter().flat_map(|bucket| self.table.known_bucket(*bucket));
        let find = |is: &dyn Fn(u64) -> bool| words().find(|word| is(word.load(Ordering::Relaxed)));
        let word = find(&|word| word == stated)
            .or_else(|| find(&|word| word == unstated))
            .or_else(|| find(&|word| compare(word, unstated).is_some()));
        // Or it had no room in either of its buckets, which say so for good.
        if let Some(word) = word {
            word.store(0, Ordering::SeqCst);
        }
    }

    /// Makes the known ids those of the ledger: an aggregator that died may have left some out, and others in. Gateways may go on claiming
    /// meanwhile; all that rings hold has to be taken.
    pub fn remember_exactly(&mut self, ids: impl Iterator<Item = (CorrelationId, Option<u64>)>) {
        let start = self.table.geometry.known();
        let mut found = vec![0_u64; (self.table.geometry.claims() - start).div_ceil(64)];
        let mut missing = Vec::new();
        for (id, amount_cents) in ids {
            let hash = self.table.hash(id);
            let wanted = hash.known_word(amount_cents.map_or(Amount::Unstated, Amount::Cents));
            let places = hash.known_buckets(self.table.geometry.known_buckets_log2).into_iter();
            let places = places.flat_map(|bucket| LINE * bucket..LINE * (bucket + 1));
            // One with another amount, or with none, is set right where it is: no gateway is to find the id unknown for a moment.
            let is_free = |place: &usize| {
                let is_found = found[place / 64] & 1 << (place % 64) != 0;
                !is_found && compare(self.word(start + place), wanted).is_some()
            };
            let mut free = places.clone().filter(is_free);
            match free.clone().find(|place| self.word(start + place) == wanted).or_else(|| free.next()) {
                Some(place) => {
                    self.store(start + place, wanted);
                    found[place / 64] |= 1 << (place % 64);
                }
                None => missing.push((id, amount_cents)),
            }
        }
        for (id, amount_cents) in missing {
            if let Some(place) = self.remember_at(id, amount_cents) {
                found[(place - start) / 64] |= 1 << ((place - start) % 64);
            }
        }
        for place in start..self.table.geometry.claims() {
            let is_found = found[(place - start) / 64] & 1 << ((place - start) % 64) != 0;
            if !is_found && self.word(place) != 0 {
                self.store(place, 0);
            }
        }
    }

    /// Ids that found no room since the start: theirs and their neighbours' go by way of the aggregator.
    #[must_use]
    pub fn full_count(&self) -> u64 {
        self.full_count
    }

    /// Keeps every gateway from granting an id that was just [remembered](Self::remember), and that the ledger lacks.
    pub fn reserve(&mut self, id: CorrelationId) -> Reserved {
        fence(Ordering::SeqCst);
        let hash = self.table.hash(id);
        let mut reserved = Reserved::Free;
        for place in 0..LINE {
            let word = self.table.claims_bucket(hash)[place].load(Ordering::SeqCst);
            let Some(cell) = Cell::from_word(word).filter(|it| it.fingerprint == hash.fingerprint()) else {
                continue;
            };
            if self.settle(id, hash, cell) == Reserved::Granted {
                reserved = Reserved::Granted;
            }
        }
        reserved
    }

    fn settle(&self, id: CorrelationId, hash: IdHash, cell: Cell) -> Reserved {
        let Some((entry, sequence)) = self.table.entry_of(cell) else {
            // Of a claim that ended long ago.
            self.table.remove(hash, cell);
            return Reserved::Free;
        };
        if entry.state() == State::Claimed(sequence) {
            self.revoke(cell.ring, sequence);
        }
        match entry.granted(sequence) {
            // What is seen already is the ledger's, which has forgotten it since.
            Some((other, _)) if other == id && sequence >= self.seen[cell.ring] => Reserved::Granted,
            Some(_) => Reserved::Free,
            None => {
                self.table.remove(hash, cell);
                Reserved::Free
            }
        }
    }

    /// Everything is forgotten. All rings have to be closed, and what they hold taken.
    pub fn purge(&mut self) {
        let known = self.table.geometry.known()..self.table.geometry.claims();
        let words = self.table.words();
        for word in words[known].iter().chain(&words[self.table.geometry.full_bits()]) {
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::SeqCst);
            }
        }
    }

    fn revoke(&self, ring: usize, sequence: u64) {
        let entry = self.table.entry(ring, sequence);
        if entry.end_claim(sequence, State::Revoked(sequence)).is_ok() {
            let hash = self.table.hash(entry.correlation_id());
            self.table.remove(hash, Cell::new(hash, ring, sequence));
        }
    }

    /// Where a ring's owner is at work.
    fn behind_published(&self, ring: usize) -> u64 {
        let is_over = |sequence: &u64| {
            let state = self.table.entry(ring, *sequence).state();
            state == State::Granted(*sequence) || state == State::Revoked(*sequence)
        };
        (self.seen[ring]..).find(|sequence| !is_over(sequence)).expect("a ring is finite")
    }

    fn word(&self, word: usize) -> u64 {
        self.table.words()[word].load(Ordering::SeqCst)
    }

    fn store(&self, word: usize, value: u64) {
        self.table.words()[word].store(value, Ordering::SeqCst);
    }

    fn head(&self, ring: usize, word: usize) -> u64 {
        self.word(Geometry::ring_head(ring) + word)
    }

    fn set_head(&self, ring: usize, word: usize, value: u64) {
        self.store(Geometry::ring_head(ring) + word, value);
    }
}
