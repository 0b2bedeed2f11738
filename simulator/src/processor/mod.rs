//! One payment processor, as a state machine that is told the time.
//!
//! It models the contest's processors as their source defines them. A payment passes, in this order:
//!
//! 1. the limits: 800 requests run, 500 wait for their turn, oldest first; beyond that it is refused with 429;
//! 2. the delay, as configured when the request starts to run;
//! 3. the failure switch, as it stands *after* the delay: 500, nothing stored;
//! 4. the insert: 200, or 422 if the id is stored already.
//!
//! A caller that goes away while its request waits takes the request with it. Once the request runs, nothing stops it: the payment
//! is stored although nobody hears of it. `GET /payments/{id}` shares the limits but not the delay or the switch.
//! [`Faults`] adds, on request, what the network and broken processors do to that order.
//!
//! The model never reads a clock, opens a socket or draws a random number that its seed does not fix. Callers pass `now_us`,
//! microseconds on any clock that does not go backwards; then carry out what [`Processor::poll_answer`] hands them
//! and come back at [`Processor::deadline_us`].
//!
//! Narrower than the original: one writer, no database that could be slow or away.

mod amount;
mod faults;
mod health;
mod store;
mod terms;
mod timestamp;

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use uuid::Uuid;

pub use amount::{AmountError, Decimal, Fee, parse_cents};
pub use faults::{Drawn, Faults, FaultsError};
pub use health::WAITING_MAX as HEALTH_WAITING_MAX;
pub use store::{Payment, Store, Total};
pub use terms::{RateLimit, Terms, Which, WhichError};
pub use timestamp::{format_without_zone, parse_ms, parse_ms_from};

use faults::Dice;
use health::{Entry, HealthWindow};

/// What a processor starts with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What the processor keeps of each payment.
    pub fee: Fee,
    /// How long each payment sleeps before anything else happens to it. Zero or less: not at all.
    pub delay_ms: i64,
    /// Whether payments fail with 500.
    pub failing: bool,
    /// Requests that run at once.
    pub running_max: usize,
    /// Requests that wait for one of those to end.
    pub waiting_max: usize,
    /// Length of the health check's window, in microseconds, above zero.
    pub health_window_us: u64,
    /// Faults, and the seed of their dice.
    pub faults: Faults,
    /// Payments for which to make room at the start.
    pub payments_len: usize,
}

impl Config {
    /// The contest's processor with the given fee.
    #[must_use]
    pub fn new(fee: Fee) -> Self {
        Config {
            fee,
            delay_ms: 0,
            failing: false,
            running_max: 800,
            waiting_max: 500,
            health_window_us: 5_000_000,
            faults: Faults::default(),
            payments_len: 0,
        }
    }
}

/// Names a request that could not be answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200: stored now.
    Processed,
    /// 422: this id was stored before.
    Duplicate(Uuid),
    /// 500: the failure switch was on; nothing stored.
    Failed,
    /// 429: a limit was reached; nothing stored.
    Refused,
    /// 200: the payment as stored.
    Found(Payment),
    /// 404: not stored, yet.
    NotFound,
    /// 200: the health check's view.
    Health {
        /// The failure switch.
        failing: bool,
        /// The delay.
        min_response_time_ms: i64,
    },
    /// The connection ends without an answer, gently or with a reset.
    Closed {
        /// Whether by a reset.
        reset: bool,
    },
    /// Bytes that are no HTTP, then the connection ends.
    Garbage,
}

/// Whether a request is answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is.
    Answered(Answer),
    /// The answer comes out of [`Processor::poll_answer`] under this name.
    Pending(RequestId),
}

/// Counters since the start. A purge does not reset them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// `POST /payments` received, whatever became of them.
    pub posts: u64,
    /// Payments stored.
    pub inserted: u64,
    /// Payments found to be stored already (422).
    pub duplicates: u64,
    /// Payments that met the failure switch, or `random500`.
    pub failures500: u64,
    /// Requests refused with 429 by the limits or `random429`, health calls aside.
    pub refused429: u64,
    /// Health calls received.
    pub health_calls: u64,
    /// Health calls refused with 429.
    pub health429: u64,
    /// Most requests ever running at once.
    pub running_max: usize,
    /// Most requests ever waiting at once.
    pub waiting_max: usize,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Post(Payment, Drawn),
    Find(Uuid),
}

#[derive(Debug, Clone, Copy)]
enum Sleep {
    Delay(Payment, Drawn),
    HangBefore(Payment, Drawn),
    HangAfter(Answer),
}

/// The processor.
#[derive(Debug)]
pub struct Processor {
    config: Config,
    store: Store,
    dice: Dice,
    health: HealthWindow<RequestId>,
    request_next: u64,
    running_len: usize,
    waiting: VecDeque<(RequestId, Work)>,
    // Ordered by the time to wake, then by arrival: equal times wake in order.
    sleeping: BTreeMap<(u64, RequestId), Sleep>,
    answers: VecDeque<(RequestId, Answer)>,
    statistics: Statistics,
}

