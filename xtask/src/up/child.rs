//! Starting one process so that it can neither outlive its supervisor in silence nor hear the terminal's Ctrl-C.
//!
//! Between fork and exec the child enters its cgroup, keeps to its processors, asks the kernel for SIGTERM should the supervisor die, and
//! unblocks the signals that the supervisor blocks. Only async-signal-safe calls may stand there: no allocation, no lock.
//! The kernel ties the parent-death signal to the *thread* that forked, so only the supervisor's main thread may call this.

use std::fs::File;
use std::io::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpid, getppid, write};

use super::service::Service;
use crate::limits::Cgroup;
use crate::repo::{self, Fallible};

/// Starts the service with its output going to the end of `log`.
pub(crate) fn spawn(
    service: &Service,
    cgroup: Option<&Cgroup>,
    cpus: Option<CpuSet>,
    log: &Path,
) -> Fallible<Child> {
    let open = || -> Result<(File, File), Error> {
        let log = File::options().append(true).create(true).open(log)?;
        Ok((log.try_clone()?, log))
    };
    let (stdout, stderr) = open().map_err(|error| format!("cannot open {}: {error}", log.display()))?;
    let doors: Vec<OwnedFd> = match cgroup {
        Some(cgroup) => cgroup.doors()?.into_iter().map(OwnedFd::from).collect(),
        None => Vec::new(),
    };
    let mut command = Command::new(&service.program);
    command
        .args(&service.arguments)
        .envs(service.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(repo::root())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // A terminal sends Ctrl-C to its whole foreground group; the drain must be the supervisor's to order.
        .process_group(0);
    let supervisor = getpid();
    // SAFETY: after the fork only async-signal-safe system calls run (write, sched_setaffinity, prctl, getppid, sigprocmask), and the
    // closure reads but its captured descriptors, processors and pid, allocating nothing.
    unsafe {
        command.pre_exec(move || prepare(&doors, cpus, supervisor));
    }
    command
        .spawn()
        .map_err(|error| format!("cannot start {} ({}): {error}", service.name, service.program.display()))
}

/// What the child does before it becomes the program.
fn prepare(doors: &[OwnedFd], cpus: Option<CpuSet>, supervisor: Pid) -> Result<(), Error> {
    for door in doors {
        write(door.as_fd(), b"0")?;
    }
    if let Some(cpus) = cpus {
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
    }
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid() != supervisor {
        // The supervisor died before the request was in place, so no signal will come.
        return Err(Error::from_raw_os_error(nix::libc::ESRCH));
    }
    SigSet::all().thread_unblock()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sched::sched_getaffinity;

    use super::*;

    #[test]
    fn a_service_keeps_to_its_processors() {
        let own = sched_getaffinity(Pid::this()).unwrap();
        let last = (0..CpuSet::count()).rev().find(|cpu| own.is_set(*cpu) == Ok(true)).unwrap();
        let mut cpus = CpuSet::new();
        cpus.set(last).unwrap();
        let service = Service {
            name: "grep",
            program: "/bin/grep".into(),
            arguments: ["Cpus_allowed_list", "/proc/self/status"].map(str::to_owned).to_vec(),
            environment: Vec::new(),
            limited: true,
        };
        let log = std::env::temp_dir().join(format!("galo-child-{}.log", std::process::id()));
        assert!(spawn(&service, None, Some(cpus), &log).unwrap().wait().unwrap().success());
        let said = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        assert_eq!(said.split_whitespace().last(), Some(last.to_string().as_str()), "{said}");
    }
}
