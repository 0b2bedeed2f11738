//! One TCP connection to a processor: a request out in one write, an answer in.
//!
//! It must never carry two requests at once, and never be used again after a timeout, an error or bytes that nobody
//! asked for: an answer that comes late would be taken for the answer to the next request. Its owner drops it, which
//! closes it; an operation still in the kernel's hands keeps its buffer and the descriptor until it completes.

use std::cell::Cell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Instant;

use monoio::buf::IoBuf;
use monoio::io::AsyncWriteRent;
use monoio::net::TcpStream;

use super::answer::{AnswerReader, Head, Unreadable};

/// One open connection.
pub(super) struct Connection {
    reader: AnswerReader<TcpStream>,
    idle_since: Instant,
    _counted: Counted,
}

/// How a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendError {
    /// The kernel took no byte.
    Nothing,
    /// The kernel took some bytes; the peer may have them.
    Partly,
}

/// Counts the connections that exist.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Connection {
    /// Wraps a connected stream and adds one to `open` for as long as it lives.
    pub(super) fn new(stream: TcpStream, open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self {
            reader: AnswerReader::new(stream),
            idle_since: Instant::now(),
            _counted: Counted(Rc::clone(open)),
        }
    }

    /// Whether nothing has arrived on this connection that was not read: no byte, no end of stream, no reset.
    ///
    /// Asked before each request, since a peer may close an idle connection at any time and a request written into
    /// it would be in doubt for ever. One `recv` that peeks costs less than keeping a read pending on each idle
    /// connection (an operation submitted and cancelled per attempt), and sees what has arrived up to this moment
    /// rather than up to the last pass over the completion queue.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = 0_u8;
        let fd = self.reader.io_mut().as_raw_fd();
        // SAFETY: `fd` is open for as long as the stream in `self` lives, and the buffer is one byte that outlives
        // the call, which does not block.
        let count = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
        count == -1 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
    }

    pub(super) const fn idle_since(&self) -> Instant {
        self.idle_since
    }

    pub(super) fn set_idle(&mut self) {
        self.idle_since = Instant::now();
    }

    /// Writes the whole of `request`: one write unless the kernel takes less at once. The buffer comes back.
    pub(super) async fn send(&mut self, request: Vec<u8>) -> (Result<(), SendError>, Vec<u8>) {
        let size = request.len();
        let (result, request) = self.reader.io_mut().write(request).await;
        let mut sent = match result {
            Ok(0) | Err(_) => return (Err(SendError::Nothing), request),
            Ok(count) => count,
        };
        let mut request = request;
        while sent < size {
            let (result, rest) = self.reader.io_mut().write(request.slice(sent..)).await;
            request = rest.into_inner();
            match result {
                Ok(0) | Err(_) => return (Err(SendError::Partly), request),
                Ok(count) => sent += count,
            }
        }
        (Ok(()), request)
    }

    /// See [`AnswerReader::read_head`].
    pub(super) async fn read_head(&mut self) -> Result<Head, Unreadable> {
        self.reader.read_head().await
    }

    /// See [`AnswerReader::read_body`].
    pub(super) async fn read_body(
        &mut self,
        head: Head,
        take: impl FnMut(&[u8]),
    ) -> Result<bool, Unreadable> {
        self.reader.read_body(head, take).await
    }
}
