//! What the kernel has counted for each process of a running Galo, and for the machine.
//!
//! CPU, throttling and memory come from the cgroups, which count every thread that there ever was; wake-ups from /proc, which knows only
//! those that still live (none of ours ends under load). A reading is taken twice and subtracted. Reading costs a few hundred
//! microseconds of a CPU that is not the services' own.

use std::fs;

use galo_bench::results::{Process, Surroundings};

use crate::limits::{Cgroup, Usage};
use crate::up;

/// USER_HZ is 100 on every architecture that Linux has today (time(7)).
const TICK_US: u64 = 10_000;

/// Everything at one moment.
pub(super) struct Reading {
    processes: Vec<Count>,
    surroundings: Surroundings,
}

struct Count {
    name: String,
    limited: bool,
    usage: Usage,
    switches: (u64, u64),
    rss_bytes_max: u64,
}

impl Reading {
    pub(super) fn take(processes: &[up::Process]) -> Self {
        // The quick counters first, for all processes at nearly one moment.
        let counts = processes.iter().map(|process| {
            let usage = if process.cgroup.is_empty() {
                let cpu = process.identity.as_ref().and_then(|identity| Some(identity.sample()?.cpu_time()));
                let cpu_us = cpu.and_then(|time| u64::try_from(time.as_micros()).ok()).unwrap_or(0);
                Usage { cpu_us, ..Usage::default() }
            } else {
                Cgroup::at(process.cgroup.clone()).usage()
            };
            Count {
                name: process.name.clone(),
                limited: !process.cgroup.is_empty(),
                usage,
                switches: process.identity.as_ref().map(|identity| identity.switches()).unwrap_or_default(),
                rss_bytes_max: process
                    .identity
                    .as_ref()
                    .and_then(|identity| identity.rss_bytes_max())
                    .unwrap_or(0),
            }
        });
        Self { processes: counts.collect(), surroundings: read_surroundings() }
    }

    /// What each process used since `earlier`; of memory the most that there has been.
    pub(super) fn since(&self, earlier: &Self) -> Vec<Process> {
        let pairs = self.processes.iter().zip(&earlier.processes);
        let subtract = |now: u64, before: u64| now.saturating_sub(before);
        pairs
            .map(|(now, before)| Process {
                name: now.name.clone(),
                limited: now.limited,
                cpu_us: subtract(now.usage.cpu_us, before.usage.cpu_us),
                period_count: subtract(now.usage.period_count, before.usage.period_count),
                throttled_count: subtract(now.usage.throttled_count, before.usage.throttled_count),
                throttled_us: subtract(now.usage.throttled_us, before.usage.throttled_us),
                memory_bytes_max: now.usage.memory_bytes_max,
                rss_bytes_max: now.rss_bytes_max,
                wakeup_count: subtract(now.switches.0, before.switches.0),
                preemption_count: subtract(now.switches.1, before.switches.1),
            })
            .collect()
    }

    /// What the whole machine did since `earlier`.
    pub(super) fn surroundings_since(&self, earlier: &Self) -> Surroundings {
        let (now, before) = (&self.surroundings, &earlier.surroundings);
        Surroundings {
            busy_us: now.busy_us - before.busy_us,
            stolen_us: now.stolen_us - before.stolen_us,
            elapsed_us: now.elapsed_us - before.elapsed_us,
            load_average_centi: now.load_average_centi,
        }
    }
}

fn read_surroundings() -> Surroundings {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().replace('.', "");
    Surroundings { load_average_centi: load.parse().unwrap_or(0), ..parse_stat(&stat) }
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq steal, in ticks of all processors (proc_stat(5)).
fn parse_stat(stat: &str) -> Surroundings {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|text| text.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks[..] else {
        return Surroundings::default();
    };
    let busy = user + nice + system + irq + softirq;
    Surroundings {
        busy_us: busy * TICK_US,
        stolen_us: steal * TICK_US,
        elapsed_us: (busy + idle + iowait + steal) * TICK_US,
        load_average_centi: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_is_split_into_busy_stolen_and_idle() {
        let stat = parse_stat("cpu  10 1 5 100 20 2 3 4 7 0\ncpu0 1 2 3\n");
        assert_eq!((stat.busy_us, stat.stolen_us, stat.elapsed_us), (210_000, 40_000, 1_450_000));
        assert_eq!(parse_stat("").elapsed_us, 0);
    }
}
