//! The records that gateway and aggregator exchange, and [`Message`], any one of them.
//!
//! Each record is a fixed number of bytes (rkyv, little-endian, unaligned, validated on arrival), so a frame can carry
//! a batch of them and a receiver needs no second length. Sizes are asserted at compile time and the very bytes are
//! kept in `tests/golden.rs`: changing either is a new [`PROTOCOL_VERSION`].
//!
//! Rejected: one self-describing encoding (serde, protobuf) for all. It would cost a length and a tag per field, and
//! validation would be a parse instead of a look.
//!
//! # Byte layouts
//!
//! Offsets in bytes; all integers little-endian; `id` is the sixteen bytes of the UUID. `docs/protocol.md` draws them.

use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::attached::PART_SIZE;
use crate::history::{AttemptState, Reason};
use crate::vocabulary::{Attachment, CorrelationId, Outcome, Processor, Stage};

/// The version that both sides state in their [`Hello`]; peers of different versions do not talk.
pub const PROTOCOL_VERSION: u16 = 6;

/// The bound of a summary that the client left open, on either side.
pub const REQUESTED_AT_MS_MAX: u64 = u64::MAX;

/// Of a [`Withdrawal`] that answers nothing: the gateway finds the payment by its id. No payment has this slot, and no [`Claim`] of an ended one.
pub const ANY_SLOT: u32 = (1 << 24) - 1;

/// A number for the processors that a gateway knows, by their numbers: peers that mean different ones by a number must not talk.
/// Never 0.
#[must_use]
pub fn processors_fingerprint<'a>(names: impl IntoIterator<Item = (Processor, &'a str)>) -> u16 {
    let mut sum = 0_u32;
    for (processor, name) in names {
        sum = crc32c::crc32c_append(sum, &[processor as u8]);
        sum = crc32c::crc32c_append(sum, name.as_bytes());
        sum = crc32c::crc32c_append(sum, b"\n");
    }
    let [a, b, c, d] = sum.to_le_bytes();
    u16::from_le_bytes([a ^ c, b ^ d]).max(1)
}

impl Message {
    /// Whether nobody waits for it: it may leave with the next that somebody waits for, or some milliseconds later.
    ///
    /// What a gateway has to tell of an attempt's end is asked for with [`Flush`] before it could be missed, and an acknowledgement
    /// only ends its being kept. So a payment costs the aggregator one wake-up and a gateway three, not two and four.
    #[must_use]
    pub const fn can_wait(&self) -> bool {
        // What a part is worth, the record behind it says.
        matches!(self, Self::Completion(_) | Self::Acknowledgement(_) | Self::Notice(_) | Self::Part(_))
    }
}

/// Declares the records, their kinds on the wire and their sizes, and derives [`Message`] and its codec from the list.
macro_rules! records {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $size:literal bytes { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            const _: () = assert!(size_of::<rkyv::Archived<$name>>() == $size, "a record's size is part of the protocol");
            const _: () = assert!(align_of::<rkyv::Archived<$name>>() == 1, "records stand at any offset of a frame");

            impl From<$name> for Message {
                fn from(record: $name) -> Self { Self::$name(record) }
            }
        )*

        /// Any record, as it is sent and received.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Message {
            $(#[doc = concat!("A [`", stringify!($name), "`].")] $name($name),)*
        }

        /// What a frame carries: its number on the wire.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = concat!("[`", stringify!($name), "`] records.")] $name = $kind,)*
        }

        impl Kind {
            /// Every kind, in the order of the protocol's table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The kind with this number, if there is one.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($kind => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The size of one record of this kind, in bytes.
            #[must_use]
            pub const fn record_size(self) -> usize {
                match self {
                    $(Self::$name => $size,)*
                }
            }
        }

        impl Message {
            /// The kind of this record.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$name(_) => Kind::$name,)*
                }
            }

            /// Appends the record's bytes to `out`.
            pub(crate) fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(record) => {
                        let mut bytes = [0_u8; $size];
                        let buffer = rkyv::ser::writer::Buffer::from(&mut bytes[..]);
                        rkyv::api::serialize_using::<_, rancor::Failure>(record, &mut { buffer })
                            .expect("a fixed-size record fits its own size");
                        out.extend_from_slice(&bytes);
                    })*
                }
            }

            /// Reads one record of `kind` from exactly its bytes; `None` where they are no valid record.
            pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Option<Self> {
                match kind {
                    $(Kind::$name => {
                        let archived = rkyv::access::<rkyv::Archived<$name>, rancor::Failure>(bytes).ok()?;
                        let record = rkyv::deserialize::<$name, rancor::Failure>(archived).ok()?;
                        Some(Self::$name(record))
                    })*
                }
            }
        }
    };
}

