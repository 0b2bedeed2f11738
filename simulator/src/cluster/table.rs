//! The admission table of the host: memory that no process's death takes with it.
//!
//! What is drawn for it is drawn from a chance of its own, so that lives without a table stay as they were. A gateway can die behind any step
//! of a claim; its aggregator dies between any two of what it does with a grant, since each of these is an event of its own or a write.

use std::cell::RefCell;
use std::rc::Rc;

use galo_admission::{
    Claimed, Claimer, Geometry, Grant, Heap, Identity, RINGS_LEN_MAX, Registrar, Ring, SharedMemory, Step,
    Table,
};
use galo_engine::ledger::Entry;
use galo_engine::{CorrelationId, Processor, Reason, Stage};
use galo_wire::record::Opened;

use super::bug::Bug;
use super::dice::Dice;
use super::invariant::Invariant;
use super::world::World;

/// Small, so that rings go round and buckets are full.
const GEOMETRY: Geometry = Geometry { known_buckets_log2: 6, claims_buckets_log2: 3, ring_log2: 3 };

/// Of a thread: its number, and which of its lives.
type Owner = (usize, u32);

/// See the module's documentation.
pub struct SharedTable {
    memory: SharedMemory,
    /// Who has locked a ring.
    locks: Rc<RefCell<[Option<Owner>; RINGS_LEN_MAX]>>,
    dice: Dice,
    made: bool,
}

impl SharedTable {
    /// Of a host in which none was made yet; in half of those that may have one there is one.
    pub fn draw(seed: u64, may_be: bool) -> Option<Self> {
        let mut dice = Dice::new(seed.rotate_left(32) ^ 0x7AB1_E000);
        let is = dice.one_in(2) && may_be;
        is.then(|| Self {
            memory: Heap::shared(GEOMETRY.words_len()),
            locks: Rc::default(),
            dice,
            made: false,
        })
    }

    fn make(&mut self) -> Table {
        self.made = true;
        self.memory = Heap::shared(GEOMETRY.words_len());
        let identity = Identity { region: self.dice.number(), key: [self.dice.number(), self.dice.number()] };
        Table::create(SharedMemory::clone(&self.memory), GEOMETRY, identity)
    }

    fn open(&self) -> Table {
        Table::open(SharedMemory::clone(&self.memory)).expect("it was made")
    }

    /// A planted bug: what a process has stored goes with it.
    fn lose_ring(&self, ring: usize) {
        let words = self.memory.words();
        let ring_size = GEOMETRY.ring_len() * 8;
        let start = words.len() - (RINGS_LEN_MAX - ring) * ring_size;
        words[start..start + ring_size]
            .iter()
            .for_each(|word| word.store(0, std::sync::atomic::Ordering::SeqCst));
    }
}

impl World {
    /// The aggregator has read its journal: it takes over the table.
    pub(super) fn open_table(&mut self) {
        let forgets = self.has(Bug::TableForgotten);
        let journal_sequence = self.journal_sequence();
        let Some(shared) = &mut self.table else { return };
        let table = if shared.made && !forgets { shared.open() } else { shared.make() };
        let locks = Rc::clone(&shared.locks);
        let is_abandoned = move |ring: usize| locks.borrow()[ring].is_none();
        let Some(coordinator) = &mut self.aggregator.coordinator else { return };
        let admitted = coordinator.admit_by(Registrar::new(table), journal_sequence, true, is_abandoned);
        self.oracle.check(Invariant::TableIsSound, admitted.is_ok(), || format!("{admitted:?}"));
    }

    /// The number of the record that is written next.
    fn journal_sequence(&self) -> u64 {
        self.aggregator.disk.entries().len() as u64 + 1
    }

    /// Something was written.
    pub(super) fn tell_written(&mut self) {
        let ahead = if self.has(Bug::TableAhead) { 1_000 } else { 0 };
        let journal_sequence = self.journal_sequence() + ahead;
        if let Some(coordinator) = &mut self.aggregator.coordinator {
            coordinator.written(journal_sequence);
            let corrupt = coordinator.corrupt();
            self.oracle.check(Invariant::TableIsSound, corrupt.is_none(), || format!("{corrupt:?}"));
        }
    }

