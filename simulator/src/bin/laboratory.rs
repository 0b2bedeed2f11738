//! Runs the policy laboratory: `laboratory --random 200 --from 1000000 --fees both`, `laboratory --schedule FILE --verbose`.
//!
//! Prints a table of how each policy did against full knowledge of the future. Exits with 1 only if something could not
//! be read: a policy that does badly is a result, not a failure.

#![expect(clippy::float_arithmetic, reason = "percentages in tables")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use galo_simulator::laboratory::{
    Fees, GaloConfig, PolicyKind, Run, Schedule, Settings, Spread, generate, generate_any_end, play,
};

/// The policy laboratory: schedules × policies under a virtual clock
#[derive(Parser)]
#[command(name = "laboratory", version)]
struct Arguments {
    /// Play this many random schedules
    #[arg(long, value_name = "COUNT")]
    random: Option<u64>,
    /// The seed of the first of them; tune with those below 1000000, judge with the others
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Random schedules may end with both processors down
    #[arg(long)]
    any_end: bool,
    /// Play this random schedule alone
    #[arg(long, conflicts_with = "random")]
    seed: Option<u64>,
    /// Play these files; `--schedule all` plays simulator/schedules
    #[arg(long, value_name = "FILE")]
    schedule: Vec<PathBuf>,
    /// What the processors keep
    #[arg(long, value_enum, default_value_t = FeesChoice::Both)]
    fees: FeesChoice,
    /// Names from `--list`, with commas between, or all
    #[arg(long, default_value = "all", value_parser = policies)]
    policies: Policies,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Print each second of each run
    #[arg(long)]
    verbose: bool,
    /// List policies and schedules
    #[arg(long)]
    list: bool,
    /// Print the runs with Galo's largest regret, so many of them
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    worst: usize,
    /// Print a random schedule as JSON (`--seed`) instead of playing it
    #[arg(long, requires = "seed")]
    print: bool,
    /// Galo's ROUTING_PATIENCE_MS
    #[arg(long)]
    patience_ms: Option<u64>,
    /// Beyond this a processor is too slow for Galo
    #[arg(long)]
    slow_ms: Option<u64>,
    /// Galo's PROCESSOR_CONCURRENCY_MAX
    #[arg(long)]
    concurrency_max: Option<u32>,
    /// What each processor's CPU can do
    #[arg(long, default_value_t = 5_000)]
    requests_per_second: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum FeesChoice {
    /// 5 % and 15 %
    Preview,
    /// 7 % and 10 %
    Final,
    /// One after the other
    Both,
}

impl FeesChoice {
    fn list(self) -> &'static [Fees] {
        match self {
            Self::Preview => &[Fees::PREVIEW],
            Self::Final => &[Fees::FINAL],
            Self::Both => &[Fees::PREVIEW, Fees::FINAL],
        }
    }
}

#[derive(Clone)]
struct Policies(Vec<PolicyKind>);

fn policies(names: &str) -> Result<Policies, String> {
    if names == "all" {
        return Ok(Policies(PolicyKind::ALL.to_vec()));
    }
    let find = |name: &str| PolicyKind::ALL.iter().copied().find(|kind| kind.name() == name);
    let found =
        names.split(',').map(|name| find(name).ok_or_else(|| format!("{name}: no such policy; --list")));
    found.collect::<Result<_, _>>().map(Policies)
}

