//! Payments that processors refuse or decline, one rule a test: what one payment does stops no other, and ends where it must.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod field;

use field::{
    CHEAP, DEAR, Field, MS, SECOND, Told, Try, config, declined, end, id_of, pauses, refused, taken,
};
use galo_engine::breaker::BreakerState;
use galo_engine::dispatcher::{DispatcherConfig, PROOFS_LEN_MAX};
use galo_engine::random::Random;
use galo_engine::router::Reason;
use galo_engine::verdict::{End, Verdict};
use galo_engine::{Outcome, Processor};
use galo_wire::record::{ANY_SLOT, HealthNews, HealthSource, Withdrawal};

/// Everybody else's ids.
const OTHERS: u32 = 100;

/// This one is refused everywhere with this end, all others are taken.
fn poisoned(ids: &'static [u32], bad: End) -> Field {
    Field::new(move |it: &Try| if ids.contains(&it.id) { bad } else { taken() })
}

/// Five others a second for so long; how long the slowest of them took, µs.
fn pay_others(field: &mut Field, seconds: u32) -> u64 {
    let first = OTHERS + u32::try_from(field.tries.len()).unwrap() * 1_000;
    let mut starts = Vec::new();
    for id in first..first + seconds * 5 {
        starts.push((id, field.now_us));
        field.pay(id);
        field.wait(200 * MS);
    }
    let wait = |&(id, start_us): &(u32, u64)| field.processed_after(id, start_us).unwrap_or(u64::MAX);
    starts.iter().map(wait).max().unwrap()
}

#[test]
fn two_ids_that_everybody_refuses_stop_nobody() {
    for bad in [refused(), end(Verdict::Unavailable, 400), end(Verdict::Overloaded, 429)] {
        let mut field = poisoned(&[1, 2], bad);
        field.pay(1);
        field.pay(2);
        let slowest_us = pay_others(&mut field, 60);
        assert!(slowest_us < 100 * MS, "{bad:?}: {slowest_us}");
        assert_eq!(field.gauges().breaker, [BreakerState::Closed; 8], "{bad:?}");
        for id in [1, 2] {
            let count = field.tries_of(id).len();
            assert!((5..=30).contains(&count), "{bad:?}: {count} attempts in a minute");
        }
    }
}

#[test]
fn two_ids_that_nobody_answers_stop_nobody() {
    for bad in [End::UNANSWERED, end(Verdict::Unknown, 503)] {
        let mut field = poisoned(&[1, 2], bad);
        field.pay(1);
        field.pay(2);
        let slowest_us = pay_others(&mut field, 60);
        assert!(slowest_us < 100 * MS, "{bad:?}: {slowest_us}");
        for id in [1, 2] {
            let tries = field.tries_of(id);
            assert!(
                tries
                    .iter()
                    .all(|it| it.processor == CHEAP && it.requested_at_ms == tries[0].requested_at_ms)
            );
            assert!((5..=40).contains(&tries.len()), "{} attempts in a minute", tries.len());
        }
    }
}

#[test]
fn a_payment_is_suspect_only_after_its_processor_took_others_between_two_refusals() {
    // Nobody else pays: the processor may be down, and its pauses are those of an outage.
    let mut field = poisoned(&[1], refused());
    field.pay(1);
    field.wait(20 * SECOND);
    let alone = pauses(&field.tries_of(1));
    assert!(alone.iter().all(|us| *us < 2 * SECOND), "{alone:?}");
    // With others its pauses double up to half a minute.
    let mut field = poisoned(&[1], refused());
    field.pay(1);
    pay_others(&mut field, 150);
    let beside = pauses(&field.tries_of(1));
    let longest = *beside.iter().max().unwrap();
    assert!((15 * SECOND..=30 * SECOND + 200 * MS).contains(&longest), "{beside:?}");
    let grown: Vec<u64> = beside.iter().copied().filter(|us| *us > SECOND).collect();
    // Each is the half of a doubling row, and up to as much again by chance.
    assert!(grown.windows(2).all(|pair| pair[1] * 2 > pair[0]), "they grow: {beside:?}");
    assert!(beside.len() < 20, "{beside:?}");
}

