//! What a journal's files are worth after a crash: a decision table, and the replay.
//!
//! A journal is a folder of segments, each named by the sequence of its first change, and of snapshots: the ledger's state before
//! the segment of the same number. The newest one counts; the one before it is kept with its segments, for the day that the newest
//! cannot be read ([`Generation`]). [`Plan`] looks at the names, [`Recovery`] at the bytes, which the caller brings piece by piece; no
//! file is ever whole in memory. [`scrub::Scrub`] looks at files at rest.
//!
//! | what is found | label | then |
//! | --- | --- | --- |
//! | nothing | `Fresh` | a new journal |
//! | every record whole, in sequence | `Whole` | believed |
//! | bytes at a segment's end that are no whole record, and no whole record behind them | `Torn` | cut there |
//! | a segment without a whole header, and no whole record in it | `Unborn` | begun anew |
//! | a snapshot that was not finished | `Unfinished` | removed |
//! | files older than the snapshot before the one that was read | `Superseded` | removed |
//! | bytes that are no record, and whole records behind them | [`Damage::Hole`] | refused |
//! | a whole record with another number than is due | [`Damage::Stray`] | refused |
//! | the next segment does not begin where this one ended | [`Damage::Missing`] | refused |
//! | a snapshot, and no segment from it on | [`Damage::SegmentGone`] | refused |
//! | the first segment is not the first, and no snapshot | [`Damage::Missing`] | refused |
//! | a snapshot with a flaw, be it its end or its header | [`Damage::Snapshot`] | the generation before it is read instead, and said; without one refused |
//! | something else under a journal's name | [`Damage::Header`] | refused |
//! | another format version | [`Damage::Header`] | refused |
//! | a header that does not fit the file's name | [`Damage::Misnamed`] | refused |
//! | at a segment's end parts of a text, whose payment or attempt's end is not there | `Torn` | cut there |
//! | a whole record that does not fit the ledger | [`Damage::Misfit`] | refused |
//!
//! Refused: the process must not start. Nothing behind a damaged place is believed, and nothing is skipped: the operator
//! decides. A process that dies can only leave `Torn` and `Unborn` behind, since a segment is written by appending; what is
//! cut then was never answered. A loss of power without syncing can leave any of them.
//!
//! A torn end does not have to be the last segment's: what counts is that the next segment goes on exactly where the whole
//! records end, which proves that the torn bytes were never believed.

pub mod scrub;

use std::fmt;

use galo_wire::journal::{BLOCK_SIZE, Fact, FileKind, Header, HeaderError, Record};
use galo_wire::page::page_checksum;

use crate::ledger::replay::LateMisfit;
use crate::ledger::{Entry, Ledger, LedgerConfig, Misfit};

/// A file of the journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId {
    /// Segment or snapshot.
    pub kind: FileKind,
    /// The sequence of the first change in this segment, or after this snapshot.
    pub sequence: u64,
}

impl FileId {
    /// The segment that begins with this change.
    #[must_use]
    pub fn segment(sequence: u64) -> Self {
        Self { kind: FileKind::Segment, sequence }
    }

    /// The snapshot of the state before this change.
    #[must_use]
    pub fn snapshot(sequence: u64) -> Self {
        Self { kind: FileKind::Snapshot, sequence }
    }

    /// Reads a file's name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, kind) = match name.rsplit_once('.')? {
            (stem, "journal") => (stem, FileKind::Segment),
            (stem, "snapshot") => (stem, FileKind::Snapshot),
            _ => return None,
        };
        let sequence = stem.parse().ok()?;
        let file = Self { kind, sequence };
        (file.to_string() == name).then_some(file)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, sequence } = self;
        let extension = match kind {
            FileKind::Segment => "journal",
            FileKind::Snapshot => "snapshot",
        };
        // As many digits as the largest number has, so that names sort like numbers.
        write!(f, "{sequence:020}.{extension}")
    }
}

/// What a snapshot's name ends in until it is complete.
pub const UNFINISHED_SUFFIX: &str = ".unfinished";

/// What is added to the name of a snapshot that was found damaged while there was another generation.
pub const DAMAGED_SUFFIX: &str = ".damaged";

