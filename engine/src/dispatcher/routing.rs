//! How a dispatcher asks the router: what it knows goes in, a place at a processor comes out.
//!
//! Must never: decide by itself. What a payment's situation is, is gathered here; what follows from it is the router's.

use galo_wire::Processor;
use galo_wire::record::{HealthReport, HealthSource};

use super::Dispatcher;
use super::payment::Place;
use crate::outlook::{Backlog, Change};
use crate::pace;
use crate::router::{Choice, Decision, Reason, Situation, route};
use crate::time::Now;

impl Dispatcher {
    /// Routes a new payment before it is granted, and says why.
    ///
    /// Behind a queue it waits its turn, and for what the queue's head waits for, if that is told to wait.
    pub(super) fn plan(&mut self, now: Now) -> (Option<Place>, Reason) {
        let present = self.connected && !self.draining;
        if present && self.waiting.is_empty() {
            return self.decide(now.monotonic_us, false, now);
        }
        let reason = self.last_wait.filter(|_| present).map_or(Reason::Queued, |(_, reason)| reason);
        (None, reason)
    }

    /// Routes one payment and reserves its place.
    pub(super) fn decide(&mut self, arrived_us: u64, probed: bool, now: Now) -> (Option<Place>, Reason) {
        let situation = self.situation(arrived_us, probed, now);
        let Decision { choice, reason } = route(&self.config.router, &situation);
        // The same wait of the same payment, looked at again, is one decision.
        let wait = (choice == Choice::Wait).then_some((arrived_us, reason));
        if wait.is_none() || wait != self.last_wait {
            self.counters.decisions[reason as usize] += 1;
            self.last_wait = wait;
        }
        let Choice::Send(processor) = choice else { return (None, reason) };
        match self.outlooks[processor.index()].try_reserve(now) {
            Some(reservation) => (Some(Place { processor, reservation }), reason),
            // A slow processor whose places are all taken.
            None => (None, Reason::AwaitsCapacity),
        }
    }

    pub(super) fn situation(&mut self, arrived_us: u64, probed: bool, now: Now) -> Situation {
        for processor in Processor::ALL {
            let change = self.outlooks[processor.index()].pace_change(now);
            self.tell(processor, change, now);
        }
        let per_second = pace::per_second(self.arrivals.per_second());
        let backlog = Backlog { len: self.waiting.len(), per_second };
        let [default, fallback] = &mut self.outlooks;
        let since = [default.works_since_us(now), fallback.works_since_us(now)];
        let dearer = self.config.router.cheaper().other();
        let choice_since_us = arrived_us.max(since[dearer.index()]);
        Situation {
            views: [default.view(now, backlog, since[1]), fallback.view(now, backlog, since[0])],
            waited_us: now.monotonic_us.saturating_sub(arrived_us),
            waited_by_choice_us: now.monotonic_us.saturating_sub(choice_since_us),
            quiet: self.arrivals.is_quiet(now.monotonic_us),
            probed,
        }
    }

    /// Passes on what was seen of a processor.
    pub(super) fn tell(&mut self, processor: Processor, change: Option<Change>, now: Now) {
        let Some(change) = change else { return };
        let response_us = self.outlooks[processor.index()].expected_us(now);
        self.report(HealthReport {
            processor,
            source: HealthSource::Traffic,
            failing: change == Change::Failed,
            response_ms: u32::try_from(response_us / 1000).unwrap_or(u32::MAX),
        });
        if change == Change::Recovered {
            self.outlooks[processor.other().index()].look_again(now);
        }
    }
}
