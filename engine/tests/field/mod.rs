//! One dispatcher between a ledger that grants and records everything at once and processors that do as a test says, in virtual
//! time: it is asked what it waits for, as the gateway's shell asks, and time passes for it only then.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

use galo_engine::dispatcher::{
    Action, Dispatcher, DispatcherConfig, DispatcherGauges, DoubtPolicy, ProcessorPolicy, Verification,
};
use galo_engine::money::AmountCents;
use galo_engine::router::{Reason, RouterConfig};
use galo_engine::time::{Now, UnixMillis};
use galo_engine::verdict::{End, Verdict};
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, Stage};
use galo_wire::Message;
use galo_wire::record::{
    Acknowledgement, Admission, Assignment, Claim, Completion, Contradiction, Discrepancy, Grant,
    IntentRecorded,
};

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;
pub const CHEAP: Processor = Processor::DEFAULT;
pub const DEAR: Processor = Processor::FALLBACK;

/// As the field's ledger sees unix time: so many ms before its clock began.
const EPOCH_MS: u64 = 1_700_000_000_000;

pub fn end(verdict: Verdict, status: u16) -> End {
    End { verdict, status, retry_after_ms: 0 }
}

pub fn taken() -> End {
    end(Verdict::Processed, 200)
}

pub fn refused() -> End {
    end(Verdict::Unavailable, 500)
}

pub fn declined() -> End {
    end(Verdict::Declined, 402)
}

/// How an attempt ends whose processor closes a kept connection as it is used.
pub const HUNG_UP: End = End { verdict: Verdict::Unknown, status: 0, retry_after_ms: 1 };

/// An attempt as its processor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    pub at_us: u64,
    pub processor: Processor,
    pub id: u32,
    pub requested_at_ms: u64,
}

/// What became of a payment, as the ledger heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub at_us: u64,
    pub id: u32,
    pub completion: Completion,
}

type Judge = Box<dyn FnMut(&Try) -> (End, u64)>;
type Clerk = Box<dyn FnMut(Processor, u32, u64) -> Verification>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Ended { slot: u32, number: usize },
    LookedUp { slot: u32, processor: u8, id: u32 },
    Heard { number: usize },
}

/// See the module's documentation.
pub struct Field {
    pub dispatcher: Dispatcher,
    pub now_us: u64,
    pub tries: Vec<Try>,
    /// When who was looked up.
    pub lookups: Vec<(u64, u32)>,
    pub told: Vec<Told>,
    pub discrepancies: Vec<Discrepancy>,
    /// What the ledger says to them is lost on the way.
    pub is_lossy: bool,
    pub claims: Vec<Claim>,
    /// Why payments were sent, in the order of their intents.
    pub intents: Vec<(u32, Processor, Reason)>,
    /// What an attempt comes to, and after how long, µs.
    pub judge: Judge,
    /// What a look-up finds, 1 ms later.
    pub clerk: Clerk,
    /// How long the ledger takes for an answer, µs.
    pub ledger_us: u64,
    /// By how much the wall clock was stepped back, ms.
    pub stepped_back_ms: u64,
    /// How often the ledger was asked whether anything is not this gateway's by now.
    pub readies: u32,
    /// Since when attempts go over other connections than before, by processor, µs; 0: they do not.
    pub renewed_us: Rc<[Cell<u64>; PROCESSORS_LEN_MAX]>,
    /// Which attempts were given up, and when.
    pub given_up: Vec<(u64, u32)>,
    /// Attempts on their way, by slot: which of `ends` is theirs.
    under_way: HashMap<u32, (usize, u32)>,
    is_linked: bool,
    ends: Vec<(End, u64)>,
    answers: Vec<Message>,
    due: BinaryHeap<Reverse<(u64, Due)>>,
    tick_at_us: Option<u64>,
}

pub fn config() -> DispatcherConfig {
    DispatcherConfig {
        router: RouterConfig::pair([500, 1_500]),
        queue_len_max: 10_000,
        processors: [ProcessorPolicy::contest(64); PROCESSORS_LEN_MAX],
        accept_wait_us_max: SECOND,
        seed: 7,
    }
}

/// The same, where doubt has this end.
pub fn config_with(doubt: DoubtPolicy) -> DispatcherConfig {
    let mut config = config();
    config.processors.iter_mut().for_each(|policy| policy.doubt = doubt);
    config
}

pub fn id_of(id: u32) -> CorrelationId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&id.to_be_bytes());
    CorrelationId(bytes)
}

fn number_of(id: CorrelationId) -> u32 {
    u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]])
}

pub fn amount() -> AmountCents {
    AmountCents::new(1_990).unwrap()
}

impl Field {
    pub fn new(judge: impl FnMut(&Try) -> End + 'static) -> Self {
        Self::with(config(), judge)
    }

