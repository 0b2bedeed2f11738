//! `cargo xtask test`: everything that must hold before a change is merged, in the order of its cost.
//!
//! First what needs no running Galo (formatting, lints, tests, documentation, tidiness), then the end-to-end part: real
//! processes, real HAProxy, real k6, on ports of their own. Each check prints its line when it is done; a failed one does not stop the
//! others, and the last line counts them. Nothing here may wait a fixed time to pass: it waits for a condition, with a bound.

mod cold_start;
mod decisions;
mod end_to_end;
mod load;
mod mistakes;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;

use crate::out::outln;
use crate::repo::{self, Fallible};
use crate::{cargo, tidy, tools, up};

/// What is tested, and on which ports.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Leave the end-to-end part out
    #[arg(long)]
    quick: bool,
    /// Only the end-to-end part
    #[arg(long, conflicts_with = "quick")]
    end_to_end: bool,
    /// First of the four ports that the end-to-end part uses
    #[arg(long, default_value_t = 19_990)]
    port_base: u16,
    /// The cargo profile of the end-to-end part
    #[arg(long, value_enum, default_value = "fast")]
    profile: up::Profile,
    /// Put the end-to-end part under the compose file's limits (needs root)
    #[arg(long)]
    limits: bool,
}

/// The checks so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Runs one check; its text is what was seen, or what is wrong.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Fallible<String>) -> bool {
        let started = Instant::now();
        let result = check();
        let seconds = format!("{:.1} s", started.elapsed().as_secs_f64());
        match &result {
            Ok(seen) if seen.is_empty() => outln!("PASS  {name} ({seconds})"),
            Ok(seen) => outln!("PASS  {name} ({seconds}): {seen}"),
            Err(error) => outln!("FAIL  {name} ({seconds}): {error}"),
        }
        if result.is_ok() {
            self.passed += 1
        } else {
            self.failed += 1
        }
        result.is_ok()
    }
}

/// `cargo xtask test`.
///
/// # Errors
///
/// When a check fails.
pub(crate) fn test(options: &Options) -> Fallible<()> {
    let mut report = Report::default();
    if !options.end_to_end {
        check_statically(&mut report);
    }
    if !options.quick {
        end_to_end::run(options, &mut report);
    }
    outln!("{} passed, {} failed", report.passed, report.failed);
    if report.failed == 0 { Ok(()) } else { Err("not everything passed".to_owned()) }
}

fn check_statically(report: &mut Report) {
    report.check("formatting", || cargo(&["fmt", "--all", "--check"], &[]));
    report.check("lints", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], &[])
    });
    if tools::find("cargo-nextest").is_some() {
        report.check("tests", || cargo(&["nextest", "run", "--workspace"], &[]));
        // nextest leaves documentation's examples out.
        report
            .check("examples in documentation", || cargo(&["test", "--workspace", "--doc", "--quiet"], &[]));
    } else {
        report.check("tests", || cargo(&["test", "--workspace", "--quiet"], &[]));
    }
    // Written for Galo's developers: with private items, to which public ones may link.
    const DOCUMENTATION_FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";
    report.check("documentation", || {
        cargo(
            &["doc", "--workspace", "--no-deps", "--quiet", "--document-private-items"],
            &[("RUSTDOCFLAGS", DOCUMENTATION_FLAGS)],
        )
    });
    report.check("tidy", || {
        let complaints = tidy::complaints()?;
        if complaints.is_empty() {
            Ok(String::new())
        } else {
            Err(format!("\n  {}", complaints.join("\n  ")))
        }
    });
}

/// Runs cargo with its output on the terminal.
fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Fallible<String> {
    let mut command = cargo::cargo();
    command.args(arguments).envs(environment.iter().copied());
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() {
        Ok(String::new())
    } else {
        Err(format!("cargo {} failed ({status})", arguments.join(" ")))
    }
}

/// Asks again and again until `ask` gives a value, for `limit` at most.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Fallible<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ask() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(format!("{what}: not within {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One of Galo's programs, as built.
pub(crate) fn program(profile: up::Profile, name: &str) -> std::path::PathBuf {
    repo::program_folder(profile.name()).join(name)
}

/// A started process that is killed with its owner.
pub(crate) struct Running {
    child: std::process::Child,
}

impl Running {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Fallible<Self> {
        let output = || -> std::io::Result<_> {
            let file = std::fs::File::create(log)?;
            Ok((file.try_clone()?, file))
        };
        let (stdout, stderr) =
            output().map_err(|error| format!("cannot create {}: {error}", log.display()))?;
        command.stdin(std::process::Stdio::null()).stdout(stdout).stderr(stderr);
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;
        Ok(Self { child })
    }

    /// The exit status, if it ends within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        wait_for("its end", limit, || self.child.try_wait().ok().flatten()).ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
