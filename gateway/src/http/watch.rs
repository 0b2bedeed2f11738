//! Who is connected, since when, and what happens when one takes too long or all must leave.
//!
//! One sweep per thread looks at every connection a few times a second, instead of a timer per read: a request costs
//! a store into a cell, not two trips through a timer wheel, and no read or write is ever dropped half done. (On
//! io_uring a dropped read may have taken bytes with it.) A connection past its deadline has its socket *shut down*,
//! which makes the kernel finish the pending operation: first with the bytes that had arrived, then with end of
//! stream. So a request that raced with its deadline, or with a graceful stop, is still served.
//!
//! Deadlines are met late by at most two sweeps, never early. What this must never do: touch a descriptor whose
//! connection has gone. A [`Ticket`] leaves the registry before its socket closes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use monoio::time::Instant;

use super::HttpConfig;

/// How long a refused client may take to read its refusal before the connection is cut.
const LINGER_MS: u64 = 1_000;
/// The sweep's pace: a tenth of the default request deadline, two wake-ups a second.
const SWEEP_MS_MAX: u64 = 500;

/// What a connection is doing, as far as its deadline is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests: nothing of the next one has arrived.
    Idle,
    /// Part of a request has arrived.
    Reading,
    /// The service has the request.
    Serving,
    /// An answer is being written.
    Writing,
    /// The last answer is written; waiting for the client to read it and leave.
    Lingering,
}

struct Entry {
    fd: RawFd,
    phase: Cell<Phase>,
    deadline_ms: Cell<u64>,
    expired: Cell<bool>,
}

impl Entry {
    fn shut(&self, how: Shutdown) {
        // SAFETY: the descriptor is open: an entry leaves the registry, in `Ticket::drop`, before its socket is dropped.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        if let Err(error) = socket2::SockRef::from(&fd).shutdown(how) {
            // ENOTCONN: the peer has gone already, and the pending operation knows.
            tracing::debug!(%error, "shutting a connection down");
        }
    }
}

/// All connections of one thread.
pub(super) struct Registry {
    config: HttpConfig,
    entries: RefCell<BTreeMap<u64, Rc<Entry>>>,
    next_key: Cell<u64>,
    started: Instant,
    now_ms: Cell<u64>,
    sweep_ms: u64,
    stopping: Cell<bool>,
    drained: Cell<Option<Waker>>,
}

impl Registry {
    pub(super) fn new(config: HttpConfig) -> Self {
        Self {
            config,
            entries: RefCell::default(),
            next_key: Cell::new(0),
            started: Instant::now(),
            now_ms: Cell::new(0),
            sweep_ms: (config.request_timeout_ms.min(config.idle_timeout_ms) / 8).clamp(1, SWEEP_MS_MAX),
            stopping: Cell::new(false),
            drained: Cell::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.config.connections_max
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Registers a connection; the ticket must be dropped before the socket.
    pub(super) fn admit(self: &Rc<Self>, fd: RawFd) -> Ticket {
        let key = self.next_key.get();
        self.next_key.set(key + 1);
        let entry = Rc::new(Entry {
            fd,
            phase: Cell::new(Phase::Idle),
            deadline_ms: Cell::new(u64::MAX),
            expired: Cell::new(false),
        });
        self.entries.borrow_mut().insert(key, Rc::clone(&entry));
        let ticket = Ticket { registry: Rc::clone(self), key, entry };
        ticket.idle();
        ticket
    }

    /// Lets idle connections go; the others close after the answer they are at.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        for entry in self.entries.borrow().values().filter(|entry| entry.phase.get() == Phase::Idle) {
            entry.shut(Shutdown::Read);
        }
        self.wake_if_drained();
    }

    /// Completes once the registry is stopped and empty.
    pub(super) async fn drained(&self) {
        std::future::poll_fn(|context| {
            if self.stopping.get() && self.entries.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.drained.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn wake_if_drained(&self) {
        if self.stopping.get()
            && self.entries.borrow().is_empty()
            && let Some(waker) = self.drained.take()
        {
            waker.wake();
        }
    }

    /// Sweeps until the registry is stopped and empty.
    pub(super) async fn sweep_all(self: Rc<Self>) {
        while !(self.stopping.get() && self.entries.borrow().is_empty()) {
            monoio::time::sleep(Duration::from_millis(self.sweep_ms)).await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now_ms.set(now_ms);
        for entry in self.entries.borrow().values().filter(|entry| entry.deadline_ms.get() <= now_ms) {
            entry.expired.set(true);
            entry.deadline_ms.set(u64::MAX);
            entry.shut(match entry.phase.get() {
                Phase::Idle | Phase::Reading => Shutdown::Read,
                Phase::Serving | Phase::Writing | Phase::Lingering => Shutdown::Both,
            });
        }
    }

    /// The deadline of what starts now and may take `duration_ms`. The clock read here is up to one sweep old.
    fn deadline_ms(&self, duration_ms: u64) -> u64 {
        self.now_ms.get().saturating_add(duration_ms).saturating_add(self.sweep_ms)
    }
}

/// One connection's place in the registry.
pub(super) struct Ticket {
    registry: Rc<Registry>,
    key: u64,
    entry: Rc<Entry>,
}

impl Ticket {
    fn enter(&self, phase: Phase, duration_ms: Option<u64>) {
        self.entry.phase.set(phase);
        self.entry
            .deadline_ms
            .set(duration_ms.map_or(u64::MAX, |duration_ms| self.registry.deadline_ms(duration_ms)));
    }

    /// Between requests.
    pub(super) fn idle(&self) {
        self.enter(Phase::Idle, Some(self.registry.config.idle_timeout_ms));
    }

    /// Part of a request is there. Its deadline counts from the first call after [`idle`](Self::idle).
    pub(super) fn reading(&self) {
        if self.entry.phase.get() == Phase::Idle {
            self.enter(Phase::Reading, Some(self.registry.config.request_timeout_ms));
        }
    }

    /// The service has the request and bounds its own time.
    pub(super) fn serving(&self) {
        self.enter(Phase::Serving, None);
    }

    /// An answer is being written; a client that does not read it holds it up no longer than a request may take.
    pub(super) fn writing(&self) {
        self.enter(Phase::Writing, Some(self.registry.config.request_timeout_ms));
    }

    /// The last answer is written.
    pub(super) fn lingering(&self) {
        self.enter(Phase::Lingering, Some(LINGER_MS));
    }

    /// Whether a deadline has passed: the socket is shut down, at least for reading.
    pub(super) fn is_expired(&self) -> bool {
        self.entry.expired.get()
    }

    /// Whether the connection must not take another request.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_expired() || self.registry.is_stopping()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.entries.borrow_mut().remove(&self.key);
        self.registry.wake_if_drained();
    }
}
