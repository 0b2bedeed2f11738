//! Chaos against a running Galo of real processes: `cargo xtask chaos` starts one of its own and runs this.
//!
//! Load at a constant rate, SIGKILL for one process after the other, processors that lose answers, hang, refuse and
//! fail for seconds; then quiet, and the referee. Every payment's fate is known in the end, and each check is a line; the exit status
//! is 0 only if all pass. Nothing here decides what Galo does or helps it: it talks HTTP, reads metrics, and kills by pid and start
//! time out of the supervisor's state file.
//!
//! It must be run against a Galo and processors that begin empty, since a payment that it did not send is a phantom.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod client;
mod hostile;
mod killer;
mod load;
mod memory;
mod metrics;
mod payment;
mod processors;
mod referee;
mod report;
mod run;
mod supervisor;
mod trace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::LocalSet;

use crate::killer::Target;

/// Load, kills and faults against a running Galo, then the reconciliation
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// The API
    #[arg(long)]
    api: SocketAddr,
    /// HAProxy's stats page
    #[arg(long)]
    stats: SocketAddr,
    /// The default processor, of galo-simulator's model
    #[arg(long)]
    default: SocketAddr,
    /// The fallback processor
    #[arg(long)]
    fallback: SocketAddr,
    /// The token of the processors' admin paths
    #[arg(long, default_value = "123")]
    token: String,
    /// The folder of Galo's sockets and of the supervisor's state.json
    #[arg(long)]
    run: PathBuf,
    /// A folder for posts.csv and kills.csv: what happened when, to look into what went wrong
    #[arg(long)]
    trace: Option<PathBuf>,
    #[command(flatten)]
    plan: Plan,
}

/// What is done to it.
#[derive(Clone, Debug, clap::Args)]
struct Plan {
    /// How long the load lasts
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Payments a second; duplicates come on top
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Connections of those who pay, at most; what a stall opens more stays in everybody's memory
    #[arg(long, default_value_t = client::CONNECTIONS_MAX, value_parser = connections)]
    connections_max: usize,
    /// Milliseconds from one kill to the next, on average; 0 for no kills
    #[arg(long, default_value_t = 2000)]
    kill_every_ms: u64,
    /// Who is killed, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Target::Gateway, Target::Aggregator, Target::Haproxy])]
    targets: Vec<Target>,
    /// Leave each target alone for a part of the time, one after the other, so that one of its lives is long enough to judge its
    /// memory
    #[arg(long)]
    spare_in_turn: bool,
    /// How many of them at the same moment
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// Share of payments that are sent twice at the same moment
    #[arg(long, default_value_t = 0.1, value_parser = probability)]
    duplicates: f64,
    /// Share of payments whose id is sent again with another amount
    #[arg(long, default_value_t = 0.01, value_parser = probability)]
    contradictions: f64,
    /// Probability that a processor stores a payment and closes the connection without an answer
    #[arg(long, default_value_t = 0.02, value_parser = probability)]
    lost_answers: f64,
    /// Probability that a processor hangs, half of them before storing the payment, half after
    #[arg(long, default_value_t = 0.01, value_parser = probability)]
    hangs: f64,
    /// How long a hang lasts; longer than the gateways' ATTEMPT_TIMEOUT_MS, or it is but a slow answer
    #[arg(long, default_value_t = 5000)]
    hang_ms: u64,
    /// Probability of a refusal with nothing stored, half of them 500 and half a connection that is closed before; and beside these for each hundred a
    /// 429 that asks for 5 s of rest, which stops everything else there
    #[arg(long, default_value_t = 0.01, value_parser = probability)]
    refusals: f64,
    /// Probability of an answer that is no HTTP, with the payment stored
    #[arg(long, default_value_t = 0.002, value_parser = probability)]
    garbage: f64,
    /// Milliseconds from one outage to the next: default, fallback, both, in turn; 0 for none
    #[arg(long, default_value_t = 7000)]
    outage_every_ms: u64,
    /// How long an outage lasts
    #[arg(long, default_value_t = 1500)]
    outage_ms: u64,
    /// Clients that send nonsense for the whole time, through HAProxy and straight at the gateways; 0 for none
    #[arg(long, default_value_t = 4)]
    hostile_clients: u64,
    /// The aggregator's KNOWN_LEN_MAX: so many ids it has to know in the end
    #[arg(long, env = "KNOWN_LEN_MAX", default_value_t = 800_000)]
    known_len_max: usize,
    /// The aggregator's BUCKET_BYTES_MAX: so much of the newest time has to be exact to the millisecond in the end
    #[arg(long, env = "BUCKET_BYTES_MAX", default_value_t = 32 << 20)]
    bucket_bytes_max: usize,
    /// How long a run or a process has to live until its memory is judged
    #[arg(long, default_value_t = 600)]
    memory_judged_seconds: u64,
    /// Everything drawn at random comes from here; without it, from the clock
    #[arg(long)]
    seed: Option<u64>,
    /// How long the open payments may take to be processed once everything is well again
    #[arg(long, default_value_t = 60)]
    settle_seconds_max: u64,
    /// Most POSTs of a million that may fail at first while gateways die
    #[arg(long, default_value_t = 100)]
    gateway_failures_ppm_max: u64,
    /// Longest time from a gateway's death to its next 2xx
    #[arg(long, default_value_t = 500)]
    gateway_back_ms_max: u64,
    /// Report how fast it was and how many POSTs failed, but judge only what is true on the slowest machine: that everybody comes
    /// back, and what the books say
    #[arg(long)]
    any_speed: bool,
}

/// As many as are opened at the start, and no more than HAProxy holds.
fn connections(text: &str) -> Result<usize, String> {
    let range = run::CONNECTION_COUNT..=client::CONNECTIONS_MAX;
    let value = text.parse().ok().filter(|value| range.contains(value));
    value.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
}

fn probability(text: &str) -> Result<f64, &'static str> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or("expected a probability from 0 to 1")
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A stall of seconds leaves thousands of requests waiting, each on its own connection.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap_or_default();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chaos: cannot start its runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match LocalSet::new().block_on(&runtime, run::run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
