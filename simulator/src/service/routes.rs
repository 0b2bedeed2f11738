//! Paths, the payments' own endpoints, and how the model's answers look on the wire.
//!
//! Statuses are those of the real processors' framework: 404 for an unknown path, 405 with `Allow` for a known one,
//! 415 for a body without `Content-Type: application/json`, 400 for one that does not parse, for an id that is no UUID
//! and for a request without `Host`; all of these, and 500, with an empty body of known length. Bodies of 200, 422 and 429
//! are chunked, and every eighth of them has its last chunk in a segment of its own.
//!
//! Stricter than the original on purpose: a payment with a field missing is 400 here, where .NET would store a zero,
//! so that a caller's mistake is seen. A field's name must have its exact case.

use std::rc::Rc;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::body::AnswerBody;
use super::{Service, Severed, admin, provider};
use crate::processor::{Answer, Decimal, Payment, format_without_zone, parse_cents, parse_ms};

/// Larger bodies are refused with 413. A payment has about 120 bytes.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// The 422's length: what .NET's trace of a PostgreSQL error comes to.
const DUPLICATE_BYTES: usize = 2048;

/// One body in so many ends in a segment of its own.
const LATE_END_EVERY: u32 = 8;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

pub(super) type AnswerResponse = Response<AnswerBody>;

pub(super) async fn route(
    service: Rc<Service>,
    request: Request<Incoming>,
) -> Result<AnswerResponse, Severed> {
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST) {
        return Ok(empty(StatusCode::BAD_REQUEST));
    }
    if let Some(of) = service.provider.clone().filter(|_| !request.uri().path().starts_with("/admin/")) {
        return provider::route(service, of, request).await;
    }
    match request.uri().path() {
        "/payments" => match *request.method() {
            Method::POST => post(&service, request).await,
            _ => Ok(not_allowed("POST")),
        },
        "/payments/service-health" => match *request.method() {
            Method::GET => service.health().await,
            _ => Ok(not_allowed("GET")),
        },
        path => {
            if let Some(id) = path.strip_prefix("/payments/").filter(|id| !id.is_empty() && !id.contains('/'))
            {
                return match *request.method() {
                    Method::GET => find(&service, id).await,
                    _ => Ok(not_allowed("GET")),
                };
            }
            Ok(admin::route(service, request).await)
        }
    }
}

/// A payment as it arrives. The amount is kept as its digits.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PaymentRequest<'body> {
    correlation_id: &'body str,
    #[serde(borrow)]
    amount: &'body RawValue,
    requested_at: &'body str,
}

impl PaymentRequest<'_> {
    fn read(body: &[u8]) -> Option<Payment> {
        let request: PaymentRequest<'_> = serde_json::from_slice(body).ok()?;
        // .NET's web defaults take a number in a string as well.
        let amount = request.amount.get();
        let amount = amount.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(amount);
        Some(Payment {
            correlation_id: hyphenated(request.correlation_id)?,
            amount_cents: parse_cents(amount).ok()?,
            requested_at_ms: parse_ms(request.requested_at)?,
        })
    }
}