#[test]
fn a_refused_payment_that_is_alone_comes_back_by_itself() {
    // No traffic, no news: time alone must wake it.
    let mut count = 0;
    let mut field = Field::new(move |it: &Try| {
        count += u32::from(it.id == 1);
        if it.id == 1 && count <= 4 { refused() } else { taken() }
    });
    field.pay(1);
    field.wait(5 * SECOND);
    assert_eq!(field.outcomes(1).last(), Some(&Outcome::Processed));
}

/// In an outage each try leaves one more payment that pauses: the clock is asked for no more often because of them.
#[test]
fn a_payment_that_pauses_wakes_nobody_more_often() {
    let mut field = poisoned(&[1], refused());
    field.pay(1);
    pay_others(&mut field, 2);
    let before = field.tries_of(1).len();
    for _ in 0..4_000 {
        field.wait(5 * MS);
        let wait_us = field.dispatcher.tick_wait_us();
        assert!(field.gauges().deferred == 0 || wait_us == Some(25 * MS), "{wait_us:?}");
    }
    assert!(field.tries_of(1).len() > before + 3, "it comes back all the same");
}

#[test]
fn what_is_cancelled_leaves_the_queues_too() {
    // Everything is refused: one after the other finds that out and is put off, the others wait.
    let mut field = Field::new(|_| refused());
    let mut longest = 0;
    let mut put_off = 0;
    for id in OTHERS..OTHERS + 3_000 {
        field.pay(id);
        field.wait(10 * MS);
        let cancelled = Withdrawal { slot: ANY_SLOT, correlation_id: id_of(id) };
        field.event(|dispatcher, now| dispatcher.handle(cancelled.into(), now));
        let gauges = field.gauges();
        longest = longest.max(gauges.waiting + gauges.deferred);
        put_off = put_off.max(gauges.deferred);
    }
    // Each is found within a quarter of a second.
    assert!(longest < 100 && put_off > 0, "{longest}, {put_off}");
    field.wait(SECOND);
    let gauges = field.gauges();
    assert_eq!((gauges.held, gauges.waiting, gauges.deferred), (0, 0, 0));
}

#[test]
fn what_is_withdrawn_again_and_again_leaves_the_queues_too() {
    let mut field = Field::new(|_| refused());
    field.pay_each(OTHERS..OTHERS + 40, 10 * MS);
    let mut longest = 0;
    for id in 1_000..2_000 {
        // Of a gateway that is gone. When the link comes back the ledger has given it to another one.
        field.assign_waiting(id);
        field.unlink();
        field.claims.clear();
        field.link();
        let claim = field.claims.iter().find(|claim| claim.correlation_id == id_of(id)).unwrap();
        let withdrawal = Withdrawal { slot: claim.slot, correlation_id: id_of(id) };
        field.event(|dispatcher, now| dispatcher.handle(withdrawal.into(), now));
        longest = longest.max(field.gauges().waiting);
    }
    assert!(longest < 500, "{longest}");
}

#[test]
fn a_wait_that_goes_on_is_one_decision_whoever_else_looks_again_meanwhile() {
    // Both are down. Each of the first is a probe in its turn and is put off, the last ones wait in the queue.
    let mut field = Field::new(|_| refused());
    field.pay_each(OTHERS..OTHERS + 60, 10 * MS);
    field.wait(10 * SECOND);
    let waits = |field: &Field| field.dispatcher.counters().decisions[Reason::AwaitsAny as usize];
    let before = waits(&field);
    let gauges = field.gauges();
    assert!(gauges.waiting > 0 && gauges.deferred > 10, "{gauges:?}");
    field.wait(SECOND);
    assert!(waits(&field) - before < 20, "{} in a second: one for each head", waits(&field) - before);
}

