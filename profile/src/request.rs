//! `[processor.request]` and `[processor.idempotency]`: what an attempt sends.

use galo_engine::money::AmountCents;

use crate::auth::Auth;
use crate::error::At;
use crate::secret::Secret;
use crate::table::{Entry, Table};
use crate::template::{
    AmountForm, KeyForm, Notation, Payment, Piece, Place, Template, Unrenderable, Values, form_encode,
    json_escape,
};
use crate::text::{self, Part, Placeholder, Scope, is_header_name, is_header_value};
use crate::tree::Value;
use crate::url::Url;

/// What stands in a body for ever, at most.
const BODY_SIZE_MAX: usize = 8 << 10;

/// Tables and lists in each other.
const BODY_DEPTH_MAX: usize = 8;

/// Headers of one table.
const HEADERS_MAX: usize = 16;

/// Client members that a template names, at most.
const CLIENT_MEMBERS_MAX: usize = 16;

/// `[processor.request]`, compiled: turns a payment into bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    template: Template,
    amount: AmountForm,
    client_members: Vec<String>,
    needs_token: bool,
}

impl Request {
    /// Writes head and body of an attempt into the buffer, which is emptied first. Allocates nothing but what the buffer grows
    /// by, and that only until it has held one request of each size.
    ///
    /// # Errors
    /// [`Unrenderable`]: there is nothing to send; the attempt ends as `not_sent`.
    pub fn render(
        &self,
        payment: &Payment<'_>,
        token: Option<&Secret>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Unrenderable> {
        let correlation_id = payment.correlation_id;
        let values = Values { payment: Some(*payment), correlation_id, token, ..Values::nothing() };
        self.template.render(&values, buffer)
    }

    /// Whether the processor's form of amounts can say this one; otherwise the payment is none for this processor.
    #[must_use]
    pub fn takes(&self, amount: AmountCents) -> bool {
        self.amount.units(amount).is_some()
    }

    /// Whether the processor is sent the payment's `requestedAt`.
    #[must_use]
    pub fn sends_requested_at(&self) -> bool {
        self.template.has_requested_at()
    }

    /// The members of the client's POST that are forwarded.
    #[must_use]
    pub fn client_members(&self) -> &[String] {
        &self.client_members
    }

    /// Whether something that is sent says which payment it is: a look-up finds nothing else.
    pub(crate) fn names_payment(&self) -> bool {
        self.template.has(|piece| matches!(piece, Piece::Id | Piece::Key(_)))
    }

    /// Attempts need a token of [`crate::auth::Tokens`].
    #[must_use]
    pub const fn needs_token(&self) -> bool {
        self.needs_token
    }
}

/// `[processor.idempotency]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Idempotency {
    /// The processor is told a key at all.
    pub has_key: bool,
    /// How an id is written as a key.
    pub key: KeyForm,
    /// For how long after the first attempt the same key may be sent again; `None`: for ever; 0: never.
    pub window_s: Option<u64>,
    /// The same request may be sent while an earlier one may still be at work: at most one of them charges, and neither is lost for it.
    pub concurrent: bool,
}

/// Where the key stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyPlace {
    Header,
    Path,
    Body,
    Nowhere,
}

/// What was read of the idempotency, with what only the request's compilation needs.
pub(crate) struct Key<'a> {
    pub(crate) public: Idempotency,
    place: KeyPlace,
    header: Option<&'a str>,
    at: &'a At,
}

