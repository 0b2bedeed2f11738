//! One thread of the gateway: the engine's dispatcher, and whoever carries its actions out.
//!
//! Every event goes through [`Core::event`]: the dispatcher is told, then its actions are executed, in order, with
//! nothing borrowed. So an action may cause the next event on the spot.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use galo_engine::dispatcher::{Action, Answer, Dispatcher, ProcessorPolicy};
use galo_engine::money::AmountCents;
use galo_engine::time::{Now, UnixMillis};
use galo_engine::{
    CorrelationId, History, PROCESSORS_LEN_MAX, Processor, STATUS_CANCELLED, STATUS_EXPIRED, STATUS_SETTLED,
    Stage,
};
use galo_shell::clock::Clock;
use galo_shell::processors::Names;
use galo_wire::record::{
    CancelQuery, Flush, LookupQuery, LookupReply, Notice, PurgeQuery, REQUESTED_AT_MS_MAX, Standing,
    SummaryQuery, SummaryReply, SummaryTotal,
};
use galo_wire::{Attached, FrameWriter, Message};

use crate::admission::Admission;
use crate::beat::Beat;
use crate::config::{Config, Reached};
use crate::http::Service;
use crate::http::service::{
    Accepted, DeclineCause, Endpoint, NotificationAnswer, PaymentState, PaymentView, PurgeError, Reference,
    Summary, Totals, Unreachable,
};
use crate::metrics::{Board, Requests, Snapshot};
use crate::pace::Pacer;
use crate::probe::Probe;
use crate::processor::{Attempt, AttemptEnd, Client, ClientConfig, SocketOptions};
use crate::reload::Reloaded;
use crate::wake::{Calls, Flag, Rounds};

/// Bytes that may wait for the aggregator, beyond what is said right after the hello. A healthy one is owed what came during one of
/// its pauses: 4 MiB are 80,000 accepts, eight seconds at 10,000 a second. One that lets more pile up does not read; the link is cut
/// and tried again, and the questions that waited in it end.
const FRAMES_SIZE_MAX: usize = 4 << 20;

/// How long what can wait for company waits for it: [`Message::can_wait`].
const COMPANY_WAIT_US: u64 = 25_000;

/// The aggregator's answer to a question of ours.
#[derive(Clone, Copy, Debug)]
enum Reply {
    Summary(Summary),
    Lookup(LookupReply, History, Option<Reference>),
    Purged,
    /// The connection went away with the question.
    Lost,
}

/// See the module's documentation.
pub struct Core {
    dispatcher: RefCell<Dispatcher>,
    /// By [`Processor::index`].
    clients: RefCell<Vec<Option<Rc<Client>>>>,
    names: Arc<Names>,
    /// The members of a POST that go to some processor.
    client_members: RefCell<Option<Rc<[String]>>>,
    clock: Clock,
    posts: Calls<Answer>,
    queries: Calls<Reply>,
    /// What has come of a look-up's decisions.
    gathering: Cell<History>,
    /// What has come of a summary's totals, and how many they are.
    totals: Cell<([Totals; PROCESSORS_LEN_MAX], u8)>,
    admission: Admission,
    /// What the link is to send; its writer waits for `outgoing`.
    pub(crate) frames: RefCell<FrameWriter>,
    pub(crate) outgoing: Flag,
    /// How large `frames` may get before the link is cut.
    frames_size_max: Cell<usize>,
    /// The socket of the link that stands, to cut it while its reader and its writer wait; `None` once it is cut.
    link: RefCell<Option<StdUnixStream>>,
    connected: Cell<bool>,
    /// Counts the links that broke, so that the writer of one of them knows.
    link_number: Cell<u64>,
    spare_actions: Cell<Vec<Action>>,
    requests: RefCell<Requests>,
    board: Rc<Board>,
    /// There was an event: time may matter again.
    stirred: Flag,
    /// When the clients of the processors have their turn.
    beat: Rc<Beat>,
    /// All that the processors have answered is read and in `frames` at the end of such a round.
    looks: Rounds,
    /// The aggregator's last question for that, and the number of the link on which it came. An earlier one is over.
    flush: Cell<Option<(Flush, u64)>>,
    /// Told of every event, for it to have the thread rest when there are many.
    pub pacer: Rc<Pacer>,
    reply_wait: Duration,
    purge_allowed: bool,
    /// By what became of them.
    notifications: Cell<[u64; NotificationAnswer::COUNT]>,
}

