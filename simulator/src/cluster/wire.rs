//! Requests to the processors: TCP, the HTTP client in the gateway's shell, and the model processor behind them.
//!
//! The dangers are those that leave a caller in doubt: a request that arrives after its caller gave up, a connection
//! that breaks before or after the insert, an answer that is lost, late, garbage, or a proxy's. What the shell reports
//! is what [`galo_engine::verdict`] defines: `not_sent` only where no byte was written.

use std::collections::BTreeMap;

use galo_engine::dispatcher::{Stored, Verification};
use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::verdict::{End, Rules, Verdict};
use galo_engine::{CorrelationId, Outcome, Processor};
use galo_wire::record::Completion;
use uuid::Uuid;

use super::address::{Former, Moved};
use super::bug::Bug;
use super::connections::Way;
use super::dice::Dice;
use super::invariant::Invariant;
use super::manner::Manner;
use super::oracle::texts;
use super::world::{Event, World};
use crate::processor::{Answer, Config, Faults, Payment, Processor as Model, RequestId, Step};

/// How often a planted bug repeats a look-up.
const REPEATS_MAX: u8 = 50;

/// What is asked of a processor.
#[derive(Clone, Copy, Debug)]
enum Question {
    Attempt { slot: u32, payment: Payment, attempt: Option<(usize, usize)>, again: bool },
    Lookup { slot: u32, id: CorrelationId },
    Check,
}

/// How a request ends for its gateway.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// With an answer.
    Answered(Answer),
    /// With a status from something between gateway and processor.
    Status(u16),
    /// With a status that the contest's processors do not give, and how long to stay away, ms.
    Told(u16, u32),
    /// A look-up found it, and how far it got.
    Found(Payment, Stored),
    /// Nothing was sent.
    NotSent,
    /// The connection broke.
    Broken,
    /// The hard timeout.
    TimedOut,
}

/// A request.
#[derive(Clone, Copy)]
pub struct Request {
    gateway: usize,
    processor: Processor,
    question: Question,
    sent_us: u64,
    /// Its gateway waits for it.
    open: bool,
    /// How often it was repeated by a planted bug.
    repeats: u8,
    /// Its connection is frozen: no answer comes.
    muted: bool,
    /// The processor's name for it, while it is pending there.
    pending: Option<RequestId>,
}

/// A processor, and what is between it and the gateways.
pub struct Upstream {
    /// The model.
    pub model: Model,
    /// It refuses connections.
    pub down: bool,
    /// The longest hang that was ever configured, µs.
    pub hang_us_max: u64,
    /// Requests that have not arrived yet.
    pub on_the_way: usize,
    seen_len: usize,
    /// Until when it takes nothing, µs.
    pub limited_until_us: u64,
    /// It declines everything.
    pub declines: bool,
    /// Its last change of address.
    pub moved: Moved,
    /// Payments that it took to decide on later: when, and whether it declines them.
    results: BTreeMap<Uuid, (u64, bool)>,
    pending: BTreeMap<RequestId, usize>,
    wakes_us: Option<u64>,
}

impl Upstream {
    /// A processor in good health.
    pub fn new(health_window_us: u64, dice: &mut Dice) -> Self {
        // What it keeps is the router's to know; nobody asks the model.
        let fee = "0.05".parse().expect("a fee");
        let config = Config {
            health_window_us,
            faults: Faults { seed: Some(dice.number()), ..Faults::default() },
            delay_ms: dice.pick(&[0, 1, 5, 60]),
            ..Config::new(fee)
        };
        Self {
            model: Model::new(config),
            down: false,
            hang_us_max: 5_000_000,
            on_the_way: 0,
            seen_len: 0,
            limited_until_us: 0,
            declines: false,
            moved: Moved::default(),
            results: BTreeMap::new(),
            pending: BTreeMap::new(),
            wakes_us: None,
        }
    }

