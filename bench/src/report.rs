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

use crate::results::{FLOOR, K6Run, Machine, Process, Results, Run, Surroundings, SyscallRun};
use crate::{budget, plot};

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

/// What the tables need to know of a run, whoever generated its load.
pub(crate) trait Measured {
    /// What its tables' headings begin with: k6's stand below a heading of their own.
    const HEADING: &'static str;
    fn round(&self) -> u32;
    fn side(&self) -> &str;
    /// `None` of k6's: its script says what comes when.
    fn rate(&self) -> Option<u32>;
    fn payment_count(&self) -> u64;
    fn processes(&self) -> &[Process];
    fn surroundings(&self) -> &Surroundings;
    /// The generator's own CPU.
    fn generator_cpu_us(&self) -> Option<u64>;
    /// p50, p90, p99 and p99.9; earlier files of k6's runs lack some.
    fn latency_us(&self) -> [Option<u64>; 4];
}

impl Measured for Run {
    const HEADING: &'static str = "##";

    fn round(&self) -> u32 {
        self.round
    }
    fn side(&self) -> &str {
        &self.side
    }
    fn rate(&self) -> Option<u32> {
        Some(self.outcome.rate)
    }
    fn payment_count(&self) -> u64 {
        self.outcome.payment_count
    }
    fn processes(&self) -> &[Process] {
        &self.processes
    }
    fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }
    fn generator_cpu_us(&self) -> Option<u64> {
        Some(self.outcome.cpu_us)
    }
    fn latency_us(&self) -> [Option<u64>; 4] {
        let latency = &self.outcome.latency;
        [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us].map(Some)
    }
}

impl Measured for K6Run {
    const HEADING: &'static str = "###";

    fn round(&self) -> u32 {
        self.round
    }
    fn side(&self) -> &str {
        &self.side
    }
    fn rate(&self) -> Option<u32> {
        None
    }
    fn payment_count(&self) -> u64 {
        self.accepted_count
    }
    fn processes(&self) -> &[Process] {
        &self.processes
    }
    fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }
    fn generator_cpu_us(&self) -> Option<u64> {
        self.cpu_us
    }
    fn latency_us(&self) -> [Option<u64>; 4] {
        [Some(self.p50_us), self.p90_us, Some(self.p99_us), self.p999_us]
    }
}

/// The runs of one side under one load.
pub(crate) struct Group<'a, R> {
    pub(crate) rate: Option<u32>,
    pub(crate) side: &'a str,
    pub(crate) runs: Vec<&'a R>,
}

impl<R> Group<'_, R> {
    fn load(&self) -> String {
        load(self.rate)
    }
}

fn load(rate: Option<u32>) -> String {
    rate.map_or_else(|| "k6".to_owned(), |rate| rate.to_string())
}

/// All groups by rate, the floor first.
pub(crate) fn groups<R: Measured>(runs: &[R]) -> Vec<Group<'_, R>> {
    let mut found: BTreeMap<(Option<u32>, bool, &str), Vec<&R>> = BTreeMap::new();
    for run in runs {
        found.entry((run.rate(), run.side() != FLOOR, run.side())).or_default().push(run);
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
    let open_loop = groups(&results.runs);
    if !open_loop.is_empty() {
        latency_table(&mut text, &open_loop);
        tables(&mut text, &open_loop);
    }
    if let Some(reason) = &results.syscalls_missing {
        push(&mut text, format_args!("\n## System calls\n\nNot counted: {reason}.\n"));
    } else if !results.syscalls.is_empty() {
        syscall_table(&mut text, "##", &results.syscalls);
    }
    ratio_table(&mut text, &open_loop, &results.syscalls);
    budget::table(&mut text, results, &open_loop);
    let k6 = groups(&results.k6);
    if let Some(first) = results.k6.first() {
        push(&mut text, format_args!("\n## k6\n\n{}.\n", first.script));
        k6_latency_table(&mut text, &k6);
        tables(&mut text, &k6);
        if results.k6_syscalls.is_empty() {
            let reason = results.syscalls_missing.as_deref().unwrap_or("this file is of an earlier version");
            push(&mut text, format_args!("\n### System calls\n\nNot counted: {reason}.\n"));
        } else {
            syscall_table(&mut text, "###", &results.k6_syscalls);
        }
        ratio_table(&mut text, &k6, &results.k6_syscalls);
    }
    text
}

