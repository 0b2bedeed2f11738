//! Where things stand in the table's memory, in words of eight bytes.
//!
//! ```text
//! word                        what
//! 0                           magic, 1 version, 2 geometry, 3 region, 4..6 hash key, 6 checksum of 0..6
//! 8                           the number of the journal's first record that it does not know to be written
//! 64  + 8 r                   ring r: 0 state, 1 limit, 2 taken, 3 holder, 4 start
//! 64  + 8 RINGS_LEN_MAX       a bit for each bucket of the known ids that had no room
//! then, each from a page on:
//!     known                   buckets of 8 words: 40 bits of the id's hash, 24 of its amount's
//!     claims                  buckets of 8 words: 24 bits of the id's hash, 8 ring, 32 sequence
//!     rings                   each ring's entries of 8 words: 0 state, 1..3 id, 3 cents, 4 decided at, 5 stage and reason,
//!                             6 checksum, 7 the journal's sequence of what became of it
//! ```
//!
//! A bucket and an entry are a cache line each; a ring begins a page, so that its memory is charged to the gateway that fills it.

/// Gateway threads that have a ring at the same time, those that are gone and not yet cleared away included.
pub const RINGS_LEN_MAX: usize = if cfg!(loom) { 2 } else { 16 };

/// Words of a bucket, of an entry and of a ring's head: a cache line.
pub(crate) const LINE: usize = 8;
/// Loom keeps account of each word.
const PAGE: usize = if cfg!(loom) { LINE } else { 512 };

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"GALOADMT");
pub(crate) const VERSION: u64 = 1;

pub(crate) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const GEOMETRY: usize = 2;
    pub(crate) const REGION: usize = 3;
    pub(crate) const KEY: usize = 4;
    pub(crate) const CHECK: usize = 6;
    pub(crate) const WRITTEN: usize = 8;
}

const RING_HEADS: usize = 64;
const FULL_BITS: usize = RING_HEADS + LINE * RINGS_LEN_MAX;

/// How large a table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Buckets of eight known ids, as a power of two.
    pub known_buckets_log2: u32,
    /// Buckets of eight claims, as a power of two.
    pub claims_buckets_log2: u32,
    /// Entries of a ring, as a power of two.
    pub ring_log2: u32,
}

impl Geometry {
    /// Entries of a ring: a second's payments at 8,000 a second and gateway thread, 512 KiB.
    const RING_LOG2: u32 = 13;

    /// 65,536 cells, 512 KiB: with a thousand grants on their way practically no bucket of eight is full, with two full rings one in a thousand.
    const CLAIMS_BUCKETS_LOG2: u32 = 13;

    /// For a ledger that has so many ids at most. Five in eight words are taken then: with two buckets to choose from and the emptier one taken, and ids that
    /// go in the order in which they came, one bucket in 1,700 was full after 20 million of them, and one in three at 72 %.
    #[must_use]
    pub fn for_ids(ids_len_max: usize) -> Self {
        let buckets_len = (ids_len_max / 5 + 1).next_power_of_two();
        Self {
            known_buckets_log2: buckets_len.trailing_zeros().clamp(6, 28),
            claims_buckets_log2: Self::CLAIMS_BUCKETS_LOG2,
            ring_log2: Self::RING_LOG2,
        }
    }

    /// Words of memory that it takes.
    #[must_use]
    pub fn words_len(self) -> usize {
        self.rings() + RINGS_LEN_MAX * self.ring_len() * LINE
    }

    /// Entries of a ring.
    #[must_use]
    pub fn ring_len(self) -> usize {
        1 << self.ring_log2
    }

    pub(crate) fn to_word(self) -> u64 {
        let Self { known_buckets_log2, claims_buckets_log2, ring_log2 } = self;
        u64::from(known_buckets_log2) | u64::from(claims_buckets_log2) << 8 | u64::from(ring_log2) << 16
    }

    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let byte = |shift: u32| u32::from(word.to_le_bytes()[shift as usize]);
        let read = Self { known_buckets_log2: byte(0), claims_buckets_log2: byte(1), ring_log2: byte(2) };
        let is_sound =
            read.known_buckets_log2 <= 28 && read.claims_buckets_log2 <= 24 && read.ring_log2 <= 24;
        (is_sound && read.to_word() == word).then_some(read)
    }

    pub(crate) fn ring_head(ring: usize) -> usize {
        RING_HEADS + LINE * ring
    }

    pub(crate) fn full_bit(bucket: usize) -> (usize, u64) {
        (FULL_BITS + bucket / 64, 1 << (bucket % 64))
    }

    pub(crate) fn full_bits(self) -> std::ops::Range<usize> {
        FULL_BITS..FULL_BITS + (1_usize << self.known_buckets_log2).div_ceil(64)
    }

    pub(crate) fn known(self) -> usize {
        self.full_bits().end.next_multiple_of(PAGE)
    }

    pub(crate) fn claims(self) -> usize {
        (self.known() + (LINE << self.known_buckets_log2)).next_multiple_of(PAGE)
    }

    fn rings(self) -> usize {
        (self.claims() + (LINE << self.claims_buckets_log2)).next_multiple_of(PAGE)
    }

    /// Where the entry of this sequence stands.
    pub(crate) fn entry(self, ring: usize, sequence: u64) -> usize {
        let index = usize::try_from(sequence % (1 << self.ring_log2)).expect("within a ring");
        self.rings() + LINE * (ring * self.ring_len() + index)
    }
}
