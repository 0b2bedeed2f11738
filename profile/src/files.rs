//! The files that a file of processors names: secrets and certificates.

use std::path::{Path, PathBuf};

use crate::secret::{Secret, read_file, trimmed};
use crate::table::Entry;

/// Paths are relative to the folder of the file that names them.
pub(crate) struct Files<'a> {
    pub(crate) folder: &'a Path,
    /// Whether they are read. A process that talks to no processor has no business with their secrets.
    pub(crate) are_read: bool,
}

impl Files<'_> {
    pub(crate) fn path(&self, entry: &Entry<'_>) -> Option<PathBuf> {
        let usable = entry.text().filter(|text| !text.is_empty() && !text.contains('\0'));
        if usable.is_none() {
            self.expected(entry, "the path of a file");
        }
        usable.map(|text| self.folder.join(text))
    }

    /// Says what was expected of a file. Its name is shown if it is there: anything else may be the secret itself, where its file's
    /// path should be, and a secret may look like any path.
    pub(crate) fn expected(&self, entry: &Entry<'_>, expected: &str) {
        match entry.text() {
            Some(text) if text.is_empty() || self.folder.join(text).exists() => {
                entry.expected_openly(expected)
            }
            _ => entry.expected_secretly(expected),
        }
    }

    /// A file's bytes, or what stands in for them: of the same kind, since the kind is checked.
    fn bytes(&self, entry: &Entry<'_>, unread: &[u8]) -> Option<Vec<u8>> {
        let path = self.path(entry)?;
        if !self.are_read {
            return Some(unread.to_vec());
        }
        read_file(&path).map_err(|expected| self.expected(entry, &expected)).ok()
    }

    pub(crate) fn pem(&self, entry: &Entry<'_>) -> Option<Vec<u8>> {
        self.bytes(entry, b"-----BEGIN (not read)")
    }

    pub(crate) fn secret(&self, entry: &Entry<'_>) -> Option<Secret> {
        let secret = trimmed(&self.bytes(entry, b"not-read")?);
        if secret.expose().is_empty() {
            self.expected(entry, "a file with something before its newline");
            return None;
        }
        Some(secret)
    }
}
