//! Everything below `/admin/`, for tests and referees. Each path wants `X-Rinha-Token`; without it, or with a wrong
//! one, the answer is 401 with an empty body, as the original's filter gives. That filter runs after the body is read,
//! so a body that does not parse is 400 or 415 whatever the token.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT /admin/configurations/token` `{"token":"…"}` | 204 |
//! | `PUT /admin/configurations/delay` `{"delay":ms}` | 200 `{"config":"delay","was":…,"is":…}` |
//! | `PUT /admin/configurations/failure` `{"failure":bool}` | 200, likewise |
//! | `PUT /admin/configurations/faults` [`Faults`] | 200, likewise; 400 with a reason in plain text |
//! | `PUT /admin/configurations/terms` [`Terms`] | 200, likewise; 400 with a reason in plain text |
//! | `PUT /admin/configurations/address` `{"address":"IP:PORT"}` | 200, likewise; then it hangs up on everybody and listens there, once nobody else does |
//! | `POST /admin/purge-payments` | 200 `{"message":"All payments purged."}` |
//! | `GET /admin/payments-summary?from&to` | 200, four numbers |
//! | `GET /admin/payments?cursor&limit` | 200, one JSON object a line; `X-Next-Cursor` holds the cursor for what comes after |
//! | `GET /admin/statistics` | 200, [`Statistics`](crate::processor::Statistics) |
//!
//! The last two, the faults, the terms and the address are this model's own; the rest is the contest's. With another provider's API they are about
//! its books: a summary is of what is charged, by the time of creation; a listing has each payment's `state` too.

use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::Service;
use super::body::{AnswerBody, Listing};
use super::listener::Move;
use super::provider::unix_ms;
use super::routes::{AnswerResponse, empty, not_allowed, read_json};
use crate::processor::{Decimal, Faults, Terms, parse_ms, parse_ms_from};

const TOKEN: &str = "x-rinha-token";
const NEXT_CURSOR: &str = "x-next-cursor";
const JSON_LINES: HeaderValue = HeaderValue::from_static("application/jsonl");

