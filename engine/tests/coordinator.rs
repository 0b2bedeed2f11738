//! The coordinator's rules, one test each, by what gateways see of them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use galo_engine::coordinator::{Coordinator, Rejection, SessionId};
use galo_engine::ledger::{Entry, Known, Tally};
use galo_engine::time::UnixMillis;
use galo_engine::{Outcome, Processor, Stage};
use galo_wire::record::{
    ANY_SLOT, Accept, Acknowledgement, Admission, Assignment, Claim, Completion, Flush, Flushed, Grant,
    HealthNews, HealthReport, HealthSource, Hello, Intent, IntentRecorded, Lease, LookupQuery, PurgeQuery,
    PurgeReply, Purged, Ready, Release, Role, SummaryQuery, Withdrawal,
};
use galo_wire::{AttemptState, History, Message, PROTOCOL_VERSION, PastDecision, Reason};
use gateways::{
    GRACE_US, INTERVAL_US, LATER, accept, at, completion, coordinator_config, hello, id, join, tell,
};

fn coordinator_with(open_len_max: usize) -> Coordinator {
    let mut config = coordinator_config();
    config.ledger.open_len_max = open_len_max;
    Coordinator::new(config, at(0))
}

fn coordinator() -> Coordinator {
    coordinator_with(100)
}

fn intent(number: u8, requested_at_ms: u64, processor: Processor) -> Intent {
    let (correlation_id, reason) = (id(number), Reason::PatienceOver);
    Intent { slot: 1, correlation_id, requested_at_ms, processor, reason, waited_for_ms: 4 }
}

fn open(coordinator: &Coordinator, number: u8) -> (Stage, bool, Option<SessionId>) {
    match coordinator.ledger().lookup(id(number)) {
        Known::Open(payment) => (payment.stage, payment.in_doubt, payment.owner),
        other => panic!("payment {number} should be open, is {other:?}"),
    }
}

#[test]
fn one_id_is_granted_once_whichever_gateway_brings_it() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    assert_eq!(accept(&mut coordinator, one, 1, 1990, Stage::At0), Admission::Granted);
    assert_eq!(accept(&mut coordinator, two, 1, 1990, Stage::At1), Admission::Replayed);
    assert_eq!(accept(&mut coordinator, two, 1, 1991, Stage::At1), Admission::Conflict);
    assert_eq!(open(&coordinator, 1), (Stage::At0, false, Some(one)), "the second copy changed nothing");
    tell(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Processed));
    assert_eq!(accept(&mut coordinator, two, 1, 1990, Stage::At0), Admission::Replayed);
    assert_eq!(accept(&mut coordinator, two, 1, 1, Stage::At0), Admission::Conflict);
    let books = coordinator.ledger().conservation();
    assert_eq!(books.accepted, Tally { count: 1, amount_cents: 1990 });
}

#[test]
fn beyond_the_bound_an_accept_is_refused_and_nothing_is_kept() {
    let mut coordinator = coordinator_with(1);
    let one = join(&mut coordinator, 1);
    assert_eq!(accept(&mut coordinator, one, 1, 5, Stage::Waiting), Admission::Granted);
    assert_eq!(accept(&mut coordinator, one, 2, 5, Stage::Waiting), Admission::Full);
    assert_eq!(coordinator.ledger().lookup(id(2)), Known::Absent);
    assert_eq!(
        accept(&mut coordinator, one, 1, 5, Stage::Waiting),
        Admission::Replayed,
        "a known id needs no room"
    );
}

#[test]
fn an_accept_whose_client_was_refused_meanwhile_is_not_granted() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    let late = Accept {
        slot: 1,
        correlation_id: id(1),
        amount_cents: 5,
        decided_at_ms: 6,
        expires_at_us: LATER - 1,
        stage: Stage::Waiting,
        reason: Reason::AwaitsAny,
    };
    let grant = Grant { slot: 1, correlation_id: id(1), admission: Admission::Expired };
    assert_eq!(tell(&mut coordinator, one, late), [(one, grant.into())]);
    assert_eq!(coordinator.ledger().lookup(id(1)), Known::Absent);
    assert_eq!(
        accept(&mut coordinator, one, 1, 5, Stage::Waiting),
        Admission::Granted,
        "the client may try again"
    );
}

