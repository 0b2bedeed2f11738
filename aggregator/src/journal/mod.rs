//! The journal: what the ledger decides is on disk before anybody hears of it.
//!
//! [`directory`] opens the folder and reads what is there; [`queue`] holds back the answers until their entries are written;
//! [`writer`] writes them, one batch after the other; [`snapshot`] keeps the folder small; [`scrub`] reads what rests there; [`medium`] is
//! the disk behind the page cache. What the bytes mean is decided in `galo_engine::recovery`, how they look in `galo_wire::journal`.
//!
//! Must never: let an answer out before the entries that it rests on; go on after a write that failed; believe a
//! damaged file. Survives the death of this process at any instruction, and in the modes that sync, the loss of power.

pub mod directory;
pub mod file;
pub mod medium;
pub mod queue;
pub mod scrub;
pub mod snapshot;
pub mod writer;

use std::path::PathBuf;
use std::time::Duration;

/// When what was written is also synced to the disk's medium. The page cache alone survives every process's death.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// No journal at all: for measuring what it costs.
    Memory,
    /// When the kernel likes, about every 30 s.
    Never,
    /// That often.
    Interval(Duration),
    /// Before any answer.
    Always,
}

impl Sync {
    /// Reads `memory`, `never`, `interval:MS` or `always`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("interval:").map(str::parse)) {
            ("memory", _) => Ok(Self::Memory),
            ("never", _) => Ok(Self::Never),
            ("always", _) => Ok(Self::Always),
            (_, Some(Ok(ms @ 1..=60_000))) => Ok(Self::Interval(Duration::from_millis(ms))),
            _ => Err("never, interval:MS (1 to 60000), always, or memory".to_owned()),
        }
    }

    /// Whether anything is promised for the loss of power.
    #[must_use]
    pub fn survives_power_loss(self) -> bool {
        match self {
            Self::Memory | Self::Never => false,
            Self::Interval(_) | Self::Always => true,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Never => "never",
            Self::Interval(_) => "interval",
            Self::Always => "always",
        }
    }
}

/// See the table in README.md.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// `JOURNAL_DIR`.
    pub directory: PathBuf,
    /// `JOURNAL_SYNC`.
    pub sync: Sync,
    /// `SEGMENT_BYTES`: a segment that has grown beyond is followed by the next.
    pub segment_bytes: u64,
    /// `SNAPSHOT_EVERY_BYTES`: that much journal after a snapshot makes the next one due, and not less than that snapshot has.
    pub snapshot_every_bytes: u64,
    /// `SCRUB_EVERY_S`: that often files at rest are looked at; `None`: never.
    pub scrub_every: Option<Duration>,
}
