//! The texts that belong to payments, by real dispatchers and a real coordinator: members go with every attempt, whoever makes it and whatever died
//! before; the same id with others is a conflict for as long as it is known; what a processor calls a payment is kept.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use std::sync::Arc;

use galo_engine::coordinator::{Coordinator, CoordinatorConfig, SessionId};
use galo_engine::dispatcher::{
    Action, Answer, Dispatcher, DispatcherConfig, DoubtPolicy, ProcessorPolicy, Stored, Verification,
};
use galo_engine::ledger::{Entry, Known};
use galo_engine::money::AmountCents;
use galo_engine::router::RouterConfig;
use galo_engine::time::{Now, UnixMillis};
use galo_engine::verdict::{End, Verdict};
use galo_engine::{Attached, CorrelationId, PROCESSORS_LEN_MAX};
use galo_wire::record::{Hello, LookupQuery, Role};
use galo_wire::{Message, PROTOCOL_VERSION};

const PAYER: &str = r#"{"payer":{"id":1}}"#;
const OTHER: &str = r#"{"payer":{"id":2}}"#;
const OK: End = End { verdict: Verdict::Processed, status: 200, retry_after_ms: 0 };
const PENDING: End = End { verdict: Verdict::Pending, status: 202, retry_after_ms: 0 };

fn id(number: u8) -> CorrelationId {
    CorrelationId([number; 16])
}

fn config(members_bytes_max: usize, known_len_max: usize) -> CoordinatorConfig {
    let mut config = gateways::coordinator_config();
    (config.ledger.members_bytes_max, config.ledger.known_len_max) = (members_bytes_max, known_len_max);
    config.claim_grace_us = 0;
    config
}

struct Gateway {
    dispatcher: Dispatcher,
    session: Option<SessionId>,
    attached: Attached,
    /// Slots of attempts that have not ended, with what they carry.
    attempts: Vec<(u32, CorrelationId, Option<String>)>,
    /// Slots of look-ups, with the reference by which the processor is asked.
    lookups: Vec<(u32, Option<String>)>,
    answers: Vec<Answer>,
    /// Of look-ups' replies.
    references: Vec<Option<String>>,
}

struct World {
    now_us: u64,
    gateways: Vec<Gateway>,
    coordinator: Coordinator,
    journal: Vec<Entry>,
    attached: Vec<Attached>,
}

impl World {
    fn new(config: CoordinatorConfig) -> Self {
        let policy = ProcessorPolicy {
            doubt: DoubtPolicy { lookup_every_us: 1_000, ..DoubtPolicy::CONTEST },
            ..ProcessorPolicy::contest(8)
        };
        let dispatcher = DispatcherConfig {
            router: RouterConfig::pair([500, 1500]),
            queue_len_max: 100,
            processors: [policy; PROCESSORS_LEN_MAX],
            accept_wait_us_max: 1_000_000,
            seed: 1,
        };
        let gateway = |_| Gateway {
            dispatcher: Dispatcher::new(dispatcher),
            session: None,
            attached: Attached::default(),
            attempts: Vec::new(),
            lookups: Vec::new(),
            answers: Vec::new(),
            references: Vec::new(),
        };
        let now = Now { monotonic_us: 1_000_000, unix_ms: UnixMillis(1_700_000_001_000) };
        let mut world = Self {
            now_us: 1_000_000,
            gateways: (0..2).map(gateway).collect(),
            coordinator: Coordinator::new(config, now),
            journal: Vec::new(),
            attached: vec![Attached::default(); 2],
        };
        (0..2).for_each(|number| world.connect(number));
        world
    }

    fn now(&self) -> Now {
        Now { monotonic_us: self.now_us, unix_ms: UnixMillis(1_700_000_000_000 + self.now_us / 1_000) }
    }