    /// A payment on its way to it, or inside: it may yet be stored, whoever waits for it or not.
    pub fn work(&self, requests: &[Request]) -> Option<String> {
        let inside = self.pending.iter().find(|(_, number)| requests[**number].is_about_payment());
        (self.on_the_way > 0 || inside.is_some()).then(|| {
            format!("a processor is at work: {} requests on the way, {inside:?} inside", self.on_the_way)
        })
    }
}

impl Request {
    /// Whether it is about a payment.
    pub fn is_about_payment(&self) -> bool {
        !matches!(self.question, Question::Check)
    }

    /// The connection freezes, if it is one of this processor's that are kept.
    pub fn mute(&mut self, processor: Processor) {
        self.muted |= self.processor == processor && matches!(self.question, Question::Attempt { .. });
    }

    /// Whose attempt this is, of when, and when it was sent, if it is this slot's.
    pub fn attempt_of(&self, of: u32) -> Option<(CorrelationId, u64, u64)> {
        match self.question {
            Question::Attempt { slot, payment, .. } if slot == of => {
                let requested_at_ms = u64::try_from(payment.requested_at_ms).unwrap_or(u64::MAX);
                Some((CorrelationId(payment.correlation_id.into_bytes()), requested_at_ms, self.sent_us))
            }
            _ => None,
        }
    }
}

impl World {
    pub(super) fn start_attempt(
        &mut self,
        gateway: usize,
        slot: u32,
        processor: Processor,
        id: CorrelationId,
        amount_cents: u64,
        requested_at_ms: u64,
    ) {
        let (processor, requested_at_ms) = match self.bug {
            Some(Bug::RetryRestamps) if self.oracle.was_sent(id) => {
                (processor, self.gateways[gateway].clock.now(self.now_us).unix_ms.0)
            }
            Some(Bug::RetrySwitches) if self.oracle.was_sent(id) => (other_than(processor), requested_at_ms),
            _ => (processor, requested_at_ms),
        };
        self.trace(|| format!("gateway {gateway} sends {id} to {processor:?} at {requested_at_ms}"));
        self.gateways[gateway].awaited.remove(id);
        self.check_rest(gateway, processor);
        let is_awaited = self.is_awaited(gateway, id, processor, requested_at_ms) && !self.plan.concurrent;
        self.oracle.check(Invariant::GivenUpIsAwaited, !is_awaited, || {
            format!("gateway {gateway} sends {id} to {processor:?} again, which may still answer")
        });
        self.coverage.attempts += 1;
        let members = self.gateways[gateway].dispatcher.as_ref().and_then(|it| it.members(slot));
        self.oracle.members_sent(id, members.as_deref());
        let attempt = self.oracle.attempt_sent(id, amount_cents, processor, requested_at_ms);
        self.gateways[gateway].attempts_open[processor.index()] += 1;
        let payment = Payment {
            correlation_id: Uuid::from_bytes(id.0),
            amount_cents: i64::try_from(amount_cents).unwrap_or(i64::MAX),
            requested_at_ms: i64::try_from(requested_at_ms).unwrap_or(i64::MAX),
        };
        self.start_request(gateway, processor, Question::Attempt { slot, payment, attempt, again: false });
    }

    /// A gateway that was told when to come back does not come before; but for what was on its way to the ledger by then, and back.
    fn check_rest(&mut self, gateway: usize, processor: Processor) {
        const ON_THE_WAY_US: u64 = 300_000;
        let (told_us, until_us) = self.gateways[gateway].rests_us[processor.index()];
        if self.plan.link_delay_us > 2_000
            || self.plan.write_delay_us > 2_000
            || self.plan.flush_delay_us > 5_000
        {
            return;
        }
        let rests = (told_us + ON_THE_WAY_US..until_us).contains(&self.now_us);
        self.oracle.check(Invariant::RestIsKept, !rests, || {
            format!(
                "gateway {gateway} was told at {told_us} µs to leave {processor:?} alone until {until_us} µs"
            )
        });
    }

