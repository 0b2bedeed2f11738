//! What the decisions about one payment cost: `cargo xtask microbench hot_path`.
//!
//! A route; a payment's whole way through a gateway's dispatcher; grant and completion in the aggregator's coordinator, beside 1,000 to
//! 10,000,000 ids that it remembers (each look is a miss of cache and TLB then) and beside up to 1,000,000 open payments. Every table is as full as
//! it gets before the first sample, so that the last one finds what the first one found.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;

use criterion::BenchmarkId;
use galo_engine::coordinator::{Coordinator, CoordinatorConfig, SessionId};
use galo_engine::dispatcher::{Action, Dispatcher, DispatcherConfig, ProcessorPolicy};
use galo_engine::ledger::LedgerConfig;
use galo_engine::money::AmountCents;
use galo_engine::random::Random;
use galo_engine::router::{ProcessorSet, Reason, RouterConfig, Situation, View, route};
use galo_engine::time::{Now, UnixMillis};
use galo_engine::verdict::{End, Rules};
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, Stage};
use galo_microbench::Group;
use galo_wire::record::{Accept, Acknowledgement, Admission, Completion, Grant, Hello, Ready, Role};
use galo_wire::{Message, PROTOCOL_VERSION};

const ROUTER: RouterConfig = RouterConfig { patience_us: 2_000_000, ..RouterConfig::pair([500, 1500]) };

fn main() {
    galo_microbench::run("hot_path", |group| {
        route_one(group);
        dispatcher_payment(group);
        for known in [1_000, 100_000, 800_000, 10_000_000] {
            ledger_payment(group, BenchmarkId::new("ledger_payment_beside_known_ids", known), 0, known);
        }
        for open in [0, 1_000, 100_000, 400_000, 1_000_000] {
            ledger_payment(
                group,
                BenchmarkId::new("ledger_payment_beside_open_ones", open),
                open,
                KNOWN_LEN_MAX,
            );
        }
    });
}

/// Time that passes by 200 µs with each payment: 5,000 a second.
struct Clock(u64);

impl Clock {
    fn next(&mut self) -> Now {
        self.0 += 200;
        Now { monotonic_us: self.0, unix_ms: UnixMillis(1_752_580_800_000 + self.0 / 1_000) }
    }
}

fn id(random: &mut Random) -> CorrelationId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.next_u64().to_le_bytes());
    id[8..].copy_from_slice(&random.next_u64().to_le_bytes());
    CorrelationId(id)
}

fn route_one(group: &mut Group<'_>) {
    let works =
        View { closed: true, has_capacity: true, worked_us: 60_000_000, expected_us: 1_000, ..View::NONE };
    let mut views = [View::NONE; PROCESSORS_LEN_MAX];
    views[..2].copy_from_slice(&[View { has_capacity: false, ..works }, works]);
    let situation = Situation {
        views,
        allowed: ProcessorSet::PAIR,
        amount_cents: 1_990,
        waited_us: 0,
        quiet: false,
        probed: false,
        may_probe: true,
    };
    group.bench_function("route_one", |bencher| {
        bencher.iter(|| route(black_box(&ROUTER), black_box(&situation)));
    });
}

/// Accept, grant, attempt, completion, acknowledgement.
fn dispatcher_payment(group: &mut Group<'_>) {
    let mut clock = Clock(1_000_000);
    let mut random = Random::new(1);
    let mut dispatcher = Dispatcher::new(DispatcherConfig {
        router: ROUTER,
        queue_len_max: 225_000,
        processors: [ProcessorPolicy::contest(400); PROCESSORS_LEN_MAX],
        accept_wait_us_max: 1_000_000,
        seed: 1,
    });
    dispatcher.connected(clock.next());
    dispatcher.actions().clear();
    let amount = AmountCents::new(1_990).unwrap();
    let mut payment = move || {
        let correlation_id = id(&mut random);
        dispatcher.accept(1, correlation_id, amount, clock.next());
        let Some(Action::Send(Message::Accept(accept))) = dispatcher.actions().pop() else {
            panic!("no accept")
        };
        dispatcher.actions().clear();
        let grant = Grant { slot: accept.slot, correlation_id, admission: Admission::Granted };
        dispatcher.handle(grant.into(), clock.next());
        let attempted = dispatcher.actions().drain(..).any(|action| matches!(action, Action::Attempt { .. }));
        assert!(attempted, "no attempt");
        dispatcher.attempt_ended(accept.slot, End::of_status(&Rules::contest(), 200), 900, clock.next());
        let sequence = dispatcher.actions().drain(..).find_map(|action| match action {
            Action::Send(Message::Completion(completion)) => Some(completion.sequence),
            _ => None,
        });
        let sequence = sequence.expect("a completion");
        dispatcher.handle(Acknowledgement { sequence }.into(), clock.next());
        dispatcher.actions().clear();
    };
    (0..10_000).for_each(|_| payment());
    group.bench_function("dispatcher_payment", |bencher| bencher.iter(&mut payment));
}

