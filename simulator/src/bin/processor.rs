//! A model payment processor as a program: `processor --listen 127.0.0.1:8001 --fee 0.05 --token 123 --name default`, or a provider's
//! public API: `processor --profile stripe --credential sk_test_1 --notify http://localhost:9999/notifications/stripe`.
//!
//! Prints one line once it listens and nothing after that. SIGTERM and SIGINT end it at once, with status 0: it holds
//! nothing that outlives it. A bad flag or variable ends it with status 78, anything else that keeps it from serving with
//! status 1, each with one line on stderr.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use galo_simulator::processor::{Config, Faults, Fee, Processor, Terms, Which};
use galo_simulator::provider::Dialect;
use galo_simulator::service::{Provider, Service, Tls, TlsError, Webhook, serve};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

/// Exit status for a bad configuration, EX_CONFIG of sysexits.h.
const EXIT_CONFIGURATION: u8 = 78;

/// Room for so many payments from the start (9 MB once used), so that growing stalls no ordinary run.
const PAYMENTS_LEN: usize = 200_000;

/// The profile without a dialect of its own.
const CONTEST: &str = "contest";

/// How the flags that pick payments are written.
const WHICH: &str = "WHICH picks payments by id or amount: none, all, or a list of ends:HEXDIGITS (the id's last digit is one of them),
cents:N, percent:N (always the same ids) and ids, such as ends:07a,cents:66666. docs/processor.md has an example for each profile.";

/// A model payment processor with faults on request: the contest's, or one with a provider's public API
#[derive(Parser)]
#[command(name = "processor", version, after_help = WHICH)]
struct Arguments {
    /// Whose API it speaks: contest, stripe, adyen, mercadopago, pix or localstripe
    #[arg(long, env = "PROCESSOR_PROFILE", default_value = CONTEST, value_parser = profile)]
    profile: &'static str,

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

    /// Serve over TLS with this certificate and its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Callers must show a certificate that one of these vouches for, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_client_ca: Option<PathBuf>,

    /// What callers must show: a bearer token (stripe, localstripe, mercadopago), an API key (adyen), an OAuth2 client's ID:SECRET
    /// (pix, whose tokens come from /oauth/token). Without it anything of that form does (not with contest)
    #[arg(long, env = "PROCESSOR_CREDENTIAL", hide_env_values = true)]
    credential: Option<String>,
    /// Seconds that an OAuth2 token holds (pix)
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..))]
    token_life_s: u32,
    /// URL that is told of each payment that was decided on, such as http://127.0.0.1:9999/notifications/stripe (not with contest)
    #[arg(long, value_name = "URL")]
    notify: Option<Webhook>,
    /// File with the secret that signs notifications (not with contest)
    #[arg(long, value_name = "FILE")]
    notify_secret_file: Option<PathBuf>,

    /// Payments that are refused as malformed, with nothing stored
    #[arg(long, value_name = "WHICH", default_value = "none")]
    refuse: Which,
    /// Payments that are declined for good
    #[arg(long, value_name = "WHICH", default_value = "none")]
    decline: Which,
    /// Payments that are taken and decided on later; with pix all are (not with contest)
    #[arg(long, value_name = "WHICH", default_value = "none")]
    later: Which,
    /// Milliseconds that this takes
    #[arg(long, default_value_t = Terms::default().later_ms)]
    later_ms: u64,
    /// Payments that are stored with a cent more
    #[arg(long, value_name = "WHICH", default_value = "none")]
    other_amount: Which,
    /// Payments of which nobody is told (not with contest)
    #[arg(long, value_name = "WHICH", default_value = "none")]
    lose_notifications: Which,
    /// Seconds that idempotency keys are kept, instead of as long as the provider keeps them (stripe, adyen, mercadopago)
    #[arg(long)]
    keys_s: Option<u64>,
    /// Requests that are taken in one second; the others get 429 and Retry-After
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Milliseconds that each payment sleeps
    #[arg(long, default_value_t = 0)]
    delay_ms: u32,
    /// Start with the failure switch on: 500 from the contest's, 503 from the others
    #[arg(long)]
    failing: bool,
    /// Requests that run at once (contest)
    #[arg(long, default_value_t = 800, value_parser = positive)]
    running_max: usize,
    /// Requests that wait for one of those (contest)
    #[arg(long, default_value_t = 500)]
    waiting_max: usize,
    /// Length of the health check's window in milliseconds (contest)
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

fn profile(name: &str) -> Result<&'static str, String> {
    let names = || std::iter::once(CONTEST).chain(Dialect::ALL.iter().map(|dialect| dialect.name));
    names()
        .find(|known| *known == name)
        .ok_or_else(|| format!("expected one of {}", names().collect::<Vec<_>>().join(", ")))
}

