//! Where an id may stand, and what stands there for it.
//!
//! SipHash-1-3 of 128 bits under a key that is drawn with the table: clients choose ids, and must not choose which of them meet.

use std::hash::Hasher;

use galo_wire::CorrelationId;
use siphasher::sip128::{Hasher128, SipHasher13};

/// Bits of a hash that tell ids of one bucket apart in a cell of the claims.
const FINGERPRINT_BITS: u32 = 24;
/// Bits of a hash in a word of the known ids; the others are the amount's.
const TAG_BITS: u32 = 40;

/// An id's hash under a table's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IdHash {
    places: u64,
    tag: u64,
}

impl IdHash {
    pub(crate) fn new(key: [u64; 2], id: CorrelationId) -> Self {
        let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
        hasher.write(&id.0);
        let hash = hasher.finish128();
        Self { places: hash.h1, tag: hash.h2 }
    }

    /// The two buckets of the known ids that it may stand in.
    pub(crate) fn known_buckets(self, buckets_log2: u32) -> [usize; 2] {
        let mask = (1 << buckets_log2) - 1;
        [low_bits(self.places, mask), low_bits(self.places >> 32, mask)]
    }

    /// The one bucket of the claims that it may stand in.
    pub(crate) fn claims_bucket(self, buckets_log2: u32) -> usize {
        low_bits(self.tag >> TAG_BITS, (1 << buckets_log2) - 1)
    }

    /// Tells it from others of its bucket of the claims, mostly; never 0.
    pub(crate) fn fingerprint(self) -> u64 {
        (self.tag & ((1 << FINGERPRINT_BITS) - 1)).max(1)
    }

    /// The word that stands for the id with this amount among the known; never 0.
    pub(crate) fn known_word(self, amount: Amount) -> u64 {
        let tag = (self.tag & ((1 << TAG_BITS) - 1)).max(1);
        let digest = match amount {
            Amount::Unstated => 0,
            // Under the hash, which clients do not know: any other amount has the same digest once in 16 million.
            Amount::Cents(cents) => {
                let mixed = (cents ^ self.places).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (mixed >> TAG_BITS).max(1)
            }
        };
        tag | digest << TAG_BITS
    }
}

/// What a word of the known ids says of the amount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Amount {
    Cents(u64),
    /// Whether the same payment comes again takes more than its amount to say.
    Unstated,
}

/// Whether both stand for the same id, and whether for the same amount.
pub(crate) fn compare(known: u64, wanted: u64) -> Option<bool> {
    let tag = (1 << TAG_BITS) - 1;
    (known & tag == wanted & tag).then_some(known == wanted)
}

fn low_bits(word: u64, mask: u64) -> usize {
    usize::try_from(word & mask).expect("a place in memory")
}
