//! Reads what rests in the folder now and then, so that damage is found while the ledger is in memory and can be written anew.
//!
//! Every `SCRUB_EVERY_S` each snapshot, and each segment that nobody writes any more, is read from the medium in slices, beside the event
//! loop, and its checksums are compared (`galo_engine::recovery::scrub`). A file that is not what was written is said loudly and counted, and a
//! snapshot is taken at once: it needs nothing of what is on the disk. A damaged snapshot is renamed, unless it is all that there is: a
//! start then does not come to it, and what it is followed by is kept until two snapshots are whole again.
//!
//! Must never: take a bad day of the system (no descriptors, no rights) for damage; keep the event loop from anything.

use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use galo_engine::recovery::FileId;
use galo_engine::recovery::scrub::Scrub;
use galo_wire::journal::FileKind;

use super::directory::Directory;
use super::writer::Journal;
use super::{file, medium};

/// Some 20 µs of a processor.
const SLICE_SIZE: usize = 1 << 16;

/// Between two slices: 12 MB/s, a two-hundredth of a processor.
const PAUSE: Duration = Duration::from_millis(5);

/// What is known of this process's scrubs.
#[derive(Clone, Copy, Default, Debug)]
pub struct ScrubCounters {
    /// Those that came to their end.
    pub done: u64,
    /// When the last one that found nothing was done, µs of the monotonic clock.
    pub sound_us: Option<u64>,
    /// Damaged files found, by the start too.
    pub damaged: u64,
}

/// Scrubs for as long as the process lives.
pub async fn run(journal: Rc<Journal>) {
    let Some(every) = journal.config.scrub_every else { return };
    loop {
        tokio::time::sleep(every).await;
        match scrub(&journal).await {
            Ok((files, damaged)) => {
                let mut counters = journal.scrubs.get();
                counters.done += 1;
                if damaged.is_empty() {
                    counters.sound_us = Some(journal.now_us());
                    tracing::info!("scrub: {files} files are as they were written");
                }
                counters.damaged += damaged.len() as u64;
                journal.scrubs.set(counters);
                if !damaged.is_empty() {
                    mend(&journal, damaged).await;
                }
            }
            Err(error) => tracing::warn!("scrub: {error}; the next one comes in {} s", every.as_secs()),
        }
    }
}

/// Returns how many files were looked at, and which of them are damaged.
async fn scrub(journal: &Journal) -> io::Result<(usize, Vec<FileId>)> {
    let directory = Arc::clone(&journal.directory);
    let names = file::aside(move || directory.names()).await?;
    let current = journal.segment_id();
    let mut files: Vec<_> = names.iter().filter_map(|name| FileId::parse(name)).collect();
    files.sort_unstable();
    let (mut damaged, mut count) = (Vec::new(), 0);
    for (place, &id) in files.iter().enumerate() {
        if id.kind == FileKind::Segment && id.sequence >= current.sequence {
            continue;
        }
        let next = files.get(place + 1).filter(|next| next.kind == FileKind::Segment);
        let end = next.map_or(current.sequence, |next| next.sequence);
        match look_at(&journal.directory, id, end).await {
            Ok(None) => count += 1,
            Ok(Some(flaw)) => {
                tracing::error!(
                    "{}: {flaw}. Nothing is lost: the ledger is in memory, and a new snapshot is written at once. Look after the disk",
                    journal.directory.path_of(&id.to_string()).display()
                );
                damaged.push(id);
                count += 1;
            }
            // A snapshot has taken over from it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{id}: {error}"))),
        }
    }
    Ok((count, damaged))
}

/// Says what is wrong with a file, if anything is.
async fn look_at(directory: &Arc<Directory>, id: FileId, end: u64) -> io::Result<Option<String>> {
    let path = directory.path_of(&id.to_string());
    let mut looked = match file::aside(move || medium::open(&path)).await {
        Ok(file) => Looked { file, bytes: vec![0; SLICE_SIZE], scrub: Scrub::new(id) },
        Err(error) if medium::is_damage(&error) => return Ok(Some(error.to_string())),
        Err(error) => return Err(error),
    };
    loop {
        let (result, returned) = file::aside(move || Ok(looked.slice())).await?;
        looked = returned;
        match result {
            Ok(None) => tokio::time::sleep(PAUSE).await,
            Ok(Some(flaw)) => return Ok(Some(flaw)),
            Err(error) if medium::is_damage(&error) => return Ok(Some(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(looked.scrub.end(end).err().map(|flaw| flaw.to_string()))
}

struct Looked {
    file: File,
    bytes: Vec<u8>,
    scrub: Scrub,
}

impl Looked {
    /// The next slice: what is wrong with it; at the file's end `UnexpectedEof`.
    fn slice(mut self) -> (io::Result<Option<String>>, Self) {
        let result = match self.file.read(&mut self.bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(self.scrub.feed(&self.bytes[..count]).err().map(|flaw| flaw.to_string())),
            Err(error) => Err(error),
        };
        (result, self)
    }
}

/// Has the ledger written anew, and nothing rest on damaged snapshots meanwhile.
async fn mend(journal: &Journal, damaged: Vec<FileId>) {
    let directory = Arc::clone(&journal.directory);
    let first_sequence = file::aside(move || {
        for id in damaged.into_iter().filter(|id| id.kind == FileKind::Snapshot) {
            let plan = directory.plan()?;
            let helps = plan.generations().iter().any(|other| other.snapshot != Some(id));
            if helps && plan.generations().iter().any(|it| it.snapshot == Some(id)) {
                directory.set_aside(id)?;
            }
        }
        directory.sync()?;
        Ok(directory.plan()?.generations()[0].first_sequence())
    })
    .await;
    match first_sequence {
        Ok(sequence) => journal.starts_from(sequence),
        Err(error) => tracing::warn!("a damaged snapshot keeps its name: {error}"),
    }
    journal.snapshot_now();
}
