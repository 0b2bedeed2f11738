//! A client's deadline: no attempt begins behind it, and a payment that no processor can have by then ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use galo_engine::coordinator::{Coordinator, SessionId};
use galo_engine::ledger::{Entry, Known, Ledger};
use galo_engine::texts::deadline_member;
use galo_engine::time::{Now, UnixMillis};
use galo_engine::{Attached, Outcome, Processor, STATUS_EXPIRED, Stage};
use galo_wire::record::{ANY_SLOT, Accept, Admission, Grant, Intent, Withdrawal};
use galo_wire::{Attachment, Message, Reason};
use gateways::{LATER, STORED_MS, completion, coordinator_config, id, join, tell};

const DEADLINE_MS: u64 = 10_000;

fn at_ms(unix_ms: u64) -> Now {
    Now { monotonic_us: LATER + unix_ms * 1_000, unix_ms: UnixMillis(unix_ms) }
}

fn members(deadline_ms: u64) -> String {
    let mut members = Vec::new();
    deadline_member(UnixMillis(deadline_ms), &mut members);
    String::from_utf8(members).unwrap() + r#","payer":1}"#
}

fn coordinator() -> Coordinator {
    Coordinator::new(coordinator_config(), at_ms(0))
}

/// A POST with a deadline.
fn accept(coordinator: &mut Coordinator, from: SessionId, number: u8, stage: Stage) {
    let mut attached = Attached::default();
    attached.push(Attachment::Members, members(DEADLINE_MS).as_bytes()).unwrap();
    let accept = Accept {
        slot: 1,
        correlation_id: id(number),
        amount_cents: 500,
        decided_at_ms: STORED_MS,
        expires_at_us: u64::MAX,
        stage,
        reason: if stage == Stage::Waiting { Reason::AwaitsAny } else { Reason::Cheaper },
    };
    coordinator.handle_with(from, accept.into(), &attached, at_ms(STORED_MS)).unwrap();
    let answers: Vec<_> = coordinator.messages().drain(..).collect();
    let granted = Grant { slot: 1, correlation_id: id(number), admission: Admission::Granted };
    assert_eq!(answers, [(from, granted.into())]);
}

/// A tick, and what is sent.
fn tick(coordinator: &mut Coordinator, unix_ms: u64) -> Vec<(SessionId, Message)> {
    coordinator.tick(at_ms(unix_ms));
    coordinator.messages().drain(..).filter(|(_, it)| !matches!(it, Message::Lease(_))).collect()
}

fn is_expired(coordinator: &Coordinator, number: u8) -> bool {
    matches!(coordinator.ledger().lookup(id(number)), Known::Declined { status: STATUS_EXPIRED, .. })
}

fn is_open(coordinator: &Coordinator, number: u8) -> bool {
    matches!(coordinator.ledger().lookup(id(number)), Known::Open(_))
}

fn intent(number: u8) -> Intent {
    Intent {
        slot: 4,
        correlation_id: id(number),
        requested_at_ms: STORED_MS,
        processor: Processor::DEFAULT,
        reason: Reason::Cheaper,
        waited_for_ms: 0,
    }
}

/// Told behind the deadline.
fn late(
    coordinator: &mut Coordinator,
    from: SessionId,
    message: impl Into<Message>,
) -> Vec<(SessionId, Message)> {
    coordinator.handle(from, message.into(), at_ms(DEADLINE_MS)).unwrap();
    coordinator.messages().drain(..).collect()
}

