//! How cargo is called, and what a build of Galo's programs is.
//!
//! A gate builds the same programs for one part after the other. They are compiled once if each asks for them in the same way: of the same
//! packages, since what is built together shares its dependencies' features, and in the same environment.

use std::process::Command;

use crate::repo::{self, Fallible};

/// What a running Galo is made of, with processors to try it with. Whatever else a command builds is built beside these.
const PACKAGES: [&str; 3] = ["galo-gateway", "galo-aggregator", "galo-simulator"];

/// What `cargo run` says to the program that it runs, and what begins so. Some build scripts read these (ring's does): they would be run anew, and
/// all that depends on them compiled again, whenever cargo is called from here and then by hand.
const SAID_BY_CARGO: [&str; 5] =
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];

/// Cargo in the repository's root, as if it were called by hand.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repo::root());
    for (name, _) in std::env::vars_os() {
        if SAID_BY_CARGO.iter().any(|said| name.as_encoded_bytes().starts_with(said.as_bytes())) {
            command.env_remove(name);
        }
    }
    command
}

/// Builds Galo's programs, and those of these packages beside them.
///
/// # Errors
///
/// When something does not compile, which cargo has told.
pub(crate) fn build(profile: &str, beside: &[&str]) -> Fallible<()> {
    let mut command = cargo();
    command.args(["build", "--bins", "--profile", profile]);
    for package in PACKAGES.iter().chain(beside) {
        command.args(["--package", package]);
    }
    run(&mut command, "the build")
}

/// Runs a command with its output on the terminal.
///
/// # Errors
///
/// When it cannot be run, or fails, which it has told itself.
pub(crate) fn run(command: &mut Command, name: &str) -> Fallible<()> {
    let status = command.status().map_err(|error| format!("cannot run {name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed (above)")) }
}
