//! How a dispatcher asks the router: what it knows goes in, a place at a processor comes out.
//!
//! Must never: decide by itself. What a payment's situation is, is gathered here; what follows from it is the router's.

use galo_wire::record::{HealthReport, HealthSource};
use galo_wire::{PROCESSORS_LEN_MAX, Processor};

use super::Dispatcher;
use super::payment::{Payment, Place, State};
use crate::money::AmountCents;
use crate::outlook::{Backlog, Change};
use crate::pace;
use crate::rate::Use;
use crate::router::{Choice, Decision, ProcessorSet, Reason, Situation, View, route};
use crate::time::Now;

/// What a decision is asked about one payment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    amount: AmountCents,
    arrived_us: u64,
    probed: bool,
    pub(super) allowed: ProcessorSet,
    /// What becomes of it says something about its processor.
    is_evidence: bool,
    may_probe: bool,
    /// It stands at the queue's head, or would if it were told to wait.
    is_head: bool,
}

/// Since when there has been a choice: of each processor, another one that works. Its kind of work may pass from one to the next, without a gap.
#[derive(Default)]
pub(super) struct Choices {
    since_us: [u64; PROCESSORS_LEN_MAX],
    /// When this was looked at last.
    looked_us: u64,
}

impl Choices {
    /// Tells each view for how long others have worked.
    fn look(&mut self, processors: ProcessorSet, views: &mut [View; PROCESSORS_LEN_MAX], now_us: u64) {
        // Who has worked for longest, and how long; how long the longest of the others has.
        let (mut first, mut first_us, mut second_us) = (None, 0, 0);
        for processor in processors.iter() {
            let worked_us = views[processor.index()].worked_us;
            if worked_us > first_us {
                (first, first_us, second_us) = (Some(processor), worked_us, first_us);
            } else {
                second_us = second_us.max(worked_us);
            }
        }
        for processor in processors.iter() {
            let others_us = if first == Some(processor) { second_us } else { first_us };
            let from_us = now_us.saturating_sub(others_us);
            let since_us = &mut self.since_us[processor.index()];
            // It worked when this was looked at last: there was no gap since.
            let goes_on = others_us > 0 && from_us <= self.looked_us;
            *since_us = if goes_on { from_us.min(*since_us) } else { from_us };
            views[processor.index()].others_worked_us = now_us - *since_us;
        }
        self.looked_us = now_us;
    }
}

impl Dispatcher {
    /// Routes a new payment before it is granted, and says why.
    ///
    /// Behind a queue it waits its turn, and for what the queue's head waits for, if that is told to wait.
    pub(super) fn plan(&mut self, amount: AmountCents, now: Now) -> (Option<Place>, Reason) {
        let present = (self.connected || self.grants_by_itself()) && !self.draining;
        if present && self.waiting.is_empty() {
            let allowed = self.config.router.processors;
            let arrived_us = now.monotonic_us;
            let asked = Question {
                amount,
                arrived_us,
                probed: false,
                allowed,
                is_evidence: true,
                may_probe: true,
                is_head: true,
            };
            return self.decide(asked, now);
        }
        let reason = self.last_wait.filter(|_| present).map_or(Reason::Queued, |(_, reason)| reason);
        (None, reason)
    }

    /// The question about a payment that is held.
    pub(super) fn question(&mut self, payment: &Payment, now: Now) -> Question {
        let Payment { slot, amount, arrived_us, probed, .. } = *payment;
        let (is_evidence, may_probe) = (!self.troubles.is_suspect(slot), self.may_probe(slot));
        let (allowed, is_head) = (self.allowed(slot, now), payment.state == State::Waiting);
        Question { amount, arrived_us, probed, allowed, is_evidence, may_probe, is_head }
    }

    /// Whether a payment may find out if a processor works. What becomes of a suspect one says nothing, so others do, if there are any; else it is
    /// better than nobody, and its pauses keep it from being that for ever.
    pub(super) fn may_probe(&self, slot: u32) -> bool {
        self.waiting.is_empty() || !self.troubles.is_suspect(slot)
    }

    /// Routes one payment and reserves its place.
    pub(super) fn decide(&mut self, asked: Question, now: Now) -> (Option<Place>, Reason) {
        let situation = self.situation(asked, now);
        let Decision { choice, reason } = self.find_proof(asked, &situation).unwrap_or_else(|| {
            let decision = route(&self.config.router, &situation);
            let is_passed_over = asked.allowed != self.config.router.processors;
            match decision {
                Decision { choice: Choice::Send(_), reason: Reason::Cheaper } if is_passed_over => {
                    Decision { reason: Reason::Elsewhere, ..decision }
                }
                decision => decision,
            }
        });
        // The same wait of the queue's head, looked at again, is one decision. One that left the queue waits for what it did there.
        let wait = (choice == Choice::Wait).then_some((asked.arrived_us, reason));
        let is_new = wait.is_none() || (asked.is_head && wait != self.last_wait);
        self.counters.decisions[reason as usize] += u64::from(is_new);
        if asked.is_head {
            self.last_wait = wait;
        }
        self.note_rates(asked, &situation, choice, is_new, now);
        let Choice::Send(processor) = choice else { return (None, reason) };
        match self.outlooks[processor.index()].try_reserve(Use::Payment, now) {
            Some(reservation) => (Some(Place { processor, reservation }), reason),
            // A slow processor whose places are all taken.
            None => (None, Reason::AwaitsCapacity),
        }
    }

