//! What the frames between gateway and aggregator cost: `cargo xtask microbench frames`.
//!
//! Batches of 1 (a quiet minute), 16 and 256 records; the time is a batch's, the throughput counts records.

use std::hint::black_box;

use criterion::{BenchmarkId, Throughput};
use galo_microbench::Group;
use galo_wire::journal::{Fact, Record};
use galo_wire::record::{Accept, Admission, Completion, Grant};
use galo_wire::{CorrelationId, FrameWriter, Message, Outcome, Processor, Reason, Stage, decode_frames};

const BATCHES: [usize; 3] = [1, 16, 256];

fn main() {
    galo_microbench::run("frames", |group| {
        for count in BATCHES {
            encode(group, "encode_accepts", &accepts(count));
            decode(group, "decode_accepts", &accepts(count));
            encode(group, "encode_grants", &grants(count));
            decode(group, "decode_completions", &completions(count));
        }
        journal_records(group);
    });
}

fn id(number: usize) -> CorrelationId {
    CorrelationId((number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes())
}

fn accepts(count: usize) -> Vec<Message> {
    let accept = |number| Accept {
        slot: 7,
        correlation_id: id(number),
        amount_cents: 1_990,
        decided_at_ms: 1_752_580_800_000,
        expires_at_us: 1,
        stage: Stage::At0,
        reason: Reason::Cheaper,
    };
    (0..count).map(|number| accept(number).into()).collect()
}

fn grants(count: usize) -> Vec<Message> {
    let grant = |number| Grant { slot: 7, correlation_id: id(number), admission: Admission::Granted };
    (0..count).map(|number| grant(number).into()).collect()
}

fn completions(count: usize) -> Vec<Message> {
    let completion = |number| Completion {
        sequence: number as u64,
        correlation_id: id(number),
        requested_at_ms: 1_752_580_800_000,
        processor: Processor::DEFAULT,
        outcome: Outcome::Processed,
        status: 0,
    };
    (0..count).map(|number| completion(number).into()).collect()
}

fn encode(group: &mut Group<'_>, name: &str, messages: &[Message]) {
    let mut frames = FrameWriter::with_capacity(64 << 10);
    let mut spare = Vec::with_capacity(64 << 10);
    group.throughput(Throughput::Elements(messages.len() as u64));
    group.bench_function(BenchmarkId::new(name, messages.len()), |bencher| {
        bencher.iter(|| {
            for message in black_box(messages) {
                frames.push(*message);
            }
            let bytes = frames.take(std::mem::take(&mut spare));
            spare = black_box(bytes);
        });
    });
}

fn decode(group: &mut Group<'_>, name: &str, messages: &[Message]) {
    let mut frames = FrameWriter::default();
    for message in messages {
        frames.push(*message);
    }
    let bytes = frames.take(Vec::new());
    group.throughput(Throughput::Elements(messages.len() as u64));
    group.bench_function(BenchmarkId::new(name, messages.len()), |bencher| {
        bencher.iter(|| {
            let mut kinds = 0;
            let used = decode_frames(black_box(&bytes), |message| kinds ^= message.kind() as u8);
            (kinds, used)
        });
    });
}

fn journal_records(group: &mut Group<'_>) {
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode_journal_record", |bencher| bencher.iter(|| record().encode()));
    let block = record().encode();
    group.bench_function("decode_journal_record", |bencher| {
        bencher.iter(|| Record::decode(black_box(&block)));
    });
}

fn record() -> Record {
    let fact = Fact::Accepted {
        correlation_id: id(1),
        amount_cents: 1_990,
        stage: Stage::At0,
        decided_at_ms: 1_752_580_800_000,
        in_doubt: false,
        reason: Reason::Cheaper,
    };
    Record { sequence: black_box(7), fact }
}