    /// Linked to its ledger. Every attempt ends after a millisecond.
    pub fn with(config: DispatcherConfig, judge: impl FnMut(&Try) -> End + 'static) -> Self {
        let mut judge = judge;
        let mut field = Self {
            dispatcher: Dispatcher::new(config),
            now_us: SECOND,
            tries: Vec::new(),
            lookups: Vec::new(),
            told: Vec::new(),
            discrepancies: Vec::new(),
            is_lossy: false,
            claims: Vec::new(),
            intents: Vec::new(),
            judge: Box::new(move |it| (judge(it), MS)),
            clerk: Box::new(|_, _, _| Verification::Unanswered),
            ledger_us: 0,
            stepped_back_ms: 0,
            readies: 0,
            renewed_us: Rc::default(),
            given_up: Vec::new(),
            under_way: HashMap::new(),
            is_linked: false,
            ends: Vec::new(),
            answers: Vec::new(),
            due: BinaryHeap::new(),
            tick_at_us: None,
        };
        field.link();
        field
    }

    /// From now on attempts also take their time, µs.
    pub fn judge_with(mut self, judge: impl FnMut(&Try) -> (End, u64) + 'static) -> Self {
        self.judge = Box::new(judge);
        self
    }

    /// Look-ups find this: of the processor, the payment, now.
    pub fn clerk_with(mut self, clerk: impl FnMut(Processor, u32, u64) -> Verification + 'static) -> Self {
        self.clerk = Box::new(clerk);
        self
    }

    pub fn now(&self) -> Now {
        Now {
            monotonic_us: self.now_us,
            unix_ms: UnixMillis(EPOCH_MS + self.now_us / MS - self.stepped_back_ms),
        }
    }

    pub fn link(&mut self) {
        self.is_linked = true;
        self.event(Dispatcher::connected);
    }

    pub fn unlink(&mut self) {
        self.is_linked = false;
        self.dispatcher.disconnected();
    }

    pub fn event(&mut self, event: impl FnOnce(&mut Dispatcher, Now)) {
        let now = self.now();
        event(&mut self.dispatcher, now);
        loop {
            let actions: Vec<Action> = self.dispatcher.actions().drain(..).collect();
            if actions.is_empty() {
                break;
            }
            actions.into_iter().for_each(|action| self.carry_out(action));
        }
        if self.tick_at_us.is_none() {
            self.tick_at_us = self.dispatcher.tick_wait_us().map(|wait_us| self.now_us + wait_us);
        }
    }

    fn hear(&mut self, message: impl Into<Message>) {
        let message = message.into();
        if self.ledger_us == 0 {
            let now = self.now();
            self.dispatcher.handle(message, now);
        } else {
            let number = self.answers.len();
            self.answers.push(message);
            self.due.push(Reverse((self.now_us + self.ledger_us, Due::Heard { number })));
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Attempt { slot, processor, correlation_id, requested_at, .. } => {
                let id = number_of(correlation_id);
                let it = Try { at_us: self.now_us, processor, id, requested_at_ms: requested_at.0 };
                let (end, latency_us) = (self.judge)(&it);
                self.tries.push(it);
                let number = self.ends.len();
                self.ends.push((end, latency_us));
                self.under_way.insert(slot, (number, id));
                self.due.push(Reverse((self.now_us + latency_us, Due::Ended { slot, number })));
            }
            Action::Verify { slot, processor, correlation_id, .. } => {
                let id = number_of(correlation_id);
                self.lookups.push((self.now_us, id));
                let processor = processor as u8;
                self.due.push(Reverse((self.now_us + MS, Due::LookedUp { slot, processor, id })));
            }
            Action::Renew { processor } => self.renewed_us[processor.index()].set(self.now_us),
            Action::GiveUp { slot, .. } => {
                let (number, id) = self.under_way[&slot];
                self.given_up.push((self.now_us, id));
                self.ends[number].0 = End::UNANSWERED;
                self.due.push(Reverse((self.now_us, Due::Ended { slot, number })));
            }
            Action::Answer { .. } | Action::CheckHealth { .. } => {}
            Action::Send(message) => self.ledger(message),
        }
    }

    fn ledger(&mut self, message: Message) {
        assert!(self.is_linked, "nothing is sent without a link: {message:?}");
        match message {
            Message::Accept(accept) => self.hear(Grant {
                slot: accept.slot,
                correlation_id: accept.correlation_id,
                admission: Admission::Granted,
            }),
            Message::Intent(intent) => {
                let (slot, correlation_id) = (intent.slot, intent.correlation_id);
                self.intents.push((number_of(correlation_id), intent.processor, intent.reason));
                self.hear(IntentRecorded { slot, correlation_id });
            }
            Message::Completion(completion) => {
                let id = number_of(completion.correlation_id);
                self.told.push(Told { at_us: self.now_us, id, completion });
                self.hear(Acknowledgement { sequence: completion.sequence });
            }
            // A ledger that holds none of it.
            Message::Discrepancy(it) => {
                self.discrepancies.push(it);
                if it.is_new && !self.is_lossy {
                    let Discrepancy { slot, correlation_id, processor, amount_cents, .. } = it;
                    self.hear(Contradiction { slot, correlation_id, processor, amount_cents });
                }
            }
            Message::Claim(claim) => self.claims.push(claim),
            Message::Ready(_) => {
                self.readies += 1;
                self.hear(Acknowledgement { sequence: 0 });
            }
            Message::HealthReport(_) | Message::Release(_) => {}
            other => panic!("the ledger is told {other:?}"),
        }
    }

