//! How fast a journal is read: `cargo bench --profile fast -p galo-engine --bench replay [-- PAYMENTS]`.
//!
//! Bytes in memory to a ledger, as a start does it but for reading the files; and a snapshot, written and read. The median of
//! seven.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::time::{Duration, Instant};

use galo_engine::ledger::snapshot::Progress;
use galo_engine::ledger::{Entry, Ledger, LedgerConfig};
use galo_engine::random::Random;
use galo_engine::recovery::{FileId, Recovery};
use galo_engine::{CorrelationId, Outcome, Processor, Stage};
use galo_wire::journal::{Header, Record};

/// The aggregator's defaults.
const CONFIG: LedgerConfig =
    LedgerConfig { open_len_max: 450_000, known_len_max: 800_000, bucket_bytes_max: 32 << 20, hash_seed: 7 };

/// Read in one go, as the aggregator does.
const PIECE: usize = 4_096 * 48;

fn header(id: FileId) -> [u8; 48] {
    let known_len_max = CONFIG.known_len_max as u64;
    Header { kind: id.kind, reserved: 0, first_sequence: id.sequence, incarnation: 1, known_len_max }.encode()
}

/// Every payment is accepted and, with some fifty others under way, processed, at 1,000 a second.
fn journal(payments: u64) -> Vec<u8> {
    let mut random = Random::new(1);
    let mut bytes = header(FileId::segment(1)).to_vec();
    let mut sequence = 0;
    let mut push = |entry: Entry| {
        sequence += 1;
        bytes.extend(Record { sequence, fact: entry.to_fact() }.encode());
    };
    let mut under_way = std::collections::VecDeque::new();
    for number in 0..payments {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.next_u64().to_le_bytes());
        id[8..].copy_from_slice(&random.next_u64().to_le_bytes());
        let (correlation_id, requested_at_ms) = (CorrelationId(id), 1_752_580_800_000 + number);
        let (amount_cents, stage) = (1_990, Stage::AtDefault);
        push(Entry::Accepted { correlation_id, amount_cents, stage, requested_at_ms, in_doubt: false });
        under_way.push_back((correlation_id, requested_at_ms));
        if under_way.len() > 50 || number + 1 == payments {
            let (correlation_id, requested_at_ms) = under_way.pop_front().unwrap();
            let (processor, outcome) = (Processor::Default, Outcome::Processed);
            push(Entry::Resolved { correlation_id, processor, requested_at_ms, outcome });
        }
    }
    bytes
}

fn read(files: &[(FileId, &[u8])]) -> (Ledger, u64) {
    let mut recovery = Recovery::new(CONFIG);
    for (id, bytes) in files {
        recovery.begin(*id).unwrap();
        bytes.chunks(PIECE).for_each(|piece| recovery.feed(piece).unwrap());
        recovery.end().unwrap();
    }
    let recovered = recovery.finish();
    (recovered.ledger, recovered.records)
}

/// CPU time of this process's one thread: the machine may be busy with other things.
fn cpu_now() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn measure<T>(what: &str, rows: u64, mut run: impl FnMut() -> T) {
    let mut times: Vec<(Duration, Duration)> = (0..7)
        .map(|_| {
            let (begin, cpu_begin) = (Instant::now(), cpu_now());
            let result = run();
            let times = (cpu_now() - cpu_begin, begin.elapsed());
            drop(result);
            times
        })
        .collect();
    times.sort();
    let (cpu, wall) = times[3];
    let (nanos, rows) = (cpu.as_nanos(), u128::from(rows));
    println!(
        "{what}: {rows} records, median {} ms CPU (least {}, most {}; {} ms by the clock), {} ns a record, {} thousand records/s",
        cpu.as_millis(),
        times[0].0.as_millis(),
        times[6].0.as_millis(),
        wall.as_millis(),
        nanos / rows,
        rows * 1_000_000 / nanos,
    );
}

fn main() {
    let payments = std::env::args().filter_map(|text| text.parse().ok()).next().unwrap_or(1_000_000);
    let bytes = journal(payments);
    let first = FileId::segment(1);
    let (mut ledger, records) = read(&[(first, &bytes)]);
    println!("{payments} payments, {} MB of journal", bytes.len() / 1_000_000);
    measure("replay of a journal", records, || read(&[(first, &bytes)]));

    let id = FileId::snapshot(records + 1);
    let segment = header(FileId::segment(records + 1));
    let mut snapshot = header(id).to_vec();
    ledger.begin_export();
    while ledger.export(1_024, &mut snapshot) == Progress::More {}
    let (_, rows) = read(&[(id, &snapshot), (FileId::segment(records + 1), &segment)]);
    println!("{rows} rows, {} MB of snapshot", snapshot.len() / 1_000_000);
    let mut slices = Vec::new();
    measure("writing a snapshot", rows, || {
        snapshot.clear();
        snapshot.extend(header(id));
        ledger.begin_export();
        loop {
            let begin = Instant::now();
            let progress = ledger.export(1_024, &mut snapshot);
            slices.push(begin.elapsed());
            if progress == Progress::Done {
                break;
            }
        }
    });
    slices.sort();
    println!(
        "slices of 1,024: median {} µs, p99 {} µs, longest {} µs",
        slices[slices.len() / 2].as_micros(),
        slices[slices.len() * 99 / 100].as_micros(),
        slices[slices.len() - 1].as_micros()
    );
    measure("reading a snapshot", rows, || {
        read(&[(id, &snapshot), (FileId::segment(records + 1), &segment)])
    });
}
