//! A Galo of real processes in a folder of its own: aggregator, gateways, HAProxy where wanted, and two processors of ours.
//!
//! Every port is one that the kernel gave, so any number of these live side by side and beside a developer's own. Each
//! process dies with this program, however that ends (the parent-death signal is tied to the thread that started it,
//! so only the main thread may). The folder goes away with a [`Galo`] that was stopped well, and stays for whoever looks into a failure.
//! What a process was started with is kept, so that one that was killed or stopped can be started again as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{PipeReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroups::{Cgroup, Limit};
use crate::client::{Connection, Way};
use crate::mounts::Bind;
use crate::processor::{Payment, Processor};

/// How long anything that should happen soon may take on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(20);

/// Where the programs lie.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) folder: PathBuf,
    pub(crate) haproxy: PathBuf,
    pub(crate) haproxy_config: PathBuf,
}

/// What is different from the defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) name: &'a str,
    pub(crate) haproxy: bool,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The processors' file, of their URLs; none: they are the contest's two.
    pub(crate) processors: Option<fn(&[String; 2]) -> String>,
    /// Open files at most, by process; the others inherit ours.
    pub(crate) descriptors_max: Vec<(&'static str, u64)>,
    /// What a process may use, by its name.
    pub(crate) limits: Vec<(String, Limit)>,
    /// The journal's folder, unless it is to be one in Galo's own.
    pub(crate) journal: Option<PathBuf>,
    /// What the gateways see as /etc/hosts.
    pub(crate) hosts: Option<&'a Path>,
    /// Where aggregator and gateways write their lines.
    pub(crate) log: Log,
}

/// What a process's stdout and stderr are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Log {
    /// A file, [`Galo::said`].
    #[default]
    File,
    /// A file on a disk without room.
    Full,
    /// A pipe whose reader has gone.
    Gone,
    /// A pipe whose reader stands still.
    Still,
}

/// What a process is started with.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    descriptors_max: Option<u64>,
    cgroup: Option<Cgroup>,
    hosts: Option<PathBuf>,
    log: Log,
}

impl Recipe {
    /// A program that needs nothing but its arguments.
    pub(crate) const fn new(program: PathBuf, arguments: Vec<String>) -> Self {
        Self {
            program,
            arguments,
            environment: Vec::new(),
            descriptors_max: None,
            cgroup: None,
            hosts: None,
            log: Log::File,
        }
    }
}

/// One Galo.
pub(crate) struct Galo {
    folder: PathBuf,
    children: BTreeMap<String, Child>,
    /// Of those processes that have limits.
    cgroups: BTreeMap<String, Cgroup>,
    recipes: BTreeMap<String, Recipe>,
    front: Option<SocketAddr>,
    stats: Option<SocketAddr>,
    number: u64,
    next_id: AtomicU64,
    /// The ends of pipes from which nobody reads.
    still: Mutex<Vec<PipeReader>>,
}

/// What both gateways have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Requests answered with a 4xx or 5xx.
    pub(crate) refused: u64,
    /// POSTs that reached the ledger's question, whatever came of it.
    pub(crate) posts: u64,
}

/// How attempts ended, by one gateway's counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub(crate) processed: u64,
    pub(crate) duplicate: u64,
    pub(crate) unavailable: u64,
    pub(crate) overloaded: u64,
    pub(crate) unknown: u64,
    /// Of verdicts that the contest's table never gives, but for connections that could not be made.
    pub(crate) others: u64,
}

impl Outcomes {
    /// What came after `before`.
    pub(crate) const fn since(&self, before: &Self) -> Self {
        Self {
            processed: self.processed - before.processed,
            duplicate: self.duplicate - before.duplicate,
            unavailable: self.unavailable - before.unavailable,
            overloaded: self.overloaded - before.overloaded,
            unknown: self.unknown - before.unknown,
            others: self.others - before.others,
        }
    }

    /// All of them.
    pub(crate) const fn count(&self) -> u64 {
        self.processed + self.duplicate + self.unavailable + self.overloaded + self.unknown + self.others
    }
}

static GALO_COUNT: AtomicU64 = AtomicU64::new(0);

