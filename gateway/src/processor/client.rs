//! A client of one processor on one thread: lanes that execute attempts.
//!
//! A *lane* is a long-lived task that owns at most one keep-alive connection and serves one attempt at a time. Idle
//! lanes wait on a stack, so the warmest connection is used first, the rest grow old and are closed, and starting an
//! attempt neither allocates nor spawns once the lanes exist. Their number is bounded by the engine's capacity limit.
//!
//! What is reported depends on two things only, how far the attempt got and why it ended:
//!
//! | got to | whole answer | error, end of stream, garbage | hard timeout, [`Client::give_up`] | shutdown |
//! | --- | --- | --- | --- | --- |
//! | no byte written | – | not sent | not sent | not sent |
//! | a byte may have left | – | unanswered | unanswered | unanswered |
//! | the head, and the rules ask for no more | as the rules say | as the rules say | as the rules say | as the rules say |
//! | the head, and the rules ask for the body | as the rules say | unanswered | unanswered | unanswered |
//!
//! A processor decides before it sends a head, so where its status is all that counts, a body cut short puts nothing in doubt.
//! It does end the connection.
//!
//! Beside that it is reported whether the peer closed a kept connection without a byte of an answer, which peers do to connections that have rested. And
//! whoever finds that nothing is heard on connections has them [renewed](Client::renew).
//!
//! Memory: a lane holds its task (under 4 KiB), a request of 300 bytes and 4 KiB for an answer, so 400 lanes
//! (the default bound) take about 3.4 MB. The worst that a hostile processor can make of it is 32 KiB for an answer in each
//! lane at once, 13 MB; such a connection is closed after its answer. Under TLS a connection takes some 15 KiB more: 5 KiB of buffers (`stream.rs`),
//! rustls' session with its keys, and what rustls has read of a record, 4 KiB at first and up to the 18 KiB of the largest; a hostile handshake
//! 32 KiB (`stream.rs` again) until it is over.
//!
//! It must never send an attempt twice. The one request that is written again is one of which the kernel took no
//! byte, because the peer had closed the idle connection. Whatever goes wrong, `on_end` is called exactly once for
//! each start, on a later turn of the runtime, never from within `start`; and it may call `start` again.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::verdict::{End, Verdict};
use galo_engine::{CorrelationId, Processor};
use galo_profile::{Members, Payment, Processor as Profile, Secret, Unrenderable};
use monoio::time::{sleep, timeout};

use crate::beat::Beat;
use crate::wake::Rounds;

use super::connection::{Connection, SendError};
use super::connector::Connector;
use super::endpoint::Endpoint;
use super::socket::SocketOptions;
use super::tls::TlsProblem;
use super::token::{self, TokenKeeper};

/// How long the rest of an answer may take once its head has said all. All that waiting longer could save is the connection. A processor sends both within a millisecond or so of each other.
const BODY_WAIT_MS_MAX: u64 = 500;

/// What a request's buffer takes at first: twice the contest's. It grows for a longer one, once.
const REQUEST_SIZE: usize = 512;

/// How old a request must be for a turn that something else began to look for its answer: a look that comes too early is a wake-up of its
/// own when the answer comes. A healthy processor takes less, on this machine or on the next one.
const ANSWER_AGE_MIN: Duration = Duration::from_millis(1);

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Which processor this is; repeated in each [`AttemptEnd`].
    pub processor: Processor,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What is sent to it, and what its answers mean.
    pub profile: Arc<Profile>,
    /// Where tokens are asked for, if its profile wants any.
    pub token_endpoint: Option<Endpoint>,
    /// Attempts in flight at most, and with that connections kept.
    pub lanes_max: usize,
    /// The hard timeout of one attempt, connecting included.
    pub attempt_timeout_ms: u64,
    /// How long connecting may take, all addresses and TLS's handshake together.
    pub connect_timeout_ms: u64,
    /// A connection idle for longer is closed, and never used again even if it is still open.
    pub idle_ms_max: u64,
    /// What its sockets are told.
    pub socket: SocketOptions,
}

