//! What the HTTP front asks of the rest of the gateway, and nothing more.
//!
//! The front knows requests and answers; a [`Service`] knows payments. Everything here is a value or a future on the
//! same thread: no lock, no channel, no `Send`. A `Service` never panics on what the front hands it (the front has
//! validated it) and bounds its own waiting: the front waits for these futures as long as they take.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::{CorrelationId, History, PROCESSORS_LEN_MAX, Processor};
use galo_shell::processors::Names;
use galo_wire::REFERENCE_SIZE_MAX;

/// What became of a payment that a client handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// New, and durable: the ledger has it.
    Granted,
    /// The ledger had this id with this amount and these members already; nothing was dispatched twice.
    Replayed,
    /// The ledger has this id with another amount, or other members.
    Conflict,
    /// Too many payments are open; this one was not accepted.
    QueueFull,
    /// The ledger did not answer in time; this one was not accepted.
    LedgerUnreachable,
}

/// How much one processor processed within a summary's range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Payments.
    pub total_requests: u64,
    /// Their sum in cents.
    pub total_amount_cents: u64,
}

/// A summary of all processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// By [`Processor::index`].
    pub totals: [Totals; PROCESSORS_LEN_MAX],
    /// Width in milliseconds of the coarsest bucket that a bound cut; 1 (or 0) when the answer is exact.
    pub resolution_ms: u32,
}

/// The aggregator did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentState {
    /// Accepted, not yet processed.
    Open {
        /// The processor that may have it, if any.
        processor: Option<Processor>,
        /// Whether an attempt there ended without an answer.
        in_doubt: bool,
    },
    /// Processed once and for all.
    Processed {
        /// Where.
        processor: Processor,
        /// The `requestedAt` that the processor has on record.
        requested_at: UnixMillis,
    },
    /// Ended without being processed: nothing was charged, and nothing will be.
    Declined {
        /// Why.
        cause: DeclineCause,
        /// When it ended.
        at: UnixMillis,
    },
}

/// Why a payment ended without being processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclineCause {
    /// No processor takes it.
    Refused {
        /// Who refused it last.
        processor: Processor,
        /// The HTTP status of that refusal, if it is known.
        status: Option<u16>,
    },
    /// The client cancelled it.
    Cancelled,
    /// An operator found that no processor has it.
    Settled,
    /// Its deadline passed before any processor had it.
    Expired,
}

/// One payment as the ledger knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentView {
    /// Its amount in cents.
    pub amount_cents: u64,
    /// Where it stands.
    pub state: PaymentState,
    /// What its processor calls it.
    pub reference: Option<Reference>,
    /// How it got there.
    pub history: History,
}

/// A processor's own name for a payment: 1 to 64 bytes of visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    size: u8,
    text: [u8; REFERENCE_SIZE_MAX],
}

impl Reference {
    /// `None` for what is none.
    #[must_use]
    pub fn new(reference: &str) -> Option<Self> {
        let is_usable = !reference.is_empty() && reference.bytes().all(|byte| byte.is_ascii_graphic());
        let mut text = [0; REFERENCE_SIZE_MAX];
        text.get_mut(..reference.len()).filter(|_| is_usable)?.copy_from_slice(reference.as_bytes());
        Some(Self { size: u8::try_from(reference.len()).ok()?, text })
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.text[..usize::from(self.size)]).expect("visible ASCII")
    }
}

/// What became of a processor's notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationAnswer {
    /// The payment's next look-up comes sooner, if it waits for one.
    Taken = 0,
    /// There is no such processor, or its profile says nothing of notifications.
    Nobody = 1,
    /// There is no signature that can be read.
    NotSigned = 2,
    /// The signature is not that of this body.
    BadSignature = 3,
    /// It names no payment.
    NoId = 4,
    /// The ledger, which knows whose payment it is, is away.
    LedgerUnreachable = 5,
}

impl NotificationAnswer {
    /// The number of variants.
    pub const COUNT: usize = 6;

