//! What breaks, when, and how it is repaired.

use galo_engine::Processor;
use galo_wire::record::PurgeQuery;

use super::world::{Event, World};
use crate::processor::Faults;

impl World {
    /// After any step, anything may be killed.
    pub(super) fn maybe_kill(&mut self) {
        if self.dice.between(1, 1_000_000) > self.plan.kill_per_million {
            return;
        }
        let victim = self.any_victim();
        self.kill(victim);
        // Sometimes several at once.
        while self.dice.one_in(4) {
            let victim = self.any_victim();
            self.kill(victim);
        }
    }

    /// A gateway has just connected.
    pub(super) fn maybe_spite(&mut self) {
        if self.troubled && self.dice.chance(self.plan.spite) {
            let victim = self.any_victim();
            let delay_us = self.dice.skewed(4 * self.plan.link_delay_us);
            self.after(delay_us, Event::Kill(victim));
        }
    }

    pub(super) fn kill(&mut self, victim: usize) {
        if victim < self.plan.gateway_count {
            self.coverage.gateway_kills += 1;
            let lossy = self.dice.one_in(2);
            self.kill_process(victim, lossy);
        } else {
            self.coverage.aggregator_kills += 1;
            self.kill_aggregator();
        }
    }

    pub(super) fn fault(&mut self) {
        if !self.troubled {
            return;
        }
        let gap_us = self.dice.skewed(self.plan.fault_gap_us);
        self.after(1_000 + gap_us, Event::Fault);
        match self.dice.index(13) {
            0 | 1 => {
                let process = self.any_process();
                self.kill(process);
            }
            2 => self.kill(self.plan.gateway_count),
            3 => (0..=self.plan.gateway_count).for_each(|victim| self.kill(victim)),
            4 | 5 => self.cut(),
            6 => {
                let process = self.any_process();
                self.stop_process(process);
            }
            7 if self.plan.clock_steps => self.step_clock(),
            8 if self.plan.purges && self.coverage.purges < 2 => self.purge(),
            9 if self.plan.power_loss.is_some() => self.lose_power(),
            10 if self.plan.moves => self.move_processor(),
            11 if self.plan.freezes => self.freeze(),
            _ if self.plan.bad_processors => self.change_processor(),
            _ => {}
        }
    }

    /// A connection breaks; each side learns of it in its own time.
    fn cut(&mut self) {
        use super::link::Side;
        let gateway = self.any_thread();
        let Some(connection) = self.gateways[gateway].connection() else { return };
        self.coverage.cuts += 1;
        self.trace(|| format!("the connection of gateway {gateway} is cut"));
        self.end(connection, Side::Gateway, true);
        self.end(connection, Side::Aggregator, true);
    }

    fn step_clock(&mut self) {
        let victim = self.any_victim();
        self.trace(|| format!("the clock of process {victim} is set"));
        if victim == self.plan.gateway_count {
            self.aggregator.clock.step(&mut self.dice);
            return;
        }
        let threads = self.threads_of(victim);
        let mut clock = self.gateways[threads.start].clock;
        clock.step(&mut self.dice);
        threads.for_each(|thread| self.gateways[thread].clock = clock);
    }

    fn purge(&mut self) {
        let gateway = self.any_thread();
        if self.is_greeted(gateway) {
            self.send(gateway, PurgeQuery { slot: 1 });
        }
    }

    fn change_processor(&mut self) {
        let processor = self.any_processor();
        let now_us = self.now_us;
        let delay_ms = self.dice.pick(&[0, 0, 1, 50, 500, 5_000]);
        let failing = self.dice.one_in(4);
        let down = self.dice.one_in(6);
        let limited_us =
            if self.plan.limits { self.dice.pick(&[0, 0, 300_000, 1_000_000, 3_000_000]) } else { 0 };
        let declines = self.plan.decliners && self.dice.one_in(4);
        let mut rate = |list: &[f64]| self.dice.pick(list);
        let faults = Faults {
            close_before_insert: rate(&[0.0, 0.0, 0.1, 0.5]),
            close_after_insert: rate(&[0.0, 0.0, 0.1, 0.9]),
            hang_before_insert: rate(&[0.0, 0.0, 0.0, 0.05]),
            hang_after_insert: rate(&[0.0, 0.0, 0.0, 0.05]),
            garbage: rate(&[0.0, 0.0, 0.05]),
            random500: rate(&[0.0, 0.0, 0.1, 0.5]),
            random429: rate(&[0.0, 0.0, 0.1, 0.5]),
            hang_ms: if self.dice.one_in(2) { self.plan.attempt_timeout_us / 700 } else { 100 },
            seed: None,
        };
        self.trace(|| {
            format!("{processor:?} changes: delay {delay_ms} ms, failing {failing}, down {down}, limited for {limited_us} µs, declines {declines}, {faults:?}")
        });
        let upstream = &mut self.upstreams[processor.index()];
        upstream.down = down;
        upstream.limited_until_us = now_us + limited_us;
        upstream.declines = declines;
        upstream.hang_us_max = upstream.hang_us_max.max(faults.hang_ms * 1_000);
        upstream.model.set_delay_ms(now_us, delay_ms);
        upstream.model.set_failing(now_us, failing);
        upstream.model.set_faults(now_us, faults).expect("rates are probabilities");
        self.after_model(processor);
        self.plan_wake(processor);
    }

    /// A processor is well again.
    pub(super) fn heal_processor(&mut self, processor: Processor) {
        self.resolve(processor);
        self.gateways.iter_mut().for_each(|gateway| gateway.frozen_len[processor.index()] = 0);
        let now_us = self.now_us;
        let upstream = &mut self.upstreams[processor.index()];
        upstream.down = false;
        upstream.declines = false;
        upstream.limited_until_us = 0;
        upstream.model.set_delay_ms(now_us, 1);
        upstream.model.set_failing(now_us, false);
        let none = Faults { hang_ms: 1, ..Faults::default() };
        upstream.model.set_faults(now_us, none).expect("no fault is a probability");
        self.after_model(processor);
        self.plan_wake(processor);
    }

    /// A processor is as bad as it can be, in one way.
    pub(super) fn make_lame(&mut self, processor: Processor) {
        self.heal_processor(processor);
        let now_us = self.now_us;
        let way = self.dice.index(5);
        self.trace(|| format!("{processor:?} is lame, in way {way}"));
        let upstream = &mut self.upstreams[processor.index()];
        match way {
            0 => upstream.down = true,
            1 => drop(upstream.model.set_failing(now_us, true)),
            2 => upstream.limited_until_us = u64::MAX,
            3 => upstream.declines = true,
            _ => drop(upstream.model.set_delay_ms(now_us, 5_000)),
        }
    }
}
