//! What an operator may see and do beside metrics: the payments in doubt, and how one of them ends.
//!
//! | path | methods |
//! | --- | --- |
//! | `/payments?state=in_doubt\|open\|declined&limit=100` | GET |
//! | `/payments/{id}/settle` | POST |
//!
//! Reached over the unix socket alone: HAProxy passes on `/metrics` and nothing else, so whoever may settle is whoever may open the socket.
//! The answers wait for the journal, like a gateway's.

use std::fmt::Write;

use bytes::Bytes;
use galo_engine::CorrelationId;
use galo_engine::coordinator::{REASON_SIZE_MAX, Settled, SettledAs, Settlement};
use galo_engine::ledger::listing::{LISTED_LEN_MAX, Listed, Listing, Which};
use galo_engine::money::{DECIMAL_TEXT_SIZE, write_decimal};
use galo_engine::time::UnixMillis;
use galo_engine::timestamp::{self, TIMESTAMP_TEXT_SIZE};
use galo_engine::{STATUS_CANCELLED, STATUS_EXPIRED, STATUS_SETTLED};
use galo_shell::processors::Names;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Deserialize;

use crate::http::{self, problem};
use crate::server::Shared;

/// A settlement is a few hundred bytes.
const BODY_SIZE_MAX: usize = 4 << 10;

/// Payments in a list that states no limit.
const LISTED_LEN: usize = 100;

/// The body of a settlement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Said {
    r#as: As,
    processor: Option<String>,
    requested_at: Option<String>,
    reason: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum As {
    Processed,
    Declined,
}

/// The id of a path that settles a payment.
pub fn settled_id(path: &str) -> Option<&str> {
    path.strip_prefix("/payments/")?.strip_suffix("/settle").filter(|id| !id.contains('/'))
}

/// Answers `POST /payments/{id}/settle`.
pub async fn settle<B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>>(
    shared: &Shared,
    names: &Names,
    id: &str,
    body: B,
) -> Response<Full<Bytes>> {
    let Some(id) = CorrelationId::parse(id.as_bytes()) else {
        return problem(
            StatusCode::NOT_FOUND,
            "unknown-payment",
            "Unknown payment",
            "no payment has this id",
        );
    };
    let Ok(body) = Limited::new(body, BODY_SIZE_MAX).collect().await else {
        let title = "Content too large";
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "content-too-large", title, "at most 4096 bytes");
    };
    let settlement = match read(id, names, &body.to_bytes()) {
        Ok(settlement) => settlement,
        Err(detail) => {
            let title = "Invalid settlement";
            return problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid-settlement", title, detail);
        }
    };
    let settled_as = settlement.settled_as();
    let settled = shared.settle(settlement).await;
    shared.written().await;
    match settled {
        Settled::Done | Settled::Already => {
            let state = if settled_as == SettledAs::Declined { "declined" } else { "processed" };
            http::json(format!(r#"{{"correlationId":"{id}","state":"{state}"}}"#))
        }
        Settled::Absent => problem(
            StatusCode::NOT_FOUND,
            "unknown-payment",
            "Unknown payment",
            "the ledger knows no payment with this id",
        ),
        Settled::NotInDoubt => problem(
            StatusCode::CONFLICT,
            "payment-not-in-doubt",
            "Payment not in doubt",
            "it waits, and no processor can have it: DELETE /payments/{id} at a gateway cancels it",
        ),
        Settled::Otherwise => problem(
            StatusCode::CONFLICT,
            "payment-ended",
            "Payment ended",
            "it has ended otherwise; GET /payments/{id} at a gateway tells how",
        ),
        Settled::UnderWay => later(problem(
            StatusCode::CONFLICT,
            "payment-under-way",
            "Payment under way",
            "an attempt is on its way, or may be; try again",
        )),
        Settled::NoGateway => later(problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-gateway",
            "No gateway",
            "no gateway is connected that could say whether an attempt is on its way",
        )),
    }
}

fn later(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn read(id: CorrelationId, names: &Names, body: &[u8]) -> Result<Settlement, &'static str> {
    const SHAPE: &str = "expected {\"as\":\"processed\",\"processor\":…,\"requestedAt\":…,\"reason\":…} or {\"as\":\"declined\",\"reason\":…}";
    let said: Said = serde_json::from_slice(body).map_err(|_| SHAPE)?;
    let verdict = match (said.r#as, said.processor, said.requested_at) {
        (As::Declined, None, None) => SettledAs::Declined,
        (As::Processed, Some(name), Some(requested_at)) => {
            let named = names.iter().find(|(_, other)| *other == name);
            let (processor, _) = named.ok_or("processor must be one of GALO_PROCESSORS")?;
            let at = timestamp::parse(&requested_at);
            let at =
                at.map_err(|_| "requestedAt must be an ISO 8601 timestamp such as 2020-07-10T12:34:56.000Z")?;
            SettledAs::Processed { processor, requested_at_ms: at.0 }
        }
        (As::Declined | As::Processed, _, _) => return Err(SHAPE),
    };
    const { assert!(REASON_SIZE_MAX == 200, "as the text says") };
    Settlement::new(id, verdict, said.reason)
        .ok_or("reason must have 1 to 200 bytes, and no control characters")
}

