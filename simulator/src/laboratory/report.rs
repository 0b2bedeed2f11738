//! The laboratory's page in `docs/measurements/`, written anew by one command: tables and plots of the same runs.
//!
//! Nothing in it depends on the machine or the hour, so a change of the page is a change of the routing (or of the
//! laboratory), and shows in a diff.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::plots::{self, PlotError};
use super::run::{PolicyKind, Run};
use super::summary::Summary;
use super::{Fees, Schedule};

/// Galo's worst runs that the page lists.
const WORST_COUNT: usize = 5;

/// Galo's regret on each of our schedules of two processors at commit 25f2ae2, before processors were configuration, in per cent at 5 % and
/// 15 % and at 7 % and 10 %: `cargo xtask lab --schedule all --policies galo --worst 10`, there.
const AT_25F2AE2: &[(&str, [&str; 2])] = &[
    ("both-down", ["0.00", "0.00"]),
    ("contest-like", ["0.01", "0.00"]),
    ("errors", ["0.00", "0.00"]),
    ("final-like", ["3.38", "1.04"]),
    ("flapping", ["0.00", "0.00"]),
    ("outage-10000-waiting", ["0.00", "0.00"]),
    ("outage-to-the-end", ["0.00", "0.00"]),
    ("peak", ["0.23", "0.07"]),
    ("recoveries", ["2.42", "0.74"]),
    ("slow-default", ["2.73", "0.84"]),
];

/// What the page is made of.
pub struct Report<'a> {
    /// The commit and its date.
    pub commit: &'a str,
    /// The first held-out seed, and how many.
    pub seeds: (u64, u64),
    /// Runs of random schedules, however they end.
    pub any_end: &'a [Run],
    /// Runs of random schedules that end with a processor that works.
    pub fair: &'a [Run],
    /// Runs of our own schedules.
    pub ours: &'a [Run],
    /// Runs of random schedules of one to eight processors, and how many there are.
    pub many: (&'a [Run], u64),
    /// Runs of our own schedules of three and five.
    pub many_ours: &'a [Run],
    /// Galo's runs of our own schedules of slow and silent processors, with an audit each second.
    pub shown: &'a [Run],
    /// Our own schedule that the timeline shows, and Galo's run of it with its seconds.
    pub timeline: (&'a Schedule, &'a Run),
    /// At which fees.
    pub fees: &'a [Fees],
}

/// Why the page could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// A plot.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

