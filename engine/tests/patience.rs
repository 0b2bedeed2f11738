//! What a refused payment's pauses are for, one rule a test: they spare those that refused it, and end with its patience for all others.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod field;

use std::cell::Cell;
use std::rc::Rc;

use field::{CHEAP, DEAR, Field, MS, SECOND, config, declined, pauses, refused, taken};
use galo_engine::dispatcher::DispatcherConfig;
use galo_engine::random::Random;
use galo_engine::router::Cost;
use galo_engine::verdict::{End, Verdict};
use galo_engine::{Outcome, Processor};
use galo_wire::record::{HealthNews, HealthSource};

/// Everybody else's ids.
const OTHERS: u32 = 100;

fn patient(patience_us: u64) -> DispatcherConfig {
    let mut config = config();
    config.router.patience_us = patience_us;
    config
}

/// Others, each 200 ms one, for so long.
fn pay_others(field: &mut Field, seconds: u32) {
    let first = OTHERS + u32::try_from(field.tries.len()).unwrap() * 1_000;
    field.pay_each(first..first + seconds * 5, 200 * MS);
}

/// What another gateway, or a health check, says of a processor.
fn hear(field: &mut Field, processor: Processor, failing: bool, retry_after_ms: u32) {
    let source = HealthSource::Check;
    let news = HealthNews { processor, source, failing, response_ms: 1, retry_after_ms };
    field.event(|dispatcher, now| dispatcher.handle(news.into(), now));
}

/// The pauses of one that was refused often are longer than its patience: they end with it, and the other one has it at once.
#[test]
fn no_pause_outlasts_patience_where_another_works() {
    for seed in 0..30 {
        let config = DispatcherConfig { seed, ..patient(SECOND) };
        let is_broken = Rc::new(Cell::new(false));
        let judged = is_broken.clone();
        let mut field =
            Field::with(
                config,
                move |it| {
                    if judged.get() && it.processor == CHEAP { refused() } else { taken() }
                },
            );
        pay_others(&mut field, 2);
        is_broken.set(true);
        let mut slowest_us = 0;
        for id in 1..=50 {
            field.pay(id);
            field.wait(100 * MS);
        }
        field.wait(3 * SECOND);
        for id in 1..=50 {
            let paid_us = 3 * SECOND + u64::from(id - 1) * 100 * MS;
            slowest_us = slowest_us.max(field.processed_after(id, paid_us).unwrap_or(u64::MAX));
        }
        // It looks again every 25 ms, and may be the probe whose turn it is.
        assert!(slowest_us <= SECOND + 100 * MS, "seed {seed}: {slowest_us} µs");
    }
}

/// Likewise for one alone that is refused while its processor takes others, however long that one asks it to stay away, and also where as many
/// refusals are no more than chance.
#[test]
fn a_suspect_goes_elsewhere_when_its_patience_is_over() {
    let limited = |retry_after_ms| End { verdict: Verdict::Overloaded, status: 429, retry_after_ms };
    for bad in [refused(), limited(0), limited(1_500), limited(20_000)] {
        for (seed, refused_of_ten) in (0..30).map(|seed| (seed, seed % 3 * 3)) {
            let config = DispatcherConfig { seed, ..patient(2 * SECOND) };
            let (mut random, mut count) = (Random::new(seed), 0);
            let mut field = Field::with(config, move |it| {
                count += u32::from(it.id == 1);
                match (it.id, it.processor) {
                    (1, CHEAP) if count <= 2 => refused(),
                    (1, CHEAP) => bad,
                    (_, CHEAP) if random.below(10) < refused_of_ten => refused(),
                    _ => taken(),
                }
            });
            field.pay_each(OTHERS..OTHERS + 100, 5 * MS);
            let start_us = field.now_us;
            field.pay(1);
            field.pay_each(OTHERS + 100..OTHERS + 700, 5 * MS);
            let waited_us = field.processed_after(1, start_us).unwrap_or(u64::MAX);
            let of_ten = format!("{bad:?}, {refused_of_ten} of ten, seed {seed}");
            assert!(waited_us <= 2 * SECOND + 100 * MS, "{of_ten}: {waited_us} µs");
            let asked_us = u64::from(bad.retry_after_ms) * MS;
            let early = pauses(&field.tries_at(1, CHEAP)).into_iter().skip(2).find(|us| *us < asked_us);
            assert_eq!(early, None, "{of_ten}");
        }
    }
}

