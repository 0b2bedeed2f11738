//! The aggregator's decisions: who may dispatch what, who takes over from whom, who asks for a processor's health.
//!
//! Gateways come and go; the ledger stays. Every record of a gateway arrives at [`Coordinator::handle`], which decides,
//! applies the change to the [`Ledger`] and leaves two kinds of output: [`Entry`]s for the journal and messages for
//! gateways. The shell writes the entries down *before* it lets the messages go: an answer is a promise.
//!
//! # Ownership
//! An open payment belongs to the connection that works on it, or to nobody. When a connection closes, whatever it
//! owned goes to the living ones at once, as far as they have room; an attempt that was recorded counts as in doubt from then on, because the
//! dead gateway may have sent it. Only the owner's word changes where a payment goes: a refusal reported by anyone else
//! says nothing about the owner's attempt. "Processed" is believed from everyone: a processor's yes is a fact.
//!
//! After a start, payments that came out of the journal wait [`CoordinatorConfig::claim_grace_us`] for the gateways
//! that hold them to return and claim them, before they are handed to whoever is there.
//!
//! # Failures survived
//! A gateway's death at any moment, its return with the same payments (claims), two gateways accepting one id at the
//! same time, a gateway that speaks of payments which are not its own.

mod admission;
mod discrepancies;
mod endings;
mod hand_over;
mod names;
mod notices;
mod questions;
mod rings;
mod summaries;

use galo_wire::record::{
    ANY_SLOT, Acknowledgement, Assignment, Completion, Flush, HealthNews, HealthReport, Hello, Intent,
    IntentRecorded, Lease, PurgeReply, Purged, Role, Withdrawal,
};
use galo_wire::{
    Attached, CorrelationId, Message, Outcome, PROCESSORS_LEN_MAX, PROTOCOL_VERSION, Processor,
    STATUS_CANCELLED, STATUS_EXPIRED, STATUS_TAKEN_BACK, Stage,
};

use crate::ledger::{Entry, Known, Ledger, LedgerConfig, OpenPayment};
use crate::money::AmountCents;
use crate::router::ProcessorSet;
use crate::texts::Texts;
use crate::time::Now;
use endings::Endings;
pub use endings::{REASON_SIZE_MAX, Settled, SettledAs, Settlement};
pub use names::NamesError;
use rings::Rings;
use summaries::Summaries;

/// A gateway's connection: an index that is used again after the connection closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct SessionId(pub u16);

/// Connections at most: 255 instances of up to 64 threads would be more, but no machine has that many cores to spare.
pub const SESSION_COUNT_MAX: usize = 1024;

/// What the coordinator is told at start.
#[derive(Clone, Copy, Debug)]
pub struct CoordinatorConfig {
    /// The ledger's bounds.
    pub ledger: LedgerConfig,
    /// What gateways that know the same processors say of them: [`galo_wire::record::processors_fingerprint`].
    pub processors_fingerprint: u16,
    /// The processors that have a health check.
    pub health_checked: ProcessorSet,
    /// Between two health checks of each, µs.
    pub health_interval_us: [u64; PROCESSORS_LEN_MAX],
    /// How long payments without an owner wait for a claim after a start, µs.
    pub claim_grace_us: u64,
    /// Drawn at each start.
    pub incarnation: u64,
}

/// Why a connection is closed by us. The text goes to the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// It speaks another version.
    #[error(
        "protocol version {theirs}, expected {PROTOCOL_VERSION}: gateway and aggregator are of different builds"
    )]
    Version {
        /// The peer's.
        theirs: u16,
    },
    /// It means others by the processors' numbers.
    #[error("it knows other processors than this aggregator: both must read the same GALO_PROCESSORS")]
    Processors,
    /// It is no gateway.
    #[error("a peer with role {0:?}, expected a gateway")]
    Role(Role),
    /// The same thread of the same process has connected again: this connection is dead, whatever still comes out of it.
    #[error("the gateway has connected again since")]
    Superseded,
    /// Too many connections.
    #[error("already {SESSION_COUNT_MAX} connections, more than all threads of all gateways")]
    TooMany,
    /// A record that only an aggregator sends, or an amount that no gateway accepts.
    #[error("an unexpected record: {0:?}")]
    Unexpected(Box<Message>),
    /// A claim of a payment that the ledger does not know, and has no room for.
    #[error("it claims a payment that is unknown here, and OPEN_LEN_MAX payments are open already")]
    TooManyClaims,
}

