//! Payments that may be with a processor, and attempts that hang, one rule a test: what is known of them, who is asked, and when it
//! ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod field;

use std::collections::HashMap;

use field::{
    CHEAP, DEAR, Field, MS, SECOND, amount, config, config_with, declined, end, id_of, pauses, refused, taken,
};
use galo_engine::breaker::BreakerState;
use galo_engine::dispatcher::{DispatcherConfig, DoubtPolicy, Stored, Verification};
use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::verdict::{End, Verdict};
use galo_engine::{Outcome, Processor, Stage};
use galo_wire::Message;
use galo_wire::record::{HealthNews, HealthSource};

const OTHERS: u32 = 100;

/// When processors stored a payment: later than any attempt.
const STORED: UnixMillis = UnixMillis(2_000_000_000_000);

/// Keys are known for five seconds, absence is proven after ten, look-ups go each second.
const SHORT: DoubtPolicy = DoubtPolicy {
    resend_us_max: 5 * SECOND,
    has_lookup: true,
    absent_after_us: 10 * SECOND,
    lookup_every_us: SECOND,
    give_up_us: 30 * SECOND,
    echoes_requested_at: false,
};

/// The contest's, but that look-ups tell the processor's own times.
fn own_times() -> DispatcherConfig {
    config_with(DoubtPolicy { echoes_requested_at: false, ..DoubtPolicy::CONTEST })
}

fn duplicate() -> End {
    end(Verdict::Duplicate, 409)
}

fn found(stored: Stored) -> Verification {
    Verification::Found { stored, requested_at: Some(STORED), amount: Some(amount()) }
}

#[test]
fn a_pending_payment_is_looked_up_at_its_pace_and_never_sent_again() {
    let mut field =
        Field::with(config_with(SHORT), |_| end(Verdict::Pending, 202)).clerk_with(|_, _, now_us| {
            found(if now_us < 20 * SECOND { Stored::Pending } else { Stored::Processed })
        });
    field.pay(1);
    field.wait(30 * SECOND);
    assert_eq!(field.tries.len(), 1);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Processed]);
    assert_eq!(field.told.last().unwrap().completion.requested_at_ms, STORED.0, "as the processor stored it");
    let gaps: Vec<u64> = field.lookups.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!((15..=25).contains(&field.lookups.len()), "{gaps:?}");
    assert!(gaps.iter().all(|us| (800 * MS..=1_300 * MS).contains(us)), "{gaps:?}");
}

/// Payments held after each of sixty seconds, a hundred of which come in each and are pending.
fn held_while_all_are_pending(
    clerk: impl FnMut(Processor, u32, u64) -> Verification + 'static,
) -> Vec<usize> {
    let mut field = Field::with(config_with(SHORT), |_| end(Verdict::Pending, 202)).clerk_with(clerk);
    let mut held = Vec::new();
    for second in 0..60 {
        field.pay_each(second * 100..second * 100 + 100, 10 * MS);
        held.push(field.gauges().held);
    }
    held
}

#[test]
fn however_many_payments_are_pending_each_is_looked_up_at_its_pace() {
    // Each takes five seconds.
    let mut taken_us = HashMap::new();
    let held = held_while_all_are_pending(move |_, id, now_us| {
        let is_done = now_us - *taken_us.entry(id).or_insert(now_us) > 4 * SECOND;
        found(if is_done { Stored::Processed } else { Stored::Pending })
    });
    assert!(held[9].abs_diff(held[59]) < 100 && held[59] < 900, "{held:?}");
    // Two of three look-ups are not answered.
    let mut asked = 0;
    let held = held_while_all_are_pending(move |_, _, _| {
        asked += 1;
        if asked % 3 == 0 { found(Stored::Processed) } else { Verification::Unanswered }
    });
    assert!(held[9].abs_diff(held[59]) < 100 && held[59] < 900, "{held:?}");
}