    pub fn pay(&mut self, id: u32) {
        self.event(|dispatcher, now| dispatcher.accept(id, id_of(id), amount(), now));
    }

    /// Takes a payment over that may be with a processor since now.
    pub fn assign(&mut self, id: u32, processor: Processor) {
        self.assign_of(id, processor, self.now().unix_ms.0);
    }

    /// Takes a payment over that may be with a processor since then.
    pub fn assign_of(&mut self, id: u32, processor: Processor, requested_at_ms: u64) {
        self.take_over(id, Stage::at(processor), requested_at_ms);
    }

    /// Takes a payment over that nobody has.
    pub fn assign_waiting(&mut self, id: u32) {
        self.take_over(id, Stage::Waiting, 0);
    }

    fn take_over(&mut self, id: u32, stage: Stage, requested_at_ms: u64) {
        let (correlation_id, amount_cents) = (id_of(id), amount().get());
        let in_doubt = stage != Stage::Waiting;
        let assignment = Assignment { correlation_id, amount_cents, requested_at_ms, stage, in_doubt };
        self.event(|dispatcher, now| dispatcher.handle(assignment.into(), now));
    }

    /// The process is stopped for so long: it hears of nothing until then.
    pub fn stop(&mut self, us: u64) {
        self.now_us += us;
    }

    /// Lets time pass.
    pub fn wait(&mut self, us: u64) {
        let until_us = self.now_us + us;
        loop {
            let due_us = self.due.peek().map_or(u64::MAX, |Reverse((at_us, _))| *at_us);
            let tick_us = self.tick_at_us.unwrap_or(u64::MAX);
            let next_us = due_us.min(tick_us);
            if next_us > until_us {
                break;
            }
            self.now_us = self.now_us.max(next_us);
            if tick_us <= due_us {
                self.tick_at_us = None;
                self.event(Dispatcher::tick);
                continue;
            }
            let Some(Reverse((_, due))) = self.due.pop() else { break };
            match due {
                Due::Ended { slot, number } => {
                    if self.under_way.get(&slot).is_none_or(|it| it.0 != number) {
                        // It was given up.
                        continue;
                    }
                    self.under_way.remove(&slot);
                    let (end, latency_us) = self.ends[number];
                    self.event(|dispatcher, now| {
                        if end == HUNG_UP {
                            dispatcher.attempt_hung_up(slot, latency_us, now);
                        } else {
                            dispatcher.attempt_ended(slot, end, latency_us, now);
                        }
                    });
                }
                Due::Heard { number } => {
                    let message = self.answers[number];
                    self.event(|dispatcher, now| dispatcher.handle(message, now));
                }
                Due::LookedUp { slot, processor, id } => {
                    let processor = Processor::ALL[usize::from(processor)];
                    let found = (self.clerk)(processor, id, self.now_us);
                    self.event(|dispatcher, now| dispatcher.verified(slot, found, now));
                }
            }
        }
        self.now_us = until_us;
    }

    /// Pays these ids, one each `gap_us`.
    pub fn pay_each(&mut self, ids: impl IntoIterator<Item = u32>, gap_us: u64) {
        for id in ids {
            self.pay(id);
            self.wait(gap_us);
        }
    }

    pub fn tries_of(&self, id: u32) -> Vec<Try> {
        self.tries.iter().filter(|it| it.id == id).copied().collect()
    }

    pub fn tries_at(&self, id: u32, processor: Processor) -> Vec<Try> {
        self.tries_of(id).into_iter().filter(|it| it.processor == processor).collect()
    }

    /// How its attempts ended, as the ledger heard.
    pub fn outcomes(&self, id: u32) -> Vec<Outcome> {
        self.told.iter().filter(|told| told.id == id).map(|told| told.completion.outcome).collect()
    }

    /// How long after this moment it was processed, µs.
    pub fn processed_after(&self, id: u32, since_us: u64) -> Option<u64> {
        let is_it = |told: &&Told| told.id == id && told.completion.outcome == Outcome::Processed;
        self.told.iter().find(is_it).map(|told| told.at_us - since_us)
    }

    pub fn gauges(&mut self) -> DispatcherGauges {
        let now = self.now();
        self.dispatcher.gauges(now)
    }
}

/// The pauses between these attempts, µs.
pub fn pauses(tries: &[Try]) -> Vec<u64> {
    tries.windows(2).map(|pair| pair[1].at_us - pair[0].at_us).collect()
}