/// Counts of what happened, for metrics.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct CoordinatorCounters {
    /// Accepts answered [`Admission::Replayed`](galo_wire::record::Admission::Replayed).
    pub replayed: u64,
    /// Accepts answered [`Admission::Conflict`](galo_wire::record::Admission::Conflict).
    pub conflicts: u64,
    /// Accepts answered [`Admission::Full`](galo_wire::record::Admission::Full).
    pub full: u64,
    /// Accepts answered [`Admission::Expired`](galo_wire::record::Admission::Expired).
    pub expired: u64,
    /// Payments handed to another gateway.
    pub handed_over: u64,
    /// Payments claimed after a reconnect.
    pub claimed: u64,
    /// Intents and claims that were answered with a withdrawal.
    pub withdrawn: u64,
    /// Completions about payments that are processed already or unknown.
    pub stale_completions: u64,
    /// Payments that a processor has otherwise than the ledger (elsewhere, although declined): should stay 0.
    pub contradictions: u64,
    /// Payments that a processor has with another amount, or since before they were accepted, and the totals hold none of that: nothing is booked.
    pub disputed: u64,
    /// Leases given out, by [`Processor::index`].
    pub leases: [u64; PROCESSORS_LEN_MAX],
    /// Summaries made although a gateway had not said whether it knew of more.
    pub unconfirmed_summaries: u64,
    /// Payments that clients cancelled.
    pub cancelled: u64,
    /// Payments whose deadlines passed before any processor had them.
    pub past_deadline: u64,
    /// Payments that an operator settled.
    pub settled: u64,
    /// Notifications passed on to a payment's owner, and those about no payment that somebody would look up.
    pub notices_passed_on: u64,
    /// See there.
    pub notices_dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    hello: Hello,
    /// Its claims are in: it takes assignments.
    ready: bool,
    /// As long as it owns fewer payments than that; recorded attempts somewhat beyond it.
    held_len_max: u64,
    /// It has much to read: nothing more for now.
    held_up: bool,
    /// Its gateway has another connection by now.
    superseded: bool,
    /// How often it named a payment that is another's, processed or unknown as its own.
    strayed: u64,
}

/// Deadlines are looked at as often as that, ms: the wall clock, which they are of, may be set.
const DEADLINE_LOOK_MS: u64 = 1_000;

/// See the module's documentation.
pub struct Coordinator {
    config: CoordinatorConfig,
    ledger: Ledger,
    /// Where gateways grant by themselves.
    rings: Option<Rings>,
    /// What they hold may be older than the ledger.
    rings_are_aged: bool,
    sessions: Vec<Option<Session>>,
    /// Whose turn it is to take over a payment or a lease.
    turn: usize,
    started_us: u64,
    /// Where among the open payments the next hand-over looks for those that nobody works on.
    hand_over_part: usize,
    /// There may be recorded attempts among what nobody works on.
    doubts_unowned: bool,
    next_lease_us: [u64; PROCESSORS_LEN_MAX],
    /// The first deadline that is to pass, as far as this has looked, and when to look again.
    deadline_ms: Option<u64>,
    deadline_due_us: u64,
    purge_generation: u32,
    summaries: Summaries,
    endings: Endings,
    counters: CoordinatorCounters,
    entries: Vec<Entry>,
    messages: Vec<(SessionId, Message)>,
}

impl Coordinator {
    /// A coordinator with an empty ledger. Leases begin one interval after the start, since an aggregator that ran
    /// before this one may just have used the processors' windows.
    #[must_use]
    pub fn new(config: CoordinatorConfig, now: Now) -> Self {
        Self {
            config,
            ledger: Ledger::new(config.ledger),
            rings: None,
            rings_are_aged: false,
            sessions: Vec::new(),
            turn: 0,
            started_us: now.monotonic_us,
            hand_over_part: 0,
            doubts_unowned: false,
            deadline_ms: None,
            deadline_due_us: u64::MAX,
            next_lease_us: config.health_interval_us.map(|interval_us| now.monotonic_us + interval_us),
            purge_generation: 0,
            summaries: Summaries::default(),
            endings: Endings::default(),
            counters: CoordinatorCounters::default(),
            entries: Vec::with_capacity(1024),
            messages: Vec::with_capacity(1024),
        }
    }

