//! Policies as other entries of the contest plan them, for comparison: each in its fair best reading.
//!
//! What they share is here, and is as good as it can be: a POST is answered from memory at once; up to
//! [`IN_FLIGHT_MAX`] attempts are on their way (two instances of 200 workers); a payment that pauses between two tries
//! occupies no worker; every attempt gets a `requestedAt` of its own; the books are written the moment an answer comes;
//! both instances know at once what one of them saw. Where they differ is a [`Strategy`].
//!
//! The plans speak of two processors, a cheaper and a dearer one. With any other number the cheapest is what theirs calls default, and each
//! dearer one, in order of price, what it calls fallback for those before it. So a strategy speaks of ranks.
//!
//! Must never: be tuned to lose. Where a plan leaves a number open, the choice is written at the constant.

mod strategies;

use std::collections::{HashMap, VecDeque};

use galo_engine::{PROCESSORS_LEN_MAX, Processor};

use super::policy::{Event, Figures, Order, Policy};
use super::upstream::unix_ms;
use super::{Counts, Fees};
use crate::cluster::dice::Dice;

pub use strategies::{Breakers, DefaultOnly, FiveTries, HalfOpenTries, LatencyComparison, ShortTimeout};

/// Attempts on their way at once. Half of what one processor runs, as Galo's two gateways start: enough for 400 payments a
/// second at a delay of a second.
pub const IN_FLIGHT_MAX: usize = 400;

/// Between two health checks of a processor: its window and a margin.
const CHECK_INTERVAL_US: u64 = 5_050_000;

/// A processor's place in the order of price: 0 is the cheapest.
pub type Rank = usize;

/// What a strategy says to a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send it there; after that many µs without an answer, give the attempt up.
    Send(Rank, Option<u64>),
    /// Ask again in that many µs; others may go meanwhile.
    Later(u64),
    /// Nobody goes before that moment, or before something is heard.
    Hold(u64),
}

/// What a payment has been through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past {
    /// Tries that failed in a row, by rank; the strategy sets them back when it starts over.
    pub failures: [u32; PROCESSORS_LEN_MAX],
    /// Pauses since it last started over.
    pub pauses: u32,
}

/// Where a baseline decides.
pub trait Strategy {
    /// How many attempts may be on their way now.
    fn in_flight_max(&self) -> usize {
        IN_FLIGHT_MAX
    }

    /// How many payments may wait; beyond that a POST is refused.
    fn queue_len_max(&self) -> usize {
        usize::MAX
    }

    /// Whether it uses the processors' health checks.
    fn checks_health(&self) -> bool {
        false
    }

    /// What becomes of the payment at the head of the queue, with so many processors.
    fn route(&mut self, past: &mut Past, count: usize, now_us: u64, dice: &mut Dice) -> Step;

    /// An attempt ended, or was given up (`ok` is false then).
    fn ended(&mut self, rank: Rank, ok: bool, latency_us: u64, now_us: u64);

    /// A health check's answer.
    fn checked(&mut self, _rank: Rank, _failing: bool, _response_ms: u32) {}
}

/// What a timer is for: the upper bits of its token.
const TIMER_READY: u64 = 1 << 60;
const TIMER_TIMEOUT: u64 = 2 << 60;
const TIMER_WAKE: u64 = 3 << 60;
const TIMER_CHECK: u64 = 4 << 60;
const TIMER_KIND: u64 = 0xF << 60;

#[derive(Clone, Copy)]
struct Try {
    payment: u32,
    rank: Rank,
    requested_at_ms: u64,
    sent_us: u64,
}

/// What all baselines share.
pub struct Baseline<S> {
    strategy: S,
    /// By rank.
    order: Vec<Processor>,
    dice: Dice,
    ready: VecDeque<u32>,
    pausing: usize,
    pasts: HashMap<u32, Past>,
    tries: HashMap<u64, Try>,
    token_next: u64,
    wake_us: u64,
    /// `requestedAt` of what was processed, by processor.
    books: [Vec<u64>; PROCESSORS_LEN_MAX],
    given_up: u64,
}

impl<S: Strategy> Baseline<S> {
    /// With nothing to do.
    pub fn new(strategy: S, fees: Fees, dice: &mut Dice) -> Self {
        Self {
            strategy,
            order: fees.order(),
            dice: Dice::new(dice.number()),
            ready: VecDeque::new(),
            pausing: 0,
            pasts: HashMap::new(),
            tries: HashMap::new(),
            token_next: 0,
            wake_us: 0,
            books: Default::default(),
            given_up: 0,
        }
    }

