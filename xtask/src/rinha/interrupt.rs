//! SIGINT, SIGTERM, SIGQUIT and SIGHUP (a terminal that is closed) while k6 runs: they end k6 and not us, since the processors' token is still to be
//! put back.
//!
//! k6 is in a process group of its own, so that a terminal's Ctrl-C reaches it once, by way of here.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// The process that runs, [`PUTTING_BACK`], or 0.
static RUNNING: AtomicI32 = AtomicI32::new(0);
/// It has ended, and what it leaves behind is being put right.
const PUTTING_BACK: i32 = -1;
static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Runs a command to its end, and then `put_back`, whatever became of it. A signal ends the command, and is told as [`io::ErrorKind::Interrupted`].
pub(super) fn run(command: &mut Command, put_back: impl FnOnce()) -> io::Result<ExitStatus> {
    listen()?;
    let mut child = command.process_group(0).spawn()?;
    RUNNING.store(i32::try_from(child.id()).map_err(io::Error::other)?, Ordering::SeqCst);
    if IS_INTERRUPTED.load(Ordering::SeqCst) {
        // It came before there was anybody to pass it on to.
        end(Pid::from_raw(RUNNING.load(Ordering::SeqCst)));
    }
    let status = child.wait();
    RUNNING.store(PUTTING_BACK, Ordering::SeqCst);
    put_back();
    RUNNING.store(0, Ordering::SeqCst);
    if IS_INTERRUPTED.load(Ordering::SeqCst) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
    }
    status
}

/// Starts the thread that hears the signals, once. Whatever else this process starts has them unblocked again: std sees to it.
fn listen() -> io::Result<()> {
    static IS_LISTENING: Mutex<bool> = Mutex::new(false);
    let mut is_listening = IS_LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_listening {
        return Ok(());
    }
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            match RUNNING.load(Ordering::SeqCst) {
                // Between two runs there is nothing to put back.
                0 if IS_INTERRUPTED.load(Ordering::SeqCst) => {}
                0 => std::process::exit(128 + signal as i32),
                PUTTING_BACK => IS_INTERRUPTED.store(true, Ordering::SeqCst),
                pid => {
                    IS_INTERRUPTED.store(true, Ordering::SeqCst);
                    end(Pid::from_raw(pid));
                }
            }
        }
    })?;
    *is_listening = true;
    Ok(())
}

fn end(pid: Pid) {
    // It may have ended just now, and has not been waited for yet: nobody else has its number.
    kill(pid, Signal::SIGINT).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_ends_by_itself_is_not_interrupted() {
        let mut is_put_back = false;
        assert!(run(&mut Command::new("true"), || is_put_back = true).unwrap().success());
        assert!(is_put_back);
        assert_eq!(run(Command::new("sh").args(["-c", "exit 3"]), || {}).unwrap().code(), Some(3));
    }
}
