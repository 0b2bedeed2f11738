//! A thread of a gateway: the shell around the real dispatcher, as `gateway/src/core.rs` and `link.rs` are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use galo_engine::dispatcher::{Action, Answer, Dispatcher, DispatcherConfig};
use galo_engine::time::Now;
use galo_engine::verdict::{End, Verdict};
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor};
use galo_wire::record::{
    Assignment, Completion, Discrepancy, Grant, Hello, IntentRecorded, LookupQuery, Role, Withdrawal,
};
use galo_wire::{Attached, FrameWriter, Message, PROTOCOL_VERSION, decode_frames};

use super::bug::Bug;
use super::client::Post;
use super::clock::Clock;
use super::connections::GivenUp;
use super::invariant::Invariant;
use super::link::{Chunk, Connection, Side};
use super::notification::Awaited;
use super::oracle::texts;
use super::world::{Event, World};

/// Between two tries to connect, µs.
const RETRY_US: u64 = 10_000;

/// See the module's documentation.
pub struct Gateway {
    /// Counts starts and deaths.
    pub life: u32,
    /// `None` while it is down.
    pub dispatcher: Option<Dispatcher>,
    /// Its clocks.
    pub clock: Clock,
    /// It takes POSTs.
    pub listening: bool,
    /// It was asked to stop.
    pub draining: bool,
    connection: Option<usize>,
    greeted: bool,
    /// Decisions that came, and their look-up's answer not yet.
    decision_count: u8,
    /// What is to be written.
    pub frames: FrameWriter,
    flush_planned: bool,
    tick_planned: bool,
    /// POSTs that wait for an answer, by ticket.
    posts: BTreeMap<u32, Post>,
    ticket_next: u32,
    /// Requests to processors that it waits for.
    pub requests: BTreeSet<usize>,
    /// Attempts among them, by processor.
    pub attempts_open: [u32; PROCESSORS_LEN_MAX],
    /// Payments of which an attempt ended otherwise than processed: what is told of them again may be about them alone.
    pub refused: BTreeSet<CorrelationId>,
    /// When a processor said that it rests, and until when, by processor.
    pub rests_us: [(u64, u64); PROCESSORS_LEN_MAX],
    /// Until when it knows a processor's former address, by processor.
    pub stale_until_us: [u64; PROCESSORS_LEN_MAX],
    /// How many of its connections swallow what is sent, by processor.
    pub frozen_len: [u64; PROCESSORS_LEN_MAX],
    /// Attempts that it gave up, while the payment was its own.
    pub given_up: Vec<GivenUp>,
    /// Results that processors have yet to decide on.
    pub awaited: Awaited,
    /// The aggregator has not said since the last hello that its ring is its own.
    pub is_unconfirmed: bool,
    /// Payments that it granted by itself in this life, as far as the oracle has heard.
    pub admitted_count: u64,
}

impl Gateway {
    /// A thread that has not started.
    pub fn new(clock: Clock) -> Self {
        Self {
            life: 0,
            dispatcher: None,
            clock,
            listening: false,
            draining: false,
            connection: None,
            greeted: false,
            decision_count: 0,
            frames: FrameWriter::default(),
            flush_planned: false,
            tick_planned: false,
            posts: BTreeMap::new(),
            ticket_next: 0,
            requests: BTreeSet::new(),
            attempts_open: [0; PROCESSORS_LEN_MAX],
            refused: BTreeSet::new(),
            rests_us: [(0, 0); PROCESSORS_LEN_MAX],
            stale_until_us: [0; PROCESSORS_LEN_MAX],
            frozen_len: [0; PROCESSORS_LEN_MAX],
            given_up: Vec::new(),
            awaited: Awaited::default(),
            is_unconfirmed: false,
            admitted_count: 0,
        }
    }

    /// The connection that it uses, if any.
    pub fn connection(&self) -> Option<usize> {
        self.connection
    }
}