#[test]
fn the_oldest_processed_ids_are_forgotten_and_their_payments_still_counted() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    for number in 1..=5 {
        accept(&mut coordinator, one, number, 100, Stage::At0);
        tell(&mut coordinator, one, completion(number, Processor::DEFAULT, Outcome::Processed));
    }
    assert_eq!(coordinator.ledger().known_len(), 4);
    assert_eq!(coordinator.ledger().lookup(id(1)), Known::Absent);
    let summary = coordinator.ledger().summarize(UnixMillis(0), UnixMillis(u64::MAX));
    assert_eq!(summary.totals[0], Tally { count: 5, amount_cents: 500 });
}

#[test]
fn each_change_is_an_entry_and_the_entries_rebuild_the_ledger() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    accept(&mut coordinator, one, 1, 100, Stage::At0);
    accept(&mut coordinator, one, 2, 200, Stage::At0);
    accept(&mut coordinator, one, 3, 300, Stage::Waiting);
    tell(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Processed));
    tell(&mut coordinator, one, completion(2, Processor::DEFAULT, Outcome::Unknown));
    tell(&mut coordinator, one, Intent { slot: 3, ..intent(3, 9, Processor::FALLBACK) });
    let entries: Vec<Entry> = coordinator.entries().clone();
    assert_eq!(entries.len(), 6);
    let mut rebuilt = self::coordinator();
    entries.into_iter().for_each(|entry| rebuilt.restore(entry));
    assert_eq!(rebuilt.ledger().conservation(), coordinator.ledger().conservation());
    for number in 1..=3 {
        let without_owner = |known| match known {
            Known::Open(payment) => Known::Open(galo_engine::ledger::OpenPayment { owner: None, ..payment }),
            other => other,
        };
        let expected = without_owner(coordinator.ledger().lookup(id(number)));
        assert_eq!(rebuilt.ledger().lookup(id(number)), expected);
    }
}

#[test]
fn what_a_dead_gateway_held_goes_to_the_living_one_in_doubt_where_it_was_recorded() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    accept(&mut coordinator, one, 1, 100, Stage::At0);
    accept(&mut coordinator, one, 2, 200, Stage::Waiting);
    accept(&mut coordinator, two, 3, 300, Stage::At0);
    coordinator.disconnect(one, at(LATER));
    let mut assigned: Vec<_> = coordinator.messages().drain(..).collect();
    assigned.sort_by_key(|(_, message)| match message {
        Message::Assignment(assignment) => assignment.amount_cents,
        other => panic!("expected assignments, got {other:?}"),
    });
    let assignment = |number, amount_cents, requested_at_ms, stage, in_doubt| {
        (
            two,
            Assignment { correlation_id: id(number), amount_cents, requested_at_ms, stage, in_doubt }.into(),
        )
    };
    assert_eq!(
        assigned,
        [assignment(1, 100, 7, Stage::At0, true), assignment(2, 200, 0, Stage::Waiting, false)]
    );
    assert_eq!(open(&coordinator, 1), (Stage::At0, true, Some(two)));
    assert_eq!(coordinator.ledger().conservation().in_doubt_count, 1);
}

/// Two gateways' clocks: the second one must not try at the very moment at which the first one was refused, since the first one's
/// word for that refusal may come again.
#[test]
fn who_takes_over_a_refused_payment_is_told_when_it_was_tried() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    accept(&mut coordinator, one, 1, 100, Stage::At0);
    tell(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Refused));
    coordinator.disconnect(one, at(LATER));
    let assignment = Assignment {
        correlation_id: id(1),
        amount_cents: 100,
        requested_at_ms: 7,
        stage: Stage::Waiting,
        in_doubt: false,
    };
    assert_eq!(coordinator.messages().drain(..).collect::<Vec<_>>(), [(two, assignment.into())]);
    tell(&mut coordinator, two, intent(1, 8, Processor::DEFAULT));
    coordinator.disconnect(two, at(LATER));
    let one = coordinator.connect(hello(1)).unwrap();
    coordinator.messages().clear();
    // It claims what it knows, which is not the newest: in doubt with the processor that the second one meant.
    let assigned = Assignment { requested_at_ms: 8, stage: Stage::At0, in_doubt: true, ..assignment };
    let withdrawal = Withdrawal { slot: 2, correlation_id: id(1) };
    assert_eq!(
        tell(&mut coordinator, one, claim(1, Stage::Waiting, 7, false)),
        [(one, withdrawal.into()), (one, assigned.into())]
    );
}

