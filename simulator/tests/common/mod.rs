//! A running `processor`, and HTTP/1.1 spoken over a bare socket so that a test sees each byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";
pub(crate) const TOKEN: &str = "X-Rinha-Token: 123\r\n";

/// Only a broken test waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Processor {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Processor {
    /// Starts one on a free port and waits for its line.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_processor")), arguments)
    }

    /// The same under a soft limit on open descriptors.
    pub(crate) fn start_limited(descriptors_max: u32, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -Sn {descriptors_max}; exec \"$0\" \"$@\"")]);
        shell.arg(env!("CARGO_BIN_EXE_processor"));
        Self::start_as(shell, arguments)
    }

    fn start_as(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--name", "test"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("processor test: listening on ").unwrap().split(',').next().unwrap();
        Processor { address: address.parse().unwrap(), child }
    }

    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, unread: Vec::new() }
    }

    /// One request with the token on a connection of its own.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &str) -> Response {
        self.connect().exchange(&request(method, path, TOKEN, body))
    }

    pub(crate) fn statistic(&self, name: &str) -> u64 {
        let body = self.admin("GET", "/admin/statistics", "").text();
        serde_json::from_str::<serde_json::Value>(&body).unwrap()[name].as_u64().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        // Already ended in the tests that end it.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    };
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}{content}\r\n{body}")
}

pub(crate) fn payment(id: &str, amount: &str, requested_at: &str) -> String {
    let body = format!(r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{requested_at}"}}"#);
    request("POST", "/payments", "", &body)
}

/// A payment with an id made of a number, at a fixed time.
pub(crate) fn payment_number(number: u32) -> String {
    payment(&format!("00000000-0000-4000-8000-{number:012}"), "19.9", "2025-07-15T12:34:56.120Z")
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.head.contains("transfer-encoding: chunked")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, v)| v)
    }
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub(crate) fn send(&mut self, request: &str) {
        self.stream.write_all(request.as_bytes()).unwrap();
    }

    pub(crate) fn exchange(&mut self, request: &str) -> Response {
        self.send(request);
        self.receive()
    }

    /// Everything until the connection ends, and whether it ended with a reset.
    pub(crate) fn drain(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = std::mem::take(&mut self.unread);
        let reset = self.stream.read_to_end(&mut bytes).is_err();
        (bytes, reset)
    }

    pub(crate) fn receive(&mut self) -> Response {
        let head_len = loop {
            match self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(position) => break position + 4,
                None => self.fill(),
            }
        };
        let head = String::from_utf8(self.unread.drain(..head_len).collect()).unwrap().to_lowercase();
        let status = head[9..12].parse().unwrap();
        let mut response = Response { status, head, body: Vec::new() };
        if response.is_chunked() {
            loop {
                let line = self.line();
                let len = usize::from_str_radix(&line, 16).unwrap();
                self.fill_to(len + 2);
                response.body.extend(self.unread.drain(..len));
                assert_eq!(self.line(), "", "a chunk ends where it says");
                if len == 0 {
                    return response;
                }
            }
        }
        let len = response.header("content-length").map_or(0, |text| text.parse().unwrap());
        self.fill_to(len);
        response.body = self.unread.drain(..len).collect();
        response
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(len) = self.unread.windows(2).position(|bytes| bytes == b"\r\n") {
                let line = String::from_utf8(self.unread.drain(..len).collect()).unwrap();
                self.unread.drain(..2);
                return line;
            }
            self.fill();
        }
    }

    fn fill_to(&mut self, len: usize) {
        while self.unread.len() < len {
            self.fill();
        }
    }

    fn fill(&mut self) {
        let mut bytes = [0; 64 * 1024];
        let len = self.stream.read(&mut bytes).unwrap();
        assert_ne!(len, 0, "the connection ended within an answer, after {:?}", self.unread);
        self.unread.extend(&bytes[..len]);
    }
}
