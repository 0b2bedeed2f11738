//! Processes that stand still, are killed as fast as they come up, are told to stop, or are started twice, under load.
//!
//! The clients of [`crate::load`] send again what was refused, so the books decide whether a "no" was one. Bounds that are promises
//! are judged with a margin for a busy machine, which stands beside each; everything else is printed.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::{PATIENCE, Way};
use crate::faults::{check_view, processed_at};
use crate::galo::{Plan, Programs, wait};
use crate::load::{Load, Report};
use crate::processor::{Act, Then, processed};
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// How long a process stands still.
const STILL: Duration = Duration::from_secs(5);

/// Shorter and longer than HAProxy's `timeout server`, which is 5 s, by more than its timers and a busy machine may differ.
const GATEWAY_STILL: Duration = Duration::from_secs(4);
const GATEWAY_STILL_TOO_LONG: Duration = Duration::from_secs(6);

/// Before and after, under load.
const CALM: Duration = Duration::from_millis(500);

/// `ACCEPT_WAIT_MS_MAX`: a gateway that cannot ask the ledger says so after this wait, and not before.
const ACCEPT_WAIT: Duration = Duration::from_secs(1);

/// HAProxy tries a 503 three times while it takes a gateway for ready, and believes the first one otherwise.
const ACCEPT_WAIT_FRONT: Duration = Duration::from_secs(3);

/// After which at the latest. Two seconds more for the machine.
const REFUSED_STRAIGHT: Duration = Duration::from_secs(1 + 2);
const REFUSED_FRONT: Duration = Duration::from_secs(3 + 2);

/// A 503 is a no, but for what the aggregator had granted and not yet answered when it was stopped: a batch, of the 16 clients that then
/// wait with a payment each. One that grants after the time for it charges all 16.
const CHARGED_MAX: u64 = 12;

/// HAProxy's `timeout server` is 5 s: whoever is in the hands of a gateway that stands still is told 504 after it. Its clock goes by
/// milliseconds, and is read when it comes by. Two seconds more at the latest.
const SERVER_TIMEOUT: Duration = Duration::from_millis(5_000 - 100);
const SERVED_BY_STILL: Duration = Duration::from_secs(5 + 2);

/// A drain is done within 10 s (`DRAIN_MS_MAX` is 8 s); so judged, since an idle one takes milliseconds.
const DRAIN: Duration = Duration::from_secs(8);
const DRAINED: Duration = Duration::from_secs(10);

/// A processor that answers long after the drain.
const SILENT: Duration = Duration::from_secs(30);

/// Kills of one process in a row.
const STORM: usize = 20;

/// How often HAProxy reads its configuration again, with either kind of client.
const RELOADS: usize = 3;

/// Payments a second where the rate is part of the promise.
const RATE: u64 = 2_000;

type Case = fn(&mut World, &Way, &Tally) -> Result<(), String>;

/// Runs all groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    let groups: [(&str, &[(&str, Case)]); 3] = [
        ("processes that stand still", &STANDSTILLS),
        ("processes that are stopped", &STOPS),
        ("processes that are started twice", &DOUBLES),
    ];
    if !groups.iter().any(|(name, _)| tally.wants(name)) {
        return Ok(());
    }
    let mut world = World::start(programs, &Plan { name: "stops", haproxy: true, ..Plan::default() })?;
    let front = world.galo.ways().into_iter().find(Way::is_front).ok_or("no HAProxy")?;
    for (group, cases) in groups {
        if !tally.begin(group) {
            continue;
        }
        for (name, case) in cases {
            // A case begins when the one before it is over for HAProxy too.
            let begun = world.galo.until_up();
            let result = begun
                .and_then(|()| case(&mut world, &front, tally))
                .and_then(|()| world.check_well(&front))
                .and_then(|()| world.check_well(&world.galo.straight(0)))
                .and_then(|()| world.check_well(&world.galo.straight(1)));
            tally.case(name, result);
        }
        world.reconcile(tally);
    }
    tally.begin("the end");
    world.stop(tally);
    Ok(())
}

