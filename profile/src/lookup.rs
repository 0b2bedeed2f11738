//! `[processor.lookup]`: what a processor has stored for an id.
//!
//! A look-up settles doubts, so it must not make any: an answer that says nothing clearly is [`Said::Unclear`], and "not found"
//! is only what the profile calls so, on the last page of a list. What "not found" proves is another question, which the dispatcher
//! answers by the attempt's age and [`Lookup::not_found_after_ms`].

use std::ops::RangeInclusive;

use galo_engine::CorrelationId;
use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::timestamp;
use galo_engine::verdict::Text;

use crate::json::{Scalar, entries_at};
use crate::request::{Head, amount_form, path};
use crate::rules::{TEXT_SIZE_MAX, member_condition, pointer, reference, statuses};
use crate::secret::Secret;
use crate::table::{Entry, Table};
use crate::template::{AmountForm, KeyForm, Piece, Template, TimeForm, Unrenderable, Values, percent_encode};
use crate::text::{self, Part, Placeholder, Scope};

/// Pages of one look-up.
const PAGES_MAX: u64 = 100;

/// The state of a payment at its processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Charged.
    Processed,
    /// Taken; the result comes later.
    Pending,
    /// Refused for good.
    Declined,
}

/// What a processor has stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its state.
    pub state: State,
    /// `None`: the profile does not say where it stands, or what stands there is no amount.
    pub amount: Option<AmountCents>,
    /// `None`: the profile does not say where it stands, so ours holds.
    pub requested_at: Option<UnixMillis>,
    /// The processor's own name for it.
    pub reference: Option<String>,
    /// How many entries of this page are this payment, processed: more than one is a double charge.
    pub copies: u32,
}

/// What one answer of a look-up says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It is stored.
    Found(Found),
    /// It is not stored so far.
    NotFound,
    /// Another page must be read: [`Search::render`] gives the request.
    Again,
    /// Nothing that could be understood; ask again later.
    Unclear,
}

/// `[processor.lookup]`, compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// How long to wait between two look-ups of one payment.
    pub every_ms: u64,
    /// From what age of the last attempt on "not found" proves that it is not there; `None`: never.
    pub not_found_after_ms: Option<u64>,
    by_id: Template,
    by_reference: Option<Template>,
    margin_ms: u64,
    found: Vec<RangeInclusive<u16>>,
    not_found: Vec<RangeInclusive<u16>>,
    list: Option<List>,
    matches: Option<String>,
    states: Vec<(String, Text, State)>,
    amount: Option<(String, AmountForm)>,
    requested_at: Option<(String, TimeForm)>,
    reference: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct List {
    pointer: String,
    next: Option<Next>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Next {
    more: String,
    cursor: String,
    pages_max: u64,
}

impl Lookup {
    /// Begins a look-up. `requested_at` is the first attempt's, which bounds the list's time.
    #[must_use]
    pub fn search(
        &self,
        correlation_id: CorrelationId,
        requested_at: UnixMillis,
        reference: Option<&str>,
    ) -> Search<'_> {
        let reference = reference.filter(|_| self.by_reference.is_some()).map(str::to_owned);
        let was_named = reference.is_some();
        let (cursor, pages, best) = (None, 0, None);
        Search { lookup: self, correlation_id, requested_at, reference, was_named, cursor, pages, best }
    }

    /// Whether the profile says where the amount stands: then a payment without a readable one is not understood.
    #[must_use]
    pub const fn names_amount(&self) -> bool {
        self.amount.is_some()
    }

    /// Whether it tells a payment's time to the millisecond.
    #[must_use]
    pub fn tells_milliseconds(&self) -> bool {
        self.requested_at.as_ref().is_some_and(|(_, form)| *form != TimeForm::UnixSeconds)
    }

    /// Whether an answer is a list, of which one may be long.
    #[must_use]
    pub const fn is_list(&self) -> bool {
        self.list.is_some()
    }

    /// An entry, if it is this payment: what it says, or `None` where that is unclear.
    fn entry(&self, entry: &str, id: CorrelationId) -> Option<Option<Found>> {
        if let Some(pointer) = &self.matches
            && Scalar::at(entry, pointer).is_none_or(|scalar| read_id(&scalar.text) != Some(id))
        {
            return None;
        }
        Some(self.found(entry))
    }

    fn found(&self, entry: &str) -> Option<Found> {
        let says = |(pointer, text, state): &(String, Text, State)| {
            Scalar::at(entry, pointer).is_some_and(|scalar| text.is(&scalar.text)).then_some(*state)
        };
        let state =
            if self.states.is_empty() { State::Processed } else { self.states.iter().find_map(says)? };
        let amount = self.amount.as_ref();
        let amount = amount.and_then(|(pointer, form)| form.read(&Scalar::at(entry, pointer)?));
        let requested_at = match &self.requested_at {
            None => None,
            Some((pointer, form)) => Some(read_time(&Scalar::at(entry, pointer)?, *form)?),
        };
        let reference = self.reference.as_ref().and_then(|pointer| reference(entry, pointer));
        Some(Found { state, amount, requested_at, reference, copies: u32::from(state == State::Processed) })
    }
}

