//! What durability costs, and how long a start takes: `cargo bench -p galo-aggregator --bench durability [-- ROUNDS [OTHER]]`; with 0
//! rounds, starts alone. `OTHER` is the aggregator of another build, an older one mostly: then both start in turns, each on what it wrote
//! itself, and this build on what the other wrote, too.
//!
//! The real process, one gateway's connection, an open loop of payments at a constant rate (accept, and a completion once it is
//! granted); modes take turns within each round. Latency is from the moment an accept was due to its grant. CPU is
//! the aggregator's own, from `/proc/<pid>/schedstat` of all its threads, and what kernel workers do for it is not in it.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Aggregator, Folder, NOON_MS, amount_cents, id};
use galo_wire::{Message, Outcome};

/// Its name, `JOURNAL_SYNC`, and other variables.
type Mode<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

const RUN: Duration = Duration::from_secs(3);
const MODES: [&str; 4] = ["memory", "never", "interval:100", "always"];

fn cpu_ns(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default())
        .map(|text| text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0))
        .sum()
}

struct Run {
    latencies_us: Vec<u32>,
    cpu_us_per_payment: u64,
    writes_per_payment: f64,
}

#[allow(clippy::cast_precision_loss, clippy::float_arithmetic, reason = "for people")]
fn run(mode: &str, rate: u64, more: &[(&str, &str)]) -> Run {
    let folder = Folder::new("bench");
    let aggregator = folder.start(&[&[("JOURNAL_SYNC", mode), ("LOG", "error")], more].concat());
    let mut gateway = folder.connect(1);
    let cpu_begin = cpu_ns(aggregator.0.id());
    let count = rate * RUN.as_secs();
    let gap = Duration::from_nanos(1_000_000_000 / rate);
    let begin = Instant::now();
    let due = |number: u64| begin + gap * u32::try_from(number).unwrap();
    let mut latencies_us = Vec::new();
    let (mut sent, mut granted) = (0, 0);
    gateway.set_nonblocking();
    while granted < count {
        let now = Instant::now();
        while sent < count && due(sent) <= now {
            gateway.push_accept(id(sent), amount_cents(sent));
            sent += 1;
        }
        while let Some(message) = gateway.poll() {
            if let Message::Grant(grant) = message {
                let late = Instant::now().saturating_duration_since(due(granted));
                latencies_us.push(u32::try_from(late.as_micros()).unwrap());
                gateway.push_completion(grant.correlation_id, NOON_MS + granted, Outcome::Processed);
                granted += 1;
            }
        }
        gateway.flush_all();
    }
    let cpu_us_per_payment = (cpu_ns(aggregator.0.id()) - cpu_begin) / 1_000 / count;
    let writes = if mode == "memory" { 0.0 } else { folder.metric("galo_journal_writes_total") };
    latencies_us.sort_unstable();
    Run { latencies_us, cpu_us_per_payment, writes_per_payment: writes / count as f64 }
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

fn compare(rate: u64, rounds: usize, modes: &[Mode<'_>]) {
    let mut runs: Vec<Vec<Run>> = modes.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for ((_, mode, more), runs) in modes.iter().zip(&mut runs) {
            runs.push(run(mode, rate, more));
        }
    }
    println!("{rate} payments/s, medians of {rounds} interleaved runs of {RUN:?}:");
    for ((name, ..), runs) in modes.iter().zip(&runs) {
        let of = |per_mille: usize| {
            median(
                runs.iter().map(|run| run.latencies_us[run.latencies_us.len() * per_mille / 1_000]).collect(),
            )
        };
        let cpu = median(runs.iter().map(|run| run.cpu_us_per_payment).collect());
        let writes = runs[runs.len() / 2].writes_per_payment;
        println!(
            "  {name:24} p50 {:>6} µs, p99 {:>6} µs, p99.9 {:>6} µs, CPU {cpu:>3} µs a payment, {writes:.2} writes a payment",
            of(500),
            of(990),
            of(999)
        );
    }
}

/// A journal of so many payments, as a kill left it.
struct Past {
    name: &'static str,
    variables: &'static [(&'static str, &'static str)],
    /// One payment in so many stays open; 0 for none.
    open_every: u64,
    /// Payments go on until a snapshot is nearly done, so that as much journal as can be is not in one yet.
    late: bool,
}

const PASTS: [Past; 4] = [
    Past {
        name: "no snapshot",
        variables: &[("SNAPSHOT_EVERY_BYTES", "1000000000000")],
        open_every: 0,
        late: false,
    },
    Past { name: "default", variables: &[], open_every: 0, late: false },
    Past { name: "default, just before a snapshot is done", variables: &[], open_every: 0, late: true },
    Past {
        name: "default, just before a snapshot is done, a tenth open",
        variables: &[],
        open_every: 10,
        late: true,
    },
];

fn start(program: &Path, folder: &Folder, variables: &[(&str, &str)]) -> Aggregator {
    let mut command = Command::new(program);
    folder.configure(&mut command, variables);
    Aggregator(command.stderr(Stdio::null()).spawn().unwrap())
}

/// Fills the folder as fast as payments are taken. Returns how many there are.
fn fill(program: &Path, folder: &Folder, past: &Past, variables: &[(&str, &str)], payments: u64) -> u64 {
    const BATCH: u64 = 500;
    let aggregator = start(program, folder, variables);
    let mut gateway = folder.connect(1);
    let size =
        |path: Option<&std::path::PathBuf>| path.and_then(|path| path.metadata().ok()).map(|file| file.len());
    let nearly_done = || {
        let whole_size = size(folder.files(".snapshot").last())?;
        let done_size = size(folder.files(".unfinished").last())?;
        (done_size >= whole_size / 100 * 95).then_some(())
    };
    let mut first = 0;
    while first < payments || past.late && nearly_done().is_none() {
        let batch = first..first + BATCH;
        gateway.fill(batch, |number| {
            let is_open = past.open_every != 0 && number.is_multiple_of(past.open_every);
            (!is_open).then_some(NOON_MS + number)
        });
        first += BATCH;
    }
    aggregator.kill();
    first
}

/// What so many starts took.
#[derive(Default)]
struct Starts {
    times_ms: Vec<u128>,
    replay_ms: Vec<u64>,
    cpu_ms: Vec<u64>,
    records: f64,
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::float_arithmetic,
    reason = "for people"
)]
fn restart(program: &Path, folder: &Folder, variables: &[(&str, &str)], payments: u64, starts: &mut Starts) {
    // As the kill left it, not as the start before did.
    if folder.journal().exists() {
        std::fs::remove_dir_all(folder.journal()).unwrap();
    }
    copy(&folder.0.join("pristine"), &folder.journal());
    let begin = Instant::now();
    let aggregator = start(program, folder, variables);
    let mut gateway = folder.connect(1);
    // A new payment is granted: that is what a client waits for.
    gateway.push_accept(id(payments + 1), 1);
    gateway.flush().unwrap();
    assert!(gateway.next_grant().is_some());
    starts.times_ms.push(begin.elapsed().as_millis());
    starts.cpu_ms.push(cpu_ns(aggregator.0.id()) / 1_000_000);
    assert_eq!(gateway.lookup(id(payments - 1)).amount_cents, amount_cents(payments - 1));
    starts.records = folder.metric("galo_journal_replayed_records");
    starts.replay_ms.push((folder.metric("galo_journal_replay_seconds") * 1_000.0) as u64);
    aggregator.kill();
}