#[derive(Deserialize)]
struct TokenRequest {
    token: String,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct DelayRequest {
    delay: i32,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct FailureRequest {
    failure: bool,
}

#[derive(Deserialize)]
struct AddressRequest {
    address: SocketAddr,
}

#[derive(Serialize)]
struct Changed<Value> {
    config: &'static str,
    was: Value,
    is: Value,
}

pub(super) async fn route(service: Rc<Service>, request: Request<Incoming>) -> AnswerResponse {
    let method = request.method().clone();
    let outcome = match (request.uri().path(), method) {
        ("/admin/configurations/token", Method::PUT) => service.set_token(request).await,
        ("/admin/configurations/delay", Method::PUT) => service.set_delay(request).await,
        ("/admin/configurations/failure", Method::PUT) => service.set_failure(request).await,
        ("/admin/configurations/faults", Method::PUT) => service.set_faults(request).await,
        ("/admin/configurations/terms", Method::PUT) => service.set_terms(request).await,
        ("/admin/configurations/address", Method::PUT) => service.set_address(request).await,
        ("/admin/purge-payments", Method::POST) => service.purge(&request),
        ("/admin/payments-summary", Method::GET) => service.summary(&request),
        ("/admin/payments", Method::GET) => service.list(&request),
        ("/admin/statistics", Method::GET) => service.statistics(&request),
        (
            "/admin/configurations/token"
            | "/admin/configurations/delay"
            | "/admin/configurations/failure"
            | "/admin/configurations/faults"
            | "/admin/configurations/terms"
            | "/admin/configurations/address",
            _,
        ) => return not_allowed("PUT"),
        ("/admin/purge-payments", _) => return not_allowed("POST"),
        ("/admin/payments-summary" | "/admin/payments" | "/admin/statistics", _) => {
            return not_allowed("GET");
        }
        _ => return empty(StatusCode::NOT_FOUND),
    };
    outcome.unwrap_or_else(empty)
}

/// An answer, or the status that refuses the request.
type Outcome = Result<AnswerResponse, StatusCode>;

impl Service {
    fn authorize<Body>(&self, request: &Request<Body>) -> Result<(), StatusCode> {
        let given = request.headers().get(TOKEN).map(HeaderValue::as_bytes);
        if given == Some(self.token.borrow().as_bytes()) { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
    }

    /// The body first, then the token, as the original does.
    async fn read<Value: for<'body> Deserialize<'body>>(
        &self,
        request: Request<Incoming>,
    ) -> Result<Value, StatusCode> {
        let authorized = self.authorize(&request);
        let body = read_json(request).await?;
        let value = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
        authorized?;
        Ok(value)
    }

    async fn set_token(&self, request: Request<Incoming>) -> Outcome {
        let TokenRequest { token } = self.read(request).await?;
        self.token.replace(token);
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn set_delay(&self, request: Request<Incoming>) -> Outcome {
        let DelayRequest { delay } = self.read(request).await?;
        let is = i64::from(delay);
        let was = self.step(|model, now_us| model.set_delay_ms(now_us, is));
        Ok(self.json_of(&Changed { config: "delay", was, is }))
    }

    async fn set_failure(&self, request: Request<Incoming>) -> Outcome {
        let FailureRequest { failure: is } = self.read(request).await?;
        let was = self.step(|model, now_us| model.set_failing(now_us, is));
        Ok(self.json_of(&Changed { config: "failure", was, is }))
    }

    async fn set_faults(&self, request: Request<Incoming>) -> Outcome {
        self.authorize(&request)?;
        let body = read_json(request).await?;
        let refuse = |reason: String| self.text(StatusCode::BAD_REQUEST, Bytes::from(reason));
        let is: Faults = match serde_json::from_slice(&body) {
            Ok(faults) => faults,
            Err(error) => return Ok(refuse(error.to_string())),
        };
        Ok(match self.step(|model, now_us| model.set_faults(now_us, is)) {
            Ok(was) => self.json_of(&Changed { config: "faults", was, is }),
            Err(error) => refuse(error.to_string()),
        })
    }

    async fn set_terms(&self, request: Request<Incoming>) -> Outcome {
        self.authorize(&request)?;
        let body = read_json(request).await?;
        let refuse = |reason: &str| self.text(StatusCode::BAD_REQUEST, Bytes::from(reason.to_owned()));
        let is: Terms = match serde_json::from_slice(&body) {
            Ok(terms) => terms,
            Err(error) => return Ok(refuse(&error.to_string())),
        };
        if let Err(reason) = self.check_terms(&is) {
            return Ok(refuse(reason));
        }
        let was = self.terms.replace(is.clone());
        Ok(self.json_of(&Changed { config: "terms", was, is }))
    }

    async fn set_address(&self, request: Request<Incoming>) -> Outcome {
        let AddressRequest { address: is } = self.read(request).await?;
        let was = *self.address.borrow();
        let mut response = self.json_of(&Changed { config: "address", was, is: Some(is) });
        // It leaves once this answer has, which ends its connection.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response.extensions_mut().insert(Move(is));
        Ok(response)
    }

    fn check_terms(&self, terms: &Terms) -> Result<(), &'static str> {
        match &self.provider {
            Some(provider) => provider.check_terms(terms),
            None => terms.check_for_contest(),
        }
    }

    fn purge<Body>(&self, request: &Request<Body>) -> Outcome {
        self.authorize(request)?;
        if let Some(provider) = &self.provider {
            provider.books.borrow_mut().purge();
        }
        self.step(|model, now_us| model.purge(now_us));
        Ok(self.json(Bytes::from_static(br#"{"message":"All payments purged."}"#)))
    }

    fn summary<Body>(&self, request: &Request<Body>) -> Outcome {
        self.authorize(request)?;
        let from_ms = parameter(request, "from", parse_ms_from)?;
        let to_ms = parameter(request, "to", parse_ms)?;
        let (total, fee) = match &self.provider {
            None => self.step(|model, now_us| (model.summarize(now_us, from_ms, to_ms), model.fee())),
            Some(provider) => {
                let range = from_ms.unwrap_or(i64::MIN)..=to_ms.unwrap_or(i64::MAX);
                (provider.books.borrow().total(unix_ms(), range), self.step(|model, _| model.fee()))
            }
        };
        // Written by hand: these are exact decimals, which JSON has and serde_json's numbers have not.
        Ok(self.json(Bytes::from(format!(
            r#"{{"totalAmount":{},"totalRequests":{},"totalFee":{},"feePerTransaction":{fee}}}"#,
            Decimal::from_cents(total.amount_cents),
            total.requests,
            fee.of_cents(total.amount_cents),
        ))))
    }

    fn list<Body>(self: &Rc<Self>, request: &Request<Body>) -> Outcome {
        self.authorize(request)?;
        let number = |text: &str| text.parse::<usize>().ok();
        let cursor = parameter(request, "cursor", number)?.unwrap_or(0);
        let limit = parameter(request, "limit", number)?.unwrap_or(usize::MAX);
        if let Some(provider) = &self.provider {
            let (lines, next) = provider.lines(cursor, limit);
            let mut response = self.text(StatusCode::OK, Bytes::from(lines));
            response.headers_mut().insert(NEXT_CURSOR, HeaderValue::from(next));
            response.headers_mut().insert(CONTENT_TYPE, JSON_LINES);
            return Ok(response);
        }
        self.step(|model, now_us| model.advance(now_us));
        let listing = Listing::new(Rc::clone(self), cursor, limit);
        let end = HeaderValue::from(listing.end());
        let mut response = Response::new(AnswerBody::Listing(listing));
        response.headers_mut().insert(NEXT_CURSOR, end);
        response.headers_mut().insert(CONTENT_TYPE, JSON_LINES);
        Ok(response)
    }

    fn statistics<Body>(&self, request: &Request<Body>) -> Outcome {
        self.authorize(request)?;
        let statistics = self.step(|model, now_us| {
            model.advance(now_us);
            model.statistics()
        });
        Ok(match &self.provider {
            None => self.json_of(&statistics),
            Some(provider) => self.json_of(&provider.statistics(statistics)),
        })
    }

    fn json_of(&self, value: &impl Serialize) -> AnswerResponse {
        let bytes = serde_json::to_vec(value).expect("plain structs of numbers and text are JSON");
        self.json(Bytes::from(bytes))
    }
}

/// A parameter of the query. Absent or empty is none; present and unreadable is 400.
fn parameter<Body, Value>(
    request: &Request<Body>,
    name: &str,
    parse: impl FnOnce(&str) -> Option<Value>,
) -> Result<Option<Value>, StatusCode> {
    let query = request.uri().query().unwrap_or_default();
    match form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key.eq_ignore_ascii_case(name)) {
        Some((_, text)) if !text.is_empty() => parse(&text).map(Some).ok_or(StatusCode::BAD_REQUEST),
        Some(_) | None => Ok(None),
    }
}
