//! The journal's bytes: a header for each file, and records of one fixed size behind it.
//!
//! Headers and records are all [`BLOCK_SIZE`] bytes, so that block `n` stands at `48 n` and one that is cut short can be told
//! from one that is damaged. Each ends in a CRC-32C over all bytes before it, the sequence number included: a record
//! that strayed from its place is as wrong as one with a flipped bit.
//!
//! ```text
//! header                                     record
//! offset  size  field                        offset  size  field
//!      0     8  "GALOJRNL"                        0     8  sequence
//!      8     2  format version                    8    36  fact (rkyv: tag, then its fields)
//!     10     1  file kind                        44     4  CRC-32C of bytes 0..44
//!     11     1  zero
//!     12     8  first sequence
//!     20     8  incarnation
//!     28     8  known ids at most
//!     36     8  zero
//!     44     4  CRC-32C of bytes 0..44
//! ```
//!
//! All integers are little-endian. Segments and snapshots share the format: a snapshot is a file of facts that describe a state
//! instead of changes, most of them in [pages](crate::page). Changing a byte of this is a new [`JOURNAL_VERSION`]; the magic and the version stay where they
//! are for ever, so that any build can name what it cannot read.
//!
//! Version 1 is read, too: it has no pages, and snapshots of it have [`Fact::Moments`] instead; reasons and waits stand where it has zeros,
//! and zero says that nothing was stated. Version 2 knows two processors and no declines: what it has no word for is zero there. Version 3 knows
//! no attached texts, version 4 no payments that were known before. So one decoder reads all five.
//!
//! Codec only; it never panics on what it is given. What damage means is decided in `galo_engine::recovery`.

use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::page::{DigestRow, MomentRow, PageRow, ReferenceRow, RememberedRow, page_size};

/// The size of a header and of a record, in bytes.
pub const BLOCK_SIZE: usize = 48;

/// The format that this build writes.
pub const JOURNAL_VERSION: u16 = 5;

/// The oldest format that this build reads.
pub const JOURNAL_VERSION_OLDEST: u16 = 1;

/// The longest name of a processor, in bytes.
pub const PROCESSOR_NAME_SIZE: usize = 32;

/// The bytes of a text that one record takes.
pub const NOTE_SIZE: usize = 32;

/// The bytes that the checksum covers.
const CHECKED_SIZE: usize = BLOCK_SIZE - 4;

const MAGIC: [u8; 8] = *b"GALOJRNL";

/// What a file holds.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum FileKind {
    /// Changes of the ledger, one behind the other.
    Segment = 1,
    /// The ledger's state before the segment of the same number.
    Snapshot = 2,
}

/// The first block of a file.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Segment or snapshot.
    pub kind: FileKind,
    /// Zero.
    pub reserved: u8,
    /// The sequence of the first change in this segment, or after this snapshot.
    pub first_sequence: u64,
    /// Of the process that wrote it.
    pub incarnation: u64,
    /// How many processed ids that process remembered: replaying must forget exactly those that it forgot.
    pub known_len_max: u64,
}

/// Where the archived header begins: behind magic and version.
const HEADER_START: usize = 10;
const HEADER_END: usize = HEADER_START + size_of::<rkyv::Archived<Header>>();
const _: () = assert!(HEADER_END == 36 && align_of::<rkyv::Archived<Header>>() == 1);

pub use fact::{Fact, Moment};

