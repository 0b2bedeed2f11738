//! Whether io_uring can be used here, and if not, what to change.

use std::io;

/// Entries of each ring: enough for every connection of the contest's load at once, and 28 KiB of locked memory
/// where the customary 1,024 take 104 (kernels before 5.12 count them against a limit per user).
pub const RING_ENTRY_COUNT: u32 = 256;

/// Why there is no io_uring: one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum UringError {
    /// Turned off for everyone.
    #[error(
        "io_uring is turned off: kernel.io_uring_disabled is {0}; set it to 0 (sysctl kernel.io_uring_disabled=0)"
    )]
    Disabled(u8),
    /// Turned off for this process.
    #[error(
        "io_uring is blocked for this process ({0}), as Docker's default seccomp profile does; \
         give the container Galo's profile (security_opt: seccomp=./seccomp.json)"
    )]
    Blocked(io::Error),
    /// Not to be seen from here: a filter may answer so as well as a kernel.
    #[error(
        "there is no io_uring for this process: its seccomp filter hides it, as Podman's default one does, or this kernel has \
         none; give the container Galo's profile (security_opt: seccomp=./seccomp.json) on Linux 5.11 or newer"
    )]
    Hidden,
    /// Too old a kernel.
    #[error("this kernel has no io_uring; Galo needs Linux 5.11 or newer")]
    Missing,
    /// Too little locked memory.
    #[error("io_uring needs more locked memory than this user may have ({0}); raise RLIMIT_MEMLOCK")]
    Memlock(io::Error),
    /// Something else.
    #[error("io_uring cannot be set up: {0}")]
    Other(io::Error),
}

/// Sets up a ring as large as the real one and gives it back.
///
/// # Errors
/// Why it could not be set up.
pub fn probe() -> Result<(), UringError> {
    match io_uring::IoUring::new(RING_ENTRY_COUNT) {
        Ok(ring) => {
            drop(ring);
            Ok(())
        }
        Err(error) => Err(explain(error, is_filtered(), disabled())),
    }
}

fn explain(error: io::Error, is_filtered: bool, disabled: u8) -> UringError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) if is_filtered => UringError::Hidden,
        Some(libc::ENOSYS) => UringError::Missing,
        Some(libc::ENOMEM) => UringError::Memlock(error),
        Some(libc::EPERM | libc::EACCES) => match disabled {
            0 => UringError::Blocked(error),
            value => UringError::Disabled(value),
        },
        _ => UringError::Other(error),
    }
}

/// Whether a seccomp filter has a say in this process's system calls (`Seccomp: 2`, proc(5)).
fn is_filtered() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
    })
}

fn disabled() -> u8 {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_keeps_io_uring_away_is_named() {
        let said = |errno, is_filtered, disabled| {
            explain(io::Error::from_raw_os_error(errno), is_filtered, disabled).to_string()
        };
        // Docker's default profile answers EPERM, Podman's ENOSYS, which is a kernel's answer too.
        assert!(said(libc::EPERM, true, 0).contains("security_opt: seccomp=./seccomp.json"));
        assert!(said(libc::ENOSYS, true, 0).contains("security_opt: seccomp=./seccomp.json"));
        assert!(said(libc::ENOSYS, true, 0).contains("Linux 5.11"));
        assert!(said(libc::ENOSYS, false, 0).starts_with("this kernel has no io_uring"));
        assert!(said(libc::EPERM, false, 2).contains("kernel.io_uring_disabled=0"));
        assert!(said(libc::ENOMEM, true, 0).contains("RLIMIT_MEMLOCK"));
    }
}
