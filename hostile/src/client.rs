//! A client that sends any bytes whatever and says exactly what came back.
//!
//! Blocking sockets, one thread per conversation, no HTTP library: a library would refuse to send most of what is sent
//! here. Answers are read strictly, since what Galo says must be above reproach; whoever reads one that is not framed
//! soundly gets an error that names the fault. Every wait has an end, [`PATIENCE`], far above what anything takes here:
//! it is there so that a hang becomes a failure, never to measure.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

/// After so long without a byte somebody hangs. A request that is never finished is given up after 5 s by a gateway.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How a request gets in.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Through HAProxy.
    Front(SocketAddr),
    /// Straight at a gateway's unix socket.
    Straight(PathBuf),
}

impl Way {
    pub(crate) fn is_front(&self) -> bool {
        matches!(self, Self::Front(_))
    }

    pub(crate) fn name(&self) -> &'static str {
        if self.is_front() { "HAProxy" } else { "gateway" }
    }

    /// One request on a connection of its own, and its answer.
    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> Result<Answer, String> {
        let mut connection = Connection::open(self)?;
        let answer = connection.request(method, target, body)?;
        // A gateway counts an answer once it is written, and closes after that: whoever waits for the end may count too.
        connection.finish_sending();
        connection.end(PATIENCE)?;
        Ok(answer)
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection.
pub(crate) struct Connection {
    stream: Stream,
    unread: Vec<u8>,
}

/// One answer, whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The end of the stream.
    Closed,
    /// A reset.
    Reset,
    /// It did not: bytes came, or nothing for as long as was waited.
    Open,
}

impl Connection {
    pub(crate) fn open(way: &Way) -> Result<Self, String> {
        let open = || -> io::Result<Stream> {
            Ok(match way {
                Way::Front(address) => {
                    let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                    stream.set_nodelay(true)?;
                    Stream::Tcp(stream)
                }
                Way::Straight(path) => Stream::Unix(UnixStream::connect(path)?),
            })
        };
        let connection = Self {
            stream: open().map_err(|error| format!("cannot connect to {}: {error}", way.name()))?,
            unread: Vec::new(),
        };
        connection.set_timeout(PATIENCE)?;
        Ok(connection)
    }

    /// Connects unless there is no room just now.
    pub(crate) fn open_soon(way: &Way) -> Option<Self> {
        let Way::Front(address) = way else { return Self::open(way).ok() };
        let stream = TcpStream::connect_timeout(address, Duration::from_millis(2)).ok()?;
        let connection = Self { stream: Stream::Tcp(stream), unread: Vec::new() };
        connection.set_timeout(PATIENCE).ok()?;
        Some(connection)
    }

