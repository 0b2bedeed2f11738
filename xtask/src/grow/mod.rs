//! `cargo xtask grow`: what a summary and a payment cost beside ledgers of many payments, and beside many that wait.
//!
//! One Galo for each ledger, all under the compose file's limits, measured in turns: a busy minute of the machine hits no ledger alone. The
//! aggregator's example `fill` has the payments accepted and processed over its socket, without a quota of CPU meanwhile; that the ledger then
//! has exactly these is checked through HAProxy, to the cent. Then each is asked for summaries, by one client over one connection, and
//! takes payments at a constant rate.
//!
//! The backlog is another Galo's, started anew in each round, whose processors both refuse: `fill` leaves payments open and ends, so
//! that they go to the gateways, and more come until there are as many as asked for. A purge ends the round.
//!
//! What does not fit the limits has other bounds on memory, and the report says so. Must never touch a Galo in another home.

mod report;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use galo_bench::report::describe_host;
use galo_bench::results::{Outcome, Percentiles};
use serde_json::{Value, json};

use crate::bench::machine;
use crate::limits::{self, Cgroup};
use crate::metrics::Samples;
use crate::out::outln;
use crate::repo::{self, Fallible};
use crate::rinha::{Processor, Totals};
use crate::{cargo, up};

/// Payments in each second of the ledgers' requestedAt.
const PER_SECOND: u64 = 1_000;
/// The aggregator's default for `KNOWN_LEN_MAX`.
const KNOWN_LEN_MAX: u64 = 800_000;
/// Where the compose file's limit is too little: for each service that needs more.
const MORE_MEMORY_BYTES: u64 = 2 << 30;
/// So long the gateways may take to hold what they were given, and a snapshot to be done.
const WAIT: Duration = Duration::from_secs(120);

/// What is measured, how often, and where the report goes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Sizes of the ledgers, ascending
    #[arg(long, value_delimiter = ',', default_value = "0,1000000,10000000")]
    payments: Vec<u64>,
    /// Payments that wait, ascending
    #[arg(long, value_delimiter = ',', default_value = "0,100000,500000,1000000")]
    open: Vec<u64>,
    /// Payments a second beside each ledger; beside each backlog the first of them
    #[arg(long, value_delimiter = ',', default_value = "1000,2000")]
    rates: Vec<u32>,
    /// Seconds that count in each run
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Seconds before, which do not
    #[arg(long, default_value_t = 2)]
    warmup_s: u32,
    /// Summaries of each kind in each round
    #[arg(long, default_value_t = 500)]
    summaries: u32,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Take the programs as they were built last
    #[arg(long)]
    no_build: bool,
    /// First of the ports that are used, four for each Galo
    #[arg(long, default_value_t = 28_800)]
    port_base: u16,
    /// Folder for the Galos' own
    #[arg(long, default_value = ".galo/grow")]
    home: PathBuf,
    /// Write the report as docs/measurements/NAME.md
    #[arg(long, value_name = "NAME")]
    publish: Option<String>,
}

/// What a summary can be asked for; the report's columns.
const RANGES: [&str; 4] = ["everything", "last 15 s", "one millisecond", "drawn at random"];

/// One ledger and what was found beside it.
struct Ledger {
    name: String,
    payments: u64,
    galo: Galo,
    /// The first and the last requestedAt.
    span_ms: (u64, u64),
    /// Each round's, in the order of [`RANGES`].
    summaries: Vec<[Percentiles; 4]>,
    /// Each round's, in the order of the rates.
    loads: Vec<Vec<Load>>,
    rss_bytes: u64,
}

/// So many waiting, and what was found beside them.
struct Backlog {
    open: u64,
    loads: Vec<Load>,
    /// HAProxy's, the gateways', the aggregator's, resident in the last round.
    rss_bytes: [u64; 3],
}

/// One run of payments.
struct Load {
    outcome: Outcome,
    /// HAProxy's, the gateways', the aggregator's, while it counted.
    cpu_us: [u64; 3],
    throttled_count: u64,
}

