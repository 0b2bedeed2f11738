//! The decoders of a processor's answers by themselves, without a socket: what fuzzing drives.
//!
//! Each function runs the very code that a lane or a query runs, on bytes that are all there. It decides nothing.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use galo_engine::CorrelationId;
use galo_engine::dispatcher::Verification;
use galo_engine::time::UnixMillis;
use galo_engine::verdict::End;
use galo_profile::{HealthReport, Processors};
use monoio::BufResult;
use monoio::buf::{IoBufMut, IoVecBufMut};
use monoio::io::AsyncReadRent;

use super::answer::AnswerReader;
use super::queries;

/// What came of a connection's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadAnswer {
    /// What a lane would report of an attempt whose request was written.
    pub end: End,
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
            return ReadAnswer { end: End::UNANSWERED, body: None, is_kept: false };
        };
        let end = reader.judge(&head, &[], &contest().answers);
        let mut body = Vec::new();
        match reader.read_body(head, |piece| body.extend_from_slice(piece)).await {
            Ok(is_kept) => ReadAnswer { end, body: Some(body), is_kept },
            Err(_) => ReadAnswer { end, body: None, is_kept: false },
        }
    });
    // All bytes are there, so it never waits.
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("reading from memory never waits"),
    }
}

/// Reads the body of a lookup's answer, as a processor of the contest's gives it; `None` where it is not the payment asked for.
#[must_use]
pub fn read_lookup(body: &[u8], expected: CorrelationId) -> Option<Verification> {
    let contest = contest();
    let lookup = contest.lookup.as_ref()?;
    let mut search = lookup.search(expected, UnixMillis(0), None);
    let verification = queries::verification(search.read(200, body), lookup);
    matches!(verification, Verification::Found { .. }).then_some(verification)
}

/// Reads the body of a health check's answer, as a processor of the contest's gives it.
#[must_use]
pub fn read_health(body: &[u8]) -> Option<HealthReport> {
    contest().health.as_ref()?.read(200, body)
}

fn contest() -> galo_profile::Processor {
    let url = "http://127.0.0.1";
    let both = Processors::contest(url, url, [0, 0], 1, 1_000).expect("a profile that is shipped");
    both.by_number(0).expect("the first").clone()
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
