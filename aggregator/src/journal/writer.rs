//! The one who writes: takes a batch, writes it, syncs it if that is the policy, lets its answers go, takes the next.
//!
//! A write or a sync that fails ends the process (status 74): the kernel may have dropped what it could not write, so nothing can be
//! promised on top of it, and a supervisor's restart reads what really is on disk. No answer that rested on it has left.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use galo_engine::coordinator::SessionId;
use galo_engine::ledger::Entry;
use galo_engine::recovery::FileId;
use galo_shell::clock::Clock;
use galo_shell::exit;
use galo_wire::journal::BLOCK_SIZE;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::directory::{Directory, Opened};
use super::file::{self, JournalFile};
use super::queue::{Answers, BACKLOG_SIZE_MAX, Batch, Queue};
use super::scrub::ScrubCounters;
use super::snapshot::SnapshotCounters;
use super::{JournalConfig, Sync};
use crate::stream::Driver;

/// Between two tries to begin a segment without a descriptor.
const DESCRIPTOR_WAIT: Duration = Duration::from_millis(10);

/// Counts since the start.
#[derive(Clone, Copy, Default, Debug)]
pub struct JournalCounters {
    /// Records written.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Writes that it took.
    pub writes: u64,
    /// Syncs to the medium.
    pub syncs: u64,
    /// When the last sync was done, µs of the monotonic clock.
    pub synced_us: u64,
    /// Segments begun.
    pub segments: u64,
    /// Of the records, those that a sync has been done for since they were written.
    pub synced_records: u64,
}

/// The journal of a running process.
pub struct Journal {
    /// How it is kept.
    pub config: JournalConfig,
    /// Where it is kept.
    pub directory: Arc<Directory>,
    /// How this process does its I/O.
    pub driver: Driver,
    clock: Clock,
    queue: RefCell<Queue>,
    /// Something waits to be written.
    work: Notify,
    /// Something was written.
    progress: Notify,
    segment: RefCell<Segment>,
    /// A descriptor in reserve for the next segment: connections may take all that there are.
    spare: Cell<Option<File>>,
    /// Segments that were finished, and not synced since.
    finished: RefCell<Vec<Rc<JournalFile>>>,
    dirty: Cell<bool>,
    /// The first record that a start would read from a segment.
    first_sequence: Cell<u64>,
    /// The size at which the next snapshot is due; 0 after a purge.
    snapshot_size: Cell<u64>,
    /// One is due whatever the size.
    snapshot_now: Cell<bool>,
    snapshot_due: Notify,
    counters: Cell<JournalCounters>,
    /// What is known of snapshots.
    pub snapshots: Cell<SnapshotCounters>,
    /// What is known of scrubs.
    pub scrubs: Cell<ScrubCounters>,
    /// Records read at start, and the time that it took, µs.
    pub replayed: (u64, u64),
}

#[derive(Clone)]
struct Segment {
    id: FileId,
    file: Rc<JournalFile>,
    size: u64,
}

impl Journal {
    /// Goes on where recovery ended.
    #[must_use]
    pub fn new(
        config: JournalConfig,
        driver: Driver,
        clock: Clock,
        opened: Opened,
    ) -> (Rc<Self>, galo_engine::ledger::Ledger) {
        let Opened { directory, recovered, segment, first_sequence, snapshot_size, damaged, replay_us } =
            opened;
        let next_sequence = recovered.next_sequence;
        let segment = Segment {
            id: FileId::segment(next_sequence),
            file: Rc::new(JournalFile::new(segment, driver)),
            size: BLOCK_SIZE as u64,
        };
        let journal = Self {
            snapshot_size: Cell::new(config.snapshot_every_bytes.max(snapshot_size)),
            // So that there are two generations again.
            snapshot_now: Cell::new(damaged > 0),
            config,
            spare: Cell::new(directory.spare()),
            directory: Arc::new(directory),
            driver,
            clock,
            queue: RefCell::new(Queue::new(next_sequence)),
            work: Notify::new(),
            progress: Notify::new(),
            segment: RefCell::new(segment),
            finished: RefCell::default(),
            dirty: Cell::new(false),
            first_sequence: Cell::new(first_sequence),
            snapshot_due: Notify::new(),
            counters: Cell::default(),
            snapshots: Cell::new(SnapshotCounters { size: snapshot_size, ..SnapshotCounters::default() }),
            scrubs: Cell::new(ScrubCounters { damaged, ..ScrubCounters::default() }),
            replayed: (recovered.records, replay_us),
        };
        (Rc::new(journal), recovered.ledger)
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> JournalCounters {
        self.counters.get()
    }

    /// Bytes that a start would have to replay.
    #[must_use]
    pub fn size(&self) -> u64 {
        let records = self.queue.borrow().written_sequence() - self.first_sequence.get();
        records * BLOCK_SIZE as u64
    }

    /// µs of the monotonic clock.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.clock.now().monotonic_us
    }