/// One attempt: what to send, and under which number to report its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The caller's number for this attempt, handed back untouched.
    pub slot: u32,
    /// The payment's id.
    pub correlation_id: CorrelationId,
    /// The payment's amount.
    pub amount_cents: AmountCents,
    /// The instant recorded in the intent, sent as it is.
    pub requested_at: UnixMillis,
    /// What the client sent beside that, as the text of a JSON object.
    pub members: Option<Arc<str>>,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// The attempt's own number.
    pub slot: u32,
    /// Who was asked.
    pub processor: Processor,
    /// What it says.
    pub end: End,
    /// From `start` to this end, connecting included.
    pub latency_us: u64,
    /// What the processor calls the payment, if the answer says that it has it, or may have.
    pub reference: Option<String>,
    /// Instead of an answer, without a byte of one, the processor closed the connection, on which it had answered before.
    pub has_hung_up: bool,
}

/// Counters and gauges for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Connections open now, queries' own included.
    pub connections_open: usize,
    /// Connections opened since start.
    pub connects_total: u64,
    /// Connects that failed since start.
    pub connect_failures_total: u64,
    /// TLS handshakes that succeeded since start.
    pub tls_handshakes_total: u64,
    /// Those of them that took up an earlier session.
    pub tls_resumed_total: u64,
    /// What went wrong with TLS since start, in the order of [`TlsProblem::ALL`].
    pub tls_errors_total: [u64; TlsProblem::ALL.len()],
    /// Lanes that exist, idle or not.
    pub lanes: usize,
}

impl ClientStats {
    fn plus(self, other: Self) -> Self {
        Self {
            connections_open: self.connections_open + other.connections_open,
            connects_total: self.connects_total + other.connects_total,
            connect_failures_total: self.connect_failures_total + other.connect_failures_total,
            tls_handshakes_total: self.tls_handshakes_total + other.tls_handshakes_total,
            tls_resumed_total: self.tls_resumed_total + other.tls_resumed_total,
            tls_errors_total: std::array::from_fn(|index| {
                self.tls_errors_total[index] + other.tls_errors_total[index]
            }),
            lanes: self.lanes + other.lanes,
        }
    }

    /// Its counters, which outlive their client.
    fn totals(self) -> Self {
        Self { connections_open: 0, lanes: 0, ..self }
    }
}

/// In whose place a client came.
enum Predecessor {
    /// One that has something on its way, or has connections.
    Draining(Rc<Client>),
    /// What it had counted; nothing, where there was none.
    Gone(ClientStats),
}

/// A client of one processor, for one thread. Lives as long as the thread's runtime, or until [`Client::shutdown`].
pub struct Client {
    pub(super) config: ClientConfig,
    pub(super) tokens: Option<TokenKeeper>,
    pub(super) connector: Connector,
    on_end: Rc<dyn Fn(AttemptEnd)>,
    beat: Rc<Beat>,
    turns: Rc<Rounds>,
    /// All lanes, for closing them.
    lanes: RefCell<Vec<Rc<Lane>>>,
    /// The idle ones, most recently used last. Never borrowed while anything else runs.
    idle: RefCell<Vec<Rc<Lane>>>,
    in_flight: Cell<usize>,
    is_closing: Cell<bool>,
    /// A connection on which nothing was heard since is not used for another attempt.
    renewed_at: Cell<Option<Instant>>,
    drained: RefCell<Vec<Waker>>,
    predecessor: RefCell<Predecessor>,
    pub(super) queries: Cell<usize>,
    pub(super) lists: Cell<usize>,
}

/// What a lane's task and the rest of the client share.
#[derive(Default)]
struct Lane {
    job: Cell<Option<Job>>,
    /// The connection, while no attempt uses it.
    connection: Cell<Option<Connection>>,
    /// The lane's task, while it waits for a job or for an attempt to end.
    waker: Cell<Option<Waker>>,
    /// The number of the attempt that it executes.
    slot: Cell<Option<u32>>,
    /// That one is to end.
    is_given_up: Cell<bool>,
}

struct Job {
    attempt: Attempt,
    started: Instant,
    reference: Cell<Option<String>>,
    has_hung_up: Cell<bool>,
}

