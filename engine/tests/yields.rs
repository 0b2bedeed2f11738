//! Payments that are taken back from gateways, by what dispatchers do; and real dispatchers with a real coordinator, in any order of
//! events: what was cancelled or settled is never sent afterwards, and whatever was not is processed in the end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use std::collections::{HashMap, HashSet, VecDeque};

use galo_engine::coordinator::{Coordinator, SessionId, Settled, SettledAs, Settlement};
use galo_engine::dispatcher::{Action, Dispatcher, DispatcherConfig, ProcessorPolicy, Verification};
use galo_engine::ledger::Known;
use galo_engine::money::AmountCents;
use galo_engine::random::Random;
use galo_engine::router::{ProcessorSet, RouterConfig};
use galo_engine::time::{Now, UnixMillis};
use galo_engine::verdict::{End, Verdict};
use galo_engine::{
    CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, STATUS_CANCELLED, STATUS_TAKEN_BACK, Stage,
};
use galo_wire::record::{
    ANY_SLOT, Acknowledgement, Assignment, CancelQuery, Grant, Hello, Purged, Role, Withdrawal, Yield,
    Yielded,
};
use galo_wire::record::{Admission, HealthNews, HealthSource};
use galo_wire::{Message, PROTOCOL_VERSION};

const OK: End = End { verdict: Verdict::Processed, status: 200, retry_after_ms: 0 };
const FAILED: End = End { verdict: Verdict::Unavailable, status: 500, retry_after_ms: 0 };
const DUPLICATE: End = End { verdict: Verdict::Duplicate, status: 422, retry_after_ms: 0 };

fn id(number: u8) -> CorrelationId {
    CorrelationId([number; 16])
}

fn amount() -> AmountCents {
    AmountCents::new(1990).unwrap()
}

fn now_at(now_us: u64) -> Now {
    Now { monotonic_us: now_us, unix_ms: UnixMillis(1_700_000_000_000 + now_us / 1_000) }
}

fn dispatcher(seed: u64) -> Dispatcher {
    Dispatcher::new(DispatcherConfig {
        router: RouterConfig { patience_us: 0, ..RouterConfig::pair([500, 1500]) },
        queue_len_max: 100,
        processors: [ProcessorPolicy::contest(8); PROCESSORS_LEN_MAX],
        accept_wait_us_max: 1_000_000,
        seed,
    })
}

/// A connected dispatcher and its time.
struct Bench {
    dispatcher: Dispatcher,
    now_us: u64,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { dispatcher: dispatcher(1), now_us: 1_000_000 };
        bench.event(Dispatcher::connected);
        // The ledger has heard all that it holds.
        bench.hear(Acknowledgement { sequence: 0 });
        bench
    }

    fn event(&mut self, event: impl FnOnce(&mut Dispatcher, Now)) -> Vec<Action> {
        event(&mut self.dispatcher, now_at(self.now_us));
        self.dispatcher.actions().drain(..).collect()
    }

    fn hear(&mut self, message: impl Into<Message>) -> Vec<Action> {
        let message = message.into();
        self.event(|dispatcher, now| dispatcher.handle(message, now))
    }

    fn held(&mut self) -> usize {
        let now = now_at(self.now_us);
        self.dispatcher.gauges(now).held
    }

    fn tick_after(&mut self, us: u64) -> Vec<Action> {
        self.now_us += us;
        self.event(Dispatcher::tick)
    }

    fn end(&mut self, slot: u32, end: End) -> Vec<Action> {
        self.event(|dispatcher, now| dispatcher.attempt_ended(slot, end, 1_000, now))
    }

    /// Whether it says that it is idle.
    fn yields(&mut self, number: u8) -> bool {
        let actions = self.hear(Yield { number: 3, correlation_id: id(number) });
        match actions[..] {
            [Action::Send(Message::Yielded(Yielded { number: 3, correlation_id, idle }))] => {
                assert_eq!(correlation_id, id(number));
                idle
            }
            ref other => panic!("expected an answer, got {other:?}"),
        }
    }

    /// A payment in doubt that is given to it: the slot of its first attempt.
    fn doubtful(&mut self, number: u8) -> u32 {
        self.assign(number, Stage::At0);
        self.next_attempt()
    }

    fn assign(&mut self, number: u8, stage: Stage) -> Vec<Action> {
        let requested_at_ms = now_at(self.now_us).unix_ms.0;
        let (correlation_id, amount_cents) = (id(number), amount().get());
        let in_doubt = stage != Stage::Waiting;
        self.hear(Assignment { correlation_id, amount_cents, requested_at_ms, stage, in_doubt })
    }

    fn next_attempt(&mut self) -> u32 {
        for _ in 0..2_000 {
            for action in self.tick_after(5_000) {
                if let Action::Attempt { slot, .. } = action {
                    return slot;
                }
            }
        }
        panic!("no attempt within 10 s");
    }

    fn fails(&mut self, processor: Processor) {
        let (source, failing) = (HealthSource::Traffic, true);
        self.hear(HealthNews { processor, source, failing, response_ms: 0, retry_after_ms: 0 });
    }

    /// Payments that wait, while no processor works.
    fn waiting(&mut self, numbers: std::ops::Range<u8>) {
        self.fails(Processor::DEFAULT);
        self.fails(Processor::FALLBACK);
        for number in numbers {
            let actions =
                self.event(|dispatcher, now| dispatcher.accept(u32::from(number), id(number), amount(), now));
            let [Action::Send(Message::Accept(accept)), ..] = actions[..] else { panic!("{actions:?}") };
            let (slot, correlation_id) = (accept.slot, id(number));
            self.hear(Grant { slot, correlation_id, admission: Admission::Granted });
        }
    }
}

