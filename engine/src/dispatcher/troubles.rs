//! Payments that processors refuse: what tells a payment's trouble from a processor's, and where such a payment goes.
//!
//! A processor that refuses everything is the breaker's concern, and the payment waits for it at the queue's head. One that refuses a payment, takes
//! others, and refuses it again has trouble with *that payment*: from then on it is *suspect*. It leaves the queue and comes back after
//! pauses, its refusals are not held against the processor, and it is no probe as long as there is any other payment to find out with. Once it was refused too often for that to be chance, by the
//! share of payments that the processor refuses anyway, its pauses double up to half a minute and it tries the other processors, if one of them works; the
//! latter also once it has waited for its patience. A pause spares those that refuse the payment, and nobody else: once patience is over, whoever has never refused it, has
//! taken others since, or has come back, has it at once. The same holds for 429, which may be one payment's limit, and for attempts that end in doubt, but that
//! these stay where they are.
//!
//! A decline is such a refusal by the processor's own word. It is final only once the processor took another payment between its refusals: else the
//! fault is more likely to be the processor's, or our configuration's. Where no other payment goes there by itself, one is sent there to find out
//! ([`Reason::Proof`](crate::router::Reason::Proof)), and let in for that where the queue is full of those that wait. Where none comes by at all, one of
//! those that wait goes itself twice a minute: the processor, or our configuration, may have been mended. When all processors that
//! may take the payment have declined it for good, it ends.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use galo_wire::{PROCESSORS_LEN_MAX, Processor};

use super::payment::State;
use super::{Dispatcher, Side, key_of};
use crate::breaker::BreakerState;
use crate::outlook::{Reservation, Sent};
use crate::retry::Backoff;
use crate::router::ProcessorSet;
use crate::time::Now;
use crate::verdict::End;

/// Pauses of a payment that was refused more than once, while the processor took no others either: it may be an outage's probe.
const REFUSED: Backoff = Backoff { base_ms: 50, max_ms: 1_000, factor_percent: 200 };

/// Pauses of a payment whose refusals are more than chance, or that was declined.
const SUSPECT: Backoff = Backoff { base_ms: 100, max_ms: 30_000, factor_percent: 200 };

/// Before a deferred payment that found no place looks again, µs.
pub(super) const LOOK_AGAIN_US: u64 = 50_000;
const LOOK_AGAIN_US_MAX: u64 = 1_000_000;

/// Likewise while none may take it: until one of them has taken another payment, which time alone does not bring.
const AWAIT_PROOF_US: u64 = 250_000;
const AWAIT_PROOF_US_MAX: u64 = 30_000_000;

/// Payments that are let in beyond the queue's bound, since one must show whether a processor takes any.
pub const PROOFS_LEN_MAX: usize = 16;

/// The more of them there are, the longer: each costs a decision.
const LOOK_AGAIN_US_EACH: u64 = 500;

/// How long a deferred payment waits for its next look where so many do, µs: at least and at most so long.
fn look_again_us(least_us: u64, most_us: u64, deferred_len: usize) -> u64 {
    (least_us + deferred_len as u64 * LOOK_AGAIN_US_EACH).min(most_us)
}