/// Answers `GET /payments`.
pub async fn list(shared: &Shared, names: &Names, query: &str) -> Response<Full<Bytes>> {
    let (which, len_max) = match read_query(query) {
        Ok(asked) => asked,
        Err(detail) => {
            let title = "Invalid query parameter";
            return problem(StatusCode::BAD_REQUEST, "invalid-parameter", title, detail);
        }
    };
    shared.take_grants();
    let listed = find(shared, which, len_max).await;
    shared.written().await;
    let now = shared.now().unix_ms;
    let mut body = String::with_capacity(2 + 250 * listed.len());
    for (index, payment) in listed.iter().enumerate() {
        body.push_str(if index == 0 { "[\n" } else { ",\n" });
        write_one(&mut body, names, which, payment, now);
    }
    body.push_str(if listed.is_empty() { "[]\n" } else { "\n]\n" });
    http::json(body)
}

/// Looks through the ledger, and lets payments pass meanwhile.
pub async fn find(shared: &Shared, which: Which, len_max: usize) -> Vec<Listed> {
    let mut listing = Listing::new(which, len_max);
    while shared.look(|coordinator| coordinator.ledger().list(&mut listing)) {
        tokio::task::yield_now().await;
    }
    listing.into_list()
}

fn read_query(query: &str) -> Result<(Which, usize), &'static str> {
    let (mut which, mut len_max) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("state", state)) if which.is_none() => {
                which = Some(match state {
                    "in_doubt" => Which::InDoubt,
                    "open" => Which::Open,
                    "declined" => Which::Declined,
                    _ => return Err("state must be in_doubt, open or declined"),
                });
            }
            Some(("limit", limit)) if len_max.is_none() => {
                const { assert!(LISTED_LEN_MAX == 1_000, "as the text says") };
                let limit = limit.parse().ok().filter(|limit| (1..=LISTED_LEN_MAX).contains(limit));
                len_max = Some(limit.ok_or("limit must be a number from 1 to 1000")?);
            }
            _ => return Err("expected state, and limit if wanted, each once"),
        }
    }
    Ok((which.ok_or("state is missing: in_doubt, open or declined")?, len_max.unwrap_or(LISTED_LEN)))
}

/// All members are always there, null where they do not apply.
fn write_one(body: &mut String, names: &Names, which: Which, payment: &Listed, now: UnixMillis) {
    let Listed { at, correlation_id, amount_cents, processor, in_doubt, status } = *payment;
    let (mut amount, mut instant) = ([0; DECIMAL_TEXT_SIZE], [0; TIMESTAMP_TEXT_SIZE]);
    let age = at.time().map_or_else(|| "null".to_owned(), |at| now.0.saturating_sub(at.0).to_string());
    let at = at
        .time()
        .map_or_else(|| "null".to_owned(), |at| format!("\"{}\"", timestamp::write(at, &mut instant)));
    let amount = write_decimal(amount_cents, &mut amount);
    let name = |is_there: bool| match processor.filter(|_| is_there) {
        Some(processor) => format!("\"{}\"", names.of(processor)),
        None => "null".to_owned(),
    };
    let written = match which {
        Which::InDoubt | Which::Open => write!(
            body,
            r#"{{"correlationId":"{correlation_id}","amount":{amount},"processor":{},"requestedAt":{at},"inDoubt":{in_doubt},"ageMs":{age}}}"#,
            name(true),
        ),
        Which::Declined => {
            let cause = match status {
                STATUS_CANCELLED => "cancelled",
                STATUS_SETTLED => "settled",
                STATUS_EXPIRED => "expired",
                _ => "refused",
            };
            let status =
                if cause == "refused" && status > 0 { status.to_string() } else { "null".to_owned() };
            write!(
                body,
                r#"{{"correlationId":"{correlation_id}","amount":{amount},"cause":"{cause}","processor":{},"status":{status},"endedAt":{at},"ageMs":{age}}}"#,
                name(!matches!(cause, "cancelled" | "expired")),
            )
        }
    };
    written.expect("writing to a String cannot fail");
}