impl World {
    pub(super) fn start_gateway(&mut self, number: usize) {
        if self.gateways[number].dispatcher.is_some() {
            return;
        }
        let config = DispatcherConfig {
            router: self.plan.router(self.bug),
            processors: Processor::ALL.map(|processor| self.plan.policy(processor, self.bug)),
            queue_len_max: self.plan.queue_len_max,
            accept_wait_us_max: self.plan.accept_wait_us,
            seed: self.dice.number(),
        };
        self.meter.started(self.now_us);
        let gateway = &mut self.gateways[number];
        gateway.life += 1;
        gateway.dispatcher = Some(Dispatcher::new(config));
        gateway.listening = true;
        gateway.draining = false;
        gateway.flush_planned = false;
        gateway.tick_planned = false;
        let life = gateway.life;
        self.trace(|| format!("gateway {number} starts"));
        self.after(0, Event::GatewayConnect(number, life));
    }

    /// It is gone, with everything that it held. `lossy`: what it wrote last may be gone too.
    pub(super) fn kill_gateway(&mut self, number: usize, lossy: bool) {
        let gateway = &mut self.gateways[number];
        let Some(mut dispatcher) = gateway.dispatcher.take() else { return };
        self.die_claiming(number, dispatcher.admit_by(None));
        let gateway = &mut self.gateways[number];
        gateway.admitted_count = 0;
        gateway.life += 1;
        gateway.listening = false;
        gateway.frames.clear();
        let posts = std::mem::take(&mut gateway.posts);
        let requests = std::mem::take(&mut gateway.requests);
        gateway.attempts_open = [0; PROCESSORS_LEN_MAX];
        gateway.refused.clear();
        gateway.rests_us = [(0, 0); PROCESSORS_LEN_MAX];
        gateway.stale_until_us = [0; PROCESSORS_LEN_MAX];
        gateway.frozen_len = [0; PROCESSORS_LEN_MAX];
        gateway.given_up.clear();
        gateway.awaited.clear();
        gateway.greeted = false;
        let connection = gateway.connection.take();
        self.trace(|| format!("gateway {number} dies"));
        let counters = *dispatcher.counters();
        self.coverage.verified += counters.verifications;
        let unknown = counters.verdicts.iter().map(|verdicts| verdicts[Verdict::Unknown as usize]);
        self.coverage.unknown += unknown.sum::<u64>();
        self.coverage.contradictions += counters.contradictions.iter().sum::<u64>();
        self.coverage.deferred += counters.deferred;
        self.coverage.hastened += counters.hastened;
        self.coverage.rate_held += counters.rate_held.iter().sum::<u64>();
        self.coverage.hung_up += counters.hung_up.iter().sum::<u64>();
        if let Some(connection) = connection {
            self.close(connection, Side::Gateway, lossy);
        }
        requests.into_iter().for_each(|request| self.abandon(request));
        posts.into_values().for_each(|post| self.unanswered(post));
    }

    pub(super) fn tick_gateway(&mut self, number: usize, life: u32) {
        if self.gateways[number].life != life {
            return;
        }
        self.gateways[number].tick_planned = false;
        if !self.gateways[number].frames.is_empty() {
            self.plan_flush(number);
        }
        self.event(number, Dispatcher::tick);
    }

    /// As the gateway's own clock does: no tick while time alone changes nothing.
    pub(super) fn plan_tick(&mut self, number: usize) {
        let gateway = &mut self.gateways[number];
        let held = gateway.dispatcher.as_ref().and_then(Dispatcher::tick_wait_us);
        let is_alone = !gateway.frames.is_empty() && !gateway.flush_planned;
        if let Some(wait_us) = held.or(is_alone.then_some(25_000))
            && !gateway.tick_planned
        {
            gateway.tick_planned = true;
            let life = gateway.life;
            self.after(wait_us, Event::GatewayTick(number, life));
        }
    }

