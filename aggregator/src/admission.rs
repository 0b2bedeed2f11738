//! The admission table's file at start: taken over from the aggregator before, made, or refused.
//!
//! | what is there | then |
//! | --- | --- |
//! | nothing, or nothing that was ever finished | a new table |
//! | one of this boot, which goes with this journal | taken over, whatever gateways did meanwhile |
//! | one of another boot: what it held went with the power, or was written to a journal at the stop | a new one; said if it held grants |
//! | one that goes with another journal, and holds no grants | a new one |
//! | one that goes with another journal, and holds grants | refused: they are payments that somebody was promised |
//! | one that is damaged, or another build's | refused |
//!
//! With a policy that survives the loss of power there is none: a grant would promise less than the journal.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use galo_admission::{Geometry, Identity, RINGS_LEN_MAX, Refused, Registrar, Table};
use galo_engine::recovery::Recovered;
use galo_shell::admission::{self, Mapping};

/// In the journal's folder: the number of the table that goes with it.
const REGION_FILE: &str = "admission-table";

/// A table that this aggregator goes on with.
pub struct Opened {
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
    let journal_sequence = recovered.next_sequence;
    match admission::open(path) {
        Ok(file) => {
            let table = match Mapping::of(&file) {
                Ok(mapping) => Table::open(Arc::new(mapping)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Refused::Empty),
                Err(error) => return Err(failed("map")(error)),
            };
            match table {
                Ok(table) => {
                    let is_of_this_boot = table.identity().boot == boot;
                    let mut registrar = Registrar::new(table);
                    let is_named = named_region(journal).map_err(failed("find out whose it is"))?
                        == Some(registrar.table().identity().region);
                    let goes_with = is_named && registrar.written_sequence() <= journal_sequence;
                    if is_of_this_boot && goes_with {
                        return Ok(Opened { registrar, journal_sequence, file });
                    }
                    let grants = end(&mut registrar);
                    if is_of_this_boot && grants > 0 {
                        return Err(OpenError::Foreign {
                            path: path.to_owned(),
                            grants,
                            journal: journal.to_owned(),
                        });
                    }
                    if grants > 0 {
                        tracing::error!(
                            "ADMISSION_TABLE={}: {grants} payments that were accepted before the machine went down may not be in the journal; \
                             JOURNAL_SYNC=always or interval:MS covers that",
                            path.display()
                        );
                    }
                }
                // Nobody was promised anything in it.
                Err(Refused::Empty) => {}
                Err(refused) => return Err(OpenError::Refused { path: path.to_owned(), refused }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("open")(error)),
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
    let identity = Identity { region: draw(0), boot, key: [draw(1), draw(2)] };
    let registrar = Registrar::new(Table::create(Arc::new(mapping), geometry, identity));
    name_region(journal, identity.region).map_err(failed("say in JOURNAL_DIR which it is"))?;
    fs::rename(&beside, path).map_err(failed("name"))?;
    Ok(Opened { registrar, journal_sequence, file })
}

impl Opened {
    /// The table, and what tells whether a ring's owner is gone for good.
    pub fn into_parts(self) -> (Registrar, u64, impl Fn(usize) -> bool) {
        let Self { registrar, journal_sequence, file } = self;
        let is_abandoned = move |ring| match admission::is_ring_locked(&file, ring) {
            Ok(is_locked) => !is_locked,
            Err(error) => {
                tracing::warn!("whether ring {ring} is locked: {error}");
                false
            }
        };
        (registrar, journal_sequence, is_abandoned)
    }
}

/// The table that goes with the journal in this folder, as the file there says.
fn named_region(journal: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(journal.join(REGION_FILE)) {
        Ok(text) => Ok(u64::from_str_radix(text.trim(), 16).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Written before the table has its name: one that is there is named.
fn name_region(journal: &Path, region: u64) -> io::Result<()> {
    fs::write(journal.join(REGION_FILE), format!("{region:016x}\n"))
}

/// Lets nobody grant in it any more. How many grants it holds that may be in no journal.
fn end(registrar: &mut Registrar) -> u64 {
    let mut grants = 0;
    for ring in 0..RINGS_LEN_MAX {
        registrar.close(ring);
        loop {
            match registrar.published(ring) {
                Ok(None) => break,
                Ok(Some(_)) => grants += 1,
                // Damaged, and somebody was promised it.
                Err(_) => {
                    grants += 1;
                    break;
                }
            }
            registrar.took(ring, 0);
        }
    }
    grants
}
