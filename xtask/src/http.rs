//! A small blocking HTTP/1.1 client for the developer's commands: one connection per request, over TCP or a unix socket.
//!
//! The unix sockets are why this is not a crate: the small clients speak TCP only, and the drain must read the
//! aggregator's metrics after HAProxy has closed its ports. httparse reads the head. It must never hang: one deadline covers
//! connecting, sending and the whole answer. It survives servers that close early, answer garbage or send without end (each
//! is an error).

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::repo::Fallible;

/// More than any answer that the commands ask for: a referee's list of one million payments has about 100 bytes each.
const ANSWER_SIZE_MAX: usize = 256 << 20;
const HEADERS_COUNT_MAX: usize = 64;

/// Who is asked.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

trait Stream: Read + Write {
    fn limit(&self, timeout: Duration) -> std::io::Result<()>;
}

impl Stream for TcpStream {
    fn limit(&self, timeout: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Stream for UnixStream {
    fn limit(&self, timeout: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Origin {
    pub(crate) fn local(port: u16) -> Self {
        Self::Tcp(format!("127.0.0.1:{port}"))
    }

    /// The origin of an `http://host[:port]` URL.
    pub(crate) fn of_url(url: &str) -> Fallible<Self> {
        let authority = url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
        match authority {
            Some("") | None => Err(format!("{url} is not of the form http://host:port")),
            Some(host) if host.contains(':') => Ok(Self::Tcp(host.to_owned())),
            Some(host) => Ok(Self::Tcp(format!("{host}:80"))),
        }
    }

    pub(crate) fn get(&self, path: &str, timeout: Duration) -> Fallible<Answer> {
        self.send("GET", path, &[], b"", timeout)
    }

    /// Sends one request and reads the whole answer, within `timeout` in all.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Fallible<Answer> {
        let deadline = Instant::now() + timeout;
        let exchange = || -> Fallible<Answer> {
            let mut stream = self.connect(timeout)?;
            let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
            for (name, value) in headers {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
            if !body.is_empty() || method != "GET" {
                request.push_str(&format!(
                    "Content-Type: application/json\r\nContent-Length: {}\r\n",
                    body.len()
                ));
            }
            request.push_str("\r\n");
            let mut bytes = request.into_bytes();
            bytes.extend_from_slice(body);
            stream.limit(remaining(deadline)?).map_err(|error| error.to_string())?;
            stream.write_all(&bytes).map_err(|error| error.to_string())?;
            read_answer(stream.as_mut(), deadline)
        };
        exchange().map_err(|error| format!("{method} {path} at {}: {error}", self.name()))
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Tcp(authority) => authority.clone(),
            Self::Unix(path) => path.display().to_string(),
        }
    }

    fn connect(&self, timeout: Duration) -> Fallible<Box<dyn Stream>> {
        match self {
            Self::Unix(path) => UnixStream::connect(path)
                .map(|stream| Box::new(stream) as Box<dyn Stream>)
                .map_err(|error| error.to_string()),
            Self::Tcp(authority) => {
                let addresses = authority.to_socket_addrs().map_err(|error| error.to_string())?;
                let mut failure = "the name has no address".to_owned();
                for address in addresses {
                    match TcpStream::connect_timeout(&address, timeout) {
                        Ok(stream) => return Ok(Box::new(stream)),
                        Err(error) => failure = error.to_string(),
                    }
                }
                Err(failure)
            }
        }
    }
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Fallible<serde_json::Value> {
        serde_json::from_slice(&self.body).map_err(|error| format!("not JSON ({error}): {}", self.text()))
    }

    /// The answer if its status is `status`.
    pub(crate) fn expect(self, status: u16) -> Fallible<Self> {
        if self.status == status {
            Ok(self)
        } else {
            Err(format!("status {} instead of {status}: {}", self.status, self.text()))
        }
    }
}

fn remaining(deadline: Instant) -> Fallible<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err("no answer in time".to_owned()) } else { Ok(left) }
}

/// How the body's end is told.
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

fn read_answer(stream: &mut dyn Stream, deadline: Instant) -> Fallible<Answer> {
    let mut received = Vec::new();
    let mut head: Option<(u16, usize, Framing)> = None;
    loop {
        if head.is_none() {
            head = parse_head(&received)?;
        }
        if let Some((status, body_at, framing)) = &head {
            let rest = received.get(*body_at..).unwrap_or_default();
            let body = match framing {
                Framing::Length(length) => rest.get(..*length).map(<[u8]>::to_vec),
                Framing::Chunked => join_chunks(rest)?,
                Framing::UntilClose => None,
            };
            if let Some(body) = body {
                return Ok(Answer { status: *status, body });
            }
        }
        if received.len() > ANSWER_SIZE_MAX {
            return Err(format!("an answer of more than {ANSWER_SIZE_MAX} bytes"));
        }
        stream.limit(remaining(deadline)?).map_err(|error| error.to_string())?;
        let mut block = [0; 65_536];
        let count = match stream.read(&mut block) {
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                return Err("no answer in time".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        };
        if count == 0 {
            return match head {
                Some((status, body_at, Framing::UntilClose)) => {
                    Ok(Answer { status, body: received.split_off(body_at) })
                }
                _ => Err("the connection was closed before the answer's end".to_owned()),
            };
        }
        received.extend_from_slice(&block[..count]);
    }
}

/// Status, start of the body and framing, once the head is whole.
fn parse_head(received: &[u8]) -> Fallible<Option<(u16, usize, Framing)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_COUNT_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let body_at = match response.parse(received).map_err(|error| format!("not HTTP: {error}"))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(size) => size,
    };
    let status = response.code.ok_or("not HTTP: no status")?;
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let framing = if matches!(status, 204 | 304) {
        Framing::Length(0)
    } else if value("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        Framing::Chunked
    } else if let Some(length) = value("content-length") {
        Framing::Length(length.parse().map_err(|_| format!("not HTTP: Content-Length {length}"))?)
    } else {
        Framing::UntilClose
    };
    Ok(Some((status, body_at, framing)))
}

