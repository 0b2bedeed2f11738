//! The gateway's decisions: what becomes of each payment from its POST to the ledger's acknowledgement.
//!
//! ```text
//!            Grant                    route             IntentRecorded
//! Accepting ───────▶ Waiting ──────────────▶ Intending ───────────────▶ Attempting ──▶ processed: Completion
//!     │                 ▲                                                │   ▲   │
//!     │ Grant, planned  └──────────────── refused ───────────────────────┘   │   └─▶ unknown: Doubtful ─┐
//!     └──────────────────────────────────────────────────────────────────────┘◀───── same processor ────┘
//! ```
//!
//! The usual payment takes the short cut: its accept already carries the planned attempt, so that one round trip to the
//! ledger both grants it and records the intent, and the answer to the client and the attempt leave together.
//!
//! Must never: send a byte to a processor before the ledger has the intent; send a payment in doubt to the other
//! processor, or with another `requestedAt`; forget a completion that the ledger has not acknowledged.
//!
//! Survives: the loss of the ledger's connection (keeps dispatching what was granted, claims it after the reconnect,
//! repeats unacknowledged completions), processors that fail, hang or lie, withdrawal of a payment while its attempt
//! is on its way. Holds nothing that cannot be lost: whatever it knows, the ledger knows or learns from the processor.
//!
//! Events come in as method calls with the time; actions pile up in [`Dispatcher::actions`] for the shell to carry out.

mod action;
mod gauges;
mod payment;
mod routing;
mod waits;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use galo_wire::record::{
    Accept, Assignment, Claim, Completion, Flushed, Grant, HealthReport, HealthSource, Intent,
    IntentRecorded, Ready, Release, Verdict, Withdrawal,
};
use galo_wire::{CorrelationId, Message, Outcome, Processor, Stage};
use slab::Slab;

use crate::arrivals::Arrivals;
use crate::money::AmountCents;
use crate::outcome::{Reply, classify};
use crate::outlook::{Outlook, OutlookConfig, Reservation, Sent};
use crate::pace::Pace;
use crate::random::Random;
use crate::retry::{Backoff, Budget, BudgetConfig};
use crate::router::{Reason, RouterConfig};
use crate::time::{Now, UnixMillis};

pub use action::{Action, Answer, Verification};
pub use gauges::{DispatcherCounters, DispatcherGauges};
use payment::{Payment, Place, State, Unacknowledged};

/// What the dispatcher is told at start.
#[derive(Clone, Copy, Debug)]
pub struct DispatcherConfig {
    /// Fees and patience.
    pub router: RouterConfig,
    /// Payments held at most. Memory: 80 bytes a payment, and 20 in the queue it waits in.
    pub queue_len_max: usize,
    /// Attempts in flight per processor at most.
    pub concurrency_max: u32,
    /// How long a POST waits for the ledger, µs.
    pub accept_wait_us_max: u64,
    /// Drawn at each start.
    pub seed: u64,
}

/// A planned attempt whose grant took longer than this is planned anew, so that its `requestedAt` is not stale.
const PLAN_AGE_MS_MAX: u64 = 250;

/// The last part of a POST's wait is left to the grant's way back: one tenth, 100 ms of the default second, a thousand
/// times what it takes. Whatever the ledger grants before, the client hears of; afterwards it grants nothing.
const GRANT_RETURN_SHARE: u64 = 10;

/// Each success pays for two more tries, so that what an outage left in doubt is settled as fast as the processor says
/// yes; one that goes on saying nothing is asked twenty times a second, however many payments it holds.
const RETRY_BUDGET: BudgetConfig = BudgetConfig { percent_of_successes: 200, per_second: 20, saved_max: 400 };

/// A slot's lower bits are the payment's place, the upper eight count how often that place was used before.
const PLACE_BITS: u32 = 24;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;

/// The `requestedAt` of a payment that waits without an attempt that was recorded and refused, of which a claim would tell.
const NO_ATTEMPT: UnixMillis = UnixMillis(0);

/// How often a 422 whose payment cannot be looked up is asked again before our own `requestedAt` is taken.
const VERIFY_COUNT_MAX: u16 = 5;

