//! Pages: rows of a snapshot that stand side by side, under one checksum.
//!
//! Most of a snapshot are remembered ids and milliseconds in which something was processed, and of some ids a digest or a reference. In records of their own, each of them would
//! be sealed, checked and taken apart alone, which is what most of a start went into. A page is announced by a record
//! ([`Fact::RememberedPage`](crate::journal::Fact::RememberedPage), [`Fact::MomentsPage`](crate::journal::Fact::MomentsPage) and their kind) that
//! states how many rows follow and the CRC-32C over all their bytes; its rows are filled up with zeros to whole blocks, so that
//! records go on standing at multiples of [`BLOCK_SIZE`].
//!
//! ```text
//! remembered id                              moment
//! offset  size  field                        offset  size  field
//!      0    16  correlation id                    0     4  begins so many ms after the page does
//!     16     8  amount, cents                     4     4  payments
//!     24     8  requestedAt, ms; in its top       8     8  their sum, cents
//!               three bits the processor's
//!               number, lowest bit topmost;
//!               the next one: declined
//!
//! digest                                     reference
//! offset  size  field                        offset  size  field
//!      0     4  so many ids stand between         0     4  as before
//!               that and the page                 4     1  size, from 1
//!      4     8  digest of its members             5    64  text, filled up with zeros
//! ```
//!
//! All integers are little-endian, and every sequence of bytes is some row: what a row means, the reader judges.
//!
//! Codec only; it never panics on what it is given.

use crate::attached::REFERENCE_SIZE_MAX;
use crate::journal::BLOCK_SIZE;
use crate::vocabulary::{CorrelationId, Processor};

/// Rows that this build puts into a page, at most: 64 KiB, as much as is read or written in one go.
pub const PAGE_ROWS_MAX: usize = 2_048;

/// Rows that are not worth a page: it begins with a record, and ends on a whole block.
pub const PAGE_ROWS_MIN: usize = 3;

/// A row of a page.
pub trait PageRow: Sized {
    /// Its bytes.
    const SIZE: usize;
    /// Appends them.
    fn encode(&self, out: &mut Vec<u8>);
    /// The rows of a page's bytes; as many as there are whole ones, if they are fewer than `rows`.
    fn decode(page: &[u8], rows: u16) -> impl Iterator<Item = Self>;
}

/// A payment that was processed or declined, and is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RememberedRow {
    /// Who.
    pub correlation_id: CorrelationId,
    /// How much.
    pub amount_cents: u64,
    /// As stored by the processor, below 2⁶⁰; of a declined one see `declined`.
    pub requested_at_ms: u64,
    /// Where.
    pub processor: Processor,
    /// It ended declined: `requested_at_ms` is when, in its lower 48 bits, and above them the status that the last processor gave.
    pub declined: bool,
}

/// What one processor processed in one millisecond.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MomentRow {
    /// Since the page's first millisecond, ms.
    pub offset_ms: u32,
    /// Payments.
    pub count: u32,
    /// Their sum, cents.
    pub amount_cents: u64,
}

/// What is kept of a remembered payment's members: enough to tell whether others are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DigestRow {
    /// So many remembered ids stand between that of the payment and the page.
    pub back: u32,
    /// The digest.
    pub digest: [u8; 8],
}

/// A processor's own name for a remembered payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReferenceRow {
    /// So many remembered ids stand between that of the payment and the page.
    pub back: u32,
    /// How many bytes count.
    pub size: u8,
    /// They; the others are zero.
    pub text: [u8; REFERENCE_SIZE_MAX],
}

/// Of the word that holds `requestedAt`: the payment was declined.
const DECLINED_BIT: u64 = 1 << 60;

/// What is left for `requestedAt`.
const REQUESTED_AT_MASK: u64 = DECLINED_BIT - 1;

impl PageRow for RememberedRow {
    const SIZE: usize = 32;

