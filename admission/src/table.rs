//! The table as everybody sees it: its head, the known ids, the claims.

use galo_wire::CorrelationId;

use crate::grant::{Entry, Grant, State};
use crate::hash::{Amount, IdHash, compare};
use crate::layout::{Geometry, LINE, MAGIC, VERSION, header};
use crate::memory::SharedMemory;
use crate::sync::{AtomicU64, Ordering};

/// What a table is made for. The key is secret: it may not follow from what a client can know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Drawn when it is made: the name by which gateways and aggregator know that they mean the same one.
    pub region: u64,
    /// Drawn when it is made.
    pub key: [u64; 2],
}

/// Why memory is not taken for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Nothing was ever written there.
    #[error("it is empty")]
    Empty,
    /// It is something else.
    #[error("it does not begin with \"GALOADMT\": no admission table")]
    Magic,
    /// Another build's.
    #[error("version {0}, expected {VERSION}")]
    Version(u64),
    /// Its head was changed.
    #[error("its head is damaged: the checksum is not that of its words")]
    Head,
    /// The file was cut or has grown.
    #[error("{found} words, expected {expected}")]
    Size {
        /// There are so many.
        found: usize,
        /// Its head says so many.
        expected: usize,
    },
}

/// See the module's documentation.
#[derive(Clone)]
pub struct Table {
    memory: SharedMemory,
    pub(crate) geometry: Geometry,
    identity: Identity,
}

/// What stands in a cell of the claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    pub(crate) fingerprint: u64,
    pub(crate) ring: usize,
    /// Its lower half.
    pub(crate) sequence: u32,
}

impl Cell {
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is what is compared")]
    pub(crate) fn new(hash: IdHash, ring: usize, sequence: u64) -> Self {
        Self { fingerprint: hash.fingerprint(), ring, sequence: sequence as u32 }
    }

    pub(crate) fn to_word(self) -> u64 {
        self.fingerprint << 40 | (self.ring as u64) << 32 | u64::from(self.sequence)
    }

    #[allow(clippy::cast_possible_truncation, reason = "each is cut out of the word")]
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let cell =
            Self { fingerprint: word >> 40, ring: (word >> 32) as usize & 0xff, sequence: word as u32 };
        (word != 0).then_some(cell)
    }
}

/// What is claimed of an id that somebody looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Nobody claims it.
    Free,
    /// It is granted, with this amount in cents.
    Granted(u64),
    /// Somebody may have it.
    Unclear,
}

impl Table {
    /// Makes an empty table of memory that is all zero.
    ///
    /// # Panics
    /// If the memory is of another size than [`Geometry::words_len`].
    #[must_use]
    pub fn create(memory: SharedMemory, geometry: Geometry, identity: Identity) -> Self {
        let words = memory.words();
        assert_eq!(words.len(), geometry.words_len(), "memory of the table's size");
        let Identity { region, key } = identity;
        let head = [MAGIC, VERSION, geometry.to_word(), region, key[0], key[1]];
        words[header::CHECK].store(check(&head), Ordering::Relaxed);
        // The magic last: a table that was not finished is none.
        for (place, word) in words.iter().zip(head).rev() {
            place.store(word, Ordering::SeqCst);
        }
        Self { memory, geometry, identity }
    }