#[test]
fn behind_its_keys_window_an_attempt_is_only_looked_up() {
    let mut field = Field::with(config_with(SHORT), |_| End::UNANSWERED).clerk_with(|_, _, now_us| {
        if now_us < 9 * SECOND { Verification::NotFound } else { found(Stored::Processed) }
    });
    field.pay(1);
    let start_us = field.now_us;
    field.wait(20 * SECOND);
    let last_us = field.tries.last().unwrap().at_us;
    assert!(field.tries.len() > 3 && last_us < start_us + 5 * SECOND, "{:?}", field.tries);
    assert!(field.tries.iter().all(|it| it.requested_at_ms == field.tries[0].requested_at_ms));
    assert!(field.lookups.len() >= 3 && field.lookups[0].0 > last_us, "{:?}", field.lookups);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Processed]);
}

/// When the last attempt was made of a payment in doubt whose clock is stepped back by so much, a second after its first; µs after that.
fn last_attempt_after_us(stepped_back_ms: u64) -> u64 {
    let mut field =
        Field::with(config_with(SHORT), |_| End::UNANSWERED).clerk_with(|_, _, _| Verification::NotFound);
    field.wait(3_600 * SECOND);
    field.pay(1);
    let start_us = field.now_us;
    field.wait(SECOND);
    field.stepped_back_ms = stepped_back_ms;
    field.wait(8 * SECOND);
    field.tries.iter().rfind(|it| it.requested_at_ms == field.tries[0].requested_at_ms).unwrap().at_us
        - start_us
}

#[test]
fn a_clock_that_is_stepped_back_does_not_make_a_key_younger() {
    for stepped_back_ms in [0, 30_000] {
        let last_us = last_attempt_after_us(stepped_back_ms);
        assert!((3 * SECOND..5 * SECOND).contains(&last_us), "{stepped_back_ms}: {last_us}");
    }
    // Of more than a minute nobody knows whose clock was right.
    let last_us = last_attempt_after_us(3_600_000);
    assert!(last_us <= SECOND, "{last_us}");
}

#[test]
fn what_comes_with_a_time_that_is_yet_to_be_is_looked_up() {
    let policy = DoubtPolicy { resend_us_max: 3_600 * SECOND, ..SHORT };
    let mut field = Field::with(config_with(policy), |_| End::UNANSWERED);
    let now_ms = field.now().unix_ms.0;
    field.assign_of(1, CHEAP, now_ms + 59_000);
    field.assign_of(2, CHEAP, now_ms + 70_000);
    field.wait(5 * SECOND);
    assert!(!field.tries_of(1).is_empty());
    assert_eq!(field.tries_of(2), []);
    assert!(field.lookups.iter().any(|(_, id)| *id == 2));
    // Where keys are known for ever there is nothing to be careful about.
    let mut field = Field::new(|_| taken());
    field.assign_of(2, CHEAP, now_ms + 70_000);
    field.wait(SECOND);
    assert_eq!(field.outcomes(2), [Outcome::Processed]);
}

#[test]
fn not_found_proves_absence_only_from_its_age_on() {
    let mut attempts = 0;
    let mut field = Field::with(config_with(SHORT), move |_| {
        attempts += 1;
        if attempts == 1 { end(Verdict::Pending, 202) } else { taken() }
    })
    .clerk_with(|_, _, _| Verification::NotFound);
    field.pay(1);
    let start_us = field.now_us;
    field.wait(10 * SECOND - MS);
    assert_eq!(field.outcomes(1), [Outcome::Unknown], "it may still come");
    assert!(field.lookups.len() > 5);
    field.wait(2 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Absent, Outcome::Processed]);
    let [first, second] = field.tries[..] else { panic!("{:?}", field.tries) };
    assert!(second.at_us >= start_us + 10 * SECOND && second.requested_at_ms > first.requested_at_ms);
}

#[test]
fn without_a_look_up_it_stays_for_a_person() {
    let policy = DoubtPolicy { has_lookup: false, resend_us_max: 0, ..SHORT };
    let mut field = Field::with(config_with(policy), |it| if it.id == 1 { End::UNANSWERED } else { taken() });
    field.pay(1);
    field.wait(60 * SECOND);
    field.pay_each(OTHERS..OTHERS + 300, 200 * MS);
    assert_eq!((field.tries_of(1).len(), field.lookups.len()), (1, 0));
    assert_eq!(field.outcomes(1), [Outcome::Unknown]);
    assert_eq!(field.gauges().held, 1);
    assert_eq!(field.dispatcher.tick_wait_us(), Some(25 * MS), "and hurries nobody");
    assert!(!field.dispatcher.awaits_processors());
}

