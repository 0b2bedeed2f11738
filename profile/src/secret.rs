//! What must never be shown: tokens, passwords, keys.

use std::fmt;
use std::fs;
use std::path::Path;

/// A secret longer than this is no secret but another file.
pub(crate) const SECRET_SIZE_MAX: usize = 64 << 10;

/// Bytes that no message, log or debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Hides these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one place that sends them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether it can stand in a header as it is.
    pub(crate) fn is_header_text(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|byte| (0x21..=0x7e).contains(byte))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads a file whole; says why not.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = fs::read(path).map_err(|error| format!("a file that can be read ({error})"))?;
    if bytes.is_empty() {
        return Err("a file that is not empty".to_owned());
    }
    if bytes.len() > SECRET_SIZE_MAX {
        return Err(format!("a file of at most {SECRET_SIZE_MAX} bytes; it has {}", bytes.len()));
    }
    Ok(bytes)
}

/// A secret out of a file's bytes: without the newline that editors and `echo` leave at the end, one at most.
pub(crate) fn trimmed(bytes: &[u8]) -> Secret {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    Secret::new(bytes.strip_suffix(b"\r").unwrap_or(bytes))
}