mod fact {
    #![allow(
        missing_docs,
        reason = "rkyv's derive leaves the fields of what it makes of an enum undocumented"
    )]

    use rkyv::{Archive, Deserialize, Serialize};

    use crate::history::Reason;
    use crate::vocabulary::{Attachment, CorrelationId, Outcome, Processor, Stage};

    use super::{NOTE_SIZE, PROCESSOR_NAME_SIZE};

    /// One thing that is so, or that happened.
    ///
    /// The first four are changes and stand in segments; the others, with [`Fact::Accepted`] for an open payment, describe a state and
    /// stand in snapshots.
    #[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Fact {
        /// A payment was accepted and is open.
        Accepted {
            /// Who.
            correlation_id: CorrelationId,
            /// How much.
            amount_cents: u64,
            /// The recorded attempt's `requestedAt`; while waiting, when it was accepted, or 0 in a snapshot.
            decided_at_ms: u64,
            /// The processor of the recorded attempt, or waiting.
            stage: Stage,
            /// The attempt's outcome is unknown.
            in_doubt: bool,
            /// Why that was decided.
            reason: Reason,
        },
        /// An open payment is about to be sent.
        Intended {
            /// Who.
            correlation_id: CorrelationId,
            /// The `requestedAt` to be stored there.
            requested_at_ms: u64,
            /// Where to.
            processor: Processor,
            /// Why.
            reason: Reason,
            /// How long it had waited with the gateway that decided, ms.
            waited_for_ms: u32,
        },
        /// An attempt ended.
        Resolved {
            /// Who.
            correlation_id: CorrelationId,
            /// The `requestedAt` stored there.
            requested_at_ms: u64,
            /// Where.
            processor: Processor,
            /// How.
            outcome: Outcome,
            /// The HTTP status behind a decline; else 0.
            status: u16,
        },
        /// Everything was forgotten.
        Purged,
        /// A snapshot begins: what room it takes.
        Begin {
            /// Open payments at most.
            open_len: u64,
            /// Remembered ids at most.
            known_len: u64,
            /// There was a purge before.
            purged: bool,
        },
        /// A payment was processed; these stand in the order in which they are forgotten.
        Remembered {
            /// Who.
            correlation_id: CorrelationId,
            /// How much.
            amount_cents: u64,
            /// As stored by the processor.
            requested_at_ms: u64,
            /// Where.
            processor: Processor,
            /// See [`RememberedRow`](crate::page::RememberedRow).
            declined: bool,
        },
        /// What one processor processed in a span of time.
        Bucket {
            /// The span's first millisecond.
            start_ms: u64,
            /// Its last.
            last_ms: u64,
            /// Payments.
            count: u64,
            /// Their sum.
            amount_cents: u64,
            /// Where.
            processor: Processor,
            /// 0 a millisecond, 1 a second, 2 a minute, 3 hours.
            level: u8,
        },
        /// A snapshot is complete.
        End,
        /// What one processor processed in up to three milliseconds of one second. Version 1 wrote most buckets so.
        Moments {
            /// The second's first millisecond.
            second_ms: u64,
            /// Where.
            processor: Processor,
            /// In order; those that count nothing are not there.
            moments: [Moment; 3],
        },
        /// So many [`RememberedRow`](crate::page::RememberedRow)s follow.
        RememberedPage {
            /// Rows.
            rows: u16,
            /// The page's CRC-32C.
            checksum: u32,
        },
        /// So many [`MomentRow`](crate::page::MomentRow)s follow, in order of time.
        MomentsPage {
            /// What their times are counted from, ms.
            start_ms: u64,
            /// Where.
            processor: Processor,
            /// Rows.
            rows: u16,
            /// The page's CRC-32C.
            checksum: u32,
        },
        /// This processor has this name, now and for ever. Stands in segments and in snapshots.
        Named {
            /// Which.
            processor: Processor,
            /// ASCII, filled up with zeros.
            name: [u8; PROCESSOR_NAME_SIZE],
        },
        /// Declined payments since start or purge, remembered or not. Stands in snapshots.
        Declines {
            /// How many.
            count: u64,
            /// Their sum, cents.
            amount_cents: u64,
        },
        /// What an operator wrote when he settled a payment: behind the [`Fact::Resolved`] that says how, in as many as it takes.
        /// It changes nothing, and stands in segments alone.
        Note {
            /// Counts the parts of one text from 0.
            part: u8,
            /// UTF-8, filled up with zeros; a character may go on in the next part.
            text: [u8; NOTE_SIZE],
        },
        /// Part of a text that belongs to the [`Fact::Accepted`] or [`Fact::Resolved`] behind it, with nothing but such parts in between.
        Attached {
            /// Which text.
            attachment: Attachment,
            /// How many bytes of this part count, from 1.
            size: u8,
            /// They; the others are zero.
            text: [u8; NOTE_SIZE],
        },
        /// So many [`DigestRow`](crate::page::DigestRow)s follow, about ids that stand before this.
        DigestsPage {
            /// Rows.
            rows: u16,
            /// The page's CRC-32C.
            checksum: u32,
        },
        /// So many [`ReferenceRow`](crate::page::ReferenceRow)s follow, about ids that stand before this.
        ReferencesPage {
            /// Rows.
            rows: u16,
            /// The page's CRC-32C.
            checksum: u32,
        },
        /// An open payment ended: its id was forgotten, came back, and its processor has it since before; the totals hold that.
        KnownBefore {
            /// Who.
            correlation_id: CorrelationId,
            /// How much, as stored there.
            amount_cents: u64,
            /// As stored there.
            requested_at_ms: u64,
            /// Where.
            processor: Processor,
        },
        /// Such payments since start or purge, remembered or not. Stands in snapshots.
        KnownBefores {
            /// How many.
            count: u64,
            /// Their sum as they were accepted when they came back, cents.
            amount_cents: u64,
        },
        /// Payments of this processor were forgotten. Stands in snapshots.
        Forgotten {
            /// Where.
            processor: Processor,
            /// The latest `requestedAt` of theirs.
            latest_ms: u64,
        },
    }

    /// A millisecond within a second.
    #[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub struct Moment {
        /// Since the second began, ms.
        pub offset_ms: u16,
        /// Payments.
        pub count: u8,
        /// Their sum.
        pub amount_cents: u32,
    }
}

