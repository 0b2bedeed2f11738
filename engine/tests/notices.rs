//! Processors' notifications: the next look-up comes sooner, and nothing else changes, whoever says what how often.

#![allow(dead_code, clippy::unwrap_used, reason = "tests; what they share is more than each needs")]

mod field;
mod gateways;

use std::cell::Cell;
use std::rc::Rc;

use field::*;
use galo_engine::coordinator::{Coordinator, SessionId};
use galo_engine::dispatcher::{DispatcherConfig, DoubtPolicy, Stored, Verification};
use galo_engine::rate::RateLimit;
use galo_engine::router::ProcessorSet;
use galo_engine::time::{Now, UnixMillis};
use galo_engine::verdict::Verdict;
use galo_engine::{Outcome, Processor, Reason, Stage};
use galo_wire::record::{Accept, Completion, Hello, Notice, Notified, Purged, Ready, Role};
use galo_wire::{Message, PROTOCOL_VERSION};

const MINUTE: u64 = 60 * SECOND;

fn found(stored: Stored) -> Verification {
    Verification::Found { stored, amount: None, requested_at: None }
}

fn slow_look_ups() -> DispatcherConfig {
    config_with(DoubtPolicy { lookup_every_us: MINUTE, ..DoubtPolicy::CONTEST })
}

/// Everything is pending for ever, and asked about each minute.
fn pending() -> Field {
    Field::with(slow_look_ups(), |_| end(Verdict::Pending, 202)).clerk_with(|_, _, _| found(Stored::Pending))
}

fn notify(field: &mut Field, id: u32, processor: Processor) {
    let notified = Notified { correlation_id: id_of(id), processor };
    field.event(|dispatcher, now| dispatcher.handle(notified.into(), now));
}

#[test]
fn a_pending_payment_is_looked_up_at_once_and_ends() {
    let mut field = Field::with(slow_look_ups(), |_| end(Verdict::Pending, 202))
        .clerk_with(|_, _, _| found(Stored::Processed));
    field.pay(1);
    field.wait(5 * SECOND);
    assert_eq!(field.lookups, []);
    notify(&mut field, 1, CHEAP);
    field.wait(10 * MS);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Processed]);
    assert_eq!(field.dispatcher.counters().hastened, 1);
    field.wait(2 * MINUTE);
    assert_eq!(field.lookups.len(), 1, "nothing is left of it");
}

#[test]
fn a_flood_about_one_payment_is_ten_look_ups_a_second() {
    let mut field = pending();
    field.pay_each(1..=2, MS);
    for _ in 0..10_000 {
        notify(&mut field, 1, CHEAP);
        field.wait(MS);
    }
    let [flooded, other] = [1, 2].map(|id| field.lookups.iter().filter(|it| it.1 == id).count());
    assert!((95..=101).contains(&flooded), "{flooded} look-ups in 10 s");
    assert_eq!(other, 0, "nobody else is");
    field.wait(SECOND);
    let before = field.lookups.len();
    field.wait(3 * MINUTE);
    let later = field.lookups[before..].iter().filter(|it| it.1 == 1).count();
    assert!((2..=4).contains(&later), "as often as before, once it is over: {later} in three minutes");
}

#[test]
fn notifications_keep_to_the_budget_and_the_rate() {
    let mut config = slow_look_ups();
    config.router.processors = ProcessorSet::EMPTY.with(CHEAP);
    config.processors[0].rate = Some(RateLimit { per_second: 20, shares: 1 });
    let mut field =
        Field::with(config, |_| end(Verdict::Pending, 202)).clerk_with(|_, _, _| found(Stored::Pending));
    field.pay_each(0..100, 50 * MS);
    field.wait(SECOND);
    for _ in 0..100 {
        (0..100).for_each(|id| notify(&mut field, id, CHEAP));
        field.wait(100 * MS);
    }
    let count = field.lookups.len();
    assert!((195..=206).contains(&count), "{count} look-ups in 10 s");
}

#[test]
fn what_is_not_in_doubt_or_elsewhere_is_left_alone() {
    let mut field = pending();
    field.pay(1);
    field.wait(SECOND);
    notify(&mut field, 1, DEAR);
    notify(&mut field, 2, CHEAP);
    field.wait(10 * SECOND);
    assert_eq!(field.lookups, []);

    let mut field = Field::with(slow_look_ups(), |_| refused());
    field.pay(1);
    field.wait(SECOND);
    let tries = field.tries.len();
    let mut calm = Field::with(slow_look_ups(), |_| refused());
    calm.pay(1);
    calm.wait(SECOND);
    notify(&mut field, 1, CHEAP);
    field.wait(MINUTE);
    calm.wait(MINUTE);
    assert_eq!(field.lookups, []);
    assert!(tries > 0);
    assert_eq!(field.tries.len(), calm.tries.len());
    for (it, as_ever) in field.tries.iter().zip(&calm.tries) {
        let apart_us = it.at_us.abs_diff(as_ever.at_us);
        assert!(apart_us <= 25 * MS, "an attempt came sooner or later, by more than a tick: {apart_us} µs");
    }
}

