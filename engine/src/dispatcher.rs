//! The gateway's decisions: what becomes of each payment from its POST to the ledger's acknowledgement.
//!
//! ```text
//!            Grant                    route             IntentRecorded
//! Accepting ───────▶ Waiting ──────────────▶ Intending ───────────────▶ Attempting ──▶ processed: Completion
//!     │                 ▲   ▲        ▲                                   │   ▲   │
//!     │                 │   └── Deferred ◀── refused again, declined ────┤   │   ├─▶ unknown: Doubtful ─┐
//!     │ Grant, planned  └──────────────── refused ───────────────────────┘   │   │    ▲  same processor │
//!     └──────────────────────────────────────────────────────────────────────┘◀──┼────┼────────────────┤
//!                                                                  duplicate,    ▼    │                ▼
//!                                                                  pending:   Verifying ◀── look-up ───┘
//! ```
//!
//! A payment that processors refuse while they take others is *deferred*: it leaves the queue, comes back after growing pauses, and finds out
//! whether a processor works only where nobody else does. So nothing that one payment does stops another.
//!
//! The usual payment takes the short cut: its accept already carries the planned attempt, so that one round trip to the
//! ledger both grants it and records the intent, and the answer to the client and the attempt leave together.
//!
//! Must never: send a byte to a processor before the ledger has the intent; send a payment in doubt to another
//! processor, or with another `requestedAt`; look at a status code; forget a completion that the ledger has not acknowledged.
//!
//! Survives: the loss of the ledger's connection (keeps dispatching what was granted, claims it after the reconnect,
//! repeats unacknowledged completions), processors that fail, hang or lie, withdrawal of a payment while its attempt
//! is on its way. Holds nothing that cannot be lost: whatever it knows, the ledger knows or learns from the processor.
//!
//! Events come in as method calls with the time; actions pile up in [`Dispatcher::actions`] for the shell to carry out.

mod action;
mod admission;
mod config;
mod doubts;
mod ends;
mod gauges;
mod grants;
mod notices;
mod payment;
mod reunion;
mod routing;
mod silences;
mod texts;
mod troubles;
mod waits;
mod yields;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use galo_admission::Claimer;
use galo_wire::record::{
    ANY_SLOT, Accept, Assignment, Completion, Flushed, HealthReport, HealthSource, Intent, Release,
    Withdrawal,
};
use galo_wire::{
    Attached, CorrelationId, Message, Outcome, PROCESSORS_LEN_MAX, Processor, STATUS_TAKEN_BACK, Stage,
};
use slab::Slab;

use crate::arrivals::Arrivals;
use crate::money::AmountCents;
use crate::outlook::{Outlook, OutlookConfig, Reservation, Sent};
use crate::pace::Pace;
use crate::random::Random;
use crate::router::{Reason, RouterConfig};
use crate::texts::Texts;
use crate::time::{Now, UnixMillis};

pub use action::{Action, Answer, Stored, Verification};
pub use config::{DispatcherConfig, DoubtPolicy, ProcessorPolicy};
use doubts::Budgets;
pub use gauges::{DispatcherCounters, DispatcherGauges};
use notices::Notices;
use payment::{Doubt, NewPayment, Payment, Place, State, Unacknowledged};
use texts::HeldTexts;
pub use troubles::PROOFS_LEN_MAX;
use troubles::{Proofs, Troubles};
use waits::NextDue;
use yields::Recalled;

/// The last part of a POST's wait is left to the grant's way back: one tenth, 100 ms of the default second, a thousand
/// times what it takes. Whatever the ledger grants before, the client hears of; afterwards it grants nothing.
const GRANT_RETURN_SHARE: u64 = 10;

/// A slot's lower bits are the payment's place, the upper eight count how often that place was used before.
const PLACE_BITS: u32 = 24;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;

/// What is said of all payments at once piles up to so many actions before the shell is shown them: a gateway has memory for as many payments as it may
/// hold, and none for as many actions.
const ACTIONS_LEN: usize = 1_024;