/// Why a journal cannot be believed: one line for the operator, without the folder.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    /// No record where one should be, and whole ones behind.
    #[error(
        "{file} is damaged at offset {offset}: no record there, but whole ones from offset {whole_offset} on; nothing from {offset} on is believed. \
         Restore the file from a copy; or give up what follows: cut it there (truncate -s {offset} {file}) and move later files away"
    )]
    Hole {
        /// Where.
        file: FileId,
        /// The first byte that is not believed.
        offset: u64,
        /// The first whole record behind it.
        whole_offset: u64,
    },
    /// A whole record out of its place.
    #[error(
        "{file} has record {found} at offset {offset}, where {expected} is due: records are missing or out of order, and nothing from there on is believed. \
         Restore the file from a copy; or give up what follows: cut it there (truncate -s {offset} {file}) and move later files away"
    )]
    Stray {
        /// Where.
        file: FileId,
        /// The first byte that is not believed.
        offset: u64,
        /// Due.
        expected: u64,
        /// Found.
        found: u64,
    },
    /// A segment, or the end of one.
    #[error(
        "record {expected} and what follows it is missing before {file}: a file is gone, or the one before lost its end. \
         Restore it from a copy; or give up what follows: move {file} and later files away"
    )]
    Missing {
        /// The first change that is not there.
        expected: u64,
        /// The file behind the gap.
        file: FileId,
    },
    /// All of them.
    #[error(
        "{snapshot} is there, the segments from {sequence} on are not, so what came after the snapshot is gone. \
         Restore them from a copy; or give up what follows: create an empty file {segment}",
        sequence = snapshot.sequence, segment = FileId::segment(snapshot.sequence)
    )]
    SegmentGone {
        /// The newest snapshot.
        snapshot: FileId,
    },
    /// A snapshot is written whole before it gets its name; so this is no torn end.
    #[error(
        "{file} is damaged at offset {offset} and is not believed. Restore it from a copy, or the whole folder from a backup"
    )]
    Snapshot {
        /// Which.
        file: FileId,
        /// Where.
        offset: u64,
    },
    /// Foreign, of another version, or damaged.
    #[error("{file}: {error}. {}", remedy(error))]
    Header {
        /// Which.
        file: FileId,
        /// What is wrong with it.
        error: HeaderError,
    },
    /// Renamed by somebody.
    #[error(
        "{file} says of itself that it is {inside}. Give it its own name back, or restore it from a copy"
    )]
    Misnamed {
        /// The name.
        file: FileId,
        /// What its header says.
        inside: FileId,
    },
    /// Not a damage of the disk's but of ours.
    #[error(
        "{file}, offset {offset}: record {sequence} does not fit the ledger: {misfit}. This is a defect of Galo's; \
         keep a copy of the journal and report it"
    )]
    Misfit {
        /// Where.
        file: FileId,
        /// Where.
        offset: u64,
        /// Which.
        sequence: u64,
        /// Why not.
        misfit: Misfit,
    },
}

fn remedy(error: &HeaderError) -> &'static str {
    match error {
        HeaderError::Version(_) => {
            "Start the build that wrote it, or move the whole journal away to begin anew"
        }
        HeaderError::Foreign => "Set JOURNAL_DIR to Galo's own folder, or move the file away",
        HeaderError::Short | HeaderError::Damaged => "Restore it from a copy",
    }
}

/// A snapshot, or the beginning of all, and what came after it: the whole ledger.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Generation {
    /// `None`: before the first change.
    pub snapshot: Option<FileId>,
    /// The segments that are read after it.
    pub segments: Vec<FileId>,
}

impl Generation {
    fn new(snapshot: Option<FileId>, segments: &[FileId]) -> Self {
        let first = snapshot.map_or(1, |snapshot| snapshot.sequence);
        let segments = segments.iter().copied().filter(|segment| segment.sequence >= first).collect();
        Self { snapshot, segments }
    }

    /// The first change that is in a segment and not in the snapshot.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.snapshot.map_or(1, |snapshot| snapshot.sequence)
    }

    /// Everything that is read, in order.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        self.snapshot.into_iter().chain(self.segments.iter().copied())
    }
}

/// Which files of a folder are read, in which order, and which are left over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    files: Vec<FileId>,
    generations: Vec<Generation>,
}

