//! Opens connections to a processor, and knows where its name points now.
//!
//! A processor may come back under another address, and its old one may belong to another processor then. So the name is
//! asked for every few seconds while it is in use ([`Resolver::interval`]), after [`FAILURES_TO_RESOLVE`] failures in
//! a row, and when a peer has hung up; at most once a second, on the resolver's thread. The next connection goes to
//! what was found, and one to an address that has left the list is never used for another attempt
//! ([`Connector::keeps`]); an attempt that is on its way stays where it is. An answer without addresses changes nothing,
//! nor does one with the same addresses in another order.
//!
//! A connection that follows a hang-up, or a long rest, waits for the resolver's word first, for
//! [`ANSWER_WAIT_MS_MAX`] at most. What happens to an address between two answers cannot be known here.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use monoio::net::TcpStream;
use monoio::time::{sleep, timeout};

use super::connection::{Connection, Connections};
use super::endpoint::Endpoint;
use super::resolver::Resolver;
use super::socket::SocketOptions;
use super::stream::{Stream, TlsStream};
use super::tls::{TlsClient, TlsProblem};

/// Failures in a row before the name is resolved again: more than one restart's refused connect or two.
const FAILURES_TO_RESOLVE: u32 = 3;

/// The least time between two questions to the resolver.
const QUESTION_INTERVAL_MS: u64 = 1000;

/// How long a connect waits for a question's answer, counted from the question: a name server on the same machine or
/// network takes 1 ms, and one that hangs must not hold up every connect.
const ANSWER_WAIT_MS_MAX: u64 = 25;

/// Addresses tried for one connection. More than a handful would only divide the connect timeout into nothing.
const TRIES_MAX: usize = 8;

/// Knows where a processor is and opens connections to it.
pub(super) struct Connector {
    endpoint: Endpoint,
    connect_timeout: Duration,
    socket: SocketOptions,
    tls: Option<Rc<TlsClient>>,
    addresses: RefCell<Vec<SocketAddr>>,
    /// Counts the lists of addresses.
    list: Cell<u32>,
    preferred: Cell<usize>,
    failures: Cell<u32>,
    host: Arc<str>,
    /// `None` where asking could change nothing.
    resolver: Option<Resolver>,
    answer: RefCell<Option<Receiver<Vec<SocketAddr>>>>,
    asked_at: Cell<Option<Instant>>,
    answered_at: Cell<Instant>,
    connections: Rc<Connections>,
    connects_total: Cell<u64>,
    connect_failures_total: Cell<u64>,
}

impl Connector {
    /// # Panics
    ///
    /// When the endpoint's URL is `https://` and [`Endpoint::secure`] was forgotten: a request in plain text must not
    /// be the consequence.
    pub(super) fn new(endpoint: Endpoint, connect_timeout: Duration, socket: SocketOptions) -> Self {
        let tls = endpoint.tls().map(|tls| Rc::new(tls.client(endpoint.to_string())));
        assert_eq!(tls.is_some(), endpoint.is_https(), "an endpoint with https:// is secured before its use");
        Self {
            addresses: RefCell::new(endpoint.addresses().to_vec()),
            host: endpoint.host().into(),
            resolver: endpoint.resolver(),
            endpoint,
            connect_timeout,
            socket,
            tls,
            list: Cell::new(0),
            preferred: Cell::new(0),
            failures: Cell::new(0),
            answer: RefCell::new(None),
            asked_at: Cell::new(None),
            // The endpoint's own addresses are as old as the process.
            answered_at: Cell::new(Instant::now()),
            connections: Rc::default(),
            connects_total: Cell::new(0),
            connect_failures_total: Cell::new(0),
        }
    }

    /// Connections that exist now.
    pub(super) fn open(&self) -> usize {
        self.connections.open.get()
    }

    pub(super) fn connects_total(&self) -> u64 {
        self.connects_total.get()
    }

    pub(super) fn connect_failures_total(&self) -> u64 {
        self.connect_failures_total.get()
    }

    pub(super) fn tls_handshakes_total(&self) -> u64 {
        self.tls.as_ref().map_or(0, |tls| tls.handshakes_total.get())
    }

    pub(super) fn tls_resumed_total(&self) -> u64 {
        self.tls.as_ref().map_or(0, |tls| tls.resumed_total.get())
    }

    pub(super) fn tls_errors_total(&self) -> [u64; TlsProblem::ALL.len()] {
        self.tls.as_ref().map_or_else(Default::default, |tls| tls.errors_total())
    }

    /// Whether a connection still goes to where the name points, as far as is known.
    pub(super) fn keeps(&self, connection: &Connection) -> bool {
        let list = self.list.get();
        if connection.listed.get() == list {
            return true;
        }
        let is_listed = self.addresses.borrow().contains(&connection.address());
        if is_listed {
            connection.listed.set(list);
        }
        is_listed
    }

    /// Takes note of what the resolver has found, and asks it again when that is old. Called while the processor is in
    /// use or connections to it are kept; costs two comparisons.
    pub(super) fn refresh(&self, now: Instant) {
        self.take_answer();
        let Some(interval) = self.refresh_interval() else { return };
        if now.saturating_duration_since(self.asked_at.get().unwrap_or(self.answered_at.get())) >= interval {
            self.ask(now);
        }
    }