/// Flags that mean something for the contest's processors only, and those that mean nothing for them.
const OF_CONTEST: [&str; 3] = ["running_max", "waiting_max", "health_window_ms"];
const NOT_OF_CONTEST: [&str; 4] = ["credential", "token_life_s", "notify", "notify_secret_file"];

/// The flags and variables, or what is wrong with them: the first line of it names the flag, the value and what was expected.
fn read() -> Result<Arguments, clap::Error> {
    let matches = Arguments::command().try_get_matches()?;
    let arguments = Arguments::from_arg_matches(&matches)?;
    let conflict = |text: String| Arguments::command().error(ErrorKind::ArgumentConflict, text);
    check_flags(&arguments, &matches).map_err(conflict)?;
    Ok(arguments)
}

fn check_flags(arguments: &Arguments, matches: &ArgMatches) -> Result<(), String> {
    let others: &[&str] = if arguments.profile == CONTEST { &NOT_OF_CONTEST } else { &OF_CONTEST };
    let is_given = |flag: &&&str| {
        matches!(matches.value_source(flag), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    match others.iter().find(is_given) {
        Some(flag) => {
            Err(format!("--{} means nothing with --profile {}", flag.replace('_', "-"), arguments.profile))
        }
        None => Ok(()),
    }
}

impl Arguments {
    fn terms(&self) -> Terms {
        Terms {
            refuse: self.refuse.clone(),
            decline: self.decline.clone(),
            later: self.later.clone(),
            later_ms: self.later_ms,
            other_amount: self.other_amount.clone(),
            lose_notifications: self.lose_notifications.clone(),
            keys_s: self.keys_s,
            rate_per_s: self.rate,
        }
    }

    /// Whose API it speaks, unless it is the contest's.
    ///
    /// # Errors
    ///
    /// What is wrong with its flags.
    fn provider(&self, terms: &Terms) -> Result<Option<Provider>, String> {
        let Some(dialect) = Dialect::named(self.profile) else {
            return terms.check_for_contest().map(|()| None).map_err(str::to_owned);
        };
        let mut webhook = self.notify.clone();
        if let Some(path) = &self.notify_secret_file {
            if webhook.is_none() {
                return Err("--notify-secret-file is given without --notify".to_owned());
            }
            let secret = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let secret = secret.strip_suffix(b"\n").unwrap_or(&secret).to_vec();
            webhook = webhook.map(|webhook| webhook.signed(secret));
        }
        let provider = Provider::new(dialect, self.credential.clone(), self.token_life_s, webhook);
        provider.check_terms(terms).map_err(str::to_owned)?;
        Ok(Some(provider))
    }

    fn tls(&self) -> Result<Option<Tls>, TlsError> {
        let Some((certificate, key)) = self.tls_certificate.as_deref().zip(self.tls_key.as_deref()) else {
            return Ok(None);
        };
        Tls::from_files(certificate, key, self.tls_client_ca.as_deref()).map(Some)
    }

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

/// Writes a line on stderr. Where nobody reads it, the exit status says enough.
fn say(line: fmt::Arguments<'_>) {
    writeln!(io::stderr(), "{line}").unwrap_or_default();
}

fn main() -> ExitCode {
    let arguments = match read() {
        Ok(arguments) => arguments,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return exit_on_broken_pipe(error.print());
        }
        Err(error) => {
            // clap's first paragraph names the flag, the value and what was wrong; the rest is advice.
            let text = error.to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            let line = lines.collect::<Vec<_>>().join(" ");
            say(format_args!("processor: {}", line.trim_start_matches("error: ")));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let terms = arguments.terms();
    let provider = match arguments.provider(&terms) {
        Ok(provider) => provider,
        Err(reason) => {
            say(format_args!("processor: {reason}"));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let tls = match arguments.tls() {
        Ok(tls) => tls,
        Err(error) => {
            say(format_args!("processor: {error}"));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    match run(&arguments, terms, provider, tls) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            say(format_args!("processor {}: {reason}", arguments.name));
            ExitCode::FAILURE
        }
    }
}

fn exit_on_broken_pipe(printed: io::Result<()>) -> ExitCode {
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(
    arguments: &Arguments,
    terms: Terms,
    provider: Option<Provider>,
    tls: Option<Tls>,
) -> Result<(), String> {
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
        let model = Processor::new(arguments.config());
        let service = Service::with(model, arguments.token.clone(), terms, provider);
        announce(&format!("processor {}: listening on {address}, fee {}", arguments.name, arguments.fee));

        tokio::select! {
            ended = serve(listener, service, tls) => ended.map_err(|error| format!("cannot move: {error}")),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
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