    fn set_timeout(&self, limit: Duration) -> Result<(), String> {
        let limit = Some(limit.max(Duration::from_millis(1)));
        let set = match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(limit).and(stream.set_write_timeout(limit)),
            Stream::Unix(stream) => stream.set_read_timeout(limit).and(stream.set_write_timeout(limit)),
        };
        set.map_err(|error| error.to_string())
    }

    /// Sends bytes; says whether all of them were taken. A server that has refused need not take the rest.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        let result = match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        };
        result.is_ok()
    }

    /// Says that nothing more will come.
    pub(crate) fn finish_sending(&self) {
        let result = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        // Already closed by the other side: it will not hear it, and that is fine.
        result.unwrap_or_default();
    }

    /// Sends a well-formed request and reads its answer.
    pub(crate) fn request(&mut self, method: &str, target: &str, body: &str) -> Result<Answer, String> {
        self.send(request(method, target, body).as_bytes());
        self.answer(method == "HEAD")
    }

    /// Reads one answer; `is_head` when it has no body whatever its length says.
    pub(crate) fn answer(&mut self, is_head: bool) -> Result<Answer, String> {
        let head_size = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            if self.unread.len() > 64 << 10 {
                return Err("an answer's head of more than 64 KiB".to_owned());
            }
            match self.read()? {
                0 if self.unread.is_empty() => return Err("no answer: the connection was closed".to_owned()),
                0 => return Err(format!("an answer cut short: {:?}", show(&self.unread))),
                _ => {}
            }
        };
        let head: Vec<u8> = self.unread.drain(..head_size).collect();
        let mut answer = Answer::parse_head(&head)?;
        let has_body = !is_head && !matches!(answer.status, 100..=199 | 204 | 304);
        let length = match answer.header("content-length") {
            Some(text) => Some(text.parse::<usize>().map_err(|_| format!("a length of {text:?}"))?),
            None => None,
        };
        if !has_body {
            return Ok(answer);
        }
        let Some(length) = length else {
            // HAProxy's own page for bytes that are no HTTP ends with the connection.
            while self.read()? > 0 {}
            answer.body = std::mem::take(&mut self.unread);
            return Ok(answer);
        };
        while self.unread.len() < length {
            if self.read()? == 0 {
                return Err(format!("{} of a body's {length} bytes", self.unread.len()));
            }
        }
        answer.body = self.unread.drain(..length).collect();
        Ok(answer)
    }

    /// Reads one answer, or `None` if the connection is closed or reset before its first byte, as it may be on a client that was not done
    /// sending, or that left. Silence is an error here too.
    pub(crate) fn answer_or_end(&mut self) -> Result<Option<Answer>, String> {
        if self.unread.is_empty() {
            match self.try_read() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err("neither an answer nor an end".to_owned());
                }
                Err(_) => return Ok(None),
            }
        }
        self.answer(false).map(Some)
    }

    /// Waits for the next byte, at most so long, and says whether it, or the end, is here.
    pub(crate) fn stirs(&mut self, limit: Duration) -> Result<bool, String> {
        if !self.unread.is_empty() {
            return Ok(true);
        }
        self.set_timeout(limit)?;
        let stirs = match self.try_read() {
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            Ok(_) => true,
        };
        self.set_timeout(PATIENCE)?;
        Ok(stirs)
    }

    /// Whether the other side has closed it already, as far as can be seen without waiting.
    pub(crate) fn is_closed(&mut self) -> bool {
        let wait = |connection: &Self, is_waiting: bool| match &connection.stream {
            Stream::Tcp(stream) => stream.set_nonblocking(!is_waiting),
            Stream::Unix(stream) => stream.set_nonblocking(!is_waiting),
        };
        let seen = wait(self, false).and_then(|()| self.try_read());
        let is_back = wait(self, true).is_ok();
        !is_back || seen.map_or_else(|error| error.kind() != ErrorKind::WouldBlock, |size| size == 0)
    }

    /// Reads until the other side closes, at most for `limit`. Bytes that come instead count as [`End::Open`].
    pub(crate) fn end(&mut self, limit: Duration) -> Result<End, String> {
        if !self.unread.is_empty() {
            return Ok(End::Open);
        }
        self.set_timeout(limit)?;
        let end = match self.try_read() {
            Ok(0) => End::Closed,
            Ok(_) => End::Open,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => End::Open,
            Err(_) => End::Reset,
        };
        self.set_timeout(PATIENCE)?;
        Ok(end)
    }

    /// What has come and belongs to no answer yet.
    pub(crate) fn unread(&self) -> String {
        show(&self.unread)
    }

    fn read(&mut self) -> Result<usize, String> {
        let started = Instant::now();
        self.try_read().map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("no answer for {:.1?}, after {:?}", started.elapsed(), show(&self.unread))
            }
            _ => format!("the connection broke ({error}), after {:?}", show(&self.unread)),
        })
    }

    fn try_read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        let size = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut buffer)?,
            Stream::Unix(stream) => stream.read(&mut buffer)?,
        };
        self.unread.extend_from_slice(&buffer[..size]);
        Ok(size)
    }
}

