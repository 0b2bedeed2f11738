//! Two gateways, a ledger and two processors, and whatever may happen to them, in any order.
//!
//! The real dispatchers and the real coordinator, records in queues between them, and processors that are two books: what the fuzzer
//! chooses is who is heard next, how attempts end, when connections are cut, who dies, and what the clocks say. Afterwards all is made
//! well, and within simulated minutes every payment that was answered 202 must stand in one book, once, as the ledger has it.
//!
//! Held against the books: a payment in both, one that no client sent, one with other cents or another `requestedAt`, and one that
//! nobody works on any more are all found. The engine's own assertions are on.

use std::collections::{BTreeMap, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use galo_engine::coordinator::{Coordinator, CoordinatorConfig, SessionId};
use galo_engine::dispatcher::{Action, Answer, Dispatcher, DispatcherConfig, Verification};
use galo_engine::ledger::{Entry, Known, LedgerConfig};
use galo_engine::money::AmountCents;
use galo_engine::outcome::Reply;
use galo_engine::router::RouterConfig;
use galo_engine::time::{Now, UnixMillis};
use galo_engine::{CorrelationId, Processor};
use galo_wire::record::{Hello, Role};
use galo_wire::{Message, PROTOCOL_VERSION};

const STEPS_MAX: usize = 256;
const IDS: u8 = 12;
const START_US: u64 = 1_000_000_000;
const UNIX_MS: u64 = 1_700_000_000_000;

/// One thing that happens.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Step {
    what: u8,
    who: u8,
    which: u8,
    how: u8,
}

/// The first byte chooses patience and sizes, the others what happens.
pub fn run(data: &[u8]) {
    let Some((shape, steps)) = data.split_first() else { return };
    let mut world = World::new(*shape);
    let mut steps = Unstructured::new(steps);
    for _ in 0..STEPS_MAX {
        if steps.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut steps) else { break };
        world.step(step);
    }
    world.make_well();
    world.judge();
}

/// An attempt, or a lookup, that was begun and has not ended.
#[derive(Clone, Copy)]
struct Request {
    slot: u32,
    processor: Processor,
    id: CorrelationId,
    amount_cents: u64,
    requested_at: UnixMillis,
}

/// A thread of a gateway, and what is between it and the aggregator.
struct Gateway {
    dispatcher: Dispatcher,
    session: Option<SessionId>,
    to_ledger: VecDeque<Message>,
    from_ledger: VecDeque<Message>,
    attempts: Vec<Request>,
    lookups: Vec<Request>,
    checks: Vec<Processor>,
    /// Against the other's clock, ms.
    unix_ms_ahead: u64,
    /// POSTs by ticket.
    posts: BTreeMap<u32, (CorrelationId, u64)>,
    is_draining: bool,
}

type Book = BTreeMap<[u8; 16], (u64, UnixMillis)>;

struct World {
    shape: u8,
    now_us: u64,
    lives: u64,
    gateways: [Gateway; 2],
    coordinator: Coordinator,
    journal: Vec<Entry>,
    books: [Book; 2],
    /// Requests whose sender knows nothing of their end: the processor may still store them.
    adrift: Vec<Request>,
    /// What was answered 202: id and cents.
    accepted: BTreeMap<[u8; 16], u64>,
    sent: BTreeMap<[u8; 16], Vec<u64>>,
    ticket: u32,
}

impl Gateway {
    fn new(shape: u8, seed: u64) -> Self {
        let dispatcher = Dispatcher::new(DispatcherConfig {
            router: RouterConfig {
                fee_bps: [500, 1_500],
                patience_us: if shape & 1 == 0 { 0 } else { 30_000_000 },
                slow_us: 100_000,
            },
            queue_len_max: if shape & 2 == 0 { 4 } else { 64 },
            concurrency_max: if shape & 4 == 0 { 2 } else { 16 },
            accept_wait_us_max: 1_000_000,
            seed,
        });
        Self {
            dispatcher,
            session: None,
            to_ledger: VecDeque::new(),
            from_ledger: VecDeque::new(),
            attempts: Vec::new(),
            lookups: Vec::new(),
            checks: Vec::new(),
            unix_ms_ahead: 0,
            posts: BTreeMap::new(),
            is_draining: false,
        }
    }
}

