//! `cargo xtask bench`: Galo and its floor under the same load, limits and HAProxy, in turns; one report.
//!
//! The floor is HAProxy with the very same configuration before a responder that reads nothing, in the gateways' places and under their
//! limits. Each round runs every rate, and at each rate every side, in an order that moves on from round to round, so that a busy minute of
//! the machine hits no side alone. Every run starts its side anew, warms it up, and counts from there: the generator says when, the
//! kernel's accounts are read at that moment and after the last send.
//!
//! Behind the rounds come runs of their own, since they cost time themselves: those in which perf counts system calls, and
//! those in which it samples where the CPU goes.
//!
//! The generator and the model processors run outside of the limits, as the contest's do. Must never touch a Galo in another home; one
//! that an interrupted benchmark left in its own is stopped first. Raw results are written after every run, so that an
//! interrupted benchmark has lost nothing.

mod budget;
pub(crate) mod machine;
mod meter;
mod syscalls;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use galo_bench::report;
use galo_bench::results::{BudgetRun, FLOOR, K6Run, Outcome, Results, Run, SyscallRun};

use crate::out::outln;
use crate::repo::{self, Fallible};
use crate::{rinha, tools, up};
use meter::Reading;

/// How long what was accepted may take to be processed after the last send.
const DRAIN_WAIT: Duration = Duration::from_secs(20);

/// Length of the runs that count system calls.
const SYSCALL_SECONDS: u32 = 4;
/// perf needs a moment to begin, and must end before the load does.
const SYSCALL_MS: u32 = 3_000;

/// Length of the runs that perf looks at.
const BUDGET_SECONDS: u32 = 12;
/// How long it does: it begins and ends within the load.
const BUDGET_SAMPLED_SECONDS: u32 = 10;

/// What is measured, how often, and where the report goes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Payments a second, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000")]
    rates: Vec<u32>,
    /// Seconds that count in each run
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Seconds before, which do not
    #[arg(long, default_value_t = 3)]
    warmup_s: u32,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Connections of the generator
    #[arg(long, default_value_t = 500)]
    connections: u16,
    /// One side alone: then there are no ratios
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Galo once for each of these values of JOURNAL_SYNC: never, interval:MS, always, memory
    #[arg(long, value_delimiter = ',')]
    sync: Vec<String>,
    /// No runs with k6
    #[arg(long)]
    no_k6: bool,
    /// Only the runs with k6
    #[arg(long, conflicts_with = "no_k6")]
    only_k6: bool,
    /// Seconds of a run with k6 (the contest's script has its own)
    #[arg(long, default_value_t = 60)]
    k6_seconds: u32,
    /// The contest's own rinha.js for k6, or a checkout that holds it; without it, our k6/rinha.js
    #[arg(long)]
    script: Option<PathBuf>,
    /// Do not count system calls
    #[arg(long)]
    no_syscalls: bool,
    /// Do not look where the CPU goes
    #[arg(long)]
    no_budget: bool,
    /// Without the compose file's limits
    #[arg(long)]
    no_limits: bool,
    /// The cargo profile to build with
    #[arg(long, value_enum, default_value = "release")]
    profile: up::Profile,
    /// Take the programs as they were built last
    #[arg(long)]
    no_build: bool,
    /// First of the four ports that are used
    #[arg(long, default_value_t = 18_800)]
    port_base: u16,
    /// Folder for sockets, state, journal, logs and raw results
    #[arg(long, default_value = ".galo/bench")]
    home: PathBuf,
    /// Write the report as docs/measurements/NAME.md with its drawings, rather than into the home
    #[arg(long, value_name = "NAME")]
    publish: Option<String>,
    /// Measure nothing: make the report of these raw results again
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// One of two.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Only {
    /// Galo.
    Galo,
    /// HAProxy before a responder.
    Floor,
}

/// What is started for a run.
#[derive(Clone, Debug)]
struct Side {
    name: String,
    up: up::Options,
    sync: Option<String>,
}