impl Answer {
    fn parse_head(head: &[u8]) -> Result<Self, String> {
        let text =
            std::str::from_utf8(head).map_err(|_| format!("a head that is no text: {}", show(head)))?;
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status =
            line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|s| s.parse().ok());
        let headers = lines
            .map(|line| line.split_once(':').map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned())))
            .collect::<Option<Vec<_>>>();
        match (status, headers) {
            (Some(status), Some(headers)) => Ok(Self { status, headers, body: Vec::new() }),
            _ => Err(format!("an answer that is none: {}", show(head))),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks that this is a problem of that status and type, which says why, and gives its `field`.
    ///
    /// HAProxy's own refusals have no `detail`, and where its parser gave up no problem either: `by_gateway` tells.
    pub(crate) fn problem(
        &self,
        status: u16,
        kind: &str,
        by_gateway: bool,
    ) -> Result<Option<String>, String> {
        if self.status != status {
            return Err(format!("{} instead of {status}: {}", self.status, self.text()));
        }
        if self.header("content-type") != Some("application/problem+json") {
            return Err(format!(
                "{status} as {:?}, no problem: {}",
                self.header("content-type"),
                self.text()
            ));
        }
        let value: Value =
            serde_json::from_slice(&self.body).map_err(|error| format!("{error}: {}", self.text()))?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let expected = format!("/problems/{kind}");
        if text("type") != expected {
            return Err(format!("type {:?} instead of {expected:?}", text("type")));
        }
        if value.get("status").and_then(Value::as_u64) != Some(status.into()) || text("title").is_empty() {
            return Err(format!("another status in the body than {status}, or no title: {}", self.text()));
        }
        if by_gateway && text("detail").len() < 10 {
            return Err(format!("does not say why: {}", self.text()));
        }
        Ok(value.get("field").and_then(Value::as_str).map(str::to_owned))
    }
}

/// A well-formed request.
pub(crate) fn request(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    if method == "GET" || method == "HEAD" || method == "OPTIONS" {
        return format!("{method} {target} HTTP/1.1\r\nHost: galo\r\n\r\n{body}");
    }
    format!(
        "{method} {target} HTTP/1.1\r\nHost: galo\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Bytes for a line of a report.
pub(crate) fn show(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(160)].escape_ascii().to_string();
    if bytes.len() > 160 { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

/// Where `needle` is first found.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn served(bytes: &'static [u8]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.accept().unwrap().0.write_all(bytes).unwrap());
        Connection::open(&Way::Front(address)).unwrap()
    }

    #[test]
    fn answers_are_read_one_after_the_other() {
        let mut connection = served(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 204 X\r\n\r\n",
        );
        let statuses: Vec<u16> = (0..3).map(|_| connection.answer(false).unwrap().status).collect();
        assert_eq!(statuses, [100, 200, 204]);
        assert_eq!(connection.end(PATIENCE), Ok(End::Closed));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhi",
            b"nonsense\r\n\r\n",
        ] {
            assert!(served(bytes).answer(false).is_err(), "{}", show(bytes));
        }
    }

    #[test]
    fn an_end_instead_of_an_answer_is_neither_silence_nor_half_an_answer() {
        assert!(served(b"").answer_or_end().unwrap().is_none());
        assert!(served(b"HTTP/1.1 400 X\r\nContent-Le").answer_or_end().is_err());
        assert!(served(b"nonsense\r\n\r\n").answer_or_end().is_err());
        let mut answered = served(b"HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(answered.answer_or_end().unwrap().unwrap().status, 400);
        // Connected by the kernel, and never accepted.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(&Way::Front(silent.local_addr().unwrap())).unwrap();
        connection.set_timeout(Duration::from_millis(1)).unwrap();
        assert!(connection.answer_or_end().is_err());
    }

    #[test]
    fn a_second_answer_is_no_end() {
        let mut connection = served(b"HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n");
        assert_eq!(connection.answer(false).unwrap().status, 400);
        assert_eq!(connection.end(PATIENCE), Ok(End::Open));
    }
}
