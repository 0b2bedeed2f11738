//! Payments that people end, by what gateways see of it: cancellations and settlements.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use galo_engine::coordinator::{
    Coordinator, CoordinatorConfig, REASON_SIZE_MAX, SessionId, Settled, Settlement, Verdict,
};
use galo_engine::ledger::listing::{ListedAt, Listing, Which};
use galo_engine::ledger::{Entry, Known, LedgerConfig};
use galo_engine::router::ProcessorSet;
use galo_engine::time::{Now, UnixMillis};
use galo_engine::{
    AttemptState, CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, STATUS_CANCELLED, STATUS_SETTLED,
    Stage,
};
use galo_wire::record::{
    ANY_SLOT, Accept, CancelQuery, Completion, Hello, Intent, LookupReply, PurgeQuery, Ready, Release, Role,
    Standing, Withdrawal, Yield, Yielded,
};
use galo_wire::{Message, PROTOCOL_VERSION, Reason};

const GRACE_US: u64 = 300_000;
const LATER: u64 = GRACE_US + 1;
const STORED_MS: u64 = 7;

fn id(number: u8) -> CorrelationId {
    CorrelationId([number; 16])
}

fn at(monotonic_us: u64) -> Now {
    Now { monotonic_us, unix_ms: UnixMillis(monotonic_us / 1_000) }
}

fn coordinator() -> Coordinator {
    let config = CoordinatorConfig {
        processors_fingerprint: 0,
        health_checked: ProcessorSet::EMPTY,
        ledger: LedgerConfig {
            open_len_max: 2_000,
            known_len_max: 2_000,
            bucket_bytes_max: 1 << 20,
            members_bytes_max: 1 << 20,
            processors: ProcessorSet::PAIR,
            hash_seed: 1,
        },
        health_interval_us: [5_000_000; PROCESSORS_LEN_MAX],
        claim_grace_us: GRACE_US,
        incarnation: 1,
    };
    Coordinator::new(config, at(0))
}

fn connect(coordinator: &mut Coordinator, instance: u8) -> SessionId {
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        role: Role::Gateway,
        instance,
        thread: 0,
        processors: 0,
        incarnation: u64::from(instance),
    };
    let session = coordinator.connect(hello).unwrap();
    tell(coordinator, session, Ready { claim_count: 0 });
    session
}

fn tell(
    coordinator: &mut Coordinator,
    from: SessionId,
    message: impl Into<Message>,
) -> Vec<(SessionId, Message)> {
    coordinator.handle(from, message.into(), at(LATER)).unwrap();
    coordinator.messages().drain(..).collect()
}

fn accept(coordinator: &mut Coordinator, from: SessionId, number: u8, stage: Stage) {
    let reason = if stage == Stage::Waiting { Reason::AwaitsAny } else { Reason::Cheaper };
    tell(
        coordinator,
        from,
        Accept {
            slot: 1,
            correlation_id: id(number),
            amount_cents: 1_990,
            decided_at_ms: STORED_MS,
            expires_at_us: LATER,
            stage,
            reason,
        },
    );
}

fn completion(number: u8, processor: Processor, outcome: Outcome) -> Completion {
    let (correlation_id, requested_at_ms) = (id(number), STORED_MS);
    Completion { sequence: 1, correlation_id, requested_at_ms, processor, outcome, status: 0 }
}

fn intent(number: u8) -> Intent {
    Intent {
        slot: 4,
        correlation_id: id(number),
        requested_at_ms: 9,
        processor: Processor::DEFAULT,
        reason: Reason::Cheaper,
        waited_for_ms: 0,
    }
}

/// Cancels; returns how the payment stands by then, and what is said beside.
fn cancel(coordinator: &mut Coordinator, from: SessionId, number: u8) -> (LookupReply, Vec<Message>) {
    let mut messages: Vec<_> = tell(coordinator, from, CancelQuery { slot: 8, correlation_id: id(number) });
    let Some((to, Message::LookupReply(reply))) = messages.pop() else { panic!("no answer: {messages:?}") };
    assert_eq!((to, reply.slot, reply.correlation_id), (from, 8, id(number)));
    let beside = messages.into_iter().map(|(_, message)| message);
    (reply, beside.filter(|message| !matches!(message, Message::PastDecision(_))).collect())
}