#[test]
fn another_amount_is_one_contradiction_and_no_booking() {
    let other = AmountCents::new(1).unwrap();
    let mut field = Field::with(own_times(), |it| if it.id == 1 { duplicate() } else { taken() }).clerk_with(
        move |_, _, now_us| {
            let amount = if now_us < 100 * SECOND { other } else { amount() };
            Verification::processed(STORED, amount)
        },
    );
    field.pay(1);
    field.wait(90 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Unknown], "in doubt, so that nobody else charges it");
    let told: Vec<_> = field.discrepancies.iter().filter(|it| it.is_new).collect();
    let [discrepancy] = told[..] else { panic!("{told:?}") };
    assert_eq!((discrepancy.correlation_id, discrepancy.amount_cents), (id_of(1), 1));
    assert_eq!(discrepancy.requested_at_ms, STORED.0);
    assert_eq!(field.dispatcher.counters().contradictions[0], 1);
    assert_eq!(field.tries.len(), 1);
    assert!((8..=16).contains(&field.lookups.len()), "growing pauses: {:?}", field.lookups);
    field.wait(120 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Processed], "the processor set it right");
}

#[test]
fn another_amount_that_is_found_while_the_ledger_is_away_is_told_when_it_is_back() {
    let mut field = Field::new(|it| if it.id == 1 { duplicate() } else { taken() })
        .clerk_with(|_, _, _| Verification::processed(STORED, AmountCents::new(1).unwrap()));
    // The answer comes when the link is gone.
    field.judge = Box::new(|_| (duplicate(), 50 * MS));
    field.pay(1);
    field.unlink();
    field.wait(5 * SECOND);
    assert!(!field.lookups.is_empty(), "it is looked up all the same");
    assert_eq!(field.discrepancies, [], "nobody hears of it");
    field.link();
    field.wait(5 * SECOND);
    let told: Vec<_> = field.discrepancies.iter().filter(|it| it.is_new).collect();
    let [discrepancy] = told[..] else { panic!("{told:?}") };
    assert_eq!((discrepancy.correlation_id, discrepancy.amount_cents), (id_of(1), 1));
    assert_eq!(discrepancy.requested_at_ms, STORED.0);
    assert_eq!(field.dispatcher.counters().contradictions[0], 1, "once");
}

#[test]
fn what_a_look_up_says_is_declined_goes_on_as_a_decline() {
    let mut field =
        Field::new(
            |it| {
                if (it.id, it.processor) == (1, CHEAP) { end(Verdict::Pending, 202) } else { taken() }
            },
        )
        .clerk_with(|_, _, _| found(Stored::Declined));
    field.pay(1);
    field.wait(5 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Absent, Outcome::Processed]);
    assert_eq!(field.told.last().unwrap().completion.processor, DEAR);
}

#[test]
fn another_amount_that_was_never_charged_is_no_discrepancy() {
    let other = |stored| Verification::Found {
        stored,
        requested_at: Some(STORED),
        amount: Some(AmountCents::new(1).unwrap()),
    };
    let mut field = Field::new(|it| if (it.id, it.processor) == (1, CHEAP) { duplicate() } else { taken() })
        .clerk_with(move |_, _, now_us| {
            other(if now_us < 100 * SECOND { Stored::Pending } else { Stored::Declined })
        });
    field.pay(1);
    field.wait(90 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Unknown], "its result is awaited");
    field.wait(120 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Absent, Outcome::Processed]);
    assert_eq!(field.told.last().unwrap().completion.processor, DEAR);
    assert_eq!(field.discrepancies, [], "the totals hold what was processed, and nothing else");
}

#[test]
fn no_answer_to_a_look_up_is_no_evidence() {
    let mut asked = 0;
    let mut field = Field::with(own_times(), |_| duplicate()).clerk_with(move |_, _, _| {
        asked += 1;
        // Nothing ten times, "not found" thrice: it is not believed yet.
        match asked {
            1..=10 => Verification::Unanswered,
            11..=13 => Verification::NotFound,
            _ => found(Stored::Processed),
        }
    });
    field.pay(1);
    field.wait(300 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Processed]);
    assert_eq!((field.tries.len(), field.lookups.len()), (1, 14));
}

