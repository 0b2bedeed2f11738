//! Gateways that grant by themselves, and a ledger that takes it in: whose rings they are, and what may be granted in them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use std::cell::Cell;
use std::rc::Rc;

use galo_admission::{Claimed, Claimer, Geometry, Grant, Heap, Identity, Registrar, Ring, Table};
use galo_engine::coordinator::{Coordinator, SessionId};
use galo_engine::ledger::{Known, Ledger};
use galo_engine::{Outcome, Processor, Stage};
use galo_wire::record::{Admission, LookupQuery, Opened, PurgeQuery, Ready, Standing};
use galo_wire::{Message, Reason};
use gateways::{GRACE_US, LATER, STORED_MS, accept, at, completion, coordinator_config, hello, id, tell};

const GEOMETRY: Geometry = Geometry { known_buckets_log2: 6, claims_buckets_log2: 6, ring_log2: 6 };
const CHEAP: Stage = Stage::at(Processor::DEFAULT);

fn grant(number: u8, amount_cents: u64, stage: Stage) -> Grant {
    Grant {
        correlation_id: id(number),
        amount_cents,
        decided_at_ms: STORED_MS,
        stage,
        reason: Reason::Cheaper,
    }
}

/// A ledger with a table, and the journal that it has written so far.
struct Host {
    table: Table,
    coordinator: Coordinator,
    journal_sequence: u64,
    /// Processes that had a ring are gone.
    are_gone: Rc<Cell<bool>>,
}

impl Host {
    fn new() -> Self {
        let identity = Identity { region: 1, key: [3, 4] };
        let table = Table::create(Heap::shared(GEOMETRY.words_len()), GEOMETRY, identity);
        let ledger = Ledger::new(coordinator_config().ledger);
        Self::with(table, ledger, 1)
    }

    fn with(table: Table, ledger: Ledger, journal_sequence: u64) -> Self {
        let mut coordinator = Coordinator::recovered(coordinator_config(), ledger, at(0));
        let are_gone = Rc::new(Cell::new(false));
        let gone = Rc::clone(&are_gone);
        coordinator
            .admit_by(Registrar::new(table.clone()), journal_sequence, true, move |_| gone.get())
            .unwrap();
        Self { table, coordinator, journal_sequence, are_gone }
    }

    /// The aggregator dies, with what it has not written.
    fn restart(self) -> Self {
        let mut ledger = Ledger::new(coordinator_config().ledger);
        let mut coordinator = self.coordinator;
        coordinator.entries().clear();
        // What is in the journal is what was written.
        for number in 1..=100 {
            if let Known::Open(payment) = coordinator.ledger().lookup(id(number))
                && self.table.granted(id(number)).is_none()
            {
                ledger.apply(galo_engine::ledger::Entry::Accepted {
                    correlation_id: id(number),
                    amount_cents: payment.amount_cents,
                    stage: payment.stage,
                    decided_at_ms: payment.requested_at_ms,
                    in_doubt: payment.in_doubt,
                    reason: Reason::Cheaper,
                });
            }
        }
        Self::with(self.table, ledger, self.journal_sequence)
    }

    /// The journal's write ends.
    fn write(&mut self) {
        self.journal_sequence += self.coordinator.entries().drain(..).count() as u64;
        self.coordinator.written(self.journal_sequence);
    }

    /// A gateway comes, its claims are in, and it takes the ring that it is given.
    fn join(&mut self, instance: u8) -> (SessionId, Option<Claimer>) {
        let session = self.coordinator.connect(hello(instance)).unwrap();
        let told = tell(&mut self.coordinator, session, Ready { held_len_max: 1_000 });
        let opened = told.into_iter().find_map(|(_, message)| match message {
            Message::Opened(opened) => Some(opened),
            _ => None,
        });
        (session, opened.map(|opened| Claimer::new(self.table.clone(), ring(opened))))
    }
}

fn ring(opened: Opened) -> Ring {
    Ring { number: opened.ring.into(), opening: opened.opening }
}

