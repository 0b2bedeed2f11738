//! Runs the deterministic simulator: `simulate --seeds 20000`, `simulate --seed 17 --trace`, `simulate --planted`.
//!
//! Exits with 0 if every seed passed (or every planted bug was found), else with 1 after naming seed, invariant and how
//! to run it again. Nothing outlives it.

use std::cell::Cell;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use galo_simulator::cluster::{Bug, Coverage, Failure, Invariant, Options, run};

thread_local! {
    /// The seed that this thread is running, for the message of an assertion that fails.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Checks that ran so seldom may by chance not run at all: below this many seeds their absence is no failure.
const SEEDS_FOR_COVERAGE: u64 = 200;

/// The same for what happens in few of them.
const SEEDS_FOR_EVENTS: u64 = 2_000;

/// Exit status of a child that found what it was looking for, as of any run that fails.
const EXIT_FAILED: u8 = 1;

/// The deterministic simulator of gateways, aggregator and processors
#[derive(Parser)]
#[command(name = "simulate", version)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this one alone
    #[arg(long)]
    seed: Option<u64>,
    /// Print each step
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plant a bug; `--bugs` lists them
    #[arg(long, value_parser = bug)]
    bug: Option<Bug>,
    /// List the bugs that can be planted
    #[arg(long)]
    bugs: bool,
    /// Plant each bug in turn and look for it in at most `--seeds` seeds
    #[arg(long)]
    planted: bool,
    /// Go on after a failure
    #[arg(long)]
    keep_going: bool,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
}

fn bug(name: &str) -> Result<Bug, String> {
    let found = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
    found.ok_or_else(|| "no such bug; --bugs lists them".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.bugs {
        for bug in Bug::ALL {
            println!("{:24}{}", bug.name(), bug.story().trim());
        }
        return ExitCode::SUCCESS;
    }
    if arguments.planted { plant(&arguments) } else { simulate(&arguments) }
}

/// What the threads share.
struct Totals {
    counts: [u64; Invariant::COUNT],
    coverage: Coverage,
    passed: u64,
    failed: Vec<(u64, Failure)>,
}

impl Default for Totals {
    fn default() -> Self {
        Self { counts: [0; Invariant::COUNT], coverage: Coverage::default(), passed: 0, failed: Vec::new() }
    }
}

fn simulate(arguments: &Arguments) -> ExitCode {
    let (first, count) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let (bug, trace) = (arguments.bug, arguments.trace);
    std::panic::set_hook(Box::new(move |panic| {
        let what = panic.to_string().replace('\n', " ");
        println!("{}", describe(SEED.get(), bug, Invariant::EngineAssertion, 0, &what));
        println!("the run ends here: 1 failed");
        std::process::exit(i32::from(EXIT_FAILED));
    }));
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                let mut mine = Totals::default();
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    let seed = first + index;
                    SEED.set(seed);
                    let report = run(seed, Options { bug, trace });
                    mine.counts.iter_mut().zip(report.checks.counts).for_each(|(sum, count)| *sum += count);
                    mine.coverage.add(&report.coverage);
                    match report.checks.failure {
                        None => mine.passed += 1,
                        Some(failure) => {
                            println!(
                                "{}",
                                describe(seed, bug, failure.invariant, failure.at_us, &failure.what)
                            );
                            mine.failed.push((seed, failure));
                            stop.fetch_or(!arguments.keep_going, Ordering::Relaxed);
                        }
                    }
                }
                let mut totals = totals.lock().expect("no thread panics and lives");
                totals.counts.iter_mut().zip(mine.counts).for_each(|(sum, count)| *sum += count);
                totals.coverage.add(&mine.coverage);
                totals.passed += mine.passed;
                totals.failed.append(&mut mine.failed);
            });
        }
    });
    let totals = totals.into_inner().expect("no thread panics and lives");
    let ran = totals.passed + totals.failed.len() as u64;
    if ran > 1 {
        print_table(&totals);
    }
    let elapsed_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let idle: Vec<_> = Invariant::ALL
        .iter()
        .filter(|invariant| {
            **invariant != Invariant::EngineAssertion && totals.counts[**invariant as usize] == 0
        })
        .map(|invariant| invariant.name())
        .collect();
    let idle_fails = ran >= SEEDS_FOR_COVERAGE && !idle.is_empty();
    if idle_fails {
        println!("never checked: {}", idle.join(", "));
    }
    let unseen: Vec<_> =
        totals.coverage.list().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    let unseen_fails = ran >= SEEDS_FOR_EVENTS && !unseen.is_empty();
    if unseen_fails {
        println!("never happened: {}", unseen.join(", "));
    }
    println!("{elapsed_ms} ms, {} seeds per second", ran * 1000 / elapsed_ms);
    println!("{} seeds passed, {} failed", totals.passed, totals.failed.len());
    if totals.failed.is_empty() && !idle_fails && !unseen_fails {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    }
}

fn describe(seed: u64, bug: Option<Bug>, invariant: Invariant, at_us: u64, what: &str) -> String {
    let planted = bug.map_or(String::new(), |bug| format!(" --bug {}", bug.name()));
    format!(
        "seed {seed} failed: {}: {what} (after {} ms)\n  again: cargo xtask sim --seed {seed}{planted} --trace",
        invariant.name(),
        at_us / 1000
    )
}

fn print_table(totals: &Totals) {
    println!("checks");
    for invariant in Invariant::ALL {
        println!("  {:26}{:>14}", invariant.name(), totals.counts[*invariant as usize]);
    }
    println!("what happened");
    for (name, count) in totals.coverage.list() {
        println!("  {name:26}{count:>14}");
    }
}

/// Each bug in a process of its own: an assertion of the engine that fails ends the process.
fn plant(arguments: &Arguments) -> ExitCode {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut missed = 0;
    for bug in Bug::ALL {
        let output = Command::new(&program)
            .args(["--bug", bug.name(), "--jobs", "1"])
            .args(["--seeds", &arguments.seeds.to_string(), "--from", &arguments.from.to_string()])
            .output()
            .expect("this program runs again");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.contains(" failed: "));
        match line.filter(|_| output.status.code() == Some(i32::from(EXIT_FAILED))) {
            Some(line) => println!("{:24}found: {}", bug.name(), shorten(line)),
            None => {
                missed += 1;
                println!("{:24}NOT FOUND in {} seeds", bug.name(), arguments.seeds);
            }
        }
    }
    println!("{} planted bugs found, {missed} not found", Bug::ALL.len() - missed);
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

fn shorten(line: &str) -> String {
    line.chars().take(120).collect()
}
