//! A table of the file, read key by key: each key is asked for by its name, and what nobody asked for is a mistake.
//!
//! Mistakes are gathered, not returned: a reader goes on with a stand-in, so that one run shows all of them. Whoever reads a
//! whole file looks into the [`Log`] in the end and believes nothing if there is one.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use crate::error::{At, Error};
use crate::tree::{Member, Node, Value};

/// The mistakes so far.
#[derive(Default)]
pub(crate) struct Log(RefCell<Vec<Error>>);

impl Log {
    pub(crate) fn add(&self, at: &At, text: String) {
        self.0.borrow_mut().push(Error::new(at, text));
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    pub(crate) fn into_errors(self) -> Vec<Error> {
        self.0.into_inner()
    }
}

/// One table while it is read.
pub(crate) struct Table<'a> {
    log: &'a Log,
    node: &'a Node,
    members: &'a [Member],
    path: String,
    asked: Vec<&'static str>,
}

/// One value and its name, for messages.
#[derive(Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) log: &'a Log,
    pub(crate) node: &'a Node,
    pub(crate) path: String,
}

/// Tables in which secrets stand by mistake: no message shows what is below them.
const SECRETIVE: [&str; 3] = ["auth", "hmac", "headers"];

impl<'a> Entry<'a> {
    /// Says what was expected here, and what is there, unless that may be a secret.
    pub(crate) fn expected(&self, expected: &str) {
        let is_below = self.path.split('.').any(|step| SECRETIVE.contains(&step));
        // A password in a URL, wherever it was put.
        if is_below || self.text().is_some_and(|text| text.contains('@')) {
            self.expected_secretly(expected);
        } else {
            self.expected_openly(expected);
        }
    }

    /// Likewise, where the value is surely no secret.
    pub(crate) fn expected_openly(&self, expected: &str) {
        self.log.add(&self.node.at, format!("{} = {}: expected {expected}", self.path, self.node.shown()));
    }

    /// Likewise, where the value must not be shown.
    pub(crate) fn expected_secretly(&self, expected: &str) {
        self.log.add(&self.node.at, format!("{}: expected {expected} (the value is not shown)", self.path));
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A text that `read` understands; what it says otherwise was expected.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&'a str) -> Result<T, String>) -> Option<T> {
        let value = self.text().ok_or_else(|| "a text".to_owned()).and_then(read);
        value.map_err(|expected| self.expected(&expected)).ok()
    }

    pub(crate) fn number(&self, range: &RangeInclusive<u64>) -> Option<u64> {
        let number = match self.node.value {
            Value::Integer(Some(number), _) => u64::try_from(number).ok(),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.expected(&format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    pub(crate) fn table(&self) -> Option<Table<'a>> {
        if let Value::Table(members) = &self.node.value {
            let (log, node, path) = (self.log, self.node, self.path.clone());
            return Some(Table { log, node, members, path, asked: Vec::new() });
        }
        self.expected("a table");
        None
    }

    /// The entries of a list; anything else stands for a list of itself.
    pub(crate) fn entries(&self) -> Vec<Self> {
        let entry = |node: &'a Node| Self { log: self.log, node, path: self.path.clone() };
        match &self.node.value {
            Value::List(nodes) => nodes.iter().map(entry).collect(),
            _ => vec![self.clone()],
        }
    }

    /// Likewise, of a list that must have some: an empty one would mean nothing at all, or everything.
    pub(crate) fn some_entries(&self, expected: &str) -> Vec<Self> {
        let entries = self.entries();
        if entries.is_empty() {
            self.expected(&format!("at least one {expected}"));
        }
        entries
    }
}

impl<'a> Table<'a> {
    pub(crate) fn of(node: &'a Node, path: &str, log: &'a Log) -> Option<Self> {
        Entry { log, node, path: path.to_owned() }.table()
    }

    /// The place of the table.
    pub(crate) fn at(&self) -> &'a At {
        &self.node.at
    }

    pub(crate) fn log(&self) -> &'a Log {
        self.log
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of a key, if it is there.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Entry<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let member = self.members.iter().find(|member| member.name == key)?;
        Some(Entry { log: self.log, node: &member.node, path: self.path_of(key) })
    }

    /// The value of a key that must be there.
    pub(crate) fn need(&mut self, key: &'static str, expected: &str) -> Option<Entry<'a>> {
        let entry = self.get(key);
        if entry.is_none() {
            self.missing(key, expected);
        }
        entry
    }

    pub(crate) fn missing(&self, key: &str, expected: &str) {
        self.log.add(self.at(), format!("{} is missing: expected {expected}", self.path_of(key)));
    }

    /// A mistake of the table as a whole.
    pub(crate) fn mistake(&self, text: &str) {
        self.log.add(self.at(), format!("{}: {text}", self.path));
    }

    pub(crate) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.get(key)?.number(&range)
    }

    pub(crate) fn number_or(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.number(key, range).unwrap_or(default)
    }

    /// A number, or a word that means there is none.
    pub(crate) fn number_or_word(
        &mut self,
        key: &'static str,
        word: &str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let entry = self.get(key)?;
        match entry.text() {
            None => entry.number(&range),
            Some(text) if text == word => None,
            Some(_) => {
                let (low, high) = (range.start(), range.end());
                entry.expected(&format!("a whole number from {low} to {high}, or \"{word}\""));
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let entry = self.get(key)?;
        match entry.node.value {
            Value::Bool(value) => Some(value),
            _ => {
                entry.expected("true or false");
                None
            }
        }
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<&'a str> {
        self.get(key)?.read(Ok)
    }

    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Option<T> {
        self.get(key)?.read(read)
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.get(key)?.read(|text| word(text, words))
    }

    pub(crate) fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        self.get(key)?.table()
    }

    /// All members, for tables whose names are free.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, Entry<'a>)> {
        self.members.iter().map(|member| {
            let (log, node) = (self.log, &member.node);
            (member.name.as_str(), Entry { log, node, path: self.path_of(&member.name) })
        })
    }

    /// Likewise, where nobody knows which of these keys belong to it.
    pub(crate) fn finish_whatever(mut self, keys: &[&'static str]) {
        self.asked.extend(keys);
        self.finish();
    }

    /// Names the keys that nobody asked for, and not their values: a secret may be among them.
    pub(crate) fn finish(self) {
        for member in self.members {
            if self.asked.iter().any(|asked| *asked == member.name) {
                continue;
            }
            let near = self.asked.iter().map(|asked| (distance(asked, &member.name), *asked)).min();
            let instead = match near {
                Some((steps, near)) if steps <= 2.max(member.name.len() / 3) => {
                    format!("did you mean {near}?")
                }
                _ => format!("expected one of {}", self.asked.join(", ")),
            };
            let path = self.path_of(&member.name);
            self.log.add(&member.at, format!("{path}: an unknown key; {instead}"));
        }
    }
}

/// Looks a word up; the error names all of them.
pub(crate) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        match words.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => words.concat(),
        }
    })
}

/// How many characters must be put in, taken out or exchanged to make one name of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, have) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, want) in to.iter().enumerate() {
            let exchanged = diagonal + usize::from(have != *want);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