#[test]
fn what_was_cancelled_while_it_waited_is_dropped_within_a_second() {
    let mut bench = Bench::new();
    bench.waiting(1..6);
    let held = bench.held();
    for number in [2, 4] {
        assert_eq!(bench.hear(Withdrawal { slot: ANY_SLOT, correlation_id: id(number) }), []);
    }
    assert!(bench.dispatcher.tick_wait_us().is_some_and(|wait_us| wait_us <= 25_000));
    bench.tick_after(300_000);
    assert_eq!(bench.held(), held - 2);
    // Those that come together are found together, but not more often than so.
    bench.hear(Withdrawal { slot: ANY_SLOT, correlation_id: id(5) });
    bench.tick_after(1_000);
    assert_eq!(bench.held(), held - 2);
    bench.tick_after(1_000_000);
    assert_eq!(bench.held(), held - 3);
    assert!(bench.yields(5) && !bench.yields(1), "what is left waits");
}

/// Another gateway has ended it: nobody asks its processor any more, which might say for ever that it has another amount.
#[test]
fn what_another_has_ended_is_dropped_once_nothing_of_it_is_on_its_way() {
    let mut bench = Bench::new();
    let slot = bench.doubtful(1);
    bench.hear(Withdrawal { slot: ANY_SLOT, correlation_id: id(1) });
    bench.tick_after(300_000);
    assert_eq!(bench.held(), 1, "its attempt ends by itself");
    bench.end(slot, End::UNANSWERED);
    assert_eq!(bench.tick_after(1_000_000), []);
    assert_eq!(bench.held(), 0);
}

/// Its id may be another payment's by the time at which its attempt ends, and the same gateway may have that.
#[test]
fn what_is_processed_after_it_was_taken_back_is_told_as_such() {
    for (is_taken_back, status) in [(false, 0), (true, STATUS_TAKEN_BACK)] {
        let mut bench = Bench::new();
        let slot = bench.doubtful(1);
        if is_taken_back {
            bench.hear(Withdrawal { slot: ANY_SLOT, correlation_id: id(1) });
            bench.tick_after(300_000);
        }
        let actions = bench.end(slot, End { verdict: Verdict::Processed, status: 200, retry_after_ms: 0 });
        let told = actions.iter().find_map(|action| match action {
            Action::Send(Message::Completion(completion)) => Some((completion.outcome, completion.status)),
            _ => None,
        });
        assert_eq!(told, Some((Outcome::Processed, status)));
    }
}

/// The ledger has forgotten it, and its client sends it again.
#[test]
fn what_was_taken_back_is_not_what_is_accepted_afterwards() {
    let mut bench = Bench::new();
    bench.waiting(1..2);
    let held = bench.held();
    bench.hear(Withdrawal { slot: ANY_SLOT, correlation_id: id(2) });
    bench.waiting(2..3);
    bench.tick_after(1_000_000);
    assert_eq!(bench.held(), held + 1);
}

