//! A provider's public API over HTTP: who may ask, the faults around a request, and what its [`Dialect`] makes of it.
//!
//! A request to create a payment passes, in this order:
//!
//! 1. the credentials, the limit of requests a second, `random429`;
//! 2. its reading, and what is [refused](Terms::refuse): 400, nothing stored;
//! 3. its key: a replay, a conflict, or in use from now on;
//! 4. the delay, `hangBeforeInsert`, `closeBeforeInsert`;
//! 5. the failure switch (503) and `random500`, nothing stored;
//! 6. the insert, or the refusal of a name that is there already;
//! 7. `hangAfterInsert`, `closeAfterInsert`, `garbage`, the answer.
//!
//! From 3 on it is a task of its own: a caller that goes away does not stop it, so what it gave up may be stored later. Switch,
//! delay and dice are the model's, and the admin paths set them for all profiles alike.

mod webhook;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::sleep;

use super::routes::{AnswerResponse, BODY_BYTES_MAX, empty};
use super::{Service, Severed};
use crate::processor::{Drawn, Statistics, Terms};
use crate::provider::{
    Ask, Auth, Books, Claim, Dialect, Does, Format, KeyRule, Matched, Order, Reply, Said, State, Trouble,
};

pub use webhook::{Webhook, WebhookError};

/// A provider: its dialect, its books, and who may ask.
#[derive(Debug)]
pub struct Provider {
    dialect: &'static Dialect,
    pub(super) books: RefCell<Books>,
    /// What callers must show. `None`: anything of the right form.
    credential: Option<String>,
    /// Tokens that were given, and until when they hold, in Unix milliseconds.
    tokens: RefCell<HashMap<String, i64>>,
    token_life_s: u32,
    token_next: Cell<u64>,
    webhook: Option<Webhook>,
    counts: Cell<Counts>,
}

/// What a provider has done that the contest's processors do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    /// Requests answered with what the first of the same key brought.
    replays: u64,
    /// Requests whose key was used for another one, or is in use.
    conflicts: u64,
    /// Requests without credentials, or with wrong ones.
    unauthorized: u64,
    /// OAuth2 tokens given.
    tokens: u64,
    /// Notifications that were taken.
    notified: u64,
    /// Notifications that nobody took.
    unheard: u64,
    /// Notifications that were lost on purpose.
    lost: u64,
}

#[derive(Serialize)]
pub(super) struct AllStatistics {
    #[serde(flatten)]
    model: Statistics,
    #[serde(flatten)]
    counts: Counts,
}

/// A request that is no longer tied to its connection.
struct Work {
    parameter: String,
    query: String,
    body: Bytes,
    key: Option<String>,
    drawn: Drawn,
}

impl Work {
    fn ask(&self) -> Ask<'_> {
        Ask { parameter: &self.parameter, query: &self.query, body: &self.body }
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.parameter, &self.body).hash(&mut hasher);
        hasher.finish()
    }
}

pub(super) fn unix_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

impl Provider {
    /// A provider without payments. `credential` is what callers must show, of an OAuth2 client `ID:SECRET`.
    #[must_use]
    pub fn new(
        dialect: &'static Dialect,
        credential: Option<String>,
        token_life_s: u32,
        webhook: Option<Webhook>,
    ) -> Self {
        Provider {
            dialect,
            books: RefCell::default(),
            credential,
            tokens: RefCell::default(),
            token_life_s,
            token_next: Cell::new(0),
            webhook,
            counts: Cell::default(),
        }
    }

