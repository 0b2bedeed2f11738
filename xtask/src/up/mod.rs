//! `cargo xtask up`: a whole Galo of plain processes, supervised.
//!
//! Builds, checks what can be checked before anything starts (tools, ports, limits), then supervises until a signal comes:
//! in this process, or with `--detach` in a copy of it with its own session. `down` and `status` talk to the supervisor through its
//! state file and signals only.
//!
//! Must never start a second Galo in a home where one runs, nor leave processes behind without a supervisor: children
//! carry a parent-death signal, and the next command that meets a dead supervisor's state ends what is left of it.

mod child;
mod console;
mod control;
mod fees;
mod restart;
mod service;
mod state;
mod supervisor;
mod watch;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cargo;
use crate::http::Origin;
use crate::out::outln;
use crate::process;
use crate::repo::{self, Fallible, Home};

pub(crate) use control::{down, print_status, stop};
pub(crate) use fees::Fees;
pub(crate) use state::{Process, State};
pub(crate) use watch::{grouped, open_count};

/// How long `--detach` waits for the first answer: a start takes well under a second, unless memory or CPU is very tight.
const READY_WAIT: Duration = Duration::from_secs(30);

/// What is started, and where.
#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[group(id = "up")]
pub(crate) struct Options {
    /// Which payment processors to use: ours, started beside Galo, or ones that run already (on the processors' ports, or
    /// where PROCESSOR_DEFAULT_URL and PROCESSOR_FALLBACK_URL say)
    #[arg(long, value_enum, default_value = "simulated")]
    pub(crate) processors: Processors,
    /// Put each process under the compose file's CPU and memory limits (cgroups v1 or v2; needs root)
    #[arg(long)]
    pub(crate) limits: bool,
    /// The cargo profile to build with
    #[arg(long, value_enum, default_value = "release")]
    pub(crate) profile: Profile,
    /// Take the programs as they were built last
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Port of the API
    #[arg(long, default_value_t = 9999)]
    pub(crate) port: u16,
    /// Port of HAProxy's stats page and of all metrics
    #[arg(long, default_value_t = 8404)]
    pub(crate) stats_port: u16,
    /// Port of the default processor
    #[arg(long, default_value_t = 8001)]
    pub(crate) default_port: u16,
    /// Port of the fallback processor
    #[arg(long, default_value_t = 8002)]
    pub(crate) fallback_port: u16,
    /// Allow POST /purge-payments with external processors too (it is allowed with simulated ones)
    #[arg(long)]
    pub(crate) purge: bool,
    /// What default and fallback keep, in basis points, for gateways and simulated processors (without it 500,1500; with external
    /// processors, what the environment says)
    #[arg(long, value_name = "DEFAULT,FALLBACK")]
    pub(crate) fees: Option<Fees>,
    /// Folder for sockets, state and logs
    #[arg(long, default_value = ".galo")]
    pub(crate) home: PathBuf,
    /// Start what Galo is compared with instead: the same HAProxy before a responder that reads nothing
    #[arg(long, hide = true)]
    #[serde(default)]
    pub(crate) floor: bool,
}

/// Where the payment processors come from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum Processors {
    /// `galo-simulator`'s model, started and stopped with Galo.
    Simulated,
    /// Somebody else's: expected to run.
    External,
}

/// Cargo's profiles, as the root Cargo.toml has them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum Profile {
    /// Fat LTO: what is measured and shipped.
    Release,
    /// Optimised, quick to link.
    Fast,
    /// Quick to compile.
    Dev,
}

impl Profile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Fast => "fast",
            Self::Dev => "dev",
        }
    }
}

impl Options {
    pub(crate) fn home(&self) -> Home {
        Home::new(&self.home)
    }

    pub(crate) fn api(&self) -> Origin {
        Origin::local(self.port)
    }

    pub(crate) fn stats(&self) -> Origin {
        Origin::local(self.stats_port)
    }

    pub(crate) fn processor_url(&self, processor: &str) -> String {
        let (port, variable) = match processor {
            "default" => (self.default_port, "PROCESSOR_DEFAULT_URL"),
            _ => (self.fallback_port, "PROCESSOR_FALLBACK_URL"),
        };
        let local = format!("http://127.0.0.1:{port}");
        match self.processors {
            Processors::Simulated => local,
            Processors::External => std::env::var(variable).unwrap_or(local),
        }
    }

    /// The ports that its processes listen on, and what each is for.
    fn ports(&self) -> Vec<(u16, &'static str)> {
        let mut ports = vec![(self.port, "API, --port"), (self.stats_port, "stats, --stats-port")];
        if self.processors == Processors::Simulated {
            ports.extend([
                (self.default_port, "processor default, --default-port"),
                (self.fallback_port, "processor fallback, --fallback-port"),
            ]);
        }
        ports
    }

