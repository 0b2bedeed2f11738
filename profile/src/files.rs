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
        let text = entry.read(|text| {
            let usable = !text.is_empty() && !text.contains('\0');
            usable.then_some(text).ok_or_else(|| "the path of a file".to_owned())
        });
        text.map(|text| self.folder.join(text))
    }

    /// A file's bytes, or what stands in for them: of the same kind, since the kind is checked.
    fn bytes(&self, entry: &Entry<'_>, unread: &[u8]) -> Option<Vec<u8>> {
        let path = self.path(entry)?;
        if !self.are_read {
            return Some(unread.to_vec());
        }
        read_file(&path).map_err(|expected| entry.expected(&expected)).ok()
    }

    pub(crate) fn pem(&self, entry: &Entry<'_>) -> Option<Vec<u8>> {
        self.bytes(entry, b"-----BEGIN (not read)")
    }

    pub(crate) fn secret(&self, entry: &Entry<'_>) -> Option<Secret> {
        let secret = trimmed(&self.bytes(entry, b"not-read")?);
        if secret.expose().is_empty() {
            entry.expected("a file with something before its newline");
            return None;
        }
        Some(secret)
    }
}
