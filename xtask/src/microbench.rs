//! `cargo xtask microbench`: parts of a payment by themselves, and what has changed since an earlier run.
//!
//! Builds the programs of micro-benchmarks, runs one after the other, and reads what criterion wrote about each benchmark: the median of
//! its samples, and how that has changed since the run it is compared with, both with their confidence intervals. One table for all.
//!
//! What seems to have changed is measured a second time, some minutes later, and that counts: a neighbour who was busy the first time may have
//! gone. A run is compared with the last one and takes its place; a run with a name stays. Each profile has runs of its own, since those of two
//! do not compare. A run that fails or is interrupted must never take the place of one that was whole, and no change may be called
//! one while its interval reaches into the noise.

#![allow(clippy::float_arithmetic, reason = "times and changes for display, no money")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;
use galo_bench::report;
use galo_bench::results::Machine;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bench::machine;
use crate::out::outln;
use crate::repo::{self, Fallible};
use crate::{cargo, table, up};

/// Every program of micro-benchmarks, with its package.
const PROGRAMS: [(&str, &str); 5] = [
    ("galo-wire", "frames"),
    ("galo-gateway", "payment"),
    ("galo-engine", "hot_path"),
    ("galo-engine", "summary"),
    ("galo-engine", "replay"),
];

/// What every benchmark's folder calls its last run, the run that is being made, and the change.
const LAST: &str = "last";
const NEW: &str = "new";
const CHANGE: &str = "change";

/// Changes that come and go without a change of the code, in percent: docs/measurements/microbenchmarks.md.
const NOISE_PERCENT: f64 = 5.0;

const REPORT: &str = "docs/measurements/microbenchmarks.md";

/// What is run, and what it is compared with.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only the benchmarks whose name matches this regular expression: `frames`, `ledger.*/1000$`
    filter: Option<String>,
    /// Compare with the run of this name, not with the last one
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    against: Option<String>,
    /// Keep this run under a name, too
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    save: Option<String>,
    /// Do not let this run take the last one's place
    #[arg(long)]
    discard: bool,
    /// Fail, and keep nothing, when a benchmark is worse by --worse-than and beyond doubt
    #[arg(long)]
    strict: bool,
    /// Percent
    #[arg(long, value_name = "PERCENT", default_value_t = 10, requires = "strict")]
    worse_than: u32,
    /// Write the table as docs/measurements/microbenchmarks.md, too
    #[arg(long, conflicts_with = "filter")]
    publish: bool,
    /// The cargo profile to build with
    #[arg(long, value_enum, default_value = "fast")]
    profile: up::Profile,
    /// Folder for the runs
    #[arg(long, default_value = ".galo/microbench")]
    home: PathBuf,
}

