//! What was decided about each of the last payments, for whoever asks why one went where it went.
//!
//! A ring of places. An accepted payment takes the next one, and the payment that had it is forgotten; an intent for a payment
//! that has none (it was in a snapshot, or so many came after it) takes one too, and begins in the middle. Six decisions fit
//! into a place: the first is kept, for it tells what the payment met when it came, and with it the newest five.
//! Whatever is not kept is said to be [`forgotten`](History::forgotten): a list that does not say so is the whole truth.
//!
//! Decided is what has a consequence: the first choice (an attempt, or to wait), and each attempt after it. To go on waiting is
//! none. How an attempt ended stands with it; the same attempt made again, by whichever gateway, is no other one.
//!
//! The clocks of two gateways may differ. No decision is said to be before the one that it followed.
//!
//! Places are numbered in the order in which they are taken. Ids are found through as many chains as there are places, each from its newest
//! place to older ones; a number that was given out more than a ring ago ends its chain. So a place is taken without a look at
//! who had it, and nothing ever grows or is tidied up. Rejected: to take it out of its chain first, which misses the
//! processor's caches once or twice for each payment.
//!
//! Must never: show what was decided about another payment, or about the same id in a former life; let the ledger depend on
//! it. (The coordinator asks when a payment was accepted; what it decides by that stands in the journal.) Survives a restart as far as the journal goes: snapshots leave it out.
//!
//! Memory: 104 bytes a place and 4 for its chain, 6.75 MiB for all [`PAYMENTS_LEN`]. Reserved at the start, touched when first used.

use std::hash::BuildHasher;

use galo_wire::{
    AttemptState, CorrelationId, DECISIONS_LEN_MAX, History, Outcome, PastDecision, Processor, Reason, Stage,
};

use super::id_hash::IdHash;

/// Payments whose histories are kept. At the contest's 500 payments a second, the last two minutes'.
pub(super) const PAYMENTS_LEN: usize = 1 << 16;

/// A decision: 12 bytes, its time counted from the payment's first one.
#[derive(Clone, Copy)]
struct Decision {
    after_ms: u32,
    waited_for_ms: u32,
    stage: Stage,
    reason: Reason,
    attempt: AttemptState,
    was_in_doubt: bool,
}

/// In the order of use: a payment that is sent at once touches the first half alone.
#[derive(Clone, Copy)]
#[repr(C)]
struct Place {
    first_at_ms: u64,
    id: CorrelationId,
    /// The number of the next older place of the same chain.
    link: u32,
    len: u8,
    forgotten: bool,
    /// The first decision was made when the payment was accepted.
    is_from_start: bool,
    /// From `len` on, what the payment before left.
    decisions: [Decision; DECISIONS_LEN_MAX],
}

const _: () = assert!(size_of::<Place>() == 104, "the memory that is stated above");

const NOTHING: Decision = Decision {
    after_ms: 0,
    waited_for_ms: 0,
    stage: Stage::Waiting,
    reason: Reason::Unstated,
    attempt: AttemptState::UnderWay,
    was_in_doubt: false,
};

impl Place {
    fn decisions(&mut self) -> &mut [Decision] {
        &mut self.decisions[..usize::from(self.len)]
    }

    fn push(&mut self, at_ms: u64, decision: Decision) {
        if self.len == 0 {
            self.first_at_ms = at_ms;
        }
        let after_ms = u32::try_from(at_ms.saturating_sub(self.first_at_ms)).unwrap_or(u32::MAX);
        let after_ms = after_ms.max(self.decisions().last().map_or(0, |last| last.after_ms));
        if usize::from(self.len) == DECISIONS_LEN_MAX {
            self.decisions.copy_within(2.., 1);
            self.forgotten = true;
            self.len -= 1;
        }
        self.decisions[usize::from(self.len)] = Decision { after_ms, ..decision };
        self.len += 1;
    }

    fn to_history(self) -> History {
        let past = |decision: Decision| PastDecision {
            at_ms: self.first_at_ms.saturating_add(decision.after_ms.into()),
            waited_for_ms: decision.waited_for_ms,
            stage: decision.stage,
            reason: decision.reason,
            attempt: decision.attempt,
            was_in_doubt: decision.was_in_doubt,
        };
        let mut history = History::EMPTY;
        history.forgotten = self.forgotten;
        self.decisions[..usize::from(self.len)].iter().for_each(|it| history.push(past(*it)));
        history
    }
}

/// See the module's documentation.
pub(super) struct Histories {
    hasher: IdHash,
    /// The number of a chain's newest place.
    heads: Box<[u32]>,
    places: Vec<Place>,
    /// The number that is given out next, modulo 2³².
    next: u32,
}

impl Histories {
    /// None yet, with room for those of `len` payments, a power of two.
    pub(super) fn new(hash_seed: u64, len: usize) -> Self {
        let next = u32::try_from(len).ok().filter(|len| len.is_power_of_two()).map(first_number);
        Self {
            hasher: IdHash::new(hash_seed),
            // Zero pages of the kernel's until somebody uses them.
            heads: vec![0; len].into(),
            places: Vec::with_capacity(len),
            next: next.expect("a power of two that 32 bits can count"),
        }
    }