    pub(super) fn start_lookup(
        &mut self,
        gateway: usize,
        slot: u32,
        processor: Processor,
        id: CorrelationId,
    ) {
        self.check_heeded(gateway, id);
        self.start_request(gateway, processor, Question::Lookup { slot, id });
    }

    pub(super) fn start_check(&mut self, gateway: usize, processor: Processor) {
        self.oracle.check_sent(processor, gateway);
        self.start_request(gateway, processor, Question::Check);
    }

    fn wire_delay_us(&mut self) -> u64 {
        1 + self.dice.skewed(self.plan.wire_delay_us)
    }

    fn start_request(&mut self, gateway: usize, processor: Processor, question: Question) {
        let number = self.requests.len();
        let sent_us = self.now_us;
        self.requests.push(Request {
            gateway,
            processor,
            question,
            sent_us,
            open: true,
            repeats: 0,
            muted: false,
            pending: None,
        });
        self.gateways[gateway].requests.insert(number);
        self.send_request(number);
    }

    /// What happens to a request on its way.
    fn send_request(&mut self, number: usize) {
        let delay_us = self.wire_delay_us();
        let Request { gateway, processor, question, .. } = self.requests[number];
        match question {
            Question::Attempt { slot, .. } => self.meter_request(gateway, processor, Some(slot)),
            Question::Lookup { .. } => self.meter_request(gateway, processor, None),
            Question::Check => {}
        }
        let met = self.meets(gateway, processor);
        let wrong = self.troubled && self.dice.chance(self.plan.wire_fault);
        let fate = if wrong { self.dice.index(4) } else { usize::MAX };
        if self.upstreams[processor.index()].down || met == Former::Refuses || fate == 0 {
            self.after(delay_us, Event::RequestEnds(number, Ending::NotSent));
            return;
        }
        let timeout_us = self.plan.attempt_timeout_us;
        self.after(timeout_us, Event::RequestEnds(number, Ending::TimedOut));
        if met == Former::Hangs {
            return;
        }
        if matches!(self.requests[number].question, Question::Attempt { .. }) {
            let way = self.way(gateway, processor);
            self.requests[number].muted = way != Way::Open;
            if way == Way::Nowhere {
                return;
            }
        }
        let arrives_after_us = match fate {
            // It breaks and never arrives.
            1 => {
                self.after(delay_us, Event::RequestEnds(number, Ending::Broken));
                return;
            }
            // It breaks and arrives all the same, sooner or later.
            2 => {
                let breaks_after_us = self.wire_delay_us();
                self.after(breaks_after_us, Event::RequestEnds(number, Ending::Broken));
                delay_us + self.dice.skewed(2_000_000)
            }
            // It is stuck on the way, perhaps for longer than the caller waits.
            3 => delay_us + self.dice.between(0, 2 * timeout_us),
            _ => delay_us,
        };
        self.upstreams[processor.index()].on_the_way += usize::from(self.requests[number].is_about_payment());
        self.after(arrives_after_us, Event::RequestArrives(number));
    }

