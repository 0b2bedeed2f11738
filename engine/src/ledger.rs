//! The ledger: which payments were accepted, where each one stands, and what was processed when and where.
//!
//! Event-sourced: every change is an [`Entry`], decided by [`coordinator`](crate::coordinator) and applied here by
//! [`Ledger::apply`]. The entries, in order, are the whole truth: a ledger rebuilt from them equals the one that was
//! lost. Who works on a payment is not part of that truth (it changes with every connection) and is set separately.
//!
//! Beside it stand the texts of those payments that have some (`attachments`), and the history of the last payments, which nothing else
//! depends on (`history`).
//!
//! Must never: count an id twice; forget an open payment; let an amount pass through a float.
//! Bounded: open payments, remembered ids, texts and time buckets each have a bound, see [`LedgerConfig`].
//!
//! [`snapshot`] writes the whole state down while entries go on being applied, and reads it back.
//!
//! An id that was forgotten and comes again is accepted as new. If its processor has it since before, and the totals hold that, it ends as *known
//! before* and is counted nowhere else (`forgotten`).
//!
//! Conservation (invariant 5) is asserted after each entry, in release builds too: accepted = processed + declined + known before + open,
//! in count and in cents.

use std::collections::hash_map::Entry as Vacancy;
use std::sync::Arc;

use galo_wire::{
    CorrelationId, History, Outcome, PROCESSORS_LEN_MAX, Processor, Reason, STATUS_CANCELLED, STATUS_EXPIRED,
    STATUS_SETTLED, Stage,
};

use crate::buckets::{BYTES_MAX_WORKABLE, Buckets};
use crate::coordinator::SessionId;
use crate::router::ProcessorSet;
use crate::texts::Texts;
use crate::time::UnixMillis;

use self::attachments::{Attachments, MEMBERS_OVERHEAD};
use self::id_hash::IdHash;
use self::owners::Owners;

mod attachments;
mod entry;
mod forgotten;
mod history;
mod id_hash;
mod known;
pub mod listing;
mod owners;
pub mod replay;
pub mod snapshot;

pub use entry::{Entry, ProcessorName, processor_name};

type HashMap<V> = std::collections::HashMap<CorrelationId, V, IdHash>;

/// The bounds of a ledger, and the seed of its hash tables.
#[derive(Clone, Copy, Debug)]
pub struct LedgerConfig {
    /// Open payments at most; beyond it an accept is answered [`Full`](galo_wire::record::Admission::Full).
    ///
    /// Memory: 41 bytes an entry in the table, at most 94 with its slack.
    pub open_len_max: usize,
    /// Ids of processed and declined payments remembered at most; beyond it the one that ended first is forgotten, and its id counts as new.
    ///
    /// Memory: at most 44 bytes an id, see `ledger/known.rs`. Room for up to 900,000 is reserved beforehand.
    pub known_len_max: usize,
    /// Memory of all processors' time buckets together, bytes. Those of a processor that is in the books and not among `processors` take
    /// [`BYTES_MAX_WORKABLE`] more.
    pub bucket_bytes_max: usize,
    /// Open payments' members, bytes, each payment's counted with 128 more; beyond it an accept with members is answered
    /// [`Full`](galo_wire::record::Admission::Full). Memory: as much, and as much again while a snapshot is taken.
    pub members_bytes_max: usize,
    /// The processors that there are: each has an equal share of that.
    pub processors: ProcessorSet,
    /// Keeps clients from choosing ids that collide, as long as they cannot guess it.
    pub hash_seed: u64,
}

/// Why an entry does not fit the ledger that it is applied to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(&'static str);

impl Misfit {
    pub(crate) const NO_CHANGE: Self = Self("a state's row stands among changes");
}

