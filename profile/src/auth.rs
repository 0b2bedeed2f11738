//! `[processor.auth]`: who we are, and where a token comes from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use galo_engine::time::Now;

use crate::files::Files;
use crate::json::Scalar;
use crate::request::own_header_name;
use crate::secret::Secret;
use crate::table::{Entry, Table};
use crate::template::{Piece, Template, form_encode};
use crate::text::is_header_value;
use crate::url::{self, Url};

/// What a request carries to be let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Auth {
    /// Nothing.
    None,
    /// A header with a secret value.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: Secret,
    },
    /// `Authorization: Bearer …`
    Bearer(Secret),
    /// `Authorization: Basic …`, user and password encoded already.
    Basic(Secret),
    /// `Authorization: Bearer …` with a token of an authorization server's, see [`Tokens`].
    OAuth2(Box<OAuth2>),
}

/// Client credentials (RFC 6749, section 4.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OAuth2 {
    /// Where tokens are asked for.
    pub token_url: Url,
    /// The whole request for a token.
    request: Secret,
    /// How long before its end a token is replaced; `None`: a tenth of its life, and at least 30 s if it lives for a minute.
    ahead_s: Option<u64>,
}

impl Auth {
    /// The name of the header that it sends.
    pub(crate) fn header(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Header { name, .. } => Some(name),
            Self::Bearer(_) | Self::Basic(_) | Self::OAuth2(_) => Some("Authorization"),
        }
    }

    pub(crate) fn write(&self, template: &mut Template) {
        let (name, value): (&str, &Secret) = match self {
            Self::None => return,
            Self::Header { name, value } => (name, value),
            Self::Bearer(token) => ("Authorization: Bearer", token),
            Self::Basic(encoded) => ("Authorization: Basic", encoded),
            Self::OAuth2(_) => {
                template.bytes("Authorization: Bearer ");
                template.push(Piece::Token);
                template.bytes("\r\n");
                return;
            }
        };
        template.bytes(name);
        template.bytes(if matches!(self, Self::Header { .. }) { ": " } else { " " });
        template.bytes(value.expose());
        template.bytes("\r\n");
    }

    pub(crate) fn read(table: Option<Table<'_>>, files: &Files<'_>) -> Self {
        let Some(mut table) = table else { return Self::None };
        table.need("kind", "\"header\", \"bearer\", \"basic\", \"oauth2\" or \"none\"");
        let kinds = ["header", "bearer", "basic", "oauth2", "none"].map(|kind| (kind, kind));
        let auth = match table.word("kind", &kinds) {
            None => {
                table.finish_whatever(&KEYS);
                return Self::None;
            }
            Some("header") => {
                let name =
                    table.need("name", "the header's name").and_then(|entry| entry.read(own_header_name));
                let value = secret(&mut table, "value_file", files);
                name.zip(value).map(|(name, value)| Self::Header { name: name.to_owned(), value })
            }
            Some("bearer") => secret(&mut table, "token_file", files).map(Self::Bearer),
            Some("basic") => {
                let user = table.need("user", "the user's name").and_then(|entry| {
                    entry.read(|text| {
                        let usable = is_header_value(text) && !text.contains(':') && !text.is_empty();
                        usable.then_some(text).ok_or_else(|| "printable ASCII without a colon".into())
                    })
                });
                let password = secret_text(&mut table, "password_file", files);
                user.zip(password)
                    .map(|(user, password)| Self::Basic(basic(user.as_bytes(), password.expose())))
            }
            Some("oauth2") => OAuth2::read(&mut table, files).map(|oauth2| Self::OAuth2(Box::new(oauth2))),
            Some(_) => Some(Self::None),
        };
        table.finish();
        auth.unwrap_or(Self::None)
    }
}

fn basic(user: &[u8], password: &[u8]) -> Secret {
    let both = [user, b":", password].concat();
    Secret::new(STANDARD.encode(both).into_bytes())
}

/// A secret that can stand in a header as it is.
fn secret(table: &mut Table<'_>, key: &'static str, files: &Files<'_>) -> Option<Secret> {
    let entry = table.need(key, "the path of the file that holds the secret")?;
    let secret = files.secret(&entry)?;
    if !secret.is_header_text() {
        files.expected(&entry, "a file of printable ASCII without blanks, on one line");
        return None;
    }
    Some(secret)
}