    /// As the gateway's own shell does.
    pub(super) fn ring_opened(&mut self, number: usize, opened: Opened) {
        let Opened { region, ring, opening } = opened;
        let ring = Ring { number: usize::from(ring), opening };
        let life = self.gateways[number].life;
        let Some(shared) = &self.table else { return };
        let table = shared.open();
        let mut locks = shared.locks.borrow_mut();
        let is_free = locks[ring.number].is_none_or(|owner| owner == (number, life));
        let is_the_table = table.identity().region == region;
        let gateway = &mut self.gateways[number];
        gateway.is_unconfirmed = false;
        let Some(dispatcher) = &mut gateway.dispatcher else { return };
        let claimer = dispatcher.admit_by(None);
        let before =
            claimer.filter(|it| it.ring().number == ring.number && it.table().identity().region == region);
        if let Some(mut claimer) = before {
            claimer.reopened(ring);
            dispatcher.admit_by(Some(claimer));
            return;
        }
        for lock in locks.iter_mut().filter(|lock| **lock == Some((number, life))) {
            *lock = None;
        }
        if is_free && is_the_table {
            locks[ring.number] = Some((number, life));
            dispatcher.admit_by(Some(Claimer::new(table, ring)));
        }
    }

    /// Without a word of a ring before it, the aggregator has none for this gateway.
    pub(super) fn claims_heard(&mut self, number: usize) {
        if std::mem::take(&mut self.gateways[number].is_unconfirmed)
            && let Some(dispatcher) = &mut self.gateways[number].dispatcher
        {
            drop(dispatcher.admit_by(None));
        }
    }

    /// A gateway has answered 202 by itself: what it promises is in the table.
    pub(super) fn note_admitted(&mut self, number: usize, id: CorrelationId) {
        let gateway = &mut self.gateways[number];
        let admitted = gateway.dispatcher.as_ref().map_or(0, |it| it.counters().admitted);
        if admitted == gateway.admitted_count {
            return;
        }
        gateway.admitted_count = admitted;
        let grant = self.table.as_ref().and_then(|shared| shared.open().granted(id));
        self.oracle.check(Invariant::AcceptedIsDurable, grant.is_some(), || {
            format!("{id} is granted by a gateway, and the table does not say so")
        });
        if let Some(grant) = grant {
            self.admit(grant);
        }
    }

    fn admit(&mut self, grant: Grant) {
        self.coverage.admitted += 1;
        let Grant { correlation_id, amount_cents, decided_at_ms, stage, reason } = grant;
        let in_doubt = false;
        self.oracle.admitted(Entry::Accepted {
            correlation_id,
            amount_cents,
            stage,
            decided_at_ms,
            in_doubt,
            reason,
        });
    }

    /// A gateway dies, now and then behind some step of a claim.
    pub(super) fn die_claiming(&mut self, number: usize, claimer: Option<Claimer>) {
        let life = self.gateways[number].life;
        let Some(shared) = &mut self.table else { return };
        for lock in shared.locks.borrow_mut().iter_mut().filter(|lock| **lock == Some((number, life))) {
            *lock = None;
        }
        let Some(mut claimer) = claimer else { return };
        if self.bug == Some(Bug::TableDiesWithOwner) {
            shared.lose_ring(claimer.ring().number);
        }
        let last = shared.dice.pick(&Step::ALL);
        let is_at_it = shared.dice.one_in(2) && self.oracle.len() > 0 && self.plan.members == 0;
        if !is_at_it {
            return;
        }
        let payment = shared.dice.index(self.oracle.len());
        let Some(amount_cents) = self.oracle.amount_of(payment) else { return };
        self.oracle.posted(payment, amount_cents, 0);
        let grant = Grant {
            correlation_id: self.oracle.id(payment),
            amount_cents,
            decided_at_ms: self.gateways[number].clock.now(self.now_us).unix_ms.0,
            stage: if shared.dice.one_in(2) { Stage::Waiting } else { Stage::at(Processor::DEFAULT) },
            reason: Reason::Cheaper,
        };
        self.coverage.claims_cut += 1;
        let claimed = claimer.claim_until(&grant, last);
        self.trace(|| format!("gateway {number} dies, claiming {grant:?} as far as {last:?}: {claimed:?}"));
        if claimed == Claimed::Granted {
            self.admit(grant);
        }
    }
}
