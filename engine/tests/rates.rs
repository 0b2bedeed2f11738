//! A processor that may be sent so many requests a second, and no more: what leaves for it, what goes elsewhere, what waits.

#![allow(dead_code, clippy::unwrap_used, reason = "tests; what they share is more than each needs")]

mod field;

use field::*;
use galo_engine::Outcome;
use galo_engine::breaker::BreakerState;
use galo_engine::dispatcher::{DispatcherConfig, DoubtPolicy, Stored, Verification};
use galo_engine::outlook::{Outlook, OutlookConfig};
use galo_engine::rate::{RateLimit, Use};
use galo_engine::router::{ProcessorSet, Thresholds};
use galo_engine::verdict::Verdict;

/// The cheaper one takes so many a second.
fn limited(per_second: u32, patience_us: u64) -> DispatcherConfig {
    let mut config = config();
    config.router.patience_us = patience_us;
    config.router.thresholds = Thresholds::STEADY;
    config.processors[0].rate = Some(RateLimit { per_second, shares: 1 });
    config
}

/// Requests to the cheaper one: attempts and look-ups.
fn requests(field: &Field) -> Vec<u64> {
    let attempts = field.tries.iter().filter(|it| it.processor == CHEAP).map(|it| it.at_us);
    let mut times: Vec<u64> = attempts.chain(field.lookups.iter().map(|(at_us, _)| *at_us)).collect();
    times.sort_unstable();
    times
}

/// The most within any second.
fn most_in_a_second(times: &[u64]) -> usize {
    let before = |at_us: u64| times.partition_point(|it| *it < at_us);
    times.iter().enumerate().map(|(first, at_us)| before(at_us + SECOND) - first).max().unwrap_or(0)
}

#[test]
fn minutes_at_four_times_the_limit_give_the_cheaper_one_its_rate_and_the_other_the_rest() {
    for patience_us in [0, SECOND, 5 * SECOND] {
        let mut field = Field::with(limited(50, patience_us), |_| taken());
        let start_us = field.now_us;
        field.pay_each(0..24_000, 5 * MS);
        let cheap = requests(&field);
        assert!(
            (6_000..=6_011).contains(&cheap.len()),
            "{} in two minutes, patience {patience_us} µs",
            cheap.len()
        );
        assert!(most_in_a_second(&cheap) <= 60, "{} in a second", most_in_a_second(&cheap));
        field.wait(patience_us + 10 * SECOND);
        assert_eq!(field.told.len(), 24_000, "each ends once");
        for told in &field.told {
            assert_eq!(told.completion.outcome, Outcome::Processed);
            let after_us = told.at_us - (start_us + u64::from(told.id) * 5 * MS);
            assert!(after_us <= patience_us + 50 * MS, "{} after {after_us} of {patience_us} µs", told.id);
        }
        assert_eq!(field.tries.len(), 24_000, "nothing is tried twice");
        assert_eq!(field.gauges().breaker[0], BreakerState::Closed);
        assert!(field.dispatcher.counters().rate_held[0] > 0);
        assert_eq!(field.dispatcher.counters().rate_held[1], 0);
    }
}

#[test]
fn below_the_limit_nothing_waits_and_nothing_goes_elsewhere() {
    let mut field = Field::with(limited(50, 5 * SECOND), |_| taken());
    field.pay_each(0..6_000, 20 * MS);
    assert!(field.tries.iter().all(|it| it.processor == CHEAP));
    assert_eq!(field.dispatcher.counters().rate_held, [0; galo_engine::PROCESSORS_LEN_MAX]);
}

#[test]
fn a_limit_is_no_evidence_and_alone_it_only_paces() {
    let mut config = limited(10, 5 * SECOND);
    config.router.processors = ProcessorSet::EMPTY.with(CHEAP);
    let mut field = Field::with(config, |_| taken());
    let start_us = field.now_us;
    field.pay_each(0..100, MS);
    field.wait(10 * SECOND);
    let times = requests(&field);
    assert_eq!(times.len(), 100, "with nobody else they all wait for it");
    assert!(times[99] - start_us < 10 * SECOND + 50 * MS, "the last after {} µs", times[99] - start_us);
    assert!(times.windows(2).skip(2).all(|pair| pair[1] - pair[0] <= 105 * MS), "no token is left lying");
    assert_eq!(field.gauges().breaker[0], BreakerState::Closed);
    assert!(field.gauges().limit[0] <= 32, "a limit that is not met does not grow");
}