    fn pump(&mut self, now_us: u64, orders: &mut Vec<Order>) {
        while self.tries.len() < self.strategy.in_flight_max()
            && let Some(payment) = self.ready.front().copied()
        {
            let past = self.pasts.entry(payment).or_default();
            match self.strategy.route(past, self.order.len(), now_us, &mut self.dice) {
                Step::Send(rank, timeout_us) => {
                    self.ready.pop_front();
                    let token = self.token_next;
                    self.token_next += 1;
                    let requested_at_ms = unix_ms(now_us);
                    let sent_us = now_us;
                    self.tries.insert(token, Try { payment, rank, requested_at_ms, sent_us });
                    let processor = self.order[rank];
                    orders.push(Order::Attempt { token, payment, processor, requested_at_ms });
                    if let Some(timeout_us) = timeout_us {
                        let token = TIMER_TIMEOUT | token;
                        orders.push(Order::Timer { at_us: now_us + timeout_us, token });
                    }
                }
                Step::Later(delay_us) => {
                    self.ready.pop_front();
                    self.pausing += 1;
                    past.pauses += 1;
                    let token = TIMER_READY | u64::from(payment);
                    orders.push(Order::Timer { at_us: now_us + delay_us.max(1), token });
                }
                Step::Hold(until_us) => {
                    if until_us > now_us && self.wake_us != until_us {
                        self.wake_us = until_us;
                        orders.push(Order::Timer { at_us: until_us, token: TIMER_WAKE });
                    }
                    break;
                }
            }
        }
    }

    fn ended(&mut self, token: u64, ok: bool, latency_us: u64, now_us: u64) {
        let Some(Try { payment, rank, requested_at_ms, .. }) = self.tries.remove(&token) else { return };
        self.strategy.ended(rank, ok, latency_us, now_us);
        if ok {
            self.books[self.order[rank].index()].push(requested_at_ms);
            self.pasts.remove(&payment);
        } else {
            self.pasts.entry(payment).or_default().failures[rank] += 1;
            // Its turn is not over: the oldest goes first.
            self.ready.push_front(payment);
        }
    }
}

impl<S: Strategy> Policy for Baseline<S> {
    fn start(&mut self, orders: &mut Vec<Order>) {
        if self.strategy.checks_health() {
            orders.push(Order::Timer { at_us: 0, token: TIMER_CHECK });
        }
    }

    fn handle(&mut self, event: Event, now_us: u64, orders: &mut Vec<Order>) {
        match event {
            Event::Arrived { payment } => {
                let accepted = self.ready.len() + self.pausing < self.strategy.queue_len_max();
                orders.push(Order::Answer { payment, accepted });
                if accepted {
                    self.ready.push_back(payment);
                }
            }
            Event::Ended { token, status, latency_us } => {
                self.ended(token, matches!(status, 200 | 422), latency_us, now_us);
            }
            // No baseline asks.
            Event::LookedUp { .. } => {}
            Event::Checked { processor, health, .. } => {
                if let Some((failing, response_ms)) = health {
                    let rank = self.order.iter().position(|it| *it == processor);
                    let rank = rank.expect("only those that there are were asked");
                    self.strategy.checked(rank, failing, response_ms);
                }
            }
            Event::Timer { token } => {
                let number = token & !TIMER_KIND;
                match token & TIMER_KIND {
                    TIMER_READY => {
                        self.pausing -= 1;
                        self.ready.push_back(u32::try_from(number).expect("a payment"));
                    }
                    TIMER_TIMEOUT => {
                        if let Some(Try { sent_us, .. }) = self.tries.get(&number).copied() {
                            orders.push(Order::Abandon { token: number });
                            self.given_up += 1;
                            self.ended(number, false, now_us - sent_us, now_us);
                        }
                    }
                    TIMER_CHECK => {
                        for processor in self.order.iter().copied() {
                            orders.push(Order::CheckHealth { token: 0, processor });
                        }
                        orders.push(Order::Timer { at_us: now_us + CHECK_INTERVAL_US, token: TIMER_CHECK });
                    }
                    _ => {}
                }
            }
        }
        self.pump(now_us, orders);
    }

    fn summarize(&mut self, from_ms: u64, to_ms: u64) -> Counts {
        let count = |book: &Vec<u64>| book.iter().filter(|ms| (from_ms..=to_ms).contains(*ms)).count() as u64;
        self.books.each_ref().map(count)
    }

    fn waiting(&self) -> u64 {
        (self.ready.len() + self.pausing) as u64
    }

    fn figures(&mut self, _now_us: u64) -> Figures {
        vec![("pausing", self.pausing as u64), ("given up", self.given_up)]
    }
}
