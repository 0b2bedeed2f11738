//! The journal's folder: locked, read, tidied, and made ready for the next record.
//!
//! | name | what |
//! | --- | --- |
//! | `lock` | held by the one process that may write here |
//! | `00000000000000000001.journal` | a segment, named by its first record |
//! | `00000000000000000001.snapshot` | the ledger before that record |
//! | `….snapshot.unfinished` | a snapshot being written; nothing yet |
//!
//! Every start begins a new segment, so a file that was read is never written again, but for cutting its torn end.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use galo_engine::ledger::LedgerConfig;
use galo_engine::recovery::{Damage, Ending, FileId, Plan, Recovered, Recovery, UNFINISHED_SUFFIX};
use galo_shell::exit;
use galo_wire::journal::{BLOCK_SIZE, Header};

use super::{JournalConfig, Sync};

/// Read in one go: several of a snapshot's pages, few enough calls, and few enough bytes to be in the second cache when they are looked at.
const READ_SIZE: usize = 4_096 * BLOCK_SIZE;

/// Why there is no journal to write to: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two would mix their records.
    #[error(
        "JOURNAL_DIR={directory:?} is in use by another aggregator; stop it or set JOURNAL_DIR to another folder"
    )]
    InUse {
        /// Where.
        directory: PathBuf,
    },
    /// The system said no.
    #[error("JOURNAL_DIR={directory:?}: cannot {what} {name}: {source}")]
    Io {
        /// Where.
        directory: PathBuf,
        /// What was tried.
        what: &'static str,
        /// With which file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be believed.
    #[error("JOURNAL_DIR={directory:?}: {damage}")]
    Damaged {
        /// Where.
        directory: PathBuf,
        /// Why.
        damage: Damage,
    },
}

impl OpenError {
    /// The process's exit status.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::InUse { .. } => exit::ENVIRONMENT,
            Self::Io { .. } | Self::Damaged { .. } => exit::JOURNAL,
        }
    }
}

/// The folder, ours for as long as this lives.
pub struct Directory {
    path: PathBuf,
    /// What every file of this process says in its header.
    incarnation: u64,
    known_len_max: u64,
    handle: File,
    _lock: File,
}

/// A journal that was read and can be written.
pub struct Opened {
    /// Where.
    pub directory: Directory,
    /// What it says.
    pub recovered: Recovered,
    /// A new segment, its header written, for the next record.
    pub segment: File,
    /// The first record that was read from a segment: those before are in the snapshot.
    pub first_sequence: u64,
    /// How long reading took, µs.
    pub replay_us: u64,
}

