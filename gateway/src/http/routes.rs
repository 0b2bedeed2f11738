//! The API: which path means what, and how a service's answer looks as HTTP.
//!
//! | path | methods |
//! | --- | --- |
//! | `/payments` | POST |
//! | `/payments/{id}` | GET, DELETE |
//! | `/payments-summary` | GET |
//! | `/notifications/{processor}` | POST |
//! | `/purge-payments` | POST |
//! | `/health`, `/ready`, `/metrics` | GET |
//!
//! Every GET route has HEAD too, and every path OPTIONS (204 with `Allow`; no CORS, which is a proxy's business). Paths
//! are compared byte by byte: no trailing slash, no percent-decoding, so that no two spellings mean one path. A POST may
//! declare any `Content-Type` or none: the contest's clients differ, and only JSON is ever read from it. An id that is no
//! UUID is 404, not 400: no payment can have it.

use std::cell::RefCell;
use std::fmt::Write;

use galo_engine::money::{DECIMAL_TEXT_SIZE, write_decimal};
use galo_engine::time::UnixMillis;
use galo_engine::timestamp::{self, TIMESTAMP_TEXT_SIZE};
use galo_engine::{AttemptState, CorrelationId, History, Reason, Stage};
use galo_shell::clock::Clock;
use galo_shell::processors::Names;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use monoio_http::common::request::Request;

use super::answer::{self, Answer};
use super::notifications;
use super::payment::{PaymentReader, Posted};
use super::problem::{self, Refusal};
use super::query::Range;
use super::service::{
    Accepted, DeclineCause, Endpoint, PaymentState, PaymentView, PurgeError, Reference, Service, Summary,
    Unreachable,
};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const RESOLUTION_MS: HeaderName = HeaderName::from_static("summary-resolution-ms");
/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

const ALLOW_GET: &str = "GET, HEAD, OPTIONS";
const ALLOW_GET_DELETE: &str = "GET, HEAD, DELETE, OPTIONS";
const ALLOW_POST: &str = "POST, OPTIONS";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    Payments,
    Payment(&'a str),
    Notifications(&'a str),
    Summary,
    Purge,
    Health,
    Ready,
    Metrics,
}

impl<'a> Route<'a> {
    fn find(path: &'a str) -> Option<Self> {
        match path {
            "/payments" => Some(Self::Payments),
            "/payments-summary" => Some(Self::Summary),
            "/purge-payments" => Some(Self::Purge),
            "/health" => Some(Self::Health),
            "/ready" => Some(Self::Ready),
            "/metrics" => Some(Self::Metrics),
            _ => {
                let (of, name) = path.strip_prefix('/')?.split_once('/')?;
                match of {
                    _ if name.is_empty() || name.contains('/') => None,
                    "payments" => Some(Self::Payment(name)),
                    "notifications" => Some(Self::Notifications(name)),
                    _ => None,
                }
            }
        }
    }

    const fn endpoint(self) -> Endpoint {
        match self {
            Self::Payments => Endpoint::Payments,
            Self::Payment(_) => Endpoint::Payment,
            Self::Notifications(_) => Endpoint::Notifications,
            Self::Summary => Endpoint::Summary,
            Self::Purge => Endpoint::Purge,
            Self::Health => Endpoint::Health,
            Self::Ready => Endpoint::Ready,
            Self::Metrics => Endpoint::Metrics,
        }
    }

    const fn allow(self) -> &'static str {
        match self {
            Self::Payments | Self::Notifications(_) | Self::Purge => ALLOW_POST,
            Self::Payment(_) => ALLOW_GET_DELETE,
            Self::Summary | Self::Health | Self::Ready | Self::Metrics => ALLOW_GET,
        }
    }
}

/// What a request is for.
pub(super) fn endpoint(request: &Request) -> Endpoint {
    Route::find(request.uri().path()).map_or(Endpoint::Other, Route::endpoint)
}

