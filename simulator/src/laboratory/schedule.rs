//! A schedule: how many clients there are and how the processors do, from the first second to the last.
//!
//! One JSON file per schedule. The files of the contest's two processors are read by the laboratory and by the load script for
//! real processes alike, so that both play the same piece; those that name their own `processors`, one to eight, each with
//! its fee, are the laboratory's. All processors start healthy, without delay; each stage says how all of them do.
//!
//! ```json
//! {"name": "three", "seconds": 60, "processors": [{"name": "a", "fee_bps": 200}, {"name": "b", "fee_bps": 400}],
//!  "clients": [{"at_s": 0, "count": 100}],
//!  "stages": [{"at_s": 5, "a": {"delay_ms": 0, "failing": true}, "b": {"delay_ms": 0, "failing": false}}]}
//! ```
//!
//! Must never: guess. A field that is unknown, missing or out of its range is named together with the file.

use std::fmt;
use std::path::Path;

use galo_engine::{PROCESSORS_LEN_MAX, Processor};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Fees;

/// The longest schedule: an hour.
const SECONDS_MAX: u32 = 3_600;

/// The most clients at once: twenty times the contest's.
const CLIENTS_MAX: u32 = 10_000;

/// The longest delay. The gateway gives an attempt up after 30 s; what it does then is the fault simulator's subject.
const DELAY_MS_MAX: u32 = 20_000;

/// The contest's processors, which a schedule has that names none.
const PAIR: [&str; 2] = ["default", "fallback"];

/// The longest wait between the last POST and the comparison of the books.
const SETTLE_MS_MAX: u32 = 60_000;

/// A moment of a schedule, in milliseconds; in JSON, seconds with up to three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Milliseconds since the start.
    pub ms: u64,
}

impl Moment {
    /// That many milliseconds after the start.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// In microseconds.
    #[must_use]
    pub const fn us(self) -> u64 {
        self.ms * 1_000
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let ms = seconds * 1_000.0;
        if !(0.0..=f64::from(SECONDS_MAX) * 1_000.0).contains(&ms) || (ms - ms.round()).abs() > 1e-6 {
            return Err(D::Error::custom(format!(
                "{seconds} is no moment: expected seconds from 0 to {SECONDS_MAX} with at most three decimals"
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 3,600,000, as just checked"
        )]
        Ok(Self { ms: ms.round() as u64 })
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.ms.is_multiple_of(1_000) {
            serializer.serialize_u64(self.ms / 1_000)
        } else {
            // Below 2^53, so exact to the millisecond.
            #[expect(clippy::cast_precision_loss, reason = "at most 3,600,000")]
            serializer.serialize_f64(self.ms as f64 / 1_000.0)
        }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Schedule {
    /// What it is called.
    pub name: String,
    /// When the last POST is sent.
    pub seconds: u32,
    /// How long after that the books are compared. In the contest k6 lets sleeping clients end: about a second.
    pub settle_ms: u32,
    /// The processors; nobody: the contest's two, whose fees the schedule leaves open.
    pub processors: Vec<Member>,
    /// How many clients there are: linear between two points; two points at one moment are a jump.
    pub clients: Vec<ClientPoint>,
    /// How the processors do, from each moment on.
    pub stages: Vec<Stage>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's shape")]
fn is_zero(percent: &u32) -> bool {
    *percent == 0
}

fn settle_ms_default() -> u32 {
    1_000
}

/// A point of the line of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPoint {
    /// When.
    pub at_s: Moment,
    /// How many.
    pub count: u32,
}

/// A processor of a schedule that names its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What the stages call it.
    pub name: String,
    /// What it keeps, in basis points.
    pub fee_bps: u32,
}

/// How the processors do from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// From when on.
    pub at_s: Moment,
    /// By [`Processor::index`]; without trouble where there is no such processor.
    pub conditions: [Condition; PROCESSORS_LEN_MAX],
}

impl Stage {
    /// Of these processors, by number.
    ///
    /// # Panics
    /// If they are more than there can be.
    #[must_use]
    pub fn new(at_s: Moment, of: &[Condition]) -> Self {
        let mut conditions = [Condition::default(); PROCESSORS_LEN_MAX];
        conditions[..of.len()].copy_from_slice(of);
        Self { at_s, conditions }
    }
}

/// A schedule as it stands in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    seconds: u32,
    #[serde(default = "settle_ms_default")]
    settle_ms: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    processors: Vec<Member>,
    clients: Vec<ClientPoint>,
    stages: Vec<WrittenStage>,
}

/// A stage as it stands there: a condition for each processor, under its name.
struct WrittenStage {
    at_s: Moment,
    conditions: Vec<(String, Condition)>,
}

impl<'de> Deserialize<'de> for WrittenStage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap;