/// A secret that is encoded before it is sent.
fn secret_text(table: &mut Table<'_>, key: &'static str, files: &Files<'_>) -> Option<Secret> {
    let entry = table.need(key, "the path of the file that holds the secret")?;
    files.secret(&entry)
}

impl OAuth2 {
    fn read(table: &mut Table<'_>, files: &Files<'_>) -> Option<Self> {
        let token_url = table.need("token_url", url::EXPECTED).and_then(|entry| {
            let path = entry.text().map(Url::path);
            read_url(&entry).zip(path)
        });
        let client_id = table.need("client_id", "the client's id").and_then(|entry| entry.read(Ok));
        let client_secret = secret_text(table, "client_secret_file", files);
        let scope = table.text("scope");
        let ahead_s = table.number("ahead_s", 1..=86_400);
        let in_body = table.word("credentials", &[("header", false), ("body", true)]).unwrap_or(false);
        let ((url, path), id, secret) = (token_url?, client_id?, client_secret?);

        let encoded = |text: &[u8]| {
            let mut out = Vec::new();
            form_encode(text, &mut out);
            out
        };
        let mut body = b"grant_type=client_credentials".to_vec();
        let mut pair = |name: &str, value: &[u8]| {
            body.extend_from_slice(name.as_bytes());
            form_encode(value, &mut body);
        };
        if let Some(scope) = scope {
            pair("&scope=", scope.as_bytes());
        }
        let mut authorization = Template::default();
        if in_body {
            pair("&client_id=", id.as_bytes());
            pair("&client_secret=", secret.expose());
        } else {
            // Both are encoded as in a form before they are encoded as Basic (RFC 6749, section 2.3.1).
            Auth::Basic(basic(&encoded(id.as_bytes()), &encoded(secret.expose()))).write(&mut authorization);
        }
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\n", url.authority).into_bytes();
        let mut credentials = Vec::new();
        authorization.render(&crate::template::Values::nothing(), &mut credentials).ok()?;
        head.extend_from_slice(&credentials);
        head.extend_from_slice(
            format!(
                "Content-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            )
            .as_bytes(),
        );
        head.extend_from_slice(&body);
        Some(Self { token_url: url, request: Secret::new(head), ahead_s })
    }
}

/// A URL, whose text is not shown where it may hold a password.
pub(crate) fn read_url(entry: &Entry<'_>) -> Option<Url> {
    let parsed = entry.text().and_then(Url::parse);
    if parsed.is_none() {
        if entry.text().is_some_and(url::may_hold_secret) {
            entry.expected_secretly(url::EXPECTED);
        } else {
            entry.expected(url::EXPECTED);
        }
    }
    parsed
}

/// The keys of all kinds.
const KEYS: [&str; 12] = [
    "name",
    "value_file",
    "token_file",
    "user",
    "password_file",
    "token_url",
    "client_id",
    "client_secret_file",
    "scope",
    "ahead_s",
    "credentials",
    "kind",
];

/// The life of a token that does not say how long it lives: short, so that a wrong guess costs a request and no payment.
const LIFE_S_DEFAULT: u64 = 300;
const LIFE_S_MAX: u64 = 30 * 86_400;
const AHEAD_S_MIN: u64 = 30;
const BACK_OFF_US_MIN: u64 = 1_000_000;
const BACK_OFF_US_MAX: u64 = 60_000_000;
/// A longer token than this is none that fits a head.
const TOKEN_SIZE_MAX: usize = 8 << 10;

/// The token of one processor, and when to ask for the next; sans-IO.
///
/// The caller asks [`Tokens::needs`] when [`Tokens::due_us`] says, which [`Tokens::refused`] may bring forward, sends what it gets, and
/// reports how it ended: each request ends in [`Tokens::answered`] or [`Tokens::failed`]. An attempt without a token is `not_sent`.
#[derive(Clone, Debug)]
pub struct Tokens {
    oauth2: OAuth2,
    token: Option<Token>,
    asking: bool,
    failures: u32,
    next_us: u64,
}

#[derive(Clone, Debug)]
struct Token {
    text: Secret,
    ends_us: u64,
}

impl Tokens {
    /// Without a token: the first question gives a request.
    #[must_use]
    pub const fn new(oauth2: OAuth2) -> Self {
        Self { oauth2, token: None, asking: false, failures: 0, next_us: 0 }
    }

