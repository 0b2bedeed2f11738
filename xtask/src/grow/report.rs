//! The report of `cargo xtask grow`: medians over the rounds, and the least and the most where they say something.

use super::{Backlog, Ledger, Load, Options, RANGES};
use crate::{limits, up};

/// How many processes wanted to run, on the average of the last minute.
pub(super) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

/// The whole file.
pub(super) fn markdown(options: &Options, machine: &str, ledgers: &[Ledger], backlogs: &[Backlog]) -> String {
    let mut text = String::from("# What does a ledger's size cost?\n\n");
    text += &answer(options, ledgers, backlogs);
    text += &format!("\n{machine}; {}.\n\n", limits_in_force());
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    text += &format!("```sh\ncargo xtask {}\n```\n\n", arguments.join(" "));
    text += &format!(
        "Medians of {} rounds, in brackets the least and the most; the ledgers took turns within a round. Payments in the ledgers are a millisecond apart; \
         their number and their sum were checked through HAProxy before anything was measured.\n\n",
        options.runs
    );
    text += &format!(
        "## Summaries at the client\n\n`GET /payments-summary` through HAProxy, {} of each kind a round, one after the other on one connection; \
         milliseconds: p50, p99, the longest of a round.\n\n",
        options.summaries
    );
    text += &summaries(ledgers);
    text += &format!(
        "\n## A payment beside a large ledger\n\n`galo-bench load`, {} s a run; CPU-µs a payment by the cgroups' accounts; *throttled*: periods of all services in all \
         rounds.\n\n",
        options.seconds
    );
    text += &payments(options, ledgers);
    text += &format!(
        "\n## A payment beside a backlog\n\nBoth processors refuse, {}/s more come in: what is measured is taking a payment in, nothing is dispatched but probes.\n\n",
        up::grouped(u64::from(*options.rates.first().unwrap_or(&0)))
    );
    text += &waiting(backlogs);
    text + "\n## What the figures do not say\n\n\
        - Where all ids of the largest ledger are known, the aggregator may use 2 GiB, and so may aggregator and gateways beside a backlog: the compose file's limits are for \
        800,000 known ids and 450,000 open payments. CPU limits are the compose file's everywhere, but for the aggregator's while it is filled.\n\
        - The processors do not have the payments that the ledgers were filled with. Idle Galos stood beside the one that was measured.\n\
        - Bounds drawn at random cut buckets of a second where the ledger is older than it can keep to the millisecond; the answer's header says so.\n\
        - With a load above 0.5 before the start others used the machine: then p99 and the longest are theirs, and sums of CPU differ by a quarter from round to round.\n\
        - Memory is what was resident after the last round, without the page cache.\n"
}

fn limits_in_force() -> String {
    let Ok(limits) = limits::read_compose(&up::compose_file()) else { return String::new() };
    let each = limits.iter().map(|(service, limits)| {
        let centi = limits.quota_us / 1_000;
        format!("{service} {}.{:02} CPU and {} MiB", centi / 100, centi % 100, limits.memory_bytes >> 20)
    });
    format!("the compose file's limits: {}", each.collect::<Vec<_>>().join(", "))
}

/// Nothing and the most that the compose file's limits are meant for, side by side.
fn answer(options: &Options, ledgers: &[Ledger], backlogs: &[Backlog]) -> String {
    let summary = |ledger: &Ledger| {
        let all = |pick: fn(&galo_bench::results::Percentiles) -> u64| {
            let kinds = 0..RANGES.len();
            let medians =
                kinds.map(|kind| median(ledger.summaries.iter().map(|round| pick(&round[kind])).collect()));
            medians.max().unwrap_or(0)
        };
        format!("{} ms, p99 {}", millis(all(|found| found.p50_us)), millis(all(|found| found.p99_us)))
    };
    let cost = |loads: Vec<&Load>| tenths(median(loads.iter().map(|load| load.nanos(None)).collect()));
    let rate = up::grouped(u64::from(*options.rates.first().unwrap_or(&0)));
    let mut text = String::new();
    if let [first, .., last] = &ledgers[..options.payments.len()] {
        let of = |ledger: &Ledger| cost(ledger.loads.iter().filter_map(|loads| loads.first()).collect());
        text += &format!(
            "A summary takes the client {} beside a ledger of {} payments, and {} beside {} (medians, of the slowest range); a payment at {rate}/s costs {} and {} CPU-µs in all.",
            summary(first),
            up::grouped(first.payments),
            summary(last),
            up::grouped(last.payments),
            of(first),
            of(last),
        );
    }
    if let [first, .., last] = backlogs {
        text += &format!(
            " Taken in beside {} that wait it costs {} µs, beside {} {}.\n",
            up::grouped(first.open),
            cost(first.loads.iter().collect()),
            up::grouped(last.open),
            cost(last.loads.iter().collect()),
        );
    }
    text
}

