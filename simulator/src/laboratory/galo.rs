//! Galo's own policy: the engine's real code of two gateways and the aggregator, around one virtual clock.
//!
//! POSTs alternate between the gateways as HAProxy's round robin has them. What gateways and aggregator say to each other
//! takes [`LINK_US`] each way (socket, wake-up, the journal's write), so news of a processor spreads as it does in
//! reality. Nothing is killed here, and doubt is an answer that a processor does not give: the rest is the fault simulator's subject,
//! [`crate::cluster`].

use std::collections::VecDeque;

use galo_engine::coordinator::{Coordinator, CoordinatorConfig, SessionId};
use galo_engine::dispatcher::{Action, Answer, Dispatcher, DispatcherConfig, ProcessorPolicy, Verification};
use galo_engine::ledger::LedgerConfig;
use galo_engine::money::AmountCents;
use galo_engine::router::{Cost, ProcessorSet, Reason, RouterConfig, Thresholds};
use galo_engine::time::{Now, UnixMillis};
use galo_engine::verdict::{End, Rules};
use galo_engine::{CorrelationId, PROCESSORS_LEN_MAX, Processor};
use galo_wire::record::{Hello, Role};
use galo_wire::{Message, PROTOCOL_VERSION};

use super::policy::{Event, Figures, Order, Policy};
use super::upstream::{AMOUNT_CENTS, id_of, unix_ms};
use super::{Counts, EPOCH_MS, Fees};
use crate::cluster::dice::Dice;

/// Gateways.
const GATEWAY_COUNT: usize = 2;

/// From a gateway to the aggregator or back, µs.
const LINK_US: u64 = 100;

/// How long the host had been up.
const BOOTED_BEFORE_US: u64 = 1 << 40;

/// The gateway's clock, while it has something to wait for, and else.
const TICK_IDLE_US: u64 = 25_000;

/// The aggregator's clock.
const AGGREGATOR_TICK_US: u64 = 50_000;

/// The aggregator's margin beside the health check's interval.
const HEALTH_INTERVAL_US: u64 = 5_100_000;

/// Timers' tokens: the gateways' clocks are their numbers.
const TIMER_AGGREGATOR: u64 = 100;
const TIMER_UP: u64 = 101;
const TIMER_DOWN: u64 = 102;

/// What the timeline calls the limits and the expectations of each processor.
const LIMITS: [&str; PROCESSORS_LEN_MAX] =
    ["limit 0", "limit 1", "limit 2", "limit 3", "limit 4", "limit 5", "limit 6", "limit 7"];
const EXPECTATIONS_MS: [&str; PROCESSORS_LEN_MAX] = [
    "expect 0 ms",
    "expect 1 ms",
    "expect 2 ms",
    "expect 3 ms",
    "expect 4 ms",
    "expect 5 ms",
    "expect 6 ms",
    "expect 7 ms",
];

/// What an operator may set, as the gateway's configuration defaults it.
#[derive(Clone, Copy, Debug)]
pub struct GaloConfig {
    /// `ROUTING_PATIENCE_MS`.
    pub patience_ms: u64,
    /// [`Thresholds::slow_us`], in ms.
    pub slow_ms: u64,
    /// `PROCESSOR_CONCURRENCY_MAX`.
    pub concurrency_max: u32,
    /// `QUEUE_LEN_MAX`.
    pub queue_len_max: usize,
}

impl Default for GaloConfig {
    fn default() -> Self {
        let router = RouterConfig::default();
        let (patience_ms, slow_ms) = (router.patience_us / 1_000, router.thresholds.slow_us / 1_000);
        Self { patience_ms, slow_ms, concurrency_max: 400, queue_len_max: 225_000 }
    }
}

impl GaloConfig {
    fn router(&self, fees: Fees) -> RouterConfig {
        let mut costs = [Cost::default(); PROCESSORS_LEN_MAX];
        for (cost, bps) in costs.iter_mut().zip(fees.bps()) {
            cost.basis_points = *bps;
        }
        RouterConfig {
            processors: fees.processors().collect(),
            costs,
            patience_us: self.patience_ms * 1_000,
            thresholds: Thresholds { slow_us: self.slow_ms * 1_000, ..Thresholds::CONTEST },
        }
    }
}

