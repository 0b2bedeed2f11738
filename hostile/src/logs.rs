//! Logs that nobody can read: a full disk, a pipe whose reader has gone or stands still.
//!
//! Lines are lost and counted; nothing ends, and nothing waits.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::client::{PATIENCE, Way};
use crate::galo::{Galo, Log, Plan, Programs, metrics, sum, wait};
use crate::tally::Tally;
use crate::world::World;

const NAMES: [&str; 3] = ["aggregator", "gateway-1", "gateway-2"];

/// Each is a line in the log of whoever gets it.
const SIGNALS: usize = 500;

/// Runs the group.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    if !tally.begin("logs") {
        return Ok(());
    }
    for (name, log) in [
        ("a disk without room", Log::Full),
        ("a pipe whose reader has gone", Log::Gone),
        ("a pipe whose reader stands still", Log::Still),
    ] {
        let mut world = World::start(programs, &Plan { name: "logs", log, ..Plan::default() })?;
        let result = lines_get_lost(&mut world).and_then(|()| starts_are_refused(&world.galo));
        tally.case(name, result);
        world.reconcile(tally);
        world.stop(tally);
    }
    Ok(())
}

/// Every process says more than anybody takes, ends when it is killed and not before, and serves meanwhile.
fn lines_get_lost(world: &mut World) -> Result<(), String> {
    world.galo.kill("aggregator")?;
    world.galo.respawn("aggregator")?;
    let ways = [world.galo.aggregator(), world.galo.straight(0), world.galo.straight(1)];
    for way in &ways {
        world.galo.until("ready again", || {
            Ok(way.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
    }
    for (name, way) in NAMES.into_iter().zip(&ways) {
        let started = Instant::now();
        while lost(way)? == 0 {
            if started.elapsed() > PATIENCE {
                return Err(format!("{name} has lost no line"));
            }
            for _ in 0..SIGNALS {
                world.galo.signal(name, Signal::SIGHUP)?;
                // Signals of one kind are one while nobody has taken it.
                std::thread::yield_now();
            }
        }
        world.check_well(&ways[1])?;
        world.check_well(&ways[2])?;
    }
    Ok(())
}

fn lost(way: &Way) -> Result<u64, String> {
    Ok(sum(&metrics(way)?, "galo_log_lines_lost_total"))
}

/// A start that is refused says so by its status, whether or not anybody hears why.
fn starts_are_refused(galo: &Galo) -> Result<(), String> {
    for (name, variable, value, status) in [
        ("gateway-1", "GATEWAY_INSTANCE", "none", 78),
        ("gateway-1", "AGGREGATOR_SOCKET", "/dev/null/aggregator.sock", 71),
        ("aggregator", "JOURNAL_SYNC", "sometimes", 78),
        ("aggregator", "AGGREGATOR_SOCKET", "/dev/null/aggregator.sock", 71),
    ] {
        let mut recipe = galo.recipe(name)?;
        recipe.environment.push((variable, value.to_owned()));
        let mut child = galo.start_process("refused", &recipe)?;
        let ended = wait(&mut child)?;
        if ended.code() != Some(status) {
            return Err(format!("{name} with {variable}={value} ends with {ended}, expected {status}"));
        }
    }
    Ok(())
}