/// Whole ms between the two, rounded up.
fn ms_since(since_us: u64, at_us: u64) -> u32 {
    u32::try_from(at_us.saturating_sub(since_us).div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// A payment that was refused so often in a row that chance alone does that to less than this share of payments is better off elsewhere, per million. What is known
/// of chance are the last twenty results, which are a rough guide: with ten in a thousand, of the payments of a processor that refuses six of ten one in 26 went.
const CHANCE_PER_MILLION: u32 = 1_000;

/// What is remembered of one payment.
#[derive(Clone, Debug, Default)]
struct Trouble {
    refusals: u8,
    /// How often it was refused since a processor refused it again after it had taken others, that time included.
    suspicion: u8,
    /// How often each processor refused it, or left it in doubt, and how many payments that one had taken by then, modulo 2^32.
    counts: [u8; PROCESSORS_LEN_MAX],
    taken: [u32; PROCESSORS_LEN_MAX],
    /// How often that happened since it is more than chance.
    beyond_chance: u8,
    /// Those that refuse it while they take others, or declined it once: the others have their turn first.
    avoided: ProcessorSet,
    /// Those that refused it again after they had taken others.
    refusers: ProcessorSet,
    /// From when until when it pauses for the sake of those that refused it, ms since it arrived.
    pause_ms: [u32; 2],
    declines: Option<Box<Declines>>,
}

#[derive(Clone, Debug, Default)]
struct Declines {
    /// How many payments a processor had taken when it declined this one first.
    taken: [Option<u32>; PROCESSORS_LEN_MAX],
    /// Those whose decline is final.
    proven: ProcessorSet,
    /// May still go there; `None`: to all that there are.
    only: Option<ProcessorSet>,
}

/// What is remembered of payments that were refused: some 120 bytes each, and 70 more where one was declined (`engine/tests/heap.rs`).
#[derive(Default)]
pub(super) struct Troubles(BTreeMap<u32, Trouble>);

impl Troubles {
    pub(super) fn forget(&mut self, slot: u32) {
        if !self.0.is_empty() {
            self.0.remove(&slot);
        }
    }

    /// Whether what happens to this payment says nothing about its processor.
    pub(super) fn is_suspect(&self, slot: u32) -> bool {
        self.0.get(&slot).is_some_and(|trouble| trouble.suspicion > 0 || trouble.declines.is_some())
    }
}

impl Trouble {
    /// Whether this payment is suspect if this processor, which has taken so many by now, refuses it.
    fn is_suspected_by(&self, processor: Processor, taken: u32) -> bool {
        let index = processor.index();
        self.suspicion > 0 || (self.counts[index] > 0 && taken != self.taken[index])
    }

    /// Of all, those that have not shown that they refuse this payment while they take others, and have not declined it.
    fn unrefused(&self, all: ProcessorSet) -> ProcessorSet {
        let left = self.declines.as_ref().map_or(all, |it| it.only.unwrap_or(all).without(it.first()));
        left.without(self.refusers)
    }
}

/// Processors that must show that they take any payment, since they declined one.
#[derive(Default)]
pub(super) struct Proofs {
    awaited: ProcessorSet,
    since_us: u64,
}

impl Proofs {
    /// A payment waits for one of these. True if nobody has come by for so long that it goes itself.
    fn await_for(&mut self, processors: ProcessorSet, now: Now) -> bool {
        let is_late = !self.awaited.is_empty() && now.monotonic_us >= self.since_us + AWAIT_PROOF_US_MAX;
        if self.awaited.is_empty() || is_late {
            self.since_us = now.monotonic_us;
        }
        self.awaited = processors;
        is_late
    }

    /// Those that are waited for.
    pub(super) fn awaited(&self) -> ProcessorSet {
        self.awaited
    }

    /// A payment is sent to one of them.
    pub(super) fn sent(&mut self, processor: Processor) {
        self.awaited = self.awaited.without(ProcessorSet::EMPTY.with(processor));
    }
}

impl Declines {
    /// Those that declined it once.
    fn first(&self) -> ProcessorSet {
        let declined = |it: &Processor| self.taken[it.index()].is_some();
        Processor::ALL.into_iter().filter(declined).collect()
    }
}

impl Dispatcher {
    /// A processor refused a payment, and charged nothing.
    pub(super) fn refused(&mut self, slot: u32, processor: Processor, now: Now) {
        let refusals = u32::from(self.note_refusal(slot, processor, now).refusals);
        let pause_us = match (self.suspect_pause_us(slot), refusals) {
            (Some(pause_us), _) => pause_us,
            // A suspect in the queue waits for a proof there, and all behind it do.
            (None, 1) if !self.troubles.is_suspect(slot) => return self.wait(slot, Side::Front),
            (None, _) => REFUSED.delay_us(refusals.saturating_sub(2), &mut self.random),
        };
        self.defer(slot, pause_us, now);
    }

    /// A processor has too much to do for a payment, or says so of this one again and again while it takes others.
    pub(super) fn overloaded(&mut self, slot: u32, sent: Sent, end: End, processor: Processor, now: Now) {
        let refusals = u32::from(self.note_refusal(slot, processor, now).refusals);
        if !self.troubles.is_suspect(slot) {
            // As a probe it finds nothing out a second time: it may be the only one that is limited.
            let is_probe = sent.reservation == Reservation::Probe;
            return self.wait(slot, if is_probe { Side::Back } else { Side::Front });
        }
        let pause_us = self.suspect_pause_us(slot);
        let pause_us =
            pause_us.unwrap_or_else(|| REFUSED.delay_us(refusals.saturating_sub(2), &mut self.random));
        let asked_ms = end.retry_after_ms.min(SUSPECT.max_ms);
        if let Some(trouble) = self.troubles.0.get_mut(&slot).filter(|_| asked_ms > 0) {
            trouble.refusers = trouble.refusers.with(processor);
        }
        self.defer(slot, pause_us.max(u64::from(asked_ms) * 1_000), now);
    }

    /// A processor refused a payment, or left it in doubt.
    fn note(&mut self, slot: u32, processor: Processor) -> &mut Trouble {
        let outlook = &self.outlooks[processor.index()];
        let taken = outlook.successes();
        let trouble = self.troubles.0.entry(slot).or_default();
        let is_suspect = trouble.is_suspected_by(processor, taken);
        if trouble.counts[processor.index()] > 0 && taken != trouble.taken[processor.index()] {
            trouble.refusers = trouble.refusers.with(processor);
        }
        let count = &mut trouble.counts[processor.index()];
        *count = count.saturating_add(1);
        trouble.taken[processor.index()] = taken;
        if is_suspect {
            trouble.suspicion = trouble.suspicion.saturating_add(1);
            // What it met while that was held against the processor says nothing of what others meet.
            let own = count.saturating_sub(trouble.suspicion);
            let percent = outlook.refused_percent(u32::from(own));
            let chance = (0..*count).fold(1_000_000, |chance, _| chance * percent / 100);
            if chance < CHANCE_PER_MILLION || trouble.beyond_chance > 0 {
                trouble.beyond_chance = trouble.beyond_chance.saturating_add(1);
            }
        }
        trouble
    }

    /// Whether it is held against a processor when it refuses this payment, or leaves it in doubt: not if it did so before, and took others
    /// since.
    pub(super) fn is_evidence(&self, slot: u32, processor: Processor) -> bool {
        let taken = self.outlooks[processor.index()].successes();
        !self.troubles.is_suspect(slot)
            && self.troubles.0.get(&slot).is_none_or(|it| !it.is_suspected_by(processor, taken))
    }

    /// Whether a processor has never refused this payment: what others did says nothing of how much this one has to do.
    pub(super) fn is_new_to(&self, slot: u32, processor: Processor) -> bool {
        let index = processor.index();
        self.troubles.0.get(&slot).is_none_or(|trouble| {
            trouble.counts[index] == 0 && trouble.declines.as_ref().is_none_or(|it| it.taken[index].is_none())
        })
    }

    fn note_refusal(&mut self, slot: u32, processor: Processor, now: Now) -> &Trouble {
        let all = self.config.router.processors;
        let is_impatient = self.is_impatient(slot, now);
        let trouble = self.note(slot, processor);
        trouble.refusals = trouble.refusals.saturating_add(1);
        if trouble.beyond_chance > 0 || is_impatient {
            trouble.avoided = trouble.avoided.with(processor);
            if all.without(trouble.avoided).is_empty() {
                // Those that declined it wait for their proof all the same.
                trouble.avoided = trouble.declines.as_ref().map_or(ProcessorSet::EMPTY, |it| it.first());
            }
        }
        trouble
    }

    /// An attempt ended in doubt, or was refused while the payment was: what it does again and again while its processor takes others says nothing of
    /// that one.
    pub(super) fn left_in_doubt(&mut self, slot: u32, processor: Processor) {
        self.note(slot, processor);
    }

    /// How long a payment pauses that meets more than chance; `None` for any other.
    pub(super) fn suspect_pause_us(&mut self, slot: u32) -> Option<u64> {
        let beyond_chance = self.troubles.0.get(&slot)?.beyond_chance.checked_sub(1)?;
        Some(SUSPECT.delay_us(u32::from(beyond_chance), &mut self.random))
    }

    /// A processor refused a payment for good.
    pub(super) fn declined(&mut self, slot: u32, processor: Processor, status: u16, now: Now) {
        let all = self.config.router.processors;
        let taken = self.outlooks[processor.index()].successes();
        let trouble = self.troubles.0.entry(slot).or_default();
        trouble.refusals = trouble.refusals.saturating_add(1);
        trouble.avoided = trouble.avoided.with(processor);
        let refusals = u32::from(trouble.refusals);
        let declines = trouble.declines.get_or_insert_default();
        let first = &mut declines.taken[processor.index()];
        let is_first = first.is_none();
        let is_proven = first.is_some_and(|before| taken != before);
        first.get_or_insert(taken);
        if is_proven {
            declines.proven = declines.proven.with(processor);
        }
        if !self.config.processors[processor.index()].declined_goes_on {
            declines.only = Some(ProcessorSet::EMPTY.with(processor));
        }
        let left = declines.only.unwrap_or(all).without(declines.proven);
        // It has declined another one since it took any: the fault is not the payments'.
        if self.outlooks[processor.index()].declines_in_a_row() > 1 && is_first {
            self.counters.unproven_declines[processor.index()] += 1;
            let change = self.outlooks[processor.index()].learned(false, now);
            self.tell(processor, change, now);
        }
        if left.is_empty() {
            return self.end_declined(slot, processor, status, now);
        }
        let pause_us = SUSPECT.delay_us(refusals.saturating_sub(1), &mut self.random);
        self.defer(slot, pause_us, now);
    }

    /// A payment comes back whose attempt said nothing of it: to the queue's head, where one that is suspect must never stand, since it
    /// is no probe while others wait behind it.
    pub(super) fn come_back(&mut self, slot: u32, now: Now) {
        if self.troubles.is_suspect(slot) {
            self.put_off(slot, now.monotonic_us + LOOK_AGAIN_US);
        } else {
            self.wait(slot, Side::Front);
        }
    }

    /// Takes a payment out of the queue for a while, for the sake of those that refuse it. When its patience ends, or if it has, others need not wait for
    /// that.
    fn defer(&mut self, slot: u32, pause_us: u64, now: Now) {
        let arrived_us = self.payments[key_of(slot)].arrived_us;
        if let Some(trouble) = self.troubles.0.get_mut(&slot) {
            let bounds_us = [now.monotonic_us, now.monotonic_us + pause_us];
            trouble.pause_ms = bounds_us.map(|at_us| ms_since(arrived_us, at_us));
        }
        let until_us = self.pause_ends_us(slot);
        let is_open_to_it = self.is_impatient(slot, now) && !self.unpaused(slot, now).is_empty();
        let due_us = if is_open_to_it { now.monotonic_us } else { self.pause_look_us(slot, until_us, now) };
        self.put_off(slot, due_us);
    }

    fn put_off(&mut self, slot: u32, due_us: u64) {
        self.payment(slot).state = State::Deferred;
        if self.draining {
            self.release(slot);
            return;
        }
        self.counters.deferred += 1;
        self.deferred.push(Reverse((due_us, slot)));
    }

    /// When to look at a payment again that pauses until then: with the end of its patience, and from there on now and then, as long as there is
    /// another processor for which it does not pause.
    fn pause_look_us(&self, slot: u32, until_us: u64, now: Now) -> u64 {
        if !self.is_impatient(slot, now) {
            return until_us.min(self.patience_ends_us(slot));
        }
        let all = self.config.router.processors;
        let is_for_all = self.troubles.0.get(&slot).is_none_or(|trouble| trouble.unrefused(all).is_empty());
        let look_us = look_again_us(LOOK_AGAIN_US, LOOK_AGAIN_US_MAX, self.deferred.len());
        if is_for_all { until_us } else { until_us.min(now.monotonic_us + look_us) }
    }

    /// Those that a payment may try although it pauses: they have never refused it, or have taken others since, or have come back since.
    fn unpaused(&mut self, slot: u32, now: Now) -> ProcessorSet {
        let Some(trouble) = self.troubles.0.get(&slot) else { return ProcessorSet::EMPTY };
        let arrived_us = self.payments[key_of(slot)].arrived_us;
        let is_free = |it: &Processor| {
            let outlook = &mut self.outlooks[it.index()];
            trouble.counts[it.index()] == 0
                || trouble.taken[it.index()] != outlook.successes()
                || ms_since(arrived_us, outlook.back_since_us(now)) > trouble.pause_ms[0]
        };
        trouble.unrefused(self.config.router.processors).iter().filter(is_free).collect()
    }

    /// Whether a payment whose patience is over pauses for the sake of those that refused it.
    fn pauses(&self, slot: u32, now: Now) -> bool {
        self.is_impatient(slot, now) && now.monotonic_us < self.pause_ends_us(slot)
    }

    fn pause_ends_us(&self, slot: u32) -> u64 {
        let pause_ms = self.troubles.0.get(&slot).map_or(0, |trouble| trouble.pause_ms[1]);
        self.payments[key_of(slot)].arrived_us + u64::from(pause_ms) * 1_000
    }

    fn is_impatient(&self, slot: u32, now: Now) -> bool {
        now.monotonic_us >= self.patience_ends_us(slot)
    }

    fn patience_ends_us(&self, slot: u32) -> u64 {
        self.payments[key_of(slot)].arrived_us.saturating_add(self.config.router.patience_us)
    }

    /// Those that may take a payment now. Empty where it must wait for one of them to show that it takes others.
    pub(super) fn allowed(&mut self, slot: u32, now: Now) -> ProcessorSet {
        if self.pauses(slot, now) {
            return self.unpaused(slot, now);
        }
        let all = self.config.router.processors;
        let Some(trouble) = self.troubles.0.get(&slot) else { return all };
        let Some(declines) = &trouble.declines else {
            let others = all.without(trouble.avoided);
            // It may come back before the time that a processor asked for: that one is not the next.
            let unasked = others.iter().filter(|it| trouble.counts[it.index()] == 0).collect();
            let is_next =
                trouble.suspicion > 0 && unasked != ProcessorSet::EMPTY && self.is_impatient(slot, now);
            let others = if is_next { unasked } else { others };
            let may_probe = self.may_probe(slot);
            let is_open_to_it = |it: Processor| {
                let outlook = &mut self.outlooks[it.index()];
                outlook.breaker_state(now) == BreakerState::Closed || (may_probe && outlook.is_probe_due(now))
            };
            // Refused by one that works is nearer to being processed than waiting for one that does not. But where all others go to the cheapest
            // one, nobody else asks those that failed once.
            return if others.iter().any(is_open_to_it) { others } else { all };
        };
        let left = declines.only.unwrap_or(all).without(declines.proven);
        let untried = left.without(trouble.avoided);
        if !untried.is_empty() {
            return untried;
        }
        let took_others = |processor: &Processor| {
            let taken = self.outlooks[processor.index()].successes();
            declines.taken[processor.index()].is_none_or(|before| taken != before)
        };
        let shown: ProcessorSet = left.iter().filter(took_others).collect();
        if shown.is_empty() && self.proofs.await_for(left, now) { left } else { shown }
    }

    /// Sends those that have paused for long enough.
    pub(super) fn retry_deferred(&mut self, now: Now) {
        while self.connected
            && let Some(Reverse((due_us, slot))) = self.deferred.peek().copied()
            && due_us <= now.monotonic_us
        {
            self.deferred.pop();
            let payment = self.payments.get(key_of(slot)).copied();
            let Some(payment) = payment.filter(|it| it.slot == slot && it.state == State::Deferred) else {
                continue;
            };
            let asked = self.question(&payment, now);
            let is_barred = asked.allowed.is_empty();
            let decision = if is_barred { None } else { Some(self.decide(asked, now)) };
            if let Some((Some(place), reason)) = decision {
                self.intend(slot, place, reason, now);
                continue;
            }
            let now_us = now.monotonic_us;
            let due_us = if self.pauses(slot, now) {
                self.pause_look_us(slot, self.pause_ends_us(slot), now)
            } else if is_barred {
                now_us + look_again_us(AWAIT_PROOF_US, AWAIT_PROOF_US_MAX, self.deferred.len())
            } else {
                let look_us = look_again_us(LOOK_AGAIN_US, LOOK_AGAIN_US_MAX, self.deferred.len());
                let ends_us = self.patience_ends_us(slot);
                if ends_us > now_us { ends_us.min(now_us + look_us) } else { now_us + look_us }
            };
            self.deferred.push(Reverse((due_us, slot)));
        }
    }

    /// A processor is said to work again: whoever was only refused meanwhile comes back at once.
    pub(super) fn hasten_deferred(&mut self, now: Now) {
        if self.deferred.is_empty() {
            return;
        }
        let mut entries = std::mem::take(&mut self.deferred).into_vec();
        for Reverse((due_us, slot)) in &mut entries {
            if self.troubles.is_suspect(*slot) {
                continue;
            }
            *due_us = now.monotonic_us.min(*due_us);
            if let Some(trouble) = self.troubles.0.get_mut(slot) {
                trouble.pause_ms = [0; 2];
            }
        }
        self.deferred = entries.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_costs_the_same_share_of_a_core_however_many_wait_for_a_proof() {
        for len in 1..=60_000 {
            let pause_us = look_again_us(AWAIT_PROOF_US, AWAIT_PROOF_US_MAX, len);
            assert!(len as u64 * 1_000_000 / pause_us <= 2_000, "{len} looks each {pause_us} µs");
        }
        assert_eq!(look_again_us(AWAIT_PROOF_US, AWAIT_PROOF_US_MAX, 1_000_000), AWAIT_PROOF_US_MAX);
    }
}