pub(crate) fn read_idempotency<'a>(processor: &mut Table<'a>, auth: &Auth) -> Key<'a> {
    let nothing =
        Idempotency { has_key: false, key: KeyForm::Hyphenated, window_s: Some(0), concurrent: false };
    let mut key = Key { public: nothing, place: KeyPlace::Nowhere, header: None, at: processor.at() };
    let Some(entry) = processor.need("idempotency", "a table with the key in") else { return key };
    let Some(mut table) = entry.table() else { return key };
    key.at = table.at();
    table.need("in", "\"header\", \"path\", \"body\" or \"none\"");
    let places = [
        ("header", KeyPlace::Header),
        ("path", KeyPlace::Path),
        ("body", KeyPlace::Body),
        ("none", KeyPlace::Nowhere),
    ];
    let Some(place) = table.word("in", &places) else {
        table.finish_whatever(&["name", "length_max", "window_s", "concurrent"]);
        return key;
    };
    key.place = place;
    key.public.has_key = place != KeyPlace::Nowhere;
    if place == KeyPlace::Header {
        let entry = table.need("name", "the header's name");
        key.header = entry.and_then(|entry| {
            entry.read(|text| {
                let name = own_header_name(header_name(text)?)?;
                let is_auths = auth.header().is_some_and(|auths| auths.eq_ignore_ascii_case(name));
                if is_auths { Err("another header than auth's".to_owned()) } else { Ok(name) }
            })
        });
    }
    if place != KeyPlace::Nowhere {
        let longest = table.number_or("length_max", 255, 1..=1_024);
        if longest < KeyForm::Hyphenated.size() as u64 {
            key.public.key = KeyForm::Digits;
        }
        if longest < KeyForm::Digits.size() as u64
            && let Some(entry) = table.get("length_max")
        {
            entry.expected("at least 32: a key is an id, of which even the bare hexadecimal digits are 32");
        }
        key.public.window_s = table.number_or_word("window_s", "for ever", 0..=315_360_000);
        key.public.concurrent = table.flag("concurrent").unwrap_or(false);
        if key.public.concurrent
            && key.public.window_s == Some(0)
            && let Some(entry) = table.get("concurrent")
        {
            entry.expected("a window_s other than 0 beside true: without one nothing is sent again");
        }
    }
    table.finish();
    key
}

/// What goes over a connection and how is Galo's to say.
const OURS: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "expect",
    "te",
    "upgrade",
    "trailer",
];

const CONTENT_TYPE: &str = "content-type";

/// What lets us in.
const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

fn is_one_of(text: &str, names: &[&str]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(text))
}

/// A header whose value stands in the file.
fn header_name(text: &str) -> Result<&str, String> {
    let name = token(text, &OURS)?;
    let is_open = !is_one_of(name, &CREDENTIALS);
    let expected = "a header without credentials, which [processor.auth] reads from a file";
    is_open.then_some(name).ok_or_else(|| expected.to_owned())
}

/// A header for one purpose, which is none that a request has already.
pub(crate) fn own_header_name(text: &str) -> Result<&str, String> {
    token(text, &[CONTENT_TYPE]).and_then(|name| token(name, &OURS))
}

/// A header's name, and none of these.
fn token<'a>(text: &'a str, ours: &[&str]) -> Result<&'a str, String> {
    if !is_header_name(text) {
        return Err("a header's name".to_owned());
    }
    if is_one_of(text, ours) {
        return Err("a header that Galo does not write itself".to_owned());
    }
    Ok(text)
}

/// Which head comes out; shared by requests, look-ups and health checks.
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a Url,
    pub(crate) auth: &'a Auth,
    pub(crate) key: KeyForm,
}

impl Head<'_> {
    /// Request line, `Host` and authorization.
    pub(crate) fn begin(&self, path: Template) -> Template {
        let mut template = Template::default();
        template.bytes(format!("{} {}", self.method, self.url.path_prefix));
        template.extend(path);
        template.bytes(format!(" HTTP/1.1\r\nHost: {}\r\n", self.url.authority));
        self.auth.write(&mut template);
        template
    }

    /// A table of headers; whether one of them is a content type. Each name is sent once, be it by the table, by `auth` or for the key.
    pub(crate) fn headers(
        &self,
        table: Option<Table<'_>>,
        key_header: Option<&str>,
        template: &mut Template,
    ) -> bool {
        let mut sent: Vec<(&str, &str)> = Vec::new();
        sent.extend(self.auth.header().map(|name| (name, "auth sends this one")));
        sent.extend(key_header.map(|name| (name, "idempotency sends this one")));
        if let Some(table) = &table
            && table.entries().count() > HEADERS_MAX
        {
            table.mistake(&format!("expected at most {HEADERS_MAX} headers"));
        }
        for (name, entry) in table.iter().flat_map(Table::entries) {
            if let Err(expected) = header_name(name) {
                entry.expected(&expected);
                continue;
            }
            if let Some((_, by)) = sent.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)) {
                entry.expected(&format!("each header once, in whatever case: {by}"));
                continue;
            }
            sent.push((name, "another one stands before it"));
            let parts = entry.read(|text| {
                is_header_value(text).then_some(()).ok_or("printable ASCII, no blanks at the ends")?;
                // Its own words would show what stands in the braces.
                let expected = |_| "braces in pairs, and no placeholder but {id} and {key}".to_owned();
                text::parts(text, Scope::Head).map_err(expected)
            });
            template.bytes(format!("{name}: "));
            template.extend(head_text(&parts.unwrap_or_default(), self.key));
            template.bytes("\r\n");
        }
        sent.iter().any(|(name, _)| is_one_of(name, &[CONTENT_TYPE]))
    }
}

