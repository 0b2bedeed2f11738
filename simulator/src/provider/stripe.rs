//! Stripe's PaymentIntents, created and confirmed in one request; and localstripe's, which differ in what they leave out.
//!
//! Statuses: `succeeded`; `processing` for what is decided on later; `requires_payment_method` for what was declined, which is 402 when
//! it is created and stays in the list without a charge.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::books::{Books, Order, State, View};
use super::dialect::{Ask, Auth, Dialect, Does, Format, KeyRule, Notice, Reply, Signer, Trouble, text};

const ROUTES: &[(Method, &str, Does)] = &[
    (Method::POST, "/v1/payment_intents", Does::Create),
    (Method::GET, "/v1/payment_intents/{}", Does::Find),
    (Method::GET, "/v1/payment_intents", Does::List),
];

/// Stripe.
pub(super) static STRIPE: Dialect = Dialect {
    name: "stripe",
    routes: ROUTES,
    auth: Auth::Bearer(""),
    format: Format::Form,
    key: KeyRule::Header { name: "idempotency-key", window_s: 24 * 3_600, keeps_500: true },
    is_always_later: false,
    read: |ask| read(ask, STRIPE_PARAMETERS),
    created,
    found: |view| Reply::json(200, &intent(view)),
    find,
    list: |ask, books, now_ms| list(ask, books, now_ms, false),
    trouble,
    notice,
};

/// localstripe 1.15.10: no keys, and a list that is oldest first and knows no time.
pub(super) static LOCALSTRIPE: Dialect = Dialect {
    name: "localstripe",
    routes: ROUTES,
    auth: Auth::Bearer("sk_"),
    format: Format::Form,
    key: KeyRule::None,
    is_always_later: false,
    read: |ask| read(ask, LOCALSTRIPE_PARAMETERS),
    created,
    found: |view| Reply::json(200, &intent(view)),
    find,
    list: |ask, books, now_ms| list(ask, books, now_ms, true),
    trouble,
    notice,
};

/// What a PaymentIntent may be created with, as far as it was looked up.
const STRIPE_PARAMETERS: &[&str] = &[
    "amount",
    "currency",
    "automatic_payment_methods",
    "capture_method",
    "confirm",
    "confirmation_method",
    "customer",
    "description",
    "error_on_requires_action",
    "expand",
    "metadata",
    "off_session",
    "on_behalf_of",
    "payment_method",
    "payment_method_data",
    "payment_method_options",
    "payment_method_types",
    "receipt_email",
    "return_url",
    "setup_future_usage",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_data",
    "transfer_group",
];

/// Those that localstripe's own code names.
const LOCALSTRIPE_PARAMETERS: &[&str] = &[
    "amount",
    "currency",
    "capture_method",
    "confirm",
    "customer",
    "expand",
    "metadata",
    "off_session",
    "payment_method",
    "payment_method_options",
    "payment_method_types",
];

/// The test cards of Stripe's documentation that are declined begin so.
const BAD_CARDS: [&str; 2] = ["pm_card_chargeDeclined", "pm_card_visa_chargeDeclined"];

/// A list's length without `limit`, and at most.
const LIST_LEN: usize = 10;
const LIST_LEN_MAX: usize = 100;