    /// The same for another sender, whom no answer to a request of this one's will reach.
    #[must_use]
    pub fn successor(&self) -> Self {
        Self { asking: false, ..self.clone() }
    }

    /// The token that an attempt may carry now.
    #[must_use]
    pub fn token(&self, now: Now) -> Option<&Secret> {
        let token = self.token.as_ref()?;
        (now.monotonic_us < token.ends_us).then_some(&token.text)
    }

    /// The request for a token, if it is time to send one; to [`OAuth2::token_url`], on a connection of its own.
    pub fn needs(&mut self, now: Now) -> Option<&Secret> {
        if self.asking || now.monotonic_us < self.next_us {
            return None;
        }
        self.asking = true;
        Some(&self.oauth2.request)
    }

    /// When to call [`Tokens::needs`] next, µs of the monotonic clock; `None` while a request is on its way.
    #[must_use]
    pub fn due_us(&self) -> Option<u64> {
        (!self.asking).then_some(self.next_us)
    }

    /// The authorization server answered. Returns whether there is a new token.
    pub fn answered(&mut self, status: u16, body: &[u8], now: Now) -> bool {
        let read = if (200..=299).contains(&status) { read_token(body) } else { None };
        let Some((text, life_s)) = read else {
            self.failed(now);
            return false;
        };
        let ahead_s = self.oauth2.ahead_s.unwrap_or_else(|| (life_s / 10).max(AHEAD_S_MIN));
        // Never so far ahead that a token is replaced while it is new.
        let ahead_s = ahead_s.min(life_s / 2);
        self.asking = false;
        self.failures = 0;
        let us = |seconds: u64| seconds * 1_000_000;
        self.token = Some(Token { text, ends_us: now.monotonic_us.saturating_add(us(life_s)) });
        self.next_us = now.monotonic_us.saturating_add(us(life_s - ahead_s).max(BACK_OFF_US_MIN));
        true
    }

    /// No answer came, or none that helps. A token that is still valid goes on being used; the pauses double, from 1 s to 60 s.
    pub fn failed(&mut self, now: Now) {
        self.asking = false;
        let pause_us = (BACK_OFF_US_MIN << self.failures.min(6)).min(BACK_OFF_US_MAX);
        self.failures = self.failures.saturating_add(1);
        self.next_us = now.monotonic_us.saturating_add(pause_us);
    }

    /// The processor does not accept this token (401): another one is asked for, unless that happened already.
    pub fn refused(&mut self, token: &Secret, now: Now) {
        if self.token.as_ref().is_some_and(|current| current.text == *token) {
            self.token = None;
            if self.failures == 0 {
                // Counts as a failure: a processor that refuses every token must not make us ask without pause.
                self.failures = 1;
                self.next_us = now.monotonic_us.saturating_add(BACK_OFF_US_MIN);
            }
        }
    }
}

/// Token and life in seconds (RFC 6749, section 5.1).
fn read_token(body: &[u8]) -> Option<(Secret, u64)> {
    let body = str::from_utf8(body).ok()?;
    let token = Scalar::at(body, "/access_token").filter(|token| token.is_text)?;
    let kind = Scalar::at(body, "/token_type");
    if kind.is_some_and(|kind| !kind.text.eq_ignore_ascii_case("bearer")) {
        return None;
    }
    let life_s = match Scalar::at(body, "/expires_in") {
        None => LIFE_S_DEFAULT,
        Some(seconds) => seconds.text.parse::<u64>().ok()?.min(LIFE_S_MAX),
    };
    let text = Secret::new(token.text.as_bytes());
    let usable = life_s > 0 && token.text.len() <= TOKEN_SIZE_MAX && text.is_header_text();
    usable.then_some((text, life_s))
}

#[cfg(test)]
mod tests {
    use galo_engine::time::UnixMillis;

    use super::*;

