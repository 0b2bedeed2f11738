//! Where a request ends: the strict reading of raw bytes that comes before monoio-http sees one of them.
//!
//! Pure and incremental: it is shown all bytes of the current request so far, remembers how far it looked, and says
//! *more*, *whole* or *refused*. Only whole requests that passed are handed to the codec (see `gate`).
//!
//! Why it exists: monoio-http's decoder (0.3) is made for clients that mean well. It can end the process, bounds little
//! of what it keeps, and chooses one reading where a request has two. So it is shown none of these: a request that two
//! parsers could read differently is no request. What passes has
//! - a head of at most [`HEAD_SIZE_MAX`] bytes in CRLF lines, none folded, names being tokens of at most
//!   [`HEADER_NAME_SIZE_MAX`] bytes, at most [`HEADER_COUNT_MAX`] of them, no control characters;
//! - at most one `Content-Length`, of digits, or exactly one `Transfer-Encoding: chunked`, never both;
//! - a body that is there in full, and chunks that the codec reads to the very same end.
//!
//! It never allocates, never panics and never looks at a byte twice (a byte at a time costs as much as all at once).

use super::problem::{self, Refusal};

/// Most bytes of one request, head and body as sent (chunk framing included): 40 times a payment.
pub(super) const REQUEST_SIZE_MAX: usize = 16 * 1024;
/// Most bytes of one head, its final empty line included.
pub(super) const HEAD_SIZE_MAX: usize = 8 * 1024;
/// Most bytes of a request target: a summary's query, percent-encoded throughout, takes 200.
const TARGET_SIZE_MAX: usize = 4 * 1024;
/// Most bytes of a method; the longest registered one has 17.
const METHOD_SIZE_MAX: usize = 32;
/// Most bytes of a header's name, ten times the longest registered one; far below any limit of the codec's.
const HEADER_NAME_SIZE_MAX: usize = 256;
/// Most headers, not counting HAProxy's own one; below the codec's limit.
const HEADER_COUNT_MAX: usize = 64;
/// Most hexadecimal digits of a chunk's size: seven say 268 million, far beyond the budget, and fit 32 bits.
const CHUNK_DIGITS_MAX: u32 = 7;

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes follow the head (0 when no length is given).
    Length(usize),
    /// Chunks follow.
    Chunked,
}

/// What the head says about the connection and the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes up to and including the empty line.
    pub(super) size: usize,
    /// How the body ends.
    pub(super) framing: Framing,
    /// Whether the client wants the connection to stay.
    pub(super) keep_alive: bool,
    /// HTTP/1.0, whose clients must be told when the connection stays.
    pub(super) http_10: bool,
    /// Whether the client waits for a 100 before it sends the body.
    pub(super) expects_continue: bool,
    /// The number of HAProxy's shift in which it came (`Galo-Shift`), if it has one.
    pub(super) shift: Option<u64>,
    /// `POST /payments`, spelled so, with a body that stands there as it is.
    is_payment: bool,
}

impl Head {
    /// The body of `request`, of which this is the head, if it is a payment of which the codec could say no more.
    pub(super) fn payment(self, request: &[u8]) -> Option<&[u8]> {
        self.is_payment.then(|| &request[self.size..])
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More bytes are needed. The head is given once it is whole.
    Incomplete(Option<Head>),
    /// The request is whole and takes this many bytes, body included.
    Complete(Head, usize),
}

/// Reads one request's bytes as they arrive.
#[derive(Default)]
pub(super) struct Framer {
    scanned: usize,
    line_start: usize,
    lines: HeadLines,
    head: Option<Head>,
    chunks: Chunks,
}

impl Framer {
    /// Looks at `bytes`: all of the request so far, starting with its first byte.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Progress, Refusal> {
        let head = match self.head {
            Some(head) => head,
            None => match self.advance_head(bytes)? {
                Some(head) => *self.head.insert(head),
                None => return Ok(Progress::Incomplete(None)),
            },
        };
        let end = match head.framing {
            Framing::Length(length) => Some(head.size + length).filter(|end| *end <= bytes.len()),
            Framing::Chunked => self.chunks.advance(bytes)?,
        };
        match end {
            Some(end) if end <= REQUEST_SIZE_MAX => Ok(Progress::Complete(head, end)),
            None if bytes.len() < REQUEST_SIZE_MAX => Ok(Progress::Incomplete(Some(head))),
            Some(_) | None => Err(&problem::CONTENT_TOO_LARGE),
        }
    }

