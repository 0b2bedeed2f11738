//! A gateway's connection, on io_uring where there is one and on epoll where it is blocked.
//!
//! Reads and writes take their buffer and give it back: with io_uring it belongs to the kernel meanwhile. Exactly one
//! task reads a stream and exactly one writes it, each to completion: a dropped read would lose its bytes.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
pub enum ReadHalf {
    /// On io_uring.
    Uring(Rc<tokio_uring::net::UnixStream>),
    /// On epoll.
    Epoll(tokio::net::unix::OwnedReadHalf),
}

/// The half that writes. Dropping it, or [`WriteHalf::close`], ends the connection for the peer and for our reader.
pub enum WriteHalf {
    /// On io_uring.
    Uring(Rc<tokio_uring::net::UnixStream>),
    /// On epoll.
    Epoll(tokio::net::unix::OwnedWriteHalf),
}

/// Takes over an accepted connection.
///
/// # Errors
/// If its mode cannot be set.
pub fn split(stream: StdUnixStream, driver: Driver) -> io::Result<(ReadHalf, WriteHalf)> {
    match driver {
        Driver::Uring => {
            // The ring waits by itself; with O_NONBLOCK it would answer EAGAIN instead.
            stream.set_nonblocking(false)?;
            let stream = Rc::new(tokio_uring::net::UnixStream::from_std(stream));
            Ok((ReadHalf::Uring(Rc::clone(&stream)), WriteHalf::Uring(stream)))
        }
        Driver::Epoll => {
            stream.set_nonblocking(true)?;
            let (read, write) = tokio::net::UnixStream::from_std(stream)?.into_split();
            Ok((ReadHalf::Epoll(read), WriteHalf::Epoll(write)))
        }
    }
}

impl ReadHalf {
    /// Reads once, behind the first `filled` bytes of `buffer`, whose capacity is the bound. Returns how many bytes
    /// came (0: the peer closed) and the buffer, its length grown by them.
    pub async fn read(&mut self, mut buffer: Vec<u8>, filled: usize) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Uring(stream) => {
                let (result, slice) = stream.read(buffer.slice(filled..)).await;
                (result, slice.into_inner())
            }
            Self::Epoll(stream) => {
                buffer.truncate(filled);
                let room = buffer.capacity() - filled;
                let mut limited = bytes::BufMut::limit(&mut buffer, room);
                (stream.read_buf(&mut limited).await, buffer)
            }
        }
    }
}

impl WriteHalf {
    /// Writes everything.
    pub async fn write_all(&mut self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match self {
            Self::Uring(stream) => stream.write_all(buffer).await,
            Self::Epoll(stream) => (stream.write_all(&buffer).await, buffer),
        }
    }

    /// Ends the connection: the peer and our own reader see its end.
    pub async fn close(&mut self) {
        // It may be closed already, by the peer.
        match self {
            Self::Uring(stream) => stream.shutdown(std::net::Shutdown::Both).unwrap_or_default(),
            Self::Epoll(stream) => stream.shutdown().await.unwrap_or_default(),
        }
    }
}