/// `OPEN_LEN_MAX` and `KNOWN_LEN_MAX` as they are unless told otherwise.
const OPEN_LEN_MAX: usize = 450_000;
const KNOWN_LEN_MAX: usize = 800_000;

/// At 2.5 payments a millisecond the time buckets have all the milliseconds that they can keep after 3,000,000 payments, and roll up from there.
const BUCKETS_FULL_AFTER: usize = 3_200_000;

/// A coordinator with a gateway.
struct Aggregator {
    coordinator: Coordinator,
    session: SessionId,
    clock: Clock,
    random: Random,
    sequence: u64,
}

impl Aggregator {
    fn new(open_len_max: usize, known_len_max: usize) -> Self {
        let mut clock = Clock(1_000_000);
        let config = CoordinatorConfig {
            processors_fingerprint: 0,
            health_checked: ProcessorSet::PAIR,
            ledger: LedgerConfig {
                open_len_max,
                known_len_max,
                bucket_bytes_max: 32 << 20,
                members_bytes_max: 1 << 20,
                processors: ProcessorSet::PAIR,
                hash_seed: 7,
            },
            health_interval_us: [u64::MAX / 2; PROCESSORS_LEN_MAX],
            claim_grace_us: 0,
            incarnation: 1,
        };
        let mut coordinator = Coordinator::new(config, clock.next());
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            role: Role::Gateway,
            instance: 1,
            thread: 0,
            processors: 0,
            incarnation: 1,
        };
        let session = coordinator.connect(hello).unwrap();
        let mut aggregator = Self { coordinator, session, clock, random: Random::new(1), sequence: 0 };
        aggregator.tell(Ready { held_len_max: u64::MAX });
        aggregator
    }

    fn tell(&mut self, message: impl Into<Message>) {
        let now = self.clock.next();
        self.coordinator.handle(self.session, message.into(), now).unwrap();
        // What the shell does with them is measured there.
        let (entries, messages) = self.coordinator.decided();
        entries.clear();
        messages.clear();
    }

    fn accept(&mut self) -> (CorrelationId, u64) {
        let correlation_id = id(&mut self.random);
        let decided_at_ms = 1_752_580_800_000 + self.clock.0 / 1_000;
        let (amount_cents, expires_at_us) = (1_990, u64::MAX);
        let (slot, stage, reason) = (1, Stage::At0, Reason::Cheaper);
        self.tell(Accept { slot, correlation_id, amount_cents, decided_at_ms, expires_at_us, stage, reason });
        (correlation_id, decided_at_ms)
    }

    fn complete(&mut self, (correlation_id, requested_at_ms): (CorrelationId, u64)) {
        self.sequence += 1;
        let (sequence, processor, outcome) = (self.sequence, Processor::DEFAULT, Outcome::Processed);
        self.tell(Completion { sequence, correlation_id, requested_at_ms, processor, outcome, status: 0 });
    }
}

/// Grant and completion of one payment, beside `open` payments and `known` ids, of which each payment adds one and the oldest is forgotten.
fn ledger_payment(group: &mut Group<'_>, id: BenchmarkId, open: usize, known: usize) {
    // Made once, and only if this one is to run.
    let mut full = None;
    group.bench_function(id, |bencher| {
        let aggregator = full.get_or_insert_with(|| {
            let mut aggregator = Aggregator::new((open + 1).max(OPEN_LEN_MAX), known);
            for _ in 0..open {
                aggregator.accept();
            }
            for _ in 0..known.max(BUCKETS_FULL_AFTER) {
                let payment = aggregator.accept();
                aggregator.complete(payment);
            }
            aggregator
        });
        bencher.iter(|| {
            let payment = aggregator.accept();
            aggregator.complete(payment);
        });
    });
}
