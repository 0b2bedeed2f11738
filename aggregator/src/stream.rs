//! A gateway's connection, on io_uring where there is one and on epoll where it is blocked.
//!
//! Reads and writes take their buffer and give it back: with io_uring it belongs to the kernel meanwhile. Exactly one
//! task reads a stream and exactly one writes it, each to completion: a dropped read would lose its bytes.
//!
//! A connection takes one descriptor. With two, the last free one would go to a connection that cannot be had, and
//! whoever waits to be accepted would be sent away instead of waiting until there are some again.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

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
pub struct ReadHalf(Stream);

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
    let stream = match driver {
        Driver::Uring => {
            // The ring waits by itself; with O_NONBLOCK it would answer EAGAIN instead.
            stream.set_nonblocking(false)?;
            Stream::Uring(Rc::new(tokio_uring::net::UnixStream::from_std(stream)))
        }
        Driver::Epoll => {
            stream.set_nonblocking(true)?;
            Stream::Epoll(Rc::new(tokio::net::UnixStream::from_std(stream)?))
        }
    };
    Ok((ReadHalf(stream.clone()), WriteHalf(stream.clone()), HangUp(stream)))
}

impl ReadHalf {
    /// Reads once, behind the first `filled` bytes of `buffer`, whose capacity is the bound. Returns how many bytes
    /// came (0: the peer closed) and the buffer, its length grown by them.
    pub async fn read(&mut self, mut buffer: Vec<u8>, filled: usize) -> (io::Result<usize>, Vec<u8>) {
        match &self.0 {
            Stream::Uring(stream) => {
                let (result, slice) = stream.read(buffer.slice(filled..)).await;
                (result, slice.into_inner())
            }
            Stream::Epoll(stream) => {
                buffer.truncate(filled);
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
            Stream::Uring(stream) => stream.write_all(buffer).await,
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
