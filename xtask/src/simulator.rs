//! `cargo xtask sim`: thousands of simulated lives of a whole Galo, each fixed by its seed. `cargo xtask lab`: how much of what could be earned
//! Galo's routing earns, beside other policies.
//!
//! Each builds a program of the simulator's and hands it everything that follows; `-- --help` says what it takes.

use std::process::Command;

use crate::cargo;
use crate::repo::{self, Fallible};

const PROFILE: &str = "fast";

/// Runs the simulator with these arguments.
///
/// # Errors
///
/// When it cannot be built, or a seed fails.
pub(crate) fn sim(arguments: &[String]) -> Fallible<()> {
    run("simulate", "the simulation", arguments)
}

/// Runs the laboratory with these arguments.
///
/// # Errors
///
/// When it cannot be built, or a schedule cannot be read.
pub(crate) fn lab(arguments: &[String]) -> Fallible<()> {
    run("laboratory", "the laboratory", arguments)
}

fn run(program: &str, name: &str, arguments: &[String]) -> Fallible<()> {
    cargo::build(PROFILE, &[])?;
    let mut command = Command::new(repo::program_folder(PROFILE).join(program));
    cargo::run(command.current_dir(repo::root()).args(arguments), name)
}
