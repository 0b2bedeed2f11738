//! Connections that fail while their processor does not, one rule a test: packets that vanish, and hang-ups at the moment of use.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod field;

use std::cell::Cell;
use std::rc::Rc;

use field::{CHEAP, DEAR, Field, HUNG_UP, MS, SECOND, Try, amount, config, config_with, end, taken};
use galo_engine::breaker::BreakerState;
use galo_engine::dispatcher::{DispatcherConfig, DoubtPolicy, Stored, Verification};
use galo_engine::router::Thresholds;
use galo_engine::time::UnixMillis;
use galo_engine::verdict::{End, Verdict};
use galo_engine::{Outcome, PROCESSORS_LEN_MAX};

/// When the connections freeze that are open then.
const FREEZE_US: u64 = 3 * SECOND;

/// After which an attempt ends that nobody answers.
const TIMEOUT_US: u64 = 30 * SECOND;

/// The processor does not bear the same request twice at the same time.
const ONE_AT_A_TIME: DoubtPolicy =
    DoubtPolicy { give_up_us: TIMEOUT_US, echoes_requested_at: false, ..DoubtPolicy::CONTEST };

fn steady() -> DispatcherConfig {
    let mut config = config();
    config.router.thresholds = Thresholds::STEADY;
    config
}

/// Whether an attempt is swallowed: what was sent over a connection from before, as the shell was told.
fn is_swallowed(it: &Try, renewed_us: &[Cell<u64>; PROCESSORS_LEN_MAX]) -> bool {
    let renewed_us = renewed_us[it.processor.index()].get();
    it.processor == CHEAP && it.at_us >= FREEZE_US && renewed_us < FREEZE_US
}

/// Connections to the cheaper processor freeze, which answers within two milliseconds.
fn frozen(config: DispatcherConfig) -> Field {
    let mut field = Field::with(config, |_| taken());
    let renewed_us = Rc::clone(&field.renewed_us);
    field = field.judge_with(move |it| {
        if is_swallowed(it, &renewed_us) { (End::UNANSWERED, TIMEOUT_US) } else { (taken(), 2 * MS) }
    });
    field
}

/// A hundred payments a second, from a second before the freeze until three seconds after it.
fn pay_through(field: &mut Field) {
    field.wait(FREEZE_US - SECOND - field.now_us);
    field.pay_each(0..400, 10 * MS);
}

/// Those that were swallowed.
fn swallowed(field: &Field) -> Vec<u32> {
    let renewed_us = field.renewed_us[CHEAP.index()].get();
    let is_it = |it: &&Try| it.processor == CHEAP && (FREEZE_US..renewed_us).contains(&it.at_us);
    field.tries.iter().filter(is_it).map(|it| it.id).collect()
}

#[test]
fn payments_flow_again_over_fresh_connections_and_what_was_swallowed_is_sent_again() {
    for config in [config(), steady()] {
        let mut field = frozen(config);
        pay_through(&mut field);
        field.wait(SECOND);
        let swallowed = swallowed(&field);
        assert!((10..40).contains(&swallowed.len()), "{swallowed:?}");
        for id in 0..400 {
            let arrived_us = FREEZE_US - SECOND + u64::from(id) * 10 * MS;
            let took_us = field.processed_after(id, arrived_us).unwrap();
            assert!(took_us < 2 * SECOND, "{id} took {took_us} µs");
            let count = if swallowed.contains(&id) { 2 } else { 1 };
            assert_eq!(field.tries_at(id, CHEAP).len(), count, "{id}");
            assert!(field.tries_at(id, DEAR).is_empty(), "{id} went elsewhere");
        }
        let again = swallowed.iter().map(|id| field.tries_of(*id));
        assert!(again.into_iter().all(|tries| tries[0].requested_at_ms == tries[1].requested_at_ms));
        assert_eq!(field.given_up.len(), swallowed.len());
        assert_eq!(field.dispatcher.counters().given_up[CHEAP.index()], swallowed.len() as u64);
        assert_eq!(field.gauges().breaker[CHEAP.index()], BreakerState::Closed);
        assert_eq!(field.gauges().in_flight[CHEAP.index()], 0);
    }
}

#[test]
fn the_last_payment_of_all_is_given_up_without_another_one() {
    let mut field = frozen(steady());
    field.wait(FREEZE_US - field.now_us);
    field.pay(1);
    field.wait(300 * MS);
    field.pay(2);
    let paid_us = field.now_us;
    field.wait(SECOND);
    assert_eq!(field.processed_after(2, paid_us), Some(2 * MS));
    let took_us = field.processed_after(1, FREEZE_US).unwrap();
    assert!((550 * MS..600 * MS).contains(&took_us), "{took_us} µs");
}

