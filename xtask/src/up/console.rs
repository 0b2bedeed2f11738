//! What a person sees of a running Galo: events as lines, and one status line that renews itself.
//!
//! On a terminal the status line is overwritten in place; elsewhere (a log file) it is written rarely, as a line of its own. Two
//! threads write (supervisor and watcher), hence the lock: lines never mix.

use std::io::{IsTerminal, stdout};
use std::sync::Mutex;

use crate::out::{out, outln};

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
        outln!("{clear}{text}");
    }

    /// The renewed status line.
    pub(crate) fn status(&self, text: &str) {
        if !self.is_terminal {
            return self.line(text);
        }
        *self.status_shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        out!("\r\x1b[K{text}");
    }
}
