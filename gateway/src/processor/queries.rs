//! The two questions a processor answers: what it stored for an id, and how it says it feels.
//!
//! Both are rare, so each takes a connection of its own and closes it: an early health check hangs until the next
//! window and must not occupy a lane. Neither decides anything. In particular a `NotFound` proves nothing while an
//! attempt may still be sleeping inside the processor; see `engine`.

use std::cell::Cell;
use std::time::Duration;

use galo_engine::CorrelationId;
use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::timestamp;
use monoio::time::timeout;
use simd_json::StaticNode;
use simd_json::tape::Node;
use thiserror::Error;

use super::answer::Unreadable;
use super::client::Client;

/// How long a lookup may take. The processors' delay does not apply to it.
const LOOKUP_TIMEOUT_MS: u64 = 5000;

/// How long a health check may take: a call made early hangs until its window of 5 s begins. Less than two intervals of
/// the leases (10.2 s): then, however late each check arrives, a processor that lets two wait refuses none.
const HEALTH_TIMEOUT_MS: u64 = 8000;

/// Queries at once. Beyond, they fail at once: each costs a connection.
const QUERIES_MAX: usize = 32;

/// What a processor says about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupReply {
    /// It is stored.
    Found {
        /// As the processor stored it.
        requested_at: UnixMillis,
        /// As the processor stored it, if it is an amount as Galo knows them.
        amount_cents: Option<u64>,
    },
    /// Not stored so far (404).
    NotFound,
    /// No answer that could be understood.
    Failed,
}

/// What a processor says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthReply {
    /// Whether payments fail.
    pub failing: bool,
    /// The least time that a payment takes.
    pub min_response_ms: u64,
}

/// Why a health check gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HealthError {
    /// The processor cannot be reached, or closed the connection.
    #[error("no connection, or none that lasted")]
    Broken,
    /// No answer within the time that an early call may hang.
    #[error("no answer within 8 s")]
    TimedOut,
    /// An answer other than 200; 429 means that somebody asked within the same five seconds.
    #[error("status {0}")]
    Status(u16),
    /// A 200 whose body is no health report.
    #[error("an answer that is no health report")]
    Malformed,
}

/// One of the queries that may run at once; gives its place back when dropped.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(places: &'a Cell<usize>) -> Option<Self> {
        if places.get() >= QUERIES_MAX {
            return None;
        }
        places.set(places.get() + 1);
        Some(Self(places))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Client {
    /// Asks what is stored for an id: `GET /payments/{id}`.
    pub async fn lookup(&self, correlation_id: CorrelationId) -> LookupReply {
        let query = self.query(self.template.lookup(correlation_id));
        match timeout(Duration::from_millis(LOOKUP_TIMEOUT_MS), query).await {
            Ok(Some((200, Ok(mut body)))) => {
                parse_payment(&mut body, correlation_id).unwrap_or(LookupReply::Failed)
            }
            Ok(Some((404, _))) => LookupReply::NotFound,
            Ok(_) | Err(_) => LookupReply::Failed,
        }
    }

    /// Asks for the processor's own view of its health: `GET /payments/service-health`.
    ///
    /// Whoever calls it holds the lease: one call per 5 s and processor, across all gateways.
    ///
    /// # Errors
    ///
    /// [`HealthError`] says why there is no report.
    pub async fn check_health(&self) -> Result<HealthReply, HealthError> {
        let query = self.query(self.template.health());
        match timeout(Duration::from_millis(HEALTH_TIMEOUT_MS), query).await {
            Err(_) => Err(HealthError::TimedOut),
            Ok(None) => Err(HealthError::Broken),
            Ok(Some((200, Ok(mut body)))) => parse_health(&mut body).ok_or(HealthError::Malformed),
            Ok(Some((200, Err(_)))) => Err(HealthError::Malformed),
            Ok(Some((status, _))) => Err(HealthError::Status(status)),
        }
    }

    /// Sends a request on a connection of its own: the status once it is known, and the body if it came whole.
    async fn query(&self, request: Vec<u8>) -> Option<(u16, Result<Vec<u8>, Unreadable>)> {
        let _place = Place::take(&self.queries)?;
        let mut connection = self.connector.connect().await.ok()?;
        let (result, _) = connection.send(request).await;
        result.ok()?;
        let head = connection.read_head().await.ok()?;
        let status = head.status;
        let mut body = Vec::new();
        let result = connection.read_body(head, |piece| body.extend_from_slice(piece)).await;
        Some((status, result.map(|_| body)))
    }
}

