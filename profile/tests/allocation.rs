//! Rendering a request allocates nothing once its buffer is warm.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use galo_engine::CorrelationId;
use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_profile::{Members, Payment, Processors};

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

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Every kind of piece, in JSON and as a form, with bodies of two and of four digits of length.
const FILE: &str = r#"
[[processor]]
name = "json"
url = "http://bank"
request.path = "/{id}/{key}"
request.body = { a = "{amount}", b = "{requested_at} {client.x}", c = "{client.x}", d = ["{client.y}", "{client.z}"] }
idempotency = { in = "path", length_max = 35 }
outcome = [{ status = 200, verdict = "processed" }]

[[processor]]
name = "form"
url = "http://bank"
request.path = "/"
request.format = "form"
request.body = { a = "{amount}", b = "{requested_at} {client.x}", c = "{client.x}", d = ["{client.y}", "{client.z}"] }
idempotency = { in = "header", name = "Key" }
outcome = [{ status = 200, verdict = "processed" }]

[[processor]]
name = "short"
url = "http://bank"
request.path = "/"
request.body = { a = "{amount}" }
idempotency = { in = "none" }
outcome = [{ status = 200, verdict = "processed" }]
"#;

#[test]
fn rendering_allocates_nothing() {
    let processors = Processors::parse(FILE, "processors.toml", Path::new(".")).unwrap();
    let contest = Processors::contest("http://a", "http://b", [500, 1_500], 400, 30_000).unwrap();
    let text = format!(r#"{{"x": "a \"b\" \u00e9", "y": {{"long": "{}"}}}}"#, "x".repeat(1_200));
    let members = Members::read(&text).unwrap();
    let payment = Payment {
        correlation_id: CorrelationId([7; 16]),
        amount: AmountCents::new(1_990).unwrap(),
        requested_at: UnixMillis(1_752_582_896_789),
        members: &members,
    };
    let mut buffer = Vec::with_capacity(8 << 10);
    let before = ALLOCATION_COUNT.get();
    let mut size = 0;
    for _ in 0..1_000 {
        for processor in processors.iter().chain(contest.iter()) {
            processor.request.render(&payment, None, &mut buffer).unwrap();
            size += buffer.len();
        }
    }
    assert!(size > 0);
    assert_eq!(ALLOCATION_COUNT.get() - before, 0);
    // The counter counts.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(100)));
    assert_eq!(ALLOCATION_COUNT.get() - before, 1);
}
