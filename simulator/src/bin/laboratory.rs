//! Runs the policy laboratory: `laboratory --random 200 --from 1000000 --fees both`, `laboratory --schedule FILE --verbose`.
//!
//! Prints a table of how each policy did against full knowledge of the future. Exits with 1 only if something could not
//! be read: a policy that does badly is a result, not a failure.

#![expect(clippy::float_arithmetic, reason = "percentages in tables")]

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use galo_simulator::laboratory::{
    Counts, Fees, GaloConfig, PolicyKind, Report, Run, Schedule, Settings, Summary, generate,
    generate_any_end, generate_many, play,
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
    /// Random schedules have one to eight processors, each with its own fee
    #[arg(long, conflicts_with = "any_end")]
    many: bool,
    /// Play this random schedule alone
    #[arg(long, conflicts_with = "random")]
    seed: Option<u64>,
    /// Play these files; `--schedule all` plays simulator/schedules, a folder's name what is in that folder there
    #[arg(long, value_name = "FILE")]
    schedule: Vec<PathBuf>,
    /// What two processors keep whose schedule does not say so: preview (500,1500), final (700,1000), both, or default's and fallback's in 1/100 %
    #[arg(long, value_name = "FEES", default_value = "both", value_parser = fees)]
    fees: FeesList,
    /// Names from `--list`, with commas between, or all
    #[arg(long, default_value = "all", value_parser = policies)]
    policies: Policies,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Print each second of each run
    #[arg(long)]
    verbose: bool,
    /// Print nothing but what Galo earned in the last run, as JSON
    #[arg(long)]
    json: bool,
    /// List policies and schedules
    #[arg(long)]
    list: bool,
    /// Print the runs with Galo's largest regret, so many of them
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    worst: usize,
    /// Print a random schedule as JSON (`--seed`) instead of playing it
    #[arg(long, requires = "seed")]
    print: bool,
    /// Play what docs/measurements/routing.md shows (`--random`, 200 unless told) and write it anew
    #[arg(long, conflicts_with_all = ["seed", "schedule", "policies", "fees"])]
    report: bool,
    /// Galo's ROUTING_PATIENCE_MS
    #[arg(long)]
    patience_ms: Option<u64>,
    /// Beyond this a processor is too slow for Galo
    #[arg(long)]
    slow_ms: Option<u64>,
    /// Galo's PROCESSOR_CONCURRENCY_MAX
    #[arg(long)]
    concurrency_max: Option<u32>,
    /// The auditor compares this often, not each ten seconds: how much luck there is in its finding nothing
    #[arg(long)]
    audit_ms: Option<NonZeroU64>,
    /// What each processor's CPU can do
    #[arg(long, default_value_t = 5_000)]
    requests_per_second: u64,
}

/// Seeds from here on are for judging alone.
const HELD_OUT_FROM: u64 = 1_000_000;

/// Random schedules of one to eight processors in the report, at most.
const MANY_COUNT: u64 = 100;

/// The schedule that the report shows second by second.
const TIMELINE: &str = "contest-like";

/// Fees to play at, one after the other.
#[derive(Clone)]
struct FeesList(Vec<Fees>);