/// Calls `field` with each key of the JSON object in `body` and its value's node. `None` when `body` is no object.
fn each_field<'a>(body: &'a mut [u8], mut field: impl FnMut(&'a str, &Node<'a>)) -> Option<()> {
    let nodes = simd_json::to_tape(body).ok()?.0;
    let Some(Node::Object { len, .. }) = nodes.first() else { return None };
    let mut at = 1;
    for _ in 0..*len {
        let (Node::String(key), value) = (nodes.get(at)?, nodes.get(at + 1)?) else { return None };
        field(key, value);
        // A nested value's nodes follow it.
        at += 2 + match value {
            Node::Object { count, .. } | Node::Array { count, .. } => *count,
            Node::String(_) | Node::Static(_) => 0,
        };
    }
    Some(())
}

pub(super) fn parse_health(body: &mut [u8]) -> Option<HealthReply> {
    let (mut failing, mut min_response_ms) = (None, None);
    each_field(body, |key, value| match (key, value) {
        ("failing", Node::Static(StaticNode::Bool(value))) => failing = Some(*value),
        ("minResponseTime", Node::Static(StaticNode::U64(value))) => min_response_ms = Some(*value),
        _ => {}
    })?;
    Some(HealthReply { failing: failing?, min_response_ms: min_response_ms? })
}

/// The payment in `body`, if it is the one asked for.
pub(super) fn parse_payment(body: &mut [u8], expected: CorrelationId) -> Option<LookupReply> {
    let amount_text = number_text(body, b"\"amount\"").map(<[u8]>::to_vec);
    let (mut is_expected, mut requested_at) = (false, None);
    each_field(body, |key, value| match (key, value) {
        ("correlationId", Node::String(text)) => {
            is_expected = CorrelationId::parse(text.as_bytes()) == Some(expected)
        }
        ("requestedAt", Node::String(text)) => requested_at = timestamp::parse(text).ok(),
        _ => {}
    })?;
    let amount_cents = amount_text.and_then(|text| AmountCents::parse(&text).ok()).map(AmountCents::get);
    is_expected.then_some(())?;
    Some(LookupReply::Found { requested_at: requested_at?, amount_cents })
}

/// The digits that follow `key` and a colon. The number's own text, since a float would not hold it.
fn number_text<'a>(body: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let at = body.windows(key.len()).position(|window| window == key)?;
    let rest = body[at + key.len()..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let size = rest.iter().position(|&byte| matches!(byte, b',' | b'}') || byte.is_ascii_whitespace())?;
    Some(&rest[..size])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn payment(body: &str) -> Option<LookupReply> {
        parse_payment(&mut body.as_bytes().to_vec(), CorrelationId::parse(ID.as_bytes()).unwrap())
    }

    #[test]
    fn a_stored_payment_is_read_exactly() {
        for (amount, cents) in
            [("19.90", 1990), ("19.9", 1990), ("1e2", 10_000), ("999999999.99", 99_999_999_999)]
        {
            let body = format!(
                "{{\"correlationId\":\"{ID}\",\"amount\": {amount},\"requestedAt\":\"2025-07-15T12:34:56.789Z\"}}"
            );
            let requested_at = UnixMillis(1_752_582_896_789);
            assert_eq!(payment(&body), Some(LookupReply::Found { requested_at, amount_cents: Some(cents) }));
        }
    }

    #[test]
    fn an_answer_about_something_else_is_none() {
        let at = "\"requestedAt\":\"2025-07-15T12:34:56.789Z\"";
        for body in [
            "",
            "[]",
            "{}",
            "null",
            "{\"amount\":1}",
            &format!("{{\"correlationId\":\"{ID}\"}}"),
            &format!("{{\"correlationId\":\"{ID}\",\"requestedAt\":\"yesterday\"}}"),
            &format!("{{\"correlationId\":\"00000000-7d26-4d9d-aa19-4dc1c7cf60b3\",\"amount\":1,{at}}}"),
            &format!("{{\"correlationId\":\"{ID}\",\"amount\":1,{at}"),
        ] {
            assert_eq!(payment(body), None, "{body}");
        }
        let body =
            format!("{{\"extra\":{{\"a\":[1,{{}}]}},\"amount\":\"1\",\"correlationId\":\"{ID}\",{at}}}");
        let requested_at = UnixMillis(1_752_582_896_789);
        assert_eq!(payment(&body), Some(LookupReply::Found { requested_at, amount_cents: None }));
    }

    #[test]
    fn a_health_report_is_read() {
        let health = |body: &str| parse_health(&mut body.as_bytes().to_vec());
        assert_eq!(
            health("{\"failing\":false,\"minResponseTime\":123}"),
            Some(HealthReply { failing: false, min_response_ms: 123 })
        );
        assert_eq!(
            health(" {\"x\":[[1],2],\"minResponseTime\":0,\"failing\":true} "),
            Some(HealthReply { failing: true, min_response_ms: 0 })
        );
        for body in [
            "",
            "{}",
            "{\"failing\":true}",
            "{\"failing\":1,\"minResponseTime\":1}",
            "true",
            "{\"failing\":true,\"minResponseTime\":-1}",
        ] {
            assert_eq!(health(body), None, "{body}");
        }
    }
}