impl Report<'_> {
    /// Writes `routing.md` and the folder `routing` beside it.
    ///
    /// # Errors
    /// The first file that could not be written.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        let plots = folder.join("routing");
        std::fs::create_dir_all(&plots).map_err(|error| ReportError::File(plots.clone(), error))?;
        plots::regret_curves(&plots.join("regret.svg"), self.fees, self.any_end)?;
        plots::regret_curves(&plots.join("regret-fair.svg"), self.fees, self.fair)?;
        plots::timeline(&plots.join("timeline.svg"), self.timeline.0, self.timeline.1)?;
        plots::schedules(&plots.join("schedules.svg"), self.fees, self.ours)?;
        let page = folder.join("routing.md");
        std::fs::write(&page, self.page()).map_err(|error| ReportError::File(page, error))
    }

    /// In two sentences.
    fn answer(&self) -> String {
        let say = |runs: &[Run]| {
            let lines = self.fees.iter().map(|fees| {
                let line = Summary::of(PolicyKind::Galo, &of_fees(runs, *fees));
                format!(
                    "{:.2} % (at worst {:.2}) at fees of {}",
                    line.regret.mean,
                    line.regret.worst,
                    fees.name()
                )
            });
            lines.collect::<Vec<_>>().join(" and ")
        };
        let many: Vec<&Run> = self.many.0.iter().collect();
        let many = Summary::of(PolicyKind::Galo, &many).others_regret;
        format!(
            "Of two processors, over {} random schedules each, Galo misses {} in the mean; {} where one processor works during the last five seconds. \
             With one to eight processors, over {} schedules, {:.2} % (at worst {:.2}), payments in doubt left out.",
            self.seeds.1,
            say(self.any_end),
            say(self.fair),
            self.many.1,
            many.mean,
            many.worst
        )
    }

    fn page(&self) -> String {
        let mut page = String::new();
        let (first, count) = self.seeds;
        let answer = self.answer();
        let commit = self.commit;
        push(
            &mut page,
            format_args!(
                "# What the routing earns\n\n\
                 How much of what could be earned does Galo's routing earn, on schedules that it has never seen, and how much do other policies? {answer}\n\n\
                 Written by `cargo xtask lab --report --random {count} --from {first}`, commit {commit}; edit the laboratory (`simulator/src/laboratory/`), not this page. Everything\n\
                 is simulated under a virtual clock from fixed seeds: the same commit gives the same page on each machine.\n\n\
                 Regret is the share of the clairvoyant's profit that a policy did not earn, before bonus and fine: the clairvoyant knows the whole schedule and\n\
                 its end, a policy neither; that nobody can earn more is proved at the head of `bound.rs`. *Audit regret* compares with a clairvoyant who sends nothing to a processor slower than a second while there is another way, so it may be\n\
                 below zero. *Inconsistencies* are what the contest's auditor would see (each ten seconds, over [now − 15 s, now − 1.5 s], its answers up to 5 ms\n\
                 apart); one in a run costs 35 % of it. *Risky* payments were processed later than a second after their `requestedAt`. *Lag* is accepted and not\n\
                 processed at the end. *Doubles* were stored by more than one processor. *In doubt* is of which an attempt had no answer. *Oldest* is how long, of the others, the payment that waited longest did. In brackets: in how many runs.\n\n\
                 All policies meet the same clients (closed loop, a second of sleep), processors (a CPU of 5,000 requests a second each, 0.5 to 1.5 ms base time, 800 running and 500 waiting) and\n\
                 auditor. Galo is the engine's real code, two gateways and the aggregator, with the gateway's default configuration. The others are baselines\n\
                 (`simulator/src/laboratory/baselines/`), each in its fair best reading: 400 attempts in flight, no cost for a pause, news shared at once.\n\n\
                 What it does not say: what Galo's own CPU costs, what lost connections and kills do (docs/simulation.md, chaos.md), how real processors share their CPU.\n"
            ),
        );
        push(&mut page, format_args!("\n| policy | what it does |\n| --- | --- |\n"));
        for kind in PolicyKind::ALL {
            push(&mut page, format_args!("| {} | {} |\n", kind.name(), kind.story()));
        }
        push(
            &mut page,
            format_args!(
                "\n## Slow and silent processors, with an audit each second\n\n\
                 `cargo xtask lab --schedule providers --schedule many --policies galo --fees preview --audit-ms 1000 --worst 20`. The cheaper one takes a steady 0.8 to 1.3 s, the other\n\
                 nothing, at 100 payments a second; or 2 % of the cheapest one's requests are never answered and 2 % of its connections break, 10 % and 10 %, at 150 payments a second for a minute.\n\n{}",
                shown_table(self.shown)
            ),
        );
        self.push_ours(&mut page);
        self.push_many(&mut page);
        self.push_random(&mut page);
        push(
            &mut page,
            format_args!(
                "\n## The contest's stages, second by second\n\n\
                 `{}` with Galo, fees of {}. The bars on top say how the processors do.\n\n\
                 ![Payments per second at each processor, and payments waiting](routing/timeline.svg)\n",
                self.timeline.0.name,
                self.timeline.1.fees.name()
            ),
        );
        page
    }

    fn push_ours(&self, page: &mut String) {
        push(
            page,
            format_args!(
                "\n## Our schedules of two processors\n\n\
                 The files of `simulator/schedules/`, `cargo xtask lab --schedule all`; the load script plays the same ones against real processes. Regret in % (with inconsistencies: †; with doubles: ‡), beside\n\
                 Galo's at commit 25f2ae2, before processors were configuration.\n"
            ),
        );
        for (index, fees) in self.fees.iter().enumerate() {
            let before = |schedule: &str| {
                let found = AT_25F2AE2.iter().find(|(name, _)| *name == schedule);
                found.and_then(|(_, regrets)| regrets.get(index)).copied().unwrap_or("")
            };
            let table = matrix(&of_fees(self.ours, *fees), "at 25f2ae2", |name, _| before(name).to_owned());
            push(page, format_args!("\nFees of {}:\n\n{table}", fees.name()));
        }
        push(
            page,
            format_args!("\n![Regret of each policy on each of our schedules](routing/schedules.svg)\n"),
        );
    }

    fn push_many(&self, page: &mut String) {
        let (runs, count) = self.many;
        let (first, _) = self.seeds;
        let runs: Vec<&Run> = runs.iter().collect();
        let ours: Vec<&Run> = self.many_ours.iter().collect();
        push(
            page,
            format_args!(
                "\n## One to eight processors\n\n\
                 `cargo xtask lab --many --random {count} --from {first}`: what is drawn is written at the head of `many.rs`: each processor has its own fee and, independently of the others, outages, flapping, slow\n\
                 phases, errors and lost answers.\n\n{}\n\
                 Where Galo does worst:\n\n{}\n\
                 Our own, `cargo xtask lab --schedule many`: `middle` where the middle one is the right one most of the time, `in-turn` where one after the other fails, `unanswered` as above. Regret in %, payments\n\
                 in doubt left out, and what Galo's oldest payment waited:\n\n{}",
                many_table(&runs),
                worst_table(&runs),
                matrix(&ours, "oldest, s", |_, galo| format!("{:.1}", galo.waited_s()))
            ),
        );
    }

    fn push_random(&self, page: &mut String) {
        let (first, count) = self.seeds;
        push(
            page,
            format_args!(
                "\n## Random schedules of two processors\n\n\
                 Seeds {first} to {}; what is drawn is written at the head of `generator.rs`: 60 or 300 seconds, 100 to 600 clients, 3 to 12 stages of outages,\n\
                 flapping, slow phases, errors. Two families, both shown, since the condition of the second was added after the first had been played: a schedule that\n\
                 ends with both processors out leaves payments behind for everybody, and who waits for the cheaper one then loses most.\n",
                first + count - 1
            ),
        );
        let families = [
            ("However they end", "--any-end", self.any_end, "regret"),
            (
                "With a processor that works within a second during the last five seconds",
                "",
                self.fair,
                "regret-fair",
            ),
        ];
        for (title, option, runs, plot) in families {
            let command =
                format!("cargo xtask lab {option} --random {count} --from {first}").replace("  ", " ");
            push(page, format_args!("\n### {title}\n\n`{command}`\n"));
            for fees in self.fees {
                let runs = of_fees(runs, *fees);
                push(page, format_args!("\nFees of {}:\n\n{}", fees.name(), summary_table(&runs)));
            }
            push(
                page,
                format_args!(
                    "\n![How many schedules stay below which regret, by policy](routing/{plot}.svg)\n"
                ),
            );
            let fees = self.fees[0];
            let runs = of_fees(runs, fees);
            push(
                page,
                format_args!("\nWhere Galo does worst, fees of {}:\n\n{}", fees.name(), worst_table(&runs)),
            );
        }
    }
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes everything");
}