impl Core {
    /// The core of one thread, with its clients of all processors. Needs a running monoio runtime.
    ///
    /// # Errors
    /// If there are no two descriptors left.
    pub fn start(
        config: &Config,
        reached: Vec<Reached>,
        clock: Clock,
        board: Rc<Board>,
    ) -> std::io::Result<Rc<Self>> {
        let probe = Probe::new()?;
        let core = Rc::new(Self {
            dispatcher: RefCell::new(Dispatcher::new(config.dispatcher)),
            clients: RefCell::new(vec![None; PROCESSORS_LEN_MAX]),
            clock,
            posts: Calls::default(),
            queries: Calls::default(),
            names: Arc::clone(&config.names),
            client_members: RefCell::new(client_members(&reached)),
            gathering: Cell::new(History::EMPTY),
            totals: Cell::default(),
            admission: Admission::new(config.admission_table.clone()),
            frames: RefCell::new(FrameWriter::with_capacity(64 << 10)),
            outgoing: Flag::default(),
            frames_size_max: Cell::new(usize::MAX),
            link: RefCell::default(),
            connected: Cell::new(false),
            link_number: Cell::new(0),
            spare_actions: Cell::default(),
            requests: RefCell::default(),
            board,
            stirred: Flag::default(),
            beat: Rc::default(),
            looks: Rounds::default(),
            flush: Cell::default(),
            pacer: Rc::default(),
            reply_wait: Duration::from_micros(config.dispatcher.accept_wait_us_max),
            purge_allowed: config.purge_allowed,
            notifications: Cell::default(),
        });
        for one in reached {
            core.add_client(one, &config.dispatcher.processors);
        }
        monoio::spawn(Rc::clone(&core.beat).run());
        monoio::spawn(Rc::clone(&core).look(probe));
        Ok(core)
    }

    fn add_client(self: &Rc<Self>, reached: Reached, policies: &[ProcessorPolicy; PROCESSORS_LEN_MAX]) {
        let Reached { processor, profile, endpoint, token_endpoint } = reached;
        let connection = profile.connection;
        let config = ClientConfig {
            processor,
            endpoint,
            token_endpoint,
            lanes_max: policies[processor.index()].concurrency_max as usize,
            attempt_timeout_ms: connection.attempt_timeout_ms,
            connect_timeout_ms: connection.connect_timeout_ms,
            idle_ms_max: connection.idle_ms,
            socket: SocketOptions {
                keepalive_s: u32::try_from(connection.keepalive_s).ok().filter(|seconds| *seconds > 0),
                user_timeout_ms: u32::try_from(connection.user_timeout_ms).ok().filter(|ms| *ms > 0),
            },
            profile,
        };
        // The core lives as long as its thread, and so may its clients refer to it.
        let core = Rc::clone(self);
        let on_end = move |AttemptEnd { slot, end, latency_us, reference, has_hung_up, .. }: AttemptEnd| {
            core.event(|dispatcher, now| {
                if let Some(reference) = &reference {
                    dispatcher.named(slot, reference);
                }
                if has_hung_up {
                    dispatcher.attempt_hung_up(slot, latency_us, now);
                } else {
                    dispatcher.attempt_ended(slot, end, latency_us, now);
                }
            });
        };
        let client = Client::new(config, Rc::clone(&self.beat), Rc::new(on_end));
        let before = self.clients.borrow_mut()[processor.index()].replace(Rc::clone(&client));
        if let Some(before) = before {
            client.inherit(&before);
            monoio::spawn(async move { client.bury_predecessor().await });
        }
    }

    /// Goes on with what the processors are now.
    pub fn reload(self: &Rc<Self>, reloaded: &Reloaded) {
        let Reloaded { router, policies, reached } = reloaded;
        self.event(|dispatcher, _| dispatcher.reconfigure(*router, *policies));
        self.client_members.replace(client_members(reached));
        for one in reached {
            if *self.client(one.processor).profile() != one.profile {
                self.add_client(one.clone(), policies);
            }
        }
    }