impl Fact {
    /// The size of the page that follows, and its checksum; `None` for a fact that announces none.
    #[must_use]
    pub fn page(&self) -> Option<(usize, u32)> {
        match *self {
            Self::RememberedPage { rows, checksum } => {
                Some((page_size(rows.into(), RememberedRow::SIZE), checksum))
            }
            Self::MomentsPage { rows, checksum, .. } => {
                Some((page_size(rows.into(), MomentRow::SIZE), checksum))
            }
            Self::DigestsPage { rows, checksum } => Some((page_size(rows.into(), DigestRow::SIZE), checksum)),
            Self::ReferencesPage { rows, checksum } => {
                Some((page_size(rows.into(), ReferenceRow::SIZE), checksum))
            }
            Self::Accepted { .. }
            | Self::Intended { .. }
            | Self::Resolved { .. }
            | Self::Purged
            | Self::Begin { .. }
            | Self::Remembered { .. }
            | Self::Bucket { .. }
            | Self::End
            | Self::Moments { .. }
            | Self::Named { .. }
            | Self::Declines { .. }
            | Self::Note { .. }
            | Self::Attached { .. }
            | Self::KnownBefore { .. }
            | Self::KnownBefores { .. }
            | Self::Forgotten { .. } => None,
        }
    }
}

/// A fact and its place: in a segment the changes are counted over all segments from 1, in a snapshot the rows from 1.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its number.
    pub sequence: u64,
    /// What.
    pub fact: Fact,
}

const RECORD_SIZE: usize = size_of::<rkyv::Archived<Record>>();
const _: () = assert!(RECORD_SIZE == CHECKED_SIZE && align_of::<rkyv::Archived<Record>>() == 1);