    fn advance_head(&mut self, bytes: &[u8]) -> Result<Option<Head>, Refusal> {
        if bytes.first().is_some_and(|byte| !is_token(*byte)) {
            return Err(&problem::BAD_REQUEST_LINE);
        }
        while let Some(offset) = memchr::memchr(b'\n', &bytes[self.scanned..]) {
            let end = self.scanned + offset;
            let Some(line) = bytes[self.line_start..end].strip_suffix(b"\r") else {
                return Err(&problem::BARE_LF);
            };
            if end >= HEAD_SIZE_MAX {
                return Err(self.too_large());
            }
            self.scanned = end + 1;
            if self.line_start == 0 {
                self.lines.read_request_line(line)?;
            } else if line.is_empty() {
                self.chunks.at = self.scanned;
                return self.lines.finish(self.scanned).map(Some);
            } else {
                self.lines.read_header(line)?;
            }
            self.line_start = self.scanned;
        }
        self.scanned = bytes.len();
        if bytes.len() >= HEAD_SIZE_MAX { Err(self.too_large()) } else { Ok(None) }
    }

    fn too_large(&self) -> Refusal {
        if self.line_start == 0 { &problem::URI_TOO_LONG } else { &problem::HEADER_TOO_LARGE }
    }
}

/// What the lines read so far have said.
#[derive(Default)]
struct HeadLines {
    is_payment: bool,
    http_10: bool,
    header_count: usize,
    host_count: usize,
    content_length: Option<usize>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    is_from_haproxy: bool,
    shift: Option<u64>,
}

impl HeadLines {
    fn read_request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(&problem::BAD_REQUEST_LINE);
        };
        if target.len() > TARGET_SIZE_MAX {
            return Err(&problem::URI_TOO_LONG);
        }
        let method_is_good = !method.is_empty()
            && method.len() <= METHOD_SIZE_MAX
            && method.iter().all(|byte| is_token(*byte));
        // A path, or the whole URI as clients send it to proxies, or OPTIONS' asterisk.
        let has_form = matches!(target, [b'/', ..] | b"*")
            || target.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http://"));
        let target_is_good = has_form && target.iter().all(u8::is_ascii_graphic);
        if !method_is_good || !target_is_good {
            return Err(&problem::BAD_REQUEST_LINE);
        }
        self.is_payment = method == b"POST" && target == b"/payments";
        match version {
            b"HTTP/1.1" => Ok(()),
            b"HTTP/1.0" => {
                self.http_10 = true;
                Ok(())
            }
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                Err(&problem::UNSUPPORTED_VERSION)
            }
            _ => Err(&problem::BAD_REQUEST_LINE),
        }
    }

    fn read_header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(&problem::FOLDED_HEADER);
        }
        self.header_count += 1;
        let colon = memchr::memchr(b':', line).ok_or(&problem::BAD_HEADER)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.len() > HEADER_NAME_SIZE_MAX {
            return Err(&problem::HEADER_TOO_LARGE);
        }
        let is_good = !name.is_empty() && name.iter().all(|byte| is_token(*byte));
        if !is_good || !value.iter().all(|byte| is_value_byte(*byte)) {
            return Err(&problem::BAD_HEADER);
        }
        // By length first: most headers are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host_count += 1,
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if !trim(value).eq_ignore_ascii_case(b"100-continue") {
                    return Err(&problem::EXPECTATION_FAILED);
                }
                self.expects_continue = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|byte| *byte == b',').map(trim) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // HAProxy's own, which takes no client's place. What is no number is as good as none: nothing but rests depends on it.
            10 if name.eq_ignore_ascii_case(b"galo-shift") => {
                self.header_count -= usize::from(!std::mem::replace(&mut self.is_from_haproxy, true));
                self.shift = str::from_utf8(trim(value)).ok().and_then(|number| number.parse().ok());
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = read_length(trim(value))?;
                if self.content_length.replace(length).is_some() {
                    return Err(&problem::BAD_CONTENT_LENGTH);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked {
                    return Err(&problem::BAD_TRANSFER_ENCODING);
                }
                if !trim(value).eq_ignore_ascii_case(b"chunked") {
                    return Err(&problem::UNSUPPORTED_TRANSFER_ENCODING);
                }
                self.chunked = true;
            }
            _ => {}
        }
        if self.header_count > HEADER_COUNT_MAX { Err(&problem::HEADER_TOO_LARGE) } else { Ok(()) }
    }

    fn finish(&self, size: usize) -> Result<Head, Refusal> {
        if self.host_count > 1 || (self.host_count == 0 && !self.http_10) {
            return Err(&problem::BAD_HOST);
        }
        let framing = match (self.content_length, self.chunked) {
            (Some(_), true) => return Err(&problem::AMBIGUOUS_LENGTH),
            (None, true) if self.http_10 => return Err(&problem::BAD_TRANSFER_ENCODING),
            (None, true) => Framing::Chunked,
            (Some(length), false) if length > REQUEST_SIZE_MAX - size => {
                return Err(&problem::CONTENT_TOO_LARGE);
            }
            (length, false) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(Head {
            size,
            framing,
            keep_alive: !self.close && (self.keep_alive || !self.http_10),
            http_10: self.http_10,
            expects_continue: self.expects_continue && !self.http_10,
            shift: self.shift,
            is_payment: self.is_payment && !self.chunked,
        })
    }
}