fn of_fees(runs: &[Run], fees: Fees) -> Vec<&Run> {
    runs.iter().filter(|run| run.fees == fees).collect()
}

fn summary_table(runs: &[&Run]) -> String {
    let mut table = String::from(
        "| policy | median regret | mean | p90 | worst | audit regret, mean | inconsistencies | lag | doubles | at a dearer one | risky |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for kind in PolicyKind::ALL {
        let line = Summary::of(*kind, runs);
        let bold = if *kind == PolicyKind::Galo { "**" } else { "" };
        push(
            &mut table,
            format_args!(
                "| {bold}{}{bold} | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {} ({}) | {} ({}) | {} | {:.1} % | {:.1} % |\n",
                kind.name(),
                line.regret.median,
                line.regret.mean,
                line.regret.p90,
                line.regret.worst,
                line.audit_regret.mean,
                line.inconsistencies.0,
                line.inconsistencies.1,
                line.lag.0,
                line.lag.1,
                line.doubles,
                line.dearer_share,
                line.risk,
            ),
        );
    }
    table
}

fn worst_table(runs: &[&Run]) -> String {
    let mut worst: Vec<&Run> = runs.iter().copied().filter(|run| run.policy == PolicyKind::Galo).collect();
    worst.sort_by(|a, b| b.others_regret().total_cmp(&a.others_regret()));
    worst.truncate(WORST_COUNT);
    run_table(&worst)
}