/// A path or a header's value.
pub(crate) fn head_text(parts: &[Part], key: KeyForm) -> Template {
    let mut template = Template::default();
    for part in parts {
        match part {
            Part::Literal(text) => template.bytes(text),
            Part::Placeholder(Placeholder::Id) => template.push(Piece::Id),
            Part::Placeholder(Placeholder::Key) => template.push(Piece::Key(key)),
            Part::Placeholder(_) => unreachable!("the scope allows no other"),
        }
    }
    template
}

/// A path, checked and taken apart.
pub(crate) fn path(entry: &Entry<'_>, scope: Scope) -> Option<Vec<Part>> {
    entry.read(|text| {
        let plain = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#');
        if !text.starts_with('/') || !plain || text.len() > 1_024 {
            return Err("a path that begins with /, of printable ASCII without blanks and #".to_owned());
        }
        text::parts(text, scope)
    })
}

/// `{ as = "number" | "string" | "minor", exponent = 2 }`.
pub(crate) fn amount_form(table: &mut Table<'_>) -> AmountForm {
    let notations = [("number", Notation::Number), ("string", Notation::String), ("minor", Notation::Minor)];
    let notation = table.word("as", &notations).unwrap_or(Notation::Number);
    let exponent = table.number_or("exponent", 2, 0..=4);
    AmountForm { notation, exponent: u32::try_from(exponent).expect("at most 4") }
}

pub(crate) fn read_request(
    processor: &mut Table<'_>,
    url: &Url,
    auth: &Auth,
    key: &Key<'_>,
) -> Option<Request> {
    let mut table = processor.need("request", "a table with the keys path and body")?.table()?;
    let method =
        table.word("method", &[("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH")]).unwrap_or("POST");
    let path_entry = table.need("path", "the path that payments are sent to");
    let path = path_entry.as_ref().and_then(|entry| path(entry, Scope::Head)).unwrap_or_default();
    let amount = match table.table("amount") {
        None => AmountForm::DECIMAL,
        Some(mut amount) => {
            let form = amount_form(&mut amount);
            amount.finish();
            form
        }
    };
    let currency = table.read("currency", |text| {
        let usable = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        usable.then(|| text.to_owned()).ok_or_else(|| "a currency such as \"BRL\"".to_owned())
    });
    let format = table.word("format", &[("json", Format::Json), ("form", Format::Form)]);
    let format = format.unwrap_or(Format::Json);

    let head = Head { method, url, auth, key: key.public.key };
    let mut template = head.begin(head_text(&path, key.public.key));
    let has_type = head.headers(table.table("headers"), key.header, &mut template);
    if let Some(name) = key.header {
        template.bytes(format!("{name}: "));
        template.push(Piece::Key(key.public.key));
        template.bytes("\r\n");
    }
    let mut body = Body {
        format,
        amount,
        currency,
        key: key.public.key,
        out: Template::default(),
        is_key_there: false,
        members: Vec::new(),
    };
    match table.get("body") {
        Some(entry) => {
            if !has_type {
                template.bytes(format!("Content-Type: {}\r\n", format.content_type()));
            }
            if entry.table().is_some() {
                body.compile(&entry);
            }
        }
        None if key.place == KeyPlace::Body => table.missing("body", "a table with {key} in it"),
        None => {}
    }
    if body.out.size() > BODY_SIZE_MAX {
        table.mistake(&format!("body: expected at most {BODY_SIZE_MAX} bytes that are the same for all"));
    }
    if body.members.len() > CLIENT_MEMBERS_MAX {
        table.mistake(&format!("body: expected at most {CLIENT_MEMBERS_MAX} different {{client.NAME}}"));
    }
    let mut key_texts = vec![Placeholder::Key];
    if key.public.key == KeyForm::Hyphenated {
        key_texts.push(Placeholder::Id);
    }
    let missing = match key.place {
        KeyPlace::Path => (!text::names(&path, &key_texts)).then_some("request.path"),
        KeyPlace::Body => (!body.is_key_there).then_some("request.body"),
        KeyPlace::Header | KeyPlace::Nowhere => None,
    };
    if let Some(place) = missing {
        let text = format!("processor.idempotency: expected {{key}} in {place}, where the key is said to be");
        table.log().add(key.at, text);
    }
    table.finish();
    template.bytes("Content-Length: ");
    template.push(Piece::Body);
    template.extend(body.out);
    let needs_token = template.has(|piece| matches!(piece, Piece::Token));
    Some(Request { template, amount, client_members: body.members, needs_token })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Form,
}

