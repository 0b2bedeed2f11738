//! The real aggregator as a child process, and a gateway that speaks to it over its socket.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use galo_wire::record::{
    Accept, Acknowledgement, Claim, Completion, Grant, Hello, Intent, LookupQuery, LookupReply, PurgeQuery,
    Ready, Role, SummaryQuery, SummaryReply, Verdict,
};
use galo_wire::{
    CorrelationId, FrameWriter, Message, Outcome, PROTOCOL_VERSION, Processor, Stage, decode_frames,
};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const NOON_MS: u64 = 1_752_580_800_000;

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
        let mut stream = UnixStream::connect(self.0.join("http.sock")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
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

/// A gateway's connection.
pub struct Gateway {
    stream: UnixStream,
    received: Vec<u8>,
    pub messages: std::collections::VecDeque<Message>,
    frames: FrameWriter,
    sequence: u64,
}

impl Gateway {
    /// Waits until somebody listens.
    pub fn connect(path: &Path, instance: u8) -> Self {
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{}: {error}", path.display()),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut gateway = Self {
            stream,
            received: Vec::new(),
            messages: std::collections::VecDeque::new(),
            frames: FrameWriter::default(),
            sequence: 0,
        };
        gateway.push(Hello {
            protocol_version: PROTOCOL_VERSION,
            role: Role::Gateway,
            instance,
            thread: 0,
            reserved: 0,
            incarnation: 1,
        });
        gateway.flush().unwrap();
        assert!(matches!(gateway.next(), Some(Message::Hello(_))));
        gateway
    }

    pub fn push(&mut self, message: impl Into<Message>) {
        self.frames.push(message);
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
        let bytes = self.frames.take(Vec::new());
        self.stream.write_all(&bytes)
    }

    /// The next message; `None` if the aggregator is gone.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Some(message);
            }
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
            let used = decode_frames(&self.received, |message| self.messages.push_back(message)).unwrap();
            self.received.drain(..used);
        }
    }

    /// From here on [`Self::poll`] and [`Self::flush_all`] are used alone.
    pub fn set_nonblocking(&mut self) {
        self.stream.set_nonblocking(true).unwrap();
    }

    /// The next message, if one is there.
    pub fn poll(&mut self) -> Option<Message> {
        if self.messages.is_empty() {
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the aggregator is gone"),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
            }
            let used = decode_frames(&self.received, |message| self.messages.push_back(message)).unwrap();
            self.received.drain(..used);
        }
        self.messages.pop_front()
    }

    /// Writes everything, waiting for room by asking again.
    pub fn flush_all(&mut self) {
        let bytes = self.frames.take(Vec::new());
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
            }
        }
    }

    /// The next message that `pick` wants; others are passed over. `None` if the aggregator is gone.
    pub fn wait<T>(&mut self, pick: impl Fn(Message) -> Option<T>) -> Option<T> {
        loop {
            if let Some(wanted) = pick(self.next()?) {
                return Some(wanted);
            }
        }
    }

    pub fn push_accept(&mut self, id: CorrelationId, amount_cents: u64) {
        let (requested_at_ms, stage) = (NOON_MS + amount_cents, Stage::AtDefault);
        self.push(Accept {
            slot: 7,
            correlation_id: id,
            amount_cents,
            requested_at_ms,
            expires_at_us: u64::MAX,
            stage,
        });
    }

    pub fn next_grant(&mut self) -> Option<Grant> {
        self.wait(|message| if let Message::Grant(grant) = message { Some(grant) } else { None })
    }

    pub fn accept(&mut self, id: CorrelationId, amount_cents: u64) -> Verdict {
        self.push_accept(id, amount_cents);
        self.flush().unwrap();
        self.next_grant().unwrap().verdict
    }

    pub fn push_intent(&mut self, id: CorrelationId, requested_at_ms: u64, processor: Processor) {
        self.push(Intent { slot: 7, correlation_id: id, requested_at_ms, processor });
    }

    /// Returns the completion's number.
    pub fn push_completion(&mut self, id: CorrelationId, requested_at_ms: u64, outcome: Outcome) -> u64 {
        self.sequence += 1;
        let (sequence, processor) = (self.sequence, Processor::Default);
        self.push(Completion { sequence, correlation_id: id, requested_at_ms, processor, outcome });
        sequence
    }

    /// Waits until the completion of this number is acknowledged. That by itself waits for company, so a question is asked.
    pub fn acknowledged(&mut self, number: u64) -> Option<()> {
        self.push(LookupQuery { slot: u32::MAX, correlation_id: id(0) });
        self.flush().ok()?;
        self.wait(|message| match message {
            Message::Acknowledgement(Acknowledgement { sequence }) if sequence >= number => Some(()),
            _ => None,
        })?;
        self.wait(|message| match message {
            Message::LookupReply(LookupReply { slot: u32::MAX, .. }) => Some(()),
            _ => None,
        })
    }

    pub fn push_claim(&mut self, claim: Claim) {
        self.push(claim);
    }

    pub fn ready(&mut self) {
        self.push(Ready { claim_count: 0 });
    }

    pub fn lookup(&mut self, id: CorrelationId) -> LookupReply {
        self.push(LookupQuery { slot: 9, correlation_id: id });
        self.flush().unwrap();
        self.wait(|message| if let Message::LookupReply(reply) = message { Some(reply) } else { None })
            .unwrap()
    }

    pub fn summary(&mut self, from_ms: u64, to_ms: u64) -> SummaryReply {
        self.push(SummaryQuery { slot: 9, from_ms, to_ms });
        self.flush().unwrap();
        self.wait(|message| if let Message::SummaryReply(reply) = message { Some(reply) } else { None })
            .unwrap()
    }

    pub fn purge(&mut self) {
        self.push(PurgeQuery { slot: 9 });
        self.flush().unwrap();
        self.wait(|message| matches!(message, Message::PurgeReply(_)).then_some(())).unwrap();
    }
}

/// An id that looks random and is the same in every run.
pub fn id(number: u64) -> CorrelationId {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^= bits >> 31;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&bits.to_be_bytes());
    CorrelationId(bytes)
}