/// Why a block is no header that this build reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// It is shorter than a header.
    #[error("its header is cut short")]
    Short,
    /// It begins with something else.
    #[error("it is no file of Galo's journal")]
    Foreign,
    /// Another build wrote it.
    #[error("it has format version {0}, this build reads {JOURNAL_VERSION_OLDEST} to {JOURNAL_VERSION}")]
    Version(u16),
    /// Damaged.
    #[error("its header is damaged")]
    Damaged,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK_SIZE] {
        let mut block = [0; BLOCK_SIZE];
        block[..8].copy_from_slice(&MAGIC);
        block[8..10].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
        let buffer = rkyv::ser::writer::Buffer::from(&mut block[HEADER_START..HEADER_END]);
        rkyv::api::serialize_using::<_, rancor::Failure>(self, &mut { buffer })
            .expect("a header fits its own size");
        seal(&mut block);
        block
    }

    /// Whether a file of these few bytes may be one whose header was cut short.
    #[must_use]
    pub fn may_begin_with(bytes: &[u8]) -> bool {
        let magic = &MAGIC[..bytes.len().min(MAGIC.len())];
        bytes.starts_with(magic) || bytes.iter().all(|byte| *byte == 0)
    }

    /// Reads the first bytes of a file.
    ///
    /// # Errors
    /// Why they are no header.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let block = bytes.first_chunk::<BLOCK_SIZE>().ok_or(HeaderError::Short)?;
        if block[..8] != MAGIC {
            return Err(HeaderError::Foreign);
        }
        match u16::from_le_bytes([block[8], block[9]]) {
            JOURNAL_VERSION_OLDEST..=JOURNAL_VERSION => {}
            other => return Err(HeaderError::Version(other)),
        }
        if !is_sealed(block) {
            return Err(HeaderError::Damaged);
        }
        let archived =
            rkyv::access::<rkyv::Archived<Self>, rancor::Failure>(&block[HEADER_START..HEADER_END]);
        let header = archived.and_then(rkyv::deserialize::<Self, rancor::Failure>);
        header.map_err(|_| HeaderError::Damaged)
    }
}

impl Record {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK_SIZE] {
        let mut block = [0; BLOCK_SIZE];
        let buffer = rkyv::ser::writer::Buffer::from(&mut block[..RECORD_SIZE]);
        rkyv::api::serialize_using::<_, rancor::Failure>(self, &mut { buffer })
            .expect("a record fits its own size");
        seal(&mut block);
        block
    }

    /// Reads a record; `None` where the bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let block: &[u8; BLOCK_SIZE] = bytes.try_into().ok()?;
        if !is_sealed(block) {
            return None;
        }
        let archived = rkyv::access::<rkyv::Archived<Self>, rancor::Failure>(&block[..RECORD_SIZE]).ok()?;
        rkyv::deserialize::<Self, rancor::Failure>(archived).ok()
    }

    /// The sequence number that these bytes would have, be they a record or not. Cheap: it is for a search.
    #[must_use]
    pub fn sequence_of(block: &[u8; BLOCK_SIZE]) -> u64 {
        u64::from_le_bytes(*block.first_chunk().expect("a block is longer than a number"))
    }
}

fn seal(block: &mut [u8; BLOCK_SIZE]) {
    let checksum = crc32c::crc32c(&block[..CHECKED_SIZE]);
    block[CHECKED_SIZE..].copy_from_slice(&checksum.to_le_bytes());
}

