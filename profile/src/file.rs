//! The file as a whole: processors, routing, and whether one may take another's place while Galo runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use galo_engine::PROCESSORS_LEN_MAX;

use crate::error::{At, Error, Errors, shown};
use crate::files::Files;
use crate::processor::{Processor, read_processor};
use crate::routing::Routing;
use crate::shipped;
use crate::table::{Entry, Log, Table};
use crate::tree::{Member, Node, Value};
use crate::url::{self, Url};

/// A larger file is none of ours.
const FILE_SIZE_MAX: usize = 1 << 20;

/// All that Galo knows of its processors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Processors {
    processors: Vec<Processor>,
    /// The router's thresholds.
    pub routing: Routing,
}

impl Processors {
    /// Reads a file, and the files that it names.
    ///
    /// # Errors
    /// Every mistake that can be told, one line each.
    pub fn read(path: &Path) -> Result<Self, Errors> {
        Self::read_with(path, true)
    }

    /// Reads a file, and not the secrets and certificates that it names: for a process that needs names and numbers alone.
    ///
    /// # Errors
    /// Every mistake that can be told, one line each.
    pub fn read_without_secrets(path: &Path) -> Result<Self, Errors> {
        Self::read_with(path, false)
    }

    fn read_with(path: &Path, secrets: bool) -> Result<Self, Errors> {
        let name = path.display().to_string();
        let fail = |text| {
            let at = At { file: Rc::from(name.as_str()), line: 0 };
            Errors::new(vec![Error::new(&at, text)])
        };
        let bytes = fs::read(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
        if bytes.len() > FILE_SIZE_MAX {
            return Err(fail(format!("expected at most {FILE_SIZE_MAX} bytes; it has {}", bytes.len())));
        }
        let text = String::from_utf8(bytes).map_err(|_| fail("expected a text in UTF-8".to_owned()))?;
        let tree = Node::parse(&text, &Rc::from(name)).map_err(Errors::new)?;
        Self::of_tree(tree, path.parent().unwrap_or(Path::new(".")), secrets)
    }

    /// Reads a text. `name` stands before its mistakes; paths in it are relative to `folder`.
    ///
    /// # Errors
    /// Every mistake that can be told, one line each.
    pub fn parse(text: &str, name: &str, folder: &Path) -> Result<Self, Errors> {
        let tree = Node::parse(text, &Rc::from(name)).map_err(Errors::new)?;
        Self::of_tree(tree, folder, true)
    }

    /// What the environment variables of a Galo without a file mean: two processors with the profile `contest`.
    ///
    /// # Errors
    /// As [`Processors::parse`], with the variables' names.
    pub fn contest(
        default_url: &str,
        fallback_url: &str,
        fee_bps: [u32; 2],
        concurrency: u32,
        attempt_timeout_ms: u64,
    ) -> Result<Self, Errors> {
        let mut errors = Vec::new();
        let urls = [("PROCESSOR_DEFAULT_URL", default_url), ("PROCESSOR_FALLBACK_URL", fallback_url)];
        for (variable, url) in urls {
            if Url::parse(url).is_none() {
                let value = if url::may_hold_secret(url) { "(not shown)".to_owned() } else { shown(url) };
                errors.push(Error::without_file(format!("{variable}={value}: expected {}", url::EXPECTED)));
            }
        }
        let [default_bps, fallback_bps] = fee_bps.map(u64::from);
        for (variable, value, low, high) in [
            ("PROCESSOR_DEFAULT_FEE_BPS", default_bps, 0, 10_000),
            ("PROCESSOR_FALLBACK_FEE_BPS", fallback_bps, 0, 10_000),
            ("PROCESSOR_CONCURRENCY_MAX", u64::from(concurrency), 1, 10_000),
            ("ATTEMPT_TIMEOUT_MS", attempt_timeout_ms, 100, 3_600_000),
        ] {
            if !(low..=high).contains(&value) {
                let text = format!("{variable}=\"{value}\": expected a whole number from {low} to {high}");
                errors.push(Error::without_file(text));
            }
        }
        if !errors.is_empty() {
            return Err(Errors::new(errors));
        }
        let at = At { file: Rc::from("environment"), line: 0 };
        let node = |value| Node { at: at.clone(), value };
        // Beyond an attempt's life and what it may sleep inside, whatever the operator makes of the first.
        let absent_after_ms = 120_000.max(4 * attempt_timeout_ms);
        let number = |value: u64| Value::Integer(i64::try_from(value).ok(), value.to_string());
        let table = |members: Vec<(&str, Value)>| {
            let member = |(name, value): (&str, Value)| Member {
                name: name.to_owned(),
                at: at.clone(),
                node: node(value),
            };
            Value::Table(members.into_iter().map(member).collect())
        };
        let processor = |name: &str, url: &str, bps| {
            node(table(vec![
                ("name", Value::Text(name.to_owned())),
                ("profile", Value::Text("contest".to_owned())),
                ("url", Value::Text(url.to_owned())),
                ("attempt_timeout_ms", number(attempt_timeout_ms)),
                ("limits", table(vec![("concurrency", number(concurrency.into()))])),
                ("cost", table(vec![("basis_points", number(bps))])),
                ("lookup", table(vec![("not_found_after_ms", number(absent_after_ms))])),
            ]))
        };
        let both = vec![
            processor("default", default_url, default_bps),
            processor("fallback", fallback_url, fallback_bps),
        ];
        let routing = table(vec![("profile", Value::Text("contest".to_owned()))]);
        let tree = node(table(vec![("processor", Value::List(both)), ("routing", routing)]));
        Self::of_tree(tree, Path::new("."), true)
    }

    fn of_tree(tree: Node, folder: &Path, secrets: bool) -> Result<Self, Errors> {
        let log = Log::default();
        let tree = with_profiles(tree, &log);
        let files = Files { folder, are_read: secrets };
        let mut processors = Vec::new();
        let mut routing = Routing::STEADY;
        if let Some(mut table) = Table::of(&tree, "", &log) {
            let entry = table.need("processor", "1 to 8 [[processor]] tables");
            let entries = entry.as_ref().map(Entry::entries).unwrap_or_default();
            if let Some(entry) = &entry
                && !(1..=PROCESSORS_LEN_MAX).contains(&entries.len())
            {
                entry.expected("1 to 8 [[processor]] tables");
            }
            let tables = entries.iter().filter_map(Entry::table).take(PROCESSORS_LEN_MAX);
            for (place, mut table) in (0..).zip(tables) {
                let at = table.at();
                let profile = table.get("profile").map(|entry| entry.text().and_then(shipped::text));
                if profile == Some(None) {
                    // Reported already; without its profile everything else would be missing, too.
                    continue;
                }
                if let Some(processor) = read_processor(table, place, &files) {
                    check_unique(&processors, &processor, at, &log);
                    processors.push(processor);
                }
            }
            routing = Routing::read(table.table("routing"), Routing::STEADY);
            table.finish();
        }
        let errors = log.into_errors();
        if errors.is_empty() { Ok(Self { processors, routing }) } else { Err(Errors::new(errors)) }
    }

    /// The same processors, routed otherwise.
    #[must_use]
    pub fn with_routing(self, routing: Routing) -> Self {
        Self { routing, ..self }
    }

    /// Each processor, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Processor> {
        self.processors.iter()
    }

