//! Tables for people, out of raw results.
//!
//! A row stands for all runs of one side at one rate: each figure is the median of theirs, with the least and the most where the spread
//! matters. Ratios are taken run by run against the floor of the same round and rate, and the median of the ratios is shown; a
//! round without a floor has none. Must never leave a run out: what was bad shows in the columns beside it.

#![allow(clippy::float_arithmetic, reason = "latencies and ratios for display, no money")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::plot;
use crate::results::{FLOOR, K6Run, Process, Results, Run};

/// A generator whose own lag is more than this part of a row's p99 is named below the table.
const SELF_LAG_SHARE_MAX: f64 = 0.2;

/// Writes `<name>.md` and its drawings into a folder; returns what was written, the text first.
///
/// # Errors
/// If a file cannot be written.
pub fn write(results: &Results, folder: &Path, name: &str) -> Result<Vec<PathBuf>, String> {
    fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let plots = plot::draw(results, folder, name)?;
    let mut text = markdown(results);
    for plot in &plots {
        let file = plot.file_name().unwrap_or_default().to_string_lossy();
        push(&mut text, format_args!("\n![{}]({file})\n", file.trim_end_matches(".svg")));
    }
    let path = folder.join(format!("{name}.md"));
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok([vec![path], plots].concat())
}

/// The runs of one side at one rate.
pub(crate) struct Group<'a> {
    pub(crate) rate: u32,
    pub(crate) side: &'a str,
    pub(crate) runs: Vec<&'a Run>,
}

/// All groups by rate, the floor first.
pub(crate) fn groups(results: &Results) -> Vec<Group<'_>> {
    let mut found: BTreeMap<(u32, bool, &str), Vec<&Run>> = BTreeMap::new();
    for run in &results.runs {
        found.entry((run.outcome.rate, run.side != FLOOR, &run.side)).or_default().push(run);
    }
    found.into_iter().map(|((rate, _, side), runs)| Group { rate, side, runs }).collect()
}

/// The report without its drawings.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let mut text = String::from(
        "# What does a payment cost, beside a floor that does nothing?\n\n\
         Made by the command below; [performance.md](../performance.md) says what follows from it. The *floor* is HAProxy with the same \
         configuration before a responder that reads nothing, in the gateways' places and under their limits.\n\n",
    );
    describe_machine(&mut text, results);
    let groups = groups(results);
    if !groups.is_empty() {
        latency_table(&mut text, results, &groups);
        cost_table(&mut text, results, &groups);
        wakeup_table(&mut text, &groups);
        memory_table(&mut text, &groups);
    }
    syscall_table(&mut text, results);
    k6_table(&mut text, results);
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes whatever is written");
}

fn describe_machine(text: &mut String, results: &Results) {
    let machine = &results.machine;
    push(
        text,
        format_args!(
            "{}, commit {}, profile `{}`. {}, {} processors, {} MiB, Linux {}, {}.\n\n",
            machine.date,
            machine.commit,
            machine.profile,
            machine.processor,
            machine.processor_count,
            machine.memory_bytes >> 20,
            machine.kernel,
            machine.haproxy,
        ),
    );
    let runs = results.runs.iter().map(|run| &run.surroundings);
    let loads: Vec<u64> = runs
        .chain(results.k6.iter().map(|run| &run.surroundings))
        .map(|surroundings| surroundings.load_average_centi)
        .collect();
    if let (Some(least), Some(most)) = (loads.iter().min(), loads.iter().max()) {
        let show = |centi: u64| centi as f64 / 100.0;
        push(
            text,
            format_args!(
                "Load average of the machine at the ends of the runs: {:.1} to {:.1}.\n\n",
                show(*least),
                show(*most)
            ),
        );
    }
    if machine.limits.is_empty() {
        push(text, format_args!("No limits.\n\n"));
    } else {
        let limits: Vec<String> =
            machine.limits.iter().map(|(service, limits)| format!("{service} {limits}")).collect();
        push(text, format_args!("Limits by cgroups, from docker-compose.yml: {}.\n\n", limits.join("; ")));
    }
    push(text, format_args!("```sh\n{}\n```\n\n", machine.command));
}

