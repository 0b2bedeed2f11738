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
const WORST_COUNT: usize = 10;

/// What the page is made of.
pub struct Report<'a> {
    /// The first held-out seed, and how many.
    pub seeds: (u64, u64),
    /// Runs of random schedules, however they end.
    pub any_end: &'a [Run],
    /// Runs of random schedules that end with a processor that works.
    pub fair: &'a [Run],
    /// Runs of our own schedules.
    pub ours: &'a [Run],
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
                    "{:.2} % in the median and {:.2} % in the worst case at fees of {}",
                    line.regret.median,
                    line.regret.worst,
                    fees.name()
                )
            });
            lines.collect::<Vec<_>>().join(", ")
        };
        format!(
            "Over {} random schedules Galo misses {}. Where one processor works during the last five seconds it misses {}.",
            self.seeds.1,
            say(self.any_end),
            say(self.fair)
        )
    }

    fn page(&self) -> String {
        let mut page = String::new();
        let (first, count) = self.seeds;
        let answer = self.answer();
        push(
            &mut page,
            format_args!(
                "# What the routing earns\n\n\
                 How much of what could be earned does Galo's routing earn, on schedules that it has never seen, and how much do other policies? {answer}\n\n\
                 Written by `cargo xtask lab --report`, which plays everything below anew; edit the laboratory (`simulator/src/laboratory/`), not this page. Everything\n\
                 is simulated under a virtual clock from fixed seeds: the same commit gives the same page on each machine.\n\n\
                 Regret is the share of the clairvoyant's profit that a policy did not earn, before bonus and fine: the clairvoyant knows the whole schedule and\n\
                 its end, a policy neither. *Audit regret* compares with a clairvoyant who sends nothing to a processor slower than a second while there is another way, so it may be\n\
                 below zero. *Inconsistencies* are what the contest's auditor would see (each ten seconds, over [now − 15 s, now − 1.5 s], its three answers up to 5 ms\n\
                 apart); one in a run costs 35 % of it. *Risky* payments were processed later than a second after their `requestedAt`. *Lag* is accepted and not\n\
                 processed at the end. *Doubles* were stored by both processors. In brackets: in how many runs.\n\n\
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
                "\n## Random schedules\n\n\
                 Seeds {first} to {}; what is drawn is written at the head of `generator.rs`: 60 or 300 seconds, 100 to 600 clients, 3 to 12 stages of outages,\n\
                 flapping, slow phases, errors. Two families, both shown, since the condition of the second was added after the first had been played: a schedule that\n\
                 ends with both processors out leaves payments behind for everybody, and who waits for the cheaper one then loses most.\n",
                first + count - 1
            ),
        );
        let families = [
            ("However they end", self.any_end, "regret"),
            (
                "With a processor that works within a second during the last five seconds",
                self.fair,
                "regret-fair",
            ),
        ];
        for (title, runs, plot) in families {
            push(&mut page, format_args!("\n### {title}\n"));
            for fees in self.fees {
                let runs = of_fees(runs, *fees);
                push(&mut page, format_args!("\nFees of {}:\n\n{}", fees.name(), summary_table(&runs)));
            }
            push(
                &mut page,
                format_args!(
                    "\n![How many schedules stay below which regret, by policy](routing/{plot}.svg)\n"
                ),
            );
            for fees in self.fees {
                let runs = of_fees(runs, *fees);
                push(
                    &mut page,
                    format_args!(
                        "\nWhere Galo does worst, fees of {}:\n\n{}",
                        fees.name(),
                        worst_table(&runs)
                    ),
                );
            }
        }
        push(
            &mut page,
            format_args!(
                "\n## Our own schedules\n\n\
                 The files of `simulator/schedules/`; the load script plays the same ones against real processes.\n"
            ),
        );
        for fees in self.fees {
            let runs = of_fees(self.ours, *fees);
            push(
                &mut page,
                format_args!(
                    "\n### Fees of {}, our schedules\n\nGalo:\n\n{}\nRegret in %, everybody (with inconsistencies: †; with doubles: ‡):\n\n{}",
                    fees.name(),
                    galo_table(&runs),
                    matrix(&runs)
                ),
            );
        }
        push(
            &mut page,
            format_args!("\n![Regret of each policy on each of our schedules](routing/schedules.svg)\n"),
        );
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
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes everything");
}

fn of_fees(runs: &[Run], fees: Fees) -> Vec<&Run> {
    runs.iter().filter(|run| run.fees == fees).collect()
}

fn summary_table(runs: &[&Run]) -> String {
    let mut table = String::from(
        "| policy | median regret | mean | p90 | worst | audit regret, mean | inconsistencies | lag | doubles | at fallback | risky |\n\
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
    worst.sort_by(|a, b| b.regret().total_cmp(&a.regret()));
    worst.truncate(WORST_COUNT);
    run_table(&worst)
}

fn galo_table(runs: &[&Run]) -> String {
    let galo: Vec<&Run> = runs.iter().copied().filter(|run| run.policy == PolicyKind::Galo).collect();
    run_table(&galo)
}

fn run_table(runs: &[&Run]) -> String {
    let mut table = String::from(
        "| schedule | profit | clairvoyant | regret | audit regret | accepted | default | fallback | clairvoyant's | lag | inconsistencies | risky |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for run in runs {
        let [default, fallback, ..] = run.bound.counts;
        push(
            &mut table,
            format_args!(
                "| {} | {} | {} | {:.2} % | {:.2} % | {} | {} | {} | {default} + {fallback} | {} | {} | {:.1} % |\n",
                run.schedule,
                money(run.profit_units()),
                money(run.bound.profit_units(run.fees)),
                run.regret() * 100.0,
                run.audit_regret() * 100.0,
                run.accepted,
                run.processed[0],
                run.processed[1],
                run.lag(),
                run.inconsistencies,
                run.risk() * 100.0,
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

fn matrix(runs: &[&Run]) -> String {
    let names: Vec<&str> = PolicyKind::ALL.iter().map(|kind| kind.name()).collect();
    let mut table =
        format!("| schedule | {} |\n| --- |{}\n", names.join(" | "), " ---: |".repeat(names.len()));
    let mut schedules: Vec<&str> = runs.iter().map(|run| run.schedule.as_str()).collect();
    schedules.sort_unstable();
    schedules.dedup();
    for schedule in schedules {
        push(&mut table, format_args!("| {schedule} |"));
        for kind in PolicyKind::ALL {
            let found = runs.iter().find(|run| run.policy == *kind && run.schedule == schedule);
            match found {
                Some(run) => {
                    let dagger = if run.inconsistencies > 0 { "†" } else { "" };
                    let double = if run.doubles > 0 { "‡" } else { "" };
                    push(&mut table, format_args!(" {:.2}{dagger}{double} |", run.regret() * 100.0));
                }
                None => push(&mut table, format_args!(" |")),
            }
        }
        table.push('\n');
    }
    table
}