    /// How many there are: 1 to 8.
    #[must_use]
    pub fn count(&self) -> usize {
        self.processors.len()
    }

    /// The processor with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Processor> {
        self.processors.iter().find(|processor| processor.name == name)
    }

    /// The processor with this number.
    #[must_use]
    pub fn by_number(&self, number: u8) -> Option<&Processor> {
        self.processors.iter().find(|processor| processor.number == number)
    }

    /// The members of a client's POST that some processor's template names, sorted, each once.
    #[must_use]
    pub fn client_members(&self) -> Vec<&str> {
        let members = self.processors.iter().flat_map(|processor| processor.request.client_members());
        members.map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether this may take the place of `running` while payments are open. Names and numbers must stay as they are, since the
    /// journal knows processors by number; others may be added.
    ///
    /// # Errors
    /// What is in the way, in one line.
    pub fn may_replace(&self, running: &Self) -> Result<(), String> {
        for old in &running.processors {
            let (name, number) = (&old.name, old.number);
            match (self.by_name(name), self.by_number(number)) {
                (Some(new), _) if new.number == number => {}
                (Some(new), _) => {
                    return Err(format!(
                        "processor \"{name}\" has number {number} and cannot become number {}",
                        new.number
                    ));
                }
                (None, Some(new)) => {
                    return Err(format!(
                        "number {number} is processor \"{name}\" in the journal and cannot become \"{}\"",
                        new.name
                    ));
                }
                (None, None) => {
                    return Err(format!(
                        "processor \"{name}\" (number {number}) is missing: only a restart may drop it"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_unique(processors: &[Processor], new: &Processor, at: &At, log: &Log) {
    for old in processors {
        if old.name == new.name {
            log.add(at, format!("processor.name = {:?}: expected another name than the others'", new.name));
        }
        if old.number == new.number {
            let text = format!(
                "processor.number = {}: expected another number than \"{}\" has (without one, a processor's number is its place, from 0)",
                new.number, old.name
            );
            log.add(at, text);
        }
    }
}

/// Lays each `[[processor]]` over the profile that it names.
fn with_profiles(tree: Node, log: &Log) -> Node {
    let Node { at, value: Value::Table(members) } = tree else { return tree };
    let members = members.into_iter().map(|mut member| {
        if member.name == "processor" {
            let processors = match &mut member.node.value {
                Value::List(processors) => processors.as_mut_slice(),
                // `[processor]`: there is only one.
                _ => std::slice::from_mut(&mut member.node),
            };
            for processor in processors {
                if let Some(profile) = profile_of(processor, log) {
                    let nothing = Node { at: processor.at.clone(), value: Value::Bool(false) };
                    *processor = std::mem::replace(processor, nothing).over_profile(profile);
                }
            }
        }
        member
    });
    Node { at, value: Value::Table(members.collect()) }
}

fn profile_of(processor: &Node, log: &Log) -> Option<Node> {
    let node = &processor.member("profile")?.node;
    let entry = Entry { log, node, path: "processor.profile".to_owned() };
    let names: Vec<_> = shipped::names().map(|name| (name, name)).collect();
    let name = entry.read(|text| crate::table::word(text, &names))?;
    let text = shipped::text(name).expect("a name of the list");
    let file = Rc::from(format!("profile {name}"));
    // A shipped text that is no TOML fails the tests; here it would be a mistake like any other.
    match Node::parse(text, &file) {
        Ok(profile) => Some(profile),
        Err(errors) => {
            errors.iter().for_each(|error| entry.expected(&error.to_string()));
            None
        }
    }
}
