//! Signals before a process serves. At SIGTERM and SIGINT it ends at once, as PID 1 too, for which the kernel has no default; SIGHUP, which asks
//! one that serves to read something again, means nothing yet.
//!
//! Until it serves it owes nobody anything: what it was doing with the journal may be broken off at any point, as a kill may.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static IS_SERVING: AtomicBool = AtomicBool::new(false);

/// Ends the process at the next SIGTERM or SIGINT, until [`serving`] is called, and ignores SIGHUP until others handle it.
///
/// # Errors
/// If the kernel takes no handler.
pub fn at_once_until_serving() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        // SAFETY: the handler makes one system call, and reads an atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler.
    unsafe { sigaction(Signal::SIGHUP, &ignored) }?;
    Ok(())
}

/// From now on others wait for these signals. Their handlers are in place already: the one from here, which they may call, does nothing.
pub fn serving() {
    IS_SERVING.store(true, Ordering::Release);
}

extern "C" fn end(_: libc::c_int) {
    if !IS_SERVING.load(Ordering::Acquire) {
        // SAFETY: async-signal-safe; nothing runs at its end.
        unsafe { libc::_exit(0) };
    }
}
