//! What tells one provider from another, as a table: where it listens, who may ask, how a request is read, and how it says
//! each thing that can come of one.

use hyper::Method;
use ring::hmac;
use serde_json::{Map, Value};

use super::books::{Books, Order, View};
use super::{adyen, mercadopago, pix, stripe};

/// One provider. See the module's documentation.
#[derive(Debug)]
pub struct Dialect {
    /// The shipped profile of the same name speaks to it.
    pub name: &'static str,
    /// Where it listens.
    pub routes: &'static [(Method, &'static str, Does)],
    /// Who may ask.
    pub auth: Auth,
    /// What requests carry.
    pub format: Format,
    /// What makes two requests one payment.
    pub key: KeyRule,
    /// No payment is ever decided on at once.
    pub is_always_later: bool,
    /// Reads a request to create a payment.
    pub read: fn(&Ask<'_>) -> Result<Order, Trouble>,
    /// Says what was created, now or, where it is a replay, before.
    pub created: fn(&View<'_>, is_replay: bool) -> Reply,
    /// Says what one payment is like.
    pub found: fn(&View<'_>) -> Reply,
    /// The payment that a path's parameter names.
    pub find: for<'books> fn(&'books Books, &str, now_ms: i64) -> Option<View<'books>>,
    /// Lists payments.
    pub list: fn(&Ask<'_>, &Books, now_ms: i64) -> Result<Reply, Trouble>,
    /// Says what went wrong.
    pub trouble: fn(&Trouble) -> Reply,
    /// Tells that a payment was decided on.
    pub notice: fn(&View<'_>, &Signer) -> Option<Notice>,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Creates a payment.
    Create,
    /// Shows one.
    Find,
    /// Lists several.
    List,
    /// Gives an OAuth2 token.
    Token,
}

/// A form's values lie at most so deep; what a name has beyond that is taken as it stands.
const DEPTH_MAX: usize = 8;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer …`; the credential begins so.
    Bearer(&'static str),
    /// A header of this name.
    Header(&'static str),
    /// A bearer token of the route that [gives one](Does::Token), to whoever shows id and secret.
    OAuth2,
}

/// What requests carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`, with `a[b]` for what lies in something.
    Form,
}

/// What makes two requests one payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRule {
    /// Nothing does.
    None,
    /// The payment's name: another request for the same one is refused, for ever.
    Name,
    /// A header.
    Header {
        /// Its name.
        name: &'static str,
        /// For how long it is kept, in seconds.
        window_s: u64,
        /// A 500 is kept under it, too.
        keeps_500: bool,
    },
}

/// A request, as far as HTTP has read it.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'request> {
    /// What stands in the path where the route has `{}`.
    pub parameter: &'request str,
    /// The query.
    pub query: &'request str,
    /// The body.
    pub body: &'request [u8],
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers of its own.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

/// A notification: a POST's headers and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Headers of its own.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

/// What a notification is signed with.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The secret that provider and caller share, if they do.
    pub secret: Option<Vec<u8>>,
    /// Unix time, seconds.
    pub now_s: i64,
}

/// What can be wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// No credentials, or wrong ones.
    Unauthorized,
    /// No route has this path.
    NoRoute,
    /// The path's route has another method.
    WrongMethod,
    /// The body is not of the format.
    WrongFormat,
    /// A member of the request is missing or wrong.
    Invalid {
        /// Which, as the provider writes it.
        member: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// There is no such payment.
    NotFound(String),
    /// There is a payment of this name already.
    Exists(String),
    /// A request with the same key is being worked on.
    KeyInUse,
    /// The key was used for another request.
    KeyConflict,
    /// Too many requests.
    TooMany,
    /// 500.
    Broken,
    /// 503: nothing works.
    Down,
}