    /// Reads what processors have answered, for whoever asks. A summary must show it, and a turn may not have come by yet.
    async fn look(self: Rc<Self>, probe: Probe) {
        let turns = Rounds::turns();
        let all_read = async || {
            // Whoever was woken queues his read first: a ring that does not defer its work could tell of the byte before it knew of them.
            turns.next().await;
            probe.round_trip().await
        };
        loop {
            self.looks.begin().await;
            let flush = self.flush.take();
            if let Err(error) = self.beat.look(all_read()).await {
                tracing::warn!("what the processors have answered may not have been read: {error}");
            }
            self.looks.end();
            // One that came on a link that has broken since is asked again on the next.
            if let Some((flush, link_number)) = flush
                && link_number == self.link_number()
            {
                self.event(|dispatcher, now| dispatcher.handle(flush.into(), now));
            }
        }
    }

    /// Tells the dispatcher and does what it says.
    pub fn event(self: &Rc<Self>, tell: impl FnOnce(&mut Dispatcher, Now)) {
        self.pacer.on_event();
        let now = self.clock.now();
        let mut actions = self.spare_actions.take();
        {
            let mut dispatcher = self.dispatcher.borrow_mut();
            tell(&mut dispatcher, now);
            std::mem::swap(dispatcher.actions(), &mut actions);
            self.beat.set_eager(dispatcher.awaits_processors());
        }
        self.beat.stir();
        self.stirred.raise();
        for action in actions.drain(..) {
            self.carry_out(action);
        }
        self.spare_actions.set(actions);
    }

    fn carry_out(self: &Rc<Self>, action: Action) {
        match action {
            Action::Send(message) => {
                self.send(message);
            }
            Action::Answer { ticket, answer } => self.posts.answer(ticket, answer),
            Action::Attempt { slot, processor, correlation_id, amount, requested_at } => {
                let members = self.dispatcher.borrow().members(slot);
                self.client(processor).start(Attempt {
                    slot,
                    correlation_id,
                    amount_cents: amount,
                    requested_at,
                    members,
                });
            }
            Action::Renew { processor } => self.client(processor).renew(),
            Action::GiveUp { slot, processor } => self.client(processor).give_up(slot),
            Action::Verify { slot, processor, correlation_id, requested_at } => {
                let core = Rc::clone(self);
                let known = self.dispatcher.borrow().reference(slot);
                monoio::spawn(async move {
                    let client = core.client(processor);
                    let (verification, reference) =
                        client.lookup(correlation_id, requested_at, known.as_deref()).await;
                    core.event(|dispatcher, now| {
                        if let Some(reference) = &reference {
                            dispatcher.named(slot, reference);
                        }
                        dispatcher.verified(slot, verification, now);
                    });
                });
            }
            Action::CheckHealth { processor } => {
                let core = Rc::clone(self);
                monoio::spawn(async move {
                    let health = match core.client(processor).check_health().await {
                        Ok(health) => {
                            Some((health.failing, u32::try_from(health.delay_ms).unwrap_or(u32::MAX)))
                        }
                        Err(error) => {
                            tracing::debug!("health check of {}: {error}", core.names.of(processor));
                            None
                        }
                    };
                    core.event(|dispatcher, now| dispatcher.health_checked(processor, health, now));
                });
            }
        }
    }

    /// A record from the aggregator, with the texts that came before it.
    pub fn received(self: &Rc<Self>, message: Message, attached: &Attached) {
        match message {
            Message::SummaryTotal(total) => {
                let (mut totals, count) = self.totals.get();
                let SummaryTotal { processor, requests, amount_cents } = total;
                totals[processor.index()] =
                    Totals { total_requests: requests, total_amount_cents: amount_cents };
                self.totals.set((totals, count.saturating_add(1)));
            }
            Message::SummaryReply(SummaryReply { slot, resolution_ms, total_count }) => {
                let (totals, count) = self.totals.take();
                // An answer comes whole, or is none.
                let whole = Reply::Summary(Summary { totals, resolution_ms });
                self.queries.answer(slot, if count == total_count { whole } else { Reply::Lost });
            }
            Message::PastDecision(decision) => {
                let mut history = self.gathering.get();
                history.push(decision);
                self.gathering.set(history);
            }
            Message::LookupReply(reply) => {
                let history = self.gathering.replace(History::EMPTY).complete(&reply);
                let reference = attached.reference().and_then(Reference::new);
                self.queries.answer(reply.slot, Reply::Lookup(reply, history, reference));
            }
            Message::PurgeReply(reply) => self.queries.answer(reply.slot, Reply::Purged),
            Message::Flush(flush) => {
                self.flush.set(Some((flush, self.link_number())));
                self.looks.ask();
            }
            Message::Opened(opened) => self.event(|dispatcher, _| {
                let claimer = dispatcher.admit_by(None);
                dispatcher.admit_by(self.admission.opened(opened, claimer));
            }),
            message => {
                if matches!(message, Message::Acknowledgement(it) if it.sequence == 0)
                    && self.admission.claims_heard()
                {
                    self.event(|dispatcher, _| drop(dispatcher.admit_by(None)));
                }
                if let Message::Contradiction(it) = message {
                    let (id, name, cents) = (it.correlation_id, self.names.of(it.processor), it.amount_cents);
                    tracing::error!(
                        "{id}: processor {name} has it otherwise than it was sent, with {cents} cents; nothing is booked, an operator must settle it"
                    );
                }
                self.event(|dispatcher, now| dispatcher.handle_with(message, attached, now));
            }
        }
    }