/// A payment that was accepted and has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenPayment {
    /// How much.
    pub amount_cents: u64,
    /// The recorded attempt's `requestedAt`; while waiting, of the last one that was refused (0: none), since the next one must
    /// have a later one, whoever makes it.
    pub requested_at_ms: u64,
    /// The processor that may have it.
    pub stage: Stage,
    /// It may be there already, whoever sent it.
    pub in_doubt: bool,
    /// Who works on it; `None` until a gateway is there.
    pub owner: Option<SessionId>,
}

const _: () = assert!(size_of::<OpenPayment>() == 24, "texts stand beside it");

/// A payment that was processed or declined: 16 bytes. The second word is as in [`galo_wire::page`]: `requestedAt` below the declined bit, and the processor in
/// the top three.
#[derive(Clone, Copy)]
struct EndedPayment {
    amount_cents: u64,
    word: u64,
}

const DECLINED_BIT: u64 = 1 << 60;
const REQUESTED_AT_MASK: u64 = DECLINED_BIT - 1;

/// Of a declined payment: when it ended takes 48 bits, which are 8,900 years; the status stands above.
const ENDED_AT_BITS: u32 = 48;
const ENDED_AT_MASK: u64 = (1 << ENDED_AT_BITS) - 1;

impl EndedPayment {
    const fn new(amount_cents: u64, requested_at_ms: u64, processor: Processor) -> Self {
        Self { amount_cents, word: (requested_at_ms & REQUESTED_AT_MASK) | processor.to_top_bits() }
    }

    fn declined(amount_cents: u64, ended_at_ms: u64, processor: Processor, status: u16) -> Self {
        let status = u64::from(status.min(999));
        let at = (ended_at_ms & ENDED_AT_MASK) | status << ENDED_AT_BITS;
        let payment = Self::new(amount_cents, at, processor);
        Self { word: payment.word | DECLINED_BIT, ..payment }
    }

    const fn processor(self) -> Processor {
        Processor::from_top_bits(self.word)
    }

    const fn is_declined(self) -> bool {
        self.word & DECLINED_BIT != 0
    }

    /// As processors stored it; of a declined one its time and status.
    const fn requested_at_ms(self) -> u64 {
        self.word & REQUESTED_AT_MASK
    }

    /// When it was, roughly: `requestedAt`, or when it ended declined.
    const fn ended_ms(self) -> u64 {
        if self.is_declined() { self.requested_at_ms() & ENDED_AT_MASK } else { self.requested_at_ms() }
    }

    fn known(self) -> Known {
        let Self { amount_cents, .. } = self;
        let (processor, requested_at_ms) = (self.processor(), self.requested_at_ms());
        if self.is_declined() {
            let status = u16::try_from(requested_at_ms >> ENDED_AT_BITS).unwrap_or(0);
            Known::Declined { amount_cents, ended_at_ms: requested_at_ms & ENDED_AT_MASK, processor, status }
        } else {
            Known::Processed { amount_cents, requested_at_ms, processor }
        }
    }
}

/// What the ledger knows of an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Nothing: it never came, or was forgotten.
    Absent,
    /// Accepted, not ended.
    Open(OpenPayment),
    /// Processed.
    Processed {
        /// How much.
        amount_cents: u64,
        /// As stored by the processor.
        requested_at_ms: u64,
        /// Where.
        processor: Processor,
    },
    /// Ended without being processed, and nothing was charged.
    Declined {
        /// How much.
        amount_cents: u64,
        /// When.
        ended_at_ms: u64,
        /// Who refused it last; of a cancelled one it means nothing.
        processor: Processor,
        /// The HTTP status of that refusal, 0 if it is not known; or [`STATUS_CANCELLED`], [`STATUS_SETTLED`], [`STATUS_EXPIRED`].
        status: u16,
    },
}

/// A number of payments and their sum.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their sum, cents.
    pub amount_cents: u64,
}