#[test]
fn a_duplicate_that_is_not_found_four_times_was_refused() {
    let mut field =
        Field::new(|it| if it.processor == CHEAP && it.at_us < SECOND + 100 { duplicate() } else { taken() })
            .clerk_with(|_, _, _| Verification::NotFound);
    field.pay(1);
    field.wait(2 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Refused, Outcome::Processed]);
    let [first, second] = field.tries[..] else { panic!("{:?}", field.tries) };
    assert!(second.requested_at_ms > first.requested_at_ms);
    let gaps: Vec<u64> = field.lookups.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let [a, b, c] = gaps[..] else { panic!("{gaps:?}") };
    // Half of 20, 40, 80 ms or more, and a tick's grain.
    assert!(a >= 10 * MS && b >= 20 * MS && c >= 40 * MS && a + b + c <= 160 * MS, "{gaps:?}");
}

#[test]
fn a_duplicate_of_a_payment_in_doubt_is_looked_up_ever_more_rarely_until_absence_is_proven() {
    let mut attempts = 0;
    let mut field = Field::new(move |it| {
        attempts += u32::from(it.id == 1);
        match (it.id, attempts) {
            (1, 1) => End::UNANSWERED,
            (1, 2) => duplicate(),
            _ => taken(),
        }
    })
    .clerk_with(|_, _, _| Verification::NotFound);
    field.pay(1);
    field.wait(119 * SECOND);
    assert_eq!((field.outcomes(1), field.tries.len()), (vec![Outcome::Unknown], 2));
    assert!((8..=16).contains(&field.lookups.len()), "{:?}", field.lookups);
    field.wait(120 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Absent, Outcome::Processed]);
    assert_eq!(field.tries.len(), 3);
}

#[test]
fn what_is_refused_in_doubt_again_and_again_is_looked_up_at_once_and_silence_does_not_count() {
    let mut attempts = 0;
    let mut field = Field::with(own_times(), move |_| {
        attempts += 1;
        if attempts <= 30 { End::UNANSWERED } else { refused() }
    })
    .clerk_with(|_, _, _| found(Stored::Processed));
    field.pay(1);
    field.wait(200 * SECOND);
    assert_eq!(field.tries.len(), 30 + 64);
    assert_eq!(field.outcomes(1), [Outcome::Unknown, Outcome::Processed]);
    let last_us = field.tries.last().unwrap().at_us;
    let [(looked_up_us, 1)] = field.lookups[..] else { panic!("{:?}", field.lookups) };
    assert!(looked_up_us - last_us < 100 * MS, "{looked_up_us} after {last_us}");
}

#[test]
fn look_ups_do_not_wait_behind_what_cannot_be_sent_again() {
    // Payments 1 to 30 are in doubt with a processor that is down; payment 50 is pending there, and its look-ups work.
    let mut field = Field::with(own_times(), |it| match it.id {
        50 => end(Verdict::Pending, 202),
        _ => End::UNANSWERED,
    })
    .clerk_with(|_, _, now_us| found(if now_us < 20 * SECOND { Stored::Pending } else { Stored::Processed }));
    field.pay(50);
    for id in 1..=30 {
        field.assign(id, CHEAP);
    }
    field.wait(25 * SECOND);
    assert_eq!(field.outcomes(50), [Outcome::Unknown, Outcome::Processed]);
    assert!(field.lookups.len() >= 16, "each second: {:?}", field.lookups);
}

/// Two thousand that are too old to be sent again are with a processor that answers no look-up: once what was saved is spent, it is asked each 50 ms.
#[test]
fn attempts_do_not_wait_behind_what_can_only_be_looked_up() {
    let mut field = Field::with(config_with(SHORT), |_| taken());
    for id in OTHERS..OTHERS + 2_000 {
        field.assign_of(id, CHEAP, field.now().unix_ms.0 - 60_000);
    }
    field.wait(30 * SECOND);
    let in_a_second = field.lookups.iter().filter(|it| it.0 > 30 * SECOND).count();
    assert!((18..=22).contains(&in_a_second), "{in_a_second}");
    field.assign(1, CHEAP);
    field.wait(SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Processed]);
}