/// See the module's documentation.
pub struct Dispatcher {
    config: DispatcherConfig,
    /// Grants, where there is an admission table.
    claimer: Option<Claimer>,
    payments: Slab<Payment>,
    texts: HeldTexts,
    /// How often each place was used and freed, modulo 256.
    uses: Vec<u8>,
    /// The queue. An entry whose payment is elsewhere by now is skipped.
    waiting: VecDeque<(u32, CorrelationId)>,
    /// Payments in doubt by the time of their next try, per processor. Entries may be outdated, as above.
    doubtful: Vec<BinaryHeap<Reverse<(u64, u32)>>>,
    /// Likewise those that are to be looked up: what keeps an attempt from being made again keeps nobody from asking.
    looked_up: Vec<BinaryHeap<Reverse<(u64, u32)>>>,
    /// Payments that left the queue for a while, by when they come back. Entries may be outdated, as above.
    deferred: BinaryHeap<Reverse<(u64, u32)>>,
    /// Payments that came by an assignment and are still this gateway's: it must not hold one twice.
    assigned: HashMap<CorrelationId, u32>,
    /// Payments that have ended otherwise, and are still here.
    recalled: Recalled,
    /// What processors said of payments that are not looked up yet.
    notices: Notices,
    /// What is remembered of payments that were refused.
    troubles: Troubles,
    proofs: Proofs,
    /// Until when the ledger is taken for full, µs.
    ledger_full_until_us: u64,
    /// POSTs that wait for a grant, by deadline.
    deadlines: VecDeque<(u64, u32, CorrelationId)>,
    unacknowledged: VecDeque<Unacknowledged>,
    /// By [`Processor::index`].
    outlooks: Vec<Outlook>,
    arrivals: Arrivals,
    /// Of what leaves the queue.
    pace: Pace,
    /// The queue's first waits for that alone.
    is_paced: bool,
    next_due: NextDue,
    /// When the first token comes of those that the last payment that was routed lacked, µs; in the far future if it lacked none.
    rate_due_us: u64,
    /// What the queue's head, by its arrival, was told to wait for; `None` if it was sent.
    last_wait: Option<(u64, Reason)>,
    choices: routing::Choices,
    /// What may be tried again, per processor; probes are paced by their breaker instead.
    budgets: Vec<Budgets>,
    random: Random,
    connected: bool,
    /// When the last event came.
    event_at_us: u64,
    /// Of which questions whose the payments are by now the ledger's answer has not come: by the last completion before each.
    unheard: Vec<u64>,
    draining: bool,
    completion_sequence: u64,
    counters: DispatcherCounters,
    actions: Vec<Action>,
}

impl Dispatcher {
    /// A dispatcher that holds nothing and knows nothing.
    #[must_use]
    pub fn new(config: DispatcherConfig) -> Self {
        let mut random = Random::new(config.seed);
        let numbers_len = config.router.processors.iter().last().map_or(0, |last| last.index() + 1);
        let outlooks = config.processors[..numbers_len]
            .iter()
            .map(|policy| {
                let ProcessorPolicy { concurrency_max, rate, .. } = *policy;
                let thresholds = config.router.thresholds;
                Outlook::new(OutlookConfig { concurrency_max, rate, thresholds }, random.next_u64())
            })
            .collect();
        Self {
            config,
            claimer: None,
            payments: Slab::with_capacity(1024),
            texts: HeldTexts::default(),
            uses: Vec::with_capacity(1024),
            waiting: VecDeque::with_capacity(1024),
            doubtful: (0..numbers_len).map(|_| BinaryHeap::new()).collect(),
            looked_up: (0..numbers_len).map(|_| BinaryHeap::new()).collect(),
            deferred: BinaryHeap::new(),
            assigned: HashMap::new(),
            recalled: Recalled::default(),
            notices: Notices::default(),
            troubles: Troubles::default(),
            proofs: Proofs::default(),
            ledger_full_until_us: 0,
            deadlines: VecDeque::with_capacity(1024),
            unacknowledged: VecDeque::with_capacity(1024),
            outlooks,
            arrivals: Arrivals::default(),
            pace: Pace::default(),
            is_paced: false,
            next_due: NextDue::NEVER,
            rate_due_us: u64::MAX,
            last_wait: None,
            choices: routing::Choices::default(),
            budgets: (0..numbers_len).map(|_| Budgets::new()).collect(),
            random,
            connected: false,
            event_at_us: 0,
            unheard: Vec::new(),
            draining: false,
            completion_sequence: 0,
            counters: DispatcherCounters::default(),
            actions: Vec::with_capacity(1024),
        }
    }

