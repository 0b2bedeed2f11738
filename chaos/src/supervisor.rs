//! The supervisor's state file: which process of this Galo is which, now.
//!
//! `cargo xtask up` rewrites it at each restart. A process is its pid *and* its start time: a pid alone may be somebody
//! else's by now, and this program sends SIGKILL.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

/// One process, told apart from a later one with the same pid.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    start_ticks: u64,
}

/// One supervised process.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    /// `None` between a death and the restart.
    pub(crate) identity: Option<Identity>,
    pub(crate) restart_count: u64,
}

#[derive(Debug, Deserialize)]
struct State {
    processes: Vec<Process>,
}

/// Reads the state file of one Galo.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    state_file: PathBuf,
}

impl Supervisor {
    pub(crate) fn new(state_file: PathBuf) -> Self {
        Self { state_file }
    }

    pub(crate) fn processes(&self) -> Result<Vec<Process>, String> {
        let path: &Path = &self.state_file;
        let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let state: State =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(state.processes)
    }

    pub(crate) fn identity(&self, name: &str) -> Option<Identity> {
        self.processes().ok()?.into_iter().find(|process| process.name == name)?.identity
    }
}

impl Identity {
    /// SIGKILL, if this very process still runs; says whether it did.
    pub(crate) fn kill(self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
            && kill(Pid::from_raw(self.pid), Signal::SIGKILL).is_ok()
    }

    /// Resident memory now, and the most that it ever was, if this very process still runs.
    pub(crate) fn rss_kib(self) -> Option<(u64, u64)> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let field = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        let read = (field("VmRSS:")?, field("VmHWM:")?);
        // Looked at afterwards, so that it is not another one's memory that was read.
        (start_ticks(self.pid) == Some(self.start_ticks)).then_some(read)
    }

    /// An identity that no process has.
    #[cfg(test)]
    pub(crate) fn test(pid: i32) -> Self {
        Self { pid, start_ticks: 0 }
    }
}

/// Field 22 of proc_pid_stat(5). The command before it stands in parentheses and may hold anything.
fn start_ticks(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, tail) = text.rsplit_once(')')?;
    tail.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_the_very_process_is_killed() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start_ticks = start_ticks(pid).unwrap();
        assert!(!Identity { pid, start_ticks: start_ticks + 1 }.kill());
        assert!(child.try_wait().unwrap().is_none(), "another process with that pid is left alone");
        assert_eq!(Identity { pid, start_ticks: start_ticks + 1 }.rss_kib(), None, "nor is its memory read");
        let (rss_kib, rss_kib_max) = Identity { pid, start_ticks }.rss_kib().unwrap();
        assert!(0 < rss_kib && rss_kib <= rss_kib_max, "{rss_kib} of {rss_kib_max}");
        assert!(Identity { pid, start_ticks }.kill());
        assert!(!child.wait().unwrap().success());
        assert!(!Identity { pid, start_ticks }.kill());
    }
}