/// A payment of `owner`'s that is in doubt at default.
fn in_doubt(coordinator: &mut Coordinator, owner: SessionId, number: u8) {
    accept(coordinator, owner, number, Stage::At0);
    tell(coordinator, owner, completion(number, Processor::DEFAULT, Outcome::Unknown));
}

fn declined(number: u8) -> Settlement {
    Settlement::new(id(number), Verdict::Declined, "their statement does not have it".to_owned()).unwrap()
}

fn processed(number: u8, processor: Processor) -> Settlement {
    let verdict = Verdict::Processed { processor, requested_at_ms: STORED_MS };
    Settlement::new(id(number), verdict, "their statement has it".to_owned()).unwrap()
}

/// Begins a settlement: its number, and who is asked.
fn settle(coordinator: &mut Coordinator, settlement: Settlement) -> (u32, Vec<SessionId>) {
    let number = coordinator.settle(settlement, at(LATER));
    let asked = coordinator.messages().drain(..).map(|(to, message)| match message {
        Message::Yield(Yield { number: asked, .. }) if asked == number => to,
        other => panic!("expected a question, got {other:?}"),
    });
    let asked = asked.collect();
    (number, asked)
}

fn settled(coordinator: &mut Coordinator) -> Vec<(u32, Settled)> {
    coordinator.settlements().drain(..).collect()
}

fn yielded(number: u32, payment: u8, idle: bool) -> Yielded {
    Yielded { number, correlation_id: id(payment), idle }
}

fn assigned(messages: &[(SessionId, Message)]) -> Vec<(SessionId, CorrelationId)> {
    messages
        .iter()
        .filter_map(|(to, message)| match message {
            Message::Assignment(assignment) => Some((*to, assignment.correlation_id)),
            _ => None,
        })
        .collect()
}

#[test]
fn what_waits_is_cancelled_and_never_sent_afterwards() {
    let mut coordinator = coordinator();
    let (one, two) = (connect(&mut coordinator, 1), connect(&mut coordinator, 2));
    accept(&mut coordinator, one, 1, Stage::Waiting);
    let (reply, beside) = cancel(&mut coordinator, two, 1);
    assert_eq!((reply.standing, reply.status), (Standing::Declined, STATUS_CANCELLED));
    assert_eq!(reply.requested_at_ms, LATER / 1_000, "when it ended");
    assert_eq!(beside, [Withdrawal { slot: ANY_SLOT, correlation_id: id(1) }.into()], "its owner is told");
    // The owner's intent was on its way.
    let withdrawal = Withdrawal { slot: 4, correlation_id: id(1) };
    assert_eq!(tell(&mut coordinator, one, intent(1)), [(one, withdrawal.into())]);
    assert_eq!(coordinator.session_strayed(one), 0, "which is no mistake");
    // Once more is the same, and so is the same POST again.
    let entries = coordinator.entries().len();
    let (again, beside) = cancel(&mut coordinator, one, 1);
    assert_eq!((again.standing, again.requested_at_ms), (Standing::Declined, reply.requested_at_ms));
    assert_eq!((beside.len(), coordinator.entries().len()), (0, entries));
    accept(&mut coordinator, one, 1, Stage::At0);
    let books = coordinator.ledger().conservation();
    assert_eq!((books.accepted.count, books.declined.count, books.open.count), (1, 1, 0));
    assert_eq!(coordinator.counters().cancelled, 1);
}

