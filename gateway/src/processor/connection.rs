//! One connection to a processor: a request out in one write, an answer in.
//!
//! It must never carry two requests at once, and never be used again after a timeout, an error or bytes that nobody
//! asked for: an answer that comes late would be taken for the answer to the next request. Its owner drops it, which
//! closes it; an operation still in the kernel's hands keeps its buffer and the descriptor until it completes.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use galo_engine::verdict::End;
use galo_profile::{Answers, Page};

use super::answer::{AnswerReader, Head, Unreadable};
use super::stream::Stream;

/// One open connection.
pub(super) struct Connection {
    reader: AnswerReader<Stream>,
    address: SocketAddr,
    /// The list of addresses in which this one was found last; see `Connector::keeps`.
    pub(super) listed: Cell<u32>,
    idle_since: Instant,
    seen: Counted,
}

/// What all connections of one client tell.
#[derive(Default)]
pub(super) struct Connections {
    /// Those that exist.
    pub(super) open: Cell<usize>,
    /// Whether a peer has hung up since this was looked at last: it may have moved.
    pub(super) hung_up: Cell<bool>,
}

/// How a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendError {
    /// The kernel took no byte of the request; under TLS, of a record that holds some of it.
    Nothing,
    /// The kernel took some; the peer may have them.
    Partly,
}

/// Counts the connections that exist.
struct Counted(Rc<Connections>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

impl Connection {
    /// Wraps a connected stream; it counts among `connections` for as long as it lives.
    pub(super) fn new(
        stream: Stream,
        address: SocketAddr,
        listed: u32,
        connections: &Rc<Connections>,
    ) -> Self {
        connections.open.set(connections.open.get() + 1);
        Self {
            reader: AnswerReader::new(stream),
            address,
            listed: Cell::new(listed),
            idle_since: Instant::now(),
            seen: Counted(Rc::clone(connections)),
        }
    }

    /// Whether nothing has arrived on this connection that was not read: no data, no end of stream, no reset.
    ///
    /// Asked before each request, since a peer may close an idle connection at any time and a request written into
    /// it would be in doubt for ever.
    pub(super) fn is_quiet(&mut self) -> bool {
        let is_quiet = self.reader.io_mut().is_quiet();
        if !is_quiet {
            self.seen.0.hung_up.set(true);
        }
        is_quiet
    }

    /// The peer's.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) const fn idle_since(&self) -> Instant {
        self.idle_since
    }

    pub(super) fn set_idle(&mut self) {
        self.idle_since = Instant::now();
    }

    /// Writes the whole of `request`: one write unless the kernel takes less at once. The buffer comes back.
    pub(super) async fn send(&mut self, request: Vec<u8>) -> (Result<(), SendError>, Vec<u8>) {
        let (result, request) = self.reader.io_mut().send(request).await;
        if result.is_err() {
            self.seen.0.hung_up.set(true);
        }
        (result, request)
    }

    /// See [`AnswerReader::read_head`].
    pub(super) async fn read_head(&mut self) -> Result<Head, Unreadable> {
        let head = self.reader.read_head().await;
        if head.is_err() {
            self.seen.0.hung_up.set(true);
        }
        head
    }

    /// Whether a byte of the present answer has come.
    pub(super) const fn has_begun(&self) -> bool {
        self.reader.has_begun()
    }

    /// Answers may have bodies of this size.
    pub(super) fn allow_body(&mut self, size_max: usize) {
        self.reader.body_size_max = size_max;
    }

    /// See [`AnswerReader::judge`].
    pub(super) fn judge(&self, head: &Head, body: &[u8], answers: &Answers) -> End {
        self.reader.judge(head, body, answers)
    }

    /// See [`AnswerReader::page`].
    pub(super) fn page<'a>(&'a self, status: u16, body: &'a [u8]) -> Page<'a> {
        self.reader.page(status, body)
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