    fn encode(&self, out: &mut Vec<u8>) {
        let declined = if self.declined { DECLINED_BIT } else { 0 };
        let word = (self.requested_at_ms & REQUESTED_AT_MASK) | self.processor.to_top_bits() | declined;
        let mut row = [0; Self::SIZE];
        row[..16].copy_from_slice(&self.correlation_id.0);
        row[16..24].copy_from_slice(&self.amount_cents.to_le_bytes());
        row[24..].copy_from_slice(&word.to_le_bytes());
        out.extend_from_slice(&row);
    }

    fn decode(page: &[u8], rows: u16) -> impl Iterator<Item = Self> {
        let (all, _) = page.as_chunks::<{ Self::SIZE }>();
        all.iter().take(rows.into()).map(|row| {
            let word = number(row, 24);
            Self {
                correlation_id: CorrelationId(*row.first_chunk().expect("a row is longer than an id")),
                amount_cents: number(row, 16),
                requested_at_ms: word & REQUESTED_AT_MASK,
                processor: Processor::from_top_bits(word),
                declined: word & DECLINED_BIT != 0,
            }
        })
    }
}

impl PageRow for MomentRow {
    const SIZE: usize = 16;

    fn encode(&self, out: &mut Vec<u8>) {
        let mut row = [0; Self::SIZE];
        row[..4].copy_from_slice(&self.offset_ms.to_le_bytes());
        row[4..8].copy_from_slice(&self.count.to_le_bytes());
        row[8..].copy_from_slice(&self.amount_cents.to_le_bytes());
        out.extend_from_slice(&row);
    }

    #[allow(clippy::cast_possible_truncation, reason = "halves of a number of twice the size")]
    fn decode(page: &[u8], rows: u16) -> impl Iterator<Item = Self> {
        let (all, _) = page.as_chunks::<{ Self::SIZE }>();
        all.iter().take(rows.into()).map(|row| {
            let halves = number(row, 0);
            let (offset_ms, count) = (halves as u32, (halves >> 32) as u32);
            Self { offset_ms, count, amount_cents: number(row, 8) }
        })
    }
}

impl PageRow for DigestRow {
    const SIZE: usize = 12;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.back.to_le_bytes());
        out.extend_from_slice(&self.digest);
    }

    fn decode(page: &[u8], rows: u16) -> impl Iterator<Item = Self> {
        let (all, _) = page.as_chunks::<{ Self::SIZE }>();
        all.iter().take(rows.into()).map(|row| Self {
            back: short_number(row),
            digest: *row.last_chunk().expect("a row is longer than a digest"),
        })
    }
}

impl PageRow for ReferenceRow {
    const SIZE: usize = 5 + REFERENCE_SIZE_MAX;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.back.to_le_bytes());
        out.push(self.size);
        out.extend_from_slice(&self.text);
    }

    fn decode(page: &[u8], rows: u16) -> impl Iterator<Item = Self> {
        let (all, _) = page.as_chunks::<{ Self::SIZE }>();
        all.iter().take(rows.into()).map(|row| Self {
            back: short_number(row),
            size: row[4],
            text: *row.last_chunk().expect("a row is longer than a reference"),
        })
    }
}

fn short_number(row: &[u8]) -> u32 {
    u32::from_le_bytes(*row.first_chunk().expect("a row is longer than a number"))
}

fn number(row: &[u8], at: usize) -> u64 {
    let bytes = row.get(at..).and_then(|rest| rest.first_chunk());
    u64::from_le_bytes(*bytes.expect("a row is longer than what stands in it"))
}

/// The size of so many rows, filled up to whole blocks.
#[must_use]
pub const fn page_size(rows: usize, row_size: usize) -> usize {
    (rows * row_size).next_multiple_of(BLOCK_SIZE)
}

