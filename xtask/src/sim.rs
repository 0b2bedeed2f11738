//! `cargo xtask sim`: thousands of simulated lives of a whole Galo, each fixed by its seed.
//!
//! Builds the `simulate` binary and hands it everything after `sim`; `cargo xtask sim -- --help` says what it takes.

use std::process::Command;

use crate::repo::{self, Fallible};

/// Runs the simulator with these arguments.
///
/// # Errors
///
/// When it cannot be built, or a seed fails.
pub(crate) fn sim(arguments: &[String]) -> Fallible<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repo::root()).args(["run", "--quiet", "--profile", "fast"]);
    command.args(["--package", "galo-simulator", "--bin", "simulate", "--"]).args(arguments);
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err("the simulation failed (above)".to_owned()) }
}
