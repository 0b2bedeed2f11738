//! What a payment costs the aggregator in allocations once it is warm: nothing.
//!
//! The real process, built with a counting allocator (as every build with debug assertions is), which shows its count among its
//! metrics. Reading the metrics allocates too, always the same; that is read off first.

#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::float_arithmetic, reason = "a metric's value as it is printed, no money")]

mod common;

use common::{Folder, Gateway, NOON_MS};

const BATCH: u64 = 50;

/// Accepts and completes payments, in batches, each of which is answered before the next.
fn pay(gateway: &mut Gateway, numbers: std::ops::Range<u64>) {
    for start in numbers.step_by(usize::try_from(BATCH).unwrap()) {
        // All in the same millisecond: the time buckets' memory, which grows with time by design, stays as it is.
        gateway.fill(start..start + BATCH, |_| Some(NOON_MS));
    }
}

fn allocations_of_payments(sync: &str, count: u64) -> f64 {
    let folder = Folder::new(&format!("allocations-{sync}"));
    let variables = [
        ("JOURNAL_SYNC", sync),
        // Small tables: full of ids after the warm-up, as they are after days.
        ("KNOWN_LEN_MAX", "1000"),
        ("OPEN_LEN_MAX", "1000"),
        // No snapshot: that allocates, once in 175,000 payments.
        ("SNAPSHOT_EVERY_BYTES", "1000000000"),
    ];
    let _aggregator = folder.start(&variables);
    let mut gateway = folder.connect(1);
    gateway.ready();
    pay(&mut gateway, 0..20_000);
    let read = || folder.metric("galo_allocations_total");
    // The first reading warms up what the later ones use.
    read();
    let (first, second) = (read(), read());
    pay(&mut gateway, 20_000..20_000 + count);
    let third = read();
    (third - second) - (second - first)
}

#[test]
fn a_payment_allocates_nothing() {
    for sync in ["memory", "never", "always"] {
        let few = allocations_of_payments(sync, 1_000);
        let many = allocations_of_payments(sync, 11_000);
        println!("{sync}: {few} for 1,000 payments, {many} for 11,000");
        // 10,000 payments came in 200 batches: one allocation per batch would be 200. A few remain that have nothing to do
        // with payments, such as the clock's ticks and io_uring's workers.
        assert!(many - few < 100.0, "{sync}: {few} for 1,000 payments, {many} for 11,000");
        assert!(few < 100.0, "{sync}: {few}");
    }
}
