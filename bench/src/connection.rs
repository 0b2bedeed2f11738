//! One kept-alive connection: a request out, its answer in, and the number of the payment that is on its way.
//!
//! Reads only as much of an answer as tells where it ends and what status it has. Must never send a second request before
//! the first is answered: HTTP/1.1 would keep the order, but one slow answer would then hide behind another's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use memchr::memmem;

const BUFFER_SIZE: usize = 16 << 10;

/// A client's end of a connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Box<[u8; BUFFER_SIZE]>,
    filled: usize,
    /// The payment whose answer is awaited.
    pub in_flight: Option<u64>,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Not the whole answer yet.
    More,
    /// A whole answer with this status.
    Status(u16),
}

impl Connection {
    /// Opens one; blocks until it stands.
    ///
    /// # Errors
    /// As connecting has them.
    pub fn open(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(target)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, buffer: Box::new([0; BUFFER_SIZE]), filled: 0, in_flight: None })
    }

    /// The socket, to be watched.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a whole request.
    ///
    /// # Errors
    /// If the connection is gone, or takes less than the request, which is a few hundred bytes into an empty buffer.
    pub fn send(&mut self, request: &[u8], number: u64) -> io::Result<()> {
        assert!(self.in_flight.is_none(), "one request at a time");
        self.filled = 0;
        match self.stream.write(request)? {
            size if size == request.len() => self.in_flight = Some(number),
            _ => return Err(ErrorKind::WriteZero.into()),
        }
        Ok(())
    }

    /// Reads what has come.
    ///
    /// # Errors
    /// If the connection ended, or what came is no answer.
    pub fn receive(&mut self) -> io::Result<Progress> {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(size) => self.filled += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::More),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Some(status) = whole_answer(&self.buffer[..self.filled])? {
                return Ok(Progress::Status(status));
            }
        }
    }
}

/// The status, once the answer is whole. Only answers with a length are understood, as HAProxy and Galo give them.
fn whole_answer(bytes: &[u8]) -> io::Result<Option<u16>> {
    let Some(head_size) = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
        return if bytes.len() == BUFFER_SIZE { Err(ErrorKind::InvalidData.into()) } else { Ok(None) };
    };
    let head = &bytes[..head_size];
    let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| number(rest.get(..3)?));
    let status = status.and_then(|status| u16::try_from(status).ok()).ok_or(ErrorKind::InvalidData)?;
    let body_size = match status {
        204 | 304 => 0,
        _ => content_length(head).ok_or(ErrorKind::InvalidData)?,
    };
    Ok((bytes.len() >= head_size + body_size).then_some(status))
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME)))?;
    number(line[NAME.len()..].trim_ascii())
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte_and_not_before() {
        for (answer, status) in [
            (&b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"[..], 202),
            (b"HTTP/1.1 503 X\r\nRetry-After: 1\r\nContent-Length:   3 \r\n\r\nabc", 503),
            (b"HTTP/1.1 204 X\r\n\r\n", 204),
        ] {
            for size in 0..answer.len() {
                assert_eq!(whole_answer(&answer[..size]).ok(), Some(None), "{size} bytes");
            }
            assert_eq!(whole_answer(answer).ok(), Some(Some(status)));
        }
        assert!(whole_answer(b"SMTP\r\n\r\n").is_err());
        assert!(whole_answer(b"HTTP/1.1 200 X\r\n\r\n").is_err(), "no length: no telling where it ends");
    }
}