#[test]
fn what_a_gateway_granted_is_its_own_before_the_ledger_hears_of_anything_else() {
    let mut host = Host::new();
    let ((one, claimer), (_, other)) = (host.join(1), host.join(2));
    let (mut claimer, mut other) = (claimer.unwrap(), other.unwrap());
    assert_eq!(claimer.claim(&grant(1, 500, CHEAP)), Claimed::Granted);
    assert_eq!(other.claim(&grant(1, 500, CHEAP)), Claimed::Replayed);
    assert_eq!(host.coordinator.ledger().lookup(id(1)), Known::Absent);
    // The end of its attempt comes by the socket.
    tell(&mut host.coordinator, one, completion(1, Processor::DEFAULT, Outcome::Processed));
    assert!(matches!(host.coordinator.ledger().lookup(id(1)), Known::Processed { amount_cents: 500, .. }));
    assert_eq!(host.coordinator.ledger().conservation().accepted.count, 1);
    host.write();
    assert_eq!(other.claim(&grant(1, 500, CHEAP)), Claimed::LikelyReplayed);
    assert_eq!(other.claim(&grant(1, 501, CHEAP)), Claimed::Unclear);
}

#[test]
fn a_look_up_and_an_accept_find_what_was_granted_a_moment_ago() {
    let mut host = Host::new();
    let ((_, claimer), (other, _)) = (host.join(1), host.join(2));
    let mut claimer = claimer.unwrap();
    for number in 1..=3 {
        assert_eq!(claimer.claim(&grant(number, 500, CHEAP)), Claimed::Granted);
        match number {
            1 => assert_eq!(accept(&mut host.coordinator, other, 1, 500, CHEAP), Admission::Replayed),
            2 => assert_eq!(accept(&mut host.coordinator, other, 2, 501, CHEAP), Admission::Conflict),
            _ => {
                let told = tell(&mut host.coordinator, other, LookupQuery { slot: 1, correlation_id: id(3) });
                let Some((_, Message::LookupReply(reply))) = told.last() else { panic!("{told:?}") };
                assert_eq!((reply.standing, reply.amount_cents), (Standing::Open, 500));
            }
        }
    }
}

#[test]
fn what_the_ledger_accepted_no_gateway_grants() {
    let mut host = Host::new();
    let ((one, claimer), _) = (host.join(1), host.join(2));
    let mut claimer = claimer.unwrap();
    assert_eq!(accept(&mut host.coordinator, one, 1, 500, CHEAP), Admission::Granted);
    // Not written yet: nobody may say without the aggregator that it comes again.
    assert_eq!(claimer.claim(&grant(1, 500, CHEAP)), Claimed::Unclear);
    host.write();
    assert_eq!(claimer.claim(&grant(1, 500, CHEAP)), Claimed::LikelyReplayed);
    // Four are remembered: the first is new again.
    for number in 1..=5 {
        if number > 1 {
            assert_eq!(accept(&mut host.coordinator, one, number, 500, CHEAP), Admission::Granted);
        }
        tell(&mut host.coordinator, one, completion(number, Processor::DEFAULT, Outcome::Processed));
    }
    // By a ledger that may yet die with what made it forget, and be followed by one that has it open.
    assert_ne!(claimer.claim(&grant(1, 500, CHEAP)), Claimed::Granted);
    host.write();
    assert_eq!(claimer.claim(&grant(1, 500, CHEAP)), Claimed::Granted);
    assert_eq!(claimer.claim(&grant(2, 500, CHEAP)), Claimed::LikelyReplayed);
}

#[test]
fn a_gateway_that_goes_away_leaves_what_it_granted_in_doubt_and_grants_nothing_more() {
    let mut host = Host::new();
    let ((one, claimer), (other, _)) = (host.join(1), host.join(2));
    let mut claimer = claimer.unwrap();
    assert_eq!(claimer.claim(&grant(1, 500, CHEAP)), Claimed::Granted);
    assert_eq!(claimer.claim(&grant(2, 500, Stage::Waiting)), Claimed::Granted);
    host.coordinator.disconnect(one, at(LATER));
    let assigned: Vec<_> = host.coordinator.messages().drain(..).collect();
    let expected = [(id(1), CHEAP, true), (id(2), Stage::Waiting, false)];
    for (correlation_id, stage, in_doubt) in expected {
        assert!(assigned.iter().any(|(to, message)| *to == other
            && matches!(message, Message::Assignment(it)
                if (it.correlation_id, it.stage, it.in_doubt) == (correlation_id, stage, in_doubt))));
    }
    assert_eq!(claimer.claim(&grant(3, 500, CHEAP)), Claimed::Unclear, "it was taken from");
}

