//! Unix sockets as files: bound without stealing one that is in use, and without leaving one behind.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a socket may go on answering before it counts as somebody's. The kernel closes a ring's files after the
/// process is gone, on a worker of its own: a killed gateway's listener outlives it by some milliseconds, and whoever
/// restarts it is quicker than that. A real mistake is still told well within a second.
const LETTING_GO: Duration = Duration::from_millis(500);

/// Between two looks at a socket that answers.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

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
        "{name}: cannot listen on {path:?}: {source}; check the folder's owner and mode, or change {name}"
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

/// Binds a listening socket at `path`, for its owner and group (mode 0660).
///
/// A socket file that nobody answers on is the trace of a killed process and is replaced; one that somebody goes on
/// answering on is left alone. The new socket is bound beside it and moved into place, so that there is no moment without a mode.
///
/// # Errors
/// See [`BindError`]; `name` is the variable that set `path`.
pub fn bind(name: &'static str, path: &Path) -> Result<UnixListener, BindError> {
    use std::os::unix::fs::FileTypeExt;

    let at = || path.to_owned();
    let io_error = |source| BindError::Io { name, path: at(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(BindError::NoFolder { name, path: at() });
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { name, path: at() });
        }
        Ok(_) if keeps_answering(path) => return Err(BindError::InUse { name, path: at() }),
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
    std::fs::rename(&beside, path).map_err(io_error)?;
    Ok(listener)
}

fn keeps_answering(path: &Path) -> bool {
    let start = Instant::now();
    while UnixStream::connect(path).is_ok() {
        if start.elapsed() >= LETTING_GO {
            return true;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_socket_that_is_being_closed_is_waited_for() {
        let folder = folder("closing");
        let path = folder.join("a.sock");
        let dying = bind("A_SOCKET", &path).expect("nothing is there");
        // Answers the first look, and only that.
        let closing = std::thread::spawn(move || dying.accept().map(drop));
        drop(bind("A_SOCKET", &path).expect("whoever was there has gone"));
        closing.join().expect("no panic").expect("it was looked at");
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
