//! What the engine takes from the heap, counted by the allocator itself: nothing per payment, and for the time buckets
//! no more than they say and are allowed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use galo_engine::breaker::{Breaker, BreakerConfig, FailureKind};
use galo_engine::buckets::{BYTES_MAX_LEAST, Buckets};
use galo_engine::capacity::{Capacity, Release};
use galo_engine::dispatcher::{Action, Dispatcher, DispatcherConfig, ProcessorPolicy};
use galo_engine::latency::Latency;
use galo_engine::money::{self, AmountCents};
use galo_engine::random::Random;
use galo_engine::retry::{Backoff, Budget, BudgetConfig};
use galo_engine::router::RouterConfig;
use galo_engine::time::{Now, UnixMillis};
use galo_engine::timestamp;
use galo_engine::verdict::{End, Verdict};
use galo_engine::{CorrelationId, PROCESSORS_LEN_MAX};
use galo_wire::Message;
use galo_wire::record::{Accept, Acknowledgement, Admission, Completion, Grant, Intent, IntentRecorded};

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

/// What a dispatcher holds when so many payments of which each second one ends like this are put off, bytes.
fn held_while_put_off(count: usize, end: End) -> usize {
    let config = DispatcherConfig {
        router: RouterConfig::pair([500, 1_500]),
        queue_len_max: count * 2,
        processors: [ProcessorPolicy::contest(64); PROCESSORS_LEN_MAX],
        accept_wait_us_max: 1_000_000,
        seed: 7,
    };
    let held_before = HELD.get();
    let mut dispatcher = Dispatcher::new(config);
    let mut now = Now { monotonic_us: 1_000_000, unix_ms: UnixMillis(1_700_000_000_000) };
    let mut number = 0_u64;
    dispatcher.connected(now);
    while dispatcher.gauges(now).held < count {
        number += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        dispatcher.accept(0, CorrelationId(id), AmountCents::new(1_990).unwrap(), now);
        loop {
            let actions: Vec<Action> = dispatcher.actions().drain(..).collect();
            if actions.is_empty() {
                break;
            }
            actions.into_iter().for_each(|action| carry_out(&mut dispatcher, action, end, now));
        }
        now.monotonic_us += 1_000;
        now.unix_ms.0 += 1;
        dispatcher.tick(now);
    }
    HELD.get() - held_before
}

/// ARCHITECTURE.md names the figures: a payment in its place 88 bytes and 1, 16 for when it comes back, some 120 for what is remembered of its refusals, 70 more for its declines.
#[test]
fn payments_that_are_put_off_take_what_the_bounds_say() {
    const COUNT: usize = 1 << 11;
    let each = |verdict, status| {
        let end = End { verdict, status, retry_after_ms: 0 };
        // What does not depend on how many they are falls out.
        (held_while_put_off(2 * COUNT, end) - held_while_put_off(COUNT, end)) / COUNT
    };
    let (refused, declined) = (each(Verdict::Unavailable, 500), each(Verdict::Declined, 402));
    assert!((210..=235).contains(&refused), "{refused} bytes for one that is refused");
    assert!((280..=305).contains(&declined), "{declined} bytes for one that is declined");
}

fn carry_out(dispatcher: &mut Dispatcher, action: Action, end: End, now: Now) {
    let answer: Message = match action {
        Action::Send(Message::Accept(Accept { slot, correlation_id, .. })) => {
            Grant { slot, correlation_id, admission: Admission::Granted }.into()
        }
        Action::Send(Message::Intent(Intent { slot, correlation_id, .. })) => {
            IntentRecorded { slot, correlation_id }.into()
        }
        Action::Send(Message::Completion(Completion { sequence, .. })) => Acknowledgement { sequence }.into(),
        Action::Attempt { slot, correlation_id, .. } => {
            let is_taken = correlation_id.0[7] % 2 == 0;
            let taken = End { verdict: Verdict::Processed, status: 200, retry_after_ms: 0 };
            return dispatcher.attempt_ended(slot, if is_taken { taken } else { end }, 1_000, now);
        }
        _ => return,
    };
    dispatcher.handle(answer, now);
}
