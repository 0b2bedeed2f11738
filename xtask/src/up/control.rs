//! `cargo xtask down` and `cargo xtask status`: what another terminal can do about a running Galo.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::State;
use super::watch::grouped;
use crate::limits::Cgroup;
use crate::out::{out, outln};
use crate::repo::{Fallible, Home};

/// The sum of what the supervisor may wait for, with some air.
const STOP_WAIT: Duration = Duration::from_secs(45);

/// Stops the Galo of this home and waits for its drain.
///
/// # Errors
///
/// When none runs, or it does not end.
pub(crate) fn down(home: &Path) -> Fallible<()> {
    outln!("{}", stop(home)?);
    Ok(())
}

/// Likewise; returns what there is to say about it.
pub(crate) fn stop(home: &Path) -> Fallible<String> {
    let home = Home::new(home);
    let state =
        State::read_and_clean(&home)?.ok_or_else(|| format!("no Galo runs in {}", home.path().display()))?;
    if !state.supervisor.signal(Signal::SIGTERM) {
        return Err(format!(
            "cannot signal the supervisor (pid {}): does it belong to another user?",
            state.supervisor.pid
        ));
    }
    if !state.supervisor.wait_for_end(STOP_WAIT) {
        return Err(format!(
            "the supervisor (pid {}) did not end within {} s",
            state.supervisor.pid,
            STOP_WAIT.as_secs()
        ));
    }
    Ok(fs::read_to_string(home.farewell_file()).unwrap_or_else(|_| "stopped".to_owned()))
}

/// Prints one line for each process.
///
/// # Errors
///
/// When none runs.
pub(crate) fn print_status(home: &Path) -> Fallible<()> {
    let home = Home::new(home);
    let state =
        State::read_and_clean(&home)?.ok_or_else(|| format!("no Galo runs in {}", home.path().display()))?;
    let with_limits = state.processes.iter().any(|process| !process.cgroup.is_empty());
    out!("{:<19} {:>8} {:>9} {:>8} {:>9} {:>17}", "process", "pid", "uptime", "restarts", "memory", "CPU");
    outln!("{}", if with_limits { "   throttled periods   memory peak" } else { "" });
    for process in &state.processes {
        let name = &process.name;
        let Some((identity, sample)) =
            process.identity.as_ref().and_then(|identity| Some((identity, identity.sample()?)))
        else {
            outln!("{name:<19} {:>8}", "restarting");
            continue;
        };
        let age = sample.age().unwrap_or_default();
        let cpu = sample.cpu_time();
        let percent = cpu.as_millis() * 100 / age.as_millis().max(1);
        out!(
            "{name:<19} {:>8} {:>9} {:>8} {:>9} {:>17}",
            identity.pid,
            duration(age),
            process.restart_count,
            identity.rss_bytes().map_or_else(|| "–".to_owned(), mebibytes),
            format!("{:.2} s ({percent} %)", cpu.as_secs_f64()),
        );
        if process.cgroup.is_empty() {
            outln!();
        } else {
            let usage = Cgroup::at(process.cgroup.clone()).usage();
            let throttled = format!("{} of {}", grouped(usage.throttled_count), grouped(usage.period_count));
            outln!(" {throttled:>19} {:>13}", mebibytes(usage.memory_bytes_max));
        }
    }
    Ok(())
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3600, seconds / 60 % 60),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & ((1 << 20) - 1)) * 10) >> 20)
}