    /// Whether this provider can have these terms.
    ///
    /// # Errors
    ///
    /// Names what it has none of.
    pub fn check_terms(&self, terms: &Terms) -> Result<(), &'static str> {
        match self.dialect.key {
            KeyRule::None if terms.keys_s.is_some() => Err("keysS: this provider keeps no keys"),
            KeyRule::Name if terms.keys_s.is_some() => Err("keysS: this provider keeps a name for ever"),
            _ => Ok(()),
        }
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        count(&mut counts);
        self.counts.set(counts);
    }

    pub(super) fn statistics(&self, model: Statistics) -> AllStatistics {
        AllStatistics { model, counts: self.counts.get() }
    }

    /// Payments of the books from `cursor` on, at most `limit`, a JSON object a line; and the cursor for what comes after.
    pub(super) fn lines(&self, cursor: usize, limit: usize) -> (String, usize) {
        let books = self.books.borrow();
        let mut lines = String::new();
        let mut next = cursor;
        for view in books.all(unix_ms()).skip(cursor).take(limit) {
            let entry = view.entry;
            let name = entry.order.id().map_or_else(|| entry.order.name.clone(), |id| id.to_string());
            let state = match view.state {
                State::Pending => "pending",
                State::Paid => "paid",
                State::Declined => "declined",
            };
            let line = serde_json::json!({
                "correlationId": name,
                "amountCents": entry.amount_cents,
                "requestedAtMs": entry.created_ms,
                "state": state,
            });
            lines.push_str(&format!("{line}\n"));
            next += 1;
        }
        (lines, next)
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let is_credential = |text: &str| match &self.credential {
            Some(credential) => text == credential,
            None => !text.is_empty(),
        };
        match self.dialect.auth {
            Auth::Header(name) => is_credential(value(headers, name)),
            Auth::Bearer(prefix) => {
                bearer(headers).is_some_and(|it| it.starts_with(prefix) && is_credential(it))
            }
            Auth::OAuth2 => {
                let now_ms = unix_ms();
                let mut tokens = self.tokens.borrow_mut();
                tokens.retain(|_, until_ms| *until_ms > now_ms);
                bearer(headers).is_some_and(|token| tokens.contains_key(token))
            }
        }
    }

    /// OAuth2 client credentials (RFC 6749, 4.4), with the client's own in the header or in the body.
    fn give_token(&self, headers: &HeaderMap, body: &[u8]) -> Reply {
        let fields: HashMap<_, _> = form_urlencoded::parse(body).into_owned().collect();
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let error = |status, error: &str| Reply {
            status,
            headers: Vec::new(),
            body: format!(r#"{{"error":"{error}"}}"#),
        };
        if field("grant_type") != "client_credentials" {
            return error(400, "unsupported_grant_type");
        }
        let client =
            basic(headers).unwrap_or_else(|| format!("{}:{}", field("client_id"), field("client_secret")));
        let is_known = match &self.credential {
            Some(credential) => client == *credential,
            None => client.split_once(':').is_some_and(|(id, secret)| !id.is_empty() && !secret.is_empty()),
        };
        if !is_known {
            self.count(|counts| counts.unauthorized += 1);
            return error(401, "invalid_client");
        }
        let number = self.token_next.get();
        self.token_next.set(number + 1);
        let token = format!("galo-{number:016}");
        let until_ms = unix_ms().saturating_add(i64::from(self.token_life_s) * 1_000);
        self.tokens.borrow_mut().insert(token.clone(), until_ms);
        self.count(|counts| counts.tokens += 1);
        let body = serde_json::json!({
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.token_life_s,
            "scope": field("scope"),
        });
        Reply { status: 200, headers: vec![("Cache-Control", "no-store".to_owned())], body: body.to_string() }
    }
}

fn value<'headers>(headers: &'headers HeaderMap, name: &str) -> &'headers str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    value(headers, AUTHORIZATION.as_str()).strip_prefix("Bearer ")
}