#[test]
fn whether_an_id_is_this_payments_is_not_asked_sooner() {
    let mut field = Field::with(slow_look_ups(), |it| {
        if it.at_us < SECOND + 50 * MS { end(Verdict::Duplicate, 422) } else { taken() }
    })
    .clerk_with(|_, _, _| Verification::NotFound);
    field.pay(1);
    // Right behind the first look-up's answer: the next is to come 10 ms later at the earliest.
    field.wait(2 * MS);
    notify(&mut field, 1, CHEAP);
    field.wait(SECOND);
    let pauses: Vec<u64> = field.lookups.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(pauses.len(), 3, "{pauses:?}");
    assert!(pauses[0] >= 10 * MS, "{pauses:?}");
}

#[test]
fn one_that_comes_before_the_attempts_answer_or_during_a_look_up_is_heeded_after_it() {
    let is_done = Rc::new(Cell::new(false));
    let seen = Rc::clone(&is_done);
    let mut field = Field::with(slow_look_ups(), |_| taken())
        .judge_with(|_| (end(Verdict::Pending, 202), 3 * SECOND))
        .clerk_with(move |_, _, _| found(if seen.get() { Stored::Processed } else { Stored::Pending }));
    field.pay(1);
    field.wait(SECOND);
    notify(&mut field, 1, CHEAP);
    field.wait(2 * SECOND + 150 * MS);
    assert_eq!(field.lookups.len(), 1, "once it was answered");
    field.wait(MINUTE / 2);
    let before = field.lookups.len();
    notify(&mut field, 1, CHEAP);
    assert_eq!(field.lookups.len(), before + 1);
    is_done.set(true);
    // While that look-up is on its way, which began before.
    notify(&mut field, 1, CHEAP);
    field.wait(150 * MS);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Processed]);
}

#[test]
fn words_about_nobody_are_bounded_and_forgotten() {
    let mut field = pending();
    (0..3_000).for_each(|id| notify(&mut field, id, CHEAP));
    let counters = field.dispatcher.counters();
    assert_eq!((counters.notices, counters.notices_dropped), (3_000, 3_000 - 1_024));
    assert!(field.dispatcher.tick_wait_us().is_some());
    field.wait(6 * SECOND);
    assert_eq!(field.dispatcher.tick_wait_us(), None, "time changes nothing any more");
    field.pay(1);
    notify(&mut field, 1, CHEAP);
    field.wait(SECOND);
    assert_eq!(field.lookups.len(), 1, "there is room again");
    notify(&mut field, 7, CHEAP);
    field.event(|dispatcher, now| dispatcher.handle(Purged { generation: 1 }.into(), now));
    field.wait(100 * MS);
    assert_eq!(field.dispatcher.tick_wait_us(), None, "a purge forgets them too");
}

fn at(monotonic_us: u64) -> Now {
    Now { monotonic_us, unix_ms: UnixMillis(monotonic_us / 1_000) }
}

fn coordinator() -> (Coordinator, SessionId, SessionId) {
    let mut config = gateways::coordinator_config();
    config.health_checked = ProcessorSet::EMPTY;
    (config.ledger.open_len_max, config.ledger.known_len_max) = (2_000, 2_000);
    let mut coordinator = Coordinator::new(config, at(0));
    let [first, second] = [1, 2].map(|instance| {
        let (protocol_version, role, incarnation) = (PROTOCOL_VERSION, Role::Gateway, u64::from(instance));
        let hello = Hello { protocol_version, role, instance, thread: 0, processors: 0, incarnation };
        let session = coordinator.connect(hello).unwrap();
        tell(&mut coordinator, session, Ready { held_len_max: u64::MAX });
        session
    });
    (coordinator, first, second)
}

fn tell(to: &mut Coordinator, from: SessionId, message: impl Into<Message>) -> Vec<(SessionId, Message)> {
    to.handle(from, message.into(), at(400_000)).unwrap();
    to.messages().drain(..).collect()
}

#[test]
fn the_ledger_passes_it_on_to_the_owner_and_drops_what_is_nobodys() {
    let (mut coordinator, owner, other) = coordinator();
    for (id, stage) in [(1, Stage::At0), (2, Stage::Waiting)] {
        let (slot, amount_cents, decided_at_ms, expires_at_us) = (id, 1_990, 7, u64::MAX);
        let (correlation_id, reason) = (id_of(id), Reason::Cheaper);
        let accept =
            Accept { slot, correlation_id, amount_cents, decided_at_ms, expires_at_us, stage, reason };
        tell(&mut coordinator, owner, accept);
    }
    let notice = |id: u32, processor| Notice { correlation_id: id_of(id), processor };
    let passed_on = Notified { correlation_id: id_of(1), processor: CHEAP };
    for from in [other, owner] {
        assert_eq!(tell(&mut coordinator, from, notice(1, CHEAP)), [(owner, passed_on.into())]);
    }
    for dropped in [notice(1, DEAR), notice(2, CHEAP), notice(3, CHEAP)] {
        assert_eq!(tell(&mut coordinator, other, dropped), []);
    }
    let completion = Completion {
        sequence: 1,
        correlation_id: id_of(1),
        requested_at_ms: 7,
        processor: CHEAP,
        outcome: Outcome::Processed,
        status: 0,
    };
    tell(&mut coordinator, owner, completion);
    assert_eq!(tell(&mut coordinator, other, notice(1, CHEAP)), [], "it has ended");
    let counters = coordinator.counters();
    assert_eq!((counters.notices_passed_on, counters.notices_dropped), (2, 4));
    coordinator.handle(other, passed_on.into(), at(400_000)).unwrap_err();
}