fn read(ask: &Ask<'_>, parameters: &[&str]) -> Result<Order, Trouble> {
    let fields = ask.form();
    let unknown =
        fields.as_object().into_iter().flat_map(Map::keys).find(|it| !parameters.contains(&it.as_str()));
    if let Some(unknown) = unknown {
        return Err(Trouble::invalid("", format!("Received unknown parameter: {unknown}")));
    }
    let amount = text(&fields, "/amount");
    let amount_cents = amount.parse::<i64>().ok().filter(|amount| (1..=99_999_999).contains(amount));
    let amount_cents =
        amount_cents.ok_or_else(|| Trouble::invalid("amount", format!("Invalid integer: {amount}")))?;
    let currency = text(&fields, "/currency").to_ascii_lowercase();
    if currency.len() != 3 {
        return Err(Trouble::invalid("currency", "Missing required param: currency."));
    }
    if text(&fields, "/confirm") != "true" {
        return Err(Trouble::invalid("confirm", "This stand-in creates and confirms in one request."));
    }
    let method = text(&fields, "/payment_method");
    if method.is_empty() {
        let what = "You cannot confirm this PaymentIntent because it's missing a payment method.";
        return Err(Trouble::invalid("payment_method", what));
    }
    let name = text(&fields, "/metadata/order_id").to_owned();
    let is_bad_card = BAD_CARDS.iter().any(|bad| method.starts_with(bad));
    Ok(Order { name, amount_cents, currency, is_bad_card, echo: fields })
}

fn reference(number: usize) -> String {
    format!("pi_3Galo{number:016}")
}

fn number(reference: &str) -> Option<usize> {
    reference.strip_prefix("pi_3Galo").filter(|digits| digits.len() == 16)?.parse().ok()
}

fn status(state: State) -> &'static str {
    match state {
        State::Pending => "processing",
        State::Paid => "succeeded",
        State::Declined => "requires_payment_method",
    }
}

fn intent(view: &View<'_>) -> Value {
    let entry = view.entry;
    let echo = |pointer: &str| entry.order.echo.pointer(pointer).cloned().unwrap_or(Value::Null);
    let is_paid = view.state == State::Paid;
    let reference = reference(view.number);
    let metadata = entry.order.echo.pointer("/metadata").cloned().unwrap_or_else(|| json!({}));
    json!({
        "id": reference,
        "object": "payment_intent",
        "amount": entry.amount_cents,
        "amount_received": if is_paid { entry.amount_cents } else { 0 },
        "canceled_at": null,
        "capture_method": "automatic",
        "client_secret": format!("{reference}_secret_galo"),
        "confirmation_method": "automatic",
        "created": entry.created_ms / 1_000,
        "currency": entry.order.currency,
        "customer": echo("/customer"),
        "description": echo("/description"),
        "last_payment_error": if view.state == State::Declined { card_error() } else { Value::Null },
        "latest_charge": is_paid.then(|| format!("ch_3Galo{:016}", view.number)),
        "livemode": false,
        "metadata": metadata,
        "payment_method": echo("/payment_method"),
        "status": status(view.state),
    })
}

fn card_error() -> Value {
    json!({
        "type": "card_error",
        "code": "card_declined",
        "decline_code": "generic_decline",
        "message": "Your card was declined.",
    })
}

fn created(view: &View<'_>, is_replay: bool) -> Reply {
    let reply = if view.state == State::Declined {
        let mut error = card_error();
        error["payment_intent"] = intent(view);
        Reply::json(402, &json!({ "error": error }))
    } else {
        Reply::json(200, &intent(view))
    };
    if is_replay { reply.with("Idempotent-Replayed", "true") } else { reply }
}

fn find<'books>(books: &'books Books, parameter: &str, now_ms: i64) -> Option<View<'books>> {
    books.view(number(parameter)?, now_ms)
}

