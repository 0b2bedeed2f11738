//! What a benchmark found, as it is kept in a file: raw, one entry for each run, nothing left out or averaged.
//!
//! Whole numbers with their units in their names. The file is what a report is made from, and can be made from again.

#![allow(missing_docs, reason = "a field that says what it is needs no second sentence")]

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::budget::Part;

/// Points of a latency curve for each power of ten of rarity.
pub const CURVE_STEPS: u32 = 12;
/// Powers of ten: to one in a hundred thousand.
pub const CURVE_NINES: u32 = 5;

/// The side that all others are compared with.
pub const FLOOR: &str = "floor";

/// Everything of one benchmark.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Results {
    pub machine: Machine,
    /// Open-loop runs, in the order in which they were made.
    pub runs: Vec<Run>,
    /// Short runs in which system calls were counted, apart from the others since counting costs time.
    pub syscalls: Vec<SyscallRun>,
    /// Why there are none, if there are none.
    pub syscalls_missing: Option<String>,
    pub k6: Vec<K6Run>,
    /// Runs of k6 in which system calls were counted. This and what follows is missing in files of earlier versions.
    #[serde(default)]
    pub k6_syscalls: Vec<SyscallRun>,
    /// Runs in which perf looked where the CPU goes.
    #[serde(default)]
    pub budget: Vec<BudgetRun>,
    /// Why there are none, if there are none.
    #[serde(default)]
    pub budget_missing: Option<String>,
}

/// Where and with what.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Machine {
    pub date: String,
    /// With `-dirty` if files differed from it.
    pub commit: String,
    pub kernel: String,
    pub processor: String,
    pub processor_count: usize,
    pub memory_bytes: u64,
    pub haproxy: String,
    pub profile: String,
    pub command: String,
    /// Each service's, as text; empty without limits.
    pub limits: BTreeMap<String, String>,
}

/// One side under one open-loop load.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Run {
    pub round: u32,
    /// [`FLOOR`], or `galo` with its durability mode.
    pub side: String,
    pub outcome: Outcome,
    /// What each process used while the load counted.
    pub processes: Vec<Process>,
    pub surroundings: Surroundings,
    /// Payments accepted and not processed right after the last send; `None` if nobody keeps books.
    pub open_count_at_end: Option<u64>,
    /// Until none was open; `None` if that did not come.
    pub drain_ms: Option<u64>,
}

/// What else the machine did meanwhile.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Surroundings {
    /// By everybody, in all processors together.
    pub busy_us: u64,
    /// Taken by the hypervisor for others.
    pub stolen_us: u64,
    pub elapsed_us: u64,
    pub load_average_centi: u64,
}

/// What the generator saw.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Outcome {
    pub rate: u32,
    pub connections: usize,
    pub seconds: u32,
    /// Payments that count: all but the warm-up's.
    pub payment_count: u64,
    /// Answered 2xx.
    pub accepted_count: u64,
    /// Answered otherwise.
    pub refused_count: u64,
    /// Whose connection ended first.
    pub broken_count: u64,
    pub unanswered_count: u64,
    /// Which found every connection taken and waited for one.
    pub waited_count: u64,
    /// From the moment a payment was due to the end of its answer.
    pub latency: Percentiles,
    /// From the moment a payment was due to the moment the generator came to it.
    pub self_lag: Percentiles,
    /// The generator's own CPU.
    pub cpu_us: u64,
}

/// A distribution.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// The values at rarities from 1 in 1 to 1 in 10^[`CURVE_NINES`], [`CURVE_STEPS`] for each power of ten.
    pub curve_us: Vec<u64>,
}

impl Percentiles {
    /// Of a histogram of microseconds.
    #[must_use]
    #[allow(clippy::float_arithmetic, reason = "a rarity, no money")]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let rarity = |step: u32| 1.0 - 10_f64.powf(-f64::from(step) / f64::from(CURVE_STEPS));
        Self {
            count: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max(),
            curve_us: (0..=CURVE_NINES * CURVE_STEPS).map(|step| at(rarity(step))).collect(),
        }
    }
}

