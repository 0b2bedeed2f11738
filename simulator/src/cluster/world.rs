//! The world of one run: everything that exists, what will happen, and the loop that lets it happen.

use galo_engine::coordinator::Coordinator;
use galo_engine::dispatcher::DoubtPolicy;
use galo_engine::ledger::{Known, OpenPayment};
use galo_engine::verdict::Rules;
use galo_engine::{CorrelationId, PROCESSORS_LEN_MAX, Processor, Stage};

use super::aggregator::Aggregator;
use super::bug::Bug;
use super::client::Post;
use super::dice::Dice;
use super::gateway::Gateway;
use super::invariant::Invariant;
use super::link::{Connection, Side};
use super::manner::{self, Manners};
use super::oracle::Oracle;
use super::plan::Plan;
use super::process;
use super::queue::Queue;
use super::rates::Meter;
use super::summaries::Summaries;
use super::table::SharedTable;
use super::wire::{Request, Upstream};
use super::{Options, Report, leases};

/// What finding out which processors work may take beside patience: attempts that hang, a slow one's trickle, a gateway's start, µs.
const PATIENCE_MARGIN_US: u64 = 15_000_000;

/// What will happen. A `life` makes an event void once its process has died.
#[derive(Debug)]
pub enum Event {
    /// The next payment comes into being.
    Arrive,
    /// A POST reaches HAProxy.
    Post(Post),
    /// Somebody asks for a summary or a payment.
    Audit,
    /// A gateway's process starts.
    ProcessStart(usize),
    /// A gateway looks at the time.
    GatewayTick(usize, u32),
    /// A gateway writes what has gathered.
    GatewayFlush(usize, u32),
    /// A gateway tries to connect to the aggregator.
    GatewayConnect(usize, u32),
    /// A gateway's process that drains looks whether it is done; it stops at the time given.
    ProcessDrain(usize, u32, u64),
    /// The aggregator's process starts.
    AggregatorStart,
    /// The aggregator looks at the time.
    AggregatorTick(u32),
    /// The journal's write ended.
    WriteEnded(u32),
    /// Bytes, or the end of a stream, arrive at an end of a connection.
    Deliver(usize, Side),
    /// A request reaches its processor.
    RequestArrives(usize),
    /// A request's end reaches its gateway.
    RequestEnds(usize, super::wire::Ending),
    /// A processor has something to do.
    ProcessorWakes(Processor),
    /// A processor says that something has happened to a payment.
    Notify(Processor, CorrelationId),
    /// Something breaks.
    Fault,
    /// A gateway, or the aggregator, is killed.
    Kill(usize),
    /// No more load, no more faults; everything is repaired.
    Quiesce,
    /// Is everything done?
    Settle,
}

