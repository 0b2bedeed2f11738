//! Descriptors, disk, memory and CPU that run out, and come back; and clocks that are set.
//!
//! The limits are real ones: `RLIMIT_NOFILE` of the child, a tmpfs of a few megabytes in a mount namespace of our own, bounds from the
//! environment, and busy threads beside processes of the lowest priority. The machine's clock is nobody's to set, so what Galo's
//! processes read of it is bent by Debian's libfaketime. Whoever may not mount, or has no libfaketime, is told which cases were left
//! out, and fails if he wanted none to be (`--strict`); the simulator sets the clocks of its processes in any case.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;

use crate::client::{Connection, PATIENCE, Way};
use crate::galo::{Plan, Programs, metrics, sum};
use crate::load::Load;
use crate::mounts;
use crate::peer::Peer;
use crate::processor::{Act, Then, plain};
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// Open files of a gateway and of the aggregator: some twenty more than they have at rest. An even and an odd number, as whoever
/// needs two for a connection gets on with one of them only.
const DESCRIPTORS_MAX: [(u64, &str); 3] = [(64, "never"), (65, "always"), (64, "interval:100")];

/// Connections that take them, and fit the kernel's queue where they do not (128).
const CROWD: usize = 140;

/// Recovery within 1 s is the promise; one more for the machine.
const RECOVERED: Duration = Duration::from_secs(2);

/// CPU in a second without descriptors: a few tries to accept. A loop without a pause takes what the machine has.
const IDLE_CPU_MS_MAX: u64 = 300;

/// `ACCEPT_WAIT_MS_MAX` is 1 s, HAProxy tries three times, two seconds more for the machine.
const ACCEPT_WAIT: Duration = Duration::from_secs(1);
const REFUSED: Duration = Duration::from_secs(5);

/// HAProxy's `timeout server` is 5 s; its clock goes by milliseconds, and is read when it comes by.
const SERVER_TIMEOUT: Duration = Duration::from_millis(5_000 - 100);

const DISK_BYTES: usize = 20 << 20;

/// Runs all groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    if tally.begin("descriptors run out") {
        for (max, sync) in DESCRIPTORS_MAX {
            let limits = vec![("gateway-1", max), ("aggregator", max)];
            // Files of 85 records, and a snapshot after twice as many.
            let environment =
                [("SEGMENT_BYTES", "4096"), ("SNAPSHOT_EVERY_BYTES", "8192"), ("JOURNAL_SYNC", sync)];
            let environment = environment.map(|(name, value)| (name, value.to_owned())).into();
            let plan = Plan { name: "descriptors", descriptors_max: limits, environment, ..Plan::default() };
            let mut world = World::start(programs, &plan)?;
            let result = gateway_descriptors(&mut world, max, tally);
            tally.case(&format!("a gateway's {max}"), result);
            let result = aggregator_descriptors(&mut world, max, tally);
            tally.case(&format!("the aggregator's {max}, JOURNAL_SYNC={sync}"), result);
            world.reconcile(tally);
            world.stop(tally);
        }
    }
    if tally.begin("memory at its bound") {
        memory(programs, tally)?;
    }
    if tally.begin("CPU that others take") {
        let mut world = World::start(programs, &Plan { name: "starved", haproxy: true, ..Plan::default() })?;
        let result = starved(&mut world, tally);
        tally.case("two busy threads for each core, and everybody of Galo at the lowest priority", result);
        world.reconcile(tally);
        world.stop(tally);
    }
    if tally.begin("clocks that are set") {
        clocks(programs, tally)?;
    }
    if tally.begin("the journal's disk") {
        disk(programs, tally)?;
    }
    Ok(())
}

/// How many files a process has open.
pub(crate) fn descriptors(world: &World, name: &str) -> Result<u64, String> {
    let folder = format!("/proc/{}/fd", world.galo.pid(name)?);
    fs::read_dir(&folder).map(|files| files.count() as u64).map_err(|error| format!("{folder}: {error}"))
}

