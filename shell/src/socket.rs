//! Unix sockets as files: bound without stealing one that is in use, and without leaving one behind.
//!
//! A socket that answers is not proof of a living process. The listener of a killed one stays open, and takes
//! connections that nobody will ever read, until the kernel has torn its io_uring down: some 10 ms after the process is gone and
//! may have been started anew. So the listener's owner is asked for: a dead one's socket is replaced at once, and one whose
//! owner cannot be seen (another container's) is given [`TEARDOWN_WAIT`] to fall silent.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, getsockopt, socket};
use nix::unistd::Pid;

/// Many times what a ring's teardown was seen to take (6 to 12 ms on two busy cores), and short enough for a start that fails
/// to say so within a second.
const TEARDOWN_WAIT: Duration = Duration::from_millis(300);
/// Between two looks at one that neither ends nor shows its owner.
const TEARDOWN_POLL: Duration = Duration::from_millis(2);

/// Why a socket could not be bound: one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Its folder is not there.
    #[error(
        "{name}: the folder of {path:?} does not exist; create it or set {name} to a path in an existing folder"
    )]
    NoFolder {
        /// The variable that says where.
        name: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A living process answers there.
    #[error("{name}: another process listens on {path:?}; stop it or set {name} to another path")]
    InUse {
        /// The variable that says where.
        name: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Something else is at that path.
    #[error("{name}: {path:?} exists and is not a socket; remove it or set {name} to another path")]
    NotASocket {
        /// The variable that says where.
        name: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The system said no.
    #[error(
        "{name}: no socket can be at {path:?}: {source}; check the folder's owner and mode, or change {name}"
    )]
    Io {
        /// The variable that says where.
        name: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening socket's file, told from whatever may stand at its path later: a successor may have bound there while its
/// predecessor still drained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path, metadata: &std::fs::Metadata) -> Self {
        Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() }
    }

    /// Removes the file, unless it is gone or somebody else's by now. There is no call that compares and removes at once;
    /// a successor that binds between the two is none that has found us listening.
    pub fn remove(&self) {
        let removed = match std::fs::symlink_metadata(&self.path) {
            Ok(metadata) if Self::at(&self.path, &metadata) == *self => std::fs::remove_file(&self.path),
            Ok(_) => return tracing::info!("{}: a successor's by now, left alone", self.path.display()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::debug!("{}: {error}", self.path.display());
        }
    }
}

/// Binds a listening socket at `path`, for its owner and group (mode 0660), and says which file that is.
///
/// A socket file that nobody answers on is the trace of a killed process and is replaced; one that somebody answers on is
/// left alone. The new socket is bound beside it and moved into place, so that there is no moment without a mode.
///
/// # Errors
/// See [`BindError`]; `name` is the variable that set `path`.
pub fn bind(name: &'static str, path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    use std::os::unix::fs::FileTypeExt;

    let at = || path.to_owned();
    let io_error = |source| BindError::Io { name, path: at(), source };
    if !folder_of(path).is_dir() {
        return Err(BindError::NoFolder { name, path: at() });
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { name, path: at() });
        }
        Ok(_) if is_in_use(path) => return Err(BindError::InUse { name, path: at() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(error)),
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&beside).map_err(io_error)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o660)).map_err(io_error)?;
    let file = SocketFile::at(path, &std::fs::symlink_metadata(&beside).map_err(io_error)?);
    std::fs::rename(&beside, path).map_err(io_error)?;
    Ok((listener, file))
}