#[test]
fn a_processor_that_became_slow_is_sent_nothing_twice() {
    for config in [config(), steady()] {
        for slow_us in [300 * MS, 600 * MS, 1_500 * MS, 5 * SECOND] {
            let mut field = Field::with(config, |_| taken()).judge_with(move |it| {
                let is_slow = it.processor == CHEAP && it.at_us >= FREEZE_US;
                (taken(), if is_slow { slow_us } else { 2 * MS })
            });
            pay_through(&mut field);
            field.wait(90 * SECOND);
            for id in 0..400 {
                assert_eq!(field.tries_of(id).len(), 1, "{id}, where answers take {slow_us} µs");
                assert!(field.processed_after(id, 0).is_some(), "{id} is processed");
            }
            assert!(field.given_up.is_empty() && field.lookups.is_empty(), "{:?}", field.given_up);
            // Fresh connections cost little, and were worth a try.
            assert!(field.renewed_us[CHEAP.index()].get() > FREEZE_US);
        }
    }
}

#[test]
fn a_processor_that_stood_still_and_goes_on_is_sent_nothing_twice() {
    // Whatever was sent since is answered at the same moment; what was sent last, a millisecond before the others.
    let goes_on_us = FREEZE_US + 2 * SECOND;
    let mut field = Field::with(steady(), |_| taken()).judge_with(move |it| {
        let is_held = it.processor == CHEAP && (FREEZE_US..goes_on_us).contains(&it.at_us);
        let extra_us = if it.at_us < goes_on_us - 20 * MS { 5 * MS } else { 2 * MS };
        (taken(), if is_held { goes_on_us - it.at_us + extra_us } else { 2 * MS })
    });
    pay_through(&mut field);
    field.wait(60 * SECOND);
    assert!(field.given_up.is_empty(), "{:?}", field.given_up);
    assert_eq!(field.tries.len(), 400);
}

#[test]
fn a_processor_that_works_through_what_it_has_is_sent_nothing_twice() {
    // What goes over fresh connections is answered at once, and of what it had one each fifth of a second.
    let mut field = Field::with(steady(), |_| taken());
    let (renewed_us, mut answer_us) = (Rc::clone(&field.renewed_us), FREEZE_US + 200 * MS);
    field = field.judge_with(move |it| {
        if !is_swallowed(it, &renewed_us) {
            return (taken(), 2 * MS);
        }
        answer_us += 200 * MS;
        (taken(), answer_us - it.at_us)
    });
    pay_through(&mut field);
    field.wait(60 * SECOND);
    assert!(field.renewed_us[CHEAP.index()].get() > FREEZE_US);
    assert!(field.given_up.is_empty(), "{:?}", field.given_up);
    assert_eq!(field.tries.len(), 400);
}

#[test]
fn quick_refusals_do_not_prove_that_what_is_silent_is_lost() {
    // It works on what it has, for three seconds, and takes nothing more.
    let mut field = Field::with(steady(), |_| taken()).judge_with(|it| match it.at_us {
        _ if it.processor == DEAR => (taken(), 2 * MS),
        ..FREEZE_US => (taken(), 2 * MS),
        at_us if at_us < FREEZE_US + 100 * MS => (taken(), 3 * SECOND),
        at_us if at_us < FREEZE_US + 4 * SECOND => (end(Verdict::Unavailable, 503), MS),
        _ => (taken(), 2 * MS),
    });
    pay_through(&mut field);
    field.wait(60 * SECOND);
    assert!(field.given_up.is_empty(), "{:?}", field.given_up);
}

