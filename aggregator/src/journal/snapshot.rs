//! Snapshots: what keeps the folder, and the next start, short.
//!
//! When enough journal has gathered, or after a purge, the ledger is written beside the running journal in slices (see
//! `galo_engine::ledger::snapshot`). Killed between any two steps, a start finds a journal that says the same:
//!
//! | step | what a start finds |
//! | --- | --- |
//! | 1. the next record begins a new segment | one segment more |
//! | 2. slices into `….snapshot.unfinished` | that, which it removes |
//! | 3. sync of that file | the same |
//! | 4. rename | the snapshot, and segments that it has superseded, which it removes |
//! | 5. sync of the folder | the same |
//! | 6. older files are removed, in any order | fewer of them |
//!
//! Steps 3 and 5 are taken in every mode, since step 6 throws away what the snapshot replaces. A snapshot that fails is
//! given up with a warning; the journal goes on, and grows until the next attempt.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use galo_engine::ledger::snapshot::Progress;
use galo_engine::recovery::{FileId, UNFINISHED_SUFFIX};
use galo_wire::journal::BLOCK_SIZE;

use super::file::{self, JournalFile};
use super::writer::Journal;
use crate::server::Shared;

/// Records of one slice: about 70 µs of the event loop (`docs/measurements/journal.md`), which is what a grant may wait for it.
const SLICE_LEN: usize = 512;

/// Between two slices: a snapshot takes a thirtieth of the loop's time, and a tenth of a third of a CPU.
const PAUSE: Duration = Duration::from_millis(2);

/// What is known of the snapshots of this process.
#[derive(Clone, Copy, Default, Debug)]
pub struct SnapshotCounters {
    /// Completed.
    pub done: u64,
    /// Given up.
    pub failed: u64,
    /// The last one's bytes.
    pub size: u64,
    /// How long the last one took, µs.
    pub duration_us: u64,
    /// When the last one was completed, µs of the monotonic clock.
    pub done_us: u64,
}

/// Takes snapshots for as long as the process lives.
pub async fn run(shared: Rc<Shared>, journal: Rc<Journal>) {
    loop {
        journal.snapshot_due().await;
        let begin_us = journal.now_us();
        let result = take(&shared, &journal).await;
        let mut counters = journal.snapshots.get();
        match result {
            // A purge came between; it has made the next one due.
            Ok(None) => {}
            Ok(Some(size)) => {
                let done_us = journal.now_us();
                let duration_us = done_us - begin_us;
                tracing::info!("snapshot: {size} bytes in {} ms", duration_us / 1_000);
                counters =
                    SnapshotCounters { done: counters.done + 1, size, duration_us, done_us, ..counters };
            }
            Err(error) => {
                tracing::warn!("no snapshot, the journal grows on: {error}");
                counters.failed += 1;
            }
        }
        journal.snapshots.set(counters);
    }
}

/// Returns the snapshot's size, or nothing if a purge came between.
async fn take(shared: &Shared, journal: &Journal) -> io::Result<Option<u64>> {
    // This moment: what was decided before it is in the snapshot, what is decided after it in the new segment.
    let sequence = shared.with_coordinator(|coordinator| {
        assert!(coordinator.entries().is_empty(), "entries are passed on as soon as they are decided");
        coordinator.ledger_mut().begin_export();
        journal.rotate()
    });
    let id = FileId::snapshot(sequence);
    let unfinished = format!("{id}{UNFINISHED_SUFFIX}");
    let size = match write(shared, journal, id).await {
        Ok(Some(size)) => size,
        other => {
            shared.with_coordinator(|coordinator| coordinator.ledger_mut().abandon_export());
            if let Err(error) = journal.directory.remove(&unfinished) {
                tracing::debug!("{unfinished}: {error}");
            }
            return other;
        }
    };
    journal.rotated(sequence).await;
    let directory = Arc::clone(&journal.directory);
    file::aside(move || std::fs::rename(directory.path_of(&unfinished), directory.path_of(&id.to_string())))
        .await?;
    JournalFile::new(journal.directory.handle()?, journal.driver).sync().await?;
    journal.superseded_until(sequence);
    let directory = Arc::clone(&journal.directory);
    file::aside(move || directory.remove_before(sequence)).await?;
    Ok(Some(size))
}

async fn write(shared: &Shared, journal: &Journal, id: FileId) -> io::Result<Option<u64>> {
    let directory = Arc::clone(&journal.directory);
    let file = file::aside(move || directory.create(id, UNFINISHED_SUFFIX)).await?;
    let file = JournalFile::new(file, journal.driver);
    let mut size = BLOCK_SIZE as u64;
    let mut bytes = Vec::with_capacity((SLICE_LEN + 1) * BLOCK_SIZE);
    loop {
        bytes.clear();
        let progress =
            shared.with_coordinator(|coordinator| coordinator.ledger_mut().export(SLICE_LEN, &mut bytes));
        let (result, returned) = file.write_all_at(bytes, size).await;
        result?;
        bytes = returned;
        size += bytes.len() as u64;
        match progress {
            Progress::More => tokio::time::sleep(PAUSE).await,
            Progress::Done => break,
            Progress::Gone => return Ok(None),
        }
    }
    file.sync().await?;
    Ok(Some(size))
}
