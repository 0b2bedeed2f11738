//! A journal's file: records that fit, then anything, read in pieces.
//!
//! The fuzzer writes a sound beginning and a tail of whatever it likes: bytes, records out of place, blocks of any content with the right
//! checksum. Held against a reading of the bytes block by block: nothing of the sound beginning is lost, nothing behind the first
//! bad record is believed, a torn end without a whole record behind it is cut and one with it is refused, and no file ends the process.

use arbitrary::{Arbitrary, Unstructured};
use galo_engine::ledger::{Conservation, Entry, Ledger, LedgerConfig};
use galo_engine::recovery::{Damage, Ending, FileId, Recovery};
use galo_engine::router::ProcessorSet;
use galo_engine::{CorrelationId, Outcome, Processor, Stage};
use galo_wire::Reason;
use galo_wire::journal::{BLOCK_SIZE, Fact, FileKind, Header, Moment, Record};

const CONFIG: LedgerConfig = LedgerConfig {
    open_len_max: 64,
    known_len_max: 16,
    bucket_bytes_max: 1 << 16,
    members_bytes_max: 1 << 20,
    processors: ProcessorSet::PAIR,
    hash_seed: 7,
};
const FILE_SIZE_MAX: usize = 1 << 14;

/// What follows the sound beginning, piece by piece.
#[derive(Arbitrary, Debug)]
enum Piece {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Zeros, as a file that grew before its bytes came.
    Zeros(u8),
    /// A record with the next number, or one beside it.
    Record { fact: FuzzFact, beside: i8 },
    /// A block of any content with the right checksum.
    Sealed([u8; 32]),
    /// A bit of what was written last is flipped.
    Flip { back: u8, bit: u8 },
    /// The end is cut off.
    Cut(u8),
}

#[derive(Arbitrary, Debug, Clone, Copy)]
struct FuzzFact {
    kind: u8,
    id: u8,
    processor: bool,
    stage: u8,
    outcome: u8,
    in_doubt: bool,
    amount: u64,
    at: u64,
}

#[derive(Arbitrary, Debug)]
struct Journal {
    is_snapshot: bool,
    sequence: u8,
    known_len_max: u8,
    sound: Vec<FuzzFact>,
    tail: Vec<Piece>,
    piece_size: u8,
}

