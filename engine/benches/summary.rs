//! What a summary costs with ten million payments in the ledger: `cargo bench --profile fast -p galo-engine --bench summary`.
//!
//! Ten million payments at 1,000 a second (ten million different milliseconds, far more than the time buckets can keep exact in their
//! 32 MiB) and at 5 a second (23 days). Asked for: everything, the auditor's last 15 seconds, one millisecond, and ranges with bounds drawn at random. The goal is
//! 200 µs for any of them.

use std::sync::OnceLock;

use divan::{Bencher, black_box};
use galo_engine::buckets::Buckets;
use galo_engine::random::Random;
use galo_engine::time::UnixMillis;

const PAYMENT_COUNT: u64 = 10_000_000;
const START_MS: u64 = 1_752_580_800_000;

/// Milliseconds between two payments.
const STEPS_MS: [u64; 2] = [1, 200];

fn main() {
    divan::main();
}

/// The aggregator's default bound.
fn buckets(step_ms: u64) -> &'static Buckets {
    static FULL: [OnceLock<Buckets>; 2] = [OnceLock::new(), OnceLock::new()];
    FULL[usize::from(step_ms != STEPS_MS[0])].get_or_init(|| {
        let mut buckets = Buckets::new(32 << 20);
        (0..PAYMENT_COUNT).for_each(|number| buckets.record(UnixMillis(START_MS + number * step_ms), 1_990));
        assert_eq!(buckets.sum(UnixMillis(0), UnixMillis(u64::MAX >> 8)).count, PAYMENT_COUNT);
        buckets
    })
}

fn end_ms(step_ms: u64) -> u64 {
    START_MS + PAYMENT_COUNT * step_ms
}

fn ask(bencher: Bencher<'_, '_>, step_ms: u64, mut range: impl FnMut() -> (u64, u64)) {
    let buckets = buckets(step_ms);
    bencher.bench_local(|| {
        let (from_ms, to_ms) = range();
        buckets.sum(black_box(UnixMillis(from_ms)), black_box(UnixMillis(to_ms)))
    });
}

#[divan::bench(args = STEPS_MS)]
fn everything(bencher: Bencher<'_, '_>, step_ms: u64) {
    ask(bencher, step_ms, || (0, u64::MAX >> 8));
}

#[divan::bench(args = STEPS_MS)]
fn the_last_15_seconds(bencher: Bencher<'_, '_>, step_ms: u64) {
    let end_ms = end_ms(step_ms);
    ask(bencher, step_ms, || (end_ms - 15_000, end_ms - 1_500));
}

#[divan::bench(args = STEPS_MS)]
fn one_millisecond(bencher: Bencher<'_, '_>, step_ms: u64) {
    let at_ms = end_ms(step_ms) - 500;
    ask(bencher, step_ms, || (at_ms, at_ms));
}

#[divan::bench(args = STEPS_MS)]
fn random_ranges(bencher: Bencher<'_, '_>, step_ms: u64) {
    let mut random = Random::new(1);
    let length_ms = PAYMENT_COUNT * step_ms;
    ask(bencher, step_ms, || {
        let (a, b) = (random.below(length_ms), random.below(length_ms));
        (START_MS + a.min(b), START_MS + a.max(b))
    });
}