/// See the module's documentation.
pub struct Dispatcher {
    config: DispatcherConfig,
    payments: Slab<Payment>,
    /// How often each place was used and freed, modulo 256.
    uses: Vec<u8>,
    /// The queue. An entry whose payment is elsewhere by now is skipped.
    waiting: VecDeque<(u32, CorrelationId)>,
    /// Payments in doubt by the time of their next try, per processor. Entries may be outdated, as above.
    doubtful: [BinaryHeap<Reverse<(u64, u32)>>; 2],
    /// POSTs that wait for a grant, by deadline.
    deadlines: VecDeque<(u64, u32, CorrelationId)>,
    unacknowledged: VecDeque<Unacknowledged>,
    outlooks: [Outlook; 2],
    arrivals: Arrivals,
    /// Of what leaves the queue.
    pace: Pace,
    /// The queue's first waits for that alone.
    is_paced: bool,
    /// Which payment, by its arrival, was told to wait last, and why.
    last_wait: Option<(u64, Reason)>,
    backoff: Backoff,
    /// What may be tried again, per processor; probes are paced by their breaker instead.
    budgets: [Budget; 2],
    random: Random,
    connected: bool,
    draining: bool,
    completion_sequence: u64,
    counters: DispatcherCounters,
    actions: Vec<Action>,
}

impl Dispatcher {
    /// A dispatcher that holds nothing and knows nothing.
    #[must_use]
    pub fn new(config: DispatcherConfig) -> Self {
        let outlook_config =
            OutlookConfig { concurrency_max: config.concurrency_max, slow_us: config.router.slow_us };
        let mut random = Random::new(config.seed);
        let outlooks = [
            Outlook::new(outlook_config, random.next_u64()),
            Outlook::new(outlook_config, random.next_u64()),
        ];
        Self {
            config,
            payments: Slab::with_capacity(1024),
            uses: Vec::with_capacity(1024),
            waiting: VecDeque::with_capacity(1024),
            doubtful: [BinaryHeap::new(), BinaryHeap::new()],
            deadlines: VecDeque::with_capacity(1024),
            unacknowledged: VecDeque::with_capacity(1024),
            outlooks,
            arrivals: Arrivals::default(),
            pace: Pace::default(),
            is_paced: false,
            last_wait: None,
            backoff: Backoff { base_ms: 20, max_ms: 1000, factor_percent: 200 },
            budgets: [Budget::new(RETRY_BUDGET), Budget::new(RETRY_BUDGET)],
            random,
            connected: false,
            draining: false,
            completion_sequence: 0,
            counters: DispatcherCounters::default(),
            actions: Vec::with_capacity(1024),
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
        let [default, fallback] = &mut self.outlooks;
        DispatcherGauges {
            held: self.payments.len(),
            waiting: self.waiting.len(),
            doubtful: [self.doubtful[0].len(), self.doubtful[1].len()],
            unacknowledged: self.unacknowledged.len(),
            in_flight: [default.in_flight(), fallback.in_flight()],
            limit: [default.limit(), fallback.limit()],
            breaker: [default.breaker_state(now), fallback.breaker_state(now)],
            expected_us: [default.expected_us(now), fallback.expected_us(now)],
        }
    }

    /// Whether one more POST would be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.payments.len() < self.config.queue_len_max
    }

    /// A POST. The answer comes as [`Action::Answer`], at the latest after the configured wait.
    pub fn accept(&mut self, ticket: u32, correlation_id: CorrelationId, amount: AmountCents, now: Now) {
        self.arrivals.on_arrival(now.monotonic_us);
        if !self.has_room() {
            self.answer(ticket, Answer::Full);
            return;
        }
        let (plan, reason) = self.plan(now);
        let slot = self.insert(Payment {
            slot: 0,
            correlation_id,
            amount,
            requested_at: if plan.is_some() { now.unix_ms } else { NO_ATTEMPT },
            arrived_us: now.monotonic_us,
            ticket: Some(ticket),
            tries: 0,
            state: State::Accepting(plan),
            in_doubt: false,
            probed: plan.is_some_and(|place| place.reservation == Reservation::Probe),
            withdrawn: false,
        });
        self.deadlines.push_back((now.monotonic_us + self.config.accept_wait_us_max, slot, correlation_id));
        if self.connected {
            self.send_accept(slot, reason, now);
        }
    }