/// Checks a path at which somebody else is to listen, now or later: it must be one at which a socket can be.
///
/// # Errors
/// [`BindError::NoFolder`], or [`BindError::Io`] for a path that is too long; `name` is the variable that set `path`.
pub fn check(name: &'static str, path: &Path) -> Result<(), BindError> {
    if let Err(source) = SocketAddr::from_pathname(path) {
        return Err(BindError::Io { name, path: path.to_owned(), source });
    }
    if !folder_of(path).is_dir() {
        return Err(BindError::NoFolder { name, path: path.to_owned() });
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a living process listens at `path`.
fn is_in_use(path: &Path) -> bool {
    let give_up = Instant::now() + TEARDOWN_WAIT;
    loop {
        match connect(path) {
            Ok(stream) => {
                // For the side that connects, these are the credentials of whoever called listen(2) (unix(7)).
                let owner = getsockopt(&stream, PeerCredentials).map_or(0, |owner| owner.pid());
                // No signal: only asks whether the process is there. 0 is one that this pid namespace does not see.
                if owner > 0 && kill(Pid::from_raw(owner), None) == Err(Errno::ESRCH) {
                    return false;
                }
                if !ends_before(stream, give_up) {
                    return true;
                }
            }
            // Its backlog is full: somebody is there, or was.
            Err(Errno::EAGAIN) => {}
            Err(_) => return false,
        }
        if Instant::now() >= give_up {
            return true;
        }
        std::thread::sleep(TEARDOWN_POLL);
    }
}

/// Connects without waiting for room in the backlog of a listener that may never accept again.
fn connect(path: &Path) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Whether the other side hangs up before `deadline`, as a torn-down listener does to those it never accepted.
fn ends_before(mut stream: UnixStream, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now()).max(TEARDOWN_POLL);
    let limited = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(left)));
    let is_timeout =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    match limited.and_then(|()| stream.read(&mut [0])) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !is_timeout(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("galo-socket-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        folder
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let folder = folder("stale");
        let path = folder.join("a.sock");
        drop(bind("A_SOCKET", &path).expect("nothing is there"));
        let living = bind("A_SOCKET", &path).expect("what is there is stale");
        assert!(matches!(bind("A_SOCKET", &path), Err(BindError::InUse { .. })));
        UnixStream::connect(&path).expect("the living one still listens");
        drop(living);
        std::fs::remove_dir_all(folder).expect("the folder is ours");
    }

    #[test]
    fn only_ones_own_socket_is_removed() {
        let folder = folder("own");
        let path = folder.join("a.sock");
        let (draining, first) = bind("A_SOCKET", &path).expect("nothing is there");
        // As a gateway that drains does: it listens no more, and its file is removed at the end.
        drop(draining);
        let (_living, second) = bind("A_SOCKET", &path).expect("what is there is stale");
        first.remove();
        UnixStream::connect(&path).expect("the successor's socket is where it was");
        second.remove();
        assert!(!path.exists(), "one's own is removed");
        first.remove();
        std::fs::remove_dir_all(folder).expect("the folder is ours");
    }

    #[test]
    fn a_dead_process_listener_is_replaced_though_it_answers() {
        let folder = folder("dead");
        let path = folder.join("a.sock");
        // The last to call listen(2) is the owner: a child that is gone, while the listener stays open with us, as it does
        // with a ring that is being torn down.
        let listener = UnixListener::bind(&path).expect("nothing is there");
        let descriptor = listener.as_raw_fd();
        let mut child = Command::new("true");
        // SAFETY: listen(2) is async-signal-safe, and nothing else runs between fork and exec.
        unsafe {
            child.pre_exec(move || match libc::listen(descriptor, 8) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        assert!(child.status().expect("`true` runs").success());
        UnixStream::connect(&path).expect("it answers all the same");
        bind("A_SOCKET", &path).expect("its owner is dead");
        std::fs::remove_dir_all(folder).expect("the folder is ours");
    }

    #[test]
    fn a_full_backlog_does_not_hold_up_the_start() {
        let folder = folder("full");
        let path = folder.join("a.sock");
        let (_living, _) = bind("A_SOCKET", &path).expect("nothing is there");
        let mut waiting = Vec::new();
        while let Ok(stream) = connect(&path) {
            waiting.push(stream);
        }
        assert_eq!(connect(&path).expect_err("the backlog is full"), Errno::EAGAIN);
        assert!(matches!(bind("A_SOCKET", &path), Err(BindError::InUse { .. })));
        std::fs::remove_dir_all(folder).expect("the folder is ours");
    }

    #[test]
    fn a_socket_that_is_being_closed_is_waited_for() {
        let folder = folder("closing");
        let path = folder.join("a.sock");
        let (dying, _) = bind("A_SOCKET", &path).expect("nothing is there");
        // Answers the first look, and only that.
        let closing = std::thread::spawn(move || dying.accept().map(drop));
        drop(bind("A_SOCKET", &path).expect("whoever was there has gone"));
        closing.join().expect("no panic").expect("it was looked at");
        std::fs::remove_dir_all(folder).expect("the folder is ours");
    }

    #[test]
    fn a_path_for_somebody_elses_socket_is_checked() {
        let folder = folder("check");
        check("A_SOCKET", &folder.join("not-there-yet.sock")).expect("it may come later");
        let error = check("A_SOCKET", &folder.join("none/a.sock")).expect_err("no such folder");
        assert!(matches!(error, BindError::NoFolder { .. }), "{error}");
        let error = check("A_SOCKET", &folder.join("a".repeat(200))).expect_err("too long for a socket");
        assert!(matches!(error, BindError::Io { .. }), "{error}");
        std::fs::remove_dir_all(folder).expect("the folder is ours");
    }

    #[test]
    fn a_missing_folder_and_a_file_are_named() {
        let folder = folder("names");
        let error = bind("A_SOCKET", &folder.join("none/a.sock")).expect_err("no such folder");
        assert!(error.to_string().starts_with("A_SOCKET: the folder of"), "{error}");
        let file = folder.join("file");
        std::fs::write(&file, "not a socket").expect("the folder is ours");
        assert!(matches!(bind("A_SOCKET", &file), Err(BindError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&file).expect("left alone"), "not a socket");
        std::fs::remove_dir_all(folder).expect("the folder is ours");
    }
}