/// `cargo xtask bench`.
///
/// # Errors
///
/// When something cannot be started or measured. Slowness is no error.
pub(crate) fn bench(options: &Options) -> Fallible<()> {
    let home = repo::Home::new(&options.home);
    if let Some(path) = &options.from {
        let text = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let results =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        return write_report(options, &home, &results);
    }
    if up::running(&options.home)?.is_some() {
        outln!("stopping what an earlier benchmark left behind in {}", home.path().display());
        up::down(&options.home)?;
    }
    let sides = sides(options);
    if !options.no_build {
        // The floor's programs are Galo's and one more.
        up::build(&up::Options { floor: true, ..options.up() })?;
    }
    home.create()?;
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
    let mut bench = Bench {
        options,
        raw: home.path().join(format!("results-{stamp}.json")),
        results: Results {
            machine: machine::describe(options.profile, !options.no_limits)?,
            ..Results::default()
        },
    };
    bench.run_all(&sides)?;
    outln!("raw results {}", bench.raw.display());
    write_report(options, &home, &bench.results)
}

fn write_report(options: &Options, home: &repo::Home, results: &Results) -> Fallible<()> {
    let (folder, name) = match &options.publish {
        Some(name) => (repo::root().join("docs/measurements"), name.as_str()),
        None => (home.path().join("report"), "report"),
    };
    outln!("\n{}", report::markdown(results));
    for file in report::write(results, &folder, name)? {
        outln!("wrote {}", file.display());
    }
    Ok(())
}

fn sides(options: &Options) -> Vec<Side> {
    let mut sides = Vec::new();
    if options.only != Some(Only::Galo) {
        let up = up::Options { floor: true, ..options.up() };
        sides.push(Side { name: FLOOR.to_owned(), up, sync: None });
    }
    if options.only != Some(Only::Floor) {
        if options.sync.is_empty() {
            sides.push(Side { name: "galo".to_owned(), up: options.up(), sync: None });
        }
        sides.extend(options.sync.iter().map(|sync| Side {
            name: format!("galo, {sync}"),
            up: options.up(),
            sync: Some(sync.clone()),
        }));
    }
    sides
}

impl Options {
    fn up(&self) -> up::Options {
        up::Options {
            processors: up::Processors::Simulated,
            limits: !self.no_limits,
            profile: self.profile,
            // Built once, before the first run.
            no_build: true,
            port: self.port_base,
            stats_port: self.port_base + 1,
            default_port: self.port_base + 2,
            fallback_port: self.port_base + 3,
            purge: false,
            fees: None,
            home: self.home.clone(),
            floor: false,
        }
    }
}

struct Bench<'a> {
    options: &'a Options,
    raw: PathBuf,
    results: Results,
}

