//! Requests as bytes: head and body rendered together, so that an attempt is one write.
//!
//! monoio-http's encoder would want an `http::Request` with a `HeaderMap` for each attempt, and writes head and body
//! into a second buffer. Everything before the body's length is the same for all attempts of a client, so a lane keeps
//! those bytes at the front of its own buffer and renders only what differs: no allocation, no formatting machinery.

use galo_engine::CorrelationId;
use galo_engine::money::{self, AmountCents};
use galo_engine::time::UnixMillis;
use galo_engine::timestamp;

use super::endpoint::Endpoint;

/// A correlation id's text: 36 bytes.
const ID_SIZE: usize = 36;

/// The body without its amount's digits: the five literals below, the id and the timestamp.
const BODY_SIZE_REST: usize =
    BODY_ID.len() + ID_SIZE + BODY_AMOUNT.len() + BODY_TIME.len() + 24 + BODY_END.len();
const BODY_ID: &[u8] = b"{\"correlationId\":\"";
const BODY_AMOUNT: &[u8] = b"\",\"amount\":";
const BODY_TIME: &[u8] = b",\"requestedAt\":\"";
const BODY_END: &[u8] = b"\"}";

// The length is written as three digits: whatever the amount (at most 24 bytes of text), it has three.
const _: () = assert!(BODY_SIZE_REST >= 100 && BODY_SIZE_REST + 24 <= 999);

/// What all requests of one client share.
pub(super) struct RequestTemplate {
    payment_head: Vec<u8>,
    path_prefix: String,
    host_header: String,
}

impl RequestTemplate {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let (path_prefix, host_header) =
            (endpoint.path_prefix().to_owned(), endpoint.host_header().to_owned());
        let payment_head = format!(
            "POST {path_prefix}/payments HTTP/1.1\r\nHost: {host_header}\r\nContent-Type: application/json\r\nContent-Length: "
        )
        .into_bytes();
        Self { payment_head, path_prefix, host_header }
    }

    /// A buffer that [`RequestTemplate::render_payment`] never has to grow.
    pub(super) fn payment_buffer(&self) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(self.payment_head.len() + 3 + 4 + BODY_SIZE_REST + 24);
        buffer.extend_from_slice(&self.payment_head);
        buffer
    }

    /// Renders `POST /payments` into `buffer`, which came from [`RequestTemplate::payment_buffer`].
    pub(super) fn render_payment(
        &self,
        correlation_id: CorrelationId,
        amount: AmountCents,
        requested_at: UnixMillis,
        buffer: &mut Vec<u8>,
    ) {
        debug_assert!(buffer.starts_with(&self.payment_head));
        let capacity = buffer.capacity();
        buffer.truncate(self.payment_head.len());

        let mut decimal_text = [0; 24];
        let decimal = money::write_decimal(amount.get(), &mut decimal_text);
        let body_size = BODY_SIZE_REST + decimal.len();
        for divisor in [100, 10, 1] {
            // One decimal digit: at most 9, so the cast keeps it whole.
            #[allow(clippy::cast_possible_truncation, reason = "a remainder of ten fits in a byte")]
            buffer.push(b'0' + (body_size / divisor % 10) as u8);
        }
        buffer.extend_from_slice(b"\r\n\r\n");
        let body_start = buffer.len();
        buffer.extend_from_slice(BODY_ID);
        buffer.extend_from_slice(correlation_id.write(&mut [0; ID_SIZE]).as_bytes());
        buffer.extend_from_slice(BODY_AMOUNT);
        buffer.extend_from_slice(decimal.as_bytes());
        buffer.extend_from_slice(BODY_TIME);
        buffer.extend_from_slice(timestamp::write(requested_at, &mut [0; 24]).as_bytes());
        buffer.extend_from_slice(BODY_END);
        // A wrong length would make the processor read the next request's head as this one's body.
        assert_eq!(buffer.len() - body_start, body_size);
        debug_assert_eq!(buffer.capacity(), capacity, "rendering must not grow the buffer");
    }

    /// `GET /payments/{id}`.
    pub(super) fn lookup(&self, correlation_id: CorrelationId) -> Vec<u8> {
        self.get(&format!("/payments/{correlation_id}"))
    }

    /// `GET /payments/service-health`.
    pub(super) fn health(&self) -> Vec<u8> {
        self.get("/payments/service-health")
    }

    /// Queries use a connection once: they are rare, and a health check may hang for seconds.
    fn get(&self, path: &str) -> Vec<u8> {
        let Self { path_prefix, host_header, .. } = self;
        format!("GET {path_prefix}{path} HTTP/1.1\r\nHost: {host_header}\r\nConnection: close\r\n\r\n")
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_is_rendered_byte_for_byte() {
        let template =
            RequestTemplate::new(&Endpoint::parse_and_resolve("http://127.0.0.1:8001/prefix/").unwrap());
        let mut buffer = template.payment_buffer();
        let id = CorrelationId::parse(b"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3").unwrap();
        // The buffer is used again: the second rendering must leave nothing of the first, longer one.
        for (cents, at_ms, length, decimal, time) in [
            (99_999_999_999, 1_752_582_896_789, 119, "999999999.99", "2025-07-15T12:34:56.789Z"),
            (1, 0, 111, "0.01", "1970-01-01T00:00:00.000Z"),
            (1990, 1_752_582_896_000, 112, "19.90", "2025-07-15T12:34:56.000Z"),
        ] {
            template.render_payment(id, AmountCents::new(cents).unwrap(), UnixMillis(at_ms), &mut buffer);
            let expected = format!(
                "POST /prefix/payments HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n\
                 {{\"correlationId\":\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3\",\"amount\":{decimal},\"requestedAt\":\"{time}\"}}"
            );
            assert_eq!(String::from_utf8(buffer.clone()).unwrap(), expected);
        }
    }

    #[test]
    fn queries_are_rendered_byte_for_byte() {
        let template = RequestTemplate::new(&Endpoint::parse_and_resolve("http://127.0.0.1:8001").unwrap());
        let id = CorrelationId::parse(b"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3").unwrap();
        let tail = "HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nConnection: close\r\n\r\n";
        assert_eq!(
            String::from_utf8(template.lookup(id)).unwrap(),
            format!("GET /payments/4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3 {tail}")
        );
        assert_eq!(
            String::from_utf8(template.health()).unwrap(),
            format!("GET /payments/service-health {tail}")
        );
    }
}
