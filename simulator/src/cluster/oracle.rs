//! What is true, kept beside the run by simpler means than the engine's, and compared with it at each step.
//!
//! For each id: what clients sent, which attempts left a gateway and how they ended *as far as a gateway was told*, what
//! each processor stored, what the coordinator decided and what of that is on disk. The oracle knows more than any
//! process does, and must never tell one of them.

mod compare;
mod declines;
mod table;
pub mod texts;

use galo_engine::dispatcher::Answer;
use galo_engine::ledger::{Entry, Ledger, Tally};
use galo_engine::router::ProcessorSet;
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, STATUS_EXPIRED, Stage};

use self::texts::Gathered;
use super::dice::Dice;
use super::history::Story;
use super::invariant::{Checks, Invariant};
use super::leases::Leases;
use super::plan::Plan;
use super::record::{ABSENT, End, Progress, Record, apply, id_of, is_known_as, relapses};
use super::retention::Retention;
use crate::processor::Payment as Stored;

/// A POST that arrived at a gateway.
#[derive(Clone, Copy, Debug)]
struct Visit {
    amount_cents: u64,
    /// Of which kind.
    members: u8,
    arrived_us: u64,
    /// It was answered 503. Nobody was answered if the gateway died.
    refused: bool,
}

/// An attempt that left a gateway.
#[derive(Clone, Copy, Debug)]
struct Sent {
    processor: Processor,
    requested_at_ms: u64,
    /// When, µs.
    sent_us: u64,
    /// Its gateway was told that nothing was stored.
    refused: bool,
}

/// What a processor said of a payment.
#[derive(Clone, Copy, Default, Debug)]
struct Declines {
    count: u32,
    stored_first: Option<u64>,
    stored_last: u64,
    since_handed_over: u32,
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
    stored: [Option<Stored>; PROCESSORS_LEN_MAX],
    /// Where and since when it was booked, in each of its lives.
    booked: Vec<(Processor, u64)>,
    /// When its gateway had it last, by that one's clock.
    accepted_at_ms: u64,
    /// By [`Processor::index`]: how often it declined the payment to gateways, how much it had stored when it did so first, and how often
    /// since the payment was handed over last.
    declines: [Declines; PROCESSORS_LEN_MAX],
    /// When it ended last, µs.
    ended_us: u64,
    /// Since when nothing but the router keeps it from being processed, µs.
    free_us: u64,
    /// By [`Processor::index`]: it had taken it, and declined it later.
    result_declined: [bool; PROCESSORS_LEN_MAX],
    /// A processor has it with another amount.
    misread: bool,
    /// By [`Processor::index`]: it said that it had the id.
    said_duplicate: [bool; PROCESSORS_LEN_MAX],
    /// As the coordinator decided.
    decided: Record,
    /// As the disk has it.
    written: Record,
    /// As the admission table has it, until the disk does.
    table: Option<Record>,
    /// Its client's deadline, as the aggregator has decided.
    deadline_ms: Option<u64>,
    /// With which members the disk says that it was accepted.
    members: Option<String>,
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
    /// What another processor stored of it.
    fn stored_elsewhere(&self, processor: Processor) -> Option<Stored> {
        let others = Processor::ALL.into_iter().filter(|other| *other != processor);
        others.into_iter().find_map(|other| self.stored[other.index()])
    }

    fn is_promised(&self) -> bool {
        !self.purged && !self.lost_power && !self.relapsed
    }
}