fn fees(text: &str) -> Result<FeesList, String> {
    let bps = |text: &str| text.parse::<u32>().ok().filter(|bps| *bps <= 10_000);
    Ok(FeesList(match text {
        "preview" => vec![Fees::PREVIEW],
        "final" => vec![Fees::FINAL],
        "both" => vec![Fees::PREVIEW, Fees::FINAL],
        _ => {
            let pair =
                text.split_once(',').and_then(|(default, fallback)| Some([bps(default)?, bps(fallback)?]));
            let bps =
                pair.ok_or("expected preview, final, both, or two numbers of 0 to 10000 such as 500,1500")?;
            vec![Fees::pair(bps)]
        }
    }))
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
    let done = if arguments.report { report(&arguments) } else { look(&arguments) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("laboratory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn look(arguments: &Arguments) -> Result<(), String> {
    let pieces = pieces(arguments)?;
    if arguments.print {
        for piece in &pieces {
            println!("{}", serde_json::to_string_pretty(&piece.schedule).expect("a schedule is plain data"));
        }
        return Ok(());
    }
    let begin = Instant::now();
    let runs = play_all(&pieces, arguments);
    if arguments.json {
        let galo = runs.iter().rfind(|run| run.policy == PolicyKind::Galo).ok_or("--json is about galo")?;
        let profit_cents = galo.profit_units() / 10_000;
        println!("{}", serde_json::json!({ "profit_cents": profit_cents, "regret": galo.regret() }));
        return Ok(());
    }
    for (title, runs) in groups(&runs, &arguments.fees.0) {
        print_table(&title, &runs, &arguments.policies.0);
        print_worst(&runs, arguments.worst);
        if arguments.verbose {
            runs.iter().for_each(|run| print_timeline(run));
        }
    }
    println!("{} runs in {} ms", runs.len(), begin.elapsed().as_millis());
    Ok(())
}

/// The runs at each of these fees, and those at their schedules' own, with a title.
fn groups<'a>(runs: &'a [Run], fees: &[Fees]) -> Vec<(String, Vec<&'a Run>)> {
    let at = |fees: &Fees| {
        let of_these = runs.iter().filter(|run| !run.has_own_fees && run.fees == *fees);
        (format!("fees of {}", fees.name()), of_these.collect())
    };
    let own = runs.iter().filter(|run| run.has_own_fees).collect();
    let all = fees.iter().map(at).chain([("each schedule's own fees".to_owned(), own)]);
    all.filter(|(_, runs): &(_, Vec<&Run>)| !runs.is_empty()).collect()
}

/// Plays everything that the page shows and writes it.
fn report(arguments: &Arguments) -> Result<(), String> {
    let begin = Instant::now();
    let (first, count) = (HELD_OUT_FROM.max(arguments.from), arguments.random.unwrap_or(200));
    let draw = |schedule: fn(u64) -> Schedule| -> Vec<Piece> {
        (first..first + count).map(|seed| Piece { schedule: schedule(seed), seed }).collect()
    };
    let many_count = count.min(MANY_COUNT);
    let mut many = draw(generate_many);
    many.truncate(usize::try_from(many_count).unwrap_or(usize::MAX));
    let families = [draw(generate_any_end), draw(generate), many];
    let read = |folder: &Path| -> Result<Vec<Piece>, String> {
        let read = |path: &PathBuf| Schedule::read(path).map_err(|error| error.to_string());
        files(folder)?.iter().map(|path| Ok(Piece { schedule: read(path)?, seed: 0 })).collect()
    };
    let ours = read(&folder())?;
    let many_ours = read(&folder().join("many"))?;
    let providers = read(&folder().join("providers"))?;
    let shown = ours.iter().find(|piece| piece.schedule.name == TIMELINE);
    let shown = shown.ok_or_else(|| format!("no schedule is called {TIMELINE}"))?;
    let timeline = play(&shown.schedule, &settings(arguments, Fees::PREVIEW, 0), PolicyKind::Galo, true);
    let each_second = |piece: &Piece| {
        let usual = settings(arguments, Fees::PREVIEW, piece.seed);
        let settings = Settings { audit_interval_us: 1_000_000, ..usual };
        play(&piece.schedule, &settings, PolicyKind::Galo, false)
    };
    let shown_runs: Vec<Run> = providers.iter().chain(&many_ours).map(each_second).collect();
    let our_runs = play_all(&ours, arguments);
    let many_our_runs = play_all(&many_ours, arguments);
    let families = families.map(|pieces| play_all(&pieces, arguments));
    let fees = &arguments.fees.0;
    for family in &families {
        for (title, runs) in groups(family, fees) {
            print_table(&title, &runs, PolicyKind::ALL);
        }
    }
    let [any_end, fair, many] = &families;
    let measurements = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/measurements");
    let report = Report {
        commit: &commit()?,
        seeds: (first, count),
        any_end,
        fair,
        ours: &our_runs,
        many: (many, many_count),
        many_ours: &many_our_runs,
        shown: &shown_runs,
        timeline: (&shown.schedule, &timeline),
        fees,
    };
    report.write(&measurements).map_err(|error| error.to_string())?;
    println!("docs/measurements/routing.md is written, after {} s", begin.elapsed().as_secs());
    Ok(())
}

/// The last commit of what the figures depend on, and its date.
fn commit() -> Result<String, String> {
    let paths = ["engine", "wire", "simulator"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(&root).args(arguments).arg("--").args(paths).output();
        let output = output.map_err(|error| format!("git: {error}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["log", "-1", "--format=%h of %cs"])?;
    let changes = git(&["status", "--porcelain"])?;
    Ok(if changes.is_empty() { commit } else { format!("{commit}, with changes since") })
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schedules")
}

/// The schedules of a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
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
    let folders = [folder(), folder().join("many"), folder().join("providers")];
    for path in folders.iter().flat_map(|folder| files(folder).unwrap_or_default()) {
        match Schedule::read(&path) {
            Ok(schedule) => println!("  {:24}{:>4} s  {}", schedule.name, schedule.seconds, path.display()),
            Err(error) => println!("  {error}"),
        }
    }
}

fn pieces(arguments: &Arguments) -> Result<Vec<Piece>, String> {
    let mut paths = Vec::new();
    for path in &arguments.schedule {
        let named = folder().join(path);
        if path.as_os_str() == "all" {
            paths.extend(files(&folder())?);
        } else if path.components().count() == 1 && named.is_dir() {
            paths.extend(files(&named)?);
        } else {
            paths.push(path.clone());
        }
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
    let draw = match (arguments.many, arguments.any_end) {
        (true, _) => generate_many,
        (false, true) => generate_any_end,
        (false, false) => generate,
    };
    pieces.extend(seeds.map(|seed| Piece { schedule: draw(seed), seed }));
    if pieces.is_empty() {
        return Err("nothing to play: --random COUNT, --seed N or --schedule FILE".to_owned());
    }
    Ok(pieces)
}

fn settings(arguments: &Arguments, fees: Fees, seed: u64) -> Settings {
    let defaults = GaloConfig::default();
    let galo = GaloConfig {
        patience_ms: arguments.patience_ms.unwrap_or(defaults.patience_ms),
        slow_ms: arguments.slow_ms.unwrap_or(defaults.slow_ms),
        concurrency_max: arguments.concurrency_max.unwrap_or(defaults.concurrency_max),
        ..defaults
    };
    let requests_per_second_max = arguments.requests_per_second;
    let usual = Settings::new(fees, seed);
    let audit_interval_us = arguments.audit_ms.map_or(usual.audit_interval_us, |ms| ms.get() * 1_000);
    Settings { galo, requests_per_second_max, audit_interval_us, ..usual }
}

/// Every piece with every policy at all fees, in that order. What fees cannot change is played once.
fn play_all(pieces: &[Piece], arguments: &Arguments) -> Vec<Run> {
    let tasks: Vec<(PolicyKind, &Piece)> =
        arguments.policies.0.iter().flat_map(|kind| pieces.iter().map(|piece| (*kind, piece))).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(tasks.len()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while let Some((index, (kind, piece))) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    tasks.get(index).map(|task| (index, task))
                } {
                    let mut runs: Vec<Run> = Vec::new();
                    let own = piece.schedule.fees().map(|fees| vec![fees]);
                    for fees in own.as_ref().unwrap_or(&arguments.fees.0) {
                        let known = runs.first().and_then(|run| run.at_fees(*fees));
                        let settings = settings(arguments, *fees, piece.seed);
                        runs.push(
                            known.unwrap_or_else(|| {
                                play(&piece.schedule, &settings, *kind, arguments.verbose)
                            }),
                        );
                    }
                    done.lock().expect("no thread panics and lives").push((index, runs));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics and lives");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().flat_map(|(_, runs)| runs).collect()
}

fn print_table(title: &str, runs: &[&Run], kinds: &[PolicyKind]) {
    let schedule_count = kinds.first().map_or(0, |kind| Summary::of(*kind, runs).run_count);
    println!("{title}, {schedule_count} schedules; regret in % of the clairvoyant's profit");
    println!(
        "{:14}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>8}{:>7}{:>8}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}",
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
        "dearer",
        "risky",
        "in doubt",
        "oldest s",
        "(median)"
    );
    for kind in kinds {
        let line = Summary::of(*kind, runs);
        println!(
            "{:14}{:>8.2}{:>8.2}{:>8.2}{:>8.2}{:>9.2}{:>9}{:>8}{:>7}{:>8}{:>8}{:>8.2}%{:>8.2}%{:>9}{:>9.2}{:>9.2}",
            kind.name(),
            line.regret.median,
            line.regret.mean,
            line.regret.p90,
            line.regret.worst,
            line.audit_regret.median,
            line.inconsistencies.0,
            line.inconsistencies.1,
            line.lag.0,
            line.lag.1,
            line.doubles,
            line.dearer_share,
            line.risk,
            line.in_doubt,
            line.waited_s.worst,
            line.waited_s.median,
        );
    }
}

/// The runs that Galo should have done better, and what they were like.
fn print_worst(runs: &[&Run], count: usize) {
    let mut worst: Vec<&&Run> = runs.iter().filter(|run| run.policy == PolicyKind::Galo).collect();
    worst.sort_by(|a, b| b.regret().total_cmp(&a.regret()));
    for run in worst.into_iter().take(count) {
        println!(
            "  {:20} regret {:>6.2} %  posted {:>6}  processed {}  (clairvoyant {})  lag {:>5}  inconsistencies {:>4}  risky {:>5}  oldest {:.2} s",
            run.schedule,
            run.regret() * 100.0,
            run.posted,
            run.sums(run.processed),
            run.sums(run.bound.counts),
            run.lag(),
            run.inconsistencies,
            run.risky,
            run.waited_s(),
        );
        if run.in_doubt > 0 {
            println!(
                "  {:20} {} were in doubt; of the others {} were not processed within 2 s, regret {:.2} %",
                "",
                run.in_doubt,
                run.late,
                run.others_regret() * 100.0
            );
        }
        let figures: Vec<String> =
            run.figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
        println!("  {:20} {}", "", figures.join(", "));
    }
}

fn print_timeline(run: &Run) {
    println!("{} on {}, fees of {}", run.policy.name(), run.schedule, run.fees.name());
    let names: Vec<&str> = run.figures.iter().map(|(name, _)| *name).collect();
    let each = |title: &str| -> String {
        run.fees.processors().map(|it| format!("{:>8}", format!("{title} {}", it.index()))).collect()
    };
    println!(
        "{:>5}{:>7}{}{}{:>8}{:>8}  {}",
        "s",
        "posted",
        each("done"),
        each("ref"),
        "waiting",
        "flight",
        names.join(" | ")
    );
    let counts = |counts: Counts| -> String {
        run.fees.processors().map(|it| format!("{:>8}", counts[it.index()])).collect()
    };
    for (second, line) in run.seconds.iter().enumerate() {
        let figures: Vec<String> = line.figures.iter().map(|(_, value)| value.to_string()).collect();
        println!(
            "{:>5}{:>7}{}{}{:>8}{:>8}  {}",
            second + 1,
            line.posted,
            counts(line.processed),
            counts(line.refused),
            line.waiting,
            line.in_flight,
            figures.join(" | ")
        );
    }
    for audit in run.audits.iter().filter(|audit| audit.difference() > 0) {
        println!("audit at {} s: {} apart", audit.at_s, audit.difference());
    }
}
