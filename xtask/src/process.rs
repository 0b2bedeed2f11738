//! What /proc says about processes and ports.
//!
//! A process is named by its pid *and* its start time, since pids are used again: nothing here may ever signal a process
//! on its pid alone. Reading /proc races with processes that end; each reader answers `None` then, and never fails.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as SocketAddrUnix, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The unit of times in /proc/*/stat: USER_HZ is 100 on every architecture that Linux has today (time(7)).
const TICKS_PER_SECOND: u64 = 100;

/// A process that can be told from a later one with the same pid.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks between boot and the process's start.
    pub(crate) start_ticks: u64,
}

/// One reading of /proc/PID/stat.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) command: String,
    zombie: bool,
    start_ticks: u64,
    cpu_ticks: u64,
}

impl Identity {
    /// The process that has this pid now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        sample(pid).map(|sample| Self { pid, start_ticks: sample.start_ticks })
    }

    pub(crate) fn current() -> Option<Self> {
        i32::try_from(std::process::id()).ok().and_then(Self::of)
    }

    /// A reading, if this very process still runs.
    pub(crate) fn sample(&self) -> Option<Sample> {
        sample(self.pid).filter(|sample| sample.start_ticks == self.start_ticks && !sample.zombie)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.sample().is_some()
    }

    /// Sends a signal if the process still runs; says whether it did.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && kill(Pid::from_raw(self.pid), signal).is_ok()
    }

    /// Waits for the end of a process that is not our child; says whether it came in time.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Memory in RAM, in bytes.
    pub(crate) fn rss_bytes(&self) -> Option<u64> {
        self.kilobytes("VmRSS:").map(|kilobytes| kilobytes * 1024)
    }

    /// The most of it that there has been.
    pub(crate) fn rss_bytes_max(&self) -> Option<u64> {
        self.kilobytes("VmHWM:").map(|kilobytes| kilobytes * 1024)
    }

    fn kilobytes(&self, key: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    /// How often its threads have given up the processor so far: by going to sleep, and by being made to.
    pub(crate) fn switches(&self) -> (u64, u64) {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid));
        let status = threads.into_iter().flatten().flatten().filter_map(|thread| {
            // A thread may have ended since the folder was read.
            fs::read_to_string(thread.path().join("status")).ok()
        });
        status.fold((0, 0), |(slept, yielded), status| {
            let field = |key: &str| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok())
                    .unwrap_or(0)
            };
            (slept + field("voluntary_ctxt_switches:"), yielded + field("nonvoluntary_ctxt_switches:"))
        })
    }
}

impl Sample {
    pub(crate) fn cpu_time(&self) -> Duration {
        Duration::from_millis(self.cpu_ticks * 1000 / TICKS_PER_SECOND)
    }

    /// How long the process has run.
    pub(crate) fn age(&self) -> Option<Duration> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let (seconds, hundredths) = uptime.split_whitespace().next()?.split_once('.')?;
        let ticks = seconds.parse::<u64>().ok()? * TICKS_PER_SECOND + hundredths.parse::<u64>().ok()?;
        Some(Duration::from_millis(ticks.saturating_sub(self.start_ticks) * 1000 / TICKS_PER_SECOND))
    }
}

fn sample(pid: i32) -> Option<Sample> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command stands in parentheses and may itself hold spaces and parentheses: the fields count from the last `)`.
fn parse_stat(text: &str) -> Option<Sample> {
    let (head, tail) = text.rsplit_once(')')?;
    let (_, command) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    // proc_pid_stat(5) counts from 1 with pid and comm as the first two: state is 3, utime 14, stime 15, starttime 22.
    let number = |position: usize| fields.get(position - 3)?.parse::<u64>().ok();
    Some(Sample {
        command: command.to_owned(),
        zombie: matches!(*fields.first()?, "Z" | "X"),
        start_ticks: number(22)?,
        cpu_ticks: number(14)? + number(15)?,
    })
}