/// One payment that the cheaper one refuses, while nothing can be sent to the dearer one: its tries grow rare, and it is not kept from the cheaper one.
#[test]
fn a_suspect_beside_a_processor_that_is_not_there_is_tried_ever_less_and_goes_back() {
    for patience_us in [0, 2 * SECOND, 30 * SECOND] {
        let mut field = Field::with(patient(patience_us), |it| match (it.id, it.processor) {
            (_, DEAR) => End::NOT_SENT,
            (1, CHEAP) if it.at_us < 8 * SECOND => refused(),
            _ => taken(),
        });
        pay_others(&mut field, 1);
        field.pay(1);
        pay_others(&mut field, 60);
        let count = field.tries_of(1).len();
        assert!((5..=40).contains(&count), "patience {patience_us} µs: {count} attempts");
        assert_eq!(field.outcomes(1).last(), Some(&Outcome::Processed), "patience {patience_us} µs");
    }
}

/// It pauses for half a minute, for the sake of one that refuses or declines it. Another one, which was down, is said to work again.
#[test]
fn who_comes_back_during_a_pause_has_the_payment_at_once() {
    for dear in [refused(), End::NOT_SENT] {
        for cheap in [refused(), declined()] {
            for seed in 0..10 {
                let is_down = Rc::new(Cell::new(true));
                let judged = is_down.clone();
                let config = DispatcherConfig { seed, ..patient(SECOND) };
                let mut field = Field::with(config, move |it| match (it.id, it.processor) {
                    (_, DEAR) if judged.get() => dear,
                    (1, CHEAP) if judged.get() => refused(),
                    (1, CHEAP) => cheap,
                    _ => taken(),
                });
                pay_others(&mut field, 1);
                hear(&mut field, DEAR, true, 0);
                field.pay(1);
                for _ in 0..20 {
                    hear(&mut field, DEAR, true, 0);
                    pay_others(&mut field, 1);
                }
                is_down.set(false);
                hear(&mut field, DEAR, false, 0);
                let back_us = field.now_us;
                pay_others(&mut field, 40);
                let after_us = field.processed_after(1, back_us).unwrap_or(u64::MAX);
                assert!(after_us <= 100 * MS, "{dear:?}, {cheap:?}, seed {seed}: {after_us} µs");
            }
        }
    }
}

/// The first refuses it for ever, the second did so once and rests for two seconds, the third, which was never asked, rests for long.
#[test]
fn of_three_the_one_that_works_has_it_whoever_was_never_asked() {
    const MIDDLE: Processor = Processor::N1;
    let mut config = patient(SECOND);
    config.router.processors = [CHEAP, MIDDLE, Processor::N2].into_iter().collect();
    for (cost, basis_points) in config.router.costs.iter_mut().zip([500, 1_000, 1_500]) {
        *cost = Cost { basis_points, fixed_cents: 0 };
    }
    let is_down = Rc::new(Cell::new(false));
    let judged = is_down.clone();
    let mut field = Field::with(config, move |it| match (it.id, it.processor) {
        (1, CHEAP) => refused(),
        (_, MIDDLE) if judged.get() => refused(),
        _ => taken(),
    });
    pay_others(&mut field, 2);
    is_down.set(true);
    hear(&mut field, Processor::N2, true, 200_000);
    field.pay(1);
    while field.tries_at(1, MIDDLE).is_empty() {
        pay_others(&mut field, 1);
        assert!(field.now_us < 60 * SECOND, "the second one is never asked");
    }
    hear(&mut field, MIDDLE, true, 2_000);
    is_down.set(false);
    let rest_ends_us = field.now_us + 2 * SECOND;
    pay_others(&mut field, 2);
    hear(&mut field, MIDDLE, false, 0);
    pay_others(&mut field, 20);
    let after_us = field.processed_after(1, rest_ends_us).unwrap_or(u64::MAX);
    assert!(after_us <= 100 * MS, "{after_us} µs, {:?}", field.tries_of(1));
}