#[test]
fn a_suspect_is_no_probe_and_no_evidence() {
    let mut field = poisoned(&[1], refused());
    field.pay(1);
    pay_others(&mut field, 3);
    // Everything fails now, but for what a probe would find out.
    let news = |field: &mut Field, processor| {
        let news = HealthNews {
            processor,
            source: HealthSource::Traffic,
            failing: true,
            response_ms: 0,
            retry_after_ms: 0,
        };
        field.event(|dispatcher, now| dispatcher.handle(news.into(), now));
    };
    field.judge = Box::new(|it| if it.at_us < 40 * SECOND { (refused(), MS) } else { (taken(), MS) });
    news(&mut field, CHEAP);
    news(&mut field, DEAR);
    // Ordinary ones wait as well: they find out, and the suspect only where all of them are put off at the end of one of its pauses.
    let before = field.tries_of(1).len();
    field.pay(OTHERS + 900_000);
    field.pay(OTHERS + 900_001);
    field.pay(OTHERS + 900_002);
    field.wait(20 * SECOND);
    let (suspect, all) = (field.tries_of(1).len() - before, field.tries.len());
    assert!(suspect <= 4, "{suspect}");
    assert_ne!(field.gauges().breaker[0], BreakerState::Closed);
    field.wait(41_500 * MS - field.now_us);
    assert!(field.tries.len() > all + 10, "probes go on");
    assert_eq!(
        field.outcomes(OTHERS + 900_002).last(),
        Some(&Outcome::Processed),
        "an ordinary one finds out"
    );
    field.pay(OTHERS + 900_003);
    field.wait(2 * SECOND);
    assert_eq!(field.gauges().breaker[0], BreakerState::Closed);
    // Thirty suspects at once: more refusals than any breaker bears, and none of them counts.
    let ids: &[u32] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
    let mut field = poisoned(ids, refused());
    for id in ids {
        field.pay(*id);
        pay_others(&mut field, 1);
    }
    pay_others(&mut field, 30);
    assert_eq!(field.gauges().breaker, [BreakerState::Closed; 8]);
}

#[test]
fn a_suspect_whose_attempt_was_never_sent_does_not_stand_in_the_others_way() {
    // Payments 1 to 40 are suspect; then nobody can be connected to for a while, as they find out first.
    let mut field = Field::new(move |it: &Try| match it.id {
        _ if (60 * SECOND..80 * SECOND).contains(&it.at_us) => End::NOT_SENT,
        1..=40 => refused(),
        _ => taken(),
    });
    for id in 1..=40 {
        field.pay(id);
        pay_others(&mut field, 1);
    }
    pay_others(&mut field, 18);
    field.wait(62 * SECOND - field.now_us);
    let sent = |field: &Field| field.tries.iter().filter(|it| it.at_us >= 60 * SECOND).count();
    assert!((1..100).contains(&sent(&field)), "{}", sent(&field));
    let first = OTHERS + 900_000;
    field.pay_each(first..first + 90, 200 * MS);
    field.wait(82 * SECOND - field.now_us);
    let is_open = |id: &u32| field.outcomes(*id).last() != Some(&Outcome::Processed);
    assert_eq!((first..first + 90).filter(is_open).count(), 0);
}

#[test]
fn where_only_suspects_are_left_they_find_out_themselves() {
    // Refused and in doubt, for so long that their pauses are at their longest; then everything is down, and at last nothing.
    let down = 200 * SECOND..260 * SECOND;
    let is_down = move |it: &Try| down.contains(&it.at_us);
    let mut field = Field::new(move |it: &Try| match it.id {
        _ if it.at_us > 260 * SECOND => taken(),
        1 => refused(),
        2 => End::UNANSWERED,
        _ if is_down(it) => refused(),
        _ => taken(),
    });
    field.pay(1);
    field.pay(2);
    pay_others(&mut field, 199);
    // So many are refused that both breakers open; all of them are processed elsewhere, that is: by another gateway.
    for processor in [CHEAP, DEAR] {
        let news = HealthNews {
            processor,
            source: HealthSource::Traffic,
            failing: true,
            response_ms: 0,
            retry_after_ms: 0,
        };
        field.event(|dispatcher, now| dispatcher.handle(news.into(), now));
    }
    field.wait(260 * SECOND - field.now_us);
    assert_ne!(field.gauges().breaker[0], BreakerState::Closed);
    field.wait(31 * SECOND);
    for id in [1, 2] {
        assert_eq!(field.outcomes(id).last(), Some(&Outcome::Processed), "{:?}", field.tries_of(id).last());
    }
}

#[test]
fn a_suspect_tries_the_others_first() {
    let mut field =
        Field::new(|it: &Try| if it.id == 1 && it.processor == CHEAP { refused() } else { taken() });
    field.pay(1);
    pay_others(&mut field, 10);
    let at_cheap = field.tries_at(1, CHEAP).len();
    assert!((2..=4).contains(&at_cheap), "{at_cheap} attempts at the one that refuses it");
    assert_eq!(field.tries_at(1, DEAR).len(), 1);
    assert!(field.intents.contains(&(1, DEAR, Reason::Elsewhere)), "{:?}", field.intents);
}

