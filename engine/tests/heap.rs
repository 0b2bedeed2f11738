//! What the engine takes from the heap, counted by the allocator itself: nothing per payment, and for the time buckets
//! no more than they say and are allowed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use galo_engine::breaker::{Breaker, BreakerConfig, FailureKind};
use galo_engine::buckets::{BYTES_MAX_LEAST, Buckets};
use galo_engine::capacity::{Capacity, Release};
use galo_engine::latency::Latency;
use galo_engine::money::{self, AmountCents};
use galo_engine::random::Random;
use galo_engine::retry::{Backoff, Budget, BudgetConfig};
use galo_engine::time::UnixMillis;
use galo_engine::timestamp;

thread_local! {
    // Per thread, since tests run beside each other. `const` and without a destructor, so that counting allocates nothing.
    static HELD: Cell<usize> = const { Cell::new(0) };
    static HELD_PEAK: Cell<usize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is passed on to `System` unchanged, which keeps the contract; counting touches no allocated memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD.set(HELD.get().wrapping_add(layout.size()));
        HELD_PEAK.set(HELD_PEAK.get().max(HELD.get()));
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: `pointer` came from `System` with this layout, by `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn buckets_hold_no_more_than_they_say_and_are_allowed() {
    let held_before = HELD.get();
    let mut buckets = Buckets::new(BYTES_MAX_LEAST);
    HELD_PEAK.set(HELD.get());
    let mut random = Random::new(3);
    let mut now_ms = 1_752_580_800_000;
    for index in 0..300_000_u64 {
        now_ms += random.below(if index % 1_000 == 0 { 600_000 } else { 20 });
        let at_ms = if index % 101 == 0 { random.next_u64() } else { now_ms - random.below(3_000) };
        buckets.record(UnixMillis(at_ms), 1_990);
        let held = HELD.get() - held_before;
        assert!(held <= buckets.bytes(), "{held} held, {} said", buckets.bytes());
        assert!(buckets.bytes() <= BYTES_MAX_LEAST);
    }
    assert_eq!(buckets.total().count, 300_000);
    // While a list grows or the oldest waits to be dropped, one list more: a full second's.
    let peak = HELD_PEAK.get() - held_before;
    assert!(peak <= BYTES_MAX_LEAST + 32 * 1024, "{peak} at the peak");
    drop(buckets);
    assert_eq!(HELD.get(), held_before);
}

#[test]
fn nothing_but_buckets_allocates_per_payment() {
    let mut random = Random::new(1);
    let mut breaker = Breaker::new(BreakerConfig::default(), 1);
    let mut capacity = Capacity::new(4, 16, 400);
    let mut latency = Latency::new();
    let mut budget = Budget::new(BudgetConfig::default());
    let backoff = Backoff { base_ms: 10, max_ms: 500, factor_percent: 150 };
    let mut text = [0; 24];

    let allocations_before = ALLOCATIONS.get();
    for now_us in (0..10_000_000_u64).step_by(1_000) {
        let amount = AmountCents::parse(b"1234567.89").unwrap();
        assert_eq!(money::write_decimal(amount.get(), &mut text), "1234567.89");
        let written = timestamp::write(UnixMillis(now_us), &mut text);
        assert_eq!(timestamp::parse(written), Ok(UnixMillis(now_us)));
        if breaker.try_probe(now_us) {
            breaker.on_probe_result(
                now_us,
                if now_us % 7_000 == 0 { Ok(()) } else { Err(FailureKind::Refused) },
            );
        } else if now_us % 1_000_000 < 10_000 {
            breaker.on_failure(now_us, FailureKind::Refused);
        } else {
            breaker.on_success(now_us);
        }
        if capacity.try_acquire() {
            capacity.release(if now_us % 3_000 == 0 { Release::Overload } else { Release::Success });
        }
        latency.record(now_us, now_us % 777);
        assert!(latency.expected_us(now_us).is_some());
        budget.on_success();
        assert!(budget.try_spend(now_us) || backoff.delay_us(3, &mut random) > 0);
    }
    assert_eq!(ALLOCATIONS.get(), allocations_before);
    assert!(AmountCents::parse(b"1.234").is_err());
    assert_eq!(ALLOCATIONS.get(), allocations_before, "nor does refusing");
}
