//! Opens connections to a processor, and asks for its addresses again when it cannot be reached.
//!
//! A container may come back under another address. After [`FAILURES_TO_RESOLVE`] failures in a row a thread asks the
//! resolver (it may block for seconds, so never on the ring's thread), and the next connect after its answer uses
//! what it found. One such thread at a time, at most one a second. An answer without addresses changes nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use monoio::net::TcpStream;
use monoio::time::timeout;

use super::connection::Connection;
use super::endpoint::Endpoint;

/// Failures in a row before the name is resolved again: more than one restart's refused connect or two.
const FAILURES_TO_RESOLVE: u32 = 3;

/// The least time between two questions to the resolver.
const RESOLVE_INTERVAL_MS: u64 = 1000;

/// Knows where a processor is and opens connections to it.
pub(super) struct Connector {
    endpoint: Endpoint,
    connect_timeout: Duration,
    addresses: RefCell<Vec<SocketAddr>>,
    preferred: Cell<usize>,
    failures: Cell<u32>,
    resolving: RefCell<Option<Receiver<Vec<SocketAddr>>>>,
    resolved_at: Cell<Option<Instant>>,
    open: Rc<Cell<usize>>,
    connects_total: Cell<u64>,
    connect_failures_total: Cell<u64>,
}

impl Connector {
    pub(super) fn new(endpoint: Endpoint, connect_timeout: Duration) -> Self {
        Self {
            addresses: RefCell::new(endpoint.addresses().to_vec()),
            endpoint,
            connect_timeout,
            preferred: Cell::new(0),
            failures: Cell::new(0),
            resolving: RefCell::new(None),
            resolved_at: Cell::new(None),
            open: Rc::default(),
            connects_total: Cell::new(0),
            connect_failures_total: Cell::new(0),
        }
    }

    /// Connections that exist now.
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    pub(super) fn connects_total(&self) -> u64 {
        self.connects_total.get()
    }

    pub(super) fn connect_failures_total(&self) -> u64 {
        self.connect_failures_total.get()
    }

    /// Opens a connection on which nothing has arrived yet.
    ///
    /// Tries each address once, beginning with the one that worked last, all within the connect timeout.
    pub(super) async fn connect(&self) -> io::Result<Connection> {
        self.take_resolved();
        let result = timeout(self.connect_timeout, self.try_addresses()).await.unwrap_or_else(|_| {
            // The address that swallowed the attempt is not where the next one begins.
            self.move_on_from(self.preferred.get());
            Err(io::ErrorKind::TimedOut.into())
        });
        match &result {
            Ok(_) => {
                self.failures.set(0);
                self.connects_total.set(self.connects_total.get() + 1);
            }
            Err(_) => self.note_failure(),
        }
        result
    }

    async fn try_addresses(&self) -> io::Result<Connection> {
        let count = self.addresses.borrow().len();
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for _ in 0..count {
            let preferred = self.preferred.get();
            // The list may be exchanged while this task waits: look at it anew each time, and hold no borrow.
            let Some(address) = self.addresses.borrow().get(preferred % count.max(1)).copied() else { break };
            match self.try_address(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
            self.move_on_from(preferred);
        }
        Err(last)
    }

    async fn try_address(&self, address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_addr(address).await?;
        // Nobody listening on a local port from the ephemeral range: the kernel may connect the socket to itself,
        // and the request would be read back as its own answer.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        let mut connection = Connection::new(stream, &self.open);
        if connection.is_quiet() { Ok(connection) } else { Err(io::ErrorKind::ConnectionReset.into()) }
    }

    /// Prefers the next address, unless another task has moved on already.
    fn move_on_from(&self, preferred: usize) {
        if self.preferred.get() == preferred {
            self.preferred.set(preferred.wrapping_add(1));
        }
    }

    fn note_failure(&self) {
        self.connect_failures_total.set(self.connect_failures_total.get() + 1);
        self.failures.set(self.failures.get().saturating_add(1));
        let asked_lately = self
            .resolved_at
            .get()
            .is_some_and(|at| at.elapsed() < Duration::from_millis(RESOLVE_INTERVAL_MS));
        let is_unresolved = self.addresses.borrow().is_empty();
        if (is_unresolved || self.failures.get() >= FAILURES_TO_RESOLVE)
            && self.endpoint.is_by_name()
            && self.resolving.borrow().is_none()
            && !asked_lately
        {
            self.resolved_at.set(Some(Instant::now()));
            *self.resolving.borrow_mut() = self.endpoint.resolve_in_thread();
        }
    }

    fn take_resolved(&self) {
        let mut resolving = self.resolving.borrow_mut();
        let Some(receiver) = resolving.as_ref() else { return };
        match receiver.try_recv() {
            Ok(found) => {
                if !found.is_empty() {
                    *self.addresses.borrow_mut() = found;
                    self.preferred.set(0);
                }
                *resolving = None;
            }
            // The thread ended without an answer.
            Err(TryRecvError::Disconnected) => *resolving = None,
            Err(TryRecvError::Empty) => {}
        }
    }
}