/// One look-up, which may take several requests.
#[derive(Clone, Debug)]
pub struct Search<'a> {
    lookup: &'a Lookup,
    correlation_id: CorrelationId,
    requested_at: UnixMillis,
    reference: Option<String>,
    /// The processor has named it, be it to be found by that or not.
    was_named: bool,
    cursor: Option<String>,
    pages: u64,
    best: Option<Found>,
}

impl Search<'_> {
    /// Writes the next request into the buffer, which is emptied first. It asks for the connection to be closed behind it.
    ///
    /// # Errors
    /// [`Unrenderable`]: no token, or the processor's reference is needed and not known.
    pub fn render(
        &self,
        now: UnixMillis,
        token: Option<&Secret>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Unrenderable> {
        let lookup = self.lookup;
        let template = match (&self.reference, &lookup.by_reference) {
            (Some(_), Some(template)) => template,
            _ => &lookup.by_id,
        };
        let values = Values {
            correlation_id: self.correlation_id,
            token,
            reference: self.reference.as_deref(),
            cursor: self.cursor.as_deref(),
            from: UnixMillis(self.requested_at.0.saturating_sub(lookup.margin_ms)),
            to: UnixMillis(now.0.max(self.requested_at.0).saturating_add(lookup.margin_ms)),
            ..Values::nothing()
        };
        template.render(&values, buffer)
    }

    /// Reads the answer to it.
    pub fn read(&mut self, status: u16, body: &[u8]) -> Said {
        if is_in(&self.lookup.not_found, status) {
            if self.reference.is_some() {
                return self.by_id_instead();
            }
            // It may be the processor's own word that there is something; and a page in the middle is no answer.
            let first = !self.was_named && self.pages == 0;
            return if first { Said::NotFound } else { Said::Unclear };
        }
        if !is_in(&self.lookup.found, status) {
            return Said::Unclear;
        }
        let Ok(body) = str::from_utf8(body) else { return Said::Unclear };
        let said = match &self.lookup.list {
            Some(list) if self.reference.is_none() => self.read_page(list, body),
            _ => match self.lookup.entry(body, self.correlation_id) {
                None if self.reference.is_some() => return self.by_id_instead(),
                entry => entry.flatten().map(Said::Found),
            },
        };
        said.unwrap_or(Said::Unclear)
    }

    /// The reference led to nothing. What was taken for one may be none: in an answer that no rule knows it may be the name of something else.
    fn by_id_instead(&mut self) -> Said {
        self.reference = None;
        if self.lookup.by_id.has(|it| matches!(it, Piece::Reference)) { Said::Unclear } else { Said::Again }
    }

    fn read_page(&mut self, list: &List, body: &str) -> Option<Said> {
        let entries = entries_at(body, &list.pointer)?;
        self.pages += 1;
        let mut unclear = false;
        for entry in &entries {
            match self.lookup.entry(entry, self.correlation_id) {
                None => {}
                Some(None) => unclear = true,
                Some(Some(found)) => self.best = Some(better(self.best.take(), found)),
            }
        }
        let is_processed = self.best.as_ref().is_some_and(|best| best.state == State::Processed);
        if is_processed {
            return self.best.take().map(Said::Found);
        }
        if unclear {
            return None;
        }
        let more = match &list.next {
            None => false,
            Some(next) => match Scalar::at(body, &next.more)?.text.as_ref() {
                "true" => true,
                "false" => false,
                _ => return None,
            },
        };
        match (&list.next, more) {
            (Some(next), true) => {
                if self.pages >= next.pages_max {
                    return None;
                }
                let cursor = Scalar::at(entries.last()?, &next.cursor)?.text.into_owned();
                // The same page again would never end.
                if cursor.is_empty()
                    || cursor.len() > 4 * TEXT_SIZE_MAX
                    || Some(&cursor) == self.cursor.as_ref()
                {
                    return None;
                }
                self.cursor = Some(cursor);
                Some(Said::Again)
            }
            _ if self.was_named && self.best.is_none() => None,
            _ => Some(self.best.take().map_or(Said::NotFound, Said::Found)),
        }
    }
}