    /// Goes on with other costs, thresholds and treatments of the same processors.
    ///
    /// # Panics
    /// If the processors or their hard limits are others.
    pub fn reconfigure(&mut self, router: RouterConfig, processors: [ProcessorPolicy; PROCESSORS_LEN_MAX]) {
        let limits = |all: &[ProcessorPolicy; PROCESSORS_LEN_MAX]| all.map(|policy| policy.concurrency_max);
        assert_eq!(self.config.router.processors, router.processors, "the same processors");
        assert_eq!(limits(&self.config.processors), limits(&processors), "with the same hard limits");
        self.config.router = router;
        self.config.processors = processors;
        for (outlook, policy) in self.outlooks.iter_mut().zip(processors) {
            outlook.set_thresholds(router.thresholds);
            outlook.set_rate(policy.rate);
        }
    }

    /// What the shell is to do, in order. It empties the list.
    pub fn actions(&mut self) -> &mut Vec<Action> {
        &mut self.actions
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> &DispatcherCounters {
        &self.counters
    }

    /// The present state, for metrics.
    pub fn gauges(&mut self, now: Now) -> DispatcherGauges {
        let mut gauges = DispatcherGauges {
            held: self.payments.len(),
            waiting: self.waiting.len(),
            deferred: self.deferred.len(),
            unacknowledged: self.unacknowledged.len(),
            ..DispatcherGauges::default()
        };
        for (index, outlook) in self.outlooks.iter_mut().enumerate() {
            gauges.doubtful[index] = self.doubtful[index].len() + self.looked_up[index].len();
            gauges.in_flight[index] = outlook.in_flight();
            gauges.hanging[index] = outlook.hanging();
            gauges.limit[index] = outlook.limit();
            gauges.breaker[index] = outlook.breaker_state(now);
            gauges.expected_us[index] = outlook.expected_us(now);
            gauges.rests_us[index] = outlook.rests_us(now);
        }
        gauges
    }

    /// Whether one more POST would be taken. Where those that fill the queue wait for a payment that shows whether a processor takes any,
    /// a few are beyond its bound.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let proofs_len_max = if self.proofs.awaited().is_empty() { 0 } else { PROOFS_LEN_MAX };
        self.payments.len() < self.config.queue_len_max + proofs_len_max
    }

    /// A POST without members that go to a processor. The answer comes as [`Action::Answer`], at the latest after the configured wait.
    pub fn accept(&mut self, ticket: u32, correlation_id: CorrelationId, amount: AmountCents, now: Now) {
        self.accept_with(ticket, correlation_id, amount, None, now);
    }

    /// A POST, with those of its members that go to a processor.
    pub fn accept_with(
        &mut self,
        ticket: u32,
        correlation_id: CorrelationId,
        amount: AmountCents,
        members: Option<Arc<str>>,
        now: Now,
    ) {
        self.wake(now);
        self.arrivals.on_arrival(now.monotonic_us);
        if !self.has_room() {
            self.answer(ticket, Answer::Full);
            return;
        }
        let (plan, reason) = self.plan(amount, now);
        if members.is_none() && self.admit(ticket, correlation_id, amount, (plan, reason), now) {
            return;
        }
        // Without the ledger it is planned anew once that is back.
        let plan = match plan {
            Some(place) if !self.connected => {
                self.cancel(place, now);
                None
            }
            plan => plan,
        };
        let slot = self.insert(NewPayment { correlation_id, amount, plan, ticket: Some(ticket) }.at(now));
        self.texts.hold(slot, Texts { members, reference: None });
        self.deadlines.push_back((now.monotonic_us + self.config.accept_wait_us_max, slot, correlation_id));
        if self.connected {
            self.send_accept(slot, reason, now);
        }
    }

    /// A record of the aggregator, to which no text belongs.
    pub fn handle(&mut self, message: Message, now: Now) {
        self.handle_with(message, &Attached::NOTHING, now);
    }