impl Tally {
    /// Whether so much more can be added. What is open or processed is part of what was accepted: room there is room in all.
    fn check_room(&self, count: u64, amount_cents: u64) -> Result<(), Misfit> {
        let sums = (self.count.checked_add(count), self.amount_cents.checked_add(amount_cents));
        if matches!(sums, (Some(_), Some(_))) { Ok(()) } else { Err(BEYOND_THE_BOOKS) }
    }

    fn add(&mut self, amount_cents: u64) {
        self.count += 1;
        self.amount_cents += amount_cents;
    }

    fn subtract(&mut self, amount_cents: u64) {
        self.count -= 1;
        self.amount_cents -= amount_cents;
    }
}

/// The totals that conservation is about.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Conservation {
    /// Every payment since start or purge.
    pub accepted: Tally,
    /// By [`Processor::index`].
    pub processed: [Tally; PROCESSORS_LEN_MAX],
    /// Ended without being processed.
    pub declined: Tally,
    /// Accepted again after they had been forgotten: `processed` holds them already, with what they had been accepted with before.
    pub known_before: Tally,
    /// Accepted and not ended.
    pub open: Tally,
    /// Those of them whose attempt's outcome is unknown.
    pub in_doubt_count: u64,
}

impl Conservation {
    /// What is processed, declined or was known before.
    #[must_use]
    pub fn ended(&self) -> Tally {
        self.processed.iter().chain([&self.declined]).fold(self.known_before, |sum, tally| Tally {
            count: sum.count + tally.count,
            amount_cents: sum.amount_cents + tally.amount_cents,
        })
    }
}

/// The totals of a range of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// By [`Processor::index`].
    pub totals: [Tally; PROCESSORS_LEN_MAX],
    /// 1 where the totals are exact, else the width of the coarsest bucket that a bound cut, ms.
    pub resolution_ms: u32,
}

/// The number of tables that ids are spread over. A table that grows moves all its entries at once; with 64 of them a
/// ledger of a million ids never moves more than one sixty-fourth of them between two payments.
const SHARD_COUNT: usize = 64;

/// A hash table in [`SHARD_COUNT`] parts.
struct Sharded<V> {
    shards: Vec<HashMap<V>>,
    len: usize,
}

impl<V: Copy> Sharded<V> {
    fn new(hash_seed: u64) -> Self {
        let state = IdHash::new(hash_seed);
        Self { shards: (0..SHARD_COUNT).map(|_| HashMap::with_hasher(state)).collect(), len: 0 }
    }

    /// The shard is chosen by the id's last byte: random in every version of UUID that clients generate.
    fn shard_of(id: CorrelationId) -> usize {
        usize::from(id.0[15]) % SHARD_COUNT
    }

    fn get(&self, id: CorrelationId) -> Option<V> {
        self.shards[Self::shard_of(id)].get(&id).copied()
    }

    fn get_mut(&mut self, id: CorrelationId) -> Option<&mut V> {
        self.shards[Self::shard_of(id)].get_mut(&id)
    }

    /// False, and nothing done, if the id is there already.
    fn insert_new(&mut self, id: CorrelationId, value: V) -> bool {
        let Vacancy::Vacant(vacant) = self.shards[Self::shard_of(id)].entry(id) else { return false };
        vacant.insert(value);
        self.len += 1;
        true
    }

    /// Makes room for `len` ids, spread evenly.
    fn reserve(&mut self, len: usize) {
        self.shards.iter_mut().for_each(|shard| shard.reserve(len / SHARD_COUNT));
    }

    fn remove(&mut self, id: CorrelationId) -> Option<V> {
        let value = self.shards[Self::shard_of(id)].remove(&id)?;
        self.len -= 1;
        Some(value)
    }

    fn clear(&mut self) {
        self.shards.iter_mut().for_each(|shard| *shard = HashMap::with_hasher(*shard.hasher()));
        self.len = 0;
    }

    fn iter(&self) -> impl Iterator<Item = (CorrelationId, V)> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(id, value)| (*id, *value)))
    }
}

