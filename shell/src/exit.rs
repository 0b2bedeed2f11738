//! How a process ends: which status says what.
//!
//! | status | meaning |
//! | --- | --- |
//! | 0 | asked to stop, and did |
//! | 1 | not ready (`--healthcheck`) |
//! | 71 | the environment failed: no socket, no io_uring, an I/O error that cannot be answered (sysexits' `EX_OSERR`) |
//! | 74 | the journal could not be written (`EX_IOERR`) |
//! | 78 | the configuration is wrong (`EX_CONFIG`) |

use std::fmt::Display;
use std::process::ExitCode;

use crate::log;

/// The environment failed.
pub const ENVIRONMENT: u8 = 71;
/// The journal could not be written.
pub const JOURNAL: u8 = 74;
/// The configuration is wrong.
pub const CONFIGURATION: u8 = 78;

/// Says in one line on stderr why the process does not start.
#[must_use]
pub fn refuse_to_start(program: &str, reason: impl Display, status: u8) -> ExitCode {
    log::say(format_args!("{program}: {reason}"));
    ExitCode::from(status)
}

/// Ends the process because of something that it cannot answer. One dead part in a living process would be worse: the
/// supervisor restarts us, and the ledger and the other gateway know what to do.
pub fn fatal(reason: impl Display, status: u8) -> ! {
    tracing::error!("fatal: {reason}");
    log::flush();
    std::process::exit(i32::from(status))
}
