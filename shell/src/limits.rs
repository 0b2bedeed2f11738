//! How many files this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one, which needs no privilege, and returns it.
///
/// The customary soft limit of 1,024 is for programs that use `select`; a gateway with 1,024 clients and 800 attempts on
/// their way needs more. Where it cannot be raised, running out is survived: new connections wait.
#[must_use]
pub fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}
