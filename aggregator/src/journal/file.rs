//! A file that is being written: appended to in place, all else beside the event loop.
//!
//! An append copies a few hundred bytes into the page cache. The ring would make it dearer, not cheaper: ext4 has no buffered write that never
//! blocks, so io_uring hands each one to a worker thread, with two wake-ups around a copy of some microseconds. What a payment's
//! answer does not wait for, a snapshot's slices and syncs, takes as long as the disk takes and never blocks the loop: the ring gives
//! it to such a worker, epoll a sync to a thread.
//!
//! What an append in place risks: where more is dirty than the kernel allows, it makes the writer wait, and the loop with it. On the
//! ring the answers would wait all the same, which is nearly everything that this process does.

use std::cell::OnceCell;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::stream::Driver;

/// See the module's documentation.
pub struct JournalFile {
    file: Arc<std::fs::File>,
    driver: Driver,
    /// The ring's own handle, from its first use on.
    ring: OnceCell<tokio_uring::fs::File>,
}

impl JournalFile {
    /// Takes over an open file.
    #[must_use]
    pub fn new(file: std::fs::File, driver: Driver) -> Self {
        Self { file: Arc::new(file), driver, ring: OnceCell::new() }
    }

    /// Writes everything at `offset`, in place.
    ///
    /// # Errors
    /// What the file system said. Any part may have been written.
    pub fn append(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Likewise, beside the event loop where there is a ring.
    pub async fn write_all_at(&self, bytes: Vec<u8>, offset: u64) -> (io::Result<()>, Vec<u8>) {
        match self.driver {
            Driver::Uring => match self.ring() {
                Ok(file) => file.write_all_at(bytes, offset).await,
                Err(error) => (Err(error), bytes),
            },
            Driver::Epoll => (self.append(&bytes, offset), bytes),
        }
    }

    /// Makes what was written survive the loss of power.
    ///
    /// # Errors
    /// What the disk said: whatever was written since the last sync may be lost.
    pub async fn sync(&self) -> io::Result<()> {
        match self.driver {
            Driver::Uring => match self.ring() {
                Ok(file) => file.sync_data().await,
                // No descriptor is left for the ring's handle.
                Err(_) => self.sync_aside().await,
            },
            Driver::Epoll => self.sync_aside().await,
        }
    }

    async fn sync_aside(&self) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        aside(move || file.sync_data()).await
    }

    fn ring(&self) -> io::Result<&tokio_uring::fs::File> {
        if let Some(file) = self.ring.get() {
            return Ok(file);
        }
        let file = self.file.try_clone()?;
        Ok(self.ring.get_or_init(|| tokio_uring::fs::File::from_std(file)))
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
        let error = full.append(&[1; 48], 0).expect_err("a full disk");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        let error = full.write_all_at(vec![1; 48], 0).await.0.expect_err("a full disk");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        // Nothing is mapped at address 0: EIO.
        let broken = JournalFile::new(open("/proc/self/mem"), driver);
        let error = broken.append(&[1; 48], 0).expect_err("a broken disk");
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
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
