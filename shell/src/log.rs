//! Logging: one line an event, on stderr, for whoever collects it.
//!
//! A thread of its own writes. Whoever logs puts the line into a queue and goes on, so a reader of stderr that stands still, or is
//! gone, or a disk that is full, holds up nothing and ends nothing. A line for which the queue has no room, or which cannot be written,
//! is lost and counted ([`lines_lost`]).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use tracing_subscriber::EnvFilter;

use crate::env::{Env, EnvError};

/// Lines that may wait for a reader: at most half a megabyte or so.
const QUEUE_LEN_MAX: usize = 2_048;

/// How long the end of the process waits for its last lines to be written.
const FLUSH_WAIT: Duration = Duration::from_millis(200);

static QUEUE: Queue = Queue::new(QUEUE_LEN_MAX);

/// Starts logging as `LOG` says (`error`, `warn`, `info`, `debug`, or a filter like `info,galo_gateway=debug`).
///
/// # Errors
/// If `LOG` is no filter.
pub fn start(env: &Env) -> Result<Flush, EnvError> {
    let filter = env.read("LOG", EnvFilter::new("info"), |text| {
        EnvFilter::try_new(text).map_err(|_| "a log filter such as info or galo_gateway=debug".to_owned())
    })?;
    start_writing();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Line)
        .with_ansi(false)
        // It would say on stderr that stderr cannot be written, and panic because it cannot.
        .log_internal_errors(false)
        .init();
    // The usual report goes to stderr directly, and would wait there for whoever does not read it.
    panic::set_hook(Box::new(|info| {
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => say(format_args!("{info}\n{backtrace}")),
            _ => say(info),
        }
    }));
    Ok(Flush)
}

/// Writes a line on stderr, whether or not logging has been started, and waits for that as [`flush`] does.
pub fn say(line: impl Display) {
    start_writing();
    QUEUE.push(format!("{line}\n").as_bytes());
    flush();
}

/// Starts the thread that writes, once. Without it every line is lost, which is no reason not to serve.
fn start_writing() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        drop(thread::Builder::new().name("log".to_owned()).spawn(|| {
            // Signals are for the threads that wait for them.
            SigSet::all().thread_block().unwrap_or_default();
            QUEUE.write_all_to(&mut io::stderr());
        }));
    });
}

/// Waits until the lines that were logged are written, for a moment at most.
pub fn flush() {
    QUEUE.flush(FLUSH_WAIT);
}

/// How many lines were lost since the start.
#[must_use]
pub fn lines_lost() -> u64 {
    QUEUE.lost.load(Ordering::Relaxed)
}

/// Writes the last lines when it goes.
#[derive(Debug)]
#[must_use = "the process's last lines are written when it is dropped"]
pub struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush();
    }
}

/// Where tracing writes a line.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines that wait for the thread that writes.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    len_max: usize,
    lost: AtomicU64,
}

struct State {
    lines: VecDeque<Vec<u8>>,
    /// One is being written.
    is_writing: bool,
}

