//! Payments that end declined, and doubt that ends by absence, as the ledger and its gateways see them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use galo_engine::coordinator::{Coordinator, SessionId};
use galo_engine::ledger::{Entry, Known, Tally};
use galo_engine::time::UnixMillis;
use galo_engine::{Outcome, Processor, Stage};
use galo_wire::record::{
    Admission, Claim, Completion, Intent, IntentRecorded, LookupQuery, LookupReply, Ready, Standing,
    Withdrawal,
};
use galo_wire::{AttemptState, Message, Reason};
use gateways::{LATER, at, coordinator_config, hello, id, join, told};

fn coordinator() -> Coordinator {
    let mut config = coordinator_config();
    config.ledger.bucket_bytes_max = 4 << 20;
    config.ledger.processors = Processor::ALL.into_iter().collect();
    Coordinator::new(config, at(0))
}

fn accept(coordinator: &mut Coordinator, from: SessionId, number: u8, amount_cents: u64) -> Admission {
    gateways::accept(coordinator, from, number, amount_cents, Stage::At0)
}

/// At the contest's default processor.
fn completion(number: u8, requested_at_ms: u64, outcome: Outcome) -> Completion {
    let status = if outcome == Outcome::Declined { 402 } else { 0 };
    Completion { requested_at_ms, status, ..gateways::completion(number, Processor::DEFAULT, outcome) }
}

/// Accepted, refused where it was sent, and ended.
fn decline(coordinator: &mut Coordinator, from: SessionId, number: u8) {
    assert_eq!(accept(coordinator, from, number, 100), Admission::Granted);
    told(coordinator, from, completion(number, 7, Outcome::Refused));
    told(coordinator, from, completion(number, 9, Outcome::Declined));
}

const DECLINED: Known =
    Known::Declined { amount_cents: 100, ended_at_ms: 9, processor: Processor::DEFAULT, status: 402 };

#[test]
fn a_declined_payment_has_ended_and_is_in_no_summary() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    decline(&mut coordinator, one, 1);
    assert_eq!(coordinator.ledger().lookup(id(1)), DECLINED);
    let books = coordinator.ledger().conservation();
    let tally = Tally { count: 1, amount_cents: 100 };
    assert_eq!((books.accepted, books.declined, books.open), (tally, tally, Tally::default()));
    let summary = coordinator.ledger().summarize(UnixMillis(0), UnixMillis(u64::MAX));
    assert_eq!(summary.totals, [Tally::default(); 8]);
}

#[test]
fn its_post_again_is_replayed_and_another_amount_conflicts() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    decline(&mut coordinator, one, 1);
    assert_eq!(accept(&mut coordinator, two, 1, 100), Admission::Replayed);
    assert_eq!(accept(&mut coordinator, two, 1, 101), Admission::Conflict);
    assert_eq!(coordinator.ledger().lookup(id(1)), DECLINED, "and nothing is sent");
}

#[test]
fn a_look_up_tells_when_and_by_which_status_it_was_declined() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    decline(&mut coordinator, one, 1);
    let heard = told(&mut coordinator, one, LookupQuery { slot: 5, correlation_id: id(1) });
    let [decisions @ .., Message::LookupReply(reply)] = &heard[..] else { panic!("{heard:?}") };
    let LookupReply { slot, standing, amount_cents, requested_at_ms, stage, in_doubt, status, .. } = *reply;
    assert_eq!((slot, standing, amount_cents, requested_at_ms), (5, Standing::Declined, 100, 9));
    assert_eq!((stage, in_doubt, status), (Stage::At0, false, 402));
    let [Message::PastDecision(decision)] = decisions else { panic!("{decisions:?}") };
    assert_eq!(decision.attempt, AttemptState::Declined);
}