#[test]
fn without_a_living_gateway_payments_wait_for_the_next_one() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    accept(&mut coordinator, one, 1, 100, Stage::Waiting);
    coordinator.disconnect(one, at(LATER));
    assert_eq!(open(&coordinator, 1), (Stage::Waiting, false, None));
    let two = coordinator.connect(hello(2)).unwrap();
    coordinator.messages().clear();
    coordinator.tick(at(LATER));
    assert!(coordinator.messages().is_empty(), "not before its claims are in");
    let sent = tell(&mut coordinator, two, Ready { held_len_max: u64::MAX });
    let heard = (two, Acknowledgement { sequence: 0 }.into());
    assert!(matches!(sent[..], [first, (to, Message::Assignment(_))] if first == heard && to == two));
}

#[test]
fn a_payment_in_doubt_may_not_go_elsewhere_and_one_that_was_refused_may() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    let intent = |processor| intent(1, 8, processor);
    let recorded = (one, Message::from(IntentRecorded { slot: 1, correlation_id: id(1) }));
    let withdrawn = (one, Message::from(Withdrawal { slot: 1, correlation_id: id(1) }));
    accept(&mut coordinator, one, 1, 100, Stage::At0);
    tell(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Refused));
    assert_eq!(open(&coordinator, 1), (Stage::Waiting, false, Some(one)));
    assert_eq!(tell(&mut coordinator, one, intent(Processor::FALLBACK)), [recorded]);
    let unknown = Completion { requested_at_ms: 8, ..completion(1, Processor::FALLBACK, Outcome::Unknown) };
    tell(&mut coordinator, one, unknown);
    assert_eq!(open(&coordinator, 1), (Stage::At1, true, Some(one)));
    // A gateway that does not know hears what the ledger knows. Not even the same processor may be told another time.
    let assigned = Assignment {
        correlation_id: id(1),
        amount_cents: 100,
        requested_at_ms: 8,
        stage: Stage::At1,
        in_doubt: true,
    };
    for intent in [intent(Processor::DEFAULT), Intent { requested_at_ms: 9, ..intent(Processor::FALLBACK) }] {
        assert_eq!(tell(&mut coordinator, one, intent), [withdrawn, (one, assigned.into())]);
    }
    let refused = Completion { requested_at_ms: 8, ..completion(1, Processor::FALLBACK, Outcome::Refused) };
    tell(&mut coordinator, one, refused);
    assert_eq!(open(&coordinator, 1), (Stage::At1, true, Some(one)), "a later refusal settles nothing");
}

#[test]
fn only_the_owner_moves_a_payment_and_everyone_may_say_that_it_is_processed() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    accept(&mut coordinator, one, 1, 100, Stage::At0);
    let intent = Intent { slot: 4, ..intent(1, 8, Processor::FALLBACK) };
    let sent = tell(&mut coordinator, two, intent);
    assert_eq!(sent, [(two, Withdrawal { slot: 4, correlation_id: id(1) }.into())]);
    tell(&mut coordinator, two, completion(1, Processor::DEFAULT, Outcome::Refused));
    assert_eq!(open(&coordinator, 1), (Stage::At0, false, Some(one)));
    tell(&mut coordinator, two, completion(1, Processor::DEFAULT, Outcome::Processed));
    assert!(matches!(coordinator.ledger().lookup(id(1)), Known::Processed { .. }));
    tell(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Processed));
    assert_eq!(coordinator.ledger().conservation().processed[0].count, 1, "said twice, counted once");
    assert_eq!(coordinator.counters().stale_completions, 2);
}

#[test]
fn a_batch_of_completions_is_acknowledged_by_its_last() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    for sequence in 1..=3 {
        let unknown_id = Completion { sequence, ..completion(9, Processor::DEFAULT, Outcome::Processed) };
        coordinator.handle(one, unknown_id.into(), at(LATER)).unwrap();
    }
    assert_eq!(coordinator.messages()[..], [(one, Acknowledgement { sequence: 3 }.into())]);
}

