//! The gate between the socket and monoio-http's `ServerCodec`: whole, validated requests in, answers out.
//!
//! The connection reads the socket into an [`Intake`] and grants the codec one request at a time, after `framing` found
//! it whole and sound. To the codec the [`Gate`] looks like a socket whose bytes are always there already.
//!
//! Why this is sound: the codec's `unwrap`s, endless waits and unbounded growth are all reached through bytes, and
//! the only bytes it is given form one request that passed `framing`, whose limits are stricter than the codec's own. A
//! codec that disagreed about where the request ends could only ask for more than was granted, which is an error here
//! (the connection closes), or leave some of it unread, which the connection checks; either way a second request can
//! never grow out of the first one's body. Because its reads never wait, no timeout ever drops one half done.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedWriteHalf, Split};
use monoio::net::UnixStream;

use super::framing::REQUEST_SIZE_MAX;

/// Bytes that a connection keeps ready for its next request: five payments as HAProxy forwards them.
const INTAKE_SIZE_IDLE: usize = 2 * 1024;

/// What a connection has read and not yet served.
pub(super) struct Intake {
    buffer: Vec<u8>,
    /// Offset of the first byte that nobody consumed.
    start: usize,
    /// Up to here the codec may read; never below `start`.
    granted: usize,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self { buffer: Vec::with_capacity(INTAKE_SIZE_IDLE), start: 0, granted: 0 }
    }

    /// Everything read and not yet consumed.
    pub(super) fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Forgets the first `size` pending bytes.
    pub(super) fn skip(&mut self, size: usize) {
        assert!(self.granted <= self.start && size <= self.pending().len(), "only bytes that are nobody's");
        self.start += size;
    }

    /// Grants the codec the first `size` pending bytes: one whole request.
    pub(super) fn grant(&mut self, size: usize) {
        assert!(
            self.granted <= self.start && size <= self.pending().len(),
            "one request at a time, and whole"
        );
        self.granted = self.start + size;
    }

    /// Whether the codec consumed all that was granted.
    pub(super) fn is_spent(&self) -> bool {
        self.start >= self.granted
    }

    /// Hands out the buffer, with room for more behind the pending bytes.
    pub(super) fn lend(&mut self) -> Vec<u8> {
        assert!(self.is_spent(), "no reading while a request is being served");
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(INTAKE_SIZE_IDLE);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start.., 0);
            self.buffer.truncate(self.buffer.len() - self.start);
        }
        (self.start, self.granted) = (0, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.len() == buffer.capacity() {
            // Incomplete requests are shorter than the budget, so there always is room to double into.
            assert!(buffer.len() < REQUEST_SIZE_MAX, "an incomplete request is within its budget");
            buffer.reserve_exact(buffer.len().clamp(INTAKE_SIZE_IDLE, REQUEST_SIZE_MAX - buffer.len()));
        }
        buffer
    }

    /// Takes the buffer back after a read.
    pub(super) fn restore(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }
}

/// The codec's stream. Without a socket it can be read from, and no more.
pub(super) struct Gate<W = OwnedWriteHalf<UnixStream>> {
    intake: Rc<RefCell<Intake>>,
    socket: W,
}

impl<W> Gate<W> {
    pub(super) fn new(intake: Rc<RefCell<Intake>>, socket: W) -> Self {
        Self { intake, socket }
    }
}

// SAFETY: reads touch `intake` alone and writes `socket` alone, so a read and a write may run at the same time. (They
// do not: `ServerCodec` takes `&mut self` for either.)
unsafe impl<W> Split for Gate<W> {}

impl<W> AsyncReadRent for Gate<W> {
    async fn read<T: IoBufMut>(&mut self, buf: T) -> BufResult<usize, T> {
        if self.intake.borrow().is_spent() {
            return (Err(overdrawn()), buf);
        }
        // The buffer is taken out for the copy, so that no borrow is held over an `await` (which never waits).
        let (buffer, start, granted) = {
            let mut intake = self.intake.borrow_mut();
            (std::mem::take(&mut intake.buffer), intake.start, intake.granted)
        };
        let mut bytes = &buffer[start..granted];
        let (result, buf) = bytes.read(buf).await;
        let left = bytes.len();
        let mut intake = self.intake.borrow_mut();
        intake.buffer = buffer;
        intake.start = granted - left;
        (result, buf)
    }

    async fn readv<T: IoVecBufMut>(&mut self, buf: T) -> BufResult<usize, T> {
        // The codec never reads vectored; an error is honest where a second copy loop would be untested.
        (Err(io::Error::from(io::ErrorKind::Unsupported)), buf)
    }
}

/// The codec asked for more than the request that `framing` measured: the two disagree, and the connection ends.
fn overdrawn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the codec reads beyond the request")
}

impl<W: AsyncWriteRent> AsyncWriteRent for Gate<W> {
    async fn write<T: IoBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        self.socket.write(buf).await
    }

    async fn writev<T: IoVecBuf>(&mut self, buf_vec: T) -> BufResult<usize, T> {
        self.socket.writev(buf_vec).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().await
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }
}