impl Plan {
    /// From the names in the journal's folder; others than the journal's are none of its business.
    ///
    /// # Errors
    /// [`Damage::Missing`] and [`Damage::SegmentGone`], as far as names can tell.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Damage> {
        let mut files: Vec<_> = names.into_iter().filter_map(FileId::parse).collect();
        files.sort_unstable();
        let (segments, mut snapshots): (Vec<_>, Vec<_>) =
            files.iter().copied().partition(|file| file.kind == FileKind::Segment);
        snapshots.reverse();
        let newest = Generation::new(snapshots.first().copied(), &segments);
        match (newest.segments.first(), newest.snapshot) {
            (Some(file), _) if file.sequence != newest.first_sequence() => {
                return Err(Damage::Missing { expected: newest.first_sequence(), file: *file });
            }
            (None, Some(snapshot)) => return Err(Damage::SegmentGone { snapshot }),
            (Some(_), _) | (None, None) => {}
        }
        let older = snapshots.into_iter().skip(1).map(Some);
        let origin = newest.snapshot.is_some().then_some(None);
        let older = older
            .chain(origin)
            .map(|snapshot| Generation::new(snapshot, &segments))
            .filter(|older| older.segments.first().is_some_and(|it| it.sequence == older.first_sequence()));
        let generations = std::iter::once(newest.clone()).chain(older).collect();
        Ok(Self { files, generations })
    }

    /// What the ledger can be made of, the newest first. Each one says the same as those before it, from an older snapshot and more segments.
    #[must_use]
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// Files that nothing depends on any more when the generation at this place was read, or written: those from before the one behind it,
    /// which is kept.
    ///
    /// # Panics
    /// If there is no such generation.
    #[must_use]
    pub fn superseded(&self, place: usize) -> Vec<FileId> {
        let kept = self.generations.get(place + 1).unwrap_or(&self.generations[place]);
        self.files.iter().copied().filter(|file| file.sequence < kept.first_sequence()).collect()
    }
}

/// How a file ended that was not refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With its last record.
    Whole,
    /// With bytes that are no record: to be cut to `size`.
    Torn {
        /// The size of what is believed.
        size: u64,
        /// The size of what is not.
        torn_size: u64,
    },
    /// Before its header: the next record begins it anew.
    Unborn,
}

/// Reads a journal: give it each file of a [`Plan`] in order, each in pieces.
pub struct Recovery {
    config: LedgerConfig,
    ledger: Ledger,
    file: Option<Reader>,
    next_sequence: u64,
    records: u64,
    /// How many of the last changes are parts of a text, whose entry has not come.
    dangling: u64,
}

/// A journal that was read.
pub struct Recovered {
    /// What it says.
    pub ledger: Ledger,
    /// The next change's.
    pub next_sequence: u64,
    /// How many were read, a snapshot's rows included.
    pub records: u64,
}

struct Reader {
    id: FileId,
    state: State,
    /// The offset of `pending`'s first byte.
    offset: u64,
    /// The beginning of a block, or of a page.
    pending: Vec<u8>,
    /// A snapshot's next row.
    next_row: u64,
    /// How many ids a segment's process remembered, until its first record is read. A process that wrote nothing has changed
    /// nothing: the next one replaces its segment, header and all, and must not depend on having read it.
    known_len_max: Option<usize>,
}

enum State {
    Header,
    Records,
    /// This was read, and the page that it announces is next.
    Page(Fact),
    /// A snapshot's last row was read.
    Complete,
    /// There was no record at `offset`. What follows is searched for one, wherever it may begin; without one this is the end.
    Torn {
        offset: u64,
        /// The last block's worth of bytes before the reader's offset.
        window: [u8; BLOCK_SIZE],
    },
}

impl Recovery {
    /// Before the first file.
    #[must_use]
    pub fn new(config: LedgerConfig) -> Self {
        let mut ledger = Ledger::new(config);
        ledger.begin_replay();
        Self { config, ledger, file: None, next_sequence: 1, records: 0, dangling: 0 }
    }

    /// The next file.
    ///
    /// # Errors
    /// If it does not begin where the one before ended.
    ///
    /// # Panics
    /// If the file before was not ended.
    pub fn begin(&mut self, id: FileId) -> Result<(), Damage> {
        assert!(self.file.is_none(), "one file after the other");
        match id.kind {
            FileKind::Snapshot => self.next_sequence = id.sequence,
            FileKind::Segment if id.sequence != self.next_sequence => {
                return Err(Damage::Missing { expected: self.next_sequence, file: id });
            }
            FileKind::Segment => {}
        }
        let pending = Vec::with_capacity(BLOCK_SIZE);
        self.file =
            Some(Reader { id, state: State::Header, offset: 0, pending, next_row: 1, known_len_max: None });
        Ok(())
    }

    /// The file's next bytes.
    ///
    /// # Errors
    /// Why it cannot be believed.
    ///
    /// # Panics
    /// If no file was begun.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Damage> {
        let mut file = self.file.take().expect("a file was begun");
        while !bytes.is_empty() {
            let size = file.due_size();
            if file.pending.is_empty() && bytes.len() >= size {
                let (whole, rest) = bytes.split_at(size);
                self.unit(&mut file, whole)?;
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at(bytes.len().min(size - file.pending.len()));
            file.pending.extend_from_slice(head);
            bytes = rest;
            if file.pending.len() == size {
                let mut whole = std::mem::take(&mut file.pending);
                self.unit(&mut file, &whole)?;
                whole.clear();
                file.pending = whole;
            }
        }
        self.file = Some(file);
        Ok(())
    }

