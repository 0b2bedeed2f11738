//! io_uring or epoll, and with which flags: decided once at start by what the kernel offers.

use galo_shell::uring::{self, RING_ENTRY_COUNT, UringError};
use io_uring::IoUring;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::config::DriverChoice;

/// How this process does its I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// io_uring, with these flags.
    Uring(RingFlags),
    /// epoll.
    Epoll,
}

/// Flags that spare a ring of one thread its interrupts, from the newest kernel's to the oldest's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingFlags {
    /// `SINGLE_ISSUER` and `DEFER_TASKRUN`, Linux 6.1: 4.5 µs of CPU a request at saturation instead of 7.3.
    Deferred,
    /// `COOP_TASKRUN`, Linux 5.19.
    Cooperative,
    /// None.
    Plain,
}

impl Driver {
    /// Its name in the log and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring(_) => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Chooses, with one warning where epoll has to do.
///
/// # Errors
/// Why there is no io_uring, if nothing else was allowed.
pub fn choose(choice: DriverChoice) -> Result<Driver, UringError> {
    match (choice, uring::probe()) {
        (DriverChoice::Epoll, _) => Ok(Driver::Epoll),
        (DriverChoice::Auto | DriverChoice::Uring, Ok(())) => {
            let all = [RingFlags::Deferred, RingFlags::Cooperative, RingFlags::Plain];
            let flags = all.into_iter().find(|flags| builder(*flags).build(RING_ENTRY_COUNT).is_ok());
            Ok(Driver::Uring(flags.unwrap_or(RingFlags::Plain)))
        }
        (DriverChoice::Uring, Err(error)) => Err(error),
        (DriverChoice::Auto, Err(error)) => {
            tracing::warn!("running on epoll, slower: {error}");
            Ok(Driver::Epoll)
        }
    }
}

fn builder(flags: RingFlags) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    match flags {
        RingFlags::Deferred => drop(builder.setup_single_issuer().setup_defer_taskrun()),
        RingFlags::Cooperative => drop(builder.setup_coop_taskrun()),
        RingFlags::Plain => {}
    }
    builder
}

/// Runs `future` to its end on a new runtime of this thread.
///
/// # Errors
/// If the runtime cannot be built.
pub fn run<F: Future>(driver: Driver, future: F) -> std::io::Result<F::Output> {
    match driver {
        Driver::Uring(flags) => {
            let runtime = RuntimeBuilder::<IoUringDriver>::new()
                .uring_builder(builder(flags))
                .with_entries(RING_ENTRY_COUNT)
                .enable_timer()
                .build();
            Ok(runtime?.block_on(future))
        }
        Driver::Epoll => Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(future)),
    }
}