#[test]
fn a_payment_that_a_processor_may_have_does_not_end_declined() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    // Its attempt's end is not known yet; it is in doubt; it is another's.
    for (number, before) in [(1, None), (2, Some(Outcome::Unknown))] {
        accept(&mut coordinator, one, number, 100);
        if let Some(outcome) = before {
            told(&mut coordinator, one, completion(number, 7, outcome));
        }
        told(&mut coordinator, one, completion(number, 9, Outcome::Declined));
        assert!(matches!(coordinator.ledger().lookup(id(number)), Known::Open(_)), "payment {number}");
    }
    accept(&mut coordinator, one, 3, 100);
    told(&mut coordinator, one, completion(3, 7, Outcome::Refused));
    told(&mut coordinator, two, completion(3, 9, Outcome::Declined));
    assert!(matches!(coordinator.ledger().lookup(id(3)), Known::Open(_)));
    assert_eq!(coordinator.counters().stale_completions, 3);
    assert_eq!(coordinator.ledger().conservation().declined, Tally::default());
}

#[test]
fn a_declined_payment_that_a_processor_has_is_a_contradiction_and_stays_as_it_was_told() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    decline(&mut coordinator, one, 1);
    let before = coordinator.entries().len();
    told(&mut coordinator, one, completion(1, 8, Outcome::Processed));
    assert_eq!(coordinator.counters().contradictions, 1);
    assert_eq!((coordinator.ledger().lookup(id(1)), coordinator.entries().len()), (DECLINED, before));
    // The same decline once more, as after a reconnect, is none.
    told(&mut coordinator, one, completion(1, 9, Outcome::Declined));
    assert_eq!((coordinator.counters().contradictions, coordinator.counters().stale_completions), (1, 1));
}

#[test]
fn the_end_of_a_decline_that_was_not_acknowledged_is_said_again_to_whoever_asks() {
    // A ledger that lost everything: the claim says that nobody has it, the completion that it ended.
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    let claim = Claim {
        slot: u32::MAX,
        correlation_id: id(1),
        amount_cents: 100,
        requested_at_ms: 7,
        stage: Stage::Waiting,
        in_doubt: false,
    };
    assert_eq!(told(&mut coordinator, one, claim), []);
    told(&mut coordinator, one, completion(1, 9, Outcome::Declined));
    assert_eq!(coordinator.ledger().lookup(id(1)), DECLINED);
    // And one that has it already: withdrawn, which the gateway knows nothing of, and stale.
    assert_eq!(
        told(&mut coordinator, one, claim),
        [Withdrawal { slot: u32::MAX, correlation_id: id(1) }.into()]
    );
    told(&mut coordinator, one, completion(1, 9, Outcome::Declined));
    assert_eq!(coordinator.ledger().conservation().declined.count, 1);
    // And one that heard of the attempt and not of its end.
    accept(&mut coordinator, one, 2, 100);
    coordinator.disconnect(one, at(LATER));
    coordinator.messages().clear();
    let one = join(&mut coordinator, 1);
    coordinator.messages().clear();
    assert_eq!(told(&mut coordinator, one, Claim { correlation_id: id(2), ..claim }).len(), 0);
}

/// Cut off while it looked a payment up, its owner does not know that this is in doubt by now, and that another one may have sent it.
#[test]
fn an_owner_whose_decline_is_not_believed_is_given_the_payment_again() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    accept(&mut coordinator, one, 1, 100);
    coordinator.disconnect(one, at(LATER));
    coordinator.disconnect(two, at(LATER));
    let one = coordinator.connect(hello(1)).unwrap();
    let claim = Claim {
        slot: 1,
        correlation_id: id(1),
        amount_cents: 100,
        requested_at_ms: 7,
        stage: Stage::At0,
        in_doubt: false,
    };
    told(&mut coordinator, one, claim);
    told(&mut coordinator, one, Ready { held_len_max: u64::MAX });
    told(&mut coordinator, one, completion(1, 7, Outcome::Refused));
    let heard = told(&mut coordinator, one, completion(1, 9, Outcome::Declined));
    let [Message::Assignment(assignment), Message::Acknowledgement(_)] = heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!((assignment.correlation_id, assignment.stage, assignment.in_doubt), (id(1), Stage::At0, true));
    told(&mut coordinator, one, completion(1, 7, Outcome::Absent));
    told(&mut coordinator, one, completion(1, 9, Outcome::Declined));
    assert_eq!(coordinator.ledger().lookup(id(1)), DECLINED);
}