fn is_in(ranges: &[RangeInclusive<u16>], status: u16) -> bool {
    ranges.iter().any(|range| range.contains(&status))
}

/// Of two entries of one payment, the one that has gone further: an earlier attempt may have been declined. Two that were charged have charged the
/// sum, if both amounts are known.
fn better(best: Option<Found>, other: Found) -> Found {
    let rank = |state| match state {
        State::Processed => 2,
        State::Pending => 1,
        State::Declined => 0,
    };
    match best {
        None => other,
        Some(best) => {
            let copies = best.copies + other.copies;
            let is_double = best.copies > 0 && other.copies > 0;
            let sum = || AmountCents::new(best.amount?.get().checked_add(other.amount?.get())?);
            let sum = is_double.then(sum);
            let further = if rank(other.state) > rank(best.state) { other } else { best };
            Found { copies, amount: sum.unwrap_or(further.amount), ..further }
        }
    }
}

/// An id as a processor gives it back: with or without hyphens, in either case.
pub(crate) fn read_id(text: &str) -> Option<CorrelationId> {
    if let Some(id) = CorrelationId::parse(text.as_bytes()) {
        return Some(id);
    }
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|number| CorrelationId(number.to_be_bytes()))
}

fn read_time(scalar: &Scalar<'_>, form: TimeForm) -> Option<UnixMillis> {
    let number = || {
        let plain = !scalar.text.is_empty() && scalar.text.bytes().all(|byte| byte.is_ascii_digit());
        scalar.text.parse::<u64>().ok().filter(|_| plain)
    };
    match form {
        TimeForm::Iso => timestamp::parse(&scalar.text).ok().filter(|_| scalar.is_text),
        TimeForm::UnixSeconds => number()?.checked_mul(1_000).map(UnixMillis),
        TimeForm::UnixMillis => number().map(UnixMillis),
    }
}

const TIME_FORMS: [(&str, TimeForm); 3] =
    [("iso", TimeForm::Iso), ("unix_s", TimeForm::UnixSeconds), ("unix_ms", TimeForm::UnixMillis)];

/// A path's pieces, by the form of its times.
fn lookup_text(parts: &[Part], key: KeyForm, time: TimeForm) -> Template {
    let mut template = Template::default();
    for part in parts {
        match part {
            Part::Literal(text) => template.bytes(text),
            Part::Placeholder(placeholder) => template.push(match placeholder {
                Placeholder::Id => Piece::Id,
                Placeholder::Key => Piece::Key(key),
                Placeholder::Reference => Piece::Reference,
                Placeholder::From => Piece::From(time),
                Placeholder::To => Piece::To(time),
                _ => unreachable!("the scope allows no other"),
            }),
        }
    }
    template
}

