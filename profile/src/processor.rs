//! One `[[processor]]` table.

use std::fmt;
use std::path::PathBuf;

use galo_engine::PROCESSORS_LEN_MAX;

use crate::auth::{Auth, read_url};
use crate::files::Files;
use crate::health::Health;
use crate::lookup::{Known, Lookup, read_lookup};
use crate::notify::Notification;
use crate::request::{Head, Idempotency, Request, read_idempotency, read_request};
use crate::rules::{Answers, read_answers};
use crate::secret::Secret;
use crate::table::Table;
use crate::url::{self, Url};

/// A payment processor: everything that Galo knows of it before it has answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Processor {
    /// Its name in summaries, metrics and logs: 1 to 32 bytes of `a-z0-9_-`.
    pub name: String,
    /// Its number in the journal, 0 to 7, the same for ever.
    pub number: u8,
    /// Where its requests go.
    pub url: Url,
    /// Present exactly where [`Url::https`] is true.
    pub tls: Option<Tls>,
    /// How its connections are kept.
    pub connection: Connection,
    /// Who we are.
    pub auth: Auth,
    /// What an attempt sends.
    pub request: Request,
    /// Under which key, and for how long.
    pub idempotency: Idempotency,
    /// What answers to it mean.
    pub answers: Answers,
    /// A payment that it declines may go to the next processor.
    pub declined_goes_on: bool,
    /// How to find out what it has stored; `None`: nothing but an attempt with the same key tells.
    pub lookup: Option<Lookup>,
    /// How it says that something has happened.
    pub notification: Option<Notification>,
    /// What it can take.
    pub limits: Limits,
    /// What it keeps.
    pub cost: Cost,
    /// What it says of itself.
    pub health: Option<Health>,
}

/// `[processor.tls]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// The certificates that its chain must end in; `None`: the machine's.
    pub ca: Option<Pem>,
    /// Our certificate chain and its key.
    pub client: Option<(Pem, Pem)>,
    /// The name that its certificate must have, and SNI.
    pub server_name: String,
}

/// A file in PEM form; the shell parses it, and names it where it cannot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pem {
    /// Where it was read.
    pub path: PathBuf,
    /// What stood in it then, so that a new certificate under the old name is a change.
    pub pem: Secret,
    /// Which key names it.
    pub place: Place,
}

/// Its key's place, if it has one, and its path.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place.0, self.path.display())
    }
}

/// A key of a processors' file, for messages: file, line and name, or nothing. Two files whose lines are others are the same.
#[derive(Clone, Debug, Default)]
pub struct Place(String);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}

/// How connections are made and kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Until the connection stands, its handshake included.
    pub connect_timeout_ms: u64,
    /// Until the answer is whole; far above what the processor ever takes, since a timeout is a doubt.
    pub attempt_timeout_ms: u64,
    /// A connection that was idle for so long is not used again; below the processor's own limit.
    pub idle_ms: u64,
    /// TCP keepalive's time and interval; 0: none.
    pub keepalive_s: u64,
    /// `TCP_USER_TIMEOUT`: written bytes that are not acknowledged for so long end the connection; 0: the kernel's.
    pub user_timeout_ms: u64,
}

/// `[processor.limits]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Attempts at once, of one gateway.
    pub concurrency: u32,
    /// Requests a second, of one gateway: attempts and look-ups; `None`: no limit.
    pub per_second: Option<u32>,
}

/// `[processor.cost]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Of the amount, in 1/100 %.
    pub basis_points: u32,
    /// Of each payment, in cents.
    pub fixed_cents: u32,
}

/// `[a-z0-9_-]{1,32}`.
fn name(text: &str) -> Result<&str, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let usable = (1..=32).contains(&text.len()) && text.bytes().all(plain);
    usable.then_some(text).ok_or_else(|| "1 to 32 characters of a-z, 0-9, _ and -".to_owned())
}

