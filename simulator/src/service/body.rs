//! Bodies of answers: none, one piece sent in chunks, or the list of all payments.
//!
//! A whole body has no `Content-Length`, so hyper sends it chunked, as the real processors do. With `late_end` the last
//! chunk comes in a write of its own: the body is not ready for one turn of the event loop, hyper flushes what it
//! has, and the end follows.
//!
//! The list is written piece by piece from the living store, which only ever grows at its end. A purge in between would make the
//! rest meaningless, so it breaks the connection: a listing that ends well is whole.

use std::fmt::Write;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::{Service, Severed};

/// Payments per piece of a listing: about 50 KB, and some 100 µs during which nobody else is served.
const LISTING_PIECE_LEN: usize = 512;

/// The body of an answer.
pub(super) enum AnswerBody {
    Empty,
    Whole { bytes: Bytes, late_end: bool },
    Listing(Listing),
}

/// Stored payments from one position to another, in order of insertion.
pub(super) struct Listing {
    service: Rc<Service>,
    generation: u64,
    next: usize,
    end: usize,
}

impl Listing {
    /// The payments from `cursor` on, at most `limit` of those there now.
    pub(super) fn new(service: Rc<Service>, cursor: usize, limit: usize) -> Self {
        let (generation, len) = {
            let model = service.model.borrow();
            (model.store().generation(), model.store().len())
        };
        let next = cursor.min(len);
        Listing { service, generation, next, end: next.saturating_add(limit).min(len) }
    }

    /// The position after the last payment listed.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    fn next_piece(&mut self) -> Option<Result<Bytes, Severed>> {
        if self.next == self.end {
            return None;
        }
        let model = self.service.model.borrow();
        let store = model.store();
        if store.generation() != self.generation {
            return Some(Err(Severed::Closed));
        }
        let len = LISTING_PIECE_LEN.min(self.end - self.next);
        let mut text = String::with_capacity(len * 110);
        for payment in &store.list(self.next)[..len] {
            writeln!(
                text,
                r#"{{"correlationId":"{}","amountCents":{},"requestedAtMs":{}}}"#,
                payment.correlation_id, payment.amount_cents, payment.requested_at_ms
            )
            .expect("a string takes everything");
        }
        self.next += len;
        Some(Ok(Bytes::from(text)))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Severed;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Severed>>> {
        match self.get_mut() {
            AnswerBody::Empty => Poll::Ready(None),
            AnswerBody::Whole { bytes, .. } if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            AnswerBody::Whole { late_end, .. } => {
                if std::mem::take(late_end) {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None)
            }
            AnswerBody::Listing(listing) => {
                Poll::Ready(listing.next_piece().map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, AnswerBody::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Empty => SizeHint::with_exact(0),
            AnswerBody::Whole { .. } | AnswerBody::Listing(_) => SizeHint::default(),
        }
    }
}
