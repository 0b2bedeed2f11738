//! The real aggregator as a child process, and a gateway that speaks to it over its socket.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod gateway;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

pub use gateway::*;

/// A folder of its own for each test, removed at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("galo-aggregator-{name}-{}", std::process::id()));
        if path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// The names in the journal's folder, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.journal())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock")
            .collect();
        names.sort();
        names
    }

    /// The journal's files with this ending, in order.
    pub fn files(&self, ending: &str) -> Vec<PathBuf> {
        self.names()
            .iter()
            .filter(|name| name.ends_with(ending))
            .map(|name| self.journal().join(name))
            .collect()
    }

    /// A command that starts an aggregator here.
    pub fn command(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_galo-aggregator"));
        self.configure(&mut command, variables);
        command
    }

    pub fn configure(&self, command: &mut Command, variables: &[(&str, &str)]) {
        command
            .env_clear()
            .env("AGGREGATOR_SOCKET", self.0.join("aggregator.sock"))
            .env("AGGREGATOR_HTTP_SOCKET", self.0.join("http.sock"))
            .env("JOURNAL_DIR", self.journal())
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
    }

    pub fn start(&self, variables: &[(&str, &str)]) -> Aggregator {
        Aggregator(self.command(variables).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts one that will not serve. Returns how it ended and what it said.
    pub fn refusal(&self, variables: &[(&str, &str)]) -> (ExitStatus, String) {
        outcome(self.command(variables).spawn().unwrap())
    }

    pub fn connect(&self, instance: u8) -> Gateway {
        Gateway::connect(&self.0.join("aggregator.sock"), instance)
    }

    pub fn metrics(&self) -> String {
        self.ask("GET", "/metrics", "").1
    }

    /// Asks its own HTTP; the status, and head and body together.
    pub fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        ask(&self.0.join("http.sock"), method, target, body)
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.metrics();
        let line = page.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("{name} in {page}")).rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }
}

/// One request on a connection of its own.
pub fn ask(socket: &Path, method: &str, target: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = body.len();
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: galo\r\nConnection: close\r\nContent-Length: {length}");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {text:?}")), text)
}

/// Waits for a process to end by itself.
pub fn outcome(child: Child) -> (ExitStatus, String) {
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

pub struct Aggregator(pub Child);

impl Aggregator {
    /// SIGKILL.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM; returns how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        let status = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(status.success());
        self.0.wait().unwrap()
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        // It may have been waited for already.
        if self.0.kill().is_ok() && self.0.wait().is_err() {
            eprintln!("a child was lost");
        }
    }
}
