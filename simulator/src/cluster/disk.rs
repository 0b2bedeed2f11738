//! The aggregator's disk: journal entries in order, and how many of them would survive a loss of power.
//!
//! A killed process loses nothing that was written. After a loss of power the journal ends at the first entry that is
//! not whole: lost, torn and reordered writes all come down to a shorter prefix, since the real journal believes
//! nothing after a bad checksum.

use galo_engine::ledger::Entry;

use super::dice::Dice;

/// See the module's documentation.
#[derive(Default)]
pub struct Disk {
    entries: Vec<Entry>,
    synced_len: usize,
}

impl Disk {
    /// Everything that would be replayed.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A finished write.
    pub fn write(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// What was written so far survives everything.
    pub fn sync(&mut self) {
        self.synced_len = self.entries.len();
    }

    /// Power is lost: returns the entries that went with it.
    pub fn lose_power(&mut self, dice: &mut Dice) -> Vec<Entry> {
        let kept = self.synced_len + dice.index(self.entries.len() - self.synced_len + 1);
        self.synced_len = kept;
        self.entries.split_off(kept)
    }

    /// A bug: the last entries are gone although they were written.
    pub fn lose_tail(&mut self, len: usize) {
        self.entries.truncate(self.entries.len().saturating_sub(len));
        self.synced_len = self.synced_len.min(self.entries.len());
    }
}
