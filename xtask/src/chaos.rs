//! `cargo xtask chaos`: a Galo of its own, tormented and then judged by `galo-chaos`.
//!
//! Starts `up --detach` in a home of its own, on ports of its own, with empty books; runs the `chaos` program against
//! it, which gets all flags that this command does not know itself; with `--contest` plays the contest against the processes
//! that came through; stops everything whatever came out. The logs stay in the home until the next run. Must never touch a
//! Galo in another home, nor keep a journal of an earlier run: its payments would be phantoms.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, CommandFactory, Parser};

use crate::out::outln;
use crate::process::Identity;
use crate::repo::{self, Fallible};
use crate::{cargo, rinha, table, tools, up};

/// The gateways' hard timeout of one attempt, unless the environment says otherwise: well below the processors' hangs, so
/// that a hang leaves a payment in doubt within the run.
const ATTEMPT_TIMEOUT: (&str, &str) = ("ATTEMPT_TIMEOUT_MS", "3000");
/// With the contest behind it, whose slowest answer takes 5 s; and hangs that are longer.
const ATTEMPT_TIMEOUT_OF_CONTEST: (&str, &str) = ("ATTEMPT_TIMEOUT_MS", "7000");
const HANG_OF_CONTEST: [&str; 2] = ["--hang-ms", "9000"];
/// A machine that others use has bad minutes; what came of each run is printed.
const CONTEST_RUNS: u32 = 3;

/// How to run everything at once, for long.
pub(crate) const HOUR: &str = "\
An hour of everything, with bounds that its first minutes reach, each target spared for twenty, and the contest behind it:
  KNOWN_LEN_MAX=200000 BUCKET_BYTES_MAX=4194304 cargo xtask chaos --seconds 3600 --rate 300 --duplicates 0.2 \
--kill-every-ms 5000 --connections-max 256 --any-speed --spare-in-turn --contest";

/// All flags, in any order: this command's and those of the `chaos` program.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// --limits, --profile fast, --no-build, --contest, --port-base 18700, --home .galo/chaos; then what is done to it: --seconds 60
    /// --rate 1000 --kill-every-ms 2000 --targets gateway,aggregator,haproxy --duplicates 0.1 --lost-answers 0.02 --hangs 0.01
    /// --seed N and more (`cargo xtask chaos -- --help` explains all)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Where it runs.
#[derive(Clone, Debug, Parser)]
#[command(bin_name = "cargo xtask chaos", after_help = HOUR)]
struct Place {
    /// Put each process under the compose file's CPU and memory limits (needs root)
    #[arg(long)]
    limits: bool,
    /// The cargo profile to build with
    #[arg(long, value_enum, default_value = "fast")]
    profile: up::Profile,
    /// Take the programs as they were built last
    #[arg(long)]
    no_build: bool,
    /// Afterwards, with all faults taken back, play the contest's run three times against the very processes that came through
    #[arg(long)]
    contest: bool,
    /// First of the four ports that are used
    #[arg(long, default_value_t = 18_700)]
    port_base: u16,
    /// Folder for sockets, state, journal and logs
    #[arg(long, default_value = ".galo/chaos")]
    home: PathBuf,
}

/// Tells this command's flags from the program's, which only the program knows.
fn split(flags: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut flags = flags.iter().filter(|flag| *flag != "--").cloned();
    while let Some(flag) = flags.next() {
        match flag.split('=').next().unwrap_or_default() {
            "--limits" | "--no-build" | "--contest" => ours.push(flag),
            "--profile" | "--port-base" | "--home" => {
                let has_value = flag.contains('=');
                ours.push(flag);
                ours.extend(if has_value { None } else { flags.next() });
            }
            _ => theirs.push(flag),
        }
    }
    (ours, theirs)
}