/// An error line when somebody listens on `port` already, with the process's name if /proc tells.
pub(crate) fn check_port_free(port: u16, purpose: &str) -> Result<(), String> {
    // A plain bind, without SO_REUSEPORT: HAProxy binds with it, so a second HAProxy would share the port in silence.
    match TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let holder = port_holder(port)
                .map_or_else(String::new, |(pid, command)| format!(" by {command} (pid {pid})"));
            Err(format!("port {port} ({purpose}) is taken{holder}"))
        }
        Err(error) => Err(format!("port {port} ({purpose}) cannot be used: {error}")),
    }
}

/// Ports that are this process's for as long as it lives, whether or not anybody listens there yet.
///
/// Two that start at the same moment both find the ports free, and HAProxy would share them in silence. The names in the kernel's
/// abstract namespace go with the network namespace, as ports do, and with the process, however it ends.
#[derive(Debug)]
pub(crate) struct PortClaims {
    _names: Vec<UnixListener>,
}

/// Claims ports, each with what it is for.
pub(crate) fn claim_ports(ports: &[(u16, &str)]) -> Result<PortClaims, String> {
    let claim = |&(port, purpose): &(u16, &str)| {
        let name = SocketAddrUnix::from_abstract_name(format!("galo-port-{port}"));
        name.and_then(|name| UnixListener::bind_addr(&name)).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                format!("port {port} ({purpose}) is another Galo's, which is starting or runs")
            }
            _ => format!("port {port} ({purpose}) cannot be claimed: {error}"),
        })
    };
    Ok(PortClaims { _names: ports.iter().map(claim).collect::<Result<_, _>>()? })
}

/// Who listens on a TCP port.
fn port_holder(port: u16) -> Option<(i32, String)> {
    let inodes: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().filter_map(|line| listening_inode(line, port)).collect::<Vec<_>>())
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        holds_any(&entry.path().join("fd"), &inodes).then_some(())?;
        Some((pid, sample(pid)?.command))
    })
}

/// The socket's inode, if this line of /proc/net/tcp is a listener on `port`.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, port_hex) = fields.get(1)?.rsplit_once(':')?;
    let found = u16::from_str_radix(port_hex, 16).ok()? == port && *fields.get(3)? == LISTEN;
    found.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

fn holds_any(descriptors: &Path, sockets: &HashSet<String>) -> bool {
    fs::read_dir(descriptors).is_ok_and(|entries| {
        entries
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194304 1 2 3 4 25 30 7 8 20 0 1 0 4242 1 2 3";
        let sample = parse_stat(text).expect("a whole line");
        assert_eq!(sample.command, "a) b (c)");
        assert_eq!(sample.cpu_time(), Duration::from_millis(550));
        assert_eq!(sample.start_ticks, 4242);
        assert!(!sample.zombie);
    }

    #[test]
    fn our_own_process_is_alive_and_a_reused_pid_is_not_it() {
        let own = Identity::current().expect("we run");
        assert!(own.is_alive());
        assert!(own.rss_bytes().is_some_and(|bytes| bytes > 0));
        let impostor = Identity { start_ticks: own.start_ticks + 1, ..own };
        assert!(!impostor.is_alive());
        assert!(
            !impostor.signal(Signal::SIGKILL),
            "a process with our pid but another start must not be signalled"
        );
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("any port");
        let port = listener.local_addr().expect("bound").port();
        let error = check_port_free(port, "API").expect_err("we hold it");
        assert!(error.contains(&format!("port {port} (API) is taken by ")), "{error}");
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(listener);
        assert_eq!(check_port_free(port, "API"), Ok(()));
    }

    #[test]
    fn a_port_is_claimed_once_and_free_again_with_its_holder() {
        // Nobody's: port 0 is never listened at.
        let claims = claim_ports(&[(0, "API")]).expect("nobody has it");
        let error = claim_ports(&[(0, "stats")]).expect_err("it is claimed");
        assert!(error.contains("port 0 (stats) is another Galo's"), "{error}");
        drop(claims);
        claim_ports(&[(0, "API")]).expect("free again");
    }
}
