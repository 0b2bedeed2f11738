//! How long each program takes from its start to its first answer.
//!
//! Measured five times, the median counts: a single start competes with whatever else the machine does. The goal is what a
//! restart under load must not exceed to stay unnoticed behind HAProxy's retries.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Options, Report, Running, program, wait_for};
use crate::http::Origin;
use crate::process::Identity;
use crate::repo::{Fallible, Home};

const GOAL: Duration = Duration::from_millis(100);
const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(5);

/// Starts and ends each program a few times.
pub(crate) fn check(report: &mut Report, options: &Options, home: &Home) {
    let sockets = [
        ("AGGREGATOR_SOCKET", home.socket("cold")),
        ("AGGREGATOR_HTTP_SOCKET", home.socket("cold-http")),
        ("GATEWAY_SOCKET", home.socket("cold-gateway")),
        ("JOURNAL_DIR", home.journal()),
    ];
    let prepared = |name: &str| {
        let mut command = Command::new(program(options.profile, name));
        command.envs(sockets.iter().map(|(variable, path)| (*variable, path)));
        // Nobody needs to listen there: readiness is the aggregator's connection, not the processors'.
        command
            .env("PROCESSOR_DEFAULT_URL", "http://127.0.0.1:9")
            .env("PROCESSOR_FALLBACK_URL", "http://127.0.0.1:9");
        command
    };
    report.check("cold start of galo-aggregator", || {
        median(|| {
            start(
                &mut prepared("galo-aggregator"),
                &Origin::Unix(home.socket("cold-http")),
                "/ready",
                &home.log("cold"),
            )
        })
    });
    report.check("cold start of galo-gateway", || {
        let mut aggregator = Running::start(&mut prepared("galo-aggregator"), &home.log("cold-aggregator"))?;
        let ready = Origin::Unix(home.socket("cold-http"));
        wait_for("galo-aggregator's /ready", LIMIT, || answers(&ready, "/ready").then_some(()))?;
        let result = median(|| {
            start(
                &mut prepared("galo-gateway"),
                &Origin::Unix(home.socket("cold-gateway")),
                "/ready",
                &home.log("cold"),
            )
        });
        end(&mut aggregator)?;
        result
    });
    report.check("cold start of processor", || {
        let port = options.port_base + 2;
        let mut command = Command::new(program(options.profile, "processor"));
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        median(|| start(&mut command, &Origin::local(port), "/payments/service-health", &home.log("cold")))
    });
}

fn answers(origin: &Origin, path: &str) -> bool {
    origin.get(path, LIMIT).is_ok_and(|answer| answer.status == 200)
}

/// The time from the start to the first 200; the process is ended with SIGTERM afterwards, which it has to obey.
fn start(command: &mut Command, origin: &Origin, path: &str, log: &Path) -> Fallible<Duration> {
    let started = Instant::now();
    let mut running = Running::start(command, log)?;
    wait_for(path, LIMIT, || answers(origin, path).then_some(())).map_err(|error| {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        format!("{error}; it said: {said}")
    })?;
    let took = started.elapsed();
    end(&mut running)?;
    Ok(took)
}

fn end(running: &mut Running) -> Fallible<()> {
    let pid = i32::try_from(running.child.id()).map_err(|error| error.to_string())?;
    Identity::of(pid).map(|identity| identity.signal(Signal::SIGTERM));
    let status = running.wait(LIMIT).ok_or("SIGTERM does not end it")?;
    if status.success() { Ok(()) } else { Err(format!("after SIGTERM: {status}")) }
}

fn median(mut measure: impl FnMut() -> Fallible<Duration>) -> Fallible<String> {
    let mut times = (0..ROUNDS).map(|_| measure()).collect::<Fallible<Vec<Duration>>>()?;
    times.sort();
    let middle = times[ROUNDS / 2];
    let seen = format!("{middle:.1?} (median of {ROUNDS}; {:.1?} to {:.1?})", times[0], times[ROUNDS - 1]);
    if middle <= GOAL { Ok(seen) } else { Err(format!("{seen}, above the goal of {GOAL:?}")) }
}