#[test]
fn a_token_that_comes_is_used_at_once_and_nobody_looks_for_it_meanwhile() {
    let mut config = limited(3, 60 * SECOND);
    config.router.processors = ProcessorSet::EMPTY.with(CHEAP);
    let mut field = Field::with(config, |_| taken());
    field.pay_each(0..2, MS);
    let mut waits = Vec::new();
    for _ in 0..15 {
        waits.push(field.dispatcher.tick_wait_us().expect("one waits"));
        field.wait(20 * MS);
    }
    field.wait(200 * MS);
    assert!(waits.iter().all(|wait_us| (5 * MS..=25 * MS).contains(wait_us)), "{waits:?}");
    let times = requests(&field);
    let after_us = times[1] - times[0];
    assert!(
        (333_334..=339_000).contains(&after_us),
        "the token is there after 333,334 µs, used after {after_us}"
    );
}

/// Pending for ever, and asked about each 100 ms.
fn pending(per_second: u32) -> Field {
    let mut config = limited(per_second, 5 * SECOND);
    config.router.processors = ProcessorSet::EMPTY.with(CHEAP);
    config.processors[0].doubt = DoubtPolicy { lookup_every_us: 100 * MS, ..DoubtPolicy::CONTEST };
    let judge = |it: &Try| if it.id < 100 { end(Verdict::Pending, 202) } else { taken() };
    let stored = Verification::Found { stored: Stored::Pending, amount: None, requested_at: None };
    Field::with(config, judge).clerk_with(move |_, _, _| stored)
}

#[test]
fn look_ups_count_and_take_turns_with_payments() {
    let mut field = pending(10);
    field.pay_each(0..40, 100 * MS);
    let (from_us, attempts) = (field.now_us, field.tries.len());
    field.pay_each(100..400, 50 * MS);
    let times: Vec<u64> = requests(&field).into_iter().filter(|at_us| *at_us >= from_us).collect();
    assert!((145..=152).contains(&times.len()), "{} in 15 s", times.len());
    assert!(most_in_a_second(&times) <= 12);
    let payments = field.tries.len() - attempts;
    assert!((70..=80).contains(&payments), "{payments} of {}", times.len());
}

#[test]
fn a_duplicate_without_a_token_is_looked_up_with_the_next_one() {
    let mut config = limited(1, 60 * SECOND);
    config.router.processors = ProcessorSet::EMPTY.with(CHEAP);
    let found = Verification::Found { stored: Stored::Processed, amount: Some(amount()), requested_at: None };
    let mut field = Field::with(config, |_| end(Verdict::Duplicate, 422)).clerk_with(move |_, _, _| found);
    let start_us = field.now_us;
    field.pay(1);
    field.wait(10 * MS);
    assert_eq!(field.lookups, []);
    field.wait(2 * SECOND);
    assert_eq!(field.outcomes(1), [Outcome::Processed]);
    let looked_up_us = field.lookups[0].0 - start_us;
    assert!((SECOND..=SECOND + 10 * MS).contains(&looked_up_us), "after {looked_up_us} µs");
}

#[test]
fn a_reload_changes_it_and_takes_it_away() {
    let before = limited(10, 5 * SECOND);
    let mut field = Field::with(before, |_| taken());
    field.pay_each(0..1_000, 10 * MS);
    let first = requests(&field).len();
    assert!((100..=112).contains(&first), "{first}");
    let mut after = limited(40, 5 * SECOND);
    field.dispatcher.reconfigure(after.router, after.processors);
    field.pay_each(1_000..2_000, 10 * MS);
    let second = requests(&field).len() - first;
    assert!((395..=409).contains(&second), "{second}");
    after.processors[0].rate = None;
    field.dispatcher.reconfigure(after.router, after.processors);
    field.wait(5 * SECOND);
    let (all, from) = (requests(&field).len(), field.tries.len());
    field.pay_each(2_000..3_000, 10 * MS);
    assert_eq!(requests(&field).len() - all, 1_000, "no limit");
    assert_eq!(field.tries.len() - from, 1_000);
}

#[test]
fn a_place_that_is_given_up_gives_its_token_back() {
    let rate = Some(RateLimit { per_second: 1, shares: 1 });
    let mut outlook =
        Outlook::new(OutlookConfig { concurrency_max: 4, rate, thresholds: Thresholds::STEADY }, 1);
    let now = Field::with(limited(1, 0), |_| taken()).now();
    let place = outlook.try_reserve(Use::Payment, now).expect("the first");
    assert_eq!(outlook.try_reserve(Use::Payment, now), None);
    outlook.cancel(place, now);
    assert_eq!(outlook.try_reserve(Use::Payment, now), Some(place));
    assert_eq!((outlook.try_reserve(Use::Payment, now), outlook.in_flight()), (None, 1));
}