/// Which side of the socket speaks.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Role {
    /// A thread of a gateway.
    Gateway = 0,
    /// The aggregator.
    Aggregator = 1,
}

/// The ledger's answer to an [`Accept`].
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Admission {
    /// The payment is new, in the ledger, and this gateway's to dispatch.
    Granted = 0,
    /// The ledger has this id with the same amount; nothing is to be dispatched.
    Replayed = 1,
    /// The ledger has this id with another amount.
    Conflict = 2,
    /// The ledger holds as many open payments as it may.
    Full = 3,
    /// The accept came too late: its client has been refused, or is about to be.
    Expired = 4,
}

/// Where a word about a processor's health comes from.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum HealthSource {
    /// The processor's own health check.
    Check = 0,
    /// Real payments of some gateway.
    Traffic = 1,
}

/// What the ledger knows of an id.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Standing {
    /// Nothing.
    Absent = 0,
    /// Accepted, not processed yet.
    Open = 1,
    /// Processed.
    Processed = 2,
    /// Ended without being processed: declined by whoever could have taken it, cancelled, or settled so by an operator.
    Declined = 3,
}

records! {
    /// The first record in each direction of a connection.
    Hello = 1, 16 bytes {
        /// See [`PROTOCOL_VERSION`].
        protocol_version: u16,
        /// Who speaks.
        role: Role,
        /// The gateway's number, from 1; 0 for the aggregator.
        instance: u8,
        /// The gateway's thread, from 0.
        thread: u16,
        /// Which processors it knows by which numbers: see [`processors_fingerprint`]. 0 from the aggregator.
        processors: u16,
        /// Drawn at each start of the process: tells a reconnect from a restart.
        incarnation: u64,
    }
    /// Either side: part of a text that belongs to the next record which is none; see [`Attached`](crate::Attached).
    Part = 17, 50 bytes {
        /// Which text.
        attachment: Attachment,
        /// How many bytes of this part count, from 1.
        size: u8,
        /// They; the others are zero.
        text: [u8; PART_SIZE],
    }
    /// Gateway: may I take this payment? Carries the attempt that follows a grant, so that the intent is in the ledger with it.
    Accept = 2, 46 bytes {
        /// The gateway's handle for the payment, echoed in the answer.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
        /// How much.
        amount_cents: u64,
        /// The `requestedAt` of the planned attempt; while waiting, when that was decided.
        decided_at_ms: u64,
        /// By when the grant must be made, µs of the host's monotonic clock: the client is told "no" soon after.
        expires_at_us: u64,
        /// The processor of the planned attempt, or waiting.
        stage: Stage,
        /// Why.
        reason: Reason,
    }
    /// Gateway: I am about to send this payment to that processor. Nothing is sent before [`IntentRecorded`].
    Intent = 3, 34 bytes {
        /// The gateway's handle for the payment, echoed in the answer.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
        /// The `requestedAt` that the processor will store.
        requested_at_ms: u64,
        /// Where to.
        processor: Processor,
        /// Why.
        reason: Reason,
        /// How long the payment has waited with this gateway, ms.
        waited_for_ms: u32,
    }
    /// Gateway: an attempt ended.
    Completion = 4, 36 bytes {
        /// Counts this connection's completions from 1; see [`Acknowledgement`].
        sequence: u64,
        /// Who.
        correlation_id: CorrelationId,
        /// The `requestedAt` that the processor stored.
        requested_at_ms: u64,
        /// Where.
        processor: Processor,
        /// How.
        outcome: Outcome,
        /// The HTTP status behind a decline; of what was processed [`STATUS_TAKEN_BACK`](crate::STATUS_TAKEN_BACK) if the payment was no longer
        /// this gateway's; else 0.
        status: u16,
    }
    /// Gateway, after a reconnect: this granted payment is in my hands.
    Claim = 5, 38 bytes {
        /// The gateway's handle for the payment.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
        /// How much.
        amount_cents: u64,
        /// The recorded attempt's `requestedAt`; while waiting, of the attempt that was given up, 0 if there was none.
        requested_at_ms: u64,
        /// The processor that may have it.
        stage: Stage,
        /// An attempt there ended as unknown.
        in_doubt: bool,
    }
    /// Gateway, after its claims: give me work. Until then nothing is assigned to this connection.
    Ready = 11, 8 bytes {
        /// As long as it holds fewer payments than that.
        held_len_max: u64,
    }
    /// Gateway: the answer to a [`Flush`]; whatever this thread had heard when it came stands before this.
    Flushed = 12, 4 bytes {
        /// From the flush.
        number: u32,
    }
    /// Gateway: a processor has processed this id with another amount, or another `requestedAt`, than was sent. The ledger decides what that means.
    Discrepancy = 13, 38 bytes {
        /// Echoed in the answer, if there is one.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
        /// Where.
        processor: Processor,
        /// The `requestedAt` that is stored there; 0 where the processor tells none.
        requested_at_ms: u64,
        /// How much it is there, cents.
        amount_cents: u64,
        /// This gateway has not heard yet that it is a contradiction.
        is_new: bool,
    }
    /// Gateway, before it stops: somebody else shall see to this payment.
    Release = 6, 16 bytes {
        /// Who.
        correlation_id: CorrelationId,
    }
    /// Gateway: totals of the payments with `from <= requestedAt <= to`, please.
    SummaryQuery = 7, 20 bytes {
        /// Echoed in the answer.
        slot: u32,
        /// The first millisecond that counts.
        from_ms: u64,
        /// The last millisecond that counts.
        to_ms: u64,
    }
    /// Gateway: what is known of this id?
    LookupQuery = 8, 20 bytes {
        /// Echoed in the answer.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
    }
    /// Gateway: a client wants no attempt to be made any more. Answered like a [`LookupQuery`], with how the payment stands by then.
    CancelQuery = 14, 20 bytes {
        /// Echoed in the answer.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
    }
    /// Gateway: the answer to a [`Yield`].
    Yielded = 15, 21 bytes {
        /// From it.
        number: u32,
        /// From it.
        correlation_id: CorrelationId,
        /// No attempt of this thread's is on its way, and none will be: it has dropped the payment, if it had it.
        idle: bool,
    }
    /// Gateway: a processor has said that something happened to this payment. It is not believed: its owner looks sooner.
    Notice = 16, 17 bytes {
        /// Who.
        correlation_id: CorrelationId,
        /// Which processor.
        processor: Processor,
    }
    /// Gateway: forget everything.
    PurgeQuery = 9, 4 bytes {
        /// Echoed in the answer.
        slot: u32,
    }
    /// Gateway: this is how a processor does.
    HealthReport = 10, 11 bytes {
        /// Which.
        processor: Processor,
        /// How it is known.
        source: HealthSource,
        /// It refuses payments.
        failing: bool,
        /// Its response time, ms: the least one (health check) or the expected one (traffic).
        response_ms: u32,
        /// How long it asks to be left alone, ms; 0 if it does not.
        retry_after_ms: u32,
    }
    /// Aggregator: the answer to an [`Accept`].
    Grant = 33, 21 bytes {
        /// The gateway's handle.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
        /// The answer.
        admission: Admission,
    }
    /// Aggregator: the [`Intent`] is in the ledger; send.
    IntentRecorded = 34, 20 bytes {
        /// The gateway's handle.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
    }
    /// Aggregator: completions up to and including this one are in the ledger. Of number 0: all [`Claim`]s before [`Ready`] are heard.
    Acknowledgement = 35, 8 bytes {
        /// The last one.
        sequence: u64,
    }
    /// Aggregator: this payment is yours now, with what is known of its attempts.
    Assignment = 36, 34 bytes {
        /// Who.
        correlation_id: CorrelationId,
        /// How much.
        amount_cents: u64,
        /// The recorded attempt's `requestedAt`; 0 while waiting.
        requested_at_ms: u64,
        /// The processor that may have it.
        stage: Stage,
        /// It may be there already, whoever sent it.
        in_doubt: bool,
    }
    /// Aggregator: this payment is not yours (any more): drop it.
    Withdrawal = 37, 20 bytes {
        /// The gateway's handle, from its [`Intent`] or [`Claim`]; [`ANY_SLOT`] where it was not asked.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
    }
    /// Aggregator, before a [`SummaryReply`]: one processor's totals. Processors without payments in the range have none.
    SummaryTotal = 49, 17 bytes {
        /// Where.
        processor: Processor,
        /// Payments.
        requests: u64,
        /// Their sum, cents.
        amount_cents: u64,
    }
    /// Aggregator: the answer to a [`SummaryQuery`].
    SummaryReply = 38, 9 bytes {
        /// From the query.
        slot: u32,
        /// 1 where the answer is exact, else the width of the coarsest bucket that a bound cut, ms.
        resolution_ms: u32,
        /// How many [`SummaryTotal`]s came just before this.
        total_count: u8,
    }
    /// Aggregator: the answer to a [`LookupQuery`].
    LookupReply = 39, 43 bytes {
        /// From the query.
        slot: u32,
        /// From the query.
        correlation_id: CorrelationId,
        /// Whether the id is known, and how far it got; the fields below count only if it is.
        standing: Standing,
        /// How much.
        amount_cents: u64,
        /// The attempt's or the processed payment's `requestedAt`; 0 while waiting; of a declined one when it ended.
        requested_at_ms: u64,
        /// The processor that has it, or may.
        stage: Stage,
        /// It may be there already.
        in_doubt: bool,
        /// How many [`PastDecision`]s came just before this.
        decision_count: u8,
        /// There were others, which are not kept.
        decisions_forgotten: bool,
        /// Of a declined payment the HTTP status of the last refusal, 0 where it is not known; or
        /// [`STATUS_CANCELLED`](crate::STATUS_CANCELLED), [`STATUS_SETTLED`](crate::STATUS_SETTLED), [`STATUS_EXPIRED`](crate::STATUS_EXPIRED).
        status: u16,
    }
    /// Aggregator, before a [`LookupReply`], oldest first: one decision about the payment, and what came of it.
    PastDecision = 48, 16 bytes {
        /// When, by the clock of the gateway that decided, but not before the decision that precedes it.
        at_ms: u64,
        /// How long the payment had waited with that gateway, ms.
        waited_for_ms: u32,
        /// Where it was sent, or that it was told to wait.
        stage: Stage,
        /// Why.
        reason: Reason,
        /// What is known of the attempt.
        attempt: AttemptState,
        /// The attempt was in doubt, if only for a while.
        was_in_doubt: bool,
    }
    /// Aggregator, to every gateway: the ledger is empty; drop every payment granted before this.
    Purged = 40, 4 bytes {
        /// Counts purges since the aggregator's start.
        generation: u32,
    }
    /// Aggregator: the answer to a [`PurgeQuery`], after [`Purged`].
    PurgeReply = 41, 4 bytes {
        /// From the query.
        slot: u32,
    }
    /// Aggregator: yours is the next health check of this processor; report it.
    Lease = 42, 1 bytes {
        /// Which.
        processor: Processor,
    }
    /// Aggregator: what a [`HealthReport`] of another gateway said.
    HealthNews = 43, 11 bytes {
        /// Which.
        processor: Processor,
        /// How it is known.
        source: HealthSource,
        /// It refuses payments.
        failing: bool,
        /// See [`HealthReport::response_ms`].
        response_ms: u32,
        /// See [`HealthReport::retry_after_ms`].
        retry_after_ms: u32,
    }
    /// Aggregator, to every gateway: an operator is about to settle this payment; drop it, unless an attempt is on its way.
    Yield = 45, 20 bytes {
        /// Echoed.
        number: u32,
        /// Who.
        correlation_id: CorrelationId,
    }
    /// Aggregator, to a payment's owner: what a [`Notice`] said.
    Notified = 51, 17 bytes {
        /// Who.
        correlation_id: CorrelationId,
        /// Which processor.
        processor: Processor,
    }
    /// Aggregator: this ring of the host's admission table is yours; grant there by yourself.
    Opened = 53, 14 bytes {
        /// The table's own number: whoever has mapped another one does not use it.
        region: u64,
        /// Which.
        ring: u16,
        /// Counts how often it was opened.
        opening: u32,
    }
    /// To the gateway that found it so: a processor has this id otherwise than the ledger, and no totals hold it. Nothing is booked; a person decides.
    Contradiction = 52, 29 bytes {
        /// From the discrepancy.
        slot: u32,
        /// Who.
        correlation_id: CorrelationId,
        /// Where.
        processor: Processor,
        /// How much it is there, cents.
        amount_cents: u64,
    }
    /// Aggregator: read what processors have answered, say whatever you have not said yet, then [`Flushed`]. Somebody asked for a summary.
    Flush = 44, 4 bytes {
        /// Echoed.
        number: u32,
    }
}