#[test]
fn what_waits_ends_at_its_deadline_and_not_before() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    accept(&mut coordinator, one, 1, Stage::Waiting);
    assert_eq!(tick(&mut coordinator, DEADLINE_MS - 400), []);
    assert_eq!(coordinator.tick_due_us(), at_ms(DEADLINE_MS).monotonic_us, "the next look is at that moment");
    assert_eq!(tick(&mut coordinator, DEADLINE_MS - 1), []);
    assert!(is_open(&coordinator, 1));
    let withdrawal = Withdrawal { slot: ANY_SLOT, correlation_id: id(1) };
    assert_eq!(tick(&mut coordinator, DEADLINE_MS), [(one, withdrawal.into())], "its owner is told");
    assert!(is_expired(&coordinator, 1));
    let books = coordinator.ledger().conservation();
    assert_eq!((books.accepted.count, books.declined.count, books.open.count), (1, 1, 0));
    assert_eq!(coordinator.counters().past_deadline, 1);
    assert_eq!(coordinator.ledger().next_deadline_ms(), None);
}

#[test]
fn an_attempt_that_was_under_way_may_still_process_it() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    for number in [1, 2, 3, 4] {
        accept(&mut coordinator, one, number, Stage::At0);
    }
    tell(&mut coordinator, one, completion(3, Processor::DEFAULT, Outcome::Unknown));
    tell(&mut coordinator, one, completion(4, Processor::DEFAULT, Outcome::Unknown));
    tick(&mut coordinator, DEADLINE_MS);
    assert!((1..=4).all(|number| is_open(&coordinator, number)), "a processor may have them");
    late(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Processed));
    late(&mut coordinator, one, completion(2, Processor::DEFAULT, Outcome::Refused));
    late(&mut coordinator, one, completion(3, Processor::DEFAULT, Outcome::Absent));
    assert_eq!(coordinator.tick_due_us(), 0);
    tick(&mut coordinator, DEADLINE_MS);
    assert!(matches!(coordinator.ledger().lookup(id(1)), Known::Processed { .. }));
    assert!(is_expired(&coordinator, 2) && is_expired(&coordinator, 3));
    assert!(is_open(&coordinator, 4), "in doubt");
}

#[test]
fn the_last_attempt_of_the_only_payment_has_its_deadline_looked_at() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    accept(&mut coordinator, one, 1, Stage::At0);
    tick(&mut coordinator, DEADLINE_MS);
    assert_eq!(coordinator.ledger().next_deadline_ms(), None, "it has passed, and the attempt goes on");
    late(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Refused));
    assert_eq!(coordinator.tick_due_us(), 0, "at once, not with the next lease");
    tick(&mut coordinator, DEADLINE_MS);
    assert!(is_expired(&coordinator, 1));
}

#[test]
fn no_attempt_is_recorded_behind_the_deadline() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    accept(&mut coordinator, one, 1, Stage::Waiting);
    // By moving on it says that the recorded attempt was refused.
    accept(&mut coordinator, one, 2, Stage::At1);
    for number in [1, 2] {
        let told = late(&mut coordinator, one, intent(number));
        let withdrawal = Withdrawal { slot: 4, correlation_id: id(number) };
        assert!(told.contains(&(one, withdrawal.into())), "{told:?}");
        assert!(!told.iter().any(|(_, it)| matches!(it, Message::IntentRecorded(_))), "{told:?}");
        assert!(is_expired(&coordinator, number));
    }
    assert_eq!(coordinator.session_strayed(one), 0, "which is no mistake");
    assert_eq!(coordinator.counters().past_deadline, 2);
}

#[test]
fn a_deadline_survives_the_aggregator() {
    let mut before = coordinator();
    let one = join(&mut before, 1);
    accept(&mut before, one, 1, Stage::Waiting);
    let mut ledger = Ledger::new(coordinator_config().ledger);
    before.entries().iter().for_each(|entry| ledger.apply(*entry));
    let mut after = Coordinator::recovered(coordinator_config(), ledger, at_ms(0));
    assert_eq!(after.tick_due_us(), 0);
    tick(&mut after, DEADLINE_MS - 1);
    assert!(is_open(&after, 1));
    tick(&mut after, DEADLINE_MS);
    assert!(is_expired(&after, 1));
    let declines = |entry: &Entry| matches!(entry, Entry::Resolved { status: STATUS_EXPIRED, .. });
    assert_eq!(after.entries().iter().filter(|entry| declines(entry)).count(), 1);
}