/// What happened in a run: zeroes over many seeds mean that something is not simulated at all.
#[derive(Clone, Copy, Default, Debug)]
pub struct Coverage {
    /// Events handled.
    pub steps: u64,
    /// Payments that clients sent.
    pub payments: u64,
    /// Attempts sent to processors.
    pub attempts: u64,
    /// Attempts that ended as unknown.
    pub unknown: u64,
    /// 422s looked up.
    pub verified: u64,
    /// Gateways killed.
    pub gateway_kills: u64,
    /// Aggregators killed.
    pub aggregator_kills: u64,
    /// Gateways that were asked to stop.
    pub drains: u64,
    /// Connections cut.
    pub cuts: u64,
    /// Processors' changes of address.
    pub moves: u64,
    /// Times that all connections to a processor froze.
    pub freezes: u64,
    /// Attempts given up.
    pub given_up: u64,
    /// Hang-ups after which an attempt was sent again at once, of gateways that died.
    pub hung_up: u64,
    /// Losses of power.
    pub power_losses: u64,
    /// Purges.
    pub purges: u64,
    /// Snapshots begun.
    pub snapshots: u64,
    /// Payments handed to another gateway.
    pub handed_over: u64,
    /// Payments claimed.
    pub claimed: u64,
    /// Intents and claims answered with a withdrawal.
    pub withdrawn: u64,
    /// Ids forgotten.
    pub forgotten: u64,
    /// Ids accepted as new after that.
    pub relapsed: u64,
    /// Such ids that had been processed before, and ended as that.
    pub known_before: u64,
    /// Summaries that were not exact.
    pub coarse: u64,
    /// Histories that were whole.
    pub histories_whole: u64,
    /// Histories of which something was forgotten.
    pub histories_forgotten: u64,
    /// Accepts that expired.
    pub expired: u64,
    /// Payments granted so late that their clients had heard a 503.
    pub unheard: u64,
    /// POSTs answered as replayed.
    pub replayed: u64,
    /// POSTs answered as conflicting.
    pub conflicts: u64,
    /// POSTs answered as full.
    pub full: u64,
    /// POSTs that the ledger did not answer.
    pub unreachable: u64,
    /// Attempts that were declined.
    pub declined_attempts: u64,
    /// Payments that ended declined.
    pub declined: u64,
    /// Payments that were put off.
    pub deferred: u64,
    /// Attempts that were told when to come back.
    pub rests: u64,
    /// Payments that a processor took and decided on later.
    pub pending: u64,
    /// Notifications that came to a gateway that works.
    pub notices: u64,
    /// Those that did not.
    pub notices_lost: u64,
    /// Look-ups that notifications brought forward.
    pub hastened: u64,
    /// Decisions to wait, or to pay more elsewhere, because of a processor's rate alone.
    pub rate_held: u64,
    /// Doubts that a look-up ended, since it found nothing.
    pub absent: u64,
    /// Payments that a processor has with another amount.
    pub contradictions: u64,
    /// Payments left open for that.
    pub disputed: u64,
    /// Runs in which one processor stayed bad until patience was over.
    pub lame: u64,
    /// Summaries made.
    pub summaries: u64,
    /// Of them, those that did not wait for a gateway any more.
    pub unconfirmed_summaries: u64,
    /// Payments that gateways granted by themselves.
    pub admitted: u64,
    /// Claims that a gateway's death cut short.
    pub claims_cut: u64,
}

macro_rules! coverage {
    ($($field:ident),*) => {
        impl Coverage {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// Names and numbers.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field)),*]
            }
        }
    };
}
coverage!(
    steps,
    payments,
    attempts,
    unknown,
    verified,
    gateway_kills,
    aggregator_kills,
    drains,
    cuts,
    moves,
    freezes,
    given_up,
    hung_up,
    power_losses,
    purges,
    snapshots,
    handed_over,
    claimed,
    withdrawn,
    forgotten,
    relapsed,
    known_before,
    coarse,
    histories_whole,
    histories_forgotten,
    expired,
    unheard,
    replayed,
    conflicts,
    full,
    unreachable,
    declined_attempts,
    declined,
    deferred,
    rests,
    pending,
    notices,
    notices_lost,
    hastened,
    rate_held,
    absent,
    contradictions,
    disputed,
    lame,
    summaries,
    unconfirmed_summaries,
    admitted,
    claims_cut
);

/// See the module's documentation.
pub struct World {
    pub(super) plan: Plan,
    pub(super) bug: Option<Bug>,
    /// What the processors' answers mean.
    pub(super) rules: Rules,
    pub(super) dice: Dice,
    /// Chance for notifications and rates alone: what is drawn for them moves no other draw.
    pub(super) extra: Dice,
    pub(super) now_us: u64,
    pub(super) queue: Queue<Event>,
    pub(super) oracle: Oracle,
    pub(super) coverage: Coverage,
    /// The host's admission table, if it has one.
    pub(super) table: Option<SharedTable>,
    /// The threads of all gateways, process by process.
    pub(super) gateways: Vec<Gateway>,
    pub(super) aggregator: Aggregator,
    pub(super) connections: Vec<Connection>,
    pub(super) summaries: Summaries,
    pub(super) requests: Vec<Request>,
    pub(super) upstreams: Vec<Upstream>,
    /// What leaves for them each second.
    pub(super) meter: Meter,
    /// How processors treat each payment, by its place.
    pub(super) manners: Vec<Manners>,
    /// Whether they treat it in any manner of their own.
    pub(super) poisoned: Vec<bool>,
    /// The processor that stays bad, and until when.
    pub(super) lame: Option<(Processor, u64)>,
    quiet_us: u64,
    /// Faults may happen.
    pub(super) troubled: bool,
    /// POSTs on their way to an answer.
    pub(super) posts_pending: usize,
    deadline_us: u64,
    done: bool,
    trace: bool,
}

