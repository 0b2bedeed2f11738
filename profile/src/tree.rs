//! A TOML text as a tree whose nodes know their lines, and one tree laid over another.
//!
//! `toml`'s own tree borrows from the text and sorts members by name. A body's members have an order, and a shipped profile's
//! values come from another text than a file's, so each node here owns its value and says where it stands.

use std::rc::Rc;

use toml::de::{DeTable, DeValue};

use crate::error::{At, Error, shown};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

/// A member of a table.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) at: At,
    pub(crate) node: Node,
}

/// Tables of a processor that are of a kind, and the keys that name it. No other table is: a body's members have any names.
const KINDS: [(&str, &str); 2] = [("auth", "kind"), ("idempotency", "in")];

/// What TOML knows, numbers by their digits.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    /// `None`: beyond 64 bits.
    Integer(Option<i64>, String),
    Float(String),
    Bool(bool),
    Date(String),
    List(Vec<Node>),
    /// In the order of the text.
    Table(Vec<Member>),
}

impl Node {
    /// Reads a text.
    ///
    /// # Errors
    /// Each place at which it is not TOML.
    pub(crate) fn parse(text: &str, file: &Rc<str>) -> Result<Self, Vec<Error>> {
        let lines = Lines::of(text, file);
        let (tree, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self { at: lines.at(0), value: table(tree.get_ref(), &lines) });
        }
        let error = |error: &toml::de::Error| {
            let at = lines.at(error.span().map_or(0, |span| span.start));
            Error::new(&at, format!("not TOML: {}", error.message()))
        };
        Err(errors.iter().map(error).collect())
    }

    /// The value as a message shows it.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            Value::Text(text) => shown(text),
            Value::Integer(_, digits) | Value::Float(digits) | Value::Date(digits) => digits.clone(),
            Value::Bool(value) => value.to_string(),
            Value::List(_) => "[…]".to_owned(),
            Value::Table(_) => "{…}".to_owned(),
        }
    }

    /// The member with this name, if this is a table that has one.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        match &self.value {
            Value::Table(members) => members.iter().find(|member| member.name == name),
            _ => None,
        }
    }

    /// The text of the member with this name.
    fn text(&self, name: &str) -> Option<&str> {
        match &self.member(name)?.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A processor's table over its profile's.
    ///
    /// A table that is of another kind than the profile's has nothing to do with it.
    pub(crate) fn over_profile(self, mut profile: Self) -> Self {
        let is_of_another_kind = |below: &Member| {
            let key = KINDS.iter().find(|(table, _)| *table == below.name).map(|(_, key)| *key);
            let kinds = key.and_then(|key| {
                let kind = self.member(&below.name)?.node.text(key)?;
                Some((kind, below.node.text(key)))
            });
            kinds.is_some_and(|(above, below)| Some(above) != below)
        };
        if let Value::Table(members) = &mut profile.value {
            members.retain(|below| !is_of_another_kind(below));
        }
        self.over(profile)
    }

    /// This tree's values wherever it has some, and `under`'s where it has none. Tables are laid over each other member by member;
    /// lists are not joined.
    fn over(self, under: Self) -> Self {
        let at = self.at;
        match (self.value, under.value) {
            (Value::Table(upper), Value::Table(lower)) => {
                Self { value: Value::Table(members_over(upper, lower, &at)), at }
            }
            (value, _) => Self { value, at },
        }
    }

    /// The same with all tables at one place: what is missing in a profile's table is missing where the profile is used.
    fn tables_at(mut self, at: &At) -> Self {
        if let Value::Table(members) = &mut self.value {
            self.at = at.clone();
            let moved = std::mem::take(members).into_iter();
            *members = moved.map(|member| Member { node: member.node.tables_at(at), ..member }).collect();
        }
        self
    }
}

fn members_over(upper: Vec<Member>, lower: Vec<Member>, at: &At) -> Vec<Member> {
    let mut upper: Vec<Option<Member>> = upper.into_iter().map(Some).collect();
    let mut members = Vec::new();
    for below in lower {
        let above = upper
            .iter_mut()
            .find(|above| above.as_ref().is_some_and(|above| above.name == below.name))
            .and_then(Option::take);
        members.push(match above {
            None => Member { node: below.node.tables_at(at), ..below },
            Some(above) => Member { node: above.node.over(below.node), ..above },
        });
    }
    members.extend(upper.into_iter().flatten());
    members
}

/// Where lines begin.
struct Lines<'a> {
    file: &'a Rc<str>,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &str, file: &'a Rc<str>) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        Self { file, starts: std::iter::once(0).chain(ends).collect() }
    }

    fn at(&self, offset: usize) -> At {
        let line = self.starts.partition_point(|start| *start <= offset);
        At { file: Rc::clone(self.file), line }
    }
}

fn table(members: &DeTable<'_>, lines: &Lines<'_>) -> Value {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(name, _)| name.span().start);
    let member = |(name, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
        let at = lines.at(name.span().start);
        let mut node = node(value, lines);
        if matches!(node.value, Value::Table(_)) {
            // A table made by a dotted key or by a table further down has a place of its own in no text.
            node.at = at.clone();
        }
        Member { name: name.get_ref().to_string(), at, node }
    };
    Value::Table(members.into_iter().map(member).collect())
}

fn node(value: &toml::Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let at = lines.at(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::Integer(parsed.ok(), number.to_string())
        }
        DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(list) => Value::List(list.iter().map(|entry| node(entry, lines)).collect()),
        DeValue::Table(members) => table(members, lines),
    };
    Node { at, value }
}
