//! The ledger: which payments were accepted, where each one stands, and what was processed when and where.
//!
//! Event-sourced: every change is an [`Entry`], decided by [`coordinator`](crate::coordinator) and applied here by
//! [`Ledger::apply`]. The entries, in order, are the whole truth: a ledger rebuilt from them equals the one that was
//! lost. Who works on a payment is not part of that truth (it changes with every connection) and is set separately.
//!
//! Must never: count an id twice; forget an open payment; let an amount pass through a float.
//! Bounded: open payments, remembered ids and time buckets each have a bound, see [`LedgerConfig`].
//!
//! Conservation (invariant 5) is asserted after each entry, in release builds too: accepted = processed + open, in
//! count and in cents.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use galo_wire::{CorrelationId, Outcome, Processor, Stage};

use crate::buckets::Buckets;
use crate::coordinator::SessionId;
use crate::time::UnixMillis;

type HashMap<V> = std::collections::HashMap<CorrelationId, V, FixedState>;

/// The bounds of a ledger, and the seed of its hash tables.
#[derive(Clone, Copy, Debug)]
pub struct LedgerConfig {
    /// Open payments at most; beyond it an accept is answered [`Full`](galo_wire::record::Verdict::Full).
    ///
    /// Memory: 41 bytes an entry in the table, at most 94 with its slack.
    pub open_len_max: usize,
    /// Processed ids remembered at most; beyond it the one processed first is forgotten, and its id counts as new.
    ///
    /// Memory: 33 bytes an entry in the table, at most 76 with slack, and 16 in the queue.
    pub known_len_max: usize,
    /// Memory of both processors' time buckets together, bytes.
    pub bucket_bytes_max: usize,
    /// Keeps clients from choosing ids that collide.
    pub hash_seed: u64,
}

/// One change of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A payment was accepted, with the attempt that follows at once, if any.
    Accepted {
        /// Who.
        correlation_id: CorrelationId,
        /// How much.
        amount_cents: u64,
        /// The processor of the planned attempt, or waiting.
        stage: Stage,
        /// The planned attempt's `requestedAt`; 0 while waiting.
        requested_at_ms: u64,
        /// The attempt's outcome is unknown already (a claim after the ledger's memory was lost).
        in_doubt: bool,
    },
    /// An open payment is about to be sent.
    Intended {
        /// Who.
        correlation_id: CorrelationId,
        /// Where to.
        processor: Processor,
        /// The `requestedAt` to be stored there.
        requested_at_ms: u64,
    },
    /// An attempt ended, or its gateway is gone ([`Outcome::Unknown`]).
    Resolved {
        /// Who.
        correlation_id: CorrelationId,
        /// Where.
        processor: Processor,
        /// The `requestedAt` stored there; counts for [`Outcome::Processed`].
        requested_at_ms: u64,
        /// How.
        outcome: Outcome,
    },
    /// Everything was forgotten.
    Purged,
}

/// A payment that was accepted and is not processed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenPayment {
    /// How much.
    pub amount_cents: u64,
    /// The recorded attempt's `requestedAt`; 0 while waiting.
    pub requested_at_ms: u64,
    /// The processor that may have it.
    pub stage: Stage,
    /// It may be there already, whoever sent it.
    pub in_doubt: bool,
    /// Who works on it; `None` until a gateway is there.
    pub owner: Option<SessionId>,
}

/// A payment that was processed: 24 bytes, the processor in the top bit of `requestedAt`.
#[derive(Clone, Copy)]
struct ProcessedPayment {
    amount_cents: u64,
    requested_at_and_processor: u64,
}

const FALLBACK_BIT: u64 = 1 << 63;

impl ProcessedPayment {
    fn new(amount_cents: u64, requested_at_ms: u64, processor: Processor) -> Self {
        let bit = match processor {
            Processor::Default => 0,
            Processor::Fallback => FALLBACK_BIT,
        };
        Self { amount_cents, requested_at_and_processor: (requested_at_ms & !FALLBACK_BIT) | bit }
    }

