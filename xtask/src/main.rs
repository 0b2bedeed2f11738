//! The commands of Galo's developers: `cargo xtask <command>`.
//!
//! Each command lives in a module of its name. They drive real processes (Galo's, HAProxy, k6) and never stand in for
//! them. A command that fails prints one line (or the failing step's own words) and exits with status 1.

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "panics where nobody reads; see out.rs")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod bench;
mod cargo;
mod chaos;
mod decimal;
mod fuzz;
mod grow;
mod hostile;
mod http;
mod limits;
mod metrics;
mod microbench;
mod out;
mod process;
mod repo;
mod rinha;
mod schedule;
mod simulator;
mod table;
mod test;
mod tidy;
mod tools;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use out::errln;

/// The commands of Galo's developers.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build and run a whole Galo: processors, aggregator, two gateways, HAProxy
    Up {
        #[command(flatten)]
        options: up::Options,
        /// Go on in the background; return once GET /payments-summary answers
        #[arg(long)]
        detach: bool,
    },
    /// Stop the running Galo, waiting until what it accepted is processed
    Down {
        /// The folder that `up` was given
        #[arg(long, default_value = ".galo")]
        home: PathBuf,
    },
    /// List the processes of the running Galo
    Status {
        /// The folder that `up` was given
        #[arg(long, default_value = ".galo")]
        home: PathBuf,
    },
    /// Run the contest's load against the running Galo (or one started for it) and print the score
    Rinha(rinha::Options),
    /// Run schedules of clients and faulty processors through k6 against a real Galo; print what each earned
    Schedule(schedule::Options),
    /// Kill, hang and lose under load, then compare every payment with the processors' books
    #[command(after_help = chaos::HOUR)]
    Chaos(chaos::Options),
    /// Measure latency, CPU, memory, wake-ups and system calls against HAProxy before a responder that does nothing
    Bench(bench::Options),
    /// Measure what a payment and a summary cost beside many payments, processed or open
    Grow(grow::Options),
    /// Measure parts of a payment by themselves, and say what has changed since an earlier run
    Microbench(microbench::Options),
    /// Hostile requests, bodies, crowds and processors against the real programs, case by case
    Hostile(hostile::Options),
    /// Give the decoders and the engine what a fuzzer makes up, and hold each answer against a second reading
    Fuzz(fuzz::Options),
    /// Check everything: formatting, lints, tests, documentation, tidiness, then a real Galo end to end
    Test(test::Options),
    /// Check what compilers do not: links, lengths, documented variables and dependencies
    Tidy,
    /// Run the simulator: whole lives of a Galo, faults and all, each fixed by its seed
    Sim {
        /// For the simulator: `--seeds 20000`, `--seed 7 --trace`, `--planted`, `--help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Play schedules of outages with Galo's routing and others, and compare what they earn
    Lab {
        /// For the laboratory: `--random 200`, `--seed 7 --verbose`, `--schedule all`, `--report`, `--help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// What `up --detach` runs in the background
    #[command(hide = true)]
    Supervise { options: String },
}

/// Whether there is a command of this name.
fn has_command(name: &str) -> bool {
    Arguments::command().find_subcommand(name).is_some()
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Up { options, detach } => up::up(&options, detach),
        Command::Rinha(options) => rinha::rinha(&options),
        Command::Schedule(options) => schedule::schedule(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Grow(options) => grow::grow(&options),
        Command::Microbench(options) => microbench::microbench(&options),
        Command::Chaos(options) => chaos::chaos(&options),
        Command::Hostile(options) => hostile::hostile(&options),
        Command::Fuzz(options) => fuzz::fuzz(&options),
        Command::Down { home } => up::down(&home),
        Command::Status { home } => up::print_status(&home),
        Command::Sim { arguments } => simulator::sim(&arguments),
        Command::Lab { arguments } => simulator::lab(&arguments),
        Command::Test(options) => test::test(&options),
        Command::Tidy => tidy::tidy(),
        Command::Supervise { options } => up::supervise(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_flags_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