impl Galo {
    /// Starts everything and waits until both gateways are ready.
    pub(crate) fn start(programs: &Programs, plan: &Plan<'_>, urls: [String; 2]) -> Result<Self, String> {
        let number = GALO_COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = folder_of(plan.name);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut cgroups = BTreeMap::new();
        for (name, limit) in &plan.limits {
            let group = format!("galo-hostile-{}-{}", std::process::id(), plan.name);
            cgroups.insert(name.clone(), Cgroup::create(&group, name, *limit)?);
        }
        let mut galo = Self {
            folder,
            children: BTreeMap::new(),
            cgroups,
            recipes: BTreeMap::new(),
            front: None,
            stats: None,
            number,
            next_id: AtomicU64::new(0),
            still: Mutex::default(),
        };
        let socket = |galo: &Self, name: &str| galo.socket(name).display().to_string();
        let mut shared = plan.environment.clone();
        if let Some(write) = plan.processors {
            let path = galo.folder.join("processors.toml");
            fs::write(&path, write(&urls)).map_err(|error| format!("{}: {error}", path.display()))?;
            shared.push(("GALO_PROCESSORS", path.display().to_string()));
        }
        let journal = plan.journal.clone().unwrap_or_else(|| galo.folder.join("journal"));
        let aggregator = vec![
            ("AGGREGATOR_SOCKET", socket(&galo, "aggregator")),
            ("AGGREGATOR_HTTP_SOCKET", socket(&galo, "aggregator-http")),
            ("JOURNAL_DIR", journal.display().to_string()),
        ];
        let recipe = |name: &str, program: PathBuf, mut environment: Vec<(&'static str, String)>| {
            environment.extend(shared.iter().cloned());
            let limit = plan.descriptors_max.iter().find(|(of, _)| *of == name);
            let descriptors_max = limit.map(|(_, count)| *count);
            let hosts = plan.hosts.filter(|_| name.starts_with("gateway")).map(Path::to_owned);
            let (arguments, log) = (Vec::new(), plan.log);
            Recipe { program, arguments, environment, descriptors_max, cgroup: None, hosts, log }
        };
        galo.spawn("aggregator", recipe("aggregator", programs.folder.join("galo-aggregator"), aggregator))?;
        for instance in 1..=2 {
            let name = format!("gateway-{instance}");
            let [default, fallback] = urls.clone();
            let variables = vec![
                ("GATEWAY_INSTANCE", instance.to_string()),
                ("GATEWAY_SOCKET", socket(&galo, &name)),
                ("AGGREGATOR_SOCKET", socket(&galo, "aggregator")),
                ("PROCESSOR_DEFAULT_URL", default),
                ("PROCESSOR_FALLBACK_URL", fallback),
                ("GATEWAY_PINNED", "false".to_owned()),
            ];
            galo.spawn(&name, recipe(&name, programs.folder.join("galo-gateway"), variables))?;
        }
        if plan.haproxy {
            let [api, stats] = [free_port()?, free_port()?];
            let environment = vec![
                ("GALO_RUN_DIR", galo.folder.display().to_string()),
                ("GALO_API_PORT", api.to_string()),
                ("GALO_STATS_PORT", stats.to_string()),
            ];
            let config = programs.haproxy_config.display().to_string();
            let arguments = ["-db", "-f", &config].map(str::to_owned).to_vec();
            let program = programs.haproxy.clone();
            galo.spawn("haproxy", Recipe { environment, ..Recipe::new(program, arguments) })?;
            galo.front = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, api)));
            galo.stats = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, stats)));
        }
        for way in galo.ways() {
            galo.until("ready", || {
                let answer = way.ask("GET", "/ready", "");
                Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
            })?;
        }
        Ok(galo)
    }

    /// Starts a process, and keeps what it was started with.
    pub(crate) fn spawn(&mut self, name: &str, recipe: Recipe) -> Result<(), String> {
        let recipe = Recipe { cgroup: self.cgroups.get(name).cloned(), ..recipe };
        let child = self.start_process(name, &recipe)?;
        self.children.insert(name.to_owned(), child);
        self.recipes.insert(name.to_owned(), recipe);
        Ok(())
    }

    /// Starts a process that has ended, as it was started before.
    pub(crate) fn respawn(&mut self, name: &str) -> Result<(), String> {
        self.spawn(name, self.recipe(name)?)
    }

    pub(crate) fn recipe(&self, name: &str) -> Result<Recipe, String> {
        self.recipes.get(name).cloned().ok_or_else(|| format!("{name} was never started"))
    }

    /// Starts a process whose log has this name, and leaves it to the caller.
    pub(crate) fn start_process(&self, log: &str, recipe: &Recipe) -> Result<Child, String> {
        let path = self.log(log);
        let hosts =
            recipe.hosts.as_deref().map(|file| Bind::new(file, Path::new("/etc/hosts"))).transpose()?;
        let mut doors = recipe.cgroup.as_ref().map_or(Ok(Vec::new()), Cgroup::doors)?;
        let start = || -> std::io::Result<Child> {
            let log: OwnedFd = match recipe.log {
                Log::File => File::options().create(true).append(true).open(&path)?.into(),
                Log::Full => File::options().write(true).open("/dev/full")?.into(),
                Log::Gone => std::io::pipe()?.1.into(),
                Log::Still => {
                    let (reader, writer) = std::io::pipe()?;
                    self.still.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
                    writer.into()
                }
            };
            let mut command = Command::new(&recipe.program);
            command.args(&recipe.arguments).envs(recipe.environment.iter().cloned()).stdin(Stdio::null());
            command.stdout(log.try_clone()?).stderr(log);
            let descriptors_max = recipe.descriptors_max;
            // SAFETY: all of these are system calls and nothing else, and the closure touches no memory of the parent.
            unsafe {
                command.pre_exec(move || {
                    if let Some(count) = descriptors_max {
                        setrlimit(Resource::RLIMIT_NOFILE, count, count)?;
                    }
                    if let Some(hosts) = &hosts {
                        hosts.enter()?;
                    }
                    doors.iter_mut().try_for_each(|door| door.write_all(b"0"))?;
                    prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from)
                });
            }
            command.spawn()
        };
        start().map_err(|error| format!("cannot start {}: {error}", recipe.program.display()))
    }

    /// What bounds a process.
    pub(crate) fn cgroup(&self, name: &str) -> Result<&Cgroup, String> {
        self.cgroups.get(name).ok_or_else(|| format!("{name} has no limits"))
    }

    /// The process, which must have been started and not been waited for.
    fn child(&mut self, name: &str) -> Result<&mut Child, String> {
        self.children.get_mut(name).ok_or_else(|| format!("{name} does not run"))
    }

    pub(crate) fn pid(&self, name: &str) -> Result<Pid, String> {
        let child = self.children.get(name).ok_or_else(|| format!("{name} does not run"))?;
        i32::try_from(child.id()).map(Pid::from_raw).map_err(|error| error.to_string())
    }

    pub(crate) fn signal(&self, name: &str, signal: Signal) -> Result<(), String> {
        kill(self.pid(name)?, signal).map_err(|error| format!("{signal} to {name}: {error}"))
    }

    /// Kills a process by SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self, name: &str) -> Result<(), String> {
        self.signal(name, Signal::SIGKILL)?;
        self.ended(name).map(drop)
    }

    /// Waits for the end of a process that has been told to end, or ends by itself.
    pub(crate) fn ended(&mut self, name: &str) -> Result<ExitStatus, String> {
        let status = wait(self.child(name)?).map_err(|error| format!("{name} {error}"))?;
        self.children.remove(name);
        Ok(status)
    }

    /// Everything that a process has written to its log.
    pub(crate) fn said(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// Waits until a process has written this to its log, in what comes after the first `from` bytes.
    pub(crate) fn until_said(&mut self, name: &str, from: usize, text: &str) -> Result<(), String> {
        let path = self.log(name);
        self.until(&format!("{name} says {text:?}"), || {
            let said = fs::read_to_string(&path).unwrap_or_default();
            Ok(said.get(from..).is_some_and(|said| said.contains(text)).then_some(()))
        })
    }

    /// Milliseconds of CPU that a process has used.
    pub(crate) fn cpu_ms(&self, name: &str) -> Result<u64, String> {
        let pid = self.pid(name)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| error.to_string())?;
        // utime and stime are the 14th and 15th field; the second one, in parentheses, may hold anything. A tick is 10 ms.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        Ok(fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.sock"))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Straight at a gateway, 0 or 1.
    pub(crate) fn straight(&self, gateway: usize) -> Way {
        Way::Straight(self.socket(&format!("gateway-{}", gateway + 1)))
    }

    /// Straight at the first gateway and, where there is one, through HAProxy.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let front = self.front.map(Way::Front);
        [self.straight(0), self.straight(1)]
            .into_iter()
            .take(if front.is_some() { 1 } else { 2 })
            .chain(front)
            .collect()
    }

    /// An id that was never used before.
    pub(crate) fn fresh_id(&self) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}-0bad-4bad-8bad-{number:012x}", self.number + 0xa11_0000)
    }

    /// Whether every process that was started still runs.
    pub(crate) fn check_alive(&mut self) -> Result<(), String> {
        for (name, child) in &mut self.children {
            if let Ok(Some(status)) = child.try_wait() {
                let log = self.folder.join(format!("{name}.log"));
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!(
                    "{name} has ended ({status}): {}",
                    said.lines().last().unwrap_or_default()
                ));
            }
        }
        Ok(())
    }

    /// Memory of a process in RAM, in KiB.
    pub(crate) fn rss_kib(&self, name: &str) -> Option<u64> {
        self.status_kib(name, "VmRSS:")
    }

    /// The most that it has had since its start.
    pub(crate) fn peak_kib(&self, name: &str) -> Option<u64> {
        self.status_kib(name, "VmHWM:")
    }

    fn status_kib(&self, name: &str, field: &str) -> Option<u64> {
        let pid = self.children.get(name)?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    /// Asks again and again until there is a value.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut ask: impl FnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(value) = ask()? {
                return Ok(value);
            }
            self.check_alive()?;
            if Instant::now() > deadline {
                return Err(format!("not within {LIMIT:?}: {what}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until HAProxy, where there is one, has seen that both gateways are ready.
    pub(crate) fn until_up(&mut self) -> Result<(), String> {
        self.until_seen("UP")
    }

    /// Waits until HAProxy, where there is one, has seen that neither gateway is ready.
    pub(crate) fn until_down(&mut self) -> Result<(), String> {
        self.until_seen("DOWN")
    }

    fn until_seen(&mut self, state: &str) -> Result<(), String> {
        let Some(stats) = self.stats.map(Way::Front) else { return Ok(()) };
        self.until(&format!("both gateways are {state} for HAProxy"), || {
            let mut connection = Connection::open(&stats)?;
            // HTTP/1.0: an answer that ends with its connection.
            connection.send(b"GET /stats;csv HTTP/1.0\r\n\r\n");
            let page = connection.answer(false)?.text();
            let is_so =
                |line: &&str| line.starts_with("gateways,gateway-") && line.contains(&format!(",{state},"));
            Ok((page.lines().filter(is_so).count() == 2).then_some(()))
        })
    }

    /// HAProxy's other port: health, metrics, stats.
    pub(crate) fn monitor(&self) -> Result<Way, String> {
        self.stats.map(Way::Front).ok_or_else(|| "there is no HAProxy".to_owned())
    }

    /// What both gateways have counted so far.
    pub(crate) fn counts(&self) -> Result<Counts, String> {
        let mut counts = Counts::default();
        for gateway in 0..2 {
            let page = metrics(&self.straight(gateway))?;
            counts.posts += sum(&page, "galo_gateway_posts_total");
            counts.refused += sum(&page, "galo_http_requests_total{status=\"4xx\"}")
                + sum(&page, "galo_http_requests_total{status=\"5xx\"}");
        }
        Ok(counts)
    }

    /// Waits until nothing is open.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        let way = self.aggregator();
        self.until("every open payment is processed", || {
            let page = metrics(&way)?;
            Ok((sum(&page, "galo_payments_open") == 0).then_some(()))
        })
    }

    /// The aggregator's own HTTP.
    pub(crate) fn aggregator(&self) -> Way {
        Way::Straight(self.socket("aggregator-http"))
    }

    /// Compares what was accepted, by id and cents, with both processors' books and with the summary.
    pub(crate) fn reconcile(
        &mut self,
        accepted: &BTreeMap<String, u64>,
        processors: [&Processor; 2],
    ) -> Result<(), String> {
        self.settle()?;
        self.check_books(accepted, processors, &BTreeSet::new())
    }

    /// The comparison of [`Galo::reconcile`] as of now, without these ids: neither promises nor books are looked at for them, and
    /// the summary must not have them.
    pub(crate) fn check_books(
        &self,
        accepted: &BTreeMap<String, u64>,
        processors: [&Processor; 2],
        without: &BTreeSet<String>,
    ) -> Result<(), String> {
        let mut books = processors.map(|processor| processor.books().stored.clone());
        books.iter_mut().for_each(|book| book.retain(|id, _| !without.contains(id)));
        let mut wrong = Vec::new();
        for (id, cents) in accepted.iter().filter(|(id, _)| !without.contains(*id)) {
            let found: Vec<Payment> = books.iter().filter_map(|book| book.get(id).copied()).collect();
            match found[..] {
                [payment] if payment.amount_cents == *cents => {}
                _ => wrong.push(format!("{id} of {cents} cents is in the books as {found:?}")),
            }
        }
        for id in books.iter().flat_map(BTreeMap::keys).filter(|id| !accepted.contains_key(*id)) {
            wrong.push(format!("{id} was never accepted and is in the books"));
        }
        let anomalies = processors.map(|processor| processor.books().anomalies.clone()).concat();
        wrong.extend(anomalies.iter().map(|anomaly| format!("a processor was sent {anomaly}")));
        let expected = summary(&books[0], &books[1]);
        for gateway in 0..2 {
            let said = self.straight(gateway).ask("GET", "/payments-summary", "")?.text();
            if said != expected {
                wrong.push(format!("the summary is {said}, the books say {expected}"));
            }
        }
        match wrong.len() {
            0 => Ok(()),
            count => Err(format!("{count} differences, first {}", wrong[..count.min(3)].join("; "))),
        }
    }

    /// Stops it as an operator does: HAProxy, gateways, aggregator, by SIGTERM, each must exit with 0.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        for name in ["haproxy", "gateway-1", "gateway-2", "aggregator"] {
            if !self.children.contains_key(name) {
                continue;
            }
            self.signal(name, Signal::SIGTERM)?;
            let status = self.ended(name)?;
            // HAProxy without a master ends by the signal itself, and one with a master says the same by its status.
            let terminated = 128 + Signal::SIGTERM as i32;
            let is_terminated =
                status.signal() == Some(Signal::SIGTERM as i32) || status.code() == Some(terminated);
            if !status.success() && (name != "haproxy" || !is_terminated) {
                return Err(format!("{name} ended with {status}; its log is {}", self.log(name).display()));
            }
        }
        fs::remove_dir_all(&self.folder).map_err(|error| format!("{}: {error}", self.folder.display()))
    }
}

