//! What is said of a granted payment, and how it stands in a ring.

use galo_wire::{CorrelationId, Processor, Reason, Stage};

use crate::layout::LINE;
use crate::sync::{AtomicU64, Ordering};

/// A payment as its gateway accepts it, with the attempt that follows at once, if any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Who.
    pub correlation_id: CorrelationId,
    /// How much.
    pub amount_cents: u64,
    /// The planned attempt's `requestedAt`; while waiting, when that was decided.
    pub decided_at_ms: u64,
    /// The processor of the planned attempt, or waiting.
    pub stage: Stage,
    /// Why.
    pub reason: Reason,
}

/// A grant that the ledger has not taken in yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// Where it stands.
    pub sequence: u64,
    /// What it says.
    pub grant: Grant,
    /// The number of the journal's record that holds it, if an aggregator got so far; it may not have been written.
    pub journaled_as: Option<u64>,
}

/// An entry that was published and is not what its owner wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("ring {ring}, entry {sequence}: its checksum is not that of its words")]
pub struct Corrupt {
    /// Whose.
    pub ring: usize,
    /// Which.
    pub sequence: u64,
}

/// How far an entry got, with the sequence that it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Its owner fills it and claims a cell. Nobody has been promised anything.
    Claimed(u64),
    /// The payment is accepted.
    Granted(u64),
    /// It was given up, by its owner or by the aggregator.
    Revoked(u64),
    /// Nothing was written here yet.
    Unused,
}

impl State {
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Unused => 0,
            Self::Claimed(sequence) => sequence << 2 | 1,
            Self::Granted(sequence) => sequence << 2 | 2,
            Self::Revoked(sequence) => sequence << 2 | 3,
        }
    }

    pub(crate) fn from_word(word: u64) -> Self {
        let sequence = word >> 2;
        match word & 3 {
            1 => Self::Claimed(sequence),
            2 => Self::Granted(sequence),
            3 => Self::Revoked(sequence),
            _ => Self::Unused,
        }
    }
}

/// One entry of a ring.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a>(&'a [AtomicU64; LINE]);

const STATE: usize = 0;
const ID: usize = 1;
const CENTS: usize = 3;
const DECIDED_AT: usize = 4;
const STAGE_AND_REASON: usize = 5;
const CHECK: usize = 6;
const JOURNALED_AS: usize = 7;

impl<'a> Entry<'a> {
    pub(crate) fn at(words: &'a [AtomicU64], place: usize) -> Self {
        Self(words[place..place + LINE].as_array().expect("a line of words"))
    }

    pub(crate) fn state(self) -> State {
        State::from_word(self.0[STATE].load(Ordering::Acquire))
    }

    /// Writes what it says; nobody believes a word of it before it is granted.
    pub(crate) fn fill(self, region: u64, sequence: u64, grant: &Grant) {
        self.0[STATE].store(State::Claimed(sequence).to_word(), Ordering::SeqCst);
        // Whoever reads a word of what follows finds out that it is not the former grant's.
        crate::sync::fence(Ordering::Release);
        let said = to_words(grant);
        for (place, word) in self.0[ID..].iter().zip(said) {
            place.store(word, Ordering::Relaxed);
        }
        self.0[CHECK].store(check(region, sequence, &said), Ordering::Relaxed);
        self.0[JOURNALED_AS].store(0, Ordering::Relaxed);
    }

    /// One of two outcomes of a claim; the first that is set stands.
    pub(crate) fn end_claim(self, sequence: u64, end: State) -> Result<(), State> {
        let claimed = State::Claimed(sequence).to_word();
        self.0[STATE]
            .compare_exchange(claimed, end.to_word(), Ordering::SeqCst, Ordering::SeqCst)
            .map(|_| ())
            .map_err(State::from_word)
    }

    /// Who is granted here, and how much, if it is this sequence's grant from the first word to the last.
    pub(crate) fn granted(self, sequence: u64) -> Option<(CorrelationId, u64)> {
        if self.state() != State::Granted(sequence) {
            return None;
        }
        let said = self.said();
        crate::sync::fence(Ordering::Acquire);
        let is_still = self.0[STATE].load(Ordering::Relaxed) == State::Granted(sequence).to_word();
        is_still.then(|| (id_of(&said), said[CENTS - ID]))
    }

    /// Whose id stands here, whatever its state.
    pub(crate) fn correlation_id(self) -> CorrelationId {
        id_of(&self.said())
    }

    /// A grant that nobody changes any more: it is not free before the ledger has it.
    pub(crate) fn read(self, region: u64, ring: usize, sequence: u64) -> Result<Published, Corrupt> {
        let said = self.said();
        let is_whole = self.0[CHECK].load(Ordering::Relaxed) == check(region, sequence, &said);
        let grant = is_whole.then(|| from_words(&said)).flatten().ok_or(Corrupt { ring, sequence })?;
        let journaled_as = self.0[JOURNALED_AS].load(Ordering::Relaxed);
        Ok(Published { sequence, grant, journaled_as: (journaled_as > 0).then_some(journaled_as) })
    }

    /// Of a grant that nobody can read.
    pub(crate) fn revoke_damaged(self, sequence: u64) {
        self.0[STATE].store(State::Revoked(sequence).to_word(), Ordering::SeqCst);
    }

    pub(crate) fn set_journaled_as(self, journal_sequence: u64) {
        self.0[JOURNALED_AS].store(journal_sequence, Ordering::Release);
    }

    pub(crate) fn journaled_as(self) -> u64 {
        self.0[JOURNALED_AS].load(Ordering::Relaxed)
    }

    fn said(self) -> [u64; CHECK - ID] {
        std::array::from_fn(|index| self.0[ID + index].load(Ordering::Relaxed))
    }
}

fn to_words(grant: &Grant) -> [u64; CHECK - ID] {
    let Grant { correlation_id, amount_cents, decided_at_ms, stage, reason } = *grant;
    let id = u128::from_le_bytes(correlation_id.0);
    let [low, high] = [id, id >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).expect("64 bits"));
    [low, high, amount_cents, decided_at_ms, u64::from(stage as u8) | u64::from(reason as u8) << 8]
}

fn id_of(said: &[u64; CHECK - ID]) -> CorrelationId {
    CorrelationId((u128::from(said[0]) | u128::from(said[1]) << 64).to_le_bytes())
}

fn from_words(said: &[u64; CHECK - ID]) -> Option<Grant> {
    let [stage, reason, rest @ ..] = said[STAGE_AND_REASON - ID].to_le_bytes();
    let stage = match stage.checked_sub(1) {
        None => Stage::Waiting,
        Some(number) => Stage::at(*Processor::ALL.get(usize::from(number))?),
    };
    let reason = match reason.checked_sub(1) {
        None => Reason::Unstated,
        Some(number) => *Reason::ALL.get(usize::from(number))?,
    };
    let correlation_id = id_of(said);
    let [amount_cents, decided_at_ms] = [said[CENTS - ID], said[DECIDED_AT - ID]];
    (rest == [0; 6]).then_some(Grant { correlation_id, amount_cents, decided_at_ms, stage, reason })
}

/// Over the table's name and the sequence as well: what is another table's or another time's is as wrong as a flipped bit.
fn check(region: u64, sequence: u64, said: &[u64; CHECK - ID]) -> u64 {
    let begin = crc32c::crc32c(&region.to_le_bytes());
    let check = [sequence]
        .iter()
        .chain(said)
        .fold(begin, |sum, word| crc32c::crc32c_append(sum, &word.to_le_bytes()));
    u64::from(check)
}
