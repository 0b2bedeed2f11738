//! A file that is being written, on io_uring where there is one and with plain system calls where it is blocked.
//!
//! Neither way lets a sync block the event loop: the ring gives it to the kernel's workers, epoll to a thread. A write into the page
//! cache is a copy of a few kilobytes and is done in place on epoll.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::stream::Driver;

/// See the module's documentation.
pub enum JournalFile {
    /// On io_uring.
    Uring(tokio_uring::fs::File),
    /// On epoll.
    Epoll(Arc<std::fs::File>),
}

impl JournalFile {
    /// Takes over an open file.
    #[must_use]
    pub fn new(file: std::fs::File, driver: Driver) -> Self {
        match driver {
            Driver::Uring => Self::Uring(tokio_uring::fs::File::from_std(file)),
            Driver::Epoll => Self::Epoll(Arc::new(file)),
        }
    }

    /// Writes everything at `offset`. On an error any part of it may have been written.
    pub async fn write_all_at(&self, bytes: Vec<u8>, offset: u64) -> (io::Result<()>, Vec<u8>) {
        match self {
            Self::Uring(file) => file.write_all_at(bytes, offset).await,
            Self::Epoll(file) => (file.write_all_at(&bytes, offset), bytes),
        }
    }

    /// Makes what was written survive the loss of power. Good for directories, too.
    ///
    /// # Errors
    /// What the disk said: whatever was written since the last sync may be lost.
    pub async fn sync(&self) -> io::Result<()> {
        match self {
            Self::Uring(file) => file.sync_data().await,
            Self::Epoll(file) => {
                let file = Arc::clone(file);
                aside(move || file.sync_data()).await
            }
        }
    }
}

/// Does what the ring cannot, or not on every kernel: whatever creates, renames or removes a name may wait for the file
/// system's own journal, as long as a sync takes. A thread waits for it; the event loop goes on.
///
/// # Errors
/// What `work` says.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &str) -> std::fs::File {
        std::fs::OpenOptions::new().write(true).open(path).expect("every Linux has it")
    }

    /// Devices that fail as a disk would.
    async fn failures(driver: Driver) {
        let full = JournalFile::new(open("/dev/full"), driver);
        let error = full.write_all_at(vec![1; 48], 0).await.0.expect_err("a full disk");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        // Nothing is mapped at address 0: EIO.
        let broken = JournalFile::new(open("/proc/self/mem"), driver);
        let error = broken.write_all_at(vec![1; 48], 0).await.0.expect_err("a broken disk");
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
    }

    #[test]
    fn a_full_disk_and_a_broken_one_are_errors_on_the_ring() {
        tokio_uring::start(failures(Driver::Uring));
    }

    #[test]
    fn a_full_disk_and_a_broken_one_are_errors_on_epoll() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(failures(Driver::Epoll));
    }
}