/// A body's UUID has hyphens and nothing else; other spellings are for paths.
fn hyphenated(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

async fn post(service: &Service, request: Request<Incoming>) -> Result<AnswerResponse, Severed> {
    let body = match read_json(request).await {
        Ok(body) => body,
        Err(status) => return Ok(empty(status)),
    };
    let Some(payment) = PaymentRequest::read(&body) else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    let payment = match service.on_terms(payment) {
        Ok(payment) => payment,
        Err(StatusCode::TOO_MANY_REQUESTS) => return Ok(service.too_many()),
        Err(status) => return Ok(empty(status)),
    };
    let answer = service.ask(|model, now_us| model.post(now_us, payment)).await;
    service.write(answer)
}

async fn find(service: &Service, id: &str) -> Result<AnswerResponse, Severed> {
    let Ok(id) = Uuid::try_parse(id) else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    if service.is_too_many() {
        return service.write(Answer::Refused);
    }
    let answer = service.ask(|model, now_us| model.find(now_us, id)).await;
    service.write(answer)
}

/// The body of a request that must carry JSON.
///
/// # Errors
///
/// The status to answer with.
pub(super) async fn read_json(request: Request<Incoming>) -> Result<Bytes, StatusCode> {
    use hyper::body::Body;

    if request.body().is_end_stream() {
        return Err(StatusCode::BAD_REQUEST);
    }
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

impl Service {
    /// The payment as it is to be stored, or the status that it gets before the model sees it.
    fn on_terms(&self, payment: Payment) -> Result<Payment, StatusCode> {
        if self.is_too_many() {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        let terms = self.terms.borrow();
        let (id, cents) = (Some(payment.correlation_id), payment.amount_cents);
        if terms.refuse.picks(id, cents) {
            return Err(StatusCode::BAD_REQUEST);
        }
        let is_stored = |id| self.model.borrow().store().get(id).is_some();
        if terms.decline.picks(id, cents) && !is_stored(payment.correlation_id) {
            return Err(StatusCode::PAYMENT_REQUIRED);
        }
        Ok(Payment { amount_cents: terms.stored_cents(id, cents), ..payment })
    }

    fn too_many(&self) -> AnswerResponse {
        let text = Bytes::from_static(b"Too many requests. Try again later.");
        let mut response = self.text(StatusCode::TOO_MANY_REQUESTS, text);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        response
    }

    async fn health(&self) -> Result<AnswerResponse, Severed> {
        let answer = self.ask(|model, now_us| model.health(now_us)).await;
        self.write(answer)
    }

    /// The model's answer on the wire.
    fn write(&self, answer: Answer) -> Result<AnswerResponse, Severed> {
        Ok(match answer {
            Answer::Processed => {
                self.json(Bytes::from_static(br#"{"message":"payment processed successfully"}"#))
            }
            Answer::Duplicate(id) => {
                let mut response = self.json(duplicate(id));
                *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
                response
            }
            Answer::Found(payment) => self.json(Bytes::from(format!(
                r#"{{"correlationId":"{}","amount":{},"requestedAt":"{}"}}"#,
                payment.correlation_id,
                Decimal::from_cents(i128::from(payment.amount_cents)),
                format_without_zone(payment.requested_at_ms),
            ))),
            Answer::Health { failing, min_response_time_ms } => self.json(Bytes::from(format!(
                r#"{{"failing":{failing},"minResponseTime":{min_response_time_ms}}}"#
            ))),
            Answer::NotFound => empty(StatusCode::NOT_FOUND),
            Answer::Failed => empty(StatusCode::INTERNAL_SERVER_ERROR),
            Answer::Refused => self.too_many(),
            Answer::Closed { reset: false } => return Err(Severed::Closed),
            Answer::Closed { reset: true } => return Err(Severed::Reset),
            Answer::Garbage => return Err(Severed::Garbage),
        })
    }

    /// 200 with a chunked JSON body.
    pub(super) fn json(&self, bytes: Bytes) -> AnswerResponse {
        let mut response = self.text(StatusCode::OK, bytes);
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response
    }

    /// Any status with a chunked body of plain text.
    pub(super) fn text(&self, status: StatusCode, bytes: Bytes) -> AnswerResponse {
        let count = self.bodies.get();
        self.bodies.set(count.wrapping_add(1));
        let late_end = count % LATE_END_EVERY == LATE_END_EVERY - 1;
        let mut response = Response::new(AnswerBody::Whole { bytes, late_end });
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, TEXT);
        response
    }
}

/// A status alone, with `Content-Length: 0`.
pub(super) fn empty(status: StatusCode) -> AnswerResponse {
    let mut response = Response::new(AnswerBody::Empty);
    *response.status_mut() = status;
    response
}

pub(super) fn not_allowed(allow: &'static str) -> AnswerResponse {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The 422's body: a message as long as the original's, with the line breaks of a stack trace.
fn duplicate(id: Uuid) -> Bytes {
    let mut text = format!(
        r#"{{"message":"Payment could not be processed. CorrelationId already exists: {id}. Error details: 23505: duplicate key value violates unique constraint \u0022payments_pkey\u0022\n\nDETAIL: Key (correlationid)=({id}) already exists."#
    );
    const FRAME: &str = r"\n   at Model.Processor.Store.Insert(Payment payment, CancellationToken token)";
    const END: &str = r#""}"#;
    while text.len() + FRAME.len() + END.len() <= DUPLICATE_BYTES {
        text.push_str(FRAME);
    }
    text.push_str(END);
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn body(amount: &str) -> Vec<u8> {
        format!(r#"{{"correlationId":"{ID}","amount":{amount},"requestedAt":"2025-07-15T12:34:56.007Z"}}"#)
            .into_bytes()
    }

    #[test]
    fn a_payment_is_read_exactly() {
        for (amount, cents) in
            [("19.9", 1990), ("1e2", 10_000), ("1234567.89", 123_456_789), (r#""0.01""#, 1)]
        {
            let payment = PaymentRequest::read(&body(amount)).unwrap();
            assert_eq!(payment.amount_cents, cents, "{amount}");
            assert_eq!(payment.correlation_id.to_string(), ID);
            assert_eq!(payment.requested_at_ms, 1_752_582_896_007);
        }
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        for amount in ["", "null", "true", "{}", r#""x""#, "1e17", "01"] {
            assert_eq!(PaymentRequest::read(&body(amount)), None, "{amount}");
        }
        assert_eq!(PaymentRequest::read(b"{}"), None);
        assert_eq!(PaymentRequest::read(&body("1")[1..]), None);
        assert_eq!(hyphenated("4a7901b87d264d9daa194dc1c7cf60b3"), None);
    }

    #[test]
    fn a_duplicate_is_about_two_kilobytes_of_json() {
        let text = duplicate(Uuid::nil());
        assert!((1900..=DUPLICATE_BYTES).contains(&text.len()), "{}", text.len());
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert!(value["message"].as_str().unwrap().contains("already exists: 00000000-"));
    }
}
