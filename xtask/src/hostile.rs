//! `cargo xtask hostile`: hostile clients and processors against the programs as they are shipped.
//!
//! Builds gateway, aggregator, `processor` and `galo-hostile`, finds HAProxy, and runs the latter, which starts everything else in folders
//! and on ports of its own. Must never touch a running Galo: it needs none, and knows of none.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::repo::{self, Fallible};
use crate::{cargo, limits, tools, up};

/// What is run, and built how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The cargo profile to build with
    #[arg(long, value_enum, default_value = "release")]
    profile: up::Profile,
    /// Take the programs as they were built last
    #[arg(long)]
    no_build: bool,
    /// Only the groups whose name contains this: smuggling, bounds, manners, bodies, summary, crowds, answers, …
    #[arg(long)]
    only: Option<String>,
    /// Have the 450,000 payments of `all payments in one gateway` processed at the end, which takes minutes, instead of purging them
    #[arg(long)]
    drain: bool,
    /// This HAProxy instead of the one in PATH
    #[arg(long, value_name = "PATH")]
    haproxy: Option<PathBuf>,
    /// What cannot be tried here fails, instead of being left out with a line that says so
    #[arg(long)]
    strict: bool,
}

/// `cargo xtask hostile`.
///
/// # Errors
///
/// When it cannot be run, or a case fails; each failing case is a line.
pub(crate) fn hostile(options: &Options) -> Fallible<()> {
    if !options.no_build {
        cargo::build(options.profile.name(), &["galo-hostile"])?;
    }
    let programs = repo::program_folder(options.profile.name());
    let mut command = Command::new(programs.join("galo-hostile"));
    command.arg("--programs").arg(&programs);
    command.arg("--haproxy").arg(options.haproxy.clone().map_or_else(tools::haproxy, Ok)?);
    command.arg("--haproxy-config").arg(repo::root().join("haproxy/haproxy.cfg"));
    if let Some(only) = &options.only {
        command.args(["--only", only]);
    }
    // The compose file alone says what each service may use.
    for (name, limits) in limits::read_compose(&up::compose_file())? {
        command.arg("--limit").arg(format!("{name}={}:{}", limits.quota_us, limits.memory_bytes));
    }
    if options.drain {
        command.arg("--drain");
    }
    if options.strict {
        command.arg("--strict");
    }
    cargo::run(&mut command, "galo-hostile")
}