fn summaries(ledgers: &[Ledger]) -> String {
    let mut text =
        format!("| payments | {} |\n| --- |{}\n", RANGES.join(" | "), " --: |".repeat(RANGES.len()));
    for ledger in ledgers {
        let cells = (0..RANGES.len()).map(|kind| {
            let each = |pick: fn(&galo_bench::results::Percentiles) -> u64| {
                ledger.summaries.iter().map(|round| pick(&round[kind])).collect::<Vec<_>>()
            };
            let longest = each(|found| found.max_us).into_iter().max().unwrap_or(0);
            format!(
                "{}, {}, {}",
                spread(each(|found| found.p50_us), millis),
                spread(each(|found| found.p99_us), millis),
                millis(longest)
            )
        });
        text += &format!("| {} | {} |\n", ledger.name, cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

const COSTS: &str = "p50, ms | p99, ms | HAProxy | gateways | aggregator | all | throttled";

fn payments(options: &Options, ledgers: &[Ledger]) -> String {
    let mut text = format!(
        "| payments/s | beside | {COSTS} | aggregator's memory, MiB |\n| --: | --- |{}\n",
        " --: |".repeat(8)
    );
    for (index, rate) in options.rates.iter().enumerate() {
        for ledger in ledgers {
            let loads: Vec<_> = ledger.loads.iter().map(|loads| &loads[index]).collect();
            let memory = ledger.rss_bytes >> 20;
            text += &format!(
                "| {} | {} | {} | {memory} |\n",
                up::grouped(u64::from(*rate)),
                ledger.name,
                costs(&loads)
            );
        }
    }
    text
}

fn waiting(backlogs: &[Backlog]) -> String {
    let mut text = format!(
        "| open | {COSTS} | memory, MiB: HAProxy, gateways, aggregator |\n| --: |{}\n",
        " --: |".repeat(8)
    );
    for backlog in backlogs {
        let loads: Vec<_> = backlog.loads.iter().collect();
        let memory = backlog.rss_bytes.map(|bytes| (bytes >> 20).to_string()).join(", ");
        text += &format!("| {} | {} | {memory} |\n", up::grouped(backlog.open), costs(&loads));
    }
    text
}

fn costs(loads: &[&Load]) -> String {
    let each = |pick: &dyn Fn(&Load) -> u64| loads.iter().map(|load| pick(load)).collect::<Vec<_>>();
    let cpu = |part| spread(each(&|load| load.nanos(part)), tenths);
    [
        spread(each(&|load| load.outcome.latency.p50_us), millis),
        spread(each(&|load| load.outcome.latency.p99_us), millis),
        cpu(Some(0)),
        cpu(Some(1)),
        cpu(Some(2)),
        cpu(None),
        each(&|load| load.throttled_count).iter().sum::<u64>().to_string(),
    ]
    .join(" | ")
}

impl Load {
    /// CPU for each payment, of one service or of all.
    fn nanos(&self, part: Option<usize>) -> u64 {
        let cpu_us: u64 = part.map_or_else(|| self.cpu_us.iter().sum(), |part| self.cpu_us[part]);
        cpu_us * 1_000 / self.outcome.payment_count.max(1)
    }
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// The median, and the least and the most where they differ from it as they are shown.
fn spread(values: Vec<u64>, show: fn(u64) -> String) -> String {
    let (least, most) =
        (values.iter().min().copied().unwrap_or(0), values.iter().max().copied().unwrap_or(0));
    let middle = show(median(values));
    let (least, most) = (show(least), show(most));
    if least == most { middle } else { format!("{middle} ({least} to {most})") }
}

/// Microseconds as milliseconds.
fn millis(us: u64) -> String {
    let centi = (us + 5) / 10;
    format!("{}.{:02}", centi / 100, centi % 100)
}

/// Nanoseconds as microseconds.
fn tenths(nanos: u64) -> String {
    let deci = (nanos + 50) / 100;
    format!("{}.{}", deci / 10, deci % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_told_where_there_is_one() {
        assert_eq!(spread(vec![209, 195, 1_238], millis), "0.21 (0.20 to 1.24)");
        assert_eq!(spread(vec![200, 201], millis), "0.20");
        assert_eq!(tenths(16_950), "17.0");
        assert_eq!(median(vec![3, 1, 2]), 2);
    }
}