fn latency_table(text: &mut String, results: &Results, groups: &[Group<'_>]) {
    let first = &groups[0].runs[0].outcome;
    push(
        text,
        format_args!(
            "## Latency\n\nOpen loop, {} connections, {} s counted in each run, milliseconds from the moment a payment was due; medians \
             (least to most) of the runs. *Not 2xx* and *throttled* are sums over all runs; *lag* is the generator's own p99; *others* is CPU that \
             neither Galo, its processors nor the generator used, of all the machine has, the hypervisor's share included.\n\n\
             | payments/s | side | runs | p50 | p90 | p99 | p99.9 | longest | p50 ÷ floor | p99 ÷ floor | not 2xx | throttled | lag | others | \
             open at the end | drained after |\n\
             | --: | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
            first.connections, first.seconds
        ),
    );
    let mut lagging = Vec::new();
    for group in groups {
        let of = |value: fn(&Run) -> u64| spread(group.runs.iter().map(|run| value(run)), millis);
        let ratio = |value: fn(&Run) -> u64| show_ratio(ratios(results, group, |run| value(run) as f64));
        let sum = |value: fn(&Run) -> u64| group.runs.iter().map(|run| value(run)).sum::<u64>();
        let open = median(group.runs.iter().filter_map(|run| run.open_count_at_end));
        let drain = median(group.runs.iter().filter_map(|run| run.drain_ms));
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} of {} | {} | {} % | {} | {} |\n",
                group.rate,
                group.side,
                group.runs.len(),
                of(|run| run.outcome.latency.p50_us),
                of(|run| run.outcome.latency.p90_us),
                of(|run| run.outcome.latency.p99_us),
                of(|run| run.outcome.latency.p999_us),
                of(|run| run.outcome.latency.max_us),
                ratio(|run| run.outcome.latency.p50_us),
                ratio(|run| run.outcome.latency.p99_us),
                sum(|run| run.outcome.payment_count - run.outcome.accepted_count),
                sum(|run| run.processes.iter().map(|process| process.throttled_count).sum()),
                sum(|run| run.processes.iter().map(|process| process.period_count).sum()),
                median(group.runs.iter().map(|run| run.outcome.self_lag.p99_us)).map_or_else(dash, millis),
                median(group.runs.iter().map(|run| others_percent(run)))
                    .map_or_else(dash, |percent| percent.to_string()),
                open.map_or_else(dash, |count| count.to_string()),
                drain.map_or_else(dash, |ms| format!("{ms} ms")),
            ),
        );
        lagging.extend(
            group
                .runs
                .iter()
                .filter(|run| generator_lags(run))
                .map(|run| format!("{} at {}/s, round {}", run.side, run.outcome.rate, run.round)),
        );
    }
    if !lagging.is_empty() {
        push(
            text,
            format_args!(
                "\nThe generator fell behind its own schedule, so that these runs speak of it more than of Galo: {}.\n",
                lagging.join("; ")
            ),
        );
    }
}

fn generator_lags(run: &Run) -> bool {
    run.outcome.self_lag.p99_us as f64 > run.outcome.latency.p99_us as f64 * SELF_LAG_SHARE_MAX
}

/// CPU of strangers, in percent of all processors.
fn others_percent(run: &Run) -> u64 {
    let around = &run.surroundings;
    let ours: u64 = run.processes.iter().map(|process| process.cpu_us).sum::<u64>() + run.outcome.cpu_us;
    (around.busy_us + around.stolen_us).saturating_sub(ours) * 100 / around.elapsed_us.max(1)
}

/// The processes of a table: HAProxy, the gateways together, the aggregator.
const PARTS: [(&str, &str); 3] =
    [("HAProxy", "haproxy"), ("gateways", "gateway"), ("aggregator", "aggregator")];

pub(crate) fn part<'a>(processes: &'a [Process], beginning: &'a str) -> impl Iterator<Item = &'a Process> {
    processes.iter().filter(move |process| process.name.starts_with(beginning))
}

