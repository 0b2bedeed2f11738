//! What the frames between gateway and aggregator cost: `cargo bench --profile fast -p galo-wire --bench frames`.
//!
//! Batches of 1 (a quiet minute), 16 and 256 records; the time is a batch's, the throughput counts records. Allocations are shown, and there
//! must be none.

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use galo_wire::journal::{Fact, Record};
use galo_wire::record::{Accept, Completion, Grant, Verdict};
use galo_wire::{CorrelationId, FrameWriter, Message, Outcome, Processor, Reason, Stage, decode_frames};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const BATCHES: [usize; 3] = [1, 16, 256];

fn main() {
    divan::main();
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
        stage: Stage::AtDefault,
        reason: Reason::Cheaper,
    };
    (0..count).map(|number| accept(number).into()).collect()
}

fn grants(count: usize) -> Vec<Message> {
    let grant = |number| Grant { slot: 7, correlation_id: id(number), verdict: Verdict::Granted };
    (0..count).map(|number| grant(number).into()).collect()
}

fn completions(count: usize) -> Vec<Message> {
    let completion = |number| Completion {
        sequence: number as u64,
        correlation_id: id(number),
        requested_at_ms: 1_752_580_800_000,
        processor: Processor::Default,
        outcome: Outcome::Processed,
    };
    (0..count).map(|number| completion(number).into()).collect()
}

fn encode(bencher: Bencher<'_, '_>, messages: &[Message]) {
    let mut frames = FrameWriter::with_capacity(64 << 10);
    let mut spare = Vec::with_capacity(64 << 10);
    bencher.counter(ItemsCount::new(messages.len())).bench_local(|| {
        for message in black_box(messages) {
            frames.push(*message);
        }
        let bytes = frames.take(std::mem::take(&mut spare));
        spare = black_box(bytes);
    });
}

fn decode(bencher: Bencher<'_, '_>, messages: &[Message]) {
    let mut frames = FrameWriter::default();
    for message in messages {
        frames.push(*message);
    }
    let bytes = frames.take(Vec::new());
    bencher.counter(ItemsCount::new(messages.len())).bench_local(|| {
        let mut kinds = 0;
        let used = decode_frames(black_box(&bytes), |message| kinds ^= message.kind() as u8);
        (kinds, used)
    });
}

#[divan::bench(args = BATCHES)]
fn encode_accepts(bencher: Bencher<'_, '_>, count: usize) {
    encode(bencher, &accepts(count));
}

#[divan::bench(args = BATCHES)]
fn decode_accepts(bencher: Bencher<'_, '_>, count: usize) {
    decode(bencher, &accepts(count));
}

#[divan::bench(args = BATCHES)]
fn encode_grants(bencher: Bencher<'_, '_>, count: usize) {
    encode(bencher, &grants(count));
}

#[divan::bench(args = BATCHES)]
fn decode_completions(bencher: Bencher<'_, '_>, count: usize) {
    decode(bencher, &completions(count));
}

#[divan::bench]
fn encode_journal_record(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| record().encode());
}

#[divan::bench]
fn decode_journal_record(bencher: Bencher<'_, '_>) {
    let block = record().encode();
    bencher.bench_local(|| Record::decode(black_box(&block)));
}

fn record() -> Record {
    let fact = Fact::Accepted {
        correlation_id: id(1),
        amount_cents: 1_990,
        stage: Stage::AtDefault,
        decided_at_ms: 1_752_580_800_000,
        in_doubt: false,
        reason: Reason::Cheaper,
    };
    Record { sequence: black_box(7), fact }
}
