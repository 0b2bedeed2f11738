//! The decoders of a processor's answers by themselves, without a socket: what fuzzing drives.
//!
//! Each function runs the very code that a lane or a query runs, on bytes that are all there. It decides nothing.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use galo_engine::CorrelationId;
use galo_engine::outcome::Reply;
use monoio::BufResult;
use monoio::buf::{IoBufMut, IoVecBufMut};
use monoio::io::AsyncReadRent;

use super::answer::AnswerReader;
use super::{HealthReply, LookupReply, queries};

/// What came of a connection's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadAnswer {
    /// What a lane would report of an attempt whose request was written.
    pub reply: Reply,
    /// The body, if it came whole.
    pub body: Option<Vec<u8>>,
    /// Whether the connection would carry another request.
    pub is_kept: bool,
}

/// Reads the answer that `bytes` begin with; they arrive in pieces of `piece_size`, and then the connection ends.
#[must_use]
pub fn read_answer(bytes: &[u8], piece_size: usize) -> ReadAnswer {
    let read = pin!(async {
        let mut reader = AnswerReader::new(Pieces { rest: bytes, size: piece_size });
        let Ok(head) = reader.read_head().await else {
            return ReadAnswer { reply: Reply::Broken, body: None, is_kept: false };
        };
        let reply = Reply::Answered { status: head.status };
        let mut body = Vec::new();
        match reader.read_body(head, |piece| body.extend_from_slice(piece)).await {
            Ok(is_kept) => ReadAnswer { reply, body: Some(body), is_kept },
            Err(_) => ReadAnswer { reply, body: None, is_kept: false },
        }
    });
    // All bytes are there, so it never waits.
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("reading from memory never waits"),
    }
}

/// Reads the body of a lookup's answer; `None` where it is not the payment asked for.
#[must_use]
pub fn read_lookup(mut body: Vec<u8>, expected: CorrelationId) -> Option<LookupReply> {
    queries::parse_payment(&mut body, expected)
}

/// Reads the body of a health check's answer.
#[must_use]
pub fn read_health(mut body: Vec<u8>) -> Option<HealthReply> {
    queries::parse_health(&mut body)
}

/// Bytes that arrive in pieces of at most so many.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncReadRent for Pieces<'_> {
    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        let mut piece = &self.rest[..self.size.min(self.rest.len())];
        let (result, buffer) = AsyncReadRent::read(&mut piece, buffer).await;
        if let Ok(count) = result {
            self.rest = &self.rest[count..];
        }
        (result, buffer)
    }

    async fn readv<T: IoVecBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        (Err(std::io::Error::from(std::io::ErrorKind::Unsupported)), buffer)
    }
}