    /// The connection to the aggregator stands, hellos are exchanged: say what is held, then ask for work.
    pub fn connected(&mut self, now: Now) {
        assert!(!self.connected, "a connection is lost before the next one stands");
        self.connected = true;
        // While the ledger was away, its clients waited for their answers.
        self.arrivals.on_interruption(now.monotonic_us);
        // Completions first: a claim for a payment that is processed would only be withdrawn. A ledger that has lost its
        // memory needs the claim before the completion, one that has not ignores it.
        let mut unacknowledged = std::mem::take(&mut self.unacknowledged);
        let mut claim_count = unacknowledged.len() as u64;
        for Unacknowledged { completion, amount_cents } in &mut unacknowledged {
            self.completion_sequence += 1;
            completion.sequence = self.completion_sequence;
            self.actions.push(Action::Send(
                Claim {
                    slot: u32::MAX,
                    correlation_id: completion.correlation_id,
                    amount_cents: *amount_cents,
                    requested_at_ms: completion.requested_at_ms,
                    stage: Stage::at(completion.processor),
                    in_doubt: false,
                }
                .into(),
            ));
            self.actions.push(Action::Send((*completion).into()));
        }
        self.unacknowledged = unacknowledged;
        let slots: Vec<u32> = self.payments.iter().map(|(_, payment)| payment.slot).collect();
        for slot in slots {
            let payment = self.payments[key_of(slot)];
            let claim = |stage, requested_at: UnixMillis| {
                Action::Send(
                    Claim {
                        slot,
                        correlation_id: payment.correlation_id,
                        amount_cents: payment.amount.get(),
                        requested_at_ms: requested_at.0,
                        stage,
                        in_doubt: payment.in_doubt,
                    }
                    .into(),
                )
            };
            match payment.state {
                _ if payment.withdrawn => continue,
                State::Accepting(plan) => {
                    if let Some(place) = plan {
                        self.cancel(place, now);
                        let payment = self.payment(slot);
                        (payment.state, payment.requested_at) = (State::Accepting(None), NO_ATTEMPT);
                    }
                    self.send_accept(slot, Reason::Queued, now);
                    continue;
                }
                // It may be recorded and was not acted upon, but is not named: the ledger's may be another's, and on its way.
                State::Intending(place) => {
                    self.cancel(place, now);
                    self.payment(slot).requested_at = NO_ATTEMPT;
                    self.actions.push(claim(Stage::Waiting, NO_ATTEMPT));
                    self.wait(slot, End::Front);
                }
                State::Waiting => self.actions.push(claim(Stage::Waiting, payment.requested_at)),
                State::Attempting(processor, _)
                | State::Doubtful(processor)
                | State::Verifying(processor) => {
                    self.actions.push(claim(Stage::at(processor), payment.requested_at));
                }
            }
            claim_count += 1;
        }
        if !self.draining {
            self.actions.push(Action::Send(Ready { claim_count }.into()));
        }
        self.pump(now);
    }

    /// The connection to the aggregator is gone. What was granted goes on.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// A record of the aggregator. Replies to queries are the shell's and do not come here.
    pub fn handle(&mut self, message: Message, now: Now) {
        match message {
            Message::Grant(grant) => self.granted(grant, now),
            Message::IntentRecorded(recorded) => self.intent_recorded(recorded, now),
            Message::Acknowledgement(acknowledgement) => {
                while self
                    .unacknowledged
                    .front()
                    .is_some_and(|first| first.completion.sequence <= acknowledgement.sequence)
                {
                    self.unacknowledged.pop_front();
                }
            }
            Message::Assignment(assignment) => self.assigned(assignment, now),
            Message::Withdrawal(withdrawal) => self.withdraw(withdrawal, now),
            Message::Purged(_) => self.purged(),
            Message::Lease(lease) => self.actions.push(Action::CheckHealth { processor: lease.processor }),
            // Completions leave as actions in the order in which they were heard of: they are all before this.
            Message::Flush(flush) => self.actions.push(Action::Send(Flushed { number: flush.number }.into())),
            Message::HealthNews(news) => {
                let outlook = &mut self.outlooks[news.processor.index()];
                outlook.news(news.failing, now);
                if news.source == HealthSource::Check || !news.failing {
                    outlook.checked(u64::from(news.response_ms) * 1000, now);
                }
                self.pump(now);
            }
            Message::Hello(_)
            | Message::Accept(_)
            | Message::Intent(_)
            | Message::Completion(_)
            | Message::Claim(_)
            | Message::Ready(_)
            | Message::Release(_)
            | Message::SummaryQuery(_)
            | Message::SummaryReply(_)
            | Message::LookupQuery(_)
            | Message::PastDecision(_)
            | Message::LookupReply(_)
            | Message::PurgeQuery(_)
            | Message::PurgeReply(_)
            | Message::Flushed(_)
            | Message::HealthReport(_) => self.counters.stale_records += 1,
        }
    }