    /// A record of the aggregator, with the texts that came before it. Replies to queries are the shell's and do not come here.
    pub fn handle_with(&mut self, message: Message, attached: &Attached, now: Now) {
        self.wake(now);
        match message {
            Message::Grant(grant) => self.granted(grant, now),
            Message::IntentRecorded(recorded) => self.intent_recorded(recorded, now),
            Message::Acknowledgement(acknowledgement) => {
                self.claims_heard(acknowledgement);
                while self
                    .unacknowledged
                    .front()
                    .is_some_and(|first| first.completion.sequence <= acknowledgement.sequence)
                {
                    self.unacknowledged.pop_front();
                }
            }
            Message::Assignment(assignment) => self.assigned(assignment, Texts::of(attached), now),
            Message::Withdrawal(Withdrawal { slot: ANY_SLOT, correlation_id }) => self.recall(correlation_id),
            Message::Withdrawal(withdrawal) => self.withdraw(withdrawal, now),
            Message::Yield(asked) => self.yield_up(asked),
            Message::Notified(notified) => self.notified(notified, now),
            Message::Purged(_) => self.purged(),
            Message::Lease(lease) => self.actions.push(Action::CheckHealth { processor: lease.processor }),
            // Completions leave as actions in the order in which they were heard of: they are all before this.
            Message::Flush(flush) => self.actions.push(Action::Send(Flushed { number: flush.number }.into())),
            Message::HealthNews(news) => {
                let Some(outlook) = self.outlooks.get_mut(news.processor.index()) else {
                    self.counters.stale_records += 1;
                    return;
                };
                outlook.news(news.failing, now);
                if news.retry_after_ms > 0 {
                    outlook.rest(u64::from(news.retry_after_ms) * 1_000, now);
                }
                if !news.failing {
                    self.hasten_deferred(now);
                }
                let outlook = &mut self.outlooks[news.processor.index()];
                if news.source == HealthSource::Check || !news.failing {
                    outlook.checked(u64::from(news.response_ms) * 1000, now);
                }
                self.pump(now);
            }
            Message::Contradiction(contradiction) => self.contradicted(contradiction),
            Message::Hello(_)
            // The shell maps the table.
            | Message::Opened(_)
            | Message::Part(_)
            | Message::Accept(_)
            | Message::Intent(_)
            | Message::Completion(_)
            | Message::Claim(_)
            | Message::Ready(_)
            | Message::Release(_)
            | Message::SummaryQuery(_)
            | Message::Discrepancy(_)
            | Message::SummaryTotal(_)
            | Message::SummaryReply(_)
            | Message::LookupQuery(_)
            | Message::PastDecision(_)
            | Message::LookupReply(_)
            | Message::PurgeQuery(_)
            | Message::PurgeReply(_)
            | Message::Flushed(_)
            | Message::CancelQuery(_)
            | Message::Yielded(_)
            | Message::Notice(_)
            | Message::HealthReport(_) => self.counters.stale_records += 1,
        }
    }

    /// A health check ended: failing and the least response time in ms, or `None` where it gave no answer.
    pub fn health_checked(&mut self, processor: Processor, health: Option<(bool, u32)>, now: Now) {
        self.wake(now);
        let Some((failing, response_ms)) = health else { return };
        let outlook = &mut self.outlooks[processor.index()];
        outlook.news(failing, now);
        outlook.checked(u64::from(response_ms) * 1000, now);
        if !failing {
            self.hasten_deferred(now);
        }
        let source = HealthSource::Check;
        self.report(HealthReport { processor, source, failing, response_ms, retry_after_ms: 0 });
        self.pump(now);
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) {
        self.wake(now);
        while let Some((deadline_us, slot, correlation_id)) = self.deadlines.front().copied() {
            let waits = self.payments.get(key_of(slot)).is_some_and(|payment| {
                payment.slot == slot
                    && payment.correlation_id == correlation_id
                    && matches!(payment.state, State::Accepting(_))
            });
            if waits && deadline_us > now.monotonic_us {
                break;
            }
            self.deadlines.pop_front();
            if waits {
                self.give_up(slot, now);
            }
        }
        self.drop_recalled(now);
        self.heed_notices(now);
        self.pump(now);
    }

    /// The process is to stop: hand back what is not on its way, finish what is.
    pub fn drain(&mut self) {
        self.drain_with(|_| {});
    }

    /// Likewise, for a shell that is shown now and then what is to be sent.
    pub fn drain_with(&mut self, mut take: impl FnMut(&mut Vec<Action>)) {
        self.draining = true;
        let slots: Vec<u32> = self.payments.iter().map(|(_, payment)| payment.slot).collect();
        for slot in slots {
            let state = self.payments[key_of(slot)].state;
            if matches!(state, State::Waiting | State::Deferred | State::Doubtful(_)) {
                self.release(slot);
            }
            if self.actions.len() >= ACTIONS_LEN {
                take(&mut self.actions);
            }
        }
    }