#[test]
fn what_a_processor_may_have_is_not_cancelled() {
    let mut coordinator = coordinator();
    let one = connect(&mut coordinator, 1);
    accept(&mut coordinator, one, 1, Stage::Waiting);
    tell(&mut coordinator, one, intent(1));
    in_doubt(&mut coordinator, one, 2);
    accept(&mut coordinator, one, 3, Stage::At0);
    tell(&mut coordinator, one, completion(3, Processor::DEFAULT, Outcome::Processed));
    let entries = coordinator.entries().len();
    let standings = [1, 2, 3, 4].map(|number| {
        let (reply, beside) = cancel(&mut coordinator, one, number);
        assert_eq!(beside, []);
        (reply.standing, reply.in_doubt)
    });
    let expected = [
        (Standing::Open, false),
        (Standing::Open, true),
        (Standing::Processed, false),
        (Standing::Absent, false),
    ];
    assert_eq!(standings, expected);
    assert_eq!(coordinator.entries().len(), entries, "nothing is changed");
    // Its intent was refused by the processor, and it waits again.
    let refused = Completion { requested_at_ms: 9, ..completion(1, Processor::DEFAULT, Outcome::Refused) };
    tell(&mut coordinator, one, refused);
    assert_eq!(cancel(&mut coordinator, one, 1).0.standing, Standing::Declined);
    let history = coordinator.ledger().history(id(1));
    assert_eq!(history.decisions().last().unwrap().attempt, AttemptState::Refused, "by whom it was refused");
}

#[test]
fn a_payment_of_nobody_is_cancelled_too_and_a_processors_yes_afterwards_is_a_contradiction() {
    let mut coordinator = coordinator();
    let one = connect(&mut coordinator, 1);
    accept(&mut coordinator, one, 1, Stage::Waiting);
    tell(&mut coordinator, one, Release { correlation_id: id(1) });
    let (reply, beside) = cancel(&mut coordinator, one, 1);
    assert_eq!((reply.standing, beside), (Standing::Declined, vec![]));
    tell(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Processed));
    assert_eq!(coordinator.counters().contradictions, 1);
}

#[test]
fn what_is_in_doubt_is_settled_once_every_gateway_says_that_it_is_idle() {
    let mut coordinator = coordinator();
    let (one, two) = (connect(&mut coordinator, 1), connect(&mut coordinator, 2));
    in_doubt(&mut coordinator, one, 1);
    let (number, asked) = settle(&mut coordinator, declined(1));
    assert_eq!(asked, [one, two], "one that had it before may have an attempt on its way");
    tell(&mut coordinator, one, yielded(number, 1, true));
    assert_eq!(settled(&mut coordinator), []);
    coordinator.entries().clear();
    assert_eq!(tell(&mut coordinator, two, yielded(number, 1, true)), []);
    assert_eq!(settled(&mut coordinator), [(number, Settled::Done)]);
    let [
        Entry::Resolved { outcome: Outcome::Declined, status: STATUS_SETTLED, .. },
        Entry::Note { part: 0, text },
    ] = coordinator.entries()[..]
    else {
        panic!("{:?}", coordinator.entries())
    };
    assert_eq!(&text, b"their statement does not have it");
    let books = coordinator.ledger().conservation();
    assert_eq!((books.declined.count, books.open.count, books.in_doubt_count), (1, 0, 0));
    assert!(matches!(
        coordinator.ledger().lookup(id(1)),
        Known::Declined { status: STATUS_SETTLED, processor: Processor::DEFAULT, .. }
    ));
    // Once more is the same; otherwise is refused.
    assert_eq!(settle(&mut coordinator, declined(1)).1, []);
    assert_eq!(settle(&mut coordinator, processed(1, Processor::DEFAULT)).1, []);
    let answers: Vec<_> = settled(&mut coordinator).into_iter().map(|(_, settled)| settled).collect();
    assert_eq!(answers, [Settled::Already, Settled::Otherwise]);
    // Evidence to the contrary.
    tell(&mut coordinator, two, completion(1, Processor::DEFAULT, Outcome::Processed));
    assert_eq!(coordinator.counters().contradictions, 1);
    assert_eq!(coordinator.counters().settled, 1);
}

