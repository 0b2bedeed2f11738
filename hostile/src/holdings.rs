//! As many payments as may be open, under the compose file's limits: gateways and aggregator die, and all of it is claimed or handed over at once.
//!
//! Nothing is dispatched meanwhile, since both processors refuse. A peer that is a gateway for the aggregator has had so many payments processed that
//! the ledger remembers as many ids, and keeps as much time to the millisecond, as it may; then it opens the payments and goes, so that they reach the real
//! gateways as a hand-over. Then one process after the other is killed, and two at once. After each step nothing is lost, and the kernel has killed
//! nobody for want of memory.
//!
//! The limits are what [`ABSENT`] has left of the compose file's. At the end all is purged, and Galo is as new. With `--drain` the ledger knows nothing else,
//! the processors work again at the end, and everything stands in their books once; that takes minutes.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::cgroups::{Cgroup, Limit};
use crate::client::Way;
use crate::galo::{self, Programs, metrics, sum};
use crate::load::Load;
use crate::peer::{ACCEPT, COMPLETION, GRANT, LOOKUP_QUERY, LOOKUP_REPLY, Peer, frame, header};
use crate::processor::{Act, Then, plain};
use crate::tally::Tally;
use crate::world::World;

/// `OPEN_LEN_MAX`.
const OPEN: usize = 450_000;

/// Payments that were processed before: more than `KNOWN_LEN_MAX`, and one for each millisecond that `BUCKET_BYTES_MAX` has room for.
const ENDED: usize = 2_200_000;

/// What a gateway's limit is for and is not there: 400 connections with a request each, and as many lanes to either processor
/// (docs/ARCHITECTURE.md, bounds).
const ABSENT: [(&str, u64); 2] = [("gateway-1", 25 << 20), ("gateway-2", 25 << 20)];

/// Accepts of a frame.
const BATCH: usize = 1_000;

/// Room for the clients' own payments.
const ROOM: usize = 2_000;

/// The limits, and how many payments.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) limits: Vec<(String, Limit)>,
    pub(crate) drain: bool,
}

