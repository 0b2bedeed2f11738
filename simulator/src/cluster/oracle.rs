//! What is true, kept beside the run by simpler means than the engine's, and compared with it at each step.
//!
//! For each id: what clients sent, which attempts left a gateway and how they ended *as far as a gateway was told*, what
//! each processor stored, what the coordinator decided and what of that is on disk. The oracle knows more than any
//! process does, and must never tell one of them.

use galo_engine::coordinator::Coordinator;
use galo_engine::dispatcher::Answer;
use galo_engine::ledger::{Conservation, Entry, Known, Ledger, LedgerConfig, Tally};
use galo_engine::time::UnixMillis;
use galo_engine::{CorrelationId, History, Outcome, Processor, Stage};
use galo_wire::record::{LookupReply, Standing, SummaryReply};

use super::dice::Dice;
use super::history::{self, Story};
use super::invariant::{Checks, Invariant};
use super::leases::Leases;
use super::record::{ABSENT, Progress, Record, apply, id_of, is_known_as, relapses};
use super::retention::Retention;
use crate::processor::{Payment as Stored, Processor as Model};

/// A POST that arrived at a gateway.
#[derive(Clone, Copy, Debug)]
struct Visit {
    amount_cents: u64,
    arrived_us: u64,
    /// It was answered 503. Nobody was answered if the gateway died.
    refused: bool,
}

/// An attempt that left a gateway.
#[derive(Clone, Copy, Debug)]
struct Sent {
    processor: Processor,
    requested_at_ms: u64,
    /// Its gateway was told that nothing was stored.
    refused: bool,
}

/// Everything about one id.
pub struct Truth {
    id: CorrelationId,
    /// Amounts that clients sent with it.
    amounts_cents: Vec<u64>,
    visits: Vec<Visit>,
    /// When it was accepted last, µs.
    accepted_us: u64,
    /// The amount of the POST that was answered 2xx.
    accepted_cents: Option<u64>,
    sent: Vec<Sent>,
    /// By [`Processor::index`].
    stored: [Option<Stored>; 2],
    /// As the coordinator decided.
    decided: Record,
    /// As the disk has it.
    written: Record,
    /// What was decided about it.
    story: Story,
    /// Sent before a purge: nothing is promised.
    purged: bool,
    /// Entries of it went with the power: nothing is promised.
    lost_power: bool,
    /// Sent again after it was forgotten, and accepted as new: nothing is promised.
    relapsed: bool,
}

impl Truth {
    fn is_promised(&self) -> bool {
        !self.purged && !self.lost_power && !self.relapsed
    }
}

/// What entries come to when they are added up.
#[derive(Clone, Default)]
struct Books {
    accepted: Tally,
    processed: [Tally; 2],
}

/// See the module's documentation.
#[derive(Default)]
pub struct Oracle {
    /// The checks' counts and the first failure.
    pub checks: Checks,
    /// The virtual time, µs.
    pub now_us: u64,
    truths: Vec<Truth>,
    books: Books,
    /// `requestedAt` and cents of what was decided to be processed, by [`Processor::index`].
    processed: [Vec<(u64, u64)>; 2],
    /// By [`Processor::index`].
    pub(super) leases: [Leases; 2],
    /// What the ledger remembers, as decided.
    known: Retention,
    /// The same, as the disk has it.
    known_written: Retention,
    /// The least number of ids that any start so far was told to remember.
    known_len_least: usize,
    /// How long a POST waits for the ledger, µs.
    accept_wait_us: u64,
    /// Ids that were forgotten.
    pub forgotten_count: u64,
    /// Ids that were accepted again after that.
    pub relapsed_count: u64,
    /// Payments that were granted although every client heard a 503: the grants were on their way for too long.
    pub unheard_count: u64,
    /// Summaries that were not exact.
    pub coarse_count: u64,
    /// Histories that were whole, and that were not.
    pub history_counts: [u64; 2],
    purged: bool,
    /// The aggregator was restarted after a purge.
    purge_forgotten: bool,
    /// Something happened after which the processors hold more than the ledger: their own sums are not compared.
    pub processors_differ: bool,
}