#[test]
fn where_a_second_request_would_charge_twice_what_was_swallowed_is_only_looked_up() {
    let mut config = steady();
    config.processors.iter_mut().for_each(|policy| policy.doubt = ONE_AT_A_TIME);
    // Each second one arrived.
    let mut field = frozen(config).clerk_with(|_, id, _| {
        let found = Verification::Found {
            stored: Stored::Processed,
            requested_at: Some(UnixMillis(2_000_000_000_000)),
            amount: Some(amount()),
        };
        if id % 2 == 0 { found } else { Verification::NotFound }
    });
    pay_through(&mut field);
    field.wait(SECOND);
    let swallowed = swallowed(&field);
    assert!(swallowed.len() > 10, "{swallowed:?}");
    for id in &swallowed {
        assert_eq!(field.tries_of(*id).len(), 1, "{id}");
        let is_processed = field.processed_after(*id, FREEZE_US).is_some_and(|us| us < 2 * SECOND);
        assert_eq!(is_processed, id % 2 == 0, "{id}");
        assert!(field.lookups.iter().any(|lookup| lookup.1 == *id), "{id}");
    }
    // Until no answer can come any more.
    field.wait(60 * SECOND);
    for id in swallowed.into_iter().filter(|id| id % 2 == 1) {
        let tries = field.tries_of(id);
        assert_eq!(tries.len(), 2, "{id}");
        let pause_us = tries[1].at_us - tries[0].at_us;
        assert!((TIMEOUT_US..TIMEOUT_US + 3 * SECOND).contains(&pause_us), "{id} after {pause_us} µs");
        assert_eq!(tries[0].requested_at_ms, tries[1].requested_at_ms);
        assert!(field.processed_after(id, 0).is_some(), "{id}");
    }
}

#[test]
fn what_nothing_else_could_settle_is_waited_for() {
    let policy = DoubtPolicy { has_lookup: false, ..ONE_AT_A_TIME };
    let mut field = frozen(DispatcherConfig { router: steady().router, ..config_with(policy) });
    pay_through(&mut field);
    field.wait(60 * SECOND);
    assert!(field.given_up.is_empty(), "{:?}", field.given_up);
    for id in swallowed(&field) {
        let pauses = field::pauses(&field.tries_of(id));
        assert!(pauses.len() == 1 && pauses[0] >= TIMEOUT_US, "{id}: {pauses:?}");
    }
}

#[test]
fn a_payment_that_is_silent_over_a_fresh_connection_too_is_waited_for() {
    const SILENT: u32 = 250;
    let mut field = Field::with(steady(), |_| taken());
    let renewed_us = Rc::clone(&field.renewed_us);
    field = field.judge_with(move |it| match it {
        it if it.id == SILENT || is_swallowed(it, &renewed_us) => (End::UNANSWERED, TIMEOUT_US),
        _ => (taken(), 2 * MS),
    });
    field.wait(FREEZE_US - SECOND - field.now_us);
    field.pay_each(0..100, 10 * MS);
    field.pay(SILENT);
    // One payment a second: each finds the silent one awaited for longer than answers take.
    field.pay_each(300..320, SECOND);
    let given_up = field.given_up.iter().filter(|it| it.1 == SILENT).count();
    assert_eq!((given_up, field.tries_of(SILENT).len()), (1, 2));
}

#[test]
fn a_hang_up_as_a_connection_is_used_is_answered_by_the_same_attempt_at_once() {
    let mut field = Field::with(config(), |_| taken());
    let renewed_us = Rc::clone(&field.renewed_us);
    field = field.judge_with(move |it| {
        let is_kept = renewed_us[CHEAP.index()].get() < it.at_us;
        (if is_kept && it.id >= 100 { HUNG_UP } else { taken() }, MS)
    });
    field.pay_each(0..100, 10 * MS);
    for first in (100..200).step_by(10) {
        // Ten at once, and so ten in a row.
        (first..first + 10).for_each(|id| field.pay(id));
        field.wait(10 * MS);
    }
    field.wait(SECOND);
    for id in 100..200 {
        let tries = field.tries_of(id);
        assert_eq!(tries.len(), 2, "{id}");
        assert_eq!((tries[1].processor, tries[1].requested_at_ms), (CHEAP, tries[0].requested_at_ms));
        assert_eq!(tries[1].at_us - tries[0].at_us, MS, "at once");
        assert_eq!(field.outcomes(id), [Outcome::Unknown, Outcome::Processed]);
    }
    assert_eq!(field.gauges().breaker[CHEAP.index()], BreakerState::Closed);
    assert_eq!(field.dispatcher.counters().hung_up[CHEAP.index()], 100);
    assert!(field.tries.iter().all(|it| it.processor == CHEAP), "none went elsewhere");
}

#[test]
fn a_processor_that_hangs_up_on_fresh_connections_too_is_broken() {
    let mut field = Field::with(config(), |_| taken()).judge_with(|it| match it.processor {
        CHEAP => (HUNG_UP, MS),
        _ => (taken(), MS),
    });
    field.pay_each(0..10, 10 * MS);
    assert_ne!(field.gauges().breaker[CHEAP.index()], BreakerState::Closed);
    field.wait(10 * SECOND);
    let tries = field.tries.iter().filter(|it| it.processor == CHEAP).count();
    assert!(tries < 250, "{tries} in ten seconds, of ten payments");
}