/// Runs the group.
pub(crate) fn run(programs: &Programs, plan: &Plan, tally: &mut Tally) -> Result<(), String> {
    if !tally.begin("all payments in one gateway") {
        return Ok(());
    }
    let none = || plan.limits.is_empty().then(|| "no --limit is given".to_owned());
    if let Some(reason) = Cgroup::unavailable().or_else(none) {
        tally.leave_out(&reason);
        return Ok(());
    }
    let environment =
        vec![("HEALTH_INTERVAL_MS", "3600000".to_owned()), ("PURGE_ALLOWED", "true".to_owned())];
    let mut limits = plan.limits.clone();
    for (name, limit) in &mut limits {
        let absent = ABSENT.iter().find(|(of, _)| of == name).map_or(0, |(_, bytes)| *bytes);
        limit.memory_bytes = limit.memory_bytes.saturating_sub(absent);
    }
    let plan_of_galo =
        galo::Plan { name: "holdings", haproxy: true, environment, limits, ..galo::Plan::default() };
    let mut world = World::start(programs, &plan_of_galo)?;
    let down = Act::new(false, plain(500, "X", ""), Then::Stay);
    for processor in [&world.default, &world.fallback] {
        processor.set_mood(Some(down.clone()));
    }
    let filled = OPEN - ROOM;
    let front = world.galo.ways().into_iter().find(Way::is_front).ok_or("no HAProxy")?;
    let mut steps = Steps { world: &mut world, tally, filled, failed: false };
    let load = Load::new(vec![front], 4, 20);
    if !plan.drain {
        steps.filled = 0;
        steps.step("a full ledger", |world| {
            let aggregator = world.galo.cgroup("aggregator")?.clone();
            aggregator.set_quota(None)?;
            process(world, ENDED)?;
            let limit = plan.limits.iter().find(|(name, _)| name == "aggregator");
            aggregator.set_quota(limit.map(|(_, limit)| limit.quota_us))
        });
        steps.filled = filled;
    }
    steps.step("half of them in each gateway", |world| open(world, filled));
    let ((), report) = load.beside(|| {
        steps.step("a gateway is killed", |world| {
            world.galo.kill("gateway-2")?;
            settle(world, &[0])
        });
        steps.step("the aggregator is killed, and claimed from", |world| {
            world.galo.kill("aggregator")?;
            world.galo.respawn("aggregator")?;
            answers(world, 0)?;
            settle(world, &[0])
        });
        steps.step("the gateway is back", |world| {
            world.galo.respawn("gateway-2")?;
            settle(world, &[0, 1])
        });
        steps.step("the other one is killed", |world| {
            world.galo.kill("gateway-1")?;
            settle(world, &[1])
        });
        steps.step("the aggregator is killed, and has to write a snapshot beside the claims", |world| {
            world.galo.kill("aggregator")?;
            damage(&newest_snapshot(&world.galo.folder().join("journal"))?)?;
            world.galo.respawn("aggregator")?;
            answers(world, 1)?;
            settle(world, &[1])
        });
        steps.step("both gateways again", |world| {
            world.galo.respawn("gateway-1")?;
            settle(world, &[0, 1])
        });
        steps.step("a gateway is told to stop", |world| {
            world.galo.signal("gateway-2", Signal::SIGTERM)?;
            let status = world.galo.ended("gateway-2")?;
            if !status.success() {
                return Err(format!("it ends with {status}"));
            }
            settle(world, &[0])?;
            world.galo.respawn("gateway-2")?;
            settle(world, &[0, 1])
        });
        steps.step("a gateway and the aggregator are killed at once", |world| {
            world.galo.kill("gateway-1")?;
            world.galo.kill("aggregator")?;
            world.galo.respawn("aggregator")?;
            world.galo.respawn("gateway-1")?;
            answers(world, 1)?;
            settle(world, &[0, 1])
        });
        Ok(())
    })?;
    let failed = steps.failed;
    tally.note(&format!("clients meanwhile: {report}"));
    if failed {
        return Ok(());
    }
    tally.case("every client is told", report.check_statuses(&[202, 502, 503, 504]));
    if !plan.drain {
        tally.case("a purge, and Galo is as new", purge(&mut world));
        world.stop(tally);
        return Ok(());
    }
    world.accepted.extend(report.accepted);
    world.accepted.extend((0..filled).map(|number| (id_of(number), cents_of(number))));
    for name in ["haproxy", "gateway-1", "gateway-2", "aggregator"] {
        world.galo.cgroup(name)?.set_quota(None)?;
    }
    for processor in [&world.default, &world.fallback] {
        processor.set_mood(None);
    }
    let begin = Instant::now();
    let aggregator = world.galo.aggregator();
    while sum(&metrics(&aggregator)?, "galo_payments_open") > 0 && begin.elapsed() < drain_limit(filled) {
        thread::sleep(Duration::from_millis(50));
    }
    tally.note(&format!("all processed after {:.1?}", begin.elapsed()));
    world.reconcile(tally);
    world.stop(tally);
    Ok(())
}

fn drain_limit(filled: usize) -> Duration {
    Duration::from_secs(20 + filled as u64 / 500)
}

struct Steps<'a> {
    world: &'a mut World,
    tally: &'a mut Tally,
    filled: usize,
    failed: bool,
}

impl Steps<'_> {
    /// Does it, waits until that has come to rest, and judges what it took.
    fn step(&mut self, name: &str, act: impl FnOnce(&mut World) -> Result<(), String>) {
        if self.failed {
            return;
        }
        let begin = Instant::now();
        let result = act(self.world);
        let took = begin.elapsed();
        let figures = figures(self.world);
        let result = result
            .and_then(|()| check(self.world, self.filled))
            .map(|()| format!("{took:.1?}; {figures}"))
            .map_err(|error| format!("{error}; after {took:.1?}; {figures}"));
        self.failed |= result.is_err();
        self.tally.figures(name, result);
    }
}