/// Newest first, as Stripe lists, or oldest first, from what `starting_after` names; Stripe's also by time of creation.
fn list(ask: &Ask<'_>, books: &Books, now_ms: i64, is_oldest_first: bool) -> Result<Reply, Trouble> {
    let limit = match ask.parameter("limit") {
        None => LIST_LEN,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIST_LEN_MAX).contains(limit))
            .ok_or_else(|| Trouble::invalid("limit", format!("Invalid limit: {text}")))?,
    };
    let bound = |name| -> Result<Option<i64>, Trouble> {
        let Some(text) = ask.parameter(name) else { return Ok(None) };
        let bound = text.parse().ok().filter(|_| !is_oldest_first);
        bound.map(Some).ok_or_else(|| Trouble::invalid("created", format!("Invalid integer: {text}")))
    };
    let (from_s, to_s) = (bound("created[gte]")?, bound("created[lte]")?);
    let after = match ask.parameter("starting_after") {
        None => None,
        Some(reference) => match number(&reference).filter(|number| books.view(*number, now_ms).is_some()) {
            Some(number) => Some(number),
            None => return Err(Trouble::NotFound(reference)),
        },
    };
    let is_wanted = |view: &View<'_>| {
        let created_s = view.entry.created_ms / 1_000;
        let is_after = |after| if is_oldest_first { view.number > after } else { view.number < after };
        from_s.is_none_or(|from_s| created_s >= from_s)
            && to_s.is_none_or(|to_s| created_s <= to_s)
            && after.is_none_or(is_after)
    };
    let mut page: Vec<View<'_>> = if is_oldest_first {
        books.all(now_ms).filter(is_wanted).take(limit + 1).collect()
    } else {
        books.all(now_ms).rev().filter(is_wanted).take(limit + 1).collect()
    };
    let has_more = page.len() > limit;
    page.truncate(limit);
    let data: Vec<Value> = page.iter().map(intent).collect();
    let body = json!({"object": "list", "url": "/v1/payment_intents", "has_more": has_more, "data": data});
    Ok(Reply::json(200, &body))
}

fn trouble(trouble: &Trouble) -> Reply {
    let error = |status, kind: &str, code: Option<&str>, param: Option<&str>, message: &str| {
        let mut error = json!({"type": kind, "message": message});
        if let Some(code) = code {
            error["code"] = code.into();
        }
        if let Some(param) = param {
            error["param"] = param.into();
        }
        Reply::json(status, &json!({ "error": error }))
    };
    let request = "invalid_request_error";
    match trouble {
        Trouble::Unauthorized => error(401, request, None, None, "Invalid API Key provided"),
        Trouble::NoRoute | Trouble::WrongMethod => {
            error(404, request, None, None, "Unrecognized request URL")
        }
        Trouble::WrongFormat => {
            error(400, request, None, None, "Invalid request: expected application/x-www-form-urlencoded")
        }
        Trouble::Invalid { member: "", what } => error(400, request, Some("parameter_unknown"), None, what),
        Trouble::Invalid { member, what } => {
            error(400, request, Some("parameter_invalid"), Some(member), what)
        }
        Trouble::NotFound(reference) => {
            let message = format!("No such payment_intent: '{reference}'");
            error(404, request, Some("resource_missing"), Some("intent"), &message)
        }
        Trouble::Exists(_) | Trouble::KeyConflict => {
            let message = "Keys for idempotent requests can only be used with the same parameters they were first used with.";
            error(400, "idempotency_error", None, None, message)
        }
        Trouble::KeyInUse => {
            let message = "There is currently another in-progress request using this Idempotent Key.";
            error(409, request, Some("idempotency_key_in_use"), None, message)
        }
        Trouble::TooMany => error(429, request, Some("rate_limit"), None, "Request rate limit exceeded."),
        Trouble::Broken => error(500, "api_error", None, None, "An unknown error occurred."),
        Trouble::Down => error(503, "api_error", None, None, "The service is unavailable."),
    }
}

/// An event, signed over its time and its body.
fn notice(view: &View<'_>, signer: &Signer) -> Option<Notice> {
    let kind = match view.state {
        State::Pending => return None,
        State::Paid => "payment_intent.succeeded",
        State::Declined => "payment_intent.payment_failed",
    };
    let body = json!({
        "id": format!("evt_3Galo{:016}", view.number),
        "object": "event",
        "created": signer.now_s,
        "data": {"object": intent(view)},
        "livemode": false,
        "type": kind,
    });
    let body = body.to_string();
    let mut headers = Vec::new();
    if let Some(secret) = &signer.secret {
        let signature = Signer::hex(secret, format!("{}.{body}", signer.now_s).as_bytes());
        headers.push(("Stripe-Signature", format!("t={},v1={signature}", signer.now_s)));
    }
    Some(Notice { headers, body })
}
