//! `cargo xtask lab`: how much of what could be earned Galo's routing earns, beside other policies.
//!
//! Builds the `laboratory` binary and hands it everything after `lab`; `cargo xtask lab -- --help` says what it takes.

use std::process::Command;

use crate::repo::{self, Fallible};

/// Runs the laboratory with these arguments.
///
/// # Errors
///
/// When it cannot be built, or a schedule cannot be read.
pub(crate) fn lab(arguments: &[String]) -> Fallible<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repo::root()).args(["run", "--quiet", "--profile", "fast"]);
    command.args(["--package", "galo-simulator", "--bin", "laboratory", "--"]).args(arguments);
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err("the laboratory failed (above)".to_owned()) }
}