/// The body without its chunk sizes, once the last chunk is there.
fn join_chunks(mut rest: &[u8]) -> Fallible<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let (data_at, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((data_at, size))) => (data_at, size),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("not HTTP: a bad chunk size".to_owned()),
        };
        let size = usize::try_from(size).map_err(|_| "a chunk larger than memory")?;
        if size == 0 {
            return Ok(Some(body));
        }
        let Some(end) = data_at.checked_add(size).filter(|end| end + 2 <= rest.len()) else {
            return Ok(None);
        };
        body.extend_from_slice(&rest[data_at..end]);
        rest = &rest[end + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Answers one request with these bytes, in two writes, and closes.
    fn answered_with(bytes: &'static [u8]) -> Fallible<Answer> {
        let path = std::env::temp_dir().join(format!("galo-http-{}-{:p}.sock", std::process::id(), bytes));
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /x HTTP/1.1\r\n"));
            let (first, second) = bytes.split_at(bytes.len() / 2);
            stream.write_all(first).unwrap();
            // A client that saw garbage in the first half has hung up already.
            drop(stream.write_all(second));
        });
        let answer = Origin::Unix(path.clone()).get("/x", Duration::from_secs(5));
        server.join().unwrap();
        std::fs::remove_file(path).unwrap();
        answer
    }

    #[test]
    fn each_framing_is_read_to_its_end() {
        for bytes in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more".as_slice(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nhello",
        ] {
            let answer = answered_with(bytes).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        }
    }

    #[test]
    fn an_unfinished_or_foreign_answer_is_an_error() {
        for bytes in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello".as_slice(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhel",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 200",
        ] {
            answered_with(bytes).expect_err("not a whole answer");
        }
    }

    #[test]
    fn urls_become_origins() {
        assert_eq!(Origin::of_url("http://localhost:8001").unwrap().name(), "localhost:8001");
        assert_eq!(Origin::of_url("http://processor/").unwrap().name(), "processor:80");
        Origin::of_url("https://processor").expect_err("only http");
        Origin::of_url("http://").expect_err("no host");
    }
}
