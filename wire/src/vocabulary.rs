//! The words that both sides of a socket and the journal use: who a payment is, who processes it, how far it got.
//!
//! Plain values with a fixed byte layout (rkyv archives them in place). Nothing here decides anything; the
//! decisions are in `galo-engine`, which re-exports these names.

use std::fmt;
use std::hash::{Hash, Hasher};

use rkyv::{Archive, Deserialize, Serialize};

/// A payment's identity: the client's `correlationId`, a UUID's sixteen bytes in network order.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[rkyv(derive(Clone, Copy))]
pub struct CorrelationId(pub [u8; 16]);

/// As one number: an array hashes its length, too, and goes through the hasher's way for texts.
impl Hash for CorrelationId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_le_bytes(self.0));
    }
}

/// The length of a correlation id as text: 32 hexadecimal digits and 4 hyphens.
pub const CORRELATION_ID_TEXT_SIZE: usize = uuid::fmt::Hyphenated::LENGTH;

impl CorrelationId {
    /// Reads the hyphenated spelling of RFC 9562 (8-4-4-4-12, either case), the only one that the processors read.
    ///
    /// Returns `None` for anything else, the other spellings of a UUID (braces, `urn:uuid:`, bare digits) included.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != CORRELATION_ID_TEXT_SIZE {
            return None;
        }
        uuid::Uuid::try_parse_ascii(text).ok().map(|uuid| Self(uuid.into_bytes()))
    }

    /// Writes the canonical spelling, hyphenated and lower-case, into `buffer`.
    pub fn write(self, buffer: &mut [u8; CORRELATION_ID_TEXT_SIZE]) -> &str {
        uuid::Uuid::from_bytes(self.0).hyphenated().encode_lower(buffer)
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the two payment processors.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
pub enum Processor {
    /// The cheap one.
    Default = 0,
    /// The dear one.
    Fallback = 1,
}

impl Processor {
    /// Both, in the order of their indices.
    pub const ALL: [Self; 2] = [Self::Default, Self::Fallback];

    /// Its place in a two-element array: 0 for default, 1 for fallback.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Default => Self::Fallback,
            Self::Fallback => Self::Default,
        }
    }

    /// `"default"` or `"fallback"`, as the HTTP API and the metrics spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Fallback => "fallback",
        }
    }
}

/// Where an open payment stands in the ledger.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
pub enum Stage {
    /// No processor can have it: every attempt so far ended as refused, or there was none.
    Waiting = 0,
    /// An attempt at the default processor is recorded and has not ended as refused.
    AtDefault = 1,
    /// An attempt at the fallback processor is recorded and has not ended as refused.
    AtFallback = 2,
}

impl Stage {
    /// The stage of a payment with a recorded attempt at `processor`.
    #[must_use]
    pub const fn at(processor: Processor) -> Self {
        match processor {
            Processor::Default => Self::AtDefault,
            Processor::Fallback => Self::AtFallback,
        }
    }

    /// The processor that may have the payment, if any.
    #[must_use]
    pub const fn processor(self) -> Option<Processor> {
        match self {
            Self::Waiting => None,
            Self::AtDefault => Some(Processor::Default),
            Self::AtFallback => Some(Processor::Fallback),
        }
    }
}

/// How one attempt at a processor ended. See `galo_engine::outcome` for who decides which.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
pub enum Outcome {
    /// The processor has the payment, once.
    Processed = 0,
    /// The processor surely does not have it.
    Refused = 1,
    /// Nobody knows: the payment stays with this processor until it answers.
    Unknown = 2,
}