fn coordinator(shape: u8, incarnation: u64, now: Now, journal: &[Entry]) -> Coordinator {
    let config = CoordinatorConfig {
        ledger: LedgerConfig {
            open_len_max: if shape & 8 == 0 { 8 } else { 64 },
            known_len_max: 100,
            bucket_bytes_max: 1 << 16,
            hash_seed: incarnation,
        },
        health_interval_us: 5_000_000,
        claim_grace_us: 300_000,
        incarnation,
    };
    let mut coordinator = Coordinator::new(config, now);
    journal.iter().for_each(|entry| coordinator.restore(*entry));
    coordinator
}

impl World {
    fn new(shape: u8) -> Self {
        let start = Now { monotonic_us: START_US, unix_ms: UnixMillis(UNIX_MS) };
        let mut world = Self {
            shape,
            now_us: START_US,
            lives: 2,
            gateways: [Gateway::new(shape, 1), Gateway::new(shape, 2)],
            coordinator: coordinator(shape, 1, start, &[]),
            journal: Vec::new(),
            books: [Book::new(), Book::new()],
            adrift: Vec::new(),
            accepted: BTreeMap::new(),
            sent: BTreeMap::new(),
            ticket: 0,
        };
        if shape & 16 == 0 {
            world.connect(0);
            world.connect(1);
        }
        world
    }

    fn now(&self, ahead_ms: u64) -> Now {
        let unix_ms = UNIX_MS + (self.now_us - START_US) / 1_000 + ahead_ms;
        Now { monotonic_us: self.now_us, unix_ms: UnixMillis(unix_ms) }
    }

    fn step(&mut self, Step { what, who, which, how }: Step) {
        let number = usize::from(who % 2);
        match what % 16 {
            0 | 1 => self.post(number, which % IDS, how),
            2 | 3 => self.hear_gateway(number, 1 + usize::from(which % 8)),
            4 | 5 => self.hear_ledger(number, 1 + usize::from(which % 8)),
            6 | 7 => self.end_attempt(number, which, how),
            8 => self.end_lookup(number, which, how % 2 == 0),
            9 => self.end_check(number, how),
            10 => self.pass(u64::from(which) * 1_000 * if how % 4 == 0 { 20 } else { 1 }),
            11 if how % 2 == 0 => self.connect(number),
            11 => self.cut(number, usize::from(which % 8), usize::from(how / 2 % 8)),
            12 => self.kill_gateway(number, usize::from(which % 8)),
            13 => self.kill_ledger(usize::from(which % 4), usize::from(how % 4)),
            14 => self.store_adrift(which),
            _ if how % 8 == 0 => {
                self.gateways[number].is_draining = true;
                self.tell(number, |dispatcher, _| dispatcher.drain());
            }
            // Clocks of two hosts, or one that an operator steps.
            _ => self.gateways[number].unix_ms_ahead = u64::from(which) * u64::from(how),
        }
    }