const ENDED_AGAIN: Misfit = Misfit("an id that has ended is not accepted again");
const NOT_OPEN: Misfit = Misfit("only an open payment is sent or resolved");
const BEYOND_THE_BOOKS: Misfit = Misfit("the books cannot hold such a sum");

/// See the module's documentation.
pub struct Ledger {
    config: LedgerConfig,
    open: Sharded<OpenPayment>,
    owners: Owners,
    /// Ids that were processed or declined.
    ended: known::KnownIds,
    attachments: Attachments,
    histories: history::Histories,
    /// By [`Processor::index`], of those that there are or have processed something.
    buckets: [Option<Buckets>; PROCESSORS_LEN_MAX],
    names: [Option<ProcessorName>; PROCESSORS_LEN_MAX],
    conservation: Conservation,
    forgotten: forgotten::Forgotten,
    purged: bool,
    export: Option<snapshot::Export>,
    /// Ids that were forgotten since somebody took them, if anybody wants them.
    forgotten_ids: Option<Vec<(CorrelationId, u64)>>,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(config: LedgerConfig) -> Self {
        let share = config.bucket_bytes_max / (config.processors.len().max(1) as usize);
        let buckets = |processor| config.processors.has(processor).then(|| Buckets::new(share));
        Self {
            config,
            open: Sharded::new(config.hash_seed),
            owners: Owners::default(),
            ended: known::KnownIds::new(config.hash_seed.rotate_left(32), config.known_len_max),
            attachments: Attachments::new(IdHash::new(config.hash_seed.rotate_left(48))),
            histories: history::Histories::new(config.hash_seed.rotate_left(16), history::PAYMENTS_LEN),
            buckets: Processor::ALL.map(buckets),
            names: [None; PROCESSORS_LEN_MAX],
            conservation: Conservation::default(),
            forgotten: forgotten::Forgotten::default(),
            purged: false,
            export: None,
            forgotten_ids: None,
        }
    }

    /// Has [`Self::forgotten_ids`] kept from now on.
    pub fn keep_forgotten_ids(&mut self) {
        self.forgotten_ids = Some(Vec::new());
    }

    /// Ids that were forgotten since this was called last, one by one, with their amounts.
    pub fn forgotten_ids(&mut self) -> impl Iterator<Item = (CorrelationId, u64)> {
        self.forgotten_ids.iter_mut().flat_map(|ids| ids.drain(..))
    }

    /// All ids that are known, with what was accepted; without the amount where members were, too.
    pub fn known_ids(&self) -> impl Iterator<Item = (CorrelationId, Option<u64>)> {
        let open = self.open.iter().map(|(id, payment)| {
            let is_plain = self.came_with(id, None);
            (id, is_plain.then_some(payment.amount_cents))
        });
        let ended = self.ended.places().map(|place| {
            let known::Row { id, payment } = self.ended.at(place);
            let is_plain = self.attachments.has_ended_with(id, place, None);
            (id, is_plain.then_some(payment.amount_cents))
        });
        open.chain(ended)
    }

    /// Changes how many ended ids are remembered, and forgets those beyond at once.
    pub fn set_known_len_max(&mut self, known_len_max: usize) {
        self.config.known_len_max = known_len_max;
        self.forget_beyond(known_len_max);
    }

    /// Whether there ever was a purge: an id that is unknown may have been known then.
    #[must_use]
    pub fn was_purged(&self) -> bool {
        self.purged
    }

    /// Whether ids were ever forgotten: one that is unknown may have been processed then. True also after a restart, since more
    /// were processed than are remembered.
    #[must_use]
    pub fn has_forgotten(&self) -> bool {
        self.conservation.ended().count > self.ended.len() as u64
    }

    /// How many ended ids are remembered at most.
    #[must_use]
    pub fn known_len_max(&self) -> usize {
        self.config.known_len_max
    }

