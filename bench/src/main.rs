//! `galo-bench load` sends payments at a constant rate, `galo-bench summaries` asks for sums one after the other; `galo-bench respond` answers
//! payments and does nothing else.
//!
//! They are started by `cargo xtask bench` and `grow`, and are of use by hand as well. What `load` prints is one JSON object a line:
//! `{"event":"begin"}` when the warm-up is over, `{"event":"end"}` after the last send, then the result. What
//! `summaries` prints is one such object.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use galo_bench::load::{self, Plan};
use galo_bench::{responder, summaries};

/// An open-loop load generator, and the floor that Galo is compared with
#[derive(Debug, Parser)]
#[command(name = "galo-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send payments at a constant rate, whatever becomes of the earlier ones
    Load {
        /// Where to
        #[arg(long, default_value = "127.0.0.1:9999")]
        target: SocketAddr,
        /// Payments a second
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rate: u32,
        /// Kept-alive connections, used in turn
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=20_000))]
        connections: u16,
        /// Seconds before anything counts
        #[arg(long, default_value_t = 3)]
        warmup_s: u32,
        /// Seconds that count
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Fixes the payments' ids; drawn if not given
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Ask for summaries, one after the other on one connection
    Summaries {
        /// Whom
        #[arg(long, default_value = "127.0.0.1:9999")]
        target: SocketAddr,
        /// First ms since 1970 that counts; without bounds everything does
        #[arg(long, requires = "to_ms")]
        from_ms: Option<u64>,
        /// Last one
        #[arg(long, requires = "from_ms")]
        to_ms: Option<u64>,
        /// Draw both bounds anew for each question, from the range
        #[arg(long, requires = "from_ms")]
        drawn: bool,
        /// How many
        #[arg(long, default_value_t = 500)]
        count: u32,
        /// Fixes the bounds that are drawn; drawn itself if not given
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Answer whatever comes without reading it: 202 to a POST, 200 to all else
    Respond {
        /// Unix sockets to listen on
        #[arg(long, required = true)]
        socket: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Load { target, rate, connections, warmup_s, seconds, seed } => {
            let seed = seed.unwrap_or_else(drawn_seed);
            let plan = Plan { target, rate, connections: usize::from(connections), warmup_s, seconds, seed };
            run_load(&plan)
        }
        Command::Summaries { target, from_ms, to_ms, drawn, count, seed } => {
            let (range_ms, seed) = (from_ms.zip(to_ms), seed.unwrap_or_else(drawn_seed));
            summaries::run(&summaries::Plan { target, range_ms, drawn, count, seed })
                .and_then(|found| say(&serde_json::to_string(&found).map_err(|error| error.to_string())?))
        }
        Command::Respond { socket } => responder::serve(&socket).map_err(|error| error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("galo-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ids must differ from those of the run before: the ledger remembers them.
fn drawn_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn say(line: &str) -> Result<(), String> {
    let mut out = stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| format!("stdout: {error}"))
}

fn run_load(plan: &Plan) -> Result<(), String> {
    let outcome = load::run(plan, |event| say(&format!(r#"{{"event":"{}"}}"#, event.name())))?;
    say(&serde_json::to_string(&outcome).map_err(|error| error.to_string())?)
}
