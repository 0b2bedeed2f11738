//! A model payment processor as a program: `processor --listen 127.0.0.1:8001 --fee 0.05 --token 123 --name default`.
//!
//! Prints one line once it listens and nothing after that. SIGTERM and SIGINT end it at once, with status 0: it holds
//! nothing that outlives it. A bad flag or variable ends it with status 78, anything else that keeps it from serving with
//! status 1, each with one line on stderr.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use galo_simulator::processor::{Config, Faults, Fee, Processor};
use galo_simulator::service::{Service, serve};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

/// Exit status for a bad configuration, EX_CONFIG of sysexits.h.
const EXIT_CONFIGURATION: u8 = 78;

/// Room for so many payments from the start (9 MB once used), so that growing stalls no ordinary run.
const PAYMENTS_LEN: usize = 200_000;

/// A model payment processor with faults on request
#[derive(Parser)]
#[command(name = "processor", version)]
struct Arguments {
    /// Address to listen on
    #[arg(long, env = "PROCESSOR_LISTEN", default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    /// What the processor keeps of each payment, as a fraction
    #[arg(long, env = "PROCESSOR_FEE", default_value = "0.05")]
    fee: Fee,
    /// Opens the paths below /admin/
    #[arg(long, env = "PROCESSOR_TOKEN", default_value = "123", hide_env_values = true)]
    token: String,
    /// How the processor calls itself in its one line
    #[arg(long, env = "PROCESSOR_NAME", default_value = "default")]
    name: String,

    /// Milliseconds that each payment sleeps
    #[arg(long, default_value_t = 0)]
    delay_ms: u32,
    /// Start with the failure switch on
    #[arg(long)]
    failing: bool,
    /// Requests that run at once
    #[arg(long, default_value_t = 800, value_parser = positive)]
    running_max: usize,
    /// Requests that wait for one of those
    #[arg(long, default_value_t = 500)]
    waiting_max: usize,
    /// Length of the health check's window in milliseconds
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    health_window_ms: u32,

    /// Probability of a connection closed with nothing stored
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    close_before_insert: f64,
    /// Probability of a connection closed with the payment stored
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    close_after_insert: f64,
    /// Probability of a hang before anything is stored
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    hang_before_insert: f64,
    /// Probability of a hang with the payment stored
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    hang_after_insert: f64,
    /// Probability of an answer that is no HTTP, with the payment stored
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    garbage: f64,
    /// Probability of a 500 with nothing stored
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    random500: f64,
    /// Probability of a 429 with nothing stored
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    random429: f64,
    /// Milliseconds that a hang lasts
    #[arg(long, default_value_t = Faults::default().hang_ms)]
    hang_ms: u64,
    /// Seed of the faults' dice
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn probability(text: &str) -> Result<f64, &'static str> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or("expected a probability from 0 to 1")
}

fn positive(text: &str) -> Result<usize, &'static str> {
    text.parse::<usize>().ok().filter(|value| *value > 0).ok_or("expected a whole number above 0")
}

impl Arguments {
    fn config(&self) -> Config {
        Config {
            fee: self.fee,
            delay_ms: i64::from(self.delay_ms),
            failing: self.failing,
            running_max: self.running_max,
            waiting_max: self.waiting_max,
            health_window_us: u64::from(self.health_window_ms) * 1000,
            faults: Faults {
                close_before_insert: self.close_before_insert,
                close_after_insert: self.close_after_insert,
                hang_before_insert: self.hang_before_insert,
                hang_after_insert: self.hang_after_insert,
                garbage: self.garbage,
                random500: self.random500,
                random429: self.random429,
                hang_ms: self.hang_ms,
                seed: Some(self.seed),
            },
            payments_len: PAYMENTS_LEN,
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return exit_on_broken_pipe(error.print());
        }
        Err(error) => {
            // clap's first line names the flag, the value and what was wrong; the rest is advice.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            eprintln!("processor: {}", line.trim_start_matches("error: "));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("processor {}: {reason}", arguments.name);
            ExitCode::FAILURE
        }
    }
}

fn exit_on_broken_pipe(printed: io::Result<()>) -> ExitCode {
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start its runtime: {error}"))?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let handler = |error| format!("cannot handle signals: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(handler)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(handler)?;

        let listen = arguments.listen;
        let listener =
            TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("cannot listen on {listen}: {error}"))?;
        let service = Service::new(Processor::new(arguments.config()), arguments.token.clone());
        announce(&format!("processor {}: listening on {address}, fee {}", arguments.name, arguments.fee));

        tokio::select! {
            () = serve(listener, service) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// 800 running and 500 waiting requests need more connections than the usual soft limit of 1024. Where it cannot be raised,
/// callers wait in the listener's backlog instead of being answered 429, which only a test of that limit would notice.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap_or_default();
    }
}

/// Standard output may be closed; serving matters more than saying so.
fn announce(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap_or_default();
}