    fn at(seconds: u64) -> Now {
        Now { monotonic_us: seconds * 1_000_000, unix_ms: UnixMillis(0) }
    }

    fn tokens(ahead_s: Option<u64>) -> Tokens {
        let token_url = Url::parse("https://auth.test/token").unwrap();
        Tokens::new(OAuth2 { token_url, request: Secret::new(*b"POST"), ahead_s })
    }

    fn answer(token: &str, life_s: u64) -> Vec<u8> {
        format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{life_s}}}"#).into_bytes()
    }

    #[test]
    fn a_token_is_used_until_it_ends_and_replaced_ahead_of_that() {
        for (ahead_s, life_s, refresh_s) in
            [(None, 3_600, 3_240), (None, 120, 90), (None, 40, 20), (None, 1, 1), (Some(600), 3_600, 3_000)]
        {
            let mut tokens = tokens(ahead_s);
            assert!(tokens.token(at(0)).is_none());
            assert!(tokens.needs(at(0)).is_some());
            assert!(tokens.needs(at(0)).is_none(), "one question at a time");
            assert_eq!(tokens.due_us(), None);
            assert!(tokens.answered(200, &answer("one", life_s), at(0)));
            assert_eq!(tokens.token(at(0)).unwrap().expose(), b"one");
            assert_eq!(tokens.due_us(), Some(refresh_s * 1_000_000), "life {life_s}");
            assert!(tokens.needs(Now { monotonic_us: refresh_s * 1_000_000 - 1, ..at(0) }).is_none());
            assert!(tokens.needs(at(refresh_s)).is_some());
            assert!(tokens.token(at(life_s - 1)).is_some(), "the old one goes on meanwhile");
            assert!(tokens.token(at(life_s)).is_none(), "an attempt would not be sent");
        }
    }

    #[test]
    fn failures_pause_longer_each_time_and_keep_the_token() {
        let mut tokens = tokens(None);
        tokens.needs(at(0));
        assert!(tokens.answered(200, &answer("one", 3_600), at(0)));
        let mut now = 3_240;
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(tokens.needs(at(now)).is_some());
            assert!(!tokens.answered(503, b"busy", at(now)));
            assert_eq!(tokens.token(at(now)).is_some(), now < 3_600);
            assert!(tokens.needs(at(now + pause - 1)).is_none());
            now += pause;
        }
        assert!(tokens.needs(at(now)).is_some());
        assert!(tokens.answered(200, &answer("two", 3_600), at(now)));
        assert_eq!(tokens.token(at(now)).unwrap().expose(), b"two");
    }

    #[test]
    fn a_refused_token_is_replaced_once() {
        let mut tokens = tokens(None);
        tokens.needs(at(0));
        tokens.answered(200, &answer("one", 3_600), at(0));
        let one = tokens.token(at(1)).unwrap().clone();
        tokens.refused(&one, at(1));
        assert!(tokens.token(at(1)).is_none());
        assert!(tokens.needs(at(1)).is_none() && tokens.needs(at(2)).is_some());
        tokens.answered(200, &answer("two", 3_600), at(2));
        tokens.refused(&one, at(3));
        assert_eq!(tokens.token(at(3)).unwrap().expose(), b"two", "it is another one by now");
    }

    #[test]
    fn answers_that_are_no_tokens_are_failures() {
        for body in [
            "",
            "{}",
            r#"{"access_token":1}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":"a\r\nX: y","expires_in":60}"#,
            r#"{"access_token":"a b","expires_in":60}"#,
            r#"{"access_token":"a","expires_in":0}"#,
            r#"{"access_token":"a","expires_in":-1}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"a","access_token":"b"}"#,
        ] {
            let mut tokens = tokens(None);
            tokens.needs(at(0));
            assert!(!tokens.answered(200, body.as_bytes(), at(0)), "{body}");
            assert!(tokens.token(at(0)).is_none());
        }
        let mut tokens = tokens(None);
        tokens.needs(at(0));
        assert!(tokens.answered(200, br#"{"access_token":"a"}"#, at(0)));
        assert_eq!(tokens.due_us(), Some(270_000_000), "a life of five minutes is assumed");
        assert!(!format!("{tokens:?}").contains("POST"));
    }
}