    /// Whether nothing is held or unacknowledged.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.payments.is_empty() && self.unacknowledged.is_empty()
    }

    fn assigned(&mut self, assignment: Assignment, texts: Texts, now: Now) {
        let Assignment { correlation_id, amount_cents, requested_at_ms, stage, in_doubt } = assignment;
        let Some(amount) = AmountCents::new(amount_cents) else {
            self.counters.stale_records += 1;
            return;
        };
        self.drop_recalled_before(correlation_id, now);
        // Said again to whoever asked about the copy that was withdrawn when this one was assigned: what the ledger knew then, the
        // present copy knows, and has perhaps acted upon.
        if self.assigned.contains_key(&correlation_id) {
            self.counters.stale_records += 1;
            return;
        }
        let processor = stage.processor();
        // No gateway that knows other processors is let in.
        if processor.is_some_and(|processor| !self.config.router.processors.has(processor)) {
            self.counters.stale_records += 1;
            return;
        }
        self.counters.assigned += 1;
        // Beyond `queue_len_max` on purpose: a payment that was accepted is not refused afterwards. The ledger gives no more than
        // Ready asks for.
        let slot = self.insert(Payment {
            slot: 0,
            correlation_id,
            amount,
            requested_at: UnixMillis(requested_at_ms),
            arrived_us: now.monotonic_us,
            ticket: None,
            stamped_after_ms: 0,
            tries: 0,
            refusals_in_doubt: 0,
            late: 0,
            state: State::Waiting,
            in_doubt,
            probed: false,
            withdrawn: false,
            is_asked_for: false,
        });
        self.texts.hold(slot, texts);
        self.assigned.insert(correlation_id, slot);
        match processor {
            // Whoever had it may have sent it until just now.
            Some(processor) => self.doubt(slot, Doubt::sent(processor, now.monotonic_us), now),
            None => self.wait(slot, Side::Back),
        }
        self.pump(now);
    }

    fn withdraw(&mut self, withdrawal: Withdrawal, now: Now) {
        let Withdrawal { slot, correlation_id } = withdrawal;
        let Some(payment) = self.find(slot, correlation_id, |_| true) else {
            // The usual end of a claim for a payment whose completion went with it.
            return;
        };
        self.take_back(payment.slot, now);
        self.sweep_seldom();
    }

    /// Drops a payment that is not this gateway's any more. What is on its way only frees its place.
    fn take_back(&mut self, slot: u32, now: Now) {
        self.counters.withdrawn += 1;
        match self.payments[key_of(slot)].state {
            State::Intending(place) => {
                self.cancel(place, now);
                self.free(slot);
            }
            State::Waiting | State::Deferred | State::Doubtful(_) => self.free(slot),
            State::Attempting(..) | State::Verifying(_) => self.let_go(slot),
            // It is new, and its answer is on its way.
            State::Accepting(_) => self.counters.stale_records += 1,
        }
    }

    /// The ledger is empty. What was granted before is dropped; what is on its way only frees its place.
    fn purged(&mut self) {
        self.recalled.clear();
        self.notices.clear();
        self.unacknowledged.clear();
        let slots: Vec<u32> = self.payments.iter().map(|(_, payment)| payment.slot).collect();
        for slot in slots {
            match self.payments[key_of(slot)].state {
                State::Waiting | State::Deferred | State::Doubtful(_) => self.free(slot),
                State::Attempting(..) | State::Verifying(_) => self.let_go(slot),
                // Their answers come after the purge and belong to what comes after it.
                State::Accepting(_) | State::Intending(_) => {}
            }
        }
        self.sweep();
    }

    /// Sends what can be sent: payments in doubt first, since their processors have held them longest, then those that come back, then
    /// the queue.
    fn pump(&mut self, now: Now) {
        self.give_up_silent(now);
        self.retry_doubtful(now);
        self.retry_deferred(now);
        self.note_next_due(now);
        self.is_paced = false;
        while self.connected
            && let Some((slot, correlation_id)) = self.waiting.front().copied()
        {
            let Some(payment) = self.find(slot, correlation_id, |state| state == State::Waiting) else {
                self.waiting.pop_front();
                continue;
            };
            if !self.pace.has_token(now.monotonic_us, self.arrivals.per_second()) {
                self.is_paced = true;
                break;
            }
            let asked = self.question(&payment, now);
            let (Some(place), reason) = self.decide(asked, now) else { break };
            self.pace.take();
            self.waiting.pop_front();
            self.intend(slot, place, reason, now);
        }
    }

    /// Tells the ledger where a payment is about to be sent.
    fn intend(&mut self, slot: u32, place: Place, reason: Reason, now: Now) {
        let processor = place.processor;
        let payment = self.payment(slot);
        payment.state = State::Intending(place);
        payment.probed |= place.reservation == Reservation::Probe;
        // No two attempts of a payment share it, whatever the clocks of the gateways that made them said: it is by this
        // that the ledger tells them apart.
        payment.stamp(now.unix_ms.max(UnixMillis(payment.requested_at.0 + 1)), now);
        let (correlation_id, requested_at_ms) = (payment.correlation_id, payment.requested_at.0);
        let waited_us = now.monotonic_us.saturating_sub(payment.arrived_us);
        let waited_for_ms = u32::try_from(waited_us / 1000).unwrap_or(u32::MAX);
        self.actions.push(Action::Send(
            Intent { slot, correlation_id, requested_at_ms, processor, reason, waited_for_ms }.into(),
        ));
    }

    fn cancel(&mut self, place: Place, now: Now) {
        self.outlooks[place.processor.index()].cancel(place.reservation, now);
    }

    fn attempt(&mut self, slot: u32, Place { processor, reservation }: Place, now: Now) {
        let payment = self.payment(slot);
        let sent = Sent { at_us: now.monotonic_us, reservation };
        payment.state = State::Attempting(processor, sent, payment.state.given_up());
        let Payment { correlation_id, amount, requested_at, .. } = *payment;
        self.outlooks[processor.index()].sent(slot, now);
        self.counters.attempts[processor.index()] += 1;
        self.actions.push(Action::Attempt { slot, processor, correlation_id, amount, requested_at });
    }

    fn wait(&mut self, slot: u32, side: Side) {
        if self.draining {
            self.payment(slot).state = State::Waiting;
            self.release(slot);
            return;
        }
        let payment = self.payment(slot);
        payment.state = State::Waiting;
        let entry = (slot, payment.correlation_id);
        match side {
            Side::Front => self.waiting.push_front(entry),
            Side::Back => self.waiting.push_back(entry),
        }
    }

    fn processed(&mut self, slot: u32, processor: Processor, requested_at: UnixMillis) {
        let payment = self.payments[key_of(slot)];
        // By now its id may be another payment's, of this gateway too.
        let status = if payment.withdrawn { STATUS_TAKEN_BACK } else { 0 };
        self.complete_with(&payment, processor, requested_at, Outcome::Processed, status);
        self.free(slot);
    }

    fn complete(
        &mut self,
        payment: &Payment,
        processor: Processor,
        requested_at: UnixMillis,
        outcome: Outcome,
    ) {
        self.complete_with(payment, processor, requested_at, outcome, 0);
    }

    fn complete_with(
        &mut self,
        payment: &Payment,
        processor: Processor,
        requested_at: UnixMillis,
        outcome: Outcome,
        status: u16,
    ) {
        self.completion_sequence += 1;
        let completion = Completion {
            sequence: self.completion_sequence,
            correlation_id: payment.correlation_id,
            requested_at_ms: requested_at.0,
            processor,
            outcome,
            status,
        };
        let texts = self.complete_texts(payment.slot, outcome);
        // What ends a payment is said again to a ledger that has not acknowledged it.
        let attempted_at_ms = match outcome {
            Outcome::Processed => Some(requested_at.0),
            Outcome::Declined => Some(payment.requested_at.0),
            Outcome::Refused | Outcome::Unknown | Outcome::Absent => None,
        };
        if let Some(attempted_at_ms) = attempted_at_ms {
            let amount_cents = payment.amount.get();
            self.unacknowledged.push_back(Unacknowledged {
                completion,
                amount_cents,
                attempted_at_ms,
                texts,
            });
        }
        if self.connected {
            self.actions.push(Action::Send(completion.into()));
        }
    }

    /// Gives a payment back to the ledger, for another gateway.
    fn release(&mut self, slot: u32) {
        let correlation_id = self.payments[key_of(slot)].correlation_id;
        if self.connected {
            self.actions.push(Action::Send(Release { correlation_id }.into()));
        }
        self.free(slot);
    }

    /// A POST has waited long enough.
    ///
    /// While the connection stands the ledger's word is still to come, and the payment keeps its place until then: it
    /// expired, or, if the grant was all but on its way, it goes on without its POST. Without a connection there is nothing
    /// to wait for: what the ledger may have, it hands to whoever is there.
    fn give_up(&mut self, slot: u32, now: Now) {
        if let Some(ticket) = self.payment(slot).ticket.take() {
            self.answer(ticket, Answer::Unreachable);
        }
        if !self.connected {
            if let State::Accepting(Some(place)) = self.payments[key_of(slot)].state {
                self.cancel(place, now);
            }
            self.free(slot);
        }
    }

    fn report(&mut self, report: HealthReport) {
        if self.connected {
            self.actions.push(Action::Send(report.into()));
        }
    }

    fn send_accept(&mut self, slot: u32, reason: Reason, now: Now) {
        let Payment { correlation_id, amount, requested_at, arrived_us, state, .. } =
            self.payments[key_of(slot)];
        let State::Accepting(plan) = state else {
            unreachable!("only a payment that is not granted is accepted")
        };
        let stage = plan.map_or(Stage::Waiting, |place| Stage::at(place.processor));
        let decided_at_ms = if plan.is_some() { requested_at.0 } else { now.unix_ms.0 };
        // The router counts its own decisions; this one it was not asked about.
        self.counters.decisions[reason as usize] += u64::from(reason == Reason::Queued);
        let amount_cents = amount.get();
        let wait_us = self.config.accept_wait_us_max;
        let expires_at_us = arrived_us + wait_us - wait_us / GRANT_RETURN_SHARE;
        let accept =
            Accept { slot, correlation_id, amount_cents, decided_at_ms, expires_at_us, stage, reason };
        self.send_texts(slot);
        self.actions.push(Action::Send(accept.into()));
    }

    fn answer(&mut self, ticket: u32, answer: Answer) {
        self.counters.answers[answer as usize] += 1;
        self.actions.push(Action::Answer { ticket, answer });
    }

    /// Gives a payment its slot. The same place is another slot each time: an answer of the ledger that is still on its way
    /// to a payment that was withdrawn must not be taken for one to the same payment's next assignment.
    fn insert(&mut self, payment: Payment) -> u32 {
        let key = self.payments.insert(payment);
        if key == self.uses.len() {
            self.uses.push(0);
        }
        let place = u32::try_from(key).ok().filter(|place| *place < PLACE_MASK);
        let place = place.expect("a gateway holds fewer than 2^24 payments, which would take 1.5 GB");
        let slot = place | u32::from(self.uses[key]) << PLACE_BITS;
        self.payments[key].slot = slot;
        slot
    }

    /// A payment is not ours any more; only its attempt's end is awaited.
    fn let_go(&mut self, slot: u32) {
        self.payment(slot).withdrawn = true;
        let correlation_id = self.payments[key_of(slot)].correlation_id;
        self.forget_assigned(slot, correlation_id);
    }

    fn forget_assigned(&mut self, slot: u32, correlation_id: CorrelationId) {
        if self.assigned.get(&correlation_id) == Some(&slot) {
            self.assigned.remove(&correlation_id);
        }
    }

    fn free(&mut self, slot: u32) {
        self.troubles.forget(slot);
        self.texts.forget(slot);
        let payment = self.payments.remove(key_of(slot));
        self.forget_assigned(slot, payment.correlation_id);
        let uses = &mut self.uses[key_of(slot)];
        *uses = uses.wrapping_add(1);
    }

    fn payment(&mut self, slot: u32) -> &mut Payment {
        &mut self.payments[key_of(slot)]
    }

    fn find(&self, slot: u32, id: CorrelationId, is: impl Fn(State) -> bool) -> Option<Payment> {
        let payment = self.payments.get(key_of(slot)).copied()?;
        let same = payment.slot == slot && payment.correlation_id == id;
        (same && !payment.withdrawn && is(payment.state)).then_some(payment)
    }
}

#[derive(Clone, Copy)]
enum Side {
    Front,
    Back,
}

fn key_of(slot: u32) -> usize {
    (slot & PLACE_MASK) as usize
}
