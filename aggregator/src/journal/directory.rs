//! The journal's folder: locked, read, tidied, and made ready for the next record.
//!
//! | name | what |
//! | --- | --- |
//! | `lock` | held by the one process that may write here |
//! | `00000000000000000001.journal` | a segment, named by its first record |
//! | `00000000000000000001.snapshot` | the ledger before that record |
//! | `….snapshot.unfinished` | a snapshot being written; nothing yet |
//! | `….snapshot.damaged` | one that could not be read; goes when the files of its time go |
//!
//! Every start begins a new segment, so a file that was read is never written again, but for cutting its torn end. Where the policy
//! promises anything for the loss of power, what is read comes from the [medium], so that everything that rests on it does.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use galo_engine::ledger::LedgerConfig;
use galo_engine::recovery::{
    DAMAGED_SUFFIX, Damage, Ending, FileId, Generation, Plan, Recovered, Recovery, UNFINISHED_SUFFIX,
};
use galo_shell::exit;
use galo_wire::journal::{BLOCK_SIZE, FileKind, Header};

use super::{JournalConfig, medium};

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
    /// Neither it nor the generation before it.
    #[error("{newest}; and what came before it does not help: {older}")]
    NoGeneration {
        /// Why not the newest snapshot.
        newest: Box<OpenError>,
        /// Why not the last one that was tried.
        older: Box<OpenError>,
    },
}

impl OpenError {
    /// Whether the bytes are to blame, not the system's mood.
    fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => medium::is_damage(source),
            Self::Damaged { .. } => true,
            Self::InUse { .. } | Self::NoGeneration { .. } => false,
        }
    }

    /// The process's exit status.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::InUse { .. } => exit::ENVIRONMENT,
            Self::Io { .. } | Self::Damaged { .. } | Self::NoGeneration { .. } => exit::JOURNAL,
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
    /// The snapshot's bytes; 0 without one.
    pub snapshot_size: u64,
    /// Snapshots that could not be read, so that an older one was.
    pub damaged: u64,
    /// How long reading took, µs.
    pub replay_us: u64,
}

/// Locks the folder, which is created if need be, and reads it.
///
/// # Errors
/// See [`OpenError`].
pub fn open(config: &JournalConfig, ledger: LedgerConfig, incarnation: u64) -> Result<Opened, OpenError> {
    let path = &config.directory;
    let failed = |what, name: &str| failed(path, what, name);
    let durable = config.sync.survives_power_loss();
    create(path, durable)?;
    let lock = options().open(path.join("lock")).map_err(failed("create", "lock"))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::InUse { directory: path.clone() },
        TryLockError::Error(source) => failed("lock", "lock")(source),
    })?;
    let handle = File::open(path).map_err(failed("open", "the folder"))?;
    let known_len_max = ledger.known_len_max as u64;
    let directory = Directory { path: path.clone(), incarnation, known_len_max, handle, _lock: lock };

    let names = directory.names().map_err(failed("list", "the folder"))?;
    let plan = Plan::new(names.iter().map(String::as_str))
        .map_err(|damage| OpenError::Damaged { directory: path.clone(), damage })?;
    let (place, recovered, damages) = directory.read_newest(&plan, ledger, durable)?;
    let generation = &plan.generations()[place];
    damages.iter().for_each(|damage| tracing::error!("{damage}. It is left out"));
    for damaged in plan.generations()[..place].iter().filter_map(|newer| newer.snapshot) {
        directory.set_aside(damaged).map_err(failed("rename", &damaged.to_string()))?;
    }
    if place > 0 {
        tracing::error!(
            "nothing is lost, and one generation less is there: the ledger was made of {} instead, with all that came after it; \
             a new snapshot is written at once. Look after the disk",
            generation.files().next().map_or_else(String::new, |first| first.to_string())
        );
    }
    // Nothing depends on these; they are what a switch-over that was cut short left.
    let unfinished = names.into_iter().filter(|name| name.ends_with(UNFINISHED_SUFFIX));
    let superseded = plan.superseded(place);
    if !superseded.is_empty() {
        directory.sync().map_err(failed("sync", "the folder"))?;
    }
    for name in superseded.iter().map(FileId::to_string).chain(unfinished) {
        directory.remove(&name).map_err(failed("remove", &name))?;
    }
    let snapshot_size = match generation.snapshot.map(|snapshot| snapshot.to_string()) {
        Some(name) => directory.path_of(&name).metadata().map_err(failed("look at", &name))?.len(),
        None => 0,
    };
    let id = FileId::segment(recovered.next_sequence);
    let segment = directory.create(id, "").map_err(failed("create", &id.to_string()))?;
    if durable {
        // The new segment's name, since its first records may be answered by a sync of its own bytes alone; and what was not read, but would
        // be for want of a better.
        directory.sync_all().map_err(failed("sync", "what is in the folder"))?;
    }
    Ok(Opened {
        first_sequence: generation.first_sequence(),
        damaged: place as u64,
        directory,
        recovered,
        segment,
        snapshot_size,
        replay_us: 0,
    })
}

