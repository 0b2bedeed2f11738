//! The file of the admission table: mapped into every process that has it open.
//!
//! What is stored in a shared mapping of a file is the page cache's at once: it outlives whoever stored it, as a finished `write` does, and is
//! lost with the power. The file is as large as it ever gets from the first moment, its blocks included, so that no store meets a full disk.
//!
//! Who fills a ring holds a lock on one byte of the file for as long as it lives: the kernel takes it back from a process that is gone, in
//! whatever container that was.
//!
//! Must never: be made shorter while somebody has it mapped. A store beyond the end of a file ends the process (SIGBUS).

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use galo_admission::Memory;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl, posix_fallocate};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A file in memory, shared with every process that has mapped it.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<AtomicU64>,
    words_len: usize,
}

// SAFETY: all that a mapping gives out is atomics, and it stays where it is until it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: likewise.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the whole file.
    ///
    /// # Errors
    /// If it is empty, or the kernel's.
    pub fn of(file: &File) -> io::Result<Self> {
        let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let size = size - size % size_of::<AtomicU64>();
        let length = size.try_into().map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so nothing that is there already is replaced; whoever shares the file touches it
        // through atomics alone, which bear that.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self { start: start.cast(), words_len: size / size_of::<AtomicU64>() })
    }
}

impl Memory for Mapping {
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped at a page's beginning, hence aligned, until this is dropped; any bits are an atomic number,
        // and the file is not made shorter meanwhile (the module's documentation).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words_len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, of this size, and nobody has a reference into it any more.
        if let Err(error) = unsafe { munmap(self.start.cast(), self.words_len * size_of::<AtomicU64>()) } {
            tracing::debug!("munmap: {error}");
        }
    }
}

/// Opens the file, if it is there.
///
/// # Errors
/// The kernel's.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Makes a file of so many words, all zero. Gateways that run as other users share a group with the aggregator.
///
/// # Errors
/// The kernel's: no room, above all; or that there is such a file already.
pub fn create(path: &Path, words_len: usize) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    // Whatever the umask.
    file.set_permissions(Permissions::from_mode(0o660))?;
    let size = i64::try_from(words_len * size_of::<AtomicU64>()).map_err(io::Error::other)?;
    match posix_fallocate(&file, 0, size) {
        Ok(()) => {}
        // Some file systems, and some filters of system calls, know no such thing.
        Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => {
            io::copy(&mut io::repeat(0).take(u64::try_from(size).map_err(io::Error::other)?), &mut file)?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(file)
}

/// Locks a ring for as long as this open file lives: false if somebody else has it.
///
/// # Errors
/// The kernel's.
pub fn lock_ring(file: &File, ring: usize) -> io::Result<bool> {
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&byte_of(ring, libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether another open file has this ring.
///
/// # Errors
/// The kernel's.
pub fn is_ring_locked(file: &File, ring: usize) -> io::Result<bool> {
    let mut byte = byte_of(ring, libc::F_WRLCK);
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut byte))?;
    Ok(i32::from(byte.l_type) != libc::F_UNLCK)
}

fn byte_of(ring: usize, kind: i32) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).expect("a lock's kind is small"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("likewise"),
        l_start: i64::try_from(ring).expect("so is a ring's number"),
        l_len: 1,
        // The kernel asks for that.
        l_pid: 0,
    }
}

/// The kernel's own number of this boot.
///
/// # Errors
/// If it is not where Linux has it.
pub fn boot() -> io::Result<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.trim().chars().filter(|it| *it != '-').collect();
    u128::from_str_radix(&digits, 16).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_one_stores_the_other_sees_and_a_ring_has_one_owner() -> io::Result<()> {
        let folder = std::env::temp_dir().join(format!("galo-admission-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("table");
        let file = create(&path, 1_024)?;
        let (one, other) = (Mapping::of(&file)?, Mapping::of(&open(&path)?)?);
        assert_eq!((one.words().len(), other.words().len()), (1_024, 1_024));
        one.words()[1_023].store(7, Ordering::Relaxed);
        assert_eq!(other.words()[1_023].load(Ordering::Relaxed), 7);
        assert_eq!(std::fs::read(&path)?[1_023 * 8], 7, "whoever reads the file sees it, too");

        let (owner, aggregator) = (open(&path)?, open(&path)?);
        assert!(!is_ring_locked(&aggregator, 3)?);
        assert!(lock_ring(&owner, 3)?);
        assert!(lock_ring(&owner, 3)?, "again by the same");
        assert!(!lock_ring(&aggregator, 3)?);
        assert!(is_ring_locked(&aggregator, 3)? && !is_ring_locked(&aggregator, 4)?);
        drop(owner);
        assert!(!is_ring_locked(&aggregator, 3)?);
        assert!(boot()? > 0);
        std::fs::remove_dir_all(folder)
    }
}