    /// The link to the aggregator stands, on this socket.
    pub fn connected(self: &Rc<Self>, socket: StdUnixStream) {
        self.connected.set(true);
        self.admission.connected();
        self.gathering.set(History::EMPTY);
        self.totals.take();
        self.link.replace(Some(socket));
        // Whatever is held is claimed now, and is not held against the aggregator.
        self.frames_size_max.set(usize::MAX);
        self.event(|dispatcher, now| dispatcher.connected_with(now, |claims| self.send_all(claims)));
        self.frames_size_max.set(self.frames.borrow().size() + FRAMES_SIZE_MAX);
    }

    /// Whether the link was cut because the aggregator did not read.
    pub(crate) fn is_cut(&self) -> bool {
        self.connected.get() && self.link.borrow().is_none()
    }

    /// Ends the link, if it stands: whoever reads or writes it finds it closed.
    fn cut(&self) {
        if let Some(socket) = self.link.take()
            && let Err(error) = socket.shutdown(Shutdown::Both)
        {
            // The other side has closed it already.
            tracing::debug!("shutdown: {error}");
        }
    }

    /// The link is gone, and what was not sent with it.
    pub fn disconnected(self: &Rc<Self>) {
        self.connected.set(false);
        // Its writer may wait for a peer that does not read.
        self.cut();
        self.frames.borrow_mut().clear();
        self.event(|dispatcher, _| dispatcher.disconnected());
        self.queries.answer_all(Reply::Lost);
        // Its writer may be waiting for something to write.
        self.link_number.set(self.link_number.get() + 1);
        self.outgoing.raise();
    }

    /// The number of the link that stands, or will stand next.
    #[must_use]
    pub fn link_number(&self) -> u64 {
        self.link_number.get()
    }

    /// Lets time pass for the dispatcher while it has anything to be late for, and shows the other threads how this one does. A
    /// thread that holds nothing is not woken.
    pub async fn keep_time(self: Rc<Self>) {
        // For how long something has waited for company, at most.
        let mut alone_us = 0;
        loop {
            let held = self.dispatcher.borrow().tick_wait_us();
            let is_alone = !self.frames.borrow().is_empty() && !self.outgoing.is_raised();
            let wait_us = match held {
                Some(wait_us) => wait_us,
                None if is_alone => COMPANY_WAIT_US,
                None => {
                    self.stirred.lowered().await;
                    if !self.board.is_shared() {
                        continue;
                    }
                    COMPANY_WAIT_US
                }
            };
            monoio::time::sleep(Duration::from_micros(wait_us)).await;
            self.event(Dispatcher::tick);
            // What could wait for company and had none.
            alone_us = if self.frames.borrow().is_empty() { 0 } else { alone_us + wait_us };
            if alone_us >= COMPANY_WAIT_US {
                self.outgoing.raise();
                alone_us = 0;
            }
            if self.board.is_shared() {
                self.board.publish(self.snapshot());
                // By this event alone there is nothing new to show.
                self.stirred.lower();
            }
        }
    }