fn is_sealed(block: &[u8; BLOCK_SIZE]) -> bool {
    crc32c::crc32c(&block[..CHECKED_SIZE]).to_le_bytes() == block[CHECKED_SIZE..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Reason;
    use crate::vocabulary::{Attachment, CorrelationId, Outcome, Processor, Stage};

    const ID: CorrelationId = CorrelationId([0xa0, 0xa1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    /// How many of [`facts`] version 2 could say.
    const FACTS_V2_LEN: usize = 11;

    /// Likewise version 3.
    const FACTS_V3_LEN: usize = 16;

    /// Likewise version 4.
    const FACTS_V4_LEN: usize = 20;

    fn facts() -> [Fact; 23] {
        [
            Fact::Accepted {
                correlation_id: ID,
                amount_cents: 1990,
                decided_at_ms: 0x0198_0000_0001,
                stage: Stage::At1,
                in_doubt: true,
                reason: Reason::Backlog,
            },
            Fact::Intended {
                correlation_id: ID,
                requested_at_ms: 0x0198_0000_0001,
                processor: Processor::FALLBACK,
                reason: Reason::PatienceOver,
                waited_for_ms: 0x0102_0304,
            },
            Fact::Resolved {
                correlation_id: ID,
                requested_at_ms: 0x0198_0000_0001,
                processor: Processor::DEFAULT,
                outcome: Outcome::Unknown,
                status: 0,
            },
            Fact::Purged,
            Fact::Begin { open_len: 7, known_len: 9, purged: true },
            Fact::Remembered {
                correlation_id: ID,
                amount_cents: 1990,
                requested_at_ms: 0x0198_0000_0001,
                processor: Processor::FALLBACK,
                declined: false,
            },
            Fact::Bucket {
                start_ms: 3_600_000,
                last_ms: 7_199_999,
                count: 3,
                amount_cents: 5970,
                processor: Processor::FALLBACK,
                level: 3,
            },
            Fact::End,
            Fact::Moments {
                second_ms: 5_000,
                processor: Processor::FALLBACK,
                moments: [
                    Moment { offset_ms: 1, count: 2, amount_cents: 3_980 },
                    Moment { offset_ms: 999, count: 255, amount_cents: u32::MAX },
                    Moment::default(),
                ],
            },
            Fact::RememberedPage { rows: 0x0102, checksum: 0x0304_0506 },
            Fact::MomentsPage {
                start_ms: 5_000,
                processor: Processor::FALLBACK,
                rows: 0x0102,
                checksum: 0x0304_0506,
            },
            Fact::Named { processor: Processor::N6, name: *b"a-processor-of-thirty-two-bytes!" },
            Fact::Declines { count: 7, amount_cents: 13_930 },
            Fact::Resolved {
                correlation_id: ID,
                requested_at_ms: 0x0198_0000_0001,
                processor: Processor::N7,
                outcome: Outcome::Declined,
                status: 402,
            },
            Fact::Remembered {
                correlation_id: ID,
                amount_cents: 1990,
                requested_at_ms: 0x0198_0000_0001,
                processor: Processor::N6,
                declined: true,
            },
            Fact::Note { part: 6, text: *b"the statement of 2026-11-20 has " },
            Fact::Attached {
                attachment: Attachment::Reference,
                size: 27,
                text: *b"pi_3MtwBwLkdIwHu7ix28a3tqPa\0\0\0\0\0",
            },
            Fact::DigestsPage { rows: 0x0102, checksum: 0x0304_0506 },
            Fact::ReferencesPage { rows: 0x0102, checksum: 0x0304_0506 },
            Fact::Attached {
                attachment: Attachment::Members,
                size: 32,
                text: *br#"{"payer":{"id":1,"name":"Ana B"}"#,
            },
            Fact::KnownBefore {
                correlation_id: ID,
                amount_cents: 1990,
                requested_at_ms: 0x0198_0000_0001,
                processor: Processor::N6,
            },
            Fact::KnownBefores { count: 7, amount_cents: 13_930 },
            Fact::Forgotten { processor: Processor::N5, latest_ms: 0x0198_0000_0001 },
        ]
    }

    fn header() -> Header {
        Header {
            kind: FileKind::Snapshot,
            reserved: 0,
            first_sequence: 0x0102_0304,
            incarnation: 0xfeed,
            known_len_max: 800_000,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes(hex: &str) -> [u8; BLOCK_SIZE] {
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal digits");
        std::array::from_fn(byte)
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(hex(&header().encode()), HEADER_GOLDEN);
        for ((sequence, fact), golden) in (0x1122_u64..).zip(facts()).zip(RECORDS_GOLDEN) {
            assert_eq!(hex(&Record { sequence, fact }.encode()), golden, "{fact:?}");
        }
    }

    // Written down by an independent script, checksums included.
    const HEADER_GOLDEN: &str =
        "47414c4f4a524e4c050002000403020100000000edfe00000000000000350c00000000000000000000000000ca75c79c";
    const RECORDS_GOLDEN: [&str; 23] = [
        "221100000000000000a0a102030405060708090a0b0c0d0e0fc6070000000000000100000098010000020102f444d6e3",
        "231100000000000001a0a102030405060708090a0b0c0d0e0f01000000980100000103040302010000000000b34b61c7",
        "241100000000000002a0a102030405060708090a0b0c0d0e0f010000009801000000020000000000000000008cf6f5d1",
        "2511000000000000030000000000000000000000000000000000000000000000000000000000000000000000fe8b1777",
        "2611000000000000040700000000000000090000000000000001000000000000000000000000000000000000c781fbb4",
        "271100000000000005a0a102030405060708090a0b0c0d0e0fc607000000000000010000009801000001000079fb66e3",
        "28110000000000000680ee360000000000ffdc6d00000000000300000000000000521700000000000001030021134c70",
        "2911000000000000070000000000000000000000000000000000000000000000000000000000000000000000e8393030",
        "2a11000000000000088813000000000000010100028c0f0000e703ffffffffff000000000000000000000000de312747",
        "2b11000000000000090201060504030000000000000000000000000000000000000000000000000000000000b2cc3235",
        "2c110000000000000a881300000000000001020106050403000000000000000000000000000000000000000061942c0d",
        "2d110000000000000b06612d70726f636573736f722d6f662d7468697274792d74776f2d6279746573210000ddb36a46",
        "2e110000000000000c07000000000000006a3600000000000000000000000000000000000000000000000000830d8ecd",
        "2f1100000000000002a0a102030405060708090a0b0c0d0e0f010000009801000007049201000000000000003cb93950",
        "301100000000000005a0a102030405060708090a0b0c0d0e0fc6070000000000000100000098010000060100fdf814b9",
        "31110000000000000d067468652073746174656d656e74206f6620323032362d31312d3230206861732000003c619b35",
        "32110000000000000e011b70695f334d747742774c6b6449774875376978323861337471506100000000000096d62ac3",
        "33110000000000000f0201060504030000000000000000000000000000000000000000000000000000000000079a5f88",
        "3411000000000000100201060504030000000000000000000000000000000000000000000000000000000000bdb9159e",
        "35110000000000000e00207b227061796572223a7b226964223a312c226e616d65223a22416e612042227d00eefddb2c",
        "361100000000000011a0a102030405060708090a0b0c0d0e0fc6070000000000000100000098010000060000da007113",
        "37110000000000001207000000000000006a3600000000000000000000000000000000000000000000000000cbf4c4b9",
        "3811000000000000130501000000980100000000000000000000000000000000000000000000000000000000ba98bd91",
    ];

    // The same by version 4, whose records say what they said then.
    const HEADER_GOLDEN_V4: &str =
        "47414c4f4a524e4c040002000403020100000000edfe00000000000000350c0000000000000000000000000076ce0baf";

    // The same by version 3, whose records say what they said then.
    const HEADER_GOLDEN_V3: &str =
        "47414c4f4a524e4c030002000403020100000000edfe00000000000000350c0000000000000000000000000042ec6c34";

    // The same by version 2, whose records say what they said then.
    const HEADER_GOLDEN_V2: &str =
        "47414c4f4a524e4c020002000403020100000000edfe00000000000000350c00000000000000000000000000fe57a007";
    const RECORDS_GOLDEN_V2: [&str; FACTS_V2_LEN] = [
        "221100000000000000a0a102030405060708090a0b0c0d0e0fc6070000000000000100000098010000020102f444d6e3",
        "231100000000000001a0a102030405060708090a0b0c0d0e0f01000000980100000103040302010000000000b34b61c7",
        "241100000000000002a0a102030405060708090a0b0c0d0e0f010000009801000000020000000000000000008cf6f5d1",
        "2511000000000000030000000000000000000000000000000000000000000000000000000000000000000000fe8b1777",
        "2611000000000000040700000000000000090000000000000001000000000000000000000000000000000000c781fbb4",
        "271100000000000005a0a102030405060708090a0b0c0d0e0fc607000000000000010000009801000001000079fb66e3",
        "28110000000000000680ee360000000000ffdc6d00000000000300000000000000521700000000000001030021134c70",
        "2911000000000000070000000000000000000000000000000000000000000000000000000000000000000000e8393030",
        "2a11000000000000088813000000000000010100028c0f0000e703ffffffffff000000000000000000000000de312747",
        "2b11000000000000090201060504030000000000000000000000000000000000000000000000000000000000b2cc3235",
        "2c110000000000000a881300000000000001020106050403000000000000000000000000000000000000000061942c0d",
    ];

    // The same by version 1, as it wrote them.
    const HEADER_GOLDEN_V1: &str =
        "47414c4f4a524e4c010002000403020100000000edfe00000000000000350c000000000000000000000000003a9bf553";
    const RECORDS_GOLDEN_V1: [&str; 9] = [
        "221100000000000000a0a102030405060708090a0b0c0d0e0fc60700000000000001000000980100000201000334ed02",
        "231100000000000001a0a102030405060708090a0b0c0d0e0f010000009801000001000000000000000000007ec6caa5",
        "241100000000000002a0a102030405060708090a0b0c0d0e0f010000009801000000020000000000000000008cf6f5d1",
        "2511000000000000030000000000000000000000000000000000000000000000000000000000000000000000fe8b1777",
        "2611000000000000040700000000000000090000000000000001000000000000000000000000000000000000c781fbb4",
        "271100000000000005a0a102030405060708090a0b0c0d0e0fc607000000000000010000009801000001000079fb66e3",
        "28110000000000000680ee360000000000ffdc6d00000000000300000000000000521700000000000001030021134c70",
        "2911000000000000070000000000000000000000000000000000000000000000000000000000000000000000e8393030",
        "2a11000000000000088813000000000000010100028c0f0000e703ffffffffff000000000000000000000000de312747",
    ];

    /// What version 1 wrote, byte by byte, is read as what it said; what it could not say is not stated.
    #[test]
    fn what_version_1_wrote_is_what_it_said() {
        assert_eq!(Header::decode(&bytes(HEADER_GOLDEN_V1)), Ok(header()));
        for ((sequence, fact), golden) in (0x1122_u64..).zip(facts()).zip(RECORDS_GOLDEN_V1) {
            let fact = match fact {
                Fact::Accepted { correlation_id, amount_cents, decided_at_ms, stage, in_doubt, .. } => {
                    let reason = Reason::Unstated;
                    Fact::Accepted { correlation_id, amount_cents, decided_at_ms, stage, in_doubt, reason }
                }
                Fact::Intended { correlation_id, requested_at_ms, processor, .. } => {
                    let (reason, waited_for_ms) = (Reason::Unstated, 0);
                    Fact::Intended { correlation_id, requested_at_ms, processor, reason, waited_for_ms }
                }
                fact => fact,
            };
            assert_eq!(Record::decode(&bytes(golden)), Some(Record { sequence, fact }));
        }
    }

    /// So is what version 2 wrote: it knew two processors and no declines.
    #[test]
    fn what_version_2_wrote_is_what_it_said() {
        assert_eq!(Header::decode(&bytes(HEADER_GOLDEN_V2)), Ok(header()));
        for ((sequence, fact), golden) in (0x1122_u64..).zip(facts()).zip(RECORDS_GOLDEN_V2) {
            assert_eq!(Record::decode(&bytes(golden)), Some(Record { sequence, fact }));
        }
    }

    /// So is what version 3 wrote: it knew no attached texts.
    #[test]
    fn what_version_3_wrote_is_what_it_said() {
        assert_eq!(Header::decode(&bytes(HEADER_GOLDEN_V3)), Ok(header()));
        let golden = &RECORDS_GOLDEN[..FACTS_V3_LEN];
        for ((sequence, fact), golden) in (0x1122_u64..).zip(facts()).zip(golden) {
            assert_eq!(Record::decode(&bytes(golden)), Some(Record { sequence, fact }));
        }
    }

    /// So is what version 4 wrote: it knew no payments that were known before.
    #[test]
    fn what_version_4_wrote_is_what_it_said() {
        assert_eq!(Header::decode(&bytes(HEADER_GOLDEN_V4)), Ok(header()));
        let golden = &RECORDS_GOLDEN[..FACTS_V4_LEN];
        for ((sequence, fact), golden) in (0x1122_u64..).zip(facts()).zip(golden) {
            assert_eq!(Record::decode(&bytes(golden)), Some(Record { sequence, fact }));
        }
    }

    #[test]
    fn the_versions_before_are_read_and_the_next_is_not() {
        let of_version = |version: u16| {
            let mut block = header().encode();
            block[8..10].copy_from_slice(&version.to_le_bytes());
            seal(&mut block);
            Header::decode(&block)
        };
        (1..=5).for_each(|version| assert_eq!(of_version(version), Ok(header())));
        assert_eq!(of_version(0), Err(HeaderError::Version(0)));
        assert_eq!(of_version(6), Err(HeaderError::Version(6)));
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
        for fact in facts() {
            let record = Record { sequence: u64::MAX, fact };
            let block = record.encode();
            assert_eq!(Record::decode(&block), Some(record));
        }
    }

    #[test]
    fn every_prefix_and_every_flipped_bit_is_detected() {
        let flipped = |block: [u8; BLOCK_SIZE], bit: usize| {
            let mut block = block;
            block[bit / 8] ^= 1 << (bit % 8);
            block
        };
        for fact in facts() {
            let block = Record { sequence: 77, fact }.encode();
            assert!((0..BLOCK_SIZE).all(|size| Record::decode(&block[..size]).is_none()));
            assert!((0..BLOCK_SIZE * 8).all(|bit| Record::decode(&flipped(block, bit)).is_none()));
            // Two flipped bits, too: CRC-32C finds any three in a block of this size.
            for bit in 0..BLOCK_SIZE * 8 {
                assert!((0..bit).all(|other| Record::decode(&flipped(flipped(block, bit), other)).is_none()));
            }
        }
        let block = header().encode();
        assert!((0..BLOCK_SIZE).all(|size| Header::decode(&block[..size]) == Err(HeaderError::Short)));
        for bit in 0..BLOCK_SIZE * 8 {
            let error = Header::decode(&flipped(block, bit)).expect_err("a flipped bit");
            match bit / 8 {
                0..8 => assert_eq!(error, HeaderError::Foreign),
                // One bit makes versions 1 and 4 out of this one: then the checksum tells.
                8..10 => match JOURNAL_VERSION ^ (1 << (bit - 64)) {
                    1 | 4 => assert_eq!(error, HeaderError::Damaged),
                    version => assert_eq!(error, HeaderError::Version(version)),
                },
                _ => assert_eq!(error, HeaderError::Damaged),
            }
        }
    }

    #[test]
    fn zeros_are_no_record_and_a_valid_checksum_is_not_enough() {
        assert_eq!(Record::decode(&[0; BLOCK_SIZE]), None);
        let mut block = Record { sequence: 1, fact: Fact::Purged }.encode();
        // No fact has this tag.
        block[8] = 200;
        seal(&mut block);
        assert_eq!(Record::decode(&block), None);
    }
}