/// The journal is made of the fuzzer's bytes.
pub fn run(data: &[u8]) {
    let Ok(journal) = Journal::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let sequence = 1 + u64::from(journal.sequence);
    let kind = if journal.is_snapshot { FileKind::Snapshot } else { FileKind::Segment };
    let file = FileId { kind, sequence };
    let known_len_max = u64::from(journal.known_len_max);
    let header = Header { kind, reserved: 0, first_sequence: sequence, incarnation: 1, known_len_max };
    let mut bytes = header.encode().to_vec();

    // What the ledger itself took is sound.
    let mut ledger = Ledger::new(CONFIG);
    ledger.set_known_len_max(usize::from(journal.known_len_max));
    let mut next = if journal.is_snapshot { 1 } else { sequence };
    for fact in journal.sound.iter().take(64) {
        let fact = fact.fact(journal.is_snapshot, 99_999_999_999);
        let fits = if journal.is_snapshot {
            // A snapshot's beginning is sound if it is one; that is its own reader's to say.
            true
        } else {
            Entry::of_fact(fact).is_some_and(|entry| ledger.try_apply(entry).is_ok())
        };
        if fits {
            bytes.extend_from_slice(&Record { sequence: next, fact }.encode());
            next += 1;
        }
    }
    let sound_size = bytes.len();
    let mut tail_size = 0;
    for piece in journal.tail.iter().take(32) {
        let before = bytes.len();
        match piece {
            Piece::Bytes(some) => bytes.extend_from_slice(some),
            Piece::Zeros(count) => bytes.resize(before + usize::from(*count), 0),
            Piece::Record { fact, beside } => {
                let sequence = next.wrapping_add_signed(i64::from(*beside));
                let fact = fact.fact(journal.is_snapshot, u64::MAX);
                bytes.extend_from_slice(&Record { sequence, fact }.encode());
                next += 1;
            }
            Piece::Sealed(content) => {
                let mut block = [0; BLOCK_SIZE];
                block[..8].copy_from_slice(&next.to_le_bytes());
                block[8..40].copy_from_slice(content);
                let checksum = crc32c::crc32c(&block[..BLOCK_SIZE - 4]);
                block[BLOCK_SIZE - 4..].copy_from_slice(&checksum.to_le_bytes());
                bytes.extend_from_slice(&block);
                next += 1;
            }
            // The sound part stays sound.
            Piece::Flip { back, bit } => {
                let at = before.saturating_sub(1 + usize::from(*back)).max(sound_size);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Piece::Cut(count) => bytes.truncate(before.saturating_sub(usize::from(*count)).max(sound_size)),
        }
        if bytes.len() > FILE_SIZE_MAX {
            break;
        }
        tail_size += 1;
    }
    let whole = read(file, &bytes, usize::MAX);
    let in_pieces = read(file, &bytes, usize::from(journal.piece_size) + 1);
    assert_eq!(whole, in_pieces, "pieces change what a file is worth");
    if !journal.is_snapshot {
        check_segment(&bytes, sequence, sound_size, tail_size == 0, &whole);
    }
}

type Read = Result<(Ending, u64, u64, Conservation), Damage>;

fn read(file: FileId, bytes: &[u8], piece_size: usize) -> Read {
    let mut recovery = Recovery::new(CONFIG);
    if file.kind == FileKind::Segment && file.sequence != 1 {
        // As if a snapshot came before it.
        let snapshot = FileId::snapshot(file.sequence);
        recovery.begin(snapshot)?;
        let header = Header {
            kind: FileKind::Snapshot,
            reserved: 0,
            first_sequence: file.sequence,
            incarnation: 1,
            known_len_max: 16,
        };
        recovery.feed(&header.encode())?;
        let begin = Fact::Begin { open_len: 0, known_len: 0, purged: false };
        recovery.feed(&Record { sequence: 1, fact: begin }.encode())?;
        recovery.feed(&Record { sequence: 2, fact: Fact::End }.encode())?;
        recovery.end()?;
    }
    recovery.begin(file)?;
    for piece in bytes.chunks(piece_size.min(bytes.len()).max(1)) {
        recovery.feed(piece)?;
    }
    let ending = recovery.end()?;
    let recovered = recovery.finish();
    Ok((ending, recovered.next_sequence, recovered.records, recovered.ledger.conservation()))
}

/// What a segment is worth, told from its blocks.
fn check_segment(bytes: &[u8], first: u64, sound_size: usize, is_untouched: bool, read: &Read) {
    let mut ledger = Ledger::new(CONFIG);
    // The header's room, from its own bytes.
    let known_len_max = Header::decode(bytes).expect("the header is sound").known_len_max;
    let (mut next, mut believed_size) = (first, BLOCK_SIZE);
    let mut misfit = None;
    for block in bytes[BLOCK_SIZE..].chunks_exact(BLOCK_SIZE) {
        let Some(record) = Record::decode(block) else { break };
        if next == first {
            ledger.set_known_len_max(usize::try_from(known_len_max).expect("it fits"));
        }
        let fits = record.sequence == next
            && Entry::of_fact(record.fact).is_some_and(|entry| ledger.try_apply(entry).is_ok());
        if !fits {
            misfit = Some(believed_size as u64);
            break;
        }
        next += 1;
        believed_size += BLOCK_SIZE;
    }
    assert!(believed_size >= sound_size, "the reference itself must read what is sound");
    let rest = &bytes[believed_size..];
    match read {
        Ok((ending, next_sequence, records, books)) => {
            assert_eq!(misfit, None, "a record out of its place was passed over");
            assert_eq!(*next_sequence, next, "what is whole is believed, and nothing else");
            let snapshot_rows = if first == 1 { 0 } else { 2 };
            assert_eq!(*records, next - first + snapshot_rows);
            assert_eq!(*books, ledger.conservation());
            let (size, torn_size) = (believed_size as u64, rest.len() as u64);
            let expected = if rest.is_empty() { Ending::Whole } else { Ending::Torn { size, torn_size } };
            assert_eq!(*ending, expected);
            assert!(!has_whole_record(rest, next), "whole records behind a torn place were given up");
        }
        Err(Damage::Hole { offset, whole_offset, .. }) => {
            assert_eq!(*offset, believed_size as u64);
            assert!(misfit.is_none() && has_whole_record(rest, next), "torn, and taken for a hole");
            let at = usize::try_from(*whole_offset).expect("it fits");
            assert!(Record::decode(&bytes[at..at + BLOCK_SIZE]).is_some());
        }
        Err(Damage::Stray { offset, .. } | Damage::Misfit { offset, .. }) => {
            assert_eq!(Some(*offset), misfit)
        }
        Err(other) => panic!("a segment with a sound header: {other}"),
    }
    if is_untouched {
        assert!(matches!(read, Ok((Ending::Whole, ..))), "what the ledger took is read back");
    }
}

/// Whether a record that may follow stands anywhere in these bytes but at their beginning.
fn has_whole_record(bytes: &[u8], next: u64) -> bool {
    bytes.windows(BLOCK_SIZE).skip(1).any(|block| {
        Record::decode(block).is_some_and(|record| (next..next + (1 << 40)).contains(&record.sequence))
    })
}

impl FuzzFact {
    /// Mostly what may stand in such a file.
    fn fact(self, is_snapshot: bool, amount_max: u64) -> Fact {
        let correlation_id = CorrelationId([self.id % 8; 16]);
        let processor = Processor::PAIR[usize::from(self.processor)];
        let stage = [Stage::Waiting, Stage::At0, Stage::At1][usize::from(self.stage % 3)];
        let outcomes =
            [Outcome::Processed, Outcome::Refused, Outcome::Unknown, Outcome::Absent, Outcome::Declined];
        let outcome = outcomes[usize::from(self.outcome % 5)];
        let (amount_cents, requested_at_ms, in_doubt) = (self.amount.min(amount_max), self.at, self.in_doubt);
        let reason = Reason::ALL[usize::from(self.id) % Reason::ALL.len()];
        let kind =
            if is_snapshot { [4, 0, 6, 8, 5, 7, 1, 3][usize::from(self.kind % 8)] } else { self.kind % 5 };
        match kind {
            0 => {
                let decided_at_ms = requested_at_ms;
                Fact::Accepted { correlation_id, amount_cents, decided_at_ms, stage, in_doubt, reason }
            }
            1 => {
                let waited_for_ms = u32::from(self.kind);
                Fact::Intended { correlation_id, requested_at_ms, processor, reason, waited_for_ms }
            }
            2 => Fact::Resolved { correlation_id, requested_at_ms, processor, outcome, status: 0 },
            3 => Fact::Purged,
            4 => Fact::Begin { open_len: amount_cents, known_len: requested_at_ms, purged: in_doubt },
            5 => {
                Fact::Remembered { correlation_id, amount_cents, requested_at_ms, processor, declined: false }
            }
            6 => {
                let level = self.stage % 4;
                let width_ms = [1, 1_000, 60_000, 3_600_000][usize::from(level)];
                let start_ms = if self.in_doubt {
                    requested_at_ms
                } else {
                    requested_at_ms - requested_at_ms % width_ms
                };
                let last_ms = start_ms.saturating_add(width_ms - 1);
                Fact::Bucket { start_ms, last_ms, count: u64::from(self.id), amount_cents, processor, level }
            }
            7 => Fact::End,
            _ => {
                let moment = |offset: u64, count: u8| Moment {
                    offset_ms: u16::try_from(offset % 1_024).expect("below 1,024"),
                    count,
                    amount_cents: u32::try_from(self.amount % (1 << 32)).expect("below 2^32"),
                };
                let second_ms =
                    if self.in_doubt { requested_at_ms } else { requested_at_ms - requested_at_ms % 1_000 };
                let moments = [
                    moment(self.at, self.id),
                    moment(self.at >> 10, self.stage),
                    moment(self.at >> 20, self.outcome),
                ];
                Fact::Moments { second_ms, processor, moments }
            }
        }
    }
}
