//! The supervisor: keeps every process of one Galo alive until it is told to stop, then drains.
//!
//! One loop in the main thread owns all decisions; small threads turn what blocks (a child's end, a signal) into events for
//! it. That thread is also the only one that forks, since the kernel ties each child's parent-death signal to it.
//!
//! It must never leave a process dead for longer than `restart.rs` says, nor stop the ledger before the gateways, nor the
//! gateways before the payments that they accepted are processed (or the bound on waiting has passed, which it then says). It
//! survives the death of any child at any moment, repeated signals, and a terminal that goes away.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sched::CpuSet;
use nix::sys::signal::{SigSet, Signal};

use super::console::Console;
use super::restart::{Death, Restarts, Verdict};
use super::service::{self, Service, services};
use super::state::{Process, State};
use super::{Options, Processors, child, compose_file, watch};
use crate::limits::{self, Cgroup};
use crate::process::{self, Identity};
use crate::repo::{self, Fallible, Home};

/// How long accepted payments may take to be processed once no new ones come in.
const DRAIN_WAIT: Duration = Duration::from_secs(10);
/// HAProxy breaks a soft stop off after 3 s (`hard-stop-after`), clients or not.
const SOFT_STOP_WAIT: Duration = Duration::from_millis(3500);
/// A gateway lets attempts finish for 8 s (DRAIN_MS_MAX).
const GATEWAY_WAIT: Duration = Duration::from_secs(10);
const OTHERS_WAIT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What the loop hears.
enum Event {
    Ended { index: usize, pid: i32, status: ExitStatus },
    Signal(Signal),
}

/// One process and its history.
struct Supervised {
    service: Service,
    cgroup: Option<Cgroup>,
    /// The processors it keeps to, if not to all.
    cpus: Option<CpuSet>,
    identity: Option<Identity>,
    restarts: Restarts,
    restart_count: u64,
    /// When it is to be started again.
    due: Option<(Instant, Instant)>,
}

struct Supervisor {
    options: Options,
    home: Home,
    console: Arc<Console>,
    children: Vec<Supervised>,
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    own_identity: Identity,
    /// A second signal during the drain: stop at once.
    hurried: bool,
}

/// Removes a journal, if there is one.
fn forget(journal: &Path) -> Fallible<()> {
    match fs::remove_dir_all(journal) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", journal.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Starts everything, supervises, stops everything.
///
/// # Errors
///
/// When the start fails or a process will not stay up; everything is stopped by then.
pub(crate) fn run(options: &Options) -> Fallible<()> {
    let started = Instant::now();
    let home = options.home();
    home.create()?;
    let _lock = lock(&home)?;
    let _ports = process::claim_ports(&options.ports())?;
    if options.processors == Processors::Simulated {
        // They begin with empty books, and a ledger that remembered the last ones' would contradict them.
        forget(&home.journal())?;
    }
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Before the first thread, so that every thread inherits it and only the waiting one hears them.
    signals.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    let (sender, receiver) = channel();
    let signal_sender = sender.clone();
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if signal_sender.send(Event::Signal(signal)).is_err() {
                break;
            }
        }
    });
    let console = Arc::new(Console::new());
    let children = plan(options)?;
    let own_identity = Identity::current().ok_or("cannot read /proc/self/stat")?;
    let mut supervisor = Supervisor {
        options: options.clone(),
        home,
        console,
        children,
        sender,
        receiver,
        own_identity,
        hurried: false,
    };
    let outcome = supervisor.start_all().and_then(|()| {
        let (options, console) = (options.clone(), Arc::clone(&supervisor.console));
        std::thread::spawn(move || watch::watch(&options, &console, started));
        supervisor.serve()
    });
    let farewell = supervisor.stop_all();
    supervisor.clean(&farewell)?;
    supervisor.console.line(&farewell);
    outcome
}