    /// Tells a dispatcher, and does what it says.
    fn tell(&mut self, number: usize, tell: impl FnOnce(&mut Dispatcher, Now)) {
        let now = self.now(self.gateways[number].unix_ms_ahead);
        let gateway = &mut self.gateways[number];
        tell(&mut gateway.dispatcher, now);
        let actions = std::mem::take(gateway.dispatcher.actions());
        for action in actions {
            match action {
                Action::Send(message) => {
                    // What is said without a connection is lost, and must not be needed.
                    if gateway.session.is_some() {
                        gateway.to_ledger.push_back(message);
                    }
                }
                Action::Answer { ticket, answer } => {
                    let (id, cents) = gateway.posts.remove(&ticket).expect("a POST is answered once");
                    let known = self.coordinator.ledger().lookup(id);
                    match answer {
                        Answer::Granted | Answer::Replayed => {
                            let other = self.accepted.insert(id.0, cents);
                            assert!(other.is_none_or(|other| other == cents), "one id, 202 for two amounts");
                            assert_eq!(amount_of(known), Some(cents), "202, and not in the ledger");
                        }
                        Answer::Conflict => assert_ne!(amount_of(known), Some(cents), "no conflict"),
                        Answer::Full | Answer::Unreachable => {}
                    }
                }
                Action::Attempt { slot, processor, correlation_id: id, amount, requested_at } => {
                    let amount_cents = amount.get();
                    // The intent is in the ledger before the first byte, unless the ledger has heard of the payment's end.
                    match self.coordinator.ledger().lookup(id) {
                        Known::Open(payment) => {
                            assert_eq!(payment.amount_cents, amount_cents, "sent with another amount");
                            assert!(
                                payment.stage.processor().is_some(),
                                "sent before the intent was recorded"
                            );
                        }
                        Known::Processed { .. } => {}
                        Known::Absent => panic!("sent, and not in the ledger"),
                    }
                    gateway.attempts.push(Request { slot, processor, id, amount_cents, requested_at });
                }
                Action::Verify { slot, processor, correlation_id: id } => {
                    let requested_at = UnixMillis(0);
                    gateway.lookups.push(Request { slot, processor, id, amount_cents: 0, requested_at });
                }
                Action::CheckHealth { processor } => gateway.checks.push(processor),
            }
        }
    }

    /// Writes down what the coordinator decided, then lets go what it says.
    fn settle(&mut self) {
        let (entries, messages) = self.coordinator.decided();
        self.journal.append(entries);
        for (to, message) in messages.drain(..) {
            for gateway in &mut self.gateways {
                if gateway.session == Some(to) {
                    gateway.from_ledger.push_back(message);
                }
            }
        }
    }

    fn post(&mut self, number: usize, id: u8, how: u8) {
        let id = CorrelationId([id + 1; 16]);
        let cents = if how.is_multiple_of(8) { 2_500 } else { 1_990 };
        self.ticket += 1;
        let ticket = self.ticket;
        self.sent.entry(id.0).or_default().push(cents);
        self.gateways[number].posts.insert(ticket, (id, cents));
        let amount = AmountCents::new(cents).expect("an amount");
        self.tell(number, |dispatcher, now| dispatcher.accept(ticket, id, amount, now));
    }

    fn hear_gateway(&mut self, number: usize, count: usize) {
        for _ in 0..count {
            let gateway = &mut self.gateways[number];
            let Some(session) = gateway.session else { return };
            let Some(message) = gateway.to_ledger.pop_front() else { break };
            let now = self.now(0);
            let heard = self.coordinator.handle(session, message, now);
            assert!(heard.is_ok(), "a gateway of ours is rejected: {heard:?}");
        }
        self.settle();
    }

    fn hear_ledger(&mut self, number: usize, count: usize) {
        for _ in 0..count {
            let Some(message) = self.gateways[number].from_ledger.pop_front() else { return };
            match message {
                Message::Hello(_) => self.tell(number, Dispatcher::connected),
                message => self.tell(number, |dispatcher, now| dispatcher.handle(message, now)),
            }
        }
    }

