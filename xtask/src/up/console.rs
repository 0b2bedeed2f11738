//! What a person sees of a running Galo: events as lines, and one status line that renews itself.
//!
//! On a terminal the status line is overwritten in place; elsewhere (a log file) it is written rarely, as a line of its own. Two
//! threads write (supervisor and watcher), hence the lock: lines never mix.

use std::io::{IsTerminal, Write, stdout};
use std::sync::Mutex;

/// Standard output, shared.
#[derive(Debug)]
pub(crate) struct Console {
    is_terminal: bool,
    /// Whether the cursor stands behind a status line that the next event has to clear.
    status_shown: Mutex<bool>,
}

impl Console {
    pub(crate) fn new() -> Self {
        Self { is_terminal: stdout().is_terminal(), status_shown: Mutex::new(false) }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// An event.
    pub(crate) fn line(&self, text: &str) {
        let mut shown = self.status_shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let clear = if *shown { "\r\x1b[K" } else { "" };
        *shown = false;
        print(&format!("{clear}{text}\n"));
    }

    /// The renewed status line.
    pub(crate) fn status(&self, text: &str) {
        if !self.is_terminal {
            return self.line(text);
        }
        *self.status_shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        print(&format!("\r\x1b[K{text}"));
    }
}

/// A closed pipe behind standard output must not end the supervisor, which `println!` would: its processes matter more.
fn print(text: &str) {
    let mut out = stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