#[test]
fn an_aggregators_restart_ends_no_owner_that_comes_back_in_time() {
    let mut host = Host::new();
    let ((one, claimer), (other, second)) = (host.join(1), host.join(2));
    let (mut claimer, mut second) = (claimer.unwrap(), second.unwrap());
    assert_eq!(accept(&mut host.coordinator, one, 9, 500, CHEAP), Admission::Granted);
    assert_eq!(claimer.claim(&grant(1, 500, CHEAP)), Claimed::Granted);
    host.write();
    // Taken in, and not written; and one that nobody saw.
    tell(&mut host.coordinator, other, Ready { held_len_max: 1_000 });
    assert_eq!(claimer.claim(&grant(2, 500, CHEAP)), Claimed::Granted);
    let mut host = host.restart();
    assert_eq!(claimer.claim(&grant(3, 500, CHEAP)), Claimed::Granted, "while the aggregator is away");
    assert_eq!(claimer.claim(&grant(9, 500, CHEAP)), Claimed::LikelyReplayed);
    let session = host.coordinator.connect(hello(1)).unwrap();
    assert_eq!(claimer.claim(&grant(4, 500, CHEAP)), Claimed::Granted, "before its claims are in");
    host.coordinator.messages().clear();
    host.coordinator.handle(session, Ready { held_len_max: 1_000 }.into(), at(1_000)).unwrap();
    let [(_, Message::Opened(opened)), (_, Message::Acknowledgement(_))] = host.coordinator.messages()[..]
    else {
        panic!("{:?}", host.coordinator.messages())
    };
    claimer.reopened(ring(opened));
    for number in [1, 2, 3, 4, 9] {
        assert!(matches!(host.coordinator.ledger().lookup(id(number)), Known::Open(_)), "{number}");
    }
    // The other one does not come back.
    assert_eq!(second.claim(&grant(5, 500, CHEAP)), Claimed::Granted);
    assert!(host.coordinator.tick_due_us() <= GRACE_US);
    host.coordinator.tick(at(LATER));
    assert_eq!(second.claim(&grant(6, 500, CHEAP)), Claimed::Unclear);
    assert_eq!(claimer.claim(&grant(6, 500, CHEAP)), Claimed::Granted);
    let Known::Open(payment) = host.coordinator.ledger().lookup(id(5)) else { panic!("lost") };
    assert_eq!((payment.owner, payment.in_doubt), (Some(session), true));
}

#[test]
fn a_ring_whose_owner_may_live_is_nobody_elses() {
    let mut host = Host::new();
    let mut rings = Vec::new();
    for instance in 1..=galo_admission::RINGS_LEN_MAX {
        let (session, claimer) = host.join(u8::try_from(instance).unwrap());
        rings.push((session, claimer.unwrap().ring()));
    }
    assert!(host.join(100).1.is_none(), "there is none left: it asks");
    host.coordinator.disconnect(rings[3].0, at(LATER));
    assert!(host.join(101).1.is_none(), "its process may stand still");
    host.are_gone.set(true);
    let (_, claimer) = host.join(102);
    assert_eq!(claimer.unwrap().ring().number, rings[3].1.number);
    // Whoever comes back finds it taken.
    assert!(host.join(4).1.is_none());
    // One of those that ask has the next that is free.
    host.coordinator.disconnect(rings[5].0, at(LATER));
    host.coordinator.messages().clear();
    host.coordinator.tick(at(LATER));
    let told: Vec<_> = host.coordinator.messages().drain(..).collect();
    let opened: Vec<_> = told
        .into_iter()
        .filter_map(|(to, message)| match message {
            Message::Opened(opened) => Some((to, usize::from(opened.ring))),
            _ => None,
        })
        .collect();
    let numbers: Vec<_> = opened.iter().map(|(_, ring)| *ring).collect();
    assert_eq!(numbers, [rings[5].1.number]);
    assert!(rings.iter().all(|(session, _)| *session != opened[0].0) || opened[0].0 == rings[3].0);
}

