//! All that a gateway held goes to another: as much as that one has room for, in portions, and the claims of it in pieces.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use galo_engine::coordinator::{Coordinator, CoordinatorConfig, SessionId};
use galo_engine::dispatcher::{Action, Dispatcher, DispatcherConfig, ProcessorPolicy};
use galo_engine::ledger::Known;
use galo_engine::router::RouterConfig;
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, Stage};
use galo_wire::record::{Accept, Assignment, Completion, PurgeQuery, Ready, Release};
use galo_wire::{Message, Reason};
use gateways::{LATER, at, coordinator_config, hello, told};

/// Messages of a portion.
const PORTION: usize = 16_384;

fn id(number: u32) -> CorrelationId {
    let mut bytes = [0; 16];
    // As those that clients draw: the last byte is any.
    bytes[12..].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
    CorrelationId(bytes)
}

fn coordinator() -> Coordinator {
    let CoordinatorConfig { mut ledger, .. } = coordinator_config();
    (ledger.open_len_max, ledger.known_len_max) = (100_000, 100_000);
    Coordinator::new(CoordinatorConfig { ledger, ..coordinator_config() }, at(0))
}

fn join(coordinator: &mut Coordinator, instance: u8, held_len_max: u64) -> SessionId {
    let session = coordinator.connect(hello(instance)).unwrap();
    told(coordinator, session, Ready { held_len_max });
    session
}

fn accept(coordinator: &mut Coordinator, session: SessionId, number: u32, stage: Stage) {
    let accept = Accept {
        slot: number,
        correlation_id: id(number),
        amount_cents: 100,
        decided_at_ms: 7,
        expires_at_us: u64::MAX,
        stage,
        reason: Reason::Cheaper,
    };
    told(coordinator, session, accept);
}

fn assigned(coordinator: &mut Coordinator, to: SessionId) -> Vec<CorrelationId> {
    let assigned = coordinator.messages().drain(..).filter_map(|(session, message)| match message {
        Message::Assignment(assignment) if session == to => Some(assignment.correlation_id),
        _ => None,
    });
    assigned.collect()
}

fn processed(number: u64, correlation_id: CorrelationId) -> Completion {
    let (processor, outcome) = (Processor::DEFAULT, Outcome::Processed);
    Completion { sequence: number, correlation_id, requested_at_ms: 7, processor, outcome, status: 0 }
}

#[test]
fn a_gateway_is_handed_what_it_has_room_for_and_the_rest_as_it_ends() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1, u64::MAX);
    let two = join(&mut coordinator, 2, 4);
    accept(&mut coordinator, two, 100, Stage::Waiting);
    (0..5).for_each(|number| accept(&mut coordinator, one, number, Stage::Waiting));
    coordinator.disconnect(one, at(LATER));
    let handed = assigned(&mut coordinator, two);
    assert_eq!(handed.len(), 3, "it holds one, and takes over as long as it holds fewer than four");
    assert_eq!((coordinator.ledger().owned_len(two), coordinator.ledger().unowned_len()), (4, 2));
    // There is nobody to give them to, so nothing is due; they are cancelled, settled and claimed as others that are nobody's.
    assert!(coordinator.tick_due_us() > LATER);
    coordinator.tick(at(LATER));
    assert_eq!(assigned(&mut coordinator, two), []);
    for (number, ended) in (1..).zip(&handed[..2]) {
        told(&mut coordinator, two, processed(number, *ended));
        assert_eq!(coordinator.tick_due_us(), 0, "at once, not with the next lease");
        coordinator.tick(at(LATER));
        assert_eq!(assigned(&mut coordinator, two).len(), 1);
    }
    assert_eq!(coordinator.ledger().unowned_len(), 0);
    assert!(coordinator.tick_due_us() > LATER);
}

/// They may be charged: the summary lacks them until somebody has looked them up.
#[test]
fn attempts_of_a_dead_gateway_do_not_wait_behind_its_queue() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1, u64::MAX), join(&mut coordinator, 2, 1_000));
    let stage = |number| if number % 200 == 7 { Stage::At0 } else { Stage::Waiting };
    (0..20_000).for_each(|number| accept(&mut coordinator, one, number, stage(number)));
    (20_000..21_000).for_each(|number| accept(&mut coordinator, two, number, Stage::Waiting));
    coordinator.disconnect(one, at(LATER));
    let mut handed = assigned(&mut coordinator, two);
    let mut doubts: Vec<_> = (0..20_000).filter(|number| stage(*number) == Stage::At0).map(id).collect();
    handed.sort_unstable();
    doubts.sort_unstable();
    assert_eq!(handed, doubts, "all of them, though there is no room, and nothing else");
    assert!(coordinator.tick_due_us() > LATER, "what waits, waits for room");
}

#[test]
fn who_comes_takes_what_the_others_have_no_room_for() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1, u64::MAX);
    let two = join(&mut coordinator, 2, 3);
    (0..10).for_each(|number| accept(&mut coordinator, one, number, Stage::Waiting));
    coordinator.disconnect(one, at(LATER));
    assert_eq!(assigned(&mut coordinator, two).len(), 3);
    let three = coordinator.connect(hello(3)).unwrap();
    coordinator.messages().clear();
    coordinator.handle(three, Ready { held_len_max: 100 }.into(), at(LATER)).unwrap();
    assert_eq!(assigned(&mut coordinator, three).len(), 7);
    assert_eq!((coordinator.ledger().owned_len(two), coordinator.ledger().owned_len(three)), (3, 7));
}