/// A message on its way.
type OnItsWay = (u64, usize, Message);

/// See the module's documentation.
pub struct Galo {
    dispatchers: [Dispatcher; GATEWAY_COUNT],
    coordinator: Coordinator,
    /// To the aggregator, with the gateway that sent it; the link's latency is constant, so these are in order.
    up: VecDeque<OnItsWay>,
    /// To a gateway.
    down: VecDeque<OnItsWay>,
    /// Whose turn it is.
    turn: usize,
    spare: Vec<Action>,
    rules: Rules,
    processors: ProcessorSet,
}

impl Galo {
    /// Two gateways and an aggregator, connected and empty.
    #[must_use]
    pub fn new(config: GaloConfig, fees: Fees, dice: &mut Dice) -> Self {
        let start = now(0);
        let processors: ProcessorSet = fees.processors().collect();
        let mut coordinator = Coordinator::new(
            CoordinatorConfig {
                processors_fingerprint: 0,
                health_checked: processors,
                ledger: LedgerConfig {
                    open_len_max: 450_000,
                    known_len_max: 800_000,
                    bucket_bytes_max: 32 << 20,
                    members_bytes_max: 1 << 20,
                    processors,
                    hash_seed: dice.number(),
                },
                health_interval_us: [HEALTH_INTERVAL_US; PROCESSORS_LEN_MAX],
                claim_grace_us: 300_000,
                incarnation: dice.number(),
            },
            start,
        );
        let dispatchers = [1, 2].map(|instance| {
            let mut dispatcher = Dispatcher::new(DispatcherConfig {
                router: config.router(fees),
                queue_len_max: config.queue_len_max,
                processors: [ProcessorPolicy::contest(config.concurrency_max); PROCESSORS_LEN_MAX],
                accept_wait_us_max: 1_000_000,
                seed: dice.number(),
            });
            let hello = Hello {
                protocol_version: PROTOCOL_VERSION,
                role: Role::Gateway,
                instance,
                thread: 0,
                processors: 0,
                incarnation: u64::from(instance),
            };
            coordinator.connect(hello).expect("a gateway of the same build is let in");
            dispatcher.connected(start);
            dispatcher
        });
        coordinator.messages().clear();
        Self {
            dispatchers,
            coordinator,
            up: VecDeque::new(),
            down: VecDeque::new(),
            turn: 0,
            spare: Vec::new(),
            rules: Rules::contest(),
            processors,
        }
    }