impl Format {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }
}

/// A body while it is compiled.
struct Body {
    format: Format,
    amount: AmountForm,
    currency: Option<String>,
    key: KeyForm,
    out: Template,
    is_key_there: bool,
    members: Vec<String>,
}

impl Body {
    fn compile(&mut self, entry: &Entry<'_>) {
        match self.format {
            Format::Json => self.json(entry, 0),
            Format::Form => self.form(entry, &mut Vec::new(), 0),
        }
    }

    /// Whether a value may be absent: it is a client's member and nothing around it.
    fn optional(&self, entry: &Entry<'_>) -> Option<String> {
        match text::parts(entry.text()?, Scope::Body).ok()?.as_slice() {
            [Part::Placeholder(Placeholder::Client(name))] => Some(name.clone()),
            _ => None,
        }
    }

    fn forward(&mut self, name: &str) {
        if !self.members.iter().any(|member| member == name) {
            self.members.push(name.to_owned());
        }
    }

    fn parts(&mut self, entry: &Entry<'_>) -> Vec<Part> {
        let parts = entry.read(|text| text::parts(text, Scope::Body)).unwrap_or_default();
        self.is_key_there |= text::names(&parts, &[Placeholder::Key])
            || (self.key == KeyForm::Hyphenated && text::names(&parts, &[Placeholder::Id]));
        if text::names(&parts, &[Placeholder::Currency]) && self.currency.is_none() {
            entry.expected("a currency in request.currency for {currency}");
        }
        parts
    }

    fn too_deep(entry: &Entry<'_>, depth: usize) -> bool {
        if depth > BODY_DEPTH_MAX {
            entry.expected(&format!("at most {BODY_DEPTH_MAX} tables and lists in each other"));
        }
        depth > BODY_DEPTH_MAX
    }

    fn json(&mut self, entry: &Entry<'_>, depth: usize) {
        if Self::too_deep(entry, depth) {
            return;
        }
        match &entry.node.value {
            Value::Table(_) => {
                let members: Vec<_> = entry.table().iter().flat_map(Table::entries).collect();
                let varies = members.iter().any(|(_, member)| self.optional(member).is_some());
                self.out.bytes("{");
                for (index, (name, member)) in members.iter().enumerate() {
                    let mut prefix = b"\"".to_vec();
                    json_escape(name.as_bytes(), &mut prefix);
                    prefix.extend_from_slice(b"\":");
                    if let Some(client) = self.optional(member) {
                        self.forward(&client);
                        self.out.push(Piece::ClientMember(prefix, client));
                        continue;
                    }
                    if varies {
                        self.out.push(Piece::Comma);
                    } else if index > 0 {
                        self.out.bytes(",");
                    }
                    self.out.bytes(prefix);
                    self.json(member, depth + 1);
                }
                self.out.bytes("}");
            }
            Value::List(_) => {
                self.out.bytes("[");
                for (index, item) in entry.entries().iter().enumerate() {
                    if index > 0 {
                        self.out.bytes(",");
                    }
                    if let Some(client) = self.optional(item) {
                        self.forward(&client);
                        self.out.push(Piece::ClientEntry(client));
                    } else {
                        self.json(item, depth + 1);
                    }
                }
                self.out.bytes("]");
            }
            Value::Text(_) => {
                let parts = self.parts(entry);
                let is_amount = parts == [Part::Placeholder(Placeholder::Amount)];
                if is_amount && self.amount.notation != Notation::String {
                    self.out.push(Piece::Amount(self.amount));
                } else {
                    self.out.bytes("\"");
                    self.text(&parts, json_escape);
                    self.out.bytes("\"");
                }
            }
            _ => self.scalar(entry, json_escape),
        }
    }

