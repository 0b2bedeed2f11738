//! Reading a payment allocates nothing once its buffers are warm. Counted per thread, so that other tests may run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::*;
use crate::http::payment::PaymentReader;

struct Counting;

thread_local! {
    static ALLOCATION_COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches a thread-local cell that needs
// neither allocation nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATION_COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATION_COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Allocations of this thread so far.
pub(crate) fn count() -> u64 {
    ALLOCATION_COUNT.get()
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn reading_a_payment_allocates_nothing() {
    let mut reader = PaymentReader::new();
    let bodies = [
        payment(ID, "19.90"),
        format!(r#"{{"x":[1,{{"y":"\u00e9"}}],"am\u006funt":1e2,"correlationId":"{ID}"}}"#),
        payment(ID, "\"x\""),
        payment(&id(7), "0.01"),
    ];
    let warm = bodies.iter().filter(|body| reader.read(body.as_bytes()).is_ok()).count();
    let before = ALLOCATION_COUNT.get();
    let mut good = warm;
    for _ in 0..1_000 {
        good += bodies.iter().filter(|body| reader.read(body.as_bytes()).is_ok()).count();
    }
    assert_eq!((good, ALLOCATION_COUNT.get() - before), (3_003, 0));
    // The counter counts.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(100)));
    assert_eq!(ALLOCATION_COUNT.get() - before, 1);
}
