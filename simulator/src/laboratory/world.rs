//! One run: clients, processors, the auditor, and the loop that lets them meet a policy.

use galo_engine::Processor;

use super::policy::{Event as Heard, Order, Policy};
use super::schedule::{Life, Schedule};
use super::upstream::{Caller, Due, Upstream, unix_ms};
use super::{Counts, EPOCH_MS, Settings};
use crate::cluster::dice::Dice;
use crate::cluster::queue::Queue;
use crate::processor::Answer;

/// A client sleeps this long after each answer.
const CLIENT_SLEEP_US: u64 = 1_000_000;

/// What it looks at: from 15 s to 1.5 s ago.
const AUDIT_FROM_MS: u64 = 15_000;
const AUDIT_TO_MS: u64 = 1_500;

/// Its three answers are taken at moments this far apart at most.
const AUDIT_SPREAD_US: u64 = 5_000;

/// The gateway's `ATTEMPT_TIMEOUT_MS`.
const ATTEMPT_TIMEOUT_US: u64 = 30_000_000;

/// At the end of a run, an attempt that has been awaited for so long will not be answered.
const UNANSWERED_US: u64 = 1_000_000;

/// An attempt whose completion comes this long after its `requestedAt` may be seen as a difference.
const RISKY_US: u64 = 1_000_000;

/// What will happen.
#[derive(Debug)]
enum Event {
    /// A client posts, unless it is gone by then.
    Post(u32),
    /// A POST reaches the policy.
    Arrive(u32),
    /// A client has its answer.
    Answered(u32),
    /// A stage begins.
    Stage(usize),
    /// The auditor asks a processor, or the policy.
    Audit(usize, Option<Processor>),
    /// An attempt reaches its processor.
    Send(u32),
    /// It has had its share of the CPU.
    Enter(u32),
    /// The processor has something to do.
    Wake(Processor),
    /// A health check reaches its processor.
    Check(Processor, u64),
    /// A look-up reaches its processor.
    LookUp(Processor, u64, u32),
    /// An attempt has been awaited for as long as any is.
    TimedOut(u32),
    /// The policy hears of something.
    Tell(Heard),
    /// An attempt's answer reaches the policy.
    Ended(u32, u16),
    /// A second is over.
    Second,
}

/// A payment, as its client knows it.
#[derive(Clone, Copy, Debug)]
pub struct Posted {
    /// When it was sent.
    pub at_us: u64,
    /// Whose it is.
    pub life: u32,
    /// Whether it was answered with 202.
    pub accepted: bool,
    /// An attempt of it had no answer.
    pub was_in_doubt: bool,
    /// Where, and when that was heard of.
    pub processed: Option<(Processor, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    token: u64,
    payment: u32,
    processor: Processor,
    requested_at_ms: u64,
    sent_us: u64,
    abandoned: bool,
    ended: bool,
}

/// One second of the timeline.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// POSTs sent in it.
    pub posted: u64,
    /// Attempts processed in it, by processor.
    pub processed: Counts,
    /// Attempts refused in it, by processor.
    pub refused: Counts,
    /// Payments that wait at its end.
    pub waiting: u64,
    /// Attempts on their way at its end.
    pub in_flight: u64,
    /// What the policy shows.
    pub figures: super::Figures,
}

/// One comparison of the books.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audit {
    /// When, s.
    pub at_s: u64,
    /// Ours, and all processors' together.
    ours: u64,
    theirs: u64,
    from_ms: u64,
    to_ms: u64,
}

impl Audit {
    /// How far the books are apart.
    #[must_use]
    pub fn difference(&self) -> u64 {
        self.ours.abs_diff(self.theirs)
    }
}

/// What happened.
pub struct Findings {
    /// Every POST, in the order of sending.
    pub posted: Vec<Posted>,
    /// What the policy's books say at the end.
    pub booked: Counts,
    /// What the processors' say.
    pub stored: Counts,
    /// Payments that more than one processor stored.
    pub doubles: u64,
    /// The auditor's comparisons.
    pub audits: Vec<Audit>,
    /// Processed attempts that took longer than a second.
    pub risky: u64,
    /// Attempts sent.
    pub attempts: u64,
    /// What the policy shows at the end.
    pub figures: super::Figures,
    /// The timeline, if it was wanted.
    pub seconds: Vec<Second>,
}