        impl<'de> Visitor<'de> for OfMap {
            type Value = WrittenStage;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a stage: at_s, and a condition for each processor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WrittenStage, A::Error> {
                let (mut at_s, mut conditions) = (None, Vec::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name == "at_s" {
                        at_s = Some(map.next_value()?);
                    } else if conditions.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format!("{name} stands in a stage twice")));
                    } else {
                        conditions.push((name, map.next_value()?));
                    }
                }
                let at_s = at_s.ok_or_else(|| A::Error::missing_field("at_s"))?;
                Ok(WrittenStage { at_s, conditions })
            }
        }

        deserializer.deserialize_map(OfMap)
    }
}

impl Serialize for WrittenStage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.conditions.len()))?;
        map.serialize_entry("at_s", &self.at_s)?;
        for (name, condition) in &self.conditions {
            map.serialize_entry(name, condition)?;
        }
        map.end()
    }
}

impl TryFrom<Written> for Schedule {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { name, seconds, settle_ms, processors, clients, stages } = written;
        let mut schedule = Self { name, seconds, settle_ms, processors, clients, stages: Vec::new() };
        schedule.check_processors()?;
        for (index, stage) in stages.into_iter().enumerate() {
            let find = |name: &str| stage.conditions.iter().find(|(other, _)| other == name).map(|it| it.1);
            let known: Vec<Condition> = schedule
                .names()
                .map(|name| find(name).ok_or_else(|| format!("stages[{index}]: missing field `{name}`")))
                .collect::<Result<_, _>>()?;
            if let Some((name, _)) =
                stage.conditions.iter().find(|(it, _)| !schedule.names().any(|name| name == it))
            {
                return Err(format!("stages[{index}]: unknown field `{name}`"));
            }
            schedule.stages.push(Stage::new(stage.at_s, &known));
        }
        Ok(schedule)
    }
}

impl From<Schedule> for Written {
    fn from(schedule: Schedule) -> Self {
        let stages = schedule.stages.iter().map(|stage| WrittenStage {
            at_s: stage.at_s,
            conditions: schedule.names().map(str::to_owned).zip(stage.conditions).collect(),
        });
        let stages = stages.collect();
        let Schedule { name, seconds, settle_ms, processors, clients, .. } = schedule;
        Self { name, seconds, settle_ms, processors, clients, stages }
    }
}

/// How a processor does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// How long each payment sleeps before anything else.
    pub delay_ms: u32,
    /// Whether all payments fail, after the delay.
    pub failing: bool,
    /// How many of a hundred fail although it is not failing.
    #[serde(default)]
    pub error_percent: u32,
    /// How many of a hundred are never answered, and stored after their callers have gone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unanswered_percent: u32,
    /// Of how many of a hundred the connection breaks before anything is stored.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reset_percent: u32,
}

/// Why a schedule cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {what}")]
pub struct ScheduleError {
    file: String,
    what: String,
}

/// The time in which a client exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From when on.
    pub start_us: u64,
    /// Until when; `u64::MAX` if to the end.
    pub end_us: u64,
}

