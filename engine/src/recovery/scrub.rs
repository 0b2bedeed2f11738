//! Looks at a file at rest: every checksum and every number, without making a ledger of it.
//!
//! Finds what a start would refuse, or cut: a file that no process writes any more ends with its last record. What is whole by itself and does
//! not fit the ledger is not looked for.

use galo_wire::journal::{BLOCK_SIZE, Fact, FileKind, Header, Record};
use galo_wire::page::page_checksum;

use super::FileId;

/// Not what was written: the offset of the first block or page that is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("damaged at offset {offset}")]
pub struct Flaw {
    /// Where.
    pub offset: u64,
}

/// Takes in a file piece by piece.
pub struct Scrub {
    file: FileId,
    state: State,
    /// The offset of `pending`'s first byte.
    offset: u64,
    /// The beginning of a block, or of a page.
    pending: Vec<u8>,
    /// The number that the next record has.
    next: u64,
}

enum State {
    Header,
    Records,
    /// A page of this size and checksum is next.
    Page(usize, u32),
    /// A snapshot's last record was read.
    Complete,
}

impl Scrub {
    /// Before the file's first byte.
    #[must_use]
    pub fn new(file: FileId) -> Self {
        let next = match file.kind {
            FileKind::Segment => file.sequence,
            // Its rows are counted.
            FileKind::Snapshot => 1,
        };
        Self { file, state: State::Header, offset: 0, pending: Vec::new(), next }
    }

    /// The file's next bytes.
    ///
    /// # Errors
    /// The first flaw.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Flaw> {
        while !bytes.is_empty() {
            let size = if let State::Page(size, _) = self.state { size } else { BLOCK_SIZE };
            let (head, rest) = bytes.split_at(bytes.len().min(size - self.pending.len()));
            self.pending.extend_from_slice(head);
            bytes = rest;
            if self.pending.len() == size {
                let whole = std::mem::take(&mut self.pending);
                self.state = self.unit(&whole).ok_or(Flaw { offset: self.offset })?;
                self.offset += size as u64;
                self.pending = whole;
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// The file has no more bytes. `end` is the number that the next segment begins with, where it is one's own that is looked at.
    ///
    /// # Errors
    /// Something is missing at its end.
    pub fn end(self, end: u64) -> Result<(), Flaw> {
        let is_whole = match (self.file.kind, &self.state) {
            (FileKind::Segment, State::Records) => self.next == end,
            (FileKind::Snapshot, State::Complete) => true,
            (FileKind::Segment | FileKind::Snapshot, _) => false,
        };
        if is_whole && self.pending.is_empty() { Ok(()) } else { Err(Flaw { offset: self.offset }) }
    }

    /// A whole block, or a whole page; `None` if it is neither.
    fn unit(&mut self, bytes: &[u8]) -> Option<State> {
        if let State::Page(_, checksum) = self.state {
            return (page_checksum(bytes) == checksum).then_some(State::Records);
        }
        match self.state {
            State::Header => {
                let header = Header::decode(bytes).ok()?;
                let inside = FileId { kind: header.kind, sequence: header.first_sequence };
                (inside == self.file).then_some(State::Records)
            }
            State::Records => {
                let record = Record::decode(bytes).filter(|record| record.sequence == self.next)?;
                self.next += 1;
                Some(match (self.file.kind, record.fact, record.fact.page()) {
                    (FileKind::Snapshot, Fact::End, _) => State::Complete,
                    (FileKind::Snapshot, _, Some((size, checksum))) => State::Page(size, checksum),
                    (FileKind::Segment, _, _) | (FileKind::Snapshot, _, None) => State::Records,
                })
            }
            State::Page(..) | State::Complete => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{segment, snapshot};
    use super::*;

    fn scrub(file: FileId, bytes: &[u8], piece: usize, end: u64) -> Result<(), Flaw> {
        let mut scrub = Scrub::new(file);
        bytes.chunks(piece).try_for_each(|piece| scrub.feed(piece))?;
        scrub.end(end)
    }

    #[test]
    fn what_is_sound_passes_in_whatever_pieces() {
        for (file, bytes) in [segment(1..=20), segment(7..=9), snapshot(19)] {
            let end = if file.sequence == 1 { 21 } else { 10 };
            for piece in [1, 47, 48, 49, 1_000, 1 << 20] {
                assert_eq!(scrub(file, &bytes, piece, end), Ok(()), "{file}");
            }
        }
        // A segment that only has its header.
        let (file, bytes) = segment(5..=5);
        assert_eq!(scrub(file, &bytes[..BLOCK_SIZE], 100, 5), Ok(()));
    }

    #[test]
    fn each_flipped_bit_and_each_missing_byte_is_found() {
        for (file, whole) in [segment(1..=6), snapshot(19)] {
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let flaw = scrub(file, &bytes, 1 << 20, 7).expect_err("a flipped bit");
                assert!(flaw.offset <= bit as u64 / 8, "bit {bit}: {flaw}");
            }
            for size in 0..whole.len() {
                assert!(scrub(file, &whole[..size], 1 << 20, 7).is_err(), "cut at {size}");
            }
            let longer = [&whole[..], &[0]].concat();
            assert!(scrub(file, &longer, 1 << 20, 7).is_err());
        }
    }

    #[test]
    fn another_files_bytes_and_records_out_of_place_are_flaws() {
        let (_, bytes) = segment(7..=9);
        assert_eq!(scrub(FileId::segment(8), &bytes, 100, 10), Err(Flaw { offset: 0 }));
        let (file, whole) = segment(1..=4);
        let stray = [&whole[..2 * BLOCK_SIZE], &whole[3 * BLOCK_SIZE..]].concat();
        assert_eq!(scrub(file, &stray, 100, 5), Err(Flaw { offset: 2 * BLOCK_SIZE as u64 }));
    }
}
