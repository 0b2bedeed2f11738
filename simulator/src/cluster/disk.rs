//! The aggregator's disk: the journal's files byte by byte, and how much of each would survive a loss of power.
//!
//! Written with the real records, read with the real [`Recovery`]. A killed process loses nothing that it wrote; the write
//! that it was at may have got any number of its bytes there. A loss of power takes any suffix of what was not synced, or
//! leaves a hole in it. Where recovery then refuses, the simulator does what its message tells the operator to.
//!
//! Segments, and snapshots taken while the journal goes on, follow the steps of `aggregator/src/journal/snapshot.rs`; a
//! kill falls between any two of them.

use std::collections::BTreeMap;

use galo_engine::ledger::snapshot::Progress;
use galo_engine::ledger::{Entry, Ledger, LedgerConfig};
use galo_engine::recovery::{Damage, Ending, FileId, Plan, Recovery};
use galo_wire::journal::{BLOCK_SIZE, FileKind, Header, Record};

use super::dice::Dice;

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced_size: usize,
}

/// A snapshot being written.
struct Unfinished {
    id: FileId,
    bytes: Vec<u8>,
    done: bool,
}

/// See the module's documentation.
pub struct Disk {
    files: BTreeMap<FileId, File>,
    /// The segment that records go to.
    segment: FileId,
    /// The first one that this process has begun.
    begun: FileId,
    /// The next record's.
    next_sequence: u64,
    /// The record with which a new segment begins.
    rotates_at: Option<u64>,
    unfinished: Option<Unfinished>,
    /// Files that a snapshot has taken over from, still to be removed.
    superseded: Vec<FileId>,
    /// What the records say, for the oracle: the first is record 1.
    entries: Vec<Entry>,
    known_len_max: u64,
}

/// What came out of a start.
pub struct Found {
    /// The ledger.
    pub ledger: Ledger,
    /// Why recovery refused, as often as it did.
    pub damages: Vec<Damage>,
    /// No advice helps: the ledger is empty.
    pub hopeless: bool,
    /// Records that were there and are gone.
    pub lost: Vec<Entry>,
}

impl Disk {
    /// An empty folder.
    pub fn new(known_len_max: usize) -> Self {
        let segment = FileId::segment(1);
        let mut disk = Self {
            files: BTreeMap::new(),
            segment,
            begun: segment,
            next_sequence: 1,
            rotates_at: None,
            unfinished: None,
            superseded: Vec::new(),
            entries: Vec::new(),
            known_len_max: known_len_max as u64,
        };
        disk.begin_segment();
        disk
    }