#[test]
fn a_hand_over_goes_in_portions_and_waits_while_gateways_have_much_to_read() {
    let count = 40_000;
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1, u64::MAX), join(&mut coordinator, 2, u64::MAX));
    (0..count).for_each(|number| accept(&mut coordinator, one, number, Stage::Waiting));
    coordinator.entries().clear();
    coordinator.disconnect(one, at(LATER));
    let mut handed = assigned(&mut coordinator, two);
    assert_eq!(handed.len(), PORTION);
    assert!(coordinator.entries().is_empty(), "who works on a payment is not written down");
    coordinator.hold_up(two, true);
    coordinator.tick(at(LATER));
    assert_eq!(assigned(&mut coordinator, two), []);
    coordinator.hold_up(two, false);
    while coordinator.ledger().unowned_len() > 0 {
        assert_eq!(coordinator.tick_due_us(), 0);
        coordinator.tick(at(LATER));
        let portion = assigned(&mut coordinator, two);
        assert!((1..=PORTION).contains(&portion.len()), "{}", portion.len());
        handed.extend(portion);
    }
    handed.sort_unstable();
    handed.dedup();
    assert_eq!(handed.len(), count as usize, "each once");
}

#[test]
fn who_does_not_read_keeps_nothing_from_the_others() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1, u64::MAX);
    let (deaf, two) = (join(&mut coordinator, 2, u64::MAX), join(&mut coordinator, 3, 2));
    (0..5).for_each(|number| accept(&mut coordinator, one, number, Stage::Waiting));
    coordinator.hold_up(deaf, true);
    coordinator.disconnect(one, at(LATER));
    assert_eq!(assigned(&mut coordinator, two).len(), 2);
    assert_eq!((coordinator.ledger().owned_len(deaf), coordinator.ledger().unowned_len()), (0, 3));
    assert_eq!(coordinator.tick_due_us(), 0, "it may have read by then");
    coordinator.hold_up(deaf, false);
    coordinator.tick(at(LATER));
    assert_eq!(assigned(&mut coordinator, deaf).len(), 3);
}

#[test]
fn only_recorded_attempts_of_a_gateway_that_dies_come_in_doubt() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1, u64::MAX);
    accept(&mut coordinator, one, 1, Stage::Waiting);
    accept(&mut coordinator, one, 2, Stage::At0);
    coordinator.entries().clear();
    coordinator.disconnect(one, at(LATER));
    assert_eq!(coordinator.entries().len(), 1);
    for (number, in_doubt) in [(1, false), (2, true)] {
        let Known::Open(payment) = coordinator.ledger().lookup(id(number)) else { panic!("it is open") };
        assert_eq!((payment.owner, payment.in_doubt), (None, in_doubt));
    }
}

#[test]
fn who_owns_how_many_is_known_whatever_becomes_of_them() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1, u64::MAX);
    let owned =
        |coordinator: &Coordinator| (coordinator.ledger().owned_len(one), coordinator.ledger().unowned_len());
    (0..4).for_each(|number| accept(&mut coordinator, one, number, Stage::Waiting));
    assert_eq!(owned(&coordinator), (4, 0));
    told(&mut coordinator, one, Release { correlation_id: id(0) });
    assert_eq!(owned(&coordinator), (3, 1));
    told(&mut coordinator, one, processed(1, id(0)));
    told(&mut coordinator, one, processed(2, id(1)));
    assert_eq!(owned(&coordinator), (2, 0));
    told(&mut coordinator, one, Completion { outcome: Outcome::Declined, ..processed(3, id(2)) });
    assert_eq!(owned(&coordinator), (1, 0));
    told(&mut coordinator, one, PurgeQuery { slot: 1 });
    assert_eq!(owned(&coordinator), (0, 0));
}

#[test]
fn the_claims_of_a_full_gateway_are_shown_to_its_shell_in_pieces() {
    let mut dispatcher = Dispatcher::new(DispatcherConfig {
        router: RouterConfig::pair([500, 1500]),
        queue_len_max: 5_000,
        processors: [ProcessorPolicy::contest(8); PROCESSORS_LEN_MAX],
        accept_wait_us_max: 1_000_000,
        seed: 1,
    });
    for number in 0..5_000 {
        let assignment = Assignment {
            correlation_id: id(number),
            amount_cents: 1990,
            requested_at_ms: 0,
            stage: Stage::Waiting,
            in_doubt: false,
        };
        dispatcher.handle(assignment.into(), at(1));
    }
    dispatcher.actions().clear();
    let (mut said, mut longest) = (Vec::new(), 0);
    dispatcher.connected_with(at(2), |actions| {
        longest = longest.max(actions.len());
        said.append(actions);
    });
    assert!((1..=1_024).contains(&longest), "{longest}");
    said.append(dispatcher.actions());
    let is = |action: &Action, what: fn(&Message) -> bool| matches!(action, Action::Send(it) if what(it));
    let claims = said.iter().filter(|action| is(action, |it| matches!(it, Message::Claim(_)))).count();
    assert_eq!(claims, 5_000);
    let ready = said.iter().position(|action| is(action, |it| matches!(it, Message::Ready(_))));
    assert_eq!(ready, Some(5_000), "behind all claims");
    let asked = said[5_000];
    assert_eq!(asked, Action::Send(Ready { held_len_max: 5_000 + 78 + 1 }.into()), "a 64th beyond its queue");
}
