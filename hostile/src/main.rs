//! Hostile clients and hostile processors against Galo's real programs: `cargo xtask hostile` builds them and runs this.
//!
//! Tables of cases: bytes that are no request, or two; bodies and bounds that are no payment and no instant; crowds of slow
//! and idle clients; processors that cut, garble, delay or refuse their answers at every byte, that refuse single payments, limit
//! rates, claim what is not so, or never answer; connections that freeze, or end as they are used; every shipped profile against the program that speaks that provider's API; processes that stand still, die and are started twice; peers that are none;
//! descriptors, disk, memory and CPU that run out. Each case says what must come of it, and after each the system must be alive and
//! correct: an ordinary payment is taken, and in the end everything that was promised stands in a processor's book once, to the
//! cent, and nothing else does.
//!
//! It must never depend on a fixed port, on what ran before, or on how fast the machine is: waits have limits far above what
//! they wait for, and what is a matter of speed is printed, or judged against what the same payments took in the same run before anything
//! was wrong.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod addresses;
mod authority;
mod bodies;
mod bounds;
mod cgroups;
mod claims;
mod client;
mod crowds;
mod faults;
mod galo;
mod holdings;
mod load;
mod logs;
mod members;
mod mounts;
mod notices;
mod outages;
mod payers;
mod peer;
mod peers;
mod processor;
mod providers;
mod queries;
mod rates;
mod refusals;
mod resources;
mod scene;
mod silences;
mod slowness;
mod smuggling;
mod stops;
mod tally;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::galo::{Plan, Programs};
use crate::tally::Tally;
use crate::world::World;

/// Hostile requests, bodies and processors against Galo's real programs
#[derive(Debug, Parser)]
#[command(name = "galo-hostile", version)]
struct Arguments {
    /// The folder of galo-gateway, galo-aggregator and processor
    #[arg(long)]
    programs: PathBuf,
    /// HAProxy
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// Its configuration
    #[arg(long)]
    haproxy_config: PathBuf,
    /// Only the groups whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// What a process may use where its limits matter, as NAME=QUOTA_US:BYTES: CPU in each 100 ms, and memory
    #[arg(long = "limit", value_parser = cgroups::parse)]
    limits: Vec<(String, cgroups::Limit)>,
    /// The 450,000 payments of `all payments in one gateway` are processed at the end, which takes minutes, instead of being purged
    #[arg(long)]
    drain: bool,
    /// What cannot be tried here fails, instead of being left out with a line that says so
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Crowds of clients take a descriptor each, in the programs too, which inherit the limit.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap_or_default();
    }
    let programs = Programs {
        folder: arguments.programs,
        haproxy: arguments.haproxy,
        haproxy_config: arguments.haproxy_config,
    };
    let mut tally = Tally::new(arguments.only, arguments.strict);
    let holdings = holdings::Plan { limits: arguments.limits, drain: arguments.drain };
    if let Err(error) = run(&programs, &holdings, &mut tally) {
        tally.case("the run itself", Err(error));
    }
    if tally.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(programs: &Programs, holdings: &holdings::Plan, tally: &mut Tally) -> Result<(), String> {
    let plan = Plan { name: "front", haproxy: true, ..Plan::default() };
    let mut world = World::start(programs, &plan)?;
    smuggling::run(&mut world, tally);
    bounds::run(&mut world, tally);
    bodies::run(&mut world, tally);
    queries::run(&mut world, tally);
    crowds::run(&mut world, tally);
    tally.begin("the end");
    world.stop(tally);
    faults::run(programs, tally)?;
    outages::run(programs, tally)?;
    refusals::run(programs, tally);
    rates::run(programs, tally);
    notices::run(programs, tally);
    claims::run(programs, tally);
    members::run(programs, tally);
    slowness::run(programs, tally);
    silences::run(programs, tally);
    providers::run(programs, tally);
    addresses::run(programs, tally);
    stops::run(programs, tally)?;
    logs::run(programs, tally)?;
    peers::run(programs, tally)?;
    holdings::run(programs, holdings, tally)?;
    // Last, since one of its groups moves to a mount namespace of its own.
    resources::run(programs, tally)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
