//! Where things lie: the repository's root, the folder of one running Galo, the built programs.
//!
//! Everything that the commands write goes below a *home* folder (`.galo` unless `--home` says otherwise), which git
//! ignores: `run/` holds sockets and the state of the supervisor, `logs/` one file per process. Two Galos with two
//! homes and other ports live side by side, which is how `cargo xtask test` leaves a developer's own alone.
//!
//! Must never write outside the home folder, the build's target folder and (for `--limits`) the cgroup tree.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the commands return: an error is one line for a person, with the path or name that it speaks of.
pub(crate) type Fallible<T> = Result<T, String>;

/// `sockaddr_un.sun_path` has 108 bytes, one of which is the closing NUL (unix(7)).
const SOCKET_PATH_SIZE_MAX: usize = 107;

/// The repository's root folder.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The folder of one Galo, running or not.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    path: PathBuf,
}

impl Home {
    /// The home at `path`, which counts from the repository's root when relative.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: root().join(path) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.run().join(format!("{name}.sock"))
    }

    /// The ledger's journal. It outlives a Galo, as its payments do.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.run().join("state.json")
    }

    /// One line about how the last Galo of this home ended.
    pub(crate) fn farewell_file(&self) -> PathBuf {
        self.run().join("stopped")
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.run().join("lock")
    }

    /// Creates the folders.
    ///
    /// # Errors
    ///
    /// When a folder cannot be made, or is so deep that a unix socket's path would not fit.
    pub(crate) fn create(&self) -> Fallible<()> {
        let longest = self.socket("aggregator-http");
        if longest.as_os_str().len() > SOCKET_PATH_SIZE_MAX {
            return Err(format!(
                "{} is longer than the {SOCKET_PATH_SIZE_MAX} bytes that a unix socket's path may have: choose a shorter --home",
                longest.display()
            ));
        }
        for folder in [self.run(), self.path.join("logs")] {
            fs::create_dir_all(&folder)
                .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
        }
        Ok(())
    }
}

/// The folder that holds the programs built with `profile`.
pub(crate) fn program_folder(profile: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    // Cargo names every profile's folder after it, except that `dev` builds into `debug`.
    target.join(if profile == "dev" { "debug" } else { profile })
}

/// Replaces `path` by `content` in one step, so that a reader sees the old file or the new one, whole.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Fallible<()> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(content)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The last `count` lines of a log that say something, oldest first; empty when there is no such file.
pub(crate) fn tail(path: &Path, count: usize) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<String> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(count).map(str::to_owned).collect();
    lines.reverse();
    lines
}
