//! Mercado Pago's `/v1/payments`, with its search by `external_reference`.

use hyper::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::books::{Books, Order, State, View};
use super::dialect::{Ask, Auth, Dialect, Does, Format, KeyRule, Notice, Reply, Signer, Trouble, text};
use crate::processor::{Decimal, parse_cents};

/// Mercado Pago.
pub(super) static MERCADO_PAGO: Dialect = Dialect {
    name: "mercadopago",
    routes: &[
        (Method::POST, "/v1/payments", Does::Create),
        (Method::GET, "/v1/payments/search", Does::List),
        (Method::GET, "/v1/payments/{}", Does::Find),
    ],
    auth: Auth::Bearer(""),
    format: Format::Json,
    key: KeyRule::Header { name: "x-idempotency-key", window_s: 24 * 3_600, keeps_500: false },
    is_always_later: false,
    read,
    created: |view, _| Reply::new(201, payment(view)),
    found: |view| Reply::new(200, payment(view)),
    find: |books, parameter, now_ms| {
        let number = parameter.parse::<usize>().ok()?.checked_sub(NUMBER_FIRST)?;
        books.view(number, now_ms)
    },
    list,
    trouble,
    notice,
};

/// Their ids are large numbers.
const NUMBER_FIRST: usize = 1_300_000_000;

/// A search's length without `limit`, and at most.
const SEARCH_LEN: usize = 30;
const SEARCH_LEN_MAX: usize = 1_000;

/// The amount as its digits: a number that became a float would not be the one that was sent.
#[derive(Deserialize)]
struct Amount<'body> {
    #[serde(borrow)]
    transaction_amount: &'body RawValue,
}

fn read(ask: &Ask<'_>) -> Result<Order, Trouble> {
    let fields = ask.json()?;
    let amount: Amount<'_> = serde_json::from_slice(ask.body)
        .map_err(|_| Trouble::invalid("transaction_amount", "transaction_amount can't be null"))?;
    let amount_cents = parse_cents(amount.transaction_amount.get()).ok().filter(|cents| *cents > 0);
    let amount_cents =
        amount_cents.ok_or_else(|| Trouble::invalid("transaction_amount", "Invalid transaction_amount"))?;
    if text(&fields, "/payment_method_id").is_empty() {
        return Err(Trouble::invalid("payment_method_id", "payment_method_id can't be null"));
    }
    if text(&fields, "/payer/email").is_empty() {
        return Err(Trouble::invalid("payer.email", "payer.email must be a valid email"));
    }
    let name = text(&fields, "/external_reference").to_owned();
    let currency = "BRL".to_owned();
    Ok(Order { name, amount_cents, currency, is_bad_card: false, echo: fields })
}

fn iso(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|at| format!("{at:.3}")).unwrap_or_default()
}

/// Written by hand around the amount, which is an exact decimal.
fn payment(view: &View<'_>) -> String {
    let entry = view.entry;
    let (status, detail) = match view.state {
        State::Pending => ("in_process", "pending_contingency"),
        State::Paid => ("approved", "accredited"),
        State::Declined => ("rejected", "cc_rejected_other_reason"),
    };
    let approved = (view.state == State::Paid).then(|| iso(entry.decided_ms));
    let rest = json!({
        "date_created": iso(entry.created_ms),
        "date_approved": approved,
        "currency_id": entry.order.currency,
        "description": entry.order.echo.get("description"),
        "external_reference": entry.order.name,
        "live_mode": false,
        "payment_method_id": entry.order.echo.get("payment_method_id"),
        "status": status,
        "status_detail": detail,
    });
    let rest = rest.to_string();
    let amount = Decimal::from_cents(i128::from(entry.amount_cents));
    let id = NUMBER_FIRST + view.number;
    format!(r#"{{"id":{id},"transaction_amount":{amount},{}"#, &rest[1..])
}

fn list(ask: &Ask<'_>, books: &Books, now_ms: i64) -> Result<Reply, Trouble> {
    let number = |name: &'static str, without: usize, max: usize| match ask.parameter(name) {
        None => Ok(without),
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| *number <= max)
            .ok_or_else(|| Trouble::invalid(name, format!("Invalid {name}: {text}"))),
    };
    let limit = number("limit", SEARCH_LEN, SEARCH_LEN_MAX)?;
    let offset = number("offset", 0, usize::MAX)?;
    let mut found: Vec<View<'_>> = match ask.parameter("external_reference") {
        Some(name) => books.named(&name, now_ms).collect(),
        None => books.all(now_ms).collect(),
    };
    if ask.parameter("criteria").as_deref() != Some("asc") {
        found.reverse();
    }
    let total = found.len();
    let page: Vec<String> = found.iter().skip(offset).take(limit).map(payment).collect();
    let body = format!(
        r#"{{"paging":{{"total":{total},"limit":{limit},"offset":{offset}}},"results":[{}]}}"#,
        page.join(",")
    );
    Ok(Reply::new(200, body))
}

fn trouble(trouble: &Trouble) -> Reply {
    let error = |status: u16, error: &str, message: &str| {
        Reply::json(status, &json!({"message": message, "error": error, "status": status, "cause": []}))
    };
    match trouble {
        Trouble::Unauthorized => error(401, "unauthorized", "invalid access token"),
        Trouble::NoRoute => error(404, "not_found", "resource not found"),
        Trouble::WrongMethod => error(405, "method_not_allowed", "method not allowed"),
        Trouble::WrongFormat => error(415, "unsupported_media_type", "expected application/json"),
        Trouble::Invalid { what, .. } => error(400, "bad_request", what),
        Trouble::NotFound(_) => error(404, "not_found", "Payment not found"),
        Trouble::KeyInUse => error(409, "idempotency_key_in_use", "The idempotency key is in use"),
        Trouble::KeyConflict | Trouble::Exists(_) => error(
            409,
            "idempotency_key_already_used",
            "The idempotency key has already been used with a different request within the last 24 hours",
        ),
        Trouble::TooMany => error(429, "too_many_requests", "too many requests"),
        Trouble::Broken => error(500, "internal_error", "internal server error"),
        Trouble::Down => error(503, "service_unavailable", "service unavailable"),
    }
}

/// Tells that the payment has changed, by their own id alone.
fn notice(view: &View<'_>, signer: &Signer) -> Option<Notice> {
    if view.state == State::Pending {
        return None;
    }
    let id = (NUMBER_FIRST + view.number).to_string();
    let body: Value = json!({
        "id": view.number,
        "action": "payment.updated",
        "api_version": "v1",
        "data": {"id": id},
        "date_created": iso(signer.now_s.saturating_mul(1_000)),
        "live_mode": false,
        "type": "payment",
    });
    let request = format!("galo-{}", view.number);
    let mut headers = vec![("X-Request-Id", request.clone())];
    if let Some(secret) = &signer.secret {
        let signed = format!("id:{id};request-id:{request};ts:{};", signer.now_s);
        headers.push((
            "X-Signature",
            format!("ts={},v1={}", signer.now_s, Signer::hex(secret, signed.as_bytes())),
        ));
    }
    Some(Notice { headers, body: body.to_string() })
}