    /// A table that is there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(memory: SharedMemory) -> Result<Self, Refused> {
        let words = memory.words();
        let found = words.len();
        if found <= header::WRITTEN {
            return Err(Refused::Size { found, expected: header::WRITTEN + 1 });
        }
        let head: [u64; header::CHECK] = std::array::from_fn(|index| words[index].load(Ordering::SeqCst));
        match (head[header::MAGIC], head[header::VERSION]) {
            (0, _) => return Err(Refused::Empty),
            (MAGIC, VERSION) => {}
            (MAGIC, other) => return Err(Refused::Version(other)),
            _ => return Err(Refused::Magic),
        }
        if words[header::CHECK].load(Ordering::Relaxed) != check(&head) {
            return Err(Refused::Head);
        }
        let geometry = Geometry::from_word(head[header::GEOMETRY]).ok_or(Refused::Head)?;
        if found != geometry.words_len() {
            return Err(Refused::Size { found, expected: geometry.words_len() });
        }
        let key = [head[header::KEY], head[header::KEY + 1]];
        let identity = Identity { region: head[header::REGION], key };
        Ok(Self { memory, geometry, identity })
    }

    /// How large it is.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What it was made for.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What is granted with this id, as long as the journal may not have it.
    #[must_use]
    pub fn granted(&self, id: CorrelationId) -> Option<Grant> {
        let hash = self.hash(id);
        self.claims_bucket(hash).iter().find_map(|word| {
            let cell = Cell::from_word(word.load(Ordering::Acquire))?;
            let (entry, sequence) = self.entry_of(cell)?;
            entry.granted(sequence).filter(|(other, _)| *other == id)?;
            Some(entry.read(self.identity.region, cell.ring, sequence).ok()?.grant)
        })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.memory.words()
    }

    pub(crate) fn hash(&self, id: CorrelationId) -> IdHash {
        IdHash::new(self.identity.key, id)
    }

    /// Whether the ledger has this id, and if so, whether with this amount. Where that is not surely known, it has it with another one.
    pub(crate) fn known(&self, hash: IdHash, amount_cents: u64) -> Option<bool> {
        let words = self.words();
        let wanted = hash.known_word(Amount::Cents(amount_cents));
        for bucket in hash.known_buckets(self.geometry.known_buckets_log2) {
            let (place, bit) = Geometry::full_bit(bucket);
            if words[place].load(Ordering::Relaxed) & bit != 0 {
                return Some(false);
            }
            for word in self.known_bucket(bucket) {
                if let Some(is_same) = compare(word.load(Ordering::Acquire), wanted) {
                    return Some(is_same);
                }
            }
        }
        None
    }

    pub(crate) fn known_bucket(&self, bucket: usize) -> &[AtomicU64] {
        let start = self.geometry.known() + LINE * bucket;
        &self.words()[start..start + LINE]
    }

    pub(crate) fn claims_bucket(&self, hash: IdHash) -> &[AtomicU64] {
        let bucket = hash.claims_bucket(self.geometry.claims_buckets_log2);
        let start = self.geometry.claims() + LINE * bucket;
        &self.words()[start..start + LINE]
    }

    pub(crate) fn entry(&self, ring: usize, sequence: u64) -> Entry<'_> {
        Entry::at(self.words(), self.geometry.entry(ring, sequence))
    }

    /// Looks through a bucket for an id, leaving out `own`.
    pub(crate) fn standing(&self, id: CorrelationId, hash: IdHash, own: Option<Cell>) -> Standing {
        for word in self.claims_bucket(hash) {
            let Some(cell) = Cell::from_word(word.load(Ordering::Acquire)) else { continue };
            if cell.fingerprint != hash.fingerprint() || Some(cell) == own {
                continue;
            }
            let Some((entry, sequence)) = self.entry_of(cell) else { return Standing::Unclear };
            match entry.granted(sequence) {
                Some((other, _)) if other != id => {}
                Some((_, amount_cents)) => return Standing::Granted(amount_cents),
                None => return Standing::Unclear,
            }
        }
        Standing::Free
    }

    /// The entry that a cell is of, with its whole sequence; none if it is of another time by now.
    pub(crate) fn entry_of(&self, cell: Cell) -> Option<(Entry<'_>, u64)> {
        if cell.ring >= crate::layout::RINGS_LEN_MAX {
            return None;
        }
        let entry = self.entry(cell.ring, cell.sequence.into());
        let (State::Claimed(sequence) | State::Granted(sequence) | State::Revoked(sequence)) = entry.state()
        else {
            return None;
        };
        (sequence & u64::from(u32::MAX) == u64::from(cell.sequence)).then_some((entry, sequence))
    }

    /// Removes a cell, unless somebody else has.
    pub(crate) fn remove(&self, hash: IdHash, cell: Cell) {
        for word in self.claims_bucket(hash) {
            // Whoever finds it gone finds what is wanted.
            if word.load(Ordering::Relaxed) == cell.to_word()
                && word.compare_exchange(cell.to_word(), 0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                return;
            }
        }
    }
}

fn check(head: &[u64; header::CHECK]) -> u64 {
    u64::from(head.iter().fold(0, |sum, word| crc32c::crc32c_append(sum, &word.to_le_bytes())))
}
