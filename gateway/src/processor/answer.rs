//! One answer of a processor: bytes in, a status and "may this connection be used again?" out.
//!
//! httparse reads the head; where it and the body end is decided here. Everything stands in one buffer that each
//! connection keeps, so an answer allocates nothing.
//!
//! The peer is not trusted, and no byte of it may cause a panic, which would end the process. Sizes are bounded: 16 KiB
//! until the head is whole and 16 KiB for the body. Time is bounded by the caller.
//!
//! Two readings of one answer are never reconciled: doubtful framing (two lengths, a length beside chunks, none at
//! all, HTTP/1.0, bytes left over) does not change the status, which is known, but ends the connection. What may not be
//! the head that it seems (it does not begin with its status, or an empty line ended it before) has no status.

use std::mem::MaybeUninit;
use std::ops::Range;

use galo_engine::verdict::{self, End};
use galo_profile::{Answers, Headers, Page};
use galo_shell::clock::Clock;
use httparse::{ParserConfig, Response, Status};
use monoio::buf::IoBufMut;
use monoio::io::AsyncReadRent;

/// Bytes read before an answer's head must be whole, interim (1xx) answers included. Kestrel's own limit for heads
/// is 32 KiB, its answers' heads take 150 bytes.
pub(super) const HEAD_SIZE_MAX: usize = 16 * 1024;

/// Bytes after the head, chunk framing included. The largest body known is the 422's, about 2 KB. A larger one costs
/// the connection and nothing else, so there is no reason to buffer it.
pub(super) const BODY_SIZE_MAX: usize = 16 * 1024;

/// A chunk whose size says more is no part of any answer that is read.
const CHUNK_SIZE_MAX: usize = 1 << 20;

/// Headers that a head may have. Kestrel's answers have five.
const HEADER_COUNT_MAX: usize = 96;

/// Hexadecimal digits of a chunk's size: what 64 bits hold.
const CHUNK_DIGITS_MAX: usize = 16;

/// What a connection's buffer takes at first: twice the largest answer known.
const BUFFER_SIZE: usize = 4 * 1024;

/// A connection is closed after an answer larger than this, head and body together: its buffer has grown for it and
/// never shrinks.
const ANSWER_SIZE_KEPT_MAX: usize = 16 * 1024;

/// No whole answer: the stream ended or failed, or what came is no HTTP, not framed in a way that can be trusted, or too
/// large. What it means depends on how far the attempt was; see `client`.
#[derive(Debug)]
pub(super) struct Unreadable;

/// Reads the answers of one connection.
pub(super) struct AnswerReader<IO> {
    io: IO,
    /// All that was read of the present answer.
    buffer: Vec<u8>,
    /// Up to here it was used.
    at: usize,
    /// Where the head stands that is not interim.
    head: Range<usize>,
    /// What a body may take, chunk framing included.
    pub(super) body_size_max: usize,
}

/// An answer's head, and how to read what follows.
pub(super) struct Head {
    pub(super) status: u16,
    /// How long the processor asks to be left alone, ms; 0 where it does not say.
    pub(super) retry_after_ms: u32,
    /// How the body is delimited; `None` where its end is ambiguous, too far away, or the end of the stream.
    body: Option<Body>,
    /// Whether the peer keeps the connection.
    keep_alive: bool,
}

enum Body {
    Length(usize),
    Chunked,
}