pub(crate) fn cpu_per_payment(run: &Run, beginning: &str) -> f64 {
    part(&run.processes, beginning).map(|process| process.cpu_us).sum::<u64>() as f64
        / run.outcome.payment_count.max(1) as f64
}

fn limited_cpu_per_payment(run: &Run) -> f64 {
    PARTS.iter().map(|(_, beginning)| cpu_per_payment(run, beginning)).sum()
}

fn cost_table(text: &mut String, results: &Results, groups: &[Group<'_>]) {
    push(
        text,
        format_args!(
            "\n## CPU\n\nMicroseconds per payment, by the cgroups' own accounts; medians (least to most). *Ours* is gateways and aggregator.\n\n\
             | payments/s | side | HAProxy | gateways | aggregator | ours | all | all ÷ floor | processors | generator |\n\
             | --: | --- | --: | --: | --: | --: | --: | --: | --: | --: |\n"
        ),
    );
    for group in groups {
        let of = |value: &dyn Fn(&Run) -> f64| spread_f64(group.runs.iter().map(|run| value(run)));
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                group.rate,
                group.side,
                of(&|run| cpu_per_payment(run, "haproxy")),
                of(&|run| cpu_per_payment(run, "gateway")),
                of(&|run| cpu_per_payment(run, "aggregator")),
                of(&|run| cpu_per_payment(run, "gateway") + cpu_per_payment(run, "aggregator")),
                of(&limited_cpu_per_payment),
                show_ratio(ratios(results, group, limited_cpu_per_payment)),
                of(&|run| cpu_per_payment(run, "processor")),
                of(&|run| run.outcome.cpu_us as f64 / run.outcome.payment_count.max(1) as f64),
            ),
        );
    }
}

fn wakeup_table(text: &mut String, groups: &[Group<'_>]) {
    push(
        text,
        format_args!(
            "\n## Wake-ups\n\nPer payment: times that a process went to sleep by itself and was woken up, by /proc; in brackets, times that it was made to \
             give way. Medians.\n\n\
             | payments/s | side | HAProxy | gateways | aggregator |\n| --: | --- | --: | --: | --: |\n"
        ),
    );
    for group in groups {
        let of = |beginning: &'static str| {
            let per = |value: fn(&Process) -> u64| {
                median_f64(group.runs.iter().map(|run| {
                    part(&run.processes, beginning).map(value).sum::<u64>() as f64
                        / run.outcome.payment_count.max(1) as f64
                }))
            };
            format!(
                "{:.2} ({:.2})",
                per(|process| process.wakeup_count),
                per(|process| process.preemption_count)
            )
        };
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} |\n",
                group.rate,
                group.side,
                of("haproxy"),
                of("gateway"),
                of("aggregator")
            ),
        );
    }
}

fn memory_table(text: &mut String, groups: &[Group<'_>]) {
    push(
        text,
        format_args!(
            "\n## Memory\n\nThe most of all runs, in MiB: the cgroup's peak, which includes page cache that the process has written (the journal's), and in \
             brackets the process's own pages.\n\n\
             | payments/s | side | HAProxy | gateways | aggregator | all |\n| --: | --- | --: | --: | --: | --: |\n"
        ),
    );
    for group in groups {
        let most = |beginning: &'static str, value: fn(&Process) -> u64| {
            group
                .runs
                .iter()
                .map(|run| part(&run.processes, beginning).map(value).sum::<u64>())
                .max()
                .unwrap_or(0)
        };
        let of = |beginning| {
            let peak = most(beginning, |process| process.memory_bytes_max);
            let rss = most(beginning, |process| process.rss_bytes_max);
            (peak, rss, format!("{} ({})", mebibytes(peak), mebibytes(rss)))
        };
        let parts = PARTS.map(|(_, beginning)| of(beginning));
        let sum = |value: fn(&(u64, u64, String)) -> u64| parts.iter().map(value).sum::<u64>();
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} ({}) |\n",
                group.rate,
                group.side,
                parts[0].2,
                parts[1].2,
                parts[2].2,
                mebibytes(sum(|part| part.0)),
                mebibytes(sum(|part| part.1)),
            ),
        );
    }
}