/// Another configuration makes of those that were to be sent again ones that are looked up, and back.
#[test]
fn what_stands_in_the_wrong_queue_by_a_new_configuration_holds_nobody_up() {
    let configure = |field: &mut Field, resend_us_max| {
        let config = config_with(DoubtPolicy { resend_us_max, ..SHORT });
        field.dispatcher.reconfigure(config.router, config.processors);
    };
    // All attempts fail until the budget for them is spent; nothing is looked up.
    let long = DoubtPolicy { resend_us_max: 3_600 * SECOND, ..SHORT };
    let mut field = Field::with(config_with(long), |_| End::UNANSWERED);
    (1..=300).for_each(|id| field.assign(id, CHEAP));
    field.wait(10 * SECOND);
    assert_eq!(field.lookups, []);
    configure(&mut field, SECOND);
    let attempts = field.tries.len();
    field.wait(SECOND);
    assert_eq!(field.tries.len(), attempts);
    assert!(field.lookups.len() >= 300, "each at once, since their budget is full: {}", field.lookups.len());
    // None of the look-ups is answered, and their budget is spent; then all may be sent again.
    field.wait(60 * SECOND);
    field.judge = Box::new(|_| (taken(), MS));
    configure(&mut field, 3_600 * SECOND);
    field.wait(SECOND);
    let processed = (1..=300).filter(|id| field.outcomes(*id) == [Outcome::Processed]).count();
    assert!(processed > 200, "{processed}");
}

#[test]
fn attempts_that_hang_leave_their_places_within_the_hard_limit() {
    // Each fifth hangs for thirty seconds, the others take a millisecond.
    let mut field = Field::new(|_| taken()).judge_with(|it| {
        if it.id % 5 == 0 && it.processor == CHEAP { (End::UNANSWERED, 30 * SECOND) } else { (taken(), MS) }
    });
    let mut slowest_us = 0;
    for id in OTHERS..OTHERS + 220 {
        let start_us = field.now_us;
        field.pay(id);
        field.wait(10 * MS);
        let gauges = field.gauges();
        assert!(gauges.in_flight[0] <= 64, "the hard limit: {}", gauges.in_flight[0]);
        if id % 5 != 0 {
            slowest_us = slowest_us.max(field.processed_after(id, start_us).unwrap_or(u64::MAX));
        }
    }
    assert_eq!(slowest_us, MS, "44 hang, and nobody notices");
    assert_eq!(field.tries.iter().filter(|it| it.processor == DEAR).count(), 0);
    field.wait(SECOND);
    // They are looked at when somebody is routed.
    field.pay(OTHERS + 1_001);
    field.wait(SECOND);
    assert_eq!(field.gauges().hanging[0], 44);
    // Four more, and it counts as not working, though its breaker is closed.
    let more = OTHERS + 220..OTHERS + 520;
    field.pay_each(more.clone(), 10 * MS);
    field.wait(5 * SECOND);
    let gauges = field.gauges();
    assert!(
        (48..=56).contains(&gauges.in_flight[0]),
        "{}: no more than the looks of a slow one",
        gauges.in_flight[0]
    );
    assert_eq!(gauges.breaker[0], BreakerState::Closed);
    assert!(field.tries.iter().filter(|it| it.processor == DEAR).count() > 100);
    let is_open = |id: &u32| !field.outcomes(*id).contains(&Outcome::Processed);
    let open: Vec<u32> = more.filter(is_open).filter(|id| id % 5 != 0).collect();
    assert!(open.len() <= 4, "{open:?}");
    // What hung ends, and is settled where it was.
    field.judge = Box::new(|_| (taken(), MS));
    field.wait(60 * SECOND);
    assert_eq!(field.gauges().held, 0);
}