    /// Their names in metrics, in their order.
    pub const NAMES: [&str; Self::COUNT] =
        ["taken", "nobody", "not_signed", "bad_signature", "no_id", "ledger_unreachable"];
}

/// What a request was for, as metrics say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/payments`.
    Payments = 0,
    /// `/payments/{id}`.
    Payment = 1,
    /// `/payments-summary`.
    Summary = 2,
    /// `/notifications/{processor}`.
    Notifications = 3,
    /// `/purge-payments`.
    Purge = 4,
    /// `/health`.
    Health = 5,
    /// `/ready`.
    Ready = 6,
    /// `/metrics`.
    Metrics = 7,
    /// A path that there is not, or a request that could not be read.
    Other = 8,
}

impl Endpoint {
    /// The number of variants.
    pub const COUNT: usize = 9;

    /// Their routes in metrics, in their order.
    pub const ROUTES: [&str; Self::COUNT] = [
        "/payments",
        "/payments/{id}",
        "/payments-summary",
        "/notifications/{processor}",
        "/purge-payments",
        "/health",
        "/ready",
        "/metrics",
        "other",
    ];
}

/// Why nothing was purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeError {
    /// The configuration forbids it.
    NotAllowed,
    /// The aggregator did not answer in time.
    Unreachable,
}

/// The gateway behind its HTTP front.
pub trait Service: 'static {
    /// The processors' names.
    fn names(&self) -> &Names;

    /// Called before a request that says in which of HAProxy's shifts it came.
    fn in_shift(&self, shift: u64);

    /// The members of a POST that go to some processor, by name; `None` where no processor's file names any.
    fn client_members(&self) -> Option<Rc<[String]>> {
        None
    }

    /// Accepts a payment, with what goes to a processor beside it. The answer is final: refusal comes before acceptance, never after.
    fn accept(
        &self,
        id: CorrelationId,
        amount: AmountCents,
        members: Option<Arc<str>>,
    ) -> impl Future<Output = Accepted>;

    /// Sums what was processed between two instants, both inclusive, each optional.
    ///
    /// # Errors
    /// [`Unreachable`] when the aggregator did not answer in time.
    fn summarize(
        &self,
        from: Option<UnixMillis>,
        to: Option<UnixMillis>,
    ) -> impl Future<Output = Result<Summary, Unreachable>>;

    /// Looks one payment up; `None` if the ledger does not know it.
    ///
    /// # Errors
    /// [`Unreachable`] when the aggregator did not answer in time.
    fn lookup(&self, id: CorrelationId) -> impl Future<Output = Result<Option<PaymentView>, Unreachable>>;

    /// Cancels a payment, unless a processor may have it. How it stands by then; `None` if the ledger does not know it.
    ///
    /// # Errors
    /// [`Unreachable`] when the aggregator did not answer in time.
    fn cancel(&self, id: CorrelationId) -> impl Future<Output = Result<Option<PaymentView>, Unreachable>>;

    /// The processor of this name.
    fn notifier(&self, name: &str) -> Option<(Processor, Arc<galo_profile::Processor>)>;

    /// Brings a payment's next look-up at this processor forward, with whoever has it.
    ///
    /// # Errors
    /// [`Unreachable`] while the aggregator is not connected.
    fn notice(&self, processor: Processor, id: CorrelationId) -> Result<(), Unreachable>;

    /// Called once for each notification.
    fn count_notification(&self, end: NotificationAnswer);

    /// Clears everything, for tests.
    ///
    /// # Errors
    /// [`PurgeError`] says why nothing was cleared.
    fn purge(&self) -> impl Future<Output = Result<(), PurgeError>>;

    /// Whether this gateway should get traffic.
    ///
    /// # Errors
    /// The reason why not, one sentence for people.
    fn ready(&self) -> Result<(), &'static str>;

    /// All metrics, as Prometheus text (version 0.0.4).
    fn metrics(&self) -> String;

    /// Called once for each answer written: what was asked, its status, and the microseconds from the request's last byte
    /// to the answer's last byte handed to the kernel (0 for a request that never became whole).
    fn observe(&self, endpoint: Endpoint, status: u16, elapsed_us: u64);
}