#[test]
fn who_refused_a_payment_has_it_again_where_nobody_else_works() {
    // The cheaper one refuses it for a while, and the dearer one is down for good.
    let mut field = Field::new(|it: &Try| match (it.id, it.processor) {
        (_, DEAR) => refused(),
        (1, _) if it.at_us < 6 * SECOND => refused(),
        _ => taken(),
    });
    field.pay(1);
    pay_others(&mut field, 60);
    assert_eq!(field.outcomes(1).last(), Some(&Outcome::Processed), "{:?}", field.tries_of(1));
}

#[test]
fn a_processor_that_refuses_six_of_ten_keeps_its_payments() {
    let mut random = Random::new(3);
    let mut field =
        Field::new(
            move |it: &Try| {
                if it.processor == CHEAP && random.below(10) < 6 { refused() } else { taken() }
            },
        );
    field.pay_each(OTHERS..OTHERS + 3_000, 5 * MS);
    field.wait(10 * SECOND);
    let count = field.told.iter().filter(|told| told.completion.outcome == Outcome::Processed).count();
    assert_eq!(count, 3_000);
    let dear = field.told.iter().filter(|told| told.completion.processor == DEAR).count();
    // What is known of chance are twenty results. At the gap of a tenth this is a quarter of a per cent.
    assert!(dear < 100, "{dear} of 3,000 went to the dearer one");
}

#[test]
fn when_a_processor_is_back_the_refused_come_back_at_once_and_suspects_do_not() {
    // Down for the first ten seconds; payment 1 is refused for ever.
    let mut field = Field::new(|it: &Try| {
        if it.id == 1 || (20 * SECOND..30 * SECOND).contains(&it.at_us) { refused() } else { taken() }
    });
    field.pay(1);
    pay_others(&mut field, 10);
    field.wait(20 * SECOND - field.now_us);
    let start = field.tries.len();
    // Each of the first is a probe in its turn, and is put off.
    field.pay_each(2..12, 10 * MS);
    field.wait(30 * SECOND - field.now_us);
    assert!(field.gauges().deferred > 1, "{:?}", field.tries.len() - start);
    field.wait(400 * MS);
    for id in 2..12 {
        assert_eq!(field.outcomes(id).last(), Some(&Outcome::Processed), "payment {id}");
    }
    let suspect = field.tries_of(1);
    let hastened =
        suspect.iter().filter(|it| (30 * SECOND..30 * SECOND + 400 * MS).contains(&it.at_us)).count();
    assert!(hastened <= 1, "{suspect:?}");
}

/// Payment 1 is declined by these, everything else is taken.
fn declining(config: DispatcherConfig, by: &'static [Processor]) -> Field {
    Field::with(
        config,
        move |it: &Try| {
            if it.id == 1 && by.contains(&it.processor) { declined() } else { taken() }
        },
    )
}

#[test]
fn what_one_declines_the_next_one_may_take() {
    let mut field = declining(config(), &[CHEAP]);
    field.pay(1);
    field.wait(SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Refused, Outcome::Processed]);
    assert_eq!((field.tries_at(1, CHEAP).len(), field.tries_at(1, DEAR).len()), (1, 1));
    assert_eq!(field.told.last().unwrap().completion.processor, DEAR);
}

#[test]
fn declined_by_all_it_ends_after_each_took_another_in_between() {
    let mut field = declining(config(), &[CHEAP, DEAR]);
    field.pay(1);
    field.wait(20 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Refused; 2], "nobody took another yet: it is open");
    // One ordinary payment for each of them proves it.
    field.pay(OTHERS);
    field.wait(5 * SECOND);
    assert_eq!(field.outcomes(OTHERS), [Outcome::Processed]);
    field.pay(OTHERS + 1);
    field.wait(5 * SECOND);
    field.pay(OTHERS + 2);
    field.wait(5 * SECOND);
    let outcomes = field.outcomes(1);
    assert_eq!(outcomes.last(), Some(&Outcome::Declined), "{outcomes:?}");
    let Told { completion, .. } = *field.told.iter().rev().find(|told| told.id == 1).unwrap();
    assert_eq!(completion.status, 402);
    for processor in [CHEAP, DEAR] {
        assert_eq!(field.tries_at(1, processor).len(), 2, "{processor:?}");
    }
    assert!(field.intents.iter().all(|(id, _, reason)| *id != 1 || *reason != Reason::Proof));
    let proofs = field.tries.iter().filter(|it| it.id >= OTHERS && it.processor == DEAR).count();
    assert_eq!(proofs, 1, "one ordinary payment finds out at the dearer one");
    assert_eq!(field.dispatcher.counters().declined, 1);
    assert_eq!(field.dispatcher.counters().unproven_declines, [0; 8]);
    assert_eq!(field.gauges().held, 0);
}