impl Drop for Galo {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            // It has ended already, or it does now.
            child.kill().unwrap_or_default();
            drop(child.wait());
        }
        self.cgroups.values().for_each(Cgroup::remove);
    }
}

/// Waits for a process's end.
pub(crate) fn wait(child: &mut Child) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() > deadline => return Err(format!("has not ended for {LIMIT:?}")),
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

/// How attempts ended at both processors, by the counting of the gateway behind `way`.
pub(crate) fn outcomes(way: &Way) -> Result<Outcomes, String> {
    Ok(outcomes_of(&metrics(way)?))
}

fn outcomes_of(page: &str) -> Outcomes {
    let count = |verdict: &str| -> u64 {
        ["default", "fallback"]
            .into_iter()
            .map(|processor| {
                let labels = format!("{{processor=\"{processor}\",verdict=\"{verdict}\"}}");
                sum(page, &format!("galo_attempt_verdicts_total{labels}"))
            })
            .sum()
    };
    let outcomes = Outcomes {
        processed: count("processed"),
        duplicate: count("duplicate"),
        unavailable: count("unavailable"),
        overloaded: count("overloaded"),
        unknown: count("unknown"),
        others: 0,
    };
    // Whatever its name: a verdict that is new here is not overlooked.
    let all = sum(page, "galo_attempt_verdicts_total");
    Outcomes { others: all - outcomes.count(), ..outcomes }
}