    pub(super) fn request_arrives(&mut self, number: usize) {
        let Request { gateway, processor, question, open, .. } = self.requests[number];
        let upstream = &mut self.upstreams[processor.index()];
        upstream.on_the_way -= usize::from(self.requests[number].is_about_payment());
        let is_attempt = matches!(question, Question::Attempt { .. });
        if !open && (!is_attempt || self.dice.one_in(3)) {
            // The processor reads the end of the connection before the request.
            return;
        }
        let now_us = self.now_us;
        if let Question::Attempt { payment, .. } = question {
            self.maybe_notify(processor, payment.correlation_id);
            if let Some(ending) = self.own_way(processor, payment) {
                self.trace(|| format!("{processor:?} answers request {number} in its own way: {ending:?}"));
                self.answer_leaves(number, ending);
                return;
            }
        }
        if let Question::Lookup { id, .. } = question
            && self.is_unknown_there(gateway, processor, id)
        {
            self.answer_leaves(number, Ending::Answered(Answer::NotFound));
            return;
        }
        let upstream = &mut self.upstreams[processor.index()];
        let step = match question {
            Question::Attempt { payment, .. } => {
                let misreads = self.manners[place_of(payment.correlation_id)][processor.index()]
                    == Manner::Misreads
                    && upstream.model.store().get(payment.correlation_id).is_none();
                let cents = payment.amount_cents + i64::from(misreads);
                upstream.model.post(now_us, Payment { amount_cents: cents, ..payment })
            }
            Question::Lookup { id, .. } => upstream.model.find(now_us, Uuid::from_bytes(id.0)),
            Question::Check => {
                let step = upstream.model.health(now_us);
                let is_free = matches!(step, Step::Answered(Answer::Health { .. }));
                self.oracle.check_arrived(processor, is_free);
                step
            }
        };
        self.trace(|| format!("{processor:?} takes request {number}: {step:?}, {question:?}"));
        self.after_model(processor);
        match step {
            Step::Answered(answer) => self.model_answers(number, answer),
            Step::Pending(request) => {
                self.requests[number].pending = Some(request);
                self.upstreams[processor.index()].pending.insert(request, number);
                if !open && self.dice.one_in(2) {
                    self.caller_gone(number);
                }
            }
        }
        self.plan_wake(processor);
    }

    pub(super) fn processor_wakes(&mut self, processor: Processor) {
        let now_us = self.now_us;
        self.upstreams[processor.index()].wakes_us = None;
        self.upstreams[processor.index()].model.advance(now_us);
        self.after_model(processor);
        self.plan_wake(processor);
    }

    /// Looks at what a processor stored and answered.
    pub(super) fn after_model(&mut self, processor: Processor) {
        let upstream = &mut self.upstreams[processor.index()];
        let stored = upstream.model.store().list(upstream.seen_len).to_vec();
        upstream.seen_len += stored.len();
        for payment in stored {
            self.trace(|| format!("{processor:?} stores {payment:?}"));
            let id = CorrelationId(payment.correlation_id.into_bytes());
            if self.manners[place_of(payment.correlation_id)][processor.index()] == Manner::Misreads {
                self.oracle.misread(id);
            } else if self.dice.chance(self.plan.pending) {
                // What others refuse for ever would not end if this one declined it.
                let is_poisoned = self.poisoned[place_of(payment.correlation_id)];
                let due_us = self.now_us + self.dice.skewed(3_000_000);
                let declines = self.dice.one_in(3) && !is_poisoned;
                self.coverage.pending += 1;
                self.upstreams[processor.index()].results.insert(payment.correlation_id, (due_us, declines));
                self.plan_notification(processor, payment.correlation_id, due_us);
                if declines {
                    // Nothing is charged, and its own sums have it all the same.
                    self.oracle.processors_differ = true;
                    continue;
                }
            }
            self.oracle.stored(processor, payment);
        }
        while let Some((request, answer)) = self.upstreams[processor.index()].model.poll_answer() {
            if let Some(number) = self.upstreams[processor.index()].pending.remove(&request) {
                self.requests[number].pending = None;
                self.model_answers(number, answer);
            }
        }
    }

    pub(super) fn plan_wake(&mut self, processor: Processor) {
        let upstream = &mut self.upstreams[processor.index()];
        if let Some(at_us) = upstream.model.deadline_us()
            && upstream.wakes_us.is_none_or(|planned| at_us < planned)
        {
            upstream.wakes_us = Some(at_us);
            let delay_us = at_us.saturating_sub(self.now_us);
            self.after(delay_us, Event::ProcessorWakes(processor));
        }
    }