    /// Tells a dispatcher, and does what it says.
    fn tell(
        &mut self,
        gateway: usize,
        now_us: u64,
        orders: &mut Vec<Order>,
        tell: impl FnOnce(&mut Dispatcher, Now),
    ) {
        let dispatcher = &mut self.dispatchers[gateway];
        tell(dispatcher, now(now_us));
        let mut actions = std::mem::take(&mut self.spare);
        std::mem::swap(dispatcher.actions(), &mut actions);
        let mut given_up = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Send(message) => {
                    post(&mut self.up, (now_us + LINK_US, gateway, message), TIMER_UP, orders);
                }
                Action::Answer { ticket, answer } => orders.push(Order::Answer {
                    payment: ticket,
                    accepted: matches!(answer, Answer::Granted | Answer::Replayed),
                }),
                Action::Attempt { slot, processor, correlation_id, requested_at, .. } => {
                    orders.push(Order::Attempt {
                        token: (gateway as u64) << 32 | u64::from(slot),
                        payment: number_of(correlation_id),
                        processor,
                        requested_at_ms: requested_at.0,
                    });
                }
                Action::Verify { slot, processor, correlation_id, .. } => {
                    let token = (gateway as u64) << 32 | u64::from(slot);
                    let payment = number_of(correlation_id);
                    orders.push(Order::LookUp { token, payment, processor });
                }
                // Its connections never fail.
                Action::Renew { .. } => {}
                Action::GiveUp { slot, .. } => {
                    orders.push(Order::Abandon { token: (gateway as u64) << 32 | u64::from(slot) });
                    given_up.push(slot);
                }
                Action::CheckHealth { processor } => {
                    orders.push(Order::CheckHealth { token: gateway as u64, processor });
                }
            }
        }
        self.spare = actions;
        given_up.into_iter().for_each(|slot| self.end_given_up(gateway, now_us, orders, slot));
    }

    /// An attempt that was abandoned has ended without an answer.
    fn end_given_up(&mut self, gateway: usize, now_us: u64, orders: &mut Vec<Order>, slot: u32) {
        self.tell(gateway, now_us, orders, |dispatcher, now| {
            dispatcher.attempt_ended(slot, End::UNANSWERED, 0, now);
        });
    }

    fn tell_aggregator(&mut self, now_us: u64, orders: &mut Vec<Order>, event: Option<(usize, Message)>) {
        match event {
            Some((gateway, message)) => {
                let session = SessionId(u16::try_from(gateway).expect("few gateways"));
                let told = self.coordinator.handle(session, message, now(now_us));
                told.expect("a gateway of the same build is understood");
            }
            None => self.coordinator.tick(now(now_us)),
        }
        let (entries, messages) = self.coordinator.decided();
        entries.clear();
        for (session, message) in messages.drain(..) {
            let to = (now_us + LINK_US, usize::from(session.0), message);
            post(&mut self.down, to, TIMER_DOWN, orders);
        }
    }
}

/// Puts a message on its way, with one timer for all that arrive at one moment.
fn post(link: &mut VecDeque<OnItsWay>, message: OnItsWay, token: u64, orders: &mut Vec<Order>) {
    if link.back().is_none_or(|last| last.0 != message.0) {
        orders.push(Order::Timer { at_us: message.0, token });
    }
    link.push_back(message);
}

fn arrived(link: &mut VecDeque<OnItsWay>, now_us: u64) -> Option<(usize, Message)> {
    let (_, gateway, message) = link.pop_front_if(|(at_us, ..)| *at_us <= now_us)?;
    Some((gateway, message))
}

fn now(now_us: u64) -> Now {
    Now { monotonic_us: BOOTED_BEFORE_US + now_us, unix_ms: UnixMillis(unix_ms(now_us)) }
}