    /// Tells the dispatcher, does what it says, and looks at what it holds.
    pub(super) fn event(&mut self, number: usize, tell: impl FnOnce(&mut Dispatcher, Now)) {
        let now = self.gateways[number].clock.now(self.now_us);
        let Some(dispatcher) = &mut self.gateways[number].dispatcher else { return };
        tell(dispatcher, now);
        let mut actions = std::mem::take(dispatcher.actions());
        for action in actions.drain(..) {
            self.carry_out(number, action);
        }
        let open = self.gateways[number].attempts_open;
        let (queue_len_max, concurrency_max) = (self.plan.queue_len_max, self.plan.concurrency_max);
        let Some(dispatcher) = &mut self.gateways[number].dispatcher else { return };
        if dispatcher.actions().is_empty() {
            *dispatcher.actions() = actions;
        }
        self.plan_tick(number);
        let Some(dispatcher) = &mut self.gateways[number].dispatcher else { return };
        let gauges = dispatcher.gauges(now);
        let assigned = dispatcher.counters().assigned;
        let places = Processor::ALL.into_iter().map(Processor::index).all(|index| {
            gauges.in_flight[index] <= concurrency_max && open[index] <= gauges.in_flight[index]
        });
        let room = gauges.held as u64 <= queue_len_max as u64 + assigned;
        self.oracle.check(Invariant::Bounded, places && room, || {
            format!("gateway {number}: {open:?} attempts open, {assigned} assigned ever, {gauges:?}")
        });
    }

    fn carry_out(&mut self, number: usize, action: Action) {
        match action {
            Action::Send(message) => {
                self.send(number, message);
                if self.has(Bug::IntentUnrecorded)
                    && let Message::Intent(intent) = message
                {
                    let recorded =
                        IntentRecorded { slot: intent.slot, correlation_id: intent.correlation_id };
                    self.event(number, |dispatcher, now| dispatcher.handle(recorded.into(), now));
                }
            }
            Action::Answer { ticket, answer } => {
                if let Some(post) = self.gateways[number].posts.remove(&ticket) {
                    if answer == Answer::Granted {
                        self.note_admitted(number, self.oracle.id(post.payment));
                    }
                    let lie = answer == Answer::Unreachable && self.has(Bug::UnreachableIsAccepted);
                    self.answered(number, post, if lie { Answer::Granted } else { answer });
                }
            }
            Action::Attempt { slot, processor, correlation_id, amount, requested_at } => {
                self.start_attempt(number, slot, processor, correlation_id, amount.get(), requested_at.0);
            }
            Action::Renew { processor } => self.renew(number, processor),
            Action::GiveUp { slot, processor } => self.give_up(number, slot, processor),
            Action::Verify { slot, processor, correlation_id, .. } => {
                self.start_lookup(number, slot, processor, correlation_id);
            }
            Action::CheckHealth { processor } => {
                let count = if self.has(Bug::CheckTwice) { 2 } else { 1 };
                (0..count).for_each(|_| self.start_check(number, processor));
            }
        }
    }

    /// Says something to the aggregator.
    pub(super) fn send(&mut self, number: usize, message: impl Into<Message>) {
        let mut message = message.into();
        if self.has(Bug::ComebackBooked)
            && let Message::Discrepancy(Discrepancy { correlation_id, processor, requested_at_ms, .. }) =
                message
        {
            let (sequence, outcome, status) = (0, Outcome::Processed, 0);
            let completion =
                Completion { sequence, correlation_id, requested_at_ms, processor, outcome, status };
            message = completion.into();
        }
        if self.has(Bug::ReadyForgotten) && matches!(message, Message::Ready(_)) {
            return;
        }
        self.trace(|| format!("gateway {number} says {message:?}"));
        self.meter_plan(number, &message);
        if let Message::Completion(Completion { correlation_id, outcome: Outcome::Processed, .. }) = message {
            self.heard(number, correlation_id);
        }
        if self.has(Bug::FlushedTooEarly)
            && matches!(message, Message::Flushed(_))
            && let Some(connection) = self.gateways[number].connection
        {
            let mut frames = FrameWriter::default();
            frames.push(message);
            self.write(connection, Side::Gateway, frames.take(Vec::new()));
            return;
        }
        self.gateways[number].frames.push(message);
        if !message.can_wait() {
            self.plan_flush(number);
        }
    }

