//! `cargo xtask rinha`: the contest's load against a running Galo, and the score that it would have got.
//!
//! Runs k6 with our own `k6/rinha.js`, or with the contest's script given by the user. A run is good when nothing is
//! inconsistent, late, refused or different between our ledger and the processors' own records once the load is over;
//! anything else makes the command fail, whatever the score. Around each run it reads what the processors and HAProxy counted
//! themselves, so that a good score bought with too many health checks or one idle gateway shows.
//!
//! Must never change the contest's script (only its imports' addresses) nor leave the processors' admin token changed.

mod interrupt;
mod score;
mod script;
mod sides;

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::json;

use crate::out::outln;
use crate::repo::{self, Fallible};
use crate::{tools, up};
pub(crate) use score::{Latency, Score};
use script::Script;
pub(crate) use sides::{ADMIN_TOKEN, Processor, Reading, Sides, Totals};

/// Users of our own script, as in the contest.
const USERS: u32 = 500;

/// What is run, how often, against what.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// A script of the contest's own, or a checkout of the contest or a folder that holds one; without it, our k6/rinha.js
    #[arg(long)]
    pub(crate) script: Option<PathBuf>,
    /// How many runs, one after the other
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: u32,
    /// Users at the end of the ramp, each posting one payment a second [default: 500, or what the contest's script has]
    #[arg(long)]
    pub(crate) max_requests: Option<u32>,
    /// Length of a run in seconds (the contest's script has its own)
    #[arg(long, default_value_t = 60)]
    pub(crate) duration_s: u32,
    /// Seconds between two audits (the contest's script has its own)
    #[arg(long, default_value_t = 10)]
    pub(crate) audit_s: u32,
    /// Go on after a bad run
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// How to start Galo if none runs in `--home`
    #[command(flatten)]
    pub(crate) up: up::Options,
}

/// `cargo xtask rinha`.
///
/// # Errors
///
/// When a run cannot be made, or is not clean.
pub(crate) fn rinha(options: &Options) -> Fallible<()> {
    let k6 = tools::k6()?;
    let found = up::running(&options.up.home)?.map(|state| state.options);
    let started_here = found.is_none();
    let target = found.unwrap_or_else(|| options.up.clone());
    if started_here {
        outln!("no Galo runs in {}; starting one for the runs", options.up.home().path().display());
        up::start_detached(&target, &[])?;
    }
    let result = run_all(options, &target, &k6);
    if started_here {
        up::down(&options.up.home)?;
    }
    result
}

/// Some runs of our own script at the contest's measure, against a Galo that runs; all are made, whatever came of the first.
///
/// # Errors
///
/// When the run cannot be made, or is not clean.
pub(crate) fn play(target: &up::Options, runs: u32) -> Fallible<()> {
    let options = Options {
        script: None,
        runs,
        max_requests: None,
        duration_s: 60,
        audit_s: 10,
        keep_going: true,
        up: target.clone(),
    };
    run_all(&options, target, &tools::k6()?)
}

fn run_all(options: &Options, target: &up::Options, k6: &Path) -> Fallible<()> {
    let results = target.home().path().join("rinha");
    fs::create_dir_all(&results).map_err(|error| format!("cannot create {}: {error}", results.display()))?;
    let mut bad = Vec::new();
    let mut rows = Vec::new();
    for run in 1..=options.runs {
        outln!("run {run} of {}", options.runs);
        let outcome = run_once(options, target, k6, &results)?;
        outln!("{}", outcome.describe());
        if !outcome.complaints.is_empty() {
            bad.push(format!("run {run}: {}", outcome.complaints.join(", ")));
        }
        rows.push(outcome);
        if !bad.is_empty() && !options.keep_going {
            break;
        }
    }
    outln!("\n{}", Score::table(rows.iter().map(|row| &row.score)));
    if bad.is_empty() { Ok(()) } else { Err(format!("not clean: {}", bad.join("; "))) }
}

/// A run's score, and what is wrong with it.
pub(crate) struct RunOutcome {
    pub(crate) score: Score,
    pub(crate) sides: Sides,
    pub(crate) complaints: Vec<String>,
    pub(crate) latency: Option<Latency>,
    /// k6's own CPU.
    pub(crate) k6_cpu_us: u64,
}

impl RunOutcome {
    pub(crate) fn describe(&self) -> String {
        format!("{}\n{}", self.score.describe(), self.sides.describe())
    }
}