#[test]
fn where_nobody_comes_by_one_of_those_that_wait_for_a_proof_goes_itself() {
    // Everything is declined for five minutes, by a mistake of ours; then it is mended, and nobody else pays.
    let mended_us = 300 * SECOND;
    let mut field = Field::new(move |it: &Try| if it.at_us < mended_us { declined() } else { taken() });
    field.pay_each(1..11, 5 * MS);
    field.wait(mended_us - field.now_us);
    let tries = field.tries.iter().filter(|it| it.at_us > 60 * SECOND).count();
    assert!((4..=40).contains(&tries), "{tries} attempts in four minutes");
    assert_eq!(field.dispatcher.counters().declined, 0, "nothing shows that it is the payments' fault");
    field.wait(120 * SECOND);
    for id in 1..11 {
        assert_eq!(field.outcomes(id).last(), Some(&Outcome::Processed), "payment {id}");
    }
}

#[test]
fn a_queue_that_is_full_of_declined_payments_lets_in_those_that_show_what_is_taken() {
    let mut config = config();
    config.queue_len_max = 4;
    let is_bad = |id: u32| id < OTHERS;
    let mut field = Field::with(config, move |it: &Try| if is_bad(it.id) { declined() } else { taken() });
    field.pay_each(1..5, 5 * MS);
    field.wait(5 * SECOND);
    assert_eq!(field.gauges().held, 4, "declined by both, and nobody has shown that it is their fault");
    for id in OTHERS..OTHERS + 6 {
        field.pay(id);
        field.wait(30 * SECOND);
    }
    assert_eq!(field.dispatcher.counters().declined, 4);
    assert_eq!(field.gauges().held, 0);
    // Where those are declined, too, there is an end to it.
    let mut field = Field::with(config, |_: &Try| declined());
    for id in 1..200 {
        field.pay(id);
        field.wait(SECOND);
    }
    assert_eq!(field.gauges().held, 4 + PROOFS_LEN_MAX);
}

#[test]
fn a_decline_stands_where_the_profile_lets_nobody_else_try() {
    let mut config = config();
    config.processors.iter_mut().for_each(|policy| policy.declined_goes_on = false);
    let mut field = declining(config, &[CHEAP]);
    field.pay(1);
    field.wait(SECOND);
    field.pay(OTHERS);
    field.wait(2 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Refused, Outcome::Refused, Outcome::Declined]);
    assert_eq!(field.tries_at(1, DEAR), []);
}

#[test]
fn a_processor_that_declines_everything_is_broken_and_ends_nothing() {
    let mut field = Field::new(|it: &Try| if it.processor == CHEAP { declined() } else { taken() });
    let slowest_us = pay_others(&mut field, 20);
    assert!(slowest_us < SECOND, "the other one takes them: {slowest_us}");
    assert_ne!(field.gauges().breaker[0], BreakerState::Closed, "it takes nothing, whatever it says");
    assert!(field.dispatcher.counters().unproven_declines[0] > 10, "and that is counted");
    assert_eq!(field.dispatcher.counters().declined, 0);
    let tries = field.tries.iter().filter(|it| it.processor == CHEAP).count();
    assert!(tries < 100 + 20 * 20, "probes alone: {tries}");
    // Both: nothing ends, since nothing proves that it is the payments' fault.
    let mut field = Field::new(|_: &Try| declined());
    pay_others(&mut field, 20);
    assert_eq!(field.dispatcher.counters().declined, 0);
    assert_eq!(field.gauges().held, 100);
}