    /// An attempt ended. Called exactly once for each [`Action::Attempt`].
    pub fn attempt_ended(&mut self, slot: u32, reply: Reply, latency_us: u64, now: Now) {
        let payment = self.payments[key_of(slot)];
        let State::Attempting(processor, sent) = payment.state else {
            unreachable!("an attempt ends once, in state {:?}", payment.state);
        };
        let outcome = classify(reply);
        self.counters.outcomes[processor.index()][outcome as usize] += 1;
        let change = self.outlooks[processor.index()].ended(slot, sent, reply, latency_us, now);
        self.tell(processor, change, now);
        if outcome == Outcome::Processed {
            self.budgets[processor.index()].on_success();
        }
        match outcome {
            Outcome::Processed if reply == (Reply::Answered { status: 422 }) => {
                self.payment(slot).tries = 0;
                self.verify(slot, processor);
            }
            Outcome::Processed => self.processed(slot, processor, payment.requested_at),
            Outcome::Refused if payment.withdrawn => self.free(slot),
            Outcome::Refused if !payment.in_doubt => {
                self.complete(&payment, processor, payment.requested_at, Outcome::Refused);
                self.wait(slot, End::Front);
            }
            // In doubt before or now: only a 2xx or a 422 of this processor ends that.
            Outcome::Refused | Outcome::Unknown => {
                if !payment.in_doubt {
                    self.complete(&payment, processor, payment.requested_at, Outcome::Unknown);
                }
                if payment.withdrawn {
                    self.free(slot);
                } else {
                    self.doubt(slot, processor, now);
                }
            }
        }
        self.pump(now);
    }

    /// A lookup ended. Called exactly once for each [`Action::Verify`].
    pub fn verified(&mut self, slot: u32, verification: Verification, now: Now) {
        let payment = self.payments[key_of(slot)];
        let State::Verifying(processor) = payment.state else {
            unreachable!("a lookup ends once, in state {:?}", payment.state);
        };
        match verification {
            Verification::Found(requested_at) => self.processed(slot, processor, requested_at),
            Verification::Unclear if payment.tries >= VERIFY_COUNT_MAX => {
                self.processed(slot, processor, payment.requested_at);
            }
            Verification::Unclear => {
                self.payment(slot).tries += 1;
                self.verify(slot, processor);
            }
        }
        self.pump(now);
    }

    /// A health check ended: failing and the least response time in ms, or `None` where it gave no answer.
    pub fn health_checked(&mut self, processor: Processor, health: Option<(bool, u32)>, now: Now) {
        let Some((failing, response_ms)) = health else { return };
        let outlook = &mut self.outlooks[processor.index()];
        outlook.news(failing, now);
        outlook.checked(u64::from(response_ms) * 1000, now);
        self.report(HealthReport { processor, source: HealthSource::Check, failing, response_ms });
        self.pump(now);
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) {
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
        self.pump(now);
    }

    /// The process is to stop: hand back what is not on its way, finish what is.
    pub fn drain(&mut self) {
        self.draining = true;
        let slots: Vec<u32> = self.payments.iter().map(|(_, payment)| payment.slot).collect();
        for slot in slots {
            if matches!(self.payments[key_of(slot)].state, State::Waiting | State::Doubtful(_)) {
                self.release(slot);
            }
        }
    }