/// What the rest of the processor's table says that a look-up depends on.
pub(crate) struct Known {
    /// An attempt's and its connection's longest life.
    pub(crate) longest_ms: u64,
    /// A reference is read from answers to attempts.
    pub(crate) answers_name: bool,
    /// A request says which payment it is.
    pub(crate) is_named: bool,
}

/// Reads `[processor.lookup]`.
pub(crate) fn read_lookup(processor: &mut Table<'_>, head: &Head<'_>, known: &Known) -> Option<Lookup> {
    let Known { longest_ms, answers_name, is_named } = *known;
    let mut table = processor.table("lookup")?;
    let time = table.word("time", &TIME_FORMS).unwrap_or(TimeForm::Iso);
    let matches = table.get("matches").and_then(|entry| pointer(&entry));
    let list = table.get("list").and_then(|entry| pointer(&entry));
    if list.is_some() && matches.is_none() {
        table.missing("matches", "the pointer to the member of an entry that equals the payment's id");
    }
    let next = table.table("next").and_then(|next| read_next(next, list.is_some()));

    let mut headers = Template::default();
    head.headers(table.table("headers"), None, &mut headers);
    let end = |mut template: Template| {
        template.extend(headers.clone());
        template.bytes("Connection: close\r\n\r\n");
        template
    };
    let entry = table.need("path", "the path that a payment is looked up at");
    let parts = entry.as_ref().and_then(|entry| path(entry, Scope::Lookup)).unwrap_or_default();
    let ours = [Placeholder::Id, Placeholder::Key];
    if let Some(entry) = &entry
        && !parts.is_empty()
        && list.is_none()
        && !text::names(&parts, &ours)
        && !text::names(&parts, &[Placeholder::Reference])
    {
        entry.expected("{id}, {key} or {reference} in it, or a list to look through");
    }
    if let Some(entry) = &entry
        && text::names(&parts, &[Placeholder::Reference])
        && !answers_name
    {
        entry.expected(
            "an answer.reference beside {reference}, which nothing else can tell before the first look-up",
        );
    }
    let mut by_id = lookup_text(&parts, head.key, time);
    if let Some((_, parameter)) = &next {
        let has_query = parts.iter().any(|part| matches!(part, Part::Literal(text) if text.contains('?')));
        let mut name = vec![if has_query { b'&' } else { b'?' }];
        percent_encode(parameter.as_bytes(), &mut name);
        name.push(b'=');
        by_id.push(Piece::Cursor(name));
    }
    let by_id = end(head.begin(by_id));
    // Where `path` itself needs the reference it serves for both.
    let by_reference = match table.get("reference_path") {
        Some(entry) => {
            let parts = path(&entry, Scope::Lookup).unwrap_or_default();
            if !text::names(&parts, &[Placeholder::Reference]) {
                entry.expected("{reference} in it");
            } else if !answers_name && table.get("reference").is_none() {
                entry.expected(
                    "an answer.reference or a lookup.reference beside {reference}, or it is never known",
                );
            }
            Some(end(head.begin(lookup_text(&parts, head.key, time))))
        }
        None => text::names(&parts, &[Placeholder::Reference]).then(|| by_id.clone()),
    };

    let found = table.get("found").map_or_else(|| vec![200..=299], |entry| statuses(&entry));
    let not_found = table.get("not_found").map(|entry| {
        let not_found = statuses(&entry);
        let both = not_found.iter().cloned().flatten().find(|status| is_in(&found, *status));
        if let Some(status) = both {
            entry.expected(&format!(
                "no status of found, which is \"2xx\" where it is not written; {status} is one"
            ));
        }
        not_found
    });
    let not_found = not_found.unwrap_or_default();
    let states = table.get("state").map(|entry| read_states(&entry)).unwrap_or_default();
    let amount = table.table("amount").and_then(|mut amount| {
        let at = amount.need("pointer", "a JSON pointer").and_then(|entry| pointer(&entry));
        let form = amount_form(&mut amount);
        amount.finish();
        Some((at?, form))
    });
    let requested_at = table.table("requested_at").and_then(|mut time| {
        let at = time.need("pointer", "a JSON pointer").and_then(|entry| pointer(&entry));
        let form = time.word("as", &TIME_FORMS).unwrap_or(TimeForm::Iso);
        time.finish();
        Some((at?, form))
    });
    let reference = table.get("reference").and_then(|entry| pointer(&entry));
    let every_ms = table.number_or("every_ms", 1_000, 10..=3_600_000);
    let margin_ms = table.number_or("margin_s", 60, 0..=86_400) * 1_000;
    let not_found_after_ms = table.number_or_word("not_found_after_ms", "never", 0..=u64::MAX >> 1);
    if not_found_after_ms.is_some_and(|after_ms| after_ms < longest_ms)
        && let Some(entry) = table.get("not_found_after_ms")
    {
        entry.expected(&format!(
            "at least attempt_timeout_ms + connect_timeout_ms = {longest_ms}: before that an attempt may still arrive"
        ));
    }
    if not_found_after_ms.is_some()
        && !is_named
        && let Some(entry) = table.get("not_found_after_ms")
    {
        entry.expected(
            "{id} or {key} in the request: without them no payment can be found, and \"not found\" proves nothing",
        );
    }
    table.finish();
    let list = list.map(|pointer| List { pointer, next: next.map(|(next, _)| next) });
    Some(Lookup {
        every_ms,
        not_found_after_ms,
        by_id,
        by_reference,
        margin_ms,
        found,
        not_found,
        list,
        matches,
        states,
        amount,
        requested_at,
        reference,
    })
}