/// Of every process: its own peak, and its cgroup's.
fn figures(world: &World) -> String {
    let of = |name: &str| -> String {
        let peak_kib = world.galo.peak_kib(name).map_or("dead".to_owned(), |kib| tenths(kib * 1024));
        let (group, kills) =
            world.galo.cgroup(name).map_or((0, 0), |cgroup| (cgroup.peak_bytes(), cgroup.kills()));
        let held = match name.rsplit_once("gateway-").and_then(|(_, number)| number.parse::<usize>().ok()) {
            Some(number) => metrics(&world.galo.straight(number - 1))
                .map_or(String::new(), |page| format!(" with {}", sum(&page, "galo_gateway_payments_held"))),
            None => String::new(),
        };
        format!("{name}{held} {peak_kib} (group {}, killed {kills})", tenths(group))
    };
    ["aggregator", "gateway-1", "gateway-2", "haproxy"].map(of).join(", ")
}

fn tenths(bytes: u64) -> String {
    let tenths = (bytes * 10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// Nobody was killed for memory, and nothing is lost.
fn check(world: &mut World, filled: usize) -> Result<(), String> {
    for name in ["aggregator", "gateway-1", "gateway-2", "haproxy"] {
        match world.galo.cgroup(name)?.kills() {
            0 => {}
            kills => return Err(format!("{name} was killed {kills} times for want of memory")),
        }
    }
    world.galo.check_alive()?;
    let page = metrics(&world.galo.aggregator())?;
    let count = |name: &str| sum(&page, name);
    let (accepted, open) = (count("galo_payments_accepted_total"), count("galo_payments_open"));
    let ended = count("galo_payments_processed_total") + count("galo_payments_declined_total");
    if accepted != open + ended || open < filled as u64 {
        return Err(format!("{accepted} accepted, {open} open, {ended} ended, and {filled} were opened"));
    }
    Ok(())
}

/// Opens so many payments as a gateway of its own, which then dies.
fn open(world: &mut World, count: usize) -> Result<(), String> {
    let mut peer = Peer::greeted(&world.galo.socket("aggregator"), 9)?;
    for first in (0..count).step_by(BATCH) {
        let numbers = first..(first + BATCH).min(count);
        // Waiting, and for any.
        accept(&mut peer, numbers.clone(), |_| (0, 0, 8))?;
    }
    drop(peer);
    settle(world, &[0, 1])
}

/// Has so many others processed, by both processors in turn and a millisecond apart.
fn process(world: &World, count: usize) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    let now_ms = u64::try_from(now.as_millis()).map_err(|error| error.to_string())?;
    let mut peer = Peer::greeted(&world.galo.socket("aggregator"), 9)?;
    for first in (0..count).step_by(BATCH) {
        let at_ms = |number: usize| now_ms - (count - (number - OPEN)) as u64 / 2;
        let numbers = OPEN + first..OPEN + (first + BATCH).min(count);
        let processor = |number: usize| u8::from(number % 2 == 1);
        accept(&mut peer, numbers.clone(), |number| (at_ms(number), 1 + processor(number), 0))?;
        let completion = |number: usize| {
            let mut record = ((number - OPEN + 1) as u64).to_le_bytes().to_vec();
            record.extend(id_bytes_of(number));
            record.extend(at_ms(number).to_le_bytes());
            record.extend([processor(number), 0, 0, 0]);
            record
        };
        peer.send(&batch(COMPLETION, numbers.map(completion))?)?;
    }
    // Whose answer comes behind all that.
    peer.send(&frame(LOOKUP_QUERY, &[&[0; 4], &id_bytes_of(OPEN)]))?;
    peer.until(LOOKUP_REPLY).map(drop)
}

/// Asks for these payments, as docs/protocol.md draws it, with the `decided_at_ms`, stage and reason that `plan` has for each.
fn accept(
    peer: &mut Peer,
    numbers: Range<usize>,
    plan: impl Fn(usize) -> (u64, u8, u8),
) -> Result<(), String> {
    let count = numbers.len();
    let record = |number: usize| {
        let (decided_at_ms, stage, reason) = plan(number);
        let mut record = vec![0; 4];
        record.extend(id_bytes_of(number));
        record.extend(cents_of(number).to_le_bytes());
        record.extend(decided_at_ms.to_le_bytes());
        record.extend(u64::MAX.to_le_bytes());
        record.extend([stage, reason]);
        record
    };
    peer.send(&batch(ACCEPT, numbers.map(record))?)?;
    match peer.count(GRANT, count, 0)?[..] {
        [] => Ok(()),
        [first, ..] => Err(format!("an accept is answered {first} instead of a grant")),
    }
}

/// A frame of records.
fn batch(kind: u8, records: impl Iterator<Item = Vec<u8>>) -> Result<Vec<u8>, String> {
    let records: Vec<_> = records.collect();
    let len = u16::try_from(records.len()).map_err(|error| error.to_string())?;
    let body = records.concat();
    let size = u32::try_from(body.len()).map_err(|error| error.to_string())?;
    Ok([header(size, kind, 0, len), body].concat())
}

/// Everything is forgotten, the processors work, and a payment is taken and processed.
fn purge(world: &mut World) -> Result<(), String> {
    let way = world.galo.straight(0);
    let answer = way.ask("POST", "/purge-payments", "")?;
    if answer.status != 200 {
        return Err(format!("a purge is answered {} {}", answer.status, answer.text()));
    }
    for processor in [&world.default, &world.fallback] {
        processor.set_mood(None);
    }
    world.check_well(&way)?;
    world.galo.settle()?;
    for gateway in 0..2 {
        let held = sum(&metrics(&world.galo.straight(gateway))?, "galo_gateway_payments_held");
        if held > 0 {
            return Err(format!("gateway {} holds {held} payments after a purge", gateway + 1));
        }
    }
    Ok(())
}

/// Ids as clients draw them, and the same each time.
fn id_bytes_of(number: usize) -> [u8; 16] {
    let mixed = |salt: u64| {
        let mut bits = (number as u64).wrapping_mul(2).wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    };
    // Version 4, variant 1.
    let (high, low) = (mixed(0) & !0xf000 | 0x4000, mixed(1) << 2 >> 2 | 1 << 63);
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

fn id_of(number: usize) -> String {
    let id = u128::from_be_bytes(id_bytes_of(number));
    let part = |shift: u32, mask: u128| id >> shift & mask;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 0xffff_ffff),
        part(80, 0xffff),
        part(64, 0xffff),
        part(48, 0xffff),
        part(0, 0xffff_ffff_ffff)
    )
}