/// Nor does what was taken back go on beside it: its end would be taken for the new one's.
#[test]
fn what_was_taken_back_goes_when_its_id_is_given_out_anew() {
    let give_outs: [fn(&mut Bench); 2] =
        [|bench| bench.waiting(1..2), |bench| drop(bench.assign(1, Stage::Waiting))];
    for give_out in give_outs {
        for stage in [Stage::Waiting, Stage::At0] {
            let mut bench = Bench::new();
            bench.fails(Processor::DEFAULT);
            bench.fails(Processor::FALLBACK);
            bench.assign(1, stage);
            bench.hear(Withdrawal { slot: ANY_SLOT, correlation_id: id(1) });
            give_out(&mut bench);
            assert_eq!(bench.held(), 1, "{stage:?}");
            bench.tick_after(1_000_000);
            assert_eq!(bench.held(), 1, "{stage:?}: the new one stays");
        }
    }
}

#[test]
fn what_was_taken_back_is_not_what_is_given_out_afterwards() {
    let mut bench = Bench::new();
    bench.waiting(1..2);
    // Everything is forgotten; the same id comes anew.
    bench.hear(Withdrawal { slot: ANY_SLOT, correlation_id: id(1) });
    bench.hear(Purged { generation: 1 });
    bench.waiting(1..2);
    bench.hear(Withdrawal { slot: ANY_SLOT, correlation_id: id(2) });
    bench.assign(2, Stage::Waiting);
    bench.hear(Withdrawal { slot: ANY_SLOT, correlation_id: id(1) });
    bench.event(|dispatcher, _| dispatcher.disconnected());
    bench.tick_after(1_000_000);
    assert_eq!(bench.held(), 2);
}

#[test]
fn a_payment_in_doubt_is_yielded_between_its_attempts_alone() {
    let mut bench = Bench::new();
    let slot = bench.doubtful(1);
    assert!(!bench.yields(1), "it is on its way");
    assert!(bench.yields(9), "this one is not here");
    bench.end(slot, End::UNANSWERED);
    // It was asked for, so it rests.
    for _ in 0..1_900 {
        assert_eq!(bench.tick_after(5_000), []);
    }
    assert!(bench.yields(1));
    assert_eq!(bench.held(), 0);
    // One that nobody asked for again goes on.
    let slot = bench.doubtful(2);
    assert!(!bench.yields(2));
    bench.end(slot, End::UNANSWERED);
    for _ in 0..1_980 {
        bench.tick_after(5_000);
    }
    bench.next_attempt();
}

#[test]
fn an_attempt_of_a_payment_that_was_withdrawn_keeps_it_from_being_settled() {
    let mut bench = Bench::new();
    let slot = bench.doubtful(1);
    bench.hear(Withdrawal { slot, correlation_id: id(1) });
    // It comes back, and rests between two attempts, while the former one is still on its way.
    bench.assign(1, Stage::At0);
    assert!(!bench.yields(1));
    assert_eq!(bench.held(), 2, "nothing is dropped by that");
    bench.end(slot, End::UNANSWERED);
    assert!(bench.yields(1));
    assert_eq!(bench.held(), 0);
}

#[test]
fn what_a_look_up_finds_after_its_payment_was_yielded_is_told() {
    let mut bench = Bench::new();
    let slot = bench.doubtful(1);
    bench.end(slot, DUPLICATE);
    assert!(bench.yields(1), "a look-up charges nobody");
    let found = Verification::Found {
        stored: galo_engine::dispatcher::Stored::Processed,
        amount: None,
        requested_at: None,
    };
    let actions = bench.event(|dispatcher, now| dispatcher.verified(slot, found, now));
    assert!(matches!(actions[..], [Action::Send(Message::Completion(_))]), "{actions:?}");
    assert_eq!(bench.held(), 0);
}

/// One gateway of the world below.
struct Gateway {
    dispatcher: Dispatcher,
    session: Option<SessionId>,
    to_it: VecDeque<Message>,
    from_it: VecDeque<Message>,
    attempts: Vec<(u32, CorrelationId)>,
    lookups: Vec<u32>,
}

/// Two gateways, an aggregator and people, each of whose steps may come at any time.
struct World {
    now_us: u64,
    random: Random,
    coordinator: Coordinator,
    gateways: Vec<Gateway>,
    /// What people have ended, and which gateways may not send it any more: those that were asked.
    ended: HashMap<CorrelationId, HashSet<usize>>,
    settling: HashMap<u32, CorrelationId>,
    cancelled_count: u32,
    settled_count: u32,
    refused_count: u32,
    is_calm: bool,
}

const PAYMENTS: u8 = 12;