    fn processor(self) -> Processor {
        if self.requested_at_and_processor & FALLBACK_BIT == 0 {
            Processor::Default
        } else {
            Processor::Fallback
        }
    }

    fn requested_at_ms(self) -> u64 {
        self.requested_at_and_processor & !FALLBACK_BIT
    }
}

/// What the ledger knows of an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Nothing: it never came, or was forgotten.
    Absent,
    /// Accepted, not processed.
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
    pub processed: [Tally; 2],
    /// Accepted and not processed.
    pub open: Tally,
    /// Those of them whose attempt's outcome is unknown.
    pub in_doubt_count: u64,
}

/// The totals of a range of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// By [`Processor::index`].
    pub totals: [Tally; 2],
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
        let state = FixedState::with_seed(hash_seed);
        Self { shards: (0..SHARD_COUNT).map(|_| HashMap::with_hasher(state.clone())).collect(), len: 0 }
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

    fn insert_new(&mut self, id: CorrelationId, value: V) {
        let before = self.shards[Self::shard_of(id)].insert(id, value);
        assert!(before.is_none(), "an id enters a table once");
        self.len += 1;
    }

    fn remove(&mut self, id: CorrelationId) -> Option<V> {
        let value = self.shards[Self::shard_of(id)].remove(&id)?;
        self.len -= 1;
        Some(value)
    }

    fn clear(&mut self) {
        self.shards.iter_mut().for_each(|shard| *shard = HashMap::with_hasher(shard.hasher().clone()));
        self.len = 0;
    }

    fn iter(&self) -> impl Iterator<Item = (CorrelationId, V)> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(id, value)| (*id, *value)))
    }
}

/// See the module's documentation.
pub struct Ledger {
    config: LedgerConfig,
    open: Sharded<OpenPayment>,
    processed: Sharded<ProcessedPayment>,
    /// The processed ids in the order in which they are forgotten.
    processed_order: VecDeque<CorrelationId>,
    buckets: [Buckets; 2],
    conservation: Conservation,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(config: LedgerConfig) -> Self {
        let buckets = || Buckets::new(config.bucket_bytes_max / 2);
        Self {
            config,
            open: Sharded::new(config.hash_seed),
            processed: Sharded::new(config.hash_seed.rotate_left(32)),
            processed_order: VecDeque::new(),
            buckets: [buckets(), buckets()],
            conservation: Conservation::default(),
        }
    }

    /// What is known of an id.
    #[must_use]
    pub fn lookup(&self, id: CorrelationId) -> Known {
        if let Some(open) = self.open.get(id) {
            return Known::Open(open);
        }
        self.processed.get(id).map_or(Known::Absent, |payment| Known::Processed {
            amount_cents: payment.amount_cents,
            requested_at_ms: payment.requested_at_ms(),
            processor: payment.processor(),
        })
    }