#[test]
fn a_processor_that_declines_everything_is_asked_seldom_however_many_wait() {
    for count in [20, 2_000] {
        let mut field = Field::new(|_: &Try| declined());
        field.pay_each(OTHERS..OTHERS + count, 5 * MS);
        field.wait(30 * SECOND - field.now_us);
        for processor in [CHEAP, DEAR] {
            let of_it = field.tries.iter().filter(|it| it.processor == processor && it.at_us > 20 * SECOND);
            let each_second = of_it.count() as u64 / 10;
            // Back-off at its longest: 150 ms, a fifth more or less.
            assert!(each_second <= 8, "{count} wait, {processor:?} is asked {each_second} times a second");
        }
    }
}

#[test]
fn what_another_refuses_is_not_declined_again_without_a_proof() {
    // Declined by the cheaper one, refused for ever by the dearer one, and nobody else pays after the first seconds.
    let mut field = Field::new(|it: &Try| match (it.id, it.processor) {
        (1, CHEAP) => declined(),
        (1, _) => refused(),
        _ => taken(),
    });
    field.pay(1);
    field.wait(60 * SECOND);
    assert_eq!(field.tries_at(1, CHEAP).len(), 1, "it took nothing else: {:?}", field.tries_of(1));
    assert!(field.tries_at(1, DEAR).len() > 5);
    assert_eq!(field.outcomes(1).iter().filter(|it| **it == Outcome::Declined).count(), 0);
}

#[test]
fn a_decline_never_ends_a_doubt() {
    let mut count = 0;
    let mut field = Field::new(move |it: &Try| {
        count += u32::from(it.id == 1);
        match (it.id, count) {
            (1, 1) => End::UNANSWERED,
            (1, _) => declined(),
            _ => taken(),
        }
    });
    field.pay(1);
    pay_others(&mut field, 60);
    assert_eq!(field.outcomes(1), [Outcome::Unknown]);
    assert_eq!(field.tries_at(1, DEAR), []);
    assert_eq!(field.tries_at(1, CHEAP).len(), 2, "from then on it is looked up, and never sent again");
}

#[test]
fn a_processor_is_left_alone_until_its_own_time() {
    let mut field = Field::new(|it: &Try| {
        if it.processor == CHEAP && it.at_us < 21 * SECOND {
            End { retry_after_ms: 5_000, ..end(Verdict::Overloaded, 429) }
        } else {
            taken()
        }
    });
    let slowest_us = pay_others(&mut field, 30);
    assert!(slowest_us < 300 * MS, "a quarter of a second's rest is waited for: {slowest_us}");
    let at_cheap: Vec<u64> = field
        .tries
        .iter()
        .filter(|it| it.processor == CHEAP && it.at_us < 21 * SECOND)
        .map(|it| it.at_us)
        .collect();
    assert_eq!(at_cheap.len(), 4, "one each five seconds: {at_cheap:?}");
    assert!(at_cheap.windows(2).all(|pair| pair[1] - pair[0] >= 5 * SECOND), "{at_cheap:?}");
    assert!(field.tries.iter().any(|it| it.processor == CHEAP && it.at_us > 25 * SECOND), "it is used again");
}

#[test]
fn one_payments_own_limit_holds_the_others_up_once() {
    let limited = End { retry_after_ms: 5_000, ..end(Verdict::Overloaded, 429) };
    let mut field = poisoned(&[1], limited);
    field.pay(1);
    // Both processors said that they rest, and were believed. Then others find out that they do not.
    let slowest_us = pay_others(&mut field, 10);
    assert!(slowest_us < 5_500 * MS, "{slowest_us}");
    let slowest_us = pay_others(&mut field, 30);
    assert!(slowest_us < 300 * MS, "{slowest_us}");
    assert!(field.tries_of(1).len() < 12, "{:?}", pauses(&field.tries_of(1)));
}

#[test]
fn three_in_a_row_without_a_time_are_a_rest() {
    let mut field =
        Field::new(|it: &Try| if it.processor == CHEAP { end(Verdict::Overloaded, 429) } else { taken() });
    let slowest_us = pay_others(&mut field, 30);
    assert!(slowest_us < SECOND, "{slowest_us}");
    let at_cheap = field.tries.iter().filter(|it| it.processor == CHEAP).count();
    assert!((20..=90).contains(&at_cheap), "at most about one a second, in the end: {at_cheap}");
}