/// Answers one request.
pub(super) async fn answer<S: Service>(
    service: &S,
    reader: &RefCell<PaymentReader>,
    request: &Request,
    body: &[u8],
) -> Answer {
    let (method, uri) = (request.method(), request.uri());
    let Some(route) = Route::find(uri.path()) else { return answer::refuse(&problem::NOT_FOUND) };
    let allow = route.allow();
    if method == Method::OPTIONS {
        return answer::options(allow);
    }
    let is_allowed = match allow {
        ALLOW_POST => method == Method::POST,
        ALLOW_GET_DELETE => method == Method::GET || method == Method::HEAD || method == Method::DELETE,
        _ => method == Method::GET || method == Method::HEAD,
    };
    if !is_allowed {
        return answer::method_not_allowed(allow);
    }
    match route {
        Route::Payments => {
            let names = service.client_members();
            let payment = reader.borrow_mut().read_with(body, names.as_deref().unwrap_or_default());
            pay(service, payment).await
        }
        Route::Payment(text) => match CorrelationId::parse(text.as_bytes()) {
            Some(id) if method == Method::DELETE => cancelled(service.names(), id, service.cancel(id).await),
            Some(id) => payment(service.names(), id, service.lookup(id).await),
            None => answer::refuse(&problem::NOT_A_PAYMENT_ID),
        },
        Route::Notifications(name) => notifications::take(service, name, request.headers(), body),
        Route::Summary => match Range::parse(uri.query().unwrap_or("")) {
            Ok(range) => summary(service.names(), service.summarize(range.from, range.to).await),
            Err(problem) => answer::refuse(problem),
        },
        Route::Purge if is_cross_site(request) => answer::refuse(&problem::CROSS_SITE),
        Route::Purge => match service.purge().await {
            Ok(()) => answer::empty(StatusCode::OK),
            Err(PurgeError::NotAllowed) => answer::refuse(&problem::PURGE_NOT_ALLOWED),
            Err(PurgeError::Unreachable) => answer::refuse(&problem::LEDGER_UNREACHABLE),
        },
        Route::Health => answer::json(r#"{"status":"ok"}"#.to_owned()),
        Route::Ready => match service.ready() {
            Ok(()) => answer::json(r#"{"status":"ready"}"#.to_owned()),
            Err(reason) => answer::not_ready(reason),
        },
        Route::Metrics => answer::text(METRICS_TYPE, service.metrics()),
    }
}

/// Whether a browser says that a page of another origin sends this. A form on any page can post here without a preflight,
/// and none of its fields would have to be right. What is no browser says neither, and may.
fn is_cross_site(request: &Request) -> bool {
    let headers = request.headers();
    let mut sites = headers.get_all("sec-fetch-site").iter().peekable();
    if sites.peek().is_some() {
        // `none` is the person at the browser.
        return !sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    }
    // Older browsers send the origin alone; `null` is one that hides its own.
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let is_own = |origin: &HeaderValue| {
        let host_of = |scheme: &[u8]| origin.as_bytes().strip_prefix(scheme);
        host_of(b"http://").or_else(|| host_of(b"https://")).is_some_and(|origin| Some(origin) == host)
    };
    !headers.get_all(header::ORIGIN).iter().all(is_own)
}

/// Answers `POST /payments`, whose body was this payment or is refused.
pub(super) async fn pay<S: Service>(service: &S, payment: Result<Posted, Refusal>) -> Answer {
    let Posted { id, amount, deadline, members } = match payment {
        Ok(payment) => payment,
        Err(problem) => return answer::refuse(problem),
    };
    if deadline.is_some_and(|deadline| deadline <= Clock.now().unix_ms) {
        return answer::refuse(&problem::DEADLINE_PASSED);
    }
    let has_members = members.is_some();
    match service.accept(id, amount, members).await {
        Accepted::Granted => answer::empty(StatusCode::ACCEPTED),
        Accepted::Replayed => answer::with_header(
            answer::empty(StatusCode::ACCEPTED),
            REPLAYED,
            HeaderValue::from_static("true"),
        ),
        Accepted::Conflict if has_members || service.client_members().is_some() => {
            answer::refuse(&problem::OTHER_PAYMENT)
        }
        Accepted::Conflict => answer::refuse(&problem::CONFLICT),
        Accepted::QueueFull => answer::refuse(&problem::QUEUE_FULL),
        Accepted::LedgerUnreachable => answer::refuse(&problem::LEDGER_UNREACHABLE),
    }
}

/// A member for each processor that is configured.
fn summary(names: &Names, summary: Result<Summary, Unreachable>) -> Answer {
    let Ok(summary) = summary else { return answer::refuse(&problem::LEDGER_UNREACHABLE) };
    let mut body = String::with_capacity(160);
    for (processor, name) in names.iter() {
        let totals = summary.totals[processor.index()];
        let mut amount = [0; DECIMAL_TEXT_SIZE];
        write!(
            body,
            r#"{}"{}":{{"totalRequests":{},"totalAmount":{}}}"#,
            if body.is_empty() { '{' } else { ',' },
            name,
            totals.total_requests,
            write_decimal(totals.total_amount_cents, &mut amount),
        )
        .expect("writing to a String cannot fail");
    }
    body.push('}');
    let answer = answer::json(body);
    if summary.resolution_ms > 1 {
        return answer::with_header(answer, RESOLUTION_MS, HeaderValue::from(summary.resolution_ms));
    }
    answer
}

/// What a client hears who wants a payment cancelled: how it ended, or why it has not.
fn cancelled(names: &Names, id: CorrelationId, view: Result<Option<PaymentView>, Unreachable>) -> Answer {
    match view.map(|view| view.map(|view| view.state)) {
        Ok(Some(PaymentState::Open { .. })) => answer::refuse(&problem::PAYMENT_UNDER_WAY),
        Ok(Some(PaymentState::Processed { .. })) => answer::refuse(&problem::PAYMENT_PROCESSED),
        Ok(Some(PaymentState::Declined { .. }) | None) | Err(Unreachable) => payment(names, id, view),
    }
}

/// All members are always there, null where they do not apply; but for `reference` and `declined`, which few payments have.
fn payment(names: &Names, id: CorrelationId, view: Result<Option<PaymentView>, Unreachable>) -> Answer {
    let view = match view {
        Ok(Some(view)) => view,
        Ok(None) => return answer::refuse(&problem::UNKNOWN_PAYMENT),
        Err(Unreachable) => return answer::refuse(&problem::LEDGER_UNREACHABLE),
    };
    let mut declined = None;
    let (state, processor, requested_at, in_doubt) = match view.state {
        PaymentState::Open { processor, in_doubt } => ("open", processor, None, in_doubt),
        PaymentState::Processed { processor, requested_at } => {
            ("processed", Some(processor), Some(requested_at), false)
        }
        PaymentState::Declined { cause, at } => {
            declined = Some(Declined { names, cause, at });
            ("declined", None, None, false)
        }
    };
    let (mut amount, mut instant) = ([0; DECIMAL_TEXT_SIZE], [0; TIMESTAMP_TEXT_SIZE]);
    let amount = write_decimal(view.amount_cents, &mut amount);
    let requested_at = requested_at.map(|at| timestamp::write(at, &mut instant));
    answer::json(format!(
        r#"{{"correlationId":"{id}","amount":{amount},"state":"{state}","processor":{},"requestedAt":{},"inDoubt":{in_doubt}{}{},"decisions":{},"decisionsForgotten":{}}}"#,
        Quoted(processor.map(|processor| names.of(processor))),
        Quoted(requested_at),
        Named(view.reference),
        Maybe(declined),
        Decisions(names, &view.history),
        view.history.forgotten,
    ))
}

/// The member `reference` of a payment that its processor has named; nothing of any other.
struct Named(Option<Reference>);

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(reference) = self.0 else { return Ok(()) };
        f.write_str(r#","reference":""#)?;
        for character in reference.text().chars() {
            if matches!(character, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(character)?;
        }
        f.write_char('"')
    }
}

/// How a payment ended that nobody charged.
struct Declined<'a> {
    names: &'a Names,
    cause: DeclineCause,
    at: UnixMillis,
}

/// The member `declined` of a payment that is; nothing of any other.
struct Maybe<'a>(Option<Declined<'a>>);