/// `cargo xtask grow`.
///
/// # Errors
///
/// When something cannot be started or measured, or a ledger is not what it was filled with. Slowness is no error.
pub(crate) fn grow(options: &Options) -> Fallible<()> {
    if !options.no_build {
        build(&options.up(0))?;
    }
    // Before the first start, which is a load too.
    let (machine, load_average) =
        (describe_host(&machine::describe_host(up::Profile::Release)), report::load_average());
    let mut ledgers = fill_ledgers(options)?;
    for round in 0..options.runs as usize {
        for turn in 0..ledgers.len() {
            let index = (turn + round) % ledgers.len();
            let ledger = &mut ledgers[index];
            ledger.summaries.push(ledger.ask(options)?);
            let loads = options.rates.iter().map(|rate| ledger.galo.load(*rate, options));
            ledger.loads.push(loads.collect::<Fallible<_>>()?);
            ledger.rss_bytes = ledger.galo.rss_bytes()[2];
        }
        outln!("round {} of {}: ledgers", round + 1, options.runs);
    }
    // Stopped, so that they take no CPU beside what follows.
    for ledger in &mut ledgers {
        ledger.galo.stop()?;
    }
    let mut backlogs: Vec<_> = options
        .open
        .iter()
        .map(|open| Backlog { open: *open, loads: Vec::new(), rss_bytes: [0; 3] })
        .collect();
    for round in 1..=options.runs {
        measure_backlogs(options, ledgers.len(), &mut backlogs)?;
        outln!("round {round} of {}: backlogs", options.runs);
    }
    let machine = format!("{machine}, load {load_average} before, {} at the end", report::load_average());
    let text = report::markdown(options, &machine, &ledgers, &backlogs);
    outln!("\n{text}");
    let path = match &options.publish {
        Some(name) => repo::root().join("docs/measurements").join(format!("{name}.md")),
        None => repo::root().join(&options.home).join("report.md"),
    };
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    outln!("wrote {}", path.display());
    Ok(())
}

fn build(galo: &up::Options) -> Fallible<()> {
    up::build(galo)?;
    for what in [["galo-aggregator", "--example", "fill"], ["galo-bench", "--bin", "galo-bench"]] {
        cargo::run(cargo::cargo().args(["build", "--release", "--package"]).args(what), "the build")?;
    }
    Ok(())
}