/// Reads one table; `place` is its number where it names none. `None`: something that nothing can be read without is missing.
pub(crate) fn read_processor(mut table: Table<'_>, place: u8, files: &Files<'_>) -> Option<Processor> {
    // Laid under the table already.
    table.get("profile");
    let name =
        table.need("name", "1 to 32 characters of a-z, 0-9, _ and -").and_then(|entry| entry.read(name));
    let number = table.number_or("number", u64::from(place), 0..=PROCESSORS_LEN_MAX as u64 - 1);
    let url = table.need("url", url::EXPECTED).and_then(|entry| read_url(&entry));
    let tls = match (&url, table.get("tls")) {
        (Some(url), Some(entry)) if !url.https => {
            if let Some(tls) = entry.table() {
                tls.mistake("expected only where url begins with https://");
                tls.finish_whatever(&["ca_file", "client_cert_file", "client_key_file", "server_name"]);
            }
            None
        }
        (_, entry) => {
            let tls = read_tls(entry.and_then(|entry| entry.table()), url.as_ref(), files);
            tls.filter(|_| url.as_ref().is_some_and(|url| url.https))
        }
    };
    const HOUR_MS: u64 = 3_600_000;
    let connection = Connection {
        connect_timeout_ms: table.number_or("connect_timeout_ms", 1_000, 10..=60_000),
        attempt_timeout_ms: table.number_or("attempt_timeout_ms", 30_000, 100..=HOUR_MS),
        idle_ms: table.number_or("idle_ms", 30_000, 100..=HOUR_MS),
        keepalive_s: table.number_or("keepalive_s", 15, 0..=7_200),
        user_timeout_ms: table.number_or("user_timeout_ms", 3_000, 0..=HOUR_MS),
    };
    let auth = Auth::read(table.table("auth"), files);
    let key = read_idempotency(&mut table, &auth);
    // A stand-in, so that what follows is read, too; a missing URL is a mistake already.
    let some_url = url.clone().unwrap_or_else(|| Url::parse("http://unknown").expect("a URL"));
    let count = table.log().count();
    let request = read_request(&mut table, &some_url, &auth, &key);
    // Of a request with a mistake nothing is known.
    let is_named = table.log().count() > count || request.as_ref().is_some_and(Request::names_payment);
    let (answers, looked_up) = read_answers(&mut table);
    let declined_goes_on = match table.table("declines") {
        None => true,
        Some(mut declines) => {
            let next = declines.flag("next").unwrap_or(true);
            declines.finish();
            next
        }
    };
    let head = Head { method: "GET", url: &some_url, auth: &auth, key: key.public.key };
    let longest_ms = connection.attempt_timeout_ms + connection.connect_timeout_ms;
    let known = Known { longest_ms, answers_name: answers.names_reference(), is_named };
    let lookup = read_lookup(&mut table, &head, &known);
    if let Some((at, verdict)) = looked_up
        && table.get("lookup").is_none()
    {
        let name = verdict.name();
        let text = format!(
            "processor.outcome: expected a [processor.lookup] beside \"{name}\", which would never end"
        );
        table.log().add(at, text);
    }
    let notification = table.table("notification").and_then(|table| Notification::read(table, files));
    let limits = read_limits(table.table("limits"));
    let cost = read_cost(table.table("cost"));
    let health = Health::read_table(table.table("health"), &head);
    table.finish();
    Some(Processor {
        name: name?.to_owned(),
        number: u8::try_from(number).expect("at most 7"),
        url: url?,
        tls,
        connection,
        auth,
        request: request?,
        idempotency: key.public,
        answers,
        declined_goes_on,
        lookup,
        notification,
        limits,
        cost,
        health,
    })
}

fn read_tls(table: Option<Table<'_>>, url: Option<&Url>, files: &Files<'_>) -> Option<Tls> {
    let host = url.map(|url| url.host.clone()).unwrap_or_default();
    let Some(mut table) = table else { return Some(Tls { ca: None, client: None, server_name: host }) };
    let mut pem = |key| {
        let entry = table.get(key)?;
        let (path, pem) = (files.path(&entry)?, files.pem(&entry)?);
        if !pem.windows(11).any(|window| window == b"-----BEGIN ") {
            files.expected(&entry, "a file in PEM form, with -----BEGIN in it");
        }
        let place = Place(format!("{}:{}: {}: ", entry.node.at.file, entry.node.at.line, entry.path));
        Some(Pem { path, pem: Secret::new(pem), place })
    };
    let (ca, certificate, key) = (pem("ca_file"), pem("client_cert_file"), pem("client_key_file"));
    let given = ["client_cert_file", "client_key_file"].map(|key| table.get(key).is_some());
    match given {
        [true, false] => table.missing("client_key_file", "the key of client_cert_file"),
        [false, true] => table.missing("client_cert_file", "the certificate of client_key_file"),
        _ => {}
    }
    let server_name = table.read("server_name", |text| {
        let name = url::is_certified_name(text).then(|| text.to_owned());
        name.ok_or_else(|| "a host's name or address".to_owned())
    });
    table.finish();
    Some(Tls { ca, client: certificate.zip(key), server_name: server_name.unwrap_or(host) })
}

fn small(value: u64) -> u32 {
    u32::try_from(value).expect("bounded below 2^32 where it was read")
}

fn read_limits(table: Option<Table<'_>>) -> Limits {
    let mut limits = Limits { concurrency: 400, per_second: None };
    if let Some(mut table) = table {
        limits.concurrency = small(table.number_or("concurrency", 400, 1..=10_000));
        limits.per_second = table.number("per_second", 1..=1_000_000).map(small);
        table.finish();
    }
    limits
}

fn read_cost(table: Option<Table<'_>>) -> Cost {
    let mut cost = Cost { basis_points: 0, fixed_cents: 0 };
    if let Some(mut table) = table {
        cost.basis_points = small(table.number_or("basis_points", 0, 0..=10_000));
        cost.fixed_cents = small(table.number_or("fixed_cents", 0, 0..=100_000_000));
        table.finish();
    }
    cost
}