    /// What is known of an id.
    #[must_use]
    pub fn lookup(&self, id: CorrelationId) -> Known {
        if let Some(open) = self.open.get(id) {
            return Known::Open(open);
        }
        self.ended.get(id).map_or(Known::Absent, EndedPayment::known)
    }

    /// The texts of an open payment.
    #[must_use]
    pub fn texts(&self, id: CorrelationId) -> Option<&Texts> {
        self.attachments.of_open(id)
    }

    /// What its processor calls a payment that is open or was processed.
    #[must_use]
    pub fn reference(&self, id: CorrelationId) -> Option<String> {
        if let Some(texts) = self.attachments.of_open(id) {
            return texts.reference.as_deref().map(str::to_owned);
        }
        self.ended.place_of(id).and_then(|place| self.attachments.reference_at(place))
    }

    /// Whether a payment that is known came with these members.
    #[must_use]
    pub fn came_with(&self, id: CorrelationId, members: Option<&str>) -> bool {
        match self.ended.place_of(id) {
            Some(place) => self.attachments.has_ended_with(id, place, members),
            None => self.texts(id).and_then(|texts| texts.members.as_deref()) == members,
        }
    }

    /// The first deadline of an open payment that is to pass, ms.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.attachments.next_deadline_ms()
    }

    /// A payment whose deadline has passed: each is given once, and once more after each attempt that left it open.
    pub fn take_expired(&mut self, now: UnixMillis) -> Option<CorrelationId> {
        self.attachments.take_expired(now.0)
    }

    /// Whether members of so many bytes may be taken in.
    #[must_use]
    pub fn has_room_for(&self, members: Option<&str>) -> bool {
        let bytes = members.map_or(0, |members| members.len() + MEMBERS_OVERHEAD);
        bytes == 0 || self.attachments.members_bytes() + bytes <= self.config.members_bytes_max
    }

    /// Bytes of open payments' members.
    #[must_use]
    pub fn members_bytes(&self) -> usize {
        self.attachments.members_bytes()
    }

    /// What is kept of the decisions about an id that is known.
    #[must_use]
    pub fn history(&self, id: CorrelationId) -> History {
        self.histories.of(id)
    }

    /// Whether one more payment of this amount may be accepted: there is a place for it, and the books can hold the sum (it
    /// takes 184 million payments of the largest amount to fill them).
    #[must_use]
    pub fn has_room(&self, amount_cents: u64) -> bool {
        self.open.len < self.config.open_len_max
            && self.conservation.accepted.amount_cents.checked_add(amount_cents).is_some()
    }

    /// Open payments at most.
    #[must_use]
    pub fn open_len_max(&self) -> usize {
        self.config.open_len_max
    }

    /// Processed ids remembered.
    #[must_use]
    pub fn known_len(&self) -> usize {
        self.ended.len()
    }

    /// Heap bytes of the time buckets.
    #[must_use]
    pub fn bucket_bytes(&self) -> usize {
        self.buckets.iter().flatten().map(Buckets::bytes).sum()
    }

    /// The totals since start or purge.
    #[must_use]
    pub fn conservation(&self) -> Conservation {
        self.conservation
    }

    /// Totals of the payments with `from <= requestedAt <= to`.
    #[must_use]
    pub fn summarize(&self, from: UnixMillis, to: UnixMillis) -> Summary {
        let mut totals = [Tally::default(); PROCESSORS_LEN_MAX];
        let mut resolution_ms = 1;
        for (total, buckets) in totals.iter_mut().zip(&self.buckets) {
            let Some(buckets) = buckets else { continue };
            let sum = buckets.sum(from, to);
            *total = Tally { count: sum.count, amount_cents: sum.amount_cents };
            resolution_ms = resolution_ms.max(sum.resolution_ms);
        }
        if let Some(export) = &self.export {
            export.add_waiting(from, to, &mut totals);
        }
        Summary { totals, resolution_ms }
    }

    /// The names that processors have, by their numbers.
    pub fn names(&self) -> impl Iterator<Item = (Processor, ProcessorName)> {
        Processor::ALL.into_iter().filter_map(|processor| Some((processor, self.names[processor.index()]?)))
    }

    fn buckets_mut(&mut self, processor: Processor) -> &mut Buckets {
        self.buckets[processor.index()].get_or_insert_with(|| Buckets::new(BYTES_MAX_WORKABLE))
    }

    /// Makes `owner` the one who works on an open payment.
    ///
    /// # Panics
    /// If the payment is not open: the caller has just looked it up.
    pub fn set_owner(&mut self, id: CorrelationId, owner: Option<SessionId>) {
        let payment = self.open.get_mut(id).expect("only an open payment has an owner");
        self.owners.moved(std::mem::replace(&mut payment.owner, owner), owner);
    }

    /// The open payments of `owner`, or those of nobody.
    pub fn open_of(&self, owner: Option<SessionId>) -> impl Iterator<Item = (CorrelationId, OpenPayment)> {
        self.open.iter().filter(move |(_, payment)| payment.owner == owner)
    }

    /// Applies one change.
    ///
    /// # Panics
    /// If the entry does not fit the ledger (an id accepted twice, an intent for a payment that is not open): entries
    /// are decided against this very ledger, so that is a bug, and going on would corrupt the books.
    pub fn apply(&mut self, entry: Entry) {
        if let Err(misfit) = self.try_apply(entry) {
            panic!("{misfit}: {entry:?}");
        }
    }

    /// Applies one change that was decided elsewhere: read from a journal.
    ///
    /// # Errors
    /// If it does not fit this ledger, which has not changed then; while a [`replay`] is under way, some of that is found later.
    pub fn try_apply(&mut self, entry: Entry) -> Result<(), Misfit> {
        match entry {
            Entry::Accepted { correlation_id, amount_cents, stage, decided_at_ms, in_doubt, reason } => {
                if self.ended.contains(correlation_id) {
                    return Err(ENDED_AGAIN);
                }
                self.conservation.accepted.check_room(1, amount_cents)?;
                // A claim states no reason, and the attempt that it gave up.
                let is_attempt = stage != Stage::Waiting || reason == Reason::Unstated;
                let requested_at_ms = if is_attempt { decided_at_ms } else { 0 };
                let payment = OpenPayment { amount_cents, requested_at_ms, stage, in_doubt, owner: None };
                let texts = self.attachments.take_gathered()?;
                if !self.open.insert_new(correlation_id, payment) {
                    return Err(Misfit("an open id is not accepted again"));
                }
                self.keep_from_export(correlation_id, None);
                self.attachments.accepted(correlation_id, texts);
                self.histories.accepted(correlation_id, decided_at_ms, stage, reason, in_doubt);
                self.conservation.accepted.add(amount_cents);
                self.conservation.open.add(amount_cents);
                self.conservation.in_doubt_count += u64::from(in_doubt);
            }
            Entry::Intended { correlation_id, processor, requested_at_ms, reason, waited_for_ms } => {
                self.attachments.expect_nothing()?;
                let payment = self.open.get_mut(correlation_id).ok_or(NOT_OPEN)?;
                if payment.in_doubt && payment.stage != Stage::at(processor) {
                    return Err(Misfit("a payment in doubt stays with its processor"));
                }
                let before = *payment;
                payment.stage = Stage::at(processor);
                payment.requested_at_ms = requested_at_ms;
                self.keep_from_export(correlation_id, Some(before));
                if !before.in_doubt {
                    self.attachments.unnamed(correlation_id);
                }
                self.histories.intended(correlation_id, requested_at_ms, processor, reason, waited_for_ms);
            }
            Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status } => {
                self.resolve(correlation_id, processor, requested_at_ms, outcome, status)?;
            }
            Entry::KnownBefore { correlation_id, processor, requested_at_ms, amount_cents } => {
                self.end_known_before(correlation_id, processor, requested_at_ms, amount_cents)?;
            }
            Entry::Attached { attachment, size, text } => self.attachments.gather(attachment, size, &text)?,
            Entry::Named { .. } | Entry::Note { .. } | Entry::Purged => self.attachments.expect_nothing()?,
        }
        match entry {
            Entry::Named { processor, name } => self.name(processor, name)?,
            Entry::Purged => {
                self.attachments.clear();
                self.open.clear();
                self.owners = Owners::default();
                self.ended.clear();
                self.histories.clear();
                self.buckets.iter_mut().flatten().for_each(Buckets::clear);
                self.conservation = Conservation::default();
                self.forgotten = forgotten::Forgotten::default();
                self.purged = true;
                self.export = None;
            }
            _ => {}
        }
        self.assert_conservation();
        Ok(())
    }

    fn resolve(
        &mut self,
        id: CorrelationId,
        processor: Processor,
        requested_at_ms: u64,
        outcome: Outcome,
        status: u16,
    ) -> Result<(), Misfit> {
        let reference = self.attachments.take_reference(outcome)?;
        let before = match outcome {
            Outcome::Processed => {
                let payment = self.open.remove(id).ok_or(NOT_OPEN)?;
                self.owners.moved(payment.owner, None);
                self.conservation.in_doubt_count -= u64::from(payment.in_doubt);
                self.conservation.open.subtract(payment.amount_cents);
                self.conservation.processed[processor.index()].add(payment.amount_cents);
                self.record(processor, UnixMillis(requested_at_ms), payment.amount_cents);
                let remembered = EndedPayment::new(payment.amount_cents, requested_at_ms, processor);
                assert!(self.remember(id, remembered), "an id is in one table at most");
                payment
            }
            Outcome::Declined => {
                let payment = self.open.get(id).ok_or(NOT_OPEN)?;
                let is_free = payment.stage == Stage::Waiting && !payment.in_doubt;
                // Of what is in doubt only a person may say that nobody has it.
                let is_settled =
                    status == STATUS_SETTLED && payment.in_doubt && payment.stage == Stage::at(processor);
                if !is_free && !is_settled {
                    return Err(Misfit("a payment that a processor may have does not end declined"));
                }
                self.open.remove(id);
                self.owners.moved(payment.owner, None);
                self.conservation.in_doubt_count -= u64::from(payment.in_doubt);
                self.conservation.open.subtract(payment.amount_cents);
                self.conservation.declined.add(payment.amount_cents);
                let remembered =
                    EndedPayment::declined(payment.amount_cents, requested_at_ms, processor, status);
                assert!(self.remember(id, remembered), "an id is in one table at most");
                payment
            }
            Outcome::Absent => {
                let payment = self.open.get_mut(id).ok_or(NOT_OPEN)?;
                if payment.stage != Stage::at(processor) || !payment.in_doubt {
                    return Err(Misfit("only the recorded attempt's doubt is settled"));
                }
                let before = *payment;
                (payment.stage, payment.in_doubt) = (Stage::Waiting, false);
                self.conservation.in_doubt_count -= 1;
                before
            }
            Outcome::Refused => {
                let payment = self.open.get_mut(id).ok_or(NOT_OPEN)?;
                if payment.in_doubt {
                    return Err(Misfit("a refusal does not settle an earlier attempt in doubt"));
                }
                let before = *payment;
                payment.stage = Stage::Waiting;
                before
            }
            Outcome::Unknown => {
                let payment = self.open.get_mut(id).ok_or(NOT_OPEN)?;
                if payment.stage != Stage::at(processor) {
                    return Err(Misfit("doubt is about the recorded attempt"));
                }
                let before = *payment;
                payment.in_doubt = true;
                self.conservation.in_doubt_count += u64::from(!before.in_doubt);
                before
            }
        };
        self.keep_from_export(id, Some(before));
        self.resolve_texts(id, before, processor, outcome, reference);
        // A client who cancels or sets a deadline says nothing of the attempts before.
        if outcome != Outcome::Declined || !matches!(status, STATUS_CANCELLED | STATUS_EXPIRED) {
            self.histories.resolved(id, requested_at_ms, processor, outcome);
        }
        Ok(())
    }

    /// An open payment ends whose processor has it since before it was forgotten.
    fn end_known_before(
        &mut self,
        id: CorrelationId,
        processor: Processor,
        requested_at_ms: u64,
        amount_cents: u64,
    ) -> Result<(), Misfit> {
        let reference = self.attachments.take_reference(Outcome::Processed)?;
        let payment = self.open.remove(id).ok_or(NOT_OPEN)?;
        self.owners.moved(payment.owner, None);
        self.conservation.in_doubt_count -= u64::from(payment.in_doubt);
        self.conservation.open.subtract(payment.amount_cents);
        self.conservation.known_before.add(payment.amount_cents);
        let remembered = EndedPayment::new(amount_cents, requested_at_ms, processor);
        assert!(self.remember(id, remembered), "an id is in one table at most");
        self.keep_from_export(id, Some(payment));
        self.resolve_texts(id, payment, processor, Outcome::Processed, reference);
        self.histories.resolved(id, requested_at_ms, processor, Outcome::Processed);
        Ok(())
    }

    /// What the end of an attempt means for the payment's texts.
    fn resolve_texts(
        &mut self,
        id: CorrelationId,
        before: OpenPayment,
        processor: Processor,
        outcome: Outcome,
        reference: Option<Arc<str>>,
    ) {
        match outcome {
            Outcome::Processed | Outcome::Declined => {
                let known = || self.attachments.of_open(id)?.reference.clone();
                // Of a declined payment, and of one that another processor has, it would name nothing.
                let is_kept = outcome == Outcome::Processed && before.stage == Stage::at(processor);
                let reference = reference.or_else(|| if is_kept { known() } else { None });
                self.attachments.ended(id, self.ended.places().end - 1, reference);
            }
            Outcome::Refused | Outcome::Absent => self.attachments.unnamed(id),
            Outcome::Unknown => {
                if let Some(reference) = reference {
                    self.attachments.named(id, reference);
                }
            }
        }
    }

    /// False, and nothing done, if the id is remembered already.
    fn remember(&mut self, id: CorrelationId, payment: EndedPayment) -> bool {
        self.forget_beyond(self.config.known_len_max.saturating_sub(1));
        self.ended.insert_new(id, payment)
    }

    fn forget_beyond(&mut self, len_max: usize) {
        while self.ended.len() > len_max {
            let first = self.ended.places().start;
            self.keep_forgotten_from_export(first);
            if let Some(ids) = &mut self.forgotten_ids {
                let known::Row { id, payment } = self.ended.at(first);
                ids.push((id, payment.amount_cents));
            }
            if let Some(payment) = self.ended.forget_first() {
                self.forgotten.note(payment);
            }
            self.attachments.forget_before(self.ended.first());
        }
    }

    fn name(&mut self, processor: Processor, name: ProcessorName) -> Result<(), Misfit> {
        if self.names().any(|(other, taken)| (other == processor) != (taken == name)) {
            return Err(Misfit("a processor keeps its name, and a name its processor"));
        }
        self.names[processor.index()] = Some(name);
        Ok(())
    }

    fn assert_conservation(&self) {
        let Conservation { accepted, open, .. } = self.conservation;
        let ended = self.conservation.ended();
        assert_eq!(accepted.count, ended.count + open.count, "payments are conserved");
        assert_eq!(accepted.amount_cents, ended.amount_cents + open.amount_cents, "cents are conserved");
        assert_eq!(open.count, self.open.len as u64, "the count of open payments is the table's");
    }
}