impl Bench<'_> {
    fn run_all(&mut self, sides: &[Side]) -> Fallible<()> {
        let k6 = if self.options.no_k6 { None } else { Some(tools::k6()?) };
        for round in 1..=self.options.runs {
            for (index, rate) in self.options.rates.iter().enumerate().filter(|_| !self.options.only_k6) {
                // Each round and rate begins with another side.
                for side in in_turn(sides, round as usize + index) {
                    let run = with(side, |processes| self.open_loop(side, *rate, round, processes))?;
                    outln!("round {round}, {rate}/s, {}: {}", side.name, one_line(&run.outcome));
                    self.results.runs.push(run);
                    self.keep()?;
                }
            }
            if let Some(k6) = &k6 {
                for side in in_turn(sides, round as usize) {
                    let run = with(side, |processes| self.k6(side, round, processes, k6))?;
                    outln!("round {round}, k6, {}: p50 {} µs, p99 {} µs", side.name, run.p50_us, run.p99_us);
                    self.results.k6.push(run);
                    self.keep()?;
                }
            }
        }
        self.count_all_syscalls(sides, k6.as_deref())?;
        self.look_at_all_budgets(sides)?;
        self.keep()
    }

    fn count_all_syscalls(&mut self, sides: &[Side], k6: Option<&Path>) -> Fallible<()> {
        let not_asked = self.options.no_syscalls.then(|| "not asked for".to_owned());
        self.results.syscalls_missing = not_asked.or_else(syscalls::obstacle);
        if self.results.syscalls_missing.is_some() {
            return Ok(());
        }
        for rate in self.options.rates.iter().filter(|_| !self.options.only_k6) {
            for side in sides {
                let run = with(side, |processes| self.count_syscalls(side, *rate, processes))?;
                self.results.syscalls.push(run);
                self.keep()?;
            }
        }
        for (side, k6) in sides.iter().filter_map(|side| Some((side, k6?))) {
            let run = with(side, |processes| self.count_k6_syscalls(side, processes, k6))?;
            self.results.k6_syscalls.push(run);
            self.keep()?;
        }
        Ok(())
    }

    fn look_at_all_budgets(&mut self, sides: &[Side]) -> Fallible<()> {
        let asked = !self.options.no_budget && !self.options.only_k6;
        let not_asked = (!asked).then(|| "not asked for".to_owned());
        self.results.budget_missing = not_asked.or_else(|| budget::obstacle(&self.samples_file()));
        if self.results.budget_missing.is_some() {
            return Ok(());
        }
        for rate in &self.options.rates {
            // The floor's gateways are no gateways: where its time goes is HAProxy's to say.
            for side in sides.iter().filter(|side| !side.up.floor) {
                let run = with(side, |processes| self.budget(side, *rate, processes))?;
                outln!("budget, {rate}/s, {}: {}", side.name, one_line(&run.outcome));
                self.results.budget.push(run);
                self.keep()?;
            }
        }
        Ok(())
    }

    fn samples_file(&self) -> PathBuf {
        repo::Home::new(&self.options.home).path().join("perf.data")
    }

    fn keep(&self) -> Fallible<()> {
        let bytes = serde_json::to_vec_pretty(&self.results).map_err(|error| error.to_string())?;
        repo::write_atomically(&self.raw, &bytes)
    }

    fn open_loop(&self, side: &Side, rate: u32, round: u32, processes: &[up::Process]) -> Fallible<Run> {
        let mut generator = self.generator(rate, self.options.warmup_s, self.options.seconds)?;
        generator.expect("begin")?;
        let begin = Reading::take(processes);
        generator.expect("end")?;
        let end = Reading::take(processes);
        let open_count_at_end = up::open_count(&side.up);
        let drain_ms = open_count_at_end.and_then(|_| drain(&side.up));
        Ok(Run {
            round,
            side: side.name.clone(),
            outcome: generator.finish()?,
            processes: end.since(&begin),
            surroundings: end.surroundings_since(&begin),
            open_count_at_end,
            drain_ms,
        })
    }

    fn count_syscalls(&self, side: &Side, rate: u32, processes: &[up::Process]) -> Fallible<SyscallRun> {
        let mut generator = self.generator(rate, self.options.warmup_s, SYSCALL_SECONDS)?;
        generator.expect("begin")?;
        let counters = syscalls::Counters::start(processes, Some(SYSCALL_MS))?;
        let processes = counters.finish()?;
        generator.expect("end")?;
        generator.finish()?;
        let payment_count = u64::from(rate) * u64::from(SYSCALL_MS) / 1_000;
        Ok(SyscallRun { side: side.name.clone(), rate, payment_count, processes })
    }

    /// Of a whole run of k6: its rate changes all the while.
    fn count_k6_syscalls(&self, side: &Side, processes: &[up::Process], k6: &Path) -> Fallible<SyscallRun> {
        let counters = syscalls::Counters::start(processes, None)?;
        let outcome = self.run_k6(side, k6)?;
        let processes = counters.finish()?;
        let payment_count = u64::try_from(outcome.score.accepted).unwrap_or(0);
        Ok(SyscallRun { side: side.name.clone(), rate: 0, payment_count, processes })
    }

    fn budget(&self, side: &Side, rate: u32, processes: &[up::Process]) -> Fallible<BudgetRun> {
        let file = self.samples_file();
        let mut generator = self.generator(rate, self.options.warmup_s, BUDGET_SECONDS)?;
        generator.expect("begin")?;
        let begin = Reading::take(processes);
        budget::record(processes, BUDGET_SAMPLED_SECONDS, &file)?;
        generator.expect("end")?;
        let end = Reading::take(processes);
        Ok(BudgetRun {
            side: side.name.clone(),
            outcome: generator.finish()?,
            processes: end.since(&begin),
            interval_us: budget::INTERVAL_US,
            seconds: BUDGET_SAMPLED_SECONDS,
            samples: budget::samples(processes, &file)?,
        })
    }

    fn run_k6(&self, side: &Side, k6: &Path) -> Fallible<rinha::RunOutcome> {
        let options = rinha::Options {
            script: self.options.script.clone(),
            runs: 1,
            max_requests: Some(500),
            duration_s: self.options.k6_seconds,
            audit_s: 10,
            keep_going: true,
            up: side.up.clone(),
        };
        let folder = side.up.home().path().join("k6");
        fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
        rinha::run_once(&options, &side.up, k6, &folder)
    }

    fn k6(&self, side: &Side, round: u32, processes: &[up::Process], k6: &Path) -> Fallible<K6Run> {
        let begin = Reading::take(processes);
        let outcome = self.run_k6(side, k6)?;
        let end = Reading::take(processes);
        let latency = outcome.latency.ok_or("k6's summary has no http_req_duration")?;
        Ok(K6Run {
            round,
            side: side.name.clone(),
            script: match &self.options.script {
                Some(_) => "The contest's script".to_owned(),
                None => format!("k6/rinha.js, 500 users, {} s", self.options.k6_seconds),
            },
            p50_us: latency.p50_us,
            p90_us: Some(latency.p90_us),
            p99_us: latency.p99_us,
            p999_us: Some(latency.p999_us),
            cpu_us: Some(outcome.k6_cpu_us),
            accepted_count: u64::try_from(outcome.score.accepted).unwrap_or(0),
            // The floor answers as if it kept books, which the script finds wrong.
            complaints: if side.up.floor { Vec::new() } else { outcome.complaints },
            processes: end.since(&begin),
            surroundings: end.surroundings_since(&begin),
        })
    }

    fn generator(&self, rate: u32, warmup_s: u32, seconds: u32) -> Fallible<Generator> {
        let program = repo::program_folder(self.options.profile.name()).join("galo-bench");
        let mut command = Command::new(&program);
        command.arg("load").args(["--target", &format!("127.0.0.1:{}", self.options.port_base)]);
        for (flag, value) in [
            ("--rate", rate),
            ("--connections", u32::from(self.options.connections)),
            ("--warmup-s", warmup_s),
            ("--seconds", seconds),
        ] {
            command.arg(flag).arg(value.to_string());
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let output = child.stdout.take().ok_or("the generator has no output")?;
        Ok(Generator { child, output: BufReader::new(output) })
    }
}

