//! The floor: answers over unix sockets without reading what was asked.
//!
//! Stands where a gateway would, behind the same HAProxy with the same configuration, so that what remains between it and Galo is Galo.
//! It looks at one byte: a request that begins with P gets 202, any other (a health check, a summary) 200 and a summary of nothing.
//!
//! It is right for HAProxy alone, which buffers a request and sends it in one write: one read, one answer. Must never parse, count or
//! remember anything. A connection on which anything goes wrong is closed.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// The gateway's own answer, to the byte.
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

/// What k6's script can read as a summary, and HAProxy as health.
const OTHER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n\
{\"default\":{\"totalRequests\":0,\"totalAmount\":0.00},\"fallback\":{\"totalRequests\":0,\"totalAmount\":0.00}}";

const EVENT_COUNT_MAX: usize = 512;

/// Serves for the rest of the process's life.
///
/// # Errors
/// If a socket cannot be bound, or epoll fails.
pub fn serve(sockets: &[PathBuf]) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut listeners = Vec::new();
    for (index, path) in sockets.iter().enumerate() {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        listeners.push(listener);
    }
    let mut streams: Vec<Option<UnixStream>> = Vec::new();
    let mut events = vec![EpollEvent::empty(); EVENT_COUNT_MAX];
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            let index = usize::try_from(event.data()).map_err(io::Error::other)?;
            if let Some(listener) = listeners.get(index) {
                accept(listener, &epoll, &mut streams, listeners.len())?;
            } else if let Some(place) = streams.get_mut(index - listeners.len())
                && let Some(stream) = place
                && !answer(stream, &mut buffer)
            {
                *place = None;
            }
        }
    }
}

fn accept(
    listener: &UnixListener,
    epoll: &Epoll,
    streams: &mut Vec<Option<UnixStream>>,
    offset: usize,
) -> io::Result<()> {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    stream.set_nonblocking(true)?;
    let index = streams.iter().position(Option::is_none).unwrap_or_else(|| {
        streams.push(None);
        streams.len() - 1
    });
    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, (offset + index) as u64))?;
    streams[index] = Some(stream);
    Ok(())
}

/// One read, one answer; `false` when the connection is over.
fn answer(stream: &mut UnixStream, buffer: &mut [u8]) -> bool {
    let answer = match stream.read(buffer) {
        Ok(0) => return false,
        Ok(_) if buffer[0] == b'P' => ACCEPTED,
        Ok(_) => OTHER,
        Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    };
    matches!(stream.write(answer), Ok(size) if size == answer.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_of_the_length_that_they_state() {
        let length = |answer: &[u8]| {
            let text = std::str::from_utf8(answer).expect("ASCII");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            let stated = head.rsplit_once("content-length: ").and_then(|(_, length)| length.parse().ok());
            assert_eq!(stated, Some(body.len()));
            answer.len()
        };
        assert_eq!(length(ACCEPTED), 44, "as the gateway's");
        length(OTHER);
    }
}