/// `cargo xtask microbench`.
///
/// # Errors
///
/// When a benchmark cannot be built or run; with `--strict`, when one is worse.
pub(crate) fn microbench(options: &Options) -> Fallible<()> {
    let folder = repo::root().join(&options.home).join(options.profile.name());
    create(&folder)?;
    let against = options.against.as_deref().unwrap_or(LAST);
    let folders = find_benchmarks(&folder)?;
    if options.against.is_some() && !folders.iter().any(|folder| folder.join(against).exists()) {
        return Err(format!("no run of profile {} is kept as {against}", options.profile.name()));
    }
    // What stays here from a run that was interrupted, or of a benchmark that is gone, belongs to no table.
    for stale in folders.iter().flat_map(|folder| [folder.join(NEW), folder.join(CHANGE)]) {
        if stale.exists() {
            fs::remove_dir_all(&stale)
                .map_err(|error| format!("cannot remove {}: {error}", stale.display()))?;
        }
    }
    let programs = build(options.profile)?;
    let machine = machine::describe_host(options.profile);
    let mut loads = run(&programs, options.filter.as_deref(), against, &folder)?;
    let mut rows = read_rows(&folder, against)?;
    if rows.is_empty() {
        return Err("no benchmark has such a name".to_owned());
    }
    let has_changed = |row: &&Row| row.verdict(NOISE_PERCENT).is_some_and(|verdict| verdict != Verdict::Same);
    let doubtful: Vec<&str> = rows.iter().filter(has_changed).map(|row| row.name.as_str()).collect();
    if !doubtful.is_empty() {
        outln!("measuring again what seems to have changed: {}", doubtful.join(", "));
        let filter = format!("^({})$", doubtful.join("|"));
        let is_among = |program: &str| doubtful.iter().any(|name| name.split('/').next() == Some(program));
        let programs: Vec<_> = programs.into_iter().filter(|(program, _)| is_among(program)).collect();
        loads.extend(run(&programs, Some(&filter), against, &folder)?);
        rows = read_rows(&folder, against)?;
    }
    let commit = format!("{} ({})", machine.commit, machine.date);
    let report = Report { against: against.to_owned(), machine, loads, rows };
    outln!("\n{}", report.text());
    if options.publish {
        repo::write_atomically(&repo::root().join(REPORT), report.markdown().as_bytes())?;
        outln!("wrote {REPORT}");
    }
    report.judge_strictly(options)?;
    let last = (!options.discard).then_some(LAST);
    for name in last.into_iter().chain(options.save.as_deref()) {
        report.rows.iter().try_for_each(|row| keep(&row.folder, name, &commit))?;
    }
    Ok(())
}

fn parse_name(text: &str) -> Fallible<String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    if text.is_empty() || !text.chars().all(plain) || [NEW, CHANGE, LAST].contains(&text) {
        return Err(format!("a name of letters and digits other than {NEW}, {CHANGE} and {LAST}"));
    }
    Ok(text.to_owned())
}

/// Compiles the programs; returns each one's name and path.
fn build(profile: up::Profile) -> Fallible<Vec<(&'static str, PathBuf)>> {
    let mut command = cargo::cargo();
    command.args(["bench", "--no-run", "--profile", profile.name()]);
    command.args(["--message-format", "json-render-diagnostics"]);
    for (package, program) in PROGRAMS {
        command.args(["--package", package, "--bench", program]);
    }
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err("the build failed (above)".to_owned());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let built: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let path = |name| {
        let artifact =
            built.iter().find(|said| said["target"]["name"] == name && said["executable"].is_string());
        artifact.and_then(|artifact| artifact["executable"].as_str()).map(PathBuf::from)
    };
    let programs = PROGRAMS.iter().map(|(_, name)| {
        path(*name).map(|path| (*name, path)).ok_or_else(|| format!("cargo built no benchmark {name}"))
    });
    programs.collect()
}

/// Runs the programs; returns the machine's load average after each.
fn run(
    programs: &[(&str, PathBuf)],
    filter: Option<&str>,
    against: &str,
    folder: &Path,
) -> Fallible<Vec<f64>> {
    let logs = folder.with_file_name("logs");
    create(&logs)?;
    let run_one = |(name, path): &(&str, PathBuf)| {
        let path_of_log = logs.join(format!("{name}.log"));
        let log = fs::File::create(&path_of_log).and_then(|log| Ok((log.try_clone()?, log)));
        let (said, complained) =
            log.map_err(|error| format!("cannot write {}: {error}", path_of_log.display()))?;
        let started = Instant::now();
        let status = Command::new(path)
            .args(["--bench", "--baseline-lenient", against])
            .args(filter)
            .env("CRITERION_HOME", folder)
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(complained)
            .status()
            .map_err(|error| format!("cannot run {}: {error}", path.display()))?;
        if !status.success() {
            return Err(format!("{name} failed ({status}): {}", repo::tail(&path_of_log, 3).join(" ")));
        }
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        outln!("{name}: {:.0} s, load average {load}", started.elapsed().as_secs_f64());
        Ok(load)
    };
    programs.iter().map(run_one).collect()
}

fn create(folder: &Path) -> Fallible<()> {
    fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))
}

