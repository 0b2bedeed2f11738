//! Time as the engine sees it: passed in with every event, never read.
//!
//! Two clocks, because they answer different questions. Durations (timeouts, back-off, latency) come from the
//! monotonic clock, which no operator can step back; `requestedAt` and the summaries are about the wall clock.

/// The moment of an event, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since an arbitrary start, the same for all processes of a host; never steps back.
    pub monotonic_us: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z; may be stepped either way by an operator.
    pub unix_ms: UnixMillis,
}

/// A wall-clock instant: whole milliseconds since 1970-01-01T00:00:00Z (UTC), the resolution of `requestedAt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);