/// Where the truth about an id would stand.
fn place_of(id: CorrelationId) -> Option<usize> {
    let [a, b, c, d, ..] = id.0;
    usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()
}

fn add(tally: &mut Tally, amount_cents: u64) {
    tally.count += 1;
    tally.amount_cents += amount_cents;
}

impl Oracle {
    /// One that has seen nothing.
    pub fn new(accept_wait_us: u64) -> Self {
        Self { accept_wait_us, known_len_least: usize::MAX, ..Self::default() }
    }

    /// Checks something at this step.
    pub fn check(&mut self, invariant: Invariant, holds: bool, what: impl FnOnce() -> String) {
        self.checks.check(invariant, self.now_us, holds, what);
    }

    /// A client invents a payment. Its place is part of the id, so that it is found again without a table.
    pub fn invent(&mut self, dice: &mut Dice) -> usize {
        let index = self.truths.len();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&dice.number().to_be_bytes());
        bytes[8..].copy_from_slice(&dice.number().to_be_bytes());
        bytes[..4].copy_from_slice(&u32::try_from(index).expect("few payments").to_be_bytes());
        self.truths.push(Truth {
            id: CorrelationId(bytes),
            amounts_cents: Vec::new(),
            visits: Vec::new(),
            accepted_us: 0,
            accepted_cents: None,
            sent: Vec::new(),
            stored: [None; 2],
            decided: ABSENT,
            written: ABSENT,
            story: Story::default(),
            purged: false,
            lost_power: false,
            relapsed: false,
        });
        index
    }

    /// The id of a payment.
    pub fn id(&self, payment: usize) -> CorrelationId {
        self.truths[payment].id
    }

    /// How many payments there are.
    pub fn len(&self) -> usize {
        self.truths.len()
    }

    /// A client sends it with this amount.
    pub fn client_sent(&mut self, payment: usize, amount_cents: u64) {
        let amounts = &mut self.truths[payment].amounts_cents;
        if !amounts.contains(&amount_cents) {
            amounts.push(amount_cents);
        }
    }

    fn place(&mut self, id: CorrelationId) -> Option<usize> {
        let place = place_of(id).filter(|place| self.truths.get(*place).is_some_and(|truth| truth.id == id));
        self.check(Invariant::NoPhantom, place.is_some(), || format!("no client sent {id}"));
        place
    }

    /// A POST arrives at a gateway. Returns what to call it.
    pub fn posted(&mut self, payment: usize, amount_cents: u64) -> usize {
        let visits = &mut self.truths[payment].visits;
        visits.push(Visit { amount_cents, arrived_us: self.now_us, refused: false });
        visits.len() - 1
    }

    /// A POST that arrived is answered.
    pub fn answered(&mut self, (payment, visit): (usize, usize), amount_cents: u64, answer: Answer) {
        if matches!(answer, Answer::Full | Answer::Unreachable) {
            self.refused(payment, visit);
        }
        let truth = &mut self.truths[payment];
        if !truth.is_promised() {
            return;
        }
        let written = truth.written;
        let id = truth.id;
        match answer {
            Answer::Granted | Answer::Replayed => {
                truth.accepted_cents = Some(amount_cents);
                self.check(Invariant::AcceptedIsDurable, !written.is_absent(), || {
                    format!("{id} is answered {answer:?} before it is on disk")
                });
                self.check(Invariant::OneAmount, written.amount_cents == amount_cents, || {
                    format!("{id} with {amount_cents} is answered {answer:?}, the disk has {written:?}")
                });
            }
            Answer::Conflict => {
                let conflicts = !written.is_absent() && written.amount_cents != amount_cents;
                self.check(Invariant::OneAmount, conflicts, || {
                    format!("{id} with {amount_cents} is answered as a conflict, the disk has {written:?}")
                });
            }
            Answer::Full | Answer::Unreachable => {}
        }
    }

    /// A POST is answered 503. Of a payment that is granted all the same, the grant left long before, and is late.
    fn refused(&mut self, payment: usize, visit: usize) {
        let truth = &mut self.truths[payment];
        truth.visits[visit].refused = true;
        let (id, accepted_us) = (truth.id, truth.accepted_us);
        if truth.decided.is_absent() || !truth.visits.iter().all(|visit| visit.refused) {
            return;
        }
        self.unheard_count += 1;
        let late = self.now_us >= accepted_us + self.accept_wait_us / 10;
        self.check(Invariant::RefusedIsNo, late, || {
            format!("{id} is answered 503 although it was granted at {accepted_us} µs")
        });
    }

    /// A payment is granted: somebody still waits for that, and for long enough to hear of it.
    fn granted(&mut self, place: usize, amount_cents: u64) {
        let Truth { id, ref visits, .. } = self.truths[place];
        let patience_us = self.accept_wait_us - self.accept_wait_us / 10;
        let waits = visits.iter().any(|visit| {
            !visit.refused
                && visit.amount_cents == amount_cents
                && self.now_us <= visit.arrived_us + patience_us
        });
        let visits = visits.clone();
        self.check(Invariant::RefusedIsNo, waits, || {
            format!("{id} is granted, but nobody waits for that any more: {visits:?}")
        });
        self.truths[place].accepted_us = self.now_us;
    }

    /// A gateway sends the first byte of an attempt. Returns what to call it.
    pub fn attempt_sent(
        &mut self,
        id: CorrelationId,
        amount_cents: u64,
        processor: Processor,
        requested_at_ms: u64,
    ) -> Option<(usize, usize)> {
        let place = self.place(id)?;
        let truth = &mut self.truths[place];
        let attempt = (place, truth.sent.len());
        truth.sent.push(Sent { processor, requested_at_ms, refused: false });
        if !truth.is_promised() {
            return Some(attempt);
        }
        let written = truth.written;
        let same = |sent: &Sent| sent.processor == processor && sent.requested_at_ms == requested_at_ms;
        let other = truth.sent.iter().find(|sent| !sent.refused && !same(sent)).copied();
        let recorded = match written.progress {
            Progress::Absent => false,
            Progress::Open { stage, requested_at_ms: at } => {
                stage == Stage::at(processor) && at == requested_at_ms
            }
            Progress::Processed { processor: at, requested_at_ms: at_ms }
            | Progress::Forgotten { processor: at, requested_at_ms: at_ms } => {
                at == processor && at_ms == requested_at_ms
            }
        };
        let what = || format!("{id} leaves for {} at {requested_at_ms}", processor.name());
        self.check(Invariant::UnknownIsNotFailed, other.is_none(), || {
            format!("{}, but {other:?} may have been stored", what())
        });
        self.check(Invariant::IntentBeforeByte, recorded && written.amount_cents == amount_cents, || {
            format!("{} with {amount_cents} cents, but the disk has {written:?}", what())
        });
        Some(attempt)
    }

    /// Whether an attempt of it has left a gateway.
    pub fn was_sent(&self, id: CorrelationId) -> bool {
        self.truths.iter().any(|truth| truth.id == id && !truth.sent.is_empty())
    }

    /// A gateway was told that an attempt stored nothing.
    pub fn attempt_refused(&mut self, (place, attempt): (usize, usize)) {
        self.truths[place].sent[attempt].refused = true;
    }

    /// A processor stored something.
    pub fn stored(&mut self, processor: Processor, payment: Stored) {
        let id = CorrelationId(payment.correlation_id.into_bytes());
        let Some(place) = self.place(id) else { return };
        let truth = &mut self.truths[place];
        truth.stored[processor.index()] = Some(payment);
        if !truth.is_promised() {
            self.processors_differ = true;
            return;
        }
        let elsewhere = truth.stored[processor.other().index()];
        let cents_known = truth.amounts_cents.iter().any(|&cents| same_cents(payment, cents));
        let refused = truth.sent.iter().all(|sent| sent.refused || sent.processor != processor);
        self.check(Invariant::NothingTwice, elsewhere.is_none(), || {
            format!("{id} is stored at both processors: {payment:?} and {elsewhere:?}")
        });
        self.check(Invariant::NoPhantom, cents_known, || {
            format!("{id} is stored as {payment:?}, which no client sent")
        });
        self.check(Invariant::UnknownIsNotFailed, !refused, || {
            format!("{id} is stored at {} although each attempt was refused", processor.name())
        });
    }

    /// The coordinator decided `entry`; `claimed` if on a claim.
    pub fn decided(&mut self, entry: Entry, claimed: bool) {
        let Some(id) = id_of(entry) else {
            self.purge();
            return;
        };
        let Some(place) = self.place(id) else { return };
        let truth = &mut self.truths[place];
        let before = truth.decided;
        let after = apply(before, entry);
        truth.decided = after.unwrap_or(before);
        truth.story.apply(entry);
        if relapses(before, entry) {
            truth.relapsed = true;
            self.relapsed_count += 1;
            self.processors_differ = true;
        }
        let promised = truth.is_promised();
        let stored = truth.stored;
        self.check(Invariant::NothingTwice, after.is_some(), || {
            format!("{entry:?} does not follow {before:?}")
        });
        match entry {
            Entry::Accepted { amount_cents, .. } => {
                add(&mut self.books.accepted, amount_cents);
                // A restarted aggregator does not know any more that there was a purge.
                if claimed && !self.purge_forgotten {
                    self.check(Invariant::ClaimIsKnown, false, || {
                        format!("{id} is claimed, and the ledger has never heard of it, or has purged or forgotten it")
                    });
                }
                if !claimed {
                    self.granted(place, amount_cents);
                }
            }
            Entry::Resolved { processor, requested_at_ms, outcome: Outcome::Processed, .. } => {
                let amount_cents = before.amount_cents;
                add(&mut self.books.processed[processor.index()], amount_cents);
                self.processed[processor.index()].push((requested_at_ms, amount_cents));
                if let Some(forgotten) = self.known.remember(place) {
                    self.forgotten_count += 1;
                    self.truths[forgotten].decided.forget();
                }
                if promised {
                    let is_there = stored[processor.index()].is_some_and(|stored| {
                        same_cents(stored, amount_cents) && same_time(stored, requested_at_ms)
                    });
                    self.check(Invariant::NoPhantom, is_there, || {
                        format!("{entry:?} of {amount_cents} cents, but stored is {stored:?}")
                    });
                }
            }
            Entry::Intended { .. } | Entry::Resolved { .. } | Entry::Purged => {}
        }
    }

    /// A claim was handled: had it to be accepted anew, [`Self::decided`] has said so.
    pub fn claim_handled(&mut self) {
        self.check(Invariant::ClaimIsKnown, true, String::new);
    }

    /// An entry is on disk.
    pub fn written(&mut self, entry: Entry) {
        let Some(id) = id_of(entry) else {
            self.truths.iter_mut().for_each(|truth| truth.written = ABSENT);
            self.known_written.clear();
            return;
        };
        let Some(place) = self.place(id) else { return };
        let before = self.truths[place].written;
        let after = apply(before, entry);
        self.truths[place].written = after.unwrap_or(before);
        let processed = matches!(entry, Entry::Resolved { outcome: Outcome::Processed, .. });
        if processed && let Some(forgotten) = self.known_written.remember(place) {
            self.truths[forgotten].written.forget();
        }
        self.check(Invariant::NothingTwice, after.is_some(), || {
            format!("{entry:?} is written after {before:?}")
        });
    }

    fn purge(&mut self) {
        self.purged = true;
        self.purge_forgotten = false;
        for truth in &mut self.truths {
            truth.purged = true;
            truth.decided = ABSENT;
            truth.story = Story::default();
        }
        self.books = Books::default();
        self.processed = Default::default();
        self.known.clear();
        self.processors_differ = true;
    }

    /// The aggregator begins again with what is on disk: what was decided and not written never was.
    pub fn restarted(&mut self, entries: &[Entry], ledger: &Ledger) {
        let mut order = Vec::new();
        self.purge_forgotten = self.purged;
        self.books = Books::default();
        self.processed = Default::default();
        self.truths.iter_mut().for_each(|truth| {
            (truth.decided, truth.story) = (ABSENT, Story::default());
        });
        let mut amounts = vec![0; self.truths.len()];
        for entry in entries {
            let Some(id) = id_of(*entry) else {
                self.books = Books::default();
                self.processed = Default::default();
                self.truths.iter_mut().for_each(|truth| truth.decided = ABSENT);
                order.clear();
                continue;
            };
            let Some(place) = self.place(id) else { continue };
            let truth = &mut self.truths[place];
            // Accepted twice: it was forgotten in between.
            if matches!(entry, Entry::Accepted { .. }) {
                truth.decided.forget();
            }
            truth.decided = apply(truth.decided, *entry).unwrap_or(truth.decided);
            truth.story.apply(*entry);
            match *entry {
                Entry::Accepted { amount_cents, .. } => {
                    amounts[place] = amount_cents;
                    add(&mut self.books.accepted, amount_cents);
                }
                Entry::Resolved { processor, requested_at_ms, outcome: Outcome::Processed, .. } => {
                    add(&mut self.books.processed[processor.index()], amounts[place]);
                    self.processed[processor.index()].push((requested_at_ms, amounts[place]));
                    order.push(place);
                }
                Entry::Intended { .. } | Entry::Resolved { .. } | Entry::Purged => {}
            }
        }
        self.remembered(&order, ledger);
        for truth in &mut self.truths {
            truth.written = truth.decided;
            truth.story.restarted = true;
        }
    }

    /// After a start: the ledger knows the last of `order`, the processed ids, and those alone.
    ///
    /// How many is certain as long as each start is told the same number. With another one each time it depends on how long
    /// each process lived and what it wrote; then the ledger is asked, and what it says must be possible.
    fn remembered(&mut self, order: &[usize], ledger: &Ledger) {
        let len_max = ledger.known_len_max();
        self.known_len_least = self.known_len_least.min(len_max);
        let (least, most) = (order.len().min(self.known_len_least), order.len().min(len_max));
        let len = ledger.known_len();
        self.check(Invariant::LastAreKnown, (least..=most).contains(&len), || {
            format!("{len} of {} ids are remembered after a start, expected {least} to {most}", order.len())
        });
        let (forgotten, known) = order.split_at(order.len() - len.min(order.len()));
        for place in forgotten.iter().filter(|place| !known.contains(place)) {
            self.truths[*place].decided.forget();
        }
        self.known = Retention::new(known.iter().copied(), len_max);
        self.known_written = self.known.clone();
        for place in 0..self.truths.len() {
            let truth = &self.truths[place];
            let (id, decided) = (truth.id, truth.decided);
            let found = ledger.lookup(id);
            self.check(Invariant::LastAreKnown, is_known_as(found, decided), || {
                format!("after a start {id} is {found:?}, expected {decided:?}")
            });
        }
    }

    /// Entries went with the power.
    pub fn lost_power(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.processors_differ = true;
            match id_of(*entry) {
                Some(id) => {
                    if let Some(place) = self.place(id) {
                        self.truths[place].lost_power = true;
                    }
                }
                // A purge that did not happen after all: whatever it touched is beyond promises.
                None => self.truths.iter_mut().for_each(|truth| truth.lost_power = true),
            }
        }
    }

    /// After each record that the coordinator handled.
    pub fn compare_totals(&mut self, coordinator: &Coordinator, bounds: LedgerConfig) {
        let Conservation { accepted, processed, open, .. } = coordinator.ledger().conservation();
        let books = self.books.clone();
        let open_count = accepted.count - processed[0].count - processed[1].count;
        let open_cents = accepted.amount_cents - processed[0].amount_cents - processed[1].amount_cents;
        let holds = accepted == books.accepted
            && processed == books.processed
            && open == Tally { count: open_count, amount_cents: open_cents };
        self.check(Invariant::Conservation, holds, || {
            format!(
                "accepted {accepted:?}, processed {processed:?}, open {open:?}; the entries come to {:?} and {:?}",
                books.accepted, books.processed
            )
        });
        let (open_count, bucket_bytes) = (open.count, coordinator.ledger().bucket_bytes());
        let is_bounded = open_count <= bounds.open_len_max as u64 && bucket_bytes <= bounds.bucket_bytes_max;
        self.check(Invariant::Bounded, is_bounded, || {
            format!("{open_count} payments are open, the time buckets take {bucket_bytes} bytes: {bounds:?}")
        });
        let (known_len, expected) = (coordinator.ledger().known_len(), self.known.len());
        self.check(Invariant::LastAreKnown, known_len == expected, || {
            format!("{known_len} ids are remembered, expected {expected}")
        });
        if self.purged || self.relapsed_count > 0 {
            // An id that was purged or forgotten and sent again may have been processed under its former life.
            return;
        }
        let contradictions = coordinator.counters().contradictions;
        self.check(Invariant::NoContradiction, contradictions == 0, || {
            "a payment was processed elsewhere than where the ledger has its attempt".to_owned()
        });
    }

    fn sum(&self, processor: Processor, from_ms: u64, to_ms: u64) -> Tally {
        let mut tally = Tally::default();
        let list = &self.processed[processor.index()];
        list.iter()
            .filter(|(at, _)| (from_ms..=to_ms).contains(at))
            .for_each(|(_, cents)| add(&mut tally, *cents));
        tally
    }

    /// Whether a sum may be that of a range: exact, or as wrong as payments within `resolution_ms` of its bounds make it.
    fn may_be(
        &self,
        sum: Tally,
        processor: Processor,
        (from_ms, to_ms): (u64, u64),
        resolution_ms: u32,
    ) -> bool {
        if resolution_ms == 1 {
            return sum == self.sum(processor, from_ms, to_ms);
        }
        // The widest bucket's width does not fit.
        let near_ms = if resolution_ms == u32::MAX { u64::MAX } else { u64::from(resolution_ms) };
        let least = self.sum(processor, from_ms.saturating_add(near_ms), to_ms.saturating_sub(near_ms));
        let most = self.sum(processor, from_ms.saturating_sub(near_ms), to_ms.saturating_add(near_ms));
        (least.count..=most.count).contains(&sum.count)
            && (least.amount_cents..=most.amount_cents).contains(&sum.amount_cents)
    }

    /// Whether the ledger was told that this payment is processed, or nothing is promised of it any more.
    pub fn is_settled(&self, id: CorrelationId) -> bool {
        let truth = place_of(id).and_then(|place| self.truths.get(place)).filter(|truth| truth.id == id);
        truth.is_none_or(|truth| {
            !truth.is_promised()
                || matches!(truth.decided.progress, Progress::Processed { .. } | Progress::Forgotten { .. })
        })
    }

    /// A summary leaves the aggregator.
    pub fn summarized(&mut self, from_ms: u64, to_ms: u64, reply: &SummaryReply) {
        let answered = [
            Tally { count: reply.default_requests, amount_cents: reply.default_amount_cents },
            Tally { count: reply.fallback_requests, amount_cents: reply.fallback_amount_cents },
        ];
        let truth = Processor::ALL.map(|processor| self.sum(processor, from_ms, to_ms));
        self.coarse_count += u64::from(reply.resolution_ms > 1);
        let holds = Processor::ALL
            .into_iter()
            .zip(answered)
            .all(|(processor, sum)| self.may_be(sum, processor, (from_ms, to_ms), reply.resolution_ms));
        self.check(Invariant::SummaryIsTrue, holds, || {
            format!("{from_ms}..={to_ms} is answered {reply:?}, but is {truth:?}")
        });
    }

    /// A bound for a range: near some payment, or far from all.
    pub fn bound_ms(&self, dice: &mut Dice) -> u64 {
        let list = &self.processed[dice.index(2)];
        if list.is_empty() || dice.one_in(10) {
            return dice.pick(&[0, 1, u64::MAX, 1_790_000_000_000]);
        }
        (list[dice.index(list.len())].0 + dice.skewed(5_000)).saturating_sub(dice.skewed(5_000))
    }

    /// Random ranges of the ledger: they add up, and say what was processed.
    pub fn compare_ranges(&mut self, ledger: &Ledger, dice: &mut Dice) {
        let mut bounds = [self.bound_ms(dice), self.bound_ms(dice), self.bound_ms(dice)];
        bounds.sort_unstable();
        let [a, b, c] = bounds;
        let sum = |from, to| ledger.summarize(UnixMillis(from), UnixMillis(to));
        let whole = sum(a, c);
        let first = b.checked_sub(1).filter(|before| *before >= a).map(|before| sum(a, before));
        let second = sum(b, c);
        for processor in Processor::ALL {
            let index = processor.index();
            let first = first.map_or(Tally::default(), |first| first.totals[index]);
            let second = second.totals[index];
            let both = Tally {
                count: first.count + second.count,
                amount_cents: first.amount_cents + second.amount_cents,
            };
            self.check(Invariant::SummariesAddUp, both == whole.totals[index], || {
                format!("S[{a},{b}) + S[{b},{c}] = {both:?} at {}, but {whole:?}", processor.name())
            });
            let holds = self.may_be(whole.totals[index], processor, (a, c), whole.resolution_ms);
            let truth = self.sum(processor, a, c);
            self.coarse_count += u64::from(whole.resolution_ms > 1);
            self.check(Invariant::SummaryIsTrue, holds, || {
                format!("S[{a},{c}] at {} is {whole:?}, but {truth:?} was processed", processor.name())
            });
        }
    }

    /// A look-up's answer leaves the aggregator.
    pub fn looked_up(&mut self, reply: &LookupReply, history: &History) {
        if reply.standing == Standing::Absent {
            return;
        }
        let Some(place) = self.place(reply.correlation_id) else { return };
        self.compare_history(place, history);
        self.check(Invariant::HistoryIsTrue, history::ends_there(reply, history), || {
            format!("{:?} does not end where the payment is: {reply:?}", history.decisions())
        });
    }

    /// At rest: the same, of each payment that the ledger knows.
    pub fn compare_histories(&mut self, ledger: &Ledger) {
        for place in 0..self.truths.len() {
            let id = self.truths[place].id;
            if ledger.lookup(id) != Known::Absent {
                self.compare_history(place, &ledger.history(id));
            }
        }
    }

    fn compare_history(&mut self, place: usize, history: &History) {
        let story = &self.truths[place].story;
        let flaw = story.flaw(history);
        let what = flaw.map(|flaw| {
            format!("{}: {flaw}: {:?}, but {story:?}", self.truths[place].id, history.decisions())
        });
        self.history_counts[usize::from(history.forgotten)] += 1;
        self.check(Invariant::HistoryIsTrue, flaw.is_none(), || what.unwrap_or_default());
    }

    /// At rest: everything agrees with everything.
    pub fn compare_all(&mut self, ledger: &Ledger, models: [&mut Model; 2], dice: &mut Dice) {
        let [default, fallback] = models;
        for place in 0..self.truths.len() {
            let truth = &self.truths[place];
            if !truth.is_promised() {
                continue;
            }
            let Truth { id, accepted_cents, stored, decided, .. } = *truth;
            let known = ledger.lookup(id);
            if let Some(cents) = accepted_cents {
                let found: Vec<_> = stored.iter().flatten().collect();
                self.check(Invariant::NothingLost, !found.is_empty(), || {
                    format!("{id} was answered 2xx, the ledger has {known:?}, no processor has it")
                });
                self.check(Invariant::Mirror, found.iter().all(|found| same_cents(**found, cents)), || {
                    format!("{id} was answered 2xx for {cents} cents and is stored as {found:?}")
                });
            }
            self.check(Invariant::NothingTwice, stored.iter().flatten().count() <= 1, || {
                format!("{id} is stored twice: {stored:?}")
            });
            // Forgotten: what the ledger had counted is what the processors have.
            let known = match (known, decided) {
                (
                    Known::Absent,
                    Record { amount_cents, progress: Progress::Forgotten { processor, requested_at_ms } },
                ) => Known::Processed { amount_cents, requested_at_ms, processor },
                (known, _) => known,
            };
            let agrees = match (known, stored) {
                (Known::Absent, [None, None]) => true,
                (Known::Processed { amount_cents, requested_at_ms, processor }, _) => {
                    stored[processor.other().index()].is_none()
                        && stored[processor.index()].is_some_and(|stored| {
                            same_cents(stored, amount_cents) && same_time(stored, requested_at_ms)
                        })
                }
                (Known::Absent | Known::Open(_), _) => false,
            };
            self.check(Invariant::Mirror, agrees, || {
                format!("{id}: ledger {known:?}, processors {stored:?}")
            });
        }
        for _ in 0..8 {
            self.compare_ranges(ledger, dice);
            if self.processors_differ {
                continue;
            }
            let (a, b) = (self.bound_ms(dice), self.bound_ms(dice));
            let (from, to) = (a.min(b), a.max(b));
            let summary = ledger.summarize(UnixMillis(from), UnixMillis(to));
            let ours = summary.totals;
            if summary.resolution_ms > 1 {
                continue;
            }
            let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
            let now_us = self.now_us;
            for (ours, model) in ours.into_iter().zip([&mut *default, &mut *fallback]) {
                let theirs = model.summarize(now_us, Some(signed(from)), Some(signed(to)));
                let holds =
                    theirs.requests == ours.count && theirs.amount_cents == i128::from(ours.amount_cents);
                self.check(Invariant::Mirror, holds, || {
                    format!("{from}..={to}: we say {ours:?}, the processor {theirs:?}")
                });
            }
        }
    }

    /// Two ledgers are the same, id by id.
    pub fn compare_replay(&mut self, ledger: &Ledger, replayed: &Ledger) {
        let ownerless = |known| match known {
            Known::Open(payment) => Known::Open(galo_engine::ledger::OpenPayment { owner: None, ..payment }),
            Known::Absent | Known::Processed { .. } => known,
        };
        let (ours, theirs) = (ledger.conservation(), replayed.conservation());
        self.check(Invariant::ReplayEquals, ours == theirs, || format!("{ours:?}, replayed {theirs:?}"));
        for place in 0..self.truths.len() {
            let id = self.truths[place].id;
            let (ours, theirs) = (ownerless(ledger.lookup(id)), ownerless(replayed.lookup(id)));
            self.check(Invariant::ReplayEquals, ours == theirs, || {
                format!("{id}: {ours:?}, replayed {theirs:?}")
            });
            // A snapshot takes the beginning away, or all of it; what is said to be whole is what it was.
            let (ours, theirs) = (ledger.history(id), replayed.history(id));
            let agree = theirs.forgotten || theirs == ours;
            self.check(Invariant::ReplayEquals, agree, || format!("{id}: {ours:?}, replayed {theirs:?}"));
        }
    }
}

fn same_cents(stored: Stored, cents: u64) -> bool {
    u64::try_from(stored.amount_cents) == Ok(cents)
}

fn same_time(stored: Stored, requested_at_ms: u64) -> bool {
    u64::try_from(stored.requested_at_ms) == Ok(requested_at_ms)
}