/// Locks the folder, which is created if need be, and reads it.
///
/// # Errors
/// See [`OpenError`].
pub fn open(config: &JournalConfig, ledger: LedgerConfig, incarnation: u64) -> Result<Opened, OpenError> {
    let path = &config.directory;
    let failed = |what, name: &str| {
        let (directory, name) = (path.clone(), name.to_owned());
        move |source| OpenError::Io { directory, what, name, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", "the folder"))?;
    let lock = options().open(path.join("lock")).map_err(failed("create", "lock"))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::InUse { directory: path.clone() },
        TryLockError::Error(source) => failed("lock", "lock")(source),
    })?;
    let handle = File::open(path).map_err(failed("open", "the folder"))?;
    let known_len_max = ledger.known_len_max as u64;
    let directory = Directory { path: path.clone(), incarnation, known_len_max, handle, _lock: lock };

    let damaged = |damage| OpenError::Damaged { directory: path.clone(), damage };
    let names = directory.names().map_err(failed("list", "the folder"))?;
    let plan = Plan::new(names.iter().map(String::as_str)).map_err(damaged)?;
    let mut recovery = Recovery::new(ledger);
    let first_sequence = plan.snapshot.map_or(1, |snapshot| snapshot.sequence);
    let mut bytes = vec![0; READ_SIZE];
    for id in plan.snapshot.into_iter().chain(plan.segments) {
        let name = id.to_string();
        recovery.begin(id).map_err(damaged)?;
        let mut file = File::open(path.join(&name)).map_err(failed("open", &name))?;
        loop {
            let count = file.read(&mut bytes).map_err(failed("read", &name))?;
            if count == 0 {
                break;
            }
            recovery.feed(&bytes[..count]).map_err(damaged)?;
        }
        match recovery.end().map_err(damaged)? {
            Ending::Whole => {}
            Ending::Torn { size, torn_size } => {
                tracing::warn!(
                    "{name}: a write was cut short: {torn_size} bytes that were never answered are dropped"
                );
                let file = OpenOptions::new().write(true).open(path.join(&name));
                file.and_then(|file| {
                    file.set_len(size)?;
                    file.sync_all()
                })
                .map_err(failed("cut", &name))?;
            }
            Ending::Unborn => {
                tracing::warn!("{name}: it was not begun; removed");
                directory.remove(&name).map_err(failed("remove", &name))?;
            }
        }
    }
    // Nothing depends on these; they are what a switch-over that was cut short left.
    let unfinished = names.into_iter().filter(|name| name.ends_with(UNFINISHED_SUFFIX));
    for name in plan.superseded.iter().map(FileId::to_string).chain(unfinished) {
        directory.remove(&name).map_err(failed("remove", &name))?;
    }
    let recovered = recovery.finish();
    let id = FileId::segment(recovered.next_sequence);
    let segment = directory.create(id, "").map_err(failed("create", &id.to_string()))?;
    if !matches!(config.sync, Sync::Never | Sync::Memory) {
        directory.handle.sync_all().map_err(failed("sync", "the folder"))?;
    }
    Ok(Opened { directory, recovered, segment, first_sequence, replay_us: 0 })
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Amounts and ids of payments are nobody else's business.
    options.write(true).create(true).mode(0o600);
    options
}

impl Directory {
    /// Where a file is.
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the names of what was created, renamed and removed survive the loss of power. Waits for the disk.
    ///
    /// # Errors
    /// What the disk said.
    pub fn sync(&self) -> io::Result<()> {
        self.handle.sync_data()
    }

    /// A descriptor that can be given up for one that is needed more; `None` if there is none left.
    #[must_use]
    pub fn spare(&self) -> Option<File> {
        self.handle.try_clone().ok()
    }

    /// Bytes that are free for us on its file system.
    ///
    /// # Errors
    /// What the system said.
    pub fn free_size(&self) -> io::Result<u64> {
        let room = nix::sys::statvfs::fstatvfs(&self.handle)?;
        Ok(room.blocks_available().saturating_mul(room.fragment_size()))
    }

    /// Creates a file with its header. One of that name is replaced: it has no record, or the next one would have another name.
    ///
    /// # Errors
    /// What the system said.
    pub fn create(&self, id: FileId, suffix: &str) -> io::Result<File> {
        let mut file = options().truncate(true).open(self.path_of(&format!("{id}{suffix}")))?;
        let header = Header {
            kind: id.kind,
            reserved: 0,
            first_sequence: id.sequence,
            incarnation: self.incarnation,
            known_len_max: self.known_len_max,
        };
        file.write_all(&header.encode())?;
        Ok(file)
    }

    /// The names of everything in it.
    ///
    /// # Errors
    /// What the system said.
    pub fn names(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    /// Removes what the snapshot before `sequence` has made superfluous.
    ///
    /// # Errors
    /// What the system said.
    pub fn remove_before(&self, sequence: u64) -> io::Result<()> {
        let older = |name: &String| FileId::parse(name).is_some_and(|file| file.sequence < sequence);
        let names = self.names()?;
        names.iter().filter(|name| older(name)).try_for_each(|name| self.remove(name))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// What the system said.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path_of(name))
    }
}