#[test]
fn a_settlement_as_processed_is_booked_and_another_processors_yes_is_a_contradiction() {
    let mut coordinator = coordinator();
    let one = connect(&mut coordinator, 1);
    in_doubt(&mut coordinator, one, 1);
    let (number, _) = settle(&mut coordinator, processed(1, Processor::FALLBACK));
    tell(&mut coordinator, one, yielded(number, 1, true));
    assert_eq!(settled(&mut coordinator), [(number, Settled::Done)]);
    let summary = coordinator.ledger().summarize(UnixMillis(STORED_MS), UnixMillis(STORED_MS));
    assert_eq!((summary.totals[0].count, summary.totals[1].count), (0, 1));
    tell(&mut coordinator, one, completion(1, Processor::FALLBACK, Outcome::Processed));
    assert_eq!(coordinator.counters().contradictions, 0, "that is what was said");
    tell(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Processed));
    assert_eq!(coordinator.counters().contradictions, 1);
}

#[test]
fn a_reason_of_the_full_length_is_in_the_journal_and_replay_ignores_it() {
    let (mut coordinator, mut replayed) = (coordinator(), coordinator());
    let one = connect(&mut coordinator, 1);
    in_doubt(&mut coordinator, one, 1);
    let reason: String = "ç".repeat(REASON_SIZE_MAX / 2);
    let settlement = Settlement::new(id(1), Verdict::Declined, reason.clone()).unwrap();
    let (number, _) = settle(&mut coordinator, settlement);
    tell(&mut coordinator, one, yielded(number, 1, true));
    let mut text = Vec::new();
    let mut parts = Vec::new();
    for entry in coordinator.entries().iter() {
        if let Entry::Note { part, text: bytes } = entry {
            parts.push(*part);
            text.extend_from_slice(bytes);
        }
    }
    assert_eq!(parts, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(String::from_utf8(text).unwrap().trim_end_matches('\0'), reason);
    for entry in coordinator.entries().clone() {
        assert_eq!(Entry::of_fact(entry.to_fact()), Some(entry));
        replayed.restore(entry);
    }
    assert_eq!(replayed.ledger().conservation(), coordinator.ledger().conservation());
    for bad in [String::new(), "x".repeat(REASON_SIZE_MAX + 1), "two\nlines".to_owned(), "\0".to_owned()] {
        assert_eq!(Settlement::new(id(1), Verdict::Declined, bad), None);
    }
}

#[test]
fn what_cannot_be_settled_is_said_at_once_and_nobody_is_asked() {
    let mut coordinator = coordinator();
    let one = connect(&mut coordinator, 1);
    accept(&mut coordinator, one, 1, Stage::Waiting);
    accept(&mut coordinator, one, 2, Stage::At0);
    for (number, expected) in [(1, Settled::NotInDoubt), (2, Settled::UnderWay), (3, Settled::Absent)] {
        let (round, asked) = settle(&mut coordinator, declined(number));
        assert_eq!((asked, settled(&mut coordinator)), (vec![], vec![(round, expected)]));
    }
    coordinator.disconnect(one, at(LATER));
    let (round, _) = settle(&mut coordinator, declined(2));
    assert_eq!(settled(&mut coordinator), [(round, Settled::NoGateway)]);
}

#[test]
fn while_an_attempt_is_on_its_way_nothing_is_settled_and_the_owner_gets_it_back() {
    let mut coordinator = coordinator();
    let (one, two) = (connect(&mut coordinator, 1), connect(&mut coordinator, 2));
    in_doubt(&mut coordinator, one, 1);
    // The owner sends it.
    let (number, _) = settle(&mut coordinator, declined(1));
    assert_eq!(tell(&mut coordinator, one, yielded(number, 1, false)), []);
    assert_eq!(settled(&mut coordinator), [(number, Settled::UnderWay)]);
    tell(&mut coordinator, two, yielded(number, 1, true));
    // Another one does, who had it before.
    let (number, _) = settle(&mut coordinator, declined(1));
    tell(&mut coordinator, one, yielded(number, 1, true));
    let back = tell(&mut coordinator, two, yielded(number, 1, false));
    assert_eq!(assigned(&back), [(one, id(1))]);
    assert_eq!(settled(&mut coordinator), [(number, Settled::UnderWay)]);
    // Likewise, and the owner's word comes last.
    let (number, _) = settle(&mut coordinator, declined(1));
    tell(&mut coordinator, two, yielded(number, 1, false));
    let (again, asked) = settle(&mut coordinator, declined(1));
    assert_eq!(asked, [], "while its owner has not answered nobody is asked again");
    let back = tell(&mut coordinator, one, yielded(number, 1, true));
    assert_eq!(assigned(&back), [(one, id(1))]);
    assert_eq!(settled(&mut coordinator), [(number, Settled::UnderWay), (again, Settled::UnderWay)]);
    assert_eq!(coordinator.ledger().conservation().in_doubt_count, 1);
}

#[test]
fn a_gateway_that_is_silent_comes_or_goes_ends_the_round() {
    let mut coordinator = coordinator();
    let (one, two) = (connect(&mut coordinator, 1), connect(&mut coordinator, 2));
    in_doubt(&mut coordinator, one, 1);
    let (number, _) = settle(&mut coordinator, declined(1));
    tell(&mut coordinator, one, yielded(number, 1, true));
    let due_us = coordinator.tick_due_us();
    coordinator.tick(at(due_us - 1));
    assert_eq!(settled(&mut coordinator), []);
    coordinator.tick(at(due_us));
    assert_eq!(settled(&mut coordinator), [(number, Settled::UnderWay)]);
    let back: Vec<_> = coordinator.messages().drain(..).collect();
    assert_eq!(assigned(&back), [(one, id(1))]);
    assert_eq!(coordinator.tick_due_us(), u64::MAX, "nothing more is due");

    // It answers at last.
    tell(&mut coordinator, two, yielded(number, 1, true));
    let (number, _) = settle(&mut coordinator, declined(1));
    tell(&mut coordinator, one, yielded(number, 1, true));
    let three = connect(&mut coordinator, 3);
    assert_eq!(settled(&mut coordinator), [(number, Settled::UnderWay)], "it may have been cut off");
    tell(&mut coordinator, two, yielded(number, 1, true));

    let (number, asked) = settle(&mut coordinator, declined(1));
    assert_eq!(asked, [one, two, three]);
    tell(&mut coordinator, one, yielded(number, 1, true));
    coordinator.messages().clear();
    coordinator.disconnect(one, at(LATER));
    assert_eq!(settled(&mut coordinator), [(number, Settled::UnderWay)]);
    let given: Vec<_> = coordinator.messages().drain(..).collect();
    assert_eq!(assigned(&given).len(), 1, "somebody works on it");
    // The new owner's late word on the old question is about nothing.
    let (heir, _) = assigned(&given)[0];
    assert_eq!(tell(&mut coordinator, heir, yielded(number, 1, true)), []);
}

/// The owner's intent crosses the question: it is given the payment again behind that, and has it.
#[test]
fn an_owner_that_was_given_the_payment_again_is_not_given_it_twice() {
    let mut coordinator = coordinator();
    let one = connect(&mut coordinator, 1);
    in_doubt(&mut coordinator, one, 1);
    let (number, _) = settle(&mut coordinator, declined(1));
    let given = tell(&mut coordinator, one, intent(1));
    assert_eq!(assigned(&given), [(one, id(1))]);
    assert_eq!(settled(&mut coordinator), [(number, Settled::UnderWay)]);
    assert_eq!(tell(&mut coordinator, one, yielded(number, 1, true)), []);
    assert!(matches!(coordinator.ledger().lookup(id(1)), Known::Open(payment) if payment.in_doubt));
}

#[test]
fn what_the_owner_said_before_its_answer_counts() {
    let mut coordinator = coordinator();
    let one = connect(&mut coordinator, 1);
    in_doubt(&mut coordinator, one, 1);
    in_doubt(&mut coordinator, one, 2);
    let (first, _) = settle(&mut coordinator, declined(1));
    let (second, _) = settle(&mut coordinator, declined(2));
    tell(&mut coordinator, one, completion(1, Processor::DEFAULT, Outcome::Processed));
    tell(&mut coordinator, one, completion(2, Processor::DEFAULT, Outcome::Absent));
    assert_eq!(tell(&mut coordinator, one, yielded(first, 1, true)), []);
    let back = tell(&mut coordinator, one, yielded(second, 2, true));
    assert_eq!(assigned(&back), [(one, id(2))], "it has dropped it");
    assert_eq!(settled(&mut coordinator), [(first, Settled::Otherwise), (second, Settled::NotInDoubt)]);
    // And a purge.
    in_doubt(&mut coordinator, one, 3);
    let (third, _) = settle(&mut coordinator, declined(3));
    tell(&mut coordinator, one, PurgeQuery { slot: 1 });
    tell(&mut coordinator, one, yielded(third, 3, true));
    assert_eq!(settled(&mut coordinator), [(third, Settled::Absent)]);
}

#[test]
fn a_list_shows_the_oldest_first_and_is_bounded() {
    let mut coordinator = coordinator();
    let one = connect(&mut coordinator, 1);
    let list = |coordinator: &Coordinator, which, len_max| {
        let mut listing = Listing::new(which, len_max);
        while coordinator.ledger().list(&mut listing) {}
        listing.into_list()
    };
    for number in 0..200_u8 {
        let doubtful = number % 2 == 1;
        let stage = if number < 150 { Stage::At0 } else { Stage::Waiting };
        tell(
            &mut coordinator,
            one,
            Accept {
                slot: 1,
                correlation_id: id(number),
                amount_cents: u64::from(number) + 1,
                // Neither in their order nor all different.
                decided_at_ms: 1_000 - u64::from(number) / 2,
                expires_at_us: LATER,
                stage,
                reason: Reason::Cheaper,
            },
        );
        if doubtful && number < 150 {
            let requested_at_ms = 1_000 - u64::from(number) / 2;
            let unknown =
                Completion { requested_at_ms, ..completion(number, Processor::DEFAULT, Outcome::Unknown) };
            tell(&mut coordinator, one, unknown);
        }
    }
    let doubtful = list(&coordinator, Which::InDoubt, 10);
    let numbers: Vec<u8> = doubtful.iter().map(|listed| listed.correlation_id.0[0]).collect();
    assert_eq!(numbers, [149, 147, 145, 143, 141, 139, 137, 135, 133, 131]);
    assert!(doubtful.iter().all(|listed| listed.in_doubt && listed.processor == Some(Processor::DEFAULT)));
    assert_eq!(doubtful[0].at, ListedAt::Time(UnixMillis(926)));
    assert_eq!(list(&coordinator, Which::InDoubt, 5_000).len(), 75);
    let open = list(&coordinator, Which::Open, 1_000);
    assert_eq!(open.len(), 200);
    assert!(open.is_sorted() && open[150..].iter().all(|listed| listed.at.time().is_none()));
    assert_eq!(list(&coordinator, Which::Open, 0), []);

    for number in 150..160 {
        cancel(&mut coordinator, one, number);
        accept(&mut coordinator, one, number + 60, Stage::At0);
        let done = completion(number + 60, Processor::DEFAULT, Outcome::Processed);
        tell(&mut coordinator, one, done);
    }
    let numbers = |len_max| -> Vec<u8> {
        let declined = list(&coordinator, Which::Declined, len_max);
        assert!(declined.iter().all(|listed| listed.status == STATUS_CANCELLED));
        declined.iter().map(|listed| listed.correlation_id.0[0]).collect()
    };
    assert_eq!(numbers(3), [159, 158, 157], "the last one first");
    assert_eq!(numbers(100).len(), 10);
}