/// One run of k6 and the readings around it.
pub(crate) fn run_once(
    options: &Options,
    target: &up::Options,
    k6: &Path,
    results: &Path,
) -> Fallible<RunOutcome> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_millis();
    let result_file = results.join(format!("{stamp}.json"));
    let script = match &options.script {
        Some(path) => Script::of_contest(path, results)?,
        None => Script::own(),
    };
    // The scripts' own results have no median.
    let summary_file = results.join(format!("{stamp}-summary.json"));
    let before = Reading::take(target);
    let token = if options.script.is_some() { up::random_uuid() } else { ADMIN_TOKEN.to_owned() };
    let mut command = Command::new(k6);
    // k6 has a control port of its own, which a second k6 on this machine would find taken.
    command
        .args(["run", "--no-usage-report", "--address", "127.0.0.1:0", "--summary-export"])
        .arg(&summary_file)
        // The contest's own script asks for p99 and the count alone; this is heard in its stead.
        .args(["--summary-trend-stats", Latency::STATISTICS])
        .arg(&script.file)
        .current_dir(&script.folder);
    if !std::io::stdout().is_terminal() {
        command.arg("--quiet");
    }
    let max_requests = match options.script {
        Some(_) => options.max_requests,
        None => Some(options.max_requests.unwrap_or(USERS)),
    };
    if let Some(users) = max_requests {
        command.env("MAX_REQUESTS", users.to_string());
    }
    command
        .env("TOKEN", &token)
        .env("PARTICIPANT", script::PARTICIPANT)
        .env("DURATION_S", options.duration_s.to_string())
        .env("AUDIT_S", options.audit_s.to_string())
        .env("API_URL", format!("http://localhost:{}", target.port))
        .env("DEFAULT_URL", target.processor_url("default"))
        .env("FALLBACK_URL", target.processor_url("fallback"))
        .env("GALO_PORT_MAP", port_map(target))
        .env("RESULT_FILE", &result_file);
    let cpu_before_us = children_cpu_us();
    // The contest's script sets its own token at the start and never takes it back; the next run could not start.
    let status = interrupt::run(&mut command, || {
        Processor::both(target).into_iter().for_each(|processor| processor.restore_token(&token));
    });
    let k6_cpu_us = children_cpu_us().saturating_sub(cpu_before_us);
    let status = status.map_err(|error| match error.kind() {
        std::io::ErrorKind::Interrupted => {
            format!("{} was interrupted; the processors' token is as it was", k6.display())
        }
        _ => format!("cannot run {}: {error}", k6.display()),
    })?;
    let produced = match script.is_own {
        true => result_file.clone(),
        false => script.result().map_err(|error| format!("k6 ended with {status} and {error}"))?,
    };
    let text = fs::read(&produced).map_err(|error| {
        format!("k6 ended with {status} and left no result ({}: {error})", produced.display())
    })?;
    let json = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", produced.display()))?;
    let score = if script.is_own { Score::of_own(&json)? } else { Score::of_contest(&json)? };
    let sides = Sides::between(target, &before);
    let mut complaints = score.complaints();
    complaints.extend(sides.complaints());
    if !status.success() && complaints.is_empty() {
        complaints.push(format!("k6 ended with {status}"));
    }
    let record = json!({ "script": json, "around": sides.json(), "complaints": complaints, "max_requests": max_requests });
    let bytes = serde_json::to_vec_pretty(&record).map_err(|error| error.to_string())?;
    repo::write_atomically(&result_file, &bytes)?;
    Ok(RunOutcome { score, sides, complaints, latency: Latency::of_summary(&summary_file), k6_cpu_us })
}

/// Of all children that have ended and been waited for: while k6 runs, nobody waits for another.
fn children_cpu_us() -> u64 {
    let of = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| of(usage.user_time()) + of(usage.system_time()))
}

/// For scripts with the contest's ports written into them.
fn port_map(target: &up::Options) -> String {
    let pairs = [
        (9999, Some(target.port)),
        (8001, Processor::port(target, "default")),
        (8002, Processor::port(target, "fallback")),
    ];
    let mapped =
        pairs.iter().filter_map(|(from, to)| to.filter(|to| to != from).map(|to| format!("{from}={to}")));
    mapped.collect::<Vec<_>>().join(",")
}
