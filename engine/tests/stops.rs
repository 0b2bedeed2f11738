//! A ledger that is slow, and a process that was stopped: nothing is sent that was decided long ago.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod field;

use field::{CHEAP, DEAR, Field, MS, SECOND, Try, refused, taken};
use galo_engine::Outcome;
use galo_engine::verdict::End;

const OTHERS: u32 = 100;

/// How old `requestedAt` was at each attempt, ms.
fn ages_ms(field: &Field) -> Vec<u64> {
    let now = field.now();
    let now_ms = |it: &Try| now.unix_ms.0 - (now.monotonic_us - it.at_us) / MS;
    field.tries.iter().map(|it| now_ms(it) - it.requested_at_ms).collect()
}

#[test]
fn an_intent_that_is_recorded_late_is_not_sent_but_made_anew() {
    let mut attempts = 0;
    let mut field = Field::new(move |_| {
        attempts += 1;
        if attempts == 1 { refused() } else { taken() }
    });
    field.pay(1);
    field.ledger_us = 10 * SECOND;
    field.wait(5 * SECOND);
    field.ledger_us = 0;
    field.wait(4 * SECOND);
    assert_eq!((field.tries.len(), field.outcomes(1)), (1, vec![Outcome::Refused]), "the ledger is silent");
    field.wait(2 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Refused, Outcome::Refused, Outcome::Processed]);
    let [first, second] = field.tries[..] else { panic!("{:?}", field.tries) };
    assert!(second.requested_at_ms > first.requested_at_ms + 9_000, "{:?}", field.tries);
    assert!(field.gauges().in_flight == [0; 8], "the place that it had is free");
}

#[test]
fn over_a_slow_ledger_payments_go_on() {
    for ledger_us in [200 * MS, 400 * MS, 900 * MS] {
        let mut field = Field::new(|it| if it.processor == CHEAP { refused() } else { taken() });
        field.ledger_us = ledger_us;
        field.pay_each(1..=40, 50 * MS);
        field.wait(60 * SECOND);
        let count = (1..=40).filter(|id| field.outcomes(*id).last() == Some(&Outcome::Processed)).count();
        assert_eq!(count, 40, "{ledger_us}");
        assert!(field.tries.iter().any(|it| it.processor == DEAR));
        let oldest_ms = ages_ms(&field).into_iter().max().unwrap();
        assert!(oldest_ms <= 1_000, "{oldest_ms}");
    }
}

#[test]
fn what_was_granted_or_recorded_while_the_process_was_stopped_is_not_sent_as_it_was_planned() {
    let mut field = Field::new(|it| if it.id == 1 && it.at_us < 2 * SECOND { refused() } else { taken() });
    field.pay(1);
    field.ledger_us = 20 * MS;
    field.wait(5 * MS);
    field.pay(2);
    // The intent of the one and the grant of the other lie in the socket by then.
    field.stop(30 * SECOND);
    field.wait(SECOND);
    for id in [1, 2] {
        assert_eq!(field.outcomes(id).last(), Some(&Outcome::Processed), "payment {id}");
    }
    let oldest_ms = ages_ms(&field).into_iter().max().unwrap();
    assert!(oldest_ms <= 250, "{:?}", field.tries);
}

#[test]
fn what_is_in_doubt_is_not_sent_again_after_a_stop_until_the_ledger_has_said_whose_it_is() {
    let mut field = Field::new(|_| End::UNANSWERED);
    field.pay(1);
    field.wait(2 * SECOND);
    assert!(field.tries.len() > 2);
    assert_eq!(field.readies, 1, "a doubt is looked at too often for a gap");
    let before = field.tries.len();
    field.ledger_us = 500 * MS;
    field.stop(10 * SECOND);
    field.wait(499 * MS);
    assert_eq!((field.tries.len(), field.readies), (before, 2));
    field.wait(SECOND);
    assert!(field.tries.len() > before, "it is still this gateway's");
}

#[test]
fn of_two_stops_the_answer_to_the_first_question_is_none_to_the_second() {
    let mut field = Field::new(|_| End::UNANSWERED);
    field.pay(1);
    field.wait(2 * SECOND);
    let before = field.tries.len();
    field.ledger_us = 3 * SECOND;
    field.stop(10 * SECOND);
    field.wait(SECOND);
    field.stop(1_900 * MS);
    field.ledger_us = 500 * MS;
    field.wait(400 * MS);
    assert_eq!((field.tries.len(), field.readies), (before, 3), "the first one's has come");
    field.wait(2 * SECOND);
    assert!(field.tries.len() > before);
}

#[test]
fn a_gateway_that_works_is_not_taken_for_one_that_was_stopped() {
    let mut field = Field::new(|it| match it.id {
        1 => refused(),
        2 => End::UNANSWERED,
        _ => taken(),
    });
    field.pay(1);
    field.pay(2);
    field.pay_each(OTHERS..OTHERS + 50, 1_200 * MS);
    assert_eq!(field.readies, 1);
}
