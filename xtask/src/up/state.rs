//! The state file of a running Galo: what runs, as which processes, under which limits.
//!
//! Written by the supervisor alone, in one step at each change, and read by `status`, `down` and a second `up`. A
//! supervisor killed by SIGKILL leaves its file behind: whoever reads it next sees that the pid with that start time is gone, ends
//! what is left of the children (by pid and start time, never by name), removes their cgroups and the file.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::Options;
use crate::limits::Cgroup;
use crate::out::errln;
use crate::process::Identity;
use crate::repo::{self, Fallible, Home};

/// A child of a dead supervisor has had its SIGTERM from the kernel already; a gateway's drain takes up to 8 s.
const ORPHAN_WAIT: Duration = Duration::from_secs(10);

/// What `.galo/run/state.json` holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct State {
    pub(crate) supervisor: Identity,
    pub(crate) options: Options,
    pub(crate) processes: Vec<Process>,
}

/// One supervised process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    /// `None` between a death and the restart.
    pub(crate) identity: Option<Identity>,
    pub(crate) restart_count: u64,
    /// The cgroup's folders; empty without limits.
    pub(crate) cgroup: Vec<PathBuf>,
}

impl State {
    pub(crate) fn write(&self, home: &Home) -> Fallible<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|error| error.to_string())?;
        repo::write_atomically(&home.state_file(), &json)
    }

    /// The state, if its supervisor runs; the remains of a dead one are cleaned up first.
    pub(crate) fn read_and_clean(home: &Home) -> Fallible<Option<Self>> {
        let path = home.state_file();
        let Ok(text) = fs::read(&path) else { return Ok(None) };
        let state: Self = match serde_json::from_slice(&text) {
            Ok(state) => state,
            // Another version of this command wrote it; its supervisor holds the lock if it still runs.
            Err(error) => {
                return Err(format!(
                    "{} is not of this version ({error}): stop that Galo and remove the file",
                    path.display()
                ));
            }
        };
        if state.supervisor.is_alive() {
            return Ok(Some(state));
        }
        state.clean(home)?;
        Ok(None)
    }

    fn clean(&self, home: &Home) -> Fallible<()> {
        errln!(
            "the supervisor of the last Galo (pid {}) died without stopping it; cleaning up",
            self.supervisor.pid
        );
        let left: Vec<_> = self
            .processes
            .iter()
            .filter_map(|process| Some((&process.name, process.identity.as_ref()?)))
            .collect();
        for (name, identity) in &left {
            if identity.signal(Signal::SIGTERM) {
                errln!("ending {name} (pid {})", identity.pid);
            }
        }
        for (name, identity) in &left {
            if !identity.wait_for_end(ORPHAN_WAIT) {
                errln!("{name} (pid {}) does not end by itself; killing it", identity.pid);
                identity.signal(Signal::SIGKILL);
                identity.wait_for_end(ORPHAN_WAIT);
            }
        }
        for process in &self.processes {
            Cgroup::at(process.cgroup.clone()).remove();
        }
        fs::remove_file(home.state_file())
            .map_err(|error| format!("cannot remove {}: {error}", home.state_file().display()))
    }
}