    /// What a processor says to an attempt that it does not treat as the contest's do.
    fn own_way(&mut self, processor: Processor, payment: Payment) -> Option<Ending> {
        let now_us = self.now_us;
        let upstream = &self.upstreams[processor.index()];
        if upstream.limited_until_us > now_us {
            let left_ms = (upstream.limited_until_us - now_us).div_ceil(1_000).min(5_000);
            let says = self.dice.chance(700);
            return Some(Ending::Told(429, if says { u32::try_from(left_ms).unwrap_or(0) } else { 0 }));
        }
        if upstream.model.store().get(payment.correlation_id).is_some() {
            return None;
        }
        if upstream.declines {
            return Some(Ending::Told(402, 0));
        }
        match self.manners[place_of(payment.correlation_id)][processor.index()] {
            Manner::Takes | Manner::Misreads => None,
            Manner::Refuses => Some(Ending::Told(400, 0)),
            Manner::Declines => Some(Ending::Told(402, 0)),
            Manner::Phantom => Some(Ending::Told(409, 0)),
        }
    }

    /// What the model answers, as a processor with ways of its own says it.
    fn model_answers(&mut self, number: usize, answer: Answer) {
        let Request { processor, question, .. } = self.requests[number];
        let results = &self.upstreams[processor.index()].results;
        let ending = match (question, answer) {
            (Question::Attempt { payment, .. }, Answer::Processed) => {
                let manner = self.manners[place_of(payment.correlation_id)][processor.index()];
                match results.get(&payment.correlation_id) {
                    Some(_) => Ending::Told(202, 0),
                    None if manner == Manner::Misreads => Ending::Told(422, 0),
                    None => Ending::Answered(answer),
                }
            }
            (_, Answer::Found(payment)) => {
                let stored = match results.get(&payment.correlation_id) {
                    None => Stored::Processed,
                    Some((due_us, _)) if *due_us > self.now_us => Stored::Pending,
                    Some((_, false)) => Stored::Processed,
                    Some((_, true)) => Stored::Declined,
                };
                Ending::Found(payment, stored)
            }
            _ => Ending::Answered(answer),
        };
        self.answer_leaves(number, ending);
    }

    fn answer_leaves(&mut self, number: usize, ending: Ending) {
        let delay_us = self.wire_delay_us();
        let wrong = self.troubled && self.dice.chance(self.plan.answer_fault);
        let ending = match if wrong { self.dice.index(4) } else { usize::MAX } {
            // Lost for good: the caller's timeout ends it.
            0 => return,
            1 => Ending::Broken,
            2 => Ending::Status(self.dice.pick(&[502, 503, 504, 301, 408])),
            _ => ending,
        };
        let slow_us = if wrong { self.dice.skewed(2 * self.plan.attempt_timeout_us) } else { 0 };
        self.after(delay_us + slow_us, Event::RequestEnds(number, ending));
    }

    fn caller_gone(&mut self, number: usize) {
        let Request { processor, pending, .. } = self.requests[number];
        if let Some(request) = pending {
            let now_us = self.now_us;
            let upstream = &mut self.upstreams[processor.index()];
            if upstream.model.caller_gone(now_us, request) {
                upstream.pending.remove(&request);
            }
            self.after_model(processor);
            self.plan_wake(processor);
        }
    }

    /// Its gateway waits no longer, or has died.
    pub(super) fn abandon(&mut self, number: usize) {
        self.requests[number].open = false;
        if self.dice.one_in(2) {
            self.caller_gone(number);
        }
    }