/// The CRC-32C of a page's bytes.
#[must_use]
pub fn page_checksum(page: &[u8]) -> u32 {
    crc32c::crc32c(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CorrelationId = CorrelationId([0xa0, 0xa1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    #[test]
    fn golden_bytes() {
        let hex = |bytes: Vec<u8>| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let mut bytes = Vec::new();
        RememberedRow {
            correlation_id: ID,
            amount_cents: 1990,
            requested_at_ms: 0x0198_0000_0001,
            processor: Processor::FALLBACK,
            declined: false,
        }
        .encode(&mut bytes);
        assert_eq!(hex(bytes), "a0a102030405060708090a0b0c0d0e0fc6070000000000000100000098010080");
        let mut bytes = Vec::new();
        RememberedRow {
            correlation_id: ID,
            amount_cents: 1990,
            requested_at_ms: 0x0198_0000_0001,
            processor: Processor::N6,
            declined: true,
        }
        .encode(&mut bytes);
        assert_eq!(hex(bytes), "a0a102030405060708090a0b0c0d0e0fc6070000000000000100000098010070");
        let mut bytes = Vec::new();
        MomentRow { offset_ms: 0x0102_0304, count: 5, amount_cents: 9_950 }.encode(&mut bytes);
        assert_eq!(hex(bytes), "0403020105000000de26000000000000");
        let mut bytes = Vec::new();
        DigestRow { back: 0x0102_0304, digest: [1, 2, 3, 4, 5, 6, 7, 8] }.encode(&mut bytes);
        assert_eq!(hex(bytes), "040302010102030405060708");
        let mut bytes = Vec::new();
        let mut text = [0; REFERENCE_SIZE_MAX];
        text[..4].copy_from_slice(b"pi_1");
        ReferenceRow { back: 5, size: 4, text }.encode(&mut bytes);
        assert_eq!(hex(bytes), format!("050000000470695f31{}", "00".repeat(60)));
    }

    #[test]
    fn what_is_written_is_read_and_no_more_than_there_is() {
        let remembered = |number: u8| RememberedRow {
            correlation_id: CorrelationId([number; 16]),
            amount_cents: u64::MAX - u64::from(number),
            requested_at_ms: (1 << 60) - 1 - u64::from(number),
            processor: Processor::ALL[usize::from(number)],
            declined: number % 2 == 1,
        };
        let moment = |number: u8| MomentRow {
            offset_ms: u32::MAX - u32::from(number),
            count: u32::from(number) << 24,
            amount_cents: u64::MAX - 7,
        };
        let digest = |number: u8| DigestRow { back: u32::MAX - u32::from(number), digest: [number; 8] };
        let reference = |number: u8| ReferenceRow { back: number.into(), size: number, text: [number; 64] };
        let (mut ids, mut moments) = (Vec::new(), Vec::new());
        let (mut digests, mut references) = (Vec::new(), Vec::new());
        (0..7).for_each(|number| digest(number).encode(&mut digests));
        (0..7).for_each(|number| reference(number).encode(&mut references));
        assert_eq!((digests.len(), references.len()), (7 * DigestRow::SIZE, 7 * ReferenceRow::SIZE));
        (0..7).for_each(|number| remembered(number).encode(&mut ids));
        (0..7).for_each(|number| moment(number).encode(&mut moments));
        assert_eq!((ids.len(), moments.len()), (7 * RememberedRow::SIZE, 7 * MomentRow::SIZE));
        for rows in [0, 1, 6, 7, 8, u16::MAX] {
            let end = u8::try_from(rows.min(7)).expect("few");
            assert!(RememberedRow::decode(&ids, rows).eq((0..end).map(remembered)));
            assert!(MomentRow::decode(&moments, rows).eq((0..end).map(moment)));
            assert!(DigestRow::decode(&digests, rows).eq((0..end).map(digest)));
            assert!(ReferenceRow::decode(&references, rows).eq((0..end).map(reference)));
        }
        assert!(RememberedRow::decode(&ids[..33], 7).eq([remembered(0)]));
    }

    #[test]
    fn pages_end_on_whole_blocks() {
        assert_eq!(page_size(0, 32), 0);
        assert_eq!(page_size(1, 32), BLOCK_SIZE);
        assert_eq!(page_size(3, 32), 2 * BLOCK_SIZE);
        assert_eq!(page_size(3, 16), BLOCK_SIZE);
    }
}
