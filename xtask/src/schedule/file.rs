//! The schedule file: how many clients when, and what the processors go through meanwhile.
//!
//! ```json
//! {"name": "contest", "seconds": 60, "settle_ms": 1000,
//!  "clients": [{"at_s": 0, "count": 1}, {"at_s": 60, "count": 500}],
//!  "stages": [{"at_s": 12.5, "default": {"delay_ms": 100, "failing": false, "error_percent": 5},
//!              "fallback": {"delay_ms": 0, "failing": false}}]}
//! ```
//!
//! `clients` is a line from point to point, a jump where two points share a time, level behind the last. Both processors begin
//! healthy; a stage says everything about both, and what it leaves out is healthy. The load ends after `seconds`, and
//! `settle_ms` (1000 if absent) later the books are closed. k6 reads the same file, so nothing may pass here that it would
//! misread: unknown members, times out of order, more decimals than a unit has. A bad file is one line: file, field, what was
//! expected, what was found.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::decimal::scaled;
use crate::repo::Fallible;

/// An hour: more is a slip.
const LENGTH_MS_MAX: u64 = 3_600_000;
/// k6 allocates every client at the start; a machine's descriptors end before this.
const CLIENT_COUNT_MAX: u64 = 20_000;
const SETTLE_MS_DEFAULT: u64 = 1_000;
/// Of an error message, so much of the value found.
const FOUND_CHARS_MAX: usize = 60;

/// A checked file.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) length_ms: u64,
    pub(crate) settle_ms: u64,
    pub(crate) client_count_max: u64,
    /// By time, no two at once.
    pub(crate) stages: Vec<Stage>,
}

/// What both processors are from a time on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stage {
    pub(crate) at_ms: u64,
    /// Default's, then fallback's.
    pub(crate) states: [State; 2],
}

/// One processor's settings.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct State {
    pub(crate) delay_ms: u64,
    pub(crate) failing: bool,
    /// Payments out of a million that are answered 500 although nothing fails.
    pub(crate) error_ppm: u64,
}

impl Schedule {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// One line with the file, the field, and what was expected there.
    pub(crate) fn read(path: &Path) -> Fallible<Self> {
        let name = path.display();
        let text = fs::read(path).map_err(|error| format!("{name}: cannot read it: {error}"))?;
        // k6 reads it from a folder of its own.
        let absolute = path.canonicalize().map_err(|error| format!("{name}: {error}"))?;
        Self::parse(absolute, &text).map_err(|error| format!("{name}: {error}"))
    }

    fn parse(path: PathBuf, text: &[u8]) -> Fallible<Self> {
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
        let root = Field { path: String::new(), value: Some(&value) };
        let object = root.object("an object", &["name", "seconds", "settle_ms", "clients", "stages"])?;
        let length_ms = object.member("seconds").milliseconds(1..=LENGTH_MS_MAX)?;
        let settle_ms = object
            .member("settle_ms")
            .optional()
            .map_or(Ok(SETTLE_MS_DEFAULT), |field| field.whole("milliseconds", 0..=60_000))?;
        let schedule = Self {
            path,
            name: object.member("name").name()?,
            length_ms,
            settle_ms,
            client_count_max: read_clients(&object.member("clients"), length_ms)?,
            stages: read_stages(&object.member("stages"), length_ms + settle_ms)?,
        };
        Ok(schedule)
    }
}

/// Checks the line of clients; the most of them. The line itself is k6's to follow.
fn read_clients(field: &Field<'_>, length_ms: u64) -> Fallible<u64> {
    let (mut count_max, mut earliest_ms) = (0, 0);
    for (index, point) in field.list("a list of points in time")?.iter().enumerate() {
        let object = point.object("an object", &["at_s", "count"])?;
        let latest_ms = if index == 0 { 0 } else { length_ms };
        let at = object.member("at_s");
        earliest_ms = at.milliseconds(earliest_ms..=latest_ms)?;
        count_max = count_max.max(object.member("count").whole("clients", 0..=CLIENT_COUNT_MAX)?);
    }
    if count_max == 0 {
        return Err(field.expected("a point at 0 s, and a count above 0 somewhere"));
    }
    Ok(count_max)
}

fn read_stages(field: &Field<'_>, latest_ms: u64) -> Fallible<Vec<Stage>> {
    let mut stages = Vec::new();
    let mut earliest_ms = 0;
    for stage in field.list("a list of stages")? {
        let object = stage.object("an object", &["at_s", "default", "fallback"])?;
        let at_ms = object.member("at_s").milliseconds(earliest_ms..=latest_ms)?;
        // Two stages at once would leave their order to chance.
        earliest_ms = at_ms + 1;
        let states = [read_state(&object.member("default"))?, read_state(&object.member("fallback"))?];
        stages.push(Stage { at_ms, states });
    }
    Ok(stages)
}