    /// Takes in what was decided. What is left in `answers` may leave now.
    pub fn push(&self, entries: &mut Vec<Entry>, answers: &mut Answers) {
        let work = !entries.is_empty();
        if entries.contains(&Entry::Purged) {
            self.snapshot_size.set(0);
        }
        self.queue.borrow_mut().push(entries, answers);
        if work {
            self.work.notify_one();
        }
    }

    /// Answers that wait to be written.
    #[must_use]
    pub fn answers_len(&self) -> usize {
        self.queue.borrow().answers_len()
    }

    /// A connection closed.
    pub fn forget(&self, session: SessionId) {
        self.queue.borrow_mut().forget(session);
    }

    /// Waits while more than [`BACKLOG_SIZE_MAX`] is to be written.
    pub async fn keep_up(&self) {
        while self.queue.borrow().backlog_size() > BACKLOG_SIZE_MAX {
            self.progress.notified().await;
        }
    }

    /// From here on records go to a new segment, whose first number is returned.
    pub fn rotate(&self) -> u64 {
        let sequence = self.queue.borrow_mut().rotate();
        self.work.notify_one();
        sequence
    }

    /// Records written from this one on.
    #[must_use]
    pub fn written_since(&self, sequence: u64) -> u64 {
        self.queue.borrow().written_sequence().saturating_sub(sequence)
    }

    /// Waits until the segment that begins with `sequence` is there.
    pub async fn rotated(&self, sequence: u64) {
        while self.segment.borrow().id.sequence < sequence {
            self.progress.notified().await;
        }
    }

    /// The segment that is being written.
    #[must_use]
    pub fn segment_id(&self) -> FileId {
        self.segment.borrow().id
    }

    /// How much journal makes a snapshot due. Less than the last one's size would have more written for snapshots than for the journal.
    #[must_use]
    pub fn snapshot_every_bytes(&self) -> u64 {
        self.config.snapshot_every_bytes.max(self.snapshots.get().size)
    }

    /// Waits until a snapshot is worth its while, and counts on one being taken.
    pub async fn snapshot_due(&self) {
        while !self.snapshot_now.take() && self.size() < self.snapshot_size.get().max(1) {
            self.snapshot_due.notified().await;
        }
        // If it fails, the next attempt is due when as much again has gathered.
        self.snapshot_size.set(self.size() + self.snapshot_every_bytes());
    }

    /// A snapshot is due.
    pub fn snapshot_now(&self) {
        self.snapshot_now.set(true);
        self.snapshot_due.notify_one();
    }

    /// A start would read segments from this record on.
    pub fn starts_from(&self, sequence: u64) {
        self.first_sequence.set(sequence);
    }

    /// A snapshot of this size has taken over from all records before this one.
    pub fn superseded_until(&self, sequence: u64, size: u64) {
        self.starts_from(sequence);
        self.snapshots.set(SnapshotCounters { size, ..self.snapshots.get() });
        if self.snapshot_size.get() > 0 {
            self.snapshot_size.set(self.snapshot_every_bytes());
        }
    }

    /// Waits until everything that has been decided is written, as an answer that rests on it does.
    pub async fn written(&self) {
        let end = self.queue.borrow().next_sequence();
        while self.queue.borrow().written_sequence() < end {
            self.progress.notified().await;
        }
    }

    /// Waits until everything that has been decided is written and synced, whatever the policy, and what earlier processes wrote too.
    pub async fn finish(&self) {
        self.written().await;
        self.dirty.set(false);
        let directory = Arc::clone(&self.directory);
        if let Err(error) = file::aside(move || directory.sync_all()).await {
            self.failed("sync", &error);
        }
    }

    /// Returns the batch's buffer, to be used again.
    async fn write(&self, batch: Batch) -> io::Result<Vec<u8>> {
        let Batch { first_sequence, bytes, .. } = batch;
        let full = self.segment.borrow().size >= self.config.segment_bytes && !bytes.is_empty();
        if batch.rotates || full {
            self.next_segment(first_sequence).await?;
        }
        if !bytes.is_empty() {
            let Segment { file, size, .. } = self.segment.borrow().clone();
            file.append(&bytes, size)?;
            let written = bytes.len() as u64;
            self.segment.borrow_mut().size += written;
            self.dirty.set(true);
            self.count(|counters| {
                counters.writes += 1;
                counters.bytes += written;
                counters.records += written / BLOCK_SIZE as u64;
            });
            if self.config.sync == Sync::Always {
                self.dirty.set(false);
                file.sync().await?;
                self.synced();
                self.count(|counters| counters.synced_records = counters.records);
            }
        }
        Ok(bytes)
    }

