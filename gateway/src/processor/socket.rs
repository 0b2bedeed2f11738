//! What a connection's socket is told: when to ask whether the peer is still there, and when to give up on it.

use std::io;
use std::os::fd::AsRawFd;

/// Options of a processor's sockets. Those that are not set cost nothing and are the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Seconds of silence on a kept connection until the kernel asks whether the peer is there; three questions without
    /// an answer, a third of this apart, end it. 1 to 32,767.
    pub keepalive_s: Option<u32>,
    /// Milliseconds for which sent bytes may stay without an acknowledgement until the kernel ends the connection. The
    /// attempt's own timeout ends it anyway; this frees a lane of a peer that has vanished sooner. From 1.
    pub user_timeout_ms: Option<u32>,
}

impl SocketOptions {
    pub(super) fn apply(self, socket: &impl AsRawFd) -> io::Result<()> {
        if let Some(idle_s) = self.keepalive_s {
            set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
            set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, idle_s)?;
            set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, (idle_s / 3).max(1))?;
            set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)?;
        }
        if let Some(timeout_ms) = self.user_timeout_ms {
            set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, timeout_ms)?;
        }
        Ok(())
    }
}

fn set(socket: &impl AsRawFd, level: i32, name: i32, value: u32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<u32>()).expect("four");
    // SAFETY: the descriptor is open for as long as `socket` lives, and the value is one of that size.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