    fn plan_flush(&mut self, number: usize) {
        let delay_us = self.dice.skewed(self.plan.flush_delay_us);
        let gateway = &mut self.gateways[number];
        if !gateway.flush_planned {
            gateway.flush_planned = true;
            let life = gateway.life;
            self.after(delay_us, Event::GatewayFlush(number, life));
        }
    }

    pub(super) fn flush_gateway(&mut self, number: usize, life: u32) {
        let gateway = &mut self.gateways[number];
        if gateway.life != life {
            return;
        }
        gateway.flush_planned = false;
        let bytes = gateway.frames.take(Vec::new());
        if let Some(connection) = gateway.connection
            && !bytes.is_empty()
        {
            self.write(connection, Side::Gateway, bytes);
        }
    }

    pub(super) fn connect_gateway(&mut self, number: usize, life: u32) {
        if self.gateways[number].life != life {
            return;
        }
        if self.aggregator.coordinator.is_none() {
            self.after(RETRY_US, Event::GatewayConnect(number, life));
            return;
        }
        let connection = self.connections.len();
        self.connections.push(Connection::new(number));
        self.gateways[number].connection = Some(connection);
        self.gateways[number].greeted = false;
        let mut greeting = FrameWriter::default();
        greeting.push(Hello {
            protocol_version: PROTOCOL_VERSION,
            role: Role::Gateway,
            instance: u8::try_from(self.process_of(number) + 1).expect("few gateways"),
            thread: u16::try_from(number % self.plan.thread_count).expect("few threads"),
            processors: 0,
            incarnation: u64::from(life),
        });
        self.write(connection, Side::Gateway, greeting.take(Vec::new()));
    }

    pub(super) fn gateway_receives(&mut self, connection: usize, chunk: Chunk) {
        let number = self.connections[connection].gateway;
        let bytes = match chunk {
            Chunk::Bytes(bytes) => bytes,
            Chunk::End => {
                self.gateway_disconnected(number, connection);
                return;
            }
        };
        let mut inbox = std::mem::take(&mut self.connections[connection].inbox[Side::Gateway as usize]);
        inbox.extend(bytes);
        let mut messages = Vec::new();
        let used = decode_frames(&inbox, |message| messages.push(message));
        self.oracle.check(Invariant::NoRejection, used.is_ok(), || format!("{used:?}"));
        inbox.drain(..used.unwrap_or(0));
        self.connections[connection].inbox[Side::Gateway as usize] = inbox;
        for message in messages {
            let mut attached =
                std::mem::take(&mut self.connections[connection].attached[Side::Gateway as usize]);
            match attached.take_in(&message) {
                Ok(true) => {
                    self.gateway_told(number, message, &attached);
                    attached.clear();
                }
                Ok(false) => {}
                Err(error) => {
                    self.oracle.check(Invariant::NoRejection, false, || format!("{error}: {message:?}"))
                }
            }
            self.connections[connection].attached[Side::Gateway as usize] = attached;
        }
    }