    /// The file has no more bytes.
    ///
    /// # Errors
    /// Why it cannot be believed.
    ///
    /// # Panics
    /// If no file was begun.
    pub fn end(&mut self) -> Result<Ending, Damage> {
        let mut file = self.file.take().expect("a file was begun");
        let Reader { id, .. } = file;
        if id.kind == FileKind::Segment {
            self.settle(id, self.next_sequence)?;
        }
        let size = file.offset + file.pending.len() as u64;
        match (id.kind, &file.state) {
            (FileKind::Snapshot, State::Complete) if file.pending.is_empty() => return Ok(Ending::Whole),
            (FileKind::Snapshot, _) => return Err(Damage::Snapshot { file: id, offset: file.offset }),
            (FileKind::Segment, State::Header) if Header::may_begin_with(&file.pending) => {
                return Ok(Ending::Unborn);
            }
            (FileKind::Segment, State::Header) => {
                return Err(Damage::Header { file: id, error: HeaderError::Foreign });
            }
            (FileKind::Segment, State::Records | State::Page(_) | State::Complete) => {
                return Ok(self.cut_at(file.offset, size));
            }
            (FileKind::Segment, State::Torn { .. }) => {}
        }
        let rest = std::mem::take(&mut file.pending);
        file.search(&rest, self.next_sequence)?;
        let State::Torn { offset, .. } = file.state else { unreachable!("a search does not mend") };
        Ok(if offset == 0 { Ending::Unborn } else { self.cut_at(offset, size) })
    }

    /// The end of a segment of this size, whose records are whole up to `offset`. Parts of a text that nothing came behind are what a torn write left: they
    /// are written together with what they belong to.
    fn cut_at(&mut self, offset: u64, size: u64) -> Ending {
        let dangling = std::mem::take(&mut self.dangling);
        self.ledger.forget_gathered();
        self.next_sequence -= dangling;
        self.records -= dangling;
        let whole_size = offset - dangling * BLOCK_SIZE as u64;
        if whole_size == size {
            Ending::Whole
        } else {
            Ending::Torn { size: whole_size, torn_size: size - whole_size }
        }
    }

    /// The journal has no more files.
    #[must_use]
    pub fn finish(mut self) -> Recovered {
        self.ledger.set_known_len_max(self.config.known_len_max);
        self.ledger.end_replay();
        Recovered { ledger: self.ledger, next_sequence: self.next_sequence, records: self.records }
    }

    /// A whole block, or a whole page.
    fn unit(&mut self, file: &mut Reader, bytes: &[u8]) -> Result<(), Damage> {
        match (&file.state, <&[u8; BLOCK_SIZE]>::try_from(bytes)) {
            (State::Page(fact), _) => {
                let fact = *fact;
                self.page(file, fact, bytes)?;
            }
            (_, Ok(block)) => self.block(file, block)?,
            (_, Err(_)) => unreachable!("all but pages are blocks"),
        }
        file.offset += bytes.len() as u64;
        Ok(())
    }

    fn page(&mut self, file: &mut Reader, fact: Fact, page: &[u8]) -> Result<(), Damage> {
        let (id, offset) = (file.id, file.offset);
        if fact.page() != Some((page.len(), page_checksum(page))) {
            return Err(Damage::Snapshot { file: id, offset });
        }
        let misfit = |misfit| Damage::Misfit { file: id, offset, sequence: file.next_row - 1, misfit };
        self.ledger.import_page(fact, page).map_err(misfit)?;
        if let Fact::RememberedPage { rows, .. } | Fact::MomentsPage { rows, .. } = fact {
            self.records += u64::from(rows);
        }
        file.state = State::Records;
        Ok(())
    }