/// The inverse of [`id_of`]: the ids are the multiples of an odd number, which has an inverse modulo 2^128.
fn number_of(id: CorrelationId) -> u32 {
    const INVERSE: u128 = inverse(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    let number = u128::from_be_bytes(id.0).wrapping_mul(INVERSE) - 1;
    u32::try_from(number).expect("an id of this laboratory")
}

/// Newton's iteration doubles the correct bits, from three.
const fn inverse(odd: u128) -> u128 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 6 {
        inverse = inverse.wrapping_mul(2_u128.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

impl Policy for Galo {
    fn start(&mut self, orders: &mut Vec<Order>) {
        orders.push(Order::Timer { at_us: AGGREGATOR_TICK_US, token: TIMER_AGGREGATOR });
        for gateway in 0..GATEWAY_COUNT {
            self.tell(gateway, 0, orders, |_, _| {});
            // Not in step: they are two processes.
            let at_us = TICK_IDLE_US + 1_700 * gateway as u64;
            orders.push(Order::Timer { at_us, token: gateway as u64 });
        }
    }

    fn handle(&mut self, event: Event, now_us: u64, orders: &mut Vec<Order>) {
        match event {
            Event::Arrived { payment } => {
                let gateway = self.turn;
                self.turn = (self.turn + 1) % GATEWAY_COUNT;
                let id = CorrelationId(id_of(payment).into_bytes());
                let amount = AmountCents::new(AMOUNT_CENTS).expect("an amount");
                self.tell(gateway, now_us, orders, |dispatcher, now| {
                    dispatcher.accept(payment, id, amount, now);
                });
            }
            Event::Ended { token, status, latency_us } => {
                let gateway = usize::try_from(token >> 32).expect("few gateways");
                let slot = u32::try_from(token & u64::from(u32::MAX)).expect("masked");
                let end = if status == 0 { End::UNANSWERED } else { End::of_status(&self.rules, status) };
                self.tell(gateway, now_us, orders, |dispatcher, now| {
                    dispatcher.attempt_ended(slot, end, latency_us, now);
                });
            }
            Event::LookedUp { token, found } => {
                let gateway = usize::try_from(token >> 32).expect("few gateways");
                let slot = u32::try_from(token & u64::from(u32::MAX)).expect("masked");
                let amount = AmountCents::new(AMOUNT_CENTS).expect("an amount");
                let verification = found.map_or(Verification::NotFound, |requested_at_ms| {
                    Verification::processed(UnixMillis(requested_at_ms), amount)
                });
                self.tell(gateway, now_us, orders, |dispatcher, now| {
                    dispatcher.verified(slot, verification, now);
                });
            }
            Event::Checked { token, processor, health } => {
                let gateway = usize::try_from(token).expect("few gateways");
                self.tell(gateway, now_us, orders, |dispatcher, now| {
                    dispatcher.health_checked(processor, health, now);
                });
            }
            Event::Timer { token: TIMER_UP } => {
                while let Some(message) = arrived(&mut self.up, now_us) {
                    self.tell_aggregator(now_us, orders, Some(message));
                }
            }
            Event::Timer { token: TIMER_DOWN } => {
                while let Some((gateway, message)) = arrived(&mut self.down, now_us) {
                    self.tell(gateway, now_us, orders, |dispatcher, now| dispatcher.handle(message, now));
                }
            }
            Event::Timer { token: TIMER_AGGREGATOR } => {
                self.tell_aggregator(now_us, orders, None);
                orders.push(Order::Timer { at_us: now_us + AGGREGATOR_TICK_US, token: TIMER_AGGREGATOR });
            }
            Event::Timer { token } => {
                let gateway = usize::try_from(token).expect("few gateways");
                self.tell(gateway, now_us, orders, Dispatcher::tick);
                // A tick too many changes nothing.
                let at_us = now_us + self.dispatchers[gateway].tick_wait_us().unwrap_or(TICK_IDLE_US);
                orders.push(Order::Timer { at_us, token });
            }
        }
    }

    fn summarize(&mut self, from_ms: u64, to_ms: u64) -> Counts {
        let summary = self.coordinator.ledger().summarize(UnixMillis(from_ms), UnixMillis(to_ms));
        assert!(
            summary.resolution_ms <= 1 || from_ms < EPOCH_MS,
            "a run's minutes are exact to the millisecond"
        );
        summary.totals.map(|total| total.count)
    }

    fn waiting(&self) -> u64 {
        let open = self.coordinator.ledger().conservation().open.count;
        let in_flight: u64 = self
            .dispatchers
            .iter()
            .map(|dispatcher| {
                let counters = dispatcher.counters();
                counters.attempts.iter().sum::<u64>() - counters.verdicts.as_flattened().iter().sum::<u64>()
            })
            .sum();
        open.saturating_sub(in_flight)
    }

    fn figures(&mut self, now_us: u64) -> Figures {
        let mut limits = [0; PROCESSORS_LEN_MAX];
        let mut expected_ms = [0; PROCESSORS_LEN_MAX];
        for dispatcher in &mut self.dispatchers {
            let gauges = dispatcher.gauges(now(now_us));
            for index in self.processors.iter().map(Processor::index) {
                limits[index] += u64::from(gauges.limit[index]);
                expected_ms[index] = expected_ms[index].max(gauges.expected_us[index] / 1_000);
            }
        }
        let mut figures = Figures::new();
        for (names, values) in [(LIMITS, limits), (EXPECTATIONS_MS, expected_ms)] {
            figures.extend(self.processors.iter().map(|it| (names[it.index()], values[it.index()])));
        }
        for reason in Reason::ALL {
            let count = self
                .dispatchers
                .iter()
                .map(|dispatcher| dispatcher.counters().decisions[reason as usize])
                .sum();
            figures.push((reason.name(), count));
        }
        figures
    }
}
