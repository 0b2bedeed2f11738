//! Two gateways, a ledger and two processors, and whatever may happen to them, in any order.
//!
//! The real dispatchers and the real coordinator, records in queues between them, and processors that are books: what the fuzzer
//! chooses is who is heard next, how attempts end, when connections are cut, who dies, and what the clocks say. Afterwards all is made
//! well, and within simulated minutes, in which other payments come by, every one that was answered 202 must stand in one book, once, as the ledger has it, or in
//! none and be declined. Only where a processor has stored another amount under its id does a payment stay open: that is a person's to settle.
//!
//! Held against the books: a payment in two, one that no client sent, one with other cents or another `requestedAt`, and one that
//! nobody works on any more are all found. The engine's own assertions are on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use galo_engine::coordinator::{Coordinator, CoordinatorConfig, SessionId};
use galo_engine::dispatcher::{
    Action, Answer, Dispatcher, DispatcherConfig, DoubtPolicy, ProcessorPolicy, Stored, Verification,
};
use galo_engine::ledger::{Entry, Known, LedgerConfig};
use galo_engine::money::AmountCents;
use galo_engine::router::{Cost, ProcessorSet, RouterConfig, Thresholds};
use galo_engine::time::{Now, UnixMillis};
use galo_engine::verdict::{End, Verdict};
use galo_engine::{CorrelationId, PROCESSORS_LEN_MAX, Processor};
use galo_wire::record::{Hello, Role};
use galo_wire::{Message, PROTOCOL_VERSION};

const STEPS_MAX: usize = 256;
const IDS: u8 = 12;
/// Payments that come when all is well. With the others they are fewer than the ledger remembers.
const LATE_IDS: u32 = 60;
const START_US: u64 = 1_000_000_000;
const UNIX_MS: u64 = 1_700_000_000_000;

/// How long a request may live, sender's timeout and processor's sleep together: half of what makes "not found" a proof.
const REQUEST_US_MAX: u64 = DoubtPolicy::CONTEST.absent_after_us / 2;

/// One thing that happens.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Step {
    what: u8,
    who: u8,
    which: u8,
    how: u8,
}

/// The first byte chooses patience, sizes and the processors' ways, the others what happens.
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
    /// When it was begun.
    begun_us: u64,
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

/// What a processor has: cents, `requestedAt`, and how far it got.
type Book = BTreeMap<[u8; 16], (u64, UnixMillis, Stored)>;

struct World {
    shape: u8,
    now_us: u64,
    lives: u64,
    gateways: [Gateway; 2],
    coordinator: Coordinator,
    journal: Vec<Entry>,
    books: [Book; PROCESSORS_LEN_MAX],
    /// Ids that a processor has with another amount.
    contradicted: BTreeSet<[u8; 16]>,
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
                processors: processors(shape),
                costs: [500, 1_500, 700, 0, 0, 0, 0, 0]
                    .map(|basis_points| Cost { basis_points, fixed_cents: 0 }),
                patience_us: if shape & 1 == 0 { 0 } else { 30_000_000 },
                thresholds: Thresholds { slow_us: 100_000, ..Thresholds::CONTEST },
            },
            processors: [ProcessorPolicy {
                doubt: DoubtPolicy {
                    // Keys that are known for a while, and for ever.
                    resend_us_max: if shape & 32 == 0 { u64::MAX } else { 5_000_000 },
                    ..DoubtPolicy::CONTEST
                },
                declined_goes_on: shape & 64 == 0,
                ..ProcessorPolicy::contest(if shape & 4 == 0 { 2 } else { 16 })
            }; PROCESSORS_LEN_MAX],
            queue_len_max: if shape & 2 == 0 { 4 } else { 64 },
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

/// Two, or three.
fn processors(shape: u8) -> ProcessorSet {
    if shape & 128 == 0 { ProcessorSet::PAIR } else { ProcessorSet::PAIR.with(Processor::N2) }
}