    fn block(&mut self, file: &mut Reader, block: &[u8; BLOCK_SIZE]) -> Result<(), Damage> {
        let (id, offset) = (file.id, file.offset);
        match file.state {
            State::Header if id.kind == FileKind::Segment && block.iter().all(|byte| *byte == 0) => {
                // Its size reached the disk, its bytes did not.
                file.state = State::Torn { offset, window: *block };
            }
            State::Header => {
                let header = Header::decode(block).map_err(|error| Damage::Header { file: id, error })?;
                let inside = FileId { kind: header.kind, sequence: header.first_sequence };
                if inside != id {
                    return Err(Damage::Misnamed { file: id, inside });
                }
                let known_len_max = usize::try_from(header.known_len_max).unwrap_or(usize::MAX);
                match id.kind {
                    FileKind::Snapshot => self.ledger.set_known_len_max(known_len_max),
                    FileKind::Segment => file.known_len_max = Some(known_len_max),
                }
                file.state = State::Records;
            }
            State::Records if id.kind == FileKind::Segment => match Record::decode(block) {
                Some(record) => {
                    if let Some(known_len_max) = file.known_len_max.take() {
                        self.ledger.set_known_len_max(known_len_max);
                    }
                    self.change(record, id, offset)?;
                }
                None => {
                    self.settle(id, self.next_sequence)?;
                    file.state = State::Torn { offset, window: *block };
                }
            },
            State::Records => match Record::decode(block) {
                Some(record) if record.sequence == file.next_row => {
                    let misfit =
                        |misfit| Damage::Misfit { file: id, offset, sequence: record.sequence, misfit };
                    if record.fact.page().is_some() {
                        file.state = State::Page(record.fact);
                    } else {
                        self.ledger.import(record.fact).map_err(misfit)?;
                        self.records += 1;
                        if self.ledger.settle_is_due() {
                            self.ledger.settle().map_err(|late| misfit(late.misfit))?;
                        }
                    }
                    file.next_row += 1;
                    if record.fact == Fact::End {
                        file.state = State::Complete;
                    }
                }
                Some(_) | None => return Err(Damage::Snapshot { file: id, offset }),
            },
            State::Complete => return Err(Damage::Snapshot { file: id, offset }),
            State::Page(_) => unreachable!("a page is no block"),
            State::Torn { .. } => file.search(block, self.next_sequence)?,
        }
        Ok(())
    }

    fn change(&mut self, record: Record, file: FileId, offset: u64) -> Result<(), Damage> {
        let Record { sequence, fact } = record;
        if sequence != self.next_sequence {
            self.settle(file, self.next_sequence)?;
            return Err(Damage::Stray { file, offset, expected: self.next_sequence, found: sequence });
        }
        let misfit = |misfit| Damage::Misfit { file, offset, sequence, misfit };
        if fact == Fact::Purged || self.ledger.settle_is_due() {
            self.settle(file, sequence)?;
        }
        let Some(entry) = Entry::of_fact(fact) else {
            self.settle(file, sequence)?;
            return Err(misfit(Misfit::NO_CHANGE));
        };
        if let Err(reason) = self.ledger.replay(entry) {
            // What came before was wrong before this was.
            self.settle(file, sequence + 1)?;
            return Err(misfit(reason));
        }
        self.next_sequence += 1;
        self.records += 1;
        self.dangling = if matches!(entry, Entry::Attached { .. }) { self.dangling + 1 } else { 0 };
        Ok(())
    }

    /// Finds what the ledger has put off, in records before this one.
    fn settle(&mut self, file: FileId, next_sequence: u64) -> Result<(), Damage> {
        self.ledger.settle().map_err(|LateMisfit { changes_since, misfit }| {
            let sequence = next_sequence - 1 - changes_since;
            // One block each, behind the header.
            let offset = BLOCK_SIZE as u64 * (1 + sequence - file.sequence);
            Damage::Misfit { file, offset, sequence, misfit }
        })
    }
}

impl Reader {
    /// How many bytes are taken in together next.
    fn due_size(&self) -> usize {
        match &self.state {
            State::Page(fact) => fact.page().map_or(BLOCK_SIZE, |(size, _)| size),
            State::Header | State::Records | State::Complete | State::Torn { .. } => BLOCK_SIZE,
        }
    }

    /// Looks for whole records behind a torn place. They may begin at any byte: somebody may have cut a piece out.
    fn search(&mut self, bytes: &[u8], expected: u64) -> Result<(), Damage> {
        let State::Torn { offset, window } = &mut self.state else { return Ok(()) };
        let mut both = window.to_vec();
        both.extend_from_slice(bytes);
        let window_offset = self.offset.saturating_sub(BLOCK_SIZE as u64);
        // The window itself begins with what was looked at before.
        for (place, block) in (0_u64..).zip(both.array_windows::<BLOCK_SIZE>()).skip(1) {
            // Cheap before dear: a number that may follow, then the checksum.
            let may_follow =
                Record::sequence_of(block).checked_sub(expected).is_some_and(|gap| gap < 1 << 40);
            if may_follow && Record::decode(block).is_some() {
                let whole_offset = window_offset + place;
                return Err(Damage::Hole { file: self.id, offset: *offset, whole_offset });
            }
        }
        *window = *both.last_chunk().expect("at least the window");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
