//! A byte that a thread sends to itself, to know that it has seen everything that had come before.
//!
//! What tasks have queued goes to the kernel when the thread would wait, and what has come in is collected then. A task that
//! asks in between sees neither. The byte's read is queued before the byte is sent, so it comes when the thread would wait:
//! behind all that has come before it, and behind every operation that had been queued and could end at once.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;

use crate::wake::Flag;

/// See the module's documentation. Its two descriptors stay open for as long as it lives.
pub struct Probe {
    to: UnixStream,
    has_come: Rc<Flag>,
}

impl Probe {
    /// One for this thread, on whose runtime it must be called.
    ///
    /// # Errors
    /// If there are no two descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let (to, from) = UnixStream::pair()?;
        let has_come = Rc::new(Flag::default());
        monoio::spawn(receive_bytes(from, Rc::clone(&has_come)));
        Ok(Self { to, has_come })
    }

    /// Sends a byte and waits for it; whatever came with it has had its turn then. One at a time.
    ///
    /// # Errors
    /// Whatever the kernel has against sending a byte.
    pub async fn round_trip(&self) -> std::io::Result<()> {
        // SAFETY: the descriptor is open for as long as `to` lives, and the byte outlives the call, which does not block.
        let sent = unsafe { libc::send(self.to.as_raw_fd(), [0_u8].as_ptr().cast(), 1, libc::MSG_DONTWAIT) };
        if sent != 1 {
            return Err(std::io::Error::last_os_error());
        }
        // Woken by the task that reads the byte, hence behind every task that was woken with that one.
        self.has_come.lowered().await;
        Ok(())
    }
}

/// Ends with the other end of the stream.
async fn receive_bytes(mut from: UnixStream, has_come: Rc<Flag>) {
    let mut byte = vec![0];
    loop {
        let (result, returned) = from.read(byte).await;
        has_come.raise();
        if !matches!(result, Ok(1)) {
            // Whoever sends the next one is told.
            return;
        }
        byte = returned;
    }
}
