//! Counts how often a process asks for memory, so that a test can say what a payment costs in that coin.
//!
//! Only builds with debug assertions count: the programs install [`Counting`] there and nowhere else, and
//! [`count`] is `None` in all others, which keeps the metric off their pages. Counting is one relaxed addition; what is allocated, and
//! by whom it is freed, stays the system allocator's business.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static ALLOCATION_COUNT: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

/// Allocations of the whole process so far, growing ones included; `None` where nobody counts.
#[must_use]
pub fn count() -> Option<u64> {
    // A process that counts has allocated long before it gets here.
    Some(ALLOCATION_COUNT.load(Ordering::Relaxed)).filter(|count| *count > 0)
}

// SAFETY: every call is passed on to `System` unchanged, which keeps the contract; counting touches no allocated memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATION_COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATION_COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATION_COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `pointer` came from `System` with this layout, by one of these functions.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