impl World {
    /// The world as `seed` makes it.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut dice = Dice::new(seed);
        let mut extra = Dice::new(!seed);
        let plan = Plan::draw(&mut dice, &mut extra);
        let gateways = process::threads(&plan, &mut dice);
        let aggregator = Aggregator::new(&plan, &mut dice);
        // The aggregator waits a little longer than the processors' window, as the real one does.
        let window_us = plan.health_interval_us - leases::MARGIN_US;
        let upstreams = (0..plan.processor_count).map(|_| Upstream::new(window_us, &mut dice)).collect();
        let world = Self {
            bug: options.bug,
            rules: manner::rules(),
            dice,
            extra,
            now_us: 0,
            queue: Queue::new(),
            oracle: Oracle::new(&plan),
            coverage: Coverage::default(),
            // What survives the loss of power is not granted in memory.
            table: SharedTable::draw(seed, plan.power_loss.is_none()),
            gateways,
            aggregator,
            connections: Vec::new(),
            summaries: Summaries::default(),
            requests: Vec::new(),
            upstreams,
            meter: Meter::default(),
            manners: Vec::new(),
            poisoned: Vec::new(),
            lame: None,
            quiet_us: 0,
            troubled: true,
            posts_pending: 0,
            deadline_us: u64::MAX,
            done: false,
            trace: options.trace,
            plan,
        };
        world.trace(|| format!("seed {seed}: {:#?}", world.plan));
        world
    }

    /// Prints a line of the trace.
    pub(super) fn trace(&self, line: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10} ms  {}", Milliseconds(self.now_us), line());
        }
    }

    /// Plans an event.
    pub(super) fn after(&mut self, delay_us: u64, event: Event) {
        self.queue.push(self.now_us + delay_us, event);
    }

    /// Whether this bug is planted.
    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Runs to the end.
    pub fn run(mut self) -> Report {
        self.begin();
        while !self.done
            && self.oracle.checks.failure.is_none()
            && let Some((at_us, event)) = self.queue.pop()
        {
            self.now_us = at_us;
            self.oracle.now_us = at_us;
            self.coverage.steps += 1;
            let quiet = matches!(event, Event::GatewayTick(..) | Event::AggregatorTick(_) | Event::Settle);
            self.handle(event);
            if self.troubled && !quiet {
                self.maybe_kill();
            }
        }
        if let Some(failure) = &self.oracle.checks.failure {
            self.trace(|| format!("FAILED: {}: {}", failure.invariant.name(), failure.what));
        }
        Report { checks: self.oracle.checks, coverage: self.coverage }
    }

    fn begin(&mut self) {
        self.after(0, Event::AggregatorStart);
        for process in 0..self.plan.gateway_count {
            self.after(0, Event::ProcessStart(process));
        }
        self.after(1_000, Event::Arrive);
        self.after(2_000, Event::Audit);
        if self.plan.fault_gap_us > 0 {
            let first_us = self.dice.between(0, self.plan.fault_gap_us);
            self.after(first_us, Event::Fault);
        }
        let duration_us = self.plan.duration_us;
        self.after(duration_us, Event::Quiesce);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive => self.arrive(),
            Event::Post(post) => self.post(post),
            Event::Audit => self.audit(),
            Event::ProcessStart(process) => self.start_process(process),
            Event::GatewayTick(gateway, life) => self.tick_gateway(gateway, life),
            Event::GatewayFlush(gateway, life) => self.flush_gateway(gateway, life),
            Event::GatewayConnect(gateway, life) => self.connect_gateway(gateway, life),
            Event::ProcessDrain(process, life, until_us) => self.drain_process(process, life, until_us),
            Event::AggregatorStart => self.start_aggregator(),
            Event::AggregatorTick(life) => self.tick_aggregator(life),
            Event::WriteEnded(life) => self.write_ended(life),
            Event::Deliver(connection, to) => self.deliver(connection, to),
            Event::RequestArrives(request) => self.request_arrives(request),
            Event::RequestEnds(request, ending) => self.request_ends(request, ending),
            Event::ProcessorWakes(processor) => self.processor_wakes(processor),
            Event::Notify(processor, id) => self.notify(processor, id),
            Event::Fault => self.fault(),
            Event::Kill(victim) if self.troubled => self.kill(victim),
            Event::Kill(_) => {}
            Event::Quiesce => self.quiesce(),
            Event::Settle => self.settle(),
        }
    }

    /// Something arrives at an end of a connection.
    fn deliver(&mut self, connection: usize, to: Side) {
        let split = self.dice.chance(self.plan.split);
        let (chunk, more) = self.connections[connection].deliver(to, split, &mut self.dice);
        if more {
            let delay_us = self.link_delay_us();
            self.after(delay_us, Event::Deliver(connection, to));
        }
        let Some(chunk) = chunk else { return };
        if !self.connections[connection].open[to as usize] {
            return;
        }
        match to {
            Side::Gateway => self.gateway_receives(connection, chunk),
            Side::Aggregator => self.aggregator_receives(connection, chunk),
        }
    }

    pub(super) fn link_delay_us(&mut self) -> u64 {
        1 + self.dice.skewed(self.plan.link_delay_us)
    }

    /// One end writes.
    pub(super) fn write(&mut self, connection: usize, from: Side, bytes: Vec<u8>) {
        if self.connections[connection].write(from, bytes) {
            let delay_us = self.link_delay_us();
            self.after(delay_us, Event::Deliver(connection, from.other()));
        }
    }

    /// One end is closed by its process, or dies with it.
    pub(super) fn close(&mut self, connection: usize, side: Side, lossy: bool) {
        self.connections[connection].open[side as usize] = false;
        self.end(connection, side, lossy);
    }

    /// One direction ends.
    pub(super) fn end(&mut self, connection: usize, from: Side, lossy: bool) {
        if self.connections[connection].end(from, lossy, &mut self.dice) {
            let delay_us = self.link_delay_us();
            self.after(delay_us, Event::Deliver(connection, from.other()));
        }
    }

    /// The faults end; whoever is down comes back; from now on everything works, but for one processor, if a lame one is planned.
    fn quiesce(&mut self) {
        self.trace(|| "no more faults".to_owned());
        self.troubled = false;
        self.quiet_us = self.now_us;
        let longest_hang_us = self.upstreams.iter().map(|upstream| upstream.hang_us_max).max().unwrap_or(0);
        let lame = self.plan.lame.then(|| self.any_processor());
        let processors = self.plan.processors();
        processors.iter().filter(|it| Some(*it) != lame).for_each(|processor| self.heal_processor(processor));
        for place in 0..self.manners.len() {
            let was_declined = processors.iter().any(|it| self.oracle.was_declined(place, it));
            manner::heal(&mut self.manners[place], processors, was_declined || lame.is_some());
        }
        let mut settled_us = 60_000_000;
        if let Some(lame) = lame {
            self.coverage.lame += 1;
            let until_us = self.now_us + self.plan.patience_us + PATIENCE_MARGIN_US;
            self.lame = Some((lame, until_us));
            self.make_lame(lame);
            settled_us += self.plan.patience_us + PATIENCE_MARGIN_US;
        }
        // Pauses of up to a minute, with their jitter, before and after the look-up that proves something.
        if self.plan.absent_after_us < DoubtPolicy::CONTEST.absent_after_us {
            settled_us += self.plan.absent_after_us + 150_000_000;
        }
        self.deadline_us = self.now_us
            + settled_us
            + 4 * (longest_hang_us
                + self.plan.attempt_timeout_us
                + self.plan.restart_us
                + self.plan.drain_us_max);
        self.after(100_000, Event::Settle);
    }

    fn settle(&mut self) {
        if let Some((lame, until_us)) = self.lame
            && self.now_us >= until_us
        {
            self.lame = None;
            self.check_patience(lame);
            self.heal_processor(lame);
        }
        let what = self.unsettled();
        // A processor that declined a payment may have to show that it takes others.
        let is_late = (self.now_us - self.quiet_us).is_multiple_of(5_000_000);
        if what.is_some() && is_late {
            self.arrive_late();
        }
        match what {
            None => {
                self.oracle.check(Invariant::Liveness, true, String::new);
                self.oracle.check(Invariant::DisputesAreCounted, true, String::new);
                self.check_others();
                if let Some(coordinator) = &self.aggregator.coordinator {
                    self.oracle.compare_references(coordinator.ledger());
                }
                self.finish();
                self.done = true;
            }
            Some(what) if self.now_us > self.deadline_us => {
                self.oracle.check(Invariant::Liveness, false, || what);
            }
            Some(_) => self.after(50_000, Event::Settle),
        }
    }

    /// No payment has waited for longer than its patience while another processor worked and took it.
    fn check_patience(&mut self, lame: Processor) {
        // Else they may wait for their turn there, of which look-ups have a part.
        if self.plan.has_rates() {
            return;
        }
        let Some(coordinator) = &self.aggregator.coordinator else { return };
        let latest_us = self.now_us - self.plan.patience_us - PATIENCE_MARGIN_US;
        let mut waits = None;
        for (place, poisoned) in self.poisoned.iter().enumerate() {
            let id = self.oracle.id(place);
            let is_plain = !poisoned;
            if let Known::Open(payment) = coordinator.ledger().lookup(id)
                && is_plain
                && !payment.in_doubt
                && payment.stage != Stage::at(lame)
                && self.oracle.is_free_since(place, latest_us)
                // One that processors declined has pauses of its own.
                && !self.plan.processors().iter().any(|it| self.oracle.was_declined(place, it))
            {
                waits = waits.or(Some((id, payment)));
            }
        }
        self.oracle.check(Invariant::PatienceEnds, waits.is_none(), || {
            format!("{waits:?} waits, while {lame:?} alone does not work")
        });
    }

    /// Open payments that only a person can settle: their processor has another amount, or has them since before a purge or a loss of power.
    fn disputed_count(&self) -> usize {
        let Some(coordinator) = &self.aggregator.coordinator else { return 0 };
        let is_disputed = |place: &usize| self.is_disputed(*place, coordinator);
        (0..self.oracle.len()).filter(is_disputed).count()
    }

    fn is_disputed(&self, place: usize, coordinator: &Coordinator) -> bool {
        let id = self.oracle.id(place);
        let Known::Open(OpenPayment { amount_cents, requested_at_ms, stage, in_doubt: true, .. }) =
            coordinator.ledger().lookup(id)
        else {
            return false;
        };
        let stored = stage.processor().and_then(|processor| {
            self.upstreams[processor.index()].model.store().get(uuid::Uuid::from_bytes(id.0))
        });
        stored.is_some_and(|stored| {
            let is_of_attempt = u64::try_from(stored.requested_at_ms) == Ok(requested_at_ms);
            u64::try_from(stored.amount_cents) != Ok(amount_cents)
                || (!is_of_attempt && self.oracle.has_lost(place))
        })
    }

    /// Where nothing breaks, what processors do to some payments is no other's concern.
    fn check_others(&mut self) {
        let plan = &self.plan;
        let is_quick = plan.link_delay_us <= 20_000 && plan.write_delay_us <= 30_000;
        if !(plan.calm && is_quick && plan.poison > 0 && plan.pending == 0) || plan.tight || plan.has_rates()
        {
            return;
        }
        let way_us = plan.link_delay_us + plan.write_delay_us + plan.flush_delay_us + plan.wire_delay_us;
        let bound_us = 1_500_000 + 12 * way_us;
        for place in 0..self.manners.len() {
            if let Some(took_us) = self.oracle.took_us(place).filter(|_| !self.poisoned[place]) {
                let id = self.oracle.id(place);
                self.oracle.check(Invariant::NoneStopsAnother, took_us <= bound_us, || {
                    format!("{id} took {took_us} µs, although its processors take it: expected {bound_us}")
                });
            }
        }
    }

    /// Payments that gateways have counted as stored with another amount.
    fn counted_disputes(&self) -> u64 {
        self.gateways
            .iter()
            .filter_map(|gateway| gateway.dispatcher.as_ref())
            .map(|dispatcher| dispatcher.counters().contradictions.iter().sum::<u64>())
            .sum()
    }

    /// What is not done yet.
    fn unsettled(&mut self) -> Option<String> {
        if self.lame.is_some() {
            return Some("a processor is still lame".to_owned());
        }
        let disputed_count = self.disputed_count();
        let counted = self.counted_disputes();
        if counted < disputed_count as u64 {
            return Some(format!(
                "{disputed_count} payments are stored with another amount, {counted} are counted"
            ));
        }
        let Some(coordinator) = &self.aggregator.coordinator else {
            return Some("the aggregator is down".to_owned());
        };
        let open = coordinator.ledger().conservation().open;
        if open.count > disputed_count as u64 {
            let list: Vec<_> = (0..self.oracle.len())
                .filter(|place| !self.is_disputed(*place, coordinator))
                .map(|place| (self.oracle.id(place), coordinator.ledger().lookup(self.oracle.id(place))))
                .filter(|(_, known)| matches!(known, Known::Open(_)))
                .take(3)
                .collect();
            return Some(format!("{} payments are open: {list:?}", open.count));
        }
        if !self.aggregator.is_written() {
            return Some("the journal is being written".to_owned());
        }
        if self.posts_pending > 0 {
            return Some(format!("{} POSTs have no answer", self.posts_pending));
        }
        let mut held = 0;
        for (number, gateway) in self.gateways.iter_mut().enumerate() {
            let now = gateway.clock.now(self.now_us);
            let Some(dispatcher) = &mut gateway.dispatcher else {
                return Some(format!("gateway {number} is down"));
            };
            let gauges = dispatcher.gauges(now);
            held += gauges.held;
            let asks = gateway.requests.iter().any(|request| self.requests[*request].is_about_payment());
            // A word about a payment that it does not have is kept for five seconds, in which others come, with theirs (seed 82754).
            let waits = dispatcher.tick_wait_us().is_some() && !self.plan.notifies;
            let is_busy = asks || (waits && gauges.held == 0) || gauges.in_flight != [0; PROCESSORS_LEN_MAX];
            if held > disputed_count || gauges.unacknowledged > 0 || is_busy {
                return Some(format!("gateway {number} holds {gauges:?}"));
            }
        }
        // A request that its gateway has given up may still be asleep in a processor, and insert in the end.
        self.upstreams.iter().find_map(|upstream| upstream.work(&self.requests))
    }

    fn finish(&mut self) {
        self.trace(|| "at rest".to_owned());
        for number in 0..self.gateways.len() {
            let now = self.gateways[number].clock.now(self.now_us);
            let Some(dispatcher) = &mut self.gateways[number].dispatcher else { continue };
            let gauges = dispatcher.gauges(now);
            self.coverage.hastened += dispatcher.counters().hastened;
            self.coverage.rate_held += dispatcher.counters().rate_held.iter().sum::<u64>();
            let idle = gauges.in_flight.iter().all(|count| *count == 0);
            let holds = idle && gauges.waiting == 0 && gauges.deferred == 0;
            self.oracle.check(Invariant::NoLeak, holds, || format!("gateway {number} at rest: {gauges:?}"));
        }
        self.check_rates();
        let config = self.aggregator.config(&self.plan).ledger;
        let found = self.aggregator.disk.copy().recover(config, config.known_len_max, true, &mut self.dice);
        self.oracle
            .check(Invariant::JournalIsReadable, found.damages.is_empty(), || format!("{:?}", found.damages));
        let Some(coordinator) = &self.aggregator.coordinator else { return };
        self.oracle.compare_histories(coordinator.ledger());
        self.oracle.compare_replay(coordinator.ledger(), &found.ledger);
        for ledger in [coordinator.ledger(), &found.ledger] {
            let mut models: Vec<_> = self.upstreams.iter_mut().map(|upstream| &mut upstream.model).collect();
            self.oracle.compare_all(ledger, &mut models, &mut self.dice);
        }
        self.count_coordinator();
        self.coverage.declined = self.oracle.declined_count;
        self.coverage.absent = self.oracle.absent_count;
        self.coverage.disputed = self.disputed_count() as u64;
        self.coverage.forgotten = self.oracle.forgotten_count;
        self.coverage.relapsed = self.oracle.relapsed_count;
        self.coverage.known_before = self.oracle.known_before_count;
        self.coverage.coarse = self.oracle.coarse_count;
        self.coverage.unheard = self.oracle.unheard_count;
        [self.coverage.histories_whole, self.coverage.histories_forgotten] = self.oracle.history_counts;
    }
}

/// Milliseconds with three decimals, without a float.
struct Milliseconds(u64);

impl std::fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}.{:03}", self.0 / 1000, self.0 % 1000))
    }
}