    /// A payment was accepted: its first decision. Without a reason it is not known what went before.
    pub(super) fn accepted(
        &mut self,
        id: CorrelationId,
        at_ms: u64,
        stage: Stage,
        reason: Reason,
        in_doubt: bool,
    ) {
        let is_stated = reason != Reason::Unstated;
        let place = self.begin(id, !is_stated);
        if is_stated || stage != Stage::Waiting {
            let attempt = if in_doubt { AttemptState::InDoubt } else { AttemptState::UnderWay };
            place.push(at_ms, Decision { stage, reason, attempt, was_in_doubt: in_doubt, ..NOTHING });
        }
    }

    /// An open payment is about to be sent.
    pub(super) fn intended(
        &mut self,
        id: CorrelationId,
        at_ms: u64,
        processor: Processor,
        reason: Reason,
        waited_for_ms: u32,
    ) {
        let place = match self.find(id) {
            Some(index) => &mut self.places[index],
            None => self.begin(id, true),
        };
        // Whoever moves on from an attempt says by that that it was refused, or never sent.
        if let Some(last) = place.decisions().last_mut()
            && last.stage != Stage::Waiting
            && last.attempt == AttemptState::UnderWay
        {
            last.attempt = AttemptState::Refused;
        }
        place.push(at_ms, Decision { waited_for_ms, stage: Stage::at(processor), reason, ..NOTHING });
    }

    /// An attempt ended. Of a payment whose history is forgotten nothing is begun: what it came to is in the ledger.
    pub(super) fn resolved(
        &mut self,
        id: CorrelationId,
        requested_at_ms: u64,
        processor: Processor,
        outcome: Outcome,
    ) {
        let Some(index) = self.find(id) else { return };
        let place = &mut self.places[index];
        let stage = Stage::at(processor);
        // A decline is the word behind a refusal that was told of before.
        let is_open = |attempt| match attempt {
            AttemptState::UnderWay | AttemptState::InDoubt => true,
            AttemptState::Refused => outcome == Outcome::Declined,
            AttemptState::Processed | AttemptState::Declined => false,
        };
        let attempt = match outcome {
            Outcome::Processed => AttemptState::Processed,
            Outcome::Refused | Outcome::Absent => AttemptState::Refused,
            Outcome::Declined => AttemptState::Declined,
            Outcome::Unknown => AttemptState::InDoubt,
        };
        let of_it = place.decisions().iter_mut().rfind(|it| it.stage == stage && is_open(it.attempt));
        if let Some(decision) = of_it {
            decision.attempt = attempt;
            decision.was_in_doubt |= outcome == Outcome::Unknown;
        } else if outcome == Outcome::Processed {
            // By an attempt that is not among them.
            place.forgotten = true;
            place.push(requested_at_ms, Decision { stage, attempt, ..NOTHING });
        }
    }

    /// What is kept of a payment's.
    pub(super) fn of(&self, id: CorrelationId) -> History {
        self.find(id).map_or(History::FORGOTTEN, |index| self.places[index].to_history())
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.heads.fill(0);
        self.next = first_number(u32::try_from(self.heads.len()).expect("asserted at the start"));
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked to a chain's number")]
    fn chain_of(&self, id: CorrelationId) -> usize {
        self.hasher.hash_one(id) as usize & (self.heads.len() - 1)
    }

    /// The place of this number. Their count divides 2³².
    fn index_of(&self, number: u32) -> usize {
        number.wrapping_sub(1) as usize & (self.heads.len() - 1)
    }

    fn find(&self, id: CorrelationId) -> Option<usize> {
        let (mut link, mut age_before) = (self.heads[self.chain_of(id)], 0);
        loop {
            let age = self.next.wrapping_sub(link) as usize;
            // Each is older than the one before it, so what a number of 2³² payments ago leads to ends, too.
            if age <= age_before || age > self.heads.len() {
                return None;
            }
            let index = self.index_of(link);
            // The newest stands first: of an id that came twice, its present life.
            if self.places[index].id == id {
                return Some(index);
            }
            (link, age_before) = (self.places[index].link, age);
        }
    }

    /// When a payment was accepted; `None` if that is not among what is kept.
    pub(super) fn accepted_at_ms(&self, id: CorrelationId) -> Option<u64> {
        let place = &self.places[self.find(id)?];
        (place.is_from_start && place.len > 0).then_some(place.first_at_ms)
    }

    /// Takes the next place.
    fn begin(&mut self, id: CorrelationId, forgotten: bool) -> &mut Place {
        let index = self.index_of(self.next);
        let chain = self.chain_of(id);
        let link = std::mem::replace(&mut self.heads[chain], self.next);
        self.next = self.next.wrapping_add(1);
        if index == self.places.len() {
            let decisions = [NOTHING; DECISIONS_LEN_MAX];
            let is_from_start = false;
            self.places.push(Place { first_at_ms: 0, id, link, len: 0, forgotten, is_from_start, decisions });
        }
        let place = &mut self.places[index];
        (place.first_at_ms, place.id, place.link, place.len) = (0, id, link, 0);
        (place.forgotten, place.is_from_start) = (forgotten, !forgotten);
        place
    }
}

/// So that 0, which stands in the heads of chains that were never used, is too old a number.
fn first_number(len: u32) -> u32 {
    len + 1
}

#[cfg(test)]
mod tests;
