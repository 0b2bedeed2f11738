//! The parts that a payment's CPU goes into, and the table of them.
//!
//! The figures are shares of samples times measured CPU: of each process, the samples of a part by all of its samples, times what its
//! cgroup was charged per payment in that very run. So a column adds up to what the kernel has charged, whatever the sampling missed, and a share
//! is as exact as its samples are many. Every sample is in one part; who puts it there is `xtask/src/bench/budget.rs`.

#![allow(clippy::float_arithmetic, reason = "shares of CPU for display, no money")]

use serde::{Deserialize, Serialize};

use crate::report::{Group, PARTS, cpu_per_payment_all, median, median_f64, millis, part, push};
use crate::results::{BudgetRun, Results, Run};

/// What a process does with its time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Outside of the kernel, in the program itself.
    OwnCode,
    /// Outside of the kernel, in a shared library (libc, mostly) or in the vdso.
    Library,
    /// Going to sleep in a wait, and coming back from it.
    Sleep,
    /// The same in a pause of a fixed time: a gateway's rest within a shift.
    Rest,
    /// Making way for another, and coming back.
    Preemption,
    /// Waking whoever waits for what a TCP send has brought.
    WakeByTcp,
    /// Waking whoever waits for what a unix socket's send has brought.
    WakeByUnix,
    /// Any other wake-up.
    WakeOther,
    /// Delivery on the loopback device included: it happens within the send.
    TcpSend,
    /// From a socket's queue on.
    TcpReceive,
    /// Into the peer's queue.
    UnixSend,
    /// From a socket's queue on.
    UnixReceive,
    /// Files: of the aggregator, the journal.
    File,
    /// Asking which descriptors are ready.
    Epoll,
    /// The ring's own work: submissions, completions, polls, not what the operations do.
    Ring,
    /// System calls that read a clock.
    Clock,
    /// The way into the kernel and out of it, and calls' descriptors.
    Call,
    /// Interrupts and page faults.
    Interrupt,
    /// The rest of the kernel.
    Other,
}

impl Part {
    /// All of them, as they are shown.
    pub const ALL: [Self; 19] = [
        Self::OwnCode,
        Self::Library,
        Self::Sleep,
        Self::Rest,
        Self::Preemption,
        Self::WakeByTcp,
        Self::WakeByUnix,
        Self::WakeOther,
        Self::TcpSend,
        Self::TcpReceive,
        Self::UnixSend,
        Self::UnixReceive,
        Self::File,
        Self::Epoll,
        Self::Ring,
        Self::Clock,
        Self::Call,
        Self::Interrupt,
        Self::Other,
    ];

    /// Its row's name.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::OwnCode => "own code",
            Self::Library => "libraries, vdso",
            Self::Sleep => "going to sleep and coming back",
            Self::Rest => "the same in a shift's rest",
            Self::Preemption => "making way for another and coming back",
            Self::WakeByTcp => "waking another, below a TCP send",
            Self::WakeByUnix => "waking another, below a unix socket's send",
            Self::WakeOther => "waking another otherwise",
            Self::TcpSend => "TCP send, delivery included",
            Self::TcpReceive => "TCP receive",
            Self::UnixSend => "unix socket's send",
            Self::UnixReceive => "unix socket's receive",
            Self::File => "the journal's write",
            Self::Epoll => "epoll",
            Self::Ring => "io_uring",
            Self::Clock => "clocks",
            Self::Call => "entering and leaving calls",
            Self::Interrupt => "interrupts, page faults",
            Self::Other => "rest of the kernel",
        }
    }
}

/// What the drawing shows as one: seven colours are told apart, nineteen are not.
pub(crate) const DRAWN: [(&str, &[Part]); 7] = [
    ("own code, libraries", &[Part::OwnCode, Part::Library]),
    ("sleeping, giving way", &[Part::Sleep, Part::Rest, Part::Preemption]),
    ("waking others", &[Part::WakeByTcp, Part::WakeByUnix, Part::WakeOther]),
    ("TCP", &[Part::TcpSend, Part::TcpReceive]),
    ("unix sockets", &[Part::UnixSend, Part::UnixReceive]),
    ("epoll, io_uring, calls", &[Part::Epoll, Part::Ring, Part::Call]),
    ("journal, rest", &[Part::File, Part::Clock, Part::Interrupt, Part::Other]),
];

