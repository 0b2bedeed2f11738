//! A blocking HTTP client that reads answers strictly and sends whatever it is told to.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// One answer, taken apart.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Checks that this is problem+json of this type.
    pub(super) fn is_problem(&self, status: u16, kind: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let start = format!(r#"{{"type":"/problems/{kind}","title":""#);
        assert!(self.body.starts_with(&start), "{} is no {kind}", self.body);
        assert!(self.body.contains(&format!(r#""status":{status},"detail":""#)), "{}", self.body);
        assert_eq!(self.header("retry-after").is_some(), status == 503);
    }
}

pub(super) struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what the server may refuse to read; whether it took all.
    pub(super) fn try_send(&mut self, bytes: &[u8]) -> bool {
        let Err(error) = self.stream.write_all(bytes) else { return true };
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        false
    }

    /// Sends one byte per write.
    pub(super) fn drip(&mut self, bytes: &[u8]) {
        bytes.chunks(1).for_each(|byte| self.send(byte));
    }

    pub(super) fn finish_sending(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    pub(super) fn request(&mut self, method: &str, target: &str, body: &str) {
        self.send(request(method, target, body).as_bytes());
    }

    pub(super) fn reply(&mut self) -> Reply {
        self.read_reply(true)
    }

    pub(super) fn reply_to_head(&mut self) -> Reply {
        self.read_reply(false)
    }

    fn read_reply(&mut self, has_body: bool) -> Reply {
        let head_size = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill(),
                "the stream ended before an answer: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        };
        let head = String::from_utf8(self.buffer.drain(..head_size).collect()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap().get(..3).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, body: String::new() };
        let size = match (reply.header("content-length"), status) {
            (length, 100 | 204) => {
                assert_eq!(length, None, "a {status} has no length");
                0
            }
            (length, _) => length.expect("every other answer states its length").parse().unwrap(),
        };
        if has_body {
            while self.buffer.len() < size {
                assert!(self.fill(), "the stream ended within a body");
            }
            reply.body = String::from_utf8(self.buffer.drain(..size).collect()).unwrap();
        }
        reply
    }

    /// Checks that nothing more comes.
    pub(super) fn ends(&mut self) {
        assert!(!self.fill(), "expected the end, got {:?}", String::from_utf8_lossy(&self.buffer));
        assert!(self.buffer.is_empty());
    }

    fn fill(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(size) => {
                self.buffer.extend_from_slice(&bytes[..size]);
                size > 0
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.fill(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

pub(super) fn request(method: &str, target: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!(
        "{method} {target} HTTP/1.1\r\nHost: galo\r\nContent-Type: application/json\r\n{length}\r\n{body}"
    )
}