/// A schedule, and the seed of everything else in its runs.
struct Piece {
    schedule: Schedule,
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        list();
        return ExitCode::SUCCESS;
    }
    let pieces = match pieces(&arguments) {
        Ok(pieces) => pieces,
        Err(error) => {
            eprintln!("laboratory: {error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.print {
        for piece in &pieces {
            println!("{}", serde_json::to_string_pretty(&piece.schedule).expect("a schedule is plain data"));
        }
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    let runs = play_all(&pieces, &arguments);
    for fees in arguments.fees.list() {
        let runs: Vec<&Run> = runs.iter().filter(|run| run.fees == *fees).collect();
        print_table(*fees, &runs, pieces.len(), &arguments.policies.0);
        print_worst(&runs, arguments.worst);
        if arguments.verbose {
            runs.iter().for_each(|run| print_timeline(run));
        }
    }
    println!("{} runs in {} ms", runs.len(), begin.elapsed().as_millis());
    ExitCode::SUCCESS
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schedules")
}

fn files() -> Result<Vec<PathBuf>, String> {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    Ok(files)
}

fn list() {
    println!("policies");
    PolicyKind::ALL.iter().for_each(|kind| println!("  {:24}{}", kind.name(), kind.story()));
    println!("schedules");
    for path in files().unwrap_or_default() {
        match Schedule::read(&path) {
            Ok(schedule) => println!("  {:24}{:>4} s  {}", schedule.name, schedule.seconds, path.display()),
            Err(error) => println!("  {error}"),
        }
    }
}

fn pieces(arguments: &Arguments) -> Result<Vec<Piece>, String> {
    let mut paths = Vec::new();
    for path in &arguments.schedule {
        if path.as_os_str() == "all" { paths.extend(files()?) } else { paths.push(path.clone()) }
    }
    let mut pieces = Vec::new();
    for path in paths {
        let schedule = Schedule::read(&path).map_err(|error| error.to_string())?;
        pieces.push(Piece { schedule, seed: arguments.from });
    }
    let seeds = match (arguments.seed, arguments.random) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => arguments.from..arguments.from + count,
        (None, None) => 0..0,
    };
    let draw = if arguments.any_end { generate_any_end } else { generate };
    pieces.extend(seeds.map(|seed| Piece { schedule: draw(seed), seed }));
    if pieces.is_empty() {
        return Err("nothing to play: --random COUNT, --seed N or --schedule FILE".to_owned());
    }
    Ok(pieces)
}

fn play_all(pieces: &[Piece], arguments: &Arguments) -> Vec<Run> {
    let mut tasks = Vec::new();
    for fees in arguments.fees.list() {
        for kind in &arguments.policies.0 {
            tasks.extend(pieces.iter().map(|piece| (piece, *fees, *kind)));
        }
    }
    let defaults = GaloConfig::default();
    let galo = GaloConfig {
        patience_ms: arguments.patience_ms.unwrap_or(defaults.patience_ms),
        slow_ms: arguments.slow_ms.unwrap_or(defaults.slow_ms),
        concurrency_max: arguments.concurrency_max.unwrap_or(defaults.concurrency_max),
        ..defaults
    };
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(tasks.len()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while let Some((index, (piece, fees, kind))) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    tasks.get(index).map(|task| (index, task))
                } {
                    let settings = Settings {
                        galo,
                        requests_per_second_max: [arguments.requests_per_second; 2],
                        ..Settings::new(*fees, piece.seed)
                    };
                    let run = play(&piece.schedule, &settings, *kind, arguments.verbose);
                    done.lock().expect("no thread panics and lives").push((index, run));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics and lives");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, run)| run).collect()
}

fn print_table(fees: Fees, runs: &[&Run], schedule_count: usize, kinds: &[PolicyKind]) {
    let [default, fallback] = fees.bps;
    println!(
        "fees {default} and {fallback} bps, {schedule_count} schedules; regret in % of the clairvoyant's profit"
    );
    println!(
        "{:14}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>8}{:>7}{:>8}{:>8}{:>9}{:>9}",
        "policy",
        "median",
        "mean",
        "p90",
        "worst",
        "audit md",
        "incons.",
        "(runs)",
        "lag",
        "(runs)",
        "doubles",
        "fallback",
        "risky"
    );
    for kind in kinds {
        let runs: Vec<&Run> = runs.iter().copied().filter(|run| run.policy == *kind).collect();
        let regret = Spread::of(runs.iter().map(|run| run.regret() * 100.0));
        let audit = Spread::of(runs.iter().map(|run| run.audit_regret() * 100.0));
        let fallback = Spread::of(runs.iter().map(|run| run.fallback_share() * 100.0));
        let risk = Spread::of(runs.iter().map(|run| run.risk() * 100.0));
        println!(
            "{:14}{:>8.2}{:>8.2}{:>8.2}{:>8.2}{:>9.2}{:>9}{:>8}{:>7}{:>8}{:>8}{:>8.2}%{:>8.2}%",
            kind.name(),
            regret.median,
            regret.mean,
            regret.p90,
            regret.worst,
            audit.median,
            runs.iter().map(|run| run.inconsistencies).sum::<u64>(),
            runs.iter().filter(|run| run.inconsistencies > 0).count(),
            runs.iter().map(|run| run.lag()).sum::<i64>(),
            runs.iter().filter(|run| run.lag() != 0).count(),
            runs.iter().map(|run| run.doubles).sum::<u64>(),
            fallback.mean,
            risk.mean,
        );
    }
}

/// The runs that Galo should have done better, and what they were like.
fn print_worst(runs: &[&Run], count: usize) {
    let mut worst: Vec<&&Run> = runs.iter().filter(|run| run.policy == PolicyKind::Galo).collect();
    worst.sort_by(|a, b| b.regret().total_cmp(&a.regret()));
    for run in worst.into_iter().take(count) {
        let [cheap, dear] = run.bound.counts;
        println!(
            "  {:20} regret {:>6.2} %  posted {:>6}  default {:>6}  fallback {:>6}  (clairvoyant {cheap} + {dear})  lag {:>5}  inconsistencies {:>4}  risky {:>5}",
            run.schedule,
            run.regret() * 100.0,
            run.posted,
            run.processed[0],
            run.processed[1],
            run.lag(),
            run.inconsistencies,
            run.risky,
        );
        let figures: Vec<String> =
            run.figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
        println!("  {:20} {}", "", figures.join(", "));
    }
}

fn print_timeline(run: &Run) {
    println!("{} on {}, fees {:?}", run.policy.name(), run.schedule, run.fees.bps);
    let names: Vec<&str> = run.figures.iter().map(|(name, _)| *name).collect();
    println!(
        "{:>5}{:>7}{:>8}{:>9}{:>7}{:>7}{:>8}{:>8}  {}",
        "s",
        "posted",
        "default",
        "fallback",
        "ref d",
        "ref f",
        "waiting",
        "flight",
        names.join(" | ")
    );
    for (second, line) in run.seconds.iter().enumerate() {
        let figures: Vec<String> = line.figures.iter().map(|(_, value)| value.to_string()).collect();
        println!(
            "{:>5}{:>7}{:>8}{:>9}{:>7}{:>7}{:>8}{:>8}  {}",
            second + 1,
            line.posted,
            line.processed[0],
            line.processed[1],
            line.refused[0],
            line.refused[1],
            line.waiting,
            line.in_flight,
            figures.join(" | ")
        );
    }
    for audit in run.audits.iter().filter(|audit| audit.difference() > 0) {
        println!("audit at {} s: {} apart", audit.at_s, audit.difference());
    }
}
