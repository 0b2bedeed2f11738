//! One answer of a processor: bytes in, a status and "may this connection be used again?" out.
//!
//! The decoder is [`ClientResponseDecoder`], the decoding half of monoio-http's `ClientCodec`, used directly: the
//! codec's other half would encode requests from a `HeaderMap` per attempt into a buffer of its own (8 KiB a lane),
//! and splitting the stream for it would keep our one write per attempt from reaching the socket.
//!
//! The peer is not trusted. The decoder by itself grows without bound on an endless head, waits for ever on a huge
//! length, and panics (`unwrap` on the header's name) on a name of 64 KiB or more: [`Metered`] hands it only so many
//! bytes, 16 KiB until the head is whole and 16 KiB after, so the name that it cannot take never arrives. What else
//! could reach a panic is enumerated in this file's tests. Time is bounded by the caller.
//!
//! Two readings of one answer are never reconciled: doubtful framing (two lengths, a length beside chunks, none at
//! all, HTTP/1.0, bytes left over) does not change the status, which is known, but ends the connection.

use bytes::Bytes;
use http::{HeaderMap, Response, Version, header};
use monoio::BufResult;
use monoio::buf::{IoBufMut, IoVecBufMut, SliceMut};
use monoio::io::AsyncReadRent;
use monoio::io::stream::Stream;
use monoio_http::common::body::Body;
use monoio_http::h1::BorrowFramedRead;
use monoio_http::h1::codec::decoder::{
    ChunkedBodyDecoder, ClientResponseDecoder, FixedBodyDecoder, PayloadDecoder,
};
use thiserror::Error;

/// Bytes read before an answer's head must be whole, interim (1xx) answers included. Kestrel's own limit for heads
/// is 32 KiB, its answers' heads take 150 bytes.
pub(super) const HEAD_SIZE_MAX: usize = 16 * 1024;

/// Bytes read after the head, chunk framing included. The largest body known is the 422's, about 2 KB. A larger one
/// costs the connection and nothing else, so there is no reason to buffer it: what a lane's decoder may hold is
/// bounded by this and the head's limit, each rounded up to the next power of two.
pub(super) const BODY_SIZE_MAX: usize = 16 * 1024;

/// A connection is closed after an answer larger than this, head and body together: the decoder's buffer has grown
/// for it (it starts with 8 KiB) and would never shrink. Asking the buffer for its capacity would not tell, since a
/// piece that was split off still belongs to the same allocation.
const ANSWER_SIZE_KEPT_MAX: usize = 16 * 1024;

/// Why no whole answer could be read. What it means depends on how far the attempt was; see `connection`.
#[derive(Debug, Error)]
pub(super) enum AnswerError {
    #[error("the connection ended before the answer did")]
    Ended,
    #[error("the answer is no HTTP that can be read: {0}")]
    Garbage(monoio_http::common::error::HttpError),
    #[error("the answer is not framed in a way that can be trusted")]
    Framing,
}

/// A stream that yields at most as many bytes as it was allowed to.
pub(super) struct Metered<IO> {
    pub(super) io: IO,
    allowance: usize,
}

impl<IO> Metered<IO> {
    pub(super) const fn new(io: IO) -> Self {
        Self { io, allowance: 0 }
    }
}

impl<IO: AsyncReadRent> AsyncReadRent for Metered<IO> {
    async fn read<T: IoBufMut>(&mut self, mut buffer: T) -> BufResult<usize, T> {
        let size = buffer.bytes_total().min(self.allowance);
        if size == 0 {
            return (Err(std::io::Error::other("an answer beyond its size limit")), buffer);
        }
        // SAFETY: a slice from 0 needs nothing initialized before it, and `size` is within the buffer's capacity.
        let slice = unsafe { SliceMut::new_unchecked(buffer, 0, size) };
        let (result, slice) = self.io.read(slice).await;
        if let Ok(count) = result {
            self.allowance -= count;
        }
        (result, slice.into_inner())
    }

    async fn readv<T: IoVecBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        // The decoder reads into one buffer. An unmetered way around the limit must not exist.
        (Err(std::io::Error::from(std::io::ErrorKind::Unsupported)), buffer)
    }
}