/// What one process used while the load counted.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Process {
    pub name: String,
    /// The compose file limits it; others (processors) are not Galo's.
    pub limited: bool,
    /// By its cgroup's account; by /proc's where it has none, to 10 ms.
    pub cpu_us: u64,
    /// Periods of 100 ms, and those in which the quota ran out.
    pub period_count: u64,
    pub throttled_count: u64,
    pub throttled_us: u64,
    /// Since its start, page cache that it dirtied included; 0 without a cgroup.
    pub memory_bytes_max: u64,
    /// Its own pages at most, since its start.
    pub rss_bytes_max: u64,
    /// Times that it went to sleep by itself, hence was woken up.
    pub wakeup_count: u64,
    /// Times that it was made to give way.
    pub preemption_count: u64,
}

/// System calls of one side in a run of its own.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SyscallRun {
    pub side: String,
    /// Of k6's, which has none, 0.
    pub rate: u32,
    pub payment_count: u64,
    /// Calls of each process, by name; `all` is their sum.
    pub processes: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Samples of one side's processes in a short run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BudgetRun {
    pub side: String,
    pub outcome: Outcome,
    /// What each process used in the whole run.
    pub processes: Vec<Process>,
    /// From one sample of a processor to the next.
    pub interval_us: u64,
    /// How long samples were taken.
    pub seconds: u32,
    /// Of each process.
    pub samples: BTreeMap<String, BTreeMap<Part, u64>>,
}

/// One run of k6.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct K6Run {
    pub round: u32,
    pub side: String,
    /// Ours, or the contest's.
    pub script: String,
    pub p50_us: u64,
    #[serde(default)]
    pub p90_us: Option<u64>,
    pub p99_us: u64,
    #[serde(default)]
    pub p999_us: Option<u64>,
    /// k6's own.
    #[serde(default)]
    pub cpu_us: Option<u64>,
    pub accepted_count: u64,
    /// What made the run a bad one. The floor keeps no books, so its run is never asked.
    pub complaints: Vec<String>,
    pub processes: Vec<Process>,
    pub surroundings: Surroundings,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_from_before_the_budget_is_read() {
        let old = r#"{ "machine": { "date": "", "commit": "", "kernel": "", "processor": "", "processor_count": 2, "memory_bytes": 0,
            "haproxy": "", "profile": "", "command": "", "limits": {} }, "runs": [], "syscalls": [], "syscalls_missing": null,
            "k6": [ { "round": 1, "side": "galo", "script": "", "p50_us": 700, "p99_us": 2700, "accepted_count": 17, "complaints": [],
            "processes": [], "surroundings": { "busy_us": 0, "stolen_us": 0, "elapsed_us": 0, "load_average_centi": 0 } } ] }"#;
        let results: Results = serde_json::from_str(old).expect("what earlier versions wrote");
        assert_eq!(results.k6[0].p50_us, 700);
        assert_eq!((results.k6[0].p90_us, results.k6[0].p999_us, results.k6[0].cpu_us), (None, None, None));
        assert!(results.budget.is_empty() && results.k6_syscalls.is_empty());
    }

    #[test]
    fn parts_of_a_budget_survive_the_file() {
        let samples = BTreeMap::from([("haproxy".to_owned(), BTreeMap::from([(Part::TcpSend, 3_u64)]))]);
        let text = serde_json::to_string(&samples).expect("keys by name");
        assert_eq!(text, r#"{"haproxy":{"tcp_send":3}}"#);
        assert_eq!(
            serde_json::from_str::<BTreeMap<String, BTreeMap<Part, u64>>>(&text).expect("the same"),
            samples
        );
    }

    #[test]
    fn a_curve_passes_through_its_percentiles() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("the crate's example");
        (1..=100_000).for_each(|value| histogram.saturating_record(value));
        let percentiles = Percentiles::of(&histogram);
        assert_eq!(percentiles.curve_us.len(), 61);
        let near =
            |found: u64, value: u64| assert!(found.abs_diff(value) <= value / 500, "{found} for {value}");
        for (nines, value) in [(1, 90_000), (2, 99_000), (3, 99_900)] {
            near(percentiles.curve_us[nines * 12], value);
        }
        near(percentiles.p50_us, 50_000);
        near(percentiles.p99_us, 99_000);
    }
}