fn run_table(runs: &[&Run]) -> String {
    let mut table = String::from(
        "| schedule | profit | clairvoyant | regret | audit regret | accepted | processed | clairvoyant's | lag | in doubt | oldest | inconsistencies |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for run in runs {
        push(
            &mut table,
            format_args!(
                "| {} | {} | {} | {:.2} % | {:.2} % | {} | {} | {} | {} | {} | {:.1} s | {} |\n",
                run.schedule,
                money(run.profit_units()),
                money(run.bound.profit_units(run.fees)),
                run.regret() * 100.0,
                run.audit_regret() * 100.0,
                run.accepted,
                run.sums(run.processed),
                run.sums(run.bound.counts),
                run.lag(),
                run.in_doubt,
                run.waited_s(),
                run.inconsistencies,
            ),
        );
    }
    table
}

/// What the processors' slowness and silence cost, of Galo's runs.
fn shown_table(runs: &[Run]) -> String {
    let mut table = String::from(
        "| schedule | fees | processed | regret | in doubt | regret of the others | of them later than 2 s | oldest | inconsistencies |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for run in runs {
        push(
            &mut table,
            format_args!(
                "| {} | {} | {} | {:.2} % | {} | {:.2} % | {} | {:.1} s | {} |\n",
                run.schedule,
                run.fees.name(),
                run.sums(run.processed),
                run.regret() * 100.0,
                run.in_doubt,
                run.others_regret() * 100.0,
                run.late,
                run.waited_s(),
                run.inconsistencies,
            ),
        );
    }
    table
}

fn many_table(runs: &[&Run]) -> String {
    let mut table = String::from(
        "| policy | median regret | mean | p90 | worst | without those in doubt: mean | worst | in doubt | oldest, median | worst | inconsistencies | lag | doubles |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for kind in PolicyKind::ALL {
        let line = Summary::of(*kind, runs);
        let bold = if *kind == PolicyKind::Galo { "**" } else { "" };
        push(
            &mut table,
            format_args!(
                "| {bold}{}{bold} | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {} | {:.1} s | {:.1} s | {} ({}) | {} ({}) | {} |\n",
                kind.name(),
                line.regret.median,
                line.regret.mean,
                line.regret.p90,
                line.regret.worst,
                line.others_regret.mean,
                line.others_regret.worst,
                line.in_doubt,
                line.waited_s.median,
                line.waited_s.worst,
                line.inconsistencies.0,
                line.inconsistencies.1,
                line.lag.0,
                line.lag.1,
                line.doubles,
            ),
        );
    }
    table
}

/// Ten-thousandths of a cent as money, rounded down.
fn money(units: u64) -> String {
    let cents = units / 10_000;
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Everybody's regret on each schedule, and something more of Galo's run there.
fn matrix(runs: &[&Run], title: &str, more: impl Fn(&str, &Run) -> String) -> String {
    let names: Vec<&str> = PolicyKind::ALL.iter().map(|kind| kind.name()).collect();
    let mut table = format!(
        "| schedule | {title} | {} |\n| --- | ---: |{}\n",
        names.join(" | "),
        " ---: |".repeat(names.len())
    );
    let mut schedules: Vec<&str> = runs.iter().map(|run| run.schedule.as_str()).collect();
    schedules.sort_unstable();
    schedules.dedup();
    for schedule in schedules {
        let of = |kind| runs.iter().find(|run| run.policy == kind && run.schedule == schedule);
        let more = of(PolicyKind::Galo).map_or_else(String::new, |run| more(schedule, run));
        push(&mut table, format_args!("| {schedule} | {more} |"));
        for kind in PolicyKind::ALL {
            match of(*kind) {
                Some(run) => {
                    let dagger = if run.inconsistencies > 0 { "†" } else { "" };
                    let double = if run.doubles > 0 { "‡" } else { "" };
                    push(&mut table, format_args!(" {:.2}{dagger}{double} |", run.others_regret() * 100.0));
                }
                None => push(&mut table, format_args!(" |")),
            }
        }
        table.push('\n');
    }
    table
}
