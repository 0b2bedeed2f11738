//! Notifications: a processor that decides later says to some gateway that it has, or says something else.
//!
//! The gateway passes the word to the ledger and the ledger to the payment's owner, as `gateway/src/core.rs` does. Words get lost, come early, late or
//! twice, before the payment is stored, and about payments that nobody knows; a gateway that is down or without the ledger hears none.
//! None changes what is true: all other checks go on. What is checked here is that the payment is looked up soon after its owner has heard.

use std::collections::BTreeMap;

use galo_engine::ledger::Known;
use galo_engine::{CorrelationId, Outcome, Processor};
use galo_wire::record::{Completion, Notice, Notified};
use uuid::Uuid;

use super::bug::Bug;
use super::invariant::Invariant;
use super::world::{Event, World};

/// After a word, the look-up comes with the next search, 100 ms after the one before at most, or with the tick behind that, µs.
const HEEDED_US: u64 = 100_000 + 2 * 25_000 + 5_000;

/// Where the budget for look-ups is spent, each of those that were due before takes so long, µs.
const LOOK_UP_US: u64 = 50_000;

/// Results of which a gateway knows that they come later, by id: whose, and until when the next look-up is to be made, if the processor notified, µs.
#[derive(Default)]
pub struct Awaited(BTreeMap<CorrelationId, (Processor, Option<u64>)>);

impl Awaited {
    /// The processor says that it decides later.
    pub fn insert(&mut self, id: CorrelationId, processor: Processor) {
        self.0.insert(id, (processor, None));
    }

    /// The payment is asked about, or is another's by now. Until when that was to be.
    pub fn remove(&mut self, id: CorrelationId) -> Option<u64> {
        self.0.remove(&id)?.1
    }

    /// None is here any more, or is to be.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The gateway, or for sure the ledger, has heard the word.
    fn hear(&mut self, id: CorrelationId, processor: Processor, due_us: u64) {
        if let Some((at, until_us)) = self.0.get_mut(&id)
            && *at == processor
        {
            *until_us = Some(until_us.map_or(due_us, |before| before.min(due_us)));
        }
    }
}

impl World {
    /// A processor will decide about a payment, and perhaps say so.
    pub(super) fn plan_notification(&mut self, processor: Processor, id: Uuid, due_us: u64) {
        if !self.plan.notifies {
            return;
        }
        let id = CorrelationId(id.into_bytes());
        let left_us = due_us.saturating_sub(self.now_us);
        for _ in 0..if self.extra.one_in(4) { 2 } else { 1 } {
            let delay_us = match self.extra.index(8) {
                0 => {
                    self.coverage.notices_lost += 1;
                    continue;
                }
                // Nothing is decided yet.
                1 => self.extra.between(0, left_us),
                2 => left_us + self.extra.skewed(5_000_000),
                _ => left_us + self.extra.skewed(20_000),
            };
            self.after(delay_us, Event::Notify(processor, id));
        }
    }

    /// An attempt arrives. Now and then its processor says at once that something has happened: to this payment, another, or one that nobody knows.
    pub(super) fn maybe_notify(&mut self, processor: Processor, id: Uuid) {
        if !self.plan.notifies || !self.extra.one_in(10) {
            return;
        }
        let id = match self.extra.index(4) {
            0 | 1 => CorrelationId(id.into_bytes()),
            2 => self.oracle.id(self.extra.index(self.oracle.len())),
            _ => {
                let mut bytes = [0xFF; 16];
                bytes[8..].copy_from_slice(&self.extra.number().to_be_bytes());
                CorrelationId(bytes)
            }
        };
        let delay_us = self.extra.skewed(50_000);
        self.after(delay_us, Event::Notify(processor, id));
    }

    /// A processor notifies some gateway.
    pub(super) fn notify(&mut self, processor: Processor, id: CorrelationId) {
        let number = self.extra.index(self.gateways.len());
        if self.gateways[number].dispatcher.is_none() || !self.is_greeted(number) {
            self.coverage.notices_lost += 1;
            return;
        }
        self.coverage.notices += 1;
        if self.plan.calm {
            // Nothing breaks: the owner hears of it.
            let plan = &self.plan;
            let way_us = plan.link_delay_us + plan.write_delay_us + plan.flush_delay_us + plan.wire_delay_us;
            self.heard_by_now(processor, id, 12 * way_us + HEEDED_US, |_| true);
        }
        self.send(number, Notice { correlation_id: id, processor });
        self.plan_tick(number);
    }

    /// A gateway is told by the ledger. Whether it hands it to its dispatcher.
    pub(super) fn notified(&mut self, number: usize, notified: Notified) -> bool {
        let Notified { correlation_id, processor } = notified;
        self.heard_by_now(processor, correlation_id, HEEDED_US, |gateway| gateway == number);
        if self.has(Bug::NotificationBelieved) {
            self.believe(number, notified);
        }
        !self.has(Bug::NotificationDropped)
    }

    /// The look-up of what has a result that these gateways wait for comes within this time, unless its processor's rate is in the way.
    fn heard_by_now(
        &mut self,
        processor: Processor,
        id: CorrelationId,
        within_us: u64,
        of: impl Fn(usize) -> bool,
    ) {
        if self.plan.rates[processor.index()].is_some() {
            return;
        }
        for number in 0..self.gateways.len() {
            let gateway = &mut self.gateways[number];
            let now = gateway.clock.now(self.now_us);
            let Some(dispatcher) = gateway.dispatcher.as_mut().filter(|_| of(number) && !gateway.draining)
            else {
                continue;
            };
            let before_len = dispatcher.gauges(now).doubtful[processor.index()] as u64;
            let due_us = self.now_us + within_us + LOOK_UP_US * (before_len + 1);
            gateway.awaited.hear(id, processor, due_us);
        }
    }

    /// A payment is looked up.
    pub(super) fn check_heeded(&mut self, number: usize, id: CorrelationId) {
        let Some(until_us) = self.gateways[number].awaited.remove(id) else { return };
        let now_us = self.now_us;
        self.oracle.check(Invariant::NotificationIsHeeded, now_us <= until_us, || {
            format!("gateway {number} was to look up {id} until {until_us} µs, after a notification")
        });
    }

    /// A planted bug.
    fn believe(&mut self, number: usize, Notified { correlation_id, processor }: Notified) {
        let Some(coordinator) = &self.aggregator.coordinator else { return };
        let Known::Open(payment) = coordinator.ledger().lookup(correlation_id) else { return };
        let requested_at_ms = payment.requested_at_ms;
        let (sequence, outcome, status) = (0, Outcome::Processed, 200);
        let completion = Completion { sequence, correlation_id, requested_at_ms, processor, outcome, status };
        self.send(number, completion);
    }
}