impl Processor {
    /// An empty processor.
    ///
    /// # Panics
    ///
    /// If the configuration contradicts itself: no request may run, a window without length, faults not
    /// [checked](Faults::check).
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!(config.running_max > 0, "at least one request may run");
        assert!(config.faults.check().is_ok(), "faults are probabilities");
        Processor {
            store: Store::with_capacity(config.payments_len),
            dice: Dice::new(config.faults),
            health: HealthWindow::new(config.health_window_us),
            request_next: 0,
            running_len: 0,
            waiting: VecDeque::new(),
            sleeping: BTreeMap::new(),
            answers: VecDeque::new(),
            statistics: Statistics::default(),
            config,
        }
    }

    /// `POST /payments`.
    pub fn post(&mut self, now_us: u64, payment: Payment) -> Step {
        self.advance(now_us);
        self.statistics.posts += 1;
        let drawn = self.dice.draw();
        if drawn.random429 {
            self.statistics.refused429 += 1;
            return Step::Answered(Answer::Refused);
        }
        self.enter(now_us, Work::Post(payment, drawn))
    }

    /// `GET /payments/{id}`.
    pub fn find(&mut self, now_us: u64, correlation_id: Uuid) -> Step {
        self.advance(now_us);
        self.enter(now_us, Work::Find(correlation_id))
    }

    /// `GET /payments/service-health`.
    pub fn health(&mut self, now_us: u64) -> Step {
        self.advance(now_us);
        self.statistics.health_calls += 1;
        let request = self.name_request();
        match self.health.enter(now_us, request) {
            Entry::Granted => Step::Answered(self.health_now()),
            Entry::Waits => Step::Pending(request),
            Entry::Refused => {
                self.statistics.health429 += 1;
                Step::Answered(Answer::Refused)
            }
        }
    }

    /// The caller of a pending request has gone. If the request waits it is dropped, which is returned; if it runs it goes on to
    /// its end.
    pub fn caller_gone(&mut self, now_us: u64, request: RequestId) -> bool {
        self.advance(now_us);
        let waiting_len = self.waiting.len();
        self.waiting.retain(|(waiting, _)| *waiting != request);
        self.health.withdraw(request);
        self.waiting.len() < waiting_len
    }

    /// Lets everything happen that is due. The other calls that take `now_us` do so themselves, first.
    pub fn advance(&mut self, now_us: u64) {
        while let Some(caller) = self.health.next_granted(now_us) {
            let answer = self.health_now();
            self.answers.push_back((caller, answer));
        }
        while let Some(entry) = self.sleeping.first_entry().filter(|entry| entry.key().0 <= now_us) {
            let ((due_us, request), sleep) = entry.remove_entry();
            // What follows is reckoned from the time it was due, not from when somebody came to look.
            let step = match sleep {
                Sleep::Delay(payment, drawn) if drawn.hang_before_insert => {
                    self.sleep(due_us + self.hang_us(), request, Sleep::HangBefore(payment, drawn))
                }
                Sleep::Delay(payment, drawn) | Sleep::HangBefore(payment, drawn) => {
                    self.decide(due_us, request, payment, drawn)
                }
                Sleep::HangAfter(answer) => Step::Answered(answer),
            };
            if let Step::Answered(answer) = step {
                self.answers.push_back((request, answer));
                self.finish(due_us);
            }
        }
    }

    /// An answer to a pending request, if one is ready. Call until it says `None`.
    pub fn poll_answer(&mut self) -> Option<(RequestId, Answer)> {
        self.answers.pop_front()
    }

    /// When something will be due next. Any call may change it.
    #[must_use]
    pub fn deadline_us(&self) -> Option<u64> {
        let wake_us = self.sleeping.first_key_value().map(|((due_us, _), _)| *due_us);
        wake_us.into_iter().chain(self.health.deadline_us()).min()
    }

    /// Sets the delay of requests that start to run from now on; returns the former one.
    pub fn set_delay_ms(&mut self, now_us: u64, delay_ms: i64) -> i64 {
        self.advance(now_us);
        std::mem::replace(&mut self.config.delay_ms, delay_ms)
    }

    /// Sets the failure switch, for requests asleep as well; returns its former position.
    pub fn set_failing(&mut self, now_us: u64, failing: bool) -> bool {
        self.advance(now_us);
        std::mem::replace(&mut self.config.failing, failing)
    }

    /// Sets the faults of requests that arrive from now on; returns the former ones.
    ///
    /// # Errors
    ///
    /// If one is no probability; nothing changes then.
    pub fn set_faults(&mut self, now_us: u64, faults: Faults) -> Result<Faults, FaultsError> {
        let faults = faults.check()?;
        self.advance(now_us);
        let former = self.dice.faults();
        self.dice.set(faults);
        Ok(former)
    }

    /// Forgets all payments stored. Requests on their way are not touched and may store theirs afterwards.
    pub fn purge(&mut self, now_us: u64) {
        self.advance(now_us);
        self.store.purge();
    }

    /// Sum of the payments with `from_ms <= requestedAt <= to_ms`.
    ///
    /// With one bound alone the processors count **everything**, as if neither had been given: their query reads `BETWEEN … OR
    /// from IS NULL OR to IS NULL`.
    pub fn summarize(&mut self, now_us: u64, from_ms: Option<i64>, to_ms: Option<i64>) -> Total {
        self.advance(now_us);
        match (from_ms, to_ms) {
            (Some(from_ms), Some(to_ms)) => self.store.total_between(from_ms, to_ms),
            (None, _) | (_, None) => self.store.total(),
        }
    }

    /// What the processor keeps of each payment.
    #[must_use]
    pub fn fee(&self) -> Fee {
        self.config.fee
    }

    /// What is stored. Answers due since the last call are not in it before [`Self::advance`].
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Counters since the start.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Throws the dice once more, for a shell that serves requests of its own with this processor's faults.
    pub fn draw(&mut self) -> Drawn {
        self.dice.draw()
    }

    /// How long a request sleeps that starts now.
    #[must_use]
    pub fn delay_ms(&self) -> i64 {
        self.config.delay_ms
    }

    /// How long a hang lasts.
    #[must_use]
    pub fn hang_ms(&self) -> u64 {
        self.dice.faults().hang_ms
    }

    /// The failure switch.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.config.failing
    }

    /// Counts what such a shell has done.
    pub fn count(&mut self, count: impl FnOnce(&mut Statistics)) {
        count(&mut self.statistics);
    }

    fn name_request(&mut self) -> RequestId {
        let request = RequestId(self.request_next);
        self.request_next += 1;
        request
    }

    fn health_now(&self) -> Answer {
        Answer::Health { failing: self.config.failing, min_response_time_ms: self.config.delay_ms }
    }

    fn hang_us(&self) -> u64 {
        self.dice.faults().hang_ms.saturating_mul(1000)
    }

    fn enter(&mut self, now_us: u64, work: Work) -> Step {
        if self.running_len < self.config.running_max {
            assert!(self.waiting.is_empty(), "a request waits while another may run");
            let request = self.name_request();
            let step = self.run(now_us, request, work);
            if matches!(step, Step::Answered(_)) {
                self.running_len -= 1;
            }
            step
        } else if self.waiting.len() < self.config.waiting_max {
            let request = self.name_request();
            self.waiting.push_back((request, work));
            self.statistics.waiting_max = self.statistics.waiting_max.max(self.waiting.len());
            Step::Pending(request)
        } else {
            self.statistics.refused429 += 1;
            Step::Answered(Answer::Refused)
        }
    }

    fn run(&mut self, now_us: u64, request: RequestId, work: Work) -> Step {
        self.running_len += 1;
        self.statistics.running_max = self.statistics.running_max.max(self.running_len);
        match work {
            Work::Find(correlation_id) => Step::Answered(match self.store.get(correlation_id) {
                Some(payment) => Answer::Found(payment),
                None => Answer::NotFound,
            }),
            Work::Post(payment, drawn) => {
                let delay_us = u64::try_from(self.config.delay_ms).unwrap_or(0).saturating_mul(1000);
                if delay_us > 0 {
                    self.sleep(now_us + delay_us, request, Sleep::Delay(payment, drawn))
                } else if drawn.hang_before_insert {
                    self.sleep(now_us + self.hang_us(), request, Sleep::HangBefore(payment, drawn))
                } else {
                    self.decide(now_us, request, payment, drawn)
                }
            }
        }
    }

    fn sleep(&mut self, due_us: u64, request: RequestId, sleep: Sleep) -> Step {
        self.sleeping.insert((due_us, request), sleep);
        Step::Pending(request)
    }

    /// Everything after the sleeps before the insert.
    fn decide(&mut self, now_us: u64, request: RequestId, payment: Payment, drawn: Drawn) -> Step {
        let closed = Answer::Closed { reset: drawn.reset };
        if drawn.close_before_insert {
            return Step::Answered(closed);
        }
        if self.config.failing || drawn.random500 {
            self.statistics.failures500 += 1;
            return Step::Answered(Answer::Failed);
        }
        let stored = self.store.insert(payment);
        let answer = if stored {
            self.statistics.inserted += 1;
            Answer::Processed
        } else {
            self.statistics.duplicates += 1;
            Answer::Duplicate(payment.correlation_id)
        };
        let answer = match drawn {
            Drawn { close_after_insert: true, .. } => closed,
            Drawn { garbage: true, .. } => Answer::Garbage,
            _ => answer,
        };
        if drawn.hang_after_insert {
            self.sleep(now_us + self.hang_us(), request, Sleep::HangAfter(answer))
        } else {
            Step::Answered(answer)
        }
    }

    /// A running request has ended; the oldest that waits takes its place, and the next if that one ends at once.
    fn finish(&mut self, now_us: u64) {
        self.running_len -= 1;
        while self.running_len < self.config.running_max {
            let Some((request, work)) = self.waiting.pop_front() else { return };
            if let Step::Answered(answer) = self.run(now_us, request, work) {
                self.answers.push_back((request, answer));
                self.running_len -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