fn cents_of(number: usize) -> u64 {
    1 + number as u64 % 10_000
}

/// Waits until what these gateways hold changes no more but by the clients' payments.
fn settle(world: &mut World, gateways: &[usize]) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut before = 0;
    loop {
        world.galo.check_alive()?;
        let mut held = 0;
        let mut all_answer = true;
        for gateway in gateways {
            match metrics(&world.galo.straight(*gateway)) {
                Ok(page) => held += sum(&page, "galo_gateway_payments_held"),
                Err(_) => all_answer = false,
            }
        }
        if all_answer && held > 0 && held.abs_diff(before) < 100 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the gateways do not come to rest; they hold {held}"));
        }
        before = held;
        thread::sleep(Duration::from_millis(300));
    }
}

/// Waits until a gateway answers what only the aggregator knows.
fn answers(world: &mut World, gateway: usize) -> Result<(), String> {
    let begin = Instant::now();
    let (way, target) = (world.galo.straight(gateway), format!("/payments/{}", id_of(0)));
    world.galo.until("a payment can be looked up", || {
        let answer = way.ask("GET", &target, "");
        Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
    })?;
    println!("     answers after {:.1?}", begin.elapsed());
    Ok(())
}

fn newest_snapshot(journal: &Path) -> Result<PathBuf, String> {
    let names = fs::read_dir(journal).map_err(|error| format!("{}: {error}", journal.display()))?;
    let paths = names.filter_map(|entry| Some(entry.ok()?.path()));
    let snapshots = paths.filter(|path| path.extension().is_some_and(|it| it == "snapshot"));
    snapshots.max().ok_or_else(|| "there is no snapshot".to_owned())
}

/// Flips a bit in the middle: the start reads the one before, and writes a new one at once.
fn damage(path: &Path) -> Result<(), String> {
    let damaged = || -> std::io::Result<()> {
        let mut bytes = fs::read(path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes)
    };
    damaged().map_err(|error| format!("{}: {error}", path.display()))
}