/// A bar for each process of a run: microseconds per payment, by [`DRAWN`].
pub(crate) fn bars(run: &BudgetRun) -> Vec<(String, [f64; 7])> {
    let bars = PARTS.iter().map(|(name, beginning)| {
        let sum = |parts: &[Part]| parts.iter().map(|of| cost(run, beginning, *of)).sum();
        (format!("{} at {}/s, {name}", run.side, run.outcome.rate), DRAWN.map(|(_, parts)| sum(parts)))
    });
    bars.collect()
}

/// Microseconds per payment in one part, of all processes whose names begin so.
fn cost(run: &BudgetRun, beginning: &str, of: Part) -> f64 {
    let costs = part(&run.processes, beginning).map(|process| {
        let samples = run.samples.get(&process.name);
        let all: u64 = samples.iter().flat_map(|parts| parts.values()).sum();
        let found = samples.and_then(|parts| parts.get(&of)).copied().unwrap_or(0);
        let cpu_us = process.cpu_us as f64 / run.outcome.payment_count.max(1) as f64;
        cpu_us * found as f64 / all.max(1) as f64
    });
    costs.sum()
}

pub(crate) fn table(text: &mut String, results: &Results, groups: &[Group<'_, Run>]) {
    push(text, format_args!("\n## Budget\n\n"));
    if let Some(reason) = &results.budget_missing {
        push(text, format_args!("Not taken: {reason}.\n"));
        return;
    }
    if results.budget.is_empty() {
        push(text, format_args!("Not taken.\n"));
        return;
    }
    push(
        text,
        format_args!(
            "Where each microsecond of a payment goes: in runs apart from the others, `perf record -e cpu-clock -g` looks at the services' processors again and again; a part's share \
             of a process's samples, times the process's CPU per payment in that run by its cgroup. Each sample is in one part. Outside of the kernel \
             its file decides (program or library). In it, a stack with the scheduler's `__schedule` is a sleep, a rest or making way, by who called \
             that; of any other the first function from the innermost outwards that the rule knows decides, so that a wake-up below a send is a wake-up, and the receiver's side of \
             a loopback delivery is the send's. The whole rule: `xtask/src/bench/budget.rs`.\n"
        ),
    );
    for run in &results.budget {
        budget(text, run, groups);
    }
}

fn budget(text: &mut String, run: &BudgetRun, groups: &[Group<'_, Run>]) {
    let rate = run.outcome.rate;
    let samples: Vec<String> = PARTS
        .iter()
        .map(|(name, beginning)| {
            let found = run.samples.iter().filter(|(process, _)| process.starts_with(beginning));
            format!("{name} {}", found.flat_map(|(_, parts)| parts.values()).sum::<u64>())
        })
        .collect();
    push(
        text,
        format_args!(
            "\n### {} at {rate}/s\n\nSamples, one for each {} µs in {} s: {}.",
            run.side,
            run.interval_us,
            run.seconds,
            samples.join(", ")
        ),
    );
    let charged: u64 =
        PARTS.iter().flat_map(|(_, beginning)| part(&run.processes, beginning)).map(|it| it.cpu_us).sum();
    let with = charged as f64 / run.outcome.payment_count.max(1) as f64;
    let p99_us = run.outcome.latency.p99_us;
    match groups.iter().find(|group| group.rate == Some(rate) && group.side == run.side) {
        Some(group) => {
            let cpu = group.runs.iter().map(|run| cpu_per_payment_all(*run));
            let p99 = median(group.runs.iter().map(|run| run.outcome.latency.p99_us));
            push(
                text,
                format_args!(
                    " What perf itself costs: p99 {} ms and {with:.1} µs with it, {} ms and {:.1} µs without (medians of the runs above).\n\n",
                    millis(p99_us),
                    p99.map_or_else(String::new, millis),
                    median_f64(cpu),
                ),
            );
        }
        None => push(text, format_args!(" With perf: p99 {} ms, {with:.1} µs.\n\n", millis(p99_us))),
    }
    push(
        text,
        format_args!(
            "| µs per payment | HAProxy | gateways | aggregator | all | share |\n| --- | --: | --: | --: | --: | --: |\n"
        ),
    );
    let mut sums = [0.0; PARTS.len()];
    for of in Part::ALL {
        let costs = PARTS.map(|(_, beginning)| cost(run, beginning, of));
        sums.iter_mut().zip(costs).for_each(|(sum, cost)| *sum += cost);
        if costs.iter().sum::<f64>() > 0.0 {
            row(text, of.title(), costs, with);
        }
    }
    row(text, "**all**", sums, with);
}

fn row(text: &mut String, title: &str, costs: [f64; PARTS.len()], of: f64) {
    // Nothing at all is told from little.
    let show = |cost: f64| if cost > 0.0 { format!("{cost:.2}") } else { String::new() };
    let sum: f64 = costs.iter().sum();
    push(
        text,
        format_args!(
            "| {title} | {} | {sum:.2} | {:.1} % |\n",
            costs.map(show).join(" | "),
            sum * 100.0 / of.max(f64::MIN_POSITIVE)
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Outcome, Percentiles, Process};
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_part_is_shown_once() {
        let titles: BTreeSet<_> = Part::ALL.iter().map(|part| part.title()).collect();
        assert_eq!(titles.len(), Part::ALL.len());
        // A new one takes its place before the last.
        assert_eq!(Part::Other as usize + 1, Part::ALL.len());
        let drawn: BTreeSet<_> = DRAWN.iter().flat_map(|(_, parts)| parts.iter()).collect();
        assert_eq!(drawn, Part::ALL.iter().collect());
        assert_eq!(DRAWN.iter().map(|(_, parts)| parts.len()).sum::<usize>(), Part::ALL.len());
    }

    #[test]
    fn rows_add_up_to_what_the_kernel_charged() {
        let process = |name: &str, cpu_us| Process { name: name.to_owned(), cpu_us, ..Process::default() };
        let parts = |parts: &[(Part, u64)]| parts.iter().copied().collect::<BTreeMap<_, _>>();
        let run = BudgetRun {
            side: "galo".to_owned(),
            outcome: Outcome {
                rate: 1_000,
                payment_count: 1_000,
                latency: Percentiles { p99_us: 1_200, ..Percentiles::default() },
                ..Outcome::default()
            },
            processes: vec![
                process("gateway-1", 30_000),
                process("gateway-2", 10_000),
                process("haproxy", 20_000),
                process("processor-default", 99_000),
            ],
            interval_us: 250,
            seconds: 6,
            samples: [
                // A quarter of 30 µs and a half of 10: the two are weighed by their CPU, not by their samples.
                ("gateway-1".to_owned(), parts(&[(Part::TcpSend, 1), (Part::OwnCode, 3)])),
                ("gateway-2".to_owned(), parts(&[(Part::TcpSend, 50), (Part::OwnCode, 50)])),
                ("haproxy".to_owned(), parts(&[(Part::Other, 7)])),
            ]
            .into(),
        };
        let mut text = String::new();
        budget(&mut text, &run, &[]);
        for row in [
            "HAProxy 7, gateways 104, aggregator 0. With perf: p99 1.20 ms, 60.0 µs.",
            "| own code |  | 27.50 |  | 27.50 | 45.8 % |",
            "| TCP send, delivery included |  | 12.50 |  | 12.50 | 20.8 % |",
            "| rest of the kernel | 20.00 |  |  | 20.00 | 33.3 % |",
            "| **all** | 20.00 | 40.00 |  | 60.00 | 100.0 % |",
        ] {
            assert!(text.contains(row), "{row} is not in\n{text}");
        }
    }
}
