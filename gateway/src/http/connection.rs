//! One connection: whole requests in, answers out, in order, until somebody wants it closed.
//!
//! The loop reads the socket until `framing` has one whole request, reads it itself (a payment) or grants it to the codec
//! (any other), has it answered and writes the answer before it looks at the next; pipelined requests wait in the intake.
//! Whatever cannot be framed is refused and ends the connection, because nobody knows where the next request would start.
//!
//! What it survives: bytes of any kind, at any pace, cut anywhere; a client that never reads; a codec that disagrees
//! with `framing` (see `gate`). What it must never do: panic, answer a request twice, or read a request out of
//! another's body. Deadlines and graceful stops come from outside, as the end of the stream (see `watch`).

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use monoio::buf::IoBufMut;
use monoio::io::sink::Sink;
use monoio::io::stream::Stream;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::UnixStream;
use monoio::time::Instant;
use monoio_http::common::error::HttpError;
use monoio_http::common::request::Request;
use monoio_http::h1::codec::ServerCodec;
use monoio_http::h1::codec::decoder::FillPayload;
use monoio_http::h1::payload::Payload;

use super::answer::{self, Answer};
use super::framing::{Framer, Framing, Head, Progress};
use super::gate::{Gate, Intake};
use super::payment::PaymentReader;
use super::problem::{self, Refusal};
use super::routes;
use super::service::{Endpoint, Service};
use super::watch::{Registry, Ticket};

/// Bytes that a refused client may still send before its connection is cut: sixteen budgets.
const LINGER_SIZE_MAX: usize = 256 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What all connections of a thread share.
pub(super) struct Shared<S> {
    pub(super) service: Rc<S>,
    pub(super) reader: RefCell<PaymentReader>,
    pub(super) registry: Rc<Registry>,
}

/// Serves one connection to its end.
pub(super) async fn serve<S: Service>(stream: UnixStream, shared: Rc<Shared<S>>) {
    let fd = stream.as_raw_fd();
    let (reader, writer) = stream.into_split();
    // A second handle for the answers that the codec cannot write. Never used while the codec writes.
    let raw_writer = OwnedWriteHalf(Rc::clone(&reader.0));
    let intake = Rc::new(RefCell::new(Intake::new()));
    let codec = ServerCodec::new(Gate::new(Rc::clone(&intake), writer));
    // Fields are dropped in order: the ticket first, the socket's handles after it.
    let mut connection =
        Connection { ticket: shared.registry.admit(fd), shared, intake, codec, reader, raw_writer };
    if let Err(error) = connection.run().await {
        tracing::debug!(%error, "connection lost");
    }
}

struct Connection<S> {
    ticket: Ticket,
    shared: Rc<Shared<S>>,
    intake: Rc<RefCell<Intake>>,
    codec: ServerCodec<Gate>,
    reader: OwnedReadHalf<UnixStream>,
    raw_writer: OwnedWriteHalf<UnixStream>,
}

/// What reading led to.
enum Received {
    /// A whole request is at the front of the intake.
    Whole(Head, usize),
    /// The client has gone, or must go, and is owed nothing.
    Nothing,
    /// Something that is no request.
    Refused(Refusal),
}