impl std::fmt::Display for Maybe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(Declined { names, cause, at }) = self.0 else { return Ok(()) };
        let mut instant = [0; TIMESTAMP_TEXT_SIZE];
        let at = timestamp::write(at, &mut instant);
        let (cause, processor, status) = match cause {
            DeclineCause::Refused { processor, status } => ("refused", Some(names.of(processor)), status),
            DeclineCause::Cancelled => ("cancelled", None, None),
            DeclineCause::Settled => ("settled", None, None),
            DeclineCause::Expired => ("expired", None, None),
        };
        write!(f, r#","declined":{{"cause":"{cause}","processor":{},"status":"#, Quoted(processor))?;
        match status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("null")?,
        }
        write!(f, r#","at":"{at}"}}"#)
    }
}

/// A payment's decisions as a JSON array, oldest first.
struct Decisions<'a>(&'a Names, &'a History);

impl std::fmt::Display for Decisions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, decision) in self.1.decisions().iter().enumerate() {
            let mut instant = [0; TIMESTAMP_TEXT_SIZE];
            let reason = (decision.reason != Reason::Unstated).then_some(decision.reason.name());
            // To wait is no attempt, of which something could be known.
            let is_attempt = decision.stage != Stage::Waiting;
            write!(
                f,
                r#"{}{{"at":"{}","processor":{},"reason":{},"waitedForMs":{},"outcome":{},"wasInDoubt":{}}}"#,
                if index == 0 { '[' } else { ',' },
                timestamp::write(UnixMillis(decision.at_ms), &mut instant),
                Quoted(decision.stage.processor().map(|processor| self.0.of(processor))),
                Quoted(reason),
                decision.waited_for_ms,
                Quoted(is_attempt.then_some(AttemptState::name(decision.attempt))),
                decision.was_in_doubt,
            )?;
        }
        f.write_str(if self.1.decisions().is_empty() { "[]" } else { "]" })
    }
}

/// A JSON string of our own words, or null.
struct Quoted<'a>(Option<&'a str>);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(text) => write!(f, "\"{text}\""),
            None => f.write_str("null"),
        }
    }
}