/// A running `galo-bench load`.
struct Generator {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Generator {
    fn line(&mut self) -> Fallible<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err("the generator ended early (its words are above)".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("the generator's output: {error}")),
        }
    }

    fn expect(&mut self, event: &str) -> Fallible<()> {
        let line = self.line()?;
        if line == format!(r#"{{"event":"{event}"}}"#) {
            Ok(())
        } else {
            Err(format!("the generator said {line} instead of {event}"))
        }
    }

    fn finish(mut self) -> Fallible<Outcome> {
        let line = self.line()?;
        serde_json::from_str(&line).map_err(|error| format!("the generator said {line}: {error}"))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // After its result it ends by itself; before, nobody listens to it any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a side from nothing, measures it, stops it whatever came out.
fn with<T>(side: &Side, measure: impl FnOnce(&[up::Process]) -> Fallible<T>) -> Fallible<T> {
    let home = side.up.home();
    for folder in [home.run(), home.journal()] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("cannot empty {}: {error}", folder.display()));
            }
            _ => {}
        }
    }
    let variables: Vec<(&str, &str)> = side.sync.iter().map(|sync| ("JOURNAL_SYNC", sync.as_str())).collect();
    up::start_detached(&side.up, &variables)?;
    let measured = up::running(&side.up.home)
        .and_then(|state| state.ok_or_else(|| "the supervisor has gone".to_owned()))
        .and_then(|state| measure(&state.processes));
    let stopped = up::stop(&side.up.home);
    let measured = measured?;
    stopped?;
    Ok(measured)
}

/// Milliseconds until nothing is open.
fn drain(target: &up::Options) -> Option<u64> {
    let started = Instant::now();
    while started.elapsed() < DRAIN_WAIT {
        if up::open_count(target)? == 0 {
            return u64::try_from(started.elapsed().as_millis()).ok();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// All of them, beginning with the one whose turn it is.
fn in_turn<T>(all: &[T], turn: usize) -> impl Iterator<Item = &T> {
    all.iter().cycle().skip(turn % all.len().max(1)).take(all.len())
}

fn one_line(outcome: &Outcome) -> String {
    let latency = &outcome.latency;
    format!(
        "p50 {} µs, p99 {} µs, p99.9 {} µs, longest {} µs; {} of {} accepted; self-lag p99 {} µs",
        latency.p50_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us,
        outcome.accepted_count,
        outcome.payment_count,
        outcome.self_lag.p99_us,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_has_its_turn_in_every_place() {
        let order = |turn| in_turn(&["floor", "never", "always"], turn).copied().collect::<Vec<_>>();
        assert_eq!(order(3), ["floor", "never", "always"]);
        assert_eq!(order(4), ["never", "always", "floor"]);
        assert_eq!(order(5), ["always", "floor", "never"]);
        assert_eq!(in_turn::<u8>(&[], 1).count(), 0);
    }
}