    /// Hands back what is not on its way, and waits for the rest, at most `wait`.
    pub async fn drain(self: &Rc<Self>, wait: Duration) {
        let start = self.clock.now().monotonic_us;
        self.event(|dispatcher, _| dispatcher.drain_with(|released| self.send_all(released)));
        while !self.dispatcher.borrow().is_drained() {
            if u128::from(self.clock.now().monotonic_us - start) >= wait.as_micros() {
                let held = self.snapshot().gauges.held;
                tracing::warn!(
                    "{held} payments are still on their way; the aggregator gives them to another gateway"
                );
                return;
            }
            monoio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Whether a client waits for the ledger's word.
    pub fn is_awaited(&self) -> bool {
        self.posts.is_awaited()
    }

    fn client(&self, processor: Processor) -> Rc<Client> {
        let clients = self.clients.borrow();
        let client = clients[processor.index()].as_ref();
        Rc::clone(client.expect("the dispatcher knows the processors that there are"))
    }

    /// Sends what is there, and keeps what is something else.
    fn send_all(&self, actions: &mut Vec<Action>) {
        actions.retain(|action| match action {
            Action::Send(message) => {
                self.send(*message);
                false
            }
            _ => true,
        });
    }

    fn send(&self, message: impl Into<Message>) {
        let message = message.into();
        let mut frames = self.frames.borrow_mut();
        frames.push(message);
        if frames.size() > self.frames_size_max.get() {
            self.cut();
        }
        if !message.can_wait() {
            self.outgoing.raise();
        }
    }

    /// Asks the aggregator. Questions change nothing, or nothing twice: one that was lost with its connection is asked
    /// again, until the wait is over.
    async fn ask<M: Into<Message>>(&self, question: impl Fn(u32) -> M) -> Result<Reply, Unreachable> {
        let asking = async {
            loop {
                if !self.connected.get() {
                    monoio::time::sleep(Duration::from_millis(2)).await;
                    continue;
                }
                let (slot, answered) = self.queries.ask();
                self.send(question(slot));
                match answered.await {
                    Reply::Lost => {}
                    reply => return reply,
                }
            }
        };
        monoio::time::timeout(self.reply_wait, asking).await.map_err(|_| Unreachable)
    }

    fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        let mut dispatcher = self.dispatcher.borrow_mut();
        Snapshot {
            connected: self.connected.get(),
            counters: *dispatcher.counters(),
            gauges: dispatcher.gauges(now),
            clients: Processor::ALL.map(|processor| {
                let clients = self.clients.borrow();
                clients[processor.index()].as_ref().map(|client| client.stats()).unwrap_or_default()
            }),
            requests: *self.requests.borrow(),
            notifications: self.notifications.get(),
        }
    }
}

/// The members that some template names, sorted, each once; `None` where none does.
fn client_members(reached: &[Reached]) -> Option<Rc<[String]>> {
    let names = reached.iter().flat_map(|it| it.profile.request.client_members());
    let names: BTreeSet<&String> = names.collect();
    (!names.is_empty()).then(|| names.into_iter().cloned().collect())
}

/// What the HTTP front asks. A type of its own, since events need the core's [`Rc`].
pub struct Front(pub Rc<Core>);

impl Service for Front {
    fn names(&self) -> &Names {
        &self.0.names
    }

    fn in_shift(&self, shift: u64) {
        self.0.pacer.on_shift(shift);
    }

    fn client_members(&self) -> Option<Rc<[String]>> {
        self.0.client_members.borrow().clone()
    }

    async fn accept(&self, id: CorrelationId, amount: AmountCents, members: Option<Arc<str>>) -> Accepted {
        let (ticket, answered) = self.0.posts.ask();
        self.0.pacer.on_post();
        self.0.event(|dispatcher, now| dispatcher.accept_with(ticket, id, amount, members, now));
        match answered.await {
            Answer::Granted => Accepted::Granted,
            Answer::Replayed => Accepted::Replayed,
            Answer::Conflict => Accepted::Conflict,
            Answer::Full => Accepted::QueueFull,
            Answer::Unreachable => Accepted::LedgerUnreachable,
        }
    }

    async fn summarize(
        &self,
        from: Option<UnixMillis>,
        to: Option<UnixMillis>,
    ) -> Result<Summary, Unreachable> {
        let from_ms = from.map_or(0, |bound| bound.0);
        let to_ms = to.map_or(REQUESTED_AT_MS_MAX, |bound| bound.0);
        // The aggregator has the other threads look, and not the one that asks.
        let looking = monoio::time::timeout(self.0.reply_wait, self.0.looks.next());
        looking.await.map_err(|_| Unreachable)?;
        match self.0.ask(|slot| SummaryQuery { slot, from_ms, to_ms }).await? {
            Reply::Summary(summary) => Ok(summary),
            Reply::Lookup(..) | Reply::Purged | Reply::Lost => Err(Unreachable),
        }
    }