fn restarts(payments: u64, other: Option<&Path>) {
    let this = Path::new(env!("CARGO_BIN_EXE_galo-aggregator"));
    // Who starts, on whose files.
    let cases = match other {
        None => vec![("this build", this, this)],
        Some(other) => vec![
            ("the other build", other, other),
            ("this build", this, this),
            ("this build on the other's files", this, other),
        ],
    };
    for past in PASTS {
        let variables = [past.variables, &[("LOG", "error")]].concat();
        let filled = |(number, writer): (usize, &Path)| {
            let folder = Folder::new(&format!("restart-{number}"));
            let payments = fill(writer, &folder, &past, &variables, payments);
            std::fs::rename(folder.journal(), folder.0.join("pristine")).unwrap();
            (folder, payments)
        };
        let folders: Vec<_> = std::iter::once(this).chain(other).enumerate().map(filled).collect();
        let mut starts: Vec<_> = cases.iter().map(|_| Starts::default()).collect();
        for _ in 0..7 {
            for ((_, program, writer), starts) in cases.iter().zip(&mut starts) {
                let (folder, payments) = &folders[usize::from(*writer != this)];
                restart(program, folder, &variables, *payments, starts);
            }
        }
        for ((name, _, writer), starts) in cases.iter().zip(starts) {
            let (_, payments) = &folders[usize::from(*writer != this)];
            println!(
                "{payments} payments, {}, {name}: from exec to the first grant {} ms, of which replay {} ms ({} rows and records); {} ms of CPU",
                past.name,
                median(starts.times_ms),
                median(starts.replay_ms),
                starts.records,
                median(starts.cpu_ms)
            );
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|text| text != "--bench");
    let rounds = arguments.next().map_or(5, |text| text.parse().expect("a number of rounds"));
    let other = arguments.next();
    restarts(1_000_000, other.as_deref().map(Path::new));
    if rounds == 0 {
        return;
    }
    let modes: Vec<Mode<'_>> = MODES.iter().map(|mode| (*mode, *mode, &[][..])).collect();
    for rate in [1_000, 10_000] {
        compare(rate, rounds, &modes);
    }
    let snapshots: &[(&str, &str)] = &[("SNAPSHOT_EVERY_BYTES", "131072")];
    let few: &[(&str, &str)] = &[];
    compare(10_000, rounds, &[("never", "never", few), ("never, snapshots always", "never", snapshots)]);
}