impl<S: Service> Connection<S> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let (head, size) = match self.receive().await? {
                Received::Whole(head, size) => (head, size),
                Received::Nothing => return Ok(()),
                Received::Refused(problem) => return self.refuse(problem).await,
            };
            let received_at = Instant::now();
            self.ticket.serving();
            let Some((mut answer, endpoint, is_head)) = self.answer(head, size).await else {
                return self.refuse(&problem::BAD_TARGET).await;
            };
            let stays = head.keep_alive && !self.ticket.is_leaving();
            answer::set_connection(&mut answer, stays, head.http_10);
            let status = answer.status();
            self.ticket.writing();
            self.write(answer, is_head).await?;
            let elapsed_us = u64::try_from(received_at.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.shared.service.observe(endpoint, status.as_u16(), elapsed_us);
            if !stays {
                // Bytes beyond the last request (pipelined ones that will not be served) would reset the connection.
                let is_clean = self.intake.borrow().pending().is_empty();
                return if is_clean { Ok(()) } else { self.linger().await };
            }
        }
    }

    /// Has the whole request at the front of the intake answered, and says what it asked for and whether for the head alone;
    /// `None` if the codec cannot read it.
    async fn answer(&mut self, head: Head, size: usize) -> Option<(Answer, Endpoint, bool)> {
        let Shared { service, reader, .. } = &*self.shared;
        if let Some(shift) = head.shift {
            service.in_shift(shift);
        }
        let payment = {
            let mut intake = self.intake.borrow_mut();
            let body = head.payment(&intake.pending()[..size]);
            let names = service.client_members();
            let names = names.as_deref().unwrap_or_default();
            let payment = body.map(|body| reader.borrow_mut().read_with(body, names));
            match payment {
                Some(_) => intake.skip(size),
                None => intake.grant(size),
            }
            payment
        };
        if let Some(payment) = payment {
            return Some((routes::pay(&**service, payment).await, Endpoint::Payments, false));
        }
        let (request, body) = decode(&mut self.codec, &self.intake, head).await?;
        let answer = routes::answer(&**service, reader, &request, &body).await;
        Some((answer, routes::endpoint(&request), request.method() == Method::HEAD))
    }

    /// Reads until one whole request is there.
    async fn receive(&mut self) -> io::Result<Received> {
        let mut framer = Framer::default();
        let mut is_first = true;
        let mut was_continued = false;
        self.ticket.idle();
        loop {
            let progress = {
                let mut intake = self.intake.borrow_mut();
                // One empty line before a request is ignored (RFC 9112, section 2.2).
                if is_first && intake.pending().len() >= 2 {
                    if intake.pending().starts_with(b"\r\n") {
                        intake.skip(2);
                    }
                    is_first = false;
                }
                match intake.pending() {
                    [] => None,
                    [b'\r'] if is_first => Some(Ok(Progress::Incomplete(None))),
                    bytes => Some(framer.advance(bytes)),
                }
            };
            match progress {
                None if self.ticket.is_leaving() => return Ok(Received::Nothing),
                None => {}
                Some(Ok(Progress::Complete(head, size))) => return Ok(Received::Whole(head, size)),
                Some(Err(problem)) => return Ok(Received::Refused(problem)),
                Some(Ok(Progress::Incomplete(head))) => {
                    self.ticket.reading();
                    if head.is_some_and(|head| head.expects_continue) && !was_continued {
                        was_continued = true;
                        self.raw_writer.write_all(CONTINUE).await.0?;
                    }
                }
            }
            if self.read().await? == 0 {
                return Ok(match progress {
                    None => Received::Nothing,
                    Some(_) if self.ticket.is_expired() => Received::Refused(&problem::REQUEST_TIMEOUT),
                    Some(_) => Received::Refused(&problem::TRUNCATED),
                });
            }
        }
    }

    /// Reads what is there behind the pending bytes; 0 at the stream's end.
    async fn read(&mut self) -> io::Result<usize> {
        loop {
            let buffer = self.intake.borrow_mut().lend();
            let end = buffer.len();
            let (result, slice) = self.reader.read(buffer.slice_mut(end..)).await;
            self.intake.borrow_mut().restore(slice.into_inner());
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    async fn write(&mut self, answer: Answer, is_head: bool) -> io::Result<()> {
        if answer::is_plain_accepted(&answer) {
            return self.raw_writer.write_all(answer::ACCEPTED).await.0.map(drop);
        }
        if is_head || answer.status() == StatusCode::NO_CONTENT {
            return self.raw_writer.write_all(answer::render_head(&answer)).await.0.map(drop);
        }
        self.codec.send(answer).await.map_err(io::Error::other)?;
        Sink::<Answer>::flush(&mut self.codec).await.map_err(io::Error::other)
    }

    async fn refuse(&mut self, problem: Refusal) -> io::Result<()> {
        let mut answer = answer::refuse(problem);
        answer::set_connection(&mut answer, false, false);
        self.ticket.writing();
        self.write(answer, false).await?;
        self.shared.service.observe(Endpoint::Other, problem.status, 0);
        self.linger().await
    }

    /// Closes so that the client can still read its answer: a socket closed over unread bytes is reset.
    async fn linger(&mut self) -> io::Result<()> {
        self.ticket.lingering();
        Sink::<Answer>::close(&mut self.codec).await.map_err(io::Error::other)?;
        let mut buffer = vec![0; 4 * 1024];
        let mut size = 0;
        while size < LINGER_SIZE_MAX {
            let (result, returned) = self.reader.read(buffer).await;
            buffer = returned;
            match result? {
                0 => break,
                more => size += more,
            }
        }
        Ok(())
    }
}

/// Has the codec read the granted request. `None` if it cannot, or if it came to another end than `framing`.
pub(super) async fn decode<C>(codec: &mut C, intake: &RefCell<Intake>, head: Head) -> Option<(Request, Bytes)>
where
    C: Stream<Item = Result<Request, HttpError>> + FillPayload,
{
    let request = match codec.next().await? {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(%error, "the codec refuses a request");
            return None;
        }
    };
    codec.fill_payload().await.ok()?;
    let (parts, payload) = request.into_parts();
    let body = match payload {
        Payload::None => Bytes::new(),
        Payload::Fixed(mut payload) => payload.next().await?.ok()?,
        Payload::Stream(mut payload) => {
            let mut body = BytesMut::new();
            while let Some(chunk) = payload.next().await {
                body.extend_from_slice(&chunk.ok()?);
            }
            body.freeze()
        }
    };
    let agrees = match head.framing {
        Framing::Length(length) => body.len() == length,
        Framing::Chunked => true,
    };
    (agrees && intake.borrow().is_spent()).then(|| (Request::from_parts(parts, Payload::None), body))
}
