//! How fast a journal is read: `cargo xtask microbench replay`.
//!
//! Bytes in memory to a ledger, as a start does it but for reading the files; and a snapshot, written and read. The journal holds a
//! million payments. What is freed afterwards does not count.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use criterion::{BatchSize, Throughput};
use galo_engine::ledger::snapshot::Progress;
use galo_engine::ledger::{Entry, Ledger, LedgerConfig};
use galo_engine::random::Random;
use galo_engine::recovery::{FileId, Recovery};
use galo_engine::router::ProcessorSet;
use galo_engine::{CorrelationId, Outcome, Processor, Reason, Stage};
use galo_microbench::Group;
use galo_wire::journal::{Header, Record};

/// The aggregator's defaults.
const CONFIG: LedgerConfig = LedgerConfig {
    open_len_max: 450_000,
    known_len_max: 800_000,
    bucket_bytes_max: 32 << 20,
    members_bytes_max: 1 << 20,
    processors: ProcessorSet::PAIR,
    hash_seed: 7,
};

/// Read in one go, as the aggregator does.
const PIECE: usize = 4_096 * 48;

const PAYMENT_COUNT: u64 = 1_000_000;

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
        let (amount_cents, stage, reason) = (1_990, Stage::At0, Reason::Cheaper);
        let (decided_at_ms, in_doubt) = (requested_at_ms, false);
        push(Entry::Accepted { correlation_id, amount_cents, stage, decided_at_ms, in_doubt, reason });
        under_way.push_back((correlation_id, requested_at_ms));
        if under_way.len() > 50 || number + 1 == payments {
            let (correlation_id, requested_at_ms) = under_way.pop_front().unwrap();
            let (processor, outcome) = (Processor::DEFAULT, Outcome::Processed);
            push(Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status: 0 });
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

fn main() {
    galo_microbench::run("replay", |group| {
        // Half a second each: fewer samples.
        group.sample_size(15);
        let (first, bytes) = (FileId::segment(1), journal(PAYMENT_COUNT));
        let (mut ledger, records) = read(&[(first, &bytes)]);
        measure(group, "replay_of_a_journal", records, || read(&[(first, &bytes)]));
        group.sample_size(30);
        snapshots(group, &mut ledger, records);
    });
}

fn snapshots(group: &mut Group<'_>, ledger: &mut Ledger, records: u64) {
    let (id, next) = (FileId::snapshot(records + 1), FileId::segment(records + 1));
    let segment = header(next);
    let mut snapshot = Vec::new();
    write(ledger, id, &mut snapshot);
    let (_, rows) = read(&[(id, &snapshot), (next, &segment)]);
    measure(group, "reading_a_snapshot", rows, || read(&[(id, &snapshot), (next, &segment)]));
    measure(group, "writing_a_snapshot", rows, || write(ledger, id, &mut snapshot));
}

fn write(ledger: &mut Ledger, id: FileId, snapshot: &mut Vec<u8>) {
    snapshot.clear();
    snapshot.extend(header(id));
    ledger.begin_export();
    while ledger.export(1_024, snapshot) == Progress::More {}
}

fn measure<T>(group: &mut Group<'_>, name: &str, records: u64, mut run: impl FnMut() -> T) {
    group.throughput(Throughput::Elements(records));
    group.bench_function(name, |bencher| bencher.iter_batched(|| (), |()| run(), BatchSize::PerIteration));
}