fn claim(number: u8, stage: Stage, requested_at_ms: u64, in_doubt: bool) -> Claim {
    Claim { slot: 2, correlation_id: id(number), amount_cents: 100, requested_at_ms, stage, in_doubt }
}

#[test]
fn claims_are_settled_as_the_table_says() {
    let mut coordinator = coordinator();
    let accepted = |number, stage, decided_at_ms| Entry::Accepted {
        correlation_id: id(number),
        amount_cents: 100,
        stage,
        decided_at_ms,
        in_doubt: false,
        reason: Reason::Cheaper,
    };
    // A restart: payments 1 to 4 come out of the journal, nobody works on them.
    coordinator.restore(accepted(1, Stage::Waiting, 0));
    coordinator.restore(accepted(2, Stage::At0, 7));
    coordinator.restore(accepted(3, Stage::At0, 7));
    coordinator.restore(accepted(4, Stage::At0, 9));
    let refused = Entry::Resolved {
        correlation_id: id(4),
        processor: Processor::DEFAULT,
        requested_at_ms: 9,
        outcome: Outcome::Refused,
        status: 0,
    };
    coordinator.restore(refused);
    let one = coordinator.connect(hello(1)).unwrap();
    let two = coordinator.connect(hello(2)).unwrap();
    coordinator.messages().clear();
    let withdrawn = |number| Message::from(Withdrawal { slot: 2, correlation_id: id(number) });
    // Not known (memory lost): as the gateway says.
    assert_eq!(tell(&mut coordinator, one, claim(9, Stage::At1, 5, true)), []);
    assert_eq!(open(&coordinator, 9), (Stage::At1, true, Some(one)));
    // With nobody, at the same stage: its own.
    assert_eq!(tell(&mut coordinator, one, claim(1, Stage::Waiting, 0, false)), []);
    assert_eq!(tell(&mut coordinator, one, claim(2, Stage::At0, 7, true)), []);
    assert_eq!(open(&coordinator, 2), (Stage::At0, true, Some(one)));
    // With nobody, at another stage: the ledger is right.
    let assignment = Assignment {
        correlation_id: id(3),
        amount_cents: 100,
        requested_at_ms: 7,
        stage: Stage::At0,
        in_doubt: true,
    };
    let sent = tell(&mut coordinator, one, claim(3, Stage::Waiting, 0, false));
    assert_eq!(sent, [(one, withdrawn(3)), (one, assignment.into())]);
    // With nobody, waiting, but the ledger knows of a later attempt, which was refused: the next one must be later still.
    let assignment = Assignment {
        correlation_id: id(4),
        requested_at_ms: 9,
        stage: Stage::Waiting,
        in_doubt: false,
        ..assignment
    };
    let sent = tell(&mut coordinator, one, claim(4, Stage::Waiting, 7, false));
    assert_eq!(sent, [(one, withdrawn(4)), (one, assignment.into())]);
    // With somebody.
    assert_eq!(tell(&mut coordinator, two, claim(1, Stage::Waiting, 0, false)), [(two, withdrawn(1))]);
    // Processed.
    tell(&mut coordinator, one, completion(2, Processor::DEFAULT, Outcome::Processed));
    assert_eq!(tell(&mut coordinator, two, claim(2, Stage::At0, 7, true)), [(two, withdrawn(2))]);
}

#[test]
fn claims_of_unknown_payments_have_the_bound_of_accepts() {
    let mut coordinator = coordinator_with(4);
    let one = join(&mut coordinator, 1);
    for number in 1..=4 {
        assert_eq!(tell(&mut coordinator, one, claim(number, Stage::Waiting, 0, false)), []);
    }
    let one_more = claim(5, Stage::Waiting, 0, false);
    assert_eq!(coordinator.handle(one, one_more.into(), at(LATER)), Err(Rejection::TooManyClaims));
    assert_eq!(coordinator.ledger().conservation().open.count, 4);
    // What is known is claimed as ever.
    assert_eq!(tell(&mut coordinator, one, claim(4, Stage::Waiting, 0, false)), []);
}