    /// Whether nothing is held or unacknowledged.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.payments.is_empty() && self.unacknowledged.is_empty()
    }

    fn granted(&mut self, grant: Grant, now: Now) {
        let Grant { slot, correlation_id, verdict } = grant;
        let Some(payment) = self.find(slot, correlation_id, |state| matches!(state, State::Accepting(_)))
        else {
            self.counters.stale_records += 1;
            return;
        };
        let State::Accepting(plan) = payment.state else { unreachable!("found in this state") };
        if let Some(ticket) = self.payment(slot).ticket.take() {
            self.answer(
                ticket,
                match verdict {
                    Verdict::Granted => Answer::Granted,
                    Verdict::Replayed => Answer::Replayed,
                    Verdict::Conflict => Answer::Conflict,
                    Verdict::Full => Answer::Full,
                    Verdict::Expired => Answer::Unreachable,
                },
            );
        }
        if verdict != Verdict::Granted {
            if let Some(place) = plan {
                self.cancel(place, now);
            }
            self.free(slot);
            return;
        }
        match plan {
            Some(place) if now.unix_ms.0.abs_diff(payment.requested_at.0) <= PLAN_AGE_MS_MAX => {
                self.attempt(slot, place, now);
            }
            Some(place) => {
                self.cancel(place, now);
                self.complete(&payment, place.processor, payment.requested_at, Outcome::Refused);
                self.wait(slot, End::Back);
                self.pump(now);
            }
            None => {
                self.wait(slot, End::Back);
                self.pump(now);
            }
        }
    }

    fn intent_recorded(&mut self, recorded: IntentRecorded, now: Now) {
        let IntentRecorded { slot, correlation_id } = recorded;
        match self.find(slot, correlation_id, |state| matches!(state, State::Intending(_))) {
            Some(Payment { state: State::Intending(place), .. }) => self.attempt(slot, place, now),
            _ => self.counters.stale_records += 1,
        }
    }

    fn assigned(&mut self, assignment: Assignment, now: Now) {
        let Assignment { correlation_id, amount_cents, requested_at_ms, stage, in_doubt } = assignment;
        let Some(amount) = AmountCents::new(amount_cents) else {
            self.counters.stale_records += 1;
            return;
        };
        self.counters.assigned += 1;
        // Beyond `queue_len_max` on purpose: a payment that was accepted is not refused afterwards. The ledger's own
        // bound on open payments holds for the sum.
        let slot = self.insert(Payment {
            slot: 0,
            correlation_id,
            amount,
            requested_at: UnixMillis(requested_at_ms),
            arrived_us: now.monotonic_us,
            ticket: None,
            tries: 0,
            state: State::Waiting,
            in_doubt,
            probed: false,
            withdrawn: false,
        });
        match stage.processor() {
            Some(processor) => self.doubt(slot, processor, now),
            None => self.wait(slot, End::Back),
        }
        self.pump(now);
    }

    fn withdraw(&mut self, withdrawal: Withdrawal, now: Now) {
        let Withdrawal { slot, correlation_id } = withdrawal;
        let Some(payment) = self.find(slot, correlation_id, |_| true) else {
            // The usual end of a claim for a payment whose completion went with it.
            return;
        };
        self.counters.withdrawn += 1;
        match payment.state {
            State::Intending(place) => {
                self.cancel(place, now);
                self.free(slot);
            }
            State::Waiting | State::Doubtful(_) => self.free(slot),
            State::Attempting(..) | State::Verifying(_) => self.payment(slot).withdrawn = true,
            State::Accepting(_) => self.counters.stale_records += 1,
        }
    }

    /// The ledger is empty. What was granted before is dropped; what is on its way only frees its place.
    fn purged(&mut self) {
        self.unacknowledged.clear();
        let slots: Vec<u32> = self.payments.iter().map(|(_, payment)| payment.slot).collect();
        for slot in slots {
            match self.payments[key_of(slot)].state {
                State::Waiting | State::Doubtful(_) => self.free(slot),
                State::Attempting(..) | State::Verifying(_) => self.payment(slot).withdrawn = true,
                // Their answers come after the purge and belong to what comes after it.
                State::Accepting(_) | State::Intending(_) => {}
            }
        }
    }

    /// Sends what can be sent: payments in doubt first, since their processors have held them longest, then the queue.
    fn pump(&mut self, now: Now) {
        self.retry_doubtful(now);
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
            let (Some(place), reason) = self.decide(payment.arrived_us, payment.probed, now) else { break };
            self.pace.take();
            let processor = place.processor;
            self.waiting.pop_front();
            let payment = self.payment(slot);
            payment.state = State::Intending(place);
            payment.probed |= place.reservation == Reservation::Probe;
            // No two attempts of a payment share it, whatever the clocks of the gateways that made them said: it is by this
            // that the ledger tells them apart.
            payment.requested_at = now.unix_ms.max(UnixMillis(payment.requested_at.0 + 1));
            let requested_at_ms = payment.requested_at.0;
            let waited_us = now.monotonic_us.saturating_sub(payment.arrived_us);
            let waited_for_ms = u32::try_from(waited_us / 1000).unwrap_or(u32::MAX);
            self.actions.push(Action::Send(
                Intent { slot, correlation_id, requested_at_ms, processor, reason, waited_for_ms }.into(),
            ));
        }
    }

    fn retry_doubtful(&mut self, now: Now) {
        for processor in Processor::ALL {
            while let Some(Reverse((retry_us, slot))) = self.doubtful[processor.index()].peek().copied() {
                let is_doubtful = self.payments.get(key_of(slot)).is_some_and(|payment| {
                    payment.slot == slot && payment.state == State::Doubtful(processor)
                });
                if is_doubtful {
                    if retry_us > now.monotonic_us {
                        break;
                    }
                    let Some(reservation) = self.outlooks[processor.index()].try_reserve(now) else { break };
                    let place = Place { processor, reservation };
                    let paced = reservation == Reservation::Probe;
                    if !paced && !self.budgets[processor.index()].try_spend(now.monotonic_us) {
                        self.cancel(place, now);
                        break;
                    }
                    self.attempt(slot, place, now);
                }
                self.doubtful[processor.index()].pop();
            }
        }
    }

    fn cancel(&mut self, place: Place, now: Now) {
        self.outlooks[place.processor.index()].cancel(place.reservation, now);
    }

    fn attempt(&mut self, slot: u32, Place { processor, reservation }: Place, now: Now) {
        let payment = self.payment(slot);
        payment.state = State::Attempting(processor, Sent { at_us: now.monotonic_us, reservation });
        let Payment { correlation_id, amount, requested_at, .. } = *payment;
        self.outlooks[processor.index()].sent(slot, now);
        self.counters.attempts[processor.index()] += 1;
        self.actions.push(Action::Attempt { slot, processor, correlation_id, amount, requested_at });
    }

    fn verify(&mut self, slot: u32, processor: Processor) {
        self.counters.verifications += 1;
        let payment = self.payment(slot);
        payment.state = State::Verifying(processor);
        let correlation_id = payment.correlation_id;
        self.actions.push(Action::Verify { slot, processor, correlation_id });
    }

    fn doubt(&mut self, slot: u32, processor: Processor, now: Now) {
        if self.draining {
            self.payment(slot).state = State::Doubtful(processor);
            self.release(slot);
            return;
        }
        let tries = self.payments[key_of(slot)].tries;
        let retry_us = now.monotonic_us + self.backoff.delay_us(u32::from(tries), &mut self.random);
        let payment = self.payment(slot);
        payment.state = State::Doubtful(processor);
        payment.in_doubt = true;
        payment.tries = tries.saturating_add(1);
        self.doubtful[processor.index()].push(Reverse((retry_us, slot)));
    }

    fn wait(&mut self, slot: u32, end: End) {
        if self.draining {
            self.payment(slot).state = State::Waiting;
            self.release(slot);
            return;
        }
        let payment = self.payment(slot);
        payment.state = State::Waiting;
        let entry = (slot, payment.correlation_id);
        match end {
            End::Front => self.waiting.push_front(entry),
            End::Back => self.waiting.push_back(entry),
        }
    }

    fn processed(&mut self, slot: u32, processor: Processor, requested_at: UnixMillis) {
        let payment = self.payments[key_of(slot)];
        self.complete(&payment, processor, requested_at, Outcome::Processed);
        self.free(slot);
    }

    fn complete(
        &mut self,
        payment: &Payment,
        processor: Processor,
        requested_at: UnixMillis,
        outcome: Outcome,
    ) {
        self.completion_sequence += 1;
        let completion = Completion {
            sequence: self.completion_sequence,
            correlation_id: payment.correlation_id,
            requested_at_ms: requested_at.0,
            processor,
            outcome,
        };
        if outcome == Outcome::Processed {
            self.unacknowledged.push_back(Unacknowledged { completion, amount_cents: payment.amount.get() });
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

    fn free(&mut self, slot: u32) {
        self.payments.remove(key_of(slot));
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
enum End {
    Front,
    Back,
}

fn key_of(slot: u32) -> usize {
    (slot & PLACE_MASK) as usize
}
