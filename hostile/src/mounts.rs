//! Mount namespaces: what a process sees at a path, and nobody else.

use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;
use std::thread;

use nix::libc;

/// A file that takes another's place for one process.
#[derive(Debug)]
pub(crate) struct Bind {
    from: CString,
    at: CString,
}

impl Bind {
    pub(crate) fn new(from: &Path, at: &Path) -> Result<Self, String> {
        Ok(Self { from: text(from)?, at: text(at)? })
    }

    /// Whether this machine allows it, tried in a thread that ends.
    pub(crate) fn is_allowed() -> io::Result<()> {
        thread::spawn(unshare).join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }

    /// Moves the calling thread to a namespace of its own, and puts the file in place there. Allocates nothing, so that it can be
    /// called between fork and exec.
    pub(crate) fn enter(&self) -> io::Result<()> {
        unshare()?;
        raw_mount(Some(&self.from), &self.at, None, libc::MS_BIND, c"")
    }
}

/// Moves the calling thread, and whom it starts, to a mount namespace of its own, from which nothing gets out.
pub(crate) fn unshare() -> io::Result<()> {
    // SAFETY: takes a number alone. What was opened before stays open.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    raw_mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, c"")
}

/// Mounts a file system of this kind.
pub(crate) fn mount(kind: &str, at: &Path, flags: libc::c_ulong, data: &str) -> Result<(), String> {
    let plain = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let (kind, data) = (plain(kind)?, plain(data)?);
    raw_mount(None, &text(at)?, Some(&kind), flags, &data).map_err(|error| error.to_string())
}

fn text(path: &Path) -> Result<CString, String> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())
}

fn raw_mount(
    from: Option<&CStr>,
    at: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: every string outlives the call; null stands for what these flags ignore.
    match unsafe { libc::mount(pointer(from), at.as_ptr(), pointer(kind), flags, data.as_ptr().cast()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