    /// A coordinator with the ledger that came out of the journal. Its open payments are nobody's yet.
    #[must_use]
    pub fn recovered(config: CoordinatorConfig, ledger: Ledger, now: Now) -> Self {
        let deadline_due_us = if ledger.next_deadline_ms().is_some() { 0 } else { u64::MAX };
        Self { ledger, deadline_due_us, doubts_unowned: true, ..Self::new(config, now) }
    }

    /// The ledger, to write a snapshot of it. Changes of its state are made by [`Self::handle`] alone.
    #[must_use]
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Replays one entry of the journal, before any session exists.
    pub fn restore(&mut self, entry: Entry) {
        assert!(self.sessions.is_empty(), "the journal is replayed before gateways are let in");
        self.ledger.apply(entry);
        self.doubts_unowned = true;
    }

    /// The ledger, to read.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> CoordinatorCounters {
        self.counters
    }

    /// Connected gateway threads.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.iter().flatten().count()
    }

    /// What must be written down before any of [`Self::messages`] leaves.
    pub fn entries(&mut self) -> &mut Vec<Entry> {
        &mut self.entries
    }

    /// What to send, in order.
    pub fn messages(&mut self) -> &mut Vec<(SessionId, Message)> {
        &mut self.messages
    }

    /// Both of them.
    pub fn decided(&mut self) -> (&mut Vec<Entry>, &mut Vec<(SessionId, Message)>) {
        (&mut self.entries, &mut self.messages)
    }

    /// A gateway introduced itself.
    ///
    /// # Errors
    /// Why it is not let in; the connection is to be closed.
    pub fn connect(&mut self, hello: Hello) -> Result<SessionId, Rejection> {
        if hello.role != Role::Gateway {
            return Err(Rejection::Role(hello.role));
        }
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(Rejection::Version { theirs: hello.protocol_version });
        }
        if hello.processors != self.config.processors_fingerprint {
            return Err(Rejection::Processors);
        }
        self.supersede(hello);
        let index = match self.sessions.iter().position(Option::is_none) {
            Some(index) => index,
            None if self.sessions.len() < SESSION_COUNT_MAX => {
                self.sessions.push(None);
                self.sessions.len() - 1
            }
            None => return Err(Rejection::TooMany),
        };
        let (ready, superseded, held_up) = (false, false, false);
        self.sessions[index] =
            Some(Session { hello, ready, held_len_max: 0, held_up, superseded, strayed: 0 });
        let session = SessionId(u16::try_from(index).expect("SESSION_COUNT_MAX fits"));
        self.bind_ring(session, hello);
        // It may be one that was cut off, with an attempt on its way.
        self.refuse_settlements();
        if let Some(number) = self.summaries.join(session) {
            self.send(session, Flush { number });
        }
        // The last one: the shell lets it go at once, before all others.
        self.send(session, self.hello());
        Ok(session)
    }

    /// A gateway that connects again has given its former connection up, and says once more what matters of what it said there. What
    /// lies in that socket is heard no more: an accept among it would be granted after its client was refused over the new one.
    fn supersede(&mut self, hello: Hello) {
        let former = self
            .sessions
            .iter()
            .position(|session| session.is_some_and(|former| former.hello == hello && !former.superseded));
        let Some(index) = former else { return };
        if let Some(session) = &mut self.sessions[index] {
            session.superseded = true;
            session.ready = false;
        }
        let session = SessionId(u16::try_from(index).expect("SESSION_COUNT_MAX fits"));
        self.abandon(session);
    }

    /// Our side of the introduction.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            role: Role::Aggregator,
            instance: 0,
            thread: 0,
            processors: 0,
            incarnation: self.config.incarnation,
        }
    }

    /// What a session said of itself.
    #[must_use]
    pub fn session_hello(&self, session: SessionId) -> Option<Hello> {
        self.sessions.get(usize::from(session.0)).copied().flatten().map(|session| session.hello)
    }

    /// Whether another process is connected whose gateway has the same number.
    #[must_use]
    pub fn shares_number(&self, session: SessionId) -> bool {
        let Some(hello) = self.session_hello(session) else { return false };
        let is_other =
            |other: Hello| other.instance == hello.instance && other.incarnation != hello.incarnation;
        self.sessions.iter().flatten().any(|other| is_other(other.hello))
    }

    /// How often a session named a payment as its own that is another's, processed or unknown. A gateway that comes back late does.
    #[must_use]
    pub fn session_strayed(&self, session: SessionId) -> u64 {
        self.sessions.get(usize::from(session.0)).copied().flatten().map_or(0, |session| session.strayed)
    }

    /// A connection closed: what it owned goes to the others.
    pub fn disconnect(&mut self, session: SessionId, now: Now) {
        self.sessions[usize::from(session.0)] = None;
        self.abandon(session);
        self.refuse_settlements();
        self.hand_over(now);
        self.answer_summaries(now);
    }

    /// Nothing more comes from a connection, nor goes there; what it owned is nobody's.
    fn abandon(&mut self, session: SessionId) {
        self.close_ring(session);
        self.doubts_unowned |= self.ledger.owned_len(session) > 0;
        for (id, payment) in self.ledger.disown(session) {
            self.doubt(id, payment);
        }
        self.messages.retain(|(to, _)| *to != session);
        self.summaries.leave(session);
        self.endings.leave(session);
    }

    /// One record of a gateway, to which no text belongs.
    ///
    /// # Errors
    /// As [`Self::handle_with`].
    pub fn handle(&mut self, session: SessionId, message: Message, now: Now) -> Result<(), Rejection> {
        self.handle_with(session, message, &Attached::NOTHING, now)
    }

    /// One record of a gateway, with the texts that came before it.
    ///
    /// # Errors
    /// A record that no gateway of ours sends: the connection is to be closed, with [`Self::disconnect`].
    pub fn handle_with(
        &mut self,
        session: SessionId,
        message: Message,
        attached: &Attached,
        now: Now,
    ) -> Result<(), Rejection> {
        if self.sessions[usize::from(session.0)].is_some_and(|session| session.superseded) {
            return Err(Rejection::Superseded);
        }
        self.take_grants();
        match message {
            Message::Accept(accept) => {
                if AmountCents::new(accept.amount_cents).is_none() {
                    return Err(Rejection::Unexpected(Box::new(message)));
                }
                self.accept(session, accept, attached.members(), now);
            }
            Message::Intent(intent) => self.intend(session, intent, now),
            Message::Completion(completion) => self.complete(session, completion, attached.reference()),
            Message::Claim(claim) => {
                if AmountCents::new(claim.amount_cents).is_none() {
                    return Err(Rejection::Unexpected(Box::new(message)));
                }
                return self.claim(session, claim, &Texts::of(attached));
            }
            Message::Ready(ready) => {
                if let Some(known) = &mut self.sessions[usize::from(session.0)] {
                    known.ready = true;
                    known.held_len_max = ready.held_len_max;
                }
                self.open_ring(session);
                // Its claims are heard: what is not withdrawn by now is its own.
                self.send(session, Acknowledgement { sequence: 0 });
                self.hand_over(now);
            }
            Message::Release(release) => {
                if let Known::Open(payment) = self.ledger.lookup(release.correlation_id)
                    && payment.owner == Some(session)
                {
                    self.ledger.set_owner(release.correlation_id, None);
                    self.doubts_unowned |= payment.stage != Stage::Waiting;
                    // A gateway that releases is about to stop: it must not get its own payments back.
                    if let Some(known) = &mut self.sessions[usize::from(session.0)] {
                        known.ready = false;
                    }
                }
            }
            Message::SummaryQuery(query) => {
                self.summaries.ask(session, query);
                self.answer_summaries(now);
            }
            Message::Flushed(flushed) => {
                self.summaries.flushed(session, flushed.number);
                self.answer_summaries(now);
            }
            Message::LookupQuery(query) => self.tell(session, query.slot, query.correlation_id),
            Message::CancelQuery(query) => {
                self.cancel(query.correlation_id, now);
                self.tell(session, query.slot, query.correlation_id);
            }
            Message::Yielded(yielded) => self.yielded(session, yielded, now),
            Message::Notice(notice) => self.notice(notice),
            Message::PurgeQuery(query) => {
                self.close_rings();
                self.apply(Entry::Purged);
                self.purge_generation = self.purge_generation.wrapping_add(1);
                for other in self.session_ids(|session| !session.superseded) {
                    self.send(other, Purged { generation: self.purge_generation });
                    self.open_ring(other);
                }
                self.send(session, PurgeReply { slot: query.slot });
            }
            Message::HealthReport(report) => self.spread(session, report),
            Message::Discrepancy(discrepancy) => {
                self.discrepancy(session, discrepancy, attached.reference());
            }
            Message::Hello(_)
            | Message::Part(_)
            | Message::Grant(_)
            | Message::IntentRecorded(_)
            | Message::Acknowledgement(_)
            | Message::Assignment(_)
            | Message::Withdrawal(_)
            | Message::SummaryTotal(_)
            | Message::SummaryReply(_)
            | Message::PastDecision(_)
            | Message::LookupReply(_)
            | Message::Purged(_)
            | Message::PurgeReply(_)
            | Message::Lease(_)
            | Message::Flush(_)
            | Message::Opened(_)
            | Message::Yield(_)
            | Message::Notified(_)
            | Message::Contradiction(_)
            | Message::HealthNews(_) => return Err(Rejection::Unexpected(Box::new(message))),
        }
        Ok(())
    }

    /// When [`Self::tick`] has something to do, if nothing comes before: a lease to give, a payment that nobody works on, an answer that
    /// has waited long enough.
    #[must_use]
    pub fn tick_due_us(&self) -> u64 {
        let leases = self.config.health_checked.iter().map(|it| self.next_lease_us[it.index()]);
        let round_us = self.summaries.until_us().unwrap_or(u64::MAX);
        let round_us = round_us.min(self.endings.until_us().unwrap_or(u64::MAX)).min(self.rings_due_us());
        let due_us = leases.min().unwrap_or(u64::MAX).min(round_us).min(self.deadline_due_us);
        if self.hand_over_is_due() { 0 } else { due_us }
    }

    /// Whether a gateway has so much to read that nothing more is to be handed over to it until it has read that.
    pub fn hold_up(&mut self, session: SessionId, held_up: bool) {
        if let Some(Some(session)) = self.sessions.get_mut(usize::from(session.0)) {
            session.held_up = held_up;
        }
    }

    /// To be called within 100 ms of [`Self::tick_due_us`]: gives out leases, payments that nobody works on, and answers that waited long enough.
    pub fn tick(&mut self, now: Now) {
        self.take_grants();
        self.settle_rings(now);
        self.seek_rings();
        for processor in self.config.health_checked.iter() {
            if now.monotonic_us < self.next_lease_us[processor.index()] {
                continue;
            }
            if let Some(session) = self.next_session(|_, _, session| session.ready) {
                self.next_lease_us[processor.index()] =
                    now.monotonic_us + self.config.health_interval_us[processor.index()];
                self.counters.leases[processor.index()] += 1;
                self.send(session, Lease { processor });
            }
        }
        self.hand_over(now);
        self.answer_summaries(now);
        self.end_settlements(now);
        self.expire(now);
        self.deadline_ms = self.ledger.next_deadline_ms();
        // The wall clock, which deadlines are of, may be set meanwhile.
        self.deadline_due_us = self.deadline_ms.map_or(u64::MAX, |deadline_ms| {
            now.monotonic_us + 1_000 * deadline_ms.saturating_sub(now.unix_ms.0).min(DEADLINE_LOOK_MS)
        });
    }

    fn intend(&mut self, session: SessionId, intent: Intent, now: Now) {
        let Intent { slot, correlation_id, requested_at_ms, processor, reason, waited_for_ms } = intent;
        self.expire_intended(session, correlation_id, now);
        match self.ledger.lookup(correlation_id) {
            // An owner that moves on from a recorded attempt says by that that it was refused or never sent.
            Known::Open(payment) if payment.owner == Some(session) && !payment.in_doubt => {
                self.apply(Entry::Intended {
                    correlation_id,
                    processor,
                    requested_at_ms,
                    reason,
                    waited_for_ms,
                });
                self.send(session, IntentRecorded { slot, correlation_id });
            }
            // Its own, but it knows less than we do: the payment was assigned to it, or became doubtful, after it had
            // asked, or the intent has another `requestedAt`. The withdrawal may meet the new assignment, which may have
            // taken the very slot, so that is said again: otherwise nobody would work on a payment that has an owner.
            Known::Open(payment) if payment.owner == Some(session) => {
                self.withdraw(session, slot, correlation_id);
                self.assign(session, correlation_id, payment);
            }
            // Ended a moment ago: no gateway's mistake.
            Known::Declined { status: STATUS_CANCELLED | STATUS_EXPIRED, .. } => {
                self.withdraw(session, slot, correlation_id)
            }
            Known::Open(_) | Known::Processed { .. } | Known::Declined { .. } | Known::Absent => {
                self.stray(session);
                self.withdraw(session, slot, correlation_id);
            }
        }
    }

    fn complete(&mut self, session: SessionId, completion: Completion, reference: Option<&str>) {
        let Completion { sequence, correlation_id, requested_at_ms, processor, outcome, status } = completion;
        let is_taken_back = (outcome, status) == (Outcome::Processed, STATUS_TAKEN_BACK);
        let status = if is_taken_back { 0 } else { status };
        let entry = Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status };
        match (self.ledger.lookup(correlation_id), outcome) {
            // Its former life's, which was forgotten: what its processor has since then, whoever sends it finds out. (What an owner still has is of
            // this life, and as early as it says where the processor's own clock is behind.)
            (Known::Open(payment), Outcome::Processed)
                if (payment.owner != Some(session) || is_taken_back)
                    && self.is_of_before(
                        correlation_id,
                        &payment,
                        (processor, requested_at_ms),
                        payment.amount_cents,
                    ) =>
            {
                self.counters.stale_completions += 1;
            }
            (Known::Open(payment), Outcome::Processed) => {
                if payment.stage != Stage::at(processor) {
                    self.counters.contradictions += 1;
                }
                if let Some(reference) = reference {
                    self.attach(&Texts { members: None, reference: Some(reference.into()) });
                }
                self.apply(entry);
                // Whoever has it now would go on asking for what has ended, for ever where its processor has another amount.
                if let Some(owner) = payment.owner.filter(|owner| *owner != session) {
                    self.withdraw(owner, ANY_SLOT, correlation_id);
                }
            }
            (Known::Open(payment), Outcome::Refused)
                if payment.owner == Some(session)
                    && payment.stage == Stage::at(processor)
                    && payment.requested_at_ms == requested_at_ms
                    && !payment.in_doubt =>
            {
                self.apply(entry);
            }
            (Known::Open(payment), Outcome::Unknown) if payment.stage == Stage::at(processor) => {
                if !payment.in_doubt {
                    self.apply(entry);
                }
                self.learn_reference(correlation_id, reference);
            }
            // Only the owner knows that nothing is on its way any more.
            (Known::Open(payment), Outcome::Absent)
                if payment.owner == Some(session)
                    && payment.stage == Stage::at(processor)
                    && payment.requested_at_ms == requested_at_ms
                    && payment.in_doubt =>
            {
                self.apply(entry);
            }
            (Known::Open(payment), Outcome::Declined)
                if payment.owner == Some(session) && payment.stage == Stage::Waiting && !payment.in_doubt =>
            {
                self.apply(entry);
            }
            // Its owner knows less than we do: the payment became doubtful while that one was cut off, and another gateway may have
            // sent it since. It has dropped it, and is given it again, or nobody would work on a payment that has an owner.
            (Known::Open(payment), Outcome::Declined) if payment.owner == Some(session) => {
                self.counters.stale_completions += 1;
                self.assign(session, correlation_id, payment);
            }
            // It ended as not charged, and a processor has it.
            (Known::Declined { .. }, Outcome::Processed) => self.counters.contradictions += 1,
            (Known::Processed { processor: known, .. }, Outcome::Processed) if known != processor => {
                self.counters.contradictions += 1;
            }
            (Known::Open(_) | Known::Processed { .. } | Known::Declined { .. } | Known::Absent, _) => {
                self.counters.stale_completions += 1
            }
        }
        self.acknowledge(session, sequence);
    }

    /// One acknowledgement stands for all before it: a batch of completions needs only the last.
    fn acknowledge(&mut self, session: SessionId, sequence: u64) {
        if let Some((to, Message::Acknowledgement(last))) = self.messages.last_mut()
            && *to == session
            // Number 0 says something of its own.
            && last.sequence > 0
        {
            last.sequence = last.sequence.max(sequence);
            return;
        }
        self.send(session, Acknowledgement { sequence });
    }

    fn stray(&mut self, session: SessionId) {
        if let Some(known) = &mut self.sessions[usize::from(session.0)] {
            known.strayed += 1;
        }
    }

    fn withdraw(&mut self, session: SessionId, slot: u32, correlation_id: CorrelationId) {
        self.counters.withdrawn += 1;
        self.send(session, Withdrawal { slot, correlation_id });
    }

    /// A recorded attempt of somebody who is gone may have been sent.
    fn doubt(&mut self, correlation_id: CorrelationId, payment: OpenPayment) {
        if let Some(processor) = payment.stage.processor()
            && !payment.in_doubt
        {
            self.resolve(correlation_id, processor, payment.requested_at_ms, Outcome::Unknown);
        }
    }

    fn assign(&mut self, session: SessionId, correlation_id: CorrelationId, payment: OpenPayment) {
        self.doubt(correlation_id, payment);
        self.refuse_settlement_of(correlation_id, session);
        self.ledger.set_owner(correlation_id, Some(session));
        self.counters.handed_over += 1;
        let OpenPayment { amount_cents, requested_at_ms, stage, in_doubt, .. } = payment;
        let in_doubt = in_doubt || stage != Stage::Waiting;
        if let Some(texts) = self.ledger.texts(correlation_id) {
            self.messages.extend(texts.parts().map(|part| (session, part.into())));
        }
        self.send(session, Assignment { correlation_id, amount_cents, requested_at_ms, stage, in_doubt });
    }

    /// Ends the round that is over, and begins the next.
    fn answer_summaries(&mut self, now: Now) {
        loop {
            if let Some((questions, silent_count)) = self.summaries.end(now.monotonic_us) {
                if silent_count > 0 {
                    self.counters.unconfirmed_summaries += questions.len() as u64;
                }
                for (session, query) in questions {
                    self.summarize(session, query);
                }
            }
            let sessions = (0_u16..)
                .zip(&self.sessions)
                .filter(|(_, session)| session.is_some_and(|session| !session.superseded));
            let sessions = sessions.map(|(index, _)| SessionId(index));
            let Some((number, awaited)) = self.summaries.begin(sessions, now.monotonic_us) else { return };
            self.messages.extend(awaited.iter().map(|to| (*to, Flush { number }.into())));
        }
    }

    fn spread(&mut self, from: SessionId, report: HealthReport) {
        let HealthReport { processor, source, failing, response_ms, retry_after_ms } = report;
        for other in
            self.session_ids(|session| !session.superseded).into_iter().filter(|other| *other != from)
        {
            self.send(other, HealthNews { processor, source, failing, response_ms, retry_after_ms });
        }
    }

    fn resolve(&mut self, id: CorrelationId, processor: Processor, requested_at_ms: u64, outcome: Outcome) {
        self.apply(Entry::Resolved { correlation_id: id, processor, requested_at_ms, outcome, status: 0 });
    }

    fn apply(&mut self, entry: Entry) {
        self.ledger.apply(entry);
        self.note_known(&entry);
        self.entries.push(entry);
        // One that is sooner than was known, or has passed while an attempt was under way.
        let deadline_ms = self.ledger.next_deadline_ms();
        if deadline_ms
            .is_some_and(|deadline_ms| self.deadline_ms.is_none_or(|known_ms| deadline_ms < known_ms))
        {
            (self.deadline_ms, self.deadline_due_us) = (deadline_ms, 0);
        }
    }

    fn send(&mut self, to: SessionId, message: impl Into<Message>) {
        self.messages.push((to, message.into()));
    }

    fn session_ids(&self, which: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        (0_u16..)
            .zip(&self.sessions)
            .filter(|(_, session)| session.as_ref().is_some_and(&which))
            .map(|(index, _)| SessionId(index))
            .collect()
    }

    /// The next one in turn that will do.
    fn next_session(&mut self, will_do: impl Fn(&Self, SessionId, Session) -> bool) -> Option<SessionId> {
        let count = self.sessions.len();
        let number = |index: usize| SessionId(u16::try_from(index).expect("SESSION_COUNT_MAX fits"));
        let will_do = |index: &usize| {
            self.sessions[*index].is_some_and(|session| will_do(self, number(*index), session))
        };
        let index = (0..count).map(|step| (self.turn + 1 + step) % count).find(will_do)?;
        self.turn = index;
        Some(number(index))
    }
}