/// `cargo xtask chaos`.
///
/// # Errors
///
/// When it cannot be run, or a check fails.
pub(crate) fn chaos(options: &Options) -> Fallible<()> {
    let (ours, mut plan) = split(&options.flags);
    let options = Place::try_parse_from(std::iter::once("chaos".to_owned()).chain(ours))
        .map_err(|error| error.to_string())?;
    let program = repo::program_folder(options.profile.name()).join("chaos");
    if !options.no_build {
        cargo::build(options.profile.name(), &["galo-chaos"])?;
    }
    if plan.iter().any(|flag| flag == "--help" || flag == "-h") {
        drop(Place::command().print_help());
        return cargo::run(Command::new(&program).arg("--help"), "chaos --help");
    }
    let up = up::Options {
        processors: up::Processors::Simulated,
        limits: options.limits,
        profile: options.profile,
        no_build: options.no_build,
        port: options.port_base,
        stats_port: options.port_base + 1,
        default_port: options.port_base + 2,
        fallback_port: options.port_base + 3,
        purge: false,
        fees: None,
        home: options.home.clone(),
        floor: false,
    };
    if up::running(&up.home)?.is_some() {
        return Err(format!("a Galo runs in {} already; stop it first", up.home().path().display()));
    }
    for folder in [up.home().run(), up.home().journal()] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("cannot empty {}: {error}", folder.display()));
            }
            _ => {}
        }
    }
    let mut timeout = ATTEMPT_TIMEOUT;
    if options.contest {
        // Fetched now if it has to be, and not at the end of an hour.
        tools::k6()?;
        timeout = ATTEMPT_TIMEOUT_OF_CONTEST;
        if !plan.iter().any(|flag| flag.starts_with(HANG_OF_CONTEST[0])) {
            plan.extend(HANG_OF_CONTEST.map(str::to_owned));
        }
    }
    start(&up, timeout)?;
    let address = |port: u16| format!("127.0.0.1:{port}");
    let result = cargo::run(
        Command::new(&program)
            .args(["--api", &address(up.port), "--stats", &address(up.stats_port)])
            .args(["--default", &address(up.default_port), "--fallback", &address(up.fallback_port)])
            .arg("--run")
            .arg(up.home().run())
            .arg("--trace")
            .arg(up.home().path().join("logs"))
            .args(&plan),
        "chaos",
    );
    // Whatever came out of that.
    let played = if options.contest { contest(&up) } else { Ok(()) };
    let stopped = up::down(&up.home);
    outln!("logs {}", up.home().path().join("logs").display());
    result.and(played).and(stopped)
}

/// The contest's run against the processes that run, which must be the same ones at its end.
fn contest(up: &up::Options) -> Fallible<()> {
    let before = processes(up)?;
    let result = rinha::play(up, CONTEST_RUNS);
    let after = processes(up)?;
    let mut rows = vec![
        ["process", "pid", "started, ticks since boot", "after the contest"].map(str::to_owned).to_vec(),
    ];
    for ((name, identity), now) in before.iter().zip(after.iter().map(Some).chain(std::iter::repeat(None))) {
        let is_same = now.is_some_and(|now| *now == (name.clone(), identity.clone()));
        let verdict = if is_same { "the same" } else { "ANOTHER" };
        rows.push(vec![
            name.clone(),
            identity.pid.to_string(),
            identity.start_ticks.to_string(),
            verdict.to_owned(),
        ]);
    }
    outln!("{}", table::aligned(&rows));
    let same = if before == after { Ok(()) } else { Err("a process died in the contest's run".to_owned()) };
    result.and(same)
}

/// Each process by name, pid and start; all have to live.
fn processes(up: &up::Options) -> Fallible<Vec<(String, Identity)>> {
    let state = up::running(&up.home)?.ok_or("Galo runs no more")?;
    let living = state.processes.into_iter().map(|process| {
        let identity = process.identity.filter(Identity::is_alive);
        identity
            .map(|identity| (process.name.clone(), identity))
            .ok_or_else(|| format!("{} is dead", process.name))
    });
    living.collect()
}

/// `up --detach`, as a process of its own, since Galo's variables go through the environment of whoever starts it.
fn start(up: &up::Options, timeout: (&str, &str)) -> Fallible<()> {
    let myself = std::env::current_exe().map_err(|error| format!("cannot find my own program: {error}"))?;
    let mut command = Command::new(myself);
    command.args(["up", "--detach", "--profile", up.profile.name()]);
    for (flag, port) in [
        ("--port", up.port),
        ("--stats-port", up.stats_port),
        ("--default-port", up.default_port),
        ("--fallback-port", up.fallback_port),
    ] {
        command.arg(flag).arg(port.to_string());
    }
    command.arg("--home").arg(&up.home);
    if up.limits {
        command.arg("--limits");
    }
    if up.no_build {
        command.arg("--no-build");
    }
    if std::env::var_os(timeout.0).is_none() {
        command.env(timeout.0, timeout.1);
    }
    cargo::run(&mut command, "up --detach")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_find_their_owner_in_any_order() {
        let flags = "--seconds 5 --limits --contest --home x --kill-every-ms 0 --profile=dev -- --seed 7";
        let flags: Vec<String> = flags.split(' ').map(str::to_owned).collect();
        let (ours, theirs) = split(&flags);
        assert_eq!(ours.join(" "), "--limits --contest --home x --profile=dev");
        assert_eq!(theirs.join(" "), "--seconds 5 --kill-every-ms 0 --seed 7");
        Place::command().debug_assert();
    }
}