/// Held for the supervisor's whole life: two that start at once must not share a home.
fn lock(home: &Home) -> Fallible<File> {
    let path = home.lock_file();
    let file = File::create(&path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
    file.try_lock()
        .map_err(|_| format!("another supervisor is starting or stopping in {}", home.path().display()))?;
    Ok(file)
}

/// The services with their cgroups.
fn plan(options: &Options) -> Fallible<Vec<Supervised>> {
    let limits = if options.limits { Some(limits::read_compose(&compose_file())?) } else { None };
    // Two Galos on one machine have different ports.
    let group = if options.port == 9999 { "galo".to_owned() } else { format!("galo-{}", options.port) };
    let mut children: Vec<Supervised> = Vec::new();
    for service in services(options)? {
        let of_service = match &limits {
            Some(limits) if service.limited => Some(
                limits
                    .get(service.name)
                    .ok_or_else(|| format!("docker-compose.yml limits no service `{}`", service.name))?,
            ),
            _ => None,
        };
        let cpus = of_service.and_then(|limits| limits.cpus);
        let cgroup = match of_service {
            Some(limits) => {
                let checked = cpus.map_or(Ok(()), |cpus| limits::check_cpus(service.name, &cpus));
                let cgroup = checked.and_then(|()| Cgroup::create(&group, service.name, *limits));
                if cgroup.is_err() {
                    children.iter().filter_map(|child| child.cgroup.as_ref()).for_each(Cgroup::remove);
                }
                Some(cgroup?)
            }
            None => None,
        };
        children.push(Supervised {
            service,
            cgroup,
            cpus,
            identity: None,
            restarts: Restarts::default(),
            restart_count: 0,
            due: None,
        });
    }
    Ok(children)
}

impl Supervisor {
    fn start_all(&mut self) -> Fallible<()> {
        // A socket file of an earlier run would let HAProxy connect to nobody.
        for entry in fs::read_dir(self.home.run()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "sock") {
                fs::remove_file(entry.path())
                    .map_err(|error| format!("cannot remove {}: {error}", entry.path().display()))?;
            }
        }
        drop(fs::remove_file(self.home.farewell_file()));
        for index in 0..self.children.len() {
            let log = self.home.log(self.children[index].service.name);
            File::create(&log).map_err(|error| format!("cannot create {}: {error}", log.display()))?;
            self.start(index)?;
        }
        self.write_state()
    }

    fn start(&mut self, index: usize) -> Fallible<()> {
        let supervised = &mut self.children[index];
        let log = self.home.log(supervised.service.name);
        let mut child = child::spawn(&supervised.service, supervised.cgroup.as_ref(), supervised.cpus, &log)?;
        let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
        // A child that ended already is a zombie until waited for, so its start time is still there to read.
        supervised.identity = Identity::of(pid);
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            if let Ok(status) = child.wait() {
                // Nobody listens any more when the supervisor itself is about to end.
                drop(sender.send(Event::Ended { index, pid, status }));
            }
        });
        Ok(())
    }

    /// Restarts what dies, until a signal comes.
    fn serve(&mut self) -> Fallible<()> {
        loop {
            let due = self.children.iter().filter_map(|child| child.due).map(|(at, _)| at).min();
            let wait =
                due.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            match self.receiver.recv_timeout(wait) {
                Ok(Event::Signal(signal)) => {
                    self.console.line(&format!("{signal}: stopping"));
                    return Ok(());
                }
                Ok(Event::Ended { index, pid, status }) => self.bury(index, pid, status)?,
                Err(_) => {}
            }
            self.start_due()?;
        }
    }

    /// Decides what becomes of a process that ended.
    fn bury(&mut self, index: usize, pid: i32, status: ExitStatus) -> Fallible<()> {
        let now = Instant::now();
        let supervised = &mut self.children[index];
        supervised.identity = None;
        let name = supervised.service.name;
        let death = if status.signal() == Some(Signal::SIGKILL as i32) { Death::Killed } else { Death::Own };
        match supervised.restarts.decide(now, death) {
            Verdict::RestartAfter(delay) => {
                supervised.due = Some((now + delay, now));
                self.console.line(&format!("{name} (pid {pid}) ended: {status}"));
                Ok(())
            }
            Verdict::GiveUp => {
                let log = self.home.log(name);
                let words = repo::tail(&log, 3).join("\n  ");
                let words =
                    if words.is_empty() { "without a word".to_owned() } else { format!("saying\n  {words}") };
                Err(format!(
                    "{name} does not stay up: it ended five times within 2 s, the last time with {status}, {words}\n({})",
                    log.display()
                ))
            }
        }
    }

    fn start_due(&mut self) -> Fallible<()> {
        let now = Instant::now();
        for index in 0..self.children.len() {
            let Some((_, died)) = self.children[index].due.filter(|(at, _)| *at <= now) else { continue };
            self.children[index].due = None;
            self.start(index)?;
            let supervised = &mut self.children[index];
            supervised.restart_count += 1;
            let pid = supervised.identity.as_ref().map_or(0, |identity| identity.pid);
            let line = format!(
                "{} started again as pid {pid} after {:.1?}",
                supervised.service.name,
                died.elapsed()
            );
            self.console.line(&line);
            self.write_state()?;
        }
        Ok(())
    }

    /// Stops in the order in which nothing accepted is lost, and says in one line what was left.
    fn stop_all(&mut self) -> String {
        let started = Instant::now();
        for supervised in &mut self.children {
            supervised.due = None;
        }
        self.signal(&[service::HAPROXY], Signal::SIGUSR1);
        self.wait(&[service::HAPROXY], SOFT_STOP_WAIT);
        let left = self.drain();
        self.end(&service::GATEWAYS, GATEWAY_WAIT);
        self.end(&[service::HAPROXY, service::AGGREGATOR], OTHERS_WAIT);
        self.end(&service::PROCESSORS, OTHERS_WAIT);
        let left = match left {
            Some(0) => "no payment was left open".to_owned(),
            Some(1) => "1 payment was left open".to_owned(),
            Some(count) => format!("{count} payments were left open"),
            None => "the ledger did not say what was left open".to_owned(),
        };
        format!("stopped in {:.1?}; {left}", started.elapsed())
    }

    /// Waits until nothing is open; returns the last count known.
    fn drain(&mut self) -> Option<u64> {
        let deadline = Instant::now() + DRAIN_WAIT;
        let mut said = false;
        loop {
            let open = watch::open_count(&self.options)?;
            if open == 0 || self.hurried || Instant::now() >= deadline {
                return Some(open);
            }
            if !said {
                self.console
                    .line(&format!("waiting for {open} open payments, {} s at most", DRAIN_WAIT.as_secs()));
                said = true;
            }
            self.listen(POLL_INTERVAL);
        }
    }

    /// SIGTERM, then SIGKILL for what does not end in time.
    fn end(&mut self, names: &[&str], limit: Duration) {
        self.signal(names, Signal::SIGTERM);
        if !self.wait(names, limit) {
            for supervised in self.children.iter().filter(|child| names.contains(&child.service.name)) {
                if let Some(identity) =
                    supervised.identity.as_ref().filter(|identity| identity.signal(Signal::SIGKILL))
                {
                    self.console.line(&format!(
                        "{} (pid {}) did not end by itself and was killed",
                        supervised.service.name, identity.pid
                    ));
                }
            }
            self.hurried = false;
            self.wait(names, OTHERS_WAIT);
        }
    }

    fn signal(&self, names: &[&str], signal: Signal) {
        for supervised in self.children.iter().filter(|child| names.contains(&child.service.name)) {
            if let Some(identity) = &supervised.identity {
                identity.signal(signal);
            }
        }
    }

    /// Waits for the end of these processes; says whether it came before `limit` and before a second signal.
    fn wait(&mut self, names: &[&str], limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if !self
                .children
                .iter()
                .any(|child| names.contains(&child.service.name) && child.identity.is_some())
            {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.hurried {
                return false;
            }
            self.listen(left);
        }
    }

    /// Takes one event while stopping, when nothing is restarted any more.
    fn listen(&mut self, limit: Duration) {
        match self.receiver.recv_timeout(limit) {
            Ok(Event::Ended { index, .. }) => self.children[index].identity = None,
            Ok(Event::Signal(signal)) => {
                self.console.line(&format!("{signal} again: stopping at once"));
                self.hurried = true;
            }
            Err(_) => {}
        }
    }

    fn write_state(&self) -> Fallible<()> {
        let processes = self.children.iter().map(|child| Process {
            name: child.service.name.to_owned(),
            identity: child.identity.clone(),
            restart_count: child.restart_count,
            cgroup: child.cgroup.as_ref().map(|cgroup| cgroup.folders().to_vec()).unwrap_or_default(),
        });
        let state = State {
            supervisor: self.own_identity.clone(),
            options: self.options.clone(),
            processes: processes.collect(),
        };
        state.write(&self.home)
    }

    fn clean(&self, farewell: &str) -> Fallible<()> {
        self.children.iter().filter_map(|child| child.cgroup.as_ref()).for_each(Cgroup::remove);
        repo::write_atomically(&self.home.farewell_file(), farewell.as_bytes())?;
        match fs::remove_file(self.home.state_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("cannot remove the state file: {error}"))
            }
            _ => Ok(()),
        }
    }
}
