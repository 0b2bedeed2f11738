//! How Galo's micro-benchmarks measure: criterion, with CPU time in place of the clock's.
//!
//! CPU time of the thread, since the machine may be busy with other things: by the clock a neighbour that takes the processor is a
//! regression. What cannot be told apart so is a neighbour in the caches and on the way to memory.
//!
//! `cargo xtask microbench` runs them all and compares them with an earlier run. Must never hold a benchmark, nor depend on what one
//! measures.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use nix::time::{ClockId, clock_gettime};

/// CPU time of the thread that measures.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has had it since 2.6.12");
        now.into()
    }

    fn end(&self, begin: Duration) -> Duration {
        self.start() - begin
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        const { &WallTime }.formatter()
    }
}

/// The benchmarks of one program.
pub type Group<'a> = BenchmarkGroup<'a, CpuTime>;

/// The `main` of a program of benchmarks: `name` stands before the name of each of them.
///
/// A benchmark takes two to three seconds: 60 samples of 40 ms, after a third of a second that warms up. All samples have the same
/// length, so that each weighs the same in the median.
pub fn run(name: &str, benchmarks: impl FnOnce(&mut Group<'_>)) {
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .without_plots()
        .sample_size(60)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(2_400))
        .nresamples(20_000)
        .configure_from_args();
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat);
    benchmarks(&mut group);
    group.finish();
    criterion.final_summary();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_and_waiting_does_not() {
        let begin = CpuTime.start();
        std::thread::sleep(Duration::from_millis(200));
        let waited = CpuTime.end(begin);
        assert!(waited < Duration::from_millis(100), "{waited:?}");
        let begin = CpuTime.start();
        let mut worked = Duration::ZERO;
        while worked < Duration::from_millis(1) {
            worked = CpuTime.end(begin);
        }
    }
}