impl World {
    fn new(seed: u64) -> Self {
        let mut config = gateways::coordinator_config();
        config.health_checked = ProcessorSet::EMPTY;
        config.ledger.known_len_max = 100;
        config.claim_grace_us = 0;
        let gateway = |seed| Gateway {
            dispatcher: dispatcher(seed),
            session: None,
            to_it: VecDeque::new(),
            from_it: VecDeque::new(),
            attempts: Vec::new(),
            lookups: Vec::new(),
        };
        let mut world = Self {
            now_us: 1_000_000,
            random: Random::new(seed),
            coordinator: Coordinator::new(config, now_at(1_000_000)),
            gateways: vec![gateway(seed), gateway(seed + 1)],
            ended: HashMap::new(),
            settling: HashMap::new(),
            cancelled_count: 0,
            settled_count: 0,
            refused_count: 0,
            is_calm: false,
        };
        (0..2).for_each(|index| world.connect(index));
        world
    }

    fn connect(&mut self, index: usize) {
        let instance = u8::try_from(index + 1).unwrap();
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            role: Role::Gateway,
            instance,
            thread: 0,
            processors: 0,
            incarnation: 1,
        };
        let session = self.coordinator.connect(hello).unwrap();
        self.coordinator.messages().retain(|(_, message)| !matches!(message, Message::Hello(_)));
        self.gateways[index].session = Some(session);
        let now = now_at(self.now_us);
        self.gateways[index].dispatcher.connected(now);
        self.settle_down();
    }

    fn disconnect(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        let Some(session) = gateway.session.take() else { return };
        gateway.dispatcher.disconnected();
        (gateway.to_it, gateway.from_it) = (VecDeque::new(), VecDeque::new());
        self.coordinator.disconnect(session, now_at(self.now_us));
        self.settle_down();
    }

    /// Carries out what was decided, and checks it.
    fn settle_down(&mut self) {
        self.coordinator.entries().clear();
        let settled: Vec<_> = self.coordinator.settlements().drain(..).collect();
        for (number, settled) in settled {
            let id = self.settling.remove(&number).expect("one answer each");
            if settled == Settled::Done {
                self.settled_count += 1;
                self.end(id);
            } else {
                self.refused_count += 1;
            }
        }
        let messages: Vec<_> = self.coordinator.messages().drain(..).collect();
        for (to, message) in messages {
            let gateway = self.gateways.iter_mut().find(|gateway| gateway.session == Some(to));
            gateway.expect("connected").to_it.push_back(message);
        }
        for (index, gateway) in self.gateways.iter_mut().enumerate() {
            for action in gateway.dispatcher.actions().drain(..) {
                match action {
                    Action::Send(message) if gateway.session.is_some() => gateway.from_it.push_back(message),
                    Action::Attempt { slot, correlation_id, .. } => {
                        let barred = self.ended.get(&correlation_id).is_some_and(|by| by.contains(&index));
                        assert!(!barred, "{correlation_id} was ended, and gateway {index} sends it");
                        gateway.attempts.push((slot, correlation_id));
                    }
                    Action::Verify { slot, .. } => gateway.lookups.push(slot),
                    Action::Send(_)
                    | Action::Answer { .. }
                    | Action::Renew { .. }
                    | Action::GiveUp { .. }
                    | Action::CheckHealth { .. } => {}
                }
            }
        }
    }

    /// A person has ended a payment: of those who were connected nobody has it on its way.
    fn end(&mut self, id: CorrelationId) {
        // A settlement that was made already is said to be done again.
        if self.ended.contains_key(&id) {
            return;
        }
        let connected = (0..2).filter(|index| self.gateways[*index].session.is_some());
        let connected: HashSet<usize> = connected.collect();
        for index in &connected {
            let attempts = &self.gateways[*index].attempts;
            assert!(attempts.iter().all(|(_, other)| *other != id), "{id} is on its way from {index}");
        }
        self.ended.insert(id, connected);
    }

    fn deliver(&mut self, index: usize, is_inbound: bool) {
        let now = now_at(self.now_us);
        let gateway = &mut self.gateways[index];
        if is_inbound {
            if let Some(message) = gateway.to_it.pop_front() {
                gateway.dispatcher.handle(message, now);
            }
        } else if let (Some(session), Some(message)) = (gateway.session, gateway.from_it.pop_front()) {
            self.coordinator.handle(session, message, now).unwrap();
        }
        self.settle_down();
    }

    fn end_attempt(&mut self, index: usize) {
        let now = now_at(self.now_us);
        let choice = if self.is_calm { 0 } else { self.random.below(4) };
        let end = match choice {
            0 => OK,
            1 => FAILED,
            2 => End::UNANSWERED,
            _ => DUPLICATE,
        };
        let gateway = &mut self.gateways[index];
        if let Some(slot) = gateway.lookups.pop() {
            let verification = if self.is_calm { Verification::NotFound } else { Verification::Unanswered };
            gateway.dispatcher.verified(slot, verification, now);
        } else if !gateway.attempts.is_empty() {
            let at = usize::try_from(self.random.below(gateway.attempts.len() as u64)).unwrap();
            let (slot, _) = gateway.attempts.swap_remove(at);
            gateway.dispatcher.attempt_ended(slot, end, 1_000, now);
        }
        self.settle_down();
    }

    fn cancel(&mut self, index: usize, id: CorrelationId) {
        let Some(session) = self.gateways[index].session else { return };
        let before = self.coordinator.counters().cancelled;
        let query = CancelQuery { slot: 1, correlation_id: id };
        self.coordinator.handle(session, query.into(), now_at(self.now_us)).unwrap();
        if self.coordinator.counters().cancelled > before {
            let known = self.coordinator.ledger().lookup(id);
            assert!(matches!(known, Known::Declined { status: STATUS_CANCELLED, .. }));
            self.cancelled_count += 1;
            self.end(id);
        }
        self.settle_down();
    }

    fn settle(&mut self, id: CorrelationId) {
        let said = match self.random.below(2) {
            0 => SettledAs::Declined,
            _ => SettledAs::Processed { processor: Processor::FALLBACK, requested_at_ms: 1 },
        };
        let settlement = Settlement::new(id, said, "by hand".to_owned()).unwrap();
        let number = self.coordinator.settle(settlement, now_at(self.now_us));
        self.settling.insert(number, id);
        self.settle_down();
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
        let now = now_at(self.now_us);
        self.gateways.iter_mut().for_each(|gateway| gateway.dispatcher.tick(now));
        self.coordinator.tick(now);
        self.settle_down();
    }

    fn step(&mut self) {
        let index = usize::try_from(self.random.below(2)).unwrap();
        let number = u8::try_from(self.random.below(u64::from(PAYMENTS))).unwrap();
        match self.random.below(40) {
            0..18 => self.deliver(index, self.now_us.is_multiple_of(2)),
            18..24 => self.deliver(index, true),
            24..28 => self.end_attempt(index),
            28..32 => self.pass(1 + 5_000 * u64::from(number)),
            32 | 33 => self.cancel(index, id(number)),
            34..37 => self.settle(id(number)),
            37 | 38 => {
                let now = now_at(self.now_us);
                self.gateways[index].dispatcher.accept(u32::from(number), id(number), amount(), now);
                self.settle_down();
            }
            _ if self.random.below(6) == 0 => match self.gateways[index].session {
                Some(_) => self.disconnect(index),
                None => self.connect(index),
            },
            _ => self.now_us += 1,
        }
    }

    /// From now on all goes well; what is open then?
    fn calm_down(&mut self) -> u64 {
        self.is_calm = true;
        for index in 0..2 {
            if self.gateways[index].session.is_none() {
                self.connect(index);
            }
        }
        for _ in 0..4_000 {
            if self.coordinator.ledger().conservation().open.count == 0 {
                break;
            }
            for index in 0..2 {
                while !self.gateways[index].to_it.is_empty() || !self.gateways[index].from_it.is_empty() {
                    self.deliver(index, true);
                    self.deliver(index, false);
                }
                while !self.gateways[index].attempts.is_empty() || !self.gateways[index].lookups.is_empty() {
                    self.end_attempt(index);
                }
            }
            self.pass(50_000);
        }
        self.coordinator.ledger().conservation().open.count
    }
}

#[test]
fn what_people_end_is_never_sent_afterwards_and_the_rest_is_processed_whatever_the_order() {
    let (mut cancelled, mut settled, mut refused) = (0, 0, 0);
    for seed in 0..2_000 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        assert_eq!(world.calm_down(), 0, "seed {seed}: nobody works on what is open");
        cancelled += world.cancelled_count;
        settled += world.settled_count;
        refused += world.refused_count;
    }
    assert!(cancelled > 200 && settled > 300 && refused > 300, "{cancelled} {settled} {refused}");
}