/// Decodes the answers of one connection.
pub(super) struct AnswerReader<IO> {
    decoder: ClientResponseDecoder<Metered<IO>>,
}

/// An answer's head, and how to read what follows.
pub(super) struct Head {
    pub(super) status: u16,
    /// Bytes read so far, of which some may belong to the body.
    size: usize,
    framing: Framing,
    payload: PayloadDecoder<FixedBodyDecoder, ChunkedBodyDecoder>,
}

/// How far an answer's framing can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// One way to tell where the answer ends; the connection may go on.
    Sound,
    /// One way to tell where the answer ends; the peer will close the connection.
    SoundThenClose,
    /// The answer's end is ambiguous, too far away, or the end of the stream.
    Doubtful,
}

impl<IO: AsyncReadRent> AnswerReader<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { decoder: ClientResponseDecoder::new(Metered::new(io)) }
    }

    /// The stream itself, for writing a request.
    pub(super) fn io_mut(&mut self) -> &mut IO {
        &mut self.decoder.framed_mut().get_mut().io
    }

    /// Bytes that may still be read.
    fn allowance(&mut self) -> &mut usize {
        &mut self.decoder.framed_mut().get_mut().allowance
    }

    /// Reads up to the end of the answer's head; interim answers (1xx) are skipped.
    pub(super) async fn read_head(&mut self) -> Result<Head, AnswerError> {
        *self.allowance() = HEAD_SIZE_MAX;
        loop {
            let response = match self.decoder.next().await {
                None => return Err(AnswerError::Ended),
                Some(Err(error)) => return Err(AnswerError::Garbage(error)),
                Some(Ok(response)) => response,
            };
            let status = response.status().as_u16();
            // An interim answer has no body, whatever its headers claim. 101 is final: nobody asked for another
            // protocol, and what follows is not HTTP.
            if (100..=199).contains(&status) && status != 101 {
                continue;
            }
            let framing = framing(&response);
            let size = HEAD_SIZE_MAX - *self.allowance();
            return Ok(Head { status, size, framing, payload: response.into_body() });
        }
    }

    /// Reads the rest of an answer and gives each piece of its body to `take`; `Ok(true)` when another request may
    /// follow on this connection.
    pub(super) async fn read_body(
        &mut self,
        head: Head,
        mut take: impl FnMut(Bytes),
    ) -> Result<bool, AnswerError> {
        if head.framing == Framing::Doubtful {
            return Err(AnswerError::Framing);
        }
        *self.allowance() = BODY_SIZE_MAX;
        let mut body = head.payload.with_io(&mut self.decoder);
        while let Some(piece) = body.next_data().await {
            take(piece.map_err(AnswerError::Garbage)?);
        }
        let size = head.size + BODY_SIZE_MAX - *self.allowance();
        let has_more = !self.decoder.framed_mut().read_buffer().is_empty();
        Ok(head.framing == Framing::Sound && !has_more && size <= ANSWER_SIZE_KEPT_MAX)
    }
}

fn framing<T>(response: &Response<T>) -> Framing {
    let (status, headers) = (response.status().as_u16(), response.headers());
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let encodings = headers.get_all(header::TRANSFER_ENCODING).iter().count();
    let is_sound = match (lengths, encodings) {
        // Neither: such an answer has no body, any other's ends with the stream.
        (0, 0) => matches!(status, 204 | 304),
        (1, 0) => {
            let size = content_length(headers);
            if matches!(status, 204 | 304) {
                size == Some(0)
            } else {
                size.is_some_and(|size| size <= BODY_SIZE_MAX)
            }
        }
        // Of the encodings, the decoder refuses all but `chunked` and `identity`, and reads the latter as none.
        (0, 1) => !matches!(status, 204 | 304) && is_chunked(headers),
        _ => false,
    };
    if !is_sound {
        Framing::Doubtful
    } else if response.version() == Version::HTTP_11 && !closes(headers) {
        Framing::Sound
    } else {
        Framing::SoundThenClose
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_chunked(headers: &HeaderMap) -> bool {
    headers
        .get(header::TRANSFER_ENCODING)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// Whether any `Connection` header has the token `close`.
fn closes(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}
