//! The admission table's file at start: taken over from the aggregator before, made, or refused.
//!
//! The journal's folder says which table goes with it, of which boot, and where it is.
//!
//! | what is there | then |
//! | --- | --- |
//! | nothing, or nothing that was ever finished | a new table |
//! | the one that goes with this journal | taken over, whatever gateways did meanwhile; after a boot, damaged grants are left out and said |
//! | one that goes with another journal, or with a later state of this one, and holds no grants | a new one |
//! | likewise, and holds grants | refused: they are payments that somebody was promised |
//! | nothing, although this boot had one | refused: gateways may have it open |
//! | one that is damaged, another build's, or another aggregator's | refused |
//!
//! With a policy that survives the loss of power there is none: a grant would promise less than the journal. A start that uses none, though there was one, is
//! refused while that holds grants.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use galo_admission::{Geometry, Identity, RINGS_LEN_MAX, Refused, Registrar, Table};
use galo_engine::recovery::Recovered;
use galo_shell::admission::{self, Mapping};

/// In the journal's folder.
const NAME_FILE: &str = "admission-table";

/// The byte of the file that the aggregator has locked, behind those of the rings.
const AGGREGATOR_BYTE: usize = RINGS_LEN_MAX;

/// A table that this aggregator goes on with.
pub struct Opened {
    is_of_this_boot: bool,
    /// Its side of it.
    pub registrar: Registrar,
    /// The next record's number in the journal that it goes with.
    pub journal_sequence: u64,
    file: File,
}

/// Why the aggregator does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel's.
    #[error("ADMISSION_TABLE={}: cannot {what} it: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Did not work.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is no table of ours.
    #[error(
        "ADMISSION_TABLE={}: {refused}. Payments that gateways accepted a moment before the aggregator ended may be in it and nowhere else; \
         if there are none, or they are lost, remove the file", path.display()
    )]
    Refused {
        /// Where.
        path: PathBuf,
        /// Why.
        refused: Refused,
    },
    /// It belongs to other books.
    #[error(
        "ADMISSION_TABLE={}: it holds {grants} accepted payments for another journal than JOURNAL_DIR={}: start with that one, or, if they are not \
         to be processed, remove the file", path.display(), journal.display()
    )]
    Foreign {
        /// Where.
        path: PathBuf,
        /// Payments.
        grants: u64,
        /// This one's.
        journal: PathBuf,
    },
    /// Somebody else is its aggregator.
    #[error("ADMISSION_TABLE={} is in use by another aggregator; stop it or use another file", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// It was there.
    #[error(
        "ADMISSION_TABLE={} is gone, and gateways may go on accepting payments in it: stop them, then remove {}", path.display(), name.display()
    )]
    Missing {
        /// Where it was.
        path: PathBuf,
        /// What says so.
        name: PathBuf,
    },
    /// This start has no use for it.
    #[error(
        "{}, the admission table of JOURNAL_DIR={}, holds {grants} accepted payments: start with ADMISSION_TABLE={0} and JOURNAL_SYNC=never, and stop the \
         gateways before the aggregator", path.display(), journal.display()
    )]
    LeftOver {
        /// Where.
        path: PathBuf,
        /// Payments.
        grants: u64,
        /// Whose.
        journal: PathBuf,
    },
}

/// What the journal's folder says of its table: `region boot path`.
struct Named {
    region: u64,
    boot: u128,
    path: PathBuf,
}