fn coordinator(shape: u8, incarnation: u64, now: Now, journal: &[Entry]) -> Coordinator {
    let config = CoordinatorConfig {
        processors_fingerprint: 0,
        health_checked: processors(shape),
        ledger: LedgerConfig {
            open_len_max: if shape & 8 == 0 { 8 } else { 64 },
            known_len_max: 100,
            bucket_bytes_max: 1 << 16,
            members_bytes_max: 1 << 16,
            hash_seed: incarnation,
            processors: processors(shape),
        },
        health_interval_us: [5_000_000; PROCESSORS_LEN_MAX],
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
            books: Default::default(),
            contradicted: BTreeSet::new(),
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
            8 => self.end_lookup(number, which, how % 3 != 0),
            9 => self.end_check(number, how),
            10 => self.pass(u64::from(which) * 1_000 * if how % 4 == 0 { 20 } else { 1 }),
            11 if how % 2 == 0 => self.connect(number),
            11 => self.cut(number, usize::from(which % 8), usize::from(how / 2 % 8)),
            12 => self.kill_gateway(number, usize::from(which % 8)),
            13 => self.kill_ledger(usize::from(which % 4), usize::from(how % 4)),
            14 if how % 2 == 0 => self.store_adrift(which),
            14 => self.settle_pending(how),
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
        let mut given_up = Vec::new();
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
                        Known::Declined { .. } => panic!("sent, and has ended declined"),
                        Known::Absent => panic!("sent, and not in the ledger"),
                    }
                    let begun_us = self.now_us;
                    gateway.attempts.push(Request {
                        slot,
                        processor,
                        id,
                        amount_cents,
                        requested_at,
                        begun_us,
                    });
                }
                Action::Verify { slot, processor, correlation_id: id, .. } => {
                    let requested_at = UnixMillis(0);
                    let begun_us = self.now_us;
                    let request = Request { slot, processor, id, amount_cents: 0, requested_at, begun_us };
                    gateway.lookups.push(request);
                }
                Action::CheckHealth { processor } => gateway.checks.push(processor),
                Action::Renew { .. } => {}
                Action::GiveUp { slot, .. } => given_up.push(slot),
            }
        }
        given_up.into_iter().for_each(|slot| self.give_up(number, slot));
    }

    /// An attempt ends for its gateway, wherever it is.
    fn give_up(&mut self, number: usize, slot: u32) {
        let attempts = &mut self.gateways[number].attempts;
        let place = attempts.iter().position(|it| it.slot == slot).expect("what is given up is on its way");
        let request = attempts.swap_remove(place);
        self.adrift.push(request);
        self.tell(number, |dispatcher, now| dispatcher.attempt_ended(slot, End::UNANSWERED, 0, now));
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
            processors: 0,
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

    /// The processor stores a payment, or has it already: its answer. A request that is too old does not live any more.
    fn store(&mut self, request: Request, stored: Stored, how_much: u64) -> End {
        let Request { processor, id, amount_cents, requested_at, begun_us, .. } = request;
        if self.now_us > begun_us + REQUEST_US_MAX {
            return End::UNANSWERED;
        }
        // What it declined and kept stays declined, whatever comes late.
        if self.books[processor.index()].contains_key(&id.0) {
            return answered(Verdict::Duplicate, 422);
        }
        let charged = |book: &Book| book.get(&id.0).is_some_and(|(.., stored)| *stored != Stored::Declined);
        for other in Processor::ALL.into_iter().filter(|other| *other != processor) {
            assert!(
                !charged(&self.books[other.index()]),
                "{id} is at {other:?} already, and goes to {processor:?}"
            );
        }
        let book = &mut self.books[processor.index()];
        book.insert(id.0, (amount_cents + how_much, requested_at, stored));
        if how_much > 0 {
            self.contradicted.insert(id.0);
        }
        match stored {
            Stored::Processed => answered(Verdict::Processed, 200),
            Stored::Pending => answered(Verdict::Pending, 202),
            Stored::Declined => answered(Verdict::Declined, 402),
        }
    }

    fn end_attempt(&mut self, number: usize, which: u8, how: u8) {
        let attempts = &mut self.gateways[number].attempts;
        if attempts.is_empty() {
            return;
        }
        let request = attempts.swap_remove(usize::from(which) % attempts.len());
        let is_there = self.books[request.processor.index()].contains_key(&request.id.0);
        let end = match how % 20 {
            0..=3 => self.store(request, Stored::Processed, 0),
            4 => answered(Verdict::Unavailable, 500),
            5 => End { retry_after_ms: u32::from(how) * 10, ..answered(Verdict::Overloaded, 429) },
            6 => End::NOT_SENT,
            // Stored, and the answer is lost.
            7 => {
                self.store(request, Stored::Processed, 0);
                End::UNANSWERED
            }
            8 => {
                self.adrift.push(request);
                End::UNANSWERED
            }
            9 => End::UNANSWERED,
            10 => {
                self.adrift.push(request);
                answered(Verdict::Unknown, 503)
            }
            11 => answered(Verdict::Unknown, 302),
            // Refused for good; or kept as that.
            12 | 13 if !is_there && self.may_decline() => answered(Verdict::Declined, 402),
            14 if self.may_decline() => self.store(request, Stored::Declined, 0),
            // It says that it has it, and does not.
            15 => answered(Verdict::Duplicate, 409),
            16 | 17 => self.store(request, Stored::Pending, 0),
            // Another amount, of an id that it did not have.
            18 if how >= 200 => {
                self.store(request, Stored::Processed, 1);
                answered(Verdict::Duplicate, 422)
            }
            _ => answered(Verdict::Unavailable, 400),
        };
        let latency_us = u64::from(how) * 1_000;
        let has_hung_up = end == End::UNANSWERED && how >= 128;
        self.tell(number, |dispatcher, now| {
            if has_hung_up {
                dispatcher.attempt_hung_up(request.slot, latency_us, now);
            } else {
                dispatcher.attempt_ended(request.slot, end, latency_us, now);
            }
        });
    }

    fn end_lookup(&mut self, number: usize, which: u8, is_answered: bool) {
        let lookups = &mut self.gateways[number].lookups;
        if lookups.is_empty() {
            return;
        }
        let request = lookups.swap_remove(usize::from(which) % lookups.len());
        let found = self.books[request.processor.index()].get(&request.id.0);
        let verification = match found {
            _ if !is_answered => Verification::Unanswered,
            None => Verification::NotFound,
            Some((cents, at, stored)) => Verification::Found {
                stored: *stored,
                requested_at: Some(*at),
                amount: AmountCents::new(*cents),
            },
        };
        self.tell(number, |dispatcher, now| dispatcher.verified(request.slot, verification, now));
    }

    /// What a processor had taken comes to its end there.
    fn settle_pending(&mut self, how: u8) {
        let may_decline = self.may_decline();
        let pending = self.books.iter_mut().flat_map(BTreeMap::values_mut);
        for (.., stored) in pending.filter(|(.., stored)| *stored == Stored::Pending) {
            *stored = if how % 4 < 2 || !may_decline { Stored::Processed } else { Stored::Declined };
        }
    }

    /// A ledger that is full of payments that all processors decline takes none that could show that they take others.
    fn may_decline(&self) -> bool {
        self.shape & 8 != 0
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
            self.store(request, Stored::Processed, 0);
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
        assert_eq!(books.accepted.count, books.ended().count + books.open.count);
    }

    /// Everything is connected and answers, until nothing is left to do.
    fn make_well(&mut self) {
        while !self.adrift.is_empty() {
            self.store_adrift(0);
        }
        self.settle_pending(0);
        for number in [0, 1] {
            if self.gateways[number].is_draining {
                self.kill_gateway(number, usize::MAX);
                self.store_all_adrift();
            }
        }
        let is_open = |known: Known| matches!(known, Known::Open(_));
        // Ten minutes, in steps of 50 ms: patience is half a minute, backoff and breaker are seconds.
        for step in 0..12_000 {
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
            let ledger = self.coordinator.ledger();
            let disputed = |id: &&[u8; 16]| is_open(ledger.lookup(CorrelationId(**id)));
            let disputed_count = self.contradicted.iter().filter(disputed).count();
            // What stays open is in doubt: a look-up has shown the other amount.
            let is_in_doubt = |id: &&[u8; 16]| matches!(ledger.lookup(CorrelationId(**id)), Known::Open(payment) if payment.in_doubt);
            let in_doubt_count = self.contradicted.iter().filter(is_in_doubt).count();
            let open_count = ledger.conservation().open.count;
            let is_settled = open_count == disputed_count as u64 && in_doubt_count == disputed_count;
            let now = self.now(0);
            let mut held = 0;
            let is_quiet = self.gateways.iter_mut().all(|gateway| {
                let gauges = gateway.dispatcher.gauges(now);
                held += gauges.held;
                gateway.to_ledger.is_empty()
                    && gateway.from_ledger.is_empty()
                    && gateway.attempts.is_empty()
                    && gauges.unacknowledged == 0
                    && gateway.posts.is_empty()
            });
            if is_quiet && is_settled && held == disputed_count {
                return;
            }
            // A processor that declined a payment has to show that it takes others: one comes by every five seconds.
            if step % 100 == 99 && step / 100 < LATE_IDS {
                let late = u8::try_from(step / 100).expect("a few");
                self.post(usize::from(late % 2), IDS + late, 1);
            }
            self.pass(50_000);
        }
        let books = self.coordinator.ledger().conservation();
        panic!("after ten good minutes something is left: {books:?}");
    }

    fn store_all_adrift(&mut self) {
        for request in std::mem::take(&mut self.adrift) {
            self.store(request, Stored::Processed, 0);
        }
    }

    /// The ledger, the books and the clients agree.
    fn judge(&self) {
        let ledger = self.coordinator.ledger();
        for (id, cents) in &self.accepted {
            let known = ledger.lookup(CorrelationId(*id));
            let has_ended = matches!(known, Known::Processed { .. } | Known::Declined { .. });
            let disputed = self.contradicted.contains(id);
            assert!(has_ended || disputed, "answered 202, and {known:?}");
            assert_eq!(amount_of(known), Some(*cents));
        }
        let mut count = 0;
        for processor in Processor::ALL {
            for (id, (cents, requested_at, stored)) in &self.books[processor.index()] {
                let known = ledger.lookup(CorrelationId(*id));
                assert_ne!(*stored, Stored::Pending, "all that was taken has ended");
                let is_here = matches!(known, Known::Processed { processor: at, .. } if at == processor);
                if *stored == Stored::Declined {
                    assert!(!is_here, "counted as processed where it was declined");
                    continue;
                }
                if self.contradicted.contains(id) {
                    assert!(!is_here, "booked, and the processor has another amount");
                    assert!(
                        matches!(known, Known::Open(payment) if payment.in_doubt),
                        "settled by nobody: {known:?}"
                    );
                    continue;
                }
                let expected =
                    Known::Processed { amount_cents: *cents, requested_at_ms: requested_at.0, processor };
                assert_eq!(known, expected, "the ledger mirrors the books");
                assert!(self.sent.get(id).is_some_and(|sent| sent.contains(cents)), "no client sent this");
                count += 1;
            }
        }
        let processed = ledger.conservation().processed;
        let processed_count: u64 = processed.iter().map(|tally| tally.count).sum();
        assert_eq!(processed_count, count, "the ledger has more than the books");
        let all = ledger.summarize(UnixMillis(0), UnixMillis(u64::MAX));
        assert_eq!(all.totals, processed, "the summary of all time is the books");
    }
}

fn answered(verdict: Verdict, status: u16) -> End {
    End { verdict, status, retry_after_ms: 0 }
}

fn amount_of(known: Known) -> Option<u64> {
    match known {
        Known::Open(payment) => Some(payment.amount_cents),
        Known::Processed { amount_cents, .. } | Known::Declined { amount_cents, .. } => Some(amount_cents),
        Known::Absent => None,
    }
}