#[test]
fn a_session_that_names_anothers_payment_is_known_for_it() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    tell(&mut coordinator, one, claim(1, Stage::Waiting, 0, false));
    tell(&mut coordinator, two, claim(1, Stage::Waiting, 0, false));
    assert_eq!([one, two].map(|session| coordinator.session_strayed(session)), [0, 1]);
    coordinator.disconnect(two, at(LATER));
    let again = join(&mut coordinator, 2);
    assert_eq!(coordinator.session_strayed(again), 0, "another connection");
}

#[test]
fn after_a_start_nothing_is_handed_over_before_the_grace_is_over() {
    let mut coordinator = coordinator();
    coordinator.restore(Entry::Accepted {
        correlation_id: id(1),
        amount_cents: 100,
        stage: Stage::At0,
        decided_at_ms: 7,
        in_doubt: false,
        reason: Reason::Cheaper,
    });
    let one = coordinator.connect(hello(1)).unwrap();
    coordinator.handle(one, Ready { held_len_max: u64::MAX }.into(), at(GRACE_US - 1)).unwrap();
    coordinator.messages().clear();
    coordinator.tick(at(GRACE_US - 1));
    assert_eq!(coordinator.messages()[..], []);
    coordinator.tick(at(GRACE_US));
    assert!(matches!(
        coordinator.messages()[..],
        [(_, Message::Assignment(Assignment { in_doubt: true, .. }))]
    ));
}

#[test]
fn what_a_stopping_gateway_releases_goes_to_another_and_not_back() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    accept(&mut coordinator, one, 1, 100, Stage::Waiting);
    tell(&mut coordinator, two, Release { correlation_id: id(1) });
    assert_eq!(open(&coordinator, 1).2, Some(one), "only its owner releases it");
    tell(&mut coordinator, one, Release { correlation_id: id(1) });
    coordinator.tick(at(LATER));
    assert_eq!(open(&coordinator, 1).2, Some(two));
}

#[test]
fn each_processors_health_is_asked_for_by_one_gateway_an_interval() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    let mut leases = Vec::new();
    for step in 0..400 {
        let now_us = step * 50_000;
        coordinator.tick(at(now_us));
        for (to, message) in coordinator.messages().drain(..) {
            let Message::Lease(Lease { processor }) = message else { panic!("expected leases only") };
            leases.push((now_us, to, processor));
        }
    }
    for processor in Processor::PAIR {
        let times: Vec<u64> =
            leases.iter().filter(|lease| lease.2 == processor).map(|lease| lease.0).collect();
        assert_eq!(times.len(), 3, "in twenty seconds, none in the first five");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= INTERVAL_US), "{times:?}");
    }
    assert!(leases.iter().any(|lease| lease.1 == one) && leases.iter().any(|lease| lease.1 == two));
    let report = HealthReport {
        processor: Processor::DEFAULT,
        source: HealthSource::Check,
        failing: true,
        response_ms: 20,
        retry_after_ms: 0,
    };
    let news = HealthNews {
        processor: Processor::DEFAULT,
        source: HealthSource::Check,
        failing: true,
        response_ms: 20,
        retry_after_ms: 0,
    };
    assert_eq!(tell(&mut coordinator, one, report), [(two, news.into())], "to all others, not back");
}

#[test]
fn a_purge_empties_the_books_and_tells_everyone() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    accept(&mut coordinator, one, 1, 100, Stage::At0);
    accept(&mut coordinator, two, 2, 100, Stage::At0);
    tell(&mut coordinator, two, completion(2, Processor::DEFAULT, Outcome::Processed));
    let sent = tell(&mut coordinator, one, PurgeQuery { slot: 6 });
    let purged = Message::from(Purged { generation: 1 });
    assert_eq!(sent, [(one, purged), (two, purged), (one, PurgeReply { slot: 6 }.into())]);
    assert_eq!(coordinator.ledger().conservation(), galo_engine::ledger::Conservation::default());
    tell(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Processed));
    let all = SummaryQuery { slot: 1, from_ms: 0, to_ms: u64::MAX };
    let sent = tell(&mut coordinator, one, all);
    assert_eq!(sent, [(two, Flush { number: 1 }.into())]);
    let sent = tell(&mut coordinator, two, Flushed { number: 1 });
    assert!(
        matches!(sent[..], [(_, Message::SummaryReply(reply))] if reply.total_count == 0),
        "what was on its way belongs to what was purged: {sent:?}"
    );
    let sent = tell(&mut coordinator, one, LookupQuery { slot: 1, correlation_id: id(1) });
    assert!(matches!(sent[..], [(_, Message::LookupReply(reply))] if reply.amount_cents == 0));
}

