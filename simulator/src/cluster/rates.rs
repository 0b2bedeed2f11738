//! How many requests a second leave for a processor that may be sent so many.
//!
//! Attempts and look-ups count, of all gateways together. An attempt counts from the moment at which its gateway planned it: a ledger that is slow, or comes
//! back, lets many go at once, for each of which there was a token in its time. What was planned and not sent gives its token back, perhaps within
//! another second, and a thread that starts has one.

use std::collections::BTreeMap;

use galo_engine::rate::RateLimit;
use galo_engine::{PROCESSORS_LEN_MAX, Processor};
use galo_wire::Message;

use super::invariant::Invariant;
use super::plan::Plan;
use super::world::World;

const SECOND_US: u64 = 1_000_000;

/// How long a plan that came to nothing may keep its token, µs.
const PLANNED_US_MAX: u64 = 5 * SECOND_US;

/// When tokens were taken, by [`Processor::index`], µs.
#[derive(Default)]
pub struct Meter {
    sent_us: [Vec<u64>; PROCESSORS_LEN_MAX],
    unsent_us: [Vec<u64>; PROCESSORS_LEN_MAX],
    /// Attempts that wait for the ledger's word, by thread, its life and slot.
    planned: BTreeMap<(usize, u32, u32), (Processor, u64)>,
    /// When threads started, µs.
    started_us: Vec<u64>,
}

impl Meter {
    /// A thread starts.
    pub fn started(&mut self, now_us: u64) {
        self.started_us.push(now_us);
    }

    /// A thread plans no attempt of what is in this slot, or another one.
    fn plan(&mut self, key: (usize, u32, u32), planned: Option<(Processor, u64)>) {
        let before = match planned {
            Some(planned) => self.planned.insert(key, planned),
            None => self.planned.remove(&key),
        };
        if let Some((processor, at_us)) = before {
            self.unsent_us[processor.index()].push(at_us);
        }
    }

    /// A request leaves.
    fn sent(&mut self, processor: Processor, planned: Option<(usize, u32, u32)>, now_us: u64) {
        let at_us = planned.and_then(|key| self.planned.remove(&key)).map_or(now_us, |(_, at_us)| at_us);
        self.sent_us[processor.index()].push(at_us);
    }

    /// The most requests beyond what is allowed in a second, and when that began, µs.
    fn excess(&self, processor: Processor, allowed: u64) -> Option<(u64, u64)> {
        let [mut sent_us, mut unsent_us] =
            [&self.sent_us, &self.unsent_us].map(|it| it[processor.index()].clone());
        let left = self.planned.values().filter(|(at, _)| *at == processor);
        unsent_us.extend(left.map(|(_, at_us)| at_us));
        sent_us.sort_unstable();
        unsent_us.sort_unstable();
        let count = |times: &[u64], from_us: u64, to_us: u64| {
            let [from, to] =
                [from_us, to_us].map(|bound_us| times.partition_point(|at_us| *at_us < bound_us));
            (to - from) as u64
        };
        let beyond = sent_us.iter().map(|from_us| {
            let to_us = from_us + SECOND_US;
            let more = count(&unsent_us, from_us.saturating_sub(PLANNED_US_MAX), to_us)
                + count(&self.started_us, *from_us, to_us);
            (count(&sent_us, *from_us, to_us).saturating_sub(allowed + more), *from_us)
        });
        beyond.max().filter(|(excess, _)| *excess > 0)
    }
}

impl Plan {
    /// What each gateway may send a processor.
    pub fn rate(&self, processor: Processor) -> Option<RateLimit> {
        let shares = u32::try_from(self.thread_count).expect("few threads");
        self.rates[processor.index()].map(|per_second| RateLimit { per_second, shares })
    }
}

impl World {
    /// A thread says something to the ledger, which may be of an attempt that it plans.
    pub(super) fn meter_plan(&mut self, number: usize, message: &Message) {
        let (slot, processor) = match message {
            Message::Accept(accept) => (accept.slot, accept.stage.processor()),
            Message::Intent(intent) => (intent.slot, Some(intent.processor)),
            // Nothing is planned any more.
            Message::Claim(claim) => (claim.slot, None),
            _ => return,
        };
        let key = (number, self.gateways[number].life, slot);
        let now_us = self.now_us;
        self.meter.plan(key, processor.map(|processor| (processor, now_us)));
    }

    /// A request leaves for a processor; of an attempt, its slot.
    pub(super) fn meter_request(&mut self, number: usize, processor: Processor, slot: Option<u32>) {
        let life = self.gateways[number].life;
        self.meter.sent(processor, slot.map(|slot| (number, life, slot)), self.now_us);
    }

    /// No second had more requests than the gateways' rates and bursts together.
    pub(super) fn check_rates(&mut self) {
        for processor in self.plan.processors().iter() {
            let Some(limit) = self.plan.rate(processor) else { continue };
            let of_thread = u64::from(limit.per_second / limit.shares) + limit.burst();
            let allowed = of_thread * self.gateways.len() as u64;
            let excess = self.meter.excess(processor, allowed);
            self.oracle.check(Invariant::RateIsKept, excess.is_none(), || {
                format!("(too many, from µs) of {processor:?}: {excess:?}, beyond {allowed} in a second")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: (usize, u32, u32) = (0, 1, 7);

    fn meter(sent_us: &[u64]) -> Meter {
        let mut meter = Meter::default();
        sent_us.iter().for_each(|at_us| meter.sent(Processor::N0, None, *at_us));
        meter
    }

    #[test]
    fn any_second_counts_and_no_longer_time() {
        let meter = meter(&[900_000, 1_899_999, 1_000_000, 1_900_000, 5_000_000]);
        assert_eq!(meter.excess(Processor::N0, 3), None);
        assert_eq!(meter.excess(Processor::N0, 2).map(|(excess, _)| excess), Some(1));
        assert_eq!(meter.excess(Processor::N1, 0), None);
    }

    #[test]
    fn an_attempt_counts_from_its_plan_and_a_start_allows_one_more() {
        let mut meter = meter(&[2_000_000, 2_000_001]);
        meter.plan(PLAN, Some((Processor::N0, 0)));
        meter.sent(Processor::N0, Some(PLAN), 2_000_002);
        assert_eq!(meter.excess(Processor::N0, 2), None);
        assert!(meter.excess(Processor::N0, 1).is_some());
        meter.started(2_000_001);
        assert_eq!(meter.excess(Processor::N0, 1), None);
    }

    #[test]
    fn a_plan_that_came_to_nothing_allows_one_more() {
        for replaced_by in [None, Some((Processor::N1, 1_500_000))] {
            let mut meter = meter(&[2_000_000, 2_000_001]);
            meter.plan(PLAN, Some((Processor::N0, 1_000_000)));
            meter.plan(PLAN, replaced_by);
            assert_eq!(meter.excess(Processor::N0, 1), None);
            assert!(meter.excess(Processor::N0, 0).is_some());
        }
    }
}