/// How far an attempt got; see the table in this module's header.
#[derive(Clone, Copy)]
enum Progress {
    /// No byte can have left.
    Unsent,
    /// The kernel has been given the request.
    Sent,
    /// The answer's head is here.
    Answered(End),
}

enum Ended {
    /// The exchange is over, well or not.
    ByItself,
    TimedOut,
    GivenUp,
    ByShutdown,
}

impl Client {
    /// Creates a client. Must be called on a monoio runtime with timers, on whose thread it stays.
    ///
    /// `on_end` is called once for each [`Client::start`]. `beat` says when requests leave and answers are read; somebody runs it.
    #[must_use]
    pub fn new(config: ClientConfig, beat: Rc<Beat>, on_end: Rc<dyn Fn(AttemptEnd)>) -> Rc<Self> {
        let client = Rc::new(Self {
            tokens: TokenKeeper::new(&config),
            connector: Connector::new(
                config.endpoint.clone(),
                Duration::from_millis(config.connect_timeout_ms),
                config.socket,
            ),
            on_end,
            beat,
            turns: Rounds::turns(),
            lanes: RefCell::new(Vec::with_capacity(config.lanes_max)),
            idle: RefCell::new(Vec::with_capacity(config.lanes_max)),
            in_flight: Cell::new(0),
            is_closing: Cell::new(false),
            renewed_at: Cell::default(),
            drained: RefCell::default(),
            predecessor: RefCell::new(Predecessor::Gone(ClientStats::default())),
            queries: Cell::new(0),
            lists: Cell::new(0),
            config,
        });
        monoio::spawn(close_old_connections(Rc::downgrade(&client)));
        if client.tokens.is_some() {
            monoio::spawn(token::keep(Rc::downgrade(&client)));
        }
        client
    }

    /// Starts an attempt: one request. After [`Client::shutdown`] it ends as [`End::NOT_SENT`].
    ///
    /// # Panics
    ///
    /// When `lanes_max` attempts are in flight already: the engine's capacity limit must not let that happen.
    pub fn start(self: &Rc<Self>, attempt: Attempt) {
        assert!(self.in_flight.get() < self.config.lanes_max, "more attempts than the capacity limit allows");
        self.in_flight.set(self.in_flight.get() + 1);
        let job = Job {
            attempt,
            started: Instant::now(),
            reference: Cell::default(),
            has_hung_up: Cell::default(),
        };
        if self.is_closing.get() {
            let client = Rc::clone(self);
            monoio::spawn(async move { client.end(&job, End::NOT_SENT) });
            return;
        }
        let idle = self.idle.borrow_mut().pop();
        match idle {
            Some(lane) => {
                let before = lane.job.replace(Some(job));
                assert!(before.is_none(), "an idle lane has no job");
                wake(&lane.waker);
            }
            None => self.open_lane(job),
        }
    }

    /// From now on attempts use no connection that is open now, unless something is heard on it; what is on its way stays where it is.
    pub fn renew(&self) {
        self.renewed_at.set(Some(Instant::now()));
        self.idle.borrow().iter().for_each(|lane| drop(lane.connection.take()));
    }

    /// Ends an attempt as if its time were over. One that has ended already is reported as it ended.
    pub fn give_up(&self, slot: u32) {
        if let Some(lane) = self.lanes.borrow().iter().find(|lane| lane.slot.get() == Some(slot)) {
            lane.is_given_up.set(true);
            wake(&lane.waker);
        }
    }

