//! Configuration mistakes: each must end start-up within a second, with one line on stderr that names the variable (or the
//! path) and what is wrong with it.
//!
//! A mistake that a program swallows shows as a process that goes on living; one that it explains in three lines, or in a
//! panic, fails too.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Report, Running, program};
use crate::repo::{Fallible, Home};
use crate::up::Profile;

/// The time that start-up may take to say no.
const LIMIT: Duration = Duration::from_secs(1);
/// EX_CONFIG of sysexits.h.
const CONFIGURATION_STATUS: i32 = 78;
/// EX_OSERR, or the plain one: the configuration is well formed, but what surrounds the process does not fit it.
const ENVIRONMENT_STATUSES: [i32; 3] = [71, 1, 74];

/// A program, the variable set wrong, the value, and whether the status must be 78 (where the environment does not fit, others may do).
const MISTAKES: [(&str, &str, &str, bool); 22] = [
    ("galo-gateway", "GATEWAY_INSTANCE", "0", true),
    ("galo-gateway", "GATEWAY_THREADS", "many", true),
    ("galo-gateway", "GATEWAY_DRIVER", "kqueue", true),
    ("galo-gateway", "GATEWAY_SOCKET", "/nonexistent/gateway.sock", false),
    ("galo-gateway", "AGGREGATOR_SOCKET", "/nonexistent/aggregator.sock", false),
    ("galo-gateway", "PROCESSOR_DEFAULT_URL", "ftp://localhost:8001", true),
    ("galo-gateway", "PROCESSOR_FALLBACK_URL", "localhost", true),
    ("galo-gateway", "PROCESSOR_DEFAULT_FEE_BPS", "5%", true),
    ("galo-gateway", "PROCESSOR_CONCURRENCY_MAX", "0", true),
    ("galo-gateway", "ATTEMPT_TIMEOUT_MS", "-1", true),
    ("galo-gateway", "QUEUE_LEN_MAX", "1e6", true),
    ("galo-gateway", "PURGE_ALLOWED", "perhaps", true),
    ("galo-aggregator", "AGGREGATOR_SOCKET", "/nonexistent/aggregator.sock", false),
    ("galo-aggregator", "AGGREGATOR_HTTP_SOCKET", "/nonexistent/http.sock", false),
    ("galo-aggregator", "HEALTH_INTERVAL_MS", "soon", true),
    ("galo-aggregator", "OPEN_LEN_MAX", "0", true),
    ("galo-aggregator", "KNOWN_LEN_MAX", "99999999999999999999", true),
    ("galo-aggregator", "BUCKET_BYTES_MAX", "32MB", true),
    ("galo-aggregator", "JOURNAL_DIR", "/proc/journal", false),
    ("galo-aggregator", "JOURNAL_SYNC", "sometimes", true),
    ("galo-aggregator", "SEGMENT_BYTES", "16MB", true),
    ("galo-aggregator", "SNAPSHOT_EVERY_BYTES", "often", true),
];

/// Makes every mistake once.
pub(crate) fn check(report: &mut Report, profile: Profile, home: &Home) {
    for (name, variable, value, strictly) in MISTAKES {
        report.check(&format!("{name} with {variable}={value}"), || {
            let mut command = Command::new(program(profile, name));
            for (socket_variable, socket) in [
                ("GATEWAY_SOCKET", "mistake-gateway"),
                ("AGGREGATOR_SOCKET", "mistake"),
                ("AGGREGATOR_HTTP_SOCKET", "mistake-http"),
            ] {
                command.env(socket_variable, home.socket(socket));
            }
            command
                .env("PROCESSOR_DEFAULT_URL", "http://127.0.0.1:9")
                .env("PROCESSOR_FALLBACK_URL", "http://127.0.0.1:9")
                .env("JOURNAL_DIR", home.journal())
                .env(variable, value);
            refuses(&mut command, &[variable, value], strictly, &home.log("mistake"))
        });
    }
    report.check("processor with a taken port", || {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let mut command = Command::new(program(profile, "processor"));
        command.args(["--listen", &address.to_string()]);
        refuses(&mut command, &[&address.port().to_string()], false, &home.log("mistake"))
    });
}

fn refuses(command: &mut Command, blamed: &[&str], strictly: bool, log: &Path) -> Fallible<String> {
    let started = Instant::now();
    let mut running = Running::start(command, log)?;
    let status = running.wait(LIMIT).ok_or("still running after a second")?;
    let took = started.elapsed();
    let said = std::fs::read_to_string(log).map_err(|error| error.to_string())?;
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let [line] = lines[..] else {
        return Err(format!("{} lines instead of one ({status}):\n{said}", lines.len()));
    };
    if let Some(missing) = blamed.iter().find(|word| !line.contains(**word)) {
        return Err(format!("does not name {missing}: {line}"));
    }
    let fits = match status.code() {
        Some(CONFIGURATION_STATUS) => true,
        Some(status) if ENVIRONMENT_STATUSES.contains(&status) => !strictly,
        _ => false,
    };
    if !fits {
        return Err(format!("{status} is the wrong status, after: {line}"));
    }
    Ok(format!("{} ms, \"{line}\"", took.as_millis()))
}