    async fn lookup(&self, id: CorrelationId) -> Result<Option<PaymentView>, Unreachable> {
        match self.0.ask(|slot| LookupQuery { slot, correlation_id: id }).await? {
            Reply::Lookup(reply, history, reference) => Ok(view(&reply, history, reference)),
            Reply::Summary(_) | Reply::Purged | Reply::Lost => Err(Unreachable),
        }
    }

    async fn cancel(&self, id: CorrelationId) -> Result<Option<PaymentView>, Unreachable> {
        // Answered like a look-up, and asked again like one: whoever cancels twice has cancelled.
        match self.0.ask(|slot| CancelQuery { slot, correlation_id: id }).await? {
            Reply::Lookup(reply, history, reference) => Ok(view(&reply, history, reference)),
            Reply::Summary(_) | Reply::Purged | Reply::Lost => Err(Unreachable),
        }
    }

    fn notifier(&self, name: &str) -> Option<(Processor, Arc<galo_profile::Processor>)> {
        let (processor, _) = self.0.names.iter().find(|(_, known)| *known == name)?;
        Some((processor, Arc::clone(self.0.client(processor).profile())))
    }

    fn notice(&self, processor: Processor, correlation_id: CorrelationId) -> Result<(), Unreachable> {
        if !self.0.connected.get() {
            return Err(Unreachable);
        }
        self.0.send(Notice { correlation_id, processor });
        // It waits for company, and whoever keeps the time sees that it does not wait for long.
        self.0.stirred.raise();
        Ok(())
    }

    fn count_notification(&self, end: NotificationAnswer) {
        let mut counts = self.0.notifications.get();
        counts[end as usize] += 1;
        self.0.notifications.set(counts);
    }

    async fn purge(&self) -> Result<(), PurgeError> {
        if !self.0.purge_allowed {
            return Err(PurgeError::NotAllowed);
        }
        match self.0.ask(|slot| PurgeQuery { slot }).await {
            Ok(Reply::Purged) => Ok(()),
            Ok(Reply::Summary(_) | Reply::Lookup(..) | Reply::Lost) | Err(Unreachable) => {
                Err(PurgeError::Unreachable)
            }
        }
    }

    fn ready(&self) -> Result<(), &'static str> {
        if !self.0.connected.get() && !self.0.dispatcher.borrow().grants_by_itself() {
            return Err("the aggregator is not connected");
        }
        if !self.0.dispatcher.borrow().has_room() {
            return Err("the queue is full");
        }
        if !self.0.dispatcher.borrow().ledger_has_room(self.0.clock.now()) {
            return Err("too many payments are open");
        }
        Ok(())
    }

    fn metrics(&self) -> String {
        self.0.board.render(self.0.snapshot())
    }

    fn observe(&self, endpoint: Endpoint, status: u16, elapsed_us: u64) {
        self.0.requests.borrow_mut().record(endpoint, status, elapsed_us);
    }
}

fn view(reply: &LookupReply, history: History, reference: Option<Reference>) -> Option<PaymentView> {
    let state = match (reply.standing, reply.stage.processor()) {
        (Standing::Absent, _) => return None,
        (Standing::Open, processor) => PaymentState::Open { processor, in_doubt: reply.in_doubt },
        (Standing::Processed, processor) => PaymentState::Processed {
            processor: processor.unwrap_or(Processor::DEFAULT),
            requested_at: UnixMillis(reply.requested_at_ms),
        },
        (Standing::Declined, processor) => PaymentState::Declined {
            cause: match reply.status {
                STATUS_CANCELLED => DeclineCause::Cancelled,
                STATUS_SETTLED => DeclineCause::Settled,
                STATUS_EXPIRED => DeclineCause::Expired,
                status => DeclineCause::Refused {
                    processor: processor.unwrap_or(Processor::DEFAULT),
                    status: (status != 0).then_some(status),
                },
            },
            at: UnixMillis(reply.requested_at_ms),
        },
    };
    debug_assert!(reply.standing == Standing::Open || reply.stage != Stage::Waiting, "processed somewhere");
    Some(PaymentView { amount_cents: reply.amount_cents, state, reference, history })
}