    fn connect(&mut self, number: usize) {
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            role: Role::Gateway,
            instance: u8::try_from(number + 1).unwrap(),
            thread: 0,
            processors: 0,
            incarnation: 1,
        };
        let now = self.now();
        self.gateways[number].session = Some(self.coordinator.connect(hello).unwrap());
        self.coordinator.messages().pop();
        self.gateways[number].dispatcher.connected(now);
        self.exchange();
    }

    /// The gateway is gone, and what it holds with it.
    fn kill(&mut self, number: usize) {
        let now = self.now();
        let session = self.gateways[number].session.take().unwrap();
        self.coordinator.disconnect(session, now);
        self.exchange();
    }

    /// Another aggregator, with this ledger, and every gateway comes back.
    fn restart(&mut self, coordinator: Coordinator) {
        let numbers: Vec<_> = (0..2).filter(|number| self.gateways[*number].session.is_some()).collect();
        self.coordinator = coordinator;
        self.attached = vec![Attached::default(); 2];
        for number in numbers {
            self.gateways[number].session = None;
            self.gateways[number].dispatcher.disconnected();
            self.connect(number);
        }
    }

    /// From what was written down.
    fn restored(&self, config: CoordinatorConfig) -> Coordinator {
        let mut coordinator = Coordinator::new(config, self.now());
        self.journal.iter().for_each(|entry| coordinator.restore(*entry));
        coordinator
    }

    fn exchange(&mut self) {
        let now = self.now();
        loop {
            let mut is_quiet = true;
            for number in 0..2 {
                let gateway = &mut self.gateways[number];
                for action in std::mem::take(gateway.dispatcher.actions()) {
                    is_quiet = false;
                    match action {
                        Action::Send(message) => {
                            let Some(session) = gateway.session else { continue };
                            let attached = &mut self.attached[number];
                            if attached.take_in(&message).unwrap() {
                                self.coordinator.handle_with(session, message, attached, now).unwrap();
                                attached.clear();
                            }
                        }
                        Action::Answer { answer, .. } => gateway.answers.push(answer),
                        Action::Attempt { slot, correlation_id, .. } => {
                            let members = gateway.dispatcher.members(slot).map(|it| it.as_ref().to_owned());
                            gateway.attempts.push((slot, correlation_id, members));
                        }
                        Action::Verify { slot, .. } => {
                            let reference = gateway.dispatcher.reference(slot);
                            gateway.lookups.push((slot, reference.map(|it| it.as_ref().to_owned())));
                        }
                        Action::CheckHealth { .. } | Action::Renew { .. } | Action::GiveUp { .. } => {}
                    }
                }
            }
            self.journal.append(self.coordinator.entries());
            for (to, message) in std::mem::take(self.coordinator.messages()) {
                is_quiet = false;
                let gateway = self.gateways.iter_mut().find(|it| it.session == Some(to)).unwrap();
                if !gateway.attached.take_in(&message).unwrap() {
                    continue;
                }
                let attached = std::mem::take(&mut gateway.attached);
                match message {
                    Message::LookupReply(_) => {
                        gateway.references.push(attached.reference().map(str::to_owned));
                    }
                    message => gateway.dispatcher.handle_with(message, &attached, now),
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn post(&mut self, number: usize, payment: u8, members: Option<&str>) -> Answer {
        let now = self.now();
        let gateway = &mut self.gateways[number];
        let amount = AmountCents::new(1_990).unwrap();
        gateway.dispatcher.accept_with(1, id(payment), amount, members.map(Arc::from), now);
        self.exchange();
        self.gateways[number].answers.pop().unwrap()
    }

    fn end(&mut self, number: usize, reference: Option<&str>, end: End) {
        let now = self.now();
        let gateway = &mut self.gateways[number];
        let (slot, ..) = gateway.attempts.pop().unwrap();
        if let Some(reference) = reference {
            gateway.dispatcher.named(slot, reference);
        }
        gateway.dispatcher.attempt_ended(slot, end, 1_000, now);
        self.exchange();
    }

    /// Lets time pass until a gateway attempts or looks up.
    fn wait(&mut self) {
        for _ in 0..2_000 {
            self.now_us += 5_000;
            let now = self.now();
            self.coordinator.tick(now);
            self.gateways.iter_mut().for_each(|gateway| gateway.dispatcher.tick(now));
            self.exchange();
            if self.gateways.iter().any(|it| !it.attempts.is_empty() || !it.lookups.is_empty()) {
                return;
            }
        }
        panic!("nobody does anything");
    }

    fn look_up(&mut self, payment: u8) -> Option<String> {
        let session = self.gateways[1].session.unwrap();
        let query = LookupQuery { slot: 1, correlation_id: id(payment) };
        self.coordinator.handle(session, query.into(), self.now()).unwrap();
        self.exchange();
        self.gateways[1].references.pop().unwrap()
    }
}

fn texts(members: &str) -> Option<String> {
    Some(members.to_owned())
}

#[test]
fn members_go_with_every_attempt_whoever_makes_it() {
    let config = config(1 << 20, 100);
    let mut world = World::new(config);
    let long = format!(r#"{{"payer":"{}"}}"#, "é".repeat(1_000));
    for (number, members) in [(1, Some(PAYER)), (2, None), (3, Some(&*long))] {
        assert_eq!(world.post(0, number, members), Answer::Granted);
        let attempt = world.gateways[0].attempts.last().cloned().unwrap();
        assert_eq!((attempt.1, attempt.2.as_deref()), (id(number), members));
    }
    // It dies with all three on their way; the other one has them in doubt, and sends them again.
    world.kill(0);
    while world.gateways[1].attempts.len() < 3 {
        world.wait();
    }
    let sent = |world: &World| {
        let mut sent: Vec<_> =
            world.gateways[1].attempts.iter().map(|(_, id, members)| (*id, members.clone())).collect();
        sent.sort();
        sent
    };
    let expected = vec![(id(1), texts(PAYER)), (id(2), None), (id(3), texts(&long))];
    assert_eq!(sent(&world), expected);

    // So does one that takes over from it, whether the aggregator has read its journal or has lost its memory and learnt by claims.
    for memory_is_lost in [false, true] {
        let coordinator =
            if memory_is_lost { Coordinator::new(config, world.now()) } else { world.restored(config) };
        world.restart(coordinator);
        let ledger = world.coordinator.ledger();
        assert_eq!(ledger.texts(id(3)).and_then(|it| it.members.as_deref()), Some(&*long));
        assert_eq!(ledger.members_bytes(), PAYER.len() + long.len() + 2 * 128);
        if memory_is_lost {
            world.journal.clear();
        }
    }
    let (gone, back) = world.gateways.split_at_mut(1);
    std::mem::swap(&mut gone[0], &mut back[0]);
    world.attached.swap(0, 1);
    world.gateways[1].attempts.clear();
    world.gateways[1].dispatcher = World::new(config).gateways.remove(0).dispatcher;
    world.gateways[1].dispatcher.disconnected();
    world.connect(1);
    world.kill(0);
    while world.gateways[1].attempts.len() < 3 {
        world.wait();
    }
    assert_eq!(sent(&world), expected);
}

#[test]
fn the_same_id_with_other_members_is_a_conflict_for_as_long_as_it_is_known() {
    let config = config(1 << 20, 2);
    let mut world = World::new(config);
    let check = |world: &mut World, what: &str| {
        for (members, expected) in
            [(Some(PAYER), Answer::Replayed), (Some(OTHER), Answer::Conflict), (None, Answer::Conflict)]
        {
            assert_eq!(world.post(1, 1, members), expected, "{what}: {members:?}");
        }
        assert_eq!(world.post(1, 2, Some(PAYER)), Answer::Conflict, "{what}");
        assert_eq!(world.post(1, 2, None), Answer::Replayed, "{what}");
    };
    assert_eq!(world.post(0, 1, Some(PAYER)), Answer::Granted);
    assert_eq!(world.post(0, 2, None), Answer::Granted);
    check(&mut world, "open");
    let restored = world.restored(config);
    world.restart(restored);
    check(&mut world, "open, from the journal");
    world.end(0, None, OK);
    world.end(0, None, OK);
    assert_eq!(world.coordinator.ledger().members_bytes(), 0);
    check(&mut world, "processed");
    let restored = world.restored(config);
    world.restart(restored);
    check(&mut world, "processed, from the journal");
    // Two others, and both are forgotten.
    for number in [3, 4] {
        assert_eq!(world.post(0, number, Some(OTHER)), Answer::Granted);
        world.end(0, None, OK);
    }
    assert_eq!(world.post(1, 1, Some(OTHER)), Answer::Granted, "as new as any");
    assert_eq!(world.post(1, 4, Some(OTHER)), Answer::Replayed);
}

#[test]
fn beyond_their_bound_payments_with_members_are_refused_and_others_are_not() {
    let mut world = World::new(config(2 * (PAYER.len() + 128), 100));
    assert_eq!(world.post(0, 1, Some(PAYER)), Answer::Granted);
    assert_eq!(world.post(0, 2, Some(PAYER)), Answer::Granted);
    assert_eq!(world.post(0, 3, Some(PAYER)), Answer::Full);
    assert_eq!(world.post(0, 3, Some("{}")), Answer::Full);
    assert_eq!(world.post(0, 4, None), Answer::Granted);
    assert_eq!(world.post(1, 2, Some(PAYER)), Answer::Replayed);
    world.end(0, None, OK);
    world.end(0, None, OK);
    // One of those with members has ended.
    assert_eq!(world.post(0, 3, Some(PAYER)), Answer::Granted);
    assert_eq!(world.post(0, 5, Some(PAYER)), Answer::Full);
}

#[test]
fn what_the_processor_calls_a_payment_is_kept_shown_and_used() {
    let config = config(1 << 20, 100);
    let mut world = World::new(config);
    assert_eq!(world.post(0, 1, Some(PAYER)), Answer::Granted);
    assert_eq!(world.look_up(1), None);
    world.end(0, Some("pi_1"), PENDING);
    assert_eq!(world.look_up(1).as_deref(), Some("pi_1"));
    // Its gateway asks by it, and so does the one that takes over, even from an aggregator that has read its journal.
    world.wait();
    assert_eq!(world.gateways[0].lookups.pop().unwrap().1.as_deref(), Some("pi_1"));
    let restored = world.restored(config);
    world.restart(restored);
    world.kill(0);
    world.wait();
    // In doubt it is sent again; the processor has it, and calls it otherwise by now.
    let now = world.now();
    let gateway = &mut world.gateways[1];
    if let Some((slot, _, members)) = gateway.attempts.pop() {
        assert_eq!(members.as_deref(), Some(PAYER));
        assert_eq!(gateway.dispatcher.reference(slot).as_deref(), Some("pi_1"));
        let duplicate = End { verdict: Verdict::Duplicate, status: 409, retry_after_ms: 0 };
        gateway.dispatcher.attempt_ended(slot, duplicate, 1_000, now);
        world.exchange();
    }
    let (slot, asked_by) = world.gateways[1].lookups.pop().unwrap();
    assert_eq!(asked_by.as_deref(), Some("pi_1"));
    let dispatcher = &mut world.gateways[1].dispatcher;
    dispatcher.named(slot, "ch_1");
    let pending = Verification::Found { stored: Stored::Pending, requested_at: None, amount: None };
    dispatcher.verified(slot, pending, now);
    world.exchange();
    assert_eq!(world.look_up(1).as_deref(), Some("ch_1"), "the ledger hears of another name at once");
    while world.gateways[1].lookups.is_empty() {
        world.wait();
    }
    let (slot, asked_by) = world.gateways[1].lookups.pop().unwrap();
    assert_eq!(asked_by.as_deref(), Some("ch_1"));
    let now = world.now();
    let processed = Verification::Found { stored: Stored::Processed, requested_at: None, amount: None };
    world.gateways[1].dispatcher.verified(slot, processed, now);
    world.exchange();
    assert!(matches!(world.coordinator.ledger().lookup(id(1)), Known::Processed { .. }));
    assert_eq!(world.look_up(1).as_deref(), Some("ch_1"));
    let restored = world.restored(config);
    assert_eq!(restored.ledger().reference(id(1)).as_deref(), Some("ch_1"));
}

#[test]
fn a_name_goes_with_the_attempt_that_it_belongs_to() {
    let mut world = World::new(config(1 << 20, 100));
    assert_eq!(world.post(0, 1, None), Answer::Granted);
    world.end(0, Some("req_refused"), End { verdict: Verdict::Unavailable, status: 500, retry_after_ms: 0 });
    assert_eq!(world.look_up(1), None);
    world.wait();
    world.end(0, Some("pi_2"), OK);
    assert_eq!(world.look_up(1).as_deref(), Some("pi_2"));
}

/// A payment without texts is what it was: no part is sent, no entry written.
#[test]
fn a_payment_without_texts_has_none() {
    let mut world = World::new(config(1 << 20, 100));
    assert_eq!(world.post(0, 1, None), Answer::Granted);
    world.end(0, None, OK);
    assert_eq!(world.journal.len(), 2, "{:?}", world.journal);
    assert!(world.coordinator.ledger().texts(id(1)).is_none() && world.look_up(1).is_none());
}