/// The folders at or below `folder` that hold a benchmark's runs.
fn find_benchmarks(folder: &Path) -> Fallible<BTreeSet<PathBuf>> {
    let entries =
        fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut found = BTreeSet::new();
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        if path.join("benchmark.json").exists() {
            found.insert(folder.to_path_buf());
        } else {
            found.extend(find_benchmarks(&path)?);
        }
    }
    Ok(found)
}

/// What all benchmarks that have run say, in order.
fn read_rows(folder: &Path, against: &str) -> Fallible<Vec<Row>> {
    let mut rows = Vec::new();
    for folder in find_benchmarks(folder)? {
        rows.extend(Row::read(&folder, against)?);
    }
    rows.sort_by(|one, other| by_numbers(&one.name).cmp(&by_numbers(&other.name)));
    Ok(rows)
}

/// Makes the new run of a benchmark the one that is called `name`.
fn keep(folder: &Path, name: &str, commit: &str) -> Fallible<()> {
    let copy = || -> std::io::Result<()> {
        let (new, kept) = (folder.join(NEW), folder.join(name));
        fs::write(new.join("commit"), commit)?;
        fs::create_dir_all(&kept)?;
        for file in fs::read_dir(new)? {
            let file = file?;
            fs::copy(file.path(), kept.join(file.file_name()))?;
        }
        Ok(())
    };
    copy().map_err(|error| format!("cannot keep {} as {name}: {error}", folder.display()))
}

/// A figure as criterion writes it: nanoseconds of one iteration, or a change as a share of what was before.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// `estimates.json`, of a run or of a change.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

/// `benchmark.json`.
#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
}

/// What a change amounts to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Better,
    Worse,
    Same,
}

impl Estimate {
    /// Of a change, where up to `noise_percent` is none.
    fn judge(&self, noise_percent: f64) -> Verdict {
        let Interval { lower_bound, upper_bound } = self.confidence_interval;
        if lower_bound * 100.0 > noise_percent {
            Verdict::Worse
        } else if upper_bound * 100.0 < -noise_percent {
            Verdict::Better
        } else {
            Verdict::Same
        }
    }
}

/// A benchmark in the new run.
#[derive(Debug)]
struct Row {
    folder: PathBuf,
    name: String,
    median: Estimate,
    before: Option<Before>,
}

/// The run that it is compared with.
#[derive(Debug)]
struct Before {
    median: Estimate,
    change: Estimate,
    commit: String,
}

impl Row {
    /// What a benchmark's folder says; `None` when it has not run.
    fn read(folder: &Path, against: &str) -> Fallible<Option<Self>> {
        let Some(Benchmark { full_id }) = read_json(&folder.join(NEW).join("benchmark.json"))? else {
            return Ok(None);
        };
        let median = |name: &str| -> Fallible<Option<Estimate>> {
            let estimates: Option<Estimates> = read_json(&folder.join(name).join("estimates.json"))?;
            Ok(estimates.map(|estimates| estimates.median))
        };
        let before = match (median(against)?, median(CHANGE)?) {
            (Some(median), Some(change)) => {
                let commit = fs::read_to_string(folder.join(against).join("commit"));
                Some(Before { median, change, commit: commit.unwrap_or_default() })
            }
            _ => None,
        };
        let median = median(NEW)?.ok_or_else(|| format!("{} has no estimates", folder.display()))?;
        Ok(Some(Self { folder: folder.to_path_buf(), name: full_id, median, before }))
    }

    /// `None` without a run to compare with.
    fn verdict(&self, noise_percent: f64) -> Option<Verdict> {
        self.before.as_ref().map(|before| before.change.judge(noise_percent))
    }

    fn cells(&self) -> Vec<String> {
        let word = match self.verdict(NOISE_PERCENT) {
            Some(Verdict::Better) => "better",
            Some(Verdict::Worse) => "worse",
            Some(Verdict::Same) => "same",
            None => "new",
        };
        let (before, change) = self
            .before
            .as_ref()
            .map_or_else(Default::default, |before| (show_time(&before.median), show_change(&before.change)));
        vec![self.name.clone(), show_time(&self.median), before, change, word.to_owned()]
    }
}