    /// `None` where asking could change nothing.
    pub(super) fn refresh_interval(&self) -> Option<Duration> {
        self.resolver.as_ref().map(|resolver| resolver.interval)
    }

    /// Opens a connection on which nothing has arrived yet; under TLS, behind its handshake.
    ///
    /// Tries each address once, beginning with the one that worked last, all within the connect timeout, of which each has
    /// a fair share.
    pub(super) async fn connect(&self) -> io::Result<Connection> {
        let deadline = Instant::now() + self.connect_timeout;
        self.take_answer();
        self.hear_of_moves().await;
        let result = self.try_addresses(deadline).await;
        match &result {
            Ok(_) => {
                self.failures.set(0);
                self.connects_total.set(self.connects_total.get() + 1);
            }
            Err(_) => self.note_failure(),
        }
        result
    }

    /// Asks the resolver before a connection where the last answer may be out of date.
    async fn hear_of_moves(&self) {
        let Some(interval) = self.refresh_interval() else { return };
        let has_hung_up = self.connections.hung_up.replace(false);
        if !has_hung_up && self.answered_at.get().elapsed() < 2 * interval {
            return;
        }
        self.ask(Instant::now());
        let wait = Duration::from_millis(ANSWER_WAIT_MS_MAX);
        while self.answer.borrow().is_some() && self.asked_at.get().is_some_and(|at| at.elapsed() < wait) {
            // Its thread cannot wake this one's ring.
            sleep(Duration::from_millis(1)).await;
            self.take_answer();
        }
    }

    async fn try_addresses(&self, deadline: Instant) -> io::Result<Connection> {
        let count = self.addresses.borrow().len();
        let tries = count.min(TRIES_MAX);
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for tried in 0..tries {
            let preferred = self.preferred.get();
            let list = self.list.get();
            // The list may be exchanged while this task waits: look at it anew each time, and hold no borrow.
            let Some(address) = self.addresses.borrow().get(preferred % count.max(1)).copied() else { break };
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(tries - tried).expect("a handful");
            match timeout(share, self.try_address(address, list)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            self.move_on_from(preferred);
        }
        Err(last)
    }

    async fn try_address(&self, address: SocketAddr, list: u32) -> io::Result<Connection> {
        let tcp = TcpStream::connect_addr(address).await?;
        // Nobody listening on a local port from the ephemeral range: the kernel may connect the socket to itself,
        // and the request would be read back as its own answer.
        if tcp.local_addr()? == tcp.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        tcp.set_nodelay(true)?;
        self.socket.apply(&tcp)?;
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            // Boxed: its state would be part of every lane's task, and is needed once for each connection.
            Some(tls) => Stream::Tls(Box::pin(TlsStream::connect(tcp, Rc::clone(tls))).await?),
        };
        let mut connection = Connection::new(stream, address, list, &self.connections);
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
        let is_unresolved = self.addresses.borrow().is_empty();
        if is_unresolved || self.failures.get() >= FAILURES_TO_RESOLVE {
            self.ask(Instant::now());
        }
    }

    /// Asks the resolver, unless that was done lately or its answer is still on its way.
    fn ask(&self, now: Instant) {
        let Some(resolver) = &self.resolver else { return };
        let pause = Duration::from_millis(QUESTION_INTERVAL_MS).min(resolver.interval);
        let is_early = self.asked_at.get().is_some_and(|at| now.saturating_duration_since(at) < pause);
        let mut answer = self.answer.borrow_mut();
        if answer.is_none() && !is_early {
            self.asked_at.set(Some(now));
            *answer = Some(resolver.ask(&self.host, self.endpoint.port()));
        }
    }

    fn take_answer(&self) {
        let mut answer = self.answer.borrow_mut();
        let Some(receiver) = answer.as_ref() else { return };
        match receiver.try_recv() {
            Ok(found) => {
                *answer = None;
                self.answered_at.set(Instant::now());
                self.set_addresses(found);
            }
            // No answer. Those who waited for it have waited enough.
            Err(TryRecvError::Disconnected) => *answer = None,
            Err(TryRecvError::Empty) => {}
        }
    }

    /// Exchanges the list if it differs by more than its order, which name servers turn for each answer.
    fn set_addresses(&self, found: Vec<SocketAddr>) {
        let mut addresses = self.addresses.borrow_mut();
        let is_same =
            found.len() == addresses.len() && found.iter().all(|address| addresses.contains(address));
        if found.is_empty() || is_same {
            return;
        }
        // What works stays preferred.
        let preferred = addresses.get(self.preferred.get() % addresses.len().max(1)).copied();
        let index = preferred.and_then(|preferred| found.iter().position(|address| *address == preferred));
        self.preferred.set(index.unwrap_or(0));
        tracing::info!("{} is at {found:?} now, no longer at {:?}", self.endpoint, *addresses);
        self.list.set(self.list.get().wrapping_add(1));
        *addresses = found;
    }
}
