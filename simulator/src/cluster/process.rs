//! A gateway's process: one or several threads that live and die together.
//!
//! Each thread is a [`Gateway`] with a dispatcher and a connection of its own; what they share is the listener, the wall
//! clock, and their end. The aggregator learns of a death connection by connection, so that what one thread held may be
//! handed to another one of the same dead process first. Threads are numbered through: the first process has the first ones.

use std::ops::Range;

use galo_engine::Processor;
use galo_engine::dispatcher::Dispatcher;

use super::dice::Dice;
use super::gateway::Gateway;
use super::plan::Plan;
use super::world::{Event, World};

/// All threads of all gateways, before any has started.
pub fn threads(plan: &Plan, dice: &mut Dice) -> Vec<Gateway> {
    let mut threads = Vec::new();
    for _ in 0..plan.gateway_count {
        let clock = super::clock::Clock::new(dice);
        threads.extend((0..plan.thread_count).map(|_| Gateway::new(clock)));
    }
    threads
}

impl World {
    /// Which threads a process has.
    pub(super) fn threads_of(&self, process: usize) -> Range<usize> {
        let count = self.plan.thread_count;
        process * count..(process + 1) * count
    }

    /// Whose thread it is.
    pub(super) fn process_of(&self, thread: usize) -> usize {
        thread / self.plan.thread_count
    }

    /// Any gateway.
    pub(super) fn any_process(&mut self) -> usize {
        self.dice.index(self.plan.gateway_count)
    }

    /// Any processor.
    pub(super) fn any_processor(&mut self) -> Processor {
        Processor::ALL[self.dice.index(self.plan.processor_count)]
    }

    /// Any gateway, or the aggregator behind them.
    pub(super) fn any_victim(&mut self) -> usize {
        self.dice.index(self.plan.gateway_count + 1)
    }

    /// Any thread of any gateway.
    pub(super) fn any_thread(&mut self) -> usize {
        self.dice.index(self.gateways.len())
    }

    /// The kernel gives a connection to one of the threads.
    pub(super) fn thread_that_accepts(&mut self, process: usize) -> usize {
        let threads = self.threads_of(process);
        if threads.len() == 1 { threads.start } else { threads.start + self.dice.index(threads.len()) }
    }

    pub(super) fn start_process(&mut self, process: usize) {
        self.threads_of(process).for_each(|thread| self.start_gateway(thread));
    }

    /// SIGKILL, or the end of a drain. `lossy`: what it wrote last may be gone, too.
    pub(super) fn kill_process(&mut self, process: usize, lossy: bool) {
        let threads = self.threads_of(process);
        if self.gateways[threads.start].dispatcher.is_none() {
            return;
        }
        threads.for_each(|thread| self.kill_gateway(thread, lossy));
        let away_us = self.dice.skewed(self.plan.restart_us);
        self.after(away_us, Event::ProcessStart(process));
    }

    /// SIGTERM.
    pub(super) fn stop_process(&mut self, process: usize) {
        let threads = self.threads_of(process);
        let Gateway { life, draining, ref dispatcher, .. } = self.gateways[threads.start];
        if dispatcher.is_none() || draining {
            return;
        }
        self.coverage.drains += 1;
        self.trace(|| format!("gateway {process} drains"));
        // Connections that HAProxy keeps may still bring a POST.
        let listening = self.dice.one_in(4);
        for thread in threads {
            self.gateways[thread].draining = true;
            self.gateways[thread].awaited.clear();
            self.gateways[thread].listening = listening;
            self.event(thread, |dispatcher, _| dispatcher.drain());
        }
        let until_us = self.now_us + self.plan.drain_us_max;
        self.after(0, Event::ProcessDrain(process, life, until_us));
    }

    pub(super) fn drain_process(&mut self, process: usize, life: u32, until_us: u64) {
        let mut threads = self.threads_of(process);
        if self.gateways[threads.start].life != life {
            return;
        }
        let is_drained =
            |thread: usize| self.gateways[thread].dispatcher.as_ref().is_some_and(Dispatcher::is_drained);
        if threads.all(is_drained) || self.now_us >= until_us {
            self.kill_process(process, false);
        } else {
            self.after(2_000, Event::ProcessDrain(process, life, until_us));
        }
    }

    /// Used by a planted bug: the connection of the first thread of the process that `connection` belongs to.
    pub(super) fn first_threads(&self, connection: usize) -> usize {
        let process = self.process_of(self.connections[connection].gateway);
        let first = self.threads_of(process).start;
        self.gateways[first].connection().unwrap_or(connection)
    }
}