fn syscall_table(text: &mut String, results: &Results) {
    push(text, format_args!("\n## System calls\n\n"));
    if let Some(reason) = &results.syscalls_missing {
        push(text, format_args!("Not counted: {reason}.\n"));
        return;
    }
    push(
        text,
        format_args!(
            "Per payment, counted by the kernel's tracepoints in short runs apart from the others (`perf stat`).\n\n\
             | payments/s | side | process | all | of which |\n| --: | --- | --- | --: | --- |\n"
        ),
    );
    for run in &results.syscalls {
        for (process, calls) in &run.processes {
            let per = |count: u64| count as f64 / run.payment_count.max(1) as f64;
            let mut others: Vec<_> =
                calls.iter().filter(|(name, count)| *name != "all" && **count > 0).collect();
            others.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let others: Vec<String> =
                others.iter().map(|(name, count)| format!("`{name}` {:.2}", per(**count))).collect();
            let all = calls.get("all").copied().unwrap_or(0);
            push(
                text,
                format_args!(
                    "| {} | {} | {process} | {:.2} | {} |\n",
                    run.rate,
                    run.side,
                    per(all),
                    others.join(", ")
                ),
            );
        }
    }
}

fn k6_table(text: &mut String, results: &Results) {
    if results.k6.is_empty() {
        return;
    }
    let script = &results.k6[0].script;
    push(
        text,
        format_args!(
            "\n## k6\n\n{script}; k6's own p50 and p99 of all requests that were answered as expected, in ms, and CPU in µs per payment; medians (least to most).\n\n\
             | side | runs | p50 | p99 | p50 ÷ floor | p99 ÷ floor | CPU ours | CPU all | throttled | memory | complaints |\n\
             | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |\n"
        ),
    );
    let mut sides: BTreeMap<(bool, &str), Vec<&K6Run>> = BTreeMap::new();
    for run in &results.k6 {
        sides.entry((run.side != FLOOR, &run.side)).or_default().push(run);
    }
    for ((_, side), runs) in &sides {
        let cpu = |beginnings: &[&str], run: &K6Run| {
            beginnings
                .iter()
                .flat_map(|beginning| part(&run.processes, beginning))
                .map(|process| process.cpu_us)
                .sum::<u64>() as f64
                / run.accepted_count.max(1) as f64
        };
        let ratio = |value: fn(&K6Run) -> u64| {
            let floor = |round| results.k6.iter().find(|run| run.side == FLOOR && run.round == round);
            let found: Vec<f64> = runs
                .iter()
                .filter(|run| run.side != FLOOR)
                .filter_map(|run| Some(value(run) as f64 / (value(floor(run.round)?) as f64).max(1.0)))
                .collect();
            show_ratio(found)
        };
        let complaints: Vec<String> = runs
            .iter()
            .filter(|run| !run.complaints.is_empty())
            .map(|run| format!("round {}: {}", run.round, run.complaints.join(", ")))
            .collect();
        let sum =
            |value: fn(&Process) -> u64| runs.iter().flat_map(|run| &run.processes).map(value).sum::<u64>();
        let peak = runs
            .iter()
            .map(|run| run.processes.iter().map(|process| process.memory_bytes_max).sum::<u64>())
            .max();
        push(
            text,
            format_args!(
                "| {side} | {} | {} | {} | {} | {} | {} | {} | {} of {} | {} MiB | {} |\n",
                runs.len(),
                spread(runs.iter().map(|run| run.p50_us), millis),
                spread(runs.iter().map(|run| run.p99_us), millis),
                ratio(|run| run.p50_us),
                ratio(|run| run.p99_us),
                spread_f64(runs.iter().map(|run| cpu(&["gateway", "aggregator"], run))),
                spread_f64(runs.iter().map(|run| cpu(&["haproxy", "gateway", "aggregator"], run))),
                sum(|process| process.throttled_count),
                sum(|process| process.period_count),
                mebibytes(peak.unwrap_or(0)),
                if complaints.is_empty() { "none".to_owned() } else { complaints.join("; ") },
            ),
        );
    }
}

