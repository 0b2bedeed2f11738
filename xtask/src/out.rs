//! Standard output and error, which may be a pipe that somebody has closed (`cargo xtask status | head -1`).
//!
//! `println!` would panic then. What a command does matters more than whether somebody still reads of it.

use std::fmt::Arguments;
use std::io::{Write, stderr, stdout};

/// `print!`, without a panic.
macro_rules! out {
    ($($words:tt)*) => { $crate::out::print(format_args!($($words)*)) };
}

/// `println!`, without a panic.
macro_rules! outln {
    () => { $crate::out::print(format_args!("\n")) };
    ($($words:tt)*) => { $crate::out::print(format_args!("{}\n", format_args!($($words)*))) };
}

/// `eprintln!`, without a panic.
macro_rules! errln {
    ($($words:tt)*) => { $crate::out::print_error(format_args!("{}\n", format_args!($($words)*))) };
}

pub(crate) use {errln, out, outln};

pub(crate) fn print(words: Arguments<'_>) {
    let mut out = stdout().lock();
    drop(out.write_fmt(words).and_then(|()| out.flush()));
}

pub(crate) fn print_error(words: Arguments<'_>) {
    drop(stderr().lock().write_fmt(words));
}
