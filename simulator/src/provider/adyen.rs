//! Adyen Checkout's `/payments`. There is no way to ask what became of a payment: the same key brings the first answer again.
//!
//! What is decided on later is `Received`, and its end is told by a notification only.

use hyper::Method;
use serde_json::{Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::books::{Order, State, View};
use super::dialect::{Ask, Auth, Dialect, Does, Format, KeyRule, Notice, Reply, Signer, Trouble, text};

/// Adyen.
pub(super) static ADYEN: Dialect = Dialect {
    name: "adyen",
    routes: &[(Method::POST, "/v71/payments", Does::Create)],
    auth: Auth::Header("x-api-key"),
    format: Format::Json,
    // The documentation says 7 days at least.
    key: KeyRule::Header { name: "idempotency-key", window_s: 7 * 24 * 3_600, keeps_500: false },
    is_always_later: false,
    read,
    created,
    // No route leads to these two.
    found: |_| trouble(&Trouble::NoRoute),
    find: |_, _, _| None,
    list: |_, _, _| Err(Trouble::NoRoute),
    trouble,
    notice,
};

fn read(ask: &Ask<'_>) -> Result<Order, Trouble> {
    let fields = ask.json()?;
    let required = |pointer: &str, member: &'static str| {
        let value = text(&fields, pointer);
        let what = || Trouble::invalid(member, format!("Required field '{member}' is not provided."));
        if value.is_empty() { Err(what()) } else { Ok(value.to_owned()) }
    };
    required("/merchantAccount", "merchantAccount")?;
    let name = required("/reference", "reference")?;
    let currency = required("/amount/currency", "amount.currency")?;
    if !fields.pointer("/paymentMethod").is_some_and(Value::is_object) {
        return Err(Trouble::invalid("paymentMethod", "Required field 'paymentMethod' is not provided."));
    }
    let amount = fields.pointer("/amount/value").and_then(Value::as_i64).filter(|amount| *amount >= 0);
    let amount_cents = amount.ok_or_else(|| Trouble::invalid("amount.value", "Invalid amount specified"))?;
    // Adyen's test cards are declined by what the holder's name says.
    let is_bad_card = text(&fields, "/paymentMethod/holderName").starts_with("DECLINED");
    Ok(Order { name, amount_cents, currency, is_bad_card, echo: fields })
}

fn reference(number: usize) -> String {
    format!("GALO{number:012}")
}

fn created(view: &View<'_>, _: bool) -> Reply {
    let entry = view.entry;
    let mut body = json!({
        "pspReference": reference(view.number),
        "merchantReference": entry.order.name,
        "amount": {"currency": entry.order.currency, "value": entry.amount_cents},
    });
    body["resultCode"] = match view.state {
        State::Paid => "Authorised",
        State::Pending => "Received",
        State::Declined => {
            body["refusalReason"] = "Refused".into();
            body["refusalReasonCode"] = "2".into();
            "Refused"
        }
    }
    .into();
    Reply::json(200, &body)
}

fn trouble(trouble: &Trouble) -> Reply {
    let error = |status: u16, code: &str, kind: &str, message: &str| {
        Reply::json(
            status,
            &json!({"status": status, "errorCode": code, "message": message, "errorType": kind}),
        )
    };
    match trouble {
        Trouble::Unauthorized => error(401, "000", "security", "HTTP Status Response - Unauthorized"),
        Trouble::NoRoute | Trouble::NotFound(_) => error(404, "000", "validation", "Not Found"),
        Trouble::WrongMethod => error(405, "000", "validation", "Method Not Allowed"),
        Trouble::WrongFormat => error(415, "000", "validation", "Unsupported Media Type"),
        Trouble::Invalid { member: "", what } => error(400, "702", "validation", what),
        Trouble::Invalid { member: "merchantAccount", what } => error(403, "901", "security", what),
        Trouble::Invalid { what, .. } => error(422, "130", "validation", what),
        Trouble::KeyInUse => error(409, "704", "validation", "request already processed or in progress")
            .with("transient-error", "true"),
        Trouble::KeyConflict | Trouble::Exists(_) => {
            error(422, "704", "validation", "request already processed or in progress")
        }
        Trouble::TooMany => error(429, "000", "internal", "Too Many Requests"),
        Trouble::Broken => error(500, "905", "internal", "Internal error"),
        Trouble::Down => error(503, "000", "internal", "Service Unavailable"),
    }
}

/// A standard notification, signed inside: HMAC over its main members, under the secret's bytes in hexadecimal.
fn notice(view: &View<'_>, signer: &Signer) -> Option<Notice> {
    if view.state == State::Pending {
        return None;
    }
    let entry = view.entry;
    let success = if view.state == State::Paid { "true" } else { "false" };
    let account = text(&entry.order.echo, "/merchantAccount");
    let mut item = json!({
        "eventCode": "AUTHORISATION",
        "success": success,
        "pspReference": reference(view.number),
        "merchantAccountCode": account,
        "merchantReference": entry.order.name,
        "amount": {"currency": entry.order.currency, "value": entry.amount_cents},
        "reason": if success == "true" { "" } else { "Refused" },
    });
    if let Some(secret) = &signer.secret {
        let signed = format!(
            "{}::{account}:{}:{}:{}:AUTHORISATION:{success}",
            reference(view.number),
            entry.order.name,
            entry.amount_cents,
            entry.order.currency
        );
        let key = from_hex(secret).unwrap_or_else(|| secret.clone());
        let tag = Signer::tag(&key, signed.as_bytes());
        item["additionalData"] = json!({"hmacSignature": STANDARD.encode(tag)});
    }
    let body = json!({"live": "false", "notificationItems": [{"NotificationRequestItem": item}]});
    Some(Notice { headers: Vec::new(), body: body.to_string() })
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(text).ok().filter(|text| text.len().is_multiple_of(2) && text.is_ascii())?;
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
