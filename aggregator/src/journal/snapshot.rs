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
//! | 4. rename | the snapshot, and files from before the one before it, which it removes |
//! | 5. sync of the folder | the same |
//! | 6. those are removed, in any order | fewer of them |
//!
//! Steps 3 and 5 are taken in every mode, since step 6 throws away what the snapshots replace. The one before stays with its segments: should
//! this one not be readable one day, that one is.
//!
//! A snapshot that fails is given up with a warning, and what was written of it removed; the journal goes on, and grows until
//! the next attempt, after as much journal again. One that could fill the disk is not begun: the journal needs the room more.
//!
//! A snapshot keeps pace with the journal: at the usual rates it pauses between slices, and where the journal grows faster than
//! that it pauses no more and its slices grow, so that what a start has to replay stays bounded ([`BYTES_PER_RECORD`]).

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

/// Rows of one slice: about 30 µs of the event loop (`docs/measurements/journal.md`), which is what a grant may wait for it.
const SLICE_LEN: usize = 1_024;

/// Rows of the longest one, about 250 µs: while the journal outruns the snapshot, thousands of payments are answered between two slices, and
/// none of them waits for more than one. With short slices alone a snapshot of a million payments would let as many more by.
const SLICE_LEN_MAX: usize = 8 * SLICE_LEN;

/// Bytes of a row, about: ids take 32, milliseconds 16, and of a million payments there are as many of both.
const ROW_SIZE: u64 = 24;

/// Between two slices: a snapshot takes a sixtieth of the loop's time.
const PAUSE: Duration = Duration::from_millis(2);

/// Bytes of the snapshot that are written for each record that the journal grows by meanwhile, at least. Until it is synced, it bounds the
/// journal to what makes a snapshot due and a tenth of the snapshot's size: with a million payments 131,000 and 82,000 records.
/// So many bytes, 16 ids or 32 milliseconds, are 0.5 µs.
const BYTES_PER_RECORD: u64 = 512;

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
                tracing::warn!(
                    "no snapshot: {error}. Nothing is lost: the journal grows on, and the next attempt comes after {} more bytes",
                    journal.snapshot_every_bytes()
                );
                counters.failed += 1;
            }
        }
        journal.snapshots.set(counters);
    }
}

/// Refuses to begin a snapshot that would leave the journal less room than it may need until it is done.
fn check_room(free_size: u64, size_max: u64, journal_size: u64) -> io::Result<()> {
    let needed_size = size_max.saturating_add(journal_size);
    if free_size >= needed_size {
        return Ok(());
    }
    let reason = format!(
        "{free_size} bytes are free on its disk, and it may take {size_max} and the journal {journal_size}"
    );
    Err(io::Error::new(io::ErrorKind::StorageFull, reason))
}

/// Returns the snapshot's size, or nothing if a purge came between.
async fn take(shared: &Shared, journal: &Journal) -> io::Result<Option<u64>> {
    let size_max = shared.look(|coordinator| coordinator.ledger().export_size_max());
    check_room(journal.directory.free_size()?, size_max, journal.snapshot_every_bytes())?;
    // This moment: what was decided before it is in the snapshot, what is decided after it in the new segment.
    let sequence = shared.with_coordinator(|coordinator| {
        assert!(coordinator.entries().is_empty(), "entries are passed on as soon as they are decided");
        coordinator.ledger_mut().begin_export();
        journal.rotate()
    });
    let id = FileId::snapshot(sequence);
    let unfinished = format!("{id}{UNFINISHED_SUFFIX}");
    let written = match write(shared, journal, id).await {
        Ok(Some(size)) => {
            journal.rotated(sequence).await;
            let directory = Arc::clone(&journal.directory);
            let (from, to) = (directory.path_of(&unfinished), directory.path_of(&id.to_string()));
            file::aside(move || std::fs::rename(from, to)).await.map(|()| Some(size))
        }
        other => other,
    };
    let size = match written {
        Ok(Some(size)) => size,
        other => {
            shared.with_coordinator(|coordinator| coordinator.ledger_mut().abandon_export());
            let directory = Arc::clone(&journal.directory);
            // It takes room that the journal may need now.
            if let Err(error) = file::aside(move || directory.remove(&unfinished)).await {
                tracing::warn!("{id}{UNFINISHED_SUFFIX}: cannot remove it: {error}");
            }
            return other;
        }
    };
    let directory = Arc::clone(&journal.directory);
    file::aside(move || directory.sync()).await?;
    journal.superseded_until(sequence, size);
    let directory = Arc::clone(&journal.directory);
    file::aside(move || directory.remove_superseded()).await?;
    Ok(Some(size))
}

/// The next slice, so long that it makes up for what is missing of the pace.
fn slice_len(size: u64, due_size: u64) -> usize {
    let missing = due_size.saturating_sub(size) / ROW_SIZE;
    usize::try_from(missing).unwrap_or(SLICE_LEN_MAX).clamp(SLICE_LEN, SLICE_LEN_MAX)
}

async fn write(shared: &Shared, journal: &Journal, id: FileId) -> io::Result<Option<u64>> {
    let directory = Arc::clone(&journal.directory);
    let file = file::aside(move || directory.create(id, UNFINISHED_SUFFIX)).await?;
    let file = JournalFile::new(file, journal.driver);
    let mut size = BLOCK_SIZE as u64;
    let mut bytes = Vec::with_capacity((SLICE_LEN + 2) * BLOCK_SIZE);
    loop {
        bytes.clear();
        let rows = slice_len(size, BYTES_PER_RECORD * journal.written_since(id.sequence));
        let progress =
            shared.with_coordinator(|coordinator| coordinator.ledger_mut().export(rows, &mut bytes));
        let (result, returned) = file.write_all_at(bytes, size).await;
        result?;
        bytes = returned;
        size += bytes.len() as u64;
        match progress {
            Progress::More if size >= BYTES_PER_RECORD * journal.written_since(id.sequence) => {
                tokio::time::sleep(PAUSE).await;
            }
            Progress::More => tokio::task::yield_now().await,
            Progress::Done => break,
            Progress::Gone => return Ok(None),
        }
    }
    file.sync().await?;
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_makes_up_for_what_is_missing_and_has_a_bound() {
        assert_eq!(slice_len(0, 0), SLICE_LEN);
        assert_eq!(slice_len(1_000_000, 10), SLICE_LEN);
        assert_eq!(slice_len(10, 10 + 2_000 * ROW_SIZE), 2_000);
        assert_eq!(slice_len(10, u64::MAX), SLICE_LEN_MAX);
    }

    #[test]
    fn a_snapshot_that_could_fill_the_disk_is_not_begun() {
        assert!(check_room(148, 100, 48).is_ok());
        let error = check_room(147, 100, 48).expect_err("one byte too few");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(check_room(u64::MAX - 1, u64::MAX, 48).is_err());
    }
}