/// The summary's JSON that belongs to these books.
pub(crate) fn summary(default: &BTreeMap<String, Payment>, fallback: &BTreeMap<String, Payment>) -> String {
    let side = |book: &BTreeMap<String, Payment>| {
        let cents: u64 = book.values().map(|payment| payment.amount_cents).sum();
        format!(r#"{{"totalRequests":{},"totalAmount":{}.{:02}}}"#, book.len(), cents / 100, cents % 100)
    };
    format!(r#"{{"default":{},"fallback":{}}}"#, side(default), side(fallback))
}

pub(crate) fn metrics(way: &Way) -> Result<String, String> {
    let answer = way.ask("GET", "/metrics", "")?;
    if answer.status == 200 { Ok(answer.text()) } else { Err(format!("/metrics says {}", answer.status)) }
}

/// The sum of all series of this name that have these labels, among others maybe.
pub(crate) fn sum(page: &str, series: &str) -> u64 {
    let parts = |series: &str| {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.strip_suffix('}').unwrap_or(labels);
        let labels: Vec<String> = labels.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        (name.to_owned(), labels)
    };
    let (name, wanted) = parts(series);
    let has_them = |series: &str| {
        let (found, labels) = parts(series);
        found == name && wanted.iter().all(|label| labels.contains(label))
    };
    page.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| has_them(series))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

/// The folder of a Galo whose plan has this name.
pub(crate) fn folder_of(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("galo-hostile-{}-{name}", std::process::id()))
}

/// A port that nobody has now, below those that the kernel gives to outgoing connections: between this and its use none of these takes it.
pub(crate) fn free_port() -> Result<u16, String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = u16::try_from(std::process::id() % 8_000).unwrap_or_default();
    for _ in 0..1_000 {
        let port = 20_000 + (base + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port from 20,000 to 29,999 is free".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let page = "a 1\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_more 9\n";
        assert_eq!(sum(page, "a"), 1);
        assert_eq!(sum(page, "a_total"), 5);
        assert_eq!(sum(page, "a_total{x=\"2\"}"), 3);
        assert_eq!(sum("b{x=\"1\",y=\"2\"} 4\nb{x=\"11\",y=\"2\"} 5\n", "b{y=\"2\"}"), 9);
        assert_eq!(sum("b{x=\"1\",y=\"2\"} 4\nb{x=\"11\",y=\"2\"} 5\n", "b{y=\"2\",x=\"1\"}"), 4);
        assert_eq!(sum(page, "b"), 0);
    }

    #[test]
    fn verdicts_are_counted_by_name_and_none_is_overlooked() {
        let page = "galo_attempt_verdicts_total{processor=\"default\",verdict=\"processed\"} 4\n\
                    galo_attempt_verdicts_total{processor=\"fallback\",verdict=\"processed\"} 1\n\
                    galo_attempt_verdicts_total{processor=\"default\",verdict=\"duplicate\"} 2\n\
                    galo_attempt_verdicts_total{processor=\"default\",verdict=\"not_sent\"} 3\n";
        let expected = Outcomes { processed: 5, duplicate: 2, others: 3, ..Outcomes::default() };
        assert_eq!(outcomes_of(page), expected);
        let before = Outcomes { processed: 4, ..Outcomes::default() };
        assert_eq!(expected.since(&before).count(), 6);
    }

    #[test]
    fn a_summary_is_written_as_galo_writes_it() {
        let payment = Payment { amount_cents: 1990, requested_at_ms: 0 };
        let book = BTreeMap::from([("a".to_owned(), payment), ("b".to_owned(), payment)]);
        assert_eq!(
            summary(&book, &BTreeMap::new()),
            r#"{"default":{"totalRequests":2,"totalAmount":39.80},"fallback":{"totalRequests":0,"totalAmount":0.00}}"#
        );
    }
}