    async fn next_segment(&self, first_sequence: u64) -> io::Result<()> {
        let id = FileId::segment(first_sequence);
        if self.segment.borrow().id == id {
            return Ok(());
        }
        let file = Rc::new(JournalFile::new(self.create(id).await?, self.driver));
        let segment = Segment { id, file, size: BLOCK_SIZE as u64 };
        let old = std::mem::replace(&mut *self.segment.borrow_mut(), segment);
        self.count(|counters| counters.segments += 1);
        match self.config.sync {
            Sync::Memory | Sync::Never | Sync::Always => drop(old),
            Sync::Interval(_) => self.finished.borrow_mut().push(old.file),
        }
        self.keep_spare();
        if self.config.sync == Sync::Always {
            // Its name has to be there before its first record is promised.
            self.sync_names().await?;
        }
        Ok(())
    }

    /// Takes a descriptor in reserve again, where one was given up and a file has been closed since.
    fn keep_spare(&self) {
        let spare = self.spare.take().or_else(|| self.directory.spare());
        self.spare.set(spare);
    }

    /// A new segment's file. Without descriptors it takes the one in reserve, and if that is gone waits for another: nothing is promised
    /// meanwhile.
    async fn create(&self, id: FileId) -> io::Result<File> {
        loop {
            let directory = Arc::clone(&self.directory);
            match file::aside(move || directory.create(id, "")).await {
                Err(error) if is_out_of_descriptors(&error) => {
                    if self.spare.take().is_some() {
                        tracing::warn!("{id} takes the descriptor in reserve: {error}");
                    }
                    // On this thread, which accepts connections: none of them comes in between.
                    match self.directory.create(id, "") {
                        Err(error) if is_out_of_descriptors(&error) => {
                            tokio::time::sleep(DESCRIPTOR_WAIT).await
                        }
                        result => return result,
                    }
                }
                result => return result,
            }
        }
    }

    async fn sync_names(&self) -> io::Result<()> {
        let directory = Arc::clone(&self.directory);
        file::aside(move || directory.sync()).await
    }

    /// Syncs everything that was written before the call. Ends the process if the disk fails.
    async fn sync(&self) {
        let records = self.counters.get().records;
        let mut files = std::mem::take(&mut *self.finished.borrow_mut());
        let rotated = !files.is_empty();
        files.push(Rc::clone(&self.segment.borrow().file));
        for file in files {
            if let Err(error) = file.sync().await {
                self.failed("sync", &error);
            }
            drop(file);
            self.keep_spare();
            self.synced();
        }
        if rotated && let Err(error) = self.sync_names().await {
            self.failed("sync", &error);
        }
        self.count(|counters| counters.synced_records = records);
    }

    fn synced(&self) {
        self.count(|counters| {
            counters.syncs += 1;
            counters.synced_us = self.clock.now().monotonic_us;
        });
    }

    fn count(&self, count: impl FnOnce(&mut JournalCounters)) {
        let mut counters = self.counters.get();
        count(&mut counters);
        self.counters.set(counters);
    }

    fn failed(&self, what: &str, error: &io::Error) -> ! {
        let path = self.directory.path_of(&self.segment.borrow().id.to_string());
        exit::fatal(format_args!("the journal: cannot {what} {}: {error}", path.display()), exit::JOURNAL)
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Writes for as long as the process lives; `deliver` lets answers go, and is told which record is not written yet.
pub async fn run(journal: Rc<Journal>, deliver: impl Fn(&mut Answers, u64)) {
    loop {
        let batch = journal.queue.borrow_mut().take();
        let Some(batch) = batch else {
            journal.work.notified().await;
            continue;
        };
        let bytes = match journal.write(batch).await {
            Ok(bytes) => bytes,
            Err(error) => journal.failed("write", &error),
        };
        let mut answers = journal.queue.borrow_mut().written();
        let next_sequence = journal.queue.borrow().written_sequence();
        deliver(&mut answers, next_sequence);
        journal.queue.borrow_mut().recycle(bytes, answers);
        journal.progress.notify_waiters();
        if journal.size() >= journal.snapshot_size.get() {
            journal.snapshot_due.notify_one();
        }
    }
}

/// Syncs at the interval, if that is the policy, for as long as anything is written: what was written is being synced within an interval, or as
/// soon as the sync before it is done.
pub async fn sync_at_interval(journal: Rc<Journal>) {
    let Sync::Interval(interval) = journal.config.sync else { return };
    let mut due = Instant::now();
    loop {
        if !journal.dirty.get() {
            journal.progress.notified().await;
            due = Instant::now() + interval;
            continue;
        }
        tokio::time::sleep_until(due).await;
        // What is written from here on, during the sync too, is due by then.
        due = Instant::now() + interval;
        if journal.dirty.replace(false) {
            journal.sync().await;
        }
    }
}
