//! How many system calls each process makes: counted by the kernel's tracepoints through `perf stat`, in runs of their own.
//!
//! perf counts in the kernel and writes nothing per call, where strace would stop the process twice for each. It still costs some
//! hundred nanoseconds a call, so no latency is taken from these runs. Where perf or tracing is missing (no root, no
//! tracefs) the report says so, and nothing else fails.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::repo::Fallible;
use crate::{tools, up};

const ALL: &str = "raw_syscalls:sys_enter";

/// The calls that are named; the rest is in the sum only.
const NAMES: [&str; 13] = [
    "io_uring_enter",
    "epoll_wait",
    "epoll_pwait",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
    "read",
    "write",
    "writev",
    "epoll_ctl",
    "fdatasync",
    "futex",
];

fn events() -> String {
    let named = NAMES.iter().map(|name| format!("syscalls:sys_enter_{name}"));
    std::iter::once(ALL.to_owned()).chain(named).collect::<Vec<_>>().join(",")
}

/// Why system calls cannot be counted here, if they cannot.
pub(super) fn obstacle() -> Option<String> {
    let Some(perf) = tools::find("perf") else {
        return Some("there is no `perf` on this machine".to_owned());
    };
    let tried =
        Command::new(perf).args(["stat", "-x,", "-e", &events(), "true"]).stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() && !parse(&output.stderr).is_empty() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
            Some(format!("`perf stat` on the system calls' tracepoints failed: {line}"))
        }
        Err(error) => Some(format!("cannot run perf: {error}")),
    }
}

/// One counter for each limited process.
pub(super) struct Counters {
    running: Vec<(String, Child)>,
    duration_ms: Option<u32>,
}

impl Counters {
    /// Counts from now on: for `duration_ms`, or until [`Self::finish`].
    pub(super) fn start(processes: &[up::Process], duration_ms: Option<u32>) -> Fallible<Self> {
        let perf = tools::find("perf").ok_or("perf is gone")?;
        let mut running = Vec::new();
        for process in processes.iter().filter(|process| !process.name.starts_with("processor")) {
            let Some(identity) = &process.identity else { continue };
            let timeout = duration_ms.map(|ms| ["--timeout".to_owned(), ms.to_string()]);
            let child = Command::new(&perf)
                .args(["stat", "-x,", "-e", &events()])
                .args(timeout.iter().flatten())
                .args(["-p", &identity.pid.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|error| format!("cannot run perf: {error}"))?;
            running.push((process.name.clone(), child));
        }
        Ok(Self { running, duration_ms })
    }

    /// Waits for the end of the time, if there is one, and reads.
    pub(super) fn finish(self) -> Fallible<BTreeMap<String, BTreeMap<String, u64>>> {
        let mut found = BTreeMap::new();
        if self.duration_ms.is_none() {
            for (_, child) in &self.running {
                // What perf is told by Ctrl-C: to say what it has counted. It is our child and not waited for yet.
                let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
                kill(Pid::from_raw(pid), Signal::SIGINT).map_err(|error| format!("perf: {error}"))?;
            }
        }
        for (name, child) in self.running {
            let output = child.wait_with_output().map_err(|error| format!("perf: {error}"))?;
            found.insert(name, parse(&output.stderr));
        }
        Ok(found)
    }
}

/// Lines of `count,,event,…`; `<not supported>` instead of a count is no count.
fn parse(csv: &[u8]) -> BTreeMap<String, u64> {
    let text = String::from_utf8_lossy(csv);
    let lines = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let count = fields.first()?.parse().ok()?;
        let event = *fields.get(2)?;
        let name = if event == ALL { "all" } else { event.strip_prefix("syscalls:sys_enter_")? };
        Some((name.to_owned(), count))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perfs_lines_are_counts_by_name() {
        let csv =
            b"1465,,raw_syscalls:sys_enter,201,100.00,,\n7,,syscalls:sys_enter_io_uring_enter,201,100.00,,\n\
                    <not supported>,,syscalls:sys_enter_read,0,0.00,,\n# started\n";
        let expected = [("all".to_owned(), 1465), ("io_uring_enter".to_owned(), 7)];
        assert_eq!(parse(csv), BTreeMap::from(expected));
    }
}