/// What lay in a socket that its gateway has given up: a client was refused over the new one, and is not charged after all.
#[test]
fn a_connection_is_dead_once_its_gateway_has_another() {
    let mut coordinator = coordinator_with(1);
    let (former, other) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    assert_eq!(accept(&mut coordinator, former, 1, 100, Stage::At0), Admission::Granted);
    let new = coordinator.connect(hello(1)).unwrap();
    coordinator.messages().clear();
    assert_eq!(open(&coordinator, 1), (Stage::At0, true, None), "nobody's until it is claimed");
    assert_eq!(accept(&mut coordinator, new, 2, 100, Stage::Waiting), Admission::Full);
    tell(&mut coordinator, other, completion(1, Processor::DEFAULT, Outcome::Processed));
    let late = Accept {
        slot: 2,
        correlation_id: id(2),
        amount_cents: 100,
        decided_at_ms: 0,
        expires_at_us: LATER,
        stage: Stage::Waiting,
        reason: Reason::AwaitsAny,
    };
    assert_eq!(coordinator.handle(former, late.into(), at(LATER)), Err(Rejection::Superseded));
    assert_eq!(coordinator.ledger().lookup(id(2)), Known::Absent);
    coordinator.disconnect(former, at(LATER));
    assert_eq!(coordinator.session_count(), 2);
    // A process that was started anew is another one: the end of its forerunner's connection says when that is over.
    let next = coordinator.connect(Hello { incarnation: 9, ..hello(1) }).unwrap();
    assert_ne!(next, new);
    assert!(
        coordinator.shares_number(next)
            && coordinator.shares_number(new)
            && !coordinator.shares_number(other)
    );
    coordinator.messages().clear();
    assert_eq!(accept(&mut coordinator, new, 3, 100, Stage::Waiting), Admission::Granted);
}

/// The one that has it asks a processor that has another amount, say, and would never learn that it has ended.
#[test]
fn whoever_has_a_payment_is_told_that_another_has_ended_it() {
    let mut coordinator = coordinator();
    let (former, owner) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    assert_eq!(accept(&mut coordinator, former, 1, 100, Stage::At0), Admission::Granted);
    coordinator.disconnect(former, at(LATER));
    coordinator.tick(at(LATER));
    assert_eq!(open(&coordinator, 1), (Stage::At0, true, Some(owner)));
    let back = join(&mut coordinator, 1);
    coordinator.messages().clear();
    coordinator
        .handle(back, completion(1, Processor::DEFAULT, Outcome::Processed).into(), at(LATER))
        .unwrap();
    let withdrawal: Message = Withdrawal { slot: ANY_SLOT, correlation_id: id(1) }.into();
    assert!(coordinator.messages().contains(&(owner, withdrawal)), "{:?}", coordinator.messages());
}

#[test]
fn strangers_are_turned_away() {
    let mut coordinator = coordinator();
    let old = Hello { protocol_version: PROTOCOL_VERSION + 1, ..hello(1) };
    assert_eq!(coordinator.connect(old), Err(Rejection::Version { theirs: PROTOCOL_VERSION + 1 }));
    let double = Hello { role: Role::Aggregator, ..hello(1) };
    assert_eq!(coordinator.connect(double), Err(Rejection::Role(Role::Aggregator)));
    let one = join(&mut coordinator, 1);
    let nothing = Accept {
        slot: 1,
        correlation_id: id(1),
        amount_cents: 0,
        decided_at_ms: 6,
        expires_at_us: u64::MAX,
        stage: Stage::Waiting,
        reason: Reason::AwaitsAny,
    };
    assert!(coordinator.handle(one, nothing.into(), at(LATER)).is_err(), "no gateway accepts nothing");
    let grant = Grant { slot: 1, correlation_id: id(1), admission: Admission::Granted };
    assert!(coordinator.handle(one, grant.into(), at(LATER)).is_err(), "no gateway grants");
}