    /// All records ever written, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn header(&self, id: FileId) -> [u8; BLOCK_SIZE] {
        let known_len_max = self.known_len_max;
        Header { kind: id.kind, reserved: 0, first_sequence: id.sequence, incarnation: 1, known_len_max }
            .encode()
    }

    fn begin_segment(&mut self) {
        self.rotates_at = None;
        self.segment = FileId::segment(self.next_sequence);
        let header = self.header(self.segment);
        // The real one syncs a folder's names before it promises on them; headers alone are never lost here.
        self.files.insert(self.segment, File { bytes: header.to_vec(), synced_size: BLOCK_SIZE });
    }

    fn rotate_if_due(&mut self) {
        if self.rotates_at == Some(self.next_sequence) && self.segment.sequence != self.next_sequence {
            self.begin_segment();
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.files.get_mut(&self.segment).expect("the segment is there").bytes.extend_from_slice(bytes);
    }

    /// A record is written. `as_what` is what the bytes say, which a bug may make another thing.
    pub fn write(&mut self, entry: Entry, as_what: Entry) {
        self.rotate_if_due();
        let record = Record { sequence: self.next_sequence, fact: as_what.to_fact() };
        self.append(&record.encode());
        self.next_sequence += 1;
        self.entries.push(entry);
    }

    /// The beginning of a record is written; then its writer dies.
    pub fn write_torn(&mut self, entry: Entry, dice: &mut Dice) {
        self.rotate_if_due();
        let record = Record { sequence: self.next_sequence, fact: entry.to_fact() };
        let size = dice.index(BLOCK_SIZE);
        self.append(&record.encode()[..size]);
    }

    /// What this process has written so far survives everything.
    pub fn sync(&mut self) {
        let begun = self.begun.sequence;
        let own = self.files.iter_mut().filter(|(id, _)| id.sequence >= begun);
        own.for_each(|(_, file)| file.synced_size = file.bytes.len());
    }

    /// Whether a snapshot is being taken, or its old files removed.
    pub fn is_busy(&self) -> bool {
        self.unfinished.is_some() || !self.superseded.is_empty()
    }

    /// Takes this moment as a snapshot's: `decided` records were decided before it.
    pub fn begin_snapshot(&mut self, ledger: &mut Ledger, waiting_len: usize) {
        ledger.begin_export();
        let sequence = self.next_sequence + waiting_len as u64;
        self.rotates_at = Some(sequence);
        let id = FileId::snapshot(sequence);
        self.unfinished = Some(Unfinished { id, bytes: self.header(id).to_vec(), done: false });
    }

    /// One more step of the snapshot under way. `late` plants a bug: the snapshot claims the moment of its end.
    pub fn step_snapshot(&mut self, ledger: &mut Ledger, late: bool, dice: &mut Dice) {
        self.rotate_if_due();
        if let Some(oldest) = (!self.superseded.is_empty()).then(|| dice.index(self.superseded.len())) {
            let file = self.superseded.swap_remove(oldest);
            self.files.remove(&file);
            return;
        }
        let Some(mut unfinished) = self.unfinished.take() else { return };
        if !unfinished.done {
            match ledger.export(dice.index(30) + 1, &mut unfinished.bytes) {
                Progress::More => {}
                Progress::Done => unfinished.done = true,
                Progress::Gone => return,
            }
        } else if self.segment.sequence >= unfinished.id.sequence {
            let mut id = unfinished.id;
            if late && self.segment.sequence != self.next_sequence {
                self.begin_segment();
                id = FileId::snapshot(self.next_sequence);
                let header = self.header(id);
                unfinished.bytes[..BLOCK_SIZE].copy_from_slice(&header);
            }
            let synced_size = unfinished.bytes.len();
            self.files.insert(id, File { bytes: unfinished.bytes, synced_size });
            let names: Vec<String> = self.files.keys().map(ToString::to_string).collect();
            let plan = Plan::new(names.iter().map(String::as_str)).expect("the snapshot has its segment");
            self.superseded = plan.superseded(0);
            return;
        }
        self.unfinished = Some(unfinished);
    }

    /// The process is gone, and what it had not renamed yet with it.
    pub fn abandon(&mut self) {
        self.unfinished = None;
        self.superseded = Vec::new();
        self.rotates_at = None;
    }

    /// Power is lost.
    pub fn lose_power(&mut self, dice: &mut Dice) {
        for file in self.files.values_mut() {
            let unsynced_size = file.bytes.len() - file.synced_size;
            if unsynced_size == 0 {
                continue;
            }
            let kept_size = file.synced_size + dice.index(unsynced_size + 1);
            file.bytes.truncate(kept_size);
            if dice.one_in(3) && kept_size > file.synced_size {
                // Later blocks reached the medium, this one did not.
                let hole = file.synced_size + dice.index(kept_size - file.synced_size);
                let end = (hole + dice.index(2 * BLOCK_SIZE) + 1).min(kept_size);
                file.bytes[hole..end].fill(0);
            }
            file.synced_size = kept_size;
        }
    }

    /// A bug: the last records are gone although they were written.
    pub fn lose_tail(&mut self, len: usize) {
        let file = self.files.get_mut(&self.segment).expect("the segment is there");
        let size = file.bytes.len().saturating_sub(len * BLOCK_SIZE).max(BLOCK_SIZE);
        file.bytes.truncate(size);
    }

    /// A start: reads everything, cuts what is torn, syncs what is left unless a bug is planted, removes what is superseded, and begins a new
    /// segment, which states how many ids are remembered.
    pub fn recover(
        &mut self,
        config: LedgerConfig,
        known_len_stated: usize,
        syncs: bool,
        dice: &mut Dice,
    ) -> Found {
        self.known_len_max = known_len_stated as u64;
        let mut damages = Vec::new();
        loop {
            match self.read(config, dice) {
                Ok((ledger, next_sequence)) => {
                    self.next_sequence = next_sequence;
                    let kept_len = usize::try_from(next_sequence - 1).expect("few records");
                    let lost = self.entries.split_off(kept_len.min(self.entries.len()));
                    if syncs {
                        self.files.values_mut().for_each(|file| file.synced_size = file.bytes.len());
                    }
                    self.begin_segment();
                    self.begun = self.segment;
                    return Found { ledger, damages, hopeless: false, lost };
                }
                Err(damage) => {
                    let hopeless = !self.do_as_told(&damage);
                    damages.push(damage);
                    if hopeless || damages.len() > 10 {
                        let ledger = Ledger::new(config);
                        return Found { ledger, damages, hopeless: true, lost: Vec::new() };
                    }
                }
            }
        }
    }

    fn read(&mut self, config: LedgerConfig, dice: &mut Dice) -> Result<(Ledger, u64), Damage> {
        let names: Vec<String> = self.files.keys().map(ToString::to_string).collect();
        let plan = Plan::new(names.iter().map(String::as_str))?;
        let mut recovery = Recovery::new(config);
        let mut cuts = Vec::new();
        for id in plan.generations()[0].files() {
            recovery.begin(id)?;
            let bytes = &self.files[&id].bytes;
            let (first, second) = bytes.split_at(dice.index(bytes.len() + 1));
            recovery.feed(first)?;
            recovery.feed(second)?;
            cuts.push((id, recovery.end()?));
        }
        for (id, ending) in cuts {
            match ending {
                Ending::Whole => {}
                Ending::Torn { size, .. } => self.cut(id, size),
                Ending::Unborn => drop(self.files.remove(&id)),
            }
        }
        plan.superseded(0).iter().for_each(|id| drop(self.files.remove(id)));
        let recovered = recovery.finish();
        Ok((recovered.ledger, recovered.next_sequence))
    }

    fn cut(&mut self, id: FileId, size: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.bytes.truncate(usize::try_from(size).expect("a small file"));
            file.synced_size = file.synced_size.min(file.bytes.len());
        }
    }

    /// What the messages advise without a copy: give up what is not believed. Says whether they advise anything.
    fn do_as_told(&mut self, damage: &Damage) -> bool {
        match *damage {
            Damage::Hole { file, offset, .. } | Damage::Stray { file, offset, .. } => {
                self.cut(file, offset);
                self.files.retain(|id, _| id.kind == FileKind::Snapshot || id.sequence <= file.sequence);
            }
            Damage::Missing { file, .. } => {
                self.files.retain(|id, _| id.kind == FileKind::Snapshot || id.sequence < file.sequence);
            }
            Damage::SegmentGone { .. }
            | Damage::Snapshot { .. }
            | Damage::Header { .. }
            | Damage::Misnamed { .. }
            | Damage::Misfit { .. } => return false,
        }
        true
    }

    /// A copy of the files, to try a start on.
    pub fn copy(&self) -> Self {
        Self {
            files: self.files.clone(),
            unfinished: None,
            superseded: Vec::new(),
            entries: self.entries.clone(),
            ..*self
        }
    }
}