#[test]
fn absence_ends_a_doubt_for_its_owner_alone_and_frees_the_payment() {
    let mut coordinator = coordinator();
    let (one, two) = (join(&mut coordinator, 1), join(&mut coordinator, 2));
    accept(&mut coordinator, one, 1, 100);
    // Not in doubt, and so nothing to end.
    told(&mut coordinator, one, completion(1, 7, Outcome::Absent));
    assert_eq!(coordinator.counters().stale_completions, 1);
    told(&mut coordinator, one, completion(1, 7, Outcome::Unknown));
    for (session, requested_at_ms) in [(two, 7), (one, 8)] {
        told(&mut coordinator, session, completion(1, requested_at_ms, Outcome::Absent));
        let Known::Open(payment) = coordinator.ledger().lookup(id(1)) else { panic!("it is open") };
        assert!(payment.in_doubt && payment.stage == Stage::At0, "another's word, another attempt's");
    }
    told(&mut coordinator, one, completion(1, 7, Outcome::Absent));
    let Known::Open(payment) = coordinator.ledger().lookup(id(1)) else { panic!("it is open") };
    assert_eq!((payment.stage, payment.in_doubt, payment.requested_at_ms), (Stage::Waiting, false, 7));
    assert_eq!(coordinator.ledger().conservation().in_doubt_count, 0);
    let intent = Intent {
        slot: 1,
        correlation_id: id(1),
        requested_at_ms: 8,
        processor: Processor::N5,
        reason: Reason::Elsewhere,
        waited_for_ms: 4,
    };
    let recorded = IntentRecorded { slot: 1, correlation_id: id(1) };
    assert_eq!(told(&mut coordinator, one, intent), [recorded.into()], "it may go elsewhere");
    // It was there after all.
    let processed = Completion { processor: Processor::N5, ..completion(1, 8, Outcome::Processed) };
    told(&mut coordinator, one, processed);
    told(&mut coordinator, one, completion(1, 7, Outcome::Processed));
    assert_eq!(coordinator.counters().contradictions, 1);
}

#[test]
fn the_entries_of_declines_and_absences_rebuild_the_ledger() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    decline(&mut coordinator, one, 1);
    accept(&mut coordinator, one, 2, 100);
    told(&mut coordinator, one, completion(2, 7, Outcome::Unknown));
    told(&mut coordinator, one, completion(2, 7, Outcome::Absent));
    let entries: Vec<Entry> = coordinator.entries().clone();
    let mut rebuilt = self::coordinator();
    for entry in entries {
        let again = Entry::of_fact(entry.to_fact()).unwrap();
        assert_eq!(again, entry, "as it stands in the journal");
        rebuilt.restore(again);
    }
    assert_eq!(rebuilt.ledger().conservation(), coordinator.ledger().conservation());
    assert_eq!(rebuilt.ledger().lookup(id(1)), DECLINED);
    let Known::Open(payment) = rebuilt.ledger().lookup(id(2)) else { panic!("it is open") };
    assert_eq!((payment.stage, payment.in_doubt), (Stage::Waiting, false));
}

#[test]
fn declined_ids_are_forgotten_like_any_other_and_still_counted() {
    let mut coordinator = coordinator();
    let one = join(&mut coordinator, 1);
    (1..=6).for_each(|number| decline(&mut coordinator, one, number));
    assert_eq!(coordinator.ledger().known_len(), 4);
    assert_eq!(coordinator.ledger().lookup(id(1)), Known::Absent);
    assert_eq!(coordinator.ledger().conservation().declined, Tally { count: 6, amount_cents: 600 });
    assert!(coordinator.ledger().has_forgotten());
}
