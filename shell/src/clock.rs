//! The clocks, read: the one place outside of tests where [`Now`] comes from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use galo_engine::time::{Now, UnixMillis};
use nix::time::{ClockId, clock_gettime};

/// Reads both clocks. Two calls into the vDSO, about 50 ns.
///
/// The monotonic one counts from the host's boot, in every process and container alike, so that a moment of one process
/// means something to another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The present moment. A wall clock before 1970 counts as 1970.
    ///
    /// # Panics
    /// If there is no monotonic clock, which Linux has had for as long as io_uring's ancestors.
    #[must_use]
    pub fn now(self) -> Now {
        let since_boot = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock");
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic_us: u64::try_from(Duration::from(since_boot).as_micros())
                .expect("not 584,000 years after boot"),
            unix_ms: UnixMillis(
                u64::try_from(since_1970.as_millis()).expect("584 million years have not passed"),
            ),
        }
    }
}

/// A number that differs from start to start and from process to process; for seeds, not for secrets.
#[must_use]
pub fn incarnation() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(since_1970.as_nanos() & u128::from(u64::MAX)).expect("masked");
    // Spreads the bits of time and process id (the finalizer of splitmix64).
    let mut bits = nanos ^ (u64::from(std::process::id()) << 40);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