/// `None` when there is no such file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Fallible<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

/// The parts of a name, in an order in which 16 comes before 256 and both after 1.
fn by_numbers(name: &str) -> Vec<(u64, &str)> {
    name.split('/').map(|part| (part.parse().unwrap_or(0), part)).collect()
}

/// Three digits or so with their unit; the unit in nanoseconds, and the digits behind the point.
fn split_time(time_ns: f64) -> (String, f64, usize) {
    const UNITS: [(f64, &str); 3] = [(1e6, "ms"), (1e3, "µs"), (1.0, "ns")];
    let (unit_ns, unit) = UNITS.into_iter().find(|(unit_ns, _)| time_ns >= *unit_ns).unwrap_or(UNITS[2]);
    let value = time_ns / unit_ns;
    let places = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    (format!("{value:.places$} {unit}"), unit_ns, places)
}

/// With its interval in the same unit: `403 ns (400 to 410)`.
fn show_time(time: &Estimate) -> String {
    let (text, unit_ns, places) = split_time(time.point_estimate);
    let Interval { lower_bound, upper_bound } = time.confidence_interval;
    let (low, high) = (lower_bound / unit_ns, upper_bound / unit_ns);
    format!("{text} ({low:.places$} to {high:.places$})")
}

fn show_change(change: &Estimate) -> String {
    let Interval { lower_bound, upper_bound } = change.confidence_interval;
    let [value, low, high] = [change.point_estimate, lower_bound, upper_bound].map(|share| share * 100.0);
    format!("{value:+.1} % ({low:+.1} to {high:+.1})")
}

/// A run of all that was asked for.
struct Report {
    against: String,
    machine: Machine,
    loads: Vec<f64>,
    rows: Vec<Row>,
}

impl Report {
    fn head(&self) -> [String; 5] {
        let before = if self.against == LAST { "last run" } else { &self.against };
        ["benchmark", "this run", before, "change", ""].map(str::to_owned)
    }