    pub(super) fn request_ends(&mut self, number: usize, ending: Ending) {
        let Request { gateway, processor, question, sent_us, open, muted, .. } = self.requests[number];
        // What was never sent went over no connection.
        if !open || (muted && !matches!(ending, Ending::TimedOut | Ending::NotSent)) {
            return;
        }
        if let (Question::Attempt { slot, payment, attempt, again: false }, Ending::Broken) =
            (question, ending)
            && self.has(Bug::RetryHidesDoubt)
        {
            self.requests[number].question = Question::Attempt { slot, payment, attempt, again: true };
            self.send_request(number);
            return;
        }
        if matches!((question, ending), (Question::Lookup { .. }, Ending::NotSent))
            && self.has(Bug::LookupRepeats)
            && self.requests[number].repeats < REPEATS_MAX
        {
            self.requests[number].repeats += 1;
            self.send_request(number);
            return;
        }
        self.gateways[gateway].requests.remove(&number);
        self.abandon(number);
        self.trace(|| format!("gateway {gateway} sees {question:?} at {processor:?} end: {ending:?}"));
        match question {
            Question::Attempt { slot, attempt, .. } => {
                let told = reply(&self.rules, ending);
                if let Some(attempt) = attempt.filter(|_| told.verdict.outcome() == Outcome::Refused) {
                    self.oracle.attempt_refused(attempt);
                }
                self.note_end(gateway, processor, question, told);
                self.gateways[gateway].attempts_open[processor.index()] -= 1;
                let told = self.mistaken(told, ending);
                if matches!(told.verdict, Verdict::Processed | Verdict::Pending)
                    && let Question::Attempt { payment, .. } = question
                {
                    let id = CorrelationId(payment.correlation_id.into_bytes());
                    self.name(gateway, slot, id, processor);
                    if told.verdict == Verdict::Pending {
                        self.gateways[gateway].awaited.insert(id, processor);
                    }
                }
                let latency_us = self.now_us - sent_us;
                if matches!(ending, Ending::Broken)
                    && told == End::UNANSWERED
                    && self.plan.hang_ups
                    && self.dice.one_in(2)
                {
                    self.event(gateway, |dispatcher, now| dispatcher.attempt_hung_up(slot, latency_us, now));
                } else {
                    self.attempt_ended(gateway, slot, told, latency_us);
                }
                if self.has(Bug::OneDeclineIsFinal) && told.verdict == Verdict::Declined {
                    self.end_at_once(gateway, processor, question);
                }
            }
            Question::Lookup { slot, id } => {
                let verification = match ending {
                    Ending::Found(payment, stored) => {
                        let found_ms = u64::try_from(payment.requested_at_ms).unwrap_or(0);
                        let now = self.gateways[gateway].clock.now(self.now_us);
                        let lie = self.has(Bug::LookupRestamps);
                        let cents = u64::try_from(payment.amount_cents).ok();
                        let cents = cents.filter(|_| !self.has(Bug::LookupHidesAmount));
                        if stored == Stored::Declined {
                            self.oracle.result_declined(id, processor);
                        }
                        Verification::Found {
                            stored,
                            requested_at: Some(if lie { now.unix_ms } else { UnixMillis(found_ms) }),
                            amount: cents.and_then(AmountCents::new),
                        }
                    }
                    Ending::Answered(Answer::NotFound) => Verification::NotFound,
                    _ => Verification::Unanswered,
                };
                if matches!(verification, Verification::Found { .. }) {
                    self.name(gateway, slot, id, processor);
                }
                if matches!(verification, Verification::Found { stored: Stored::Pending, .. }) {
                    self.gateways[gateway].awaited.insert(id, processor);
                }
                self.event(gateway, |dispatcher, now| dispatcher.verified(slot, verification, now));
            }
            Question::Check => {
                let health = match ending {
                    Ending::Answered(Answer::Health { failing, min_response_time_ms }) => {
                        Some((failing, u32::try_from(min_response_time_ms).unwrap_or(0)))
                    }
                    _ => None,
                };
                self.event(gateway, |dispatcher, now| dispatcher.health_checked(processor, health, now));
            }
        }
    }

    /// A processor that has a payment says what it calls it.
    fn name(&mut self, gateway: usize, slot: u32, id: CorrelationId, processor: Processor) {
        let reference = texts::reference(id, processor);
        if let Some(dispatcher) = &mut self.gateways[gateway].dispatcher {
            dispatcher.named(slot, &reference);
        }
    }