/// Makes the folder, and those above it. For a policy that promises anything, their names survive the loss of power: also those that a process
/// made which was killed before it had synced them.
fn create(path: &Path, durable: bool) -> Result<(), OpenError> {
    let first = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new(".")).to_owned();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(
        path,
        "create",
        "the folder",
    ))?;
    if durable {
        medium::sync_way_to(path, &first)
            .map_err(|(above, source)| failed(path, "sync", &above.display().to_string())(source))?;
    }
    Ok(())
}

fn failed(directory: &Path, what: &'static str, name: &str) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let (directory, name) = (directory.to_owned(), name.to_owned());
    move |source| OpenError::Io { directory, what, name, source }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Amounts and ids of payments are nobody else's business.
    options.write(true).create(true).mode(0o600);
    options
}

impl Directory {
    /// Reads the newest generation whose snapshot can be read. Its place in the plan goes first; why not those before it goes last.
    fn read_newest(
        &self,
        plan: &Plan,
        ledger: LedgerConfig,
        durable: bool,
    ) -> Result<(usize, Recovered, Vec<OpenError>), OpenError> {
        let mut damages = Vec::new();
        let generations = plan.generations();
        for (place, generation) in generations.iter().enumerate() {
            match self.read(generation, ledger, durable) {
                Ok(recovered) => return Ok((place, recovered, damages)),
                // What is wrong with a segment is so in every generation.
                Err((FileKind::Snapshot, error)) if error.is_damage() && place + 1 < generations.len() => {
                    damages.push(error);
                }
                Err((_, older)) => {
                    let older = Box::new(older);
                    return Err(match damages.into_iter().next() {
                        Some(newest) => OpenError::NoGeneration { newest: Box::new(newest), older },
                        None => *older,
                    });
                }
            }
        }
        unreachable!("the last one is read or refused")
    }

    /// An error comes with the kind of the file that was being read.
    fn read(
        &self,
        generation: &Generation,
        ledger: LedgerConfig,
        durable: bool,
    ) -> Result<Recovered, (FileKind, OpenError)> {
        let mut recovery = Recovery::new(ledger);
        let mut bytes = vec![0; READ_SIZE];
        for id in generation.files() {
            self.read_file(id, &mut recovery, &mut bytes, durable).map_err(|error| (id.kind, error))?;
        }
        Ok(recovery.finish())
    }

    fn read_file(
        &self,
        id: FileId,
        recovery: &mut Recovery,
        bytes: &mut [u8],
        durable: bool,
    ) -> Result<(), OpenError> {
        let name = id.to_string();
        let failed = |what| failed(&self.path, what, &name);
        let damaged = |damage| OpenError::Damaged { directory: self.path.clone(), damage };
        recovery.begin(id).map_err(damaged)?;
        let path = self.path_of(&name);
        let mut file = if durable {
            medium::open(&path).map_err(failed("sync"))?
        } else {
            File::open(&path).map_err(failed("open"))?
        };
        loop {
            let count = file.read(bytes).map_err(failed("read"))?;
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
                let file = OpenOptions::new().write(true).open(&path);
                file.and_then(|file| {
                    file.set_len(size)?;
                    file.sync_all()
                })
                .map_err(failed("cut"))?;
            }
            // It stays, so that the snapshot that rests on its name can be read however often starts end here, or are refused for what follows: the next
            // record is written into it.
            Ending::Unborn => tracing::warn!("{name}: it was not begun, and is begun anew"),
        }
        Ok(())
    }

    /// Gives a damaged snapshot a name that is not read any more.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_aside(&self, damaged: FileId) -> io::Result<()> {
        let (from, to) = (damaged.to_string(), format!("{damaged}{DAMAGED_SUFFIX}"));
        std::fs::rename(self.path_of(&from), self.path_of(&to))
    }

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

    /// What the names say.
    ///
    /// # Errors
    /// What the system said, or what is missing.
    pub fn plan(&self) -> io::Result<Plan> {
        let names = self.names()?;
        Plan::new(names.iter().map(String::as_str)).map_err(io::Error::other)
    }

    /// Removes what a snapshot that was just written has made superfluous: all from before the generation behind it.
    ///
    /// # Errors
    /// What the system said.
    pub fn remove_superseded(&self) -> io::Result<()> {
        let plan = self.plan()?;
        plan.superseded(0).iter().try_for_each(|file| self.remove(&file.to_string()))?;
        let kept = plan.generations().get(1).map_or(1, Generation::first_sequence);
        let names = self.names()?;
        let damaged = names.iter().filter(|name| {
            let file = name.strip_suffix(DAMAGED_SUFFIX).and_then(FileId::parse);
            file.is_some_and(|file| file.sequence < kept)
        });
        damaged.into_iter().try_for_each(|name| self.remove(name))
    }

    /// Has everything in it survive the loss of power, whoever wrote it. Waits for the disk.
    ///
    /// # Errors
    /// What the disk said.
    pub fn sync_all(&self) -> io::Result<()> {
        for name in self.names()?.iter().filter(|name| FileId::parse(name).is_some()) {
            match File::open(self.path_of(name)) {
                Ok(file) => file.sync_data()?,
                // Superseded meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.handle.sync_all()
    }

    /// Removes a file.
    ///
    /// # Errors
    /// What the system said.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path_of(name))
    }
}
