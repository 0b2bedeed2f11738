//! Kills one process after the other with SIGKILL, and watches each come back.
//!
//! The moments are spread at random (from the seed) around a fixed beat. A gateway is back once its new process has answered a
//! POST with 2xx, which takes the socket, the aggregator's link and HAProxy's trust; the aggregator once both gateways are
//! connected to it again. HAProxy's own view (`UP` or not) is read beside that. Times are µs since the run's start.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::client::{Client, Origin};
use crate::load::micros;
use crate::metrics::Page;
use crate::supervisor::Supervisor;

/// Between two looks at a process that was killed.
const POLL: Duration = Duration::from_millis(5);
/// Nobody is waited for longer than this.
const WATCH_MAX: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_millis(300);

/// Who may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Target {
    /// The two gateways in turn.
    Gateway,
    Aggregator,
    Haproxy,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Aggregator => "aggregator",
            Self::Haproxy => "haproxy",
        }
    }

    /// Whose process this is, by the supervisor's name for it.
    pub(crate) fn of_process(name: &str) -> Option<Self> {
        match name {
            "gateway-1" | "gateway-2" => Some(Self::Gateway),
            "aggregator" => Some(Self::Aggregator),
            "haproxy" => Some(Self::Haproxy),
            _ => None,
        }
    }
}

/// Who is killed, how often, until when.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// In turn.
    pub(crate) targets: Vec<Target>,
    /// How many at the same moment.
    pub(crate) at_once: u32,
    /// From one moment to the next, on average.
    pub(crate) beat: Duration,
    pub(crate) end: Instant,
    /// Whether each target is left alone for a part of the time, so that one of its lives is long.
    pub(crate) spare_in_turn: bool,
    pub(crate) seed: u64,
}

impl Schedule {
    /// Who is left alone when `passed` of `whole` is over.
    fn spared(&self, passed: Duration, whole: Duration) -> Option<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for target in &self.targets {
            if !targets.contains(target) {
                targets.push(*target);
            }
        }
        // With one target there would be nobody left to kill.
        let parts = u128::try_from(targets.len()).ok().filter(|parts| self.spare_in_turn && *parts > 1)?;
        let part = passed.as_nanos() * parts / whole.as_nanos().max(1);
        targets.get(usize::try_from(part.min(parts - 1)).ok()?).copied()
    }
}

/// One kill and what came after it.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub(crate) target: Target,
    pub(crate) process: String,
    pub(crate) at_us: u64,
    /// Another process stands in its place.
    pub(crate) restarted_us: Option<u64>,
    /// It does its work again; for HAProxy that is the restart.
    pub(crate) back_us: Option<u64>,
    /// HAProxy took the gateway out of rotation.
    pub(crate) marked_down: bool,
    /// And took it in again.
    pub(crate) up_us: Option<u64>,
}

/// What the killer needs to know of the Galo that it torments.
#[derive(Debug)]
pub(crate) struct Killer {
    pub(crate) supervisor: Supervisor,
    /// The folder of its sockets.
    pub(crate) run: PathBuf,
    /// HAProxy's stats page.
    pub(crate) stats: Origin,
    pub(crate) start: Instant,
    pub(crate) kills: RefCell<Vec<Kill>>,
    /// Kills left out because the process was not there.
    pub(crate) missed: RefCell<Vec<String>>,
}

impl Killer {
    /// Kills until the schedule's end.
    pub(crate) async fn run(self: Rc<Self>, schedule: Schedule) {
        let mut random = Rng::with_seed(schedule.seed);
        let mut gateway = 0;
        let mut turns = schedule.targets.iter().copied().cycle();
        for number in 0_u32.. {
            if number.is_multiple_of(schedule.at_once) {
                let jitter = schedule.beat.mul_f64(random.f64()) / 2;
                let moment = self.start + schedule.beat * (number / schedule.at_once + 1) + jitter;
                if moment > schedule.end {
                    return;
                }
                tokio::time::sleep_until(moment.into()).await;
            }
            let spared = schedule.spared(self.start.elapsed(), schedule.end - self.start);
            let Some(target) = turns.find(|target| Some(*target) != spared) else { return };
            let process = match target {
                Target::Gateway => {
                    gateway = gateway % 2 + 1;
                    format!("gateway-{gateway}")
                }
                Target::Aggregator | Target::Haproxy => target.name().to_owned(),
            };
            self.kill(target, process);
        }
    }

