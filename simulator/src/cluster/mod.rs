//! The deterministic simulator: gateways, aggregator and processors in one thread, under one virtual clock.
//!
//! It drives the real decisions ([`Dispatcher`](galo_engine::dispatcher::Dispatcher),
//! [`Coordinator`](galo_engine::coordinator::Coordinator) with its ledger, the frames of `galo-wire`, the model
//! [`Processor`](crate::processor::Processor)) and models everything else: the shells around them, sockets, the disk,
//! clocks, clients, and whatever kills and breaks them. One seed fixes everything, so a failure is replayed by its
//! number. `docs/simulation.md` says what is modelled and what is not.
//!
//! Must never: read a clock, draw ambient randomness, depend on a hash table's order, or tell a process what only the
//! [`oracle`] knows.

mod address;
mod aggregator;
mod bug;
mod client;
mod clock;
mod connections;
pub(crate) mod dice;
mod disk;
mod fault;
mod gateway;
mod history;
mod invariant;
mod leases;
mod link;
mod manner;
mod notification;
mod oracle;
mod plan;
mod process;
pub(crate) mod queue;
mod rates;
mod record;
mod retention;
mod summaries;
mod table;
mod wire;
mod world;

pub use bug::Bug;
pub use invariant::{Checks, Failure, Invariant};
pub use world::Coverage;

/// How one seed is run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Options {
    /// A bug to plant.
    pub bug: Option<Bug>,
    /// Print each step.
    pub trace: bool,
}

/// What one seed came to.
pub struct Report {
    /// The checks that ran, and the first that failed.
    pub checks: Checks,
    /// What happened in the run.
    pub coverage: Coverage,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    world::World::new(seed, options).run()
}

#[cfg(test)]
mod tests;