/// Waits until there are none left, then measures a second.
fn starve(world: &mut World, name: &str, max: u64) -> Result<u64, String> {
    let deadline = Instant::now() + PATIENCE;
    while descriptors(world, name)? < max {
        if Instant::now() > deadline {
            return Err(format!("{name} has {} of {max} files open", descriptors(world, name)?));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let before = world.galo.cpu_ms(name)?;
    thread::sleep(Duration::from_secs(1));
    Ok(world.galo.cpu_ms(name)? - before)
}

fn gateway_descriptors(world: &mut World, max: u64, tally: &Tally) -> Result<(), String> {
    let way = world.galo.straight(0);
    let mut regular = Connection::open(&way)?;
    let pay = |world: &mut World, regular: &mut Connection| -> Result<(), String> {
        let id = world.galo.fresh_id();
        let answer = regular.request("POST", "/payments", &payment_json(&id, 510))?;
        if answer.status != 202 {
            return Err(format!("who is connected is answered {} {}", answer.status, answer.text()));
        }
        world.accepted.insert(id, 510);
        Ok(())
    };
    pay(world, &mut regular)?;
    let crowd: Vec<Connection> = (0..CROWD).map(|_| Connection::open(&way)).collect::<Result<_, _>>()?;
    let cpu_ms = starve(world, "gateway-1", max)?;
    pay(world, &mut regular)?;
    drop(crowd);
    let started = Instant::now();
    world.check_well(&way)?;
    finish(tally, "a gateway", cpu_ms, started.elapsed())
}

fn segments(world: &World) -> Result<u64, String> {
    Ok(sum(&metrics(&Way::Straight(world.galo.socket("aggregator-http")))?, "galo_journal_segments_total"))
}

fn aggregator_descriptors(world: &mut World, max: u64, tally: &Tally) -> Result<(), String> {
    let socket = world.galo.socket("aggregator");
    let begun_before = segments(world)?;
    let crowd: Vec<Peer> = (0..CROWD)
        .map(|_| {
            let mut peer = Peer::connect(&socket)?;
            peer.send(&crate::peer::hello(crate::peer::VERSION, 0, 99))?;
            Ok(peer)
        })
        .collect::<Result<_, String>>()?;
    let cpu_ms = starve(world, "aggregator", max)?;
    // Gateways that are connected go on, however many files the journal begins; one that comes now has to wait.
    for _ in 0..PAYMENTS_WITHOUT_DESCRIPTORS {
        world.check_well(&world.galo.straight(0))?;
    }
    world.galo.kill("gateway-2")?;
    world.galo.respawn("gateway-2")?;
    let way = world.galo.straight(1);
    world.galo.until("gateway-2 listens", || {
        Ok(way.ask("GET", "/health", "").is_ok_and(|answer| answer.status == 200).then_some(()))
    })?;
    drop(crowd);
    let started = Instant::now();
    world.galo.until("gateway-2 is ready", || {
        Ok(way.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
    })?;
    let took = started.elapsed();
    world.check_well(&way)?;
    let begun = segments(world)? - begun_before;
    if begun < SEGMENTS_WITHOUT_DESCRIPTORS_MIN {
        return Err(format!("the journal began {begun} files"));
    }
    tally.note(&format!("the journal began {begun} files meanwhile"));
    finish(tally, "the aggregator", cpu_ms, took)
}

fn finish(tally: &Tally, who: &str, cpu_ms: u64, took: Duration) -> Result<(), String> {
    tally.note(&format!(
        "without descriptors {who} takes {cpu_ms} ms of CPU in a second; back {took:.1?} after there are some"
    ));
    if cpu_ms > IDLE_CPU_MS_MAX {
        return Err(format!("it spins: {cpu_ms} ms of CPU in a second"));
    }
    if took > RECOVERED { Err(format!("back only after {took:.1?}")) } else { Ok(()) }
}

/// Payments while the aggregator has no descriptor left; each is three records of the journal, or two.
const PAYMENTS_WITHOUT_DESCRIPTORS: usize = 100;

/// 200 records are more than two files of 85.
const SEGMENTS_WITHOUT_DESCRIPTORS_MIN: u64 = 2;

/// The bound of one gateway's queue and of the ledger's open payments.
const QUEUE_LEN_MAX: usize = 150;
const OPEN_LEN_MAX: usize = 200;

fn memory(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    let environment = vec![
        ("QUEUE_LEN_MAX", QUEUE_LEN_MAX.to_string()),
        ("OPEN_LEN_MAX", OPEN_LEN_MAX.to_string()),
        ("HEALTH_INTERVAL_MS", "3600000".to_owned()),
    ];
    let mut world = World::start(programs, &Plan { name: "memory", environment, ..Plan::default() })?;
    let down = Act::new(false, plain(500, "X", ""), Then::Stay);
    for processor in [&world.default, &world.fallback] {
        processor.set_mood(Some(down.clone()));
    }
    let mut refused = Vec::new();
    for (gateway, room, name) in [
        (0, QUEUE_LEN_MAX, "a gateway's queue is full"),
        (1, OPEN_LEN_MAX - QUEUE_LEN_MAX, "the ledger is full"),
    ] {
        let result = fill(&mut world, gateway, room, &mut refused);
        tally.case(name, result);
    }
    // What it has, it still tells.
    let known = world.accepted.iter().next().map(|(id, cents)| (id.clone(), *cents));
    let result = known.ok_or("nothing was accepted".to_owned()).and_then(|(id, cents)| {
        let answer = world.galo.straight(1).ask("POST", "/payments", &payment_json(&id, cents))?;
        match answer.status {
            202 if answer.header("idempotent-replayed").is_some() => Ok(()),
            status => Err(format!("a replay is answered {status} {}", answer.text())),
        }
    });
    tally.case("a replay needs no room", result);
    for processor in [&world.default, &world.fallback] {
        processor.set_mood(None);
    }
    let result = world.galo.settle().and_then(|()| {
        for id in &refused {
            let answer = world.pay(&world.galo.straight(0), id, 333)?;
            if answer.header("idempotent-replayed").is_some() {
                return Err(format!("{id} was refused and counts as a replay"));
            }
        }
        world.check_well(&world.galo.straight(1))
    });
    tally.case("what was refused is taken once there is room", result);
    world.reconcile(tally);
    world.stop(tally);
    Ok(())
}

/// Exactly so many payments are taken, and the next ones refused.
fn fill(world: &mut World, gateway: usize, room: usize, refused: &mut Vec<String>) -> Result<(), String> {
    let way = world.galo.straight(gateway);
    for number in 0..room {
        let id = world.galo.fresh_id();
        world.pay(&way, &id, 333).map_err(|error| format!("payment {number} of {room}: {error}"))?;
    }
    for _ in 0..20 {
        let id = world.galo.fresh_id();
        let answer = way.ask("POST", "/payments", &payment_json(&id, 333))?;
        if answer.status != 503 || answer.header("retry-after").is_none() {
            return Err(format!("beyond {room} payments the answer is {} {}", answer.status, answer.text()));
        }
        refused.push(id);
    }
    let answer = way.ask("GET", "/ready", "")?;
    if answer.status != 503 {
        return Err(format!("every POST is refused, and /ready says {}", answer.status));
    }
    world.galo.check_alive()
}

fn starved(world: &mut World, tally: &Tally) -> Result<(), String> {
    let front = world.galo.ways().into_iter().find(Way::is_front).ok_or("no HAProxy")?;
    for name in ["haproxy", "gateway-1", "gateway-2", "aggregator"] {
        let pid = world.galo.pid(name)?.as_raw().cast_unsigned();
        // SAFETY: takes numbers alone.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, pid, 19) } != 0 {
            return Err(format!("{name}: {}", std::io::Error::last_os_error()));
        }
    }
    let is_over = AtomicBool::new(false);
    let busy_count = 2 * thread::available_parallelism().map_or(2, usize::from);
    let ((), report) = thread::scope(|scope| {
        for _ in 0..busy_count {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = Load::new(vec![front.clone()], 8, 200).beside(|| {
            thread::sleep(Duration::from_secs(4));
            is_over.store(true, Ordering::Relaxed);
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        result
    })?;
    tally.note(&format!("CPU taken for 4 s by {busy_count} busy threads: {report}"));
    world.accepted.extend(report.accepted.clone());
    report.check_everybody_told()?;
    // Whoever gets no CPU answers late, and nobody is told no for that before his wait is over. How late is the machine's affair.
    report.check_statuses(&[202, 503, 504])?;
    report.check_not_sooner(503, ACCEPT_WAIT)?;
    report.check_not_sooner(504, SERVER_TIMEOUT)?;
    report.check_slowest(PATIENCE)?;
    world.check_well(&front)
}

/// Where Debian's package has it.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// The wall clock of all three processes goes an hour forward, two back, and right again, under load. The monotonic one goes on.
fn clocks(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    let Some(library) = FAKETIME.into_iter().find(|path| Path::new(path).exists()) else {
        tally.leave_out("there is no libfaketime here");
        return Ok(());
    };
    let file = std::env::temp_dir().join(format!("galo-hostile-{}-clock", std::process::id()));
    let set = |offset: &str| -> Result<(), String> {
        // Moved into place: nobody reads half of it.
        let beside = file.with_extension("new");
        let written = fs::write(&beside, offset).and_then(|()| fs::rename(&beside, &file));
        written.map_err(|error| format!("{}: {error}", file.display()))
    };
    set("+0")?;
    // Written as in a shell: they are no variables of Galo's.
    let name = |text: &'static str| text.trim_end_matches('=');
    let environment = vec![
        (name("LD_PRELOAD="), library.to_owned()),
        (name("FAKETIME_TIMESTAMP_FILE="), file.display().to_string()),
        (name("FAKETIME_NO_CACHE="), "1".to_owned()),
        (name("FAKETIME_DONT_FAKE_MONOTONIC="), "1".to_owned()),
    ];
    let mut world = World::start(programs, &Plan { name: "clocks", environment, ..Plan::default() })?;
    let ways = vec![world.galo.straight(0), world.galo.straight(1)];
    let result = Load::new(ways.clone(), 16, 400).beside(|| {
        ["+1h", "-1h", "+0", "-1h", "+1h", "+0"].into_iter().try_for_each(|offset| {
            set(offset)?;
            thread::sleep(Duration::from_millis(500));
            Ok(())
        })
    });
    let result = result.and_then(|((), report)| {
        tally.note(&format!("clocks set six times: {report}"));
        world.accepted.extend(report.accepted.clone());
        world.galo.settle()?;
        // The case would prove nothing if the clocks had not moved.
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let books = [world.default.books().stored.clone(), world.fallback.books().stored.clone()];
        let offsets =
            books.iter().flat_map(|book| book.values()).map(|payment| payment.requested_at_ms - now_ms);
        let (past, future) =
            offsets.fold((0, 0), |(past, future), offset| (offset.min(past), offset.max(future)));
        if past > -3_000_000 || future < 3_000_000 {
            return Err(format!("requestedAt was from {past} to {future} ms off"));
        }
        report.check_nobody_noticed()?;
        world.check_well(&ways[0])
    });
    tally.case("an hour forward and back, under load", result);
    world.reconcile(tally);
    world.stop(tally);
    fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))
}

/// A file system of a few megabytes, in a mount namespace of this thread and of whom it starts.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        mounts::unshare().map_err(|error| error.to_string())?;
        let disk = Self { path: path.to_owned() };
        disk.mount_again(0)?;
        Ok(disk)
    }

    /// With these flags: 0 the first time.
    fn mount_again(&self, flags: libc::c_ulong) -> Result<(), String> {
        mounts::mount("tmpfs", &self.path, flags, &format!("size={DISK_BYTES},mode=0700"))
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> Result<(), String> {
        let mut filler = File::create(self.filler()).map_err(|error| error.to_string())?;
        for size in [1 << 20, 4_096, 1] {
            let bytes = vec![0x5a; size];
            while filler.write_all(&bytes).is_ok() {}
        }
        Ok(())
    }

    fn make_room(&self) -> Result<(), String> {
        fs::remove_file(self.filler()).map_err(|error| error.to_string())
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let Ok(path) = CString::new(self.path.as_os_str().as_encoded_bytes()) else { return };
        // SAFETY: the string outlives the call. A failure leaves it to the namespace's end, which is ours.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

fn disk(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("galo-hostile-{}-small", std::process::id()));
    let disk = match SmallDisk::mount(&folder) {
        Ok(disk) => disk,
        Err(error) => {
            tally.leave_out(&format!("nothing can be mounted here: {error}"));
            return Ok(());
        }
    };
    let plan = Plan { name: "disk", haproxy: true, journal: Some(folder.join("journal")), ..Plan::default() };
    let mut world = World::start(programs, &plan)?;
    let result = full(&mut world, &disk, tally);
    tally.case("full, under load, and then not", result);
    let result = read_only(&mut world, &disk);
    tally.case("read-only at the start", result);
    world.reconcile(tally);
    world.stop(tally);
    drop(disk);
    fs::remove_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// The exit status of an aggregator that cannot write its journal.
const JOURNAL: i32 = 74;

fn full(world: &mut World, disk: &SmallDisk, tally: &Tally) -> Result<(), String> {
    let front = world.galo.ways().into_iter().find(Way::is_front).ok_or("no HAProxy")?;
    let straight = world.galo.straight(0);
    let refused = world.galo.fresh_id();
    let galo = &mut world.galo;
    let (said, report) = Load::new(vec![front.clone()], 16, 400).beside(|| {
        thread::sleep(Duration::from_millis(500));
        let from = galo.said("aggregator").len();
        disk.fill()?;
        let status = galo.ended("aggregator")?;
        if status.code() != Some(JOURNAL) {
            return Err(format!("without room the aggregator ends with {status}"));
        }
        let said = galo.said("aggregator")[from..].lines().last().unwrap_or_default().to_owned();
        // A supervisor starts it again and again; meanwhile clients are told so.
        for _ in 0..3 {
            galo.respawn("aggregator")?;
            let status = galo.ended("aggregator")?;
            if status.code() != Some(JOURNAL) {
                return Err(format!("started without room it ends with {status}"));
            }
        }
        let answer = straight.ask("POST", "/payments", &payment_json(&refused, 555))?;
        if answer.status != 503 || answer.header("retry-after").is_none() {
            return Err(format!("while nothing can be written a payment is answered {}", answer.status));
        }
        disk.make_room()?;
        galo.respawn("aggregator")?;
        galo.until("it is ready again", || {
            Ok(front.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
        thread::sleep(Duration::from_millis(500));
        Ok(said)
    })?;
    tally.note(&format!("disk full: {report}; the aggregator's last line: {said}"));
    world.accepted.extend(report.accepted.clone());
    report.check_everybody_told()?;
    report.check_slowest(REFUSED)?;
    if world.pay(&straight, &refused, 555)?.header("idempotent-replayed").is_some() {
        return Err("it was refused and counts as a replay".to_owned());
    }
    world.check_well(&front)
}

fn read_only(world: &mut World, disk: &SmallDisk) -> Result<(), String> {
    let way = world.galo.straight(0);
    world.galo.signal("aggregator", Signal::SIGTERM)?;
    let status = world.galo.ended("aggregator")?;
    if !status.success() {
        return Err(format!("the aggregator ended with {status}"));
    }
    disk.mount_again(libc::MS_REMOUNT | libc::MS_RDONLY)?;
    let from = world.galo.said("aggregator").len();
    world.galo.respawn("aggregator")?;
    let ended = world.galo.ended("aggregator");
    let id = world.galo.fresh_id();
    let started = Instant::now();
    let refused = way.ask("POST", "/payments", &payment_json(&id, 444));
    let took = started.elapsed();
    disk.mount_again(libc::MS_REMOUNT)?;
    let said = world.galo.said("aggregator")[from..].to_owned();
    world.galo.respawn("aggregator")?;
    world.galo.until("ready again", || {
        Ok(way.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
    })?;
    let (status, refused) = (ended?, refused?);
    if !matches!(status.code(), Some(71 | JOURNAL))
        || said.lines().count() != 1
        || !said.contains("JOURNAL_DIR")
    {
        return Err(format!("on a read-only disk: {status}, {said:?}"));
    }
    if refused.status != 503 || refused.header("retry-after").is_none() || took > REFUSED {
        return Err(format!("meanwhile a payment is answered {} after {took:.1?}", refused.status));
    }
    if world.pay(&way, &id, 444)?.header("idempotent-replayed").is_some() {
        return Err("it was refused and counts as a replay".to_owned());
    }
    world.check_well(&way)
}