    /// Attempts started and not yet ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Resolves when no attempt is in flight.
    pub async fn drained(&self) {
        poll_fn(|context| {
            if self.in_flight.get() == 0 {
                return Poll::Ready(());
            }
            let mut waiting = self.drained.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Ends every attempt in flight as the table in this module's header says, closes all connections and ends the
    /// lanes. Wait for [`Client::drained`] afterwards: the ends are reported as the lanes get their turn.
    pub fn shutdown(&self) {
        self.is_closing.set(true);
        self.tokens.iter().for_each(TokenKeeper::stir);
        self.idle.borrow_mut().clear();
        for lane in self.lanes.borrow_mut().drain(..) {
            drop(lane.connection.take());
            wake(&lane.waker);
        }
    }

    /// Goes on with what the client had counted in whose place it comes, and with its token, if it would ask for it in the same way.
    pub fn inherit(&self, before: &Rc<Self>) {
        *self.predecessor.borrow_mut() = Predecessor::Draining(Rc::clone(before));
        if let (Some(tokens), Some(old)) = (&self.tokens, &before.tokens)
            && self.config.profile.auth == before.config.profile.auth
        {
            tokens.inherit(old);
        }
    }

    /// Ends the client in whose place it came once nothing of it is on its way: that ends as it began.
    pub async fn bury_predecessor(&self) {
        let before = match &*self.predecessor.borrow() {
            Predecessor::Draining(before) => Rc::clone(before),
            Predecessor::Gone(_) => return,
        };
        before.drained().await;
        before.shutdown();
        *self.predecessor.borrow_mut() = Predecessor::Gone(before.stats().totals());
    }

    /// What it knows of its processor.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.config.profile
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Counters and gauges as they stand, those of its predecessors included: a counter never goes back because a file was read again.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        let before = match &*self.predecessor.borrow() {
            Predecessor::Draining(before) => before.stats(),
            Predecessor::Gone(totals) => *totals,
        };
        before.plus(self.own_stats())
    }

    fn own_stats(&self) -> ClientStats {
        // The authorization server's connections are the processor's to whoever looks for what is wrong with it.
        let connectors = || self.tokens.iter().map(TokenKeeper::connector).chain([&self.connector]);
        ClientStats {
            connections_open: connectors().map(Connector::open).sum(),
            connects_total: connectors().map(Connector::connects_total).sum(),
            connect_failures_total: connectors().map(Connector::connect_failures_total).sum(),
            tls_handshakes_total: connectors().map(Connector::tls_handshakes_total).sum(),
            tls_resumed_total: connectors().map(Connector::tls_resumed_total).sum(),
            tls_errors_total: connectors()
                .map(Connector::tls_errors_total)
                .fold(Default::default(), |sum, these| {
                    std::array::from_fn(|index| sum[index] + these[index])
                }),
            lanes: self.lanes.borrow().len(),
        }
    }

    fn open_lane(self: &Rc<Self>, job: Job) {
        let lane = Rc::new(Lane { job: Cell::new(Some(job)), ..Lane::default() });
        let mut lanes = self.lanes.borrow_mut();
        assert!(lanes.len() < self.config.lanes_max, "a lane is idle or has an attempt in flight");
        lanes.push(Rc::clone(&lane));
        monoio::spawn(Rc::clone(self).serve(lane));
    }

    /// A lane's task.
    async fn serve(self: Rc<Self>, lane: Rc<Lane>) {
        let mut request = Vec::with_capacity(REQUEST_SIZE);
        while let Some(job) = self.next_job(&lane).await {
            lane.slot.set(Some(job.attempt.slot));
            lane.is_given_up.set(false);
            let end = self.attempt(&lane, &job, &mut request).await;
            lane.slot.set(None);
            if !self.is_closing.get() {
                self.idle.borrow_mut().push(Rc::clone(&lane));
            }
            // Nothing is borrowed here: this may call `start`, which may well take this very lane.
            self.end(&job, end);
        }
    }

    /// The lane's next job; `None` when the client is closing and no job is left.
    async fn next_job(&self, lane: &Lane) -> Option<Job> {
        // A chain of attempts that fail without waiting for anything (no address known) would otherwise keep this
        // task running for as long as `on_end` starts the next: let the others have their turn.
        if has_job(lane) {
            self.turns.next().await;
        }
        poll_fn(|context| {
            if let Some(job) = lane.job.take() {
                return Poll::Ready(Some(job));
            }
            if self.is_closing.get() {
                return Poll::Ready(None);
            }
            lane.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Executes one attempt and says what was seen.
    async fn attempt(&self, lane: &Lane, job: &Job, request: &mut Vec<u8>) -> End {
        if self.is_closing.get() {
            return End::NOT_SENT;
        }
        let progress = Cell::new(Progress::Unsent);
        let ended = {
            let mut exchange = pin!(self.exchange(lane, job, request, &progress));
            let mut hard_timeout = pin!(sleep(Duration::from_millis(self.config.attempt_timeout_ms)));
            poll_fn(|context| {
                // The exchange first: an answer that is here counts, however late it is looked at.
                if exchange.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Ended::ByItself);
                }
                if self.is_closing.get() {
                    return Poll::Ready(Ended::ByShutdown);
                }
                if lane.is_given_up.get() {
                    return Poll::Ready(Ended::GivenUp);
                }
                if hard_timeout.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Ended::TimedOut);
                }
                lane.waker.set(Some(context.waker().clone()));
                Poll::Pending
            })
            .await
            // Here the exchange is dropped, and with it the connection unless it was handed back to the lane.
        };
        match (progress.get(), ended) {
            (Progress::Unsent, _) => End::NOT_SENT,
            (Progress::Sent, Ended::TimedOut | Ended::GivenUp | Ended::ByItself | Ended::ByShutdown) => {
                End::UNANSWERED
            }
            (Progress::Answered(end), _) => end,
        }
    }

    /// Sends the request and reads the answer; `progress` tells how far it came. Returns early on any error.
    async fn exchange(&self, lane: &Lane, job: &Job, request: &mut Vec<u8>, progress: &Cell<Progress>) {
        self.beat.turn_end().await;
        self.connector.refresh(job.started);
        let kept = lane.connection.take().and_then(|kept| self.still_good(kept, job.started));
        let mut is_fresh = kept.is_none();
        let mut connection = match kept {
            Some(kept) => kept,
            None => match self.connector.connect().await {
                Ok(connection) => connection,
                Err(_) => return,
            },
        };
        if request.capacity() == 0 {
            // The buffer went down with an attempt that ended in the middle of its write.
            request.reserve(REQUEST_SIZE);
        }
        let Attempt { correlation_id, amount_cents, requested_at, members, .. } = &job.attempt;
        let (correlation_id, amount_cents, requested_at) = (*correlation_id, *amount_cents, *requested_at);
        let members = match members.as_deref().map(Members::read) {
            None => Members::default(),
            Some(Some(members)) => members,
            Some(None) => {
                // Better not sent than sent without them.
                return tracing::error!("{correlation_id}: its members are no JSON object");
            }
        };
        let payment = Payment { correlation_id, amount: amount_cents, requested_at, members: &members };
        let token = self.token();
        match self.config.profile.request.render(&payment, token.as_ref(), request) {
            Ok(()) => {}
            // It is none that this processor could take: no byte of it ever leaves.
            Err(Unrenderable::Amount) => {
                return progress.set(Progress::Answered(End { verdict: Verdict::Declined, ..End::NOT_SENT }));
            }
            Err(Unrenderable::NoToken | Unrenderable::NoReference) => return,
        }
        loop {
            progress.set(Progress::Sent);
            let (result, buffer) = connection.send(std::mem::take(request)).await;
            *request = buffer;
            match result {
                Ok(()) => break,
                Err(SendError::Nothing) => {
                    progress.set(Progress::Unsent);
                    if is_fresh {
                        return;
                    }
                    // The peer closed the idle connection after the check. No byte left, so this is not a second
                    // sending.
                    is_fresh = true;
                    match self.connector.connect().await {
                        Ok(fresh) => connection = fresh,
                        Err(_) => return,
                    }
                }
                Err(SendError::Partly) => return job.has_hung_up.set(!is_fresh),
            }
        }
        self.beat.after(ANSWER_AGE_MIN).await;
        let Ok(head) = connection.read_head().await else {
            return job.has_hung_up.set(!is_fresh && !connection.has_begun());
        };
        let status = head.status;
        let is_judged_by_body = self.config.profile.answers.rules.needs_body(status);
        if !is_judged_by_body {
            progress.set(Progress::Answered(connection.judge(&head, &[], &self.config.profile.answers)));
        }
        // A body that says what became of the payment may take as long as the attempt.
        let body_wait = Duration::from_millis(if is_judged_by_body {
            self.config.attempt_timeout_ms
        } else {
            BODY_WAIT_MS_MAX
        });
        let is_read = self.config.profile.answers.needs_body(status);
        let (retry_after_ms, mut body) = (head.retry_after_ms, Vec::new());
        let take = |piece: &[u8]| {
            if is_read {
                body.extend_from_slice(piece);
            }
        };
        let whole = timeout(body_wait, connection.read_body(head, take)).await;
        if let Ok(Ok(_)) = whole
            && is_judged_by_body
        {
            let page = connection.page(status, &body);
            let verdict = self.config.profile.answers.rules.judge(&page);
            progress.set(Progress::Answered(End { verdict, status, retry_after_ms }));
        }
        if let Progress::Answered(end) = progress.get() {
            self.heed(end, token.as_ref(), &body);
            if matches!(
                end.verdict,
                Verdict::Processed | Verdict::Duplicate | Verdict::Pending | Verdict::Unknown
            ) {
                job.reference.set(self.config.profile.answers.reference(&body));
            }
        }
        if let Ok(Ok(true)) = whole
            && !self.is_closing.get()
        {
            connection.set_idle();
            lane.connection.set(Some(connection));
        }
    }

    /// The token that requests carry now, if they carry any.
    pub(super) fn token(&self) -> Option<Secret> {
        self.tokens.as_ref()?.current()
    }

    /// A processor answered a request that carried this token.
    pub(super) fn heed_status(&self, status: u16, token: Option<&Secret>) {
        if status == 401
            && let (Some(tokens), Some(token)) = (&self.tokens, token)
        {
            tokens.refused(token);
        }
    }

    /// What an answer says beside its verdict.
    fn heed(&self, end: End, token: Option<&Secret>, body: &[u8]) {
        self.heed_status(end.status, token);
        if matches!(end.verdict, Verdict::Declined | Verdict::Unavailable)
            && let Some(reason) = self.config.profile.answers.reason(body)
        {
            tracing::debug!("{}: {} {}: {reason}", self.config.profile.name, end.verdict.name(), end.status);
        }
    }

    /// `connection`, unless it has been idle for too long, is older than the last [renewal](Self::renew), goes to where the name no
    /// longer points, or something arrived on it.
    fn still_good(&self, mut connection: Connection, now: Instant) -> Option<Connection> {
        let idle = now.saturating_duration_since(connection.idle_since());
        (idle <= Duration::from_millis(self.config.idle_ms_max)
            && self.renewed_at.get().is_none_or(|at| connection.idle_since() > at)
            && self.connector.keeps(&connection)
            && connection.is_quiet())
        .then_some(connection)
    }

    fn end(&self, job: &Job, end: End) {
        self.in_flight.set(self.in_flight.get() - 1);
        (self.on_end)(AttemptEnd {
            slot: job.attempt.slot,
            processor: self.config.processor,
            end,
            latency_us: u64::try_from(job.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            reference: job.reference.take(),
            has_hung_up: job.has_hung_up.get(),
        });
        if self.in_flight.get() == 0 {
            for waker in self.drained.take() {
                waker.wake();
            }
        }
    }
}

fn has_job(lane: &Lane) -> bool {
    let job = lane.job.take();
    let has_job = job.is_some();
    lane.job.set(job);
    has_job
}

fn wake(waker: &Cell<Option<Waker>>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Closes connections that nobody has used for longer than allowed, or that go to where the name no longer points: a peer
/// closes them sooner or later, and each costs both sides a descriptor and buffers. While there are some, the name is
/// watched.
async fn close_old_connections(client: Weak<Client>) {
    while let Some(client) = client.upgrade().filter(|client| !client.is_closing.get()) {
        let (idle_max, connector) = (Duration::from_millis(client.config.idle_ms_max), &client.connector);
        let mut kept_count = 0;
        for lane in client.idle.borrow().iter() {
            let connection = lane.connection.take().filter(|connection| {
                connection.idle_since().elapsed() <= idle_max && connector.keeps(connection)
            });
            kept_count += usize::from(connection.is_some());
            lane.connection.set(connection);
        }
        if kept_count > 0 {
            connector.refresh(Instant::now());
        }
        let pause = connector.refresh_interval().map_or(idle_max / 2, |interval| interval.min(idle_max / 2));
        drop(client);
        sleep(pause.max(Duration::from_millis(20))).await;
    }
}