impl Schedule {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// With the file, the field and what was expected.
    pub fn read(path: &Path) -> Result<Self, ScheduleError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ScheduleError { file: file.clone(), what: error.to_string() })?;
        Self::parse(&file, &text)
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(file: &str, text: &str) -> Result<Self, ScheduleError> {
        let error = |what: String| ScheduleError { file: file.to_owned(), what };
        let schedule: Self = serde_json::from_str(text).map_err(|cause| error(cause.to_string()))?;
        schedule.check().map_err(error)?;
        Ok(schedule)
    }

    /// Checks what types do not.
    ///
    /// # Errors
    /// The first field that is not as expected, with its value.
    pub fn check(&self) -> Result<(), String> {
        let within = |field: &str, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("{field} is {value}, expected {low} to {high}"))
            }
        };
        if self.name.is_empty() {
            return Err("name is empty".to_owned());
        }
        self.check_processors()?;
        within("seconds", self.seconds, 1, SECONDS_MAX)?;
        within("settle_ms", self.settle_ms, 0, SETTLE_MS_MAX)?;
        if self.clients.is_empty() {
            return Err("clients is empty, expected at least one point".to_owned());
        }
        for (index, point) in self.clients.iter().enumerate() {
            within(&format!("clients[{index}].count"), point.count, 0, CLIENTS_MAX)?;
            let earlier = index.checked_sub(1).map(|before| self.clients[before].at_s);
            if earlier.is_some_and(|earlier| earlier > point.at_s) {
                return Err(format!("clients[{index}].at_s is before the point above it"));
            }
            if index >= 2 && self.clients[index - 2].at_s == point.at_s {
                return Err(format!("clients[{index}].at_s is the third point at one moment"));
            }
        }
        for (index, stage) in self.stages.iter().enumerate() {
            let earlier = index.checked_sub(1).map(|before| self.stages[before].at_s);
            if earlier.is_some_and(|earlier| earlier >= stage.at_s) {
                return Err(format!("stages[{index}].at_s is not after the stage above it"));
            }
            for (name, condition) in self.names().zip(stage.conditions) {
                let field = |field: &str| format!("stages[{index}].{name}.{field}");
                within(&field("delay_ms"), condition.delay_ms, 0, DELAY_MS_MAX)?;
                within(&field("error_percent"), condition.error_percent, 0, 100)?;
                within(&field("unanswered_percent"), condition.unanswered_percent, 0, 100)?;
                within(&field("reset_percent"), condition.reset_percent, 0, 100)?;
            }
        }
        Ok(())
    }

    fn check_processors(&self) -> Result<(), String> {
        let count = self.processors.len();
        if count > PROCESSORS_LEN_MAX {
            return Err(format!("processors are {count}, expected {PROCESSORS_LEN_MAX} at most"));
        }
        for (index, Member { name, fee_bps }) in self.processors.iter().enumerate() {
            if name.is_empty() || name == "at_s" {
                return Err(format!("processors[{index}].name is {name:?}, which is none"));
            }
            if self.processors[..index].iter().any(|other| other.name == *name) {
                return Err(format!("processors[{index}].name is {name:?} again"));
            }
            if *fee_bps > 10_000 {
                return Err(format!("processors[{index}].fee_bps is {fee_bps}, expected 0 to 10000"));
            }
        }
        Ok(())
    }

    /// The processors, by number.
    pub fn processors(&self) -> impl Iterator<Item = Processor> {
        Processor::ALL.into_iter().take(self.names().count())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.processors.iter().map(|it| it.name.as_str());
        let pair = if self.processors.is_empty() { &PAIR[..] } else { &[] };
        pair.iter().copied().chain(own)
    }

    /// What they keep, if the schedule says so.
    #[must_use]
    pub fn fees(&self) -> Option<Fees> {
        let bps: Vec<u32> = self.processors.iter().map(|it| it.fee_bps).collect();
        (!bps.is_empty()).then(|| Fees::new(&bps))
    }

    /// Whether attempts may end without an answer.
    #[must_use]
    pub fn loses_answers(&self) -> bool {
        let loses = |it: &Condition| it.unanswered_percent > 0 || it.reset_percent > 0;
        self.stages.iter().any(|stage| stage.conditions.iter().any(loses))
    }

    /// When the last POST is sent.
    #[must_use]
    pub fn end_us(&self) -> u64 {
        u64::from(self.seconds) * 1_000_000
    }

    /// When the books are compared.
    #[must_use]
    pub fn final_us(&self) -> u64 {
        self.end_us() + u64::from(self.settle_ms) * 1_000
    }

    /// The clients' lives: a client exists while the line is at or above its number, and each time anew.
    #[must_use]
    pub fn lives(&self) -> Vec<Life> {
        let count_max = self.clients.iter().map(|point| point.count).max().unwrap_or(0);
        let mut lives = Vec::new();
        for number in 1..=count_max {
            let mut start_us = None;
            let mut before: Option<ClientPoint> = None;
            for point in &self.clients {
                // Before the first point there is nobody; a jump has no length.
                let (from_us, from) =
                    before.map_or((point.at_s.us(), 0), |before| (before.at_s.us(), before.count));
                let crossing_us = crossing(from_us, from, point.at_s.us(), point.count, number);
                match start_us {
                    None if point.count >= number => start_us = Some(crossing_us),
                    Some(start) if point.count < number => {
                        lives.push(Life { start_us: start, end_us: crossing_us });
                        start_us = None;
                    }
                    _ => {}
                }
                before = Some(*point);
            }
            lives.extend(start_us.map(|start_us| Life { start_us, end_us: u64::MAX }));
        }
        lives.sort_by_key(|life| life.start_us);
        lives
    }
}