#[test]
fn a_payment_that_is_reset_again_and_again_keeps_no_breaker_open() {
    // Every attempt of these five is reset; the breaker is open by them before anybody else comes.
    let mut field = Field::new(|it| if it.id <= 5 { End::UNANSWERED } else { taken() });
    for id in 1..=5 {
        field.pay(id);
    }
    field.wait(10 * SECOND);
    assert_ne!(field.gauges().breaker[0], BreakerState::Closed, "nobody else says that it works");
    let start_us = field.now_us;
    field.pay(OTHERS);
    field.wait(10 * SECOND);
    assert!(field.processed_after(OTHERS, start_us).unwrap() < SECOND);
    let mut slowest_us = 0;
    for id in OTHERS + 1..OTHERS + 200 {
        let start_us = field.now_us;
        field.pay(id);
        field.wait(200 * MS);
        slowest_us = slowest_us.max(field.processed_after(id, start_us).unwrap_or(u64::MAX));
    }
    assert!(slowest_us < 200 * MS, "{slowest_us}");
    for id in 1..=5 {
        let late: Vec<_> = field.tries_of(id).into_iter().filter(|it| it.at_us > 25 * SECOND).collect();
        assert!(late.len() < 12, "their pauses grow: {:?}", pauses(&late));
    }
}

#[test]
fn a_new_link_claims_what_is_put_off_in_doubt_or_declined() {
    let mut field = Field::new(|it| match it.id {
        1 => refused(),
        2 => End::UNANSWERED,
        3 => duplicate(),
        4 => declined(),
        _ => taken(),
    });
    // Payment 1 is put off, 2 in doubt, 3 is looked up, 4 ends declined while the ledger is away.
    (1..=4).for_each(|id| field.pay(id));
    field.wait(100 * MS);
    field.pay_each(OTHERS..OTHERS + 40, 50 * MS);
    assert!(field.gauges().deferred >= 1);
    field.unlink();
    let requested_at = |id: u32, field: &Field| field.tries_of(id).last().unwrap().requested_at_ms;
    let [one, two, three] = [1, 2, 3].map(|id| requested_at(id, &field));
    field.link();
    let stages: Vec<_> = field
        .claims
        .iter()
        .map(|claim| (claim.correlation_id, claim.stage, claim.in_doubt, claim.requested_at_ms))
        .collect();
    assert!(stages.contains(&(id_of(1), Stage::Waiting, false, one)), "{stages:?}");
    assert!(stages.contains(&(id_of(2), Stage::At0, true, two)), "{stages:?}");
    assert!(stages.contains(&(id_of(3), Stage::At0, false, three)), "{stages:?}");
}

#[test]
fn a_decline_that_was_not_acknowledged_is_claimed_and_said_again() {
    // A processor without look-ups that may be sent nothing twice: what is silent beside others' answers is waited for.
    let doubt = DoubtPolicy { give_up_us: 30 * SECOND, has_lookup: false, ..DoubtPolicy::CONTEST };
    let mut field = Field::with(config_with(doubt), |it| if it.id == 1 { declined() } else { taken() });
    field.pay(1);
    field.wait(SECOND);
    // Its last attempt is on its way when the link breaks.
    field.judge = Box::new(|it| if it.id == 1 { (declined(), 3 * SECOND) } else { (taken(), MS) });
    field.pay_each(OTHERS..OTHERS + 4, 200 * MS);
    let mut is_last = false;
    for _ in 0..40 {
        let counts = [CHEAP, DEAR].map(|processor| field.tries_at(1, processor).len());
        is_last = counts == [2, 2];
        if is_last {
            break;
        }
        field.wait(250 * MS);
        let id = OTHERS + 10 + u32::try_from(field.tries.len()).unwrap();
        field.pay(id);
    }
    assert!(is_last, "{:?}", field.tries_of(1));
    let last_ms = field.tries_of(1).last().unwrap().requested_at_ms;
    field.unlink();
    field.wait(4 * SECOND);
    assert!(!field.outcomes(1).contains(&Outcome::Declined));
    field.link();
    assert_eq!(field.outcomes(1).last(), Some(&Outcome::Declined));
    let claim = field.claims.iter().find(|claim| claim.correlation_id == id_of(1)).unwrap();
    assert_eq!((claim.stage, claim.in_doubt, claim.requested_at_ms), (Stage::Waiting, false, last_ms));
}