    fn form(&mut self, entry: &Entry<'_>, name: &mut Vec<u8>, depth: usize) {
        if Self::too_deep(entry, depth) {
            return;
        }
        let mut inner = |body: &mut Self, key: &str, item: &Entry<'_>| {
            let before = name.len();
            if depth == 0 {
                form_encode(key.as_bytes(), name);
            } else {
                form_encode(format!("[{key}]").as_bytes(), name);
            }
            body.form(item, name, depth + 1);
            name.truncate(before);
        };
        match &entry.node.value {
            Value::Table(_) => {
                for (key, member) in entry.table().iter().flat_map(Table::entries) {
                    inner(self, key, &member);
                }
            }
            Value::List(_) => {
                for (index, item) in entry.entries().iter().enumerate() {
                    inner(self, &index.to_string(), item);
                }
            }
            _ => {
                let pair = [name.as_slice(), b"="].concat();
                if let Some(client) = self.optional(entry) {
                    self.forward(&client);
                    self.out.push(Piece::ClientPair(pair, client));
                    return;
                }
                self.out.push(Piece::And);
                self.out.bytes(pair);
                if entry.text().is_some() {
                    let parts = self.parts(entry);
                    self.text(&parts, form_encode);
                } else {
                    self.scalar(entry, form_encode);
                }
            }
        }
    }

    /// A number or a word, as it stands.
    fn scalar(&mut self, entry: &Entry<'_>, encode: fn(&[u8], &mut Vec<u8>)) {
        let text = entry.node.shown();
        let is_json = match &entry.node.value {
            Value::Bool(_) => true,
            Value::Integer(Some(number), _) => {
                self.out.bytes(number.to_string());
                return;
            }
            Value::Float(digits) => serde_json::from_str::<serde_json::Number>(digits).is_ok(),
            _ => false,
        };
        if !is_json {
            entry.expected("a text, a number of 64 bits, true, false, a list or a table");
            return;
        }
        let mut bytes = Vec::new();
        encode(text.as_bytes(), &mut bytes);
        self.out.bytes(bytes);
    }

    fn text(&mut self, parts: &[Part], encode: fn(&[u8], &mut Vec<u8>)) {
        let is_form = self.format == Format::Form;
        for part in parts {
            match part {
                Part::Literal(text) => {
                    let mut bytes = Vec::new();
                    encode(text.as_bytes(), &mut bytes);
                    self.out.bytes(bytes);
                }
                Part::Placeholder(placeholder) => match placeholder {
                    Placeholder::Id => self.out.push(Piece::Id),
                    Placeholder::Key => self.out.push(Piece::Key(self.key)),
                    Placeholder::Amount => self.out.push(Piece::Amount(self.amount)),
                    Placeholder::Currency => self.out.bytes(self.currency.as_deref().unwrap_or_default()),
                    Placeholder::RequestedAt if is_form => self.out.push(Piece::RequestedAtInForm),
                    Placeholder::RequestedAt => self.out.push(Piece::RequestedAt),
                    Placeholder::Client(name) => {
                        self.forward(name);
                        let place = if is_form { Place::Form } else { Place::JsonString };
                        self.out.push(Piece::Client(name.clone(), place));
                    }
                    Placeholder::Reference | Placeholder::From | Placeholder::To => {
                        unreachable!("the scope allows none of these")
                    }
                },
            }
        }
    }
}