/// When the line from one point to the next reaches `number`, upwards, or falls below it.
fn crossing(from_us: u64, from: u32, to_us: u64, to: u32, number: u32) -> u64 {
    let length_us = to_us - from_us;
    if to > from {
        from_us + (length_us * u64::from(number.saturating_sub(from))).div_ceil(u64::from(to - from))
    } else if from > to {
        from_us + (length_us * u64::from(from - number + 1)).div_ceil(u64::from(from - to))
    } else {
        to_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"name": "small", "seconds": 10,
        "clients": [{"at_s": 0, "count": 1}, {"at_s": 10, "count": 5}],
        "stages": [{"at_s": 1.5, "default": {"delay_ms": 100, "failing": false, "error_percent": 5}, "fallback": {"delay_ms": 0, "failing": true}}]}"#;

    #[test]
    fn a_schedule_is_read_and_written_back() {
        let schedule = Schedule::parse("small.json", SMALL).unwrap();
        assert_eq!((schedule.settle_ms, schedule.stages[0].at_s), (1_000, Moment::from_ms(1_500)));
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(Schedule::parse("again", &text).unwrap(), schedule);
    }

    #[test]
    fn a_schedule_may_name_its_own_processors() {
        let own = r#""processors": [{"name": "a", "fee_bps": 300}, {"name": "b", "fee_bps": 200}, {"name": "c", "fee_bps": 900}]"#;
        let text = SMALL.replace("\"clients\"", &format!("{own}, \"clients\""));
        let text = text.replace("default", "a").replace("fallback", "c").replace(
            "\"failing\": true}}",
            "\"failing\": true}, \"b\": {\"delay_ms\": 7, \"failing\": false, \"unanswered_percent\": 2}}",
        );
        let schedule = Schedule::parse("three.json", &text).unwrap();
        assert_eq!(schedule.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(schedule.fees(), Some(Fees::new(&[300, 200, 900])));
        assert_eq!(schedule.processors().map(Processor::index).collect::<Vec<_>>(), [0, 1, 2]);
        let delays = schedule.stages[0].conditions.map(|it| it.delay_ms);
        assert_eq!(delays, [100, 7, 0, 0, 0, 0, 0, 0]);
        assert!(schedule.loses_answers());
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(Schedule::parse("again", &text).unwrap(), schedule);
    }

    #[test]
    fn mistakes_are_named_with_file_and_field() {
        for (from, to, said) in [
            ("\"seconds\": 10", "\"seconds\": 0", "small.json: seconds is 0, expected 1 to 3600"),
            ("\"failing\": true", "\"failling\": true", "small.json: unknown field `failling`"),
            ("\"name\": \"small\", ", "", "small.json: missing field `name`"),
            ("\"at_s\": 10,", "\"at_s\": -1,", "small.json: -1 is no moment"),
            ("\"at_s\": 1.5", "\"at_s\": 1.50005", "small.json: 1.50005 is no moment"),
            ("\"fallback\"", "\"third\"", "small.json: stages[0]: missing field `fallback`"),
            (
                "}}]}",
                "}, \"third\": {\"delay_ms\": 0, \"failing\": true}}]}",
                "small.json: stages[0]: unknown field `third`",
            ),
            ("\"default\"", "\"fallback\"", "small.json: fallback stands in a stage twice"),
            (
                "\"seconds\": 10",
                "\"seconds\": 10, \"processors\": [{\"name\": \"a\", \"fee_bps\": 1}, {\"name\": \"a\", \"fee_bps\": 2}]",
                "small.json: processors[1].name is \"a\" again",
            ),
            ("\"at_s\": 0,", "\"at_s\": 11,", "small.json: clients[1].at_s is before the point above it"),
            ("\"delay_ms\": 100", "\"delay_ms\": 99999", "small.json: stages[0].default.delay_ms is 99999"),
            (
                "\"error_percent\": 5",
                "\"error_percent\": 101",
                "small.json: stages[0].default.error_percent is 101",
            ),
        ] {
            assert!(SMALL.contains(from));
            let error = Schedule::parse("small.json", &SMALL.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn clients_come_and_go_with_the_line() {
        let points = [(0, 1), (4_000, 5), (4_000, 8), (6_000, 8), (8_000, 4)];
        let clients = points.map(|(ms, count)| ClientPoint { at_s: Moment::from_ms(ms), count }).to_vec();
        let schedule = Schedule { clients, ..Schedule::parse("small.json", SMALL).unwrap() };
        let lives = schedule.lives();
        let starts: Vec<u64> = lives.iter().map(|life| life.start_us / 1_000).collect();
        assert_eq!(starts, [0, 1_000, 2_000, 3_000, 4_000, 4_000, 4_000, 4_000]);
        let mut ends: Vec<u64> = lives.iter().map(|life| life.end_us / 1_000).collect();
        ends.sort_unstable();
        assert_eq!(ends[..4], [6_500, 7_000, 7_500, 8_000]);
        assert!(ends[4..].iter().all(|end| *end == u64::MAX / 1_000));
    }
}
