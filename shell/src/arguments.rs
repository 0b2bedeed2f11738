//! What a program is told on its command line, which is next to nothing: it is configured by its environment.
//!
//! `--help` and `--version` are for a person at a terminal, `--healthcheck` is for a container's engine. Anything else is a
//! mistake and is named; a program must never start to serve with an argument that it did not understand.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::exit;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Serve.
    Serve,
    /// Ask the one that serves whether it is ready.
    Healthcheck,
}

/// Reads the arguments behind the program's name. Help and version are written to stdout here.
///
/// # Errors
/// The status to end with: success after help or version, [`exit::CONFIGURATION`] after a mistake.
pub fn read(
    program: &str,
    version: &str,
    purpose: &str,
    arguments: impl Iterator<Item = OsString>,
) -> Result<Asked, ExitCode> {
    match understand(arguments) {
        Ok(Argument::None) => Ok(Asked::Serve),
        Ok(Argument::Healthcheck) => Ok(Asked::Healthcheck),
        Ok(Argument::Help) => Err(print(&help(program, purpose))),
        Ok(Argument::Version) => Err(print(&format!("{program} {version}"))),
        Err(reason) => Err(exit::refuse_to_start(program, reason, exit::CONFIGURATION)),
    }
}

/// For a person who may have gone: then the status says that nothing was read.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Argument {
    None,
    Healthcheck,
    Help,
    Version,
}

fn understand(mut arguments: impl Iterator<Item = OsString>) -> Result<Argument, String> {
    let Some(first) = arguments.next() else { return Ok(Argument::None) };
    if let Some(second) = arguments.next() {
        return Err(format!("an argument too many, {second:?}; expected one at most, see --help"));
    }
    match first.to_str() {
        Some("--healthcheck") => Ok(Argument::Healthcheck),
        Some("--help" | "-h") => Ok(Argument::Help),
        Some("--version" | "-V") => Ok(Argument::Version),
        _ => Err(format!("unknown argument {first:?}; expected none, --healthcheck, --help or --version")),
    }
}

fn help(program: &str, purpose: &str) -> String {
    format!(
        "{purpose}\n\nUsage: {program} [--healthcheck | --help | --version]\n\n\
         Without an argument it serves until SIGTERM or SIGINT. It is configured by environment variables, which README.md\n\
         lists; --healthcheck asks the one that serves whether it is ready (status 0) or not (1).\n\n\
         Exit status: 0 stopped when asked to, 71 the environment failed, 74 the journal could not be read or written,\n\
         78 the configuration is wrong."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Argument, String> {
        understand(arguments.iter().map(OsString::from))
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(read(&[]), Ok(Argument::None));
        assert_eq!(read(&["--healthcheck"]), Ok(Argument::Healthcheck));
        assert_eq!(read(&["-h"]), read(&["--help"]));
        assert_eq!(read(&["-V"]), Ok(Argument::Version));
        assert!(read(&["--port=1"]).is_err_and(|reason| reason.contains("--port=1")));
        assert!(read(&[""]).is_err());
        assert!(read(&["--help", "--version"]).is_err_and(|reason| reason.contains("--version")));
    }
}