fn read_next(mut table: Table<'_>, has_list: bool) -> Option<(Next, String)> {
    if !has_list {
        table.mistake("expected only beside a list");
    }
    let mut at = |key, what| table.need(key, what).and_then(|entry| pointer(&entry));
    let more = at("more", "the pointer to the member that is true while there are more pages");
    let cursor =
        at("cursor", "the pointer to the member of a page's last entry that the next page begins behind");
    let parameter = table.need("cursor_parameter", "the query's name for it");
    let parameter = parameter.and_then(|entry| {
        entry.read(|text| {
            let usable = !text.is_empty() && text.len() <= 64;
            usable.then(|| text.to_owned()).ok_or_else(|| "a name of 1 to 64 bytes".to_owned())
        })
    });
    let pages_max = table.number_or("pages_max", 10, 1..=PAGES_MAX);
    table.finish();
    Some((Next { more: more?, cursor: cursor?, pages_max }, parameter?))
}

/// Ordered rules, of which none may hide a text of one behind it.
fn read_states(entry: &Entry<'_>) -> Vec<(String, Text, State)> {
    let mut states: Vec<(String, Text, State)> = Vec::new();
    for entry in entry.some_entries("[[processor.lookup.state]] table") {
        let Some(state) = entry.table().and_then(read_state) else { continue };
        let (pointer, text, _) = &state;
        let hides = |before: &Text| match (before, text) {
            (Text::Any, _) => true,
            // All others.
            (Text::OneOf(_), Text::Any) => false,
            (Text::OneOf(_), Text::OneOf(texts)) => texts.iter().any(|text| before.is(text)),
        };
        if states.iter().any(|(at, before, _)| at == pointer && hides(before)) {
            entry.expected(&format!(
                "other texts at {pointer:?} than the states before it have, which would hide it"
            ));
        }
        states.push(state);
    }
    states
}

fn read_state(table: Table<'_>) -> Option<(String, Text, State)> {
    let mut state = None;
    let condition = member_condition(table, |table| {
        let words =
            [("processed", State::Processed), ("pending", State::Pending), ("declined", State::Declined)];
        table.need("says", "\"processed\", \"pending\" or \"declined\"");
        state = table.word("says", &words);
    });
    let (pointer, text) = condition?;
    Some((pointer, text, state?))
}
