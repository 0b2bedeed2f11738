//! Answers: a status, at most two headers and a body that is there already.
//!
//! They leave through monoio-http's encoder, in one write (bodies beyond 8 KiB in two). It always states a
//! `Content-Length` that it counts itself, which is right for every answer but two: to HEAD, whose length is that of the
//! body that GET would get, and 204, which has none. Those two are rendered here, by [`render_head`]; and the hot one,
//! [`ACCEPTED`], is there already.
//!
//! No `Date` (RFC 9110, section 6.6.1, asks for it only from servers with a clock that clients may trust, and HAProxy or
//! the client stamps what it needs) and no `Server`: the hot answer, a 202 without a body, is 44 bytes.

use std::convert::Infallible;
use std::io::Write;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use monoio_http::common::body::{Body, StreamHint};

use super::problem::{self, Problem};

/// Seconds after which a client that met a 503 may try again: a ledger restarts in less.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static(problem::CONTENT_TYPE);

/// The hot answer, as the encoder would write it.
pub(super) const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

/// What a request gets.
pub(super) type Answer = Response<AnswerBody>;

/// A body that is there already.
#[derive(Debug, Default)]
pub(super) struct AnswerBody(Bytes);

impl AnswerBody {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    async fn next_data(&mut self) -> Option<Result<Bytes, Infallible>> {
        Some(Ok(std::mem::take(&mut self.0)))
    }

    fn stream_hint(&self) -> StreamHint {
        if self.0.is_empty() { StreamHint::None } else { StreamHint::Fixed }
    }
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::default());
    *answer.status_mut() = status;
    answer
}

/// Whether this is [`ACCEPTED`].
pub(super) fn is_plain_accepted(answer: &Answer) -> bool {
    answer.status() == StatusCode::ACCEPTED && answer.headers().is_empty() && answer.body().len() == 0
}

/// 200 with a JSON body.
pub(super) fn json(body: String) -> Answer {
    with_body(StatusCode::OK, JSON, Bytes::from(body))
}

/// 200 with a body of another type.
pub(super) fn text(content_type: &'static str, body: String) -> Answer {
    with_body(StatusCode::OK, HeaderValue::from_static(content_type), Bytes::from(body))
}

/// A refusal.
pub(super) fn refuse(problem: &'static Problem) -> Answer {
    refuse_with(problem.status, Bytes::from_static(problem.body.as_bytes()))
}

/// 503: this gateway should get no traffic, because of `reason`.
pub(super) fn not_ready(reason: &str) -> Answer {
    refuse_with(503, Bytes::from(problem::not_ready(reason)))
}

/// 405, listing the methods that the path has.
pub(super) fn method_not_allowed(allow: &'static str) -> Answer {
    with_header(refuse(&problem::METHOD_NOT_ALLOWED), ALLOW, HeaderValue::from_static(allow))
}

/// The answer to OPTIONS.
pub(super) fn options(allow: &'static str) -> Answer {
    with_header(empty(StatusCode::NO_CONTENT), ALLOW, HeaderValue::from_static(allow))
}

/// Adds a header.
pub(super) fn with_header(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}

/// Says what becomes of the connection, where the version's default would say otherwise.
pub(super) fn set_connection(answer: &mut Answer, stays: bool, is_http_10: bool) {
    match (stays, is_http_10) {
        (true, true) => answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive")),
        (false, false) => answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close")),
        (true, false) | (false, true) => None,
    };
}

fn refuse_with(status: u16, body: Bytes) -> Answer {
    let status = StatusCode::from_u16(status).expect("statuses in the table of problems are valid");
    let answer = with_body(status, PROBLEM, body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return with_header(answer, RETRY_AFTER, RETRY_AFTER_S);
    }
    answer
}

fn with_body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(AnswerBody(body));
    *answer.status_mut() = status;
    with_header(answer, CONTENT_TYPE, content_type)
}

/// Renders the head alone, for HEAD and 204.
pub(super) fn render_head(answer: &Answer) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    let status = answer.status();
    let write = write!(head, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or(""))
        .and_then(|()| match status {
            StatusCode::NO_CONTENT => Ok(()),
            _ => write!(head, "content-length: {}\r\n", answer.body().len()),
        });
    write.expect("writing to a Vec cannot fail");
    for (name, value) in answer.headers() {
        head.extend_from_slice(name.as_ref());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_ref());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A refusal for a connection that gets no codec: the whole answer, ready to be written.
pub(super) fn render_refusal(problem: &'static Problem) -> Vec<u8> {
    let mut answer = refuse(problem);
    set_connection(&mut answer, false, false);
    let mut bytes = render_head(&answer);
    bytes.extend_from_slice(problem.body.as_bytes());
    bytes
}