#[test]
fn a_purge_closes_rings_and_opens_them_behind_itself() {
    let mut host = Host::new();
    let (one, claimer) = host.join(1);
    let mut claimer = claimer.unwrap();
    assert_eq!(claimer.claim(&grant(1, 500, CHEAP)), Claimed::Granted);
    let told = tell(&mut host.coordinator, one, PurgeQuery { slot: 1 });
    assert_eq!(claimer.claim(&grant(2, 500, CHEAP)), Claimed::Unclear, "it has not heard of the purge");
    let [(_, Message::Purged(_)), (_, Message::Opened(opened)), (_, Message::PurgeReply(_))] = told[..]
    else {
        panic!("{told:?}")
    };
    host.write();
    claimer.reopened(ring(opened));
    for number in [1, 2] {
        assert_eq!(claimer.claim(&grant(number, 700, CHEAP)), Claimed::Granted);
    }
    host.coordinator.take_grants();
    assert_eq!(host.coordinator.ledger().conservation().accepted.amount_cents, 1_400);
}

#[test]
fn places_are_promised_and_no_more_than_there_are() {
    let mut host = Host::new();
    let ((one, first), (_, second)) = (host.join(1), host.join(2));
    let mut claimers = [first.unwrap(), second.unwrap()];
    let (mut number, mut granted, mut accepted) = (0, 0, 0);
    for round in 0..20 {
        for claimer in &mut claimers {
            while claimer.claim(&grant(number + 1, 500, Stage::Waiting)) == Claimed::Granted {
                (number, granted) = (number + 1, granted + 1);
            }
        }
        if accept(&mut host.coordinator, one, number + 1, 500, Stage::Waiting) == Admission::Granted {
            (number, accepted) = (number + 1, accepted + 1);
        }
        host.write();
        let open = host.coordinator.ledger().conservation().open.count;
        assert!(open <= 100, "{open} in round {round}");
    }
    assert!(granted > 60 && accepted > 3, "{granted} by gateways, {accepted} by the ledger");
    assert!(granted + accepted >= 97, "{granted} and {accepted}: nearly all places are used");
}

#[test]
fn a_damaged_grant_is_not_taken() {
    let memory = Heap::shared(GEOMETRY.words_len());
    let table = Table::create(memory.clone(), GEOMETRY, Identity { region: 1, key: [3, 4] });
    let mut host = Host::with(table, Ledger::new(coordinator_config().ledger), 1);
    let (_, claimer) = host.join(1);
    let before: Vec<u64> = values(&memory);
    assert_eq!(claimer.unwrap().claim(&grant(1, 500, CHEAP)), Claimed::Granted);
    // The amount: the one word that is 500.
    let place =
        values(&memory).iter().zip(&before).position(|(now, then)| now != then && *now == 500).unwrap();
    memory.words()[place].store(5_000, std::sync::atomic::Ordering::SeqCst);
    host.coordinator.take_grants();
    assert!(host.coordinator.corrupt().is_some());
    assert_eq!(host.coordinator.ledger().lookup(id(1)), Known::Absent);
}

fn values(memory: &galo_admission::SharedMemory) -> Vec<u64> {
    memory.words().iter().map(|word| word.load(std::sync::atomic::Ordering::SeqCst)).collect()
}

#[test]
fn a_ring_that_is_opened_again_has_only_the_places_that_are_left() {
    let mut host = Host::new();
    let ((one, claimer), (other, _)) = (host.join(1), host.join(2));
    let mut claimer = claimer.unwrap();
    assert!(claimer.credit() > 10);
    host.coordinator.disconnect(one, at(LATER));
    let mut number = 0;
    while accept(&mut host.coordinator, other, number + 1, 500, Stage::Waiting) == Admission::Granted {
        number += 1;
        host.write();
    }
    // It comes back: what was promised to it has gone to others.
    let session = host.coordinator.connect(hello(1)).unwrap();
    let opened = tell(&mut host.coordinator, session, Ready { held_len_max: 1_000 });
    let opened = opened.into_iter().find_map(|(_, message)| match message {
        Message::Opened(opened) => Some(opened),
        _ => None,
    });
    claimer.reopened(ring(opened.unwrap()));
    while claimer.claim(&grant(number + 1, 500, Stage::Waiting)) == Claimed::Granted {
        number += 1;
    }
    host.coordinator.take_grants();
    let open = host.coordinator.ledger().conservation().open.count;
    assert!(open > 70 && open <= 100, "{open}");
}