impl<IO: AsyncReadRent> AnswerReader<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, buffer: Vec::with_capacity(BUFFER_SIZE), at: 0, head: 0..0, body_size_max: BODY_SIZE_MAX }
    }

    /// Whether a byte of the present answer was read.
    pub(super) const fn has_begun(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// What the head of the present answer, and this body, say of an attempt.
    pub(super) fn judge(&self, head: &Head, body: &[u8], answers: &Answers) -> End {
        let Head { status, retry_after_ms, .. } = *head;
        End { verdict: answers.rules.judge(&self.page(status, body)), status, retry_after_ms }
    }

    /// The present answer, as rules see it.
    pub(super) fn page<'a>(&'a self, status: u16, body: &'a [u8]) -> Page<'a> {
        Page { status, headers: self, body }
    }

    /// The stream itself, for writing a request.
    pub(super) const fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    /// Reads up to the end of the answer's head; interim answers (1xx) are skipped.
    pub(super) async fn read_head(&mut self) -> Result<Head, Unreadable> {
        assert_eq!(self.at, self.buffer.len(), "a connection with bytes left over is not used again");
        self.buffer.clear();
        (self.at, self.head) = (0, 0..0);
        let mut searched = 0;
        loop {
            let bytes = &self.buffer[..self.buffer.len().min(HEAD_SIZE_MAX)];
            let Some(offset) = memchr::memmem::find(&bytes[searched..], b"\r\n\r\n") else {
                // The end may have begun.
                searched = bytes.len().saturating_sub(3).max(self.at);
                self.read(HEAD_SIZE_MAX).await?;
                continue;
            };
            let end = searched + offset + 4;
            let head = parse_head(&bytes[self.at..end], self.body_size_max)?;
            self.head = self.at..end;
            (self.at, searched) = (end, end);
            // An interim answer has no body, whatever its headers claim. 101 is final: nobody asked for another
            // protocol, and what follows is not HTTP.
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
        }
    }

    /// Reads the rest of an answer and gives each piece of its body to `take`; `Ok(true)` when another request may
    /// follow on this connection.
    pub(super) async fn read_body(
        &mut self,
        head: Head,
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool, Unreadable> {
        let end_max = self.at + self.body_size_max;
        match head.body.ok_or(Unreadable)? {
            Body::Length(size) => take(self.piece(size, end_max).await?),
            Body::Chunked => self.read_chunks(end_max, take).await?,
        }
        let has_more = self.at < self.buffer.len();
        Ok(head.keep_alive && !has_more && self.at <= ANSWER_SIZE_KEPT_MAX)
    }

    /// Neither extensions nor trailers are read: no processor sends them, and readers differ over them.
    async fn read_chunks(&mut self, end_max: usize, mut take: impl FnMut(&[u8])) -> Result<(), Unreadable> {
        loop {
            let size = loop {
                if let Some((size, line_size)) = parse_chunk_line(&self.buffer[self.at..])? {
                    self.at += line_size;
                    break size;
                }
                self.read(end_max).await?;
            };
            let data = self.piece(size + 2, end_max).await?.strip_suffix(b"\r\n").ok_or(Unreadable)?;
            if data.is_empty() {
                return Ok(());
            }
            take(data);
        }
    }

    /// The next `size` bytes.
    async fn piece(&mut self, size: usize, end_max: usize) -> Result<&[u8], Unreadable> {
        while self.buffer.len() - self.at < size {
            self.read(end_max).await?;
        }
        let start = self.at;
        self.at += size;
        Ok(&self.buffer[start..self.at])
    }

    /// Reads what is there, so that the buffer has at most `end_max` bytes.
    async fn read(&mut self, end_max: usize) -> Result<(), Unreadable> {
        let start = self.buffer.len();
        if start >= end_max {
            return Err(Unreadable);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        if start == buffer.capacity() {
            buffer.reserve_exact(start);
        }
        let end = buffer.capacity().min(end_max);
        let (result, slice) = self.io.read(buffer.slice_mut(start..end)).await;
        self.buffer = slice.into_inner();
        match result {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(Unreadable),
        }
    }
}

/// The headers of the present answer, whose head was found to be one.
impl<IO> Headers for AnswerReader<IO> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        let head = &self.buffer[self.head.clone()];
        let lines = head.split(|byte| *byte == b'\n').skip(1);
        lines
            .filter_map(|line| {
                let colon = memchr::memchr(b':', line)?;
                let (have, value) = (&line[..colon], &line[colon + 1..]);
                have.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
            })
            .next()
    }
}

/// Reads a whole head, and nothing but a head.
fn parse_head(bytes: &[u8], body_size_max: usize) -> Result<Head, Unreadable> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADER_COUNT_MAX];
    let mut response = Response::new(&mut []);
    let parsed =
        ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut headers);
    // A head begins with its status line, and all that is here is one head: anything before it or behind it is none of it.
    if parsed != Ok(Status::Complete(bytes.len())) || !bytes.starts_with(b"HTTP/") {
        return Err(Unreadable);
    }
    let status = response.code.filter(|status| *status >= 100).ok_or(Unreadable)?;
    let values = |name: &'static str| {
        let named = response.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    };
    let (lengths, encodings) = (values("content-length"), values("transfer-encoding"));
    let is_chunked = match encodings.clone().next() {
        Some(encoding) if encoding.eq_ignore_ascii_case(b"chunked") => true,
        Some(encoding) if !encoding.eq_ignore_ascii_case(b"identity") => return Err(Unreadable),
        Some(_) | None => false,
    };
    let length = match lengths.clone().next() {
        Some(length) if !is_chunked => Some(parse_length(length).ok_or(Unreadable)?),
        Some(_) | None => None,
    };
    let size_max = if matches!(status, 204 | 304) { 0 } else { body_size_max };
    let body = match (lengths.count(), encodings.count()) {
        // Without either, such an answer has no body, and any other's ends with the stream.
        (0, 0) if size_max == 0 => Some(Body::Length(0)),
        (1, 0) => length.filter(|size| *size <= size_max).map(Body::Length),
        (0, 1) if is_chunked && size_max > 0 => Some(Body::Chunked),
        _ => None,
    };
    let closes = values("connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
    let retry_after = values("retry-after").next();
    let retry_after_ms = retry_after.and_then(|value| verdict::retry_after_ms(value, Clock.now().unix_ms));
    let keep_alive = response.version == Some(1) && !closes;
    Ok(Head { status, retry_after_ms: retry_after_ms.unwrap_or(0), body, keep_alive })
}

fn parse_length(text: &[u8]) -> Option<usize> {
    str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// The chunk's size and that of the line which says so; `None` while the line is not whole.
fn parse_chunk_line(bytes: &[u8]) -> Result<Option<(usize, usize)>, Unreadable> {
    let digit_count = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = bytes.split_at(digit_count);
    match rest {
        _ if digit_count > CHUNK_DIGITS_MAX => Err(Unreadable),
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => {
            let size = str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
            // No digit is no size either.
            let size = size.filter(|size| *size <= CHUNK_SIZE_MAX).ok_or(Unreadable)?;
            Ok(Some((size, digit_count + 2)))
        }
        _ => Err(Unreadable),
    }
}
