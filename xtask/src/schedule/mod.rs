//! `cargo xtask schedule`: schedules of clients and faulty processors, run against real processes through k6, and what each
//! earned.
//!
//! The laboratory reads the same files; this is what its figures are held against. A Galo started here is a fresh one for each
//! run, so that a run does not profit from what the one before it learnt; one that runs already is used as it is. After each load both
//! processors are healed and everything accepted has to be processed, once. A run fails for what may never happen (`Outcome` has the
//! list), not for what it earned.
//!
//! Must never leave the processors as the last stage had them, nor run a file that it has not checked.

mod file;
mod forecast;
mod load;
mod outcome;
mod rest;
mod stages;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::decimal::scaled;
use crate::out::outln;
use crate::repo::{self, Fallible};
use crate::rinha::{Processor, Reading, Sides};
use crate::{tools, up};
use file::Schedule;
use outcome::Outcome;
use stages::Dials;

/// Which schedules, how often, against what.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Schedule files (JSON)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How many runs of each schedule, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// How to start Galo if none runs in `--home`
    #[command(flatten)]
    up: up::Options,
}

/// `cargo xtask schedule`.
///
/// # Errors
///
/// When a file is bad, a run cannot be made, or one is not clean.
pub(crate) fn schedule(options: &Options) -> Fallible<()> {
    let schedules = options.files.iter().map(|file| Schedule::read(file)).collect::<Fallible<Vec<_>>>()?;
    let k6 = tools::k6()?;
    let running = up::running(&options.up.home)?.map(|state| state.options);
    let started_here = running.is_none();
    let mut target = running.unwrap_or_else(|| options.up.clone());
    let fees = options.up.fees.or(target.fees).unwrap_or_default();
    if started_here {
        target.fees = Some(fees);
    }
    let results = target.home().path().join("schedule");
    fs::create_dir_all(&results).map_err(|error| format!("cannot create {}: {error}", results.display()))?;
    let mut outcomes = Vec::new();
    let mut bad = Vec::new();
    for schedule in &schedules {
        let predicted_cents = forecast::profit_cents(schedule, fees);
        for run in 1..=options.runs {
            outln!("{}, run {run} of {}: {}", schedule.name, options.runs, describe(schedule));
            if started_here {
                up::start_detached(&target, &[])?;
                // Built now; the next run takes the same programs.
                target.no_build = true;
            }
            let outcome = run_once(schedule, &target, fees, &k6, predicted_cents, &results);
            if started_here {
                up::down(&target.home)?;
            }
            let outcome = outcome?;
            let complaints = outcome.complaints();
            outln!("{}\n{}\n", Outcome::table(std::iter::once(&outcome)), outcome.describe());
            if !complaints.is_empty() {
                bad.push(format!("{}, run {run}: {}", schedule.name, complaints.join(", ")));
            }
            outcomes.push(outcome);
        }
    }
    if outcomes.len() > 1 {
        outln!("{}", Outcome::table(outcomes.iter()));
    }
    outln!("each run as JSON: {}", results.display());
    if bad.is_empty() { Ok(()) } else { Err(format!("not clean: {}", bad.join("; "))) }
}

fn describe(schedule: &Schedule) -> String {
    let Schedule { length_ms, settle_ms, client_count_max, stages, .. } = schedule;
    format!(
        "{}.{:03} s, up to {client_count_max} clients, {} stages, books closed {settle_ms} ms after the end",
        length_ms / 1000,
        length_ms % 1000,
        stages.len()
    )
}

/// One load and what is read around it.
fn run_once(
    schedule: &Schedule,
    target: &up::Options,
    fees: up::Fees,
    k6: &Path,
    predicted_cents: Option<u64>,
    results: &Path,
) -> Fallible<Outcome> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_millis();
    let result_file = results.join(format!("{stamp}.json"));
    let processors = Processor::both(target);
    check_fees(&processors, fees)?;
    let mut dials = Dials::new(&processors);
    dials.heal()?;
    let before = Reading::take(target);
    let load = load::run(schedule, target, k6, &mut dials, &result_file);
    // Whatever became of the load: what it left open can be processed, and nobody finds failing processors afterwards.
    dials.heal()?;
    let (load, lateness) = load?;
    let rest = rest::come_to_rest(target, &processors, load.accepted)?;
    let outcome = Outcome {
        schedule: schedule.name.clone(),
        fees,
        stage_lateness_us: microseconds(lateness),
        rest,
        sides: Sides::between(target, &before),
        load,
        predicted_cents,
    };
    let bytes = serde_json::to_vec_pretty(&outcome.json()?).map_err(|error| error.to_string())?;
    repo::write_atomically(&result_file, &bytes)?;
    Ok(outcome)
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A profit computed with other fees than the processors' would mean nothing.
fn check_fees(processors: &[Processor], fees: up::Fees) -> Fallible<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary {
        fee_per_transaction: Box<RawValue>,
    }
    for (processor, fee_bps) in processors.iter().zip(fees.both_bps()) {
        let answer = processor.admin("GET", "/admin/payments-summary", &Value::Null)?.expect(200)?;
        let summary: Summary = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("processor {}: {error}: {}", processor.name, answer.text()))?;
        let fee = summary.fee_per_transaction.get();
        if scaled(fee, 4) != Some(u64::from(fee_bps)) {
            return Err(format!(
                "processor {} keeps {fee} of a payment and not {fee_bps} basis points: start it with other fees, or say --fees",
                processor.name
            ));
        }
    }
    Ok(())
}