fn read_state(field: &Field<'_>) -> Fallible<State> {
    let object = field.object("a processor's settings", &["delay_ms", "failing", "error_percent"])?;
    let healthy = State::default();
    Ok(State {
        delay_ms: object
            .member("delay_ms")
            .optional()
            .map_or(Ok(healthy.delay_ms), |field| field.whole("milliseconds", 0..=LENGTH_MS_MAX))?,
        failing: object.member("failing").optional().map_or(Ok(healthy.failing), |field| field.switch())?,
        error_ppm: object
            .member("error_percent")
            .optional()
            .map_or(Ok(healthy.error_ppm), |field| field.ppm_of_percent())?,
    })
}

/// A value, or the lack of one, and the way to it for the error's sake.
struct Field<'a> {
    path: String,
    value: Option<&'a Value>,
}

/// An object all of whose members are known.
struct Object<'a> {
    path: String,
    members: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    fn member(&self, name: &str) -> Field<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Field { path, value: self.members.get(name) }
    }
}

impl<'a> Field<'a> {
    fn expected(&self, what: &str) -> String {
        let at = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        let Some(value) = self.value else { return format!("{at}missing, expected {what}") };
        let text = value.to_string();
        let mut found: String = text.chars().take(FOUND_CHARS_MAX).collect();
        if found.len() < text.len() {
            found.push('…');
        }
        format!("{at}expected {what}, found {found}")
    }

    fn optional(self) -> Option<Self> {
        self.value.is_some().then_some(self)
    }