fn basic(headers: &HeaderMap) -> Option<String> {
    let text = value(headers, AUTHORIZATION.as_str()).strip_prefix("Basic ")?;
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

fn has_format(headers: &HeaderMap, format: Format) -> bool {
    let essence = value(headers, CONTENT_TYPE.as_str()).split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(match format {
        Format::Json => "application/json",
        Format::Form => "application/x-www-form-urlencoded",
    })
}

pub(super) async fn route(
    service: Rc<Service>,
    provider: Rc<Provider>,
    request: Request<Incoming>,
) -> Result<AnswerResponse, Severed> {
    let (head, body) = request.into_parts();
    let dialect = provider.dialect;
    let say = |trouble: &Trouble| Ok(service.reply((dialect.trouble)(trouble)));
    let (does, parameter) = match dialect.route(&head.method, head.uri.path()) {
        Matched::Route(does, parameter) => (does, parameter.to_owned()),
        Matched::Nowhere => return say(&Trouble::NoRoute),
        Matched::WrongMethod => return say(&Trouble::WrongMethod),
    };
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return Ok(empty(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let body = body.to_bytes();
    if does == Does::Token {
        return Ok(service.reply(provider.give_token(&head.headers, &body)));
    }
    if !provider.is_authorized(&head.headers) {
        provider.count(|counts| counts.unauthorized += 1);
        return say(&Trouble::Unauthorized);
    }
    if service.is_too_many() {
        return say(&Trouble::TooMany);
    }
    let query = head.uri.query().unwrap_or_default().to_owned();
    let ask = Ask { parameter: &parameter, query: &query, body: &body };
    match does {
        Does::Find => match (dialect.find)(&provider.books.borrow(), &parameter, unix_ms()) {
            Some(view) => Ok(service.reply((dialect.found)(&view))),
            None => say(&Trouble::NotFound(parameter.clone())),
        },
        Does::List => match (dialect.list)(&ask, &provider.books.borrow(), unix_ms()) {
            Ok(reply) => Ok(service.reply(reply)),
            Err(trouble) => say(&trouble),
        },
        Does::Token => unreachable!("answered above"),
        Does::Create => {
            if !has_format(&head.headers, dialect.format) {
                return say(&Trouble::WrongFormat);
            }
            let key = match dialect.key {
                KeyRule::Header { name, .. } => {
                    Some(value(&head.headers, name)).filter(|key| !key.is_empty())
                }
                KeyRule::None | KeyRule::Name => None,
            };
            let drawn = service.step(|model, _| {
                model.count(|statistics| statistics.posts += 1);
                model.draw()
            });
            let work = Work { key: key.map(str::to_owned), parameter, query, body, drawn };
            let task = tokio::task::spawn_local(perform(Rc::clone(&service), Rc::clone(&provider), work));
            let reply = task.await.expect("a task that panics ends the program")?;
            Ok(service.reply(reply))
        }
    }
}

/// From the reading to the answer.
async fn perform(service: Rc<Service>, provider: Rc<Provider>, work: Work) -> Result<Reply, Severed> {
    let dialect = provider.dialect;
    let drawn = work.drawn;
    if drawn.random429 {
        service.step(|model, _| model.count(|statistics| statistics.refused429 += 1));
        return Ok((dialect.trouble)(&Trouble::TooMany));
    }
    let reply = match read(&service, &provider, &work) {
        Ok((order, claim)) => answer(&service, &provider, &work, order, claim).await?,
        Err(trouble) => (dialect.trouble)(&trouble),
    };
    if drawn.hang_after_insert {
        hang(&service).await;
    }
    match drawn {
        Drawn { close_after_insert: true, reset, .. } => Err(severed(reset)),
        Drawn { garbage: true, .. } => Err(Severed::Garbage),
        _ => Ok(reply),
    }
}

fn severed(reset: bool) -> Severed {
    if reset { Severed::Reset } else { Severed::Closed }
}

async fn hang(service: &Service) {
    let hang_ms = service.step(|model, _| model.hang_ms());
    sleep(Duration::from_millis(hang_ms)).await;
}

/// What is wanted, and what its key says.
fn read(service: &Service, provider: &Provider, work: &Work) -> Result<(Order, Claim), Trouble> {
    let order = (provider.dialect.read)(&work.ask())?;
    if service.terms.borrow().refuse.picks(order.id(), order.amount_cents) {
        return Err(Trouble::Invalid { member: "amount", what: "refused on request".to_owned() });
    }
    let claim = match &work.key {
        Some(key) => provider.books.borrow_mut().claim(unix_ms(), key, work.fingerprint()),
        None => Claim::Fresh,
    };
    Ok((order, claim))
}

async fn answer(
    service: &Rc<Service>,
    provider: &Rc<Provider>,
    work: &Work,
    order: Order,
    claim: Claim,
) -> Result<Reply, Severed> {
    let dialect = provider.dialect;
    let delay_ms = service.step(|model, _| model.delay_ms());
    sleep(Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0))).await;
    match claim {
        Claim::Fresh => {}
        Claim::Replay(said) => {
            provider.count(|counts| counts.replays += 1);
            return Ok(provider.say(said, true));
        }
        Claim::Conflict | Claim::InUse => {
            provider.count(|counts| counts.conflicts += 1);
            let trouble = if claim == Claim::InUse { Trouble::KeyInUse } else { Trouble::KeyConflict };
            return Ok((dialect.trouble)(&trouble));
        }
    }
    if work.drawn.hang_before_insert {
        hang(service).await;
    }
    // What ends before the insert leaves its key as it was, but for a 500 that a provider keeps.
    let release = || {
        if let Some(key) = &work.key {
            provider.books.borrow_mut().release(key);
        }
    };
    if work.drawn.close_before_insert {
        release();
        return Err(severed(work.drawn.reset));
    }
    if service.step(|model, _| model.failing()) || work.drawn.random500 {
        service.step(|model, _| model.count(|statistics| statistics.failures500 += 1));
        let keeps = matches!(dialect.key, KeyRule::Header { keeps_500: true, .. });
        // The switch is an outage in front of everything: nothing began, and nothing is kept.
        if !work.drawn.random500 {
            release();
            return Ok((dialect.trouble)(&Trouble::Down));
        }
        if keeps {
            service.keep(provider, work, Said::Broken)
        } else {
            release()
        }
        return Ok((dialect.trouble)(&Trouble::Broken));
    }
    if !dialect.may_create(&provider.books.borrow(), &order.name) {
        service.step(|model, _| model.count(|statistics| statistics.duplicates += 1));
        return Ok((dialect.trouble)(&Trouble::Exists(order.name)));
    }
    let now_ms = unix_ms();
    let said = {
        let mut books = provider.books.borrow_mut();
        let number = books.create(now_ms, order, &service.terms.borrow(), dialect.is_always_later);
        let state = books.view(number, now_ms).map_or(State::Pending, |view| view.state);
        Said::Stored(number, state)
    };
    service.step(|model, _| model.count(|statistics| statistics.inserted += 1));
    service.keep(provider, work, said);
    if let (Said::Stored(number, _), Some(_)) = (said, &provider.webhook) {
        tokio::task::spawn_local(webhook::tell(Rc::clone(service), Rc::clone(provider), number));
    }
    Ok(provider.say(said, false))
}

impl Provider {
    /// What was said of a request, once more or for the first time.
    fn say(&self, said: Said, is_replay: bool) -> Reply {
        let books = self.books.borrow();
        let view = match said {
            Said::Stored(number, state) => books.view_in(number, state),
            Said::Broken => None,
        };
        match view {
            Some(view) => (self.dialect.created)(&view, is_replay),
            // Also where a purge came between.
            None => (self.dialect.trouble)(&Trouble::Broken),
        }
    }
}

impl Service {
    /// Whether one more request is above the limit; counts it.
    pub(super) fn is_too_many(&self) -> bool {
        let per_s = self.terms.borrow().rate_per_s;
        let is_too_many = self.step(|_, now_us| self.rate.borrow_mut().is_exceeded(now_us, per_s));
        if is_too_many {
            self.step(|model, _| model.count(|statistics| statistics.refused429 += 1));
        }
        is_too_many
    }

    /// An answer is kept under its request's key.
    fn keep(&self, provider: &Provider, work: &Work, said: Said) {
        let (Some(key), KeyRule::Header { window_s, .. }) = (&work.key, provider.dialect.key) else { return };
        let window_s = self.terms.borrow().keys_s.unwrap_or(window_s);
        let window_ms = i64::try_from(window_s.saturating_mul(1_000)).unwrap_or(i64::MAX);
        provider.books.borrow_mut().keep(key, said, unix_ms().saturating_add(window_ms));
    }

    fn reply(&self, reply: Reply) -> AnswerResponse {
        let status = StatusCode::from_u16(reply.status).expect("a dialect's status is one");
        let mut response = self.text(status, Bytes::from(reply.body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        for (name, text) in reply.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a dialect's header has a name");
            headers.insert(name, HeaderValue::from_str(&text).expect("a dialect's header has a value"));
        }
        response
    }
}
