//! What a dispatcher is told at start.

use galo_wire::PROCESSORS_LEN_MAX;

use crate::rate::RateLimit;
use crate::router::RouterConfig;
#[cfg(doc)]
use crate::verdict::Verdict;

/// What the dispatcher is told at start.
#[derive(Clone, Copy, Debug)]
pub struct DispatcherConfig {
    /// Which processors there are, what they cost, patience.
    pub router: RouterConfig,
    /// By [`Processor::index`](galo_wire::Processor::index); only those in [`RouterConfig::processors`] count.
    pub processors: [ProcessorPolicy; PROCESSORS_LEN_MAX],
    /// Payments held at most. Memory: 88 bytes a payment and 1 for its place, and 20 in the queue it waits in; where it was refused while others were taken some 120 more, and 70
    /// where it was declined.
    pub queue_len_max: usize,
    /// How long a POST waits for the ledger, µs.
    pub accept_wait_us_max: u64,
    /// Drawn at each start.
    pub seed: u64,
}

/// How one processor is treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessorPolicy {
    /// Attempts on their way at most, hanging ones included.
    pub concurrency_max: u32,
    /// Requests a second, attempts and look-ups alike; `None`: no limit.
    pub rate: Option<RateLimit>,
    /// What becomes of doubt.
    pub doubt: DoubtPolicy,
    /// Whether a payment that it [declines](Verdict::Declined) may go to another one.
    pub declined_goes_on: bool,
}

impl ProcessorPolicy {
    /// A processor of the contest's.
    #[must_use]
    pub const fn contest(concurrency_max: u32) -> Self {
        Self { concurrency_max, rate: None, doubt: DoubtPolicy::CONTEST, declined_goes_on: true }
    }
}

/// How the doubt about an attempt ends: by sending it again, by looking it up, or by a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoubtPolicy {
    /// How long after its `requestedAt` an attempt may be sent again with the same key, µs; 0: never. Afterwards it is only looked up.
    pub resend_us_max: u64,
    /// Whether a payment can be looked up.
    pub has_lookup: bool,
    /// How long after an attempt may last have been sent "not found" proves that the processor does not have it, µs: beyond the attempt's and its
    /// connection's longest life. `u64::MAX`: never.
    pub absent_after_us: u64,
    /// Between two look-ups of a payment that is pending, or in doubt and not sent again, µs.
    pub lookup_every_us: u64,
    /// How long after an attempt was sent that was given up, though its answer may still be on its way, the same may be sent again, µs: 0 where the processor
    /// bears the same request twice at the same time, else an attempt's longest life. Until then it is only looked up.
    pub give_up_us: u64,
    /// Whether a look-up tells the `requestedAt` that was sent, to the millisecond: another one is not that attempt's.
    pub echoes_requested_at: bool,
}

impl DoubtPolicy {
    /// The contest's processors know an id for ever, and a payment that sleeps inside is stored in the end: at the latest 5 s after it came, which is
    /// at the latest an attempt's 30 s after it was sent. Two minutes are three times that. Of two that sleep inside at the same time one is stored, since
    /// the id is unique, and the other is told 422.
    pub const CONTEST: Self = Self {
        resend_us_max: u64::MAX,
        has_lookup: true,
        absent_after_us: 120_000_000,
        lookup_every_us: 1_000_000,
        give_up_us: 0,
        echoes_requested_at: true,
    };
}