/// Of each run that has a floor in its round, against that floor.
fn ratios(results: &Results, group: &Group<'_>, value: impl Fn(&Run) -> f64) -> Vec<f64> {
    let floor = |round| {
        results
            .runs
            .iter()
            .find(|run| run.side == FLOOR && run.round == round && run.outcome.rate == group.rate)
    };
    let runs = group.runs.iter().filter(|run| run.side != FLOOR);
    runs.filter_map(|run| Some(value(run) / value(floor(run.round)?).max(f64::MIN_POSITIVE))).collect()
}

fn show_ratio(ratios: Vec<f64>) -> String {
    if ratios.is_empty() { dash() } else { format!("{:.2}", median_f64(ratios.into_iter())) }
}

fn dash() -> String {
    "–".to_owned()
}

pub(crate) fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    // Of an even number, the upper one: never a figure that nobody measured.
    values.get(values.len() / 2).copied()
}

pub(crate) fn median_f64(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The median with the least and the most, if there is more than one.
fn spread(values: impl Iterator<Item = u64>, show: fn(u64) -> String) -> String {
    let values: Vec<u64> = values.collect();
    let middle = median(values.iter().copied()).map_or_else(dash, show);
    match (values.iter().min(), values.iter().max()) {
        (Some(least), Some(most)) if values.len() > 1 => {
            format!("{middle} ({} to {})", show(*least), show(*most))
        }
        _ => middle,
    }
}

fn spread_f64(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    let middle = median_f64(values.iter().copied());
    if values.len() > 1 { format!("{middle:.1} ({least:.1} to {most:.1})") } else { format!("{middle:.1}") }
}

fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1_000.0;
    if millis < 10.0 { format!("{millis:.2}") } else { format!("{millis:.1}") }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Outcome, Percentiles, Surroundings};

    fn run(round: u32, side: &str, p99_us: u64, cpu_us: u64) -> Run {
        let latency = Percentiles { p50_us: 100, p99_us, curve_us: vec![100; 61], ..Percentiles::default() };
        let outcome = Outcome {
            rate: 1_000,
            connections: 500,
            seconds: 1,
            payment_count: 1_000,
            accepted_count: 999,
            refused_count: 1,
            broken_count: 0,
            unanswered_count: 0,
            waited_count: 0,
            self_lag: Percentiles { p99_us: 50, ..Percentiles::default() },
            latency,
            cpu_us: 9_000,
        };
        let process = |name: &str, cpu_us| Process { name: name.to_owned(), cpu_us, ..Process::default() };
        Run {
            round,
            side: side.to_owned(),
            outcome,
            processes: vec![
                process("haproxy", 30_000),
                process("gateway-1", cpu_us),
                process("gateway-2", 0),
            ],
            surroundings: Surroundings { busy_us: 500_000, elapsed_us: 1_000_000, ..Surroundings::default() },
            open_count_at_end: None,
            drain_ms: None,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_a_lagging_generator_is_named() {
        let results = Results {
            runs: vec![
                run(1, FLOOR, 1_000, 10_000),
                run(1, "galo", 2_000, 30_000),
                run(2, "galo", 30_000, 30_000),
                run(2, FLOOR, 10_000, 10_000),
                run(3, "galo", 200, 30_000),
                run(3, FLOOR, 50, 10_000),
            ],
            ..Results::default()
        };
        let groups = groups(&results);
        assert_eq!(groups.iter().map(|group| group.side).collect::<Vec<_>>(), [FLOOR, "galo"]);
        // 2, 3 and 4; the medians' own ratio would be 2.
        assert_eq!(show_ratio(ratios(&results, &groups[1], |run| run.outcome.latency.p99_us as f64)), "3.00");
        assert_eq!(show_ratio(ratios(&results, &groups[1], limited_cpu_per_payment)), "1.50");
        let text = markdown(&results);
        assert!(text.contains("| 1000 | galo | 3 | 0.10 (0.10 to 0.10) |"), "{text}");
        assert!(
            text.contains("more than of Galo: floor at 1000/s, round 3; galo at 1000/s, round 3."),
            "{text}"
        );
        assert_eq!(others_percent(&results.runs[0]), 45);
    }
}