    /// For a terminal.
    fn text(&self) -> String {
        let rows: Vec<_> =
            [self.head().to_vec()].into_iter().chain(self.rows.iter().map(Row::cells)).collect();
        let lines = [Some(table::aligned(&rows)), Some(self.comparison()), self.crowd()];
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    /// What it is compared with, and how many verdicts there are of each kind.
    fn comparison(&self) -> String {
        let before = self.rows.iter().filter_map(|row| row.before.as_ref());
        let commits: BTreeSet<&str> = before.map(|before| before.commit.as_str()).collect();
        if commits.is_empty() {
            return "Nothing to compare with.".to_owned();
        }
        let count = |verdict| self.rows.iter().filter(|row| row.verdict(NOISE_PERCENT) == verdict).count();
        format!(
            "Compared with commit {}: {} worse, {} better, {} same, {} new.",
            commits.into_iter().collect::<Vec<_>>().join(", "),
            count(Some(Verdict::Worse)),
            count(Some(Verdict::Better)),
            count(Some(Verdict::Same)),
            count(None),
        )
    }

    /// A warning when more wanted to run than there are processors.
    fn crowd(&self) -> Option<String> {
        let most = self.loads.iter().copied().fold(0.0, f64::max);
        let is_crowded = std::thread::available_parallelism().is_ok_and(|count| most > count.get() as f64);
        is_crowded.then(|| {
            format!("The machine had more to do than it has processors (load average {most}): what misses caches, as `ledger` does, moves with the neighbours.")
        })
    }

    /// The figures that the page's question asks for first.
    fn answer(&self) -> String {
        let of = |name: &str| {
            let row = self.rows.iter().find(|row| row.name == name);
            row.map_or_else(|| "–".to_owned(), |row| split_time(row.median.point_estimate).0)
        };
        format!(
            "A body to an id and cents {}, a route {}, a payment's whole way through a gateway's decisions {}, grant and completion beside 800,000 known ids {}, a \
             summary between any two bounds of ten million payments {}, a million payments out of a journal {}.",
            of("payment/ordinary"),
            of("hot_path/route_one"),
            of("hot_path/dispatcher_payment"),
            of("hot_path/ledger_payment_beside_known_ids/800000"),
            of("summary/random_ranges/1"),
            of("replay/replay_of_a_journal"),
        )
    }

    /// For `docs/measurements`.
    fn markdown(&self) -> String {
        let mut text = format!(
            "# What do the parts of a payment cost by themselves?\n\n\
             {} Made by the command below.\n\n{}. Load average of the machine after each program: {}. No limits.\n\n```sh\n{}\n```\n\n\
             CPU time of the thread, by the kernel's account. Each figure is a median of samples with its 95 % confidence interval (criterion's bootstrap), and so is the \
             change of the median. *Worse* or *better* is a change whose whole interval lies beyond {NOISE_PERCENT} %: less comes and goes from one run of the same \
             program to the next. What seems to have changed is measured a second time, which counts. {}\n\n",
            self.answer(),
            report::describe_host(&self.machine),
            self.loads.iter().map(f64::to_string).collect::<Vec<_>>().join(", "),
            self.machine.command,
            self.comparison(),
        );
        let mut push = |cells: &[String]| {
            writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes whatever is written");
        };
        push(&self.head());
        push(&["---", "--:", "--:", "--:", "---"].map(str::to_owned));
        self.rows.iter().for_each(|row| push(&row.cells()));
        text.push_str(
            "\n`frames` counts a batch of so many records, `replay` a journal of a million payments or its snapshot, `summary` one query over ten million payments that many \
             milliseconds apart, everything else one payment.\n\nNot said by that: what the kernel adds, which is two thirds of a payment \
             ([performance.md](../performance.md)); how cold the caches are when other work comes in between. Neighbours' CPU time does not count, but they \
             share caches and memory: what misses caches, as payments beside many ids do, moves with them by more than \
             the noise.\n",
        );
        text
    }

    fn judge_strictly(&self, options: &Options) -> Fallible<()> {
        let is_worse = |row: &&Row| row.verdict(f64::from(options.worse_than)) == Some(Verdict::Worse);
        let worse = self.rows.iter().filter(|_| options.strict).filter(is_worse);
        let worse: Vec<&str> = worse.map(|row| row.name.as_str()).collect();
        if worse.is_empty() {
            return Ok(());
        }
        Err(format!("worse by more than {} %: {}", options.worse_than, worse.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(low: f64, point_estimate: f64, high: f64) -> Estimate {
        Estimate { point_estimate, confidence_interval: Interval { lower_bound: low, upper_bound: high } }
    }

    fn row(name: &str, change: Option<Estimate>) -> Row {
        let median = estimate(400.0, 403.3, 409.8);
        let before = change.map(|change| Before { median, change, commit: "abc (today)".to_owned() });
        Row { folder: PathBuf::new(), name: name.to_owned(), median, before }
    }

    #[test]
    fn a_change_is_one_when_its_whole_interval_is_beyond_the_noise() {
        for (change, expected) in [
            (estimate(0.051, 0.06, 0.07), Verdict::Worse),
            (estimate(0.049, 0.30, 0.90), Verdict::Same),
            (estimate(-0.90, -0.30, -0.049), Verdict::Same),
            (estimate(-0.07, -0.06, -0.051), Verdict::Better),
            (estimate(-0.20, 0.0, 0.20), Verdict::Same),
            (estimate(0.01, 0.02, 0.03), Verdict::Same),
        ] {
            assert_eq!(change.judge(5.0), expected, "{change:?}");
        }
    }

    #[test]
    fn a_run_is_read_compared_and_kept_as_criterion_writes_it() {
        let home = std::env::temp_dir().join(format!("galo-microbench-{}", std::process::id()));
        let folder = home.join("frames/decode_accepts/16");
        let file = |run: &str, name: &str, text: &str| {
            fs::create_dir_all(folder.join(run)).unwrap();
            fs::write(folder.join(run).join(name), text).unwrap();
        };
        let median = |low: f64, point: f64, high: f64| {
            format!(
                r#"{{"mean":{{"point_estimate":1.0}},"slope":null,"median":{{"confidence_interval":{{"confidence_level":0.95,"lower_bound":{low},"upper_bound":{high}}},"point_estimate":{point},"standard_error":2.5}}}}"#
            )
        };
        file(NEW, "benchmark.json", r#"{"group_id":"frames","full_id":"frames/decode_accepts/16"}"#);
        file(NEW, "estimates.json", &median(400.0, 403.3, 409.8));
        let read = |against| Row::read(&folder, against).unwrap().unwrap();
        let read_cells = |against| read(against).cells().join("|");
        assert_eq!(read_cells(LAST), "frames/decode_accepts/16|403 ns (400 to 410)|||new");

        keep(&folder, LAST, "abc (today)").unwrap();
        file(NEW, "estimates.json", &median(500.0, 505.0, 510.0));
        file(CHANGE, "estimates.json", &median(0.22, 0.252, 0.28));
        let expected =
            "frames/decode_accepts/16|505 ns (500 to 510)|403 ns (400 to 410)|+25.2 % (+22.0 to +28.0)|worse";
        assert_eq!(read_cells(LAST), expected);
        assert_eq!(read(LAST).before.unwrap().commit, "abc (today)");
        assert!(read("other").before.is_none(), "no such run");

        assert_eq!(find_benchmarks(&home).unwrap(), BTreeSet::from([folder.clone()]));
        fs::remove_dir_all(folder.join(NEW)).unwrap();
        assert!(Row::read(&folder, LAST).unwrap().is_none(), "it has not run");
        fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn only_strictness_fails_and_only_beyond_its_threshold() {
        let worse = row("slow", Some(estimate(0.08, 0.09, 0.2)));
        let rows = vec![worse, row("new", None), row("quick", Some(estimate(-0.5, -0.4, -0.3)))];
        let report =
            Report { against: LAST.to_owned(), machine: Machine::default(), loads: Vec::new(), rows };
        let judge = |strict, worse_than| {
            report.judge_strictly(&Options {
                filter: None,
                against: None,
                save: None,
                discard: false,
                strict,
                worse_than,
                publish: false,
                profile: up::Profile::Fast,
                home: PathBuf::new(),
            })
        };
        assert_eq!(judge(false, 5), Ok(()));
        assert_eq!(judge(true, 10), Ok(()));
        assert_eq!(judge(true, 5), Err("worse by more than 5 %: slow".to_owned()));
        assert!(report.text().contains("commit abc (today): 1 worse, 1 better, 0 same, 1 new."));
    }

    #[test]
    fn times_have_three_digits_and_names_come_in_order_of_their_numbers() {
        assert_eq!(show_time(&estimate(6.65, 6.68, 6.71)), "6.68 ns (6.65 to 6.71)");
        assert_eq!(show_time(&estimate(990.0, 1_000.0, 1_200.0)), "1.00 µs (0.99 to 1.20)");
        assert_eq!(show_time(&estimate(440e6, 452e6, 470e6)), "452 ms (440 to 470)");
        let mut names = ["a/1000", "a/16", "a/1", "a/b", "Z/2"];
        names.sort_by(|one, other| by_numbers(one).cmp(&by_numbers(other)));
        assert_eq!(names, ["Z/2", "a/b", "a/1", "a/16", "a/1000"]);
        assert!(parse_name("before-pages").is_ok());
        for name in ["", "new", "last", "change", "../x", "a b"] {
            assert!(parse_name(name).is_err(), "{name}");
        }
    }
}