impl Trouble {
    pub(super) fn invalid(member: &'static str, what: impl Into<String>) -> Self {
        Trouble::Invalid { member, what: what.into() }
    }
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<String>) -> Self {
        Reply { status, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Reply::new(status, body.to_string())
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Signer {
    /// HMAC-SHA256 of these bytes under a key.
    pub(super) fn tag(key: &[u8], bytes: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref().to_vec()
    }

    /// The same in hexadecimal, under the secret.
    pub(super) fn hex(secret: &[u8], bytes: &[u8]) -> String {
        Signer::tag(secret, bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matched<'path> {
    /// There, with what the path has for the route's `{}`.
    Route(Does, &'path str),
    /// Nowhere.
    Nowhere,
    /// Nowhere with this method.
    WrongMethod,
}

impl Dialect {
    /// All of them, in the order of the documentation.
    pub const ALL: &[&'static Self] =
        &[&stripe::STRIPE, &adyen::ADYEN, &mercadopago::MERCADO_PAGO, &pix::PIX, &stripe::LOCALSTRIPE];

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().copied().find(|dialect| dialect.name == name)
    }

    /// Where a request of this method and path goes.
    #[must_use]
    pub fn route<'path>(&self, method: &Method, path: &'path str) -> Matched<'path> {
        let mut matched = Matched::Nowhere;
        for (of, route, does) in self.routes {
            let parameter = match route.split_once("{}") {
                None => (path == *route).then_some(""),
                Some((before, after)) => path
                    .strip_prefix(before)
                    .and_then(|rest| rest.strip_suffix(after))
                    .filter(|parameter| !parameter.is_empty() && !parameter.contains('/')),
            };
            match parameter {
                Some(parameter) if of == method => return Matched::Route(*does, parameter),
                Some(_) => matched = Matched::WrongMethod,
                None => {}
            }
        }
        matched
    }

    /// Whether a payment of this name may be created once more.
    #[must_use]
    pub fn may_create(&self, books: &Books, name: &str) -> bool {
        self.key != KeyRule::Name || books.named(name, 0).next().is_none()
    }
}

impl Ask<'_> {
    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Result<Value, Trouble> {
        serde_json::from_slice(self.body)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| Trouble::invalid("", "the body is no JSON object"))
    }

    /// The body as a form: each value a text, `a[b]` inside of `a`.
    pub(super) fn form(&self) -> Value {
        let mut fields = Map::new();
        for (name, value) in form_urlencoded::parse(self.body) {
            let mut steps = name.splitn(DEPTH_MAX, '[').map(|step| step.strip_suffix(']').unwrap_or(step));
            let mut place =
                fields.entry(steps.next().unwrap_or_default()).or_insert_with(|| Value::Object(Map::new()));
            for step in steps {
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                place = &mut place[step];
            }
            *place = Value::String(value.into_owned());
        }
        Value::Object(fields)
    }
}

/// A member's text, or nothing.
pub(super) fn text<'value>(fields: &'value Value, pointer: &str) -> &'value str {
    fields.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_the_name_of_a_shipped_profile() {
        for dialect in Dialect::ALL {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../profile/profiles/");
            let text = std::fs::read_to_string(format!("{file}{}.toml", dialect.name)).unwrap();
            assert_eq!(Dialect::named(dialect.name).unwrap().name, dialect.name);
            // What the profile sends is what is listened to.
            let method = if text.contains("method = \"PUT\"") { Method::PUT } else { Method::POST };
            let after = text.split("[request]").nth(1).unwrap();
            let path = after.split("path = \"").nth(1).unwrap().split('"').next().unwrap();
            let path = path.replace("{key}", "4a7901b87d264d9daa194dc1c7cf60b3");
            assert!(matches!(dialect.route(&method, &path), Matched::Route(Does::Create, _)), "{path}");
        }
        assert!(Dialect::named("contest").is_none());
    }

    #[test]
    fn a_route_has_one_parameter_and_one_method() {
        let route = |method, path: &'static str| stripe::STRIPE.route(&method, path);
        assert_eq!(route(Method::GET, "/v1/payment_intents/pi_1"), Matched::Route(Does::Find, "pi_1"));
        assert_eq!(route(Method::GET, "/v1/payment_intents"), Matched::Route(Does::List, ""));
        assert_eq!(route(Method::PUT, "/v1/payment_intents"), Matched::WrongMethod);
        assert_eq!(route(Method::GET, "/v1/payment_intents/"), Matched::Nowhere);
        assert_eq!(route(Method::GET, "/v1/payment_intents/a/b"), Matched::Nowhere);
    }

    #[test]
    fn a_form_is_read_with_what_lies_inside() {
        let ask =
            Ask { parameter: "", query: "", body: b"amount=1990&metadata%5Border_id%5D=a&x[y][z]=1&x=2" };
        let expected = serde_json::json!({"amount": "1990", "metadata": {"order_id": "a"}, "x": "2"});
        assert_eq!(ask.form(), expected);
    }

    /// RFC 4231, test case 2.
    #[test]
    fn signatures_are_hmac_sha256() {
        let hex = Signer::hex(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
