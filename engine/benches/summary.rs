//! What a summary costs with ten million payments in the ledger: `cargo xtask microbench summary`.
//!
//! Ten million payments at 1,000 a second (ten million different milliseconds, far more than the time buckets can keep exact in their
//! 32 MiB) and at 5 a second (23 days). Asked for: everything, the auditor's last 15 seconds, one millisecond, and ranges with bounds drawn at random. The goal is
//! 200 µs for any of them.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::BenchmarkId;
use galo_engine::buckets::Buckets;
use galo_engine::random::Random;
use galo_engine::time::UnixMillis;
use galo_microbench::Group;

const PAYMENT_COUNT: u64 = 10_000_000;
const START_MS: u64 = 1_752_580_800_000;

/// Milliseconds between two payments.
const STEPS_MS: [u64; 2] = [1, 200];

fn main() {
    galo_microbench::run("summary", |group| STEPS_MS.iter().for_each(|step_ms| summaries(group, *step_ms)));
}

/// The aggregator's default bound.
fn full_buckets(step_ms: u64) -> Buckets {
    let mut buckets = Buckets::new(32 << 20);
    (0..PAYMENT_COUNT).for_each(|number| buckets.record(UnixMillis(START_MS + number * step_ms), 1_990));
    assert_eq!(buckets.sum(UnixMillis(0), UnixMillis(u64::MAX >> 8)).count, PAYMENT_COUNT);
    buckets
}

fn summaries(group: &mut Group<'_>, step_ms: u64) {
    // Made once, and only if one of these is to run.
    let buckets = LazyCell::new(|| full_buckets(step_ms));
    let mut ask = |name: &str, range: &mut dyn FnMut() -> (u64, u64)| {
        group.bench_function(BenchmarkId::new(name, step_ms), |bencher| {
            let buckets = &*buckets;
            bencher.iter(|| {
                let (from_ms, to_ms) = range();
                buckets.sum(black_box(UnixMillis(from_ms)), black_box(UnixMillis(to_ms)))
            });
        });
    };
    let length_ms = PAYMENT_COUNT * step_ms;
    let end_ms = START_MS + length_ms;
    ask("everything", &mut || (0, u64::MAX >> 8));
    ask("the_last_15_seconds", &mut || (end_ms - 15_000, end_ms - 1_500));
    ask("one_millisecond", &mut || (end_ms - 500, end_ms - 500));
    let mut random = Random::new(1);
    ask("random_ranges", &mut || {
        let (a, b) = (random.below(length_ms), random.below(length_ms));
        (START_MS + a.min(b), START_MS + a.max(b))
    });
}
