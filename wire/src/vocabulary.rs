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

/// In the place of a decline's HTTP status: the client cancelled the payment, which no processor had.
pub const STATUS_CANCELLED: u16 = 1;

/// Likewise: an operator settled a payment in doubt as one that no processor has.
pub const STATUS_SETTLED: u16 = 2;

/// Likewise: the deadline that its client had set passed before any processor had the payment.
pub const STATUS_EXPIRED: u16 = 3;

/// Of a completion that says "processed": the payment was taken back from its gateway while the attempt was on its way.
pub const STATUS_TAKEN_BACK: u16 = 4;

/// How many processors a Galo can have: a processor's number takes three bits where ids are remembered.
pub const PROCESSORS_LEN_MAX: usize = 8;

/// A payment processor, by its number. Its name is configuration; the journal knows which number had which name.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
#[allow(missing_docs, reason = "a number says all that there is to say")]
pub enum Processor {
    N0 = 0,
    N1 = 1,
    N2 = 2,
    N3 = 3,
    N4 = 4,
    N5 = 5,
    N6 = 6,
    N7 = 7,
}

impl Processor {
    /// Number 0: the contest's `default`.
    pub const DEFAULT: Self = Self::N0;

    /// Number 1: the contest's `fallback`.
    pub const FALLBACK: Self = Self::N1;

    /// The contest's two.
    pub const PAIR: [Self; 2] = [Self::DEFAULT, Self::FALLBACK];

    /// All that there can be, in the order of their numbers.
    pub const ALL: [Self; PROCESSORS_LEN_MAX] =
        [Self::N0, Self::N1, Self::N2, Self::N3, Self::N4, Self::N5, Self::N6, Self::N7];

    /// Its number, and its place in an array.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The first `count` of them.
    ///
    /// # Panics
    /// If `count` is above [`PROCESSORS_LEN_MAX`].
    #[must_use]
    pub fn first(count: usize) -> &'static [Self] {
        &Self::ALL[..count]
    }

    /// Its number in the top three bits of a word, lowest bit topmost: 0 and 1 stand as they did when there were two.
    #[must_use]
    pub const fn to_top_bits(self) -> u64 {
        (self as u64).reverse_bits()
    }

    /// Reads what [`Self::to_top_bits`] wrote; the other bits are not looked at.
    #[must_use]
    pub const fn from_top_bits(word: u64) -> Self {
        Self::ALL[(word.reverse_bits() & 7) as usize]
    }
}

/// Where an open payment stands in the ledger.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
#[allow(missing_docs, reason = "a number says all that there is to say")]
pub enum Stage {
    /// No processor can have it: every attempt so far ended as refused, or there was none.
    Waiting = 0,
    /// An attempt at processor number 0 is recorded and has not ended as refused; and so on.
    At0 = 1,
    At1 = 2,
    At2 = 3,
    At3 = 4,
    At4 = 5,
    At5 = 6,
    At6 = 7,
    At7 = 8,
}

impl Stage {
    const AT: [Self; PROCESSORS_LEN_MAX] =
        [Self::At0, Self::At1, Self::At2, Self::At3, Self::At4, Self::At5, Self::At6, Self::At7];

    /// The stage of a payment with a recorded attempt at `processor`.
    #[must_use]
    pub const fn at(processor: Processor) -> Self {
        Self::AT[processor.index()]
    }

    /// The processor that may have the payment, if any.
    #[must_use]
    pub const fn processor(self) -> Option<Processor> {
        match (self as usize).checked_sub(1) {
            Some(index) => Some(Processor::ALL[index]),
            None => None,
        }
    }
}

/// A text that belongs to a payment, see [`Attached`](crate::Attached).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
pub enum Attachment {
    /// Members of the client's POST that go to a processor, as the text of a JSON object. Kept while the payment is open.
    Members = 0,
    /// The processor's own name for the payment.
    Reference = 1,
}

impl Attachment {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Members, Self::Reference];
}

/// How one attempt at a processor ended. See `galo_engine::verdict` for what decides it.
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
    /// It was in doubt, and the processor says, long after anything could still be on its way, that it does not have it.
    Absent = 3,
    /// No processor will ever take it: the payment has ended, and nothing was charged.
    Declined = 4,
}