/// One for each size with the default bound on known ids, and the largest once more with all ids known.
fn fill_ledgers(options: &Options) -> Fallible<Vec<Ledger>> {
    let mut plans: Vec<_> = options.payments.iter().map(|payments| (*payments, KNOWN_LEN_MAX)).collect();
    if let Some(most) = options.payments.iter().max().filter(|most| **most > KNOWN_LEN_MAX) {
        plans.push((*most, *most));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    let until_ms = u64::try_from(now.as_millis()).map_err(|error| error.to_string())?;
    let mut ledgers = Vec::new();
    for (index, (payments, known)) in plans.into_iter().enumerate() {
        let known_text = known.to_string();
        let galo = Galo::start(options, index, &[("KNOWN_LEN_MAX", known_text.as_str())])?;
        if known > KNOWN_LEN_MAX {
            galo.cgroup("aggregator")?.set_memory(MORE_MEMORY_BYTES)?;
        }
        galo.fill(&["--payments", &payments.to_string(), "--until-ms", &until_ms.to_string()])?;
        let found = Totals::of_ledger(&galo.up.api())?;
        if found.get("default") != Some(&expected(payments)) || found.get("fallback") != Some(&expected(0)) {
            return Err(format!("a ledger of {payments} payments sums up as {found:?}"));
        }
        galo.settle()?;
        let span_ms = (until_ms - payments * 1_000 / PER_SECOND, until_ms);
        let name = match payments {
            0 => "none".to_owned(),
            _ if payments <= known => format!("{}, all ids known", up::grouped(payments)),
            _ => format!("{}, {} ids known", up::grouped(payments), up::grouped(known)),
        };
        outln!("{name}: the summary is exact");
        ledgers.push(Ledger {
            name,
            payments,
            galo,
            span_ms,
            summaries: Vec::new(),
            loads: Vec::new(),
            rss_bytes: 0,
        });
    }
    Ok(ledgers)
}

/// What `fill` makes of so many payments: 0.01 to 100.00 in turns.
fn expected(payments: u64) -> Totals {
    let (rounds, rest) = (payments / 10_000, payments % 10_000);
    Totals { requests: payments, cents: rounds * 10_000 * 10_001 / 2 + rest * (rest + 1) / 2 }
}

impl Ledger {
    fn ask(&self, options: &Options) -> Fallible<[Percentiles; 4]> {
        let (first_ms, last_ms) = self.span_ms;
        let bounds = |from_ms: u64, to_ms: u64| {
            ["--from-ms".to_owned(), from_ms.to_string(), "--to-ms".to_owned(), to_ms.to_string()].to_vec()
        };
        let drawn = [bounds(first_ms, last_ms), vec!["--drawn".to_owned()]].concat();
        let ask = |bounds: Vec<String>| {
            let mut command = self.galo.client("summaries");
            command.args(["--count", &options.summaries.to_string()]).args(bounds);
            let output = command.output().map_err(|error| format!("cannot run galo-bench: {error}"))?;
            serde_json::from_slice(&output.stdout)
                .map_err(|_| format!("no summaries: {}", String::from_utf8_lossy(&output.stderr).trim()))
        };
        Ok([
            ask(Vec::new())?,
            ask(bounds(last_ms - 15_000, last_ms - 1_500))?,
            ask(bounds(last_ms - 500, last_ms - 500))?,
            ask(drawn)?,
        ])
    }
}

fn measure_backlogs(options: &Options, index: usize, backlogs: &mut [Backlog]) -> Fallible<()> {
    let most = options.open.iter().max().copied().unwrap_or(0);
    // The loads come on top.
    let bound = (most + most / 4 + 100_000).to_string();
    let variables = [("OPEN_LEN_MAX", bound.as_str()), ("QUEUE_LEN_MAX", bound.as_str())];
    let mut galo = Galo::start(options, index, &variables)?;
    for service in ["aggregator", "gateway-1", "gateway-2"] {
        galo.cgroup(service)?.set_memory(MORE_MEMORY_BYTES)?;
    }
    for processor in Processor::both(&galo.up) {
        processor.admin("PUT", "/admin/configurations/failure", &json!({ "failure": true }))?.expect(200)?;
    }
    let rate = *options.rates.first().ok_or("no rate")?;
    let mut filled = 0;
    for backlog in backlogs {
        let open = galo.held()?;
        if let Some(missing) = backlog.open.checked_sub(open).filter(|missing| *missing > 0) {
            let (payments, first) = (missing.to_string(), filled.to_string());
            galo.fill(&["--open", "--payments", &payments, "--first", &first])?;
            filled += missing;
            galo.wait_until("the gateways hold the backlog", || Ok(galo.held()? >= backlog.open))?;
        }
        galo.settle()?;
        backlog.loads.push(galo.load(rate, options)?);
        backlog.rss_bytes = galo.rss_bytes();
    }
    // Else the stop would wait for all of them.
    let purged = galo.up.api().send("POST", "/purge-payments", &[], b"", Duration::from_secs(10));
    purged?.expect(200)?;
    galo.stop()
}

/// A Galo of our own, stopped with the value.
struct Galo {
    up: up::Options,
    processes: Vec<up::Process>,
}

impl Options {
    fn up(&self, index: usize) -> up::Options {
        let port = self.port_base + u16::try_from(4 * index).expect("there are a handful");
        up::Options {
            processors: up::Processors::Simulated,
            limits: true,
            profile: up::Profile::Release,
            // Built once, before the first start.
            no_build: true,
            port,
            stats_port: port + 1,
            default_port: port + 2,
            fallback_port: port + 3,
            purge: false,
            fees: None,
            home: self.home.join(index.to_string()),
            floor: false,
        }
    }
}

impl Galo {
    fn start(options: &Options, index: usize, variables: &[(&str, &str)]) -> Fallible<Self> {
        let up = options.up(index);
        if up::running(&up.home)?.is_some() {
            outln!("stopping what an interrupted run left behind in {}", up.home().path().display());
            up::stop(&up.home)?;
        }
        up::start_detached(&up, variables)?;
        let mut galo = Self { up, processes: Vec::new() };
        galo.processes = up::running(&galo.up.home)?.ok_or("the supervisor has gone")?.processes;
        Ok(galo)
    }

    fn stop(&mut self) -> Fallible<()> {
        self.processes.clear();
        up::stop(&self.up.home).map(drop)
    }

    fn cgroup(&self, service: &str) -> Fallible<Cgroup> {
        let process = self.processes.iter().find(|process| process.name == service);
        Ok(Cgroup::at(process.ok_or_else(|| format!("no {service} runs"))?.cgroup.clone()))
    }

    /// Runs the aggregator's example, without a quota for the aggregator meanwhile.
    fn fill(&self, arguments: &[&str]) -> Fallible<()> {
        let limits = limits::read_compose(&up::compose_file())?;
        let quota_us = limits.get("aggregator").ok_or("the compose file limits no aggregator")?.quota_us;
        let cgroup = self.cgroup("aggregator")?;
        cgroup.set_quota(None)?;
        let program = repo::program_folder("release").join("examples/fill");
        let status = Command::new(&program)
            .arg("--socket")
            .arg(self.up.home().socket("aggregator"))
            .args(["--per-second", &PER_SECOND.to_string()])
            .args(arguments)
            .status()
            .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        cgroup.set_quota(Some(quota_us))?;
        if status.success() { Ok(()) } else { Err(format!("fill failed ({status}, its words are above)")) }
    }

    fn metric(&self, process: &str, name: &str) -> Fallible<u64> {
        let answer =
            self.up.stats().get(&format!("/metrics/{process}"), Duration::from_secs(5))?.expect(200)?;
        let mut samples = Samples::default();
        samples.read(&answer.text());
        samples.count(name, "").ok_or_else(|| format!("{process} has no metric {name}"))
    }

    /// Payments in the gateways' hands.
    fn held(&self) -> Fallible<u64> {
        let of = |gateway| self.metric(gateway, "galo_gateway_payments_held");
        Ok(of("gateway-1")? + of("gateway-2")?)
    }

    fn wait_until(&self, what: &str, holds: impl Fn() -> Fallible<bool>) -> Fallible<()> {
        let deadline = Instant::now() + WAIT;
        while !holds()? {
            if Instant::now() > deadline {
                return Err(format!("{what}: not within {} s", WAIT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until the aggregator has nothing left to do: a snapshot of what was filled may be under way.
    fn settle(&self) -> Fallible<()> {
        let cgroup = self.cgroup("aggregator")?;
        self.wait_until("the aggregator comes to rest", || {
            let before = cgroup.usage().cpu_us;
            std::thread::sleep(Duration::from_millis(500));
            // A twentieth of a processor: ticks, metrics.
            Ok(cgroup.usage().cpu_us - before < 25_000)
        })
    }

    fn client(&self, command: &str) -> Command {
        let mut client = Command::new(repo::program_folder("release").join("galo-bench"));
        client.arg(command).args(["--target", &format!("127.0.0.1:{}", self.up.port)]).stdin(Stdio::null());
        client
    }

    /// HAProxy's, the gateways' and the aggregator's part of something.
    fn parts(&self, of: impl Fn(&up::Process) -> u64) -> [u64; 3] {
        ["haproxy", "gateway", "aggregator"]
            .map(|name| self.processes.iter().filter(|process| process.name.starts_with(name)).map(&of).sum())
    }

    /// Of what cgroups count.
    fn usage(&self, of: impl Fn(limits::Usage) -> u64) -> [u64; 3] {
        self.parts(|process| of(Cgroup::at(process.cgroup.clone()).usage()))
    }

    fn rss_bytes(&self) -> [u64; 3] {
        self.parts(|process| process.identity.as_ref().and_then(|identity| identity.rss_bytes()).unwrap_or(0))
    }

    fn load(&self, rate: u32, options: &Options) -> Fallible<Load> {
        let mut command = self.client("load");
        for (flag, value) in
            [("--rate", rate), ("--warmup-s", options.warmup_s), ("--seconds", options.seconds)]
        {
            command.arg(flag).arg(value.to_string());
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run galo-bench: {error}"))?;
        let output = child.stdout.take().ok_or("the generator has no output")?;
        let mut readings = Vec::new();
        let mut outcome = None;
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| format!("the generator's output: {error}"))?;
            let value: Value = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
            if value.get("event").is_some() {
                readings.push((self.usage(|usage| usage.cpu_us), self.usage(|usage| usage.throttled_count)));
            } else {
                outcome = Some(serde_json::from_value(value).map_err(|error| error.to_string())?);
            }
        }
        child.wait().map_err(|error| format!("the generator: {error}"))?;
        let outcome: Outcome = outcome.ok_or("the generator ended early (its words are above)")?;
        if outcome.accepted_count != outcome.payment_count {
            return Err(format!("{} of {} accepted", outcome.accepted_count, outcome.payment_count));
        }
        let [(cpu_begin, throttled_begin), (cpu_end, throttled_end)] = readings[..] else {
            return Err("the generator told of no beginning and end".to_owned());
        };
        let cpu_us = std::array::from_fn(|index| cpu_end[index] - cpu_begin[index]);
        let throttled = throttled_end.iter().sum::<u64>() - throttled_begin.iter().sum::<u64>();
        Ok(Load { outcome, cpu_us, throttled_count: throttled })
    }
}

impl Drop for Galo {
    fn drop(&mut self) {
        // An error on the way here is said already.
        if !self.processes.is_empty() {
            drop(up::stop(&self.up.home));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_that_a_ledger_must_have_is_that_of_its_payments() {
        for payments in [0, 1, 9_999, 10_000, 10_001, 123_456] {
            let cents = (0..payments).map(|number| 1 + number % 10_000).sum();
            assert_eq!(expected(payments), Totals { requests: payments, cents });
        }
    }
}
