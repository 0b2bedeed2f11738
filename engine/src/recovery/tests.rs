//! One test for each label of the decision table.

use galo_wire::{AttemptState, CorrelationId, Outcome, Processor, Reason, Stage};

use super::*;
use crate::ledger::{Known, Tally};
use crate::router::ProcessorSet;
use crate::texts::Texts;
use crate::time::UnixMillis;

const BLOCK: usize = BLOCK_SIZE;

fn config() -> LedgerConfig {
    LedgerConfig {
        open_len_max: 1_000,
        known_len_max: 100,
        bucket_bytes_max: 1 << 20,
        members_bytes_max: 1 << 20,
        processors: ProcessorSet::PAIR,
        hash_seed: 1,
    }
}

fn id(number: u64) -> CorrelationId {
    let mut bytes = [7; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    CorrelationId(bytes)
}

fn header(id: FileId) -> Header {
    let FileId { kind, sequence } = id;
    Header { kind, reserved: 0, first_sequence: sequence, incarnation: 5, known_len_max: 100 }
}

/// The change with this number: odd ones accept, even ones process what the one before accepted.
fn entry(sequence: u64) -> Entry {
    let correlation_id = id(sequence.div_ceil(2));
    if sequence % 2 == 1 {
        let (stage, decided_at_ms, reason) = (Stage::At0, 1_000 + sequence, Reason::Cheaper);
        let (amount_cents, in_doubt) = (sequence, false);
        Entry::Accepted { correlation_id, amount_cents, stage, decided_at_ms, in_doubt, reason }
    } else {
        let (processor, outcome) = (Processor::DEFAULT, Outcome::Processed);
        Entry::Resolved { correlation_id, processor, requested_at_ms: 1_000 + sequence, outcome, status: 0 }
    }
}

fn record(sequence: u64) -> [u8; BLOCK] {
    Record { sequence, fact: entry(sequence).to_fact() }.encode()
}

/// A segment of these changes.
pub(super) fn segment(sequences: std::ops::RangeInclusive<u64>) -> (FileId, Vec<u8>) {
    let id = FileId::segment(*sequences.start());
    let records = sequences.flat_map(record);
    (id, header(id).encode().into_iter().chain(records).collect())
}

/// The snapshot before this change.
pub(super) fn snapshot(sequence: u64) -> (FileId, Vec<u8>) {
    let mut ledger = Ledger::new(config());
    (1..sequence).for_each(|sequence| ledger.apply(entry(sequence)));
    let id = FileId::snapshot(sequence);
    let mut bytes = header(id).encode().to_vec();
    ledger.begin_export();
    while ledger.export(5, &mut bytes) == crate::ledger::snapshot::Progress::More {}
    (id, bytes)
}

type Files = [(FileId, Vec<u8>)];

fn read_in_pieces(files: &Files, size: usize) -> Result<(Recovered, Vec<Ending>), Damage> {
    let names: Vec<_> = files.iter().map(|(id, _)| id.to_string()).collect();
    let plan = Plan::new(names.iter().map(String::as_str))?;
    let mut recovery = Recovery::new(config());
    let mut endings = Vec::new();
    for id in plan.generations()[0].files() {
        let (_, bytes) = files.iter().find(|(other, _)| *other == id).unwrap();
        recovery.begin(id)?;
        bytes.chunks(size).try_for_each(|piece| recovery.feed(piece))?;
        endings.push(recovery.end()?);
    }
    Ok((recovery.finish(), endings))
}

/// Reads the files in pieces of several sizes, which must not matter.
fn read(files: &Files) -> Result<(u64, Vec<Ending>), Damage> {
    let results = [1, 7, 47, 48, 49, 100, 4_800, 1 << 20].map(|size| {
        read_in_pieces(files, size).map(|(recovered, endings)| {
            let next = recovered.next_sequence;
            check_ledger(&recovered.ledger, next);
            (next, endings)
        })
    });
    let [first, others @ ..] = results;
    others.into_iter().for_each(|other| assert_eq!(other, first));
    first
}

/// A segment in which each payment has members, of three parts, and each that is processed a reference.
fn segment_with_texts(payments: u64) -> (FileId, Vec<u8>) {
    let id = FileId::segment(1);
    let mut bytes = header(id).encode().to_vec();
    let facts = (1..=2 * payments).flat_map(|number| {
        let texts = if number % 2 == 1 {
            let members = format!("{{\"payer\":\"{number:060}\"}}");
            Texts { members: Some(members.into()), reference: None }
        } else {
            Texts { members: None, reference: Some(format!("pi_{number}").into()) }
        };
        texts.entries().chain([entry(number)]).collect::<Vec<_>>()
    });
    for (sequence, entry) in (1..).zip(facts) {
        bytes.extend_from_slice(&Record { sequence, fact: entry.to_fact() }.encode());
    }
    (id, bytes)
}

/// Wherever a write was torn: a payment is there with its members or not at all, and the next process goes on there, which the start after that
/// one believes.
#[test]
fn torn_between_a_text_and_what_it_belongs_to() {
    let (id, bytes) = segment_with_texts(3);
    let full = read_in_pieces(&[(id, bytes.clone())], 100).unwrap().0;
    // Three parts, a payment, one part, an end: three times.
    assert_eq!((full.next_sequence, bytes.len()), (19, BLOCK * 19));
    let mut cuts = 0;
    for size in BLOCK..=bytes.len() {
        let torn = (id, bytes[..size].to_vec());
        for piece in [1, 48, 1 << 20] {
            let (recovered, endings) = read_in_pieces(std::slice::from_ref(&torn), piece).unwrap();
            let Recovered { ledger, next_sequence, .. } = recovered;
            // Whole groups of four and two records.
            let records = (size / BLOCK - 1) as u64;
            let (round, rest) = (records / 6, records % 6);
            let whole = 6 * round + if rest >= 4 { 4 } else { 0 };
            assert_eq!(next_sequence, 1 + whole, "cut at {size}");
            let whole_size = (whole + 1) * BLOCK as u64;
            let torn_size = size as u64 - whole_size;
            let ending =
                if torn_size == 0 { Ending::Whole } else { Ending::Torn { size: whole_size, torn_size } };
            assert_eq!(endings, [ending], "cut at {size}");
            cuts += usize::from(torn_size > BLOCK as u64);
            for number in 1..=3 {
                let payment = self::id(number);
                let texts = ledger.texts(payment).and_then(|texts| texts.members.clone());
                match ledger.lookup(payment) {
                    Known::Open(_) => assert!(texts.is_some_and(|it| it.len() == 72), "cut at {size}"),
                    Known::Processed { .. } => {
                        assert_eq!(ledger.reference(payment), Some(format!("pi_{}", 2 * number)));
                    }
                    other => assert_eq!(other, Known::Absent),
                }
            }
            // Its successor goes on where it was cut, and whether the file was cut or not is all one.
            let next = FileId::segment(next_sequence);
            let other = entry(1);
            let mut more = header(next).encode().to_vec();
            more.extend_from_slice(
                &Record { sequence: next_sequence, fact: Entry::Purged.to_fact() }.encode(),
            );
            more.extend_from_slice(&Record { sequence: next_sequence + 1, fact: other.to_fact() }.encode());
            if next_sequence > 1 {
                let again = read_in_pieces(&[torn.clone(), (next, more)], piece).unwrap().0;
                assert_eq!(again.next_sequence, next_sequence + 2);
            }
        }
    }
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn a_text_that_belongs_to_nothing_is_a_misfit() {
    let (id, bytes) = segment_with_texts(1);
    // Its payment is not there, and something else is.
    let records = bytes[BLOCK..BLOCK * 4].to_vec();
    let mut orphaned = [header(id).encode().to_vec(), records].concat();
    let other = Entry::Named { processor: Processor::N5, name: [b'a'; 32] };
    orphaned.extend_from_slice(&Record { sequence: 4, fact: other.to_fact() }.encode());
    let damage = read_in_pieces(&[(id, orphaned)], 48).map(|_| ());
    assert!(matches!(damage, Err(Damage::Misfit { sequence: 4, .. })), "{damage:?}");
    // Members at the end of an attempt.
    let mut misplaced = bytes[..BLOCK * 5].to_vec();
    misplaced[BLOCK * 4..].copy_from_slice(&Record { sequence: 4, fact: entry(2).to_fact() }.encode());
    let damage = read_in_pieces(&[(id, misplaced)], 48).map(|_| ());
    assert!(matches!(damage, Err(Damage::Misfit { sequence: 4, .. })), "{damage:?}");
    // In the middle of the journal it is no torn end.
    let next = FileId::segment(4);
    let files = [(id, bytes[..BLOCK * 4].to_vec()), (next, header(next).encode().to_vec())];
    let damage = read_in_pieces(&files, 48).map(|_| ());
    assert_eq!(damage, Err(Damage::Missing { expected: 1, file: next }));
}

/// The ledger is that of all changes before `next`.
fn check_ledger(ledger: &Ledger, next: u64) {
    let mut expected = Ledger::new(config());
    (1..next).for_each(|sequence| expected.apply(entry(sequence)));
    assert_eq!(ledger.conservation(), expected.conservation());
    for number in 0..next {
        assert_eq!(ledger.lookup(id(number)), expected.lookup(id(number)));
    }
    let everything = |ledger: &Ledger| ledger.summarize(UnixMillis(0), UnixMillis(u64::MAX));
    assert_eq!(everything(ledger), everything(&expected));
}

fn refusal(files: &Files) -> Damage {
    read(files).expect_err("this must not be believed")
}

#[test]
fn fresh() {
    assert_eq!(read(&[]), Ok((1, vec![])));
    let plan = Plan::new(["lock", "lost+found", "1.journal", "x.journal", "README"]).unwrap();
    assert_eq!((plan.generations(), plan.superseded(0)), (&[Generation::default()][..], vec![]));
}

#[test]
fn whole() {
    use Ending::Whole;

    assert_eq!(read(&[segment(1..=10)]), Ok((11, vec![Whole])));
    assert_eq!(read(&[segment(8..=9), segment(1..=7), segment(10..=30)]), Ok((31, vec![Whole; 3])));
    assert_eq!(read(&[snapshot(8), segment(8..=20)]), Ok((21, vec![Whole; 2])));
    // A snapshot and a segment that has only its header; and nothing but headers.
    let (id, bytes) = segment(8..=8);
    assert_eq!(read(&[snapshot(8), (id, bytes[..BLOCK].to_vec())]), Ok((8, vec![Whole; 2])));
    let (id, bytes) = segment(1..=1);
    assert_eq!(read(&[(id, bytes[..BLOCK].to_vec())]), Ok((1, vec![Whole])));
}

#[test]
fn torn_at_every_byte() {
    let (id, bytes) = segment(1..=6);
    for size in BLOCK..bytes.len() {
        let (whole, torn) = (size / BLOCK, size % BLOCK);
        let ending = match torn {
            0 => Ending::Whole,
            torn => Ending::Torn { size: (whole * BLOCK) as u64, torn_size: torn as u64 },
        };
        assert_eq!(read(&[(id, bytes[..size].to_vec())]), Ok((whole as u64, vec![ending])), "{size}");
    }
}

#[test]
fn torn_by_zeros_or_garbage_at_the_end() {
    let (id, whole) = segment(1..=6);
    let size = whole.len() as u64;
    for rubbish in [vec![0; 5_000], vec![0xff; 1], (0..1_000_u32).map(|byte| (byte % 251) as u8).collect()] {
        let torn_size = rubbish.len() as u64;
        let bytes = [whole.clone(), rubbish].concat();
        assert_eq!(read(&[(id, bytes)]), Ok((7, vec![Ending::Torn { size, torn_size }])));
    }
    // The last record is damaged: nobody can tell that from a torn one.
    for bit in 0..BLOCK * 8 {
        let mut bytes = whole.clone();
        let place = bytes.len() - BLOCK + bit / 8;
        bytes[place] ^= 1 << (bit % 8);
        let ending = Ending::Torn { size: size - 48, torn_size: 48 };
        assert_eq!(read(&[(id, bytes)]), Ok((6, vec![ending])));
    }
}

#[test]
fn torn_and_gone_on_from_there() {
    let (id, mut bytes) = segment(1..=6);
    bytes.extend([9; 20]);
    let ending = Ending::Torn { size: 7 * 48, torn_size: 20 };
    let files = [(id, bytes), segment(7..=9)];
    assert_eq!(read(&files), Ok((10, vec![ending, Ending::Whole])));
}

#[test]
fn unborn() {
    let (id, bytes) = segment(7..=9);
    for size in 0..BLOCK {
        let files = [segment(1..=6), (id, bytes[..size].to_vec())];
        assert_eq!(read(&files), Ok((7, vec![Ending::Whole, Ending::Unborn])));
        // The very first one, and the one after a snapshot.
        assert_eq!(read(&[(FileId::segment(1), bytes[..size].to_vec())]), Ok((1, vec![Ending::Unborn])));
        let files = [snapshot(7), (id, bytes[..size].to_vec())];
        assert_eq!(read(&files), Ok((7, vec![Ending::Whole, Ending::Unborn])));
    }
    // Its size reached the disk, its bytes did not.
    for size in [BLOCK, BLOCK + 1, 10 * BLOCK] {
        let files = [segment(1..=6), (id, vec![0; size])];
        assert_eq!(read(&files), Ok((7, vec![Ending::Whole, Ending::Unborn])));
    }
}

#[test]
fn unfinished_and_superseded() {
    let (segment_of, snapshot_of) = (FileId::segment, FileId::snapshot);
    let names = [segment_of(1), segment_of(3), segment_of(5), segment_of(9), snapshot_of(3), snapshot_of(5)];
    let mut names = names.map(|file| file.to_string()).to_vec();
    names.push(snapshot_of(9).to_string() + UNFINISHED_SUFFIX);
    names.push(snapshot_of(9).to_string() + DAMAGED_SUFFIX);
    let plan = Plan::new(names.iter().map(String::as_str)).unwrap();
    let generation = |snapshot: Option<u64>, segments: &[u64]| Generation {
        snapshot: snapshot.map(snapshot_of),
        segments: segments.iter().copied().map(segment_of).collect(),
    };
    let generations =
        [generation(Some(5), &[5, 9]), generation(Some(3), &[3, 5, 9]), generation(None, &[1, 3, 5, 9])];
    assert_eq!(plan.generations(), generations);
    // The one behind what was read is kept, and there is none before the last.
    assert_eq!(plan.superseded(0), [segment_of(1)]);
    assert!(plan.superseded(1).is_empty() && plan.superseded(2).is_empty());
    // A superseded file is not even looked at, nor is the generation before the newest.
    let files = [(FileId::segment(1), b"rubbish".to_vec()), snapshot(9), segment(9..=9)];
    assert_eq!(read(&files), Ok((10, vec![Ending::Whole; 2])));
}

#[test]
fn the_generation_before_says_the_same() {
    let files = [segment(1..=3), snapshot(4), segment(4..=8), snapshot(9), segment(9..=12), segment(13..=15)];
    let names: Vec<_> = files.iter().map(|(id, _)| id.to_string()).collect();
    let plan = Plan::new(names.iter().map(String::as_str)).unwrap();
    assert_eq!(plan.generations().len(), 3);
    assert_eq!(plan.superseded(0), [FileId::segment(1)]);
    for generation in plan.generations() {
        let mut recovery = Recovery::new(config());
        for id in generation.files() {
            let (_, bytes) = files.iter().find(|(other, _)| *other == id).unwrap();
            recovery.begin(id).unwrap();
            recovery.feed(bytes).unwrap();
            assert_eq!(recovery.end(), Ok(Ending::Whole));
        }
        let recovered = recovery.finish();
        assert_eq!(recovered.next_sequence, 16);
        check_ledger(&recovered.ledger, 16);
    }
    // One that lacks a segment is none, one without any before it neither.
    for (gone, left) in [(FileId::segment(4), 2), (FileId::segment(1), 2), (FileId::snapshot(4), 2)] {
        let names: Vec<_> = names.iter().filter(|name| **name != gone.to_string()).collect();
        let plan = Plan::new(names.iter().map(|name| name.as_str())).unwrap();
        assert_eq!(plan.generations().len(), left, "without {gone}");
        assert_eq!(plan.generations()[0].snapshot, Some(FileId::snapshot(9)));
    }
}

#[test]
fn hole_at_every_bit() {
    let (id, whole) = segment(1..=8);
    for bit in 0..BLOCK * 8 {
        let mut bytes = whole.clone();
        bytes[4 * BLOCK + bit / 8] ^= 1 << (bit % 8);
        let damage = Damage::Hole { file: id, offset: 4 * 48, whole_offset: 5 * 48 };
        assert_eq!(read_in_pieces(&[(id, bytes)], 1 << 20).map(|_| ()), Err(damage), "{bit}");
    }
}

#[test]
fn hole_where_writes_were_lost() {
    let (id, mut bytes) = segment(1..=300);
    // A page that never reached the disk.
    bytes[4_096..8_192].fill(0);
    let first = 4_096 / 48 * 48;
    let whole_offset = 8_192_u64.div_ceil(48) * 48;
    assert_eq!(refusal(&[(id, bytes)]), Damage::Hole { file: id, offset: first, whole_offset });
}

#[test]
fn hole_where_a_piece_was_cut_out_or_put_in() {
    let (id, whole) = segment(1..=8);
    for size in [1, 20, 47] {
        let (offset, cut) = (3 * 48, 3 * BLOCK);
        let bytes = [&whole[..cut], &whole[cut + size..]].concat();
        let whole_offset = 4 * 48 - size as u64;
        assert_eq!(refusal(&[(id, bytes)]), Damage::Hole { file: id, offset, whole_offset });
        let bytes = [&whole[..cut], &vec![1; size], &whole[cut..]].concat();
        let whole_offset = 3 * 48 + size as u64;
        assert_eq!(refusal(&[(id, bytes)]), Damage::Hole { file: id, offset, whole_offset });
    }
    // A whole record behind rubbish that ends the file, be it the last bytes.
    let bytes = [&whole[..], &[0; 500], &record(10)].concat();
    let damage = Damage::Hole { file: id, offset: 9 * 48, whole_offset: 9 * 48 + 500 };
    assert_eq!(refusal(&[(id, bytes)]), damage);
    // A segment whose header was lost, and its records not.
    let mut bytes = whole;
    bytes[..BLOCK].fill(0);
    assert_eq!(refusal(&[(id, bytes)]), Damage::Hole { file: id, offset: 0, whole_offset: 48 });
}

#[test]
fn stray() {
    let (id, whole) = segment(1..=8);
    let swap = |first: usize, second: usize| {
        let mut bytes = whole.clone();
        let (left, right) = bytes.split_at_mut(second * BLOCK);
        left[first * BLOCK..(first + 1) * BLOCK].swap_with_slice(&mut right[..BLOCK]);
        bytes
    };
    let damage = Damage::Stray { file: id, offset: 3 * 48, expected: 3, found: 5 };
    assert_eq!(refusal(&[(id, swap(3, 5))]), damage);
    // One is missing, one is there twice.
    let bytes = [&whole[..3 * BLOCK], &whole[4 * BLOCK..]].concat();
    assert_eq!(refusal(&[(id, bytes)]), Damage::Stray { file: id, offset: 144, expected: 3, found: 4 });
    let bytes = [&whole[..3 * BLOCK], &whole[2 * BLOCK..]].concat();
    assert_eq!(refusal(&[(id, bytes)]), Damage::Stray { file: id, offset: 144, expected: 3, found: 2 });
}

#[test]
fn missing() {
    let missing = |expected, file| Damage::Missing { expected, file: FileId::segment(file) };
    assert_eq!(refusal(&[segment(1..=6), segment(10..=12)]), missing(7, 10));
    assert_eq!(refusal(&[segment(2..=6)]), missing(1, 2));
    assert_eq!(refusal(&[snapshot(5), segment(6..=9)]), missing(5, 6));
    // The end of a segment that is not the last.
    let (id, bytes) = segment(1..=6);
    let cut = bytes[..bytes.len() - 5].to_vec();
    assert_eq!(refusal(&[(id, cut), segment(7..=9)]), missing(6, 7));
    // Two that overlap.
    assert_eq!(refusal(&[segment(1..=6), segment(5..=9)]), missing(7, 5));
}

#[test]
fn segment_gone() {
    let damage = Damage::SegmentGone { snapshot: FileId::snapshot(5) };
    assert_eq!(refusal(&[snapshot(5)]), damage);
    assert_eq!(refusal(&[snapshot(5), segment(1..=4)]), damage);
    // What the operator is told to do works.
    let advice = "create an empty file 00000000000000000005.journal";
    assert!(damage.to_string().contains(advice), "{damage}");
    let files = [snapshot(5), (FileId::segment(5), vec![])];
    assert_eq!(read(&files), Ok((5, vec![Ending::Whole, Ending::Unborn])));
}

#[test]
fn damaged_snapshot() {
    let (id, whole) = snapshot(9);
    for size in 0..whole.len() {
        let files = [(id, whole[..size].to_vec()), segment(9..=10)];
        let damage = read_in_pieces(&files, 1 << 20).map(|_| ()).expect_err("a snapshot has no torn end");
        assert!(matches!(damage, Damage::Snapshot { file, .. } if file == id), "{damage}");
    }
    // Records are refused one by one, pages as a whole.
    let (mut starts, mut pages) = (vec![BLOCK], 0);
    while let Some(start) = starts.last().copied().filter(|start| *start < whole.len()) {
        let page = Record::decode(&whole[start..start + BLOCK]).and_then(|record| record.fact.page());
        starts.push(start + BLOCK);
        if let Some((size, _)) = page {
            starts.push(start + BLOCK + size);
            pages += 1;
        }
    }
    assert_eq!(pages, 2, "of milliseconds and of ids");
    for bit in BLOCK * 8..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let files = [(id, bytes), segment(9..=10)];
        let damage = read_in_pieces(&files, 1 << 20).map(|_| ()).expect_err("a flipped bit");
        let start = starts.iter().rfind(|start| **start <= bit / 8).expect("the header is not among them");
        assert_eq!(damage, Damage::Snapshot { file: id, offset: *start as u64 });
    }
    let bytes = [&whole[..], &[0]].concat();
    assert!(matches!(refusal(&[(id, bytes), segment(9..=10)]), Damage::Snapshot { .. }));
}

#[test]
fn foreign_and_other_versions() {
    let id = FileId::segment(1);
    let refused = |bytes: &[u8]| match refusal(&[(id, bytes.to_vec())]) {
        Damage::Header { file, error } if file == id => error,
        other => panic!("{other}"),
    };
    assert_eq!(
        refused(b"-- a file of somebody else's, long enough to have a header --"),
        HeaderError::Foreign
    );
    assert_eq!(refused(b"short"), HeaderError::Foreign);
    for version in [0_u16, 6, 77] {
        let mut bytes = header(id).encode();
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        assert_eq!(refused(&bytes), HeaderError::Version(version));
        let said = refusal(&[(id, bytes.to_vec())]).to_string();
        assert!(said.contains(&format!("format version {version}, this build reads 1 to 5")), "{said}");
    }
    let mut bytes = header(id).encode();
    bytes[20] ^= 4;
    assert_eq!(refused(&bytes), HeaderError::Damaged);
}

#[test]
fn misnamed() {
    let (inside, bytes) = segment(7..=9);
    let file = FileId::segment(1);
    assert_eq!(refusal(&[(file, bytes.clone())]), Damage::Misnamed { file, inside });
    let file = FileId::snapshot(7);
    assert_eq!(refusal(&[(file, bytes), segment(7..=7)]), Damage::Misnamed { file, inside });
}

#[test]
fn misfit() {
    let file = FileId::segment(1);
    let with = |facts: &[Fact]| {
        let records = (1..).zip(facts).flat_map(|(sequence, &fact)| Record { sequence, fact }.encode());
        [(file, header(file).encode().into_iter().chain(records).collect::<Vec<u8>>())]
    };
    let (accepted, processed) = (entry(1).to_fact(), entry(2).to_fact());
    let amount = |number, amount_cents| Fact::Accepted {
        correlation_id: id(number),
        amount_cents,
        decided_at_ms: 0,
        reason: Reason::Unstated,
        stage: Stage::Waiting,
        in_doubt: false,
    };
    for facts in [
        &[accepted, accepted][..],
        &[accepted, processed, processed],
        &[accepted, processed, accepted],
        &[accepted, Fact::End],
        // Two amounts whose sum no number holds.
        &[amount(3, u64::MAX), accepted],
    ] {
        let (offset, sequence) = ((facts.len() * BLOCK) as u64, facts.len() as u64);
        match refusal(&with(facts)) {
            Damage::Misfit { file: found, offset: at, sequence: number, .. } => {
                assert_eq!((found, at, number), (file, offset, sequence));
            }
            other => panic!("{other}"),
        }
    }
}

/// Ids are looked for many at a time; the record that was wrong is named all the same, and before whatever is wrong behind it.
#[test]
fn a_misfit_that_is_found_late_is_named_where_it_is() {
    let first = FileId::segment(1);
    let mut facts: Vec<Fact> = (1..=40).map(|number| entry(number).to_fact()).collect();
    // Number 41: the first id again, which is processed.
    facts.push(entry(1).to_fact());
    facts.extend((41..=60).map(|number| entry(number).to_fact()));
    let records = (1..).zip(&facts).flat_map(|(sequence, &fact)| Record { sequence, fact }.encode());
    let whole: Vec<u8> = header(first).encode().into_iter().chain(records).collect();
    let mut hole = whole.clone();
    hole[50 * BLOCK] ^= 1;
    let stray = [&whole[..50 * BLOCK], &whole[51 * BLOCK..]].concat();
    let purged = [&whole[..], &Record { sequence: 62, fact: Fact::Purged }.encode()].concat();
    let no_change = [&whole[..], &Record { sequence: 62, fact: Fact::End }.encode()].concat();
    let torn = whole[..50 * BLOCK + 7].to_vec();
    for bytes in [whole, hole, stray, purged, no_change, torn] {
        match refusal(&[(first, bytes)]) {
            Damage::Misfit { file, offset, sequence, misfit } => {
                assert_eq!((file, offset, sequence), (first, 41 * BLOCK as u64, 41));
                assert_eq!(misfit.to_string(), "an id that has ended is not accepted again");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn every_refusal_is_one_line_that_names_a_file_and_says_what_to_do() {
    let (id, whole) = segment(1..=8);
    let mut hole = whole.clone();
    hole[100] ^= 1;
    let stray = [&whole[..3 * BLOCK], &whole[4 * BLOCK..]].concat();
    let (snapshot_id, snapshot_bytes) = snapshot(9);
    for files in [
        vec![(id, hole)],
        vec![(id, stray)],
        vec![segment(2..=6)],
        vec![snapshot(5)],
        vec![(snapshot_id, snapshot_bytes[..99].to_vec()), segment(9..=9)],
        vec![(id, vec![b'x'; 100])],
        vec![(FileId::segment(3), whole)],
    ] {
        let said = refusal(&files).to_string();
        assert!(!said.contains('\n') && !said.contains("  "), "{said}");
        assert!(said.contains("0000000000000000000") && said.len() > 80, "{said}");
    }
}

#[test]
fn names_sort_like_numbers_and_no_other_spelling_counts() {
    for file in [FileId::segment(1), FileId::snapshot(u64::MAX), FileId::segment(123_456_789)] {
        assert_eq!(FileId::parse(&file.to_string()), Some(file));
    }
    for name in [
        "",
        "1.journal",
        "00000000000000000001",
        "00000000000000000001.journal.bak",
        "+0000000000000000001.journal",
        "99999999999999999999.journal",
    ] {
        assert_eq!(FileId::parse(name), None, "{name}");
    }
}

#[test]
fn what_a_smaller_process_forgot_is_forgotten_again() {
    let id_of = |number: u64| id(number);
    let file = FileId::segment(1);
    let small = Header { known_len_max: 1, ..header(file) };
    // 1 and 2 are processed, 1 is forgotten by that, and accepted again.
    let entries = [entry(1), entry(2), entry(3), entry(4), entry(1)];
    let records = (1..).zip(entries).flat_map(|(sequence, entry)| {
        let fact = entry.to_fact();
        Record { sequence, fact }.encode()
    });
    let bytes: Vec<u8> = small.encode().into_iter().chain(records).collect();
    let (recovered, _) =
        read_in_pieces(&[(file, bytes)], 1 << 20).unwrap_or_else(|damage| panic!("{damage}"));
    assert!(matches!(recovered.ledger.lookup(id_of(1)), Known::Open(_)));
    assert!(matches!(recovered.ledger.lookup(id_of(2)), Known::Processed { .. }));
    assert_eq!(recovered.ledger.known_len_max(), 100);
    let books = recovered.ledger.conservation();
    assert_eq!(books.accepted, Tally { count: 3, amount_cents: 5 });
}

#[test]
fn what_a_process_that_wrote_nothing_forgot_is_not_forgotten() {
    // The next process replaces that segment, and its header is gone: a start that had believed it would find ids
    // accepted that a later start takes for processed.
    let empty = FileId::segment(5);
    let small = Header { known_len_max: 1, ..header(empty) };
    let files = [segment(1..=4), (empty, small.encode().to_vec())];
    let (recovered, _) = read_in_pieces(&files, 1 << 20).unwrap_or_else(|damage| panic!("{damage}"));
    assert!(
        [1, 2].iter().all(|number| matches!(recovered.ledger.lookup(id(*number)), Known::Processed { .. }))
    );
    // With a record it counts.
    let (_, fifth) = segment(5..=5);
    let records = [&small.encode()[..], &fifth[BLOCK..]].concat();
    let files = [segment(1..=4), (empty, records)];
    let (recovered, _) = read_in_pieces(&files, 1 << 20).unwrap_or_else(|damage| panic!("{damage}"));
    assert_eq!(recovered.ledger.lookup(id(1)), Known::Absent);
}

/// A header and four records as version 1 wrote them: a payment that waited, went to fallback and was processed there; one
/// at default.
const OF_VERSION_1: [&str; 5] = [
    "47414c4f4a524e4c0100010001000000000000000500000000000000640000000000000000000000000000001ed4ead7",
    "01000000000000000001000000000000000707070707070707c60700000000000000000000000000000000003131fe1e",
    "02000000000000000101000000000000000707070707070707dc05000000000000010000000000000000000082d29c1a",
    "03000000000000000201000000000000000707070707070707dc050000000000000100000000000000000000793a982e",
    "04000000000000000002000000000000000707070707070707050000000000000040060000000000000100005bdd2559",
];

#[test]
fn a_journal_of_version_1_is_read_and_says_nothing_of_reasons() {
    let byte = |text: &str| u8::from_str_radix(text, 16).unwrap();
    let bytes: Vec<u8> = OF_VERSION_1
        .iter()
        .flat_map(|block| (0..block.len()).step_by(2).map(move |at| byte(&block[at..at + 2])))
        .collect();
    let (recovered, endings) = read_in_pieces(&[(FileId::segment(1), bytes)], 100).unwrap();
    assert_eq!((recovered.next_sequence, &endings[..]), (5, &[Ending::Whole][..]));
    let ledger = recovered.ledger;
    let processed =
        Known::Processed { amount_cents: 1_990, requested_at_ms: 1_500, processor: Processor::FALLBACK };
    assert_eq!(ledger.lookup(id(1)), processed);
    assert!(matches!(ledger.lookup(id(2)), Known::Open(open) if open.requested_at_ms == 1_600));
    for (number, stage, attempt) in
        [(1, Stage::At1, AttemptState::Processed), (2, Stage::At0, AttemptState::UnderWay)]
    {
        let history = ledger.history(id(number));
        let [decision] = history.decisions() else { panic!("{history:?}") };
        assert_eq!((decision.stage, decision.reason, decision.attempt), (stage, Reason::Unstated, attempt));
        assert!(history.forgotten);
    }
}

/// What lies behind the last snapshot is rebuilt, decision by decision; of what a snapshot swallowed it is said that it is gone.
#[test]
fn histories_are_those_of_the_changes_that_were_read() {
    let waits = Entry::Accepted {
        correlation_id: id(1),
        amount_cents: 5,
        stage: Stage::Waiting,
        decided_at_ms: 1_000,
        in_doubt: false,
        reason: Reason::AwaitsCheaper,
    };
    let (correlation_id, processor, requested_at_ms) = (id(1), Processor::FALLBACK, 3_000);
    let (reason, waited_for_ms, outcome) = (Reason::PatienceOver, 2_000, Outcome::Processed);
    let changes = [
        waits,
        Entry::Intended { correlation_id, processor, requested_at_ms, reason, waited_for_ms },
        Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status: 0 },
    ];
    let mut before = Ledger::new(config());
    let mut file = header(FileId::segment(1)).encode().to_vec();
    for (sequence, entry) in (1..).zip(changes) {
        before.apply(entry);
        file.extend(Record { sequence, fact: entry.to_fact() }.encode());
    }
    let (recovered, _) = read_in_pieces(&[(FileId::segment(1), file)], 100).unwrap();
    let history = recovered.ledger.history(id(1));
    assert_eq!(history, before.history(id(1)));
    let told: Vec<_> = history
        .decisions()
        .iter()
        .map(|it| (it.at_ms, it.stage, it.reason, it.waited_for_ms, it.attempt))
        .collect();
    let expected = [
        (1_000, Stage::Waiting, Reason::AwaitsCheaper, 0, AttemptState::UnderWay),
        (3_000, Stage::At1, Reason::PatienceOver, 2_000, AttemptState::Processed),
    ];
    assert_eq!((told, history.forgotten), (expected.to_vec(), false));

    let mut first = Ledger::new(config());
    first.apply(waits);
    first.begin_export();
    let snapshot = FileId::snapshot(2);
    let mut rows = header(snapshot).encode().to_vec();
    first.export(100, &mut rows);
    let mut rest = header(FileId::segment(2)).encode().to_vec();
    for (sequence, entry) in (2..).zip(&changes[1..]) {
        rest.extend(Record { sequence, fact: entry.to_fact() }.encode());
    }
    let (recovered, _) = read_in_pieces(&[(snapshot, rows), (FileId::segment(2), rest)], 100).unwrap();
    let part = recovered.ledger.history(id(1));
    assert_eq!((part.decisions(), part.forgotten), (&history.decisions()[1..], true));
}