    /// What a gateway was told, for the oracle.
    fn note_end(&mut self, gateway: usize, processor: Processor, question: Question, told: End) {
        let Question::Attempt { payment, .. } = question else { return };
        let id = CorrelationId(payment.correlation_id.into_bytes());
        let is_first = told.verdict == Verdict::Processed || self.gateways[gateway].refused.insert(id);
        match told.verdict {
            Verdict::Declined => {
                self.coverage.declined_attempts += 1;
                self.oracle.declined(id, processor);
            }
            Verdict::Duplicate => self.oracle.said_duplicate(id, processor),
            Verdict::Processed | Verdict::Pending => self.oracle.taken(processor),
            Verdict::Overloaded if told.retry_after_ms > 0 && is_first => {
                self.coverage.rests += 1;
                let now_us = self.now_us;
                let until_us = now_us + u64::from(told.retry_after_ms) * 1_000;
                let rest = &mut self.gateways[gateway].rests_us[processor.index()];
                *rest = if rest.1 > now_us { (rest.0, rest.1.max(until_us)) } else { (now_us, until_us) };
            }
            _ => {}
        }
    }

    /// A planted bug.
    fn end_at_once(&mut self, gateway: usize, processor: Processor, question: Question) {
        let Question::Attempt { payment, .. } = question else { return };
        let declined = Completion {
            sequence: 0,
            correlation_id: CorrelationId(payment.correlation_id.into_bytes()),
            requested_at_ms: u64::try_from(payment.requested_at_ms).unwrap_or(0),
            processor,
            outcome: Outcome::Declined,
            status: 402,
        };
        self.send(gateway, declined);
    }

    /// What a planted bug makes of an attempt's end.
    fn mistaken(&self, told: End, ending: Ending) -> End {
        match (self.bug, ending) {
            (Some(Bug::TimeoutIsRefused), Ending::TimedOut)
            | (
                Some(Bug::ResetIsNotSent),
                Ending::Broken | Ending::Answered(Answer::Closed { .. } | Answer::Garbage),
            ) => End::NOT_SENT,
            (Some(Bug::DuplicateIsProcessed), _) if told.verdict == Verdict::Duplicate => {
                End { verdict: Verdict::Processed, ..told }
            }
            (Some(Bug::PendingIsProcessed), _) if told.verdict == Verdict::Pending => {
                End { verdict: Verdict::Processed, ..told }
            }
            (Some(Bug::RetryAfterIgnored), _) => End { retry_after_ms: 0, ..told },
            (Some(Bug::RefusalRests), Ending::Told(400, _)) => {
                End { verdict: Verdict::Overloaded, retry_after_ms: 2_000, ..told }
            }
            (Some(Bug::BadGatewayIsRefused), Ending::Status(502..=504)) => {
                End { verdict: Verdict::Unavailable, ..told }
            }
            (_, _) => told,
        }
    }
}

/// One of the others.
fn other_than(processor: Processor) -> Processor {
    if processor == Processor::N0 { Processor::N1 } else { Processor::N0 }
}

/// Which payment of this life has such an id.
fn place_of(id: Uuid) -> usize {
    let [a, b, c, d, ..] = id.into_bytes();
    usize::try_from(u32::from_be_bytes([a, b, c, d])).expect("few payments")
}

/// What the shell reports, from what happened.
fn reply(rules: &Rules, ending: Ending) -> End {
    let status = match ending {
        Ending::NotSent => return End::NOT_SENT,
        Ending::TimedOut | Ending::Broken | Ending::Answered(Answer::Closed { .. } | Answer::Garbage) => {
            return End::UNANSWERED;
        }
        Ending::Status(status) => status,
        Ending::Told(status, retry_after_ms) => {
            return End { retry_after_ms, ..End::of_status(rules, status) };
        }
        Ending::Found(..) => 200,
        Ending::Answered(answer) => match answer {
            Answer::Duplicate(_) => 422,
            Answer::Failed => 500,
            Answer::Refused => 429,
            Answer::NotFound => 404,
            Answer::Processed
            | Answer::Found(_)
            | Answer::Health { .. }
            | Answer::Closed { .. }
            | Answer::Garbage => 200,
        },
    };
    End::of_status(rules, status)
}