/// Reads a `Content-Length`: digits alone. What exceeds a machine word exceeds every budget too.
fn read_length(value: &[u8]) -> Result<usize, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(&problem::BAD_CONTENT_LENGTH);
    }
    value.iter().try_fold(0usize, |length, digit| {
        length
            .checked_mul(10)
            .and_then(|length| length.checked_add(usize::from(digit - b'0')))
            .ok_or(&problem::CONTENT_TOO_LARGE)
    })
}

/// The chunks of one body.
#[derive(Default)]
struct Chunks {
    at: usize,
    state: ChunkState,
    value: usize,
    digits: u32,
}

#[derive(Clone, Copy, Default)]
enum ChunkState {
    #[default]
    Size,
    SizeEnd,
    Data,
    DataEnd,
    DataEndLf,
    LastEnd,
    LastEndLf,
}

impl Chunks {
    /// The request's end, once the last chunk is there.
    fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(&byte) = bytes.get(self.at) {
            if matches!(self.state, ChunkState::Data) {
                let there = self.value.min(bytes.len() - self.at);
                self.at += there;
                self.value -= there;
                if self.value == 0 {
                    self.state = ChunkState::DataEnd;
                }
                continue;
            }
            self.at += 1;
            self.state = match (self.state, byte) {
                (ChunkState::Size, b'\r') if self.digits > 0 => ChunkState::SizeEnd,
                (ChunkState::Size, _) => {
                    let digit = char::from(byte).to_digit(16).ok_or(&problem::BAD_CHUNK)?;
                    if self.digits == CHUNK_DIGITS_MAX {
                        return Err(&problem::CONTENT_TOO_LARGE);
                    }
                    self.digits += 1;
                    self.value = self.value * 16 + digit as usize;
                    ChunkState::Size
                }
                (ChunkState::SizeEnd, b'\n') => {
                    self.digits = 0;
                    if self.value > REQUEST_SIZE_MAX {
                        return Err(&problem::CONTENT_TOO_LARGE);
                    }
                    if self.value == 0 { ChunkState::LastEnd } else { ChunkState::Data }
                }
                (ChunkState::DataEnd, b'\r') => ChunkState::DataEndLf,
                (ChunkState::DataEndLf, b'\n') => ChunkState::Size,
                (ChunkState::LastEnd, b'\r') => ChunkState::LastEndLf,
                (ChunkState::LastEndLf, b'\n') => return Ok(Some(self.at)),
                _ => return Err(&problem::BAD_CHUNK),
            };
        }
        Ok(None)
    }
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

const fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

/// RFC 9110, section 5.6.2.
const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Result<Progress, Refusal> {
        let whole = Framer::default().advance(bytes);
        // A byte at a time must come to the same end as all at once.
        let mut framer = Framer::default();
        let mut last = Ok(Progress::Incomplete(None));
        for size in 1..=bytes.len() {
            last = framer.advance(&bytes[..size]);
            if !matches!(last, Ok(Progress::Incomplete(_))) {
                break;
            }
        }
        match (&whole, &last) {
            (Ok(Progress::Complete(_, whole_end)), Ok(Progress::Complete(_, last_end))) => {
                assert_eq!(whole_end, last_end);
            }
            _ => assert_eq!(whole, last, "{}", String::from_utf8_lossy(bytes)),
        }
        whole
    }

    fn end(bytes: &[u8]) -> usize {
        match frame(bytes) {
            Ok(Progress::Complete(_, end)) => end,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn a_request_ends_where_its_length_says() {
        assert_eq!(end(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /"), 27);
        assert_eq!(end(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcdef"), 50);
        assert_eq!(
            end(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET"),
            69
        );
        assert_eq!(end(b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:chunked \r\n\r\n0\r\n\r\n"), 61);
        assert_eq!(
            frame(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab")
                .map(|p| matches!(p, Progress::Incomplete(Some(_)))),
            Ok(true)
        );
    }

    #[test]
    fn only_a_payment_that_stands_there_as_it_is_goes_past_the_codec() {
        let payment = |request: &str| match frame(request.as_bytes()) {
            Ok(Progress::Complete(head, end)) => head.payment(&request.as_bytes()[..end]).map(<[u8]>::to_vec),
            other => panic!("{other:?}"),
        };
        let sent = |line: &str| payment(&format!("{line}\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}GET"));
        assert_eq!(sent("POST /payments HTTP/1.1").as_deref(), Some(b"{}".as_slice()));
        assert_eq!(sent("POST /payments HTTP/1.0").as_deref(), Some(b"{}".as_slice()));
        assert_eq!(payment("POST /payments HTTP/1.1\r\nHost: a\r\n\r\n{}").as_deref(), Some(b"".as_slice()));
        for line in [
            "PUT /payments HTTP/1.1",
            "post /payments HTTP/1.1",
            "POST /payment HTTP/1.1",
            "POST /payments/ HTTP/1.1",
            "POST /payments? HTTP/1.1",
            "POST /payments# HTTP/1.1",
            "POST //payments HTTP/1.1",
            "POST /Payments HTTP/1.1",
            "POST http://a/payments HTTP/1.1",
        ] {
            assert_eq!(sent(line), None, "{line}");
        }
        let chunked =
            "POST /payments HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        assert_eq!(payment(chunked), None);
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let cases: &[(&[u8], Refusal)] = &[
            (b"Content-Length: 1\r\nContent-Length: 1\r\n", &problem::BAD_CONTENT_LENGTH),
            (b"Content-Length: 1\r\ncontent-length: 2\r\n", &problem::BAD_CONTENT_LENGTH),
            (b"Content-Length: 1, 1\r\n", &problem::BAD_CONTENT_LENGTH),
            (b"Content-Length: +1\r\n", &problem::BAD_CONTENT_LENGTH),
            (b"Content-Length: -1\r\n", &problem::BAD_CONTENT_LENGTH),
            (b"Content-Length: 0x1\r\n", &problem::BAD_CONTENT_LENGTH),
            (b"Content-Length:\r\n", &problem::BAD_CONTENT_LENGTH),
            (b"Content-Length: 1 1\r\n", &problem::BAD_CONTENT_LENGTH),
            (b"Content-Length: 16385\r\n", &problem::CONTENT_TOO_LARGE),
            (b"Content-Length: 18446744073709551617\r\n", &problem::CONTENT_TOO_LARGE),
            (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", &problem::AMBIGUOUS_LENGTH),
            (b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", &problem::AMBIGUOUS_LENGTH),
            (
                b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                &problem::BAD_TRANSFER_ENCODING,
            ),
            (b"Transfer-Encoding: gzip, chunked\r\n", &problem::UNSUPPORTED_TRANSFER_ENCODING),
            (b"Transfer-Encoding: identity\r\n", &problem::UNSUPPORTED_TRANSFER_ENCODING),
            (b"Transfer-Encoding: xchunked\r\n", &problem::UNSUPPORTED_TRANSFER_ENCODING),
            (b"Transfer-Encoding: \x0bchunked\r\n", &problem::BAD_HEADER),
            (b"Transfer-Encoding : chunked\r\n", &problem::BAD_HEADER),
            (b"Transfer-Encoding\r\n", &problem::BAD_HEADER),
            (b" folded: yes\r\n", &problem::FOLDED_HEADER),
            (b"a: b\r\n\tc\r\n", &problem::FOLDED_HEADER),
            (b": nameless\r\n", &problem::BAD_HEADER),
            (b"a: b\rc: d\r\n", &problem::BAD_HEADER),
            (b"a: b\0\r\n", &problem::BAD_HEADER),
            (b"a\x80: b\r\n", &problem::BAD_HEADER),
            (b"a: b\nc: d\r\n", &problem::BARE_LF),
            (b"Host: twice\r\n", &problem::BAD_HOST),
            (b"Expect: 200-ok\r\n", &problem::EXPECTATION_FAILED),
        ];
        for (headers, refusal) in cases {
            let request = [b"POST / HTTP/1.1\r\nHost: a\r\n", *headers, b"\r\n"].concat();
            assert_eq!(frame(&request), Err(*refusal), "{}", String::from_utf8_lossy(headers));
        }
    }

    #[test]
    fn request_lines_are_read_strictly() {
        let cases: &[(&[u8], Refusal)] = &[
            (b"GET  / HTTP/1.1", &problem::BAD_REQUEST_LINE),
            (b"GET / HTTP/1.1 ", &problem::BAD_REQUEST_LINE),
            (b"GET /", &problem::BAD_REQUEST_LINE),
            (b"GET /\tHTTP/1.1", &problem::BAD_REQUEST_LINE),
            (b"GET /\x80 HTTP/1.1", &problem::BAD_REQUEST_LINE),
            (b"G@T / HTTP/1.1", &problem::BAD_REQUEST_LINE),
            (b"GET health HTTP/1.1", &problem::BAD_REQUEST_LINE),
            (b"CONNECT a:1 HTTP/1.1", &problem::BAD_REQUEST_LINE),
            (b" GET / HTTP/1.1", &problem::BAD_REQUEST_LINE),
            (b"GET / HTTP/11", &problem::BAD_REQUEST_LINE),
            (b"GET / http/1.1", &problem::BAD_REQUEST_LINE),
            (b"GET / HTTP/2.0", &problem::UNSUPPORTED_VERSION),
            (b"GET / HTTP/0.9", &problem::UNSUPPORTED_VERSION),
            (b"GET / HTTP/1.2", &problem::UNSUPPORTED_VERSION),
        ];
        for (line, refusal) in cases {
            let request = [*line, b"\r\nHost: a\r\n\r\n"].concat();
            assert_eq!(frame(&request), Err(*refusal), "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(frame(b"GET / HTTP/1.1\r\n\r\n"), Err(&problem::BAD_HOST));
        assert_eq!(end(b"GET / HTTP/1.0\r\n\r\n"), 18);
        assert_eq!(
            frame(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(&problem::BAD_TRANSFER_ENCODING)
        );
        let long = [b"GET /".as_slice(), &[b'a'; TARGET_SIZE_MAX], b" HTTP/1.1\r\n"].concat();
        assert_eq!(frame(&long), Err(&problem::URI_TOO_LONG));
        assert_eq!(frame(&[b'G'; HEAD_SIZE_MAX]), Err(&problem::URI_TOO_LONG));
    }

    #[test]
    fn chunk_tricks_are_refused() {
        let cases: &[(&[u8], Refusal)] = &[
            (b"\r\n\r\n", &problem::BAD_CHUNK),
            (b"3;ext=1\r\nabc\r\n0\r\n\r\n", &problem::BAD_CHUNK),
            (b"0\r\nTrailer: 1\r\n\r\n", &problem::BAD_CHUNK),
            (b"3\nabc\r\n0\r\n\r\n", &problem::BAD_CHUNK),
            (b"3\r\nabcd\r\n0\r\n\r\n", &problem::BAD_CHUNK),
            (b"3\r\nab\r\n0\r\n\r\n", &problem::BAD_CHUNK),
            (b"0x3\r\nabc\r\n0\r\n\r\n", &problem::BAD_CHUNK),
            (b"-3\r\nabc\r\n", &problem::BAD_CHUNK),
            (b" 3\r\nabc\r\n", &problem::BAD_CHUNK),
            (b"ffffffff\r\n", &problem::CONTENT_TOO_LARGE),
            (b"ffffffffffffffff\r\n", &problem::CONTENT_TOO_LARGE),
            (b"4001\r\n", &problem::CONTENT_TOO_LARGE),
        ];
        for (body, refusal) in cases {
            let request =
                [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", *body].concat();
            assert_eq!(frame(&request), Err(*refusal), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn sizes_are_bounded_even_when_the_end_never_comes() {
        let name = [b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(), &[b'a'; 70_000]].concat();
        assert_eq!(frame(&name), Err(&problem::HEADER_TOO_LARGE));
        let named =
            [b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(), &[b'a'; HEADER_NAME_SIZE_MAX + 1], b": b\r\n"]
                .concat();
        assert_eq!(frame(&named), Err(&problem::HEADER_TOO_LARGE));
        let many = [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(HEADER_COUNT_MAX + 1)].concat();
        assert_eq!(frame(&many), Err(&problem::HEADER_TOO_LARGE));
        let drip = [
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(),
            &b"1\r\na\r\n".repeat(4_000),
        ]
        .concat();
        assert_eq!(frame(&drip), Err(&problem::CONTENT_TOO_LARGE));
    }

    #[test]
    fn the_connection_stays_as_the_versions_say() {
        let keep = |head: &str| match frame(head.as_bytes()) {
            Ok(Progress::Complete(head, _)) => (head.keep_alive, head.http_10),
            other => panic!("{other:?}"),
        };
        assert_eq!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (true, false));
        assert_eq!(keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, Close\r\n\r\n"), (false, false));
        assert_eq!(keep("GET / HTTP/1.0\r\n\r\n"), (false, true));
        assert_eq!(keep("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), (true, true));
    }

    #[test]
    fn a_shifts_number_is_read_and_anything_else_in_its_place_is_none() {
        let shift = |value: &str| match frame(
            format!("GET / HTTP/1.1\r\nHost: a\r\ngalo-Shift:{value}\r\n\r\n").as_bytes(),
        ) {
            Ok(Progress::Complete(head, _)) => head.shift,
            other => panic!("{other:?}"),
        };
        assert_eq!(shift(" 3598732846814"), Some(3_598_732_846_814));
        assert_eq!(shift("18446744073709551615"), Some(u64::MAX));
        for value in ["", " ", "-1", "1.5", "18446744073709551616", "\u{e9}", "7 7"] {
            assert_eq!(shift(value), None, "{value}");
        }
    }

    #[test]
    fn a_shift_takes_the_place_of_no_other_header_but_once() {
        let framed = |others: usize, shifts: usize| {
            let head = format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}{}\r\n",
                "a: b\r\n".repeat(others),
                "Galo-Shift: 7\r\n".repeat(shifts)
            );
            frame(head.as_bytes()).is_ok()
        };
        let full = HEADER_COUNT_MAX - 1;
        assert_eq!(
            [(full, 0), (full, 1), (full - 1, 2)].map(|(others, shifts)| framed(others, shifts)),
            [true; 3]
        );
        assert_eq!(
            [(full + 1, 0), (full + 1, 1), (full, 2)].map(|(others, shifts)| framed(others, shifts)),
            [false; 3]
        );
    }
}