/// See the module's documentation.
pub struct World<'a> {
    schedule: &'a Schedule,
    settings: Settings,
    policy: Box<dyn Policy>,
    lives: Vec<Life>,
    now_us: u64,
    queue: Queue<Event>,
    dice: Dice,
    /// By [`Processor::index`].
    upstreams: Vec<Upstream>,
    posted: Vec<Posted>,
    attempts: Vec<Attempt>,
    in_flight: u64,
    /// The attempt of each token that may be abandoned.
    tokens: std::collections::HashMap<u64, u32>,
    audits: Vec<Audit>,
    risky: u64,
    /// Some condition of the schedule's takes answers away.
    loses_answers: bool,
    second: Second,
    seconds: Option<Vec<Second>>,
    orders: Vec<Order>,
    due: Vec<Due>,
}

impl<'a> World<'a> {
    /// A world in which nothing has happened.
    pub fn new(schedule: &'a Schedule, settings: Settings, policy: Box<dyn Policy>, timeline: bool) -> Self {
        // Of their own, so that no policy's decisions change what chance holds for the others.
        let mut dice = Dice::new(settings.seed ^ 0x4c41_4221);
        Self {
            schedule,
            settings,
            policy,
            lives: schedule.lives(),
            now_us: 0,
            queue: Queue::new(),
            upstreams: schedule.processors().map(|_| Upstream::new(&settings, &mut dice)).collect(),
            dice,
            posted: Vec::with_capacity(1 << 14),
            attempts: Vec::with_capacity(1 << 14),
            in_flight: 0,
            tokens: std::collections::HashMap::new(),
            audits: Vec::new(),
            risky: 0,
            loses_answers: schedule.loses_answers(),
            second: Second::default(),
            seconds: timeline.then(Vec::new),
            orders: Vec::new(),
            due: Vec::new(),
        }
    }