#[test]
fn a_claim_does_not_bring_back_what_was_purged() {
    let mut before = coordinator();
    let one = join(&mut before, 1);
    tell(&mut before, one, PurgeQuery { slot: 6 });
    let mut after = coordinator();
    after.restore(Entry::Purged);
    for mut coordinator in [before, after] {
        let two = coordinator.connect(hello(2)).unwrap();
        coordinator.messages().clear();
        let sent = tell(&mut coordinator, two, claim(1, Stage::At0, 7, true));
        assert!(matches!(sent[..], [(to, Message::Withdrawal(_))] if to == two), "{sent:?}");
        assert_eq!(coordinator.ledger().conservation().accepted.count, 0);
    }
}

#[test]
fn a_claim_does_not_bring_back_what_was_forgotten() {
    let mut coordinator = coordinator();
    // Five are processed, of which four are remembered.
    for number in 1..=5 {
        for entry in [
            Entry::Accepted {
                correlation_id: id(number),
                amount_cents: 10,
                stage: Stage::At0,
                decided_at_ms: 7,
                in_doubt: false,
                reason: Reason::Cheaper,
            },
            Entry::Resolved {
                correlation_id: id(number),
                processor: Processor::DEFAULT,
                requested_at_ms: 7,
                outcome: Outcome::Processed,
                status: 0,
            },
        ] {
            coordinator.restore(entry);
        }
    }
    let two = join(&mut coordinator, 2);
    coordinator.messages().clear();
    let sent = tell(&mut coordinator, two, claim(1, Stage::At0, 7, true));
    assert!(matches!(sent[..], [(to, Message::Withdrawal(_))] if to == two), "{sent:?}");
    assert_eq!(coordinator.ledger().conservation().accepted.count, 5);
}

#[test]
fn a_lookup_tells_what_was_decided_by_whichever_gateway() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    accept(&mut coordinator, one, 1, 100, Stage::Waiting);
    tell(&mut coordinator, one, intent(1, 8, Processor::FALLBACK));
    coordinator.disconnect(one, at(LATER));
    coordinator.messages().clear();
    let lookup = |coordinator: &mut Coordinator| {
        let query = LookupQuery { slot: 5, correlation_id: id(1) };
        let mut gathering = History::EMPTY;
        for (_, message) in tell(coordinator, two, query) {
            match message {
                Message::PastDecision(decision) => gathering.push(decision),
                Message::LookupReply(reply) => return gathering.complete(&reply),
                other => panic!("expected a history, got {other:?}"),
            }
        }
        panic!("expected a reply")
    };
    let waited = PastDecision { at_ms: 7, reason: Reason::AwaitsAny, ..PastDecision::NONE };
    let doubtful = PastDecision {
        at_ms: 8,
        waited_for_ms: 4,
        stage: Stage::At1,
        reason: Reason::PatienceOver,
        attempt: AttemptState::InDoubt,
        was_in_doubt: true,
    };
    let history = lookup(&mut coordinator);
    assert_eq!((history.decisions(), history.forgotten), (&[waited, doubtful][..], false));
    // The other gateway has sent the very attempt again, which is no other decision.
    let processed =
        Completion { requested_at_ms: 8, ..completion(1, Processor::FALLBACK, Outcome::Processed) };
    tell(&mut coordinator, two, processed);
    let history = lookup(&mut coordinator);
    let settled = PastDecision { attempt: AttemptState::Processed, ..doubtful };
    assert_eq!((history.decisions(), history.forgotten), (&[waited, settled][..], false));
    tell(&mut coordinator, two, PurgeQuery { slot: 6 });
    assert_eq!(lookup(&mut coordinator), History::EMPTY, "nothing is known of it");
}

/// A claim for a payment that the ledger lost tells where it is, not why.
#[test]
fn a_claim_states_no_reason() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    tell(&mut coordinator, one, claim(9, Stage::At1, 5, false));
    let history = coordinator.ledger().history(id(9));
    let [decision] = history.decisions() else { panic!("{history:?}") };
    assert_eq!((decision.stage, decision.reason), (Stage::At1, Reason::Unstated));
    assert!(history.forgotten);
    tell(&mut coordinator, one, claim(8, Stage::Waiting, 0, false));
    assert_eq!(coordinator.ledger().history(id(8)), History::FORGOTTEN);
}