impl Named {
    fn read(journal: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(journal.join(NAME_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let read = || {
            let mut words = text.trim_end().splitn(3, ' ');
            let region = u64::from_str_radix(words.next()?, 16).ok()?;
            let boot = u128::from_str_radix(words.next()?, 16).ok()?;
            Some(Self { region, boot, path: words.next()?.into() })
        };
        Ok(read())
    }

    /// As a whole or not at all.
    fn write(&self, journal: &Path) -> io::Result<()> {
        let beside = journal.join(format!("{NAME_FILE}.new"));
        fs::write(&beside, format!("{:016x} {:032x} {}\n", self.region, self.boot, self.path.display()))?;
        fs::rename(beside, journal.join(NAME_FILE))
    }
}

/// Opens the table, or makes one.
///
/// # Errors
/// What keeps the aggregator from starting.
pub fn open(
    path: &Path,
    journal: &Path,
    ids_len_max: usize,
    recovered: &Recovered,
) -> Result<Opened, OpenError> {
    let failed = |what| move |source| OpenError::Io { path: path.to_owned(), what, source };
    let boot = admission::boot().map_err(failed("tell this boot from others for"))?;
    let named = Named::read(journal).map_err(failed("find out whose it is:"))?;
    let journal_sequence = recovered.next_sequence;
    if let Some((mut registrar, file)) = find(path)? {
        let region = registrar.table().identity().region;
        let goes_with = named.as_ref().is_some_and(|it| it.region == region)
            && registrar.written_sequence() <= journal_sequence;
        if goes_with {
            let is_of_this_boot = named.is_some_and(|it| it.boot == boot);
            if !is_of_this_boot {
                // No gateway of before has it open.
                let damaged: u64 = (0..RINGS_LEN_MAX)
                    .map(|ring| {
                        registrar.close(ring);
                        registrar.discard_damaged(ring)
                    })
                    .sum();
                if damaged > 0 {
                    tracing::error!(
                        "ADMISSION_TABLE={}: {damaged} payments that were accepted before the machine went down are lost; JOURNAL_SYNC=always or interval:MS \
                         covers that",
                        path.display()
                    );
                }
            }
            let named = Named { region, boot, path: path.to_owned() };
            named.write(journal).map_err(failed("say in JOURNAL_DIR which it is:"))?;
            return Ok(Opened { registrar, journal_sequence, is_of_this_boot, file });
        }
        let grants = untaken(&registrar, 0);
        if grants > 0 {
            return Err(OpenError::Foreign { path: path.to_owned(), grants, journal: journal.to_owned() });
        }
        // Whoever still has it open grants nothing more there.
        (0..RINGS_LEN_MAX).for_each(|ring| registrar.close(ring));
    } else if named.is_some_and(|it| it.boot == boot && it.path == path) {
        return Err(OpenError::Missing { path: path.to_owned(), name: journal.join(NAME_FILE) });
    }
    // Beside it and renamed: who has the former one mapped keeps that.
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(error)),
        Ok(()) | Err(_) => {}
    }
    let geometry = Geometry::for_ids(ids_len_max);
    let file = admission::create(&beside, geometry.words_len()).map_err(failed("create"))?;
    let mapping = Mapping::of(&file).map_err(failed("map"))?;
    let draw = |what: u8| RandomState::new().hash_one(what);
    let identity = Identity { region: draw(0), key: [draw(1), draw(2)] };
    let registrar = Registrar::new(Table::create(Arc::new(mapping), geometry, identity));
    lock(path, &file)?;
    fs::rename(&beside, path).map_err(failed("name"))?;
    // Without this line it is nobody's, and holds nothing.
    let named = Named { region: identity.region, boot, path: path.to_owned() };
    named.write(journal).map_err(failed("say in JOURNAL_DIR which it is:"))?;
    Ok(Opened { registrar, journal_sequence, is_of_this_boot: true, file })
}

/// A start without a table: one that there was before holds nothing any more.
///
/// # Errors
/// If it does, or that cannot be told.
pub fn leave(journal: &Path, recovered: &Recovered) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { path: journal.join(NAME_FILE), what: "read or remove", source };
    let Some(Named { path, .. }) = Named::read(journal).map_err(failed)? else { return Ok(()) };
    if let Some((mut registrar, _file)) = find(&path)? {
        // Gateways that are still there would go on granting what this aggregator grants, too.
        (0..RINGS_LEN_MAX).for_each(|ring| registrar.close(ring));
        let grants = untaken(&registrar, recovered.next_sequence);
        if grants > 0 {
            return Err(OpenError::LeftOver { path, grants, journal: journal.to_owned() });
        }
    }
    fs::remove_file(journal.join(NAME_FILE)).map_err(failed)
}

/// The table in this file, locked; `None` where there is none, or none that was finished.
fn find(path: &Path) -> Result<Option<(Registrar, File)>, OpenError> {
    let failed = |what| move |source| OpenError::Io { path: path.to_owned(), what, source };
    let file = match admission::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open")(error)),
    };
    let table = match Mapping::of(&file) {
        Ok(mapping) => Table::open(Arc::new(mapping)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Refused::Empty),
        Err(error) => return Err(failed("map")(error)),
    };
    match table {
        Ok(table) => {
            lock(path, &file)?;
            Ok(Some((Registrar::new(table), file)))
        }
        // Nobody was promised anything in it.
        Err(Refused::Empty) => Ok(None),
        Err(refused) => Err(OpenError::Refused { path: path.to_owned(), refused }),
    }
}

fn lock(path: &Path, file: &File) -> Result<(), OpenError> {
    match admission::lock_ring(file, AGGREGATOR_BYTE) {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(source) => Err(OpenError::Io { path: path.to_owned(), what: "lock", source }),
    }
}

/// Grants that may be in no journal.
fn untaken(registrar: &Registrar, journal_sequence: u64) -> u64 {
    (0..RINGS_LEN_MAX).map(|ring| registrar.untaken(ring, journal_sequence)).sum()
}

impl Opened {
    /// The table, and what tells whether a ring's owner is gone for good.
    pub fn into_parts(self) -> (Registrar, u64, bool, impl Fn(usize) -> bool) {
        let Self { registrar, journal_sequence, is_of_this_boot, file } = self;
        let is_abandoned = move |ring| match admission::is_ring_locked(&file, ring) {
            Ok(is_locked) => !is_locked,
            Err(error) => {
                tracing::warn!("whether ring {ring} is locked: {error}");
                false
            }
        };
        (registrar, journal_sequence, is_of_this_boot, is_abandoned)
    }
}