    fn connect(&mut self, number: usize) {
        if self.gateways[number].session.is_some() {
            return;
        }
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            role: Role::Gateway,
            instance: if number == 0 { 1 } else { 2 },
            thread: 0,
            reserved: 0,
            incarnation: self.lives,
        };
        let session = self.coordinator.connect(hello).expect("there is room");
        self.gateways[number].session = Some(session);
        self.settle();
        // Its own hello is the first thing that it hears.
        self.hear_ledger(number, 1);
    }

    /// The connection ends; of what was under way, this much still arrives.
    fn cut(&mut self, number: usize, heard: usize, told: usize) {
        if self.gateways[number].session.is_none() {
            return;
        }
        self.hear_gateway(number, heard);
        self.hear_ledger(number, told);
        self.part(number);
        self.tell(number, |dispatcher, _| dispatcher.disconnected());
    }

    /// The aggregator's side of it.
    fn part(&mut self, number: usize) {
        let now = self.now(0);
        let gateway = &mut self.gateways[number];
        gateway.to_ledger.clear();
        gateway.from_ledger.clear();
        if let Some(session) = gateway.session.take() {
            self.coordinator.disconnect(session, now);
        }
        self.settle();
    }

    fn kill_gateway(&mut self, number: usize, heard: usize) {
        self.hear_gateway(number, heard);
        self.lives += 1;
        let gateway = std::mem::replace(&mut self.gateways[number], Gateway::new(self.shape, self.lives));
        self.gateways[number].session = gateway.session;
        self.gateways[number].unix_ms_ahead = gateway.unix_ms_ahead;
        self.adrift.extend(gateway.attempts);
        self.part(number);
    }

    /// The aggregator dies, and is there again with what it had written down.
    fn kill_ledger(&mut self, told_first: usize, told_second: usize) {
        self.hear_ledger(0, told_first);
        self.hear_ledger(1, told_second);
        self.lives += 1;
        let now = self.now(0);
        self.coordinator = coordinator(self.shape, self.lives, now, &self.journal);
        for number in [0, 1] {
            let gateway = &mut self.gateways[number];
            gateway.to_ledger.clear();
            gateway.from_ledger.clear();
            if gateway.session.take().is_some() {
                self.tell(number, |dispatcher, _| dispatcher.disconnected());
            }
        }
    }

    /// The processor stores a payment, or has it already: its answer.
    fn store(&mut self, request: Request) -> Reply {
        let Request { processor, id, amount_cents, requested_at, .. } = request;
        assert!(
            !self.books[processor.other().index()].contains_key(&id.0),
            "{id} is at {} already, and goes to {}",
            processor.other().name(),
            processor.name()
        );
        let book = &mut self.books[processor.index()];
        if book.contains_key(&id.0) {
            return Reply::Answered { status: 422 };
        }
        book.insert(id.0, (amount_cents, requested_at));
        Reply::Answered { status: 200 }
    }

    fn end_attempt(&mut self, number: usize, which: u8, how: u8) {
        let attempts = &mut self.gateways[number].attempts;
        if attempts.is_empty() {
            return;
        }
        let request = attempts.swap_remove(usize::from(which) % attempts.len());
        let reply = match how % 12 {
            0..=3 => self.store(request),
            4 => Reply::Answered { status: 500 },
            5 => Reply::Answered { status: 429 },
            6 => Reply::NotSent,
            // Stored, and the answer is lost.
            7 => {
                self.store(request);
                Reply::Broken
            }
            8 => {
                self.adrift.push(request);
                Reply::TimedOut
            }
            9 => Reply::Broken,
            10 => {
                self.adrift.push(request);
                Reply::Answered { status: 503 }
            }
            _ => Reply::Answered { status: 302 },
        };
        let latency_us = u64::from(how) * 1_000;
        self.tell(number, |dispatcher, now| dispatcher.attempt_ended(request.slot, reply, latency_us, now));
    }

    fn end_lookup(&mut self, number: usize, which: u8, is_found: bool) {
        let lookups = &mut self.gateways[number].lookups;
        if lookups.is_empty() {
            return;
        }
        let request = lookups.swap_remove(usize::from(which) % lookups.len());
        let stored = self.books[request.processor.index()].get(&request.id.0).filter(|_| is_found);
        let verification = stored.map_or(Verification::Unclear, |(_, at)| Verification::Found(*at));
        self.tell(number, |dispatcher, now| dispatcher.verified(request.slot, verification, now));
    }

    fn end_check(&mut self, number: usize, how: u8) {
        if let Some(processor) = self.gateways[number].checks.pop() {
            let health = (!how.is_multiple_of(4)).then_some((how % 4 == 1, u32::from(how)));
            self.tell(number, |dispatcher, now| dispatcher.health_checked(processor, health, now));
        }
    }

    fn store_adrift(&mut self, which: u8) {
        if !self.adrift.is_empty() {
            let request = self.adrift.swap_remove(usize::from(which) % self.adrift.len());
            self.store(request);
        }
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
        let now = self.now(0);
        self.coordinator.tick(now);
        self.settle();
        self.tell(0, Dispatcher::tick);
        self.tell(1, Dispatcher::tick);
        let ledger = self.coordinator.ledger();
        let books = ledger.conservation();
        assert_eq!(
            books.accepted.count,
            books.processed[0].count + books.processed[1].count + books.open.count
        );
    }

    /// Everything is connected and answers, until nothing is left to do.
    fn make_well(&mut self) {
        while !self.adrift.is_empty() {
            self.store_adrift(0);
        }
        for number in [0, 1] {
            if self.gateways[number].is_draining {
                self.kill_gateway(number, usize::MAX);
                self.store_all_adrift();
            }
        }
        // Ten minutes, in steps of 50 ms: patience is half a minute, backoff and breaker are seconds.
        for _ in 0..12_000 {
            for number in [0, 1] {
                self.connect(number);
                self.hear_gateway(number, usize::MAX);
                self.hear_ledger(number, usize::MAX);
                for _ in 0..self.gateways[number].attempts.len() {
                    self.end_attempt(number, 0, 0);
                }
                for _ in 0..self.gateways[number].lookups.len() {
                    self.end_lookup(number, 0, true);
                }
                while !self.gateways[number].checks.is_empty() {
                    self.end_check(number, 2);
                }
            }
            let is_quiet = self.gateways.iter().all(|gateway| {
                gateway.to_ledger.is_empty()
                    && gateway.from_ledger.is_empty()
                    && gateway.attempts.is_empty()
                    && gateway.dispatcher.is_drained()
                    && gateway.posts.is_empty()
            });
            if is_quiet && self.coordinator.ledger().conservation().open.count == 0 {
                return;
            }
            self.pass(50_000);
        }
        let books = self.coordinator.ledger().conservation();
        panic!("after ten good minutes something is left: {books:?}");
    }

    fn store_all_adrift(&mut self) {
        for request in std::mem::take(&mut self.adrift) {
            self.store(request);
        }
    }

    /// The ledger, the books and the clients agree.
    fn judge(&self) {
        let ledger = self.coordinator.ledger();
        for (id, cents) in &self.accepted {
            let known = ledger.lookup(CorrelationId(*id));
            assert!(matches!(known, Known::Processed { .. }), "answered 202, and {known:?}");
            assert_eq!(amount_of(known), Some(*cents));
        }
        let mut count = 0;
        for processor in Processor::ALL {
            for (id, (cents, requested_at)) in &self.books[processor.index()] {
                let expected =
                    Known::Processed { amount_cents: *cents, requested_at_ms: requested_at.0, processor };
                assert_eq!(ledger.lookup(CorrelationId(*id)), expected, "the ledger mirrors the books");
                assert!(self.sent.get(id).is_some_and(|sent| sent.contains(cents)), "no client sent this");
                count += 1;
            }
        }
        let [default, fallback] = ledger.conservation().processed;
        assert_eq!(default.count + fallback.count, count, "the ledger has more than the books");
        let all = ledger.summarize(UnixMillis(0), UnixMillis(u64::MAX));
        assert_eq!(all.totals, [default, fallback], "the summary of all time is the books");
    }
}

fn amount_of(known: Known) -> Option<u64> {
    match known {
        Known::Open(payment) => Some(payment.amount_cents),
        Known::Processed { amount_cents, .. } => Some(amount_cents),
        Known::Absent => None,
    }
}