    fn object(&self, what: &str, known: &[&str]) -> Fallible<Object<'a>> {
        let members = self.value.and_then(Value::as_object).ok_or_else(|| self.expected(what))?;
        let object = Object { path: self.path.clone(), members };
        match members.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!(
                "{}: unknown member, expected one of {}",
                object.member(name).path,
                known.join(", ")
            )),
            None => Ok(object),
        }
    }

    fn list(&self, what: &str) -> Fallible<Vec<Self>> {
        let list = self.value.and_then(Value::as_array).ok_or_else(|| self.expected(what))?;
        let element = |(index, value)| Self { path: format!("{}[{index}]", self.path), value: Some(value) };
        Ok(list.iter().enumerate().map(element).collect())
    }

    fn name(&self) -> Fallible<String> {
        let name = self.value.and_then(Value::as_str).filter(|name| !name.trim().is_empty());
        name.map(str::to_owned).ok_or_else(|| self.expected("a name"))
    }

    fn switch(&self) -> Fallible<bool> {
        self.value.and_then(Value::as_bool).ok_or_else(|| self.expected("true or false"))
    }

    fn whole(&self, unit: &str, range: RangeInclusive<u64>) -> Fallible<u64> {
        let number = self.value.and_then(Value::as_u64).filter(|number| range.contains(number));
        number.ok_or_else(|| {
            self.expected(&format!("a whole number of {unit} from {} to {}", range.start(), range.end()))
        })
    }

    /// Seconds with up to three decimals, within `range` of milliseconds.
    fn milliseconds(&self, range: RangeInclusive<u64>) -> Fallible<u64> {
        let number = self.decimal(3).filter(|ms| range.contains(ms));
        let text = |ms: &u64| match ms % 1000 {
            0 => format!("{}", ms / 1000),
            rest => format!("{}.{rest:03}", ms / 1000),
        };
        number.ok_or_else(|| {
            let (start, end) = (text(range.start()), text(range.end()));
            let what = if start == end {
                format!("{end} seconds")
            } else {
                format!("seconds from {start} to {end}, to the millisecond")
            };
            self.expected(&what)
        })
    }

    fn ppm_of_percent(&self) -> Fallible<u64> {
        let ppm = self.decimal(4).filter(|ppm| *ppm <= 1_000_000);
        ppm.ok_or_else(|| self.expected("a percentage from 0 to 100 with at most four decimals"))
    }

    fn decimal(&self, places: usize) -> Option<u64> {
        match self.value? {
            Value::Number(number) => scaled(&number.to_string(), places),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> Value {
        json!({
            "name": "contest", "seconds": 60, "settle_ms": 1000,
            "clients": [{"at_s": 0, "count": 1}, {"at_s": 30, "count": 100}, {"at_s": 30, "count": 300}, {"at_s": 60, "count": 500}],
            "stages": [
                {"at_s": 1, "default": {"delay_ms": 0, "failing": false, "error_percent": 2.5},
                 "fallback": {"delay_ms": 0, "failing": false}},
                {"at_s": 12.5, "default": {"delay_ms": 2000, "failing": true}, "fallback": {}},
            ],
        })
    }

    fn parse(value: &Value) -> Fallible<Schedule> {
        Schedule::parse(PathBuf::from("x.json"), value.to_string().as_bytes())
    }

    #[test]
    fn a_file_says_when_and_what() {
        let schedule = parse(&good()).unwrap();
        assert_eq!(
            (schedule.name.as_str(), schedule.length_ms, schedule.settle_ms),
            ("contest", 60_000, 1_000)
        );
        assert_eq!(schedule.client_count_max, 500);
        let healthy = State::default();
        let expected = [
            Stage { at_ms: 1_000, states: [State { error_ppm: 25_000, ..healthy }, healthy] },
            Stage {
                at_ms: 12_500,
                states: [State { delay_ms: 2_000, failing: true, error_ppm: 0 }, healthy],
            },
        ];
        assert_eq!(schedule.stages, expected);
    }

    #[test]
    fn what_may_be_left_out_has_its_default() {
        let mut value = good();
        value.as_object_mut().unwrap().remove("settle_ms");
        value["stages"] = json!([]);
        let schedule = parse(&value).unwrap();
        assert_eq!((schedule.settle_ms, schedule.stages.len()), (1_000, 0));
    }

    #[test]
    fn each_mistake_is_one_line_with_its_field() {
        let cases = [
            ("/name", json!(""), r#"name: expected a name, found """#),
            (
                "/seconds",
                json!(0),
                "seconds: expected seconds from 0.001 to 3600, to the millisecond, found 0",
            ),
            (
                "/seconds",
                json!("60"),
                r#"seconds: expected seconds from 0.001 to 3600, to the millisecond, found "60""#,
            ),
            (
                "/settle_ms",
                json!(-1),
                "settle_ms: expected a whole number of milliseconds from 0 to 60000, found -1",
            ),
            ("/clients", json!(7), "clients: expected a list of points in time, found 7"),
            (
                "/clients",
                json!([]),
                "clients: expected a point at 0 s, and a count above 0 somewhere, found []",
            ),
            ("/clients/0/at_s", json!(1), "clients[0].at_s: expected 0 seconds, found 1"),
            (
                "/clients/3/at_s",
                json!(29.5),
                "clients[3].at_s: expected seconds from 30 to 60, to the millisecond, found 29.5",
            ),
            (
                "/clients/3/at_s",
                json!(60.5),
                "clients[3].at_s: expected seconds from 30 to 60, to the millisecond, found 60.5",
            ),
            (
                "/clients/1/count",
                json!(1.5),
                "clients[1].count: expected a whole number of clients from 0 to 20000, found 1.5",
            ),
            (
                "/stages/1/at_s",
                json!(1),
                "stages[1].at_s: expected seconds from 1.001 to 61, to the millisecond, found 1",
            ),
            (
                "/stages/1/at_s",
                json!(12.3456),
                "stages[1].at_s: expected seconds from 1.001 to 61, to the millisecond, found 12.3456",
            ),
            (
                "/stages/0/default",
                json!(null),
                "stages[0].default: expected a processor's settings, found null",
            ),
            (
                "/stages/0/default/delay_ms",
                json!(-3),
                "stages[0].default.delay_ms: expected a whole number of milliseconds from 0 to 3600000, found -3",
            ),
            (
                "/stages/0/fallback/failing",
                json!(0),
                "stages[0].fallback.failing: expected true or false, found 0",
            ),
            (
                "/stages/0/default/error_percent",
                json!(101),
                "stages[0].default.error_percent: expected a percentage from 0 to 100 with at most four decimals, found 101",
            ),
        ];
        for (pointer, bad, expected) in cases {
            let mut value = good();
            *value.pointer_mut(pointer).unwrap() = bad;
            assert_eq!(parse(&value).unwrap_err(), expected);
        }
    }

    #[test]
    fn missing_and_unknown_members_are_named() {
        for name in ["name", "seconds", "clients", "stages"] {
            let mut value = good();
            value.as_object_mut().unwrap().remove(name);
            let error = parse(&value).unwrap_err();
            assert!(error.starts_with(&format!("{name}: missing, expected ")), "{error}");
        }
        let mut value = good();
        value["stages"][1]["default"]["failling"] = json!(true);
        assert_eq!(
            parse(&value).unwrap_err(),
            "stages[1].default.failling: unknown member, expected one of delay_ms, failing, error_percent"
        );
        let error = Schedule::parse(PathBuf::new(), b"{\"name\": }").unwrap_err();
        assert_eq!(error, "not JSON: expected value at line 1 column 10");
    }
}
