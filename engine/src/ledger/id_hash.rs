//! The hash of an id: one multiplication, under a key that clients do not know.
//!
//! Ids are chosen by clients. Most are random; one who wanted to slow the ledger down would send such as collide. So both halves
//! are masked with 64 secret bits each, drawn at every start, before they are multiplied and the product is folded. Without the key
//! nobody can tell which ids meet, and answers do not show it.
//!
//! Rejected: SipHash (std's), safer than tables of 800,000 ids need and several times as slow; foldhash with a seed that is
//! passed in, whose second factor is a published constant: all ids with a certain lower half collide under any seed.
//!
//! Not for anything that an attacker sees the result of.

use std::hash::{BuildHasher, Hasher};

use crate::random::Random;

/// Makes the hashers of one process.
#[derive(Clone, Copy)]
pub(super) struct IdHash {
    key: [u64; 2],
}

impl IdHash {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self { key: [random.next_u64(), random.next_u64()] }
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { key: self.key, hash: 0 }
    }
}

/// Hashes one id.
pub(super) struct IdHasher {
    key: [u64; 2],
    hash: u64,
}

impl Hasher for IdHasher {
    #[allow(clippy::cast_possible_truncation, reason = "halves of a number of twice the size")]
    fn write_u128(&mut self, id: u128) {
        let halves = [id as u64 ^ self.key[0], (id >> 64) as u64 ^ self.key[1]];
        let product = u128::from(halves[0]) * u128::from(halves[1]);
        self.hash = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is written as one number");
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use galo_wire::CorrelationId;

    use super::*;

    #[test]
    fn ids_that_collide_under_one_key_do_not_under_another() {
        let (known, other) = (IdHash::new(1), IdHash::new(2));
        let ids = (0..10_000_u128).map(|number| (u128::from(known.key[1]) << 64) | number);
        let hashes = |hash: IdHash| -> HashSet<u64> {
            ids.clone().map(|id| hash.hash_one(CorrelationId(id.to_le_bytes()))).collect()
        };
        assert_eq!(hashes(known).len(), 1, "whoever knows the key can choose such ids");
        assert_eq!(hashes(other).len(), 10_000);
    }
}