    /// Whether one more payment may be accepted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.open.len < self.config.open_len_max
    }

    /// Processed ids remembered.
    #[must_use]
    pub fn known_len(&self) -> usize {
        self.processed.len
    }

    /// Heap bytes of the time buckets.
    #[must_use]
    pub fn bucket_bytes(&self) -> usize {
        self.buckets.iter().map(Buckets::bytes).sum()
    }

    /// The totals since start or purge.
    #[must_use]
    pub fn conservation(&self) -> Conservation {
        self.conservation
    }

    /// Totals of the payments with `from <= requestedAt <= to`.
    #[must_use]
    pub fn summarize(&self, from: UnixMillis, to: UnixMillis) -> Summary {
        let sums = [self.buckets[0].sum(from, to), self.buckets[1].sum(from, to)];
        Summary {
            totals: sums.map(|sum| Tally { count: sum.count, amount_cents: sum.amount_cents }),
            resolution_ms: sums[0].resolution_ms.max(sums[1].resolution_ms),
        }
    }

    /// Makes `owner` the one who works on an open payment.
    ///
    /// # Panics
    /// If the payment is not open: the caller has just looked it up.
    pub fn set_owner(&mut self, id: CorrelationId, owner: Option<SessionId>) {
        self.open.get_mut(id).expect("only an open payment has an owner").owner = owner;
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
        match entry {
            Entry::Accepted { correlation_id, amount_cents, stage, requested_at_ms, in_doubt } => {
                assert!(self.processed.get(correlation_id).is_none(), "a processed id is not accepted again");
                let payment = OpenPayment { amount_cents, requested_at_ms, stage, in_doubt, owner: None };
                self.open.insert_new(correlation_id, payment);
                self.conservation.accepted.add(amount_cents);
                self.conservation.open.add(amount_cents);
                self.conservation.in_doubt_count += u64::from(in_doubt);
            }
            Entry::Intended { correlation_id, processor, requested_at_ms } => {
                let payment = self.open.get_mut(correlation_id).expect("an intent is for an open payment");
                let may_be_elsewhere = payment.in_doubt && payment.stage != Stage::at(processor);
                assert!(!may_be_elsewhere, "a payment in doubt stays with its processor");
                payment.stage = Stage::at(processor);
                payment.requested_at_ms = requested_at_ms;
            }
            Entry::Resolved { correlation_id, processor, requested_at_ms, outcome } => {
                self.resolve(correlation_id, processor, requested_at_ms, outcome);
            }
            Entry::Purged => {
                self.open.clear();
                self.processed.clear();
                self.processed_order = VecDeque::new();
                self.buckets.iter_mut().for_each(Buckets::clear);
                self.conservation = Conservation::default();
            }
        }
        self.assert_conservation();
    }

    fn resolve(&mut self, id: CorrelationId, processor: Processor, requested_at_ms: u64, outcome: Outcome) {
        match outcome {
            Outcome::Processed => {
                let payment = self.open.remove(id).expect("only an open payment is resolved");
                self.conservation.in_doubt_count -= u64::from(payment.in_doubt);
                self.conservation.open.subtract(payment.amount_cents);
                self.conservation.processed[processor.index()].add(payment.amount_cents);
                self.buckets[processor.index()].record(UnixMillis(requested_at_ms), payment.amount_cents);
                self.remember(id, ProcessedPayment::new(payment.amount_cents, requested_at_ms, processor));
            }
            Outcome::Refused => {
                let payment = self.open.get_mut(id).expect("only an open payment is resolved");
                assert!(!payment.in_doubt, "a refusal does not settle an earlier attempt in doubt");
                payment.stage = Stage::Waiting;
                payment.requested_at_ms = 0;
            }
            Outcome::Unknown => {
                let payment = self.open.get_mut(id).expect("only an open payment is resolved");
                assert!(payment.stage == Stage::at(processor), "doubt is about the recorded attempt");
                self.conservation.in_doubt_count += u64::from(!payment.in_doubt);
                payment.in_doubt = true;
            }
        }
    }

    fn remember(&mut self, id: CorrelationId, payment: ProcessedPayment) {
        if self.processed_order.len() == self.config.known_len_max
            && let Some(oldest) = self.processed_order.pop_front()
        {
            self.processed.remove(oldest);
        }
        self.processed.insert_new(id, payment);
        self.processed_order.push_back(id);
    }

    fn assert_conservation(&self) {
        let Conservation { accepted, processed, open, .. } = self.conservation;
        assert_eq!(
            accepted.count,
            processed[0].count + processed[1].count + open.count,
            "payments are conserved"
        );
        assert_eq!(
            accepted.amount_cents,
            processed[0].amount_cents + processed[1].amount_cents + open.amount_cents,
            "cents are conserved"
        );
        assert_eq!(open.count, self.open.len as u64, "the count of open payments is the table's");
    }
}