    /// Notes which processors a payment waits for, or is sent past, because of their rates alone.
    fn note_rates(&mut self, asked: Question, situation: &Situation, choice: Choice, is_new: bool, now: Now) {
        self.rate_due_us = u64::MAX;
        let costs = &self.config.router.costs;
        let cost_of = |it: Processor| costs[it.index()].of(asked.amount.get());
        let is_cheaper = |it: Processor| match choice {
            Choice::Send(sent) => cost_of(it) < cost_of(sent),
            Choice::Wait => true,
        };
        for processor in asked.allowed.iter().filter(|it| is_cheaper(*it)) {
            let view = &situation.views[processor.index()];
            let outlook = &mut self.outlooks[processor.index()];
            if view.closed && !view.has_capacity && outlook.want_token(now) {
                self.counters.rate_held[processor.index()] += u64::from(is_new);
                self.rate_due_us = self.rate_due_us.min(outlook.next_token_us());
            }
        }
    }

    /// Where an ordinary payment is to show that a processor takes any.
    fn find_proof(&mut self, asked: Question, situation: &Situation) -> Option<Decision> {
        let awaited = self.proofs.awaited();
        if awaited.is_empty() || !asked.is_evidence {
            return None;
        }
        let processor = awaited.and(asked.allowed).iter().find(|processor| {
            let view = &situation.views[processor.index()];
            view.probe_ready || (view.closed && !view.silent && view.has_capacity)
        })?;
        self.proofs.sent(processor);
        Some(Decision { choice: Choice::Send(processor), reason: Reason::Proof })
    }

    fn situation(&mut self, asked: Question, now: Now) -> Situation {
        let per_second = pace::per_second(self.arrivals.per_second());
        let backlog = Backlog { len: self.waiting.len(), per_second };
        let mut views = [View::NONE; PROCESSORS_LEN_MAX];
        for processor in self.config.router.processors.iter() {
            let change = self.outlooks[processor.index()].pace_change(now);
            self.tell(processor, change, now);
            views[processor.index()] = self.outlooks[processor.index()].view(now, backlog);
            self.renew_where_silent(processor);
        }
        self.choices.look(self.config.router.processors, &mut views, now.monotonic_us);
        Situation {
            views,
            allowed: asked.allowed,
            amount_cents: asked.amount.get(),
            waited_us: now.monotonic_us.saturating_sub(asked.arrived_us),
            quiet: self.config.router.thresholds.has_quiet && self.arrivals.is_quiet(now.monotonic_us),
            probed: asked.probed,
            may_probe: asked.may_probe,
        }
    }

    /// Passes on what was seen of a processor.
    pub(super) fn tell(&mut self, processor: Processor, change: Option<Change>, now: Now) {
        let Some(change) = change else { return };
        let outlook = &mut self.outlooks[processor.index()];
        let (response_us, rests_us) = (outlook.expected_us(now), outlook.rests_us(now));
        self.report(HealthReport {
            processor,
            source: HealthSource::Traffic,
            failing: change == Change::Failed,
            response_ms: u32::try_from(response_us / 1000).unwrap_or(u32::MAX),
            retry_after_ms: u32::try_from(rests_us / 1000).unwrap_or(u32::MAX),
        });
        if change == Change::Recovered {
            for (index, other) in self.outlooks.iter_mut().enumerate() {
                if index != processor.index() {
                    other.look_again(now);
                }
            }
            self.hasten_deferred(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_lasts_while_one_works_after_the_other() {
        let mut choices = Choices::default();
        let all: ProcessorSet = [Processor::N0, Processor::N1, Processor::N2].into_iter().collect();
        let mut look = |now_us, worked_us: [u64; 3]| {
            let mut views = [View::NONE; PROCESSORS_LEN_MAX];
            for (view, worked_us) in views.iter_mut().zip(worked_us) {
                view.worked_us = worked_us;
            }
            choices.look(all, &mut views, now_us);
            [0, 1, 2].map(|index: usize| views[index].others_worked_us)
        };
        assert_eq!(look(100, [100, 100, 100]), [100, 100, 100], "all since the start");
        assert_eq!(look(150, [0, 150, 150]), [150, 150, 150]);
        assert_eq!(look(200, [0, 0, 200]), [200, 200, 0]);
        assert_eq!(look(250, [0, 40, 250]), [250, 250, 40]);
        assert_eq!(look(260, [0, 50, 0]), [260, 0, 50], "of the second no other one works");
        assert_eq!(look(300, [0, 90, 10]), [300, 10, 90], "the third came back at 290");
        assert_eq!(look(310, [0, 0, 0]), [0, 0, 0], "a gap");
        assert_eq!(look(320, [0, 5, 0]), [5, 0, 5]);
        assert_eq!(look(400, [0, 0, 30]), [30, 30, 0], "from 320 to 370 nobody may have worked");
    }
}