    /// The addresses, and a request to try.
    pub(crate) fn greeting(&self) -> String {
        let port = self.port;
        let stats = self.stats_port;
        format!(
            "API      http://localhost:{port}\n\
             stats    http://localhost:{stats}/stats\n\
             metrics  http://localhost:{stats}/metrics/gateway-1, /metrics/gateway-2, /metrics/aggregator\n\
             default  {}\n\
             fallback {}\n\
             logs     {}\n\
             try      curl -i localhost:{port}/payments -H 'Content-Type: application/json' -d '{{\"correlationId\":\"{}\",\"amount\":19.90}}'\n\
             then     curl localhost:{port}/payments-summary",
            self.processor_url("default"),
            self.processor_url("fallback"),
            self.home().path().join("logs").display(),
            random_uuid(),
        )
    }
}

/// A fresh UUID from the kernel.
pub(crate) fn random_uuid() -> String {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    uuid.trim().to_owned()
}

/// `cargo xtask up`.
pub(crate) fn up(options: &Options, detach: bool) -> Fallible<()> {
    if detach {
        start_detached(options, &[])?;
        outln!(
            "Galo runs in the background; `cargo xtask status` lists it, `cargo xtask down` stops it\n{}",
            options.greeting()
        );
        return Ok(());
    }
    prepare(options)?;
    supervisor::run(options)
}

/// The hidden command that `--detach` starts in the background.
pub(crate) fn supervise(options_json: &str) -> Fallible<()> {
    let options: Options =
        serde_json::from_str(options_json).map_err(|error| format!("bad options: {error}"))?;
    supervisor::run(&options)
}

/// Starts a supervisor in a session of its own and waits until the API answers. Its processes inherit its variables, and
/// `variables` on top.
pub(crate) fn start_detached(options: &Options, variables: &[(&str, &str)]) -> Fallible<()> {
    prepare(options)?;
    let home = options.home();
    home.create()?;
    let log_path = home.log("up");
    let log =
        File::create(&log_path).map_err(|error| format!("cannot create {}: {error}", log_path.display()))?;
    let json = serde_json::to_string(options).map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| format!("cannot find my own program: {error}"))?;
    let mut command = Command::new(program);
    command
        .arg("supervise")
        .arg(json)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(|error| error.to_string())?)
        .stderr(log);
    // SAFETY: setsid is async-signal-safe, and the closure touches no memory of the parent.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
    let mut child = command.spawn().map_err(|error| format!("cannot start the supervisor: {error}"))?;
    match wait_until_ready(options, &mut child) {
        Ok(()) => Ok(()),
        Err(error) => {
            let tail = repo::tail(&log_path, 8).join("\n  ");
            drop(down(&options.home));
            Err(format!("{error}; {} ends with\n  {tail}", log_path.display()))
        }
    }
}

fn wait_until_ready(options: &Options, supervisor: &mut Child) -> Fallible<()> {
    let deadline = Instant::now() + READY_WAIT;
    loop {
        if answers(options) {
            return Ok(());
        }
        if let Ok(Some(status)) = supervisor.try_wait() {
            return Err(format!("Galo did not start (the supervisor ended with {status})"));
        }
        if Instant::now() > deadline {
            return Err(format!(
                "GET /payments-summary on port {} did not answer within {} s",
                options.port,
                READY_WAIT.as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the whole way through HAProxy, a gateway and the aggregator answers.
pub(crate) fn answers(options: &Options) -> bool {
    options.api().get("/payments-summary", Duration::from_secs(1)).is_ok_and(|answer| answer.status == 200)
}

/// Everything that can fail before the first process starts, so that it fails with one line and nothing to clean up.
fn prepare(options: &Options) -> Fallible<()> {
    let home = options.home();
    if let Some(running) = State::read_and_clean(&home)? {
        return Err(format!(
            "Galo runs already (supervisor pid {}); it is left alone. `cargo xtask down` stops it\n{}",
            running.supervisor.pid,
            running.options.greeting()
        ));
    }
    if !options.no_build {
        build(options)?;
    }
    service::check_programs(options)?;
    for (port, purpose) in options.ports() {
        process::check_port_free(port, purpose)?;
    }
    Ok(())
}

/// Builds the programs that `up` starts.
pub(crate) fn build(options: &Options) -> Fallible<()> {
    cargo::build(options.profile.name(), if options.floor { &["galo-bench"] } else { &[] })
}

/// The compose file, whose limits `--limits` takes over.
pub(crate) fn compose_file() -> PathBuf {
    repo::root().join("docker-compose.yml")
}

/// The state of the Galo at `home`, if one runs.
pub(crate) fn running(home: &Path) -> Fallible<Option<State>> {
    State::read_and_clean(&Home::new(home))
}
