//! The gateway's way into the admission table of its host: maps the file, and takes the ring that the aggregator has opened.
//!
//! A table that cannot be used costs no payment: the aggregator is asked for each, as where there is none.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use galo_admission::{Claimer, RINGS_LEN_MAX, Refused, Ring, Table};
use galo_shell::admission::{self, Mapping};
use galo_wire::record::Opened;

/// Why a table is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it is not the aggregator's: give both the same file")]
    Other,
    #[error("ring {0} is another process's")]
    Taken(usize),
}

/// One thread's.
pub struct Admission {
    path: Option<PathBuf>,
    /// The ring that is locked, for as long as this file is open: its table's number and its own.
    held: RefCell<Option<(u64, usize, File)>>,
    /// The link stands, and the aggregator has not said that the ring is this thread's again.
    unconfirmed: Cell<bool>,
}

impl Admission {
    /// Of the file at this path, if there is to be one.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, held: RefCell::default(), unconfirmed: Cell::default() }
    }

    /// The link to the aggregator stands. What is granted goes on, until it says otherwise.
    pub fn connected(&self) {
        self.unconfirmed.set(true);
    }

    /// The aggregator has heard the claims: without its word before, it knows nothing of a ring. True if there is to be no claimer.
    pub fn claims_heard(&self) -> bool {
        self.unconfirmed.take() && self.held.take().is_some()
    }

    /// The aggregator has opened a ring: who claims from now on, if anybody does.
    pub fn opened(&self, opened: Opened, claimer: Option<Claimer>) -> Option<Claimer> {
        self.unconfirmed.set(false);
        let path = self.path.as_deref()?;
        let Opened { region, ring, opening } = opened;
        let ring = Ring { number: usize::from(ring), opening };
        let is_held = self.held.borrow().as_ref().is_some_and(|it| (it.0, it.1) == (region, ring.number));
        if let Some(mut claimer) = claimer.filter(|_| is_held) {
            claimer.reopened(ring);
            return Some(claimer);
        }
        self.held.take();
        match take(path, region, ring) {
            Ok((table, file)) => {
                self.held.replace(Some((region, ring.number, file)));
                Some(Claimer::new(table, ring))
            }
            Err(error) => {
                tracing::warn!(
                    "ADMISSION_TABLE={}: {error}; the aggregator is asked for each payment",
                    path.display()
                );
                None
            }
        }
    }
}

fn take(path: &Path, region: u64, ring: Ring) -> Result<(Table, File), Unusable> {
    let file = admission::open(path)?;
    let table = Table::open(Arc::new(Mapping::of(&file)?))?;
    if table.identity().region != region {
        return Err(Unusable::Other);
    }
    // Before the ring's state is looked at for the first time: the aggregator changes that before it looks for a lock.
    if ring.number >= RINGS_LEN_MAX || !admission::lock_ring(&file, ring.number)? {
        return Err(Unusable::Taken(ring.number));
    }
    Ok((table, file))
}