#[test]
fn good_news_of_another_gateway_hasten_the_refused() {
    // Refused twice while nobody else is taken: put off, as an outage's probe is.
    let mut field = Field::new(|it| if it.at_us < 30 * SECOND { refused() } else { taken() });
    field.pay_each(1..=20, 10 * MS);
    field.wait(30 * SECOND - field.now_us);
    assert!(field.gauges().deferred > 0);
    let news = HealthNews {
        processor: CHEAP,
        source: HealthSource::Traffic,
        failing: false,
        response_ms: 1,
        retry_after_ms: 0,
    };
    field.event(|dispatcher, now| dispatcher.handle(Message::from(news), now));
    field.wait(100 * MS);
    assert_eq!(field.gauges().held, 0, "{:?}", field.gauges());
}

#[test]
fn a_config_of_one_processor_works() {
    let mut config = config();
    config.router.processors = galo_engine::router::ProcessorSet::EMPTY.with(CHEAP);
    let mut field = Field::with(config, |it| match it.id {
        1 => refused(),
        2 => declined(),
        _ => taken(),
    });
    field.pay(1);
    field.pay(2);
    field.pay_each(OTHERS..OTHERS + 100, 200 * MS);
    assert_eq!(field.outcomes(2).last(), Some(&Outcome::Declined));
    assert_eq!(field.tries_of(2).len(), 2);
    assert!(field.tries_of(1).len() > 4);
    assert_eq!(field.gauges().held, 1);
}

/// Payment 1 is never answered, and nowhere to be found; ten seconds later that proves that it is not there.
fn lost() -> Field {
    Field::with(config_with(SHORT), |it| if it.processor == CHEAP { End::UNANSWERED } else { taken() })
        .clerk_with(|_, _, _| Verification::NotFound)
}

#[test]
fn while_the_ledger_is_away_nobody_proves_that_a_payment_is_not_there() {
    let mut field = lost();
    field.pay(1);
    field.wait(SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Unknown]);
    field.unlink();
    field.wait(60 * SECOND);
    field.claims.clear();
    field.link();
    let claim = field.claims[..].iter().find(|it| it.correlation_id == id_of(1)).expect("it is claimed");
    assert_eq!((claim.stage, claim.in_doubt), (Stage::at(CHEAP), true), "another may have sent it again");
    assert_eq!(field.outcomes(1), [Outcome::Unknown]);
    field.wait(5 * SECOND);
    assert_eq!(field.outcomes(1)[1], Outcome::Absent, "once it is known whose it is");
}

/// Payment 1 is known there already, as a look-up says, since this moment.
fn known_since(doubt: DoubtPolicy, at: UnixMillis) -> Field {
    let mut field = Field::with(config_with(doubt), |_| duplicate())
        .clerk_with(move |_, _, _| Verification::processed(at, amount()));
    field.pay(1);
    field.wait(SECOND);
    field
}

#[test]
fn another_moment_than_was_sent_is_the_ledgers_to_judge() {
    for at in [UnixMillis(77), STORED] {
        let field = known_since(DoubtPolicy { echoes_requested_at: true, ..SHORT }, at);
        assert_eq!(field.outcomes(1), [Outcome::Unknown], "nothing is booked");
        let first = field.discrepancies[0];
        assert_eq!((first.requested_at_ms, first.amount_cents, first.is_new), (at.0, amount().get(), true));
        // Where processors have times of their own, they say nothing.
        let field = known_since(SHORT, at);
        assert_eq!((field.outcomes(1), field.discrepancies.len()), (vec![Outcome::Processed], 0));
    }
}

#[test]
fn a_contradiction_that_nobody_heard_of_is_told_again() {
    let mut field = Field::new(|_| duplicate())
        .clerk_with(|_, _, _| Verification::processed(STORED, AmountCents::new(1).unwrap()));
    field.is_lossy = true;
    field.pay(1);
    field.wait(5 * SECOND);
    assert!(field.discrepancies.len() > 1 && field.discrepancies.iter().all(|it| it.is_new));
    assert_eq!(field.dispatcher.counters().contradictions[0], 0);
    field.is_lossy = false;
    field.wait(60 * SECOND);
    assert_eq!(field.dispatcher.counters().contradictions[0], 1, "once it is heard");
    assert!(!field.discrepancies.last().unwrap().is_new);
}