    fn kill(self: &Rc<Self>, target: Target, process: String) {
        let Some(identity) = self.supervisor.identity(&process).filter(|identity| identity.kill()) else {
            self.missed.borrow_mut().push(process);
            return;
        };
        let at_us = self.now_us();
        let number = self.kills.borrow().len();
        self.kills.borrow_mut().push(Kill {
            target,
            process: process.clone(),
            at_us,
            restarted_us: None,
            back_us: None,
            marked_down: false,
            up_us: None,
        });
        let killer = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let watching = async {
                killer.watch_restart(number, &process, identity).await;
                killer.watch_return(number, target, &process).await;
            };
            let watched = async {
                match target {
                    Target::Gateway => drop(tokio::join!(watching, killer.watch_rotation(number, &process))),
                    Target::Aggregator | Target::Haproxy => watching.await,
                }
            };
            // Whoever does not return in time has no time of return, which the report shows.
            drop(tokio::time::timeout(WATCH_MAX, watched).await);
        });
    }

    fn now_us(&self) -> u64 {
        micros(self.start.elapsed())
    }

    fn note(&self, number: usize, note: impl FnOnce(&mut Kill, u64)) {
        let now_us = self.now_us();
        note(&mut self.kills.borrow_mut()[number], now_us);
    }

    async fn watch_restart(&self, number: usize, process: &str, before: crate::supervisor::Identity) {
        while self.supervisor.identity(process).is_none_or(|now| now == before) {
            tokio::time::sleep(POLL).await;
        }
        self.note(number, |kill, now_us| kill.restarted_us = Some(now_us));
    }

    async fn watch_return(&self, number: usize, target: Target, process: &str) {
        let socket = match target {
            Target::Gateway => process,
            Target::Aggregator => "aggregator-http",
            Target::Haproxy => return self.note(number, |kill, _| kill.back_us = kill.restarted_us),
        };
        let client = Client::new(Origin::Unix(self.run.join(format!("{socket}.sock"))), TIMEOUT);
        loop {
            let page = client.get("/metrics").await.map(|answer| Page::parse(&answer.text()));
            let count = |name: &str, label: &str| {
                page.as_ref().ok().and_then(|page| page.sum_of(name, label)).unwrap_or(0)
            };
            let works = match target {
                Target::Gateway => {
                    count("galo_gateway_posts_total", "answer=\"granted\"")
                        + count("galo_gateway_posts_total", "answer=\"replayed\"")
                        > 0
                }
                Target::Aggregator => count("galo_aggregator_sessions", "") >= 2,
                Target::Haproxy => true,
            };
            if works {
                return self.note(number, |kill, now_us| kill.back_us = Some(now_us));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Follows the gateway's state on HAProxy's stats page, as long as anything may still change.
    async fn watch_rotation(&self, number: usize, process: &str) {
        let client = Client::new(self.stats.clone(), TIMEOUT);
        let give_up = Instant::now() + Duration::from_secs(1);
        loop {
            let is_up =
                client.get("/stats;csv").await.ok().and_then(|answer| status(&answer.text(), process));
            match is_up {
                Some(false) => self.note(number, |kill, _| kill.marked_down = true),
                Some(true) if self.kills.borrow()[number].marked_down => {
                    return self.note(number, |kill, now_us| kill.up_us = Some(now_us));
                }
                // Back before HAProxy noticed: it never leaves the rotation.
                Some(true) if self.kills.borrow()[number].back_us.is_some() && Instant::now() > give_up => {
                    return;
                }
                Some(true) | None => {}
            }
            tokio::time::sleep(POLL * 4).await;
        }
    }
}

/// Whether a server of the gateways' backend is up, by the page's CSV.
fn status(csv: &str, server: &str) -> Option<bool> {
    let mut lines = csv.lines();
    let column = lines.next()?.split(',').position(|name| name == "status")?;
    let line = lines.find(|line| line.starts_with(&format!("gateways,{server},")))?;
    Some(line.split(',').nth(column)?.starts_with("UP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_spared_for_its_part() {
        let now = Instant::now();
        let mut schedule = Schedule {
            targets: vec![Target::Gateway, Target::Aggregator, Target::Gateway, Target::Haproxy],
            at_once: 1,
            beat: Duration::from_secs(2),
            end: now,
            spare_in_turn: true,
            seed: 0,
        };
        let second = Duration::from_secs(1);
        let spared = |schedule: &Schedule, at| schedule.spared(second * at, second * 30);
        let parts = [0, 9, 10, 19, 20, 29, 30].map(|at| spared(&schedule, at).unwrap().name());
        let [g, a, h] = [Target::Gateway, Target::Aggregator, Target::Haproxy].map(Target::name);
        assert_eq!(parts, [g, g, a, a, h, h, h]);
        schedule.targets.truncate(1);
        assert_eq!(spared(&schedule, 0), None, "somebody has to be killed");
        schedule.targets.push(Target::Haproxy);
        schedule.spare_in_turn = false;
        assert_eq!(spared(&schedule, 0), None);
    }

    #[test]
    fn the_state_of_a_server_is_read_by_its_columns_name() {
        let csv = "# pxname,svname,qcur,status,weight\ngateways,gateway-1,0,UP 1/2,1\n\
                   gateways,gateway-2,0,DOWN,1\ngateways-unready,gateway-2,0,no check,1\n";
        assert_eq!(status(csv, "gateway-1"), Some(true));
        assert_eq!(status(csv, "gateway-2"), Some(false));
        assert_eq!(status(csv, "gateway-3"), None);
    }
}
