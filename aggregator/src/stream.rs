//! A gateway's connection, on io_uring where there is one and on epoll where it is blocked.
//!
//! Either way tokio's epoll says when there is something to read: that is where this runtime waits, and an operation pending in its ring
//! is completed by a signal to the waiting thread, another turn of the loop for each frame. Writes leave at once as far as the peer has
//! room; what it has no room for, a flood or a large hand-over, waits in the ring, which holds the buffer meanwhile.
//! Exactly one task reads a stream and exactly one writes it.
//!
//! A connection takes one descriptor. With two, the last free one would go to a connection that cannot be had, and
//! whoever waits to be accepted would be sent away instead of waiting until there are some again.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_uring::buf::BoundedBuf;

/// How this process does its I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// tokio-uring.
    Uring,
    /// Plain tokio.
    Epoll,
}

impl Driver {
    /// Its name in the log and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The half that reads.
pub struct ReadHalf {
    stream: Stream,
    /// On io_uring: tells when there is something to read.
    readiness: Option<AsyncFd<Rc<tokio_uring::net::UnixStream>>>,
}

/// The half that writes.
pub struct WriteHalf(Stream);

/// Ends the connection from outside, while its reader and its writer wait for a peer that does nothing.
pub struct HangUp(Stream);

#[derive(Clone)]
enum Stream {
    Uring(Rc<tokio_uring::net::UnixStream>),
    Epoll(Rc<tokio::net::UnixStream>),
}

/// Takes over an accepted connection.
///
/// # Errors
/// If its mode cannot be set.
pub fn split(stream: StdUnixStream, driver: Driver) -> io::Result<(ReadHalf, WriteHalf, HangUp)> {
    let (stream, readiness) = match driver {
        Driver::Uring => {
            // The ring waits by itself; with O_NONBLOCK it would answer EAGAIN instead.
            stream.set_nonblocking(false)?;
            let stream = Rc::new(tokio_uring::net::UnixStream::from_std(stream));
            // SAFETY: the stream that it shares stays open while it lives, and has one descriptor from beginning to end. Not for writing: that
            // would wake us whenever the peer has read.
            let readiness =
                unsafe { AsyncFd::register_with_interest(Rc::clone(&stream), Interest::READABLE)? };
            (Stream::Uring(stream), Some(readiness))
        }
        Driver::Epoll => {
            stream.set_nonblocking(true)?;
            (Stream::Epoll(Rc::new(tokio::net::UnixStream::from_std(stream)?)), None)
        }
    };
    Ok((ReadHalf { stream: stream.clone(), readiness }, WriteHalf(stream.clone()), HangUp(stream)))
}

impl ReadHalf {
    /// Reads once, behind the first `filled` bytes of `buffer`, whose capacity is the bound. Returns how many bytes
    /// came (0: the peer closed) and the buffer, its length grown by them.
    pub async fn read(&mut self, mut buffer: Vec<u8>, filled: usize) -> (io::Result<usize>, Vec<u8>) {
        buffer.truncate(filled);
        match &self.stream {
            Stream::Uring(_) => {
                let readiness = self.readiness.as_ref().expect("set with the stream");
                loop {
                    let mut guard = match readiness.readable().await {
                        Ok(guard) => guard,
                        Err(error) => return (Err(error), buffer),
                    };
                    match receive_now(guard.get_inner().as_raw_fd(), &mut buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                        Ok(count) if count > 0 && buffer.len() < buffer.capacity() => {
                            // All that there was: more will be said anew.
                            guard.clear_ready();
                            return (Ok(count), buffer);
                        }
                        result => return (result, buffer),
                    }
                }
            }
            Stream::Epoll(stream) => {
                let room = buffer.capacity() - filled;
                let mut limited = bytes::BufMut::limit(&mut buffer, room);
                let read = || stream.try_read_buf(&mut limited);
                let result = until_ready(|| stream.readable(), read).await;
                (result, buffer)
            }
        }
    }
}

impl WriteHalf {
    /// Writes everything.
    pub async fn write_all(&mut self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match &self.0 {
            // At once as far as the peer has room, which it nearly always has: by way of the ring the same bytes would cost an operation and
            // another turn of the loop for its completion. What is left waits in the ring.
            Stream::Uring(stream) => match send_now(stream.as_raw_fd(), &buffer) {
                Ok(sent) if sent == buffer.len() => (Ok(()), buffer),
                Ok(sent) => {
                    let (result, slice) = stream.write_all(buffer.slice(sent..)).await;
                    (result, slice.into_inner())
                }
                Err(error) => (Err(error), buffer),
            },
            Stream::Epoll(stream) => {
                let mut written = 0;
                while written < buffer.len() {
                    match until_ready(|| stream.writable(), || stream.try_write(&buffer[written..])).await {
                        Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                        Ok(length) => written += length,
                        Err(error) => return (Err(error), buffer),
                    }
                }
                (Ok(()), buffer)
            }
        }
    }
}

impl HangUp {
    /// Ends the connection: the peer, our reader and our writer see its end. The peer may have ended it already.
    ///
    /// # Errors
    /// If it has.
    pub fn hang_up(&self) -> io::Result<()> {
        match &self.0 {
            Stream::Uring(stream) => stream.shutdown(Shutdown::Both),
            Stream::Epoll(stream) => socket2::SockRef::from(stream.as_ref()).shutdown(Shutdown::Both),
        }
    }
}

/// Receives what is there, into the room that `bytes` has.
fn receive_now(fd: RawFd, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let room = bytes.spare_capacity_mut();
    // SAFETY: the descriptor is open, since its stream is borrowed by the caller, and the call writes within `room` alone.
    let count = unsafe { libc::recv(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) };
    let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
    // SAFETY: so many bytes behind the length are written.
    unsafe { bytes.set_len(bytes.len() + count) };
    Ok(count)
}

/// Sends what can be sent without waiting; returns how much that was.
fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the descriptor is open, since its stream is borrowed by the caller, and the call reads `bytes` and does not outlive it.
    let sent = unsafe {
        libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).or_else(|_| match io::Error::last_os_error() {
        error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        error => Err(error),
    })
}

/// Tries whenever the socket is said to be ready: it may be said in vain.
async fn until_ready<R: Future<Output = io::Result<()>>>(
    ready: impl Fn() -> R,
    mut attempt: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        ready().await?;
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}