impl Queue {
    const fn new(len_max: usize) -> Self {
        let state = Mutex::new(State { lines: VecDeque::new(), is_writing: false });
        Self { state, changed: Condvar::new(), len_max, lost: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() >= self.len_max {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.lines.push_back(line.to_vec());
        drop(state);
        self.changed.notify_all();
    }

    /// Writes one line after the other, for as long as the process lives.
    fn write_all_to(&self, out: &mut impl Write) -> ! {
        loop {
            self.write_next(out);
        }
    }

    /// Waits for a line and writes it.
    fn write_next(&self, out: &mut impl Write) {
        let mut state = self.lock();
        let line = loop {
            match state.lines.pop_front() {
                Some(line) => break line,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        state.is_writing = true;
        drop(state);
        if out.write_all(&line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.lock().is_writing = false;
        self.changed.notify_all();
    }

    /// Waits until nothing waits.
    fn flush(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        let mut state = self.lock();
        while state.is_writing || !state.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// How often in a minute the log says the same of what may well happen a few times: a process that is killed now and then is each time worth a line.
pub const SAID_MAX: u32 = 10;

/// Events that come by the hundred and would each be a line: of equal ones, the first few in a minute are said, and with the
/// next how many were not.
#[derive(Debug, Default)]
pub struct Repeats {
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    text: String,
    minute_began: Instant,
    said: u32,
    left_out: u64,
}

/// Different texts that are told apart; beyond these the one that was silent for longest is forgotten.
const TEXTS_LEN_MAX: usize = 32;

const MINUTE: Duration = Duration::from_secs(60);

impl Repeats {
    /// What to say of an event now: the text, and how often it was left out since it was said last. Nothing if it was said `said_max` times
    /// within this minute.
    pub fn line(&mut self, text: String, said_max: u32) -> Option<String> {
        self.line_at(text, said_max, Instant::now())
    }

    fn line_at(&mut self, text: String, said_max: u32, now: Instant) -> Option<String> {
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.text == text) {
            if now.saturating_duration_since(seen.minute_began) >= MINUTE {
                (seen.minute_began, seen.said) = (now, 0);
            }
            if seen.said >= said_max {
                seen.left_out += 1;
                return None;
            }
            seen.said += 1;
            return Some(match std::mem::take(&mut seen.left_out) {
                0 => text,
                count => format!("{text} ({count} more since this was last said)"),
            });
        }
        if self.seen.len() >= TEXTS_LEN_MAX {
            let oldest = self.seen.iter().enumerate().min_by_key(|(_, seen)| seen.minute_began);
            let oldest = oldest.map_or(0, |(index, _)| index);
            self.seen.swap_remove(oldest);
        }
        self.seen.push(Seen { text: text.clone(), minute_began: now, said: 1, left_out: 0 });
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on a full disk.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_have_no_room_or_cannot_be_written_are_counted() {
        let queue = Queue::new(2);
        for line in [b"one", b"two", b"six"] {
            queue.push(line);
        }
        assert_eq!(queue.lost.load(Ordering::Relaxed), 1);
        queue.write_next(&mut Full);
        assert_eq!(queue.lost.load(Ordering::Relaxed), 2);
        let mut written = Vec::new();
        queue.write_next(&mut written);
        assert_eq!(written, b"two");
    }

    #[test]
    fn the_end_waits_for_lines_and_not_for_ever() {
        let queue = Queue::new(2);
        queue.flush(Duration::from_secs(3_600));
        queue.push(b"one");
        // Nobody writes.
        queue.flush(Duration::from_millis(1));
        thread::scope(|scope| {
            scope.spawn(|| queue.write_next(&mut Vec::new()));
            queue.flush(Duration::from_secs(3_600));
        });
        assert!(queue.lock().lines.is_empty());
    }

    #[test]
    fn what_is_repeated_is_said_once_a_minute_with_how_often() {
        let mut repeats = Repeats::default();
        let begin = Instant::now();
        let mut said =
            |text: &str, after_s| repeats.line_at(text.to_owned(), 1, begin + Duration::from_secs(after_s));
        assert_eq!(said("other version", 0).as_deref(), Some("other version"));
        assert_eq!(said("other processors", 1).as_deref(), Some("other processors"));
        for _ in 0..900 {
            assert_eq!(said("other version", 10), None);
        }
        let expected = "other version (900 more since this was last said)";
        assert_eq!(said("other version", 60).as_deref(), Some(expected));
        assert_eq!(said("other version", 61), None);
        // However many different ones come, what is kept is bounded.
        for number in 0..1_000 {
            assert!(said(&number.to_string(), 62).is_some());
        }
        assert!(repeats.seen.len() <= TEXTS_LEN_MAX);
    }

    #[test]
    fn a_few_are_said_where_a_few_are_ordinary() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        let said = (0..10).filter(|_| repeats.line_at("connected".to_owned(), 3, now).is_some()).count();
        assert_eq!(said, 3);
    }
}
