//! Requests to the processors: TCP, the HTTP client in the gateway's shell, and the model processor behind them.
//!
//! The dangers are those that leave a caller in doubt: a request that arrives after its caller gave up, a connection
//! that breaks before or after the insert, an answer that is lost, late, garbage, or a proxy's. What the shell reports
//! is what `outcome` defines: [`Reply::NotSent`] only where no byte was written.

use std::collections::BTreeMap;

use galo_engine::dispatcher::Verification;
use galo_engine::outcome::{Reply, classify};
use galo_engine::time::UnixMillis;
use galo_engine::{CorrelationId, Outcome, Processor};
use uuid::Uuid;

use super::bug::Bug;
use super::dice::Dice;
use super::world::{Event, World};
use crate::processor::{Answer, Config, Faults, Payment, Processor as Model, RequestId, Step};

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
    pending: BTreeMap<RequestId, usize>,
    wakes_us: Option<u64>,
}

impl Upstream {
    /// A processor in good health.
    pub fn new(fee: &str, health_window_us: u64, dice: &mut Dice) -> Self {
        let config = Config {
            health_window_us,
            faults: Faults { seed: Some(dice.number()), ..Faults::default() },
            delay_ms: dice.pick(&[0, 1, 5, 60]),
            ..Config::new(fee.parse().expect("a fee"))
        };
        Self {
            model: Model::new(config),
            down: false,
            hang_us_max: 5_000_000,
            on_the_way: 0,
            seen_len: 0,
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
            Some(Bug::RetrySwitches) if self.oracle.was_sent(id) => (processor.other(), requested_at_ms),
            _ => (processor, requested_at_ms),
        };
        self.trace(|| format!("gateway {gateway} sends {id} to {} at {requested_at_ms}", processor.name()));
        self.coverage.attempts += 1;
        let attempt = self.oracle.attempt_sent(id, amount_cents, processor, requested_at_ms);
        self.gateways[gateway].attempts_open[processor.index()] += 1;
        let payment = Payment {
            correlation_id: Uuid::from_bytes(id.0),
            amount_cents: i64::try_from(amount_cents).unwrap_or(i64::MAX),
            requested_at_ms: i64::try_from(requested_at_ms).unwrap_or(i64::MAX),
        };
        self.start_request(gateway, processor, Question::Attempt { slot, payment, attempt, again: false });
    }

    pub(super) fn start_lookup(
        &mut self,
        gateway: usize,
        slot: u32,
        processor: Processor,
        id: CorrelationId,
    ) {
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
        self.requests.push(Request { gateway, processor, question, sent_us, open: true, pending: None });
        self.gateways[gateway].requests.insert(number);
        self.send_request(number);
    }

    /// What happens to a request on its way.
    fn send_request(&mut self, number: usize) {
        let delay_us = self.wire_delay_us();
        let processor = self.requests[number].processor;
        let wrong = self.troubled && self.dice.chance(self.plan.wire_fault);
        let fate = if wrong { self.dice.index(4) } else { usize::MAX };
        if self.upstreams[processor.index()].down || fate == 0 {
            self.after(delay_us, Event::RequestEnds(number, Ending::NotSent));
            return;
        }
        let timeout_us = self.plan.attempt_timeout_us;
        self.after(timeout_us, Event::RequestEnds(number, Ending::TimedOut));
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
        let Request { processor, question, open, .. } = self.requests[number];
        let upstream = &mut self.upstreams[processor.index()];
        upstream.on_the_way -= usize::from(self.requests[number].is_about_payment());
        let is_attempt = matches!(question, Question::Attempt { .. });
        if !open && (!is_attempt || self.dice.one_in(3)) {
            // The processor reads the end of the connection before the request.
            return;
        }
        let now_us = self.now_us;
        let step = match question {
            Question::Attempt { payment, .. } => upstream.model.post(now_us, payment),
            Question::Lookup { id, .. } => upstream.model.find(now_us, Uuid::from_bytes(id.0)),
            Question::Check => {
                let step = upstream.model.health(now_us);
                let is_free = matches!(step, Step::Answered(Answer::Health { .. }));
                self.oracle.check_arrived(processor, is_free);
                step
            }
        };
        self.trace(|| format!("{} takes request {number}: {step:?}, {question:?}", processor.name()));
        self.after_model(processor);
        match step {
            Step::Answered(answer) => self.answer_leaves(number, answer),
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
            self.trace(|| format!("{} stores {payment:?}", processor.name()));
            self.oracle.stored(processor, payment);
        }
        while let Some((request, answer)) = self.upstreams[processor.index()].model.poll_answer() {
            if let Some(number) = self.upstreams[processor.index()].pending.remove(&request) {
                self.requests[number].pending = None;
                self.answer_leaves(number, answer);
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

    fn answer_leaves(&mut self, number: usize, answer: Answer) {
        let delay_us = self.wire_delay_us();
        let wrong = self.troubled && self.dice.chance(self.plan.answer_fault);
        let ending = match if wrong { self.dice.index(4) } else { usize::MAX } {
            // Lost for good: the caller's timeout ends it.
            0 => return,
            1 => Ending::Broken,
            2 => Ending::Status(self.dice.pick(&[502, 503, 504, 301])),
            _ => Ending::Answered(answer),
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
        let Request { gateway, processor, question, sent_us, open, .. } = self.requests[number];
        if !open {
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
        self.gateways[gateway].requests.remove(&number);
        self.abandon(number);
        self.trace(|| format!("gateway {gateway} sees {question:?} at {} end: {ending:?}", processor.name()));
        match question {
            Question::Attempt { slot, attempt, .. } => {
                let told = reply(ending);
                if let Some(attempt) = attempt.filter(|_| classify(told) == Outcome::Refused) {
                    self.oracle.attempt_refused(attempt);
                }
                self.gateways[gateway].attempts_open[processor.index()] -= 1;
                let told = self.mistaken(told);
                self.attempt_ended(gateway, slot, told, self.now_us - sent_us);
            }
            Question::Lookup { slot, .. } => {
                let verification = match ending {
                    Ending::Answered(Answer::Found(payment)) => {
                        let found_ms = u64::try_from(payment.requested_at_ms).unwrap_or(0);
                        let now = self.gateways[gateway].clock.now(self.now_us);
                        let lie = self.has(Bug::LookupRestamps);
                        Verification::Found(if lie { now.unix_ms } else { UnixMillis(found_ms) })
                    }
                    _ => Verification::Unclear,
                };
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

    /// What a planted bug makes of a reply.
    fn mistaken(&self, told: Reply) -> Reply {
        match (self.bug, told) {
            (Some(Bug::TimeoutIsRefused), Reply::TimedOut) | (Some(Bug::ResetIsNotSent), Reply::Broken) => {
                Reply::NotSent
            }
            (Some(Bug::BadGatewayIsRefused), Reply::Answered { status: 502..=504 }) => {
                Reply::Answered { status: 500 }
            }
            (_, told) => told,
        }
    }
}

/// What the shell reports, from what happened.
fn reply(ending: Ending) -> Reply {
    let status = match ending {
        Ending::NotSent => return Reply::NotSent,
        Ending::Broken | Ending::Answered(Answer::Closed { .. } | Answer::Garbage) => return Reply::Broken,
        Ending::TimedOut => return Reply::TimedOut,
        Ending::Status(status) => status,
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
    Reply::Answered { status }
}
