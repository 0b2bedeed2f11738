//! What each write to the socket holds. Over TCP a reader may see two writes as one, so this looks before the kernel does.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;

use super::listener::http1;
use super::*;
use crate::processor::Config;

/// A socket that holds one request, then silence, and keeps the writes apart.
struct Recorder {
    unread: Vec<u8>,
    writes: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Read for Recorder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Poll::Pending;
        }
        buffer.put_slice(&std::mem::take(&mut self.unread));
        Poll::Ready(Ok(()))
    }
}

impl Write for Recorder {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.borrow_mut().push(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn every_eighth_body_ends_in_a_write_of_its_own() {
    const BODY: &str = r#"{"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3","amount":1,"requestedAt":"2025-07-15T12:34:56Z"}"#;
    let request = format!(
        "POST /payments HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config::new("0.05".parse().unwrap());
    let service = Service::new(Processor::new(config), String::from("123"));
    let mut late_len = 0;
    for number in 0..32 {
        let writes = Rc::new(RefCell::new(Vec::new()));
        let recorder = Recorder { unread: request.clone().into_bytes(), writes: Rc::clone(&writes) };
        let connection = http1().serve_connection(
            recorder,
            service_fn(|request| Box::pin(routes::route(Rc::clone(&service), request))),
        );
        runtime.block_on(connection).unwrap();
        let writes = writes.borrow();
        // The first is a 200, all others are duplicates of it.
        let status: &[u8] = if number == 0 { b"HTTP/1.1 200" } else { b"HTTP/1.1 422" };
        assert!(writes[0].starts_with(status), "{number}");
        match writes.len() {
            1 => assert!(writes[0].ends_with(b"\r\n0\r\n\r\n"), "{number}"),
            2 => {
                assert_eq!(writes[1], b"0\r\n\r\n", "{number}");
                late_len += 1;
            }
            writes_len => panic!("{writes_len} writes for answer {number}"),
        }
    }
    assert_eq!(late_len, 4);
}