    fn gateway_told(&mut self, number: usize, message: Message, attached: &Attached) {
        self.trace(|| format!("gateway {number} hears {message:?}"));
        if let Message::Assignment(assignment) = message {
            self.oracle.assigned(assignment.correlation_id);
            // It was another's meanwhile, who knows nothing of that.
            self.gateways[number].given_up.retain(|it| it.id() != assignment.correlation_id);
        }
        match message {
            Message::Assignment(Assignment { correlation_id, .. })
            | Message::Withdrawal(Withdrawal { correlation_id, .. }) => {
                self.gateways[number].awaited.remove(correlation_id);
            }
            Message::Purged(_) => self.gateways[number].awaited.clear(),
            Message::Notified(notified) if !self.notified(number, notified) => return,
            _ => {}
        }
        if matches!(message, Message::Acknowledgement(it) if it.sequence == 0) {
            self.claims_heard(number);
        }
        if let Message::Lease(lease) = message {
            self.oracle.lease_heard(lease.processor, number);
        }
        match message {
            Message::Hello(_) if !self.gateways[number].greeted => {
                self.gateways[number].greeted = true;
                self.gateways[number].is_unconfirmed = true;
                self.gateways[number].decision_count = 0;
                self.maybe_spite();
                if self.has(Bug::CompletionsDropped) {
                    self.event(number, |dispatcher, now| {
                        dispatcher.connected(now);
                        dispatcher.actions().retain(|action| {
                            !matches!(action, Action::Send(Message::Completion(Completion { .. })))
                        });
                    });
                } else {
                    self.event(number, Dispatcher::connected);
                }
            }
            Message::PastDecision(_) => self.gateways[number].decision_count += 1,
            Message::LookupReply(reply) => {
                let count = std::mem::take(&mut self.gateways[number].decision_count);
                self.oracle.check(Invariant::HistoryIsTrue, count == reply.decision_count, || {
                    format!("{count} decisions came before {reply:?}")
                });
            }
            Message::SummaryTotal(_) | Message::SummaryReply(_) | Message::PurgeReply(_) => {}
            Message::Withdrawal(_) if self.has(Bug::WithdrawalIgnored) => {}
            Message::Opened(opened) => self.ring_opened(number, opened),
            message => self.event(number, |dispatcher, now| dispatcher.handle_with(message, attached, now)),
        }
    }

    fn gateway_disconnected(&mut self, number: usize, connection: usize) {
        self.trace(|| format!("gateway {number} has lost the aggregator"));
        self.close(connection, Side::Gateway, false);
        let gateway = &mut self.gateways[number];
        gateway.connection = None;
        gateway.frames.clear();
        let life = gateway.life;
        if std::mem::take(&mut gateway.greeted) {
            self.event(number, |dispatcher, _| dispatcher.disconnected());
        }
        self.after(RETRY_US, Event::GatewayConnect(number, life));
    }

    /// A POST arrives.
    pub(super) fn gateway_posted(&mut self, number: usize, post: Post) {
        let now = self.gateways[number].clock.now(self.now_us);
        let gateway = &mut self.gateways[number];
        let Some(dispatcher) = &mut gateway.dispatcher else { return };
        let was_full = dispatcher.gauges(now).held >= self.plan.queue_len_max;
        let ticket = gateway.ticket_next;
        gateway.ticket_next += 1;
        gateway.posts.insert(ticket, post);
        let (id, amount) = (self.oracle.id(post.payment), post.amount());
        let members = texts::members(id, post.members).map(Arc::from);
        self.event(number, |dispatcher, now| dispatcher.accept_with(ticket, id, amount, members, now));
        if was_full {
            let refused = !self.gateways[number].posts.contains_key(&ticket);
            self.oracle
                .check(Invariant::Bounded, refused, || format!("gateway {number} is full and takes {id}"));
        }
    }

    /// An attempt's end, as this gateway's shell reports it.
    pub(super) fn attempt_ended(&mut self, number: usize, slot: u32, end: End, latency_us: u64) {
        self.event(number, |dispatcher, now| dispatcher.attempt_ended(slot, end, latency_us, now));
    }

    /// Somebody asks this gateway for a range, or for a payment.
    pub(super) fn ask_gateway(&mut self, number: usize) {
        if !self.gateways[number].greeted {
            return;
        }
        if self.dice.one_in(3) && self.oracle.len() > 0 {
            let payment = self.dice.index(self.oracle.len());
            let correlation_id = self.oracle.id(payment);
            self.send(number, LookupQuery { slot: 1, correlation_id });
        } else {
            let (a, b) = (self.oracle.bound_ms(&mut self.dice), self.oracle.bound_ms(&mut self.dice));
            self.ask_for_summary(number, a.min(b), a.max(b));
        }
    }

    /// Whether it has said hello and heard the aggregator's.
    pub(super) fn is_greeted(&self, number: usize) -> bool {
        self.gateways[number].greeted
    }
}

/// Used by a planted bug: the grant that a conflict becomes.
pub fn as_replayed(grant: Grant) -> Grant {
    Grant { admission: galo_wire::record::Admission::Replayed, ..grant }
}