    /// Runs to the end.
    pub fn run(mut self) -> Findings {
        let final_us = self.schedule.final_us();
        for (life, Life { start_us, .. }) in (0_u32..).zip(&self.lives) {
            self.queue.push(*start_us, Event::Post(life));
        }
        for (index, stage) in self.schedule.stages.iter().enumerate() {
            self.queue.push(stage.at_s.us(), Event::Stage(index));
        }
        let interval_us = self.settings.audit_interval_us;
        let audits = (0..=self.schedule.end_us() / interval_us).map(|number| number * interval_us);
        for (index, at_us) in audits.filter(|at_us| at_us + AUDIT_SPREAD_US <= final_us).enumerate() {
            let now_ms = unix_ms(at_us);
            let (from_ms, to_ms) = (now_ms - AUDIT_FROM_MS, now_ms - AUDIT_TO_MS);
            self.audits.push(Audit { at_s: at_us / 1_000_000, ours: 0, theirs: 0, from_ms, to_ms });
            let processors = self.schedule.processors().map(Some);
            for whom in processors.chain([None]) {
                self.queue.push(at_us + self.dice.between(0, AUDIT_SPREAD_US), Event::Audit(index, whom));
            }
        }
        if self.seconds.is_some() {
            (1..=final_us / 1_000_000).for_each(|second| self.queue.push(second * 1_000_000, Event::Second));
        }
        self.policy.start(&mut self.orders);
        self.carry_out();
        while let Some((at_us, event)) = self.queue.pop()
            && at_us <= final_us
        {
            self.now_us = at_us;
            self.handle(event);
        }
        self.now_us = final_us;
        self.finish()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Post(life) => self.post(life),
            Event::Arrive(payment) => self.tell(Heard::Arrived { payment }),
            Event::Answered(life) => {
                self.queue.push(self.now_us + CLIENT_SLEEP_US, Event::Post(life));
            }
            Event::Stage(index) => {
                let stage = self.schedule.stages[index];
                for processor in self.schedule.processors() {
                    self.collect(processor);
                    let condition = stage.conditions[processor.index()];
                    self.upstreams[processor.index()].set(self.now_us, condition);
                    self.collect(processor);
                }
            }
            Event::Audit(index, whom) => self.audit(index, whom),
            Event::Send(attempt) => {
                let processor = self.attempts[attempt as usize].processor;
                let at_us = self.upstreams[processor.index()].arrive(self.now_us);
                self.queue.push(at_us, Event::Enter(attempt));
            }
            Event::Enter(attempt) => {
                let Attempt { payment, processor, requested_at_ms, .. } = self.attempts[attempt as usize];
                self.collect(processor);
                let answer =
                    self.upstreams[processor.index()].enter(self.now_us, attempt, payment, requested_at_ms);
                match answer {
                    Some(answer) => self.answer((Caller::Attempt(attempt), answer), processor),
                    None => self.plan_wake(processor),
                }
            }
            Event::Wake(processor) => {
                if self.upstreams[processor.index()].wake_us == Some(self.now_us) {
                    self.upstreams[processor.index()].wake_us = None;
                }
                self.collect(processor);
            }
            Event::Check(processor, token) => {
                self.collect(processor);
                match self.upstreams[processor.index()].check(self.now_us, token) {
                    Some(answer) => self.answer((Caller::Check(token), answer), processor),
                    None => self.plan_wake(processor),
                }
            }
            Event::LookUp(processor, token, payment) => {
                self.collect(processor);
                match self.upstreams[processor.index()].look_up(self.now_us, token, payment) {
                    Some(answer) => self.answer((Caller::LookUp(token), answer), processor),
                    None => self.plan_wake(processor),
                }
            }
            Event::TimedOut(attempt) => self.ended(attempt, 0),
            Event::Tell(heard) => self.tell(heard),
            Event::Ended(attempt, status) => self.ended(attempt, status),
            Event::Second => self.close_second(),
        }
    }

    fn post(&mut self, life: u32) {
        let Life { end_us, .. } = self.lives[life as usize];
        if self.now_us >= end_us.min(self.schedule.end_us()) {
            return;
        }
        let payment = u32::try_from(self.posted.len()).expect("fewer than 2^32 payments");
        self.posted.push(Posted {
            at_us: self.now_us,
            life,
            accepted: false,
            was_in_doubt: false,
            processed: None,
        });
        self.second.posted += 1;
        self.queue.push(self.now_us + self.settings.front_us, Event::Arrive(payment));
    }

    fn tell(&mut self, heard: Heard) {
        self.policy.handle(heard, self.now_us, &mut self.orders);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        let mut orders = std::mem::take(&mut self.orders);
        for order in orders.drain(..) {
            match order {
                Order::Answer { payment, accepted } => {
                    let posted = &mut self.posted[payment as usize];
                    posted.accepted = accepted;
                    self.queue.push(self.now_us + self.settings.front_us, Event::Answered(posted.life));
                }
                Order::Attempt { token, payment, processor, requested_at_ms } => {
                    let attempt = u32::try_from(self.attempts.len()).expect("fewer than 2^32 attempts");
                    let sent_us = self.now_us;
                    let (abandoned, ended) = (false, false);
                    self.attempts.push(Attempt {
                        token,
                        payment,
                        processor,
                        requested_at_ms,
                        sent_us,
                        abandoned,
                        ended,
                    });
                    if self.loses_answers {
                        self.queue.push(sent_us + ATTEMPT_TIMEOUT_US, Event::TimedOut(attempt));
                    }
                    let former = self.tokens.insert(token, attempt);
                    assert!(former.is_none(), "{token}: a token names one attempt at a time");
                    self.in_flight += 1;
                    self.queue.push(self.now_us + self.settings.link_us, Event::Send(attempt));
                }
                Order::Abandon { token } => {
                    let attempt =
                        self.tokens.remove(&token).expect("only an attempt on its way is abandoned");
                    self.attempts[attempt as usize].abandoned = true;
                    self.in_flight -= 1;
                }
                Order::LookUp { token, payment, processor } => {
                    let at_us = self.now_us + self.settings.link_us;
                    self.queue.push(at_us, Event::LookUp(processor, token, payment));
                }
                Order::CheckHealth { token, processor } => {
                    self.queue.push(self.now_us + self.settings.link_us, Event::Check(processor, token));
                }
                Order::Timer { at_us, token } => {
                    self.queue.push(at_us.max(self.now_us), Event::Tell(Heard::Timer { token }));
                }
            }
        }
        self.orders = orders;
    }

    /// Takes what a processor has ready, and comes back when it says so.
    fn collect(&mut self, processor: Processor) {
        let mut due = std::mem::take(&mut self.due);
        self.upstreams[processor.index()].collect(self.now_us, &mut due);
        for due in due.drain(..) {
            self.answer(due, processor);
        }
        self.due = due;
        self.plan_wake(processor);
    }

    fn plan_wake(&mut self, processor: Processor) {
        let upstream = &mut self.upstreams[processor.index()];
        if let Some(deadline_us) = upstream.deadline_us()
            && upstream.wake_us.is_none_or(|wake_us| wake_us > deadline_us)
        {
            upstream.wake_us = Some(deadline_us);
            self.queue.push(deadline_us, Event::Wake(processor));
        }
    }

    /// An answer leaves a processor.
    fn answer(&mut self, (caller, answer): Due, processor: Processor) {
        let at_us = self.now_us + self.settings.link_us;
        match caller {
            Caller::Attempt(attempt) => {
                let status = match answer {
                    Answer::Processed => 200,
                    Answer::Duplicate(_) => 422,
                    Answer::Failed => 500,
                    Answer::Refused => 429,
                    Answer::Closed { .. } => 0,
                    Answer::Found(_) | Answer::NotFound | Answer::Health { .. } | Answer::Garbage => {
                        unreachable!("{answer:?} to a payment, with no such fault")
                    }
                };
                self.queue.push(at_us, Event::Ended(attempt, status));
            }
            Caller::LookUp(token) => {
                let found = match answer {
                    Answer::Found(payment) => u64::try_from(payment.requested_at_ms).ok(),
                    _ => None,
                };
                self.queue.push(at_us, Event::Tell(Heard::LookedUp { token, found }));
            }
            Caller::Check(token) => {
                let health = match answer {
                    Answer::Health { failing, min_response_time_ms } => {
                        Some((failing, u32::try_from(min_response_time_ms).unwrap_or(0)))
                    }
                    _ => None,
                };
                self.queue.push(at_us, Event::Tell(Heard::Checked { token, processor, health }));
            }
        }
    }

    fn ended(&mut self, attempt: u32, status: u16) {
        let Attempt { token, payment, processor, requested_at_ms, sent_us, abandoned, ended } =
            self.attempts[attempt as usize];
        if ended {
            return;
        }
        self.attempts[attempt as usize].ended = true;
        if status == 0 {
            self.posted[payment as usize].was_in_doubt = true;
        } else if status == 200 {
            self.posted[payment as usize].processed = Some((processor, self.now_us));
        }
        let processed = matches!(status, 200 | 422);
        let counts = if processed { &mut self.second.processed } else { &mut self.second.refused };
        counts[processor.index()] += 1;
        if status == 200 && self.now_us.saturating_sub((requested_at_ms - EPOCH_MS) * 1_000) > RISKY_US {
            self.risky += 1;
        }
        if abandoned {
            return;
        }
        self.in_flight -= 1;
        self.tokens.remove(&token);
        self.tell(Heard::Ended { token, status, latency_us: self.now_us - sent_us });
    }

    fn audit(&mut self, index: usize, whom: Option<Processor>) {
        let Audit { from_ms, to_ms, .. } = self.audits[index];
        match whom {
            None => self.audits[index].ours = self.policy.summarize(from_ms, to_ms).iter().sum(),
            Some(processor) => {
                self.collect(processor);
                let upstream = &mut self.upstreams[processor.index()];
                self.audits[index].theirs += upstream.summarize(self.now_us, from_ms, to_ms);
            }
        }
    }

    fn close_second(&mut self) {
        let mut second = std::mem::take(&mut self.second);
        second.waiting = self.policy.waiting();
        second.in_flight = self.in_flight;
        second.figures = self.policy.figures(self.now_us);
        self.seconds.iter_mut().for_each(|seconds| seconds.push(second.clone()));
    }

    fn finish(mut self) -> Findings {
        self.schedule.processors().for_each(|processor| self.collect(processor));
        let booked = self.policy.summarize(0, unix_ms(self.now_us));
        let mut stored = Counts::default();
        for (count, upstream) in stored.iter_mut().zip(&self.upstreams) {
            *count = upstream.stored().len() as u64;
        }
        // Whoever is not answered by now, long after the others, is in doubt.
        let unanswered = |attempt: &&Attempt| !attempt.ended && attempt.sent_us + UNANSWERED_US < self.now_us;
        for attempt in self.attempts.iter().filter(unanswered) {
            self.posted[attempt.payment as usize].was_in_doubt |= self.loses_answers;
        }
        let payments = 0..u32::try_from(self.posted.len()).expect("fewer than 2^32 payments");
        let is_double =
            |payment: &u32| self.upstreams.iter().filter(|upstream| upstream.has(*payment)).count() > 1;
        let doubles = payments.filter(is_double).count() as u64;
        Findings {
            booked,
            stored,
            doubles,
            audits: self.audits,
            risky: self.risky,
            attempts: self.attempts.len() as u64,
            figures: self.policy.figures(self.now_us),
            posted: self.posted,
            seconds: self.seconds.unwrap_or_default(),
        }
    }
}