/// What entries come to when they are added up.
#[derive(Clone, Default)]
struct Books {
    accepted: Tally,
    processed: [Tally; PROCESSORS_LEN_MAX],
    declined: Tally,
    known_before: Tally,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Oracle {
    /// The checks' counts and the first failure.
    pub checks: Checks,
    /// The virtual time, µs.
    pub now_us: u64,
    truths: Vec<Truth>,
    members_decided: Gathered,
    members_written: Gathered,
    books: Books,
    /// `requestedAt` and cents of what was decided to be processed, by [`Processor::index`].
    processed: [Vec<(u64, u64)>; PROCESSORS_LEN_MAX],
    /// By [`Processor::index`].
    pub(super) leases: [Leases; PROCESSORS_LEN_MAX],
    /// What the ledger remembers, as decided.
    known: Retention,
    /// The same, as the disk has it.
    known_written: Retention,
    /// The least number of ids that any start so far was told to remember.
    known_len_least: usize,
    /// How long a POST waits for the ledger, µs.
    accept_wait_us: u64,
    /// How long an attempt may be sent again, µs.
    key_us: u64,
    processors: ProcessorSet,
    declined_goes_on: bool,
    /// Payments that gateways were told a processor took, by [`Processor::index`].
    taken_counts: [u64; PROCESSORS_LEN_MAX],
    /// Payments that ended declined.
    pub declined_count: u64,
    /// Doubts that ended since nothing was found.
    pub absent_count: u64,
    /// Ids that were forgotten.
    pub forgotten_count: u64,
    /// Ids that were accepted again after that.
    pub relapsed_count: u64,
    /// Those of them that ended as known before.
    pub known_before_count: u64,
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

/// How often one processor may decline a payment while one gateway holds it: three times, and as often again if it was in doubt meanwhile.
const DECLINES_MAX: u32 = 6;

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
    pub fn new(plan: &Plan) -> Self {
        // Gateways' clocks are up to 200 ms off, either way, and drift. Where they are set, nobody can tell.
        const CLOCKS_US: u64 = 600_000;
        let key_us = if plan.clock_steps { u64::MAX } else { plan.resend_us_max.saturating_add(CLOCKS_US) };
        Self {
            accept_wait_us: plan.accept_wait_us,
            key_us,
            processors: plan.processors(),
            declined_goes_on: plan.declined_goes_on,
            known_len_least: usize::MAX,
            ..Self::default()
        }
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
            stored: [None; PROCESSORS_LEN_MAX],
            booked: Vec::new(),
            accepted_at_ms: 0,
            declines: Default::default(),
            ended_us: 0,
            free_us: 0,
            result_declined: Default::default(),
            misread: false,
            said_duplicate: Default::default(),
            decided: ABSENT,
            written: ABSENT,
            table: None,
            deadline_ms: None,
            members: None,
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
    pub fn posted(&mut self, payment: usize, amount_cents: u64, members: u8) -> usize {
        let visits = &mut self.truths[payment].visits;
        visits.push(Visit { amount_cents, members, arrived_us: self.now_us, refused: false });
        visits.len() - 1
    }

    /// A POST that arrived is answered.
    pub fn answered(&mut self, (payment, visit): (usize, usize), amount_cents: u64, answer: Answer) {
        let members = self.truths[payment].visits[visit].members;
        let same_members = self.has_members(payment, members);
        if matches!(answer, Answer::Full | Answer::Unreachable) {
            self.refused(payment, visit);
        }
        let truth = &mut self.truths[payment];
        if !truth.is_promised() {
            return;
        }
        let written = truth.durable();
        let id = truth.id;
        match answer {
            Answer::Granted | Answer::Replayed => {
                truth.accepted_cents = Some(amount_cents);
                self.check(Invariant::AcceptedIsDurable, !written.is_absent(), || {
                    format!("{id} is answered {answer:?} before it is on disk")
                });
                let same = written.amount_cents == amount_cents && same_members;
                self.check(Invariant::OneAmount, same, || {
                    format!(
                        "{id} with {amount_cents} and members {members} is answered {answer:?}, the disk has {written:?}"
                    )
                });
            }
            Answer::Conflict => {
                let differs = written.amount_cents != amount_cents || !same_members;
                let conflicts = !written.is_absent() && differs;
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
        let sent_us = self.now_us;
        // Another gateway may send once more what has been declined there; it will hear so, and nothing is stored by it.
        let is_over = truth.result_declined[processor.index()];
        truth.sent.push(Sent { processor, requested_at_ms, sent_us, refused: is_over });
        if !truth.is_promised() {
            return Some(attempt);
        }
        let written = truth.durable();
        let same = |sent: &Sent| sent.processor == processor && sent.requested_at_ms == requested_at_ms;
        let other = truth.sent.iter().find(|sent| !sent.refused && !same(sent)).copied().filter(|_| !is_over);
        let first_us = truth.sent.iter().find(|sent| same(sent)).map_or(sent_us, |sent| sent.sent_us);
        let recorded = match written.progress {
            Progress::Absent => false,
            Progress::Open { stage, requested_at_ms: at } => {
                stage == Stage::at(processor) && at == requested_at_ms
            }
            Progress::Ended(End::Processed { processor: at, requested_at_ms: at_ms })
            | Progress::Forgotten(End::Processed { processor: at, requested_at_ms: at_ms }) => {
                at == processor && at_ms == requested_at_ms
            }
            Progress::Ended(End::Declined { .. }) | Progress::Forgotten(End::Declined { .. }) => false,
        };
        let key_us = self.key_us;
        self.check(Invariant::KeyIsAlive, sent_us - first_us <= key_us, || {
            format!("{id} leaves for {processor:?} again, {} µs after the first time", sent_us - first_us)
        });
        let what = || format!("{id} leaves for {processor:?} at {requested_at_ms}");
        self.check(Invariant::UnknownIsNotFailed, other.is_none(), || {
            format!("{}, but {other:?} may have been stored", what())
        });
        self.check(
            Invariant::IntentBeforeByte,
            is_over || recorded && written.amount_cents == amount_cents,
            || format!("{} with {amount_cents} cents, but the disk has {written:?}", what()),
        );
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

    /// A payment is a gateway's anew: what the one before it was told is forgotten.
    pub fn assigned(&mut self, id: CorrelationId) {
        let Some(place) = self.place(id) else { return };
        self.truths[place].declines.iter_mut().for_each(|declines| declines.since_handed_over = 0);
    }

    /// Whether nothing but the router has kept a payment from being processed since then.
    pub fn is_free_since(&self, place: usize, us: u64) -> bool {
        let truth = &self.truths[place];
        truth.is_promised() && truth.free_us <= us
    }

    /// From when it was accepted to when it ended, µs.
    pub fn took_us(&self, place: usize) -> Option<u64> {
        let truth = &self.truths[place];
        let has_ended = truth.is_promised() && truth.ended_us > 0 && truth.accepted_us > 0;
        has_ended.then(|| truth.ended_us.saturating_sub(truth.accepted_us))
    }

    /// A gateway was told that a processor has the id.
    pub fn said_duplicate(&mut self, id: CorrelationId, processor: Processor) {
        let Some(place) = self.place(id) else { return };
        self.truths[place].said_duplicate[processor.index()] = true;
    }

    /// The books may not hold what a processor has of this payment: they were purged, or went with the power.
    pub fn has_lost(&self, place: usize) -> bool {
        self.truths[place].purged || self.truths[place].lost_power
    }

    /// A processor has stored a payment with another amount than it was sent.
    pub fn misread(&mut self, id: CorrelationId) {
        let Some(place) = self.place(id) else { return };
        self.truths[place].misread = true;
        self.processors_differ = true;
    }

    /// The ledger believes that a processor does not have a payment, of which it said that it had it, or nothing.
    fn believed_absent(&mut self, place: usize, processor: Processor, requested_at_ms: u64) {
        let truth = &mut self.truths[place];
        truth.free_us = self.now_us;
        for sent in &mut truth.sent {
            if sent.processor == processor && sent.requested_at_ms == requested_at_ms {
                sent.refused = true;
            }
        }
        let (id, stored) = (truth.id, truth.stored[processor.index()]);
        if truth.is_promised() {
            self.check(Invariant::AbsenceIsTrue, stored.is_none(), || {
                format!("{id} is not at {processor:?}, says the ledger, and stored is {stored:?}")
            });
        }
    }

    /// A payment ends declined.
    fn ended_declined(&mut self, place: usize) {
        self.declined_count += 1;
        let truth = &self.truths[place];
        if !truth.is_promised() {
            return;
        }
        let has_declined = |processor: &Processor| {
            let declines = truth.declines[processor.index()];
            declines.count >= 2 && declines.stored_first.is_some_and(|first| declines.stored_last > first)
        };
        let count = self.processors.iter().filter(has_declined).count();
        let expected = if self.declined_goes_on { self.processors.len() as usize } else { 1 };
        let is_nowhere =
            truth.stored.iter().all(Option::is_none) && truth.sent.iter().all(|sent| sent.refused);
        let what = format!("{} ends declined: {:?}, {:?}", truth.id, truth.declines, truth.sent);
        self.check(Invariant::DeclineIsFinal, count >= expected && is_nowhere, || what);
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
        let elsewhere = truth.stored_elsewhere(processor);
        let cents_known =
            truth.misread || truth.amounts_cents.iter().any(|&cents| same_cents(payment, cents));
        let refused = truth.sent.iter().all(|sent| sent.refused || sent.processor != processor);
        self.check(Invariant::NothingTwice, elsewhere.is_none(), || {
            format!("{id} is stored at two processors: {payment:?} and {elsewhere:?}")
        });
        self.check(Invariant::NoPhantom, cents_known, || {
            format!("{id} is stored as {payment:?}, which no client sent")
        });
        self.check(Invariant::UnknownIsNotFailed, !refused, || {
            format!("{id} is stored at {processor:?} although each attempt was refused")
        });
    }

    /// The coordinator decided `entry`; `claimed` if on a claim.
    pub fn decided(&mut self, entry: Entry, claimed: bool, now_ms: u64) {
        let members = self.members_decided.take_in(entry);
        let Some(id) = id_of(entry) else {
            if entry == Entry::Purged {
                self.purge();
            }
            return;
        };
        let Some(place) = self.place(id) else { return };
        let truth = &mut self.truths[place];
        let before = truth.decided;
        let after = apply(before, entry);
        truth.decided = after.unwrap_or(before);
        truth.story.apply(entry);
        // Else it is of a later life, and the table's of one that is not written yet.
        let is_admitted = truth.table.is_some() && truth.table == apply(ABSENT, entry);
        if relapses(before, entry) && !is_admitted {
            truth.relapsed = true;
            self.relapsed_count += 1;
            self.processors_differ = true;
        }
        if End::of(entry).is_some() {
            truth.ended_us = self.now_us;
        }
        let promised = truth.is_promised();
        let stored = truth.stored;
        self.check(Invariant::NothingTwice, after.is_some(), || {
            format!("{entry:?} does not follow {before:?}")
        });
        match entry {
            Entry::Accepted { amount_cents, decided_at_ms, .. } => {
                add(&mut self.books.accepted, amount_cents);
                self.truths[place].accepted_at_ms = decided_at_ms;
                self.note_deadline(place, &members);
                self.truths[place].free_us = self.now_us;
                // A restarted aggregator does not know any more that there was a purge.
                if claimed && !is_admitted && !self.purge_forgotten {
                    self.check(Invariant::ClaimIsKnown, false, || {
                        format!("{id} is claimed, and the ledger has never heard of it, or has purged or forgotten it")
                    });
                }
                if !claimed && !is_admitted {
                    self.members_granted(place, &members);
                    self.granted(place, amount_cents);
                }
            }
            Entry::Resolved { processor, requested_at_ms, outcome: Outcome::Processed, .. } => {
                let amount_cents = before.amount_cents;
                add(&mut self.books.processed[processor.index()], amount_cents);
                self.processed[processor.index()].push((requested_at_ms, amount_cents));
                self.remember(place);
                let truth = &mut self.truths[place];
                let is_again = truth.booked.contains(&(processor, requested_at_ms));
                truth.booked.push((processor, requested_at_ms));
                // Where the clocks of those who accepted it then and now say that it is of now, the same amount tells nothing.
                let is_of_now = requested_at_ms >= truth.accepted_at_ms;
                let may_be_again = is_of_now || self.has_lost(place);
                self.check(Invariant::NothingTwice, !is_again || may_be_again, || {
                    format!("{entry:?} was booked already, before {id} was forgotten")
                });
                if promised {
                    let is_there = stored[processor.index()].is_some_and(|stored| {
                        same_cents(stored, amount_cents) && same_time(stored, requested_at_ms)
                    });
                    self.check(Invariant::NoPhantom, is_there, || {
                        format!("{entry:?} of {amount_cents} cents, but stored is {stored:?}")
                    });
                }
            }
            Entry::KnownBefore { processor, requested_at_ms, amount_cents, .. } => {
                self.known_before_count += 1;
                add(&mut self.books.known_before, before.amount_cents);
                self.remember(place);
                let is_there = stored[processor.index()].is_some_and(|stored| {
                    same_cents(stored, amount_cents) && same_time(stored, requested_at_ms)
                });
                let is_booked = self.processed[processor.index()].contains(&(requested_at_ms, amount_cents));
                // After a purge another payment of that moment may look like it.
                let is_booked = is_booked || self.has_lost(place);
                self.check(Invariant::NoPhantom, is_there && is_booked, || {
                    format!("{entry:?}, but stored is {stored:?}; booked: {is_booked}")
                });
            }
            Entry::Intended { .. } => self.attempt_recorded(place, now_ms),
            Entry::Resolved { outcome: Outcome::Declined, status, .. } => {
                add(&mut self.books.declined, before.amount_cents);
                self.remember(place);
                if status == STATUS_EXPIRED {
                    self.ended_at_deadline(place, now_ms);
                } else {
                    self.ended_declined(place);
                }
            }
            Entry::Resolved { processor, requested_at_ms, outcome: Outcome::Absent, .. } => {
                self.absent_count += 1;
                self.believed_absent(place, processor, requested_at_ms);
            }
            Entry::Resolved { processor, requested_at_ms, outcome: Outcome::Refused, .. }
                if self.truths[place].said_duplicate[processor.index()] =>
            {
                self.believed_absent(place, processor, requested_at_ms);
            }
            Entry::Resolved { .. }
            | Entry::Purged
            | Entry::Named { .. }
            | Entry::Attached { .. }
            | Entry::Note { .. } => {}
        }
    }

    /// One more has ended.
    fn remember(&mut self, place: usize) {
        if let Some(forgotten) = self.known.remember(place) {
            self.forgotten_count += 1;
            self.truths[forgotten].decided.forget();
        }
    }

    /// A claim was handled: had it to be accepted anew, [`Self::decided`] has said so.
    pub fn claim_handled(&mut self) {
        self.check(Invariant::ClaimIsKnown, true, String::new);
    }

    /// An entry is on disk.
    pub fn written(&mut self, entry: Entry) {
        let members = self.members_written.take_in(entry);
        let Some(id) = id_of(entry) else {
            if entry == Entry::Purged {
                self.truths.iter_mut().for_each(|truth| (truth.written, truth.table) = (ABSENT, None));
                self.known_written.clear();
            }
            return;
        };
        let Some(place) = self.place(id) else { return };
        let before = self.truths[place].written;
        let after = apply(before, entry);
        self.truths[place].written = after.unwrap_or(before);
        if matches!(entry, Entry::Accepted { .. }) {
            self.truths[place].members = members;
            if self.truths[place].table == apply(ABSENT, entry) {
                self.truths[place].table = None;
            }
        }
        if End::of(entry).is_some()
            && let Some(forgotten) = self.known_written.remember(place)
        {
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
            truth.booked.clear();
        });
        let mut amounts = vec![0; self.truths.len()];
        (self.members_decided, self.members_written) = Default::default();
        for entry in entries {
            let members = self.members_written.take_in(*entry);
            if matches!(entry, Entry::Named { .. } | Entry::Note { .. } | Entry::Attached { .. }) {
                continue;
            }
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
                truth.members = members;
                truth.table = truth.table.filter(|table| apply(ABSENT, *entry) != Some(*table));
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
                    self.truths[place].booked.push((processor, requested_at_ms));
                    order.push(place);
                }
                Entry::Resolved { outcome: Outcome::Declined, .. } => {
                    add(&mut self.books.declined, amounts[place]);
                    order.push(place);
                }
                Entry::KnownBefore { .. } => {
                    add(&mut self.books.known_before, amounts[place]);
                    order.push(place);
                }
                Entry::Intended { .. }
                | Entry::Resolved { .. }
                | Entry::Purged
                | Entry::Named { .. }
                | Entry::Attached { .. }
                | Entry::Note { .. } => {}
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
                None if matches!(
                    entry,
                    Entry::Named { .. } | Entry::Note { .. } | Entry::Attached { .. }
                ) => {}
                // A purge that did not happen after all: whatever it touched is beyond promises.
                None => self.truths.iter_mut().for_each(|truth| truth.lost_power = true),
            }
        }
    }
}

fn same_cents(stored: Stored, cents: u64) -> bool {
    u64::try_from(stored.amount_cents) == Ok(cents)
}

fn same_time(stored: Stored, requested_at_ms: u64) -> bool {
    u64::try_from(stored.requested_at_ms) == Ok(requested_at_ms)
}