fn tables<R: Measured>(text: &mut String, groups: &[Group<'_, R>]) {
    cost_table(text, groups);
    wakeup_table(text, groups);
    memory_table(text, groups);
}

pub(crate) fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes whatever is written");
}

/// When, at which commit, and on which machine, without a full stop.
#[must_use]
pub fn describe_host(machine: &Machine) -> String {
    format!(
        "{}, commit {}, profile `{}`. {}, {} processors, {} MiB, Linux {}",
        machine.date,
        machine.commit,
        machine.profile,
        machine.processor,
        machine.processor_count,
        machine.memory_bytes >> 20,
        machine.kernel,
    )
}

fn describe_machine(text: &mut String, results: &Results) {
    let machine = &results.machine;
    push(text, format_args!("{}, {}.\n\n", describe_host(machine), machine.haproxy));
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

fn latency_table(text: &mut String, groups: &[Group<'_, Run>]) {
    let first = &groups[0].runs[0].outcome;
    push(
        text,
        format_args!(
            "## Latency\n\nOpen loop, {} connections, {} s counted in each run, milliseconds from the moment a payment was due; medians \
             (least to most) of the runs. *Not 2xx* and *throttled* are sums over all runs; *lag* is the generator's own p99; *others* is CPU that \
             neither Galo, its processors nor the generator used, of all the machine has, the hypervisor's share included.\n\n\
             | payments/s | side | runs | p50 | p90 | p99 | p99.9 | longest | not 2xx | throttled | lag | others | open at the end | drained after |\n\
             | --: | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
            first.connections, first.seconds
        ),
    );
    let mut lagging = Vec::new();
    for group in groups {
        let open = median(group.runs.iter().filter_map(|run| run.open_count_at_end));
        let drain = median(group.runs.iter().filter_map(|run| run.drain_ms));
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                group.load(),
                group.side,
                group.runs.len(),
                latencies(group),
                spread(group.runs.iter().map(|run| run.outcome.latency.max_us), millis),
                group
                    .runs
                    .iter()
                    .map(|run| run.outcome.payment_count - run.outcome.accepted_count)
                    .sum::<u64>(),
                throttled(group),
                median(group.runs.iter().map(|run| run.outcome.self_lag.p99_us)).map_or_else(dash, millis),
                others(group),
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

fn k6_latency_table(text: &mut String, groups: &[Group<'_, K6Run>]) {
    push(
        text,
        format_args!(
            "\n### Latency\n\nMilliseconds by k6's own clock, of all requests that were answered as expected, its few summaries included; medians (least to \
             most) of the runs. *Throttled* is a sum over all runs; *others* is CPU that neither Galo, its processors nor k6 used; a complaint is what makes \
             a run a bad one.\n\n\
             | load | side | runs | p50 | p90 | p99 | p99.9 | throttled | others | complaints |\n\
             | --- | --- | --: | --: | --: | --: | --: | --: | --: | --- |\n"
        ),
    );
    for group in groups {
        let complaints: Vec<String> = group
            .runs
            .iter()
            .filter(|run| !run.complaints.is_empty())
            .map(|run| format!("round {}: {}", run.round, run.complaints.join(", ")))
            .collect();
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} |\n",
                group.load(),
                group.side,
                group.runs.len(),
                latencies(group),
                throttled(group),
                others(group),
                if complaints.is_empty() { "none".to_owned() } else { complaints.join("; ") },
            ),
        );
    }
}

/// Four cells: p50, p90, p99, p99.9.
fn latencies<R: Measured>(group: &Group<'_, R>) -> String {
    let cell = |index: usize| spread(group.runs.iter().filter_map(|run| run.latency_us()[index]), millis);
    [0, 1, 2, 3].map(cell).join(" | ")
}

fn throttled<R: Measured>(group: &Group<'_, R>) -> String {
    let sum = |value: fn(&Process) -> u64| {
        group.runs.iter().flat_map(|run| run.processes()).map(value).sum::<u64>()
    };
    format!("{} of {}", sum(|process| process.throttled_count), sum(|process| process.period_count))
}

fn generator_lags(run: &Run) -> bool {
    run.outcome.self_lag.p99_us as f64 > run.outcome.latency.p99_us as f64 * SELF_LAG_SHARE_MAX
}

fn others<R: Measured>(group: &Group<'_, R>) -> String {
    median(group.runs.iter().filter_map(|run| others_percent(*run)))
        .map_or_else(dash, |percent| format!("{percent} %"))
}

/// CPU of strangers, in percent of all processors.
fn others_percent<R: Measured>(run: &R) -> Option<u64> {
    let around = run.surroundings();
    let ours: u64 =
        run.processes().iter().map(|process| process.cpu_us).sum::<u64>() + run.generator_cpu_us()?;
    Some((around.busy_us + around.stolen_us).saturating_sub(ours) * 100 / around.elapsed_us.max(1))
}

/// The processes of a table: HAProxy, the gateways together, the aggregator.
pub(crate) const PARTS: [(&str, &str); 3] =
    [("HAProxy", "haproxy"), ("gateways", "gateway"), ("aggregator", "aggregator")];

pub(crate) fn part<'a>(processes: &'a [Process], beginning: &'a str) -> impl Iterator<Item = &'a Process> {
    processes.iter().filter(move |process| process.name.starts_with(beginning))
}

fn per_payment<R: Measured>(run: &R, beginning: &str, value: fn(&Process) -> u64) -> f64 {
    part(run.processes(), beginning).map(value).sum::<u64>() as f64 / run.payment_count().max(1) as f64
}

pub(crate) fn cpu_per_payment<R: Measured>(run: &R, beginning: &str) -> f64 {
    per_payment(run, beginning, |process| process.cpu_us)
}

/// Of all that the compose file limits.
pub(crate) fn cpu_per_payment_all<R: Measured>(run: &R) -> f64 {
    PARTS.iter().map(|(_, beginning)| cpu_per_payment(run, beginning)).sum()
}

fn wakeups_per_payment_all<R: Measured>(run: &R) -> f64 {
    PARTS.iter().map(|(_, beginning)| per_payment(run, beginning, |process| process.wakeup_count)).sum()
}

fn memory_all<R: Measured>(run: &R) -> u64 {
    PARTS
        .iter()
        .flat_map(|(_, beginning)| part(run.processes(), beginning))
        .map(|it| it.memory_bytes_max)
        .sum()
}

fn cost_table<R: Measured>(text: &mut String, groups: &[Group<'_, R>]) {
    push(
        text,
        format_args!(
            "\n{} CPU\n\nMicroseconds per payment, by the cgroups' own accounts; medians (least to most). *Ours* is gateways and aggregator.\n\n\
             | payments/s | side | HAProxy | gateways | aggregator | ours | all | processors | generator |\n\
             | --: | --- | --: | --: | --: | --: | --: | --: | --: |\n",
            R::HEADING
        ),
    );
    for group in groups {
        let of = |value: &dyn Fn(&R) -> f64| spread_f64(group.runs.iter().map(|run| value(run)));
        let generator = group
            .runs
            .iter()
            .filter_map(|run| Some(run.generator_cpu_us()? as f64 / run.payment_count().max(1) as f64));
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                group.load(),
                group.side,
                of(&|run| cpu_per_payment(run, "haproxy")),
                of(&|run| cpu_per_payment(run, "gateway")),
                of(&|run| cpu_per_payment(run, "aggregator")),
                of(&|run| cpu_per_payment(run, "gateway") + cpu_per_payment(run, "aggregator")),
                of(&cpu_per_payment_all),
                of(&|run| cpu_per_payment(run, "processor")),
                spread_f64(generator),
            ),
        );
    }
}

fn wakeup_table<R: Measured>(text: &mut String, groups: &[Group<'_, R>]) {
    push(
        text,
        format_args!(
            "\n{} Wake-ups\n\nPer payment: times that a process went to sleep by itself and was woken up, by /proc; in brackets, times that it was made to \
             give way. Medians.\n\n\
             | payments/s | side | HAProxy | gateways | aggregator |\n| --: | --- | --: | --: | --: |\n",
            R::HEADING
        ),
    );
    for group in groups {
        let cells = PARTS.map(|(_, beginning)| {
            let per = |value: fn(&Process) -> u64| {
                median_f64(group.runs.iter().map(|run| per_payment(*run, beginning, value)))
            };
            format!(
                "{:.2} ({:.2})",
                per(|process| process.wakeup_count),
                per(|process| process.preemption_count)
            )
        });
        push(text, format_args!("| {} | {} | {} |\n", group.load(), group.side, cells.join(" | ")));
    }
}

fn memory_table<R: Measured>(text: &mut String, groups: &[Group<'_, R>]) {
    push(
        text,
        format_args!(
            "\n{} Memory\n\nThe most of all runs, in MiB: the cgroup's peak, which includes page cache that the process has written (the journal's), and in \
             brackets the process's own pages.\n\n\
             | payments/s | side | HAProxy | gateways | aggregator | all |\n| --: | --- | --: | --: | --: | --: |\n",
            R::HEADING
        ),
    );
    for group in groups {
        let most = |beginning: &'static str, value: fn(&Process) -> u64| {
            group
                .runs
                .iter()
                .map(|run| part(run.processes(), beginning).map(value).sum::<u64>())
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
                group.load(),
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

fn syscall_table(text: &mut String, heading: &str, runs: &[SyscallRun]) {
    push(
        text,
        format_args!(
            "\n{heading} System calls\n\nPer payment, counted by the kernel's tracepoints in runs apart from the others (`perf stat`).\n\n\
             | payments/s | side | process | all | of which |\n| --: | --- | --- | --: | --- |\n"
        ),
    );
    for run in runs {
        for (process, calls) in &run.processes {
            let per = |count: u64| count as f64 / run.payment_count.max(1) as f64;
            let mut others: Vec<_> =
                calls.iter().filter(|(name, count)| *name != "all" && **count > 0).collect();
            others.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let others: Vec<String> =
                others.iter().map(|(name, count)| format!("`{name}` {:.2}", per(**count))).collect();
            push(
                text,
                format_args!(
                    "| {} | {} | {process} | {:.2} | {} |\n",
                    load(Some(run.rate).filter(|rate| *rate > 0)),
                    run.side,
                    per(calls.get("all").copied().unwrap_or(0)),
                    others.join(", ")
                ),
            );
        }
    }
}

/// Of all that the compose file limits, in a run of its own.
fn syscalls_per_payment_all(runs: &[SyscallRun], rate: Option<u32>, side: &str) -> Option<f64> {
    let run = runs.iter().find(|run| run.side == side && run.rate == rate.unwrap_or(0))?;
    let all: u64 = run.processes.values().filter_map(|calls| calls.get("all")).sum();
    Some(all as f64 / run.payment_count.max(1) as f64)
}

fn ratio_table<R: Measured>(text: &mut String, groups: &[Group<'_, R>], syscalls: &[SyscallRun]) {
    let others: Vec<_> = groups
        .iter()
        .filter(|group| group.side != FLOOR)
        .filter_map(|group| {
            Some((group, groups.iter().find(|it| it.side == FLOOR && it.rate == group.rate)?))
        })
        .collect();
    if others.is_empty() {
        return;
    }
    push(
        text,
        format_args!(
            "\n{} Times the floor's\n\nEach run by the floor's of the same round; medians of that. CPU, wake-ups, system calls and memory (peaks) are those of \
             HAProxy, gateways and aggregator together.\n\n\
             | payments/s | side | p50 | p90 | p99 | p99.9 | CPU | wake-ups | system calls | memory |\n\
             | --: | --- | --: | --: | --: | --: | --: | --: | --: | --: |\n",
            R::HEADING
        ),
    );
    for (group, floor) in others {
        let of = |value: &dyn Fn(&R) -> Option<f64>| show_ratio(ratios(group, floor, value));
        let latencies = [0, 1, 2, 3].map(|index| of(&|run| Some(run.latency_us()[index]? as f64)));
        let calls = |side| syscalls_per_payment_all(syscalls, group.rate, side);
        let calls =
            calls(group.side).zip(calls(FLOOR)).map(|(galo, floor)| galo / floor.max(f64::MIN_POSITIVE));
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} |\n",
                group.load(),
                group.side,
                latencies.join(" | "),
                of(&|run| Some(cpu_per_payment_all(run))),
                of(&|run| Some(wakeups_per_payment_all(run))),
                show_ratio(calls.into_iter().collect()),
                of(&|run| Some(memory_all(run) as f64)),
            ),
        );
    }
}

/// Of each run that has a floor in its round, against that floor.
fn ratios<R: Measured>(
    group: &Group<'_, R>,
    floor: &Group<'_, R>,
    value: impl Fn(&R) -> Option<f64>,
) -> Vec<f64> {
    let pairs = group.runs.iter().filter_map(|run| {
        let beside = floor.runs.iter().find(|floor| floor.round() == run.round())?;
        // Where the floor has nothing (memory without a cgroup), there is no ratio.
        Some((value(run)?, value(beside).filter(|value| *value > 0.0)?))
    });
    pairs.map(|(value, floor)| value / floor).collect()
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
    if values.is_empty() {
        return dash();
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    let middle = median_f64(values.iter().copied());
    if values.len() > 1 { format!("{middle:.1} ({least:.1} to {most:.1})") } else { format!("{middle:.1}") }
}

pub(crate) fn millis(micros: u64) -> String {
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
        let groups = groups(&results.runs);
        assert_eq!(groups.iter().map(|group| group.side).collect::<Vec<_>>(), [FLOOR, "galo"]);
        // 2, 3 and 4; the medians' own ratio would be 2.
        assert_eq!(
            show_ratio(ratios(&groups[1], &groups[0], |run| run.latency_us()[2].map(|us| us as f64))),
            "3.00"
        );
        assert_eq!(show_ratio(ratios(&groups[1], &groups[0], |run| Some(cpu_per_payment_all(run)))), "1.50");
        let text = markdown(&results);
        assert!(text.contains("| 1000 | galo | 3 | 0.10 (0.10 to 0.10) |"), "{text}");
        assert!(
            text.contains("more than of Galo: floor at 1000/s, round 3; galo at 1000/s, round 3."),
            "{text}"
        );
        assert_eq!(others_percent(&results.runs[0]), Some(45));
    }

    #[test]
    fn k6_has_the_tables_of_the_open_loop() {
        let run = |round, side: &str, p90_us, cpu_us: u64| {
            let process = |name: &str, cpu_us| Process {
                name: name.to_owned(),
                cpu_us,
                wakeup_count: 250,
                preemption_count: 50,
                memory_bytes_max: 1 << 20,
                ..Process::default()
            };
            K6Run {
                round,
                side: side.to_owned(),
                script: "The contest's script".to_owned(),
                p50_us: 500,
                p90_us,
                p99_us: 2_000,
                p999_us: p90_us.map(|us| us * 10),
                cpu_us: p90_us.map(|_| 20_000),
                accepted_count: 100,
                complaints: if side == FLOOR { Vec::new() } else { vec!["lag 1".to_owned()] },
                processes: vec![
                    process("haproxy", 3_000),
                    process("gateway-1", cpu_us),
                    process("gateway-2", cpu_us),
                ],
                surroundings: Surroundings {
                    busy_us: 50_000,
                    elapsed_us: 100_000,
                    ..Surroundings::default()
                },
            }
        };
        let calls = |side: &str, all| SyscallRun {
            side: side.to_owned(),
            rate: 0,
            payment_count: 100,
            processes: BTreeMap::from([("haproxy".to_owned(), BTreeMap::from([("all".to_owned(), all)]))]),
        };
        let mut results = Results {
            k6: vec![run(1, FLOOR, Some(600), 500), run(1, "galo", Some(900), 2_500)],
            k6_syscalls: vec![calls(FLOOR, 1_000), calls("galo", 1_200)],
            ..Results::default()
        };
        let text = markdown(&results);
        for row in [
            "| k6 | galo | 1 | 0.50 | 0.90 | 2.00 | 9.00 | 0 of 0 | 22 % | round 1: lag 1 |",
            "| k6 | galo | 30.0 | 50.0 | 0.0 | 50.0 | 80.0 | 0.0 | 200.0 |",
            "| k6 | galo | 2.50 (0.50) | 5.00 (1.00) | 0.00 (0.00) |",
            "| k6 | galo | haproxy | 12.00 |  |",
            "| k6 | galo | 1.00 | 1.50 | 1.00 | 1.50 | 2.00 | 1.00 | 1.20 | 1.00 |",
        ] {
            assert!(text.contains(row), "{row} is not in\n{text}");
        }
        // As earlier versions kept it.
        results.k6 = vec![run(1, FLOOR, None, 500), run(1, "galo", None, 2_500)];
        results.k6_syscalls.clear();
        let text = markdown(&results);
        for row in [
            "| k6 | galo | 1 | 0.50 | – | 2.00 | – | 0 of 0 | – | round 1: lag 1 |",
            "| k6 | galo | 1.00 | – | 1.00 | – | 2.00 | 1.00 | – | 1.00 |",
        ] {
            assert!(text.contains(row), "{row} is not in\n{text}");
        }
    }
}