const STANDSTILLS: [(&str, Case); 6] = [
    ("the aggregator, for 5 s, straight", |world, _, tally| {
        let ways = vec![world.galo.straight(0), world.galo.straight(1)];
        let report = stand_still(world, "aggregator", STILL, &Load::new(ways, 16, 400))?;
        tally.note(&format!("aggregator still for 5 s, straight: {report}"));
        told_some(&report, 503)?;
        report.check_statuses(&[202, 503])?;
        report.check_not_sooner(503, ACCEPT_WAIT)?;
        report.check_everybody_told()?;
        if report.charged_though_refused > CHARGED_MAX {
            return Err(format!("a 503 was no \"no\": {report}"));
        }
        report.check_slowest(REFUSED_STRAIGHT)
    }),
    ("the aggregator, for 5 s, HAProxy", |world, front, tally| {
        let report = stand_still(world, "aggregator", STILL, &Load::new(vec![front.clone()], 16, 400))?;
        tally.note(&format!("aggregator still for 5 s, HAProxy: {report}"));
        told_some(&report, 503)?;
        report.check_statuses(&[202, 503])?;
        // A gateway whose ledger stands still is ready all the same: the link stands.
        report.check_not_sooner(503, ACCEPT_WAIT_FRONT)?;
        report.check_everybody_told()?;
        report.check_slowest(REFUSED_FRONT)
    }),
    ("the aggregator, five sixths of the time", |world, front, tally| {
        let galo = &world.galo;
        let ((), report) = Load::new(vec![front.clone()], 16, 400).beside(|| {
            for _ in 0..25 {
                galo.signal("aggregator", Signal::SIGSTOP)?;
                thread::sleep(Duration::from_millis(100));
                galo.signal("aggregator", Signal::SIGCONT)?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })?;
        tally.note(&format!("aggregator still five sixths of the time: {report}"));
        world.accepted.extend(report.accepted.clone());
        nobody_told_no(&report)?;
        report.check_slowest(REFUSED_FRONT)
    }),
    ("a gateway, for 4 s", |world, front, tally| {
        let load = Load::new(vec![front.clone()], 16, 400);
        let report = stand_still(world, "gateway-1", GATEWAY_STILL, &load)?;
        tally.note(&format!("gateway still for 4 s: {report}"));
        nobody_told_no(&report)?;
        report.check_slowest(SERVED_BY_STILL)
    }),
    ("a gateway, for 6 s: clients are told", |world, front, tally| {
        let load = Load::new(vec![front.clone()], 16, 400);
        let report = stand_still(world, "gateway-1", GATEWAY_STILL_TOO_LONG, &load)?;
        tally.note(&format!("gateway still for 6 s: {report}"));
        told_some(&report, 504)?;
        report.check_statuses(&[202, 504])?;
        report.check_not_sooner(504, SERVER_TIMEOUT)?;
        report.check_everybody_told()?;
        report.check_slowest(SERVED_BY_STILL)
    }),
    ("both gateways in turn, a second each", |world, front, tally| {
        let galo = &world.galo;
        let ((), report) = Load::new(vec![front.clone()], 16, 400).beside(|| {
            for name in ["gateway-1", "gateway-2", "gateway-1", "gateway-2"] {
                galo.signal(name, Signal::SIGSTOP)?;
                thread::sleep(Duration::from_secs(1));
                galo.signal(name, Signal::SIGCONT)?;
            }
            Ok(())
        })?;
        tally.note(&format!("gateways still in turn: {report}"));
        world.accepted.extend(report.accepted.clone());
        nobody_told_no(&report)?;
        report.check_slowest(SERVED_BY_STILL)
    }),
];

fn stand_still(world: &mut World, name: &str, still: Duration, load: &Load) -> Result<Report, String> {
    let galo = &world.galo;
    let ((), report) = load.beside(|| {
        thread::sleep(CALM);
        galo.signal(name, Signal::SIGSTOP)?;
        thread::sleep(still);
        galo.signal(name, Signal::SIGCONT)?;
        thread::sleep(CALM);
        Ok(())
    })?;
    world.accepted.extend(report.accepted.clone());
    Ok(report)
}

/// Nobody can have been served for so long, so somebody must have been told so.
fn told_some(report: &Report, status: u16) -> Result<(), String> {
    if report.statuses.contains_key(&status) {
        return Ok(());
    }
    Err(format!("nobody was told {status}: {report}"))
}

/// Everybody was answered, and each answer was 202, however late.
fn nobody_told_no(report: &Report) -> Result<(), String> {
    report.check_everybody_told()?;
    report.check_statuses(&[202])
}

const STOPS: [(&str, Case); 12] = [
    ("the aggregator, killed 20 times", |world, front, tally| storm(world, front, tally, "aggregator")),
    ("a gateway, killed 20 times", |world, front, tally| storm(world, front, tally, "gateway-1")),
    ("HAProxy, killed 20 times", |world, front, tally| storm(world, front, tally, "haproxy")),
    ("both gateways, dead for a second: clients are told", |world, front, tally| {
        let report = absent(world, front, tally, &["gateway-1", "gateway-2"])?;
        told_some(&report, 503)?;
        // Of an answer that a gateway had begun at its death HAProxy makes a 502.
        report.check_statuses(&[202, 502, 503])?;
        // Those with a request in a gateway's hands at its death may be hung up on, one for each client; nobody after that.
        if report.unanswered > 16 { report.check_everybody_told() } else { Ok(()) }
    }),
    ("the aggregator, dead for two seconds: clients wait, and are told", |world, front, tally| {
        let report = absent(world, front, tally, &["aggregator"])?;
        report.check_everybody_told()?;
        // The clients are there when it dies, and HAProxy tries three times for them. One that a busy machine held up until both
        // gateways were known to be unready is told after a single wait.
        report.check_statuses(&[202, 503])?;
        report.check_not_sooner(503, ACCEPT_WAIT)
    }),
    ("the aggregator is away and HAProxy knows: a newcomer is told after one wait", newcomer),
    ("a gateway is told to stop under 2,000/s: nobody notices", |world, front, tally| {
        stop_gateway(world, front, tally, "gateway-1", true)
    }),
    ("the other one, from clients with a connection for each payment", |world, front, tally| {
        stop_gateway(world, front, tally, "gateway-2", false)
    }),
    ("the aggregator is told to stop under 2,000/s", |world, front, tally| {
        let galo = &mut world.galo;
        let (took, report) = Load::new(vec![front.clone()], 40, RATE).beside(|| {
            thread::sleep(CALM);
            let took = stop(galo, "aggregator")?;
            galo.respawn("aggregator")?;
            thread::sleep(CALM);
            Ok(took)
        })?;
        tally.note(&format!("aggregator stopped in {took:.1?} and started again: {report}"));
        world.accepted.extend(report.accepted.clone());
        report.check_slowest(REFUSED_FRONT)?;
        // It is back within a fraction of the wait, so nobody is told no.
        report.check_nobody_noticed()
    }),
    ("a gateway that waits for its last attempt leaves its successor's socket alone", successor),
    (
        "a gateway is told to stop while a processor keeps silent: it leaves its attempts to the other one",
        hanging,
    ),
    ("HAProxy with a master reads its configuration again and again: nobody notices", reload),
];

/// Kills a process again and again, each time as soon as it serves.
fn storm(world: &mut World, front: &Way, tally: &Tally, name: &str) -> Result<(), String> {
    let served = match name {
        "aggregator" => Way::Straight(world.galo.socket("aggregator-http")),
        "haproxy" => front.clone(),
        _ => world.galo.straight(0),
    };
    let galo = &mut world.galo;
    let started = Instant::now();
    let ((), report) = Load::new(vec![front.clone()], 16, 400).beside(|| {
        for _ in 0..STORM {
            galo.kill(name)?;
            galo.respawn(name)?;
            galo.until("it serves again", || {
                Ok(served.ask("GET", "/health", "").is_ok_and(|answer| answer.status == 200).then_some(()))
            })?;
        }
        Ok(())
    })?;
    tally.note(&format!("{name} killed {STORM} times in {:.1?}: {report}", started.elapsed()));
    world.accepted.extend(report.accepted.clone());
    // Only HAProxy's own death may take answers with it; those that come say yes.
    if name == "haproxy" { report.check_statuses(&[202]) } else { nobody_told_no(&report) }
}

/// Nobody can pay for a while, and everybody hears of it.
fn absent(world: &mut World, front: &Way, tally: &Tally, names: &[&str]) -> Result<Report, String> {
    let galo = &mut world.galo;
    let ((), report) = Load::new(vec![front.clone()], 16, 400).beside(|| {
        thread::sleep(CALM);
        for name in names {
            galo.kill(name)?;
        }
        thread::sleep(Duration::from_secs(2) / u32::try_from(names.len()).unwrap_or(1));
        for name in names {
            galo.respawn(name)?;
        }
        galo.until("ready again", || {
            Ok(front.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
        thread::sleep(CALM);
        Ok(())
    })?;
    tally.note(&format!("{} dead for a while: {report}", names.join(" and ")));
    world.accepted.extend(report.accepted.clone());
    report.check_slowest(REFUSED_FRONT)?;
    Ok(report)
}

/// While neither gateway is ready, HAProxy has nobody better to ask: a gateway's 503 is final, and it was a no.
fn newcomer(world: &mut World, front: &Way, _: &Tally) -> Result<(), String> {
    world.galo.kill("aggregator")?;
    world.galo.until_down()?;
    let id = world.galo.fresh_id();
    let started = Instant::now();
    let answer = front.ask("POST", "/payments", &payment_json(&id, 720));
    let took = started.elapsed();
    world.galo.respawn("aggregator")?;
    world.galo.until_up()?;
    let answer = answer?;
    if answer.status != 503 || answer.header("retry-after").is_none() {
        return Err(format!("without a ledger a payment is answered {} {}", answer.status, answer.text()));
    }
    if took < ACCEPT_WAIT || took > REFUSED_STRAIGHT {
        return Err(format!("refused after {took:.1?}"));
    }
    if world.pay(front, &id, 720)?.header("idempotent-replayed").is_some() {
        return Err("it was refused and counts as a replay".to_owned());
    }
    Ok(())
}

/// Tells a process to stop; it must end with 0, and says how long that took.
fn stop(galo: &mut crate::galo::Galo, name: &str) -> Result<Duration, String> {
    let started = Instant::now();
    galo.signal(name, Signal::SIGTERM)?;
    let status = galo.ended(name)?;
    if !status.success() {
        return Err(format!("{name} ended with {status}"));
    }
    Ok(started.elapsed())
}

fn stop_gateway(
    world: &mut World,
    front: &Way,
    tally: &Tally,
    name: &str,
    is_kept: bool,
) -> Result<(), String> {
    let galo = &mut world.galo;
    let load = Load { is_kept, ..Load::new(vec![front.clone()], 40, RATE) };
    let (took, report) = load.beside(|| {
        thread::sleep(CALM);
        let took = stop(galo, name)?;
        thread::sleep(CALM);
        galo.respawn(name)?;
        let way = Way::Straight(galo.socket(name));
        galo.until("it is ready again", || {
            Ok(way.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
        thread::sleep(CALM);
        Ok(took)
    })?;
    tally.note(&format!("{name} stopped in {took:.1?} and started again: {report}"));
    world.accepted.extend(report.accepted.clone());
    if took > DRAINED {
        return Err(format!("{name} took {took:.1?} to drain"));
    }
    report.check_nobody_noticed()
}

/// A gateway that still waits for its attempts listens no more; another one may take its place before it has gone.
fn successor(world: &mut World, front: &Way, _: &Tally) -> Result<(), String> {
    let straight = world.galo.straight(0);
    let slow = Act::new(true, processed(), Then::Stay).in_pieces(usize::MAX, Duration::from_secs(3));
    let id = world.galo.fresh_id();
    for processor in [&world.default, &world.fallback] {
        processor.script(&id, [slow.clone()]);
    }
    world.pay(&straight, &id, 700)?;
    let recipe = world.galo.recipe("gateway-1")?;
    world.galo.signal("gateway-1", Signal::SIGTERM)?;
    let deadline = Instant::now() + STILL;
    let mut second = loop {
        let mut second = world.galo.start_process("gateway-1-successor", &recipe)?;
        thread::sleep(Duration::from_millis(400));
        match second.try_wait() {
            Ok(None) => break second,
            // It found the first one still listening.
            Ok(Some(status)) if status.code() == Some(71) && Instant::now() < deadline => {}
            other => {
                return Err(format!("the successor: {other:?}: {}", world.galo.said("gateway-1-successor")));
            }
        }
    };
    let result = (|| {
        if !world.galo.ended("gateway-1")?.success() {
            return Err("the first one did not end with 0".to_owned());
        }
        world.check_well(&straight).map_err(|error| format!("when the first one has gone: {error}"))?;
        world.galo.settle()?;
        // It waited for its attempt: one that left it to others would have made them ask again.
        let posts = [world.default.posts(&id).len(), world.fallback.posts(&id).len()];
        if posts.iter().sum::<usize>() == 1 {
            Ok(())
        } else {
            Err(format!("{posts:?} attempts for one payment"))
        }
    })();
    // Not one of the world's: it makes room for one that is.
    second.kill().map_err(|error| error.to_string())?;
    wait(&mut second)?;
    world.galo.respawn("gateway-1")?;
    for way in [&straight, front] {
        world.galo.until("ready again", || {
            Ok(way.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
    }
    result
}

/// An attempt that hangs holds a gateway up no longer than a drain may take. What came of it is unknown, so whoever gets the payment asks
/// the same processor again, with the same `requestedAt`, until it answers.
fn hanging(world: &mut World, front: &Way, tally: &Tally) -> Result<(), String> {
    let straight = world.galo.straight(0);
    let mut ids = Vec::new();
    for stores in [true, false] {
        let id = world.galo.fresh_id();
        let silent = Act::new(stores, processed(), Then::Stay).in_pieces(usize::MAX, SILENT);
        // The other gateway's first attempt ends without an answer too: still nobody may cross over.
        let cut = Act::new(false, "", Then::Close);
        for processor in [&world.default, &world.fallback] {
            processor.script(&id, [silent.clone(), cut.clone()]);
        }
        world.pay(&straight, &id, 730)?;
        ids.push(id);
    }
    let posts = |world: &World, id: &str| [world.default.posts(id), world.fallback.posts(id)];
    let deadline = Instant::now() + PATIENCE;
    while ids.iter().any(|id| posts(world, id).concat().is_empty()) {
        if Instant::now() > deadline {
            return Err("no processor was asked".to_owned());
        }
        thread::sleep(Duration::from_millis(2));
    }
    let from = world.galo.said("gateway-1").len();
    let started = Instant::now();
    world.galo.signal("gateway-1", Signal::SIGTERM)?;
    let meanwhile = world.check_well(front);
    let ended = world.galo.ended("gateway-1");
    let took = started.elapsed();
    if ended.is_err() {
        // The cases behind this one need another.
        world.galo.kill("gateway-1")?;
    }
    let said = world.galo.said("gateway-1")[from..].to_owned();
    tally.note(&format!("gateway-1 stopped in {took:.1?} with two attempts that hang"));
    let settled = world.galo.settle();
    world.galo.respawn("gateway-1")?;
    world.galo.until_up()?;
    meanwhile?;
    let status = ended?;
    settled?;
    if !status.success() || took > DRAINED {
        return Err(format!("it ended with {status} after {took:.1?}"));
    }
    // Nothing came of them until the drain was over, so it says what it leaves behind. A shorter wait would give up attempts that answer.
    if !said.contains("2 payments are still on their way") || took < DRAIN {
        return Err(format!("it ended after {took:.1?} and said {said:?}"));
    }
    for id in &ids {
        let posts = posts(world, id);
        let all = posts.concat();
        // The hanging one, the one that was cut, and one that was answered.
        if !posts.iter().any(Vec::is_empty) || all.len() != 3 || all.iter().any(|payment| *payment != all[0])
        {
            return Err(format!("{id} was sent as {posts:?}"));
        }
        check_view(&processed_at(&straight, id)?, id, &world.default, &world.fallback)?;
    }
    Ok(())
}

/// The processes that HAProxy's master has started and not yet buried.
fn workers(galo: &crate::galo::Galo) -> Result<Vec<String>, String> {
    let master = galo.pid("haproxy")?;
    let path = format!("/proc/{master}/task/{master}/children");
    let children = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(children.split_whitespace().map(str::to_owned).collect())
}

/// `-W`: a master that starts a worker with the new configuration, hands it the listening sockets, and lets the old one finish.
fn reload(world: &mut World, front: &Way, tally: &Tally) -> Result<(), String> {
    let mut recipe = world.galo.recipe("haproxy")?;
    let plain = recipe.clone();
    recipe.arguments.retain(|argument| argument != "-db");
    recipe.arguments.insert(0, "-W".to_owned());
    world.galo.kill("haproxy")?;
    world.galo.spawn("haproxy", recipe)?;
    let ready = |world: &mut World| {
        world.galo.until("HAProxy serves", || {
            Ok(front.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
        })
    };
    ready(world)?;
    let galo = &world.galo;
    let mut results = Vec::new();
    for is_kept in [false, true] {
        let load = Load { is_kept, ..Load::new(vec![front.clone()], 40, 1_000) };
        let ((), report) = load.beside(|| {
            thread::sleep(CALM);
            for _ in 0..RELOADS {
                let before = workers(galo)?;
                galo.signal("haproxy", Signal::SIGUSR2)?;
                // The next one when this one is done: the old worker has gone.
                let deadline = Instant::now() + PATIENCE;
                while !matches!(&workers(galo)?[..], [worker] if !before.contains(worker)) {
                    if Instant::now() > deadline {
                        return Err(format!("HAProxy's workers were {before:?}, are {:?}", workers(galo)?));
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            }
            Ok(())
        })?;
        let kept = if is_kept { "kept connections" } else { "a connection for each payment" };
        tally.note(&format!("HAProxy reloaded {RELOADS} times, {kept}: {report}"));
        world.accepted.extend(report.accepted.clone());
        // An idle connection may be ended at the very moment of its client's next request; no server can help that. Whoever is
        // answered is answered 202 all the same.
        let is_race = is_kept && report.unanswered <= RELOADS as u64;
        results.push(if is_race { report.check_statuses(&[202]) } else { report.check_nobody_noticed() });
    }
    world.galo.signal("haproxy", Signal::SIGTERM)?;
    world.galo.ended("haproxy")?;
    world.galo.spawn("haproxy", plain)?;
    ready(world)?;
    results.into_iter().collect()
}

const DOUBLES: [(&str, Case); 6] = [
    ("two aggregators on one journal", |world, _, _| refuses(world, "aggregator", &[], "another aggregator")),
    ("two aggregators on the same sockets", |world, _, _| {
        let elsewhere = world.galo.folder().join("another-journal");
        let changed = [("JOURNAL_DIR", elsewhere.display().to_string())];
        refuses(world, "aggregator", &changed, "another process listens on")
    }),
    ("two aggregators on the same socket for metrics", |world, _, _| {
        let elsewhere = world.galo.folder().join("a-third-journal");
        let changed = [
            ("JOURNAL_DIR", elsewhere.display().to_string()),
            ("AGGREGATOR_SOCKET", world.galo.socket("another").display().to_string()),
        ];
        refuses(world, "aggregator", &changed, "another process listens on")
    }),
    ("two gateways on one socket", |world, _, _| {
        refuses(world, "gateway-1", &[], "another process listens on")
    }),
    ("everybody killed: what is left of the sockets is replaced", |world, front, _| {
        let names = ["gateway-1", "gateway-2", "aggregator"];
        for name in names {
            world.galo.kill(name)?;
        }
        for name in names {
            if !world.galo.socket(name).exists() {
                return Err(format!("the case needs a stale socket of {name}"));
            }
            world.galo.respawn(name)?;
        }
        for way in [front.clone(), world.galo.straight(0), world.galo.straight(1)] {
            world.galo.until("ready again", || {
                Ok(way.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
            })?;
        }
        Ok(())
    }),
    ("sockets and journal are nobody else's", |world, _, _| {
        for name in ["gateway-1", "gateway-2", "aggregator", "aggregator-http"] {
            has_mode(&world.galo.socket(name), 0o660)?;
        }
        let journal = world.galo.folder().join("journal");
        has_mode(&journal, 0o700)?;
        let files = fs::read_dir(&journal).map_err(|error| error.to_string())?;
        let mut count = 0;
        for file in files {
            has_mode(&file.map_err(|error| error.to_string())?.path(), 0o600)?;
            count += 1;
        }
        if count < 2 { Err(format!("{count} files in the journal's folder")) } else { Ok(()) }
    }),
];

fn has_mode(path: &Path, mode: u32) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found = metadata.permissions().mode() & 0o7777;
    if found == mode { Ok(()) } else { Err(format!("{} has mode {found:o}, not {mode:o}", path.display())) }
}

/// A second process like the first ends with 71 and one line, and the first one never notices.
fn refuses(
    world: &mut World,
    name: &str,
    changed: &[(&'static str, String)],
    line: &str,
) -> Result<(), String> {
    let sockets = |world: &World| -> Vec<(u64, u64)> {
        ["gateway-1", "gateway-2", "aggregator", "aggregator-http"]
            .iter()
            .filter_map(|name| fs::metadata(world.galo.socket(name)).ok())
            .filter(|metadata| metadata.file_type().is_socket())
            .map(|metadata| (metadata.dev(), metadata.ino()))
            .collect()
    };
    let before = sockets(world);
    let log = format!("{name}-twice-{}", changed.len());
    let mut recipe = world.galo.recipe(name)?;
    recipe.environment.extend(changed.iter().cloned());
    // Only what is wrong.
    recipe.environment.push(("LOG", "error".to_owned()));
    let mut second = world.galo.start_process(&log, &recipe)?;
    let status = wait(&mut second)?;
    let said = world.galo.said(&log);
    if status.code() != Some(71) || said.lines().count() != 1 || !said.contains(line) {
        return Err(format!("the second one: {status}, {said:?}"));
    }
    if before.len() != 4 || sockets(world) != before {
        return Err(format!("sockets {before:?} are now {:?}", sockets(world)));
    }
    Ok(())
}
